"""What an inspection of bars found: values, two tables for a terminal, and one self-contained HTML page."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.market import calendar as calendars
from ploutos.market.bars import Bars
from ploutos.market.clock import show_timeframe
from ploutos.types import Float32Array, FloatArray, IntArray, TimeArray

Severity = Literal["warning", "error"]

LISTED = 5
"""First offenders that travel with a report."""
ROWS = 2_000
"""Rows of a table of the page; more make it slow to open and are for the JSON of the command."""
FIGURES = 40
"""Symbols drawn on the page, those with errors and the most findings first."""
POINTS = 1_500
"""Points of a line and columns of a strip: more than a screen has."""
MARKERS = 200
"""Marks of one check in one figure."""

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
    def warnings(self) -> list[dict[str, Any]]:
        """Warnings for a manifest: JSON-able, one entry per check however many symbols there are."""
        entries = []
        for check in CHECKS:
            found = [f for f in self.findings if f.check == check and f.severity == "warning"]
            if found:
                worst = max(found, key=lambda finding: finding.count)
                others = f" (and {len(found) - 1} other symbols)" if len(found) > 1 else ""
                offenders = sorted((stamp, f.symbol) for f in found for stamp in f.first)[:LISTED]
                entries.append(
                    {
                        "check": check,
                        "count": sum(finding.count for finding in found),
                        "symbols": [finding.symbol for finding in found][:LISTED],
                        "n_symbols": len(found),
                        "first": [f"{symbol} {stamp}" for stamp, symbol in offenders],
                        "sentence": worst.sentence + others,
                    }
                )
        return entries

    def raise_errors(self) -> None:
        """Stop here if there is an error.

        Raises:
            DataError: the first error's sentence, and how many more there are.
        """
        if self.errors:
            more = f" (and {len(self.errors) - 1} more errors)" if len(self.errors) > 1 else ""
            raise DataError(f"{self.source}: {self.errors[0].sentence}{more}")


def finding_rows(report: QualityReport) -> list[dict[str, str]]:
    """The findings as text, one dictionary per symbol and check, errors first."""
    ranked = sorted(report.findings, key=lambda finding: finding.severity != "error")
    return [
        {
            "symbol": finding.symbol,
            "check": finding.check,
            "severity": finding.severity,
            "count": f"{finding.count:,}",
            "first": ", ".join(finding.first[:2]),
            "finding": finding.sentence,
        }
        for finding in ranked
    ]


def symbol_rows(report: QualityReport) -> list[dict[str, str]]:
    """What there is of each symbol as text, one dictionary per symbol."""
    rows = []
    found = Counter((finding.symbol, finding.severity) for finding in report.findings)
    for entry in report.coverage:
        share = f"{100 * (1 - entry.n_missing / entry.n_expected):.2f} %" if entry.n_expected else "-"
        rows.append(
            {
                "symbol": entry.symbol,
                "bars": f"{entry.n_bars:,}",
                "first": iso(entry.first),
                "last": iso(entry.last),
                "expected": f"{entry.n_expected:,}",
                "missing": f"{entry.n_missing:,}",
                "complete": share,
                "errors": str(found[entry.symbol, "error"]),
                "warnings": str(found[entry.symbol, "warning"]),
            }
        )
    return rows


# --- the page

_COLOURS = {
    "gaps": "#b54708", "bad_ticks": "#dd2590", "suspected_splits": "#7a5af8", "ticker_reuse": "#0e9384",
    "off_session": "#f79009", "extended_hours": "#98a2b3", "zero_volume": "#12b76a", "stale": "#175cd3",
    "ends_early": "#667085", "roll_gaps": "#6941c6", "adjustment_jumps": "#c11574",
}  # fmt: skip
_ERROR_COLOUR = "#d92d20"


Trace = dict[str, Any]


def _closes(bars: pd.DataFrame | Bars, symbols: Sequence[str]) -> Iterator[tuple[TimeArray, FloatArray]]:
    """Bar starts and closes of each symbol, finite ones only, increasing in time."""
    if isinstance(bars, Bars):
        for symbol in symbols:
            column = bars.symbols.index(symbol)
            there = bars.tradable[:, column]
            yield bars.timestamps[there], bars.close[there, column]
        return
    rows_of = bars.groupby(bars["symbol"].astype(str), sort=False).indices
    for symbol in symbols:
        rows = bars[["timestamp", "close"]].iloc[rows_of[symbol]]
        stamps, close = rows["timestamp"].dt.tz_localize(None).to_numpy(), rows["close"].to_numpy(dtype="float64", na_value=np.nan)
        priced = np.flatnonzero(~np.isnat(stamps) & np.isfinite(close))
        priced = priced[np.argsort(stamps[priced], kind="stable")]
        yield stamps[priced], close[priced]


def _thinned(values: FloatArray) -> IntArray:
    """Positions, increasing, of about `POINTS` values: of every stretch the first, the lowest, the highest and the last."""
    if len(values) <= POINTS:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), POINTS // 4 + 1).astype("int64")
    stretches = [(start, values[start:stop]) for start, stop in pairwise(edges)]
    kept = [(start, start + part.argmin(), start + part.argmax(), start + len(part) - 1) for start, part in stretches]
    return np.unique(kept)


def _packed(values: FloatArray | Float32Array) -> dict[str, str]:
    """Numbers as plotly reads them in the least space."""
    return {"dtype": f"f{values.dtype.itemsize}", "bdata": b64encode(values.tobytes()).decode()}


def _times(stamps: TimeArray) -> dict[str, str]:
    """Milliseconds since 1970: plotly packs numbers, and writes dates out as text."""
    return _packed(stamps.astype("datetime64[ms]").astype("float64"))


def _traces(report: QualityReport, found: Sequence[Finding], calendar: str, stamps: TimeArray, close: FloatArray) -> list[Trace]:
    """Close with every finding marked where it lies, over the number of bars of each session."""
    kept = _thinned(close)
    line = {"width": 1.2, "color": "#475467"}
    traces: list[Trace] = [
        {
            "type": "scatter",
            "name": "close",
            "mode": "lines",
            "line": line,
            "x": _times(stamps[kept]),
            "y": _packed(close[kept].astype("float32")),
        }
    ]
    for finding in found:
        at = finding.at[~np.isnat(finding.at)]
        at = at[np.unique(np.linspace(0, len(at) - 1, min(len(at), MARKERS)).astype("int64"))]
        if len(at):
            beside = np.clip(np.searchsorted(stamps, at, side="right") - 1, 0, None)  # a missing bar lies on the close before it
            shown = f", {len(at)} shown" if len(at) < finding.count else ""
            marker = {"size": 8, "symbol": "x-thin-open", "color": _COLOURS.get(finding.check, _ERROR_COLOUR)}
            name = f"{finding.check} ({finding.count:,}{shown})"
            where = {"x": _times(at), "y": _packed(close[beside].astype("float32"))}
            traces.append({"type": "scatter", "name": name, "mode": "markers", "marker": marker, **where})
    days, counts = _bars_per_session(stamps, report, calendar)
    strip = {"type": "heatmap", "yaxis": "y2", "y": ["bars"], "colorscale": [[0, "#ffffff"], [1, "#3f74b5"]], "zmin": 0, "showscale": False}
    cells = {"x": _times(days), "z": [counts.astype("int64").tolist()], "hovertemplate": "%{x|%Y-%m-%d}: %{z} bars<extra></extra>"}
    return [*traces, strip | cells]


def _bars_per_session(stamps: TimeArray, report: QualityReport, calendar: str) -> tuple[TimeArray, FloatArray]:
    """Dates and bars of every session from the first to the last, those without a bar included.

    Of a long span the thinnest session of every few, so that a hole stays one.
    """
    first, last = min(entry.first for entry in report.coverage), max(entry.last for entry in report.coverage)
    around = np.r_[first, stamps, last]  # one span for all symbols: calendars are slow to compute and quick to look up
    of_bar = calendars.sessions(around, report.timeframe, calendar)
    days = np.unique(of_bar[1:-1])
    if report.timeframe <= calendars.DAY:
        held = calendars.expected_bars(calendar, calendars.DAY, of_bar[0].item(), of_bar[-1].item()).astype("datetime64[D]")
        days = np.union1d(held[(held >= days[0]) & (held <= days[-1])], days)
    counts = np.bincount(np.searchsorted(days, of_bar[1:-1]), minlength=len(days)).astype("float64")
    starts = np.arange(0, len(days), -(-len(days) // POINTS))
    return days[starts], np.minimum.reduceat(counts, starts)


def _drawn(report: QualityReport) -> list[tuple[Coverage, list[Finding]]]:
    """The symbols to draw and their findings, those with errors first, then those with the most findings."""
    found: dict[str, list[Finding]] = {entry.symbol: [] for entry in report.coverage}
    for finding in report.findings:
        found.get(finding.symbol, []).append(finding)
    ranked = sorted(
        report.coverage,
        key=lambda entry: (-sum(f.severity == "error" for f in found[entry.symbol]), -len(found[entry.symbol]), entry.symbol),
    )
    return [(entry, found[entry.symbol]) for entry in ranked[:FIGURES]]


def render_quality_report(report: QualityReport, bars: pd.DataFrame | Bars) -> str:
    """The page: what was found, and the closes of the symbols with the most findings on them.

    It stays below ten megabytes however much comes in: lines, marks, tables and the number of figures are bounded, and the
    page says what it leaves out.

    Args:
        report: from `ploutos.market.quality.inspect_bars`.
        bars: the bars that were inspected.
    """
    from jinja2 import Environment, StrictUndefined  # with the page alone: the gate imports this module
    from plotly.offline import get_plotlyjs

    drawn, figures = _drawn(report), []
    for (entry, found), (stamps, close) in zip(drawn, _closes(bars, [entry.symbol for entry, _ in drawn]), strict=True):
        scale = "log" if (close > 0).all() else "linear"
        traces = json.dumps(_traces(report, found, entry.calendar, stamps, close))
        figures.append((entry.symbol, scale, traces))
    template = files("ploutos.market").joinpath("quality_report.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(
        report=report,
        timeframe=show_timeframe(report.timeframe),
        n_warnings=len(report.findings) - len(report.errors),
        tables=[("Findings", finding_rows(report)), ("Symbols", symbol_rows(report))],
        n_rows=ROWS,
        figures=figures,
        checks=CHECKS,
        plotly_js=get_plotlyjs(),
    )  # fmt: skip


def write_quality_report(report: QualityReport, bars: pd.DataFrame | Bars, path: Path) -> None:
    """Write the page of `render_quality_report` to a file."""
    path.write_text(render_quality_report(report, bars), encoding="utf-8")
