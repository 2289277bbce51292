"""Which strategies a run compares, and over which bars: out of sample all of them, in sample the policies alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ploutos.advisor.placebos import placebo_advice
from ploutos.advisor.signals import Signals
from ploutos.advisor.texts import scores_of, with_texts
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Backtests, Segment, concat, run_backtests
from ploutos.evaluation.benchmark import require_purchase
from ploutos.evaluation.metrics import periods_of, sharpe_and_return
from ploutos.evaluation.robustness import Lineup
from ploutos.evaluation.summary import LearningCurve, Number, Part
from ploutos.features.build import FeatureSet, FeatureSpec
from ploutos.features.llm_features import market_features
from ploutos.features.macro_features import features_with_macro
from ploutos.fusion.calibration import FusionChoice
from ploutos.fusion.hybrid import hybrid_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec, is_planted
from ploutos.market.loader import synthetic_spec
from ploutos.store import Kind, write_json
from ploutos.strategies.advised import ADVISOR, FUSED, FUSED_ABLATED, MIRRORED, AdvisorStrategy, FusedStrategy
from ploutos.strategies.base import Role, Strategy, StrategyId, account_ids
from ploutos.strategies.baselines import BUY_AND_HOLD, all_baselines
from ploutos.strategies.ensemble import HYBRID, VOTE, EnsembleStrategy, member_id, votes_and_members
from ploutos.strategies.oracles import oracle
from ploutos.strategies.regression import Regression, regression_strategy
from ploutos.training.callbacks import growth_per_bar
from ploutos.training.checkpoint import Policy
from ploutos.training.policy_meta import PolicyMeta
from ploutos.training.ppo import learning_ranges
from ploutos.types import Float32Array
from ploutos.walk_forward import Fold, tested_decisions


def out_of_sample(
    bars: Bars,
    features: FeatureSet,
    folds: Sequence[Fold],
    policies: Sequence[Sequence[Policy]],
    signals: Signals,
    env: EnvSpec,
    fusion: FusionSpec,
    seed: int,
    *,
    choices: tuple[FusionChoice, ...] = (),
    mirrored: Signals | None = None,
    placebo_draws: int = 0,
    others: Sequence[Strategy] = (),
) -> Backtests:
    """Every strategy over all test ranges, the placebos last.

    Args:
        policies: one sequence of members per fold, alike in number.
        choices: fusion's parameters of each fold; none to take what is configured.
        mirrored: what the advisor said about the mirrored market, if it was asked.
        placebo_draws: of each kind of placebo.
        others: strategies that ask no policies, to run beside them.

    Raises:
        DataError: buy and hold could buy nothing, so there is nothing to compare with.
    """
    placebos = placebo_advice(signals.within(*tested_decisions(folds)), placebo_draws, seed)
    blank = replace(signals, frame=signals.frame.iloc[:0])
    tables = [each.align_to_bars(bars) for each in (signals, blank, *placebos.values())]
    advised_actions, confidences = np.stack([acts for acts, _ in tables]), np.stack([sure for _, sure in tables])
    alone = {ADVISOR: signals} | ({MIRRORED: mirrored} if mirrored is not None else {})
    members, baselines = votes_and_members(len(policies[0])), all_baselines(bars, folds[0].test.start - 1, env, seed)
    controls = [StrategyId(slug, Role.PLACEBO) for slug in placebos]
    fused = FusedStrategy((FUSED, FUSED_ABLATED, *controls), advised_actions, confidences, bars, env, (fusion,), choices)
    advised = AdvisorStrategy(tuple(alone), np.stack([each.align_to_bars(bars)[0] for each in alone.values()]), bars, env)
    segments = [Segment(fold.test, members_of) for fold, members_of in zip(folds, policies, strict=True)]
    strategies: list[Strategy] = [fused, EnsembleStrategy(members, bars=bars, env=env), advised, *others, *baselines]
    result = run_backtests(bars, features, segments, strategies, env)
    require_purchase(result, BUY_AND_HOLD, bars, env)
    contenders = (FUSED, VOTE, ADVISOR, FUSED_ABLATED, *account_ids(others), *account_ids(baselines), *list(members)[1:])
    return result.only([*(each.slug for each in contenders), *result.of(Role.PLACEBO)])


STRESSED = (Role.FUSED, Role.VOTE, Role.ADVISOR, Role.HYBRID, Role.REGRESSION, Role.BASELINE)
"""Roles that decide by themselves. A member is part of the vote, an ablation a control, and the oracle reads what no decider can."""


def stressed_slugs(backtests: Backtests) -> tuple[str, ...]:
    """Accounts to put through stress tests, the benchmark left out: it stands beside each."""
    return tuple(slug for slug, role in zip(backtests.slugs, backtests.roles, strict=True) if role in STRESSED and slug != BUY_AND_HOLD)


@dataclass(frozen=True)
class Deciders:
    """Everything that decides in a run, to decide again on other bars; the advice stays as it was.

    Attributes:
        policies, hybrids: by fold and member; no folds of hybrids where there are none.
        models: supervised ones, by fold and kind.
        features_of: features of other bars, as the run computed them.
    """

    folds: Sequence[Fold]
    policies: Sequence[Sequence[Policy]]
    hybrids: Sequence[Sequence[Policy]]
    models: Sequence[Sequence[Regression]]
    signals: Signals
    choices: tuple[FusionChoice, ...]
    env: EnvSpec
    fusion: FusionSpec
    seed: int
    features_of: Callable[[Bars], FeatureSet]

    def __call__(self, bars: Bars) -> list[Lineup]:
        """The accounts of `stressed_slugs` and the benchmark's."""
        features, env = self.features_of(bars), self.env
        actions, confidences = self.signals.align_to_bars(bars)
        strategies: list[Strategy] = [
            FusedStrategy((FUSED,), actions[None], confidences[None], bars, env, (self.fusion,), self.choices),
            EnsembleStrategy(bars=bars, env=env),
            AdvisorStrategy((ADVISOR,), actions[None], bars, env),
            *(regression_strategy(bars, features, self.folds, kind, env) for kind in zip(*self.models, strict=True)),
            *all_baselines(bars, self.folds[0].test.start - 1, env, self.seed),
        ]
        found = [Lineup(features, strategies, self._segments(self.policies))]
        if self.hybrids:
            wide = hybrid_features(features, bars, market_features(bars), self.signals)
            found.append(Lineup(wide, [EnsembleStrategy({HYBRID: slice(None)}, bars=bars, env=env)], self._segments(self.hybrids)))
        return found

    def _segments(self, policies: Sequence[Sequence[Policy]]) -> list[Segment]:
        return [Segment(fold.test, members) for fold, members in zip(self.folds, policies, strict=True)]


