"""A policy starts from a supervised model of the bars it learns from, is held to it, and is told nothing that comes later."""

from dataclasses import replace

import numpy as np
import pytest
from markets import TINY
from pydantic import ValidationError

from ploutos.config import load_config
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.envs.ledger import Accounts
from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.observation import market_rows
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, TrainingError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.strategies import regression
from ploutos.strategies.check import check_strategy
from ploutos.strategies.ensemble import EnsembleStrategy, vote
from ploutos.strategies.inference import PolicyInference, _rows_of
from ploutos.strategies.regression import fit_regression, fit_teacher, regression_of
from ploutos.strategies.spec import RegressionSpec
from ploutos.training.checkpoint import load_policy
from ploutos.training.ppo import learning_ranges, train_member
from ploutos.training.spec import CheckpointSpec, StoppingSpec, TrainingPaths, TrainingSpec
from ploutos.training.teacher import FORECAST, TEACHER, Teacher, teacher_of_scores
from ploutos.walk_forward import Range

ENV = EnvSpec(episode_bars=60)


def test_the_likeliest_action_is_that_of_the_score():
    teacher = teacher_of_scores(np.array([[0.3], [-0.3], [0.1], [np.nan]]), 5)
    np.testing.assert_allclose(np.exp(teacher.odds).sum(axis=-1), 1, rtol=1e-6)
    assert teacher.odds.argmax(axis=-1)[:, 0].tolist() == [BUY, SELL, BUY, HOLD]
    assert np.exp(teacher.odds[0, 0, BUY] - teacher.odds[0, 0, SELL]) == pytest.approx(np.exp(0.6))
    part = teacher.over(Range(start=6, stop=8))
    assert part.first == 6
    assert np.array_equal(part.odds, teacher.odds[1:3])
    with pytest.raises(ValueError, match="the teacher knows bars 5 to 8; found 4 to 6"):
        teacher.over(Range(start=4, stop=7))


