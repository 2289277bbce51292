"""What every page shares: how a number is shown, how a figure becomes a piece of a page, and one file that loads nothing.

A page opens by itself, so the script that draws travels inside, compressed: 2 MB of base64 where the plain script takes 4.8. The browser
unpacks it and the figures, which are compressed too. Words and numbers reach a page in ASCII, as a terminal shows them; the page
sets real minus signs.
"""

import gzip
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ploutos.wording import plural

MINUS = "\N{MINUS SIGN}"
_NONE = "-"
_PLOTLY = "<!-- what draws -->"
_FORMATS = {"percent": ".1%", "ratio": ".2f", "times": ".1f", "count": ",.0f", "p": ".3f"}


def show(value: float | None, kind: str) -> str:
    """A number for people.

    >>> show(0.1234, "percent"), show(None, "ratio"), show(-1234.5, "money"), show(-0.0001, "percent")
    ('12.3%', '-', '-$1,234', '0.0%')
    """
    if value is None:
        return _NONE
    text = format(abs(value), _FORMATS.get(kind, ",.0f"))
    text = f"{text}x" if kind == "times" else text if kind in _FORMATS else f"${text}"
    return f"-{text}" if value < 0 and re.search("[1-9]", text) else text


def typeset(text: str) -> str:
    """The same with real minus signs before numbers; dates, names and options stay as they are.

    >>> typeset("-12.3% since 2012-02-09, --set a-1") == f"{MINUS}12.3% since 2012-02-09, --set a-1"
    True
    """
    return re.sub(r"(?<![\w.\-/])-(?=\$?\d)", MINUS, text)


def end_labels(figure: go.Figure, ends: Sequence[tuple[str, float, str]], height: int) -> go.Figure:
    """Write names at the right ends of lines, apart from each other; on a narrow screen the legend stands for them.

    Args:
        ends: name, place on the axis from 0 (bottom) to 1, colour.
        height: of the plot, pixels.
    """
    gap, lowest = 15 / height, -1.0
    for name, place, colour in sorted(ends, key=lambda end: end[1]):
        lowest = max(place, lowest + gap)
        figure.add_annotation(
            name="end", xref="paper", x=1, xanchor="left", xshift=4, yref="paper", y=lowest, yanchor="middle", text=name, showarrow=False,
            font={"size": 11, "color": colour},
        )  # fmt: skip
    return figure


def chart_html(figure: dict[str, Any] | str, height: int, alt: str) -> Markup:
    """A figure as a piece of a page, drawn by the page's script.

    Args:
        figure: plotly's JSON, with `data` and `layout`; packed arrays are `{"dtype", "bdata"}`.
        height: pixels.
        alt: what it shows, for whoever does not see it.
    """
    text = figure if isinstance(figure, str) else json.dumps(figure, separators=(",", ":"))
    return Markup(f'<div class="chart" role="img" aria-label="{escape(alt)}" style="height:{height}px" data-figure="{packed(text)}"></div>')


def figure_html(figure: go.Figure, height: int, alt: str) -> Markup:
    """The same of plotly's own figure; its numpy arrays are packed."""
    around = {"l": 60, "r": figure.layout.margin.r or 20, "t": figure.layout.margin.t or 24, "b": 40}
    figure.update_layout(template="none", height=height, margin=around)
    return chart_html(str(figure.to_json()), height, alt)


def packed(text: str) -> str:
    """A text as base64 of gzip; the same text gives the same bytes."""
    return b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@lru_cache(maxsize=1)
def _plotly() -> str:
    return packed(get_plotlyjs())


def render_page(template: str, **values: Any) -> str:
    """A template of this package as one self-contained file, with the script that its figures need, if it has any."""
    environment = Environment(
        loader=PackageLoader("ploutos.reporting", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        finalize=lambda value: typeset(value) if type(value) is str else value,
    )  # fmt: skip
    environment.filters["plural"] = plural
    page = environment.get_template(template).render(plotly=Markup(_PLOTLY), **values)
    return page.replace(_PLOTLY, _plotly() if 'data-figure="' in page else "")
