"""A check of any strategy against the contract, as Gymnasium's `check_env` checks an environment."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from ploutos.envs import ledger
from ploutos.envs.observation import read_only
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import DataError, PloutosError, StrategyError
from ploutos.features.build import FeatureSet
from ploutos.market.bars import FIELDS, Bars
from ploutos.seeding import generator
from ploutos.strategies.base import DecisionContext, PrecomputedTargets, Strategy, require_unique
from ploutos.strategies.inference import PolicyInference
from ploutos.training.checkpoint import Policy
from ploutos.types import BoolArray, FloatArray, IntArray
from ploutos.walk_forward import Range

_SLACK, _FEWEST_BARS = 1e-9, 3
_GAP, _BODY, _WICK, _DRIFT = 0.08, 0.12, 0.05, 5.0
"""Of a path in place of the future, in logs: from a close to the next open, from there to the close, beyond both, and in all."""
_NOISE, _BUSY, _STILL = 0.02, 8.0, 1e-6
_COMPUTED = tuple(name for name, value in vars(Bars).items() if isinstance(value, cached_property))
_RANDOM = "expected the same answer to the same bars: it is random, or keeps something from one run to the next"
_LOST = "expected the same answer from a copy: it is random, or pickling loses what it keeps"
_PEEKS = "expected the same answer for the same past: the strategy reads later bars, or is random"
_OWN_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, PloutosError, RuntimeError, TypeError, ValueError)
Build = Callable[[Bars], tuple[Strategy, FeatureSet | None]]


def check_strategy(
    build: Build, bars: Bars, part: Range, env: EnvSpec | None = None, policies: Sequence[Policy] = (), n_cuts: int = 8, seed: int = 0
) -> None:
    """Refuse a strategy that peeks, forgets, goes beyond its limits, changes what it is handed or cannot travel.

    It is built anew on bars whose future, after some random bars, is cut off, put in another order, replaced by a path on which each
    symbol rises or falls, then by one on which it does the opposite, by one on which nothing moves, or lacks some symbols; and runs its own
    accounts over each. Every answer up to those bars must be what it was. Timestamps stay: a calendar is known ahead.

    Args:
        build: makes the strategy, and the features that its policies observe, from bars: all that it knows of them.
        part: bars to decide before, three at least; the first decision is made after the close of bar `part.start` - 1.
        env: account and limits.
        policies: asked for predictions; none for a strategy without.
        n_cuts: random bars at which the future is changed, beside the first and the last. A strategy that peeks on few bars alone needs
            many.

    Raises:
        StrategyError: what it did, and at which bar and symbol; two of its accounts share a slug; or `build` gives one object twice.
        DataError: `part` has fewer than three bars, or none before it.
    """
    if not 0 < part.start <= part.stop - _FEWEST_BARS or part.stop > bars.n_bars:
        raise DataError(
            f"found bars {part.start} to {part.stop} of {bars.n_bars} to decide before; expected {_FEWEST_BARS} at least, and one before"
        )
    bars = _with_fields(bars, {name: array.copy() for name, array in _given(bars).items()})  # what a strategy does to them stays here
    as_handed = {name: array.copy() for name, array in _readable(bars).items()}
    env = with_initial_cash(env or EnvSpec(), bars, part)
    strategy, features = build(bars)
    require_unique(strategy.ids)
    whole = _answers(strategy, features, bars, part, env, policies)
    for name, array in _readable(bars).items():
        if array.tobytes() != as_handed[name].tobytes():
            raise StrategyError(f"{_name(strategy)} changed bars.{name}, which others read; expected an answer alone: work on a copy")
    _require_limits(strategy, whole, bars, part, env)
    again, other = build(bars)
    if again is strategy:
        raise StrategyError(f"build gave the same {_name(strategy)} twice; expected one that it makes anew of the bars it is handed")
    _require_same(strategy, whole, _answers(again, other, bars, part, env, policies), bars, part, "the same bars", _RANDOM)
    try:
        travelled: Any = pickle.loads(pickle.dumps(strategy))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise StrategyError(f"{_name(strategy)} cannot be pickled: {error}; keep plain values and arrays in it") from error
    _require_same(strategy, whole, _answers(travelled, features, bars, part, env, policies), bars, part, "its own copy", _LOST)
    random = generator(seed, "check strategy")
    between = np.arange(part.start + 1, part.stop - 1)
    for cut in [part.start, part.stop - 1, *random.choice(between, size=min(n_cuts, len(between)), replace=False).tolist()]:
        for what, changed in _other_futures(bars, cut, random):
            known = f"bars whose future after {_when(bars, cut - 1)} was {what}"
            try:
                found = _answers(*build(changed), changed, Range(start=part.start, stop=cut + 1), env, policies)
            except _OWN_ERRORS as error:  # of the strategy, which ran on the bars as they are
                raise StrategyError(f"{_name(strategy)} fails on {known}: {type(error).__name__}: {error}") from error
            _require_same(strategy, whole, found, bars, part, known, _PEEKS)


def _other_futures(bars: Bars, cut: int, random: np.random.Generator) -> list[tuple[str, Bars]]:
    """The bars with all from bar `cut` on cut off, put in another order, replaced by one of three paths, or without some symbols."""
    order = np.r_[np.arange(cut), cut + random.permutation(bars.n_bars - cut)]
    permuted = _with_fields(bars, {name: getattr(bars, name)[order] for name in FIELDS})
    direction = random.choice((-1.0, 1.0), bars.n_symbols)
    replaced = [("replaced", _replaced(bars, cut, up, random)) for up in (direction, -direction)]
    still = _last_known(bars, cut)
    little = _STILL * np.maximum(np.abs(still), _STILL)
    at_rest = {"open": still, "high": still + little, "low": still - little, "close": still, "volume": bars.volume[cut:]}
    replaced.append(("brought to rest", _with_path(bars, cut, at_rest)))
    gone = direction > 0 if bars.n_symbols > 1 else np.ones(1, dtype=np.bool_)
    lacking = [("without some symbols", _without(bars, cut, each)) for each in (gone, ~gone) if each.any()]
    return [("cut off", bars.head(cut)), ("put in another order", permuted), *replaced, *lacking]


def _replaced(bars: Bars, cut: int, direction: FloatArray, random: np.random.Generator) -> Bars:
    """The bars with a path from bar `cut` on: every open and close beyond the ones before, at first, in a symbol's direction."""
    n, known = bars.n_bars - cut, np.abs(_last_known(bars, cut))
    first = np.where(known > 0, known, 1.0)  # a spread may stand at 0, or below
    level = np.cumsum(direction * _DRIFT / n + random.normal(0, _NOISE, (n, bars.n_symbols)), axis=0)
    level[0] = 0.0
    opens = first * np.exp(level + direction * _GAP)
    closes = opens * np.exp(direction * _BODY)
    wick = np.exp(_WICK * (1 + random.random((n, bars.n_symbols))))
    path = {"open": opens, "close": closes, "high": np.maximum(opens, closes) * wick, "low": np.minimum(opens, closes) / wick}
    return _with_path(bars, cut, path | {"volume": bars.volume[cut:] * _BUSY**direction})


