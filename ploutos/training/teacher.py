"""What a supervised model would do: a policy starts from it, and is held to it.

Bars are few and noisy, and a network that only follows its rewards learns them by heart. A regression of the next return does not, but
it knows nothing of costs, of its position, or of what comes later. So a policy first imitates one, and then learns what earns more, paid
by its rewards less a weight times its divergence from the teacher (Schmitt et al., 2018, "Kickstarting deep reinforcement learning").
The teacher is fitted on the bars that the policy learns from and on no other.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ploutos.store import Kind, writing
from ploutos.types import Float32Array, FloatArray
from ploutos.walk_forward import Range


@dataclass(frozen=True)
class Teacher:
    """A teacher's decisions over a range of bars.

    Attributes:
        first: bar of the first row.
        odds: shape (n_bars, n_symbols, 3), log-probabilities of HOLD, BUY and SELL after each bar.
    """

    first: int
    odds: Float32Array

    def over(self, bars: Range) -> Float32Array:
        """Its rows for some bars.

        Raises:
            ValueError: some of them are not among its bars.
        """
        start = bars.start - self.first
        if start < 0 or start + bars.n_bars > len(self.odds):
            last = self.first + len(self.odds) - 1
            raise ValueError(f"the teacher knows bars {self.first} to {last}; found {bars.start} to {bars.stop - 1}")
        return self.odds[start : start + bars.n_bars]


def teacher_of_scores(scores: FloatArray, first: int) -> Teacher:
    """A teacher who says BUY where a rise is likelier and SELL where it is not, the surer the likelier.

    When holding on is better than either is left to the rewards: it depends on costs and on what is held.

    Args:
        scores: shape (n_bars, n_symbols), log odds of a rise; nan where nothing is known.
    """
    known = np.nan_to_num(scores)
    odds = np.stack([np.zeros_like(known), known, -known], axis=-1)
    odds -= np.logaddexp.reduce(odds, axis=-1, keepdims=True)
    return Teacher(first, odds.astype(np.float32))


def save_teacher(teacher: Teacher, path: Path) -> None:
    """Write a teacher; the same one gives the same bytes."""
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, first=np.array(teacher.first), odds=teacher.odds)


def load_teacher(path: Path) -> Teacher:
    """Read what `save_teacher` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Teacher(int(arrays["first"]), arrays["odds"])


TEACHER = Kind("teacher", ".npz", save_teacher, load_teacher)
