"""Rolls of continuous futures: whether a series jumps where one contract gives way to the next, and how to take the jumps out.

A holder of futures sells the old contract and buys the new one at the same moment and earns nothing by the difference
of their prices. In a series that merely strings contracts together the difference stands as a return from one
session's last close to the next one's first open.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from math import comb, erfc, factorial, sqrt

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from ploutos.errors import ConfigError, DataError
from ploutos.market import calendar as calendars
from ploutos.market.bars import infer_timeframe
from ploutos.market.instruments import InstrumentSpec
from ploutos.types import FloatArray, IntArray, TimeArray

PRICES = ("open", "high", "low", "close")
MONTH_CODES = "FGHJKMNQUVXZ"
"""The exchanges' letters for January to December."""
SIGNIFICANCE = 1e-4
"""Rolls are found below this probability that chance makes one rule look so good, all rules tried taken together."""
CONSISTENCY = 2.5
"""Sigmas by which the signs of the jumps must agree, whatever their size: news on fixed days is large and has no sign."""
OUT_OF_LINE = 0.9
"""A jump is out of line when it is larger than this share of the gaps around it."""
_WIDTHS = (1, 6, 11)
"""Sessions among which a roll is looked for, from the day that a rule says to anywhere within two weeks."""
_OFFSETS = (range(-16, 3), range(-7, 4), range(-5, 1))
"""Sessions at which vendors roll, counted from the last one up to a contract's third Friday, the first day of its month, and
the 25th of the month before."""
_FEW = 20
"""Rolls up to which the sum of their ranks has no normal distribution yet, and regimes cannot be told."""


@dataclass(frozen=True)
class RollCheck:
    """What a series shows at its expected rolls.

    Attributes:
        p_value: probability that a series without roll gaps looks like this at any of the rules tried.
        dates: sessions that open with a new contract, increasing; empty where nothing was found.
        gaps: of each date the first open over the close before, log units.
        n_jumps: how many of them are out of line with the gaps around them.
    """

    p_value: float
    dates: tuple[date, ...] = ()
    gaps: tuple[float, ...] = ()
    n_jumps: int = 0

    @property
    def mean_gap(self) -> float:
        """Average jump, a share of the price; 0 where nothing was found."""
        return float(np.expm1(np.mean(self.gaps))) if self.gaps else 0.0


def find_rolls(bars: pd.DataFrame, instrument: InstrumentSpec, calendar: str, timeframe: pd.Timedelta | None = None) -> RollCheck:
    """Whether a continuous future jumps at its rolls.

    The gap before each session gets its rank by size among up to 100 gaps around it, with its sign; gaps over a weekend are
    compared with each other. Under chance the ranks at any rule of rolling (so many sessions from the third Friday, say) are
    uniform from -1 to 1, whatever the tails of the returns: their sum tells a series that jumps one way, the products of
    neighbours one that jumps one way for some rolls and then the other. The best rule's probability is multiplied by the
    number of rules.

    Args:
        bars: of one symbol, `timestamp` datetime64[us, UTC] increasing, open and close.
        instrument: tells the months in which contracts end; without them nothing is found.
        calendar: a calendar's name, which tells the sessions of bars within a day.
        timeframe: length of a bar; the most frequent step where it is left out. Bars longer than a day show no roll.

    Raises:
        ConfigError: a letter of the cycle stands for no month.
    """
    cycle = instrument.roll_cycle
    if unknown := set(cycle) - set(MONTH_CODES):
        raise ConfigError(f"roll_cycle of {instrument.symbol} is {cycle!r}; {min(unknown)} is not one of the month letters {MONTH_CODES}")
    if not cycle or len(bars) < 2:
        return RollCheck(1.0)
    timeframe = timeframe or infer_timeframe(bars["timestamp"])
    if timeframe > calendars.DAY:
        return RollCheck(1.0)
    days, gaps = _gaps(bars, timeframe, calendar)
    ranks = _ranks(days, gaps)
    best, n_tried, rolls = 1.0, 0, np.empty(0, dtype="int64")
    for width in _WIDTHS:
        steepest = np.arange(len(days)) + _steepest(gaps - np.median(gaps), width)
        own = ranks if width == 1 else _local_ranks((gaps - np.median(gaps))[steepest], 50)
        for sessions in _candidates(days, cycle):
            for probability in _probabilities(own[sessions]):
                n_tried += 1
                if probability < best:
                    best, rolls = probability, np.unique(steepest[sessions])
    if best * n_tried >= SIGNIFICANCE:
        return RollCheck(min(1.0, best * n_tried))
    n_jumps = int((np.abs(ranks[rolls]) > OUT_OF_LINE).sum())
    return RollCheck(best * n_tried, tuple(days[rolls].tolist()), tuple(gaps[rolls].tolist()), n_jumps)


def _gaps(bars: pd.DataFrame, timeframe: pd.Timedelta, calendar: str) -> tuple[TimeArray, FloatArray]:
    """Sessions of a series (D) and the log gap before each; 0 before the first and where a price is not above 0."""
    days, firsts = np.unique(_sessions(bars, timeframe, calendar), return_index=True)
    opens = bars["open"].to_numpy(dtype="float64")[firsts]
    closes = bars["close"].to_numpy(dtype="float64")[firsts - 1]
    positive = (opens > 0) & (closes > 0) & (firsts > 0)
    return days, np.log(np.divide(opens, closes, out=np.ones_like(opens), where=positive))


def _sessions(bars: pd.DataFrame, timeframe: pd.Timedelta, calendar: str) -> TimeArray:
    return calendars.sessions(bars["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[us]"), timeframe, calendar)


