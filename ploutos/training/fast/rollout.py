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
        for unit in range(rewards.shape[2]):
            running = np.float32(0)
            for t in range(rewards.shape[0] - 1, -1, -1):
                last = t == rewards.shape[0] - 1
                goes_on = one - (last_starts[i] if last else starts[t + 1, i])
                following, value = last_values[i, unit] if last else values[t + 1, i, unit], values[t, i, unit]
                running = rewards[t, i, unit] + gamma * following * goes_on - value + gamma * gae_lambda * goes_on * running
                out[t, i, unit] = running


class Rollout:
    """`n_steps` steps of `n_envs` accounts.

    Args:
        shape: n_steps, n_envs.
        n_own: columns of an observation that are the account's own; by symbol, (n_symbols, columns), for a network that reads symbols.
        n_symbols: actions of one step, whole numbers or, with `weights`, shares.
        n_units: what has a reward, a value and an advantage of its own: the portfolio, or every symbol.
        n_mask: actions of all symbols together, 0 without masks.

    Attributes:
        bars, own, actions: shape (n_steps, n_envs, ...), on the device.
        account: shape (n_steps, n_envs, 2), cash and drawdown where `own` is by symbol; else of no width.
        masks: shape (n_steps, n_envs, n_mask), on the device.
        log_probs, advantages, returns: shape (n_steps, n_envs, n_units), on the device; the last two after `finish`.
        rewards, values: the same shape, float32, host.
        starts: shape (n_steps, n_envs), float32, host.
    """

    def __init__(
        self, shape: tuple[int, int], n_own: tuple[int, ...], n_symbols: int, n_units: int, n_mask: int, device: torch.device,
        weights: bool = False,
    ) -> None:  # fmt: skip
        self.shape, units = shape, (*shape, n_units)
        self.bars = torch.zeros(shape, dtype=torch.int64, device=device)
        self.own = torch.zeros(*shape, *n_own, device=device)
        self.account = torch.zeros(*shape, 2 if len(n_own) == 2 else 0, device=device)
        self.actions = torch.zeros(*shape, n_symbols, dtype=torch.float32 if weights else torch.int64, device=device)
        self.log_probs = torch.zeros(units, device=device)
        self.values_there = torch.zeros(units, device=device)
        self.masks = torch.ones(*shape, n_mask, dtype=torch.bool, device=device)
        self.rewards, self.starts = np.zeros(units, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        self.values = np.zeros(units, dtype=np.float32)
        self.advantages, self.returns = torch.zeros(units, device=device), torch.zeros(units, device=device)

    def finish(self, last_values: Float32Array, last_starts: np.ndarray, gamma: float, gae_lambda: float) -> None:
        """Work out advantages (GAE) and returns.

        Args:
            last_values: shape (n_envs, n_units), of the observation after the last step.
            last_starts: shape (n_envs,), whether that observation begins an episode.
        """
        self.values = self.values_there.cpu().numpy()
        out = np.empty(self.rewards.shape, dtype=np.float32)
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
