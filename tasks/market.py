"""Phase 1: bars, features and folds."""

from datetime import date
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.features.build import FEATURES, FeatureSet, FeatureSpec
from ploutos.features.macro_features import features_with_macro
from ploutos.market import download
from ploutos.market.bars import BARS
from ploutos.market.data_spec import TEXT_SETTINGS, DataSpec
from ploutos.market.dataset import Dataset
from ploutos.market.loader import fingerprint, load
from ploutos.market.quality import require_sound
from ploutos.market.quality_report import QUALITY
from ploutos.market.sources import files
from ploutos.market.sources.connect import connect
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.walk_forward import FOLDS, Fold, FoldSpec, plan_folds
from tasks.slots import slot
from tasks.stage import run_stage


@task(name="load-bars", cache_policy=NO_CACHE)
def load_bars(store: Store, spec: DataSpec, datasets: Path) -> State[Ref]:
    """Read, check, adjust and align the bars of a source."""
    settings = spec.model_dump(mode="json", exclude={"path", "macro", "macro_provider", *TEXT_SETTINGS})
    return run_stage(store, "bars", BARS, settings, fingerprint(spec, datasets), lambda: load(spec, datasets))


@task(name="inspect-bars", cache_policy=NO_CACHE)
def quality_of(store: Store, bars: Ref) -> State[Ref]:
    """Look for gaps, bad ticks, suspected splits and the like; errors stop here, warnings travel into the report."""
    return run_stage(store, "quality", QUALITY, {}, [bars.sha256], lambda: require_sound(store.load(bars, BARS)))


@task(name="build-features", cache_policy=NO_CACHE)
def features_of(store: Store, bars: Ref, spec: FeatureSpec, data: DataSpec) -> State[Ref]:
    """Compute the features of all symbols, with macro columns where a file of them is given."""

    def compute() -> FeatureSet:
        return features_with_macro(store.load(bars, BARS), spec, data.macro, data.macro_provider)

    settings = {"features": spec.model_dump(mode="json"), "macro_provider": data.macro_provider}
    upstream = [bars.sha256, *files.digests(data.macro)] if data.macro else [bars.sha256]
    return run_stage(store, "features", FEATURES, settings, upstream, compute)


@task(name="plan-folds", cache_policy=NO_CACHE)
def folds_of(store: Store, bars: Ref, features: Ref, spec: FoldSpec) -> State[Ref]:
    """Lay out the walk-forward folds."""

    def compute() -> tuple[Fold, ...]:
        return plan_folds(store.load(bars, BARS), store.load(features, FEATURES), spec)

    return run_stage(store, "folds", FOLDS, spec.model_dump(mode="json"), [bars.sha256, features.sha256], compute)


@task(name="download-bars", cache_policy=NO_CACHE)
def download_bars(spec: DataSpec, start: date | None, end: date | None, allow_partial: bool) -> list[dict[str, Any]]:
    """Bring the local dataset up to date, or download what it lacks of a span.

    Args:
        start: first day of the span; None updates what is stored.
        end: exclusive; None means now.

    Returns:
        A row per symbol, those that failed among them.
    """
    settings, logger = Settings(), get_run_logger()
    dataset, vendor = Dataset(settings.datasets_root), connect(spec, settings)

    def told(symbol: str, rows: int, pages: int) -> None:
        logger.info("%s: %d bars, %d pages", symbol, rows, pages)

    with slot("vendor"):
        return download.bring(dataset, vendor, spec, start, end, told, allow_partial=allow_partial).table()
