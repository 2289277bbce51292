"""What every page shares: how a number is shown, how a figure becomes a piece of a page, and one file that loads nothing."""

from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

_NONE = "-"


def show(value: float | None, kind: str) -> str:
    """A number for people.

    >>> show(0.1234, "percent"), show(None, "ratio"), show(1234.5, "money")
    ('12.3 %', '-', '$1,234')
    """
    if value is None:
        return _NONE
    formats = {
        "percent": f"{100 * value:.1f} %", "ratio": f"{value:.2f}", "times": f"{value:.1f}x", "count": f"{value:,.0f}", "p": f"{value:.3f}",
    }  # fmt: skip
    return formats.get(kind, f"${value:,.0f}")


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
