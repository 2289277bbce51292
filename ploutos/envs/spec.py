"""What the environment charges, allows and pays."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ploutos.specs import Spec


class CostSpec(Spec):
    """Costs of a fill, in basis points of its value, per side; an instrument's own fees come on top."""

    commission_bps: NonNegativeFloat = 1.0
    """Fee of the broker."""
    slippage_bps: NonNegativeFloat = 4.0
    """Half the spread plus slippage: how much worse than the open a fill is."""


class EnvSpec(Spec):
    """The account, its limits and its reward."""

    initial_cash: PositiveFloat = 100_000.0
    """Account currency at the start of an episode or backtest."""
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
