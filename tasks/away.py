"""A server that is away in the middle of a run.

What a run needs the server for, it waits for, up to eight minutes; what it only shows there comes later, or not at all.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

logger = logging.getLogger("ploutos.server")


@contextmanager
def impatient(retries: int = 0) -> Iterator[None]:
    """A block whose questions to a server that does not answer fail at once or soon: what they are for can be done later.

    Args:
        retries: how often each is asked again, for a server that is only busy: after some 2 s, then 4 s, then 8 s.
    """
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: retries}):
        yield


@contextmanager
def only_shown(what: str) -> Iterator[None]:
    """A block that shows something on the server, and ends nothing that is finished where the server does not answer.

    Args:
        what: it shows, for the sentence that says that it could not.
    """
    try:
        yield
    except httpx.HTTPError as error:
        logger.warning("the server does not answer and shows no %s: %s", what, error or type(error).__name__)
