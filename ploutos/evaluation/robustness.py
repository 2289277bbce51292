"""How an account stands changed worlds: dearer, later, crashed, gapped, wilder, with holes and noise, and in another order.

Two kinds of tests. Costs, delay and paths keep the decisions of the run: what was decided does not depend on what was paid, but for an
account's own state. Changed prices go through everything again: features, decisions, fills. Advice stays what it was; nobody is asked
again. Nothing is chosen by these tests, so none of them is a trial.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import RootModel

from ploutos.envs import kernel
from ploutos.envs.market_arrays import MarketArrays, decayed_volatility, make_market_arrays
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation import worlds
from ploutos.evaluation.backtest import Backtests, Segment, run_backtests
from ploutos.evaluation.metrics import Periods, drawdowns, periods_of, session_returns, sharpe_ratio
from ploutos.evaluation.paths import path_steps, run_paths
from ploutos.evaluation.replay import Replay, own_env, replay, replay_accounts
from ploutos.evaluation.spec import RobustnessSpec
from ploutos.evaluation.summary import Paths, Regime, Robustness, StressRow, StressTest
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.progress import part
from ploutos.seeding import generator, seed_integer
from ploutos.store import Kind, write_json
from ploutos.strategies.base import Strategy
from ploutos.strategies.baselines import BUY_AND_HOLD
from ploutos.types import FloatArray
from ploutos.walk_forward import Range


@dataclass(frozen=True)
class Lineup:
    """Strategies that run together on some bars, and what they read there."""

    features: FeatureSet | None
    strategies: Sequence[Strategy]
    segments: Sequence[Segment]


Decider = Callable[[Bars], Sequence[Lineup]]
"""What has the accounts that are tested and the benchmark's, made from bars as the run made it."""
_DEAREST, _HALVINGS = 64.0, 20
_WORLDS: Mapping[StressTest, worlds.World] = {
    StressTest.CRASH: worlds.crash,
    StressTest.GAPS: worlds.gaps,
    StressTest.WILD: worlds.spread_out(2.0),
    StressTest.CALM: worlds.spread_out(0.5),
    StressTest.MISSING_BARS: worlds.missing,
}
_REGIMES: tuple[Literal["calm", "usual", "wild"], ...] = ("calm", "usual", "wild")


def robustness(
    bars: Bars,
    backtests: Backtests,
    slugs: Sequence[str],
    env: EnvSpec,
    spec: RobustnessSpec,
    seed: int,
    *,
    decider: Decider | None = None,
    benchmark: str = BUY_AND_HOLD,
) -> tuple[Robustness, ...]:
    """Test some accounts of a backtest.

    Args:
        slugs: of the accounts; the benchmark stands beside each.
        env: what they ran under.
        decider: how to decide again on other bars; None leaves out what needs it.

    Raises:
        DataError: decisions were not kept, or do not give the path that was.
    """
    arrays, env = make_market_arrays(bars), own_env(backtests, env)
    again = _decided_again(bars, backtests, decider, [*slugs, benchmark], env, spec, seed) if decider else {}
    tested = []
    for slug in slugs:
        with part(f"paths of {slug}"):
            tested.append(_tested(bars, arrays, backtests, slug, benchmark, env, spec, seed, again))
    return tuple(tested)


_Again = dict[tuple[StressTest, int], dict[str, tuple[FloatArray, int, bool]]]
"""Equity, last close that counts and whether it was ruined, by slug, of every changed world."""


def _decided_again(
    bars: Bars, backtests: Backtests, decider: Decider, slugs: Sequence[str], env: EnvSpec, spec: RobustnessSpec, seed: int
) -> _Again:
    tested = Range(start=int(backtests.positions[0]) + 1, stop=int(backtests.positions[-1]) + 1)
    changed: list[tuple[StressTest, int, worlds.World]] = [(test, 0, world) for test, world in _WORLDS.items()]
    changed += [(StressTest.NOISE, draw, worlds.noise(spec.noise)) for draw in range(spec.perturbations)]
    found: _Again = {}
    for number, (test, draw, world) in enumerate(changed, 1):
        other = world(bars, tested, generator(seed, f"stress {test}", draw))
        with part(f"world {number} of {len(changed)}"):
            results = [run_backtests(other, each.features, each.segments, each.strategies, env, keep=()) for each in decider(other)]
        rows = {slug: (result, row) for result in results for row, slug in enumerate(result.slugs)}
        found[test, draw] = {slug: _ending(*rows[slug]) for slug in slugs}
    return found


def _ending(result: Backtests, row: int) -> tuple[FloatArray, int, bool]:
    return result.equity[row], int(result.last[row]), bool(result.ruined[row] >= 0)


