"""The prompt. Blind: no ticker, no date, no price level, only numbers that any market at any time could show.

The revealing variant of the same snapshot exists for one ablation: what it gains over the blind one is memory, not skill.
A change of any word here needs another `TEMPLATE_VERSION`; recorded answers belong to the version they were given to.
"""

import json
import math
import re

import numpy as np

from ploutos.advisor.snapshot import Snapshot
from ploutos.features.llm_features import MARKET_NAMES
from ploutos.llm.backends.base import Message, Messages, Schema

TEMPLATE_VERSION = "2"
_ALIAS = "ASSET"
_HEAD = """You advise a trading desk on one asset. The numbers below were known at the close of the last bar.
Answer with one JSON object: action (buy, sell or hold), confidence (integer 0 to 100), reason (at most 200 characters).
buy asks for a full position, sell for none, hold for no change.
"""
_FEATURE = re.compile(r"^([a-z_0-9]+): (-?\d+\.\d{3})$", re.MULTILINE)


def render(snapshot: Snapshot, schema: Schema, reveal: bool = False) -> Messages:
    """The prompt for one asset at one time; what is not known yet is left out.

    Args:
        schema: JSON schema of the answer; it stands in the prompt too, for servers that cannot enforce it.
        reveal: show name, dates and prices instead of an alias, relative time and closes indexed to 100.
    """
    lines = [*(_revealed(snapshot) if reveal else _blind(snapshot)), *_features(snapshot.features)]
    return Message("system", with_schema(_HEAD, schema)), Message("user", "\n".join(lines))


def with_schema(head: str, schema: Schema) -> str:
    """What is asked, and the form of the answer after it."""
    return f"{head}Schema: {json.dumps(schema, sort_keys=True, separators=(',', ':'))}"


def _blind(snapshot: Snapshot) -> list[str]:
    shown = snapshot.closes / snapshot.closes[0] * 100
    head = ["asset: " + _ALIAS, "closes, 100 at the first bar shown; moves in standard deviations of one bar"]
    return head + [f"t-{len(shown) - 1 - i} close {close:.2f}{_move(snapshot.moves[i])}" for i, close in enumerate(shown)]


def _revealed(snapshot: Snapshot) -> list[str]:
    moment = np.datetime_as_string(snapshot.as_of, unit="s", timezone="UTC")
    days = np.datetime_as_string(snapshot.timestamps, unit="m", timezone="UTC")
    head = [f"asset: {snapshot.symbol}", f"as of: {moment}", "closes; moves in standard deviations of one bar"]
    return head + [
        f"{day} close {close:.6g}{_move(snapshot.moves[i])}" for i, (day, close) in enumerate(zip(days, snapshot.closes, strict=True))
    ]


def _move(move: float) -> str:
    return f" move {move:+.2f}" if math.isfinite(move) else ""


def _features(features: dict[str, float]) -> list[str]:
    return [f"{name}: {value:.3f}" for name, value in features.items() if math.isfinite(value)]


def parse(messages: Messages) -> dict[str, float]:
    """The market features of a prompt; what `render` left out is missing."""
    return {name: float(value) for name, value in _FEATURE.findall(messages[-1].content) if name in MARKET_NAMES}
