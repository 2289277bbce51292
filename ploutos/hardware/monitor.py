"""What a run really took: cores, memory and GPU of this process and all its children, read by a thread.

GPU utilisation is NVML's: the share of time in which a kernel ran, on the whole device. Without a GPU, or where the
device does not tell, it is None, an empty cell, and "not evaluated" in words; memory never stands in its place.
Processes that were started elsewhere, a Prefect server on its own for instance, are not counted.
"""

import csv
import logging
import threading
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from ploutos.errors import ResourceError
from ploutos.hardware.cgroup import read_limits
from ploutos.hardware.machine import find_nvml, usable_memory
from ploutos.store import writing

logger = logging.getLogger(__name__)

NOT_EVALUATED = "not evaluated"
_GIB = 1 << 30
_MAX_OVERHEAD = 0.02
"""Of one core; when readings are expensive, the next one comes later."""


@dataclass(frozen=True)
class ProcessUsage:
    """A process and its children at one moment.

    Attributes:
        cpu_seconds: used so far, by children that ended as well.
        n_processes: alive.
        rss_bytes: resident memory, shared pages counted once per process.
        pss_bytes: the same with shared pages divided among their holders; None where the system does not tell.
    """

    cpu_seconds: float
    n_processes: int
    rss_bytes: int
    pss_bytes: int | None


@dataclass(frozen=True)
class Sample:
    """One reading, one row of the CSV; None is an empty cell.

    Attributes:
        utc: ISO 8601.
        elapsed_s: since monitoring started.
        cpu_seconds: used by the process tree so far, before monitoring as well.
        cpu_cores: cores kept busy since the last reading; None in the first.
        n_processes, rss_bytes, pss_bytes: of the process tree, see `ProcessUsage`.
        free_ram_bytes: what this process may still use, in its container.
        gpu_utilization: 0 to 1, mean of all devices.
        gpu_memory_bytes: used on all devices together, by anybody.
    """

    utc: str
    elapsed_s: float
    cpu_seconds: float
    cpu_cores: float | None
    n_processes: int
    rss_bytes: int
    pss_bytes: int | None
    free_ram_bytes: int
    gpu_utilization: float | None
    gpu_memory_bytes: int | None

    @property
    def memory_bytes(self) -> int:
        """Proportional memory, or resident memory on a system that knows no other."""
        return self.rss_bytes if self.pss_bytes is None else self.pss_bytes


@dataclass(frozen=True)
class Pause:
    """What a pause between two phases gave back.

    Attributes:
        before: the phase that it came before.
        seconds: how long it took.
        freed_bytes: memory of this process and its children that went back to the system; below 0 where they took more.
        freed_vram_bytes: memory of all GPUs together that became free, a language model's included; None without a GPU.
        free_bytes, free_vram_bytes: what was free when the phase began.
    """

    before: str
    seconds: float
    freed_bytes: int
    freed_vram_bytes: int | None
    free_bytes: int
    free_vram_bytes: int | None


@dataclass(frozen=True)
class Usage:
    """What a run took, as a value that travels: all readings, and the figures for a manifest; None is what was not evaluated."""

    samples: tuple[Sample, ...]
    pauses: tuple[Pause, ...] = ()

    @property
    def peak_memory_bytes(self) -> int | None:
        """Most memory of the process tree at any reading (PSS where the system tells)."""
        return max((sample.memory_bytes for sample in self.samples), default=None)

    @property
    def mean_cpu_cores(self) -> float | None:
        """Cores that the process tree kept busy from the first reading to the last."""
        if len(self.samples) < 2:
            return None
        first, last = self.samples[0], self.samples[-1]
        return (last.cpu_seconds - first.cpu_seconds) / (last.elapsed_s - first.elapsed_s)

    @property
    def gpu_utilization(self) -> float | None:
        """Mean of NVML's utilisation over all readings, 0 to 1."""
        known = [sample.gpu_utilization for sample in self.samples if sample.gpu_utilization is not None]
        return sum(known) / len(known) if known else None

    @property
    def peak_gpu_memory_bytes(self) -> int | None:
        """Most memory in use on all devices together at any reading."""
        return max((sample.gpu_memory_bytes for sample in self.samples if sample.gpu_memory_bytes is not None), default=None)

    def summary(self) -> dict[str, float | int | None]:
        """The figures by name."""
        return {name: getattr(self, name) for name in ("peak_memory_bytes", "mean_cpu_cores", "gpu_utilization", "peak_gpu_memory_bytes")}

    def save(self, path: Path) -> None:
        """Write all readings as CSV, one row each, under the names of `Sample`."""
        with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
            writer.writeheader()
            writer.writerows(asdict(sample) for sample in self.samples)


def read_process_usage(root: psutil.Process) -> ProcessUsage:
    """Read a process and all below it; those that end meanwhile are left out, their CPU time is with their parent."""
    cpu, count, rss = 0.0, 0, 0
    shares: list[int | None] = []
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
            cpu += times.user + times.system + times.children_user + times.children_system
            memory = process.memory_info().rss
            share = _share(process)
        except psutil.NoSuchProcess:
            continue
        count += 1
        rss += memory
        shares.append(share)
    known = [share for share in shares if share is not None]
    return ProcessUsage(cpu, count, rss, sum(known) if len(known) == len(shares) else None)


def _share(process: psutil.Process) -> int | None:
    """Proportional memory in bytes; None where the system has none or keeps it to itself."""
    try:
        return getattr(process.memory_full_info(), "pss", None)
    except psutil.AccessDenied:
        return None


