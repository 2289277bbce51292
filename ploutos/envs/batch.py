"""The core of every environment: a batch of accounts over one read-only market, stepped by one compiled call.

It knows neither gymnasium's nor stable-baselines3's protocol, so that a worker process need not import torch.

An episode starts at a bar drawn uniformly from the whole range, runs `episode_bars` steps or to the end of the range, and
is then truncated. A ruined account terminates instead.
"""

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ploutos.envs import kernel, ledger
from ploutos.envs.actions import N_ACTIONS, action_masks, weights_within
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.observation import observation_size, read_only
from ploutos.envs.spec import ActionKind, EnvSpec
from ploutos.errors import ConfigError, ShapeError
from ploutos.types import BoolArray, Float32Array, IntArray

REWARD_PARTS = kernel.REWARD_PARTS
_FLOATS = kernel.LINE // np.dtype(np.float32).itemsize
_ROOM = 32


def make_spaces(
    market_columns: int, n_symbols: int, actions: ActionKind = "discrete", allow_short: bool = False, account: bool = False
) -> tuple[spaces.Box, spaces.MultiDiscrete | spaces.Box]:
    """Observation space, one column per observed number, and action space, one action or one share of the limit per symbol."""
    observation = spaces.Box(-10.0, 10.0, (observation_size(market_columns, n_symbols, account),), np.float32)
    if actions == "discrete":
        return observation, spaces.MultiDiscrete([N_ACTIONS] * n_symbols)
    return observation, spaces.Box(-1.0 if allow_short else 0.0, 1.0, (n_symbols,), np.float32)


class Ended(NamedTuple):
    """Episodes that ended in one step; k of them.

    Attributes:
        rows: shape (k,), which accounts.
        observations: k terminal observations, each aligned.
        facts: k lists: whether time ran out (else the account was ruined), length in steps, equity at the end, reward summed
            over the episode, and the same by part, weighted and scaled, in the order of `REWARD_PARTS`.
    """

    rows: IntArray
    observations: list[Float32Array]
    facts: list[list[float]]

    @property
    def truncated(self) -> BoolArray:
        """Shape (k,)."""
        return np.array([facts[kernel.END_TRUNCATED] == 1.0 for facts in self.facts])

    def info(self, k: int) -> dict[str, Any]:
        """What a learner and a log want to know of the k-th episode."""
        truncated, length, equity, reward, *parts = self.facts[k]
        return {
            "terminal_observation": self.observations[k],
            "TimeLimit.truncated": truncated == 1.0,
            "episode": {"r": reward, "l": int(length), "t": 0.0},
            "final_equity": equity,
            "reward_parts": dict(zip(REWARD_PARTS, parts, strict=True)),
        }


