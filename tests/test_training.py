"""Training: it learns what can be learnt and nothing else, repeats to the byte, and survives being killed."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium import spaces
from markets import TINY
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO

from ploutos.envs.actions import BUY, HOLD, SELL, action_masks, target_weights, weights_within
from ploutos.envs.batch import REWARD_PARTS
from ploutos.envs.ledger import Accounts, make_market_arrays, step
from ploutos.envs.observation import market_rows, observe
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import DataError, StoreError, TrainingError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import periods_of, session_returns
from ploutos.evaluation.significance import mean_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.features.build import FeatureSet, write_features
from ploutos.fusion.risk import RiskHistory
from ploutos.fusion.spec import FusionSpec, RiskSpec
from ploutos.hardware.processes import memory_kills
from ploutos.hardware.threads import VARIABLES
from ploutos.market.bars import align, write_bars
from ploutos.strategies.advised import FUSED, FusedStrategy
from ploutos.strategies.base import PrecomputedTargets, weights_of_actions
from ploutos.strategies.baselines import buy_and_hold, flat
from ploutos.strategies.ensemble import VOTE, EnsembleStrategy, ensemble_action, ensemble_weights, mean_weights, vote
from ploutos.strategies.inference import RecurrentState, predict
from ploutos.training.checkpoint import load_policy
from ploutos.training.jobs import MemberJob, run_job
from ploutos.training.policy_meta import parse_meta, write_meta
from ploutos.training.pool import WorkerPool
from ploutos.training.ppo import learning_ranges, train_member
from ploutos.training.spec import CheckpointSpec, SpeedSpec, TrainingPaths, TrainingSpec
from ploutos.training.teacher import TEACHER, teacher_of_scores
from ploutos.walk_forward import Fold, Range


def toy_market(seed, signal):
    """One symbol whose bar moves up or down a percent from its open; with `signal`, the next move's sign is a feature."""
    random = np.random.default_rng(seed)
    n = 1500
    signs = random.choice([-1.0, 1.0], n)
    close = 100 * np.exp(np.cumsum(0.01 * signs))
    open_ = np.r_[100.0, close[:-1]]
    days = pd.date_range("2000-01-01", periods=n, tz="UTC")
    frame = pd.DataFrame({"symbol": "T", "timestamp": days, "open": open_, "close": close, "volume": 1.0})
    frame["high"], frame["low"] = frame[["open", "close"]].max(axis=1), frame[["open", "close"]].min(axis=1)
    bars = align(frame, pd.Timedelta(days=1), "24/7", "toy")
    values = np.r_[signs[1:], 0.0] if signal else random.choice([-1.0, 1.0], n)
    features = FeatureSet(values.astype(np.float32)[:, None, None], ("next_sign",), bars.timestamps, bars.available_at, bars.symbols)
    fold = Fold(
        index=0, train=Range(start=0, stop=900), validation=Range(start=900, stop=1000),
        test=Range(start=1000, stop=1500), warmup_bars=0, data_sha256="",
    )  # fmt: skip
    return bars, features, fold


