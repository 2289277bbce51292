"""Choose fusion's parameters, fold by fold, on validation ranges: no bar after one is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ploutos.advisor.signals import Signals
from ploutos.envs.actions import BUY, HOLD
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.significance import mean_by_errors
from ploutos.features.build import FeatureSet
from ploutos.fusion.calibration import Calibration, Candidate, FusionChoice, Lead, candidates, fit_calibration
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars
from ploutos.progress import part
from ploutos.strategies.advised import FusedStrategy
from ploutos.strategies.base import DecisionContext, StrategyId
from ploutos.strategies.ensemble import EnsembleStrategy, ensemble_action
from ploutos.training.checkpoint import Policy
from ploutos.types import BoolArray, FloatArray, IntArray
from ploutos.walk_forward import Fold

_RUIN = 1e-9
_CONFIDENCE = 0.95
Decision = tuple[int, IntArray, FloatArray]
"""The bar after whose close it was made, and action and confidence of each symbol, shape (n_symbols,)."""


def choose_fusion(
    bars: Bars,
    features: FeatureSet,
    folds: Sequence[Fold],
    policies: Sequence[Sequence[Policy]],
    signals: Signals,
    env: EnvSpec,
    fusion: FusionSpec,
) -> tuple[FusionChoice, ...]:
    """One choice per fold, from its policies and the advice over its validation range and over those of the folds before it.

    One validation range is too short to tell parameters apart, and the best of sixteen on it is mostly luck. So each fold pools what every
    candidate earned on all validation ranges up to its own, and leaves what is configured only for a lead beyond its standard error.

    Args:
        policies: one sequence of members per fold; they were trained before the validation range.
    """
    advice = StandingAdvice.of(signals, bars)
    choices, pooled, known = [], np.empty((len(candidates(fusion)), 0)), 0
    for fold, members in zip(folds, policies, strict=True):
        with part(f"fold {fold.index}"):
            tried = _try(bars, features, Segment(fold.validation, tuple(members)), advice, env, fusion)
            fresh = max(known - fold.validation.start, 0)  # bars that an earlier validation range has counted already
            pooled, known = np.hstack([pooled, tried.grown[:, fresh:]]), max(known, fold.validation.stop)
            choices.append(_choose(fold.index, tried, pooled))
    return tuple(choices)


@dataclass(frozen=True)
class StandingAdvice:
    """The advice that stands at each bar, where it was given anew, and for how many bars it stands; shape (n_bars, n_symbols) each."""

    actions: IntArray
    confidences: FloatArray
    given: BoolArray
    horizon: int

    @classmethod
    def of(cls, signals: Signals, bars: Bars) -> "StandingAdvice":
        """Of a table of advice."""
        return cls(*signals.align_to_bars(bars), signals.freshness(bars) == 1, signals.cadence_bars)

    def decisions(self, first: int, stop: int) -> list[Decision]:
        """The advice given after the closes of bars `first` to `stop` - 1."""
        fresh = np.where(self.given, self.actions, HOLD)
        return [(bar, fresh[bar], self.confidences[bar]) for bar in range(first, stop)]


@dataclass(frozen=True)
class RecordedVote(EnsembleStrategy):
    """A vote that keeps every decision."""

    decisions: list[Decision] = field(default_factory=list, kw_only=True)

    def targets(self, context: DecisionContext) -> FloatArray:
        actions, confidences = ensemble_action(context.predictions[:, 0])
        self.decisions.append((context.bar, actions, confidences))
        return super().targets(context)


@dataclass(frozen=True)
class _Tried:
    """What one validation range shows: a calibration of each side, and log growth of every candidate, shape (n_candidates, n_bars)."""

    vote: Calibration
    advisor: Calibration
    specs: list[FusionSpec]
    grown: FloatArray


def _try(bars: Bars, features: FeatureSet, segment: Segment, advice: StandingAdvice, env: EnvSpec, fusion: FusionSpec) -> _Tried:
    """Calibrate both sides on a validation range and run every candidate over it."""
    voter = RecordedVote(bars=bars, env=env)
    run_backtests(bars, features, [segment], [voter], env, keep=())
    stop = segment.bars.stop
    vote = calibrate(bars, voter.decisions, advice.horizon, stop)
    advisor = calibrate(bars, advice.decisions(segment.bars.start - 1, stop), advice.horizon, stop)
    specs = candidates(fusion)
    ids, k = tuple(StrategyId(f"candidate-{i}") for i in range(len(specs))), len(specs)
    actions, confidences = np.repeat(advice.actions[None], k, axis=0), np.repeat(advice.confidences[None], k, axis=0)
    fused = FusedStrategy(ids, actions, confidences, bars, env, tuple(specs), calibrations=(vote, advisor))
    equity = np.maximum(run_backtests(bars, features, [segment], [fused], env, keep=()).equity, _RUIN)
    return _Tried(vote, advisor, specs, np.diff(np.log(equity), axis=1))


def _choose(fold: int, tried: _Tried, pooled: FloatArray) -> FusionChoice:
    """One fold's choice, from what every candidate earned on all validation ranges so far, shape (n_candidates, n_bars)."""
    table = tuple(_candidate(spec, float(each.mean())) for spec, each in zip(tried.specs, pooled, strict=True))
    lead = lead_of(table, pooled)
    chosen = lead.best if lead.tells_apart else table[0]
    return FusionChoice(fold=fold, calibration=tried.vote, advisor=tried.advisor, chosen=chosen, lead=lead, table=table)


