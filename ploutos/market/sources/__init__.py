"""Where bars come from. Each source gives one checked long frame; `load` puts it on one clock.

A run reads this machine only. What a vendor has is brought here first, by `ploutos data build`, into the local dataset.
"""

from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import ValidationError

from ploutos.errors import ConfigError, DataError, UnknownSymbol
from ploutos.market.bars import Bars, align, infer_timeframe
from ploutos.market.dataset import Dataset
from ploutos.market.macro import Provider
from ploutos.market.quality import check_bars
from ploutos.market.sources import files, sample
from ploutos.market.instruments import AssetClass, InstrumentSpec, instrument
from ploutos.market.synthetic import SyntheticSpec, simulate
from ploutos.specs import Spec
from ploutos.store import digest_of, file_sha256

SourceName = Literal["sample", "files", "synthetic", "alpaca", "yahoo"]
SYNTHETIC_SYMBOLS = ("IWM", "QQQ", "SPY")
VENDOR_TIMEFRAME = pd.Timedelta(hours=1)


class DataSpec(Spec):
    """Which bars to read."""

    source: SourceName = "sample"
    """`sample`: five US shares that ship with ploutos; `files`: your own parquet or CSV under `path`; `synthetic`: a seeded
    simulation; `alpaca`, `yahoo`: the local dataset that `ploutos data build` made from that vendor."""
    path: Path | None = None
    """A file, or a folder of files, for source `files`."""
    symbols: tuple[str, ...] = ()
    """Symbols to trade, futures by their root (NQ); empty means all of the sample or the files, or three synthetic ETFs."""
    asset_class: AssetClass | None = None
    """What the symbols are, where a share and a future have one name (ES); empty means the future."""
    start: date | None = None
    """First session date to keep."""
    end: date | None = None
    """Last session date to keep."""
    adjustment: Literal["total_return", "raw"] = "total_return"
    """`total_return` folds splits and dividends in, where the source knows them; `raw` keeps what was paid."""
    timeframe: str = "auto"
    """Bar length such as `1D` or `1h`; `auto` takes the most frequent step, and 1h of a vendor or the simulation."""
    timezone: str | None = None
    """Zone of timestamps in `files` that carry none; without it they are refused."""
    calendar: str = "auto"
    """Exchange calendar, a pandas-market-calendars name: NYSE, 24/7, CME Globex Equity; `auto` takes the instruments'."""
    feed: Literal["sip", "iex"] = "sip"
    """Alpaca's tape: `sip` is all exchanges, `iex` one of them with a few percent of the volume."""
    synthetic: SyntheticSpec = SyntheticSpec()
    """The simulation, for source `synthetic`; its dates and bar length give way to those above where they are set."""
    macro: Path | None = None
    """A file or folder of daily VIX, 10-year yield and dollar, to join to the features by publication time."""
    macro_provider: Provider = "yahoo"
    """Whose publication times hold for macro series that are not named by a vendor's own symbol."""

    @property
    def bar(self) -> pd.Timedelta | None:
        """The bar length, None for `auto`.

        Raises:
            ConfigError: it is no length of time.
        """
        if self.timeframe == "auto":
            return None
        try:
            return pd.Timedelta(self.timeframe)
        except ValueError as error:
            raise ConfigError(f"data.timeframe is {self.timeframe!r}; expected a length such as 1D or 1h") from error


def vendor_name(spec: DataSpec) -> str:
    """Name of a vendor's feed in the dataset: alpaca-sip, alpaca-iex, yahoo."""
    return f"alpaca-{spec.feed}" if spec.source == "alpaca" else spec.source


def served_by(spec: DataSpec, symbol: str) -> InstrumentSpec:
    """What a source trades when a symbol is asked for: itself, or its ETF where Alpaca, which has no futures, is asked.

    >>> served_by(DataSpec(source="alpaca"), "NQ").symbol, served_by(DataSpec(source="yahoo"), "NQ").symbol
    ('QQQ', 'NQ')
    """
    found = instrument(symbol, spec.asset_class)
    if spec.source == "alpaca" and found.alpaca_proxy is not None:
        return instrument(found.alpaca_proxy, "equity")
    return found


def _instruments(spec: DataSpec) -> list[InstrumentSpec]:
    """What the source trades for the symbols that were asked for, each once."""
    return list({found.symbol: found for found in (served_by(spec, symbol) for symbol in spec.symbols)}.values())


def vendor_symbols(spec: DataSpec) -> dict[str, str]:
    """What the vendor calls each thing that the source trades, and its name in the bars."""
    found = _instruments(spec)
    return {(spec.source == "yahoo" and each.yahoo) or each.symbol: each.symbol for each in found}


def proxies(spec: DataSpec) -> dict[str, str]:
    """Symbols that another one stands in for."""
    return {symbol: served for symbol in spec.symbols if (served := served_by(spec, symbol).symbol) != symbol}


def read_source(spec: DataSpec, datasets: Path | None) -> tuple[pd.DataFrame, str]:
    """The long frame of a source (symbol, timestamp, OHLCV, perhaps adj_close) and its name for people."""
    if spec.source == "sample":
        return sample.read(), sample.NAME
    if spec.source == "synthetic":
        return _simulated(spec)
    if spec.source == "files":
        path = _require_path(spec)
        return files.read(path, spec.timezone), f"files: {path.name}"
    return _from_dataset(spec, datasets)


