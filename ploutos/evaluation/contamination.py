"""Which sessions of a test can count: spans by what the advisor may remember of them, and their numbers apart."""

from collections.abc import Mapping, Sequence

import numpy as np

from ploutos.advisor.cutoff import Tag
from ploutos.evaluation.metrics import Periods, session_returns, sharpe_ratio, to_date
from ploutos.evaluation.significance import sharpe_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import RunSummary, Span, SpanMetrics, StrategyMetrics
from ploutos.types import BoolArray, FloatArray, TimeArray

COUNTS = (Tag.LOGGED, Tag.CLEAN, Tag.NOT_APPLICABLE)
"""What sessions can be evidence for an advisor."""
ENOUGH_LOGGED = 63
"""Sessions in the forward log from which on they alone are evidence: the fewest at which the size of an interval was measured."""


def evidence_of(tags: Sequence[Tag]) -> BoolArray:
    """Which sessions are asked about, shape (n_sessions,): those of the forward log alone where they are enough, else all that count.

    >>> evidence_of([Tag.GREY, Tag.CLEAN, Tag.LOGGED]).tolist()
    [False, True, True]
    """
    logged = np.array([tag is Tag.LOGGED for tag in tags], dtype=bool)
    return logged if logged.sum() >= ENOUGH_LOGGED else np.array([tag in COUNTS for tag in tags], dtype=bool)


def spans_of(
    dates: TimeArray,
    tags: list[Tag],
    equity: dict[str, FloatArray],
    periods: Periods,
    whole: Mapping[str, StrategyMetrics],
    bootstrap: BootstrapSpec,
    seed: int,
) -> tuple[Span, ...]:
    """Every tag that occurs, in the order of time, with every strategy's numbers on its sessions alone.

    Args:
        dates: shape (n_sessions,), datetime64[D], the session of each session return.
        tags: one per session.
        equity: account by strategy, shape (n + 1,) each.
        whole: each strategy's numbers on all sessions; a tag that covers them all takes its numbers from there. A span that
            reaches beyond an account's ruin has none of it.
    """
    returns = {slug: session_returns(path, periods) for slug, path in equity.items()}
    spans = []
    for tag in dict.fromkeys(tags):
        chosen = np.array([other is tag for other in tags])
        first, last = (to_date(day) for day in dates[chosen][[0, -1]])
        measured = {}
        for slug, each in returns.items():
            ruined = whole[slug].ruined
            if chosen.all():
                measured[slug] = SpanMetrics(**{name: getattr(whole[slug], name) for name in SpanMetrics.model_fields})
            elif ruined is not None and last > ruined:
                measured[slug] = SpanMetrics(total_return=None, sharpe=None, sharpe_low=None, sharpe_high=None)
            else:
                measured[slug] = _measure(each[chosen], periods.per_year, bootstrap, seed)
        edges = np.flatnonzero(np.diff(np.r_[False, chosen, False]))
        stretches = tuple((to_date(dates[start]), to_date(dates[stop - 1])) for start, stop in edges.reshape(-1, 2))
        several = stretches if len(stretches) > 1 else ()
        spans.append(Span(tag=tag, first=first, last=last, n_sessions=int(chosen.sum()), strategies=measured, stretches=several))
    return tuple(spans)


def _measure(returns: FloatArray, per_year: float, bootstrap: BootstrapSpec, seed: int) -> SpanMetrics:
    low, high = sharpe_interval(returns, per_year, bootstrap, seed)
    total = float(np.prod(1 + returns) - 1)
    return SpanMetrics(total_return=total, sharpe=sharpe_ratio(returns, per_year), sharpe_low=low, sharpe_high=high)


def counting_spans(summary: RunSummary) -> list[Span]:
    """The spans of a run on which no advisor can have remembered what came: clean ones, those of the forward log, or all of a mock's."""
    return [span for span in summary.spans if span.tag in COUNTS]


def clean_sessions(summary: RunSummary, dates: TimeArray) -> BoolArray:
    """Which sessions a gate may read; it must read no other.

    Args:
        dates: session dates.

    Returns:
        Shape as `dates`: the session lies in a span that counts.
    """
    days = dates.astype("datetime64[D]")
    counts = np.zeros(days.shape, dtype=bool)
    for first, last in (stretch for span in counting_spans(summary) for stretch in span.unbroken):
        counts |= (days >= np.datetime64(first)) & (days <= np.datetime64(last))
    return counts
