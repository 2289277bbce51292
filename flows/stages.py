"""Where the tasks of a flow run, and how each stage of it ended."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, cast

from prefect import State, Task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from ploutos.config import HardwareSpec, PipelineConfig
from ploutos.hardware.machine import usable_cores
from ploutos.hardware.monitor import HardwareMonitor
from ploutos.llm.gpu_unload import GPUMemoryManager
from ploutos.progress import Progress, tell
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.training.pool import shared_pools
from ploutos.walk_forward import Fold

P = ParamSpec("P")
Futures = Sequence[Sequence[PrefectFuture[State[Ref]]]]


class Stages:
    """Submits tasks, waits for them and keeps, for the manifest, how each stage ended.

    Args:
        runner: where tasks run.
        monitor: what the run takes of the machine; complete once the stages are over.
        memory: takes the language model out of the GPU.
    """

    def __init__(
        self, store: Store, settings: Settings, runner: TaskRunner[Any], monitor: HardwareMonitor, memory: GPUMemoryManager
    ) -> None:
        self.store, self.settings, self.monitor, self.memory = store, settings, monitor, memory
        self._runner = runner
        self.ended: dict[str, str] = {}

    def submit(self, task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[State[Ref]]:
        """Start a task; its arguments are values, so that it may run on another machine."""
        given = inspect.signature(task.fn).bind(*args, **kwargs).arguments
        return cast("PrefectFuture[State[Ref]]", self._runner.submit(task, given))

    def plan(self, name: str, n: int) -> None:
        """Say how many of a kind there will be."""
        if n:
            tell(Progress(name, "", "planned", total=n))

    def run(self, name: str, task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> Ref:
        """Run a task and wait for its artifact."""
        return self.ref(name, self.submit(task, *args, **kwargs))

    def ref(self, name: str, future: PrefectFuture[State[Ref]]) -> Ref:
        """Wait for a task's artifact."""
        ref = cast(Ref, future.result())  # a task that returns a state gives its data
        self.ended[name] = future.state.name or ""
        return ref

    def by_fold(self, name: str, folds: Sequence[Fold], futures: Futures) -> tuple[tuple[Ref, ...], ...]:
        """Wait for the members of every fold."""
        return tuple(
            tuple(self.ref(f"{name} {fold.index} {member}", future) for member, future in enumerate(row))
            for fold, row in zip(folds, futures, strict=True)
        )


def make_runner(spec: HardwareSpec) -> TaskRunner[Any]:
    """Where tasks run: threads of this process, which wait for training processes. Made when a flow is called."""
    return cast(TaskRunner[Any], ThreadPoolTaskRunner(max_workers=spec.tasks or usable_cores()))


@contextmanager
def at_work(config: PipelineConfig, settings: Settings) -> Iterator[Stages]:
    """A block in which stages run: readings of the machine are taken, and its training processes end with it."""
    memory = GPUMemoryManager(config.llm, settings)
    with HardwareMonitor(config.hardware.log_interval) as monitor, make_runner(config.hardware) as runner, shared_pools():
        yield Stages(Store(settings.store_root), settings, runner, monitor, memory)
