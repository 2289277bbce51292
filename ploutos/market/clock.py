"""One clock for a table of bars: how long a bar is, which end its timestamps name, which session it belongs to, when it is known.

Vendors and people label bars by their start, by their end or by a date, in any zone. Here each symbol's bars come to one
convention: an intraday bar is labelled by its start; a daily bar by the date of its session, at 00:00 UTC; a weekly or monthly one by
the first session in it. A market round the clock has no sessions: its daily bars keep the instant they start at.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ploutos.errors import ConfigError, DataError
from ploutos.market import calendar as calendars
from ploutos.market.bars import infer_timeframe
from ploutos.market.calendar import DAY, MONTH, WEEK, Sessions, period_starts
from ploutos.market.resample import AGGREGATION, ROUND_THE_CLOCK, resample, stamps_of
from ploutos.types import TimeArray

Label = Literal["auto", "start", "end"]
_MOSTLY, _HARDLY = 0.5, 0.05
"""Shares of sessions that make a habit, and that do not."""
_FEW = 5
"""Sessions below which nothing is told from habits."""
_SEASON = 20
"""Sessions of summer and of winter time that it takes to compare them."""
_HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True)
class Timed:
    """Bars on their clock.

    Attributes:
        frame: symbol, timestamp (datetime64[us, UTC], our label), available_at (the same type), open, high, low, close, volume; by
            symbol and time.
        timeframe: length of a bar.
        label: what the source's timestamps named: `start`, `end` or `date`.
        notes: what was done, one sentence each.
    """

    frame: pd.DataFrame
    timeframe: pd.Timedelta
    label: str
    notes: tuple[str, ...]


def parse_timeframe(text: str) -> pd.Timedelta:
    """A bar length as people write it: 15min, 1h, 1D, 1W, 1M.

    Raises:
        ConfigError: it is not one.

    >>> parse_timeframe("1W"), parse_timeframe("15min"), parse_timeframe("1mo") == MONTH
    (Timedelta('7 days 00:00:00'), Timedelta('0 days 00:15:00'), True)
    """
    if text in ("1M", "1ME", "1MS", "1mo", "month", "1month", "M"):
        return MONTH
    if text in ("1W", "W", "1wk", "week"):
        return WEEK
    try:
        found = pd.Timedelta(text)
    except ValueError as error:
        raise ConfigError(f"data.timeframe is {text!r}; expected a length such as 15min, 1h, 1D, 1W or 1M (a month)") from error
    if found <= pd.Timedelta(0) or (found > DAY and found != WEEK) or (found < DAY and DAY % found):
        raise ConfigError(f"data.timeframe is {text!r}; expected a part of a day such as 15min or 1h, or 1D, 1W or 1M (a month)")
    return found


def show_timeframe(timeframe: pd.Timedelta) -> str:
    """A bar length for people.

    >>> [show_timeframe(each) for each in (pd.Timedelta(hours=1), pd.Timedelta(minutes=90), DAY, WEEK, MONTH)]
    ['1h', '90min', '1D', '1W', '1M']
    """
    named = {DAY: "1D", WEEK: "1W", MONTH: "1M"}
    if timeframe in named:
        return named[timeframe]
    minutes = timeframe / pd.Timedelta(minutes=1)
    return f"{minutes / 60:g}h" if minutes % 60 == 0 else f"{minutes:g}min"


def put_on_clock(frame: pd.DataFrame, calendar: str, wanted: pd.Timedelta | None, label: Label) -> Timed:
    """Bring every symbol's bars to our labels and, where a longer bar is wanted, make it of what there is.

    Args:
        frame: symbol, timestamp (datetime64[us, UTC]), OHLCV and, where rows are labelled by a day, its `date`; by symbol and time.
        calendar: a pandas-market-calendars name.
        wanted: length of a bar; None keeps what the bars have.

    Raises:
        DataError: symbols have bars of different lengths, bars are longer than wanted, two bars fall on one session, or a zone
            lost its summer time.
    """
    lengths = {str(symbol): infer_timeframe(rows) for symbol, rows in frame.groupby("symbol", sort=False)["timestamp"] if len(rows) > 1}
    if not lengths:
        raise DataError("found one bar of each symbol; expected at least two to tell the bar length")
    native = _common_length(frame, lengths, wanted)
    parts, labels = [], set()
    for _, rows in frame.groupby("symbol", sort=False):
        own = lengths.get(str(rows["symbol"].iloc[0]), native)
        part, named = _labelled(rows, own, calendar, label)
        parts.append(part if wanted is None or own == wanted else resample(part, own, wanted, calendar))
        labels.add(named)
    timeframe = wanted or native
    notes = [] if set(lengths.values()) == {timeframe} or wanted is None else [_resampled_note(lengths, timeframe)]
    if "end" in labels:
        notes.append("The source labels bars by their end; ours are labelled by their start.")
    result = pd.concat(parts, ignore_index=True)
    return Timed(result, timeframe, " and ".join(sorted(labels)), tuple(notes))


def _resampled_note(lengths: dict[str, pd.Timedelta], timeframe: pd.Timedelta) -> str:
    found = ", ".join(show_timeframe(each) for each in sorted(set(lengths.values())))
    return f"Bars of {show_timeframe(timeframe)} were made of bars of {found}, within sessions; incomplete ones were left out."


def _common_length(frame: pd.DataFrame, lengths: dict[str, pd.Timedelta], wanted: pd.Timedelta | None) -> pd.Timedelta:
    """The length that all symbols have, or that all can be brought to."""
    if wanted is not None:
        for symbol, found in lengths.items():
            if found > wanted or (wanted < DAY and wanted % found):
                raise DataError(
                    f"{symbol} has bars of {show_timeframe(found)} and data.timeframe asks for {show_timeframe(wanted)}; expected bars "
                    f"that are as long, or shorter and a whole part of it; set data.timeframe={show_timeframe(max(lengths.values()))}"
                )
        return wanted
    counts = frame["symbol"].value_counts()
    native = lengths[max(lengths, key=lambda symbol: counts[symbol])]
    for symbol, found in lengths.items():
        if found != native and not _is_sparse(frame, symbol, found, native):
            other = next(name for name, length in lengths.items() if length == native)
            coarser = show_timeframe(max(found, native))
            raise DataError(
                f"{other} has bars of {show_timeframe(native)} and {symbol} bars of {show_timeframe(found)}; expected one length for all "
                f"symbols; set data.timeframe={coarser} to bring all to {coarser}"
            )
        lengths[symbol] = native
    return native


def _is_sparse(frame: pd.DataFrame, symbol: str, found: pd.Timedelta, native: pd.Timedelta) -> bool:
    """Whether a symbol merely misses many bars of the length: some of its steps are that short, and none is shorter."""
    if native >= DAY or found < native:
        return False
    steps = frame.loc[frame["symbol"] == symbol, "timestamp"].diff()
    return bool((steps == native).any()) and not bool((steps < native).any())


def _labelled(rows: pd.DataFrame, timeframe: pd.Timedelta, calendar: str, label: Label) -> tuple[pd.DataFrame, str]:
    """One symbol's bars under our labels with the time each is known at, and what the source's labels named."""
    stamps, symbol = stamps_of(rows), str(rows["symbol"].iloc[0])
    if calendar == ROUND_THE_CLOCK:
        shift = timeframe.to_timedelta64() if label == "end" else np.timedelta64(0, "us")
        starts = stamps - shift.astype("timedelta64[us]")
        ends = starts + timeframe.to_timedelta64().astype("timedelta64[us]")
        if timeframe == MONTH:
            starts = period_starts(stamps - np.timedelta64(int(label == "end"), "us"), MONTH).astype("datetime64[us]")
            ends = period_starts(starts, MONTH, ahead=1).astype("datetime64[us]")
        return _with_times(rows, starts, ends), "end" if label == "end" else "start"
    sessions = calendars.sessions_around(stamps.min(), stamps.max(), calendar)
    if timeframe < DAY:
        return _intraday(rows, stamps, timeframe, calendar, sessions, label)
    dates = _dates(rows, stamps, calendar)
    if timeframe > DAY:
        days = np.where(np.isnat(dates), stamps.astype("datetime64[D]"), dates)
        return _periods(rows, days, timeframe, sessions, symbol)
    return _days(rows, stamps, dates, calendar, sessions, label)


def _with_times(rows: pd.DataFrame, starts: TimeArray, known: TimeArray) -> pd.DataFrame:
    columns = {"symbol": rows["symbol"].to_numpy(), "timestamp": pd.DatetimeIndex(starts).tz_localize("UTC")}
    columns["available_at"] = pd.DatetimeIndex(known).tz_localize("UTC")
    columns |= {name: rows[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns)


# --- days


def _dates(rows: pd.DataFrame, stamps: TimeArray, calendar: str) -> TimeArray:
    """The day that each row is labelled by, datetime64[D]: its date where the source gave one, else of midnight in Greenwich or at the
    exchange; NaT for a row that is labelled by a time of day."""
    dates = stamps.astype("datetime64[D]")
    local = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(calendars.zone_of(calendar)).tz_localize(None).to_numpy()
    nights = local.astype("datetime64[D]")
    days = np.where(stamps == dates, dates, np.where(local == nights, nights, np.datetime64("NaT")))
    if "date" not in rows.columns:
        return days
    given = stamps_of(rows, "date").astype("datetime64[D]")
    return np.where(np.isnat(given), days, given)


def _date_shift(dates: TimeArray, sessions: Sessions) -> np.timedelta64:
    """Days from the dates given to those of the sessions: 0, or 1 where they name the evening a session opens, or -1 where they name the
    midnight it ends at. Told from the weekdays of many bars; a file that fits no way is left as it is, for the calendar's check."""
    distinct = np.unique(dates)
    if len(distinct) < 2 * _FEW or (fits := float(np.isin(distinct, sessions.dates).mean())) >= 1 - 2 * _HARDLY:
        return np.timedelta64(0, "D")
    shares = {shift: float(np.isin(distinct + shift, sessions.dates).mean()) for shift in (1, -1)}
    best = max(shares, key=lambda shift: shares[shift])
    tells = shares[best] > max(1 - _HARDLY, fits) and (best < 0 or sessions.open_before_date)
    return np.timedelta64(best if tells else 0, "D")


