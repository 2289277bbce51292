"""The page about the advisor: does it help, does it read the numbers, what may it remember. One self-contained HTML file."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.comparisons import MIRRORED, is_placebo
from ploutos.reporting.report import figure_html, render_page, show
from ploutos.strategies.ensemble import VOTE

_COLOURS = {1: "#067647", 0: "#98a2b3", -1: "#b42318"}
_WIDEST = 30
_TAGS = {
    "contaminated": "the model may have read what came next; its numbers here are no evidence",
    "grey": "nobody knows whether it had; these do not count",
    "clean": "after everything that it can have read; these count",
    "not applicable": "the advisor has no memory",
}
_COUNTING = ("clean", "not applicable")


def _intervals(comparisons: Sequence[dict[str, Any]]) -> go.Figure:
    """Every yearly difference with its interval; one without is left out."""
    figure = go.Figure()
    rows = [row for row in comparisons if row["low"] is not None]
    for row in rows:
        middle, colour = row["difference"], _COLOURS[row["sign"]]
        figure.add_scatter(
            x=[middle], y=["<br>".join(wrap(row["question"], _WIDEST))], mode="markers", marker={"size": 10, "color": colour},
            error_x={"array": [row["high"] - middle], "arrayminus": [middle - row["low"]], "thickness": 2.5, "width": 6},
            hovertext=row["sentence"], hoverinfo="text", showlegend=False,
        )  # fmt: skip
    figure.add_vline(x=0, line={"width": 1.5, "color": "#1c2430"})
    figure.update_xaxes(tickformat="+.0%", title="yearly difference; left of the line is worse", title_font_size=12)
    return figure.update_yaxes(autorange="reversed", automargin=True, tickfont_size=11)


def _paths(backtests: Backtests, summary: dict[str, Any]) -> go.Figure:
    """The fused account among those with placebos in the advisor's place."""
    figure = go.Figure()
    stamps = backtests.timestamps.astype("datetime64[ms]").astype(object)
    placebos = [name for name in backtests.names if is_placebo(name) and name != MIRRORED]
    for place, name in enumerate(placebos):
        figure.add_scatter(
            x=stamps, y=backtests.equity[backtests.row(name)], name="placebos", legendgroup="placebos", showlegend=place == 0,
            hovertext=name, hoverinfo="text", line={"width": 1, "color": "#d0d5dd"},
        )  # fmt: skip
    for name, colour in ((VOTE, "#175cd3"), (summary["final"], "#b54708")):
        figure.add_scatter(x=stamps, y=backtests.equity[backtests.row(name)], name=name, line={"width": 2.2, "color": colour})
    return figure.update_yaxes(type="log", title="account, $")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values for people, nested ones by their path; lists are left out."""
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, float):
            yield name, f"{value:.4g}"
        elif not isinstance(value, list):
            yield name, "-" if value is None else str(value)


def _table(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Dictionaries of one make as headings and cells."""
    flat = [dict(_flat(row)) for row in rows]
    headings = list(dict.fromkeys(name for row in flat for name in row))
    return {"headings": headings, "rows": [[row.get(name, "-") for name in headings] for row in flat]}


def _span_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Spans by what the advisor may remember of them, with the return of the fused account and of the vote."""
    rows = []
    for span in summary.get("spans", ()):
        earned = [show(span["strategies"][name]["total_return"], "percent") for name in (summary["final"], VOTE)]
        when = f"{span['first']} to {span['last']}"
        rows.append({"tag": span["tag"], "means": _TAGS[span["tag"]], "when": when, "n": f"{span['n_sessions']:,}", "of": earned})
    return rows


def _comparison_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        row
        | {
            "shown": show(row["difference"], "percent"),
            "interval": "-" if row["low"] is None else f"{show(row['low'], 'percent')} to {show(row['high'], 'percent')}",
            "won": "" if row["beaten"] is None else f"{round(row['beaten'] * row['draws'])} of {row['draws']}",
        }
        for row in summary["comparisons"]
    ]


def render_advisor_page(backtests: Backtests, summary: dict[str, Any]) -> str:
    """The page.

    Args:
        backtests: with the accounts of the placebos.
        summary: from `ploutos.evaluation.assess.summarise`, nan as None. `certificate` of its advisor, `spans` and `fusion` are
            shown where there are any.
    """
    advisor, fusion = summary["advisor"], summary.get("fusion")
    certificate = advisor.get("certificate")
    return render_page(
        "advisor.html.j2",
        m=summary,
        comparisons=_comparison_rows(summary),
        n_expected=len(summary["comparisons"]) * (1 - summary["confidence"]),
        placebos=any(is_placebo(name) for name in backtests.names),
        figures={
            "intervals": figure_html(_intervals(summary["comparisons"]), 110 + 62 * len(summary["comparisons"])),
            "paths": figure_html(_paths(backtests, summary), 380),
        },
        certificate=list(_flat(certificate)) if certificate else [],
        spans=_span_rows(summary),
        counts=advisor["is_mock"] or any(span["tag"] in _COUNTING for span in summary.get("spans", ())),
        vote=VOTE,
        fusion=_table(fusion if isinstance(fusion, list) else [fusion]) if fusion else None,
    )
