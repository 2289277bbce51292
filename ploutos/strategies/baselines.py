"""Strategies that learn nothing. A policy that does not beat them has learnt nothing either.

Each is a table of target weights whose row *t* uses closes up to and including *t*.
"""

import numpy as np

from ploutos.envs.actions import N_ACTIONS, target_weights
from ploutos.envs.spec import EnvSpec
from ploutos.market.bars import Bars
from ploutos.seeding import generator
from ploutos.strategies.base import PrecomputedTargets, Role
from ploutos.types import FloatArray, IntArray

BUY_AND_HOLD = "buy-and-hold"
"""Slug of what everything else is compared with."""
MONTH_SESSIONS = 21
MOMENTUM_SESSIONS = 126


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
    return target_weights(actions, bars.tradable.sum(axis=1), env)


def all_baselines(bars: Bars, first: int, env: EnvSpec, seed: int) -> tuple[PrecomputedTargets, ...]:
    """Every baseline, first deciding after the close of bar `first`."""
    tables = {
        "flat": flat(bars),
        BUY_AND_HOLD: buy_and_hold(bars, first, env),
        "equal-weight": equal_weight(bars, first, env),
        "momentum": momentum(bars, first, env),
        "random": random(bars, env, seed),
    }
    return tuple(PrecomputedTargets(slug, table, Role.BASELINE) for slug, table in tables.items())
