"""Rolls of continuous futures: gaps at rolls are found where they were planted, never in a random walk, and taken out whole."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from ploutos.errors import ConfigError, DataError
from ploutos.market import calendar as calendars
from ploutos.market.instruments import instrument
from ploutos.market.quality import inspect_bars
from ploutos.market.rolls import MONTH_CODES, back_adjust, find_rolls

CME, DAY, HOUR = "CME Globex Equity", pd.Timedelta(days=1), pd.Timedelta(hours=1)
NQ = instrument("NQ")
DAYS = calendars.expected_bars(CME, DAY, date(2014, 1, 2), date(2023, 12, 29))


def third_fridays(months=(3, 6, 9, 12)):
    starts = [np.datetime64(f"{year}-{month:02}-01") for year in range(2014, 2024) for month in months]
    return np.busday_offset(np.array(starts), 2, roll="forward", weekmask="Fri")


def walk(seed, gap=0.0, after=1, overnight=0.05, tails=None, months=(3, 6, 9, 12)):
    """Daily bars of 1.1 % volatility, a share of its variance over night, and gaps so many sessions after the third Friday."""
    random = np.random.default_rng(seed)
    n = len(DAYS)
    noise = random.normal(size=(2, n)) if tails is None else random.standard_t(tails, (2, n)) / np.sqrt(tails / (tails - 2))
    nightly, daily = 0.011 * np.sqrt([[overnight], [1 - overnight]]) * noise
    rolls = np.searchsorted(DAYS, third_fridays(months).astype("datetime64[us]"), side="right") - 1 + after
    nightly[rolls] += np.log1p(gap)
    close = 4000 * np.exp(np.cumsum(nightly + daily))
    open_ = close * np.exp(-daily)
    prices = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    frame = pd.DataFrame({"symbol": "NQ", "timestamp": pd.DatetimeIndex(DAYS).tz_localize("UTC"), **prices, "volume": 1.0})
    return frame, tuple(DAYS[rolls].astype("datetime64[D]").tolist())


@pytest.mark.parametrize(
    ("gap", "after", "overnight"), [(0.012, 1, 0.05), (0.012, -6, 0.3), (-0.012, 1, 0.6), (0.005, -10, 0.05), (0.005, 1, 0.05)]
)
def test_gaps_at_rolls_are_found_at_their_dates(gap, after, overnight):
    bars, rolls = walk(0, gap, after, overnight)
    found = find_rolls(bars, NQ, CME)
    assert found.dates == rolls
    assert len(rolls) == 40
    assert found.p_value < 1e-4
    assert found.mean_gap == pytest.approx(gap, abs=0.003)


@pytest.mark.parametrize(("overnight", "tails"), [(0.05, None), (0.3, 3.0), (0.8, 2.2)])
def test_no_random_walk_has_rolls_however_fat_its_tails(overnight, tails):
    assert [seed for seed in range(70) if find_rolls(walk(seed, 0.0, 1, overnight, tails)[0], NQ, CME).dates] == []


def test_rolls_that_jump_up_for_years_and_then_down_are_found():
    bars, rolls = walk(1, 0.0, 1, months=range(1, 13))
    ratio = np.ones(len(bars))
    ratio[np.isin(DAYS.astype("datetime64[D]"), rolls)] = np.where(np.arange(120) % 60 < 30, 1.01, 1 / 1.01)
    bars[["open", "high", "low", "close"]] = bars[["open", "high", "low", "close"]].mul(np.cumprod(ratio), axis=0)
    monthly = NQ.model_copy(update={"roll_cycle": MONTH_CODES})
    assert find_rolls(bars, monthly, CME).dates == rolls


def test_rolls_that_come_a_few_days_sooner_or_later_are_found():
    """On the third Monday of the month, which lies before the third Friday or after it."""
    bars, _ = walk(2)
    mondays = np.busday_offset(third_fridays().astype("datetime64[M]").astype("datetime64[D]"), 2, roll="forward", weekmask="Mon")
    rolls = np.searchsorted(DAYS, mondays.astype("datetime64[us]"))
    ratio = np.ones(len(bars))
    ratio[rolls] = 1.012
    bars[["open", "high", "low", "close"]] = bars[["open", "high", "low", "close"]].mul(np.cumprod(ratio), axis=0)
    assert find_rolls(bars, NQ, CME).dates == tuple(DAYS[rolls].astype("datetime64[D]").tolist())


def test_what_has_no_contracts_or_bars_longer_than_a_day_has_no_rolls():
    bars, _ = walk(0, 0.012)
    assert find_rolls(bars, instrument("AAPL"), "NYSE").dates == ()
    assert find_rolls(bars[::5], NQ, CME).dates == ()
    assert find_rolls(bars[:1], NQ, CME).dates == ()
    with pytest.raises(ConfigError, match="roll_cycle of NQ is 'HMA'; A is not one of the month letters"):
        find_rolls(bars, NQ.model_copy(update={"roll_cycle": "HMA"}), CME)


def test_prices_of_zero_or_less_are_no_gaps():
    bars, rolls = walk(0, 0.012)
    bars.loc[1000:1010, ["open", "high", "low", "close"]] -= 6000
    assert find_rolls(bars, NQ, CME).dates == rolls


def test_an_inspection_names_the_gaps_and_is_silent_once_they_are_gone():
    bars, rolls = walk(0, 0.012)
    finding = inspect_bars(bars, DAY, CME, [NQ]).findings[0]
    assert (finding.check, finding.severity, finding.count) == ("roll_gaps", "warning", 40)
    assert finding.sentence.startswith("NQ jumps by +1.2% on average at 40 expected rolls, first 2014-03-24T00:00Z, at 40 of them out of")
    assert "set data.rolls=detected or give the dates" in finding.sentence
    assert inspect_bars(back_adjust(bars, rolls, CME), DAY, CME, [NQ]).findings == ()
    assert inspect_bars(bars, DAY, CME).findings == ()


def test_back_adjustment_takes_out_the_gaps_and_nothing_else():
    """The same market with and without gaps; the night of a roll is lost with its gap."""
    bars, rolls = walk(3, 0.012)
    before = bars.copy()
    adjusted = back_adjust(bars, rolls, CME)
    pd.testing.assert_frame_equal(bars, before)
    at_roll = np.isin(DAYS.astype("datetime64[D]"), rolls)
    gaps = adjusted["open"].to_numpy()[1:] / adjusted["close"].to_numpy()[:-1]
    np.testing.assert_allclose(gaps[at_roll[1:]], 1.0)
    np.testing.assert_allclose(gaps[~at_roll[1:]], (bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1])[~at_roll[1:]])
    np.testing.assert_allclose(adjusted["high"] / adjusted["close"], bars["high"] / bars["close"])
    last = bars.index[bars["timestamp"] >= pd.Timestamp(rolls[-1], tz="UTC")]
    pd.testing.assert_frame_equal(adjusted.loc[last], bars.loc[last])
    true, _ = walk(3)
    gain = {name: frame["close"].iloc[-1] / frame["close"].iloc[0] for name, frame in {"raw": bars, "true": true, "back": adjusted}.items()}
    assert gain["raw"] / gain["true"] == pytest.approx(1.012**40)
    assert gain["back"] / gain["true"] == pytest.approx(1.0, abs=0.05)


def test_bars_within_a_day_roll_at_their_session_which_opens_the_evening_before():
    """The session of Monday 2024-03-18 opens on Sunday at 22:00 UTC."""
    stamps = calendars.expected_bars(CME, HOUR, date(2024, 3, 14), date(2024, 3, 19))
    close = np.where(stamps < np.datetime64("2024-03-17T22:00"), 100.0, 102.0)
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    frame = pd.DataFrame({"symbol": "NQ", "timestamp": pd.DatetimeIndex(stamps).tz_localize("UTC"), **columns, "volume": 1.0})
    assert set(back_adjust(frame, [date(2024, 3, 18)], CME)["close"]) == {102.0}


@pytest.mark.parametrize("day", [date(2014, 1, 2), date(2016, 1, 2), date(2013, 1, 2), date(2030, 1, 2)])
def test_a_roll_on_no_session_of_the_bars_is_refused(day):
    bars, rolls = walk(0, 0.012)
    with pytest.raises(
        ConfigError, match=rf"data\.rolls gives {day} for NQ, which is not a session after the first of its bars \(2014-01-02"
    ):
        back_adjust(bars, [*rolls, day], CME)


def test_no_rolls_change_nothing_and_a_price_of_zero_has_no_ratio():
    bars, rolls = walk(0, 0.012)
    pd.testing.assert_frame_equal(back_adjust(bars, (), CME), bars)
    bars.loc[bars["timestamp"] == pd.Timestamp(rolls[0], tz="UTC"), "open"] = 0.0
    with pytest.raises(DataError, match=f"NQ has a price of zero or less at its roll of {rolls[0]}"):
        back_adjust(bars, rolls, CME)
