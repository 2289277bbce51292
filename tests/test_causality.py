"""Cut the future, or rewrite it: no feature, observation, decision or fill at or before *t* may change."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import mock_advisor

from ploutos.advisor.advisor import advise
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import FIELDS
from ploutos.strategies.advised import AdvisorStrategy, FusedStrategy
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.ensemble import EnsembleStrategy
from ploutos.walk_forward import Range

START = 506


def everything(bars, policies):
    """From bars to fills, as a run would do it: features, advice, policies, fusion, baselines, ledger."""
    env = EnvSpec()
    features = build_features(bars, FeatureSpec())
    advised_actions, confidences = advise(bars, market_features(bars), START - 1, bars.n_bars - 1, mock_advisor()).align_to_bars(bars)
    strategies = [
        FusedStrategy(("fused",), advised_actions[None], confidences[None], bars, env, (FusionSpec(),)),
        EnsembleStrategy({"vote": slice(None)}, bars=bars, env=env),
        AdvisorStrategy(("advisor",), advised_actions[None], bars, env),
        *all_baselines(bars, START - 1, env, seed=3),
    ]
    return run_backtests(bars, features, [Segment(Range(start=START, stop=bars.n_bars), tuple(policies))], strategies, env)


@pytest.fixture(scope="module")
def whole(panel, panel_policies):
    return everything(panel, panel_policies)


def assert_same_past(past, whole):
    n = past.equity.shape[1]
    for name in ("equity", "pnl", "commission", "slippage", "traded", "weights", "fill_units", "fill_price"):
        np.testing.assert_array_equal(getattr(past, name), getattr(whole, name)[:, :n], err_msg=name)


@settings(max_examples=8, deadline=None)
@given(t=st.integers(START + 2, 699))
def test_cutting_the_future_changes_no_decision_and_no_fill(panel, panel_policies, whole, t):
    assert_same_past(everything(panel.head(t), panel_policies), whole)


@settings(max_examples=5, deadline=None)
@given(t=st.integers(START + 2, 690), seed=st.integers(0, 1000))
def test_rewriting_the_future_changes_no_decision_and_no_fill(panel, panel_policies, whole, t, seed):
    factor = np.ones((panel.n_bars, 1))
    factor[t:, 0] = np.random.default_rng(seed).uniform(0.2, 5, panel.n_bars - t)
    other = replace(panel, **{name: getattr(panel, name) * factor for name in FIELDS})
    rewritten = everything(other, panel_policies)
    cut = {
        name: getattr(rewritten, name)[:, : t - START + 1]
        for name in ("equity", "pnl", "commission", "slippage", "traded", "weights", "fill_units", "fill_price")
    }
    assert_same_past(replace(rewritten, **cut), whole)
    assert not np.array_equal(rewritten.equity[:, -1], whole.equity[:, -1])


def test_prices_times_eight_give_the_same_decisions(panel, panel_policies, whole):
    """Eight is a power of two: every ratio is the same to the last bit."""
    scaled = replace(panel, **{name: getattr(panel, name) * 8 for name in ("open", "high", "low", "close")})
    other = everything(scaled, panel_policies)
    np.testing.assert_allclose(other.equity, whole.equity, rtol=1e-12)
    np.testing.assert_allclose(other.fill_units * 8, whole.fill_units, rtol=1e-9)


def test_prices_times_ten_give_the_same_equity(panel, panel_policies, whole):
    scaled = replace(panel, **{name: getattr(panel, name) * 10 for name in ("open", "high", "low", "close")})
    np.testing.assert_allclose(everything(scaled, panel_policies).equity, whole.equity, rtol=1e-9)
