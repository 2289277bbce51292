"""The three phases, as functions that every flow shares; each takes what the phases before it made, and adds to it."""

from dataclasses import replace

from prefect import get_run_logger

from flows.stages import Stages
from ploutos.advisor.texts import READINGS, require_reader
from ploutos.config import PipelineConfig
from ploutos.envs.spec import with_initial_cash
from ploutos.features.build import FEATURES
from ploutos.market.bars import BARS
from ploutos.resolve import resolve_for_machine
from ploutos.run_refs import RunRefs
from ploutos.store import Ref, Store
from ploutos.walk_forward import FOLDS, Fold, fold_table
from tasks.advice import llm_features_of, mirrored_of, signals_of, train_hybrid
from tasks.evaluation import backtest, controls_of, fusion_choice_of, in_sample_of, metrics_of, recombined_of, robustness_of
from tasks.market import features_of, folds_of, load_bars, quality_of
from tasks.registry import candidates_of
from tasks.regression import fit_regression_of, fit_teacher_of
from tasks.texts import readings_of, text_controls_of, texts_beside
from tasks.training import train_member


def all_phases(stages: Stages, config: PipelineConfig) -> tuple[PipelineConfig, RunRefs]:
    """All artifacts of a run, and the configuration with what was left to the machine."""
    refs = phase1(stages, config)
    config = fitted(stages, refs, config)
    return config, phase3(stages, phase2(stages, refs, config), config)


def phase1(stages: Stages, config: PipelineConfig, with_texts: bool = True) -> RunRefs:
    """Bars, their inspection, features and folds.

    Args:
        with_texts: have the language model read those that there are.
    """
    store, data = stages.store, config.data
    bars = stages.run("bars", load_bars, store, data, stages.settings.datasets_root)
    quality = stages.submit(quality_of, store, bars)
    features, readings = observed(stages, bars, config, with_texts=with_texts)
    plan = stages.run("folds", folds_of, store, bars, features, config.folds)
    refs = RunRefs(bars, stages.ref("quality", quality), features, plan, policies=(), readings=readings)
    _log_plan(store, refs)
    return refs


def observed(
    stages: Stages, bars: Ref, config: PipelineConfig, of: str = "", with_texts: bool = True
) -> tuple[Ref, Ref | None]:  # fmt: skip
    """The features that everything that is trained observes, and the readings of texts among them, where there are texts.

    Args:
        of: whose they are, where that is not the run itself.
        with_texts: have the language model read those that there are.
    """
    store, data = stages.store, config.data
    features = stages.run(f"features{of}", features_of, store, bars, config.features, data)
    if data.texts is None or not with_texts:
        return features, None
    readings = stages.run(f"readings{of}", readings_of, store, bars, data.texts, config.llm)
    return stages.run(f"text-features{of}", texts_beside, store, bars, features, readings, data.texts_stand_bars), readings


def fitted(stages: Stages, refs: RunRefs, config: PipelineConfig) -> PipelineConfig:
    """The configuration with what was left to the machine written out."""
    return resolve_for_machine(config, stages.store.load(refs.features, FEATURES)) if config.hardware.left_to_machine else config


def phase2(stages: Stages, refs: RunRefs, config: PipelineConfig) -> RunRefs:
    """Supervised models, teachers and policies of every fold.

    Args:
        config: after `fitted`.
    """
    store = stages.store
    with stages.phase("phase 2", config, without_model=True):
        refs = replace(refs, regressions=_fit(store, refs, config, stages), teachers=_fit_teachers(store, refs, config, stages))
        return replace(refs, policies=_train(store, refs, config, stages))


def phase3(stages: Stages, refs: RunRefs, config: PipelineConfig) -> RunRefs:
    """Advice, hybrid policies, backtests, trials and numbers."""
    if refs.readings is not None:
        require_reader(stages.store.load(refs.readings, READINGS), config.llm)
    with stages.phase("phase 3", config):
        refs = _advise(stages, refs, config)
        if config.with_hybrid:
            with stages.memory.freed("training"):
                hybrids, ablated = _fine_tune(stages.store, refs, config, stages)
            refs = replace(refs, hybrids=hybrids, ablated=ablated)
        return _evaluate(stages, refs, config)


