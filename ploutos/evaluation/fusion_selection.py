"""Choose fusion's parameters, fold by fold, on validation ranges: no bar after one is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ploutos.advisor.signals import Signals
from ploutos.envs.actions import BUY, HOLD
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSet
from ploutos.fusion.calibration import Calibration, Candidate, FusionChoice, candidates, fit_calibration
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars
from ploutos.strategies.advised import FusedStrategy
from ploutos.strategies.base import DecisionContext
from ploutos.strategies.ensemble import EnsembleStrategy, ensemble_action
from ploutos.training.checkpoint import Policy
from ploutos.types import BoolArray, FloatArray, IntArray
from ploutos.walk_forward import Fold

_RUIN = 1e-9


def choose_fusion(
    bars: Bars,
    features: FeatureSet,
    folds: Sequence[Fold],
    policies: Sequence[Sequence[Policy]],
    signals: Signals,
    env: EnvSpec,
    fusion: FusionSpec,
) -> tuple[FusionChoice, ...]:
    """One choice per fold, from its policies and the advice over its validation range.

    Args:
        policies: one sequence of members per fold; they were trained before the validation range.
    """
    advised_actions = signals.align_to_bars(bars)
    return tuple(
        _choose(bars, features, fold, Segment(fold.validation, tuple(members)), advised_actions, signals.cadence_bars, env, fusion)
        for fold, members in zip(folds, policies, strict=True)
    )


@dataclass(frozen=True)
class _RecordedVote(EnsembleStrategy):
    """A vote that keeps every decision."""

    decisions: list[tuple[int, IntArray, FloatArray]] = field(default_factory=list, kw_only=True)

    def targets(self, context: DecisionContext) -> FloatArray:
        actions, confidences = ensemble_action(context.predictions[:, 0])
        self.decisions.append((context.bar, actions, confidences))
        return super().targets(context)


def _choose(
    bars: Bars, features: FeatureSet, fold: Fold, segment: Segment, advised_actions: tuple[IntArray, FloatArray], horizon: int,
    env: EnvSpec, fusion: FusionSpec,
) -> FusionChoice:  # fmt: skip
    voter = _RecordedVote(bars=bars, env=env)
    run_backtests(bars, features, [segment], [voter], env, keep=())
    calibration = calibrate(bars, voter.decisions, horizon, segment.bars.stop)
    specs = candidates(fusion)
    names, k = tuple(f"candidate {i}" for i in range(len(specs))), len(specs)
    actions, confidences = np.repeat(advised_actions[0][None], k, axis=0), np.repeat(advised_actions[1][None], k, axis=0)
    fused = FusedStrategy(names, actions, confidences, bars, env, tuple(specs), calibration=calibration)
    equity = np.maximum(run_backtests(bars, features, [segment], [fused], env, keep=()).equity, _RUIN)
    growth = np.log(equity[:, -1] / equity[:, 0]) / segment.bars.n_bars
    table = tuple(_candidate(spec, float(grown)) for spec, grown in zip(specs, growth, strict=True))
    return FusionChoice(fold=fold.index, calibration=calibration, chosen=table[int(growth.argmax())], table=table)


def _candidate(spec: FusionSpec, growth: float) -> Candidate:
    return Candidate(llm_weight=spec.llm_weight, confidence_threshold=spec.confidence_threshold, growth=growth)


def calibrate(bars: Bars, decisions: Sequence[tuple[int, IntArray, FloatArray]], horizon: int, stop: int) -> Calibration:
    """Calibrate on decisions whose outcome is known by the close of bar `stop` - 1.

    A BUY is right when the close `horizon` bars after its decision lies above the open it could fill at, a SELL when it lies
    below. A symbol without a bar to fill in, or whose price did not move, says nothing. Decisions of neighbouring bars share
    most of their outcome, so there is less in them than their number says.

    Args:
        decisions: the bar after whose close it was made, action and confidence of each symbol, shape (n_symbols,).
    """
    confidences: list[FloatArray] = []
    right: list[BoolArray] = []
    for bar, actions, sure in decisions:
        if bar + horizon >= stop:
            continue
        moved = bars.mark[bar + horizon] - np.where(bars.tradable[bar + 1], bars.open[bar + 1], np.nan)
        counts = (actions != HOLD) & np.isfinite(moved) & (moved != 0)
        confidences.append(sure[counts])
        right.append(((actions == BUY) == (moved > 0))[counts])
    return fit_calibration(np.concatenate([*confidences, np.empty(0)]), np.concatenate([*right, np.empty(0, dtype=np.bool_)]))
