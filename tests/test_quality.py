"""Quality of bars: every check finds the fault that was planted where it was planted, and is silent on clean bars."""

import json
import re
import subprocess
import sys
from base64 import b64decode
from dataclasses import asdict
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import figures

from ploutos.errors import ConfigError, DataError
from ploutos.market import calendar as calendars
from ploutos.market.adjustment import adjust
from ploutos.market.bars import FIELDS, align
from ploutos.market.data_spec import DataSpec
from ploutos.market.instruments import instrument
from ploutos.market.loader import load
from ploutos.market.quality import check_bars, inspect_adjustment, inspect_bars
from ploutos.market.quality_report import CHECKS, LISTED, read_quality, write_quality
from ploutos.reporting import palette, quality_page
from ploutos.reporting.quality_page import finding_rows, render_quality_report, symbol_rows, write_quality_report

DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
CME = "CME Globex Equity"
# Six weeks with the end of summer time, Thanksgiving and the early close after it.
FIRST, LAST = date(2024, 10, 21), date(2024, 12, 4)
MARKETS = [("NYSE", HOUR, 0), ("NYSE", HOUR, 30), ("NYSE", pd.Timedelta(minutes=15), 0), ("NYSE", DAY, 0), (CME, HOUR, 0), (CME, DAY, 0)]
MARKETS += [("24/7", HOUR, 0), ("24/7", DAY, 0), ("NSE", HOUR, 15)]  # Mumbai lies five hours and a half from UTC


def utc(*texts):
    return np.array(texts, dtype="datetime64[us]")


def walk(stamps, symbol="S", seed=0):
    """Clean bars at given starts: a quiet random walk that always trades."""
    random = np.random.default_rng([seed, *symbol.encode()])
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.002, len(stamps))))
    open_ = np.r_[100.0, close[:-1]]
    columns = {"open": open_, "high": np.maximum(open_, close) * 1.001, "low": np.minimum(open_, close) * 0.999, "close": close}
    times = pd.DatetimeIndex(stamps).tz_localize("UTC")
    return pd.DataFrame({"symbol": symbol, "timestamp": times, **columns, "volume": random.integers(1_000, 9_000, len(stamps)) * 1.0})


@lru_cache
def expected(*clock):
    return calendars.expected_bars(*clock)


def market(calendar="NYSE", timeframe=HOUR, minute=0, symbol="S", first=FIRST, last=LAST):
    return walk(expected(calendar, timeframe, first, last, minute), symbol)


def starts(frame):
    return frame["timestamp"].dt.tz_localize(None).to_numpy()


def found(frame, timeframe=HOUR, calendar="NYSE", **settings):
    """What an inspection finds: check to places."""
    report = inspect_bars(frame, timeframe, calendar, **settings)
    return {finding.check: finding.at.tolist() for finding in report.findings}


def scaled(frame, t, factor, fields=("open", "high", "low", "close")):
    """The bars from `t` (a position or a slice) on at another price."""
    frame = frame.copy()
    frame.loc[t, list(fields)] *= factor
    return frame


# --- what is refused


def changed(row, **values):
    frame = market()
    for name, value in values.items():
        frame.loc[row, name] = value
    return frame


