"""Bars in files as people have them: one file or a folder, one symbol each or many.

What a file says of itself is believed: its columns, its symbols, its zone. What it leaves open is decided from all its rows or
asked for by the name of a setting, never guessed from one row.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ploutos.errors import ConfigError, DataError, UnknownSymbol
from ploutos.market.instruments import pair_of, plain_name, root_of
from ploutos.market.sources.columns import AUTO, PRICES, STAMPS, FileFormat, Table, names_utc
from ploutos.market.sources.file_formats import open_table, split_name
from ploutos.market.sources.timestamps import Ambiguous, StampReader, Stamps, require_zone
from ploutos.store import digest_of, file_sha256
from ploutos.types import FloatArray

__all__ = ["Ambiguous", "FileFormat", "FilesRead", "digests", "find", "read", "symbols_of"]

_FIELDS = (*PRICES, "volume", "adj_close")
_HIVE = re.compile(r"(?:symbol|ticker|tic|sym|instrument)=(.+)", re.IGNORECASE)
_SPAN = r"(?:19|20)\d{2}(?:[-_.]?\d{2}){0,2}(?:\d{4})?"
_COPY = re.compile(r"( ?\(\d+\)| - Copy( \(\d+\))?|[-_ ]part[-_ ]?\d+)$", re.IGNORECASE)
_EQUAL_BARS = 20
"""So many equal bars in a row are those of one symbol."""
_DATED = (
    re.compile(r"(?P<symbol>[A-Z0-9]+)-\d+(?:s|m|h|d|w|mo)-\d{4}-\d{2}(?:-\d{2})?"),
    re.compile(rf"(?P<symbol>.+?)(?:_(?:[MHDW]\d{{1,2}}|MN1?|Daily|Weekly|Monthly))?[-_]{_SPAN}(?:[-_]{_SPAN})?"),
)


@dataclass(frozen=True)
class FilesRead:
    """What files hold.

    Attributes:
        frame: symbol (str), timestamp (datetime64[us, UTC]), open, high, low, close, volume (float64); adj_close where the files have
            it; date (datetime64[us]) where timestamps name days, NaT where a row's do not. Rows stand as in the files.
        zone: where the zone came from, in words.
        notes: what a reader of a report must know, one sentence each.
    """

    frame: pd.DataFrame
    zone: str
    notes: tuple[str, ...]


def find(path: Path) -> list[Path]:
    """The files that a path stands for, in it and in folders below it, by name; hidden ones and other kinds are left out.

    Raises:
        DataError: there is none.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a file of bars, or a folder of them; set data.path")
    found = [file for file in _entries(path) if split_name(file.name) and not file.name.startswith(".")] if path.is_dir() else [path]
    if not found:
        raise DataError(f"{path} holds no .parquet, .csv, .txt, .tsv, .feather or .arrow file; expected at least one; set data.path")
    return found


def _entries(path: Path) -> list[Path]:
    """All files below a folder, but for those in hidden folders."""
    files = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts[:-1]))


def digests(path: Path) -> list[str]:
    """Digest of name and content of every file that a path stands for."""
    root = path if path.is_dir() else path.parent
    return [digest_of([file.relative_to(root).as_posix(), file_sha256(file)]) for file in find(path)]


def symbols_of(path: Path, format: FileFormat = AUTO) -> list[str] | None:
    """The symbols that files are named after; None where a file names symbols inside, so that it must be read to know them.

    Raises:
        DataError: there is nothing, or a file cannot be read.
    """
    found = set()
    for file in find(path):
        table = open_table(file, format)
        if None not in table.places or (format.symbol is None and "symbol" in table.places[None]):
            return None
        if table.holds_prices:
            found.add(_symbol_of(file, path, format))
    return sorted(found)


def read(
    path: Path,
    *,
    wanted: Sequence[str] = (),
    timezone: str | None = None,
    ambiguous: Ambiguous = "error",
    format: FileFormat = AUTO,
    adjusted: bool = True,
) -> FilesRead:
    """Long frame of all files.

    Args:
        path: a file, or a folder of files.
        wanted: symbols to keep; empty keeps all.
        timezone: zone of times of day that carry none; None refuses those.
        ambiguous: which one is meant where a local time occurs twice.
        format: how the files are written, as far as they do not say.
        adjusted: read adj_close; False leaves it out.

    Raises:
        DataError: nothing there, or a file cannot be read without doubt.
        ConfigError: a setting does not fit the files.
        UnknownSymbol: a wanted symbol is not there.
    """
    if timezone is not None:
        require_zone(timezone)
    reader = _Reader(path, tuple(wanted), timezone, ambiguous, format, adjusted)
    tables: list[tuple[Path, pd.DataFrame]] = []
    strays = [file for file in _entries(path) if not split_name(file.name) or file.name.startswith(".")] if path.is_dir() else []
    unread: Table | None = None
    for file in find(path):
        table = open_table(file, format)
        if path.is_dir() and not table.holds_prices:
            strays.append(file)
            unread = table
        elif (frame := reader.frame(file, table)) is not None:
            tables.append((file, frame))
    if not reader.known and unread is not None:
        unread.require_columns()
    if unknown := sorted(set(wanted) - reader.known):
        meant = sorted(known for known in reader.known if any(_meaning(known) == _meaning(name) for name in unknown))
        raise UnknownSymbol(
            f"{path.name} has no symbol {', '.join(unknown)}; it holds {', '.join(sorted(reader.known))}"
            + (f"; write {', '.join(meant)} in data.symbols, as the files do" if meant else "")
        )
    _require_one_adjustment(tables)
    _require_no_overlap(tables)
    _require_one_name(tables)
    notes = [f"{_listed(list(files))}: {sentence}." for sentence, files in reader.notes.items()]
    notes += [f"{_listed([file.name for file in strays])}: skipped, since there are no bars in it."] if strays else []
    frames = [frame for _, frame in tables]
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    return FilesRead(frame, "; ".join(reader.zones), tuple(notes))


