"""Where the tasks of folds and members run, by one setting, chosen when a flow is called.

Whatever a run has one of stays in the flow's process: it reads and writes what only that host has, the registry and the datasets.
"""

import os
import signal
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from types import TracebackType
from typing import Any, Self

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from ploutos.config import HardwareSpec, RunnerName
from ploutos.hardware.machine import usable_cores
from ploutos.hardware.processes import end_with_parent
from ploutos.training.pool import spawning

LOOPBACK = "127.0.0.1"


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


def thread_runner(spec: HardwareSpec) -> ThreadPoolTaskRunner[Any]:
    """Threads of this process, which wait for training processes."""
    return ThreadPoolTaskRunner(max_workers=spec.tasks or usable_cores())


def make_runner(spec: HardwareSpec) -> TaskRunner[Any]:
    """The runner that the settings name."""
    workers = spec.workers or usable_cores()
    if spec.runner == "process":
        return WorkerProcesses(workers)
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
