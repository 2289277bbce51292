"""What a segment's policies predict for every account, bar by bar.

All accounts are asked about at once. What the first layer makes of the market's part of an observation is the same for every account;
it is multiplied once for all bars of the segment, and each bar adds its accounts' own part. Weights are laid out once so that a product
reads them in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from gymnasium import spaces
from numba import njit

from ploutos.envs.actions import N_ACTIONS, action_masks
from ploutos.envs.ledger import Accounts, MarketArrays
from ploutos.envs.observation import market_rows, observation_size, observe
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.strategies.regression import regression_of
from ploutos.training.checkpoint import Policy
from ploutos.training.fast.dense import DenseLayers, pad
from ploutos.training.fast.fused import FusedNetwork, Observations
from ploutos.training.networks import SymbolColumns
from ploutos.training.teacher import with_forecast
from ploutos.types import BoolArray, Float32Array, FloatArray, IntArray
from ploutos.walk_forward import Range

_BLOCK = 64  # rows of the market's part at once: a product's bits must not depend on their number


@dataclass
class RecurrentState:
    """What a recurrent policy remembers of every account, from one bar to the next; it starts out empty."""

    cells: tuple[torch.Tensor, torch.Tensor] | None = None


class _Actor(Protocol):
    """The network of one policy, from observations to the last layer, shape (n, n_outputs)."""

    rows: Float32Array
    """The market's part of the observations it is given, shape (n_bars, n_columns)."""

    def __call__(self, bar: int, observations: Float32Array) -> Float32Array: ...


@dataclass
class _SharedRows:
    """A policy without memory, on one segment: its first layer's view of the market is there for every bar."""

    rows: Float32Array  # none of the market's columns
    first: int
    market: Float32Array  # (n_bars, hidden) filled up by `pad`, the market's part and the bias
    layers: DenseLayers  # of the account's part

    @classmethod
    def of(cls, policy: Policy, rows: Float32Array, bars: Range) -> "_SharedRows":
        first, *hidden = [layer for layer in _network(policy).policy_net if isinstance(layer, torch.nn.Linear)]
        later = [(layer.weight, layer.bias) for layer in (*hidden, cast(Any, policy.model.policy).action_net)]
        with torch.no_grad():
            market = _market_part(first, rows, bars)
        return cls(rows[:, :0], bars.start - 1, market, DenseLayers(first.weight[:, rows.shape[1] :], later))

    def __call__(self, bar: int, observations: Float32Array) -> Float32Array:
        return self.layers(observations, self.market[bar - self.first])


