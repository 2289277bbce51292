"""How much of the best of many is luck: probabilistic and deflated Sharpe ratios, overfitting by CSCV, tests over all candidates.

Everything here is per session, never annualised: Sharpe ratios are mean over standard deviation of session returns. A trial is a path of
returns over the tested sessions; how many there were is told by the caller, for this module knows no registry.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from arch.bootstrap import SPA, StationaryBootstrap
from scipy import stats
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from ploutos.errors import ShapeError
from ploutos.evaluation.significance import mean_block_length
from ploutos.seeding import generator, seed_integer
from ploutos.types import BoolArray, FloatArray, IntArray

_NOTHING = 1e-12
N_BLOCKS, _PER_BLOCK = 16, 4
FEWEST_SESSIONS = _PER_BLOCK * N_BLOCKS
"""Of `overfitting` with so many blocks."""


@dataclass(frozen=True)
class SharpeMoments:
    """What the error of a Sharpe ratio is made of.

    Attributes:
        n: returns.
        sharpe: mean over standard deviation, per period.
        skew: third standardised moment; 0 for a normal distribution.
        kurtosis: fourth, not in excess; 3 for a normal distribution.
    """

    n: int
    sharpe: float
    skew: float = 0.0
    kurtosis: float = 3.0

    @property
    def spread(self) -> float:
        """Standard deviation of the estimate times the square root of n - 1; nan where the moments contradict the formula."""
        variance = 1 - self.skew * self.sharpe + (self.kurtosis - 1) / 4 * self.sharpe**2
        return math.sqrt(variance) if variance > 0 else math.nan


def sharpe_moments(returns: FloatArray) -> SharpeMoments | None:
    """Moments of a path of returns; None with fewer than three, or without variance.

    Args:
        returns: shape (n,), decimal, net of costs.
    """
    if len(returns) < 3 or (deviation := float(returns.std(ddof=1))) < _NOTHING:
        return None
    skew, kurtosis = float(stats.skew(returns)), float(stats.kurtosis(returns, fisher=False))
    return SharpeMoments(len(returns), float(returns.mean()) / deviation, skew, kurtosis)


def probabilistic_sharpe(moments: SharpeMoments, target: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above a target, both per period.

    Source: Bailey and Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier".

    >>> round(probabilistic_sharpe(SharpeMoments(24, 0.458, -2.448, 10.164)), 3)
    0.913
    """
    return float(stats.norm.cdf((moments.sharpe - target) * math.sqrt(moments.n - 1) / moments.spread))


def minimum_track_record(moments: SharpeMoments, target: float = 0.0, confidence: float = 0.95) -> float:
    """Returns that must be seen before the probabilistic Sharpe ratio reaches a confidence, if they go on like those seen.

    Returns:
        A number of periods, not rounded; infinity where the observed ratio is not above the target.

    Source: Bailey and Lopez de Prado (2012).
    """
    if not moments.sharpe > target:
        return math.inf
    return 1 + (moments.spread * float(stats.norm.ppf(confidence)) / (moments.sharpe - target)) ** 2


def expected_best_sharpe(n_trials: float, deviation: float) -> float:
    """Sharpe ratio that the best of some independent trials without skill is expected to show.

    Args:
        n_trials: independent ones; one trial has no best, so its answer is 0.
        deviation: standard deviation of the trials' Sharpe ratios.

    Source: Bailey and Lopez de Prado (2014), "The Deflated Sharpe Ratio".
    """
    if n_trials <= 1:
        return 0.0
    upper, lower = stats.norm.ppf(1 - 1 / n_trials), stats.norm.ppf(1 - 1 / (n_trials * math.e))
    return float(deviation * ((1 - np.euler_gamma) * upper + np.euler_gamma * lower))


def deflated_sharpe(moments: SharpeMoments, n_trials: float, deviation: float) -> float:
    """Probability that the true Sharpe ratio is above what the best of many trials without skill shows.

    Source: Bailey and Lopez de Prado (2014).
    """
    return probabilistic_sharpe(moments, expected_best_sharpe(n_trials, deviation))


def deflated_track_record(moments: SharpeMoments, n_trials: float, deviation: float, confidence: float = 0.9) -> float:
    """Returns that must be seen before the deflated Sharpe ratio reaches a confidence, if they go on like those seen.

    Where the trials differ by no more than chance, they will differ by less when more has been seen, and the bar comes down with that.

    Returns:
        A number of periods, not rounded; infinity where no length is enough.
    """
    best = expected_best_sharpe(n_trials, deviation)
    if deviation > chance_deviation(moments.n) * (1 + 1e-9):
        return minimum_track_record(moments, best, confidence)
    if moments.sharpe <= 0:
        return math.inf
    needed = moments.spread * float(stats.norm.ppf(confidence)) + expected_best_sharpe(n_trials, 1.0)
    return 1 + (needed / moments.sharpe) ** 2


