"""How risky an account's state is, and what it may not do in it.

A losing streak or a poor hit rate counts for `cooldown_bars` after the last exit and is then forgiven: an account that
may not trade could otherwise never win again.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from ploutos.envs.kernel import OUTCOMES_KEPT
from ploutos.envs.ledger import Accounts
from ploutos.envs.observation import read_only
from ploutos.fusion.spec import RiskSpec
from ploutos.types import BoolArray, FloatArray, IntArray

_FEW_TRADES = 5
compiled = njit(cache=True, nogil=True, error_model="numpy")


@dataclass(frozen=True)
class RiskHistory:
    """What accounts have gone through, after the close of a bar; n accounts, s symbols.

    Attributes:
        drawdown: shape (n,), decimal, <= 0.
        losses: shape (n, s), losing trades in a row that still count.
        poor: shape (n, s), the hit rate is too low and still counts.
        spec: the limits.
    """

    drawdown: FloatArray
    losses: FloatArray
    poor: BoolArray
    spec: RiskSpec

    @classmethod
    def of(cls, accounts: Accounts, bar: int, spec: RiskSpec) -> "RiskHistory":
        """Of every account at a bar."""
        streaks, outcomes, counts, exits = map(read_only, (accounts.loss_streak, accounts.outcomes, accounts.n_outcomes, accounts.exit_bar))
        losses, poor = _history(streaks, outcomes, counts, exits, bar - spec.cooldown_bars, spec.min_win_rate)
        return cls(accounts.drawdown, losses, poor, spec)

    def scores(self) -> FloatArray:
        """Risk of each account and symbol, 0..1, shape (n, s).

        0.4 for as many losses in a row as allowed (0.2 times their share below that), 0.3 for a high drawdown, 0.3 for a poor
        hit rate.
        """
        scores: FloatArray = _scores(self.drawdown, self.losses, self.poor, self.spec.max_consecutive_losses, self.spec.high_drawdown)
        return scores

    def veto(self, targets: FloatArray, held: FloatArray) -> FloatArray:
        """Cancel forbidden orders.

        Entering a symbol, from cash or from the other side, is forbidden after too many losses in a row or with a poor hit
        rate. Entering or adding to any symbol is forbidden when too little of the allowed drawdown is left. Reducing is never
        forbidden: of a forbidden reversal the closing half remains.

        Args:
            targets: shape (n, s), share of equity wanted, nan for no order.
            held: the same shape, share of equity held, signed.

        Returns:
            Targets with nan, or 0 for a reversal, where an order was forbidden.
        """
        limits = self.spec.max_consecutive_losses, self.spec.allowed_drawdown, self.spec.min_drawdown_buffer
        left: FloatArray = _veto(targets, held, self.drawdown, self.losses, self.poor, *limits)
        return left


@compiled
def _history(
    loss_streak: IntArray, outcomes: IntArray, n_outcomes: IntArray, exit_bar: IntArray, since: int, min_win_rate: float
) -> tuple[FloatArray, BoolArray]:
    """Losses in a row and whether the hit rate is poor, shape (n, s) each; both count from an exit at bar `since` on."""
    losses, poor = np.zeros(loss_streak.shape), np.zeros(loss_streak.shape, np.bool_)
    for i in range(exit_bar.shape[0]):
        for j in range(exit_bar.shape[1]):
            if exit_bar[i, j] >= max(since, 0):
                wins, trades = 0, n_outcomes[i, j]
                for k in range(OUTCOMES_KEPT):
                    wins += (outcomes[i, j] >> k) & 1
                losses[i, j] = loss_streak[i, j]
                poor[i, j] = trades >= _FEW_TRADES and wins / trades < min_win_rate
    return losses, poor


@compiled
def _scores(drawdown: FloatArray, losses: FloatArray, poor: BoolArray, limit: int, high_drawdown: float) -> FloatArray:
    """The scores of `RiskHistory.scores`."""
    scores = np.empty(losses.shape)
    for i in range(losses.shape[0]):
        for j in range(losses.shape[1]):
            score = 0.4 if losses[i, j] >= limit else 0.2 * losses[i, j] / limit
            score += 0.3 * (-drawdown[i] > high_drawdown)
            scores[i, j] = min(score + 0.3 * poor[i, j], 1.0)
    return scores


@compiled
def _veto(
    targets: FloatArray, held: FloatArray, drawdown: FloatArray, losses: FloatArray, poor: BoolArray,
    max_losses: int, allowed: float, min_buffer: float,
) -> FloatArray:  # fmt: skip
    """What `RiskHistory.veto` leaves of targets."""
    left = targets.copy()
    for i in range(left.shape[0]):
        spent = 1.0 + drawdown[i] / allowed < min_buffer
        for j in range(left.shape[1]):
            target, share = targets[i, j], held[i, j]
            enters = abs(target) > 0.0 and (share == 0.0 or (target > 0.0) != (share > 0.0))
            adds = enters or abs(target) > abs(share)
            in_cooldown = losses[i, j] >= max_losses or poor[i, j]
            if (enters and in_cooldown) or (adds and spent):
                left[i, j] = 0.0 if enters and share != 0.0 else np.nan
    return left
