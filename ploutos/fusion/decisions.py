"""Decision fusion: one action, or one target weight, from a policy's and an advisor's, by fixed rules, for a whole batch at once."""

import numpy as np
from numba import njit

from ploutos.envs.actions import HOLD
from ploutos.fusion.spec import FusionSpec
from ploutos.types import FloatArray, IntArray


@njit(cache=True, nogil=True)
def _fuse(
    rl: IntArray, rl_confidence: FloatArray, llm: IntArray, llm_confidence: FloatArray, risk: FloatArray,
    risk_threshold: float, confidence_threshold: float, llm_weight: float,
) -> IntArray:  # fmt: skip
    """The rules of `fuse_batch`, compiled. Each is worked out for every decision: a choice, where a jump would be guessed wrong."""
    fused = np.empty(rl.shape, rl.dtype)
    if not rl.size == rl_confidence.size == llm.size == llm_confidence.size == risk.size:
        raise ValueError("actions, confidences and risk scores differ in length; expected one of each per decision")
    a, p, b, q, r, out = rl.ravel(), rl_confidence.ravel(), llm.ravel(), llm_confidence.ravel(), risk.ravel(), fused.ravel()
    for i in range(a.size):
        rl_sure, llm_sure = p[i] > confidence_threshold, q[i] > confidence_threshold
        heavier = q[i] * llm_weight > p[i] * (1 - llm_weight)
        take_llm = heavier if rl_sure == llm_sure else llm_sure
        either = b[i] if take_llm else a[i]  # the same where both agree
        out[i] = HOLD if r[i] > risk_threshold else either
    return fused


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

        Raises:
            ValueError: they differ in length.

        >>> fuse = VectorizedDecisionFusion().fuse_batch
        >>> fuse(np.array([1, 1]), np.array([0.5, 0.5]), np.array([2, 2]), np.array([0.9, 0.9]), np.array([0.0, 0.9])).tolist()
        [2, 0]
        """
        spec = self.spec
        limits = spec.risk_threshold, spec.confidence_threshold, spec.llm_weight
        fused: IntArray = _fuse(rl_actions, rl_confidences, llm_actions, llm_confidences, risk_scores, *limits)
        return fused

    def blend_batch(
        self,
        rl_weights: FloatArray,
        rl_confidences: FloatArray,
        llm_weights: FloatArray,
        llm_confidences: FloatArray,
        risk_scores: FloatArray,
    ) -> FloatArray:
        """One target weight per decision, for policies that give weights. Rules, the first that applies:

        1. risk above its threshold: no order;
        2. the advisor says HOLD, which has no weight to pull to: the policy's;
        3. else a point between the two, at the advisor's share `s = l / (l + p)` of the way from the policy's, where
           `l = llm_confidence * w` and `p = rl_confidence * (1 - w)`; the policy's when both are 0.

        These are the rules of `fuse_batch` by degrees: where both want the same that is what comes out, the side that is more
        confident draws it nearer, and the two numbers that rule 5 there compares are weighed here. Nothing jumps when a confidence
        passes the threshold, which has no part in a blend.

        Args:
            rl_weights: any shape, shares of equity.
            llm_weights: the same shape, what the advice asks for; nan for HOLD.
            rl_confidences, llm_confidences, risk_scores: the same shape, 0..1.

        Returns:
            Shares of equity, nan for no order. A blend lies between the two weights, is the policy's with `llm_weight` 0, and moves
            continuously with both weights, both confidences and `llm_weight` as long as `l` and `p` are not both 0.

        >>> blend = VectorizedDecisionFusion(FusionSpec(llm_weight=0.5)).blend_batch
        >>> blend(np.array([0.2, 0.2]), np.array([0.9, 0.9]), np.array([0.5, np.nan]), np.array([0.45, 0.9]), np.zeros(2)).round(3).tolist()
        [0.3, 0.2]
        """
        spec = self.spec
        llm, rl = llm_confidences * spec.llm_weight, rl_confidences * (1 - spec.llm_weight)
        share = np.divide(llm, llm + rl, out=np.zeros_like(llm), where=llm > 0)
        blended = np.where(np.isnan(llm_weights), rl_weights, rl_weights + share * (llm_weights - rl_weights))
        return np.where(risk_scores > spec.risk_threshold, np.nan, blended)
