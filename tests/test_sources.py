"""What each source gives for what was asked: instruments, calendars, stand-ins, and the local dataset alone."""

import numpy as np
import pandas as pd
import pytest

from ploutos.envs.ledger import make_market_arrays
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import ConfigError, DataError, UnknownSymbol
from ploutos.features.build import FeatureSpec, build_features, read_features, write_features
from ploutos.features.macro_features import macro_columns
from ploutos.market.data_spec import DataSpec, substitutes
from ploutos.market.dataset import Dataset, SeriesKey
from ploutos.market.instruments import FUTURES
from ploutos.market.loader import fingerprint, load

HOUR = pd.Timedelta(hours=1)
SPAN = (pd.Timestamp("2024-03-01", tz="UTC"), pd.Timestamp("2024-04-01", tz="UTC"))


def simulated(**settings):
    return load(DataSpec(source="synthetic", start="2024-03-01", end="2024-04-30", **settings))


def hourly(start="2024-03-04T14:00", n=40):
    stamps = pd.date_range(start, periods=n, freq="h", tz="UTC").as_unit("us")
    close = 100 + np.arange(n, dtype=float)
    return pd.DataFrame({"timestamp": stamps, "open": close, "high": close, "low": close, "close": close, "volume": 1.0})


def test_a_future_is_simulated_on_its_own_clock_and_terms():
    bars = simulated(symbols=("NQ",))
    assert bars.calendar == "CME Globex Equity"
    assert bars.instruments == (FUTURES["NQ"],)
    assert bars.source == "synthetic: normal, 1h, seed 7"
    np.testing.assert_array_equal(bars.close % 0.25, 0)
    arrays = make_market_arrays(bars)
    assert arrays.contract_terms[:6, 0].tolist() == [20, 1, 2.5, 0.25, 0, 33_000]
    assert with_initial_cash(EnvSpec(), bars).cash == 10 * 20 * bars.close.max()


@pytest.mark.parametrize("calendar", ["auto", "CME Globex Equity"])
def test_symbols_of_two_calendars_are_refused(calendar):
    with pytest.raises(ConfigError, match=r"NQ trades on CME Globex Equity and SPY trades on NYSE; expected one calendar for all symbols"):
        simulated(symbols=("NQ", "SPY"), asset_class=None, calendar=calendar)


def test_the_share_of_a_futures_name_is_a_share_when_told():
    bars = simulated(symbols=("ES",), asset_class="equity")
    assert (bars.calendar, bars.instruments[0].asset_class, bars.instruments[0].multiplier) == ("NYSE", "equity", 1)


def test_the_simulation_takes_dates_and_bar_length_from_the_data():
    bars = simulated(timeframe="1D")
    assert bars.symbols == ("IWM", "QQQ", "SPY")
    assert bars.timeframe == pd.Timedelta(days=1)
    assert (str(bars.sessions[0]), str(bars.sessions[-1])) == ("2024-03-01", "2024-04-30")
    with pytest.raises(ConfigError, match=r"data\.timeframe is '7min'; expected a part of a day such as 15min or 1h"):
        simulated(timeframe="7min")
    with pytest.raises(ConfigError, match=r"data\.timeframe is 'fortnightly'"):
        simulated(timeframe="fortnightly")


def test_a_vendor_is_read_from_the_local_dataset_under_our_names(tmp_path):
    Dataset(tmp_path).upsert(SeriesKey("yahoo", "total_return", HOUR, "NQ=F"), hourly(), SPAN)
    spec = DataSpec(source="yahoo", symbols=("NQ",))
    bars = load(spec, tmp_path)
    assert (bars.symbols, bars.instruments, bars.source) == (("NQ",), (FUTURES["NQ"],), "yahoo, total return")
    before = fingerprint(spec, tmp_path)
    assert fingerprint(spec, tmp_path) == before
    Dataset(tmp_path).upsert(SeriesKey("yahoo", "total_return", HOUR, "NQ=F"), hourly("2024-03-06T12:00", 3), SPAN)
    assert fingerprint(spec, tmp_path) != before


def test_an_etf_stands_in_for_a_future_and_the_bars_say_so(tmp_path):
    Dataset(tmp_path).upsert(SeriesKey("alpaca-sip", "total_return", HOUR, "QQQ"), hourly(), SPAN)
    spec = DataSpec(source="alpaca", symbols=("NQ", "MNQ"))
    bars = load(spec, tmp_path)
    assert bars.symbols == ("QQQ",)
    assert bars.instruments[0].asset_class == "equity"
    assert bars.source == "alpaca-sip, total return; QQQ stands in for NQ; QQQ stands in for MNQ"
    assert substitutes(spec) == {"NQ": "QQQ", "MNQ": "QQQ"}
    assert substitutes(DataSpec(source="yahoo", symbols=("NQ",))) == {}


def test_what_was_never_built_is_an_error_with_the_command(tmp_path):
    with pytest.raises(DataError, match="run ploutos data build --source alpaca-sip --market SPY --timeframe 1h --adjustment total_return"):
        load(DataSpec(source="alpaca", symbols=("SPY",)), tmp_path)
    with pytest.raises(ConfigError, match="name them, such as --market SPY,QQQ"):
        load(DataSpec(source="yahoo"), tmp_path)


def test_a_symbol_that_files_do_not_hold_is_named(tmp_path):
    hourly().assign(symbol="SPY").to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(UnknownSymbol, match=r"bars\.parquet has no symbol NQ; it holds SPY"):
        load(DataSpec(source="files", path=tmp_path / "bars.parquet", symbols=("NQ",)))


def test_macro_columns_stand_beside_the_features_of_every_symbol(tmp_path):
    bars = simulated(symbols=("SPY", "QQQ"))
    days = pd.date_range("2024-02-01", "2024-04-30", freq="B")
    macro = macro_columns(pd.DataFrame({"vix": np.linspace(12, 30, len(days))}, index=days), bars)
    features = build_features(bars, FeatureSpec(include=("rsi_14",)), macro)
    assert features.names[:3] == ("rsi_14", "vix", "vix_ma20")
    np.testing.assert_array_equal(features.values[:, 0, 1:], features.values[:, 1, 1:])
    np.testing.assert_allclose(features.values[:, 0, 1], macro["vix"], rtol=1e-6)
    write_features(features, tmp_path / "features.parquet")
    np.testing.assert_array_equal(read_features(tmp_path / "features.parquet").values, features.values)
