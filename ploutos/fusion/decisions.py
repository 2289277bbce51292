"""Decision fusion: one action from a policy's and an advisor's, by fixed rules, for a whole batch at once."""

import numpy as np
from pydantic import Field

from ploutos.envs.actions import HOLD
from ploutos.fusion.risk import RiskSpec
from ploutos.specs import Spec
from ploutos.types import FloatArray, IntArray


class FusionSpec(Spec):
    """Who is heard when policy and advisor disagree."""

    risk_threshold: float = Field(default=0.7, ge=0, le=1)
    """Above this risk the answer is HOLD, whoever says what."""
    confidence_threshold: float = Field(default=0.7, ge=0, le=1)
    """Above this, one confident side wins over one that is not."""
    llm_weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of the advisor's confidence when neither side wins by itself."""
    choose: bool = True
    """Calibrate the policy's confidence, and choose `llm_weight` and `confidence_threshold`, on each fold's validation range; what is
    set here wins ties. False takes what is set here."""
    risk: RiskSpec = RiskSpec()
    """Risk limits."""


class VectorizedDecisionFusion:
    """Fuses a batch of decisions in the documented order of rules."""

    def __init__(self, spec: FusionSpec | None = None) -> None:
        self.spec = spec or FusionSpec()

    def fuse_batch(
        self,
        rl_actions: IntArray,
        rl_confidences: FloatArray,
        llm_actions: IntArray,
        llm_confidences: FloatArray,
        risk_scores: FloatArray,
    ) -> IntArray:
        """One action per decision. Rules, the first that applies:

        1. risk above its threshold: HOLD;
        2. both agree: that action;
        3. the policy is confident and the advisor is not: the policy's;
        4. the advisor is confident and the policy is not: the advisor's;
        5. else the larger of `rl_confidence * (1 - w)` and `llm_confidence * w`; the policy's when equal.

        Args:
            rl_actions, llm_actions: any one shape, HOLD, BUY or SELL.
            rl_confidences, llm_confidences, risk_scores: the same shape, 0..1.

        >>> fuse = VectorizedDecisionFusion().fuse_batch
        >>> fuse(np.array([1, 1]), np.array([0.5, 0.5]), np.array([2, 2]), np.array([0.9, 0.9]), np.array([0.0, 0.9])).tolist()
        [2, 0]
        """
        spec = self.spec
        rl_sure = rl_confidences > spec.confidence_threshold
        llm_sure = llm_confidences > spec.confidence_threshold
        heavier = llm_confidences * spec.llm_weight > rl_confidences * (1 - spec.llm_weight)
        take_llm = np.where(rl_sure == llm_sure, heavier, llm_sure)
        fused = np.where((rl_actions == llm_actions) | ~take_llm, rl_actions, llm_actions)
        return np.where(risk_scores > spec.risk_threshold, HOLD, fused)
