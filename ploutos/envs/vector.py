"""The batched environment as a stable-baselines3 `VecEnv`; stable-baselines3 bootstraps from the terminal observation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from ploutos.envs.batch import MarketBatch
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.spec import ActionKind, EnvSpec
from ploutos.types import Float32Array, FloatArray, IntArray


class MarketVecEnv(MarketBatch, VecEnv):
    """Many accounts trading one stretch of one market.

    Observation space: `Box(n_columns)`, see `ploutos.envs.observation.observation_names`.
    Action space: `MultiDiscrete([3] * n_symbols)`: HOLD, BUY, SELL per symbol, with `action_masks` as sb3-contrib's
    MaskablePPO asks for them; or `Box(n_symbols)`: shares of the gross limit, negative for shorts.
    Reward: the parts of `EnvSpec.reward`, summed, times `reward_scale`; by default the log return of equity net of costs.
    Start: all cash, at a bar drawn uniformly from the range.
    End: ruin terminates; `episode_bars` steps or the end of the range truncates. The info of an episode's last step holds
    `terminal_observation`, `TimeLimit.truncated`, `episode`, `final_equity` and `reward_parts` (each part's sum). Infos of
    all other steps are empty and shared: write into a copy.

    Args: see `MarketBatch`.
    """

    def __init__(
        self, arrays: MarketArrays, rows: Float32Array, spec: EnvSpec, first_bar: int, last_bar: int, n_envs: int, seed: int,
        actions: ActionKind = "discrete", credit: bool = False,
    ) -> None:  # fmt: skip
        MarketBatch.__init__(self, arrays, rows, spec, first_bar, last_bar, n_envs, seed, actions, credit)
        self.render_mode = None
        VecEnv.__init__(self, n_envs, self.observation_space, self.action_space)
        self._infos: list[dict[str, Any]] = [{} for _ in range(n_envs)]

    def step_async(self, actions: IntArray | FloatArray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[Float32Array, Float32Array, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, done = self.advance(self._actions)
        infos = self._infos.copy()
        if self.ended is not None:
            for k, i in enumerate(self.ended.rows.tolist()):
                infos[i] = self.ended.info(k)
        return observations, rewards, done, infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("accounts of a batch share their attributes; build another MarketVecEnv instead")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        if method_name == "action_masks":
            masks = self.action_masks()
            return [masks[i] for i in self._get_indices(indices)]
        return [getattr(self, method_name)(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the starts of all episodes; None leaves the stream as it is."""
        if seed is not None:
            self.random = np.random.default_rng(seed)
        return [seed] * self.num_envs
