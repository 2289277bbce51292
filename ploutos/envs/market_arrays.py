"""The prices and terms that move an account, packed for the kernels, with what was usual at each bar's close.

Volatility and volume are decayed means over a symbol's own bars, 0.94 per bar (RiskMetrics, 1996): what an order's size and
its slippage may know at the decision.
"""

from dataclasses import dataclass

import numpy as np

from ploutos.envs import kernel
from ploutos.errors import ConfigError
from ploutos.market import calendar as calendars
from ploutos.market.bars import Bars
from ploutos.types import BoolArray, FloatArray, IntArray

DECAY = 0.94
_YEAR = np.timedelta64(365, "D") / np.timedelta64(1, "us")


@dataclass(frozen=True)
class MarketArrays:
    """A panel as the kernels read it; every array is read-only.

    Attributes:
        prices: shape (n_bars, 7, width), n_symbols and then zeros: open (nan without a bar), mark (the last known close),
            volatility (decayed deviation of log returns per bar), volume (decayed, units), high, low, and whether nothing may
            be held through this bar's open where positions end with the session.
        contract_terms: shape (9, n_symbols): multiplier, lot, fee per unit, adverse price per fill (ticks), 1 where a fill pays the
            cost model's basis points and a short its borrow fee (0 for futures and exchange rates, which pay ticks), margin,
            the least that a sale may bring per unit (0; a future's may cost), the bar in which a delisted symbol is paid out
            (-1: listed to the end), and its price there.
        years: shape (n_bars,), years of 365 days between the last bar's end and this one's.
        session_end: shape (n_bars,), the bar ends with its session or later, by the calendar.
        n_tradable: shape (n_bars,), symbols that have a bar.
        symbols: shape (n_symbols,), names.
    """

    prices: FloatArray
    contract_terms: FloatArray
    years: FloatArray
    session_end: BoolArray
    n_tradable: IntArray
    symbols: np.ndarray

    @property
    def n_bars(self) -> int:
        return len(self.prices)

    @property
    def n_symbols(self) -> int:
        return self.contract_terms.shape[1]

    @property
    def open(self) -> FloatArray:
        """Shape (n_bars, n_symbols)."""
        return self.prices[:, kernel.OPEN, : self.n_symbols]

    @property
    def mark(self) -> FloatArray:
        """Shape (n_bars, n_symbols), the last known close."""
        return self.prices[:, kernel.MARK, : self.n_symbols]

    @property
    def tradable(self) -> BoolArray:
        """Shape (n_bars, n_symbols)."""
        return np.isfinite(self.open)

    @property
    def has_volume(self) -> BoolArray:
        """Shape (n_symbols,): some bar of it has a volume."""
        return np.asarray(self.prices[:, kernel.VOLUME, : self.n_symbols].any(axis=0))

    @property
    def multiplier(self) -> FloatArray:
        """Shape (n_symbols,)."""
        return self.contract_terms[kernel.MULTIPLIER]


def make_market_arrays(bars: Bars) -> MarketArrays:
    """The arrays of a panel, on the terms of its instruments; its rows up to *t* depend on bars up to *t* alone.

    Raises:
        ConfigError: more symbols than the kernels have room for.
    """
    if bars.n_symbols > kernel.MAX_SYMBOLS:
        raise ConfigError(f"found {bars.n_symbols} symbols; the environment holds {kernel.MAX_SYMBOLS} at most: split the market")
    specs, session_end = bars.instruments, session_ends(bars)
    volume = np.empty_like(bars.volume)
    kernel.decayed(bars.volume, bars.tradable & np.isfinite(bars.volume), DECAY, volume)
    opens = np.where(bars.tradable, bars.open, np.nan)
    planes = [opens, bars.mark, decayed_volatility(bars), volume, bars.high, bars.low, _must_close(bars, session_end)]
    contract_terms = [
        [spec.multiplier for spec in specs],
        [spec.lot for spec in specs],
        [spec.commission_per_unit for spec in specs],
        [spec.slippage_ticks * spec.tick_size for spec in specs],
        [float(spec.costs_in_bps) for spec in specs],
        [spec.margin for spec in specs],
        [-np.inf if spec.asset_class == "future" else 0.0 for spec in specs],
        bars.payout_bars,
        np.nan_to_num(bars.payouts) if bars.payouts else np.zeros(bars.n_symbols),
    ]
    prices = kernel.aligned((bars.n_bars, len(planes), kernel.width_of(bars.n_symbols)))
    np.stack(planes, axis=1, out=prices[:, :, : bars.n_symbols])
    arrays = MarketArrays(
        prices=prices,
        contract_terms=np.array(contract_terms, dtype=np.float64),
        years=np.r_[0.0, np.diff(bars.available_at).astype(np.float64) / _YEAR],
        session_end=session_end,
        n_tradable=bars.n_tradable,
        symbols=np.array(bars.symbols),
    )
    for array in vars(arrays).values():
        array.setflags(write=False)
    return arrays


def decayed_volatility(bars: Bars) -> FloatArray:
    """Deviation of log returns per bar, decayed over each symbol's own bars; 0 before its second.

    A price that is not positive, as a future's can be, has no log: it says nothing.
    """
    before = np.vstack([np.full((1, bars.n_symbols), np.nan), bars.mark[:-1]])
    known = bars.tradable & (before > 0) & (bars.mark > 0)
    squares = np.log(np.where(known, bars.mark, 1.0) / np.where(known, before, 1.0)) ** 2
    out = np.empty_like(squares)
    kernel.decayed(squares, known, DECAY, out)
    return np.asarray(np.sqrt(out))


def session_ends(bars: Bars) -> BoolArray:
    """Shape (n_bars,): the bar ends when its session closes, or later, by the calendar; a daily bar always does."""
    closes = calendars.session_closes(bars.timestamps, bars.timeframe, bars.calendar)
    return np.isnat(closes) | (bars.available_at >= closes)


def _must_close(bars: Bars, session_end: BoolArray) -> BoolArray:
    """Shape (n_bars, n_symbols): a symbol's bar that ends a session, or, where it had none, its first bar after that."""
    session = np.r_[0, np.cumsum(bars.sessions[1:] != bars.sessions[:-1])][:, None]
    at = np.where(bars.tradable, np.arange(bars.n_bars)[:, None], -1)
    last = np.maximum.accumulate(np.vstack([np.full((1, bars.n_symbols), -1), at[:-1]]), axis=0)
    missed = (last >= 0) & (session[last, 0] != session) & ~session_end[last]
    return np.asarray(bars.tradable & (session_end[:, None] | missed))
