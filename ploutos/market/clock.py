"""One clock for a table of bars: how long a bar is, which end its timestamps name, which session it belongs to, when it is known.

Vendors and people label bars by their start, by their end or by a date, in any zone. Here each symbol's bars come to one
convention: an intraday bar is labelled by its start; a daily bar by the date of its session, at 00:00 UTC; a weekly or monthly one by
the first session in it. A market round the clock has no sessions: its daily bars keep the instant they start at.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ploutos.errors import ConfigError, DataError
from ploutos.market import calendar as calendars
from ploutos.market.bars import infer_timeframe
from ploutos.market.calendar import DAY, MONTH, WEEK, Sessions, period_starts
from ploutos.market.resample import AGGREGATION, ROUND_THE_CLOCK, resample, stamps_of
from ploutos.types import BoolArray, IntArray, TimeArray
from ploutos.wording import counted

Label = Literal["auto", "start", "end"]
_MOSTLY, _HARDLY = 0.5, 0.05
"""Shares of sessions that make a habit, and that do not."""
_TELLING = 0.2
"""Share of sessions with a bar at one of their edges that tells which end of a bar labels name."""
_FEW = 5
"""Sessions below which nothing is told from habits."""
_SEASON = 20
"""Sessions of summer and of winter time that it takes to compare them."""
_HOUR, _DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")
_WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")


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
        raise ConfigError(
            f"data.timeframe is {text!r}; expected a part of a day such as 15min or 1h, or 1D, 1W or 1M (a month){_nearest(found)}"
        )
    return found


def _nearest(asked: pd.Timedelta) -> str:
    """Words that name the nearest length of whole hours or minutes that fills a day; nothing where there is none near."""
    near = [
        length for minutes in range(1, 1441) if 1440 % minutes == 0 and abs(asked - (length := pd.Timedelta(minutes=minutes))) < asked / 4
    ]
    return f"; did you mean {show_timeframe(min(near, key=lambda each: abs(each - asked)))}?" if near else ""


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
        DataError: symbols have bars of different lengths, bars are longer than wanted, two bars fall on one session, labels name no
            session or contradict one another, or a zone is wrong or lost its summer time.
    """
    lengths = {str(symbol): infer_timeframe(rows) for symbol, rows in frame.groupby("symbol", sort=False)["timestamp"] if len(rows) > 1}
    if not lengths:
        raise DataError("found one bar of each symbol; expected at least two to determine the bar length")
    native = _common_length(frame, lengths, wanted)
    groups: dict[pd.Timedelta, list[pd.DataFrame]] = {}
    for symbol, rows in frame.groupby("symbol", sort=False):
        groups.setdefault(lengths.get(str(symbol), native), []).append(rows)
    tables, labels = [], set()
    for own, group in groups.items():
        found = _labelled(group, own, calendar, label)
        labels |= {named for _, named in found}
        table = pd.concat([part for part, _ in found], ignore_index=True)
        tables.append(table if wanted is None or own == wanted else resample(table, own, wanted, calendar))
    timeframe = wanted or native
    notes = [] if set(lengths.values()) == {timeframe} or wanted is None else [_resampled_note(lengths, timeframe)]
    if "end" in labels:
        notes.append("The source labels bars by their end; ours are labelled by their start.")
    sundays = (frame["timestamp"].dt.day_of_week == 6) & (frame["timestamp"].dt.normalize() == frame["timestamp"])
    if WEEK in groups and label == "auto" and sundays.mean() > _MOSTLY:
        notes.append("Weeks dated on a Sunday were read as those that begin on the Monday after it; set data.label=end if they end on it.")
    result = pd.concat(tables, ignore_index=True)
    result.attrs["left_out"] = {symbol: count for table in tables for symbol, count in table.attrs.get("left_out", {}).items()}
    return Timed(result, timeframe, " and ".join(sorted(labels)), tuple(notes))