def features_of_run(bars: Bars, spec: FeatureSpec, data: DataSpec, readings: pd.DataFrame | None) -> FeatureSet:
    """The features of bars as a run computes them, on other bars with its clock as well.

    Args:
        readings: of the run's texts; None where it has none.
    """
    built = features_with_macro(bars, spec, data.macro, data.macro_provider)
    return built if readings is None else with_texts(built, scores_of(readings), bars, data.texts_stand_bars)


def supervised_and_oracle(
    bars: Bars, features: FeatureSet, folds: Sequence[Fold], models: Sequence[Sequence[Regression]], data: DataSpec, env: EnvSpec
) -> list[Strategy]:
    """What stands beside the policies: supervised models, and, on a planted market, the oracle.

    Args:
        models: one sequence of kinds per fold; empty without models.
    """
    found: list[Strategy] = [regression_strategy(bars, features, folds, kind, env) for kind in zip(*models, strict=True)]
    return [*found, oracle(bars, synthetic_spec(data), env)] if is_planted(data) else found


def hybrid_out_of_sample(
    bars: Bars, features: FeatureSet, folds: Sequence[Fold], policies: Sequence[Sequence[Policy]], env: EnvSpec, who: StrategyId
) -> Backtests:
    """The vote of the hybrid policies over all test ranges; they observe other features, so they run by themselves.

    Args:
        features: from `ploutos.fusion.hybrid.hybrid_features`.
        policies: one sequence of members per fold.
    """
    segments = [Segment(fold.test, members) for fold, members in zip(folds, policies, strict=True)]
    return run_backtests(bars, features, segments, [EnsembleStrategy({who: slice(None)}, bars=bars, env=env)], env)


