"""The vote of a fold's members.

A member's confidence is its own probability of the action it would take. The vote averages the members' probabilities
and takes the likeliest action; its confidence is that mean probability. Where members give weights, theirs are averaged;
a member's confidence is then its probability of a weight on the side that it takes, and the vote's is the mean of those.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from ploutos.envs.actions import BUY, HOLD, SELL, weights_within
from ploutos.envs.spec import EnvSpec
from ploutos.market.bars import Bars
from ploutos.strategies.base import DecisionContext, Role, StrategyId, weights_of_actions
from ploutos.types import FloatArray, IntArray

_WEIGHT_AND_CONFIDENCE = 2
VOTE = StrategyId("vote", Role.VOTE)
HYBRID, HYBRID_ABLATED = StrategyId("hybrid", Role.HYBRID), StrategyId("hybrid-ablated", Role.ABLATION)


def member_id(member: int) -> StrategyId:
    """Of the account of one member."""
    return StrategyId(f"member-{member}", Role.MEMBER)


def mean_weights(predictions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The members' mean weight and mean confidence.

    Args:
        predictions: shape (n_members, ..., 2); one member answers for itself.

    Returns:
        Weights, shares of the gross limit, and confidences, shape (...).
    """
    mean = predictions.mean(axis=0)
    return mean[..., 0], mean[..., 1]


def vote(probabilities: FloatArray) -> tuple[IntArray, FloatArray]:
    """The likeliest action of the mean and its probability.

    Args:
        probabilities: shape (n_members, ..., 3); one member votes for itself.

    Returns:
        Actions and confidences, shape (...).
    """
    shape = probabilities.shape
    actions, confidences = _vote(probabilities.reshape(shape[0], -1, shape[-1]))
    return actions.reshape(shape[1:-1]), confidences.reshape(shape[1:-1])


@njit(cache=True, nogil=True, error_model="numpy")
def _vote(probabilities: FloatArray) -> tuple[IntArray, FloatArray]:
    """The first of the likeliest actions of the mean, and its probability; shape (n,) each."""
    n_members, n, n_actions = probabilities.shape
    actions, confidences = np.zeros(n, np.int64), np.empty(n)
    for i in range(n):
        for action in range(n_actions):
            mean = 0.0
            for member in range(n_members):
                mean += probabilities[member, i, action]
            mean /= n_members
            if action == 0 or mean > confidences[i]:
                actions[i], confidences[i] = action, mean
    return actions, confidences


@njit(cache=True, nogil=True, error_model="numpy")
def _votes(probabilities: FloatArray, voters: IntArray) -> IntArray:
    """The vote of each account's own members.

    Args:
        probabilities: shape (n_members, n, n_symbols, 3).
        voters: shape (n, 3), first member, last and step.

    Returns:
        Shape (n, n_symbols).
    """
    actions = np.empty(probabilities.shape[1:3], np.int64)
    for account in range(len(actions)):
        first, last, step = voters[account]
        actions[account] = _vote(probabilities[first:last:step, account])[0]
    return actions


def is_continuous(predictions: FloatArray) -> bool:
    """Whether predictions are weights and confidences; else they are probabilities of actions."""
    return predictions.shape[-1] == _WEIGHT_AND_CONFIDENCE


def ensemble_action(predictions: FloatArray) -> tuple[IntArray, FloatArray]:
    """Which way the members lean together and how sure they are, whichever way they answer.

    Args:
        predictions: shape (n_members, ..., 3) or (n_members, ..., 2).

    Returns:
        Actions and confidences, shape (...): those of the vote, or BUY for a mean weight above 0, SELL below it, HOLD at 0.
    """
    if not is_continuous(predictions):
        return vote(predictions)
    weights, confidences = mean_weights(predictions)
    return np.where(weights > 0, BUY, np.where(weights < 0, SELL, HOLD)), confidences


def ensemble_weights(predictions: FloatArray, bars: Bars, bar: int, env: EnvSpec) -> FloatArray:
    """Target weights of the members' vote, or of their mean weight.

    Args:
        predictions: shape (n_members, n, n_symbols, 3 or 2).

    Returns:
        Shape (n, n_symbols).
    """
    if is_continuous(predictions):
        return weights_within(mean_weights(predictions)[0], env)
    return weights_of_actions(vote(predictions)[0], bars, bar, env)


@dataclass(frozen=True)
class EnsembleStrategy:
    """Accounts that follow policies: each the vote of some members, or one member alone.

    Attributes:
        members: by account, which members vote.
    """

    members: Mapping[StrategyId, slice] = field(default_factory=lambda: {VOTE: slice(None)})
    bars: Bars = field(kw_only=True)
    env: EnvSpec = field(kw_only=True)
    asks_policies = True

    @property
    def ids(self) -> tuple[StrategyId, ...]:
        return tuple(self.members)

    def targets(self, context: DecisionContext) -> FloatArray:
        predictions = context.predictions
        if is_continuous(predictions):
            own = [mean_weights(predictions[members, account])[0] for account, members in enumerate(self.members.values())]
            return weights_within(np.stack(own), self.env)
        voters = np.array([members.indices(len(predictions)) for members in self.members.values()])
        return weights_of_actions(_votes(predictions, voters), self.bars, context.bar, self.env)


def votes_and_members(n_members: int) -> dict[StrategyId, slice]:
    """The vote of all members, then each alone."""
    return {VOTE: slice(None)} | {member_id(m): slice(m, m + 1) for m in range(n_members)}
