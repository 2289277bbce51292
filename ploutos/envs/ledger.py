"""Accounts, and the step that moves them: orders after one close become fills at the next open and profit at the next close.

The rules themselves stand in `ploutos.envs.kernel`. Cash and P&L are booked apart, so
`equity = initial + pnl - commission - slippage - impact - borrow + written_off` is a check and not a definition.
Left out: interest on cash, and margin calls between two closes.
"""

from dataclasses import dataclass, fields

import numpy as np

from ploutos.envs import kernel
from ploutos.envs.market_arrays import MarketArrays as MarketArrays
from ploutos.envs.market_arrays import make_market_arrays as make_market_arrays
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError
from ploutos.types import BoolArray, FloatArray, IntArray
from ploutos.wording import enumerate_names

COSTS = ("commission", "slippage", "impact", "borrow")


@dataclass
class Accounts:
    """A batch of accounts; n accounts, s symbols. The fields are views into the arrays that the kernels work on.

    Money is in account currency. A trade runs from flat to flat; `loss_streak`, `outcomes` and `exit_bar` are booked
    when it ends. The last step's fills are kept by `step`; an environment's batch leaves them out.
    """

    cash: FloatArray  # (n,)
    equity: FloatArray  # (n,) at the last close
    peak: FloatArray  # (n,) highest equity so far
    ruined: BoolArray  # (n,) nothing is traded any more, but for closing what is held
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
    slippage: FloatArray  # (n,) since the start, half the spread included
    impact: FloatArray  # (n,) since the start
    borrow: FloatArray  # (n,) since the start
    traded: FloatArray  # (n,) value traded since the start, at fill prices
    margin_calls: FloatArray  # (n,) since the start, one per bar on which the broker cut positions
    written_off: FloatArray  # (n,) what a ruined account owed beyond all it had: the broker's loss
    return_mean: FloatArray  # (n,) decayed mean of returns, of the differential Sharpe ratio
    return_square: FloatArray  # (n,) decayed mean of squared returns
    fill_units: FloatArray  # (n, s) of the last step, at the open
    fill_price: FloatArray  # (n, s) of the last step, nan without a fill
    fill_kind: IntArray  # (n, s) of the last step, why: a position in `ploutos.envs.kernel.KINDS`, 0 without a fill
    stop_units: FloatArray  # (n, s) of the last step, closed after the open: by a stop within the bar, or written off
    stop_price: FloatArray  # (n, s) of the last step, nan where nothing was closed after the open
    stop_kind: IntArray  # (n, s) of the last step, why

    @classmethod
    def open(cls, n: int, n_symbols: int, initial_cash: float) -> "Accounts":
        """New accounts, all in cash."""
        width = kernel.width_of(n_symbols)
        money = kernel.state_rows(kernel.N_MONEY, n)
        positions, counts = kernel.state_rows(kernel.N_POSITIONS, n * width), kernel.state_rows(kernel.N_COUNTS, n * width, np.int64)
        planes, tallies = (rows[:, : n * width].reshape(len(rows), n, width)[:, :, :n_symbols] for rows in (positions, counts))
        accounts = cls(
            cash=money[kernel.CASH_HELD, :n],
            equity=money[kernel.EQUITY, :n],
            peak=money[kernel.PEAK, :n],
            ruined=np.zeros(n, dtype=np.bool_),
            units=planes[kernel.UNITS],
            entry=planes[kernel.ENTRY],
            trade_pnl=planes[kernel.TRADE_PNL],
            worst=planes[kernel.WORST],
            best=planes[kernel.BEST],
            loss_streak=tallies[kernel.LOSS_STREAK],
            outcomes=tallies[kernel.OUTCOMES],
            n_outcomes=tallies[kernel.N_OUTCOMES],
            exit_bar=tallies[kernel.EXIT_BAR],
            pnl=money[kernel.PNL, :n],
            commission=money[kernel.COMMISSION, :n],
            slippage=money[kernel.SLIPPAGE, :n],
            impact=money[kernel.IMPACT_PAID, :n],
            borrow=money[kernel.BORROW_PAID, :n],
            traded=money[kernel.TRADED, :n],
            margin_calls=money[kernel.N_MARGIN_CALLS, :n],
            written_off=money[kernel.WRITTEN_OFF, :n],
            return_mean=money[kernel.RETURN_MEAN, :n],
            return_square=money[kernel.RETURN_SQUARE, :n],
            fill_units=planes[kernel.FILL_UNITS],
            fill_price=planes[kernel.FILL_PRICE],
            fill_kind=tallies[kernel.FILL_KIND],
            stop_units=planes[kernel.STOP_UNITS],
            stop_price=planes[kernel.STOP_PRICE],
            stop_kind=tallies[kernel.STOP_KIND],
        )
        accounts.arrays = (money, accounts.ruined, positions, counts)
        accounts.reset(np.arange(n), initial_cash)
        return accounts

    def __post_init__(self) -> None:
        self.arrays: tuple[FloatArray, BoolArray, FloatArray, IntArray]
        """What the kernels work on: money, ruined, positions, counts."""

    def reset(self, rows: IntArray, initial_cash: float) -> None:
        """Put some accounts back to cash and forget their trades."""
        kernel.open_accounts(rows, kernel.width_of(self.units.shape[1]), float(initial_cash), 0.0, *self.arrays)

    def rows(self, which: slice) -> "Accounts":
        """Some of the accounts, to look at: views into the same arrays that cannot be written to."""
        views = {field.name: getattr(self, field.name)[which] for field in fields(self)}
        for view in views.values():
            view.flags.writeable = False
        return Accounts(**views)

    def copy(self) -> "Accounts":
        """The same accounts in arrays of their own, which policies can be asked about."""
        copied = Accounts.open(len(self.units), self.units.shape[1], initial_cash=1.0)
        for field in fields(self):
            getattr(copied, field.name)[...] = getattr(self, field.name)
        return copied

    @property
    def drawdown(self) -> FloatArray:
        """Shape (n,), decimal, <= 0."""
        return self.equity / self.peak - 1

    @property
    def costs(self) -> FloatArray:
        """Shape (n,), of all kinds since the start."""
        return np.asarray(sum(getattr(self, name) for name in COSTS))


