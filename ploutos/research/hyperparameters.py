"""Search for hyper-parameters, nested inside one fold's training range.

The range is cut once more: candidates train on its first part and are scored on its last, with the fold's gap in between. No
bar from the end of the training range on is read, so what is found may be used for the fold's own test and all later ones.
A candidate is scored several times on its way, and dropped when it is worse than the median of the others was there. Where training
stops, a candidate counts by its best score so far, as the training that it is for keeps its best policy.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import optuna
import torch
from pydantic import Field, PositiveInt

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import drawdowns, periods_of, session_returns, sharpe_ratio
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.progress import advance
from ploutos.seeding import seed_integer
from ploutos.specs import Spec
from ploutos.strategies.ensemble import EnsembleStrategy
from ploutos.strategies.regression import fit_teacher
from ploutos.strategies.spec import RegressionSpec
from ploutos.training.checkpoint import Policy
from ploutos.training.fast.precision import matmul_precision
from ploutos.training.ppo import build_env, build_model, fit_range_scaler, meta_of
from ploutos.training.spec import TrainingSpec
from ploutos.training.teacher import Teacher
from ploutos.walk_forward import Fold, Range, inner_split

logger = logging.getLogger(__name__)

_DRAWDOWN_ALLOWED, _DRAWDOWN_WEIGHT = 0.15, 10.0


class SearchSpec(Spec):
    """How long to search, and on what a candidate is scored."""

    trials: PositiveInt = 20
    """Candidates."""
    timesteps: PositiveInt = 200_000
    """Environment steps of a candidate that is not dropped."""
    reports: PositiveInt = 5
    """Times that a candidate is scored, evenly spread over its steps; it can be dropped at each but the last."""
    unpruned_trials: PositiveInt = 5
    """Candidates before any may be dropped."""
    validation_share: float = Field(default=0.25, gt=0, lt=1)
    """Last share of the training range, kept for scores."""
    kinds: bool = False
    """Try also the kinds of network, of actions and of teacher; that asks for many more candidates."""


@dataclass(frozen=True)
class Trial:
    """One candidate."""

    number: int
    values: dict[str, Any]
    scores: tuple[float, ...]
    """One per report, as far as it came: the best so far where training stops, else the last."""
    dropped: bool


@dataclass(frozen=True)
class Found:
    """What a search ended in."""

    values: dict[str, Any]
    """Settings of `training` that the best candidate had."""
    score: float
    trials: tuple[Trial, ...]
    train: Range
    validation: Range


def candidate(trial: optuna.Trial, base: TrainingSpec, kinds: bool = False) -> dict[str, Any]:
    """Settings of `training` to try; the rollout's size stays as it is, and every batch size divides it."""
    rollout = base.n_envs * base.n_steps
    whole = base.n_steps if base.algorithm == "RecurrentPPO" else 1
    batches = [rollout // parts for parts in (2, 4, 8, 16) if rollout % (parts * whole) == 0] or [rollout]
    width, depth = trial.suggest_categorical("width", (16, 32, 64, 128, 256)), trial.suggest_int("depth", 1, 3)
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 3e-3, log=True),
        "batch_size": trial.suggest_categorical("batch_size", batches),
        "n_epochs": trial.suggest_int("n_epochs", 3, 15),
        "gamma": trial.suggest_float("gamma", 0.0, 0.99),
        "gae_lambda": trial.suggest_float("gae_lambda", 0.0, 0.99),
        "clip_range": trial.suggest_float("clip_range", 0.1, 0.3),
        "ent_coef": trial.suggest_float("ent_coef", 1e-3, 0.1, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 0.0, 30.0),
        "teacher_weight": trial.suggest_float("teacher_weight", 0.0, 1.0),
        "vf_coef": trial.suggest_float("vf_coef", 0.1, 0.9),
        "net_arch": [width] * depth,
        **(_kinds(trial, base) if kinds else {}),
    }


def _kinds(trial: optuna.Trial, base: TrainingSpec) -> dict[str, Any]:
    """Kinds to try; masks are of discrete actions alone, and who has no teacher gets none."""
    found = {"network": trial.suggest_categorical("network", ("shared", "joint"))}
    if base.algorithm != "MaskablePPO":
        found["actions"] = trial.suggest_categorical("actions", ("discrete", "weights"))
    if base.is_taught:
        found["teacher"] = trial.suggest_categorical("teacher", ("auto", "logistic", "trees"))
    return found


