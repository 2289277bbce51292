"""One task of a fold or a member as a run of its own, for a Prefect worker on any host.

What goes there is JSON; what it makes is in the store, where whoever asked for it finds it.
"""

from typing import Any, get_type_hints

from prefect import Task, flow
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

_TASKS: dict[str, Task[Any, Any]] = {each.name: each for each in (fit_regression_of, fit_teacher_of, train_member, train_hybrid)}


class Work(Spec):
    """What a worker is asked to do."""

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


@flow(name="ploutos-member", flow_run_name="{config.task}", persist_result=False)
def member(config: Work) -> None:
    """Do one task of another host's run; nobody fills this form by hand.

    Args:
        config: from `work_of`.
    """
    shorten_log()
    end_with_worker()
    store: Store = open_store(Settings(), config.code, claim=False)
    if store.where != config.store:
        raise StoreError(f"this worker's store is {store.where} and that of the run {config.store}; set PLOUTOS_STORE to the run's")
    task = _TASKS[config.task]
    hints = get_type_hints(task.fn)
    task(store, **{name: TypeAdapter(hints[name]).validate_python(value) for name, value in config.values.items()})
