"""A helper: a flow run on a Prefect worker of any host that does tasks of folds and members of another host's run, one after another.

What is sent to it is JSON, an input of its flow run for each task; what it makes is in the store, where whoever asked for it finds it. The
flow run's label says how many tasks it has done.
"""

import time
from collections.abc import Iterator
from functools import cache, partial
from itertools import count
from typing import Any, get_type_hints
from uuid import UUID

from prefect import Task, flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.runtime import flow_run
from pydantic import TypeAdapter

from flows.attempt import end_with_worker
from ploutos.errors import StoreError
from ploutos.remote_store import open_store
from ploutos.settings import Settings
from ploutos.specs import Spec
from ploutos.store import Store
from tasks.advice import train_hybrid
from tasks.prefect_log import shorten_log
from tasks.regression import fit_regression_of, fit_teacher_of
from tasks.training import train_member

TASKS: dict[str, Task[Any, Any]] = {each.name: each for each in (fit_regression_of, fit_teacher_of, train_member, train_hybrid)}
DONE = "ploutos.done"
"""Label of a helper: how many of the tasks that it was sent are done."""
_SILENCE_S, _LOOK_S = 60.0, 1.0


class Work(Spec):
    """What a helper is asked to do."""

    task: str
    """Name of the task."""
    store: str
    """Where its artifact must go."""
    code: str
    """Digest of the code that must do it."""
    values: dict[str, Any]
    """Its arguments but for the store."""


def work_of(task: Task[Any, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A task and its arguments as JSON."""
    hints, store = get_type_hints(task.fn), values["store"]
    given = {name: TypeAdapter(hints[name]).dump_python(value, mode="json") for name, value in values.items() if name != "store"}
    return Work(task=task.name, store=store.where, code=store.code, values=given).model_dump(mode="json")


def input_key(number: int) -> str:
    """What the input with a helper's next task is called; none is the beginning of another."""
    return f"work-{number:06d}"


@flow(name="ploutos-member", persist_result=False)
def member() -> None:
    """Do what another host's run asks for, until it says that there is no more or falls silent; not to be started by hand."""
    shorten_log()
    end_with_worker()
    run, opened = UUID(flow_run.get_id()), cache(partial(open_store, Settings(), claim=False))
    with get_client(sync_client=True) as client:
        for n_done, work in enumerate(_heard(client, run), 1):
            do(work, opened(work.code))
            client.update_flow_run_labels(run, {DONE: n_done})


def _heard(client: SyncPrefectClient, run: UUID) -> Iterator[Work]:
    """What a helper is sent."""
    for number in count():
        until = time.monotonic() + _SILENCE_S
        while not (sent := client.filter_flow_run_input(run, input_key(number), limit=1, exclude_keys=set())):
            if time.monotonic() > until:
                get_run_logger().info("heard nothing for %.0f s: whoever asked has gone, or has nothing to do for now", _SILENCE_S)
                return
            time.sleep(_LOOK_S)
        if sent[0].decoded_value is None:
            return
        yield Work.model_validate(sent[0].decoded_value)


def do(work: Work, store: Store) -> None:
    """Do a piece of work.

    Raises:
        StoreError: this host's store is not that of the run.
    """
    if store.where != work.store:
        raise StoreError(f"this worker's store is {store.where} and that of the run {work.store}; set PLOUTOS_STORE to the run's")
    task = TASKS[work.task]
    hints = get_type_hints(task.fn)
    task(store, **{name: TypeAdapter(hints[name]).validate_python(value) for name, value in work.values.items()})