def score_policy(bars: Bars, features: FeatureSet, policy: Policy, validation: Range, env: EnvSpec) -> float:
    """Sharpe ratio over a range, less ten times what the drawdown is beyond 15 %; 0 for an account that never moved."""
    strategy = EnsembleStrategy(bars=bars, env=env)
    result = run_backtests(bars, features, [Segment(validation, (policy,))], [strategy], env, keep=())
    periods = periods_of(bars, result)
    sharpe = sharpe_ratio(session_returns(result.equity[0], periods), periods.per_year)
    deepest = -float(drawdowns(result.equity[0]).min())
    return (0.0 if np.isnan(sharpe) else sharpe) - _DRAWDOWN_WEIGHT * max(0.0, deepest - _DRAWDOWN_ALLOWED)


def search(
    bars: Bars, features: FeatureSet, fold: Fold, gap: int, env: EnvSpec, base: TrainingSpec, spec: SearchSpec, seed: int,
    device: str = "cpu",
) -> Found:  # fmt: skip
    """Look for settings of `training` on one fold's training range; the same arguments find the same.

    Args:
        gap: bars between the inner training and validation ranges, `purge_bars + embargo_bars` of the folds.
        base: everything that is not searched for.

    Raises:
        HistoryError: the training range is too short to be cut once more.
    """
    torch.set_num_threads(1)
    stop = fold.train.stop
    bars = bars.head(stop)
    features = replace(
        features, values=features.values[:stop], timestamps=features.timestamps[:stop], available_at=features.available_at[:stop]
    )
    train, validation = inner_split(fold.train, gap, spec.validation_share)
    whole = base.model_copy(
        update={"stopping": base.stopping.model_copy(update={"enabled": False})}
    )  # all of the inner range is learnt from
    inner = fold.model_copy(update={"train": train, "validation": validation})
    teachers: dict[str | None, Teacher | None] = {None: None}
    tried: dict[int, tuple[dict[str, Any], list[float]]] = {}

    def objective(trial: optuna.Trial) -> float:
        values = candidate(trial, base, spec.kinds)
        scores: list[float] = []
        tried[trial.number] = (values, scores)
        training = TrainingSpec.model_validate(base.model_dump() | values)
        if (kind := training.taught_by) not in teachers:
            taught = whole.model_copy(update={"teacher": training.teacher})
            teachers[kind] = fit_teacher(bars, features, inner, env, taught, RegressionSpec(), seed)
        teacher = teachers[kind]
        observed = teacher if base.observe_forecast else None
        seen = features if observed is None else observed.observed(features)
        forecast = None if observed is None else observed.model
        scaler = fit_range_scaler(seen, train)
        own_seed = seed_integer(seed, "search", trial.number)
        model = build_model(build_env(bars, seen, scaler, train, env, training, own_seed), training, own_seed, device)
        if teacher is not None:
            cast(Any, model).be_taught(teacher.over(Range(start=train.start, stop=train.stop)), training.teacher_weight, True)
        policy = Policy(model, scaler, meta_of(bars, seen, inner, env, training, scaler, own_seed, forecast))
        rollouts = max(round(spec.timesteps / (training.n_envs * training.n_steps)), spec.reports)
        for report in range(1, spec.reports + 1):
            until = rollouts * report // spec.reports * training.n_envs * training.n_steps
            with matmul_precision(training.speed.fast_matmul, device):
                model.learn(until - model.num_timesteps, log_interval=cast(int, None), reset_num_timesteps=report == 1)
            model.policy.set_training_mode(False)
            advance(trial.number * spec.reports + report, spec.trials * spec.reports, "scores", f"candidate {trial.number + 1}")
            score = score_policy(bars, features, policy, validation, env)
            scores.append(max([score, *scores]) if base.stopping.enabled else score)
            trial.report(scores[-1], report)
            if report < spec.reports and trial.should_prune():
                raise optuna.TrialPruned
        logger.info("candidate %d: score %.3f", trial.number, scores[-1])
        return scores[-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed_integer(seed, "search")),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=spec.unpruned_trials),
    )  # fmt: skip
    study.optimize(objective, n_trials=spec.trials)
    dropped = {trial.number for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED}
    trials = tuple(Trial(number, values, tuple(scores), number in dropped) for number, (values, scores) in tried.items())
    return Found(tried[study.best_trial.number][0], float(study.best_value), trials, train, validation)
