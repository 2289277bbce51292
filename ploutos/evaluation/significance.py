"""How much of a number is luck: studentised stationary-bootstrap intervals and p-values, with `arch`'s resampling.

Every statistic here is a smooth function of means, so a sample gives its value and, session by session, its influence: what the
session adds to the value's error. The long-run variance of the influences, by equal-weighted cosines, is the standard error (it holds
under dependence and changing variance, as Newey and West's does, and comes nearer to its size in a short sample). What is
resampled is (value - estimate) / error, with the error taken anew from every resample; intervals are symmetric. Blocks of random
length keep the dependence between neighbouring sessions; two strategies are resampled together, so that what both lived through
cancels. A percentile interval, which knows nothing of its own error, is too short by several points in a test of 63 sessions.

Sources: Politis and Romano (1994), "The Stationary Bootstrap"; Politis and White (2004); Ledoit and Wolf (2008), "Robust Performance
Hypothesis Testing with the Sharpe Ratio"; Lazarus, Lewis, Stock and Watson (2018), "HAR Inference: Recommendations for Practice";
Goncalves and Vogelsang (2011), who prove that one formula for the error may serve the sample and its resamples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from arch.bootstrap import StationaryBootstrap, optimal_block_length
from numpy.typing import NDArray
from scipy import stats

from ploutos.evaluation.spec import BootstrapSpec
from ploutos.seeding import generator
from ploutos.types import FloatArray

FEWEST = 8
"""Sessions below which nothing is estimated."""
_AT_ONCE = 400_000
_FLOOR = 0.25
_FLAT = 1e-12

Statistic = Callable[..., tuple[FloatArray, FloatArray]]
"""From series of shape (..., n) to the value, shape (...), and the influence of each session, shape (..., n)."""


@dataclass(frozen=True)
class Estimate:
    """A number and how far to trust it; all nan where there is nothing to estimate.

    Attributes:
        value: the estimate.
        error: its standard error, robust to dependence and to changing variance.
        low, high: of its interval.
        p: of a value of 0, both sides.
    """

    value: float
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    def times(self, scale: float) -> "Estimate":
        """The same in another unit; `scale` > 0."""
        return Estimate(self.value * scale, self.error * scale, self.low * scale, self.high * scale, self.p)


# --- statistics, per session


def mean(returns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean."""
    value = returns.mean(axis=-1)
    return value, returns - value[..., None]


