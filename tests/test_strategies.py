"""The contract of strategies: ours keep it, and a strategy that peeks, forgets or goes beyond its limits is told where."""

from copy import copy, deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from markets import TINY, mock_advisor

from ploutos.advisor.advisor import advise
from ploutos.advisor.mirror import mirrored_market
from ploutos.envs.ledger import Accounts, Stepper
from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.observation import market_rows, observation_size, observe
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError, StrategyError
from ploutos.evaluation.backtest import BY_ACCOUNT, Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.features.scaling import fit_scaler
from ploutos.fusion.calibration import Calibration, FusionChoice
from ploutos.fusion.hybrid import hybrid_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import FIELDS, Bars
from ploutos.strategies.advised import ADVISOR, FUSED, FUSED_ABLATED, MIRRORED, AdvisorStrategy, FusedStrategy
from ploutos.strategies.base import PrecomputedTargets, StrategyId
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.check import check_strategy
from ploutos.strategies.ensemble import HYBRID, EnsembleStrategy, votes_and_members
from ploutos.strategies.inference import PolicyInference, predict
from ploutos.training.checkpoint import load_policy
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, SpeedSpec, TrainingPaths
from ploutos.walk_forward import Range

PART = Range(start=506, stop=560)
ENV = EnvSpec()


def advice(bars, told=None):
    """The mock's advice on the bars, or what it says of others, as far as they go."""
    asked = told or bars
    signals = advise(asked, market_features(asked), PART.start - 1, min(PART.stop - 1, bars.n_bars) - 1, mock_advisor())
    return [each[None] for each in signals.align_to_bars(bars)]


def test_votes_and_advice_keep_the_contract(panel, panel_policies):
    def voted(bars):
        return EnsembleStrategy(votes_and_members(2), bars=bars, env=ENV), build_features(bars, FeatureSpec())

    def advised(bars):
        tables = [advice(bars)[0], advice(bars, mirrored_market(bars))[0]]
        return AdvisorStrategy((ADVISOR, MIRRORED), np.concatenate(tables), bars, ENV), None

    check_strategy(voted, panel, PART, ENV, panel_policies[:2])
    check_strategy(advised, panel, PART, ENV)


CHOICE = FusionChoice.model_construct(
    calibration=Calibration(slope=2.0), advisor=Calibration(slope=0.5), chosen=SimpleNamespace(llm_weight=0.7, confidence_threshold=0.4)
)


@pytest.mark.parametrize("chosen", [{}, {"choices": (CHOICE,)}, {"calibrations": (CHOICE.calibration, CHOICE.advisor)}])
def test_fusion_keeps_the_contract_with_advice_and_without(panel, panel_policies, chosen):
    """A placebo's shuffled or shifted advice does not: it knows when the real advice will come, and is a control, not a strategy."""

    def fused(bars):
        with_advice = advice(bars)
        tables = [np.concatenate([each, np.zeros_like(each)]) for each in with_advice]
        return FusedStrategy((FUSED, FUSED_ABLATED), *tables, bars, ENV, (FusionSpec(),), **chosen), build_features(bars, FeatureSpec())

    check_strategy(fused, panel, PART, ENV, panel_policies[:2], n_cuts=3)


def test_votes_on_weights_and_on_hybrid_features_keep_the_contract(panel, panel_features, panel_fold, tmp_path):
    def features_of(bars, hybrid):
        features = build_features(bars, FeatureSpec())
        if not hybrid:
            return features
        market = market_features(bars)
        return hybrid_features(
            features, bars, market, advise(bars, market, PART.start - 1, min(PART.stop - 1, bars.n_bars) - 1, mock_advisor())
        )

    for hybrid in (False, True):
        spec = TINY.model_copy(update={"actions": "discrete" if hybrid else "weights", "total_timesteps": 128})
        paths, target = TrainingPaths(tmp_path / f"work{hybrid}"), tmp_path / f"{hybrid}.zip"
        once = CheckpointSpec(enabled=False)
        train_member(panel, features_of(panel, hybrid), panel_fold, EnvSpec(episode_bars=60), spec, once, 1, paths, target)

        def voted(bars, hybrid=hybrid):
            return EnsembleStrategy({HYBRID: slice(None)}, bars=bars, env=ENV), features_of(bars, hybrid)

        check_strategy(voted, panel, PART, ENV, [load_policy(target)], n_cuts=3)


