"""The advisor: repeatable, bound to its clock, honest about being a mock, and silent rather than wrong."""

import json
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import mock_advisor
from pydantic import ValidationError

from ploutos.advisor.advisor import Advice, Advisor, advise, make_backend
from ploutos.advisor.mock import MockBackend
from ploutos.advisor.signals import Signals, read_signals, write_signals
from ploutos.config import PRESETS, load_config, make_config
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.errors import LLMError, LLMUnavailable
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.llm.backends.base import Message, Reply
from ploutos.llm.backends.ollama import OllamaBackend
from ploutos.llm.backends.openai_compatible import OpenAIBackend
from ploutos.llm.breaker import CircuitBreaker
from ploutos.llm.cassette import Cassette
from ploutos.llm.config import LLMConfig, LLMProvider, Trigger
from ploutos.settings import Settings

GOOD = '{"action": "buy", "confidence": 70, "reason": "up"}'
ASK = (Message("system", "Decide."), Message("user", "rsi_15min: 0.512"))


class Scripted:
    """A provider that says what it was told to, in order; an exception is raised, the last entry repeats."""

    name, is_mock = "scripted", False

    def __init__(self, *script):
        self.script, self.seeds, self.lock = list(script), [], threading.Lock()

    def digest(self):
        return "abc"

    def complete(self, messages, schema, seed):
        with self.lock:
            self.seeds.append(seed)
            said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Reply) else Reply(said, prompt_tokens=100, tokens=20, seconds=0.5)


def scripted(*script, cassette=None, clock=lambda: 0.0, **settings):
    return Advisor(Scripted(*script), LLMConfig(**settings), cassette, CircuitBreaker(clock=clock), sleep=lambda _: None)


@pytest.fixture(scope="module")
def market(panel):
    return market_features(panel)


@pytest.fixture(scope="module")
def signals(panel, market) -> Signals:
    return advise(panel, market, 303, 699, mock_advisor())


def test_advice_is_asked_for_at_multiples_of_the_cadence_where_there_is_a_bar(panel, signals):
    expected = [(t, s) for t in range(300, 700, 5) for s in range(3) if panel.tradable[t, s]]
    asked = [(t, panel.symbols.index(s)) for t, s in zip(signals.frame["bar"], signals.frame["symbol"], strict=True)]
    assert asked == expected
    assert (signals.frame["as_of"].dt.tz_localize(None).to_numpy() == panel.available_at[signals.frame["bar"]]).all()
    assert set(signals.frame["asked_for"]) == {"cadence"}


def test_advice_stands_until_the_next_and_no_longer(panel):
    frame = pd.DataFrame({"bar": [10, 15], "symbol": ["S0", "S1"], "action": ["buy", "sell"], "confidence": [0.8, 0.6]})
    actions, confidences = Signals(frame, "m", True, 5).align_to_bars(panel)
    assert actions[9:21, 0].tolist() == [HOLD] + [BUY] * 5 + [HOLD] * 6
    assert actions[15:20, 1].tolist() == [SELL] * 5
    assert confidences[9:16, 0].tolist() == [0] + [0.8] * 5 + [0]


