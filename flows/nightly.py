"""The night: bars of the session, the walk-forward run on them, a decision for the next open, and what changed."""

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact

from flows.approval import Question, ask, require_askable
from flows.attempt import begin_attempt
from flows.news import News, news_of, tell_of
from flows.phases import all_phases, observed
from flows.stages import Stages, at_work
from ploutos.config import PipelineConfig, load_config
from ploutos.errors import ConfigError, VendorError
from ploutos.evaluation.metrics import to_date
from ploutos.evaluation.summary import SUMMARY
from ploutos.market import calendar as calendars
from ploutos.market import download
from ploutos.market.bars import BARS, Bars
from ploutos.market.data_spec import VENDOR_TIMEFRAME, DataSpec, vendor_symbols
from ploutos.market.dataset import Dataset
from ploutos.market.sources.connect import VENDORS, connect
from ploutos.nightly.config import NightlyConfig
from ploutos.nightly.forward_log import DeciderRole, ForwardLog
from ploutos.nightly.night import NightRecord, Nights, code_digest, decider_digest
from ploutos.nightly.standing import Standing, judge_night, standing
from ploutos.progress import working
from ploutos.registry.models import FileModels, Model
from ploutos.registry.promotion import model_of
from ploutos.registry.trials import TrialRegistry
from ploutos.remote_store import open_store
from ploutos.reporting.nightly_page import Night, night_sentences, write_night
from ploutos.run_manifest import read_refs
from ploutos.run_refs import RunRefs
from ploutos.settings import Settings
from ploutos.store import Store
from tasks.advice import signals_of
from tasks.away import only_shown
from tasks.evaluation import report
from tasks.links import link_to
from tasks.market import folds_of, load_bars
from tasks.nightly import changes_of, decision_of, live_plan_of, logged
from tasks.slots import slot

_WITHOUT_PRESENT = ("sample", "synthetic")
DEFAULT = NightlyConfig()


@dataclass(frozen=True)
class _Place:
    """Where a night keeps what it makes."""

    store: Store
    settings: Settings
    log: ForwardLog
    nights: Nights

    @classmethod
    def of(cls, settings: Settings) -> "_Place":
        root = settings.registry_root
        return cls(open_store(settings), settings, ForwardLog(root), Nights(root))


@flow(name="ploutos-nightly", persist_result=False)
def nightly(config: NightlyConfig = DEFAULT) -> Path:
    """Decide for the next open: every missed session first, in order, then the session asked for.

    Returns:
        The night's folder.
    """
    place = _Place.of(Settings())
    begin_attempt()
    if config.promotion == "asked":
        require_askable()
    session, bars = _wait_for(place, config)
    missed = _missed(place, config, session, bars)
    if missed:
        get_run_logger().info("made up for first: %s", ", ".join(missed))
    folder = Path()
    for each in (*missed, session):
        folder = _night(place, config, each)
    page = link_to(folder / "index.html")
    with only_shown("link to the night"):
        create_link_artifact(page, link_text=f"night of {session}", key="ploutos-night")
    tell_of(News.DECISION_READY, session, " ".join(json.loads((folder / "night.json").read_bytes())["sentences"]), page)
    return folder


def _wait_for(place: _Place, config: NightlyConfig) -> tuple[str, Bars]:
    """The session to decide after, and the bars as they are by then: with its own, or without them when the waiting is over."""
    until, logger = time.monotonic() + 60 * config.wait_minutes, get_run_logger()
    while True:
        _update(place, config.run.data)
        bars = _load(place, config)
        if bars.timeframe > calendars.DAY:
            raise ConfigError("a night decides after a session, and these bars are longer than one; give daily or shorter bars")
        last, session = str(bars.sessions[-1]), _session(config, bars)
        if last >= session:
            return session, bars
        left = until - time.monotonic()
        if left <= 0:
            logger.warning("no bars of %s came: those up to %s decide, and nothing is promoted", session, last)
            tell_of(News.NO_DATA, session, f"No bars of {session} came: those up to {last} decide, and nothing is promoted.")
            return session, bars
        logger.info("bars end on %s; waiting for those of %s, %.0f minutes left", last, session, left / 60)
        with working("wait", f"for bars of {session}"):
            time.sleep(min(60 * config.retry_minutes, left))


def _load(place: _Place, config: NightlyConfig) -> Bars:
    data = config.run.data if config.session is None else config.run.data.model_copy(update={"end": config.session})
    ref = load_bars(place.store, data, place.settings.datasets_root).result()
    return place.store.load(ref, BARS)


def _session(config: NightlyConfig, bars: Bars) -> str:
    if config.session is not None:
        calendars.session_close(str(config.session), bars.calendar)  # refuses a day without a session
        return str(config.session)
    if config.run.data.source in _WITHOUT_PRESENT:
        return str(bars.sessions[-1])
    return calendars.last_closed(np.datetime64(datetime.now(UTC).replace(tzinfo=None), "us"), bars.calendar)


def _update(place: _Place, data: DataSpec) -> None:
    """Fetch what a vendor has that the dataset lacks; a vendor that does not answer leaves it as it is."""
    if data.source not in VENDORS:
        return
    try:
        with slot("vendor"):
            download.update(
                Dataset(place.settings.datasets_root), connect(data, place.settings), data.adjustment, data.bar or VENDOR_TIMEFRAME,
                list(vendor_symbols(data)), now=pd.Timestamp.now("UTC"),
            )  # fmt: skip
    except VendorError as error:
        get_run_logger().warning("%s did not bring new bars: %s", data.source, error)


