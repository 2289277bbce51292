"""What a run stands on, by reference."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ploutos.errors import StoreError
from ploutos.store import Ref, Store


@dataclass(frozen=True)
class RunRefs:
    """What a run stands on; the later ones are None until they are made."""

    bars: Ref
    quality: Ref
    features: Ref
    folds: Ref
    policies: tuple[tuple[Ref, ...], ...]  # by fold, then member
    regressions: tuple[tuple[Ref, ...], ...] = ()  # by fold, then kind; empty where none are fitted
    teachers: tuple[Ref, ...] = ()  # by fold; empty where policies have none
    llm_features: Ref | None = None
    readings: Ref | None = None  # of texts; stays None where there are none, and so do their controls
    texts: Ref | None = None
    hybrids: tuple[tuple[Ref, ...], ...] = ()  # by fold, then member; empty where none are trained
    ablated: tuple[tuple[Ref, ...], ...] = ()  # the same with the advice blank
    fusion: Ref | None = None  # stays None where nothing is chosen
    signals: Ref | None = None
    mirrored: Ref | None = None  # stays None when nobody is asked about the mirrored market
    backtests: Ref | None = None
    candidates: Ref | None = None
    robustness: Ref | None = None  # stays None where no stress test is run
    controls: Ref | None = None  # of the advice
    recombined: Ref | None = None  # stays None where it is not asked for, or no linear model is fitted
    metrics: Ref | None = None

    def teacher(self, fold: int) -> Ref | None:
        """Of a fold's policies; None where they have none."""
        return self.teachers[fold] if self.teachers else None

    def require(self, name: str) -> Ref:
        """A later reference, which must have been made by now."""
        ref = getattr(self, name)
        if ref is None:
            raise StoreError(f"the run has no {name} yet")
        return ref

    def until(self, phase: int) -> "RunRefs":
        """What phase 1, phases 1 and 2, or all three made, without what came later."""
        if phase > 2:
            return self
        first = RunRefs(self.bars, self.quality, self.features, self.folds, policies=(), readings=self.readings)
        return first if phase == 1 else replace(first, policies=self.policies, regressions=self.regressions, teachers=self.teachers)

    def all(self) -> list[Ref]:
        """Every reference, in the order of the fields."""
        found: list[Ref] = []
        pending: list[Any] = [getattr(self, field.name) for field in fields(self)]
        while pending:
            each = pending.pop(0)
            if isinstance(each, Ref):
                found.append(each)
            elif each is not None:
                pending[:0] = each
        return found

    def as_json(self) -> dict[str, Any]:
        """For a manifest; `read_refs` reads it again."""
        return dict(_ADAPTER.dump_python(self, mode="json"))

    @staticmethod
    def from_json(value: dict[str, Any]) -> "RunRefs":
        """What `as_json` made."""
        return _ADAPTER.validate_python(value)


_ADAPTER = TypeAdapter(RunRefs)


def read_refs(folder: Path, phase: int, store: Store) -> RunRefs:
    """What the first phases of an earlier run made, every artifact verified.

    Args:
        folder: of that run, or of its last phase.
        phase: the last one that is needed.

    Raises:
        StoreError: the folder has no such manifest, the run did not come that far, or an artifact is missing or damaged.
    """
    try:
        refs = _ADAPTER.validate_python(json.loads((folder / "manifest.json").read_bytes())["refs"])
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, ValidationError) as error:
        raise StoreError(f"{folder} holds no manifest.json with the references of a run; name the folder of a run or of a phase") from error
    if phase == 2 and not refs.policies:
        raise StoreError(f"the run in {folder} ended before phase 2, so it has no policies; start from phase 2")
    refs = refs.until(phase)
    for ref in refs.all():
        if not store.holds(ref):
            raise StoreError(f"{ref.kind} {ref.sha256[:12]} of {folder} is missing or damaged in {store.where}; repeat that run")
    return refs
