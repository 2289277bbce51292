"""How often the gates promote what has no skill, and what has; `python -m benchmarks.calibration`.

Each world is a market, accounts in the real ledger with costs, a real summary, and the real gates. In a *null* world five accounts trade
at random and the best of the five on the tested sessions is the one that is judged: what a person does who looks at all and shows one.
All five are counted as tried. In a world with an *edge* the account judged is an oracle on a planted market of a stated yearly Sharpe
ratio, after costs, and its members miss one order in ten. `--agents logistic` puts a logistic regression, walk-forward, in place of both;
`--agents ppo` trains three PPO members a fold with the default settings but for their steps, and runs them as a run does: their vote is
judged, and the members, the regression and the fused account are counted as tried. Nothing is held against it that its steps are few.

Worlds are written to a file when they are done, so a program that is stopped goes on where it was.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.planted import planted_data
from ploutos.advisor.signals import Signals
from ploutos.envs.actions import BUY, SELL, target_weights
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Backtests, Segment, run_backtests
from ploutos.evaluation.candidates import Candidates, paths_of, sessions_tested
from ploutos.evaluation.experiment import InSample, in_sample, out_of_sample
from ploutos.evaluation.gates import judge
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.metrics import periods_of, session_returns, sharpe_ratio
from ploutos.evaluation.spec import BootstrapSpec, GateSpec
from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load, synthetic_spec
from ploutos.strategies.base import DecisionContext, PrecomputedTargets, Role, Strategy, StrategyId
from ploutos.strategies.baselines import BUY_AND_HOLD, buy_and_hold
from ploutos.strategies.ensemble import member_id
from ploutos.strategies.oracles import oracle
from ploutos.strategies.regression import decide, fit_regression, fit_teacher, regression_strategy
from ploutos.strategies.spec import RegressionSpec
from ploutos.training.checkpoint import Policy, load_policy
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.types import FloatArray
from ploutos.walk_forward import Fold, plan_folds

STEPS = 20_000
"""Of one PPO member."""
SUBJECT, MEMBERS, TRIED, BEFORE_TEST = "logistic", 3, 5, 6
NULLS = ("walk", "permuted", "resampled")


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    market: str
    sharpe: float
    years: int
    agents: str = ""
    """logistic, ppo, or none."""

    @property
    def key(self) -> list[str | float | bool]:
        kind = {"": False, "logistic": True}.get(self.agents, f"{self.agents} {STEPS}")  # as earlier files have it
        return [self.market, self.sharpe, self.years, kind]


@dataclass(frozen=True)
class Lapsing:
    """A strategy that misses some orders, under another name."""

    strategy: Strategy
    who: StrategyId
    misses: FloatArray
    asks_policies = False

    @property
    def ids(self) -> tuple[StrategyId, ...]:
        return (self.who,)

    def targets(self, context: DecisionContext) -> FloatArray:
        return np.where(self.misses[context.bar], np.nan, self.strategy.targets(context))


def market(case: Case, seed: int) -> tuple[Bars, DataSpec]:
    """Bars with so many tested years, and what made them."""
    data = planted_data("planted", case.sharpe, 3, seed, years=case.years + BEFORE_TEST)
    if case.market not in ("permuted", "resampled"):
        return load(data), data
    bars, random = load(DataSpec(symbols=("AAPL", "GOOG", "IBM", "MSFT"))), np.random.default_rng(seed)
    bars = replaced(bars, np.flatnonzero(bars.tradable.all(axis=1)), case.market == "permuted", random)
    return bars, data


def replaced(bars: Bars, rows: np.ndarray, permuted: bool, random: np.random.Generator) -> Bars:
    """Real bars in another order: every bar's prices over the close before it, permuted, or in blocks of twenty on average."""
    first, rest = rows[0], rows[1:]
    if permuted:
        order = random.permutation(len(rest))
    else:
        jumps, starts = random.random(len(rest)) < 1 / 20, random.integers(0, len(rest), len(rest))
        runs = np.arange(len(rest)) - np.maximum.accumulate(np.where(jumps, np.arange(len(rest)), 0))
        order = (starts[np.maximum.accumulate(np.where(jumps, np.arange(len(rest)), 0))] + runs) % len(rest)
    before = bars.close[rows[:-1]]
    close = bars.close[first] * np.cumprod((bars.close[rest] / before)[order], axis=0)
    last = np.vstack([bars.close[first], close[:-1]])
    fields = {name: np.vstack([getattr(bars, name)[first], (getattr(bars, name)[rest] / before)[order] * last]) for name in
              ("open", "high", "low")}  # fmt: skip
    fields |= {"close": np.vstack([bars.close[first], close]), "volume": np.vstack([bars.volume[first], bars.volume[rest][order]])}
    return replace(bars, timestamps=bars.timestamps[rows], available_at=bars.available_at[rows], **fields)


