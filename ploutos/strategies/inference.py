"""What a segment's policies predict for every account, bar by bar.

All accounts are asked about at once. What the first layer makes of the market's part of an observation is the same for every account;
it is multiplied once for all bars of the segment, and each bar adds its accounts' own part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from gymnasium import spaces

from ploutos.envs.actions import N_ACTIONS, action_masks
from ploutos.envs.ledger import Accounts, MarketArrays
from ploutos.envs.observation import market_rows, observation_size, observe
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.training.checkpoint import Policy
from ploutos.training.networks import SymbolColumns
from ploutos.types import BoolArray, Float32Array, FloatArray, IntArray
from ploutos.walk_forward import Range

_BLOCK = 64


@dataclass
class RecurrentState:
    """What a recurrent policy remembers of every account, from one bar to the next; it starts out empty."""

    cells: tuple[torch.Tensor, torch.Tensor] | None = None


class _Actor(Protocol):
    """A policy's network from observations to its last layer."""

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor: ...


@dataclass
class _SharedRows:
    """A policy without memory, on one segment: its first layer's view of the market is there for every bar."""

    policy: Policy
    first: int
    market: torch.Tensor  # (n_bars, hidden), the market's part and the bias
    own_weight: torch.Tensor  # (n_own, hidden)
    rest: Sequence[torch.nn.Module]

    @classmethod
    def of(cls, policy: Policy, rows: Float32Array, bars: Range) -> "_SharedRows":
        layer, n = _layers(policy)[0], bars.n_bars
        weight = layer.weight[:, : rows.shape[1]].T
        padded = torch.zeros(-(-n // _BLOCK) * _BLOCK, rows.shape[1])
        padded[:n] = torch.from_numpy(np.array(rows[bars.start - 1 : bars.stop - 1]))
        with torch.no_grad():  # blocks of one size: a product's last bit depends on how many rows it has, and the future must not
            market = torch.cat([torch.addmm(layer.bias, block, weight) for block in torch.split(padded, _BLOCK)])
            own_weight = layer.weight[:, rows.shape[1] :].T.contiguous()
        rest = [*_layers(policy)[1:], cast(Any, policy.model.policy).action_net]
        return cls(policy, bars.start - 1, market, own_weight, rest)

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor:
        seen = torch.addmm(self.market[bar - self.first], observations[:, -len(self.own_weight) :], self.own_weight)
        for layer in self.rest:
            seen = layer(seen)
        return seen


@dataclass
class _SharedSymbols:
    """The same of a policy whose network is shared by all symbols, of which the segment may have other ones than its training."""

    policy: Policy
    first: int
    market: torch.Tensor  # (n_bars, n_symbols, hidden)
    usable: torch.Tensor  # (n_bars, n_symbols)
    own_weight: torch.Tensor  # (n_own, hidden)

    @classmethod
    def of(cls, policy: Policy, rows: Float32Array, bars: Range) -> "_SharedSymbols":
        columns, n = cast(SymbolColumns, policy.columns), bars.n_bars
        padded = torch.zeros(-(-n // _BLOCK) * _BLOCK, rows.shape[1])
        padded[:n] = torch.from_numpy(np.array(rows[bars.start - 1 : bars.stop - 1]))
        by_symbol, layer = columns.by_symbol(padded), _network(policy).encoder[0]
        weight = layer.weight[:, : columns.n_market].T
        with torch.no_grad():  # blocks of one size, as above
            blocks = [torch.addmm(layer.bias, block.flatten(0, 1), weight) for block in torch.split(by_symbol, _BLOCK)]
            own_weight = layer.weight[:, columns.n_market :].T.contiguous()
        return cls(policy, bars.start - 1, torch.cat(blocks).view(*by_symbol.shape[:2], -1), by_symbol[..., -1], own_weight)

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor:
        columns, t = cast(SymbolColumns, self.policy.columns), bar - self.first
        own, account = columns.own_by_symbol(observations[:, self.usable.shape[1] * columns.n_market :])
        encoded, network = self.market[t] + own @ self.own_weight, _network(self.policy)
        for layer in network.encoder[1:]:
            encoded = layer(encoded)
        joined = network.joined(network.policy_join, encoded, self.usable[t].expand(len(own), -1), account)
        return cast(torch.Tensor, cast(Any, self.policy.model.policy).action_net(joined))


def _layers(policy: Policy) -> Any:
    """The actor's hidden layers, a linear one first."""
    return _network(policy).policy_net


def _network(policy: Policy) -> Any:
    """Everything between the observations and the last layers."""
    return cast(Any, policy.model.policy).mlp_extractor


@dataclass
class _Whole:
    """A recurrent policy, or one without a hidden layer: the whole network, bar by bar."""

    policy: Policy
    state: RecurrentState

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor:
        network: Any = self.policy.model.policy
        seen = network.extract_features(observations, network.pi_features_extractor)
        if self.policy.recurrent:
            cells = self.state.cells or (torch.zeros(1, len(seen), self._memory(seen.shape[1])),) * 2
            seen, self.state.cells = network.lstm_actor(seen[None], cells)
            seen = seen[0]
        return cast(torch.Tensor, network.action_net(network.mlp_extractor.forward_actor(seen)))

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
        self._members: list[tuple[Policy, Float32Array, _Actor]] = []
        for policy in policies:
            assert features is not None
            policy.require(bars.symbols, features.names)
            rows = self._rows_of(policy)
            rows = market_rows(features, bars.tradable, policy.scaler) if rows is None else rows
            actor: _Actor = _Whole(policy, RecurrentState())
            if not policy.recurrent and cast(Any, policy.model.policy).net_arch:
                actor = _SharedRows.of(policy, rows, part) if policy.columns is None else _SharedSymbols.of(policy, rows, part)
            self._members.append((policy, rows, actor))

    def _rows_of(self, policy: Policy) -> Float32Array | None:
        """The market's rows of a member with the same scaler: members of a fold share one, and then the rows as well."""
        for other, rows, _ in self._members:
            same = np.array_equal(other.scaler.mean, policy.scaler.mean), np.array_equal(other.scaler.deviation, policy.scaler.deviation)
            if all(same):
                return rows
        return None

    def predict(self, accounts: Accounts, bar: IntArray) -> FloatArray:
        """What every policy says of every account after the close of a bar.

        Args:
            bar: shape (n,), the same bar for all.

        Returns:
            Shape (n_members, n, n_symbols, 3), the probability of every action; or (..., 2), the mean weight, cut to the action space,
            as a share of the gross limit, and the probability that a weight drawn from the policy has the sign of its mean, 0.5..1.
        """
        if not self._members or not len(bar):
            return np.zeros((len(self._members), len(bar), self._arrays.n_symbols, N_ACTIONS))
        masks = action_masks(accounts, bar, self._arrays, self._env) if self._masked else None
        seen: dict[tuple[int, bool], torch.Tensor] = {}
        predictions = []
        with torch.no_grad():
            for policy, rows, actor in self._members:
                view = id(rows), policy.observes_account
                if view not in seen:
                    out = np.empty(
                        (len(bar), observation_size(rows.shape[1], self._arrays.n_symbols, policy.observes_account)), dtype=np.float32
                    )
                    observe(accounts, bar, rows, self._arrays, out)
                    seen[view] = torch.from_numpy(out)
                predictions.append(_prediction(policy, actor(int(bar[0]), seen[view]).double(), masks))
        return np.stack(predictions)


def predict(policy: Policy, observations: Float32Array, masks: BoolArray | None = None, state: RecurrentState | None = None) -> FloatArray:
    """What one policy says of observations, one by one.

    Args:
        observations: shape (n, n_columns).
        masks: shape (n, n_symbols * 3), what is allowed; only a masked policy reads it.
        state: of the same n accounts; only a recurrent policy reads it, and leaves in it what it remembers now.

    Returns:
        Shape (n, n_symbols, 3) or (n, n_symbols, 2), as `PolicyInference.predict` gives them.
    """
    with torch.no_grad():
        return _prediction(policy, _Whole(policy, state or RecurrentState())(0, torch.from_numpy(observations)).double(), masks)


def _prediction(policy: Policy, last: torch.Tensor, masks: BoolArray | None) -> FloatArray:
    """A member's answer from what its last layer puts out, float64."""
    if policy.is_continuous:
        space = cast(spaces.Box, policy.model.action_space)
        sure = torch.special.ndtr(last.abs() / cast(Any, policy.model.policy).log_std.double().exp())
        return np.stack([np.clip(last.numpy(), space.low[0], space.high[0]), sure.numpy()], axis=-1)
    logits = last.reshape(len(last), -1, N_ACTIONS)  # one softmax for all symbols; stable-baselines3 builds an object for each
    if policy.masked and masks is not None:
        logits = logits.masked_fill(~torch.from_numpy(masks).reshape(logits.shape), -torch.inf)
    return np.asarray(torch.softmax(logits, dim=-1).numpy())
