"""Which bars a run reads, and what the symbols in them are.

What a symbol is follows from, in this order: `data.instruments` and `data.asset_class`, its name, and the days on which its bars
trade. Its calendar follows from what it is, or from `data.calendar`. Where the bars contradict what was found, the run stops.
"""

from datetime import date
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import PositiveInt, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from ploutos.errors import ConfigError, UnknownSymbol
from ploutos.faults import suggestion
from ploutos.market.clock import Label, parse_timeframe
from ploutos.market.instruments import AssetClass, InstrumentSpec, equity, instrument
from ploutos.market.macro import Provider
from ploutos.market.sources.files import FileFormat
from ploutos.market.sources.timestamps import Ambiguous
from ploutos.market.synthetic.scenarios import PLANTED
from ploutos.market.synthetic.spec import SyntheticSpec
from ploutos.specs import Spec
from ploutos.wording import enumerate_names

SourceName = Literal["sample", "files", "synthetic", "alpaca", "yahoo"]
_READ_BY = {"files": ("timezone", "ambiguous", "label", "format"), "alpaca": ("feed",), "synthetic": ("synthetic",)}
"""Settings that one source alone reads; given to another they would be ignored."""
TEXT_SETTINGS = ("texts", "texts_stand_bars")
EVERY_SETTING = {"settings": "every"}
"""Context in which a dump holds settings that otherwise only stand there where they are used."""
SYNTHETIC_SYMBOLS = ("IWM", "QQQ", "SPY")
VENDOR_TIMEFRAME = pd.Timedelta(hours=1)


