"""What an inspection of bars found: values, two tables for a terminal, and one self-contained HTML page."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.market import calendar as calendars
from ploutos.market.bars import Bars
from ploutos.types import FloatArray, TimeArray

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
    "not_positive": "prices of zero or less",
    "outside": "an open or close outside low..high",
    "negative_volume": "volumes below zero",
    "mixed_minutes": "intraday bars at another minute of the hour than the rest: two sources in one series",
    "gaps": "bars that the calendar expects between the first and the last bar, and that are not there",
    "off_session": "bars at times when the exchange was closed",
    "extended_hours": "bars before the open or after the close, early closes included",
    "zero_volume": "bars without volume in regular hours",
    "stale": "runs of bars without volume and without a new price",
    "outdated": "finished sessions since the last bar",
    "unfinished": "bars that are not over yet",
    "bad_ticks": "moves far beyond their neighbourhood that are taken back within the bar or the next two",
    "suspected_splits": "opens near a whole multiple or fraction of the close before, and not taken back",
    "ticker_reuse": "first bars after so many sessions without one that the name may be another company's",
}
"""Every check by name, errors of the gate first, and what it finds."""


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
    for entry in report.coverage:
        found = [finding for finding in report.findings if finding.symbol == entry.symbol]
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
                "errors": str(sum(finding.severity == "error" for finding in found)),
                "warnings": str(sum(finding.severity == "warning" for finding in found)),
            }
        )
    return rows


# --- the page

_COLOURS = {
    "gaps": "#b54708", "bad_ticks": "#dd2590", "suspected_splits": "#7a5af8", "ticker_reuse": "#0e9384",
    "off_session": "#f79009", "extended_hours": "#98a2b3", "zero_volume": "#12b76a", "stale": "#175cd3",
}  # fmt: skip
_ERROR_COLOUR = "#d92d20"


def _close_of(bars: pd.DataFrame | Bars, symbol: str) -> tuple[TimeArray, FloatArray]:
    """Bar starts and closes of one symbol, bars that are there only, increasing in time."""
    if isinstance(bars, Bars):
        column = bars.symbols.index(symbol)
        there = bars.tradable[:, column]
        return bars.timestamps[there], bars.close[there, column]
    rows = bars[(bars["symbol"] == symbol) & bars["timestamp"].notna()].sort_values("timestamp")
    return rows["timestamp"].dt.tz_localize(None).to_numpy(), rows["close"].to_numpy(dtype="float64")


def _plottable(stamps: TimeArray) -> FloatArray:
    """Milliseconds since 1970: plotly packs numbers, and writes dates out as text ten times as long."""
    return stamps.astype("datetime64[ms]").astype("float64")


def _figure(report: QualityReport, symbol: str, calendar: str, stamps: TimeArray, close: FloatArray) -> Any:
    """Close with every finding marked where it lies, over the number of bars of each session."""
    from plotly.subplots import make_subplots  # with the page alone: the gate imports this module

    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.86, 0.14], vertical_spacing=0.03)
    figure.add_scatter(x=_plottable(stamps), y=close, name="close", mode="lines", line={"width": 1.2, "color": "#475467"}, row=1, col=1)
    for finding in report.findings:
        at = finding.at[~np.isnat(finding.at)]
        if finding.symbol == symbol and len(at):
            beside = np.clip(np.searchsorted(stamps, at, side="right") - 1, 0, None)  # a missing bar lies on the close before it
            marker = {"size": 8, "symbol": "x-thin-open", "color": _COLOURS.get(finding.check, _ERROR_COLOUR)}
            name = f"{finding.check} ({finding.count:,})"
            figure.add_scatter(x=_plottable(at), y=close[beside], name=name, mode="markers", marker=marker, row=1, col=1)
    days, counts = _bars_per_session(stamps, report.timeframe, calendar)
    strip = {"z": [counts], "x": _plottable(days), "y": ["bars"], "colorscale": "Blues", "zmin": 0, "showscale": False}
    figure.add_heatmap(**strip, hovertemplate="%{x|%Y-%m-%d}: %{z} bars<extra></extra>", row=2, col=1)
    figure.update_layout(
        template="plotly_white", height=420, margin={"l": 60, "r": 20, "t": 10, "b": 30}, legend={"orientation": "h", "y": 1.08}
    )
    return figure.update_xaxes(type="date").update_yaxes(type="log", title="close, log scale", row=1, col=1)


def _bars_per_session(stamps: TimeArray, timeframe: pd.Timedelta, calendar: str) -> tuple[TimeArray, FloatArray]:
    """Dates and bars of every session from the first to the last, those without a bar included."""
    of_bar = calendars.sessions(stamps, timeframe, calendar)
    held = calendars.expected_bars(calendar, pd.Timedelta(days=1), of_bar[0].item(), of_bar[-1].item()).astype("datetime64[D]")
    days = np.union1d(held, of_bar)
    return days, np.bincount(np.searchsorted(days, of_bar), minlength=len(days)).astype("float64")


def render_quality_report(report: QualityReport, bars: pd.DataFrame | Bars) -> str:
    """The page: what was found, and each symbol's close with the findings on it.

    Args:
        report: from `ploutos.market.quality.inspect_bars`.
        bars: the bars that were inspected.
    """
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    figures = []
    for entry in report.coverage:
        figure = _figure(report, entry.symbol, entry.calendar, *_close_of(bars, entry.symbol))
        html = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
        figures.append((entry.symbol, html))
    template = files("ploutos.market").joinpath("quality_report.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(template).render(
        report=report,
        timeframe=str(report.timeframe).removeprefix("0 days ").removesuffix(" 00:00:00"),
        n_warnings=len(report.findings) - len(report.errors),
        findings=finding_rows(report),
        symbols=symbol_rows(report),
        figures=figures,
        checks=CHECKS,
        plotly_js=get_plotlyjs(),
    )  # fmt: skip


def write_quality_report(report: QualityReport, bars: pd.DataFrame | Bars, path: Path) -> None:
    """Write the page of `render_quality_report` to a file."""
    path.write_text(render_quality_report(report, bars), encoding="utf-8")
