"""What a segment's policies predict for every account, bar by bar.

All accounts are asked about at once. What the first layer makes of the market's part of an observation is the same for every account;
it is multiplied once for all bars of the segment, and each bar adds its accounts' own part. Members whose networks are alike are
multiplied together, with weights that are laid out once so that a product reads them in order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
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
from ploutos.features.scaling import Scaler
from ploutos.market.bars import Bars
from ploutos.training.checkpoint import Policy
from ploutos.training.networks import SymbolColumns
from ploutos.types import BoolArray, Float32Array, FloatArray, IntArray
from ploutos.walk_forward import Range

_BLOCK = 64
_SYMBOLS = "one network for every symbol"
_MANY, _WIDE = 16, 512
"""From so many rows and up to so many columns a product of weights laid out anew has the bytes of the layer itself, which is called
elsewhere."""


_Member = tuple[Policy, Float32Array]
"""A policy and the market's rows it observes."""


@dataclass
class RecurrentState:
    """What a recurrent policy remembers of every account, from one bar to the next; it starts out empty."""

    cells: tuple[torch.Tensor, torch.Tensor] | None = None


class _Actor(Protocol):
    """The network of one policy, or of several that are alike, from observations to the last layer, shape (n_members, n, n_outputs)."""

    rows: Float32Array
    """The market's part of the observations it is given, shape (n_bars, n_columns)."""

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor: ...


@dataclass
class _SharedRows:
    """Policies without memory, on one segment: their first layers' view of the market is there for every bar."""

    rows: Float32Array  # none of the market's columns
    first: int
    market: torch.Tensor  # (n_bars, n_members, hidden), the market's part and the bias
    own_weight: torch.Tensor  # (n_members, n_own, hidden)
    rests: Sequence[torch.nn.Module]  # each member's other layers
    together: Sequence[Callable[[torch.Tensor], torch.Tensor]]  # the same, layer by layer, of all members

    @classmethod
    def of(cls, members: Sequence[_Member], bars: Range) -> "_SharedRows":
        with torch.no_grad():
            seen = torch.stack([_market_part(_layers(policy)[0], rows, bars) for policy, rows in members], dim=1)
            own_weight = torch.stack([_layers(policy)[0].weight[:, rows.shape[1] :].T for policy, rows in members])
            rests = [torch.nn.Sequential(*_layers(policy)[1:], cast(Any, policy.model.policy).action_net) for policy, _ in members]
            together = [_together(layers) for layers in zip(*rests, strict=True)]
        return cls(members[0][1][:, :0], bars.start - 1, seen, own_weight, rests, together)

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor:
        market = self.market[bar - self.first]
        if len(observations) < _MANY:
            members = zip(market, self.own_weight, self.rests, strict=True)
            return torch.stack([rest(torch.addmm(part, observations, weight)) for part, weight, rest in members])
        seen = torch.baddbmm(market[:, None], observations.expand(len(market), -1, -1), self.own_weight)
        for layer in self.together:
            seen = layer(seen)
        return seen


