"""Where the tasks of a flow run, and how each stage of it ended."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, ParamSpec, cast

from prefect import State, Task
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner

from flows.live import shown_live
from flows.runners import losses, make_runner, thread_runner
from ploutos.advisor.config import LLMConfig
from ploutos.config import HardwareSpec, PipelineConfig
from ploutos.errors import TrainingError
from ploutos.hardware.machine import read_machine
from ploutos.hardware.monitor import HardwareMonitor
from ploutos.hardware.resources import read_held
from ploutos.llm.config import LLMProvider
from ploutos.llm.gpu_unload import GPUMemoryManager
from ploutos.llm.meter import Meter, metered
from ploutos.progress import Progress, tell
from ploutos.remote_store import open_store
from ploutos.run_manifest import Asked
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.training.pool import environment, shared_pools
from ploutos.walk_forward import Fold
from tasks.resources import reallocate_resources
from tasks.slots import TEMPORARY, have_server
from tasks.stage import code_of_work
from tasks.training import trains_on_gpu

P = ParamSpec("P")
Futures = Sequence[Sequence[PrefectFuture[State[Ref]]]]


class Runners:
    """Threads of the flow's process, and wherever the settings send the tasks of folds and members, started when the first one comes."""

    def __init__(self, spec: HardwareSpec, stack: ExitStack) -> None:
        self._spec, self._stack = spec, stack
        self.elsewhere = spec.runner != "thread"
        self.here: TaskRunner[Any] = stack.enter_context(thread_runner(spec) if self.elsewhere else make_runner(spec))
        self._anywhere = None if self.elsewhere else self.here

    @property
    def anywhere(self) -> TaskRunner[Any]:
        if self._anywhere is None:
            self._stack.enter_context(_with_address_of_server())
            self._anywhere = self._stack.enter_context(make_runner(self._spec))
        return self._anywhere

    def result(self, future: PrefectFuture[State[Ref]]) -> Ref:
        """A task's artifact.

        Raises:
            TrainingError: a worker died in the middle of it.
        """
        try:
            return cast(Ref, future.result())  # a task that returns a state gives its data
        except losses(self._spec.runner) as error:
            raise TrainingError(
                f"a worker of hardware.runner={self._spec.runner} died in its task ({type(error).__name__}); finished members are kept and "
                "the others continue from their checkpoints: run again, with fewer hardware.workers if memory ran out"
            ) from error


class Stages:
    """Submits tasks, waits for them and keeps, for the manifest, how each stage ended.

    Args:
        store: of the run.
        runners: where tasks run.
        monitor: what the run takes of the machine; complete once the stages are over.
        memory: takes the language model out of the GPU.
        meter: counts what a language model is asked, and keeps the limits.
    """

    def __init__(
        self, store: Store, settings: Settings, runners: Runners, monitor: HardwareMonitor, memory: GPUMemoryManager, meter: Meter
    ) -> None:
        self.store, self.settings, self.monitor, self.memory, self.meter = store, settings, monitor, memory, meter
        self._runners = runners
        self.ended: dict[str, str] = {}

    def asked(self, llm: LLMConfig) -> Asked | None:
        """What a language model was asked anew and how it came and went; None with the mock."""
        if llm.provider is LLMProvider.MOCK:
            return None
        return Asked(**asdict(self.meter.spent(llm.limits)), unloads=tuple(self.memory.unloads))

    def submit(self, task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[State[Ref]]:
        """Start a task in this process."""
        return _submit(self._runners.here, task, *args, **kwargs)

    def spread(self, task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[State[Ref]]:
        """Start a task of a fold or a member wherever the settings say; its arguments are values, so that it may run on another machine."""
        return _submit(self._runners.anywhere, task, *args, **kwargs)

    @contextmanager
    def phase(self, name: str, config: PipelineConfig, without_model: bool = False) -> Iterator[None]:
        """A block that is a phase: what the one before held is given back first, and waited for; the manifest has how much that was.

        Args:
            without_model: the language model leaves the GPU for the length of it, where the settings say so.
        """
        held = read_held(read_machine())
        with self.memory.freed("training") if without_model else nullcontext():
            on_gpu = trains_on_gpu(config)
            self.monitor.pauses.append(reallocate_resources(name, config.pipeline, held, on_gpu))
            yield

    def plan(self, name: str, n: int) -> None:
        """Say how many of a kind there will be."""
        if n:
            tell(Progress(name, "", "planned", total=n))

    def run(self, name: str, task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> Ref:
        """Run a task in this process and wait for its artifact."""
        return self.ref(name, self.submit(task, *args, **kwargs))

    def ref(self, name: str, future: PrefectFuture[State[Ref]]) -> Ref:
        """Wait for a task's artifact."""
        ref = self._runners.result(future)
        self.ended[name] = future.state.name or ""
        return ref

    def by_fold(self, name: str, folds: Sequence[Fold], futures: Futures) -> tuple[tuple[Ref, ...], ...]:
        """Wait for the members of every fold."""
        return tuple(
            tuple(
                self.spread_ref(name, f"{fold.index} {member}", future, f"fold {fold.index} member {member}")
                for member, future in enumerate(row)
            )
            for fold, row in zip(folds, futures, strict=True)
        )

    def spread_ref(self, name: str, label: str, future: PrefectFuture[State[Ref]], told: str) -> Ref:
        """Wait for what `spread` started; from elsewhere nobody else tells that it has ended.

        Args:
            told: its label where progress is shown.
        """
        ref = self.ref(f"{name} {label}", future)
        if self._runners.elsewhere:
            tell(Progress(name, told, "cached" if future.state.name == "Cached" else "computed"))
        return ref


def _submit(runner: TaskRunner[Any], task: Task[P, State[Ref]], *args: P.args, **kwargs: P.kwargs) -> PrefectFuture[State[Ref]]:
    given = inspect.signature(task.fn).bind(*args, **kwargs).arguments
    return cast("PrefectFuture[State[Ref]]", runner.submit(task, given))


@contextmanager
def _with_address_of_server() -> Iterator[None]:
    """A block in which tasks and workers are told of this run's server: else each worker would start a temporary one."""
    with get_client(sync_client=True) as client:
        address = str(client.api_url)
    told = {"PREFECT_API_URL": address} | ({} if have_server() else {TEMPORARY: "1"})
    with environment(told), temporary_settings({PREFECT_API_URL: address}):
        yield


@contextmanager
def at_work(config: PipelineConfig, settings: Settings) -> Iterator[Stages]:
    """A block in which stages run: readings of the machine are taken, and its training processes end with it."""
    memory = GPUMemoryManager(config.llm, settings)
    with HardwareMonitor(config.hardware.log_interval) as monitor, metered() as meter, ExitStack() as stack:
        stack.enter_context(shown_live())
        runners = Runners(config.hardware, stack)
        stack.enter_context(shared_pools())
        yield Stages(open_store(settings, code_of_work()), settings, runners, monitor, memory, meter)
