"""Providers against real servers: Ollama's API and OpenAI's, each by its published client, over a real llama.cpp."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APITimeoutError, AuthenticationError, InternalServerError, NotFoundError, OpenAI, RateLimitError
from servers.llama import LlamaServer
from servers.tiny_gguf import write_tiny_gguf

from ploutos.advisor.advisor import SCHEMA, Advice, Advisor, advice_of, advise, prompt_at
from ploutos.advisor.check import check_advisor
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.signals import write_signals
from ploutos.errors import ConfigError, LLMBusy, LLMError, LLMUnavailable
from ploutos.features.llm_features import market_features
from ploutos.llm import backends
from ploutos.llm.backends import openai_compatible
from ploutos.llm.backends.base import Message
from ploutos.llm.backends.ollama import OllamaBackend
from ploutos.llm.backends.openai_compatible import OpenAIBackend
from ploutos.llm.cassette import Cassette
from ploutos.llm.client import Outcome
from ploutos.preflight import require_advisor
from ploutos.settings import Settings

ASK = (Message("system", "Decide."), Message("user", "rsi_15min: 0.512"))
CHAT, V1 = "/api/chat", "/v1/chat/completions"


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    """Of another test's server at the same port."""
    monkeypatch.setattr(openai_compatible, "_ACCEPTED", {})


@pytest.fixture
def server(gguf):
    with LlamaServer({"tiny": gguf, "tiny:other": gguf}) as running:
        yield running


def ollama(server, **settings) -> OllamaBackend:
    return OllamaBackend(LLMConfig(model="tiny", **settings), getattr(server, "host", server))


def openai(server, **settings) -> OpenAIBackend:
    return OpenAIBackend(LLMConfig(provider="openai", model="tiny", **settings), f"{server.url}/v1", "key")


def advisor_of(server, cassette=None, backend=None, **settings) -> Advisor:
    config = LLMConfig(model="tiny", **settings)
    return Advisor(backend or OllamaBackend(config, getattr(server, "host", server)), config, cassette, sleep=lambda _: None)


def asks(n):
    return [(ASK[0], Message("user", f"rsi_15min: 0.{i:03d}")) for i in range(n)]


# --- Ollama: answers


def test_the_tiny_model_is_the_same_bytes_each_time(gguf, tmp_path):
    assert write_tiny_gguf(tmp_path / "again.gguf").read_bytes() == gguf.read_bytes()


def test_a_nonsense_model_is_held_to_the_schema_whatever_the_seed(server):
    backend = ollama(server, temperature=0.8, num_predict=400)
    answers = []
    for seed in range(10):
        reply = backend.complete(ASK, SCHEMA, seed)
        assert not reply.truncated
        answers.append(Advice.model_validate_json(reply.text))
        assert 0 < reply.tokens <= 400
        assert reply.prompt_tokens >= sum(len(message.content) for message in ASK) * 0.9
        assert reply.seconds >= reply.load_seconds
    assert len({answer.reason for answer in answers}) > 3
    again = backend.complete(ASK, SCHEMA, 3)
    assert Advice.model_validate_json(again.text) == answers[3]


def test_every_request_carries_the_schema_the_options_and_how_long_to_stay(server):
    ollama(server, num_ctx=2048, num_predict=99, keep_alive="7m", temperature=0.5, think=False).complete(ASK, SCHEMA, 11)
    (body,) = server.called(CHAT)
    assert body["format"] == SCHEMA
    assert body["options"] == {"num_ctx": 2048, "num_predict": 99, "temperature": 0.5, "seed": 11}
    assert (body["keep_alive"], body["think"], body["stream"], body["model"]) == ("7m", False, False, "tiny:latest")
    assert body["messages"] == [message._asdict() for message in ASK]
    ollama(server).complete(ASK, SCHEMA, 0)
    assert "think" not in server.called(CHAT)[1]  # unset by default: models differ in what it breaks


def test_the_digest_is_that_of_the_model_on_the_server(server, gguf):
    assert ollama(server).digest() == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert server.loads == 0


