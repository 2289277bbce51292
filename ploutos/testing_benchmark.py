"""The seed document's four optimisations, each without it (baseline) and with it (optimized), on the same work.

What is measured is what ploutos runs: its feature cache, its fusion, its pool with an environment that is expensive to build, and an update
of stable-baselines3's network. Each case is the median over rounds of processor seconds in one thread, so two files are best made on one
machine, one after the other.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import pandas as pd
import torch
from gymnasium import spaces
from pydantic import ValidationError
from stable_baselines3.common.policies import ActorCriticPolicy

from ploutos.envs.actions import HOLD
from ploutos.envs.pool import EnvironmentStatePool
from ploutos.errors import ConfigError
from ploutos.features.online import OnlineFeatures, OptimizedFeatureCache
from ploutos.fusion.decisions import VectorizedDecisionFusion
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars, align
from ploutos.specs import Spec

Mode = Literal["baseline", "optimized"]
Case = Callable[[], Any]
N_DECISIONS, N_QUESTIONS, READERS = 4_096, 10, 3
PRODUCTION, TESTING = [512, 256, 128], [256, 128]
_OBSERVED = 45
_RULES = FusionSpec()


class Benchmark(Spec):
    """What one mode took.

    Attributes are plain values, so that a file of it can be read anywhere.
    """

    mode: Mode
    """baseline: without the optimisations; optimized: with them."""
    rounds: int
    """Rounds of measurement; the median is reported."""
    cache_hit_rate: float | None
    """Share of questions that the cache answered; empty without a cache."""
    network_parameters: int
    """Of policy and value function together."""
    seconds: dict[str, float]
    """Processor seconds of each case."""


def measure(mode: Mode, rounds: int = 5) -> Benchmark:
    """Run every case of a mode.

    Args:
        rounds: of each case, after one that does not count.
    """
    fast = mode == "optimized"
    net = TESTING if fast else PRODUCTION
    policy = _policy(net)
    caches: list[OptimizedFeatureCache] = []
    cases: dict[str, Case] = {
        f"advisor features, {N_QUESTIONS} bars asked {READERS} times": _features(fast, caches),
        f"fusion, {N_DECISIONS:,} decisions": _fusion(fast),
        "environment, one that is expensive to build": _environment(fast),
        "update of the network, 1,024 observations": _update(policy),
    }
    seconds = {name: _median(case, rounds) for name, case in cases.items()}
    parameters = sum(each.numel() for each in policy.parameters())
    return Benchmark(
        mode=mode, rounds=rounds, cache_hit_rate=caches[-1].hit_rate if caches else None, network_parameters=parameters, seconds=seconds
    )


def _median(case: Case, rounds: int) -> float:
    case()
    took = []
    for _ in range(rounds):
        started = time.process_time()
        case()
        took.append(time.process_time() - started)
    return statistics.median(took)


def _bars(n_bars: int = 1_000) -> Bars:
    random, clock = np.random.default_rng(7), pd.date_range("2024-01-01", periods=n_bars, freq="30min", tz="UTC")
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, n_bars)))
    columns = {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close, "volume": random.uniform(1e3, 1e5, n_bars)}
    frame = pd.DataFrame({"timestamp": clock, "symbol": "A", **columns})
    return align(frame, pd.Timedelta("30min"), "24/7", "benchmark")


def _features(fast: bool, caches: list[OptimizedFeatureCache]) -> Case:
    """Several readers ask for the same bars, through one cache or each alone; every round starts with an empty one."""
    bars = _bars()

    def work() -> None:
        shared = OptimizedFeatureCache()
        if fast:
            caches.append(shared)
        for position in range(bars.n_bars - N_QUESTIONS, bars.n_bars):
            for _ in range(READERS):
                OnlineFeatures(shared if fast else OptimizedFeatureCache()).market(bars, position, 0)

    return work


def _fusion(fast: bool) -> Case:
    """The same decisions, in one batch or one after the other."""
    random = np.random.default_rng(1)
    actions, numbers = random.integers(0, 3, (2, N_DECISIONS)), random.random((3, N_DECISIONS))
    arrays = [actions[0], numbers[0], actions[1], numbers[1], numbers[2]]
    batch = VectorizedDecisionFusion().fuse_batch
    assert batch(*arrays).tolist() == loop(arrays)
    return (lambda: batch(*arrays)) if fast else (lambda: loop(arrays))


def loop(columns: Sequence[Any], spec: FusionSpec = _RULES) -> list[int]:
    """The rules of `fuse_batch`, one decision after the other.

    >>> loop([[1, 1], [0.5, 0.5], [2, 2], [0.9, 0.9], [0.0, 0.9]])
    [2, 0]
    """
    fused = []
    for rl, rl_confidence, llm, llm_confidence, risk in zip(*columns, strict=True):
        if risk > spec.risk_threshold:
            fused.append(HOLD)
        elif rl == llm:
            fused.append(int(rl))
        elif (rl_confidence > spec.confidence_threshold) != (llm_confidence > spec.confidence_threshold):
            fused.append(int(rl if rl_confidence > spec.confidence_threshold else llm))
        else:
            fused.append(int(llm if llm_confidence * spec.llm_weight > rl_confidence * (1 - spec.llm_weight) else rl))
    return fused


class _Expensive(gymnasium.Env[Any, Any]):
    """An environment as the document means it: it computes its indicators itself when it is built."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(3)

    def __init__(self) -> None:
        prices = pd.Series(np.random.default_rng(2).normal(0, 1, 20_000).cumsum())
        self.features = np.stack([prices.rolling(n).mean() for n in (10, 20, 50, 100)])

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {}


def _environment(fast: bool) -> Case:
    """Get one and give it back: built each time, or from the pool, which resets it."""
    pool: EnvironmentStatePool[_Expensive] = EnvironmentStatePool(_Expensive, pool_size=1)

    def lend() -> None:
        pool.release(pool.acquire())

    return lend if fast else lambda: _Expensive().reset()


def _policy(net: list[int]) -> ActorCriticPolicy:
    space = spaces.Box(-np.inf, np.inf, (_OBSERVED,), np.float32)
    return ActorCriticPolicy(space, spaces.Discrete(3), lambda _: 3e-4, net_arch=net)


def _update(policy: ActorCriticPolicy) -> Case:
    """Forward, backward and one step of the optimiser."""
    observed, actions = torch.zeros(1_024, _OBSERVED), torch.zeros(1_024, dtype=torch.long)

    def work() -> None:
        values, log_prob, entropy = policy.evaluate_actions(observed, actions)
        assert entropy is not None
        loss = values.pow(2).mean() - log_prob.mean() - entropy.mean()
        policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        policy.optimizer.step()

    return work


def read_benchmark(path: Path) -> Benchmark:
    """What `ploutos benchmark --output` wrote.

    Raises:
        ConfigError: the file is not a benchmark, or cannot be read.
    """
    try:
        return Benchmark.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; `ploutos benchmark` writes one") from error
    except (json.JSONDecodeError, ValidationError) as error:
        raise ConfigError(f"{path} is not a benchmark; `ploutos benchmark --mode baseline --output {path}` writes one") from error


def compare(one: Benchmark, other: Benchmark) -> dict[str, float]:
    """How many times faster the other is, case by case.

    Raises:
        ConfigError: they measured different cases.
    """
    if one.seconds.keys() != other.seconds.keys():
        raise ConfigError("the two files measure different work; make both with the same version of ploutos")
    return {name: one.seconds[name] / other.seconds[name] for name in one.seconds}
