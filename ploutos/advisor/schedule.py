"""When advice is requested: at a cadence, and when something changes in between."""

from typing import NamedTuple

import numpy as np

from ploutos.advisor.config import LLMConfig, Trigger
from ploutos.features.llm_features import MARKET_NAMES
from ploutos.market.bars import Bars
from ploutos.types import BoolArray, Float32Array

CADENCE = "cadence"
_BURST = 0.5


class DecisionTime(NamedTuple):
    """One question to be asked: after this bar closed, about this symbol, for this cause."""

    bar: int
    column: int
    asked_for: str


def decision_times(bars: Bars, market: Float32Array, first_bar: int, last_bar: int, config: LLMConfig) -> list[DecisionTime]:
    """Every question of a range, in the order of time, then of symbols.

    A symbol is asked about at every bar whose number is a multiple of `cadence_bars`, if it has a bar there, and at a
    bar where a trigger fires, if its last question in the same stretch between two multiples is `cooldown_bars` back.
    Which bars are asked about at *t* depends on bars up to *t* alone, and not on where the range starts.

    Args:
        market: shape (n_bars, n_symbols, 28).
        first_bar, last_bar: inclusive; the multiple at or before `first_bar` starts the range.
    """
    fired = _fired(market, config.triggers)
    asked = []
    start = first_bar - first_bar % config.cadence_bars
    last = np.full(bars.n_symbols, start - config.cooldown_bars)
    for t in range(start, last_bar + 1):
        on_cadence = t % config.cadence_bars == 0
        if on_cadence:
            last[:] = t - config.cooldown_bars
        for s in np.flatnonzero(bars.tradable[t]).tolist():
            cause = CADENCE if on_cadence else _cause(fired, t, s) if t - last[s] >= config.cooldown_bars else None
            if cause is not None:
                asked.append(DecisionTime(t, s, cause))
                last[s] = t
    return asked


def _cause(fired: dict[Trigger, BoolArray], t: int, s: int) -> str | None:
    return next((trigger.value for trigger, mask in fired.items() if mask[t, s]), None)


def _fired(market: Float32Array, triggers: tuple[Trigger, ...]) -> dict[Trigger, BoolArray]:
    """Where each trigger fires, shape (n_bars, n_symbols); never next to a bar that the symbol does not have."""
    now, before = market[1:], market[:-1]

    def column(rows: Float32Array, name: str) -> Float32Array:
        return rows[..., MARKET_NAMES.index(name)]

    def turns_on(name: str) -> BoolArray:
        return (column(now, name) == 1) & (column(before, name) == 0)

    def changes(name: str) -> BoolArray:
        return np.isfinite(column(before, name)) & np.isfinite(column(now, name)) & (column(now, name) != column(before, name))

    def rises_above(name: str, limit: float) -> BoolArray:
        return (column(now, name) > limit) & (column(before, name) <= limit)

    masks = {
        Trigger.BREAKOUT: lambda: turns_on("breakout_signal") | turns_on("breakdown_signal"),
        Trigger.REGIME: lambda: changes("market_regime"),
        Trigger.VOLATILITY: lambda: rises_above("volatility_regime", _BURST),
    }
    none = np.zeros((1, market.shape[1]), dtype=bool)
    return {trigger: np.vstack([none, masks[trigger]()]) for trigger in triggers}
