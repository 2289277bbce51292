"""One question to each server that speaks OpenAI's chat API in its own way: what it refuses is left out once, and what it says is read."""

import pytest
from openai import OpenAI
from servers.dialects import KEY, SAID, VLLM, Anthropic, Azure, Dialect, LMStudio, Mistral, OpenAINow
from typer.testing import CliRunner

from ploutos.advisor.advisor import SCHEMA, Advice, Advisor
from ploutos.advisor.check import check_advisor
from ploutos.advisor.config import LLMConfig
from ploutos.cli.main import app
from ploutos.errors import ConfigError, LLMBusy, LLMError, LLMUnavailable
from ploutos.llm.backends import openai_compatible
from ploutos.llm.backends.base import Message
from ploutos.llm.backends.openai_compatible import Accepted, OpenAIBackend
from ploutos.settings import Settings

ASK = (Message("system", "Answer in JSON."), Message("user", "rsi_15min: 0.512"))


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(openai_compatible, "_ACCEPTED", {})


def backend_of(server: Dialect, url: str | None = None, **settings) -> OpenAIBackend:
    config = LLMConfig(**{"provider": "openai", "model": server.model, **settings})
    return OpenAIBackend(config, url or server.url, None if isinstance(server, LMStudio) else KEY)


def advisor_of(server: Dialect, **settings) -> Advisor:
    backend = backend_of(server, **settings)
    return Advisor(backend, backend._config, sleep=lambda _: None)


