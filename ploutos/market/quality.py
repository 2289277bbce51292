"""What bars must be before anything is computed from them, and what looks wrong with them. Nothing is repaired.

`check_bars` refuses a frame that cannot be traded on. The inspection, `inspect_bars`, names every place that
looks wrong, symbol by symbol: its errors are those of `check_bars` and a calendar that does not fit; the rest are warnings,
because a crash looks like a split and a halt looks like a hole in the download.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pandas_market_calendars as mcal

from ploutos.errors import DataError
from ploutos.market import calendar as calendars
from ploutos.market.adjustment import ADJUSTMENT, PRICES
from ploutos.market.bars import FIELDS, Bars, infer_timeframe
from ploutos.market.instruments import InstrumentSpec
from ploutos.market.quality_report import CHECKS, Coverage, Finding, QualityReport, QualitySummary, Severity, iso
from ploutos.market.rolls import find_rolls
from ploutos.types import BoolArray, FloatArray, IntArray, TimeArray
from ploutos.wording import counted, plural

DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
NIGHT = pd.Timedelta(hours=20)
"""Bars at least this far apart are daily or longer, and have no minute."""
OVERLAP_BARS = 30
"""Bars that it takes to tell two interleaved series from one."""
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
WHOLE = 0.9
"""From this share of the calendar's sessions on, a symbol trades in all of them."""
ENDS_EARLY_SESSIONS = 5
"""More sessions than these before the panel's last bar: the symbol was delisted, or its download broke off."""
ADJUSTMENT_STEP = 0.1
"""A step of adj_close / close, log units, that the close should mirror."""
ADJUSTMENT_FOLD = 2.0
"""A step of the factor beyond this, up or down, that the close does not mirror makes prices false."""
ADJUSTMENT_LEVEL = 1.5
"""adj_close over close at the last bar that only later reverse splits would explain."""
_GATE = {
    "no_symbol": "{n} [row|rows] without a symbol; expected none",
    "no_timestamp": "{n} [row|rows] without a timestamp; expected none",
    "order": "{n} [bar|bars] out of order, first {first}; expected each symbol's bars by increasing time; sort them",
    "conflicts": (
        "{n} [bar that differs|bars that differ] from another bar of their symbol and time, first {first}; "
        "expected one bar per symbol and time; keep those of one source"
    ),
    "duplicates": "{n} duplicate [bar|bars], first {first}; expected one bar per symbol and time; remove the extra rows",
    "missing": (
        "{n} missing or infinite [value|values] in {column}, first {first}; expected numbers; remove those rows, a missing bar is allowed"
    ),
    "not_positive": "{n} {column} [price|prices] of zero or less, first {first}; expected more than 0, as of everything but a future",
    "outside": "{n} [bar|bars] whose open or close lies outside low..high, first {first}; expected low <= open, close <= high",
    "negative_volume": "{n} negative [volume|volumes], first {first}; expected 0 or more",
    "mixed_minutes": (
        "{n} [bar|bars] at another minute of the hour than the rest of their series, first {first}; "
        "expected one alignment; two sources are mixed: keep one of them"
    ),
}

Span = tuple[np.datetime64, np.datetime64]


# --- what is refused


@dataclass(frozen=True)
class _Table:
    """A long frame as arrays, one entry per row.

    Attributes:
        names: symbols, sorted.
        codes: position of each row's symbol in `names`, -1 where it has none.
        stamps: datetime64[us] UTC, NaT where a row has none.
        fields: OHLCV, float64.
        order: rows that have a symbol and a time, by both.
        ordered: whether those rows come in that order.
    """

    frame: pd.DataFrame
    names: list[str]
    codes: IntArray
    stamps: TimeArray
    fields: dict[str, FloatArray]
    order: IntArray
    ordered: bool

    def series(self, kept: IntArray) -> Iterator[tuple[str, IntArray]]:
        """Each symbol and its rows, of rows in the order of `order`."""
        codes = self.codes[kept]
        edges = np.flatnonzero(np.diff(codes, prepend=-1, append=-1)) if len(codes) else np.empty(0, dtype="int64")
        for start, stop in pairwise(edges):
            yield self.names[codes[start]], kept[start:stop]


@dataclass(frozen=True)
class _Fault:
    """Rows (positions, increasing) that break one rule."""

    check: str
    column: str
    rows: IntArray

    def sentence(self, frame: pd.DataFrame, origin: str) -> str:
        stamps = _naive(frame["timestamp"])
        of_days = bool((stamps == stamps.astype("datetime64[D]")).all())
        at = iso(stamps[self.rows[0]])
        first = f"{frame['symbol'].iloc[self.rows[0]]} at {at.removesuffix('T00:00Z') if of_days else at}"
        return f"{origin} has " + counted(_GATE[self.check], len(self.rows)).format(column=self.column, first=first)


def _table(frame: pd.DataFrame, origin: str) -> _Table:
    """A long frame as arrays.

    Raises:
        DataError: a column or a type is not the one expected.
    """
    wanted = ("symbol", "timestamp", *FIELDS)
    if absent := [name for name in wanted if name not in frame.columns]:
        raise DataError(f"{origin} has no column {', '.join(absent)}; expected {', '.join(wanted)}")
    for name in wanted[1:]:
        known = str(frame.dtypes[name])
        if known != "datetime64[us, UTC]" if name == "timestamp" else not pd.api.types.is_numeric_dtype(frame.dtypes[name]):
            expected = "timestamps in UTC, datetime64[us, UTC], and numbers as float64"
            raise DataError(f"{origin} has {name} of type {known}; expected {expected}")
    codes, names = pd.factorize(frame["symbol"], sort=True)
    stamps = _naive(frame["timestamp"])
    rows = np.flatnonzero((codes >= 0) & ~np.isnat(stamps))
    by_code, by_time = codes[rows], stamps[rows]
    same = by_code[1:] == by_code[:-1]
    ordered = bool(np.where(same, by_time[1:] >= by_time[:-1], by_code[1:] > by_code[:-1]).all())
    order = rows if ordered else rows[np.lexsort((by_time, by_code))]
    fields = {name: frame[name].to_numpy(dtype="float64", na_value=np.nan) for name in FIELDS}
    return _Table(frame, [str(name) for name in names], codes, stamps, fields, order, ordered)


def _naive(stamps: pd.Series) -> TimeArray:
    """Shape (n_bars,), datetime64[us] UTC."""
    return stamps.dt.tz_localize(None).to_numpy()


def _span(stamps: TimeArray) -> Span:
    """First and last time; of no bars none."""
    return (stamps.min(), stamps.max()) if len(stamps) else (np.datetime64("NaT", "us"), np.datetime64("NaT", "us"))


def _late(table: _Table) -> BoolArray:
    """Rows earlier than the row before them of their symbol."""
    late = np.zeros(len(table.codes), dtype=bool)
    if not table.ordered:
        rows = np.sort(table.order)
        rows = rows[np.argsort(table.codes[rows], kind="stable")]
        late[rows[1:]] = (np.diff(table.codes[rows]) == 0) & (np.diff(table.stamps[rows]) < np.timedelta64(0))
    return late


def _duplicates(table: _Table) -> tuple[BoolArray, BoolArray]:
    """Rows that repeat another row, and rows that contradict another one of their symbol and time."""
    again = (np.diff(table.codes[table.order]) == 0) & (np.diff(table.stamps[table.order]) == np.timedelta64(0))
    touched = np.r_[again, False] | np.r_[False, again]
    rows = table.order[touched[: len(table.order)]]
    equal, different = np.zeros(len(table.codes), dtype=bool), np.zeros(len(table.codes), dtype=bool)
    if len(rows):
        duplicates = table.frame.iloc[rows]
        repeated, taken = duplicates.duplicated().to_numpy(), duplicates.duplicated(["symbol", "timestamp"]).to_numpy()
        equal[rows], different[rows] = repeated & taken, ~repeated & taken
    return equal, different


def _outside(fields: dict[str, FloatArray]) -> BoolArray:
    """Rows of finite prices whose open or close lies outside low..high."""
    open_, high, low, close = (np.where(np.isfinite(fields[name]), fields[name], np.nan) for name in PRICES)
    tolerance = 1e-9 * np.abs(close)
    return (high < np.maximum(open_, close) - tolerance) | (low > np.minimum(open_, close) + tolerance)


def _at_other_minutes(table: _Table, instruments: Sequence[InstrumentSpec], calendar: str | None) -> BoolArray:
    """Bars of an intraday series at another minute of the hour than most of it, and at no edge of a session."""
    own = {spec.symbol: spec.calendar for spec in instruments}
    other = np.zeros(len(table.codes), dtype=bool)
    span = _span(table.stamps[table.order])
    series = list(table.series(table.order))
    panel = _usual_step(table.stamps[max((rows for _, rows in series), key=len)]) if series else None
    for symbol, rows in series:
        stamps = table.stamps[rows]
        usual = _usual_step(stamps)
        if usual is not None and usual < NIGHT:
            usual = min(usual, panel or usual)  # a thin symbol's own steps tell nothing
            if _overlap(table.fields["open"][rows], table.fields["close"][rows]):
                usual *= 2
            other[rows] = _off_minute(stamps, usual, own.get(symbol, calendar), span)[0]
    return other


def _usual_step(stamps: TimeArray) -> pd.Timedelta | None:
    """The most frequent step between bars, None where there is none."""
    steps = np.diff(stamps)
    steps, counts = np.unique(steps[steps > np.timedelta64(0)], return_counts=True)
    return pd.Timedelta(steps[counts.argmax()]) if len(steps) else None


def _overlap(open_: FloatArray, close: FloatArray) -> bool:
    """Whether bars go on where the last but one ended and not where the last one did: two series, each half a bar behind the other."""
    if len(close) < OVERLAP_BARS:
        return False
    next_, after = np.abs(open_[1:-1] - close[:-2]), np.abs(open_[2:] - close[:-2])
    return bool(np.median(after) < np.median(next_) / 2)


def _off_minute(stamps: TimeArray, timeframe: pd.Timedelta, calendar: str | None, span: Span) -> tuple[BoolArray, tuple[int, int]]:
    """Bars at another minute than most of their series, but for the bars at a session's edges; and the usual phases.

    A session may open, or close, between two bars of the clock: its first bar is then shorter and starts at the open, and bars
    labelled by their end have a last one at the close. After a pause for lunch another minute may be usual than before.

    Args:
        span: first and last time of all symbols, who share a calendar's sessions: they are slow to compute.

    Returns:
        Shape (n_bars,), and the most frequent phase (see `_phases`) before and after the pause.
    """
    phases = _phases(stamps, timeframe)
    if not (phases != phases[0]).any():
        return np.zeros(len(stamps), dtype=bool), (int(phases[0]), int(phases[0]))
    edge, later = np.zeros(len(stamps), dtype=bool), np.zeros(len(stamps), dtype=bool)
    if calendar is not None:
        edge, later = _at_edge(stamps, timeframe, calendar, span), _after_pause(stamps, calendar)
    usual = [_most_common(phases[part & ~edge] if (part & ~edge).any() else phases) for part in (~later, later)]
    before, after = usual if later.any() else (usual[0], usual[0])
    return (phases != np.where(later, after, before)) & ~edge, (before, after)


def _at_edge(stamps: TimeArray, timeframe: pd.Timedelta, calendar: str, span: Span) -> BoolArray:
    """First bars of a session that start with it or within it, and bars at its close."""
    sessions = calendars.sessions_around(*span, calendar)
    opens = sessions.opens[sessions.starting(stamps)]
    first = (stamps >= opens) & (stamps < opens + timeframe.to_timedelta64()) & np.r_[True, stamps[:-1] < opens[1:]]
    return first | _among(stamps, sessions.closes)


def _after_pause(stamps: TimeArray, calendar: str) -> BoolArray:
    """Bars that start after the beginning of the exchange's pause for lunch."""
    exchange = mcal.get_calendar(calendar)
    if exchange.break_start is None:
        return np.zeros(len(stamps), dtype=bool)
    local = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(exchange.tz)
    pause = pd.Timedelta(hours=exchange.break_start.hour, minutes=exchange.break_start.minute)
    return np.asarray(local.tz_localize(None) - local.tz_localize(None).normalize() >= pause)


def _among(values: TimeArray, increasing: TimeArray) -> BoolArray:
    """Whether each value is one of an increasing array."""
    if not len(increasing):
        return np.zeros(len(values), dtype=bool)
    return increasing[np.minimum(np.searchsorted(increasing, values), len(increasing) - 1)] == values


def _phases(stamps: TimeArray, timeframe: pd.Timedelta) -> IntArray:
    """Where in the hour, or in a shorter bar, each bar starts, in microseconds."""
    return stamps.astype("int64") % _grid(timeframe)


def _grid(timeframe: pd.Timedelta) -> int:
    """Microseconds after which the starts of bars look the same within an hour."""
    return int(np.gcd(timeframe // pd.Timedelta(microseconds=1), HOUR // pd.Timedelta(microseconds=1)))


def _most_common(phases: IntArray) -> int:
    values, counts = np.unique(phases, return_counts=True)
    return int(values[counts.argmax()])


def _faults(table: _Table, instruments: Sequence[InstrumentSpec], calendar: str | None) -> Iterator[_Fault]:
    """Broken rules, in the order of `CHECKS`, then of the columns; each only computed on request."""
    yield from _fault("no_symbol", "symbol", table.codes < 0)
    yield from _fault("no_timestamp", "timestamp", np.isnat(table.stamps))
    yield from _fault("order", "", _late(table))
    equal, different = _duplicates(table)
    yield from _fault("conflicts", "", different)
    yield from _fault("duplicates", "", equal)
    for name in FIELDS:
        yield from _fault("missing", name, ~np.isfinite(table.fields[name]))
    futures = {spec.symbol for spec in instruments if spec.asset_class == "future"}
    bound = np.array([name not in futures for name in table.names] + [True])[table.codes]  # the last one is for a row without a symbol
    for name in PRICES:
        yield from _fault("not_positive", name, (table.fields[name] <= 0) & bound)
    yield from _fault("outside", "", _outside(table.fields))
    yield from _fault("negative_volume", "volume", table.fields["volume"] < 0)
    yield from _fault("mixed_minutes", "", _at_other_minutes(table, instruments, calendar))


def _fault(check: str, column: str, broken: BoolArray) -> Iterator[_Fault]:
    if broken.any():
        yield _Fault(check, column, np.flatnonzero(broken))


def check_bars(frame: pd.DataFrame, origin: str, instruments: Sequence[InstrumentSpec] = (), calendar: str | None = None) -> None:
    """Refuse a long frame (symbol, timestamp, OHLCV) that cannot be traded on.

    Args:
        frame: `timestamp` datetime64[us, UTC], one row per symbol and bar, sorted by symbol and time; numbers of any
            width.
        origin: file or vendor, named in the message.
        instruments: what the symbols are: a future's price may be zero or negative, and a symbol named here keeps its own calendar.
        calendar: that of the other symbols; without one, bars at the edges of a session are held to the minute of the rest.

    Raises:
        DataError: a column or a type is not the one expected, a timestamp missing, bars out of order, two bars for one
            time (equal or different), a price that is missing, infinite, zero or negative, a high below or a low above
            its bar, a negative or missing volume, or an intraday series on two minutes of the hour.
        ConfigError: a calendar is unknown.
    """
    for fault in _faults(_table(frame, origin), instruments, calendar):
        raise DataError(fault.sentence(frame, origin))


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
    """The usable bars of one symbol, increasing in time, beside its clock.

    Attributes:
        slots: starts of the bars as the calendar would give them: a daily bar counts by its date, and a short first bar of a
            session as the whole one around it.
        adjustment: factor of each bar from `adjust`; empty where prices were not adjusted.
    """

    symbol: str
    instrument: InstrumentSpec | None
    clock: _Clock
    stamps: TimeArray
    slots: TimeArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    adjustment: FloatArray

    @cached_property
    def expected(self) -> TimeArray:
        """Bar starts that the calendar expects from the first bar to the last."""
        expected = self.clock.expected
        return expected[np.searchsorted(expected, self.slots[0]) : np.searchsorted(expected, self.slots[-1], side="right")]

    @cached_property
    def missing(self) -> TimeArray:
        """Expected bar starts without a bar."""
        return self.expected[~_among(self.expected, self.slots)]

    @cached_property
    def regular(self) -> BoolArray:
        """Bars that the calendar expects."""
        return _among(self.slots, self.clock.expected)


def inspect_bars(
    bars: pd.DataFrame | Bars,
    timeframe: pd.Timedelta | None = None,
    calendar: str | None = None,
    instruments: Sequence[InstrumentSpec] = (),
    now: pd.Timestamp | None = None,
    source: str = "bars",
) -> QualityReport:
    """Everything that looks wrong with bars, and where.

    Rows that break a rule of `check_bars` are reported and set aside, so that the other checks can go on. Bars longer than a
    day are compared with no calendar.

    Args:
        bars: a long frame (symbol, timestamp datetime64[us, UTC], OHLCV), or bars on one clock. With the column that
            `adjust` adds, the adjustment is inspected too.
        timeframe: length of a bar; for `Bars` their own, for a frame the most frequent step where it is left out.
        calendar: a pandas-market-calendars name; for `Bars` their own, for a frame NYSE where it is left out.
        instruments: what the symbols are. A symbol named here is held against its own calendar, a future is searched for
            roll gaps and may cost nothing or less, and an exchange rate has no volume. `Bars` bring those of all but shares.
        now: with it, a last bar older than the last finished session and a bar that is not over yet are found.
        source: where the bars come from, for people; `Bars` know it.

    Raises:
        DataError: columns or types are not those of a long frame, or there is no bar.
        ConfigError: a calendar is unknown.
    """
    if isinstance(bars, Bars):
        frame, source = bars.to_frame(), bars.source
        timeframe, calendar = timeframe or bars.timeframe, calendar or bars.calendar
        instruments = instruments or [spec for spec in bars.instruments if spec.asset_class != "equity"]
    else:
        frame, calendar = bars, calendar or "NYSE"
    table = _table(frame, source)
    faults = list(_faults(table, instruments, calendar))
    usable = _usable(table, faults, source)
    timeframe = timeframe or _longest_timeframe(table, usable)
    given = {spec.symbol: spec for spec in instruments}
    moment = None if now is None else np.datetime64(now.tz_convert("UTC").tz_localize(None), "us")
    first, last = _span(table.stamps[usable])
    span = (first, last if moment is None else max(last, moment))
    coverage, findings = [], [finding for fault in faults for finding in _fault_findings(fault, table)]
    for symbol, rows in table.series(usable):
        series = _series(table, rows, symbol, given.get(symbol), calendar, timeframe, span)
        clock, stamps = series.clock, series.stamps
        coverage.append(Coverage(symbol, clock.calendar, len(stamps), stamps[0], stamps[-1], len(series.expected), len(series.missing)))
        findings += _warnings(series, last, moment)
    order = {check: i for i, check in enumerate(CHECKS)}
    findings.sort(key=lambda finding: (finding.symbol, order[finding.check]))
    return QualityReport(source, timeframe, calendar, tuple(coverage), tuple(findings))


def require_sound(bars: Bars) -> QualitySummary:
    """What an inspection of bars says in short.

    Raises:
        DataError: it found an error.
    """
    report = inspect_bars(bars)
    report.raise_errors()
    return report.summary


def _usable(table: _Table, faults: list[_Fault], source: str) -> IntArray:
    """The rows that break no rule of `check_bars`, by symbol and time."""
    broken = np.zeros(len(table.codes), dtype=bool)
    for fault in faults:
        if fault.check != "order":
            broken[fault.rows] = True
    usable = table.order[~broken[table.order]]
    if not len(usable):
        raise DataError(faults[0].sentence(table.frame, source) if faults else f"{source} holds no bars; expected at least one")
    return usable


def _longest_timeframe(table: _Table, usable: IntArray) -> pd.Timedelta:
    """Bar length of the symbol with the most bars."""
    longest = np.bincount(table.codes[usable]).argmax()
    return infer_timeframe(pd.Series(table.stamps[usable[table.codes[usable] == longest]]))


def _fault_findings(fault: _Fault, table: _Table) -> Iterator[Finding]:
    """A broken rule, symbol by symbol."""
    codes = table.codes[fault.rows]
    for code in np.unique(codes):
        rows = fault.rows[codes == code]
        symbol = table.names[code] if code >= 0 else "(no symbol)"
        part = _Fault(fault.check, fault.column, rows)
        yield Finding(symbol, fault.check, "error", np.sort(table.stamps[rows]), part.sentence(table.frame, symbol))


def _series(
    table: _Table,
    rows: IntArray,
    symbol: str,
    instrument: InstrumentSpec | None,
    calendar: str,
    timeframe: pd.Timedelta,
    span: Span,
) -> _Series:
    """One symbol's bars beside the clock of its calendar; the clock spans all symbols, who share it."""
    stamps = table.stamps[rows]
    calendar = instrument.calendar if instrument else calendar
    off, usual = np.zeros(len(stamps), dtype=bool), (0, 0)
    if timeframe < DAY:
        _, usual = _off_minute(stamps, timeframe, calendar, span)
    clock = _clock(calendar, timeframe, usual, *span)
    slots = stamps.astype("datetime64[D]").astype("datetime64[us]") if timeframe >= DAY else stamps.copy()
    if timeframe < DAY:
        off = ~_among(stamps, clock.expected) & ~np.isin(_phases(stamps, timeframe), usual)
    if off.any():
        around = clock.expected[np.searchsorted(clock.expected, stamps[off], side="right") - 1]
        slots[off] = np.where(stamps[off] < around + timeframe.to_timedelta64(), around, stamps[off])
    factor = table.frame[ADJUSTMENT].to_numpy()[rows] if ADJUSTMENT in table.frame.columns else np.empty(0)
    fields = {name: table.fields[name][rows] for name in FIELDS}
    return _Series(symbol, instrument, clock, stamps, slots, adjustment=factor, **fields)


@lru_cache(maxsize=16)
def _clock(calendar: str, timeframe: pd.Timedelta, usual: tuple[int, int], first: np.datetime64, last: np.datetime64) -> _Clock:
    """A calendar over a span, with a week to spare for sessions that open the evening before; `usual` as of `_off_minute`."""
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
    offset = local // pd.Timedelta(microseconds=1)  # some zones are half an hour off
    minutes = [(phase + offset) % _grid(timeframe) // 60_000_000 for phase in usual]
    expected, after = (calendars.expected_bars(calendar, timeframe, start, end, minute) for minute in minutes)
    if minutes[0] != minutes[1]:
        expected = np.sort(np.r_[expected[~_after_pause(expected, calendar)], after[_after_pause(after, calendar)]])
    session_of = calendars.sessions(expected, timeframe, calendar)
    opens = expected[np.searchsorted(session_of, sessions)]
    pre, post = nothing, nothing
    if "pre" in exchange.regular_market_times:
        hours = exchange.schedule(start_date=start, end_date=end, tz="UTC", start="pre", end="post")
        pre, post = (_naive(hours[name]).astype("datetime64[us]") for name in ("pre", "post"))
    return _Clock(calendar, timeframe, expected, session_of, sessions, opens, closes, pre, post)


def _reused(series: _Series) -> BoolArray:
    """First bars after more than `REUSE_SESSIONS` sessions without one."""
    ordinal = np.searchsorted(series.clock.opens, series.slots, side="right")
    return np.diff(ordinal, prepend=ordinal[0]) - 1 > REUSE_SESSIONS


def _extended(series: _Series, outside: BoolArray) -> BoolArray:
    """Of the bars outside regular hours, those between the pre-market's start and the post-market's end."""
    extended = np.zeros_like(outside)
    if len(series.clock.pre) and outside.any():
        stamps = series.stamps[outside]
        position = np.searchsorted(series.clock.pre, stamps, side="right") - 1
        extended[outside] = (position >= 0) & (stamps < series.clock.post[np.maximum(position, 0)])
    return extended


def _in_runs(marked: BoolArray) -> BoolArray:
    """Of the marked bars, those in runs of at least `STALE_BARS`."""
    run = np.cumsum(~marked)
    return marked & (np.bincount(run, weights=marked)[run] >= STALE_BARS)


def _log_ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Log of a ratio of prices; 0, which is not a move, where one of them is not above 0."""
    return np.asarray(np.log(np.divide(above, below, out=np.ones_like(above), where=(above > 0) & (below > 0))))


def _before(close: FloatArray) -> FloatArray:
    """The close before each bar's; of the first bar its own."""
    return np.r_[close[:1], close[:-1]]


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
    before = _before(series.close)
    returns = _log_ratio(series.close, before)
    soon, later = _taken_back(returns)
    wicks = np.maximum(_log_ratio(series.high, np.maximum(before, series.close)), _log_ratio(np.minimum(before, series.close), series.low))
    spikes, back = np.zeros(len(returns), dtype=bool), np.zeros(len(returns), dtype=bool)
    sudden = (np.abs(returns) > JUMP_FLOOR) & (soon | later)
    if not (sudden | (wicks > JUMP_FLOOR)).any():  # so are most series of minutes, and the rolling median is slow
        return spikes, back
    thresholds = _thresholds(returns)
    for t in np.flatnonzero(sudden & (np.abs(returns) > thresholds)):  # few; a jump back is not a spike of its own
        if not back[t]:
            spikes[t] = True
            back[t + (1 if soon[t] else 2)] = True
    return spikes | ((wicks > thresholds) & ~back), back


def _suspected_splits(series: _Series, excluded: BoolArray) -> tuple[BoolArray, FloatArray]:
    """Bars that open near k times or 1 / k of the close before and stay there, and the size of every such step."""
    before = _before(series.close)
    opening = np.exp(np.abs(_log_ratio(series.open, before)))
    returns = _log_ratio(series.close, before)
    k = np.maximum(np.rint(opening), 2)
    soon, later = _taken_back(returns)
    near = np.abs(opening / k - 1) <= SPLIT_TOLERANCE
    stays = (np.abs(returns) > np.log(1.5)) & (np.sign(returns) == np.sign(series.open - before)) & ~(soon | later)
    return near & stays & ~excluded, k


def _warnings(series: _Series, panel_last: np.datetime64, now: np.datetime64 | None) -> Iterator[Finding]:
    """What looks wrong with one symbol."""
    yield from _calendar_findings(series)
    yield from _volume_findings(series)
    yield from _end_findings(series, panel_last)
    if now is not None:
        yield from _clock_findings(series, now)
    yield from _price_findings(series)
    yield from _adjustment_findings(series.symbol, series.stamps, series.close, series.adjustment)
    yield from _roll_findings(series)


def _finding(symbol: str, check: str, at: TimeArray, words: str, severity: Severity = "warning") -> Iterator[Finding]:
    """The finding, if there is anything at all; `words` may hold {n}, [one|many] and {first}."""
    if len(at):
        sentence = counted(words, len(at)).format(first=iso(at[0]))
        yield Finding(symbol, check, severity, at, f"{symbol} {sentence}")


def _calendar_findings(series: _Series) -> Iterator[Finding]:
    clock = series.clock
    if clock.timeframe > DAY:
        return
    if HOUR < clock.timeframe < DAY:  # such bars lie on no grid that all exchanges share
        sessions = calendars.sessions_around(series.stamps[0], series.stamps[-1], clock.calendar)
        closed = sessions.opens[sessions.starting(series.stamps)] >= series.stamps + clock.timeframe.to_timedelta64()
        severity: Severity = "error" if closed.sum() > MISFIT * len(closed) else "warning"
        words = (
            f"has {{n}} [bar|bars] while {clock.calendar} was closed, first {{first}}; expected none; check the calendar and the time zone"
        )
        yield from _finding(series.symbol, "off_session", series.stamps[closed], words, severity)
        return
    misfit = "more than half: set data.calendar and data.timeframe to what the symbol trades on"
    missing, reused = series.missing, _reused(series)
    expected = len(series.expected)
    in_reuse = reused[np.searchsorted(series.slots, missing)]
    n_sessions = len(np.unique(clock.session_of[np.searchsorted(clock.expected, missing)]))
    unfit = int((~in_reuse).sum()) > MISFIT * expected and _misses_hours(series)
    yield from _finding(
        series.symbol, "gaps", missing,
        f"misses {{n}} of {plural(expected, 'bar')} of {clock.calendar} in {plural(n_sessions, 'session')}, first {{first}}; "
        f"expected each between its first and its last; {misfit if unfit else 'download the range again, or accept the gaps'}",
        "error" if unfit else "warning",
    )  # fmt: skip
    outside = ~series.regular
    extended = _extended(series, outside)
    unfit = int((outside & ~extended).sum()) > MISFIT * len(outside)
    yield from _finding(
        series.symbol, "off_session", series.stamps[outside & ~extended],
        f"has {{n}} [bar|bars] while {clock.calendar} was closed, first {{first}}; expected none; "
        f"{misfit if unfit else 'check the calendar and the time zone'}",
        "error" if unfit else "warning",
    )  # fmt: skip
    yield from _finding(
        series.symbol, "extended_hours", series.stamps[extended],
        f"has {{n}} [bar|bars] outside the regular hours of {clock.calendar}, first {{first}}; "
        "expected regular hours; leave them out unless their thin trading is wanted",
    )  # fmt: skip
    yield from _finding(
        series.symbol, "ticker_reuse", series.stamps[reused],
        f"resumes {{n}} [time|times] after more than {REUSE_SESSIONS} sessions without a bar, first {{first}}; "
        "expected one listing; cut the series there if two companies used the name",
    )  # fmt: skip


def _misses_hours(series: _Series) -> bool:
    """Whether more than half of the calendar's bars lie at a time of the session at which the symbol never trades; a thin one does now and
    then. Where it trades in nearly all sessions, only times between its earliest and its latest count: it may keep to the day's hours."""
    clock = series.clock
    if clock.timeframe == DAY:
        return True
    traded = np.isin(clock.expected, series.slots)
    of_session = clock.expected - clock.opens[np.searchsorted(clock.sessions, clock.session_of)]
    seen = np.unique(of_session[traded])
    expected, slots = (np.unique(np.searchsorted(clock.opens, stamps, side="right")) for stamps in (series.expected, series.slots))
    if len(seen) and np.isin(expected, slots).mean() >= WHOLE:
        of_session = of_session[(of_session >= seen[0]) & (of_session <= seen[-1])]
    return bool((~np.isin(of_session, seen)).mean() > MISFIT)


def _volume_findings(series: _Series) -> Iterator[Finding]:
    """Silent for an exchange rate, whose volume is one broker's, and for a symbol that never has volume, such as an index."""
    if (series.instrument is not None and series.instrument.asset_class == "fx") or not series.volume.any():
        return
    silent = series.volume == 0
    yield from _finding(
        series.symbol, "zero_volume", series.stamps[series.regular & silent],
        "has {n} [bar|bars] without volume in regular hours, first {first}; expected trades; no order could have been filled there",
    )  # fmt: skip
    yield from _finding(
        series.symbol, "stale", series.stamps[_in_runs(silent & (np.diff(series.close, prepend=np.nan) == 0))],
        f"has {{n}} [bar|bars] in runs of {STALE_BARS} or more without volume and without a new price, first {{first}}; "
        "expected trading; check with the vendor whether it was halted",
    )  # fmt: skip


def _end_findings(series: _Series, panel_last: np.datetime64) -> Iterator[Finding]:
    """A symbol that stops long before the panel does, counted by its own calendar."""
    opens = series.clock.opens
    behind = int(((opens > series.slots[-1]) & (opens <= panel_last)).sum())
    if behind > ENDS_EARLY_SESSIONS:
        yield from _finding(
            series.symbol, "ends_early", series.stamps[-1:],
            f"ends on {iso(series.stamps[-1])[:10]}, {plural(behind, 'session')} before the others: taken as delisted and paid out; "
            "see data.delisting, or update the data",
        )  # fmt: skip


def _clock_findings(series: _Series, now: np.datetime64) -> Iterator[Finding]:
    """What is late and what is early at `now`."""
    clock = series.clock
    late = clock.sessions[(clock.opens > series.slots[-1]) & (clock.closes <= now)].astype("datetime64[us]")
    yield from _finding(
        series.symbol, "outdated", late,
        f"ends at {iso(series.stamps[-1])}, {{n}} finished [session|sessions] ago; expected bars of {{first}} and later; "
        "update the data, or it was delisted",
    )  # fmt: skip
    recent = series.stamps[series.stamps > now - np.timedelta64(2, "D")]
    known = calendars.available_at(recent, clock.timeframe, clock.calendar) if len(recent) else recent
    yield from _finding(
        series.symbol, "unfinished", recent[known > now],
        f"has {{n}} [bar that is|bars that are] not over at {iso(now)}, first {{first}}; expected finished bars; "
        "leave them out, or correct their time zone",
    )  # fmt: skip


def _price_findings(series: _Series) -> Iterator[Finding]:
    bad, back = _bad_ticks(series)
    yield from _finding(
        series.symbol, "bad_ticks", series.stamps[bad],
        f"has {{n}} [move|moves] beyond {JUMP_SIGMAS:.0f} sigmas that [was|were] reversed at once, first {{first}}; "
        "expected none; compare them with another source",
    )  # fmt: skip
    steps, k = _suspected_splits(series, bad | back | _reused(series))
    if steps.any():
        t = int(np.flatnonzero(steps)[0])
        ratio = f"1/{k[t]:.0f} of" if series.open[t] < series.close[t - 1] else f"{k[t]:.0f} times"
        yield from _finding(
            series.symbol, "suspected_splits", series.stamps[steps],
            f"has {{n}} [open that looks like a split|opens that look like splits], first {{first}} near {ratio} the close "
            "before; expected adjusted prices; check the list of corporate actions, since a crash looks the same",
        )  # fmt: skip


def inspect_adjustment(frame: pd.DataFrame) -> list[Finding]:
    """What adjusted prices betray about the adj_close that they were made of, by symbol; errors where prices would be false.

    For a loader that puts bars on one clock and so loses the factors; `inspect_bars` does the same for a frame that has them.

    Args:
        frame: from `ploutos.market.adjustment.adjust`, checked.

    Raises:
        DataError: columns or types are not those of a long frame.
    """
    table, factor = _table(frame, "bars"), frame[ADJUSTMENT].to_numpy()
    return [
        finding
        for symbol, rows in table.series(table.order)
        for finding in _adjustment_findings(symbol, table.stamps[rows], table.fields["close"][rows], factor[rows])
    ]


def _adjustment_findings(symbol: str, stamps: TimeArray, close: FloatArray, factor: FloatArray) -> Iterator[Finding]:
    """What is wrong with the factors of one symbol; nothing where there are none."""
    if not len(factor):
        return
    moved = _log_ratio(close, _before(close))
    step = np.log(factor / _before(factor))
    unadjusted = moved - step
    jumps = (np.abs(step) > ADJUSTMENT_STEP) & (np.abs(moved) > np.abs(unadjusted))
    stale = _in_runs((np.abs(moved) < 1e-9) & (np.abs(unadjusted) > 1e-6))
    yield from _finding(
        symbol, "adjustment_jumps", stamps[jumps],
        f"has {{n}} [step|steps] of adj_close over close by more than {ADJUSTMENT_STEP:.0%} that the close does not mirror, "
        "first {{first}}; expected a split or payout behind each; compare adj_close with another source, or set data.adjustment=raw",
        "error" if (np.abs(step[jumps]) > np.log(ADJUSTMENT_FOLD)).any() else "warning",
    )  # fmt: skip
    yield from _finding(
        symbol, "adjustment_stale", stamps[stale],
        f"has {{n}} [bar|bars] in runs of {STALE_BARS} or more in which the close moves and adj_close does not, first {{first}}; "
        "expected both to move; compare adj_close with another source, or set data.adjustment=raw",
        "error" if stale.mean() > MISFIT else "warning",
    )  # fmt: skip
    yield from _finding(
        symbol, "adjustment_level", stamps[-1:] if factor[-1] > ADJUSTMENT_LEVEL else stamps[:0],
        f"has an adj_close of {factor[-1]:.4g} times the close at its last bar, {{first}}; expected at most 1 unless reverse splits "
        "came later; compare adj_close with another source, or set data.adjustment=raw",
    )  # fmt: skip


def _roll_findings(series: _Series) -> Iterator[Finding]:
    """Jumps of a continuous future at the rolls of its contracts."""
    clock, spec = series.clock, series.instrument
    if spec is None or not spec.roll_cycle:
        return
    stamps = pd.DatetimeIndex(series.stamps).tz_localize("UTC")
    bars = pd.DataFrame({"timestamp": stamps, "open": series.open, "close": series.close})
    rolls = find_rolls(bars, spec, clock.calendar, clock.timeframe)
    yield from _finding(
        series.symbol, "roll_gaps", np.array(rolls.dates, dtype="datetime64[us]"),
        f"jumps by {rolls.mean_gap:+.1%} on average at {{n}} expected [roll|rolls], first {{first}}, at {rolls.n_jumps:,} of them out of "
        "line with the gaps around: a continuous series whose gaps nobody earns; set data.rolls=detected or give the dates",
    )  # fmt: skip
