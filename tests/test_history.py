"""Drawdowns, months, tails and rolling windows, against pandas and against paths one can work out."""

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.history import (
    calendar_returns,
    deepest_drawdowns,
    distribution,
    history_of,
    matched_exposure,
    moving_mean,
    rolling,
    window_of,
)
from ploutos.evaluation.metrics import (
    drawdown_spans,
    drawdowns,
    expected_shortfall,
    measure,
    periods_of,
    session_returns,
    value_at_risk,
)
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.baselines import buy_and_hold
from ploutos.walk_forward import Range

DAYS = pd.bdate_range("2020-01-30", periods=700).to_numpy().astype("datetime64[D]")
RETURNS = np.random.default_rng(7).standard_t(4, (2, 699)) * 0.01
RETURNS[0] += 0.4 * RETURNS[1]
EQUITY = 1000 * np.cumprod(np.c_[np.ones((2, 1)), 1 + RETURNS], axis=1)


def test_drawdowns_of_a_path_worked_out_by_hand():
    path = np.array([100.0, 90.0, 95.0, 100.0, 120.0, 60.0, 90.0, 119.0])
    days = DAYS[:8]
    deep, shallow = deepest_drawdowns(path, days)
    assert (deep.peak, deep.trough, deep.recovered) == (days[4].item(), days[5].item(), None)
    assert (deep.depth, deep.n_sessions) == (-0.5, 3)
    assert (shallow.peak, shallow.trough, shallow.recovered) == (days[0].item(), days[1].item(), days[3].item())
    assert (shallow.depth, shallow.n_sessions) == (pytest.approx(-0.1), 3)
    assert deepest_drawdowns(np.arange(1.0, 9.0), days) == ()


def test_hours_of_one_session_are_no_longer_than_the_session():
    days = np.repeat(DAYS[:3], 4)
    path = np.array([100.0, 90, 80, 90, 100, 110, 105, 110, 120, 60, 60, 70])
    deep, first, again = deepest_drawdowns(path, days)
    assert (deep.depth, deep.n_sessions, deep.peak) == (-0.5, 0, days[8].item())
    assert (first.peak, first.recovered, first.n_sessions) == (days[0].item(), days[4].item(), 1)
    assert (again.depth, again.recovered) == (pytest.approx(105 / 110 - 1), days[7].item())


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(2, 60), elements=st.floats(0.5, 2.0)))
def test_every_close_below_the_highest_lies_in_one_drawdown_and_the_deepest_is_the_deepest(path):
    spans, under = drawdown_spans(path), drawdowns(path)
    covered = sorted(at for peak, _, back in spans for at in range(peak + 1, len(path) if back is None else back))
    assert covered == np.flatnonzero(under < 0).tolist()
    assert [under[trough] for _, trough, _ in spans] == sorted(under[trough] for _, trough, _ in spans)
    if spans:
        assert under[spans[0][1]] == under.min()
    for peak, trough, back in spans:
        assert path[peak] == path[: trough + 1].max()
        assert back is None or path[back] >= path[peak]


@pytest.mark.parametrize(("unit", "rule"), [("M", "ME"), ("Y", "YE")])
def test_months_and_years_are_those_of_pandas_and_compound_to_the_whole(unit, rule):
    found = calendar_returns(EQUITY[0], DAYS, unit)
    by_pandas = pd.Series(1 + RETURNS[0], index=pd.DatetimeIndex(DAYS[1:])).resample(rule).prod() - 1
    assert list(found) == [str(stamp.to_period(unit)) for stamp in by_pandas.index]
    np.testing.assert_allclose(list(found.values()), by_pandas, rtol=1e-9)
    assert math.prod(1 + value for value in found.values()) == pytest.approx(EQUITY[0, -1] / EQUITY[0, 0])


