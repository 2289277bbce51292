"""Evaluation: backtests, numbers, and the run's folder with its report."""

import json
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from ploutos.config import PipelineConfig
from ploutos.evaluation.assess import in_sample, out_of_sample, summarise
from ploutos.evaluation.backtest import read_backtests, write_backtests
from ploutos.evaluation.report import render_markdown
from ploutos.evaluation.rundir import RunRefs, write_run
from ploutos.features.build import read_features
from ploutos.hardware.monitor import HardwareMonitor
from ploutos.llm.cutoff import known_cutoff
from ploutos.llm.signals import read_signals
from ploutos.market.bars import read_bars
from ploutos.store import Ref, Store, write_json
from ploutos.training.checkpoint import Policy, load_policy
from ploutos.training.folds import Fold, read_folds
from tasks.stage import run_stage

_MODULES = ["ploutos.evaluation.assess"]


def _policies(store: Store, refs: RunRefs) -> list[list[Policy]]:
    return [[load_policy(store.path(ref)) for ref in members] for members in refs.policies]


def _upstream(refs: RunRefs) -> list[str]:
    policies = [ref.sha256 for members in refs.policies for ref in members]
    return [refs.bars.sha256, refs.features.sha256, refs.folds.sha256, *policies]


@task(name="backtest", cache_policy=NO_CACHE)
def backtest(store: Store, refs: RunRefs, signals: Ref, config: PipelineConfig) -> State[Ref]:
    """Run every strategy over all test ranges."""

    def write(path: Path) -> None:
        result = out_of_sample(
            read_bars(store.path(refs.bars)), read_features(store.path(refs.features)), read_folds(store.path(refs.folds)),
            _policies(store, refs), read_signals(store.path(signals)), config.env, config.fusion, config.seed,
        )  # fmt: skip
        write_backtests(result, path)

    settings = {"env": config.env.model_dump(mode="json"), "fusion": config.fusion.model_dump(mode="json"), "seed": config.seed}
    return run_stage(store, "backtests", _MODULES, settings, [*_upstream(refs), signals.sha256], ".npz", write)


@task(name="in-sample", cache_policy=NO_CACHE)
def in_sample_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Run every member over its own training and validation ranges."""

    def write(path: Path) -> None:
        bars, features = read_bars(store.path(refs.bars)), read_features(store.path(refs.features))
        folds: tuple[Fold, ...] = read_folds(store.path(refs.folds))
        path.write_text(json.dumps(in_sample(bars, features, folds, _policies(store, refs), config.env)), encoding="utf-8")

    settings = {"env": config.env.model_dump(mode="json")}
    return run_stage(store, "in-sample", _MODULES, settings, _upstream(refs), ".json", write)


@task(name="metrics", cache_policy=NO_CACHE)
def metrics_of(
    store: Store, refs: RunRefs, signals: Ref, backtests: Ref, inside: Ref, config: PipelineConfig, cutoffs_root: Path
) -> State[Ref]:
    """Measure every strategy, with intervals."""
    known = known_cutoff(config.llm, read_signals(store.path(signals)).digest, cutoffs_root)

    def write(path: Path) -> None:
        summary = summarise(
            read_backtests(store.path(backtests)), read_bars(store.path(refs.bars)), read_folds(store.path(refs.folds)),
            json.loads(store.path(inside).read_text(encoding="utf-8")), read_signals(store.path(signals)),
            config.evaluation, config.seed, config.training.timesteps_reduction < 1, known,
        )  # fmt: skip
        write_json(path, summary)

    reduced = config.training.timesteps_reduction < 1
    settings = {"evaluation": config.evaluation.model_dump(mode="json"), "seed": config.seed, "reduced": reduced}
    settings |= {"known": known.model_dump(mode="json")}
    upstream = [refs.bars.sha256, refs.folds.sha256, signals.sha256, backtests.sha256, inside.sha256]
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
