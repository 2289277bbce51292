"""The symbol-shared network: one encoder for every symbol, so that what is learnt of one holds for all, and their number is free.

An observation's columns are sorted by symbol: its features, its flag, its position, its account features. One encoder reads each
symbol, the encodings of the usable ones are pooled (mean and highest), and one layer joins a symbol's encoding with the pooled ones,
the account's cash and its drawdown. One head gives each symbol's logits or mean weight, another its value. No weight belongs to a
symbol: permuting symbols permutes what is decided. The critic has a joining layer of its own and reads the actor's encodings without
moving them: a value is mostly noise to learn from, and would teach the encoder that.

The classes are stable-baselines3's policies but for their layers; a zip that names them opens wherever ploutos is installed.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from ploutos.envs.account_features import ACCOUNT_NAMES
from ploutos.envs.actions import N_ACTIONS
from ploutos.errors import ConfigError

N_ACCOUNT_WIDE = 2  # cash and drawdown
_POSITION = 2  # a symbol's weight and unrealised return
LOWEST = -1.0  # of a tanh: what an unusable symbol adds to the highest encoding


class SymbolColumns(NamedTuple):
    """Where a symbol's numbers stand in an observation, whatever the number of symbols."""

    n_features: int
    account: bool

    @property
    def n_market(self) -> int:
        """Numbers of one symbol that are the market's: its features and its flag."""
        return self.n_features + 1

    @property
    def n_own(self) -> int:
        """Numbers of one symbol that are the account's."""
        return _POSITION + (len(ACCOUNT_NAMES) if self.account else 0)

    @property
    def n_columns(self) -> int:
        """What the encoder reads of one symbol."""
        return self.n_market + self.n_own

    def n_symbols(self, n_observed: int) -> int:
        """Symbols of an observation of so many columns."""
        return (n_observed - N_ACCOUNT_WIDE) // self.n_columns

    def by_symbol(self, market: Tensor) -> Tensor:
        """The market's part of n observations by symbol, shape (n, n_symbols, n_market)."""
        n_symbols = market.shape[1] // self.n_market
        features = market[:, : n_symbols * self.n_features].reshape(len(market), n_symbols, self.n_features)
        return torch.cat([features, market[:, n_symbols * self.n_features :, None]], dim=2)

    def own_by_symbol(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """The account's part by symbol, shape (n, n_symbols, n_own), and what is the account's as a whole, shape (n, 2)."""
        n_symbols = (own.shape[1] - N_ACCOUNT_WIDE) // self.n_own
        split = _POSITION * n_symbols
        position = own[:, :split].reshape(len(own), _POSITION, n_symbols).transpose(1, 2)
        whole = own[:, split : split + N_ACCOUNT_WIDE]
        if self.account:
            account = own[:, split + N_ACCOUNT_WIDE :].reshape(len(own), n_symbols, len(ACCOUNT_NAMES))
            position = torch.cat([position, account], dim=2)
        return position, whole

    def split(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observations by symbol, shape (n, n_symbols, n_columns); the usable ones, (n, n_symbols); the account as a whole, (n, 2)."""
        n_market = self.n_symbols(observations.shape[1]) * self.n_market
        market = self.by_symbol(observations[:, :n_market])
        own, whole = self.own_by_symbol(observations[:, n_market:])
        return torch.cat([market, own], dim=2), market[..., -1], whole

    def names(self, features: Sequence[str]) -> list[str]:
        """Names of what the encoder reads of one symbol, in order."""
        return [*features, "usable", "weight", "unrealised", *(ACCOUNT_NAMES if self.account else ())]


class LatentColumns(NamedTuple):
    """What `SymbolLSTM` puts out: a symbol's memory for every symbol, the flags, the account as a whole."""

    size: int

    @property
    def n_columns(self) -> int:
        return self.size

    def split(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `SymbolColumns.split`."""
        n_symbols = (latent.shape[1] - N_ACCOUNT_WIDE) // (self.size + 1)
        memory, usable, whole = torch.split(latent, [n_symbols * self.size, n_symbols, N_ACCOUNT_WIDE], dim=1)
        return memory.reshape(len(latent), n_symbols, self.size), usable, whole


def pool(encoded: Tensor, usable: Tensor) -> Tensor:
    """Mean and highest encoding of the usable symbols, shape (n, 2 * size).

    Args:
        encoded: shape (n, n_symbols, size).
        usable: shape (n, n_symbols), 1 or 0.
    """
    usable = usable.unsqueeze(2)
    mean = (encoded * usable).sum(1) / usable.sum(1).clamp_min(1.0)
    highest = torch.where(usable > 0, encoded, torch.full_like(encoded, LOWEST)).max(1).values
    return torch.cat([mean, highest], dim=1)


class SymbolNetwork(nn.Module):
    """The encoder, and two layers that join each symbol with the others and the account: the actor's and the critic's.

    It stands in the place of stable-baselines3's `MlpExtractor`.
    """

    def __init__(self, columns: SymbolColumns | LatentColumns, net_arch: list[int]) -> None:
        super().__init__()
        self.columns, self.encoder, sizes = columns, nn.Sequential(), [columns.n_columns, *net_arch]
        for before, after in pairwise(sizes):
            self.encoder.extend([nn.Linear(before, after), nn.Tanh()])
        self.latent_dim_pi = self.latent_dim_vf = size = sizes[-1]
        reads = 2 * size + N_ACCOUNT_WIDE + size  # pooled encodings, the account as a whole, the symbol's own encoding
        self.policy_join, self.value_join = nn.Linear(reads, size), nn.Linear(reads, size)

    def joined(self, join: nn.Linear, encoded: Tensor, usable: Tensor, whole: Tensor) -> Tensor:
        """What the last layers read of each symbol, shape (n, n_symbols, size)."""
        others = torch.cat([pool(encoded, usable), whole], dim=1)
        from_others, own = join.weight[:, : others.shape[1]], join.weight[:, others.shape[1] :]
        return torch.tanh(encoded @ own.t() + nn.functional.linear(others, from_others, join.bias).unsqueeze(1))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        each, *others = self.columns.split(features)
        encoded = self.encoder(each)
        return self.joined(self.policy_join, encoded, *others), self.joined(self.value_join, encoded.detach(), *others)

    def forward_actor(self, features: Tensor) -> Tensor:
        each, *others = self.columns.split(features)
        return self.joined(self.policy_join, self.encoder(each), *others)

    def forward_critic(self, features: Tensor) -> Tensor:
        each, *others = self.columns.split(features)
        return self.joined(self.value_join, self.encoder(each).detach(), *others)


class SymbolLSTM(nn.Module):
    """One LSTM that remembers every symbol apart; stable-baselines3 sees one LSTM whose state is all symbols' side by side."""

    def __init__(self, columns: SymbolColumns, n_symbols: int, size: int) -> None:
        super().__init__()
        self.columns, self.num_layers, self.hidden_size = columns, 1, n_symbols * size
        self.input_size = n_symbols * columns.n_columns + N_ACCOUNT_WIDE
        self.each = nn.LSTM(columns.n_columns, size)

    def forward(self, features: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As an LSTM of one layer; beside the memories the answer holds the flags and the account, which are read later.

        Args:
            features: shape (n_steps, n, n_observed).
            state: hidden and cell, shape (1, n, n_symbols * size).
        """
        steps, n = features.shape[:2]
        each, usable, whole = self.columns.split(features.flatten(0, 1))
        size = self.each.hidden_size
        out, (hidden, cell) = self.each(each.reshape(steps, -1, each.shape[2]), tuple(part.reshape(1, -1, size) for part in state))
        parts = (part.reshape(steps, n, -1) for part in (out, usable, whole))
        return torch.cat([*parts], dim=2), (hidden.view(1, n, -1), cell.view(1, n, -1))


class SymbolHead(nn.Linear):
    """The same last layer for every symbol, its answers side by side: shape (n, n_symbols * n_out)."""

    def forward(self, latent: Tensor) -> Tensor:
        return super().forward(latent).flatten(1)


class PortfolioValue(nn.Linear):
    """The portfolio's value: the mean of its symbols' values, shape (n, 1)."""

    def forward(self, latent: Tensor) -> Tensor:
        return super().forward(latent).mean(1)


class _Shared:
    """Mixed in before one of stable-baselines3's actor-critic policies, whose layers it replaces.

    Args:
        account: whether observations end with the account's features of each symbol.

    Raises:
        ConfigError: another activation than tanh, or layers that differ between policy and value.
    """

    def __init__(self, *args: Any, account: bool = False, **kwargs: Any) -> None:
        self.account = account
        if kwargs.get("activation_fn", nn.Tanh) is not nn.Tanh or isinstance(kwargs.get("net_arch"), dict):
            raise ConfigError("a shared network has tanh layers, the same for policy and value; give net_arch as a list, no activation_fn")
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**cast(Any, super())._get_constructor_parameters(), "account": self.account}

    @property
    def columns(self) -> SymbolColumns:
        """How an observation is sorted by symbol."""
        policy, own = cast(Any, self), _POSITION + (len(ACCOUNT_NAMES) if self.account else 0)
        n_symbols = policy.action_space.shape[0]
        return SymbolColumns((policy.observation_space.shape[0] - N_ACCOUNT_WIDE) // n_symbols - own - 1, self.account)

    @property
    def _encoded(self) -> SymbolColumns | LatentColumns:
        return self.columns

    def _build(self, lr_schedule: Any) -> None:
        policy = cast(Any, self)
        policy.mlp_extractor = SymbolNetwork(self._encoded, list(policy.net_arch))
        size, weights = policy.mlp_extractor.latent_dim_pi, isinstance(policy.action_space, spaces.Box)
        policy.action_net = SymbolHead(size, 1 if weights else N_ACTIONS)
        if weights:
            policy.log_std = nn.Parameter(torch.full((1,), float(policy.log_std_init)))
        policy.value_net = PortfolioValue(size, 1)
        for module, gain in ((policy.mlp_extractor, np.sqrt(2)), (policy.action_net, 0.01), (policy.value_net, 1.0)):
            if policy.ortho_init:
                module.apply(partial(policy.init_weights, gain=gain))
        policy.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **policy.optimizer_kwargs)


class SharedPolicy(_Shared, ActorCriticPolicy):
    """PPO's policy."""


class SharedMaskablePolicy(_Shared, MaskableActorCriticPolicy):
    """MaskablePPO's policy."""


class SharedRecurrentPolicy(_Shared, RecurrentActorCriticPolicy):
    """RecurrentPPO's policy: an LSTM that remembers every symbol apart stands before the encoder; the critic reads it too."""

    def __init__(self, observation_space: Any, action_space: Any, lr_schedule: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(observation_space, action_space, lr_schedule, *args, shared_lstm=True, enable_critic_lstm=False, **kwargs)
        size, n_symbols = self.lstm_output_dim, action_space.shape[0]
        self.lstm_actor = cast(Any, SymbolLSTM(self.columns, n_symbols, size))
        self.lstm_hidden_state_shape = (1, 1, n_symbols * size)
        self.optimizer = cast(Any, self.optimizer_class)(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    @property
    def _encoded(self) -> LatentColumns:
        return LatentColumns(self.lstm_output_dim)
