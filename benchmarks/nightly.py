"""False promotions over a year of nightly looks, and how soon a real edge is seen; `python -m benchmarks.nightly`.

Every world is a stream of paired session differences whose mean is zero by construction, or a yearly Sharpe ratio of 1, 2 or 3. It is
looked at on each of 250 nights (1,260 for the time to a decision). *Naive* is a t-test at 5 % on all differences so far, repeated each
night; *unblocked* is the same bettor with blocks of one session.

Each batch of paths is written to a file when it is done, so a benchmark that is stopped goes on where it was; `--file` names it.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from ploutos.evaluation.sequential import NIGHTLY, NightlySpec, wealth_of
from ploutos.seeding import generator
from ploutos.types import FloatArray

YEAR, NIGHTS, LONG, BURN = 252, 250, 1260, 100
WORLDS = {
    "normal": {},
    "t with 4 degrees": {"tails": 4.0},
    "AR(1) 0.2": {"autocorrelation": 0.2},
    "GARCH, t4": {"tails": 4.0, "garch": 1.0},
    "variance x 9 half-way": {"broken": 3.0},
    "AR(1) 0.2, GARCH, t4": {"autocorrelation": 0.2, "tails": 4.0, "garch": 1.0},
    "AR(1) 0.2, variance x 9, t4": {"autocorrelation": 0.2, "tails": 4.0, "broken": 3.0},
    "AR(1) 0.3": {"autocorrelation": 0.3},
    "a crash of 30 deviations every 500 days": {"crash": 30.0},
}
"""The last two are beyond what is promised."""


def differences(
    rng: np.random.Generator, n_paths: int, n: int, *, autocorrelation: float = 0.0, tails: float = 0.0, garch: float = 0.0,
    broken: float = 1.0, crash: float = 0.0,
) -> FloatArray:  # fmt: skip
    """Shape (n_paths, n): paired differences with mean zero and unit variance before a break."""
    shape = (n_paths, n + BURN)
    shocks = rng.standard_t(tails, shape) / np.sqrt(tails / (tails - 2)) if tails else rng.standard_normal(shape)
    variance, before = np.ones(n_paths), np.zeros(n_paths)
    drawn = np.empty(shape)
    for t in range(shape[1]):
        moved = np.sqrt(variance) * shocks[:, t]
        if garch:
            variance = 0.05 + 0.1 * moved**2 + 0.85 * variance
        before = autocorrelation * before + moved * (broken if t >= BURN + n // 2 else 1.0)
        drawn[:, t] = before
    if crash:
        drawn += crash / 500 - crash * (rng.random(shape) < 1 / 500)
    return drawn[:, BURN:]


def ever(drawn: FloatArray, spec: NightlySpec = NIGHTLY) -> FloatArray:
    """Night of each path's promotion, infinite for none."""
    reached = wealth_of(drawn, spec) >= 1 / spec.error
    return np.where(reached.any(axis=1), (reached.argmax(axis=1) + 1) * spec.block_sessions, np.inf)


def naive(drawn: FloatArray, first: int = 20) -> FloatArray:
    """Night on which a repeated one-sided t-test first says yes."""
    n = np.arange(1, drawn.shape[1] + 1)
    mean = drawn.cumsum(axis=1) / n
    deviation = np.sqrt(np.maximum((drawn**2).cumsum(axis=1) / n - mean**2, 1e-12) * n / np.maximum(n - 1, 1))
    reached = (mean / deviation * np.sqrt(n) > stats.norm.ppf(0.95)) & (n >= first)
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, np.inf)


def batch(world: str, sharpe: float, number: int, n_paths: int) -> dict[str, list[float]]:
    """Nights of promotion of one batch of paths."""
    n = LONG if sharpe else NIGHTS
    drawn = differences(generator(1, f"nightly {world}", number), n_paths, n, **WORLDS[world]) + sharpe / np.sqrt(YEAR)
    nights = {"bettor": ever(drawn)}
    if not sharpe:
        nights |= {"naive": naive(drawn), "unblocked": ever(drawn, NIGHTLY.model_copy(update={"block_sessions": 1, "first_blocks": 20}))}
    return {name: np.where(np.isfinite(each), each, -1.0).tolist() for name, each in nights.items()}


def batches(world: str, sharpe: float, n_batches: int, n_paths: int, file: Path) -> Iterator[dict[str, list[float]]]:
    """Every batch, from the file where it is there."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    settings = NIGHTLY.model_dump(mode="json")
    done = {tuple(line["case"]): line["nights"] for line in lines if line["spec"] == settings}
    for number in range(n_batches):
        case = (world, sharpe, number, n_paths)
        if case not in done:
            done[case] = batch(*case)
            with file.open("a") as out:
                out.write(json.dumps({"case": case, "spec": settings, "nights": done[case]}) + "\n")
        yield done[case]


def collected(world: str, sharpe: float, n_batches: int, n_paths: int, file: Path) -> dict[str, FloatArray]:
    """Nights of promotion of all paths, infinite for none."""
    found = list(batches(world, sharpe, n_batches, n_paths, file))
    nights = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    return {name: np.where(each < 0, np.inf, each) for name, each in nights.items()}


def share(nights: FloatArray, within: int) -> str:
    """Share of paths promoted within some nights, with its 95 % interval."""
    exact = stats.binomtest(int((nights <= within).sum()), len(nights)).proportion_ci()
    return f"{(nights <= within).mean():.1%} [{exact.low:.1%}, {exact.high:.1%}]"


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--paths", type=int, default=2000)
    parser.add_argument("--file", type=Path, default=Path("nightly.jsonl"))
    options = parser.parse_args()
    table = Table(title=f"false promotions in {NIGHTS} nights, {options.batches * options.paths:,} paths each")
    for heading in ("world without a difference", "bettor", "unblocked", "naive"):
        table.add_column(heading)
    for world in WORLDS:
        found = collected(world, 0.0, options.batches, options.paths, options.file)
        table.add_row(world, *(share(found[name], NIGHTS) for name in ("bettor", "unblocked", "naive")))
    edges = Table(title="nights to see an edge")
    for heading in ("world", "Sharpe of the difference", "median nights", "within 250", "within 500", f"within {LONG}"):
        edges.add_column(heading)
    for world in ("normal", "AR(1) 0.2, GARCH, t4"):
        for sharpe in (1.0, 2.0, 3.0):
            nights = collected(world, sharpe, max(options.batches // 5, 1), options.paths, options.file)["bettor"]
            edges.add_row(world, f"{sharpe:g}", f"{np.median(nights):,.0f}", *(share(nights, within) for within in (250, 500, LONG)))
    for each in (table, edges):
        Console(width=150).print(each)


if __name__ == "__main__":
    main()
