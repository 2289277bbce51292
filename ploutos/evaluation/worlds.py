"""Bars as they might have been: crashes, gaps, other volatility, missing bars and noise. The clock and the bars before stay as they are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ploutos.envs.market_arrays import decayed_volatility
from ploutos.market.bars import Bars
from ploutos.types import BoolArray, FloatArray
from ploutos.walk_forward import Range

PRICES = ("open", "high", "low", "close")
CRASH, CRASH_BARS = 0.2, 6
GAP_EVERY, GAP_SIZE = 21, 3.0
MISSING = 0.05
World = Callable[[Bars, Range, np.random.Generator], Bars]


def crash(bars: Bars, part: Range, random: np.random.Generator) -> Bars:
    """All prices fall by 20 % over six bars from the middle of a range, bar by bar alike, and stay there."""
    start = (part.start + part.stop) // 2
    fallen = np.clip(np.arange(bars.n_bars) - start + 1, 0, CRASH_BARS) / CRASH_BARS
    after = (1 - CRASH) ** fallen[:, None]
    before = np.vstack([np.ones((1, 1)), after[:-1]])
    return _reshaped(bars, before, after)


def gaps(bars: Bars, part: Range, random: np.random.Generator) -> Bars:
    """In one session of 21, one at least, all prices jump at the first bar by three usual session moves, all up or all down."""
    firsts = np.flatnonzero(np.r_[True, bars.sessions[1:] != bars.sessions[:-1]])
    firsts = firsts[(firsts > part.start) & (firsts < part.stop)]
    chosen = np.sort(random.choice(firsts, size=min(max(len(firsts) // GAP_EVERY, 1), len(firsts)), replace=False))
    per_session = np.sqrt(bars.n_bars / len(np.unique(bars.sessions)))
    volatility = decayed_volatility(bars) * per_session
    jumps = np.zeros((bars.n_bars, bars.n_symbols))
    jumps[chosen] = random.choice([-1.0, 1.0], size=(len(chosen), 1)) * GAP_SIZE * volatility[chosen - 1]
    level = np.exp(np.cumsum(jumps, axis=0))
    return _reshaped(bars, level, level)


def spread_out(by: float) -> World:
    """Multiply every move about the trend of a range, in logs; a symbol with prices that are not positive stays as it is."""

    def world(bars: Bars, part: Range, random: np.random.Generator) -> Bars:
        first, last = bars.mark[part.start - 1], bars.mark[part.stop - 1]
        able = (first > 0) & (last > 0) & (np.nan_to_num(bars.low, nan=1.0) > 0).all(axis=0)
        begin, end = np.log(np.where(able, first, 1.0)), np.log(np.where(able, last, 1.0))
        along = np.clip((np.arange(bars.n_bars) - part.start + 1) / part.n_bars, 0, 1)[:, None]
        trend, inside = begin + along * (end - begin), (np.arange(bars.n_bars) >= part.start)[:, None] & able
        moved: dict[str, Any] = {}
        for name in PRICES:
            price = getattr(bars, name)
            logs = np.log(np.where(able & (price > 0), price, 1.0))
            moved[name] = np.where(inside & np.isfinite(price), np.exp(trend + by * (logs - trend)), price)
        return replace(bars, **moved)

    return world


def missing(bars: Bars, part: Range, random: np.random.Generator) -> Bars:
    """One bar in twenty of a range is missing, symbol by symbol; every symbol keeps its last one."""
    gone = random.random((bars.n_bars, bars.n_symbols)) < MISSING
    gone[: part.start] = False
    gone[part.stop - 1 :] = False
    return without(bars, gone)


def without(bars: Bars, gone: BoolArray) -> Bars:
    """The bars without some of them."""
    kept: dict[str, Any] = {name: np.where(gone, np.nan, getattr(bars, name)) for name in (*PRICES, "volume")}
    return replace(bars, **kept)


def noise(size: float) -> World:
    """All four prices of a bar are off by one normal error, of a share of the symbol's usual volatility per bar."""

    def world(bars: Bars, part: Range, random: np.random.Generator) -> Bars:
        errors = random.normal(size=(bars.n_bars, bars.n_symbols)) * size * decayed_volatility(bars)
        errors[: part.start] = 0
        factor = np.exp(errors)
        return _reshaped(bars, factor, factor)

    return world


def _reshaped(bars: Bars, at_open: FloatArray, at_close: FloatArray) -> Bars:
    """Prices times factors that move from the open to the close of each bar; highs and lows contain both."""
    opened, closed = bars.open * at_open, bars.close * at_close
    highs = np.stack([bars.high * at_open, bars.high * at_close, opened, closed])
    lows = np.stack([bars.low * at_open, bars.low * at_close, opened, closed])
    return replace(bars, open=opened, close=closed, high=highs.max(axis=0), low=lows.min(axis=0))
