"""The advisor: what a language model is asked about a market, and what its answers mean.

A prompt is built from the bars known at its as-of time and, unless told otherwise, carries no name and no date. Advice
is requested once per symbol and decision time, before any policy acts, and stands until the next. A later stage reads
the signals; no training loop ever waits for an advisor. Where the model abstains the advice is to hold, at confidence 0.
"""

import logging
import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ploutos.advisor.config import LLMConfig, Mask
from ploutos.advisor.mock import MockBackend
from ploutos.advisor.prompts import TEMPLATE_VERSION, Terms, render
from ploutos.advisor.schedule import DecisionTime, decision_times
from ploutos.advisor.signals import Signals
from ploutos.advisor.snapshot import Features, snapshot_at
from ploutos.envs.spec import EnvSpec
from ploutos.errors import LLMUnavailable
from ploutos.llm.backends import require_client
from ploutos.llm.backends.base import Backend, Messages
from ploutos.llm.cassette import Cassette
from ploutos.llm.client import LLMClient, Outcome, Query, schema_of
from ploutos.llm.config import LLMProvider
from ploutos.market.bars import Bars
from ploutos.settings import Settings
from ploutos.types import Float32Array

_LOG = logging.getLogger(__name__)
_REASON = 200


_ACTIONS = {"long": "buy", "short": "sell", "neutral": "hold", "wait": "hold"}


class Advice(BaseModel):
    """What an advisor may say, in the order in which it says it; read with some tolerance for how models write it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(max_length=_REASON)
    action: Literal["buy", "sell", "hold"]
    confidence: int = Field(ge=0, le=100)

    @model_validator(mode="before")
    @classmethod
    def _as_models_write_it(cls, said: Any) -> Any:
        """Names in any case, further fields left out, a reason cut or missing."""
        if not isinstance(said, dict):
            return said
        named = {str(name).lower(): value for name, value in said.items()}
        reason = named.get("reason")
        known = {name: named[name] for name in ("action", "confidence") if name in named}
        return known | {"reason": reason[:_REASON] if isinstance(reason, str) else ""}

    @field_validator("action", mode="before")
    @classmethod
    def _synonym(cls, said: Any) -> Any:
        word = said.strip().lower() if isinstance(said, str) else said
        return _ACTIONS.get(word, word) if isinstance(word, str) else word

    @field_validator("confidence", mode="before")
    @classmethod
    def _percent(cls, said: Any) -> Any:
        """A whole number of percent; a share strictly between 0 and 1 counts as one, 1.0 could be either and is refused."""
        if isinstance(said, str):
            try:
                said = float(text) if "." in (text := said.strip().removesuffix("%").strip()) else int(text)
            except ValueError:
                return said
        if isinstance(said, bool):
            raise ValueError("true or false is not a confidence")
        if not isinstance(said, float) or not math.isfinite(said) or said < 0:
            return said
        if said == 1.0:
            raise ValueError("1.0 may be one percent or all of it")
        return round(100 * said) if 0 < said < 1 else round(said)


SCHEMA = schema_of(Advice)


def advice_of(outcome: Outcome[Advice]) -> Advice:
    """Hold at confidence 0 when the advisor abstained; its reason then says why.

    Raises:
        LLMUnavailable: there was no answer at all, which is not advice.
    """
    if outcome.unanswered:
        raise LLMUnavailable(outcome.why)
    return outcome.answer or Advice(action="hold", confidence=0, reason=f"abstained: {outcome.why}"[:_REASON])


class Advisor(LLMClient[LLMConfig]):
    """Who gives advice: a client whose answers are pieces of advice."""

    template = TEMPLATE_VERSION

    def ask(self, messages: Messages) -> Outcome[Advice]:
        """The advice on one prompt; raises as `query`."""
        return self.query(Query(messages, Advice))

    def ask_all(self, prompts: Sequence[Messages]) -> list[Outcome[Advice]]:
        """The advice on many prompts, in their order; raises as `query_all`."""
        return self.query_all([Query(messages, Advice) for messages in prompts], self.config.max_unusable)


def make_backend(config: LLMConfig, settings: Settings) -> Backend:
    """The provider that the configuration names; never another one in its place.

    Raises:
        ConfigError: OpenAI's own server, which takes nobody without a key, an address that is none, or a client that is not installed.
    """
    require_client(config, settings)
    if config.provider is LLMProvider.OLLAMA:
        from ploutos.llm.backends.ollama import OllamaBackend

        return OllamaBackend(config, config.host or settings.ollama_host)
    if config.provider is LLMProvider.OPENAI:
        from ploutos.llm.backends.openai_compatible import OpenAIBackend

        key = settings.openai_api_key
        return OpenAIBackend(config, config.host or settings.openai_base_url, None if key is None else key.get_secret_value())
    return MockBackend()


def make_advisor(config: LLMConfig, settings: Settings) -> Advisor:
    """The advisor that the configuration names, with the machine's cassette."""
    return Advisor(make_backend(config, settings), config, Cassette(settings.cassettes_root))


