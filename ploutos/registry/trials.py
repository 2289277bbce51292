"""What was tried, on which bars: one line of JSON per trial, appended and never changed, shared by every run of a home.

A trial is known by its content, so a run that is resumed, repeated or found in the cache counts once. One host only. Deleting the folder
deletes the memory of what was tried: no number can make up for that.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from ploutos.append_log import AppendLog
from ploutos.evaluation.candidates import Candidates
from ploutos.specs import Spec
from ploutos.store import digest_of, writing
from ploutos.types import FloatArray, TimeArray

_PATH = np.dtype([("day", "<i8"), ("value", "<f8")])


class TrialKind(StrEnum):
    """What was tried."""

    CANDIDATE = "candidate"
    """A path of returns on test bars: every member, vote, fused strategy, regression or strategy of one's own."""
    TRAINING = "training"
    """A policy: one fold and seed."""
    LOOKS = "looks"
    """Looks at a validation curve, by which one training chose when to stop."""
    SEARCH = "search"
    """A candidate of a search of settings."""
    PROMPT = "prompt"
    """A way of asking a model."""
    SETTINGS = "settings"
    """A configuration that was run."""
    HOLDOUT = "holdout"
    """A read of bars that no fold touches."""


class Trial(Spec):
    """One thing that was tried, on some sessions of some symbols."""

    key: str
    """Digest of its content, kind, market and sessions."""
    kind: TrialKind
    """What it was."""
    market: str
    """`exchange`, or the digest of a simulation."""
    symbols: tuple[str, ...]
    """Universe, sorted."""
    first: date
    """First session on which it was scored."""
    last: date
    """Last one."""
    count: PositiveInt = 1
    """How many it stands for, such as looks at one curve."""
    run: str
    """Digest of the configuration that tried it first."""
    at: str
    """When, UTC."""
    facts: dict[str, Any] = {}
    """What a person may want to know of it."""
    procedure: str = ""
    """Digest of what made it, without the last day: the same on a longer span is not a further try and replaces the shorter one."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Trials that share it are one trial on spans of other lengths."""
        return (self.kind, self.procedure or self.key, self.market, *self.symbols)


def make_trial(kind: TrialKind, content: Any, market: str, symbols: Sequence[str], span: tuple[date, date], run: str, **more: Any) -> Trial:
    """A trial with the key of its content.

    Args:
        content: JSON-able; the same content on the same sessions is the same trial.
        more: `count`, `facts`, `procedure`.
    """
    universe, (first, last) = tuple(sorted(symbols)), span
    key = digest_of([kind, content, market, list(universe), str(first), str(last)])
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Trial(key=key, kind=kind, market=market, symbols=universe, first=first, last=last, run=run, at=at, **more)


class TrialRegistry:
    """The trials of one home.

    Args:
        root: usually `$PLOUTOS_HOME/registry`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.file = self.root / "trials.jsonl"
        self._log = AppendLog(self.file, "a trial")

    def trials(self) -> tuple[Trial, ...]:
        """All trials in the order in which they were recorded.

        Raises:
            StoreError: a line that was written whole cannot be read; without it too few trials would be counted.
        """
        return self._log.read(Trial)

    def record(self, trials: Iterable[Trial]) -> int:
        """Append the trials that are not there yet.

        Returns:
            How many are new; they are on the disk.
        """
        with self._log.locked():
            known = {trial.key for trial in self.trials()}
            new = {trial.key: trial for trial in trials if trial.key not in known}
            self._log.append(new.values())
            return len(new)

    def record_read(self, trial: Trial) -> int:
        """Append a read of bars that nobody may choose by; a repeated one is one more. Readers at the same time count each other.

        Returns:
            How often trials of its kind were recorded on some of these bars before.
        """
        with self._log.locked():
            known = self.overlapping(trial.market, trial.symbols, trial.first, trial.last)
            before = sum(each.count for each in known if each.kind is trial.kind)
            self._log.append([trial.model_copy(update={"key": f"{trial.key}-{before}"})])
            return before

    def keep_path(self, sessions: TimeArray, returns: FloatArray) -> str:
        """Keep a path of returns under its content's name, and give that name; it comes before the trial that names it."""
        days = sessions.astype("datetime64[D]").astype(np.int64)
        digest = hashlib.sha256(days.tobytes() + np.ascontiguousarray(returns).tobytes()).hexdigest()
        target = self._path_file(digest)
        if not target.exists():
            with writing(target) as temporary, temporary.open("wb") as file:
                np.save(file, np.array(list(zip(days.tolist(), returns.tolist(), strict=True)), dtype=_PATH), allow_pickle=False)
        return digest

    def path(self, digest: str) -> tuple[TimeArray, FloatArray] | None:
        """Sessions and returns that were kept; None where they were lost."""
        try:
            kept = np.load(self._path_file(digest), allow_pickle=False)
            return kept["day"].astype("datetime64[D]"), kept["value"]
        except (OSError, ValueError, IndexError):  # gone, cut short, or of another form
            return None

    def _path_file(self, digest: str) -> Path:
        return self.root / "paths" / digest[:2] / f"{digest}.npy"

    def overlapping(self, market: str, symbols: Sequence[str], first: date, last: date) -> tuple[Trial, ...]:
        """Trials scored on some of these sessions, with at least one of the symbols, in the order of their keys.

        Of one procedure on several spans, such as a run that is repeated every night, the longest counts, and of equal ones the last.
        """
        longest: dict[tuple[str, ...], Trial] = {}
        for trial in self.trials():
            held = longest.get(trial.identity)
            if held is None or trial.last >= held.last:
                longest[trial.identity] = trial
        found = (
            trial
            for trial in longest.values()
            if trial.market == market and trial.first <= last and trial.last >= first and not {*symbols}.isdisjoint(trial.symbols)
        )
        return tuple(sorted(found, key=lambda trial: trial.key))

    def candidates(self, trials: Sequence[Trial], sessions: TimeArray) -> Candidates:
        """Paths of some trials on some sessions, and what else was tried there.

        A path that was lost counts as a trial that left none. Looks at a curve and trainings are not added to the paths: a look chose among
        policies for later bars, and every training is a path of its own already.
        """
        paths = {trial.key: self.path(trial.facts["path"]) for trial in trials if trial.kind is TrialKind.CANDIDATE}
        kept = {key: found for key, found in paths.items() if found is not None}
        returns = np.full((len(sessions), len(kept)), np.nan)
        for column, (days, values) in enumerate(kept.values()):
            _, ours, theirs = np.intersect1d(sessions.astype("datetime64[D]"), days, return_indices=True)
            returns[ours, column] = values[theirs]
        counts = Counter[str]()
        for trial in trials:
            counts[trial.kind] += trial.count
        searched = counted(trials) - len(kept)
        return Candidates(tuple(kept), sessions.astype("datetime64[D]"), returns, searched, dict(sorted(counts.items())))


def counted(trials: Sequence[Trial]) -> int:
    """How many of some trials one could have picked the best of: paths, and candidates of a search."""
    return sum(trial.count for trial in trials if trial.kind in (TrialKind.CANDIDATE, TrialKind.SEARCH))


def trials_digest(trials: Sequence[Trial]) -> str:
    """Digest of which trials they are."""
    return hashlib.sha256(json.dumps([trial.key for trial in trials]).encode()).hexdigest()
