"""The summary of a run whole: what was measured, what else was found, where growth came from, and the gates."""

from collections.abc import Sequence
from dataclasses import dataclass

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.attribution import Ablations, attributions
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.candidates import Candidates
from ploutos.evaluation.gates import judge, stressed
from ploutos.evaluation.spec import GateSpec
from ploutos.evaluation.summary import AdviceControls, Recombined, Robustness, RunSummary
from ploutos.fusion.calibration import FusionChoice
from ploutos.market.bars import Bars
from ploutos.strategies.advised import FUSED, FUSED_ABLATED
from ploutos.strategies.baselines import BUY_AND_HOLD
from ploutos.strategies.ensemble import VOTE
from ploutos.walk_forward import Fold

ABLATIONS = {FUSED.slug: Ablations(without_advice=FUSED_ABLATED.slug, without_veto=VOTE.slug)}
"""What shows the worth of advice and of vetoes, where both ran."""


@dataclass(frozen=True)
class Findings:
    """What a run found beside its accounts; empty where it did not ask."""

    fusion: tuple[FusionChoice, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    controls: AdviceControls | None = None
    recombined: tuple[Recombined, ...] = ()


def judged(
    measured: RunSummary,
    found: Findings,
    backtests: Backtests,
    bars: Bars,
    folds: Sequence[Fold],
    candidates: Candidates,
    env: EnvSpec,
    gates: GateSpec,
    seed: int,
    *,
    reads_texts: bool = False,
) -> RunSummary:
    """The summary with all findings and its gates.

    Args:
        measured: from `ploutos.evaluation.measurement.summarise`.
        backtests: of the run.
        candidates, reads_texts: as in `ploutos.evaluation.gates.judge`.
    """
    whole = {
        "fusion": found.fusion,
        "attribution": attributions(bars, backtests, (FUSED.slug, VOTE.slug, BUY_AND_HOLD), env, folds, ABLATIONS),
        "robustness": found.robustness,
        "controls": found.controls,
        "recombined": found.recombined,
    }
    summary = measured.model_copy(update=whole)
    outcome = judge(summary, backtests, bars, folds, candidates, gates, seed, reads_texts=reads_texts, **stressed(summary))
    return summary.model_copy(update={"gates": outcome})
