"""What a run stands on, by reference."""

from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import ConfigDict

from ploutos.errors import StoreError
from ploutos.store import Ref


@dataclass(frozen=True)
class RunRefs:
    """What a run stands on; the later ones are None until they are made."""

    __pydantic_config__ = ConfigDict(extra="ignore")  # what another version knew beside them is passed over

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
