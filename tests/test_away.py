"""A connection that is gone is one sentence, and hides nothing else."""

import logging
from contextlib import nullcontext
from uuid import uuid4

import httpx
import pytest

from tasks import slots
from tasks.away import LostConnection

EVENTS, SERVICES = "prefect.events.clients", "prefect._internal.concurrency"
LOST = [
    (EVENTS, "Unable to connect to %r. Reason: %s.", ("ws://x", "refused")),
    (SERVICES, "Service %r failed to process item %r", ("EventsWorker", {})),
]


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
    assert "does not answer; the run goes on" in caplog.text
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
