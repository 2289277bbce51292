"""One night's record: who decided, on what, so that the decision can be taken again from the store alone.

A record names artifacts by reference and holds the configuration; `replay` needs no network and no data source, and must give the decision
file's bytes. Records lie under `$PLOUTOS_HOME/registry/nights`, one per session and decider, and are written once.
"""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ploutos.advisor.signals import SIGNALS
from ploutos.config import PipelineConfig
from ploutos.errors import ConfigError, StoreError
from ploutos.evaluation.backtest import BACKTESTS
from ploutos.features.build import FEATURES
from ploutos.features.llm_features import MARKET_FEATURES
from ploutos.fusion.calibration import CHOICES
from ploutos.market.bars import BARS
from ploutos.nightly.changes import NightFacts
from ploutos.nightly.decision import DECISION, Decision, DecisionInputs, decide, for_session
from ploutos.nightly.forward_log import DeciderRole, ForwardLog, certified_sessions
from ploutos.provenance import source_digest
from ploutos.run_refs import RunRefs
from ploutos.specs import Spec
from ploutos.store import Ref, Store, digest_of, write_json
from ploutos.strategies.advised import FUSED
from ploutos.strategies.ensemble import HYBRID
from ploutos.strategies.regression import REGRESSION
from ploutos.training.checkpoint import StoredPolicies
from ploutos.walk_forward import FOLDS
from ploutos.wording import plural

_CODE = ("ploutos.nightly.decision", "ploutos.training.jobs", "ploutos.fusion.jobs")
_NO_DECISION: dict[str, Any] = {
    "name": True, "out": True, "hardware": True, "pipeline": True, "checkpoint": True, "logging": True, "evaluation": True,
    "data": {"end"},
}  # fmt: skip


class NightRecord(Spec):
    """What a night's decision stands on."""

    session: str
    """After whose close it was taken."""
    role: DeciderRole
    """Of who decided."""
    decider: str
    """Digest of the subject and of the settings that make it."""
    subject: str
    """Slug of what decided."""
    run: str
    """Name of the run's folder."""
    code: str
    """Digest of the source that decides and trains."""
    config: dict[str, Any]
    """The configuration."""
    refs: RunRefs
    """References to everything the run stands on."""
    signals: Ref | None
    """Advice, that for the last bar included."""
    decision: Ref
    """What was decided."""
    stale: bool
    """The bars end before the session: the source was late or down, and yesterday's were used."""

    @property
    def pipeline(self) -> PipelineConfig:
        return PipelineConfig.model_validate(self.config)


def code_digest() -> str:
    """Digest of the source that decides and trains."""
    return source_digest(*_CODE)


def settings_of(config: PipelineConfig) -> dict[str, Any]:
    """All settings that decide what is decided, by dotted name; those of the machine, of the verdict, and the last day, do not."""
    found: dict[str, Any] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, below in value.items():
                flatten(f"{prefix}.{key}" if prefix else key, below)
        else:
            found[prefix] = value

    flatten("", config.model_dump(mode="json", exclude=_NO_DECISION) | {"llm": config.llm.cache_fields()})
    return found


def decider_digest(config: PipelineConfig, subject: str) -> str:
    """Who decides: a subject and the settings that make it. Retraining by plan, and one more day, leave it as it is."""
    return digest_of([subject, settings_of(config)])[:16]


def logged_sessions(store: Store, refs: RunRefs, config: PipelineConfig, log: ForwardLog) -> tuple[date, ...]:
    """Sessions of a run's backtest that the forward log certifies for the account that hears the advisor."""
    slug = FUSED.slug if config.evaluation.subject == "auto" else config.evaluation.subject
    decider = decider_digest(config, slug)
    entries = [entry for entry in log.entries() if entry.decider == decider]
    if not entries:
        return ()
    return certified_sessions(entries, decider, store.load(refs.require("backtests"), BACKTESTS), slug, store.load(refs.bars, BARS))


def inputs_of(store: Store, record: NightRecord) -> DecisionInputs:
    """The inputs of a record's decision, read from the store.

    Raises:
        StoreError: an artifact is gone or damaged.
    """
    return decision_inputs(store, record.refs, record.pipeline, record.subject, record.signals)


