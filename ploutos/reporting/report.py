"""The page a researcher reads: one self-contained HTML file. Percent and currency signs appear here and nowhere else."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from ploutos.envs.ledger import COSTS
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.metrics import drawdowns
from ploutos.evaluation.summary import Measure, RunSummary, StrategyMetrics
from ploutos.fusion.calibration import FEWEST, Calibration, Uncalibrated
from ploutos.market.quality_report import QualitySummary
from ploutos.reporting.gate_table import doubts, gate_rows, gate_sentences
from ploutos.reporting.growth import growth_part
from ploutos.reporting.names import names_of
from ploutos.reporting.page import figure_html, render_page, show
from ploutos.reporting.quality_page import symbol_rows
from ploutos.reporting.stress import stress_part
from ploutos.reporting.verdict import MEASURES, conclusion, verdict
from ploutos.strategies.base import Role

_COLOURS = ("#b54708", "#175cd3", "#7a5af8", "#12b76a", "#dd2590")
_GREY = "#d0d5dd"
_COLUMNS = (
    ("total_return", "total return", "percent"),
    ("sharpe", "Sharpe", "ratio"),
    ("max_drawdown", "max drawdown", "percent"),
    ("excess_return", "excess / y over buy and hold", "percent"),
    ("costs", "costs", "money"),
    ("turnover", "turnover / y", "times"),
    ("exposure", "exposure", "percent"),
    ("n_fills", "fills", "count"),
    ("cagr", "CAGR", "percent"),
    ("ann_vol", "volatility", "percent"),
    ("sortino", "Sortino", "ratio"),
    ("calmar", "Calmar", "ratio"),
    ("alpha", "alpha / y", "percent"),
    ("beta", "beta", "ratio"),
)
_CAPTURE = ("oracle_capture", "of the oracle's growth", "percent")
_CARDS = ("total_return", "sharpe", "max_drawdown", "excess_return", "costs")
_INTERVALS = {"sharpe": ("sharpe_low", "sharpe_high"), "excess_return": ("excess_low", "excess_high")}
_INTERVALS |= {name: (f"{name}_low", f"{name}_high") for name in ("alpha", "beta")}
_DESCRIPTIONS = {name: str(field.description) for name, field in StrategyMetrics.model_fields.items()}


def _cell(metrics: StrategyMetrics, name: str, kind: str) -> str:
    text = show(getattr(metrics, name), kind)
    if name in _INTERVALS and getattr(metrics, name) is not None:
        low, high = (getattr(metrics, end) for end in _INTERVALS[name])
        if low is not None:
            text += f" [{show(low, kind)}, {show(high, kind)}]"
    return f"{text}, ruined {metrics.ruined}" if name == "total_return" and metrics.ruined else text


def _columns(summary: RunSummary) -> tuple[tuple[str, str, str], ...]:
    """Columns of the table: what an account took of the oracle's growth only where there is an oracle."""
    return (*_COLUMNS, _CAPTURE) if summary.of(Role.ORACLE) else _COLUMNS


def comparison(summary: RunSummary) -> list[dict[str, str]]:
    """The table against the baselines as text, one dictionary per strategy."""
    names = names_of(summary)
    return [
        {"strategy": names[slug]} | {label: _cell(metrics, key, kind) for key, label, kind in _columns(summary)}
        for slug, metrics in summary.strategies.items()
    ]


def fold_rows(summary: RunSummary) -> list[dict[str, Any]]:
    """Sharpe ratio by fold and strategy, one dictionary per fold."""
    names = names_of(summary)
    return [
        {"fold": fold.fold, "test": f"{fold.first} to {fold.last}"} | {names[slug]: sharpe for slug, sharpe in fold.sharpe.items()}
        for fold in summary.folds
    ]


def _paths(backtests: Backtests, summary: RunSummary, values: np.ndarray) -> go.Figure:
    """One line per account, the members left out: five in colour, the subject bold, the others grey and drawn first."""
    figure = go.Figure()
    stamps, names = _stamps(backtests), names_of(summary)
    emphasised = dict(zip(_emphasised(summary), _COLOURS, strict=False))
    shown = [
        slug for slug, role in zip(backtests.slugs, backtests.roles, strict=True) if role is not Role.MEMBER and slug not in emphasised
    ]
    for slug in [*shown, *reversed(emphasised)]:
        row = backtests.row(slug)
        stop, width = int(backtests.last[row]) + 1, 2.6 if slug == summary.subject.slug else 1.5 if slug in emphasised else 1.0
        line = {"width": width, "color": emphasised.get(slug, _GREY)}
        figure.add_scatter(x=stamps[:stop], y=values[row, :stop], name=names[slug], line=line)
    return figure.update_layout(hovermode="x unified", legend={"traceorder": "reversed"})


def _emphasised(summary: RunSummary) -> list[str]:
    """The subject, the benchmark, and what they are most often asked about: at most five accounts."""
    asked = (Role.FUSED, Role.VOTE, Role.ORACLE, Role.HYBRID, Role.REGRESSION)
    others = [slug for role in asked for slug in summary.of(role)[:1]]
    return list(dict.fromkeys([summary.subject.slug, summary.benchmark, *others]))[:5]


