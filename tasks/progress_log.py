"""Progress of a task's long work in Prefect's log, where there is no display to show it."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ploutos.progress import Progress, listening

_EVERY_S = 15.0


@contextmanager
def questions_logged(
    logger: "logging.Logger | logging.LoggerAdapter[Any]", stage: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """A block in which a log tells how far the questions of a stage are: every quarter of a minute, and at the last.

    Args:
        clock: seconds that only grow.
    """
    said = clock()

    def hear(progress: Progress) -> None:
        nonlocal said
        now = clock()
        if progress.stage == stage and progress.unit == "questions" and (progress.done == progress.total or now - said >= _EVERY_S):
            said = now
            logger.info("%s: %d of %d questions, %s", stage, progress.done, progress.total, progress.note)

    with listening(hear):
        yield
