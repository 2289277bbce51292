"""How risky an account's state is, and what it may not do in it.

A losing streak or a poor hit rate counts for `cooldown_bars` after the last exit and is then forgiven: an account that
may not trade could otherwise never win again.
"""

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from ploutos.envs.ledger import Accounts
from ploutos.features.llm_features import ACCOUNT_NAMES, account_features
from ploutos.specs import Spec
from ploutos.types import BoolArray, FloatArray

_FEW_TRADES = 5
_DRAWDOWN = ACCOUNT_NAMES.index("drawdown_current")
_LOSSES = ACCOUNT_NAMES.index("consecutive_losses")
_WIN_RATE = ACCOUNT_NAMES.index("win_rate_recent")


class RiskSpec(Spec):
    """Limits that no decision may pass."""

    max_consecutive_losses: PositiveInt = 3
    """Losing trades in a row in one symbol after which it may not be entered."""
    min_win_rate: float = Field(default=0.4, ge=0, le=1)
    """Share of winners of the last ten trades below which a symbol may not be entered; needs five trades."""
    cooldown_bars: NonNegativeInt = 20
    """Bars after the last exit for which the two limits above count."""
    high_drawdown: float = Field(default=0.2, gt=0, le=1)
    """Drawdown from which the risk score rises."""
    allowed_drawdown: float = Field(default=0.5, gt=0, le=1)
    """Drawdown that ends the account's mandate."""
    min_drawdown_buffer: float = Field(default=0.2, ge=0, le=1)
    """Share of the allowed drawdown that must be left for any purchase."""


def _history(accounts: Accounts, bar: int, spec: RiskSpec) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Features of the account, its losses in a row that still count, and whether its hit rate is too low."""
    features = account_features(accounts)
    recent = (accounts.exit_bar >= 0) & (bar - accounts.exit_bar <= spec.cooldown_bars)
    losses = features[:, :, _LOSSES] * recent
    poor = recent & (accounts.n_outcomes >= _FEW_TRADES) & (features[:, :, _WIN_RATE] < spec.min_win_rate)
    return features, losses, poor


def risk_scores(accounts: Accounts, bar: int, spec: RiskSpec) -> FloatArray:
    """Risk of each account and symbol, 0..1.

    0.4 for as many losses in a row as allowed (0.2 times their share below that), 0.3 for a high drawdown, 0.3 for a poor
    hit rate.

    Returns:
        Shape (n_accounts, n_symbols).
    """
    features, losses, poor = _history(accounts, bar, spec)
    limit = spec.max_consecutive_losses
    score = np.where(losses >= limit, 0.4, 0.2 * losses / limit)
    score = score + 0.3 * (-features[:, :, _DRAWDOWN] > spec.high_drawdown) + 0.3 * poor
    return np.minimum(score, 1.0)


def apply_vetoes(targets: FloatArray, held: FloatArray, accounts: Accounts, bar: int, spec: RiskSpec) -> FloatArray:
    """Cancel forbidden orders.

    Entering a symbol, from cash or from the other side, is forbidden after too many losses in a row or with a poor hit
    rate. Entering or adding to any symbol is forbidden when too little of the allowed drawdown is left. Reducing is never
    forbidden: of a forbidden reversal the closing half remains.

    Args:
        targets: shape (n_accounts, n_symbols), share of equity wanted, nan for no order.
        held: the same shape, share of equity held, signed.

    Returns:
        Targets with nan, or 0 for a reversal, where an order was forbidden.
    """
    features, losses, poor = _history(accounts, bar, spec)
    sides, wanted = np.sign(held), np.sign(np.nan_to_num(targets))
    reverses = wanted * sides < 0
    enters = (wanted != 0) & (wanted != sides)
    adds = enters | (np.abs(targets) > np.abs(held))
    buffer = 1 + features[:, :, _DRAWDOWN] / spec.allowed_drawdown
    vetoed = (enters & ((losses >= spec.max_consecutive_losses) | poor)) | (adds & (buffer < spec.min_drawdown_buffer))
    return np.where(vetoed, np.where(reverses, 0.0, np.nan), targets)
