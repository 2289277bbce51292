"""Macro series: known when published, on any clock they come in, and nan rather than a guess."""

from datetime import date, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.fake_fred import fake_fred

from ploutos.errors import ConfigError, DataError, NoData, VendorDown
from ploutos.features.macro_features import BROAD_DOLLAR_NAMES, NAMES, compute, macro_columns
from ploutos.market.bars import align
from ploutos.market.calendar import expected_bars
from ploutos.market.macro import SERIES, align_to_ticker, fetch_fred, join_series, publish, read_macro

DAY, HOUR, QUARTER = pd.Timedelta(days=1), pd.Timedelta(hours=1), pd.Timedelta(minutes=15)
REAL = Path(__file__).parent / "data" / "macro"


def new_york(*texts):
    return pd.DatetimeIndex(texts).tz_localize("America/New_York")


def daily(values, first="2024-01-02", name="vix"):
    """Values on NYSE sessions from `first` on, stamped with naive dates."""
    sessions = expected_bars("NYSE", DAY, pd.Timestamp(first).date(), date(2030, 12, 31))[: len(values)]
    return pd.DataFrame({"timestamp": sessions, name: np.asarray(values, dtype=float)})


def bars_of(timeframe, first, last, minute=0):
    stamps = pd.DatetimeIndex(expected_bars("NYSE", timeframe, first, last, minute)).tz_localize("UTC")
    frame = pd.DataFrame({"symbol": "A", "timestamp": stamps, **dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)})
    return align(frame, timeframe, "NYSE", "test")


def seen(macro, *moments, **arguments):
    """What is known of the only series at these moments."""
    return align_to_ticker(macro, new_york(*moments), **arguments).iloc[:, 1].tolist()


JANUARY = daily([13.20, 14.04, 14.13, 13.35, 13.08])  # 2024-01-02, a Tuesday, to 01-08


# --- the crash, and the silent zero


def seed_frames():
    """What the seed had: naive daily macro in seconds, from Yahoo, and hourly bars in UTC microseconds, from a CSV."""
    macro = JANUARY.set_index(pd.DatetimeIndex(JANUARY["timestamp"]).as_unit("s"))[["vix"]]
    bars = bars_of(HOUR, date(2024, 1, 3), date(2024, 1, 5))
    return macro, bars, pd.DatetimeIndex(bars.timestamps).tz_localize("UTC")


def test_the_expression_that_crashed_still_crashes_and_ours_does_not():
    macro, bars, bars_index = seed_frames()
    assert (macro.index.dtype, bars_index.dtype) == ("datetime64[s]", "datetime64[us, UTC]")
    with pytest.raises(TypeError, match=r"Cannot compare dtypes datetime64\[s\] and datetime64\[us, UTC\]"):
        macro.reindex(bars_index, method="ffill")
    assert align_to_ticker(macro, bars)["vix"].tolist() == [13.20] * 7 + [14.04] * 7 + [14.13] * 7


def test_the_expression_that_silently_gave_a_vix_of_zero_still_does_and_ours_does_not():
    macro, bars, bars_index = seed_frames()
    filled = macro.reindex(bars_index).ffill()
    assert filled["vix"].isna().all()
    assert (filled.bfill().fillna(0.0)["vix"] == 0).all()
    assert (align_to_ticker(macro, bars)["vix"] > 13).all()


UNITS = st.sampled_from(["s", "ms", "us", "ns"])
ZONES = st.sampled_from([None, "UTC", "America/New_York", "America/Chicago", "Europe/Berlin", "Asia/Tokyo", "Australia/Sydney", "-05:00"])
SESSIONS = daily(np.linspace(12, 40, 30), "2024-02-20")  # over the start of summer time
CLOCK = expected_bars("NYSE", QUARTER, date(2024, 2, 15), date(2024, 4, 9)) + np.timedelta64(15, "m")