def _simulated(spec: DataSpec) -> tuple[pd.DataFrame, str]:
    chosen = _synthetic_spec(spec)
    frame = simulate(chosen, [served_by(spec, symbol) for symbol in spec.symbols or SYNTHETIC_SYMBOLS])
    return frame, f"synthetic: {chosen.scenario}, {chosen.timeframe}, seed {chosen.seed}"


def _synthetic_spec(spec: DataSpec) -> SyntheticSpec:
    """The simulation's own settings under those of the data; a simulation is made over its own span, then cut."""
    given = {"timeframe": None if spec.bar is None else spec.timeframe, "start": spec.start, "end": spec.end}
    merged = spec.synthetic.model_dump() | {name: value for name, value in given.items() if value is not None}
    try:
        return SyntheticSpec.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(str(error.errors()[0]["ctx"]["error"])) from error


def _from_dataset(spec: DataSpec, datasets: Path | None) -> tuple[pd.DataFrame, str]:
    names = vendor_symbols(spec)
    frame = _dataset(spec, datasets).read(vendor_name(spec), spec.adjustment, spec.bar or VENDOR_TIMEFRAME, list(names))
    frame["symbol"] = frame["symbol"].map(names)
    stand_ins = "".join(f"; {served} stands in for {symbol}" for symbol, served in proxies(spec).items())
    return frame, f"{vendor_name(spec)}, {spec.adjustment.replace('_', ' ')}{stand_ins}"


def _dataset(spec: DataSpec, datasets: Path | None) -> Dataset:
    if datasets is None or not spec.symbols:
        raise ConfigError(f"source {spec.source} reads symbols that ploutos data build brought here; name them, such as --market SPY,QQQ")
    return Dataset(datasets)


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


def adjusted(frame: pd.DataFrame, spec: DataSpec) -> pd.DataFrame:
    """The prices that a run would trade on."""
    if "adj_close" not in frame.columns:
        return frame
    return adjust(frame) if spec.adjustment == "total_return" else frame.drop(columns="adj_close")


def select(frame: pd.DataFrame, spec: DataSpec, origin: str) -> pd.DataFrame:
    """Keep the symbols and dates that were asked for.

    Raises:
        UnknownSymbol: a symbol is not in the source.
        DataError: no bar lies between start and end.
    """
    available = sorted(frame["symbol"].unique())
    wanted = [found.symbol for found in _instruments(spec)]
    unknown = sorted(set(wanted) - set(available))
    if unknown:
        raise UnknownSymbol(f"{origin} has no symbol {', '.join(unknown)}; it holds {', '.join(available)}")
    keep = frame["symbol"].isin(wanted or available)
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


def load_frame(spec: DataSpec, datasets: Path | None = None) -> tuple[pd.DataFrame, str, list[InstrumentSpec], str]:
    """The long frame of a source as it is, unchecked; its name for people, its instruments, and their calendar.

    Raises:
        DataError: there is nothing to read.
        ConfigError: the spec contradicts itself.
    """
    frame, origin = read_source(spec, datasets)
    frame = select(frame, spec, origin)
    instruments = _instruments(spec) or [served_by(spec, str(symbol)) for symbol in frame["symbol"].unique()]
    return frame, origin, instruments, _common_calendar(instruments) if spec.calendar == "auto" else spec.calendar


def load(spec: DataSpec, datasets: Path | None = None) -> Bars:
    """Read, check, adjust and align the bars of a source.

    Args:
        datasets: root of the local dataset, for the vendors' sources.

    Raises:
        DataError: the bars cannot be used; the message says which and why.
        ConfigError: the spec contradicts itself.
    """
    frame, origin, instruments, calendar = load_frame(spec, datasets)
    check_bars(frame, origin)
    frame = adjusted(frame, spec)
    longest = frame["symbol"].value_counts().idxmax()
    timeframe = spec.bar or infer_timeframe(frame.loc[frame["symbol"] == longest, "timestamp"])
    return align(frame, timeframe, calendar, origin, instruments)


def _common_calendar(instruments: list[InstrumentSpec]) -> str:
    calendars = sorted({found.calendar for found in instruments})
    if len(calendars) > 1:
        raise ConfigError(f"the symbols trade on {' and '.join(calendars)}; expected one calendar; name one with --set data.calendar=")
    return calendars[0]


def fingerprint(spec: DataSpec, datasets: Path | None = None) -> list[str]:
    """Digests of what `load` would read; new content gives new digests.

    Raises:
        DataError, ConfigError: there is nothing to read.
    """
    if spec.source == "sample":
        with sample.open_file() as path:
            return [file_sha256(path)]
    if spec.source == "synthetic":
        return [digest_of(_synthetic_spec(spec).model_dump(mode="json"))]
    if spec.source == "files":
        return files.digests(_require_path(spec))
    name, bar = vendor_name(spec), spec.bar or VENDOR_TIMEFRAME
    return [_dataset(spec, datasets).identity(name, spec.adjustment, bar, list(vendor_symbols(spec)))]
