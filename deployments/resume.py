"""`ploutos resume`: a run that failed, crashed or was cancelled goes on where it was."""

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled

from deployments.deploy import connected
from flows.attempt import about_change, changed_since, code_of_tasks
from flows.sweep import page_of, sweep
from ploutos.errors import OrchestratorError

_ENDED_BADLY = [StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]


def resume(name: str | None) -> list[str]:
    """Schedule a run of a deployment again.

    Args:
        name: its name or id; None takes the last one that failed, crashed or was cancelled.

    Returns:
        What was found and done, a sentence each.

    Raises:
        OrchestratorError: there is no such run, it is under way, has completed, waits for a person, or belongs to no deployment.
    """
    with connected() as client:
        said = sweep(client)
        run = _find(client, name)
        state = "unknown" if run.state is None else run.state.name
        if run.state_type is StateType.PAUSED:
            raise OrchestratorError(f"{run.name} is {state} and waits for a person; answer its form at {page_of(client, run)}")
        if run.state_type not in _ENDED_BADLY:
            raise OrchestratorError(f"{run.name} is {state}; only a run that failed, crashed or was cancelled is resumed")
        if run.deployment_id is None:
            raise OrchestratorError(f"{run.name} was started by a command, not by a deployment; run the same command again to continue")
        changed = changed_since(run, code_of_tasks())
        client.set_flow_run_state(run.id, Scheduled(message="Resumed by `ploutos resume`"), force=True)
        return [*said, f"{run.name} was {state} and is scheduled again: {page_of(client, run)}", about_change(changed)]


def _find(client: SyncPrefectClient, name: str | None) -> FlowRun:
    try:
        return client.read_flow_run(UUID(name or ""))
    except ObjectNotFound as error:
        raise OrchestratorError(f"the server knows no run {name}") from error
    except ValueError:  # it is a name
        pass
    ended = FlowRunFilterState(type=FlowRunFilterStateType(any_=_ENDED_BADLY))
    own = FlowRunFilterParentTaskRunId(is_null_=True)  # a helper's run is of the run that asked for it
    wanted = FlowRunFilter(state=ended, parent_task_run_id=own) if name is None else FlowRunFilter(name=FlowRunFilterName(any_=[name]))
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["ploutos"])) if name is None else None
    found = client.read_flow_runs(flow_run_filter=wanted, deployment_filter=ours, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
    if not found:
        raise OrchestratorError("no run has failed, crashed or been cancelled" if name is None else f"the server knows no run {name}")
    return found[0]
