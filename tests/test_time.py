"""Time: what the exchanges really did on the days that break calendars, and symbols that do not disturb each other's rows."""

from datetime import date

import numpy as np
import pandas as pd
import pandas_market_calendars as mcal
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ploutos.errors import ConfigError
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.features.macro_features import macro_columns
from ploutos.market.bars import FIELDS, align
from ploutos.market.calendar import available_at, expected_bars, sessions

DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
CME = "CME Globex Equity"


def day(text):
    return date.fromisoformat(text)


def stamps(*texts):
    return np.array(texts, dtype="datetime64[us]")


def hours(first, n_bars):
    return stamps(first) + np.arange(n_bars) * np.timedelta64(1, "h")


# --- literal dates


@pytest.mark.parametrize(
    ("calendar", "session", "minute", "first", "n_bars"),
    [
        # summer time begins on 2024-03-10, a Sunday
        ("NYSE", "2024-03-08", 30, "2024-03-08T14:30", 7),
        ("NYSE", "2024-03-11", 30, "2024-03-11T13:30", 7),
        ("NYSE", "2024-03-11", 0, "2024-03-11T13:00", 7),
        (CME, "2024-03-08", 0, "2024-03-07T23:00", 23),
        (CME, "2024-03-11", 0, "2024-03-10T22:00", 23),
        # and ends on 2024-11-03
        ("NYSE", "2024-11-01", 30, "2024-11-01T13:30", 7),
        ("NYSE", "2024-11-04", 30, "2024-11-04T14:30", 7),
        (CME, "2024-11-01", 0, "2024-10-31T22:00", 23),
        (CME, "2024-11-04", 0, "2024-11-03T23:00", 23),
        # early closes: 13:00 in New York, 12:15 in Chicago
        ("NYSE", "2024-07-03", 30, "2024-07-03T13:30", 4),
        ("NYSE", "2024-07-03", 0, "2024-07-03T13:00", 4),
        ("NYSE", "2024-11-29", 30, "2024-11-29T14:30", 4),
        ("NYSE", "2024-12-24", 30, "2024-12-24T14:30", 4),
        (CME, "2024-07-03", 0, "2024-07-02T22:00", 20),
        (CME, "2024-11-29", 0, "2024-11-28T23:00", 20),
        (CME, "2024-12-24", 0, "2024-12-23T23:00", 20),
        # holidays of the shares on which futures trade until noon in Chicago
        ("NYSE", "2024-07-04", 0, "2024-07-04T00:00", 0),
        (CME, "2024-07-04", 0, "2024-07-03T22:00", 19),
        ("NYSE", "2024-11-28", 0, "2024-11-28T00:00", 0),
        (CME, "2024-11-28", 0, "2024-11-27T23:00", 19),
        # days of mourning: no shares, and futures stop at 08:30 in Chicago
        ("NYSE", "2018-12-05", 0, "2018-12-05T00:00", 0),
        ("NYSE", "2025-01-09", 0, "2025-01-09T00:00", 0),
        (CME, "2018-12-05", 0, "2018-12-04T23:00", 16),
        (CME, "2025-01-09", 0, "2025-01-08T23:00", 16),
        # Good Friday: futures trade until 08:15 in Chicago when it is the day of the employment report, else not at all
        ("NYSE", "2023-04-07", 0, "2023-04-07T00:00", 0),
        (CME, "2023-04-07", 0, "2023-04-06T22:00", 16),
        (CME, "2024-03-29", 0, "2024-03-29T00:00", 0),
        (CME, "2025-04-18", 0, "2025-04-18T00:00", 0),
        # both are closed
        ("NYSE", "2024-12-25", 0, "2024-12-25T00:00", 0),
        (CME, "2024-12-25", 0, "2024-12-25T00:00", 0),
        (CME, "2024-03-09", 0, "2024-03-09T00:00", 0),
    ],
)
def test_hours_of_a_session_that_breaks_calendars(calendar, session, minute, first, n_bars):
    found = expected_bars(calendar, HOUR, day(session), day(session), minute)
    assert found.dtype == "datetime64[us]"
    np.testing.assert_array_equal(found, hours(first, n_bars))
    np.testing.assert_array_equal(expected_bars(calendar, DAY, day(session), day(session), minute), stamps(session)[: n_bars > 0])
    assert not n_bars or set(sessions(found, HOUR, calendar)) == {np.datetime64(session, "D")}


