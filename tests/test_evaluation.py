"""Metrics on paths one can work out, intervals that cover, baselines that behave, and words that follow the numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markets import QUALITY, mock_advisor, random_panel
from pages import figures

from ploutos.advisor.advisor import advise
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import DataError, StrategyError
from ploutos.evaluation.backtest import Segment, concat, read_backtests, run_backtests, write_backtests
from ploutos.evaluation.benchmark import purchase_of, require_purchase
from ploutos.evaluation.candidates import Candidates, sessions_tested
from ploutos.evaluation.experiment import in_sample, out_of_sample
from ploutos.evaluation.gates import judge
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.metrics import drawdowns, measure, periods_of, session_returns, sharpe_ratio, sortino_ratio
from ploutos.evaluation.significance import mean_interval, sharpe_interval
from ploutos.evaluation.spec import BootstrapSpec, GateSpec
from ploutos.evaluation.summary import BenchmarkTest, Comparison, Measure, Question, Recombined, SubjectReason
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import align
from ploutos.market.instruments import FUTURES
from ploutos.reporting.names import names_of
from ploutos.reporting.page import show, typeset
from ploutos.reporting.recombined import recombined_part
from ploutos.reporting.report import RunFacts, comparison, render_markdown, render_report
from ploutos.reporting.verdict import comparison_sentence, conclusion, verdict
from ploutos.strategies import baselines
from ploutos.strategies.base import PrecomputedTargets, Role
from ploutos.walk_forward import Range, fold_table

FREE = CostSpec(commission_bps=0, slippage_bps=0)


def flat_bars(closes, step, start="2024-01-01", calendar="24/7"):
    """Bars that open where the last one closed."""
    days = pd.date_range(start, periods=len(closes), freq=step, tz="UTC")
    frame = pd.DataFrame({"symbol": "A", "timestamp": days, "close": closes, "volume": 1.0})
    frame["open"] = frame["close"].shift(1).fillna(closes[0])
    frame["high"], frame["low"] = frame[["open", "close"]].max(axis=1), frame[["open", "close"]].min(axis=1)
    return align(frame, pd.Timedelta(step), calendar, "test")


def hold(bars, env):
    strategy = PrecomputedTargets("hold", baselines.buy_and_hold(bars, 0, env))
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
    assert found.total_return == pytest.approx(0.209)
    assert found.cagr == pytest.approx(1.209 ** (1 / years) - 1)
    assert found.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(periods.per_year))
    downside = np.sqrt((returns[0] ** 2 + returns[2] ** 2) / 4)
    assert found.sortino == pytest.approx(returns.mean() / downside * np.sqrt(periods.per_year))
    assert found.max_drawdown == pytest.approx(989 / 1099 - 1)
    assert found.turnover == pytest.approx(1000 / path.mean() / years)
    assert found.exposure == pytest.approx(np.mean([1000 / 999, 1100 / 1099, 990 / 989, 1210 / 1209]))
    assert (found.n_fills, found.costs) == (1, pytest.approx(1.0))


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
    rows = {slug: result.row(slug) for slug in result.slugs}
    assert (result.equity[rows["flat"]] == 100_000).all()
    fills = np.isfinite(result.fill_price).sum(axis=1)
    assert (fills[rows["buy-and-hold"]] <= 1).all()
    assert fills[rows["random"]].sum() > 300
    moments = np.flatnonzero(np.isfinite(result.fill_price[rows["equal-weight"]]).any(axis=1))
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
    strategy = [PrecomputedTargets("flat", baselines.flat(panel))]
    with pytest.raises(DataError, match="leave a hole: one ends at bar 320, the next starts at 325"):
        run_backtests(panel, None, [Segment(Range(start=300, stop=320)), Segment(Range(start=325, stop=330))], strategy, EnvSpec())


@pytest.fixture(scope="module")
def tested(panel, panel_features, panel_fold, panel_policies):
    """A small run's accounts, and what a summary of them takes: two folds that share their policies, the mock, all strategies."""
    later = panel_fold.model_copy(update={"index": 1, "test": Range(start=690, stop=700)})
    folds, policies = [panel_fold, later], [panel_policies, panel_policies]
    env = EnvSpec()
    signals = advise(panel, market_features(panel), 505, 698, mock_advisor())
    result = out_of_sample(panel, panel_features, folds, policies, signals, env, FusionSpec(), 1)
    inside = in_sample(panel, panel_features, folds, policies, env)
    return result, (panel, folds, inside, signals, BootstrapSpec(replications=50), 1)


