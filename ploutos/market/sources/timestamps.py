"""When a bar's timestamp is: text, counts from 1970, dates and datetimes as instants, and the day that each of them names."""

import difflib
import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ploutos.errors import ConfigError, DataError
from ploutos.market.sources.columns import FileFormat
from ploutos.types import BoolArray, IntArray, TimeArray

Ambiguous = Literal["error", "infer", "earlier", "later"]

_RFC_822 = {"Z": 0, "UT": 0, "UTC": 0, "GMT": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d{2}))?")
_ZONED = (  # a time of day, then a zone; RE2 has no lookahead, so AM and PM go with the time
    r"^(?P<wall>.*?(?::\d{2}(?:[.,]\d+)?|[T ]\d{2}(?:\d{2}){0,2}|\d{8}T?\d{6})(?:\s*[AaPp]\.?[Mm]\.?)?)\s*"
    r"(?P<zone>[Zz]|(?:GMT|UTC)?[+-]\d{1,2}(?::?\d{2})?|[A-Za-z]{3,}[A-Za-z_]*(?:[/+-][A-Za-z0-9_+-]+)*|US/[A-Za-z_-]+|GB)(?:\s*\([^)]*\))?$"
)
_ISO_END = re.compile(r"(?<=:\d\d)(?:Z|[+-]\d{2}:?\d{2})$")
_WEEKDAY = r"(?:[A-Za-z]{3,9},?\s+)?"
_MONTH = r"(?P<name>[A-Za-z]{3,9})\.?"
_DATES = (
    r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})",
    r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
    r"(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})[-/.](?P<y>\d{4}|\d{2})",
    _WEEKDAY + r"(?P<d>\d{1,2})(?:st|nd|rd|th)?[-/ .]*" + _MONTH + r"[-/ ,]*(?P<y>\d{4}|\d{2})",
    _WEEKDAY + _MONTH + r"[-/ ]*(?P<d>\d{1,2})(?:st|nd|rd|th)?[-/ ,]+(?P<y>\d{4}|\d{2})",
    r"(?P<y>\d{4})[-/ ]" + _MONTH + r"[-/ ](?P<d>\d{1,2})",
)
_TIMES = (
    r"(?:[Tt ,;_-]+(?P<H>\d{1,2})(?::(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,:](?P<F>\d{1,9}))?)?)?[- ]*(?P<half>[AaPp])?(?:\.?[Mm]\.?)?)?",
    r"[Tt _-]*(?P<H>\d{2})(?P<M>\d{2})(?P<S>\d{2})?(?:\.?(?P<F>\d{1,6}))?",
)
_COMPACT = r"^(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?)?$"
_CLOCK = r"^\d{1,2}:\d{2}|^\d{1,6}$"
_MONTHS = {name: i + 1 for i, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])}
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_MINUTE, _DAY = 60_000_000, 86_400_000_000
_EXCEL_DAYS = 20_000, 80_000
"""What Excel counts from 1900 on in the years 1954 to 2119."""
_FEW_DATES = 5
"""Distinct dates below which their order decides nothing."""


@dataclass(frozen=True)
class Stamps:
    """The timestamps of a file.

    Attributes:
        utc: instants, datetime64[us, UTC], NaT where a cell is empty; the date at 00:00 UTC where a file names days without a zone.
        date: local dates, datetime64[us], where the file's timestamps name days; else None.
        zone: where the zone came from, in words.
        notes: what was decided about them.
    """

    utc: pd.Series
    date: pd.Series | None
    zone: str
    notes: tuple[str, ...] = ()


def find_zone(name: str) -> tzinfo | None:
    """A zone by its IANA name, RFC 822 abbreviation or offset, None if there is none of that name.

    >>> find_zone("GMT-0500").utcoffset(None)
    datetime.timedelta(days=-1, seconds=68400)
    """
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        hours, minutes = int(offset[2]), int(offset[3] or 0)
        return timezone((-1 if offset[1] == "-" else 1) * timedelta(hours=hours, minutes=minutes)) if hours < 24 and minutes < 60 else None
    if name.upper() in _RFC_822:
        return timezone(timedelta(hours=_RFC_822[name.upper()]))
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as America
        return None


