"""What files call their columns, how a person says so where it cannot be told, and a file whose columns are known."""

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BeforeValidator

from ploutos.errors import ConfigError, DataError
from ploutos.specs import Spec
from ploutos.types import FloatArray

Column = Literal["symbol", "timestamp", "date", "time", "open", "high", "low", "close", "volume", "adj_close"]
PRICES = ("open", "high", "low", "close")
STAMPS = ("timestamp", "date", "time")
SEPARATORS = {"semicolon": ";", "tab": "\t", "pipe": "|", "comma": ","}  # a decimal comma looks like a separator: it comes last
MARKS = {"point": ".", "comma": ","}
UNREADABLE = (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException)
"""What libraries raise at a damaged file."""

# What vendors call a column, as `key_of` writes it; where several are there, the first one counts.
_ALIASES = {
    ours: tuple(names.split())
    for ours, names in {
        "symbol": "symbol ticker tic sym instrument tscode actsymbol secid stock pair name code",
        "timestamp": "timestamp datetime dateandtime unix unixtime unixtimestamp epoch ts tsevent opentime opentimestamp windowstart "
        "bartime localtime starttime begin t",
        "date": "date day tradedate tradingday tradingdate",
        "time": "time",
        "open": "open o openprice openingprice pxopen",
        "high": "high h highprice pxhigh max",
        "low": "low l lowprice pxlow min",
        "close": "close c closeprice closingprice closelast price last lastprice pxlast",
        "volume": "volume vol v realvolume totalvolume basevolume pxvolume tickvolume tickvol",
        "tick_volume": "tickvolume tickvol",
        "adj_close": "adjclose adjustedclose adjusted closeadj closeadjusted adjcloseprice adjustedcloseprice",
    }.items()
}
_UNNAMED = ("", "unnamed0", "indexlevel0", "index")  # what pandas calls an index without a name; the first one only in the first column
_COIN_VOLUME = re.compile(r"volume[ _(]+[A-Z0-9]{2,6}\)?", re.IGNORECASE)  # "Volume BTC", of the coin; "Volume USDT" follows it


def _word_of(words: Mapping[str, str]) -> BeforeValidator:
    """Let a setting be given as the mark itself or as its word, which no shell or YAML trips over."""
    return BeforeValidator(lambda value: {mark: word for word, mark in words.items()}.get(value, value))


class FileFormat(Spec):
    """How to read files that explain themselves badly; what is left out is told from the file."""

    separator: Annotated[Literal["comma", "semicolon", "tab", "pipe"] | None, _word_of(SEPARATORS)] = None
    """What stands between the columns of a text file."""
    decimal: Annotated[Literal["point", "comma"] | None, _word_of(MARKS)] = None
    """The decimal mark of numbers in text; the other one then separates thousands."""
    header: bool | None = None
    """Whether the first line of a text file names its columns; if not, columns are called 1, 2, 3 and so on."""
    columns: dict[Column, Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name)]] = {}
    """What the file calls a column, by our name for it, such as columns.close=Schlusskurs."""
    dates: str | None = None
    """How dates are written, as for strptime: %d.%m.%Y %H:%M; date and time columns are read with a space between them."""
    day_first: bool | None = None
    """Whether 01/02/2024 is the first of February."""
    epoch: Literal["s", "ms", "us", "ns"] | None = None
    """Unit of timestamps that count from 1970."""
    symbol: str | None = None
    """The one symbol of all rows, or how a file's name holds it: {symbol}_* for SPY_1h.csv; * stands for anything."""


AUTO = FileFormat()


@dataclass(frozen=True)
class Table:
    """A file whose columns are known and whose rows are not read yet.

    Attributes:
        file: the file's name.
        columns: what the file calls its columns.
        separator: what stands between them, None where it is not text.
        places: position of each of our columns, by the ticker that heads it; under None where none does.
        holds_prices: whether it looks like bars, readable or not.
        load: what `read` calls.
    """

    file: str
    columns: tuple[str, ...]
    separator: str | None
    places: Mapping[str | None, Mapping[str, int]]
    holds_prices: bool
    load: Callable[[Sequence[int], Sequence[int]], tuple[dict[int, Any], dict[int, FloatArray]]] = field(repr=False)

    def read(self, texts: Sequence[int], numbers: Sequence[int]) -> tuple[dict[int, Any], dict[int, FloatArray]]:
        """Columns by position: Arrow arrays as they are written, and float64.

        Raises:
            DataError: the file is damaged, holds no rows, or has text among its numbers.
        """
        try:
            found = self.load(texts, numbers)
        except UNREADABLE as error:
            raise damaged(self.file, error) from error
        pa.default_memory_pool().release_unused()  # the text of a large file is not needed any more
        return found

    def require_columns(self) -> None:
        """Refuse a file that lacks a column.

        Raises:
            DataError: with the columns that were found.
        """
        for places in self.places.values():
            missing = [] if places.keys() & set(STAMPS) else ["timestamp"]
            missing += [name for name in PRICES if name not in places]
            if missing:
                other = "" if self.separator is None else ", or what stands between them with data.format.separator"
                raise DataError(
                    f"{self.file} has no column {', '.join(missing)}; found {self._describe()}; expected timestamp, open, high, low, "
                    f"close, volume; name yours, such as data.format.columns.{missing[0]}=NAME{other}; "
                    "or remove the file from data.path if it holds no bars"
                )

    def require_adjustment_is_known(self) -> None:
        """Refuse a file with a column that must be an adjusted close by its name and is none that is known: its prices would be raw.

        Raises:
            DataError: it has one.
        """
        if any("adj_close" in places for places in self.places.values()):
            return
        for name in self.columns:
            key = re.sub(r"[^a-z]", "", name.lower())
            known = re.search("adj|totalreturn", key) or re.fullmatch("a_?close", name.strip().lower())
            if known and not any(word in key for word in ("open", "high", "low", "vol", "factor")):
                raise DataError(
                    f"{self.file} has a column {name!r} that looks like an adjusted close; expected a name such as adj_close; set "
                    f"data.format.columns.adj_close={name!r} to use it, or data.adjustment=raw to trade on unadjusted prices"
                )

    def _describe(self) -> str:
        names = ", ".join(repr(name) for name in self.columns[:12]) + (" ..." if len(self.columns) > 12 else "")
        words = [word for word, mark in SEPARATORS.items() if mark == self.separator]
        return f"{names} (separated by {words[0]})" if words else names