@pytest.mark.parametrize(
    ("calendar", "session", "known"),
    [
        ("NYSE", "2024-03-08", "2024-03-08T21:00"),
        ("NYSE", "2024-03-11", "2024-03-11T20:00"),
        ("NYSE", "2024-11-01", "2024-11-01T20:00"),
        ("NYSE", "2024-11-04", "2024-11-04T21:00"),
        ("NYSE", "2024-07-03", "2024-07-03T17:00"),
        ("NYSE", "2024-11-29", "2024-11-29T18:00"),
        ("NYSE", "2024-12-24", "2024-12-24T18:00"),
        (CME, "2024-03-08", "2024-03-08T22:00"),
        (CME, "2024-03-11", "2024-03-11T21:00"),
        (CME, "2024-11-04", "2024-11-04T22:00"),
        (CME, "2024-07-03", "2024-07-03T17:15"),
        (CME, "2024-11-29", "2024-11-29T18:15"),
        (CME, "2024-12-24", "2024-12-24T18:15"),
        (CME, "2018-12-05", "2018-12-05T14:30"),
        (CME, "2025-01-09", "2025-01-09T14:30"),
    ],
)
def test_a_daily_bar_is_known_at_the_close_that_was_held(calendar, session, known):
    assert available_at(stamps(session), DAY, calendar) == stamps(known)


@pytest.mark.parametrize(
    ("start", "session"),
    [
        ("2024-03-10T22:00", "2024-03-11"),  # the first hour of summer time in Chicago, a Sunday evening
        ("2024-11-03T23:00", "2024-11-04"),
        ("2024-07-03T17:00", "2024-07-03"),  # holds the last quarter before the early close
        ("2024-07-03T22:00", "2024-07-04"),
        ("2024-11-28T23:00", "2024-11-29"),
        ("2024-12-24T18:00", "2024-12-24"),
        ("2024-12-25T23:00", "2024-12-26"),  # the evening of Christmas
        ("2025-01-09T14:00", "2025-01-09"),
        ("2025-01-09T23:00", "2025-01-10"),
        ("2018-12-05T23:00", "2018-12-06"),
    ],
)
def test_an_hour_of_a_future_belongs_to_the_session_that_closes_next(start, session):
    assert sessions(stamps(start), HOUR, CME) == np.datetime64(session, "D")


@pytest.mark.parametrize(
    ("calendar", "year", "held"),
    [
        ("NYSE", 2018, 251),  # 261 weekdays less 9 holidays and a day of mourning
        ("NYSE", 2024, 252),  # 262 less 10
        ("NYSE", 2025, 250),  # 261 less 10 and a day of mourning
        (CME, 2024, 259),  # 262 less New Year, Good Friday and Christmas
        (CME, 2025, 258),
        ("24/7", 2024, 366),
        ("FX", 2024, 262),  # every weekday
    ],
)
def test_a_year_has_the_sessions_that_were_held(calendar, year, held):
    assert len(expected_bars(calendar, DAY, date(year, 1, 1), date(year, 12, 31))) == held


@pytest.mark.parametrize("session", ["2024-07-05", "2024-12-06"])
def test_expected_bars_start_at_the_minute_that_a_vendor_uses_summer_and_winter(session):
    friday = day(session)
    for timeframe, minute, local in (
        ("4h", 0, ["08:00", "12:00"]),
        ("2h", 30, ["08:30", "10:30", "12:30", "14:30"]),
        ("1h", 15, ["09:15", "10:15", "11:15", "12:15", "13:15", "14:15", "15:15"]),
    ):
        found = pd.DatetimeIndex(expected_bars("NYSE", pd.Timedelta(timeframe), friday, friday, minute)).tz_localize("UTC")
        assert found.tz_convert("America/New_York").strftime("%H:%M").tolist() == local
    assert len(expected_bars("NYSE", pd.Timedelta(minutes=1), friday, friday)) == 390
    assert len(expected_bars("NYSE", pd.Timedelta(minutes=15), friday, friday, minute=30)) == 26