def test_a_token_is_a_byte_at_least_so_the_guard_of_the_context_is_on_the_safe_side(server, panel):
    market = market_features(panel)
    messages = prompt_at(panel, lambda t, s: market[t, s], "S0", panel.available_at[600])
    reply = ollama(server).complete(messages, SCHEMA, 0)
    n_bytes = sum(len(message.content.encode()) for message in messages)
    assert 0.9 * n_bytes < reply.prompt_tokens <= n_bytes + 64  # this model's tokens are bytes: the worst case


def test_a_prompt_longer_than_the_context_is_never_sent(server):
    with pytest.raises(LLMError, match=r"set llm.num_ctx to"):
        advisor_of(server, num_ctx=512).ask((Message("user", "x" * 600),))
    assert server.called(CHAT) == []


def test_a_server_that_refuses_a_prompt_for_its_length_is_told_of_in_one_sentence(server):
    with pytest.raises(LLMError, match=r"answered 400 to tiny:latest.*context"):
        ollama(server, num_ctx=256).complete((Message("user", "x" * 600),), SCHEMA, 0)


# --- Ollama: memory


def test_a_model_is_loaded_by_the_first_question_stays_and_is_not_loaded_again(server):
    backend = ollama(server)
    assert not backend.is_loaded()
    first = backend.complete(ASK, SCHEMA, 0)
    assert backend.is_loaded()
    assert first.load_seconds > 0
    assert backend.complete(ASK, SCHEMA, 1).load_seconds < first.load_seconds
    backend.load()
    assert server.loads == 1


def test_loading_first_uses_the_options_of_the_questions(server):
    backend = ollama(server, num_ctx=1024)
    backend.load()
    assert server.loaded() == ["tiny:latest"]
    backend.complete(ASK, SCHEMA, 0)
    assert server.loads == 1


def test_unloading_takes_this_tag_and_no_other(server):
    backend, other = ollama(server), OllamaBackend(LLMConfig(model="tiny:other"), server.host)
    backend.load()
    other.load()
    backend.unload()
    assert server.loaded() == ["tiny:other"]
    assert (backend.is_loaded(), other.is_loaded()) == (False, True)


def test_a_name_with_a_tag_a_registry_or_neither_is_one_exact_tag():
    tags = {"llama3.2": "llama3.2:latest", "llama3.2:1b": "llama3.2:1b", "host:5000/a/b": "host:5000/a/b:latest", "a/b:c": "a/b:c"}
    for model, tag in tags.items():
        assert OllamaBackend(LLMConfig(model=model), None).tag == tag


# --- Ollama: faults


def test_a_model_that_is_not_there_is_named_with_those_that_are(server):
    absent = OllamaBackend(LLMConfig(model="absent"), server.host)
    with pytest.raises(LLMError, match="has no absent:latest, it has tiny:latest, tiny:other; run: ollama pull absent"):
        absent.digest()
    with pytest.raises(LLMError, match="answered 404 to absent:latest: model 'absent:latest' not found; run: ollama pull absent"):
        absent.complete(ASK, SCHEMA, 0)
    with pytest.raises(LLMError, match="404"):
        absent.unload()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_or_broken_server_is_asked_again_and_then_given_up_for_this_question(server, status):
    advisor = advisor_of(server)
    server.next_failures = [(status, "server busy, please try again.  maximum pending requests exceeded")]
    assert not advisor.ask(ASK).abstained
    assert advisor.calls == 2
    server.next_failures = [(status, "busy")] * (16 if status == 429 else 2)
    outcome = advisor.ask(ASK)
    assert outcome.why == f"Ollama at {server.host} answered {status} to tiny:latest: busy"
    assert outcome.unanswered
    assert not outcome.abstained


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_request_that_is_refused_is_not_repeated(server, status):
    advisor = advisor_of(server)
    server.next_failures = [(status, "no")]
    with pytest.raises(LLMError, match=f"answered {status} to tiny:latest: no; run: ploutos llm check") as error:
        advisor.ask(ASK)
    assert not isinstance(error.value, LLMUnavailable)
    assert advisor.calls == 1


def test_a_server_that_hangs_costs_the_timeout_and_no_more(server):
    server.hang_s = 60
    advisor = advisor_of(server, timeout_s=1)
    outcome = advisor.ask(ASK)
    assert "did not answer within 1 s; raise llm.timeout_s" in outcome.why
    assert len(server.called(CHAT)) == 2


