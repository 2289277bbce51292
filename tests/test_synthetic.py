from datetime import date, timedelta
from functools import lru_cache
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ploutos.errors import ConfigError, DataError, NoData
from ploutos.market.instruments import instrument
from ploutos.market.quality import check_bars, inspect_bars
from ploutos.market.synthetic.factor import SESSION_PACE
from ploutos.market.synthetic.scenarios import (
    BAD_TICK,
    CRASH,
    FLASH_CRASH,
    OF_ONE_SYMBOL,
    ROUND_LOT,
    SCENARIOS,
    SPLIT,
    UNEVENTFUL,
    Scenario,
)
from ploutos.market.synthetic.simulate import planned_events, simulate
from ploutos.market.synthetic.spec import SyntheticSpec
from ploutos.market.synthetic.stylised_facts import BANDS, MIN_BARS, check_stylised_facts, stylised_facts

PRICES = ["open", "high", "low", "close"]
YEAR = SyntheticSpec(start=date(2023, 1, 3), end=date(2023, 12, 29))
NAMES = ("AAPL", "SPY", "ES", "BTC/USD")


@lru_cache(maxsize=64)
def market(spec: SyntheticSpec = YEAR, symbols: tuple[str, ...] = NAMES) -> pd.DataFrame:
    return simulate(spec, [instrument(symbol) for symbol in symbols])


def one(frame: pd.DataFrame, symbol: str) -> pd.DataFrame:
    return frame[frame["symbol"] == symbol].set_index("timestamp").drop(columns="symbol")


def starts(symbol: str, first: date, last: date, zone: str, timeframe: str = "1h") -> list[str]:
    frame = market(SyntheticSpec(start=first, end=last, timeframe=timeframe), (symbol,))
    return frame["timestamp"].dt.tz_convert(zone).dt.strftime("%a %H:%M").tolist()


def hours(day: str, first: int, last: int) -> list[str]:
    return [f"{day} {hour:02d}:00" for hour in range(first, last + 1)]


def staged(scenario: Scenario, spec: SyntheticSpec = YEAR) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray]]:
    """The normal market, the market with the scenario, and where the scenario says that it strikes."""
    struck = spec.model_copy(update={"scenario": scenario})
    events = planned_events(struck, [instrument(symbol) for symbol in NAMES])
    return market(spec), market(struck), {event.symbol: event.at for event in events}


