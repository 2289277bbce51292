"""The only place where orders become fills, fills become costs, and prices become profit or loss.

One step moves every account of a batch from the close of bar *t* to the close of bar *t+1*. Orders were decided after
the close of *t*: their size is fixed with that close and that equity. They fill at the open of *t+1*, worsened by
slippage, gaps included. A symbol with no bar at *t+1* fills nothing and keeps its last mark. A purchase that would pass
the gross limit at the open is scaled down. Costs are paid from cash.

Cash and P&L are booked apart, so `equity = initial + pnl - commission - slippage` is a check and not a definition.
Left out: interest on cash, borrow fees, market impact.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit

from ploutos.envs.spec import EnvSpec
from ploutos.market.bars import Bars
from ploutos.types import BoolArray, FloatArray, IntArray

OUTCOMES_KEPT = 10


@dataclass(frozen=True)
class Tape:
    """The prices and terms that move an account.

    Attributes:
        open, mark: shape (n_bars, n_symbols); `mark` is the last known close.
        tradable: shape (n_bars, n_symbols).
        multiplier, lot, commission_per_unit, slippage_price: shape (n_symbols,).
        in_bps: shape (n_symbols,), 1 where a fill pays the cost model's basis points; 0 for futures, whose contract says
            what they cost.
    """

    open: FloatArray
    mark: FloatArray
    tradable: BoolArray
    multiplier: FloatArray
    lot: FloatArray
    commission_per_unit: FloatArray
    slippage_price: FloatArray
    in_bps: FloatArray

    @property
    def n_bars(self) -> int:
        return len(self.mark)

    @property
    def n_symbols(self) -> int:
        return self.mark.shape[1]


def make_tape(bars: Bars) -> Tape:
    """The tape of a panel, on the terms of its instruments."""
    specs = bars.instruments
    return Tape(
        open=np.ascontiguousarray(bars.open),
        mark=np.ascontiguousarray(bars.mark),
        tradable=np.ascontiguousarray(bars.tradable),
        multiplier=np.array([s.multiplier for s in specs]),
        lot=np.array([s.lot for s in specs]),
        commission_per_unit=np.array([s.commission_per_unit for s in specs]),
        slippage_price=np.array([s.slippage_ticks * s.tick_size for s in specs]),
        in_bps=np.array([0.0 if s.asset_class == "future" else 1.0 for s in specs]),
    )


@dataclass
class Accounts:
    """A batch of accounts as struct of arrays; n accounts, s symbols.

    Money is in account currency. A trade runs from flat to flat; `loss_streak`, `outcomes` and `exit_bar` are booked
    when it ends.
    """

    cash: FloatArray  # (n,)
    equity: FloatArray  # (n,) at the last close
    peak: FloatArray  # (n,) highest equity so far
    ruined: BoolArray  # (n,)
    units: FloatArray  # (n, s) signed
    entry: FloatArray  # (n, s) average fill price of the open trade
    trade_pnl: FloatArray  # (n, s) of the open trade, net of its costs
    worst: FloatArray  # (n, s) lowest mark-to-entry return of the open trade, <= 0
    best: FloatArray  # (n, s) highest, >= 0
    loss_streak: IntArray  # (n, s) losing trades in a row
    outcomes: IntArray  # (n, s) last ten trades as bits, 1 a win
    n_outcomes: IntArray  # (n, s) 0..10
    exit_bar: IntArray  # (n, s) bar of the last exit, -1 before the first
    pnl: FloatArray  # (n,) since the start, before costs
    commission: FloatArray  # (n,) since the start
    slippage: FloatArray  # (n,) since the start
    traded: FloatArray  # (n,) value traded since the start, at fill prices
    fill_units: FloatArray  # (n, s) of the last step
    fill_price: FloatArray  # (n, s) of the last step, nan without a fill

    @classmethod
    def open(cls, n: int, n_symbols: int, initial_cash: float) -> "Accounts":
        """New accounts, all in cash."""
        one, per_symbol = (n,), (n, n_symbols)
        ints = {"loss_streak", "outcomes", "n_outcomes", "exit_bar"}
        flat = {"cash", "equity", "peak", "pnl", "commission", "slippage", "traded"}
        arrays: dict[str, Any] = {}
        for field in fields(cls):
            if field.name == "ruined":
                arrays[field.name] = np.zeros(one, dtype=np.bool_)
            elif field.name in ints:
                arrays[field.name] = np.zeros(per_symbol, dtype=np.int64)
            else:
                arrays[field.name] = np.zeros(one if field.name in flat else per_symbol)
        accounts = cls(**arrays)
        accounts.reset(np.arange(n), initial_cash)
        return accounts

    def reset(self, rows: IntArray, initial_cash: float) -> None:
        """Put some accounts back to cash and forget their trades."""
        for field in fields(self):
            getattr(self, field.name)[rows] = 0
        for array in (self.cash, self.equity, self.peak):
            array[rows] = initial_cash
        self.exit_bar[rows] = -1
        self.fill_price[rows] = np.nan

    @property
    def drawdown(self) -> FloatArray:
        """Shape (n,), decimal, <= 0."""
        return self.equity / self.peak - 1


def step(accounts: Accounts, bar: IntArray, targets: FloatArray, tape: Tape, spec: EnvSpec) -> None:
    """Fill each account's orders at the open of the next bar and mark it at that bar's close.

    Args:
        accounts: changed in place.
        bar: shape (n,), the bar after whose close each account decided; bar + 1 must exist.
        targets: shape (n, n_symbols), share of equity, nan for no order.
    """
    _step(
        bar, targets, tape.open, tape.mark, tape.tradable,
        tape.multiplier, tape.lot, tape.commission_per_unit, tape.slippage_price,
        spec.costs.commission_bps / 1e4 * tape.in_bps, spec.costs.slippage_bps / 1e4 * tape.in_bps,
        spec.gross_limit, spec.rebalance_band, spec.ruin_fraction * spec.cash,
        accounts.cash, accounts.equity, accounts.peak, accounts.ruined, accounts.units, accounts.entry,
        accounts.trade_pnl, accounts.worst, accounts.best,
        accounts.loss_streak, accounts.outcomes, accounts.n_outcomes, accounts.exit_bar,
        accounts.pnl, accounts.commission, accounts.slippage, accounts.traded,
        accounts.fill_units, accounts.fill_price,
    )  # fmt: skip


@njit(cache=True)
def _wanted_units(held, target, equity, per_unit, band, lot):
    """Units that a target weight asks for at the decision's own prices."""
    if np.isnan(target) or not per_unit > 0.0 or not equity > 0.0:
        return held
    if target != 0.0 and abs(target - held * per_unit / equity) <= band:
        return held
    wanted = target * equity / per_unit
    return np.trunc(wanted / lot + np.sign(wanted) * 1e-9) * lot if lot > 0.0 else wanted


