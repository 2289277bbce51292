"""Stress tests: each changes what it says and nothing else, and every number can be had another way."""

from dataclasses import replace

import numpy as np
import pytest
from markets import TINY, mock_advisor, random_panel, session_panel

from ploutos.advisor.advisor import advise
from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.evaluation import worlds
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.experiment import Deciders, InSample, out_of_sample, stressed_slugs, supervised_and_oracle, with_hybrids
from ploutos.evaluation.gates import stressed
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.metrics import periods_of, session_returns
from ploutos.evaluation.paths import path_steps, run_paths
from ploutos.evaluation.replay import own_env, replay_accounts
from ploutos.evaluation.robustness import Lineup, robustness
from ploutos.evaluation.spec import BootstrapSpec, RobustnessSpec
from ploutos.evaluation.summary import StressTest
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.fusion.hybrid import hybrid_env, hybrid_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.data_spec import DataSpec
from ploutos.reporting.names import names_of
from ploutos.reporting.page import show
from ploutos.reporting.stress import stress_part
from ploutos.strategies import baselines
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.ensemble import HYBRID
from ploutos.strategies.regression import fit_regression
from ploutos.strategies.spec import RegressionSpec
from ploutos.training.checkpoint import load_policy
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths
from ploutos.walk_forward import Range

BARS = random_panel(2, n_bars=420)
PART = Range(start=220, stop=420)
ENV = EnvSpec(costs=CostSpec(commission_bps=3, slippage_bps=5))
FEW = RobustnessSpec(paths=60, perturbations=2)


def trend(bars):
    """An equal share of every symbol above its mean of 20 closes."""
    mean = np.vstack([np.full((19, bars.n_symbols), np.nan), np.lib.stride_tricks.sliding_window_view(bars.mark, 20, axis=0).mean(axis=2)])
    return np.where(bars.mark > mean, 1 / bars.n_symbols, 0.0)


def strategies(bars):
    hold = baselines.buy_and_hold(bars, PART.start - 1, ENV)
    return [Lineup(None, [PrecomputedTargets("trend", trend(bars)), PrecomputedTargets("buy-and-hold", hold)], [Segment(PART)])]


def ran(bars=BARS, env=ENV):
    return run_backtests(bars, None, [Segment(PART)], strategies(bars)[0].strategies, env)


@pytest.fixture(scope="module")
def tested():
    result = ran()
    (found,) = robustness(BARS, result, ["trend"], ENV, FEW, 1, decider=strategies)
    return result, found


def test_rows_equal_backtests_under_those_costs_and_worlds(tested):
    result, found = tested
    as_run = found.row(StressTest.AS_RUN)
    assert as_run.total_return == result.equity[0, -1] / result.equity[0, 0] - 1
    double = ran(env=EnvSpec(costs=CostSpec(commission_bps=6, slippage_bps=10)))
    assert found.row(StressTest.DOUBLE_COSTS).total_return == double.equity[0, -1] / 1e5 - 1
    assert found.row(StressTest.DOUBLE_COSTS).benchmark_return == double.equity[1, -1] / 1e5 - 1
    later = np.vstack([np.full((1, 3), np.nan), trend(BARS)[:-1]])
    later[PART.start - 1] = np.nan  # the first decision of the run is the first that comes late
    late = run_backtests(BARS, None, [Segment(PART)], [PrecomputedTargets("trend", later)], ENV)
    assert found.row(StressTest.ONE_BAR_LATER).total_return == late.equity[0, -1] / 1e5 - 1
    assert {row.test for row in found.rows} == set(StressTest)
    assert sum(row.test is StressTest.NOISE for row in found.rows) == 2
    crash = found.row(StressTest.CRASH)
    assert crash.benchmark_return == pytest.approx(ran(worlds.crash(BARS, PART, None)).equity[1, -1] / 1e5 - 1)
    assert all(row.decided_again == (row.test in set(StressTest) - set(list(StressTest)[:4])) for row in found.rows)


def test_at_the_break_even_multiple_nothing_is_left(tested):
    _, found = tested
    winner = PrecomputedTargets("trend", np.where(np.arange(420)[:, None] % 2, 1 / 3, 0.0) * np.ones((1, 3)))
    rising = replace(BARS, **{n: getattr(BARS, n) * np.exp(0.004 * np.arange(420))[:, None] for n in worlds.PRICES})
    hold = PrecomputedTargets("buy-and-hold", baselines.buy_and_hold(rising, PART.start - 1, ENV))
    result = run_backtests(rising, None, [Segment(PART)], [winner, hold], ENV)
    (found,) = robustness(rising, result, ["trend"], ENV, RobustnessSpec(paths=0), 1)
    multiple = found.break_even_costs
    assert 0.1 < multiple < 64
    dear = EnvSpec(costs=CostSpec(commission_bps=3 * multiple, slippage_bps=5 * multiple))
    again = run_backtests(rising, None, [Segment(PART)], [winner, hold], dear)
    assert again.equity[0, -1] == pytest.approx(1e5, abs=5)
    assert found.paths is None
    returns = session_returns(result.equity, periods_of(rising, result))[0]
    if found.best_sessions is not None:
        without = np.sort(returns)[: -found.best_sessions]
        assert np.prod(1 + without) <= 1 < np.prod(1 + np.sort(returns)[: len(returns) - found.best_sessions + 1])


