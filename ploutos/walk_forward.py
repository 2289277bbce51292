"""Walk-forward folds over a bar index.

Ranges are half-open bar positions. A range's bars are those whose profit it counts: the first is earned by the decision
made one bar earlier. Training comes first, then validation, then test; between two ranges lie `purge + embargo` bars
that belong to neither. Test ranges are disjoint and follow each other without a hole, so they can be stitched. Every
fold is reported; a last test range shorter than the others is kept when it is long enough.

Features look back up to `warmup_bars`; the first training range starts after as many bars, and later ranges find their
warm-up in the bars before them.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt, PositiveInt

from ploutos.errors import HistoryError
from ploutos.market.bars import Bars
from ploutos.market.calendar import DAYS_PER_YEAR
from ploutos.specs import Spec
from ploutos.store import Kind, write_json
from ploutos.types import TimeArray

if TYPE_CHECKING:
    from ploutos.features.build import FeatureSet

_SHORTEST = 20  # bars that a score may stand on


class FoldSpec(Spec):
    """Walk-forward geometry."""

    train_years: PositiveInt = 5
    """Years of each training range; anchored folds grow from there."""
    validation_months: PositiveInt = 6
    """Months held out after training, before test."""
    test_months: PositiveInt = 12
    """Months of each test range, and the step from fold to fold."""
    min_test_months: PositiveInt = 3
    """Shortest last test range to keep."""
    purge_bars: NonNegativeInt = 1
    """Bars dropped before a boundary because their reward reaches across it: one, the reward's horizon."""
    embargo_bars: NonNegativeInt = 5
    """Further bars dropped at a boundary."""
    holdout_months: NonNegativeInt = 0
    """Months at the end that no fold touches: neither trained nor chosen nor tested on. `ploutos models holdout` reads them, once."""
    scheme: Literal["anchored", "rolling"] = "anchored"
    """`anchored` always trains from the first bar, `rolling` on the last `train_years`."""


class Range(Spec):
    """Half-open bar positions."""

    start: NonNegativeInt
    stop: NonNegativeInt

    @property
    def n_bars(self) -> int:
        return self.stop - self.start


class Fold(Spec):
    """One walk-forward step."""

    index: NonNegativeInt
    train: Range
    validation: Range
    test: Range
    warmup_bars: NonNegativeInt
    """Bars that the features of a range reach back before it."""
    data_sha256: str
    """Digest of all bars and features before the test range: what a policy of this fold is trained on."""


def _after(anchor: pd.Timestamp, years: int, months: int) -> pd.Timestamp:
    return anchor + pd.DateOffset(years=years, months=months)


def _position(timestamps: TimeArray, moment: pd.Timestamp) -> int:
    return int(np.searchsorted(timestamps, np.datetime64(moment, "us")))


def data_digest(bars: Bars, features: "FeatureSet", stop: int) -> str:
    """Digest of everything known before bar `stop`; bars that come later do not change it."""
    terms = [spec.model_dump(mode="json") for spec in bars.instruments]
    paid = [(int(bar), price) for bar, price in zip(bars.payout_bars, bars.payouts, strict=False) if 0 <= bar < stop]
    known = [bars.symbols, features.names, terms, bars.calendar, str(bars.timeframe), paid]
    digest = hashlib.sha256(json.dumps(known).encode())
    clock, prices = (bars.timestamps, bars.available_at), (bars.open, bars.high, bars.low, bars.mark)
    for array in (*clock, *prices, bars.volume, bars.tradable, features.values):
        digest.update(np.ascontiguousarray(array[:stop]).tobytes())
    return digest.hexdigest()


def holdout(bars: Bars, spec: FoldSpec) -> Range:
    """The bars at the end that no fold touches; empty where none are held out.

    Raises:
        HistoryError: nothing would be left.
    """
    if not spec.holdout_months:
        return Range(start=bars.n_bars, stop=bars.n_bars)
    start = _position(bars.timestamps, _after(pd.Timestamp(bars.timestamps[-1]), 0, -spec.holdout_months))
    if start < _SHORTEST:
        raise HistoryError(
            f"folds.holdout_months is {spec.holdout_months}, which leaves {start} bars; use a longer history, or fewer months"
        )
    return Range(start=start, stop=bars.n_bars)


