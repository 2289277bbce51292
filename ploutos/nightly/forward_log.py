"""The forward log: every night's decision, written before the open it is for, in a chain of hashes that only grows.

It is the one record of skill that needs no trust in a backtest: what stands in it was decided before its outcome. Each entry holds the hash
of the one before, so that nothing can be taken out or changed without breaking every later hash; who wants the dates certain, too, keeps
the last hash elsewhere from time to time. An entry written after its open is kept and marked late, and is not evidence. One host only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import numpy as np

from ploutos.append_log import AppendLog
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StoreError
from ploutos.evaluation.backtest import Backtests, Segment, run_backtests
from ploutos.evaluation.metrics import periods_of, session_returns, to_date
from ploutos.market.bars import Bars
from ploutos.nightly.decision import Decision
from ploutos.specs import Spec
from ploutos.store import digest_of
from ploutos.strategies.base import PrecomputedTargets
from ploutos.types import FloatArray, TimeArray
from ploutos.walk_forward import Range

_START = "0" * 64


class DeciderRole(StrEnum):
    """What a decider is to its market on a night."""

    CHAMPION = "champion"
    """Was promoted."""
    CHALLENGER = "challenger"
    """Runs beside the champion and decides nothing."""
    CANDIDATE = "candidate"
    """There is no champion yet."""


class Entry(Spec):
    """One decision, as it stood when it was written."""

    number: int
    """Position in the log, from 0."""
    session: str
    """After whose close it was taken."""
    role: DeciderRole
    """Of who decided."""
    decider: str
    """Digest of the subject and of the settings that make it; it outlives retraining by plan."""
    subject: str
    """Slug of what decided."""
    weights: dict[str, float | None]
    """Target share of equity by symbol; None for no order."""
    held: dict[str, float]
    """Share of equity that the decider's account held by then."""
    next_open: str
    """When it would be filled, UTC."""
    written: str
    """When it was appended, UTC."""
    late: bool
    """It was written after that open."""
    stale: bool
    """Its bars end before the session: the source was late or down."""
    decision: str
    """sha256 of decision.parquet."""
    bars: str
    """sha256 of the bars it was taken on."""
    before: str
    """Hash of the entry before; zeros for the first."""
    hash: str
    """sha256 of all of the above."""


def _hash(fields: dict[str, object]) -> str:
    return digest_of({name: value for name, value in fields.items() if name != "hash"})


class ForwardLog:
    """The forward log of one home.

    Args:
        root: usually `$PLOUTOS_HOME/registry`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.file = self.root / "forward.jsonl"
        self._log = AppendLog(self.file, "an entry")

    def entries(self) -> tuple[Entry, ...]:
        """All entries, the oldest first, every hash checked.

        Raises:
            StoreError: a line cannot be read, or the chain is broken.
        """
        before, found = _START, self._log.read(Entry)
        for number, entry in enumerate(found):
            if (entry.number, entry.before) != (number, before) or entry.hash != _hash(entry.model_dump(mode="json")):
                raise StoreError(
                    f"line {number + 1} of {self.file} does not follow from the lines before it: the log was changed after it was "
                    "written; restore it from a copy"
                )
            before = entry.hash
        return found

    def append(
        self, decision: Decision, role: DeciderRole, decider: str, *, sha256: str, bars: str, stale: bool = False,
        now: datetime | None = None,
    ) -> Entry:  # fmt: skip
        """Append a decision; the same one of the same decider and role counts once.

        Args:
            sha256: of the decision's file.
            bars: sha256 of the bars.
            stale: its bars end before the session.
            now: when; the clock's time by default.

        Returns:
            The entry, on the disk.
        """
        with self._log.locked():
            entries = self.entries()
            for entry in entries:
                if (entry.session, entry.role, entry.decider, entry.decision) == (decision.session, role, decider, sha256):
                    return entry
            at = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            weights = {
                symbol: float(target) if np.isfinite(target) else None
                for symbol, target in zip(decision.frame["symbol"].tolist(), decision.frame["target"].tolist(), strict=True)
            }
            held = {str(symbol): float(share) for symbol, share in zip(decision.frame["symbol"], decision.frame["held"], strict=True)}
            fields = {
                "number": len(entries), "session": decision.session, "role": role.value, "decider": decider, "subject": decision.subject,
                "weights": weights, "held": held, "next_open": decision.next_open, "written": at,
                "late": at >= decision.next_open, "stale": stale, "decision": sha256, "bars": bars,
                "before": entries[-1].hash if entries else _START,
            }  # fmt: skip
            entry = Entry.model_validate(fields | {"hash": _hash(fields)})
            self._log.append([entry])
            return entry


def decided_in_time(entries: Sequence[Entry], decider: str) -> dict[str, Entry]:
    """A decider's evidence by session: the first entry of each that was written before its open."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.decider == decider and not entry.late:
            found.setdefault(entry.session, entry)
    return found


