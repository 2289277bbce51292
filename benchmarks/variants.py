"""Memory of 1,000 accounts with tables of targets of their own, whose equity alone is kept; `python -m benchmarks.variants`.

The bars are random walks of seed 1, and the tables are pieces of one array: what is measured is the backtest and not its inputs.
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.market.bars import Bars, align
from ploutos.strategies.base import PrecomputedTargets
from ploutos.walk_forward import Range

SEED, VARIANTS, SYMBOLS = 1, 1_000, 15


def walks(random: np.random.Generator, n_bars: int) -> Bars:
    """Hours of shares that trade around the clock."""
    stamps, frames = pd.date_range("2000-01-03", periods=n_bars, freq="1h", tz="UTC"), []
    for k in range(SYMBOLS):
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.002, n_bars)))
        prices = dict.fromkeys(("open", "high", "low", "close"), close)
        frames.append(pd.DataFrame({"symbol": f"S{k:02d}", "timestamp": stamps, **prices, "volume": 1e6}))
    return align(pd.concat(frames), pd.Timedelta(hours=1), "24/7", "random walks")


def peak() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=50_000)
    n_bars = parser.parse_args().bars
    random, imported = np.random.default_rng(SEED), peak()
    bars = walks(random, n_bars)
    targets = random.random((n_bars + VARIANTS, SYMBOLS)) / SYMBOLS
    strategies = [PrecomputedTargets(f"variant-{k}", targets[k : k + n_bars]) for k in range(VARIANTS)]
    made, started = peak(), time.process_time()
    result = run_backtests(bars, None, [Segment(Range(start=1, stop=n_bars))], strategies, EnvSpec(), keep=())
    print(
        f"{VARIANTS:,} accounts x {n_bars:,} bars x {SYMBOLS} symbols, {result.equity.nbytes / 2**20:.0f} MiB of equity: the process held "
        f"{peak():,.0f} MiB at most, {imported:,.0f} when all was imported, {made:,.0f} when bars and tables were made; "
        f"{time.process_time() - started:.0f} s of processor time"
    )


if __name__ == "__main__":
    main()
