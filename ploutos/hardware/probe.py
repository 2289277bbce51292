"""What the machine has, and how much of it this process may use. Containers are read, not only the host."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import pynvml

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA device, read through NVML."""

    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Machine:
    """Usable cores, memory, and GPUs (none where NVML finds no driver)."""

    cores: int
    total_bytes: int
    free_bytes: int
    gpus: tuple[Gpu, ...]


def _cgroup_number(name: str) -> int | None:
    file = _CGROUP / name
    if not file.is_file():
        return None
    text = file.read_text(encoding="ascii").split()[0]
    return int(text) if text.isdigit() else None


def usable_cores() -> int:
    """Cores that this process may run on: affinity, cut down by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    file = _CGROUP / "cpu.max"
    if file.is_file():
        quota, period = file.read_text(encoding="ascii").split()
        if quota.isdigit():
            cores = min(cores, max(int(quota) // int(period), 1))
    return cores


def read_gpus() -> tuple[Gpu, ...]:
    """NVIDIA devices by NVML; empty without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            gpus.append(Gpu(str(name), int(memory.total), int(memory.free)))
        return tuple(gpus)
    finally:
        pynvml.nvmlShutdown()


def read_machine() -> Machine:
    """Cores, memory and GPUs as they are now."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit, used = _cgroup_number("memory.max"), _cgroup_number("memory.current")
    if limit is not None and limit < total:
        total, free = limit, min(free, max(limit - (used or 0), 0))
    return Machine(usable_cores(), total, free, read_gpus())
