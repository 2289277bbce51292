"""Phase 2: one task per fold and member."""

from collections.abc import Callable
from pathlib import Path

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.config import PipelineConfig
from ploutos.seeding import seed_integer
from ploutos.store import Ref, Store
from ploutos.training.folds import Fold
from ploutos.training.jobs import MemberJob, read_progress, run_job
from ploutos.training.pool import WorkerPool
from ploutos.training.ppo import Workplace
from tasks.stage import run_stage, stage_key

_MODULES = ["ploutos.training.ppo"]


@task(name="train-member", task_run_name="train fold {fold.index} member {member}", cache_policy=NO_CACHE)
def train_member(store: Store, pool: WorkerPool, bars: Ref, features: Ref, fold: Fold, member: int, config: PipelineConfig) -> State[Ref]:
    """Train one policy in a worker process and say how far it is."""
    seed = seed_integer(config.seed, "train", fold.index, member)
    settings = {
        "fold": fold.model_dump(mode="json", exclude={"index", "test"}),
        "env": config.env.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json", exclude={"members"}),
        "device": config.hardware.device,
        "seed": seed,
    }
    upstream = [fold.data_sha256]
    key, _ = stage_key("policy", _MODULES, settings, upstream)
    board = config.logging.tensorboard
    place = Workplace(
        store.root / "checkpoints" / key, config.hardware.device, board and board / f"fold{fold.index}-member{member}-{key[:8]}"
    )

    def write(path: Path) -> None:
        job = MemberJob(
            bars=store.path(bars), features=store.path(features), fold=fold, env=config.env, training=config.training,
            checkpoint=config.checkpoint, seed=seed, place=place, target=path,
        )  # fmt: skip
        pool.result(pool.submit(run_job, job), _progress_logger(place, f"fold {fold.index} member {member}"))

    return run_stage(store, "policy", _MODULES, settings, upstream, ".zip", write, f"fold {fold.index} member {member}")


def _progress_logger(place: Workplace, label: str) -> Callable[[], None]:
    """A function that logs a member's progress whenever it passed another tenth."""
    logger, logged = get_run_logger(), [0]

    def log() -> None:
        progress = read_progress(place)
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
