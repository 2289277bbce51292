"""Who advises a run, with what settings, and when it is asked.

`LLMConfig()` on its own means Ollama. The pipeline's default, in every preset, is the mock: a run asks a language model
only when its configuration says so (`--set llm.provider=ollama`), and no provider ever stands in for another.
"""

import re
from datetime import date
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from ploutos.specs import Spec

_HOW = {"model", "temperature", "seed", "num_ctx", "num_predict", "think"}
_SPAN = re.compile(r"-?\d+(\.\d+)?|-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+")


class LLMProvider(StrEnum):
    """Where answers come from."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    MOCK = "mock"


class Mask(StrEnum):
    """What of an asset a prompt hides."""

    ALL = "all"
    """Name, dates and price levels: a blind prompt."""
    NAMES = "names"
    """The name alone."""
    DATES = "dates"
    """The dates alone."""
    LEVELS = "levels"
    """The price levels alone, as closes indexed to 100."""
    NONE = "none"
    """Nothing."""


class Trigger(StrEnum):
    """A change of a symbol's own market features that asks for advice between two cadence bars."""

    BREAKOUT = "breakout"
    """`breakout_signal` or `breakdown_signal` turns 1."""
    REGIME = "regime"
    """`market_regime` is not what it was at the bar before."""
    VOLATILITY = "volatility"
    """`volatility_regime` rises above 0.5: the true range is half again its mean."""


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


class LLMConfig(Spec):
    """Who advises, with what settings, and how often."""

    provider: LLMProvider = LLMProvider.OLLAMA
    """ollama, openai (any server with OpenAI's API) or mock, which is a fixed rule and not a language model."""
    model: str = Field(default="llama3.2", min_length=1)
    """Model by the provider's own name; an Ollama name without a tag means its tag latest."""
    stated_cutoff: date | None = None
    """Last day of what the model was trained on, as its maker states it; without one no session of a test counts as clean."""
    grey_months: NonNegativeInt = 6
    """Months after the stated cutoff that do not count as clean: makers round, and later training adds news."""
    max_reidentification: float | None = Field(default=None, ge=0, le=1)
    """Share of blind prompts whose asset or year the model may recognise before a probe fails; empty means what guessing gives."""
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
    cadence_bars: PositiveInt = 5
    """Advice on every symbol is requested at each bar whose number is a multiple of this, and stands until the next."""
    triggers: tuple[Trigger, ...] = ()
    """Changes that trigger a question between two cadence bars; none by default, so that the data does not set the cost."""
    cooldown_bars: PositiveInt = 3
    """Bars from one question about a symbol to a triggered one."""
    batch_size: PositiveInt = 64
    """Questions between two lines of progress."""
    concurrency: PositiveInt = 1
    """Concurrent questions. Ollama serves one at a time unless OLLAMA_NUM_PARALLEL says otherwise; more only queue."""
    reveal: bool = False
    """Show the asset's name, dates and prices: an ablation that measures memory, never a result."""
    mask: Mask = Mask.ALL
    """What prompts hide: all, names, dates, levels or none. Only all is blind; each other one is an ablation that tells by which of them a
    model remembers, never a result. `reveal` means none."""
    mirror: bool | None = None
    """Ask every question of the test ranges again on the mirrored market, where each return has the other sign: an advisor that
    reads the numbers reverses its advice. Empty means yes for the mock and no for a model, since it doubles the questions."""
    max_unusable: float = Field(default=0.2, ge=0, le=1)
    """Share of a batch's questions, once there are twenty, that may have no answer, or none that can be read; beyond it the run ends."""
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

    @property
    def hidden(self) -> Mask:
        """What prompts hide."""
        return Mask.NONE if self.reveal else self.mask

    @property
    def mirrors(self) -> bool:
        """Whether the mirrored market is asked about as well."""
        return self.provider is LLMProvider.MOCK if self.mirror is None else self.mirror

    def cache_fields(self) -> dict[str, Any]:
        """The settings that advice depends on: no address, no timeout, no limit, no number at once, nothing of the GPU."""
        when = {"provider", "cadence_bars", "triggers", "cooldown_bars", "reveal"}
        unlike = {"mask"} if self.mask is not Mask.ALL else set()
        return self.model_dump(mode="json", include=unlike | when if self.provider is LLMProvider.MOCK else unlike | when | _HOW)

    def reading_fields(self) -> dict[str, Any]:
        """The settings that the readings of texts depend on."""
        return self.model_dump(mode="json", include=_HOW | {"provider"}) | {"hidden": self.hidden.value}
