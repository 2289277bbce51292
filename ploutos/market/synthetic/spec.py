"""Settings of a simulated market, apart from what simulates it, so that reading a configuration loads neither numba nor scipy."""

from datetime import date
from typing import Self

import pandas as pd
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from ploutos.market.synthetic.scenarios import Scenario
from ploutos.specs import Spec

DAY, HALF_HOUR = pd.Timedelta(days=1), pd.Timedelta(minutes=30)


class SyntheticSpec(Spec):
    """A simulated market; the instruments come with the call."""

    timeframe: str = "1h"
    """Bar length: `1D`, or one that fits a day of half hours: `4h`, `1h`, `15min`."""
    start: date = date(2020, 1, 2)
    """First session date."""
    end: date = date(2025, 12, 31)
    """Last session date."""
    seed: NonNegativeInt = 7
    """Root of all randomness."""
    annual_volatility: PositiveFloat = 0.18
    """Long-run volatility of the common factor, decimal; indices are near it, shares above."""
    scenario: Scenario = "normal"
    """What kind of market to simulate, or what happens in it; `ploutos.market.synthetic.scenarios.SCENARIOS` describes each."""
    strength: NonNegativeFloat = 1.5
    """How much a `planted` scenario can earn: the yearly Sharpe ratio of the best account of one symbol, long or flat, after 5 basis points
    a side; 0 is noise. At 4.5 the sign of an hourly return of `planted` is the last one's in 66 % of cases."""

    @property
    def bar(self) -> pd.Timedelta:
        """The bar length."""
        return pd.Timedelta(self.timeframe)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not _fits(self.timeframe):
            raise ValueError(f"timeframe is {self.timeframe!r}; expected 1D, or a length that fits a day of half hours: 4h, 1h, 15min")
        if self.start > self.end:
            raise ValueError(f"start {self.start} is after end {self.end}; expected an earlier start")
        return self


def _fits(timeframe: str) -> bool:
    """Whether bars of this length fill a day, and half hours fill them or they fill half hours."""
    try:
        bar = pd.Timedelta(timeframe)
    except ValueError:
        return False
    nothing = pd.Timedelta(0)
    return bar > nothing and DAY % bar == nothing and nothing in (bar % HALF_HOUR, HALF_HOUR % bar)
