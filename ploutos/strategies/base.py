"""The contract of everything that chooses target weights: told one bar and its own accounts, it answers with a weight per symbol.

A strategy may own several accounts and decides for all of them at once. Of other strategies' accounts it is told nothing. Backtests,
validation and everything that comes after call the same object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ploutos.envs.actions import target_weights
from ploutos.envs.ledger import Accounts
from ploutos.envs.spec import EnvSpec
from ploutos.market.bars import Bars
from ploutos.types import FloatArray, IntArray


@dataclass(frozen=True)
class DecisionContext:
    """What a strategy may know when it decides, after the close of `bar`; n accounts of its own, s symbols.

    Attributes:
        bar: position in the panel.
        segment: position among the segments that are run.
        accounts: the strategy's own, as they are now.
        held: shape (n, s), share of equity held, signed.
        predictions: shape (n_members, n, s, 3), each policy's probability of every action for these accounts; no members without
            policies, or for a strategy that does not ask; (..., 2), weight and confidence, of policies that give weights.
    """

    bar: int
    segment: int
    accounts: Accounts
    held: FloatArray
    predictions: FloatArray


class Strategy(Protocol):
    """Chooses target weights for its own accounts."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its accounts, in tables and figures."""
        ...

    @property
    def asks_policies(self) -> bool:
        """Whether its decisions read predictions; those of a strategy that does not are none."""
        ...

    def targets(self, context: DecisionContext) -> FloatArray:
        """Target weights, shape (n_accounts, n_symbols), share of equity, nan for no order."""
        ...


@dataclass(frozen=True)
class PrecomputedTargets:
    """A strategy of one account, whose targets do not depend on it.

    Attributes:
        name: of the account.
        table: shape (n_bars, n_symbols); row *t* uses bars up to and including *t*.
    """

    name: str
    table: FloatArray

    asks_policies = False

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def targets(self, context: DecisionContext) -> FloatArray:
        return np.asarray(self.table[context.bar : context.bar + 1])


def weights_of_actions(actions: IntArray, bars: Bars, bar: int, env: EnvSpec) -> FloatArray:
    """Target weights of HOLD, BUY and SELL after the close of a bar.

    Args:
        actions: shape (n, n_symbols).
    """
    return target_weights(actions, np.full(len(actions), bars.tradable[bar].sum()), env)


def account_names(strategies: Sequence[Strategy]) -> tuple[str, ...]:
    """Names of all accounts, strategy by strategy."""
    return tuple(name for strategy in strategies for name in strategy.names)