def test_a_path_without_late_or_lost_orders_has_the_returns_of_its_sessions():
    """Nothing is paid twice and nothing is lost where a path jumps; in fractions, without impact, the ledger knows no size."""
    result = ran()
    arrays, env = make_market_arrays(BARS), own_env(result, ENV)
    was = replay_accounts(arrays, result, ["trend", "buy-and-hold"], env)
    steps = path_steps(BARS.sessions[result.positions[1:]], 20, 7, np.random.default_rng(3))
    equity, ruined = run_paths(arrays, PART.start - 1, result.targets, was, env, steps, RobustnessSpec(late=0, lost=0), 1)
    own = result.equity[:, 1:] / result.equity[:, :-1]
    expected = np.cumprod(own[:, steps], axis=2).swapaxes(0, 1)
    np.testing.assert_allclose(equity[:, :, 1:], expected, rtol=1e-9)
    assert not ruined.any()
    late, _ = run_paths(arrays, PART.start - 1, result.targets, was, env, steps, RobustnessSpec(late=0.5, lost=0), 1)
    assert np.abs(late[:, 0] - equity[:, 0]).max() > 0.001


def test_paths_repeat_whole_sessions_in_their_order():
    bars = session_panel(1)
    sessions = bars.sessions[1:]
    steps = path_steps(sessions, 50, 3, np.random.default_rng(1))
    assert steps.shape == (50, bars.n_bars - 1)
    starts = set(np.flatnonzero(np.r_[True, sessions[1:] != sessions[:-1]]))
    jumped = steps[:, 1:] != steps[:, :-1] + 1
    assert set(steps[:, 1:][jumped]) <= starts  # a jump leads to the beginning of a session
    counts = np.bincount(steps.ravel(), minlength=bars.n_bars - 1)
    assert counts.min() > 20  # every bar of the history appears, none much more than others
    assert counts.max() < 90


def test_paths_say_how_many_lost(tested):
    _, found = tested
    paths = found.paths
    assert paths.n == 60
    assert paths.return_low < paths.return_median < paths.return_high
    assert paths.drawdown_bad <= paths.drawdown_median <= 0
    assert (paths.losses > 0.5) == (paths.return_median < 0)


def test_a_crash_takes_twenty_percent_over_six_bars_and_stays():
    after = worlds.crash(BARS, PART, None)
    ratio = after.close / BARS.close
    middle = (PART.start + PART.stop) // 2
    assert np.nanmax(np.abs(ratio[:middle] - 1)) == 0
    np.testing.assert_allclose(ratio[middle + 5 :][np.isfinite(ratio[middle + 5 :])], 0.8)
    np.testing.assert_allclose(ratio[middle, 0], 0.8 ** (1 / 6))


@pytest.mark.parametrize("world", [worlds.crash, worlds.gaps, worlds.missing, worlds.noise(0.5), worlds.spread_out(2.0)])
@pytest.mark.parametrize("bars", [BARS, session_panel(2)])
def test_worlds_are_sound_bars_whose_past_is_as_it_was(world, bars):
    part = Range(start=bars.n_bars // 2, stop=bars.n_bars)
    other = world(bars, part, np.random.default_rng(1))
    for name in (*worlds.PRICES, "volume"):
        np.testing.assert_array_equal(getattr(other, name)[: part.start], getattr(bars, name)[: part.start])
    live = other.tradable
    assert (other.high >= np.maximum(other.open, other.close) * (1 - 1e-9))[live].all()
    assert (other.low <= np.minimum(other.open, other.close) * (1 + 1e-9))[live].all()
    assert not np.array_equal(np.nan_to_num(other.close), np.nan_to_num(bars.close))


def test_wild_doubles_the_volatility_and_keeps_the_ends():
    close = np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, (420, 3)), axis=0)) * 50
    bars = replace(BARS, open=close, high=close, low=close, close=close)
    wild = worlds.spread_out(2.0)(bars, PART, None)
    moves = [np.diff(np.log(each.close[PART.start :]), axis=0).std() for each in (bars, wild)]
    assert moves[1] / moves[0] == pytest.approx(2, rel=0.02)
    np.testing.assert_allclose(wild.close[-1], close[-1])


