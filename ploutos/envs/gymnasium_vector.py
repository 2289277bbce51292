"""The batched environment as a `gymnasium.vector.VectorEnv`, for learners that are not stable-baselines3's."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ploutos.envs.batch import MarketBatch
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.spec import ActionKind, EnvSpec
from ploutos.types import BoolArray, Float32Array, FloatArray


class MarketGymnasiumVectorEnv(VectorEnv[Float32Array, Any, Any]):
    """Many accounts trading one stretch of one market; an account that ends begins anew in the same step.

    The terminal observation is `infos["final_obs"]`, an array of objects that is None where `infos["_final_obs"]` is False.
    Observations are valid until the step after next. Spaces, reward, start and end: see `MarketVecEnv`.

    Args: see `MarketBatch`.
    """

    def __init__(
        self, arrays: MarketArrays, rows: Float32Array, spec: EnvSpec, first_bar: int, last_bar: int, n_envs: int, seed: int,
        actions: ActionKind = "discrete",
    ) -> None:  # fmt: skip
        self.batch = MarketBatch(arrays, rows, spec, first_bar, last_bar, n_envs, seed, actions)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = n_envs
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, n_envs)
        self.action_space = batch_space(self.single_action_space, n_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Float32Array, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.batch.random = self.np_random
        return self.batch.reset(), {}

    def step(self, actions: Any) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        observations, rewards, done = self.batch.advance(actions)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        if (ended := self.batch.ended) is not None:
            truncated[ended.rows] = ended.truncated
            finals = np.full(self.num_envs, None, dtype=object)
            for i, terminal in zip(ended.rows, ended.observations, strict=True):
                finals[i] = terminal
            infos = {"final_obs": finals, "_final_obs": done.copy()}
        return observations, rewards.astype(np.float64), done & ~truncated, truncated, infos
