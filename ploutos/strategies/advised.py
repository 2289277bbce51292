"""Accounts that follow an advisor: its standing advice alone, or fused with the policies' vote under the risk veto."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ploutos.advisor.signals import Signals
from ploutos.envs.spec import EnvSpec
from ploutos.fusion.calibration import Calibration, FusionChoice
from ploutos.fusion.decisions import VectorizedDecisionFusion
from ploutos.fusion.risk import RiskHistory
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars
from ploutos.strategies.base import DecisionContext, Role, StrategyId, weights_of_actions
from ploutos.strategies.ensemble import ensemble_action, ensemble_weights, is_continuous
from ploutos.types import FloatArray, IntArray

FUSED, ADVISOR = StrategyId("fused", Role.FUSED), StrategyId("advisor", Role.ADVISOR)
FUSED_ABLATED = StrategyId("fused-ablated", Role.ABLATION)
"""The fused strategy with blank advice: the vote under the same risk veto and calibration."""
MIRRORED = StrategyId("mirrored", Role.PLACEBO)
"""Follows what the advisor says about the mirrored market, and nothing else."""


@dataclass(frozen=True)
class AdvisorStrategy:
    """Accounts that follow advice and nothing else.

    Attributes:
        ids: one account per table of advice.
        advised_actions: shape (n_accounts, n_bars, n_symbols), HOLD, BUY or SELL.
    """

    ids: tuple[StrategyId, ...]
    advised_actions: IntArray
    bars: Bars
    env: EnvSpec
    asks_policies = False

    @classmethod
    def of(cls, signals: Signals, bars: Bars, env: EnvSpec | None = None) -> "AdvisorStrategy":
        """One account that follows one table of advice."""
        return cls((ADVISOR,), signals.align_to_bars(bars)[0][None], bars, env or EnvSpec())

    def targets(self, context: DecisionContext) -> FloatArray:
        return weights_of_actions(self.advised_actions[:, context.bar], self.bars, context.bar, self.env)


@dataclass(frozen=True)
class FusedStrategy:
    """Accounts that fuse the vote of all members with advice, each with a table of advice of its own.

    Attributes:
        ids: one account per table of advice, or per spec where there is one table.
        advised_actions: shape (n_accounts, n_bars, n_symbols), HOLD, BUY or SELL.
        confidences: the same shape, 0..1.
        fusion: one spec for all accounts, or one each; their risk limits are the same.
        choices: one per segment, whose parameters and calibrations take the place of what `fusion` says; or none.
        calibrations: of the vote's and of the advisor's confidence where there are no choices; None leaves both as they are. One side
            alone is never calibrated: a raw confidence and a chance are not to be compared.
    """

    ids: tuple[StrategyId, ...]
    advised_actions: IntArray
    confidences: FloatArray
    bars: Bars
    env: EnvSpec
    fusion: tuple[FusionSpec, ...]
    choices: tuple[FusionChoice, ...] = ()
    calibrations: tuple[Calibration, Calibration] | None = None
    asks_policies = True

    @cached_property
    def _groups(self) -> list[tuple[FusionSpec, slice | IntArray]]:
        """Accounts that share a spec."""
        if len(self.fusion) == 1:
            return [(self.fusion[0], slice(None))]
        rows = range(len(self.ids))
        return [(spec, np.array([row for row in rows if self.fusion[row] == spec])) for spec in dict.fromkeys(self.fusion)]

    @cached_property
    def _chosen(self) -> list[FusionSpec]:
        """What each segment's choice makes of the spec."""
        return [choice.applied(self.fusion[0]) for choice in self.choices]

    def targets(self, context: DecisionContext) -> FloatArray:
        wanted, history = self.wanted(context)
        return history.veto(wanted, context.held)

    def wanted(self, context: DecisionContext) -> tuple[FloatArray, RiskHistory]:
        """Target weights before the risk veto, and what the veto goes by."""
        bar, predictions = context.bar, context.predictions
        groups, calibrations = self._groups, self.calibrations
        if self.choices:
            choice = self.choices[context.segment]
            groups, calibrations = [(self._chosen[context.segment], groups[0][1])], (choice.calibration, choice.advisor)
        actions, confidences = ensemble_action(predictions)
        advised_actions, sure = self.advised_actions[:, bar], self.confidences[:, bar]
        if calibrations is not None:
            confidences, sure = calibrations[0].apply(actions, confidences), calibrations[1].apply(advised_actions, sure)
        history = RiskHistory.of(context.accounts, bar, self.fusion[0].risk)
        risk = history.scores()
        if is_continuous(predictions):
            policies = ensemble_weights(predictions, self.bars, bar, self.env)
            advised = weights_of_actions(advised_actions, self.bars, bar, self.env)
            wanted = np.empty_like(policies)
            for spec, rows in groups:
                blend = VectorizedDecisionFusion(spec).blend_batch
                wanted[rows] = blend(policies[rows], confidences[rows], advised[rows], sure[rows], risk[rows])
        else:
            fused = np.empty_like(actions)
            for spec, rows in groups:
                fuse = VectorizedDecisionFusion(spec).fuse_batch
                fused[rows] = fuse(actions[rows], confidences[rows], advised_actions[rows], sure[rows], risk[rows])
            wanted = weights_of_actions(fused, self.bars, bar, self.env)
        return wanted, history
