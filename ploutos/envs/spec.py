"""What the environment charges, allows and pays."""

from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ploutos.errors import ConfigError
from ploutos.market.bars import Bars
from ploutos.specs import Spec
from ploutos.types import FloatArray

_CASH = 100_000.0
_LOTS = 10


class CostSpec(Spec):
    """Costs of a fill in basis points of its value, per side. Futures pay their contract's fees and ticks instead."""

    commission_bps: NonNegativeFloat = 1.0
    """Fee of the broker."""
    slippage_bps: NonNegativeFloat = 4.0
    """Half the spread plus slippage: how much worse than the open a fill is."""


class EnvSpec(Spec):
    """The account, its limits and its reward."""

    initial_cash: PositiveFloat | None = None
    """Account currency at the start of an episode or backtest; empty means 100,000, or ten contracts' worth of futures."""
    gross_limit: PositiveFloat = 1.0
    """Most that may be held, long plus short, as a multiple of equity."""
    allow_short: bool = False
    """Whether SELL may go short; else it goes flat."""
    rebalance_band: NonNegativeFloat = 0.02
    """A target closer than this to the weight held, in equity, is left alone; a target of 0 never is."""
    ruin_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """An account below this share of its initial cash is ruined: the episode terminates and positions are closed."""
    episode_bars: PositiveInt = 252
    """Steps of a training episode; then it is truncated and bootstrapped."""
    reward: Literal["log_return"] = "log_return"
    """Log of equity at this close over equity at the last, net of costs."""
    reward_scale: PositiveFloat = 100.0
    """Reward is multiplied by this; 100 puts a one-percent bar at 1."""
    costs: CostSpec = CostSpec()
    """Costs of a fill."""

    @property
    def cash(self) -> float:
        """Account currency at the start."""
        return _CASH if self.initial_cash is None else self.initial_cash


def sized_for(spec: EnvSpec, bars: Bars) -> EnvSpec:
    """The spec with an initial cash that can trade these bars.

    Without one, an account of instruments in whole lots starts with ten lots of the dearest, at the first price of each.

    Raises:
        ConfigError: the account that was asked for may not hold one lot of any symbol.
    """
    lots = [
        s.lot * s.multiplier * price
        for s, price in zip(bars.instruments, _first_prices(bars), strict=True)
        if s.lot > 0 and np.isfinite(price)
    ]
    if not lots:
        return spec
    if spec.initial_cash is None:
        return spec.model_copy(update={"initial_cash": float(np.ceil(_LOTS * max(lots)))})
    if spec.initial_cash * spec.gross_limit < min(lots):
        raise ConfigError(
            f"one lot is worth {min(lots):,.0f} and the account may hold {spec.initial_cash * spec.gross_limit:,.0f}; "
            "raise env.initial_cash or env.gross_limit, or trade the micro contract"
        )
    return spec


def _first_prices(bars: Bars) -> FloatArray:
    first = bars.tradable.argmax(axis=0)
    return np.asarray(bars.close[first, np.arange(bars.n_symbols)])