@pytest.fixture(scope="module")
def assessed(tested):
    """The same, whole."""
    result, (panel, folds, *_) = tested
    return result, summarise(result, *tested[1], reduced=True), fold_table(tuple(folds), panel.timestamps)


def test_the_vote_and_every_member_are_evaluated_beside_all_baselines(assessed):
    result, summary, _ = assessed
    slugs = [
        "fused",
        "vote",
        "advisor",
        "fused-ablated",
        "flat",
        "buy-and-hold",
        "equal-weight",
        "momentum",
        "momentum-regime",
        "volatility-target",
        "random",
        "random-turnover",
        "member-0",
        "member-1",
    ]
    shown = ["fused (mock advisor)", "RL vote", "advisor (mock)", "fused without advice", "flat", "buy and hold", "equal weight"]
    shown += ["momentum", "momentum regime", "volatility target", "random", "random turnover"]
    assert list(summary.strategies) == list(result.slugs) == slugs
    assert list(names_of(summary).values()) == [*shown, "RL member 0", "RL member 1"]
    assert summary.of(Role.MEMBER) == ("member-0", "member-1")
    assert [fold.fold for fold in summary.folds] == [0, 1]
    assert len(summary.folds[0].members) == 2
    assert summary.strategies["flat"].sharpe is None
    np.testing.assert_allclose(result.equity, 100_000 + result.pnl - result.commission - result.slippage, rtol=1e-9)
    grown = np.prod([1 + fold.total_return["vote"] for fold in summary.folds]) - 1
    assert grown == pytest.approx(summary.strategies["vote"].total_return)  # folds are stitched, nothing is lost between