def test_a_strategy_that_peeks_one_bar_ahead_is_told_where(panel):
    def peeks(bars):
        ahead = np.vstack([bars.mark[1:], bars.mark[-1:]])
        return PrecomputedTargets("peeks", np.where(ahead > bars.mark, 0.3, 0.0)), None

    with pytest.raises(
        StrategyError, match=r"the answer of peeks changed after bar \d+ \(\d{4}-.*Z\) in column S\d on bars whose future.*reads later"
    ):
        check_strategy(peeks, panel, PART, ENV)


def test_a_scaler_fitted_on_all_bars_is_found(panel):
    def scaled(bars):
        features = build_features(bars, FeatureSpec())
        rows = fit_scaler(features.values[features.ready.all(axis=1)]).transform(features.values)
        return PrecomputedTargets("scaled", np.clip(np.nan_to_num(rows[:, :, 0]), 0, 0.3)), None

    with pytest.raises(StrategyError, match=r"the answer of scaled changed after bar \d+ .* in column S\d"):
        check_strategy(scaled, panel, PART, ENV)


def ahead(values, bars=1):
    """What stands so many bars later; the last row where there is none."""
    return np.vstack([values[bars:], np.repeat(values[-1:], bars, axis=0)])


def decision(bars, bar):
    """Whether a decision is the one after the close of a bar."""
    return (np.arange(bars.n_bars) == bar)[:, None]


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
    "the next bar lies within this one": lambda bars: (ahead(bars.high) < bars.high) & (ahead(bars.low) > bars.low),
    "the next bar ends where it began": lambda bars: np.abs(ahead(bars.close) / ahead(bars.open) - 1) < 1e-3,
    "the next bar opens where this one ended": lambda bars: np.abs(ahead(bars.open) / bars.close - 1) < 1e-3,
    "the first bar rises, and nothing after": lambda bars: (ahead(bars.close) > bars.close) & decision(bars, PART.start - 1),
    "the last bar rises, and nothing before": lambda bars: (ahead(bars.close) > bars.close) & decision(bars, PART.stop - 2),
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
        with pytest.raises(StrategyError, match="the answer of peeks changed after bar"):
            check_strategy(peeks, some, PART, ENV, seed=seed)


ARRAYS = ("close", "volume", "timestamps", "available_at", "mark", "tradable", "sessions")


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
        if self.does == "fails":
            assert context.bar + 1 < self.bars.n_bars
        if self.does.startswith("changes "):
            array = getattr(self.bars, self.does.removeprefix("changes "))
            array[-1] = array[0]
        if self.does == "pays itself":
            context.accounts.cash[:] *= 1.01
        if self.does == "holds more":
            context.held[:] = 0.5
        if self.does == "asks nobody":
            return context.predictions[0, :, :, 1]
        return np.full(context.held.shape, np.nan)


