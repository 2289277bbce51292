"""A language model's client: asks a provider, checks the form of what it says, keeps every raw answer, and abstains rather than guesses.

An answer that does not fit its form is requested once more, with a reminder and the next seed; then the model abstains, and the reason is
kept. A server that does not answer is another matter: it is asked again, and a batch that still has questions without an answer ends with
an error, as it does after five failures in a row, or when too large a share is of no use. What was answered by then is on the cassette.
What is asked, and what an answer means, is not known here.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from ploutos.errors import LLMBusy, LLMError, LLMStopped, LLMUnavailable
from ploutos.llm.backends.base import Backend, Message, Messages, Reply, Schema
from ploutos.llm.breaker import CircuitBreaker
from ploutos.llm.cassette import Cassette, Question, Recorded
from ploutos.llm.config import ClientConfig
from ploutos.llm.meter import current_meter, price_of
from ploutos.llm.reading import Unreadable, read_answer
from ploutos.progress import advance
from ploutos.wording import counted, plural, show_seconds

_LOG = logging.getLogger(__name__)
_ATTEMPTS = 2
_ROUNDS = 3
"""Times that a batch's unanswered questions are asked at most."""
_PAUSE_S = 1.0
_BUSY_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
_LONGEST_PAUSE_S = 300.0
_TEMPLATE_TOKENS = 64
_FEWEST = 20
"""Questions before a share of them says anything."""
_SHOWN = 300
REMINDER = Message("user", "Your last answer could not be read. Answer with one JSON object that fits the schema, and nothing else.")
"""What a second attempt adds to the prompt."""

Form = TypeVar("Form", bound=BaseModel)
Config = TypeVar("Config", bound=ClientConfig)