def test_a_pause_for_lunch_is_expected_to_be_empty():
    """Hong Kong pauses from 12:00 to 13:00, which is 04:00 to 05:00 UTC; a half-past bar holds half of it."""
    thursday = day("2024-03-07")
    np.testing.assert_array_equal(expected_bars("HKEX", HOUR, thursday, thursday), np.delete(hours("2024-03-07T01:00", 7), 3))
    np.testing.assert_array_equal(expected_bars("HKEX", HOUR, thursday, thursday, 30), hours("2024-03-07T01:30", 7))


def test_a_market_that_never_closes_has_every_hour():
    np.testing.assert_array_equal(expected_bars("24/7", HOUR, day("2024-03-09"), day("2024-03-11")), hours("2024-03-09T00:00", 72))


def test_what_is_no_bar_and_no_exchange_is_refused():
    friday = day("2024-07-05")
    for timeframe in (pd.Timedelta(0), pd.Timedelta(days=7)):
        with pytest.raises(ConfigError, match="at most one day"):
            expected_bars("NYSE", timeframe, friday, friday)
    with pytest.raises(ConfigError, match="minute is 60"):
        expected_bars("NYSE", HOUR, friday, friday, 60)
    with pytest.raises(ConfigError, match="'NYCE' is unknown"):
        expected_bars("NYCE", HOUR, friday, friday)


@settings(max_examples=12, deadline=None)
@given(
    calendar=st.sampled_from(["NYSE", CME, "24/7"]),
    first=st.dates(date(2010, 1, 1), date(2026, 12, 1)),
    length=st.integers(0, 25),
    minutes=st.sampled_from([15, 30, 60]),
    minute=st.sampled_from([0, 15, 30, 45]),
)
def test_expected_bars_cover_every_session_and_nothing_else(calendar, first, length, minutes, minute):
    """Against the library's own opens and closes, except on the days that it has wrong."""
    last = first + pd.Timedelta(days=length).to_pytimedelta()
    step = np.timedelta64(minutes, "m")
    found = expected_bars(calendar, pd.Timedelta(minutes=minutes), first, last, minute)
    assert (np.diff(found) > np.timedelta64(0)).all()
    assert set((found - stamps("1970-01-01T00:00") - np.timedelta64(minute, "m")) % step) <= {np.timedelta64(0, "us")}
    schedule = mcal.get_calendar(calendar).schedule(first, last, tz="UTC")
    covered = 0
    for label, row in schedule.iterrows():
        if calendar == CME and label in (pd.Timestamp("2024-03-29"), pd.Timestamp("2025-04-18")):
            continue
        if calendar == CME and label in (pd.Timestamp("2018-12-05"), pd.Timestamp("2025-01-09")):
            row = row.replace(row["market_close"], label.tz_localize("America/Chicago") + pd.Timedelta("8h30min"))
        opened, closed = (np.datetime64(moment.tz_convert(None), "us") for moment in row)
        inside = found[(found + step > opened) & (found < closed)]
        assert inside[0] <= opened
        assert inside[-1] + step >= closed
        assert (np.diff(inside) == step).all()
        covered += len(inside)
    assert covered >= len(found)
    if calendar == "NYSE":
        assert covered == len(found)
        np.testing.assert_array_equal(np.unique(sessions(found, step, calendar)) if len(found) else [], schedule.index.to_numpy())


# --- many symbols


def hourly_frame(seed=3):
    """OLD has every hour; HALT lost a session and a few hours; IPO and GONE overlap for two weeks; ODD trades on half hours."""
    random = np.random.default_rng(seed)
    clock = expected_bars("NYSE", HOUR, date(2024, 2, 1), date(2024, 4, 12))
    day_of = sessions(clock, HOUR, "NYSE")
    keep = {
        "GONE": day_of < np.datetime64("2024-03-22"),
        "HALT": (day_of != np.datetime64("2024-03-11")) & (random.random(len(clock)) > 0.03),
        "IPO": clock >= np.datetime64("2024-03-08T17:00"),
        "ODD": np.ones(len(clock), bool),
        "OLD": np.ones(len(clock), bool),
    }
    frames = []
    for symbol, present in keep.items():
        close = 50 * np.exp(np.cumsum(random.normal(0, 0.01, len(clock))))
        open_ = np.r_[close[0], close[:-1]]
        columns = {"open": open_, "high": np.maximum(open_, close) * 1.01, "low": np.minimum(open_, close) * 0.99, "close": close}
        starts = pd.DatetimeIndex(clock + np.timedelta64(30 if symbol == "ODD" else 0, "m")).tz_localize("UTC")
        frame = pd.DataFrame({"symbol": symbol, "timestamp": starts, **columns, "volume": random.integers(1, 10**6, len(clock)) * 1.0})
        frames.append(frame[present])
    return pd.concat(frames, ignore_index=True)


