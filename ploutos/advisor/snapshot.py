"""The as-of clock: all that a prompt is made of, read from bars that were available at its time and from nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ploutos.errors import DataError
from ploutos.features.llm_features import MARKET_NAMES
from ploutos.market.bars import Bars
from ploutos.types import FloatArray, TimeArray

SHOWN = 10
_MEASURED = 60
_REACH = 4 * (_MEASURED + 1)
_FEWEST_RETURNS = 20

Features = Callable[[int, int], FloatArray]
"""The 28 market features of a bar position and a symbol's column."""


@dataclass(frozen=True)
class Snapshot:
    """One symbol at one time.

    Attributes:
        symbol: its name; a blind prompt does not show it.
        as_of: datetime64[us] UTC.
        timestamps: shape (n_shown,), starts of the symbol's own last bars, ten at most.
        closes: shape (n_shown,).
        moves: shape (n_shown,), log returns in standard deviations of the last 60; nan where too little is known.
        features: the 28 market features by name; nan where not known.
    """

    symbol: str
    as_of: np.datetime64
    timestamps: TimeArray
    closes: FloatArray
    moves: FloatArray
    features: dict[str, float]


def snapshot_at(bars: Bars, features: Features, symbol: str, as_of: np.datetime64) -> Snapshot:
    """What was known about a symbol at a time.

    The bars are cut at the last one with `available_at <= as_of` before anything is read. Closes are the symbol's own
    last ones within the last 244 bars of the clock.

    Raises:
        DataError: no bar of the symbol ends there.
    """
    n_known = int(np.searchsorted(bars.available_at, as_of, side="right"))
    column = bars.symbols.index(symbol)
    recent = slice(max(n_known - _REACH, 0), n_known)
    closes = bars.close[recent, column]
    if not len(closes) or not np.isfinite(closes[-1]):
        raise DataError(f"{symbol} has no bar that ends at {as_of} UTC; advice is requested only where there is one")
    own = np.isfinite(closes)
    closes, timestamps = closes[own][-_MEASURED - 1 :], bars.timestamps[recent][own][-_MEASURED - 1 :]
    row = features(n_known - 1, column)
    return Snapshot(
        symbol=symbol,
        as_of=as_of,
        timestamps=timestamps[-SHOWN:],
        closes=closes[-SHOWN:],
        moves=_moves(closes)[-SHOWN:],
        features=dict(zip(MARKET_NAMES, row.tolist(), strict=True)),
    )


def _moves(closes: FloatArray) -> FloatArray:
    """Log returns over their own deviation; nan for the first, and for all when returns are few or never vary."""
    returns = np.diff(np.log(closes))
    deviation = returns.std() if len(returns) >= _FEWEST_RETURNS else 0.0
    if not deviation > 0:
        return np.full(len(closes), np.nan)
    return np.concatenate([[np.nan], returns / deviation])
