"""Phase 2: one task per fold and member."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.config import PipelineConfig
from ploutos.envs.spec import EnvSpec
from ploutos.fusion.jobs import HybridJob
from ploutos.seeding import seed_integer
from ploutos.store import Ref, Store
from ploutos.training.jobs import MemberJob, read_progress, run_job
from ploutos.training.pool import WorkerPool
from ploutos.training.spec import TrainingPaths, TrainingSpec
from ploutos.walk_forward import Fold
from tasks.stage import run_stage, stage_key


def training_settings(fold: Fold, env: EnvSpec, training: TrainingSpec, device: str, seed: int) -> dict[str, Any]:
    """What decides a trained policy, but for the artifacts it is trained on."""
    return {
        "fold": fold.model_dump(mode="json", exclude={"index", "test"}),
        "env": env.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude={"members"}),
        "device": device,
        "seed": seed,
    }


J = TypeVar("J", MemberJob, HybridJob)


def train_stage(
    store: Store,
    pool: WorkerPool,
    stage: str,
    modules: Sequence[str],
    settings: dict[str, Any],
    upstream: Sequence[str],
    label: str,
    config: PipelineConfig,
    run: Callable[[J], None],
    job: Callable[[TrainingPaths, Path], J],
) -> State[Ref]:
    """A policy from the store, or trained in a worker process that says how far it is.

    Args:
        run: what a worker does with the job.
        job: what to train, given where it leaves its traces and where the policy goes.
    """
    board, title = config.logging.tensorboard, f"{stage} {label}"
    paths: TrainingPaths

    def write(path: Path) -> None:
        pool.result(pool.submit(run, job(paths, path)), _progress_logger(paths, title))

    key, _ = stage_key(stage, modules, settings, upstream, write)
    paths = TrainingPaths(
        store.root / "checkpoints" / key, config.hardware.device, board and board / f"{title.replace(' ', '-')}-{key[:8]}"
    )
    return run_stage(store, stage, modules, settings, upstream, ".zip", write, label)


@task(name="train-member", task_run_name="train fold {fold.index} member {member}", cache_policy=NO_CACHE)
def train_member(store: Store, pool: WorkerPool, bars: Ref, features: Ref, fold: Fold, member: int, config: PipelineConfig) -> State[Ref]:
    """Train one policy."""
    seed = seed_integer(config.seed, "train", fold.index, member)

    def job(paths: TrainingPaths, path: Path) -> MemberJob:
        return MemberJob(
            bars=store.path(bars), features=store.path(features), fold=fold, env=config.env, training=config.training,
            checkpoint=config.checkpoint, seed=seed, paths=paths, target=path,
        )  # fmt: skip

    settings = training_settings(fold, config.env, config.training, config.hardware.device, seed)
    label = f"fold {fold.index} member {member}"
    modules = ["ploutos.training.jobs", "ploutos.training.pool"]
    return train_stage(store, pool, "policy", modules, settings, [fold.data_sha256], label, config, run_job, job)


def _progress_logger(paths: TrainingPaths, label: str) -> Callable[[], None]:
    """A function that logs a member's progress whenever it passed another tenth."""
    logger, logged = get_run_logger(), [0]

    def log() -> None:
        progress = read_progress(paths)
        if progress is None:
            return
        tenth = 10 * progress["steps"] // progress["total"]
        if tenth > logged[0]:
            logged[0] = tenth
            logger.info(
                "%s: %d of %d steps, %d steps/s, mean episode reward %s",
                label, progress["steps"], progress["total"], progress["steps_per_second"], progress["mean_episode_reward"],
            )  # fmt: skip

    return log
