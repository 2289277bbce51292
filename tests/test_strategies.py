"""The contract of strategies: ours keep it, and a strategy that peeks, forgets or goes beyond its limits is told where."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from markets import TINY, mock_advisor

from ploutos.advisor.advisor import advise
from ploutos.envs.ledger import Accounts, Stepper
from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.observation import market_rows, observation_size, observe
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError, StrategyError
from ploutos.evaluation.backtest import BY_ACCOUNT, Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.features.scaling import fit_scaler
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import FIELDS, Bars
from ploutos.strategies.advised import ADVISOR, FUSED, AdvisorStrategy, FusedStrategy
from ploutos.strategies.base import PrecomputedTargets, StrategyId
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.check import check_strategy
from ploutos.strategies.ensemble import EnsembleStrategy, votes_and_members
from ploutos.strategies.inference import PolicyInference, predict
from ploutos.training.checkpoint import load_policy
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, SpeedSpec, TrainingPaths
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
            bars, market_features(bars), PART.start - 1, min(PART.stop - 1, bars.n_bars) - 1, mock_advisor()
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


def ahead(values, bars=1):
    """What stands so many bars later; the last row where there is none."""
    return np.vstack([values[bars:], np.repeat(values[-1:], bars, axis=0)])


PEEKS = {
    "the next close is higher": lambda bars: ahead(bars.close) > bars.close,
    "the next but one is lower": lambda bars: ahead(bars.close, 2) < bars.close,
    "the next bar opens higher": lambda bars: ahead(bars.open) > bars.close,
    "the next bar rises from its open": lambda bars: ahead(bars.close) > ahead(bars.open),
    "the next bar is no crash": lambda bars: ~(ahead(bars.close) < 0.94 * bars.close),
    "the next bar never falls far": lambda bars: ~(ahead(bars.low) < 0.97 * ahead(bars.open)),
    "the next bar is busier": lambda bars: ahead(bars.volume) > bars.volume,
    "there is a next bar": lambda bars: ahead(bars.tradable),
    "it is listed to the end": lambda bars: np.broadcast_to(bars.tradable[-1], bars.close.shape),
    "it has won in the end": lambda bars: np.broadcast_to(bars.mark[-1] > bars.mark[0], bars.close.shape),
    "there will be many bars": lambda bars: np.full(bars.close.shape, bars.n_bars > 600),
}


@pytest.mark.parametrize("n_symbols", [1, 3])
@pytest.mark.parametrize("peek", PEEKS)
def test_every_way_to_peek_is_found_whatever_the_seed(panel, peek, n_symbols):
    some = replace(
        panel, symbols=panel.symbols[:n_symbols], instruments=panel.instruments[:n_symbols],
        **{name: np.ascontiguousarray(getattr(panel, name)[:, :n_symbols]) for name in FIELDS},
    )  # fmt: skip

    def peeks(bars):
        return PrecomputedTargets("peeks", np.where(PEEKS[peek](bars), 0.3, 0.0)), None

    for seed in range(5):
        with pytest.raises(StrategyError, match="the answer changed after bar"):
            check_strategy(peeks, some, PART, ENV, seed=seed)


@dataclass
class Handed:
    """Does something to what it is handed."""

    bars: Bars
    does: str
    ids: tuple[StrategyId, ...] = (StrategyId("handed"),)
    asks_policies = False

    def targets(self, context):
        if self.does == "reads on":
            return np.where(self.bars.close[context.bar + 1] > self.bars.close[context.bar], 0.3, 0.0)[None]
        if self.does == "changes bars":
            self.bars.close[context.bar + 1 :] *= 1.01
        if self.does == "pays itself":
            context.accounts.cash[:] *= 1.01
        return np.full(context.held.shape, np.nan)


def test_what_a_strategy_does_to_what_it_is_handed_is_found(panel):
    def own(does):
        def build(bars):
            return Handed(replace(bars, close=bars.close.copy()) if does == "reads on" else bars, does), None

        return build

    same, table = Handed(panel, ""), np.zeros((panel.n_bars, 3))
    mine = replace(panel, close=panel.close.copy())
    for build, sentence in (
        (own("reads on"), r"handed fails on bars whose future after \d+ .* was cut off: IndexError"),
        (own("changes bars"), "handed changed bars.close, which others read"),
        (lambda _: (same, None), "build gave the same handed twice"),
        (lambda _: (PrecomputedTargets("table", table), None), r"table has a table of 700 rows for \d+ bars; expected one for each"),
    ):
        with pytest.raises(StrategyError, match=sentence):
            check_strategy(build, mine, PART, ENV)
    np.testing.assert_array_equal(mine.close, panel.close)
    with pytest.raises(ValueError, match="read-only"):
        check_strategy(own("pays itself"), panel, PART, ENV)
    with pytest.raises(ValueError, match="read-only"):
        run_backtests(panel, None, [Segment(PART)], [own("pays itself")(panel)[0]], ENV)
    with pytest.raises(DataError, match="found bars 506 to 508 of 700 to decide before; expected 3 at least"):
        check_strategy(own(""), panel, Range(start=506, stop=508), ENV)


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


@pytest.fixture(scope="module")
def joint_policies(panel, panel_features, panel_fold, tmp_path_factory):
    """Two members with a hidden layer beyond the first."""
    folder, policies = tmp_path_factory.mktemp("joint"), []
    spec = TINY.model_copy(update={"network": "joint", "credit": "portfolio", "net_arch": (48, 32), "total_timesteps": 128})
    for member in range(2):
        paths, target = TrainingPaths(folder / f"work{member}"), folder / f"{member}.zip"
        train_member(
            panel, panel_features, panel_fold, EnvSpec(episode_bars=60), spec, CheckpointSpec(enabled=False), member, paths, target
        )
        policies.append(load_policy(target))
    return policies


@pytest.mark.parametrize("n", [1, 15, 16, 25])
@pytest.mark.parametrize("network", ["panel_policies", "joint_policies"])
def test_members_asked_together_answer_as_each_does_alone(panel, panel_features, request, network, n):
    """Whatever the number of accounts; one account among them has the same bits by itself, and all are answered as the whole network does,
    but for rounding."""
    part, arrays, policies = Range(start=506, stop=516), make_market_arrays(panel), request.getfixturevalue(network)
    stepper = Stepper(Accounts.open(n, panel.n_symbols, 100_000.0), arrays, ENV)
    together = PolicyInference(policies, panel, panel_features, part, arrays, ENV)
    alone = [PolicyInference([policy], panel, panel_features, part, arrays, ENV) for policy in policies]
    random = np.random.default_rng(3)
    for at in range(part.start - 1, part.stop - 1):
        bar = np.full(n, at)
        answers = together.predict(stepper.accounts, bar)
        np.testing.assert_array_equal(answers, np.concatenate([each.predict(stepper.accounts, bar) for each in alone]))
        by_itself = together.predict(stepper.accounts.rows(slice(n - 1, n)).copy(), bar[:1])
        np.testing.assert_array_equal(answers[:, -1:], by_itself)
        for policy, answer in zip(policies, answers, strict=True):
            rows = market_rows(panel_features, panel.tradable, policy.scaler)
            seen = np.empty((n, observation_size(rows.shape[1], panel.n_symbols)), dtype=np.float32)
            observe(stepper.accounts, bar, rows, arrays, seen)
            np.testing.assert_allclose(answer, predict(policy, seen), atol=1e-6)
        stepper.step(bar, random.random((n, panel.n_symbols)) / 3)


def test_members_that_read_whole_rows_sit_beside_others_in_any_order(panel, panel_features, panel_fold, panel_policies, tmp_path):
    """One without hidden layers is asked with the market's columns, one with them with the account's alone."""
    spec = TINY.model_copy(update={"network": "joint", "net_arch": (), "speed": SpeedSpec(fast_loop=False)})
    paths, once = TrainingPaths(tmp_path / "work"), CheckpointSpec(enabled=False)
    train_member(panel, panel_features, panel_fold, EnvSpec(episode_bars=60), spec, once, 1, paths, tmp_path / "plain.zip")
    plain, part = load_policy(tmp_path / "plain.zip"), Range(start=506, stop=516)
    arrays, bar = make_market_arrays(panel), np.full(2, 505)
    accounts = Accounts.open(2, panel.n_symbols, 100_000.0)

    def said(*policies):
        return PolicyInference(policies, panel, panel_features, part, arrays, ENV).predict(accounts, bar)

    apart = np.concatenate([said(plain), said(panel_policies[0])])
    np.testing.assert_array_equal(said(plain, panel_policies[0]), apart)
    np.testing.assert_array_equal(said(panel_policies[0], plain), apart[::-1])


def test_a_backtest_keeps_what_it_is_asked_to_keep(panel):
    segments, strategies = [Segment(Range(start=301, stop=400))], all_baselines(panel, 300, ENV, 1)
    whole = run_backtests(panel, None, segments, strategies, ENV)
    lean = run_backtests(panel, None, segments, strategies, ENV, keep=())
    np.testing.assert_array_equal(lean.equity, whole.equity)
    assert lean.weights.size == lean.fill_units.size == lean.pnl.size == 0
    costs = run_backtests(panel, None, segments, strategies, ENV, keep=("costs",))
    np.testing.assert_array_equal(costs.commission, whole.commission)
    assert costs.weights.size == 0
