"""What a run asks a language model anew, what that costs, and the limits at which asking ends.

An answer from the cassette costs nothing and passes every limit. So the same command goes on where a limit ended it, once that is raised,
and nothing is asked twice. A limit is looked at before a question is put: it may be passed by what is under way then.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ploutos.errors import LLMError, LLMStopped
from ploutos.llm.backends.base import Reply
from ploutos.llm.config import LLMLimits
from ploutos.wording import plural, show_seconds

_MILLION = 1e6


def price_of(prompt_tokens: int, tokens: int, limits: LLMLimits) -> float | None:
    """What tokens cost, read and written; None without prices.

    >>> price_of(1_000_000, 500_000, LLMLimits(price_in=0.15, price_out=0.6))
    0.45
    """
    if limits.price_in is None or limits.price_out is None:
        return None
    return (prompt_tokens * limits.price_in + tokens * limits.price_out) / _MILLION


@dataclass(frozen=True)
class Spent:
    """What a run asked of a model; `money` is None without prices, the rest is as in `Meter`."""

    questions: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    abstentions: int = 0
    failures: int = 0
    seconds: float = 0.0
    load_seconds: float = 0.0
    money: float | None = None


class Meter:
    """Counts of one run.

    Attributes:
        questions: put to the model, second attempts included.
        prompt_tokens, tokens: read and written.
        seconds: waited for answers, with pauses; of concurrent questions the sum.
        load_seconds: of these, loading the model, where the server says so.
        abstentions: questions whose answers could not be read, not even at the second attempt.
        failures: calls that brought no answer at all.
    """

    def __init__(self) -> None:
        self.questions = self.prompt_tokens = self.tokens = self.abstentions = self.failures = 0
        self.seconds = self.load_seconds = 0.0
        self._uncounted = False
        """A server did not say how many tokens it read."""
        self._lock = threading.Lock()

    def money(self, limits: LLMLimits) -> float | None:
        """What the tokens cost; None without prices."""
        return price_of(self.prompt_tokens, self.tokens, limits)

    def begin(self, limits: LLMLimits) -> None:
        """Count a question that is about to be put.

        Raises:
            LLMStopped: a limit is reached; nothing is counted.
            LLMError: tokens or money are limited, and the server does not count tokens.
        """
        with self._lock:
            if self._uncounted and (limits.tokens is not None or limits.money is not None):
                raise LLMError(
                    "the server does not say how many tokens it reads, so llm.limits.tokens and llm.limits.money cannot be kept; "
                    "limit llm.limits.questions instead"
                )
            n_tokens = self.prompt_tokens + self.tokens
            spent = {"questions": self.questions, "tokens": n_tokens, "seconds": self.seconds, "money": self.money(limits)}
            for name, value in spent.items():
                most = getattr(limits, name)
                if most is not None and value is not None and value >= most:
                    raise LLMStopped(
                        f"llm.limits.{name}={most:g} is reached after {self.describe(limits)}; raise it and run again: "
                        "answers are kept, and nothing is asked twice"
                    )
            self.questions += 1

    def end(self, seconds: float, reply: Reply | None) -> None:
        """Count what came of it; None where nothing came."""
        with self._lock:
            self.seconds += seconds
            if reply is None:
                self.failures += 1
            else:
                self.prompt_tokens, self.tokens = self.prompt_tokens + reply.prompt_tokens, self.tokens + reply.tokens
                self.load_seconds += reply.load_seconds
                self._uncounted |= reply.prompt_tokens == 0

    def abstained(self) -> None:
        """Count a question whose answer could not be read."""
        with self._lock:
            self.abstentions += 1

    def describe(self, limits: LLMLimits) -> str:
        """What was spent, in words."""
        money = self.money(limits)
        words = [plural(self.questions, "question"), plural(self.prompt_tokens + self.tokens, "token"), show_seconds(self.seconds)]
        return ", ".join(words + ([] if money is None else [f"cost {money:.4g}"]))

    def spent(self, limits: LLMLimits) -> Spent:
        """The counts as they stand."""
        return Spent(
            self.questions, self.prompt_tokens, self.tokens, self.abstentions, self.failures, self.seconds, self.load_seconds,
            self.money(limits),
        )  # fmt: skip


_current: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """A block whose clients share one meter, so that limits hold for all of them together."""
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


def current_meter() -> Meter:
    """That of the block around; a new one outside of any."""
    return _current.get() or Meter()
