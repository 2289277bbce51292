"""What an agent finds of what can be found; `python -m benchmarks.learning`.

Markets are the library's planted ones (`ploutos.market.synthetic.planted`): *strength* is the yearly Sharpe ratio, after costs, of an
oracle that reads the plant, for all symbols together; 0 is a fair game. Four years train (eight in one group), the next half year is
fusion's, and all that is shown of the four years after it was learnt from nothing there. *Share* is log growth over the oracle's. Beside
the vote of the members stand a member alone (their mean), a logistic regression and boosted trees on the same fold, and buy and hold.

Every market is written to a file when it is done, so a benchmark that is stopped goes on where it was; `--file` names it. Several
processes may share the file, each with groups of its own.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
import torch
from scipy import stats

from benchmarks.planted import planted_data
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.evaluation.backtest import Backtests, Segment, run_backtests
from ploutos.evaluation.metrics import measure, periods_of, session_returns
from ploutos.evaluation.significance import mean_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.market.bars import Bars
from ploutos.market.loader import load, synthetic_spec
from ploutos.strategies import inference
from ploutos.strategies.base import PrecomputedTargets, Role, Strategy
from ploutos.strategies.baselines import BUY_AND_HOLD, buy_and_hold
from ploutos.strategies.ensemble import VOTE, EnsembleStrategy, member_id, votes_and_members
from ploutos.strategies.oracles import ORACLE, oracle
from ploutos.strategies.regression import decide, fit_regression, fit_teacher
from ploutos.strategies.spec import RegressionKind, RegressionSpec
from ploutos.training import networks
from ploutos.training.checkpoint import Policy, load_policy
from ploutos.training.fast import fused, layers
from ploutos.training.ppo import learning_ranges, train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.types import FloatArray
from ploutos.walk_forward import Fold, FoldSpec, Range, plan_folds

TRAIN_YEARS, REST_YEARS = 4, 5
KINDS: tuple[RegressionKind, ...] = ("logistic", "lasso", "trees", "lagged")
JOINT = {"network": "joint", "net_arch": (64, 64), "credit": "portfolio"}
BEFORE = JOINT | {"gamma": 0.99, "gae_lambda": 0.95, "n_epochs": 10, "batch_size": 1024, "stopping": {"enabled": False}}
MEMORY = {"algorithm": "RecurrentPPO", "batch_size": 1024}
BEFORE |= {"teacher": "none", "weight_decay": 0.0}


@dataclass(frozen=True)
class Case:
    """One row of a table."""

    scenario: str
    strength: float
    n_symbols: int
    steps: int = 100_000
    members: int = 1
    training: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from the default's."""
    note: str = ""
    """Which, for people."""
    costs: float = 1.0
    """Costs of the environment, as a multiple of its default."""
    train_years: int = TRAIN_YEARS
    context: bool = True
    """Whether a shared network sees the other symbols."""

    @property
    def key(self) -> dict[str, Any]:
        """What decides a market's numbers, but for its seed and the code."""
        spec = self.spec.model_dump(mode="json")
        market = [self.scenario, self.strength, self.n_symbols, self.costs]
        years = [] if self.train_years == TRAIN_YEARS else [self.train_years]  # as earlier files have it
        blind = {} if self.context else {"context": False}
        return {"market": [*market, *years], "members": self.members, "training": spec, **blind}

    @property
    def spec(self) -> TrainingSpec:
        return TrainingSpec.model_validate({"total_timesteps": self.steps, **self.training})

    @property
    def fold(self) -> FoldSpec:
        return FoldSpec(train_years=self.train_years, validation_months=6, test_months=48, min_test_months=36)

    @property
    def env(self) -> EnvSpec:
        default = CostSpec()
        return EnvSpec(costs=CostSpec(commission_bps=default.commission_bps * self.costs, slippage_bps=default.slippage_bps * self.costs))


def _with(cases: Sequence[Case], note: str, **training: Any) -> list[Case]:
    return [replace(case, training={**case.training, **training}, note=note) for case in cases]


