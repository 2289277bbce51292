"""The batched environment against its peers and against the machine; `make bench`.

256 accounts, 15 symbols x 30 features on half-hour bars, observation included, one thread, every rule of the kernel switched on:
shorts, margin calls, stop-loss, participation cap, half-spread, volatility slippage, impact, borrow fee, flat by the session's
end, and all four reward parts. Random actions, auto-reset.

Figures of one run belong together: the cases alternate and each ratio is taken within its round. Nothing here asserts a
time. Peers (`pip install -e .[bench]`) are other environments with fewer rules and smaller observations; a row says which.
"""

import json
import mmap
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
import pandas as pd
import psutil

from ploutos.envs.batch import MarketBatch
from ploutos.envs.market_arrays import MarketArrays, make_market_arrays
from ploutos.envs.spec import CostSpec, EnvSpec, RewardSpec
from ploutos.market.bars import align
from ploutos.market.instruments import FUTURES

ROUNDS = 11
N_ENVS, N_SYMBOLS, N_FEATURES, N_BARS = 256, 15, 30, 10_000
FIRST = 100
MEMORY_FOR_256_PEERS = 6 * 2**30

EVERYTHING = EnvSpec(
    initial_cash=10_000_000, gross_limit=2, allow_short=True, max_participation=0.1, stop_loss=0.03, margin_calls=True,
    flat_by_session_end=True, reward=RewardSpec(log_return=1, differential_sharpe=0.01, drawdown=0.1, turnover=0.001),
    costs=CostSpec(half_spread_bps=1, slippage_bps=1, slippage_per_volatility=0.05, impact=0.3, borrow_per_year=0.02),
)  # fmt: skip


def market(n_symbols: int) -> tuple[MarketArrays, np.ndarray]:
    """Random half-hour bars, one future among shares, two percent of them halted; random features."""
    random = np.random.default_rng(7)
    days = pd.bdate_range("2020-01-01", periods=-(-N_BARS // 13))
    clock = pd.DatetimeIndex([day + pd.Timedelta(minutes=570 + 30 * k) for day in days for k in range(13)][:N_BARS])
    clock = clock.tz_localize("America/New_York").tz_convert("UTC")
    names = [f"S{k:02d}" for k in range(n_symbols - 1)] + ["X_MES"]
    frames = []
    for name in names[-n_symbols:]:
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.004, N_BARS)))
        open_ = np.r_[close[0], close[:-1]] * np.exp(random.normal(0, 0.001, N_BARS))
        high, low = np.maximum(open_, close) * random.uniform(1, 1.003, N_BARS), np.minimum(open_, close) * random.uniform(0.997, 1, N_BARS)
        columns = {"open": open_, "high": high, "low": low, "close": close, "volume": random.integers(10**4, 10**6, N_BARS) * 1.0}
        keep = (random.random(N_BARS) > 0.02) | (n_symbols == 1)
        frames.append(pd.DataFrame({"symbol": name, "timestamp": clock, **columns})[keep])
    future = FUTURES["MES"].model_copy(update={"symbol": "X_MES", "margin": 50.0})
    bars = align(pd.concat(frames), pd.Timedelta(minutes=30), "NYSE", "random", [future] if n_symbols > 1 else [])
    rows = random.standard_normal((bars.n_bars, n_symbols * (N_FEATURES + 1)), dtype=np.float32)
    return make_market_arrays(bars), rows


def timed(steps: int, step: Callable[[int], Any]) -> float:
    """Account steps per second."""
    started = time.perf_counter()
    for k in range(steps):
        step(k)
    return steps * N_ENVS / (time.perf_counter() - started)


def batched(arrays: MarketArrays, rows: np.ndarray, steps: int, spec: EnvSpec = EVERYTHING) -> Callable[[], float]:
    from ploutos.envs.vector import MarketVecEnv

    env = MarketVecEnv(arrays, rows, spec, FIRST, arrays.n_bars - 1, N_ENVS, seed=0)
    actions = np.random.default_rng(0).integers(0, 3, (steps, N_ENVS, arrays.n_symbols))
    env.reset()
    return lambda: timed(steps, lambda k: env.step(actions[k]))


