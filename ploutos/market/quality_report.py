"""What an inspection of bars found, as values; `ploutos.reporting.quality_page` shows them."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from ploutos.errors import DataError
from ploutos.store import Kind, write_json
from ploutos.types import TimeArray

Severity = Literal["warning", "error"]

LISTED = 5
"""First offenders that travel with a report."""
CHECKS = {
    "no_symbol": "rows that name no symbol",
    "no_timestamp": "rows without a time",
    "order": "bars earlier than the bar before them",
    "conflicts": "bars of one symbol and time with different values",
    "duplicates": "the same bar twice",
    "missing": "a price or volume that is nan or infinite",
    "not_positive": "prices of zero or less, of anything but a future",
    "outside": "an open or close outside low..high",
    "negative_volume": "volumes below zero",
    "mixed_minutes": "intraday bars at another minute of the hour than the rest: two sources in one series",
    "gaps": "bars that the calendar expects between the first and the last bar, and that are not there",
    "off_session": "bars at times when the exchange was closed",
    "extended_hours": "bars before the open or after the close, early closes included",
    "zero_volume": "bars without volume in regular hours",
    "stale": "runs of bars without volume and without a new price",
    "ends_early": "the last bar of a symbol that ends more than five sessions before the others",
    "outdated": "finished sessions since the last bar",
    "unfinished": "bars that are not over yet",
    "bad_ticks": "moves far beyond their neighbourhood that are taken back within the bar or the next two",
    "suspected_splits": "opens near a whole multiple or fraction of the close before, and not taken back",
    "adjustment_jumps": "steps of adj_close over close that make a jump of the price instead of removing one",
    "adjustment_stale": "runs of bars in which the close moves and adj_close does not",
    "adjustment_level": "an adj_close far above the close at the last bar",
    "roll_gaps": "sessions at which a continuous future jumps from one contract to the next",
    "ticker_reuse": "first bars after so many sessions without one that the name may be another company's",
}
"""Every check by name, errors first, and what it finds."""


def iso(stamp: np.datetime64) -> str:
    """A UTC time to the minute.

    >>> iso(np.datetime64("2024-07-03T14:00", "us"))
    '2024-07-03T14:00Z'
    """
    return f"{stamp.astype('datetime64[m]')}Z"


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in one symbol.

    Attributes:
        symbol: whose bars.
        check: a name in `CHECKS`.
        severity: an `error` stops a run, a `warning` travels with it.
        at: shape (n_found,), datetime64[us] UTC, increasing: every offender; starts of bars that are there or missing, or
            dates of sessions (`outdated`); NaT for a row without a time.
        sentence: what was found, what was expected, what to do.
    """

    symbol: str
    check: str
    severity: Severity
    at: TimeArray
    sentence: str

    @property
    def count(self) -> int:
        return len(self.at)

    @property
    def first(self) -> tuple[str, ...]:
        """The first offenders as ISO text, UTC."""
        return tuple(iso(stamp) for stamp in self.at[:LISTED] if not np.isnat(stamp))


@dataclass(frozen=True)
class Coverage:
    """How much of a symbol's own span is there, by its own calendar. `first` and `last`: datetime64[us] UTC, bar starts."""

    symbol: str
    calendar: str
    n_bars: int
    first: np.datetime64
    last: np.datetime64
    n_expected: int
    n_missing: int


@dataclass(frozen=True)
class QualityReport:
    """What an inspection found.

    Attributes:
        source: where the bars come from, for people.
        timeframe: length of a bar.
        calendar: the calendar of symbols that have none of their own.
        coverage: one entry per symbol, sorted by name.
        findings: by symbol, then in the order of `CHECKS`.
    """

    source: str
    timeframe: pd.Timedelta
    calendar: str
    coverage: tuple[Coverage, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def summary(self) -> "QualitySummary":
        """What of it travels with a run: a row per symbol, and one entry per check with warnings."""
        found = Counter((finding.symbol, finding.severity) for finding in self.findings)
        symbols = tuple(
            SymbolQuality(
                symbol=each.symbol,
                n_bars=each.n_bars,
                first=iso(each.first),
                last=iso(each.last),
                n_expected=each.n_expected,
                n_missing=each.n_missing,
                n_errors=found[each.symbol, "error"],
                n_warnings=found[each.symbol, "warning"],
            )
            for each in self.coverage
        )
        return QualitySummary(symbols, tuple(entry for check in CHECKS if (entry := self._warning(check)) is not None))

    def _warning(self, check: str) -> "QualityWarning | None":
        found = [f for f in self.findings if f.check == check and f.severity == "warning"]
        if not found:
            return None
        others = f" (and {len(found) - 1} other symbols)" if len(found) > 1 else ""
        offenders = sorted((stamp, f.symbol) for f in found for stamp in f.first)[:LISTED]
        return QualityWarning(
            check=check,
            count=sum(finding.count for finding in found),
            symbols=tuple(finding.symbol for finding in found[:LISTED]),
            n_symbols=len(found),
            first=tuple(f"{symbol} {stamp}" for stamp, symbol in offenders),
            sentence=max(found, key=lambda finding: finding.count).sentence + others,
        )

    def raise_errors(self) -> None:
        """Stop here if there is an error.

        Raises:
            DataError: the first error's sentence, and how many more there are.
        """
        if self.errors:
            more = f" (and {len(self.errors) - 1} more errors)" if len(self.errors) > 1 else ""
            raise DataError(f"{self.source}: {self.errors[0].sentence}{more}")


@dataclass(frozen=True)
class SymbolQuality:
    """How much of a symbol is there, and how many findings there are; `first` and `last` as ISO text, UTC."""

    symbol: str
    n_bars: int
    first: str
    last: str
    n_expected: int
    n_missing: int
    n_errors: int
    n_warnings: int


@dataclass(frozen=True)
class QualityWarning:
    """A check's warnings, however many symbols they are in; the first few symbols and offenders by name."""

    check: str
    count: int
    symbols: tuple[str, ...]
    n_symbols: int
    first: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class QualitySummary:
    """What of an inspection travels with a run."""

    symbols: tuple[SymbolQuality, ...]
    warnings: tuple[QualityWarning, ...]


def write_quality(summary: QualitySummary, path: Path) -> None:
    """Write a summary as JSON."""
    write_json(path, asdict(summary))


def read_quality(path: Path) -> QualitySummary:
    """Read what `write_quality` wrote."""
    return TypeAdapter(QualitySummary).validate_json(path.read_bytes())


QUALITY = Kind("quality", ".json", write_quality, read_quality)
