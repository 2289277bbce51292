"""The stylised facts of intraday returns, and whether a market has them.

The bands hold what hourly US index funds show with room to spare; a geometric Brownian motion fails most of them. They
are for ten thousand bars and more: in fewer, a fat tail may simply not have happened yet. Source: Cont (2001),
"Empirical properties of asset returns: stylized facts and statistical issues".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from ploutos.errors import DataError
from ploutos.market.bars import Bars, infer_timeframe
from ploutos.types import FloatArray

MIN_BARS = 10_000
TAIL = 0.02
"""Share of all returns that a Hill estimate of one tail reads."""
LEVERAGE_LAGS = 35
OPEN = 9 * 60 + 30
"""Minute of the day in New York."""
BANDS: dict[str, tuple[float, float]] = {
    "excess_kurtosis": (5.0, np.inf),
    "hill_left": (2.0, 4.5),
    "hill_right": (2.0, 4.5),
    "acf_return_1": (-0.08, 0.08),
    "acf_abs_1d": (0.1, 1.0),
    "acf_abs_20d": (0.05, 1.0),
    "leverage": (-1.0, -0.01),
    "opening_activity": (1.5, np.inf),
    "index_correlation": (0.8, 1.0),
}
"""Lowest and highest value of each fact that passes; `index_correlation` is of two symbols, the others of one."""


@dataclass(frozen=True)
class StylisedFailure:
    """A fact that a market does not show. `symbols` is one name, or the two of a correlation."""

    symbols: tuple[str, ...]
    fact: str
    value: float
    band: tuple[float, float]

    @property
    def sentence(self) -> str:
        low, high = self.band
        return f"{'-'.join(self.symbols)} has {self.fact} {self.value:.3f}; expected {low:g} to {high:g}"


def stylised_facts(frame: pd.DataFrame) -> dict[str, float]:
    """Facts of one symbol's log returns, close to close, nights included.

    Args:
        frame: bars of one symbol: timestamp (datetime64[us, UTC], bar starts, increasing) and close. Intraday; lags in
            days count the bars of a usual New York trade date.

    Returns:
        `excess_kurtosis` : 0 for normal returns.
        `hill_left`, `hill_right` : tail exponents of losses and gains, from the `TAIL` largest.
        `acf_return_1` : correlation of successive returns.
        `acf_abs_1`, `acf_abs_1d`, `acf_abs_5d`, `acf_abs_20d` : autocorrelation of absolute returns after a bar and after days.
        `leverage` : mean correlation of a return with the squared returns 1 to 35 bars later, both ends clipped at 0.1 %;
        negative where losses raise volatility.
        `opening_activity` : mean absolute return of the bars in which New York opens over that of the median time of day.

    Raises:
        DataError: more than one symbol, daily bars, or too few bars for a lag of 20 days.
    """
    if "symbol" in frame and frame["symbol"].nunique() != 1:
        raise DataError(f"found bars of {frame['symbol'].nunique()} symbols; expected those of one; select it first")
    if infer_timeframe(frame["timestamp"]) >= pd.Timedelta(days=1):
        raise DataError("found daily bars; expected intraday ones: these facts are about the hours of a day")
    local = frame["timestamp"].dt.tz_convert("America/New_York")
    day = int((local + pd.Timedelta(hours=6)).dt.date.value_counts().mode().iloc[-1])
    if len(frame) <= 20 * day + 2:
        raise DataError(f"found {len(frame)} bars; expected more than 20 days of {day} to tell what lasts a month")
    returns = np.diff(np.log(frame["close"].to_numpy()))
    size = np.abs(returns)
    return {
        "excess_kurtosis": float(stats.kurtosis(returns)),
        "hill_left": _hill(-returns),
        "hill_right": _hill(returns),
        "acf_return_1": _autocorrelation(returns, returns, 1),
        "acf_abs_1": _autocorrelation(size, size, 1),
        "acf_abs_1d": _autocorrelation(size, size, day),
        "acf_abs_5d": _autocorrelation(size, size, 5 * day),
        "acf_abs_20d": _autocorrelation(size, size, 20 * day),
        "leverage": _leverage(returns),
        "opening_activity": _opening_activity(size, local.iloc[1:]),
    }


def check_stylised_facts(frame: pd.DataFrame, indices: Sequence[str] = ()) -> list[StylisedFailure]:
    """Facts that bars do not show, symbol by symbol, then pair by pair.

    Args:
        frame: long frame (symbol, timestamp, close) of intraday bars, sorted by symbol and time.
        indices: symbols that follow indices: their returns over common bars must go together, two by two.

    Raises:
        DataError: a symbol has fewer than `MIN_BARS` bars, or `stylised_facts` refuses it, or an index is not there.
    """
    closes = {str(symbol): bars for symbol, bars in frame.groupby("symbol", sort=True)}
    if absent := sorted(set(indices) - set(closes)):
        raise DataError(f"found no bars of {', '.join(absent)}; expected those of every index; the frame holds {', '.join(closes)}")
    failures = []
    for symbol, bars in closes.items():
        if len(bars) < MIN_BARS:
            raise DataError(f"found {len(bars)} bars of {symbol}; expected at least {MIN_BARS}: fewer show only chance")
        failures += [_judge((symbol,), fact, value) for fact, value in stylised_facts(bars).items()]
    for pair in combinations(indices, 2):
        common = pd.concat([closes[name].set_index("timestamp")["close"] for name in pair], axis=1, join="inner")
        returns = np.diff(np.log(common.to_numpy()), axis=0)
        failures.append(_judge(pair, "index_correlation", float(np.corrcoef(returns.T)[0, 1])))
    return [failure for failure in failures if failure is not None]


def missing_facts(bars: Bars) -> list[str]:
    """What simulated bars do not show, a sentence each; nothing of daily bars, nor where a symbol has fewer than `MIN_BARS`."""
    if bars.timeframe >= pd.Timedelta(days=1) or bars.tradable.sum(axis=0).min() < MIN_BARS:
        return []
    column, row = np.nonzero(bars.tradable.T)
    stamps = pd.DatetimeIndex(bars.timestamps[row]).tz_localize("UTC")
    frame = pd.DataFrame({"symbol": np.array(bars.symbols)[column], "timestamp": stamps, "close": bars.close[row, column]})
    return [failure.sentence for failure in check_stylised_facts(frame)]


def _judge(symbols: tuple[str, ...], fact: str, value: float) -> StylisedFailure | None:
    low, high = band = BANDS.get(fact, (-np.inf, np.inf))
    return None if low <= value <= high else StylisedFailure(symbols, fact, value, band)


def _autocorrelation(first: FloatArray, second: FloatArray, lag: int) -> float:
    return float(np.corrcoef(first[:-lag], second[lag:])[0, 1])


def _hill(losses: FloatArray) -> float:
    """Hill's estimate of the upper tail's exponent; nan where the tail does not reach beyond zero."""
    n_tail = int(TAIL * len(losses))
    ordered = np.sort(losses)[::-1]
    if ordered[n_tail] <= 0:
        return float("nan")
    return float(1 / np.mean(np.log(ordered[:n_tail] / ordered[n_tail])))


def _leverage(returns: FloatArray) -> float:
    clipped = np.clip(returns, *np.quantile(returns, [0.001, 0.999]))
    return float(np.mean([_autocorrelation(clipped, clipped**2, lag) for lag in range(1, LEVERAGE_LAGS + 1)]))


def _opening_activity(size: FloatArray, local: pd.Series) -> float:
    """`local` are the New York starts of the bars; nan where no bar starts at or before the open."""
    by_start = pd.Series(size).groupby((local.dt.hour * 60 + local.dt.minute).to_numpy()).mean()
    before_open = by_start[by_start.index <= OPEN]
    return float(before_open.iloc[-1] / by_start.median()) if len(before_open) else float("nan")
