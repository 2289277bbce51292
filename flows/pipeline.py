"""The main job: bars to report, in three phases."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, cast

from prefect import State, Task, flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from ploutos.advisor.advisor import make_advisor
from ploutos.config import HardwareSpec, PipelineConfig
from ploutos.envs.spec import with_initial_cash
from ploutos.features.build import FEATURES
from ploutos.hardware.machine import usable_cores
from ploutos.hardware.monitor import HardwareMonitor
from ploutos.llm.gpu_unload import GPUMemoryManager
from ploutos.market.bars import BARS
from ploutos.resolve import resolve_for_machine
from ploutos.run_refs import RunRefs
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.training.pool import shared_pools
from ploutos.walk_forward import FOLDS, Fold, fold_table
from tasks.advice import llm_features_of, mirrored_of, signals_of, train_hybrid
from tasks.evaluation import backtest, fusion_choice_of, in_sample_of, metrics_of, report, robustness_of
from tasks.market import features_of, folds_of, load_bars, quality_of
from tasks.registry import candidates_of
from tasks.regression import fit_regression_of, fit_teacher_of
from tasks.resources import wait_for_resources
from tasks.training import train_member

P = ParamSpec("P")
_Futures = Sequence[Sequence[PrefectFuture[State[Ref]]]]
DEFAULT = PipelineConfig()


class Stages:
    """Submits tasks, waits for them and keeps, for the manifest, how each stage ended.

    Args:
        runner: where tasks run.
    """

    def __init__(self, runner: TaskRunner[Any]) -> None:
        self._runner = runner
        self.ended: dict[str, str] = {}

    def submit(self, task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[State[Ref]]:
        """Start a task; its arguments are values, so that it may run on another machine."""
        given = inspect.signature(task.fn).bind(*args, **kwargs).arguments
        return cast("PrefectFuture[State[Ref]]", self._runner.submit(task, given))

    def run(self, name: str, task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> Ref:
        """Run a task and wait for its artifact."""
        return self.ref(name, self.submit(task, *args, **kwargs))

    def ref(self, name: str, future: PrefectFuture[State[Ref]]) -> Ref:
        """Wait for a task's artifact."""
        ref = cast(Ref, future.result())  # a task that returns a state gives its data
        self.ended[name] = future.state.name or ""
        return ref

    def by_fold(self, name: str, folds: Sequence[Fold], futures: _Futures) -> tuple[tuple[Ref, ...], ...]:
        """Wait for the members of every fold."""
        return tuple(
            tuple(self.ref(f"{name} {fold.index} {member}", future) for member, future in enumerate(row))
            for fold, row in zip(folds, futures, strict=True)
        )


def make_runner(spec: HardwareSpec) -> TaskRunner[Any]:
    """Where tasks run: threads of this process, which wait for training processes. Made when a flow is called."""
    return cast(TaskRunner[Any], ThreadPoolTaskRunner(max_workers=spec.tasks or usable_cores()))


@flow(name="ploutos-pipeline", persist_result=False)
def pipeline(config: PipelineConfig = DEFAULT) -> Path:
    """Data and features, policies walk-forward, fusion with an advisor; ends in a folder with a report.

    Returns:
        The run's folder.
    """
    settings = Settings()
    store = Store(settings.store_root)
    make_advisor(config.llm, settings)  # a server or a model that is not there ends the run now, not after the training
    with HardwareMonitor(config.hardware.log_interval) as monitor, make_runner(config.hardware) as runner, shared_pools():
        stages = Stages(runner)
        config, refs = phases(store, config, settings, stages)
    return report(store, refs, config, settings.runs_root, stages.ended, monitor.usage)