def gathers(rows: np.ndarray, steps: int) -> Callable[[], float]:
    """The floor under any batched environment: copying one row per account from random places."""
    at = np.random.default_rng(0).integers(0, len(rows), (steps, N_ENVS))
    out = np.empty((N_ENVS, rows.shape[1]), dtype=rows.dtype)
    return lambda: timed(steps, lambda k: np.take(rows, at[k], axis=0, out=out, mode="clip"))


def peers(steps: dict[str, int]) -> tuple[dict[str, Callable[[], float]], list[Any]]:
    """gym-trading-env and gym-anytrading on one random share of as many bars; what memory cannot hold is left out."""
    with warnings.catch_warnings():  # gym-trading-env turns every warning into an error when it is imported
        try:
            from gym_anytrading.envs import StocksEnv
            from gym_trading_env.environments import TradingEnv
        except ImportError as error:
            print(f"peers are not measured: {error}; pip install -e .[bench]")
            return {}, []
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    random = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.004, N_BARS)))
    frame = pd.DataFrame({"open": close, "high": close, "low": close, "close": close, "volume": 1.0})
    frame.index = pd.date_range("2020-01-01", periods=N_BARS, freq="30min")
    for k in range(N_FEATURES):
        frame[f"feature_{k}"] = random.normal(size=N_BARS)
    upper = frame[["open", "high", "low", "close", "volume"]].rename(columns=str.capitalize)

    def trading() -> Any:
        return TradingEnv(df=frame, positions=[-1, 0, 1], trading_fees=1e-4, borrow_interest_rate=1e-6, max_episode_duration=252, verbose=0)

    def anytrading() -> Any:
        return StocksEnv(df=upper, window_size=30, frame_bound=(30, N_BARS))

    builders = {
        "gym-trading-env, SubprocVecEnv of 256 (one share, 32 numbers)": lambda: SubprocVecEnv([trading] * N_ENVS, "fork"),
        "gym-trading-env, DummyVecEnv of 256 (one share, 32 numbers)": lambda: DummyVecEnv([trading] * N_ENVS),
        "gym-anytrading, DummyVecEnv of 256 (one share, 60 numbers)": lambda: DummyVecEnv([anytrading] * N_ENVS),
    }
    cases, opened = {}, []
    for (name, build), count, choices in zip(builders.items(), steps.values(), (3, 3, 2), strict=True):
        if psutil.virtual_memory().available < MEMORY_FOR_256_PEERS:
            print(f"{name} is not measured: less than {MEMORY_FOR_256_PEERS >> 30} GiB of memory are free")
            continue
        env = build()
        env.reset()
        opened.append(env)
        actions = random.integers(0, choices, (count, N_ENVS))
        cases[name] = lambda env=env, actions=actions, count=count: timed(count, lambda k: env.step(actions[k]))
    return cases, opened


def pss() -> int:
    """This process's share of memory, bytes."""
    return psutil.Process().memory_full_info().pss