def test_a_cut_answer_is_an_abstention_that_says_so(server):
    outcome = advisor_of(server, num_predict=5).ask(ASK)
    assert advice_of(outcome).reason == "abstained: the answer was cut off after 5 tokens; raise llm.num_predict"
    assert not outcome.unanswered


def test_nobody_at_the_address_is_one_sentence():
    backend = OllamaBackend(LLMConfig(), "127.0.0.1:9")
    for call in (backend.digest, backend.is_loaded, backend.load, backend.unload, lambda: backend.complete(ASK, SCHEMA, 0)):
        with pytest.raises(LLMUnavailable, match=r"Ollama at 127.0.0.1:9 cannot be reached; start it \(ollama serve\)"):
            call()


def test_an_address_that_is_none_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="which is not an address"):
        OllamaBackend(LLMConfig(), "host:port")


@pytest.fixture
def website():
    """Something that answers and is not a language model."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>It works!</html>")

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def test_something_else_at_the_address_is_no_provider(website):
    for call in (ollama(website).digest, lambda: ollama(website).complete(ASK, SCHEMA, 0)):
        with pytest.raises(LLMUnavailable, match="does not speak Ollama's API"):
            call()
    backend = OpenAIBackend(LLMConfig(), f"http://{website}/v1", None)
    with pytest.raises(LLMUnavailable, match="does not speak OpenAI's chat API"):
        backend.complete(ASK, SCHEMA, 0)


def test_a_server_killed_in_the_middle_of_a_batch_ends_it_and_the_next_run_asks_nothing_twice(gguf, tmp_path):
    script = Path(__file__).parent / "servers" / "llama.py"
    process = subprocess.Popen([sys.executable, str(script), f"tiny={gguf}"], stdout=subprocess.PIPE, text=True)
    host = process.stdout.readline().strip()

    class Doomed(OllamaBackend):
        """Its server is killed once six questions were answered."""

        answered = 0

        def complete(self, messages, schema, seed):
            if self.answered == 6:
                process.kill()
                process.wait()
            reply = super().complete(messages, schema, seed)
            self.answered += 1
            return reply

    cassette = Cassette(tmp_path)
    try:
        doomed = advisor_of(host, cassette, Doomed(LLMConfig(model="tiny"), host))
        with pytest.raises(LLMUnavailable, match=r"cannot be reached.*; 6 of 12 answers are kept, run again for the rest"):
            doomed.ask_all(asks(12))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with LlamaServer({"tiny": gguf}) as server:
        resumed = advisor_of(server, cassette).ask_all(asks(12))
        asked = [body["messages"][1]["content"] for body in server.called(CHAT)]
        assert asked == [messages[1].content for messages in asks(12)[6:]]
        fresh = advisor_of(server, Cassette(tmp_path / "fresh")).ask_all(asks(12))
    assert [advice_of(outcome) for outcome in resumed] == [advice_of(outcome) for outcome in fresh]


# --- OpenAI


def test_an_openai_server_is_held_to_the_schema(server):
    reply = openai(server).complete(ASK, SCHEMA, 3)
    Advice.model_validate_json(reply.text)
    assert reply.prompt_tokens > 0
    assert reply.tokens > 0
    (body,) = server.called(V1)
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 3, 256)


def test_the_published_client_of_openai_finds_its_own_errors_in_what_this_server_says(server):
    """So the test server speaks OpenAI's API."""
    messages: Any = [message._asdict() for message in ASK]
    with OpenAI(base_url=f"{server.url}/v1", api_key="key", max_retries=0, timeout=60) as client:
        for status, error in ((401, AuthenticationError), (404, NotFoundError), (429, RateLimitError), (500, InternalServerError)):
            server.next_failures = [(status, "no")]
            with pytest.raises(error, match="no"):
                client.chat.completions.create(model="tiny", messages=messages)
        server.hang_s = 60
        with pytest.raises(APITimeoutError):
            client.with_options(timeout=0.2).chat.completions.create(model="tiny", messages=messages)


