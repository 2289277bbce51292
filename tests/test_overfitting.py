"""Luck of the best of many: the papers' worked examples, other people's implementations, and worlds of which the truth is known."""

from itertools import combinations, pairwise

import ffn
import numpy as np
import pandas as pd
import purgedcv
import pytest
from arch.bootstrap import SPA, StepM
from scipy import stats
from sklearn.cluster import AgglomerativeClustering

from ploutos.errors import ShapeError
from ploutos.evaluation.overfitting import (
    SharpeMoments,
    chance_deviation,
    deflated_sharpe,
    distinct,
    effective_trials,
    expected_best_sharpe,
    minimum_track_record,
    overfitting,
    probabilistic_sharpe,
    sharpe_moments,
    superiority,
)


def noise(seed, n=500, k=12):
    return np.random.default_rng(seed).standard_normal((n, k)) * 0.01


def test_worked_examples_of_the_papers():
    # Bailey and Lopez de Prado (2012): 24 months, monthly Sharpe ratio 0.458
    odd, normal = SharpeMoments(24, 0.458, -2.448, 10.164), SharpeMoments(24, 0.458)
    assert probabilistic_sharpe(normal) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe(odd) == pytest.approx(0.913, abs=5e-4)
    # the same authors (2014): 100 trials with variance 1/2, five years of days, yearly Sharpe ratio 2.5
    best = SharpeMoments(1250, 2.5 / np.sqrt(250), -3, 10)
    assert expected_best_sharpe(100, np.sqrt(0.5 / 250)) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(best, 100, np.sqrt(0.5 / 250)) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(best, 46, np.sqrt(0.5 / 250)) == pytest.approx(0.9505, abs=5e-4)


@pytest.mark.parametrize("target", [0.0, 0.05])
def test_probabilistic_sharpe_and_track_record_equal_purgedcv(target):
    returns = np.random.default_rng(3).standard_t(4, 400) * 0.01 + 0.001
    moments = sharpe_moments(returns)
    assert probabilistic_sharpe(moments, target) == pytest.approx(purgedcv.probabilistic_sharpe_ratio(returns, target), rel=1e-3)
    known = (moments.sharpe, target, 0.05, moments.skew, moments.kurtosis)
    needed = minimum_track_record(moments, target)
    assert np.ceil(needed - 1) + 1 == purgedcv.min_track_record_length(*known) or needed == np.inf
    if np.isfinite(needed):  # a record of that length has that confidence, by the other formula
        longer = SharpeMoments(round(needed), *known[:1], moments.skew, moments.kurtosis)
        assert probabilistic_sharpe(longer, target) == pytest.approx(0.95, abs=2e-3)


def test_deflated_sharpe_equals_ffn():
    rng = np.random.default_rng(5)
    returns = pd.Series(rng.standard_t(5, 4000) * 0.01 + 0.0004, pd.bdate_range("2000-01-03", periods=4000))
    trials = rng.normal(0, 0.02, 30)
    theirs = ffn.calc_deflated_sharpe_ratio(returns, trials, nperiods=252, annualized_trials=False)
    assert 0.05 < theirs < 0.95
    assert deflated_sharpe(sharpe_moments(returns.to_numpy()), 30, trials.std(ddof=1)) == pytest.approx(theirs, abs=2e-3)
    assert expected_best_sharpe(30, 0.02) == pytest.approx(ffn.core.calc_expected_max_sharpe(30, 0.02), rel=1e-12)


def test_the_best_of_n_is_what_drawing_n_gives():
    drawn = np.random.default_rng(1).standard_normal((20_000, 50)).max(axis=1).mean()
    assert expected_best_sharpe(50, 1.0) == pytest.approx(drawn, rel=0.02)
    assert expected_best_sharpe(1, 1.0) == 0


def test_deflation_keeps_the_best_of_many_without_skill_out():
    passed = []
    for world in range(300):
        returns = noise(world, 252, 20)
        sharpes = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
        best = sharpe_moments(returns[:, sharpes.argmax()])
        deflated = deflated_sharpe(best, effective_trials(returns), chance_deviation(252))
        passed.append([probabilistic_sharpe(best) >= 0.95, deflated >= 0.90])
    undeflated, deflated = np.mean(passed, axis=0)
    assert undeflated > 0.5  # the old bar is passed by luck more often than not
    assert deflated < 0.10


def test_chance_sets_sharpe_ratios_of_no_skill_apart_as_simulated_and_losers_do_not_raise_the_bar():
    simulated = np.random.default_rng(2).standard_normal((4000, 250))
    sharpes = simulated.mean(axis=1) / simulated.std(axis=1, ddof=1)
    assert chance_deviation(250) == pytest.approx(sharpes.std(ddof=1), rel=0.03)
    losing = np.random.default_rng(3).standard_normal((2000, 250, 4)) - np.array([0, 0.2, 0.2, 0.4])
    best = (losing.mean(axis=1) / losing.std(axis=1, ddof=1)).max(axis=1)
    assert best.mean() < expected_best_sharpe(4, chance_deviation(250))


def test_no_returns_no_ratio():
    assert sharpe_moments(np.zeros(100)) is None
    assert sharpe_moments(np.array([0.01, 0.02])) is None
    assert minimum_track_record(SharpeMoments(100, -0.1)) == np.inf


