"""Processes that end with the one that started them, however that ends; and what the system ends when memory runs out."""

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_held: list[int] = []  # the ends of pipes that say that this process lives


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


def end_child_with_us(child: int, word: str) -> None:
    """From now on a child that is not ours to change ends when this process does, after `kill -9` even; Linux only.

    A shell of a few hundred KiB waits at the end of a pipe that this process holds open.

    Args:
        word: stands in the child's command line, so that no other process is ended that has its number by then.
    """
    if sys.platform != "linux":
        return
    ours, theirs = os.pipe()[::-1]
    watch = 'read -r _; grep -qs -- "$2" "/proc/$1/cmdline" && kill "$1"'
    redirect = [(os.POSIX_SPAWN_DUP2, theirs, 0)]
    os.posix_spawn("/bin/sh", ["sh", "-c", watch, "sh", str(child), word], os.environ, file_actions=redirect, setsid=True)
    os.close(theirs)
    _held.append(ours)


def memory_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the system has ended since it started because memory ran out; None where it does not say, as Linux does."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, PermissionError):
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