def _advise(stages: Stages, refs: RunRefs, config: PipelineConfig) -> RunRefs:
    """The advisor's features and its answers, on the market and on its mirror."""
    store, bars, plan = stages.store, refs.bars, refs.folds
    refs = replace(refs, llm_features=stages.run("llm-features", llm_features_of, store, bars))
    refs = replace(refs, signals=stages.run("signals", signals_of, store, bars, refs.require("llm_features"), plan, config))
    if config.llm.mirrors:
        refs = replace(
            refs, mirrored=stages.run("mirrored", mirrored_of, store, bars, refs.require("signals"), plan, config.llm, config.env)
        )
    return refs


def _evaluate(stages: Stages, refs: RunRefs, config: PipelineConfig) -> RunRefs:
    """Fusion's choice, every account, stress tests, and what they amount to."""
    store, settings = stages.store, stages.settings
    with stages.memory.freed("backtests"):
        inside_future = stages.submit(in_sample_of, store, refs, config)
        if config.fusion.choose:
            refs = replace(refs, fusion=stages.run("fusion-choice", fusion_choice_of, store, refs, config))
        refs = replace(refs, backtests=stages.run("backtests", backtest, store, refs, config))
        refs = replace(refs, controls=stages.run("advice-controls", controls_of, store, refs, config))
        if refs.readings is not None:
            refs = replace(refs, texts=stages.run("texts", text_controls_of, store, refs, config))
        if config.evaluation.robustness.enabled:
            refs = replace(refs, robustness=stages.run("robustness", robustness_of, store, refs, config))
        if config.evaluation.recombination.enabled and refs.regressions:
            refs = replace(refs, recombined=stages.run("recombined", recombined_of, store, refs, config))
        inside = stages.ref("in-sample", inside_future)
    refs = replace(
        refs, candidates=stages.run("candidates", candidates_of, store, refs, config, settings.registry_root, settings.runs_root)
    )
    known = settings.cutoffs_root, settings.registry_root
    return replace(refs, metrics=stages.run("metrics", metrics_of, store, refs, inside, config, *known))


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
    folds, kinds = store.load(refs.folds, FOLDS), config.supervised
    futures = [[stages.spread(fit_regression_of, store, refs.bars, refs.features, fold, kind, config) for kind in kinds] for fold in folds]
    stages.plan("regression", len(folds) * len(kinds))
    return stages.by_fold("regression", folds, futures) if kinds else ()


def _fit_teachers(store: Store, refs: RunRefs, config: PipelineConfig, stages: Stages) -> tuple[Ref, ...]:
    """The supervised model that each fold's policies start from: one task per fold."""
    folds = _by_fold(store, refs, config) if config.training.is_taught else []
    futures = [stages.spread(fit_teacher_of, store, refs.bars, refs.features, fold, sized) for fold, sized in folds]
    stages.plan("teacher", len(futures))
    return tuple(
        stages.spread_ref("teacher", str(fold.index), future, f"fold {fold.index}")
        for (fold, _), future in zip(folds, futures, strict=True)
    )


def _train(store: Store, refs: RunRefs, config: PipelineConfig, stages: Stages) -> tuple[tuple[Ref, ...], ...]:
    """One task per fold and member, in worker processes."""
    folds, members = _by_fold(store, refs, config), range(config.training.members)
    futures = [
        [stages.spread(train_member, store, refs.bars, refs.features, fold, m, sized, refs.teacher(fold.index)) for m in members]
        for fold, sized in folds
    ]
    stages.plan("policy", len(folds) * len(members))
    return stages.by_fold("policy", [fold for fold, _ in folds], futures)


def _fine_tune(store: Store, refs: RunRefs, config: PipelineConfig, stages: Stages) -> list[tuple[tuple[Ref, ...], ...]]:
    """The hybrid policies and their ablated copies without advice: one task per fold and member, in worker processes."""
    folds, members = _by_fold(store, refs, config), range(config.hybrid.members)
    kinds = {"hybrid": True, "ablated": False}
    futures = {
        name: [[stages.spread(train_hybrid, store, refs, fold, m, sized, advised) for m in members] for fold, sized in folds]
        for name, advised in kinds.items()
    }
    for name in kinds:
        stages.plan(name, len(folds) * len(members))
    return [stages.by_fold(name, [fold for fold, _ in folds], futures[name]) for name in kinds]
