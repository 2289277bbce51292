"""Prompts word for word: what they may contain, what they may not depend on, and how they read back."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import mock_advisor, random_panel

from ploutos.advisor.advisor import SCHEMA, Advice, advise, prompt_at
from ploutos.advisor.config import LLMConfig, Mask
from ploutos.advisor.mock import MockBackend
from ploutos.advisor.prompts import SHOWN_NAMES, Terms, parse, render
from ploutos.advisor.signals import ACTIONS, Signals
from ploutos.advisor.snapshot import Snapshot, snapshot_at
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import DataError
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.market.bars import FIELDS
from ploutos.market.instruments import InstrumentSpec

PRICES = ("open", "high", "low", "close")
TERMS = Terms(bar="1 hour", horizon="5 bars", sold="none", cost=5.0)
GOLDEN_SYSTEM = """You advise a trading desk on one asset. The numbers below were known at the close of the last bar.
A bar is 1 hour. Your advice is carried out at the open of the next bar and stands for 5 bars; judge the price over that time.
You are not told what is held. buy moves it to a full position, sell to none; hold leaves it as it is, so that nothing is traded.
A trade costs about 5.0 basis points of its value each way. Windows in the names of the numbers count bars.
Answer with one JSON object, in this order: reason (at most 200 characters), action (buy, sell or hold), confidence (integer
0 to 100: how likely the direction is right).
Schema: {"properties":{"b":{"a":1,"z":2},"a":{}},"type":"object"}"""
SCHEMA_OF_TWO = {"type": "object", "properties": {"b": {"z": 2, "a": 1}, "a": {}}}
GOLDEN_BLIND = """asset: ASSET
closes, 100 at the first bar shown; moves in standard deviations of one bar
t-2 close 100.00
t-1 close 102.00 move +1.25
t-0 close 99.00 move -1.80
adx_slope: 0.012
rsi_15: 0.500
market_regime: -1.000"""
GOLDEN_REVEALED = """asset: IBM
as of: 2001-05-04T20:00:00Z
closes; moves in standard deviations of one bar
2001-05-02T13:30Z close 50
2001-05-03T13:30Z close 51 move +1.25
2001-05-04T13:30Z close 49.5 move -1.80
adx_slope: 0.012
rsi_15: 0.500
market_regime: -1.000"""
READ = {"adx_slope": 0.012, "rsi_15min": 0.5, "market_regime": -1.0}
SNAPSHOT = Snapshot(
    symbol="IBM",
    as_of=np.datetime64("2001-05-04T20:00:00", "us"),
    timestamps=np.array(["2001-05-02T13:30", "2001-05-03T13:30", "2001-05-04T13:30"], dtype="datetime64[us]"),
    closes=np.array([50.0, 51.0, 49.5]),
    moves=np.array([np.nan, 1.25, -1.8]),
    features={"adx_slope": 0.01234, "rsi_60min": float("nan"), "rsi_15min": 0.5, "market_regime": -1.0},
)  # fmt: skip


def prompts_of(bars, market, positions=range(300, 700, 5), mask=Mask.ALL):
    asked = [(t, s) for t in positions for s in range(bars.n_symbols) if bars.tradable[t, s]]
    return [prompt_at(bars, lambda t, s: market[t, s], bars.symbols[s], bars.available_at[t], mask) for t, s in asked]


@pytest.fixture(scope="module")
def market(panel):
    return market_features(panel)


def test_the_blind_prompt_is_the_golden_one_and_its_features_read_back():
    system, user = render(SNAPSHOT, SCHEMA_OF_TWO, TERMS)
    assert (system.role, system.content) == ("system", GOLDEN_SYSTEM)
    assert (user.role, user.content) == ("user", GOLDEN_BLIND)
    assert parse((system, user)) == READ


def test_the_revealing_prompt_is_the_golden_one_and_differs_in_nothing_but_name_dates_and_prices():
    system, user = render(SNAPSHOT, SCHEMA_OF_TWO, TERMS, Mask.NONE)
    assert system.content == GOLDEN_SYSTEM
    assert user.content == GOLDEN_REVEALED
    assert parse((system, user)) == READ


@pytest.mark.parametrize(
    ("mask", "name", "day", "price"),
    [
        ("all", False, False, False),
        ("names", False, True, True),
        ("dates", True, False, True),
        ("levels", True, True, False),
        ("none", True, True, True),
    ],
)
def test_each_mask_hides_what_it_says_and_nothing_else(mask, name, day, price):
    text = render(SNAPSHOT, SCHEMA_OF_TWO, TERMS, Mask(mask))[1].content
    assert ("IBM" in text) is name
    assert ("2001" in text) is day
    assert ("close 49.5 " in text) is price
    assert ("asset: ASSET" in text) is not name
    assert ("t-0 close" in text) is not day
    assert ("100.00" in text) is not price
    assert text.endswith("adx_slope: 0.012\nrsi_15: 0.500\nmarket_regime: -1.000")


def test_reveal_is_the_mask_that_hides_nothing_and_a_default_mask_leaves_every_key_as_it_was():
    assert LLMConfig().hidden is Mask.ALL
    assert LLMConfig(reveal=True).hidden is LLMConfig(reveal=True, mask="names").hidden is Mask.NONE
    assert "mask" not in LLMConfig().cache_fields()
    assert LLMConfig(mask="names").cache_fields()["mask"] == "names"
    assert LLMConfig(provider="mock", mask="names").cache_fields() != LLMConfig(provider="mock").cache_fields()


def test_a_prompt_states_its_bar_its_horizon_its_costs_and_what_sell_means(panel, market):
    hourly = replace(panel, timeframe=pd.Timedelta("1h"))

    def head(bars, symbol="S0", **more):
        return prompt_at(bars, lambda t, s: market[t, s], symbol, bars.available_at[400], **more)[0].content

    assert "A bar is 1 day." in head(panel)
    assert "A bar is 1 hour." in head(hourly)
    assert "stands for 20 bars;" in head(panel, cadence_bars=20)
    assert "sell to none;" in head(panel)
    assert "sell to a full short position;" in head(panel, env=EnvSpec(allow_short=True))
    assert "about 5.0 basis points" in head(panel)
    assert "about 9.5 basis points" in head(panel, env=EnvSpec(costs=CostSpec(commission_bps=1.5, half_spread_bps=2, slippage_bps=6)))
    future = InstrumentSpec(
        symbol="S0", asset_class="future", multiplier=20, tick_size=0.25, lot=1, commission_per_unit=2.5, slippage_ticks=1, margin=1
    )
    futures = replace(panel, instruments=(future, *panel.instruments[1:]))
    expected = 1e4 * (2.5 + 0.25 * 20) / (panel.close[400, 0] * 20)
    assert f"about {expected:.1f} basis points" in head(futures)


def test_no_name_of_a_number_speaks_of_minutes_or_days_and_each_reads_back():
    assert not any(re.search("min|day|hour", name) for name in SHOWN_NAMES.values())
    assert len(set(SHOWN_NAMES.values())) == len(SHOWN_NAMES) == len(MARKET_NAMES)


def test_the_reason_comes_before_the_action_in_the_prompt_and_in_the_schema_that_a_server_enforces(panel, market):
    assert list(SCHEMA["properties"]) == ["reason", "action", "confidence"]
    system = prompts_of(panel, market, range(300, 305, 5))[0][0].content
    assert system.index('"reason":') < system.index('"action":') < system.index('"confidence":')


# --- the clock


@settings(max_examples=60, deadline=None)
@given(t=st.integers(0, 699), s=st.integers(0, 2), mask=st.sampled_from(Mask))
def test_with_the_future_deleted_a_prompt_is_the_same_to_the_byte(panel, market, t, s, mask):
    """The prompt about a bar, from bars that go on, and from bars that end there; features are computed anew."""
    if not panel.tradable[t, s]:
        return
    past = panel.head(t + 1)
    symbol, as_of = panel.symbols[s], panel.available_at[t]
    known = market_features(past)
    whole = prompt_at(panel, lambda t, s: market[t, s], symbol, as_of, mask)
    assert prompt_at(past, lambda t, s: known[t, s], symbol, as_of, mask) == whole


@settings(max_examples=40, deadline=None)
@given(t=st.integers(1, 698), delay=st.integers(0, 10**10), seed=st.integers(0, 1000))
def test_bars_that_become_known_later_are_not_read_whatever_they_hold(panel, market, t, delay, seed):
    """Everything after the as-of time is rewritten with noise, features included, and the bar comes later than it ends."""
    symbol, s = panel.symbols[0], 0
    as_of = panel.available_at[t] + np.timedelta64(delay % int((panel.available_at[t + 1] - panel.available_at[t]).astype(int)), "us")
    noise = np.random.default_rng(seed)
    other = {name: np.vstack([getattr(panel, name)[: t + 1], noise.uniform(1, 9, getattr(panel, name)[t + 1 :].shape)]) for name in FIELDS}
    wild = np.concatenate([market[: t + 1], noise.normal(size=market[t + 1 :].shape).astype(np.float32)])
    assert prompt_at(replace(panel, **other), lambda t, s: wild[t, s], symbol, as_of) == prompt_at(
        panel, lambda t, s: market[t, s], symbol, panel.available_at[t]
    )
    assert prompt_at(panel, lambda t, s: market[t, s], symbol, panel.available_at[t] - np.timedelta64(1, "us")) == prompt_at(
        panel, lambda t, s: market[t, s], symbol, panel.available_at[t - 1]
    )
    assert s == 0


def test_a_symbol_without_a_bar_at_that_time_is_refused(panel, market):
    with pytest.raises(DataError, match="S2 has no bar that ends at"):
        snapshot_at(panel, lambda t, s: market[t, s], "S2", panel.available_at[150])  # listed at bar 200
    with pytest.raises(DataError, match="S0 has no bar"):
        snapshot_at(panel, lambda t, s: market[t, s], "S0", panel.available_at[0] - np.timedelta64(1, "s"))


def test_moves_are_returns_over_their_own_deviation_and_left_out_while_there_are_few(panel, market):
    t, s = 400, 1
    own = panel.close[: t + 1, s][panel.tradable[: t + 1, s]]
    returns = np.diff(np.log(own[-61:]))
    snapshot = snapshot_at(panel, lambda t, s: market[t, s], "S1", panel.available_at[np.flatnonzero(panel.tradable[: t + 1, s])[-1]])
    np.testing.assert_array_equal(snapshot.closes, own[-10:])
    np.testing.assert_allclose(snapshot.moves, (returns / returns.std())[-10:])
    early = snapshot_at(panel, lambda t, s: market[t, s], "S0", panel.available_at[15])
    assert np.isnan(early.moves).all()
    assert "move " not in render(early, {}, TERMS)[1].content


# --- blindness


def test_a_blind_prompt_is_a_head_closes_from_100_moves_and_features(panel, market):
    feature, bar = re.compile(r"([a-z_0-9]+): -?\d+\.\d{3}"), re.compile(r"t-\d close \d+\.\d\d( move [+-]\d+\.\d\d)?")
    for system, user in prompts_of(panel, market):
        lines = user.content.splitlines()
        assert lines[0] == "asset: ASSET"
        assert lines[2].startswith("t-9 close 100.00")
        assert all(bar.fullmatch(line) for line in lines[2:12])
        found = [feature.fullmatch(line) for line in lines[12:]]
        assert all(found)
        assert [match[1] for match in found] == [name for name in SHOWN_NAMES.values() if name in {match[1] for match in found}]
        assert not any(symbol in system.content + user.content for symbol in panel.symbols)
        assert not re.search(r"(?<![\d.])(19|20)\d\d(?!\d)", system.content)


def test_a_prompt_shows_no_name_no_date_and_no_price_level(panel, market):
    days = pd.DatetimeIndex(panel.timestamps) + pd.Timedelta(days=3650)
    other = replace(
        panel, symbols=("X", "Y", "Z"), timestamps=days.to_numpy(), available_at=days.to_numpy(),
        **{name: getattr(panel, name) * 8 for name in PRICES},
    )  # fmt: skip
    known = market_features(other)
    assert prompts_of(other, known) == prompts_of(panel, market)
    named, renamed = prompts_of(panel, market, mask=Mask.NONE), prompts_of(other, known, mask=Mask.NONE)
    assert not set(named) & set(renamed)  # the ablation does show them


def test_prices_times_ten_give_the_same_prompts(panel, market):
    """A value at the edge of two roundings may fall either way; the rest is the same to the byte."""
    scaled = replace(panel, **{name: getattr(panel, name) * 10 for name in PRICES})
    same = [a == b for a, b in zip(prompts_of(panel, market), prompts_of(scaled, market_features(scaled)), strict=True)]
    assert np.mean(same) > 0.97


@settings(max_examples=100, deadline=None)
@given(values=st.dictionaries(st.sampled_from(MARKET_NAMES), st.floats(-1000, 1000) | st.just(float("nan"))))
def test_a_prompt_reads_back_to_three_decimals_without_what_is_unknown(values):
    known = {name: value for name, value in values.items() if not np.isnan(value)}
    assert parse(render(replace(SNAPSHOT, features=values), {}, TERMS)) == pytest.approx(known, abs=0.000501)


@pytest.mark.parametrize(
    ("features", "action", "confidence"),
    [
        ({"price_momentum_60": 0.1, "sma_50_slope": 0.01, "session_trend": 0.1, "market_regime": 1.0}, "buy", 90),
        ({"price_momentum_60": 0.1, "sma_50_slope": 0.01}, "buy", 70),
        ({"price_momentum_60": 0.1, "sma_50_slope": -0.01, "market_regime": 1.0}, "hold", 60),
        ({"price_momentum_60": -0.1, "sma_50_slope": -0.01, "session_trend": -0.1}, "sell", 80),
        ({"rsi_15min": 0.9}, "hold", 50),
    ],
)
def test_the_mock_counts_the_trends_that_agree(features, action, confidence):
    reply = MockBackend().complete(render(replace(SNAPSHOT, features=features), SCHEMA, TERMS), SCHEMA, 0)
    advice = Advice.model_validate_json(reply.text)
    assert (advice.action, advice.confidence) == (action, confidence)


# --- the table


def test_cutting_the_future_leaves_the_advice_before_it_byte_for_byte(panel, market):
    whole = advise(panel, market, 303, 699, mock_advisor()).frame
    past = panel.head(555)
    shorter = advise(past, market_features(past), 303, 554, mock_advisor()).frame
    pd.testing.assert_frame_equal(shorter, whole[whole["bar"] <= 554])


def test_the_order_of_symbols_changes_no_advice(panel, market):
    other = replace(panel, symbols=panel.symbols[::-1], **{name: getattr(panel, name)[:, ::-1] for name in (*PRICES, "volume")})
    key = ["bar", "symbol"]
    forth = advise(panel, market, 300, 500, mock_advisor()).frame.sort_values(key, ignore_index=True)
    back = advise(other, market_features(other), 300, 500, mock_advisor()).frame.sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(forth, back)


@pytest.mark.parametrize("cadence", [1, 7, 50])
def test_any_cadence_asks_at_its_multiples_and_its_advice_stands_as_long(panel, market, cadence):
    signals = advise(panel, market, 303, 500, mock_advisor(cadence_bars=cadence))
    start = 303 // cadence * cadence
    assert set(signals.frame["bar"]) == set(range(start, 501, cadence))
    actions, confidences = signals.align_to_bars(panel)
    said = {(bar, symbol): (action, sure) for bar, symbol, action, sure in signals.frame[["bar", "symbol", "action", "confidence"]].values}
    for t in range(start, 501):
        for s, symbol in enumerate(panel.symbols):
            action, sure = said.get((t // cadence * cadence, symbol), ("hold", 0))
            assert (actions[t, s], confidences[t, s]) == (ACTIONS[action], sure)
    assert not confidences[:start].any()
    assert (actions[:start] == HOLD).all()


def test_advice_that_stands_at_the_first_bar_is_the_one_before_it(panel, market):
    early, late = (advise(panel, market, first, 400, mock_advisor()) for first in (300, 304))
    pd.testing.assert_frame_equal(early.frame, late.frame)


def test_a_symbol_without_a_bar_is_not_asked_about_and_nothing_stands_for_it(panel, market):
    signals = advise(panel, market, 100, 199, mock_advisor())  # S2 is listed at bar 200
    assert set(signals.frame["symbol"]) == {"S0", "S1"}
    assert signals.frame["confidence"].between(0.5, 0.9).all()
    actions, confidences = signals.align_to_bars(panel)
    assert not confidences[:, 2].any()
    assert (actions[:, 2] == HOLD).all()


def test_a_range_where_nothing_trades_has_no_advice(panel, market):
    nothing = {name: np.full_like(getattr(panel, name), np.nan) for name in (*PRICES, "volume")}
    signals = advise(replace(panel, **nothing), market, 300, 320, mock_advisor())
    assert len(signals.frame) == 0
    assert signals.n_abstained == 0
    assert (signals.align_to_bars(panel)[0] == HOLD).all()


def test_a_later_answer_takes_over_from_an_earlier_one(panel):
    frame = pd.DataFrame({"bar": [10, 13], "symbol": ["S0", "S0"], "action": ["buy", "sell"], "confidence": [0.8, 0.6]})
    actions, _ = Signals(frame, "m", True, 5).align_to_bars(panel)
    assert actions[10:19, 0].tolist() == [BUY] * 3 + [SELL] * 5 + [HOLD]


def test_every_row_names_its_prompt(panel, market):
    frame = advise(panel, market, 300, 320, mock_advisor()).frame
    assert frame["prompt_sha256"].is_unique
    other = random_panel(6)
    assert not set(advise(other, market_features(other), 300, 320, mock_advisor()).frame["prompt_sha256"]) & set(frame["prompt_sha256"])


@pytest.mark.parametrize("confidence", [-1, 101, 100.6, None])
def test_a_confidence_is_a_whole_number_of_0_to_100(confidence):
    with pytest.raises(ValueError, match="confidence"):
        Advice(action="buy", confidence=confidence, reason="")


def test_advice_at_the_ends_of_its_limits_is_advice():
    assert Advice(action="hold", confidence=0, reason="x" * 200).confidence == 0
    assert Advice(action="sell", confidence=100, reason="").confidence == 100
