"""Evaluation in one line each, for a notebook: strategies beside the baselines, and their metrics as a table.

A run does the same with an advisor, placebos and paired comparisons besides; see `ploutos run`.
"""

from collections.abc import Sequence

import pandas as pd

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Backtests, Segment, run_backtests
from ploutos.evaluation.metrics import measure, periods_of, session_returns
from ploutos.evaluation.significance import sharpe_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.strategies.base import Strategy
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.ensemble import VOTE, EnsembleStrategy, votes_and_members
from ploutos.training.checkpoint import Policy
from ploutos.walk_forward import Fold


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
    """Strategies, then policies, then five baselines over the test ranges of folds that follow each other.

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
