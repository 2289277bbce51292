"""Total-return prices from raw ones."""

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.types import BoolArray, FloatArray

PRICES = ("open", "high", "low", "close")
ADJUSTMENT = "adjustment"
"""Column of `adjust` that holds the factor of each bar; an inspection reads it."""


def adjust(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Total-return prices from raw ones.

    Each bar's prices are multiplied by its own adj_close / close and its volume divided by it, so that the traded
    value stays what it was. The factor of a bar folds in splits and dividends that came later, as every back-adjusted
    series does: it sets the level of prices, which nothing downstream reads, and not their ratios. A bar whose close is
    missing, zero or negative has no factor and stays as it is, for `check_bars` to refuse.

    Args:
        frame: symbol, timestamp, OHLCV and adj_close.
        origin: file or vendor, named in the message.

    Returns:
        The frame without adj_close, with the factor in a column `adjustment`.

    Raises:
        DataError: an adj_close is missing, infinite, zero or negative.
    """
    close, adj_close = (frame[name].to_numpy(dtype="float64", na_value=np.nan) for name in ("close", "adj_close"))
    priced = np.isfinite(close) & (close > 0)
    unusable = priced & ~(np.isfinite(adj_close) & (adj_close > 0))
    if unusable.any():
        raise DataError(_refusal(frame, adj_close, unusable, origin))
    factor = np.divide(adj_close, close, out=np.ones_like(close), where=priced)
    adjusted = frame.drop(columns="adj_close")
    for name in PRICES:
        adjusted[name] = frame[name] * factor
    adjusted["volume"] = frame["volume"] / factor
    return adjusted.assign(**{ADJUSTMENT: factor})


def _refusal(frame: pd.DataFrame, adj_close: FloatArray, unusable: BoolArray, origin: str) -> str:
    """What is wrong with the adj_close of the first symbol that has a fault, in one sentence."""
    first = int(unusable.argmax())
    symbols = frame["symbol"].astype(str)
    own = (symbols == symbols.iloc[first]).to_numpy()
    n_found, n_rows = int((unusable & own).sum()), int(own.sum())
    value = adj_close[first]
    what = "no adj_close" if np.isnan(value) else "an infinite adj_close" if np.isinf(value) else f"an adj_close of {value:g}"
    mixed = "" if np.isnan(value) or n_found == 1 else " or another unusable one"
    rows = f"any of its {n_rows:,} rows" if n_found == n_rows else f"{n_found:,} of its {n_rows:,} rows"
    others = symbols[unusable].nunique() - 1
    more = f" ({others} more symbols have such rows)" if others else ""
    return (
        f"{origin}: {symbols.iloc[first]} has {what}{mixed} in {rows}, first at {frame['timestamp'].iloc[first]}: its prices would vanish; "
        f"expected a number above 0 in every row; correct the column, or set data.adjustment=raw to trade on unadjusted prices{more}"
    )