STRONG = [Case("planted", 4.5, n) for n in (1, 3, 10, 50)]
WEAK = [Case("planted", 1.8, 3), Case("planted", 1.0, 3)]
NOISE = [Case("planted", 0.0, 3, steps=41_000, members=5)]
SLOW = [Case("planted_slow", 1.8, 1, costs=costs) for costs in (0.5, 1.0, 2.0)]
HELD_TO = "no stopping, teacher's weight 3"
HELD: dict[str, Any] = {"stopping": {"enabled": False}, "teacher_weight": 3.0}
LAGGED = Case("planted_lagged", 4.5, 1)
CROSS = Case("planted_cross", 4.5, 3)
CHOICES: dict[str, dict[str, Any]] = {
    "": {},
    "logistic teacher": {"teacher": "logistic"},
    "trees as teacher": {"teacher": "trees"},
    "no teacher": {"teacher": "none"},
    "no teacher, no weight decay": {"teacher": "none", "weight_decay": 0.0},
    "no teacher, the last policy": {"teacher": "none", "stopping": {"enabled": False}},
    "teacher at the start alone": {"teacher_weight": 0.0},
    "teacher's weight 1": {"teacher_weight": 1.0},
    "weight decay 0": {"weight_decay": 0.0},
    "weight decay 3": {"weight_decay": 3.0},
    "weight decay 20": {"weight_decay": 20.0},
    "one layer of 8": {"net_arch": (8,)},
    "two layers of 64": {"net_arch": (64, 64)},
    "joint network": JOINT,
    "credit by portfolio": {"credit": "portfolio"},
    "gamma 0": {"gamma": 0.0},
    "gamma 0.99": {"gamma": 0.99},
    "lambda 0.95": {"gae_lambda": 0.95},
    "entropy 0": {"ent_coef": 0.0},
    "entropy 0.05": {"ent_coef": 0.05},
    "learning rate 0.001": {"learning_rate": 1e-3},
    "learning rate 0.0001": {"learning_rate": 1e-4},
    "10 epochs": {"n_epochs": 10},
    "weights": {"actions": "weights"},
}
"""Settings that the defaults were chosen among, on markets 101 to 108."""
GROUPS: dict[str, list[Case]] = {
    "default": [*STRONG, *WEAK],
    "vote": [replace(case, members=5) for case in [*STRONG[:3], *WEAK]],
    "slow": SLOW,
    "slow, eight years": [replace(case, train_years=8, note="eight years") for case in SLOW],
    "slow, strong": [replace(case, strength=4.5) for case in SLOW],
    "slow, held": _with(SLOW, HELD_TO, **HELD),
    "held": _with([*STRONG[:3], *WEAK, CROSS, replace(CROSS, n_symbols=10), Case("planted_regime", 4.5, 3)], HELD_TO, **HELD),
    "noise, held": _with(NOISE, HELD_TO, **HELD),
    "slow memory": _with(SLOW, "RecurrentPPO", **MEMORY),
    "slow vote": [replace(case, members=5) for case in SLOW],
    "lagged": [LAGGED, *_with([LAGGED], "RecurrentPPO", **MEMORY)],
    "memory": _with([STRONG[1], WEAK[0], replace(NOISE[0], members=1)], "RecurrentPPO", **MEMORY),
    "cross": [CROSS, replace(CROSS, n_symbols=10)],
    "cross, alone": [replace(CROSS, n_symbols=n, context=False, note="without context") for n in (3, 10)],
    "regime": [Case("planted_regime", 4.5, 1), Case("planted_regime", 4.5, 3)],
    "joint": _with([*STRONG[:3], WEAK[0]], "joint", **JOINT),
    "before": _with([*STRONG[:3], WEAK[0]], "as before", **BEFORE),
    "weights": _with([*STRONG[:3], WEAK[0]], "weights", actions="weights"),
    "weights steps": [
        replace(case, steps=steps) for case in _with([STRONG[1], WEAK[0]], "weights", actions="weights") for steps in (20_000, 41_000)
    ],
    "steps": [replace(STRONG[1], steps=steps) for steps in (20_000, 41_000, 200_000, 800_000, 2_000_000)],
    "forecast": _with([STRONG[1], WEAK[0], SLOW[1], Case("planted_regime", 4.5, 3)], "observes the forecast", observe_forecast=True),
    "noise": NOISE,
    "choose": [case for note, other in CHOICES.items() for case in _with([WEAK[0], SLOW[1], replace(NOISE[0], members=1)], note, **other)],
}
"""`noise` and `noise, held` ask for `--markets 40`, with five trainings each, `choose` for `--first 101 --markets 8`."""


