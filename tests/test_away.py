"""A connection that is gone is one sentence, and hides nothing else."""

import logging

import pytest

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
