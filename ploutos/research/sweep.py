"""Many sets of a rule's parameters over the same bars, an account each, by the kernel that moves every other account.

Sets come from a grid, a Latin hypercube, Sobol's sequence or Optuna's sampler, always on the grid of each parameter's steps and within the
rule's constraints. The best of a sweep is the best of many: `ploutos.evaluation.overfitting` says how much of that is luck.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import qmc

from ploutos.envs.market_arrays import MarketArrays, make_market_arrays
from ploutos.envs.order_run import OrderRun, run_orders
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import ConfigError, DataError
from ploutos.evaluation.metrics import Periods, session_closes, session_returns
from ploutos.extras import require_extra
from ploutos.market.bars import Bars
from ploutos.seeding import generator, seed_integer
from ploutos.strategies.rules import Rule, SymbolBars, Values, rule_env, rule_targets, symbol_bars
from ploutos.types import FloatArray, IntArray, TimeArray
from ploutos.walk_forward import Range
from ploutos.wording import enumerate_names

Sampler = Literal["grid", "random", "latin", "sobol"]
_CELLS = 2_000_000
"""Orders held in memory at once: what stays in a cache is run in half the time."""
_STILL = 1e-12


# --- sets of parameters


def grid_sets(rule: Rule, ranges: Mapping[str, Sequence[float]] | None = None, most: int | None = None) -> tuple[Values, ...]:
    """Every set of values on the grid that keeps the constraints, in the order of the parameters.

    Args:
        ranges: values of some parameters; all of their grid for the others.
        most: sets at most; each parameter's values are thinned out evenly, ends first, until the product fits.

    Raises:
        ConfigError: no set keeps the constraints.
    """
    axes = {name: sorted(set((ranges or {}).get(name, map(each.value, range(each.size))))) for name, each in rule.parameters.items()}
    while most is not None and math.prod(map(len, axes.values())) > most and max(map(len, axes.values())) > 1:
        longest = max(axes, key=lambda name: len(axes[name]))
        kept = np.linspace(0, len(axes[longest]) - 1, len(axes[longest]) - 1).round().astype(int)
        axes[longest] = [axes[longest][k] for k in dict.fromkeys(kept.tolist())]
    found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    kept_sets = tuple(values for values in found if not rule.broken(values))
    if not kept_sets:
        raise ConfigError(f"no set of these values satisfies the constraints of {rule.name}: {rule.broken(found[0])}")
    return kept_sets


def sample_sets(rule: Rule, sampler: Sampler, n: int, seed: int) -> tuple[Values, ...]:
    """Distinct sets of values that keep the constraints.

    Args:
        n: sets; fewer where the grid has no more.
        sampler: `grid` thins the full grid out; `random`, `latin` and `sobol` fill the space with points that are moved to the grid.
    """
    if sampler == "grid":
        return grid_sets(rule, most=n)
    found: dict[tuple[float, ...], Values] = {}
    for points in _points(sampler, len(rule.parameters), n, seed):
        for point in points:
            values = {
                name: each.value(min(int(u * each.size), each.size - 1))
                for u, (name, each) in zip(point, rule.parameters.items(), strict=True)
            }
            if not rule.broken(values):
                found.setdefault(tuple(values.values()), values)
            if len(found) == n:
                return tuple(found.values())
    return tuple(found.values())


def _points(sampler: Sampler, dimensions: int, n: int, seed: int, rounds: int = 50) -> Iterator[FloatArray]:
    """Points of the unit cube, a round at a time, for the sets that constraints and equal neighbours cost."""
    random = generator(seed, f"sweep {sampler}")
    if sampler == "sobol":
        sequence = qmc.Sobol(dimensions, rng=random)
        for _ in range(rounds):
            yield sequence.random(2 ** math.ceil(math.log2(max(n, 2))))
    for _ in range(rounds):
        yield qmc.LatinHypercube(dimensions, rng=random).random(n) if sampler == "latin" else random.random((n, dimensions))


def search_sets(rule: Rule, score: Callable[[Values], float], n: int, seed: int) -> list[tuple[Values, float]]:
    """Sets that Optuna's tree-structured Parzen estimator proposes, each after it was told how the ones before scored.

    Args:
        score: higher is better; nan is told as a failure.
        n: distinct sets; a proposal that is known, or breaks a constraint, is told so and costs nothing; there are 20 n of them at most.

    Raises:
        ConfigError: Optuna is not installed.
    """
    require_extra("optuna", "search", "a search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed_integer(seed, "sweep optuna")))
    known: dict[tuple[float, ...], float] = {}
    found: list[tuple[Values, float]] = []
    for _ in range(20 * n):
        trial = study.ask()
        values = {name: each.value(trial.suggest_int(name, 0, each.size - 1)) for name, each in rule.parameters.items()}
        key = tuple(values.values())
        if rule.broken(values):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        if key not in known:
            known[key] = score(values)
            found.append((values, known[key]))
        if math.isfinite(known[key]):
            study.tell(trial, known[key])
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if len(found) == n:
            break
    return found


# --- running them


@dataclass(frozen=True)
class Sweep:
    """What k sets of values came to on some bars.

    Attributes:
        sets: k sets.
        sessions: shape (n_sessions,), datetime64[D].
        returns: shape (k, n_sessions), net session returns.
        sharpe: shape (k,), annualised; nan for an account that never moved.
        total_return, max_drawdown, costs, turnover: shape (k,), decimal; drawdown over all closes, costs as a share of the initial cash,
            value traded over mean equity, per year.
        n_fills: shape (k,), orders and stops that were filled.
        ruined: shape (k,).
    """

    sets: tuple[Values, ...]
    sessions: TimeArray
    returns: FloatArray
    sharpe: FloatArray
    total_return: FloatArray
    max_drawdown: FloatArray
    costs: FloatArray
    turnover: FloatArray
    n_fills: IntArray
    ruined: np.ndarray

    def frame(self) -> pd.DataFrame:
        """One row per set: its values, then what it came to."""
        columns = ("sharpe", "total_return", "max_drawdown", "costs", "turnover", "n_fills", "ruined")
        return pd.DataFrame([dict(values) for values in self.sets]).assign(**{name: getattr(self, name) for name in columns})


class Sweeper:
    """Runs sets of values of one rule over ranges of one panel; what can be computed once is.

    Args:
        env: account and costs; a `stop_loss` among the values takes the place of its own.
    """

    def __init__(self, rule: Rule, bars: Bars, env: EnvSpec) -> None:
        self.rule, self.bars, self.env = rule, bars, env
        self._arrays: MarketArrays = make_market_arrays(bars)
        self._symbols: tuple[SymbolBars, ...] = symbol_bars(bars)

    def run(self, sets: Sequence[Values], part: Range) -> Sweep:
        """Every set over a range, from cash; the first decision is made after the close of the bar before it.

        Raises:
            ConfigError: a set is not one of the rule's, or the account cannot trade these bars.
            DataError: the range starts at the first bar.
        """
        if part.start < 1:
            raise DataError("the first bar of a sweep has no bar before it to decide on")
        first, env = part.start - 1, with_initial_cash(self.env, self.bars, part)
        kept = session_closes(self.bars.sessions[first : part.stop])[1:]
        runs, order = list[OrderRun](), list[int]()
        for which in self._chunks(sets, part):
            own = rule_env(env, sets[which[0]])
            orders = np.empty((part.n_bars, len(which), self.bars.n_symbols))
            for k, at in enumerate(which):
                orders[:, k] = rule_targets(self.rule, sets[at], self.bars, own, first, self._symbols)[first : part.stop - 1]
            runs.append(run_orders(self._arrays, own, first, orders, kept - 1))
            order += which
        back = np.argsort(order)
        columns = {field.name: np.concatenate([getattr(run, field.name) for run in runs])[back] for field in fields(OrderRun)}
        return _summarise(tuple(sets), OrderRun(**columns), self.bars.sessions[first + kept], self.bars.sessions_per_year)

    def _chunks(self, sets: Sequence[Values], part: Range) -> Iterator[list[int]]:
        """Positions of sets that run together: those with one stop, as many as fit."""
        most = max(_CELLS // (part.n_bars * self.bars.n_symbols), 1)
        by_stop: dict[float | None, list[int]] = {}
        for at, values in enumerate(sets):
            by_stop.setdefault(rule_env(self.env, values).stop_loss, []).append(at)
        for which in by_stop.values():
            for start in range(0, len(which), most):
                yield which[start : start + most]


def _summarise(sets: tuple[Values, ...], run: OrderRun, sessions: TimeArray, per_year: float) -> Sweep:
    returns = session_returns(run.equity, Periods(np.arange(run.equity.shape[1]), per_year))
    deviation = returns.std(axis=1, ddof=1) if len(sessions) > 1 else np.zeros(len(sets))
    moved = deviation > _STILL
    sharpe = np.where(moved, returns.mean(axis=1) / np.where(moved, deviation, 1.0) * math.sqrt(per_year), np.nan)
    start = run.equity[:, 0]
    return Sweep(
        sets=sets, sessions=sessions, returns=returns, sharpe=sharpe, total_return=run.equity[:, -1] / start - 1,
        max_drawdown=run.deepest, costs=run.costs / start, turnover=run.traded / run.equity.mean(axis=1) / (len(sessions) / per_year),
        n_fills=run.n_fills, ruined=run.ruined,
    )  # fmt: skip


def pareto_front(sweep: Sweep) -> tuple[int, ...]:
    """Positions of the sets that no other one beats in both Sharpe ratio and drawdown, the best Sharpe ratio first."""
    order = np.lexsort((-sweep.max_drawdown, -np.nan_to_num(sweep.sharpe, nan=-np.inf)))
    front, shallowest = list[int](), -math.inf
    for at in order.tolist():
        if math.isfinite(sweep.sharpe[at]) and sweep.max_drawdown[at] > shallowest:
            front.append(at)
            shallowest = float(sweep.max_drawdown[at])
    return tuple(front)


def heat_table(sweep: Sweep, x: str, y: str, column: str = "sharpe") -> pd.DataFrame:
    """Median of a column of `Sweep.frame` by two parameters, over the values of all others: rows are `y`, columns `x`.

    Raises:
        ConfigError: one of them is not a parameter of the rule.
    """
    frame = sweep.frame()
    for name in (x, y):
        if name not in sweep.sets[0]:
            raise ConfigError(f"{name} is not a parameter of this sweep; expected {enumerate_names(tuple(sweep.sets[0]))}")
    return frame.pivot_table(index=y, columns=x, values=column, aggfunc="median").sort_index(ascending=False)
