"""The page of a night: what is decided for the next open, and what changed since the last one."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ploutos.nightly.changes import Cause
from ploutos.nightly.decision import DECISION, Decision
from ploutos.nightly.forward_log import DeciderRole, Entry
from ploutos.nightly.holdout import HoldoutRead
from ploutos.nightly.night import NightRecord
from ploutos.nightly.night_changes import CHANGES, NightChanges, write_changes
from ploutos.nightly.standing import MoveKind, Verdict
from ploutos.registry.promotion import PROBATION_SESSIONS
from ploutos.reporting.page import render_page, show
from ploutos.reporting.verdict import MEASURES
from ploutos.store import Ref, Store, write_json, write_text, writing
from ploutos.wording import enumerate_names

_SHOWN, _SMALL = 20, 5e-5
_DRIFTED = 0.25
_ORDER = list(Cause)


@dataclass(frozen=True)
class Night:
    """All that a night has come to.

    Attributes:
        record: of the run's own decider.
        entries: what was logged, the run's own first.
        folder: of the run.
        decision, changes: of `record`.
    """

    record: NightRecord
    entries: tuple[Entry, ...]
    verdict: Verdict
    folder: Path
    decision: Decision
    changes: NightChanges

    @classmethod
    def read(cls, store: Store, record: NightRecord, entries: tuple[Entry, ...], verdict: Verdict, folder: Path, changes: Ref) -> "Night":
        """With decision and changes read from the store."""
        return cls(record, entries, verdict, folder, store.load(record.decision, DECISION), store.load(changes, CHANGES))


def night_sentences(night: Night) -> list[str]:
    """The finding first: who decides, what changed most and why, what is due."""
    entry, decision = night.entries[0], night.decision
    weights = decision.weights()
    held = [f"{symbol} {show(weight, 'percent')}" for symbol, weight in weights.items() if abs(weight) > _SMALL]
    sentences = [f"{_who(night.record)} holds {enumerate_names(held) if held else 'nothing'} from {_clock(entry.next_open)} on."]
    if entry.late:
        sentences.append(f"This was written after that open, at {_clock(entry.written)}: it is kept, but is not evidence.")
    if entry.stale:
        sentences.append(f"The source had no bars of {entry.session} in time: the earlier bars decided, and nothing is promoted.")
    sentences += _changed(night.changes)
    return sentences + _due(night.verdict)


def _who(record: NightRecord) -> str:
    own = {
        DeciderRole.CHAMPION: "The champion", DeciderRole.CHALLENGER: "The challenger",
        DeciderRole.CANDIDATE: "A candidate that has not been promoted",
    }  # fmt: skip
    return f"{own[record.role]} ({record.subject})"


def _clock(stamp: str) -> str:
    return f"{stamp[:10]} {stamp[11:16]} UTC"


def _changed(changes: NightChanges) -> list[str]:
    if changes.before is None:
        return ["This is the first night, so there is nothing to compare it with."]
    sums: dict[str, float] = {}
    for row in changes.weights:
        for cause, part in row.parts.items():
            sums[cause] = sums.get(cause, 0.0) + abs(part)
    moved = [(size, cause) for cause, size in sums.items() if size > _SMALL]
    found = []
    if moved:
        parts = [f"{cause} {show(size, 'percent')}" for size, cause in sorted(moved, reverse=True)]
        found.append(f"Weights moved since {changes.before}, summed over symbols without sign: {enumerate_names(parts)}.")
    else:
        found.append(f"No weight moved since {changes.before}.")
    if changes.n_revisions:
        first = changes.revisions[0]
        many = f"{changes.n_revisions:,} values of past bars have changed"
        found.append(f"{many}, the first {first.field} of {first.symbol} at {first.timestamp}: {first.before} became {first.after}.")
    if changes.code_changed:
        found.append("The source changed since then.")
    if changes.settings:
        found.append(f"Settings changed since then: {enumerate_names(list(changes.settings))}.")
    drifted = [row.feature for row in changes.drift if row.psi > _DRIFTED]
    if drifted:
        several = f"{len(drifted)} features are" if len(drifted) > 1 else "1 feature is"
        found.append(f"{several} far from what the policies were trained on (PSI above {_DRIFTED}), {drifted[0]} farthest.")
    return found


def holdout_sentences(read: HoldoutRead) -> list[str]:
    """What the held-out bars said, and whether they were still untouched."""
    passed = [test for test in read.against.tests if test.sign]
    told = [f"{'better' if test.sign > 0 else 'worse'} in {MEASURES[test.measure]}" for test in passed]
    found = f"{read.subject} is {enumerate_names(told)} than" if told else f"{read.subject} cannot be distinguished from"
    own, held = (show(each.total_return, "percent") for each in (read.own, read.benchmark))
    sentences = [f"On the bars held out, {read.first} to {read.last}, {found} buy and hold: it earned {own}, buy and hold {held}."]
    if read.read_before:
        times = "once" if read.read_before == 1 else f"{read.read_before} times"
        sentences.append(f"These bars were read {times} before, so this is not an untouched test: the first read is the one that counts.")
    return sentences


def _due(verdict: Verdict) -> list[str]:
    waits = "is due: a form on the Prefect server waits for a decision" if verdict.asked else "is due: `ploutos models` carries it out"
    done = "was carried out" if verdict.done else waits
    nights = f" over {verdict.n_nights} nights in common, p = {verdict.evidence.p:.3f}" if verdict.evidence else ""
    match verdict.kind:
        case MoveKind.FIRST:
            return [f"A first promotion {done}: every gate is open and there is no champion."]
        case MoveKind.CHALLENGE:
            return ["Tonight's settings are not the champion's, so their subject runs beside it from now on."]
        case MoveKind.REPLACE:
            return [
                f"A promotion of the challenger {done}: it is better than the champion{nights}. "
                f"Probation lasts {PROBATION_SESSIONS} sessions."
            ]
        case MoveKind.ROLLBACK:
            return [f"A rollback {done}: the previous champion is better than the one that replaced it{nights}."]
    found = [f"Champion and challenger cannot be distinguished{nights}."] if verdict.evidence else []
    if verdict.faults:
        found.append(f"No promotion is due; it is held back by: {enumerate_names(list(verdict.faults))}.")
    return found


def write_night(night: Night, target: Path) -> Path:
    """Write the night's folder: index.html, decision.parquet, changes.json and night.json.

    Args:
        target: the folder; one of an earlier run of the same night gives way, file by file.
    """
    frame = night.decision.frame
    with writing(target / "decision.parquet") as temporary:
        DECISION.write(night.decision, temporary)
    write_changes(night.changes, target / "changes.json")
    verdict = night.verdict
    said = {
        "session": night.record.session, "run": os.path.relpath(night.folder, target), "sentences": night_sentences(night),
        "entries": [entry.model_dump(mode="json") for entry in night.entries],
        "verdict": {"kind": verdict.kind, "faults": list(verdict.faults), "nights": verdict.n_nights, "done": verdict.done,
                    "asked": verdict.asked,
                    "p": None if verdict.evidence is None else verdict.evidence.p},
    }  # fmt: skip
    write_json(target / "night.json", said)
    page = render_page(
        "audit.html.j2",
        title=f"Night of {night.record.session}",
        sentences=night_sentences(night),
        figures=[],
        tables=_tables(night, frame),
        footer="Nobody traded on what is decided here. No profit is promised.",
    )
    write_text(target / "index.html", page)
    return target


def _tables(night: Night, frame: pd.DataFrame) -> list[tuple[str, list[str], list[list[str]]]]:
    decided = [
        [row["symbol"], _weight(row["held"]), _weight(row["target"]), row["action"], show(_number(row["confidence"]), "percent"),
         _features(row["features"]), f"{row['advice']} {show(_number(row['advice_confidence']), 'percent')}" if row["advice"] else "-",
         "yes" if row["vetoed"] else "no"]
        for row in frame.to_dict("records")
    ]  # fmt: skip
    headings = ["symbol", "held", "target", "action", "confidence", "most influential features", "advice", "vetoed"]
    tables = [("Target weights for the next open", headings, decided)]
    causes = [cause for cause in _ORDER if any(cause in row.parts for row in night.changes.weights)]
    if causes:
        moved = [
            [row.symbol, _weight(row.before), *(_signed(row.parts.get(cause, 0.0)) for cause in causes), _weight(row.after)]
            for row in night.changes.weights
        ]
        tables.append((f"Why the weights moved since {night.changes.before}, causes replayed from left to right",
                       ["symbol", "before", *causes, "now"], moved))  # fmt: skip
    if night.changes.revisions:
        revised = [[row.symbol, row.timestamp, row.field, str(row.before), str(row.after)] for row in night.changes.revisions]
        tables.append(("Past bars whose values have changed", ["symbol", "bar", "field", "was", "is"], revised))
    drifted = [
        [row.feature, f"{row.psi:.3f}", f"{row.ks:.3f}", show(row.p, "p"), f"{row.n_recent:,}"] for row in night.changes.drift[:_SHOWN]
    ]
    tables.append(("Features of the last quarter against the training range", ["feature", "PSI", "KS", "p (Holm)", "values"], drifted))
    logged = [
        [str(entry.number), entry.role, entry.subject, _clock(entry.written), _clock(entry.next_open), "late" if entry.late else "in time",
         entry.hash[:16]]
        for entry in night.entries
    ]  # fmt: skip
    tables.append(("Forward log", ["entry", "role", "subject", "written", "for the open of", "", "hash"], logged))
    return tables


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _weight(value: float) -> str:
    return "no order" if pd.isna(value) else show(float(value), "percent")


def _signed(value: float) -> str:
    return "-" if abs(value) <= _SMALL else f"{value:+.1%}"


def _features(text: str) -> str:
    return ", ".join(f"{name} {part:+.3f}" for name, part in json.loads(text).items()) or "-"
