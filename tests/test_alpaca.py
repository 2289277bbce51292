import traceback
import warnings
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import VirtualTime
from servers.fake_alpaca import KEY, SECRET, FakeAlpaca, encoded, random_bars, serving

from ploutos.errors import ConfigError, CredentialsError, NoData, RateLimited, UnknownSymbol, VendorDown, VendorError
from ploutos.market.dataset import Dataset
from ploutos.market.download import build
from ploutos.market.sources.alpaca import Alpaca, parse_bars
from ploutos.market.sources.vendor import Request

HOUR, DAY = pd.Timedelta(hours=1), pd.Timedelta(days=1)
NOW = "2024-06-03T15:10:00Z"
STAMPS = pd.date_range("2024-01-01", "2024-06-03T14:00:00", freq="h", tz="UTC", unit="us")
SPY = random_bars(STAMPS)
SETTLED = SPY[SPY["timestamp"] <= pd.Timestamp("2024-06-03T13:00:00Z")]  # at 15:10 the tape is known until 14:54
LONG_AGO, TOMORROW = pd.Timestamp("2016-01-01", tz="UTC"), pd.Timestamp("2024-06-04", tz="UTC")


def asking(symbol="SPY", timeframe=HOUR, start=LONG_AGO, end=TOMORROW, adjustment="total_return"):
    return Request(symbol, timeframe, pd.Timestamp(start), pd.Timestamp(end), adjustment)


@contextmanager
def alpaca(bars=None, now=NOW, page_rows=1000, per_minute=None, key=KEY, **options):
    """A vendor, its server, and the time of both."""
    time = VirtualTime(now)
    fake = FakeAlpaca({"SPY": SPY} if bars is None else bars, page_rows, time.clock, per_minute)
    with serving(fake) as url:
        yield Alpaca(key, SECRET, url=url, clock=time.clock, sleep=time.sleep, **options), fake, time


def whole(pages):
    return pd.concat([page.frame for page in pages], ignore_index=True)


def same(frame, expected):
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), expected.reset_index(drop=True))


# --- what is asked and what comes


def test_the_request_is_alpacas_and_the_bars_are_ours():
    with alpaca() as (vendor, fake, _):
        pages = list(vendor.pages(asking(end="2024-02-01T00:00:00Z")))
    assert vendor.name == "alpaca-sip"
    assert fake.asked == [
        {
            "path": "/v2/stocks/bars", "symbols": "SPY", "timeframe": "1Hour", "start": "2016-01-01T00:00:00Z",
            "end": "2024-02-01T01:00:00Z", "limit": "10000", "sort": "asc", "feed": "sip", "adjustment": "all",
        }
    ]  # fmt: skip
    (page,) = pages
    assert page.token is None
    assert {name: str(dtype) for name, dtype in page.frame.dtypes.items()} == {
        "timestamp": "datetime64[us, UTC]", **dict.fromkeys(("open", "high", "low", "close", "volume"), "float64")
    }  # fmt: skip
    same(page.frame, SPY[SPY["timestamp"] < "2024-02-01"])


def test_feed_and_adjustment_are_passed_on_and_iex_is_not_held_back():
    with alpaca(feed="iex") as (vendor, fake, _):
        list(vendor.pages(asking(adjustment="raw")))
    assert vendor.name == "alpaca-iex"
    assert (fake.asked[0]["feed"], fake.asked[0]["adjustment"], fake.asked[0]["end"]) == ("iex", "raw", "2024-06-03T15:10:00Z")


def test_crypto_is_asked_by_its_own_path_without_feed_or_adjustment():
    with alpaca({"BTC/USD": SPY}) as (vendor, fake, _):
        bars = whole(vendor.pages(asking("BTC/USD")))
    assert fake.asked[0]["path"] == "/v1beta3/crypto/us/bars"
    assert not {"feed", "adjustment"} & set(fake.asked[0])
    same(bars, SPY)  # until 15:00, which a stock's bars would not reach


@pytest.mark.parametrize(
    ("length", "name"),
    [("1min", "1Min"), ("59min", "59Min"), ("1h", "1Hour"), ("23h", "23Hour"), ("1D", "1Day")],
)
def test_bar_lengths_have_alpacas_names(length, name):
    with alpaca() as (vendor, fake, _):
        list(vendor.pages(asking(timeframe=pd.Timedelta(length), end="2024-03-01T00:00:00Z")))
    assert fake.asked[0]["timeframe"] == name


