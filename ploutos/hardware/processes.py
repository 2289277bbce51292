"""Processes that end with the one that started them, however that ends; and what the system ends when memory runs out."""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """From now on the kernel sends this process a signal when the thread that started it ends, to `kill -9` even; Linux only.

    A process is started by a thread, so that thread must live as long as the process should. Nothing is held up by what this process is
    busy with, unlike a watching thread, which waits for the interpreter.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended meanwhile
        os.kill(os.getpid(), number)


def memory_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the system has ended since it started because memory ran out; None where it does not say, as Linux does."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, PermissionError):
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
