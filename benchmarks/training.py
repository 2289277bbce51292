"""Training against stable-baselines3 as it is, and against the machine's arithmetic; `python -m benchmarks.training`.

One rollout and one update per round, one thread, 256 accounts, networks [256, 128], every rule of the environment on. Each case
has a process of its own (what one switches on, such as how memory is kept, must not help another); the processes take turns,
and each ratio is taken within its round: of time on the core, which neighbours on a shared machine disturb less, and of wall
time. Both are one thread, so on a free core they are one. Against a peer of many processes only wall time counts. `stock` is
stable-baselines3's or sb3-contrib's own class on the same environment.

The floor is the time that the products of a dense pass would take at the rate of products measured in the same process, at the
same precision: rollout forwards, update forwards and backwards. A case that multiplies shared rows once can be below it.

`--seeds N` compares learning instead: N seeds with float32 and N with bf16 on a market that can be learnt.
"""

import argparse
import multiprocessing
import os
import statistics
import time
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np

N_ENVS, BATCH = 256, 4096
NET, LSTM = (256, 128), 256
SHARED = (32, 32)


@dataclass(frozen=True)
class Case:
    """What one process measures."""

    name: str
    algorithm: str = "PPO"
    stock: bool = False
    bf16: bool = False
    n_symbols: int = 15
    n_bars: int = 10_000
    n_steps: int = 64
    n_epochs: int = 5
    peer: bool = False
    n_envs: int = N_ENVS
    batch: int = BATCH
    network: str = "joint"
    net: tuple[int, ...] = NET

    @property
    def samples(self) -> int:
        return self.n_steps * self.n_envs


DEFAULT: dict[str, Any] = {"n_envs": 32, "n_steps": 128, "batch": 256, "n_bars": 2_500}
HALF_HOURS, DAYS = "10,000 half-hour bars", "2,500 bars (ten years of days)"
GROUPS: dict[str, list[Case]] = {
    f"PPO, 15 symbols, {HALF_HOURS}": [Case("stock", stock=True), Case("ploutos, float32"), Case("ploutos, bf16", bf16=True)],
    f"PPO, 15 symbols, {DAYS}": [
        Case("stock", stock=True, n_bars=2_500), Case("ploutos, float32", n_bars=2_500), Case("ploutos, bf16", bf16=True, n_bars=2_500),
    ],
    f"MaskablePPO, 15 symbols, {HALF_HOURS}": [
        Case("stock", "MaskablePPO", stock=True), Case("ploutos, float32", "MaskablePPO"),
    ],
    f"RecurrentPPO (LSTM 256), 15 symbols, {HALF_HOURS}": [
        Case("stock", "RecurrentPPO", stock=True, n_epochs=2), Case("ploutos, float32", "RecurrentPPO", n_epochs=2),
        Case("ploutos, bf16", "RecurrentPPO", bf16=True, n_epochs=2),
    ],
    f"shared network {SHARED}, 15 symbols, {DAYS}": [
        Case("stock, the same policy class", stock=True, n_bars=2_500, network="shared", net=SHARED),
        Case("ploutos, joint, float32", n_bars=2_500), Case("ploutos, shared, float32", n_bars=2_500, network="shared", net=SHARED),
        Case("ploutos, shared, bf16", n_bars=2_500, network="shared", net=SHARED, bf16=True),
    ],
    f"shared network {SHARED}, 200 symbols, {DAYS}": [
        Case("ploutos, joint, float32", n_symbols=200, n_bars=2_500, n_steps=16),
        Case("ploutos, shared, float32", n_symbols=200, n_bars=2_500, n_steps=16, network="shared", net=SHARED),
    ],
    f"default settings, 3 symbols, {DAYS}": [
        Case("stock, the same policy class", stock=True, n_symbols=3, network="shared", net=SHARED, **DEFAULT),
        Case("ploutos, shared, float32", n_symbols=3, network="shared", net=SHARED, **DEFAULT),
    ],
    f"default settings, 200 symbols, {DAYS}": [
        Case("ploutos, joint, float32, minibatches of 1,024", n_symbols=200, **DEFAULT | {"batch": 1024}),
        Case("ploutos, shared, float32", n_symbols=200, network="shared", net=SHARED, **DEFAULT),
    ],
    f"RecurrentPPO, shared network {SHARED}, 15 symbols, {DAYS}": [
        Case("stock, the same policy class", "RecurrentPPO", True, n_bars=2_500, n_epochs=2, n_steps=16, network="shared", net=SHARED),
        Case("ploutos, shared, float32", "RecurrentPPO", n_bars=2_500, n_epochs=2, n_steps=16, network="shared", net=SHARED),
    ],
    "one symbol, 30 features; the first is gym-trading-env": [
        Case("stock PPO, gym-trading-env, SubprocVecEnv of 256", stock=True, n_symbols=1, peer=True, n_steps=32),
        Case("stock PPO, ploutos' environment", stock=True, n_symbols=1, n_steps=32),
        Case("ploutos, float32", n_symbols=1, n_steps=32), Case("ploutos, bf16", n_symbols=1, n_steps=32, bf16=True),
    ],
}  # fmt: skip
TARGETS = {
    ("shared network (32, 32), 15", "ploutos, shared, float32"): 2.0, ("shared network (32, 32), 200", "ploutos, shared, float32"): 20.0,
    ("PPO, 15", "ploutos, float32"): 1.6, ("PPO, 15", "ploutos, bf16"): 2.4, ("Recurrent", "ploutos, float32"): 1.6,
    ("one symbol", "ploutos, float32"): 8.0, ("one symbol", "ploutos, bf16"): 8.0,
}  # fmt: skip


