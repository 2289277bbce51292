"""What a run's folder says of itself: `manifest.json`, which is written last."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from ploutos.errors import StoreError
from ploutos.faults import first_fault
from ploutos.hardware.monitor import Pause
from ploutos.llm.gpu_unload import UnloadRecord
from ploutos.llm.meter import Spent
from ploutos.market.instruments import InstrumentSpec
from ploutos.market.quality_report import QualityWarning
from ploutos.run_refs import RunRefs
from ploutos.specs import only_known
from ploutos.store import Store, write_json

MANIFEST = "manifest.json"
SCHEMA_VERSION: Literal[1] = 1


class _Facts(BaseModel):
    """A frozen group of facts. What another version wrote beside them is passed over: a champion's folder outlives versions."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class BarsFacts(_Facts):
    """What the numbers assume about the bars."""

    timeframe: str
    """Such as `1D`."""
    calendar: str
    """Of the sessions."""
    sessions_per_year: float
    """As the bars hold them."""
    zone: str
    """In which the source stamps bars."""
    label: str
    """What the source's stamps name: a bar's start or its end."""
    instruments: tuple[Annotated[InstrumentSpec, only_known(InstrumentSpec)], ...]
    """With their costs."""
    notes: tuple[str, ...]
    """Whatever else is to be known."""


@dataclass(frozen=True)
class Asked(Spent):
    """What a language model was asked anew in a run, and how it left memory and came back."""

    unloads: tuple[UnloadRecord, ...] = ()


class RunManifest(_Facts):
    """When and by what code a run was written, its settings, what it stands on and what it took.

    A run that ends after a phase has neither a source nor anything below it.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    """Of this file; one without it is of the first version."""
    written: str
    """UTC, ISO 8601."""
    phase: int | None = None
    """After which the run ended; None for a whole one."""
    commit: str
    """Of ploutos."""
    code: str = ""
    """Digest of the source that policies and numbers stand on."""
    config_sha256: str
    """Digest of the settings."""
    seed: int
    """Of the run."""
    refs: RunRefs
    """Everything in the store that it stands on."""
    stages: dict[str, str]
    """Stage to `Cached` or `Completed`."""
    source: str = ""
    """Of the bars."""
    bars: BarsFacts | None = None
    """None after a phase."""
    artifacts: dict[str, str] = {}
    """Digests by name."""
    substitutes: dict[str, str] = {}
    """Symbols that another one stands in for."""
    data_quality: tuple[QualityWarning, ...] = ()
    """What the inspection of the bars warned of."""
    versions: dict[str, str] = {}
    """Of libraries."""
    hardware: dict[str, float | int | None] = {}
    """Figures of what the run took; None was not evaluated."""
    pauses: tuple[Pause, ...] = ()
    """Between phases."""
    llm: Asked | None = None
    """None with the mock."""

    def require_bars(self) -> BarsFacts:
        """What its numbers assume about the bars.

        Raises:
            StoreError: it ended after a phase.
        """
        if self.bars is None:
            raise StoreError(f"the run ended after phase {self.phase}, so nothing was tested; name the folder of a whole run")
        return self.bars


def write_manifest(manifest: RunManifest, folder: Path) -> None:
    """Write `manifest.json`."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> RunManifest:
    """What a run's folder says of itself.

    Raises:
        StoreError: there is no manifest, or it is damaged or of another schema version.
    """
    try:
        return RunManifest.model_validate(json.loads((folder / MANIFEST).read_bytes()))
    except (OSError, ValueError) as error:  # of the file, of its JSON, or of its fields
        raise StoreError(
            f"{folder} holds no {MANIFEST} of a run ({first_fault(error)}); name the folder of a run or of a phase, or repeat it"
        ) from error


def read_refs(folder: Path, phase: int, store: Store) -> RunRefs:
    """What the first phases of an earlier run made, every artifact verified.

    Args:
        folder: of that run, or of its last phase.
        phase: the last one that is needed.

    Raises:
        StoreError: the folder has no manifest, the run did not come that far, or an artifact is missing or damaged.
    """
    refs = read_manifest(folder).refs
    if phase == 2 and not refs.policies:
        raise StoreError(f"the run in {folder} ended before phase 2, so it has no policies; start from phase 2")
    refs = refs.until(phase)
    for ref in refs.all():
        if not store.holds(ref):
            raise StoreError(f"{ref.kind} {ref.sha256[:12]} of {folder} is missing or damaged in {store.where}; repeat that run")
    return refs
