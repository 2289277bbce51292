"""What changed since the last night: the bars of the past, the features' distribution, and each target weight, part by part.

A weight's change is split by replay: the earlier decision is taken again with one more of today's causes each time, in a fixed order, and
each step's difference is that cause's part. So the parts add up to the change exactly; in another order they would be split otherwise where
causes act together, and the order is on the page. What the code changed is the difference between what was decided then and what the same
inputs give now; with the same code that must be nothing, or a decision cannot be replayed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ploutos.advisor.signals import Signals
from ploutos.features.build import FeatureSet
from ploutos.market.bars import FIELDS, Bars
from ploutos.nightly.decision import Decision, DecisionInputs, decide
from ploutos.types import FloatArray
from ploutos.walk_forward import Range

_BINS, _FEWEST = 10, 20
_SEED_SETTINGS = {"seed", "training.members"}


class Cause(StrEnum):
    """Why a target weight is another one than the night before, in the order in which causes are replayed."""

    CODE = "code"
    """The source, on the earlier inputs."""
    REVISION = "data revision"
    """Bars of the past have other prices, or are gone, or are new."""
    SEED = "seed and ensemble"
    """Other seeds or another number of policies."""
    SETTINGS = "settings"
    """Other settings."""
    NEW_FOLD = "new fold"
    """The plan moved on: policies that were trained up to a later bar."""
    RETRAINING = "retraining"
    """Policies that differ for several causes at once; only training once more per cause could separate them."""
    ADVICE = "advice"
    """The advisor says something else."""
    NEW_BAR = "new bar"
    """The market moved."""


@dataclass(frozen=True)
class Revision:
    """One value of the past that is another one today."""

    symbol: str
    timestamp: str
    field: str
    before: float | None
    after: float | None


def revisions(before: Bars, after: Bars) -> list[Revision]:
    """Every value of bars that both nights know of and that differs; bars that one night lacks differ in their close.

    Args:
        after: those of today; bars later than the last one of `before` are not a revision.
    """
    found, until = list[Revision](), before.timestamps[-1]
    old, new = ({field: _by_stamp(bars, field) for field in FIELDS} for bars in (before, after))
    for symbol in sorted({*before.symbols, *after.symbols}):
        for field in FIELDS:
            series = [frames[field].get(symbol, pd.Series(dtype=float)).loc[: pd.Timestamp(until)] for frames in (old, new)]
            pair = pd.concat(series, axis=1, keys=["before", "after"])
            differs = ~((pair["before"] == pair["after"]) | (pair["before"].isna() & pair["after"].isna()))
            if field != "close":  # a bar that is missing is named once
                differs &= pair.notna().all(axis=1)
            found += [
                Revision(symbol, f"{stamp:%Y-%m-%dT%H:%M}Z", field, _number(row["before"]), _number(row["after"]))
                for stamp, row in pair[differs].iterrows()
            ]
    return found


def _by_stamp(bars: Bars, field: str) -> pd.DataFrame:
    return pd.DataFrame(getattr(bars, field), index=pd.DatetimeIndex(bars.timestamps), columns=list(bars.symbols))


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


@dataclass(frozen=True)
class Drift:
    """How far a feature's recent values are from those it was trained on.

    Attributes:
        psi: population stability index over tenths of the training values; above 0.25 is commonly called a shift.
        p: of a Kolmogorov-Smirnov test, corrected by Holm over all features. Neighbouring values hang together, so a small p-value comes
            sooner than it says; it is there to sort by.
    """

    feature: str
    psi: float
    ks: float
    p: float
    n_recent: int


def drift(features: FeatureSet, train: Range, recent: Range) -> list[Drift]:
    """Drift of every feature, all symbols together, the largest index first; features with too few values are left out.

    Args:
        train: what the deciding policies were trained on.
        recent: the sessions that are looked at.
    """
    rows = []
    for column, name in enumerate(features.names):
        old, new = (_finite(features.values[part.start : part.stop, :, column]) for part in (train, recent))
        if len(old) >= _FEWEST and len(new) >= _FEWEST:
            test = stats.ks_2samp(old, new, method="asymp")
            rows.append((name, psi(old, new), float(test.statistic), float(test.pvalue), len(new)))
    corrected = _holm([row[3] for row in rows])
    found = [Drift(name, index, ks, p, n) for (name, index, ks, _, n), p in zip(rows, corrected, strict=True)]
    return sorted(found, key=lambda each: (-each.psi, each.feature))


def _finite(values: np.ndarray) -> FloatArray:
    flat = values.ravel().astype(np.float64)
    return np.asarray(flat[np.isfinite(flat)])


def psi(old: FloatArray, new: FloatArray) -> float:
    """Population stability index over tenths of the old values; an empty tenth counts as half a value.

    Source: Siddiqi (2006), "Credit Risk Scorecards".

    >>> round(psi(np.arange(100.0), np.arange(100.0)), 6)
    0.0
    """
    edges = np.unique(np.quantile(old, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = []
    for values in (old, new):
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        shares.append(np.maximum(counts, 0.5) / len(values))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _holm(p: Sequence[float]) -> list[float]:
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * (len(p) - np.arange(len(p)))), 1.0)
    return [float(each) for each in corrected]


@dataclass(frozen=True)
class NightFacts:
    """What distinguishes a night's inputs from another's.

    Attributes:
        settings: dotted name to value, of all settings that decide a result.
        code: digest of the source.
        members: sha256 of the deciding policies, by fold, then member.
        fold_data: digest of what each fold's policies were trained on.
    """

    settings: Mapping[str, Any]
    code: str
    members: tuple[tuple[str, ...], ...]
    fold_data: tuple[str, ...]


def settings_changed(before: NightFacts, after: NightFacts) -> dict[str, tuple[Any, Any]]:
    """Settings that differ: dotted name to both values."""
    names = sorted({*before.settings, *after.settings})
    pairs = {name: (before.settings.get(name), after.settings.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def retraining_cause(before: NightFacts, after: NightFacts) -> Cause:
    """Why the deciding policies, or the settings they decide under, are others.

    One cause is named where one alone is there; of several at once none can be, without training again.
    """
    changed, causes = settings_changed(before, after), list[Cause]()
    causes += [Cause.SEED] if changed.keys() & _SEED_SETTINGS else []
    causes += [Cause.SETTINGS] if changed.keys() - _SEED_SETTINGS else []
    shared = slice(None, min(len(before.members), len(after.members)))
    if before.members != after.members and not changed:
        causes += [Cause.REVISION] if before.fold_data[shared] != after.fold_data[shared] else []
        causes += [Cause.NEW_FOLD] if len(after.members) > len(before.members) else []
        unexplained = before.fold_data[shared] == after.fold_data[shared] and before.members[shared] != after.members[shared]
        causes += [Cause.CODE] if unexplained else []
    if len(causes) > 1:
        return Cause.RETRAINING
    return causes[0] if causes else Cause.SETTINGS


@dataclass(frozen=True)
class WeightChange:
    """Why a symbol's weight changed.

    Attributes:
        before, after: share of equity to hold, then and now.
        parts: by cause; they sum to `after - before`.
    """

    symbol: str
    before: float
    after: float
    parts: dict[Cause, float]

    @property
    def residual(self) -> float:
        """What the parts leave unexplained: rounding alone."""
        return self.after - self.before - sum(self.parts.values())


def explain_changes(
    decided: Decision, before: DecisionInputs, after: DecisionInputs, facts: tuple[NightFacts, NightFacts], today: Decision
) -> list[WeightChange]:
    """Split the change of each target weight by cause, by replay.

    Args:
        decided: what was decided then, as it was kept.
        before, after: the inputs of both nights.
        facts: what distinguishes them.
        today: the decision on `after`.

    Returns:
        One row per symbol that either night knows; a weight of a symbol that a night does not know is 0.
    """
    steps = _steps(decided, before, after, facts, today)
    symbols = sorted({*decided.frame["symbol"], *today.frame["symbol"]})
    rows = []
    for symbol in symbols:
        path = [weights.get(symbol, 0.0) for _, weights in steps]
        parts: dict[Cause, float] = {}
        for (cause, _), (first, second) in zip(steps[1:], pairwise(path), strict=True):
            assert cause is not None
            parts[cause] = parts.get(cause, 0.0) + (second - first)
        rows.append(WeightChange(symbol, path[0], path[-1], parts))
    return rows


def _steps(
    decided: Decision, before: DecisionInputs, after: DecisionInputs, facts: tuple[NightFacts, NightFacts], today: Decision
) -> list[tuple[Cause | None, dict[str, float]]]:
    """Weights after each cause more, the first as they were."""
    old, new = facts
    n_before = int(np.searchsorted(after.bars.timestamps, before.bars.timestamps[-1], side="right"))
    replayed = _weights(before)
    steps: list[tuple[Cause | None, dict[str, float]]] = [(None, decided.weights()), (Cause.CODE, replayed)]
    then = after.until(n_before)
    same_shape = before.features.names == then.features.names and before.bars.symbols == then.bars.symbols
    if same_shape and len(then.folds) >= len(before.folds):
        revised = replace(before, bars=then.bars, features=then.features, folds=then.folds[: len(before.folds)], market=then.market)
        revised = replace(revised, signals=_moved(before.signals, before.bars, then.bars))
        steps.append((Cause.REVISION, _weights(revised)))
    trained = replace(then, signals=_moved(before.signals, before.bars, then.bars))
    steps.append((retraining_cause(old, new), _weights(trained)))
    steps.append((Cause.ADVICE, _weights(then)))
    if after.signals is not None:
        quiet = replace(after, signals=after.signals.within(0, n_before - 1))
        steps.append((Cause.NEW_BAR, _weights(quiet)))
        steps.append((Cause.ADVICE, today.weights()))
    else:
        steps.append((Cause.NEW_BAR, today.weights()))
    return steps


def _weights(inputs: DecisionInputs) -> dict[str, float]:
    return decide(inputs, reasons=False).weights()


def _moved(signals: Signals | None, old: Bars, new: Bars) -> Signals | None:
    """The earlier advice at today's bar numbers: past bars that were added or removed move all later ones."""
    if signals is None or np.array_equal(old.timestamps, new.timestamps):
        return signals
    place = {stamp: bar for bar, stamp in enumerate(new.timestamps.tolist())}
    bars = [place.get(old.timestamps[bar].item(), -1) for bar in signals.frame["bar"].tolist()]
    frame = signals.frame.assign(bar=bars)
    known = (frame["bar"] >= 0) & frame["symbol"].isin(new.symbols)
    return replace(signals, frame=frame[known].reset_index(drop=True))
