"""The page a researcher reads: one self-contained HTML file. Percent and currency signs appear here and nowhere else."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from ploutos.envs.ledger import COSTS
from ploutos.evaluation.assess import BENCHMARK
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.comparisons import HYBRID, HYBRID_ABLATED
from ploutos.evaluation.metrics import DESCRIPTIONS, drawdowns
from ploutos.strategies.ensemble import VOTE

_COLOURS = ("#b54708", "#175cd3", "#7a5af8", "#98a2b3", "#12b76a", "#0e9384", "#dd2590", "#d0d5dd", "#344054", "#eaaa08")
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
)
_CARDS = ("total_return", "sharpe", "max_drawdown", "excess_return", "costs")
_INTERVALS = {"sharpe": ("sharpe_low", "sharpe_high"), "excess_return": ("excess_low", "excess_high")}
_NONE = "-"


def show(value: float | None, kind: str) -> str:
    """A number for people.

    >>> show(0.1234, "percent"), show(None, "ratio"), show(1234.5, "money")
    ('12.3 %', '-', '$1,234')
    """
    if value is None:
        return _NONE
    formats = {"percent": f"{100 * value:.1f} %", "ratio": f"{value:.2f}", "times": f"{value:.1f}x", "count": f"{value:,.0f}"}
    return formats.get(kind, f"${value:,.0f}")


def _cell(metrics: dict[str, Any], name: str, kind: str) -> str:
    text = show(metrics[name], kind)
    if name in _INTERVALS and metrics[name] is not None:
        low, high = (metrics[end] for end in _INTERVALS[name])
        if low is not None:
            text += f" [{show(low, kind)}, {show(high, kind)}]"
    return f"{text}, ruined {metrics['ruined']}" if name == "total_return" and metrics.get("ruined") else text


def comparison(summary: dict[str, Any]) -> list[dict[str, str]]:
    """The table against the baselines as text, one dictionary per strategy."""
    return [
        {"strategy": name} | {label: _cell(metrics, key, kind) for key, label, kind in _COLUMNS}
        for name, metrics in summary["strategies"].items()
    ]


def figure_html(figure: go.Figure, height: int) -> str:
    """A figure as a piece of a page that brings the script itself."""
    figure.update_layout(
        template="plotly_white", height=height, margin={"l": 60, "r": 20, "t": 20, "b": 40}, legend={"orientation": "h", "y": -0.15}
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}))


def render_page(template: str, **values: Any) -> str:
    """A template of this package as one self-contained file, with the script that its figures need."""
    environment = Environment(loader=PackageLoader("ploutos.reporting", "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(plotly_js=get_plotlyjs(), **values)


def _is_member(name: str) -> bool:
    return name.startswith("RL member ")


def _paths(backtests: Backtests, values: np.ndarray) -> go.Figure:
    figure = go.Figure()
    stamps = backtests.timestamps.astype("datetime64[ms]").astype(object)
    named = [name for name in backtests.names if not _is_member(name)]
    for name, path, last in zip(backtests.names, values, backtests.last.tolist(), strict=True):
        if not _is_member(name):
            width = 2.6 if name == named[0] else 1.3
            colour = _COLOURS[named.index(name) % len(_COLOURS)]
            figure.add_scatter(x=stamps[: last + 1], y=path[: last + 1], name=name, line={"width": width, "color": colour})
    return figure


def _equity(backtests: Backtests, summary: dict[str, Any]) -> go.Figure:
    figure = _paths(backtests, backtests.equity)
    for fold in summary["folds"]:
        figure.add_vline(x=fold["test"][0], line={"width": 1, "dash": "dot", "color": "#98a2b3"})
    return figure.update_yaxes(type="log", title="account, $")


def _drawdown(backtests: Backtests) -> go.Figure:
    return _paths(backtests, drawdowns(backtests.equity)).update_yaxes(tickformat=".0%")


def _heat_map(summary: dict[str, Any]) -> go.Figure:
    folds = summary["folds"]
    members = [name for name in summary["strategies"] if _is_member(name)]
    rows = [BENCHMARK, summary["final"], VOTE, *(name for name in (HYBRID, HYBRID_ABLATED) if name in summary["strategies"]), *members]
    values = [[fold["sharpe"][name] for fold in folds] for name in rows]
    columns = [f"fold {fold['fold']}<br>{fold['test'][0]}" for fold in folds]
    figure = go.Figure(
        go.Heatmap(
            z=values, x=columns, y=rows, colorscale="RdYlGn", zmid=0, zmin=-2, zmax=2,
            text=[[show(v, "ratio") for v in row] for row in values], texttemplate="%{text}", colorbar={"title": "Sharpe"},
        )
    )  # fmt: skip
    return figure.update_yaxes(autorange="reversed")


def _in_sample(summary: dict[str, Any]) -> go.Figure:
    dots = [member | {"fold": fold["fold"]} for fold in summary["folds"] for member in fold["members"]]
    figure = go.Figure()
    for part, colour in (("test", "#b54708"), ("validation", "#175cd3")):
        figure.add_scatter(
            x=[d["train"] for d in dots], y=[d[part] for d in dots], mode="markers", name=f"{part} range",
            marker={"size": 9, "color": colour}, text=[f"fold {d['fold']}, member {d['member']}" for d in dots],
        )  # fmt: skip
    known = [v for d in dots for v in (d["train"], d["validation"], d["test"]) if v is not None] or [0.0, 1.0]
    ends = [min(known), max(known)]
    figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"dash": "dot", "color": "#98a2b3"})
    return figure.update_xaxes(title="Sharpe in training range").update_yaxes(title="Sharpe outside it")


def _costs(backtests: Backtests) -> go.Figure:
    figure = go.Figure()
    for kind, colour in zip(COSTS, ("#175cd3", "#b54708", "#7a5af8", "#12b76a"), strict=True):
        paid = getattr(backtests, kind)[:, -1]
        if paid.any():
            figure.add_bar(x=list(backtests.names), y=paid, name=kind, marker={"color": colour})
    return figure.update_layout(barmode="stack").update_yaxes(title="paid over the whole span, $")


def _choice_rows(summary: dict[str, Any]) -> list[list[str]]:
    """What fusion took from each fold's validation range, as text."""
    rows = []
    for choice in summary["fusion"]:
        fitted, chosen, configured = choice["calibration"], choice["chosen"], choice["table"][0]
        odds = fitted["uncalibrated"] or f"{fitted['slope']:.2f} x {fitted['intercept']:+.2f}"
        right = f"{fitted['n_right']} of {fitted['n']}"
        earned = [f"{1e4 * candidate['growth']:.1f}" for candidate in (chosen, configured)]
        rows.append([str(choice["fold"]), right, odds, f"{chosen['llm_weight']:g}", f"{chosen['confidence_threshold']:g}", *earned])
    return rows


