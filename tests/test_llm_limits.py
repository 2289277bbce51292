"""Limits: a run asks no more than it may, keeps what it was told, and goes on from there; what it costs is seen while it is asked."""

import itertools
import logging

import pytest
from pydantic import ValidationError
from servers.dialects import VLLM, Mistral
from test_llm import GOOD, Scripted

from ploutos.advisor.advisor import Advisor
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.mock import MockBackend
from ploutos.config import make_config
from ploutos.errors import ConfigError, LLMError, LLMStopped, LLMUnavailable
from ploutos.llm.backends.base import Message, Reply
from ploutos.llm.backends.openai_compatible import OpenAIBackend
from ploutos.llm.cassette import Cassette
from ploutos.llm.meter import Meter, Spent, metered
from ploutos.progress import advance, listening, working
from tasks.progress_log import questions_logged

PRICES = {"price_in": 1.0, "price_out": 10.0}
"""A question of 100 tokens read and 20 written costs 0.0003."""


def asks(n, first=0):
    return [(Message("user", f"question {i}"),) for i in range(first, first + n)]


def advisor_with(limits, cassette=None, script=(GOOD,), **settings):
    """Every question takes one second."""
    ticks = itertools.count()
    config = LLMConfig(limits=limits, **settings)
    return Advisor(Scripted(*script), config, cassette, sleep=lambda _: None, clock=lambda: float(next(ticks)))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"questions": 5}, "llm.limits.questions=5 is reached after 5 questions, 600 tokens, "),
        ({"tokens": 600}, "llm.limits.tokens=600 is reached after 5 questions, 600 tokens, "),
        ({"tokens": 590}, "llm.limits.tokens=590 is reached after 5 questions, 600 tokens, "),
        ({"money": 0.0015, **PRICES}, "llm.limits.money=0.0015 is reached after 5 questions, 600 tokens, .*, cost 0.0015"),
    ],
)
def test_a_limit_ends_the_asking_and_a_higher_one_goes_on_without_asking_twice(tmp_path, limits, said):
    cassette = Cassette(tmp_path)
    stopped = advisor_with(limits, cassette)
    with pytest.raises(LLMStopped, match=said + r".*; raise it and run again: .* 5 of 12 answers are kept$") as caught:
        stopped.ask_all(asks(12))
    assert "\n" not in str(caught.value)
    assert stopped.calls == 5
    (name, most), *_ = limits.items()
    again = advisor_with(limits | {name: most * 10}, cassette)
    assert len(again.ask_all(asks(12))) == 12
    assert again.calls == 7
    replayed = advisor_with(limits | {name: type(most)(1e-9 + 1 * (name != "money"))}, cassette)
    assert len(replayed.ask_all(asks(12))) == 12  # what is known costs nothing
    assert replayed.calls == 0


def test_seconds_are_those_of_answers_and_pauses(tmp_path):
    stopped = advisor_with({"seconds": 3}, Cassette(tmp_path))
    with pytest.raises(LLMStopped, match=r"llm.limits.seconds=3 is reached after 3 questions"):
        stopped.ask_all(asks(12))
    assert stopped.meter.seconds >= 3


def test_second_attempts_count_and_the_first_answer_is_kept(tmp_path):
    cassette = Cassette(tmp_path)
    with pytest.raises(LLMStopped):
        advisor_with({"questions": 1}, cassette, script=("nonsense", GOOD)).ask_all(asks(1))
    again = advisor_with({"questions": 1}, cassette)
    assert not again.ask(asks(1)[0]).abstained
    assert again.calls == 1


def test_as_many_questions_as_allowed_whatever_is_asked_at_once(tmp_path):
    stopped = advisor_with({"questions": 7}, Cassette(tmp_path), concurrency=4)
    with pytest.raises(LLMStopped, match="7 of 40 answers are kept"):
        stopped.ask_all(asks(40))
    assert stopped.calls == 7


def test_all_clients_of_a_run_share_its_limits_and_the_next_run_begins_anew():
    with metered() as meter:
        advisor_with({"questions": 5}).ask_all(asks(3))
        with pytest.raises(LLMStopped, match="is reached after 5 questions"):
            advisor_with({"questions": 5}).ask_all(asks(3))
        assert meter.questions == 5
    assert advisor_with({"questions": 5}).ask_all(asks(3))


def test_a_server_that_counts_no_tokens_cannot_be_held_to_them(tmp_path):
    for limits in ({"tokens": 100}, {"money": 1.0, **PRICES}):
        mute = advisor_with(limits, Cassette(tmp_path / str(len(limits))), script=(Reply(GOOD),))
        with pytest.raises(LLMError, match=r"the server does not say how many tokens it reads, so llm.limits.tokens and "):
            mute.ask_all(asks(3))
        assert mute.calls == 1
    assert advisor_with({"questions": 5}, script=(Reply(GOOD),)).ask_all(asks(3))