@settings(max_examples=80, deadline=None)
@given(
    unit=UNITS, zone=ZONES, midnight=st.sampled_from(["exchange", "UTC", "own"]), bars_unit=UNITS, bars_zone=ZONES, as_column=st.booleans()
)
def test_units_and_zones_of_either_side_change_nothing(unit, zone, midnight, bars_unit, bars_zone, as_column):
    """A session may be written as midnight in New York or UTC and carried in any zone, or as midnight of the zone itself."""
    dates = pd.DatetimeIndex(SESSIONS["timestamp"])
    if zone is None:
        index = dates
    elif midnight == "own":
        index = dates.tz_localize(zone)
    else:
        index = dates.tz_localize("America/New_York" if midnight == "exchange" else "UTC").tz_convert(zone)
    macro = SESSIONS[["vix"]].set_index(index.as_unit(unit))
    moments = pd.DatetimeIndex(CLOCK)
    moments = moments if bars_zone is None else moments.tz_localize("UTC").tz_convert(bars_zone)
    found = align_to_ticker(macro.rename_axis("date").reset_index() if as_column else macro, moments.as_unit(bars_unit))
    pd.testing.assert_frame_equal(found, align_to_ticker(SESSIONS, CLOCK))
    assert found.dtypes.astype(str).tolist() == ["datetime64[us, UTC]", "float64"]
    assert found["vix"].notna().sum() > 700


def test_dates_and_texts_are_stamps_too():
    expected = align_to_ticker(JANUARY, CLOCK)
    for stamps in (
        JANUARY["timestamp"].dt.date,
        JANUARY["timestamp"].dt.strftime("%Y-%m-%d"),
        JANUARY["timestamp"].dt.strftime("%Y-%m-%dT00:00-05:00"),
    ):
        pd.testing.assert_frame_equal(align_to_ticker(JANUARY.assign(timestamp=stamps), CLOCK), expected)


def test_texts_whose_offset_changes_with_summer_time_are_read():
    texts = pd.DatetimeIndex(SESSIONS["timestamp"]).tz_localize("America/New_York").map(lambda stamp: stamp.isoformat())
    assert len({text[-6:] for text in texts}) == 2
    pd.testing.assert_frame_equal(align_to_ticker(SESSIONS.assign(timestamp=texts), CLOCK), align_to_ticker(SESSIONS, CLOCK))


# --- when a value is known


def test_a_bar_sees_the_vix_of_its_own_day_only_from_a_quarter_past_four():
    """VIX closed at 13.20 on 2024-01-02 and at 14.04 on 01-03."""
    found = seen(
        JANUARY, "2024-01-03 09:30", "2024-01-03 15:00", "2024-01-03 16:00", "2024-01-03 16:14", "2024-01-03 16:15", "2024-01-03 17:00"
    )
    assert found == [13.20, 13.20, 13.20, 13.20, 14.04, 14.04]


def test_a_bar_is_joined_by_its_end_and_not_by_its_start():
    bars = bars_of(HOUR, date(2024, 1, 3), date(2024, 1, 3), minute=30)
    found = align_to_ticker(JANUARY, bars)
    ends = found["available_at"].dt.tz_convert("America/New_York").dt.strftime("%H:%M").tolist()
    assert dict(zip(ends, found["vix"], strict=True)) == dict.fromkeys(ends[:-1], 13.20) | {"16:30": 14.04}
    assert ends[0] == "10:30"


def test_a_daily_bar_sees_the_yield_of_its_day_and_vix_and_dollar_of_the_day_before():
    """It is known at 16:00: after the yield stops at 15:00, before VIX at 16:15 and the dollar index at 17:00."""
    macro = pd.DataFrame(
        {"date": pd.to_datetime(["2024-01-02", "2024-01-03"]), "^VIX": [13.20, 14.04], "^TNX": [3.94, 3.91], "DX-Y.NYB": [102.2, 102.5]}
    )
    found = align_to_ticker(macro, bars_of(DAY, date(2024, 1, 3), date(2024, 1, 3)))
    assert found.drop(columns="available_at").to_dict("records") == [{"vix": 13.20, "us10y": 3.91, "dxy": 102.2}]


