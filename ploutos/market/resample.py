"""Longer bars made of shorter ones, within sessions."""

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.market import calendar as calendars
from ploutos.market.calendar import DAY, MONTH, WEEK, period_starts
from ploutos.types import BoolArray, IntArray, TimeArray

ROUND_THE_CLOCK = "24/7"
AGGREGATION = {"available_at": "max", "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
_TOLERANCE = 0.1
"""Share of its span that a bar made of smaller ones may lack at either end."""


def stamps_of(rows: pd.DataFrame, column: str = "timestamp") -> TimeArray:
    """A column of times, shape (n_rows,), datetime64[us] UTC."""
    values = rows[column]
    return (values.dt.tz_localize(None) if values.dt.tz is not None else values).to_numpy().astype("datetime64[us]")


def resample(frame: pd.DataFrame, native: pd.Timedelta, wanted: pd.Timedelta, calendar: str) -> pd.DataFrame:
    """Longer bars of symbols: open first, high max, low min, close last, volume summed; never across sessions.

    Intraday bars start with the session; those round the clock on whole multiples of their length, or on the phase of the bars they are
    made of. A day, week or month holds regular hours alone. A bar that lacks its beginning or its end by more than a tenth in all symbols
    is left out; so is a bar that the data end within, and a week or month that they begin within.

    Args:
        frame: bars of one length under our labels, with `available_at`.
        native, wanted: lengths of the bars that are there and of those to make.

    Returns:
        A symbol that has no complete bar is not in it. `attrs["left_out"]` holds how many incomplete ones there were, by symbol.

    Raises:
        DataError: bars lie across the longer ones.
    """
    stamps = stamps_of(frame)
    if (native, wanted) == (WEEK, MONTH):
        raise DataError(f"{frame['symbol'].iloc[0]} has weekly bars, which lie across months; leave data.timeframe out, or set it to 1W")
    if calendar == ROUND_THE_CLOCK:
        return _resampled_round_the_clock(frame, stamps, native, wanted)
    sessions = calendars.sessions_around(stamps.min(), stamps.max(), calendar)
    opens, behind = sessions.dates.astype("datetime64[us]"), np.zeros(len(stamps), dtype="timedelta64[us]")
    if native < DAY:
        at, opens = sessions.starting(stamps), sessions.opens
        # the first bar lies on the grid that the bars have: clock-hour bars of a session from 09:30 begin at 09:00
        phases = opens[at].astype("int64") - _phases(frame, stamps, native)
        behind = (phases % (native // pd.Timedelta(microseconds=1))).astype("timedelta64[us]")
        first = opens[at] - behind
        if wanted < DAY:
            step = wanted.to_timedelta64().astype("timedelta64[us]")
            labels = first + (stamps - first) // step * step
            closed = np.maximum(sessions.closes[at], stamps_of(frame, "available_at"))
            ends = np.where(labels >= first, np.minimum(labels + step, closed), labels + step)
            return _aggregated(frame, labels, labels, ends, native, edges_only=True)
        inside = stamps >= first
        frame, at, behind = frame[inside], at[inside], behind[inside]
        stamps = sessions.dates[at].astype("datetime64[us]")
        if wanted == DAY:
            return _aggregated(frame, stamps, first[inside], sessions.closes[at], native)
    starts = period_starts(stamps, wanted)
    after = period_starts(stamps, wanted, ahead=1)
    first_at, last_at = np.searchsorted(sessions.dates, starts), np.searchsorted(sessions.dates, after) - 1
    labels = sessions.dates[first_at].astype("datetime64[us]")
    return _aggregated(frame, labels, opens[first_at] - behind, sessions.closes[last_at], native, edges_only=True)


def _resampled_round_the_clock(frame: pd.DataFrame, stamps: TimeArray, native: pd.Timedelta, wanted: pd.Timedelta) -> pd.DataFrame:
    if wanted > DAY:
        labels = period_starts(stamps, wanted).astype("datetime64[us]")
        ends = period_starts(stamps, wanted, ahead=1).astype("datetime64[us]")
    else:
        step, phase = wanted.to_timedelta64().astype("timedelta64[us]"), _phases(frame, stamps, native)
        labels = ((stamps.astype("int64") - phase) // step.astype("int64") * step.astype("int64") + phase).astype("datetime64[us]")
        ends = labels + step
    if len(across := np.flatnonzero(stamps_of(frame, "available_at") > ends)):
        period = {WEEK: "week", MONTH: "month"}.get(wanted, "longer bar")
        symbol, begun = frame["symbol"].iloc[across[0]], f"{frame['timestamp'].iloc[across[0]]:%Y-%m-%d %H:%MZ}"
        raise DataError(
            f"{symbol}'s bar of {begun} begins in one {period} and ends in the next; expected bars that lie within one; leave "
            "data.timeframe out, or give bars that begin at midnight UTC"
        )
    return _aggregated(frame, labels, labels, ends, native, edges_only=wanted > DAY or native >= DAY)


def _phases(frame: pd.DataFrame, stamps: TimeArray, native: pd.Timedelta) -> IntArray:
    """Microseconds after a whole multiple of their length at which most bars of each row's symbol start, shape (n_rows,)."""
    phases = pd.Series(stamps.astype("int64") % (native // pd.Timedelta(microseconds=1)))
    symbols = frame["symbol"].to_numpy()
    usual = phases.groupby(symbols).agg(lambda own: own.mode().iloc[0])
    return usual.loc[symbols].to_numpy(dtype="int64")


def _aggregated(
    frame: pd.DataFrame, labels: TimeArray, begins: TimeArray, ends: TimeArray, native: pd.Timedelta, edges_only: bool = False
) -> pd.DataFrame:
    """Bars of equal labels as one, less the incomplete ones; `edges_only` looks at the first and last of the table alone."""
    known = pd.DatetimeIndex(np.maximum(ends, stamps_of(frame, "available_at"))).tz_localize("UTC")
    parts = frame.assign(timestamp=pd.DatetimeIndex(labels).tz_localize("UTC"), available_at=known)
    parts["_first"], parts["_last"], parts["_begin"], parts["_end"] = stamps_of(frame), stamps_of(frame, "available_at"), begins, ends
    checks = {"_first": "min", "_last": "max", "_begin": "min", "_end": "max"}
    gone = parts["timestamp"].isin(_incomplete(parts.groupby("timestamp").agg(checks), native, edges_only))
    whole = parts[~gone].groupby(["symbol", "timestamp"], as_index=False, sort=True).agg(AGGREGATION)
    whole.attrs["left_out"] = parts[gone].groupby("symbol")["timestamp"].nunique().to_dict()
    return whole


def _incomplete(whole: pd.DataFrame, native: pd.Timedelta, edges_only: bool) -> pd.DatetimeIndex:
    """Labels of the bars that no symbol has whole: one that trades rarely is as complete as the others are.

    A bar may lack a tenth of its span at either end, or one of the bars it is made of; but the last one nothing at its end, where the
    data break off.
    """
    late, early = whole["_first"] - whole["_begin"], whole["_end"] - whole["_last"]
    least = native.to_timedelta64() if native < DAY and not edges_only else np.timedelta64(0, "us")
    slack = np.maximum(((whole["_end"] - whole["_begin"]) * _TOLERANCE).to_numpy(), least)
    missing: BoolArray = (late.to_numpy() > slack) | (early.to_numpy() > slack)
    if edges_only:
        missing[1:-1] = False
    if len(missing):
        missing[-1] |= early.iloc[-1] > pd.Timedelta(0)
    return pd.DatetimeIndex(whole.index[missing])