def strategies(case: Case, bars: Bars, data: DataSpec, folds: Sequence[Fold], env: EnvSpec, seed: int) -> list[Strategy]:
    """What is tried, the subject's members last."""
    random, slots = np.random.default_rng([seed, 7]), bars.tradable.sum(axis=1)

    def timed() -> FloatArray:
        turns = np.cumsum(random.random((bars.n_bars, bars.n_symbols)) < 0.1, axis=0) + random.integers(0, 2, bars.n_symbols)
        return target_weights(np.where(turns % 2, BUY, SELL), slots, env)

    if case.agents:
        features = build_features(bars, FeatureSpec())
        models = [fit_regression(bars, features, fold, env, RegressionSpec(), "logistic") for fold in folds]
        decided = regression_strategy(bars, features, folds, models, env)
        seen = slice(folds[0].train.start - 1, folds[0].train.stop - 1)  # in sample, for the gate that compares
        decided.table[seen] = decide(bars, features, models[0], env, seen)
        members: list[Strategy] = [
            Lapsing(decided, member_id(m), random.random((bars.n_bars, 1)) < 0.1) for m in range(MEMBERS)
        ]  # fmt: skip
        return [decided, *members]
    if case.market in NULLS:
        tried = [PrecomputedTargets(f"random-{k}", timed(), Role.REGRESSION) for k in range(TRIED)]
        return [*tried, *(PrecomputedTargets(member_id(m).slug, timed(), Role.MEMBER) for m in range(MEMBERS))]
    best, never = oracle(bars, synthetic_spec(data), env), np.zeros((bars.n_bars, 1), dtype=bool)
    members = [Lapsing(best, member_id(m), random.random((bars.n_bars, 1)) < 0.1) for m in range(MEMBERS)]
    return [Lapsing(best, StrategyId(SUBJECT, Role.REGRESSION), never), *members]


def sharpes(bars: Bars, result: Backtests, slugs: Sequence[str]) -> dict[str, float]:
    periods = periods_of(bars, result)
    return {slug: float(sharpe_ratio(session_returns(result.equity[result.row(slug)], periods), periods.per_year)) for slug in slugs}


def trained(bars: Bars, features: FeatureSet, folds: Sequence[Fold], env: EnvSpec, seed: int) -> list[tuple[Policy, ...]]:
    """PPO's members of every fold."""
    training, once = TrainingSpec(total_timesteps=STEPS, members=MEMBERS), CheckpointSpec(enabled=False)
    found = []
    for fold in folds:
        teacher, members = fit_teacher(bars, features, fold, env, training, RegressionSpec()), []
        for member in range(MEMBERS):
            with TemporaryDirectory() as folder:
                paths, target = TrainingPaths(Path(folder) / "work"), Path(folder) / "policy.zip"
                own = int(np.random.SeedSequence([seed, fold.index, member]).generate_state(1)[0])
                train_member(bars, features, fold, env, training, once, own, paths, target, teacher=teacher)
                members.append(load_policy(target))
        found.append(tuple(members))
    return found


def run_ppo(bars: Bars, folds: Sequence[Fold], features: FeatureSet, env: EnvSpec, seed: int) -> dict[str, object]:
    """One world with trained members, tested as a run tests them: what the gates said of their vote."""
    policies, silent = trained(bars, features, folds, env, seed), _silence(bars)
    models = [fit_regression(bars, features, fold, env, RegressionSpec(), "logistic") for fold in folds]
    beside = [regression_strategy(bars, features, folds, models, env)]
    result = out_of_sample(bars, features, folds, policies, silent, env, FusionSpec(), seed, others=beside)
    return judged(bars, folds, result, in_sample(bars, features, folds, policies, env), "vote", seed)


