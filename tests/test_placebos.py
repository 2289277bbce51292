"""Placebos keep everything of the advice but its timing; the mirrored market turns every return round and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import mock_advisor, random_panel, session_panel

from ploutos.advisor.advisor import Advisor, advise, prompt_at
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.mirror import ask_mirrored, mirrored_market
from ploutos.advisor.mock import MockBackend
from ploutos.advisor.placebos import PLACEBOS, resampled, shifted, shuffled
from ploutos.advisor.signals import Signals
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.llm.backends.base import Reply
from ploutos.llm.cassette import Cassette
from ploutos.llm.config import LLMProvider

SAID = ["action", "confidence", "abstained", "reason"]
KEPT = ["as_of", "bar", "symbol", "asked_for", "prompt_tokens", "tokens", "prompt_sha256"]


@st.composite
def advice(draw, at_least: int = 0) -> Signals:
    """Any table of advice: symbols with decision times of their own."""
    times = draw(st.lists(st.tuples(st.integers(0, 200), st.sampled_from("ABC")), unique=True, min_size=at_least, max_size=60))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    n = len(times)
    frame = pd.DataFrame(sorted(times), columns=["bar", "symbol"])
    frame["as_of"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(frame["bar"], unit="D")
    frame["asked_for"], frame["prompt_tokens"], frame["tokens"] = "cadence", random.integers(0, 9, n), random.integers(0, 9, n)
    frame["action"] = random.choice(["buy", "sell", "hold"], n)
    frame["confidence"] = random.integers(0, 101, n) / 100
    frame["abstained"] = random.random(n) < 0.1
    frame["reason"] = [f"reason {i}" for i in range(n)]
    frame["prompt_sha256"] = [f"{i:064x}" for i in range(n)]
    return Signals(frame, "m", True, 5)


@pytest.mark.parametrize("column", ["symbol", "action"])
def test_advice_without_a_symbol_or_an_action_is_never_read_as_another(column):
    frame = pd.DataFrame({"bar": [0, 1], "symbol": ["S0", "S1"], "action": ["buy", "sell"], "confidence": 0.5, "abstained": False})
    frame.loc[1, column] = None
    with pytest.raises(KeyError):
        Signals(frame, "m", True, 5).align_to_bars(random_panel(1, 10))


def said(signals: Signals) -> dict[str, list]:
    """What each symbol was told, in no order."""
    return {symbol: sorted(part[SAID].itertuples(index=False, name=None)) for symbol, part in signals.frame.groupby("symbol")}


@settings(max_examples=60, deadline=None)
@given(signals=advice(), seed=st.integers(0, 2**31), kind=st.sampled_from([shuffled, shifted]))
def test_an_order_in_time_keeps_every_piece_of_advice_of_each_symbol(signals, seed, kind):
    assert said(kind(signals, seed, 0)) == said(signals)


@settings(max_examples=60, deadline=None)
@given(signals=advice(), seed=st.integers(0, 2**31), kind=st.sampled_from(sorted(PLACEBOS)))
def test_every_placebo_keeps_times_questions_and_types_and_says_nothing_that_was_not_said(signals, seed, kind):
    other = PLACEBOS[kind](signals, seed, 3)
    pd.testing.assert_frame_equal(other.frame[KEPT], signals.frame[KEPT])
    pd.testing.assert_series_equal(other.frame.dtypes, signals.frame.dtypes)
    assert replace(other, frame=signals.frame) == signals
    before = said(signals)
    for symbol, pieces in said(other).items():
        assert set(pieces) <= set(before[symbol])
    pd.testing.assert_frame_equal(PLACEBOS[kind](signals, seed, 3).frame, other.frame)


@settings(max_examples=30, deadline=None)
@given(signals=advice(at_least=1), seed=st.integers(0, 2**31))
def test_a_shift_keeps_the_order_of_each_symbols_advice_in_a_circle(signals, seed):
    other = shifted(signals, seed, 0)
    for symbol, part in signals.frame.groupby("symbol"):
        was, now = part["reason"].tolist(), other.frame.loc[part.index, "reason"].tolist()
        assert symbol in "ABC"
        assert any(now == was[k:] + was[:k] for k in range(len(was)))


def long_advice(n: int = 400) -> Signals:
    """One symbol, half its advice sell at 0.3, a third buy at 0.8, the rest hold at 0.5, each in one stretch."""
    actions = ["sell"] * (n // 2) + ["buy"] * (n // 3) + ["hold"] * (n - n // 2 - n // 3)
    sure = {"sell": 0.3, "buy": 0.8, "hold": 0.5}
    frame = pd.DataFrame({"bar": np.arange(n) * 5, "symbol": "A", "action": actions, "confidence": [sure[action] for action in actions]})
    return Signals(frame.assign(abstained=False, reason=""), "m", True, 5)


def changes(signals: Signals) -> int:
    actions = signals.frame["action"].to_numpy()
    return int((actions[1:] != actions[:-1]).sum())


def test_drawn_advice_has_the_symbols_own_mix_in_the_limit_and_confidence_stays_with_its_action():
    signals = long_advice()
    draws = pd.concat([resampled(signals, 7, draw).frame for draw in range(100)])
    shares = draws["action"].value_counts(normalize=True)
    for action, share in signals.frame["action"].value_counts(normalize=True).items():
        assert shares[action] == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(draws)))
    assert draws.groupby("action")["confidence"].nunique().eq(1).all()


def test_draws_and_seeds_differ_and_a_shift_alone_changes_its_mind_as_seldom_as_the_original():
    signals = long_advice()
    for placebo in PLACEBOS.values():
        tables = [placebo(signals, seed, draw).frame["action"].tolist() for seed, draw in ((1, 0), (1, 1), (2, 0))]
        assert len({tuple(table) for table in tables}) == 3
    assert changes(signals) == 2
    assert changes(shifted(signals, 1, 0)) <= 3
    assert changes(shuffled(signals, 1, 0)) > 100
    assert changes(resampled(signals, 1, 0)) > 100
    moved = np.mean([shifted(signals, 1, draw).frame["action"].to_numpy() != signals.frame["action"].to_numpy() for draw in range(20)])
    assert moved > 0.4


def test_advice_within_a_range_is_what_stands_or_is_asked_there(panel):
    signals = advise(panel, market_features(panel), 300, 600, mock_advisor())
    part = signals.within(403, 500)
    assert part.frame["bar"].min() == 400
    assert part.frame["bar"].max() == 500
    for mine, whole in zip(part.align_to_bars(panel), signals.align_to_bars(panel), strict=True):
        np.testing.assert_array_equal(mine[403:501], whole[403:501])
    pd.testing.assert_frame_equal(part.frame, advise(panel, market_features(panel), 403, 500, mock_advisor()).frame)


# --- the mirrored market


@pytest.mark.parametrize("make", [random_panel, session_panel])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_mirrored_market_turns_every_log_return_round_and_twice_gives_the_market_back(make, seed):
    bars = make(seed)
    other = mirrored_market(bars)
    known = bars.tradable
    assert (other.tradable == known).all()
    for s in range(bars.n_symbols):
        close, mirror = bars.close[known[:, s], s], other.close[known[:, s], s]
        assert mirror[0] == pytest.approx(close[0])
        np.testing.assert_allclose(np.diff(np.log(mirror)), -np.diff(np.log(close)), atol=1e-12)
    inside = (other.low <= np.minimum(other.open, other.close) * (1 + 1e-12)) & (
        other.high >= np.maximum(other.open, other.close) * (1 - 1e-12)
    )
    assert inside[known].all()
    np.testing.assert_array_equal(other.volume, bars.volume)
    back = mirrored_market(other)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_allclose(getattr(back, name), getattr(bars, name), rtol=1e-12)


def test_a_mirrored_prompt_shows_opposite_moves_and_features_of_the_mirrored_bars(panel):
    other, as_of = mirrored_market(panel), panel.available_at[400]
    market, mirrored = market_features(panel), market_features(other)
    lines = [
        prompt_at(bars, lambda t, s, rows=rows: rows[t, s], "S0", as_of)[1].content.splitlines()
        for bars, rows in ((panel, market), (other, mirrored))
    ]
    moves = [[float(line.split("move ")[1]) for line in part if " move " in line] for part in lines]
    assert moves[0] == pytest.approx([-move for move in moves[1]], abs=0.011)
    for name in ("price_momentum_20", "price_momentum_60"):
        k = MARKET_NAMES.index(name)
        np.testing.assert_allclose(market[..., k], -mirrored[..., k], atol=1e-6)
    for name, twin in (("higher_high", "lower_low"), ("breakout_signal", "breakdown_signal")):
        np.testing.assert_array_equal(market[..., MARKET_NAMES.index(name)], mirrored[..., MARKET_NAMES.index(twin)])


def test_cutting_the_future_leaves_the_mirrored_market_before_it_as_it_was(panel):
    np.testing.assert_array_equal(mirrored_market(panel.head(400)).close, mirrored_market(panel).close[:400])


def test_the_same_questions_are_asked_again_row_for_row_and_blind(panel):
    signals = advise(panel, market_features(panel), 300, 600, mock_advisor(triggers=["breakout"], reveal=True))
    again = ask_mirrored(signals, panel, mock_advisor(triggers=["breakout"], reveal=True))
    pd.testing.assert_frame_equal(
        again.frame[["as_of", "bar", "symbol", "asked_for"]], signals.frame[["as_of", "bar", "symbol", "asked_for"]]
    )
    assert not set(again.frame["prompt_sha256"]) & set(signals.frame["prompt_sha256"])
    assert signals.reveal
    assert not again.reveal
    blind = advise(panel, market_features(panel), 300, 600, mock_advisor(triggers=["breakout"]))
    twice = ask_mirrored(again, mirrored_market(panel), mock_advisor())
    assert (twice.frame["action"] == blind.frame["action"]).mean() > 0.95  # a rounding may fall the other way
    decided = signals.frame["action"] != "hold"
    assert (again.frame["action"] != signals.frame["action"])[decided].mean() > 0.9  # the mock reads the numbers


class Counting(MockBackend):
    """A model to the advisor, with a cassette, that answers as the mock does and counts."""

    name, is_mock, asked = "counting", False, 0

    def digest(self) -> str:
        return "d1"

    def complete(self, messages, schema, seed) -> Reply:
        self.asked += 1
        return super().complete(messages, schema, seed)


def test_mirrored_answers_come_from_the_same_cassette(panel, tmp_path):
    signals = advise(panel, market_features(panel), 300, 400, mock_advisor())
    config = LLMConfig(provider=LLMProvider.OLLAMA, model="counting")
    first, second = (Advisor(Counting(), config, Cassette(tmp_path)) for _ in range(2))
    answers = [ask_mirrored(signals, panel, advisor).frame for advisor in (first, second)]
    assert first.backend.asked == len(signals.frame)
    assert second.backend.asked == 0
    pd.testing.assert_frame_equal(*answers)


WHO_IS_ASKED = [("mock", None, True), ("ollama", None, False), ("openai", None, False), ("ollama", True, True), ("mock", False, False)]


@pytest.mark.parametrize(("provider", "mirror", "mirrors"), WHO_IS_ASKED)
def test_a_model_is_asked_about_the_mirrored_market_only_when_told(provider, mirror, mirrors):
    config = LLMConfig(provider=provider, mirror=mirror)
    assert config.mirrors is mirrors
    assert config.cache_fields() == LLMConfig(provider=provider).cache_fields()  # advice does not depend on it
