"""Prefect's log without what nobody can use: a connection that is gone is one sentence, where Prefect prints every event that it lost, and
an error of ours is its sentence, which says all. Every other error keeps its traceback.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable

from prefect.settings import PREFECT_API_URL
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from ploutos.errors import PloutosError

logger = logging.getLogger("ploutos.server")
_GONE = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError)
_LOST: dict[str, tuple[str, tuple[type[BaseException], ...]]] = {
    "prefect.events.clients": ("Unable to connect to ", _GONE),
    "prefect._internal.concurrency": ("Service %r failed to process item %r", _GONE),
    "prefect.FlowRunCancellingObserver": ("", _GONE),
    "prefect.FlowRunSuspendingObserver": ("", _GONE),
    "asyncio": ("_handle_polling_task_done", (asyncio.CancelledError,)),  # Prefect asks a task that it has cancelled for its error
}
"""What Prefect says when something did not reach the server, and the errors that explain it, by logger."""
_QUIET_S = 300.0


class LostConnection(logging.Filter):
    """Says once, in place of all that Prefect says of a connection that is gone, that it is; whatever else it says stays.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._latest = clock, float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        says, errors = _LOST.get(record.name, ("", ()))
        error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
        if says not in str(record.msg) or not isinstance(error, errors):
            return True
        now, before = self._clock(), self._latest
        self._latest = now
        if now - before > _QUIET_S:
            logger.warning(
                "the server at %s does not answer; the run continues, and parts of it may not be shown there", PREFECT_API_URL.value()
            )
        return False


class OneSentence(logging.Filter):
    """Drops the traceback of our own errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], PloutosError):
            record.exc_info, record.exc_text = None, None
        return True


_FILTERS: dict[logging.Filter, tuple[str, ...]] = {
    LostConnection(): tuple(_LOST),
    OneSentence(): ("prefect.task_runs", "prefect.flow_runs"),
}


def shorten_log() -> None:
    """From now on this process's log is as this module has it; calling it again changes nothing."""
    for each, names in _FILTERS.items():
        for name in names:
            logging.getLogger(name).addFilter(each)
