"""Strategies that learn nothing. A policy that does not beat them has learnt nothing either.

Each is a table of target weights whose row *t* uses closes up to and including *t*.
"""

import numpy as np

from ploutos.envs.actions import N_ACTIONS, target_weights
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Backtests, Scheduled
from ploutos.market.bars import Bars
from ploutos.seeding import generator
from ploutos.types import BoolArray, FloatArray, IntArray
from ploutos.wording import enumerate_names

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
    """Equal shares of all symbols, put right once a month (21 sessions)."""
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


def all_baselines(bars: Bars, first: int, env: EnvSpec, seed: int) -> tuple[Scheduled, ...]:
    """Every baseline, first deciding after the close of bar `first`."""
    return (
        Scheduled("flat", flat(bars)),
        Scheduled("buy and hold", buy_and_hold(bars, first, env)),
        Scheduled("equal weight", equal_weight(bars, first, env)),
        Scheduled("momentum", momentum(bars, first, env)),
        Scheduled("random", random(bars, env, seed)),
    )


def require_purchase(backtests: Backtests, name: str, bars: Bars, env: EnvSpec) -> None:
    """Refuse a run whose buy and hold bought nothing at all; where positions end with the session it holds nothing anyway.

    Raises:
        DataError: it did not; the message says why.
    """
    if env.flat_by_session_end or _bought(backtests, name).any():
        return
    decided = int(backtests.positions[0])
    slot = backtests.equity[backtests.row(name), 0] * env.gross_limit / bars.tradable[decided].sum()
    lots = np.nan_to_num(np.abs(bars.close[decided])) * [spec.lot * spec.multiplier for spec in bars.instruments]
    dearest = int(lots.argmax())
    why = "its orders came to less than one lot under env.max_participation or env.margin_calls, or no symbol had a bar to fill them in"
    if lots[dearest] > slot:
        why = f"one lot of {bars.symbols[dearest]} is worth {lots[dearest]:,.0f} and a slot holds {slot:,.0f}; raise env.initial_cash"
    raise DataError(f"{name} bought nothing on {bars.sessions[decided]}, so there is nothing to compare with: {why}")


def purchase_in_words(backtests: Backtests, name: str, bars: Bars) -> str:
    """Which symbols buy and hold could not buy, and why; empty where it bought them all."""
    bought, decided = _bought(backtests, name), int(backtests.positions[0])
    if bought.all():
        return ""
    late = bars.tradable.argmax(axis=0) > decided
    absent = ~(bars.tradable[decided] & bars.tradable[decided + 1])
    whys = (
        (late & ~bought, "listed later and {} never bought"),
        (absent & ~late & ~bought, "had no bar that day and {} never bought"),
        (~absent & ~late & ~bought, "came to less than one lot and {} never bought"),
    )
    named = [(np.array(bars.symbols)[which].tolist(), why) for which, why in whys if which.any()]
    missed = [f"{enumerate_names(names)} {why.format('was' if len(names) == 1 else 'were')}" for names, why in named]
    could = "it could buy" if whys[2][0].any() else "traded"
    return f"{name} held the {bought.sum()} of {bars.n_symbols} symbols that {could} on {bars.sessions[decided]}; {'; '.join(missed)}."


def _bought(backtests: Backtests, name: str) -> BoolArray:
    """Shape (n_symbols,): what an account that orders once was filled in."""
    return np.asarray(backtests.fill_units[backtests.row(name), 1] != 0)
