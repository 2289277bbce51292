"""Train one member: one fold, one seed, one policy file.

Stable-baselines3's PPO, or sb3-contrib's MaskablePPO or RecurrentPPO, on the batched environment, with the scaler fitted on
the fold's training rows. A member is bound to one thread: two members on two cores beat one member on two threads.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from ploutos.envs.batch import ActionKind
from ploutos.envs.ledger import make_tape
from ploutos.envs.observation import market_rows, observation_names
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.features.build import FeatureSet
from ploutos.features.scaling import Scaler, fit_scaler
from ploutos.market.bars import Bars
from ploutos.provenance import library_versions
from ploutos.specs import Spec
from ploutos.store import file_sha256
from ploutos.training.callbacks import BatchedCallback, Progress, tensorboard_sink
from ploutos.training.checkpoint import ALGORITHMS, SnapshotFolder, load_policy, save_policy, warm_start
from ploutos.training.fast.agents import QuickMaskablePPO, QuickPPO, QuickRecurrentPPO
from ploutos.training.fast.memory import keep_freed_memory
from ploutos.training.fast.precision import matmul_precision
from ploutos.walk_forward import Fold, Range

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
"""Where a network is trained, as torch names it; `auto` is `cuda` where torch can use it."""

BEST = "best.zip"
_FIRST_LOG_STD = -1.0  # a weight is at most 1: with stable-baselines3's deviation of 1 most draws would lie beyond the limits
_QUICK = {"PPO": QuickPPO, "MaskablePPO": QuickMaskablePPO, "RecurrentPPO": QuickRecurrentPPO}


class SpeedSpec(Spec):
    """How training is computed. Nothing here but `bf16` changes a number beyond rounding."""

    quick_loop: bool = True
    """Our rollout and update in place of stable-baselines3's: fewer Python calls per step, one tensor for the actions of all
    symbols, a rollout kept as tensors on the device; RecurrentPPO learns from whole accounts' sequences, not padded pieces."""
    share_rows: bool = True
    """Multiply a bar's features by the first layer once per minibatch and not once per account (CPU, `quick_loop`)."""
    fast_matmul: bool = True
    """Torch's `medium` matrix products, if their error, measured at start-up, is that of float32."""
    reuse_memory: bool = True
    """Keep freed memory for the next minibatch instead of handing it to the system (glibc; holds for the whole process)."""
    bf16: bool = False
    """bfloat16 matrix products (`quick_loop`): faster, and not float32-exact. Weights and sums stay float32."""

    @model_validator(mode="after")
    def _ours(self) -> "SpeedSpec":
        if self.bf16 and not self.quick_loop:
            raise ValueError("training.speed.bf16 is part of our own loop; leave training.speed.quick_loop on")
        return self