def sharpe(returns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean over standard deviation; 0 for a sample without variance."""
    value, centred = mean(returns)
    ratio, _, influence = _standardised(value, centred)
    return ratio, influence


def sharpe_difference(own: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sharpe ratio less the other's."""
    (value, influence), (other_value, other_influence) = sharpe(own), sharpe(other)
    return value - other_value, influence - other_influence


def beta(own: FloatArray, market: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope of the regression on the market's returns."""
    slope, residual, moved, variance = _regression(own, market)
    return slope, moved * residual / variance[..., None]


def alpha(own: FloatArray, market: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intercept of the regression on the market's returns."""
    slope, residual, moved, variance = _regression(own, market)
    level = market.mean(axis=-1)
    return own.mean(axis=-1) - slope * level, residual * (1 - level[..., None] * moved / variance[..., None])


def matched_volatility(own: FloatArray, market: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean less that of the market scaled to the same volatility."""
    (value, centred), (level, moved) = mean(own), mean(market)
    deviation, market_deviation = (np.sqrt((each**2).mean(axis=-1)) for each in (centred, moved))
    scale = deviation / np.maximum(market_deviation, _FLAT)
    z, market_z = centred / np.maximum(deviation, _FLAT)[..., None], moved / np.maximum(market_deviation, _FLAT)[..., None]
    influence = centred - scale[..., None] * moved - (level * scale)[..., None] / 2 * (z**2 - market_z**2)
    return value - scale * level, influence


def _standardised(value: FloatArray, centred: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sharpe ratio with n - 1 in the deviation, standardised returns, and influence."""
    n = centred.shape[-1]
    deviation = np.sqrt((centred**2).sum(axis=-1) / (n - 1))
    safe = np.where(deviation < _FLAT, np.inf, deviation)
    z = centred / safe[..., None]
    ratio = value / safe
    return ratio, z, z - ratio[..., None] / 2 * (z**2 - 1)


def _regression(own: FloatArray, market: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Slope, residuals, centred market returns and their variance; slope 0 on a market that did not move."""
    (_, centred), (_, moved) = mean(own), mean(market)
    variance = np.maximum((moved**2).mean(axis=-1), _FLAT**2)
    slope = (centred * moved).mean(axis=-1) / variance
    return slope, centred - slope[..., None] * moved, moved, variance


# --- their errors


def n_cosines(n: int) -> int:
    """Weights in the long-run variance of n sessions; also its degrees of freedom. Source: Lazarus et al. (2018)."""
    return max(int(0.4 * n ** (2 / 3)), 1)


def standard_error(influence: FloatArray) -> FloatArray:
    """Standard error of a statistic, from its influences.

    Args:
        influence: shape (..., n).

    Returns:
        Shape (...).
    """
    n = influence.shape[-1]
    at = (np.arange(n) + 0.5) / n
    cosines = np.sqrt(2 / n) * np.cos(np.pi * np.outer(at, np.arange(1, n_cosines(n) + 1)))
    return np.asarray(np.sqrt(((influence @ cosines) ** 2).mean(axis=-1) / n))


def mean_block_length(influence: FloatArray) -> int:
    """Mean block length for the stationary bootstrap, at least 1.

    Source: Politis and White (2004), corrected by Patton, Politis and White (2009).
    """
    if influence.std() < _FLAT:
        return 1
    return max(math.ceil(float(optimal_block_length(influence)["stationary"].iloc[0])), 1)


def estimate(statistic: Statistic, series: Sequence[FloatArray], spec: BootstrapSpec, seed: int) -> Estimate:
    """A statistic with its error, interval and p-value.

    Args:
        series: each of shape (n,), over the same sessions.

    Returns:
        In the statistic's own unit, per session; no interval with fewer than 8 sessions or for what never varied.
    """
    if len(series[0]) < FEWEST:
        return Estimate(math.nan)
    value, influence = statistic(*series)
    error = float(standard_error(influence))
    if influence.std() < _FLAT or error < _FLAT:
        return Estimate(float(value))
    pivots = np.sort(_pivots(statistic, series, float(value), influence, error, spec, seed))
    width = error * float(pivots[min(math.ceil(spec.confidence * (len(pivots) + 1)), len(pivots)) - 1])
    beyond = len(pivots) - int(np.searchsorted(pivots, abs(float(value)) / error))
    return Estimate(float(value), error, float(value) - width, float(value) + width, (1 + beyond) / (1 + len(pivots)))


def _pivots(
    statistic: Statistic, series: Sequence[FloatArray], value: float, influence: FloatArray, error: float, spec: BootstrapSpec, seed: int
) -> FloatArray:
    """Sizes of (value - estimate) / error over the resamples, shape (replications,).

    A resample may lose what varied, as of decisions that are nearly all alike. Its error is taken for at least a quarter of the sample's.
    """
    n = len(influence)
    resamples = _resamples(n, mean_block_length(influence), spec.replications, seed)
    pivots, rows = np.empty(spec.replications), max(_AT_ONCE // n, 1)
    for first in range(0, spec.replications, rows):
        values, influences = statistic(*(each[resamples[first : first + rows]] for each in series))
        errors = np.maximum(standard_error(influences), _FLOOR * error)
        pivots[first : first + rows] = np.abs(values - value) / errors
    return pivots


@lru_cache(maxsize=4)
def _resamples(n: int, block: int, replications: int, seed: int) -> NDArray[np.int32]:
    """Which sessions each resample holds, shape (replications, n); one set serves every statistic with the same block length."""
    bootstrap = StationaryBootstrap(block, np.arange(n), seed=generator(seed, "interval", block))
    return np.stack([np.asarray(bootstrap.update_indices(), dtype=np.int32) for _ in range(replications)])


def mean_by_errors(returns: FloatArray, confidence: float) -> Estimate:
    """A mean with the interval of Student's distribution, without resampling.

    Args:
        returns: shape (n,).
    """
    n = len(returns)
    value, influence = mean(returns)
    if n < FEWEST or influence.std() < _FLAT:
        return Estimate(float(value) if n else math.nan)
    error, freedom = float(standard_error(influence)), n_cosines(n)
    width = error * float(stats.t.ppf((1 + confidence) / 2, freedom))
    return Estimate(float(value), error, float(value) - width, float(value) + width, float(2 * stats.t.sf(abs(value) / error, freedom)))


def sharpe_interval(returns: FloatArray, periods_per_year: float, spec: BootstrapSpec, seed: int) -> tuple[float, float]:
    """Interval of the annualised Sharpe ratio.

    Args:
        returns: shape (n,), session returns.

    Returns:
        Low and high; nan for a path without variance.
    """
    found = estimate(sharpe, [returns], spec, seed).times(math.sqrt(periods_per_year))
    return found.low, found.high


def mean_interval(difference: FloatArray, periods_per_year: float, spec: BootstrapSpec, seed: int) -> tuple[float, float]:
    """Interval of the yearly mean of a paired difference of returns.

    Args:
        difference: shape (n,), returns of one strategy less those of another over the same sessions.
    """
    found = estimate(mean, [difference], spec, seed).times(periods_per_year)
    return found.low, found.high


# --- several at once


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: any false finding among them is then as rare as one p-value says. nan is not counted.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure".

    >>> holm([0.01, 0.04, float("nan"), 0.03])
    [0.03, 0.06, nan, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    counted = np.flatnonzero(np.isfinite(p))
    order = counted[np.argsort(p[counted], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return [float(each) for each in adjusted]


def significant_sign(value: float, p: float, confidence: float) -> Literal[-1, 0, 1]:
    """1 or -1 where `p` rules out 0; 0 otherwise, and where there is no p-value."""
    if not p <= 1 - confidence:
        return 0
    return 1 if value > 0 else -1


# --- what intervals were measured to cover

MEASURED = {63: 0.937, 126: 0.940, 252: 0.939, 1000: 0.941}
"""Sessions, and the share of true values that a 95 % interval held at worst; measured by `benchmarks/coverage.py`."""
TOLERATED = 0.02


def measured_coverage(n_sessions: int) -> float:
    """Coverage of a 95 % interval at the nearest measured length that is not longer; nan below the shortest."""
    known = [n for n in MEASURED if n <= n_sessions]
    return MEASURED[max(known)] if known else math.nan