def _stamps(backtests: Backtests) -> list[str]:
    """Closes as text: days where every bar is one, else minutes."""
    days = backtests.timestamps.astype("datetime64[D]")
    whole = len(np.unique(days)) == len(days)
    return [str(each) for each in (days if whole else backtests.timestamps.astype("datetime64[m]"))]


def _equity(backtests: Backtests, summary: RunSummary) -> go.Figure:
    figure = _paths(backtests, summary, backtests.equity.round())
    for fold in summary.folds:
        figure.add_vline(x=str(fold.first), line={"width": 1, "dash": "dot", "color": "#98a2b3"})
    return figure.update_yaxes(type="log", title="account, $")


def _drawdown(backtests: Backtests, summary: RunSummary) -> go.Figure:
    return _paths(backtests, summary, drawdowns(backtests.equity).round(4)).update_yaxes(tickformat=".0%")


def _heat_map(summary: RunSummary) -> go.Figure:
    names, policies = (
        names_of(summary),
        (Role.FUSED, Role.VOTE, Role.HYBRID, Role.ABLATION, Role.REGRESSION, Role.ORACLE, Role.STRATEGY, Role.MEMBER),
    )
    rows = list(dict.fromkeys([summary.benchmark, summary.subject.slug, *(slug for role in policies for slug in summary.of(role))]))
    values = [[fold.sharpe[slug] for fold in summary.folds] for slug in rows]
    columns = [f"fold {fold.fold}<br>{fold.first}" for fold in summary.folds]
    figure = go.Figure(
        go.Heatmap(
            z=values, x=columns, y=[names[slug] for slug in rows], colorscale="RdYlGn", zmid=0, zmin=-2, zmax=2,
            text=[[show(v, "ratio") for v in row] for row in values], texttemplate="%{text}", colorbar={"title": "Sharpe"},
        )
    )  # fmt: skip
    return figure.update_yaxes(autorange="reversed", automargin=True)


def _in_sample(summary: RunSummary) -> go.Figure:
    dots = [(fold.fold, member) for fold in summary.folds for member in fold.members]
    figure = go.Figure()
    for part, colour in (("test", "#b54708"), ("validation", "#175cd3")):
        figure.add_scatter(
            x=[dot.train for _, dot in dots], y=[getattr(dot, part) for _, dot in dots], mode="markers", name=f"{part} range",
            marker={"size": 9, "color": colour}, text=[f"fold {fold}, member {dot.member}" for fold, dot in dots],
        )  # fmt: skip
    known = [v for _, dot in dots for v in (dot.train, dot.validation, dot.test) if v is not None] or [0.0, 1.0]
    ends = [min(known), max(known)]
    figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"dash": "dot", "color": "#98a2b3"})
    return figure.update_xaxes(title="Sharpe in training range").update_yaxes(title="Sharpe outside it")


def _learning(summary: RunSummary) -> go.Figure | None:
    """Growth where the members learnt and on the bars held out from them, over steps; None where no member was scored on any."""
    curves = [(fold.fold, m, curve) for fold in summary.folds for m, curve in enumerate(fold.learning) if curve.looks]
    if not curves:
        return None
    figure = go.Figure()
    for place, (fold, m, curve) in enumerate(curves):
        who = f"fold {fold}, member {m}"
        for name, colour, steps, growth in (
            ("where it learnt", "#98a2b3", curve.steps, curve.train), ("held out", "#175cd3", curve.looks, curve.held_out),
        ):  # fmt: skip
            figure.add_scatter(
                x=steps, y=[None if each is None else 1e4 * each for each in growth], name=name, legendgroup=name, showlegend=not place,
                mode="lines", line={"width": 1.2, "color": colour}, opacity=0.7, hovertext=who,
            )  # fmt: skip
    kept = [
        (curve.chosen, 1e4 * curve.held_out[curve.looks.index(curve.chosen)], f"fold {fold}, member {m}: kept")
        for fold, m, curve in curves
        if curve.chosen is not None
    ]
    x, y, text = zip(*kept, strict=True)
    figure.add_scatter(x=x, y=y, text=text, name="kept", mode="markers", marker={"size": 8, "color": "#b54708"})
    return figure.update_xaxes(title="environment steps").update_yaxes(title="growth per bar, bp", zeroline=True)


def _costs(backtests: Backtests, summary: RunSummary) -> go.Figure:
    figure, names = go.Figure(), names_of(summary)
    for kind, colour in zip(COSTS, ("#175cd3", "#b54708", "#7a5af8", "#12b76a"), strict=True):
        paid = getattr(backtests, kind)[:, -1]
        if paid.any():
            figure.add_bar(x=[names[slug] for slug in backtests.slugs], y=paid, name=kind, marker={"color": colour})
    return figure.update_layout(barmode="stack").update_yaxes(title="paid over the whole span, $")


