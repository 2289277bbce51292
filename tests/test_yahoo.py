import logging
import socket
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import yfinance as yf
from curl_cffi.requests import Session
from servers import VirtualTime
from servers.fake_alpaca import random_bars
from servers.fake_yahoo import MAINTENANCE, FakeYahoo, make_certificate, serving

from ploutos.errors import ConfigError, NoData, RangeTooOld, RateLimited, UnknownSymbol, VendorDown
from ploutos.market.calendar import expected_bars
from ploutos.market.sources.vendor import Request
from ploutos.market.sources.yahoo import Yahoo

HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
NOW = "2024-06-03T17:00:00Z"  # 13:00 in New York, a Monday
FIRST, TODAY = pd.Timestamp("2024-02-01").date(), pd.Timestamp("2024-06-03").date()


def session_bars(timeframe, first=FIRST, minute=30):
    stamps = pd.DatetimeIndex(expected_bars("NYSE", timeframe, first, TODAY, minute)).tz_localize("UTC")
    return random_bars(stamps[stamps <= pd.Timestamp(NOW)])


HOURLY, DAILY = session_bars(HOUR), session_bars(DAY)
MINUTES = session_bars(pd.Timedelta(minutes=1), pd.Timestamp("2024-05-06").date(), 0)
BARS = {("SPY", "1h"): HOURLY, ("SPY", "1d"): DAILY, ("SPY", "1m"): MINUTES, ("^VIX", "1d"): DAILY, ("NQ=F", "1d"): DAILY}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("yfinance")


@pytest.fixture(scope="module")
def trusted(certificate):
    """yfinance's session, of which it has one, trusts our certificate for the length of this file."""
    yf.Ticker("SPY", session=Session(impersonate="chrome", verify=str(certificate[0])))
    yield
    yf.Ticker("SPY", session=Session(impersonate="chrome"))


@pytest.fixture
def yahoo(certificate, trusted, cache):

    @contextmanager
    def opened(now=NOW, bars=BARS, warm="SPY", options=None, **shape):
        """A vendor, its server, and the time of both; yfinance knows the zone of `warm` already and asks for bars only."""
        time = VirtualTime(now)
        fake = FakeYahoo(bars, time.clock, **shape)
        with serving(fake, certificate) as proxy:
            if warm:
                list(Yahoo(cache, proxy, clock=time.clock).pages(asking(warm, DAY, "2024-05-01T00:00:00Z", "2024-05-08T00:00:00Z")))
                fake.charts.clear()
            yield Yahoo(cache, proxy, clock=time.clock, sleep=time.sleep, **(options or {})), fake, time

    return opened


def asking(symbol="SPY", timeframe=HOUR, start="2024-05-01T00:00:00Z", end="2024-06-04T00:00:00Z", adjustment="total_return"):
    return Request(symbol, timeframe, pd.Timestamp(start), pd.Timestamp(end), adjustment)


def whole(pages):
    return pd.concat([page.frame for page in pages], ignore_index=True)


def same(frame, expected):
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), expected.reset_index(drop=True))


def between(frame, start, end):
    return frame[(frame["timestamp"] >= pd.Timestamp(start)) & (frame["timestamp"] < pd.Timestamp(end))]


# --- what comes


def test_hourly_bars_come_in_utc_and_the_unfinished_last_one_does_not(yahoo):
    with yahoo(warm=None) as (vendor, fake, _):
        (page,) = vendor.pages(asking())
    assert (vendor.name, page.token) == ("yahoo", None)
    assert [str(dtype) for dtype in page.frame.dtypes] == ["datetime64[us, UTC]"] + ["float64"] * 5
    same(page.frame, between(HOURLY, "2024-05-01T00:00Z", "2024-06-03T16:00Z"))  # 16:30 goes on until 17:30
    assert fake.charts[-1]["interval"] == "1h"


