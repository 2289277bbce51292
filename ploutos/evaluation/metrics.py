"""What a path of equity is worth. One function per number; decimals, never percent.

All ratios are taken on session returns: the last close of each session over that of the session before. So the same
account gives the same Sharpe ratio whether its bars were minutes, hours or days. The periods of a year are the sessions
that the exchange held per year. A ruined account is measured up to the close by which all it held was closed.
"""

import math
from dataclasses import dataclass
from datetime import date

import numpy as np

from ploutos.envs.ledger import COSTS
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.summary import PathMetrics
from ploutos.market.bars import Bars
from ploutos.strategies.oracles import ORACLE
from ploutos.types import FloatArray, IntArray, TimeArray


@dataclass(frozen=True)
class Periods:
    """How bars fall into sessions, and sessions into years.

    Attributes:
        ends: positions of each session's last close in an equity path of n + 1 closes, the start first.
        per_year: sessions per year.
    """

    ends: IntArray
    per_year: float

    def until(self, last: int) -> "Periods":
        """The sessions up to one close, the last of them cut short where it is within one."""
        return Periods(np.r_[self.ends[self.ends < last], last], self.per_year)


def periods_of(bars: Bars, backtests: Backtests) -> Periods:
    """Sessions of a backtest's bars, by the bars' calendar."""
    return Periods(session_closes(bars.sessions[backtests.positions]), bars.sessions_per_year)


def session_closes(session_of_close: TimeArray) -> IntArray:
    """Positions of the start and of each later session's last close in an equity path.

    Args:
        session_of_close: shape (n + 1,), session of every close, the start first.
    """
    ends = np.flatnonzero(np.r_[session_of_close[1:] != session_of_close[:-1], True])
    return ends if ends[0] == 0 else np.r_[0, ends]


def session_returns(equity: FloatArray, periods: Periods) -> FloatArray:
    """Simple returns from session end to session end.

    Args:
        equity: shape (..., n + 1).

    Returns:
        Shape (..., n_sessions); 0 for an account that had nothing any more.
    """
    closes = equity[..., periods.ends]
    before, after = closes[..., :-1], closes[..., 1:]
    return np.asarray(np.divide(after, before, out=np.ones_like(after), where=before != 0) - 1)


def sharpe_ratio(returns: FloatArray, periods_per_year: float) -> float:
    """Annualised Sharpe ratio of simple returns, risk-free rate 0.

    Args:
        returns: shape (n,), decimal, net of costs.
        periods_per_year: returns in a year, from the calendar.

    Returns:
        Ratio; nan with fewer than two returns or no variance.

    Source: Sharpe (1994), "The Sharpe Ratio".

    >>> round(sharpe_ratio(np.array([0.01, -0.01, 0.02]), 252), 3)
    6.928
    """
    if len(returns) < 2 or (deviation := returns.std(ddof=1)) < 1e-12:
        return float("nan")
    return float(returns.mean() / deviation * np.sqrt(periods_per_year))


def sortino_ratio(returns: FloatArray, periods_per_year: float) -> float:
    """Mean over downside deviation about 0, annualised; nan when nothing was lost.

    Source: Sortino and Price (1994), "Performance Measurement in a Downside Risk Framework".
    """
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2)) if len(returns) else 0.0
    return float(returns.mean() / downside * np.sqrt(periods_per_year)) if downside > 1e-12 else float("nan")


def oracle_capture(backtests: Backtests, slug: str) -> float:
    """Log growth of an account over that of the oracle run beside it on a planted market; nan where there is none, or it earned nothing."""
    if ORACLE.slug not in backtests.slugs:
        return float("nan")
    rows = [backtests.row(each) for each in (slug, ORACLE.slug)]
    own, best = (float(np.log(max(backtests.equity[row, backtests.last[row]] / backtests.equity[row, 0], 1e-9))) for row in rows)
    return own / best if best > 0 else float("nan")