class _Gpus:
    """Utilisation and memory of all NVIDIA devices; nothing where NVML finds none."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.handles: list[Any] = []
        self._open, self._warned = False, False
        if nvml is None:
            return
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return
        self._open = True
        self.handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]

    def _ask(self, function: str, field: str) -> list[int] | None:
        """A field of every device's answer; None when there is no device or one does not report it."""
        if not self.handles:
            return None
        try:
            answers = [int(getattr(getattr(self.nvml, function)(handle), field)) for handle in self.handles]
        except self.nvml.NVMLError as error:
            if not self._warned:
                logger.warning("NVML does not answer %s (%s): it is %s", function, error, NOT_EVALUATED)
            self._warned = True
            return None
        return answers

    def utilization(self) -> float | None:
        rates = self._ask("nvmlDeviceGetUtilizationRates", "gpu")
        return None if rates is None else sum(rates) / len(rates) / 100

    def memory(self) -> int | None:
        used = self._ask("nvmlDeviceGetMemoryInfo", "used")
        return None if used is None else sum(used)

    def close(self) -> None:
        if self._open:
            self.nvml.nvmlShutdown()
        self.handles, self._open = [], False


def _free_ram() -> int:
    host = psutil.virtual_memory()
    return usable_memory(read_limits(), int(host.total), int(host.available))[1]


class HardwareMonitor:
    """Watches this process and its children from `start_monitoring` to `stop_monitoring`, or through a `with` block.

    It reads once at the start, then every interval, and once at the end, so the shortest run has readings.

    Args:
        log_interval: seconds between two readings; longer when readings would take more than 2 % of a core.
        nvml: the module that answers for GPUs; `pynvml` by default.

    Raises:
        ResourceError: the interval is not positive.
    """

    def __init__(self, log_interval: float = 1.0, nvml: Any = None) -> None:
        if not log_interval > 0:
            raise ResourceError(f"log_interval is {log_interval}; expected seconds above 0")
        self.log_interval = log_interval
        self.samples: list[Sample] = []
        self.pauses: list[Pause] = []
        self._nvml = nvml or find_nvml()
        self._gpus: _Gpus | None = None
        self._root = psutil.Process()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = 0.0

    def start_monitoring(self) -> None:
        """Forget earlier readings, take the first, and continue in a thread; while it runs this does nothing."""
        if self._thread is not None:
            return
        self.samples = []
        self._root, self._gpus, self._started = psutil.Process(), _Gpus(self._nvml), time.monotonic()
        self._stop.clear()
        self._read()
        self._thread = threading.Thread(target=self._watch, name="hardware-monitor", daemon=True)
        self._thread.start()

    def stop_monitoring(self) -> None:
        """Take the last reading and end the thread; when it does not run this does nothing."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        try:
            self._read()
        finally:
            if self._gpus is not None:
                self._gpus.close()

    def _watch(self) -> None:
        pause = self.log_interval
        while not self._stop.wait(pause):
            before = time.thread_time()
            self._read()
            pause = max(self.log_interval, (time.thread_time() - before) / _MAX_OVERHEAD)

    def _read(self) -> None:
        elapsed, tree, busy = time.monotonic() - self._started, read_process_usage(self._root), None
        if self.samples and elapsed > self.samples[-1].elapsed_s:
            busy = (tree.cpu_seconds - self.samples[-1].cpu_seconds) / (elapsed - self.samples[-1].elapsed_s)
        self.samples.append(
            Sample(
                utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
                elapsed_s=elapsed,
                cpu_seconds=tree.cpu_seconds,
                cpu_cores=None if busy is None else max(busy, 0.0),
                n_processes=tree.n_processes,
                rss_bytes=tree.rss_bytes,
                pss_bytes=tree.pss_bytes,
                free_ram_bytes=_free_ram(),
                gpu_utilization=None if self._gpus is None else self._gpus.utilization(),
                gpu_memory_bytes=None if self._gpus is None else self._gpus.memory(),
            )
        )

    @property
    def usage(self) -> "Usage":
        """What was read so far."""
        return Usage(tuple(self.samples), tuple(self.pauses))

    def get_average_gpu_utilization(self) -> float | None:
        """Mean of NVML's utilisation over all readings, 0 to 1; None means it was not evaluated."""
        return self.usage.gpu_utilization

    def get_peak_memory_usage(self) -> int | None:
        """Most memory of the process tree at any reading, in bytes (PSS where the system tells); None before the first."""
        return self.usage.peak_memory_bytes

    def save_metrics(self, path: Path | str) -> None:
        """Write all readings as CSV, one row each, under the names of `Sample`."""
        self.usage.save(Path(path))

    def __enter__(self) -> "HardwareMonitor":
        self.start_monitoring()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_monitoring()


def _gib(n_bytes: float | None) -> float | None:
    return None if n_bytes is None else n_bytes / _GIB


def describe_usage(summary: dict[str, float | int | None]) -> list[tuple[str, str]]:
    """A summary in words for the report: name and value; what has no value was not evaluated."""
    shown = (
        ("peak memory of all processes", _gib(summary["peak_memory_bytes"]), "{:.2f} GiB"),
        ("cores kept busy", summary["mean_cpu_cores"], "{:.2f}"),
        ("GPU utilisation", summary["gpu_utilization"], "{:.0%}"),
        ("peak GPU memory", _gib(summary["peak_gpu_memory_bytes"]), "{:.2f} GiB"),
    )
    return [(label, NOT_EVALUATED if value is None else text.format(value)) for label, value, text in shown]
