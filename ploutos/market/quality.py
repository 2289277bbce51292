"""What bars must be before anything is computed from them, and what looks wrong with them. Nothing is repaired.

The gate, `check_bars`, refuses a frame that cannot be traded on. The inspection, `inspect_bars`, names every place that
looks wrong, symbol by symbol: its errors are those of the gate and a calendar that does not fit; the rest are warnings,
because a crash looks like a split and a halt looks like a hole in the download.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pandas_market_calendars as mcal

from ploutos.errors import DataError
from ploutos.market import calendar as calendars
from ploutos.market.bars import FIELDS, Bars, infer_timeframe
from ploutos.market.quality_report import CHECKS, Coverage, Finding, QualityReport, Severity, iso
from ploutos.market.instruments import InstrumentSpec
from ploutos.types import BoolArray, FloatArray, IntArray, TimeArray

PRICES = ("open", "high", "low", "close")
DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
STALE_BARS = 5
"""Bars in a row without volume and without a new price that make a stale quote."""
JUMP_SIGMAS = 10.0
"""A move is a jump beyond this many sigmas of its neighbourhood."""
JUMP_FLOOR = 0.005
"""No smaller move is a jump, log units: a bond fund that moves by one tick a day has next to no sigma."""
JUMP_WINDOW = 101
"""Bars around a bar that tell its sigma: 1.4826 times the median absolute return."""
REVERTED = 0.3
"""A jump is reverted when no more than this share of it is left."""
SPLIT_TOLERANCE = 0.05
"""How far an open may lie from a whole multiple of the close before it: a split, and one night's news."""
REUSE_SESSIONS = 60
"""More sessions than these without a bar: two companies under one name."""
MISFIT = 0.5
"""Above this share of missing or of off-session bars, the calendar is not the symbol's."""
_GATE = {
    "no_symbol": "{n} rows without a symbol; expected none",
    "no_timestamp": "{n} rows without a timestamp; expected none",
    "order": "{n} bars out of order, first {first}; expected each symbol's bars by increasing time; sort them",
    "conflicts": (
        "{n} bars that differ from another bar of their symbol and time, first {first}; "
        "expected one bar per symbol and time; keep those of one source"
    ),
    "duplicates": "{n} duplicate bars, first {first}; expected one bar per symbol and time; remove the extra rows",
    "missing": ("{n} missing or infinite values in {column}, first {first}; expected numbers; remove those rows, a missing bar is allowed"),
    "not_positive": "{n} {column} prices of zero or less, first {first}; expected more than 0",
    "outside": "{n} bars whose open or close lies outside low..high, first {first}; expected low <= open, close <= high",
    "negative_volume": "{n} negative volumes, first {first}; expected 0 or more",
    "mixed_minutes": (
        "{n} bars at another minute of the hour than the rest of their series, first {first}; "
        "expected one alignment; two sources are mixed: keep one of them"
    ),
}
_PANDERA_NAMES = {("timestamp", "not_nullable"): "no_timestamp", ("symbol", "not_nullable"): "no_symbol"}


# --- the gate


@dataclass(frozen=True)
class _Fault:
    """Rows (positions) that break one rule; no rows where the fault is the table's."""

    check: str
    column: str
    rows: list[int]
    found: str = ""

    def sentence(self, frame: pd.DataFrame, origin: str) -> str:
        if self.check not in _GATE:
            return f"{origin} {self.found}"
        row = frame.iloc[self.rows[0]]
        first = f"{row['symbol']} at {row['timestamp']}"
        return f"{origin} has " + _GATE[self.check].format(n=len(self.rows), column=self.column, first=first)


def _within_bar(frame: pd.DataFrame) -> pd.Series:
    tolerance = 1e-9 * frame["close"]
    body = frame[["open", "close"]]
    return ~((frame["high"] < body.max(axis=1) - tolerance) | (frame["low"] > body.min(axis=1) + tolerance))


def _in_order(frame: pd.DataFrame) -> pd.Series:
    return ~(frame.groupby("symbol", sort=False)["timestamp"].diff() < pd.Timedelta(0))


