"""Phase 3: the advisor's features, its signals, and the policies that observe both."""

from functools import partial
from typing import Any

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.advisor.advisor import advise, make_advisor
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.mirror import ask_mirrored
from ploutos.advisor.signals import SIGNALS, Signals
from ploutos.config import PipelineConfig
from ploutos.envs.spec import EnvSpec
from ploutos.features.llm_features import MARKET_FEATURES, market_features
from ploutos.fusion.hybrid import advised_decisions, fine_tuning, hybrid_env, n_more_questions
from ploutos.fusion.jobs import HybridJob, run_hybrid_job
from ploutos.llm.config import LLMProvider
from ploutos.market.bars import BARS
from ploutos.run_refs import RunRefs
from ploutos.seeding import seed_integer
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.walk_forward import FOLDS, Fold, tested_decisions
from tasks.progress_log import questions_logged
from tasks.slots import SlotName
from tasks.stage import run_stage
from tasks.training import train_stage, training_settings


def slot_of(config: LLMConfig) -> SlotName | None:
    """The slot that asking takes; the mock and a replay ask nobody."""
    return None if config.provider is LLMProvider.MOCK or config.replay else "llm"


@task(name="llm-features", cache_policy=NO_CACHE)
def llm_features_of(store: Store, bars: Ref) -> State[Ref]:
    """The 28 market features of every bar and symbol."""
    return run_stage(store, "llm-features", MARKET_FEATURES, {}, [bars.sha256], lambda: market_features(store.load(bars, BARS)))


def _terms(env: EnvSpec) -> dict[str, Any]:
    """What of an environment the prompts state."""
    return {"terms": env.model_dump(mode="json", include={"allow_short", "costs"})}


@task(name="advise", cache_policy=NO_CACHE)
def signals_of(store: Store, bars: Ref, llm_features: Ref, folds: Ref, config: PipelineConfig) -> State[Ref]:
    """Ask the advisor once per symbol and decision time, from the first that a policy, a choice or a test reads."""
    advisor, logger = make_advisor(config.llm, Settings()), get_run_logger()
    plan = store.load(folds, FOLDS)
    first, last = advised_decisions(plan, config.with_hybrid, config.fusion.choose)
    left_open, llm = config.hybrid.enabled is None and not config.with_hybrid, config.llm

    def compute() -> Signals:
        panel, market = store.load(bars, BARS), store.load(llm_features, MARKET_FEATURES)
        if left_open:
            more = n_more_questions(panel, market, plan, first, llm)
            logger.info("no hybrid policies are trained: hybrid.enabled=true would take %d more questions", more)
        return advise(panel, market, first, last, advisor, config.env)

    settings = config.llm.cache_fields() | {"digest": advisor.digest, "first": first} | _terms(config.env)
    upstream = [bars.sha256, llm_features.sha256, folds.sha256]
    with questions_logged(logger, "signals"):
        state = run_stage(store, "signals", SIGNALS, settings, upstream, compute, needs=slot_of(llm))
    signals = store.load(state.result(), SIGNALS)
    logger.info(
        "advisor: %s; %d pieces of advice, %d abstentions, %d calls", signals.model, len(signals.frame), signals.n_abstained, advisor.calls
    )
    return state


@task(name="advise-mirrored", cache_policy=NO_CACHE)
def mirrored_of(store: Store, bars: Ref, signals: Ref, folds: Ref, config: LLMConfig, env: EnvSpec) -> State[Ref]:
    """Ask every question of the test ranges again, on the mirrored market."""
    advisor = make_advisor(config, Settings())
    plan = store.load(folds, FOLDS)
    first, last = tested_decisions(plan)

    def compute() -> Signals:
        return ask_mirrored(store.load(signals, SIGNALS).within(first, last), store.load(bars, BARS), advisor, env)

    settings = config.cache_fields() | {"digest": advisor.digest, "tested": [first, last]} | _terms(env)
    with questions_logged(get_run_logger(), "mirrored"):
        return run_stage(store, "mirrored", SIGNALS, settings, [bars.sha256, signals.sha256], compute, needs=slot_of(config))


@task(name="train-hybrid", task_run_name="fine-tune fold {fold.index} member {member}, advised {advised}", cache_policy=NO_CACHE)
def train_hybrid(store: Store, refs: RunRefs, fold: Fold, member: int, config: PipelineConfig, advised: bool) -> State[Ref]:
    """Fine-tune one Phase 2 policy on the advice, or on blank advice.

    Its key holds the advice given before the end of its training range and none that came later.
    """
    seed = seed_integer(config.seed, "hybrid", fold.index, member)
    env, training = hybrid_env(config.env), fine_tuning(config.training, config.hybrid)
    policy, market, signals = refs.policies[fold.index][member], refs.require("llm_features"), refs.require("signals")
    teacher = refs.teacher(fold.index)
    job = partial(
        HybridJob, bars=store.path(refs.bars), features=store.path(refs.features), fold=fold, env=env, training=training,
        checkpoint=config.checkpoint, seed=seed, policy=store.path(policy), market=store.path(market),
        signals=store.path(signals) if advised else None, teacher=None if teacher is None else store.path(teacher),
    )  # fmt: skip
    settings = training_settings(fold, env, training, config.hardware.device, seed)
    upstream = [
        policy.sha256,
        "" if teacher is None else teacher.sha256,
        store.load(signals, SIGNALS).digest_before(fold.train.stop) if advised else "",
    ]
    stage = "hybrid" if advised else "ablated"
    return train_stage(store, stage, settings, upstream, f"fold {fold.index} member {member}", config, run_hybrid_job, job)
