"""What bars must be before anything is computed from them. One sentence per fault, and nothing is repaired."""

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.market.bars import FIELDS

PRICES = ("open", "high", "low", "close")


def _first(frame: pd.DataFrame, bad: pd.Series) -> str:
    row = frame[bad].iloc[0]
    return f"{row['symbol']} at {row['timestamp']}"


def check_bars(frame: pd.DataFrame, origin: str) -> None:
    """Refuse a long frame (symbol, timestamp, OHLCV) that cannot be traded on.

    Args:
        frame: `timestamp` in UTC, one row per symbol and bar, sorted by symbol and time.
        origin: file or vendor, named in the message.

    Raises:
        DataError: a timestamp missing, two bars for one time, a price that is missing, infinite, zero or
            negative, a high below or a low above its bar, or a negative or missing volume.
    """
    if frame["timestamp"].isna().any():
        raise DataError(f"{origin} has {int(frame['timestamp'].isna().sum())} rows without a timestamp; expected none")
    duplicated = frame.duplicated(["symbol", "timestamp"])
    if duplicated.any():
        raise DataError(
            f"{origin} has {int(duplicated.sum())} duplicate bars, first {_first(frame, duplicated)}; "
            "expected one bar per symbol and time; remove the extra rows"
        )
    for name in FIELDS:
        missing = ~np.isfinite(frame[name])
        if missing.any():
            raise DataError(
                f"{origin} has {int(missing.sum())} missing or infinite values in {name}, first {_first(frame, missing)}; "
                "expected numbers; remove those rows, a missing bar is allowed"
            )
    for name in PRICES:
        wrong = frame[name] <= 0
        if wrong.any():
            raise DataError(
                f"{origin} has {int(wrong.sum())} {name} prices of zero or less, first {_first(frame, wrong)}; expected more than 0"
            )
    tolerance = 1e-9 * frame["close"]
    body_high, body_low = frame[["open", "close"]].max(axis=1), frame[["open", "close"]].min(axis=1)
    outside = (frame["high"] < body_high - tolerance) | (frame["low"] > body_low + tolerance)
    if outside.any():
        raise DataError(
            f"{origin} has {int(outside.sum())} bars whose open or close lies outside low..high, first {_first(frame, outside)}; "
            "expected low <= open, close <= high"
        )
    negative = frame["volume"] < 0
    if negative.any():
        raise DataError(f"{origin} has {int(negative.sum())} negative volumes, first {_first(frame, negative)}; expected 0 or more")
