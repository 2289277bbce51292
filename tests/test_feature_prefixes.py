"""Features of a prefix are the prefix of the features, to the last bit; and the numbers that other tests leave unchecked."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import TINY

from ploutos.errors import DataError
from ploutos.features.build import FeatureSpec, build_features, read_features, write_features
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.features.scaling import fit_scaler
from ploutos.market.bars import FIELDS, align
from ploutos.training.ppo import learning_ranges

PRICES = ("open", "high", "low", "close")


@pytest.fixture(scope="module")
def sample_values(sample_bars):
    return build_features(sample_bars, FeatureSpec()).values, market_features(sample_bars)


@pytest.fixture(scope="module")
def panel_market(panel):
    return market_features(panel)


def column(values, name):
    return values[:, 0, MARKET_NAMES.index(name)]


def one_market(close, volume):
    """Daily bars one percent high on either side of a close."""
    close = np.asarray(close, dtype=float)
    days = pd.date_range("2024-01-01", periods=len(close), tz="UTC")
    columns = {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close, "volume": volume}
    return align(pd.DataFrame({"symbol": "A", "timestamp": days, **columns}), pd.Timedelta(days=1), "24/7", "by hand")


@settings(max_examples=25, deadline=None)
@given(t=st.integers(1, 700))
def test_features_of_any_prefix_of_a_gappy_panel_are_the_prefix(panel, panel_features, panel_market, t):
    np.testing.assert_array_equal(build_features(panel.head(t), FeatureSpec()).values, panel_features.values[:t])
    np.testing.assert_array_equal(market_features(panel.head(t)), panel_market[:t])


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_features_of_any_prefix_of_the_sample_are_the_prefix(sample_bars, sample_values, data):
    t = data.draw(st.integers(1, sample_bars.n_bars))
    np.testing.assert_array_equal(build_features(sample_bars.head(t), FeatureSpec()).values, sample_values[0][:t])
    np.testing.assert_array_equal(market_features(sample_bars.head(t)), sample_values[1][:t])


@settings(max_examples=10, deadline=None)
@given(t=st.integers(250, 690), seed=st.integers(0, 1000))
def test_rewriting_the_bars_after_t_changes_later_features_alone(panel, panel_features, panel_market, t, seed):
    factor = np.ones((panel.n_bars, 1))
    factor[t:, 0] = np.random.default_rng(seed).uniform(0.2, 5, panel.n_bars - t)
    other = replace(panel, **{name: getattr(panel, name) * factor for name in FIELDS})
    for found, before in ((build_features(other, FeatureSpec()).values, panel_features.values), (market_features(other), panel_market)):
        np.testing.assert_array_equal(found[:t], before[:t])
        assert not np.array_equal(found[t:], before[t:], equal_nan=True)


def test_prices_times_eight_change_no_bit_where_no_square_is_taken(panel, panel_features, panel_market):
    scaled = replace(panel, **{name: getattr(panel, name) * 8 for name in PRICES})
    values = build_features(scaled, FeatureSpec()).values
    for name in ("log_return_20", "gap", "close_location", "rsi_14", "natr_14", "distance_sma_20", "drawdown_100"):
        i = panel_features.names.index(name)
        np.testing.assert_array_equal(values[:, :, i], panel_features.values[:, :, i], err_msg=name)
    for name in ("support_20", "resistance_20"):
        i = MARKET_NAMES.index(name)
        np.testing.assert_array_equal(market_features(scaled)[:, :, i], panel_market[:, :, i], err_msg=name)


def test_one_halted_bar_leaves_the_other_symbols_and_the_rows_in_place(panel, panel_features, panel_market):
    t = 450
    assert panel.tradable[t, 0]
    arrays = {name: getattr(panel, name).copy() for name in FIELDS}
    for values in arrays.values():
        values[t, 0] = np.nan
    halted = replace(panel, **arrays)
    for found, before in ((build_features(halted, FeatureSpec()).values, panel_features.values), (market_features(halted), panel_market)):
        assert found.shape == before.shape
        np.testing.assert_array_equal(found[:, 1:], before[:, 1:])
        np.testing.assert_array_equal(found[:t, 0], before[:t, 0])
        assert np.isnan(found[t, 0]).all()
    body = panel_features.names.index("body")  # needs its own bar alone, so a shifted row would show
    np.testing.assert_array_equal(build_features(halted, FeatureSpec()).values[t + 1 :, 0, body], panel_features.values[t + 1 :, 0, body])


def test_the_sample_is_ready_after_100_bars(sample_bars):
    assert build_features(sample_bars, FeatureSpec()).warmup_bars == 100


def test_a_distance_from_a_mean_of_20_is_worked_out_by_hand(sample_bars, sample_values):
    s = sample_bars.symbols.index("IBM")
    close, i = sample_bars.close[:, s], build_features(sample_bars.head(30), FeatureSpec()).names.index("distance_sma_20")
    for t in (19, 500, 3000):
        assert sample_values[0][t, s, i] == pytest.approx(close[t] / close[t - 19 : t + 1].mean() - 1, rel=1e-4, abs=1e-6)
    assert np.isnan(sample_values[0][18, s, i])


def test_a_feature_file_without_the_column_available_at_is_refused(panel_features, tmp_path):
    write_features(panel_features, tmp_path / "features.parquet")
    pd.read_parquet(tmp_path / "features.parquet").drop(columns="available_at").to_parquet(tmp_path / "features.parquet")
    with pytest.raises(DataError, match="does not say when its rows were known"):
        read_features(tmp_path / "features.parquet")


def test_a_trained_policy_carries_the_scaler_of_its_training_rows(panel_features, panel_fold, panel_policies):
    """The later rows differ enough that a scaler fitted on everything would show."""
    learnt, _ = learning_ranges(panel_fold, TINY)
    train = fit_scaler(panel_features.values[learnt.start : learnt.stop])
    everything = fit_scaler(panel_features.values)
    for policy in panel_policies:
        np.testing.assert_allclose(policy.scaler.mean, train.mean, rtol=1e-12)
        np.testing.assert_allclose(policy.scaler.deviation, train.deviation, rtol=1e-12)
        assert not np.allclose(policy.scaler.mean, everything.mean)


def test_a_scaler_standardises_by_hand():
    nan = np.nan
    scaler = fit_scaler(np.array([[[1.0, 7.0]], [[3.0, 7.0]], [[nan, 9.0]]], dtype=np.float32))
    # rows 1 and 3 of the first feature: mean 2, deviation 1; a constant is divided by 1
    scores = scaler.transform(np.array([[1.0, 7.0], [4.0, 8.0], [nan, 7.0], [99.0, -99.0]], dtype=np.float32))
    assert scores.tolist() == [[-1, 0], [2, 1], [0, 0], [5, -5]]


def test_every_flag_is_zero_or_one_and_every_regime_a_sign(sample_values):
    flags = ("higher_high", "lower_low", "higher_low", "lower_high", "double_top", "double_bottom", "breakout_signal", "breakdown_signal")
    known = sample_values[1][np.isfinite(sample_values[1]).all(axis=2)]
    for name in flags:
        assert set(np.unique(known[:, MARKET_NAMES.index(name)])) == {0.0, 1.0}, name
    assert set(np.unique(known[:, MARKET_NAMES.index("market_regime")])) == {-1.0, 0.0, 1.0}


def test_support_and_resistance_are_distances_in_true_ranges():
    values = market_features(one_market([100.0] * 19 + [100.0] * 11, 1.0))
    # every bar runs from 99 to 101: the average true range is 2, the close one above and one below
    assert column(values, "support_20")[-1] == pytest.approx(0.5)
    assert column(values, "resistance_20")[-1] == pytest.approx(0.5)
    assert column(values, "price_vs_support")[-1] == pytest.approx(0.5)


def test_without_volume_a_close_has_no_distance_from_the_volume_weighted_price():
    """An index often comes without volume; its close is not all of itself below a price that nobody traded."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, 60)))
    found = column(market_features(one_market(close, 0.0)), "vwap_distance")[-1]
    assert np.isnan(found) or found == 0
