"""The mock advisor: a fixed trend rule and a pure function of the prompt. It is not a language model and says so."""

import json

from ploutos.advisor.prompts import parse
from ploutos.llm.backends.base import Messages, Reply, Schema

_TREND = ("price_momentum_60", "sma_50_slope", "session_trend", "market_regime")
_LEAST_AGREEMENT = 2


class MockBackend:
    """Counts how many of four trend measures point the same way."""

    name = "mock (a fixed trend rule, not a language model)"
    is_mock = True

    def digest(self) -> str:
        return ""

    def complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        """The rule's answer; schema and seed change nothing."""
        features = parse(messages)
        votes = [(value > 0) - (value < 0) for name in _TREND if (value := features.get(name)) is not None]
        score = sum(votes)
        action = "buy" if score >= _LEAST_AGREEMENT else "sell" if score <= -_LEAST_AGREEMENT else "hold"
        reason = f"mock rule: {score:+d} of {len(_TREND)} trend measures"
        return Reply(json.dumps({"action": action, "confidence": 50 + 10 * abs(score), "reason": reason}))
