"""Training and evaluation in one line each, for a notebook: a policy, strategies beside the baselines, their metrics as a table.

A run does the same with an advisor, placebos and paired comparisons besides; see `ploutos run`.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import ConfigError
from ploutos.evaluation.backtest import Backtests, Segment, run_backtests
from ploutos.evaluation.metrics import measure, periods_of, session_returns
from ploutos.evaluation.significance import sharpe_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.faults import explain
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.strategies.base import Strategy
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.ensemble import VOTE, EnsembleStrategy, votes_and_members
from ploutos.strategies.regression import fit_teacher
from ploutos.strategies.spec import RegressionSpec
from ploutos.training.checkpoint import Policy, load_policy
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.walk_forward import Fold


def train_policy(
    bars: Bars,
    features: FeatureSet,
    fold: Fold,
    training: TrainingSpec | None = None,
    env: EnvSpec | None = None,
    seed: int = 0,
    path: Path | None = None,
    **settings: Any,
) -> Policy:
    """Train one member in this process, with its teacher, for a notebook: nothing is cached and nothing resumes.

    Args:
        training: agent and number of steps; `total_timesteps` of `TrainingSpec` are meant for production and take long.
        env: account, costs and reward.
        seed: of weights, actions, minibatches and episode starts.
        path: where to keep the policy's file; `load_policy` reads it.
        settings: single ones of `TrainingSpec` that differ from `training`, such as `total_timesteps=20_000`.

    Raises:
        ConfigError: a setting is unknown, or does not fit.
    """
    with TemporaryDirectory() as folder:
        target = path or Path(folder) / "policy.zip"
        env, training = with_initial_cash(env or EnvSpec(), bars, fold.train), _changed(training or TrainingSpec(), settings)
        paths, once = TrainingPaths(Path(folder) / "training"), CheckpointSpec(enabled=False)
        teacher = fit_teacher(bars, features, fold, env, training, RegressionSpec(), seed) if training.is_taught else None
        train_member(bars, features, fold, env, training, once, seed, paths, target, teacher=teacher)
        return load_policy(target)


def _changed(training: TrainingSpec, settings: dict[str, Any]) -> TrainingSpec:
    try:
        return TrainingSpec.model_validate(training.model_dump() | settings)
    except ValidationError as error:
        raise ConfigError(explain(error, TrainingSpec)) from error


def backtest_folds(
    bars: Bars,
    folds: Sequence[Fold],
    strategies: Sequence[Strategy] = (),
    *,
    features: FeatureSet | None = None,
    policies: Sequence[Sequence[Policy]] = (),
    env: EnvSpec | None = None,
    seed: int = 0,
) -> Backtests:
    """Strategies, then policies, then eight baselines over the test ranges of folds that follow each other.

    Args:
        strategies: your own; each decides for its own accounts.
        features: what the policies observe.
        policies: one sequence of members per fold, alike in number; their vote runs first, if there are several, then each alone.
        env: account and costs, the same for all.
        seed: of the random baseline.

    Raises:
        DataError: the test ranges leave a hole, or there are policies and no features.
    """
    env = env or EnvSpec()
    members = votes_and_members(len(policies[0])) if policies else {}
    if len(policies) and len(policies[0]) == 1:
        del members[VOTE]  # one member's vote is its own
    voting = [EnsembleStrategy(members, bars=bars, env=env)] if members else []
    baselines = all_baselines(bars, folds[0].test.start - 1, env, seed)
    decide = policies or [()] * len(folds)
    segments = [Segment(fold.test, each) for fold, each in zip(folds, decide, strict=True)]
    return run_backtests(bars, features, segments, [*strategies, *voting, *baselines], env)


def metrics_frame(bars: Bars, backtests: Backtests, bootstrap: BootstrapSpec | None = None, seed: int = 0) -> pd.DataFrame:
    """The metrics of every account, net of costs, decimal; one row per strategy.

    Args:
        bootstrap: of the Sharpe ratio's interval.

    Returns:
        Columns as `ploutos.evaluation.metrics.measure` gives them, then `sharpe_low` and `sharpe_high`.
    """
    bootstrap, periods, rows = bootstrap or BootstrapSpec(), periods_of(bars, backtests), []
    for row, last in enumerate(backtests.last.tolist()):
        own = periods.until(last)
        low, high = sharpe_interval(session_returns(backtests.equity[row], own), own.per_year, bootstrap, seed)
        rows.append(measure(backtests, row, periods).model_dump() | {"sharpe_low": low, "sharpe_high": high})
    return pd.DataFrame(rows, index=pd.Index(backtests.slugs, name="strategy"))
