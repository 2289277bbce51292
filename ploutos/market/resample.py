"""Longer bars made of shorter ones, within sessions."""

import numpy as np
import pandas as pd

from ploutos.market import calendar as calendars
from ploutos.market.calendar import DAY, Sessions, period_starts
from ploutos.types import BoolArray, TimeArray

ROUND_THE_CLOCK = "24/7"
AGGREGATION = {"available_at": "max", "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
_TOLERANCE = 0.1
"""Share of a session that may be missing at either end of a bar made of smaller ones."""


def stamps_of(rows: pd.DataFrame, column: str = "timestamp") -> TimeArray:
    """A column of times, shape (n_rows,), datetime64[us] UTC."""
    values = rows[column]
    return (values.dt.tz_localize(None) if values.dt.tz is not None else values).to_numpy().astype("datetime64[us]")


def resample(frame: pd.DataFrame, native: pd.Timedelta, wanted: pd.Timedelta, calendar: str) -> pd.DataFrame:
    """Longer bars of one symbol: open first, high max, low min, close last, volume summed; never across sessions.

    Intraday bars start with the session. A day holds regular hours alone. A bar that lacks its beginning or its end by more than a tenth
    is left out; so is a week or month that the data begin or end within.

    Args:
        frame: one symbol under our labels, from this module.
        native, wanted: lengths of the bars that are there and of those to make.
    """
    stamps = stamps_of(frame)
    if calendar == ROUND_THE_CLOCK:
        return _resampled_round_the_clock(frame, stamps, native, wanted)
    sessions = calendars.sessions_around(stamps.min(), stamps.max(), calendar)
    if native < DAY:
        at = sessions.starting(stamps)
        first = _first_starts(stamps, native, sessions)
        inside = (stamps >= first[at]) if wanted >= DAY else np.ones(len(stamps), dtype=bool)
        frame, stamps, at = frame[inside], stamps[inside], at[inside]
        if wanted < DAY:
            step = wanted.to_timedelta64().astype("timedelta64[us]")
            labels = first[at] + (stamps - first[at]) // step * step
            closed = np.maximum(sessions.closes[at], stamps_of(frame, "available_at"))
            ends = np.where(labels >= first[at], np.minimum(labels + step, closed), labels + step)
            return _aggregated(frame, labels, labels, ends, native, edges_only=True)
        frame = _aggregated(frame, sessions.dates[at].astype("datetime64[us]"), first[at], sessions.closes[at], native)
        stamps = stamps_of(frame)
    if wanted == DAY:
        return frame
    starts = period_starts(stamps, wanted)
    after = period_starts(stamps, wanted, ahead=1)
    first_at, last_at = np.searchsorted(sessions.dates, starts), np.searchsorted(sessions.dates, after) - 1
    labels, closes = sessions.dates[first_at].astype("datetime64[us]"), sessions.closes[last_at]
    return _aggregated(frame, labels, labels, closes, DAY, edges_only=True)


def _resampled_round_the_clock(frame: pd.DataFrame, stamps: TimeArray, native: pd.Timedelta, wanted: pd.Timedelta) -> pd.DataFrame:
    if wanted > DAY:
        labels = period_starts(stamps, wanted).astype("datetime64[us]")
        ends = period_starts(stamps, wanted, ahead=1).astype("datetime64[us]")
    else:
        step = wanted.to_timedelta64().astype("timedelta64[us]")
        labels = (stamps.astype("int64") // step.astype("int64") * step.astype("int64")).astype("datetime64[us]")
        ends = labels + step
    return _aggregated(frame, labels, labels, ends, native, edges_only=wanted > DAY or native >= DAY)


def _first_starts(stamps: TimeArray, native: pd.Timedelta, sessions: Sessions) -> TimeArray:
    """Start of each session's first bar on the grid that the bars have: clock-hour bars of a session from 09:30 begin at 09:00."""
    step = native.to_timedelta64().astype("timedelta64[us]").astype("int64")
    values, counts = np.unique(stamps.astype("int64") % step, return_counts=True)
    behind = (sessions.opens.astype("int64") - values[counts.argmax()]) % step
    return sessions.opens - behind.astype("timedelta64[us]")


def _aggregated(
    frame: pd.DataFrame, labels: TimeArray, begins: TimeArray, ends: TimeArray, native: pd.Timedelta, edges_only: bool = False
) -> pd.DataFrame:
    """Bars of equal labels as one, less the incomplete ones; `edges_only` looks at the first and last of the table alone."""
    known = pd.DatetimeIndex(np.maximum(ends, stamps_of(frame, "available_at"))).tz_localize("UTC")
    parts = frame.assign(timestamp=pd.DatetimeIndex(labels).tz_localize("UTC"), available_at=known)
    parts["_first"], parts["_last"], parts["_begin"], parts["_end"] = stamps_of(frame), stamps_of(frame, "available_at"), begins, ends
    checks = {"_first": "min", "_last": "max", "_begin": "first", "_end": "max"}
    whole = parts.groupby(["symbol", "timestamp"], as_index=False, sort=True).agg(AGGREGATION | checks)
    least = native.to_numpy() if native < DAY and not edges_only else np.timedelta64(0, "us")
    slack = np.maximum(((whole["_end"] - whole["_begin"]) * _TOLERANCE).to_numpy(), least)
    late, early = (whole["_first"] - whole["_begin"]).to_numpy(), (whole["_end"] - whole["_last"]).to_numpy()
    missing: BoolArray = (late > slack) | (early > slack)
    if edges_only:
        missing[1:-1] = False
    return whole.loc[~missing, ["symbol", "timestamp", "available_at", "open", "high", "low", "close", "volume"]].reset_index(drop=True)
