"""The advisor: asks a provider, checks what it says, keeps every raw answer, and abstains rather than guesses.

A prompt is built from the bars known at its as-of time and, unless told otherwise, carries no name and no date. Advice
is asked for once per symbol and decision time, before any policy acts, and stands until the next. A later stage reads
the signals; no training loop ever waits for an advisor.

An answer that does not fit the schema is asked for once more with the next seed; then the advisor abstains: hold, at
confidence 0, counted, with the reason kept. A server that does not answer gets the same second try; after five failures
in a row nobody is asked any more, and a batch ends with an error instead of a table of abstentions. What was answered by
then is on the cassette.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ploutos.advisor.mock import MockBackend
from ploutos.advisor.prompts import TEMPLATE_VERSION, render
from ploutos.advisor.schedule import DecisionTime, decision_times
from ploutos.advisor.signals import Signals
from ploutos.advisor.snapshot import Features, snapshot_at
from ploutos.errors import LLMError, LLMUnavailable
from ploutos.llm.backends.base import Backend, Messages, Reply, Schema
from ploutos.llm.backends.ollama import OllamaBackend
from ploutos.llm.backends.openai_compatible import OpenAIBackend
from ploutos.llm.breaker import CircuitBreaker
from ploutos.llm.cassette import Cassette, Question, Recorded
from ploutos.llm.config import LLMConfig, LLMProvider
from ploutos.market.bars import Bars
from ploutos.settings import Settings
from ploutos.types import Float32Array

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 2
_PAUSE_S = 1.0
_REASON = 200
_TEMPLATE_TOKENS = 64
_FENCED = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)


class Advice(BaseModel):
    """What an advisor may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["buy", "sell", "hold"]
    confidence: int = Field(ge=0, le=100)
    reason: str = Field(max_length=_REASON)


Form = TypeVar("Form", bound=BaseModel)


@lru_cache(maxsize=256)
def schema_of(form: type[BaseModel]) -> Schema:
    """JSON schema of an answer; the same object each time, not to be changed."""
    return form.model_json_schema()


SCHEMA = schema_of(Advice)


class Query(NamedTuple, Generic[Form]):
    """One question: a prompt, and the form that an answer must have."""

    messages: Messages
    form: type[Form]


@dataclass(frozen=True)
class Outcome(Generic[Form]):
    """What came of one question.

    Attributes:
        answer: what was said, in its form; None when the model abstained.
        why: reason of an abstention.
        unanswered: it abstained because no answer came at all; a later live run asks again.
        prompt_tokens, tokens, seconds: of all attempts together, as they were when the answers were recorded.
    """

    answer: Form | None
    why: str = ""
    unanswered: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def abstained(self) -> bool:
        return self.answer is None

    @property
    def advice(self: "Outcome[Advice]") -> Advice:
        """Hold at confidence 0 when the advisor abstained; its reason then says why."""
        return self.answer or Advice(action="hold", confidence=0, reason=f"abstained: {self.why}"[:_REASON])


def _outcome(answer: Form | None, spent: Sequence[Recorded], why: str = "") -> Outcome[Form]:
    unanswered = answer is None and (not spent or bool(spent[-1].failure))
    return Outcome(
        answer, why, unanswered, sum(r.prompt_tokens for r in spent), sum(r.tokens for r in spent), sum(r.seconds for r in spent)
    )  # fmt: skip