Hybrids = Mapping[StrategyId, tuple[Sequence[Sequence[Policy]], Signals | None]]
"""Policies by fold and member, and the advice that they observe; None is blank advice, and without folds there is no such account."""


def with_hybrids(
    result: Backtests, bars: Bars, features: FeatureSet, folds: Sequence[Fold], market: Float32Array, hybrids: Hybrids, env: EnvSpec
) -> Backtests:
    """The same with the votes of hybrid policies beside it.

    Args:
        features: Phase 2's.
        market: shape (n_bars, n_symbols, 28), what the advisor reads.
    """
    for who, (policies, signals) in hybrids.items():
        if policies:
            wide = hybrid_features(features, bars, market, signals)
            result = concat(result, hybrid_out_of_sample(bars, wide, folds, policies, env, who))
    return result


class InSample(Part):
    """How a fold's members did where they were trained and chosen: one number or curve per member; None for one that never moved."""

    train: tuple[Number, ...]
    """Sharpe ratio over the part of the training range that they learnt from."""
    validation: tuple[Number, ...]
    """Sharpe ratio over the validation range."""
    learning: tuple[LearningCurve, ...] = ()
    """How they learnt."""


def in_sample(
    bars: Bars, features: FeatureSet, folds: Sequence[Fold], policies: Sequence[Sequence[Policy]], env: EnvSpec
) -> tuple[InSample, ...]:
    """Every member over the bars it learnt from and over its validation range, one account each; one row per fold."""
    rows = []
    for fold, members in zip(folds, policies, strict=True):
        strategy = EnsembleStrategy({member_id(m): slice(m, m + 1) for m in range(len(members))}, bars=bars, env=env)
        policies_of = tuple(members)
        meta = policies_of[0].meta
        learnt, _ = learning_ranges(fold.model_copy(update=dict(meta.fold)), meta.training)
        train, validation = (_sharpes(bars, features, Segment(part, policies_of), strategy, env) for part in (learnt, fold.validation))
        rows.append(InSample(train=train, validation=validation, learning=tuple(learning_curve(policy.meta) for policy in policies_of)))
    return tuple(rows)


def learning_curve(meta: PolicyMeta) -> LearningCurve:
    """A member's learning curve, from what its file says of its training."""
    steps = tuple(int(point["timesteps"]) for point in meta.curve)
    train = tuple(growth_per_bar(point, meta.env.cash) for point in meta.curve)
    if meta.stopping is None:
        return LearningCurve(steps=steps, train=train)
    looks, held_out = zip(*meta.stopping.scores, strict=True)
    return LearningCurve(steps=steps, train=train, chosen=meta.stopping.chosen_timesteps, looks=looks, held_out=held_out)


def _sharpes(bars: Bars, features: FeatureSet, segment: Segment, strategy: EnsembleStrategy, env: EnvSpec) -> tuple[float, ...]:
    result = run_backtests(bars, features, [segment], [strategy], env, keep=())
    periods = periods_of(bars, result)
    return tuple(sharpe_and_return(path, periods, int(last))[0] for path, last in zip(result.equity, result.last, strict=True))


def write_in_sample(rows: Sequence[InSample], path: Path) -> None:
    """Write one row per fold as JSON."""
    write_json(path, [row.model_dump(mode="json") for row in rows])


def read_in_sample(path: Path) -> tuple[InSample, ...]:
    """Read what `write_in_sample` wrote."""
    return tuple(InSample.model_validate(item) for item in json.loads(path.read_text(encoding="utf-8")))


IN_SAMPLE = Kind("in-sample", ".json", write_in_sample, read_in_sample)
