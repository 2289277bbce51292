"""Prompts word for word: what they may contain, what they may not depend on, and how they read back."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.llm.advisor import ACTIONS, Advice, LLMSpec, Signals, advise, make_advisor
from ploutos.llm.prompts import parse, render

PRICES = ("open", "high", "low", "close")


def prompts_of(market, bars=range(300, 700, 5)):
    rows = [market[t, s] for t in bars for s in range(market.shape[1])]
    return [render(dict(zip(MARKET_NAMES, row.tolist(), strict=True))) for row in rows]


@pytest.fixture(scope="module")
def market(panel):
    return market_features(panel)


def test_below_its_head_a_prompt_is_feature_names_and_numbers_of_three_decimals(panel, market):
    line = re.compile(r"([a-z_0-9]+): -?\d+\.\d{3}")
    for prompt in prompts_of(market):
        lines = prompt.splitlines()[3:]
        found = [line.fullmatch(text) for text in lines]
        assert all(found)
        assert [match[1] for match in found] == [name for name in MARKET_NAMES if name in {match[1] for match in found}]
        head = " ".join(prompt.splitlines()[:3])
        assert not any(symbol in head for symbol in panel.symbols)
        assert not re.search(r"\d{4}", head)


def test_prices_times_ten_give_the_same_prompts(panel, market):
    """A value at the edge of two roundings may fall either way; the rest is the same to the byte."""
    scaled = replace(panel, **{name: getattr(panel, name) * 10 for name in PRICES})
    same = [a == b for a, b in zip(prompts_of(market), prompts_of(market_features(scaled)), strict=True)]
    assert np.mean(same) > 0.97


@settings(max_examples=100, deadline=None)
@given(values=st.dictionaries(st.sampled_from(MARKET_NAMES), st.floats(-1000, 1000) | st.just(float("nan"))))
def test_a_prompt_reads_back_to_three_decimals_without_what_is_unknown(values):
    known = {name: value for name, value in values.items() if not np.isnan(value)}
    assert parse(render(values)) == pytest.approx(known, abs=0.000501)


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
    (answer,) = make_advisor(LLMSpec()).answer([render(features)])
    assert (answer["action"], answer["confidence"]) == (action, confidence)


def test_the_order_of_symbols_changes_no_advice(panel, market):
    other = replace(panel, symbols=panel.symbols[::-1], **{name: getattr(panel, name)[:, ::-1] for name in (*PRICES, "volume")})
    key = ["bar", "symbol"]
    forth = advise(panel, market, 300, 500, LLMSpec()).frame.sort_values(key, ignore_index=True)
    back = advise(other, market_features(other), 300, 500, LLMSpec()).frame.sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(forth, back)


@pytest.mark.parametrize("cadence", [1, 7, 50])
def test_any_cadence_asks_at_its_multiples_and_its_advice_stands_as_long(panel, market, cadence):
    signals = advise(panel, market, 303, 500, LLMSpec(cadence_bars=cadence))
    start = 303 // cadence * cadence
    assert set(signals.frame["bar"]) == set(range(start, 501, cadence))
    actions, confidences = signals.stances(panel)
    said = {(bar, symbol): (action, sure) for bar, symbol, action, sure in signals.frame[["bar", "symbol", "action", "confidence"]].values}
    for t in range(start, 501):
        for s, symbol in enumerate(panel.symbols):
            action, sure = said.get((t // cadence * cadence, symbol), ("hold", 0))
            assert (actions[t, s], confidences[t, s]) == (ACTIONS[action], sure)
    assert not confidences[:start].any()
    assert (actions[:start] == HOLD).all()


def test_advice_that_stands_at_the_first_bar_is_the_one_before_it(panel, market):
    early, late = (advise(panel, market, first, 400, LLMSpec()) for first in (300, 304))
    pd.testing.assert_frame_equal(early.frame, late.frame)


def test_a_symbol_without_a_bar_is_not_asked_about_and_nothing_stands_for_it(panel, market):
    signals = advise(panel, market, 100, 199, LLMSpec())  # S2 is listed at bar 200
    assert set(signals.frame["symbol"]) == {"S0", "S1"}
    assert signals.frame["confidence"].between(0.5, 0.9).all()
    actions, confidences = signals.stances(panel)
    assert not confidences[:, 2].any()
    assert (actions[:, 2] == HOLD).all()


def test_a_range_where_nothing_trades_has_no_advice(panel, market):
    nothing = {name: np.full_like(getattr(panel, name), np.nan) for name in (*PRICES, "volume")}
    signals = advise(replace(panel, **nothing), market, 300, 320, LLMSpec())
    assert len(signals.frame) == 0
    assert (signals.stances(panel)[0] == HOLD).all()


def test_a_later_answer_takes_over_from_an_earlier_one(panel):
    frame = pd.DataFrame({"bar": [10, 13], "symbol": ["S0", "S0"], "action": ["buy", "sell"], "confidence": [0.8, 0.6]})
    actions, _ = Signals(frame, "m", True, 5).stances(panel)
    assert actions[10:19, 0].tolist() == [BUY] * 3 + [SELL] * 5 + [HOLD]


@pytest.mark.parametrize("confidence", [-1, 101, 50.5, None])
def test_a_confidence_is_a_whole_number_of_0_to_100(confidence):
    with pytest.raises(ValueError, match="confidence"):
        Advice(action="buy", confidence=confidence, reason="")


def test_advice_at_the_ends_of_its_limits_is_advice():
    assert Advice(action="hold", confidence=0, reason="x" * 200).confidence == 0
    assert Advice(action="sell", confidence=100, reason="").confidence == 100
