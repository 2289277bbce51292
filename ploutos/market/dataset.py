"""Bars on this machine's disk: one parquet file per series, in folders that say what it is.

    source=alpaca-sip/adjustment=total_return/timeframe=1h/symbol=SPY/bars.parquet

pandas, pyarrow.dataset and duckdb read the tree as it is; `_manifest.json` has its underscore because they pass over such
names. Feeds and adjustments cannot meet in one file, for they are folders. A file is replaced whole and listed in the
manifest right after; readers and writers take turns by `flock` on the folders themselves, on one host. Left out: other
hosts, year folders, deletion (delete the folder and its lines in the manifest).
"""

import fcntl
import hashlib
import io
import json
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote, unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from ploutos import __version__
from ploutos.errors import DataError, StoreError
from ploutos.store import digest_of, file_sha256, write_json, writing

if TYPE_CHECKING:  # the sources may come to import the dataset
    from ploutos.market.sources.vendor import Adjustment

logger = logging.getLogger(__name__)

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
MANIFEST = "_manifest.json"
_FOOTER = b"ploutos"
_SCHEMA = pa.schema([pa.field(name, pa.timestamp("us", tz="UTC") if name == "timestamp" else pa.float64()) for name in COLUMNS])
_MINUTE, _HOUR, _DAY = pd.Timedelta(minutes=1), pd.Timedelta(hours=1), pd.Timedelta(days=1)

Span = tuple[pd.Timestamp, pd.Timestamp]
"""From the first moment to just before the second, UTC."""


def timeframe_name(timeframe: pd.Timedelta) -> str:
    """Name of a bar length in folders, readable by `pd.Timedelta`.

    Raises:
        DataError: not whole minutes, or not 1 minute to 1 day.

    >>> timeframe_name(pd.Timedelta(hours=1)), timeframe_name(pd.Timedelta(minutes=90)), timeframe_name(pd.Timedelta(days=1))
    ('1h', '90min', '1D')
    """
    if timeframe < _MINUTE or timeframe > _DAY or timeframe % _MINUTE:
        raise DataError(f"found bars of {timeframe}; expected whole minutes, from 1min to 1D")
    if timeframe == _DAY:
        return "1D"
    return f"{timeframe // _HOUR}h" if not timeframe % _HOUR else f"{timeframe // _MINUTE}min"


@dataclass(frozen=True)
class SeriesKey:
    """What one file holds.

    Attributes:
        source: the vendor and its feed: `alpaca-sip`.
        adjustment: `raw` or `total_return`.
        timeframe: length of a bar.
        symbol: the vendor's own name; any characters.
    """

    source: str
    adjustment: "Adjustment"
    timeframe: pd.Timedelta
    symbol: str

    @property
    def folder(self) -> str:
        """Path below the root; characters that a path cannot hold are percent-encoded.

        >>> SeriesKey("alpaca-sip", "raw", pd.Timedelta(hours=1), "BTC/USD").folder
        'source=alpaca-sip/adjustment=raw/timeframe=1h/symbol=BTC%2FUSD'
        """
        parts = {"source": self.source, "adjustment": self.adjustment, "timeframe": timeframe_name(self.timeframe), "symbol": self.symbol}
        return "/".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())

    @classmethod
    def of_folder(cls, folder: str) -> "SeriesKey":
        """The key whose `folder` this is."""
        source, adjustment, timeframe, symbol = (unquote(part.partition("=")[2]) for part in folder.split("/"))
        return cls(source, cast("Adjustment", adjustment), pd.Timedelta(timeframe), symbol)


@dataclass(frozen=True)
class Series:
    """One stored series.

    Attributes:
        frame: timestamp (datetime64[us, UTC], bar starts, strictly increasing), open, high, low, close, volume (float64).
        requested: spans that a vendor was asked for, whether or not it had bars there; apart and in order.
    """

    key: SeriesKey
    frame: pd.DataFrame
    requested: tuple[Span, ...]


@dataclass(frozen=True)
class SeriesSummary:
    """One line about a stored series.

    Attributes:
        first, last: start of the first and of the last bar, UTC.
        bytes: size of the file.
        requested: as in `Series`.
    """

    key: SeriesKey
    rows: int
    first: pd.Timestamp
    last: pd.Timestamp
    bytes: int
    requested: tuple[Span, ...]