def require_zone(name: str) -> tzinfo:
    """The zone that `data.timezone` names.

    Raises:
        ConfigError: there is none; the nearest one is named.
    """
    zone = find_zone(name)
    if zone is not None:
        return zone
    keys = {part: known for known in sorted(zoneinfo.available_timezones()) for part in (known.rpartition("/")[2].lower(), known.lower())}
    near = difflib.get_close_matches(name.strip().lower().replace(" ", "_"), keys, n=1, cutoff=0.6)
    meant = f"did you mean {keys[near[0]]}?" if near else "use a name such as America/New_York or UTC"
    raise ConfigError(f"data.timezone is {name!r}, which is not a time zone; {meant}")


@dataclass(frozen=True)
class StampReader:
    """Reads the timestamps of one file.

    Attributes:
        file: its name, for sentences.
        timezone: zone of timestamps that carry none, None to refuse those with a time of day.
        ambiguous: which of two equal local times is meant.
        format: how they are written.
    """

    file: str
    timezone: str | None
    ambiguous: Ambiguous
    format: FileFormat

    def read(self, column: Any, symbols: IntArray | None = None, named_utc: bool = False) -> Stamps:
        """The instants of an Arrow column.

        Args:
            column: text, counts from 1970, dates or datetimes.
            symbols: shape (n_rows,), codes of the rows' symbols, None if there is one: in each, order tells equal local times apart.
            named_utc: the column's name says that it is UTC.

        Raises:
            DataError: a cell is not a timestamp, or zones are missing or contradict each other.
            ConfigError: `data.timezone` does not fit.
        """
        kind = column.type
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            utc = column.cast(pa.timestamp("us", kind.tz), safe=False).to_pandas()
            return self._stamps(utc.dt.tz_localize(None).to_numpy(), utc.dt.tz_convert("UTC"), self._words([kind.tz]))
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return self._naive(pc.cast(column, pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False), symbols, named_utc)
        if pa.types.is_floating(kind):
            return self._epochs(column)
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            column = pc.cast(column, pa.large_string())
        elif not pa.types.is_large_string(kind):
            raise DataError(f"{self.file} has {kind} as timestamps; expected dates such as 2024-01-02T14:30:00Z")
        return self._texts(column, symbols, named_utc)

    def join(self, dates: Any, times: Any) -> Any:
        """One text column of a date and a time column; the times alone where they are whole timestamps."""
        if pa.types.is_timestamp(times.type):
            return times
        clock = pc.utf8_trim_whitespace(pc.cast(times, pa.large_string()))
        if not pc.all(pc.match_substring_regex(clock, _CLOCK)).as_py():
            return times
        if pc.all(pc.match_substring_regex(clock, r"^\d+$")).as_py():  # 93000: half past nine
            width = 4 if pc.max(pc.utf8_length(clock)).as_py() <= 4 and not pc.all(pc.equal(clock, "0")).as_py() else 6
            clock = pc.replace_substring_regex(pc.utf8_lpad(clock, width, "0"), r"^(\d{2})(\d{2})(\d{2})?$", r"\1:\2:\3")
            clock = pc.utf8_rtrim(clock, ":")
        day = pc.utf8_trim_whitespace(pc.cast(dates, pa.large_string()))
        day = pc.replace_substring_regex(day, r"[T ]0?0:00(?::00(?:\.0+)?)?$", "")
        return pc.binary_join_element_wise(day, clock, pa.scalar(" ", pa.large_string()))

    # --- text

    def _texts(self, column: Any, symbols: IntArray | None, named_utc: bool) -> Stamps:
        if self.format.dates is None and (found := self._iso(column, symbols, named_utc)) is not None:
            return found
        text = pc.utf8_trim_whitespace(column)
        text = pc.if_else(pc.is_in(text, pa.array(["", "NaT", "nan", "NaN", "None", "null", "-"], pa.large_string())), None, text)
        if self.format.dates is not None:
            return self._as_told(text, symbols, named_utc)
        present = pc.drop_null(text)
        if len(present) == 0:
            return Stamps(pd.Series(pd.NaT, index=range(len(text)), dtype="datetime64[us, UTC]"), None, "dates without a time")
        if re.fullmatch(r"-?\d+(\.\d+)?", present[0].as_py()) and not self._is_compact(present):
            return self._epochs(text)
        if not _matches(_ZONED, present[0]):
            wall, notes = self._walls(text)
            return self._naive(wall, symbols, named_utc, notes)
        split = pc.extract_regex(text, _ZONED)
        bare = pc.and_(pc.is_null(split), pc.is_valid(text))
        if pc.any(bare).as_py():
            raise self._mixed_zones(present[0].as_py(), pc.filter(text, bare)[0].as_py())
        wall, notes = self._walls(pc.struct_field(split, "wall"))
        zones = pc.dictionary_encode(pc.struct_field(split, "zone"))
        names, codes = zones.dictionary.to_pylist(), pc.fill_null(zones.indices, -1).to_numpy(zero_copy_only=False)
        utc = np.full(len(wall), np.datetime64("NaT", "us"))
        for code, name in enumerate(names):
            zone = find_zone(name)
            if zone is None:
                raise DataError(f"{self.file} has timestamps in the zone {name!r}, which is unknown; expected one such as -05:00 or UTC")
            rows = codes == code
            utc[rows] = self._localise(wall[rows], zone, name, None if symbols is None else symbols[rows])
        return self._stamps(wall, _as_utc(utc), self._words(names), notes)

    def _mixed_zones(self, zoned: str, bare: str) -> DataError:
        return DataError(
            f"{self.file} has timestamps with a zone ({zoned}) and without one ({bare}); expected one or the other; write all of them alike"
        )

    def _iso(self, text: Any, symbols: IntArray | None, named_utc: bool) -> Stamps | None:
        """ISO 8601 without a zone, or with one offset in all rows, as most programs write it; None where it is not that."""
        end = _ISO_END.search(text[0].as_py() or "")
        try:
            if end is None:
                return self._naive(pc.cast(text, pa.timestamp("us")).to_numpy(zero_copy_only=False), symbols, named_utc)
            if not pc.all(pc.ends_with(text, end[0])).as_py():
                return None
            utc = pc.cast(text, pa.timestamp("us", "UTC")).to_numpy(zero_copy_only=False).astype("datetime64[us]")
        except pa.ArrowInvalid:
            return None
        zone = find_zone(end[0])
        offset = zone.utcoffset(None) if zone else None
        return self._stamps(utc + np.timedelta64(offset), _as_utc(utc), self._words([end[0]])) if offset is not None else None

    def _as_told(self, text: Any, symbols: IntArray | None, named_utc: bool) -> Stamps:
        """Text in the format that `data.format.dates` gives."""
        told = self.format.dates
        try:
            parsed = pd.to_datetime(text.to_pandas(), format=told, utc=told is not None and bool(re.search("%[zZ]", told)))
        except ValueError as error:
            raise ConfigError(f"data.format.dates is {told!r} and does not fit {self.file}: {str(error).splitlines()[0]}") from error
        if parsed.dt.tz is None:
            return self._naive(parsed.to_numpy().astype("datetime64[us]"), symbols, named_utc)
        return self._stamps(parsed.dt.tz_localize(None).to_numpy().astype("datetime64[us]"), parsed.dt.as_unit("us"), "offsets as given")

    def _is_compact(self, present: Any) -> bool:
        """Whether digits are dates such as 20200131 or 20200131093000, and not counts from 1970."""
        return self.format.epoch is None and bool(pc.all(pc.match_substring_regex(present, _COMPACT)).as_py())

    def _epochs(self, column: Any) -> Stamps:
        """Counts from 1970, in the unit that is set or that their size tells."""
        try:
            values = pc.cast(column, pa.int64()) if not pa.types.is_floating(column.type) else None
        except pa.ArrowInvalid:
            values = None
        if values is None:
            return self._float_epochs(column)
        counts, empty = pc.fill_null(values, 0).to_numpy(zero_copy_only=False), pc.is_null(values).to_numpy(zero_copy_only=False)
        if self.format.epoch == "ns":
            utc = counts // 1_000
        elif self.format.epoch is not None:
            utc = counts * _MICROSECONDS[self.format.epoch]
        else:
            self._require_epochs(counts[~empty])
            sizes = [counts < 1e11, counts < 1e14, counts < 1e17]  # seconds until the year 5138, milliseconds from 1973
            utc = np.select(sizes, [counts * 1_000_000, counts * 1_000, counts], counts // 1_000)
        stamps = utc.astype("datetime64[us]")
        stamps[empty] = np.datetime64("NaT")
        self._require_epoch_fits(stamps[~empty], counts[~empty])
        return self._stamps(stamps, _as_utc(stamps), "UTC, as given")

    def _float_epochs(self, column: Any) -> Stamps:
        """Counts from 1970 with a fraction."""
        try:
            values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{self.file} has numbers and text as timestamps: {str(error).splitlines()[0]}; expected one of them"
            ) from error
        finite = np.isfinite(values)
        if self.format.epoch is None:
            self._require_epochs(values[finite])
        unit = self.format.epoch or ("s" if values[finite].max() < 1e11 else "ms" if values[finite].max() < 1e14 else "us")
        factor = 1e-3 if unit == "ns" else _MICROSECONDS[unit]
        stamps = np.where(finite, np.round(np.nan_to_num(values) * factor), 0).astype("int64").astype("datetime64[us]")
        stamps[~finite] = np.datetime64("NaT")
        self._require_epoch_fits(stamps[finite], values[finite])
        return self._stamps(stamps, _as_utc(stamps), "UTC, as given")

    def _require_epochs(self, counts: Any) -> None:
        if len(counts) == 0 or counts.min() >= 1e8:
            return
        if counts.min() >= _EXCEL_DAYS[0] and counts.max() <= _EXCEL_DAYS[1]:
            day = pd.Timestamp("1899-12-30") + pd.Timedelta(days=int(counts.min()))
            raise DataError(
                f"{self.file} has numbers as timestamps, such as {counts.min():g}, which Excel shows as {day.date()}; expected dates such "
                "as 2024-01-02; format the column as a date in Excel and save the file again"
            )
        raise DataError(
            f"{self.file} has numbers as timestamps, such as {counts.min():g}; expected dates such as 2024-01-02T14:30:00Z, or counts from "
            "1970; if they are counts, set data.format.epoch to s, ms, us or ns"
        )

    def _require_epoch_fits(self, stamps: TimeArray, counts: Any) -> None:
        """Refuse a unit that puts all bars within the first years after 1970, at times that no bar has."""
        early = len(stamps) and np.datetime64("1970-01-01") <= stamps.min() and stamps.max() < np.datetime64("1980-01-01")
        if early and (stamps.astype("int64") % _MINUTE).any():
            last = stamps.max().astype("datetime64[s]")
            raise ConfigError(
                f"data.format.epoch is {self.format.epoch!r} and makes {last} of {counts.max():g} in {self.file}; expected years from 1980 "
                "on, or whole minutes; set the unit that fits, or write dates such as 2024-01-02"
            )

    def _walls(self, text: Any) -> tuple[TimeArray, tuple[str, ...]]:
        """Local times as they are written, whatever their zone: datetime64[us]."""
        try:
            return pc.cast(text, pa.timestamp("us")).to_numpy(zero_copy_only=False), ()
        except pa.ArrowInvalid:  # not ISO 8601 as programs write it
            pass
        first = pc.drop_null(text)[0].as_py()
        shape = next(((d, t) for d in _DATES for t in _TIMES if _matches(f"^{d}{t}$", first)), None)
        if shape is None:
            raise DataError(
                f"{self.file} has a timestamp that is not a date: {first!r}; expected one such as 2024-01-02; set data.format.dates"
            )
        whole = [re.sub(r"\(\?P<\w+>", "(?:", part) for part in shape]
        split = pc.extract_regex(text, f"^(?P<day>{whole[0]})(?P<clock>{whole[1]})$")
        lost = pc.and_(pc.is_null(split), pc.is_valid(text))
        if pc.any(lost).as_py():
            other = pc.filter(text, lost)[0].as_py()
            if _matches(_ZONED, other):
                raise self._mixed_zones(other, first)
            raise DataError(
                f"{self.file} has a timestamp that is not a date like the first one, {first!r}: {other!r}; expected one way of writing them"
            )
        days, clocks = (_Parts(pc.struct_field(split, name), f"^{part}$") for name, part in zip(("day", "clock"), shape, strict=True))
        dates, notes = self._dates(days)
        wall = dates + clocks.rows(clocks.clock())
        wrong = np.isnat(wall) & pc.is_valid(text).to_numpy(zero_copy_only=False)
        if wrong.any():
            raise DataError(f"{self.file} has a timestamp that does not exist: {text[int(wrong.argmax())].as_py()!r}; expected a date")
        return wall, notes

    def _dates(self, days: "_Parts") -> tuple[TimeArray, tuple[str, ...]]:
        """Shape (n_rows,): dates, and a sentence where the order of day and month was decided.

        Raises:
            DataError: the order cannot be told.
        """
        if "a" not in days.names:
            month = days.month() if "name" in days.names else days.number("m")
            return days.rows(_dates(days.year("y"), month, days.number("d"))), ()
        a, b, year, mark = days.number("a"), days.number("b"), days.year("y"), days.text("mark")[0].as_py()
        readings = {"day": _dates(year, b, a), "month": _dates(year, a, b)}
        if self.format.day_first is not None:
            return days.rows(readings["day" if self.format.day_first else "month"]), ()
        if (days.lengths("y") == 2).all():
            readings["year"] = _dates(days.year("a"), b, days.number("y"))
        fewest = min(np.isnat(dates).sum() for dates in readings.values())  # none, unless a date does not exist
        valid = {first: days.rows(dates) for first, dates in readings.items() if np.isnat(dates).sum() == fewest}
        any_one = next(iter(valid.values()))
        if all(np.array_equal(dates, any_one, equal_nan=True) for dates in valid.values()):
            return any_one, ()
        if mark == "." and "day" in valid:
            return valid["day"], ("dates were read day first, as dates with dots are",)
        ordered = [first for first, dates in valid.items() if _is_ordered(dates[~np.isnat(dates)])]
        if len(ordered) != 1:
            raise DataError(
                f"{self.file} has dates such as {days.values[0].as_py()} that can be read {' first or '.join(valid)} first; expected a "
                "number above 12 that decides it; set data.format.day_first=true or data.format.day_first=false, or data.format.dates"
            )
        return valid[ordered[0]], (f"dates were read {ordered[0]} first, since only then they are in order",)

    # --- zones

    def _naive(self, wall: TimeArray, symbols: IntArray | None, named_utc: bool, notes: tuple[str, ...] = ()) -> Stamps:
        """Local times without a zone: days need none, times of day take the one that is set."""
        wall = wall.astype("datetime64[us]")
        if _are_midnights(wall):  # a session's name; round the clock, where a day has no other, the zone that is set says when it began
            began = wall if self.timezone is None else self._localise(wall, require_zone(self.timezone), self.timezone, symbols)
            return self._stamps(wall, _as_utc(began), "dates without a time", notes)
        if named_utc:
            return self._stamps(wall, _as_utc(wall), "UTC, as given", notes)
        if self.timezone is None:
            first = pd.Timestamp(wall[~np.isnat(wall)][0])
            raise DataError(
                f"{self.file} has timestamps without a time zone, such as {first}; expected one such as 2024-01-02T14:30:00Z; "
                "set data.timezone=America/New_York, or whichever zone they are in"
            )
        utc = self._localise(wall, require_zone(self.timezone), self.timezone, symbols)
        return self._stamps(wall, _as_utc(utc), f"{self.timezone}, as set", notes)

    def _localise(self, wall: TimeArray, zone: tzinfo, name: str, symbols: IntArray | None) -> TimeArray:
        """Instants of local times in a zone, datetime64[us] UTC.

        Raises:
            ConfigError: a local time does not exist there.
            DataError: one exists twice, and nothing says which is meant.
        """
        index = pd.DatetimeIndex(wall)
        earlier, later = (
            index.tz_localize(zone, ambiguous=np.full(len(wall), summer), nonexistent="NaT").tz_convert("UTC").tz_localize(None).to_numpy()
            for summer in (True, False)
        )
        if (skipped := np.isnat(earlier) & ~np.isnat(wall)).any():
            raise ConfigError(
                f"{self.file} has a bar at {pd.Timestamp(wall[skipped][0])}, an hour that clocks skip in {name}; "
                "expected times of that zone; set data.timezone to the zone they are in"
            )
        twice = (earlier != later) & ~np.isnat(wall)
        if not twice.any():
            return earlier
        if self.ambiguous in ("earlier", "later"):
            rows = pd.DataFrame({"wall": wall[twice], "symbol": 0 if symbols is None else symbols[twice]})
            if rows.duplicated().any():
                raise ConfigError(
                    f"{self.file} has two bars at {rows['wall'][rows.duplicated()].iloc[0]}, an hour that occurs twice in {name}, and "
                    f"data.ambiguous={self.ambiguous} makes one time of them; set data.ambiguous=infer"
                )
            return earlier if self.ambiguous == "earlier" else later
        if self.ambiguous == "error":
            raise DataError(
                f"{self.file} has a bar at {pd.Timestamp(wall[twice][0])}, an hour that occurs twice in {name}, where clocks go back; "
                "expected times with an offset; set data.ambiguous to infer (from the order of the rows), earlier or later"
            )
        second = self._second(wall, twice, np.zeros(len(wall)) if symbols is None else symbols, name)
        return np.where(second, later, earlier)

    def _second(self, wall: TimeArray, twice: BoolArray, symbols: Any, name: str) -> BoolArray:
        """Rows in the second of two equal hours: those after the clock stepped back, symbol by symbol and night by night."""
        rows = pd.DataFrame({"row": np.flatnonzero(twice), "wall": wall[twice], "symbol": symbols[twice]})
        if wall[~np.isnat(wall)][0] > wall[~np.isnat(wall)][-1]:
            rows = rows[::-1]
        second = np.zeros(len(wall), dtype=bool)
        for _, night in rows.groupby(["symbol", rows["wall"].dt.date], sort=False):
            back = np.flatnonzero(np.diff(night["wall"].to_numpy()) <= np.timedelta64(0))
            if len(back) != 1:
                raise DataError(
                    f"{self.file} has a bar at {night['wall'].iloc[0]}, an hour that occurs twice in {name}, and the order of the "
                    "rows does not show which one it is; expected it twice; set data.ambiguous=earlier or data.ambiguous=later"
                )
            second[night["row"].to_numpy()[back[0] + 1 :]] = True
        return second

    def _words(self, names: list[str]) -> str:
        """Where zones came from that stand beside the timestamps."""
        if all(find_zone(name) == UTC or name in ("UTC", "Etc/UTC") for name in names):
            return "UTC, as given"
        return "offsets as given" if len(names) > 1 or _OFFSET.fullmatch(names[0]) else f"{names[0]}, as given"

    def _stamps(self, wall: TimeArray, utc: pd.Series, zone: str, notes: tuple[str, ...] = ()) -> Stamps:
        date = pd.Series(wall.astype("datetime64[us]")) if _are_midnights(wall) else None
        return Stamps(utc.dt.as_unit("us"), date, zone, notes)


