"""Strategies that learn nothing. A policy that does not beat them has learnt nothing either.

Each is a table of target weights whose row *t* uses closes up to and including *t*.
"""

import numpy as np
import pandas as pd

from ploutos.envs.actions import N_ACTIONS, target_weights
from ploutos.envs.market_arrays import decayed_volatility
from ploutos.envs.spec import EnvSpec
from ploutos.market.bars import Bars
from ploutos.seeding import generator
from ploutos.strategies.base import PrecomputedTargets, Role
from ploutos.types import FloatArray, IntArray

BUY_AND_HOLD = "buy-and-hold"
"""Slug of what everything else is compared with."""
MONTH_SESSIONS = 21
MOMENTUM_SESSIONS = 126
SESSION_VOLATILITY = 0.006
"""About 10 % a year."""
_FAST, _SLOW, _MOMENTUM_BARS = 20, 50, 4


def _session_numbers(bars: Bars) -> IntArray:
    """Shape (n_bars,): 0 for the bars of the first session, 1 for those of the second."""
    return np.r_[0, np.cumsum(bars.sessions[1:] != bars.sessions[:-1])]


def _slots(bars: Bars, env: EnvSpec) -> FloatArray:
    """An equal share of the gross limit for every symbol that has a bar, 0 for the others."""
    count = np.maximum(bars.tradable.sum(axis=1, keepdims=True), 1)
    return np.where(bars.tradable, env.gross_limit / count, 0.0)


def _only_at(targets: FloatArray, moments: IntArray) -> FloatArray:
    """Keep some rows; no orders elsewhere."""
    kept = np.full_like(targets, np.nan)
    kept[moments] = targets[moments]
    return kept


def _monthly(bars: Bars, first: int) -> IntArray:
    """Bar `first` and the first bar of every 21st session after its own."""
    numbers = _session_numbers(bars)[first:]
    opens = np.r_[True, numbers[1:] != numbers[:-1]]
    return first + np.flatnonzero(opens & ((numbers - numbers[0]) % MONTH_SESSIONS == 0))


def flat(bars: Bars) -> FloatArray:
    """Cash, always."""
    return np.zeros((bars.n_bars, bars.n_symbols))


def buy_and_hold(bars: Bars, first: int, env: EnvSpec) -> FloatArray:
    """Equal shares of all symbols at the first decision, then nothing."""
    return _only_at(_slots(bars, env), np.array([first]))


def equal_weight(bars: Bars, first: int, env: EnvSpec) -> FloatArray:
    """Equal shares of all symbols, rebalanced monthly (every 21 sessions)."""
    return _only_at(_slots(bars, env), _monthly(bars, first))


def momentum(bars: Bars, first: int, env: EnvSpec) -> FloatArray:
    """An equal share of every symbol that rose over six months (126 sessions), decided once a month."""
    numbers = _session_numbers(bars)
    last_bars = np.flatnonzero(np.r_[numbers[1:] != numbers[:-1], True])
    known = numbers >= MOMENTUM_SESSIONS
    past = np.full_like(bars.mark, np.nan)
    past[known] = bars.mark[last_bars[numbers[known] - MOMENTUM_SESSIONS]]
    return _only_at(np.where(bars.mark > past, _slots(bars, env), 0.0), _monthly(bars, first))


def random(bars: Bars, env: EnvSpec, seed: int) -> FloatArray:
    """HOLD, BUY or SELL at even odds, every bar and symbol."""
    actions = generator(seed, "random baseline").integers(0, N_ACTIONS, size=(bars.n_bars, bars.n_symbols))
    return target_weights(actions, bars.n_tradable, env)


def momentum_regime(bars: Bars, env: EnvSpec) -> FloatArray:
    """An equal share of every symbol whose mean of 20 closes is above that of 50 and that rose over four bars; else nothing of it.

    Each symbol counts its own bars; it is decided anew with every one of them.
    """
    table = np.zeros((bars.n_bars, bars.n_symbols))
    for j in range(bars.n_symbols):
        rows = np.flatnonzero(bars.tradable[:, j])
        close = pd.Series(bars.close[rows, j])
        rises = (close.rolling(_FAST).mean() > close.rolling(_SLOW).mean()) & (close > close.shift(_MOMENTUM_BARS))
        table[rows, j] = rises.to_numpy()
    return np.where(table > 0, _slots(bars, env), 0.0)


def random_turnover(bars: Bars, env: EnvSpec, seed: int) -> FloatArray:
    """Holds or does not hold each symbol at random, and changes its mind as often as the momentum regime has done so far.

    So it pays about what that rule pays for trading, and knows nothing.
    """
    held = momentum_regime(bars, env) > 0
    changes = np.cumsum((held[1:] != held[:-1]).sum(axis=1))
    often = np.r_[0.0, changes / np.maximum(np.cumsum(bars.tradable[1:].sum(axis=1)), 1)]
    chance = generator(seed, "random turnover").random((bars.n_bars, bars.n_symbols))
    turned = bars.tradable & (chance < often[:, None])
    return np.where(np.cumsum(turned, axis=0) % 2 == 1, _slots(bars, env), 0.0)


def volatility_target(bars: Bars, first: int, env: EnvSpec) -> FloatArray:
    """Equal shares of all symbols, together what their usual volatility allows for moves of 0.6 % a session; decided once in 21 sessions.

    Symbols are taken to move together, which holds less than a covariance would; never more than the gross limit.
    """
    volatility = decayed_volatility(bars)
    known = bars.tradable & (volatility > 0)
    mean = np.where(known, volatility, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    per_session = mean * np.sqrt(np.arange(1, bars.n_bars + 1) / (_session_numbers(bars) + 1))
    share = np.where(per_session > 0, SESSION_VOLATILITY / np.where(per_session > 0, per_session, 1.0), 0.0)
    return _only_at(_slots(bars, env) * np.minimum(share / env.gross_limit, 1.0)[:, None], _monthly(bars, first))


def all_baselines(bars: Bars, first: int, env: EnvSpec, seed: int) -> tuple[PrecomputedTargets, ...]:
    """Every baseline, first deciding after the close of bar `first`."""
    tables = {
        "flat": flat(bars),
        BUY_AND_HOLD: buy_and_hold(bars, first, env),
        "equal-weight": equal_weight(bars, first, env),
        "momentum": momentum(bars, first, env),
        "momentum-regime": momentum_regime(bars, env),
        "volatility-target": volatility_target(bars, first, env),
        "random": random(bars, env, seed),
        "random-turnover": random_turnover(bars, env, seed),
    }
    return tuple(PrecomputedTargets(slug, table, Role.BASELINE) for slug, table in tables.items())