class Advisor:
    """A provider, with the check, the cassette and the breaker that stand between it and a decision.

    Args:
        cassette: where raw answers are kept; None keeps none.
        sleep: waits before a second try at a server that did not answer.

    Raises:
        LLMUnavailable, LLMError: the server or its model is not there, or a replay finds no trace of the model.
    """

    def __init__(
        self,
        backend: Backend,
        config: LLMConfig,
        cassette: Cassette | None = None,
        breaker: CircuitBreaker | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.backend, self.config, self._cassette = backend, config, None if backend.is_mock else cassette
        self.breaker = breaker or CircuitBreaker()
        self._sleep = sleep
        self._counting = threading.Lock()
        self.calls = 0
        """Questions that went to the provider; what came from the cassette is not counted."""
        self.digest = self._find_digest()

    @property
    def name(self) -> str:
        """Who advises, for people."""
        return self.backend.name

    @property
    def is_mock(self) -> bool:
        return self.backend.is_mock

    def ask(self, messages: Messages) -> Outcome[Advice]:
        """The advice on one prompt; raises as `query`."""
        return self.query(Query(messages, Advice))

    def ask_now(self, messages: Messages) -> Outcome[Advice]:
        """The advice on one prompt when a decision cannot wait: with the server gone it abstains at once."""
        try:
            return self.ask(messages)
        except LLMUnavailable as error:
            return _outcome(None, (), str(error))

    def ask_all(self, prompts: Sequence[Messages]) -> list[Outcome[Advice]]:
        """The advice on many prompts, in their order; raises as `inquire_all`."""
        return self.inquire_all([Query(messages, Advice) for messages in prompts])

    def query(self, query: Query[Form]) -> Outcome[Form]:
        """The answer to one question, of whatever form.

        Raises:
            LLMUnavailable: the server failed too often in a row.
            LLMError: the prompt might not fit, the request is refused, or a replay misses an answer.
        """
        self._require_fit(query.messages)
        spent: list[Recorded] = []
        for attempt in range(_ATTEMPTS):
            recorded = self._attempt(query.messages, schema_of(query.form), self.config.seed + attempt)
            spent.append(recorded)
            if recorded.failure:
                why = recorded.failure
                continue
            self._require_whole(recorded)
            try:
                return _outcome(query.form.model_validate_json(_FENCED.sub(r"\1", recorded.text)), spent)
            except ValidationError as error:
                why = _explain(recorded, error)
        return _outcome(None, spent, why)

    def inquire_all(self, queries: Sequence[Query[Form]]) -> list[Outcome[Form]]:
        """The answers to many questions, in their order; equal questions are asked once.

        Raises:
            LLMUnavailable: the server failed too often in a row; what was answered by then is on the cassette.
            LLMError: as in `query`.
        """
        unique = list(dict.fromkeys(queries))
        answered: dict[Query[Form], Outcome[Form]] = {}
        with ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="llm") as pool:
            for start in range(0, len(unique), self.config.batch_size):
                batch = unique[start : start + self.config.batch_size]
                futures = [pool.submit(self.query, query) for query in batch]
                try:
                    outcomes = [future.result() for future in futures]
                except LLMUnavailable as error:
                    outcomes = [*answered.values(), *_drop(futures)]
                    kept = sum(not outcome.unanswered for outcome in outcomes)
                    raise LLMUnavailable(f"{error}; {kept} of {len(unique)} answers are kept, run again to ask for the rest") from error
                finally:
                    for future in futures:
                        future.cancel()  # whatever ended the batch, nothing more is begun
                answered |= zip(batch, outcomes, strict=True)
                self._log(len(unique), answered)
        return [answered[query] for query in queries]

    def _log(self, n_asked: int, answered: dict[Query[Form], Outcome[Form]]) -> None:
        outcomes = answered.values()
        level = logging.DEBUG if self.is_mock else logging.INFO
        _LOG.log(
            level, "%s: %d of %d answered, %d abstained, %d tokens, %.1f s, %d calls", self.name, len(answered), n_asked,
            sum(o.abstained for o in outcomes), sum(o.tokens for o in outcomes), sum(o.seconds for o in outcomes), self.calls,
        )  # fmt: skip

    def _find_digest(self) -> str:
        provider, model = self.config.provider.value, self.config.model
        if self.config.replay and self._cassette is not None:
            return self._cassette.noted_digest(provider, model)
        digest = self.backend.digest()
        if self._cassette is not None:
            self._cassette.note_model(provider, model, digest)
        return digest

    def _question(self, messages: Messages, schema: Schema, seed: int) -> Question:
        config = self.config
        names = ("temperature", "num_ctx", "num_predict", "think")
        return Question(
            provider=config.provider.value, model=config.model, model_digest=self.digest, template=TEMPLATE_VERSION, messages=messages,
            answer_schema=schema,
            options={name: getattr(config, name) for name in names}, seed=seed,
        )  # fmt: skip

    def _attempt(self, messages: Messages, schema: Schema, seed: int) -> Recorded:
        """One answer, from the cassette or else from the provider."""
        if self._cassette is None:
            return self._call(messages, schema, seed)
        question = self._question(messages, schema, seed)
        known = self._cassette.find(question)
        if known is not None and (self.config.replay or not known.failure):
            return known
        if self.config.replay:
            raise LLMError(
                f"the cassette has no answer to question {question.key[:12]} of {self.name}, and a replay asks nobody; "
                "run once without llm.replay, with the settings that it was recorded under"
            )
        return self._cassette.keep(question, self._call(messages, schema, seed))

    def _call(self, messages: Messages, schema: Schema, seed: int) -> Recorded:
        """Ask the provider, unless it failed too often in a row; a failure is told, not raised, until then."""
        if not self.breaker.allow():
            raise LLMUnavailable(f"{self.name} failed too often in a row and is left alone for {self.breaker.remaining_s:.0f} s more")
        with self._counting:
            self.calls += 1
        try:
            reply: Reply = self.backend.complete(messages, schema, seed)
        except LLMUnavailable as error:
            self.breaker.failed()
            if self.breaker.is_open:
                raise
            self._sleep(_PAUSE_S)
            return Recorded(failure=str(error))
        self.breaker.succeeded()
        return Recorded(**vars(reply))

    def _require_fit(self, messages: Messages) -> None:
        """Refuse a prompt that might be cut. A token is a byte at least, so what fits in bytes fits in tokens."""
        n_bytes = sum(len(message.content.encode()) for message in messages)
        needed = n_bytes + _TEMPLATE_TOKENS + self.config.num_predict
        if not self.is_mock and needed > self.config.num_ctx:
            raise LLMError(
                f"a prompt of {n_bytes} bytes and an answer of llm.num_predict={self.config.num_predict} tokens may not fit into "
                f"llm.num_ctx={self.config.num_ctx}, and a server cuts what does not fit; set llm.num_ctx to {needed} or more"
            )

    def _require_whole(self, recorded: Recorded) -> None:
        if recorded.prompt_tokens + self.config.num_predict > self.config.num_ctx:
            raise LLMError(
                f"{self.name} read {recorded.prompt_tokens} tokens of prompt, which leaves no room for llm.num_predict="
                f"{self.config.num_predict} in llm.num_ctx={self.config.num_ctx}; raise llm.num_ctx"
            )


