"""The report's figures. At most five lines are in colour and named at their ends; the others wait in the legend.

Lines are thinned to what a screen shows and packed as 32-bit numbers; the deepest point of every drawn line that is in colour stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import plotly.graph_objects as go

from ploutos.envs.ledger import COSTS
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.history import MONTH, Rolling, distribution, matched_exposure, moving_mean, rolling
from ploutos.evaluation.metrics import Periods, drawdowns, periods_of, session_returns
from ploutos.evaluation.summary import RunSummary
from ploutos.market.bars import Bars
from ploutos.market.calendar import DAY
from ploutos.reporting.lines import POINTS, spread, thinned, times
from ploutos.reporting.names import names_of
from ploutos.reporting.page import end_labels, show, typeset
from ploutos.reporting.palette import BLUE, COLOURS, GREY, INK, ORANGE, WHITE
from ploutos.strategies.base import Role
from ploutos.types import Float32Array, FloatArray, IntArray

_PLOT = 380
"""Pixels that a line has from bottom to top, about."""
_ROOM = 150
"""Pixels at the right for the names of lines."""
_ABOVE = 48
"""Pixels above a figure whose folds are named."""
_MARKS = 300
"""Fills drawn of one side and symbol."""
_COLUMNS = 300
"""Columns of the heat map of weights."""
_ROWS = 40
"""Its rows, at most."""
DRAWN_SYMBOLS = 12
"""Symbols whose price is drawn."""


@dataclass(frozen=True)
class Material:
    """What figures are drawn of: accounts without placebos, what they showed, and the bars under them."""

    backtests: Backtests
    summary: RunSummary
    bars: Bars

    @cached_property
    def names(self) -> dict[str, str]:
        return names_of(self.summary)

    @cached_property
    def periods(self) -> Periods:
        return periods_of(self.bars, self.backtests)

    @cached_property
    def subject(self) -> int:
        """Row of the account that the run is about."""
        return self.backtests.row(self.summary.subject.slug)

    @cached_property
    def benchmark(self) -> int:
        """Row of the benchmark."""
        return self.backtests.row(self.summary.benchmark)

    @cached_property
    def kept(self) -> IntArray:
        """Closes that lines are drawn at."""
        equity = self.backtests.equity[[self.subject, self.benchmark]]
        deepest = drawdowns(equity).argmin(axis=1)
        return np.unique(np.r_[0, thinned(equity[0], POINTS // 2), thinned(drawdowns(equity[0]), POINTS // 2), deepest])

    @property
    def daily(self) -> bool:
        """No session has two bars."""
        return self.bars.timeframe >= DAY

    def day_axis(self, figure: go.Figure) -> go.Figure:
        """Dates below, and above them the test range of every fold."""
        figure.update_xaxes(type="date", hoverformat="%Y-%m-%d" if self.daily else "%Y-%m-%d %H:%M")
        folds = self.summary.folds
        for place, fold in enumerate(folds):
            ends = {"x0": str(fold.first), "x1": str(fold.last)}
            figure.add_shape(
                type="rect", yref="paper", y0=0, y1=1, line_width=0, fillcolor=GREY, opacity=0.12 * (place % 2), layer="below", **ends
            )
            if len(folds) <= 24:
                middle = fold.first + (fold.last - fold.first) / 2
                text = f"fold {fold.fold}" if len(folds) <= 8 else str(fold.fold)
                figure.add_annotation(x=str(middle), yref="paper", y=1, yanchor="bottom", text=text, showarrow=False, font={"size": 10})
        return figure.update_layout(margin_t=_ABOVE)  # the toolbar stands above the names of folds

    @cached_property
    def returns(self) -> FloatArray:
        """Session returns of the subject and the benchmark, shape (2, n), as long as both lasted."""
        last = int(min(self.backtests.last[self.subject], self.backtests.last[self.benchmark]))
        return session_returns(self.backtests.equity[[self.subject, self.benchmark]], self.periods.until(last))

    @cached_property
    def days(self) -> np.ndarray:
        """Their sessions, shape (n,)."""
        ends = self.periods.ends[1 : self.returns.shape[1] + 1]
        return self.bars.sessions[self.backtests.positions[ends]]

    @cached_property
    def rolling(self) -> Rolling | None:
        own, market = self.returns
        return rolling(own, market, self.days, self.periods.per_year)


def f32(values: FloatArray) -> Float32Array:
    """As figures keep them."""
    return values.astype(np.float32)


def emphasised(summary: RunSummary) -> list[str]:
    """The subject, the benchmark, and what they are most often asked about: at most five accounts."""
    asked = (Role.FUSED, Role.VOTE, Role.ORACLE, Role.HYBRID, Role.REGRESSION)
    others = [slug for role in asked for slug in summary.of(role)[:1]]
    return list(dict.fromkeys([summary.subject.slug, summary.benchmark, *others]))[: len(COLOURS)]


def _paths(m: Material, values: FloatArray, hover: str, place: bool) -> go.Figure:
    """One line per account, the members left out.

    Args:
        values: shape (k, n + 1).
        place: name lines at their ends, on a log axis.
    """
    figure, stamps, ends = go.Figure(), times(m.backtests.timestamps), []
    coloured = dict(zip(emphasised(m.summary), COLOURS, strict=False))
    left = [
        slug for slug, role in zip(m.backtests.slugs, m.backtests.roles, strict=True) if role is not Role.MEMBER and slug not in coloured
    ]
    for slug in [*left, *reversed(coloured)]:  # what comes later is drawn over it
        row = m.backtests.row(slug)
        at = m.kept[m.kept <= m.backtests.last[row]]
        width = 2.6 if row == m.subject else 1.6
        figure.add_scatter(
            x=stamps[at], y=f32(values[row, at]), name=m.names[slug], line={"width": width, "color": coloured.get(slug, GREY)},
            mode="lines", hovertemplate=hover, visible=True if slug in coloured else "legendonly",
            showlegend=slug not in coloured or not place,
            meta="labelled" if slug in coloured and place else None,
        )  # fmt: skip
        ends.append((m.names[slug], values[row, at], coloured.get(slug)))
    if place:
        drawn = [(name, path, colour) for name, path, colour in ends if colour]
        low, high = (np.log(float(edge)) for edge in (min(p.min() for _, p, _ in drawn), max(p.max() for _, p, _ in drawn)))
        span = (high - low) or 1.0
        low, span = low - 0.05 * span, 1.1 * span
        figure.update_yaxes(range=[low / np.log(10), (low + span) / np.log(10)])
        end_labels(figure, [(name, (np.log(path[-1]) - low) / span, colour) for name, path, colour in drawn], _PLOT)
    return figure.update_layout(hovermode="x unified", legend={"traceorder": "reversed"})


def equity(m: Material) -> go.Figure:
    """Accounts on a log scale, and the benchmark at the subject's exposure."""
    values = m.backtests.equity
    log = bool((values[[m.backtests.row(slug) for slug in emphasised(m.summary)]] > 0).all())
    figure = _paths(m, values, "$%{y:,.0f}", log)
    matched = matched_exposure(m.backtests, m.summary.subject.slug, m.summary.benchmark, m.periods)
    if np.isfinite(matched).all():
        at = spread(len(matched), POINTS)
        name = f"{m.names[m.summary.benchmark]} at the exposure of {m.names[m.summary.subject.slug]}"
        line = {"width": 1.6, "dash": "dot", "color": BLUE}
        stamps = times(m.backtests.timestamps)[m.periods.ends[at]]
        figure.add_scatter(x=stamps, y=f32(matched[at]), name=name, mode="lines", line=line, hovertemplate="$%{y:,.0f}", showlegend=True)
    figure.update_yaxes(title="account, $", tickformat="$,.3~s")
    if log:
        figure.update_yaxes(type="log", dtick="D1" if np.ptp(np.log10(values[m.subject])) < 1.5 else None)
        figure.update_layout(margin_r=_ROOM)
    return m.day_axis(figure)