@pytest.mark.parametrize("kind", ["float32", "int64"])
def test_numbers_of_any_width_pass_the_check(kind):
    frame = market()
    frame["volume"] = frame["volume"].astype(kind)
    check_bars(frame, "test")
    assert frame["volume"].dtype == kind


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (market().drop(columns=["volume", "open"]), "test has no column open, volume; expected symbol, timestamp, open, high"),
        (market().assign(close="1.0"), "test has close of type (str|object); expected .* numbers as float64"),
        (market().assign(timestamp=starts(market())), r"test has timestamp of type datetime64\[us\]; expected .*datetime64\[us, UTC\]"),
        (changed(3, timestamp=pd.NaT), "test has 1 row without a timestamp; expected none"),
        (changed(3, symbol=None), "test has 1 row without a symbol; expected none"),
        (market().iloc[::-1], "test has 220 bars out of order, first S at 2024-12-04T19:00Z.*; expected each symbol's bars by increasing"),
        (pd.concat([market(), market()[:2]]).sort_values("timestamp"), "test has 2 duplicate bars, first S at 2024-10-21T13:00Z"),
        (
            pd.concat([market(), market()[:2].assign(volume=1.0)]).sort_values("timestamp"),
            "test has 2 bars that differ from another bar of their symbol and time, first S at 2024-10-21T13:00Z",
        ),
        (changed(3, high=np.nan), "test has 1 missing or infinite value in high, first S at 2024-10-21T16:00Z"),
        (changed(3, volume=np.inf), "test has 1 missing or infinite value in volume, first S at 2024-10-21T16:00Z"),
        (changed(3, low=-1.0), "test has 1 low price of zero or less, first S at 2024-10-21T16:00Z"),
        (changed(3, high=50.0), r"test has 1 bar whose open or close lies outside low\.\.high, first S at 2024-10-21T16:00Z"),
        (changed(3, volume=-2.0), "test has 1 negative volume, first S at 2024-10-21T16:00Z.*; expected 0 or more"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_clear_sentence(frame, sentence):
    with pytest.raises(DataError, match=f"^{sentence}") as caught:
        check_bars(frame, "test")
    assert "\n" not in str(caught.value)


def test_two_sources_in_one_series_are_refused_and_two_symbols_on_two_minutes_are_not():
    clock_hours, half_hours = market(), market(minute=30)
    half = len(clock_hours) // 2
    with pytest.raises(DataError, match=r"has \d+ bars at another minute of the hour than the rest of their series, first S at .*:30Z"):
        check_bars(pd.concat([clock_hours[:half], half_hours[half + 10 :]]), "test")
    check_bars(pd.concat([clock_hours, half_hours.assign(symbol="T")]), "test")


def test_the_first_fault_in_the_order_of_the_table_is_the_one_that_is_named():
    frame = changed(3, volume=-1.0, close=-1.0)
    frame.loc[5, "timestamp"] = pd.NaT
    with pytest.raises(DataError, match="without a timestamp"):
        check_bars(frame, "test")


def test_the_check_imports_nothing_that_only_the_page_needs():
    code = "import sys, ploutos.market.quality; print(sorted({'jinja2', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_integers_that_may_be_missing_are_numbers():
    frame = market().astype({"volume": "Int64", "close": "Float64"})
    check_bars(frame, "test")
    frame.loc[3, "volume"] = pd.NA
    with pytest.raises(DataError, match="test has 1 missing or infinite value in volume"):
        check_bars(frame, "test")


def below_zero(symbol):
    """A future that falls through zero, as crude oil did on 2020-04-20."""
    frame = market(CME, DAY, symbol=symbol, first=date(2023, 1, 3))
    falling = frame.index >= 200
    frame.loc[falling, ["open", "high", "low", "close"]] -= 100
    frame.loc[210, "close"] = frame.loc[210, "low"] = -101.0
    frame.loc[211, ["open", "low"]] = 0.0
    frame.loc[211, "low"] = min(0.0, frame.loc[211, "close"])
    return frame


def test_a_future_may_cost_nothing_or_less_and_nothing_else_may():
    frame = below_zero("CL")
    check_bars(frame, "test", [instrument("CL")])
    report = inspect_bars(frame, DAY, CME, [instrument("NQ").model_copy(update={"symbol": "CL"})])
    assert report.errors == ()
    assert "close" in render_quality_report(report, frame)
    for specs in ([], [instrument("AAPL").model_copy(update={"symbol": "CL"})]):
        with pytest.raises(
            DataError, match=r"open prices of zero or less, first CL at .*; expected more than 0, as of everything but a future"
        ):
            check_bars(frame, "test", specs)


def test_a_close_below_zero_has_the_tolerance_of_its_size():
    frame = below_zero("CL")
    frame.loc[210, "low"] = -101.0 + 1e-8
    check_bars(frame, "test", [instrument("CL")])
    frame.loc[210, "low"] = -100.9
    with pytest.raises(DataError, match=r"test has 1 bar whose open or close lies outside low\.\.high, first CL"):
        check_bars(frame, "test", [instrument("CL")])


# --- minutes of the hour


def at_local_times(calendar, times, first=FIRST, last=LAST):
    """Bars at these local times of every session."""
    zone = calendars.zone_of(calendar)
    days = pd.DatetimeIndex(expected(calendar, DAY, first, last))
    stamps = pd.DatetimeIndex([day + pd.Timedelta(f"{time}:00") for day in days for time in times])
    return walk(stamps.tz_localize(zone).tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[us]"))


FULL = {"first": date(2024, 10, 7), "last": date(2024, 11, 27)}  # no early close
CLOCK = ["10:00", "11:00", "12:00", "13:00", "14:00", "15:00"]
ONE_SOURCE = {
    "a short first bar from the open": ("NYSE", ["09:30", *CLOCK]),
    "and hours before the open": ("NYSE", ["07:00", "08:00", "09:00", "09:30", *CLOCK]),
    "a short last bar, labelled by its end": ("NYSE", ["10:30", "11:30", "12:30", "13:30", "14:30", "15:30", "16:00"]),
    "two hours": ("NYSE", ["09:30", "10:00", "12:00", "14:00"]),
    "hours from the open of each half of the day": ("HKEX", ["09:30", "10:30", "11:30", "13:00", "14:00", "15:00"]),
    "hours from the open of each half, Tokyo": ("JPX", ["09:00", "10:00", "11:00", "12:30", "13:30", "14:30"]),
}


@pytest.mark.parametrize("kind", ONE_SOURCE)
def test_a_session_that_begins_between_two_bars_of_the_clock_is_one_source(kind):
    calendar, times = ONE_SOURCE[kind]
    frame = at_local_times(calendar, times, **FULL)
    check_bars(frame, "test", calendar=calendar)
    spec = instrument("AAPL").model_copy(update={"symbol": "S", "calendar": calendar})
    check_bars(frame, "test", [spec], "24/7")


def test_a_short_first_bar_is_the_bar_that_the_calendar_expects():
    frame = at_local_times("NYSE", ["09:30", *CLOCK], **FULL)
    assert found(frame) == {}
    assert found(frame.drop(index=[14, 30])) == {"gaps": utc("2024-10-09T13:00", "2024-10-11T15:00").tolist()}
    halves = at_local_times("HKEX", ["09:30", "10:30", "11:30", "13:00", "14:00", "15:00"], date(2024, 10, 14), date(2024, 11, 29))
    assert found(halves, calendar="HKEX") == {}


MIXED = {
    "a second source at noon": ("NYSE", ["09:30", *CLOCK[:3], "12:30", *CLOCK[3:]]),
    "a first bar that is late": ("NYSE", [*CLOCK, "15:20"]),
    "an hour's bar at a quarter in the morning of a day with a pause": ("HKEX", ["09:30", "10:30", "11:15", "13:00", "14:00", "15:00"]),
}


@pytest.mark.parametrize("kind", MIXED)
def test_two_sources_in_one_session_are_refused_whatever_the_calendar_says(kind):
    calendar, times = MIXED[kind]
    with pytest.raises(DataError, match="bars at another minute of the hour than the rest of their series"):
        check_bars(at_local_times(calendar, times, **FULL), "test", calendar=calendar)


@pytest.mark.parametrize(("calendar", "minutes"), [("NYSE", 30), ("24/7", 30), ("24/7", 5)])
def test_two_series_that_alternate_are_refused_though_they_look_like_shorter_bars(calendar, minutes):
    """Bars of twice the length, at every start: each goes on where the last but one ended."""
    short = market(calendar, pd.Timedelta(minutes=minutes), minute=0)
    check_bars(short, "test", calendar=calendar)
    both = short.assign(
        close=short["close"].shift(-1), high=short["high"].rolling(2).max().shift(-1), low=short["low"].rolling(2).min().shift(-1)
    )
    with pytest.raises(DataError, match="bars at another minute of the hour than the rest of their series"):
        check_bars(both[:-1], "test", calendar=calendar)


def test_without_a_calendar_a_short_first_bar_cannot_be_told():
    with pytest.raises(DataError, match=r"test has 38 bars at another minute of the hour"):
        check_bars(at_local_times("NYSE", ["09:30", *CLOCK], **FULL), "test")


# --- clean bars


@pytest.mark.parametrize(("calendar", "timeframe", "minute"), MARKETS)
def test_clean_bars_have_no_finding(calendar, timeframe, minute):
    """Early closes, holidays and both sides of a change of clocks included."""
    frame = market(calendar, timeframe, minute)
    end = calendars.available_at(starts(frame)[-1:], timeframe, calendar)[0]
    report = inspect_bars(frame, timeframe, calendar, now=pd.Timestamp(end, tz="UTC"))
    assert report.findings == ()
    assert report.summary.warnings == ()
    report.raise_errors()
    assert (report.coverage[0].n_bars, report.coverage[0].n_expected, report.coverage[0].n_missing) == (len(frame), len(frame), 0)


def test_the_clock_of_the_bars_is_found_where_it_is_not_given():
    assert inspect_bars(market()).timeframe == HOUR
    assert inspect_bars(market()).calendar == "NYSE"
    assert inspect_bars(market("NYSE", DAY)).findings == ()


def test_bars_longer_than_a_day_are_held_against_no_calendar():
    weeks = market("24/7", DAY, first=date(2022, 1, 3), last=date(2024, 12, 30))[::7]
    report = inspect_bars(weeks, 7 * DAY, "NYSE")
    assert report.findings == ()
    assert report.coverage[0].n_expected == 0
    assert symbol_rows(report.summary, daily=True)[0]["complete"] == "-"


# --- gaps


@pytest.mark.parametrize(("calendar", "timeframe", "minute"), MARKETS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_gap_finder_names_exactly_the_bars_that_were_removed(calendar, timeframe, minute, data):
    frame = market(calendar, timeframe, minute)
    inner = st.integers(1, len(frame) - 2)
    removed = sorted(data.draw(st.sets(inner, max_size=len(frame) // 3)))
    missing = found(frame.drop(index=removed), timeframe, calendar)
    assert missing.get("gaps", []) == starts(frame)[removed].tolist()


def test_gaps_are_counted_by_session_and_named_in_exchange_time_across_a_change_of_clocks():
    """09:00 in New York is 13:00 UTC on Friday 2024-11-01 and 14:00 UTC on Monday 2024-11-04."""
    frame = market()
    gone = pd.to_datetime(["2024-11-01T13:00", "2024-11-04T14:00", "2024-11-04T15:00"], utc=True)
    finding = inspect_bars(frame[~frame["timestamp"].isin(gone)], HOUR, "NYSE").findings[0]
    assert (finding.check, finding.severity, finding.count) == ("gaps", "warning", 3)
    assert finding.first == ("2024-11-01T13:00Z", "2024-11-04T14:00Z", "2024-11-04T15:00Z")
    assert re.match(r"S misses 3 of 221 bars of NYSE in 2 sessions, first 2024-11-01T13:00Z; expected each", finding.sentence)


def test_a_late_listing_is_no_gap_and_a_halt_is():
    late = market(symbol="LATE")[50:]
    halted = market(symbol="HALT").drop(index=[60, 61])
    report = inspect_bars(pd.concat([market(symbol="A"), late, halted]), HOUR, "NYSE")
    assert [(f.symbol, f.check, f.at.tolist()) for f in report.findings] == [("HALT", "gaps", starts(market())[[60, 61]].tolist())]


def test_a_calendar_that_does_not_fit_is_an_error_that_says_so():
    report = inspect_bars(market("NYSE"), HOUR, "24/7")
    assert [(f.check, f.severity) for f in report.findings] == [("gaps", "error")]
    with pytest.raises(DataError, match=r"^bars: S misses .* of 24/7 .*more than half: set data\.calendar and data\.timeframe"):
        report.raise_errors()
    crypto = inspect_bars(market("24/7"), HOUR, "NYSE")
    assert ("off_session", "error") in [(f.check, f.severity) for f in crypto.findings]
    with pytest.raises(ConfigError, match="calendar 'NASDAK' is unknown"):
        inspect_bars(market(), HOUR, "NASDAK")


def test_years_under_another_company_are_a_reuse_of_the_name_and_no_error():
    frame = market("NYSE", DAY, first=date(2018, 1, 2), last=date(2024, 12, 31))
    hole = frame.drop(index=range(100, 1600))
    report = inspect_bars(hole, DAY, "NYSE")
    assert {f.check: f.severity for f in report.findings} == {"gaps": "warning", "ticker_reuse": "warning"}
    assert report.findings[1].at.tolist() == [starts(frame)[1600].item()]


@pytest.mark.parametrize(("absent", "reused"), [(60, False), (61, True)])
def test_more_than_sixty_sessions_without_a_bar_are_a_reuse(absent, reused):
    frame = market("NYSE", DAY, first=date(2023, 1, 3), last=date(2024, 12, 31))
    assert ("ticker_reuse" in found(frame.drop(index=range(100, 100 + absent)), DAY)) == reused


def test_a_name_that_comes_back_at_half_the_price_is_not_called_a_split():
    frame = scaled(market("NYSE", DAY, first=date(2023, 1, 3), last=date(2024, 12, 31)), slice(200, None), 0.5)
    assert set(found(frame.drop(index=range(120, 200)), DAY)) == {"gaps", "ticker_reuse"}


# --- bars that should not be there


def with_bars_at(frame, *texts):
    return pd.concat([frame, walk(utc(*texts)).assign(open=100.0, high=100.0, low=100.0, close=100.0)]).sort_values("timestamp")


def test_extended_hours_are_counted_apart_from_bars_while_the_exchange_was_closed():
    """2024-11-29 closes at 13:00 in New York (18:00 UTC) and after-hours trade ends at 17:00."""
    frame = with_bars_at(
        market(), "2024-11-29T18:00", "2024-11-29T21:00", "2024-11-29T22:00", "2024-11-30T15:00", "2024-11-28T15:00", "2024-11-27T09:00"
    )
    frame.loc[frame["timestamp"] == "2024-11-29T21:00Z", "volume"] = 0.0
    places = found(frame)
    assert "zero_volume" not in places
    assert places["extended_hours"] == utc("2024-11-27T09:00", "2024-11-29T18:00", "2024-11-29T21:00").tolist()
    assert places["off_session"] == utc("2024-11-28T15:00", "2024-11-29T22:00", "2024-11-30T15:00").tolist()


def test_a_future_has_no_extended_hours_and_none_in_its_daily_pause():
    """The CME pauses from 16:00 to 17:00 in Chicago: 22:00 UTC in winter."""
    places = found(with_bars_at(market(CME), "2024-11-25T22:00", "2024-11-30T12:00"), calendar=CME)
    assert "extended_hours" not in places
    assert places["off_session"] == utc("2024-11-25T22:00", "2024-11-30T12:00").tolist()


def test_a_daily_bar_on_a_holiday_is_off_session():
    assert found(with_bars_at(market("NYSE", DAY), "2024-11-28"), DAY) == {"off_session": utc("2024-11-28").tolist()}


# --- volume


def test_zero_volume_and_stale_quotes_are_found_where_they_are():
    frame = market()
    frame.loc[[20, 100], "volume"] = 0.0
    frame.loc[40:45, ["open", "high", "low", "close"]] = frame.loc[39, "close"]
    frame.loc[40:45, "volume"] = 0.0
    places = found(frame)
    assert places["zero_volume"] == starts(frame)[[20, *range(40, 46), 100]].tolist()
    assert places["stale"] == starts(frame)[40:46].tolist()


@pytest.mark.parametrize(("n_bars", "volume", "stale"), [(4, 0.0, False), (5, 0.0, True), (9, 1.0, False)])
def test_a_quote_is_stale_after_five_bars_without_volume(n_bars, volume, stale):
    frame = market()
    frame.loc[40 : 39 + n_bars, ["open", "high", "low", "close"]] = frame.loc[39, "close"]
    frame.loc[40 : 39 + n_bars, "volume"] = volume
    assert ("stale" in found(frame)) == stale


def test_an_index_never_has_volume_and_that_is_fine():
    assert found(market().assign(volume=0.0)) == {}


def test_an_exchange_rate_has_no_volume_worth_a_finding():
    frame = market("FX").assign(volume=0.0)
    frame.loc[::7, "volume"] = 1.0
    assert found(frame, calendar="FX", instruments=[instrument("EURUSD").model_copy(update={"symbol": "S"})]) == {}
    assert set(found(frame, calendar="FX")) == {"zero_volume"}


# --- the end


@pytest.mark.parametrize(("behind", "early"), [(5, False), (6, True)])
def test_more_than_five_sessions_before_the_others_end_early(behind, early):
    days = market("NYSE", DAY, symbol="A"), market("NYSE", DAY, symbol="B")[:-behind]
    report = inspect_bars(pd.concat(days), DAY, "NYSE")
    assert [(f.symbol, f.check, f.severity) for f in report.findings] == ([("B", "ends_early", "warning")] if early else [])
    if early:
        assert report.findings[0].first == ("2024-11-25T00:00Z",)
        assert report.findings[0].sentence.startswith("B ends on 2024-11-25, 6 sessions before the others: taken as delisted and paid out;")


def test_the_end_counts_by_the_sessions_of_the_symbol():
    """A share that ends on Friday misses no session over a weekend and Monday's bars of a coin that trades through."""
    share, coin = market(symbol="A", last=date(2024, 11, 29)), market("24/7", symbol="C", last=date(2024, 12, 1))
    specs = [instrument("A"), instrument("BTC/USD").model_copy(update={"symbol": "C"})]
    assert inspect_bars(pd.concat([share, coin]), HOUR, instruments=specs).findings == ()


# --- now


def test_a_last_bar_older_than_the_last_finished_session_is_outdated():
    """The bars end on Friday 2024-11-22; Monday's session closes at 21:00 UTC, Friday's early one at 18:00 UTC."""
    frame = market(last=date(2024, 11, 22))
    monday = ("2024-11-25", "2024-11-26", "2024-11-27", "2024-11-29")
    assert found(frame, now=pd.Timestamp("2024-11-25T20:59Z")) == {}
    assert found(frame, now=pd.Timestamp("2024-11-25T21:00Z")) == {"outdated": utc(monday[0]).tolist()}
    assert found(frame, now=pd.Timestamp("2024-11-29T13:00", tz="America/New_York")) == {"outdated": utc(*monday).tolist()}
    assert found(frame) == {}


def test_a_bar_that_is_not_over_is_found():
    frame = market(last=date(2024, 11, 22))
    assert found(frame, now=pd.Timestamp("2024-11-22T20:30Z")) == {"unfinished": utc("2024-11-22T20:00").tolist()}
    daily = market("NYSE", DAY, last=date(2024, 11, 22))
    assert found(daily, DAY, now=pd.Timestamp("2024-11-22T20:59Z")) == {"unfinished": utc("2024-11-22").tolist()}


# --- prices


@settings(max_examples=25, deadline=None)
@given(t=st.integers(1, 216), factor=st.sampled_from([0.1, 0.5, 0.9, 1.1, 2.0, 10.0]), n_bars=st.sampled_from([1, 2]))
def test_a_bad_tick_is_found_and_is_no_split(t, factor, n_bars):
    frame = market()
    assert found(scaled(frame, slice(t, t + n_bars - 1), factor)) == {"bad_ticks": [starts(frame)[t].item()]}


@pytest.mark.parametrize(
    ("swing", "spike", "is_bad"),
    [
        (0.001, 0.0148, False),  # ten sigmas are 10 x 1.4826 x 0.001 = 0.0148
        (0.001, 0.0149, True),
        (0.001, -0.0149, True),
        (0.0001, 0.0049, False),  # 33 sigmas, and below the floor of half a percent
        (0.0001, 0.0051, True),
    ],
)
def test_a_jump_is_ten_sigmas_and_half_a_percent_at_least(swing, spike, is_bad):
    """Closes that swing by the same return up and down have it as their median; the spike is one bar's return."""
    frame = market()
    log_close = np.where(np.arange(len(frame)) % 2 == 1, swing, 0.0)
    log_close[100] = log_close[99] + spike
    for name in ("open", "high", "low", "close"):
        frame[name] = 100 * np.exp(log_close)
    assert found(frame) == ({"bad_ticks": [starts(frame)[100].item()]} if is_bad else {})


@pytest.mark.parametrize(("field", "factor"), [("open", 2.0), ("high", 1.5), ("low", 0.5)])
def test_a_bad_price_within_a_bar_is_found(field, factor):
    """A real one: IBM opened at 159.58 on 2002-12-23 with its neighbours near 80."""
    frame = scaled(market(), 70, factor, [field])
    frame.loc[70, "high"] = max(frame.loc[70, ["open", "high"]])
    assert found(frame) == {"bad_ticks": [starts(frame)[70].item()]}


def test_a_rally_of_the_same_size_that_stays_is_no_bad_tick():
    assert found(scaled(market(), slice(100, None), 1.1)) == {}


def test_a_fund_that_hardly_moves_is_not_jumping_when_it_moves_by_a_tick():
    frame = market()
    frame[["open", "high", "low", "close"]] = 91.50
    frame.loc[100, ["high", "close"]] = 91.51
    assert found(frame) == {}


@settings(max_examples=25, deadline=None)
@given(t=st.integers(1, 220), k=st.integers(2, 20), reverse=st.booleans())
def test_a_split_is_suspected_where_it_is_and_never_repaired(t, k, reverse):
    frame = scaled(market(), slice(t, None), k if reverse else 1 / k)
    before = frame.copy()
    assert found(frame) == {"suspected_splits": [starts(frame)[t].item()]}
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("n_bars", [1, 2])
def test_a_doubling_that_is_taken_back_is_no_split_even_where_it_is_no_jump(n_bars):
    """Closes that swing by 0.05 up and down: ten sigmas are 0.74, more than the log of 1.85."""
    frame = market()
    close = 100 * np.exp(np.where(np.arange(len(frame)) % 2 == 1, 0.05, 0.0))
    close = np.r_[close[:100], np.full(n_bars, 1.85 * close[99]), close[99 : -1 - n_bars]]  # goes on as if nothing had been
    for name in ("open", "high", "low", "close"):
        frame[name] = close
    frame.loc[100, ["open", "high"]] = 2 * close[99]
    assert found(frame) == {}


def test_the_sentence_on_a_split_does_not_claim_to_know():
    report = inspect_bars(scaled(market(), slice(100, None), 0.25), HOUR, "NYSE")
    assert "near 1/4 of the close before" in report.findings[0].sentence
    assert "check the list of corporate actions, since a crash looks the same" in report.findings[0].sentence
    assert "near 8 times the close before" in inspect_bars(scaled(market(), slice(100, None), 8.0), HOUR).findings[0].sentence


@pytest.mark.parametrize("factor", [0.6, 0.8, 1.5, 0.5 * 1.06, 0.5 / 1.06, 2 * 1.06])
def test_a_gap_that_is_no_multiple_is_no_split(factor):
    assert "suspected_splits" not in found(scaled(market(), slice(100, None), factor))


def test_the_scale_of_prices_changes_no_finding():
    frame = scaled(scaled(market(), slice(150, None), 0.5), 60, 1.3)
    assert found(frame) == found(scaled(frame, slice(None), 1000.0))
    assert set(found(frame)) == {"bad_ticks", "suspected_splits"}


# --- adjustment


def with_adj_close(factor):
    """Daily bars with a split two for one at bar 150, and their adj_close times a factor."""
    frame = market("NYSE", DAY, first=date(2024, 1, 2), last=date(2024, 12, 31))
    adj_close = frame["close"] * factor(np.arange(len(frame)))
    return adjust(scaled(frame, slice(None, 149), 2.0).assign(adj_close=adj_close), "test")


ADJUSTMENTS = {
    "right": (lambda t: 1.0 - 0.005 * (t < 100), {}),
    "an hour of another unit": (lambda t: np.where(t == 100, 25.0, 1.0), {"adjustment_jumps", "bad_ticks"}),
    "a factor that starts too late": (lambda t: np.where(t < 100, 0.037, 1.0), {"adjustment_jumps", "suspected_splits"}),
    "no factor for the split": (lambda t: np.where(t < 150, 2.0, 1.0), {"suspected_splits"}),
    "in another currency": (lambda t: np.full(len(t), 7.8), {"adjustment_level"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ADJUSTMENTS)
def test_a_wrong_adj_close_is_warned_of(kind):
    factor, checks = ADJUSTMENTS[kind]
    frame = with_adj_close(factor)
    report = inspect_bars(frame, DAY, "NYSE")
    assert [f.sentence for f in inspect_adjustment(frame)] == [f.sentence for f in report.findings if f.check.startswith("adjustment")]
    assert {f.check for f in report.findings} == set(checks)
    assert {f.check for f in report.errors} == {"adjustment_jumps"} & set(checks)  # prices times 25 are false


def test_an_adj_close_that_stands_still_is_warned_of():
    frame = market("NYSE", DAY)
    frame["adj_close"] = frame["close"].where(frame.index < 10).ffill()
    assert found(adjust(frame, "test"), DAY)["adjustment_stale"] == starts(frame)[10:].tolist()


# --- broken rows


def test_broken_rows_are_errors_by_symbol_and_the_other_checks_go_on():
    a, b = market(symbol="A"), market(symbol="B")
    a.loc[10, "close"], b.loc[20, "volume"], b.loc[30, "low"] = np.nan, -1.0, 0.0
    frame = pd.concat([a, b, b[40:41]]).sort_values(["symbol", "timestamp"])
    report = inspect_bars(frame, HOUR, "NYSE")
    errors = {(f.symbol, f.check): f.at.tolist() for f in report.errors}
    times = starts(market())
    assert errors == {
        ("A", "missing"): [times[10].item()],
        ("B", "duplicates"): [times[40].item()],
        ("B", "not_positive"): [times[30].item()],
        ("B", "negative_volume"): [times[20].item()],
    }
    assert [(f.symbol, f.check, f.at.tolist()) for f in report.findings if f.severity == "warning"] == [
        ("A", "gaps", [times[10].item()]),
        ("B", "gaps", times[[20, 30]].tolist()),
    ]
    with pytest.raises(DataError, match=r"^bars: A has 1 missing or infinite value in close.*\(and 3 more errors\)$"):
        report.raise_errors()


def test_bars_out_of_order_are_an_error_and_hide_no_bar():
    frame = market()
    swapped = frame.iloc[[*range(50), 51, 50, *range(52, len(frame))]]
    assert found(swapped) == {"order": [starts(frame)[50].item()]}


def test_a_row_without_a_time_is_an_error_without_a_place():
    frame = changed(3, timestamp=pd.NaT)
    report = inspect_bars(frame, HOUR, "NYSE")
    assert [(f.check, f.count, f.first) for f in report.errors] == [("no_timestamp", 1, ())]
    assert "no_timestamp" in render_quality_report(report, frame)


def test_what_cannot_be_inspected_at_all_is_one_clear_sentence():
    with pytest.raises(DataError, match="mine holds no bars; expected at least one"):
        inspect_bars(market()[:0], HOUR, "NYSE", source="mine")
    with pytest.raises(DataError, match="mine has no column close; expected symbol"):
        inspect_bars(market().drop(columns="close"), HOUR, "NYSE", source="mine")
    with pytest.raises(DataError, match="mine has 221 missing or infinite values in close"):
        inspect_bars(market().assign(close=np.nan), HOUR, "NYSE", source="mine")


# --- panels


def test_each_symbol_is_held_against_its_own_calendar():
    frames = [market(symbol="AAPL"), market(CME, symbol="NQ"), market("24/7", symbol="BTC/USD")]
    frame = pd.concat(frames).sort_values(["symbol", "timestamp"])
    specs = [instrument(symbol) for symbol in ("AAPL", "NQ", "BTC/USD")]
    assert inspect_bars(frame, HOUR, instruments=specs).findings == ()
    bars = align(frame, HOUR, "NYSE", "mixed", specs)
    report = inspect_bars(bars)
    assert report.findings == ()
    assert [(entry.symbol, entry.calendar) for entry in report.coverage] == [("AAPL", "NYSE"), ("BTC/USD", "24/7"), ("NQ", CME)]


def test_aligned_bars_and_their_long_frame_have_the_same_findings():
    frame = pd.concat([market(symbol="A").drop(index=[5, 9]), scaled(market(symbol="B")[30:], 60, 1.3)])
    from_frame = inspect_bars(frame, HOUR, "NYSE")
    from_bars = inspect_bars(align(frame, HOUR, "NYSE", "two shares"))
    assert from_bars.source == "two shares"
    assert [(f.symbol, f.check, f.at.tolist()) for f in from_bars.findings] == [
        (f.symbol, f.check, f.at.tolist()) for f in from_frame.findings
    ]
    assert len(from_bars.findings) == 2


def test_other_symbols_change_no_finding():
    alone = scaled(market(symbol="B").drop(index=[5, 9]), 60, 1.3)
    report = inspect_bars(pd.concat([market("24/7", symbol="A"), alone, market(symbol="C")[90:]]), HOUR, "NYSE")
    assert {f.check: f.at.tolist() for f in report.findings if f.symbol == "B"} == found(alone)


# --- the shipped sample


def test_the_raw_sample_shows_its_splits_and_the_adjusted_one_none():
    """Real splits: AAPL 2:1 on 2000-06-21 and 2005-02-28, MSFT 2:1 on 2003-02-18. AAPL halved on 2000-09-29 by a warning
    on its profits, and its open of 28.19 after 53.50 is just not near enough to a half. FB, listed in 2012, has no gap.
    AAPL's low of 2010-05-06 is the flash crash, which looks like a bad tick."""
    raw, adjusted = inspect_bars(load(DataSpec(adjustment="raw"))), inspect_bars(load(DataSpec()))
    crash = ("AAPL", "bad_ticks", utc("2010-05-06").tolist())
    splits = [("AAPL", utc("2000-06-21", "2005-02-28").tolist()), ("MSFT", utc("2003-02-18").tolist())]
    assert [(f.symbol, f.check, f.at.tolist()) for f in adjusted.findings] == [crash]
    assert [(f.symbol, f.at.tolist()) for f in raw.findings if f.check == "suspected_splits"] == splits
    assert [(f.symbol, f.check, f.at.tolist()) for f in raw.findings if f.check != "suspected_splits"] == [crash]
    assert raw.errors == ()
    assert sum(entry.n_bars for entry in raw.coverage) == sum(entry.n_expected for entry in raw.coverage) == 12_154


# --- what people and manifests get


@pytest.fixture(scope="module")
def troubled():
    frames = [scaled(market(symbol=f"S{s:02}").drop(index=range(30, 45)), slice(100, None), 0.5) for s in range(40)]
    frame = pd.concat(frames, ignore_index=True)
    frame.loc[0, "volume"] = -1.0
    return inspect_bars(frame, HOUR, "NYSE", source="<forty> symbols"), frame


def test_warnings_travel_as_a_little_json_however_many_symbols_there_are(troubled, tmp_path):
    report, _ = troubled
    write_quality(report.summary, tmp_path / "quality.json")
    assert read_quality(tmp_path / "quality.json") == report.summary
    warnings = report.summary.warnings
    assert len(json.dumps([asdict(warning) for warning in warnings])) < 2_000
    assert [(w.check, w.count, w.n_symbols) for w in warnings] == [("gaps", 600, 40), ("suspected_splits", 40, 40)]
    assert all(len(w.first) == len(w.symbols) == LISTED for w in warnings)
    assert warnings[0].first[0] == "S00 " + str(starts(market())[30].astype("datetime64[m]")) + "Z"
    assert warnings[0].sentence.endswith("(and 39 other symbols)")


def test_the_tables_hold_every_finding_errors_first_and_every_symbol(troubled):
    report, _ = troubled
    findings, symbols = finding_rows(report), symbol_rows(report.summary, daily=False)
    assert len(findings) == len(report.findings) == 81
    assert (findings[0]["symbol"], findings[0]["check"], findings[0]["severity"], findings[0]["count"]) == (
        "S00",
        "negative_volume",
        "error",
        "1",
    )
    assert [row["symbol"] for row in symbols] == [f"S{s:02}" for s in range(40)]
    assert (symbols[1]["bars"], symbols[1]["expected"], symbols[1]["missing"], symbols[1]["complete"]) == ("206", "221", "15", "93.21%")
    assert (symbols[0]["errors"], symbols[0]["warnings"]) == ("1", "2")
    assert all(isinstance(cell, str) for row in [*findings, *symbols] for cell in row.values())


def test_every_finding_has_a_check_that_the_page_explains(troubled):
    report, _ = troubled
    assert {finding.check for finding in report.findings} <= set(CHECKS)


@pytest.mark.parametrize("aligned", [False, True])
def test_the_page_is_one_file_that_needs_nothing_else(tmp_path, aligned):
    frame = scaled(market().drop(index=[30]), slice(100, None), 0.5)
    bars = align(frame, HOUR, "NYSE", "<mine> & theirs") if aligned else frame
    report = inspect_bars(bars, HOUR, "NYSE", source="<mine> & theirs")
    write_quality_report(report, bars, tmp_path / "quality.html")
    page = (tmp_path / "quality.html").read_text()
    outside_plotly = page[: page.index('id="plotly"')] + json.dumps(figures(page))
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", outside_plotly)
    assert "&lt;mine&gt; &amp; theirs" in page
    assert "<mine>" not in page
    for text in ("gaps (1)", "suspected_splits (1)", "the list of corporate actions", "number of bars of every session"):
        assert text in outside_plotly


def test_no_two_checks_look_alike_and_every_colour_has_a_lighter_twin_for_dark_pages():
    marks = [(mark["color"], mark["symbol"]) for mark in quality_page._MARKS.values()]
    assert list(quality_page._MARKS) == list(CHECKS)
    assert len(set(marks)) == len(marks)
    script = Path(quality_page.__file__).with_name("page.js.j2").read_text()
    dark = re.search(r"on_dark = \{(.*?)\}", script)[1]
    assert set(re.findall(r'"(#\w{6})":', dark)) == {*palette.COLOURS, palette.GREY, palette.INK, palette.WHITE}


def unpacked(packed):
    return np.frombuffer(b64decode(packed["bdata"]), dtype=packed["dtype"])


def test_every_symbol_of_the_page_has_its_marks_at_the_price_beside_them():
    from ploutos.reporting.quality_page import _bars_per_session, _traces

    frame = market().drop(index=[30])
    report = inspect_bars(frame, HOUR, "NYSE")
    stamps, close = starts(frame), frame["close"].to_numpy()
    line, marks, strip = _traces(report, report.findings, "NYSE", stamps, close)
    assert len(unpacked(line["x"])) == len(frame)
    assert unpacked(marks["x"]).astype("datetime64[ms]").tolist() == starts(market())[[30]].astype("datetime64[ms]").tolist()
    np.testing.assert_allclose(unpacked(marks["y"]), [frame.loc[29, "close"]], rtol=1e-6)
    days, counts = _bars_per_session(stamps, report, "NYSE")
    per_day = dict(zip(days.astype(str).tolist(), counts.tolist(), strict=True))
    assert strip["z"][0] == counts.tolist()
    assert (per_day["2024-10-25"], per_day["2024-11-29"]) == (6.0, 4.0)
    assert "2024-11-28" not in per_day


def test_a_long_line_is_thinned_and_keeps_its_spikes_and_its_ends():
    from ploutos.reporting.lines import POINTS, thinned

    values = np.sin(np.arange(300_000) / 5_000)
    values[[77_777, 222_222]] = 9.0, -9.0
    kept = thinned(values)
    assert len(kept) <= POINTS
    assert {0, 77_777, 222_222, 299_999} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()


def test_the_page_says_what_it_leaves_out(monkeypatch):
    from ploutos.reporting import quality_page

    frames = [market(symbol=f"S{s}").drop(index=range(30, 45) if s == 3 else []) for s in range(5)]
    frame = pd.concat(frames, ignore_index=True)
    for name, bound in {"ROWS": 4, "FIGURES": 2, "MARKERS": 10}.items():
        monkeypatch.setattr(quality_page, name, bound)
    page = render_quality_report(inspect_bars(frame, HOUR, "NYSE"), frame)
    page = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)
    assert "1 more row left out here" in page
    assert re.findall("<h2>(S.)</h2>", page) == ["S3", "S0"]
    assert "3 other symbols left out" in page
    assert "gaps (15, 10 shown)" in json.dumps(figures(page))


def test_a_huge_report_is_a_small_page():
    """One symbol's bars stand for 60 symbols, each with two thousand bad prices."""
    frame = market("NYSE", pd.Timedelta(minutes=15), first=date(2022, 1, 3))
    frame.loc[::8, "volume"] = 0.0
    frame.loc[5::20, ["close", "high"]] *= 1.5
    frames = [frame.assign(symbol=f"S{s:02}") for s in range(60)]
    frame = pd.concat(frames, ignore_index=True)
    assert len(frame) > 1_000_000
    report = inspect_bars(frame, pd.Timedelta(minutes=15), "NYSE")
    assert len(render_quality_report(report, frame)) < 10_000_000


def test_a_panel_of_fields_is_left_as_it_was():
    frame = market()
    before = {name: frame[name].copy() for name in FIELDS}
    inspect_bars(frame, HOUR, "NYSE")
    check_bars(frame, "test")
    for name in FIELDS:
        pd.testing.assert_series_equal(frame[name], before[name])


@pytest.mark.parametrize(("calendar", "timeframe"), [("NYSE", "2h"), ("NYSE", "4h"), ("FX", "4h"), ("CME Globex Equity", "2h")])
def test_bars_of_hours_that_lie_on_their_own_grid_are_no_error(calendar, timeframe):
    step = pd.Timedelta(timeframe)
    stamps = calendars.expected_bars(calendar, step, date(2024, 1, 2), date(2024, 3, 28), 30 if calendar == "NYSE" else 0)
    close = 100 + np.arange(len(stamps)) % 7.0
    frame = pd.DataFrame(
        {"symbol": "A", "timestamp": pd.DatetimeIndex(stamps).tz_localize("UTC"), **dict.fromkeys(("open", "high", "low"), close)}
    )
    frame = frame.assign(close=close, volume=1.0)
    assert inspect_bars(frame, step, calendar).errors == ()


def test_a_thin_symbol_misses_bars_and_is_no_error():
    stamps = calendars.expected_bars("NYSE", pd.Timedelta("5min"), date(2024, 1, 2), date(2024, 3, 28))
    kept = np.sort(np.random.default_rng(1).choice(len(stamps), len(stamps) // 4, replace=False))
    frame = pd.DataFrame({"symbol": "A", "timestamp": pd.DatetimeIndex(stamps[kept]).tz_localize("UTC")})
    frame = frame.assign(open=10.0, high=10.0, low=10.0, close=10.0, volume=1.0)
    found = inspect_bars(frame, pd.Timedelta("5min"), "NYSE")
    assert found.errors == ()
    assert "gaps" in {finding.check for finding in found.findings}


def test_a_future_in_its_day_session_alone_misses_bars_and_is_no_error():
    stamps = calendars.expected_bars("CME Globex Equity", pd.Timedelta("5min"), date(2024, 1, 3), date(2024, 2, 28))
    hours = pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert("America/Chicago")
    day = (hours.hour * 60 + hours.minute >= 510) & (hours.hour < 15)
    frame = pd.DataFrame({"symbol": "ES=F", "timestamp": pd.DatetimeIndex(stamps[day]).tz_localize("UTC")})
    frame = frame.assign(open=10.0, high=10.0, low=10.0, close=10.0, volume=1.0)
    found = inspect_bars(frame, pd.Timedelta("5min"), "CME Globex Equity")
    assert found.errors == ()
    assert "gaps" in {finding.check for finding in found.findings}
