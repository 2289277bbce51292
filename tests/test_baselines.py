"""Baselines without foresight, sessions at their edges, and a page that loads nothing and says what it was told."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import QUALITY, mock_advisor, random_panel
from pages import script
from plotly.offline import get_plotlyjs

from ploutos.advisor.advisor import advise
from ploutos.advisor.cutoff import Tag
from ploutos.envs.market_arrays import decayed_volatility
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.experiment import in_sample, out_of_sample
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.metrics import measure, periods_of, session_closes, sharpe_ratio
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import Subject, SubjectReason
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import align
from ploutos.market.sources import sample
from ploutos.reporting.report import RunFacts, render_report
from ploutos.reporting.verdict import verdict
from ploutos.strategies import baselines
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.check import check_strategy
from ploutos.walk_forward import Range, fold_table


def walk(stamps, timeframe, close=None):
    """Bars at the given times and closes, a seeded random walk unless told."""
    if close is None:
        close = 100 * np.exp(np.cumsum(np.random.default_rng(4).normal(0, 0.02, len(stamps))))
    columns = {"open": close, "high": close, "low": close, "close": close, "volume": 1.0}
    return align(pd.DataFrame({"symbol": "A", "timestamp": stamps, **columns}), timeframe, "24/7", "a walk")


@settings(max_examples=20, deadline=None)
@given(t=st.integers(301, 700))
def test_the_targets_of_a_prefix_are_the_prefix_of_the_targets(panel, t):
    whole, past = (baselines.all_baselines(bars, 299, EnvSpec(), 3) for bars in (panel, panel.head(t)))
    for full, cut in zip(whole, past, strict=True):
        np.testing.assert_array_equal(cut.table, full.table[:t], err_msg=full.slug)


def test_every_baseline_keeps_the_contract():
    bars = random_panel(4, n_bars=420)
    for place, slug in enumerate(baseline.slug for baseline in baselines.all_baselines(bars, 299, EnvSpec(), 3)):

        def build(known, place=place):
            return baselines.all_baselines(known, 299, EnvSpec(), 3)[place], None

        assert build(bars)[0].slug == slug
        check_strategy(build, bars, Range(start=300, stop=400), n_cuts=2)


def test_the_momentum_regime_is_the_seed_s_rule_symbol_by_symbol():
    bars = random_panel(5, n_bars=300)
    table = baselines.momentum_regime(bars, EnvSpec())
    for j in range(3):
        closes = []
        for t in range(300):
            if bars.tradable[t, j]:
                closes.append(bars.close[t, j])
                holds = len(closes) >= 50 and np.mean(closes[-20:]) > np.mean(closes[-50:]) and closes[-1] > closes[-5]
                assert (table[t, j] > 0) == holds, (t, j)
            else:
                assert table[t, j] == 0


def test_the_random_account_trades_about_as_often_as_the_rule_and_the_volatility_target_holds_less_when_wild():
    bars = random_panel(6, n_bars=2000)
    rule, random = (table > 0 for table in (baselines.momentum_regime(bars, EnvSpec()), baselines.random_turnover(bars, EnvSpec(), 1)))
    trades = [(table[1:] != table[:-1]).sum() for table in (rule, random)]
    assert 0.7 < trades[1] / trades[0] < 1.4
    target = baselines.volatility_target(bars, 299, EnvSpec())
    kept = np.isfinite(target).any(axis=1)
    held = np.nansum(target[kept], axis=1)
    volatility = decayed_volatility(bars)[kept].mean(axis=1)
    assert np.corrcoef(held, volatility)[0, 1] < -0.8
    assert held.max() < 0.6  # 2 % a bar, 0.6 % wanted


def test_a_longer_trading_day_to_come_changes_no_target_before_it():
    """Four bars a day for a month, eight a day afterwards: the first month cannot know."""
    first = pd.date_range("2024-01-01", periods=30 * 4, freq="6h", tz="UTC")
    later = pd.date_range("2024-01-31", periods=60 * 8, freq="3h", tz="UTC")
    bars = walk(first.append(later), pd.Timedelta("3h"))
    for full, cut in zip(
        baselines.all_baselines(bars, 0, EnvSpec(), 3), baselines.all_baselines(bars.head(len(first)), 0, EnvSpec(), 3), strict=True
    ):
        np.testing.assert_array_equal(cut.table, full.table[: len(first)], err_msg=full.slug)


def test_momentum_holds_what_rose_over_126_sessions_and_decides_once_in_21():
    wave = 100 + 20 * np.sin(np.arange(300) / 40)  # up and down within 251 days
    bars = walk(pd.date_range("2024-01-01", periods=300, tz="UTC"), pd.Timedelta(days=1), wave)
    targets = baselines.momentum(bars, 150, EnvSpec())[:, 0]
    moments = list(range(150, 300, 21))
    expected = [1.0 if bars.close[t, 0] > bars.close[t - 126, 0] else 0.0 for t in moments]
    assert np.flatnonzero(np.isfinite(targets)).tolist() == moments
    assert targets[moments].tolist() == expected
    assert set(expected) == {0.0, 1.0}  # else the wave would show nothing


def test_buy_and_hold_fills_once_per_symbol_and_random_follows_its_seed(panel):
    env, segment = EnvSpec(), [Segment(Range(start=301, stop=700))]
    assert panel.tradable[300:302].all()
    strategies = [
        PrecomputedTargets("hold", baselines.buy_and_hold(panel, 300, env)),
        *(PrecomputedTargets(f"random-{seed}", baselines.random(panel, env, seed)) for seed in (3, 4)),
        PrecomputedTargets("random-again", baselines.random(panel, env, 3)),
        PrecomputedTargets("flat", baselines.flat(panel)),
    ]
    result = run_backtests(panel, None, segment, strategies, env)
    fills = np.isfinite(result.fill_price).sum(axis=1)
    assert fills[0].tolist() == [1, 1, 1]
    assert fills[4].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(result.equity[1], result.equity[3])
    assert result.equity[1, -1] != result.equity[2, -1]


def test_the_first_bar_of_a_panel_cannot_be_tested(panel):
    with pytest.raises(DataError, match="no bar before it to decide on"):
        run_backtests(panel, None, [Segment(Range(start=0, stop=9))], [PrecomputedTargets("flat", baselines.flat(panel))], EnvSpec())


@pytest.mark.parametrize(
    ("sessions", "ends"),
    [
        ([1, 2, 3], [0, 1, 2]),  # daily
        ([1, 2, 2, 3, 3], [0, 2, 4]),  # the start is the last close of its session
        ([1, 1, 2, 2], [0, 1, 3]),  # the start is within a session, whose rest counts
        ([1, 1, 1], [0, 2]),
    ],
)
def test_sessions_end_at_their_last_close(sessions, ends):
    assert session_closes(np.array(sessions)).tolist() == ends


def test_a_constant_gain_has_no_sharpe_ratio_and_two_returns_have_one():
    assert np.isnan(sharpe_ratio(np.full(20, 0.001), 252))
    assert np.isnan(sharpe_ratio(np.array([]), 252))
    # mean 0.01, deviation 0.02 / sqrt(2)
    assert sharpe_ratio(np.array([0.0, 0.02]), 200) == pytest.approx(0.01 / (0.02 / np.sqrt(2)) * np.sqrt(200))


def test_one_session_has_a_return_but_no_volatility():
    bars = walk(pd.date_range("2024-01-01", periods=3, tz="UTC"), pd.Timedelta(days=1))
    strategy = PrecomputedTargets("hold", baselines.buy_and_hold(bars, 0, EnvSpec()))
    result = run_backtests(bars, None, [Segment(Range(start=1, stop=2))], [strategy], EnvSpec())
    found = measure(result, 0, periods_of(bars, result))
    assert found.total_return == pytest.approx(result.equity[0, 1] / 100_000 - 1)
    assert (found.ann_vol, found.sharpe) == (None, None)


@pytest.fixture(scope="module")
def small_run(panel, panel_features, panel_fold, panel_policies):
    """One fold of 60 bars, and its page for any width of the interval."""
    fold = panel_fold.model_copy(update={"test": Range(start=506, stop=566)})
    folds, policies = [fold], [panel_policies]
    signals = advise(panel, market_features(panel), 505, 565, mock_advisor())
    result = out_of_sample(panel, panel_features, folds, policies, signals, EnvSpec(), FusionSpec(), 1)
    inside = in_sample(panel, panel_features, folds, policies, EnvSpec())

    def page(confidence):
        bootstrap = BootstrapSpec(replications=30, confidence=confidence)
        summary = summarise(result, panel, folds, inside, signals, bootstrap, 1, reduced=False)
        return summary, render_report(result, summary, panel, QUALITY, RunFacts(fold_table(tuple(folds), panel.timestamps), []))

    return page


def plain(summary, low, high, **changes):
    """A full run of a real advisor on bars from elsewhere, all of it clean, that bought all symbols."""
    p, sign = (0.01, 1) if low > 0 else (0.6, 0)
    ends = {"value": (low + high) / 2, "low": low, "high": high, "p": p, "p_adjusted": p, "sign": sign}
    tests = tuple(row.model_copy(update=ends) for row in summary.against_benchmark.tests)
    against = summary.against_benchmark.model_copy(update={"tests": tests, "coverage": 0.95, "relative_exposure": 0.5})
    advisor = {"is_mock": False, "n_abstained": 0, "reveal": False}
    facts = {
        "reduced": False, "source": "elsewhere", "confidence": 0.9, "comparisons": (),
        "against_benchmark": against, "subject": Subject(slug="fused", reason=SubjectReason.ADVISED),
        "spans": tuple(span.model_copy(update={"tag": Tag.CLEAN}) for span in summary.spans),
        "purchase": summary.purchase.model_copy(update={"bought": summary.symbols}),
    }  # fmt: skip
    given = {name: changes.pop(name) for name in advisor if name in changes}
    return summary.model_copy(update=facts | {"advisor": summary.advisor.model_copy(update=advisor | given)} | changes)


def test_a_full_run_of_a_real_advisor_gets_one_sentence(small_run):
    summary = small_run(0.95)[0]
    sentence, raw, why = verdict(plain(summary, 0.02, 0.04))
    assert sentence.startswith(
        "fused (LLM) did better than buy and hold: 2.0% to 4.0% a year more return, an alpha of 2.0% to 4.0% a year, "
    )
    assert "a Sharpe ratio higher by 0.02 to 0.04 (90% intervals of this one history; p-values corrected for 5 measures;" in sentence
    assert raw.startswith("It held 50% of the exposure of buy and hold on average; the interval of its yearly return")
    assert why.startswith("The verdict is about fused (LLM): the advisor is a language model and some tested sessions are clean")
    assert "shortened run" in verdict(plain(summary, 0.02, 0.04, reduced=True))[2]
    assert "mock" in verdict(plain(summary, 0.02, 0.04, is_mock=True))[3]
    assert "still well known in 2013" in verdict(plain(summary, 0.02, 0.04, source=sample.NAME))[3]
    substituted = verdict(plain(summary, 0.02, 0.04, source="alpaca, raw; SPY stands in for ES"))[3]
    assert substituted == "SPY stands in for ES: it has its own hours, dividends and costs, and no rolls."


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.04), (-0.04, 0.0), (-0.01, 0.01)])
def test_an_interval_that_touches_zero_tells_nothing(small_run, low, high):
    sentence, *_ = verdict(plain(small_run(0.95)[0], low, high))
    assert "statistically indistinguishable from buy and hold" in sentence


def test_the_page_loads_nothing_from_elsewhere(small_run):
    _, page = small_run(0.95)
    assert script(page) == get_plotlyjs()  # the library travels inside
    own = page[: page.index('id="plotly"')]
    for forbidden in ("src=", "<link", "@import", 'href="http', "url(http"):
        assert forbidden not in own
    assert "fused (mock advisor)" in own


def test_a_wider_confidence_gives_a_wider_interval(small_run):
    wide, narrow = (small_run(confidence)[0].strategies["buy-and-hold"] for confidence in (0.95, 0.5))
    assert wide.sharpe_low < narrow.sharpe_low < narrow.sharpe_high < wide.sharpe_high


def test_the_page_names_the_confidence_that_its_intervals_have(small_run):
    assert "95% interval" in small_run(0.95)[1]
    assert "95% interval" not in small_run(0.5)[1]
