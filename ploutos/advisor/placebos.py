"""Advice that cannot help, made from a run's own by taking away its timing.

All three keep the clock, the cadence and each symbol's mix of advice. `shuffled` and `drawn` change their mind more often
than advice that lasts, and pay for it; `shifted` lasts as long as the original, so a lead over it is no saving of costs.
Give them the advice of the tested range alone: what was said elsewhere must not come in.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ploutos.advisor.signals import Signals
from ploutos.seeding import generator
from ploutos.types import IntArray

_SAID = ["action", "confidence", "abstained", "reason"]
_Draw = Callable[[int, np.random.Generator], IntArray]


def shuffled(signals: Signals, seed: int, draw: int) -> Signals:
    """Each symbol's pieces of advice in a random order over its own decision times."""
    return _rearranged(signals, lambda n, random: random.permutation(n), seed, "shuffled advice", draw)


def shifted(signals: Signals, seed: int, draw: int) -> Signals:
    """Each symbol's pieces of advice later by a random number of its own decision times, the last ones put first.

    The shift is a quarter to three quarters of them, so that no draw stays close to the original.
    """
    return _rearranged(signals, _turned, seed, "shifted advice", draw)


def resampled(signals: Signals, seed: int, draw: int) -> Signals:
    """At each decision time a piece of advice drawn at random from all that the symbol was given."""
    return _rearranged(signals, lambda n, random: random.integers(n, size=n), seed, "drawn advice", draw)


PLACEBOS: dict[str, Callable[[Signals, int, int], Signals]] = {"shuffled": shuffled, "shifted": shifted, "drawn": resampled}
"""By name; each takes signals, a root seed and the number of the draw."""


def _turned(n: int, random: np.random.Generator) -> IntArray:
    return np.roll(np.arange(n), random.integers(n // 4, n - n // 4, endpoint=True))


def _rearranged(signals: Signals, order: _Draw, seed: int, purpose: str, draw: int) -> Signals:
    """The same table with what was said taken from other rows of the same symbol."""
    random, source = generator(seed, purpose, draw), np.arange(len(signals.frame))
    for rows in signals.frame.groupby("symbol", sort=True).indices.values():
        source[rows] = rows[order(len(rows), random)]
    said = signals.frame[_SAID].iloc[source].set_axis(signals.frame.index)
    return replace(signals, frame=signals.frame.assign(**{name: said[name] for name in _SAID}))