@pytest.mark.parametrize(
    ("identifier", "session", "known"),
    [
        ("VIXCLS", "2024-01-04", "2024-01-05 12:00"),
        ("VIXCLS", "2024-01-05", "2024-01-08 12:00"),  # a Friday
        ("VIXCLS", "2024-10-14", "2024-10-15 12:00"),  # Columbus Day: the exchange is open, the Fed is not
        ("DGS10", "2024-07-03", "2024-07-05 17:30"),
        ("DGS10", "2024-03-08", "2024-03-11 17:30"),  # clocks change between
        ("DTWEXBGS", "2024-01-22", "2024-01-29 17:30"),  # a Monday, in the release of the next
        ("DTWEXBGS", "2024-01-08", "2024-01-16 17:30"),  # the next Monday is Martin Luther King's
        ("^VIX", "2024-07-03", "2024-07-03 16:15"),
    ],
)
def test_a_value_is_known_from_its_publication_on(identifier, session, known):
    macro = pd.DataFrame({"date": [session], identifier: [5.0]})
    moment = pd.Timestamp(known)
    before, at = seen(macro, moment - pd.Timedelta(minutes=1), moment)
    assert np.isnan(before)
    assert at == 5.0


def test_a_column_named_by_series_takes_the_provider_that_is_named():
    assert seen(JANUARY[:1], "2024-01-02 16:15", "2024-01-03 12:00") == [13.20, 13.20]
    np.testing.assert_array_equal(seen(JANUARY[:1], "2024-01-02 16:15", "2024-01-03 12:00", provider="fred"), [np.nan, 13.20])


def test_intraday_values_are_known_at_the_end_of_their_bar():
    macro = pd.DataFrame({"timestamp": pd.to_datetime(["2024-01-03 09:30", "2024-01-03 10:30"]), "^VIX": [13.5, 13.9]})
    np.testing.assert_array_equal(
        seen(macro, "2024-01-03 10:29", "2024-01-03 10:30", "2024-01-03 11:30", timeframe=HOUR), [np.nan, 13.5, 13.9]
    )
    aware = macro.assign(timestamp=macro["timestamp"].dt.tz_localize("America/New_York").dt.tz_convert("UTC"))
    assert seen(aware, "2024-01-03 10:30", timeframe=HOUR) == [13.5]
    assert seen(macro, "2024-01-03 05:30", timeframe=HOUR, zone="UTC") == [13.5]
    with pytest.raises(DataError, match=r"two values for 2024-01-03.*timeframe"):
        align_to_ticker(macro, CLOCK)


def test_a_midnight_bar_of_intraday_values_is_an_hour_and_not_a_date():
    macro = pd.DataFrame({"timestamp": pd.to_datetime(["2024-01-03 00:00"]), "dxy": [102.0]})
    np.testing.assert_array_equal(seen(macro, "2024-01-03 00:59", "2024-01-03 01:00", timeframe=HOUR), [np.nan, 102.0])


def test_weekends_holidays_and_missing_days_keep_the_last_published_value():
    """No value on Friday 2024-01-12; Monday 01-15 was a holiday."""
    macro = pd.DataFrame({"date": pd.to_datetime(["2024-01-11", "2024-01-12", "2024-01-16"]), "vix": [12.44, np.nan, 13.84]})
    found = seen(macro, "2024-01-12 17:00", "2024-01-13 12:00", "2024-01-15 12:00", "2024-01-16 16:00", "2024-01-16 16:15")
    assert found == [12.44, 12.44, 12.44, 12.44, 13.84]


def test_a_value_holds_seven_days_after_its_publication_and_nothing_is_filled_back():
    macro = daily([13.20])
    found = seen(macro, "2024-01-02 16:14", "2024-01-09 16:15", "2024-01-09 16:16")
    np.testing.assert_array_equal(found, [np.nan, 13.20, np.nan])
    assert seen(macro, "2024-01-10 12:00", tolerance=pd.Timedelta(days=8)) == [13.20]


def test_the_week_after_the_eleventh_of_september_has_the_vix_of_the_tenth():
    macro = pd.DataFrame({"date": ["2001-09-10", "2001-09-17"], "vix": [31.84, 41.76]})
    assert seen(macro, "2001-09-17 09:30", "2001-09-17 16:00", "2001-09-17 16:15") == [31.84, 31.84, 41.76]


