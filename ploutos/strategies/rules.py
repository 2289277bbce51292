"""Trading rules with a few parameters, as declarations: what may be varied, within what, and which position follows.

A rule says, symbol by symbol and on that symbol's own bars, which position it wants after each close: 1 long, -1 short, 0 none. An order
is given when that changes, and stands until the symbol has a bar to fill it in; between two orders nothing is rebalanced. So a position
that a stop has closed stays closed until the rule changes its mind. The stop itself is the account's (`env.stop_loss`), by the kernel's
own rules: a parameter named `stop_loss` sets it. Every symbol has the same share of the gross limit.

A rule of one's own is a function and a `Rule`, in a file of ten lines; `find_rule("my_rules.py:RULE")` reads it.
"""

import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import talib

from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, StrategyError
from ploutos.features.indicators import ratio
from ploutos.market.bars import Bars
from ploutos.types import BoolArray, FloatArray, IntArray
from ploutos.wording import enumerate_names

STOP_LOSS = "stop_loss"
"""Parameter that is the account's stop: a share of the entry, 0 for none."""
_KEPT_INDICATORS = 256
_ROUNDED = 10


@dataclass(frozen=True)
class Parameter:
    """What may be varied: a whole number where all four are whole.

    Raises:
        ConfigError: the default is not within the bounds, or the step is not positive.
    """

    default: float
    low: float
    high: float
    step: float

    def __post_init__(self) -> None:
        if not (self.low <= self.default <= self.high and self.step > 0):
            raise ConfigError(f"{self} is not a parameter; expected low <= default <= high and a step above 0")

    @property
    def is_whole(self) -> bool:
        return all(isinstance(each, int) for each in (self.default, self.low, self.high, self.step))

    @property
    def size(self) -> int:
        """Values on the grid of steps from the lower bound."""
        return int((self.high - self.low) / self.step + 1e-9) + 1

    def value(self, k: int) -> float:
        """The k-th value of the grid."""
        return self.low + k * self.step if self.is_whole else round(self.low + k * self.step, _ROUNDED)

    def snap(self, wanted: float) -> float:
        """The nearest value of the grid.

        >>> Parameter(12, 5, 20, 1).snap(99.0), Parameter(0.02, 0.01, 0.05, 0.005).snap(0.0131)
        (20, 0.015)
        """
        return self.value(min(max(round((wanted - self.low) / self.step), 0), self.size - 1))


Values = dict[str, float]
"""One value per parameter of a rule."""


class SymbolBars:
    """The bars that one symbol has, and TA-Lib's indicators of them, computed once for the same arguments.

    Attributes:
        rows: shape (n,), positions of these bars in the panel.
        open, high, low, close, volume: shape (n,).
    """

    def __init__(self, bars: Bars, column: int) -> None:
        self.rows: IntArray = np.flatnonzero(bars.tradable[:, column])
        self.open, self.high, self.low, self.close, self.volume = (
            np.ascontiguousarray(getattr(bars, name)[self.rows, column]) for name in ("open", "high", "low", "close", "volume")
        )
        self._kept = lru_cache(maxsize=_KEPT_INDICATORS)(self._compute)

    def ta(self, name: str, *inputs: str, **options: float) -> Any:
        """An indicator of TA-Lib, nan before its window is full: `ta("EMA", "close", timeperiod=12)`.

        Returns:
            Shape (n,), or a tuple of them where TA-Lib gives several.
        """
        return self._kept(name, inputs, tuple(sorted(options.items())))

    def _compute(self, name: str, inputs: tuple[str, ...], options: tuple[tuple[str, float], ...]) -> Any:
        return getattr(talib, name)(*(getattr(self, each) for each in inputs), **dict(options))


Position = Callable[[SymbolBars, Values], FloatArray | BoolArray]
"""Wanted position after each of a symbol's closes, -1 to 1, nan for none: row *t* uses bars up to and including *t*."""


@dataclass(frozen=True)
class Rule:
    """A rule as a declaration.

    Attributes:
        name: lower-case letters, digits and underscores.
        position: what it wants.
        parameters: what may be varied.
        increasing: pairs of parameters of which the first must be below the second.
        about: what it does, in one sentence.
    """

    name: str
    position: Position
    parameters: Mapping[str, Parameter]
    increasing: tuple[tuple[str, str], ...] = ()
    about: str = ""

    @property
    def defaults(self) -> Values:
        return {name: each.default for name, each in self.parameters.items()}

    def broken(self, values: Mapping[str, float]) -> str:
        """The constraint that a full set of values breaks, in words; empty where it keeps all."""
        return "; ".join(
            f"{low} must be below {high}, found {values[low]:g} and {values[high]:g}"
            for low, high in self.increasing
            if not values[low] < values[high]
        )

    def require(self, values: Mapping[str, float]) -> Values:
        """A full set of values, as it is.

        Raises:
            ConfigError: a parameter is unknown, missing, out of bounds, or they break a constraint.
        """
        if set(values) != set(self.parameters):
            raise ConfigError(
                f"{self.name} was given {enumerate_names(tuple(values)) or 'nothing'}; expected {enumerate_names(tuple(self.parameters))}"
            )
        for name, each in self.parameters.items():
            if not each.low <= values[name] <= each.high:
                raise ConfigError(f"{self.name}: {name} is {values[name]:g}; expected {each.low:g} to {each.high:g}")
            if each.is_whole and values[name] != int(values[name]):
                raise ConfigError(f"{self.name}: {name} is {values[name]:g}; expected a whole number")
        if fault := self.broken(values):
            raise ConfigError(f"{self.name}: {fault}")
        return {name: int(values[name]) if each.is_whole else values[name] for name, each in self.parameters.items()}


