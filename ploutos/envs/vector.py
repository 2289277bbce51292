"""The batched environment: n accounts over one read-only market, as a stable-baselines3 `VecEnv`.

An episode starts at a random bar of the range, runs `episode_bars` steps or to the end of the range, and is then
truncated; stable-baselines3 bootstraps from the terminal observation. A ruined account terminates instead.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from ploutos.envs import ledger
from ploutos.envs.actions import N_ACTIONS, target_weights
from ploutos.envs.observation import observation_size, observe
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError
from ploutos.types import Float32Array, FloatArray, IntArray

_REWARD_FLOOR = 1e-6
_CACHE_LINE = 64


def make_spaces(market_columns: int, n_symbols: int) -> tuple[spaces.Box, spaces.MultiDiscrete]:
    """Observation and action space of a market: one column per observed number, one action per symbol."""
    size = observation_size(market_columns, n_symbols)
    return spaces.Box(-10.0, 10.0, (size,), np.float32), spaces.MultiDiscrete([N_ACTIONS] * n_symbols)


def log_return_reward(before: FloatArray, after: FloatArray, spec: EnvSpec) -> Float32Array:
    """Log of equity over equity one bar before, scaled; a wiped-out account is floored, not infinite."""
    ratio = np.maximum(after, _REWARD_FLOOR * spec.cash) / np.maximum(before, _REWARD_FLOOR * spec.cash)
    return (np.log(ratio) * spec.reward_scale).astype(np.float32)


def aligned(shape: tuple[int, ...]) -> Float32Array:
    """Zeros that start at a cache line.

    Matrix products differ in the last bit with their input's alignment, and torch reads observations where numpy put
    them. Aligned like torch's own memory, a resumed or repeated run gives the same bytes.
    """
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    raw = np.zeros(size + _CACHE_LINE, dtype=np.uint8)
    offset = -raw.ctypes.data % _CACHE_LINE
    return raw[offset : offset + size].view(np.float32).reshape(shape)


class MarketVecEnv(VecEnv):
    """Many accounts trading one stretch of one market.

    Observation space: `Box(n_columns)`, see `ploutos.envs.observation.observation_names`.
    Action space: `MultiDiscrete([3] * n_symbols)`: HOLD, BUY, SELL per symbol.
    Reward: log return of equity from close to close, net of costs, times `reward_scale`.
    Start: all cash, at a bar drawn uniformly from the range.
    End: ruin terminates; `episode_bars` steps or the end of the range truncates.

    Args:
        tape: prices and terms.
        rows: shape (n_bars, n_columns), the market's part of the observation.
        spec: account, costs and reward.
        first_bar, last_bar: inclusive range that observations may come from; the last decision is at last_bar - 1.
        n_envs: accounts in the batch.
        seed: of the starts.

    Raises:
        ConfigError: the range holds no step.
    """

    def __init__(self, tape: ledger.Tape, rows: Float32Array, spec: EnvSpec, first_bar: int, last_bar: int, n_envs: int, seed: int) -> None:
        if not 0 <= first_bar < last_bar < tape.n_bars:
            raise ConfigError(f"bars {first_bar}..{last_bar} of {tape.n_bars} hold no step; expected at least two bars")
        observation_space, action_space = make_spaces(rows.shape[1], tape.n_symbols)
        self.render_mode = None
        super().__init__(n_envs, observation_space, action_space)
        self.tape, self.rows, self.env_spec = tape, rows, spec
        self.first_bar, self.last_bar = first_bar, last_bar
        self.n_tradable = tape.tradable.sum(axis=1).astype(np.int64)
        self.random = np.random.default_rng(seed)
        self.accounts = ledger.Accounts.open(n_envs, tape.n_symbols, spec.cash)
        self.bar = np.full(n_envs, first_bar, dtype=np.int64)
        self.steps_left = np.zeros(n_envs, dtype=np.int64)
        self.episode_reward = np.zeros(n_envs)
        self.episode_length = np.zeros(n_envs, dtype=np.int64)
        self._observations = [aligned((n_envs, *observation_space.shape)) for _ in range(2)]
        self._turn = 0
        self._actions = np.zeros((n_envs, tape.n_symbols), dtype=np.int64)

    def reset(self) -> Float32Array:
        self._restart(np.arange(self.num_envs))
        return self.observe()

    def step_async(self, actions: IntArray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Float32Array, Float32Array, np.ndarray, list[dict[str, Any]]]:
        before = self.accounts.equity.copy()
        targets = target_weights(self._actions, self.n_tradable[self.bar], self.env_spec)
        ledger.step(self.accounts, self.bar, targets, self.tape, self.env_spec)
        self.bar += 1
        self.steps_left -= 1
        self.episode_length += 1
        rewards = log_return_reward(before, self.accounts.equity, self.env_spec)
        self.episode_reward += rewards
        terminated = self.accounts.ruined.copy()
        dones = terminated | (self.steps_left <= 0)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        finished = np.flatnonzero(dones)
        if len(finished):
            last = self.observe()
            for i in finished:
                terminal = aligned(last[i].shape)
                terminal[:] = last[i]
                infos[i] = {
                    "terminal_observation": terminal,
                    "TimeLimit.truncated": not bool(terminated[i]),
                    "episode": {"r": float(self.episode_reward[i]), "l": int(self.episode_length[i]), "t": 0.0},
                    "final_equity": float(self.accounts.equity[i]),
                }
            self._restart(finished)
        return self.observe(), rewards, dones, infos

    def _restart(self, rows: IntArray) -> None:
        """Begin new episodes at bars drawn from the whole range; one near its end is short and bootstraps there."""
        self.bar[rows] = self.random.integers(self.first_bar, self.last_bar, size=len(rows))
        self.steps_left[rows] = np.minimum(self.env_spec.episode_bars, self.last_bar - self.bar[rows])
        self.episode_length[rows] = 0
        self.episode_reward[rows] = 0.0
        self.accounts.reset(rows, self.env_spec.cash)

    def observe(self) -> Float32Array:
        """What every account sees now, in one of two buffers in turn: the caller still holds the previous one."""
        self._turn = 1 - self._turn
        out = self._observations[self._turn]
        observe(self.accounts, self.bar, self.rows, self.tape, out)
        return out

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("accounts of a batch share their attributes; build another MarketVecEnv instead")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self, method_name)(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the starts of all episodes; None leaves the stream as it is."""
        if seed is not None:
            self.random = np.random.default_rng(seed)
        return [seed] * self.num_envs
