"""What the machine has, and how much of it this process may use. Containers are read, not only the host."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import psutil

from ploutos.hardware.cgroup import Limits, read_limits

logger = logging.getLogger(__name__)


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

    @property
    def vram_bytes(self) -> int | None:
        """Memory of the smallest GPU; None without a GPU, which is not the same as 0."""
        return min((gpu.total_bytes for gpu in self.gpus), default=None)


def _affinity() -> frozenset[int]:
    """Numbers of the cores that the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def usable_cores(limits: Limits | None = None, affinity: frozenset[int] | None = None) -> int:
    """Cores that this process can keep busy: affinity and cpuset, cut down by a container's quota.

    A quota of 2.5 cores counts as two: a third process of one thread would be throttled.

    Args:
        limits: of the control groups; those of this process by default.
        affinity: core numbers; those of this process by default.
    """
    limits = read_limits() if limits is None else limits
    allowed = _affinity() if affinity is None else affinity
    if limits.cpuset is not None:
        allowed = allowed & limits.cpuset or allowed
    return max(len(allowed) if limits.cpus is None else min(len(allowed), int(limits.cpus)), 1)


def usable_memory(limits: Limits, host_total: int, host_free: int) -> tuple[int, int]:
    """Total and free bytes that this process may use: the host's, or the container's where it has less."""
    total, free = host_total, host_free
    if limits.memory_bytes is not None:
        total = min(total, limits.memory_bytes)
    if limits.memory_free_bytes is not None:
        free = min(free, limits.memory_free_bytes)
    return total, free


def find_nvml() -> Any:
    """NVIDIA's library; None where its Python package is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def read_gpus(nvml: Any = None) -> tuple[Gpu, ...]:
    """NVIDIA devices by NVML; empty without a driver. A device that does not say its memory is left out, with a warning.

    Args:
        nvml: the module that answers; `pynvml` by default.
    """
    nvml = nvml or find_nvml()
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    gpus = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            try:
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            except nvml.NVMLError as error:
                logger.warning("GPU %d does not say its memory (%s) and is not used", index, error)
                continue
            gpus.append(Gpu(str(nvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free)))
    finally:
        nvml.nvmlShutdown()
    return tuple(gpus)


def read_machine() -> Machine:
    """Cores, memory and GPUs as they are now."""
    limits, host = read_limits(), psutil.virtual_memory()
    total, free = usable_memory(limits, int(host.total), int(host.available))
    return Machine(usable_cores(limits), total, free, read_gpus())