def dense_flops(case: Case, n_columns: int, n_logits: int) -> float:
    """Operations of one rollout's and one update's products, every sample's rows multiplied by every layer."""
    if case.algorithm == "RecurrentPPO":
        first, rest = 2 * 4 * LSTM * n_columns, 2 * (4 * LSTM * LSTM + LSTM * NET[0] + NET[0] * NET[1]) + NET[1] * (n_logits + 1)
    else:
        first, rest = 2 * n_columns * NET[0], 2 * NET[0] * NET[1] + NET[1] * (n_logits + 1)
    forward, backward = 2 * (first + rest), 2 * (first + 2 * rest)  # nothing flows back into observations
    return case.samples * (forward + case.n_epochs * (forward + backward))


def product_rate(bf16: bool) -> float:
    """Operations per second of one core's matrix products, best of a hundred, results written where memory is warm."""
    import torch

    kind = torch.bfloat16 if bf16 else torch.float32
    a, b = torch.randn(BATCH, 512).to(kind), torch.randn(512, 256).to(kind)
    out = torch.empty(BATCH, 256, dtype=kind)
    best = 0.0
    for _ in range(100):
        started = time.process_time()
        torch.mm(a, b, out=out)
        best = max(best, 2 * BATCH * 512 * 256 / (time.process_time() - started))
    return best


def peer_env(case: Case) -> Any:
    """gym-trading-env as its users run it: a process per environment."""
    import pandas as pd

    with warnings.catch_warnings():  # it turns every warning into an error when it is imported
        from gym_trading_env.environments import TradingEnv
    from stable_baselines3.common.vec_env import SubprocVecEnv

    random = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.004, case.n_bars)))
    frame = pd.DataFrame({"open": close, "high": close, "low": close, "close": close, "volume": 1.0})
    frame.index = pd.date_range("2020-01-01", periods=case.n_bars, freq="30min")
    for k in range(30):
        frame[f"feature_{k}"] = random.normal(size=case.n_bars)

    def build() -> Any:
        return TradingEnv(df=frame, positions=[-1, 0, 1], trading_fees=1e-4, borrow_interest_rate=1e-6, max_episode_duration=252, verbose=0)

    return SubprocVecEnv([build] * case.n_envs, "fork")