@contextmanager
def alone() -> Iterator[None]:
    """Within the block the pooled encodings that a shared network joins with each symbol's are nothing: an ablation."""

    def nothing(encoded: Any, usable: Any) -> Any:
        return torch.zeros(len(encoded), 2 * encoded.shape[2])

    def whole(policy: Policy, rows: Any, _: Range) -> Any:
        return inference._Whole(rows, policy, inference.RecurrentState())

    with ExitStack() as stack:
        for module, name, value in (
            (fused, "FusedNetwork", lambda *_: None), (layers, "_Pool", SimpleNamespace(apply=nothing)), (networks, "pool", nothing),
            (inference, "_SharedSymbols", SimpleNamespace(of=whole)),
        ):  # fmt: skip
            stack.enter_context(patch.object(module, name, value))
        yield


def train(case: Case, bars: Bars, features: FeatureSet, fold: Fold, seed: int) -> tuple[Policy, ...]:
    """The members of a case."""
    policies, regression = [], RegressionSpec()
    teacher = fit_teacher(bars, features, fold, case.env, case.spec, regression) if case.spec.is_taught else None
    for member in range(case.members):
        with TemporaryDirectory() as folder:
            paths, target = TrainingPaths(Path(folder) / "work"), Path(folder) / "policy.zip"
            once, own = CheckpointSpec(enabled=False), 1000 * seed + member
            train_member(bars, features, fold, case.env, case.spec, once, own, paths, target, teacher=teacher)
            policies.append(load_policy(target))
    return tuple(policies)


def accounts(
    bars: Bars, features: FeatureSet, part: Range, policies: tuple[Policy, ...], others: Sequence[Strategy], env: EnvSpec
) -> Backtests:
    """Everything beside each other over one range."""
    held = PrecomputedTargets(BUY_AND_HOLD, buy_and_hold(bars, part.start - 1, env), Role.BASELINE)
    vote = EnsembleStrategy(votes_and_members(len(policies)), bars=bars, env=env)
    return run_backtests(bars, features, [Segment(part, policies)], [vote, *others, held], env)


def run(case: Case, seed: int) -> dict[str, float]:
    """Train on one market and measure what was found: log growth, Sharpe ratio and turnover by account, in and out of sample."""
    env, data = case.env, planted_data(case.scenario, case.strength, case.n_symbols, seed, years=case.train_years + REST_YEARS)
    bars = load(data)
    features = build_features(bars, FeatureSpec())
    (fold,) = plan_folds(bars, features, case.fold)
    with nullcontext() if case.context else alone():
        return found_in(case, bars, features, fold, oracle(bars, synthetic_spec(data), env), seed)


def found_in(case: Case, bars: Bars, features: FeatureSet, fold: Fold, best: Strategy, seed: int) -> dict[str, float]:
    """The same of one market's bars."""
    env, policies = case.env, train(case, bars, features, fold, seed)
    others: list[Strategy] = [best]
    for kind in KINDS:
        model = fit_regression(bars, features, fold, env, RegressionSpec(), kind)
        others.append(PrecomputedTargets(kind, decide(bars, features, model, env, slice(None)), Role.REGRESSION))
    learnt = learning_ranges(fold, case.spec)[0]
    found = {"steps": float(np.mean([policy.meta.timesteps for policy in policies]))}
    for where, part in (("in", Range(start=learnt.start + 1, stop=learnt.stop)), ("out", fold.test)):
        result = accounts(bars, features, part, policies, others, env)
        members = [member_id(m).slug for m in range(len(policies))]
        for slug in [VOTE.slug, *members, ORACLE.slug, *KINDS, BUY_AND_HOLD]:
            found |= {f"{where}_{name}_{slug}": value for name, value in _numbers(bars, result, slug).items()}
    return found


def _numbers(bars: Bars, result: Backtests, slug: str) -> dict[str, float]:
    """Of one account: `paid` is its costs in units of its Sharpe ratio, `low` and `high` its interval of returns a year over holding's."""
    row, held, periods = result.row(slug), result.row(BUY_AND_HOLD), periods_of(bars, result)
    path, numbers = result.equity[row], measure(result, row, periods)
    returns = session_returns(result.equity[[row, held]], periods)
    low, high = mean_interval(returns[0] - returns[1], periods.per_year, BootstrapSpec(), 0)
    yearly = numbers.costs / path.mean() / (len(returns[0]) / periods.per_year)
    paid = yearly / numbers.ann_vol if numbers.ann_vol else 0.0
    known = {"sharpe": numbers.sharpe, "turnover": numbers.turnover, "paid": paid, "low": low, "high": high}
    return {"growth": float(np.log(max(path[-1] / path[0], 1e-9)))} | {k: math.nan if v is None else v for k, v in known.items()}


