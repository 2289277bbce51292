"""Pages and tables of what an inspection of bars found: two tables for a terminal, and one self-contained HTML page."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ploutos.market import calendar as calendars
from ploutos.market.bars import Bars
from ploutos.market.clock import show_timeframe
from ploutos.market.quality_report import CHECKS, Coverage, Finding, QualityReport, QualitySummary
from ploutos.reporting.lines import POINTS, thinned, times
from ploutos.reporting.palette import BLUE, COLOURS, GREY, WHITE
from ploutos.types import Float32Array, FloatArray, TimeArray
from ploutos.wording import plural

ROWS = 2_000
"""Rows of a table of the page; more make it slow to open and are for the JSON of the command."""
FIGURES = 40
"""Symbols drawn on the page, those with errors and the most findings first."""
MARKERS = 200
"""Marks of one check in one figure."""


def finding_rows(report: QualityReport) -> list[dict[str, str]]:
    """The findings as text, one dictionary per symbol and check, errors first."""
    ranked = sorted(report.findings, key=lambda finding: finding.severity != "error")
    daily = report.timeframe >= calendars.DAY
    return [
        {
            "symbol": finding.symbol,
            "check": finding.check,
            "severity": finding.severity,
            "count": f"{finding.count:,}",
            "first": days(", ".join(finding.first[:2]), daily),
            "finding": days(finding.sentence, daily),
        }
        for finding in ranked
    ]


def days(text: str, daily: bool) -> str:
    """A text whose times are dates where bars are daily or longer."""
    return text.replace("T00:00Z", "") if daily else text


def symbol_rows(summary: QualitySummary, daily: bool) -> list[dict[str, str]]:
    """What there is of each symbol as text, one dictionary per symbol."""
    return [
        {
            "symbol": row.symbol,
            "bars": f"{row.n_bars:,}",
            "first": days(row.first, daily),
            "last": days(row.last, daily),
            "expected": f"{row.n_expected:,}",
            "missing": f"{row.n_missing:,}",
            "complete": f"{100 * (1 - row.n_missing / row.n_expected):.2f}%" if row.n_expected else "-",
            "errors": str(row.n_errors),
            "warnings": str(row.n_warnings),
        }
        for row in summary.symbols
    ]


# --- the page

_SHAPES = ("x-thin-open", "circle-open", "diamond-open", "triangle-up-open", "square-open")
_MARKS = {check: {"color": COLOURS[i % 5], "symbol": _SHAPES[i // 5]} for i, check in enumerate(CHECKS)}
"""No two checks look alike, and neighbours in the list differ by colour."""

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


def _packed(values: FloatArray | Float32Array) -> dict[str, str]:
    """Numbers as plotly reads them in the least space."""
    return {"dtype": f"f{values.dtype.itemsize}", "bdata": b64encode(values.tobytes()).decode()}


def _times(stamps: TimeArray) -> dict[str, str]:
    return _packed(times(stamps))


def _traces(report: QualityReport, found: Sequence[Finding], calendar: str, stamps: TimeArray, close: FloatArray) -> list[Trace]:
    """Close with every finding marked where it lies, over the number of bars of each session."""
    kept = thinned(close)
    line = {"width": 1.2, "color": GREY}
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
            marker = {"size": 8, **_MARKS[finding.check]}
            name = f"{finding.check} ({finding.count:,}{shown})"
            where = {"x": _times(at), "y": _packed(close[beside].astype("float32"))}
            traces.append({"type": "scatter", "name": name, "mode": "markers", "marker": marker, **where})
    days, counts = _bars_per_session(stamps, report, calendar)
    strip = {"type": "heatmap", "yaxis": "y2", "y": ["bars"], "colorscale": [[0, WHITE], [1, BLUE]], "zmin": 0, "showscale": False}
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
    from ploutos.reporting.page import chart_html, render_page  # with the page alone: a table on a terminal needs no plotly

    drawn, charts = _drawn(report), []
    for (entry, found), (stamps, close) in zip(drawn, _closes(bars, [entry.symbol for entry, _ in drawn]), strict=True):
        figure = {
            "data": _traces(report, found, entry.calendar, stamps, close),
            "layout": _layout(close),
        }
        alt = f"Closes of {entry.symbol} with every finding marked, and the number of bars of each session."
        charts.append((entry.symbol, chart_html(figure, 420, alt)))
    n_warnings = len(report.findings) - len(report.errors)
    return render_page(
        "quality.html.j2",
        report=report,
        headline=f"{plural(len(report.errors), 'error')}, {plural(n_warnings, 'warning')}",
        timeframe=show_timeframe(report.timeframe),
        tables=[("Findings", finding_rows(report)), ("Symbols", symbol_rows(report.summary, report.timeframe >= calendars.DAY))],
        n_rows=ROWS,
        figures=charts,
        checks=CHECKS,
    )


def _layout(close: FloatArray) -> dict[str, Any]:
    """Closes above, on a log scale where it can be; the number of bars of every session below."""
    scale = "log" if (close > 0).all() else "linear"
    ticks = {"dtick": "D2"} if scale == "log" and close.max() > 4 * close.min() else {}
    return {
        "height": 420, "margin": {"l": 60, "r": 20, "t": 10, "b": 30}, "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"}, "xaxis": {"type": "date", "anchor": "y2"},
        "yaxis": {"type": scale, "title": {"text": f"close, {scale} scale" if scale == "log" else "close"}, "domain": [0.17, 1]} | ticks,
        "yaxis2": {"domain": [0, 0.12]},
    }  # fmt: skip


def write_quality_report(report: QualityReport, bars: pd.DataFrame | Bars, path: Path) -> None:
    """Write the page of `render_quality_report` to a file."""
    path.write_text(render_quality_report(report, bars), encoding="utf-8")
