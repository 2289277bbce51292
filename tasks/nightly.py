"""The night: tomorrow's decision, what changed since the last one, and the log that holds it before the open."""

from datetime import datetime

import pandas as pd
from prefect import State, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from ploutos.config import PipelineConfig
from ploutos.market.bars import BARS
from ploutos.nightly.decision import DECISION, Decision, decide, for_session
from ploutos.nightly.forward_log import Entry, ForwardLog
from ploutos.nightly.night import NightRecord, Nights, decision_inputs, settings_of
from ploutos.nightly.night_changes import CHANGES, NightChanges, night_changes
from ploutos.run_refs import RunRefs
from ploutos.store import Ref, Store, digest_of
from ploutos.walk_forward import FOLDS, Fold, with_bar_to_come
from tasks.away import only_shown
from tasks.stage import run_stage


@task(name="plan-live", cache_policy=NO_CACHE)
def live_plan_of(store: Store, bars: Ref, folds: Ref) -> State[Ref]:
    """The plan with its last test range led on over the bar that is still to come, so that advice is asked for it, too."""

    def compute() -> tuple[Fold, ...]:
        return with_bar_to_come(store.load(folds, FOLDS), store.load(bars, BARS).n_bars)

    return run_stage(store, "live-plan", FOLDS, {}, [bars.sha256, folds.sha256], compute)


@task(name="decide", task_run_name="decide for {subject} after {session}", cache_policy=NO_CACHE)
def decision_of(store: Store, refs: RunRefs, signals: Ref | None, config: PipelineConfig, subject: str, session: str) -> State[Ref]:
    """Target weights after the last bar, with reasons."""

    def compute() -> Decision:
        inputs = decision_inputs(store, refs, config, subject, signals)
        return for_session(decide(inputs), session, inputs.bars)

    made = [refs.bars, refs.features, refs.folds, refs.fusion, signals, refs.llm_features]
    by_fold = [ref for members in (*refs.policies, *refs.regressions, *refs.hybrids) for ref in members]
    settings = {"subject": subject, "session": session, "settings": settings_of(config)}
    return run_stage(store, "decision", DECISION, settings, [ref.sha256 for ref in (*made, *by_fold) if ref is not None], compute)


@task(name="what-changed", cache_policy=NO_CACHE)
def changes_of(store: Store, before: NightRecord | None, today: NightRecord) -> State[Ref]:
    """What is different from the last night: bars of the past, features, settings, code, and each weight part by part."""

    def compute() -> NightChanges:
        return night_changes(store, before, today)

    records = [digest_of(record.model_dump(mode="json")) for record in (before, today) if record is not None]  # bars, settings and all
    return run_stage(store, "changes", CHANGES, {"sessions": [before and before.session, today.session]}, records, compute)


@task(name="log-decision", cache_policy=NO_CACHE)
def logged(log: ForwardLog, nights: Nights, record: NightRecord, store: Store, now: datetime | None = None) -> Entry:
    """Append the decision to the forward log, keep the night's record, and show the weights in the UI."""
    decision = store.load(record.decision, DECISION)
    nights.keep(record)
    entry = log.append(
        decision, record.role, record.decider, sha256=record.decision.sha256, bars=record.refs.bars.sha256, stale=record.stale, now=now
    )
    shown = decision.frame[["symbol", "held", "target", "action", "confidence", "features", "advice", "vetoed"]]
    rows = [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in shown.to_dict("records")]
    with only_shown("table of the decision"):
        create_table_artifact(
            rows, key=f"ploutos-decision-{record.role}", description=f"{record.subject}, after {record.session}, for {entry.next_open}"
        )
    return entry
