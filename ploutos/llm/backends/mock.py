"""The mock advisor: a fixed trend rule and a pure function of the prompt. It is no language model and says so."""

from collections.abc import Sequence

from ploutos.llm.prompts import parse

_TREND = ("price_momentum_60", "sma_50_slope", "session_trend", "market_regime")
_LEAST_AGREEMENT = 2


class MockAdvisor:
    """Counts how many of four trend measures point the same way."""

    model = "mock (a fixed trend rule, not a language model)"
    is_mock = True

    def answer(self, prompts: Sequence[str]) -> list[dict[str, object]]:
        return [self._answer(parse(prompt)) for prompt in prompts]

    def _answer(self, features: dict[str, float]) -> dict[str, object]:
        votes = [(value > 0) - (value < 0) for name in _TREND if (value := features.get(name)) is not None]
        score = sum(votes)
        action = "buy" if score >= _LEAST_AGREEMENT else "sell" if score <= -_LEAST_AGREEMENT else "hold"
        return {
            "action": action,
            "confidence": 50 + 10 * abs(score),
            "reason": f"mock rule: {score:+d} of {len(_TREND)} trend measures",
        }
