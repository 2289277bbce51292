"""Metrics on paths one can work out, intervals that cover, baselines that behave, and words that follow the numbers."""

import copy

import numpy as np
import pandas as pd
import pytest
from markets import QUALITY, mock_advisor

from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation import baselines
from ploutos.evaluation.assess import in_sample, out_of_sample, summarise, verdict
from ploutos.evaluation.backtest import Scheduled, Segment, read_backtests, run_backtests, write_backtests
from ploutos.evaluation.metrics import DESCRIPTIONS, drawdowns, measure, periods_of, session_returns, sharpe_ratio, sortino_ratio
from ploutos.evaluation.report import render_markdown, render_report
from ploutos.evaluation.significance import BootstrapSpec, mean_interval, sharpe_interval
from ploutos.features.llm_features import market_features
from ploutos.fusion.decisions import FusionSpec
from ploutos.llm.advisor import advise
from ploutos.market.bars import align
from ploutos.training.folds import Range, fold_table

FREE = CostSpec(commission_bps=0, slippage_bps=0)


def flat_bars(closes, step, start="2024-01-01", calendar="24/7"):
    """Bars that open where the last one closed."""
    days = pd.date_range(start, periods=len(closes), freq=step, tz="UTC")
    frame = pd.DataFrame({"symbol": "A", "timestamp": days, "close": closes, "volume": 1.0})
    frame["open"] = frame["close"].shift(1).fillna(closes[0])
    frame["high"], frame["low"] = frame[["open", "close"]].max(axis=1), frame[["open", "close"]].min(axis=1)
    return align(frame, pd.Timedelta(step), calendar, "test")


def hold(bars, env):
    strategy = Scheduled("hold", baselines.buy_and_hold(bars, 0, env))
    return run_backtests(bars, None, [Segment(Range(start=1, stop=bars.n_bars))], [strategy], env)


def test_metrics_of_a_path_worked_out_by_hand():
    bars = flat_bars([100.0, 100.0, 110.0, 99.0, 121.0], "1D")
    env = EnvSpec(initial_cash=1000, rebalance_band=0, costs=CostSpec(commission_bps=10, slippage_bps=0))
    result = hold(bars, env)
    # 1000 buys 10 at 100; the fee of 1 comes from cash
    path = np.array([1000, 999, 1099, 989, 1209.0])
    np.testing.assert_allclose(result.equity[0], path)
    periods = periods_of(bars, result)
    found = measure(result, 0, periods)
    returns = path[1:] / path[:-1] - 1
    years = 4 / periods.per_year
    assert periods.per_year == pytest.approx(365.2425)
    assert found["total_return"] == pytest.approx(0.209)
    assert found["cagr"] == pytest.approx(1.209 ** (1 / years) - 1)
    assert found["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(periods.per_year))
    downside = np.sqrt((returns[0] ** 2 + returns[2] ** 2) / 4)
    assert found["sortino"] == pytest.approx(returns.mean() / downside * np.sqrt(periods.per_year))
    assert found["max_drawdown"] == pytest.approx(989 / 1099 - 1)
    assert found["turnover"] == pytest.approx(1000 / path.mean() / years)
    assert found["exposure"] == pytest.approx(np.mean([1000 / 999, 1100 / 1099, 990 / 989, 1210 / 1209]))
    assert (found["n_fills"], found["costs"]) == (1, pytest.approx(1.0))
    assert set(found) <= set(DESCRIPTIONS)


def test_the_sharpe_ratio_does_not_depend_on_the_length_of_a_bar():
    """The same account seen by the day, by the hour and every four hours."""
    days = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.02, 60)))
    ratios = []
    for step, per_day in (("1D", 1), ("4h", 6), ("1h", 24)):
        path = np.exp(np.interp(np.arange(60 * per_day) / per_day, np.arange(60), np.log(days)))
        path[per_day - 1 :: per_day] = days  # the last close of each day is the day's
        bars = flat_bars(path, step)
        result = hold(bars, EnvSpec(costs=FREE))
        periods = periods_of(bars, result)
        returns = session_returns(result.equity[0], periods)
        ratios.append(sharpe_ratio(returns[-50:], periods.per_year))
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-6)


def test_what_has_no_value_is_nan():
    assert np.isnan(sharpe_ratio(np.array([0.01]), 252))
    assert np.isnan(sharpe_ratio(np.zeros(10), 252))
    assert np.isnan(sortino_ratio(np.array([0.01, 0.02]), 252))
    assert drawdowns(np.array([1.0, 2.0, 1.0, 3.0])).tolist() == [0, 0, -0.5, 0]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    truth = 0.05 * np.sqrt(252)
    spec = BootstrapSpec(replications=200)
    covered = 0
    for seed in range(100):
        low, high = sharpe_interval(random.normal(0.0005, 0.01, 500), 252, spec, seed)
        covered += low <= truth <= high
    assert 85 <= covered <= 100


def test_the_same_seed_gives_the_same_interval_and_a_constant_has_none():
    returns = np.random.default_rng(0).normal(0, 0.01, 300)
    spec = BootstrapSpec(replications=100)
    assert sharpe_interval(returns, 252, spec, 1) == sharpe_interval(returns, 252, spec, 1) != sharpe_interval(returns, 252, spec, 2)
    assert np.isnan(mean_interval(np.zeros(100), 252, spec, 1)).all()
    low, high = mean_interval(returns, 252, spec, 1)
    assert low < returns.mean() * 252 < high


def run_baselines(panel, env):
    return run_backtests(panel, None, [Segment(Range(start=300, stop=700))], baselines.all_baselines(panel, 299, env, 3), env)


