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

from ploutos.advisor.advisor import SCHEMA, Advice, Advisor, advice_of, advise, make_backend
from ploutos.advisor.config import LLMConfig, Trigger
from ploutos.advisor.mock import MockBackend
from ploutos.advisor.signals import Signals, read_signals, write_signals
from ploutos.config import PRESETS, load_config, make_config
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.errors import LLMBusy, LLMError, LLMStopped, LLMUnavailable
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.llm.backends.base import Message, Reply
from ploutos.llm.backends.ollama import OllamaBackend
from ploutos.llm.backends.openai_compatible import OpenAIBackend
from ploutos.llm.breaker import CircuitBreaker
from ploutos.llm.cassette import Cassette, Recorded
from ploutos.llm.client import REMINDER
from ploutos.llm.config import LLMProvider
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
        {"action": "sideways", "confidence": 50, "reason": ""},
        {"action": "flat", "confidence": 50, "reason": ""},
        {"action": "buy", "confidence": 101, "reason": ""},
        {"action": "buy", "confidence": -0.5, "reason": ""},
        {"action": "buy", "confidence": 1.0, "reason": ""},
        {"action": "buy", "confidence": True, "reason": ""},
        {"action": "buy", "confidence": "high", "reason": ""},
        {"action": "buy", "reason": ""},
        {"confidence": 50},
        ["buy", 50, ""],
    ],
)
def test_an_answer_that_is_not_advice_is_refused(answer):
    with pytest.raises(ValidationError):
        Advice.model_validate(answer)
    outcome = scripted(json.dumps(answer)).ask(ASK)
    assert outcome.abstained
    assert (advice_of(outcome).action, advice_of(outcome).confidence) == ("hold", 0)
    assert advice_of(outcome).reason.startswith("abstained: the answer does not fit the schema: ")


_PLAIN = '{"action": "buy", "confidence": 70, "reason": "up"}'


@pytest.mark.parametrize(
    ("said", "action", "confidence"),
    [
        (_PLAIN, "buy", 70),
        (f"```json\n{_PLAIN}\n```\n", "buy", 70),
        (f"```JSON\n{_PLAIN}```", "buy", 70),
        (f"Sure! {_PLAIN} I hope that helps.", "buy", 70),
        ('<think>{"action": "sell", "confidence": 9, "reason": ""} no, better</think>' + _PLAIN, "buy", 70),
        (f"it falls, so sell</think>\n{_PLAIN}", "buy", 70),
        (f"{_PLAIN} again: {_PLAIN}", "buy", 70),
        ('{"note": {"a": 1}} ' + _PLAIN, "buy", 70),
        ('{"action": "LONG", "confidence": "70", "reason": "up"}', "buy", 70),
        ('{"Action": "Short", "Confidence": 72.5}', "sell", 72),
        ('{"action": " Hold ", "confidence": 0.8, "reason": "", "size": 3}', "hold", 80),
        ('{"action": "buy", "confidence": "55 %", "reason": "' + "x" * 500 + '"}', "buy", 55),
        ('{"action": "buy", "confidence": 1, "reason": null}', "buy", 1),
    ],
)
def test_what_models_write_around_and_within_an_answer_is_read(said, action, confidence):
    outcome = scripted(said).ask(ASK)
    assert (advice_of(outcome).action, advice_of(outcome).confidence) == (action, confidence)
    assert len(advice_of(outcome).reason) <= 200


@pytest.mark.parametrize(
    "said",
    [
        _PLAIN + ' or {"action": "sell", "confidence": 70, "reason": "up"}',
        f"<think>{_PLAIN}",
        '{"action": "buy", "confidence": 70',
        "buy, 70",
        "",
    ],
)
def test_what_could_mean_two_things_or_nothing_is_an_abstention(said):
    assert scripted(said).ask(ASK).abstained


