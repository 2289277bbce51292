"""Phase 1: bars and features."""

from pathlib import Path

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from ploutos.features.build import FeatureSpec, build_features, read_features, write_features
from ploutos.features.macro_features import macro_columns
from ploutos.market.bars import read_bars, write_bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import fingerprint, load
from ploutos.market.macro import read_macro
from ploutos.market.quality import inspect_bars
from ploutos.market.quality_report import symbol_rows
from ploutos.market.sources import files
from ploutos.store import Ref, Store, write_json
from ploutos.walk_forward import FoldSpec, plan_folds, write_folds
from tasks.stage import run_stage


@task(name="load-bars", cache_policy=NO_CACHE)
def load_bars(store: Store, spec: DataSpec, datasets: Path) -> State[Ref]:
    """Read, check, adjust and align the bars of a source."""

    def write(path: Path) -> None:
        write_bars(load(spec, datasets), path)

    settings = spec.model_dump(mode="json", exclude={"path", "macro", "macro_provider"})
    return run_stage(store, "bars", ["ploutos.market.loader"], settings, fingerprint(spec, datasets), ".parquet", write)


@task(name="inspect-bars", cache_policy=NO_CACHE)
def quality_of(store: Store, bars: Ref) -> State[Ref]:
    """Look for gaps, bad ticks, suspected splits and the like; errors stop here, warnings travel into the report."""

    def write(path: Path) -> None:
        found = inspect_bars(read_bars(store.path(bars)))
        found.raise_errors()
        write_json(path, {"symbols": symbol_rows(found), "warnings": found.warnings})

    return run_stage(store, "quality", ["ploutos.market.quality"], {}, [bars.sha256], ".json", write)


@task(name="build-features", cache_policy=NO_CACHE)
def features_of(store: Store, bars: Ref, spec: FeatureSpec, data: DataSpec) -> State[Ref]:
    """Compute the features of all symbols, with macro columns where a file of them is given."""

    def write(path: Path) -> None:
        panel = read_bars(store.path(bars))
        macro = None if data.macro is None else macro_columns(read_macro(data.macro), panel, data.macro_provider)
        write_features(build_features(panel, spec, macro), path)

    settings = {"features": spec.model_dump(mode="json"), "macro_provider": data.macro_provider}
    upstream = [bars.sha256, *files.digests(data.macro)] if data.macro else [bars.sha256]
    return run_stage(
        store, "features", ["ploutos.features.build", "ploutos.features.macro_features"], settings, upstream, ".parquet", write
    )


@task(name="plan-folds", cache_policy=NO_CACHE)
def folds_of(store: Store, bars: Ref, features: Ref, spec: FoldSpec) -> State[Ref]:
    """Lay out the walk-forward folds."""

    def write(path: Path) -> None:
        write_folds(plan_folds(read_bars(store.path(bars)), read_features(store.path(features)), spec), path)

    upstream = [bars.sha256, features.sha256]
    return run_stage(store, "folds", ["ploutos.walk_forward"], spec.model_dump(mode="json"), upstream, ".json", write)
