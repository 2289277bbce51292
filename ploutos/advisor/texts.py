"""Texts with a date: filings, news, calls, read by a language model as of the moment at which each was available.

A text belongs to the first bar whose close is not before its `available_at`, and no decision before that bar's close sees it; a text
without that moment is refused. Before it is read, the asset's name and ticker, other tickers and all dates are taken out (numbers stay:
masking them loses more signal than it removes memory, arXiv 2511.15364), so what comes back depends on the words alone, and equal
texts are read once. A run trains on what came of them: five columns beside the features of prices.
"""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ploutos.advisor.advisor import make_backend
from ploutos.advisor.config import LLMConfig, Mask
from ploutos.advisor.prompts import with_schema
from ploutos.errors import ConfigError, DataError
from ploutos.features.build import FeatureSet
from ploutos.llm.backends.base import Message, Messages
from ploutos.llm.cassette import Cassette
from ploutos.llm.client import REMINDER, LLMClient, Query, schema_of
from ploutos.market.bars import Bars, span_in_words
from ploutos.settings import Settings
from ploutos.store import Kind
from ploutos.types import Float32Array, IntArray, TimeArray
from ploutos.wording import enumerate_names, plural

_LOG = logging.getLogger(__name__)
COLUMNS = ("symbol", "available_at", "source", "text")
TEXT_NAMES = (
    "text_direction",  # mean of direction times confidence over what became available for a bar, -1..1
    "text_surprise",  # mean of how unexpected it was, 0..1
    "text_confidence",  # mean confidence, 0..1
    "text_horizon",  # mean horizon: 0 days, 0.5 weeks, 1 months
    "text_freshness",  # 1 where texts became available, falling to 0 where none stands
)
SAID = ("direction", "horizon", "surprise", "confidence")
"""Columns of a reading that the model says."""
_HORIZONS = {"days": 0.0, "weeks": 0.5, "months": 1.0}
_HEAD = """You read one text about one listed company; names and dates were taken out. Judge from its words alone what it means for the
price of ASSET after its publication. Answer with one JSON object: direction (up, down, or none where it says nothing new), horizon (days,
weeks or months: how long until it is in the price), surprise (integer 0 to 100: how unexpected it was), confidence (integer 0 to 100: how
likely the direction is right).
"""
_MARGIN = 128
_ZONED = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|"
    r"Dec(?:ember)?)\.?"
)
_YEAR, _DAY = r"(?:19|20)\d{2}", r"\d{1,2}(?:st|nd|rd|th)?"
_DATES = re.compile(
    rf"\b{_YEAR}-\d\d-\d\d(?:T[\d:.]+Z?)?\b|\b\d{{1,2}}[/.]\d{{1,2}}[/.](?:{_YEAR}|\d\d)\b|\b{_MONTH}\s+{_DAY},?\s+{_YEAR}\b"
    rf"|\b{_DAY}\s+{_MONTH},?\s+{_YEAR}\b|\b{_MONTH},?\s+{_YEAR}\b|\b(?:FY\s?)?{_YEAR}\b"
)


@dataclass(frozen=True)
class Texts:
    """Texts in the order in which they became available.

    Attributes:
        frame: symbol, available_at (UTC), source, text, and company where the file names it.
    """

    frame: pd.DataFrame

    def bars_of(self, bars: Bars) -> IntArray:
        """The first bar after whose close each text is known, shape (n,); `n_bars` for one that comes after the last."""
        return np.searchsorted(bars.available_at, self._known, side="left").astype(np.int64)

    def within(self, bars: Bars) -> "Texts":
        """Those that came after the first bar had begun and that some bar can know.

        Raises:
            DataError: there is none.
        """
        early, late = self._known < bars.timestamps[0], self.bars_of(bars) == bars.n_bars
        if (early | late).all():
            raise DataError(
                f"none of {plural(len(self.frame), 'text')} became available within the bars, {span_in_words(bars.timestamps)}: "
                f"{early.sum():,} before and {late.sum():,} after; choose texts or bars of the same time"
            )
        if (early | late).any():
            _LOG.info("%d texts came before the first bar, %d after the last; they are not read", early.sum(), late.sum())
        return Texts(self.frame[~(early | late)].reset_index(drop=True))

    @property
    def _known(self) -> TimeArray:
        return self.frame["available_at"].dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def read_texts(path: Path, symbols: Sequence[str]) -> Texts:
    """Texts about some symbols, from a parquet or CSV file with symbol, available_at, source and text, and company where names are to be
    hidden.

    Raises:
        DataError: the file cannot be read, lacks a column or a value, tells no zone, or holds nothing about the symbols.
    """
    form = "CSV" if ".csv" in path.suffixes else "parquet"
    try:
        frame = pd.read_csv(path, dtype=str) if form == "CSV" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as {form}: {error}; expected columns {', '.join(COLUMNS)}") from error
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}, and company where names are to be hidden"
        )
    empty = frame[list(COLUMNS)].isna().any(axis=1) | (frame["text"].astype(str).str.strip() == "")
    if empty.any():
        raise DataError(
            f"{path}: row {int(empty.to_numpy().argmax())} lacks a symbol, an available_at, a source or a text; every row needs all four"
        )
    frame = frame.assign(symbol=frame["symbol"].astype(str), available_at=_moments(frame["available_at"], path))
    about = frame[frame["symbol"].isin(symbols)]
    if about.empty:
        held = enumerate_names(sorted(frame["symbol"].unique()), 5) if len(frame) else "no rows"
        raise DataError(f"{path} holds no text about {', '.join(symbols)}; found {held}")
    if len(about) < len(frame):
        _LOG.info("%s: %d of %d texts are about other symbols and are not read", path, len(frame) - len(about), len(frame))
    return Texts(about.sort_values(["available_at", "symbol"], kind="stable", ignore_index=True))


