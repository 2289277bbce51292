"""The page about the advisor: does it help, does it read the numbers, what may it remember. One self-contained HTML file."""

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ploutos.advisor.cutoff import Tag
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.contamination import counting_spans
from ploutos.evaluation.summary import AdviceControls, RunSummary, Side
from ploutos.reporting.lines import POINTS, spread, times
from ploutos.reporting.names import names_of, names_of_accounts
from ploutos.reporting.page import figure_html, render_page, show
from ploutos.reporting.palette import BLUE, GREY, INK, ORANGE
from ploutos.reporting.report import choice_rows
from ploutos.reporting.verdict import (
    QUESTIONS,
    SHOWN,
    advisor_headline,
    certificate_sentences,
    comparison_sentence,
    conclusion,
    mirror_sentence,
    rank_sentence,
    verdict,
)
from ploutos.strategies.advised import FUSED, FUSED_ABLATED, MIRRORED
from ploutos.strategies.base import Role

_COLOURS = {1: BLUE, 0: GREY, -1: ORANGE}
_SIDES = {Side.POLICIES: ORANGE, Side.ADVISOR: BLUE}
_WIDEST = 30
_TAGS = {
    Tag.CONTAMINATED: "the model may have read what happened next; its numbers here are not evidence",
    Tag.GREY: "it is not known whether it has; these do not count",
    Tag.CLAIMED: "after everything it has read, according to its maker, which no probe could have disproved; these do not count",
    Tag.CLEAN: "after everything it can have read, and a probe would have shown otherwise; these count",
    Tag.LOGGED: "decided and written to the forward log before the outcome; these count, whatever it has read",
    Tag.NOT_APPLICABLE: "the advisor has no memory",
}


def _intervals(summary: RunSummary) -> go.Figure:
    """Every yearly difference with its interval; one without is left out."""
    figure = go.Figure()
    for row in summary.comparisons:
        if row.difference is None or row.low is None or row.high is None:
            continue
        figure.add_scatter(
            x=[row.difference], y=["<br>".join(wrap(QUESTIONS[row.question], _WIDEST))], mode="markers",
            marker={"size": 10, "color": _COLOURS[row.sign]},
            error_x={"array": [row.high - row.difference], "arrayminus": [row.difference - row.low], "thickness": 2.5, "width": 6},
            hovertext=comparison_sentence(summary, row), hoverinfo="text", showlegend=False,
        )  # fmt: skip
    figure.add_vline(x=0, line={"width": 1.5, "color": INK})
    figure.update_xaxes(tickformat="+.0%", title="yearly difference", title_font_size=12)
    return figure.update_yaxes(autorange="reversed", automargin=True, tickfont_size=11)


def _paths(backtests: Backtests, summary: RunSummary) -> go.Figure:
    """The fused account among those with placebos in the advisor's place."""
    figure, names = go.Figure(), names_of_accounts(backtests, summary)
    at = spread(len(backtests.timestamps), POINTS)
    stamps = times(backtests.timestamps[at])
    placebos = [slug for slug in backtests.of(Role.PLACEBO) if slug != MIRRORED.slug]
    for place, slug in enumerate(placebos):
        figure.add_scatter(
            x=stamps, y=backtests.equity[backtests.row(slug), at].astype(np.float32), name="placebos", legendgroup="placebos",
            showlegend=place == 0,
            hovertext=names[slug], hoverinfo="text", line={"width": 1, "color": GREY}, opacity=0.5, mode="lines",
        )  # fmt: skip
    for slug, colour in zip(reversed(_with_and_without()), (BLUE, ORANGE), strict=True):
        path = backtests.equity[backtests.row(slug), at].astype(np.float32)
        line = {"width": 2.2, "color": colour}
        figure.add_scatter(x=stamps, y=path, name=names[slug], line=line, mode="lines", hovertemplate="%{x|%Y-%m-%d}: $%{y:,.0f}")
    return figure.update_xaxes(type="date").update_yaxes(type="log", title="account, $", tickformat="$,.3~s")


