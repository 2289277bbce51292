"""Which sessions of a test can count: spans by what the advisor may remember of them, and their numbers apart."""

from typing import Any

import numpy as np

from ploutos.advisor.cutoff import Tag
from ploutos.evaluation.metrics import Periods, session_returns, sharpe_ratio
from ploutos.evaluation.significance import sharpe_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.types import BoolArray, FloatArray, TimeArray

_COUNTS = (Tag.CLEAN, Tag.NOT_APPLICABLE)
_MEASURES = ("total_return", "sharpe", "sharpe_low", "sharpe_high")


def spans_of(
    dates: TimeArray,
    tags: list[Tag],
    equity: dict[str, FloatArray],
    periods: Periods,
    whole: dict[str, dict[str, float]],
    bootstrap: BootstrapSpec,
    seed: int,
) -> list[dict[str, Any]]:
    """Every tag that occurs, in the order of time, with every strategy's numbers on its sessions alone.

    Args:
        dates: shape (n_sessions,), datetime64[D], the session of each session return.
        tags: one per session.
        equity: account by strategy, shape (n + 1,) each.
        whole: each strategy's numbers on all sessions; a tag that covers them all takes its numbers from there.

    Returns:
        Rows of tag, first, last, n_sessions, strategies; per strategy total_return, sharpe, sharpe_low, sharpe_high, nan
        where there is none.
    """
    returns = {name: session_returns(path, periods) for name, path in equity.items()}
    rows = []
    for tag in dict.fromkeys(tags):
        chosen = np.array([other is tag for other in tags])
        if chosen.all():
            measured = {name: {key: whole[name][key] for key in _MEASURES} for name in equity}
        else:
            measured = {name: _measure(each[chosen], periods.per_year, bootstrap, seed) for name, each in returns.items()}
        rows.append(
            {
                "tag": tag.value,
                "first": str(dates[chosen][0]),
                "last": str(dates[chosen][-1]),
                "n_sessions": int(chosen.sum()),
                "strategies": measured,
            }
        )
    return rows


def _measure(returns: FloatArray, per_year: float, bootstrap: BootstrapSpec, seed: int) -> dict[str, float]:
    total = float(np.prod(1 + returns) - 1)
    values = (total, sharpe_ratio(returns, per_year), *sharpe_interval(returns, per_year, bootstrap, seed))
    return dict(zip(_MEASURES, values, strict=True))


def counting_spans(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The spans of a run's metrics on which no advisor can have remembered what came: clean ones, or all of a mock's."""
    return [span for span in summary["spans"] if span["tag"] in _COUNTS]


def clean_sessions(summary: dict[str, Any], dates: TimeArray) -> BoolArray:
    """Which sessions a gate may read; it must read no other.

    Args:
        summary: metrics of a run.
        dates: session dates.

    Returns:
        Shape as `dates`: the session lies in a span that counts.
    """
    days = dates.astype("datetime64[D]")
    counts = np.zeros(days.shape, dtype=bool)
    for span in counting_spans(summary):
        counts |= (days >= np.datetime64(span["first"])) & (days <= np.datetime64(span["last"]))
    return counts