def symbol_bars(bars: Bars) -> tuple[SymbolBars, ...]:
    """What rules read of every symbol of a panel."""
    return tuple(SymbolBars(bars, column) for column in range(bars.n_symbols))


def rule_env(env: EnvSpec, values: Mapping[str, float]) -> EnvSpec:
    """The account of a rule: with the stop that its values name, if they name one."""
    return env.model_copy(update={"stop_loss": values[STOP_LOSS] or None}) if STOP_LOSS in values else env


def rule_targets(
    rule: Rule, values: Mapping[str, float], bars: Bars, env: EnvSpec, first: int = 0, symbols: Sequence[SymbolBars] | None = None
) -> FloatArray:
    """Target weights of a rule: an order where its position changes, and at bar `first` what it wants by then.

    Args:
        values: a full set, within the bounds.
        first: bar after whose close the first decision is made; no orders before it.
        symbols: from `symbol_bars`, where many sets are tried on the same bars.

    Returns:
        Shape (n_bars, n_symbols), share of equity, nan for no order.

    Raises:
        StrategyError: the rule's function answers with another number of rows than there are bars.
    """
    given = rule.require(values)
    out = np.full((bars.n_bars, bars.n_symbols), np.nan)
    slot, lowest = env.gross_limit / bars.n_symbols, -1.0 if env.allow_short else 0.0
    for column, own in enumerate(symbols or symbol_bars(bars)):
        wanted = np.asarray(rule.position(own, given) if len(own.rows) else own.close, dtype=np.float64)
        if wanted.shape != own.close.shape:
            raise StrategyError(f"{rule.name} answers with shape {wanted.shape}; expected {own.close.shape}, one position per bar")
        wanted = np.clip(np.nan_to_num(wanted), lowest, 1.0)
        if len(own.rows) != bars.n_bars:
            last = np.searchsorted(own.rows, np.arange(bars.n_bars), side="right")
            wanted = np.r_[0.0, wanted][last]
        changed = np.flatnonzero(wanted[first + 1 :] != wanted[first:-1]) + first + 1
        at = np.r_[first, changed]
        out[at, column] = wanted[at]
        if len(own.rows) != bars.n_bars:
            _let_stand(out[:, column], bars.tradable[:, column], at, first)
    out *= slot
    return out


def _let_stand(orders: FloatArray, tradable: BoolArray, at: IntArray, first: int) -> None:
    """Repeat orders until the symbol has a bar in which they were filled."""
    rows = np.arange(len(orders))
    given = np.full(len(orders), -1)
    given[at] = at
    given, seen = np.maximum.accumulate(given), np.maximum.accumulate(np.where(tradable, rows, -1))
    waits = (rows >= first) & (given >= seen)
    orders[waits] = orders[given[waits]]


# --- building blocks


def latch(enter: BoolArray, leave: BoolArray) -> FloatArray:
    """1 from where something is entered until it is left, 0 elsewhere; leaving wins.

    >>> latch(np.array([0, 1, 1, 0, 0, 1]) > 0, np.array([0, 0, 0, 1, 0, 0]) > 0)
    array([0., 1., 1., 0., 0., 1.])
    """
    last = np.maximum.accumulate(np.where(enter | leave, np.arange(len(enter)), -1))
    return np.where((last >= 0) & ~leave[last], 1.0, 0.0)


def both_sides(enter_long: BoolArray, leave_long: BoolArray, enter_short: BoolArray, leave_short: BoolArray) -> FloatArray:
    """Long less short; what enters one side must leave the other."""
    return latch(enter_long, leave_long) - latch(enter_short, leave_short)


def _shifted(values: FloatArray) -> FloatArray:
    return np.r_[np.nan, values[:-1]]


# --- rules


def _ema_cross(bars: SymbolBars, p: Values) -> FloatArray:
    return np.sign(bars.ta("EMA", "close", timeperiod=p["fast"]) - bars.ta("EMA", "close", timeperiod=p["slow"]))


def _macd_cross(bars: SymbolBars, p: Values) -> FloatArray:
    return np.sign(bars.ta("MACD", "close", fastperiod=p["fast"], slowperiod=p["slow"], signalperiod=p["signal"])[2])


def _rsi_reversal(bars: SymbolBars, p: Values) -> FloatArray:
    rsi = bars.ta("RSI", "close", timeperiod=p["period"])
    return both_sides(rsi < p["oversold"], rsi >= 50, rsi > p["overbought"], rsi <= 50)


