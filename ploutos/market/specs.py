"""Instruments: what one unit of a symbol is worth and what its exchange charges."""

from pydantic import NonNegativeFloat, PositiveFloat

from ploutos.specs import Spec


class InstrumentSpec(Spec):
    """One tradable instrument."""

    symbol: str
    """Name in the bars."""
    multiplier: PositiveFloat = 1.0
    """Account currency per point of price and unit held."""
    tick_size: PositiveFloat = 0.01
    """Smallest price step."""
    lot: NonNegativeFloat = 0.0
    """Smallest tradable quantity; 0 allows fractions, which adjusted prices need."""
    commission_per_unit: NonNegativeFloat = 0.0
    """Fee per unit and side, account currency."""
    slippage_ticks: NonNegativeFloat = 0.0
    """Adverse ticks per fill, beyond the cost model's basis points."""

    @property
    def tick_value(self) -> float:
        """Account currency per tick and unit."""
        return self.tick_size * self.multiplier


def equity(symbol: str) -> InstrumentSpec:
    """A US share or ETF."""
    return InstrumentSpec(symbol=symbol)