@njit(cache=True)
def _scale_to_limit(held, wanted, price, multiplier, lot, limit):
    """Shrink the orders that add exposure so that gross exposure at the open stays within a limit."""
    kept = 0.0
    added = 0.0
    for j in range(len(held)):
        value = price[j] * multiplier[j]
        before, after = abs(held[j]) * value, abs(wanted[j]) * value
        kept += min(before, after)
        added += max(after - before, 0.0)
    if added == 0.0 or kept + added <= limit:
        return
    scale = max(limit - kept, 0.0) / added
    for j in range(len(held)):
        if abs(wanted[j]) > abs(held[j]):
            change = (wanted[j] - held[j]) * scale
            if lot[j] > 0.0:
                change = np.trunc(change / lot[j] + np.sign(change) * 1e-9) * lot[j]
            wanted[j] = held[j] + change


@njit(cache=True)
def _book_trade(i, j, bar, held, now, fill, cost, entry, trade_pnl, worst, best,
                loss_streak, outcomes, n_outcomes, exit_bar):  # fmt: skip
    """Carry a symbol's trade through one fill: open it, add to it, reduce it, end it, or turn it round."""
    ends = held != 0.0 and held * now <= 0.0
    if ends:
        share = abs(held) / abs(now - held)
        trade_pnl[i, j] -= cost * share
        cost -= cost * share
        won = trade_pnl[i, j] > 0.0
        loss_streak[i, j] = 0 if won else loss_streak[i, j] + 1
        outcomes[i, j] = ((outcomes[i, j] << 1) | (1 if won else 0)) & ((1 << OUTCOMES_KEPT) - 1)
        n_outcomes[i, j] = min(n_outcomes[i, j] + 1, OUTCOMES_KEPT)
        exit_bar[i, j] = bar
    if now == 0.0:
        entry[i, j] = 0.0
        trade_pnl[i, j] = 0.0
        worst[i, j] = 0.0
        best[i, j] = 0.0
    elif held == 0.0 or ends:
        entry[i, j] = fill
        trade_pnl[i, j] = -cost
        worst[i, j] = 0.0
        best[i, j] = 0.0
    else:
        if abs(now) > abs(held):
            entry[i, j] = (entry[i, j] * held + fill * (now - held)) / now
        trade_pnl[i, j] -= cost