def test_backtests_survive_their_file_and_give_the_same_bytes(assessed, tmp_path):
    result = assessed[0]
    for name in ("a", "b"):
        write_backtests(result, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_backtests(tmp_path / "a")
    np.testing.assert_array_equal(again.fill_price, result.fill_price)
    assert (again.slugs, again.roles) == (result.slugs, result.roles)
    trades = again.trades_frame()
    assert len(trades) == np.isfinite(result.fill_price).sum()


def test_the_page_is_one_file_with_every_figure_and_the_mock_is_named(assessed, panel):
    result, summary, plan = assessed
    page = render_report(result, summary, panel, QUALITY, RunFacts(plan, [("seed", "1")]))
    head = page[page.index("<body>") :]
    for wanted in (
        "Equity, log scale",
        "Drawdowns",
        "Every fold, every policy",
        "Learning curves",
        "What trading cost",
        "Provenance",
        *names_of(summary).values(),
        *map(typeset, verdict(summary)),
    ):
        assert wanted in head
    for forbidden in ('src="http', "src='http", "<link", "@import"):
        assert forbidden not in head
    assert len(figures(head)) == 10 + len(panel.symbols)  # a figure of trades for each
    assert "mock" in render_markdown(summary)


def test_a_name_with_markup_does_no_harm(assessed, panel):
    result, summary, plan = assessed
    page = render_report(result, summary.model_copy(update={"symbols": ("<b>X</b>",)}), panel, QUALITY, RunFacts(plan, []))
    assert "&lt;b&gt;X&lt;/b&gt;" in page
    assert "<b>X</b>" not in page


def test_recombined_scores_are_shown_as_a_spread_and_move_no_gate(tested, assessed, panel):
    result, summary, plan = assessed
    slug = summary.subject.slug
    scores = Recombined(
        slug=slug, groups=10, test_groups=2, n_splits=45, purge_bars=1, embargo_bars=5, sharpe=(-0.5, 0.25, 1.0, None, 2.0),
        total_return=(0.0,) * 5,
    )  # fmt: skip
    more = summary.model_copy(update={"recombined": (scores,)})
    part = recombined_part(more)
    assert part.rows == [["RL vote", "5", "-0.50", "0.06", "0.62", "1.25", "2.00", *part.rows[0][-2:]]]
    assert part.rows[0][-2] == show(summary.strategies[slug].sharpe, "ratio")
    assert "45 models in all, without 1 bar on both sides" in part.sentences[0]
    assert "neither a gate nor a forecast" in part.sentences[1]
    assert recombined_part(summary) is None
    page = render_report(result, more, panel, QUALITY, RunFacts(plan, []))
    assert page.count('id="recombined"') == page.count('href="#recombined"') == 1
    assert "neither a gate nor a forecast" in page
    assert 'id="recombined"' not in render_report(result, summary, panel, QUALITY, RunFacts(plan, []))
    folds = tested[1][1]
    nobody = Candidates((), sessions_tested(panel, result), np.empty((len(sessions_tested(panel, result)), 0)))
    gates = [judge(each, result, panel, folds, nobody, GateSpec(), 1) for each in (summary, more)]
    assert gates[0] == gates[1]


def with_tests(summary, **signs):
    """The same run with other answers about the subject: measure to sign, an interval of 1 to 5 %, or one about zero."""
    ends = {1: (0.01, 0.05, 0.001), -1: (-0.05, -0.01, 0.001), 0: (-0.05, 0.02, 0.6), None: (None, None, None)}
    rows = []
    for each in Measure:
        sign = signs.get(each.name.lower(), 0) if signs != {"all": None} else None
        low, high, p = ends[sign]
        value = None if low is None else (low + high) / 2
        rows.append(BenchmarkTest(measure=each, value=value, error=0.01, low=low, high=high, p=p, p_adjusted=p, sign=sign or 0))
    return summary.model_copy(update={"against_benchmark": summary.against_benchmark.model_copy(update={"tests": tuple(rows)})})


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ({"alpha": 1}, "RL vote did better than buy and hold: an alpha of 1.0% to 5.0% a year ("),
        (
            {"alpha": 1, "exposure": 1, "excess": -1},
            "an alpha of 1.0% to 5.0% a year and 1.0% to 5.0% a year more return at the same mean exposure (",
        ),
        ({"alpha": 1, "excess": -1}, "Against buy and hold it had 1.0% to 5.0% a year less return; chance does not explain that."),
        (
            {"excess": 1, "sharpe": 1},
            "RL vote shows no skill beyond buy and hold: it had 1.0% to 5.0% a year more return and a Sharpe ratio",
        ),
        ({"alpha": -1}, "did worse than buy and hold: an alpha of -5.0% to -1.0% a year ("),
        ({"excess": -1}, "is statistically indistinguishable from buy and hold in alpha, return at the same mean exposure, return at"),
        ({}, "is statistically indistinguishable from buy and hold in return, alpha, return at the same mean exposure, return at"),
        ({"all": None}, "never differed from buy and hold"),
    ],
)
def test_the_verdict_names_what_carries_it(assessed, signs, words):
    summary = with_tests(assessed[1], **signs)
    text = " ".join(verdict(summary))
    assert words in text
    assert "no number here is evidence of skill" in text
    assert "The advisor was a mock" in text
    advisor = summary.advisor.model_copy(update={"is_mock": False, "n_abstained": 3, "n_advice": 40, "reveal": True})
    subject = summary.subject.model_copy(update={"reason": SubjectReason.ADVISED})
    real = " ".join(verdict(summary.model_copy(update={"reduced": False, "advisor": advisor, "subject": subject})))
    assert "evidence of skill" not in real
    assert "mock" not in real
    assert "abstained on 3 of 40 questions" in real
    assert "no number that depends on its advice is a result" in real
    assert "abstained" not in text


