"""Features against plain arithmetic, and what they may not depend on. The future is cut in `test_causality`."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ploutos.envs.account_features import ACCOUNT_NAMES, account_features
from ploutos.envs.ledger import Accounts
from ploutos.errors import ConfigError, DataError
from ploutos.features import indicators, llm_features
from ploutos.features.build import FeatureSpec, build_features, read_features, write_features
from ploutos.features.scaling import fit_scaler

PRICES = ("open", "high", "low", "close")


@pytest.fixture(scope="module")
def sample(sample_bars):
    """IBM's own bars and features: no gaps, all 13 years."""
    s = sample_bars.symbols.index("IBM")
    features = build_features(sample_bars, FeatureSpec())
    arrays = {name: getattr(sample_bars, name)[:, s] for name in (*PRICES, "volume")}
    return arrays, {name: features.values[:, s, i] for i, name in enumerate(features.names)}


def wilder(values, n, first):
    """Wilder's smoothing: a mean of the first n values, then one part in n of each new one."""
    result = np.full(len(values), np.nan)
    result[first + n - 1] = values[first : first + n].mean()
    for t in range(first + n, len(values)):
        result[t] = (result[t - 1] * (n - 1) + values[t]) / n
    return result


def rsi(close, n):
    change = np.diff(close, prepend=np.nan)
    up, down = wilder(np.maximum(change, 0), n, 1), wilder(np.maximum(-change, 0), n, 1)
    return up / (up + down)


def test_indicators_equal_their_formulas(sample):
    bars, found = sample
    close, high, low = pd.Series(bars["close"]), pd.Series(bars["high"]), pd.Series(bars["low"])
    before = close.shift(1)
    true_range = pd.concat([high - low, (high - before).abs(), (low - before).abs()], axis=1).max(axis=1).to_numpy()
    returns = np.log(close / before)
    expected = {
        "log_return_20": np.log(close / close.shift(20)),
        "gap": np.log(bars["open"] / before),
        "body": np.log(close / bars["open"]),
        "close_location": ((2 * close - high - low) / (high - low)).fillna(0),
        "distance_sma_50": close / close.rolling(50).mean() - 1,
        "drawdown_100": close / high.rolling(100).max() - 1,
        "volatility_20": returns.rolling(20).std(ddof=0),
        "bollinger_position": (close - close.rolling(20).mean()) / close.rolling(20).std(ddof=0),
        "volume_ratio_20": np.log1p(bars["volume"] / pd.Series(bars["volume"]).rolling(20).mean()) - np.log(2),
        "rsi_14": 2 * rsi(bars["close"], 14) - 1,
        "natr_14": wilder(true_range, 14, 1) / bars["close"],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.asarray(values), rtol=2e-4, atol=2e-6, err_msg=name)