class DataSpec(Spec):
    """Which bars to read."""

    source: SourceName = "sample"
    """`sample`: five US shares that ship with ploutos; `files`: your own files under `path`; `synthetic`: a seeded
    simulation; `alpaca`, `yahoo`: the local dataset that `ploutos data build` made from that vendor."""
    path: Path | None = None
    """A file, or a folder of files, for source `files`."""
    symbols: tuple[str, ...] = ()
    """Symbols to trade, futures by their root (NQ); empty means all of the sample or the files, or three synthetic ETFs."""
    asset_class: AssetClass | None = None
    """What the symbols are, where their names mislead (a share called ES); empty decides by the names and the bars."""
    instruments: tuple[InstrumentSpec, ...] = ()
    """Terms of single symbols that differ from what ploutos knows: multiplier, tick, fees, margin, calendar."""
    start: date | None = None
    """First session date to keep."""
    end: date | None = None
    """Last session date to keep."""
    adjustment: Literal["total_return", "raw"] = "total_return"
    """`total_return` adjusts for splits and dividends, where the source knows them; `raw` keeps the prices that were paid."""
    rolls: Literal["keep", "detected"] | tuple[date, ...] = "keep"
    """A continuous future's gaps at rolls: `keep` trades the series as it is, `detected` removes the gaps that stand out, a list those on
    its dates; what is removed is removed by ratio, before the date."""
    delisting: Literal["last_close", "zero"] | dict[str, float] = "last_close"
    """At what a unit is paid out when a symbol's bars end before the others': its last close, nothing, or a price by symbol."""
    timeframe: str = "auto"
    """Bar length such as 15min, 1h, 1D, 1W or 1M; shorter bars are made longer, within sessions. `auto` keeps what the files have, and
    takes 1h from a vendor or the simulation."""
    label: Label = "auto"
    """Which end of an intraday bar the timestamps in `files` name; `auto` infers it from the first and last bars of many sessions."""
    timezone: str | None = None
    """Zone of timestamps in `files` that carry none; without it they are refused, except for dates without a time."""
    ambiguous: Ambiguous = "error"
    """Which one is meant where a local time in `files` occurs twice, when summer time ends: `infer` decides by the order of the rows."""
    format: FileFormat = FileFormat()
    """How to read `files` whose layout is not plain: columns, separators, dates."""
    calendar: str = "auto"
    """Exchange calendar, a pandas-market-calendars name: NYSE, FX, 24/7, CME Globex Equity; `auto` takes the instruments'."""
    feed: Literal["sip", "iex"] = "sip"
    """Alpaca's tape: `sip` is all exchanges, `iex` one of them with a few percent of the volume."""
    synthetic: SyntheticSpec = SyntheticSpec()
    """The simulation, for source `synthetic`; its dates and bar length give way to those above where they are set."""
    macro: Path | None = None
    """A file or folder of daily VIX, 10-year yield and dollar, to join to the features by publication time."""
    macro_provider: Provider = "yahoo"
    """Whose publication times apply to macro series that are not named by a vendor's own symbol."""
    texts: Path | None = None
    """A file of dated texts (parquet or CSV: symbol, available_at with a zone, source, text) that the language model reads; everything that
    is trained observes its readings."""
    texts_stand_bars: PositiveInt = 5
    """Bars for which a reading holds, unless another replaces it, and after which the controls judge it."""

    @model_serializer(mode="wrap")
    def _as_before_there_were_texts(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Without texts nothing says so: keys and digests of such runs stay what they were."""
        found: dict[str, Any] = handler(self)
        shown = self.texts is not None or info.context == EVERY_SETTING
        return found if shown else {name: value for name, value in found.items() if name not in TEXT_SETTINGS}

    @model_validator(mode="after")
    def _path_is_read(self) -> "DataSpec":
        if self.path is not None and self.source != "files":
            raise ValueError(f"path is {self.path}, which source {self.source} does not read; set source to files, or leave path out")
        return self

    @property
    def unread(self) -> str | None:
        """A sentence about a setting that the source would ignore; None where there is none."""
        for source, names in _READ_BY.items():
            for name in names if self.source != source else ():
                value = getattr(self, name)
                if value != type(self).model_fields[name].get_default(call_default_factory=True):
                    shown = " holds settings that" if isinstance(value, Spec) else f" is {value}, which"
                    return f"data.{name}{shown} source {self.source} does not read; set data.source to {source}, or leave data.{name} out"
        if self.macro is None and self.macro_provider != "yahoo":
            return f"data.macro_provider is {self.macro_provider}, but data.macro is not set; set it, or leave this out"
        if self.texts is None and self.texts_stand_bars != 5:
            return f"data.texts_stand_bars is {self.texts_stand_bars}, but data.texts is not set; set it, or leave this out"
        return None

    @property
    def bar(self) -> pd.Timedelta | None:
        """The bar length, None for `auto`.

        Raises:
            ConfigError: it is not a length of time.
        """
        return None if self.timeframe == "auto" else parse_timeframe(self.timeframe)


def is_planted(spec: DataSpec) -> bool:
    """Whether the bars are a simulation that hides a signal."""
    return spec.source == "synthetic" and spec.synthetic.scenario in PLANTED


def vendor_name(spec: DataSpec) -> str:
    """Name of a vendor's feed in the dataset: alpaca-sip, alpaca-iex, yahoo."""
    return f"alpaca-{spec.feed}" if spec.source == "alpaca" else spec.source


def served_by(spec: DataSpec, symbol: str) -> InstrumentSpec:
    """What a source trades for a requested symbol: itself, or an ETF where the source is Alpaca, which has no futures.

    >>> served_by(DataSpec(source="alpaca"), "NQ").symbol, served_by(DataSpec(source="yahoo"), "NQ").symbol
    ('QQQ', 'NQ')
    """
    for given in spec.instruments:
        if given.symbol == symbol:
            return given
    found = instrument(symbol, spec.asset_class)
    if spec.source != "alpaca" or found.asset_class != "future":
        return found
    if found.alpaca_proxy is not None:
        return instrument(found.alpaca_proxy, "equity")
    if spec.asset_class is None and symbol == found.symbol and symbol.isalpha():
        return equity(symbol)  # CL is Colgate where there are no futures
    raise ConfigError(f"Alpaca has no futures and no ETF stands in for {symbol}; choose another symbol or another source")


def asked_instruments(spec: DataSpec) -> list[InstrumentSpec]:
    """What the source trades for the requested symbols, each once."""
    return list({found.symbol: found for found in (served_by(spec, symbol) for symbol in spec.symbols)}.values())


def vendor_symbols(spec: DataSpec) -> dict[str, str]:
    """What the vendor calls each thing that the source trades, and its name in the bars."""
    found = asked_instruments(spec)
    return {(spec.source == "yahoo" and each.yahoo) or each.symbol: each.symbol for each in found}


def substitutes(spec: DataSpec) -> dict[str, str]:
    """Symbols that another one stands in for."""
    return {symbol: served for symbol in spec.symbols if (served := served_by(spec, symbol).symbol) != symbol}


def select_symbols(frame: pd.DataFrame, spec: DataSpec, origin: str) -> pd.DataFrame:
    """The requested symbols, sorted by symbol and time.

    Raises:
        UnknownSymbol: a symbol is not in the source.
    """
    available = sorted(str(name) for name in frame["symbol"].dropna().unique())
    wanted = [found.symbol for found in asked_instruments(spec)]
    unknown = sorted(set(wanted) - set(available))
    if unknown:
        raise UnknownSymbol(
            f"{origin} has no symbol {', '.join(unknown)}; it holds {enumerate_names(available, 20)}{suggestion(unknown[0], available)}"
        )
    kept = frame[frame["symbol"].isin(wanted)] if wanted else frame
    return kept.sort_values(["symbol", "timestamp"], ignore_index=True, kind="stable")