def test_a_real_vix_over_the_day_of_mourning():
    """2018-12-05 had no session: 20.74 on the 4th stood until the 6th closed at 21.19."""
    found = seen(
        read_macro(REAL / "vix.csv"), "2018-12-05 12:00", "2018-12-06 15:00", "2018-12-06 16:15", "2018-12-24 17:00", "2018-12-26 16:00"
    )
    assert found == [20.74, 20.74, 21.19, 36.07, 36.07]


def test_moments_in_any_order_get_their_own_values():
    order = np.random.default_rng(1).permutation(len(CLOCK))
    shuffled = align_to_ticker(SESSIONS, CLOCK[order])
    pd.testing.assert_frame_equal(shuffled, align_to_ticker(SESSIONS, CLOCK).iloc[order].reset_index(drop=True))


# --- the future


@settings(max_examples=40, deadline=None)
@given(t=st.integers(0, len(CLOCK) - 1), seed=st.integers(0, 99), cut=st.booleans())
def test_macro_published_after_a_bar_is_known_changes_nothing_at_or_before_it(t, seed, cut):
    macro = SESSIONS.assign(us10y=4 + SESSIONS["vix"] / 100, dxy=100 + SESSIONS["vix"])
    other = macro.copy()
    for name, frame in publish(macro).items():
        late = (frame["published_at"] > pd.Timestamp(CLOCK[t], tz="UTC")).to_numpy()
        other.loc[late, name] = np.nan if cut else np.random.default_rng(seed).uniform(1, 90, late.sum())
    for function in (align_to_ticker, macro_columns):
        before, after = function(macro, CLOCK), function(other, CLOCK)
        pd.testing.assert_frame_equal(after[: t + 1], before[: t + 1])
        assert t > len(CLOCK) - 300 or not after[t + 1 :].equals(before[t + 1 :])


@settings(max_examples=20, deadline=None)
@given(t=st.integers(1, len(CLOCK) - 1), delay=st.integers(1, 10_000))
def test_bars_after_a_bar_change_nothing_at_or_before_it(t, delay):
    whole = macro_columns(SESSIONS, CLOCK)
    moved = np.r_[CLOCK[:t], CLOCK[t:] + np.timedelta64(delay, "m")]
    for clock in (CLOCK[:t], moved):
        pd.testing.assert_frame_equal(macro_columns(SESSIONS, clock)[:t], whole[:t])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_value_is_the_last_one_published_and_no_vix_is_zero(data):
    """An oracle that reads the rule off the literal clock of New York, one bar at a time."""
    present = np.array(data.draw(st.lists(st.booleans(), min_size=30, max_size=30)))
    macro = SESSIONS.assign(vix=SESSIONS["vix"].where(present))
    t = data.draw(st.integers(0, len(CLOCK) - 1))
    moment = pd.Timestamp(CLOCK[t], tz="UTC").tz_convert("America/New_York")
    last = moment.date() if moment.time() >= time(16, 15) else moment.date() - pd.Timedelta(days=1).to_pytimedelta()
    known = [(day, value) for day, value in zip(macro["timestamp"], macro["vix"], strict=True) if day.date() <= last and value == value]
    found = align_to_ticker(macro, CLOCK)["vix"]
    assert not (found == 0).any()
    age = None if not known else moment - (known[-1][0] + pd.Timedelta("16:15:00")).tz_localize("America/New_York")
    if age is None or age > pd.Timedelta(days=7):
        assert np.isnan(found[t])
    else:
        assert found[t] == known[-1][1]


# --- the 25 columns


def test_there_are_twenty_five_columns_and_they_say_when_they_were_known():
    macro = SESSIONS.assign(us10y=4.0, dxy=100.0)
    assert len(set(NAMES)) == 25
    bars = bars_of(DAY, date(2024, 3, 1), date(2024, 3, 28))
    found = macro_columns(macro, bars)
    assert tuple(found) == ("available_at", *NAMES)
    assert (found["available_at"].dt.tz_localize(None).to_numpy() == bars.available_at).all()
    assert tuple(macro_columns(macro[["timestamp", "dxy"]], bars)) == ("available_at", *(name for name in NAMES if name.startswith("dxy")))


