"""Worker processes for training: spawned, capped to one thread each, and gone when their parent is gone.

The thread caps are in the environment that the workers are born with, before they import numpy or torch. A worker that
loses its parent, to `kill -9` even, is ended by the kernel (Linux) or ends itself. A worker whose pool is interrupted ends at once as well;
its training continues from its checkpoint next time.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

from ploutos.errors import TrainingError
from ploutos.hardware.processes import end_with_parent, memory_kills
from ploutos.hardware.threads import capped_environment

P = ParamSpec("P")
_REAPED_S = 5.0
_ENDING = "no training is started, because the run is ending; run again to continue"
T = TypeVar("T")
J = TypeVar("J")


_quiet = threading.Event()


def quiet_workers() -> None:
    """From now on workers start that say warnings alone: a display has the terminal."""
    _quiet.set()


def _log_level() -> int:
    return logging.WARNING if _quiet.is_set() else logging.getLogger("ploutos").getEffectiveLevel()


def _end_with(pool: Connection) -> None:
    """Leave at once when the parent process ends, however it ends, or when the pool drops its end of the pipe."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel, pool])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start_worker(log_level: int, pool: Connection) -> None:
    end_with_parent(signal.SIGKILL)  # the thread below waits while compiled code holds the interpreter, minutes even
    _end_with(pool)
    logging.basicConfig(level=log_level, format="%(levelname)s %(name)s: %(message)s")


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """A block in which this process's environment, and that of what it starts, has these values."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _uninterruptible() -> Iterator[None]:
    """What is spawned in this block never hears Ctrl-C, which a terminal sends to all: its parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main() -> Iterator[None]:
    """What is spawned in this block does not run the user's script: one that starts a run at its top level would start it again there."""
    main, names = sys.modules["__main__"], ("__spec__", "__file__")
    before = {name: getattr(main, name) for name in names if hasattr(main, name)}
    for name in before:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(main, name, value)


@contextmanager
def spawning() -> Iterator[None]:
    """What is spawned in this block is a worker: one thread, deaf to Ctrl-C, and without the user's script."""
    with environment(capped_environment(1)), _uninterruptible(), _without_main():
        yield


class WorkerPool:
    """A bounded pool of training processes; safe to use from several threads."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None
        self._workers: list[BaseProcess] = []
        self._closed = False
        self._memory_kills = memory_kills()
        self._starter = ThreadPoolExecutor(1)  # a worker ends with the thread that started it, so that thread is the pool's own
        self._lock = threading.Lock()
        self._workers_end, self._our_end = multiprocessing.Pipe(duplex=False)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run a module-level function in a worker.

        Raises:
            TrainingError: the pool has ended, or one of its workers died.
        """
        with self._lock:
            if self._closed:
                raise TrainingError(_ENDING)
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    self.workers,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_start_worker,
                    initargs=(_log_level(), self._workers_end),
                )
            executor = self._executor

            def start() -> "Future[T]":
                with spawning():  # workers are spawned on submit
                    return executor.submit(function, *args, **kwargs)

            try:
                future = self._starter.submit(start).result()
            except BrokenProcessPool as error:
                raise TrainingError(self._cause()) from error
            self._workers = self._workers or list(multiprocessing.active_children())
            return future

    def _cause(self) -> str:
        """Why a worker died, as far as its exit code tells; the others are then ended by SIGTERM."""
        until = time.monotonic() + _REAPED_S
        while not any(each.exitcode for each in self._workers) and time.monotonic() < until:
            time.sleep(0.01)  # the executor knows of a death before its exit code is there
        codes = [each.exitcode for each in self._workers if each.exitcode]
        code = next((each for each in codes if each != -signal.SIGTERM), codes[0] if codes else 0)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why, remedy = self._about_memory() if code == -signal.SIGKILL else ("", "")
        return f"a training process {how}{why}; finished members are kept and the others continue from their checkpoints: run again{remedy}"

    def _about_memory(self) -> tuple[str, str]:
        """Whether memory ran out, as far as the system says, and what to do about it."""
        before, now = self._memory_kills, memory_kills()
        if before is None or now is None:
            return ", which is what the system does when memory runs out", ", with fewer hardware.workers if it happens again"
        if now > before:
            return " when memory ran out", ", with fewer hardware.workers"
        return ", which a person or a program sent: memory had not run out", ""

    def result(self, future: "Future[T]", every_second: Callable[[], None]) -> T:
        """Wait for a job and call `every_second` meanwhile.

        Raises:
            TrainingError: a worker died.
        """
        while True:
            try:
                return future.result(timeout=1.0)
            except TimeoutError:
                if future.done():
                    raise
                every_second()
            except BrokenProcessPool as error:
                raise TrainingError(self._cause()) from error

    def close(self) -> None:
        """End the workers when their jobs are done; jobs that have not started are dropped, and no job is taken after."""
        with self._lock:
            self._closed = True
            if self._executor is not None:
                self._executor.shutdown(wait=True, cancel_futures=True)
                self._executor = None
        self._starter.shutdown()
        self._our_end.close()
        self._workers_end.close()

    def abandon(self) -> None:
        """End the workers at once, in the middle of their jobs."""
        self._our_end.close()
        self.close()

    def end(self, kind: type[BaseException] | None) -> None:
        """End the workers after their jobs, or at once when what ends the pool is an interruption."""
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:  # Ctrl-C or a cancelled run: nobody waits for a training to end
            self.abandon()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end(kind)


_training = threading.Lock()


def train_here(function: Callable[[J], None], job: J, every_second: Callable[[], None]) -> None:
    """Do a job in this process, on one thread, and call `every_second` meanwhile.

    Jobs that other threads of this process ask for at the same time wait: random numbers of torch and numpy belong to the process.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            every_second()

    with _training, threadpool_limits(1):
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            function(job)
        finally:
            over.set()
            watcher.join()


_shared: dict[int, WorkerPool] = {}
_sharing = threading.Lock()
_failed = threading.Event()


def shared_pool(workers: int) -> WorkerPool:
    """This process's pool of so many workers, made when it is first asked for. It ends with the process, or with `shared_pools`.

    Raises:
        TrainingError: the block of `shared_pools` that this belongs to has failed.
    """
    with _sharing:
        if _failed.is_set():
            raise TrainingError(_ENDING)
        if not _shared:  # before a process that was itself spawned waits for its children
            Finalize(None, end_shared_pools, exitpriority=1)
        if workers not in _shared:
            _shared[workers] = WorkerPool(workers)
        return _shared[workers]


def end_shared_pools(kind: type[BaseException] | None = None) -> None:
    """End this process's pools, after their jobs or, where an interruption is the cause, at once; the next job starts another one."""
    with _sharing:
        ended = [_shared.pop(workers) for workers in list(_shared)]
    for pool in ended:
        pool.end(kind)


@contextmanager
def shared_pools() -> Iterator[None]:
    """A block at whose end this process's shared pools end: after their jobs, or at once when it is interrupted.

    Where it fails, threads of it that are still under way start no other pool: whoever waits for them would wait for a whole training.
    """
    _failed.clear()
    try:
        yield
    except BaseException:
        _failed.set()
        raise
    finally:
        end_shared_pools(sys.exc_info()[0])
