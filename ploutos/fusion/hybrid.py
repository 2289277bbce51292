"""The hybrid policy: what it observes beside its own features, and how long it is fine-tuned.

It starts from the Phase 2 policy of the same fold and member and observes three things more: the 28 market features that
the advisor reads, the advice that stands, and the account's five features, which the environment writes.
"""

from collections.abc import Sequence

import numpy as np

from ploutos.advisor.config import LLMConfig
from ploutos.advisor.schedule import decision_times
from ploutos.advisor.signals import Signals
from ploutos.envs.actions import BUY, SELL
from ploutos.envs.spec import EnvSpec
from ploutos.features.build import FeatureSet
from ploutos.features.llm_features import MARKET_NAMES
from ploutos.fusion.spec import HybridSpec
from ploutos.market.bars import Bars
from ploutos.training.spec import TrainingSpec
from ploutos.types import Float32Array
from ploutos.walk_forward import Fold, tested_decisions

ADVICE_NAMES = (
    "advice",  # the stance times its confidence: 1 a sure BUY, -1 a sure SELL, 0 HOLD
    "advice_freshness",  # 1 where advice was just given, falling to 0 where none stands; 0 for an abstention
)


def hybrid_features(features: FeatureSet, bars: Bars, market: Float32Array, signals: Signals | None) -> FeatureSet:
    """Phase 2's features, and beside them what the advisor reads and what it says.

    Row *t* uses bars up to and including *t* and advice given after the close of *t* or before. A symbol is usable where
    its Phase 2 features are numbers, as before: the longest window of the 28 is 840 bars, which would empty short training
    ranges. One of the 28 that is not known yet is nan here and reads as its training mean.

    Args:
        market: shape (n_bars, n_symbols, 28), from `market_features`.
        signals: None leaves the advice blank, which is HOLD at confidence 0 and never fresh.
    """
    advice = np.zeros((*market.shape[:2], len(ADVICE_NAMES)), dtype=np.float32)
    if signals is not None:
        actions, confidences = signals.align_to_bars(bars)
        advice[..., 0] = confidences * ((actions == BUY).astype(float) - (actions == SELL))
        advice[..., 1] = signals.freshness(bars)
    return FeatureSet(
        values=np.concatenate([features.values, market, advice], axis=2),
        names=hybrid_names(features.names),
        timestamps=features.timestamps,
        available_at=features.available_at,
        symbols=features.symbols,
        n_required=features.values.shape[2],
    )


def hybrid_names(features: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a hybrid policy's features, Phase 2's first."""
    return (*features, *(f"llm.{name}" for name in (*MARKET_NAMES, *ADVICE_NAMES)))


def hybrid_env(env: EnvSpec) -> EnvSpec:
    """The environment of a hybrid policy, which observes its account."""
    return env.model_copy(update={"observe_account": True})


def advised_decisions(folds: Sequence[Fold], hybrid: bool, choose: bool) -> tuple[int, int]:
    """First and last bar after whose close advice is read.

    Args:
        hybrid: policies are trained on the advice.
        choose: fusion is chosen on the validation ranges.
    """
    first = folds[0].train if hybrid else folds[0].validation if choose else folds[0].test
    return max(first.start - 1, 0), tested_decisions(folds)[1]


def n_more_questions(bars: Bars, market: Float32Array, folds: Sequence[Fold], first: int, config: LLMConfig) -> int:
    """Questions that hybrid policies would take beside those from bar `first` on."""
    from_start, last = advised_decisions(folds, True, True)
    n_all, n_asked = (len(decision_times(bars, market, start, last, config)) for start in (from_start, first))
    return n_all - n_asked


def fine_tuning(training: TrainingSpec, spec: HybridSpec) -> TrainingSpec:
    """How a hybrid policy is trained: as Phase 2's, for fewer steps."""
    return training.model_copy(
        update={
            "timesteps_reduction": training.timesteps_reduction * spec.timesteps_share,
            "learning_rate": spec.learning_rate or training.learning_rate,
        }
    )