class _Parts:
    """The different values of a text column, which are few, cut into named parts; an optional part that is not there is 0."""

    def __init__(self, column: Any, pattern: str):
        encoded = pc.dictionary_encode(column)
        self.values, self._codes = encoded.dictionary, pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        self._parts = pc.extract_regex(self.values, pattern)
        self.names = {self._parts.type.field(i).name for i in range(self._parts.type.num_fields)}

    def rows(self, times: Any) -> Any:
        """Shape (n_rows,): what belongs to each row's value, NaT where there is none."""
        return np.append(times, np.array("NaT", times.dtype))[self._codes]

    def text(self, name: str) -> Any:
        return pc.struct_field(self._parts, name)

    def year(self, name: str) -> IntArray:
        """Years, those of two digits from 1970 to 2069."""
        year = self.number(name)
        return np.where(self.lengths(name) <= 2, year + np.where(year < 70, 2000, 1900), year)

    def lengths(self, name: str) -> IntArray:
        return pc.utf8_length(self.text(name)).to_numpy(zero_copy_only=False)

    def number(self, name: str) -> IntArray:
        text = self.text(name)
        return pc.cast(pc.if_else(pc.equal(text, ""), "0", text), pa.int64()).to_numpy(zero_copy_only=False)

    def month(self) -> IntArray:
        """Month numbers of English names, 0 where it is none."""
        encoded = pc.dictionary_encode(pc.utf8_lower(pc.utf8_slice_codeunits(self.text("name"), 0, 3)))
        numbers = np.array([_MONTHS.get(name, 0) for name in encoded.dictionary.to_pylist()])
        return numbers[encoded.indices.to_numpy(zero_copy_only=False)]

    def clock(self) -> Any:
        """Time of day, timedelta64[us]; NaT where there is no such time."""
        hour, minute, second = self.number("H"), self.number("M"), self.number("S")
        if "half" in self.names:
            half = pc.utf8_lower(self.text("half"))
            afternoon, given = (pc.equal(half, "p").to_numpy(zero_copy_only=False), pc.not_equal(half, "").to_numpy(zero_copy_only=False))
            hour = np.where(given & (hour <= 12), hour % 12, hour) + 12 * afternoon
        fraction = pc.cast(pc.utf8_slice_codeunits(pc.utf8_rpad(self.text("F"), 6, "0"), 0, 6), pa.int64()).to_numpy(zero_copy_only=False)
        since = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction
        wrong = (hour > 24) | (minute > 59) | (second > 59) | (since > _DAY)
        return np.where(wrong, np.timedelta64("NaT"), since.astype("timedelta64[us]"))


def _dates(year: IntArray, month: IntArray, day: IntArray) -> TimeArray:
    """Days of a calendar, datetime64[us], NaT where there is none."""
    months = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
    days = months.astype("datetime64[D]") + (day - 1)
    right = (month >= 1) & (month <= 12) & (day >= 1) & (days.astype("datetime64[M]") == months)
    return np.where(right, days.astype("datetime64[us]"), np.datetime64("NaT", "us"))


def _matches(pattern: str, text: Any) -> bool:
    return bool(pc.match_substring_regex(text, pattern).as_py())


def _is_ordered(dates: TimeArray) -> bool:
    """Whether enough dates rise, or fall, throughout."""
    steps = np.diff(dates).astype("int64")
    return len(np.unique(dates)) >= _FEW_DATES and (bool((steps >= 0).all()) or bool((steps <= 0).all()))


def _are_midnights(wall: TimeArray) -> bool:
    present = wall[~np.isnat(wall)].astype("datetime64[us]").astype("int64")
    return len(present) > 0 and not (present % _DAY).any()


def _as_utc(stamps: TimeArray) -> pd.Series:
    return pd.Series(stamps.astype("datetime64[us]")).dt.tz_localize("UTC")