def test_columns_equal_numbers_worked_out_by_hand():
    """Values 1 to 60: the mean of the last 20 is t - 9.5 and their variance 20 * 21 / 12 = 35."""
    columns = compute("us10y", np.arange(1.0, 61.0))
    assert np.isnan(columns["us10y_ma20"][18])
    assert columns["us10y_ma20"][[19, 59]].tolist() == [10.5, 50.5]
    assert np.isnan(columns["us10y_ma50"][48])
    assert columns["us10y_ma50"][[49, 59]].tolist() == [25.5, 35.5]
    assert columns["us10y_pct_1"][1:4].tolist() == [1.0, 0.5, pytest.approx(1 / 3)]
    assert columns["us10y_pct_5"][5:7].tolist() == [5.0, 2.5]
    np.testing.assert_allclose(columns["us10y_zscore_20"][19:], 9.5 / np.sqrt(35))


def test_columns_of_a_real_vix_equal_those_of_pandas():
    vix = read_macro(REAL / "vix.csv")["vix"]
    found = compute("vix", vix.to_numpy())
    rolling = vix.rolling(20)
    expected = {
        "vix_ma20": rolling.mean(),
        "vix_ma50": vix.rolling(50).mean(),
        "vix_pct_1": vix.pct_change(),
        "vix_pct_5": vix.pct_change(5),
        "vix_zscore_20": (vix - rolling.mean()) / rolling.std(),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("level", "flags"),
    [(14.99, (0, 0, 1)), (15.0, (0, 0, 0)), (25.0, (0, 0, 0)), (25.01, (1, 0, 0)), (35.0, (1, 0, 0)), (35.01, (1, 1, 0))],
)
def test_flags_of_vix_have_strict_thresholds(level, flags):
    found = compute("vix", np.array([level]))
    assert tuple(found[f"vix_{name}"][0] for name in ("fear", "extreme_fear", "complacent")) == flags


def test_flags_of_yield_and_dollar_are_nan_until_they_are_known():
    yields = compute("us10y", np.array([4.0, 4, 4, 4, 4, 4.07, 4.09, 3.9]))  # + 1.75 %, + 2.25 %, - 2.5 %
    np.testing.assert_array_equal(yields["us10y_rising"], [np.nan] * 5 + [0, 1, 0])
    np.testing.assert_array_equal(yields["us10y_falling"], [np.nan] * 5 + [0, 0, 1])
    dollar = compute("dxy", np.r_[np.tile([99.0, 101.0], 10), 104.0, 95.0])
    np.testing.assert_array_equal(dollar["dxy_strong"], [np.nan] * 19 + [0, 1, 0])
    np.testing.assert_array_equal(dollar["dxy_weak"], [np.nan] * 19 + [0, 0, 1])


def test_a_flat_window_has_a_z_score_of_zero_and_not_of_a_rounding():
    assert (compute("us10y", np.full(30, 0.1))["us10y_zscore_20"][19:] == 0).all()


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 30))
def test_columns_do_not_depend_on_how_much_history_lies_before_their_window(start):
    """A series that begins later gives the same bits once its windows are full: nothing is summed along the way."""
    vix = read_macro(REAL / "vix.csv")["vix"].to_numpy()
    whole, late = compute("vix", vix), compute("vix", vix[start:])
    for name in whole:
        np.testing.assert_array_equal(late[name][50:], whole[name][start + 50 :], err_msg=name)


def test_windows_are_sessions_of_the_series_and_not_bars():
    """On a clock of quarter hours, the mean of 20 is still one of 20 closes of VIX."""
    found = macro_columns(SESSIONS, CLOCK).set_index("available_at").loc["2024-03-20 19:00+00:00"]  # 15:00 in New York
    known = SESSIONS.loc[SESSIONS["timestamp"] < "2024-03-20", "vix"]
    assert found["vix_ma20"] == pytest.approx(known[-20:].mean())
    assert found["vix_pct_1"] == pytest.approx(known.iloc[-1] / known.iloc[-2] - 1)


