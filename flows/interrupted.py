"""What a person's Prefect server hears of a run that was interrupted in a terminal."""

import os

import httpx
from prefect.context import FlowRunContext

_PATIENCE = 2.0  # seconds


def tell_server() -> None:
    """Let the server know that the flow run has ended; a temporary one is gone by then and needs no word."""
    address, context = os.environ.get("PREFECT_API_URL"), FlowRunContext.get()
    if address is None or context is None or context.flow_run is None:
        return
    state = {"type": "CRASHED", "name": "Crashed", "message": "interrupted by a person; run the same command again to continue"}
    name, given, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    try:
        httpx.post(
            f"{address.rstrip('/')}/flow_runs/{context.flow_run.id}/set_state", json={"state": state, "force": True},
            auth=httpx.BasicAuth(name, password) if given else None, timeout=_PATIENCE,
        )  # fmt: skip
    except httpx.HTTPError:
        return  # the server is away; it will see that nothing more comes
