"""The contract of strategies: ours keep it, and a strategy that peeks, forgets or goes beyond its limits is told where."""

from dataclasses import dataclass

import numpy as np
import pytest
from markets import mock_advisor

from ploutos.advisor.advisor import advise
from ploutos.envs.ledger import Accounts, Stepper
from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.observation import market_rows, observation_size, observe
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StrategyError
from ploutos.evaluation.backtest import BY_ACCOUNT, Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.features.scaling import fit_scaler
from ploutos.fusion.spec import FusionSpec
from ploutos.strategies.advised import ADVISOR, FUSED, AdvisorStrategy, FusedStrategy
from ploutos.strategies.base import PrecomputedTargets, StrategyId
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.check import check_strategy
from ploutos.strategies.ensemble import EnsembleStrategy, votes_and_members
from ploutos.strategies.inference import PolicyInference, predict
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
        return AdvisorStrategy((ADVISOR,), advice(bars)[0], bars, ENV), None

    def fused(bars):
        return FusedStrategy((FUSED,), *advice(bars), bars, ENV, (FusionSpec(),)), build_features(bars, FeatureSpec())

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
    ids: tuple[StrategyId, ...] = (StrategyId("forgetful"),)
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
        (table(0.5), r"table targets 1\.5 times its equity after bar 505 .*; expected 1 at most"),
        (table(-0.1), r"targets a short position after bar 505 .* in column S0; expected none"),
        (table(np.inf), r"returns an infinite weight after bar 505 .* in column S0"),
        (lambda bars: (Forgetful(rng), None), "on the same bars"),
        (lambda bars: (Local("local", np.zeros((bars.n_bars, 3))), None), "local cannot be pickled"),
        (lambda bars: (Forgetful(rng, (StrategyId("twice"),) * 2), None), "2 accounts have the slug twice"),
        (lambda bars: (PrecomputedTargets("wide", np.zeros((bars.n_bars, 1, 3))), None), r"answers with shape"),
    ):
        with pytest.raises(StrategyError, match=sentence):
            check_strategy(build, panel, PART, ENV)


@dataclass(frozen=True)
class Asked(PrecomputedTargets):
    """The same table, but asked for its targets bar by bar."""


def test_a_table_gives_the_same_bytes_read_or_asked(panel):
    segments, tables = [Segment(Range(start=301, stop=400)), Segment(Range(start=400, stop=500))], all_baselines(panel, 300, ENV, 1)
    read = run_backtests(panel, None, segments, tables, ENV)
    asked = run_backtests(panel, None, segments, [Asked(each.slug, each.table) for each in tables], ENV)
    for name in BY_ACCOUNT:
        assert getattr(read, name).tobytes() == getattr(asked, name).tobytes(), name


@pytest.mark.parametrize("n", [1, 15, 16, 25])
def test_members_asked_together_answer_as_each_does_alone(panel, panel_features, panel_policies, n):
    """Whatever the number of accounts; one account among them has the same bits by itself, and all are answered as the whole network
    does, but for rounding."""
    part, arrays = Range(start=506, stop=516), make_market_arrays(panel)
    stepper = Stepper(Accounts.open(n, panel.n_symbols, 100_000.0), arrays, ENV)
    together = PolicyInference(panel_policies, panel, panel_features, part, arrays, ENV)
    alone = [PolicyInference([policy], panel, panel_features, part, arrays, ENV) for policy in panel_policies]
    random = np.random.default_rng(3)
    for at in range(part.start - 1, part.stop - 1):
        bar = np.full(n, at)
        answers = together.predict(stepper.accounts, bar)
        np.testing.assert_array_equal(answers, np.concatenate([each.predict(stepper.accounts, bar) for each in alone]))
        by_itself = together.predict(stepper.accounts.rows(slice(n - 1, n)).copy(), bar[:1])
        np.testing.assert_array_equal(answers[:, -1:], by_itself)
        for policy, answer in zip(panel_policies, answers, strict=True):
            rows = market_rows(panel_features, panel.tradable, policy.scaler)
            seen = np.empty((n, observation_size(rows.shape[1], panel.n_symbols)), dtype=np.float32)
            observe(stepper.accounts, bar, rows, arrays, seen)
            np.testing.assert_allclose(answer, predict(policy, seen), atol=1e-6)
        stepper.step(bar, random.random((n, panel.n_symbols)) / 3)


def test_a_backtest_keeps_what_it_is_asked_to_keep(panel):
    segments, strategies = [Segment(Range(start=301, stop=400))], all_baselines(panel, 300, ENV, 1)
    whole = run_backtests(panel, None, segments, strategies, ENV)
    lean = run_backtests(panel, None, segments, strategies, ENV, keep=())
    np.testing.assert_array_equal(lean.equity, whole.equity)
    assert lean.weights.size == lean.fill_units.size == lean.pnl.size == 0
    costs = run_backtests(panel, None, segments, strategies, ENV, keep=("costs",))
    np.testing.assert_array_equal(costs.commission, whole.commission)
    assert costs.weights.size == 0