def test_a_second_attempt_says_what_was_wrong_with_the_first():
    class Heard(Scripted):
        heard = ()

        def complete(self, messages, schema, seed):
            self.heard = (*self.heard, messages)
            return super().complete(messages, schema, seed)

    advisor = Advisor(Heard("nonsense", GOOD), LLMConfig(), sleep=lambda _: None)
    assert not advisor.ask(ASK).abstained
    assert advisor.backend.heard == (ASK, (*ASK, REMINDER))
    failed = Advisor(Heard(LLMUnavailable("slow"), GOOD), LLMConfig(), sleep=lambda _: None)
    assert not failed.ask(ASK).abstained
    assert failed.backend.heard == (ASK, ASK)  # nothing was said that a reminder could mend


def test_an_old_cassette_is_read_anew_and_nobody_is_asked(tmp_path):
    """Two attempts that an earlier reader could not read, recorded without a reminder."""
    cassette = Cassette(tmp_path)
    asking = scripted("unused", cassette=cassette)
    for seed, text in ((0, "no"), (1, f"Sure! {GOOD}")):
        cassette.keep(asking._question(ASK, SCHEMA, seed), Recorded(text=text))
    assert not asking.ask(ASK).abstained
    assert asking.calls == 0


def test_signals_survive_their_file_and_keep_who_advised(signals, tmp_path):
    signals = replace(signals, digest="d", reveal=True)
    write_signals(signals, tmp_path / "signals.parquet")
    again = read_signals(tmp_path / "signals.parquet")
    pd.testing.assert_frame_equal(again.frame, signals.frame)
    assert replace(again, frame=signals.frame) == signals
    assert again.template == "3"


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
        stated_cutoff="2023-12-31", grey_months=3, max_reidentification=0.5, mirror=True, max_unusable=0.5,
        limits={"questions": 1},
    )  # fmt: skip
    other = dict(
        model="m", temperature=1, seed=1, num_ctx=9, num_predict=9, think=True, cadence_bars=9,
        triggers=("regime",), cooldown_bars=9, reveal=True, mask="names", provider="openai",
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
    assert advice_of(outcome) == Advice(action="buy", confidence=70, reason="up")
    assert (outcome.abstained, outcome.prompt_tokens, outcome.tokens, outcome.seconds) == (False, 200, 40, 1.0)
    never = scripted("nonsense")
    assert never.ask(ASK).abstained
    assert never.calls == 2


def test_a_cut_answer_says_what_to_raise():
    outcome = scripted(Reply('{"action": "bu', truncated=True, tokens=5)).ask(ASK)
    assert advice_of(outcome).reason == "abstained: the answer was cut off after 5 tokens; raise llm.num_predict"


def test_a_question_without_an_answer_is_asked_again_and_never_counts_as_hold():
    gone = LLMUnavailable("too slow")
    advisor = scripted(gone, gone, GOOD)
    first, second = advisor.ask_all([ASK, ASK[::-1]])
    assert [first.answer.action, second.answer.action] == ["buy", "buy"]
    assert not first.abstained
    assert advisor.calls == 4


def test_a_batch_with_a_question_that_is_never_answered_is_no_result(tmp_path):
    class Deaf(Scripted):
        def complete(self, messages, schema, seed):
            if messages == ASK:
                raise LLMUnavailable("too slow")
            return super().complete(messages, schema, seed)

    paused = []
    cassette = Cassette(tmp_path)
    advisor = Advisor(Deaf(GOOD), LLMConfig(), cassette, sleep=paused.append)
    with pytest.raises(LLMUnavailable, match="gave no answer to 1 of 2 questions: too slow; the others are kept, run again"):
        advisor.ask_all([ASK, ASK[::-1]])
    assert len(paused) == 6  # three rounds of two attempts
    again = scripted(GOOD, cassette=cassette)
    assert len(again.ask_all([ASK, ASK[::-1]])) == 2
    assert again.calls == 1


def test_a_busy_server_is_given_the_time_it_asks_for():
    paused = []
    advisor = Advisor(
        Scripted(LLMBusy("429", 7.0), LLMBusy("429"), LLMBusy("429"), LLMBusy("429", 290.0), GOOD), LLMConfig(), sleep=paused.append
    )
    assert not advisor.ask(ASK).abstained
    assert paused == [7.0, 2.0, 4.0, 290.0]
    assert not advisor.breaker.is_open


def test_a_server_that_asks_for_a_long_pause_is_not_waited_for_and_what_it_answered_is_kept(tmp_path):
    cassette = Cassette(tmp_path)
    advisor = scripted(GOOD, LLMBusy("answered 429", 900.0), cassette=cassette)
    with pytest.raises(
        LLMStopped, match="answered 429; it asks for a pause of 900 s, longer than 300 s: run again then; 1 of 2 answers are kept"
    ):
        advisor.ask_all([ASK, ASK[::-1]])
    assert advisor.calls == 2
    again = scripted(GOOD, cassette=cassette)
    again.ask_all([ASK, ASK[::-1]])
    assert again.calls == 1


def test_two_calls_in_three_refused_for_being_too_many_leave_no_trace(panel, market):
    """A busy server and a quiet one give the same table."""

    class Busy(Scripted):
        asked = 0

        def complete(self, messages, schema, seed):
            self.asked += 1
            if self.asked % 3:
                raise LLMBusy("answered 429")
            return super().complete(messages, schema, seed)

    busy = advise(panel, market, 400, 440, Advisor(Busy(GOOD), LLMConfig(), sleep=lambda _: None))
    calm = advise(panel, market, 400, 440, scripted(GOOD))
    pd.testing.assert_frame_equal(busy.frame, calm.frame)


def test_a_model_that_cannot_be_read_ends_the_batch_with_its_first_answer():
    asks = [(Message("user", str(i)),) for i in range(100)]
    advisor = scripted("<thinks> up, I would say")
    with pytest.raises(
        LLMError, match=r"20 of the first 20 answers of scripted cannot be read, and 20% is allowed .llm.max_unusable.: .*'<thinks> up"
    ):
        advisor.ask_all(asks)
    assert advisor.calls <= 2 * 64
    slow = LLMUnavailable("too slow")
    with pytest.raises(LLMUnavailable, match=r"gave no answer to \d+ of the first 2\d questions: too slow"):
        scripted(*[GOOD, slow, slow] * 20).ask_all(asks)
    assert sum(outcome.abstained for outcome in scripted("no", max_unusable=1.0).ask_all(asks)) == 100


def test_five_failures_in_a_row_end_a_batch_and_what_was_answered_is_kept(tmp_path):
    asks = [(Message("user", str(i)),) for i in range(10)]
    cassette = Cassette(tmp_path)
    advisor = scripted(*[GOOD] * 4, LLMUnavailable("refused"), cassette=cassette)
    with pytest.raises(LLMUnavailable, match="refused; 4 of 10 answers are kept, run again for the rest"):
        advisor.ask_all(asks)  # 4 answers, 2 questions of 2 tries each, then the fifth failure
    assert advisor.calls == 4 + 5
    again = scripted(GOOD, cassette=cassette)
    assert not any(outcome.abstained for outcome in again.ask_all(asks))
    assert again.calls == 6  # the four answers are not asked for again, the others are


def test_an_open_breaker_lets_nothing_through_until_its_pause_is_over_and_then_one_trial():
    now = [0.0]
    advisor = scripted(*[LLMUnavailable("refused")] * 6, GOOD, clock=lambda: now[0])
    for _ in range(2):
        advisor.ask(ASK)
    calls = []
    for now[0] in (0.0, 29.9, 30.0, 59.0):  # at 30 s the trial fails: open for another 30 s
        with pytest.raises(LLMUnavailable, match=r"refused|for [01] s more"):
            advisor.ask(ASK)
        calls.append(advisor.calls)
    assert calls == [5, 5, 6, 6]
    now[0] = 60.0
    assert not advisor.ask(ASK).abstained
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
    advisor = scripted(GOOD, num_ctx=622, num_predict=256)
    with pytest.raises(LLMError, match=r"a prompt of 303 bytes .* set llm.num_ctx to 623 or more"):
        advisor.ask(long)
    assert advisor.calls == 0
    assert not scripted(GOOD, num_ctx=623, num_predict=256).ask(long).abstained


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
    assert [advice_of(outcome).confidence for outcome in outcomes] == list(range(12))
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