def test_the_scale_of_prices_and_volumes_changes_nothing(panel, panel_features):
    scaled = replace(panel, **{name: getattr(panel, name) * 10 for name in PRICES}, volume=panel.volume * 1000)
    np.testing.assert_allclose(build_features(scaled, FeatureSpec()).values, panel_features.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(llm_features.market_features(scaled), llm_features.market_features(panel), rtol=1e-3, atol=1e-4)


def test_a_halt_in_one_symbol_changes_no_other(panel, panel_features):
    halted = replace(panel, **{name: np.where(np.arange(3) == 1, np.nan, getattr(panel, name)) for name in (*PRICES, "volume")})
    values = build_features(halted, FeatureSpec()).values
    np.testing.assert_array_equal(values[:, [0, 2]], panel_features.values[:, [0, 2]])
    assert np.isnan(values[:, 1]).all()


def test_features_are_those_of_a_symbols_own_bars(panel, panel_features):
    """A missing bar is skipped, not filled: the features are as if the panel had only this symbol's bars."""
    present = panel.tradable[:, 1]
    own = [getattr(panel, name)[present, 1] for name in (*PRICES, "volume")]
    np.testing.assert_array_equal(panel_features.values[present, 1], indicators.compute(*own).astype(np.float32))
    assert np.isnan(panel_features.values[~present, 1]).all()


def test_a_choice_of_features_keeps_their_order(panel):
    chosen = build_features(panel, FeatureSpec(include=("gap", "log_return_1"), exclude=("body",)))
    assert chosen.names == ("log_return_1", "gap")
    with pytest.raises(ConfigError, match="features has no rsi_15; it has log_return_1, "):
        FeatureSpec(include=("rsi_15",)).names()
    with pytest.raises(ConfigError, match="leaves no feature"):
        FeatureSpec(include=("gap",), exclude=("gap",)).names()


def test_features_survive_their_file_and_give_the_same_bytes(panel_features, tmp_path):
    for name in ("a", "b"):
        write_features(panel_features, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_features(tmp_path / "a")
    np.testing.assert_array_equal(again.values, panel_features.values)
    assert (again.names, again.symbols) == (panel_features.names, panel_features.symbols)
    np.testing.assert_array_equal(again.available_at, panel_features.available_at)
    frame = pd.read_parquet(tmp_path / "a")
    assert list(frame.columns[:4]) == ["timestamp", "available_at", "symbol", "log_return_1"]
    frame.assign(available_at=pd.NaT).to_parquet(tmp_path / "a")
    with pytest.raises(DataError, match="does not say when its rows were known"):
        read_features(tmp_path / "a")


def test_the_scaler_knows_training_rows_only(panel_features):
    train = panel_features.values[110:400]
    scaler = fit_scaler(train)
    scores = scaler.transform(train)
    usable = np.isfinite(train).all(axis=2)
    np.testing.assert_allclose(scores[usable].mean(axis=0), 0, atol=0.1)  # clipping moves it a little
    assert (scores[~usable] == 0)[np.isnan(train[~usable])].all()
    assert np.abs(scaler.transform(train * 1e6)).max() == 5
    with pytest.raises(DataError, match="found 0 training rows with all features; expected at least 2"):
        fit_scaler(panel_features.values[:50])


def test_the_33_features_have_their_documented_names_and_order():
    documented = """adx_slope vwap_distance volatility_regime volume_regime price_momentum_20 price_momentum_60 efficiency_ratio
    spread_ratio session_trend market_regime sma_50_slope sma_200_slope rsi_15min rsi_60min volume_ratio_5min volume_ratio_20min
    price_change_60min price_vs_support higher_high lower_low higher_low lower_high double_top double_bottom support_20
    resistance_20 breakout_signal breakdown_signal unrealized_pnl drawdown_current consecutive_losses win_rate_recent mae_mfe_ratio"""
    assert [*llm_features.MARKET_NAMES, *ACCOUNT_NAMES] == documented.split()


def test_no_two_of_the_28_are_the_same_number_and_flags_are_flags(sample_bars):
    values = llm_features.market_features(sample_bars)[900:, 3]
    assert np.isfinite(values).all()
    correlation = np.corrcoef(values.T) - np.eye(28)
    assert np.abs(correlation).max() < 0.999
    for name in ("higher_high", "double_top", "breakout_signal"):
        assert set(np.unique(values[:, llm_features.MARKET_NAMES.index(name)])) == {0.0, 1.0}


def test_the_15_bar_rsi_is_taken_on_closes_15_bars_apart(sample, sample_bars):
    close = sample[0]["close"]
    values = llm_features.market_features(sample_bars)[:, sample_bars.symbols.index("IBM"), llm_features.MARKET_NAMES.index("rsi_15min")]
    for t in (1000, 1007, 2500):
        assert values[t] == pytest.approx(rsi(close[t % 15 : t + 1 : 15], 14)[-1], rel=1e-4)


def test_two_accounts_at_the_same_bar_never_share_the_account_features():
    accounts = Accounts.open(2, 1, 1000.0)
    accounts.equity[1], accounts.peak[1] = 900.0, 1200.0
    accounts.trade_pnl[1], accounts.loss_streak[1] = -45.0, 2
    accounts.outcomes[1], accounts.n_outcomes[1] = 0b0100, 4
    accounts.worst[1], accounts.best[1] = -0.03, 0.01
    values = account_features(accounts)
    assert values[0, 0].tolist() == [0, 0, 0, 0.5, 0]
    assert values[1, 0] == pytest.approx([-0.05, -0.25, 2, 0.25, 0.75])
