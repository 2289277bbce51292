"""The single environment: a batch of one, as a `gymnasium.Env`."""

from typing import Any

import gymnasium
import numpy as np

from ploutos.envs.batch import MarketBatch
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.spec import ActionKind, EnvSpec
from ploutos.errors import ConfigError
from ploutos.types import BoolArray, Float32Array, FloatArray, IntArray


class MarketEnv(gymnasium.Env[Float32Array, Any]):
    """One account trading one stretch of one market; see `MarketVecEnv` for spaces, reward, start and end.

    Args:
        features_precomputed: True, always. Features are computed once per panel and scaled once per fold, with
            `market_rows`; an environment never computes any.

    Raises:
        ConfigError: as `MarketBatch`, or `features_precomputed` is False.
    """

    metadata = {"render_modes": []}

    def __init__(
        self, arrays: MarketArrays, rows: Float32Array, spec: EnvSpec, first_bar: int, last_bar: int, *, actions: ActionKind = "discrete",
        features_precomputed: bool = True,
    ) -> None:  # fmt: skip
        if not features_precomputed:
            raise ConfigError("found features_precomputed=False; an environment computes no features: build rows with market_rows")
        self._batch = MarketBatch(arrays, rows, spec, first_bar, last_bar, n_envs=1, seed=0, actions=actions)
        self.observation_space = self._batch.observation_space
        self.action_space = self._batch.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float32Array, dict[str, Any]]:
        super().reset(seed=seed)
        self._batch.random = self.np_random
        return self._batch.reset()[0].copy(), {}

    def step(self, action: IntArray | FloatArray) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        observations, rewards, done = self._batch.advance(np.asarray(action)[None])
        ended = self._batch.ended
        if not done[0] or ended is None:
            return observations[0].copy(), float(rewards[0]), False, False, {}
        info = ended.info(0)
        observation, truncated = info.pop("terminal_observation"), info.pop("TimeLimit.truncated")
        return observation, float(rewards[0]), not truncated, truncated, info

    def action_masks(self) -> BoolArray:
        """Which discrete actions can do anything now, shape (n_symbols * 3,), as sb3-contrib's MaskablePPO asks for them."""
        return self._batch.action_masks()[0]


UniversalTradingEnvV8LSTM = MarketEnv
"""The name under which the second seed knew this environment."""