def _resampled_note(lengths: dict[str, pd.Timedelta], timeframe: pd.Timedelta) -> str:
    found = ", ".join(show_timeframe(each) for each in sorted(set(lengths.values())))
    return f"Bars of {show_timeframe(timeframe)} were made of bars of {found}, within sessions; incomplete ones were left out."


def _common_length(frame: pd.DataFrame, lengths: dict[str, pd.Timedelta], wanted: pd.Timedelta | None) -> pd.Timedelta:
    """The length that all symbols have, or that all can be brought to; thin symbols are corrected in `lengths`."""
    counts = frame["symbol"].value_counts()
    native = lengths[max(lengths, key=lambda symbol: counts[symbol])]
    lengths |= {symbol: native for symbol, found in lengths.items() if found != native and _is_sparse(frame, symbol, found, native)}
    for symbol, found in lengths.items():
        if wanted is not None and (found > wanted or (wanted < DAY and wanted % found)):
            raise DataError(
                f"{symbol} has bars of {show_timeframe(found)} and data.timeframe asks for {show_timeframe(wanted)}; expected bars "
                f"that are as long, or shorter and a whole part of it; set data.timeframe={show_timeframe(max(lengths.values()))}"
            )
        if wanted is None and found != native:
            other = next(name for name, length in lengths.items() if length == native)
            coarser = show_timeframe(max(found, native))
            raise DataError(
                f"{other} has bars of {show_timeframe(native)} and {symbol} bars of {show_timeframe(found)}; expected one length for all "
                f"symbols; set data.timeframe={coarser} to bring all to {coarser}"
            )
    return wanted or native


def _is_sparse(frame: pd.DataFrame, symbol: str, found: pd.Timedelta, native: pd.Timedelta) -> bool:
    """Whether a symbol merely misses many bars of the length: no step is shorter, and some are that short or none is usual."""
    if native >= DAY or found < native:
        return False
    steps = frame.loc[frame["symbol"] == symbol, "timestamp"].diff().dropna()
    return bool((steps >= native).all() and ((steps == native).any() or (steps == steps.mode().iloc[0]).mean() < _MOSTLY))


def _labelled(group: list[pd.DataFrame], timeframe: pd.Timedelta, calendar: str, label: Label) -> list[tuple[pd.DataFrame, str]]:
    """Bars of symbols that have one length under our labels with the time each is known at, and what the source's labels named.

    What labels name is a habit of the source: it is told over all symbols, and one that tells nothing takes that of the others.
    """
    if (
        label != "start"
        and (timeframe != DAY or calendar == ROUND_THE_CLOCK)
        and all(_names_last_moment(rows, timeframe) for rows in group)
    ):
        label = "end"
        if timeframe < DAY or calendar == ROUND_THE_CLOCK:
            grid = "min" if timeframe < DAY else "h"
            group = [rows.drop(columns="date", errors="ignore").assign(timestamp=rows["timestamp"].dt.ceil(grid)) for rows in group]
            if timeframe >= DAY:
                return [_round_the_clock(rows, timeframe, label, dated=False) for rows in group]
    if calendar == ROUND_THE_CLOCK:
        return [_round_the_clock(rows, timeframe, label) for rows in group]
    stamps = [stamps_of(rows) for rows in group]
    sessions = calendars.sessions_around(min(each.min() for each in stamps), max(each.max() for each in stamps), calendar)
    if timeframe < DAY:
        return _intraday(group, timeframe, calendar, sessions, label)
    if timeframe > DAY:
        return [_periods(rows, timeframe, calendar, sessions, label) for rows in group]
    return _days(group, calendar, sessions, label)


def _names_last_moment(rows: pd.DataFrame, timeframe: pd.Timedelta) -> bool:
    """Whether every bar is labelled by the last second of a minute, or a longer bar by the last minute of an hour: by its end."""
    times = rows["timestamp"].dt
    return bool(((times.second == 59) | ((times.minute == 59) & (timeframe >= DAY))).all())


