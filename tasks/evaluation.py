"""Evaluation: backtests, numbers, and the run's folder with its report."""

from functools import partial
from pathlib import Path
from typing import TypeVar

from prefect import State, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from ploutos.advisor.cutoff import known_cutoff
from ploutos.advisor.signals import SIGNALS
from ploutos.advisor.texts import READINGS
from ploutos.config import PipelineConfig
from ploutos.evaluation.advice_controls import CONTROLS, control_advice
from ploutos.evaluation.backtest import BACKTESTS, Backtests
from ploutos.evaluation.candidates import CANDIDATES
from ploutos.evaluation.experiment import (
    IN_SAMPLE,
    Deciders,
    InSample,
    features_of_run,
    in_sample,
    out_of_sample,
    stressed_slugs,
    supervised_and_oracle,
    with_hybrids,
)
from ploutos.evaluation.fusion_selection import choose_fusion
from ploutos.evaluation.judgement import Findings, judged
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.recombination import RECOMBINED, recombine
from ploutos.evaluation.replay import own_env
from ploutos.evaluation.robustness import ROBUSTNESS, robustness
from ploutos.evaluation.summary import SUMMARY, AdviceControls, Recombined, Robustness, RunSummary
from ploutos.features.build import FEATURES
from ploutos.features.llm_features import MARKET_FEATURES
from ploutos.fusion.calibration import CHOICES, FusionChoice
from ploutos.hardware.monitor import Usage
from ploutos.market.bars import BARS
from ploutos.market.data_spec import is_planted
from ploutos.market.loader import synthetic_spec
from ploutos.market.sources import files
from ploutos.nightly.forward_log import ForwardLog
from ploutos.nightly.night import logged_sessions
from ploutos.progress import Progress, tell, working
from ploutos.reporting.report import fold_rows, render_markdown
from ploutos.reporting.run_folder import write_run
from ploutos.reporting.verdict import verdict
from ploutos.run_manifest import Asked
from ploutos.run_refs import RunRefs
from ploutos.store import Kind, Ref, Store
from ploutos.strategies.ensemble import HYBRID, HYBRID_ABLATED
from ploutos.strategies.regression import REGRESSION
from ploutos.training.checkpoint import StoredPolicies
from ploutos.walk_forward import FOLDS
from tasks.away import only_shown
from tasks.links import link_to
from tasks.stage import run_stage

T = TypeVar("T")
_Policies = tuple[tuple[Ref, ...], ...]


def _stored(store: Store, policies: _Policies) -> list[StoredPolicies]:
    return [StoredPolicies(tuple(store.path(ref) for ref in members)) for members in policies]


def _digests(policies: _Policies) -> list[str]:
    return [ref.sha256 for members in policies for ref in members]


def _if_any(store: Store, ref: Ref | None, kind: Kind[T]) -> T | None:
    """The value of what not every run has."""
    return None if ref is None else store.load(ref, kind)


def _sha256_of(*found: Ref | None) -> list[str]:
    """Of what a run has of several things that not every run has."""
    return ["" if ref is None else ref.sha256 for ref in found]


def _upstream(refs: RunRefs) -> list[str]:
    return [refs.bars.sha256, refs.features.sha256, refs.folds.sha256, *_digests(refs.policies)]