def test_triggers_ask_where_a_feature_changes_and_not_sooner_than_the_cooldown(panel, market):
    """Against a plain loop over the definition."""
    market = market.copy()
    market[..., MARKET_NAMES.index("volatility_regime")] *= 3  # the panel's own never bursts
    advisor = mock_advisor(cadence_bars=10, cooldown_bars=3, triggers=tuple(Trigger))
    frame = advise(panel, market, 300, 699, advisor).frame
    value = {name: market[..., MARKET_NAMES.index(name)] for name in MARKET_NAMES}
    expected = []
    for s, symbol in enumerate(panel.symbols):
        last = -100
        for t in range(300, 700):
            if t % 10 == 0:
                last = -100
            if not panel.tradable[t, s]:
                continue
            up, down, regime, burst = (
                value[n][:, s] for n in ("breakout_signal", "breakdown_signal", "market_regime", "volatility_regime")
            )
            cause = "cadence" if t % 10 == 0 else None
            if cause is None and t - last >= 3 and panel.tradable[t - 1, s]:
                if (up[t] == 1 and up[t - 1] == 0) or (down[t] == 1 and down[t - 1] == 0):
                    cause = "breakout"
                elif regime[t] != regime[t - 1]:
                    cause = "regime"
                elif burst[t] > 0.5 >= burst[t - 1]:
                    cause = "volatility"
            if cause:
                expected.append((t, symbol, cause))
                last = t
    asked = list(frame[["bar", "symbol", "asked_for"]].itertuples(index=False, name=None))
    assert asked == sorted(expected)
    assert set(frame["asked_for"]) == {"cadence", "breakout", "regime", "volatility"}


@settings(max_examples=20, deadline=None)
@given(first=st.integers(250, 500), stop=st.integers(510, 700))
def test_what_is_asked_hangs_neither_on_where_a_range_starts_nor_on_where_the_data_ends(panel, market, first, stop):
    advisor = mock_advisor(cadence_bars=7, triggers=tuple(Trigger))
    whole = advise(panel, market, 250, 699, advisor).frame
    part = advise(panel.head(stop), market[:stop], first, stop - 1, advisor).frame
    start = first - first % 7
    pd.testing.assert_frame_equal(part, whole[(whole["bar"] >= start) & (whole["bar"] < stop)].reset_index(drop=True))


def test_the_mock_is_a_pure_function_of_the_prompt_and_says_what_it_is():
    backend = MockBackend()
    assert backend.is_mock
    assert "not a language model" in backend.name
    random = np.random.default_rng(0)
    prompts = [
        (Message("user", "\n".join(f"{n}: {v:.3f}" for n, v in zip(MARKET_NAMES, random.normal(size=28), strict=True))),) for _ in range(50)
    ]
    answers = [Advice.model_validate_json(backend.complete(prompt, {}, seed).text) for seed, prompt in enumerate(prompts)]
    assert [Advice.model_validate_json(backend.complete(prompt, {}, 0).text) for prompt in prompts[::-1]][::-1] == answers
    assert {answer.action for answer in answers} == {"buy", "sell", "hold"}
    assert all(answer.reason.startswith("mock rule") for answer in answers)


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
    outcome = scripted(json.dumps(answer)).ask(ASK)
    assert outcome.abstained
    assert (outcome.advice.action, outcome.advice.confidence) == ("hold", 0)
    assert outcome.advice.reason.startswith("abstained: the answer does not fit the schema: ")


def test_signals_survive_their_file_and_keep_who_advised(signals, tmp_path):
    signals = replace(signals, digest="d", reveal=True)
    write_signals(signals, tmp_path / "signals.parquet")
    again = read_signals(tmp_path / "signals.parquet")
    pd.testing.assert_frame_equal(again.frame, signals.frame)
    assert replace(again, frame=signals.frame) == signals
    assert again.template == "2"


# --- who is asked


def test_a_run_asks_the_mock_unless_it_names_another_and_a_bare_config_means_ollama():
    assert LLMConfig().provider is LLMProvider.OLLAMA
    for preset in PRESETS:
        assert load_config(preset).llm.provider is LLMProvider.MOCK
        assert load_config(preset, overrides=["llm.cadence_bars=3", "llm.model=x"]).llm.provider is LLMProvider.MOCK
    assert make_config({"llm": {"provider": "ollama"}}).llm.provider is LLMProvider.OLLAMA