def chance_deviation(n_returns: int) -> float:
    """Standard deviation of the Sharpe ratio of so many returns without skill.

    It is the deviation to deflate by. That which trials were seen to have holds their merits too: a candidate that loses by its costs
    would raise the bar for all others, and trials that resemble each other would lower it, though their number is cut down already. The
    best of some trials without skill, or with less than none, is no better than the best of as many that differ by luck.
    """
    return 1 / math.sqrt(max(n_returns - 1, 1))


def effective_trials(returns: FloatArray) -> int:
    """How many independent trials some paths of returns amount to: their clusters.

    Args:
        returns: shape (n, k), nan where a path does not reach.

    Returns:
        At most k; 0 for no paths.
    """
    return len(set(_clusters(returns).tolist()))


def distinct(returns: FloatArray) -> FloatArray:
    """One path for each cluster, the mean of its paths.

    Args:
        returns: shape (n, k), all of them numbers.

    Returns:
        Shape (n, n_clusters).
    """
    labels = _clusters(returns)
    means = [returns[:, labels == each].mean(axis=1) for each in dict.fromkeys(labels.tolist())]
    return np.stack(means, axis=1) if means else returns


def _clusters(returns: FloatArray, alike: float = 0.5, fewest: int = 20) -> IntArray:
    """Which cluster each path belongs to, shape (k,), by average linkage of 1 - correlation.

    Two clusters join while their members' mean correlation is at least `alike`. Paths that share fewer than `fewest` sessions count as
    independent; paths that never moved count as one.
    """
    if returns.shape[1] < 2:
        return np.zeros(returns.shape[1], dtype=np.int64)
    distance = np.clip(1 - _correlations(returns, fewest), 0, 2)
    np.fill_diagonal(distance, 0)
    return np.asarray(fcluster(linkage(squareform(distance, checks=False), "average"), 1 - alike, "distance"))


def _correlations(returns: FloatArray, fewest: int) -> FloatArray:
    """Shape (k, k), over shared rows; 1 between two paths that never moved, 0 where there is nothing to say."""
    known = np.isfinite(returns)
    filled, mask = np.where(known, returns, 0.0), known.astype(np.float64)
    shared = mask.T @ mask
    with np.errstate(divide="ignore", invalid="ignore"):
        sums, squares = filled.T @ mask, (filled**2).T @ mask
        covariance = filled.T @ filled / shared - sums * sums.T / shared**2
        variance = np.maximum(squares / shared - (sums / shared) ** 2, 0)
        correlation = covariance / np.sqrt(variance * variance.T)
    still = (variance < _NOTHING**2) & (variance.T < _NOTHING**2)
    correlation = np.where(still, 1.0, correlation)
    return np.where((shared >= fewest) & np.isfinite(correlation), correlation, 0.0)


@dataclass(frozen=True)
class Overfitting:
    """What combinatorially symmetric cross-validation says of choosing the best of many.

    Attributes:
        pbo: share of splits in which the best in sample was at or below the median out of sample.
        low, high: interval of `pbo`, by a block bootstrap of the sessions.
        loss: share of splits in which the best in sample lost out of sample.
        slope: of Sharpe ratio out of sample on that in sample, over the splits' winners.
        n_splits: how many.
    """

    pbo: float
    low: float
    high: float
    loss: float
    slope: float
    n_splits: int


