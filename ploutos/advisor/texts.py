"""Texts with a date: filings, news, calls, read by a language model as of the moment at which each was available.

A text belongs to the first bar whose close is not before its `available_at`, and no decision before that bar's close sees it; a text
without that moment is refused. Before it is read, the asset's name and ticker, other tickers and all dates are taken out (numbers stay:
masking them loses more signal than it removes memory, arXiv 2511.15364), so what comes back depends on the words alone, and equal
texts are read once.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from ploutos.advisor.prompts import with_schema
from ploutos.errors import ConfigError, DataError
from ploutos.llm.backends.base import Message, Messages
from ploutos.llm.client import REMINDER, LLMClient, Query, schema_of
from ploutos.llm.config import Mask
from ploutos.market.bars import Bars
from ploutos.types import Float32Array, IntArray

COLUMNS = ("symbol", "available_at", "source", "text")
TEXT_NAMES = (
    "text_direction",  # mean of direction times confidence over what became available for a bar, -1..1
    "text_surprise",  # mean of how unexpected it was, 0..1
    "text_confidence",  # mean confidence, 0..1
    "text_freshness",  # 1 where texts became available, falling to 0 where none stands
)
_HEAD = """You read one text about one listed company; names and dates were taken out. Judge from its words alone what it means for the
price of ASSET after its publication. Answer with one JSON object: direction (up, down, or none where it says nothing new), horizon (days,
weeks or months: how long until it is in the price), surprise (integer 0 to 100: how unexpected it was), confidence (integer 0 to 100: how
likely the direction is right).
"""
_MARGIN = 128
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
        known = self.frame["available_at"].dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        return np.searchsorted(bars.available_at, known, side="left").astype(np.int64)


def read_texts(path: Path, symbols: Sequence[str]) -> Texts:
    """Texts about some symbols, from a parquet file with symbol, available_at, source and text, and company where names are to be hidden.

    Raises:
        DataError: the file cannot be read, lacks a column or a value, tells no zone, or holds nothing about the symbols.
    """
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}; expected columns {', '.join(COLUMNS)}") from error
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}, and company where names are to be hidden"
        )
    if not isinstance(frame["available_at"].dtype, pd.DatetimeTZDtype):
        raise DataError(
            f"{path}: available_at is {frame['available_at'].dtype}; expected timestamps with a zone, to tell what was known when"
        )
    empty = frame[list(COLUMNS)].isna().any(axis=1) | (frame["text"].astype(str).str.strip() == "")
    if empty.any():
        raise DataError(
            f"{path}: row {int(empty.to_numpy().argmax())} lacks a symbol, an available_at, a source or a text; every row needs all four"
        )
    about = frame[frame["symbol"].isin(symbols)].copy()
    if about.empty:
        held = ", ".join(sorted(frame["symbol"].unique())[:5])
        raise DataError(f"{path} holds no text about {', '.join(symbols)}; found {held}")
    about["available_at"] = about["available_at"].dt.tz_convert("UTC")
    return Texts(about.sort_values(["available_at", "symbol"], kind="stable", ignore_index=True))


def anonymise(text: str, symbol: str, company: str, others: Sequence[str]) -> str:
    """The text without its asset's ticker and name, other tickers and dates; runs of white space become one.

    >>> anonymise("AAPL: Apple Inc. beat MSFT by 12% on May 3, 2021. Apple rose.", "AAPL", "Apple Inc.", ["AAPL", "MSFT"])
    'ASSET: ASSET beat OTHER by 12% on DATE. ASSET rose.'
    """
    named = [company, *re.split(r"[\s,.]+", company)[:1]] if company else []
    for name in sorted({each for each in named if len(each) > 2}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "ASSET", text, flags=re.IGNORECASE)
    for ticker, shown in [(symbol, "ASSET"), *((other, "OTHER") for other in others if other != symbol)]:
        text = re.sub(rf"(?<!\w)\$?{re.escape(ticker)}(?!\w)", shown, text)
    return " ".join(_DATES.sub("DATE", text).split())


class Reading(BaseModel):
    """What a model says that a text means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    direction: Literal["up", "down", "none"]
    horizon: Literal["days", "weeks", "months"]
    surprise: int = Field(ge=0, le=100)
    confidence: int = Field(ge=0, le=100)