def run(case: Case, seed: int) -> dict[str, object]:
    """One world: what the gates said of it."""
    env, (bars, data) = EnvSpec(), market(case, seed)
    features = build_features(bars, FeatureSpec())
    folds = plan_folds(bars, features)
    if case.agents == "ppo":
        return run_ppo(bars, folds, features, env, seed)
    tried = strategies(case, bars, data, folds, env, seed)
    held = PrecomputedTargets(BUY_AND_HOLD, buy_and_hold(bars, folds[0].test.start - 1, env), Role.BASELINE)
    result = run_backtests(bars, None, [Segment(fold.test) for fold in folds], [*tried, held], env)
    found = sharpes(bars, result, [each for each in result.of(Role.REGRESSION)])
    subject = max(found, key=lambda slug: found[slug])
    learnt = run_backtests(bars, None, [Segment(folds[0].train)], tried[-MEMBERS:], env)
    members = [member_id(m).slug for m in range(MEMBERS)]
    inside = [sharpes(bars, learnt, members)] * len(folds)
    rows = [InSample(train=tuple(each[slug] for slug in members), validation=(None,) * MEMBERS) for each in inside]
    return judged(bars, folds, result, rows, f"regression:{subject}", seed) | {"sharpe": found[subject]}


def judged(
    bars: Bars, folds: Sequence[Fold], result: Backtests, rows: Sequence[InSample], subject: str, seed: int
) -> dict[str, object]:  # fmt: skip
    """The summary of a world's accounts, and what the gates say of one of them."""
    bootstrap = BootstrapSpec(replications=50)
    summary = summarise(result, bars, folds, rows, _silence(bars), bootstrap, seed, False, subject=subject)
    paths = paths_of(bars, result)
    candidates = Candidates(tuple(paths), sessions_tested(bars, result), np.column_stack(list(paths.values())))
    gates = judge(summary, result, bars, folds, candidates, GateSpec(), seed)
    missed = [row.name.value for row in gates.rows if row.reason.value in ("missed", "another")]
    checks = [check.name.value for check in gates.evidence if check.suspect]
    sharpe = summary.strategies[summary.subject.slug].sharpe
    return {"outcome": gates.outcome.value, "suspect": gates.suspect, "checks": checks, "missed": missed, "sharpe": sharpe}


def _silence(bars: Bars) -> Signals:
    """An advisor that was never asked."""
    columns = {"as_of": "datetime64[us, UTC]", "bar": "int64", "symbol": "str", "asked_for": "str", "action": "str"}
    columns |= {"confidence": "float64", "abstained": "bool", "reason": "str", "prompt_tokens": "int64", "tokens": "int64"}
    frame = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    return Signals(frame, "nobody", True, bars.n_bars + 1)


def cases(agents: str) -> list[Case]:
    edges = [Case("planted", sharpe, years, agents) for sharpe in (0.5, 1.0, 1.5, 2.0) for years in (5, 8)]
    return [*(Case(name, 0.0, 7, agents) for name in NULLS), *edges]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=100, help="per row; null worlds have four times as many")
    parser.add_argument("--agents", choices=("logistic", "ppo"), default="")
    parser.add_argument("--markets", nargs="*", help="names of the rows to run, such as permuted; all by default")
    parser.add_argument("--file", type=Path, default=Path("calibration.jsonl"))
    asked = parser.parse_args()
    lines = [json.loads(line) for line in asked.file.read_text().splitlines()] if asked.file.exists() else []
    done = {json.dumps(line["key"]): line["found"] for line in lines}
    print("| market | oracle's Sharpe | years | worlds | promoted | 95 % | insufficient | rejected | missed most often |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|", flush=True)
    for case in cases(asked.agents):
        if asked.markets and case.market not in asked.markets:
            continue
        n = asked.worlds * (4 if case.sharpe == 0 else 1)
        found = []
        for seed in range(1, n + 1):
            key = json.dumps([*case.key, seed])
            if key not in done:
                done[key] = run(case, seed)
                with asked.file.open("a") as file:
                    file.write(json.dumps({"key": json.loads(key), "found": done[key]}) + "\n")
            found.append(done[key])
        outcomes, missed = Counter(each["outcome"] for each in found), Counter(name for each in found for name in each["missed"])
        k = outcomes["promote"]
        low, high = stats.binomtest(k, n).proportion_ci(method="exact")
        often = ", ".join(f"{name} {count / n:.0%}" for name, count in missed.most_common(3))
        shares = [f"{k / n:.1%}", f"{low:.1%} to {high:.1%}", f"{outcomes['insufficient'] / n:.0%}", f"{outcomes['reject'] / n:.0%}"]
        print(f"| {case.market} | {case.sharpe:g} | {case.years} | {n} | {' | '.join(shares)} | {often} |", flush=True)


if __name__ == "__main__":
    main()
