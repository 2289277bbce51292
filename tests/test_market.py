"""Bars: the sample, anyone's files, one clock, and one clear sentence for everything that is wrong with them."""

import hashlib
import re
from importlib.resources import files as resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ploutos.errors import ConfigError, DataError, UnknownSymbol
from ploutos.market import calendar
from ploutos.market.adjustment import adjust
from ploutos.market.bars import FIELDS, align, read_bars, write_bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import fingerprint, load
from ploutos.market.sources import sample

DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)


def stamps(*texts):
    return np.array(texts, dtype="datetime64[us]")


def row_of(bars, date):
    return int(np.flatnonzero(bars.timestamps == np.datetime64(date))[0])


def test_the_shipped_parquet_is_the_one_that_its_readme_describes(sample_bars):
    folder = resources("ploutos.market") / "data"
    stated = re.search(r"sha256 of this file\*\*: `(\w+)`", (folder / "README.md").read_text())
    assert stated is not None
    assert hashlib.sha256((folder / sample.FILE).read_bytes()).hexdigest() == stated[1]
    assert sample_bars.symbols == ("AAPL", "FB", "GOOG", "IBM", "MSFT")
    assert sample_bars.tradable.sum() == 12_154


def test_a_split_is_no_loss_after_adjustment():
    """AAPL split two for one on 2005-02-28: the price halved, the holding did not."""
    raw, adjusted = load(DataSpec(adjustment="raw")), load(DataSpec())
    t = row_of(raw, "2005-02-28")
    s = raw.symbols.index("AAPL")
    halved = raw.close[t, s] / raw.close[t - 1, s]
    assert halved < 0.52
    assert adjusted.close[t, s] / adjusted.close[t - 1, s] == pytest.approx(2 * halved, rel=1e-5)
    assert adjusted.open[t, s] / adjusted.close[t - 1, s] == pytest.approx(2 * raw.open[t, s] / raw.close[t - 1, s], rel=1e-5)


def test_adjustment_keeps_the_traded_value_and_every_ratio_within_a_bar():
    raw = sample.read()
    adjusted = adjust(raw, "the sample")
    np.testing.assert_allclose(adjusted["close"], raw["adj_close"])
    np.testing.assert_allclose(adjusted["close"] * adjusted["volume"], raw["close"] * raw["volume"])
    np.testing.assert_allclose(adjusted["high"] / adjusted["low"], raw["high"] / raw["low"])


def small_frame():
    """A trades on days 1 to 4, B is listed on day 2 and halted on day 3."""
    days = pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"], utc=True)
    rows = [("A", days[i], 10.0 + i) for i in range(4)] + [("B", days[1], 20.0), ("B", days[3], 22.0)]
    frame = pd.DataFrame(rows, columns=["symbol", "timestamp", "close"])
    for name in ("open", "high", "low"):
        frame[name] = frame["close"]
    return frame.assign(volume=1.0)


def test_a_late_listing_and_a_halt_leave_gaps_and_shift_no_row():
    bars = align(small_frame(), DAY, "NYSE", "test")
    assert bars.tradable.tolist() == [[True, False], [True, True], [True, False], [True, True]]
    assert bars.close[3].tolist() == [13.0, 22.0]
    np.testing.assert_array_equal(bars.mark[:, 1], [np.nan, 20.0, 20.0, 22.0])


@settings(max_examples=15, deadline=None)
@given(t=st.integers(1, 700))
def test_a_prefix_of_bars_is_what_was_known_then(panel, t):
    past = panel.head(t)
    for name in (*FIELDS, "mark", "tradable", "timestamps", "available_at", "sessions"):
        np.testing.assert_array_equal(getattr(past, name), getattr(panel, name)[:t], err_msg=name)


@pytest.mark.parametrize(
    ("label", "known"),
    [
        ("2012-01-05", "2012-01-05T21:00"),  # winter: 16:00 New York
        ("2012-07-05", "2012-07-05T20:00"),  # summer time
        ("2012-11-23", "2012-11-23T18:00"),  # the day after Thanksgiving closes at 13:00
        ("2012-12-25", "2012-12-26T00:00"),  # no session: the end of the day
    ],
)
def test_a_daily_bar_is_known_at_its_sessions_close(label, known):
    assert calendar.available_at(stamps(label), DAY, "NYSE") == stamps(known)