def _round_the_clock(rows: pd.DataFrame, timeframe: pd.Timedelta, label: Label, dated: bool = True) -> tuple[pd.DataFrame, str]:
    """Bars of a market that never closes, by the instant they start at; a month by its first day.

    Raises:
        DataError: the day of a week's bar may be its first or its last, or two bars fall on one period.
    """
    stamps, step = stamps_of(rows), timeframe.to_timedelta64().astype("timedelta64[us]")
    ends = stamps if label == "end" else stamps + step
    if timeframe == MONTH:
        days = stamps.astype("datetime64[D]").astype("datetime64[us]")
        first = np.where(stamps > days, days + _DAY, days)  # midnight of a zone east of Greenwich
        days = first if (stamps - first >= -14 * _HOUR).all() and (_day_of_month(first) == 1).mean() >= 1 - _HARDLY else days
        starts = period_starts(days - int(label == "end"), MONTH)
        behind = np.where(_day_of_month(days) == 1, np.maximum(stamps - days, np.timedelta64(0, "us")), np.timedelta64(0, "us"))
        begun = np.r_[behind[:1], behind[:-1]] if label == "end" else behind
        over = behind if label == "end" else np.r_[behind[1:], behind[-1:]]
        ends = period_starts(starts, MONTH, ahead=1).astype("datetime64[us]") + over
        starts = starts.astype("datetime64[us]") + begun
    else:
        if timeframe == WEEK and dated and not np.isnat(days := _dates(rows, stamps, ROUND_THE_CLOCK)).any():
            ends = ends + _last_day(days, str(rows["symbol"].iloc[0]), label)
        starts = ends - step
    timed = _with_times(rows, starts, ends)
    if (twice := timed["timestamp"].duplicated()).any():
        raise _two_bars(timed, twice, "month" if timeframe == MONTH else "bar's length")
    return timed, "end" if label == "end" else "start"


def _last_day(days: TimeArray, symbol: str, label: Label) -> np.timedelta64:
    """What is to be added to the date of a week's bar to have its end: nothing for an instant, a day for the last day of the week.

    A Monday is the first day of a week or the midnight at which one ends, and a Thursday the first of a week counted from 1970; any other
    day may be the first one or the last.
    """
    usual = int(np.bincount((days.astype("int64") + 3) % 7, minlength=7).argmax())
    if label == "auto" and usual not in (0, 3):
        raise DataError(
            f"{symbol} has weekly bars that are labelled on {_WEEKDAYS[usual]} and trades round the clock; expected Mondays, or to be told "
            "which end of a week that is; set data.label=end if it is its last day, or data.label=start if it is its first"
        )
    return np.timedelta64(int(label == "end" and usual != 0), "D")


def _day_of_month(days: TimeArray) -> IntArray:
    return (days.astype("datetime64[D]") - days.astype("datetime64[M]").astype("datetime64[D]")).astype("int64") + 1


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
    local = _local(stamps, calendar)
    nights = local.astype("datetime64[D]")
    days = np.where(stamps == dates, dates, np.where(local == nights, nights, np.datetime64("NaT")))
    if "date" not in rows.columns:
        return days
    given = stamps_of(rows, "date").astype("datetime64[D]")
    return np.where(np.isnat(given), days, given)


def _date_shift(dates: TimeArray, sessions: Sessions) -> int | None:
    """Days from the dates given to those of the sessions: 0, or 1 where they name the evening a session opens, or -1 where they name the
    midnight it ends at; None where too few tell. Told from weekdays; dates that fit no way are left to the calendar's check."""
    distinct = np.unique(dates)
    if len(distinct) < 2 * _FEW:
        return None
    if (fits := float(np.isin(distinct, sessions.dates).mean())) >= 1 - 2 * _HARDLY:
        return 0
    shares = {shift: float(np.isin(distinct + shift, sessions.dates).mean()) for shift in (1, -1)}
    best = max(shares, key=lambda shift: shares[shift])
    return best if shares[best] > max(1 - _HARDLY, fits) and (best < 0 or sessions.open_before_date) else 0