def underwater(m: Material) -> go.Figure:
    """Falls from the highest close so far."""
    figure = _paths(m, drawdowns(m.backtests.equity), "%{y:.1%}", place=False)
    return m.day_axis(figure).update_yaxes(tickformat=".0%", title="drawdown")


def rolling_sharpe(m: Material, found: Rolling) -> go.Figure:
    """Of the subject and the benchmark."""
    figure, at = go.Figure(), spread(len(found.days), POINTS)
    lines = ((m.subject, ORANGE, found.sharpe, 2.2), (m.benchmark, BLUE, found.benchmark_sharpe, 1.6))
    for row, colour, values, width in lines:
        figure.add_scatter(
            x=times(found.days[at]), y=f32(values[at]), name=m.names[m.backtests.slugs[row]], mode="lines",
            line={"width": width, "color": colour}, hovertemplate="%{y:.2f}",
        )  # fmt: skip
    figure.update_layout(hovermode="x unified").update_yaxes(title="Sharpe ratio", zeroline=True)
    return _by_session(m.day_axis(figure))


def rolling_beta(m: Material, found: Rolling) -> go.Figure:
    """Of the subject to the benchmark."""
    at = spread(len(found.days), POINTS)
    figure = go.Figure().add_scatter(
        x=times(found.days[at]), y=f32(found.beta[at]), mode="lines", line={"width": 2.2, "color": ORANGE}, hovertemplate="%{y:.2f}",
        name="beta", showlegend=False,
    )  # fmt: skip
    return _by_session(m.day_axis(figure.update_layout(hovermode="x unified").update_yaxes(title="beta", zeroline=True)))


