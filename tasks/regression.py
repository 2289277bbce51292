"""Phase 2, beside the policies: one task per fold and supervised model."""

from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from ploutos.config import PipelineConfig
from ploutos.features.build import FEATURES
from ploutos.market.bars import BARS
from ploutos.seeding import seed_integer
from ploutos.store import Ref, Store
from ploutos.strategies.regression import REGRESSION, Regression, fit_regression, fit_teacher
from ploutos.strategies.spec import RegressionKind
from ploutos.training.teacher import TEACHER, Teacher
from ploutos.walk_forward import Fold
from tasks.stage import run_stage


@task(name="fit-regression", task_run_name="fit {kind} of fold {fold.index}", cache_policy=NO_CACHE)
def fit_regression_of(store: Store, bars: Ref, features: Ref, fold: Fold, kind: RegressionKind, config: PipelineConfig) -> State[Ref]:
    """Fit one supervised model on a fold's training range."""
    seed = seed_integer(config.seed, "regression", fold.index)

    def compute() -> Regression:
        panel, values = store.load(bars, BARS), store.load(features, FEATURES)
        return fit_regression(panel, values, fold, config.env, config.regression, kind, seed)

    settings = _settings(fold, config, seed) | {"kind": kind}
    return run_stage(store, f"regression-{kind}", REGRESSION, settings, [fold.data_sha256], compute, f"fold {fold.index}")


@task(name="fit-teacher", task_run_name="fit the teacher of fold {fold.index}", cache_policy=NO_CACHE)
def fit_teacher_of(store: Store, bars: Ref, features: Ref, fold: Fold, config: PipelineConfig) -> State[Ref]:
    """Fit the supervised model that a fold's policies start from, on what they learn from."""
    seed = seed_integer(config.seed, "teacher", fold.index)

    def compute() -> Teacher:
        panel, values = store.load(bars, BARS), store.load(features, FEATURES)
        return fit_teacher(panel, values, fold, config.env, config.training, config.regression, seed)

    stopping = config.training.stopping.model_dump(mode="json", include={"enabled", "validation_share"})
    settings = _settings(fold, config, seed) | {"kind": config.training.taught_by, "stopping": stopping}
    return run_stage(store, "teacher", TEACHER, settings, [fold.data_sha256], compute, f"fold {fold.index}")


def _settings(fold: Fold, config: PipelineConfig, seed: int) -> dict[str, Any]:
    """What decides a fitted model, but for its kind."""
    return {
        "fold": fold.model_dump(mode="json", exclude={"index", "test"}),
        "env": config.env.model_dump(mode="json"),
        "regression": config.regression.model_dump(mode="json", exclude={"enabled", "models"}),
        "seed": seed,
    }