@task(name="choose-fusion", cache_policy=NO_CACHE)
def fusion_choice_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Calibrate confidence and choose fusion's parameters on every fold's validation range."""
    signals = refs.require("signals")

    def compute() -> tuple[FusionChoice, ...]:
        bars, features, folds = store.load(refs.bars, BARS), store.load(refs.features, FEATURES), store.load(refs.folds, FOLDS)
        advice = store.load(signals, SIGNALS)
        return choose_fusion(bars, features, folds, _stored(store, refs.policies), advice, config.env, config.fusion)

    settings = {"env": config.env.model_dump(mode="json"), "fusion": config.fusion.model_dump(mode="json")}
    return run_stage(store, "fusion-choice", CHOICES, settings, [*_upstream(refs), signals.sha256], compute)


@task(name="backtest", cache_policy=NO_CACHE)
def backtest(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Run every strategy over all test ranges."""
    signals, data = refs.require("signals"), config.data

    def compute() -> Backtests:
        bars, features, folds = store.load(refs.bars, BARS), store.load(refs.features, FEATURES), store.load(refs.folds, FOLDS)
        advice, market = store.load(signals, SIGNALS), store.load(refs.require("llm_features"), MARKET_FEATURES)
        models = [[store.load(ref, REGRESSION) for ref in kinds] for kinds in refs.regressions]
        result = out_of_sample(
            bars, features, folds, _stored(store, refs.policies), advice, config.env, config.fusion, config.seed,
            choices=_if_any(store, refs.fusion, CHOICES) or (), mirrored=_if_any(store, refs.mirrored, SIGNALS),
            placebo_draws=config.evaluation.placebo_draws, others=supervised_and_oracle(bars, features, folds, models, data, config.env),
        )  # fmt: skip
        hybrids = {HYBRID: (_stored(store, refs.hybrids), advice), HYBRID_ABLATED: (_stored(store, refs.ablated), None)}
        return with_hybrids(result, bars, features, folds, market, hybrids, config.env)

    settings = {"env": config.env.model_dump(mode="json"), "fusion": config.fusion.model_dump(mode="json"), "seed": config.seed}
    settings |= {"placebo_draws": config.evaluation.placebo_draws}
    settings |= {"planted": synthetic_spec(data).model_dump(mode="json") if is_planted(data) else None}
    upstream = [*_upstream(refs), signals.sha256, *_digests(refs.regressions), *_digests(refs.hybrids), *_digests(refs.ablated)]
    upstream += [*_sha256_of(refs.fusion, refs.mirrored)]
    return run_stage(store, "backtests", BACKTESTS, settings, upstream, compute)


@task(name="advice-controls", cache_policy=NO_CACHE)
def controls_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Rank the advice among shifted copies of itself, and hold both sides' confidences against what happened."""
    signals = refs.require("signals")

    def compute() -> AdviceControls:
        bars, features, folds = store.load(refs.bars, BARS), store.load(refs.features, FEATURES), store.load(refs.folds, FOLDS)
        return control_advice(
            bars, features, folds, _stored(store, refs.policies), store.load(signals, SIGNALS), config.env, config.fusion, config.seed,
            config.evaluation.rank_draws, _if_any(store, refs.fusion, CHOICES) or (),
        )  # fmt: skip

    settings = {"env": config.env.model_dump(mode="json"), "fusion": config.fusion.model_dump(mode="json"), "seed": config.seed}
    settings |= {"draws": config.evaluation.rank_draws}
    return run_stage(store, "advice-controls", CONTROLS, settings, [*_upstream(refs), signals.sha256, *_sha256_of(refs.fusion)], compute)


@task(name="in-sample", cache_policy=NO_CACHE)
def in_sample_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Run every member over its own training and validation ranges."""

    def compute() -> tuple[InSample, ...]:
        bars, features, folds = store.load(refs.bars, BARS), store.load(refs.features, FEATURES), store.load(refs.folds, FOLDS)
        return in_sample(bars, features, folds, _stored(store, refs.policies), config.env)

    return run_stage(store, "in-sample", IN_SAMPLE, {"env": config.env.model_dump(mode="json")}, _upstream(refs), compute)


@task(name="robustness", cache_policy=NO_CACHE)
def robustness_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Put every decider through stress tests."""
    signals, backtests, data = refs.require("signals"), refs.require("backtests"), config.data

    def compute() -> tuple[Robustness, ...]:
        bars, folds, accounts = store.load(refs.bars, BARS), store.load(refs.folds, FOLDS), store.load(backtests, BACKTESTS)
        features = partial(features_of_run, spec=config.features, data=data, readings=_if_any(store, refs.readings, READINGS))
        decider = Deciders(
            folds, _stored(store, refs.policies), _stored(store, refs.hybrids),
            [[store.load(ref, REGRESSION) for ref in kinds] for kinds in refs.regressions], store.load(signals, SIGNALS),
            _if_any(store, refs.fusion, CHOICES) or (), own_env(accounts, config.env), config.fusion, config.seed, features,
        )  # fmt: skip
        return robustness(bars, accounts, stressed_slugs(accounts), config.env, config.evaluation.robustness, config.seed, decider=decider)

    settings = {"env": config.env.model_dump(mode="json"), "fusion": config.fusion.model_dump(mode="json"), "seed": config.seed}
    settings |= {"robustness": config.evaluation.robustness.model_dump(mode="json")}
    settings |= {"features": config.features.model_dump(mode="json"), "macro_provider": data.macro_provider}
    upstream = [
        *_upstream(refs),
        signals.sha256,
        backtests.sha256,
        *_digests((*refs.regressions, *refs.hybrids)),
        *_sha256_of(refs.fusion),
        *(files.digests(data.macro) if data.macro else []),
        *([refs.readings.sha256, str(data.texts_stand_bars)] if refs.readings else []),
    ]
    return run_stage(store, "robustness", ROBUSTNESS, settings, upstream, compute)