def test_the_mock_costs_nothing_and_has_no_limit():
    mock = Advisor(MockBackend(), LLMConfig(provider="mock", limits={"questions": 1}))
    assert len(mock.ask_all(asks(5))) == 5
    assert mock.meter.questions == 0


@pytest.mark.parametrize("prices", [{}, {"price_in": 1}, {"price_out": 1}])
def test_money_without_prices_is_refused_at_once(prices):
    with pytest.raises(ValidationError, match=r"llm.limits.money needs llm.limits.price_in and llm.limits.price_out"):
        LLMConfig(limits={"money": 1, **prices})
    with pytest.raises(ConfigError, match=r"llm.limits.*needs llm.limits.price_in"):
        make_config({"llm": {"limits": {"money": 1, **prices}}})


def test_what_failed_took_time_and_a_meter_says_what_it_counted():
    meter, limits = Meter(), LLMConfig(limits=PRICES).limits
    meter.begin(limits)
    meter.end(2.0, None)
    meter.begin(limits)
    meter.end(1.0, Reply(GOOD, prompt_tokens=1000, tokens=50, seconds=1.0, load_seconds=0.25))
    assert meter.describe(limits) == "2 questions, 1,050 tokens, 3 s, cost 0.0015"
    assert meter.spent(limits) == Spent(
        questions=2, prompt_tokens=1000, tokens=50, abstentions=0, failures=1, seconds=3.0, load_seconds=0.25, money=pytest.approx(0.0015)
    )
    assert meter.spent(LLMConfig().limits).money is None


def test_abstentions_and_failed_calls_are_counted_where_they_are_new(tmp_path):
    """The first answer cannot be read twice, the second call fails once; the cassette brings neither back into the count."""
    cassette, down = Cassette(tmp_path), LLMUnavailable("down")
    advisor = advisor_with({}, cassette, script=("no", "no", down, GOOD), batch_size=1)
    assert [outcome.abstained for outcome in advisor.ask_all(asks(2))] == [True, False]
    counts = advisor.meter.spent(advisor.config.limits)
    assert (counts.questions, counts.abstentions, counts.failures) == (4, 1, 1)
    again = advisor_with({}, cassette)
    assert [outcome.abstained for outcome in again.ask_all(asks(2))] == [True, False]
    counts = again.meter.spent(again.config.limits)
    assert (counts.questions, counts.abstentions, counts.failures) == (0, 0, 0)


def test_tokens_seconds_cost_abstentions_and_the_time_left_are_told_after_every_answer(tmp_path):
    cassette, heard = Cassette(tmp_path), []
    advisor_with({}, cassette).ask_all(asks(2))
    advisor = advisor_with(PRICES, cassette, script=("no", "no", GOOD), batch_size=1)
    with listening(heard.append), working("signals"):
        advisor.ask_all(asks(6))
    told = [(each.done, each.total, each.unit, each.note) for each in heard if each.total]
    assert [each[:3] for each in told] == [(n, 6, "questions") for n in range(1, 7)]
    assert told[0][3] == "120 tokens, 0 s, 0 abstentions, 0 asked anew, cost 0.0003"
    assert told[2][3].startswith("480 tokens, 2 s, 1 abstention, 2 asked anew, cost 0.0012, about ")
    assert told[2][3].endswith(" left")
    assert told[5][3] == "840 tokens, 4 s, 1 abstention, 5 asked anew, cost 0.0021"


@pytest.mark.parametrize("kind", [Mistral, VLLM])
def test_a_limit_holds_for_questions_and_not_for_refusals_of_a_part(kind, tmp_path):
    """Finding out how a server wants to be asked is part of the first question."""
    with kind() as server:
        config = LLMConfig(provider="openai", model=server.model, limits={"questions": 2})
        advisor = Advisor(OpenAIBackend(config, server.url, "a-key"), config, Cassette(tmp_path))
        with pytest.raises(LLMStopped, match="2 of 4 answers are kept"):
            advisor.ask_all(asks(4))


def test_the_log_of_a_task_tells_how_far_its_questions_are_now_and_then_and_at_the_last(caplog):
    caplog.set_level(logging.INFO, "task")
    now = [0.0]
    with questions_logged(logging.getLogger("task"), "signals", lambda: now[0]):
        with working("signals"):
            for n in range(1, 8):
                now[0] += 6.0
                advance(n, 7, "questions", f"{n}00 tokens")
        with working("backtests"):
            advance(9, 9, "bars")
    told = [record.getMessage() for record in caplog.records if record.name == "task"]
    assert told == [f"signals: {n} of 7 questions, {n}00 tokens" for n in (3, 6, 7)]
