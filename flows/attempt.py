"""What an attempt at a run does first: it closes what an earlier attempt left open, and says what of the code has changed since."""

import os
from contextlib import suppress
from hashlib import sha256

import psutil
from prefect import Task, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from flows.sweep import close_earlier_attempt, own_process
from ploutos.hardware.processes import end_child_with_us, end_with_parent
from ploutos.interrupt import end_at_once_again
from ploutos.provenance import logic_of, source_digest
from tasks import advice, evaluation, market, registry, regression, texts, training
from tasks.prefect_log import shorten_log

_LABEL = "ploutos.code."
_SERVER = "prefect.server.api.server:create_app"
_watched: set[int] = set()


def code_of_tasks() -> dict[str, str]:
    """Digest, by task, of its own source and of every library module that it stands on."""
    found = {}
    for module in (market, texts, regression, training, advice, evaluation, registry):
        for task in vars(module).values():
            if isinstance(task, Task):
                logic, named = logic_of(task.fn, ("tasks",))
                found[task.name] = sha256(f"{logic} {source_digest(*sorted(named))}".encode()).hexdigest()[:16]
    return found


def changed_since(run: FlowRun, now: dict[str, str]) -> list[str]:
    """Tasks whose code is not what it was when a run was last attempted; none for a run that was not."""
    before = {name.removeprefix(_LABEL): value for name, value in run.labels.items() if name.startswith(_LABEL)}
    return sorted(name for name, digest in now.items() if name in before and before[name] != digest)


def about_change(changed: list[str]) -> str:
    """What a changed code means for a run that goes on, in a sentence."""
    if not changed:
        return "the code has not changed since: finished stages are reused"
    return f"the code has changed since: {', '.join(changed)} and everything that depends on them are computed again"


def end_with_worker() -> None:
    """From now on a flow that a worker started ends with it, killed even: the next worker knows nothing of it and could not cancel it."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None:
        end_with_parent()


def end_temporary_server_with_us() -> None:
    """Prefect's own ends only when this process does in order; killed, it left one behind that nobody uses, for ever."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if child.pid not in _watched and _SERVER in child.cmdline():
                _watched.add(child.pid)
                end_child_with_us(child.pid, _SERVER)


def begin_attempt() -> None:
    """Say which process this is, close the earlier attempt's task runs and compare the code; nothing of it without a server of its own.

    The log is shortened. A command in a terminal ends at once on SIGTERM again, what a worker has started ends with it, and a temporary
    server with this process.
    """
    shorten_log()
    end_at_once_again()
    end_with_worker()
    end_temporary_server_with_us()
    context = FlowRunContext.get()
    if "PREFECT_API_URL" not in os.environ or context is None or context.flow_run is None:
        return
    now = code_of_tasks()
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(context.flow_run.id)
        if run.run_count > 1:
            closed, said = close_earlier_attempt(client, run.id), about_change(changed_since(run, now))
            get_run_logger().info("attempt %d; %d task runs of the one before were closed; %s", run.run_count, closed, said)
        client.update_flow_run_labels(run.id, own_process(run) | {f"{_LABEL}{name}": digest for name, digest in now.items()})
