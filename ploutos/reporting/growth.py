"""The part of a report that says where growth came from: a waterfall, a table, and what the advice changed."""

from collections.abc import Mapping
from dataclasses import dataclass

import plotly.graph_objects as go
from markupsafe import Markup

from ploutos.evaluation.summary import Attribution, Growth, RunSummary
from ploutos.reporting.names import names_of
from ploutos.reporting.page import figure_html, show, typeset
from ploutos.reporting.palette import BLUE, INK, ORANGE

PARTS = {
    "market": "market exposure",
    "selection": "selection",
    "timing": "timing",
    "stops": "stops",
    "vetoes": "vetoes",
    "advice": "advice",
    "commission": "commission",
    "spread": "spread",
    "slippage": "slippage",
    "impact": "impact",
    "borrow": "borrow",
    "written_off": "written off",
}
_CENT = 0.005
_GROSS = ("market", "selection", "timing", "stops")


@dataclass(frozen=True)
class GrowthPart:
    """What the template shows."""

    lead: str
    figure: Markup
    symbols: Markup
    ablations: list[str]
    tables: list[tuple[str, list[str], list[list[str]]]]


def growth_part(summary: RunSummary) -> GrowthPart | None:
    """Of the account that the run is about, beside the others that were split; None where none was."""
    found = {each.slug: each for each in summary.attribution}
    if (own := found.get(summary.subject.slug)) is None:
        return None
    names = names_of(summary)
    shown = shown_parts([each.growth for each in found.values()])
    accounts = [[names[slug], *_cells(each.growth, shown)] for slug, each in found.items()]
    inside = {"long": own.by_side["long"], "short": own.by_side["short"]} | own.by_symbol
    inside |= {f"fold {index}": growth for index, growth in own.by_fold.items()}
    rows = [[label, *_cells(growth, shown)] for label, growth in inside.items() if label != "short" or growth.total]
    headings = [*(PARTS[name] for name in shown), "together"]
    return GrowthPart(
        lead=lead_sentence(own, names[own.slug]),
        figure=figure_html(waterfall(own.growth, shown), 380, f"Waterfall: the parts of the growth of {names[own.slug]}."),
        symbols=figure_html(
            by_symbol({names[slug]: found[slug] for slug in dict.fromkeys([own.slug, summary.benchmark]) if slug in found}),
            110 + 34 * len(own.by_symbol),
            f"Bars: what {names[own.slug]} gained or lost with every symbol.",
        ),
        ablations=ablation_sentences(own, names[own.slug]),
        tables=[
            ("Account by account", ["account", *headings], accounts),
            (f"{names[own.slug]}: long and short, symbol by symbol, fold by fold", ["", *headings], rows),
        ],
    )


def shown_parts(growths: list[Growth]) -> list[str]:
    """The parts that are not 0 everywhere; market exposure, selection and timing always."""
    return [name for name in PARTS if name in _GROSS[:3] or any(abs(getattr(growth, name)) >= _CENT for growth in growths)]


def lead_sentence(own: Attribution, name: str) -> str:
    """The whole growth and what of it was the market."""
    ablations = [each for each in (own.of_advice, own.of_vetoes) if each is not None]
    growth, market = own.growth.total, sum(each.market for each in (own.growth, *ablations))
    would = "would have made" if market >= 0 else "would have lost"
    return f"{name} {_moved(growth)}; market exposure alone {would} {show(abs(market), 'money')}."


def ablation_sentences(own: Attribution, name: str) -> list[str]:
    """What the advice and the veto changed, and how."""
    sentences = []
    for what, growth in (("The advice", own.of_advice), ("The risk veto", own.of_vetoes)):
        if growth is not None:
            parts = ", ".join(f"{PARTS[part]} {_signed(getattr(growth, part))}" for part in _GROSS if abs(getattr(growth, part)) >= _CENT)
            how = f" ({parts})" if parts else ""
            sentences.append(f"{what} changed the gross profit of {name} by {_signed(growth.total)}{how}.")
    return sentences


def by_symbol(accounts: Mapping[str, Attribution]) -> go.Figure:
    """What each account gained or lost with every symbol, net of costs."""
    figure = go.Figure()
    for (name, each), colour in zip(accounts.items(), (ORANGE, BLUE), strict=False):
        figure.add_bar(
            y=list(each.by_symbol), x=[growth.total for growth in each.by_symbol.values()], orientation="h", name=name,
            marker={"color": colour}, hovertemplate=f"%{{y}}: $%{{x:,.0f}}<extra>{name}</extra>",
        )  # fmt: skip
    figure.update_layout(barmode="group", showlegend=True).update_yaxes(autorange="reversed")
    return figure.update_xaxes(title="profit and loss, $", tickformat="$,.3~s", zeroline=True)


def waterfall(growth: Growth, shown: list[str]) -> go.Figure:
    """From nothing to the whole growth, part by part."""
    labels, values = [PARTS[name] for name in shown], [getattr(growth, name) for name in shown]
    figure = go.Figure(
        go.Waterfall(
            x=[*labels, "growth"], y=[*values, None], measure=[*("relative" for _ in values), "total"],
            text=[typeset(_signed(value)) for value in [*values, growth.total]], textposition="outside",
            constraintext="none", textfont={"size": 11}, cliponaxis=False,
            increasing={"marker": {"color": BLUE}}, decreasing={"marker": {"color": ORANGE}},
            totals={"marker": {"color": INK}},
        )
    )  # fmt: skip
    return figure.update_yaxes(title="account, $", tickformat="$,.3~s")


def _cells(growth: Growth, shown: list[str]) -> list[str]:
    return [*(_signed(getattr(growth, name)) for name in shown), _signed(growth.total)]


def _signed(value: float) -> str:
    """Money with its sign."""
    return show(value, "money")


def _moved(value: float) -> str:
    return f"{'earned' if value >= 0 else 'lost'} {show(abs(value), 'money')} net of costs"