def _sessions_by_clock(stamps: TimeArray, sessions: Sessions, calendar: str, label: Label) -> tuple[np.ndarray, str]:
    """Positions of the sessions of daily bars that are labelled by a time of day, and what the time names."""
    start, end = sessions.starting(stamps), np.maximum(sessions.ending(stamps), 0)
    zone = calendars.zone_of(calendar)
    local = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy().astype("datetime64[D]")
    starts = (stamps >= sessions.opens[start] - 2 * _HOUR) | (local == sessions.dates[start])
    ends = (stamps <= sessions.closes[end] + 2 * _HOUR) | (local == sessions.dates[end])
    named = label if label != "auto" else "end" if ends.mean() > starts.mean() else "start"
    return (end if named == "end" else start), named


def _days(
    rows: pd.DataFrame, stamps: TimeArray, dates: TimeArray, calendar: str, sessions: Sessions, label: Label
) -> tuple[pd.DataFrame, str]:
    """Daily bars by session; what the currency market did on a Sunday evening is joined to Monday."""
    timed, named = np.isnat(dates), "date"
    days = dates + _date_shift(dates[~timed], sessions)
    if timed.any():
        at, named = _sessions_by_clock(stamps[timed], sessions, calendar, label)
        days[timed] = sessions.dates[at]
    at = np.minimum(np.searchsorted(sessions.dates, days), len(sessions.dates) - 1)
    days = sessions.dates[at] if calendar == "FX" else days
    midnight = (days + 1).astype("datetime64[us]")
    known = np.where(days == sessions.dates[at], sessions.closes[at], midnight)
    if calendar == "FX":
        known = np.where(timed, known, np.maximum(known, midnight))  # a date may stand for a day of Greenwich
    result = _with_times(rows, days.astype("datetime64[us]"), known)
    twice = result["timestamp"].duplicated()
    if not twice.any():
        return result, named
    if calendar != "FX":
        raise _two_bars(result, twice, "day")
    return result.groupby(["symbol", "timestamp"], as_index=False, sort=False).agg(AGGREGATION), named


