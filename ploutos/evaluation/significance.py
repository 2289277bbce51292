"""How much of a number is luck: stationary-bootstrap intervals, by the `arch` package.

Blocks of random length keep the dependence between neighbouring returns. Two strategies are resampled together, bar for
bar, so that what both lived through cancels.
"""

import math

import numpy as np
from arch.bootstrap import StationaryBootstrap, optimal_block_length

from ploutos.evaluation.metrics import sharpe_ratio
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.seeding import generator
from ploutos.types import FloatArray


def mean_block_length(returns: FloatArray) -> int:
    """Mean block length for the stationary bootstrap, at least 1.

    Source: Politis and White (2004), corrected by Patton, Politis and White (2009).
    """
    if returns.std() < 1e-12:
        return 1
    return max(math.ceil(float(optimal_block_length(returns)["stationary"].iloc[0])), 1)


def _interval(samples: FloatArray, confidence: float) -> tuple[float, float]:
    """Percentile interval; nan when a sample has no value."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def sharpe_interval(returns: FloatArray, periods_per_year: float, spec: BootstrapSpec, seed: int) -> tuple[float, float]:
    """Percentile interval of the annualised Sharpe ratio.

    Args:
        returns: shape (n,), session returns.

    Returns:
        Low and high; nan for a path without variance.

    Source: Politis and Romano (1994), "The Stationary Bootstrap".
    """
    if len(returns) < 3 or returns.std() < 1e-12:
        return float("nan"), float("nan")
    bootstrap = StationaryBootstrap(mean_block_length(returns), returns, seed=generator(seed, "sharpe interval"))
    samples = bootstrap.apply(lambda sample: np.array(sharpe_ratio(sample, periods_per_year)), reps=spec.replications)
    return _interval(samples, spec.confidence)


def mean_interval(difference: FloatArray, periods_per_year: float, spec: BootstrapSpec, seed: int) -> tuple[float, float]:
    """Percentile interval of the yearly mean of a paired difference of returns.

    Args:
        difference: shape (n,), returns of one strategy less those of another over the same sessions.
    """
    if len(difference) < 3 or difference.std() < 1e-12:
        return float("nan"), float("nan")
    bootstrap = StationaryBootstrap(mean_block_length(difference), difference, seed=generator(seed, "mean interval"))
    samples = bootstrap.apply(lambda sample: np.asarray(sample.mean() * periods_per_year), reps=spec.replications)
    return _interval(samples, spec.confidence)