def _by_session(figure: go.Figure) -> go.Figure:
    """What is known by session and not by bar has no hour."""
    return figure.update_xaxes(hoverformat="%Y-%m-%d")


def returns_histogram(m: Material) -> go.Figure:
    """Session returns of the subject as bars, of the benchmark as a line, and the tail."""
    edges, own, other = distribution(*m.returns)
    middles, names = (edges[:-1] + edges[1:]) / 2, m.names
    figure = go.Figure()
    figure.add_bar(
        x=f32(middles), y=own.astype(np.int32), width=float(edges[1] - edges[0]), name=names[m.summary.subject.slug],
        marker={"color": ORANGE, "opacity": 0.75}, hovertemplate="%{x:.1%}: %{y} sessions",
    )  # fmt: skip
    figure.add_scatter(
        x=f32(middles), y=other.astype(np.int32), name=names[m.summary.benchmark], mode="lines",
        line={"width": 1.8, "color": BLUE, "shape": "hvh"}, hovertemplate="%{x:.1%}: %{y} sessions",
    )  # fmt: skip
    metrics = m.summary.strategies[m.summary.subject.slug]
    tail = (("value at risk", metrics.value_at_risk, 1.0), ("expected shortfall", metrics.expected_shortfall, 0.9))
    for name, value, height in tail:
        if value is not None:
            figure.add_shape(
                type="line", x0=value, x1=value, yref="paper", y0=0, y1=height, line={"width": 1.5, "dash": "dash", "color": INK}
            )
            figure.add_annotation(
                x=value, yref="paper", y=height, text=typeset(f"{name} {show(value, 'percent')}"), showarrow=False, xanchor="right",
                yanchor="top", xshift=-4, font={"size": 11},
            )  # fmt: skip
    figure.update_xaxes(tickformat=".1~%", title="return of a session").update_yaxes(title="sessions")
    return figure.update_layout(bargap=0)


