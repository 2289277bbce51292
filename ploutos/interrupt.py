"""Ctrl-C and SIGTERM end a run at once, in one line, with every process that it started.

All that is finished is in the store, written whole or not at all, and trainings have checkpoints: so nothing is gained by an orderly end
of threads and workers, which takes minutes and prints what nobody can use. A server that a person runs is told that the run is over.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

_PATIENCE = 2.0  # seconds that processes are given to end


_first: list[Callable[[], None]] = []
_calls: list[Callable[[], None]] = []


def call_at_once(call: Callable[[], None]) -> None:
    """What an interruption does before it says anything: give the terminal back."""
    _first.append(call)


def call_at_the_end(call: Callable[[], None]) -> None:
    """What an interruption does last; it must be quick."""
    _calls.append(call)


def end_at_once_on_signals() -> None:
    """From now on SIGINT and SIGTERM end this process, with exit codes 130 and 143, and its children."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def end_at_once_again() -> None:
    """The same where something has taken SIGTERM over since, as Prefect does when a flow begins: it would wait for all that is under way.

    Nothing in a process that no command of ours started, such as a worker's.
    """
    if signal.getsignal(signal.SIGINT) is _end and threading.current_thread() is threading.main_thread():
        end_at_once_on_signals()


def _end(number: int, _: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    for call in _first:
        call()
    os.write(2, b"\ninterrupted; run the same command again to go on\n")
    sys.stderr.flush()
    _end_children()
    for call in _calls:
        call()
    os._exit(128 + number)


def _end_children() -> None:
    """Kill workers and whatever they started; a temporary server is one of them."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(children, timeout=_PATIENCE)