@pytest.mark.parametrize(("refused", "taken"), [({"json_schema"}, "json_object"), ({"json_schema", "json_object"}, None)])
def test_a_server_that_refuses_a_format_gets_a_lesser_one_and_is_not_asked_for_the_first_again(server, refused, taken):
    server.refused_formats = refused
    backend = openai(server, num_predict=40)
    backend.complete(ASK, SCHEMA, 0)
    backend.complete(ASK, SCHEMA, 1)
    kinds = [(body.get("response_format") or {}).get("type") for body in server.called(V1)]
    assert kinds == ["json_schema", "json_object", None][: len(refused)] + [taken] * 2


def test_what_a_lesser_format_lets_through_is_caught_by_the_check(server):
    server.refused_formats = {"json_schema", "json_object"}
    config = LLMConfig(provider="openai", model="tiny")
    outcome = Advisor(openai(server, num_predict=40), config, sleep=lambda _: None).ask(ASK)
    assert outcome.abstained
    assert advice_of(outcome).action == "hold"


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, LLMError, "answered 401 to tiny: no; set OPENAI_API_KEY"),
        (400, LLMError, "answered 400 to tiny: no; look at llm.model"),
        (429, LLMBusy, "answered 429 to tiny: no"),
        (500, LLMUnavailable, "answered 500 to tiny: no"),
        (503, LLMUnavailable, "answered 503 to tiny: no"),
    ],
)
def test_faults_of_an_openai_server_are_one_sentence(server, status, error, words):
    server.next_failures = [(status, "no")]
    with pytest.raises(error, match=words) as caught:
        openai(server).complete(ASK, SCHEMA, 0)
    assert type(caught.value) is error
    assert len(server.called(V1)) == 1


def test_a_key_that_an_openai_server_repeats_and_a_password_in_its_address_are_in_no_sentence(server):
    server.next_failures = [(401, "Incorrect API key provided: sk-planted")]
    backend = OpenAIBackend(LLMConfig(model="tiny"), f"{server.url.replace('://', '://ann:planted@')}/v1", "sk-planted")
    with pytest.raises(LLMError, match=r"^http://ann:\*\*\*@127.* answered 401 to tiny: Incorrect API key provided: \*\*\*; set"):
        backend.complete(ASK, SCHEMA, 0)


def test_an_openai_server_that_hangs_or_is_gone_is_unavailable(server):
    server.hang_s = 60
    with pytest.raises(LLMUnavailable, match=r"did not answer within 0.2 s"):
        openai(server, timeout_s=0.2).complete(ASK, SCHEMA, 0)
    with pytest.raises(LLMUnavailable, match=r"cannot be reached; start the server or set OPENAI_BASE_URL"):
        OpenAIBackend(LLMConfig(), "http://127.0.0.1:9/v1", None).complete(ASK, SCHEMA, 0)


def test_a_cut_answer_of_an_openai_server_is_known_as_one(server):
    assert openai(server, num_predict=5).complete(ASK, SCHEMA, 0).truncated


# --- through the advisor


@pytest.fixture(scope="module")
def market(panel):
    return market_features(panel)


def test_a_replay_with_the_server_gone_writes_the_same_bytes(gguf, panel, market, tmp_path):
    settings = {"concurrency": 2, "cadence_bars": 50}
    with LlamaServer({"tiny": gguf}) as server:
        live = advisor_of(server, Cassette(tmp_path), **settings)
        server.next_failures = [(500, "a bad day")] * 2
        signals = advise(panel, market, 400, 500, live)
        assert signals.digest == hashlib.sha256(gguf.read_bytes()).hexdigest()
        assert not signals.is_mock
    write_signals(signals, tmp_path / "live.parquet")
    replayed = advisor_of(server, Cassette(tmp_path), replay=True, **settings)  # the address of the server that is gone
    write_signals(advise(panel, market, 400, 500, replayed), tmp_path / "replayed.parquet")
    assert replayed.calls == 0
    assert (tmp_path / "replayed.parquet").read_bytes() == (tmp_path / "live.parquet").read_bytes()
    with pytest.raises(LLMError, match=r"the cassette has no answer to question .*, and a replay makes no calls"):
        advise(panel, market, 400, 560, replayed)
    with pytest.raises(LLMError, match=r"the cassette has no answer"):
        advise(panel, market, 400, 500, advisor_of(server, Cassette(tmp_path), replay=True, temperature=0.1, **settings))