def damaged(file: str, error: Exception) -> DataError:
    """What to raise where a library cannot read a file."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{file} cannot be read: {reason}; expected a complete file; get it again")


@lru_cache(maxsize=4096)
def key_of(name: str) -> str:
    """A column's name without what only decorates it: <CLOSE>, "1. open", Adj. Close*, Time (UTC)."""
    words = re.sub(r"^\s*\d+\.\s+", "", name.lower()).replace("_", " ")
    return re.sub(r"[^a-z0-9]+", "", re.sub(r"\b(?:utc|gmt)\b", "", words))


def names_utc(name: str) -> bool:
    """Whether a column's name says that its times are UTC, as `Gmt time` does."""
    return re.search(r"\b(?:utc|gmt)\b", name.lower().replace("_", " ")) is not None


def match_columns(names: Mapping[int, str], format: FileFormat, file: str) -> dict[str, int]:
    """Position of each of our columns among names by position.

    Raises:
        DataError: a name stands for two columns.
        ConfigError: a column that `format` names is not there.
    """
    keys: dict[str, list[int]] = {}
    for position, name in names.items():
        keys.setdefault(key_of(name), []).append(position)
    found: dict[str, int] = {}
    for ours, aliases in _ALIASES.items():
        given = format.columns.get(ours)  # type: ignore[call-overload]
        if given is not None:
            exact = [position for position, name in names.items() if name.strip().lower() == given.strip().lower()]
            if not exact:
                raise ConfigError(
                    f"data.format.columns.{ours} is {given!r} and {file} has no such column; expected one of "
                    f"{', '.join(repr(name) for name in names.values())}"
                )
        else:
            exact = next((keys[alias] for alias in aliases if alias in keys), [])
        if len(exact) > 1:
            raise DataError(
                f"{file} has {len(exact)} columns called {names[exact[0]]!r}; expected one {ours}; rename one, or name yours with "
                f"data.format.columns.{ours}"
            )
        if exact:
            found[ours] = exact[0]
    if not found.keys() & set(STAMPS):
        index = [position for position, name in names.items() if key_of(name) in _UNNAMED[position > min(names) :]]
        found |= {"timestamp": index[0]} if index else {}
    if "volume" not in found:
        coin = next((position for position, name in names.items() if _COIN_VOLUME.fullmatch(name.strip())), None)
        found |= {} if coin is None else {"volume": coin}
    if found.get("tick_volume") == found.get("volume"):
        found.pop("tick_volume", None)
    return found


def is_price(name: str) -> bool:
    """Whether a name is that of a price or a volume."""
    return any(key_of(name) in _ALIASES[ours] for ours in (*PRICES, "volume", "adj_close"))


def count_prices(names: Sequence[str], format: FileFormat) -> int:
    """How many of open, high, low and close a row of names holds."""
    keys = {key_of(name) for name in names}
    exact = {name.strip().lower() for name in names}
    given = {ours: name.strip().lower() for ours, name in format.columns.items()}
    return sum(given[ours] in exact if ours in given else bool(keys.intersection(_ALIASES[ours])) for ours in PRICES)


def looks_like_bars(names: Sequence[str], format: FileFormat) -> bool:
    """Whether names are those of bars, complete or not: several prices, or closes with a date."""
    keys = {key_of(name) for name in names}
    dated = any(keys.intersection(_ALIASES[ours]) for ours in STAMPS)
    return count_prices(names, format) >= 2 or (dated and bool(keys & {"close", "closelast", "adjclose"}))


def match_tickers(names: Sequence[str], tickers: Sequence[str] | None, format: FileFormat, file: str) -> dict[str | None, dict[str, int]]:
    """Our columns by ticker; columns that no ticker heads belong to all."""
    if tickers is None:
        return {None: match_columns(dict(enumerate(names)), format, file)}
    heads = [ticker if is_price(name) else "" for name, ticker in zip(names, tickers, strict=True)]
    return {
        ticker: match_columns({i: names[i] for i, head in enumerate(heads) if head in ("", ticker)}, format, file)
        for ticker in dict.fromkeys(heads)
        if ticker
    }