class TextReader(LLMClient):
    """A client whose answers are readings of texts."""

    template = "text-1"

    def read(self, texts: Texts, bars: Bars) -> pd.DataFrame:
        """Read every text that some bar can know.

        Returns:
            symbol, bar, available_at, source, asked (the words as they were shown), direction (1, -1 or 0), horizon, surprise and
            confidence (0..1), abstained; one row per text. A text that could not be read says nothing.

        Raises:
            ConfigError: the advisor is a mock, which cannot read.
            LLMUnavailable, LLMError: as in `query_all`.
        """
        if self.is_mock:
            raise ConfigError(
                "llm.provider is mock, a fixed rule that cannot read; name a model, such as --set llm.provider=ollama "
                "--set llm.model=llama3.2"
            )
        at = texts.bars_of(bars)
        frame = texts.frame[at < bars.n_bars].reset_index(drop=True)
        companies = frame["company"].fillna("").astype(str) if "company" in frame else pd.Series("", index=frame.index)
        blind, room = self.config.hidden is Mask.ALL, self._room()
        rows = zip(frame["text"].astype(str), frame["symbol"], companies, strict=True)
        asked = [
            _cut(anonymise(text, symbol, company, bars.symbols) if blind else f"{symbol}: {text}", room) for text, symbol, company in rows
        ]
        outcomes = self.query_all([Query(reading_prompt(words), Reading) for words in asked], self.config.max_unusable)
        said = [outcome.answer or Reading(direction="none", horizon="days", surprise=0, confidence=0) for outcome in outcomes]
        return frame[["symbol", "available_at", "source"]].assign(
            bar=at[at < bars.n_bars], asked=asked, direction=[{"up": 1, "down": -1, "none": 0}[each.direction] for each in said],
            horizon=[each.horizon for each in said], surprise=[each.surprise / 100 for each in said],
            confidence=[each.confidence / 100 for each in said], abstained=[outcome.abstained for outcome in outcomes],
        )  # fmt: skip

    def _room(self) -> int:
        """Bytes that are left for a text: a longer one is cut, because a prompt that might not fit is refused."""
        spent = sum(len(message.content.encode()) for message in (*reading_prompt(""), REMINDER)) + _MARGIN
        return max(self.config.num_ctx - self.config.num_predict - spent, 0)


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


def reading_prompt(words: str) -> Messages:
    """The question about one text."""
    return Message("system", with_schema(_HEAD, schema_of(Reading))), Message("user", words)


def scores_of(readings: pd.DataFrame) -> pd.DataFrame:
    """Mean score, surprise and confidence of all texts that a bar knows first: bar, symbol, score (-1..1), surprise, confidence, asked."""
    each = readings.assign(score=readings["direction"] * readings["confidence"])
    join: Callable[[pd.Series], str] = "\n".join
    return each.groupby(["bar", "symbol"], as_index=False, sort=True).agg(
        score=("score", "mean"), surprise=("surprise", "mean"), confidence=("confidence", "mean"), asked=("asked", join)
    )


def text_features(readings: pd.DataFrame, bars: Bars, stands_bars: int) -> Float32Array:
    """What was known of texts after the close of each bar.

    Args:
        readings: from `TextReader.read`.
        stands_bars: how long a reading stands, unless another follows before.

    Returns:
        Shape (n_bars, n_symbols, 4), columns as `TEXT_NAMES`; 0 where nothing stands.
    """
    scored, values = scores_of(readings), np.zeros((bars.n_bars, bars.n_symbols, len(TEXT_NAMES)), dtype=np.float32)
    column = {symbol: s for s, symbol in enumerate(bars.symbols)}
    rows = zip(*(scored[name].tolist() for name in ("bar", "symbol", "score", "surprise", "confidence")), strict=True)
    for bar, symbol, score, surprise, confidence in rows:
        stands = values[bar : bar + stands_bars, column[symbol]]
        stands[:, :3] = score, surprise, confidence
        stands[:, 3] = 1 - np.arange(len(stands)) / stands_bars
    return values