def exposure(m: Material) -> go.Figure:
    """Shares of equity held, long less short, and long plus short where it differs."""
    figure, ends = go.Figure(), m.periods.until(int(m.backtests.last[m.subject])).ends[1:]
    own, other = (m.backtests.weights[row, ends] for row in (m.subject, m.benchmark))
    at, net, name = spread(len(ends), POINTS), own.sum(axis=1), m.names[m.summary.subject.slug]
    lines: list[tuple[str, FloatArray, str, float, str | None]] = [(name, net, GREY, 0.8, None)]
    lines += [(f"{name}, mean of {MONTH} sessions", moving_mean(net, MONTH), ORANGE, 2.2, None)]
    if (own < 0).any():
        lines.append(("long plus short, the same mean", moving_mean(np.abs(own).sum(axis=1), MONTH), ORANGE, 1.4, "dot"))
    lines.append((m.names[m.summary.benchmark], other.sum(axis=1), BLUE, 1.6, None))
    for label, values, colour, width, dash in lines:
        line = {"width": width, "color": colour, "dash": dash}
        x = times(m.backtests.timestamps[ends[at]])
        figure.add_scatter(x=x, y=f32(values[at]), name=label, mode="lines", line=line, hovertemplate="%{y:.0%}")
    figure.update_layout(hovermode="x unified").update_yaxes(tickformat=".0%", title="held, share of equity", rangemode="tozero")
    return _by_session(m.day_axis(figure))


def weights(m: Material) -> go.Figure:
    """What the subject held of every symbol, the most held first."""
    at = 1 + spread(int(m.backtests.last[m.subject]), _COLUMNS)
    held = m.backtests.weights[m.subject, 1 : m.backtests.last[m.subject] + 1]
    order = np.argsort(-np.abs(held).mean(axis=0), kind="stable")[:_ROWS]
    most = float(np.abs(held[at - 1][:, order]).max()) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=f32(held[at - 1][:, order].T), x=times(m.backtests.timestamps[at]), y=[m.bars.symbols[j] for j in order],
            colorscale=[[0, ORANGE], [0.5, WHITE], [1, BLUE]], zmin=-most, zmax=most,
            colorbar={"tickformat": ".0%", "thickness": 12, "nticks": 3}, hovertemplate="%{x|%Y-%m-%d} %{y}: %{z:.1%}<extra></extra>",
        )
    )  # fmt: skip
    return figure.update_xaxes(type="date").update_yaxes(autorange="reversed")


def trades(m: Material, symbol: str) -> tuple[go.Figure, str]:
    """One symbol's closes with the subject's fills on them, and how many of these are drawn."""
    j, row, closes = m.bars.symbols.index(symbol), m.subject, m.backtests.positions
    stamps, there = times(m.backtests.timestamps), m.bars.tradable[closes, j]
    at = np.flatnonzero(there)
    at = at[thinned(m.bars.close[closes[at], j])]
    figure = go.Figure()
    line = {"width": 1.2, "color": GREY}
    figure.add_scatter(x=stamps[at], y=f32(m.bars.close[closes[at], j]), name="close", mode="lines", line=line, hovertemplate="%{y:,.2f}")
    prices = np.stack([m.backtests.fill_price[row, :, j], m.backtests.stop_price[row, :, j]], axis=1)
    units = np.stack([m.backtests.fill_units[row, :, j], m.backtests.stop_units[row, :, j]], axis=1)
    n = drawn = 0
    for name, colour, shape, sign in (("bought", BLUE, "triangle-up", 1), ("sold", ORANGE, "triangle-down", -1)):
        when, kind = np.nonzero(np.isfinite(prices) & (np.sign(units) == sign))
        some = spread(len(when), _MARKS)
        n, drawn = n + len(when), drawn + len(some)
        figure.add_scatter(
            x=stamps[when[some]], y=f32(prices[when[some], kind[some]]), name=name, mode="markers",
            marker={"size": 7, "symbol": shape, "color": colour, "opacity": 0.75}, customdata=f32(np.abs(units[when[some], kind[some]])),
            hovertemplate=f"{name} %{{customdata:,.4~g}} at %{{y:,.2f}}<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(title="price").update_xaxes(type="date", hoverformat="%Y-%m-%d" if m.daily else "%Y-%m-%d %H:%M")
    return figure, f"{n:,} fills" if n == drawn else f"{drawn:,} of {n:,} fills, spread evenly"


def in_sample(summary: RunSummary) -> go.Figure:
    """Sharpe ratios outside the training range over those inside it, a dot per policy."""
    dots = [(fold.fold, member) for fold in summary.folds for member in fold.members]
    figure = go.Figure()
    for part, colour, shape in (("test", ORANGE, "circle"), ("validation", BLUE, "diamond")):
        figure.add_scatter(
            x=[dot.train for _, dot in dots], y=[getattr(dot, part) for _, dot in dots], mode="markers", name=f"{part} range",
            marker={"size": 9, "color": colour, "symbol": shape}, text=[f"fold {fold}, member {dot.member}" for fold, dot in dots],
            hovertemplate="%{text}: %{x:.2f} in training, %{y:.2f} outside<extra></extra>",
        )  # fmt: skip
    known = [v for _, dot in dots for v in (dot.train, dot.validation, dot.test) if v is not None] or [0.0, 1.0]
    ends = [min(known), max(known)]
    figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"dash": "dot", "color": GREY})
    inside = [dot.train for _, dot in dots if dot.train is not None] or ends
    margin = 0.1 + 0.1 * (max(inside) - min(inside))
    figure.update_xaxes(title="Sharpe ratio in the training range", range=[min(inside) - margin, max(inside) + margin])
    return figure.update_yaxes(title="Sharpe ratio outside it")