def test_what_a_strategy_does_to_what_it_is_handed_is_found(panel, panel_policies):
    def own(does):
        def build(bars):
            features = build_features(bars, FeatureSpec()) if does == "asks nobody" else None
            return Handed(replace(bars, close=bars.close.copy()) if does == "reads on" else bars, does), features

        return build

    same, table = Handed(panel, ""), np.zeros((panel.n_bars, 3))
    mine = replace(panel, close=panel.close.copy())
    for build, sentence in (
        (own("reads on"), r"handed fails on bars whose future after \d+ .* was cut off: IndexError"),
        (own("fails"), r"handed fails on bars whose future after \d+ .* was cut off: AssertionError"),
        *((own(f"changes {name}"), f"handed changed bars.{name}, which others read") for name in ARRAYS),
        (lambda _: (same, None), "build gave the same handed twice"),
        (lambda _: (PrecomputedTargets("table", table), None), r"table has a table of 700 rows for \d+ bars; expected one for each"),
    ):
        with pytest.raises(StrategyError, match=sentence):
            check_strategy(build, mine, PART, ENV)
    with pytest.raises(StrategyError, match=r"handed answers with shape \(0, 3\)"):  # policies that it does not ask tell it nothing
        check_strategy(own("asks nobody"), panel, PART, ENV, panel_policies[:1])
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(mine, name), getattr(panel, name))
    for does in ("pays itself", "holds more"):
        with pytest.raises(ValueError, match="read-only"):
            check_strategy(own(does), panel, PART, ENV)
        with pytest.raises(ValueError, match="read-only"):
            run_backtests(panel, None, [Segment(PART)], [own(does)(panel)[0]], ENV)
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


@dataclass
class Two:
    """Two accounts, of which the second asks for too much."""

    bars: Bars
    ids: tuple[StrategyId, ...] = (StrategyId("first"), StrategyId("second"))
    asks_policies = False

    def targets(self, context):
        return np.stack([np.full(self.bars.n_symbols, each) for each in (0.1, 0.6)])


def test_limits_shapes_chance_and_pickles(panel):
    def table(value, name="table"):
        return lambda bars: (PrecomputedTargets(name, np.full((bars.n_bars, bars.n_symbols), value)), None)

    class Local(PrecomputedTargets):
        pass

    rng = np.random.default_rng(0)
    for build, sentence in (
        (table(0.5), r"table targets 1\.5 times its equity, the largest part after bar 505 .* in column S0; expected 1 at most"),
        (table(-0.1), r"targets a short position after bar 505 .* in column S0; expected none"),
        (table(np.inf), r"returns an infinite weight after bar 505 .* in column S0"),
        (lambda bars: (Forgetful(rng), None), "answer of forgetful changed .* on the same bars: .* it is random, or keeps something"),
        (lambda bars: (Two(bars), None), "second targets 1.8 times its equity"),
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


def test_members_that_see_or_squash_otherwise_answer_as_they_do_alone(panel, panel_features, joint_policies):
    """Of members with one scaler the market's rows are made once; nothing else of a member may be taken for another's."""
    part, arrays, first = Range(start=506, stop=516), make_market_arrays(panel), joint_policies[0]
    wider = replace(first, scaler=replace(first.scaler, deviation=2 * first.scaler.deviation))
    moved = replace(first, scaler=replace(first.scaler, mean=first.scaler.mean + 1))
    rectified = replace(first, model=copy(first.model))
    network = rectified.model.policy = deepcopy(first.model.policy)
    network.activation_fn, layers = torch.nn.ReLU, network.mlp_extractor.policy_net
    for at in range(1, len(layers), 2):
        layers[at] = torch.nn.ReLU()
    members, accounts, bar = [first, wider, moved, rectified], Accounts.open(4, panel.n_symbols, 100_000.0), np.full(4, 510)
    answers = PolicyInference(members, panel, panel_features, part, arrays, ENV).predict(accounts, bar)
    for answer, member in zip(answers, members, strict=True):
        rows = market_rows(panel_features, panel.tradable, member.scaler)
        seen = np.empty((4, observation_size(rows.shape[1], panel.n_symbols)), dtype=np.float32)
        observe(accounts, bar, rows, arrays, seen)
        np.testing.assert_allclose(answer, predict(member, seen), atol=1e-6)
    assert min(np.abs(answers[0] - answer).max() for answer in answers[1:]) > 1e-4


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
    equity_only = run_backtests(panel, None, segments, strategies, ENV, keep=())
    np.testing.assert_array_equal(equity_only.equity, whole.equity)
    assert equity_only.weights.size == equity_only.fill_units.size == equity_only.pnl.size == 0
    costs = run_backtests(panel, None, segments, strategies, ENV, keep=("costs",))
    np.testing.assert_array_equal(costs.commission, whole.commission)
    assert costs.weights.size == 0
