"""The gate between two phases: let go of memory, wait until enough is free, say what was seen."""

import gc
import sys
import time
from collections.abc import Callable

from pydantic import NonNegativeFloat

from ploutos.errors import ResourceError
from ploutos.hardware.machine import Machine, read_machine
from ploutos.specs import Spec

_GIB = 1 << 30
_POLL_SECONDS = 2.0


class ResourceSpec(Spec):
    """What must be free before the next phase starts."""

    pause_between_phases: NonNegativeFloat = 5.0
    """Seconds to wait after a phase, for its memory to come back."""
    min_free_ram_gib: NonNegativeFloat = 1.0
    """Free memory that the next phase needs."""
    min_free_vram_gib: NonNegativeFloat = 0.0
    """Free memory on every GPU; without a GPU it is not checked."""
    timeout_seconds: NonNegativeFloat = 300.0
    """How long to wait for it beyond the pause."""


def release_memory() -> None:
    """Collect garbage and hand torch's cached GPU memory back, if torch and a GPU are in use."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def describe(machine: Machine) -> str:
    """One line: free memory, and each GPU's."""
    text = f"{machine.free_bytes / _GIB:.1f} of {machine.total_bytes / _GIB:.1f} GiB RAM free, {machine.cores} cores"
    if not machine.gpus:
        return text + ", no GPU (VRAM not checked)"
    return text + "".join(f", {g.name}: {g.free_bytes / _GIB:.1f} of {g.total_bytes / _GIB:.1f} GiB VRAM free" for g in machine.gpus)


def _enough(machine: Machine, spec: ResourceSpec) -> bool:
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
        The machine as it was when the gate opened.

    Raises:
        ResourceError: not enough was free in time.
    """
    release_memory()
    sleep(spec.pause_between_phases)
    deadline = clock() + spec.timeout_seconds
    while not _enough(machine := read(), spec):
        if clock() >= deadline:
            raise ResourceError(
                f"found {describe(machine)}; expected {spec.min_free_ram_gib} GiB RAM and {spec.min_free_vram_gib} GiB VRAM "
                f"free within {spec.timeout_seconds:.0f} s; close other programs or lower pipeline.min_free_ram_gib"
            )
        sleep(_POLL_SECONDS)
    return machine