class _Footer(BaseModel):
    """What a file says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    source: str
    adjustment: str
    timeframe: str
    vendor_symbol: str
    label: Literal["start"] = "start"
    tz: Literal["UTC"] = "UTC"
    requested: tuple[tuple[str, str], ...]
    rows: int
    client: str = f"ploutos {__version__}"


class _Entry(BaseModel):
    """What the manifest says about a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    content_sha256: str
    bytes: int
    rows: int
    first: str
    last: str
    requested: tuple[tuple[str, str], ...]


class _Manifest(BaseModel):
    """Every file of a dataset, by the folder it lies in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    series: dict[str, _Entry] = {}


def content_sha256(frame: pd.DataFrame) -> str:
    """Hex sha256 of bars: their values, not the way a file holds them."""
    digest = hashlib.sha256()
    for name in COLUMNS:
        values = frame[name].astype("int64" if name == "timestamp" else "float64")
        digest.update(values.to_numpy().tobytes())
    return digest.hexdigest()


def write_frame(path: Path, frame: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write bars as parquet, with JSON about them and their content's sha256 in the footer; same input, same bytes."""
    note = json.dumps({**about, "content_sha256": content_sha256(frame)}, sort_keys=True, allow_nan=False)
    columns = [pa.array(frame[field.name], type=field.type, from_pandas=False) for field in _SCHEMA]
    table = pa.Table.from_arrays(columns, schema=_SCHEMA)
    pq.write_table(table.replace_schema_metadata({_FOOTER: note.encode()}), path, compression="zstd")