def work(case: Case, pipe: Connection) -> None:
    """One case: build, then a rollout and an update for each message."""
    import torch

    torch.set_num_threads(1)
    from benchmarks.environment import EVERYTHING, FIRST, market
    from ploutos.envs.vector import MarketVecEnv
    from ploutos.training.checkpoint import ALGORITHMS
    from ploutos.training.fast.memory import keep_freed_memory
    from ploutos.training.fast.precision import matmul_precision
    from ploutos.training.ppo import build_model
    from ploutos.training.spec import SpeedSpec, TrainingSpec

    spec = TrainingSpec(
        algorithm=case.algorithm, n_envs=case.n_envs, n_steps=case.n_steps, batch_size=case.batch, n_epochs=case.n_epochs,
        network=case.network, net_arch=case.net, lstm_size=LSTM, speed=SpeedSpec(fast_loop=not case.stock, bf16=case.bf16),
    )  # fmt: skip
    if case.peer:
        env = peer_env(case)
        model = ALGORITHMS[case.algorithm](
            "MlpPolicy", env, n_steps=case.n_steps, batch_size=BATCH, n_epochs=case.n_epochs, policy_kwargs={"net_arch": list(NET)}, seed=0,
            device="cpu",
        )  # fmt: skip
    else:
        arrays, rows = market(case.n_symbols)
        env = MarketVecEnv(
            arrays, rows, EVERYTHING, FIRST, min(FIRST + case.n_bars, arrays.n_bars) - 1, case.n_envs, seed=0, credit=spec.credits_symbols
        )
        model = build_model(env, spec, 0, "cpu")
    in_env = [0.0]
    step = env.step

    def timed_step(actions: Any) -> Any:
        started = time.perf_counter()
        answer = step(actions)
        in_env[0] += time.perf_counter() - started
        return answer

    env.step = timed_step
    if not case.stock:
        keep_freed_memory()
    with matmul_precision(not case.stock) as precision:
        _, callback = model._setup_learn(10**9, None)
        pipe.recv()  # one process at a time
        rate = product_rate(case.bf16)
        nodes = getattr(model.action_space, "nvec", None)
        logits = int(nodes.sum()) if nodes is not None else int(model.action_space.n)
        floor = dense_flops(case, model.observation_space.shape[0], logits) / rate if case.network == "joint" else float("nan")
        pipe.send({"precision": "bf16" if case.bf16 else precision, "rate": rate, "floor": floor})
        while pipe.recv():
            in_env[0] = 0.0
            started, on_core = time.perf_counter(), time.process_time()
            model.collect_rollouts(model.env, callback, model.rollout_buffer, case.n_steps)
            rolled = time.perf_counter()
            model.train()
            done = time.perf_counter()
            pipe.send({"rollout": rolled - started, "update": done - rolled, "env": in_env[0], "core": time.process_time() - on_core})
    env.close()