def _two_bars(timed: pd.DataFrame, twice: pd.Series, period: str) -> DataError:
    row = timed[twice].iloc[0]
    return DataError(
        f"{row['symbol']} has {int(twice.sum())} bars that fall on a {period} that has one already, first {row['timestamp']:%Y-%m-%d}; "
        f"expected one bar a {period}; two sources are mixed, or data.calendar or data.label is wrong"
    )


def _periods(rows: pd.DataFrame, days: TimeArray, timeframe: pd.Timedelta, sessions: Sessions, symbol: str) -> tuple[pd.DataFrame, str]:
    """Weekly and monthly bars by the first session of their calendar week or month, known when its last one closes."""
    if timeframe == WEEK:
        weekdays = np.bincount((days.astype("int64") + 3) % 7, minlength=7)
        usual = int(weekdays.argmax())
        if usual in (1, 2, 3):
            raise DataError(
                f"{symbol} has weekly bars that are labelled on {('Tuesdays', 'Wednesdays', 'Thursdays')[usual - 1]}; expected the first "
                "or the last day of a calendar week; make weeks of daily bars with data.timeframe=1W"
            )
        days = days + np.timedelta64(int(usual == 6), "D")  # a Sunday begins the week of the Monday after it
    starts = period_starts(days.astype("datetime64[us]"), timeframe)
    after = period_starts(days.astype("datetime64[us]"), timeframe, ahead=1)
    first, last = np.searchsorted(sessions.dates, starts), np.searchsorted(sessions.dates, after) - 1
    timed = _with_times(rows, sessions.dates[first].astype("datetime64[us]"), sessions.closes[last])
    if (twice := timed["timestamp"].duplicated()).any():
        raise _two_bars(timed, twice, "week" if timeframe == WEEK else "month")
    return timed, "date"