def rules_of(spec: EnvSpec) -> FloatArray:
    """A spec as the kernels read it, shape (n_rules,)."""
    costs, reward, rules = spec.costs, spec.reward, np.zeros(kernel.N_RULES)
    rules[kernel.COMMISSION_RATE] = costs.commission_bps / 1e4
    rules[kernel.SLIPPAGE_RATE] = (costs.half_spread_bps + costs.slippage_bps) / 1e4
    rules[kernel.SLIPPAGE_PER_VOLATILITY], rules[kernel.IMPACT] = costs.slippage_per_volatility, costs.impact
    rules[kernel.BORROW] = costs.borrow_per_year
    rules[kernel.PARTICIPATION] = np.inf if spec.max_participation is None else spec.max_participation
    rules[kernel.GROSS_LIMIT], rules[kernel.BAND] = spec.gross_limit, spec.rebalance_band
    rules[kernel.RUIN_EQUITY] = spec.ruin_fraction * spec.cash
    rules[kernel.STOP] = spec.stop_loss or 0.0
    rules[kernel.MARGIN_CALLS], rules[kernel.MAINTENANCE] = spec.margin_calls, spec.maintenance_margin
    rules[kernel.CLOSE_BY_SESSION_END], rules[kernel.SHORT] = spec.flat_by_session_end, spec.allow_short
    rules[kernel.CASH], rules[kernel.REWARD_SCALE] = spec.cash, spec.reward_scale
    rules[kernel.SHARPE_DECAY], rules[kernel.SHARPE_PRIOR] = reward.sharpe_decay, reward.sharpe_prior**2
    rules[kernel.WEIGHT_LOG_RETURN], rules[kernel.WEIGHT_SHARPE] = reward.log_return, reward.differential_sharpe
    rules[kernel.WEIGHT_DRAWDOWN], rules[kernel.WEIGHT_TURNOVER] = reward.drawdown, reward.turnover
    rules[kernel.HALF_SPREAD] = costs.half_spread_bps / 1e4
    return rules


def require_rules(arrays: MarketArrays, spec: EnvSpec) -> None:
    """Refuse rules under which nothing, or nothing of some symbol, could ever be held.

    Raises:
        ConfigError: positions must end with the session, and every bar ends one; or orders take a share of the volume, and a symbol
            has none.
    """
    if spec.flat_by_session_end and arrays.session_end.all():
        raise ConfigError("every bar ends a session, so nothing could ever be held; use intraday bars or unset env.flat_by_session_end")
    if spec.max_participation is not None and (names := arrays.symbols[~arrays.has_volume]).size:
        raise ConfigError(
            f"no bar of {enumerate_names(names.tolist())} has any volume, so no order there could fill with env.max_participation="
            f"{spec.max_participation:g}; unset env.max_participation, or leave such symbols out of data.symbols"
        )


class Stepper:
    """Accounts on one market under one spec, moved bar by bar.

    Args:
        accounts: changed in place.
        with_parts: whether a step says what it made of every symbol.
    """

    def __init__(self, accounts: Accounts, arrays: MarketArrays, spec: EnvSpec, with_parts: bool = False) -> None:
        self.accounts, self._arrays, self._rules = accounts, arrays, rules_of(spec)
        width, (n, s) = kernel.width_of(arrays.n_symbols), accounts.units.shape
        self._scratch = kernel.scratch(arrays.contract_terms, width)
        self._parts = np.zeros((kernel.N_PARTS if with_parts else 0, n * width))
        self.parts: FloatArray = self._parts.reshape(len(self._parts), n, width)[:, :, :s]
        """Shape (N_PARTS, n, n_symbols), of the last step, in the order of `ploutos.envs.kernel`; empty where nobody asked."""

    def step(self, bar: IntArray, targets: FloatArray) -> None:
        """Fill each account's orders at the open of the next bar and mark it at that bar's close.

        Args:
            bar: shape (n,), the bar after whose close each account decided; bar + 1 must exist.
            targets: shape (n, n_symbols), share of equity, nan for no order.
        """
        arrays = self._arrays
        market = (arrays.prices, arrays.contract_terms, arrays.n_tradable, arrays.years)
        kernel.step_accounts(bar, targets, self._scratch, *market, self._rules, *self.accounts.arrays, self._parts)

    def held(self, bar: int) -> FloatArray:
        """Shape (n, n_symbols): share of equity held after the close of a bar, not to be written."""
        money, _, positions, _ = self.accounts.arrays
        shares = np.empty(self.accounts.units.shape)
        kernel.shares_held(bar, self._arrays.prices, self._arrays.contract_terms, money, positions, shares)
        shares.setflags(write=False)
        return shares


def step(accounts: Accounts, bar: IntArray, targets: FloatArray, arrays: MarketArrays, spec: EnvSpec) -> None:
    """One step by `Stepper`."""
    Stepper(accounts, arrays, spec).step(bar, targets)
