"""Train one member: one fold, one seed, one policy file.

Stable-baselines3's PPO on the batched environment, with the scaler fitted on the fold's training rows. A member is bound
to one thread: two members on two cores beat one member on two threads.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from ploutos.envs.ledger import make_tape
from ploutos.envs.observation import market_rows
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.features.build import FeatureSet
from ploutos.features.scaling import Scaler, fit_scaler
from ploutos.market.bars import Bars
from ploutos.provenance import library_versions
from ploutos.specs import Spec
from ploutos.training.checkpoint import SnapshotFolder, save_policy
from ploutos.training.folds import Fold

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
"""Where a network is trained, as torch names it; `auto` is `cuda` where torch can use it."""


class TrainingSpec(Spec):
    """PPO and the ensemble around it."""

    total_timesteps: PositiveInt = 2_000_000
    """Environment steps of one member in production."""
    timesteps_reduction: float = Field(default=1.0, gt=0, le=1)
    """Share of `total_timesteps` that is really trained: 0.1 in `test`, 0.01 in `quick`. Below 1 a model proves nothing."""
    members: PositiveInt = 5
    """Policies per fold, alike but for the seed; they vote."""
    n_envs: PositiveInt = 32
    """Accounts in the batch."""
    n_steps: PositiveInt = 128
    """Steps of each account per rollout."""
    batch_size: PositiveInt = 1024
    """Samples per gradient step; divides n_envs * n_steps."""
    n_epochs: PositiveInt = 5
    """Passes over a rollout."""
    learning_rate: PositiveFloat = 3e-4
    """Adam's step."""
    gamma: float = Field(default=0.99, gt=0, le=1)
    """Discount per bar."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Bias against variance of the advantage."""
    clip_range: PositiveFloat = 0.2
    """PPO's clip."""
    ent_coef: NonNegativeFloat = 0.01
    """Weight of the entropy bonus."""
    vf_coef: NonNegativeFloat = 0.5
    """Weight of the value loss."""
    max_grad_norm: PositiveFloat = 0.5
    """Gradient clip."""
    target_kl: PositiveFloat | None = None
    """Stop a rollout's updates beyond this divergence; none by default."""
    net_arch: tuple[PositiveInt, ...] = (256, 128)
    """Hidden layers of policy and of value function."""

    @model_validator(mode="after")
    def _batch_divides_rollout(self) -> "TrainingSpec":
        rollout = self.n_envs * self.n_steps
        if rollout % self.batch_size:
            raise ValueError(
                f"training.batch_size {self.batch_size} does not divide n_envs * n_steps = {self.n_envs} * {self.n_steps} = {rollout}"
            )
        return self

    @property
    def planned_timesteps(self) -> int:
        """Steps that will be trained: the reduced number, in whole rollouts."""
        rollout = self.n_envs * self.n_steps
        return max(round(self.total_timesteps * self.timesteps_reduction / rollout), 1) * rollout


class CheckpointSpec(Spec):
    """Snapshots of a training in progress."""

    enabled: bool = True
    """Whether to write snapshots at all."""
    every_rollouts: PositiveInt = 10
    """Rollouts between two snapshots."""
    keep: PositiveInt = 2
    """Snapshots kept of each training."""
    auto_resume: bool = True
    """Go on from the newest whole snapshot; false starts over."""


@dataclass(frozen=True)
class Workplace:
    """Where a training leaves its traces while it runs."""

    folder: Path
    """Snapshots and progress of this training, removed when it is done."""
    device: Device = "cpu"

    @property
    def progress_file(self) -> Path:
        return self.folder / "progress.json"