@task(name="recombine", cache_policy=NO_CACHE)
def recombined_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Score the linear models over recombined test bars."""
    first = refs.regressions[0]

    def compute() -> tuple[Recombined, ...]:
        bars, features, folds = store.load(refs.bars, BARS), store.load(refs.features, FEATURES), store.load(refs.folds, FOLDS)
        models = [store.load(ref, REGRESSION) for ref in first]
        return recombine(bars, features, folds, models, config.env, config.regression, config.folds, config.evaluation.recombination)

    parts = {"env": config.env, "regression": config.regression, "folds": config.folds, "spec": config.evaluation.recombination}
    settings = {name: part.model_dump(mode="json") for name, part in parts.items()}
    upstream = [refs.bars.sha256, refs.features.sha256, refs.folds.sha256, *_digests((first,))]
    return run_stage(store, "recombined", RECOMBINED, settings, upstream, compute)


@task(name="metrics", cache_policy=NO_CACHE)
def metrics_of(store: Store, refs: RunRefs, inside: Ref, config: PipelineConfig, cutoffs_root: Path, registry_root: Path) -> State[Ref]:
    """Measure every strategy, with intervals."""
    signals, backtests, tried = refs.require("signals"), refs.require("backtests"), refs.require("candidates")
    known = known_cutoff(config.llm, store.load(signals, SIGNALS).digest, cutoffs_root)
    known = known.model_copy(update={"logged": logged_sessions(store, refs, config, ForwardLog(registry_root))})
    reduced, reads_texts = config.training.timesteps_reduction < 1, refs.readings is not None

    def compute() -> RunSummary:
        bars, folds, rows = store.load(refs.bars, BARS), store.load(refs.folds, FOLDS), store.load(inside, IN_SAMPLE)
        accounts, advice = store.load(backtests, BACKTESTS), store.load(signals, SIGNALS)
        measured = summarise(
            accounts, bars, folds, rows, advice, config.evaluation, config.seed, reduced, known=known,
            mirrored=_if_any(store, refs.mirrored, SIGNALS), subject=config.evaluation.subject, reads_texts=reads_texts,
        )  # fmt: skip
        found = Findings(
            _if_any(store, refs.fusion, CHOICES) or (), _if_any(store, refs.robustness, ROBUSTNESS) or (),
            _if_any(store, refs.controls, CONTROLS), _if_any(store, refs.recombined, RECOMBINED) or (),
        )  # fmt: skip
        return judged(
            measured, found, accounts, bars, folds, store.load(tried, CANDIDATES), config.env, config.evaluation.gates, config.seed,
            reads_texts=reads_texts,
        )  # fmt: skip

    settings = {
        "evaluation": config.evaluation.model_dump(mode="json", exclude={"robustness", "recombination", "rank_draws"}),
        "seed": config.seed,
        "reduced": reduced,
    }
    settings |= {"known": known.model_dump(mode="json"), "env": config.env.model_dump(mode="json")}
    settings |= {"reads_texts": True} if reads_texts else {}
    upstream = [refs.bars.sha256, refs.folds.sha256, signals.sha256, backtests.sha256, inside.sha256, tried.sha256]
    return run_stage(
        store, "metrics", SUMMARY, settings,
        [*upstream, *_sha256_of(refs.fusion, refs.mirrored, refs.robustness, refs.controls, refs.recombined)], compute,
    )  # fmt: skip


@task(name="report", cache_policy=NO_CACHE)
def report(
    store: Store, refs: RunRefs, config: PipelineConfig, runs_root: Path, stages: dict[str, str], usage: Usage, asked: Asked | None
) -> Path:
    """Write the run's folder and put its summary, its fold table and a link into the UI. Never cached."""
    with working("report"):
        folder, summary = write_run(store, refs, config, runs_root, stages, usage, asked)
    tell(Progress("report", "", "computed"))
    logger = get_run_logger()
    with only_shown("artifacts of this run"):
        create_markdown_artifact(render_markdown(summary), key="ploutos-summary", description="What the run showed")
        create_table_artifact(fold_rows(summary), key="ploutos-folds", description="Sharpe ratio by fold and strategy")
        create_link_artifact(link_to(folder / "report.html"), link_text="report.html", key="ploutos-report")
    for sentence in verdict(summary):
        logger.info(sentence)
    logger.info("report: %s", folder / "report.html")
    return folder