# --- times of day


def _intraday(
    rows: pd.DataFrame, stamps: TimeArray, timeframe: pd.Timedelta, calendar: str, sessions: Sessions, label: Label
) -> tuple[pd.DataFrame, str]:
    step = timeframe.to_timedelta64().astype("timedelta64[us]")
    ends = label == "end" or (label == "auto" and _names_the_end(stamps, step, calendar, sessions))
    starts = stamps - step if ends else stamps
    _require_summer_time(rows, starts, step, calendar, sessions)
    return _with_times(rows, starts, _known(starts, step, calendar, sessions)), "end" if ends else "start"


def _hours(calendar: str, sessions: Sessions) -> list[tuple[TimeArray, TimeArray]]:
    """Opens and closes of regular hours and, where the exchange has them, of extended ones."""
    extended = calendars.extended_hours(calendar, sessions)
    return [(sessions.opens, sessions.closes), *([extended] if extended else [])]


def _names_the_end(stamps: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> bool:
    """Whether bars are labelled by their end: then none starts with a session, and one would start when it has closed.

    Regular hours tell; where bars lie on both sides of them, extended hours do. What tells nothing is a start.
    """
    for opens, closes in _hours(calendar, sessions):
        between = np.r_[True, opens[1:] - closes[:-1] >= step]
        opening, closing = opens[between], closes[np.r_[between[1:], True]]
        seen = (opening >= stamps[0] - step) & (closing <= stamps[-1] + step)
        if seen.sum() < _FEW:
            continue
        first, last = _held(stamps, opening[seen] - step, opening[seen], step), _held(stamps, closing[seen], closing[seen] + step, -step)
        if last >= _MOSTLY and first <= _HARDLY:
            return True
        if first > _HARDLY and last <= _HARDLY:
            return False
    return False


def _held(stamps: TimeArray, low: TimeArray, high: TimeArray, side: np.timedelta64) -> float:
    """Share of spans that hold a stamp: (low, high] for a positive side, [low, high) for a negative one."""
    where: Literal["left", "right"] = "right" if side > np.timedelta64(0) else "left"
    return float((np.searchsorted(stamps, high, side=where) > np.searchsorted(stamps, low, side=where)).mean())


def _require_summer_time(rows: pd.DataFrame, starts: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> None:
    """Refuse bars whose sessions begin an hour earlier or later in summer than in winter, which no exchange does.

    Raises:
        DataError: they do.
    """
    zone = calendars.zone_of(calendar)
    for opens, closes in _hours(calendar, sessions):
        opens = opens[np.r_[True, opens[1:] - closes[:-1] >= step]]
        first = np.searchsorted(starts, opens - np.timedelta64(89, "m"))
        seen = (first < len(starts)) & (starts[np.minimum(first, len(starts) - 1)] <= opens + 2 * _HOUR)
        late = (starts[first[seen]] - opens[seen]) / _HOUR
        summer = np.array([bool(stamp.dst()) for stamp in pd.DatetimeIndex(opens[seen]).tz_localize("UTC").tz_convert(zone)], dtype=bool)
        if min(summer.sum(), (~summer).sum()) < _SEASON:
            continue
        usual = [float(pd.Series(late[season]).mode().iloc[0]) for season in (summer, ~summer)]
        habit = [float((late[season] == hour).mean()) for season, hour in zip((summer, ~summer), usual, strict=True)]
        if abs(usual[0] - usual[1]) == 1 and min(habit) > _MOSTLY:
            raise DataError(
                f"{rows['symbol'].iloc[0]} begins its sessions an hour {'later' if usual[0] > usual[1] else 'earlier'} in summer than in "
                f"winter, by the hours of {calendar}; expected the exchange's own time; its zone has lost summer time: give local times "
                f"without an offset and set data.timezone={zone}, or name the calendar it trades on with data.calendar"
            )


def _known(starts: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> TimeArray:
    """When intraday bars end. A session's first bar may be a short one that ends with the grid of the others (09:30, 10:00, 11:00)."""
    phases = starts.astype("int64") % step.astype("int64")
    values, counts = np.unique(phases, return_counts=True)
    if len(values) == 1 or sessions.open_before_date:
        return starts + step
    zone = calendars.zone_of(calendar)
    local = pd.DatetimeIndex(starts).tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy().astype("datetime64[us]")
    phases = local.astype("int64") % step.astype("int64")
    values, counts = np.unique(phases, return_counts=True)
    to_grid = ((values[counts.argmax()] - phases) % step.astype("int64")).astype("timedelta64[us]")
    opens = np.isin(starts, sessions.opens) & (to_grid > np.timedelta64(0))
    return starts + np.where(opens, to_grid, step)


def drop_unfinished(frame: pd.DataFrame, now: pd.Timestamp) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Leave out each symbol's last bar where it is not over yet.

    Args:
        frame: with `available_at`.
        now: UTC.

    Raises:
        DataError: more than a symbol's last bar lies ahead, so the zone or the label is wrong.
    """
    ahead = frame["available_at"] > now
    if not ahead.any():
        return frame, ()
    early = frame[ahead]
    many = early["symbol"].value_counts()
    if many.iloc[0] > 1:
        row = early[early["symbol"] == many.index[0]].iloc[0]
        raise DataError(
            f"{many.index[0]} has {many.iloc[0]} bars that are not over at {now:%Y-%m-%dT%H:%MZ}, first {row['timestamp']:%Y-%m-%dT%H:%MZ};"
            " expected one at most, the last; check data.timezone and data.label, or cut the file with data.end"
        )
    names = _listed(str(name) for name in early["symbol"])
    return frame[~ahead].reset_index(drop=True), (f"The last bar of {names} was not over at {now:%Y-%m-%dT%H:%MZ} and was left out.",)


def _listed(names: Iterable[str], most: int = 5) -> str:
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