def test_hourly_bars_end_where_yahoo_is_late(yahoo):
    with yahoo(now="2024-06-03T16:49:59Z") as (vendor, _, _):
        same(whole(vendor.pages(asking())), between(HOURLY, "2024-05-01T00:00Z", "2024-06-03T15:00Z"))
    with yahoo(now="2024-06-03T16:50:00Z") as (vendor, _, _):
        same(whole(vendor.pages(asking())), between(HOURLY, "2024-05-01T00:00Z", "2024-06-03T16:00Z"))


def test_only_bars_that_start_in_the_span_come(yahoo):
    start, end = "2024-05-02T14:00:00Z", "2024-05-07T15:30:00Z"
    with yahoo() as (vendor, _, _):
        same(whole(vendor.pages(asking(start=start, end=end))), between(HOURLY, start, end))


@pytest.mark.parametrize(("now", "last"), [("2024-06-03T20:19:59Z", "2024-05-31"), ("2024-06-03T20:20:00Z", "2024-06-03")])
def test_daily_bars_are_labelled_by_their_session_and_today_waits_for_the_close(yahoo, now, last):
    """Over the start of summer time: midnight of New York is 05:00 and then 04:00 UTC."""
    with yahoo(now=now) as (vendor, _, _):
        bars = whole(vendor.pages(asking(timeframe=DAY, start="2024-03-01T00:00:00Z")))
    same(bars, between(DAILY, "2024-03-01T00:00Z", pd.Timestamp(last, tz="UTC") + DAY))
    assert (bars["timestamp"] == bars["timestamp"].dt.normalize()).all()


def test_a_session_that_began_on_the_other_side_of_the_world_keeps_its_date(yahoo):
    bars = {("7203.T", "1d"): DAILY}
    with yahoo(bars=bars, warm=None, zone="Asia/Tokyo", regular=("09:00", "15:30"), now="2024-06-03T06:49:59Z") as (vendor, _, _):
        same(whole(vendor.pages(asking("7203.T", DAY))), between(DAILY, "2024-05-01T00:00Z", "2024-06-03T00:00Z"))
    with yahoo(bars=bars, warm=None, zone="Asia/Tokyo", regular=("09:00", "15:30"), now="2024-06-03T06:50:00Z") as (vendor, _, _):
        same(whole(vendor.pages(asking("7203.T", DAY))), between(DAILY, "2024-05-01T00:00Z", "2024-06-04T00:00Z"))


def test_total_return_folds_dividends_in_and_raw_does_not(yahoo):
    with yahoo(paid=0.9) as (vendor, _, _):
        raw = whole(vendor.pages(asking(timeframe=DAY, adjustment="raw")))
        adjusted = whole(vendor.pages(asking(timeframe=DAY)))
    same(raw, between(DAILY, "2024-05-01T00:00Z", "2024-06-03T00:00Z"))
    prices = ["open", "high", "low", "close"]
    np.testing.assert_allclose(adjusted[prices], raw[prices] * 0.9)
    np.testing.assert_array_equal(adjusted["volume"], raw["volume"])


def test_a_dividend_that_hourly_bars_do_not_hold_is_said_aloud(yahoo, caplog):
    with yahoo() as (vendor, fake, _), caplog.at_level(logging.WARNING, "ploutos"):
        list(vendor.pages(asking()))
        assert not caplog.records
        fake.dividends = {"2024-05-15T13:30:00Z": 1.5}
        list(vendor.pages(asking(adjustment="raw")))
        assert not caplog.records
        list(vendor.pages(asking()))
    assert caplog.messages == ["SPY paid dividends, and Yahoo adjusts bars of 1h for splits only"]


@pytest.mark.parametrize("symbol", ["^VIX", "NQ=F"])
def test_symbols_with_odd_characters_are_asked_as_they_are(yahoo, symbol):
    with yahoo(warm=None) as (vendor, fake, _):
        assert len(whole(vendor.pages(asking(symbol, DAY))))
    assert {chart["symbol"] for chart in fake.charts} == {symbol}


