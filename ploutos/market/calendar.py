"""Exchange calendars: when a session opens and closes, when a bar is known, which session it belongs to, which bars to expect.

A thin layer over pandas-market-calendars. Nothing here guesses from the data. `FX` is the week of the currency market, from
Sunday 17:00 to Friday 17:00 in New York, cut there into five sessions; what trades on a Sunday evening is Monday's.
"""

from dataclasses import dataclass
from datetime import date, time, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ploutos.errors import ConfigError
from ploutos.faults import suggestion
from ploutos.types import IntArray, TimeArray

DAYS_PER_YEAR = 365.2425
_MARGIN = timedelta(days=40)
DAY = pd.Timedelta(days=1)
WEEK = pd.Timedelta(days=7)
MONTH = pd.Timedelta(days=30)
"""Nominal length of a bar of one calendar month."""

# What pandas-market-calendars 5.5 has wrong. National days of mourning: CME Group announced closes at 08:30. Good Friday:
# futures on shares trade until 08:15 only in years in which it is the day of the employment report (2021, 2023, 2026).
EARLY_CLOSES = {"CME Globex Equity": {date(2018, 12, 5): time(8, 30), date(2025, 1, 9): time(8, 30)}}
CLOSED = {"CME Globex Equity": (date(2024, 3, 29), date(2025, 4, 18))}


def _exchanges() -> Any:
    """pandas-market-calendars, which takes longer to import than settings take to be read."""
    import pandas_market_calendars

    return pandas_market_calendars


def _require_known(calendar: str) -> None:
    names = _exchanges().get_calendar_names()
    if calendar not in names:
        near = suggestion(calendar, names)
        raise ConfigError(f"calendar {calendar!r} is unknown; use one such as NYSE, FX, 24/7 or CME Globex Equity{near}")


@lru_cache(maxsize=64)
def _schedule(calendar: str, first: date, last: date) -> pd.DataFrame:
    """Sessions of a calendar, indexed by session date, with open and close in UTC."""
    _require_known(calendar)
    exchange = _exchanges().get_calendar(calendar)
    schedule = exchange.schedule(start_date=first, end_date=last, tz="UTC")
    if calendar == "FX":  # pandas-market-calendars 5.5 gives it a session on Sunday that opens on Saturday
        schedule = schedule[schedule.index.day_of_week < 5]
    for day, close in EARLY_CLOSES.get(calendar, {}).items():
        if pd.Timestamp(day) in schedule.index:
            local = pd.Timestamp.combine(day, close).tz_localize(exchange.tz)
            schedule.loc[pd.Timestamp(day), "market_close"] = local.tz_convert("UTC")
    return schedule[~schedule.index.isin(pd.DatetimeIndex(CLOSED.get(calendar, ())))]


def _schedule_around(timestamps: TimeArray, calendar: str) -> pd.DataFrame:
    first, last = _whole_years(timestamps[0], timestamps[-1])
    return _schedule(calendar, first, last)


def _whole_years(first: np.datetime64, last: np.datetime64) -> tuple[date, date]:
    """The span of a schedule that holds two times with some weeks to spare: whole years, since each new span takes long to make."""
    days = first.astype("datetime64[D]").item() - _MARGIN, last.astype("datetime64[D]").item() + _MARGIN
    return days[0].replace(month=1, day=1), days[1].replace(month=12, day=31)


def zone_of(calendar: str) -> str:
    """Time zone of an exchange, an IANA name.

    Raises:
        ConfigError: the calendar is unknown.
    """
    _require_known(calendar)
    return str(_exchanges().get_calendar(calendar).tz)