def test_the_broad_dollar_never_stands_in_for_the_dollar_index():
    macro = daily(np.linspace(119, 121, 25), name="DTWEXBGS")
    found = macro_columns(macro, CLOCK)
    assert tuple(found) == ("available_at", *BROAD_DOLLAR_NAMES)
    assert not set(BROAD_DOLLAR_NAMES) & set(NAMES)
    with pytest.raises(ConfigError, match=r"fred has no dxy .*provider='yahoo'"):
        align_to_ticker(daily([100], name="dxy"), CLOCK, provider="fred")
    with pytest.raises(ConfigError, match=r"yahoo has no broad_dollar .*provider='fred'"):
        align_to_ticker(daily([100], name="broad_dollar"), CLOCK)
    with pytest.raises(DataError, match="'dollar', which is not a series"):
        align_to_ticker(daily([100], name="dollar"), CLOCK)


def test_every_series_has_a_meaning_and_a_feed():
    assert {name: (s.yahoo and s.yahoo.symbol, s.fred and s.fred.symbol) for name, s in SERIES.items()} == {
        "vix": ("^VIX", "VIXCLS"),
        "us10y": ("^TNX", "DGS10"),
        "dxy": ("DX-Y.NYB", None),
        "broad_dollar": (None, "DTWEXBGS"),
    }
    assert all(series.meaning for series in SERIES.values())


# --- reading


def test_one_file_per_series_and_one_wide_file_give_the_same_frame(tmp_path):
    expected = read_macro(REAL)
    assert expected["vix"].count() == 84
    assert expected["us10y"].count() == 81
    wide, parquet = tmp_path / "wide.csv", tmp_path / "parquet"
    expected.rename(columns={"timestamp": "Date"}).to_csv(wide, index=False)
    pd.testing.assert_frame_equal(read_macro(wide)[list(expected)], expected)
    parquet.mkdir()
    for name in ("vix", "us10y"):
        bars = expected[["timestamp", name]].dropna().rename(columns={name: "close"}).assign(open=1.0, volume=0.0)
        bars.assign(timestamp=bars["timestamp"].dt.tz_localize("UTC")).to_parquet(parquet / f"{name}.parquet")
    pd.testing.assert_frame_equal(read_macro(parquet)[list(expected)], expected)


@pytest.mark.parametrize("header", ["observation_date", "DATE"])
def test_the_csv_of_fred_is_read_with_its_holidays_missing(tmp_path, header):
    file = tmp_path / "anything.csv"
    file.write_text(f"{header},VIXCLS\n2024-12-24,14.27\n2024-12-25,.\n2024-12-26,14.73\n2024-12-27,\n")
    frame = read_macro(file)
    np.testing.assert_array_equal(frame["VIXCLS"], [14.27, np.nan, 14.73, np.nan])
    assert seen(frame, "2024-12-26 13:00", "2024-12-27 12:00", "2024-12-30 13:00") == [14.27, 14.73, 14.73]


def test_bars_of_a_vendor_become_macro():
    """Their daily stamps are dates at midnight UTC, which is the evening before in New York."""
    stamps = pd.to_datetime(["2024-01-02", "2024-01-03"], utc=True)
    frames = {
        name: pd.DataFrame({"timestamp": stamps, "open": 1.0, "close": values})
        for name, values in {"^VIX": [13.20, 14.04], "^TNX": [3.94, 3.91]}.items()
    }
    found = align_to_ticker(join_series(frames), new_york("2024-01-03 16:00"))
    assert found.drop(columns="available_at").to_dict("records") == [{"vix": 13.20, "us10y": 3.91}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as csv"),
        ("date,value\n", "has no rows"),
        ("value\n1\n", "has no dates"),
        ("date,value\n3 Jan,1\n", "ISO date"),
        ("date,value\n2024-01-02,1\n,1\n", "1 row without a date"),
        ("date,value\n2024-01-02,high\n", "text among its values"),
        ("date,value\n2024-01-02,1\n2024-01-02,2\n", "two values for 2024-01-02"),
        ("date,gold\n2024-01-02,2000\n", "'gold', which is not a series; expected one of vix"),
    ],
)
def test_a_file_that_is_no_macro_series_is_refused_in_one_sentence(tmp_path, text, message):
    (tmp_path / "vix.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_macro(tmp_path)


def test_a_parquet_that_is_none_and_a_spreadsheet_are_refused(tmp_path):
    for name, message in {"vix.parquet": "cannot be read as parquet", "vix.xlsx": "neither .parquet nor .csv"}.items():
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match=message):
            read_macro(tmp_path / name)