def test_a_teacher_is_kept_as_it_was(tmp_path):
    teacher = teacher_of_scores(np.random.default_rng(0).normal(size=(7, 2)), 3)
    for name in ("a", "b"):
        TEACHER.write(teacher, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = TEACHER.read(tmp_path / "a")
    assert read.first == 3
    assert np.array_equal(read.odds, teacher.odds)
    assert read.parts is None


def remembers(sign, first, lag):
    """A teacher who is sure of the sign so many bars back."""
    parts = np.zeros((*sign.shape, lag + 1), dtype=np.float32)
    parts[..., lag] = 2.0 * sign
    return teacher_of_scores(np.concatenate([np.zeros((lag, sign.shape[1])), 2.0 * sign[:-lag]]), first, parts)


def test_a_teacher_who_remembers_can_be_asked_about_bars_in_any_order(tmp_path):
    sign = np.where(np.random.default_rng(3).random((40, 2)) < 0.5, -1, 1)
    teacher = remembers(sign, 5, 3)
    TEACHER.write(teacher, tmp_path / "teacher")
    teacher = TEACHER.read(tmp_path / "teacher")
    np.testing.assert_allclose(teacher.on(np.arange(40)[:, None])[:, 0], teacher.odds, rtol=1e-6)
    turned = np.arange(40)[::-1]
    expected = np.where(sign[turned][:-3] > 0, BUY, SELL)
    assert np.array_equal(teacher.on(turned[:, None])[3:, 0].argmax(axis=-1), expected)
    assert np.array_equal(teacher.over(Range(start=10, stop=20)).parts, teacher.parts[5:15])
    with pytest.raises(ValueError, match="reads one bar"):
        teacher_of_scores(np.zeros((3, 1)), 0).on(np.zeros((3, 1), dtype=int))


@pytest.mark.parametrize(("network", "actions"), [("shared", "discrete"), ("joint", "discrete"), ("shared", "weights")])
def test_a_memory_learns_what_its_teacher_reads_and_not_what_came_after_what(tmp_path, panel, panel_features, panel_fold, network, actions):
    """A cue three bars back: found on bars that nobody learnt from, which a network that has the past by heart does not do."""
    learnt, _ = learning_ranges(panel_fold, TINY)
    sign = np.where(np.random.default_rng(2).random(panel_features.values.shape[:2]) < 0.5, -1, 1)
    features = replace(panel_features, values=panel_features.values.copy())
    features.values[..., 0] = sign
    policy, _ = trained(
        tmp_path, panel, features, panel_fold, remembers(sign[learnt.start : learnt.stop], learnt.start, 3), algorithm="RecurrentPPO",
        network=network, actions=actions, n_envs=16, total_timesteps=16 * TINY.n_steps, net_arch=(32,),
        lstm_size=32,
    )  # fmt: skip
    seen = []

    class Watched(EnsembleStrategy):
        def targets(self, context):
            leans = vote(context.predictions[:1, 0])[0] == BUY if actions == "discrete" else context.predictions[0, 0, :, 0] > 1 / 6
            seen.append((context.bar, leans))
            return super().targets(context)

    run_backtests(panel, features, [Segment(panel_fold.test, (policy,))], [Watched(bars=panel, env=ENV)], ENV)
    known = [(leans == (sign[bar - 3] > 0))[panel.tradable[bar] & features.ready[bar]] for bar, leans in seen[10:]]
    assert np.concatenate(known).mean() > (0.85 if network == "shared" else 0.62)


def test_a_teacher_knows_nothing_of_what_its_policies_do_not_learn_from(panel, panel_features, panel_fold):
    """Everything after the learnt part replaced, the held-out fifth included: the same teacher."""
    training = TrainingSpec()
    learnt, held_out = learning_ranges(panel_fold, training)
    teacher = fit_teacher(panel, panel_features, panel_fold, ENV, training, RegressionSpec())
    assert (teacher.first, teacher.odds.shape) == (learnt.start, (learnt.n_bars, 3, 3))
    values = panel_features.values.copy()
    values[learnt.stop :] = np.random.default_rng(1).normal(size=values[learnt.stop :].shape)
    later = slice(learnt.stop, None)
    prices = {name: getattr(panel, name).copy() for name in ("open", "high", "low", "close")}
    for price in prices.values():
        price[later] *= 1.5
    other = fit_teacher(replace(panel, **prices), replace(panel_features, values=values), panel_fold, ENV, training, RegressionSpec())
    assert np.array_equal(teacher.odds, other.odds)
    assert held_out is not None
    assert held_out.start > learnt.stop


def trained(folder, panel, features, fold, teacher, env=ENV, **changes):
    spec = TINY.model_copy(update={"total_timesteps": TINY.n_envs * TINY.n_steps, "learning_rate": 1e-5} | changes)
    target = folder / "policy.zip"
    meta = train_member(
        panel, features, fold, env, spec, CheckpointSpec(enabled=False), 7, TrainingPaths(folder / "work"), target, teacher=teacher
    )
    return load_policy(target), meta


@pytest.mark.parametrize(
    ("algorithm", "network"), [("PPO", "shared"), ("PPO", "joint"), ("MaskablePPO", "shared"), ("RecurrentPPO", "shared")]
)
def test_after_its_first_rollout_a_policy_decides_as_its_teacher(tmp_path, panel, panel_features, panel_fold, algorithm, network):
    """One feature that says it all, and a teacher that is sure of its sign."""
    learnt, _ = learning_ranges(panel_fold, TINY)
    sign = np.where(np.random.default_rng(2).random(panel_features.values.shape[:2]) < 0.5, -1, 1)
    values = panel_features.values.copy()
    values[..., 0] = sign
    told = slice(learnt.start, learnt.stop)
    teacher = teacher_of_scores(2.0 * sign[told], learnt.start)
    policy, meta = trained(
        tmp_path, panel, replace(panel_features, values=values), panel_fold, teacher, algorithm=algorithm, network=network, n_envs=16,
        total_timesteps=16 * TINY.n_steps, net_arch=(32,),
    )  # fmt: skip
    assert meta.curve[0]["train/teacher_divergence"] < 0.5
    seen = []

    class Watched(EnsembleStrategy):
        def targets(self, context):
            seen.append((context.bar, vote(context.predictions[:1, 0])[0]))
            return super().targets(context)

    part = Range(start=learnt.start + 1, stop=learnt.stop)
    features = replace(panel_features, values=values)
    run_backtests(panel, features, [Segment(part, (policy,))], [Watched(bars=panel, env=ENV)], ENV)
    usable = np.array([panel.tradable[bar] & features.ready[bar] for bar, _ in seen])
    agree = np.array([actions == np.where(sign[bar] > 0, BUY, SELL) for bar, actions in seen])
    masked = algorithm == "MaskablePPO"  # it may not sell what it does not hold
    assert agree[usable & (np.array([sign[bar] > 0 for bar, _ in seen]) | (not masked))].mean() > 0.9


@pytest.mark.parametrize(("algorithm", "network"), [("PPO", "shared"), ("PPO", "joint"), ("RecurrentPPO", "shared")])
@pytest.mark.parametrize("allow_short", [False, True])
def test_a_policy_that_gives_weights_holds_a_slot_where_its_teacher_buys(
    tmp_path, panel, panel_features, panel_fold, algorithm, network, allow_short
):
    env, (learnt, _) = ENV.model_copy(update={"allow_short": allow_short}), learning_ranges(panel_fold, TINY)
    sign = np.where(np.random.default_rng(2).random(panel_features.values.shape[:2]) < 0.5, -1, 1)
    features = replace(panel_features, values=panel_features.values.copy())
    features.values[..., 0] = sign
    teacher = teacher_of_scores(0.1 * sign[learnt.start : learnt.stop], learnt.start)  # a weak opinion has a slot too
    policy, _ = trained(
        tmp_path, panel, features, panel_fold, teacher, algorithm=algorithm, network=network, actions="weights", n_envs=16,
        total_timesteps=16 * TINY.n_steps, net_arch=(32,), env=env,
    )  # fmt: skip
    part, seen = Range(start=learnt.start + 1, stop=learnt.stop), []

    class Watched(EnsembleStrategy):
        def targets(self, context):
            seen.append((context.bar, context.predictions[0, 0, :, 0]))
            return super().targets(context)

    run_backtests(panel, features, [Segment(part, (policy,))], [Watched(bars=panel, env=env)], env)
    usable = np.array([panel.tradable[bar] & features.ready[bar] for bar, _ in seen])
    side, held = np.array([sign[bar] for bar, _ in seen])[usable], np.array([weights for _, weights in seen])[usable]
    assert np.median(held[side > 0]) == pytest.approx(1 / 3, abs=0.15)
    assert np.median(held[side < 0]) == pytest.approx(-1 / 3 if allow_short else 0, abs=0.15)


def test_the_weight_holds_a_policy_to_its_teacher(tmp_path, panel, panel_features, panel_fold):
    learnt, _ = learning_ranges(panel_fold, TINY)
    teacher = teacher_of_scores(np.full((learnt.n_bars, 3), 1.0), learnt.start)
    found = {}
    for weight in (0.0, 100.0):
        (tmp_path / str(weight)).mkdir()
        _, meta = trained(
            tmp_path / str(weight), panel, panel_features, panel_fold, teacher, total_timesteps=20 * TINY.n_envs * TINY.n_steps,
            learning_rate=1e-2, teacher_weight=weight, weight_decay=0.0,
        )  # fmt: skip
        found[weight] = meta.curve[-1]["train/teacher_divergence"]
    assert found[100.0] < 0.05 < found[0.0]


def test_a_training_without_a_teacher_is_what_it_was(tmp_path, panel, panel_features, panel_fold):
    spec = {"total_timesteps": 3 * TINY.n_envs * TINY.n_steps}
    _, meta = trained(tmp_path, panel, panel_features, panel_fold, None, **spec)
    assert all("train/teacher_divergence" not in record for record in meta.curve)
    assert "train/value_loss" in meta.curve[0]


@pytest.mark.parametrize("kind", ["logistic", "trees"])
def test_a_forecast_is_no_better_on_the_bars_that_were_learnt_from(panel, panel_features, panel_fold, kind):
    """On random walks a model knows its own rows; what a policy observes there was told by models of other rows."""
    learnt, _ = learning_ranges(panel_fold, TrainingSpec())
    teacher = fit_teacher(
        panel, panel_features, panel_fold, ENV, TrainingSpec(teacher=kind), RegressionSpec(penalties=(1e-6,), max_trees=40)
    )
    told = slice(learnt.start, learnt.stop - 1)
    rises = panel.close[learnt.start + 1 : learnt.stop] > panel.open[learnt.start + 1 : learnt.stop]
    known = panel_features.ready[told] & panel.tradable[told] & panel.tradable[learnt.start + 1 : learnt.stop]
    right = {
        name: ((scores[: learnt.n_bars - 1] > 0) == rises)[known].mean()
        for name, scores in (("own rows", teacher.odds[..., BUY] - teacher.odds[..., SELL]), ("observed", teacher.forecast))
    }
    assert right["own rows"] > 0.56
    assert abs(right["observed"] - 0.5) < 0.05
    assert len(teacher.forecast) == panel_fold.train.n_bars - (learnt.start - panel_fold.train.start)
    later = slice(learnt.stop, panel_fold.train.stop)
    np.testing.assert_allclose(
        teacher.forecast[learnt.n_bars :], regression_of(teacher.model).told(panel_features, later), rtol=1e-6, equal_nan=True
    )


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_teachers_slices_are_kept_apart_by_the_folds_gap_however_much_is_held_out(panel, panel_features, panel_fold, monkeypatch, share):
    """The bars that stopping holds out are no gap: a model of the other slices has nearly all of their rows."""
    left, slices = [], regression._inner_slices

    def watched(rows, gap, spec):
        found = slices(rows, gap, spec)
        left.extend(outside.sum() / (~inside).sum() for inside, outside in found)
        return found

    monkeypatch.setattr(regression, "_inner_slices", watched)
    spec = TrainingSpec(stopping=StoppingSpec(validation_share=share))
    fit_teacher(panel, panel_features, panel_fold, ENV, spec, RegressionSpec())
    assert len(left) == 4
    assert min(left) > 0.8


@pytest.mark.parametrize(("algorithm", "kind"), [("PPO", "trees"), ("RecurrentPPO", "lagged")])
def test_a_policy_that_observes_a_forecast_is_told_it_wherever_it_decides(tmp_path, panel, panel_features, panel_fold, algorithm, kind):
    spec = TINY.model_copy(update={"algorithm": algorithm, "teacher": kind, "observe_forecast": True})
    teacher = fit_teacher(panel, panel_features, panel_fold, ENV, spec, RegressionSpec(max_trees=10))
    TEACHER.write(teacher, tmp_path / "teacher")
    policy, _ = trained(
        tmp_path, panel, panel_features, panel_fold, TEACHER.read(tmp_path / "teacher"), algorithm=algorithm,
        observe_forecast=True,
    )  # fmt: skip
    assert policy.observes[len(panel_features.names)] == FORECAST
    _, held_out = learning_ranges(panel_fold, spec)
    rows = market_rows(teacher.observed(panel_features), panel.tradable, policy.scaler)  # as the held-out bars are scored in training
    assert held_out is not None
    part = Range(start=held_out.start + 1, stop=held_out.stop)
    decided = slice(part.start - 1, part.stop - 1)
    np.testing.assert_array_equal(_rows_of(part, panel, panel_features, policy)[decided], rows[decided])
    assert np.ptp(rows[decided, len(panel_features.names)]) > 0

    def voted(bars):
        return EnsembleStrategy(bars=bars, env=ENV), build_features(bars, FeatureSpec())

    check_strategy(voted, panel, Range(start=506, stop=560), ENV, [policy])
    ridge = fit_teacher(panel, panel_features, panel_fold, ENV, spec.model_copy(update={"teacher": "ridge"}), RegressionSpec())
    told_by_another = replace(policy, meta=policy.meta.model_copy(update={"forecast": ridge.model}))
    accounts, bar, arrays = Accounts.open(2, panel.n_symbols, 100_000.0), np.full(2, part.start), make_market_arrays(panel)

    def says(*members):
        return PolicyInference(members, panel, panel_features, part, arrays, ENV).predict(accounts, bar)

    assert not np.array_equal(says(policy), says(told_by_another))
    np.testing.assert_array_equal(says(policy, told_by_another)[1:], says(told_by_another))
    with pytest.raises(TrainingError, match=r"the policy was trained on features .*, forecast; found"):
        policy.require(panel_features.symbols, panel_features.names[1:])
    with pytest.raises(TrainingError, match=r"training.observe_forecast .* no teacher"):
        trained(tmp_path, panel, panel_features, panel_fold, None, observe_forecast=True)


def test_who_has_a_teacher():
    assert TrainingSpec().is_taught
    assert TrainingSpec(actions="weights").is_taught
    assert not TrainingSpec(teacher="none").is_taught
    assert (TrainingSpec().taught_by, TrainingSpec(teacher="trees").taught_by) == ("lasso", "trees")
    assert TrainingSpec(algorithm="RecurrentPPO").taught_by == "lagged"
    with pytest.raises(ValidationError, match=r"training.teacher lagged .* PPO .* use RecurrentPPO"):
        TrainingSpec(teacher="lagged")
    assert not TrainingSpec.model_validate({"speed": {"fast_loop": False}}).is_taught
    with pytest.raises(ValidationError, match=r"training.observe_forecast needs a teacher"):
        TrainingSpec(teacher="none", observe_forecast=True)
    with pytest.raises(ConfigError, match=r"hybrid.learning_rate 0.1 at training.weight_decay 10 shrinks every weight .* below 0.1"):
        load_config("full", overrides=["training.weight_decay=10", "hybrid.learning_rate=0.1"])
    with pytest.raises(ValidationError, match="shrinks every weight to nothing"):
        TrainingSpec(learning_rate=0.1, weight_decay=10)


def test_trees_teach_too(panel, panel_features, panel_fold):
    spec = RegressionSpec(max_trees=10)
    training = TrainingSpec(teacher="trees")
    teacher = fit_teacher(panel, panel_features, panel_fold, ENV, training, spec)
    learnt, _ = learning_ranges(panel_fold, training)
    model = fit_regression(panel, panel_features, panel_fold.model_copy(update={"train": learnt}), ENV, spec, "trees")
    told = slice(learnt.start, learnt.stop)
    scores = np.where(panel_features.ready[told], model.scores(panel_features.values[told]), np.nan)
    assert isinstance(teacher, Teacher)
    assert np.array_equal(teacher.odds, teacher_of_scores(scores, learnt.start).odds)