def test_supervised_models_that_rl_is_level_with_share_a_sentence(assessed):
    summary = assessed[1]
    held = summary.strategies["flat"].model_copy(update={"role": Role.REGRESSION})
    row = Comparison(
        question=Question.SUPERVISED, of="vote", against=("logistic",), difference=0.01, low=-0.05, high=0.08, sign=0, beaten=None,
        detectable=0.13,
    )  # fmt: skip
    trees = row.model_copy(update={"against": ("trees",), "low": -0.03, "high": 0.1, "detectable": 0.12})
    worse = row.model_copy(update={"against": ("lasso",), "low": -0.2, "high": -0.01, "sign": -1})

    def said(*rows):
        kinds = {each.against[0]: held for each in rows}
        found = verdict(summary.model_copy(update={"supervised": rows, "strategies": {**summary.strategies, **kinds}}))
        return [sentence for sentence in found if "regression" in sentence or "trees" in sentence]

    joint = (
        "RL did not beat logistic regression and boosted trees, from which it is statistically indistinguishable: the intervals of the "
        "yearly differences, -5.0% to 8.0% and -3.0% to 10.0%, include zero. Histories like this one show a true difference of 13.0% a "
        "year in four of five cases, smaller ones less often."
    )
    lost = (
        "RL did not beat lasso regression: RL vote earned 1.0% to 20.0% a year less than lasso regression; chance does not explain the "
        "loss."
    )
    assert said(row, worse, trees) == [joint, lost]
    [alone] = said(row)
    assert alone.startswith("RL did not beat logistic regression: RL vote is statistically indistinguishable from logistic regression: the")


def ruined_result(result, slug):
    """The same accounts, one of which is ruined at the 20th close and closed out, owing money, at the next."""
    row, changed = result.row(slug), {field: getattr(result, field).copy() for field in ("equity", "ruined", "last")}
    changed["equity"][row, 20:] = [9_000.0, *[0.0] * (result.equity.shape[1] - 21)]
    changed["ruined"][row], changed["last"][row] = 20, 21
    return replace(result, **changed)


def test_a_ruined_strategy_is_called_so_first_and_beats_nothing(tested):
    result = ruined_result(tested[0], "fused")
    summary = summarise(result, *tested[1], reduced=False, subject="fused")
    date, shown = tested[1][0].sessions[result.positions[20]].item(), "fused (mock advisor)"
    found, sentences = summary.strategies["fused"], verdict(summary)
    assert sentences[0] == f"{shown} was ruined on {date}: it lost 100.0% of its equity; nothing after that day counts."
    assert not any("than buy and hold" in sentence or "indistinguishable from buy and hold" in sentence for sentence in sentences)
    assert (found.ruined, found.total_return, found.cagr) == (date, -1, -1)
    assert [found.excess_return, found.excess_low, found.excess_high] == [None] * 3
    assert summary.strategies["buy-and-hold"].ruined is None
    for row in summary.comparisons:
        assert (row.difference is None) == (row.of == "fused")
        if row.of == "fused":
            assert (row.sign, row.ruined, row.ruined_on) == (0, "fused", date)
            other = names_of(summary)[row.against[0]]
            assert comparison_sentence(summary, row) == f"{shown} was ruined on {date}, so {shown} and {other} are not compared."
    assert conclusion(summary).startswith(f"{shown} was ruined on {date}")
    first, later = summary.folds
    assert (first.total_return["fused"], later.total_return["fused"], later.sharpe["fused"]) == (-1, None, None)
    assert summary.spans[0].strategies["fused"].sharpe == found.sharpe
    page = render_report(result, summary, tested[1][0], QUALITY, RunFacts(fold_table(tuple(tested[1][1]), tested[1][0].timestamps), []))
    ruined = f"-100.0%, ruined {date}"
    assert comparison(summary)[0]["total return"] == ruined
    assert ruined in render_markdown(summary)
    assert typeset(ruined) in page
    assert f"<title>Ruined: {shown} lost 100.0% by {date}</title>" in page


