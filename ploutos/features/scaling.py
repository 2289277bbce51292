"""The scaler: mean and deviation of each feature over a fold's training rows, all symbols together.

One pair per feature rather than per symbol, so that a share listed after the training range is scaled like the others.
"""

from dataclasses import dataclass

import numpy as np

from ploutos.errors import DataError
from ploutos.types import Float32Array, FloatArray

CLIP = 5.0


@dataclass(frozen=True)
class Scaler:
    """Standardises features; shape (n_features,) each."""

    mean: FloatArray
    deviation: FloatArray

    def transform(self, values: Float32Array) -> Float32Array:
        """Standard scores clipped to ±5; nan (no bar, window not full) becomes 0, the training mean.

        Args:
            values: shape (..., n_features).
        """
        scores = (values - self.mean) / self.deviation
        return np.nan_to_num(np.clip(scores, -CLIP, CLIP), nan=0.0).astype(np.float32)


def fit_scaler(values: Float32Array, n_required: int | None = None) -> Scaler:
    """Fit on training rows only.

    Args:
        values: shape (n_train_bars, n_symbols, n_features); rows without a required feature are left out.
        n_required: how many features, the first ones, are required; None means all. The others' statistics are over the
            numbers that there are.

    Raises:
        DataError: fewer than two training rows have all required features.
    """
    rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
    rows = rows[np.isfinite(rows[:, :n_required]).all(axis=1)]
    if len(rows) < 2:
        raise DataError(f"found {len(rows)} training rows with all features; expected at least 2; train on a longer range")
    known = np.isfinite(rows)
    n = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rows, 0.0).sum(axis=0) / n
    deviation = np.sqrt((np.where(known, rows - mean, 0.0) ** 2).sum(axis=0) / n)
    return Scaler(mean=mean, deviation=np.where(deviation > 1e-12, deviation, 1.0))