@njit(cache=True)
def _step(bar, targets, open_, mark, tradable, multiplier, lot, commission_per_unit, slippage_price,
          commission_rate, slippage_rate, gross_limit, band, ruin_equity,
          cash, equity, peak, ruined, units, entry, trade_pnl, worst, best,
          loss_streak, outcomes, n_outcomes, exit_bar,
          pnl, commission, slippage, traded, fill_units, fill_price):  # fmt: skip
    n, n_symbols = units.shape
    wanted = np.empty(n_symbols)
    price = np.empty(n_symbols)
    for i in range(n):
        t = bar[i]
        opening_equity = cash[i]
        for j in range(n_symbols):
            fills = tradable[t + 1, j]
            price[j] = open_[t + 1, j] if fills else (mark[t, j] if np.isfinite(mark[t, j]) else 0.0)
            opening_equity += units[i, j] * price[j] * multiplier[j]
            wanted[j] = units[i, j]
            if fills:
                target = 0.0 if ruined[i] else targets[i, j]
                wanted[j] = _wanted_units(units[i, j], target, equity[i], mark[t, j] * multiplier[j], band, lot[j])
        if ruined[i]:
            for j in range(n_symbols):
                if tradable[t + 1, j]:
                    wanted[j] = 0.0
        _scale_to_limit(units[i], wanted, price, multiplier, lot, gross_limit * opening_equity)

        value = 0.0
        for j in range(n_symbols):
            held, now = units[i, j], wanted[j]
            fill_units[i, j] = now - held
            fill_price[i, j] = np.nan
            if tradable[t + 1, j] and (held != 0.0 or now != 0.0):
                gap = held * (open_[t + 1, j] - mark[t, j]) * multiplier[j] if held != 0.0 else 0.0
                trade_pnl[i, j] += gap
                change = now - held
                if change != 0.0:
                    slip = open_[t + 1, j] * slippage_rate[j] + slippage_price[j]
                    fill = open_[t + 1, j] + np.sign(change) * slip
                    notional = abs(change) * fill * multiplier[j]
                    fee = abs(change) * commission_per_unit[j] + notional * commission_rate[j]
                    lost = abs(change) * slip * multiplier[j]
                    cash[i] -= change * fill * multiplier[j] + fee
                    commission[i] += fee
                    slippage[i] += lost
                    traded[i] += notional
                    fill_price[i, j] = fill
                    _book_trade(i, j, t + 1, held, now, fill, fee + lost, entry, trade_pnl, worst, best,
                                loss_streak, outcomes, n_outcomes, exit_bar)  # fmt: skip
                run = now * (mark[t + 1, j] - open_[t + 1, j]) * multiplier[j]
                pnl[i] += gap + run
                if now != 0.0:
                    trade_pnl[i, j] += run
                    moved = np.sign(now) * (mark[t + 1, j] / entry[i, j] - 1.0)
                    worst[i, j] = min(worst[i, j], moved)
                    best[i, j] = max(best[i, j], moved)
            units[i, j] = now
            if now != 0.0:
                value += now * mark[t + 1, j] * multiplier[j]
        equity[i] = cash[i] + value
        peak[i] = max(peak[i], equity[i])
        if equity[i] <= ruin_equity:
            ruined[i] = True
