"""Batched environment against the same environment one account at a time, on the sample bars; `make bench`.

Figures of one run belong together: the cases alternate and each ratio is taken within its round. Nothing here asserts a
time. Memory is this process's peak.
"""

import resource
import statistics
import time
from collections.abc import Callable

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from ploutos.envs.ledger import make_tape
from ploutos.envs.observation import market_rows
from ploutos.envs.single import MarketEnv
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.scaling import fit_scaler
from ploutos.market.sources import DataSpec, load

ROUNDS = 5


def steps_per_second(env: VecEnv, steps: int) -> float:
    """Random actions, auto-reset, observation included."""
    actions = np.random.default_rng(0).integers(0, 3, (steps, env.num_envs, env.action_space.shape[0]))
    env.reset()
    started = time.perf_counter()
    for action in actions:
        env.step(action)
    return steps * env.num_envs / (time.perf_counter() - started)


def row_gathers_per_second(rows: np.ndarray, n: int) -> float:
    """The floor under any batched environment: copying one row per account from random places."""
    at = np.random.default_rng(0).integers(0, len(rows), (200, n))
    out = np.empty((n, rows.shape[1]), dtype=rows.dtype)
    started = time.perf_counter()
    for index in at:
        np.take(rows, index, axis=0, out=out, mode="clip")
    return at.size / (time.perf_counter() - started)


def main() -> None:
    bars = load(DataSpec())
    started = time.perf_counter()
    features = build_features(bars, FeatureSpec())
    per_value = (time.perf_counter() - started) / np.isfinite(features.values).sum() * 1e9
    rows = market_rows(features, bars.tradable, fit_scaler(features.values[100:1300]))
    tape, spec, last = make_tape(bars), EnvSpec(), bars.n_bars - 1
    single = DummyVecEnv([lambda: MarketEnv(tape, rows, spec, 100, last) for _ in range(8)])
    cases: dict[str, Callable[[], float]] = {
        "one account at a time (DummyVecEnv of 8)": lambda: steps_per_second(single, 200),
        "batched, 32 accounts": lambda: steps_per_second(MarketVecEnv(tape, rows, spec, 100, last, 32, 0), 2000),
        "batched, 256 accounts": lambda: steps_per_second(MarketVecEnv(tape, rows, spec, 100, last, 256, 0), 1000),
        "row gather, 256 (no environment at all)": lambda: row_gathers_per_second(rows, 256),
    }
    for case in cases.values():
        case()
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            measured[name].append(case())
    base = measured["one account at a time (DummyVecEnv of 8)"]
    table = Table(title=f"{bars.n_symbols} symbols x {len(features.names)} features, one thread, median of {ROUNDS} rounds")
    for heading in ("case", "steps/s", "ratio"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, rates in measured.items():
        ratio = statistics.median(rate / slow for rate, slow in zip(rates, base, strict=True))
        table.add_row(name, f"{statistics.median(rates):,.0f}", f"{ratio:,.1f}")
    console = Console(width=100)
    console.print(table)
    console.print(
        f"features: {per_value:.0f} ns per value; peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