def render_report(
    backtests: Backtests,
    summary: dict[str, Any],
    quality: dict[str, Any],
    folds: list[dict[str, str]],
    provenance: list[tuple[str, str]],
) -> str:
    """The page; placebos are left to the advisor's own.

    Args:
        quality: `symbols` and `warnings` of the bars' inspection.
        summary: from `ploutos.evaluation.assess.summarise`.
        folds: from `ploutos.walk_forward.fold_table`.
        provenance: name and value of everything that the numbers stand on.
    """
    final = summary["strategies"][summary["final"]]
    backtests = backtests.only(list(summary["strategies"]))
    headings = [{"label": "strategy", "title": "who decided"}]
    headings += [{"label": label, "title": DESCRIPTIONS[key]} for key, label, _ in _COLUMNS]
    table = [{"cells": list(row.values()), "final": row["strategy"] == summary["final"]} for row in comparison(summary)]
    return render_page(
        "report.html.j2",
        m=summary,
        quality=quality,
        cards=[(label, _cell(final, key, kind)) for key, label, kind in _COLUMNS if key in _CARDS],
        table={"headings": headings, "rows": table},
        figures={
            "equity": figure_html(_equity(backtests, summary), 460),
            "drawdown": figure_html(_drawdown(backtests), 320),
            "heat_map": figure_html(_heat_map(summary), 120 + 34 * (5 + len(summary["folds"][0]["members"]))),
            "in_sample": figure_html(_in_sample(summary), 420),
            "costs": figure_html(_costs(backtests), 360),
        },
        folds=folds,
        choices=_choice_rows(summary),
        descriptions={label: DESCRIPTIONS[key] for key, label, _ in _COLUMNS},
        provenance=provenance,
    )


def render_markdown(summary: dict[str, Any]) -> str:
    """A short summary for a chat or a run page."""
    lines = [f"## {summary['final']}, out of sample {summary['first']} to {summary['last']}", ""]
    lines += [*summary["verdict"], ""]
    keep = ("strategy", "total return", "Sharpe", "max drawdown", "costs", "excess / y over buy and hold")
    lines += ["| " + " | ".join(keep) + " |", "|" + "---|" * len(keep)]
    lines += ["| " + " | ".join(row[name] for name in keep) + " |" for row in comparison(summary)]
    return "\n".join(lines)
