"""Ctrl-C and SIGTERM end a run at once, in one line, with every process that it started.

All that is finished is in the store, written whole or not at all, and trainings have checkpoints: so nothing is gained by an orderly end
of threads and workers, which takes minutes and prints what nobody can use. A server that a person runs is told that the run is over.
"""

import logging
import os
import signal
import sys
from types import FrameType

_PATIENCE = 2.0  # seconds that a server is given to hear of it, and processes to end


def end_at_once_on_signals() -> None:
    """From now on SIGINT and SIGTERM end this process, with exit codes 130 and 143, and its children."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    os.write(2, b"\ninterrupted; run the same command again to go on\n")
    sys.stderr.flush()
    _end_children()
    _tell_server()
    os._exit(128 + number)


def _end_children() -> None:
    """Kill workers and whatever they started; a temporary server is one of them."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(children, timeout=_PATIENCE)


def _tell_server() -> None:
    """Let a person's Prefect server know that the flow run has ended; a temporary one is gone."""
    address = os.environ.get("PREFECT_API_URL")
    if address is None:
        return
    import httpx
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    state = {"type": "CRASHED", "name": "Crashed", "message": "interrupted by a person; run the same command again to go on"}
    key = os.environ.get("PREFECT_API_AUTH_STRING")
    auth = None if key is None else httpx.BasicAuth(*key.split(":", 1)) if ":" in key else None
    try:
        url = f"{address.rstrip('/')}/flow_runs/{context.flow_run.id}/set_state"
        httpx.post(url, json={"state": state, "force": True}, auth=auth, timeout=_PATIENCE)
    except httpx.HTTPError:
        return  # the server is away; it will see that nothing more comes