def utc(stamps: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(stamps).tz_localize("UTC")


def log_returns(frame: pd.DataFrame) -> np.ndarray:
    return np.diff(np.log(frame["close"].to_numpy()))


# --- the same and not the same


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        spec = YEAR.model_copy(update={"seed": seed})
        simulate(spec, [instrument(symbol) for symbol in NAMES]).to_parquet(tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("scenario", ["normal", "planted", "crash", "halted"])
def test_adding_symbols_leaves_the_others_as_they_were(scenario):
    spec = YEAR.model_copy(update={"scenario": scenario})
    few, many = market(spec, ("SPY", "NQ")), market(spec, ("SPY", "NQ", "AAPL", "BTC/USD", "MNQ"))
    for symbol in ("SPY", "NQ"):
        pd.testing.assert_frame_equal(one(few, symbol), one(many, symbol))


@pytest.mark.parametrize(
    ("scenario", "end"),
    [*((scenario, date(2023, 5, 26)) for scenario in UNEVENTFUL), ("normal", date(2023, 7, 3)), ("normal", date(2023, 11, 22))],
)  # ends before a long weekend, a holiday, and Thanksgiving
def test_a_later_end_leaves_earlier_bars_of_an_uneventful_market_as_they_were(scenario, end):
    spec, names = YEAR.model_copy(update={"scenario": scenario}), NAMES[:2] if scenario == "planted_cross" else NAMES
    whole, cut = market(spec, names), market(spec.model_copy(update={"end": end}), names)
    for symbol in names:
        pd.testing.assert_frame_equal(one(cut, symbol), one(whole, symbol).iloc[: len(one(cut, symbol))])


def test_every_symbol_of_its_own_moves_on_its_own():
    frame = market(YEAR, ("AAPL", "MSFT", "BTC/USD", "DOGE/USD"))
    for a, b in (("AAPL", "MSFT"), ("BTC/USD", "DOGE/USD")):
        correlation = np.corrcoef(log_returns(one(frame, a)), log_returns(one(frame, b)))[0, 1]
        assert 0.05 < correlation < 0.9, "a common factor, and more"


def test_a_micro_is_its_big_brother_and_the_fund_follows_the_same_path():
    frame = market(YEAR, ("ES", "MES", "SPY", "NQ"))
    pd.testing.assert_frame_equal(one(frame, "ES")[PRICES], one(frame, "MES")[PRICES])
    closes = frame.pivot(index="timestamp", columns="symbol", values="close").dropna()
    correlation = np.log(closes).diff().corr()
    assert correlation.loc["ES", "SPY"] > 0.999
    assert 0.8 < correlation.loc["ES", "NQ"] < 0.99


# --- bars


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    timeframe=st.sampled_from(["15min", "30min", "1h", "4h", "1D"]),
    scenario=st.sampled_from(get_args(Scenario)),
    days=st.sampled_from([35, 60]),
)
def test_bars_pass_the_check_whatever_happens_in_them(seed, timeframe, scenario, days):
    spec = SyntheticSpec(
        seed=seed, timeframe=timeframe, scenario=scenario, start=date(2024, 2, 26), end=date(2024, 2, 26) + timedelta(days=days)
    )
    names = NAMES[:2] if scenario == "planted_cross" else NAMES  # which takes one clock
    frame = market(spec, names)
    check_bars(frame, "synthetic")
    assert frame.dtypes.astype(str).to_dict() == {
        "symbol": "str",
        "timestamp": "datetime64[us, UTC]",
        **dict.fromkeys([*PRICES, "volume"], "float64"),
    }
    assert (frame["high"] >= frame[["open", "close"]].max(axis=1)).all()
    assert (frame["low"] <= frame[["open", "close"]].min(axis=1)).all()
    assert (frame["low"] > 0).all()
    assert (frame["volume"] >= 0).all()
    assert frame.equals(frame.sort_values(["symbol", "timestamp"], ignore_index=True))
    assert set(frame["symbol"]) == set(names)


def test_futures_are_quoted_in_ticks_near_their_own_level():
    levels = {"NQ": 24_000, "ES": 6_400, "YM": 44_000, "RTY": 2_200, "MNQ": 24_000, "MES": 6_400, "MYM": 44_000, "M2K": 2_200}
    frame = market(YEAR, tuple(levels))
    for symbol, level in levels.items():
        prices = one(frame, symbol)[PRICES].to_numpy()
        ticks = prices / instrument(symbol).tick_size
        np.testing.assert_allclose(ticks, np.rint(ticks), atol=1e-6)
        assert prices[0, 0] == pytest.approx(level, rel=0.03)
    assert market(YEAR, ("RTY",))["close"].astype(str).str.len().max() <= 6, "2203.3 and not 2203.3000000000002"


def test_shares_start_between_40_and_400():
    symbols = tuple(f"S{k}" for k in range(30))
    first = market(SyntheticSpec(start=date(2024, 3, 4), end=date(2024, 3, 4)), symbols).groupby("symbol")["open"].first()
    assert first.between(35, 450).all()
    assert first.max() / first.min() > 3


@pytest.mark.parametrize(("symbol", "n_hours"), [("SPY", 7), ("ES", 23), ("BTC/USD", 24)])
def test_longer_bars_are_the_shorter_ones_put_together(symbol, n_hours):
    week = {"start": date(2024, 3, 4), "end": date(2024, 3, 7)}
    daily, hourly = (one(market(SyntheticSpec(timeframe=timeframe, **week), (symbol,)), symbol) for timeframe in ("1D", "1h"))
    assert len(hourly) == 4 * n_hours
    for day in range(4):
        bars = hourly.iloc[day * n_hours : (day + 1) * n_hours]
        whole = daily.iloc[day]
        assert daily.index[day] == pd.Timestamp(2024, 3, 4 + day, tz="UTC")
        expected = [bars["open"].iloc[0], bars["high"].max(), bars["low"].min(), bars["close"].iloc[-1]]
        assert whole[PRICES].tolist() == expected
        assert whole["volume"] == pytest.approx(bars["volume"].sum(), abs=n_hours)


def test_a_share_gaps_over_night_and_never_within_a_day():
    bars = one(market(), "SPY")
    gap = np.abs(np.log(bars["open"].to_numpy()[1:] / bars["close"].to_numpy()[:-1]))
    overnight = np.diff(bars.index.date) > timedelta(0)
    assert gap[~overnight].max() < 1e-5
    assert np.median(gap[overnight]) > 1e-3


def test_volume_follows_absolute_returns_and_the_time_of_day():
    bars = one(market(), "ES")
    correlation = np.corrcoef(np.abs(log_returns(bars)), np.log(bars["volume"].iloc[1:]))[0, 1]
    assert 0.2 < correlation < 0.7
    busy = bars["volume"].groupby(bars.index.tz_convert("America/New_York").hour).mean()
    assert busy.loc[10:15].min() > 2 * busy.loc[19:23].max()


def test_the_annual_volatility_is_that_of_the_index():
    long = {"start": date(2005, 1, 3), "end": date(2024, 12, 31), "timeframe": "1D"}
    for annual in (0.1, 0.3):
        bars = market(SyntheticSpec(annual_volatility=annual, **long), ("SPY",))
        assert np.std(log_returns(bars)) * np.sqrt(252) == pytest.approx(annual, rel=0.25)


# --- calendars, on literal dates


def test_new_york_keeps_its_hours_when_summer_time_begins():
    expected = hours("Fri", 9, 15) + hours("Mon", 9, 15)
    assert starts("SPY", date(2024, 3, 8), date(2024, 3, 11), "America/New_York") == expected
    utc_hours = [hour.removesuffix(":00") for hour in starts("SPY", date(2024, 3, 8), date(2024, 3, 11), "UTC")]
    assert utc_hours[0] == "Fri 14"
    assert utc_hours[7] == "Mon 13"


def test_new_york_closes_early_before_independence_day_and_after_thanksgiving():
    week = starts("SPY", date(2024, 7, 3), date(2024, 7, 5), "America/New_York")
    assert week == hours("Wed", 9, 12) + hours("Fri", 9, 15)
    thanksgiving = starts("SPY", date(2024, 11, 27), date(2024, 11, 29), "America/New_York")
    assert thanksgiving == hours("Wed", 9, 15) + hours("Fri", 9, 12)
    days = market(SyntheticSpec(start=date(2024, 11, 27), end=date(2024, 12, 2), timeframe="1D"), ("SPY",))["timestamp"]
    assert days.dt.strftime("%m-%d %H:%M").tolist() == ["11-27 00:00", "11-29 00:00", "12-02 00:00"]


def test_chicago_trades_from_the_evening_before_and_pauses_for_an_hour():
    monday = starts("ES", date(2024, 3, 11), date(2024, 3, 11), "America/Chicago")  # the first after the change of clocks
    assert monday == hours("Sun", 17, 23) + hours("Mon", 0, 15)


def test_chicago_closes_at_a_quarter_past_noon_after_thanksgiving():
    friday = starts("ES", date(2024, 11, 29), date(2024, 11, 29), "America/Chicago")
    assert friday[-1] == "Fri 12:00"
    assert friday[0] == "Thu 17:00"


def test_coins_trade_round_the_clock():
    assert starts("BTC/USD", date(2024, 3, 9), date(2024, 3, 10), "UTC") == hours("Sat", 0, 23) + hours("Sun", 0, 23)


def test_a_first_hour_that_holds_half_an_hour_has_a_half_hours_move():
    frame = market(SyntheticSpec(start=date(2020, 1, 2), end=date(2025, 12, 31), scenario="calm"), ("SPY",))
    within = np.abs(np.log(frame["close"] / frame["open"])).groupby(frame["timestamp"].dt.tz_convert("America/New_York").dt.hour).mean()
    expected = SESSION_PACE[0] / np.hypot(*SESSION_PACE[1:3])
    assert within.loc[9] / within.loc[10] == pytest.approx(expected, rel=0.15)


# --- scenarios


def test_every_scenario_is_described_and_says_where_it_strikes():
    assert tuple(SCENARIOS) == get_args(Scenario)
    for scenario in get_args(Scenario):
        events = planned_events(YEAR.model_copy(update={"scenario": scenario}), [instrument(symbol) for symbol in NAMES])
        hit = () if scenario in UNEVENTFUL else NAMES[:1] if scenario in OF_ONE_SYMBOL else NAMES
        assert tuple(event.symbol for event in events) == hit
        assert all(len(event.at) and event.scenario == scenario for event in events)


@pytest.mark.parametrize("timeframe", ["1h", "1D"])
@pytest.mark.parametrize("scenario", ["crash", "flash_crash", "halted", "stale", "bad_tick", "missing_week"])
def test_bars_before_an_event_and_unhurt_symbols_are_those_of_the_normal_market(scenario, timeframe):
    base, frame, at = staged(scenario, YEAR.model_copy(update={"timeframe": timeframe}))
    for symbol in NAMES:
        before, after = one(base, symbol), one(frame, symbol)
        if symbol in at:
            first = utc(at[symbol])[0]
            before, after = before[before.index < first], after[after.index < first]
            assert len(after) > 0.3 * len(one(base, symbol))
        pd.testing.assert_frame_equal(before, after)


def test_a_crash_takes_a_fifth_of_everything_within_a_session_and_keeps_it():
    base, frame, at = staged("crash")
    for symbol in NAMES:
        stamps = utc(at[symbol])
        assert stamps.tz_convert("America/New_York").hour.tolist() == list(range(9, 16))
        ratio = one(frame, symbol)["close"] / one(base, symbol)["close"]
        assert ratio[ratio.index < stamps[0]].eq(1).all()
        np.testing.assert_allclose(ratio[ratio.index >= stamps[-1]], 1 - CRASH, rtol=1e-3)
    daily = one(market(YEAR.model_copy(update={"scenario": "crash", "timeframe": "1D"})), "SPY")["close"].pct_change()
    assert daily.min() == pytest.approx(-CRASH, abs=0.05)
    assert daily.idxmin().date() == stamps[0].date()


def test_a_flash_crash_is_won_back_within_hours():
    base, frame, at = staged("flash_crash")
    for symbol in NAMES:
        stamps = utc(at[symbol])
        assert len(stamps) == 2
        ratio = one(frame, symbol) / one(base, symbol)
        others = ratio[~ratio.index.isin(stamps)]
        np.testing.assert_allclose(others["close"], 1, rtol=1e-3)
        assert ratio.loc[stamps[0], "low"] < 1 - 0.8 * FLASH_CRASH
        assert ratio.loc[stamps[-1], "close"] == pytest.approx(1, abs=1e-3)


def test_the_trend_drifts_by_three_volatilities_a_year():
    base, frame, _ = staged("trend")
    lead = {symbol: np.log(one(frame, symbol)["close"] / one(base, symbol)["close"]) for symbol in NAMES}
    assert all((np.diff(path) > -1e-4).all() for path in lead.values())
    for symbol in ("SPY", "ES"):  # of beta 1
        assert lead[symbol].iloc[-1] == pytest.approx(3 * YEAR.annual_volatility, rel=0.05)


def test_calm_is_quieter_and_without_jumps():
    base, frame, _ = staged("calm", SyntheticSpec())
    for symbol in ("SPY", "AAPL"):
        normal, calm = log_returns(one(base, symbol)), log_returns(one(frame, symbol))
        assert np.std(calm) < np.std(normal)


def test_a_regime_switch_doubles_volatility_on_its_session():
    _, frame, at = staged("regime_switch", SyntheticSpec())
    for symbol in NAMES:
        bars, first = one(frame, symbol), utc(at[symbol])[0]
        before, after = log_returns(bars[bars.index < first]), log_returns(bars[bars.index >= first])
        assert 1.5 < np.mean(np.abs(after)) / np.mean(np.abs(before)) < 2.9


@pytest.mark.parametrize(("scenario", "n_sessions"), [("halted", 3), ("stale", 2)])
def test_a_halt_leaves_no_bars_and_a_stale_quote_repeats_itself(scenario, n_sessions):
    base, frame, at = staged(scenario)
    stamps = utc(at["AAPL"])
    assert len(set(stamps.date)) == n_sessions
    bars, whole = one(frame, "AAPL"), one(base, "AAPL")
    if scenario == "halted":
        pd.testing.assert_frame_equal(bars, whole.drop(index=stamps))
    else:
        last = whole["close"][whole.index < stamps[0]].iloc[-1]
        assert (bars.loc[stamps, PRICES] == last).all(axis=None)
        assert (bars.loc[stamps, "volume"] == 0).all()
        pd.testing.assert_frame_equal(bars.drop(index=stamps), whole.drop(index=stamps))


def test_a_missing_week_is_missing_for_everybody():
    base, frame, at = staged("missing_week")
    for symbol in NAMES:
        stamps = utc(at[symbol])
        pd.testing.assert_frame_equal(one(frame, symbol), one(base, symbol).drop(index=stamps))
    assert len(at["BTC/USD"]) == 7 * 24
    assert 4 <= len(set(utc(at["AAPL"]).date)) <= 5


def test_an_unadjusted_split_divides_prices_and_multiplies_volume_from_its_bar_on():
    base, frame, at = staged("unadjusted_split")
    since = one(base, "AAPL").index >= utc(at["AAPL"])[0]
    ratio = one(frame, "AAPL") / one(base, "AAPL")
    np.testing.assert_allclose(ratio.loc[since, PRICES], 1 / SPLIT, rtol=1e-4)
    np.testing.assert_allclose(ratio.loc[since, "volume"], SPLIT, rtol=1e-4)
    assert (ratio[~since] == 1).all(axis=None)


def test_a_bad_tick_is_one_wrong_close():
    base, frame, at = staged("bad_tick")
    ratio = one(frame, "AAPL") / one(base, "AAPL")
    assert len(at["AAPL"]) == 1
    wrong = ratio.loc[utc(at["AAPL"])]
    assert wrong["close"].iloc[0] == pytest.approx(BAD_TICK, rel=1e-4)
    assert wrong[["open", "high", "volume"]].eq(1).all(axis=None)
    assert ratio.drop(index=wrong.index).eq(1).all(axis=None)


def test_a_swap_of_units_counts_volume_in_lots():
    base, frame, at = staged("volume_unit_swap")
    bars, whole = one(frame, "AAPL"), one(base, "AAPL")
    pd.testing.assert_frame_equal(bars[PRICES], whole[PRICES])
    since = bars.index >= utc(at["AAPL"])[0]
    np.testing.assert_allclose(bars["volume"][since] * ROUND_LOT, whole["volume"][since], atol=ROUND_LOT)
    pd.testing.assert_series_equal(bars["volume"][~since], whole["volume"][~since])


@pytest.mark.parametrize(
    ("scenario", "check"),
    [
        ("halted", "gaps"),
        ("missing_week", "gaps"),
        ("unadjusted_split", "suspected_splits"),
        ("bad_tick", "bad_ticks"),
        ("stale", "stale"),
    ],
)
def test_the_inspection_finds_what_was_planned(scenario, check):
    spec, instruments = YEAR.model_copy(update={"scenario": scenario}), [instrument(symbol) for symbol in NAMES]
    report = inspect_bars(simulate(spec, instruments), spec.bar, instruments=instruments)
    found = {finding.symbol: finding.at for finding in report.findings if finding.check == check}
    for event in planned_events(spec, instruments):
        assert np.isin(event.at, found[event.symbol]).all()


def signs(symbol: str, scenario: Scenario, **settings) -> np.ndarray:
    spec = SyntheticSpec(scenario=scenario, **settings)
    return np.sign(log_returns(market(spec, (symbol,))))


def test_the_planted_sign_can_be_predicted_from_the_bar_before_as_documented():
    for symbol in ("SPY", "NQ"):
        sign = signs(symbol, "planted", strength=4.5)
        assert np.mean(sign[:-1] == sign[1:]) == pytest.approx(0.66, abs=2.5 / np.sqrt(len(sign)))


def test_the_planted_return_can_be_earned_from_open_to_close():
    bars = market(SyntheticSpec(scenario="planted", strength=4.5), ("SPY",))
    earned = np.log(bars["close"] / bars["open"]).to_numpy()
    rule = np.sign(earned[:-1]) * earned[1:]
    assert rule.mean() / (rule.std() / np.sqrt(len(rule))) > 10
    np.testing.assert_allclose(bars["open"].iloc[1:], bars["close"].iloc[:-1])


def test_noise_has_no_memory_and_no_drift():
    for symbol in ("SPY", "NQ"):
        bars = market(SyntheticSpec(scenario="noise"), (symbol,))
        returns, tolerance = bars["close"].pct_change().dropna().to_numpy(), 4 / np.sqrt(len(bars))
        assert abs(returns.mean()) < tolerance * returns.std()
        for lag in (1, 2, 7, 35):
            past, future = returns[:-lag], returns[lag:]
            for signal in (past, np.sign(past), np.abs(past), bars["volume"].iloc[1:-lag]):
                assert abs(np.corrcoef(signal, future)[0, 1]) < tolerance
        assert np.std(returns) * np.sqrt(len(returns) / 6) == pytest.approx(0.18, rel=0.03)


def test_symbols_of_noise_do_not_know_each_other():
    frame = market(SyntheticSpec(scenario="noise"), ("AAPL", "MSFT"))
    assert abs(np.corrcoef(log_returns(one(frame, "AAPL")), log_returns(one(frame, "MSFT")))[0, 1]) < 0.04


# --- stylised facts

INDICES = ("SPY", "QQQ", "DIA", "IWM", "ES", "NQ", "YM", "RTY")


def test_the_synthetic_market_shows_every_stylised_fact():
    frame = market(SyntheticSpec(), (*INDICES, "AAPL", "MSFT", "NVDA"))
    assert frame.groupby("symbol").size().min() >= MIN_BARS
    assert [failure.sentence for failure in check_stylised_facts(frame, INDICES)] == []


@pytest.mark.parametrize("symbol", ["SPY", "NQ"])
def test_a_geometric_brownian_motion_on_the_same_clock_fails(symbol):
    stamps = market(SyntheticSpec(), (symbol,))["timestamp"]
    steps = np.random.default_rng(5).normal(0, 0.003, len(stamps))
    walk = pd.DataFrame({"symbol": symbol, "timestamp": stamps, "close": 100 * np.exp(np.cumsum(steps))})
    failed = {failure.fact for failure in check_stylised_facts(walk)}
    assert failed == {"excess_kurtosis", "hill_left", "hill_right", "acf_abs_1d", "acf_abs_20d", "leverage", "opening_activity"}


def test_two_walks_are_no_indices():
    frame = market(SyntheticSpec(scenario="noise"), ("SPY", "QQQ"))
    failure = check_stylised_facts(frame, ("SPY", "QQQ"))[-1]
    assert failure.symbols == ("SPY", "QQQ")
    assert failure.fact == "index_correlation"
    assert failure.sentence.startswith("SPY-QQQ has index_correlation ")
    assert failure.sentence.endswith("; expected 0.8 to 1")


def from_returns(returns: np.ndarray) -> pd.DataFrame:
    stamps = market(SyntheticSpec(), ("SPY",))["timestamp"].iloc[: len(returns) + 1]
    return pd.DataFrame({"symbol": "SPY", "timestamp": stamps, "close": np.exp(np.r_[0, np.cumsum(returns)])})


def test_facts_are_those_of_series_with_known_facts():
    random = np.random.default_rng(3)
    n = MIN_BARS
    pareto = (random.pareto(3, n) + 1) * np.where(random.random(n) < 0.5, -1, 1) * 0.001
    facts = stylised_facts(from_returns(pareto))
    assert facts["hill_left"] == pytest.approx(3, rel=0.25)
    assert facts["hill_right"] == pytest.approx(3, rel=0.25)
    bounce = random.normal(0, 0.001, n + 1)
    assert stylised_facts(from_returns(np.diff(bounce)))["acf_return_1"] == pytest.approx(-0.5, abs=0.03)
    uniform = random.uniform(-0.001, 0.001, n)
    assert stylised_facts(from_returns(uniform))["excess_kurtosis"] == pytest.approx(-1.2, abs=0.05)


def test_a_market_turned_upside_down_has_no_leverage_and_the_other_tail():
    bars = market(SyntheticSpec(), ("SPY",))
    up, down = stylised_facts(bars), stylised_facts(bars.assign(close=1e4 / bars["close"]))
    assert down["leverage"] > 0 > up["leverage"]
    assert down["hill_left"] == pytest.approx(up["hill_right"], rel=1e-6)
    assert down["acf_abs_1d"] == pytest.approx(up["acf_abs_1d"], rel=1e-6)


def test_every_band_is_of_a_fact():
    assert set(BANDS) - {"index_correlation"} <= set(stylised_facts(market(SyntheticSpec(), ("SPY",))))


def test_facts_of_few_bars_daily_bars_or_two_symbols_are_refused():
    with pytest.raises(DataError, match=r"found 1744 bars of SPY; expected at least 10000"):
        check_stylised_facts(market(YEAR, ("SPY",)))
    with pytest.raises(DataError, match=r"found daily bars; expected intraday ones"):
        stylised_facts(market(YEAR.model_copy(update={"timeframe": "1D"}), ("SPY",)))
    with pytest.raises(DataError, match=r"found bars of 2 symbols; expected those of one"):
        stylised_facts(market(YEAR, ("SPY", "QQQ")))
    with pytest.raises(DataError, match=r"found no bars of DIA; expected those of every index; the frame holds SPY"):
        check_stylised_facts(market(YEAR, ("SPY",)), ("SPY", "DIA"))
    with pytest.raises(DataError, match=r"found 100 bars; expected more than 20 days of 7"):
        stylised_facts(market(YEAR, ("SPY",)).head(100))


# --- what cannot be simulated


@pytest.mark.parametrize("timeframe", ["45min", "2D", "0h", "soon", "5h", "7min"])
def test_a_timeframe_that_does_not_fit_a_day_is_refused(timeframe):
    with pytest.raises(ValidationError, match=rf"timeframe is '{timeframe}'; expected 1D, or a length that fits a day of half hours"):
        SyntheticSpec(timeframe=timeframe)


def test_a_span_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValidationError, match=r"start 2024-01-03 is after end 2024-01-02; expected an earlier start"):
        SyntheticSpec(start=date(2024, 1, 3), end=date(2024, 1, 2))


def test_a_market_needs_instruments_sessions_and_room():
    with pytest.raises(ConfigError, match=r"was given no instruments; expected at least one"):
        market(YEAR, ())
    with pytest.raises(ConfigError, match=r"given SPY more than once; expected each symbol once"):
        market(YEAR, ("SPY", "NQ", "SPY"))
    saturday = {"start": date(2024, 3, 9), "end": date(2024, 3, 9)}
    with pytest.raises(NoData, match=r"NYSE has no session from 2024-03-09 to 2024-03-09; SPY needs one"):
        market(SyntheticSpec(**saturday), ("SPY",))
    assert len(market(SyntheticSpec(**saturday), ("BTC/USD",))) == 24
    with pytest.raises(ConfigError, match=r"scenario crash has 10 NYSE sessions from 2024-03-04 to 2024-03-15; expected at least 20"):
        market(SyntheticSpec(start=date(2024, 3, 4), end=date(2024, 3, 15), scenario="crash"))