@pytest.mark.parametrize("length", ["90min", "30s", "61s", "60.5min", "2D"])
def test_a_length_that_alpaca_lacks_is_refused_before_any_request(length):
    with alpaca() as (vendor, fake, _), pytest.raises(ConfigError, match="expected 1 to 59 minutes, 1 to 23 hours or 1 day"):
        list(vendor.pages(asking(timeframe=pd.Timedelta(length))))
    assert fake.asked == []


# --- pages


def test_a_short_page_is_not_the_end():
    with alpaca(page_rows=167) as (vendor, fake, _):
        pages = list(vendor.pages(asking()))
    same(whole(pages), SETTLED)
    assert len(fake.asked) == len(pages) == -(-(len(SETTLED) + 1) // 167)  # and one bar that was not finished
    assert [page.token is None for page in pages] == [False] * (len(pages) - 1) + [True]


def test_an_empty_page_with_a_token_is_not_the_end():
    with alpaca(page_rows=500) as (vendor, fake, _):
        fake.empty_pages = {0, 1000}
        pages = list(vendor.pages(asking()))
    assert [i for i, page in enumerate(pages) if page.frame.empty] == [0, 3]
    assert {str(page.frame["timestamp"].dtype) for page in pages} == {"datetime64[us, UTC]"}
    same(whole(pages), SETTLED)


def test_a_page_that_names_itself_as_the_next_one_is_refused():
    with alpaca(page_rows=500) as (vendor, fake, _):
        pages = vendor.pages(asking())
        token = next(pages).token.split(" ")[1]
        fake.faults = [(200, {"bars": {}, "next_page_token": token})] * 20
        with pytest.raises(VendorDown, match="had just sent as the next one"):
            next(pages)


def test_bars_that_go_back_in_time_are_refused():
    with alpaca(page_rows=500) as (vendor, fake, _):
        pages = vendor.pages(asking())
        next(pages)
        fake.faults = [(200, {"bars": {"SPY": encoded(SPY[499:501])}, "next_page_token": None})] * 20
        with pytest.raises(VendorDown, match="bars of SPY out of order; expected each to start after the one before"):
            next(pages)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(5, 60), stop=st.integers(0, 8), later=st.integers(0, 10**6))
def test_a_download_that_another_object_resumes_equals_one_in_one_go(rows, stop, later):
    """Also when the market has moved on since: the pages are those of the same answer."""
    bars = {"SPY": SPY.tail(100)}
    with alpaca(bars, page_rows=rows) as (vendor, _, _):
        expected = list(vendor.pages(asking()))
    first = expected[: stop + 1]
    moved = pd.Timestamp(NOW) + pd.Timedelta(seconds=later)
    more = {"SPY": pd.concat([bars["SPY"], random_bars(pd.date_range("2024-06-03T15:00:00Z", periods=300, freq="h", unit="us"), 1)])}
    with alpaca(more, now=moved, page_rows=rows) as (vendor, fake, _):
        rest = list(vendor.pages(asking(), first[-1].token)) if first[-1].token else []
    same(whole([*first, *rest]), whole(expected))
    assert len(fake.asked) == len(expected) - len(first)


# --- the span


def test_the_end_is_exclusive_though_alpacas_is_not():
    with alpaca() as (vendor, _, _):
        bars = whole(vendor.pages(asking(start=STAMPS[5], end=STAMPS[9])))
    assert bars["timestamp"].tolist() == STAMPS[5:9].tolist()


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 200), length=st.integers(1, 200), shift=st.integers(0, 59))
def test_only_bars_that_start_in_the_span_come_and_all_of_them_whole(start, length, shift):
    """Alpaca cuts off the bar in which its `end` lies; such a bar must not be the one that is kept."""
    begin = STAMPS[100] + pd.Timedelta(minutes=30 * start)
    end = begin + pd.Timedelta(minutes=60 * length + shift)
    with alpaca() as (vendor, _, _):
        bars = whole(vendor.pages(asking(start=begin, end=end)))
    same(bars, SPY[(SPY["timestamp"] >= begin) & (SPY["timestamp"] < end)])


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2024-06-03T15:10:00Z", "13:00"),  # the tape ends at 14:54, in the middle of the bar of 14:00
        ("2024-06-03T15:15:59Z", "13:00"),
        ("2024-06-03T15:16:00Z", "14:00"),
        ("2024-06-03T16:15:00Z", "14:00"),
    ],
)
def test_a_bar_that_is_not_finished_is_left_out(now, last):
    with alpaca({"SPY": random_bars(STAMPS.append(pd.DatetimeIndex(["2024-06-03T15:00:00Z"])))}, now=now) as (vendor, fake, _):
        fake.recent_refused = True
        bars = whole(vendor.pages(asking()))
    assert f"{bars['timestamp'].iloc[-1]:%H:%M}" == last
    assert (bars["close"] > 1).all()  # the server has 0.01 for what an unfinished hour had so far


