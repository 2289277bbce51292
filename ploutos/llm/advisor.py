"""Advice behind one protocol, and the signals it is kept in.

A brief is built from the bars known at its as-of time and carries no name and no date. Advice is asked for once per
symbol every `cadence_bars` bars, before any policy acts, and stands until the next. A later stage reads the signals; no
training loop ever waits for an advisor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.errors import ConfigError
from ploutos.features.llm_features import MARKET_NAMES
from ploutos.llm.backends.mock import MockAdvisor
from ploutos.llm.prompts import TEMPLATE_VERSION, render
from ploutos.market.bars import Bars
from ploutos.specs import Spec
from ploutos.types import Float32Array, FloatArray, IntArray

ACTIONS = {"hold": HOLD, "buy": BUY, "sell": SELL}


class LLMSpec(Spec):
    """Who advises, and how often."""

    provider: Literal["mock"] = "mock"
    """`mock` is a fixed rule, no language model; every output that rests on it says so."""
    cadence_bars: PositiveInt = 5
    """Bars from one piece of advice to the next."""


class Advice(BaseModel):
    """What an advisor may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["buy", "sell", "hold"]
    confidence: int = Field(ge=0, le=100)
    reason: str = Field(max_length=200)


class Advisor(Protocol):
    """Anything that answers prompts."""

    model: str
    is_mock: bool

    def answer(self, prompts: Sequence[str]) -> list[dict[str, object]]:
        """One raw answer per prompt, to be validated as `Advice`."""
        ...


def make_advisor(spec: LLMSpec) -> Advisor:
    """The advisor that the spec names; never another one in its place."""
    if spec.provider == "mock":
        return MockAdvisor()
    raise ConfigError(f"llm.provider {spec.provider!r} is unknown; this version has mock")


@dataclass(frozen=True)
class Signals:
    """Advice of a whole range, on the bars' clock.

    Attributes:
        frame: one row per piece of advice: as_of (UTC), bar, symbol, action, confidence (0..1), reason, prompt_sha256.
        model: who advised.
        is_mock: whether that was no language model.
        cadence_bars: how long each piece stands.
    """

    frame: pd.DataFrame
    model: str
    is_mock: bool
    cadence_bars: int

    def stances(self, bars: Bars) -> tuple[IntArray, FloatArray]:
        """The advice that stands at each bar.

        Returns:
            Actions and confidences, shape (n_bars, n_symbols); HOLD at confidence 0 where none stands.
        """
        actions = np.full((bars.n_bars, bars.n_symbols), HOLD, dtype=np.int64)
        confidences = np.zeros((bars.n_bars, bars.n_symbols))
        column = {symbol: s for s, symbol in enumerate(bars.symbols)}
        advice = (self.frame[name].tolist() for name in ("bar", "symbol", "action", "confidence"))
        for bar, symbol, action, confidence in zip(*advice, strict=True):
            stands = slice(bar, bar + self.cadence_bars)
            actions[stands, column[symbol]] = ACTIONS[action]
            confidences[stands, column[symbol]] = confidence
        return actions, confidences


def advise(bars: Bars, market: Float32Array, first_bar: int, last_bar: int, spec: LLMSpec) -> Signals:
    """Ask for advice on every symbol at every `cadence_bars`-th bar of a range.

    Args:
        market: shape (n_bars, n_symbols, 28), from `market_features`.
        first_bar, last_bar: inclusive range of decisions. The decision bars are multiples of the cadence, so a longer
            history asks the same questions at the same bars; the one that still stands at `first_bar` is included.
    """
    advisor = make_advisor(spec)
    start = first_bar - first_bar % spec.cadence_bars
    asked = [(t, s) for t in range(start, last_bar + 1, spec.cadence_bars) for s in range(bars.n_symbols) if bars.tradable[t, s]]
    prompts = [render(dict(zip(MARKET_NAMES, market[t, s].tolist(), strict=True))) for t, s in asked]
    advice = [Advice.model_validate(raw) for raw in advisor.answer(prompts)]
    frame = pd.DataFrame(
        {
            "as_of": pd.Series(bars.available_at[[t for t, _ in asked]]).dt.tz_localize("UTC"),
            "bar": [t for t, _ in asked],
            "symbol": [bars.symbols[s] for _, s in asked],
            "action": [a.action for a in advice],
            "confidence": [a.confidence / 100 for a in advice],
            "reason": [a.reason for a in advice],
            "prompt_sha256": [sha256(p.encode()).hexdigest() for p in prompts],
        }
    )
    return Signals(frame, advisor.model, advisor.is_mock, spec.cadence_bars)


def write_signals(signals: Signals, path: Path) -> None:
    """Write signals as parquet; who advised is kept with the table."""
    frame = signals.frame.copy()
    frame.attrs = {
        "model": signals.model,
        "is_mock": signals.is_mock,
        "cadence_bars": signals.cadence_bars,
        "template": TEMPLATE_VERSION,
    }
    frame.to_parquet(path, index=False)


def read_signals(path: Path) -> Signals:
    """Read what `write_signals` wrote."""
    frame = pd.read_parquet(path)
    return Signals(frame, frame.attrs["model"], frame.attrs["is_mock"], frame.attrs["cadence_bars"])
