"""Figures for a notebook.

`figure.show()` draws one in a notebook, `figure.write_html(path)` writes a page that needs no network.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ploutos.evaluation.backtest import Backtests
from ploutos.types import FloatArray


def plot_equity(backtests: Backtests) -> go.Figure:
    """Equity of every account over time, on a log scale; the first account is drawn bold."""
    return _lines(backtests, backtests.slugs, backtests.equity).update_yaxes(type="log", title="account, net of costs")


def plot_drawdowns(backtests: Backtests) -> go.Figure:
    """How far every account is below its highest close so far; the first account is drawn bold."""
    depths = backtests.equity / np.maximum.accumulate(backtests.equity, axis=1) - 1
    return _lines(backtests, backtests.slugs, depths).update_yaxes(tickformat=".0%", title="below the highest close so far")


def plot_weights(backtests: Backtests, slug: str) -> go.Figure:
    """What one account held of each symbol at each close, as a share of its equity."""
    held = backtests.weights[backtests.row(slug)].T
    return _lines(backtests, backtests.symbols, held).update_yaxes(tickformat=".0%", title=f"{slug}: share of equity")


def _lines(backtests: Backtests, names: Sequence[str], values: FloatArray) -> go.Figure:
    """One line per row of values, shape (n_lines, n_bars), the first of them bold."""
    figure = go.Figure()
    for row, (name, path) in enumerate(zip(names, values, strict=True)):
        figure.add_scatter(x=backtests.timestamps, y=path, name=name, line={"width": 1.3 if row else 2.6})
    return figure.update_layout(template="plotly_white", legend={"orientation": "h"}, margin={"l": 60, "r": 20, "t": 20, "b": 40})