def phases(store: Store, config: PipelineConfig, settings: Settings, stages: Stages) -> tuple[PipelineConfig, RunRefs]:
    """All artifacts of a run, and the configuration with what was left to the machine."""
    bars = stages.run("bars", load_bars, store, config.data, settings.datasets_root)
    quality = stages.submit(quality_of, store, bars)
    features = stages.run("features", features_of, store, bars, config.features, config.data)
    plan = stages.run("folds", folds_of, store, bars, features, config.folds)
    refs = RunRefs(bars, stages.ref("quality", quality), features, plan, policies=())
    _log_plan(store, refs)
    if config.hardware.left_to_machine:
        config = resolve_for_machine(config, store.load(features, FEATURES))

    wait_for_resources("phase 2", config.pipeline)
    memory = GPUMemoryManager(config.llm, settings)
    with memory.freed("training"):
        refs = replace(refs, regressions=_fit(store, refs, config, stages), teachers=_fit_teachers(store, refs, config, stages))
        refs = replace(refs, policies=_train(store, refs, config, stages))

    wait_for_resources("phase 3", config.pipeline)
    refs = replace(refs, llm_features=stages.run("llm-features", llm_features_of, store, bars))
    refs = replace(refs, signals=stages.run("signals", signals_of, store, bars, refs.require("llm_features"), plan, config))
    if config.llm.mirrors:
        refs = replace(refs, mirrored=stages.run("mirrored", mirrored_of, store, bars, refs.require("signals"), plan, config.llm))
    if config.with_hybrid:
        with memory.freed("training"):
            hybrids, ablated = _fine_tune(store, refs, config, stages)
        refs = replace(refs, hybrids=hybrids, ablated=ablated)
    with memory.freed("backtests"):
        inside_future = stages.submit(in_sample_of, store, refs, config)
        if config.fusion.choose:
            refs = replace(refs, fusion=stages.run("fusion-choice", fusion_choice_of, store, refs, config))
        refs = replace(refs, backtests=stages.run("backtests", backtest, store, refs, config))
        if config.evaluation.robustness.enabled:
            refs = replace(refs, robustness=stages.run("robustness", robustness_of, store, refs, config))
        inside = stages.ref("in-sample", inside_future)
    refs = replace(refs, candidates=stages.run("candidates", candidates_of, store, refs, config, settings.registry_root))
    return config, replace(refs, metrics=stages.run("metrics", metrics_of, store, refs, inside, config, settings.cutoffs_root))


def _log_plan(store: Store, refs: RunRefs) -> None:
    """Print the folds before anything is trained on them."""
    for row in fold_table(store.load(refs.folds, FOLDS), store.load(refs.bars, BARS).timestamps):
        get_run_logger().info("fold %s: train %s, validation %s, test %s", *row.values())


def _by_fold(store: Store, refs: RunRefs, config: PipelineConfig) -> list[tuple[Fold, PipelineConfig]]:
    """Every fold, with an initial cash for its training range: bars that come later change no policy and no key of one."""
    bars, folds = store.load(refs.bars, BARS), store.load(refs.folds, FOLDS)
    return [(fold, config.model_copy(update={"env": with_initial_cash(config.env, bars, fold.train)})) for fold in folds]


def _fit(store: Store, refs: RunRefs, config: PipelineConfig, stages: Stages) -> tuple[tuple[Ref, ...], ...]:
    """The supervised models: one task per fold and kind."""
    folds, kinds = store.load(refs.folds, FOLDS), config.regression.models if config.regression.enabled else ()
    futures = [[stages.submit(fit_regression_of, store, refs.bars, refs.features, fold, kind, config) for kind in kinds] for fold in folds]
    return stages.by_fold("regression", folds, futures) if kinds else ()


def _fit_teachers(store: Store, refs: RunRefs, config: PipelineConfig, stages: Stages) -> tuple[Ref, ...]:
    """The supervised model that each fold's policies start from: one task per fold."""
    folds = _by_fold(store, refs, config) if config.training.is_taught else []
    futures = [stages.submit(fit_teacher_of, store, refs.bars, refs.features, fold, sized) for fold, sized in folds]
    return tuple(stages.ref(f"teacher {fold.index}", future) for (fold, _), future in zip(folds, futures, strict=True))


def _train(store: Store, refs: RunRefs, config: PipelineConfig, stages: Stages) -> tuple[tuple[Ref, ...], ...]:
    """One task per fold and member, in worker processes."""
    folds, members = _by_fold(store, refs, config), range(config.training.members)
    futures = [
        [stages.submit(train_member, store, refs.bars, refs.features, fold, m, sized, refs.teacher(fold.index)) for m in members]
        for fold, sized in folds
    ]
    return stages.by_fold("policy", [fold for fold, _ in folds], futures)


def _fine_tune(store: Store, refs: RunRefs, config: PipelineConfig, stages: Stages) -> list[tuple[tuple[Ref, ...], ...]]:
    """The hybrid policies and their ablated copies without advice: one task per fold and member, in worker processes."""
    folds, members = _by_fold(store, refs, config), range(config.hybrid.members)
    kinds = {"hybrid": True, "ablated": False}
    futures = {
        name: [[stages.submit(train_hybrid, store, refs, fold, m, sized, advised) for m in members] for fold, sized in folds]
        for name, advised in kinds.items()
    }
    return [stages.by_fold(name, [fold for fold, _ in folds], futures[name]) for name in kinds]