def test_a_paid_plan_sees_the_last_minutes():
    with alpaca(delay=pd.Timedelta(0)) as (vendor, _, _):
        same(whole(vendor.pages(asking())), SPY)


@pytest.mark.parametrize("symbol", ["SPY", "BTC/USD"])
def test_daily_bars_are_labelled_by_their_date_and_wait_for_the_end_of_the_day(symbol):
    zone = "America/Chicago" if "/" in symbol else "America/New_York"
    dates = pd.date_range("2024-03-01", "2024-03-15", unit="us")
    daily = random_bars(dates.tz_localize(zone).tz_convert("UTC"))  # over the start of summer time

    def last(now):
        with alpaca({symbol: daily}, now=now) as (vendor, _, _):
            bars = whole(vendor.pages(asking(symbol, DAY, "2024-03-04T00:00:00Z", "2024-03-16T00:00:00Z")))
        assert bars["timestamp"].tolist() == pd.date_range("2024-03-04", bars["timestamp"].iloc[-1].date(), tz="UTC").tolist()
        np.testing.assert_array_equal(bars["close"], daily["close"][3 : 3 + len(bars)])
        return bars["timestamp"].iloc[-1].day

    ends = pd.Timestamp("2024-03-15" if symbol == "SPY" else "2024-03-16", tz=zone)
    ends += pd.Timedelta(hours=20, minutes=16) if symbol == "SPY" else pd.Timedelta(0)
    assert [last(ends.tz_convert("UTC") - pd.Timedelta(seconds=1)), last(ends.tz_convert("UTC"))] == [14, 15]


def test_a_span_that_is_withheld_is_no_data_and_asks_for_nothing():
    with alpaca() as (vendor, fake, _), pytest.raises(NoData, match=r"until 2024-06-03 14:54:00.* request an earlier span, or use --set"):
        list(vendor.pages(asking(start="2024-06-03T15:00:00Z")))
    assert fake.asked == []


def test_a_span_of_one_unfinished_bar_is_no_data():
    with alpaca() as (vendor, _, _), pytest.raises(NoData, match="has no finished bars of SPY from 2024-06-03 14:00"):
        list(vendor.pages(asking(start="2024-06-03T14:00:00Z")))


# --- symbols and keys


def test_a_symbol_for_which_nothing_comes_is_unknown_and_the_sentence_says_what_alpaca_does_not():
    with alpaca() as (vendor, _, _), pytest.raises(UnknownSymbol, match="does not say whether it knows SPYY; expected a US share"):
        list(vendor.pages(asking("SPYY")))


def test_an_unknown_symbol_after_empty_pages_is_still_unknown():
    with alpaca() as (vendor, fake, _):
        fake.faults = [(200, {"bars": {}, "next_page_token": "x"}), (200, {"bars": None, "next_page_token": None})]
        pages = vendor.pages(asking())
        assert next(pages).frame.empty
        with pytest.raises(UnknownSymbol, match="gave no bars of SPY"):
            next(pages)


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ((401, {"code": 40110000, "message": "request is not authorized"}), CredentialsError, "refused the keys; check APCA_API_KEY_ID"),
        ((403, {"message": "forbidden."}), CredentialsError, r"403 \(forbidden\.\): it refused the keys; check APCA_API_KEY_ID"),
        ((403, "<html>Forbidden</html>"), CredentialsError, "refused the keys"),
        ((400, {"code": 400, "message": "invalid symbol: ?"}), UnknownSymbol, "does not know SPY; expected a US share"),
        ((400, {"message": "end should not be before start"}), VendorError, r"400 \(end should not be before start\) to a request for SPY"),
        ((404, {"message": "endpoint not found."}), VendorError, "check the address of Alpaca"),
        ((200, {"bars": {"spy": []}, "next_page_token": None}), UnknownSymbol, "answered with spy"),
    ],
)
def test_what_is_final_is_asked_once_and_said_in_one_sentence(fault, error, sentence):
    with alpaca() as (vendor, fake, _):
        fake.faults = [fault]
        with pytest.raises(error, match=sentence):
            list(vendor.pages(asking()))
    assert len(fake.asked) == 1


