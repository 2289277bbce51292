"""Where bars come from. Each source gives one checked long frame; `load` puts it on one clock."""

from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd

from ploutos.errors import ConfigError, DataError, UnknownSymbol
from ploutos.market.bars import Bars, align, infer_timeframe
from ploutos.market.quality import check_bars
from ploutos.market.sources import files, sample
from ploutos.specs import Spec
from ploutos.store import digest_of, file_sha256


class DataSpec(Spec):
    """Which bars to read."""

    source: Literal["sample", "files"] = "sample"
    """`sample`: five US shares that ship with ploutos; `files`: your own parquet or CSV under `path`."""
    path: Path | None = None
    """A file, or a folder of files, for source `files`."""
    symbols: tuple[str, ...] = ()
    """Symbols to keep; empty keeps all."""
    start: date | None = None
    """First session date to keep."""
    end: date | None = None
    """Last session date to keep."""
    adjustment: Literal["total_return", "raw"] = "total_return"
    """`total_return` multiplies prices by adj_close / close where the source has adj_close; `raw` keeps what was paid."""
    timeframe: str = "auto"
    """Bar length such as `1D` or `1h`; `auto` takes the most frequent step."""
    timezone: str | None = None
    """Zone of timestamps that carry none; without it they are refused."""
    calendar: str = "NYSE"
    """Exchange calendar, a pandas-market-calendars name: NYSE, 24/7, CME Globex Equity."""


def read_source(spec: DataSpec) -> tuple[pd.DataFrame, str]:
    """The long frame of a source (symbol, timestamp, OHLCV, perhaps adj_close) and its name for people."""
    if spec.source == "sample":
        return sample.read(), sample.NAME
    path = _require_path(spec)
    return files.read(path, spec.timezone), f"files: {path.name}"


def _require_path(spec: DataSpec) -> Path:
    if spec.path is None:
        raise ConfigError("source files needs a path; add --path FOLDER or --set data.path=FOLDER")
    return spec.path


def adjust(frame: pd.DataFrame) -> pd.DataFrame:
    """Total-return prices from raw ones.

    Each bar's prices are multiplied by its own adj_close / close and its volume divided by it, so that the traded
    value stays what it was. The factor of a bar folds in splits and dividends that came later, as every back-adjusted
    series does: it sets the level of prices, which nothing downstream reads, and not their ratios.
    """
    factor = frame["adj_close"] / frame["close"]
    adjusted = frame.drop(columns="adj_close")
    for name in ("open", "high", "low", "close"):
        adjusted[name] = frame[name] * factor
    adjusted["volume"] = frame["volume"] / factor
    return adjusted


def select(frame: pd.DataFrame, spec: DataSpec, origin: str) -> pd.DataFrame:
    """Keep the symbols and dates that were asked for.

    Raises:
        UnknownSymbol: a symbol is not in the source.
        DataError: no bar lies between start and end.
    """
    available = sorted(frame["symbol"].unique())
    unknown = sorted(set(spec.symbols) - set(available))
    if unknown:
        raise UnknownSymbol(f"{origin} has no symbol {', '.join(unknown)}; it holds {', '.join(available)}")
    keep = frame["symbol"].isin(spec.symbols or available)
    dates = frame["timestamp"].dt.date
    if spec.start is not None:
        keep &= dates >= spec.start
    if spec.end is not None:
        keep &= dates <= spec.end
    if not keep.any():
        raise DataError(
            f"{origin} has no bars between {spec.start or 'its start'} and {spec.end or 'its end'}; it spans {dates.min()} to {dates.max()}"
        )
    return frame[keep].sort_values(["symbol", "timestamp"], ignore_index=True)


def load(spec: DataSpec) -> Bars:
    """Read, check, adjust and align the bars of a source.

    Raises:
        DataError: the bars cannot be used; the message says which and why.
        ConfigError: the spec contradicts itself.
    """
    frame, origin = read_source(spec)
    frame = select(frame, spec, origin)
    check_bars(frame, origin)
    if "adj_close" in frame.columns:
        frame = adjust(frame) if spec.adjustment == "total_return" else frame.drop(columns="adj_close")
    longest = frame["symbol"].value_counts().idxmax()
    if spec.timeframe == "auto":
        timeframe = infer_timeframe(frame.loc[frame["symbol"] == longest, "timestamp"])
    else:
        try:
            timeframe = pd.Timedelta(spec.timeframe)
        except ValueError as error:
            raise ConfigError(f"data.timeframe is {spec.timeframe!r}; expected a length such as 1D or 1h") from error
    return align(frame, timeframe, spec.calendar, origin)


def fingerprint(spec: DataSpec) -> list[str]:
    """Digests of the files that `load` would read; new content gives new digests.

    Raises:
        DataError, ConfigError: there is nothing to read.
    """
    if spec.source == "sample":
        with sample.open_file() as path:
            return [file_sha256(path)]
    return [digest_of([file.name, file_sha256(file)]) for file in files.find(_require_path(spec))]