def _market_part(layer: torch.nn.Linear, rows: Float32Array, bars: Range) -> torch.Tensor:
    """What a first layer makes of the market's rows of a segment, and its bias.

    In blocks of one size: a product's last bit depends on how many rows it has, and the future must not.
    """
    n, n_columns = bars.n_bars, rows.shape[1]
    padded = torch.zeros(-(-n // _BLOCK) * _BLOCK, n_columns)
    padded[:n] = torch.from_numpy(rows[bars.start - 1 : bars.stop - 1])
    return torch.cat([torch.addmm(layer.bias, block, layer.weight[:, :n_columns].T) for block in torch.split(padded, _BLOCK)])


def _together(layers: Sequence[torch.nn.Module]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same layer of every member, for many rows; one without weights is the same for all."""
    first = layers[0]
    if not isinstance(first, torch.nn.Linear):
        return first.forward
    if first.in_features > _WIDE:
        return lambda seen: torch.stack([layer(each) for layer, each in zip(layers, seen, strict=True)])
    bias, weight = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("bias", "weight"))
    return partial(torch.baddbmm, bias[:, None], batch2=weight.transpose(1, 2).contiguous())


@dataclass
class _SharedSymbols:
    """The same of a policy whose network is shared by all symbols, of which the segment may have other ones than its training."""

    rows: Float32Array  # none of the market's columns
    policy: Policy
    first: int
    market: torch.Tensor  # (n_bars, n_symbols, hidden)
    usable: torch.Tensor  # (n_bars, n_symbols)
    own_weight: torch.Tensor  # (n_own, hidden)

    @classmethod
    def of(cls, policy: Policy, rows: Float32Array, bars: Range) -> "_SharedSymbols":
        columns, n = cast(SymbolColumns, policy.columns), bars.n_bars
        padded = torch.zeros(-(-n // _BLOCK) * _BLOCK, rows.shape[1])
        padded[:n] = torch.from_numpy(rows[bars.start - 1 : bars.stop - 1])
        by_symbol, layer = columns.by_symbol(padded), _network(policy).encoder[0]
        weight = layer.weight[:, : columns.n_market].T
        with torch.no_grad():  # blocks of one size, as above
            blocks = [torch.addmm(layer.bias, block.flatten(0, 1), weight) for block in torch.split(by_symbol, _BLOCK)]
            own_weight = layer.weight[:, columns.n_market :].T.contiguous()
        market = torch.cat(blocks).view(*by_symbol.shape[:2], -1)
        return cls(rows[:, :0], policy, bars.start - 1, market, by_symbol[..., -1], own_weight)

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor:
        columns, t = cast(SymbolColumns, self.policy.columns), bar - self.first
        own, account = columns.own_by_symbol(observations)
        encoded, network = self.market[t] + own @ self.own_weight, _network(self.policy)
        for layer in network.encoder[1:]:
            encoded = layer(encoded)
        joined = network.joined(network.policy_join, encoded, self.usable[t].expand(len(own), -1), account)
        return cast(torch.Tensor, cast(Any, self.policy.model.policy).action_net(joined)[None])


def _layers(policy: Policy) -> Any:
    """The actor's hidden layers, a linear one first."""
    return _network(policy).policy_net


def _network(policy: Policy) -> Any:
    """Everything between the observations and the last layers."""
    return cast(Any, policy.model.policy).mlp_extractor


@dataclass
class _Whole:
    """A recurrent policy, or one without a hidden layer: the whole network, bar by bar."""

    rows: Float32Array
    policy: Policy
    state: RecurrentState

    def __call__(self, bar: int, observations: torch.Tensor) -> torch.Tensor:
        network: Any = self.policy.model.policy
        seen = network.extract_features(observations, network.pi_features_extractor)
        if self.policy.recurrent:
            cells = self.state.cells or (torch.zeros(1, len(seen), self._memory(seen.shape[1])),) * 2
            seen, self.state.cells = network.lstm_actor(seen[None], cells)
            seen = seen[0]
        return cast(torch.Tensor, network.action_net(network.mlp_extractor.forward_actor(seen))[None])

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
        self._policies, members = tuple(policies), list[_Member]()
        for policy in policies:
            assert features is not None
            policy.require(bars.symbols, features.names)
            same = [rows for other, rows in members if _alike(other.scaler, policy.scaler)]  # members of a fold share a scaler
            members.append((policy, same[0] if same else _rows_of(part, bars, features, policy.scaler)))
        self._actors: list[tuple[_Actor, bool]] = []
        for kind, group in groupby(members, key=lambda member: _kind(member[0])):
            own = list(group)
            if kind == _SYMBOLS:
                self._actors += [(_SharedSymbols.of(policy, rows, part), policy.observes_account) for policy, rows in own]
            elif kind:
                self._actors.append((_SharedRows.of(own, part), own[0][0].observes_account))
            else:
                self._actors += [(_Whole(rows, policy, RecurrentState()), policy.observes_account) for policy, rows in own]

    @torch.inference_mode()
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
        lasts = []
        for actor, observes_account in self._actors:
            seen = torch.empty(len(bar), observation_size(actor.rows.shape[1], n_symbols, observes_account))
            observe(accounts, bar, actor.rows, self._arrays, seen.numpy())
            lasts.append(actor(int(bar[0]), seen))
        return _predictions(self._policies, torch.cat(lasts), masks)


def _kind(policy: Policy) -> str:
    """Layers and observations, alike in policies that are multiplied together; empty where there is a memory or no hidden layer."""
    if policy.recurrent or not cast(Any, policy.model.policy).net_arch:
        return ""
    if policy.columns is not None:
        return _SYMBOLS
    return f"{policy.observes_account} {_layers(policy)} {cast(Any, policy.model.policy).action_net}"


def _alike(one: Scaler, other: Scaler) -> bool:
    return np.array_equal(one.mean, other.mean) and np.array_equal(one.deviation, other.deviation)


def _rows_of(part: Range, bars: Bars, features: FeatureSet, scaler: Scaler) -> Float32Array:
    """The market's rows of a segment's decisions, each at its bar's place; the others are not written."""
    decided = slice(part.start - 1, part.stop - 1)
    own = market_rows(replace(features, values=features.values[decided]), bars.tradable[decided], scaler)
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
    with torch.no_grad():
        last = _Whole(observations, policy, state or RecurrentState())(0, torch.from_numpy(observations))
        return _predictions([policy], last, masks)[0]


def _predictions(policies: Sequence[Policy], lasts: torch.Tensor, masks: BoolArray | None) -> FloatArray:
    """The members' answers from what their last layers put out, shape (n_members, n, n_outputs)."""
    lasts = lasts.double()
    if policies[0].is_continuous:
        space = cast(spaces.Box, policies[0].model.action_space)
        spread = torch.stack([cast(Any, policy.model.policy).log_std.double().exp() for policy in policies])[:, None]
        return np.stack([np.clip(lasts.numpy(), space.low[0], space.high[0]), torch.special.ndtr(lasts.abs() / spread).numpy()], axis=-1)
    logits = lasts.reshape(*lasts.shape[:2], -1, N_ACTIONS)  # one softmax for all symbols; stable-baselines3 builds an object for each
    if masks is not None:
        for at, policy in enumerate(policies):
            if policy.masked:
                logits[at].masked_fill_(~torch.from_numpy(masks).reshape(logits[at].shape), -torch.inf)
    return np.asarray(torch.softmax(logits, dim=-1).numpy())