def test_the_check_asks_one_question_and_records_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    result = check_advisor(LLMConfig(model="tiny"), Settings())
    assert result.model == "tiny:latest (Ollama)"
    assert result.outcome.tokens > 0
    assert result.outcome.seconds > 0
    assert len(server.called(CHAT)) == 1
    assert "AAPL" not in str(server.called(CHAT)[0])
    assert not (tmp_path / "home").exists()


def test_a_run_to_be_finds_the_model_without_loading_it(server):
    digest = ollama(server).digest()
    assert require_advisor(LLMConfig(model="tiny", host=server.host), Settings()) == f"tiny:latest (Ollama) {digest[:12]}"
    with pytest.raises(LLMUnavailable, match="cannot be reached"):
        require_advisor(LLMConfig(host="127.0.0.1:9"), Settings())
    assert server.loads == 0


# --- the real thing, where there is one


@pytest.mark.slow
def test_a_real_small_model_answers_to_the_schema(panel, market, small_model):
    """Form and counts only, its wisdom is none."""
    with LlamaServer({"tiny": small_model}) as server:
        signals = advise(panel, market, 600, 600, advisor_of(server))
    assert len(signals.frame) == panel.tradable[600].sum()
    assert signals.n_abstained == 0
    assert (signals.frame["tokens"] > 10).all()
    assert signals.frame["prompt_tokens"].between(500, 2000).all()


def _real_models() -> list[str]:
    host = os.environ.get("OLLAMA_HOST")
    if host is None:
        return []
    try:
        return [model.model for model in OllamaBackend(LLMConfig(timeout_s=2), host)._client.list().models]
    except (ConnectionError, httpx.HTTPError):
        return []


def test_a_real_ollama_answers_to_the_schema_loads_and_unloads():
    models = _real_models()
    if not models:
        pytest.skip("OLLAMA_HOST names no Ollama server that answers and has a model")
    model = os.environ.get("PLOUTOS_TEST_MODEL", models[0])
    config = LLMConfig(model=model)
    backend = OllamaBackend(config, os.environ["OLLAMA_HOST"])
    was_loaded = backend.is_loaded()
    assert len(backend.digest()) == 64
    outcome = Advisor(backend, config).ask(ASK)
    assert not outcome.abstained, advice_of(outcome).reason
    assert backend.is_loaded()
    if not was_loaded:
        backend.unload()


def test_a_check_of_a_server_that_does_not_answer_fails_and_decides_nothing(server, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.next_failures = [(503, "loading")] * 2
    with pytest.raises(LLMUnavailable, match="answered 503 to tiny:latest: loading"):
        check_advisor(LLMConfig(model="tiny"), Settings())
    with pytest.raises(LLMUnavailable, match="too slow"):
        advice_of(Outcome(None, "too slow", unanswered=True))


def test_only_this_host_is_looked_at_before_the_client_is_imported(monkeypatch):
    asked = []

    def refused(address, timeout):
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(backends.socket, "create_connection", refused)
    for host in ("http://gpu.example:11434", "not an [address"):
        backends.require_listener(LLMConfig(provider="ollama", host=host), Settings())
    assert asked == []
    with pytest.raises(LLMUnavailable, match="Ollama at localhost cannot be reached"):
        backends.require_listener(LLMConfig(provider="ollama", host="localhost"), Settings())
    with pytest.raises(LLMUnavailable, match=r"http://127\.0\.0\.1:8080/v1 cannot be reached; start the server"):
        backends.require_listener(LLMConfig(provider="openai", host="http://127.0.0.1:8080/v1"), Settings())
    for provider, host in (("ollama", "http://localhost"), ("openai", "https://localhost/v1")):  # as the clients read them
        with pytest.raises(LLMUnavailable):
            backends.require_listener(LLMConfig(provider=provider, host=host), Settings())
    assert asked == [("localhost", 11434), ("127.0.0.1", 8080), ("localhost", 80), ("localhost", 443)]
