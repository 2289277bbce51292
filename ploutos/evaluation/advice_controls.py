"""Two looks at the advice that need no interval: its rank among advice that cannot help, and how often each side's confidence is right.

The rank is a permutation test. The fused account and its copies run through the test ranges in one batch; each copy follows the same
advice, shifted in time, which keeps its mix, its order and its trading, and only equity is kept. That is cheap enough for some hundred
draws. Reliability is of test ranges: confidences calibrated on the validation range before them, beside what then happened.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from ploutos.advisor.placebos import shifted
from ploutos.advisor.signals import Signals
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.fusion_selection import Decision, RecordedVote, StandingAdvice, outcomes_of
from ploutos.evaluation.summary import AdviceControls, PlaceboRank, ReliabilityBin, Side
from ploutos.features.build import FeatureSet
from ploutos.fusion.calibration import Calibration, FusionChoice
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars
from ploutos.store import Kind, write_json
from ploutos.strategies.advised import FUSED, FusedStrategy
from ploutos.strategies.base import Role, StrategyId
from ploutos.training.checkpoint import Policy
from ploutos.types import BoolArray, FloatArray, IntArray
from ploutos.walk_forward import Fold, tested_decisions

_BINS, _FEWEST_IN_BIN = 10, 30


def control_advice(
    bars: Bars,
    features: FeatureSet,
    folds: Sequence[Fold],
    policies: Sequence[Sequence[Policy]],
    signals: Signals,
    env: EnvSpec,
    fusion: FusionSpec,
    seed: int,
    draws: int,
    choices: tuple[FusionChoice, ...] = (),
) -> AdviceControls:
    """The rank of the advice among shifted copies of itself, and the reliability of both sides, over the test ranges.

    Args:
        policies: one sequence of members per fold.
        draws: shifted copies; 0 leaves the rank out.
        choices: fusion's parameters and calibrations of each fold; none to take what is configured and confidences as they are.
    """
    tested = signals.within(*tested_decisions(folds))
    tables = [each.align_to_bars(bars) for each in (signals, *(shifted(tested, seed, draw) for draw in range(draws)))]
    ids = (FUSED, *(StrategyId(f"rank-{draw}", Role.PLACEBO) for draw in range(draws)))
    actions, sure = np.stack([acts for acts, _ in tables]), np.stack([sure for _, sure in tables])
    fused, voter = FusedStrategy(ids, actions, sure, bars, env, (fusion,), choices), RecordedVote(bars=bars, env=env)
    segments = [Segment(fold.test, members) for fold, members in zip(folds, policies, strict=True)]
    equity = run_backtests(bars, features, segments, [fused, voter], env, keep=()).equity
    first, stop = folds[0].test.start - 1, folds[-1].test.stop
    advice = StandingAdvice.of(signals, bars).decisions(first, stop)
    bins = [
        row
        for side, decisions in ((Side.POLICIES, voter.decisions), (Side.ADVISOR, advice))
        for row in reliability_of(bars, side, _calibrated(decisions, side, folds, choices), signals.cadence_bars, stop)
    ]
    returns = equity[: len(ids), -1] / equity[: len(ids), 0] - 1
    return AdviceControls(rank=rank_of(returns[0], returns[1:]) if draws else None, calibrated=bool(choices), reliability=tuple(bins))


def rank_of(own: float, drawn: FloatArray) -> PlaceboRank:
    """Where a return stands among those of placebos.

    >>> rank_of(0.3, np.array([0.1, 0.2, 0.3, 0.4])).p
    0.6
    """
    low, median, high = np.quantile(drawn, [0.025, 0.5, 0.975]).tolist()
    beaten = int((drawn < own).sum())
    return PlaceboRank(
        draws=len(drawn), beaten=beaten, p=(1 + len(drawn) - beaten) / (1 + len(drawn)), own=float(own), low=low, median=median, high=high
    )


def _calibrated(decisions: Sequence[Decision], side: Side, folds: Sequence[Fold], choices: Sequence[FusionChoice]) -> list[Decision]:
    """The same with each confidence as fusion takes it in the fold that it belongs to."""
    if not choices:
        return list(decisions)
    starts = [fold.test.start - 1 for fold in folds[1:]]

    def fitted(bar: int) -> Calibration:
        choice = choices[int(np.searchsorted(starts, bar, side="right"))]
        return choice.calibration if side is Side.POLICIES else choice.advisor

    return [(bar, actions, fitted(bar).apply(actions, sure)) for bar, actions, sure in decisions]


def reliability_of(bars: Bars, side: Side, decisions: Sequence[Decision], horizon: int, stop: int) -> list[ReliabilityBin]:
    """What was said to be the chance of the right direction, and how often it was right, in bins of about as many decisions each.

    Outcomes are those of `outcomes_of`: non-overlapping, HOLD left out, which names no direction.
    """
    said, right = outcomes_of(bars, decisions, horizon, stop)
    if not len(said):
        return []
    edges = np.unique(np.quantile(said, np.linspace(0, 1, max(min(_BINS, len(said) // _FEWEST_IN_BIN), 1) + 1)))
    place: IntArray = np.searchsorted(edges[1:-1], said, side="right")
    return [_bin(side, said[place == i], right[place == i]) for i in np.unique(place)]


def _bin(side: Side, said: FloatArray, right: BoolArray) -> ReliabilityBin:
    n, hits = len(right), int(right.sum())
    interval = binomtest(hits, n).proportion_ci(0.95, "exact")
    return ReliabilityBin(side=side, n=n, said=float(said.mean()), right=hits / n, low=float(interval.low), high=float(interval.high))


def write_controls(controls: AdviceControls, path: Path) -> None:
    """Write as JSON."""
    write_json(path, controls.model_dump(mode="json"))


def read_controls(path: Path) -> AdviceControls:
    """Read what `write_controls` wrote."""
    return AdviceControls.model_validate(json.loads(path.read_text(encoding="utf-8")))


CONTROLS = Kind("advice-controls", ".json", write_controls, read_controls)
