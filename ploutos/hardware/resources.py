"""The pause between two phases: release memory, wait until enough is free, report what came back."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from pydantic import Field, NonNegativeFloat, PositiveFloat

from ploutos.errors import ResourceError
from ploutos.hardware.machine import Machine, read_machine
from ploutos.hardware.monitor import Pause, read_process_usage
from ploutos.specs import Spec

_GIB, _MIB = 1 << 30, 1 << 20
_POLL_SECONDS = 2.0


class ResourceSpec(Spec):
    """What must be free before the next phase starts."""

    pause_between_phases: NonNegativeFloat = 5.0
    """Seconds to wait after a phase for its memory to be freed."""
    min_free_ram_gib: NonNegativeFloat = 1.0
    """Free memory that the next phase needs."""
    min_free_vram_gib: NonNegativeFloat = 0.0
    """Free memory on every GPU; without a GPU it is not checked."""
    timeout_seconds: NonNegativeFloat = 300.0
    """How long to wait for that memory beyond the pause."""
    gpu_usage_phase2: PositiveFloat | None = Field(default=None, le=1)
    """Most of a GPU's memory that all training processes of phase 2 may take together, as a share; torch ends a training that asks for
    more. Empty sets no bound, and without CUDA it bounds nothing."""
    gpu_usage_phase3: PositiveFloat | None = Field(default=None, le=1)
    """The same for the hybrid policies of phase 3, beside which a language model may stay in memory."""


def release_memory() -> None:
    """Collect garbage, and hand back what Python's heap, Arrow and torch's GPU cache keep for later, where they are in use."""
    gc.collect()
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # glibc has it, musl has not
        libc.malloc_trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Held:
    """Memory that this process and its children hold, and what is free on all GPUs together; None without a GPU."""

    bytes: int
    free_vram_bytes: int | None


def read_held(machine: Machine) -> Held:
    """What is held now."""
    tree = read_process_usage(psutil.Process())
    vram = sum(gpu.free_bytes for gpu in machine.gpus) if machine.gpus else None
    return Held(tree.rss_bytes if tree.pss_bytes is None else tree.pss_bytes, vram)


def reallocate(
    phase: str,
    spec: ResourceSpec,
    before: Held,
    make_room: Callable[[], None],
    always: bool,
    read: Callable[[], Machine] = read_machine,
) -> Pause:
    """Release memory, wait until enough is free, and measure what came back.

    Args:
        before: what was held at the end of the phase before.
        make_room: gives back what costs time to have again.
        always: whether to make that room though enough is free without it.

    Raises:
        ResourceError: not enough was free in time.
    """
    started = time.monotonic()
    if always or not enough(read(), spec):
        make_room()
    machine = wait_for_resources(spec, read)
    after = read_held(machine)
    vram = None if after.free_vram_bytes is None or before.free_vram_bytes is None else after.free_vram_bytes - before.free_vram_bytes
    seconds = time.monotonic() - started
    return Pause(phase, seconds, before.bytes - after.bytes, vram, machine.free_bytes, after.free_vram_bytes)


def describe_pause(pause: Pause) -> str:
    """One line: what came back, and what is free."""
    vram = "" if pause.freed_vram_bytes is None else f", {pause.freed_vram_bytes / _MIB:,.0f} MiB VRAM"
    free = "" if pause.free_vram_bytes is None else f" and {pause.free_vram_bytes / _GIB:.1f} GiB VRAM"
    return (
        f"{pause.freed_bytes / _MIB:,.0f} MiB{vram} given back in {pause.seconds:.1f} s; "
        f"{pause.free_bytes / _GIB:.1f} GiB RAM{free} free" + (", no GPU (VRAM not checked)" if pause.free_vram_bytes is None else "")
    )


def describe(machine: Machine) -> str:
    """One line: free memory, and each GPU's."""
    text = f"{machine.free_bytes / _GIB:.1f} of {machine.total_bytes / _GIB:.1f} GiB RAM free, {machine.cores} cores"
    if not machine.gpus:
        return text + ", no GPU (VRAM not checked)"
    return text + "".join(f", {g.name}: {g.free_bytes / _GIB:.1f} of {g.total_bytes / _GIB:.1f} GiB VRAM free" for g in machine.gpus)


def enough(machine: Machine, spec: ResourceSpec) -> bool:
    """Whether as much is free as the next phase needs."""
    ram = machine.free_bytes >= spec.min_free_ram_gib * _GIB
    return ram and all(gpu.free_bytes >= spec.min_free_vram_gib * _GIB for gpu in machine.gpus)


def wait_for_resources(
    spec: ResourceSpec,
    read: Callable[[], Machine] = read_machine,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Machine:
    """Pause, release memory, and wait until RAM and VRAM suffice.

    Returns:
        The machine as it was when enough was free.

    Raises:
        ResourceError: not enough was free in time.
    """
    release_memory()
    sleep(spec.pause_between_phases)
    deadline = clock() + spec.timeout_seconds
    while not enough(machine := read(), spec):
        if clock() >= deadline:
            raise ResourceError(
                f"found {describe(machine)}; expected {spec.min_free_ram_gib} GiB RAM and {spec.min_free_vram_gib} GiB VRAM "
                f"free within {spec.timeout_seconds:.0f} s; close other programs or lower pipeline.min_free_ram_gib"
            )
        sleep(_POLL_SECONDS)
    return machine
