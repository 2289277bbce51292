"""Figures for a notebook."""

import plotly.graph_objects as go

from ploutos.evaluation.backtest import Backtests


def plot_equity(backtests: Backtests) -> go.Figure:
    """Equity of every account over time, on a log scale; the first account is drawn bold.

    `figure.show()` draws it in a notebook, `figure.write_html(path)` writes a page that needs no network.
    """
    figure = go.Figure()
    for row, (name, path) in enumerate(backtests.equity_frame().groupby("strategy", sort=False)):
        figure.add_scatter(x=path["timestamp"], y=path["equity"], name=str(name), line={"width": 1.3 if row else 2.6})
    figure.update_layout(template="plotly_white", legend={"orientation": "h"}, margin={"l": 60, "r": 20, "t": 20, "b": 40})
    return figure.update_yaxes(type="log", title="account, net of costs")
