"""Phase 3: the advisor's features, its signals, and the policies that observe both."""

from pathlib import Path

import numpy as np
from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.advisor.advisor import advise, make_advisor
from ploutos.advisor.mirror import ask_mirrored
from ploutos.advisor.schedule import decision_times
from ploutos.advisor.signals import read_signals, write_signals
from ploutos.config import PipelineConfig
from ploutos.features.llm_features import market_features
from ploutos.fusion.hybrid import fine_tuning, first_decision, hybrid_env
from ploutos.fusion.jobs import HybridJob, run_hybrid_job
from ploutos.llm.config import LLMConfig
from ploutos.market.bars import read_bars
from ploutos.run_refs import RunRefs
from ploutos.seeding import seed_integer
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.training.jobs import MemberJob
from ploutos.training.pool import WorkerPool
from ploutos.training.spec import TrainingPaths
from ploutos.walk_forward import Fold, read_folds, tested_decisions
from tasks.stage import run_stage
from tasks.training import train_stage, training_settings


@task(name="llm-features", cache_policy=NO_CACHE)
def llm_features_of(store: Store, bars: Ref) -> State[Ref]:
    """The 28 market features of every bar and symbol."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, market_features(read_bars(store.path(bars))))

    return run_stage(store, "llm-features", ["ploutos.features.llm_features"], {}, [bars.sha256], ".npy", write)


@task(name="advise", cache_policy=NO_CACHE)
def signals_of(store: Store, bars: Ref, llm_features: Ref, folds: Ref, config: PipelineConfig, settings: Settings) -> State[Ref]:
    """Ask the advisor once per symbol and decision time, from the first that a policy, a choice or a test reads."""
    advisor, logger = make_advisor(config.llm, settings), get_run_logger()
    plan = read_folds(store.path(folds))
    with_hybrid = config.with_hybrid
    first = first_decision(plan, with_hybrid, config.fusion.choose)

    def write(path: Path) -> None:
        panel, market = read_bars(store.path(bars)), np.load(store.path(llm_features), allow_pickle=False)
        last = plan[-1].test.stop - 2
        starts = first, first_decision(plan, True, True)
        n_asked, n_with_hybrid = (len(decision_times(panel, market, start, last, config.llm)) for start in starts)
        logger.info("%s is asked %d questions", advisor.name, n_asked)
        if config.hybrid.enabled is None and not with_hybrid:
            logger.info("no hybrid policies are trained: hybrid.enabled=true would take %d questions more", n_with_hybrid - n_asked)
        write_signals(advise(panel, market, first, last, advisor), path)

    upstream = [bars.sha256, llm_features.sha256, folds.sha256]
    stands_on = config.llm.cache_fields() | {"digest": advisor.digest, "first": first}
    state = run_stage(store, "signals", ["ploutos.advisor.advisor"], stands_on, upstream, ".parquet", write)
    signals = read_signals(store.path(state.result()))
    logger.info(
        "advisor: %s; %d pieces of advice, %d abstentions, %d calls", signals.model, len(signals.frame), signals.n_abstained, advisor.calls
    )
    return state


@task(name="advise-mirrored", cache_policy=NO_CACHE)
def mirrored_of(store: Store, bars: Ref, signals: Ref, folds: Ref, config: LLMConfig, settings: Settings) -> State[Ref]:
    """Ask every question of the test ranges again, on the mirrored market."""
    advisor = make_advisor(config, settings)
    first, last = tested_decisions(read_folds(store.path(folds)))

    def write(path: Path) -> None:
        asked = read_signals(store.path(signals)).within(first, last)
        get_run_logger().info("advisor: %d questions asked again about the mirrored market", len(asked.frame))
        write_signals(ask_mirrored(asked, read_bars(store.path(bars)), advisor), path)

    stands_on = config.cache_fields() | {"digest": advisor.digest, "tested": [first, last]}
    return run_stage(store, "mirrored", ["ploutos.advisor.mirror"], stands_on, [bars.sha256, signals.sha256], ".parquet", write)


@task(name="train-hybrid", task_run_name="fine-tune fold {fold.index} member {member}, advised {advised}", cache_policy=NO_CACHE)
def train_hybrid(
    store: Store, pool: WorkerPool, refs: RunRefs, fold: Fold, member: int, config: PipelineConfig, advised: bool
) -> State[Ref]:
    """Fine-tune one Phase 2 policy on the advice, or on blank advice.

    Its key holds the advice given before the end of its training range and none that came later.
    """
    seed = seed_integer(config.seed, "hybrid", fold.index, member)
    env, training = hybrid_env(config.env), fine_tuning(config.training, config.hybrid)
    policy, market = refs.policies[fold.index][member], refs.require("llm_features")
    signals = store.path(refs.require("signals"))

    def job(paths: TrainingPaths, path: Path) -> HybridJob:
        member_job = MemberJob(
            bars=store.path(refs.bars), features=store.path(refs.features), fold=fold, env=env, training=training,
            checkpoint=config.checkpoint, seed=seed, paths=paths, target=path,
        )  # fmt: skip
        return HybridJob(member_job, store.path(policy), store.path(market), signals if advised else None)

    settings = training_settings(fold, env, training, config.hardware.device, seed)
    upstream = [policy.sha256, read_signals(signals).digest_before(fold.train.stop) if advised else ""]
    stage, label = "hybrid" if advised else "ablated", f"fold {fold.index} member {member}"
    modules = ["ploutos.fusion.jobs", "ploutos.training.pool"]
    return train_stage(store, pool, stage, modules, settings, upstream, label, config, run_hybrid_job, job)