def _same_minute(frame: pd.DataFrame) -> pd.Series:
    """Whether each bar of an intraday series has the minute of the hour that most of its bars have."""
    same = np.ones(len(frame), dtype=bool)
    timed = np.flatnonzero(frame["timestamp"].notna())
    for found in frame.iloc[timed].groupby("symbol", sort=False).indices.values():
        rows = timed[found]
        stamps = frame["timestamp"].iloc[rows]
        distinct = stamps.drop_duplicates().sort_values()
        if len(distinct) > 1 and (timeframe := infer_timeframe(distinct)) < DAY:
            phases = _phases(_naive(stamps), timeframe)
            same[rows] = phases == _most_common(phases)
    return pd.Series(same, index=frame.index)


def _naive(stamps: pd.Series) -> TimeArray:
    """Shape (n_bars,), datetime64[us] UTC."""
    return stamps.dt.tz_localize(None).to_numpy()


def _phases(stamps: TimeArray, timeframe: pd.Timedelta) -> IntArray:
    """Where in the hour, or in a shorter bar, each bar starts, in microseconds."""
    return stamps.astype("int64") % _grid(timeframe)


def _grid(timeframe: pd.Timedelta) -> int:
    """Microseconds after which the starts of bars look the same within an hour."""
    return int(np.gcd(timeframe // pd.Timedelta(microseconds=1), HOUR // pd.Timedelta(microseconds=1)))


def _most_common(phases: IntArray) -> int:
    values, counts = np.unique(phases, return_counts=True)
    return int(values[counts.argmax()])


@lru_cache(maxsize=1)
def _schema() -> Any:
    """The gate as a pandera schema; a check's `error` is its name in `CHECKS`."""
    import pandera.pandas as pa  # a fraction of a second that only the gate needs

    def rule(good: Callable[[Any], Any], name: str) -> Any:
        return pa.Check(good, error=name, ignore_na=False)

    finite = rule(np.isfinite, "missing")
    price = [finite, pa.Check.gt(0, error="not_positive")]
    columns = {
        "symbol": pa.Column(nullable=False),
        "timestamp": pa.Column("datetime64[us, UTC]", nullable=False),
        **{name: pa.Column("float64", price, nullable=True) for name in PRICES},
        "volume": pa.Column("float64", [finite, pa.Check.ge(0, error="negative_volume")], nullable=True),
    }
    whole = [
        rule(_in_order, "order"),
        rule(lambda frame: ~frame.duplicated() | ~frame.duplicated(["symbol", "timestamp"]), "duplicates"),
        rule(lambda frame: frame.duplicated() | ~frame.duplicated(["symbol", "timestamp"]), "conflicts"),
        rule(_within_bar, "outside"),
        rule(_same_minute, "mixed_minutes"),
    ]
    return pa.DataFrameSchema(columns, checks=whole)


def _widened(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows counted from 0, integers and float32 as float64: what `align` makes of them."""
    numbers = [name for name in FIELDS if name in frame.columns and pd.api.types.is_numeric_dtype(frame[name])]
    return frame.reset_index(drop=True).astype(dict.fromkeys(numbers, "float64"))


def _faults(frame: pd.DataFrame) -> list[_Fault]:
    """What pandera finds in a widened frame, the table's own faults first, then in the order of `CHECKS`."""
    import pandera.pandas as pa

    try:
        _schema().validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
    else:
        return []
    absent = cases.loc[cases["check"] == "column_in_dataframe", "failure_case"].astype(str).tolist()
    if absent:
        wanted = ", ".join(("symbol", "timestamp", *FIELDS))
        return [_Fault("columns", "", [], f"has no column {', '.join(absent)}; expected {wanted}")]
    types = cases[cases["check"].astype(str).str.startswith("dtype(")]
    if len(types):
        expected = "timestamps in UTC, datetime64[us, UTC], and numbers as float64"
        return [_Fault("types", "", [], f"has {row.column} of type {row.failure_case}; expected {expected}") for row in types.itertuples()]
    faults = []
    for (column, check), group in cases.groupby(["column", "check"], sort=False, dropna=False):
        name = _PANDERA_NAMES.get((column, check), str(check))
        faults.append(_Fault(name, str(column), sorted({int(row) for row in group["index"]})))
    unique = {(fault.check, fault.column if fault.check in ("missing", "not_positive") else ""): fault for fault in faults}
    order, columns = list(CHECKS), list(frame.columns)
    return sorted(unique.values(), key=lambda fault: (order.index(fault.check), columns.index(fault.column)))


def check_bars(frame: pd.DataFrame, origin: str) -> None:
    """Refuse a long frame (symbol, timestamp, OHLCV) that cannot be traded on.

    Args:
        frame: `timestamp` datetime64[us, UTC], one row per symbol and bar, sorted by symbol and time; numbers of any
            width.
        origin: file or vendor, named in the message.

    Raises:
        DataError: a column or a type is not the one expected, a timestamp missing, bars out of order, two bars for one
            time (equal or different), a price that is missing, infinite, zero or negative, a high below or a low above
            its bar, a negative or missing volume, or an intraday series on two minutes of the hour.
    """
    widened = _widened(frame)
    if faults := _faults(widened):
        raise DataError(faults[0].sentence(widened, origin))


# --- the inspection


@dataclass(frozen=True)
class _Clock:
    """What a calendar says about a span of time, each array increasing.

    Attributes:
        expected, session_of: starts of the bars of regular hours, datetime64[us], and the session (D) of each.
        sessions, opens, closes: of each session its date (D), its first bar's start and its close.
        pre, post: of each session the start and the end of extended hours; empty where the calendar has none.
    """

    calendar: str
    timeframe: pd.Timedelta
    expected: TimeArray
    session_of: TimeArray
    sessions: TimeArray
    opens: TimeArray
    closes: TimeArray
    pre: TimeArray
    post: TimeArray


@dataclass(frozen=True)
class _Series:
    """The usable bars of one symbol, increasing in time, beside its clock."""

    symbol: str
    clock: _Clock
    stamps: TimeArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    @property
    def slots(self) -> TimeArray:
        """Bar starts as the calendar would give them: a daily bar counts by its date."""
        daily = self.clock.timeframe >= DAY
        return self.stamps.astype("datetime64[D]").astype("datetime64[us]") if daily else self.stamps


def inspect_bars(
    bars: pd.DataFrame | Bars,
    timeframe: pd.Timedelta | None = None,
    calendar: str | None = None,
    instruments: Sequence[InstrumentSpec] = (),
    now: pd.Timestamp | None = None,
    source: str = "bars",
) -> QualityReport:
    """Everything that looks wrong with bars, and where.

    Rows that break a rule of the gate are reported and set aside, so that the other checks can go on. Bars longer than a
    day are compared with no calendar.

    Args:
        bars: a long frame (symbol, timestamp datetime64[us, UTC], OHLCV), or bars on one clock.
        timeframe: length of a bar; for `Bars` their own, for a frame the most frequent step where it is left out.
        calendar: a pandas-market-calendars name; for `Bars` their own, for a frame NYSE where it is left out.
        instruments: a symbol named here is held against its own calendar. `Bars` bring those of their futures and crypto.
        now: with it, a last bar older than the last finished session and a bar that is not over yet are found.
        source: where the bars come from, for people; `Bars` know it.

    Raises:
        DataError: columns or types are not those of a long frame, or there is no bar.
        ConfigError: a calendar is unknown.
    """
    if isinstance(bars, Bars):
        frame, source = _long(bars), bars.source
        timeframe, calendar = timeframe or bars.timeframe, calendar or bars.calendar
        instruments = instruments or [spec for spec in bars.instruments if spec.asset_class != "equity"]
    else:
        frame, calendar = _widened(bars), calendar or "NYSE"
    faults = _faults(frame)
    usable = _usable(frame, faults, source)
    timeframe = timeframe or _longest_timeframe(usable)
    own = {spec.symbol: spec.calendar for spec in instruments}
    moment = None if now is None else np.datetime64(now.tz_convert("UTC").tz_localize(None), "us")
    stamps = _naive(usable["timestamp"])
    first, last = stamps.min(), stamps.max() if moment is None else max(stamps.max(), moment)
    coverage, findings = [], [finding for fault in faults for finding in _gate_findings(fault, frame)]
    for name, rows in usable.groupby("symbol", sort=True):
        symbol, stamps = str(name), _naive(rows["timestamp"])
        clock = _clock(own.get(symbol, calendar), timeframe, int(_phases(stamps[:1], timeframe)[0]), first, last)
        series = _Series(symbol, clock, stamps, *(rows[field].to_numpy() for field in FIELDS))
        coverage.append(Coverage(symbol, clock.calendar, len(stamps), stamps[0], stamps[-1], len(_expected(series)), len(_missing(series))))
        findings += _warnings(series, moment)
    order = list(CHECKS)
    findings.sort(key=lambda finding: (finding.symbol, order.index(finding.check)))
    return QualityReport(source, timeframe, calendar, tuple(coverage), tuple(findings))


def _long(bars: Bars) -> pd.DataFrame:
    """The bars that are there, as a long frame."""
    there = bars.tradable.ravel()
    stamps = pd.DatetimeIndex(np.repeat(bars.timestamps, bars.n_symbols)[there]).tz_localize("UTC")
    columns = {name: getattr(bars, name).ravel()[there] for name in FIELDS}
    frame = pd.DataFrame({"symbol": np.tile(np.array(bars.symbols), bars.n_bars)[there], "timestamp": stamps, **columns})
    return frame.sort_values(["symbol", "timestamp"], ignore_index=True)


def _usable(frame: pd.DataFrame, faults: list[_Fault], source: str) -> pd.DataFrame:
    """The rows that break no rule of the gate, in order."""
    for fault in faults:
        if fault.check not in _GATE:
            raise DataError(fault.sentence(frame, source))
    broken = {row for fault in faults if fault.check != "order" for row in fault.rows}
    usable = frame.drop(index=list(broken)).sort_values(["symbol", "timestamp"], ignore_index=True)
    if usable.empty:
        raise DataError(faults[0].sentence(frame, source) if faults else f"{source} holds no bars; expected at least one")
    return usable


def _longest_timeframe(frame: pd.DataFrame) -> pd.Timedelta:
    """Bar length of the symbol with the most bars, as `load` tells it."""
    return infer_timeframe(frame.loc[frame["symbol"] == frame["symbol"].value_counts().idxmax(), "timestamp"])


def _gate_findings(fault: _Fault, frame: pd.DataFrame) -> Iterator[Finding]:
    """A fault of the gate, symbol by symbol."""
    rows = frame.iloc[fault.rows]
    for symbol, group in rows.groupby(rows["symbol"].astype(str), sort=False):
        stamps = np.sort(_naive(group["timestamp"].dropna()))
        part = _Fault(fault.check, fault.column, [int(row) for row in group.index])
        at = stamps if len(stamps) else np.full(len(group), np.datetime64("NaT", "us"))
        yield Finding(str(symbol), fault.check, "error", at, part.sentence(frame, str(symbol)))


@lru_cache(maxsize=16)
def _clock(calendar: str, timeframe: pd.Timedelta, phase: int, first: np.datetime64, last: np.datetime64) -> _Clock:
    """A calendar over a span, with a week to spare for sessions that open the evening before; `phase` as of `_phases`."""
    week = np.timedelta64(7, "D")
    start, end = (first - week).astype("datetime64[D]").item(), (last + week).astype("datetime64[D]").item()
    days = calendars.expected_bars(calendar, DAY, start, end)
    sessions, closes = days.astype("datetime64[D]"), calendars.available_at(days, DAY, calendar)
    nothing = np.empty(0, dtype="datetime64[us]")
    if timeframe >= DAY:
        expected = days if timeframe == DAY else nothing
        return _Clock(calendar, timeframe, expected, expected.astype("datetime64[D]"), sessions, days, closes, nothing, nothing)
    exchange = mcal.get_calendar(calendar)
    local = pd.Timestamp(first, tz="UTC").tz_convert(exchange.tz).tz_localize(None) - pd.Timestamp(first)
    aligned = (phase + local // pd.Timedelta(microseconds=1)) % _grid(timeframe)  # some zones are half an hour off
    expected = calendars.expected_bars(calendar, timeframe, start, end, aligned // 60_000_000)
    session_of = calendars.sessions(expected, timeframe, calendar)
    opens = expected[np.searchsorted(session_of, sessions)]
    pre, post = nothing, nothing
    if "pre" in exchange.regular_market_times:
        hours = exchange.schedule(start_date=start, end_date=end, tz="UTC", start="pre", end="post")
        pre, post = (_naive(hours[name]).astype("datetime64[us]") for name in ("pre", "post"))
    return _Clock(calendar, timeframe, expected, session_of, sessions, opens, closes, pre, post)


def _expected(series: _Series) -> TimeArray:
    """Bar starts that the calendar expects from the first bar to the last."""
    expected = series.clock.expected
    return expected[np.searchsorted(expected, series.slots[0]) : np.searchsorted(expected, series.slots[-1], side="right")]


def _missing(series: _Series) -> TimeArray:
    return np.setdiff1d(_expected(series), series.slots)


def _reused(series: _Series) -> BoolArray:
    """First bars after more than `REUSE_SESSIONS` sessions without one."""
    ordinal = np.searchsorted(series.clock.opens, series.slots, side="right")
    return np.diff(ordinal, prepend=ordinal[0]) - 1 > REUSE_SESSIONS


def _extended(series: _Series, outside: BoolArray) -> BoolArray:
    """Of the bars outside regular hours, those between the pre-market's start and the post-market's end."""
    position = np.searchsorted(series.clock.pre, series.stamps, side="right") - 1
    if not len(series.clock.pre):
        return np.zeros_like(outside)
    return outside & (position >= 0) & (series.stamps < series.clock.post[np.maximum(position, 0)])


def _stale(series: _Series) -> BoolArray:
    """Bars of a run of at least `STALE_BARS` without volume and without a new close."""
    flat = (series.volume == 0) & (np.diff(series.close, prepend=np.nan) == 0)
    run = np.cumsum(~flat)
    return flat & (np.bincount(run, weights=flat)[run] >= STALE_BARS)


def _thresholds(returns: FloatArray) -> FloatArray:
    """Shape (n_bars,), log units: beyond this a bar's move is a jump; nan while there are too few bars to tell."""
    typical = pd.Series(np.abs(returns)).rolling(JUMP_WINDOW, center=True, min_periods=JUMP_WINDOW // 5).median()
    return np.maximum(JUMP_SIGMAS * 1.4826 * typical.to_numpy(), JUMP_FLOOR)


def _taken_back(returns: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Whether the next close, and whether the one after it, is back where the close before the bar was."""
    limit = REVERTED * np.abs(returns)
    padded = np.r_[returns, np.inf, np.inf]
    one = returns + padded[1:-1]
    return np.abs(one) <= limit, np.abs(one + padded[2:]) <= limit


def _bad_ticks(series: _Series) -> tuple[BoolArray, BoolArray]:
    """Bars of a bad price, and the bars that jump back from one.

    Either the close jumps and is back within two bars, or the high or low lies far outside the closes on both sides.
    """
    before = np.r_[series.close[0], series.close[:-1]]
    returns = np.log(series.close / before)
    thresholds = _thresholds(returns)
    soon, later = _taken_back(returns)
    spikes = np.zeros(len(returns), dtype=bool)
    back = np.zeros(len(returns), dtype=bool)
    for t in np.flatnonzero((np.abs(returns) > thresholds) & (soon | later)):  # few; a jump back is no spike of its own
        if not back[t]:
            spikes[t] = True
            back[t + (1 if soon[t] else 2)] = True
    above = np.log(series.high / np.maximum(before, series.close))
    below = np.log(np.minimum(before, series.close) / series.low)
    wicks = (np.maximum(above, below) > thresholds) & ~back
    return spikes | wicks, back


def _suspected_splits(series: _Series, excluded: BoolArray) -> tuple[BoolArray, FloatArray]:
    """Bars that open near k times or 1 / k of the close before and stay there, and the size of every such step."""
    before = np.r_[series.close[0], series.close[:-1]]
    opening = np.exp(np.abs(np.log(series.open / before)))
    returns = np.log(series.close / before)
    k = np.maximum(np.rint(opening), 2)
    soon, later = _taken_back(returns)
    near = np.abs(opening / k - 1) <= SPLIT_TOLERANCE
    stays = (np.abs(returns) > np.log(1.5)) & (np.sign(returns) == np.sign(series.open - before)) & ~(soon | later)
    return near & stays & ~excluded, k


def _warnings(series: _Series, now: np.datetime64 | None) -> Iterator[Finding]:
    """What looks wrong with one symbol."""
    yield from _calendar_findings(series)
    yield from _volume_findings(series)
    if now is not None:
        yield from _clock_findings(series, now)
    yield from _price_findings(series)


def _finding(series: _Series, check: str, at: TimeArray, words: str, severity: Severity = "warning") -> Iterator[Finding]:
    """The finding, if there is anything at all; `words` may hold {n} and {first}."""
    if len(at):
        sentence = words.format(n=f"{len(at):,}", first=iso(at[0]))
        yield Finding(series.symbol, check, severity, at, f"{series.symbol} {sentence}")


def _calendar_findings(series: _Series) -> Iterator[Finding]:
    clock = series.clock
    if clock.timeframe > DAY:
        return
    misfit = "more than half: set data.calendar and data.timeframe to what the symbol trades on"
    missing, reused = _missing(series), _reused(series)
    expected = len(_expected(series))
    in_reuse = reused[np.searchsorted(series.slots, missing)]
    n_sessions = len(np.unique(clock.session_of[np.searchsorted(clock.expected, missing)]))
    unfit = int((~in_reuse).sum()) > MISFIT * expected
    yield from _finding(
        series, "gaps", missing,
        f"misses {{n}} of {expected:,} bars of {clock.calendar} in {n_sessions:,} sessions, first {{first}}; "
        f"expected each between its first and its last; {misfit if unfit else 'download the range again, or live with the holes'}",
        "error" if unfit else "warning",
    )  # fmt: skip
    outside = ~np.isin(series.slots, clock.expected)
    extended = _extended(series, outside)
    unfit = int((outside & ~extended).sum()) > MISFIT * len(outside)
    yield from _finding(
        series, "off_session", series.stamps[outside & ~extended],
        f"has {{n}} bars while {clock.calendar} was closed, first {{first}}; expected none; "
        f"{misfit if unfit else 'check the calendar and the time zone'}",
        "error" if unfit else "warning",
    )  # fmt: skip
    yield from _finding(
        series, "extended_hours", series.stamps[extended],
        f"has {{n}} bars outside the regular hours of {clock.calendar}, first {{first}}; "
        "expected regular hours; leave them out unless their thin trading is wanted",
    )  # fmt: skip
    yield from _finding(
        series, "ticker_reuse", series.stamps[reused],
        f"resumes {{n}} times after more than {REUSE_SESSIONS} sessions without a bar, first {{first}}; "
        "expected one listing; cut the series there if two companies used the name",
    )  # fmt: skip


def _volume_findings(series: _Series) -> Iterator[Finding]:
    """Silent for a symbol that never has volume: an index or an exchange rate."""
    if not series.volume.any():
        return
    regular = np.isin(series.slots, series.clock.expected)
    yield from _finding(
        series, "zero_volume", series.stamps[regular & (series.volume == 0)],
        "has {n} bars without volume in regular hours, first {first}; expected trades; a fill there is a fiction",
    )  # fmt: skip
    yield from _finding(
        series, "stale", series.stamps[_stale(series)],
        f"has {{n}} bars in runs of {STALE_BARS} or more without volume and without a new price, first {{first}}; "
        "expected a market; ask the vendor whether it was halted",
    )  # fmt: skip


def _clock_findings(series: _Series, now: np.datetime64) -> Iterator[Finding]:
    """What is late and what is early at `now`."""
    clock = series.clock
    late = clock.sessions[(clock.opens > series.slots[-1]) & (clock.closes <= now)].astype("datetime64[us]")
    yield from _finding(
        series, "outdated", late,
        f"ends at {iso(series.stamps[-1])}, {{n}} finished sessions ago; expected bars of {{first}} and later; "
        "update the data, or it was delisted",
    )  # fmt: skip
    recent = series.stamps[series.stamps > now - np.timedelta64(2, "D")]
    known = calendars.available_at(recent, clock.timeframe, clock.calendar) if len(recent) else recent
    yield from _finding(
        series, "unfinished", recent[known > now],
        f"has {{n}} bars that are not over at {iso(now)}, first {{first}}; expected finished bars; "
        "leave them out, or correct their time zone",
    )  # fmt: skip


def _price_findings(series: _Series) -> Iterator[Finding]:
    bad, back = _bad_ticks(series)
    yield from _finding(
        series, "bad_ticks", series.stamps[bad],
        f"has {{n}} moves beyond {JUMP_SIGMAS:.0f} sigmas that were taken back at once, first {{first}}; "
        "expected none; compare them with another source",
    )  # fmt: skip
    steps, k = _suspected_splits(series, bad | back | _reused(series))
    if steps.any():
        t = int(np.flatnonzero(steps)[0])
        ratio = f"1/{k[t]:.0f} of" if series.open[t] < series.close[t - 1] else f"{k[t]:.0f} times"
        yield from _finding(
            series, "suspected_splits", series.stamps[steps],
            f"has {{n}} opens that look like splits, first {{first}} near {ratio} the close before; expected adjusted prices; "
            "ask the action list, a crash looks the same",
        )  # fmt: skip