def test_what_came_before_the_ruin_is_measured_alone(tested):
    """Twenty-one closes and no more: the flat line after them would water down every number."""
    result, panel = ruined_result(tested[0], "vote"), tested[1][0]
    row, periods = result.row("vote"), periods_of(panel, result)
    found, returns = measure(result, row, periods), session_returns(result.equity[row, :22], periods.until(21))
    assert len(returns) == 21
    assert found.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(periods.per_year))
    assert found.exposure == pytest.approx(np.abs(result.weights[row, 1:22]).sum(axis=1).mean())
    assert found.turnover == pytest.approx(result.traded[row, -1] / result.equity[row, :22].mean() / (21 / periods.per_year))
    assert (session_returns(result.equity[row], periods)[21:] == 0).all()  # nothing is divided by nothing


def test_a_ruined_benchmark_is_compared_with_nothing(tested):
    summary = summarise(ruined_result(tested[0], "buy-and-hold"), *tested[1], reduced=False)
    assert verdict(summary)[0].endswith("it lost 100.0% of its equity; nothing is compared with it.")
    assert {row.excess_return for row in summary.strategies.values()} == {None}
    assert not any("than buy and hold" in sentence for sentence in verdict(summary))
    assert comparison_sentence(summary, summary.comparisons[2]).startswith("buy and hold was ruined on")


def test_a_squeezed_short_is_in_the_books_to_the_last_unit():
    closes = [100.0, 100.0, 100.0, 350.0, 50.0, 50.0]
    bars, env = flat_bars(closes, "1D"), EnvSpec(initial_cash=1_000, allow_short=True, rebalance_band=0, costs=FREE)
    targets = np.full((len(closes), 1), -1.0)
    result = run_backtests(bars, None, [Segment(Range(start=1, stop=6))], [PrecomputedTargets("short", targets)], env)
    assert result.equity[0].tolist() == [1_000, 1_000, 1_000, 0, 0, 0]
    assert (result.ruined[0], result.last[0], result.written_off[0, -1]) == (3, 3, 1_500)
    books = result.equity_frame()
    booked = 1_000 + books["pnl"] - books["commission"] - books["slippage"] - books["impact"] - books["borrow"] + books["written_off"]
    np.testing.assert_allclose(books["equity"], booked, atol=1e-9)
    assert result.trades_frame()[["units", "price", "kind"]].to_numpy().tolist() == [[-10.0, 100.0, "order"], [10.0, 350.0, "ruin"]]
    assert measure(result, 0, periods_of(bars, result)).total_return == -1


@pytest.mark.parametrize("n_symbols", [60, 200])
def test_the_passive_baselines_trade_however_small_their_slots_are(n_symbols):
    bars, env = random_panel(1, 260, n_symbols), EnvSpec()
    strategies = baselines.all_baselines(bars, 209, env, 3)
    result = run_backtests(bars, None, [Segment(Range(start=210, stop=260))], strategies, env)
    hold, equal = (np.isfinite(result.fill_price[result.row(slug)]).sum(axis=1) for slug in ("buy-and-hold", "equal-weight"))
    assert hold[1] > 0.85 * n_symbols
    assert equal[1] > 0.85 * n_symbols
    assert equal[22] > n_symbols / 4  # 21 sessions later, who moved by a tenth is put right


def test_buy_and_hold_says_what_it_could_not_buy(panel, assessed):
    def words(bars, start):
        env, test = EnvSpec(), [Segment(Range(start=start, stop=400))]
        result = run_backtests(bars, None, test, [PrecomputedTargets("buy-and-hold", baselines.buy_and_hold(bars, start - 1, env))], env)
        summary = assessed[1].model_copy(update={"purchase": purchase_of(result, "buy-and-hold", bars)})
        return [sentence for sentence in verdict(summary) if sentence.startswith("buy and hold held")]

    assert panel.tradable[[119, 120]][:, :2].all()
    assert words(panel, 120) == ["buy and hold held the 2 of 3 symbols that traded on 2001-06-15; S2 was listed later and never bought."]
    assert words(panel, 301) == []
    halted = replace(panel, close=np.where((np.arange(700)[:, None] == 119) & [False, True, False], np.nan, panel.close))
    (sentence,) = words(halted, 120)
    assert sentence.endswith("S2 was listed later and never bought; S1 had no bar that day and was never bought.")