def _missed(place: _Place, config: NightlyConfig, session: str, bars: Bars) -> tuple[str, ...]:
    """Sessions between the last night and this one."""
    earlier = [each for each in place.nights.sessions() if each < session]
    between = calendars.sessions_between(earlier[-1], session, bars.calendar)[:-1] if earlier else ()
    if len(between) > config.catch_up:
        get_run_logger().warning("%d nights were missed; the last %d are made up for", len(between), config.catch_up)
    return between[len(between) - min(config.catch_up, len(between)) :]


def _night(place: _Place, config: NightlyConfig, session: str) -> Path:
    """One night: run, decide, log, compare, judge, and write it down."""
    day = to_date(np.datetime64(session))
    run = config.run.model_copy(update={"data": config.run.data.model_copy(update={"end": day})})
    models, trials, runs_root = (
        FileModels(place.settings.registry_root),
        TrialRegistry(place.settings.registry_root),
        place.settings.runs_root,
    )
    with at_work(run, place.settings) as stages:
        run, refs = all_phases(stages, run)
        bars = place.store.load(refs.bars, BARS)
        stale = str(bars.sessions[-1]) < session
        subject = place.store.load(refs.require("metrics"), SUMMARY).subject.slug
        decider, now = decider_digest(run, subject), standing(models, runs_root)
        folder = report(place.store, refs, run, runs_root, stages.ended, stages.monitor.usage, stages.asked(run.llm))
        record = _decide(place, stages, refs, run, subject, session, now.role_of(decider), folder.name, stale)
        entries = [logged(place.log, place.nights, record, place.store)]
        for role, who, model in now.beside(decider):
            other = _decide_beside(place, stages, refs, role, who, model, session, stale)
            entries.append(logged(place.log, place.nights, other, place.store))
        before = place.nights.before(session, record.role)
        changes = stages.run("changes", changes_of, place.store, before, record)
    verdict = judge_night(
        models, now, model_of(folder), decider, place.log.entries(), bars, run.env, trials,
        stale=stale, automatic=config.promotion == "automatic",
    )  # fmt: skip
    asked = config.promotion == "asked" and verdict.is_due
    night = Night.read(place.store, record, tuple(entries), replace(verdict, asked=asked), folder, changes)
    if asked:
        _ask(night, now)
    elif verdict.done and (news := news_of(verdict.kind)) is not None:
        tell_of(news, session, " ".join(night_sentences(night)))
    return _write(place, night)


def _ask(night: Night, now: Standing) -> None:
    """Put what is due to a person."""
    champion = None if now.champion is None else now.champion.name
    question = Question(
        verdict=night.verdict, session=night.record.session, run=night.folder.resolve(), champion=champion,
        sentences=tuple(night_sentences(night)),
    )  # fmt: skip
    form = ask(question)
    get_run_logger().info("a promotion is due, and waits for a decision at %s", form)
    with only_shown("link to the form"):
        create_link_artifact(form, link_text="decide on the promotion", key="ploutos-approval")
    tell_of(News.ASKED, night.record.session, " ".join(night_sentences(night)), form)


def _decide(
    place: _Place, stages: Stages, refs: RunRefs, run: PipelineConfig, subject: str, session: str, role: DeciderRole, name: str, stale: bool
) -> NightRecord:
    """The decision of a run's subject, as a record."""
    plan = stages.run("live-plan", live_plan_of, place.store, refs.bars, refs.folds)
    signals = stages.run("live-signals", signals_of, place.store, refs.bars, refs.require("llm_features"), plan, run)
    decision = stages.run(f"decision {role}", decision_of, place.store, refs, signals, run, subject, session)
    return NightRecord(
        session=session, role=role, decider=decider_digest(run, subject), subject=subject, run=name, code=code_digest(),
        config=run.model_dump(mode="json"), refs=refs, signals=signals, decision=decision, stale=stale,
    )  # fmt: skip


def _decide_beside(
    place: _Place, stages: Stages, tonight: RunRefs, role: DeciderRole, decider: str, model: Model, session: str, stale: bool
) -> NightRecord:
    """The decision of a model that is not tonight's: its policies as they are, on tonight's bars."""
    known = place.nights.last_of(decider)
    if known is not None:
        run, old, subject, name = known.pipeline, known.refs, known.subject, known.run
    else:  # promoted from a run that was not a night
        folder = place.settings.runs_root / model.run
        run, old = load_config("full", folder / "config.yaml"), read_refs(folder, 3, place.store)
        subject, name = model.subject, model.run
    run = run.model_copy(update={"data": run.data.model_copy(update={"end": to_date(np.datetime64(session))})})
    features, readings = observed(stages, tonight.bars, run, f" {role}")
    folds = stages.run(f"folds {role}", folds_of, place.store, tonight.bars, features, run.folds)
    refs = replace(old, bars=tonight.bars, features=features, readings=readings, folds=folds, llm_features=tonight.llm_features)
    return _decide(place, stages, refs, run, subject, session, role, name, stale)


def _write(place: _Place, night: Night) -> Path:
    """The night's folder and its page."""
    for sentence in night_sentences(night):
        get_run_logger().info(sentence)
    return write_night(night, place.settings.home / "nights" / night.record.session)
