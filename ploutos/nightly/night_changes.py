"""What is different from the last night, whole: bars of the past, features, settings, code, and each weight part by part."""

import json
from pathlib import Path
from typing import Any, Literal

from ploutos.errors import StoreError
from ploutos.features.build import FEATURES
from ploutos.market.bars import BARS, Bars
from ploutos.nightly.changes import Cause, Drift, Revision, drift, explain_changes, revisions, settings_changed
from ploutos.nightly.decision import DECISION
from ploutos.nightly.night import NightRecord, facts_of, inputs_of
from ploutos.specs import Spec
from ploutos.store import Kind, Store, write_json
from ploutos.walk_forward import FOLDS, Range

SCHEMA_VERSION: Literal[1] = 1
RECENT_SESSIONS = 63
"""A quarter: how far back features are held against those that policies were trained on."""
MOST_REVISIONS = 200
"""Revisions that are kept one by one; all are counted."""


class WeightRow(Spec):
    """Why a symbol's weight changed."""

    symbol: str
    before: float
    """Share of equity to hold, then."""
    after: float
    """Now."""
    parts: dict[Cause, float]
    """By cause; they sum to the change."""
    residual: float
    """What they leave unexplained: rounding alone."""


class NightChanges(Spec):
    """What is different from the last night; the numbers of its page, and `changes.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Of this file; one without it is of the first version."""
    session: str
    """Of the night."""
    before: str | None
    """Session of the night that it is compared with; None on the first one, which has nothing but drift."""
    revisions: tuple[Revision, ...] = ()
    """The first values of past bars that are others than they were."""
    n_revisions: int = 0
    """How many there are."""
    settings: dict[str, tuple[Any, Any]] = {}
    """Settings that differ: dotted name to both values."""
    code_changed: bool = False
    """The source is another one."""
    weights: tuple[WeightRow, ...] = ()
    """Of every symbol that either night knows."""
    drift: tuple[Drift, ...] = ()
    """Of the features' recent values, the largest first."""


def recent_range(bars: Bars, sessions: int = RECENT_SESSIONS) -> Range:
    """The bars of about so many sessions at the end, five of them to a week."""
    start = int((bars.sessions < bars.sessions[-1] - sessions * 7 // 5).sum())
    return Range(start=start, stop=bars.n_bars)


def night_changes(store: Store, before: NightRecord | None, today: NightRecord) -> NightChanges:
    """Compare two nights, from the store alone.

    Args:
        before: the night that today's is compared with; None where there is none.

    Raises:
        StoreError: an artifact is gone or damaged.
    """
    refs = today.refs
    features, folds, bars = store.load(refs.features, FEATURES), store.load(refs.folds, FOLDS), store.load(refs.bars, BARS)
    drifted = tuple(drift(features, folds[-1].train, recent_range(bars)))
    if before is None:
        return NightChanges(session=today.session, before=None, drift=drifted)
    revised = revisions(store.load(before.refs.bars, BARS), bars)
    facts = facts_of(store, before), facts_of(store, today)
    kept, decided = store.load(before.decision, DECISION), store.load(today.decision, DECISION)
    rows = explain_changes(kept, inputs_of(store, before), inputs_of(store, today), facts, decided)
    return NightChanges(
        session=today.session, before=before.session, revisions=tuple(revised[:MOST_REVISIONS]), n_revisions=len(revised),
        settings=settings_changed(*facts), code_changed=before.code != today.code, drift=drifted,
        weights=tuple(
            WeightRow(symbol=row.symbol, before=row.before, after=row.after, parts=row.parts, residual=row.residual) for row in rows
        ),
    )  # fmt: skip


def write_changes(changes: NightChanges, path: Path) -> None:
    """Write it as JSON."""
    write_json(path, changes.model_dump(mode="json"))


def read_changes(path: Path) -> NightChanges:
    """Read what `write_changes` wrote, or what was written before it had a schema version.

    Raises:
        StoreError: the file is missing, damaged, or of another schema version.
    """
    try:
        return NightChanges.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:  # of the file, of its JSON, or of its fields
        raise StoreError(f"{path} does not say what changed in a night; restore it from a copy, or run the night again") from error


CHANGES = Kind("changes", ".json", write_changes, read_changes)