def test_bars_of_a_minute_come_by_the_week_and_another_object_goes_on(yahoo):
    asked = asking(timeframe=pd.Timedelta(minutes=1), start="2024-05-06T00:00:00Z")
    with yahoo() as (vendor, fake, _):
        pages = list(vendor.pages(asked))
        weeks = [(int(chart["period2"]) - int(chart["period1"])) / 86400 for chart in fake.charts]
    assert weeks == [7, 7, 7, 7, 1]
    same(whole(pages), between(MINUTES, "2024-05-06T00:00Z", "2024-06-03T16:40Z"))
    with yahoo() as (vendor, _, _):
        rest = list(vendor.pages(asked, pages[1].token))
    same(whole([*pages[:2], *rest]), whole(pages))


def test_a_week_without_bars_is_not_the_end(yahoo):
    bars = {**BARS, ("SPY", "1m"): between(MINUTES, "2024-05-20T00:00Z", "2024-06-04T00:00Z")}
    with yahoo(bars=bars) as (vendor, _, _):
        pages = list(vendor.pages(asking(timeframe=pd.Timedelta(minutes=1), start="2024-05-06T00:00:00Z")))
    assert [page.frame.empty for page in pages] == [True, True, False, False, False]


# --- what is refused


@pytest.mark.parametrize(
    ("length", "days", "first"),
    [("1h", 730, "2022-06-04"), ("5min", 60, "2024-04-04"), ("90min", 60, "2024-04-04"), ("1min", 30, "2024-05-04")],
)
def test_a_range_that_is_too_old_is_refused_before_any_request(yahoo, length, days, first):
    start = pd.Timestamp(NOW) - pd.Timedelta(days=days, seconds=1)
    found = f"keeps bars of .* for {days} days, from {first} on, and SPY was requested from {start:%Y-%m-%d}"
    sentence = rf"{found}; .*that has more: alpaca, or your own files"
    with yahoo() as (vendor, fake, _), pytest.raises(RangeTooOld, match=sentence):
        list(vendor.pages(asking(timeframe=pd.Timedelta(length), start=start)))
    assert fake.charts == []


def test_daily_bars_are_never_too_old(yahoo):
    with yahoo() as (vendor, _, _):
        same(
            whole(vendor.pages(asking(timeframe=DAY, start="1950-01-01T00:00:00Z"))),
            between(DAILY, "1950-01-01T00:00Z", "2024-06-03T00:00Z"),
        )


@pytest.mark.parametrize(
    ("length", "reason", "limit"),
    [
        (
            "1h",
            "1h data not available for startTime=1 and endTime=2. The requested range must be within the last 730 days.",
            "1h for 730 days",
        ),
        (
            "5min",
            "5m data not available for startTime=1 and endTime=2. The requested range must be within the last 60 days.",
            "5m for 60 days",
        ),
        (
            "1min",
            "1m data not available. Only 8 days worth of 1m granularity data are allowed to be fetched per request.",
            "1m for 30 days",
        ),
    ],
)
def test_a_range_that_yahoo_finds_too_old_by_its_own_clock_says_the_same(yahoo, length, reason, limit):
    with yahoo() as (vendor, fake, time):
        answer = f'{{"chart":{{"result":null,"error":{{"code":"Unprocessable Entity","description":"{reason}"}}}}}}'
        fake.faults = [(422, answer)] * 9
        with pytest.raises(RangeTooOld, match=rf"Yahoo keeps bars of {limit}.*{reason[:22]}.*that has more: alpaca"):
            list(vendor.pages(asking(timeframe=pd.Timedelta(length), start="2024-05-20T00:00:00Z", end="2024-05-22T00:00:00Z")))
        assert time.waited == 0


