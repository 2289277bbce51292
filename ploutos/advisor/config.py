"""Who advises a run, with what settings, when it is asked and what it is shown.

`LLMConfig()` on its own means Ollama. The pipeline's default, in every preset, is the mock: a run asks a language model
only when its configuration says so (`--set llm.provider=ollama`), and no provider ever stands in for another.
"""

from datetime import date
from enum import StrEnum
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from ploutos.llm.config import SAMPLING, ClientConfig, LLMProvider


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


class LLMConfig(ClientConfig):
    """Who advises, with what settings, how often, and what of the market it is shown."""

    stated_cutoff: date | None = None
    """Last day of what the model was trained on, as its maker states it; without one no session of a test counts as clean."""
    grey_months: NonNegativeInt = 6
    """Months after the stated cutoff that do not count as clean: makers round, and later training adds news."""
    max_reidentification: float | None = Field(default=None, ge=0, le=1)
    """Share of blind prompts whose asset or year the model may recognise before a probe fails; empty means what guessing gives."""
    cadence_bars: PositiveInt = 5
    """Advice on every symbol is requested at each bar whose number is a multiple of this, and stands until the next."""
    triggers: tuple[Trigger, ...] = ()
    """Changes that trigger a question between two cadence bars; none by default, so that the data does not set the cost."""
    cooldown_bars: PositiveInt = 3
    """Bars from one question about a symbol to a triggered one."""
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
        return self.model_dump(mode="json", include=unlike | when if self.provider is LLMProvider.MOCK else unlike | when | SAMPLING)

    def reading_fields(self) -> dict[str, Any]:
        """The settings that the readings of texts depend on."""
        return self.model_dump(mode="json", include=SAMPLING | {"provider"}) | {"hidden": self.hidden.value}