def test_wrong_keys_are_told_apart_from_a_plan_that_does_not_reach():
    with alpaca(key="wrong") as (vendor, _, _), pytest.raises(CredentialsError, match=r"401 \(request is not authorized\): it refused"):
        list(vendor.pages(asking()))
    with alpaca(delay=pd.Timedelta(0)) as (vendor, fake, _):
        fake.recent_refused = True
        with pytest.raises(CredentialsError, match=r"recent SIP data.*the plan behind these keys does not reach.*data\.feed=iex"):
            list(vendor.pages(asking()))


@pytest.mark.parametrize(
    ("key", "secret", "missing"), [(None, "s", "APCA_API_KEY_ID"), ("", "", "APCA_API_KEY_ID and APCA_API_SECRET_KEY")]
)
def test_missing_keys_are_named(key, secret, missing):
    with pytest.raises(CredentialsError, match=f"{missing} missing"):
        Alpaca(key, secret)


def test_keys_are_in_no_sentence_and_no_name():
    with alpaca(key="AK-PRIVATE") as (vendor, _, _), pytest.raises(CredentialsError) as caught:
        list(vendor.pages(asking()))
    assert not any(secret in text for secret in ("AK-PRIVATE", SECRET) for text in (str(caught.value), repr(vendor)))


def test_a_vendor_that_repeats_the_keys_is_not_repeated():
    with alpaca() as (vendor, fake, _):
        fake.faults = [(403, {"message": f"key {KEY} with {SECRET} has expired"})]
        with pytest.raises(CredentialsError, match=r"key \*\*\* with \*\*\* has expired") as caught:
            list(vendor.pages(asking()))
    logged = "".join(traceback.format_exception(caught.value))
    assert not any(secret in logged for secret in (KEY, SECRET))


# --- faults that pass, and those that do not


def test_a_burst_of_429_longer_than_a_minute_passes():
    with alpaca(page_rows=500) as (vendor, fake, time):
        pages = vendor.pages(asking())
        first = next(pages)
        fake.busy_until = time.seconds + 75
        same(whole([first, *pages]), SETTLED)
        assert 75 <= time.waited < 120
        assert max(time.pauses) <= 30


@pytest.mark.parametrize(
    "headers",
    [
        lambda now: {"Retry-After": "40"},
        lambda now: {"X-RateLimit-Limit": "200", "X-RateLimit-Reset": str(int(now) + 40)},
        lambda now: {"Retry-After": (pd.Timestamp(int(now) + 40, unit="s")).strftime("%a, %d %b %Y %H:%M:%S GMT")},
    ],
)
def test_the_pause_that_alpaca_asks_for_is_kept(headers):
    with alpaca() as (vendor, fake, time):
        fake.busy_until, fake.busy_headers = time.seconds + 39, headers
        same(whole(vendor.pages(asking())), SETTLED)
        assert [pause for pause in time.pauses if pause > 1] == [40.0]


def test_a_429_that_lasts_is_rate_limited_after_minutes_and_says_for_how_long():
    with alpaca() as (vendor, fake, time):
        fake.busy_until = time.seconds + 10**6
        with pytest.raises(RateLimited, match=r"429 \(too many requests\.\); asked 10 times in 151 s; run again later") as caught:
            list(vendor.pages(asking()))
        assert caught.value.retry_after == 0
        assert len(fake.asked) == 10  # the client's own retries would make it 40
        assert time.waited == sum([1, 2, 4, 8, 16, 30, 30, 30, 30])


def test_a_pause_beyond_all_patience_is_not_waited_for():
    with alpaca() as (vendor, fake, time):
        fake.busy_until, fake.busy_headers = time.seconds + 3600, lambda now: {"Retry-After": "3600"}
        with pytest.raises(RateLimited, match="asked once; run again later") as caught:
            list(vendor.pages(asking()))
        assert (caught.value.retry_after, time.waited) == (3600, 0)


def test_a_header_that_cannot_be_read_says_nothing():
    with alpaca() as (vendor, fake, time):
        fake.busy_until, fake.busy_headers = time.seconds + 1, lambda now: {"Retry-After": "soon"}
        same(whole(vendor.pages(asking())), SETTLED)


