"""What a run is doing, as a table in the UI that changes while it works, and a progress bar of each stage that takes long.

There is one table a run: an attempt that goes on with it goes on with the table. A thread writes what has changed every few seconds, so a
server that is slow or away holds up nobody; what could not be written comes with the next look.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.context import FlowRunContext

from ploutos.progress import Progress, listening
from ploutos.wording import show_seconds
from tasks.away import impatient
from tasks.slots import have_server

KEY = "ploutos-progress"
_EVERY_S, _LONG_S = 5.0, 20.0


@dataclass
class _Work:
    """One piece of work."""

    began: float
    latest: Progress

    def row(self, now: float) -> dict[str, Any]:
        """As a row of the table."""
        each = self.latest
        if each.state in ("computed", "cached"):
            said = "found in the store" if each.state == "cached" else "done"
            return {"what": _name(each), "state": said, "progress": "100 %", "pace": "", "left": ""}
        share = f"{100 * each.done / each.total:.0f} % of {each.total:,} {each.unit}" if each.total else ""
        here = each.done - each.resumed_at
        left = show_seconds((now - self.began) * (each.total - each.done) / here) if each.total and here > 0 else ""
        return {"what": _name(each), "state": "at work", "progress": share, "pace": each.note, "left": left}


def _name(progress: Progress) -> str:
    return f"{progress.stage} {progress.label}".strip()


def _kind(progress: Progress) -> str:
    """The stage as it was planned: supervised models of every kind are planned together."""
    return progress.stage.partition("-")[0] if progress.stage.startswith("regression-") else progress.stage


class LiveTable:
    """All that is known of a run's work.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._work: dict[str, _Work] = {}
        self._planned: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._long: set[str] = set()
        self._lock = threading.Lock()

    def hear(self, progress: Progress) -> None:
        """Take in one piece of news."""
        now, kind = self._clock(), _kind(progress)
        with self._lock:
            self._began.setdefault(kind, now)
            if progress.state == "planned":
                self._planned[kind] = self._planned.get(kind, 0) + progress.total
                return
            if progress.state != "working" and not progress.label:  # its parts, such as the worlds of a stress test, end with it
                self._work = {name: each for name, each in self._work.items() if _kind(each.latest) != kind}
            self._work.setdefault(_name(progress), _Work(now, progress)).latest = progress

    def rows(self) -> list[dict[str, Any]]:
        """The table: what is at work first, then what has ended, the latest first; and how many are still to come."""
        with self._lock:
            now, works = self._clock(), list(self._work.values())
            open_ = [each for each in works if each.latest.state == "working"]
            ended = [each for each in works if each.latest.state != "working"]
            coming = {stage: n - sum(_kind(each.latest) == stage for each in works) for stage, n in self._planned.items()}
        waiting = [{"what": f"{n} more of {stage}", "state": "to come", "progress": "", "pace": "", "left": ""}
                   for stage, n in coming.items() if n > 0]  # fmt: skip
        return [*(each.row(now) for each in open_), *waiting, *(each.row(now) for each in reversed(ended))]

    def shares(self) -> dict[str, float]:
        """How far each stage is that is at work for long, in percent, and each that was."""
        with self._lock:
            now = self._clock()
            self._long |= {stage for stage, began in self._began.items() if now - began > _LONG_S and self._share(stage) < 100}
            return {stage: self._share(stage) for stage in self._began if stage in self._long}

    def _share(self, stage: str) -> float:
        of_stage = [each.latest for each in self._work.values() if _kind(each.latest) == stage]
        done = sum(1.0 if each.state != "working" else each.done / each.total if each.total else 0.0 for each in of_stage)
        return 100.0 * done / max(self._planned.get(stage, 0), len(of_stage), 1)


@contextmanager
def shown_live(every_s: float = _EVERY_S) -> Iterator[None]:
    """A block whose work is shown in the UI, if this is a flow run on a server that has one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not have_server():
        yield
        return
    table, over = LiveTable(), threading.Event()
    writer = _Writer(context.flow_run.id, table)
    thread = threading.Thread(target=copy_context().run, args=(writer.write_until, over, every_s), name="live-table", daemon=True)
    with listening(table.hear):
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=2 * every_s)  # a server that is away does not keep the run


class _Writer:
    """Writes the table and the progress bars where they have changed."""

    def __init__(self, run: UUID, table: LiveTable) -> None:
        self._run, self._table = run, table
        self._ids: dict[str, UUID] = {}
        self._written: dict[str, str] = {}

    def write_until(self, over: threading.Event, every_s: float) -> None:
        """Write every few seconds, and once more at the end."""
        with impatient(), get_client(sync_client=True) as client:
            ended = False
            while not ended:
                ended = over.wait(every_s)
                try:
                    self._write(client)
                except httpx.HTTPError:  # it comes with the next look
                    continue

    def _write(self, client: SyncPrefectClient) -> None:
        rows = self._table.rows()
        if rows:
            self._keep(client, KEY, "table", json.dumps(rows, allow_nan=False), "What the run is doing")
        for stage, share in self._table.shares().items():
            self._keep(client, f"{KEY}-{stage}", "progress", f"{share:.0f}", f"How far {stage} is, in percent")

    def _keep(self, client: SyncPrefectClient, key: str, kind: str, data: str, description: str) -> None:
        """Make an artifact of this run, or bring the one that there is up to date."""
        if self._written.get(key) == data:
            return
        value = float(data) if kind == "progress" else data
        if key not in self._ids and (found := self._of_an_earlier_attempt(client, key)) is not None:
            self._ids[key] = found
        if key in self._ids:
            client.update_artifact(self._ids[key], ArtifactUpdate(data=value))
        else:
            made = client.create_artifact(ArtifactCreate(key=key, type=kind, data=value, description=description, flow_run_id=self._run))
            self._ids[key] = made.id
        self._written[key] = data

    def _of_an_earlier_attempt(self, client: SyncPrefectClient, key: str) -> UUID | None:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[self._run]))
        found = client.read_artifacts(artifact_filter=wanted, limit=1)
        return found[0].id if found else None