def drawdowns(equity: FloatArray) -> FloatArray:
    """Fall from the highest close so far, decimal, <= 0; shape as given."""
    return equity / np.maximum.accumulate(equity, axis=-1) - 1


def drawdown_spans(equity: FloatArray) -> list[tuple[int, int, int | None]]:
    """Peak, trough and recovery of every fall below the highest close so far, as positions, the deepest first.

    Args:
        equity: shape (n,), the start first; a recovery of None is still to come.
    """
    fallen = drawdowns(equity)
    under = np.r_[fallen < 0, False]
    begins, ends = np.flatnonzero(under[1:] & ~under[:-1]), np.flatnonzero(~under[1:] & under[:-1]) + 1
    found = [
        (peak, peak + int(equity[peak:back].argmin()), back if back < len(equity) else None)
        for peak, back in zip(begins.tolist(), ends.tolist(), strict=True)
    ]
    return sorted(found, key=lambda span: float(fallen[span[1]]))


def value_at_risk(returns: FloatArray, tail: float = 0.05) -> float:
    """Historical value at risk, as a return: the quantile of session returns, linear between two of them; nan with fewer than 1 / tail.

    Source: Jorion (2006), "Value at Risk".
    """
    return float(np.quantile(returns, tail)) if len(returns) >= 1 / tail else math.nan


def expected_shortfall(returns: FloatArray, tail: float = 0.05) -> float:
    """Mean of the session returns at or below the value at risk; nan where that is.

    Source: Acerbi and Tasche (2002), "On the Coherence of Expected Shortfall".
    """
    limit = value_at_risk(returns, tail)
    return float(returns[returns <= limit].mean()) if math.isfinite(limit) else math.nan


def sharpe_and_return(equity: FloatArray, periods: Periods, last: int) -> tuple[float, float]:
    """Sharpe ratio and total return of a path up to its last close that counts; nan for an account that had ended before it."""
    if last <= 0:
        return math.nan, math.nan
    returns = session_returns(equity, periods.until(last))
    return sharpe_ratio(returns, periods.per_year), float(equity[last] / equity[0] - 1)


def ruin_date(bars: Bars, backtests: Backtests, slug: str) -> date | None:
    """Session in which an account was ruined, None for one that never was."""
    close = int(backtests.ruined[backtests.row(slug)])
    return to_date(bars.sessions[backtests.positions[close]]) if close >= 0 else None


def to_date(session: np.datetime64) -> date:
    """A session's date."""
    return session.astype("datetime64[D]").item()


def measure(backtests: Backtests, row: int, periods: Periods) -> PathMetrics:
    """The metrics of one account that need no resampling."""
    last = int(backtests.last[row])
    equity, periods = backtests.equity[row, : last + 1], periods.until(last)
    returns = session_returns(equity, periods)
    years = len(returns) / periods.per_year
    growth = equity[-1] / equity[0]
    cagr = float(growth ** (1 / years) - 1) if growth > 0 else -1.0
    deepest = float(drawdowns(equity).min())
    costs = float(sum(getattr(backtests, name)[row, -1] for name in COSTS))
    return PathMetrics(
        total_return=float(growth - 1),
        cagr=cagr,
        ann_vol=float(returns.std(ddof=1) * np.sqrt(periods.per_year)) if len(returns) > 1 else math.nan,
        sharpe=sharpe_ratio(returns, periods.per_year),
        sortino=sortino_ratio(returns, periods.per_year),
        max_drawdown=deepest,
        calmar=cagr / -deepest if deepest < 0 else math.nan,
        exposure=float(np.abs(backtests.weights[row, 1 : last + 1]).sum(axis=1).mean()),
        turnover=float(backtests.traded[row, -1] / equity.mean() / years),
        n_fills=int(np.isfinite(backtests.fill_price[row]).sum() + np.isfinite(backtests.stop_price[row]).sum()),
        costs=costs,
        cost_share=costs / float(equity[0]),
        value_at_risk=value_at_risk(returns),
        expected_shortfall=expected_shortfall(returns),
    )