def test_each_provider_is_itself_and_none_stands_in_for_another():
    kinds = {LLMProvider.OLLAMA: OllamaBackend, LLMProvider.OPENAI: OpenAIBackend, LLMProvider.MOCK: MockBackend}
    for provider, kind in kinds.items():
        assert type(make_backend(LLMConfig(provider=provider, host="http://127.0.0.1:9"), Settings())) is kind
    for provider in (LLMProvider.OLLAMA, LLMProvider.OPENAI):
        backend = make_backend(LLMConfig(provider=provider, host="http://127.0.0.1:9/v1"), Settings())
        with pytest.raises(LLMUnavailable, match="cannot be reached"):
            backend.complete(ASK, {}, 0)


def test_addresses_and_patience_are_no_part_of_what_advice_depends_on():
    base = LLMConfig()
    same = dict(
        host="h", timeout_s=1, keep_alive="1s", concurrency=4, batch_size=3, replay=True, unload_during_backtest=True,
        stated_cutoff="2023-12-31", grey_months=3, max_reidentification=0.5, mirror=True,
    )  # fmt: skip
    other = dict(
        model="m", temperature=1, seed=1, num_ctx=9, num_predict=9, think=True, cadence_bars=9,
        triggers=("regime",), cooldown_bars=9, reveal=True, provider="openai",
    )  # fmt: skip
    assert set(same) | set(other) == set(LLMConfig.model_fields)
    for name, value in same.items():
        assert LLMConfig(**{name: value}).cache_fields() == base.cache_fields()
    for name, value in other.items():
        assert LLMConfig(**{name: value}).cache_fields() != base.cache_fields()


# --- bad answers, dead servers


def test_a_bad_answer_is_asked_for_once_more_with_the_next_seed_and_then_the_advisor_abstains():
    mended = scripted("nonsense", GOOD, seed=7)
    outcome = mended.ask(ASK)
    assert mended.backend.seeds == [7, 8]
    assert outcome.advice == Advice(action="buy", confidence=70, reason="up")
    assert (outcome.abstained, outcome.prompt_tokens, outcome.tokens, outcome.seconds) == (False, 200, 40, 1.0)
    never = scripted("nonsense")
    assert never.ask(ASK).abstained
    assert never.calls == 2


def test_a_fenced_answer_is_read_and_one_with_talk_around_it_is_not():
    assert not scripted(f"```json\n{GOOD}\n```\n").ask(ASK).abstained
    assert scripted(f"Sure! {GOOD}").ask(ASK).abstained


def test_a_cut_answer_says_what_to_raise():
    outcome = scripted(Reply('{"action": "bu', truncated=True, tokens=5)).ask(ASK)
    assert outcome.advice.reason == "abstained: the answer was cut off after 5 tokens; raise llm.num_predict"


def test_a_server_that_fails_twice_on_one_question_gives_an_abstention_and_the_next_is_asked():
    gone = LLMUnavailable("too slow")
    advisor = scripted(gone, gone, GOOD)
    first, second = advisor.ask_all([ASK, ASK[::-1]])
    assert first.advice.reason == "abstained: too slow"
    assert not second.abstained


def test_five_failures_in_a_row_end_a_batch_and_what_was_answered_is_kept(tmp_path):
    asks = [(Message("user", str(i)),) for i in range(10)]
    cassette = Cassette(tmp_path)
    advisor = scripted(*[GOOD] * 4, LLMUnavailable("refused"), cassette=cassette)
    with pytest.raises(LLMUnavailable, match="refused; 4 of 10 answers are kept, run again to ask for the rest"):
        advisor.ask_all(asks)  # 4 answers, 2 abstentions of 2 tries each, then the fifth failure
    assert advisor.calls == 4 + 5
    again = scripted(GOOD, cassette=cassette)
    assert not any(outcome.abstained for outcome in again.ask_all(asks))
    assert again.calls == 6  # the four answers are not asked for again, the abstentions are


