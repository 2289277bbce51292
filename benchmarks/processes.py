"""Two ensemble members on two cores: two processes of one thread against one process of two threads; `make bench`.

Both sides train the same members with the same sizes through the same worker pool; only the threads differ. Rounds
alternate, and each ratio is taken within its round. The second table is the price of watching: what one reading of the
hardware monitor takes while two trainings run. Nothing here asserts a time.
"""

import os
import statistics
import time
from functools import cache
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import psutil
from rich.console import Console
from rich.table import Table

from ploutos.training.pool import WorkerPool

ROUNDS, ROLLOUTS = 5, 2
N_ENVS, N_STEPS, BATCH = 256, 64, 4096


@cache
def environment() -> tuple[Any, ...]:
    """The sample's arrays and rows; once in each worker."""
    from ploutos.envs.ledger import make_market_arrays
    from ploutos.envs.observation import market_rows
    from ploutos.features.build import FeatureSpec, build_features
    from ploutos.features.scaling import fit_scaler
    from ploutos.market.data_spec import DataSpec
    from ploutos.market.loader import load

    bars = load(DataSpec())
    features = build_features(bars, FeatureSpec())
    return make_market_arrays(bars), market_rows(features, bars.tradable, fit_scaler(features.values[100:1300])), bars.n_bars - 1


def train(seed: int, threads: int) -> tuple[int, float]:
    """One member on the sample; steps trained, and cores kept busy meanwhile. Called in a worker."""
    import torch

    from ploutos.envs.spec import EnvSpec
    from ploutos.envs.vector import MarketVecEnv
    from ploutos.training.ppo import build_model
    from ploutos.training.spec import TrainingSpec

    torch.set_num_threads(threads)
    arrays, rows, last = environment()
    env = MarketVecEnv(arrays, rows, EnvSpec(), 100, last, N_ENVS, seed)
    spec = TrainingSpec(n_envs=N_ENVS, n_steps=N_STEPS, batch_size=BATCH)
    model = build_model(env, spec, seed, "cpu")
    wall, cpu = time.perf_counter(), time.process_time()
    model.learn(ROLLOUTS * N_ENVS * N_STEPS)
    return model.num_timesteps, (time.process_time() - cpu) / (time.perf_counter() - wall)


def samples_per_second(pool: WorkerPool, threads: int) -> tuple[float, float]:
    """Two members through a pool; samples per second together, and cores that one training kept busy."""
    started = time.perf_counter()
    futures = [pool.submit(train, seed, threads) for seed in (1, 2)]
    answers = [pool.result(future, lambda: None) for future in futures]
    return sum(steps for steps, _ in answers) / (time.perf_counter() - started), statistics.mean(busy for _, busy in answers)


def cost_of_a_reading(pool: WorkerPool) -> tuple[float, int, int]:
    """Milliseconds of one reading of the process tree while two trainings run, median; its processes and its bytes."""
    from ploutos.hardware.monitor import read_process_usage

    futures = [pool.submit(train, seed, 1) for seed in (1, 2)]
    root, costs = psutil.Process(), []
    while not all(future.done() for future in futures):
        before = time.thread_time()
        tree = read_process_usage(root)
        costs.append(time.thread_time() - before)
        time.sleep(0.2)
    return 1e3 * statistics.median(costs), tree.n_processes, tree.rss_bytes


def main() -> None:
    one, two = "one process, two threads, one after the other", "two processes, one thread each, at once"
    rates: dict[str, list[tuple[float, float]]] = {one: [], two: []}
    with WorkerPool(1) as single, WorkerPool(2) as pair:
        for pool, threads in ((single, 2), (pair, 1)):
            samples_per_second(pool, threads)  # imports and compiled kernels
        for _ in range(ROUNDS):
            rates[one].append(samples_per_second(single, 2))
            rates[two].append(samples_per_second(pair, 1))
        cost, n_processes, rss = cost_of_a_reading(pair)
    title = f"two members, PPO [256, 128], {N_ENVS} accounts, batch {BATCH}, median of {ROUNDS} rounds, load {os.getloadavg()[0]:.1f}"
    table = Table(title=title)
    for heading in ("case", "samples/s", "ratio", "worst", "best", "cores busy per training"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, rounds in rates.items():
        ratios = [mine / base for (mine, _), (base, _) in zip(rounds, rates[one], strict=True)]
        table.add_row(
            name, f"{statistics.median(rate for rate, _ in rounds):,.0f}", f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}",
            f"{max(ratios):.2f}", f"{statistics.median(busy for _, busy in rounds):.2f}",
        )  # fmt: skip
    console = Console(width=130)
    console.print(table)
    console.print(
        f"hardware monitor: {cost:.1f} ms per reading of {n_processes} processes with {rss / 2**30:.1f} GiB resident, "
        f"{cost / 10:.1f} % of one core at one reading a second"
    )


if __name__ == "__main__":
    main()
