"""The main job: bars to report, in three phases."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from prefect import State, flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from ploutos.advisor.advisor import make_advisor
from ploutos.config import PipelineConfig
from ploutos.envs.spec import with_initial_cash
from ploutos.features.build import read_features
from ploutos.hardware.machine import usable_cores
from ploutos.hardware.monitor import HardwareMonitor
from ploutos.llm.gpu_unload import GPUMemoryManager
from ploutos.market.bars import read_bars
from ploutos.resolve import resolve_for_machine
from ploutos.run_refs import RunRefs
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.training.pool import WorkerPool
from ploutos.walk_forward import Fold, fold_table, read_folds
from tasks.advice import llm_features_of, mirrored_of, signals_of, train_hybrid
from tasks.evaluation import backtest, fusion_choice_of, in_sample_of, metrics_of, report
from tasks.market import features_of, folds_of, load_bars, quality_of
from tasks.resources import wait_for_resources
from tasks.training import train_member

DEFAULT = PipelineConfig()
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=usable_cores())


class _Stages:
    """Waits for futures and keeps, for the manifest, how each stage ended."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}

    def ref(self, name: str, future: PrefectFuture[State[Ref]]) -> Ref:
        ref = cast(Ref, future.result())  # a task that returns a state gives its data
        self.ended[name] = future.state.name or ""
        return ref


@flow(name="ploutos-pipeline", task_runner=_RUNNER, persist_result=False)
def pipeline(config: PipelineConfig = DEFAULT) -> Path:
    """Data and features, policies walk-forward, fusion with an advisor; ends in a folder with a report.

    Returns:
        The run's folder.
    """
    with HardwareMonitor(config.hardware.log_interval) as monitor:
        return _phases(config, monitor)


def _phases(config: PipelineConfig, monitor: HardwareMonitor) -> Path:
    settings, stages = Settings(), _Stages()
    store = Store(settings.store_root)
    make_advisor(config.llm, settings)  # a server or a model that is not there ends the run now, not after the training

    bars = stages.ref("bars", load_bars.submit(store, config.data, settings.datasets_root))
    quality = quality_of.submit(store, bars)
    features = stages.ref("features", features_of.submit(store, bars, config.features, config.data))
    plan = stages.ref("folds", folds_of.submit(store, bars, features, config.folds))
    refs = RunRefs(bars, stages.ref("quality", quality), features, plan, policies=())
    _log_plan(store, refs)
    if config.hardware.left_to_machine:
        config = resolve_for_machine(config, read_features(store.path(features)))

    wait_for_resources("phase 2", config.pipeline)
    memory = GPUMemoryManager(config.llm, settings)
    with memory.freed("training"):
        refs = replace(refs, policies=_train(store, refs, config, stages))

    wait_for_resources("phase 3", config.pipeline)
    llm_features = stages.ref("llm-features", llm_features_of.submit(store, bars))
    signals = stages.ref("signals", signals_of.submit(store, bars, llm_features, plan, config, settings))
    refs = replace(refs, llm_features=llm_features, signals=signals)
    if config.llm.mirrors:
        refs = replace(refs, mirrored=stages.ref("mirrored", mirrored_of.submit(store, bars, signals, plan, config.llm, settings)))
    if config.with_hybrid:
        with memory.freed("training"):
            hybrids, ablated = _fine_tune(store, refs, config, stages)
        refs = replace(refs, hybrids=hybrids, ablated=ablated)
    with memory.freed("backtests"):
        inside_future = in_sample_of.submit(store, refs, config)
        if config.fusion.choose:
            refs = replace(refs, fusion=stages.ref("fusion-choice", fusion_choice_of.submit(store, refs, config)))
        refs = replace(refs, backtests=stages.ref("backtests", backtest.submit(store, refs, config)))
        inside = stages.ref("in-sample", inside_future)
    refs = replace(refs, metrics=stages.ref("metrics", metrics_of.submit(store, refs, inside, config, settings.cutoffs_root)))
    return report(store, refs, config, settings.runs_root, stages.ended, monitor)


def _log_plan(store: Store, refs: RunRefs) -> None:
    """Print the folds before anything is trained on them."""
    for row in fold_table(read_folds(store.path(refs.folds)), read_bars(store.path(refs.bars)).timestamps):
        get_run_logger().info("fold %s: train %s, validation %s, test %s", *row.values())


def _by_fold(store: Store, refs: RunRefs, config: PipelineConfig) -> list[tuple[Fold, PipelineConfig]]:
    """Every fold, with an initial cash for its training range: bars that come later change no policy and no key of one."""
    bars, folds = read_bars(store.path(refs.bars)), read_folds(store.path(refs.folds))
    return [(fold, config.model_copy(update={"env": with_initial_cash(config.env, bars, fold.train)})) for fold in folds]


def _train(store: Store, refs: RunRefs, config: PipelineConfig, stages: _Stages) -> tuple[tuple[Ref, ...], ...]:
    """One task per fold and member, in worker processes."""
    folds, members = _by_fold(store, refs, config), range(config.training.members)
    with WorkerPool(config.hardware.workers or usable_cores()) as pool:
        futures = [
            [train_member.submit(store, pool, refs.bars, refs.features, fold, member, sized) for member in members] for fold, sized in folds
        ]
        return tuple(
            tuple(stages.ref(f"policy {fold.index} {member}", future) for member, future in enumerate(row))
            for (fold, _), row in zip(folds, futures, strict=True)
        )


def _fine_tune(store: Store, refs: RunRefs, config: PipelineConfig, stages: _Stages) -> list[tuple[tuple[Ref, ...], ...]]:
    """The hybrid policies and their ablated copies without advice: one task per fold and member, in worker processes."""
    folds, members = _by_fold(store, refs, config), range(config.hybrid.members)
    kinds = {"hybrid": True, "ablated": False}
    with WorkerPool(config.hardware.workers or usable_cores()) as pool:
        futures = {
            name: [[train_hybrid.submit(store, pool, refs, fold, member, sized, advised) for member in members] for fold, sized in folds]
            for name, advised in kinds.items()
        }
        return [
            tuple(
                tuple(stages.ref(f"{name} {fold.index} {member}", future) for member, future in enumerate(row))
                for (fold, _), row in zip(folds, futures[name], strict=True)
            )
            for name in kinds
        ]
