"""A run is closed when its process has ended, and only then."""

import os
import platform
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows.sweep import ATTEMPT, HOST, PROCESS, STARTED, is_gone

HERE = {HOST: platform.node(), PROCESS: os.getpid(), STARTED: psutil.Process().create_time(), ATTEMPT: 1}
ENDED = HERE | {STARTED: HERE[STARTED] - 1000.0}  # the number belongs to another process by now


def run(labels, kind=StateType.RUNNING, since_s=0.0):
    state = State(type=kind, timestamp=datetime.now(UTC) - timedelta(seconds=since_s))
    return FlowRun(flow_id=uuid4(), state=state, state_type=kind, run_count=1, labels=labels)


def test_a_run_whose_process_has_ended_is_over():
    assert is_gone(run(ENDED))
    assert not is_gone(run(HERE))


@pytest.mark.parametrize("labels", [{}, ENDED | {HOST: "another"}, ENDED | {ATTEMPT: 0}])
def test_of_a_process_that_nobody_told_nothing_is_known(labels):
    assert not is_gone(run(labels))


def test_a_run_that_is_cancelled_is_left_to_its_worker_first():
    """A worker says Cancelled last, and by force: to a run that was closed before and resumed as well."""
    assert not is_gone(run(ENDED, StateType.CANCELLING, since_s=30))
    assert is_gone(run(ENDED, StateType.CANCELLING, since_s=61))


def test_a_run_that_was_resumed_a_moment_ago_is_not_closed_for_the_process_that_it_had():
    assert not is_gone(run(ENDED, StateType.PENDING, since_s=60))
    assert is_gone(run(ENDED, StateType.PENDING, since_s=1000))