def _moments(column: pd.Series, path: Path) -> pd.Series:
    """Timestamps in UTC, of timestamps with a zone or of ISO 8601 that ends in one."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC")
    written = column.astype(str)
    naive = ~written.str.strip().str.contains(_ZONED)
    read = pd.to_datetime(written.where(~naive), utc=True, format="ISO8601", errors="coerce")
    if read.isna().any():
        row = int(read.isna().to_numpy().argmax())
        raise DataError(
            f"{path}: available_at of row {row} is {written.iloc[row]}; expected timestamps with a zone, such as 2024-05-02T20:05:00Z, to "
            "tell what was known when"
        )
    return read.astype("datetime64[us, UTC]")


def anonymise(text: str, symbol: str, company: str, others: Sequence[str], mask: Mask = Mask.ALL) -> str:
    """A text without what a mask hides of it: its asset's ticker and name and other tickers, dates; runs of white space become one.

    >>> anonymise("AAPL: Apple Inc. beat MSFT by 12% on May 3, 2021. Apple rose.", "AAPL", "Apple Inc.", ["AAPL", "MSFT"])
    'ASSET: ASSET beat OTHER by 12% on DATE. ASSET rose.'
    """
    if mask in (Mask.ALL, Mask.NAMES):
        named = [company, *re.split(r"[\s,.]+", company)[:1]] if company else []
        for name in sorted({each for each in named if len(each) > 2}, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "ASSET", text, flags=re.IGNORECASE)
        for ticker, shown in [(symbol, "ASSET"), *((other, "OTHER") for other in others if other != symbol)]:
            text = re.sub(rf"(?<!\w)\$?{re.escape(ticker)}(?!\w)", shown, text)
    else:
        text = f"{symbol}: {text}"
    return " ".join((_DATES.sub("DATE", text) if mask in (Mask.ALL, Mask.DATES) else text).split())


class Reading(BaseModel):
    """What a model says that a text means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    direction: Literal["up", "down", "none"]
    horizon: Literal["days", "weeks", "months"]
    surprise: int = Field(ge=0, le=100)
    confidence: int = Field(ge=0, le=100)


class TextReader(LLMClient[LLMConfig]):
    """A client whose answers are readings of texts."""

    template = "text-1"

    def read(self, texts: Texts, bars: Bars) -> pd.DataFrame:
        """Read every text that some bar can know.

        Returns:
            symbol, bar, available_at, source, asked (the words as they were shown), direction (1, -1 or 0), horizon, surprise and
            confidence (0..1), abstained, prompt_tokens, tokens; one row per text. A text that could not be read says nothing.

        Raises:
            ConfigError: the advisor is a mock, which cannot read.
            DataError: no text lies within the bars.
            LLMUnavailable, LLMError: as in `query_all`.
        """
        texts = texts.within(bars)
        queries = self.questions(texts, bars)
        outcomes = self.query_all(queries, self.config.max_unusable)
        said = [outcome.answer or Reading(direction="none", horizon="days", surprise=0, confidence=0) for outcome in outcomes]
        frame = texts.frame[["symbol", "available_at", "source"]].assign(
            bar=texts.bars_of(bars), asked=[query.messages[-1].content for query in queries],
            direction=[{"up": 1, "down": -1, "none": 0}[each.direction] for each in said], horizon=[each.horizon for each in said],
            surprise=[each.surprise / 100 for each in said], confidence=[each.confidence / 100 for each in said],
            abstained=[outcome.abstained for outcome in outcomes], prompt_tokens=[outcome.prompt_tokens for outcome in outcomes],
            tokens=[outcome.tokens for outcome in outcomes],
        )  # fmt: skip
        frame.attrs = {
            "model": self.name, "digest": self.digest, "mask": self.config.hidden.value, "provider": self.config.provider.value,
            "asked": self.config.model,
        }  # fmt: skip
        return frame

    def questions(self, texts: Texts, bars: Bars) -> list[Query[Reading]]:
        """What is asked about each text.

        Raises:
            ConfigError: the advisor is a mock, which cannot read.
        """
        if self.is_mock:
            raise ConfigError(
                "llm.provider is mock, a fixed rule that cannot read; name a model, such as --set llm.provider=ollama "
                "--set llm.model=llama3.2"
            )
        frame = texts.frame
        companies = frame["company"].fillna("").astype(str) if "company" in frame else pd.Series("", index=frame.index)
        rows, room = zip(frame["text"].astype(str), frame["symbol"], companies, strict=True), self._room()
        shown = [_cut(anonymise(text, symbol, company, bars.symbols, self.config.hidden), room) for text, symbol, company in rows]
        return [Query(reading_prompt(words), Reading) for words in shown]

    def _room(self) -> int:
        """Bytes that are left for a text: a longer one is cut, because a prompt that might not fit is refused."""
        spent = sum(len(message.content.encode()) for message in (*reading_prompt(""), REMINDER)) + _MARGIN
        return max(self.config.num_ctx - self.config.num_predict - spent, 0)