def test_a_length_that_yahoo_lacks_is_refused(yahoo):
    with yahoo() as (vendor, _, _), pytest.raises(ConfigError, match="no bars of 0 days 04:00:00; expected one of 1m, 2m, 5m"):
        list(vendor.pages(asking(timeframe=4 * HOUR)))


@pytest.mark.parametrize("attempt", range(3))
def test_an_unknown_symbol_is_told_by_name(yahoo, attempt):
    """yfinance asks in another way after two symbols whose zone it could not find; the error is the same."""
    with yahoo() as (vendor, _, time):
        with pytest.raises(
            UnknownSymbol, match=r"Yahoo has no chart of SPYY, as for names .* expected Yahoo's own name for it, such as SPY, NQ=F"
        ):
            list(vendor.pages(asking("SPYY")))
        assert time.waited == 0


def test_a_symbol_that_is_gone_since_its_zone_was_learned_is_unknown(yahoo):
    with yahoo() as (vendor, fake, _):
        fake._bars = {("QQQ", "1d"): DAILY}
        with pytest.raises(UnknownSymbol, match="Yahoo has no chart of SPY,"):
            list(vendor.pages(asking()))


def test_a_span_without_bars_is_no_data(yahoo):
    with yahoo() as (vendor, _, _), pytest.raises(NoData, match="no finished bars of SPY from 2024-05-04 00:00"):
        list(vendor.pages(asking(start="2024-05-04T00:00:00Z", end="2024-05-06T00:00:00Z")))  # a weekend


@pytest.mark.parametrize(
    ("reason", "error", "sentence"),
    [
        ("Data doesn't exist for startDate = 1, endDate = 2", NoData, "no finished bars of SPY"),
        ("Invalid Crumb", VendorDown, r"refused the chart of SPY \(Invalid Crumb\); asked \d+ times"),
    ],
)
def test_a_refusal_that_is_no_lack_of_data_is_not_called_one(yahoo, reason, error, sentence):
    with yahoo() as (vendor, fake, _):
        answer = f'{{"chart":{{"result":null,"error":{{"code":"Some","description":"{reason}"}}}}}}'
        fake.faults = [(400, answer)] * 40
        with pytest.raises(error, match=sentence):
            list(vendor.pages(asking()))


def test_a_span_of_one_unfinished_bar_is_no_data(yahoo):
    with yahoo() as (vendor, _, _), pytest.raises(NoData, match="no finished bars of SPY from 2024-06-03 16:00"):
        list(vendor.pages(asking(start="2024-06-03T16:00:00Z")))


# --- faults that pass, and those that do not


@pytest.mark.parametrize(
    "fault", [(429, "Too Many Requests"), (500, "<html>oops</html>"), (502, ""), (200, MAINTENANCE), (200, '{"chart": {"resu')], ids=str
)
def test_a_fault_that_passes_loses_nothing_though_yfinance_keeps_failed_answers(yahoo, fault):
    """The span ended long ago, so yfinance would give the failed answer again without asking."""
    asked = asking(end="2024-05-20T00:00:00Z")
    with yahoo() as (vendor, fake, time):
        fake.faults = [fault] * 5  # it asks twice when the status is an error
        same(whole(vendor.pages(asked)), between(HOURLY, "2024-05-01T00:00Z", "2024-05-20T00:00Z"))
        assert fake.faults == []
        assert time.waited > 1


def test_the_answer_that_yfinance_keeps_would_fail_again(yahoo):
    """What the clearing is for: without it, no request goes out and the old failure comes back."""
    options = {"start": pd.Timestamp("2024-05-01", tz="UTC"), "end": pd.Timestamp("2024-05-20", tz="UTC"), "interval": "1h"}
    with yahoo() as (vendor, fake, _), vendor._yfinance():
        fake.faults = [(500, "<html>oops</html>")] * 2
        for _ in range(2):
            with pytest.raises(ValueError, match="line 1 column 1"):
                yf.Ticker("SPY").history(**options)
        assert len(fake.charts) == 2
    with yahoo() as (vendor, _, _):
        assert len(whole(vendor.pages(asking(end="2024-05-20T00:00:00Z"))))


