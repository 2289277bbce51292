"""A connection that is gone is one sentence, and hides nothing else; what a server would only show ends nothing."""

import ast
import asyncio
import logging
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

from deployments.worker import wait_for_server
from ploutos.errors import StoreError
from tasks import slots
from tasks.away import only_shown
from tasks.prefect_log import LostConnection, OneSentence

EVENTS, SERVICES = "prefect.events.clients", "prefect._internal.concurrency"
LOST = [
    (EVENTS, "Unable to connect to %r. Reason: %s.", ("ws://x", "refused")),
    (SERVICES, "Service %r failed to process item %r", ("EventsWorker", {})),
]
OBSERVER = "prefect.FlowRunCancellingObserver"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def passed(quiet, name, message, values, error):
    """Whether a message that is logged while an error is handled gets through."""
    record = logging.LogRecord(name, logging.WARNING, "", 0, message, values, None)
    if error is None:
        return quiet.filter(record)
    try:
        raise error
    except type(error):
        return quiet.filter(record)


def test_all_that_is_lost_in_an_outage_is_one_sentence(caplog):
    clock = Clock()
    quiet = LostConnection(clock)
    for clock.now in (0.0, 10.0, 150.0, 400.0):
        for name, message, values in LOST:
            assert not passed(quiet, name, message, values, ConnectionRefusedError())
    assert [each.name for each in caplog.records] == ["ploutos.server"]
    assert "does not answer; the run continues" in caplog.text
    clock.now = 1000.0  # another outage
    assert not passed(quiet, *LOST[0], TimeoutError())
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [None, ValueError("ours"), KeyError("payload"), AssertionError()])
def test_what_no_connection_explains_is_said(error, caplog):
    quiet = LostConnection()
    assert all(passed(quiet, *each, error) for each in LOST)
    assert passed(quiet, "prefect.flow_runs", LOST[0][1], LOST[0][2], OSError())
    assert passed(quiet, EVENTS, "Attaching only %s of the %s related resources", (1, 2), OSError())
    assert passed(quiet, SERVICES, "Service %r failed with %s pending items.", ("EventsWorker", 3), OSError())
    assert not caplog.records


def logged(name, message, error):
    """What Prefect logs with an error of its own choosing."""
    return logging.LogRecord(name, logging.ERROR, "", 0, message, (), (type(error), error, error.__traceback__))


def test_a_worker_that_no_longer_hears_of_cancelled_runs_by_socket_says_no_traceback(caplog):
    quiet = LostConnection()
    for name in (OBSERVER, "prefect.FlowRunSuspendingObserver"):
        for message in (
            "The observer's websocket failed with an exception. Switching to polling mode.",
            "Consumer task exited with exception",
        ):
            assert not quiet.filter(logged(name, message, TimeoutError("timed out during opening handshake")))
    closing = "Exception in callback FlowRunCancellingObserver._handle_polling_task_done(<Task cancelled>)"
    assert not quiet.filter(logged("asyncio", closing, asyncio.CancelledError()))
    assert len(caplog.records) == 1
    assert quiet.filter(logged(OBSERVER, "Cancellation polling task failed.", RuntimeError("Service exceeded error threshold.")))
    assert quiet.filter(logged("asyncio", closing, ValueError()))
    assert quiet.filter(logged("asyncio", "Task exception was never retrieved", asyncio.CancelledError()))


def test_an_error_of_ours_is_its_sentence_and_a_foreign_one_keeps_its_traceback():
    ours, foreign = logged("prefect.task_runs", "Task run failed", StoreError("no space left")), logged("x", "y", OSError())
    for each in (ours, foreign):
        assert OneSentence().filter(each)
    assert ours.exc_info is None
    assert foreign.exc_info[0] is OSError


_LOGS = """
import logging
from tasks.prefect_log import shorten_log
shorten_log()
shorten_log()
import prefect.main
from prefect.logging.configuration import setup_logging
setup_logging(incremental=False)
for name, error in (("prefect.task_runs", "StoreError('ours')"), ("prefect.FlowRunCancellingObserver", "TimeoutError()")):
    from ploutos.errors import StoreError
    try:
        raise eval(error)
    except Exception:
        logging.getLogger(name).exception("it failed", extra={"task_run_name": "train"})
"""