def certified_sessions(entries: Sequence[Entry], decider: str, backtests: Backtests, slug: str, bars: Bars) -> tuple[date, ...]:
    """Sessions of a backtest whose return came of a decision that the forward log holds, taken after the close of the session before.

    The entry was written before its open and on bars that were not stale, and its weights are what the account decided at that bar, to
    the last bit: data revised since, other code or other policies leave no certificate. With several bars a session there is none either,
    because the log holds one decision a night.

    Args:
        decider: digest of the account and of the settings that make it.
        slug: of the account.
        bars: of the backtest.
    """
    nights = {session: entry for session, entry in decided_in_time(entries, decider).items() if not entry.stale}
    if slug not in backtests.slugs or not nights:
        return ()
    sessions, targets, found = bars.sessions[backtests.positions], backtests.targets[backtests.row(slug)], []
    for at, (before, session) in enumerate(pairwise(sessions)):
        whole = before != session and (at + 2 == len(sessions) or sessions[at + 2] != session)
        if whole and (entry := nights.get(str(before))) is not None:
            decided = {symbol: float(each) if np.isfinite(each) else None for symbol, each in zip(bars.symbols, targets[at], strict=True)}
            if decided == entry.weights:
                found.append(to_date(session))
    return tuple(found)


@dataclass(frozen=True)
class ForwardReturns:
    """What two deciders' logged decisions would have earned, each from an account of its own.

    Attributes:
        sessions: shape (n,), datetime64[D].
        one, other: shape (n,), session returns net of costs.
    """

    sessions: TimeArray
    one: FloatArray
    other: FloatArray


def forward_returns(bars: Bars, entries: Sequence[Entry], one: str, other: str, env: EnvSpec) -> ForwardReturns | None:
    """Session returns of two deciders on the nights on which both decided in time, from their first such night on.

    Both start flat on that night and follow what the log holds; a night that is missing is one without orders.

    Args:
        bars: with the outcomes.
        env: costs and limits, for both.

    Returns:
        None where no session has closed since their first night in common.
    """
    both = [decided_in_time(entries, decider) for decider in (one, other)]
    shared = sorted(both[0].keys() & both[1].keys())
    if not shared:
        return None
    last_bars = {str(session): bar for bar, session in enumerate(bars.sessions)}  # the last bar of a session wins
    known = [session for session in shared if session in last_bars]
    if not known or (first := last_bars[known[0]]) >= bars.n_bars - 1:
        return None
    column, tables = {symbol: at for at, symbol in enumerate(bars.symbols)}, []
    for name, found in zip(("one", "other"), both, strict=True):
        table = np.full((bars.n_bars, bars.n_symbols), np.nan)
        for session in known:
            for symbol, target in found[session].weights.items():
                if symbol in column and target is not None:
                    table[last_bars[session], column[symbol]] = target
        tables.append(PrecomputedTargets(name, table))
    result = run_backtests(bars, None, [Segment(Range(start=first + 1, stop=bars.n_bars))], tables, env, keep=())
    periods = periods_of(bars, result)
    paths = [session_returns(result.equity[row], periods) for row in range(2)]
    held = np.unique(bars.sessions[first + 1 :])
    return ForwardReturns(held[-len(paths[0]) :], paths[0], paths[1])