@lru_cache(maxsize=8)
def _halves(n_blocks: int) -> BoolArray:
    """Shape (splits, blocks): which blocks are in sample."""
    chosen = np.array(list(combinations(range(n_blocks), n_blocks // 2)), dtype=np.int64)
    halves = np.zeros((len(chosen), n_blocks), dtype=np.bool_)
    np.put_along_axis(halves, chosen, True, axis=1)
    return halves


def _sharpes(counts: FloatArray, sums: FloatArray, squares: FloatArray) -> FloatArray:
    """Sharpe ratios per period from a number, a sum and a sum of squares; nan without variance."""
    mean = sums / counts
    variance = (squares - counts * mean**2) / (counts - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 1e-24, mean / np.sqrt(variance), np.nan)


def _block_sums(returns: FloatArray, n_blocks: int) -> tuple[FloatArray, ...]:
    """Counts, sums and sums of squares per block: shapes (blocks, 1), (blocks, k), (blocks, k). They are all that a split needs."""
    edges = np.linspace(0, len(returns), n_blocks + 1).round().astype(np.int64)[:-1]
    return tuple(np.add.reduceat(power, edges, axis=0) for power in (np.ones((len(returns), 1)), returns, returns**2))


def _splits(returns: FloatArray, n_blocks: int) -> tuple[FloatArray, FloatArray]:
    """Sharpe ratios in sample and out of it, shape (splits, k) each, of the paths that have one in every half.

    The halves are in lexicographic order, so the complement of the first is the last.
    """
    inside = _halves(n_blocks).astype(np.float64)
    before = _sharpes(*(inside @ part for part in _block_sums(returns, n_blocks)))
    before = before[:, np.isfinite(before).all(axis=0)]
    return before, before[::-1]


def _winners(before: FloatArray, after: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Per split: relative rank out of sample of the best in sample, between 0 and 1, and its two Sharpe ratios."""
    rows, best = np.arange(len(before)), before.argmax(axis=1)
    won = after[rows, best]
    below, equal = (after < won[:, None]).sum(axis=1), (after == won[:, None]).sum(axis=1)
    return (below + (equal + 1) / 2) / (after.shape[1] + 1), before[rows, best], won


def overfitting(
    returns: FloatArray, seed: int, n_blocks: int = N_BLOCKS, replications: int = 200, confidence: float = 0.95
) -> Overfitting | None:
    """Probability of backtest overfitting, with an interval, because one number of it means little.

    Args:
        returns: shape (n, k), one column per candidate, all candidates that were tried.
        n_blocks: even; every choice of half of them is once in sample.
        replications: of the bootstrap.

    Returns:
        None where fewer than two candidates moved in every half, or the sessions are fewer than four per block.

    Raises:
        ShapeError: an odd number of blocks, or a return that is not a number.

    Source: Bailey, Borwein, Lopez de Prado and Zhu (2017), "The Probability of Backtest Overfitting".
    """
    if n_blocks < 2 or n_blocks % 2:
        raise ShapeError(f"n_blocks is {n_blocks}; expected an even number, half of which is in sample")
    if not np.isfinite(returns).all():
        raise ShapeError("a return is not a number; expected candidates that all cover the same sessions")
    if len(returns) < _PER_BLOCK * n_blocks:
        return None
    before, after = _splits(returns, n_blocks)
    if before.shape[1] < 2:
        return None
    rank, chosen, won = _winners(before, after)
    pbo = float((rank <= 0.5).mean())
    low, high = _pbo_interval(returns, pbo, seed, n_blocks, replications, confidence)
    slope = float(np.polyfit(chosen, won, 1)[0]) if np.ptp(chosen) > _NOTHING else math.nan
    return Overfitting(pbo, low, high, float((won < 0).mean()), slope, len(rank))


def _pbo_interval(
    returns: FloatArray, pbo: float, seed: int, n_blocks: int, replications: int, confidence: float, splits: int = 1000
) -> tuple[float, float]:
    """Around the estimate, as wide as chance alone makes it where no candidate is better than another.

    Resampled candidates keep the luck they had, so plain percentiles would call noise well chosen. Here every candidate's mean is taken
    out before whole sessions are resampled: then the share of splits varies about a half, and by how much is the interval's size.
    """
    rng = generator(seed, "overfitting")
    inside = rng.permutation(_halves(n_blocks))[:splits].astype(np.float64)
    luck = []
    for (sample,), _ in StationaryBootstrap(_common_block(returns), returns - returns.mean(axis=0), seed=rng).bootstrap(replications):
        parts = _block_sums(np.asarray(sample), n_blocks)
        before, after = (_sharpes(*(half @ part for part in parts)) for half in (inside, 1 - inside))
        moving = np.isfinite(before).all(axis=0) & np.isfinite(after).all(axis=0)
        if moving.sum() > 1:
            luck.append((_winners(before[:, moving], after[:, moving])[0] <= 0.5).mean() - 0.5)
    tail = (1 - confidence) / 2
    least, most = np.quantile(luck, [tail, 1 - tail]) if luck else (-1.0, 1.0)
    return max(pbo - max(float(most), 0.0), 0.0), min(pbo - min(float(least), 0.0), 1.0)


def _common_block(returns: FloatArray) -> int:
    """One mean block length for paths that are resampled together: the median of their own."""
    return int(np.median([mean_block_length(path) for path in returns.T]))


@dataclass(frozen=True)
class Superiority:
    """Whether the best of many candidates is better than a benchmark, the search for it counted.

    Attributes:
        p: Hansen's consistent p-value that none is better.
        better: positions of the candidates that are, with the familywise error that was asked for.
    """

    p: float
    better: tuple[int, ...]


def superiority(returns: FloatArray, benchmark: FloatArray, seed: int, size: float = 0.1, replications: int = 1000) -> Superiority | None:
    """Hansen's test for superior predictive ability, and the step-wise test that names who is superior, on mean returns.

    Args:
        returns: shape (n, k), all candidates that were tried.
        benchmark: shape (n,), the same sessions.
        size: familywise error of the step-wise test.

    Returns:
        None where no candidate ever differed from the benchmark.

    Source: Hansen (2005), "A Test for Superior Predictive Ability"; Romano and Wolf (2005), "Stepwise Multiple Testing".
    """
    difference = returns - benchmark[:, None]
    differs = np.flatnonzero(difference.std(axis=0) > _NOTHING)
    if not len(differs) or len(returns) < 3:
        return None
    losses, block, own = -returns[:, differs], _common_block(difference[:, differs]), seed_integer(seed, "superiority")
    left, better, p = list(range(len(differs))), list[int](), 1.0
    while left:  # arch's StepM does the same and fails where nobody is left
        test = SPA(-benchmark, losses[:, left], block_size=block, reps=replications, bootstrap="stationary", seed=own)
        test.compute()
        p = p if better else float(test.pvalues["consistent"])
        found = [left[int(each)] for each in test.better_models(size, "consistent")]
        if not found:
            break
        better += found
        left = [each for each in left if each not in found]
    return Superiority(p, tuple(sorted(int(differs[each]) for each in better)))
