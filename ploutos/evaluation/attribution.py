"""Where an account's growth came from, in account currency: parts that add up to it, by symbol, by fold, by long and short.

A step has two legs: what was held through the gap to the open, and what was held from the open to the close. On each, a symbol's
exposure e is the value held and m is the market: the equal mean return of the symbols that moved. With w the mean of e over the mean of
equity E, the profit of a leg is w E m (market exposure), plus (e - w E) m (timing), plus what the symbol did beside the market
(selection). So the sum is the profit whatever the definitions, and an account that holds the market at a steady weight shows neither
timing nor selection.

What a stop within a bar changed is its exit against that bar's close; what came of being out later lies in timing. Advice and vetoes have
no exposure of their own: each is the gross profit of an account less that of an ablation, which lacks it and is otherwise the same; market,
timing and selection are then those of the last ablation, and what an ablation lacked is split in the same way. Costs are the account's own.
Nobody pays or earns interest here, so no part is called financing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ploutos.envs import kernel
from ploutos.envs.market_arrays import MarketArrays, make_market_arrays
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.replay import Replay, replay_accounts
from ploutos.evaluation.summary import Attribution, Growth
from ploutos.market.bars import Bars
from ploutos.types import FloatArray, IntArray
from ploutos.walk_forward import Fold

SIDES = ("long", "short")
GROSS = ("market", "selection", "timing", "stops")
_COSTS = {
    "commission": kernel.PART_COMMISSION,
    "spread": kernel.PART_SPREAD,
    "slippage": kernel.PART_SLIPPAGE,
    "impact": kernel.PART_IMPACT,
    "borrow": kernel.PART_BORROW,
}


@dataclass(frozen=True)
class Ablations:
    """Accounts that each lack something the one before has; None where there is none.

    Attributes:
        without_advice: slug of the account alike but for the advice.
        without_veto: slug of the account that, further, has no veto.
    """

    without_advice: str | None = None
    without_veto: str | None = None

    def chain(self, slug: str) -> list[tuple[str, str]]:
        """What each further ablation lacks, and its slug; the account itself lacks nothing."""
        lacking = (("advice", self.without_advice), ("vetoes", self.without_veto))
        return [("", slug), *((part, ablation) for part, ablation in lacking if ablation)]


def attributions(
    bars: Bars, backtests: Backtests, slugs: Sequence[str], env: EnvSpec, folds: Sequence[Fold], ablations: Mapping[str, Ablations] = {}
) -> tuple[Attribution, ...]:
    """Of several accounts, those that the backtest holds.

    Args:
        ablations: by slug of the account; where one of them did not run there are none, since the next would lack two things.
    """
    there = set(backtests.slugs)
    known = {slug: each for slug, each in ablations.items() if {ablation for _, ablation in each.chain(slug)} <= there}
    return tuple(
        attribute(bars, backtests, slug, env, folds, known.get(slug, Ablations())) for slug in dict.fromkeys(slugs) if slug in there
    )


def attribute(
    bars: Bars, backtests: Backtests, slug: str, env: EnvSpec, folds: Sequence[Fold] = (), ablations: Ablations = Ablations()
) -> Attribution:
    """Split one account's growth.

    Args:
        env: what the accounts ran under.
        folds: whose test ranges the backtest stitched together; without any there is no split by fold.

    Raises:
        DataError: the account's decisions were not kept, or do not give its path.
    """
    arrays, chain = make_market_arrays(bars), ablations.chain(slug)
    again = replay_accounts(arrays, backtests, [ablation for _, ablation in chain], env)
    fold_of = _fold_of(backtests, folds)
    legs = _Legs.of(arrays, bars, backtests.positions)
    cells = [_cells(again, account, legs, fold_of) for account in range(len(chain))]
    whole, changed = _chained(cells, [part for part, _ in chain])
    written_off = _by_fold(np.diff(again.written_off[0]), fold_of, int(fold_of.max()) + 1)
    first, last = again.equity[0, [0, -1]].tolist()
    growth = _growth(whole, written_off=float(written_off.sum()))
    return Attribution(
        slug=slug,
        without_advice=ablations.without_advice,
        without_veto=ablations.without_veto,
        first_equity=first,
        last_equity=last,
        growth=growth,
        residual=last - first - growth.total,
        by_symbol={symbol: _growth(whole, np.s_[j]) for j, symbol in enumerate(bars.symbols)},
        by_fold={fold.index: _growth(whole, np.s_[..., f], float(written_off[f])) for f, fold in enumerate(folds)},
        by_side={side: _growth(whole, np.s_[:, i]) for i, side in enumerate(SIDES)},
        of_advice=_growth(changed["advice"]) if "advice" in changed else None,
        of_vetoes=_growth(changed["vetoes"]) if "vetoes" in changed else None,
    )


def _fold_of(backtests: Backtests, folds: Sequence[Fold]) -> IntArray:
    """Which fold each step belongs to, shape (n,)."""
    starts = [fold.test.start for fold in folds[1:]]
    return np.searchsorted(starts, backtests.positions[1:], side="right").astype(np.int64)


@dataclass(frozen=True)
class _Legs:
    """The market over n steps of two legs.

    Attributes:
        worth: shape (n, 2, s), value of one unit where each leg begins, never negative.
        market: shape (n, 2), mean return of the symbols that moved; 0 where none did.
    """

    worth: FloatArray
    market: FloatArray

    @classmethod
    def of(cls, arrays: MarketArrays, bars: Bars, positions: IntArray) -> "_Legs":
        t, s = positions[:-1], arrays.n_symbols
        mark, opened, close = arrays.mark[t], arrays.open[t + 1], arrays.mark[t + 1]
        payout = arrays.contract_terms[kernel.PAYOUT_PRICE]
        paid = bars.payout_bars == (t + 1)[:, None]
        begins = np.stack([mark, opened], axis=1)
        ends = np.stack([np.where(paid, payout, opened), close], axis=1)
        known = np.isfinite(begins) & np.isfinite(ends) & (begins != 0)
        returns = np.where(known, ends - begins, 0.0) / np.where(known, np.abs(begins), 1.0)
        count = known.sum(axis=2)
        market = returns.sum(axis=2) / np.maximum(count, 1)
        worth = np.where(np.isfinite(begins), np.abs(begins), 0.0) * arrays.multiplier[:s]
        worth[:, 1] = np.where(np.isfinite(opened), worth[:, 1], worth[:, 0])
        return cls(worth, market)


_FIELDS = (*GROSS, *_COSTS)


def _cells(again: Replay, account: int, legs: _Legs, fold_of: IntArray) -> FloatArray:
    """One account's parts, shape (9, n_symbols, 2 sides, n_folds), in account currency; costs are negative."""
    parts, equity = again.parts[:, :, account], again.equity[account, :-1]
    units = parts[:, [kernel.HELD_UNITS, kernel.OPENED_UNITS]]
    gains = parts[:, [kernel.GAP_GAIN, kernel.RUN_GAIN]]
    n_folds, s = int(fold_of.max()) + 1, units.shape[2]
    cells = np.zeros((len(_FIELDS), s, 2, n_folds))
    closing = _closing(units)
    opening = equity + (parts[:, kernel.GAP_GAIN] - parts[:, kernel.PART_BORROW]).sum(axis=1)
    invested = np.maximum(np.stack([equity, opening], axis=1), 0.0)  # shape (n, 2), where each leg begins
    of_market = _by_fold((invested * legs.market).sum(axis=1), fold_of, n_folds)
    for side, sign in enumerate((1.0, -1.0)):
        own = np.sign(units) == sign
        exposure = np.where(own, units, 0.0) * legs.worth
        with_market = _by_fold((exposure * legs.market[:, :, None]).sum(axis=1), fold_of, n_folds)
        market = (exposure.sum(axis=(0, 1)) / invested.sum())[:, None] * of_market
        gained = _by_fold(np.where(own, gains, 0.0).sum(axis=1), fold_of, n_folds)
        stops = _by_fold(np.where(own[:, 1], parts[:, kernel.STOP_GAIN], 0.0), fold_of, n_folds)
        cells[:4, :, side] = market, gained - with_market, with_market - market, stops
        of_costs = closing * own[:, 0] + (1 - closing) * own[:, 1]
        for at, cost in enumerate(_COSTS.values(), 4):
            share = own[:, 0] if cost == kernel.PART_BORROW else of_costs
            cells[at, :, side] = -_by_fold(parts[:, cost] * share, fold_of, n_folds)
    return cells


