"""The advisor's 28 market features, for a whole history at once and for one bar at a time; `python -m benchmarks.features`.

The batch is 15 symbols by 50,000 half-hour bars. Its memory is the peak of what it allocates beside the bars and the answer,
by tracemalloc, in a pass of its own because tracing slows down. Online, a bar has just closed and the cache is asked: for a row
that is not in it, for one that another reader of the same bars left there, and for one that this reader has had before.

The replay is a live day after 5,000 bars: at every bar the bars arrive as a new object, a policy's account and a fused one
decide from all symbols, and every fifth bar an advisor is asked about each symbol: all through one cache, or each with none of
the others' rows. Nothing here asserts a time.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
import pandas as pd

from ploutos.advisor.advisor import prompt_at
from ploutos.advisor.config import LLMConfig
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.features.online import OnlineFeatures, OptimizedFeatureCache
from ploutos.market.bars import Bars, align

N_SYMBOLS, N_BARS, ROUNDS = 15, 50_000, 3
HISTORIES, READS = (1_000, 5_000, 50_000), 15
REPLAY_FROM, REPLAY_BARS, READERS = 5_000, 48, 2


def market(n_bars: int = N_BARS, n_symbols: int = N_SYMBOLS) -> Bars:
    """Random half-hour bars around the clock, one percent of them missing."""
    random = np.random.default_rng(7)
    clock = pd.date_range("2020-01-01", periods=n_bars, freq="30min", tz="UTC")
    frames = []
    for k in range(n_symbols):
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.002, n_bars)))
        open_ = np.r_[close[0], close[:-1]]
        high, low = np.maximum(open_, close) * random.uniform(1, 1.002, n_bars), np.minimum(open_, close) * random.uniform(0.998, 1, n_bars)
        columns = {"open": open_, "high": high, "low": low, "close": close, "volume": random.integers(10**4, 10**6, n_bars) * 1.0}
        frames.append(pd.DataFrame({"symbol": f"S{k:02d}", "timestamp": clock, **columns})[random.random(n_bars) > 0.01])
    return align(pd.concat(frames), pd.Timedelta(minutes=30), "24/7", "random")


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def batch(bars: Bars) -> tuple[float, float, float]:
    """Seconds, peak MiB beside the answer, MiB of the answer."""
    market_features(bars.head(1_000))
    took = statistics.median(seconds(lambda: market_features(bars)) for _ in range(ROUNDS))
    tracemalloc.start()
    size = market_features(bars).nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return took, (peak - size) / 2**20, size / 2**20


def online(bars: Bars) -> list[tuple[int, float, float, float]]:
    """Milliseconds for one symbol's row after each length of history: computed, found by content, found again."""
    table = []
    for n in HISTORIES:
        history, cache = bars.head(n), OptimizedFeatureCache()
        columns = [s for s in range(bars.n_symbols) if history.tradable[n - 1, s]][:READS]
        first, second = OnlineFeatures(cache), OnlineFeatures(cache)

        def each(reader: OnlineFeatures, history: Bars = history, columns: list[int] = columns, n: int = n) -> float:
            return 1000 * statistics.median(seconds(lambda s=s: reader.market(history, n - 1, s)) for s in columns)

        table.append((n, each(first), each(second), each(second)))
        assert cache.misses == cache.hits / 2 == len(columns)
    return table


def replay(bars: Bars, cached: bool) -> tuple[float, float]:
    """Milliseconds of a bar's features for all readers together, and the hit rate."""
    cache, took = OptimizedFeatureCache(), []
    features = OnlineFeatures(cache)
    for k in range(REPLAY_BARS):
        now = bars.head(REPLAY_FROM + k + 1)
        t = now.n_bars - 1

        def bar(now: Bars = now, t: int = t, k: int = k) -> None:
            def reader() -> OnlineFeatures:
                return features if cached else OnlineFeatures()

            for _ in range(READERS):
                one = reader()
                for s in range(now.n_symbols):
                    one.market(now, t, s)
            if k % LLMConfig().cadence_bars == 0:
                for s, symbol in enumerate(now.symbols):
                    if now.tradable[t, s]:
                        prompt_at(now, lambda u, c: reader().market(now, u, c), symbol, now.available_at[t])

        took.append(seconds(bar))
    return 1000 * statistics.mean(took), cache.hit_rate


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    console, bars = Console(width=110), market()
    took, extra, size = batch(bars)
    console.print(
        f"batch, {N_SYMBOLS} symbols x {N_BARS:,} bars x {len(MARKET_NAMES)}: {took:.2f} s, one thread, median of {ROUNDS}; "
        f"{extra:.0f} MiB at the peak beside an answer of {size:.0f} MiB; {took / N_SYMBOLS / N_BARS * 1e6:.2f} us a bar and symbol"
    )
    table = Table(title=f"online, one symbol's row, milliseconds; medians of {READS} symbols")
    for heading in ("bars of history", "computed", "found by its content", "found again in the same bars"):
        table.add_column(heading, justify="right")
    for n, computed, found, again in online(bars):
        table.add_row(f"{n:,}", f"{computed:.3f}", f"{found:.3f}", f"{again:.4f}")
    console.print(table)
    with_cache, hit_rate = replay(bars, cached=True)
    without, _ = replay(bars, cached=False)
    console.print(
        f"replay of {REPLAY_BARS} bars after {REPLAY_FROM:,}, {N_SYMBOLS} symbols, two accounts, an advisor every "
        f"{LLMConfig().cadence_bars} bars: {with_cache:.1f} ms a bar by one cache, {without:.1f} ms each alone; hit rate {hit_rate:.1%}"
    )


if __name__ == "__main__":
    main()