def prompt_at(
    bars: Bars,
    features: Features,
    symbol: str,
    as_of: np.datetime64,
    mask: Mask = Mask.ALL,
    cadence_bars: int = LLMConfig().cadence_bars,
    env: EnvSpec | None = None,
) -> Messages:
    """The prompt about a symbol at a time; see `snapshot_at`.

    Args:
        mask: what it hides.
        cadence_bars: how long the advice stands.
        env: costs, and whether sell may go short; None means the defaults.
    """
    terms = Terms.of(bars, symbol, as_of, cadence_bars, env or EnvSpec())
    return render(snapshot_at(bars, features, symbol, as_of), SCHEMA, terms, mask)


def advise(bars: Bars, market: Float32Array, first_bar: int, last_bar: int, advisor: Advisor, env: EnvSpec | None = None) -> Signals:
    """Ask for advice on every symbol at every decision time of a range.

    Args:
        market: shape (n_bars, n_symbols, 28), from `market_features`.
        first_bar, last_bar: inclusive range of decisions. A longer history asks the same questions at the same bars; the
            advice that still stands at `first_bar` is included.
        env: costs and limits that the prompts state; None means the defaults.
    """
    asked = decision_times(bars, market, first_bar, last_bar, advisor.config)
    _LOG.info("%s is asked %d questions", advisor.name, len(asked))
    return ask_about(bars, market, asked, advisor, advisor.config.hidden, env)


def ask_about(
    bars: Bars, market: Float32Array, asked: Sequence[DecisionTime], advisor: Advisor, mask: Mask, env: EnvSpec | None = None
) -> Signals:
    """Ask for advice on given symbols at given times; arguments as in `advise`."""
    cadence = advisor.config.cadence_bars
    prompts = [
        prompt_at(bars, lambda t, s: market[t, s], bars.symbols[time.column], bars.available_at[time.bar], mask, cadence, env)
        for time in asked
    ]
    outcomes = advisor.ask_all(prompts)
    given = [advice_of(outcome) for outcome in outcomes]
    frame = pd.DataFrame(
        {
            "as_of": pd.Series(bars.available_at[[time.bar for time in asked]]).dt.tz_localize("UTC"),
            "bar": [time.bar for time in asked],
            "symbol": [bars.symbols[time.column] for time in asked],
            "asked_for": [time.asked_for for time in asked],
            "action": [advice.action for advice in given],
            "confidence": [advice.confidence / 100 for advice in given],
            "abstained": [outcome.abstained for outcome in outcomes],
            "reason": [advice.reason for advice in given],
            "prompt_tokens": [outcome.prompt_tokens for outcome in outcomes],
            "tokens": [outcome.tokens for outcome in outcomes],
            "prompt_sha256": [_digest(messages) for messages in prompts],
        }
    )
    revealing = mask is not Mask.ALL
    return Signals(frame, advisor.name, advisor.is_mock, cadence, advisor.digest, revealing, TEMPLATE_VERSION, mask.value)


def _digest(messages: Messages) -> str:
    return sha256("\0".join(part for message in messages for part in message).encode()).hexdigest()