def test_an_intraday_bar_is_known_at_its_end():
    assert calendar.available_at(stamps("2024-01-02T14:30"), HOUR, "NYSE") == stamps("2024-01-02T15:30")


def test_every_bar_of_the_sample_is_known_before_the_next_begins(sample_bars):
    assert (sample_bars.available_at[:-1] < sample_bars.timestamps[1:]).all()


def test_an_evening_bar_of_a_future_belongs_to_the_next_session():
    evening = stamps("2024-01-07T23:00", "2024-01-08T15:00", "2024-01-08T23:30")
    days = np.array(["2024-01-08", "2024-01-08", "2024-01-09"], dtype="datetime64[D]")
    np.testing.assert_array_equal(calendar.sessions(evening, HOUR, "CME Globex Equity"), days)
    assert calendar.sessions(stamps("2024-07-02T23:30"), HOUR, "NYSE") == np.datetime64("2024-07-02")  # 19:30 in New York


def test_bars_survive_their_file_and_give_the_same_bytes(panel, tmp_path):
    for name in ("a", "b"):
        write_bars(panel, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = read_bars(tmp_path / "a")
    for name in (*FIELDS, "timestamps", "available_at", "mark"):
        np.testing.assert_array_equal(getattr(again, name), getattr(panel, name))
    assert (again.symbols, again.timeframe, again.calendar, again.source) == (panel.symbols, panel.timeframe, panel.calendar, panel.source)


def test_a_table_that_does_not_say_when_it_was_known_is_refused(panel, tmp_path):
    write_bars(panel, tmp_path / "bars.parquet")
    frame = pd.read_parquet(tmp_path / "bars.parquet")
    frame.drop(columns="available_at").to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(DataError, match="does not say when its rows were known"):
        read_bars(tmp_path / "bars.parquet")


# --- anyone's files


def csv_text(symbol_column=False, rows=3, **changes):
    frame = small_frame()[:rows]
    frame["timestamp"] = frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    for name, value in changes.items():
        frame[name] = frame[name].astype(object)
        frame.loc[1, name] = value
    return frame.drop(columns=[] if symbol_column else "symbol").to_csv(index=False)


def intraday_text():
    """Three hours without a zone."""
    text = csv_text().replace("Z", "").replace(":00:00", ":30:00")
    return text.replace("02T00", "02T10").replace("03T00", "02T11").replace("04T00", "02T12")


def read(path: Path, **settings):
    return load(DataSpec(source="files", path=path, **settings))


def test_one_csv_per_symbol_and_one_long_parquet_give_the_same_bars(tmp_path):
    for symbol, frame in small_frame().groupby("symbol"):
        frame.drop(columns="symbol").to_csv(tmp_path / f"{symbol}.csv", index=False)
    small_frame().to_parquet(tmp_path / "long.parquet")
    many, one = read(tmp_path / "A.csv"), read(tmp_path / "long.parquet", symbols=("A",))
    np.testing.assert_array_equal(many.close, one.close)
    (tmp_path / "long.parquet").unlink()
    assert read(tmp_path).symbols == ("A", "B")


def test_column_names_are_matched_without_regard_to_case_and_adj_close_is_used(tmp_path):
    frame = small_frame()[:4].drop(columns="symbol").rename(columns=str.title).rename(columns={"Timestamp": "Date"})
    frame["Adj Close"] = frame["Close"] / 2
    frame.to_csv(tmp_path / "A.csv", index=False)
    assert read(tmp_path).close[:, 0].tolist() == [5.0, 5.5, 6.0, 6.5]
    assert read(tmp_path, adjustment="raw").close[:, 0].tolist() == [10.0, 11.0, 12.0, 13.0]


def test_offsets_that_change_with_daylight_saving_are_read_right(tmp_path):
    text = "timestamp,open,high,low,close,volume\n2024-03-08T09:30:00-05:00,1,1,1,1,1\n2024-03-11T09:30:00-04:00,1,1,1,1,1\n"
    (tmp_path / "A.csv").write_text(text)
    assert read(tmp_path).available_at.tolist() == stamps("2024-03-08T21:00", "2024-03-11T20:00").tolist()  # daily, of those sessions
    (tmp_path / "A.csv").write_text(text + "2024-03-11T10:00:00-04:00,1,1,1,1,1\n2024-03-11T10:30:00-04:00,1,1,1,1,1\n")
    assert read(tmp_path).timestamps.tolist()[:2] == stamps("2024-03-08T14:30", "2024-03-11T13:30").tolist()


def test_naive_timestamps_are_read_in_the_zone_that_is_named(tmp_path):
    (tmp_path / "A.csv").write_text(intraday_text())
    assert read(tmp_path, timezone="America/New_York").timestamps[0] == np.datetime64("2024-01-02T15:30")


def test_dates_without_a_time_need_no_zone(tmp_path):
    (tmp_path / "A.csv").write_text(csv_text().replace("Z", ""))
    for zone in (None, "Asia/Tokyo"):
        bars = read(tmp_path, timezone=zone)
        assert bars.available_at[0] == np.datetime64("2024-01-02T21:00")


def test_new_content_gives_a_new_fingerprint(tmp_path):
    (tmp_path / "A.csv").write_text(csv_text())
    spec = DataSpec(source="files", path=tmp_path)
    before = fingerprint(spec)
    assert fingerprint(spec) == before
    (tmp_path / "A.csv").write_text(csv_text(close=10.9, open=10.9, low=10.9))
    assert fingerprint(spec) != before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "A.csv is empty; expected a header"),
        ("timestamp,open,high,low,close,volume\n", "holds no bars; expected at least one row"),
        ("open,high,low,close,volume\n1,1,1,1,1\n", "A.csv has no column timestamp; found 'open', .* expected timestamp, open"),
        (csv_text().replace("close", "what"), "A.csv has no column close; found .* expected"),
        (csv_text(close="n/a?"), "A.csv has .* in column close"),
        (intraday_text(), r"timestamps without a time zone.* set data\.timezone="),
        (csv_text().replace("2024-01-03T00:00:00Z", "soon"), "A.csv has .*soon"),
        (csv_text().replace("2024-01-03T00:00:00Z", ""), "1 row without a timestamp; expected none"),
        (csv_text() + csv_text().splitlines()[1] + "\n", r"1 duplicate bar, first A at 2024-01-02.* expected one bar"),
        (csv_text(close=""), r"1 missing or infinite value in close, first A at 2024-01-03.*; expected numbers"),
        (csv_text(high="inf"), "1 missing or infinite value in high"),
        (csv_text(low=0.0), r"1 low price of zero or less, first A at 2024-01-03.*; expected more than 0"),
        (csv_text(high=10.5), r"1 bar whose open or close lies outside low\.\.high, first A at 2024-01-03"),
        (csv_text(volume=-1.0), "1 negative volume, first A at 2024-01-03.*; expected 0 or more"),
        (csv_text(rows=1), "found one bar of each symbol; expected at least two"),
        ("timestamp,open,high,low,close,volume\n1,1,1,1,1,1\n", "numbers as timestamps, such as 1; expected dates"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_clear_sentence(tmp_path, content, sentence):
    (tmp_path / "A.csv").write_text(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read(tmp_path / "A.csv")
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_a_path_is_one_clear_sentence(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected a file of bars"):
        read(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"holds no \.parquet, \.csv"):
        read(tmp_path)
    (tmp_path / "A.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"A\.parquet cannot be read: "):
        read(tmp_path)
    (tmp_path / "A.txt").write_text("x")
    with pytest.raises(DataError, match=r"A\.txt"):
        read(tmp_path / "A.txt")
    with pytest.raises(ConfigError, match="source files needs a path; add --path"):
        load(DataSpec(source="files"))


def test_what_is_wrong_with_a_choice_is_one_clear_sentence():
    with pytest.raises(UnknownSymbol, match="has no symbol TSLA; it holds AAPL, FB, GOOG, IBM and MSFT"):
        load(DataSpec(symbols=("AAPL", "TSLA")))
    with pytest.raises(DataError, match="no bars between 2020-01-01 and its end; it spans 2000-03-01 to 2013-03-01"):
        load(DataSpec(start="2020-01-01"))
    with pytest.raises(ConfigError, match="calendar 'NASDAK' is unknown; use one such as NYSE"):
        load(DataSpec(calendar="NASDAK"))
    with pytest.raises(ConfigError, match=r"data\.timeframe is 'fortnightly'; expected a length such as 15min"):
        load(DataSpec(timeframe="fortnightly"))
