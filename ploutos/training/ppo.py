"""Train one member: one fold, one seed, one policy file.

Stable-baselines3's PPO, or sb3-contrib's MaskablePPO or RecurrentPPO, on the batched environment, with the scaler fitted on
the fold's training rows. A member is bound to one thread: two members on two cores beat one member on two threads.
"""

import logging
from pathlib import Path
from typing import Any, cast

import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from ploutos.envs.ledger import make_market_arrays
from ploutos.envs.observation import market_rows
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import TrainingError
from ploutos.features.build import FeatureSet
from ploutos.features.scaling import Scaler, fit_scaler
from ploutos.market.bars import Bars
from ploutos.provenance import library_versions
from ploutos.store import file_sha256
from ploutos.training.callbacks import BatchedCallback, KeepBest, ReportProgress, SaveCheckpoints, tensorboard_sink
from ploutos.training.checkpoint import ALGORITHMS, CheckpointFolder, load_policy, save_policy, warm_start
from ploutos.training.fast.agents import FastMaskablePPO, FastPPO, FastRecurrentPPO
from ploutos.training.fast.memory import keep_freed_memory
from ploutos.training.fast.precision import matmul_precision
from ploutos.training.networks import SharedMaskablePolicy, SharedPolicy, SharedRecurrentPolicy
from ploutos.training.policy_meta import PolicyMeta, ScalerValues, TrainedOn
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.training.stopping import EarlyStopping, HeldOut
from ploutos.training.teacher import Teacher
from ploutos.walk_forward import Fold, Range, inner_split

logger = logging.getLogger(__name__)

BEST = "best.zip"
_FIRST_LOG_STD = -1.0  # a weight is at most 1: with stable-baselines3's deviation of 1 most draws would lie beyond the limits
_EPSILON = 1e-5  # of Adam, as stable-baselines3 has it
_SHARED: dict[str, Any] = {"PPO": SharedPolicy, "MaskablePPO": SharedMaskablePolicy, "RecurrentPPO": SharedRecurrentPolicy}
_FAST = {"PPO": FastPPO, "MaskablePPO": FastMaskablePPO, "RecurrentPPO": FastRecurrentPPO}


def build_model(env: MarketVecEnv, spec: TrainingSpec, seed: int, device: str) -> OnPolicyAlgorithm:
    """An agent with fresh weights, drawn from the seed."""
    recurrent, fast = spec.algorithm == "RecurrentPPO", spec.speed.fast_loop
    network: dict[str, Any] = {"net_arch": list(spec.net_arch)}
    if spec.network == "shared":
        network["account"] = env.env_spec.observe_account
    if spec.actions == "weights":
        network["log_std_init"] = _FIRST_LOG_STD
    if spec.weight_decay:
        network |= {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"eps": _EPSILON, "weight_decay": spec.weight_decay}}
    algorithm: Any = _FAST[spec.algorithm] if fast else ALGORITHMS[spec.algorithm]
    model = cast(
        OnPolicyAlgorithm,
        algorithm(
            _SHARED[spec.algorithm] if spec.network == "shared" else "MlpLstmPolicy" if recurrent else "MlpPolicy",
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
            **({"share_rows": spec.speed.share_rows, "half": spec.speed.bf16} if fast else {}),
        ),
    )
    model.set_logger(Logger(folder=None, output_formats=[]))  # its own would leave a folder in /tmp with every training
    return model


def fit_range_scaler(features: FeatureSet, train: Range) -> Scaler:
    """The scaler of a training range: its rows and nothing else."""
    return fit_scaler(features.values[train.start : train.stop], features.n_required)


def learning_ranges(fold: Fold, spec: TrainingSpec) -> tuple[Range, Range | None]:
    """The part of a fold's training range that is learnt from, and the part that is held out to stop on, if any.

    Raises:
        HistoryError: the training range is too short to be cut.
    """
    if not spec.stopping.enabled:
        return fold.train, None
    return inner_split(fold.train, fold.validation.start - fold.train.stop, spec.stopping.validation_share)


def build_env(
    bars: Bars, features: FeatureSet, scaler: Scaler, train: Range, env_spec: EnvSpec, spec: TrainingSpec, seed: int
) -> MarketVecEnv:
    """The environment of a training range."""
    rows = market_rows(features, bars.tradable, scaler)
    return MarketVecEnv(
        make_market_arrays(bars), rows, env_spec, train.start, train.stop - 1, spec.n_envs, seed, spec.actions, spec.credits_symbols
    )