def _ranks(days: TimeArray, gaps: FloatArray) -> FloatArray:
    """Shape (n_sessions,), -1 to 1: gaps over a night and those over a weekend or holiday ranked apart, since the latter are larger."""
    ranks = np.zeros(len(gaps))
    nights = np.diff(days, prepend=days[0]).astype("int64") <= 1
    for chosen, reach in ((nights, 50), (~nights, 13)):
        if chosen.any():
            ranks[chosen] = _local_ranks(gaps[chosen] - np.median(gaps[chosen]), reach)
    return ranks


def _local_ranks(gaps: FloatArray, reach: int) -> FloatArray:
    """Each gap's rank by size among those up to `reach` away, with its sign."""
    sizes = np.abs(gaps)
    around = sliding_window_view(np.pad(sizes, reach, constant_values=np.nan), 2 * reach + 1)
    below, equal = (around < sizes[:, None]).sum(axis=1), (around == sizes[:, None]).sum(axis=1) - 1
    return np.asarray(np.sign(gaps) * (below + equal / 2) / np.maximum(np.isfinite(around).sum(axis=1) - 1, 1))


def _steepest(gaps: FloatArray, width: int) -> IntArray:
    """Of each session and those after it, which has the largest gap, counted from 0."""
    padded = np.pad(np.abs(gaps), (0, width - 1), constant_values=-1.0)
    return sliding_window_view(padded, width).argmax(axis=1)


def _candidates(days: TimeArray, cycle: str) -> Iterator[IntArray]:
    """For every rule of rolling the sessions (positions, the first excluded) that it names, one per contract."""
    months = np.arange(days[0].astype("datetime64[M]") - 1, days[-1].astype("datetime64[M]") + 3)
    months = months[np.isin(months.astype("int64") % 12, [MONTH_CODES.index(letter) for letter in cycle])]
    first = months.astype("datetime64[D]")
    third_friday = np.busday_offset(first, 2, roll="forward", weekmask="Fri")
    for anchors, offsets in zip((third_friday, first, (months - 1).astype("datetime64[D]") + 24), _OFFSETS, strict=True):
        inside = anchors[(anchors >= days[0]) & (anchors <= days[-1])]
        last_up_to = np.searchsorted(days, inside, side="right") - 1
        for offset in offsets:
            sessions = last_up_to + offset
            yield sessions[(sessions > 0) & (sessions < len(days))]


def _probabilities(ranks: FloatArray) -> Iterator[float]:
    """That chance gives the signed ranks at one rule so large a sum, and so large a sum of products of neighbours."""
    n_rolls, total = len(ranks), float(np.abs(ranks.sum()))
    if n_rolls and total >= CONSISTENCY * np.linalg.norm(ranks):
        yield 2 * _uniform_tail(total, n_rolls) if n_rolls <= _FEW else erfc(total / sqrt(n_rolls / 3) / sqrt(2))
    else:
        yield 1.0
    if n_rolls > _FEW:
        products = ranks[1:] * ranks[:-1]
        agree = products.sum() >= CONSISTENCY * np.linalg.norm(products)
        yield erfc(float(products.sum()) / sqrt(len(products) / 9) / sqrt(2)) if agree else 1.0


def _uniform_tail(total: float, n: int) -> float:
    """Probability that n independent uniforms from -1 to 1 sum to `total` or more: the Irwin-Hall distribution.

    >>> round(_uniform_tail(1.0, 2), 6), _uniform_tail(4.0, 4)
    (0.125, 0.0)
    """
    short = (n - total) / 2
    return sum((-1) ** k * comb(n, k) * (short - k) ** n for k in range(int(short) + 1)) / factorial(n)


def back_adjust(bars: pd.DataFrame, rolls: Sequence[date], calendar: str, timeframe: pd.Timedelta | None = None) -> pd.DataFrame:
    """A continuous future without its roll gaps.

    All prices before a roll are multiplied by the roll's first open over the close before it: the gap vanishes, and
    returns inside a contract stay as they were. With it goes what the market itself moved in that one night.

    Args:
        bars: of one symbol, `timestamp` datetime64[us, UTC] increasing, and prices.
        rolls: sessions that open with a new contract, in any order.
        calendar: a calendar's name, which tells the sessions of bars within a day.
        timeframe: length of a bar; the most frequent step where it is left out.

    Raises:
        ConfigError: a date is not a session of the bars, or is their first.
        DataError: a price at a roll is zero or negative, so that there is no ratio.
    """
    if not rolls:
        return bars
    session = _sessions(bars, timeframe or infer_timeframe(bars["timestamp"]), calendar)
    days = np.unique(np.array(rolls, dtype="datetime64[D]"))
    name = bars["symbol"].iloc[0] if "symbol" in bars.columns else "the series"
    if len(unknown := days[~np.isin(days, session[session > session[0]])]):
        raise ConfigError(
            f"data.rolls gives {unknown[0]} for {name}, which is not a session after the first of its bars "
            f"({session[0]} to {session[-1]}; {len(unknown)} such dates); expected sessions that open with a new contract"
        )
    firsts = np.searchsorted(session, days)
    opens, closes = bars["open"].to_numpy(dtype="float64")[firsts], bars["close"].to_numpy(dtype="float64")[firsts - 1]
    if len(unusable := days[~((opens > 0) & (closes > 0))]):
        raise DataError(
            f"{name} has a price of zero or less at its roll of {unusable[0]}; expected positive ones; leave it out of data.rolls"
        )
    ratios = np.ones(len(bars))
    ratios[firsts] = opens / closes
    later = np.append(np.cumprod(ratios[::-1])[::-1][1:], 1.0)
    return bars.assign(**{field: bars[field] * later for field in PRICES})