def measured(case: Case, seeds: Iterable[int], file: Path) -> list[dict[str, float]]:
    """A case's markets, from the file where they were done before."""
    out = []
    for seed in seeds:
        done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        key = {**case.key, "seed": seed}
        found = next((one["found"] for one in done if one["key"] == json.loads(json.dumps(key))), None)
        if found is None:
            found = run(case, seed)
            with file.open("a") as lines:
                lines.write(json.dumps({"key": key, "found": found}) + "\n")
        out.append(found)
    return out


def share(growth: FloatArray, oracle: FloatArray) -> str:
    """Growth over the oracle's, all markets together, and its standard error; growth itself where nothing is planted.

    A ratio of sums, since a mean of ratios is ruled by the market whose oracle earned least.
    """
    ratio = growth.mean() / oracle.mean()
    error = (growth - ratio * oracle).std(ddof=1) / (len(growth) ** 0.5 * oracle.mean()) if len(growth) > 1 else np.nan
    return f"{ratio:.2f} ± {error:.2f}"


def row(case: Case, found: list[dict[str, float]]) -> list[str]:
    """A case as a line of a table."""

    def of(name: str) -> FloatArray:
        return np.array([one[name] for one in found])

    def cell(slugs: Sequence[str], where: str = "out") -> str:
        growth = np.mean([of(f"{where}_growth_{slug}") for slug in slugs], axis=0)
        return share(growth, of(f"{where}_growth_oracle") if case.strength else np.ones(len(found)))

    members = [member_id(m).slug for m in range(case.members)]
    name = f"{case.scenario} {case.strength:g}, {case.n_symbols}" + (f", costs x{case.costs:g}" if case.costs != 1 else "")
    name += (f", {case.steps:,} steps" if case.steps != 100_000 else "") + (f", {case.note}" if case.note else "")
    cells = [cell([VOTE.slug]), cell(members), *(cell([slug]) for slug in (*KINDS, BUY_AND_HOLD)), cell([VOTE.slug], "in")]
    turnover = [f"{of(f'out_turnover_{slug}').mean():.0f}" for slug in (VOTE.slug, "logistic", ORACLE.slug)]
    return [name, str(case.members), *cells, " / ".join(turnover), f"{of('steps').mean():,.0f}"]


def by_luck(found: Sequence[dict[str, float]], members: int) -> str:
    """What trainings on a fair game look like: how many beat holding, and their Sharpe ratio before costs, with its error over markets."""
    slugs = [member_id(m).slug for m in range(members)]
    low, high = (np.array([[one[f"out_{end}_{slug}"] for slug in slugs] for one in found]) for end in ("low", "high"))
    after, paid = (np.array([[one[f"out_{name}_{slug}"] for slug in slugs] for one in found]) for name in ("sharpe", "paid"))
    before = np.nanmean(np.nan_to_num(after) + paid, axis=1)
    beat, n = int((low > 0).sum()), low.size
    ends = stats.binomtest(beat, n).proportion_ci(method="exact")
    error = before.std(ddof=1) / len(before) ** 0.5
    return (
        f"{beat} of {n} trainings beat holding ({beat / n:.1%}; as if independent {ends.low:.1%} to {ends.high:.1%}), "
        f"{int((high < 0).sum())} fell short of it; mean Sharpe ratio {np.nan_to_num(after).mean():.3f}, costs {-paid.mean():.3f} of it, "
        f"before costs {before.mean():.3f} ± {error:.3f}; {int(np.isnan(after).sum())} never traded"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--markets", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="seed of the first market; the defaults were chosen on those from 101 on")
    parser.add_argument("--file", type=Path, default=Path("learning.jsonl"))
    asked = parser.parse_args()
    print(f"{asked.markets} markets a row: mean share and standard error, out of sample unless said")
    headings = ["market, symbols", "members", "vote", "a member", *KINDS, "buy and hold", "vote, in sample"]
    headings += ["turnover a year: vote / logistic / oracle", "steps trained"]
    print("| " + " | ".join(headings) + " |\n|---|" + "---:|" * (len(headings) - 1), flush=True)
    for group in asked.groups:
        for case in GROUPS[group]:
            found = measured(case, range(asked.first, asked.first + asked.markets), asked.file)
            print("| " + " | ".join(row(case, found)) + " |", flush=True)
            if not case.strength:
                print(f"\n{by_luck(found, case.members)}\n", flush=True)


if __name__ == "__main__":
    main()
