"""The prompt: blind. No ticker, no date, no price level; 28 numbers that any market at any time could show."""

import math

TEMPLATE_VERSION = "1"
_HEAD = """You advise a trading desk on one asset. The numbers below were known at the close of the last bar.
Answer with one JSON object: action (buy, sell or hold), confidence (integer 0 to 100), reason (at most 200 characters).
buy asks for a full position, sell for none, hold for no change.
"""


def render(features: dict[str, float]) -> str:
    """The prompt for one asset at one time; features that are not known yet are left out.

    >>> render({"rsi_15min": 0.51234, "rsi_60min": float("nan")}).splitlines()[-1]
    'rsi_15min: 0.512'
    """
    lines = [f"{name}: {value:.3f}" for name, value in features.items() if math.isfinite(value)]
    return _HEAD + "\n".join(lines)


def parse(prompt: str) -> dict[str, float]:
    """The numbers of a prompt; what `render` left out is missing."""
    pairs = (line.split(": ") for line in prompt.removeprefix(_HEAD).splitlines())
    return {name: float(value) for name, value in pairs}
