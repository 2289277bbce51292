"""The 28 numbers of the market that an advisor reads; the 5 of the account stand in `ploutos.envs.account_features`.

They are the same for everyone and are computed once per bar. The names and their order are a contract and come from
one-minute bars; here "min" means bars of whatever length the panel has. Three defects of the original are mended: the 15 and 60
RSIs are taken on closes 15 and 60 bars apart instead of being long RSIs; no two features are the same number, as
`price_change_60min` and `price_momentum_60` were, and `volume_ratio_20min` and `volume_regime`; and support and resistance are
distances in average true ranges instead of prices.
"""

from pathlib import Path

import numpy as np
import talib

from ploutos.features.indicators import log_return, ratio
from ploutos.market.bars import FIELDS, Bars
from ploutos.store import Kind
from ploutos.types import BoolArray, Float32Array, FloatArray

MARKET_NAMES = (
    "adx_slope",  # change of ADX 14 per bar over 5 bars, 0..1 scale
    "vwap_distance",  # close over the 20-bar volume-weighted price, less 1
    "volatility_regime",  # ATR 14 over its 50-bar mean, less 1
    "volume_regime",  # 5-bar over 60-bar mean volume, less 1
    "price_momentum_20",  # log return over 20 bars
    "price_momentum_60",
    "efficiency_ratio",  # net over summed moves of 20 bars, 0..1
    "spread_ratio",  # range over its 20-bar mean, less 1
    "session_trend",  # regression slope of 30 closes, in ATRs per bar
    "market_regime",  # 1 up-trend, -1 down-trend (ADX > 25), 0 none
    "sma_50_slope",  # relative change over 5 bars
    "sma_200_slope",
    "rsi_15min",  # RSI 14 of every 15th close, 0..1
    "rsi_60min",  # RSI 14 of every 60th close, 0..1
    "volume_ratio_5min",  # volume over its 5-bar mean, less 1
    "volume_ratio_20min",
    "price_change_60min",  # change over 60 bars, in ATRs
    "price_vs_support",  # place between the 20-bar low (0) and high (1)
    "higher_high",  # 10-bar high above that of the 10 bars before
    "lower_low",
    "higher_low",  # 10-bar low above that of the 10 bars before, twice in a row
    "lower_high",
    "double_top",  # two highs within a quarter ATR, close half an ATR below
    "double_bottom",
    "support_20",  # close above the 20-bar low, in ATRs
    "resistance_20",  # close below the 20-bar high, in ATRs
    "breakout_signal",  # close above the highest of the 20 bars before
    "breakdown_signal",
)


def _strided_rsi(close: FloatArray, stride: int) -> FloatArray:
    """RSI 14 of closes `stride` bars apart that end at each bar, 0..1."""
    result = np.full_like(close, np.nan)
    for phase in range(min(stride, len(close))):
        sampled = np.ascontiguousarray(close[phase::stride])
        if len(sampled) > 14:
            result[phase::stride] = talib.RSI(sampled, 14) / 100
    return result


def _shifted(values: FloatArray, bars: int) -> FloatArray:
    """Values `bars` earlier, nan where there are none."""
    result = np.full_like(values, np.nan)
    result[bars:] = values[: max(len(values) - bars, 0)]
    return result


def _flag(condition: BoolArray, *inputs: FloatArray) -> FloatArray:
    """1 and 0, nan where an input is."""
    known = np.isfinite(np.vstack(inputs)).all(axis=0)
    return np.where(known, condition.astype(float), np.nan)