class _Progress(BaseCallback):
    """At every rollout boundary: say how far, and leave a snapshot when one is due."""

    model: PPO

    def __init__(self, env: MarketVecEnv, place: Workplace, spec: CheckpointSpec, total: int) -> None:
        super().__init__()
        self.env, self.place, self.spec, self.total = env, place, spec, total
        self.snapshots = SnapshotFolder(place.folder, spec.keep)
        self.rollouts = 0
        self.started, self.first_step = time.perf_counter(), 0

    def _on_training_start(self) -> None:
        self.started, self.first_step = time.perf_counter(), self.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.rollouts:
            self._report()
            if self.spec.enabled and self.rollouts % self.spec.every_rollouts == 0:
                self.snapshots.save(self.model, self.env)
        self.rollouts += 1

    def _report(self) -> None:
        seconds = time.perf_counter() - self.started
        episodes = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        progress = {
            "steps": self.num_timesteps,
            "total": self.total,
            "steps_per_second": round((self.num_timesteps - self.first_step) / max(seconds, 1e-9)),
            "mean_episode_reward": round(float(np.mean(episodes)), 3) if episodes else None,
        }
        temporary = self.place.progress_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(progress), encoding="utf-8")
        temporary.replace(self.place.progress_file)

    def _on_step(self) -> bool:
        return True


def build_model(env: MarketVecEnv, spec: TrainingSpec, seed: int, device: str) -> PPO:
    """A PPO with fresh weights, drawn from the seed."""
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=spec.learning_rate,
        n_steps=spec.n_steps,
        batch_size=spec.batch_size,
        n_epochs=spec.n_epochs,
        gamma=spec.gamma,
        gae_lambda=spec.gae_lambda,
        clip_range=spec.clip_range,
        ent_coef=spec.ent_coef,
        vf_coef=spec.vf_coef,
        max_grad_norm=spec.max_grad_norm,
        target_kl=spec.target_kl,
        policy_kwargs={"net_arch": list(spec.net_arch)},
        seed=seed,
        device=device,
    )


def fit_fold_scaler(features: FeatureSet, fold: Fold) -> Scaler:
    """The scaler of a fold: its training rows and nothing else."""
    return fit_scaler(features.values[fold.train.start : fold.train.stop])


def train_member(
    bars: Bars,
    features: FeatureSet,
    fold: Fold,
    env_spec: EnvSpec,
    spec: TrainingSpec,
    checkpoints: CheckpointSpec,
    seed: int,
    place: Workplace,
    path: Path,
) -> dict[str, Any]:
    """Train one policy and write it to `path`.

    Args:
        seed: of weights, actions, minibatches and episode starts.
        place: snapshots are read from and written to its folder; they are cleared at the end.
        path: where the policy goes.

    Returns:
        The policy's meta: fold, seed, steps, scaler, names, versions.
    """
    torch.set_num_threads(1)
    place.folder.mkdir(parents=True, exist_ok=True)
    scaler = fit_fold_scaler(features, fold)
    rows = market_rows(features, bars.tradable, scaler)
    env = MarketVecEnv(make_tape(bars), rows, env_spec, fold.train.start, fold.train.stop - 1, n_envs=spec.n_envs, seed=seed)
    model = build_model(env, spec, seed, place.device)
    total = spec.planned_timesteps
    callback = _Progress(env, place, checkpoints, total)
    done = callback.snapshots.resume(model, env, logger.warning) if checkpoints.auto_resume else 0
    if done:
        logger.info("fold %d seed %d resumes at %d of %d steps", fold.index, seed, done, total)
    if done < total:
        model.learn(total - done, callback=callback, reset_num_timesteps=done == 0)
    meta = {
        "fold": fold.model_dump(),
        "seed": seed,
        "timesteps": model.num_timesteps,
        "planned_timesteps": total,
        "timesteps_reduction": spec.timesteps_reduction,
        "symbols": list(bars.symbols),
        "features": list(features.names),
        "scaler": {"mean": scaler.mean.tolist(), "deviation": scaler.deviation.tolist()},
        "env": env_spec.model_dump(mode="json"),
        "training": spec.model_dump(mode="json"),
        "versions": library_versions({"torch", "stable_baselines3", "gymnasium", "numpy", "numba"}),
    }
    save_policy(model, meta, path)
    place.progress_file.unlink(missing_ok=True)
    callback.snapshots.clear()
    return meta