def test_an_open_breaker_lets_nothing_through_until_its_pause_is_over_and_then_one_trial():
    now = [0.0]
    advisor = scripted(*[LLMUnavailable("refused")] * 6, GOOD, clock=lambda: now[0])
    for _ in range(2):
        advisor.ask(ASK)
    outcome = advisor.ask_now(ASK)
    assert (outcome.abstained, outcome.advice.action, outcome.advice.reason) == (True, "hold", "abstained: refused")
    assert advisor.calls == 5
    now[0] = 29.9
    assert "left alone for 0 s more" in advisor.ask_now(ASK).advice.reason
    assert advisor.calls == 5
    now[0] = 30.0
    assert advisor.ask_now(ASK).abstained  # the trial fails: open for another 30 s
    assert advisor.calls == 6
    now[0] = 59.0
    assert advisor.ask_now(ASK).abstained
    assert advisor.calls == 6
    now[0] = 60.0
    assert not advisor.ask_now(ASK).abstained
    assert not advisor.breaker.is_open


def test_while_a_trial_is_under_way_the_others_wait():
    now = [0.0]
    breaker = CircuitBreaker(failures=1, clock=lambda: now[0])
    breaker.failed()
    now[0] = 31.0
    assert [breaker.allow() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert breaker.allow()


def test_a_fault_that_no_second_try_mends_ends_the_batch_at_once():
    advisor = scripted(LLMError("no such model"))
    with pytest.raises(LLMError, match="no such model"):
        advisor.ask_all([ASK, ASK[::-1]])


def test_a_prompt_that_might_be_cut_is_an_error_before_anybody_is_asked():
    long = (Message("user", "é" * 100),)
    advisor = scripted(GOOD, num_ctx=519, num_predict=256)
    with pytest.raises(LLMError, match=r"a prompt of 200 bytes .* set llm.num_ctx to 520 or more"):
        advisor.ask(long)
    assert advisor.calls == 0
    assert not scripted(GOOD, num_ctx=520, num_predict=256).ask(long).abstained


def test_a_server_that_read_more_than_leaves_room_is_an_error():
    advisor = scripted(Reply(GOOD, prompt_tokens=1800), num_ctx=2048, num_predict=256)
    with pytest.raises(LLMError, match="read 1800 tokens of prompt, which leaves no room"):
        advisor.ask(ASK)


def test_the_shipped_prompt_fits_into_the_default_context(panel, market):
    advise(panel, market, 400, 420, scripted(GOOD))
    advise(panel, market, 400, 420, scripted(GOOD, reveal=True))


def test_equal_prompts_are_asked_once_and_every_one_gets_its_answer():
    advisor = scripted(GOOD, concurrency=3)
    assert len(advisor.ask_all([ASK] * 5 + [ASK[::-1]])) == 6
    assert advisor.calls == 2


def test_as_many_questions_at_once_as_allowed_and_the_answers_in_order():
    class Slow(Scripted):
        running, most = 0, 0
        barrier = threading.Barrier(3, timeout=20)

        def complete(self, messages, schema, seed):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            self.barrier.wait()
            with self.lock:
                self.running -= 1
            return Reply(json.dumps({"action": "hold", "confidence": int(messages[0].content), "reason": ""}))

    backend = Slow()
    advisor = Advisor(backend, LLMConfig(concurrency=3, batch_size=6))
    outcomes = advisor.ask_all([(Message("user", str(i)),) for i in range(12)])
    assert [outcome.advice.confidence for outcome in outcomes] == list(range(12))
    assert backend.most == 3


def test_a_table_of_advice_counts_its_abstentions_and_keeps_the_reasons(panel, market):
    advisor = scripted("?", "?", GOOD)
    signals = advise(panel, market, 400, 410, advisor)
    assert signals.n_abstained == 1
    row = signals.frame.iloc[0]
    assert (row["action"], row["confidence"], row["tokens"]) == ("hold", 0, 40)
    assert row["reason"].startswith("abstained: ")
    assert not signals.is_mock
    assert signals.digest == "abc"
