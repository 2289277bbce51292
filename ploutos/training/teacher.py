"""What a supervised model would do: a policy starts from it, and is held to it.

Bars are few and noisy, and a network that only follows its rewards learns them by heart. A regression of the next return does not, but
it knows nothing of costs, of its position, or of what comes later. So a policy first imitates one, and then learns what earns more, paid
by its rewards less a weight times its divergence from the teacher (Schmitt et al., 2018, "Kickstarting deep reinforcement learning").
The teacher is fitted on the bars that the policy learns from and on no other.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ploutos.features.build import FeatureSet
from ploutos.store import Kind, writing
from ploutos.types import Float32Array, FloatArray, IntArray
from ploutos.walk_forward import Range

FORECAST = "forecast"
"""Name of the feature that a teacher tells."""


@dataclass(frozen=True)
class Teacher:
    """A teacher's decisions over a range of bars.

    Attributes:
        first: bar of the first row.
        odds: shape (n_bars, n_symbols, 3), log-probabilities of HOLD, BUY and SELL after each bar.
        parts: shape (n_bars, n_symbols, n_lags), what a bar adds to the score of its own decision and of those after the next bars;
            None of a teacher who reads one bar. With them it can be asked about bars in any order.
        forecast: shape (n_told, n_symbols), log odds of a rise from `first` to the end of the training range: on the bars that the
            teacher was fitted on, told by models of the others; nan where nothing is known.
        model: what tells the same of later bars, in values that JSON holds.
    """

    first: int
    odds: Float32Array
    parts: Float32Array | None = None
    forecast: Float32Array | None = None
    model: dict[str, Any] | None = None

    def over(self, bars: Range) -> "Teacher":
        """What it says of some bars.

        Raises:
            ValueError: some of them are not among its bars.
        """
        start = bars.start - self.first
        if start < 0 or start + bars.n_bars > len(self.odds):
            last = self.first + len(self.odds) - 1
            raise ValueError(f"the teacher knows bars {self.first} to {last}; found {bars.start} to {bars.stop - 1}")
        rows = slice(start, start + bars.n_bars)
        parts = None if self.parts is None else self.parts[rows]
        return Teacher(bars.start, self.odds[rows], parts)

    def observed(self, features: FeatureSet) -> FeatureSet:
        """Features, and what it tells as one more; of bars outside the training range nothing.

        Raises:
            ValueError: it tells nothing.
        """
        if self.forecast is None:
            raise ValueError("this teacher has no forecast to observe")
        return with_forecast(features, self.forecast, self.first)

    def on(self, bars: IntArray) -> Float32Array:
        """What it would say if bars had come in another order, shape (n_steps, n, n_symbols, 3); what came before the first is not known.

        Args:
            bars: shape (n_steps, n), places among its own, each column a history.

        Raises:
            ValueError: it reads one bar.
        """
        if self.parts is None:
            raise ValueError("this teacher reads one bar; its forecast does not depend on the order of bars")
        scores = np.zeros((*bars.shape, self.parts.shape[1]), dtype=np.float32)
        for lag in range(min(self.parts.shape[2], len(bars))):
            scores[lag:] += self.parts[bars[: len(bars) - lag], :, lag]
        return odds_of(scores)


def with_forecast(features: FeatureSet, told: FloatArray | Float32Array, first: int) -> FeatureSet:
    """Features, and a forecast as one more of them, which a symbol does not need to be usable.

    Args:
        told: shape (n, n_symbols), of the bars from `first` on; of others nothing is known.
    """
    column = np.full((*features.values.shape[:2], 1), np.nan, dtype=np.float32)
    column[first : first + len(told), :, 0] = told
    required = len(features.names) if features.n_required is None else features.n_required
    values = np.concatenate([features.values, column], axis=2)
    return replace(features, values=values, names=(*features.names, FORECAST), n_required=required)


def odds_of(scores: FloatArray | Float32Array) -> Float32Array:
    """Log-probabilities of HOLD, BUY and SELL of log odds of a rise; nan where nothing is known."""
    known = np.nan_to_num(scores)
    odds = np.stack([np.zeros_like(known), known, np.negative(known)], axis=-1)
    odds -= np.logaddexp.reduce(odds, axis=-1, keepdims=True)
    return odds.astype(np.float32)


def teacher_of_scores(scores: FloatArray, first: int, parts: Float32Array | None = None, **told: Any) -> Teacher:
    """A teacher who says BUY where a rise is likelier and SELL where it is not, the surer the likelier.

    When holding on is better than either is left to the rewards: it depends on costs and on what is held.

    Args:
        scores: shape (n_bars, n_symbols), log odds of a rise; nan where nothing is known.
        parts: as `Teacher`.
        told: its `forecast` and `model`, where policies may observe them.
    """
    return Teacher(first, odds_of(scores), parts, **told)


def save_teacher(teacher: Teacher, path: Path) -> None:
    """Write a teacher; the same one gives the same bytes."""
    with writing(path) as temporary, temporary.open("wb") as file:
        arrays = {name: value for name in ("parts", "forecast") if (value := getattr(teacher, name)) is not None}
        model = np.array(json.dumps(teacher.model, sort_keys=True))
        np.savez(file, first=np.array(teacher.first), odds=teacher.odds, model=model, **arrays)


def load_teacher(path: Path) -> Teacher:
    """Read what `save_teacher` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        parts, forecast = arrays.get("parts"), arrays.get("forecast")
        return Teacher(int(arrays["first"]), arrays["odds"], parts, forecast, json.loads(str(arrays["model"])))


TEACHER = Kind("teacher", ".npz", save_teacher, load_teacher)