def _reliability(controls: AdviceControls) -> go.Figure:
    """What each side's confidence was taken for, against how often it was right."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"width": 1, "color": GREY, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    for side, colour in _SIDES.items():
        rows = [row for row in controls.reliability if row.side is side]
        up, down = [row.high - row.right for row in rows], [row.right - row.low for row in rows]
        told = [f"{side.value}: taken for {row.said:.1%}, right in {row.right:.1%} of {row.n:,}" for row in rows]
        figure.add_scatter(
            x=[row.said for row in rows], y=[row.right for row in rows], name=side.value, mode="lines+markers", marker={"size": 8},
            line={"width": 1.5, "color": colour}, error_y={"array": up, "arrayminus": down, "thickness": 1.5},
            hovertext=told, hoverinfo="text",
        )  # fmt: skip
    shown = [value for row in controls.reliability for value in (row.said, row.low, row.high)]
    edges = [max(min(shown) - 0.02, 0), min(max(shown) + 0.02, 1)]
    figure.update_xaxes(tickformat=".0%", range=edges, title="assumed chance of being right", title_font_size=12)
    return figure.update_yaxes(tickformat=".0%", range=edges, title="was right")


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


def _with_and_without() -> tuple[str, str]:
    """Slugs of the fused strategy, and of the same with blank advice."""
    return FUSED.slug, FUSED_ABLATED.slug


def _span_rows(summary: RunSummary) -> list[dict[str, Any]]:
    """Spans by what the advisor may remember of them, with the return of the fused account and of the same without advice."""
    rows = []
    for span in summary.spans:
        earned = [show(span.strategies[slug].total_return, "percent") for slug in _with_and_without()]
        tag, when = span.tag.replace("-", " "), f"{span.first} to {span.last}"
        rows.append({"tag": tag, "means": _TAGS[span.tag], "when": when, "n": f"{span.n_sessions:,}", "of": earned})
    return rows


def _comparison_rows(summary: RunSummary) -> list[dict[str, str]]:
    return [
        {
            "question": QUESTIONS[row.question],
            "sentence": comparison_sentence(summary, row),
            "shown": show(row.difference, "percent"),
            "interval": "-" if row.low is None else f"{show(row.low, 'percent')} to {show(row.high, 'percent')}",
            "p": show(row.p_adjusted, "p"),
            "won": "" if row.beaten is None else f"{round(row.beaten * row.draws)} of {row.draws}",
        }
        for row in summary.comparisons
    ]


def render_advisor_page(backtests: Backtests, summary: RunSummary) -> str:
    """The page.

    Args:
        backtests: with the accounts of the placebos.
    """
    advisor, n, controls = summary.advisor, len(summary.comparisons), summary.controls
    said = controls is not None and bool(controls.reliability)
    certificate, names = advisor.certificate, names_of(summary)
    return render_page(
        "advisor.html.j2",
        m=summary,
        conclusion=conclusion(summary),
        headline=advisor_headline(summary),
        verdict=verdict(summary),
        mirrored=mirror_sentence(advisor.mirrored) if advisor.mirrored else None,
        comparisons=_comparison_rows(summary),
        n_expected=summary.n_corrected * (1 - summary.confidence),
        placebos=bool(backtests.of(Role.PLACEBO)),
        figures={
            "intervals": figure_html(_intervals(summary), 110 + 62 * n, "Dots with bars: every yearly difference and its interval."),
            "paths": figure_html(_paths(backtests, summary), 380, "Lines: the account with the advisor, without it, and with placebos."),
        },
        ranked=rank_sentence(controls.rank) if controls and controls.rank else None,
        reliability=figure_html(_reliability(controls), 420, "Dots: how often each side was assumed to be right, and how often it was.")
        if controls and said
        else None,
        calibrated=bool(controls and controls.calibrated),
        certificate=list(_flat(certificate.model_dump(mode="json"))) if certificate else [],
        spans=[[row["tag"], row["when"], row["n"], *row["of"], row["means"]] for row in _span_rows(summary)],
        shown=SHOWN.get(advisor.mask, SHOWN["none"]),
        certified=certificate_sentences(summary),
        counts=bool(counting_spans(summary)),
        compared=[names[slug] for slug in _with_and_without()],
        choices=choice_rows(summary),
    )
