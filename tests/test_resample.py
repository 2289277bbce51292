"""Longer bars of shorter ones: which are whole, judged over all symbols, and what does not divide."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from ploutos.errors import DataError
from ploutos.market.bars import align, find_change, infer_timeframe
from ploutos.market.calendar import DAY, MONTH, WEEK, expected_bars
from ploutos.market.resample import resample

HOUR = pd.Timedelta(hours=1)


def table(stamps, step, symbol="A"):
    stamps = pd.DatetimeIndex(stamps).as_unit("us").tz_localize("UTC")
    close = np.arange(100.0, 100.0 + len(stamps))
    prices = {"open": close - 0.5, "high": close + 1, "low": close - 1, "close": close, "volume": 10.0}
    return pd.DataFrame({"symbol": symbol, "timestamp": stamps, "available_at": stamps + step, **prices})


def hours(first, last, symbol="A"):
    return table(expected_bars("NYSE", HOUR, first, last, minute=30), HOUR, symbol)


def labels(frame):
    return frame["timestamp"].dt.strftime("%Y-%m-%d %H:%M").tolist()


def test_a_symbol_that_trades_rarely_is_as_complete_as_the_others():
    often, rare = hours(date(2024, 3, 4), date(2024, 3, 8)), hours(date(2024, 3, 4), date(2024, 3, 8), "RARE").iloc[[3, 10, 17]]
    days = resample(pd.concat([often, rare]), HOUR, DAY, "NYSE")
    assert days.groupby("symbol").size().to_dict() == {"A": 5, "RARE": 3}
    assert days.attrs["left_out"] == {}
    alone = resample(rare, HOUR, DAY, "NYSE")
    assert (len(alone), alone.attrs["left_out"]) == (0, {"RARE": 3})


def test_a_new_listing_has_a_week_where_the_panel_has():
    panel = pd.concat([hours(date(2024, 3, 4), date(2024, 3, 15)), hours(date(2024, 3, 13), date(2024, 3, 15), "NEW")])
    weeks = resample(panel, HOUR, WEEK, "NYSE")
    assert labels(weeks) == ["2024-03-04 00:00", "2024-03-11 00:00", "2024-03-11 00:00"]
    assert weeks["symbol"].tolist() == ["A", "A", "NEW"]
    assert weeks["volume"].tolist() == [350, 350, 210]


@pytest.mark.parametrize(("wanted", "kept"), [("2h", 2), ("4h", 1)])
def test_the_bar_that_the_data_end_within_is_left_out(wanted, kept):
    stamps = pd.date_range("2024-03-04", periods=2 * kept + 1 if wanted == "2h" else 7, freq="h")
    bars = resample(table(stamps, HOUR), HOUR, pd.Timedelta(wanted), "24/7")
    assert (len(bars), bars.attrs["left_out"]) == (kept, {"A": 1})


def test_a_day_without_its_last_bar_is_left_out_at_the_end_alone():
    frame = table(expected_bars("NYSE", pd.Timedelta("30min"), date(2024, 3, 4), date(2024, 3, 6)), pd.Timedelta("30min"))
    gone = frame.drop(index=[12, 38])  # the last half hour of the first and of the third day
    assert labels(resample(gone, pd.Timedelta("30min"), DAY, "NYSE")) == ["2024-03-04 00:00", "2024-03-05 00:00"]


def test_days_round_the_clock_keep_the_phase_of_their_hours():
    half_past = table(pd.date_range("2024-03-03 23:30", periods=72, freq="h"), HOUR)
    days = resample(half_past, HOUR, DAY, "24/7")
    assert labels(days) == ["2024-03-04 00:30", "2024-03-05 00:30"]
    assert days["available_at"].max() == pd.Timestamp("2024-03-06 00:30", tz="UTC")
    with pytest.raises(DataError, match=r"A's bar of 2024-03-03 23:30Z begins in one week and ends in the next; .* leave data\.timeframe"):
        resample(half_past, HOUR, WEEK, "24/7")


def test_weeks_do_not_make_months():
    with pytest.raises(DataError, match=r"A has weekly bars, which lie across months; leave data\.timeframe out, or set it to 1W"):
        resample(table(pd.date_range("2024-01-01", periods=9, freq="7D"), WEEK), WEEK, MONTH, "NYSE")


# --- lengths


@pytest.mark.parametrize(("days", "length"), [(1, DAY), (3, DAY), (6, WEEK), (8, WEEK), (28, MONTH), (31, MONTH)])
def test_days_weeks_and_months_are_told_by_their_steps(days, length):
    assert infer_timeframe(pd.Series(pd.date_range("2024-01-01", periods=9, freq=f"{days}D"))) == length


@pytest.mark.parametrize("days", [5, 10, 14, 15, 26, 33])
def test_bars_of_other_lengths_are_refused(days):
    with pytest.raises(DataError, match=rf"found bars {days} days apart; expected bars of days, weeks or months"):
        infer_timeframe(pd.Series(pd.date_range("2024-01-01", periods=9, freq=f"{days}D")))


def test_a_change_of_length_is_found_and_a_thin_series_has_none():
    days, later = pd.date_range("2023-10-01", "2023-12-31", freq="D"), pd.date_range("2024-01-01", periods=500, freq="h")
    assert find_change(pd.Series(days.append(later))) == (pd.Timestamp("2024-01-01"), DAY, HOUR)
    back = pd.date_range("2024-01-01", periods=300, freq="5min").append(pd.date_range("2024-01-02 01:00", periods=60, freq="15min"))
    assert find_change(pd.Series(back)) == (pd.Timestamp("2024-01-02 01:00"), pd.Timedelta("5min"), pd.Timedelta("15min"))
    minutes = expected_bars("NYSE", pd.Timedelta("1min"), date(2024, 1, 2), date(2024, 6, 28))
    random = np.random.default_rng(0)
    for share in (0.02, 0.1, 0.3, 0.6, 0.95):
        assert find_change(pd.Series(minutes[random.random(len(minutes)) < share])) is None
    for calendar, minute in (("NYSE", 0), ("NYSE", 30), ("HKEX", 30), ("FX", 0), ("CME Globex Equity", 0)):
        for step in ("30min", "1h", "2h", "4h"):
            assert find_change(pd.Series(expected_bars(calendar, pd.Timedelta(step), date(2023, 1, 2), date(2024, 1, 31), minute))) is None


# --- one clock


def test_two_bars_of_one_symbol_and_time_are_never_one():
    twice = table(["2024-03-04", "2024-03-05", "2024-03-05"], DAY)
    with pytest.raises(DataError, match=r"A has 1 bar that begins when another one does, first 2024-03-05T00:00Z; .* data\.timeframe"):
        align(twice, DAY, "NYSE", "mine")


def test_a_symbol_that_overlaps_itself_is_named_once():
    with pytest.raises(DataError, match=r"A has overlapping bars of one symbol: that of 2024-03-04 10:00Z is known at 2024-03-04 11:00Z"):
        align(table(["2024-03-04 10:00", "2024-03-04 10:30"], HOUR), HOUR, "NYSE", "mine")
