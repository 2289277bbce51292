"""Run strategies over out-of-sample bars: one account each, one ledger, one pass.

The accounts live through all test ranges without a break. At a fold's boundary the new fold's policies take over the
account as they find it, and the trades that this costs are paid. Policies are asked once per bar for all accounts. A
recurrent policy remembers each account from bar to bar; it remembers nothing when it takes over. A masked one is told
which actions are allowed. Policies that give weights are taken at the mean of their distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ploutos.envs import ledger
from ploutos.envs.actions import action_masks, target_weights, weights_within
from ploutos.envs.kernel import KINDS
from ploutos.envs.observation import market_rows, observation_size, observe
from ploutos.envs.spec import EnvSpec, sized_for
from ploutos.errors import DataError
from ploutos.features.build import FeatureSet
from ploutos.fusion.calibration import FusionChoice
from ploutos.fusion.decisions import FusionSpec, VectorizedDecisionFusion
from ploutos.fusion.risk import RiskHistory, RiskSpec
from ploutos.market.bars import Bars
from ploutos.strategies.ensemble import Memory, answer, gives_weights, leaning, mean_weights, vote
from ploutos.training.checkpoint import Policy
from ploutos.types import FloatArray, IntArray
from ploutos.walk_forward import Range


@dataclass(frozen=True)
class Moment:
    """What a strategy may know when it decides, after the close of `bar`."""

    bar: int
    segment: int  # position among the segments that are run
    accounts: ledger.Accounts
    held: FloatArray  # (n_accounts, n_symbols), share of equity
    probabilities: FloatArray
    """Shape (n_members, n_accounts, n_symbols, 3), no members without policies; of policies that give weights (..., 2), as
    `ploutos.strategies.ensemble.answer` gives them."""
    _histories: dict[RiskSpec, RiskHistory] = field(default_factory=dict)

    @property
    def gives_weights(self) -> bool:
        """Whether the policies give weights and not actions."""
        return gives_weights(self.probabilities)

    def risk(self, spec: RiskSpec) -> RiskHistory:
        """Of all accounts; worked out once for all strategies under the same limits."""
        if spec not in self._histories:
            self._histories[spec] = RiskHistory.of(self.accounts, self.bar, spec)
        return self._histories[spec]


class Strategy(Protocol):
    """Decides for one account of the batch."""

    @property
    def name(self) -> str:
        """Who decided, in tables and figures."""
        ...

    def decide(self, moment: Moment, row: int) -> FloatArray:
        """Target weights, shape (n_symbols,), nan for no order."""
        ...


@dataclass(frozen=True)
class Scheduled:
    """A strategy whose targets do not depend on its account."""

    name: str
    targets: FloatArray  # (n_bars, n_symbols)

    def decide(self, moment: Moment, row: int) -> FloatArray:
        return np.asarray(self.targets[moment.bar])


@dataclass(frozen=True)
class _Discrete:
    """Shared half of the strategies that choose HOLD, BUY or SELL, or ask policies that do, or that give weights."""

    name: str
    bars: Bars
    env: EnvSpec

    def weights(self, actions: IntArray, bar: int) -> FloatArray:
        tradable = np.array([self.bars.tradable[bar].sum()])
        return target_weights(actions[None], tradable, self.env)[0]

    def voted_weights(self, answers: FloatArray) -> FloatArray:
        """Target weights, shape (n_symbols,), of members that give weights."""
        return weights_within(mean_weights(answers)[0][None], self.env)[0]


@dataclass(frozen=True)
class Voted(_Discrete):
    """The vote of some members; one member votes alone."""

    members: slice

    def decide(self, moment: Moment, row: int) -> FloatArray:
        answers = moment.probabilities[self.members, row]
        if moment.gives_weights:
            return self.voted_weights(answers)
        actions, _ = vote(answers)
        return self.weights(actions, moment.bar)


@dataclass(frozen=True)
class Advised(_Discrete):
    """The advisor's standing advice and nothing else."""

    stances: IntArray  # (n_bars, n_symbols)

    def decide(self, moment: Moment, row: int) -> FloatArray:
        return self.weights(self.stances[moment.bar], moment.bar)


