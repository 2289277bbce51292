"""Anyone's parquet or CSV.

One file or a folder of files. A file with a `symbol` column holds many symbols; one without holds the symbol that its
name says. Column names are matched without regard to case. Timestamps must carry a zone, or the caller names it.
"""

from pathlib import Path

import pandas as pd

from ploutos.errors import ConfigError, DataError
from ploutos.store import digest_of, file_sha256

TIMESTAMP_NAMES = ("timestamp", "datetime", "date", "time")
ADJUSTED_NAMES = ("adj_close", "adj close", "adjclose", "adjusted_close")
REQUIRED = ("open", "high", "low", "close", "volume")
SUFFIXES = (".parquet", ".csv")


def find(path: Path) -> list[Path]:
    """The files that a path stands for, by name.

    Raises:
        DataError: there is none.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a parquet or CSV file, or a folder of them")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not found:
        raise DataError(f"{path} holds no parquet or CSV file; expected at least one")
    return found


def digests(path: Path) -> list[str]:
    """Digest of name and content of every file that a path stands for."""
    return [digest_of([file.name, file_sha256(file)]) for file in find(path)]


def read(path: Path, timezone: str | None) -> pd.DataFrame:
    """Long frame of all files: symbol, timestamp (UTC), OHLCV, and adj_close when every file has it.

    Args:
        path: a .parquet or .csv file, or a folder of them.
        timezone: zone of timestamps that carry none; None refuses those.

    Raises:
        DataError: nothing there, a file cannot be parsed, a column is missing, or timestamps have no zone.
    """
    frames = [_read_one(file, timezone) for file in find(path)]
    shared = [name for name in frames[0].columns if all(name in frame.columns for frame in frames)]
    return pd.concat([frame[shared] for frame in frames], ignore_index=True)


def _parse(file: Path) -> pd.DataFrame:
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file.name} is neither .parquet nor .csv")
    if file.stat().st_size == 0:
        raise DataError(f"{file.name} is empty; expected a header and one row per bar")
    try:
        return pd.read_parquet(file) if file.suffix.lower() == ".parquet" else pd.read_csv(file)
    except (ValueError, OSError, UnicodeDecodeError) as error:  # ValueError covers pandas' and Arrow's parse errors
        raise DataError(f"{file.name} cannot be read as {file.suffix[1:]}: {str(error).splitlines()[0]}") from error


def _read_one(file: Path, timezone: str | None) -> pd.DataFrame:
    frame = _parse(file)
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    frame.columns = pd.Index([str(name).strip().lower() for name in frame.columns])
    stamp = next((name for name in TIMESTAMP_NAMES if name in frame.columns), None)
    missing = [name for name in REQUIRED if name not in frame.columns] + ([] if stamp else ["timestamp"])
    if missing:
        raise DataError(f"{file.name} has no column {', '.join(missing)}; expected timestamp, open, high, low, close, volume")
    if frame.empty:
        raise DataError(f"{file.name} holds no bars; expected at least one row")
    adjusted = next((name for name in ADJUSTED_NAMES if name in frame.columns), None)
    result = pd.DataFrame(
        {
            "symbol": frame["symbol"].astype(str) if "symbol" in frame.columns else file.stem,
            "timestamp": _utc(frame[stamp], timezone, file),
        }
    )
    for name in REQUIRED:
        result[name] = _number(frame[name], name, file)
    if adjusted:
        result["adj_close"] = _number(frame[adjusted], adjusted, file)
    return result


def _number(column: pd.Series, name: str, file: Path) -> pd.Series:
    try:
        return pd.to_numeric(column).astype("float64")
    except (ValueError, TypeError) as error:
        raise DataError(f"{file.name} has text in column {name}: {error}; expected numbers") from error


def _utc(stamps: pd.Series, timezone: str | None, file: Path) -> pd.Series:
    """Timestamps as datetime64[us, UTC]; text and datetimes alike."""
    if pd.api.types.is_numeric_dtype(stamps):
        raise DataError(f"{file.name} has numbers as timestamps; expected dates such as 2024-01-02T14:30:00Z")
    try:
        parsed = stamps if pd.api.types.is_datetime64_any_dtype(stamps) else pd.to_datetime(stamps, format="ISO8601")
        if not pd.api.types.is_datetime64_any_dtype(parsed):  # offsets that change with daylight saving
            parsed = pd.to_datetime(stamps, format="ISO8601", utc=True)
    except (ValueError, TypeError):
        try:
            parsed = pd.to_datetime(stamps, format="ISO8601", utc=True)
        except (ValueError, TypeError) as error:
            reason = str(error).splitlines()[0].split(". ")[0]
            raise DataError(f"{file.name} has a timestamp that is no ISO date: {reason}") from error
    if parsed.dt.tz is None:
        if timezone is None:
            raise DataError(
                f"{file.name} has timestamps without a time zone; expected one such as 2024-01-02T14:30:00Z; "
                "name their zone with --set data.timezone=UTC (or America/New_York)"
            )
        try:
            parsed = parsed.dt.tz_localize(timezone)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"data.timezone {timezone!r} does not fit {file.name}: {error}") from error
    return parsed.dt.tz_convert("UTC").dt.as_unit("us")
