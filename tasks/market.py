"""Phase 1: bars, features and folds."""

from pathlib import Path

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from ploutos.features.build import FEATURES, FeatureSet, FeatureSpec, build_features
from ploutos.features.macro_features import macro_of
from ploutos.market.bars import BARS
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import fingerprint, load
from ploutos.market.quality import require_sound
from ploutos.market.quality_report import QUALITY
from ploutos.market.sources import files
from ploutos.store import Ref, Store
from ploutos.walk_forward import FOLDS, Fold, FoldSpec, plan_folds
from tasks.stage import run_stage


@task(name="load-bars", cache_policy=NO_CACHE)
def load_bars(store: Store, spec: DataSpec, datasets: Path) -> State[Ref]:
    """Read, check, adjust and align the bars of a source."""
    settings = spec.model_dump(mode="json", exclude={"path", "macro", "macro_provider"})
    return run_stage(store, "bars", BARS, settings, fingerprint(spec, datasets), lambda: load(spec, datasets))


@task(name="inspect-bars", cache_policy=NO_CACHE)
def quality_of(store: Store, bars: Ref) -> State[Ref]:
    """Look for gaps, bad ticks, suspected splits and the like; errors stop here, warnings travel into the report."""
    return run_stage(store, "quality", QUALITY, {}, [bars.sha256], lambda: require_sound(store.load(bars, BARS)))


@task(name="build-features", cache_policy=NO_CACHE)
def features_of(store: Store, bars: Ref, spec: FeatureSpec, data: DataSpec) -> State[Ref]:
    """Compute the features of all symbols, with macro columns where a file of them is given."""

    def compute() -> FeatureSet:
        panel = store.load(bars, BARS)
        return build_features(panel, spec, macro_of(data.macro, panel, data.macro_provider))

    settings = {"features": spec.model_dump(mode="json"), "macro_provider": data.macro_provider}
    upstream = [bars.sha256, *files.digests(data.macro)] if data.macro else [bars.sha256]
    return run_stage(store, "features", FEATURES, settings, upstream, compute)


@task(name="plan-folds", cache_policy=NO_CACHE)
def folds_of(store: Store, bars: Ref, features: Ref, spec: FoldSpec) -> State[Ref]:
    """Lay out the walk-forward folds."""

    def compute() -> tuple[Fold, ...]:
        return plan_folds(store.load(bars, BARS), store.load(features, FEATURES), spec)

    return run_stage(store, "folds", FOLDS, spec.model_dump(mode="json"), [bars.sha256, features.sha256], compute)
