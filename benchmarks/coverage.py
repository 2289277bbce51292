"""How often the report's intervals hold the truth; `python -m benchmarks.coverage`.

An account follows half of a market's returns and adds noise of its own; market and noise are normal, fat-tailed (t, 4 degrees) or
autocorrelated (0.2), the market's yearly Sharpe ratio is 0.5, and there is no alpha. Each interval should hold the true value in 95 %
of samples. `percentile` is the plain stationary-bootstrap interval of the mean, for comparison. Finished pieces are kept in `--state`,
so a run that was stopped goes on where it was.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
from arch.bootstrap import StationaryBootstrap

from ploutos.evaluation.significance import (
    Statistic,
    alpha,
    beta,
    estimate,
    matched_volatility,
    mean,
    mean_block_length,
    sharpe,
    sharpe_difference,
)
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.seeding import generator
from ploutos.types import FloatArray

LENGTHS = (63, 126, 252, 1000)
NULLS = ("normal", "fat-tailed", "autocorrelated")
PIECE = 50
MARKET_SHARPE = 0.5 / 252**0.5
FOLLOWED = 0.5
OWN_DEVIATION = 0.5
"""Of the account's own noise, in deviations of the market's."""


def noise(null: str, n: int, random: np.random.Generator) -> FloatArray:
    """Two independent series with mean 0 and variance 1, shape (2, n)."""
    if null == "normal":
        return random.normal(size=(2, n))
    if null == "fat-tailed":
        return random.standard_t(4, size=(2, n)) / 2**0.5
    shocks = random.normal(0, (1 - 0.2**2) ** 0.5, size=(2, n))
    series = np.empty((2, n))
    series[:, 0] = random.normal(size=2)
    for t in range(1, n):
        series[:, t] = 0.2 * series[:, t - 1] + shocks[:, t]
    return series


_OWN_MEAN, _OWN_VOLATILITY = FOLLOWED * MARKET_SHARPE, (FOLLOWED**2 + OWN_DEVIATION**2) ** 0.5
INTERVALS: dict[str, tuple[Statistic, int, float]] = {
    "mean": (mean, 1, _OWN_MEAN),
    "Sharpe": (sharpe, 1, _OWN_MEAN / _OWN_VOLATILITY),
    "Sharpe difference": (sharpe_difference, 2, _OWN_MEAN / _OWN_VOLATILITY - MARKET_SHARPE),
    "alpha": (alpha, 2, 0.0),
    "beta": (beta, 2, FOLLOWED),
    "matched volatility": (matched_volatility, 2, _OWN_MEAN - _OWN_VOLATILITY * MARKET_SHARPE),
}
"""Statistic, how many series it reads, and its true value."""


def percentile(returns: FloatArray, spec: BootstrapSpec, seed: int) -> tuple[float, float]:
    """The plain interval of a mean."""
    bootstrap = StationaryBootstrap(mean_block_length(returns), returns, seed=generator(seed, "percentile"))
    low, high = np.quantile(bootstrap.apply(np.mean, spec.replications), [0.025, 0.975])
    return float(low), float(high)


def held(null: str, n: int, piece: int, spec: BootstrapSpec) -> dict[str, int]:
    """In how many samples of a piece each interval holds the truth."""
    found = dict.fromkeys([*INTERVALS, "percentile"], 0)
    for sample in range(PIECE):
        random = generator(piece, f"coverage {null} {n}", sample)
        shocks = noise(null, n, random)
        market = MARKET_SHARPE + shocks[0]
        own = FOLLOWED * market + OWN_DEVIATION * shocks[1]
        for name, (statistic, n_series, truth) in INTERVALS.items():
            result = estimate(statistic, (own, market)[:n_series], spec, piece)
            found[name] += result.low <= truth <= result.high
        low, high = percentile(own, spec, sample)
        found["percentile"] += low <= _OWN_MEAN <= high
    return found


def pieces(samples: int) -> Iterator[tuple[str, int, int]]:
    """Null, length and number of every piece, all nulls and lengths in turn."""
    for piece in range(-(-samples // PIECE)):
        for n in LENGTHS:
            for null in NULLS:
                yield null, n, piece


def read(state: Path) -> dict[str, dict[str, int]]:
    """The finished pieces."""
    lines = state.read_text(encoding="utf-8").splitlines() if state.exists() else []
    return {row["piece"]: row["held"] for row in map(json.loads, lines)}


def table(done: dict[str, dict[str, int]], replications: int, say: Callable[[str], None]) -> None:
    """Coverage of each interval in Markdown, and the worst of each length but for the plain one's."""
    names = [*INTERVALS, "percentile"]
    say(f"| sessions | null | samples | {' | '.join(names)} |")
    say("|---:|---|---:|" + "---:|" * len(names))
    for n in LENGTHS:
        worst = 1.0
        for null in NULLS:
            rows = [row for key, row in done.items() if key.startswith(f"{null} {n} {replications} ")]
            if rows:
                shares = {name: sum(row[name] for row in rows) / (PIECE * len(rows)) for name in names}
                worst = min(worst, *(shares[name] for name in INTERVALS))
                say(f"| {n} | {null} | {PIECE * len(rows):,} | {' | '.join(f'{100 * shares[name]:.1f}' for name in names)} |")
        say(f"| {n} | worst | | {100 * worst:.1f} |" + " |" * (len(names) - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="of each null and length")
    parser.add_argument("--replications", type=int, default=199)
    parser.add_argument("--state", type=Path, default=Path(".ploutos/benchmarks/coverage.jsonl"))
    parser.add_argument("--lengths", nargs="+", type=int, choices=LENGTHS, default=list(LENGTHS))
    asked = parser.parse_args()
    spec, done = BootstrapSpec(replications=asked.replications), read(asked.state)
    asked.state.parent.mkdir(parents=True, exist_ok=True)
    for null, n, piece in pieces(asked.samples):
        key = f"{null} {n} {asked.replications} {piece}"
        if n in asked.lengths and key not in done:
            done[key] = held(null, n, piece, spec)
            with asked.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"piece": key, "held": done[key]}) + "\n")
    table(done, asked.replications, print)


if __name__ == "__main__":
    main()
