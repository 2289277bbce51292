"""The advisor's market features of one bar, when decisions come one at a time.

A batch computes them for all bars at once. Live, or for a single question, they are computed for the bar that has just
closed, and several accounts and advisors ask for the same bar: the cache answers all but the first.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import ArrayLike

from ploutos.features.llm_features import MARKET_NAMES, compute
from ploutos.market.bars import FIELDS, Bars
from ploutos.types import FloatArray

Key = tuple[str, str]


class OptimizedFeatureCache:
    """Least-recently-used rows of market features, safe for several threads.

    Args:
        max_size: rows that are kept; the one that was not used for longest goes first.
    """

    def __init__(self, max_size: int = 1000) -> None:
        if max_size < 1:
            raise ValueError(f"max_size is {max_size}; expected at least 1")
        self.max_size = max_size
        self.hits = 0
        self.misses = 0
        self._rows: OrderedDict[Hashable, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> FloatArray | None:
        """The row of a key, read-only; None when it is not there, which counts as a miss."""
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                self.misses += 1
                return None
            self.hits += 1
            self._rows.move_to_end(key)
            return row

    def put(self, key: Hashable, row: ArrayLike) -> None:
        """Keep a copy of a row, as the one used last."""
        kept = np.array(row, dtype=np.float64)
        kept.flags.writeable = False
        with self._lock:
            self._rows[key] = kept
            self._rows.move_to_end(key)
            while len(self._rows) > self.max_size:
                self._rows.popitem(last=False)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def hit_rate(self) -> float:
        """Share of `get` that found its row; 0 before the first."""
        with self._lock:
            asked = self.hits + self.misses
            return self.hits / asked if asked else 0.0

    def __str__(self) -> str:
        return f"{self.hits} of {self.hits + self.misses} rows found, hit rate {self.hit_rate:.0%}"


class OnlineFeatures:
    """Market features of single bars through a cache."""

    def __init__(self, cache: OptimizedFeatureCache | None = None) -> None:
        self.cache = OptimizedFeatureCache() if cache is None else cache
        self._keys: tuple[Bars | None, dict[tuple[int, int], Key]] = None, {}

    def market(self, bars: Bars, position: int, column: int) -> FloatArray:
        """The 28 of one symbol after one bar closed, from its bars up to there; equal to the batch's row.

        The cache's key is the content of those bars, so a corrected bar is computed again. Within one `Bars` object, which
        never changes, a key is computed once.

        Returns:
            Shape (28,), read-only; nan where a window is not full, all nan where the symbol has no bar.
        """
        if not bars.tradable[position, column]:
            return np.full(len(MARKET_NAMES), np.nan)
        key = self._key(bars, position, column)
        row = self.cache.get(key)
        if row is None:
            row = compute(*_own(bars, position, column))[-1].astype(np.float32).astype(np.float64)  # what a batch stores
            row.flags.writeable = False
            self.cache.put(key, row)
        return row

    def _key(self, bars: Bars, position: int, column: int) -> Key:
        """Symbol and content digest of its bars; remembered for the `Bars` object that was used last."""
        last, keys = self._keys
        if last is not bars:
            keys = {}
            self._keys = bars, keys
        if (position, column) not in keys:
            content = hashlib.blake2b(digest_size=16)
            for values in _own(bars, position, column):
                content.update(values.data)
            keys[position, column] = bars.symbols[column], content.hexdigest()
        return keys[position, column]


def _own(bars: Bars, position: int, column: int) -> list[FloatArray]:
    """A symbol's own consecutive bars up to a position, one array per field."""
    end = position + 1
    present = bars.tradable[:end, column]
    return [np.ascontiguousarray(getattr(bars, field)[:end, column][present]) for field in FIELDS]
