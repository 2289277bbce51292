"""A server that is away in the middle of a run: the run goes on and says so in a sentence, where Prefect prints every event that it lost.

What a run needs the server for, it waits for, up to eight minutes; what it only shows there comes later, or not at all.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from websockets.exceptions import ConnectionClosed, InvalidHandshake

logger = logging.getLogger("ploutos.server")
_LOST = {"prefect.events.clients": "Unable to connect to ", "prefect._internal.concurrency": "Service %r failed to process item %r"}
"""How Prefect's senders begin to say that something did not reach the server, by logger."""
_BY_CONNECTION = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError)
_QUIET_S = 300.0


class LostConnection(logging.Filter):
    """Says once, in place of all that Prefect's senders say of a connection that is gone, that it is; whatever else they say stays.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._latest = clock, float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        begins = _LOST.get(record.name)
        if begins is None or not str(record.msg).startswith(begins) or not isinstance(sys.exc_info()[1], _BY_CONNECTION):
            return True
        now, before = self._clock(), self._latest
        self._latest = now
        if now - before > _QUIET_S:
            logger.warning(
                "the server at %s does not answer; the run goes on, and some of it may not be shown there", PREFECT_API_URL.value()
            )
        return False


_FILTER = LostConnection()


def hush_lost_connections() -> None:
    """From now on a connection that is gone is one sentence; calling it again changes nothing."""
    for name in _LOST:
        logging.getLogger(name).addFilter(_FILTER)


@contextmanager
def impatient() -> Iterator[None]:
    """A block whose questions to a server that is away fail at once: what they are for can be done later."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield
