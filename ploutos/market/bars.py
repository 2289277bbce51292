"""Bars of many symbols on one clock.

A bar is labelled by its start and known at `available_at`. Symbols with unequal histories share one time axis; where a
symbol has no bar, its prices are nan and `tradable` is False. Nothing is filled in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.market import calendar as calendars
from ploutos.market.instruments import InstrumentSpec, equity
from ploutos.store import Kind
from ploutos.types import BoolArray, FloatArray, IntArray, TimeArray
from ploutos.wording import counted, enumerate_names

_NIGHT = pd.Timedelta(hours=20)
"""Bars at least this far apart are days, weeks or months."""
_LONG = {(0.8, 4): calendars.DAY, (6, 8): calendars.WEEK, (27, 32): calendars.MONTH}
"""Days between the bars of each length: the clocks change, there are holidays, and months are unequal."""
_BLOCK, _ODD = 20, 3
"""Steps between bars that it takes to tell a change of length, and how many shorter ones may be among them: a session may open with one."""
FIELDS = ("open", "high", "low", "close", "volume")
MAX_SYMBOLS = 512
"""Symbols that the environment has room for; a run that lists more is refused before its bars are read."""


@dataclass(frozen=True, repr=False)
class Bars:
    """Aligned bars.

    Attributes:
        timestamps: shape (n_bars,), datetime64[us] UTC, bar starts, strictly increasing.
        available_at: shape (n_bars,), datetime64[us] UTC, when each bar is known.
        symbols: n_symbols names, sorted.
        open, high, low, close, volume: shape (n_bars, n_symbols), float64, nan where a symbol has no bar.
        timeframe: length of a bar.
        calendar: pandas-market-calendars name.
        source: where the bars come from, for people.
        instruments: n_symbols specs, in the order of `symbols`.
        payouts: n_symbols prices at which a unit of a delisted symbol is paid out, in the bar after its last one; nan for a symbol
            that is listed to the end. Empty where no symbol was delisted.
        zone: zone in which the source gave its timestamps, in words.
        label: which end of a bar the source's timestamps named: `start`, `end` or `date`; ours name the start.
        notes: what was done to the bars on the way here, one sentence each, for the report.
    """

    timestamps: TimeArray
    available_at: TimeArray
    symbols: tuple[str, ...]
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    timeframe: pd.Timedelta
    calendar: str
    source: str
    instruments: tuple[InstrumentSpec, ...]
    payouts: tuple[float, ...] = ()
    zone: str = "UTC"
    label: str = "start"
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Bars({self.n_bars:,} of {enumerate_names(self.symbols, 8)}, {span_in_words(self.timestamps)}, {self.source})"

    @property
    def n_bars(self) -> int:
        return len(self.timestamps)

    @property
    def n_symbols(self) -> int:
        return len(self.symbols)

    @cached_property
    def n_tradable(self) -> IntArray:
        """Shape (n_bars,): symbols that have a bar."""
        return self.tradable.sum(axis=1)

    @cached_property
    def tradable(self) -> BoolArray:
        """Shape (n_bars, n_symbols): the symbol has a bar here."""
        return np.isfinite(self.close)

    @cached_property
    def mark(self) -> FloatArray:
        """Shape (n_bars, n_symbols): last close known at each bar's end, nan before a symbol's first bar."""
        last = np.where(self.tradable, np.arange(self.n_bars)[:, None], -1)
        last = np.maximum.accumulate(last, axis=0)
        marks = np.take_along_axis(self.close, np.maximum(last, 0), axis=0)
        return np.where(last >= 0, marks, np.nan)

    @cached_property
    def sessions(self) -> TimeArray:
        """Shape (n_bars,), datetime64[D]: session date of each bar."""
        return calendars.sessions(self.timestamps, self.timeframe, self.calendar)

    @cached_property
    def has_volume(self) -> BoolArray:
        """Shape (n_symbols,): the symbol traded at least once; exchange rates and indices often come without volume."""
        return np.asarray((np.nan_to_num(self.volume) > 0).any(axis=0))

    @cached_property
    def sessions_per_year(self) -> float:
        """Sessions of the panel, or its weeks or months, per year from the first to the last."""
        held = np.unique(self.sessions)
        begin, end = held[:1], held[-1:] + 1
        if self.timeframe > calendars.DAY:
            begin, end = calendars.period_starts(begin, self.timeframe), calendars.period_starts(held[-1:], self.timeframe, ahead=1)
        return float(len(held) / ((end - begin).astype("int64")[0] / calendars.DAYS_PER_YEAR))

    @cached_property
    def payout_bars(self) -> IntArray:
        """Shape (n_symbols,): the bar in which a delisted symbol is paid out, -1 for one that is listed to the end."""
        last = self.n_bars - 1 - self.tradable[::-1].argmax(axis=0)
        paid = np.isfinite(self.payouts) if self.payouts else np.zeros(self.n_symbols, dtype=np.bool_)
        return np.where(paid & self.tradable.any(axis=0), last + 1, -1)

    def to_frame(self) -> pd.DataFrame:
        """The bars that are there, by symbol and time: symbol, timestamp (bar start, UTC), open, high, low, close, volume."""
        column, row = np.nonzero(self.tradable.T)
        stamps = pd.DatetimeIndex(self.timestamps[row]).tz_localize("UTC")
        columns = {name: getattr(self, name)[row, column] for name in FIELDS}
        return pd.DataFrame({"symbol": np.array(self.symbols, dtype=object)[column], "timestamp": stamps, **columns})

    def head(self, n_bars: int) -> "Bars":
        """The first `n_bars` bars: what was known then. A delisting whose payout lies beyond them has not happened."""
        paid = (self.payout_bars >= 0) & (self.payout_bars < n_bars)
        arrays: dict[str, Any] = {name: getattr(self, name)[:n_bars] for name in ("timestamps", "available_at", *FIELDS)}
        return replace(self, payouts=tuple(np.where(paid, self.payouts, np.nan).tolist()) if paid.any() else (), **arrays)


def span_in_words(timestamps: TimeArray) -> str:
    """First and last day.

    >>> span_in_words(np.array(["2024-01-02T14", "2024-01-05T20"], dtype="datetime64[us]"))
    '2024-01-02 to 2024-01-05'
    """
    return " to ".join(str(timestamps[at].astype("datetime64[D]")) for at in (0, -1)) if len(timestamps) else "no days"


def infer_timeframe(timestamps: pd.Series) -> pd.Timedelta:
    """Bar length of one symbol: the most frequent step between bars; days, weeks and months are told by their own range of steps.

    Raises:
        DataError: fewer than two bars, or bars that are not part of a day, nor days, weeks or months.
    """
    steps = timestamps.diff().dropna()
    if steps.empty:
        raise DataError("found one bar; expected at least two to determine the bar length; set data.timeframe")
    usual = pd.Timedelta(steps.mode().iloc[0])
    if usual < _NIGHT:
        return usual
    for (least, most), timeframe in _LONG.items():
        if least <= usual / calendars.DAY <= most:
            return timeframe
    raise DataError(
        f"found bars {usual / calendars.DAY:g} days apart; expected bars of days, weeks or months at most; give shorter bars and make "
        "longer ones of them with data.timeframe"
    )


def find_change(timestamps: pd.Series) -> tuple[pd.Timestamp, pd.Timedelta, pd.Timedelta] | None:
    """Where the length of one symbol's bars changes, and the lengths before and after; None where one holds throughout.

    A block of bars has a length where its shortest steps are equal but for a few; bars that are only missing leave steps of many sizes.
    """
    stamps = timestamps.reset_index(drop=True)
    steps = stamps.diff().dropna()
    if len(steps) < 2 * _BLOCK:
        return None
    days = (steps.dt.total_seconds() / calendars.DAY.total_seconds()).round()
    by_day = (days >= 1) & ((steps - days * calendars.DAY).abs() <= pd.Timedelta(hours=1))
    for (least, most), timeframe in _LONG.items():
        steps = steps.mask(by_day & days.between(least, most), timeframe)
    usual = steps.mode().iloc[0].to_timedelta64()
    blocks = np.sort(np.lib.stride_tricks.sliding_window_view(steps.to_numpy(), _BLOCK)[:: _BLOCK // 2], axis=1)
    lengths = blocks[:, _ODD]
    clear = lengths == blocks[:, _ODD + _BLOCK // 2 - 1]
    other = clear & ((lengths < usual) | ((lengths > usual) & (blocks[:, 0] > usual)))
    if not other.any():
        return None
    block = int(other.argmax())
    first, length = block * _BLOCK // 2, pd.Timedelta(lengths[block])
    at = np.flatnonzero(steps.to_numpy() == usual)
    if at[0] < first:
        return stamps[int(at[at < first][-1]) + 1], pd.Timedelta(usual), length
    return stamps[int(at[at >= first][0])], length, pd.Timedelta(usual)


def align(
    frame: pd.DataFrame, timeframe: pd.Timedelta, calendar: str, source: str, instruments: Sequence[InstrumentSpec] = (), **more: Any
) -> Bars:
    """Put a checked long frame (symbol, timestamp, OHLCV) on one clock.

    The time axis is the union of all symbols' bars, so a halt or a late listing leaves gaps instead of shifting rows. A row is
    known when the last of its bars is.

    Args:
        frame: with `available_at` where it does not follow from timeframe and calendar.
        instruments: specs by symbol; a symbol without one is a share.
        more: further fields of `Bars`.

    Raises:
        DataError: the bars of two symbols overlap without coinciding, so that a row is known after the next has begun; or a symbol has
            two bars for one time.
    """
    stamps = frame["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    timestamps, rows = np.unique(stamps, return_inverse=True)
    names = frame["symbol"].astype(str)
    symbols, columns = np.unique(names.to_numpy(dtype=object), return_inverse=True)
    _require_one_bar_each(names, stamps, rows * len(symbols) + columns)
    for name in FIELDS:
        more[name] = np.full((len(timestamps), len(symbols)), np.nan)
        more[name][rows, columns] = frame[name].to_numpy(dtype="float64")
    if "available_at" in frame.columns:
        known = frame["available_at"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        available_at = timestamps.copy()
        np.maximum.at(available_at, rows, known)
        _require_one_clock(frame, rows, known, timestamps, available_at)
    else:
        available_at = calendars.available_at(timestamps, timeframe, calendar)
    given = {spec.symbol: spec for spec in instruments}
    return Bars(
        timestamps=timestamps,
        available_at=available_at,
        symbols=tuple(symbols.tolist()),
        timeframe=timeframe,
        calendar=calendar,
        source=source,
        instruments=tuple(given.get(symbol, equity(symbol)) for symbol in symbols.tolist()),
        **more,
    )


def _require_one_bar_each(names: pd.Series, stamps: TimeArray, cells: IntArray) -> None:
    """Refuse two bars of one symbol and time: one would overwrite the other."""
    if (twice := pd.Series(cells).duplicated().to_numpy()).any():
        at = int(twice.argmax())
        raise DataError(
            f"{names.iloc[at]} has {counted('{n} [bar that begins|bars that begin]', int(twice.sum()))} when another one does, "
            f"first {str(stamps[at])[:16]}Z; expected one bar per symbol and time; check data.timeframe and data.label"
        )


def _require_one_clock(frame: pd.DataFrame, rows: IntArray, known: TimeArray, timestamps: TimeArray, available_at: TimeArray) -> None:
    """Refuse a panel in which a row is known after the next one begins: a fill there would happen before the bar that decided it closed."""
    late = np.flatnonzero(available_at[:-1] > timestamps[1:])
    if not len(late):
        return
    row = int(late[0])
    one = frame.iloc[int(np.flatnonzero((rows == row) & (known == available_at[row]))[0])]
    other = frame.iloc[int(np.flatnonzero(rows == row + 1)[0])]
    known_at, begun = f"{one['available_at']:%Y-%m-%d %H:%MZ}", f"{other['timestamp']:%Y-%m-%d %H:%MZ}"
    if one["symbol"] == other["symbol"]:
        raise DataError(
            f"{one['symbol']} has overlapping bars of one symbol: that of {one['timestamp']:%Y-%m-%d %H:%MZ} is known at {known_at}, after "
            f"that of {begun} has begun ({len(late):,} such rows); expected each to end before the next begins; check data.label, or keep "
            "the bars of one source"
        )
    raise DataError(
        f"{one['symbol']}'s bar of {one['timestamp']:%Y-%m-%d %H:%MZ} is known at {known_at}, after "
        f"{other['symbol']}'s bar of {begun} has begun ({len(late):,} such rows); expected one clock for all "
        "symbols; use files whose bars start together, or bring all to sessions with data.timeframe=1D"
    )


def write_bars(bars: Bars, path: Path) -> None:
    """Write bars as a long parquet: timestamp, available_at, symbol, OHLCV; readable with pandas or duckdb."""
    frame = pd.DataFrame(
        {
            "timestamp": np.repeat(bars.timestamps, bars.n_symbols),
            "available_at": np.repeat(bars.available_at, bars.n_symbols),
            "symbol": np.tile(np.array(bars.symbols), bars.n_bars),
            **{name: getattr(bars, name).ravel() for name in FIELDS},
        }
    )
    frame = frame[bars.tradable.ravel()].reset_index(drop=True)
    for column in ("timestamp", "available_at"):
        frame[column] = frame[column].dt.tz_localize("UTC")
    instruments = [spec.model_dump(mode="json") for spec in bars.instruments]
    kept = {"calendar": bars.calendar, "source": bars.source, "zone": bars.zone, "label": bars.label, "notes": list(bars.notes)}
    payouts = [price if np.isfinite(price) else None for price in bars.payouts]
    frame.attrs = kept | {"timeframe": str(bars.timeframe), "instruments": instruments, "payouts": payouts}
    frame.to_parquet(path, index=False)


def read_bars(path: Path) -> Bars:
    """Read what `write_bars` wrote.

    Raises:
        DataError: a column is missing, `available_at` above all.
    """
    frame = pd.read_parquet(path)
    require_available_at(frame, path)
    attrs = frame.attrs
    instruments = [InstrumentSpec.model_validate(spec) for spec in attrs["instruments"]]
    more = {"payouts": tuple(np.nan if price is None else price for price in attrs["payouts"]), "notes": tuple(attrs["notes"])}
    more |= {"zone": attrs["zone"], "label": attrs["label"]}
    return align(frame, pd.Timedelta(attrs["timeframe"]), attrs["calendar"], attrs["source"], instruments, **more)


def require_available_at(frame: pd.DataFrame, path: Path) -> None:
    """Refuse a table that does not say when its rows were known."""
    if "available_at" not in frame.columns or bool(frame["available_at"].isna().any()):
        raise DataError(f"{path.name} does not say when its rows were known; expected a full available_at column")


BARS = Kind("bars", ".parquet", write_bars, read_bars)
