"""The contract of strategies: ours keep it, and a strategy that peeks, forgets or goes beyond its limits is told where."""

from dataclasses import dataclass

import numpy as np
import pytest
from markets import mock_advisor

from ploutos.advisor.advisor import advise
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StrategyError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.features.scaling import fit_scaler
from ploutos.fusion.spec import FusionSpec
from ploutos.strategies.advised import AdvisorStrategy, FusedStrategy
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.check import check_strategy
from ploutos.strategies.ensemble import EnsembleStrategy, votes_and_members
from ploutos.walk_forward import Range

PART = Range(start=506, stop=560)
ENV = EnvSpec()


def baseline(index):
    return lambda bars: (all_baselines(bars, PART.start - 1, ENV, 3)[index], None)


@pytest.mark.parametrize("index", range(5))
def test_every_baseline_keeps_the_contract(panel, index):
    check_strategy(baseline(index), panel, PART, ENV)


def test_votes_advice_and_fusion_keep_the_contract(panel, panel_policies):
    def voted(bars):
        return EnsembleStrategy(votes_and_members(2), bars=bars, env=ENV), build_features(bars, FeatureSpec())

    def advice(bars):
        advised_actions, sure = advise(
            bars, market_features(bars), PART.start - 1, min(PART.stop, bars.n_bars) - 2, mock_advisor()
        ).align_to_bars(bars)
        return advised_actions[None], sure[None]

    def advised(bars):
        return AdvisorStrategy(("advisor",), advice(bars)[0], bars, ENV), None

    def fused(bars):
        return FusedStrategy(("fused",), *advice(bars), bars, ENV, (FusionSpec(),)), build_features(bars, FeatureSpec())

    check_strategy(voted, panel, PART, ENV, panel_policies[:2])
    check_strategy(advised, panel, PART, ENV)
    check_strategy(fused, panel, PART, ENV, panel_policies[:2])


def test_a_strategy_that_peeks_one_bar_ahead_is_told_where(panel):
    def peeks(bars):
        ahead = np.vstack([bars.mark[1:], bars.mark[-1:]])
        return PrecomputedTargets("peeks", np.where(ahead > bars.mark, 0.3, 0.0)), None

    with pytest.raises(StrategyError, match=r"the answer changed after bar \d+ \(\d{4}-.*Z\) in column S\d on bars whose future"):
        check_strategy(peeks, panel, PART, ENV)


def test_a_scaler_fitted_on_all_bars_is_found(panel):
    def scaled(bars):
        features = build_features(bars, FeatureSpec())
        rows = fit_scaler(features.values[features.ready.all(axis=1)]).transform(features.values)
        return PrecomputedTargets("scaled", np.clip(np.nan_to_num(rows[:, :, 0]), 0, 0.3)), None

    with pytest.raises(StrategyError, match=r"the answer changed after bar \d+ .* in column S\d"):
        check_strategy(scaled, panel, PART, ENV)


@dataclass
class Forgetful:
    """Draws at random."""

    random: np.random.Generator
    names: tuple[str, ...] = ("forgetful",)
    asks_policies = False

    def targets(self, context):
        return self.random.random(context.held.shape) / 3


def test_limits_shapes_chance_and_pickles(panel):
    def table(value, name="table"):
        return lambda bars: (PrecomputedTargets(name, np.full((bars.n_bars, bars.n_symbols), value)), None)

    class Local(PrecomputedTargets):
        pass

    rng = np.random.default_rng(0)
    for build, sentence in (
        (table(0.5), r"table asks for 1\.5 times its equity after bar 505 .*; expected 1 at most"),
        (table(-0.1), r"asks for a short after bar 505 .* in column S0; expected none"),
        (table(np.inf), r"asks for an infinite weight after bar 505 .* in column S0"),
        (lambda bars: (Forgetful(rng), None), "on the same bars"),
        (lambda bars: (Local("local", np.zeros((bars.n_bars, 3))), None), "local cannot be pickled"),
        (lambda bars: (PrecomputedTargets("wide", np.zeros((bars.n_bars, 1, 3))), None), r"answers with shape"),
    ):
        with pytest.raises(StrategyError, match=sentence):
            check_strategy(build, panel, PART, ENV)


def test_a_backtest_keeps_what_it_is_asked_to_keep(panel):
    segments, strategies = [Segment(Range(start=301, stop=400))], all_baselines(panel, 300, ENV, 1)
    whole = run_backtests(panel, None, segments, strategies, ENV)
    lean = run_backtests(panel, None, segments, strategies, ENV, keep=())
    np.testing.assert_array_equal(lean.equity, whole.equity)
    assert lean.weights.size == lean.fill_units.size == lean.pnl.size == 0
    costs = run_backtests(panel, None, segments, strategies, ENV, keep=("costs",))
    np.testing.assert_array_equal(costs.commission, whole.commission)
    assert costs.weights.size == 0