def test_effective_trials_are_planted_clusters_and_equal_scikit_learn():
    rng = np.random.default_rng(0)
    paths = np.repeat(rng.standard_normal((500, 5)), 10, axis=1) + 0.3 * rng.standard_normal((500, 50))
    assert effective_trials(paths) == 5
    mixed = rng.standard_normal((300, 8)) @ rng.standard_normal((8, 30))
    model = AgglomerativeClustering(n_clusters=None, metric="precomputed", linkage="average", distance_threshold=0.5)
    assert effective_trials(mixed) == model.fit(1 - np.corrcoef(mixed.T)).n_clusters_
    assert effective_trials(noise(1, 500, 30)) == 30


def test_paths_that_are_alike_are_one_path_their_mean():
    rng = np.random.default_rng(0)
    own = rng.standard_normal((500, 3))
    paths = own[:, [2, 0, 2, 1, 0]] + 0.1 * rng.standard_normal((500, 5))
    np.testing.assert_allclose(distinct(paths), np.c_[paths[:, [0, 2]].mean(1), paths[:, [1, 4]].mean(1), paths[:, 3]])
    assert distinct(paths[:, :0]).shape == (500, 0)
    np.testing.assert_array_equal(distinct(paths[:, :1]), paths[:, :1])


def test_paths_that_cannot_be_compared_count_in_full():
    paths = noise(4, 300, 4)
    paths[:, 1] = paths[:, 0]
    assert effective_trials(paths) == 3
    apart = paths.copy()
    apart[:150, 0], apart[150:, 1] = np.nan, np.nan  # the same strategy, told apart by sessions
    assert effective_trials(apart) == 4
    still = np.c_[paths[:, :2], np.zeros((300, 2))]
    assert effective_trials(still) == 2
    assert effective_trials(paths[:, :1]) == 1
    assert effective_trials(paths[:, :0]) == 0


@pytest.mark.parametrize("n_blocks", [6, 10])
def test_overfitting_equals_ffn(n_blocks):
    returns = noise(7, n_blocks * 40, 9)
    full = ffn.core.calc_prob_backtest_overfitting(pd.DataFrame(returns), n_blocks, full_output=True)
    found = overfitting(returns, 0, n_blocks, replications=20)
    assert found.pbo == full["pbo"]
    assert found.n_splits == len(full["logits"])


def test_overfitting_is_a_count_of_splits():
    """Every split taken literally, with blocks of unequal length."""
    returns = noise(8, 171, 4)
    edges = np.linspace(0, 171, 5).round().astype(int)
    blocks = [returns[a:b] for a, b in pairwise(edges)]
    lost, below = [], []
    for inside in combinations(range(4), 2):
        before = np.concatenate([blocks[b] for b in inside])
        after = np.concatenate([blocks[b] for b in range(4) if b not in inside])
        best = (before.mean(axis=0) / before.std(axis=0, ddof=1)).argmax()
        out = after.mean(axis=0) / after.std(axis=0, ddof=1)
        below.append(stats.rankdata(out)[best] / 5 <= 0.5)
        lost.append(out[best] < 0)
    found = overfitting(returns, 0, 4, replications=20)
    assert (found.pbo, found.loss) == (np.mean(below), np.mean(lost))


def test_the_interval_of_overfitting_holds_a_half_on_noise_and_not_on_an_edge():
    on_noise = [overfitting(noise(world), world, 10, replications=60) for world in range(40)]
    assert np.mean([each.low <= 0.5 <= each.high for each in on_noise]) > 0.85
    assert np.mean([each.high < 0.5 for each in on_noise]) < 0.1
    edges = noise(1)
    edges[:, 3] += 0.003
    assert overfitting(edges, 0, 10, replications=60).high < 0.5
    assert overfitting(edges, 0, 10, replications=60) == overfitting(edges, 0, 10, replications=60)


def test_overfitting_needs_candidates_that_move_and_sessions():
    assert overfitting(noise(1, 100, 5), 0, 16 * 2) is None
    assert overfitting(np.c_[noise(1, 400, 1), np.zeros(400)], 0, 4) is None
    with pytest.raises(ShapeError, match="even number"):
        overfitting(noise(1), 0, 5)
    with pytest.raises(ShapeError, match="not a number"):
        overfitting(np.full((400, 3), np.nan), 0, 4)


def test_superiority_is_the_test_of_arch_and_finds_who_is_better():
    returns, benchmark = noise(11, 600, 6), noise(12, 600, 1)[:, 0]
    returns[:, 4] += 0.003
    found = superiority(returns, benchmark, 3)
    assert found.better == (4,)
    assert found.p < 0.01
    null = superiority(noise(11, 600, 6), benchmark, 3)
    assert null.better == ()
    theirs = SPA(-benchmark, -noise(11, 600, 6), block_size=1, reps=4000, seed=9)
    theirs.compute()
    assert null.p == pytest.approx(theirs.pvalues["consistent"], abs=0.06)  # another seed and another block length
    assert superiority(np.repeat(benchmark[:, None], 2, axis=1), benchmark, 3) is None


def test_searching_longer_makes_the_same_candidate_less_superior():
    benchmark, many = noise(12, 400, 1)[:, 0], noise(13, 400, 40)
    many[:, 0] += 0.0012
    alone, among = superiority(many[:, :1], benchmark, 3), superiority(many, benchmark, 3)
    assert alone.p < among.p


def test_the_steps_are_those_of_arch_and_end_where_everyone_is_better():
    benchmark, returns = noise(12, 400, 1)[:, 0], noise(13, 400, 6)
    returns[:, :3] += np.array([0.006, 0.004, 0.0015])
    theirs = StepM(-benchmark, -returns, size=0.1, block_size=1, reps=1000, seed=5)
    theirs.compute()
    assert superiority(returns, benchmark, 3).better == tuple(theirs.superior_models)
    assert superiority(returns[:, :2], benchmark, 3).better == (0, 1)
