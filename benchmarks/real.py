"""Agents beside supervised models and buy and hold on real bars; `python -m benchmarks.real --path bars.parquet`.

Walk-forward folds, out of sample, after costs: the vote of policies with a shared network, of policies with a joint one as they were
before it, a logistic regression, boosted trees, buy and hold. Nothing is chosen on these bars. Every policy is kept in `--folder`, so a
run that is stopped goes on where it was. Without `--path` the bars are the sample that ships with ploutos.
"""

import argparse
from pathlib import Path
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

from benchmarks.learning import BEFORE, KINDS
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.evaluation.backtest import Backtests, Segment, concat, run_backtests
from ploutos.evaluation.notebook import metrics_frame
from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.strategies.base import PrecomputedTargets, Role, Strategy, StrategyId
from ploutos.strategies.baselines import BUY_AND_HOLD, buy_and_hold
from ploutos.strategies.ensemble import EnsembleStrategy
from ploutos.strategies.regression import fit_regression, fit_teacher, regression_strategy
from ploutos.strategies.spec import RegressionSpec
from ploutos.training.checkpoint import StoredPolicies
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.walk_forward import Fold, FoldSpec, plan_folds

NETWORKS: dict[str, dict[str, Any]] = {"shared": {}, "joint": BEFORE}


def trained(bars: Bars, features: FeatureSet, fold: Fold, env: EnvSpec, spec: TrainingSpec, members: int, folder: Path) -> StoredPolicies:
    """The members of a fold, from the folder where they were trained before."""
    paths = tuple(folder / f"{member}.zip" for member in range(members))
    teacher = fit_teacher(bars, features, fold, env, spec, RegressionSpec()) if spec.is_taught else None
    own = with_initial_cash(env, bars, fold.train)
    for member, path in enumerate(paths):
        if not path.exists():
            work = TrainingPaths(folder / f"work{member}")
            train_member(bars, features, fold, own, spec, CheckpointSpec(), 100 * fold.index + member, work, path, teacher=teacher)
    return StoredPolicies(paths)


def compared(bars: Bars, folds: FoldSpec, steps: int, members: int, folder: Path) -> Backtests:
    """All accounts over all test ranges."""
    env, features = EnvSpec(), build_features(bars, FeatureSpec())
    plan = plan_folds(bars, features, folds)
    results = []
    for name, settings in NETWORKS.items():
        spec = TrainingSpec.model_validate({"total_timesteps": steps, **settings})
        policies = [trained(bars, features, fold, env, spec, members, folder / name / str(fold.index)) for fold in plan]
        segments = [Segment(fold.test, each) for fold, each in zip(plan, policies, strict=True)]
        vote = EnsembleStrategy({StrategyId(f"{name}-vote", Role.VOTE): slice(None)}, bars=bars, env=env)
        results.append(run_backtests(bars, features, segments, [vote], env))
    others: list[Strategy] = [PrecomputedTargets(BUY_AND_HOLD, buy_and_hold(bars, plan[0].test.start - 1, env), Role.BASELINE)]
    for kind in KINDS:
        models = [fit_regression(bars, features, fold, env, RegressionSpec(), kind) for fold in plan]
        others.append(regression_strategy(bars, features, plan, models, env))
    results.append(run_backtests(bars, None, [Segment(fold.test) for fold in plan], others, env))
    shared, *rest = results
    for each in rest:
        shared = concat(shared, each)
    return shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, help="of bars; the sample where left out")
    parser.add_argument("--train-years", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("real"))
    asked = parser.parse_args()
    bars = load(DataSpec(source="files", path=asked.path) if asked.path else DataSpec())
    result = compared(bars, FoldSpec(train_years=asked.train_years), asked.steps, asked.members, asked.folder)
    table = metrics_frame(bars, result)
    print(f"{bars.n_symbols} symbols, {result.timestamps[1]} to {result.timestamps[-1]}, {asked.members} members, {asked.steps:,} steps")
    print("| decider | Sharpe | 95 % | total return | max drawdown | turnover a year | costs |\n|---|---:|---:|---:|---:|---:|---:|")
    for slug, row in table.iterrows():
        interval = f"{row.sharpe_low:.2f} to {row.sharpe_high:.2f}"
        amounts = f"{row.total_return:.1%} | {row.max_drawdown:.1%} | {row.turnover:.0f} | {row.costs:,.0f}"
        print(f"| {slug} | {row.sharpe:.2f} | {interval} | {amounts} |")


if __name__ == "__main__":
    main()
