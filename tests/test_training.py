"""Training: it learns what can be learnt and nothing else, repeats to the byte, and survives being killed."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from markets import TINY
from stable_baselines3 import PPO

from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import TrainingError
from ploutos.evaluation.backtest import Scheduled, Segment, Voted, run_backtests
from ploutos.evaluation.baselines import buy_and_hold, flat
from ploutos.evaluation.metrics import periods_of, session_returns
from ploutos.evaluation.significance import BootstrapSpec, mean_interval
from ploutos.features.build import FeatureSet, write_features
from ploutos.hardware.threads import VARIABLES
from ploutos.market.bars import align, write_bars
from ploutos.training.checkpoint import load_policy
from ploutos.training.ensemble import action_probabilities, vote
from ploutos.training.folds import Fold, Range
from ploutos.training.jobs import MemberJob, run_job
from ploutos.training.pool import WorkerPool
from ploutos.training.ppo import CheckpointSpec, TrainingSpec, Workplace, train_member


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


def learn(tmp_path, seed, signal):
    """Yearly mean of PPO less flat and less buy and hold, each with its interval, over the test range."""
    bars, features, fold = toy_market(seed, signal)
    env = EnvSpec(allow_short=True, costs=CostSpec(commission_bps=1, slippage_bps=1))
    spec = TrainingSpec(total_timesteps=30_000, n_envs=16, n_steps=64, batch_size=256, net_arch=(16,), gamma=0.5, learning_rate=2e-3)
    train_member(bars, features, fold, env, spec, CheckpointSpec(enabled=False), seed, Workplace(tmp_path / "w"), tmp_path / "p.zip")
    policy = load_policy(tmp_path / "p.zip")
    strategies = [
        Voted("PPO", bars, env, slice(0, 1)),
        Scheduled("flat", flat(bars)),
        Scheduled("buy and hold", buy_and_hold(bars, fold.test.start - 1, env)),
    ]
    result = run_backtests(bars, features, [Segment(fold.test, (policy,))], strategies, env)
    periods = periods_of(bars, result)
    returns = session_returns(result.equity, periods)
    return [mean_interval(returns[0] - returns[other], periods.per_year, BootstrapSpec(replications=500), seed) for other in (1, 2)]


@pytest.mark.slow
def test_ppo_learns_a_market_whose_next_sign_it_can_see(tmp_path):
    over_flat, over_holding = learn(tmp_path, 3, signal=True)
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
    meta = train_member(panel, features, fold, EnvSpec(episode_bars=60), spec, CheckpointSpec(), 7, Workplace(tmp_path / name), target)
    return target, meta


def test_the_same_seed_gives_the_same_file_and_plain_ppo_opens_it(tmp_path, panel, panel_features, panel_fold):
    first, meta = member(tmp_path, "a", panel, panel_features, panel_fold)
    second, _ = member(tmp_path, "b", panel, panel_features, panel_fold)
    assert first.read_bytes() == second.read_bytes()
    assert meta["timesteps"] == meta["planned_timesteps"] == 256
    assert PPO.load(first).num_timesteps == 256
    assert not (tmp_path / "a").exists()  # no snapshots or progress are left


def test_bars_after_the_training_range_change_no_policy(tmp_path, panel, panel_features, panel_fold):
    stop = panel_fold.train.stop
    changed = panel_features.values.copy()
    changed[stop:] += 1
    open_ = panel.open.copy()
    open_[stop:] *= 3
    first, _ = member(tmp_path, "a", panel, panel_features, panel_fold)
    second, _ = member(tmp_path, "b", replace(panel, open=open_), replace(panel_features, values=changed), panel_fold)
    assert first.read_bytes() == second.read_bytes()


def test_a_policy_refuses_other_symbols_and_features(panel_policies, panel):
    with pytest.raises(TrainingError, match="trained on symbols S0, S1, S2; found S2, S1, S0"):
        panel_policies[0].require(panel.symbols[::-1], tuple(panel_policies[0].meta["features"]))


def test_probabilities_are_the_policys_own_and_the_vote_is_their_mean(panel_policies):
    observations = np.random.default_rng(0).normal(size=(9, panel_policies[0].model.observation_space.shape[0])).astype(np.float32)
    for policy in panel_policies:
        distribution = policy.model.policy.get_distribution(torch.from_numpy(observations)).distribution
        expected = np.stack([one.probs.detach().numpy() for one in distribution], axis=1)
        np.testing.assert_allclose(action_probabilities(policy, observations), expected, atol=1e-6)
        greedy, _ = policy.model.predict(observations, deterministic=True)
        np.testing.assert_array_equal(vote(action_probabilities(policy, observations)[None])[0], greedy)
    actions, confidences = vote(np.array([[[0.5, 0.4, 0.1]], [[0.1, 0.6, 0.3]]]))
    assert actions.tolist() == [1]
    assert confidences == pytest.approx([0.5])


@pytest.fixture
def job(tmp_path, panel, panel_features, panel_fold) -> MemberJob:
    write_bars(panel, tmp_path / "bars.parquet")
    write_features(panel_features, tmp_path / "features.parquet")
    return MemberJob(
        bars=tmp_path / "bars.parquet", features=tmp_path / "features.parquet", fold=panel_fold, env=EnvSpec(episode_bars=60),
        training=TINY.model_copy(update={"total_timesteps": 128 * 60}), checkpoint=CheckpointSpec(every_rollouts=3),
        seed=11, place=Workplace(tmp_path / "work"), target=tmp_path / "policy.zip",
    )  # fmt: skip


_RUN = "import pickle, sys; from ploutos.training.jobs import run_job; run_job(pickle.load(open(sys.argv[1], 'rb')))"


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_in_the_same_bytes(job, tmp_path):
    run_job(replace(job, place=Workplace(tmp_path / "calm"), target=tmp_path / "calm.zip"))
    pickled = tmp_path / "job"
    pickled.write_bytes(pickle.dumps(job))
    random = np.random.default_rng(4)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", _RUN, str(pickled)])
        before = set(job.place.folder.glob("step_*.zip"))
        while process.poll() is None and set(job.place.folder.glob("step_*.zip")) <= before:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.15))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    assert not job.target.exists()
    assert list(job.place.folder.glob("step_*.zip"))
    run_job(job)
    assert job.target.read_bytes() == (tmp_path / "calm.zip").read_bytes()


def test_a_damaged_snapshot_is_passed_over(job, tmp_path, caplog):
    run_job(replace(job, place=Workplace(tmp_path / "calm"), target=tmp_path / "calm.zip"))
    job.place.folder.mkdir()
    (job.place.folder / "step_000000009999.zip").write_bytes(b"half a file")
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
    pool.submit(eval, "__import__('time').sleep(60)").result()
"""


def test_workers_are_gone_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_ORPHAN)
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


def test_a_worker_that_dies_is_one_clear_sentence():
    with WorkerPool(1) as pool, pytest.raises(TrainingError, match="a training process died"):
        pool.result(pool.submit(eval, "__import__('os')._exit(9)"), lambda: None)
