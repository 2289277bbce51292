"""The registry of trials: what a run has tried, and what was tried on its test bars before."""

from pathlib import Path

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from ploutos.advisor.signals import SIGNALS
from ploutos.config import PipelineConfig
from ploutos.evaluation.backtest import BACKTESTS
from ploutos.evaluation.candidates import CANDIDATES, Candidates, sessions_tested
from ploutos.market.bars import BARS
from ploutos.registry.recording import record_run
from ploutos.registry.trials import TrialRegistry, trials_digest
from ploutos.run_refs import RunRefs
from ploutos.store import Ref, Store
from ploutos.walk_forward import FOLDS
from tasks.stage import run_stage


@task(name="record-trials", cache_policy=NO_CACHE)
def candidates_of(store: Store, refs: RunRefs, config: PipelineConfig, registry_root: Path) -> State[Ref]:
    """Record what the run has tried, once, and gather everything that was tried on its test bars."""
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

    def compute() -> Candidates:
        return registry.candidates(trials, sessions)

    settings = {"trials": trials_digest(trials), "sessions": [str(day) for day in sessions]}
    return run_stage(store, "candidates", CANDIDATES, settings, [], compute)
