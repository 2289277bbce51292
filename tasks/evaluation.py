"""Evaluation: backtests, numbers, and the run's folder with its report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from prefect import State, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from ploutos.advisor.cutoff import known_cutoff
from ploutos.advisor.signals import Signals, read_signals
from ploutos.config import PipelineConfig
from ploutos.evaluation.assess import hybrid_out_of_sample, in_sample, out_of_sample, summarise
from ploutos.evaluation.backtest import concat, read_backtests, write_backtests
from ploutos.evaluation.comparisons import HYBRID, HYBRID_ABLATED
from ploutos.evaluation.fusion_selection import choose_fusion
from ploutos.features.build import read_features
from ploutos.fusion.calibration import FusionChoice, read_choices, write_choices
from ploutos.fusion.hybrid import hybrid_features
from ploutos.hardware.monitor import HardwareMonitor
from ploutos.market.bars import read_bars
from ploutos.reporting.report import render_markdown
from ploutos.reporting.run_folder import write_run
from ploutos.run_refs import RunRefs
from ploutos.store import Ref, Store, write_json
from ploutos.training.checkpoint import StoredPolicies
from ploutos.walk_forward import Fold, read_folds
from tasks.stage import run_stage

_MODULES = ["ploutos.evaluation.assess"]
_Policies = tuple[tuple[Ref, ...], ...]


def _stored(store: Store, policies: _Policies) -> list[StoredPolicies]:
    return [StoredPolicies(tuple(store.path(ref) for ref in members)) for members in policies]


def _digests(policies: _Policies) -> list[str]:
    return [ref.sha256 for members in policies for ref in members]


def _mirrored(store: Store, refs: RunRefs) -> Signals | None:
    return None if refs.mirrored is None else read_signals(store.path(refs.mirrored))


def _sha256_of(*found: Ref | None) -> list[str]:
    """Of what a run has of several things that not every run has."""
    return ["" if ref is None else ref.sha256 for ref in found]


def _upstream(refs: RunRefs) -> list[str]:
    return [refs.bars.sha256, refs.features.sha256, refs.folds.sha256, *_digests(refs.policies)]


def _choices(store: Store, refs: RunRefs) -> tuple[FusionChoice, ...]:
    return () if refs.fusion is None else read_choices(store.path(refs.fusion))


@task(name="choose-fusion", cache_policy=NO_CACHE)
def fusion_choice_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Calibrate confidence and choose fusion's parameters on every fold's validation range."""
    signals = refs.require("signals")

    def write(path: Path) -> None:
        choices = choose_fusion(
            read_bars(store.path(refs.bars)), read_features(store.path(refs.features)), read_folds(store.path(refs.folds)),
            _stored(store, refs.policies), read_signals(store.path(signals)), config.env, config.fusion,
        )  # fmt: skip
        write_choices(choices, path)

    settings = {"env": config.env.model_dump(mode="json"), "fusion": config.fusion.model_dump(mode="json")}
    upstream = [*_upstream(refs), signals.sha256]
    return run_stage(store, "fusion-choice", ["ploutos.evaluation.fusion_selection"], settings, upstream, ".json", write)


