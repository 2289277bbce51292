"""Run strategies over out-of-sample bars: one account each, one ledger, one pass.

The accounts live through all test ranges without a break. At a fold's boundary the new fold's policies take over the
account as they find it, and the trades that this costs are paid. Policies are asked once per bar for all accounts. A
recurrent policy remembers each account from bar to bar; it remembers nothing when it takes over. A masked one is told
which actions are allowed. Policies that give weights are taken at the mean of their distribution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ploutos.envs import ledger
from ploutos.envs.actions import N_ACTIONS
from ploutos.envs.kernel import KINDS
from ploutos.envs.observation import read_only
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import DataError
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars, span_in_words
from ploutos.progress import advance
from ploutos.store import Kind
from ploutos.strategies.base import DecisionContext, PrecomputedTargets, Role, Strategy, StrategyId, account_ids, require_unique
from ploutos.types import FloatArray, IntArray
from ploutos.walk_forward import Range
from ploutos.wording import enumerate_names

if TYPE_CHECKING:
    from ploutos.training.checkpoint import Policy


@dataclass(frozen=True)
class Segment:
    """A stretch of bars and the policies that decide in it; no policies for baselines alone. They are read when their turn comes."""

    bars: Range
    policies: "Sequence[Policy]" = ()


@dataclass(frozen=True, repr=False)
class Backtests:
    """What every account did, bar by bar. k strategies, n + 1 closes (the first is the start), s symbols.

    Attributes:
        slugs, roles: of the k accounts.
        symbols: s names.
        timestamps: shape (n + 1,), datetime64[us] UTC.
        positions: shape (n + 1,), positions of those bars in the panel.
        equity, pnl, commission, slippage, impact, borrow, traded, written_off: shape (k, n + 1), account currency; all but equity
            since the start.
        weights: shape (k, n + 1, s), share of equity held at each close.
        targets: shape (k, n + 1, s), what was decided after each close, nan for no order; the last row is empty, unless the next
            decision was asked for.
        fill_units, fill_price: shape (k, n + 1, s), at the open; nan price without a fill; the first row is empty.
        fill_kind: shape (k, n + 1, s), why it was filled: a position in `ploutos.envs.kernel.KINDS`, 0 without a fill.
        stop_units, stop_price, stop_kind: the same for what was closed after the open.
        ruined: shape (k,), the close at which an account was ruined, -1 for one that never was.
        last: shape (k,), the last close that counts: of a ruined account the one by which all it held was closed, else n.
    """

    slugs: tuple[str, ...]
    roles: tuple[Role, ...]
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
    targets: FloatArray
    fill_units: FloatArray
    fill_price: FloatArray
    fill_kind: np.ndarray
    stop_units: FloatArray
    stop_price: FloatArray
    stop_kind: np.ndarray
    ruined: IntArray
    last: IntArray

    def __repr__(self) -> str:
        return f"Backtests({enumerate_names(self.slugs, 8)}, {len(self.timestamps) - 1:,} bars, {span_in_words(self.timestamps)})"

    def row(self, slug: str) -> int:
        """Which account a strategy had."""
        return self.slugs.index(slug)

    def of(self, role: Role) -> tuple[str, ...]:
        """Slugs of the accounts with a role."""
        return tuple(slug for slug, each in zip(self.slugs, self.roles, strict=True) if each is role)

    def only(self, slugs: Sequence[str]) -> "Backtests":
        """The accounts of some strategies."""
        if tuple(slugs) == self.slugs:
            return self
        rows = [self.row(slug) for slug in slugs]
        arrays = {name: getattr(self, name)[rows] for name in BY_ACCOUNT}
        return replace(self, slugs=tuple(slugs), roles=tuple(self.roles[row] for row in rows), **arrays)

    def contenders(self) -> "Backtests":
        """All accounts but the placebos."""
        placebos = self.of(Role.PLACEBO)
        return self.only([slug for slug in self.slugs if slug not in placebos])

    def equity_frame(self) -> pd.DataFrame:
        """Long table: strategy (its slug), timestamp, equity, pnl, the costs by kind, traded, written_off."""
        k, n = self.equity.shape
        columns = {name: getattr(self, name).ravel() for name in _RECORDED}
        stamps = pd.Series(np.tile(self.timestamps, k)).dt.tz_localize("UTC")
        return pd.DataFrame({"strategy": np.repeat(np.array(self.slugs), n), "timestamp": stamps, **columns})

    def trades_frame(self) -> pd.DataFrame:
        """Long table, one row per fill: strategy (its slug), timestamp of the bar it filled in, symbol, units, price, and why.

        `kind` is `order`, or what forced it: `stop` (within the bar), `stop gap` (the open had passed the stop), `session end`,
        `margin call`, `ruin` (what was written off left at the close) or `payout` (of a delisted symbol).
        """
        prices = np.stack([self.fill_price, self.stop_price], axis=-1)
        k, n, s, when = np.nonzero(np.isfinite(prices))
        return pd.DataFrame(
            {
                "strategy": np.array(self.slugs)[k],
                "timestamp": pd.Series(self.timestamps[n]).dt.tz_localize("UTC"),
                "symbol": np.array(self.symbols)[s],
                "units": np.stack([self.fill_units, self.stop_units], axis=-1)[k, n, s, when],
                "price": prices[k, n, s, when],
                "kind": np.array(KINDS)[np.stack([self.fill_kind, self.stop_kind], axis=-1)[k, n, s, when]],
            }
        )


Part = Literal["costs", "weights", "targets", "fills"]
"""What a backtest may keep beside equity."""
EVERYTHING: tuple[Part, ...] = ("costs", "weights", "targets", "fills")
_COSTS = ("pnl", *ledger.COSTS, "traded", "written_off")
_RECORDED = ("equity", *_COSTS)
_FILLS: dict[str, Any] = {"fill_units": 0.0, "fill_price": np.nan, "fill_kind": np.int8(0)}
_FILLS |= {name.replace("fill", "stop"): nothing for name, nothing in _FILLS.items()}
_TOLD = 20  # bars between two words of progress
BY_ACCOUNT = (*_RECORDED, "weights", "targets", *_FILLS, "ruined", "last")


class _Recording:
    """What is kept of every account, bar by bar: one row a bar, so that a row is written at once."""

    def __init__(self, accounts: ledger.Accounts, n: int, keep: Sequence[Part]) -> None:
        k, s = accounts.units.shape
        kept = ("equity", *(_COSTS if "costs" in keep else ()), *(_FILLS if "fills" in keep else ()))
        self.arrays: dict[str, np.ndarray] = {name: np.zeros((n + 1 if name in kept else 0, k)) for name in _RECORDED}
        self.arrays["equity"][0] = accounts.equity
        self.arrays["weights"] = np.zeros((n + 1 if "weights" in keep else 0, k, s))
        self.arrays["targets"] = np.full((n + 1 if "targets" in keep else 0, k, s), np.nan)
        for name, nothing in _FILLS.items():
            self.arrays[name] = np.full((n + 1 if "fills" in keep else 0, k, s), nothing)
        self.ruined, self.last = np.full(k, -1), np.full(k, n)
        self._n, self._accounts = n, accounts
        self._sources = [(self.arrays[name], getattr(accounts, name)) for name in kept]

    def note(self, at: int, decided: FloatArray, held: FloatArray) -> None:
        """Keep what was decided before a step and what the accounts are after it."""
        accounts = self._accounts
        if len(self.arrays["targets"]):
            self.arrays["targets"][at - 1] = decided
        for array, source in self._sources:
            array[at] = source
        if len(self.arrays["weights"]):
            self.arrays["weights"][at] = held
        if np.count_nonzero(accounts.ruined):
            self.ruined[accounts.ruined & (self.ruined < 0)] = at
            self.last[accounts.ruined & (self.last == self._n) & ~accounts.units.any(axis=1)] = at

    def note_next(self, decided: FloatArray) -> None:
        """Keep what was decided after the last close."""
        if len(self.arrays["targets"]):
            self.arrays["targets"][-1] = decided

    def by_account(self) -> dict[str, Any]:
        """The same with the account first."""
        return {name: array.swapaxes(0, 1) for name, array in self.arrays.items()} | {"ruined": self.ruined, "last": self.last}


def run_backtests(
    bars: Bars,
    features: FeatureSet | None,
    segments: Sequence[Segment],
    strategies: Sequence[Strategy],
    env: EnvSpec,
    keep: Sequence[Part] = EVERYTHING,
    decide_next: bool = False,
) -> Backtests:
    """Run all strategies over consecutive segments.

    Args:
        features: what the policies observe; None when no segment has policies.
        segments: ranges that follow each other without a hole. The first decision is made one bar before the first.
        env: an initial cash that it leaves open is sized for these segments.
        keep: what to keep beside equity; arrays of what is not kept are empty.
        decide_next: ask once more after the last close, whose bar need have no successor; the answer is the last row of `targets`.

    Raises:
        DataError: the segments leave a hole or start at the first bar.
        StrategyError: two accounts share a slug.
    """
    require_unique(account_ids(strategies))
    for before, after in pairwise(segments):
        if before.bars.stop != after.bars.start:
            raise DataError(f"test ranges leave a hole: one ends at bar {before.bars.stop}, the next starts at {after.bars.start}")
    first, last = segments[0].bars.start - 1, segments[-1].bars.stop - 1
    if first < 0:
        raise DataError("the first test bar has no bar before it to decide on")
    env = with_initial_cash(env, bars, *(segment.bars for segment in segments))
    arrays = ledger.make_market_arrays(bars)
    ledger.require_rules(arrays, env)
    ordered = sorted(strategies, key=lambda strategy: not strategy.asks_policies)  # policies are asked about the first accounts alone
    ids = account_ids(ordered)
    n_asking = len(account_ids([strategy for strategy in ordered if strategy.asks_policies]))
    accounts = ledger.Accounts.open(len(ids), bars.n_symbols, env.cash)
    stepper = ledger.Stepper(accounts, arrays, env)
    ends = np.cumsum([len(strategy.ids) for strategy in ordered]).tolist()
    own = [(slice(end - len(strategy.ids), end), strategy) for strategy, end in zip(ordered, ends, strict=True)]
    tables = [(rows.start, strategy.table) for rows, strategy in own if type(strategy) is PrecomputedTargets]
    asked = [(rows, strategy, accounts.rows(rows)) for rows, strategy in own if type(strategy) is not PrecomputedTargets]
    recording, bar = _Recording(accounts, last - first, keep), np.empty(len(ids), dtype=np.int64)
    targets, held = np.empty((len(ids), bars.n_symbols)), read_only(np.zeros((len(ids), bars.n_symbols)))
    for index, segment in enumerate(segments):
        once_more = decide_next and index == len(segments) - 1
        decides = segment.bars if not once_more else Range(start=segment.bars.start, stop=segment.bars.stop + 1)
        predict = _predictor(segment.policies, bars, features, decides, arrays, env)
        for decided in range(decides.start - 1, decides.stop - 1):
            if decided % _TOLD == 0:
                advance(decided - first, last - first, "bars")
            bar[:] = decided
            predictions = predict(accounts, bar[:n_asking])
            for rows, strategy, mine in asked:
                targets[rows] = strategy.targets(DecisionContext(decided, index, mine, held[rows], predictions[:, rows]))
            for row, table in tables:  # what their `targets` would answer
                targets[row] = table[decided]
            if decided == last:
                recording.note_next(targets)
                break
            stepper.step(bar, targets)
            held = stepper.held(decided + 1)
            recording.note(decided + 1 - first, targets, held)
    return Backtests(
        slugs=tuple(each.slug for each in ids),
        roles=tuple(each.role for each in ids),
        symbols=bars.symbols,
        timestamps=bars.timestamps[first : last + 1],
        positions=np.arange(first, last + 1),
        **recording.by_account(),
    ).only([each.slug for each in account_ids(strategies)])


def _predictor(
    policies: "Sequence[Policy]", bars: Bars, features: FeatureSet | None, part: Range, arrays: ledger.MarketArrays, env: EnvSpec
) -> Callable[[ledger.Accounts, IntArray], FloatArray]:
    """What asks the policies of a segment; a backtest without any does not load what policies need, 200 MiB."""
    if not policies:
        return lambda accounts, bar: np.zeros((0, len(bar), bars.n_symbols, N_ACTIONS))
    from ploutos.strategies.inference import PolicyInference

    return PolicyInference(tuple(policies), bars, features, part, arrays, env).predict


def concat(first: Backtests, second: Backtests) -> Backtests:
    """Accounts of two runs side by side; accounts never meet, so it is as if they had run together.

    Raises:
        DataError: the runs are over other bars or symbols.
        StrategyError: they share a slug.
    """
    if first.symbols != second.symbols or not np.array_equal(first.positions, second.positions):
        raise DataError("backtests over other bars or symbols cannot be put side by side; run them over the same segments")
    require_unique([StrategyId(*pair) for each in (first, second) for pair in zip(each.slugs, each.roles, strict=True)])
    arrays: dict[str, Any] = {
        field.name: np.concatenate([getattr(first, field.name), getattr(second, field.name)])
        for field in fields(Backtests)
        if field.name in BY_ACCOUNT
    }
    return replace(first, slugs=first.slugs + second.slugs, roles=first.roles + second.roles, **arrays)


def write_backtests(backtests: Backtests, path: Path) -> None:
    """Write all arrays as one npz; the same content gives the same bytes."""
    arrays: dict[str, Any] = {field.name: np.asarray(getattr(backtests, field.name)) for field in fields(backtests)}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_backtests(path: Path) -> Backtests:
    """Read what `write_backtests` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        content = {field.name: arrays[field.name] for field in fields(Backtests)}
    for name in ("slugs", "symbols"):
        content[name] = tuple(str(item) for item in content[name])
    content["roles"] = tuple(Role(item) for item in content["roles"])
    return Backtests(**content)


BACKTESTS = Kind("backtests", ".npz", write_backtests, read_backtests)
