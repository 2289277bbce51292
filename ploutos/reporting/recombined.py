"""The part of a report that shows how far the scores of a supervised model lie apart over recombined histories, and what they are not."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from ploutos.evaluation.summary import Recombined, RunSummary
from ploutos.reporting.names import names_of
from ploutos.reporting.page import figure_html, show
from ploutos.reporting.palette import BLUE, GREY, ORANGE
from ploutos.wording import counted

_NO_GATE = (
    "This is neither a gate nor a forecast: each model learnt from bars after those it decided, and the paths share their bars, so they "
    "are not separate tries. The spread says how much a single Sharpe ratio owes to the order in which the years came."
)


@dataclass(frozen=True)
class RecombinedPart:
    """What the template shows."""

    sentences: list[str]
    headings: list[str]
    rows: list[list[str]]
    chart: Markup


def recombined_part(summary: RunSummary) -> RecombinedPart | None:
    """Of the linear models; None where none was recombined."""
    if not summary.recombined:
        return None
    names, one = names_of(summary), summary.recombined[0]
    headings = ["Sharpe ratio of", "paths", "lowest", "quarter below", "median", "quarter above", "highest", "as run", "buy and hold"]
    return RecombinedPart(
        sentences=[
            f"The test bars were cut into {one.groups} groups. For every choice of {one.test_groups} of them a model was fitted anew on "
            f"the others, {counted('{n} [model|models]', one.n_splits)} in all, without "
            f"{counted('{n} [bar|bars]', one.purge_bars)} on both sides of a chosen group and {one.embargo_bars} more behind it. What they "
            f"decided makes {counted('{n} whole [path|paths]', len(one.sharpe))} through the test bars, each an account that pays its "
            "costs.",
            _NO_GATE,
        ],
        headings=headings,
        rows=[_row(each, names[each.slug], summary) for each in summary.recombined],
        chart=figure_html(_figure(summary), 150 + 60 * len(summary.recombined), "Dots: Sharpe ratio of every recombined path."),
    )


def _row(found: Recombined, name: str, summary: RunSummary) -> list[str]:
    known = [value for value in found.sharpe if value is not None]
    quantiles = np.quantile(known, (0, 0.25, 0.5, 0.75, 1)).tolist() if known else [None] * 5
    own, other = (summary.strategies[slug].sharpe for slug in (found.slug, summary.benchmark))
    return [name, str(len(found.sharpe)), *(show(value, "ratio") for value in (*quantiles, own, other))]


def _figure(summary: RunSummary) -> go.Figure:
    """A dot a path, and the account as it was run walk-forward."""
    names, figure = names_of(summary), go.Figure()
    for place, found in enumerate(summary.recombined):
        paths = {"mode": "markers", "name": "recombined paths", "marker": {"size": 10, "color": BLUE, "opacity": 0.6}}
        figure.add_scatter(x=list(found.sharpe), y=[names[found.slug]] * len(found.sharpe), showlegend=place == 0, **paths)
        run = {"mode": "markers", "name": "as run", "marker": {"size": 12, "color": ORANGE, "symbol": "diamond"}}
        figure.add_scatter(x=[summary.strategies[found.slug].sharpe], y=[names[found.slug]], showlegend=place == 0, **run)
    held = summary.strategies[summary.benchmark].sharpe
    if held is not None:
        ends = [names[summary.recombined[0].slug], names[summary.recombined[-1].slug]]
        mark = {"mode": "markers", "name": "buy and hold", "marker": {"size": 12, "color": GREY, "symbol": "line-ns-open"}}
        figure.add_scatter(x=[held] * len(ends), y=ends, **mark)
    return figure.update_xaxes(title="Sharpe ratio")