def _log_odds(fitted: Calibration) -> str:
    """What calibration makes of a confidence's log odds, or why it is not used."""
    match fitted.uncalibrated:
        case None:
            return f"{fitted.slope:.2f} x {fitted.intercept:+.2f}"
        case Uncalibrated.TOO_FEW:
            return f"not used: {fitted.n} decisions, fewer than {FEWEST}"
        case Uncalibrated.ALL_RIGHT | Uncalibrated.NONE_RIGHT as why:
            return f"not used: {'all' if why is Uncalibrated.ALL_RIGHT else 'none'} of {fitted.n} decisions were right"


def choice_rows(summary: RunSummary) -> list[list[str]]:
    """What fusion took from each fold's validation range, as text."""
    rows = []
    for choice in summary.fusion:
        chosen, lead = choice.chosen, choice.lead
        sides = [cell for fitted in (choice.calibration, choice.advisor) for cell in (f"{fitted.n_right} of {fitted.n}", _log_odds(fitted))]
        earned = [f"{1e4 * candidate.growth:.1f}" for candidate in (chosen, choice.table[0])]
        interval = "" if lead.low is None or lead.high is None else f" [{1e4 * lead.low:.1f}, {1e4 * lead.high:.1f}]"
        weights = [f"{chosen.llm_weight:g}", f"{chosen.confidence_threshold:g}"]
        rows.append([str(choice.fold), *sides, *weights, *earned, f"{1e4 * lead.difference:.1f}{interval}"])
    return rows


def measure_rows(summary: RunSummary) -> list[list[str]]:
    """What the verdict about the subject stands on, as text."""
    rows = []
    for row in summary.against_benchmark.tests:
        kind = "ratio" if row.measure is Measure.SHARPE else "percent"
        interval = "-" if row.low is None else f"{show(row.low, kind)} to {show(row.high, kind)}"
        ps = (show(row.p, "p"), show(row.p_adjusted, "p"))
        rows.append([MEASURES[row.measure], show(row.value, kind), interval, show(row.error, kind), *ps])
    return rows


def _gates(summary: RunSummary) -> dict[str, Any] | None:
    """The section on promotion; None where nobody kept count of what was tried."""
    if summary.gates is None:
        return None
    return {"sentences": gate_sentences(summary), "rows": gate_rows(summary.gates), "doubts": doubts(summary.gates)}


def render_report(
    backtests: Backtests,
    summary: RunSummary,
    quality: QualitySummary,
    folds: list[dict[str, str]],
    provenance: list[tuple[str, str]],
) -> str:
    """The page; placebos are left to the advisor's own.

    Args:
        quality: of the bars' inspection.
        folds: from `ploutos.walk_forward.fold_table`.
        provenance: name and value of everything that the numbers stand on.
    """
    final = summary.strategies[summary.subject.slug]
    backtests = backtests.only(list(summary.strategies))
    learning = _learning(summary)
    headings = [{"label": "strategy", "title": "who decided"}]
    headings += [{"label": label, "title": _DESCRIPTIONS[key]} for key, label, _ in _columns(summary)]
    table = [
        {"cells": list(row.values()), "final": slug == summary.subject.slug}
        for slug, row in zip(summary.strategies, comparison(summary), strict=True)
    ]
    return render_page(
        "report.html.j2",
        m=summary,
        name=names_of(summary)[summary.subject.slug],
        benchmark=names_of(summary)[summary.benchmark],
        measures=measure_rows(summary),
        verdict=verdict(summary),
        conclusion=conclusion(summary),
        warnings=quality.warnings,
        coverage=symbol_rows(quality),
        cards=[(label, _cell(final, key, kind)) for key, label, kind in _COLUMNS if key in _CARDS],
        table={"headings": headings, "rows": table},
        figures={
            "equity": figure_html(_equity(backtests, summary), 460),
            "drawdown": figure_html(_drawdown(backtests, summary), 320),
            "heat_map": figure_html(_heat_map(summary), 120 + 34 * (5 + len(summary.folds[0].members))),
            "in_sample": figure_html(_in_sample(summary), 420),
            "learning": "" if learning is None else figure_html(learning, 420),
            "costs": figure_html(_costs(backtests, summary), 360),
        },
        growth=growth_part(summary),
        stress=stress_part(summary),
        folds=folds,
        choices=choice_rows(summary),
        gates=_gates(summary),
        descriptions={label: _DESCRIPTIONS[key] for key, label, _ in _columns(summary)},
        provenance=provenance,
    )


SHORT_COLUMNS = ("strategy", "total return", "Sharpe", "max drawdown", "costs", "excess / y over buy and hold")
"""Of the table against the baselines, for a terminal or a chat."""


def render_markdown(summary: RunSummary) -> str:
    """A short summary for a chat or a run page."""
    lines = [f"## {names_of(summary)[summary.subject.slug]}, out of sample {summary.first} to {summary.last}", ""]
    lines += [*verdict(summary), *gate_sentences(summary), ""]
    lines += ["| " + " | ".join(SHORT_COLUMNS) + " |", "|" + "---|" * len(SHORT_COLUMNS)]
    lines += ["| " + " | ".join(row[name] for name in SHORT_COLUMNS) + " |" for row in comparison(summary)]
    return "\n".join(lines)