def train_member(
    bars: Bars,
    features: FeatureSet,
    fold: Fold,
    env_spec: EnvSpec,
    spec: TrainingSpec,
    checkpoints: CheckpointSpec,
    seed: int,
    paths: TrainingPaths,
    path: Path,
    warm: Path | None = None,
    teacher: Teacher | None = None,
) -> PolicyMeta:
    """Train one policy and write it to `path`.

    Args:
        seed: of weights, actions, minibatches and episode starts.
        paths: checkpoints are read from and written to its folder; they are cleared at the end.
        path: where the policy goes.
        warm: a policy to start from, which observed part of what this one does; None starts from fresh weights.
        teacher: whom the policy imitates at first, unless it starts from a policy, and is held to; None has none.

    Returns:
        What the policy's file says of it: fold, seed, steps, scaler, names, learning curve, which of its policies was kept and why.
    """
    torch.set_num_threads(1)
    if paths.device == "cuda" and paths.gpu_share is not None:
        torch.cuda.set_per_process_memory_fraction(paths.gpu_share)
    if spec.speed.reuse_memory:
        keep_freed_memory()
    paths.folder.mkdir(parents=True, exist_ok=True)
    learnt, held_out = learning_ranges(fold, spec)
    features, forecast = _with_forecast(features, spec, teacher)
    scaler = fit_range_scaler(features, learnt)
    env = build_env(bars, features, scaler, learnt, env_spec, spec, seed)
    model = build_model(env, spec, seed, paths.device)
    meta = meta_of(bars, features, fold, env_spec, spec, scaler, seed, forecast)
    if warm is not None:
        meta = meta.model_copy(update={"warm_start": file_sha256(warm)})
    if teacher is not None:
        cast(Any, model).be_taught(teacher.over(Range(start=env.first_bar, stop=env.last_bar + 1)), spec.teacher_weight, warm is None)
    log = BatchedCallback(spec.log_every_rollouts, tensorboard_sink(paths.tensorboard) if paths.tensorboard else None)
    stopping = EarlyStopping(HeldOut(env.arrays, env.rows, env_spec, held_out), spec.stopping, log) if held_out else None
    keeping = KeepBest(checkpoints.every_rollouts, paths.folder / BEST, meta) if checkpoints.enabled and checkpoints.keep_best else None
    stateful: dict[str, Any] = {name: each for name, each in (("stopping", stopping), ("log", log), ("best", keeping)) if each}
    total, folder = spec.planned_timesteps, CheckpointFolder(paths.folder, checkpoints.keep)
    callbacks = [*stateful.values(), ReportProgress(total, paths.progress_file)]
    if checkpoints.enabled:
        callbacks.append(SaveCheckpoints(checkpoints.every_rollouts, env, folder, stateful))
    found = folder.resume(model, env, logger.warning) if checkpoints.auto_resume else None
    if found is not None:
        for name, each in stateful.items():
            each.restore(found[name])
        logger.info("fold %d seed %d resumes at %d of %d steps", fold.index, seed, model.num_timesteps, total)
    elif warm is not None:
        warm_start(model, features.symbols, features.names, env_spec.observe_account, load_policy(warm))
    with matmul_precision(spec.speed.fast_matmul, paths.device):
        if model.num_timesteps < total:
            silent = cast(int, None)  # stable-baselines3 then logs nothing of its own
            model.learn(total - model.num_timesteps, callbacks, silent, reset_num_timesteps=found is None)
    if stopping is not None:
        stopping.keep_best()
        meta = meta.model_copy(update={"stopping": stopping.meta()})
    meta = meta.model_copy(update={"timesteps": model.num_timesteps, "curve": tuple(log.records)})
    save_policy(model, meta, path)
    paths.progress_file.unlink(missing_ok=True)
    folder.clear()
    return meta


def _with_forecast(features: FeatureSet, spec: TrainingSpec, teacher: Teacher | None) -> tuple[FeatureSet, dict[str, Any] | None]:
    """What is observed, and the model of the forecast among it, if there is one."""
    if not spec.observe_forecast:
        return features, None
    if teacher is None:
        raise TrainingError("training.observe_forecast needs a teacher's forecast, and no teacher was given; pass one")
    return teacher.observed(features), teacher.model


def meta_of(
    bars: Bars,
    features: FeatureSet,
    fold: Fold,
    env_spec: EnvSpec,
    spec: TrainingSpec,
    scaler: Scaler,
    seed: int,
    forecast: dict[str, Any] | None = None,
) -> PolicyMeta:
    """What is known of a policy before it is trained.

    Args:
        features: what it observes.
        forecast: the model of the forecast among them, if there is one.
    """
    return PolicyMeta(
        fold=TrainedOn(train=fold.train, validation=fold.validation, warmup_bars=fold.warmup_bars, data_sha256=fold.data_sha256),
        seed=seed,
        planned_timesteps=spec.planned_timesteps,
        timesteps_reduction=spec.timesteps_reduction,
        symbols=bars.symbols,
        features=features.names,
        scaler=ScalerValues(mean=tuple(scaler.mean.tolist()), deviation=tuple(scaler.deviation.tolist())),
        env=env_spec,
        training=spec,
        versions=library_versions({"torch", "stable_baselines3", "sb3_contrib", "gymnasium", "numpy", "numba"}),
        forecast=forecast,
    )
