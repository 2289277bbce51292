"""1,000 paths of a year of hourly bars of 15 shares in one batch, against a loop over single environments.

`python -m benchmarks.robustness`: processor seconds of one thread. Both carry one account per path through the same decisions under the
same costs on the same bars: a random target of every symbol in every tenth bar. The loop steps one `MarketEnv` per path through as many
bars; it is timed on a few paths and scaled.
"""

import argparse
import time
from datetime import date

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np

from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.single import MarketEnv
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.paths import path_steps, run_paths
from ploutos.evaluation.replay import replay_accounts
from ploutos.evaluation.spec import RobustnessSpec
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.strategies.base import PrecomputedTargets
from ploutos.walk_forward import Range

SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "AMZN", "GOOG", "META", "NVDA", "TSLA", "JPM", "XOM", "JNJ", "PG", "KO")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=1000)
    parser.add_argument("--loop", type=int, default=5, help="paths of the loop that are timed")
    given = parser.parse_args()
    bars = load(DataSpec(source="synthetic", symbols=SYMBOLS, start=date(2024, 1, 2), end=date(2025, 1, 2), timeframe="1h"))
    env, spec, random = EnvSpec(initial_cash=100_000), RobustnessSpec(paths=given.paths), np.random.default_rng(1)
    table = np.full((bars.n_bars, 15), np.nan)
    table[::10] = random.dirichlet(np.ones(15), size=len(table[::10]))
    part = Segment(Range(start=1, stop=bars.n_bars))
    result = run_backtests(bars, None, [part], [PrecomputedTargets("own", table)], env)
    arrays = make_market_arrays(bars)
    was = replay_accounts(arrays, result, ["own"], env)
    batch = min(_batch(bars, arrays, result, was, env, spec) for _ in range(3))
    loop = _loop(bars, env, table, given.loop) / given.loop * spec.paths
    print(f"{spec.paths:,} paths x {bars.n_bars - 1:,} bars x 15 symbols: {batch:.2f} s in one batch, best of 3")
    print(f"one environment at a time: {loop:.0f} s, from {given.loop} paths; {loop / batch:.0f} times as long")


def _batch(bars, arrays, result, was, env, spec):
    """Seconds for all paths, drawn and run."""
    began = time.process_time()
    steps = path_steps(bars.sessions[1:], spec.paths, spec.block_sessions, np.random.default_rng(1))
    run_paths(arrays, 0, result.targets, was, env, steps, spec, 1)
    return time.process_time() - began


def _loop(bars, env, table, n_paths):
    """Seconds for some paths, one environment each, its actions made beforehand."""
    arrays, rows = make_market_arrays(bars), np.zeros((bars.n_bars, 1), dtype=np.float32)
    single = MarketEnv(arrays, rows, env.model_copy(update={"episode_bars": bars.n_bars}), 0, bars.n_bars - 1, actions="weights")
    actions = np.nan_to_num(table).astype(np.float32)
    single.reset(seed=1)
    single.step(actions[0])
    began = time.process_time()
    for _ in range(n_paths):
        single.reset(seed=1, options={"start": 0})
        for t in range(bars.n_bars - 1):
            single.step(actions[t])
    return time.process_time() - began


if __name__ == "__main__":
    main()