def compute(open_: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray, volume: FloatArray) -> FloatArray:
    """The 28 market features of one symbol on its own consecutive bars.

    Args:
        open_, high, low, close, volume: shape (n_bars,), float64, no nan.

    Returns:
        Shape (n_bars, 28), columns as `MARKET_NAMES`, nan until a window is full.
    """
    atr = talib.ATR(high, low, close, 14)
    adx = talib.ADX(high, low, close, 14)
    up = talib.PLUS_DI(high, low, close, 14) > talib.MINUS_DI(high, low, close, 14)
    typical = (high + low + close) / 3
    traded = talib.SMA(volume, 20)
    vwap = np.where(traded == 0, close, ratio(talib.SMA(typical * volume, 20), traded))  # nothing traded: no distance
    moves = np.abs(np.diff(close, prepend=close[0]))
    sma_50, sma_200 = talib.SMA(close, 50), talib.SMA(close, 200)
    high_10, low_10 = talib.MAX(high, 10), talib.MIN(low, 10)
    high_before, low_before = _shifted(high_10, 10), _shifted(low_10, 10)
    high_20, low_20 = talib.MAX(high, 20), talib.MIN(low, 20)
    prior_high, prior_low = _shifted(high_20, 1), _shifted(low_20, 1)
    columns = (
        (adx - _shifted(adx, 5)) / 5 / 100,
        ratio(close, vwap) - 1,
        ratio(atr, _sma_after(atr, 50)) - 1,
        ratio(talib.SMA(volume, 5), talib.SMA(volume, 60)) - 1,
        log_return(close, 20),
        log_return(close, 60),
        ratio(np.abs(close - _shifted(close, 20)), talib.SMA(moves, 20) * 20),
        ratio(high - low, talib.SMA(high - low, 20)) - 1,
        ratio(talib.LINEARREG_SLOPE(close, 30), atr),
        np.where(np.isnan(adx), np.nan, np.where(adx > 25, np.where(up, 1.0, -1.0), 0.0)),
        sma_50 / _shifted(sma_50, 5) - 1,
        sma_200 / _shifted(sma_200, 5) - 1,
        _strided_rsi(close, 15),
        _strided_rsi(close, 60),
        ratio(volume, talib.SMA(volume, 5)) - 1,
        ratio(volume, talib.SMA(volume, 20)) - 1,
        ratio(close - _shifted(close, 60), atr),
        ratio(close - low_20, high_20 - low_20),
        _flag(high_10 > high_before, high_before),
        _flag(low_10 < low_before, low_before),
        _flag((low_10 > low_before) & (low_before > _shifted(low_10, 20)), _shifted(low_10, 20)),
        _flag((high_10 < high_before) & (high_before < _shifted(high_10, 20)), _shifted(high_10, 20)),
        _flag((np.abs(high_10 - high_before) < atr / 4) & (close < high_10 - atr / 2), high_before, atr),
        _flag((np.abs(low_10 - low_before) < atr / 4) & (close > low_10 + atr / 2), low_before, atr),
        ratio(close - low_20, atr),
        ratio(high_20 - close, atr),
        _flag(close > prior_high, prior_high),
        _flag(close < prior_low, prior_low),
    )
    return np.column_stack(columns)


def _sma_after(values: FloatArray, bars: int) -> FloatArray:
    """Mean of the last `bars` values once those are known; TA-Lib would spread leading nans."""
    first = int(np.isfinite(values).argmax()) if np.isfinite(values).any() else len(values)
    result = np.full_like(values, np.nan)
    if len(values) - first >= bars:
        result[first:] = talib.SMA(np.ascontiguousarray(values[first:]), bars)
    return result


def market_features(bars: Bars) -> Float32Array:
    """The 28 of every bar and symbol.

    Returns:
        Shape (n_bars, n_symbols, 28), float32, nan where a symbol has no bar or a window is not full; row *t* uses bars
        up to and including *t*.
    """
    values = np.full((bars.n_bars, bars.n_symbols, len(MARKET_NAMES)), np.nan, dtype=np.float32)
    for s in range(bars.n_symbols):
        present = bars.tradable[:, s]
        if not present.any():
            continue
        values[present, s] = compute(*[np.ascontiguousarray(getattr(bars, field)[present, s]) for field in FIELDS])
    return values


def write_market_features(values: Float32Array, path: Path) -> None:
    """Write them as a .npy file."""
    with path.open("wb") as file:
        np.save(file, values)


def read_market_features(path: Path) -> Float32Array:
    """Read what `write_market_features` wrote."""
    return np.asarray(np.load(path, allow_pickle=False))


MARKET_FEATURES = Kind("market-features", ".npy", write_market_features, read_market_features)