def _market_part(layer: torch.nn.Linear, rows: Float32Array, bars: Range) -> Float32Array:
    """What a first layer makes of the market's rows of a segment, and its bias.

    In blocks of one size: a product's last bit depends on how many rows it has, and the future must not.
    """
    n, n_columns = bars.n_bars, rows.shape[1]
    padded = torch.zeros(-(-n // _BLOCK) * _BLOCK, n_columns)
    padded[:n] = torch.from_numpy(rows[bars.start - 1 : bars.stop - 1])
    blocks = [torch.addmm(layer.bias, block, layer.weight[:, :n_columns].T) for block in torch.split(padded, _BLOCK)]
    return pad(torch.cat(blocks).numpy())


@dataclass
class _SharedSymbols:
    """The same of a policy whose network is shared by all symbols, of which the segment may have other ones than its training."""

    rows: Float32Array  # none of the market's columns
    columns: SymbolColumns
    first: int
    market: Float32Array  # (n_bars * n_symbols, n_market)
    usable: Float32Array  # (n_bars, n_symbols)
    network: FusedNetwork

    @classmethod
    def of(cls, policy: Policy, rows: Float32Array, bars: Range) -> "_SharedSymbols":
        columns = cast(SymbolColumns, policy.columns)
        by_symbol = columns.by_symbol(torch.from_numpy(rows[bars.start - 1 : bars.stop - 1]))
        market, usable = by_symbol.flatten(0, 1).numpy(), by_symbol[..., -1].contiguous().numpy()
        return cls(rows[:, :0], columns, bars.start - 1, market, usable, FusedNetwork(policy.model.policy))

    def __call__(self, bar: int, observations: Float32Array) -> Float32Array:
        own, account = (each.contiguous().numpy() for each in self.columns.own_by_symbol(torch.from_numpy(observations)))
        now = np.full(len(observations), bar - self.first)
        observed = Observations(self.market, self.usable, now, own, account)
        return self.network.forward(observed, one_by_one=True)[0].view(len(now), -1).numpy()


def _network(policy: Policy) -> Any:
    """Everything between the observations and the last layers."""
    return cast(Any, policy.model.policy).mlp_extractor


@dataclass
class _Whole:
    """A recurrent policy, one without a hidden layer or one with another activation than tanh: the whole network, bar by bar."""

    rows: Float32Array
    policy: Policy
    state: RecurrentState

    @torch.inference_mode()
    def __call__(self, bar: int, observations: Float32Array) -> Float32Array:
        network: Any = self.policy.model.policy
        seen = network.extract_features(torch.from_numpy(observations), network.pi_features_extractor)
        if self.policy.recurrent:
            cells = self.state.cells or (torch.zeros(1, len(seen), self._memory(seen.shape[1])),) * 2
            seen, self.state.cells = network.lstm_actor(seen[None], cells)
            seen = seen[0]
        return cast(Float32Array, network.action_net(network.mlp_extractor.forward_actor(seen)).numpy())

    def _memory(self, n_observed: int) -> int:
        """Size of an account's state."""
        lstm, columns = cast(Any, self.policy.model.policy).lstm_actor, self.policy.columns
        return int(lstm.hidden_size if columns is None else lstm.each.hidden_size * columns.n_symbols(n_observed))


class PolicyInference:
    """Asks the policies of one segment.

    Args:
        bars, features: the panel and what the policies observe of it; no features without policies.
        part: the segment's bars; the first decision is made one bar before them.
        env: what decides which actions are allowed.

    Raises:
        DataError: there are no features, or some policies give weights and others actions.
        TrainingError: a policy was trained on other symbols or features.
    """

    def __init__(
        self, policies: Sequence[Policy], bars: Bars, features: FeatureSet | None, part: Range, arrays: MarketArrays, env: EnvSpec
    ) -> None:
        if policies and features is None:
            raise DataError("policies decide from features; found none")
        if len({policy.is_continuous for policy in policies}) > 1:
            raise DataError("some policies give weights and others actions; members of one vote must all do the same")
        self._arrays, self._env, self._masked = arrays, env, any(policy.masked for policy in policies)
        self._policies, market = tuple(policies), list[tuple[Policy, Float32Array]]()
        self._actors: list[_Actor] = []
        for policy in policies:
            assert features is not None
            policy.require(bars.symbols, features.names)
            same = [rows for other, rows in market if _sees_the_same(other, policy)]  # members of a fold do
            rows = same[0] if same else _rows_of(part, bars, features, policy)
            market.append((policy, rows))
            self._actors.append(_actor(policy, rows, part))

    def predict(self, accounts: Accounts, bar: IntArray) -> FloatArray:
        """What every policy says of every account after the close of a bar.

        Args:
            bar: shape (n,), the same bar for all.

        Returns:
            Shape (n_members, n, n_symbols, 3), the probability of every action; or (..., 2), the mean weight, cut to the action space,
            as a share of the gross limit, and the probability that a weight drawn from the policy has the sign of its mean, 0.5..1.
        """
        n_symbols = self._arrays.n_symbols
        if not self._policies or not len(bar):
            return np.zeros((len(self._policies), len(bar), n_symbols, N_ACTIONS))
        masks = action_masks(accounts, bar, self._arrays, self._env) if self._masked else None
        lasts, seen = [], dict[tuple[int, bool], Float32Array]()
        for actor, policy in zip(self._actors, self._policies, strict=True):
            n_columns, account = actor.rows.shape[1], policy.observes_account
            key = n_columns, account
            if n_columns or key not in seen:  # what is the accounts' own is the same for all members
                seen[key] = np.empty((len(bar), observation_size(n_columns, n_symbols, account)), dtype=np.float32)
                observe(accounts, bar, actor.rows, self._arrays, seen[key])
            lasts.append(actor(int(bar[0]), seen[key]))
        return _predictions(self._policies, np.stack(lasts), masks)


def _actor(policy: Policy, rows: Float32Array, bars: Range) -> _Actor:
    network = cast(Any, policy.model.policy)
    if policy.columns is not None and not policy.recurrent:
        return _SharedSymbols.of(policy, rows, bars)
    if policy.recurrent or network.activation_fn is not torch.nn.Tanh or not len(network.mlp_extractor.policy_net):
        return _Whole(rows, policy, RecurrentState())
    return _SharedRows.of(policy, rows, bars)


def _sees_the_same(one: Policy, other: Policy) -> bool:
    """Whether two policies are given the same rows of the market: their scalers are equal, and what forecasts for them."""
    scalers = one.scaler, other.scaler
    equal = np.array_equal(scalers[0].mean, scalers[1].mean) and np.array_equal(scalers[0].deviation, scalers[1].deviation)
    return equal and one.forecast == other.forecast


def _rows_of(part: Range, bars: Bars, features: FeatureSet, policy: Policy) -> Float32Array:
    """The market's rows of a segment's decisions, each at its bar's place; the others are not written."""
    decided = slice(part.start - 1, part.stop - 1)
    if policy.forecast is not None:
        features = with_forecast(features, regression_of(policy.forecast).told(features, decided), decided.start)
    own = market_rows(replace(features, values=features.values[decided]), bars.tradable[decided], policy.scaler)
    rows = np.empty((bars.n_bars, own.shape[1]), dtype=np.float32)
    rows[decided] = own
    return rows


def predict(policy: Policy, observations: Float32Array, masks: BoolArray | None = None, state: RecurrentState | None = None) -> FloatArray:
    """What one policy says of observations, one by one.

    Args:
        observations: shape (n, n_columns).
        masks: shape (n, n_symbols * 3), what is allowed; only a masked policy reads it.
        state: of the same n accounts; only a recurrent policy reads it, and leaves in it what it remembers now.

    Returns:
        Shape (n, n_symbols, 3) or (n, n_symbols, 2), as `PolicyInference.predict` gives them.
    """
    last = _Whole(observations, policy, state or RecurrentState())(0, observations)[None]
    return _predictions([policy], last, masks)[0]


def _predictions(policies: Sequence[Policy], lasts: Float32Array, masks: BoolArray | None) -> FloatArray:
    """The members' answers from what their last layers put out, shape (n_members, n, n_outputs)."""
    if policies[0].is_continuous:
        means, space = torch.from_numpy(lasts).double(), cast(spaces.Box, policies[0].model.action_space)
        spread = torch.stack([cast(Any, policy.model.policy).log_std.detach().double().exp() for policy in policies])[:, None]
        return np.stack([np.clip(means.numpy(), space.low[0], space.high[0]), torch.special.ndtr(means.abs() / spread).numpy()], axis=-1)
    logits = lasts.reshape(*lasts.shape[:2], -1, N_ACTIONS)  # one softmax for all; stable-baselines3 builds an object for each
    if masks is not None:
        for at, policy in enumerate(policies):
            if policy.masked:
                logits[at][~masks.reshape(logits[at].shape)] = -np.inf
    return np.asarray(_softmax(logits.reshape(-1, N_ACTIONS)).reshape(logits.shape))


@njit(cache=True, nogil=True, error_model="numpy")
def _softmax(logits: Float32Array) -> FloatArray:
    """Probabilities of rows of logits, in float64."""
    out = np.empty(logits.shape)
    for i in range(len(logits)):
        total, most = 0.0, logits[i].max()
        for action in range(N_ACTIONS):
            out[i, action] = np.exp(np.float64(logits[i, action]) - most) if logits[i, action] != most else 1.0
            total += out[i, action]
        for action in range(N_ACTIONS):
            out[i, action] /= total
    return out
