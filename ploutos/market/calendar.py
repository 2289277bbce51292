"""Exchange calendars: when a bar is known, which session it belongs to, how many sessions make a year.

A thin layer over pandas-market-calendars. Nothing here guesses from the data: a year has as many sessions as the
exchange held.
"""

from datetime import date
from functools import lru_cache

import numpy as np
import pandas as pd
import pandas_market_calendars as mcal

from ploutos.errors import ConfigError
from ploutos.types import TimeArray

DAYS_PER_YEAR = 365.2425


@lru_cache(maxsize=64)
def _schedule(calendar: str, first: date, last: date) -> pd.DataFrame:
    """Sessions of a calendar, indexed by session date, with open and close in UTC."""
    if calendar not in mcal.get_calendar_names():
        raise ConfigError(f"calendar {calendar!r} is unknown; use one such as NYSE, 24/7 or CME Globex Equity")
    return mcal.get_calendar(calendar).schedule(start_date=first, end_date=last, tz="UTC")


def _schedule_around(timestamps: TimeArray, calendar: str) -> pd.DataFrame:
    first = pd.Timestamp(timestamps[0]).date() - pd.Timedelta(days=7).to_pytimedelta()
    last = pd.Timestamp(timestamps[-1]).date() + pd.Timedelta(days=7).to_pytimedelta()
    return _schedule(calendar, first, last)


def available_at(timestamps: TimeArray, timeframe: pd.Timedelta, calendar: str) -> TimeArray:
    """When each bar is known.

    An intraday bar is known at its end. A daily bar is labelled by its session's date and known at the session's
    close; a daily label that is no session of the calendar is known at the end of that day, UTC.

    Args:
        timestamps: shape (n_bars,), datetime64[us] UTC, bar starts, increasing.
        timeframe: length of a bar.
        calendar: a pandas-market-calendars name.

    Returns:
        Shape (n_bars,), datetime64[us] UTC.
    """
    if timeframe < pd.Timedelta(days=1):
        return timestamps + timeframe.to_timedelta64().astype("timedelta64[us]")
    closes = _schedule_around(timestamps, calendar)["market_close"].dt.tz_convert(None)
    known = closes.reindex(pd.DatetimeIndex(timestamps))
    fallback = timestamps.astype("datetime64[D]") + np.timedelta64(1, "D")
    values = known.to_numpy().astype("datetime64[us]")
    return np.where(np.isnat(values), fallback.astype("datetime64[us]"), values)


def sessions(timestamps: TimeArray, timeframe: pd.Timedelta, calendar: str) -> TimeArray:
    """Session date of each bar.

    A session that opens the evening before (CME) carries the date of its close. A bar before the first open of its
    day (extended hours) belongs to the session that closes next.

    Returns:
        Shape (n_bars,), datetime64[D].
    """
    if timeframe >= pd.Timedelta(days=1):
        return timestamps.astype("datetime64[D]")
    schedule = _schedule_around(timestamps, calendar)
    zone = mcal.get_calendar(calendar).tz
    local = pd.DatetimeIndex(timestamps).tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy()
    dates = local.astype("datetime64[D]")
    opens = schedule["market_open"].dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
    if not (opens < schedule.index).any():  # no session opens the evening before
        return dates
    closes = schedule["market_close"].dt.tz_convert(None).to_numpy().astype("datetime64[us]")
    position = np.searchsorted(closes, timestamps, side="right")
    return schedule.index.to_numpy().astype("datetime64[D]")[position]


def session_closes(timestamps: TimeArray, timeframe: pd.Timedelta, calendar: str) -> TimeArray:
    """When the session of each bar closes, by the calendar and so known beforehand; NaT for a bar of no session.

    Returns:
        Shape (n_bars,), datetime64[us] UTC.
    """
    closes = _schedule_around(timestamps, calendar)["market_close"].dt.tz_convert(None)
    days = pd.DatetimeIndex(sessions(timestamps, timeframe, calendar).astype("datetime64[ns]"))
    return np.asarray(closes.reindex(days).to_numpy().astype("datetime64[us]"))


def sessions_per_year(timestamps: TimeArray, calendar: str) -> float:
    """Sessions that the exchange held per year over the span of the bars.

    >>> stamps = np.array(["2003-01-02", "2012-12-31"], dtype="datetime64[us]")
    >>> round(sessions_per_year(stamps, "NYSE"), 1)
    251.7
    """
    first, last = pd.Timestamp(timestamps[0]).date(), pd.Timestamp(timestamps[-1]).date()
    years = max((last - first).days + 1, 1) / DAYS_PER_YEAR
    return float(len(_schedule(calendar, first, last)) / years)
