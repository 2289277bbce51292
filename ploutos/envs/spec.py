"""What the environment charges, allows and pays."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from ploutos.errors import ConfigError
from ploutos.market.bars import Bars
from ploutos.specs import Spec
from ploutos.types import FloatArray, IntArray

ActionKind = Literal["discrete", "weights"]
"""HOLD, BUY or SELL per symbol, or a share of the gross limit."""
_CASH = 100_000.0
_LOTS = 10


class CostSpec(Spec):
    """Costs of a fill, per side, and of a short. Futures pay their contract's fees and ticks instead of basis points."""

    commission_bps: NonNegativeFloat = 1.0
    """Fee of the broker, in basis points of the value."""
    half_spread_bps: NonNegativeFloat = 0.0
    """Half the spread, in basis points of the open; 0 while `slippage_bps` includes it."""
    slippage_bps: NonNegativeFloat = 4.0
    """How much worse than the open a fill is, in basis points, including half the spread unless that is set separately."""
    slippage_per_volatility: NonNegativeFloat = 0.0
    """Further slippage, as a share of the volatility per bar that was usual at the decision; futures pay it too."""
    impact: NonNegativeFloat = 0.0
    """Square-root impact: this times volatility times the root of the order's share of the usual volume; futures too."""
    borrow_per_year: NonNegativeFloat = 0.0
    """Fee on the value of shorts held from close to close, per year, decimal; futures pay none."""


class RewardSpec(Spec):
    """What is added up to a step's reward; a weight of 0 leaves a part out. All are decimals per bar."""

    log_return: NonNegativeFloat = 1.0
    """Weight of the log of equity at this close over equity at the last, net of costs."""
    differential_sharpe: NonNegativeFloat = 0.0
    """Weight of the differential Sharpe ratio (Moody and Saffell, 1998), which is of order 1 where a return is of order 0.01."""
    drawdown: NonNegativeFloat = 0.0
    """Weight of the penalty for falling deeper below the peak: the drawdown's growth in this step."""
    turnover: NonNegativeFloat = 0.0
    """Weight of the penalty for trading: value traded over equity."""
    sharpe_decay: float = Field(default=0.01, gt=0, lt=1)
    """Decay of the differential Sharpe ratio's moments, per bar."""
    sharpe_prior: PositiveFloat = 0.01
    """Volatility per bar that those moments start from, so that the first bars of an episode are not outliers."""


class EnvSpec(Spec):
    """The account, its limits and its reward."""

    initial_cash: PositiveFloat | None = None
    """Account currency at the start of an episode or backtest; empty means 100,000, or, where symbols trade in whole lots, ten lots of the
    most expensive one in every slot, at its highest close in the account's bars."""
    gross_limit: PositiveFloat = 1.0
    """The most that may be held, long plus short, as a multiple of equity."""
    allow_short: bool = False
    """Whether SELL may go short; otherwise it goes flat."""
    rebalance_band: NonNegativeFloat = 0.1
    """A target closer than this to the weight held is left alone, as a share of a slot: the gross limit over the symbols that have a
    bar at the decision. A target of 0 is always carried out."""
    max_participation: float | None = Field(default=None, gt=0, le=1)
    """Largest share of the volume usual at the decision that one order may take; the rest of the order lapses. Forced closes are not
    limited."""
    stop_loss: float | None = Field(default=None, gt=0, lt=1)
    """A position is closed when its price has moved against it by this share of its entry price: at the worse of stop and open."""
    margin_calls: bool = False
    """Whether positions need margin: a contract needs its own, anything else its full value. Orders must fit the equity, and a called
    account is cut at the next open to what it can carry."""
    maintenance_margin: float = Field(default=0.9, gt=0, lt=1)
    """Share of the initial margin below which equity is called at a close."""
    flat_by_session_end: bool = False
    """Whether positions are closed, and none opened, at the open of a session's last bar; needs intraday bars."""
    ruin_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """An account at or below this share of its initial cash is ruined: the episode terminates, positions are closed at the next open and
    nothing is traded afterwards. Equity is never negative: the broker writes off what an account owes beyond what it had."""
    episode_bars: PositiveInt = 252
    """Steps of a training episode; then it is truncated and bootstrapped."""
    observe_account: bool = False
    """Whether an observation ends with the account's five features for each symbol; a hybrid policy's always does."""
    reward: RewardSpec = RewardSpec()
    """What a step pays; the bare name `log_return` or `differential_sharpe` means that part alone, with weight 1."""
    reward_scale: PositiveFloat = 100.0
    """Reward is multiplied by this; 100 puts a one-percent bar at 1."""
    costs: CostSpec = CostSpec()
    """Costs of a fill and of a short."""

    @field_validator("reward", mode="before")
    @classmethod
    def _one_part(cls, value: Any) -> Any:
        return {"log_return": 0.0, value: 1.0} if isinstance(value, str) else value

    @property
    def cash(self) -> float:
        """Account currency at the start."""
        return _CASH if self.initial_cash is None else self.initial_cash


