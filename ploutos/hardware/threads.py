"""Thread caps. 256 processes with 128 BLAS threads each are 32,768 threads; ours start one.

The numeric libraries read these variables once, when they are first imported. So the caps are put into the environment
that worker processes are born with, and a process that must hold them itself calls `cap_threads` before it imports
numpy or torch. This module imports neither.

A process that works while its workers rest may take a second thread where that is faster: `FasterThreads` finds out by trying.
"""

import os
from collections.abc import Mapping

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

TRIED, ROUND, MOST = 16, 2048, 4096
"""Pieces that are timed before a choice, pieces until one thread is timed again, and the longest wait before two are tried again."""


def capped_environment(threads: int = 1) -> dict[str, str]:
    """The variables that hold a process to `threads` threads per numeric library."""
    return {name: str(threads) for name in VARIABLES}


def cap_threads(threads: int = 1) -> None:
    """Cap this process and all its children; only before numpy and torch are imported does it reach this one."""
    os.environ.update(capped_environment(threads))


def uncapped(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that an environment leaves unset."""
    return [name for name in VARIABLES if name not in environment]


class FasterThreads:
    """One thread or two, for work in pieces that are much alike: two are tried now and then, and kept while they are faster.

    Threads wait for each other, so on a core with other work two take longer than one, and which it is changes while a run goes on. Two
    are given up as soon as their pieces together have taken longer than with one, and tried again after a while, which gets longer
    each time. What a piece answers must not depend on its threads; whoever finds that it does calls `refuse`.

    Args:
        cores: that the process may use; on one core there is nothing to try.

    >>> threads = FasterThreads(cores=2)
    >>> for _ in range(2 * TRIED):
    ...     threads.took(0.6 if threads.now == 2 else 1.0)
    >>> threads.now
    2
    """

    def __init__(self, cores: int) -> None:
        self.now = 1
        """Threads for the next piece."""
        self._cores, self._pieces, self._seconds, self._one, self._wait = cores, 0, 0.0, 0.0, TRIED

    def took(self, seconds: float) -> None:
        """Note what a piece took with `now` threads, and choose for the next."""
        self._pieces, self._seconds = self._pieces + 1, self._seconds + seconds
        if self.now == 1 and self._pieces >= self._wait and self._cores > 1:
            self._one = self._seconds / self._pieces
            self._go_on(2)
        elif self.now == 2 and self._pieces >= TRIED and self._seconds > self._one * self._pieces:
            self._wait = min(self._wait * 4, MOST)
            self._go_on(1)
        elif self.now == 2 and self._pieces == ROUND:
            self._wait = TRIED
            self._go_on(1)

    def refuse(self) -> None:
        """Take one thread from now on: two answer otherwise."""
        self._cores = 1
        self._go_on(1)

    def _go_on(self, threads: int) -> None:
        self.now, self._pieces, self._seconds = threads, 0, 0.0
