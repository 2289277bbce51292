"""Technical features of one symbol, by TA-Lib: causal and scale-free.

Multiplying all prices or all volumes by a constant changes no feature. Each one is a function of the bars up to and
including its own, so the features of a prefix are the prefix of the features. Rows before a window is full are nan, and so are
those of a future whose price is not positive. Where a window holds no volume, features of volume are 0.
"""

import numpy as np
import pandas as pd
import talib

from ploutos.types import FloatArray

NAMES = (
    "log_return_1",  # close to close
    "log_return_5",
    "log_return_20",
    "log_return_60",
    "gap",  # previous close to open
    "body",  # open to close
    "range",  # high to low over close
    "close_location",  # -1 at the low, 1 at the high
    "rsi_5",  # -1..1
    "rsi_14",
    "stochastic_k",  # 14 bars, -1..1
    "stochastic_d",
    "cci_20",
    "money_flow_14",  # volume-weighted RSI, -1..1
    "macd",  # 12/26 over close
    "macd_histogram",
    "adx_14",  # trend strength, 0..1
    "directional_difference_14",  # DI+ less DI-, -1..1
    "aroon_oscillator_25",
    "natr_14",  # average true range over close
    "natr_ratio",  # ATR 14 over ATR 60, less 1
    "volatility_20",  # standard deviation of log returns
    "volatility_ratio",  # 20 over 100 bars, less 1
    "bollinger_position",  # deviations from the 20-bar mean
    "bollinger_width",
    "distance_sma_20",
    "distance_sma_50",
    "distance_sma_100",
    "donchian_position_55",  # -1 at the 55-bar low, 1 at the high
    "trend_slope_20",  # regression slope over ATR
    "drawdown_100",  # close below its 100-bar high
    "volume_ratio_20",  # log of volume over its mean
)


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient with 0 where the denominator is 0: a flat window has no direction."""
    return np.divide(numerator, denominator, out=np.where(np.isnan(denominator), np.nan, 0.0), where=denominator > 0)


def log_ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Log of a quotient of prices; nan where one is missing or not positive, as a future's may be."""
    positive = (numerator > 0) & (denominator > 0)
    return np.log(np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=positive))


def log_return(close: FloatArray, bars: int) -> FloatArray:
    """Log of each close over the one so many bars before; nan where there is none."""
    result = np.full_like(close, np.nan)
    if len(close) > bars:
        result[bars:] = log_ratio(close[bars:], close[:-bars])
    return result


def compute(open_: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray, volume: FloatArray) -> FloatArray:
    """All features of one symbol on its own consecutive bars.

    Args:
        open_, high, low, close, volume: shape (n_bars,), float64, no nan.

    Returns:
        Shape (n_bars, n_features), float64, columns as `NAMES`, nan until a window is full.

    Source: TA-Lib for the indicators; ratios as the comments beside `NAMES` say.
    """
    returns = log_return(close, 1)
    previous_close = np.r_[np.nan, close[:-1]]
    atr_14 = talib.ATR(high, low, close, 14)
    atr_60 = talib.ATR(high, low, close, 60)
    slow_k, slow_d = talib.STOCH(high, low, close, 14, 3, talib.MA_Type.SMA, 3, talib.MA_Type.SMA)
    macd, _, macd_histogram = talib.MACD(close, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    high_55, low_55 = talib.MAX(high, 55), talib.MIN(low, 55)
    volatility_20, usual_volume = _rolling_deviation(returns, 20), talib.SMA(volume, 20)
    columns = {
        "log_return_1": returns,
        "log_return_5": log_return(close, 5),
        "log_return_20": log_return(close, 20),
        "log_return_60": log_return(close, 60),
        "gap": log_ratio(open_, previous_close),
        "body": log_ratio(close, open_),
        "range": (high - low) / close,
        "close_location": ratio(2 * close - high - low, high - low),
        "rsi_5": talib.RSI(close, 5) / 50 - 1,
        "rsi_14": talib.RSI(close, 14) / 50 - 1,
        "stochastic_k": slow_k / 50 - 1,
        "stochastic_d": slow_d / 50 - 1,
        "cci_20": talib.CCI(high, low, close, 20) / 100,
        "money_flow_14": _where_traded(talib.MFI(high, low, close, volume, 14) / 50 - 1, talib.SMA(volume, 14)),
        "macd": macd / close,
        "macd_histogram": macd_histogram / close,
        "adx_14": talib.ADX(high, low, close, 14) / 100,
        "directional_difference_14": (talib.PLUS_DI(high, low, close, 14) - talib.MINUS_DI(high, low, close, 14)) / 100,
        "aroon_oscillator_25": talib.AROONOSC(high, low, 25) / 100,
        "natr_14": atr_14 / close,
        "natr_ratio": ratio(atr_14, atr_60) - 1,
        "volatility_20": volatility_20,
        "volatility_ratio": ratio(volatility_20, _rolling_deviation(returns, 100)) - 1,
        "bollinger_position": ratio(2 * (close - middle), upper - middle),
        "bollinger_width": (upper - lower) / middle,
        "distance_sma_20": close / talib.SMA(close, 20) - 1,
        "distance_sma_50": close / talib.SMA(close, 50) - 1,
        "distance_sma_100": close / talib.SMA(close, 100) - 1,
        "donchian_position_55": ratio(2 * close - high_55 - low_55, high_55 - low_55),
        "trend_slope_20": ratio(talib.LINEARREG_SLOPE(close, 20), atr_14),
        "drawdown_100": close / talib.MAX(high, 100) - 1,
        "volume_ratio_20": _where_traded(np.log1p(ratio(volume, usual_volume)) - np.log(2), usual_volume),
    }
    table = np.column_stack([columns[name] for name in NAMES])
    table[close <= 0] = np.nan
    return table


def _where_traded(feature: FloatArray, usual_volume: FloatArray) -> FloatArray:
    """The feature, and 0 where nothing was traded in its window: an index or an exchange rate comes without volume."""
    return np.where(usual_volume == 0, 0.0, feature)


def _rolling_deviation(returns: FloatArray, bars: int) -> FloatArray:
    """Rolling standard deviation that starts after the first return; TA-Lib would spread a leading nan."""
    result = np.full_like(returns, np.nan)
    if len(returns) > bars:
        whole = np.isfinite(returns[1:]).all()  # TA-Lib never recovers from a nan within
        result[1:] = talib.STDDEV(np.ascontiguousarray(returns[1:]), bars) if whole else pd.Series(returns[1:]).rolling(bars).std(ddof=0)
    return result