def test_a_burst_of_429_longer_than_a_minute_passes(yahoo):
    with yahoo() as (vendor, fake, time):
        fake.faults = [(429, "Too Many Requests")] * 14
        same(whole(vendor.pages(asking())), between(HOURLY, "2024-05-01T00:00Z", "2024-06-03T16:00Z"))
        assert time.waited > 60


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        (
            (429, "Too Many Requests"),
            RateLimited,
            r"a request for SPY with 429 \(too many requests\); asked \d+ times in 1\d\d s; run again later",
        ),
        ((500, "<html>oops</html>"), VendorDown, r"chart of SPY \(JSONDecodeError\); asked \d+ times in 1\d\d s; run again later"),
        ((200, MAINTENANCE), VendorDown, r"down for maintenance or refused the chart of SPY \(\*\*\* YAHOO! FINANCE IS CURRENTLY DOWN"),
        ((200, '{"chart": {"resu'), VendorDown, r"chart of SPY \(JSONDecodeError\)"),
        (
            (200, '{"chart": {"result": [{"meta": {}, "indicators": {"quote": [{"open": [1]}]}}], "error": null}}'),
            VendorDown,
            r"\(KeyError\)",
        ),
    ],
    ids=str,
)
def test_a_fault_that_lasts_is_said_in_one_sentence(yahoo, fault, error, sentence):
    with yahoo() as (vendor, fake, time):
        fake.faults = [fault] * 60
        with pytest.raises(error, match=sentence):
            list(vendor.pages(asking()))
        assert 120 < time.waited <= 180


def test_a_symbol_never_seen_before_meets_the_same_errors(yahoo):
    """Its zone is asked for first, by another request of yfinance's."""
    with yahoo(warm=None, bars={("NEW", "1h"): HOURLY}, options={"retry_for_s": 5}) as (vendor, fake, _):
        fake.faults = [(500, "<html>oops</html>")] * 30
        with pytest.raises(VendorDown, match="asked 3 times"):
            list(vendor.pages(asking("NEW")))
        fake.faults = [(429, "slow")] * 2
        same(whole(vendor.pages(asking("NEW"))), between(HOURLY, "2024-05-01T00:00Z", "2024-06-03T16:00Z"))


def test_a_server_that_hangs_is_given_up(yahoo):
    with yahoo(options={"timeout_s": 0.2, "retry_for_s": 4}) as (vendor, fake, _):
        fake.faults = ["hang"] * 20
        with pytest.raises(VendorDown, match=r"gave no answer within 0\.2 s, or could not be reached \(\w*Timeout\).*SPY.*; asked 3 times"):
            list(vendor.pages(asking()))


def test_a_proxy_that_is_not_there_is_said_to_be_down(yahoo, cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{free.getsockname()[1]}"
    time = VirtualTime(NOW)
    vendor = Yahoo(cache, proxy, retry_for_s=4, clock=time.clock, sleep=time.sleep)
    with pytest.raises(VendorDown, match=r"could not be reached \(\w+Error\).*SPY.*; asked 3 times"):
        list(vendor.pages(asking()))


def test_yfinances_settings_are_as_before_after_success_and_failure(yahoo):
    with yahoo() as (vendor, _, _):
        list(vendor.pages(asking()))
        with pytest.raises(UnknownSymbol):
            list(vendor.pages(asking("SPYY")))
    assert yf.config.debug.hide_exceptions is True
    assert yf.config.network.proxy is None


def test_the_folder_holds_what_yfinance_learns(yahoo, cache):
    with yahoo():
        assert {"cookies.db", "tkr-tz.db"} <= {file.name for file in cache.iterdir()}
