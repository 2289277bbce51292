"""What a name says: futures, exchange rates, coins and shares, as people, vendors and charting programs write them."""

import pytest

from ploutos.errors import ConfigError
from ploutos.market.instruments import instrument


@pytest.mark.parametrize(
    ("names", "asset_class", "calendar"),
    [
        ("NQ nq NQ=F NQH24 NQH4 NQ1! /NQ @NQ# NQ_F NQ.F NQ1 NQ.c.0 NQ.v.0 NQ_continuous CME_MINI:NQ1!", "future", "CME Globex Equity"),
        ("CL cl=f CLZ25 NYMEX:CL1!", "future", "CMEGlobex_Crude"),
        ("EURUSD eurusd EUR/USD EURUSD=X EUR_USD EURUSD_H1 EURUSDm EURUSD.pro OANDA:EURUSD FX_EURUSD XAUUSD", "fx", "FX"),
        ("BTC-USD btcusdt BTC/EUR BTC_USDT BINANCE_BTCUSDT BTCUSDT-1w BTCUSDT.P BTC-PERP BTC BITCOIN SOLUSD", "crypto", "24/7"),
        ("AAPL aapl BRK/B BRK.B BF-B 000001 NA TRUE A T ZTS", "equity", "NYSE"),
        ("VOD.L vod.l", "equity", "LSE"),
        ("7203.T", "equity", "JPX"),
        ("BMW.F", "equity", "XFRA"),
        ("BAC-PL A_1d USDX C_F", "equity", "NYSE"),
        ("CL.TO PA.V", "equity", "TSX"),
        ("ES-CONT es_1min NQ_F_1h", "future", "CME Globex Equity"),
    ],
)
def test_a_name_says_what_it_is(names, asset_class, calendar):
    for name in names.split():
        found = instrument(name)
        assert (found.symbol, found.asset_class, found.calendar) == (name, asset_class, calendar), name


@pytest.mark.parametrize("name", ["ES 03-24", "CME_MINI_NQ1!, 1D", "EURUSD_H1_202401020000_202405310000", "BINANCE_BTCUSDT, 1W"])
def test_the_names_of_exported_files_are_seen_through(name):
    assert instrument(name).asset_class != "equity"


def test_what_a_name_leaves_open_is_asked_for():
    for name, sentence in (
        ("KC=F", r"KC=F is a future and its contract is not known; .* data\.instruments, or say what it is with data\.asset_class"),
        ("XYZ.QQ", r"XYZ\.QQ ends in \.QQ, and its exchange is not known; .* data\.instruments"),
        ("my EURUSD bars", r"has EURUSD in its name and is not read as one; rename it to EURUSD"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            instrument(name)
    for name in ("my NQ bars", "NQ.CME", "GLBX_NQ", "ES (1)", "NQ-5m-2024"):
        with pytest.raises(ConfigError, match=r"has (NQ|ES)=F in its name and is not read as one; rename it to (NQ|ES)=F, or say"):
            instrument(name)
    for name in ("EURUSDx", "EURUSD.a", "EURUSD_part1"):
        with pytest.raises(ConfigError, match=r"has EURUSD in its name"):
            instrument(name)
        assert instrument(name, "equity").calendar == "NYSE"
        assert instrument(name, "fx").calendar == "FX"
    assert instrument("ES", "equity").calendar == "NYSE"