def _common_shift(dated: dict[str, TimeArray], sessions: Sessions) -> int:
    """The one `_date_shift` of all symbols.

    Raises:
        DataError: those of two symbols differ, or that of one changes.
    """
    told: dict[int, str] = {}
    for symbol, dates in dated.items():
        if (shift := _date_shift(dates, sessions)) is not None:
            told.setdefault(shift, symbol)
            _require_one_shift(symbol, np.unique(dates), shift, sessions)
    if len(told) > 1:
        words = {0: "of its sessions", 1: "of the evenings before them", -1: "of the days after them"}
        found = " and ".join(f"{symbol} by dates {words[shift]}" for shift, symbol in told.items())
        raise DataError(f"daily bars are labelled differently, {found}; expected one way within a source; run them separately")
    if told:
        return next(iter(told))
    return (_date_shift(np.concatenate(list(dated.values())), sessions) if dated else 0) or 0


def _require_one_shift(symbol: str, dates: TimeArray, shift: int, sessions: Sessions) -> None:
    """Refuse dates of which a stretch names the sessions in another way than the rest."""
    for block in np.array_split(dates, max(len(dates) // _SEASON, 1)):
        other = _date_shift(block, sessions)
        if other is None or other == shift or float(np.isin(block + other, sessions.dates).mean()) < 1 - _HARDLY:
            continue
        if float(np.isin(block + shift, sessions.dates).mean()) < 1 - 2 * _HARDLY:
            raise DataError(
                f"{symbol} has daily bars whose dates change what they name about {block[0]}: by their weekdays those there are "
                f"{abs(other - shift)} day {'late' if other < shift else 'early'}; expected one way within a file; correct the dates there"
            )


_Readings = dict[str, tuple[TimeArray, BoolArray]]


def _readings(stamps: TimeArray, sessions: Sessions, calendar: str) -> _Readings:
    """The sessions that daily bars labelled by a time of day may belong to, and where each reading is a likely one.

    The time is in or near the session's start, or its end; or it is midnight in a zone behind Greenwich (`date`) or ahead (`next date`).
    """
    start, end = np.minimum(sessions.starting(stamps), len(sessions.dates) - 1), np.maximum(sessions.ending(stamps), 0)
    local = _local(stamps, calendar).astype("datetime64[D]")
    days = stamps.astype("datetime64[D]")
    after = np.where(stamps > days, days + 1, days)
    once = [np.r_[True, np.diff(at) != 0] for at in (start, end)]
    return {
        "start": (sessions.dates[start], once[0] & ((stamps >= sessions.opens[start] - 2 * _HOUR) | (local == sessions.dates[start]))),
        "end": (sessions.dates[end], once[1] & ((stamps <= sessions.closes[end] + 2 * _HOUR) | (local == sessions.dates[end]))),
        "date": (days, _are_sessions(days, sessions, calendar)),
        "next date": (after, _are_sessions(after, sessions, calendar)),
    }


def _are_sessions(days: TimeArray, sessions: Sessions, calendar: str) -> BoolArray:
    """Which dates are sessions; a Sunday's currencies are joined to Monday's where the file has Fridays too."""
    weekdays = (days.astype("int64") + 3) % 7
    return np.isin(days, sessions.dates) | ((weekdays == 6) & (calendar == "FX") & ((weekdays == 4).mean() > 0.1))


def _fits(likely: BoolArray) -> bool:
    """Whether a reading fits nearly all bars, and no stretch of them much less."""
    blocks = np.array_split(likely, max(len(likely) // _SEASON, 1))
    return bool(likely.mean() >= 1 - _HARDLY) and all(block.mean() > 1 - 4 * _HARDLY for block in blocks)


def _reading(readings: _Readings, label: Label) -> str | None:
    """The reading that fits, None where none does or two dates do."""
    clock = ["start", "end"] if label == "auto" else [label]
    clock.sort(key=lambda name: -readings[name][1].mean())
    for name in clock:
        if _fits(readings[name][1]):
            return name
    dates = [name for name in ("date", "next date") if _fits(readings[name][1])]
    if len(dates) == 2 and (readings["date"][0] != readings["next date"][0]).mean() > 2 * _HARDLY:
        return None
    return dates[0] if dates else None


def _sessions_by_clock(timed: dict[str, TimeArray], sessions: Sessions, calendar: str, label: Label) -> dict[str, tuple[TimeArray, str]]:
    """The sessions of daily bars that are labelled by a time of day, and what the time names, by symbol.

    Raises:
        DataError: it cannot be told.
    """
    if not timed:
        return {}
    common = _reading(_readings(np.unique(np.concatenate(list(timed.values()))), sessions, calendar), label)
    result = {}
    for symbol, stamps in timed.items():
        readings = _readings(stamps, sessions, calendar)
        own = _reading(readings, label) if len(stamps) >= 2 * _FEW or common is None else common
        if own is None:
            raise DataError(
                f"{symbol} has daily bars labelled by times such as {stamps[0].item():%Y-%m-%d %H:%MZ}, which fit neither the starts nor "
                f"the ends of the sessions of {calendar}, nor one midnight; expected one of them in all rows; set data.timezone to the "
                "zone of the source, data.label to the end of a bar that they name, or data.calendar to that of the symbol, or give dates"
            )
        result[symbol] = readings[own][0], own if own in ("start", "end") else "date"
    return result


def _days(group: list[pd.DataFrame], calendar: str, sessions: Sessions, label: Label) -> list[tuple[pd.DataFrame, str]]:
    """Daily bars by session; what the currency market did on a Sunday evening is joined to Monday."""
    dated, timed = {}, {}
    for rows in group:
        symbol, stamps = str(rows["symbol"].iloc[0]), stamps_of(rows)
        dates = _dates(rows, stamps, calendar)
        if np.isnat(dates).any():
            timed[symbol] = stamps
        else:
            dated[symbol] = dates
    shift = _common_shift(dated, sessions)
    found = {symbol: (dates + shift, "date") for symbol, dates in dated.items()}
    found |= _sessions_by_clock(timed, sessions, calendar, label)
    return [_of_sessions(rows, *found[str(rows["symbol"].iloc[0])], calendar, sessions) for rows in group]


def _of_sessions(rows: pd.DataFrame, days: TimeArray, named: str, calendar: str, sessions: Sessions) -> tuple[pd.DataFrame, str]:
    """One symbol's daily bars by the dates of their sessions, each known when its session closes."""
    at = np.minimum(np.searchsorted(sessions.dates, days), len(sessions.dates) - 1)
    days = sessions.dates[at] if calendar == "FX" else days
    midnight = (days + 1).astype("datetime64[us]")
    known = np.where(days == sessions.dates[at], sessions.closes[at], midnight)
    if calendar == "FX" and named == "date":
        known = np.maximum(known, midnight)  # a date may stand for a day of Greenwich
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
        f"{row['symbol']} has {counted('{n} [bar that falls|bars that fall]', int(twice.sum()))} on a {period} that has one "
        f"already, first {row['timestamp']:%Y-%m-%d}; "
        f"expected one bar a {period}; two sources are mixed, or data.calendar or data.label is wrong"
    )


def _period_days(rows: pd.DataFrame, timeframe: pd.Timedelta, calendar: str, sessions: Sessions, label: Label) -> TimeArray:
    """The day that each weekly or monthly bar is labelled by, datetime64[D]; of a time that is not midnight, the day in Greenwich or, where
    all rows say so, the one that begins then in a zone ahead of it.

    Raises:
        DataError: that cannot be told.
    """
    stamps = stamps_of(rows)
    days = _dates(rows, stamps, calendar)
    if not (timed := np.isnat(days)).any():
        return days
    at = stamps.astype("datetime64[D]")
    after = np.where(stamps > at, at + 1, at)
    weekdays = (after.astype("int64") + 3) % 7
    regular = _day_of_month(after) == 1 if timeframe == MONTH else (weekdays == np.bincount(weekdays).argmax()) & np.isin(weekdays, (0, 4))
    if (timed.all() and label == "end") or not _fits(regular) or (stamps - after < -14 * _HOUR).any():
        return at if timed.all() else np.where(timed, at, days)
    if not np.isin(at, sessions.dates).all():
        return after
    if label == "start":
        return after
    if timeframe == WEEK:
        return at if (at.astype("int64") % 7 == 1).all() else after  # Fridays stay Fridays
    raise DataError(
        f"{rows['symbol'].iloc[0]} has monthly bars labelled by times such as {stamps[0].item():%Y-%m-%d %H:%MZ}, which may end one month "
        "or begin the next; expected dates; set data.label=end or data.label=start"
    )


def _periods(rows: pd.DataFrame, timeframe: pd.Timedelta, calendar: str, sessions: Sessions, label: Label) -> tuple[pd.DataFrame, str]:
    """Weekly and monthly bars by the first session of their calendar week or month, known when its last one closes."""
    days = _period_days(rows, timeframe, calendar, sessions, label)
    if timeframe == WEEK:
        usual = int(np.bincount((days.astype("int64") + 3) % 7, minlength=7).argmax())
        if usual in (1, 2, 3):
            raise DataError(
                f"{rows['symbol'].iloc[0]} has weekly bars that are labelled on {_WEEKDAYS[usual]}; expected the first "
                "or the last day of a calendar week; make weeks of daily bars with data.timeframe=1W"
            )
        days = days + int(usual == 6 and label != "end")  # a Sunday begins the week of the Monday after it
        days = days - int(usual == 0 and label == "end")
    elif label == "end" and _fits(_day_of_month(days) == 1):
        days = days - 1
    starts = period_starts(days.astype("datetime64[us]"), timeframe)
    after = period_starts(days.astype("datetime64[us]"), timeframe, ahead=1)
    first, last = np.searchsorted(sessions.dates, starts), np.searchsorted(sessions.dates, after) - 1
    timed = _with_times(rows, sessions.dates[first].astype("datetime64[us]"), sessions.closes[last])
    if (twice := timed["timestamp"].duplicated()).any():
        raise _two_bars(timed, twice, "week" if timeframe == WEEK else "month")
    return timed, "date"


# --- times of day


def _intraday(
    group: list[pd.DataFrame], timeframe: pd.Timedelta, calendar: str, sessions: Sessions, label: Label
) -> list[tuple[pd.DataFrame, str]]:
    step = timeframe.to_timedelta64().astype("timedelta64[us]")
    ends = label == "end" or (label == "auto" and _all_name_the_end(group, step, calendar, sessions))
    result = []
    for rows in group:
        stamps = stamps_of(rows)
        starts = _starts_before(stamps, step, calendar) if ends else stamps
        known = stamps if ends else _known(starts, step, calendar, sessions)
        symbol = str(rows["symbol"].iloc[0])
        _require_summer_time(symbol, starts, step, calendar, sessions)
        _require_zone(symbol, starts, known, step if ends else -step, calendar, sessions, label)
        if label == "auto":
            _require_one_label(symbol, stamps, step, calendar, sessions)
        result.append((_with_times(rows, starts, known), "end" if ends else "start"))
    return result


def _starts_before(ends: TimeArray, step: np.timedelta64, calendar: str) -> TimeArray:
    """Starts of bars labelled by their end: the last point of their grid before it. A short last bar ends off the grid (15:30, 16:00)."""
    width, utc = step.astype("int64"), ends.astype("int64")
    local = _local(ends, calendar).astype("int64")
    phases = min((each % width for each in (utc, local)), key=lambda each: len(np.unique(each)))
    values, counts = np.unique(phases, return_counts=True)
    off = (phases - values[counts.argmax()]) % width
    return ends - np.where(off == 0, width, off).astype("timedelta64[us]")


def _local(stamps: TimeArray, calendar: str) -> TimeArray:
    zone = calendars.zone_of(calendar)
    return pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy().astype("datetime64[us]")


def _all_name_the_end(group: list[pd.DataFrame], step: np.timedelta64, calendar: str, sessions: Sessions) -> bool:
    """Whether the symbols' bars are labelled by their end; what tells nothing is a start.

    Raises:
        DataError: one symbol's are and another's are not, or one is in a wrong zone.
    """
    told: dict[bool, str] = {}
    for rows in group:
        symbol = str(rows["symbol"].iloc[0])
        if (named := _names_the_end(stamps_of(rows), step, calendar, sessions)) is not None:
            told.setdefault(named, symbol)
    if len(told) > 1:
        for rows in group:  # another zone may look like another label
            stamps = stamps_of(rows)
            _require_zone(str(rows["symbol"].iloc[0]), stamps, stamps + step, -step, calendar, sessions, "start")
        raise DataError(
            f"{told[True]} labels its bars by their end and {told[False]} by their start, by the hours of {calendar}; expected one way in "
            "a source; run them separately, or set data.label=end or data.label=start if one of them only looks so"
        )
    if told:
        return True in told
    pooled = np.unique(np.concatenate([stamps_of(rows) for rows in group]))
    return bool(_names_the_end(pooled, step, calendar, sessions))


def _hours(calendar: str, sessions: Sessions) -> list[tuple[TimeArray, TimeArray]]:
    """Opens and closes of regular hours and, where the exchange has them, of extended ones."""
    extended = calendars.extended_hours(calendar, sessions)
    return [(sessions.opens, sessions.closes), *([extended] if extended else [])]


def _names_the_end(stamps: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> bool | None:
    """Whether bars are labelled by their end: then none starts with a session, and one would start when it has closed.

    Regular hours tell; where bars lie on both sides of them, extended hours do. None where neither tells.
    """
    for _, firsts, lasts in _edges(stamps, step, calendar, sessions):
        first, last = float(firsts.mean()), float(lasts.mean())
        if max(first, last) >= _TELLING and min(first, last) <= max(first, last) / 10:
            return last > first
    return None


def _edges(stamps: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> Iterator[tuple[TimeArray, BoolArray, BoolArray]]:
    """The opens of sessions within the bars, which have a bar labelled by the open or just before, and which by the close or just after."""
    for opens, closes in _hours(calendar, sessions):
        between = np.r_[True, opens[1:] - closes[:-1] >= step]
        opening, closing = opens[between], closes[np.r_[between[1:], True]]
        seen = (opening >= stamps[0] - step) & (closing <= stamps[-1] + step)
        if seen.sum() >= _FEW:
            opening, closing = opening[seen], closing[seen]
            yield opening, _held(stamps, opening - step, opening, step), _held(stamps, closing, closing + step, -step)


def _require_one_label(symbol: str, stamps: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> None:
    """Refuse a symbol of which one stretch is labelled by the start of bars and another by their end."""
    for opening, firsts, lasts in _edges(stamps, step, calendar, sessions):
        kinds = lasts.astype("int64") - firsts.astype("int64")
        runs = np.split(np.arange(len(kinds)), np.flatnonzero(np.diff(kinds)) + 1)
        long = {int(kinds[run[0]]): int(run[0]) for run in runs if len(run) >= _FEW}
        if -1 in long and 1 in long and (kinds != 0).mean() > 1 - _TELLING:
            one, other = ("start", "end") if long[1] > long[-1] else ("end", "start")
            raise DataError(
                f"{symbol} has bars labelled by their {one} and, from {opening[max(long[1], long[-1])].item():%Y-%m-%d}, by their {other}, "
                f"by the hours of {calendar}; expected one way within a file; shift the times of one part, or cut the file there"
            )


def _held(stamps: TimeArray, low: TimeArray, high: TimeArray, side: np.timedelta64) -> BoolArray:
    """Which spans hold a stamp: (low, high] for a positive side, [low, high) for a negative one."""
    where: Literal["left", "right"] = "right" if side > np.timedelta64(0) else "left"
    return np.asarray(np.searchsorted(stamps, high, side=where) > np.searchsorted(stamps, low, side=where))


def _require_summer_time(symbol: str, starts: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> None:
    """Refuse bars whose sessions begin an hour earlier or later in summer than in winter, which no exchange does.

    Raises:
        DataError: they do.
    """
    zone = calendars.zone_of(calendar)
    if step > _HOUR and len(np.unique(starts.astype("int64") % step.astype("int64"))) == 1:
        return  # a grid of Greenwich
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
        if abs(usual[0] - usual[1]) == 1 and min(habit) > 1 - _TELLING:
            raise DataError(
                f"{symbol} begins its sessions an hour {'later' if usual[0] > usual[1] else 'earlier'} in summer than in "
                f"winter, by the hours of {calendar}; expected the exchange's own time; its zone has lost summer time: give local times "
                f"without an offset and set data.timezone={zone}, or name the calendar it trades on with data.calendar"
            )


def _require_zone(
    symbol: str, starts: TimeArray, ends: TimeArray, other: np.timedelta64, calendar: str, sessions: Sessions, label: Label
) -> None:
    """Refuse bars that begin and end by the same whole hours before or after their sessions, in most of them or in a row of them.

    Args:
        other: from these starts to those that the other reading of the label would give.

    Raises:
        DataError: they do.
    """
    step = abs(other)
    if step > _HOUR:
        return
    zone = calendars.zone_of(calendar)
    for opens, closes in _hours(calendar, sessions):
        apart = np.r_[True, opens[1:] - closes[:-1] >= 4 * _HOUR]  # what lies within a week of the CME is not an edge
        opening, closing = opens[apart], closes[np.r_[apart[1:], True]]
        middle = closing[:-1] + (opening[1:] - closing[:-1]) // 2
        low, high = np.searchsorted(starts, middle[:-1]), np.searchsorted(starts, middle[1:])
        held = high > low
        opening, closing, low, high = opening[1:-1][held], closing[1:-1][held], low[held], high[held]
        if len(opening) < _FEW:
            continue
        whole = opening - (opening - closing) // step * step  # a last bar may be a short one or reach over the close
        first, last = (starts[low] - opening) / _HOUR, ends[high - 1]
        alike = (first == (last - closing) / _HOUR) | (first == (last - whole) / _HOUR)
        first = np.where((first % 1 == 0) | (step == _HOUR), first, first + other / _HOUR)  # a wrong zone may mislead about the label
        shifts = np.where(alike & (first % 1 == 0), first, 0.0)
        if label != "auto":
            shifts[np.abs(shifts) == step / _HOUR] = 0.0  # the label was told
        runs = np.split(np.arange(len(shifts)), np.flatnonzero(np.diff(shifts)) + 1)
        long = [run for run in runs if shifts[run[0]] and len(run) >= _FEW]
        if long and (shifts != 0).mean() <= _MOSTLY:
            raise DataError(_shifted(symbol, shifts[long[0][0]], f"from {opening[long[0][0]].item():%Y-%m-%d}", calendar, zone))
        if (shifts != 0).mean() > _MOSTLY:
            raise DataError(_shifted(symbol, float(pd.Series(shifts[shifts != 0]).mode().iloc[0]), "in most sessions", calendar, zone))


def _shifted(symbol: str, hours: float, when: str, calendar: str, zone: str) -> str:
    return (
        f"{symbol} begins and ends its sessions {abs(hours):g} h {'late' if hours > 0 else 'early'} {when}, by the hours of {calendar} in "
        f"{zone}; expected the exchange's own hours; give local times without an offset and set data.timezone to their zone, one for the "
        "whole file; or set data.label to the end of a bar that they name, or data.calendar to that of the symbol"
    )


def _known(starts: TimeArray, step: np.timedelta64, calendar: str, sessions: Sessions) -> TimeArray:
    """When intraday bars end. A session's first bar may be a short one that ends with the grid of the others (09:30, 10:00, 11:00)."""
    phases = starts.astype("int64") % step.astype("int64")
    values, counts = np.unique(phases, return_counts=True)
    if len(values) == 1 or sessions.open_before_date:
        return starts + step
    phases = _local(starts, calendar).astype("int64") % step.astype("int64")
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
