"""One small question to the advisor, to see its answer before a run depends on it."""

from dataclasses import dataclass

import numpy as np

from ploutos.advisor.advisor import Advice, Advisor, make_backend, prompt_at
from ploutos.advisor.config import LLMConfig
from ploutos.errors import LLMUnavailable
from ploutos.features.online import OnlineFeatures, OptimizedFeatureCache
from ploutos.llm.client import Outcome
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.settings import Settings

_BARS = 400


@dataclass(frozen=True)
class CheckResult:
    """What came back.

    Attributes:
        model, digest: who answered.
        outcome: the decision, or why there is none.
        cache: which the question's features went through.
        asked_with: what an OpenAI-compatible server took of a request; empty for others.
    """

    model: str
    digest: str
    outcome: Outcome[Advice]
    cache: OptimizedFeatureCache
    asked_with: str = ""


def check_advisor(config: LLMConfig, settings: Settings) -> CheckResult:
    """Ask once about the 400th bar of a shipped symbol, through the path of a live decision. Nothing is recorded or replayed.

    Raises:
        LLMError: the server or the model is not there, refuses, or does not answer.
    """
    advisor = Advisor(make_backend(config, settings), config.model_copy(update={"replay": False}))
    bars = load(DataSpec())
    column = int(np.flatnonzero(bars.tradable[_BARS - 1])[0])
    features = OnlineFeatures()
    symbol, as_of = bars.symbols[column], bars.available_at[_BARS - 1]
    messages = prompt_at(bars, lambda t, s: features.market(bars, t, s), symbol, as_of, config.hidden, config.cadence_bars)
    outcome = advisor.ask(messages)
    if outcome.unanswered:
        raise LLMUnavailable(outcome.why)
    return CheckResult(advisor.name, advisor.digest, outcome, features.cache, str(getattr(advisor.backend, "accepted", "")))