FRAME = hourly_frame()
SYMBOLS = sorted(FRAME["symbol"].unique())
MACRO = pd.DataFrame({"timestamp": expected_bars("NYSE", DAY, date(2023, 11, 1), date(2024, 4, 12))})
MACRO["vix"] = np.random.default_rng(4).uniform(10, 40, len(MACRO))


def known_of(frame, symbol):
    """Everything that a panel says of one symbol, by the start of its bars."""
    bars = align(frame, HOUR, "NYSE", "test")
    s = bars.symbols.index(symbol)
    rows = bars.tradable[:, s]
    features = build_features(bars, FeatureSpec())
    return {
        "timestamps": bars.timestamps[rows],
        "available_at": bars.available_at[rows],
        "sessions": bars.sessions[rows],
        **{name: getattr(bars, name)[rows, s] for name in FIELDS},
        "mark": bars.mark[rows, s],
        "features": features.values[rows, s],
        "advisor": market_features(bars)[rows, s],
        "macro": macro_columns(MACRO, bars)[rows].drop(columns="available_at").to_numpy(),
    }


@pytest.fixture(scope="module")
def in_panel():
    return {symbol: known_of(FRAME, symbol) for symbol in SYMBOLS}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_symbol_alone_and_in_the_panel_is_the_same_to_the_bit(in_panel, symbol):
    alone = known_of(FRAME[FRAME["symbol"] == symbol], symbol)
    assert np.isfinite(alone["features"]).any()
    assert np.isfinite(alone["macro"]).any()
    for name, values in alone.items():
        np.testing.assert_array_equal(in_panel[symbol][name], values, err_msg=name)


@settings(max_examples=8, deadline=None)
@given(others=st.sets(st.sampled_from(SYMBOLS)), symbol=st.sampled_from(SYMBOLS), seed=st.integers(0, 99))
def test_other_symbols_and_the_order_of_rows_change_nothing(in_panel, others, symbol, seed):
    random = np.random.default_rng(seed)
    frame = FRAME[FRAME["symbol"].isin(others | {symbol})].sample(frac=1, random_state=seed)
    foreign = (frame["symbol"] != symbol).to_numpy()
    frame.loc[foreign, ["open", "high", "low", "close"]] *= random.uniform(0.1, 10)
    frame = frame[~foreign | (random.random(len(frame)) > 0.3)]
    for name, values in known_of(frame, symbol).items():
        np.testing.assert_array_equal(values, in_panel[symbol][name], err_msg=name)


def test_a_listing_and_a_halt_inside_a_panel_leave_nan_in_their_rows_and_no_others():
    bars = align(FRAME, HOUR, "NYSE", "test")
    features = build_features(bars, FeatureSpec(include=("body",)))
    for s, symbol in enumerate(bars.symbols):
        own = FRAME[FRAME["symbol"] == symbol].set_index(FRAME.loc[FRAME["symbol"] == symbol, "timestamp"].dt.tz_localize(None))
        expected = np.log(own["close"] / own["open"]).reindex(bars.timestamps)
        np.testing.assert_allclose(features.values[:, s, 0], expected, rtol=1e-5, atol=1e-7)
    assert bars.n_bars == 2 * 7 * len(set(bars.sessions))  # the hours, and the half hours of ODD


def test_macro_of_a_bar_is_read_by_its_time_and_not_by_its_row():
    """Each bar's VIX, found by hand: the last session that was over for a quarter past four when the bar ended."""
    bars = align(FRAME, HOUR, "NYSE", "test")
    found = macro_columns(MACRO, bars)["vix"]
    by_date = MACRO.set_index("timestamp")["vix"]
    ends = pd.DatetimeIndex(bars.timestamps + np.timedelta64(1, "h")).tz_localize("UTC").tz_convert("America/New_York")
    for end, value in zip(ends, found, strict=True):
        last = end.normalize().tz_localize(None) - (DAY if (end.hour, end.minute) < (16, 15) else pd.Timedelta(0))
        assert value == by_date[:last].iloc[-1]
