"""What a figure keeps of a long line. It imports no drawing library, so that a command that draws nothing waits for none."""

from itertools import pairwise

import numpy as np

from ploutos.types import FloatArray, IntArray, TimeArray

POINTS = 1_500
"""Points of a line: more than a screen has."""


def thinned(values: FloatArray, most: int = POINTS) -> IntArray:
    """Positions, increasing, of about `most` values: of every stretch the first, the lowest, the highest and the last."""
    if len(values) <= most:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), most // 4 + 1).astype("int64")
    stretches = [(start, values[start:stop]) for start, stop in pairwise(edges)]
    kept = [(start, start + part.argmin(), start + part.argmax(), start + len(part) - 1) for start, part in stretches]
    return np.unique(kept)


def spread(n: int, most: int) -> IntArray:
    """At most so many positions of n, evenly."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype("int64")) if n else np.arange(0)


def times(stamps: TimeArray) -> FloatArray:
    """Milliseconds since 1970: plotly packs numbers, and writes dates out as text; the axis must be one of dates."""
    return stamps.astype("datetime64[ms]").astype("float64")