@dataclass(frozen=True)
class Fused(_Discrete):
    """The vote of all members and the advice, fused, under the risk veto."""

    stances: IntArray  # (n_bars, n_symbols)
    confidences: FloatArray  # (n_bars, n_symbols)
    fusion: FusionSpec
    choices: tuple[FusionChoice, ...] = ()  # one per segment, or none to take `fusion` as it is

    def decide(self, moment: Moment, row: int) -> FloatArray:
        bar = moment.bar
        answers, fusion = moment.probabilities[:, row], self.fusion
        actions, confidences = leaning(answers)
        if self.choices:
            choice = self.choices[moment.segment]
            fusion, confidences = choice.applied(fusion), choice.calibration.apply(actions, confidences)
        history, fuse = moment.risk(fusion.risk).row(row), VectorizedDecisionFusion(fusion)
        risk = history.scores()[0]
        if moment.gives_weights:
            advised = self.weights(self.stances[bar], bar)
            wanted = fuse.blend_batch(self.voted_weights(answers), confidences, advised, self.confidences[bar], risk)
        else:
            wanted = self.weights(fuse.fuse_batch(actions, confidences, self.stances[bar], self.confidences[bar], risk), bar)
        return history.veto(wanted[None], moment.held[row : row + 1])[0]


@dataclass(frozen=True)
class Segment:
    """A stretch of bars and the policies that decide in it; no policies for baselines alone. They are read when their turn comes."""

    bars: Range
    policies: Sequence[Policy] = ()


@dataclass(frozen=True)
class Backtests:
    """What every account did, bar by bar. k strategies, n + 1 closes (the first is the start), s symbols.

    Attributes:
        names: k strategies.
        symbols: s names.
        timestamps: shape (n + 1,), datetime64[us] UTC.
        positions: shape (n + 1,), positions of those bars in the panel.
        equity, pnl, commission, slippage, impact, borrow, traded, written_off: shape (k, n + 1), account currency; all but equity
            since the start.
        weights: shape (k, n + 1, s), share of equity held at each close.
        fill_units, fill_price: shape (k, n + 1, s), at the open; nan price without a fill; the first row is empty.
        fill_kind: shape (k, n + 1, s), why it was filled: a position in `ploutos.envs.kernel.KINDS`, 0 without a fill.
        stop_units, stop_price, stop_kind: the same for what was closed after the open.
        ruined: shape (k,), the close at which an account was ruined, -1 for one that never was.
        last: shape (k,), the last close that counts: of a ruined account the one by which all it held was closed, else n.
    """

    names: tuple[str, ...]
    symbols: tuple[str, ...]
    timestamps: np.ndarray
    positions: np.ndarray
    equity: FloatArray
    pnl: FloatArray
    commission: FloatArray
    slippage: FloatArray
    impact: FloatArray
    borrow: FloatArray
    traded: FloatArray
    written_off: FloatArray
    weights: FloatArray
    fill_units: FloatArray
    fill_price: FloatArray
    fill_kind: np.ndarray
    stop_units: FloatArray
    stop_price: FloatArray
    stop_kind: np.ndarray
    ruined: IntArray
    last: IntArray

    def row(self, name: str) -> int:
        """Which account a strategy had."""
        return self.names.index(name)

    def only(self, names: Sequence[str]) -> "Backtests":
        """The accounts of some strategies."""
        rows = [self.row(name) for name in names]
        return replace(self, names=tuple(names), **{name: getattr(self, name)[rows] for name in _BY_ACCOUNT})

    def equity_frame(self) -> pd.DataFrame:
        """Long table: strategy, timestamp, equity, pnl, the costs by kind, traded, written_off."""
        k, n = self.equity.shape
        columns = {name: getattr(self, name).ravel() for name in _RECORDED}
        stamps = pd.Series(np.tile(self.timestamps, k)).dt.tz_localize("UTC")
        return pd.DataFrame({"strategy": np.repeat(np.array(self.names), n), "timestamp": stamps, **columns})

    def trades_frame(self) -> pd.DataFrame:
        """Long table, one row per fill: strategy, timestamp of the bar it filled in, symbol, units, price, and why.

        `kind` is `order`, or what forced it: `stop` (within the bar), `stop gap` (the open had passed the stop), `session end`,
        `margin call`, `ruin` (what was written off left at the close) or `payout` (of a delisted symbol).
        """
        prices = np.stack([self.fill_price, self.stop_price], axis=-1)
        k, n, s, when = np.nonzero(np.isfinite(prices))
        return pd.DataFrame(
            {
                "strategy": np.array(self.names)[k],
                "timestamp": pd.Series(self.timestamps[n]).dt.tz_localize("UTC"),
                "symbol": np.array(self.symbols)[s],
                "units": np.stack([self.fill_units, self.stop_units], axis=-1)[k, n, s, when],
                "price": prices[k, n, s, when],
                "kind": np.array(KINDS)[np.stack([self.fill_kind, self.stop_kind], axis=-1)[k, n, s, when]],
            }
        )


