"""Runs that say Running although nothing runs any more, and runs that say Crashed and are well.

A worker notices when a flow's process ends; nobody does when the worker is killed as well, and nobody ever closes the task runs that were
under way. Runs that wait, for a person or for their time, have no process and are left alone. A server that was away takes a run whose
signs of life it missed for one that has crashed; where the process lives, that is corrected before somebody starts the run a second time.
"""

import os
import platform
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Crashed, Running

_AT_WORK = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
_LATELY = timedelta(hours=1)
_WITHOUT_PROCESS = {StateType.PENDING: timedelta(minutes=10), StateType.CANCELLING: timedelta(minutes=1)}
"""How long a run is in a state without a process: one that is Pending has none of this attempt yet, the one before has ended; and a worker
that cancels says so some twenty seconds after the process has ended, to a run that was resumed meanwhile as well."""
_WRITTEN = timedelta(seconds=20)  # a server writes states of task runs down behind those of their flow run, by 3 s at a load of 13
_TASKS_AT_WORK = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])))
_PAGE = 200
SILENT = "No sign of life"
"""How a state begins to say that a run was silent for too long."""
HOST, PROCESS, STARTED, ATTEMPT = "ploutos.host", "ploutos.pid", "ploutos.started", "ploutos.attempt"
"""Labels of a run: where its process is. Prefect keeps the number alone, which says nothing on another host."""


def sweep(client: SyncPrefectClient) -> list[str]:
    """Close what is over on this host: flow runs whose process is gone, and task runs of flow runs that have ended; open what is not.

    Returns:
        A sentence for each flow run, and one for the task runs.
    """
    said = []
    for run in _flow_runs(client, _AT_WORK):
        if is_gone(run):
            state: State[None] = (
                Cancelled()
                if run.state_type is StateType.CANCELLING
                else Crashed(message="Its process is gone; `ploutos resume` continues it.")
            )
            client.set_flow_run_state(run.id, state, force=True)
            said.append(f"{run.name} said {run.state_name} and its process is gone: {state.name}")
    said += [_put_right(client, run) for run in _crashed_lately(client) if _was_silent(run) and _lives(run)]
    closed = close_task_runs(client)
    return [*said, f"{closed} task runs of runs that are over were closed"] if closed else said


def is_gone(run: FlowRun) -> bool:
    """Whether a run had a process on this host that has ended; of one that has not told its process, or of another host's, nobody knows."""
    given = _WITHOUT_PROCESS.get(run.state_type) if run.state_type is not None else None
    if given is not None and run.state is not None and datetime.now(UTC) - run.state.timestamp < given:
        return False
    return _lives(run) is False


def _lives(run: FlowRun) -> bool | None:
    """Whether the process of a run's latest attempt lives; None where nobody on this host knows."""
    pid, started = run.labels.get(PROCESS), run.labels.get(STARTED)
    if (run.labels.get(HOST), run.labels.get(ATTEMPT)) != (platform.node(), run.run_count):
        return None
    if not isinstance(pid, int) or not isinstance(started, float):
        return None
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) <= 1  # a number is used again
    except psutil.NoSuchProcess:
        return False


def _was_silent(run: FlowRun) -> bool:
    return run.state is not None and (run.state.message or "").startswith(SILENT)


def _put_right(client: SyncPrefectClient, run: FlowRun) -> str:
    """Let a run that is well say so."""
    client.set_flow_run_state(run.id, Running(message="Its process lives; the server was away."), force=True)
    count = client.read_flow_run(run.id).run_count  # a state of Running counts as an attempt
    client.update_flow_run_labels(run.id, {ATTEMPT: count})
    return f"{run.name} said {run.state_name} and its process lives: Running"


def _crashed_lately(client: SyncPrefectClient) -> list[FlowRun]:
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
        end_time=FlowRunFilterEndTime.model_validate({"after_": datetime.now(UTC) - _LATELY}),
    )
    return client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE)


def own_process(run: FlowRun) -> dict[str, str | int | float]:
    """The labels by which `is_gone` knows this process."""
    return {HOST: platform.node(), PROCESS: os.getpid(), STARTED: psutil.Process().create_time(), ATTEMPT: run.run_count}


def close_task_runs(client: SyncPrefectClient) -> int:
    """Mark task runs as crashed that say Running in a flow run that has ended; how many there were."""
    task_runs = [each for each in client.read_task_runs(task_run_filter=_TASKS_AT_WORK, limit=_PAGE) if each.flow_run_id is not None]
    parents = {each.flow_run_id for each in task_runs if each.flow_run_id is not None}
    over = _ended(client, parents)
    orphans = [each for each in task_runs if each.flow_run_id in over]
    for each in orphans:
        client.set_task_run_state(each.id, Crashed(message="Its flow run is over."), force=True)
    return len(orphans)


def close_earlier_attempt(client: SyncPrefectClient, run: UUID) -> int:
    """The same for task runs of an earlier attempt at a run that is starting, before it has tasks of its own; how many there were."""
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    left = client.read_task_runs(flow_run_filter=mine, task_run_filter=_TASKS_AT_WORK, limit=_PAGE)
    for each in left:
        client.set_task_run_state(each.id, Crashed(message="The attempt that it belonged to is over."), force=True)
    return len(left)


def page_of(client: SyncPrefectClient, run: FlowRun) -> str:
    """Address of a run in the UI; of one that waits for a person, of its form."""
    return f"{str(client.api_url).rstrip('/').removesuffix('/api')}/runs/flow-run/{run.id}"


def _ended(client: SyncPrefectClient, runs: set[UUID]) -> set[UUID]:
    """Those of the runs that ended long enough ago for the states of their task runs to be written."""
    if not runs:
        return set()
    found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(runs))), limit=_PAGE)
    since = datetime.now(UTC) - _WRITTEN
    return {run.id for run in found if run.state is not None and run.state.is_final() and run.state.timestamp < since}


def _flow_runs(client: SyncPrefectClient, states: list[StateType]) -> list[FlowRun]:
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states)))
    return client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE)
