"""How an account got to where it is: its drawdowns, its months, and how risk, skill and exposure moved over time.

Drawdowns are taken bar by bar, as `max_drawdown` is; all else goes from session close to session close. Windows end at the session they
are shown at, so none reads what came later. A ruined account ends at the close by which all it held was closed.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.metrics import Periods, drawdown_spans, session_returns, to_date
from ploutos.evaluation.skill import relative_exposure
from ploutos.evaluation.summary import AccountHistory, Drawdown
from ploutos.market.bars import Bars
from ploutos.types import FloatArray, IntArray, TimeArray

DEEPEST = 5
MONTH = 21
"""Sessions of a month."""
_SHORTEST = 20
"""Sessions of the shortest rolling window."""


def history_of(backtests: Backtests, slug: str, bars: Bars, periods: Periods) -> AccountHistory:
    """One account's drawdowns, months and years.

    Args:
        periods: of the whole backtest.
    """
    row = backtests.row(slug)
    last = int(backtests.last[row])
    equity, days = backtests.equity[row, : last + 1], bars.sessions[backtests.positions[: last + 1]]
    ends = periods.until(last).ends
    closes, dates = equity[ends], days[ends]
    return AccountHistory(
        slug=slug,
        drawdowns=deepest_drawdowns(equity, days),
        months=calendar_returns(closes, dates, "M"),
        years=calendar_returns(closes, dates, "Y"),
    )


def deepest_drawdowns(equity: FloatArray, days: TimeArray, n: int = DEEPEST) -> tuple[Drawdown, ...]:
    """The deepest falls of a path that is above 0 until its end.

    Args:
        equity: shape (n + 1,), the start first.
        days: shape (n + 1,), session of every close.
    """
    _, session = np.unique(days, return_inverse=True)
    return tuple(
        Drawdown(
            peak=to_date(days[peak]),
            trough=to_date(days[trough]),
            recovered=None if back is None else to_date(days[back]),
            depth=float(equity[trough] / equity[peak] - 1),
            n_sessions=int(session[-1 if back is None else back] - session[peak]),
        )
        for peak, trough, back in drawdown_spans(equity)[:n]
    )


def calendar_returns(closes: FloatArray, days: TimeArray, unit: str) -> dict[str, float]:
    """Return of every calendar month or year, from the last close of the one before, or from the start.

    Args:
        closes: shape (n + 1,), at session ends, the start first.
        days: shape (n + 1,), those sessions.
        unit: `M` or `Y`.
    """
    period = days[1:].astype(f"datetime64[{unit}]")
    ends = np.flatnonzero(np.r_[period[1:] != period[:-1], True]) + 1
    before = np.r_[0, ends[:-1]]
    return {str(period[end - 1]): float(closes[end] / closes[start] - 1) for start, end in zip(before.tolist(), ends.tolist(), strict=True)}


# --- series for figures


@dataclass(frozen=True)
class Rolling:
    """How one account did over the window before each session.

    Attributes:
        days: shape (n,), the sessions that the windows end at.
        sharpe, benchmark_sharpe: shape (n,), yearly; nan for a window without variance.
        beta: shape (n,), to the benchmark; nan where it did not move.
        window: sessions.
    """

    days: TimeArray
    sharpe: FloatArray
    benchmark_sharpe: FloatArray
    beta: FloatArray
    window: int


def window_of(n_sessions: int, per_year: float) -> int:
    """Sessions of a rolling window: half a year, less in a short test, 0 where even the shortest would not roll."""
    window = min(round(per_year / 2), n_sessions // 3)
    return window if window >= _SHORTEST else 0


def rolling(own: FloatArray, market: FloatArray, days: TimeArray, per_year: float) -> Rolling | None:
    """Rolling Sharpe ratio and beta; None where the test is too short to roll.

    Args:
        own, market: shape (n,), session returns.
        days: shape (n,), their sessions.
        per_year: sessions of a year.
    """
    if not (window := window_of(len(own), per_year)):
        return None
    views = [sliding_window_view(each, window) for each in (own, market)]
    centred = [view - view.mean(axis=1, keepdims=True) for view in views]
    sharpes = [_ratio(view.mean(axis=1), view.std(axis=1, ddof=1)) * math.sqrt(per_year) for view in views]
    beta = _ratio((centred[0] * centred[1]).sum(axis=1), (centred[1] ** 2).sum(axis=1))
    return Rolling(days[window - 1 :], sharpes[0], sharpes[1], beta, window)


def moving_mean(values: FloatArray, window: int) -> FloatArray:
    """Mean of the last values up to each one, shape as given; of fewer where there are not so many yet."""
    sums = np.cumsum(values)
    return (sums - np.r_[np.zeros(window), sums][: len(sums)]) / np.minimum(np.arange(1, len(sums) + 1), window)


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 1e-12)


def distribution(returns: FloatArray, other: FloatArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Edges of equal bins over the returns of two accounts, and how many sessions of each fall into every one.

    Bins are as wide as Freedman and Diaconis ask for the first account, 20 to 80 of them.
    """
    both = np.r_[returns, other]
    low, high = float(both.min()), float(both.max())
    asked = len(np.histogram_bin_edges(returns, "fd")) - 1 if np.ptp(returns) > 0 else 1
    width = (float(np.ptp(returns)) or 1.0) / asked
    n = int(np.clip(round((high - low) / width), 20, 80))
    edges = np.histogram_bin_edges(both, n)
    return edges, np.histogram(returns, edges)[0], np.histogram(other, edges)[0]


def matched_exposure(backtests: Backtests, slug: str, benchmark: str, periods: Periods) -> FloatArray:
    """The benchmark's path if it had held the account's mean net exposure instead, at session ends, shape (n_sessions + 1,).

    It is what `Measure.EXPOSURE` compares with, over all sessions: every session's return scaled by one share; nan where the benchmark
    held nothing.
    """
    rows = [backtests.row(each) for each in (slug, benchmark)]
    counts = np.ones(len(periods.ends) - 1, dtype=bool)
    share = relative_exposure(backtests, rows[0], rows[1], periods, counts)
    returns = session_returns(backtests.equity[rows[1]], periods)
    return backtests.equity[rows[0], 0] * np.r_[1.0, np.cumprod(1 + share * returns)]
