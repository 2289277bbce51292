"""One clock for bars that come labelled in every way: which session, which length, known when."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from ploutos.errors import ConfigError, DataError
from ploutos.market.bars import align
from ploutos.market.calendar import DAY, MONTH, WEEK, expected_bars, sessions_around
from ploutos.market.clock import drop_unfinished, parse_timeframe, put_on_clock

HOUR = pd.Timedelta(hours=1)
NY, CME = "America/New_York", "CME Globex Equity"


def table(stamps, symbol="A", dates=None, close=None):
    stamps = pd.DatetimeIndex(stamps)
    stamps = (stamps if stamps.tz else stamps.tz_localize("UTC")).tz_convert("UTC").as_unit("us")
    close = 100.0 + np.arange(len(stamps)) if close is None else np.asarray(close, dtype=float)
    frame = pd.DataFrame({"symbol": symbol, "timestamp": stamps, "open": close - 0.5, "high": close + 1, "low": close - 1, "close": close})
    frame["volume"] = 10.0
    return frame if dates is None else frame.assign(date=pd.DatetimeIndex(dates).as_unit("us"))


def timed(frame, calendar="NYSE", wanted=None, label="auto"):
    return put_on_clock(frame, calendar, wanted, label)


def days(found):
    return found.frame["timestamp"].dt.strftime("%Y-%m-%d").tolist()


def known(found):
    return found.frame["available_at"].dt.strftime("%Y-%m-%dT%H:%MZ").tolist()


SESSIONS = expected_bars("NYSE", DAY, date(2024, 3, 1), date(2024, 3, 28))
NAMES = [str(day) for day in SESSIONS.astype("datetime64[D]")]
CLOSES = sessions_around(SESSIONS[0], SESSIONS[-1], "NYSE")


@pytest.mark.parametrize(
    "stamps",
    [
        pd.DatetimeIndex(SESSIONS),  # midnight in Greenwich
        pd.DatetimeIndex(SESSIONS).tz_localize(NY),  # midnight at the exchange
        pd.DatetimeIndex(SESSIONS).tz_localize("America/Chicago"),  # midnight elsewhere, before the open
        (pd.DatetimeIndex(SESSIONS) + pd.Timedelta("9h30min")).tz_localize(NY),  # the open
        (pd.DatetimeIndex(SESSIONS) + pd.Timedelta("16h")).tz_localize(NY),  # the close
        (pd.DatetimeIndex(SESSIONS) + pd.Timedelta("18h")).tz_localize(NY),  # after it
        pd.DatetimeIndex(SESSIONS) + pd.Timedelta("1D"),  # the midnight that a day ends at
    ],
    ids=["greenwich", "exchange", "chicago", "open", "close", "evening", "next midnight"],
)
def test_a_daily_bar_is_labelled_by_its_session_however_it_came(stamps):
    found = timed(table(stamps))
    assert days(found) == NAMES
    assert known(found)[:6:5] == ["2024-03-01T21:00Z", "2024-03-08T21:00Z"]
    assert known(found)[-1] == "2024-03-28T20:00Z"  # summer time
    assert found.timeframe == DAY


def test_a_zone_that_changes_in_the_middle_changes_no_session():
    half = len(SESSIONS) // 2
    utc, local = pd.DatetimeIndex(SESSIONS[:half]).tz_localize("UTC"), pd.DatetimeIndex(SESSIONS[half:]).tz_localize(NY).tz_convert("UTC")
    assert days(timed(table(utc.append(local)))) == NAMES


def test_dates_east_of_greenwich_keep_their_day():
    tokyo = expected_bars("JPX", DAY, date(2024, 3, 1), date(2024, 3, 28))
    midnight = pd.DatetimeIndex(tokyo).tz_localize("Asia/Tokyo")
    for frame, calendar in ((table(midnight), "JPX"), (table(midnight, dates=tokyo), "NYSE")):
        assert days(timed(frame, calendar)) == [str(day) for day in tokyo.astype("datetime64[D]")]


@pytest.mark.parametrize("calendar", ["FX", CME])
def test_a_day_that_begins_at_17_00_in_new_york_is_the_next_days_session(calendar):
    sessions = sessions_around(np.datetime64("2024-03-04", "us"), np.datetime64("2024-03-29", "us"), calendar)
    some = slice(40, 60)
    begin = pd.DatetimeIndex(sessions.dates[some]).tz_localize(NY) - pd.Timedelta("7h")
    found = timed(table(begin), calendar)
    assert days(found) == [str(day) for day in sessions.dates[some]]
    np.testing.assert_array_equal(found.frame["available_at"].dt.tz_localize(None).to_numpy(), sessions.closes[some])
    evenings = sessions.dates[some] - np.timedelta64(1, "D")  # Sunday to Thursday, the evening each session opens
    assert days(timed(table(pd.DatetimeIndex(evenings), dates=evenings), calendar)) == [str(day) for day in sessions.dates[some]]


def test_a_currencys_sunday_is_joined_to_monday():
    stamps = pd.DatetimeIndex([f"2024-03-{day:02d}" for day in (1, 3, 4, 5, 6, 7, 8, 10, 11)])
    found = timed(table(stamps, close=[10, 20, 30, 40, 50, 60, 70, 80, 90]), "FX")
    assert days(found) == ["2024-03-01", "2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08", "2024-03-11"]
    monday = found.frame.iloc[1]
    assert (monday["open"], monday["high"], monday["low"], monday["close"], monday["volume"]) == (19.5, 31, 19, 30, 20)
    with pytest.raises(DataError, match="A has 1 bar that falls on a day that has one already, first 2024-03-05"):
        timed(table(pd.DatetimeIndex(NAMES).append(pd.DatetimeIndex(["2024-03-05T14:30"])).sort_values()))


def test_a_coins_day_that_begins_elsewhere_is_known_a_day_after_it_began():
    stamps = pd.date_range("2024-03-01T08:00", periods=10, freq="D")
    found = timed(table(stamps), "24/7")
    assert found.frame["timestamp"].iloc[0] == pd.Timestamp("2024-03-01T08:00Z")
    assert known(found)[0] == "2024-03-02T08:00Z"
    assert known(timed(table(stamps), "24/7", label="end"))[0] == "2024-03-01T08:00Z"
    both = pd.concat([timed(table(stamps), "24/7").frame, timed(table(stamps - pd.Timedelta("8h"), "B"), "24/7").frame])
    sentence = "B's bar of 2024-03-01 00:00Z is known at 2024-03-02 00:00Z, after A's bar of 2024-03-01 08:00Z has begun"
    with pytest.raises(DataError, match=sentence):
        align(both, DAY, "24/7", "coins")


def test_symbols_on_two_clocks_are_refused():
    starts = expected_bars("NYSE", HOUR, date(2024, 3, 1), date(2024, 3, 8), minute=30)
    frames = [timed(table(stamps, symbol)).frame for stamps, symbol in ((starts, "A"), (starts - np.timedelta64(30, "m"), "B"))]
    sentence = r"B's bar of 2024-03-01 14:00Z is known at 2024-03-01 15:00Z, after A's bar of 2024-03-01 14:30Z .* data\.timeframe=1D"
    with pytest.raises(DataError, match=sentence):
        align(pd.concat(frames), HOUR, "NYSE", "two clocks")
    daily = put_on_clock(pd.concat([table(starts, "A"), table(starts - np.timedelta64(30, "m"), "B")]), "NYSE", DAY, "auto")
    assert align(daily.frame, DAY, "NYSE", "one clock").n_bars == 6


@pytest.mark.parametrize(("calendar", "minute"), [("NYSE", 30), ("NYSE", 0), (CME, 0), ("FX", 0)])
def test_auto_tells_the_end_of_intraday_bars_from_their_start(calendar, minute):
    starts = expected_bars(calendar, HOUR, date(2024, 1, 2), date(2024, 6, 28), minute)
    for stamps, label in ((starts, "start"), (starts + np.timedelta64(1, "h"), "end")):
        found = timed(table(stamps), calendar)
        assert found.label == label
        np.testing.assert_array_equal(found.frame["timestamp"].dt.tz_localize(None).to_numpy(), starts)
    assert timed(table(starts), calendar, label="end").frame["timestamp"].iloc[0] == pd.Timestamp(starts[0], tz="UTC") - HOUR


def test_extended_hours_and_the_closing_auction_are_no_end_labels():
    regular = pd.DatetimeIndex(expected_bars("NYSE", HOUR, date(2024, 3, 1), date(2024, 3, 28))).tz_localize("UTC").tz_convert(NY)
    auction = regular[regular.hour == 15] + HOUR
    assert timed(table(regular.append(auction).sort_values())).label == "start"
    whole = pd.DatetimeIndex([day + pd.Timedelta(hours=h) for day in regular.normalize().unique() for h in range(4, 20)])
    assert timed(table(whole)).label == "start"
    assert timed(table(whole + HOUR)).label == "end"


def test_hourly_bars_that_begin_with_a_half_hour_are_known_when_they_end():
    day = [pd.Timestamp("2024-03-04T09:30", tz=NY), *pd.date_range("2024-03-04T10:00", "2024-03-04T15:00", freq="h", tz=NY)]
    stamps = [stamp + pd.Timedelta(days=k) for k in range(5) for stamp in day]
    found = known(timed(table(stamps)))
    assert found[:3] == ["2024-03-04T15:00Z", "2024-03-04T16:00Z", "2024-03-04T17:00Z"]


def test_a_zone_that_lost_its_summer_time_is_refused():
    starts = pd.DatetimeIndex(expected_bars("NYSE", HOUR, date(2024, 1, 2), date(2024, 6, 28), 30)).tz_localize("UTC").tz_convert(NY)
    fixed = starts.tz_localize(None).tz_localize("Etc/GMT+5")  # local times, all of them said to be five hours behind
    with pytest.raises(DataError, match=r"A begins its sessions an hour later in summer .* set data\.timezone=America/New_York"):
        timed(table(fixed))


def test_a_week_and_a_month_are_known_when_their_last_session_closes():
    fridays = pd.DatetimeIndex(["2024-03-08", "2024-03-15", "2024-03-22", "2024-03-28", "2024-04-05"])  # the 29th was a holiday
    mondays = pd.DatetimeIndex(["2024-03-04", "2024-03-11", "2024-03-18", "2024-03-25", "2024-04-01"])
    for stamps in (fridays, mondays, mondays - DAY):
        found = timed(table(stamps))
        assert found.timeframe == WEEK
        assert days(found) == [f"{stamp:%Y-%m-%d}" for stamp in mondays]
        assert known(found)[3] == "2024-03-28T20:00Z"
    found = timed(table(pd.DatetimeIndex(["2024-01-31", "2024-02-29", "2024-03-28", "2024-04-30"])))
    assert (found.timeframe, days(found)) == (MONTH, ["2024-01-02", "2024-02-01", "2024-03-01", "2024-04-01"])
    with pytest.raises(DataError, match=r"weekly bars that are labelled on Wednesdays"):
        timed(table(pd.date_range("2024-03-06", periods=6, freq="7D")))


def test_a_year_has_as_many_bars_as_the_panel_held():
    weekly = align(timed(table(pd.date_range("2013-12-30", periods=522, freq="7D"))).frame, WEEK, "NYSE", "weekly")
    assert weekly.sessions_per_year == pytest.approx(365.2425 / 7)
    daily = align(timed(table(pd.DatetimeIndex(SESSIONS))).frame, DAY, "NYSE", "daily")
    assert daily.sessions_per_year == pytest.approx(20 * 365.2425 / 28)


def test_longer_bars_are_made_within_sessions_and_incomplete_ones_left_out():
    starts = expected_bars("NYSE", HOUR, date(2024, 7, 1), date(2024, 7, 5), minute=30)  # the 3rd closes at 13:00, the 4th is a holiday
    found = timed(table(starts[2:-3]), wanted=DAY)  # the 1st lacks its morning, the 5th its evening
    assert days(found) == ["2024-07-02", "2024-07-03"]
    rows = found.frame[["open", "high", "low", "close", "volume"]].to_numpy().tolist()
    assert rows == [[104.5, 112, 104, 111, 70], [111.5, 116, 111, 115, 40]]
    assert known(found) == ["2024-07-02T20:30Z", "2024-07-03T17:30Z"]  # the last bar of an hour ends after the session
    two_hours = timed(table(starts), wanted=pd.Timedelta("2h"))
    assert two_hours.frame["timestamp"].dt.strftime("%H:%M").tolist()[:4] == ["13:30", "15:30", "17:30", "19:30"]
    assert two_hours.frame["close"].tolist()[:5] == [101, 103, 105, 106, 108]
    assert "made of bars of 1h" in found.notes[0]


def test_weeks_are_made_of_days():
    found = timed(table(pd.DatetimeIndex(SESSIONS)), wanted=WEEK)  # begins on a Friday
    assert days(found) == ["2024-03-04", "2024-03-11", "2024-03-18", "2024-03-25"]
    assert found.frame["close"].tolist() == [105, 110, 115, 119]


def test_bars_of_other_lengths_than_asked_for_are_refused():
    starts = expected_bars("NYSE", HOUR, date(2024, 3, 1), date(2024, 3, 8), 30)
    with pytest.raises(DataError, match=r"A has bars of 1h and data\.timeframe asks for 15min; .* set data\.timeframe=1h"):
        timed(table(starts), wanted=pd.Timedelta("15min"))
    with pytest.raises(DataError, match=r"A has bars of 1h and data\.timeframe asks for 1\.5h|90min"):
        timed(table(starts), wanted=pd.Timedelta("90min"))
    both = pd.concat([table(starts, "A"), table(pd.DatetimeIndex(SESSIONS), "B")])
    with pytest.raises(DataError, match=r"A has bars of 1h and B bars of 1D; .* set data\.timeframe=1D"):
        timed(both)
    assert set(timed(both, wanted=DAY).frame["symbol"]) == {"A", "B"}
    thin = pd.concat([table(starts, "A"), table(starts[[0, 1, 3, 5, 7, 9, 11]], "B")])
    assert timed(thin).timeframe == HOUR


def test_the_last_bar_is_left_out_while_it_runs():
    frame = timed(table(pd.DatetimeIndex(SESSIONS))).frame
    kept, notes = drop_unfinished(frame, pd.Timestamp("2024-03-28T19:59Z"))
    assert (len(kept), notes) == (len(frame) - 1, ("The last bar of A was not over at 2024-03-28T19:59Z and was left out.",))
    assert drop_unfinished(frame, pd.Timestamp("2024-03-28T20:00Z"))[1] == ()
    with pytest.raises(DataError, match=r"A has 3 bars that are not over at 2024-03-26T12:00Z, .* check data\.timezone and data\.label"):
        drop_unfinished(frame, pd.Timestamp("2024-03-26T12:00Z"))


def test_a_cut_of_the_future_changes_no_bar_before_it():
    starts = expected_bars("NYSE", HOUR, date(2024, 1, 2), date(2024, 6, 28), 30)
    for stamps, calendar, wanted in (
        (starts, "NYSE", None), (starts, "NYSE", DAY), (starts, "NYSE", WEEK), (pd.DatetimeIndex(SESSIONS), "NYSE", None),
        (starts + np.timedelta64(1, "h"), "NYSE", None),
    ):  # fmt: skip
        whole = timed(table(stamps), calendar, wanted).frame
        for cut in (40, 77, len(stamps) - 3):
            part = timed(table(stamps).head(min(cut, len(stamps) - 2)), calendar, wanted).frame
            pd.testing.assert_frame_equal(part, whole.head(len(part)))


@pytest.mark.parametrize("text", ["fortnight", "0h", "7min", "2D", "-1h"])
def test_a_length_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=rf"data\.timeframe is '{text}'; expected"):
        parse_timeframe(text)


# --- labels are habits of the source


def year(calendar="NYSE", first=date(2023, 7, 3), last=date(2024, 6, 28)):
    sessions = expected_bars(calendar, DAY, first, last)
    return pd.DatetimeIndex(sessions), [str(day) for day in sessions.astype("datetime64[D]")]


FIVE = pd.DatetimeIndex(expected_bars("NYSE", pd.Timedelta("5min"), date(2024, 1, 2), date(2024, 1, 31), 30))
THIN = FIVE[np.sort(np.random.default_rng(0).choice(len(FIVE), len(FIVE) // 3, replace=False))]
END = pd.Timedelta("5min")


@pytest.mark.parametrize("other", [THIN, FIVE[-200:]], ids=["thin", "new listing"])
def test_a_symbol_that_tells_nothing_takes_the_label_of_the_others(other):
    for shift, label in ((pd.Timedelta(0), "start"), (END, "end")):
        found = timed(pd.concat([table(FIVE + shift, "A"), table(other + shift, "B")]))
        assert found.label == label
        assert found.frame["timestamp"].dt.tz_localize(None).tolist() == [*FIVE, *other]


def test_symbols_or_stretches_that_contradict_are_refused():
    with pytest.raises(DataError, match=r"A labels its bars by their end and B by their start, .* set data\.label=end or"):
        timed(pd.concat([table(FIVE + END, "A"), table(THIN, "B")]))
    half = FIVE[FIVE < "2024-01-16"].append(FIVE[FIVE > "2024-01-16"] + END)
    with pytest.raises(DataError, match=r"A has bars labelled by their start and, from 2024-01-16, by their end"):
        timed(table(half))
    stamps, _ = year()
    with pytest.raises(DataError, match=r"differently, A by dates of its sessions and B by dates of the days after them"):
        timed(pd.concat([table(stamps, "A"), table(stamps + DAY, "B")]))
    with pytest.raises(DataError, match=r"A has daily bars whose dates change what they name about 202\d-\d\d-\d\d: .* 1 day late"):
        timed(table(stamps[:150].append(stamps[150:] + DAY)))


@pytest.mark.parametrize(("calendar", "days_off"), [("NYSE", 1), ("FX", -1)])
def test_a_new_symbol_takes_the_date_shift_of_the_others(calendar, days_off):
    stamps, names = year(calendar)
    found = timed(pd.concat([table(stamps + days_off * DAY, "A"), table(stamps[-8:] + days_off * DAY, "B")]), calendar)
    assert days(found) == [*names, *names[-8:]]


@pytest.mark.parametrize("zone", ["Europe/Paris", "Europe/London", "Europe/Moscow", "Asia/Kolkata", "Asia/Tokyo", "Australia/Sydney"])
@pytest.mark.parametrize("calendar", ["NYSE", "LSE", "FX", CME])
def test_midnights_of_any_zone_name_their_own_date(calendar, zone):
    stamps, names = year(calendar)
    assert days(timed(table(stamps.tz_localize(zone)), calendar)) == names


def test_rows_of_a_file_agree_on_one_reading():
    stamps, names = year()
    four = stamps + pd.Timedelta("4h")  # midnight in New York in summer alone
    assert days(timed(pd.concat([table(four, "A"), table(four[-8:], "B")]))) == [*names, *names[-8:]]
    opens, closes = ((stamps + pd.Timedelta(hour)).tz_localize(NY) for hour in ("9h30min", "16h"))
    assert days(timed(table(opens[:100].append(closes[100:])))) == names
    with pytest.raises(DataError, match=r"A has daily bars labelled by times such as .* set data\.timezone .* data\.label"):
        timed(table((closes - DAY)[:100].append((closes + DAY)[101:])))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Tokyo", NY])
def test_weeks_and_months_by_midnights_of_another_zone(zone):
    months, weeks = pd.date_range("2023-01-01", periods=18, freq="MS"), pd.date_range("2023-01-02", periods=60, freq="7D")
    shares = timed(table(months.tz_localize(zone)))
    assert days(shares)[:3] == ["2023-01-03", "2023-02-01", "2023-03-01"]
    assert known(shares)[0] == "2023-01-31T21:00Z"
    assert days(timed(table(weeks.tz_localize(zone))))[:3] == ["2023-01-03", "2023-01-09", "2023-01-17"]
    coins = timed(table(months.tz_localize(zone)), "24/7")
    assert days(coins) == [f"{month:%Y-%m-%d}" for month in months]
    assert known(coins)[0] == ("2023-02-01T05:00Z" if zone == NY else "2023-02-01T00:00Z")


def test_the_label_is_honoured_for_weeks_and_months():
    mondays = pd.date_range("2024-03-04", periods=5, freq="7D")
    for stamps in (mondays + 6 * DAY, mondays + 7 * DAY):
        assert days(timed(table(stamps), label="end")) == [f"{day:%Y-%m-%d}" for day in mondays]
        coins = timed(table(stamps), "24/7", label="end")
        assert (days(coins)[0], known(coins)[0]) == ("2024-03-04", "2024-03-11T00:00Z")
    with pytest.raises(DataError, match=r"labelled on Sundays and trades round the clock; .* data\.label=end .* data\.label=start"):
        timed(table(mondays + 6 * DAY), "24/7")
    assert known(timed(table(mondays + 6 * DAY), "24/7", label="start"))[0] == "2024-03-17T00:00Z"
    assert "set data.label=end" in timed(table(mondays - DAY)).notes[0]
    firsts = pd.date_range("2024-02-01", periods=5, freq="MS")
    assert days(timed(table(firsts), label="end"))[:2] == ["2024-01-02", "2024-02-01"]


def test_two_bars_of_one_period_round_the_clock_are_refused():
    months = pd.date_range("2023-01-01", periods=12, freq="MS").append(pd.DatetimeIndex(["2023-03-15"])).sort_values()
    with pytest.raises(DataError, match="A has 1 bar that falls on a month that has one already, first 2023-03-01"):
        timed(table(months), "24/7")


@pytest.mark.parametrize("less", ["1s", "1ms"])
def test_the_last_moment_of_a_bar_names_its_end(less):
    starts = pd.date_range("2024-03-01", periods=30, freq="D")
    for length, calendar, begins in ((DAY, "24/7", starts), (WEEK, "24/7", pd.date_range("2024-03-04", periods=9, freq="7D"))):
        found = timed(table(begins + length - pd.Timedelta(less)), calendar)
        assert (days(found), known(found)[0]) == ([f"{day:%Y-%m-%d}" for day in begins], f"{begins[0] + length:%Y-%m-%dT%H:%MZ}")
    found = timed(table(FIVE + END - pd.Timedelta(less)))
    assert (found.label, found.frame["timestamp"].dt.tz_localize(None).tolist()) == ("end", [*FIVE])


@pytest.mark.parametrize(
    ("calendar", "zone", "read_as", "hours"),
    [("NYSE", "UTC", NY, "late"), ("NYSE", "Europe/London", NY, "5 h late"), (CME, "America/Chicago", NY, "1 h early")],
)
def test_a_wrong_zone_is_refused(calendar, zone, read_as, hours):
    step = pd.Timedelta("5min") if calendar == "NYSE" else HOUR
    starts = pd.DatetimeIndex(expected_bars(calendar, step, date(2024, 1, 2), date(2024, 3, 1), 30 if calendar == "NYSE" else 0))
    wrong = starts.tz_localize("UTC").tz_convert(zone).tz_localize(None).tz_localize(read_as, nonexistent="shift_forward")
    with pytest.raises(DataError, match=rf"A begins and ends its sessions .*{hours} in most sessions, .* set data\.timezone"):
        timed(table(wrong)) if calendar == "NYSE" else timed(table(wrong), calendar)


def test_a_symbol_in_another_zone_than_the_others_is_refused_by_name():
    wrong = FIVE.tz_localize(NY)
    with pytest.raises(DataError, match=r"B begins and ends its sessions 5 h late in most sessions"):
        timed(pd.concat([table(FIVE, "A"), table(wrong, "B")]))


def test_a_zone_that_changes_in_the_middle_of_intraday_bars_is_refused():
    week = (FIVE > "2024-01-16") & (FIVE < "2024-01-23")
    with pytest.raises(DataError, match=r"A begins and ends its sessions 2 h early from 2024-01-16, by the hours of NYSE"):
        timed(table(FIVE.where(~week, FIVE - 2 * HOUR)))


def test_a_short_last_bar_labelled_by_its_end_is_known_then():
    opens = pd.date_range("2024-03-04T09:30", "2024-03-04T15:30", freq="h", tz=NY)
    ends = [*(opens[:-1] + HOUR), pd.Timestamp("2024-03-04T16:00", tz=NY)]
    for label in ("auto", "end"):
        found = timed(table([stamp + pd.Timedelta(days=k) for k in (0, 1, 2, 3, 4, 7, 8) for stamp in ends]), label=label)
        assert found.frame["timestamp"].dt.strftime("%H:%M").tolist()[5:7] == ["19:30", "20:30"]
        assert known(found)[5:7] == ["2024-03-04T20:30Z", "2024-03-04T21:00Z"]


def test_bars_on_the_even_hours_of_greenwich_have_not_lost_summer_time():
    hours = pd.DatetimeIndex(expected_bars("NYSE", HOUR, date(2024, 1, 2), date(2024, 6, 28)))
    starts = hours.floor("2h").unique()
    assert timed(table(starts)).frame["timestamp"].dt.tz_localize(None).tolist() == [*starts]


def test_a_thin_symbol_has_the_length_of_its_panel():
    starts = expected_bars("NYSE", pd.Timedelta("1min"), date(2024, 3, 1), date(2024, 3, 8))
    few = np.sort(np.random.default_rng(2).choice(len(starts), 60, replace=False))
    both = pd.concat([table(starts, "A"), table(starts[few], "B")])
    assert timed(both).timeframe == pd.Timedelta("1min")
    assert set(timed(both, wanted=DAY).frame["symbol"]) == {"A", "B"}
