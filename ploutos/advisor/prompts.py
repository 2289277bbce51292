"""The prompt. Blind: no ticker, no date, no price level, only numbers that any market at any time could show.

It says what the answer will be used for: how long a bar is, how long the advice stands, what each action does to a position and
what a trade costs. Windows in names count bars, whatever their length. The reason comes before the action, since a model that
writes its answer first can only justify it. Masks that hide less than everything exist for ablations: what they gain over the
blind one is memory, not skill.
A change of any word here needs another `TEMPLATE_VERSION`; recorded answers belong to the version they were given to.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ploutos.advisor.config import Mask
from ploutos.advisor.snapshot import Snapshot
from ploutos.envs.spec import EnvSpec
from ploutos.features.llm_features import MARKET_NAMES
from ploutos.llm.backends.base import Message, Messages, Schema
from ploutos.market.bars import Bars
from ploutos.wording import plural

TEMPLATE_VERSION = "3"
_ALIAS = "ASSET"
_HEAD = """You advise a trading desk on one asset. The numbers below were known at the close of the last bar.
A bar is {bar}. Your advice is carried out at the open of the next bar and stands for {horizon}; judge the price over that time.
You are not told what is held. buy moves it to a full position, sell to {sold}; hold leaves it as it is, so that nothing is traded.
A trade costs about {cost:.1f} basis points of its value each way. Windows in the names of the numbers count bars.
Answer with one JSON object, in this order: reason (at most 200 characters), action (buy, sell or hold), confidence (integer
0 to 100: how likely the direction is right).
"""
_FEATURE = re.compile(r"^([a-z_0-9]+): (-?\d+\.\d{3})$", re.MULTILINE)
_HIDES_NAMES, _HIDES_DATES, _HIDES_LEVELS = ({Mask.ALL, each} for each in (Mask.NAMES, Mask.DATES, Mask.LEVELS))
SHOWN_NAMES = {name: re.sub(r"_(\d+)min$", r"_\1", name) for name in MARKET_NAMES}
"""What prompts call each market feature: `rsi_15min` comes from bars of a minute, and here a bar has any length."""
_NAMES = {shown: name for name, shown in SHOWN_NAMES.items()}


@dataclass(frozen=True)
class Terms:
    """What advice is used for.

    Attributes:
        bar: length of a bar, in words.
        horizon: how long advice stands, in words.
        sold: what sell moves a position to, in words.
        cost: of a trade, each way, basis points of its value.
    """

    bar: str
    horizon: str
    sold: str
    cost: float

    @classmethod
    def of(cls, bars: Bars, symbol: str, as_of: np.datetime64, cadence_bars: int, env: EnvSpec) -> "Terms":
        """Of one symbol's advice, from what was known at a time: a contract's ticks and fees count at the price of that time."""
        column = bars.symbols.index(symbol)
        spec, close = bars.instruments[column], float(bars.mark[np.searchsorted(bars.available_at, as_of, side="right") - 1, column])
        costs = env.costs
        cost = costs.commission_bps + costs.half_spread_bps + costs.slippage_bps
        if not spec.costs_in_bps:
            per_unit = spec.commission_per_unit + spec.slippage_ticks * spec.tick_value
            cost = 1e4 * per_unit / (abs(close) * spec.multiplier) if close else 0.0
        return cls(_length(bars.timeframe), plural(cadence_bars, "bar"), "a full short position" if env.allow_short else "none", cost)


def _length(timeframe: pd.Timedelta) -> str:
    """A bar's length in words.

    >>> _length(pd.Timedelta("1D")), _length(pd.Timedelta("1h")), _length(pd.Timedelta("15min")), _length(pd.Timedelta("7D"))
    ('1 day', '1 hour', '15 minutes', '7 days')
    """
    for unit, minutes in (("day", 1440), ("hour", 60)):
        if timeframe >= pd.Timedelta(minutes=minutes) and not timeframe % pd.Timedelta(minutes=minutes):
            return plural(timeframe // pd.Timedelta(minutes=minutes), unit)
    return plural(round(timeframe / pd.Timedelta(minutes=1)), "minute")


def render(snapshot: Snapshot, schema: Schema, terms: Terms, mask: Mask = Mask.ALL) -> Messages:
    """The prompt for one asset at one time; what is not known yet is left out.

    Args:
        schema: JSON schema of the answer; it stands in the prompt too, for servers that cannot enforce it.
        terms: what the advice is used for.
        mask: what it hides: the name behind an alias, dates behind relative time, prices behind closes indexed to 100.
    """
    head = _HEAD.format(bar=terms.bar, horizon=terms.horizon, sold=terms.sold, cost=terms.cost)
    lines = [*_market(snapshot, mask), *_features(snapshot.features)]
    return Message("system", f"{head}Schema: {_written(schema)}"), Message("user", "\n".join(lines))


def with_schema(head: str, schema: Schema) -> str:
    """What is asked, and the form of the answer after it."""
    return f"{head}Schema: {json.dumps(schema, sort_keys=True, separators=(',', ':'))}"


def _written(schema: Schema) -> str:
    """A schema in one order, whatever wrote it; its properties stay in theirs, which is the order of the answer."""

    def ordered(value: Any, keep: bool = False) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: ordered(value[name], keep=name == "properties") for name in (value if keep else sorted(value))}

    return json.dumps(ordered(dict(schema)), separators=(",", ":"))


def _market(snapshot: Snapshot, mask: Mask) -> list[str]:
    closes, n = snapshot.closes, len(snapshot.closes)
    named = [f"asset: {_ALIAS if mask in _HIDES_NAMES else snapshot.symbol}"]
    if mask in _HIDES_DATES:
        labels = [f"t-{n - 1 - i}" for i in range(n)]
    else:
        named.append(f"as of: {np.datetime_as_string(snapshot.as_of, unit='s', timezone='UTC')}")
        labels = [str(day) for day in np.datetime_as_string(snapshot.timestamps, unit="m", timezone="UTC")]
    if mask in _HIDES_LEVELS:
        said, shown = ", 100 at the first bar shown", [f"{close:.2f}" for close in closes / closes[0] * 100]
    else:
        said, shown = "", [f"{close:.6g}" for close in closes]
    rows = zip(labels, shown, snapshot.moves, strict=True)
    return [*named, f"closes{said}; moves in standard deviations of one bar", *(f"{at} close {close}{_move(by)}" for at, close, by in rows)]


def _move(move: float) -> str:
    return f" move {move:+.2f}" if math.isfinite(move) else ""


def _features(features: dict[str, float]) -> list[str]:
    return [f"{SHOWN_NAMES[name]}: {value:.3f}" for name, value in features.items() if math.isfinite(value)]


def parse(messages: Messages) -> dict[str, float]:
    """The market features of a prompt; what `render` left out is missing."""
    return {_NAMES[name]: float(value) for name, value in _FEATURE.findall(messages[-1].content) if name in _NAMES}