def _last_known(bars: Bars, cut: int) -> FloatArray:
    """Shape (n_symbols,): the last close before bar `cut`, or the very last of a symbol that is listed later."""
    known = bars.mark[cut - 1]
    return np.where(np.isfinite(known), known, np.nan_to_num(bars.mark[-1], nan=1.0))


def _with_path(bars: Bars, cut: int, path: dict[str, Any]) -> Bars:
    """The bars with these fields from bar `cut` on, where a symbol has a bar."""
    later = {name: np.where(bars.tradable[cut:], path[name], np.nan) for name in FIELDS}
    return _with_fields(bars, {name: np.concatenate([getattr(bars, name)[:cut], later[name]]) for name in FIELDS})


def _without(bars: Bars, cut: int, symbols: BoolArray) -> Bars:
    """The bars where some symbols have none from bar `cut` on."""
    own = {name: getattr(bars, name).copy() for name in FIELDS}
    for array in own.values():
        array[cut:, symbols] = np.nan
    return replace(_with_fields(bars, own), payouts=())


def _with_fields(bars: Bars, fields: dict[str, Any]) -> Bars:
    return replace(bars, **fields)


def _answers(
    strategy: Strategy, features: FeatureSet | None, bars: Bars, part: Range, env: EnvSpec, policies: Sequence[Policy]
) -> FloatArray:
    """Target weights after each bar, shape (n_decisions, n_accounts, n_symbols), its accounts moved as it says."""
    if type(strategy) is PrecomputedTargets and len(strategy.table) != bars.n_bars:
        raise StrategyError(f"{_name(strategy)} has a table of {len(strategy.table)} rows for {bars.n_bars} bars; expected one for each")
    arrays = ledger.make_market_arrays(bars)
    n = len(strategy.ids)
    stepper = ledger.Stepper(ledger.Accounts.open(n, bars.n_symbols, env.cash), arrays, env)
    own = stepper.accounts.rows(slice(None))
    inference, held, rows = PolicyInference(policies, bars, features, part, arrays, env), read_only(np.zeros((n, bars.n_symbols))), []
    for decided in range(part.start - 1, part.stop - 1):
        bar = np.full(n, decided, dtype=np.int64)
        predictions = inference.predict(stepper.accounts, bar)[:, : n if strategy.asks_policies else 0]
        answer = np.array(strategy.targets(DecisionContext(decided, 0, own, held, predictions)), dtype=np.float64)
        if answer.shape != held.shape:
            raise StrategyError(f"{_name(strategy)} answers with shape {answer.shape}; expected {held.shape}: accounts by symbols")
        rows.append(answer)
        if decided + 1 < bars.n_bars:
            stepper.step(bar, rows[-1])
            held = stepper.held(decided + 1)
    return np.stack(rows)