def test_regimes_hold_every_session_once(tested):
    result, found = tested
    assert sum(regime.n_sessions for regime in found.regimes) == found.n_sessions == 200
    returns = session_returns(result.equity, periods_of(BARS, result))[0]
    mean = sum(r.mean_return * r.n_sessions for r in found.regimes) / 200
    assert mean == pytest.approx(returns.mean() * periods_of(BARS, result).per_year)


@pytest.fixture(scope="module")
def everyone(panel, panel_features, panel_fold, panel_policies, tmp_path_factory):
    """A run with every kind of decider, and what decides again."""
    env, fusion, market = EnvSpec(), FusionSpec(), market_features(panel)
    signals = advise(panel, market, 505, 688, mock_advisor())
    models = [
        [
            fit_regression(panel, panel_features, panel_fold, env, RegressionSpec(bands=(0.0,), penalties=(0.1,)), kind)
            for kind in ("logistic", "ridge")
        ]
    ]
    wide, file = hybrid_features(panel_features, panel, market, signals), tmp_path_factory.mktemp("hybrid") / "policy.zip"
    once, place = CheckpointSpec(enabled=False), TrainingPaths(file.parent / "work")
    train_member(panel, wide, panel_fold, hybrid_env(EnvSpec(episode_bars=60)), TINY, once, 3, place, file)
    hybrids = [(load_policy(file),)]
    beside = supervised_and_oracle(panel, panel_features, [panel_fold], models, DataSpec(), env)
    result = out_of_sample(panel, panel_features, [panel_fold], [panel_policies], signals, env, fusion, 1, others=beside)
    result = with_hybrids(result, panel, panel_features, [panel_fold], market, {HYBRID: (hybrids, signals)}, env)
    known = own_env(result, env)
    again = Deciders(
        [panel_fold], [panel_policies], hybrids, models, signals, (), known, fusion, 1, lambda bars: build_features(bars, FeatureSpec())
    )
    return result, env, again


def test_on_the_bars_of_the_run_every_decider_decides_again_as_it_did(panel, everyone):
    result, _, again = everyone
    found = {}
    for each in again(panel):
        paths = run_backtests(panel, each.features, each.segments, each.strategies, again.env, keep=())
        found |= dict(zip(paths.slugs, paths.equity, strict=True))
    assert set(found) == {*stressed_slugs(result), "buy-and-hold"}
    assert {"fused", "vote", "advisor", "hybrid", "logistic", "ridge", "momentum-regime", "flat"} <= set(found)
    for slug, equity in found.items():
        np.testing.assert_array_equal(equity, result.equity[result.row(slug)], err_msg=slug)


def test_every_decider_has_its_stress_table_and_a_line_of_the_page(panel, panel_fold, everyone, monkeypatch):
    monkeypatch.setattr("ploutos.evaluation.robustness._WORLDS", {StressTest.CRASH: worlds.crash})
    result, env, again = everyone
    spec, slugs = RobustnessSpec(paths=20, perturbations=2), stressed_slugs(result)
    tested = robustness(panel, result, slugs, env, spec, 1, decider=again)
    assert tuple(each.slug for each in tested) == slugs
    for each in tested:
        assert len(each.rows) == 7
        changed = {row.total_return for row in each.rows if row.decided_again}
        assert len(changed) == 3 or each.slug == "flat", each.slug  # whoever trades is touched by every world
    (alone,) = robustness(panel, result, ["vote"], env, spec, 1, decider=again)
    assert alone == tested[slugs.index("vote")]  # whoever else is tested
    inside = [InSample(train=(None, None), validation=(None, None))]
    for subject in ("hybrid", "regression:ridge", "momentum-regime"):
        summary = summarise(result, panel, [panel_fold], inside, again.signals, BootstrapSpec(replications=20), 1, True, subject=subject)
        summary = summary.model_copy(update={"robustness": tested})
        assert set(stressed(summary)) == {"double_cost", "monte_carlo_losses"}
        part = stress_part(summary)
        assert len(part.tables) == 3
        assert names_of(summary)[summary.subject.slug] in part.tables[0][0]
        headings, rows = part.tables[2][1:]
        assert len(rows) == len(slugs)
        assert {len(row) for row in rows} == {len(headings)} == {1 + 6 + 2}
    worst = min(row.total_return for row in tested[0].rows if row.test is StressTest.NOISE)
    assert rows[0][headings.index("noise")].startswith(show(worst, "percent"))
    assert stress_part(summary.model_copy(update={"robustness": ()})) is None