def lead_of(table: Sequence[Candidate], grown: FloatArray) -> Lead:
    """What the best candidate earned more than the first.

    Args:
        grown: shape (n_candidates, n_bars), log growth of each.
    """
    best = int(np.argmax([candidate.growth for candidate in table]))
    found = mean_by_errors(grown[best] - grown[0], _CONFIDENCE)
    if not np.isfinite(found.error):
        return Lead(best=table[best], difference=table[best].growth - table[0].growth)
    return Lead(best=table[best], difference=found.value, error=found.error, low=found.low, high=found.high)


def _candidate(spec: FusionSpec, growth: float) -> Candidate:
    return Candidate(llm_weight=spec.llm_weight, confidence_threshold=spec.confidence_threshold, growth=growth)


def calibrate(bars: Bars, decisions: Sequence[Decision], horizon: int, stop: int) -> Calibration:
    """Calibrate on decisions whose outcome is known by the close of bar `stop` - 1."""
    return fit_calibration(*outcomes_of(bars, decisions, horizon, stop))


def outcomes_of(bars: Bars, decisions: Sequence[Decision], horizon: int, stop: int) -> tuple[FloatArray, BoolArray]:
    """How sure BUY and SELL decisions were and whether they were right, those whose outcome is known by the close of bar `stop` - 1.

    A BUY is right when the close `horizon` bars after its decision lies above the open it could fill at, a SELL when it lies
    below. A symbol without a bar to fill in, or whose price did not move, says nothing. Outcomes of one symbol never overlap: after a
    decision that counts, the next one is the first to buy or sell when its outcome is known.

    Returns:
        Confidences and whether each was right, shape (n,).
    """
    confidences: list[FloatArray] = []
    right: list[BoolArray] = []
    free = np.zeros(bars.n_symbols, dtype=np.int64)
    for bar, actions, sure in decisions:
        if bar + horizon >= stop:
            continue
        moved = bars.mark[bar + horizon] - np.where(bars.tradable[bar + 1], bars.open[bar + 1], np.nan)
        counts = (actions != HOLD) & np.isfinite(moved) & (moved != 0) & (free <= bar)
        free[counts] = bar + horizon
        confidences.append(sure[counts])
        right.append(((actions == BUY) == (moved > 0))[counts])
    return np.concatenate([*confidences, np.empty(0)]), np.concatenate([*right, np.empty(0, dtype=np.bool_)])