def _given(bars: Bars) -> dict[str, np.ndarray]:
    """The arrays that bars are made of."""
    return {field.name: value for field in fields(bars) if isinstance(value := getattr(bars, field.name), np.ndarray)}


def _readable(bars: Bars) -> dict[str, np.ndarray]:
    """All arrays of bars, what is computed of them included."""
    return _given(bars) | {name: value for name in _COMPUTED if isinstance(value := getattr(bars, name), np.ndarray)}


def _require_limits(strategy: Strategy, answers: FloatArray, bars: Bars, part: Range, env: EnvSpec) -> None:
    if len(wrong := np.argwhere(np.isinf(answers))):
        raise StrategyError(
            f"{_name(strategy, wrong[0])} returns an infinite weight {_where(wrong[0], bars, part)}; expected a number, or nan for no order"
        )
    live = bars.tradable[part.start - 1 : part.stop - 1, None]  # an order for a symbol without a bar lapses
    asked = np.where(live & np.isfinite(answers), np.abs(answers), 0.0)
    if len(wrong := np.argwhere(asked.sum(axis=2) > env.gross_limit + _SLACK)):
        most = asked[tuple(wrong[0])]
        raise StrategyError(
            f"{_name(strategy, wrong[0])} targets {most.sum():.3g} times its equity, the largest part "
            f"{_where([*wrong[0], most.argmax()], bars, part)}; expected {env.gross_limit:g} at most"
        )
    if not env.allow_short and len(wrong := np.argwhere(answers < 0)):
        raise StrategyError(
            f"{_name(strategy, wrong[0])} targets a short position {_where(wrong[0], bars, part)}; "
            "expected none, since env.allow_short is off"
        )


def _require_same(strategy: Strategy, whole: FloatArray, again: FloatArray, bars: Bars, part: Range, what: str, expected: str) -> None:
    known = whole[: len(again)]
    if len(changed := np.argwhere(~((known == again) | (np.isnan(known) & np.isnan(again))))):
        at = changed[0]
        raise StrategyError(
            f"the answer of {_name(strategy, at)} changed {_where(at, bars, part)} on {what}: {known[tuple(at)]:.6g} became "
            f"{again[tuple(at)]:.6g}; {expected}"
        )


def _where(at: Sequence[int] | IntArray, bars: Bars, part: Range) -> str:
    """Of a decision, an account and a symbol."""
    return f"after bar {_when(bars, part.start - 1 + int(at[0]))} in column {bars.symbols[at[2]]}"


def _when(bars: Bars, bar: int) -> str:
    return f"{bar} ({bars.timestamps[bar].astype('datetime64[m]')}Z)"


def _name(strategy: Strategy, at: IntArray | None = None) -> str:
    """The account of a decision; without one, the first."""
    return strategy.ids[0 if at is None else at[1]].slug if strategy.ids else type(strategy).__name__
