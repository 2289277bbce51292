"""What an agent finds of what can be found; `python -m benchmarks.learning`.

On a planted market the sign of a bar's return tells the next one's, by a known chance; each symbol's signs are its own. An oracle reads
the signs and decides by them, after costs, in the same ledger. *Share* is the agent's log growth over the oracle's on bars that come
after everything it learnt from; beside it stands that of a logistic regression on the same features, rows and scaler. Noise is the same
market with a chance of one half: there the growth itself is shown, which nobody can expect to be above what holding earns.

Every training is written to a file when it is done, so a benchmark that is stopped goes on where it was; `--file` names it.
"""

import argparse
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
import pandas as pd

from ploutos.envs.actions import BUY, SELL, target_weights
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import periods_of, session_returns, sharpe_ratio
from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.market.bars import Bars, align
from ploutos.strategies.base import PrecomputedTargets, StrategyId
from ploutos.strategies.baselines import buy_and_hold
from ploutos.strategies.ensemble import EnsembleStrategy
from ploutos.training.checkpoint import load_policy
from ploutos.training.ppo import fit_range_scaler, learning_ranges, train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.types import FloatArray
from ploutos.walk_forward import Fold, Range

YEAR, TRAIN_YEARS, TEST_YEARS, VALIDATION_BARS, GAP = 252, 4, 2, 100, 6
SIGMA = 0.01
_RIDGE = 100.0


@dataclass(frozen=True)
class Case:
    """One row of a table."""

    name: str
    n_symbols: int
    persistence: float
    """Correlation of a bar's sign with the next one's."""
    steps: int = 100_000
    training: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the default preset's."""


# An oracle of one symbol earns a yearly Sharpe ratio of about 4.5 at 0.5, three together at 0.35, ten at 0.2 each, fifty at 0.1.
PLANTED = [Case("1 symbol", 1, 0.5), Case("3 symbols", 3, 0.35), Case("10 symbols", 10, 0.2), Case("50 symbols", 50, 0.12)]
WEAK = [Case("weak, 3 symbols", 3, 0.2), Case("noise, 3 symbols", 3, 0.0)]
JOINT = {"network": "joint", "net_arch": (256, 128)}
LONGER = [replace(PLANTED[1], name=f"3 symbols, {steps:,} steps", steps=steps) for steps in (20_000, 200_000, 800_000)]
GROUPS: dict[str, list[Case]] = {
    "default": [*PLANTED, *WEAK],
    "joint": [replace(case, name=f"{case.name}, joint", training=JOINT) for case in [*PLANTED[:3], *WEAK]],
    "steps": LONGER,
    "weights": [replace(case, name=f"{case.name}, weights", training={"actions": "weights"}) for case in PLANTED[:3]],
    "gamma": [replace(WEAK[0], name=f"weak, gamma {gamma}", training={"gamma": gamma}) for gamma in (0.01, 0.5, 0.8, 0.95, 0.99)],
    "lambda": [replace(WEAK[0], name=f"weak, lambda {each}", training={"gae_lambda": each}) for each in (0.0, 0.5, 0.95)],
    "no stopping": [replace(WEAK[0], name="weak, no stopping", training={"stopping": {"enabled": False}})],
    "portfolio credit": [replace(case, name=f"{case.name}, portfolio credit", training={"credit": "portfolio"}) for case in PLANTED[1:3]],
}


def planted_bars(n_symbols: int, persistence: float, seed: int) -> tuple[Bars, FloatArray]:
    """Daily bars without gaps, and each bar's sign, shape (n_bars, n_symbols)."""
    random = np.random.default_rng(seed)
    days = pd.bdate_range("2010-01-04", periods=YEAR * (TRAIN_YEARS + TEST_YEARS + 1), tz="UTC")
    frames, signs = [], np.empty((len(days), n_symbols))
    for s in range(n_symbols):
        turns = random.random(len(days)) >= (1 + persistence) / 2
        signs[:, s] = np.cumprod(np.where(turns, -1, 1))
        close = 100 * np.exp(np.cumsum(np.abs(random.normal(0, SIGMA, len(days))) * signs[:, s]))
        open_, (up, down) = np.r_[100, close[:-1]], 1 + np.abs(random.normal(0, SIGMA / 4, (2, len(days)))) * [[1], [-1]]
        columns = {"open": open_, "high": np.maximum(open_, close) * up, "low": np.minimum(open_, close) * down, "close": close}
        volume = random.integers(10**5, 10**6, len(days)) * 1.0
        frames.append(pd.DataFrame({"symbol": f"S{s:03d}", "timestamp": days, **columns, "volume": volume}))
    return align(pd.concat(frames), pd.Timedelta(days=1), "24/7", f"planted {persistence}"), signs


def one_fold(features: FeatureSet) -> Fold:
    """Four years, a validation range and the rest."""
    first = features.warmup_bars
    train = Range(start=first, stop=first + YEAR * TRAIN_YEARS)
    validation = Range(start=train.stop + GAP, stop=train.stop + GAP + VALIDATION_BARS)
    test = Range(start=validation.stop + GAP, stop=len(features.values))
    return Fold(index=0, train=train, validation=validation, test=test, warmup_bars=first, data_sha256="")


