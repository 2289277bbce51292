"""Prefect's command, as `ploutos serve` starts its worker: `python -m deployments.worker worker start`.

Its log is as ours, and it waits for a server that is away. By itself it waits only where it has spoken to the server before: what looks for
cancelled runs has not, and gives up after three looks, under pages of tracebacks, and then no run that is under way can be cancelled.
"""

from typing import Any, cast

from prefect.cli import app
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

from tasks.prefect_log import shorten_log


def wait_for_server() -> None:
    """From now on every client of this process asks a server that refuses connections again, as one that does not answer."""
    for client in (PrefectHttpxAsyncClient, PrefectHttpxSyncClient):
        cast(Any, client)._has_connected = property(lambda _: True, lambda *_: None)


if __name__ == "__main__":
    shorten_log()
    wait_for_server()
    app()