class Span(Protocol):
    """Bars from `start` up to, not including, `stop`: a `ploutos.walk_forward.Range`."""

    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


def with_initial_cash(spec: EnvSpec, bars: Bars, *ranges: Span) -> EnvSpec:
    """The spec with an initial cash that can trade these bars.

    Without one, an account of instruments in whole lots starts with so much that every slot holds ten lots of the most expensive, at the
    dearest close of the ranges that it lives through. An account of fractions starts with 100,000.

    Args:
        ranges: all bars where none are given. Bars outside have no say, so more bars at the end leave old ranges' accounts as they are.

    Raises:
        ConfigError: the requested account may not hold one lot of any symbol.
    """
    lots, slots = _lots_and_slots(bars, ranges)
    if not (lots > 0).any():
        return spec
    if spec.initial_cash is None:
        cash = _LOTS * float(np.nanmax(lots)) * slots.max() / spec.gross_limit
        return spec.model_copy(update={"initial_cash": float(np.ceil(cash))})
    cheapest = float(np.nanmin(lots))
    if spec.initial_cash * spec.gross_limit < cheapest:
        raise ConfigError(
            f"one lot is worth {cheapest:,.0f} and the account may hold {spec.initial_cash * spec.gross_limit:,.0f}; "
            "raise env.initial_cash or env.gross_limit, or trade the micro contract"
        )
    return spec


def cash_in_words(spec: EnvSpec, bars: Bars, *ranges: Span) -> str:
    """What an account of these ranges starts with, why, and on how many bars its first slot was too small for one lot.

    Args:
        spec: as configured, not sized yet.
    """
    lots, slots = _lots_and_slots(bars, ranges)
    cash = with_initial_cash(spec, bars, *ranges).cash
    if not (lots > 0).any():
        return f"{cash:,.0f}"
    short = (np.nan_to_num(lots).max(axis=1) > cash * spec.gross_limit / slots).sum()
    symbol = bars.symbols[int(np.nanargmax(lots)) % bars.n_symbols]
    many = f"each of {slots.max()} slots" if slots.max() > 1 else "the one slot"
    why = f"ten lots of the most expensive, {symbol} at {np.nanmax(lots):,.0f} a lot, in {many}" if spec.initial_cash is None else "as set"
    return f"{cash:,.0f}: {why}; a slot of it could not buy one lot on {short:,} of {len(slots):,} bars"


def _lots_and_slots(bars: Bars, ranges: Sequence[Span]) -> tuple[FloatArray, IntArray]:
    """What one lot is worth, shape (n_bars, n_symbols), nan without a bar or in fractions; and slots, shape (n_bars,), at least 1."""
    rows = np.concatenate([np.arange(part.start, part.stop) for part in ranges]) if ranges else np.arange(bars.n_bars)
    worth = np.array([spec.lot * spec.multiplier for spec in bars.instruments])
    lots = np.where(worth > 0, np.abs(bars.close[rows]) * worth, np.nan)
    return lots, np.maximum(bars.tradable[rows].sum(axis=1), 1)
