"""Phase 1: bars and features."""

from pathlib import Path

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from ploutos.features.build import FeatureSpec, build_features, read_features, write_features
from ploutos.market.bars import read_bars, write_bars
from ploutos.market.sources import DataSpec, fingerprint, load
from ploutos.store import Ref, Store
from ploutos.training.folds import FoldSpec, plan_folds, write_folds
from tasks.stage import run_stage


@task(name="load-bars", cache_policy=NO_CACHE)
def load_bars(store: Store, spec: DataSpec) -> State[Ref]:
    """Read, check, adjust and align the bars of a source."""

    def write(path: Path) -> None:
        write_bars(load(spec), path)

    settings = spec.model_dump(mode="json", exclude={"path"})
    return run_stage(store, "bars", ["ploutos.market.sources"], settings, fingerprint(spec), ".parquet", write)


@task(name="build-features", cache_policy=NO_CACHE)
def features_of(store: Store, bars: Ref, spec: FeatureSpec) -> State[Ref]:
    """Compute the features of all symbols."""

    def write(path: Path) -> None:
        write_features(build_features(read_bars(store.path(bars)), spec), path)

    return run_stage(store, "features", ["ploutos.features.build"], spec.model_dump(mode="json"), [bars.sha256], ".parquet", write)


@task(name="plan-folds", cache_policy=NO_CACHE)
def folds_of(store: Store, bars: Ref, features: Ref, spec: FoldSpec) -> State[Ref]:
    """Lay out the walk-forward folds."""

    def write(path: Path) -> None:
        write_folds(plan_folds(read_bars(store.path(bars)), read_features(store.path(features)), spec), path)

    upstream = [bars.sha256, features.sha256]
    return run_stage(store, "folds", ["ploutos.training.folds"], spec.model_dump(mode="json"), upstream, ".json", write)
