"""A check of any strategy against the contract, as Gymnasium's `check_env` checks an environment."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ploutos.envs import ledger
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import StrategyError
from ploutos.features.build import FeatureSet
from ploutos.market.bars import FIELDS, Bars
from ploutos.seeding import generator
from ploutos.strategies.base import DecisionContext, Strategy
from ploutos.strategies.inference import PolicyInference
from ploutos.training.checkpoint import Policy
from ploutos.types import FloatArray
from ploutos.walk_forward import Range

_SLACK = 1e-9
Build = Callable[[Bars], tuple[Strategy, FeatureSet | None]]


def check_strategy(
    build: Build, bars: Bars, part: Range, env: EnvSpec | None = None, policies: Sequence[Policy] = (), n_cuts: int = 3, seed: int = 0
) -> None:
    """Refuse a strategy that peeks, forgets, goes beyond its limits or cannot travel.

    It is built anew on bars whose future, after some random bars, is cut off, put in another order or replaced by a random walk, and runs
    its own accounts over each. Every answer up to those bars must be what it was.

    Args:
        build: makes the strategy, and the features that its policies observe, from bars: all that it knows of them.
        part: bars to decide before; the first decision is made after the close of bar `part.start` - 1.
        env: account and limits.
        policies: asked for predictions; none for a strategy without.
        n_cuts: random bars at which the future is changed.

    Raises:
        StrategyError: what it did, and at which bar and symbol.
    """
    env = with_initial_cash(env or EnvSpec(), bars, part)
    strategy, features = build(bars)
    whole = _answers(strategy, features, bars, part, env, policies)
    _require_limits(strategy, whole, bars, part, env)
    _require_same(whole, _answers(*build(bars), bars, part, env, policies), bars, part, "the same bars")
    try:
        travelled: Any = pickle.loads(pickle.dumps(strategy))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise StrategyError(f"{_name(strategy)} cannot be pickled: {error}; keep plain values and arrays in it") from error
    _require_same(whole, _answers(travelled, features, bars, part, env, policies), bars, part, "its own copy")
    random = generator(seed, "check strategy")
    for cut in random.integers(part.start + 1, part.stop - 1, size=n_cuts).tolist():
        for what, other in _other_futures(bars, cut, random):
            stop = min(part.stop, other.n_bars)
            again = _answers(*build(other), other, Range(start=part.start, stop=min(cut + 1, stop)), env, policies)
            _require_same(whole, again, bars, part, f"bars whose future after {_when(bars, cut - 1)} was {what}")


def _other_futures(bars: Bars, cut: int, random: np.random.Generator) -> list[tuple[str, Bars]]:
    """The bars with everything from bar `cut` on cut off, in another order, or replaced by a random walk."""
    order = np.r_[np.arange(cut), cut + random.permutation(bars.n_bars - cut)]
    permuted = {name: getattr(bars, name)[order] for name in FIELDS}
    factor = np.ones((bars.n_bars, bars.n_symbols))
    factor[cut:] = np.exp(np.cumsum(random.normal(0, 0.05, (bars.n_bars - cut, bars.n_symbols)), axis=0))
    replaced = {name: getattr(bars, name) * factor for name in FIELDS}
    return [("cut off", bars.head(cut + 1)), ("put in another order", replace(bars, **permuted)), ("replaced", replace(bars, **replaced))]


def _answers(
    strategy: Strategy, features: FeatureSet | None, bars: Bars, part: Range, env: EnvSpec, policies: Sequence[Policy]
) -> FloatArray:
    """Target weights after each bar, shape (n_decisions, n_accounts, n_symbols), its accounts moved as it says."""
    arrays = ledger.make_market_arrays(bars)
    n = len(strategy.names)
    stepper = ledger.Stepper(ledger.Accounts.open(n, bars.n_symbols, env.cash), arrays, env)
    inference, held, rows = PolicyInference(policies, bars, features, part, arrays, env), np.zeros((n, bars.n_symbols)), []
    for decided in range(part.start - 1, part.stop - 1):
        bar = np.full(n, decided, dtype=np.int64)
        predictions = inference.predict(stepper.accounts, bar)
        answer = np.array(strategy.targets(DecisionContext(decided, 0, stepper.accounts, held, predictions)), dtype=np.float64)
        if answer.shape != held.shape:
            raise StrategyError(f"{_name(strategy)} answers with shape {answer.shape}; expected {held.shape}: accounts by symbols")
        rows.append(answer)
        stepper.step(bar, rows[-1])
        held = stepper.held(decided + 1)
    return np.stack(rows)


def _require_limits(strategy: Strategy, answers: FloatArray, bars: Bars, part: Range, env: EnvSpec) -> None:
    if len(wrong := np.argwhere(np.isinf(answers))):
        raise StrategyError(
            f"{_name(strategy)} asks for an infinite weight {_where(wrong[0], bars, part)}; expected a number, or nan for no order"
        )
    live = bars.tradable[part.start - 1 : part.stop - 1, None]  # an order for a symbol without a bar lapses
    gross = np.nansum(np.where(live, np.abs(answers), 0.0), axis=2)
    if len(wrong := np.argwhere(gross > env.gross_limit + _SLACK)):
        asked = gross[tuple(wrong[0])]
        raise StrategyError(
            f"{_name(strategy)} asks for {asked:.3g} times its equity {_where(wrong[0], bars, part)}; expected {env.gross_limit:g} at most"
        )
    if not env.allow_short and len(wrong := np.argwhere(answers < 0)):
        raise StrategyError(
            f"{_name(strategy)} asks for a short {_where(wrong[0], bars, part)}; expected none, since env.allow_short is off"
        )


def _require_same(whole: FloatArray, again: FloatArray, bars: Bars, part: Range, what: str) -> None:
    known = whole[: len(again)]
    if len(changed := np.argwhere(~((known == again) | (np.isnan(known) & np.isnan(again))))):
        at = changed[0]
        raise StrategyError(
            f"the answer changed {_where(at, bars, part)} on {what}: {known[tuple(at)]:.6g} became {again[tuple(at)]:.6g}; "
            "expected the same answer for the same past: something in it knows later bars, or draws at random"
        )


def _where(at: np.ndarray, bars: Bars, part: Range) -> str:
    symbol = f" in column {bars.symbols[at[2]]}" if len(at) > 2 else ""
    return f"after bar {_when(bars, part.start - 1 + int(at[0]))}{symbol}"


def _when(bars: Bars, bar: int) -> str:
    return f"{bar} ({bars.timestamps[bar].astype('datetime64[m]')}Z)"


def _name(strategy: Strategy) -> str:
    return strategy.names[0] if strategy.names else type(strategy).__name__