def _meaning(symbol: str) -> object:
    """What stands behind a name, however it is written."""
    return root_of(symbol) or pair_of(symbol) or plain_name(symbol)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _require_one_adjustment(tables: Sequence[tuple[Path, pd.DataFrame]]) -> None:
    """Refuse files of which only some hold adjusted closes: prices would be of two kinds."""
    having = [file.name for file, frame in tables if "adj_close" in frame.columns]
    lacking = [file.name for file, frame in tables if "adj_close" not in frame.columns]
    if having and lacking:
        raise DataError(
            f"{having[0]} has adj_close and {lacking[0]} has none; expected it in all files or in none; add it, or set data.adjustment=raw"
        )


def _require_no_overlap(tables: Sequence[tuple[Path, pd.DataFrame]]) -> None:
    """Refuse two files that hold one symbol over one span: one of them would be somebody else's, or the same bars again."""
    spans: dict[str, list[tuple[pd.Timestamp, pd.Timestamp, str]]] = {}
    for file, frame in tables:
        symbol = frame["symbol"].iloc[0]
        if (frame["symbol"] == symbol).all():
            spans.setdefault(symbol, []).append((frame["timestamp"].min(), frame["timestamp"].max(), file.name))
    for symbol, files in spans.items():
        for (_, end, one), (start, _, other) in pairwise(sorted(files)):
            if start <= end:
                raise DataError(
                    f"{one} and {other} both hold {symbol} and overlap from {start} on; expected each bar once; remove one of them, "
                    "or say how names hold symbols, such as data.format.symbol={symbol}_*"
                )


def _require_one_name(tables: Sequence[tuple[Path, pd.DataFrame]]) -> None:
    """Refuse two files that hold the same bars under two names: they would be traded twice."""
    seen: dict[bytes, tuple[str, str]] = {}
    for file, frame in tables:
        top = frame[["symbol", "timestamp", *PRICES]].iloc[:_EQUAL_BARS]
        if len(top) < _EQUAL_BARS or top["symbol"].nunique() > 1 or top["close"].nunique() < _EQUAL_BARS // 2:
            continue
        symbol = str(top["symbol"].iloc[0])
        key = top["timestamp"].astype("int64").to_numpy().tobytes() + top[list(PRICES)].to_numpy().tobytes()
        other, name = seen.setdefault(key, (symbol, file.name))
        if other != symbol:
            raise DataError(
                f"{name} and {file.name} hold the same bars, of {other} and {symbol}; expected each once; remove one of them, or leave "
                "it out of data.symbols"
            )


def _symbol_of(file: Path, path: Path, format: FileFormat) -> str:
    """The symbol that a file's name or folder says.

    Raises:
        ConfigError: the name does not fit `data.format.symbol`.
    """
    named = split_name(file.name)
    stem = _COPY.sub("", named[0] if named else file.stem)
    if format.symbol is not None:
        if "{symbol}" not in format.symbol:
            return format.symbol
        pattern = re.escape(format.symbol).replace(r"\{symbol\}", "(.+?)", 1).replace(r"\*", ".*")
        match = re.fullmatch(pattern, stem)
        if match is None:
            raise ConfigError(f"data.format.symbol is {format.symbol!r} and {file.name} is not named like that; expected it for every file")
        return match[1]
    folders = file.parent.relative_to(path).parts if path.is_dir() else ()
    for part in reversed((*path.absolute().parts[-2:], *folders)):
        if match := _HIVE.fullmatch(part):
            return unquote(match[1])
    if folders and re.fullmatch(rf"{_SPAN}(?:[-_]{_SPAN})?", stem):
        return folders[-1]  # AAA/2023.csv
    if re.fullmatch(r"[A-Z0-9_!.]+, \d*[A-Z]*", stem):
        return plain_name(stem)  # CME_MINI_NQ1!, 1D
    return next((match["symbol"] for pattern in _DATED if (match := pattern.fullmatch(stem))), stem)