def learn(tmp_path, seed, signal, actions="discrete"):
    """Yearly mean of PPO less flat and less buy and hold, each with its interval, over the test range."""
    bars, features, fold = toy_market(seed, signal)
    env = EnvSpec(allow_short=True, costs=CostSpec(commission_bps=1, slippage_bps=1))
    spec = TrainingSpec(
        actions=actions, total_timesteps=30_000, n_envs=16, n_steps=64, batch_size=256, net_arch=(16,), gamma=0.5, learning_rate=2e-3
    )
    train_member(bars, features, fold, env, spec, CheckpointSpec(enabled=False), seed, TrainingPaths(tmp_path / "w"), tmp_path / "p.zip")
    policy = load_policy(tmp_path / "p.zip")
    strategies = [
        EnsembleStrategy(bars=bars, env=env),
        PrecomputedTargets("flat", flat(bars)),
        PrecomputedTargets("buy-and-hold", buy_and_hold(bars, fold.test.start - 1, env)),
    ]
    result = run_backtests(bars, features, [Segment(fold.test, (policy,))], strategies, env)
    periods = periods_of(bars, result)
    returns = session_returns(result.equity, periods)
    return [mean_interval(returns[0] - returns[other], periods.per_year, BootstrapSpec(replications=500), seed) for other in (1, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("actions", ["discrete", "weights"])
def test_ppo_learns_a_market_whose_next_sign_it_can_see(tmp_path, actions):
    over_flat, over_holding = learn(tmp_path, 3, signal=True, actions=actions)
    assert over_flat[0] > 1.0  # a percent a bar less costs, 365 times a year: far more than 100 %
    assert over_holding[0] > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_noise_ppo_does_not_beat_flat_beyond_its_interval(tmp_path, seed):
    over_flat, _ = learn(tmp_path, seed, signal=False)
    assert not over_flat[0] > 0  # nan: it learnt to stay in cash, and never differed


def member(tmp_path, name, panel, features, fold, **changes):
    target = tmp_path / f"{name}.zip"
    spec = TINY.model_copy(update=changes)
    meta = train_member(panel, features, fold, EnvSpec(episode_bars=60), spec, CheckpointSpec(), 7, TrainingPaths(tmp_path / name), target)
    return target, meta


def test_the_same_seed_gives_the_same_file_and_plain_ppo_opens_it(tmp_path, panel, panel_features, panel_fold):
    first, meta = member(tmp_path, "a", panel, panel_features, panel_fold)
    second, _ = member(tmp_path, "b", panel, panel_features, panel_fold)
    later = panel_fold.model_copy(update={"index": 4, "test": Range(start=506, stop=600)})
    one_of_many, _ = member(tmp_path, "c", panel, panel_features, later, members=5)  # what is not in its key is not in its file
    assert first.read_bytes() == second.read_bytes() == one_of_many.read_bytes()
    assert meta.timesteps == meta.planned_timesteps == 256
    assert PPO.load(first).num_timesteps == 256
    assert not (tmp_path / "a").exists()  # no checkpoints or progress are left


def test_what_a_policy_says_of_its_training_is_read_to_the_last_digit_and_of_another_version_refused(tmp_path, panel_policies):
    meta = panel_policies[0].meta.model_copy(update={"curve": ({"timesteps": 128, "episode/reward": 0.1 + 0.2, "train/loss": math.nan},)})
    said = write_meta(meta)
    assert write_meta(parse_meta(said, tmp_path)) == said
    assert parse_meta(said, tmp_path).curve[0]["episode/reward"] == 0.1 + 0.2
    old = json.loads(said)
    for later in ("schema_version", "forecast", "warm_start", "mean_episode_reward"):
        del old[later]
    old["training"]["speed"]["quick_loop"] = True
    assert write_meta(parse_meta(json.dumps(old).encode(), tmp_path)) == said
    for content, found in (
        (old | {"schema_version": 2}, "schema_version: Input should be 1"),
        (old | {"seed": "x"}, "seed: "),
        ([], "Input should be"),
    ):
        with pytest.raises(StoreError, match=rf"p.zip is not a policy of this version \({found}.*; train it again"):
            parse_meta(json.dumps(content).encode(), tmp_path / "p.zip")


def test_a_training_leaves_nothing_in_the_temporary_folder(tmp_path, panel, panel_features, panel_fold, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    member(tmp_path, "a", panel, panel_features, panel_fold)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("algorithm", "actions"),
    [(PPO, "discrete"), (PPO, "weights"), (MaskablePPO, "discrete"), (RecurrentPPO, "discrete"), (RecurrentPPO, "weights")],
)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("network", ["shared", "joint"])
def test_every_algorithm_ends_in_a_zip_that_its_plain_class_opens(
    tmp_path, panel, panel_features, panel_fold, algorithm, actions, network, fast
):
    speed = SpeedSpec(fast_loop=fast)
    changes = {"algorithm": algorithm.__name__, "actions": actions, "network": network, "lstm_size": 16, "speed": speed}
    first, meta = member(tmp_path, "a", panel, panel_features, panel_fold, **changes)
    second, _ = member(tmp_path, "b", panel, panel_features, panel_fold, **changes)
    assert first.read_bytes() == second.read_bytes()
    plain = algorithm.load(first)
    assert type(plain) is algorithm
    assert plain.num_timesteps == 256
    assert isinstance(plain.action_space, spaces.Box if actions == "weights" else spaces.MultiDiscrete)
    assert [record["timesteps"] for record in meta.curve] == [128, 256]
    assert type(plain.policy).__module__.startswith("ploutos") == (network == "shared")
    with zipfile.ZipFile(first) as archive:
        assert b"ploutos" not in archive.read("data")  # but for the shared policy's class, nothing in it needs this library


def test_bars_after_the_training_range_change_no_policy(tmp_path, panel, panel_features, panel_fold):
    stop = panel_fold.train.stop
    changed = panel_features.values.copy()
    changed[stop:] += 1
    open_ = panel.open.copy()
    open_[stop:] *= 3
    first, _ = member(tmp_path, "a", panel, panel_features, panel_fold)
    second, _ = member(tmp_path, "b", replace(panel, open=open_), replace(panel_features, values=changed), panel_fold)
    assert first.read_bytes() == second.read_bytes()


def test_a_joint_policy_refuses_other_symbols_and_a_shared_one_other_features(tmp_path, panel, panel_features, panel_fold, panel_policies):
    features = panel_features.names
    joint = load_policy(member(tmp_path, "joint", panel, panel_features, panel_fold, network="joint")[0])
    with pytest.raises(TrainingError, match="trained on symbols S0, S1, S2; found S2, S1, S0"):
        joint.require(panel.symbols[::-1], features)
    panel_policies[0].require(panel.symbols[::-1], features)
    panel_policies[0].require(("A", "B", "C", "D"), features)
    with pytest.raises(TrainingError, match=r"trained on features .*; found"):
        panel_policies[0].require(panel.symbols, features[::-1])


def test_probabilities_are_the_policys_own_and_the_vote_is_their_mean(panel_policies):
    observations = np.random.default_rng(0).normal(size=(9, panel_policies[0].model.observation_space.shape[0])).astype(np.float32)
    for policy in panel_policies:
        distribution = policy.model.policy.get_distribution(torch.from_numpy(observations)).distribution
        expected = np.stack([one.probs.detach().numpy() for one in distribution], axis=1)
        np.testing.assert_allclose(predict(policy, observations), expected, atol=1e-6)
        greedy, _ = policy.model.predict(observations, deterministic=True)
        np.testing.assert_array_equal(vote(predict(policy, observations)[None])[0], greedy)
    actions, confidences = vote(np.array([[[0.5, 0.4, 0.1]], [[0.1, 0.6, 0.3]]]))
    assert actions.tolist() == [1]
    assert confidences == pytest.approx([0.5])


def trained(tmp_path, panel, features, fold, algorithm, actions="discrete"):
    name = f"{algorithm}-{actions}"
    return load_policy(member(tmp_path, name, panel, features, fold, algorithm=algorithm, actions=actions, lstm_size=16)[0])


def test_a_weight_is_the_policys_mean_and_its_confidence_the_share_of_draws_on_its_side(tmp_path, panel, panel_features, panel_fold):
    members = [trained(tmp_path / name, panel, panel_features, panel_fold, "PPO", "weights") for name in ("a", "b")]
    with torch.no_grad():
        members[1].model.policy.action_net.bias -= 0.1
        members[1].model.policy.log_std += 0.3
    observations = np.random.default_rng(0).normal(size=(5, members[0].model.observation_space.shape[0])).astype(np.float32)
    answers = np.stack([predict(policy, observations) for policy in members])
    for policy, answer in zip(members, answers, strict=True):
        greedy, _ = policy.model.predict(observations, deterministic=True)
        np.testing.assert_allclose(answer[..., 0], greedy, atol=1e-6)
        normal = policy.model.policy.get_distribution(torch.from_numpy(observations)).distribution
        draws = normal.sample((20_000,))
        share = (torch.sign(draws) == torch.sign(normal.mean)).double().mean(0)
        np.testing.assert_allclose(answer[..., 1], share, atol=0.015)
    assert (answers[..., 0] == 0).any()  # no shorts: a mean below 0 is nothing held
    weights, confidences = mean_weights(answers)
    np.testing.assert_allclose(weights, (answers[0, ..., 0] + answers[1, ..., 0]) / 2)
    np.testing.assert_allclose(confidences, (answers[0, ..., 1] + answers[1, ..., 1]) / 2)
    assert ((confidences >= 0.5) & (confidences <= 1)).all()
    np.testing.assert_array_equal(mean_weights(answers[1:])[0], answers[1, ..., 0])
    actions, sure = ensemble_action(answers - [0.2, 0.0])
    np.testing.assert_array_equal(actions, np.where(weights > 0.2, BUY, SELL))
    np.testing.assert_array_equal(sure, confidences)
    assert ensemble_action(0 * answers)[0].max() == HOLD


def test_a_recurrent_policy_remembers_each_account_as_its_own_predict_does(tmp_path, panel, panel_features, panel_fold):
    policy = trained(tmp_path, panel, panel_features, panel_fold, "RecurrentPPO")
    random = np.random.default_rng(0)
    memory, state, firsts = RecurrentState(), None, []
    for t in range(6):
        observations = random.normal(size=(4, policy.model.observation_space.shape[0])).astype(np.float32)
        actions, state = policy.model.predict(observations, state=state, episode_start=np.full(4, t == 0), deterministic=True)
        probabilities = predict(policy, observations, state=memory)
        np.testing.assert_array_equal(probabilities.argmax(-1), actions)
        firsts.append(np.abs(probabilities - predict(policy, observations)).max())
    assert firsts[0] == 0
    assert min(firsts[1:]) > 0  # what it saw before matters


def test_members_that_answer_in_two_ways_cannot_vote(tmp_path, panel, panel_features, panel_fold, panel_policies):
    weighing = trained(tmp_path, panel, panel_features, panel_fold, "PPO", "weights")
    env = EnvSpec()
    with pytest.raises(DataError, match="some policies give weights and others actions"):
        run_backtests(panel, panel_features, [Segment(panel_fold.test, (panel_policies[0], weighing))], [], env)


def test_a_masked_policy_never_asks_for_what_is_not_allowed(tmp_path, panel, panel_features, panel_fold):
    policy = trained(tmp_path, panel, panel_features, panel_fold, "MaskablePPO")
    random = np.random.default_rng(0)
    observations = random.normal(size=(50, policy.model.observation_space.shape[0])).astype(np.float32)
    masks = random.random((50, 3, 3)) < 0.5
    masks[..., 0] = True
    probabilities = predict(policy, observations, masks.reshape(50, 9))
    assert (probabilities[~masks] == 0).all()
    actions, _ = policy.model.predict(observations, action_masks=masks.reshape(50, 9), deterministic=True)
    np.testing.assert_array_equal(probabilities.argmax(-1), actions)


@pytest.mark.parametrize(
    ("algorithm", "actions"),
    [("RecurrentPPO", "discrete"), ("MaskablePPO", "discrete"), ("PPO", "weights"), ("RecurrentPPO", "weights")],
)
def test_backtests_carry_memory_masks_and_weights(tmp_path, panel, panel_features, panel_fold, algorithm, actions):
    """The vote of one member, decided again by the plain class's own `predict` over the account that the backtest kept."""
    policy, env = trained(tmp_path, panel, panel_features, panel_fold, algorithm, actions), EnvSpec(gross_limit=1.5)
    asked = []

    class Watched(EnsembleStrategy):
        def targets(self, context):
            targets = super().targets(context)
            asked.append((context.bar, context.predictions[0, 0].copy(), targets[0]))
            return targets

    strategy = Watched({VOTE: slice(0, 1)}, bars=panel, env=env)
    run_backtests(panel, panel_features, [Segment(panel_fold.test, (policy,))], [strategy], env)
    arrays = make_market_arrays(panel)
    rows = market_rows(panel_features, panel.tradable, policy.scaler)
    accounts, state = Accounts.open(1, 3, env.cash), None
    for bar, probabilities, targets in asked:
        at = np.array([bar])
        seen = np.zeros((1, policy.model.observation_space.shape[0]), dtype=np.float32)
        observe(accounts, at, rows, arrays, seen)
        if algorithm == "MaskablePPO":
            chosen, _ = policy.model.predict(seen, action_masks=action_masks(accounts, at, arrays, env), deterministic=True)
            assert (probabilities[~panel.tradable[bar], 0] == 1).all()  # a symbol without a bar can only hold
        else:
            chosen, state = policy.model.predict(seen, state=state, episode_start=np.array([state is None]), deterministic=True)
        if actions == "weights":
            expected = weights_within(chosen, env)
            np.testing.assert_allclose(targets, expected[0], atol=1e-6)
        else:
            expected = target_weights(chosen, panel.tradable[at].sum(axis=1), env)
            np.testing.assert_array_equal(targets, expected[0])
            np.testing.assert_array_equal(probabilities.argmax(-1), chosen[0])
        step(accounts, at, targets[None], arrays, env)
    assert len(asked) == panel_fold.test.n_bars


def test_fused_weights_lie_between_the_vote_and_the_advice_unless_risk_or_a_veto_forbids(tmp_path, panel, panel_features, panel_fold):
    policy, env = trained(tmp_path, panel, panel_features, panel_fold, "PPO", "weights"), EnvSpec(rebalance_band=0)
    random = np.random.default_rng(3)
    advised_actions, confidences = random.integers(0, 3, (panel.n_bars, 3)), random.random((panel.n_bars, 3))
    risk = RiskSpec(max_consecutive_losses=1, cooldown_bars=5, min_win_rate=0.6)
    seen = {"blended": 0, "the policy's": 0, "too risky": 0, "vetoed": 0}

    class Watched(FusedStrategy):
        def targets(self, context):
            all_targets = super().targets(context)
            targets = all_targets[0]
            mine = ensemble_weights(context.predictions, panel, context.bar, env)[0]
            advised = weights_of_actions(self.advised_actions[:, context.bar], panel, context.bar, env)[0]
            scores = RiskHistory.of(context.accounts, context.bar, risk).scores()[0]
            for s in range(3):
                if scores[s] > 0.5:
                    assert np.isnan(targets[s])
                    seen["too risky"] += 1
                elif np.isnan(targets[s]):
                    assert scores[s] >= 0.3  # a losing streak or a poor hit rate
                    assert context.held[0, s] == 0
                    seen["vetoed"] += 1
                elif np.isnan(advised[s]):
                    assert targets[s] == mine[s]
                    seen["the policy's"] += 1
                else:
                    assert min(mine[s], advised[s]) <= targets[s] <= max(mine[s], advised[s])
                    seen["blended"] += mine[s] != targets[s] != advised[s]
            return all_targets

    fusion = FusionSpec(risk_threshold=0.5, llm_weight=0.5, risk=risk)
    strategy = Watched((FUSED,), advised_actions[None], confidences[None], panel, env, (fusion,))
    run_backtests(panel, panel_features, [Segment(panel_fold.test, (policy,))], [strategy], env)
    assert min(seen.values()) >= 10, seen


def test_the_best_policy_so_far_is_kept_on_demand(job, tmp_path):
    job = replace(job, checkpoint=CheckpointSpec(every_rollouts=2, keep_best=True))
    run_job(job)
    best = load_policy(job.paths.folder / "best.zip")
    assert [path.name for path in job.paths.folder.iterdir()] == ["best.zip"]
    assert 0 < best.meta.timesteps <= 128 * 60
    assert PPO.load(job.paths.folder / "best.zip").num_timesteps == best.meta.timesteps


@pytest.mark.parametrize("every", [1, 7])
def test_the_learning_curve_loses_no_rollout_and_no_episode(job, every):
    """60 rollouts; with 7 to a record, the last one holds four."""
    run_job(replace(job, training=job.training.model_copy(update={"log_every_rollouts": every})))
    curve = load_policy(job.target).meta.curve
    assert len(curve) == -(-60 // every)
    assert curve[-1]["timesteps"] == 128 * 60
    assert sum(record["episodes"] for record in curve) > 100
    for record in curve:
        assert np.isfinite(list(record.values())).all()
        if record["episodes"]:
            assert record["reward/log_return"] == pytest.approx(record["episode/reward"], abs=1e-5)


def test_records_of_several_rollouts_are_means_of_their_parts(job, tmp_path):
    curves = []
    for every in (1, 3):
        one = replace(job, training=job.training.model_copy(update={"log_every_rollouts": every}), target=tmp_path / f"{every}.zip")
        run_job(one)
        curves.append(load_policy(one.target).meta.curve)
    for i, record in enumerate(curves[1]):
        parts = curves[0][3 * i : 3 * i + 3]
        losses = [part["train/value_loss"] for part in parts if "train/value_loss" in part]  # a first update that imitates has none
        assert len(losses) == len(parts) - (i == 0)
        assert record["train/value_loss"] == pytest.approx(np.mean(losses))
        paid = sum(part["episode/reward"] * part["episodes"] for part in parts if part["episodes"])
        assert record.get("episode/reward", 0.0) * record["episodes"] == pytest.approx(paid)


def test_tensorboard_shows_the_learning_curve(job, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_job(replace(job, paths=TrainingPaths(tmp_path / "work", tensorboard=tmp_path / "board")))
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    curve = load_policy(job.target).meta.curve
    for name in ("train/value_loss", *(f"reward/{part}" for part in REWARD_PARTS)):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(record["timesteps"], pytest.approx(record[name])) for record in curve if name in record]
        assert shown


@pytest.fixture
def job(tmp_path, panel, panel_features, panel_fold) -> MemberJob:
    write_bars(panel, tmp_path / "bars.parquet")
    write_features(panel_features, tmp_path / "features.parquet")
    learnt, _ = learning_ranges(panel_fold, TINY)
    scores = np.random.default_rng(4).normal(size=(learnt.n_bars, 3))
    TEACHER.write(teacher_of_scores(scores, learnt.start), tmp_path / "teacher.npz")
    return MemberJob(
        bars=tmp_path / "bars.parquet", features=tmp_path / "features.parquet", fold=panel_fold, env=EnvSpec(episode_bars=60),
        training=TINY.model_copy(update={"total_timesteps": 128 * 60}), checkpoint=CheckpointSpec(every_rollouts=3),
        seed=11, teacher=tmp_path / "teacher.npz", paths=TrainingPaths(tmp_path / "work"), target=tmp_path / "policy.zip",
    )  # fmt: skip


_FORK = """
import os, pickle, sys, time
from ploutos.hardware.threads import cap_threads
cap_threads(1)
from ploutos.training.jobs import run_job
job, calm = pickle.load(open(sys.argv[1], "rb"))
run_job(calm)  # children find everything imported and compiled
started = time.monotonic()
run_job(calm)
print(time.monotonic() - started, flush=True)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        run_job(job)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "actions"), [("PPO", "discrete"), ("RecurrentPPO", "discrete"), ("MaskablePPO", "discrete"), ("RecurrentPPO", "weights")]
)
def test_a_training_killed_at_ten_random_moments_ends_in_the_same_bytes(job, tmp_path, algorithm, actions):
    """The file holds parameters, optimiser and learning curve."""
    changes = {"algorithm": algorithm, "actions": actions, "total_timesteps": 128 * 48, "lstm_size": 16, "learning_rate_schedule": "linear"}
    job = replace(job, training=job.training.model_copy(update=changes), teacher=job.teacher if actions == "discrete" else None)
    calm = replace(job, paths=TrainingPaths(tmp_path / "calm"), target=tmp_path / "calm.zip")
    pickled = tmp_path / "jobs"
    pickled.write_bytes(pickle.dumps((job, calm)))
    random = np.random.default_rng(4)
    kills = resumed = 0
    with subprocess.Popen([sys.executable, "-c", _FORK, str(pickled)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None

        def start() -> int:
            print(file=parent.stdin, flush=True)
            return int(parent.stdout.readline())

        takes = float(parent.stdout.readline())
        while kills < 10:
            goes_on = any(job.paths.folder.glob("step_*.zip"))
            child = start()
            time.sleep(random.uniform(0, 0.3 * takes))
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            killed = int(parent.stdout.readline()) == signal.SIGKILL
            kills, resumed = kills + killed, resumed + (killed and goes_on)
            if not killed:  # it was done before; the next one begins anew
                assert job.target.read_bytes() == calm.target.read_bytes()
                job.target.unlink()
        start()
        assert int(parent.stdout.readline()) == 0
        parent.stdin.close()
    assert resumed >= 3
    assert job.target.read_bytes() == calm.target.read_bytes()
    assert len(load_policy(job.target).meta.curve) == 48


def test_a_damaged_checkpoint_is_passed_over(job, tmp_path, caplog):
    run_job(replace(job, paths=TrainingPaths(tmp_path / "calm"), target=tmp_path / "calm.zip"))
    job.paths.folder.mkdir()
    (job.paths.folder / "step_000000009999.zip").write_bytes(b"half a file")
    run_job(job)
    assert "step_000000009999.zip is damaged" in caplog.text
    assert job.target.read_bytes() == (tmp_path / "calm.zip").read_bytes()


def test_thread_caps_hold_in_every_worker_before_numpy_and_torch_are_imported(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "7")
    expression = (
        "(__import__('os').getpid(), 'numpy' in __import__('sys').modules,"
        f" [__import__('os').environ[name] for name in {VARIABLES}],"
        " __import__('torch').get_num_threads(),"
        " [info['num_threads'] for info in __import__('threadpoolctl').threadpool_info()],"
        " __import__('time').sleep(0.3))"
    )
    with WorkerPool(2) as pool:
        futures = [pool.submit(eval, expression) for _ in range(2)]
        answers = [pool.result(future, lambda: None) for future in futures]
    assert len({pid for pid, *_ in answers}) == 2
    for _, imported_before, caps, torch_threads, library_threads, _ in answers:
        assert caps == ["1"] * len(VARIABLES)
        assert torch_threads == 1
        assert set(library_threads) <= {1}
        assert not imported_before
    assert os.environ["OMP_NUM_THREADS"] == "7"  # the caps are the workers', not the caller's


_ORPHAN = """
from ploutos.training.pool import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(1)
    print(pool.submit(eval, "__import__('os').getpid()").result(), flush=True)
    pool.submit(eval, "BUSY").result()
"""


@pytest.mark.parametrize("busy", ["__import__('time').sleep(60)", "pow(7, 10**8)"])  # the second holds the interpreter: no thread runs
def test_workers_are_gone_when_their_parent_is_killed(tmp_path, busy):
    script = tmp_path / "parent.py"
    script.write_text(_ORPHAN.replace("BUSY", busy))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


_KILLED = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("__import__('os')._exit(9)", "ended with exit code 9; finished"),
        ("__import__('os').kill(__import__('os').getpid(), 11)", "was ended by SIGSEGV; finished"),
        (_KILLED, "was ended by SIGKILL, which a person or a program sent: memory had not run out; finished .*: run again$"),
    ],
)
def test_a_worker_that_dies_is_one_clear_sentence_about_what_ended_it(death, said):
    with WorkerPool(1) as pool:
        with pytest.raises(TrainingError, match=said):
            pool.result(pool.submit(eval, death), lambda: None)
        with pytest.raises(TrainingError, match=said):
            pool.submit(eval, "1")
    with pytest.raises(TrainingError, match="the run is ending"):
        pool.submit(eval, "1")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ("4 5", "was ended by SIGKILL when memory ran out; finished .*: run again, with fewer hardware.workers$"),
        (
            "",
            "which is what the system does when memory runs out; finished .*: run again, with fewer hardware.workers if it happens again$",
        ),
    ],
)
def test_memory_is_blamed_as_far_as_the_system_says(counts, said, tmp_path, monkeypatch):
    file, left = tmp_path / "vmstat", counts.split()

    def counted():
        file.write_text(f"nr_free_pages 7\noom_kill {left.pop(0)}\n" if left else "nr_free_pages 7\n")
        return memory_kills(file)

    monkeypatch.setattr("ploutos.training.pool.memory_kills", counted)
    with WorkerPool(1) as pool, pytest.raises(TrainingError, match=said):
        pool.result(pool.submit(eval, _KILLED), lambda: None)
    assert memory_kills(tmp_path / "none") is None