def test_baselines_do_what_their_names_say(panel):
    result = run_baselines(panel, EnvSpec())
    rows = {name: result.row(name) for name in result.names}
    assert (result.equity[rows["flat"]] == 100_000).all()
    fills = np.isfinite(result.fill_price).sum(axis=1)
    assert (fills[rows["buy and hold"]] <= 1).all()
    assert fills[rows["random"]].sum() > 300
    moments = np.flatnonzero(np.isfinite(result.fill_price[rows["equal weight"]]).any(axis=1))
    assert len(moments) > 5
    assert set(moments) <= set(range(1, 401, 21))
    past = panel.mark[299] / panel.mark[299 - 126]
    held = result.weights[rows["momentum"], 1] > 0
    assert (held <= (past > 1)).all()
    np.testing.assert_allclose(result.equity, 100_000 + result.pnl - result.commission - result.slippage, rtol=1e-9)


def test_doubling_the_costs_makes_no_baseline_richer(panel):
    cheap, dear = (run_baselines(panel, EnvSpec(costs=CostSpec(commission_bps=c, slippage_bps=4 * c))) for c in (1, 2))
    traded = cheap.traded[:, -1] > 0
    assert (dear.equity[traded, -1] < cheap.equity[traded, -1]).all()


def test_test_ranges_with_a_hole_are_refused(panel):
    strategy = [Scheduled("flat", baselines.flat(panel))]
    with pytest.raises(DataError, match="leave a hole: one ends at bar 320, the next starts at 325"):
        run_backtests(panel, None, [Segment(Range(start=300, stop=320)), Segment(Range(start=325, stop=330))], strategy, EnvSpec())


@pytest.fixture(scope="module")
def assessed(panel, panel_features, panel_fold, panel_policies):
    """A small run, whole: two folds that share their policies, the mock, all strategies."""
    later = panel_fold.model_copy(update={"index": 1, "test": Range(start=690, stop=700)})
    folds, policies = [panel_fold, later], [panel_policies, panel_policies]
    env = EnvSpec()
    signals = advise(panel, market_features(panel), 505, 698, mock_advisor())
    result = out_of_sample(panel, panel_features, folds, policies, signals, env, FusionSpec(), 1)
    inside = in_sample(panel, panel_features, folds, policies, env)
    summary = summarise(result, panel, folds, inside, signals, BootstrapSpec(replications=50), 1, reduced=True)
    return result, summary, fold_table(tuple(folds), panel.timestamps)


def test_the_vote_and_every_member_are_evaluated_beside_all_baselines(assessed):
    result, summary, _ = assessed
    members = ["RL member 0", "RL member 1"]
    rest = ["fused (mock advisor)", "RL vote", "advisor (mock)", "flat", "buy and hold", "equal weight", "momentum", "random"]
    assert list(summary["strategies"]) == list(result.names) == rest + members
    assert [fold["fold"] for fold in summary["folds"]] == [0, 1]
    assert len(summary["folds"][0]["members"]) == 2
    assert summary["strategies"]["flat"]["sharpe"] is None
    np.testing.assert_allclose(result.equity, 100_000 + result.pnl - result.commission - result.slippage, rtol=1e-9)
    grown = np.prod([1 + fold["total_return"]["RL vote"] for fold in summary["folds"]]) - 1
    assert grown == pytest.approx(summary["strategies"]["RL vote"]["total_return"])  # folds are stitched, nothing is lost between


def test_backtests_survive_their_file_and_give_the_same_bytes(assessed, tmp_path):
    result = assessed[0]
    for name in ("a", "b"):
        write_backtests(result, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_backtests(tmp_path / "a")
    np.testing.assert_array_equal(again.fill_price, result.fill_price)
    assert again.names == result.names
    trades = again.trades_frame()
    assert len(trades) == np.isfinite(result.fill_price).sum()


def test_the_page_is_one_file_with_every_figure_and_the_mock_is_named(assessed):
    result, summary, plan = assessed
    page = render_report(result, summary, QUALITY, plan, [("seed", "1")])
    head = page[page.index("<body>") :]
    for wanted in (
        "Equity, log scale",
        "Drawdown",
        "Every fold, every policy",
        "What trading cost",
        "Provenance",
        *summary["strategies"],
        *summary["verdict"],
    ):
        assert wanted in head
    for forbidden in ('src="http', "src='http", "<link", "@import"):
        assert forbidden not in head
    assert head.count("plotly-graph-div") == 5
    assert "mock" in render_markdown(summary)


def test_a_name_with_markup_does_no_harm(assessed):
    result, summary, plan = assessed
    page = render_report(result, summary | {"symbols": ["<b>X</b>"]}, QUALITY, plan, [])
    assert "&lt;b&gt;X&lt;/b&gt;" in page
    assert "<b>X</b>" not in page


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "earned 1.0% to 5.0% a year more than buy and hold"),
        (-0.05, -0.01, "earned 1.0% to 5.0% a year less than buy and hold, beyond what luck explains"),
        (-0.05, 0.02, "cannot be told from buy and hold"),
        (float("nan"), float("nan"), "never differed from buy and hold"),
    ],
)
def test_the_verdict_follows_the_interval(assessed, low, high, words):
    summary = copy.deepcopy(assessed[1])
    summary["strategies"][summary["final"]] |= {"excess_low": low, "excess_high": high}
    text = " ".join(verdict(summary))
    assert words in text
    assert "A demo proves nothing" in text
    assert "The advisor was a mock" in text
    real = " ".join(verdict(summary | {"reduced": False, "advisor": {"is_mock": False, "n_abstained": 3, "n_advice": 40, "reveal": True}}))
    assert "demo" not in real
    assert "mock" not in real.replace(summary["final"], "")
    assert "abstained on 3 of 40 questions" in real
    assert "no number that rests on its advice is a result" in real
    assert "abstained" not in text
