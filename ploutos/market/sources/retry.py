"""How a vendor is asked: not too often, and again after a fault that may pass.

What may pass is `RateLimited` and `VendorDown`; every other error is the vendor's last word.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ploutos.errors import RateLimited, VendorDown

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class RateLimiter:
    """Requests at even steps, so that no minute sees more than it may."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep) -> None:
        self._step = 60 / per_minute
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    def wait(self) -> None:
        """Return when the next request may go out."""
        pause = min(self._next - self._clock(), self._step)  # never longer, also where a clock was set back
        if pause > 0:
            self._sleep(pause)
        self._next = self._clock() + self._step


@dataclass(frozen=True)
class Retry:
    """Ask again, after pauses that double, until the timeout.

    Attributes:
        retry_for_s: seconds from the first request to the last one.
        first_s, longest_s: the first pause and the longest, seconds; a vendor that asks for a longer one gets it.
    """

    retry_for_s: float = 180.0
    first_s: float = 1.0
    longest_s: float = 30.0
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` returns, once it does.

        Raises:
            RateLimited, VendorDown: the last one, when waiting longer would take more than the timeout; its sentence says
                how often was asked.
        """
        started, pause, asked = self.clock(), self.first_s, 0
        while True:
            try:
                return ask()
            except (RateLimited, VendorDown) as error:
                asked += 1
                wanted = max(pause, error.retry_after) if isinstance(error, RateLimited) else pause
                waited = self.clock() - started
                if waited + wanted > self.retry_for_s:
                    times = "once" if asked == 1 else f"{asked} times in {waited:.0f} s"
                    error.args = (f"{error}; asked {times}; run again later to go on from the last page",)
                    raise
                logger.info("%s; asking again in %.0f s", error, wanted)
                self.sleep(wanted)
                pause = min(2 * pause, self.longest_s)