def _drop(futures: Sequence[Future[Outcome[Form]]]) -> list[Outcome[Form]]:
    """Cancel what has not begun, wait for the rest, and give back what came of it."""
    for future in futures:
        future.cancel()
    return [future.result() for future in futures if not future.cancelled() and future.exception() is None]


def _explain(recorded: Recorded, error: ValidationError) -> str:
    """Why an answer cannot be used."""
    if recorded.truncated:
        return f"the answer was cut off after {recorded.tokens} tokens; raise llm.num_predict"
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"the answer does not fit the schema: {where + ': ' if where else ''}{fault['msg']}"


def make_backend(config: LLMConfig, settings: Settings) -> Backend:
    """The provider that the configuration names; never another one in its place."""
    if config.provider is LLMProvider.OLLAMA:
        return OllamaBackend(config, config.host or settings.ollama_host)
    if config.provider is LLMProvider.OPENAI:
        key = settings.openai_api_key
        return OpenAIBackend(config, config.host or settings.openai_base_url, None if key is None else key.get_secret_value())
    return MockBackend()


def make_advisor(config: LLMConfig, settings: Settings) -> Advisor:
    """The advisor that the configuration names, with the machine's cassette."""
    return Advisor(make_backend(config, settings), config, Cassette(settings.cassettes_root))


def prompt_at(bars: Bars, features: Features, symbol: str, as_of: np.datetime64, reveal: bool = False) -> Messages:
    """The prompt about a symbol at a time; see `snapshot_at`."""
    return render(snapshot_at(bars, features, symbol, as_of), SCHEMA, reveal)


def advise(bars: Bars, market: Float32Array, first_bar: int, last_bar: int, advisor: Advisor) -> Signals:
    """Ask for advice on every symbol at every decision time of a range.

    Args:
        market: shape (n_bars, n_symbols, 28), from `market_features`.
        first_bar, last_bar: inclusive range of decisions. A longer history asks the same questions at the same bars; the
            advice that still stands at `first_bar` is included.
    """
    return ask_about(bars, market, decision_times(bars, market, first_bar, last_bar, advisor.config), advisor, advisor.config.reveal)


def ask_about(bars: Bars, market: Float32Array, asked: Sequence[DecisionTime], advisor: Advisor, reveal: bool) -> Signals:
    """Ask for advice on given symbols at given times; arguments as in `advise`."""
    prompts = [prompt_at(bars, lambda t, s: market[t, s], bars.symbols[time.column], bars.available_at[time.bar], reveal) for time in asked]
    outcomes = advisor.ask_all(prompts)
    frame = pd.DataFrame(
        {
            "as_of": pd.Series(bars.available_at[[time.bar for time in asked]]).dt.tz_localize("UTC"),
            "bar": [time.bar for time in asked],
            "symbol": [bars.symbols[time.column] for time in asked],
            "asked_for": [time.asked_for for time in asked],
            "action": [outcome.advice.action for outcome in outcomes],
            "confidence": [outcome.advice.confidence / 100 for outcome in outcomes],
            "abstained": [outcome.abstained for outcome in outcomes],
            "reason": [outcome.advice.reason for outcome in outcomes],
            "prompt_tokens": [outcome.prompt_tokens for outcome in outcomes],
            "tokens": [outcome.tokens for outcome in outcomes],
            "prompt_sha256": [_digest(messages) for messages in prompts],
        }
    )
    return Signals(frame, advisor.name, advisor.is_mock, advisor.config.cadence_bars, advisor.digest, reveal, TEMPLATE_VERSION)


def _digest(messages: Messages) -> str:
    return sha256("\0".join(part for message in messages for part in message).encode()).hexdigest()