def plan_folds(bars: Bars, features: "FeatureSet", spec: FoldSpec | None = None) -> tuple[Fold, ...]:
    """Lay out every fold that the history holds.

    Args:
        spec: the geometry; five years of training or more, half a year of validation, a year of test where it is left out.

    Raises:
        HistoryError: no fold fits; the message says how many years are missing.
    """
    spec = spec or FoldSpec()
    stamps, warmup = bars.timestamps, features.warmup_bars
    gap = spec.purge_bars + spec.embargo_bars
    if warmup >= bars.n_bars - 1:
        raise HistoryError(
            f"found {bars.n_bars} bars, all of them used up by the features' warm-up; expected years of bars; use a longer history"
        )
    anchor, n_bars = pd.Timestamp(stamps[warmup]), holdout(bars, spec).start
    last = pd.Timestamp(stamps[n_bars - 1])
    folds: list[Fold] = []
    while True:
        months = len(folds) * spec.test_months
        train_end = _after(anchor, spec.train_years, months)
        test_from = _after(anchor, spec.train_years, months + spec.validation_months)
        train_stop = _position(stamps, train_end)
        test_start = _position(stamps, test_from) + 2 * gap
        test_stop = min(_position(stamps, _after(test_from, 0, spec.test_months)) + 2 * gap, n_bars)
        last_needed = _after(pd.Timestamp(stamps[min(test_start, n_bars - 1)]), 0, spec.min_test_months)
        if test_start >= n_bars or last_needed > last + pd.Timedelta(days=4):
            break
        rolling_from = _position(stamps, _after(anchor, 0, months))
        folds.append(
            Fold(
                index=len(folds),
                train=Range(start=warmup if spec.scheme == "anchored" else rolling_from, stop=train_stop),
                validation=Range(start=train_stop + gap, stop=test_start - gap),
                test=Range(start=test_start, stop=test_stop),
                warmup_bars=warmup,
                data_sha256=data_digest(bars, features, test_start - gap),
            )
        )
    if not folds:
        raise HistoryError(_zero_folds(bars, warmup, spec, gap))
    return tuple(folds)


def _zero_folds(bars: Bars, warmup: int, spec: FoldSpec, gap: int) -> str:
    span = pd.Timestamp(bars.timestamps[-1]) - pd.Timestamp(bars.timestamps[0])
    years = span.days / DAYS_PER_YEAR
    per_bar = years / bars.n_bars
    months = spec.validation_months + spec.min_test_months + spec.holdout_months
    needed = spec.train_years + months / 12 + (warmup + 2 * gap) * per_bar
    held_out = f" + {spec.holdout_months} months held out" if spec.holdout_months else ""
    return (
        f"found {years:.1f} years of bars, too few for one fold; expected {needed:.1f} "
        f"({spec.train_years} training + {spec.validation_months} months validation + at least {spec.min_test_months} months "
        f"test{held_out} + warm-up); {max(needed - years, 0.1):.1f} years are missing: use a longer history or lower folds.train_years"
    )


def inner_split(train: Range, gap: int, share: float) -> tuple[Range, Range]:
    """A training range's own training and validation ranges.

    Raises:
        HistoryError: the validation range would be too short for a score.
    """
    cut = train.start + round(train.n_bars * (1 - share))
    if train.stop - cut - gap < _SHORTEST or cut - train.start < _SHORTEST:
        raise HistoryError(
            f"a training range of {train.n_bars} bars is too short to be split again with a gap of {gap}; train on a longer range"
        )
    return Range(start=train.start, stop=cut), Range(start=cut + gap, stop=train.stop)


def tested_decisions(folds: Sequence[Fold]) -> tuple[int, int]:
    """First and last bar after whose close a decision of the test ranges is made."""
    return folds[0].test.start - 1, folds[-1].test.stop - 2


def with_bar_to_come(plan: tuple[Fold, ...], n_bars: int) -> tuple[Fold, ...]:
    """The plan with its last test range led on over the bar that is still to come: what is decided after the last bar is for that one."""
    last = plan[-1]
    return (*plan[:-1], last.model_copy(update={"test": Range(start=last.test.start, stop=n_bars + 1)}))


def fold_table(folds: tuple[Fold, ...], timestamps: TimeArray) -> list[dict[str, str]]:
    """The plan as rows for people: dates and bar counts of each range."""

    def show(part: Range) -> str:
        first, last = (str(timestamps[i].astype("datetime64[D]")) for i in (part.start, part.stop - 1))
        return f"{first} .. {last} ({part.n_bars})"

    return [{"fold": str(f.index), "train": show(f.train), "validation": show(f.validation), "test": show(f.test)} for f in folds]


def write_folds(folds: tuple[Fold, ...], path: Path) -> None:
    """Write a plan as JSON."""
    write_json(path, [fold.model_dump() for fold in folds])


def read_folds(path: Path) -> tuple[Fold, ...]:
    """Read what `write_folds` wrote."""
    return tuple(Fold.model_validate(item) for item in json.loads(path.read_text(encoding="utf-8")))


FOLDS = Kind("folds", ".json", write_folds, read_folds)
