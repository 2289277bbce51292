"""Where the tasks of folds and members run, by one setting, chosen when a flow is called.

Whatever a run has one of stays in the flow's process: it reads and writes what only that host has, the registry and the datasets.
"""

import inspect
import os
import signal
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import wraps
from itertools import count
from multiprocessing import active_children
from types import TracebackType
from typing import Any, Self

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.futures import PrefectConcurrentFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.helpers import Helpers
from flows.member import work_of
from ploutos.config import HardwareSpec, RunnerName
from ploutos.errors import StoreError
from ploutos.hardware.machine import usable_cores
from ploutos.hardware.processes import end_with_parent
from ploutos.store import NotComputed
from ploutos.training.pool import spawning
from tasks.advice import train_hybrid
from tasks.training import train_member, trains_on_gpu

LOOPBACK = "127.0.0.1"
MEMBER, GPU_MEMBER = "ploutos-member/member", "ploutos-member/gpu-member"
_AT_ONCE = 64
_KNOWN = 3  # tasks that wait for each helper: one that it does, one ahead, and one more to see that there are enough
_TRAINED = (train_member.name, train_hybrid.name)


class WorkerProcesses(ProcessPoolTaskRunner):
    """Prefect's pool of processes, born as our training processes are: one thread each, deaf to Ctrl-C, gone with the flow's process."""

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers, initializer=end_with_parent, initargs=(signal.SIGKILL,))

    def __enter__(self) -> Self:
        before = set(active_children())
        super().__enter__()
        assert self._executor is not None
        with spawning():  # now and by this thread: they end with the thread that started them
            for _ in range(self._max_workers):
                self._executor.submit(os.getpid)
        self._born = set(active_children()) - before
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if kind is not None and not issubclass(kind, Exception):  # Ctrl-C or a cancelled run: nobody waits for a training to end
            for each in self._born:
                each.kill()
        super().__exit__(kind, error, traceback)


class PrefectWorkers(ThreadPoolTaskRunner[Any]):
    """Has each task that is not in the store yet done by a helper on a Prefect worker, and waits for it to be there.

    Args:
        max_workers: how many helpers there may be of a deployment.
    """

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers=_KNOWN * max_workers)
        self._at_most, self._stack = max_workers, ExitStack()
        self._helpers: dict[str, Helpers] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        client, numbers = self._stack.enter_context(get_client(sync_client=True)), count(1)
        self._helpers = {name: Helpers(name, self._at_most, client, numbers) for name in (MEMBER, GPU_MEMBER)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._stack:
            if kind is not None:  # at once: Ctrl-C or a cancelled run, where nobody waits for a training to end
                for each in self._helpers.values():
                    each.stop(at_once=not issubclass(kind, Exception))
            super().__exit__(kind, error, traceback)
            for each in self._helpers.values():
                each.dismiss()

    def submit(self, task: Task[Any, Any], parameters: dict[str, Any], *args: Any, **kwargs: Any) -> PrefectConcurrentFuture[Any]:
        @wraps(task.fn)
        def elsewhere(*given: Any, **named: Any) -> Any:
            values = inspect.signature(task.fn).bind(*given, **named).arguments
            found = values | {"store": values["store"].only_found()}
            try:
                return task.fn(**found)
            except NotComputed:
                self._helpers[deployment_of(task, values)].do(task.name, work_of(task, values))
            try:
                return task.fn(**found)
            except NotComputed as error:
                raise StoreError(f"a worker says that it has finished {task.name}, and {error}; look at its PLOUTOS_STORE") from error

        named = Task(fn=elsewhere, name=task.name, task_run_name=task.task_run_name, cache_policy=NO_CACHE)
        return super().submit(named, parameters, *args, **kwargs)


def deployment_of(task: Task[Any, Any], values: dict[str, Any]) -> str:
    """Whose workers do a task."""
    return GPU_MEMBER if task.name in _TRAINED and trains_on_gpu(values["config"]) else MEMBER


def thread_runner(spec: HardwareSpec) -> ThreadPoolTaskRunner[Any]:
    """Threads of this process, which wait for training processes."""
    return ThreadPoolTaskRunner(max_workers=spec.tasks or usable_cores())


def make_runner(spec: HardwareSpec) -> TaskRunner[Any]:
    """The runner that the settings name."""
    workers = spec.workers or usable_cores()
    if spec.runner == "process":
        return WorkerProcesses(workers)
    if spec.runner == "workers":
        return PrefectWorkers(max_workers=spec.workers or _AT_ONCE)
    if spec.runner == "dask":
        return _dask(spec.scheduler, workers)
    if spec.runner == "ray":
        return _ray(spec.scheduler, workers)
    return thread_runner(spec)


def _dask(scheduler: str | None, workers: int) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    if scheduler is not None:
        return DaskTaskRunner(address=scheduler)
    local = {"n_workers": workers, "threads_per_worker": 1, "host": LOOPBACK, "dashboard_address": None, "memory_limit": 0}
    return DaskTaskRunner(cluster_kwargs=local)


def _ray(scheduler: str | None, workers: int) -> TaskRunner[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    from prefect_ray import RayTaskRunner

    if scheduler is not None:
        return RayTaskRunner(address=scheduler)
    local = {"num_cpus": workers, "include_dashboard": False, "_node_ip_address": LOOPBACK}
    return RayTaskRunner(init_kwargs=local)


def losses(runner: RunnerName) -> tuple[type[Exception], ...]:
    """What a runner raises when a worker dies in the middle of a task."""
    if runner == "dask":
        from distributed import KilledWorker

        return (KilledWorker,)
    if runner == "ray":
        from ray.exceptions import RaySystemError, WorkerCrashedError

        return (WorkerCrashedError, RaySystemError)
    return (BrokenProcessPool,) if runner == "process" else ()
