"""`ploutos deploy`: everything that a Prefect server must know of ploutos. Run it again after an upgrade; what a person has set stays.

Every flow is loaded before anything is sent, strictly: Prefect by itself would deploy a flow whose imports are broken.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import yaml
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule, StateType
from prefect.client.schemas.schedules import RRuleSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.workers.process import ProcessWorker
from pydantic import SecretStr

from deployments.notifications import names, notifying
from deployments.schedules import after_close
from flows.sweep import SILENT
from ploutos.errors import ConfigError, OrchestratorError
from tasks.slots import SLOTS, make_slot

PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
POOLS = ("ploutos", "ploutos-members", "ploutos-gpu")
"""Work pools: of runs, of the members that runs with `hardware.runner=workers` send to other hosts, and of those that need a GPU."""
_SILENCE_S = 90
_SCHEDULED = ("ploutos-nightly", "nightly")
_SLUG = "after-close"
_SILENT = [
    "Completed",
    "Failed",
    "Crashed",
    "Cancelled",
    "Cancelling",
    "Paused",
    "Suspended",
    "Scheduled",
    "Pending",
    "AwaitingRetry",
    "Late",
]
"""States in which no heartbeat is due."""


@dataclass(frozen=True)
class Deployed:
    """What a server now knows.

    Attributes:
        deployments: names, as flow/deployment.
        schedule: the night's rule in one line, and whether it is on.
    """

    deployments: tuple[str, ...]
    schedule: str
    scheduled: bool


def deploy(calendar: str = "NYSE", minutes: int = 60, file: Path = PREFECT_FILE, notify: SecretStr | None = None) -> Deployed:
    """Tell the server of `PREFECT_API_URL` about pool, limits, automations, deployments and the night's schedule.

    Args:
        calendar: the exchange after whose close the night starts.
        minutes: how long after it.
        notify: where notifications go, as apprise writes it; None sends none, and takes those of an earlier call away.

    Raises:
        ConfigError: a flow cannot be loaded, the schedule cannot be made, or nobody knows where `notify` is.
        OrchestratorError: there is no server, or it refused.
    """
    declared = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    for each in declared:
        require_loadable(each["entrypoint"])
    rule = after_close(calendar, minutes, date.today())
    with connected() as client:
        for pool in POOLS:
            _make_pool(client, pool)
        for name in SLOTS:
            make_slot(client, name)
        _make_automation(silent_runs())
        _notify(client, notify, [each for each in declared if each["work_pool"]["name"] == POOLS[0]])
        was_on = _is_on(client)
        _deploy_all(file)
        schedule = RRuleSchedule(rrule=rule.rrule, timezone=rule.timezone)
        _set_schedule(client, schedule, was_on)
        made = tuple(_name_of(each) for each in declared)
    return Deployed(made, f"{minutes} minutes after the close of {calendar}, {rule.timezone}", was_on)


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """A client of the server that `PREFECT_API_URL` names.

    Raises:
        OrchestratorError: no server is named, it does not answer, or it refuses the password.
    """
    if "PREFECT_API_URL" not in os.environ:
        raise OrchestratorError("no Prefect server is known here; start one with `ploutos serve`, or set PREFECT_API_URL")
    address = os.environ["PREFECT_API_URL"]
    try:
        with get_client(sync_client=True) as client:
            client.read_work_pools(limit=1)
            yield client
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            raise OrchestratorError(f"{address} refuses the password; set PREFECT_API_AUTH_STRING to user:password") from error
        raise OrchestratorError(f"the server at {address} answers {error.response.status_code}: {error.response.text[:300]}") from error
    except httpx.HTTPError as error:
        raise OrchestratorError(f"the server at {address} does not answer; start it with `ploutos serve`") from error


def require_loadable(entrypoint: str) -> None:
    """Load a flow as a worker will.

    Raises:
        ConfigError: its module cannot be imported or does not hold it.
    """
    try:
        load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except Exception as error:
        raise ConfigError(f"{entrypoint} cannot be loaded, so nothing was deployed: {type(error).__name__}: {error}") from error


def silent_runs() -> Automation:
    """Marks a run whose heartbeats have stopped as crashed. A run that waits for a person or for its time sends none, and is spared."""
    ours = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
    return Automation(
        name="ploutos: a run that says Running and is silent has crashed",
        trigger=EventTrigger(
            match=ours,
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in _SILENT)},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=_SILENCE_S),
        ),
        actions=[ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, force=False, message=f"{SILENT} for {_SILENCE_S} s.")],
    )


def _make_pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))


def _make_automation(wanted: Automation) -> None:
    """Make an automation, or bring the one of its name up to date."""
    try:
        found = cast(Automation, Automation.read(name=wanted.name))
    except ValueError:
        wanted.create()
        return
    wanted.id, wanted.enabled = found.id, found.enabled
    wanted.update()


def _notify(client: SyncPrefectClient, address: SecretStr | None, declared: list[dict[str, Any]]) -> None:
    """Have the server send notifications of these deployments' runs, or none."""
    if address is None:
        for name in names():
            for found in client.read_automations_by_name(name):
                client.delete_automation(found.id)
        return
    for automation in notifying(address, sorted({_name_of(each).split("/")[0] for each in declared})):
        _make_automation(automation)


def _deploy_all(file: Path) -> None:
    """`prefect deploy --all`; its own words where it fails."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(file), "--all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OrchestratorError(f"prefect deploy failed: {' '.join(done.stdout.split())[-500:]} {' '.join(done.stderr.split())[-500:]}")


def _name_of(declared: dict[str, Any]) -> str:
    flow: Flow[Any, Any] = load_flow_from_entrypoint(declared["entrypoint"], use_placeholder_flow=False)
    return f"{flow.name}/{declared['name']}"


def _schedules(client: SyncPrefectClient) -> tuple[Any, list[DeploymentSchedule]]:
    found = client.read_deployment_by_name("/".join(_SCHEDULED))
    return found.id, found.schedules


def _is_on(client: SyncPrefectClient) -> bool:
    """Whether a person has turned the night on."""
    try:
        return any(each.active for each in _schedules(client)[1] if each.slug == _SLUG)
    except ObjectNotFound:
        return False


def _set_schedule(client: SyncPrefectClient, schedule: RRuleSchedule, active: bool) -> None:
    deployment, present = _schedules(client)
    for each in present:
        client.delete_deployment_schedule(deployment, each.id)
    client.create_deployment_schedules(deployment, [DeploymentScheduleCreate(schedule=schedule, active=active, slug=_SLUG)])
