"""Phase 2: one task per fold and member."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from ploutos.config import PipelineConfig
from ploutos.envs.spec import EnvSpec
from ploutos.fusion.jobs import HybridJob
from ploutos.hardware.machine import usable_cores
from ploutos.progress import Progress, tell
from ploutos.resolve import gpu_share
from ploutos.seeding import seed_integer
from ploutos.store import Ref, Store
from ploutos.training.checkpoint import POLICY
from ploutos.training.jobs import MemberJob, read_progress, run_job
from ploutos.training.pool import shared_pool, train_here
from ploutos.training.spec import TrainingPaths, TrainingSpec
from ploutos.walk_forward import Fold
from tasks.stage import keep_stage, stage_key

J = TypeVar("J", MemberJob, HybridJob)


def trains_on_gpu(config: PipelineConfig) -> bool:
    """Whether policies are trained on a GPU, which takes its slot."""
    return config.hardware.device == "cuda"


def training_settings(fold: Fold, env: EnvSpec, training: TrainingSpec, device: str, seed: int) -> dict[str, Any]:
    """What decides a trained policy, but for the artifacts it is trained on."""
    return {
        "fold": fold.model_dump(mode="json", exclude={"index", "test"}),
        "env": env.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude={"members"}),
        "device": device,
        "seed": seed,
    }


def train_stage(
    store: Store,
    stage: str,
    settings: dict[str, Any],
    upstream: Sequence[str],
    label: str,
    config: PipelineConfig,
    run: Callable[[J], None],
    job: Callable[..., J],
) -> State[Ref]:
    """A policy from the store, or trained: by a worker process of this one, or in place where this one is a worker itself.

    Args:
        run: what a worker does with the job.
        job: makes the job, given its `paths` and `target`.
    """
    board, title = config.logging.tensorboard, f"{stage} {label}"

    def train(paths: TrainingPaths, path: Path) -> None:
        member, log = job(paths=paths, target=path), _progress_logger(paths, stage, label)
        if config.hardware.runner == "thread":
            pool = shared_pool(config.hardware.workers or usable_cores())
            pool.result(pool.submit(run, member), log)
        else:
            train_here(run, member, log)

    key = stage_key(stage, POLICY, settings, upstream, train)
    folder = store.root / "checkpoints" / key[0]
    paths = TrainingPaths(
        folder, config.hardware.device, board and board / f"{title.replace(' ', '-')}-{key[0][:8]}", gpu_share(config, stage)
    )  # fmt: skip
    return keep_stage(store, stage, POLICY, key, partial(train, paths), label, "gpu" if trains_on_gpu(config) else None)


def _run_name() -> str:
    given = task_run.get_parameters()
    fold, member, config = given["fold"], given["member"], given["config"]
    return f"train fold {fold.index} member {member}, seed {seed_integer(config.seed, 'train', fold.index, member)}"


@task(name="train-member", task_run_name=_run_name, cache_policy=NO_CACHE)
def train_member(
    store: Store, bars: Ref, features: Ref, fold: Fold, member: int, config: PipelineConfig, teacher: Ref | None
) -> State[Ref]:
    """Train one policy; whoever has a teacher is given it."""
    seed = seed_integer(config.seed, "train", fold.index, member)
    job = partial(
        MemberJob, bars=store.path(bars), features=store.path(features), fold=fold, env=config.env, training=config.training,
        checkpoint=config.checkpoint, seed=seed, teacher=None if teacher is None else store.path(teacher),
    )  # fmt: skip
    settings = training_settings(fold, config.env, config.training, config.hardware.device, seed)
    upstream = [fold.data_sha256, "" if teacher is None else teacher.sha256]
    return train_stage(store, "policy", settings, upstream, f"fold {fold.index} member {member}", config, run_job, job)


def _progress_logger(paths: TrainingPaths, stage: str, label: str) -> Callable[[], None]:
    """A function that tells a member's progress, and logs it whenever it passed another tenth."""
    logger, logged = get_run_logger(), [0]

    def log() -> None:
        progress = read_progress(paths)
        if progress is None:
            return
        rate = f"{progress.steps_per_second:,} steps/s"
        tell(Progress(stage, label, "working", progress.steps, progress.total, "steps", rate, progress.resumed_at))
        tenth = 10 * progress.steps // progress.total
        if tenth > logged[0]:
            logged[0] = tenth
            reward = progress.mean_episode_reward
            told = rate if reward is None else f"{rate}, mean episode reward {reward}"  # there is none before an episode has ended
            logger.info("%s %s: %d of %d steps, %s", stage, label, progress.steps, progress.total, told)

    return log
