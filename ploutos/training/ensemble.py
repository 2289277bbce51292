"""What the members of a fold think, and their vote.

A member's confidence is its own probability of the action it would take. The vote averages the members' probabilities
and takes the likeliest action; its confidence is that mean probability.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ploutos.envs.actions import N_ACTIONS
from ploutos.training.checkpoint import Policy
from ploutos.types import BoolArray, Float32Array, FloatArray, IntArray


@dataclass
class Memory:
    """What a recurrent policy remembers of every account, from one bar to the next; it starts out empty."""

    state: tuple[torch.Tensor, torch.Tensor] | None = None


def action_probabilities(
    policy: Policy, observations: Float32Array, masks: BoolArray | None = None, memory: Memory | None = None
) -> FloatArray:
    """A member's probability of each action.

    Args:
        observations: shape (n, n_columns).
        masks: shape (n, n_symbols * 3), what is allowed; only a masked policy reads it.
        memory: of the same n accounts; only a recurrent policy reads it, and leaves in it what it remembers now.

    Returns:
        Shape (n, n_symbols, 3).
    """
    network: Any = policy.model.policy
    with torch.no_grad():  # one softmax for all symbols; stable-baselines3 builds a distribution object per symbol
        seen = network.extract_features(torch.from_numpy(observations), network.pi_features_extractor)
        if policy.recurrent:
            memory = Memory() if memory is None else memory
            nothing = torch.zeros(1, len(observations), network.lstm_actor.hidden_size)
            state = memory.state or (nothing, nothing)
            seen, memory.state = network._process_sequence(seen, state, torch.zeros(len(observations)), network.lstm_actor)
        logits = network.action_net(network.mlp_extractor.forward_actor(seen)).reshape(len(observations), -1, N_ACTIONS).double()
        if policy.masked and masks is not None:
            logits = logits.masked_fill(~torch.from_numpy(masks).reshape(logits.shape), -torch.inf)
        return np.asarray(torch.softmax(logits, dim=-1).numpy())


def vote(probabilities: FloatArray) -> tuple[IntArray, FloatArray]:
    """The likeliest action of the mean and its probability.

    Args:
        probabilities: shape (n_members, ..., 3); one member votes for itself.

    Returns:
        Actions and confidences, shape (...).
    """
    mean = probabilities.mean(axis=0)
    return mean.argmax(axis=-1), mean.max(axis=-1)