class _Reader:
    """Reads files one after the other, and remembers what a report says about all of them."""

    def __init__(self, path: Path, wanted: tuple[str, ...], timezone: str | None, ambiguous: Ambiguous, format: FileFormat, adjusted: bool):
        self.path, self.wanted, self.timezone, self.ambiguous = path, wanted, timezone, ambiguous
        self.format, self.adjusted = format, adjusted
        self.known: set[str] = set()
        self.zones: dict[str, None] = {}
        self.notes: dict[str, dict[str, None]] = {}

    def frame(self, file: Path, table: Table) -> pd.DataFrame | None:
        """The bars of one file, None where none of its symbols is wanted."""
        table.require_columns()
        if self.adjusted:
            table.require_adjustment_is_known()
        inside = self.format.symbol is None and any("symbol" in places for places in table.places.values())
        named = {ticker or _symbol_of(file, self.path, self.format): places for ticker, places in table.places.items()}
        if not inside:
            self.known |= named.keys()
            named = {symbol: places for symbol, places in named.items() if not self.wanted or symbol in self.wanted}
        if not named:
            return None
        return self._read(table, named, inside)

    def _read(self, table: Table, named: Mapping[str, Mapping[str, int]], inside: bool) -> pd.DataFrame | None:
        places = next(iter(named.values()))
        texts = [places[name] for name in ("symbol", *STAMPS) if name in places]
        fields = [name for name in _FIELDS if self.adjusted or name != "adj_close"]
        numbers = {own[name] for own in named.values() for name in (*fields, "tick_volume") if name in own}
        columns, values = table.read(texts, sorted(numbers))
        symbols = _symbols(columns[places["symbol"]], table.file) if inside else None
        stamps = self._stamps(columns, places, table, symbols)
        self.zones[stamps.zone] = None
        for sentence in stamps.notes:
            self._note(sentence, table.file)
        frames = []
        for symbol, own in named.items():
            prices = {name: values[own[name]] for name in fields if name in own and name != "volume"}
            volume = {"volume": self._volume(values, own, table.file)}
            first = {"symbol": symbols if inside else pd.Series(symbol, index=stamps.utc.index, dtype="str"), "timestamp": stamps.utc}
            frame = pd.DataFrame(first | {name: (prices | volume)[name] for name in fields if name in prices | volume})
            frames.append(frame if stamps.date is None else frame.assign(date=stamps.date))
        frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        blank = frame[list(PRICES)].isna().all(axis=1)  # a blank line, or a day before a symbol's first
        blank &= frame["timestamp"].isna() | (len(table.places) > 1)
        frame = frame[~blank] if blank.any() else frame
        if frame.empty:
            raise DataError(f"{table.file} holds no bars; expected at least one row; get it again, or remove it from data.path")
        if inside:
            frame = self._wanted(frame, table.file)
        return frame.reset_index(drop=True) if len(frame) else None

    def _volume(self, values: Mapping[int, FloatArray], places: Mapping[str, int], file: str) -> FloatArray:
        """Volume; the number of ticks where it is all zero, and zero where there is none."""
        found = [values[places[name]] for name in ("volume", "tick_volume") if name in places]
        found = [volume for volume in found if not np.isnan(volume).all()]
        if not found:
            self._note("no volume, which is taken as 0", file)
            return np.zeros(len(next(iter(values.values()))))
        return next((volume for volume in found if volume.any()), found[0])

    def _wanted(self, frame: pd.DataFrame, file: str) -> pd.DataFrame:
        """The rows of wanted symbols.

        Raises:
            DataError: a row has no symbol.
        """
        missing = frame["symbol"].isna() | (frame["symbol"] == "")
        if missing.any():
            raise DataError(
                f"{file} has rows without a symbol, the first is row {int(missing.argmax()) + 1}; expected one in every row; fill them, or "
                "set data.format.symbol if all are of one"
            )
        self.known |= set(frame["symbol"].unique())
        return frame[frame["symbol"].isin(self.wanted)] if self.wanted else frame

    def _note(self, sentence: str, file: str) -> None:
        self.notes.setdefault(sentence, {})[file] = None

    def _stamps(self, columns: Mapping[int, Any], places: Mapping[str, int], table: Table, symbols: pd.Series | None) -> Stamps:
        reader = StampReader(table.file, self.timezone, self.ambiguous, self.format)
        codes = None if symbols is None else np.asarray(pd.factorize(symbols)[0])
        if "timestamp" not in places and {"date", "time"} <= places.keys():
            column, name = reader.join(columns[places["date"]], columns[places["time"]]), places["time"]
        else:
            name = next(places[ours] for ours in STAMPS if ours in places)
            column = columns[name]
        return reader.read(column, codes, names_utc(table.columns[name]))


def _symbols(column: Any, file: str) -> pd.Series:
    """Symbols as text, whatever they look like.

    Raises:
        DataError: they are numbers with a fraction.
    """
    if pa.types.is_floating(column.type):
        raise DataError(f"{file} has symbols such as {column[0].as_py()}, numbers with a fraction; expected text; write them as text")
    return pc.utf8_trim_whitespace(pc.cast(column, pa.large_string())).to_pandas().astype("str")
