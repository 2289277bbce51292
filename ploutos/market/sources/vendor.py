"""What every vendor of bars looks like from here: pages of one symbol's bars, in order, resumable by token."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import pandas as pd

Adjustment = Literal["raw", "total_return"]


@dataclass(frozen=True)
class Request:
    """Bars of one symbol over a span of time.

    Attributes:
        symbol: the vendor's own name of it.
        timeframe: length of a bar: 1 minute to 1 day.
        start, end: UTC; bars that start at or after `start` and before `end`.
        adjustment: `raw` prices, or `total_return` for splits and dividends.
    """

    symbol: str
    timeframe: pd.Timedelta
    start: pd.Timestamp
    end: pd.Timestamp
    adjustment: Adjustment = "total_return"


@dataclass(frozen=True)
class Page:
    """Some consecutive bars and how to go on.

    Attributes:
        frame: timestamp (datetime64[us, UTC], bar starts, increasing), open, high, low, close, volume (float64); perhaps
            no rows at all.
        token: what to give to `pages` to get what follows; None after the last page.
    """

    frame: pd.DataFrame
    token: str | None


class Vendor(Protocol):
    """A source of bars beyond this machine."""

    @property
    def name(self) -> str:
        """Name in the dataset's folders; it distinguishes the feeds of one vendor: `alpaca-sip`, `alpaca-iex`, `yahoo`."""
        ...

    def pages(self, request: Request, token: str | None = None) -> Iterator[Page]:
        """Pages from the start, or from a token that an earlier page gave.

        A bar that is not finished yet is left out. Retries happen inside; what is raised is final.

        Raises:
            CredentialsError, RateLimited, RangeTooOld, UnknownSymbol, NoData, VendorDown: each in one sentence that says
                what was found, what was expected and what to do.
        """
        ...