@pytest.mark.parametrize(
    "fault",
    [
        (500, {"message": "internal"}),
        (502, "<html>"),
        (503, ""),
        (504, "timeout"),
        (429, {"message": "slow"}),
        (200, ""),
        "truncate",
        "cut",
    ],
    ids=str,
)
def test_a_fault_between_pages_loses_no_bar_and_doubles_none(fault):
    with alpaca(page_rows=500) as (vendor, fake, time):
        fake.faults = [None, fault, None, fault, fault]
        same(whole(vendor.pages(asking())), SETTLED)
    assert time.waited >= 1 + 1 + 2


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ((500, {"message": "internal server error"}), r"alpaca-sip answered 500 \(internal server error\); asked 10 times in 151 s"),
        ((503, "<html>\n maintenance</html>"), r"answered 503 \(<html> maintenance</html>\)"),
        ((504, "late"), r"answered 504 \(late\); asked 10 times"),
        ((502, ""), r"answered 502 \(no explanation\)"),
        ("truncate", r"could not be reached or broke off its answer \(JSONDecodeError\); asked 10 times"),
        ("cut", r"broke off its answer \(ChunkedEncodingError\)"),
        ((200, ""), "something that is not a page of bars"),
        ((200, []), "something that is not a page of bars"),
        ((200, {"message": "hello"}), r"page of bars \(KeyError: 'bars'\)"),
        ((200, {"bars": {"SPY": [{"t": "2024-01-02T15:00:00Z", "o": 1}]}, "next_page_token": None}), r"page of bars \(KeyError: 'h'\)"),
        ((200, {"bars": {"SPY": [{"t": "soon", "o": 1}]}, "next_page_token": None}), "page of bars"),
    ],
    ids=str,
)
def test_a_fault_that_lasts_is_said_in_one_sentence(fault, sentence):
    with alpaca() as (vendor, fake, _):
        fake.faults = [fault] * 20
        with pytest.raises(VendorDown, match=sentence):
            list(vendor.pages(asking()))
    assert len(fake.asked) == 10


def test_a_server_that_hangs_is_given_up():
    with alpaca(timeout_s=0.05, retry_for_s=4) as (vendor, fake, _):
        fake.faults = ["hang"] * 20
        with pytest.raises(VendorDown, match=r"did not answer within 0\.05 s; asked 3 times in 3 s"):
            list(vendor.pages(asking()))


def test_a_server_that_is_not_there_is_said_to_be_down():
    with alpaca() as (vendor, _, _):
        pass
    with pytest.raises(VendorDown, match=r"could not be reached or broke off its answer \(ConnectionError\); asked 10 times"):
        list(vendor.pages(asking()))


def test_requests_keep_below_the_limit_of_a_minute():
    """23,843 hourly bars are 143 pages; ten such symbols would run into the limit if nothing held them back."""
    bars = {"SPY": SPY.head(250)}
    with alpaca(bars, page_rows=1, per_minute=200) as (vendor, fake, time):
        same(whole(vendor.pages(asking())), bars["SPY"])
        assert len(fake.asked) == 250  # none was refused
        assert time.waited == pytest.approx(249 / 3)
    with alpaca(bars, page_rows=1, per_minute=200, requests_per_minute=600) as (vendor, fake, _):
        same(whole(vendor.pages(asking())), bars["SPY"])
        assert len(fake.asked) > 250  # some were, and nothing was lost


def test_a_build_that_failed_in_the_middle_goes_on_where_it_stopped(tmp_path):
    dataset, now = Dataset(tmp_path), pd.Timestamp(NOW)
    with alpaca(page_rows=500) as (vendor, fake, _):
        fake.faults = [None, None, None, *[(503, "")] * 20]
        with pytest.raises(VendorDown, match="1 of 1 symbols failed: SPY; SPY: alpaca-sip answered 503"):
            build(dataset, vendor, [asking()], now=now)
    with alpaca(page_rows=500) as (vendor, fake, _):
        result = build(dataset, vendor, [asking()], now=now)
        assert len(fake.asked) == -(-(len(SETTLED) + 1) // 500) - 3
    same(dataset.load(result.series[0].key).frame, SETTLED)


# --- columns


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0.01, 1e6)] * 4, st.integers(0, 10**12)), max_size=20), st.integers(0, 10**6))
def test_columns_are_those_that_alpacas_own_models_give(values, offset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # alpaca.data brings websockets.legacy along
        from alpaca.data.models.bars import BarSet
    stamps = pd.date_range(pd.Timestamp("2020-01-01", tz="UTC") + pd.Timedelta(minutes=offset), periods=len(values), freq="min", unit="us")
    rows = [
        {"t": f"{t:%Y-%m-%dT%H:%M:%SZ}", "o": o, "h": h, "l": low, "c": c, "v": v, "n": 1, "vw": c}
        for t, (o, h, low, c, v) in zip(stamps, values, strict=True)
    ]
    ours = parse_bars(rows)
    assert [str(dtype) for dtype in ours.dtypes] == ["datetime64[us, UTC]"] + ["float64"] * 5
    if rows:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pandas' to alpaca-py
            theirs = BarSet({"SPY": rows}).df.reset_index()[list(ours.columns)]
        pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