def logistic_probabilities(features: FeatureSet, signs: FloatArray, train: Range) -> FloatArray:
    """Chance that the next bar rises by a ridge logistic regression, one for all symbols, shape (n_bars, n_symbols)."""
    scaled = fit_range_scaler(features, train).transform(features.values).astype(np.float64)
    seen = np.concatenate([scaled, np.ones((*scaled.shape[:2], 1))], axis=2)
    x = seen[train.start : train.stop - 1].reshape(-1, seen.shape[2])
    y, weights = (signs[train.start + 1 : train.stop] > 0).ravel(), np.zeros(seen.shape[2])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ weights))
        curvature = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, x.T @ (p - y) + _RIDGE * weights)
    return np.asarray(1 / (1 + np.exp(-seen @ weights)))


def run(case: Case, seed: int) -> dict[str, float]:
    """Train once and measure what it found."""
    env, (bars, signs) = EnvSpec(), planted_bars(case.n_symbols, case.persistence, seed)
    features = build_features(bars, FeatureSpec())
    fold = one_fold(features)
    training = TrainingSpec.model_validate({"total_timesteps": case.steps, **case.training})
    with TemporaryDirectory() as folder:
        target = Path(folder) / "policy.zip"
        meta = train_member(
            bars, features, fold, env, training, CheckpointSpec(enabled=False), seed, TrainingPaths(Path(folder) / "work"), target
        )
        policy = load_policy(target)
    learnt = learning_ranges(fold, training)[0]
    slots, rises = bars.tradable.sum(axis=1), logistic_probabilities(features, signs, learnt) > 0.5
    decided = {"oracle": signs > 0, "logistic": rises}
    found: dict[str, float] = {"trained_steps": meta["timesteps"]}
    for where, part in (("in", Range(start=learnt.start + 1, stop=learnt.stop)), ("out", fold.test)):
        tables = {name: target_weights(np.where(up, BUY, SELL), slots, env) for name, up in decided.items()}
        tables["holding"] = buy_and_hold(bars, part.start - 1, env)
        strategies = [
            EnsembleStrategy({StrategyId("agent"): slice(0, 1)}, bars=bars, env=env),
            *(PrecomputedTargets(*one) for one in tables.items()),
        ]
        result = run_backtests(bars, features, [Segment(part, (policy,))], strategies, env)
        growth = dict(zip(result.slugs, np.log(result.equity[:, -1] / result.equity[:, 0]), strict=True))
        periods = periods_of(bars, result)
        oracle = result.slugs.index("oracle")
        found[f"{where}_sharpe_oracle"] = float(sharpe_ratio(session_returns(result.equity[oracle], periods), periods.per_year))
        found |= {f"{where}_{name}": float(value) for name, value in growth.items()}
    return found


def measured(case: Case, seeds: int, file: Path) -> list[dict[str, float]]:
    """A case's trainings, from the file where they were done before."""
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    out = []
    for seed in range(1, seeds + 1):
        default = TrainingSpec.model_validate({"total_timesteps": case.steps, **case.training}).model_dump(mode="json")
        key = {"symbols": case.n_symbols, "persistence": case.persistence, "seed": seed, "training": default}
        found = next((one["found"] for one in done if one["key"] == key), None)
        if found is None:
            found = run(case, seed)
            with file.open("a") as lines:
                lines.write(json.dumps({"key": key, "found": found}) + "\n")
        out.append(found)
    return out


def row(case: Case, found: list[dict[str, float]]) -> list[str]:
    """A case as a line of a table: means and standard errors over markets."""
    values = {name: np.array([one[name] for one in found]) for name in found[0]}

    def shown(each: FloatArray) -> str:
        error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
        return f"{each.mean():.2f} ± {error:.2f}"

    of_oracle = case.persistence > 0
    out, inside = (values["out_oracle"], values["in_oracle"]) if of_oracle else (np.ones(len(found)),) * 2
    return [
        case.name, f"{values['out_sharpe_oracle'].mean():.1f}", shown(values["out_agent"] / out), shown(values["out_logistic"] / out),
        shown(values["out_holding"] / out), shown(values["in_agent"] / inside), f"{values['trained_steps'].mean():,.0f}",
    ]  # fmt: skip


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--markets", type=int, default=10)
    parser.add_argument("--file", type=Path, default=Path("learning.jsonl"))
    options = parser.parse_args()
    console = Console(width=150)
    for group in options.groups:
        table = Table(title=f"{group}: share of the oracle's log growth (noise: growth), {options.markets} markets, mean ± standard error")
        for heading in ("case", "oracle's Sharpe", "agent", "logistic", "buy and hold", "agent, in sample", "steps trained"):
            table.add_column(heading, justify="left" if heading == "case" else "right")
        for case in GROUPS[group]:
            table.add_row(*row(case, measured(case, options.markets, options.file)))
        console.print(table)


if __name__ == "__main__":
    main()
