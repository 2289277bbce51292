"""A circuit breaker: a server that failed several times in a row is not called for a while."""

import threading
import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed while calls succeed; open after `failures` in a row; after `cooldown_s` one call may try again.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, failures: int = 5, cooldown_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._cooldown_s, self._clock = failures, cooldown_s, clock
        self._in_a_row = 0
        self._opened: float | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the next call would be refused."""
        return self.remaining_s > 0

    @property
    def remaining_s(self) -> float:
        """Seconds until a call may be tried; 0 when it may be now."""
        with self._lock:
            return self._remaining()

    def _remaining(self) -> float:
        return 0.0 if self._opened is None else max(self._opened + self._cooldown_s - self._clock(), 0.0)

    def allow(self) -> bool:
        """Whether a call may be made now; when the pause is over, the first to ask may and the others wait on."""
        with self._lock:
            if self._opened is None:
                return True
            if self._remaining() > 0:
                return False
            self._opened = self._clock()
            return True

    def succeeded(self) -> None:
        """A call came back: forget the failures."""
        with self._lock:
            self._in_a_row, self._opened = 0, None

    def failed(self) -> None:
        """A call failed; the last one allowed opens the breaker."""
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row >= self._limit:
                self._opened = self._clock()
