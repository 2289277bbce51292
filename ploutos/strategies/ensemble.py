"""What the members of a fold think, and their vote.

A member's confidence is its own probability of the action it would take. The vote averages the members' probabilities
and takes the likeliest action; its confidence is that mean probability. Where members give weights, theirs are averaged;
a member's confidence is then its probability of a weight on the side that it takes, and the vote's is the mean of those.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces

from ploutos.envs.actions import BUY, HOLD, N_ACTIONS, SELL
from ploutos.training.checkpoint import Policy
from ploutos.types import BoolArray, Float32Array, FloatArray, IntArray

_WEIGHT_AND_CONFIDENCE = 2


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
    with torch.no_grad():  # one softmax for all symbols; stable-baselines3 builds a distribution object per symbol
        logits = _last_layer(policy, observations, memory).reshape(len(observations), -1, N_ACTIONS)
        if policy.masked and masks is not None:
            logits = logits.masked_fill(~torch.from_numpy(masks).reshape(logits.shape), -torch.inf)
        return np.asarray(torch.softmax(logits, dim=-1).numpy())


def weights_and_confidences(policy: Policy, observations: Float32Array, memory: Memory | None = None) -> FloatArray:
    """What a member that gives weights would hold, and how sure it is.

    Args:
        observations, memory: as in `action_probabilities`.

    Returns:
        Shape (n, n_symbols, 2): the mean weight, cut to the action space, as a share of the gross limit; and the probability
        that a weight drawn from the policy has the sign of its mean, 0.5..1.
    """
    network: Any = policy.model.policy
    space = cast(spaces.Box, policy.model.action_space)
    with torch.no_grad():
        mean = _last_layer(policy, observations, memory)
        sure = torch.special.ndtr(mean.abs() / network.log_std.double().exp())
    return np.stack([np.clip(mean.numpy(), space.low, space.high), sure.numpy()], axis=-1)


def answer(policy: Policy, observations: Float32Array, masks: BoolArray | None = None, memory: Memory | None = None) -> FloatArray:
    """What a member says in its own way: `weights_and_confidences` or `action_probabilities`."""
    if policy.gives_weights:
        return weights_and_confidences(policy, observations, memory)
    return action_probabilities(policy, observations, masks, memory)


def _last_layer(policy: Policy, observations: Float32Array, memory: Memory | None) -> torch.Tensor:
    """What the actor's last layer puts out, float64: logits of all symbols, or the means of their weights."""
    network: Any = policy.model.policy
    seen = network.extract_features(torch.from_numpy(observations), network.pi_features_extractor)
    if policy.recurrent:
        memory = Memory() if memory is None else memory
        nothing = torch.zeros(1, len(observations), network.lstm_actor.hidden_size)
        state = memory.state or (nothing, nothing)
        seen, memory.state = network._process_sequence(seen, state, torch.zeros(len(observations)), network.lstm_actor)
    out: torch.Tensor = network.action_net(network.mlp_extractor.forward_actor(seen))
    return out.double()


def mean_weights(answers: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The members' mean weight and mean confidence.

    Args:
        answers: shape (n_members, ..., 2), from `weights_and_confidences`; one member answers for itself.

    Returns:
        Weights, shares of the gross limit, and confidences, shape (...).
    """
    mean = answers.mean(axis=0)
    return mean[..., 0], mean[..., 1]


def vote(probabilities: FloatArray) -> tuple[IntArray, FloatArray]:
    """The likeliest action of the mean and its probability.

    Args:
        probabilities: shape (n_members, ..., 3); one member votes for itself.

    Returns:
        Actions and confidences, shape (...).
    """
    mean = probabilities.mean(axis=0)
    return mean.argmax(axis=-1), mean.max(axis=-1)


def gives_weights(answers: FloatArray) -> bool:
    """Whether answers are weights and confidences; else they are probabilities of actions."""
    return answers.shape[-1] == _WEIGHT_AND_CONFIDENCE


def leaning(answers: FloatArray) -> tuple[IntArray, FloatArray]:
    """Which way the members lean together and how sure they are, whichever way they answer.

    Args:
        answers: shape (n_members, ..., 3) or (n_members, ..., 2), from `answer`.

    Returns:
        Actions and confidences, shape (...): those of the vote, or BUY for a mean weight above 0, SELL below it, HOLD at 0.
    """
    if not gives_weights(answers):
        return vote(answers)
    weights, confidences = mean_weights(answers)
    return np.where(weights > 0, BUY, np.where(weights < 0, SELL, HOLD)), confidences