def _bollinger_atr(bars: SymbolBars, p: Values) -> FloatArray:
    upper, middle, lower = bars.ta("BBANDS", "close", timeperiod=p["period"], nbdevup=p["width"], nbdevdn=p["width"])
    beyond, close = p["atr_stop"] * bars.ta("ATR", "high", "low", "close", timeperiod=p["period"]), bars.close
    return both_sides(
        close < lower, (close >= middle) | (close < lower - beyond), close > upper, (close <= middle) | (close > upper + beyond)
    )


def _donchian_breakout(bars: SymbolBars, p: Values) -> FloatArray:
    top, bottom = (_shifted(bars.ta(*each, timeperiod=p["entry"])) for each in (("MAX", "high"), ("MIN", "low")))
    near_top, near_bottom = (_shifted(bars.ta(*each, timeperiod=p["exit"])) for each in (("MAX", "high"), ("MIN", "low")))
    return both_sides(bars.close > top, bars.close < near_bottom, bars.close < bottom, bars.close > near_top)


def _momentum(bars: SymbolBars, p: Values) -> FloatArray:
    risen = bars.ta("ROCP", "close", timeperiod=p["period"])
    return np.where(np.abs(risen) > p["threshold"], np.sign(risen), 0.0)


def _mean_reversion(bars: SymbolBars, p: Values) -> FloatArray:
    away = bars.close - bars.ta("SMA", "close", timeperiod=p["period"])
    z = ratio(away, bars.ta("STDDEV", "close", timeperiod=p["period"], nbdev=1))
    return both_sides(z < -p["entry"], z >= -p["exit"], z > p["entry"], z <= p["exit"])


_STOP = Parameter(0.05, 0.0, 0.1, 0.01)
_ALL = (
    Rule(
        "ema_cross", _ema_cross,
        {"fast": Parameter(12, 5, 20, 1), "slow": Parameter(26, 20, 50, 1), STOP_LOSS: Parameter(0.02, 0.01, 0.05, 0.005)},
        (("fast", "slow"),), "Long while the fast exponential mean of closes is above the slow one, short while it is below.",
    ),
    Rule(
        "macd_cross", _macd_cross,
        {"fast": Parameter(12, 5, 20, 1), "slow": Parameter(26, 21, 60, 1), "signal": Parameter(9, 3, 20, 1), STOP_LOSS: _STOP},
        (("fast", "slow"),), "Long while the MACD is above its signal line, short while it is below.",
    ),
    Rule(
        "rsi_reversal", _rsi_reversal,
        {"period": Parameter(14, 5, 40, 1), "oversold": Parameter(30, 10, 45, 1), "overbought": Parameter(70, 55, 90, 1), STOP_LOSS: _STOP},
        (), "Long when the RSI falls below oversold, short when it rises above overbought, out when it is back at 50.",
    ),
    Rule(
        "bollinger_atr", _bollinger_atr,
        {"period": Parameter(20, 10, 60, 1), "width": Parameter(2.0, 1.0, 3.0, 0.25), "atr_stop": Parameter(1.5, 0.5, 4.0, 0.5),
         STOP_LOSS: _STOP},
        (), "Fades a close beyond a Bollinger band, out at the middle or where the close is some average true ranges beyond the band.",
    ),
    Rule(
        "donchian_breakout", _donchian_breakout,
        {"entry": Parameter(55, 20, 120, 5), "exit": Parameter(20, 5, 60, 5), STOP_LOSS: _STOP}, (("exit", "entry"),),
        "Follows a close beyond the last entry bars' range, out at a close beyond the last exit bars' range on the other side.",
    ),
    Rule(
        "momentum", _momentum, {"period": Parameter(60, 5, 250, 5), "threshold": Parameter(0.0, 0.0, 0.1, 0.005), STOP_LOSS: _STOP}, (),
        "Long while the price has risen by more than the threshold over the period, short while it has fallen by more.",
    ),
    Rule(
        "mean_reversion", _mean_reversion,
        {"period": Parameter(20, 5, 100, 5), "entry": Parameter(2.0, 1.0, 3.0, 0.25), "exit": Parameter(0.5, 0.0, 1.5, 0.25),
         STOP_LOSS: _STOP},
        (("exit", "entry"),), "Fades a close some standard deviations from its mean, out when it is back within fewer of them.",
    ),
)  # fmt: skip
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _ALL}
"""Rules by their names."""


def find_rule(name: str) -> Rule:
    """A rule by its name, or one of a file's own, as `FILE.py:NAME`.

    Raises:
        ConfigError: there is no such rule or file, or the file fails.
    """
    if name in RULES:
        return RULES[name]
    file, colon, variable = name.rpartition(":")
    if not colon or not Path(file).is_file():
        raise ConfigError(f"{name} is not a rule; expected {enumerate_names(tuple(RULES), 10)}, or one of your own as my_rules.py:RULE")
    try:
        found = runpy.run_path(file).get(variable)
    except Exception as error:
        raise ConfigError(f"{file} fails when it is loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Rule):
        raise ConfigError(f"{file} has no rule {variable}; expected {variable} = Rule(...)")
    return found