def make_reader(config: LLMConfig, settings: Settings) -> TextReader:
    """The reader that the configuration names, with the machine's cassette."""
    return TextReader(make_backend(config, settings), config, Cassette(settings.cassettes_root))


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


def reading_prompt(words: str) -> Messages:
    """The question about one text."""
    return Message("system", with_schema(_HEAD, schema_of(Reading))), Message("user", words)


def scores_of(readings: pd.DataFrame) -> pd.DataFrame:
    """Means of all texts that a bar knows first: bar, symbol, score (-1..1), surprise, confidence, horizon (0..1), asked."""
    each = readings.assign(score=readings["direction"] * readings["confidence"], horizon=readings["horizon"].map(_HORIZONS))
    join: Callable[[pd.Series], str] = "\n".join
    means = {name: (name, "mean") for name in ("score", "surprise", "confidence", "horizon")}
    return each.groupby(["bar", "symbol"], as_index=False, sort=True).agg(**means, asked=("asked", join))


def text_features(scored: pd.DataFrame, bars: Bars, stands_bars: int) -> Float32Array:
    """What was known of texts after the close of each bar.

    Args:
        scored: from `scores_of`, in the order of bars.
        stands_bars: how long a reading stands, unless another follows before.

    Returns:
        Shape (n_bars, n_symbols, 5), columns as `TEXT_NAMES`; 0 where nothing stands.
    """
    values = np.zeros((bars.n_bars, bars.n_symbols, len(TEXT_NAMES)), dtype=np.float32)
    column = {symbol: s for s, symbol in enumerate(bars.symbols)}
    rows = zip(*(scored[name].tolist() for name in ("bar", "symbol", "score", "surprise", "confidence", "horizon")), strict=True)
    for bar, symbol, *said in rows:
        stands = values[bar : bar + stands_bars, column[symbol]]
        stands[:, :-1] = said
        stands[:, -1] = 1 - np.arange(len(stands)) / stands_bars
    return values


def require_reader(readings: pd.DataFrame, config: LLMConfig) -> None:
    """Refuse another model in the place of the one that read: what sessions count is asked of it.

    Raises:
        ConfigError: another one is named.
    """
    provider, model = readings.attrs["provider"], readings.attrs["asked"]
    if (provider, model) != (config.provider.value, config.model):
        raise ConfigError(
            f"the texts were read by {model} ({provider}), and the settings name {config.model} ({config.provider.value}); start from "
            "phase 1, or name the model that read"
        )


def with_texts(features: FeatureSet, scored: pd.DataFrame, bars: Bars, stands_bars: int) -> FeatureSet:
    """Features with those of texts behind them, where a symbol has a bar; arguments as in `text_features`."""
    told = np.where(bars.tradable[:, :, None], text_features(scored, bars, stands_bars), np.float32(np.nan))
    return replace(features, values=np.concatenate([features.values, told], axis=2), names=features.names + TEXT_NAMES)


def without_texts(features: FeatureSet) -> FeatureSet:
    """The features of prices, and of whatever else stands before those of texts."""
    return replace(features, values=features.values[:, :, : -len(TEXT_NAMES)], names=features.names[: -len(TEXT_NAMES)])


def write_readings(readings: pd.DataFrame, path: Path) -> None:
    """Write readings as parquet; the same ones give the same bytes."""
    readings.to_parquet(path, index=False)


READINGS = Kind("readings", ".parquet", write_readings, pd.read_parquet)
