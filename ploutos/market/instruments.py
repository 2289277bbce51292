"""Instruments: what one unit of a symbol is worth, what its exchange charges, when it trades, and what vendors call it.

The eight US index futures are known by name. A name with a quote currency (BTC/USD) is crypto. Any other name is a US
share or ETF, in fractions, because adjusted prices need them.
"""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from ploutos.specs import Spec

AssetClass = Literal["equity", "future", "crypto"]


class InstrumentSpec(Spec):
    """One tradable instrument."""

    symbol: str
    """Name in the bars."""
    asset_class: AssetClass = "equity"
    """What it is."""
    multiplier: PositiveFloat = 1.0
    """Account currency per point of price and unit held."""
    tick_size: PositiveFloat = 0.01
    """Smallest price step."""
    lot: NonNegativeFloat = 0.0
    """Smallest tradable quantity; 0 allows fractions."""
    commission_per_unit: NonNegativeFloat = 0.0
    """Fee per unit and side, account currency."""
    slippage_ticks: NonNegativeFloat = 0.0
    """Adverse ticks per fill, beyond the cost model's basis points."""
    margin: NonNegativeFloat = 0.0
    """Initial margin per unit held over night, account currency; 0 means paid in full."""
    calendar: str = "NYSE"
    """Exchange calendar, a pandas-market-calendars name."""
    yahoo: str | None = None
    """What Yahoo calls it; empty means by its own name."""
    alpaca_proxy: str | None = None
    """The ETF to read where Alpaca, which has no futures, is the source."""

    @property
    def tick_value(self) -> float:
        """Account currency per tick and unit."""
        return self.tick_size * self.multiplier


def _future(symbol: str, multiplier: float, tick: float, commission: float, ticks: float, margin: float, proxy: str) -> InstrumentSpec:
    return InstrumentSpec(
        symbol=symbol, asset_class="future", multiplier=multiplier, tick_size=tick, lot=1.0, commission_per_unit=commission,
        slippage_ticks=ticks, margin=margin, calendar="CME Globex Equity", yahoo=f"{symbol}=F", alpaca_proxy=proxy,
    )  # fmt: skip


FUTURES: dict[str, InstrumentSpec] = {
    spec.symbol: spec
    for spec in (
        _future("ES", 50, 0.25, 2.50, 1, 22_000, "SPY"),
        _future("NQ", 20, 0.25, 2.50, 1, 33_000, "QQQ"),
        _future("YM", 5, 1.0, 2.50, 2, 15_000, "DIA"),
        _future("RTY", 50, 0.10, 2.50, 2, 10_000, "IWM"),
        _future("MES", 5, 0.25, 0.60, 1, 2_200, "SPY"),
        _future("MNQ", 2, 0.25, 0.60, 1, 3_300, "QQQ"),
        _future("MYM", 0.5, 1.0, 0.60, 2, 1_500, "DIA"),
        _future("M2K", 5, 0.10, 0.60, 2, 1_000, "IWM"),
    )
}
"""US index futures of the CME and their micros. Fees and slippage are those of a retail account; margins are of the
order that brokers asked in 2025 and move with volatility: set your own."""


def equity(symbol: str) -> InstrumentSpec:
    """A US share or ETF."""
    return InstrumentSpec(symbol=symbol)


def crypto(symbol: str) -> InstrumentSpec:
    """A coin against a currency, round the clock."""
    return InstrumentSpec(symbol=symbol, asset_class="crypto", calendar="24/7", yahoo=symbol.replace("/", "-"))


def instrument(symbol: str, asset_class: AssetClass | None = None) -> InstrumentSpec:
    """The instrument behind a name.

    Args:
        asset_class: says which one is meant where a share and a future have the same name (ES); empty means the future.

    >>> instrument("NQ").tick_value, instrument("AAPL").calendar, instrument("BTC/USD").calendar
    (5.0, 'NYSE', '24/7')
    """
    if asset_class in (None, "future") and symbol in FUTURES:
        return FUTURES[symbol]
    if asset_class == "crypto" or (asset_class is None and "/" in symbol):
        return crypto(symbol)
    return equity(symbol)