def test_prefect_sets_up_its_log_and_ours_stays_short(tmp_path):
    environment = os.environ | {"PREFECT_HOME": str(tmp_path), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    said = subprocess.run([sys.executable, "-c", _LOGS], capture_output=True, text=True, check=True, timeout=300, env=environment).stderr
    assert "Traceback" not in said
    assert said.count("it failed") == 1  # ours; of the connection there is a sentence in its place
    assert said.count("does not answer; the run continues") == 1


def test_a_server_that_is_away_shows_nothing_and_ends_nothing(caplog):
    with only_shown("link to the night"):
        raise httpx.ConnectError("connection refused")
    assert caplog.messages == ["the server does not answer and shows no link to the night: connection refused"]
    with pytest.raises(ValueError, match="ours"), only_shown("link"):
        raise ValueError("ours")


def asked(n_refusals):
    """How often a client that is new asks a server that refuses its first connections."""
    n_asked = 0

    def answer(request):
        nonlocal n_asked
        n_asked += 1
        if n_asked <= n_refusals:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    with PrefectHttpxSyncClient(transport=httpx.MockTransport(answer)) as client:
        client.get("http://127.0.0.1/api/health")
    return n_asked


def test_a_worker_waits_for_a_server_that_it_has_not_spoken_to_yet(monkeypatch):
    monkeypatch.setattr("prefect.client.base.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    for each in (PrefectHttpxSyncClient, PrefectHttpxAsyncClient):
        monkeypatch.setattr(each, "_has_connected", False, raising=False)  # so that it is as before afterwards
    with pytest.raises(httpx.ConnectError):
        asked(3)
    wait_for_server()
    assert asked(3) == 4


def called(tree):
    """Names of what a syntax tree calls."""
    return [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]


def test_no_artifact_of_any_flow_or_task_can_end_what_is_finished():
    makes, sheltered = [], []
    for file in sorted(file for folder in ("flows", "tasks") for file in (Path(slots.__file__).parents[1] / folder).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        shelters = [each for each in ast.walk(tree) if isinstance(each, ast.With) and "only_shown" in called(each.items[0])]
        for found, nodes in ((makes, [tree]), (sheltered, shelters)):
            found += [(file.name, name) for node in nodes for name in called(node) if name.startswith("create_") and "_artifact" in name]
    assert len(makes) >= 9
    assert sheltered == makes


def refusal(status):
    request = httpx.Request("POST", "http://127.0.0.1/api")
    return httpx.HTTPStatusError(f"status {status}", request=request, response=httpx.Response(status, request=request))


def taking(monkeypatch, *answers):
    """A slot is asked for; the server gives these answers, one after another."""
    left = list(answers)

    def lease(client, name):
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(slots, "get_client", lambda sync_client: nullcontext())
    monkeypatch.setattr(slots, "make_slot", lambda client, name: None)
    monkeypatch.setattr(slots, "_lease", lease)
    monkeypatch.setattr(slots, "POLL_S", 0.0)
    monkeypatch.setattr(slots._Hold, "keep", lambda hold: None)
    return slots._take("llm")


def test_a_server_too_busy_to_give_a_slot_is_asked_again(monkeypatch, caplog):
    lease = uuid4()
    assert taking(monkeypatch, refusal(503), httpx.ConnectError("refused"), lease).lease == lease
    assert "waits for the server, which does not answer (status 503), for a slot of llm" in caplog.text


def test_a_server_that_refuses_a_slot_is_not_asked_for_ever(monkeypatch):
    with pytest.raises(httpx.HTTPStatusError, match="status 401"):
        taking(monkeypatch, refusal(401))


def test_a_script_that_calls_a_flow_starts_no_server_that_tells_others_of_it():
    code = "import flows.pipeline; from prefect.settings import get_current_settings as now; print(now().server.analytics_enabled)"
    quiet = ("PREFECT_SERVER_ANALYTICS_ENABLED", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