def decision_inputs(store: Store, refs: RunRefs, config: PipelineConfig, subject: str, signals: Ref | None) -> DecisionInputs:
    """The inputs of a decision of a run's subject; folds of the plan that it has no policies for are left out.

    Args:
        signals: advice, that for the last bar included.
    """

    def stored(policies: Sequence[Sequence[Ref]]) -> tuple[StoredPolicies, ...]:
        return tuple(StoredPolicies(tuple(store.path(ref) for ref in members)) for members in policies)

    kinds, plan = {*config.supervised}, store.load(refs.folds, FOLDS)
    folds = plan[: len(_deciding(refs, config, subject))]
    wide = subject == HYBRID.slug and refs.llm_features is not None
    models = refs.regressions[: len(folds)] if subject in kinds else ()
    return DecisionInputs(
        store.load(refs.bars, BARS), store.load(refs.features, FEATURES), folds, config.env, config.fusion, subject,
        policies=stored(refs.policies[: len(folds)]) if subject not in kinds else (),
        models=tuple(tuple(store.load(ref, REGRESSION) for ref in each) for each in models),
        hybrids=stored(refs.hybrids[: len(folds)]) if subject == HYBRID.slug else (),
        signals=None if signals is None else store.load(signals, SIGNALS),
        market=store.load(refs.require("llm_features"), MARKET_FEATURES) if wide else None,
        choices=() if refs.fusion is None else store.load(refs.fusion, CHOICES),
    )  # fmt: skip


def _deciding(refs: RunRefs, config: PipelineConfig, subject: str) -> tuple[tuple[Ref, ...], ...]:
    """The subject's own policies or models, by fold."""
    if subject in {*config.supervised}:
        return refs.regressions
    return refs.hybrids if subject == HYBRID.slug else refs.policies


def facts_of(store: Store, record: NightRecord) -> NightFacts:
    """What distinguishes a night's inputs from another's."""
    refs, config = record.refs, record.pipeline
    members = tuple(tuple(ref.sha256 for ref in each) for each in _deciding(refs, config, record.subject))
    data = tuple(fold.data_sha256 for fold in store.load(refs.folds, FOLDS))
    return NightFacts(settings_of(config), record.code, members, data)


def replay(store: Store, record: NightRecord) -> tuple[Ref, Decision]:
    """Take a record's decision again, from the store alone.

    Returns:
        A reference to what comes out, and the decision; with the same code the reference is the record's.
    """
    inputs = inputs_of(store, record)
    decision = for_session(decide(inputs), record.session, inputs.bars)
    ref = store.publish(DECISION.name, DECISION.suffix, lambda path: DECISION.write(decision, path))
    return ref, decision


class Nights:
    """The records of one home.

    Args:
        root: usually `$PLOUTOS_HOME/registry`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root) / "nights"

    def keep(self, record: NightRecord) -> None:
        """Write a record; one of the same session, role and decider gives way to it, and stays in the forward log."""
        write_json(self.root / f"{record.session}.{record.role}.{record.decider}.json", record.model_dump(mode="json"))

    def of(self, session: str) -> tuple[NightRecord, ...]:
        """Records of a session, the champion's first."""
        found = [_read(file) for file in sorted(self.root.glob(f"{session}.*.json"))]
        return tuple(sorted(found, key=lambda record: list(DeciderRole).index(record.role)))

    def sessions(self) -> tuple[str, ...]:
        """Sessions that have a record, the oldest first."""
        return tuple(sorted({file.name.split(".")[0] for file in self.root.glob("*.json")}))

    def before(self, session: str, role: DeciderRole) -> NightRecord | None:
        """The last record of a role before a session: what its change is measured from. A candidate's stands in for a new champion's."""
        for earlier in reversed([each for each in self.sessions() if each < session]):
            records = self.of(earlier)
            same = [record for record in records if record.role is role]
            if same or records:
                return (same or list(records))[0]
        return None

    def last_of(self, decider: str) -> NightRecord | None:
        """The last record of a decider; None where it has decided on no night."""
        found = (record for session in reversed(self.sessions()) for record in self.of(session) if record.decider == decider)
        return next(found, None)

    def require(self, session: str) -> tuple[NightRecord, ...]:
        """Records of a session.

        Raises:
            ConfigError: there is none; the nearest ones are named.
        """
        found = self.of(session)
        if not found:
            held = self.sessions()
            known = f"the log holds {held[0]} to {held[-1]}, {plural(len(held), 'night')}" if held else "no night has been run yet"
            raise ConfigError(f"no decision was taken after the close of {session}; {known}")
        return found


def _read(file: Path) -> NightRecord:
    try:
        return NightRecord.model_validate(json.loads(file.read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise StoreError(f"{file} is not a record of a night; restore it from a copy") from error
