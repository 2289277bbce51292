"""What the members of a fold think, and their vote.

A member's confidence is its own probability of the action it would take. The vote averages the members' probabilities
and takes the likeliest action; its confidence is that mean probability.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from ploutos.envs.actions import N_ACTIONS
from ploutos.training.checkpoint import Policy
from ploutos.types import Float32Array, FloatArray, IntArray


def action_probabilities(policy: Policy, observations: Float32Array) -> FloatArray:
    """A member's probability of each action.

    Args:
        observations: shape (n, n_columns).

    Returns:
        Shape (n, n_symbols, 3).
    """
    network = policy.model.policy
    with torch.no_grad():  # one softmax for all symbols; stable-baselines3 builds a distribution object per symbol
        seen = cast(torch.Tensor, network.extract_features(torch.from_numpy(observations), network.pi_features_extractor))
        logits = network.action_net(network.mlp_extractor.forward_actor(seen)).reshape(len(observations), -1, N_ACTIONS)
        return np.asarray(torch.softmax(logits.double(), dim=-1).numpy())


def member_probabilities(policies: Sequence[Policy], observations: Float32Array) -> FloatArray:
    """Shape (n_members, n, n_symbols, 3)."""
    return np.stack([action_probabilities(policy, observations) for policy in policies])


def vote(probabilities: FloatArray) -> tuple[IntArray, FloatArray]:
    """The likeliest action of the mean and its probability.

    Args:
        probabilities: shape (n_members, ..., 3); one member votes for itself.

    Returns:
        Actions and confidences, shape (...).
    """
    mean = probabilities.mean(axis=0)
    return mean.argmax(axis=-1), mean.max(axis=-1)