def _tested(
    bars: Bars, arrays: MarketArrays, backtests: Backtests, slug: str, benchmark: str, env: EnvSpec, spec: RobustnessSpec, seed: int,
    again: _Again,
) -> Robustness:  # fmt: skip
    periods, first = periods_of(bars, backtests), int(backtests.positions[0])
    was = replay_accounts(arrays, backtests, [slug, benchmark], env)
    targets = backtests.targets[[backtests.row(slug), backtests.row(benchmark)]]
    later = np.full_like(targets, np.nan)
    later[:, 1:-1] = targets[:, :-2]

    def frozen(multiple: float, decided: FloatArray = targets) -> Replay:
        return replay(_dearer_terms(arrays, multiple), first, decided, _dearer(env, multiple), with_parts=False)

    kept = {
        StressTest.AS_RUN: was,
        StressTest.NO_COSTS: frozen(0.0),
        StressTest.DOUBLE_COSTS: frozen(2.0),
        StressTest.ONE_BAR_LATER: frozen(1.0, later),
    }
    rows = [_row(test, 0, False, r.equity[0], r.equity[1], bool(r.ruined[0]), periods) for test, r in kept.items()]
    rows += [_row(test, draw, True, paths[slug][0], paths[benchmark][0], paths[slug][2], periods) for (test, draw), paths in again.items()]
    own = session_returns(was.equity, periods)
    return Robustness(
        slug=slug,
        rows=tuple(rows),
        regimes=_regimes(bars, backtests, own, periods),
        paths=_paths(arrays, bars, backtests, targets, was, env, spec, seed) if spec.paths and not was.ruined.any() else None,
        break_even_costs=_break_even(lambda multiple: frozen(multiple).equity[0, -1] - env.cash),
        break_even_benchmark=_break_even(lambda multiple: float(np.subtract(*frozen(multiple).equity[:, -1]))),
        best_sessions=_best_sessions(own[0]),
        n_sessions=own.shape[1],
    )


def _row(
    test: StressTest, draw: int, decided_again: bool, equity: FloatArray, benchmark: FloatArray, ruined: bool, periods: Periods
) -> StressRow:
    return StressRow(
        test=test,
        draw=draw,
        decided_again=decided_again,
        total_return=float(equity[-1] / equity[0] - 1),
        sharpe=sharpe_ratio(session_returns(equity, periods), periods.per_year),
        max_drawdown=float(drawdowns(equity).min()),
        benchmark_return=float(benchmark[-1] / benchmark[0] - 1),
        ruined=bool(ruined),
    )


def _dearer(env: EnvSpec, multiple: float) -> EnvSpec:
    """The spec with all its costs multiplied."""
    costs = env.costs.model_copy(update={name: multiple * value for name, value in env.costs})
    return env.model_copy(update={"costs": costs})


def _dearer_terms(arrays: MarketArrays, multiple: float) -> MarketArrays:
    """The market with fees and ticks of its contracts multiplied."""
    terms = arrays.contract_terms.copy()
    terms[[kernel.FEE_PER_UNIT, kernel.SLIPPAGE_PRICE]] *= multiple
    return replace(arrays, contract_terms=terms)


def _break_even(left: Callable[[float], float]) -> float:
    """The multiple of costs at which nothing is left, by bisection; nan where that is already so without costs, or never."""
    low, high = 0.0, _DEAREST
    if left(low) <= 0 or left(high) > 0:
        return float("nan")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > 0 else (low, middle)
    return (low + high) / 2


def _best_sessions(returns: FloatArray) -> int | None:
    """Fewest of the best sessions without which nothing was earned."""
    logs = np.log(np.maximum(1 + returns, 1e-9))
    if logs.sum() <= 0:
        return None
    return int((np.cumsum(np.sort(logs)[::-1]) >= logs.sum()).argmax()) + 1


def _regimes(bars: Bars, backtests: Backtests, returns: FloatArray, periods: Periods) -> tuple[Regime, ...]:
    """Sessions in three parts, by what was known of the volatility before each."""
    before = backtests.positions[periods.ends[:-1]]
    volatility = decayed_volatility(bars)[before].mean(axis=1)
    order = np.argsort(volatility, kind="stable")
    found = []
    for name, rows in zip(_REGIMES, np.array_split(order, len(_REGIMES)), strict=True):
        own, other = returns[:, rows]
        found.append(
            Regime(
                name=name,
                n_sessions=len(rows),
                mean_return=_mean(own) * periods.per_year,
                sharpe=sharpe_ratio(own, periods.per_year),
                benchmark_mean_return=_mean(other) * periods.per_year,
            )
        )
    return tuple(found)


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _paths(
    arrays: MarketArrays, bars: Bars, backtests: Backtests, targets: FloatArray, was: Replay, env: EnvSpec, spec: RobustnessSpec, seed: int
) -> Paths:
    sessions = bars.sessions[backtests.positions[1:]]
    steps = path_steps(sessions, spec.paths, spec.block_sessions, generator(seed, "paths"))
    orders = seed_integer(seed, "path orders")
    equity, ruined = run_paths(arrays, int(backtests.positions[0]), targets, was, env, steps, spec, orders)
    own, other = equity[:, 0, -1] - 1, equity[:, 1, -1] - 1
    deepest = drawdowns(equity[:, 0]).min(axis=1)
    low, median, high = np.quantile(own, (0.05, 0.5, 0.95)).tolist()
    return Paths(
        n=len(own),
        losses=float((own < 0).mean()),
        behind=float((own < other).mean()),
        return_low=low,
        return_median=median,
        return_high=high,
        drawdown_median=float(np.median(deepest)),
        drawdown_bad=float(np.quantile(deepest, 0.05)),
        ruined=float(ruined[:, 0].mean()),
    )


class _Tested(RootModel[tuple[Robustness, ...]]):
    """What a file holds."""


def write_robustness(found: Sequence[Robustness], path: Path) -> None:
    """Write it as JSON."""
    write_json(path, _Tested(tuple(found)).model_dump(mode="json"))


def read_robustness(path: Path) -> tuple[Robustness, ...]:
    """Read what `write_robustness` wrote."""
    return _Tested.model_validate_json(path.read_bytes()).root


ROBUSTNESS = Kind("robustness", ".json", write_robustness, read_robustness)
