"""Fusing a batch of decisions against the same rules in a loop; `python -m benchmarks.fusion`.

Two honest loops read the documented order of rules one decision at a time: over Python numbers, which is the fastest that a
loop can do, and over the elements of numpy arrays, which is how such loops are mostly written. All three begin with the same
decisions, each in the form it likes best, and give the same actions, which is checked. They alternate, and each ratio is
taken within its round. Nothing here asserts a time.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np

from ploutos.envs.actions import HOLD
from ploutos.fusion.decisions import VectorizedDecisionFusion
from ploutos.fusion.spec import FusionSpec

ROUNDS = 51
TARGETS = {256: (10.0, 40.0), 4096: (25.0, 100.0)}
SPEC = FusionSpec()


def loop(columns: Sequence[Any]) -> list[Any]:
    """One decision after the other, with no more work than the rules need; lists give Python numbers, arrays their elements."""
    limit, sure, weight = SPEC.risk_threshold, SPEC.confidence_threshold, SPEC.llm_weight
    fused = []
    for rl, rl_confidence, llm, llm_confidence, risk in zip(*columns, strict=True):
        if risk > limit:
            fused.append(HOLD)
        elif rl == llm:
            fused.append(rl)
        elif (rl_confidence > sure) != (llm_confidence > sure):
            fused.append(rl if rl_confidence > sure else llm)
        else:
            fused.append(llm if llm_confidence * weight > rl_confidence * (1 - weight) else rl)
    return fused


def seconds(work: Callable[[], Any], times: int) -> float:
    """Of one call."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def measure(n: int) -> dict[str, list[float]]:
    """Seconds per batch of n decisions, round by round."""
    random = np.random.default_rng(n)
    actions, numbers = random.integers(0, 3, (2, n)), random.random((3, n))
    arrays = [actions[0], numbers[0], actions[1], numbers[1], numbers[2]]
    lists = [array.tolist() for array in arrays]
    fuse = VectorizedDecisionFusion(SPEC).fuse_batch
    assert fuse(*arrays).tolist() == loop(lists) == [int(action) for action in loop(arrays)]
    cases: dict[str, tuple[Callable[[], Any], int]] = {
        "fuse_batch": (lambda: fuse(*arrays), 200),
        "loop over Python numbers": (lambda: loop(lists), 1 + 2000 // n),
        "loop over numpy elements": (lambda: loop(arrays), 1 + 1000 // n),
    }
    took: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            took[name].append(seconds(*case))
    return took


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=110)
    for n, targets in TARGETS.items():
        took = measure(n)
        table = Table(title=f"{n:,} decisions, one thread; medians of {ROUNDS} rounds")
        for heading in ("case", "microseconds", "fuse_batch is ... x", "target", ""):
            table.add_column(heading, justify="left" if heading in ("case", "") else "right")
        for (name, times), target in zip(took.items(), (None, *targets), strict=True):
            ratio = statistics.median(slow / fast for slow, fast in zip(times, took["fuse_batch"], strict=True))
            verdict = ("-", "") if target is None else (f">= {target:g} x", "met" if ratio >= target else "NOT met")
            table.add_row(name, f"{statistics.median(times) * 1e6:,.1f}", f"{ratio:,.1f}", *verdict)
        console.print(table)


if __name__ == "__main__":
    main()