@task(name="backtest", cache_policy=NO_CACHE)
def backtest(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Run every strategy over all test ranges."""
    signals = refs.require("signals")

    def write(path: Path) -> None:
        bars, features = read_bars(store.path(refs.bars)), read_features(store.path(refs.features))
        folds, advice = read_folds(store.path(refs.folds)), read_signals(store.path(signals))
        result = out_of_sample(
            bars, features, folds, _stored(store, refs.policies), advice, config.env, config.fusion, config.seed,
            choices=_choices(store, refs), mirrored=_mirrored(store, refs), placebo_draws=config.evaluation.placebo_draws,
        )  # fmt: skip
        for name, policies, seen in ((HYBRID, refs.hybrids, advice), (HYBRID_ABLATED, refs.ablated, None)):
            if policies:
                market = np.load(store.path(refs.require("llm_features")), allow_pickle=False)
                wide = hybrid_features(features, bars, market, seen)
                result = concat(result, hybrid_out_of_sample(bars, wide, folds, _stored(store, policies), config.env, name))
        write_backtests(result, path)

    settings = {"env": config.env.model_dump(mode="json"), "fusion": config.fusion.model_dump(mode="json"), "seed": config.seed}
    settings["placebo_draws"] = config.evaluation.placebo_draws
    upstream = [*_upstream(refs), signals.sha256, *_digests(refs.hybrids), *_digests(refs.ablated), *_sha256_of(refs.fusion, refs.mirrored)]
    return run_stage(store, "backtests", [*_MODULES, "ploutos.fusion.hybrid"], settings, upstream, ".npz", write)


@task(name="in-sample", cache_policy=NO_CACHE)
def in_sample_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Run every member over its own training and validation ranges."""

    def write(path: Path) -> None:
        bars, features = read_bars(store.path(refs.bars)), read_features(store.path(refs.features))
        folds: tuple[Fold, ...] = read_folds(store.path(refs.folds))
        path.write_text(json.dumps(in_sample(bars, features, folds, _stored(store, refs.policies), config.env)), encoding="utf-8")

    settings = {"env": config.env.model_dump(mode="json")}
    return run_stage(store, "in-sample", _MODULES, settings, _upstream(refs), ".json", write)


@task(name="metrics", cache_policy=NO_CACHE)
def metrics_of(store: Store, refs: RunRefs, inside: Ref, config: PipelineConfig, cutoffs_root: Path) -> State[Ref]:
    """Measure every strategy, with intervals."""
    signals, backtests = refs.require("signals"), refs.require("backtests")
    known = known_cutoff(config.llm, read_signals(store.path(signals)).digest, cutoffs_root)

    def write(path: Path) -> None:
        summary = summarise(
            read_backtests(store.path(backtests)), read_bars(store.path(refs.bars)), read_folds(store.path(refs.folds)),
            json.loads(store.path(inside).read_text(encoding="utf-8")), read_signals(store.path(signals)),
            config.evaluation, config.seed, config.training.timesteps_reduction < 1,
            choices=_choices(store, refs), known=known, mirrored=_mirrored(store, refs),
        )  # fmt: skip
        write_json(path, summary)

    reduced = config.training.timesteps_reduction < 1
    settings = {"evaluation": config.evaluation.model_dump(mode="json"), "seed": config.seed, "reduced": reduced}
    settings |= {"known": known.model_dump(mode="json")}
    upstream = [refs.bars.sha256, refs.folds.sha256, signals.sha256, backtests.sha256, inside.sha256]
    upstream += _sha256_of(refs.fusion, refs.mirrored)
    return run_stage(store, "metrics", _MODULES, settings, upstream, ".json", write)


@task(name="report", cache_policy=NO_CACHE)
def report(store: Store, refs: RunRefs, config: PipelineConfig, runs_root: Path, stages: dict[str, str], monitor: HardwareMonitor) -> Path:
    """Write the run's folder and put its summary, its fold table and a link into the UI. Never cached."""
    folder, summary = write_run(store, refs, config, runs_root, stages, monitor)
    create_markdown_artifact(render_markdown(summary), key="ploutos-summary", description="What the run showed")
    create_table_artifact(_fold_rows(summary), key="ploutos-folds", description="Sharpe ratio by fold and strategy")
    create_link_artifact((folder / "report.html").resolve().as_uri(), link_text="report.html", key="ploutos-report")
    logger = get_run_logger()
    for sentence in summary["verdict"]:
        logger.info(sentence)
    logger.info("report: %s", folder / "report.html")
    return folder


def _fold_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"fold": fold["fold"], "test": " to ".join(fold["test"]), **fold["sharpe"]} for fold in summary["folds"]]