@lru_cache(maxsize=256)
def schema_of(form: type[BaseModel]) -> Schema:
    """JSON schema of an answer; the same object each time, not to be changed."""
    return form.model_json_schema()


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
        unanswered: no answer came at all, which is not an abstention: it is asked again.
        prompt_tokens, tokens, seconds: of all attempts together, as they were when the answers were recorded.
        raw: what was said last, as it was said.
    """

    answer: Form | None
    why: str = ""
    unanswered: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    raw: str = ""

    @property
    def abstained(self) -> bool:
        return self.answer is None and not self.unanswered


def _outcome(answer: Form | None, spent: Sequence[Recorded], why: str = "") -> Outcome[Form]:
    unanswered = bool(spent[-1].failure)
    tokens, seconds = sum(recorded.tokens for recorded in spent), sum(recorded.seconds for recorded in spent)
    return Outcome(answer, why, unanswered, sum(recorded.prompt_tokens for recorded in spent), tokens, seconds, spent[-1].text)


@dataclass
class _Tally:
    """What the answers to many questions took, as far as they have come."""

    n_asked: int
    began: float
    asked_before: int
    prompt_tokens: int = 0
    tokens: int = 0
    n_abstained: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome[Any]) -> None:
        self.prompt_tokens, self.tokens = self.prompt_tokens + outcome.prompt_tokens, self.tokens + outcome.tokens
        self.seconds, self.n_abstained = self.seconds + outcome.seconds, self.n_abstained + outcome.abstained


class LLMClient(Generic[Config]):
    """A provider, with the check, the cassette and the breaker that stand between it and whoever asks.

    Args:
        cassette: where raw answers are kept; None keeps none.
        sleep: waits before a second try at a server that did not answer.
        clock: seconds that only grow.

    Raises:
        LLMUnavailable, LLMError: the server or its model is not there, or a replay finds no trace of the model.
    """

    template = ""
    """Version of the prompts: a recorded answer counts for the version it was given to."""

    def __init__(
        self,
        backend: Backend,
        config: Config,
        cassette: Cassette | None = None,
        breaker: CircuitBreaker | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend, self.config, self._cassette = backend, config, None if backend.is_mock else cassette
        self.breaker = breaker or CircuitBreaker()
        self._sleep, self._clock = sleep, clock
        self.meter = current_meter()
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

    def query(self, query: Query[Form]) -> Outcome[Form]:
        """The answer to one question, of whatever form.

        Raises:
            LLMUnavailable: the server failed too often in a row.
            LLMError: the prompt might not fit, the request is refused, or a replay misses an answer.
        """
        self._require_fit(query.messages)
        spent: list[Recorded] = []
        why, anew = "", False
        for attempt in range(_ATTEMPTS):
            recorded, called = self._attempt(query, attempt)
            if recorded.failure:
                recorded, called = self._attempt(query, attempt)
            anew |= called
            spent.append(recorded)
            if recorded.failure:
                return _outcome(None, spent, recorded.failure)
            self._require_whole(recorded)
            try:
                return _outcome(read_answer(recorded.text, query.form), spent)
            except Unreadable as error:
                why = _explain(recorded, error)
        if anew:
            self.meter.abstained()
        return _outcome(None, spent, why)

    def query_all(self, queries: Sequence[Query[Form]], max_unusable: float = 1.0) -> list[Outcome[Form]]:
        """The answers to many questions, in their order; equal questions are asked once.

        Args:
            max_unusable: share of the questions, once there are twenty, that may have no answer, or none that can be read.

        Raises:
            LLMUnavailable: the server failed too often in a row, or left a question without an answer; what was answered by then is on the
                cassette.
            LLMError: as in `query`; or too many of the answers cannot be read.
        """
        unique = list(dict.fromkeys(queries))
        answered: dict[Query[Form], Outcome[Form]] = {}
        tally = _Tally(len(unique), self._clock(), self.meter.questions)
        for _ in range(_ROUNDS):
            left = [query for query in unique if query not in answered or answered[query].unanswered]
            if left:
                self._ask_round(left, answered, tally, max_unusable)
        missing = [outcome for outcome in answered.values() if outcome.unanswered]
        if missing:
            raise LLMUnavailable(
                f"{self.name} gave no answer to {len(missing)} of {counted('{n} [question|questions]', len(unique))}: {missing[0].why}; "
                "the others are kept, "
                "run again for the rest"
            )
        return [answered[query] for query in queries]

    def require_answerable(self, query: Query[Form]) -> None:
        """Refuse a question that would fail later for certain; nobody is asked.

        Raises:
            LLMError: the prompt might not fit, or this is a replay and its answer was never recorded.
        """
        self._require_fit(query.messages)
        if self.config.replay and not self.is_mock and self._known(query.messages, schema_of(query.form), self.config.seed) is None:
            raise LLMError(self._never_recorded(self._question(query.messages, schema_of(query.form), self.config.seed)))

    def _never_recorded(self, question: Question) -> str:
        return (
            f"the cassette has no answer to question {question.key[:12]} of {self.name}, and a replay makes no calls; "
            "run once without llm.replay, with the settings that it was recorded under"
        )

    def _ask_round(self, queries: Sequence[Query[Form]], answered: dict[Query[Form], Outcome[Form]], tally: "_Tally", most: float) -> None:
        """Ask every question once, batch by batch.

        Args:
            most: share that may be of no use.
        """
        with ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="llm") as pool:
            for start in range(0, len(queries), self.config.batch_size):
                batch = queries[start : start + self.config.batch_size]
                futures = [pool.submit(self.query, query) for query in batch]
                try:
                    for query, future in zip(batch, futures, strict=True):
                        outcome = answered[query] = future.result()
                        tally.add(outcome)
                        advance(len(answered), tally.n_asked, "questions", self._spent(tally, len(answered)))
                        if outcome.answer is None or len(answered) == _FEWEST:
                            self._require_usable(answered.values(), most)
                except (LLMUnavailable, LLMStopped) as error:
                    kept = sum(not outcome.unanswered for outcome in {**answered, **_finished(batch, futures)}.values())
                    remedy = "" if isinstance(error, LLMStopped) else ", run again for the rest"
                    sentence = f"{error}; {kept} of {counted('{n} [answer is|answers are]', tally.n_asked)} kept{remedy}"
                    raise type(error)(sentence) from error
                finally:
                    for future in futures:
                        future.cancel()  # whatever ended the batch, nothing more is begun
                level = logging.DEBUG if self.is_mock else logging.INFO
                _LOG.log(level, "%s: %d of %d answered; %s", self.name, len(answered), tally.n_asked, self._spent(tally, len(answered)))

    def _spent(self, tally: "_Tally", n_answered: int) -> str:
        """What the answers took, those of the cassette included, and how long the rest will take, for people."""
        limits, new = self.config.limits, self.meter.questions - tally.asked_before
        money = price_of(tally.prompt_tokens, tally.tokens, limits)
        words = [
            plural(tally.prompt_tokens + tally.tokens, "token"),
            show_seconds(tally.seconds),
            plural(tally.n_abstained, "abstention"),
            f"{new:,} asked anew",
        ]
        words += [] if money is None else [f"cost {money:.4g}"]
        left = tally.n_asked - n_answered
        if new and left:
            words.append(f"about {show_seconds((self._clock() - tally.began) * left / new)} left")
        return ", ".join(words)

    def _require_usable(self, outcomes: Collection[Outcome[Form]], most: float) -> None:
        """End a batch of which too much cannot be used, before the rest is asked for nothing."""
        n = len(outcomes)
        if n < _FEWEST:
            return
        failed = [outcome for outcome in outcomes if outcome.unanswered]
        if len(failed) > most * n:
            raise LLMUnavailable(f"{self.name} gave no answer to {len(failed)} of the first {n} questions: {failed[0].why}")
        unread = [outcome for outcome in outcomes if outcome.abstained]
        if len(unread) > most * n:
            raise LLMError(
                f"{len(unread)} of the first {n} answers of {self.name} cannot be read, and {most:.0%} is allowed (llm.max_unusable): "
                f"{unread[0].why}; the first of them is {unread[0].raw[:_SHOWN]!r}: try another model, or look at it with ploutos llm check"
            )

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
            provider=config.provider.value, model=config.model, model_digest=self.digest, template=self.template, messages=messages,
            answer_schema=schema,
            options={name: getattr(config, name) for name in names}, seed=seed,
        )  # fmt: skip

    def _attempt(self, query: Query[Form], attempt: int) -> tuple[Recorded, bool]:
        """One answer, from the cassette or else from the provider, and whether it is the provider's.

        Args:
            attempt: how many answers could not be read before.
        """
        schema, seed = schema_of(query.form), self.config.seed + attempt
        plain = self._known(query.messages, schema, seed)  # recorded before second attempts had a reminder, or the first one
        if plain is not None:
            return plain, False
        messages = (*query.messages, REMINDER) if attempt else query.messages
        if self._cassette is None:
            return self._call(messages, schema, seed), True
        question = self._question(messages, schema, seed)
        known = self._known(messages, schema, seed)
        if known is not None:
            return known, False
        if self.config.replay:
            raise LLMError(self._never_recorded(question))
        recorded = self._call(messages, schema, seed)
        return recorded if recorded.failure else self._cassette.keep(question, recorded), True

    def _known(self, messages: Messages, schema: Schema, seed: int) -> Recorded | None:
        """What the cassette has; a failure is not an answer."""
        known = None if self._cassette is None else self._cassette.find(self._question(messages, schema, seed))
        return None if known is None or known.failure else known

    def _call(self, messages: Messages, schema: Schema, seed: int) -> Recorded:
        """Ask the provider, unless it failed too often in a row; a failure is told, not raised, until then."""
        if not self.breaker.allow():
            raise LLMUnavailable(
                f"{self.name} failed too many times in a row and is not called again for {self.breaker.remaining_s:.0f} s more"
            )
        try:
            reply = self._complete_metered(messages, schema, seed)
        except LLMUnavailable as error:
            self.breaker.failed()
            if self.breaker.is_open:
                raise
            self._sleep(_PAUSE_S)
            return Recorded(failure=str(error))
        self.breaker.succeeded()
        return Recorded(**vars(reply))

    def _complete_metered(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        """One answer, if the limits leave room for it."""
        if self.is_mock:
            return self._complete(messages, schema, seed)
        limits, reply = self.config.limits, None
        self.meter.begin(limits)
        started = self._clock()
        try:
            reply = self._complete(messages, schema, seed)
            return reply
        finally:
            self.meter.end(self._clock() - started, reply)

    def _complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        """One answer; while the server is busy with others, wait as long as it says, or twice as long each time."""
        for pause in _BUSY_PAUSES_S:
            try:
                return self._count_and_complete(messages, schema, seed)
            except LLMBusy as error:
                if error.retry_after > _LONGEST_PAUSE_S:
                    raise LLMStopped(
                        f"{error}; it asks for a pause of {error.retry_after:.0f} s, longer than {_LONGEST_PAUSE_S:.0f} s: run again then"
                    ) from error
                self._sleep(error.retry_after or pause)
        return self._count_and_complete(messages, schema, seed)

    def _count_and_complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        with self._counting:
            self.calls += 1
        return self.backend.complete(messages, schema, seed)

    def _require_fit(self, messages: Messages) -> None:
        """Refuse a prompt that might be cut. A token is a byte at least, so what fits in bytes fits in tokens."""
        n_bytes = sum(len(message.content.encode()) for message in (*messages, REMINDER))
        needed = n_bytes + _TEMPLATE_TOKENS + self.config.num_predict
        if not self.is_mock and needed > self.config.num_ctx:
            raise LLMError(
                f"a prompt of {n_bytes} bytes and an answer of llm.num_predict={self.config.num_predict} tokens may not fit into "
                f"llm.num_ctx={self.config.num_ctx}, and a server truncates what does not fit; set llm.num_ctx to {needed} or more"
            )

    def _require_whole(self, recorded: Recorded) -> None:
        if recorded.prompt_tokens + self.config.num_predict > self.config.num_ctx:
            raise LLMError(
                f"{self.name} read {recorded.prompt_tokens} tokens of prompt, which leaves no room for llm.num_predict="
                f"{self.config.num_predict} in llm.num_ctx={self.config.num_ctx}; raise llm.num_ctx"
            )


def _finished(batch: Sequence[Query[Form]], futures: Sequence[Future[Outcome[Form]]]) -> dict[Query[Form], Outcome[Form]]:
    """Cancel what has not begun, wait for the rest, and give back what came of it."""
    for future in futures:
        future.cancel()
    ended = zip(batch, futures, strict=True)
    return {query: future.result() for query, future in ended if not future.cancelled() and future.exception() is None}


def _explain(recorded: Recorded, error: Unreadable) -> str:
    """Why an answer cannot be used."""
    if recorded.truncated:
        return counted("the answer was cut off after {n} [token|tokens]; raise llm.num_predict", recorded.tokens)
    return f"the answer does not fit the schema: {error}"