TAKEN = {
    OpenAINow: ("json_schema without bounds, max_completion_tokens, seed", 4),
    Azure: ("json_object, max_tokens, temperature, seed", 2),
    Mistral: ("json_schema, max_tokens, temperature", 2),
    Anthropic: ("json_schema, max_tokens, temperature, seed", 1),
    VLLM: ("json_schema without bounds, max_tokens, temperature, seed", 2),
    LMStudio: ("no format, max_tokens, temperature, seed", 3),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_each_server_is_asked_as_it_wants_and_what_it_refused_is_not_tried_again(kind):
    taken, n_asked = TAKEN[kind]
    with kind() as server:
        first = advisor_of(server)
        assert first.ask_all([ASK])[0].answer == Advice(action="sell", confidence=64, reason="it falls")
        assert len(server.asked) == n_asked
        assert str(first.backend.accepted) == taken
        again = advisor_of(server, num_predict=300)  # another client of this process
        assert not again.ask(ASK[::-1]).abstained
        assert len(server.asked) == n_asked + 1
        assert {server.asked[-1].get(name) for name in ("max_tokens", "max_completion_tokens")} == {300, None}


def test_the_check_of_the_command_line_takes_a_server_with_a_key_and_one_without(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Azure() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        result = check_advisor(LLMConfig(provider="openai", model=server.model), Settings())
        assert result.outcome.answer.action == "sell"
        assert result.outcome.raw == SAID
        assert (result.outcome.prompt_tokens, result.outcome.tokens) == (700, 40)
        assert result.asked_with == TAKEN[Azure][0]
    monkeypatch.delenv("OPENAI_API_KEY")
    with LMStudio() as server:
        arguments = ["provider=openai", f"model={server.model}", f"host={server.url}"]
        shown = CliRunner().invoke(app, ["llm", "check", *(part for each in arguments for part in ("--set", f"llm.{each}"))])
        assert shown.exit_code == 0
        assert f"asked with: {TAKEN[LMStudio][0]}\n" in shown.stdout
        assert "said: '<think>\\nIt fell for a week.\\n</think>" in shown.stdout  # as it was said
        assert "decision: sell, confidence 64 of 100" in shown.stdout


@pytest.mark.parametrize("kind", [OpenAINow, Azure, Mistral, Anthropic])
def test_a_wrong_key_is_found_before_a_question_and_said_in_one_sentence(kind):
    with kind() as server:
        wrong = OpenAIBackend(LLMConfig(provider="openai", model=server.model), server.url, "other")
        for call in (wrong.digest, lambda: wrong.complete(ASK, SCHEMA, 0)):
            with pytest.raises(LLMError, match=r"answered 401 to .*: .*; set OPENAI_API_KEY"):
                call()


@pytest.mark.parametrize(
    ("kind", "status", "body", "words"),
    [
        (OpenAINow, 400, {"error": {"message": "no", "param": None}}, "no"),
        (Mistral, 422, {"message": {"detail": [{"loc": ["body", "n"], "msg": "Extra inputs"}]}}, "body.n: Extra inputs"),
        (VLLM, 400, {"object": "error", "message": "too long"}, "too long"),
        (LMStudio, 400, {"error": "Model unloaded."}, "Model unloaded."),
        (Azure, 404, {"detail": "Not Found"}, "Not Found"),
        (VLLM, 418, "<html>\n<h1>teapot</h1>", "<html>"),
        (VLLM, 418, "", "no explanation"),
    ],
)
def test_the_servers_own_words_are_shown_wherever_it_puts_them(kind, status, body, words):
    with kind() as server:
        server.next = [(status, {}, body)]
        with pytest.raises(LLMError, match=rf"answered {status} to {server.model}: {words}; look at llm.model"):
            backend_of(server).complete(ASK, SCHEMA, 0)


def test_an_overloaded_server_is_given_the_time_it_asks_for():
    with Anthropic() as server:
        paused = []
        backend = backend_of(server)
        server.next = [server.overloaded()] * 2
        assert not Advisor(backend, backend._config, sleep=paused.append).ask(ASK).abstained
        assert paused == [3.0, 3.0]
        server.next = [(429, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, {"error": {"message": "rate limit"}})]
        with pytest.raises(LLMBusy, match="answered 429 to claude-x: rate limit") as caught:
            backend.complete(ASK, SCHEMA, 0)
        assert caught.value.retry_after > 1e9


@pytest.mark.parametrize("status", [408, 500, 502, 503, 520, 522, 524])
def test_a_broken_server_is_worth_another_try(status):
    with VLLM() as server:
        server.next = [(status, {}, "<html>web server returned an unknown error</html>")]
        with pytest.raises(LLMUnavailable, match=f"answered {status} to Qwen/Qwen3-8B: <html>web server"):
            backend_of(server).complete(ASK, SCHEMA, 0)
        assert len(server.asked) == 1  # who asks again is the client above


def test_a_refusal_that_repeats_the_key_is_told_without_it(caplog):
    with Mistral() as server:
        server.next = [(422, {}, {"detail": f"seed is not for {KEY}"})]
        backend_of(server).complete(ASK, SCHEMA, 0)
    assert "seed is not for ***; from now on it is asked with json_schema, max_tokens, temperature" in caplog.text


def test_an_account_without_money_is_no_busy_server():
    with OpenAINow() as server:
        server.next = [(429, {}, server.error(429, "You exceeded your current quota", None, "insufficient_quota"))]
        with pytest.raises(LLMError, match="exceeded your current quota; waiting will not help") as caught:
            backend_of(server).complete(ASK, SCHEMA, 0)
        assert not isinstance(caught.value, LLMUnavailable)


def test_a_limit_on_length_that_is_too_large_is_a_fault_and_not_another_name():
    with OpenAINow() as server:
        server.next = [(400, {}, server.error(400, "max_tokens is too large: 99999", "max_tokens"))]
        with pytest.raises(LLMError, match="max_tokens is too large"):
            backend_of(server).complete(ASK, SCHEMA, 0)


def test_an_error_in_a_good_answer_is_told_and_another_answer_is_no_chat():
    with VLLM() as server:
        server.next = [(200, {}, {"error": {"message": "upstream is down", "code": 502}}), (200, {}, {"object": "list", "data": []})]
        with pytest.raises(LLMUnavailable, match="answered upstream is down"):
            backend_of(server).complete(ASK, SCHEMA, 0)
        with pytest.raises(LLMUnavailable, match="does not speak OpenAI's chat API"):
            backend_of(server).complete(ASK, SCHEMA, 0)


def test_thoughts_are_the_answer_only_where_nothing_else_was_said_and_nothing_was_cut():
    with VLLM() as server:
        whole = server.answer({})
        cut = server.answer({})
        cut["choices"][0]["finish_reason"] = "length"
        both = server.answer({})
        both["choices"][0]["message"]["content"] = "hold on"
        refused = server.answer({})
        refused["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I cannot advise."}
        server.next = [(200, {}, answer) for answer in (whole, cut, both, refused)]
        replies = [backend_of(server).complete(ASK, SCHEMA, 0) for _ in range(4)]
    assert [(reply.text, reply.truncated) for reply in replies] == [
        (SAID, False), ("", True), ("hold on", False), ("I cannot advise.", False),
    ]  # fmt: skip


def test_what_azure_shows_as_an_address_is_taken_and_a_wrong_deployment_is_named():
    with Azure() as server:
        shown = f"{server.address}/openai/deployments/{server.model}/chat/completions?api-version=2024-06-01"
        assert backend_of(server, shown).complete(ASK, SCHEMA, 0).text == SAID
        with pytest.raises(LLMError, match="answered 404 to other: The API deployment for this resource does not exist"):
            backend_of(server, model="other").complete(ASK, SCHEMA, 0)


def test_a_schema_without_bounds_is_what_the_strict_mode_takes():
    schema = {
        "title": "T", "type": "object", "required": [],
        "$defs": {"D": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0}}}},
        "properties": {
            "title": {"type": "string", "maxLength": 3}, "d": {"anyOf": [{"$ref": "#/$defs/D"}, {"type": "null"}], "default": None},
        },
    }  # fmt: skip
    strict = {"type": "object", "additionalProperties": False}
    assert openai_compatible._without_bounds(schema) == {
        **strict, "required": ["title", "d"], "$defs": {"D": {**strict, "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
        "properties": {"title": {"type": "string"}, "d": {"anyOf": [{"$ref": "#/$defs/D"}, {"type": "null"}]}},
    }  # fmt: skip


def test_what_was_refused_is_read_from_the_first_part_that_a_refusal_names():
    asked = Accepted()
    assert asked.after("unknown field seed; temperature is fine").sampling == ("temperature",)
    assert asked.after("`logit_bias` and `seedling` are not supported") is None
    assert Accepted(sampling=()).after("temperature is not supported") is None
    steps, left = [], asked
    while left is not None:
        steps.append(left.format)
        left = left.after("response_format: not permitted")
    assert steps == ["json_schema", "json_schema without bounds", "json_object", "no format"]


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "http://[::1", "localhost", "http://host:port/v1"])
def test_an_address_that_is_none_is_a_wrong_setting(address):
    with pytest.raises(ConfigError, match=r"llm.host or OPENAI_BASE_URL is .*; expected an address such as http://127"):
        OpenAIBackend(LLMConfig(provider="openai"), address, None)


def test_the_servers_speak_to_the_published_client_alone():
    with Mistral() as server, OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model=server.model, messages=[{"role": "user", "content": "?"}])
        assert [part["type"] for part in answer.choices[0].message.content] == ["thinking", "text"]
