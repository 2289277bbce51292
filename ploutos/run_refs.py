"""What a run stands on, by reference."""

from dataclasses import dataclass

from ploutos.errors import StoreError
from ploutos.store import Ref


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
    hybrids: tuple[tuple[Ref, ...], ...] = ()  # by fold, then member; empty where none are trained
    ablated: tuple[tuple[Ref, ...], ...] = ()  # the same with the advice blank
    fusion: Ref | None = None  # stays None where nothing is chosen
    signals: Ref | None = None
    mirrored: Ref | None = None  # stays None when nobody is asked about the mirrored market
    backtests: Ref | None = None
    candidates: Ref | None = None
    robustness: Ref | None = None  # stays None where no stress test is run
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
