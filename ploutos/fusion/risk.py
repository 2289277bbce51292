"""How risky an account's state is, and what it may not do in it.

A losing streak or a poor hit rate counts for `cooldown_bars` after the last exit and is then forgiven: an account that
may not trade could otherwise never win again.
"""

from dataclasses import dataclass

import numpy as np

from ploutos.envs.account_features import ACCOUNT_NAMES, account_features
from ploutos.envs.ledger import Accounts
from ploutos.fusion.spec import RiskSpec
from ploutos.types import BoolArray, FloatArray

_FEW_TRADES = 5
_DRAWDOWN = ACCOUNT_NAMES.index("drawdown_current")
_LOSSES = ACCOUNT_NAMES.index("consecutive_losses")
_WIN_RATE = ACCOUNT_NAMES.index("win_rate_recent")


@dataclass(frozen=True)
class RiskHistory:
    """What accounts have gone through, after the close of a bar; n accounts, s symbols.

    Attributes:
        drawdown: shape (n, s), decimal, <= 0, the same for all symbols.
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
        features = account_features(accounts)
        recent = (accounts.exit_bar >= 0) & (bar - accounts.exit_bar <= spec.cooldown_bars)
        poor = recent & (accounts.n_outcomes >= _FEW_TRADES) & (features[:, :, _WIN_RATE] < spec.min_win_rate)
        return cls(features[:, :, _DRAWDOWN], features[:, :, _LOSSES] * recent, poor, spec)

    def row(self, at: int) -> "RiskHistory":
        """Of one account, n = 1."""
        one = slice(at, at + 1)
        return RiskHistory(self.drawdown[one], self.losses[one], self.poor[one], self.spec)

    def scores(self) -> FloatArray:
        """Risk of each account and symbol, 0..1, shape (n, s).

        0.4 for as many losses in a row as allowed (0.2 times their share below that), 0.3 for a high drawdown, 0.3 for a poor
        hit rate.
        """
        limit = self.spec.max_consecutive_losses
        score = np.where(self.losses >= limit, 0.4, 0.2 * self.losses / limit)
        score = score + 0.3 * (-self.drawdown > self.spec.high_drawdown) + 0.3 * self.poor
        return np.minimum(score, 1.0)

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
        sides, wanted = np.sign(held), np.sign(np.nan_to_num(targets))
        reverses = wanted * sides < 0
        enters = (wanted != 0) & (wanted != sides)
        adds = enters | (np.abs(targets) > np.abs(held))
        buffer = 1 + self.drawdown / self.spec.allowed_drawdown
        in_cooldown = (self.losses >= self.spec.max_consecutive_losses) | self.poor
        vetoed = (enters & in_cooldown) | (adds & (buffer < self.spec.min_drawdown_buffer))
        return np.where(vetoed, np.where(reverses, 0.0, np.nan), targets)
