"""The contract of everything that chooses target weights: told one bar and its own accounts, it answers with a weight per symbol.

A strategy may own several accounts and decides for all of them at once. Of other strategies' accounts it is told nothing. Backtests,
validation and everything that comes after call the same object. An account is known by its slug and its role; what people call it is
left to `ploutos.reporting`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from ploutos.envs.actions import target_weights
from ploutos.envs.ledger import Accounts
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StrategyError
from ploutos.market.bars import Bars
from ploutos.types import FloatArray, IntArray

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Role(StrEnum):
    """What an account is there for."""

    FUSED = "fused"
    """The vote of the policies, fused with the advisor."""
    VOTE = "vote"
    """The vote of the policies alone."""
    MEMBER = "member"
    """One policy alone."""
    ADVISOR = "advisor"
    """The advisor alone."""
    HYBRID = "hybrid"
    """Policies that were trained on the advice."""
    ABLATION = "ablation"
    """The same training without what it is meant to test."""
    REGRESSION = "regression"
    """A supervised model of the next return."""
    ORACLE = "oracle"
    """Knows how a planted market was made: the most that is there."""
    BASELINE = "baseline"
    """Learns nothing."""
    PLACEBO = "placebo"
    """A control that cannot help; no contender."""
    STRATEGY = "strategy"
    """A user's own."""


@dataclass(frozen=True)
class StrategyId:
    """Who decides for an account.

    Attributes:
        slug: lower-case letters, digits and single hyphens; unique among the accounts of a run.

    Raises:
        StrategyError: the slug is empty or not one.
    """

    slug: str
    role: Role = Role.STRATEGY

    def __post_init__(self) -> None:
        if not _SLUG.fullmatch(self.slug):
            raise StrategyError(f"{self.slug!r} is not a slug; expected lower-case letters, digits and hyphens, as in mean-reversion")


def require_unique(ids: Sequence[StrategyId]) -> None:
    """Refuse accounts that share a slug.

    Raises:
        StrategyError: two of them do.
    """
    slug, count = Counter(each.slug for each in ids).most_common(1)[0] if ids else ("", 0)
    if count > 1:
        raise StrategyError(f"{count} accounts have the slug {slug}; expected one each: give the others another slug")


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
    def ids(self) -> tuple[StrategyId, ...]:
        """Of its accounts."""
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
        slug: of the account.
        table: shape (n_bars, n_symbols); row *t* uses bars up to and including *t*.
        role: of the account.

    Raises:
        StrategyError: the slug is not one.
    """

    slug: str
    table: FloatArray
    role: Role = Role.STRATEGY

    asks_policies = False

    def __post_init__(self) -> None:
        StrategyId(self.slug)

    @property
    def ids(self) -> tuple[StrategyId, ...]:
        return (StrategyId(self.slug, self.role),)

    def targets(self, context: DecisionContext) -> FloatArray:
        return np.asarray(self.table[context.bar : context.bar + 1])


def weights_of_actions(actions: IntArray, bars: Bars, bar: int, env: EnvSpec) -> FloatArray:
    """Target weights of HOLD, BUY and SELL after the close of a bar.

    Args:
        actions: shape (n, n_symbols).
    """
    return target_weights(actions, np.full(len(actions), bars.n_tradable[bar]), env)


def account_ids(strategies: Sequence[Strategy]) -> tuple[StrategyId, ...]:
    """Of all accounts, strategy by strategy."""
    return tuple(each for strategy in strategies for each in strategy.ids)
