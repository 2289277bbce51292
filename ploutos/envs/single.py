"""The single environment: a batch of one, as a `gymnasium.Env`."""

from typing import Any

import gymnasium
import numpy as np

from ploutos.envs.batch import MarketBatch
from ploutos.envs.market_arrays import MarketArrays, make_market_arrays
from ploutos.envs.observation import market_rows
from ploutos.envs.spec import ActionKind, EnvSpec, Span, with_initial_cash
from ploutos.errors import ConfigError
from ploutos.features.build import FeatureSet
from ploutos.features.scaling import fit_scaler
from ploutos.market.bars import Bars
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


def make_env(bars: Bars, features: FeatureSet, part: Span, spec: EnvSpec | None = None, actions: ActionKind = "discrete") -> MarketEnv:
    """The environment of a stretch of bars, such as a fold's training range; the scaler is fitted on that stretch alone.

    Args:
        part: bars to trade in.
        spec: account, costs and reward.
    """
    rows = market_rows(features, bars.tradable, fit_scaler(features.values[part.start : part.stop], features.n_required))
    spec = with_initial_cash(spec or EnvSpec(), bars, part)
    return MarketEnv(make_market_arrays(bars), rows, spec, part.start, part.stop - 1, actions=actions)


UniversalTradingEnvV8LSTM = MarketEnv
"""The name under which the second seed knew this environment."""