class TrainingSpec(Spec):
    """The agent and the ensemble around it."""

    algorithm: Literal["PPO", "MaskablePPO", "RecurrentPPO"] = "PPO"
    """`MaskablePPO` is told which actions can do anything; `RecurrentPPO` has an LSTM each for policy and value."""
    actions: ActionKind = "discrete"
    """What a policy decides for each symbol: `discrete` is HOLD, BUY or SELL; `weights` is a share of the gross limit, drawn from a
    normal distribution in training and its mean afterwards. MaskablePPO has discrete actions only."""
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
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """`linear` falls to 0 over the steps that are trained."""
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
    """Hidden layers of policy and of value function; behind the LSTM, where there is one."""
    lstm_size: PositiveInt = 256
    """Width of each LSTM of RecurrentPPO."""
    log_every_rollouts: PositiveInt = 1
    """Rollouts that one point of the learning curve sums up."""
    speed: SpeedSpec = SpeedSpec()
    """How training is computed."""

    @model_validator(mode="after")
    def _masks_are_of_actions(self) -> "TrainingSpec":
        if self.algorithm == "MaskablePPO" and self.actions == "weights":
            raise ValueError("training.algorithm MaskablePPO masks discrete actions; with training.actions=weights use PPO or RecurrentPPO")
        return self

    @model_validator(mode="after")
    def _batch_divides_rollout(self) -> "TrainingSpec":
        rollout = self.n_envs * self.n_steps
        if rollout % self.batch_size:
            raise ValueError(
                f"training.batch_size {self.batch_size} does not divide n_envs * n_steps = {self.n_envs} * {self.n_steps} = {rollout}"
            )
        if self.algorithm == "RecurrentPPO" and self.speed.quick_loop and self.batch_size % self.n_steps:
            raise ValueError(
                f"training.batch_size {self.batch_size} is no multiple of n_steps {self.n_steps}; RecurrentPPO learns from whole sequences"
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
    """Snapshots kept of each training, the newest ones."""
    keep_best: bool = False
    """Keep beside the snapshots, and after the training, the policy whose last episodes had paid best when a snapshot was made.
    It is the best on its own training bars, which is no measure of skill."""
    auto_resume: bool = True
    """Go on from the newest whole snapshot; false starts over."""


class LogSpec(Spec):
    """What a training writes for people to look at; it changes no result."""

    tensorboard: Path | None = None
    """Folder for TensorBoard's files, one folder in it per fold and member; empty for none. Needs `ploutos[tensorboard]`."""


@dataclass(frozen=True)
class Workplace:
    """Where a training leaves its traces while it runs."""

    folder: Path
    """Snapshots and progress of this training, removed when it is done."""
    device: Device = "cpu"
    tensorboard: Path | None = None
    """Where TensorBoard's files go; None for no such files."""

    @property
    def progress_file(self) -> Path:
        return self.folder / "progress.json"


def build_model(env: MarketVecEnv, spec: TrainingSpec, seed: int, device: str) -> OnPolicyAlgorithm:
    """An agent with fresh weights, drawn from the seed."""
    recurrent, quick = spec.algorithm == "RecurrentPPO", spec.speed.quick_loop
    network: dict[str, Any] = {"net_arch": list(spec.net_arch)}
    if spec.actions == "weights":
        network["log_std_init"] = _FIRST_LOG_STD
    algorithm: Any = _QUICK[spec.algorithm] if quick else ALGORITHMS[spec.algorithm]
    return cast(
        OnPolicyAlgorithm,
        algorithm(
            "MlpLstmPolicy" if recurrent else "MlpPolicy",
            env,
            learning_rate=LinearSchedule(spec.learning_rate, 0.0, 1.0) if spec.learning_rate_schedule == "linear" else spec.learning_rate,
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
            policy_kwargs=network | ({"lstm_hidden_size": spec.lstm_size} if recurrent else {}),
            seed=seed,
            device=device,
            **({"share_rows": spec.speed.share_rows, "half": spec.speed.bf16} if quick else {}),
        ),
    )


def fit_range_scaler(features: FeatureSet, train: Range) -> Scaler:
    """The scaler of a training range: its rows and nothing else."""
    return fit_scaler(features.values[train.start : train.stop], features.n_required)


def build_env(
    bars: Bars, features: FeatureSet, scaler: Scaler, train: Range, env_spec: EnvSpec, spec: TrainingSpec, seed: int
) -> MarketVecEnv:
    """The environment of a training range."""
    rows = market_rows(features, bars.tradable, scaler)
    return MarketVecEnv(make_tape(bars), rows, env_spec, train.start, train.stop - 1, spec.n_envs, seed, spec.actions)


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
    warm: Path | None = None,
) -> dict[str, Any]:
    """Train one policy and write it to `path`.

    Args:
        seed: of weights, actions, minibatches and episode starts.
        place: snapshots are read from and written to its folder; they are cleared at the end.
        path: where the policy goes.
        warm: a policy to start from, which observed part of what this one does; None starts from fresh weights.

    Returns:
        The policy's meta: fold, seed, steps, scaler, names, learning curve, versions.
    """
    torch.set_num_threads(1)
    if spec.speed.reuse_memory:
        keep_freed_memory()
    place.folder.mkdir(parents=True, exist_ok=True)
    scaler = fit_range_scaler(features, fold.train)
    env = build_env(bars, features, scaler, fold.train, env_spec, spec, seed)
    model = build_model(env, spec, seed, place.device)
    total = spec.planned_timesteps
    meta: dict[str, Any] = {
        "fold": fold.model_dump(),
        "seed": seed,
        "planned_timesteps": total,
        "timesteps_reduction": spec.timesteps_reduction,
        "symbols": list(bars.symbols),
        "features": list(features.names),
        "scaler": {"mean": scaler.mean.tolist(), "deviation": scaler.deviation.tolist()},
        "env": env_spec.model_dump(mode="json"),
        "training": spec.model_dump(mode="json"),
        "versions": library_versions({"torch", "stable_baselines3", "sb3_contrib", "gymnasium", "numpy", "numba"}),
    }
    if warm is not None:
        meta["warm_start"] = file_sha256(warm)
    log = BatchedCallback(spec.log_every_rollouts, tensorboard_sink(place.tensorboard) if place.tensorboard else None)
    snapshots = SnapshotFolder(place.folder, checkpoints.keep)
    every = checkpoints.every_rollouts if checkpoints.enabled else None
    best = place.folder / BEST if checkpoints.keep_best else None
    progress = Progress(env, log, snapshots, every, total, place.progress_file, best, meta)
    found = snapshots.resume(model, env, logger.warning) if checkpoints.auto_resume else None
    if warm is not None and found is None:
        warm_start(model, observation_names(features, env_spec.observe_account), load_policy(warm))
    if found is not None:
        progress.restore(found)
        logger.info("fold %d seed %d resumes at %d of %d steps", fold.index, seed, model.num_timesteps, total)
    with matmul_precision(spec.speed.fast_matmul, place.device):
        if model.num_timesteps < total:
            model.learn(
                total - model.num_timesteps,
                callback=[log, progress],
                log_interval=cast(int, None),  # stable-baselines3 then logs nothing of its own
                reset_num_timesteps=found is None,
            )
    meta |= {"timesteps": model.num_timesteps, "curve": log.records}
    save_policy(model, meta, path)
    place.progress_file.unlink(missing_ok=True)
    snapshots.clear()
    return meta