def _closing(units: FloatArray) -> FloatArray:
    """The share of a step's fills that belongs to what was held before, shape (n, s): all of it unless the position opens or turns."""
    held, now = units[:, 0], units[:, 1]
    turned, size = held * now < 0, np.abs(held) + np.abs(now)
    return np.where(turned, np.abs(held) / np.where(turned, size, 1.0), np.where(held != 0, 1.0, 0.0))


def _by_fold(values: FloatArray, fold_of: IntArray, n_folds: int) -> FloatArray:
    """Sums of rows within each fold, the fold last."""
    sums = np.zeros((n_folds, *values.shape[1:]))
    np.add.at(sums, fold_of, values)
    return np.moveaxis(sums, 0, -1)


def _chained(cells: Sequence[FloatArray], lacking: Sequence[str]) -> tuple[dict[str, FloatArray], dict[str, dict[str, FloatArray]]]:
    """The parts of the first account by name, shape (n_symbols, 2, n_folds), and of each ablation what it lacked.

    Args:
        cells: of the account and its ablations.
        lacking: what each of them lacks that the one before has.
    """
    n = len(GROSS)
    whole = dict(zip(_FIELDS, [*cells[-1][:n], *cells[0][n:]], strict=True))
    changed = {}
    for part, own, ablation in zip(lacking[1:], cells, cells[1:], strict=False):
        difference = own[:n] - ablation[:n]
        whole[part] = difference.sum(axis=0)
        changed[part] = dict(zip(GROSS, difference, strict=True))
    return whole, changed


def _growth(parts: Mapping[str, FloatArray], which: Any = ..., written_off: float = 0.0) -> Growth:
    """Parts added up over some of the symbols, sides and folds."""
    return Growth(**{name: float(values[which].sum()) for name, values in parts.items()}, written_off=written_off)
