"""The market turned upside down, and the advisor asked about it.

An advisor that reads the numbers turns round with them. One that remembers what really came next, or always leans one way,
stays as it was.
"""

from dataclasses import replace

import numpy as np

from ploutos.advisor.advisor import Advisor, ask_about
from ploutos.advisor.config import Mask
from ploutos.advisor.schedule import DecisionTime
from ploutos.advisor.signals import Signals
from ploutos.envs.spec import EnvSpec
from ploutos.features.llm_features import market_features
from ploutos.market.bars import Bars


def mirrored_market(bars: Bars) -> Bars:
    """The market in which every return has the other sign: each price p becomes c^2 / p, c being the symbol's first close.

    High and low change places; volume stays. It reads no later bar, so it is known when the bar is.
    """
    first = bars.close[bars.tradable.argmax(axis=0), np.arange(bars.n_symbols)]
    return replace(
        bars, open=first**2 / bars.open, high=first**2 / bars.low, low=first**2 / bars.high, close=first**2 / bars.close
    )  # fmt: skip


def ask_mirrored(signals: Signals, bars: Bars, advisor: Advisor, env: EnvSpec | None = None) -> Signals:
    """Ask every question again, blind, on the mirrored market.

    Args:
        signals: what the advisor said about `bars`.
        env: costs and limits that the prompts state; None means the defaults.

    Returns:
        Advice at the same times and on the same symbols, row for row.

    Raises:
        LLMUnavailable, LLMError: as in `Advisor.ask_all`.
    """
    other = mirrored_market(bars)
    column = {symbol: s for s, symbol in enumerate(bars.symbols)}
    rows = (signals.frame[name].tolist() for name in ("bar", "symbol", "asked_for"))
    asked = [DecisionTime(bar, column[symbol], asked_for) for bar, symbol, asked_for in zip(*rows, strict=True)]
    return ask_about(other, market_features(other), asked, advisor, Mask.ALL, env)
