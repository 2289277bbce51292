"""The advisor: blind, repeatable, bound to its clock, and honest about being a mock."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.llm.advisor import Advice, LLMSpec, Signals, advise, make_advisor, read_signals, write_signals
from ploutos.llm.prompts import parse, render

GOLDEN = """You advise a trading desk on one asset. The numbers below were known at the close of the last bar.
Answer with one JSON object: action (buy, sell or hold), confidence (integer 0 to 100), reason (at most 200 characters).
buy asks for a full position, sell for none, hold for no change.
adx_slope: 0.012
market_regime: -1.000"""


@pytest.fixture(scope="module")
def market(panel):
    return market_features(panel)


@pytest.fixture(scope="module")
def signals(panel, market) -> Signals:
    return advise(panel, market, 303, 699, LLMSpec())


def test_the_prompt_is_the_golden_one_and_reads_back():
    features = {"adx_slope": 0.01234, "rsi_60min": float("nan"), "market_regime": -1.0}
    assert render(features) == GOLDEN
    assert parse(GOLDEN) == {"adx_slope": 0.012, "market_regime": -1.0}


def test_a_prompt_shows_no_name_no_date_and_no_price_level(panel, market, signals):
    days = pd.DatetimeIndex(panel.timestamps) + pd.Timedelta(days=3650)
    other = replace(
        panel, symbols=("X", "Y", "Z"), timestamps=days.to_numpy(), available_at=days.to_numpy(),
        **{name: getattr(panel, name) * 8 for name in ("open", "high", "low", "close")},
    )  # fmt: skip
    renamed = advise(other, market_features(other), 303, 699, LLMSpec())
    assert renamed.frame["prompt_sha256"].tolist() == signals.frame["prompt_sha256"].tolist()
    assert renamed.frame["action"].tolist() == signals.frame["action"].tolist()


def test_cutting_the_future_leaves_the_advice_before_it_byte_for_byte(panel, signals):
    past = panel.head(555)
    shorter = advise(past, market_features(past), 303, 554, LLMSpec()).frame
    pd.testing.assert_frame_equal(shorter, signals.frame[signals.frame["bar"] <= 554])


def test_advice_is_asked_for_at_multiples_of_the_cadence_where_there_is_a_bar(panel, signals):
    expected = [(t, s) for t in range(300, 700, 5) for s in range(3) if panel.tradable[t, s]]
    asked = [(t, panel.symbols.index(s)) for t, s in zip(signals.frame["bar"], signals.frame["symbol"], strict=True)]
    assert asked == expected
    assert (signals.frame["as_of"].dt.tz_localize(None).to_numpy() == panel.available_at[signals.frame["bar"]]).all()


def test_advice_stands_until_the_next_and_no_longer(panel):
    frame = pd.DataFrame({"bar": [10, 15], "symbol": ["S0", "S1"], "action": ["buy", "sell"], "confidence": [0.8, 0.6]})
    actions, confidences = Signals(frame, "m", True, 5).stances(panel)
    assert actions[9:21, 0].tolist() == [HOLD] + [BUY] * 5 + [HOLD] * 6
    assert actions[15:20, 1].tolist() == [SELL] * 5
    assert confidences[9:16, 0].tolist() == [0] + [0.8] * 5 + [0]


def test_the_mock_is_a_pure_function_of_the_prompt_and_says_what_it_is():
    advisor = make_advisor(LLMSpec())
    assert advisor.is_mock
    assert "not a language model" in advisor.model
    random = np.random.default_rng(0)
    prompts = [render(dict(zip(MARKET_NAMES, random.normal(size=28), strict=True))) for _ in range(50)]
    answers = advisor.answer(prompts)
    assert make_advisor(LLMSpec()).answer(prompts[::-1])[::-1] == answers
    assert {answer["action"] for answer in answers} == {"buy", "sell", "hold"}
    assert all(str(answer["reason"]).startswith("mock rule") for answer in answers)


@pytest.mark.parametrize(
    "answer",
    [
        {"action": "short", "confidence": 50, "reason": ""},
        {"action": "buy", "confidence": 101, "reason": ""},
        {"action": "buy", "confidence": 50, "reason": "x" * 201},
        {"action": "buy", "confidence": 50, "reason": "", "size": 3},
        {"action": "buy", "confidence": 50},
    ],
)
def test_an_answer_that_is_not_advice_is_refused(answer):
    with pytest.raises(ValidationError):
        Advice.model_validate(answer)


def test_signals_survive_their_file_and_keep_who_advised(signals, tmp_path):
    write_signals(signals, tmp_path / "signals.parquet")
    again = read_signals(tmp_path / "signals.parquet")
    pd.testing.assert_frame_equal(again.frame, signals.frame)
    assert (again.model, again.is_mock, again.cadence_bars) == (signals.model, True, 5)
