"""One rollout of a batch of accounts, as tensors where the networks are: written once, read by index, never reshaped.

An observation is kept as its bar and the account's own columns; the market's row is looked up. So a rollout of 16,384 steps
with 484 columns takes 3 MB and not 32, and on a GPU only the accounts' own columns cross the bus.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ploutos.types import Float32Array


@njit(cache=True, nogil=True)
def _advantages(rewards, values, starts, last_values, last_starts, gamma, gae_lambda, out):
    one = np.float32(1)
    for i in range(rewards.shape[1]):
        running = np.float32(0)
        for t in range(rewards.shape[0] - 1, -1, -1):
            last = t == rewards.shape[0] - 1
            goes_on = one - (last_starts[i] if last else starts[t + 1, i])
            following = last_values[i] if last else values[t + 1, i]
            running = rewards[t, i] + gamma * following * goes_on - values[t, i] + gamma * gae_lambda * goes_on * running
            out[t, i] = running


class Rollout:
    """`n_steps` steps of `n_envs` accounts.

    Args:
        n_own: columns of an observation that are the account's own.
        n_symbols: actions of one step, whole numbers or, with `weights`, shares.
        n_mask: actions of all symbols together, 0 without masks.

    Attributes:
        bars, own, actions, log_probs: shape (n_steps, n_envs, ...), on the device.
        masks: shape (n_steps, n_envs, n_mask), on the device.
        advantages, returns: shape (n_steps, n_envs), on the device, after `finish`.
        rewards, starts, values: shape (n_steps, n_envs), float32, host.
    """

    def __init__(
        self, n_steps: int, n_envs: int, n_own: int, n_symbols: int, n_mask: int, device: torch.device, weights: bool = False
    ) -> None:
        shape = (n_steps, n_envs)
        self.shape = shape
        self.bars = torch.zeros(shape, dtype=torch.int64, device=device)
        self.own = torch.zeros(*shape, n_own, device=device)
        self.actions = torch.zeros(*shape, n_symbols, dtype=torch.float32 if weights else torch.int64, device=device)
        self.log_probs = torch.zeros(shape, device=device)
        self.values_there = torch.zeros(shape, device=device)
        self.masks = torch.ones(*shape, n_mask, dtype=torch.bool, device=device)
        self.rewards, self.starts = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        self.values = np.zeros(shape, dtype=np.float32)
        self.advantages, self.returns = torch.zeros(shape, device=device), torch.zeros(shape, device=device)

    def finish(self, last_values: Float32Array, last_starts: np.ndarray, gamma: float, gae_lambda: float) -> None:
        """Work out advantages (GAE) and returns.

        Args:
            last_values: shape (n_envs,), of the observation after the last step.
            last_starts: shape (n_envs,), whether that observation begins an episode.
        """
        self.values = self.values_there.cpu().numpy()
        out = np.empty(self.shape, dtype=np.float32)
        _advantages(
            self.rewards, self.values, self.starts, last_values, last_starts.astype(np.float32), np.float32(gamma),
            np.float32(gae_lambda), out,
        )  # fmt: skip
        self.advantages.copy_(torch.from_numpy(out))
        self.returns.copy_(torch.from_numpy(out + self.values))

    def flat(self, tensor: Tensor) -> Tensor:
        """A tensor of this rollout with steps and accounts as one axis."""
        return tensor.view(self.shape[0] * self.shape[1], *tensor.shape[2:])

    def positions(self, indices: np.ndarray) -> Tensor:
        """Where in `flat` the samples lie that stable-baselines3 gives these numbers: account by account, step by step."""
        account, step = np.divmod(indices, self.shape[0])
        return torch.from_numpy(step * self.shape[1] + account).to(self.bars.device)