def learning(summary: RunSummary) -> go.Figure | None:
    """Growth where the members learnt and on the bars held out from them, over steps; None where no member was scored on any."""
    curves = [(fold.fold, m, curve) for fold in summary.folds for m, curve in enumerate(fold.learning) if curve.looks]
    if not curves:
        return None
    figure = go.Figure()
    for place, (fold, m, curve) in enumerate(curves):
        who = f"fold {fold}, member {m}"
        for name, colour, steps, growth in (
            ("where it learnt", GREY, curve.steps, curve.train), ("held out", BLUE, curve.looks, curve.held_out),
        ):  # fmt: skip
            values = np.array([np.nan if each is None else 1e4 * each for each in growth])
            figure.add_scatter(
                x=np.array(steps, dtype=np.int32), y=f32(values), name=name, legendgroup=name, showlegend=not place, mode="lines",
                line={"width": 1.2, "color": colour}, opacity=0.7, hovertemplate=f"{who}, {name}: %{{y:.2f}}<extra></extra>",
            )  # fmt: skip
    kept = [
        (curve.chosen, 1e4 * curve.held_out[curve.looks.index(curve.chosen)], f"fold {fold}, member {m}: kept")
        for fold, m, curve in curves
        if curve.chosen is not None
    ]
    if kept:
        x, y, text = zip(*kept, strict=True)
        marker = {"size": 8, "color": ORANGE}
        figure.add_scatter(
            x=x, y=y, text=text, name="kept", mode="markers", marker=marker, hovertemplate="%{text}, %{y:.2f}<extra></extra>"
        )
    return figure.update_xaxes(title="environment steps").update_yaxes(title="growth per bar, bp", zeroline=True)


def costs(backtests: Backtests, names: dict[str, str]) -> go.Figure:
    """What every account paid, by kind."""
    figure = go.Figure()
    for kind, colour in zip(COSTS, COLOURS, strict=False):
        paid = getattr(backtests, kind)[:, -1]
        if paid.any():
            shown = [names[slug] for slug in backtests.slugs]
            figure.add_bar(y=shown, x=f32(paid), orientation="h", name=kind, marker={"color": colour}, hovertemplate="%{y}: $%{x:,.0f}")
    figure.update_layout(barmode="stack").update_yaxes(autorange="reversed")
    return figure.update_xaxes(title="paid over the whole span", tickformat="$,.3~s")


def drawn_symbols(m: Material) -> Sequence[str]:
    """The symbols whose price is drawn: those that the subject gained or lost the most with, where that is known."""
    own = next((each for each in m.summary.attribution if each.slug == m.summary.subject.slug), None)
    ranked = sorted(m.bars.symbols, key=lambda symbol: -abs(own.by_symbol[symbol].total)) if own else m.bars.symbols
    return ranked[:DRAWN_SYMBOLS]