def measure(cases: list[Case], rounds: int) -> tuple[list[dict[str, Any]], list[list[dict[str, float]]]]:
    """Facts of each case, and its rounds."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for case in cases:
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(case, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    facts = []
    for pipe in pipes:
        pipe.send(True)
        facts.append(pipe.recv())
    measured: list[list[dict[str, float]]] = [[] for _ in cases]
    for turn in range(rounds + 1):
        for pipe, held in zip(pipes, measured, strict=True):
            pipe.send(True)
            seconds = pipe.recv()
            if turn:  # the first round warms up
                held.append(seconds)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(False)
        process.join()
    return facts, measured


def total(seconds: dict[str, float]) -> float:
    return seconds["rollout"] + seconds["update"]


def compare(groups: dict[str, list[Case]], rounds: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    verdicts = []
    for title, cases in groups.items():
        facts, measured = measure(cases, rounds)
        table = Table(title=f"{title}; {cases[0].samples:,} steps a rollout, {cases[0].n_epochs} epochs; load {os.getloadavg()[0]:.1f}")
        headings = (
            "case",
            "samples/s",
            "x stock",
            "x stock (wall)",
            "rollout",
            "of it env",
            "update",
            "products",
            "GFLOP/s",
            "x dense floor",
        )
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "case" else "right")
        for case, fact, held in zip(cases, facts, measured, strict=True):
            seconds, core = statistics.median(map(total, held)), statistics.median(s["core"] for s in held)
            wall = statistics.median(total(a) / total(b) for a, b in zip(measured[0], held, strict=True))
            on_core = statistics.median(a["core"] / b["core"] for a, b in zip(measured[0], held, strict=True))
            ratio = wall if cases[0].peer else on_core
            share = {key: statistics.median(s[key] / total(s) for s in held) for key in ("rollout", "env", "update")}
            shown = (f"{case.samples / seconds:,.0f}", "-" if cases[0].peer else f"{on_core:.2f}", f"{wall:.2f}")
            floors = (seconds if case.peer else core) / fact["floor"]
            table.add_row(
                case.name, *shown, f"{share['rollout']:.0%}", f"{share['env']:.1%}", f"{share['update']:.0%}", fact["precision"],
                f"{fact['rate'] / 1e9:.0f}", f"{floors:.2f}",
            )  # fmt: skip
            for (start, name), target in TARGETS.items():
                if title.startswith(start) and case.name == name:
                    verdicts.append((f"{title}: {name}", ratio, target))
        console.print(table)
    table = Table(title=f"targets, against the first case of each table; medians of {rounds} rounds")
    for heading in ("what", "measured", "target", ""):
        table.add_column(heading, justify="right" if heading in ("measured", "target") else "left")
    for what, ratio, target in verdicts:
        table.add_row(what, f"{ratio:.2f} x", f">= {target} x", "met" if ratio >= target else "NOT met")
    console.print(table)


def learn(seed: int, bf16: bool) -> list[float]:
    """The learning curve of one seed: mean reward per step, on bars whose next sign is an observation."""
    import pandas as pd
    import torch

    torch.set_num_threads(1)
    from ploutos.envs.market_arrays import make_market_arrays
    from ploutos.envs.spec import CostSpec, EnvSpec
    from ploutos.envs.vector import MarketVecEnv
    from ploutos.market.bars import align
    from ploutos.training.callbacks import BatchedCallback
    from ploutos.training.fast.precision import matmul_precision
    from ploutos.training.ppo import build_model
    from ploutos.training.spec import SpeedSpec, TrainingSpec

    random = np.random.default_rng(0)
    signs = random.choice([-1.0, 1.0], (4, 1000))
    frames = []
    for k, sign in enumerate(signs):
        close = 100 * np.exp(np.cumsum(0.01 * sign))
        open_ = np.r_[100.0, close[:-1]]
        columns = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close, "volume": 1.0}
        frames.append(pd.DataFrame({"symbol": f"S{k}", "timestamp": pd.date_range("2000-01-01", periods=1000, tz="UTC"), **columns}))
    bars = align(pd.concat(frames), pd.Timedelta(days=1), "24/7", "signs")
    noise = random.normal(size=(1000, 36))
    rows = np.hstack([np.vstack([signs.T[1:], np.zeros(4)]), noise]).astype(np.float32)
    env = MarketVecEnv(make_market_arrays(bars), rows, EnvSpec(allow_short=True, costs=CostSpec(slippage_bps=1)), 0, 998, 32, seed)
    spec = TrainingSpec(n_envs=32, n_steps=64, batch_size=512, net_arch=(64, 32), gamma=0.5, learning_rate=1e-3, speed=SpeedSpec(bf16=bf16))
    log = BatchedCallback(every_rollouts=5)
    with matmul_precision(True):
        build_model(env, spec, seed, "cpu").learn(120_000, callback=log, log_interval=10**9)
    return [record["episode/reward"] / record["episode/length"] for record in log.records if record["episodes"]]


def compare_learning(seeds: int) -> None:
    curves = {bf16: np.array([learn(seed, bf16) for seed in range(seeds)]) for bf16 in (False, True)}
    print(f"mean reward per step, {seeds} seeds; the noise is the deviation over seeds of one arithmetic")
    for at in np.linspace(0, curves[False].shape[1] - 1, 6).astype(int):
        a, b = curves[False][:, at], curves[True][:, at]
        error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / seeds)
        print(
            f"record {at + 1:3d}: float32 {a.mean():.4f} (deviation {a.std(ddof=1):.4f}), bf16 {b.mean():.4f} ({b.std(ddof=1):.4f}); "
            f"difference {b.mean() - a.mean():+.4f} = {(b.mean() - a.mean()) / error:+.1f} standard errors"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="groups whose title holds this text")
    parser.add_argument("--seeds", type=int, default=0, help="compare learning with float32 and bf16 over so many seeds")
    options = parser.parse_args()
    if options.seeds:
        compare_learning(options.seeds)
    else:
        compare({title: cases for title, cases in GROUPS.items() if options.only in title}, options.rounds)


if __name__ == "__main__":
    main()