def half(arrays: MarketArrays, rows: np.ndarray, seed: int) -> tuple[MarketBatch, np.ndarray]:
    batch = MarketBatch(arrays, rows, EVERYTHING, FIRST, arrays.n_bars - 1, N_ENVS // 2, seed)
    batch.reset()
    return batch, np.random.default_rng(seed).integers(0, 3, (100, N_ENVS // 2, arrays.n_symbols))


class TwoHalves:
    """Two processes of 128 accounts, observations in shared memory, one round trip per step: what sharding would be."""

    def __init__(self, arrays: MarketArrays, rows: np.ndarray) -> None:
        self.batch, self.actions = half(arrays, rows, 1)
        shape = self.batch.observe().shape
        self.shared = mmap.mmap(-1, 4 * int(np.prod(shape)))
        self.pipe, theirs = multiprocessing.get_context("fork").Pipe()
        self.worker = multiprocessing.get_context("fork").Process(target=self._work, args=(arrays, rows, theirs, shape), daemon=True)
        self.worker.start()
        self.pipe.recv_bytes()

    def _work(self, arrays: MarketArrays, rows: np.ndarray, pipe: Connection, shape: tuple[int, ...]) -> None:
        batch, actions = half(arrays, rows, 2)
        out = np.frombuffer(self.shared, dtype=np.float32).reshape(shape)
        pipe.send_bytes(b"1")
        k = 0
        while pipe.recv_bytes() == b"1":
            out[:] = batch.advance(actions[k % 100])[0]
            k += 1
            pipe.send_bytes(b"1")

    def step(self, k: int) -> None:
        self.pipe.send_bytes(b"1")
        self.batch.advance(self.actions[k % 100])
        self.pipe.recv_bytes()

    def close(self) -> None:
        self.pipe.send_bytes(b"0")
        self.worker.join()


def alone(folder: Path) -> None:
    """In a process of its own: start-up, memory, and the memory of worker processes; prints JSON."""
    with np.load(folder / "arrays.npz") as file:
        arrays = MarketArrays(**{name: file[name] for name in file.files})
    for array in vars(arrays).values():
        array.setflags(write=False)
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    before, started = pss(), time.perf_counter()
    batch = MarketBatch(arrays, rows, EVERYTHING, FIRST, arrays.n_bars - 1, N_ENVS, 0)
    built = time.perf_counter() - started
    batch.reset()
    reset = time.perf_counter() - started
    actions = np.random.default_rng(0).integers(0, 3, (N_ENVS, arrays.n_symbols))
    started = time.perf_counter()
    batch.advance(actions)
    first = time.perf_counter() - started
    started = time.perf_counter()
    again = MarketBatch(arrays, rows, EVERYTHING, FIRST, arrays.n_bars - 1, N_ENVS, 0)
    again.reset()
    warm = time.perf_counter() - started
    del again
    for _ in range(200):
        batch.advance(actions)
    extra = pss() - before - rows.nbytes  # the mapped file is the page cache's

    context = multiprocessing.get_context("fork")

    def work(pipe: Connection) -> None:
        own = MarketBatch(arrays, np.load(folder / "rows.npy", mmap_mode="r"), EVERYTHING, FIRST, arrays.n_bars - 1, N_ENVS, 1)
        own.reset()
        for _ in range(200):
            own.advance(actions)
        pipe.send(pss())
        pipe.recv()

    def together(n: int) -> int:
        """Memory of this process and n workers, bytes."""
        links = []
        for _ in range(n):
            ours, theirs = context.Pipe()
            worker = context.Process(target=work, args=(theirs,), daemon=True)
            worker.start()
            links.append((ours, worker))
        total = [ours.recv() for ours, _ in links]
        total = sum(psutil.Process(worker.pid).memory_full_info().pss for _, worker in links) + pss()
        for ours, worker in links:
            ours.send(None)
            worker.join()
        return total

    few, many = together(1), together(9)
    print(json.dumps({"built": built, "reset": reset, "warm": warm, "first": first, "extra": extra, "worker": (many - few) / 8}))


def start_up(arrays: MarketArrays, rows: np.ndarray) -> dict[str, float]:
    """Medians over fresh processes, the kernels in numba's disk cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", rows)
        np.savez(folder / "arrays.npz", **vars(arrays))
        command = [sys.executable, "-m", "benchmarks.environment", "--alone", name]
        runs = [json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(4)][1:]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def pool_times() -> list[tuple[str, float, float]]:
    """What lending costs against building: seconds to build and reset, seconds to acquire and release (which resets)."""
    from ploutos.envs.pool import EnvironmentStatePool
    from ploutos.envs.single import MarketEnv

    arrays, rows = market(1)
    kinds: list[tuple[str, Any, dict[str, Any]]] = [
        ("ploutos MarketEnv", MarketEnv, {"arrays": arrays, "rows": rows, "spec": EVERYTHING, "first_bar": FIRST, "last_bar": 5000}),
    ]
    try:
        from gym_trading_env.environments import TradingEnv
    except ImportError:
        pass
    else:
        frame = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume", "feature_0"), np.linspace(1, 2, N_BARS)))
        frame.index = pd.date_range("2020-01-01", periods=N_BARS, freq="30min")
        kinds.append(("gym-trading-env", TradingEnv, {"df": frame, "positions": [0, 1], "verbose": 0}))
    table = []
    for name, kind, settings in kinds:
        built, lent = [], []
        with EnvironmentStatePool(kind, settings) as pool:
            for _ in range(40):
                started = time.perf_counter()
                kind(**settings).reset()
                built.append(time.perf_counter() - started)
                started = time.perf_counter()
                with pool.lend():
                    pass
                lent.append(time.perf_counter() - started)
        table.append((name, statistics.median(built), statistics.median(lent)))
    return table


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    arrays, rows = market(N_SYMBOLS)
    one_tape, one_rows = market(1)
    start = start_up(arrays, rows)
    halves = TwoHalves(arrays, rows)
    ours, everything_off, one, limit = (
        "ploutos, 15 symbols, every rule on (497 numbers)", "ploutos, 15 symbols, default rules", "ploutos, one symbol, every rule on",
        "row gather (no environment at all)",
    )  # fmt: skip
    cases: dict[str, Callable[[], float]] = {
        ours: batched(arrays, rows, 300),
        everything_off: batched(arrays, rows, 300, EnvSpec()),
        one: batched(one_tape, one_rows, 1500),
        "ploutos, two processes of 128 (sharded)": lambda: timed(300, halves.step),
        limit: gathers(rows, 1500),
    }
    others, opened = peers({"subprocess": 8, "dummy": 40, "anytrading": 150})
    cases |= others
    for case in cases.values():
        case()
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            measured[name].append(case())

    def ratio(name: str) -> float | None:
        return statistics.median(a / b for a, b in zip(measured[ours], measured[name], strict=True)) if name in measured else None

    console = Console(width=130)
    table = Table(title=f"{N_ENVS} accounts, one thread, random actions; medians of {ROUNDS} rounds; load {os.getloadavg()[0]:.1f}")
    for heading in ("case", "account steps/s", "ploutos is ... x"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, rates in measured.items():
        table.add_row(name, f"{statistics.median(rates):,.0f}", f"{ratio(name):,.2f}")
    console.print(table)

    subprocess_env, dummy, anytrading = (next((n for n in others if key in n), "") for key in ("Subproc", "env, Dummy", "anytrading"))
    one_rate, gather_share = statistics.median(measured[one]) / 1e6, 100 * (ratio(limit) or 0)
    targets: list[tuple[str, float | None, str, float, bool]] = [
        ("steps against gym-trading-env, SubprocVecEnv", ratio(subprocess_env), "x", 200, True),
        ("steps against gym-trading-env, DummyVecEnv", ratio(dummy), "x", 35, True),
        ("steps against gym-anytrading, DummyVecEnv", ratio(anytrading), "x", 6, True),
        ("share of the row-gather limit", gather_share, "%", 20, True),
        ("one symbol", one_rate, "M steps/s", 8, True),
        ("construct and reset", start["warm"] * 1000, "ms", 50, False),
        (
            "the first in a process: construct, reset and step, kernels read from the disk cache",
            start["reset"] + start["first"],
            "s",
            1,
            False,
        ),
        ("extra PSS", start["extra"] / 2**20, "MiB", 80, False),
        ("PSS of each further worker process", start["worker"] / 2**20, "MiB", 30, False),
    ]
    table = Table(title="targets")
    for heading in ("what", "measured", "target", ""):
        table.add_column(heading, justify="left" if heading in ("what", "") else "right")
    for what, value, unit, target, at_least in targets:
        met = "not measured" if value is None else ("met" if (value >= target) == at_least else "NOT met")
        table.add_row(what, "-" if value is None else f"{value:,.1f} {unit}", f"{'>=' if at_least else '<='} {target} {unit}", met)
    console.print(table)

    table = Table(title="EnvironmentStatePool: ms per use")
    for heading in ("environment", "build and reset", "acquire and release (resets)"):
        table.add_column(heading, justify="left" if heading == "environment" else "right")
    for name, built, lent in pool_times():
        table.add_row(name, f"{built * 1e3:.3f}", f"{lent * 1e3:.3f}")
    console.print(table)
    halves.close()
    for env in opened:
        env.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(Path(sys.argv[2]))
    else:
        main()