_RECORDED = ("equity", "pnl", *ledger.COSTS, "traded", "written_off")
_FILLS: dict[str, Any] = {"fill_units": 0.0, "fill_price": np.nan, "fill_kind": np.int8(0)}
_FILLS |= {name.replace("fill", "stop"): nothing for name, nothing in _FILLS.items()}
_BY_ACCOUNT = (*_RECORDED, "weights", *_FILLS, "ruined", "last")


def run_backtests(
    bars: Bars,
    features: FeatureSet | None,
    segments: Sequence[Segment],
    strategies: Sequence[Strategy],
    env: EnvSpec,
) -> Backtests:
    """Run all strategies over consecutive segments.

    Args:
        features: what the policies observe; None when no segment has policies.
        segments: ranges that follow each other without a hole. The first decision is made one bar before the first.
        env: an initial cash that it leaves open is sized for these segments.

    Raises:
        DataError: the segments leave a hole or start at the first bar.
    """
    for before, after in pairwise(segments):
        if before.bars.stop != after.bars.start:
            raise DataError(f"test ranges leave a hole: one ends at bar {before.bars.stop}, the next starts at {after.bars.start}")
    first, last = segments[0].bars.start - 1, segments[-1].bars.stop - 1
    if first < 0:
        raise DataError("the first test bar has no bar before it to decide on")
    env = sized_for(env, bars, *(segment.bars for segment in segments))
    tape = ledger.make_tape(bars)
    ledger.require_rules(tape, env)
    k, n, s = len(strategies), last - first, bars.n_symbols
    accounts = ledger.Accounts.open(k, s, env.cash)
    money = {name: np.zeros((k, n + 1)) for name in _RECORDED}
    money["equity"][:, 0] = env.cash
    weights = np.zeros((k, n + 1, s))
    fills = {name: np.full((k, n + 1, s), nothing) for name, nothing in _FILLS.items()}
    ruined, ended = np.full(k, -1), np.full(k, n)
    for index, segment in enumerate(segments):
        think = _thinker(bars, features, tape, segment, env)
        for decided in range(segment.bars.start - 1, segment.bars.stop - 1):
            bar = np.full(k, decided, dtype=np.int64)
            moment = Moment(decided, index, accounts, weights[:, decided - first], think(accounts, bar))
            targets = np.stack([strategy.decide(moment, row) for row, strategy in enumerate(strategies)])
            ledger.step(accounts, bar, targets, tape, env)
            at = decided + 1 - first
            for name in _RECORDED:
                money[name][:, at] = getattr(accounts, name)
            held = np.where(accounts.units != 0, accounts.units * tape.mark[decided + 1] * tape.multiplier, 0.0)
            weights[:, at] = held / np.maximum(accounts.equity, 1e-9)[:, None]
            for name in _FILLS:
                fills[name][:, at] = getattr(accounts, name)
            ruined[accounts.ruined & (ruined < 0)] = at
            ended[accounts.ruined & (ended == n) & ~accounts.units.any(axis=1)] = at
    return Backtests(
        names=tuple(strategy.name for strategy in strategies),
        symbols=bars.symbols,
        timestamps=bars.timestamps[first : last + 1],
        positions=np.arange(first, last + 1),
        weights=weights,
        ruined=ruined,
        last=ended,
        **money,
        **fills,
    )


