"""Which language model is asked, where, and with what settings.

When an advisor is asked, and what it is shown, is `ploutos.advisor.config.LLMConfig`, which has these settings too.
"""

import re
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from ploutos.specs import Spec

SAMPLING = {"model", "temperature", "seed", "num_ctx", "num_predict", "think"}
"""The settings that an answer depends on, beside the prompt."""
_SPAN = re.compile(r"-?\d+(\.\d+)?|-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+")


class LLMProvider(StrEnum):
    """Where answers come from."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    MOCK = "mock"


class LLMLimits(Spec):
    """What a run may ask anew; answers from the cassette count for nothing. The run ends at a limit, and goes on with a higher one. A
    strategist's search has limits of its own beside these, which count recorded answers too."""

    questions: PositiveInt | None = None
    """Questions put to the model, second attempts included; empty means no limit."""
    tokens: PositiveInt | None = None
    """Tokens read and written; empty means no limit."""
    seconds: PositiveFloat | None = None
    """Seconds of waiting for answers, of concurrent questions the sum; empty means no limit."""
    money: PositiveFloat | None = None
    """Money in the currency of the two prices, which it needs; empty means no limit."""
    price_in: NonNegativeFloat | None = None
    """Price of a million tokens read."""
    price_out: NonNegativeFloat | None = None
    """Price of a million tokens written, thoughts included."""

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.money is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("llm.limits.money needs llm.limits.price_in and llm.limits.price_out, the prices of a million tokens")
        return self


class ClientConfig(Spec):
    """Which model is asked, where, and with what settings."""

    provider: LLMProvider = LLMProvider.OLLAMA
    """ollama, openai (any server with OpenAI's API) or mock, which is a fixed rule and not a language model."""
    model: str = Field(default="llama3.2", min_length=1)
    """Model by the provider's own name; an Ollama name without a tag means its tag latest."""
    host: str | None = None
    """Server's address; empty means OLLAMA_HOST or OPENAI_BASE_URL, then the provider's usual one."""
    timeout_s: PositiveFloat = 120.0
    """Longest wait for one answer, a cold load of the model included."""
    temperature: NonNegativeFloat = 0.0
    """Temperature of the sampling; 0 takes the most likely token."""
    seed: NonNegativeInt = 0
    """Seed of the sampling; an answer that cannot be used is requested once more with the next seed."""
    num_ctx: PositiveInt = 4096
    """Tokens of context. A prompt that might not fit is an error, because a server truncates it silently."""
    num_predict: PositiveInt = 256
    """Tokens of an answer at most."""
    think: bool | None = None
    """Ollama's thinking switch; empty leaves it to the model. Some models ignore the schema when it is set."""
    keep_alive: str = "10m"
    """How long Ollama holds the model after a question: 10m, 1h30m, seconds as a number, or -1 for ever. A killed run frees the GPU
    after that."""
    batch_size: PositiveInt = 64
    """Questions between two lines of progress."""
    concurrency: PositiveInt = 1
    """Concurrent questions. Ollama serves one at a time unless OLLAMA_NUM_PARALLEL says otherwise; more only queue."""
    limits: LLMLimits = LLMLimits()
    """At what cost asking ends."""
    replay: bool = False
    """Answer from the cassette alone: no call is made, and a missing answer is an error."""
    unload_during_backtest: bool | None = None
    """Take the model out of the GPU while policies are trained and backtested; empty means UNLOAD_LLM_DURING_BACKTEST."""

    @field_validator("keep_alive", mode="before")
    @classmethod
    def _is_a_span(cls, value: Any) -> Any:
        said = str(value).strip() if isinstance(value, int | float) else value
        if isinstance(said, str) and not _SPAN.fullmatch(said):
            raise ValueError(f"llm.keep_alive is {value!r}; expected a span such as 10m or 1h30m, a number of seconds, or -1 for ever")
        return said