@dataclass(frozen=True)
class Sessions:
    """The sessions of a calendar over a span, each array increasing.

    Attributes:
        dates: shape (n_sessions,), datetime64[D].
        opens, closes: shape (n_sessions,), datetime64[us] UTC.
    """

    dates: TimeArray
    opens: TimeArray
    closes: TimeArray

    @property
    def open_before_date(self) -> bool:
        """Whether a session opens the evening before its date, UTC or not: those of the CME and of currencies do."""
        return len(self.dates) > 1 and bool(np.median((self.closes - self.opens).astype("int64")) > 12 * 3_600_000_000)

    def starting(self, stamps: TimeArray) -> IntArray:
        """Positions of the sessions that bars belong to which start at `stamps`: the first that closes later."""
        return np.searchsorted(self.closes, stamps, side="right")

    def ending(self, stamps: TimeArray) -> IntArray:
        """Positions of the sessions that bars belong to which end at `stamps`: the last that opened earlier; -1 before all."""
        return np.searchsorted(self.opens, stamps, side="left") - 1


def extended_hours(calendar: str, sessions: Sessions) -> tuple[TimeArray, TimeArray] | None:
    """Start of the pre-market and end of the post-market of each session, datetime64[us] UTC; None where there are none."""
    return _extended_hours(calendar, sessions.dates[0].item(), sessions.dates[-1].item())


@lru_cache(maxsize=64)
def _extended_hours(calendar: str, first: date, last: date) -> tuple[TimeArray, TimeArray] | None:
    exchange = _exchanges().get_calendar(calendar)
    if "pre" not in exchange.regular_market_times:
        return None
    days = exchange.schedule(start_date=first, end_date=last, tz="UTC", start="pre", end="post")
    return _utc(days["pre"]), _utc(days["post"])


def sessions_around(first: np.datetime64, last: np.datetime64, calendar: str) -> Sessions:
    """The sessions of a span, with some weeks to spare on either side.

    Args:
        first, last: datetime64[us] UTC.
    """
    return _sessions(calendar, *_whole_years(first, last))


@lru_cache(maxsize=64)
def _sessions(calendar: str, first: date, last: date) -> Sessions:
    schedule = _schedule(calendar, first, last)
    return Sessions(schedule.index.to_numpy().astype("datetime64[D]"), _utc(schedule["market_open"]), _utc(schedule["market_close"]))


def available_at(timestamps: TimeArray, timeframe: pd.Timedelta, calendar: str) -> TimeArray:
    """When each bar is known.

    An intraday bar is known at its end. A daily bar is labelled by its session's date and known at the session's
    close; a daily label that is not a session of the calendar is known at the end of that day, UTC. A bar of a week or a month is
    known when the last session that starts within it closes.

    Args:
        timestamps: shape (n_bars,), datetime64[us] UTC, bar starts, increasing.
        timeframe: length of a bar.
        calendar: a pandas-market-calendars name.

    Returns:
        Shape (n_bars,), datetime64[us] UTC.
    """
    if timeframe > DAY:
        found = sessions_around(timestamps[0], timestamps[-1], calendar)
        return found.closes[np.searchsorted(found.dates, period_starts(timestamps, timeframe, ahead=1)) - 1]
    if timeframe < DAY:
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
    if timeframe >= DAY:
        return timestamps.astype("datetime64[D]")
    schedule = _schedule_around(timestamps, calendar)
    zone = _exchanges().get_calendar(calendar).tz
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


def session_close(session: str, calendar: str) -> np.datetime64:
    """When a session closes, datetime64[us] UTC.

    Raises:
        ConfigError: the exchange is closed on that day; the sessions around it are named.
    """
    day = np.datetime64(session, "D")
    sessions = sessions_around(day.astype("datetime64[us]"), day.astype("datetime64[us]"), calendar)
    at = int(np.searchsorted(sessions.dates, day))
    if sessions.dates[at] != day:
        raise ConfigError(f"{calendar} has no session on {day}; the ones around it are {sessions.dates[at - 1]} and {sessions.dates[at]}")
    return np.datetime64(sessions.closes[at])


def sessions_between(after: str, until: str, calendar: str) -> tuple[str, ...]:
    """Dates of the sessions after one day up to another."""
    first, last = np.datetime64(after, "D"), np.datetime64(until, "D")
    dates = sessions_around(first.astype("datetime64[us]"), last.astype("datetime64[us]"), calendar).dates
    return tuple(str(day) for day in dates[(dates > first) & (dates <= last)])