def read_frame(content: bytes, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Bars and what was noted about them.

    Raises:
        DataError: not a file that `write_frame` wrote, or not what it wrote; the sentence begins with `name`.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
        about = json.loads(table.schema.metadata[_FOOTER])
        frame = table.replace_schema_metadata(None).cast(_SCHEMA).to_pandas()
    except (pa.ArrowException, OSError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"{name} is not a file of bars that ploutos wrote ({str(error).splitlines()[0]})") from error
    if about.pop("content_sha256", None) != content_sha256(frame):
        raise DataError(f"{name} is damaged: its bars are not the ones that were written")
    return frame, about


def checked(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The columns of bars, in order, after a look at their types.

    Raises:
        DataError: a column is missing or of another type.
    """
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise DataError(f"{origin} has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    wanted = {name: "datetime64[us, UTC]" if name == "timestamp" else "float64" for name in COLUMNS}
    for name, dtype in wanted.items():
        if str(frame[name].dtype) != dtype:
            raise DataError(f"{origin} has {frame[name].dtype} in column {name}; expected {dtype}")
    if frame["timestamp"].isna().any():
        raise DataError(f"{origin} has bars without a timestamp; expected one per bar")
    return frame[list(COLUMNS)]


def join_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The same time in as few spans as possible, in order; empty spans vanish.

    >>> day = [pd.Timestamp(f"2024-01-0{n}", tz="UTC") for n in range(1, 5)]
    >>> join_spans([(day[1], day[2]), (day[0], day[1]), (day[3], day[3])]) == ((day[0], day[2]),)
    True
    """
    joined: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def build_command(source: str, adjustment: str, timeframe: pd.Timedelta, symbols: Sequence[str]) -> str:
    """The shell command that downloads these series.

    >>> build_command("alpaca-sip", "total_return", pd.Timedelta(hours=1), ("SPY", "BTC/USD"))
    'ploutos data build --source alpaca-sip --market SPY,BTC/USD --timeframe 1h --adjustment total_return'
    """
    options = {"source": source, "market": ",".join(symbols), "timeframe": timeframe_name(timeframe), "adjustment": adjustment}
    return "ploutos data build " + " ".join(f"--{name} {shlex.quote(value)}" for name, value in options.items())


class Dataset:
    """The series under one folder, usually `$PLOUTOS_HOME/datasets`.

    >>> Dataset(Path("nowhere")).summary()
    ()
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, key: SeriesKey) -> Path:
        """Where a series lies, or would."""
        return self.root / key.folder / "bars.parquet"

    def upsert(self, key: SeriesKey, frame: pd.DataFrame, requested: Span, replace: bool = False) -> bool:
        """Put bars into a series: where both have a bar, the one that comes later wins. After a crash the old file is whole.

        Args:
            frame: timestamp (datetime64[us, UTC]), OHLCV (float64), in any order.
            requested: the span that the vendor was asked for.
            replace: forget what was stored before, damaged or not.

        Returns:
            Whether anything was written: not when bars and requested spans stay what they were.

        Raises:
            DataError: columns are not as expected, there would be no bars, or the stored file is damaged.
            StoreError: the disk is full or the folder cannot be written.
        """
        frame = checked(frame, f"the bars of {key.symbol}")
        with self._held(self.root / key.folder):
            old = None if replace else self.recover(key)
            spans = join_spans([*(old.requested if old else ()), requested])
            stacked = pd.concat([old.frame, frame]) if old else frame
            merged = stacked.drop_duplicates("timestamp", keep="last").sort_values("timestamp", ignore_index=True)
            if merged.empty:
                raise DataError(f"found no bars of {key.symbol} to store; expected at least one")
            if old and old.requested == spans and content_sha256(old.frame) == content_sha256(merged):
                return False
            self._write(key, merged, spans)
        return True

    def recover(self, key: SeriesKey) -> Series | None:
        """A series as its file has it, for those who write; None when there is no file.

        A whole file that the manifest does not know, because its writer was killed in between, is entered there.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path(key)
        if not path.is_file():
            return None
        with self._held(self.root):
            content = path.read_bytes()
            series = self._decode(key, content)
            known = self._manifest().series.get(key.folder)
            if known is None or known.sha256 != hashlib.sha256(content).hexdigest():
                self._enter(key, series.frame, series.requested, hashlib.sha256(content).hexdigest(), len(content))
        return series

    def load(self, key: SeriesKey) -> Series:
        """One series, verified against the manifest.

        Raises:
            DataError: it is missing or damaged, or the manifest does not know its file; the message says what to do.
        """
        entry, content = None, None
        path = self.path(key)
        if self.root.is_dir():
            with self._held(self.root, shared=True):
                entry = self._manifest().series.get(key.folder)
                content = path.read_bytes() if path.is_file() else None
        remedy = f"run {build_command(key.source, key.adjustment, key.timeframe, (key.symbol,))}"
        if content is None:
            raise DataError(f"{path} does not exist; {remedy}")
        if entry is None or entry.sha256 != hashlib.sha256(content).hexdigest():
            found = "is not in" if entry is None else "is damaged: its sha256 is not that in"
            raise DataError(f"{path} {found} {MANIFEST}; {remedy} to repair it")
        return self._decode(key, content)

    def read(self, source: str, adjustment: "Adjustment", timeframe: pd.Timedelta, symbols: Sequence[str] = ()) -> pd.DataFrame:
        """Long frame of stored bars; never contacts a vendor.

        Args:
            symbols: which to read; empty reads all there are.

        Returns:
            symbol (str), timestamp (datetime64[us, UTC], bar starts), open, high, low, close, volume (float64), sorted by
            symbol and timestamp.

        Raises:
            DataError: a series is missing or damaged; the message has the command that downloads it.
        """
        frames = []
        for key in self.select(source, adjustment, timeframe, symbols):
            frame = self.load(key).frame
            frame.insert(0, "symbol", pd.Series(key.symbol, index=frame.index, dtype="str"))
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def identity(self, source: str, adjustment: "Adjustment", timeframe: pd.Timedelta, symbols: Sequence[str] = ()) -> str:
        """Hex digest of the same series' bars, for a run to record: it changes when, and only when, a bar does.

        Raises:
            DataError: a series is missing.
        """
        entries = self._manifest().series
        keys = self.select(source, adjustment, timeframe, symbols)
        return digest_of({key.folder: entries[key.folder].content_sha256 for key in keys})

    def select(self, source: str, adjustment: "Adjustment", timeframe: pd.Timedelta, symbols: Sequence[str] = ()) -> tuple[SeriesKey, ...]:
        """Keys of stored series, by symbol; all that are stored when no symbol is named.

        Raises:
            DataError: a symbol is not stored, or none is; the message has the command that downloads it.
        """
        stored = {
            line.key.symbol
            for line in self.summary()
            if (line.key.source, line.key.adjustment, line.key.timeframe) == (source, adjustment, timeframe)
        }
        missing = sorted(set(symbols) - stored)
        if missing or not stored:
            command = build_command(source, adjustment, timeframe, missing or ("SYMBOLS",))
            raise DataError(f"{self.root} has no {source} bars of {', '.join(missing) or 'any symbol'}; run {command}")
        return tuple(SeriesKey(source, adjustment, timeframe, symbol) for symbol in sorted(set(symbols) or stored))

    def summary(self) -> tuple[SeriesSummary, ...]:
        """What the manifest lists, in the order of the folders."""
        return tuple(_summary(folder, entry) for folder, entry in self._manifest().series.items())

    def verify(self) -> tuple[str, ...]:
        """One sentence for each file that is missing, damaged or not in the manifest; none when all is well."""
        found = {path.parent.relative_to(self.root).as_posix() for path in self.root.glob("source=*/*/*/*/bars.parquet")}
        problems = []
        for folder in sorted(found | set(self._manifest().series)):
            try:
                self.load(SeriesKey.of_folder(folder))
            except DataError as error:
                problems.append(str(error))
        return tuple(problems)

    @contextmanager
    def working(self, key: SeriesKey) -> Iterator[Path]:
        """Yield a folder for a series' download, held by one process at a time; what lies there outlives its holder."""
        folder = self.root / ".building" / key.folder
        with self._held(folder):
            yield folder

    def _write(self, key: SeriesKey, frame: pd.DataFrame, spans: tuple[Span, ...]) -> None:
        path = self.path(key)
        for leftover in path.parent.glob(".*.tmp.parquet"):  # of a writer that was killed: this series is held by us
            leftover.unlink()
        footer = _Footer(
            source=key.source, adjustment=key.adjustment, timeframe=timeframe_name(key.timeframe), vendor_symbol=key.symbol,
            requested=_texts(spans), rows=len(frame),
        )  # fmt: skip
        with ExitStack() as turn:  # held until the manifest knows the new file
            with writing(path) as temporary:
                write_frame(temporary, frame, footer.model_dump())
                sha256, size = file_sha256(temporary), temporary.stat().st_size
                turn.enter_context(self._held(self.root))
            _sync(path.parent)
            self._enter(key, frame, spans, sha256, size)

    def _enter(self, key: SeriesKey, frame: pd.DataFrame, spans: tuple[Span, ...], sha256: str, size: int) -> None:
        """Write a file's line into the manifest; the caller holds the root."""
        for leftover in self.root.glob(".*.tmp.json"):
            leftover.unlink()
        stamps = frame["timestamp"]
        entry = _Entry(
            sha256=sha256, content_sha256=content_sha256(frame), bytes=size, rows=len(frame), first=stamps.iloc[0].isoformat(),
            last=stamps.iloc[-1].isoformat(), requested=_texts(spans),
        )  # fmt: skip
        series = {**self._manifest().series, key.folder: entry}
        write_json(self.root / MANIFEST, _Manifest(series=dict(sorted(series.items()))).model_dump(mode="json"))
        _sync(self.root)

    def _manifest(self) -> _Manifest:
        path = self.root / MANIFEST
        try:
            return _Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return _Manifest()
        except ValidationError as error:
            raise DataError(
                f"{path} is damaged ({error.errors()[0]['msg']}); delete it and run ploutos data build as before: complete files are kept"
            ) from error

    def _decode(self, key: SeriesKey, content: bytes) -> Series:
        path = self.path(key)
        remedy = f"run {build_command(key.source, key.adjustment, key.timeframe, (key.symbol,))} to download it again"
        try:
            frame, about = read_frame(content, str(path))
            footer = _Footer.model_validate(about)
        except DataError as error:
            raise DataError(f"{error}; {remedy}") from error
        except ValidationError as error:
            raise DataError(f"{path} has an unexpected footer ({error.errors()[0]['msg']}); {remedy}") from error
        found = (footer.source, footer.adjustment, footer.timeframe, footer.vendor_symbol)
        if found != (key.source, key.adjustment, timeframe_name(key.timeframe), key.symbol):
            raise DataError(f"{path} says that it holds {' '.join(found)}; expected what its folder says; {remedy}")
        return Series(key, frame, _timestamps(footer.requested))

    @contextmanager
    def _held(self, folder: Path, shared: bool = False) -> Iterator[None]:
        """Hold a folder against other processes; the kernel lets go when its holder dies."""
        try:
            if not shared:
                folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StoreError(f"cannot use {folder}: {error.strerror}; choose another PLOUTOS_HOME") from error
        try:
            mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            try:
                fcntl.flock(handle, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process in %s", folder)
                fcntl.flock(handle, mode)
            yield
        finally:
            os.close(handle)


def _summary(folder: str, entry: _Entry) -> SeriesSummary:
    return SeriesSummary(
        key=SeriesKey.of_folder(folder), rows=entry.rows, first=pd.Timestamp(entry.first), last=pd.Timestamp(entry.last),
        bytes=entry.bytes, requested=_timestamps(entry.requested),
    )  # fmt: skip


def _texts(spans: Sequence[Span]) -> tuple[tuple[str, str], ...]:
    return tuple((start.isoformat(), end.isoformat()) for start, end in spans)


def _timestamps(texts: Sequence[tuple[str, str]]) -> tuple[Span, ...]:
    return tuple((pd.Timestamp(start), pd.Timestamp(end)) for start, end in texts)


def _sync(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
