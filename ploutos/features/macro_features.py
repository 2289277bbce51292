"""The 25 macro columns: 18 of VIX, 10-year yield and dollar, and 7 flags.

They are computed on each series' own sessions, before the join to the bars, so a mean of 20 is one of 20 sessions of the
series whatever the bars are. Names and definitions are a contract, levels included; nothing here is scaled. The Federal
Reserve's broad dollar has columns of its own and never stands in for the ICE index.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.features.indicators import ratio
from ploutos.market.bars import Bars
from ploutos.market.macro import TOLERANCE, Provider, on_clock, publish, read_macro
from ploutos.types import FloatArray, TimeArray

NAMES = (
    "vix",  # last published close
    "vix_ma20",  # its mean over 20 sessions
    "vix_ma50",
    "vix_pct_1",  # relative change over 1 session
    "vix_pct_5",
    "vix_zscore_20",  # standard deviations (n - 1) from the mean of 20 sessions, 0 when all 20 are the same
    "us10y",  # percent a year
    "us10y_ma20",
    "us10y_ma50",
    "us10y_pct_1",  # relative: from 4.00 to 4.04 percent is 0.01
    "us10y_pct_5",
    "us10y_zscore_20",
    "dxy",
    "dxy_ma20",
    "dxy_ma50",
    "dxy_pct_1",
    "dxy_pct_5",
    "dxy_zscore_20",
    "vix_fear",  # 1 when VIX is above 25
    "vix_extreme_fear",  # above 35
    "vix_complacent",  # below 15
    "us10y_rising",  # 1 when the yield is more than 2 percent of itself higher than 5 sessions before
    "us10y_falling",  # lower
    "dxy_strong",  # 1 when the z-score is above 1
    "dxy_weak",  # below -1
)
BROAD_DOLLAR_NAMES = (
    "broad_dollar",
    "broad_dollar_ma20",
    "broad_dollar_ma50",
    "broad_dollar_pct_1",
    "broad_dollar_pct_5",
    "broad_dollar_zscore_20",
    "broad_dollar_strong",  # 1 when the z-score is above 1
    "broad_dollar_weak",  # below -1
)


def macro_columns(
    macro: pd.DataFrame,
    bars: Bars | pd.DatetimeIndex | TimeArray,
    provider: Provider = "yahoo",
    zone: str | None = None,
    tolerance: pd.Timedelta = TOLERANCE,
) -> pd.DataFrame:
    """Macro columns as they were known at each bar.

    Args:
        macro: daily values; this and the rest as in `ploutos.market.macro.align_to_ticker`.

    Returns:
        n_bars rows in the order of `bars`: `available_at`, then those of `NAMES` and `BROAD_DOLLAR_NAMES` whose series is
        in `macro`, float64, nan until a window is full and where the series is not known.

    Raises:
        ConfigError, DataError: as `align_to_ticker`.
    """
    known = [
        pd.DataFrame({"published_at": frame["published_at"], **compute(name, frame["value"].to_numpy())})
        for name, frame in publish(macro, provider, zone).items()
    ]
    joined = on_clock(known, bars, tolerance)
    return joined[["available_at", *(name for name in NAMES + BROAD_DOLLAR_NAMES if name in joined)]]


def macro_of(path: Path | None, bars: Bars, provider: Provider) -> pd.DataFrame | None:
    """The macro columns of a file or folder; None where there is none."""
    return None if path is None else macro_columns(read_macro(path), bars, provider)


def features_with_macro(bars: Bars, spec: FeatureSpec, macro: Path | None, provider: Provider) -> FeatureSet:
    """The features of bars, with macro columns where there is a file or folder of them."""
    return build_features(bars, spec, macro_of(macro, bars, provider))


def compute(series: str, values: FloatArray) -> dict[str, FloatArray]:
    """The columns of one series on its own consecutive sessions.

    Args:
        series: a name of `ploutos.market.macro.SERIES`.
        values: shape (n_sessions,), above 0, no nan.

    Returns:
        By column name, shape (n_sessions,); each value uses its own session and those before.
    """
    pct_5, zscore = _change(values, 5), _zscore(values, 20)
    columns = {
        series: values,
        f"{series}_ma20": _trailing(values, 20).mean(axis=1),
        f"{series}_ma50": _trailing(values, 50).mean(axis=1),
        f"{series}_pct_1": _change(values, 1),
        f"{series}_pct_5": pct_5,
        f"{series}_zscore_20": zscore,
    }
    if series == "vix":
        flags = {"fear": _above(values, 25), "extreme_fear": _above(values, 35), "complacent": _above(-values, -15)}
    elif series == "us10y":
        flags = {"rising": _above(pct_5, 0.02), "falling": _above(-pct_5, 0.02)}
    else:
        flags = {"strong": _above(zscore, 1), "weak": _above(-zscore, 1)}
    return columns | {f"{series}_{name}": flag for name, flag in flags.items()}


def _trailing(values: FloatArray, sessions: int) -> FloatArray:
    """Shape (n_sessions, sessions): the window that ends at each session, with nan before the first value.

    Windows are summed one by one, so a value does not depend on how long the history before its window is.
    """
    padded = np.concatenate([np.full(sessions, np.nan), values])
    return np.lib.stride_tricks.sliding_window_view(padded, sessions)[1:]


def _change(values: FloatArray, sessions: int) -> FloatArray:
    window = _trailing(values, sessions + 1)
    return window[:, -1] / window[:, 0] - 1


def _zscore(values: FloatArray, sessions: int) -> FloatArray:
    window = _trailing(values, sessions)
    flat = window.max(axis=1) == window.min(axis=1)  # rounding leaves such a window a deviation that is not quite 0
    return ratio(values - window.mean(axis=1), np.where(flat, 0.0, window.std(axis=1, ddof=1)))


def _above(values: FloatArray, threshold: float) -> FloatArray:
    """1 and 0, nan where the value is."""
    return np.where(np.isnan(values), np.nan, (values > threshold).astype(float))