def last_closed(now: np.datetime64, calendar: str) -> str:
    """Date of the last session that has closed by a moment, datetime64[us] UTC."""
    sessions = sessions_around(now, now, calendar)
    return str(sessions.dates[int(np.searchsorted(sessions.closes, now, side="right")) - 1])


def period_starts(timestamps: TimeArray, timeframe: pd.Timedelta, ahead: int = 0) -> TimeArray:
    """First day of the calendar week (from Monday) or month that each label lies in, datetime64[D], or of one so many periods later.

    >>> stamps = np.array(["2024-01-31"], dtype="datetime64[us]")
    >>> str(period_starts(stamps, WEEK)[0]), str(period_starts(stamps, MONTH, ahead=1)[0])
    ('2024-01-29', '2024-02-01')
    """
    if timeframe >= MONTH:
        return (timestamps.astype("datetime64[M]") + ahead).astype("datetime64[D]")
    days = timestamps.astype("datetime64[D]").astype("int64")
    return (days - (days + 3) % 7 + 7 * ahead).astype("datetime64[D]")  # 1970-01-01 was a Thursday


def expected_bars(calendar: str, timeframe: pd.Timedelta, first: date, last: date, minute: int = 0) -> TimeArray:
    """Starts of the bars that an exchange's regular sessions should give.

    Intraday bars start on a grid that begins at `minute` past midnight in the exchange's zone and goes on in steps of
    `timeframe`, summer and winter. A session has every bar of the grid that holds some of it: clock-hour bars of the NYSE
    (09:30 to 16:00) start from 09:00 to 15:00, and those at `minute=30` from 09:30 to 15:30. A bar that lies
    wholly in a pause for lunch is not expected. Daily bars are labelled by their session's date.

    Args:
        calendar: a pandas-market-calendars name.
        timeframe: length of a bar, one day at most.
        first, last: session dates, both included.
        minute: minute of the hour at which hourly bars start, 0 to 59; daily bars do not read it.

    Returns:
        Shape (n_bars,), datetime64[us] UTC, strictly increasing; empty when there is no session.

    Raises:
        ConfigError: the calendar is unknown, the timeframe is not within a day, or `minute` is not a minute.

    >>> friday = date(2024, 11, 29)  # the day after Thanksgiving closes at 13:00 in New York, which is 18:00 UTC
    >>> print(expected_bars("NYSE", pd.Timedelta(hours=1), friday, friday, minute=30))
    ['2024-11-29T14:30:00.000000' '2024-11-29T15:30:00.000000'
     '2024-11-29T16:30:00.000000' '2024-11-29T17:30:00.000000']
    """
    if not pd.Timedelta(0) < timeframe <= DAY:
        raise ConfigError(f"timeframe is {timeframe}; expected more than 0 and at most one day")
    if not 0 <= minute < 60:
        raise ConfigError(f"minute is {minute}; expected a minute of the hour, 0 to 59")
    schedule = _schedule(calendar, first, last)
    if timeframe == DAY or schedule.empty:
        return schedule.index.to_numpy().astype("datetime64[us]")
    opens = schedule["market_open"].dt.as_unit("us")
    local = opens.dt.tz_convert(_exchanges().get_calendar(calendar).tz).dt.tz_localize(None)
    starts = _utc(opens - (local - local.dt.normalize() - pd.Timedelta(minutes=minute)) % timeframe)
    step = timeframe.to_timedelta64().astype("timedelta64[us]")
    counts = -((starts - _utc(schedule["market_close"])) // step)
    of_session = np.repeat(np.arange(len(counts)), counts)
    nth = np.arange(len(of_session)) - np.repeat(np.cumsum(counts) - counts, counts)
    bars = starts[of_session] + nth * step
    if "break_start" in schedule:
        pause, resume = (_utc(schedule[name])[of_session] for name in ("break_start", "break_end"))
        bars = bars[~((bars >= pause) & (bars + step <= resume))]
    return np.unique(bars)  # long bars may reach over a close into the next session


def _utc(column: pd.Series) -> TimeArray:
    return column.dt.tz_convert(None).to_numpy().astype("datetime64[us]")
