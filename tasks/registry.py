"""The registry of trials: what a run has tried, and what was tried on its test bars before."""

from dataclasses import replace
from pathlib import Path

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from ploutos.advisor.signals import SIGNALS
from ploutos.config import PipelineConfig
from ploutos.evaluation.backtest import BACKTESTS
from ploutos.evaluation.candidates import CANDIDATES, Candidates, champion_digest, sessions_tested
from ploutos.market.bars import BARS
from ploutos.registry.models import FileModels
from ploutos.registry.promotion import incumbent
from ploutos.registry.recording import market_of, record_run, settings_digest
from ploutos.registry.trials import TrialRegistry, trials_digest
from ploutos.run_refs import RunRefs
from ploutos.store import Ref, Store
from ploutos.walk_forward import FOLDS
from tasks.stage import run_stage


@task(name="record-trials", cache_policy=NO_CACHE)
def candidates_of(store: Store, refs: RunRefs, config: PipelineConfig, registry_root: Path, runs_root: Path) -> State[Ref]:
    """Record what the run has tried, once, and gather everything that was tried on its test bars, and who is champion."""
    registry = TrialRegistry(registry_root)
    bars, backtests = store.load(refs.bars, BARS), store.load(refs.require("backtests"), BACKTESTS)
    files = {
        kind: [[store.path(ref) for ref in members] for members in by_fold]
        for kind, by_fold in (("policy", refs.policies), ("hybrid", refs.hybrids), ("ablated", refs.ablated))
    }
    signals = store.load(refs.require("signals"), SIGNALS)
    folds = store.load(refs.folds, FOLDS)
    trials = record_run(registry, bars, folds, backtests, signals, files, config)
    sessions = sessions_tested(bars, backtests)
    champion = incumbent(FileModels(registry_root), runs_root, market_of(config.data), sessions, settings_digest(config))

    def compute() -> Candidates:
        return replace(registry.candidates(trials, sessions), champion=champion)

    settings = {"trials": trials_digest(trials), "sessions": [str(day) for day in sessions], "champion": champion_digest(champion)}
    return run_stage(store, "candidates", CANDIDATES, settings, [], compute)