def test_the_tail_is_that_of_pandas():
    series = pd.Series(RETURNS[0])
    assert value_at_risk(RETURNS[0]) == pytest.approx(series.quantile(0.05))
    assert expected_shortfall(RETURNS[0]) == pytest.approx(series[series <= series.quantile(0.05)].mean())
    assert expected_shortfall(RETURNS[0]) < value_at_risk(RETURNS[0]) < 0
    assert math.isnan(value_at_risk(RETURNS[0, :19]))
    assert math.isnan(expected_shortfall(RETURNS[0, :19]))
    assert [value_at_risk(np.ones(20)), expected_shortfall(np.ones(20))] == [1, 1]


def test_rolling_sharpe_and_beta_are_those_of_pandas():
    found = rolling(*RETURNS, DAYS[1:], 252)
    assert found.window == 126
    own, market = pd.Series(RETURNS[0]), pd.Series(RETURNS[1])
    sharpe = (own.rolling(126).mean() / own.rolling(126).std() * np.sqrt(252)).dropna()
    beta = (own.rolling(126).cov(market) / market.rolling(126).var()).dropna()
    np.testing.assert_allclose(found.sharpe, sharpe, rtol=1e-7)
    np.testing.assert_allclose(found.beta, beta, rtol=1e-7)
    np.testing.assert_array_equal(found.days, DAYS[126:])
    # a window reads nothing that comes after it
    changed = rolling(np.r_[RETURNS[0, :-1], 9.0], RETURNS[1], DAYS[1:], 252)
    np.testing.assert_array_equal(changed.sharpe[:-1], found.sharpe[:-1])


@pytest.mark.parametrize(("n", "window"), [(1762, 126), (300, 100), (60, 20), (59, 0)])
def test_a_short_test_has_a_shorter_window_or_none(n, window):
    assert window_of(n, 252) == window
    assert (rolling(RETURNS[0, :59], RETURNS[1, :59], DAYS[1:60], 252) is None) == (window_of(59, 252) == 0)


def test_a_window_without_variance_has_no_ratio():
    flat = np.zeros(100)
    found = rolling(flat, flat, DAYS[1:101], 252)
    assert np.isnan(found.sharpe).all()
    assert np.isnan(found.beta).all()


def test_a_moving_mean_is_that_of_pandas():
    np.testing.assert_allclose(moving_mean(RETURNS[0], 21), pd.Series(RETURNS[0]).rolling(21, min_periods=1).mean(), atol=1e-12)


def test_a_distribution_counts_every_session_once():
    edges, own, other = distribution(*RETURNS)
    assert own.sum() == other.sum() == RETURNS.shape[1]
    assert 20 <= len(own) <= 80
    np.testing.assert_allclose(np.diff(edges), edges[1] - edges[0])
    assert distribution(np.zeros(5), np.zeros(5))[1].sum() == 5


def test_an_accounts_history_ends_where_it_was_ruined_and_agrees_with_its_metrics(panel):
    strategy = PrecomputedTargets("buy-and-hold", buy_and_hold(panel, 0, EnvSpec()))
    result = run_backtests(panel, None, [Segment(Range(start=1, stop=panel.n_bars))], [strategy], EnvSpec())
    periods, found = periods_of(panel, result), history_of(result, "buy-and-hold", panel, periods_of(panel, result))
    metrics = measure(result, 0, periods)
    assert found.drawdowns[0].depth == pytest.approx(metrics.max_drawdown)
    assert math.prod(1 + value for value in found.years.values()) - 1 == pytest.approx(metrics.total_return)
    assert metrics.value_at_risk == pytest.approx(np.quantile(session_returns(result.equity[0], periods), 0.05))
    # of oneself at one's own exposure is oneself
    np.testing.assert_allclose(matched_exposure(result, "buy-and-hold", "buy-and-hold", periods), result.equity[0][periods.ends])
    result.last[0] = 30
    ended = history_of(result, "buy-and-hold", panel, periods)
    assert list(ended.years) == [str(panel.sessions[0].item().year)]
    assert max(fall.trough for fall in ended.drawdowns) <= panel.sessions[30].item()
    assert isinstance(ended.drawdowns[0].peak, date)