def test_a_series_that_comes_twice_is_refused(tmp_path):
    (tmp_path / "vix.csv").write_text("date,value\n2024-01-02,13.2\n")
    (tmp_path / "wide.csv").write_text("date,vix\n2024-01-03,14.04\n")
    with pytest.raises(DataError, match="wide holds vix a second time"):
        read_macro(tmp_path)
    with pytest.raises(DataError, match="vix twice, the second time as 'VIXCLS'"):
        align_to_ticker(JANUARY.assign(VIXCLS=13.0), CLOCK)


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_a_value_that_stands_for_a_missing_one_is_refused(value):
    with pytest.raises(DataError, match=r"vix is .* at 2024-01-03.*leave missing values empty"):
        align_to_ticker(daily([13.20, value]), CLOCK)


def test_a_zone_or_a_timeframe_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="'Mars/Olympus' does not fit"):
        align_to_ticker(JANUARY, CLOCK, zone="Mars/Olympus")
    for timeframe in (pd.Timedelta(0), pd.Timedelta(days=7)):
        with pytest.raises(ConfigError, match="at most one day"):
            align_to_ticker(JANUARY, CLOCK, timeframe=timeframe)


def test_a_series_without_any_value_is_nan():
    found = macro_columns(JANUARY.assign(VIXCLS=np.nan).drop(columns="vix"), CLOCK)
    assert found.drop(columns="available_at").isna().all(axis=None)


# --- FRED


def test_fred_is_asked_once_per_series_and_its_holes_stay_holes():
    tables = {
        "VIXCLS": {"2024-12-23": "16.78", "2024-12-24": "14.27", "2024-12-25": "", "2024-12-26": "14.73"},
        "DGS10": {"2024-12-24": "4.59", "2024-12-25": "."},
    }
    with fake_fred(tables) as (get, asked):
        frame = fetch_fred(("VIXCLS", "DGS10"), get, date(2024, 12, 24), date(2024, 12, 31))
    assert asked == [f"/graph/fredgraph.csv?id={name}&cosd=2024-12-24&coed=2024-12-31" for name in tables]
    np.testing.assert_array_equal(frame[["VIXCLS", "DGS10"]], [[14.27, 4.59], [np.nan, np.nan], [14.73, np.nan]])


def test_an_answer_of_fred_that_is_no_csv_of_the_series_is_its_fault():
    for body, message in {
        None: "answered b'<!DOCTYPE HTML>",
        b"": "answered b''",
        b"observation_date,DGS10\n2024-01-02,3.9\n": "expected CSV",
        b'observation_date,VIXCLS\n2024-01-02,1,2\n"': "broken",
    }.items():
        with fake_fred({} if body is None else {"VIXCLS": body}) as (get, _), pytest.raises(VendorDown, match=message):
            fetch_fred(("VIXCLS",), get, date(2024, 1, 1), date(2024, 1, 31))


def test_a_range_without_a_value_is_no_data_and_an_unknown_id_is_not_asked_for():
    with fake_fred({"VIXCLS": {"2024-12-25": ""}}, header="DATE") as (get, asked):
        with pytest.raises(NoData, match="no VIXCLS between 2024-12-25 and 2024-12-25"):
            fetch_fred(("VIXCLS",), get, date(2024, 12, 25), date(2024, 12, 25))
        with pytest.raises(DataError, match="'GDP', which is not a series"):
            fetch_fred(("GDP",), get, date(2024, 12, 25), date(2024, 12, 25))
    assert len(asked) == 1


def test_what_the_caller_raises_on_the_way_to_fred_reaches_the_caller():
    def get(url):
        raise TimeoutError("5 s")

    with pytest.raises(TimeoutError):
        fetch_fred(("VIXCLS",), get, date(2024, 1, 1), date(2024, 1, 31))
