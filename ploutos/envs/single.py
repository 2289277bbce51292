"""The single environment: a batch of one, as a `gymnasium.Env`."""

from typing import Any

import gymnasium
import numpy as np

from ploutos.envs.ledger import Tape
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.types import Float32Array, IntArray


class MarketEnv(gymnasium.Env[Float32Array, IntArray]):
    """One account trading one stretch of one market; see `MarketVecEnv` for spaces, reward, start and end."""

    metadata = {"render_modes": []}

    def __init__(self, tape: Tape, rows: Float32Array, spec: EnvSpec, first_bar: int, last_bar: int) -> None:
        self._batch = MarketVecEnv(tape, rows, spec, first_bar, last_bar, n_envs=1, seed=0)
        self.observation_space = self._batch.observation_space
        self.action_space = self._batch.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float32Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._batch.random = self.np_random
        return self._batch.reset()[0].copy(), {}

    def step(self, action: IntArray) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        self._batch.step_async(np.asarray(action)[None])
        observations, rewards, dones, infos = self._batch.step_wait()
        info = infos[0]
        if not dones[0]:
            return observations[0].copy(), float(rewards[0]), False, False, info
        truncated = info.pop("TimeLimit.truncated")
        return info.pop("terminal_observation"), float(rewards[0]), not truncated, truncated, info