def joined(first: Backtests, second: Backtests) -> Backtests:
    """Accounts of two runs side by side; accounts never meet, so it is as if they had run together.

    Raises:
        DataError: the runs are over other bars or symbols.
    """
    if first.symbols != second.symbols or not np.array_equal(first.positions, second.positions):
        raise DataError("backtests over other bars or symbols cannot be joined; run them over the same segments")
    arrays: dict[str, Any] = {
        field.name: np.concatenate([getattr(first, field.name), getattr(second, field.name)])
        for field in fields(Backtests)
        if field.name not in ("names", "symbols", "timestamps", "positions")
    }
    return replace(first, names=first.names + second.names, **arrays)


class _Thinker(Protocol):
    def __call__(self, accounts: ledger.Accounts, bar: IntArray) -> FloatArray: ...


def _thinker(bars: Bars, features: FeatureSet | None, tape: ledger.Tape, segment: Segment, env: EnvSpec) -> _Thinker:
    """What a segment's policies make of every account's observation."""
    policies = tuple(segment.policies)
    if not policies:
        return lambda accounts, bar: np.zeros((0, len(bar), bars.n_symbols, 3))
    if features is None:
        raise DataError("policies decide from features; found none")
    for policy in policies:
        policy.require(bars.symbols, features.names)
    if len({policy.gives_weights for policy in policies}) > 1:
        raise DataError("some policies give weights and others actions; members of one vote must all do the same")
    views: list[tuple[Policy, np.ndarray, Memory]] = []
    masked = any(policy.masked for policy in policies)
    for policy in policies:  # members of a fold share a scaler, and then the rows as well
        shared = next((r for p, r, _ in views if np.array_equal(p.scaler.mean, policy.scaler.mean)), None)
        rows = market_rows(features, bars.tradable, policy.scaler) if shared is None else shared
        views.append((policy, rows, Memory()))

    def think(accounts: ledger.Accounts, bar: IntArray) -> FloatArray:
        probabilities = []
        seen: dict[tuple[int, bool], np.ndarray] = {}
        masks = action_masks(accounts, bar, tape, env) if masked else None
        for policy, rows, memory in views:
            view = id(rows), policy.observes_account
            if view not in seen:
                out = np.empty((len(bar), observation_size(rows.shape[1], bars.n_symbols, policy.observes_account)), dtype=np.float32)
                observe(accounts, bar, rows, tape, out)
                seen[view] = out
            probabilities.append(answer(policy, seen[view], masks, memory))
        return np.stack(probabilities)

    return think


def write_backtests(backtests: Backtests, path: Path) -> None:
    """Write all arrays as one npz; the same content gives the same bytes."""
    arrays: dict[str, Any] = {field.name: np.asarray(getattr(backtests, field.name)) for field in fields(backtests)}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_backtests(path: Path) -> Backtests:
    """Read what `write_backtests` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        content = {field.name: arrays[field.name] for field in fields(Backtests)}
    for name in ("names", "symbols"):
        content[name] = tuple(str(item) for item in content[name])
    return Backtests(**content)
