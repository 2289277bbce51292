"""Helpers: flow runs on Prefect workers that do the work of a run, each one piece after another in one process that imports once.

Nothing here watches them but whoever waits for a piece of work: who looks first looks for all who wait, with one question to the server.
Where nobody waits nothing is asked, and a helper that hears nothing for a minute ends by itself.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from flows.member import DONE, input_key
from ploutos.errors import OrchestratorError, TrainingError
from tasks.away import impatient

logger = logging.getLogger("ploutos.helpers")
_SOONEST_S, _LATEST_S, _SLOWER = 1.0, 5.0, 1.5
_SPARE, _PAGE = 4, 200
_UNBEGUN = "was not started: the run has ended"


@dataclass(eq=False)
class _Piece:
    """A piece of work, and what whoever asked for it waits for."""

    task: str
    work: dict[str, Any]
    ended: "Future[None]" = field(default_factory=Future)


@dataclass(eq=False)
class _Helper:
    """A helper that has not ended, as it was when the server was last asked; the first piece in its hand is the one that it does."""

    id: UUID
    name: str
    taken: bool = False
    running: bool = False
    n_sent: int = 0
    n_done: int = 0
    in_hand: deque[_Piece] = field(default_factory=deque)


class Helpers:
    """Those of one deployment, and the work that waits for them; made by the thread of the flow whose helpers they are.

    Args:
        deployment: which workers take them.
        at_most: how many there may be at once.
        numbers: of helpers, for their names.
    """

    def __init__(self, deployment: str, at_most: int, client: SyncPrefectClient, numbers: Iterator[int]) -> None:
        self._deployment, self._at_most, self._client, self._numbers = deployment, at_most, client, numbers
        self._context = copy_context()
        self._queue: deque[_Piece] = deque()
        self._open: dict[UUID, _Helper] = {}
        self._lock = Lock()
        self._looked, self._pause, self._over = -_LATEST_S, _SOONEST_S, False

    def do(self, task: str, work: dict[str, Any]) -> None:
        """Have a helper do a piece of work.

        Raises:
            OrchestratorError: the deployment is not there.
            TrainingError: the helper that did it ended in the middle, or the run ended before one began.
        """
        piece = _Piece(task, work)
        with self._lock:
            self._queue.append(piece)
            self._pause = _SOONEST_S
        while not wait((piece.ended,), max(0.01, self._looked + self._pause - time.monotonic())).done:
            self._look()
        piece.ended.result()

    def stop(self, at_once: bool) -> None:
        """Begin nothing more; at once: end what is under way as well."""
        with self._lock:
            self._over = True
            _fail(self._queue, _UNBEGUN)
            if at_once:
                with _goodbye():
                    for helper in self._open.values():
                        self._client.set_flow_run_state(helper.id, Cancelling(message="The run that it works for was interrupted."))
                for helper in self._open.values():
                    _fail(helper.in_hand, "was interrupted")
                self._open.clear()

    def dismiss(self) -> None:
        """Let helpers end that have nothing to do any more."""
        with self._lock, _goodbye():
            self._hear()
            self._recall(lambda helper: not helper.running)
            for helper in self._open.values():
                self._send(helper, None)

    def _look(self) -> None:
        """Hear what has ended, and give out what waits, if nobody else has just done so."""
        with self._lock:
            if time.monotonic() < self._looked + self._pause:
                return
            news = self._hear()
            if self._over:
                _fail(self._queue, _UNBEGUN)
            news += self._give()
            self._start()
            if not self._queue:
                self._recall(lambda helper: not helper.taken)
            self._pause = _SOONEST_S if news else min(_SLOWER * self._pause, _LATEST_S)
            self._looked = time.monotonic()

    def _hear(self) -> int:
        """Take in how all helpers are; how many pieces of work have ended."""
        ids, found = list(self._open), dict[UUID, FlowRun]()
        for first in range(0, len(ids), _PAGE):
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=ids[first : first + _PAGE]))
            found |= {run.id: run for run in self._client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE)}
        return sum(self._hear_of(helper, found.get(helper.id)) for helper in list(self._open.values()))

    def _hear_of(self, helper: _Helper, run: FlowRun | None) -> int:
        before, state = helper.n_done, None if run is None else run.state
        helper.n_done = before if run is None else int(run.labels.get(DONE, 0))
        for _ in range(helper.n_done - before):
            helper.in_hand.popleft().ended.set_result(None)
        if state is not None and not state.is_final():
            helper.taken, helper.running = not state.is_scheduled(), state.is_running()
        else:
            self._part(helper, state)
        return helper.n_done - before

    def _part(self, helper: _Helper, state: State[Any] | None) -> None:
        """Give what a helper had not begun back to the queue; what it was doing fails, unless it ended by itself because it heard nothing.

        One that failed before it was given anything fails what is next, or all others could fail as it did, for ever.
        """
        del self._open[helper.id]
        self._queue.extendleft(reversed(helper.in_hand))
        blamed = helper.in_hand or not helper.n_sent
        if self._queue and blamed and not (state is not None and state.is_completed()):
            said = "nothing" if state is None else f"{state.name}: {state.message}"
            piece = self._queue.popleft()
            told = f"{piece.task} on a Prefect worker ended in {said}; its log is that of flow run {helper.name}"
            piece.ended.set_exception(TrainingError(told))

    def _give(self) -> int:
        """Send work to running helpers: to those without any, then one ahead while there is more than one for each; how much was sent."""
        ready, n_before = [helper for helper in self._open.values() if helper.running], len(self._queue)
        for in_hand, at_least in ((0, 1), (1, len(ready))):
            for helper in ready:
                if len(helper.in_hand) == in_hand and len(self._queue) >= at_least:
                    self._send(helper, self._queue[0].work)
                    helper.in_hand.append(self._queue.popleft())
        return n_before - len(self._queue)

    def _start(self) -> None:
        """Have a helper for each piece that waits, but only a few that no worker has taken: nobody knows how many workers there are."""
        n_taken = sum(helper.taken for helper in self._open.values())
        n_busy = sum(bool(helper.in_hand) for helper in self._open.values())
        for _ in range(len(self._open), min(self._at_most, n_busy + len(self._queue), n_taken + max(_SPARE, n_taken))):
            helper = self._context.run(self._start_one)
            self._open[helper.id] = helper

    def _start_one(self) -> _Helper:
        asking = FlowRunContext.get()
        assert asking is not None
        assert asking.flow_run is not None
        name = f"helper {next(self._numbers)} of {asking.flow_run.name}"
        try:
            run = cast(FlowRun, run_deployment(self._deployment, flow_run_name=name, timeout=0))
        except ObjectNotFound as error:
            raise OrchestratorError(f"there is no deployment {self._deployment} on this server; run `ploutos deploy`") from error
        return _Helper(run.id, name)

    def _recall(self, which: Callable[[_Helper], bool]) -> None:
        """Cancel helpers that have not begun: a worker then never starts them."""
        for helper in [each for each in self._open.values() if which(each) and not each.in_hand]:
            self._client.set_flow_run_state(helper.id, Cancelling(message="There is no work left for it."))
            del self._open[helper.id]

    def _send(self, helper: _Helper, work: dict[str, Any] | None) -> None:
        try:
            self._client.create_flow_run_input(helper.id, input_key(helper.n_sent), json.dumps(work))
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.CONFLICT:  # it arrived the first time, and the answer was lost
                raise
        helper.n_sent += 1


def _fail(pieces: deque[_Piece], how: str) -> None:
    while pieces:
        piece = pieces.popleft()
        piece.ended.set_exception(TrainingError(f"{piece.task} {how}; finished members are kept; run again to continue"))


@contextmanager
def _goodbye() -> Iterator[None]:
    """A block that tells helpers to end; where the server does not answer, they end by themselves."""
    try:
        with impatient(retries=2):
            yield
    except httpx.HTTPError as error:
        logger.warning(
            "helpers were not told that they may end (%s); they do so a minute after their last work", error or type(error).__name__
        )