class MarketBatch:
    """Many accounts trading one stretch of one market; see `ploutos.envs.vector.MarketVecEnv` for what an episode is.

    Args:
        arrays: prices and terms.
        rows: shape (n_bars, n_columns), the market's part of the observation; mapped from a file or not, never written.
        spec: account, costs and reward.
        first_bar, last_bar: inclusive range that observations may come from; the last decision is at last_bar - 1.
        n_envs: accounts in the batch.
        seed: of the starts.
        actions: HOLD, BUY, SELL per symbol, or target weights.
        credit: whether each reward is split among the symbols, in `credits`.

    Attributes:
        credits: shape (n_envs, n_symbols), the last step's rewards by symbol, which add up to them: each symbol's own turnover penalty,
            the share in what the account's return was paid that its profit net of its costs has in all symbols', and an equal part of
            what is left (`ploutos.envs.kernel`). Of no length without `credit`.

    Raises:
        ConfigError: the range holds no step, rows and arrays differ in length, or the rules cannot hold on these bars.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]

    def __init__(
        self, arrays: MarketArrays, rows: Float32Array, spec: EnvSpec, first_bar: int, last_bar: int, n_envs: int, seed: int,
        actions: ActionKind = "discrete", credit: bool = False,
    ) -> None:  # fmt: skip
        if not 0 <= first_bar < last_bar < arrays.n_bars:
            raise ConfigError(f"bars {first_bar}..{last_bar} of {arrays.n_bars} hold no step; expected at least two bars")
        if len(rows) != arrays.n_bars:
            raise ConfigError(f"found {len(rows)} market rows for {arrays.n_bars} bars; expected one per bar, of the same panel")
        ledger.require_rules(arrays, spec)
        self.observation_space, self.action_space = make_spaces(
            rows.shape[1], arrays.n_symbols, actions, spec.allow_short, spec.observe_account
        )
        self.arrays, self.rows, self.env_spec, self.action_kind = arrays, read_only(rows), spec, actions
        self.first_bar, self.last_bar = first_bar, last_bar
        self.random = np.random.default_rng(seed)
        self.accounts = ledger.Accounts.open(n_envs, arrays.n_symbols, spec.cash)
        self._clock = np.zeros((3, n_envs), dtype=np.int64)
        self._episode = np.zeros((1 + len(REWARD_PARTS), n_envs))
        self.bar, self.steps_left, self.episode_length = self._clock
        self.bar[:] = first_bar
        self.episode_reward, self.episode_parts = self._episode[0], self._episode[1:].T
        self.ended: Ended | None = None
        n_columns = observation_size(rows.shape[1], arrays.n_symbols, spec.observe_account)
        self._observations = [kernel.aligned((n_envs, n_columns), np.float32) for _ in range(2)]
        self._turn = 0
        self.credits = np.zeros((n_envs if credit else 0, arrays.n_symbols), dtype=np.float32)
        self._rules = ledger.rules_of(spec)
        self._targets = np.zeros((n_envs, arrays.n_symbols))
        self._no_actions = np.zeros((n_envs, arrays.n_symbols), dtype=np.int64)
        self._scratch = kernel.scratch(arrays.contract_terms, kernel.width_of(arrays.n_symbols))
        self._market = (self.rows, arrays.prices, arrays.contract_terms)
        self._to_begin = (last_bar, spec.episode_bars, self._rules, self._clock, self._episode, *self._market, *self.accounts.arrays)
        self._room, self._taken = kernel.aligned((0, 0), np.float32), 0

    def _next_buffer(self) -> Float32Array:
        """One of two buffers in turn: the caller still holds the previous observation."""
        self._turn = 1 - self._turn
        return self._observations[self._turn]

    def _starts(self, k: int) -> IntArray:
        """Bars drawn from the whole range for new episodes; one near its end is short and bootstraps there."""
        return np.array([self.random.integers(self.first_bar, self.last_bar) for _ in range(k)])  # for one, quicker than an array

    def reset(self) -> Float32Array:
        """Begin a new episode in every account.

        Returns:
            Observations, shape (n, n_columns).
        """
        out = self._next_buffer()
        kernel.restart(np.arange(len(self.bar)), self._starts(len(self.bar)), *self._to_begin, out)
        return out

    def advance(self, actions: np.ndarray) -> tuple[Float32Array, Float32Array, BoolArray]:
        """One step of every account. An account whose episode ends begins the next one at once; `ended` says what ended.

        Args:
            actions: shape (n, n_symbols).

        Returns:
            Observations (valid until the step after next), rewards and ends.

        Raises:
            ShapeError: actions of another shape.
        """
        discrete = self.action_kind == "discrete"
        if np.shape(actions) != self._targets.shape:
            raise ShapeError(f"found actions of shape {np.shape(actions)}; expected {self._targets.shape}: accounts by symbols")
        if discrete:
            chosen = np.ascontiguousarray(actions, dtype=np.int64)
        else:
            chosen = self._no_actions
            self._targets[:] = weights_within(np.asarray(actions, dtype=np.float64), self.env_spec)
        n, out = len(chosen), self._next_buffer()
        rewards, done = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.bool_)
        n_done = kernel.advance(
            self._clock, chosen, discrete, self.arrays.n_tradable, self._targets, self._scratch, *self._market, self.arrays.years,
            self._rules, *self.accounts.arrays, self._episode, rewards, self.credits, done, out,
        )  # fmt: skip
        self.ended = self._end(done.nonzero()[0], out) if n_done else None
        return out, rewards, done

    def _end(self, which: IntArray, out: Float32Array) -> Ended:
        k, facts = len(which), np.empty((len(which), kernel.N_FACTS))
        kept = self._room_for(k)
        kernel.finish(which, facts, kept, self._starts(k), *self._to_begin, out)
        return Ended(which, list(kept[:, : out.shape[1]]), facts.tolist())

    def _room_for(self, k: int) -> Float32Array:
        """Aligned rows for k observations that the caller may keep, made many at once: making them costs more than filling them."""
        if self._taken + k > len(self._room):
            columns = self._observations[0].shape[1]
            self._room, self._taken = kernel.aligned((max(k, _ROOM), -(-columns // _FLOATS) * _FLOATS), np.float32), 0
        self._taken += k
        return self._room[self._taken - k : self._taken]

    def observe(self) -> Float32Array:
        """What every account sees now."""
        out = self._next_buffer()
        money, _, positions, counts = self.accounts.arrays
        kernel.observe(self.bar, *self._market, money, positions, counts, out)
        return out

    def action_masks(self) -> BoolArray:
        """Which discrete actions can do anything now, shape (n, n_symbols * 3)."""
        return action_masks(self.accounts, self.bar, self.arrays, self.env_spec)