def test_an_account_of_contracts_can_buy_them_in_every_range_and_says_when_it_cannot():
    """A future that rises tenfold: what the first test range is sized for would not buy a contract in the last."""
    nq = FUTURES["NQ"].model_copy(update={"symbol": "A", "calendar": "24/7"})
    bars = replace(flat_bars(np.geomspace(2_000, 20_000, 100), "1D"), instruments=(nq,))
    for start, stop in ((2, 20), (80, 100)):
        hold = PrecomputedTargets("buy-and-hold", baselines.buy_and_hold(bars, start - 1, EnvSpec()))
        result = run_backtests(bars, None, [Segment(Range(start=start, stop=stop))], [hold], EnvSpec())
        assert result.equity[0, 0] == np.ceil(10 * 20 * bars.close[stop - 1, 0])
        assert result.fill_units[0, 1, 0] >= 9
        require_purchase(result, "buy-and-hold", bars, EnvSpec())


def test_a_buy_and_hold_that_buys_nothing_is_refused_with_the_reason():
    """Two futures whose slot is half the account: 500,000 would buy one contract of 400,000, and two slots buy none."""
    specs = tuple(FUTURES["NQ"].model_copy(update={"symbol": symbol}) for symbol in "AB")
    days, prices = pd.date_range("2024-01-01", periods=9, tz="UTC"), dict.fromkeys(("open", "high", "low", "close"), 20_000.0)
    frame = pd.concat(pd.DataFrame({"symbol": spec.symbol, "timestamp": days, "volume": 1.0, **prices}) for spec in specs)
    bars = align(frame, pd.Timedelta(days=1), "24/7", "test", specs)

    def bought(env):
        strategy = PrecomputedTargets("buy-and-hold", baselines.buy_and_hold(bars, 0, env))
        require_purchase(run_backtests(bars, None, [Segment(Range(start=1, stop=9))], [strategy], env), "buy-and-hold", bars, env)

    bought(EnvSpec())
    with pytest.raises(
        DataError, match=r"bought nothing on 2024-01-01.*one lot of A is worth 400,000 and a slot holds 250,000; raise env\.ini"
    ):
        bought(EnvSpec(initial_cash=500_000))
    with pytest.raises(DataError, match=r"came to less than one lot under env\.max_participation"):
        bought(EnvSpec(max_participation=0.5))


# --- a user's own strategy


def test_a_users_own_strategy_stands_in_summary_and_page_under_a_name_of_its_own(tested, assessed):
    result, (panel, folds, *_) = tested
    segments = [Segment(fold.test) for fold in folds]
    own = run_backtests(panel, None, segments, [PrecomputedTargets("mean-reversion", baselines.flat(panel))], EnvSpec())
    summary = summarise(concat(result, own), *tested[1], reduced=True)
    assert summary.of(Role.STRATEGY) == ("mean-reversion",)
    assert {slug: metrics for slug, metrics in summary.strategies.items() if slug != "mean-reversion"} == assessed[1].strategies
    page = render_report(concat(result, own), summary, panel, QUALITY, RunFacts(assessed[2], []))
    assert '<th scope="row">mean reversion</th>' in page
    assert comparison(summary)[-1]["strategy"] == "mean reversion"


@pytest.mark.parametrize("slug", ["", "Mean Reversion", "mean--reversion", "-mean", "m\u00e4an"])
def test_a_strategy_without_a_slug_is_refused(panel, slug):
    with pytest.raises(StrategyError, match="is not a slug; expected lower-case letters, digits and hyphens"):
        PrecomputedTargets(slug, baselines.flat(panel))


def test_two_strategies_with_one_slug_are_refused(panel):
    flat, segments = PrecomputedTargets("flat", baselines.flat(panel)), [Segment(Range(start=300, stop=320))]
    with pytest.raises(StrategyError, match="2 accounts have the slug flat; expected one each"):
        run_backtests(panel, None, segments, [flat, flat], EnvSpec())
    alone = run_backtests(panel, None, segments, [flat], EnvSpec())
    with pytest.raises(StrategyError, match="2 accounts have the slug flat; expected one each"):
        concat(alone, alone)
