"""UNLOAD_LLM_DURING_BACKTEST: what it says, who wins, and that the model really leaves the server and comes back."""

import logging

import pytest
from pydantic import ValidationError
from servers.llama import LlamaServer

from ploutos.advisor.check import check_advisor
from ploutos.advisor.config import LLMConfig
from ploutos.hardware.machine import Gpu, Machine
from ploutos.llm import gpu_unload as memory
from ploutos.llm.backends.base import Message
from ploutos.llm.backends.ollama import OllamaBackend
from ploutos.llm.config import LLMProvider
from ploutos.llm.gpu_unload import GPUMemoryManager, unload_wanted
from ploutos.settings import Settings

VARIABLE = "UNLOAD_LLM_DURING_BACKTEST"
ASK = (Message("user", "Decide."),)
OFFLINE = LLMConfig(provider=LLMProvider.OLLAMA, model="test-model", host="127.0.0.1:9")


@pytest.fixture(autouse=True)
def unset(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)  # no .env of the developer's


def wanted(**settings) -> bool:
    return GPUMemoryManager(OFFLINE, Settings(), **settings).wanted


# --- the ten of the first document


def test_default_behavior_false_when_not_set():
    assert wanted() is False


def test_env_var_true_explicit(monkeypatch):
    monkeypatch.setenv(VARIABLE, "True")
    assert wanted() is True


def test_env_var_one_numeric(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    assert wanted() is True


def test_env_var_yes(monkeypatch):
    monkeypatch.setenv(VARIABLE, "yes")
    assert wanted() is True


def test_env_var_false_explicit(monkeypatch):
    monkeypatch.setenv(VARIABLE, "False")
    assert wanted() is False


def test_env_var_zero_numeric(monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    assert wanted() is False


def test_env_var_case_insensitive(monkeypatch):
    for on, off in (("TRUE", "FALSE"), ("true", "false"), ("True", "False"), ("YES", "NO"), ("Yes", "No")):
        monkeypatch.setenv(VARIABLE, on)
        assert wanted() is True
        monkeypatch.setenv(VARIABLE, off)
        assert wanted() is False


def test_explicit_parameter_overrides_env(monkeypatch):
    monkeypatch.setenv(VARIABLE, "True")
    assert wanted(unload=False) is False
    assert wanted(unload=None) is True
    assert GPUMemoryManager(OFFLINE.model_copy(update={"unload_during_backtest": False}), Settings()).wanted is False
    monkeypatch.setenv(VARIABLE, "False")
    assert wanted(unload=True) is True
    assert GPUMemoryManager(OFFLINE.model_copy(update={"unload_during_backtest": True}), Settings()).wanted is True


def test_backtest_with_unload_true_calls_manager(monkeypatch, server):
    monkeypatch.setenv(VARIABLE, "True")
    manager, backend = manager_of(server)
    backend.complete(ASK, {}, 0)
    with manager.freed("backtest"):
        assert server.loaded() == []
    manager.reload()
    assert server.loaded() == ["tiny:latest"]
    assert [body["keep_alive"] for body in server.called("/api/generate")] == [0, "10m"]


def test_backtest_with_unload_false_skips_manager(monkeypatch, server):
    monkeypatch.setenv(VARIABLE, "False")
    manager, backend = manager_of(server)
    backend.complete(ASK, {}, 0)
    before = len(server.requests)
    with manager.freed("backtest"):
        assert server.loaded() == ["tiny:latest"]
    manager.reload()
    assert len(server.requests) == before
    assert manager.unloads == []


# --- what it says


def test_unknown_text_is_off_and_warned_about_and_nothing_else_is(monkeypatch, caplog):
    for text in ("on", "2", "oui", "tru e"):
        assert unload_wanted(None, text) is False
        assert f"UNLOAD_LLM_DURING_BACKTEST is {text!r} and counts as False" in caplog.text
        caplog.clear()
    for text in ("True", "1", "yes", "False", "0", "no", " true ", "", None):
        unload_wanted(None, text)
    assert unload_wanted(True, "nonsense") is True
    assert caplog.text == ""


def test_the_variable_is_read_from_the_env_file_too(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("UNLOAD_LLM_DURING_BACKTEST=yes\n")
    assert wanted() is True
    monkeypatch.setenv(VARIABLE, "no")
    assert wanted() is False


# --- what it does to a server


@pytest.fixture
def server(gguf):
    with LlamaServer({"tiny": gguf, "tiny:other": gguf}) as running:
        yield running


def manager_of(server, **given):
    config = LLMConfig(model="tiny", host=server.host, timeout_s=5)
    return GPUMemoryManager(config, Settings(), **given), OllamaBackend(config, server.host)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, on_sleep=lambda: None):
        self.now, self.on_sleep = 0.0, on_sleep

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.on_sleep()


def test_the_block_begins_when_the_server_has_let_go_not_when_it_answered(server):
    """Ollama answers an unload at once and frees the memory later."""
    server.unload_delay_s = 0.5
    manager, backend = manager_of(server, unload=True)
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        assert server.loaded() == []
    (record,) = manager.unloads
    assert record.phase == "training"
    assert record.unload_s >= 0.4
    assert len(server.called("/api/ps")) > 3


def test_a_model_that_will_not_go_is_waited_for_15_seconds_and_the_block_runs_anyway(server, caplog):
    server.unload_delay_s = 1e6
    clock = Clock()
    manager, backend = manager_of(server, unload=True, clock=clock, sleep=clock.sleep)
    backend.complete(ASK, {}, 0)
    ran = []
    with manager.freed("training"):
        ran.append(clock.now)
    assert ran == [pytest.approx(15.1, abs=0.2)]
    assert manager.unloads[0].unload_s is None
    assert "still in the GPU 15 s after the unload request" in caplog.text


def test_the_model_comes_back_with_the_next_need_and_not_before(server, caplog):
    caplog.set_level(logging.INFO)
    manager, backend = manager_of(server, unload=True)
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        pass
    assert server.loaded() == []
    manager.reload()
    assert server.loaded() == ["tiny:latest"]
    assert manager.unloads[0].reload_s > 0
    assert server.loads == 2
    manager.reload()
    assert server.loads == 2
    assert "is back in the GPU after" in caplog.text


def test_a_reload_finds_a_model_that_a_question_brought_back(server):
    manager, backend = manager_of(server, unload=True)
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        pass
    backend.complete(ASK, {}, 0)
    manager.reload()
    assert server.loads == 2
    assert [body["keep_alive"] for body in server.called("/api/generate")] == [0]


def test_a_block_that_fails_still_leaves_the_model_due_and_its_own_error_whole(server):
    manager, backend = manager_of(server, unload=True)
    backend.complete(ASK, {}, 0)
    with pytest.raises(ZeroDivisionError), manager.freed("training"):
        raise ZeroDivisionError
    manager.reload()
    assert server.loaded() == ["tiny:latest"]


def test_nothing_is_loaded_in_order_to_be_unloaded(server):
    manager, _ = manager_of(server, unload=True)
    with manager.freed("training"):
        pass
    manager.reload()
    assert server.loads == 0
    assert {path for path, _ in server.requests} == {"/api/ps"}
    assert manager.unloads == []


def test_other_models_stay_where_they_are(server):
    other = OllamaBackend(LLMConfig(model="tiny:other"), server.host)
    other.load()
    manager, backend = manager_of(server, unload=True)
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        assert server.loaded() == ["tiny:other"]


def test_what_an_earlier_run_or_a_check_left_behind_is_unloaded(server, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    check_advisor(LLMConfig(model="tiny"), Settings())
    assert server.loaded() == ["tiny:latest"]
    manager, _ = manager_of(server, unload=True)
    with manager.freed("training"):
        assert server.loaded() == []
    assert manager.unloads[0].unload_s is not None


def test_a_name_in_another_case_is_the_same_model(server):
    config = LLMConfig(model=" Tiny", host=server.host)
    backend = OllamaBackend(config, server.host)
    assert len(backend.digest()) == 64
    backend.complete(ASK, {}, 0)
    assert backend.is_loaded()
    with GPUMemoryManager(config, Settings(), unload=True).freed("training"):
        assert server.loaded() == []


def machine_with(*free: int, gpu: int | None = None):
    """A machine that has so many bytes free, one after the other."""
    left = iter(free)

    def read() -> Machine:
        n = next(left)
        return Machine(2, 100, n, () if gpu is None else (Gpu("card", 1000, n * gpu), Gpu("other", 1000, 7)))

    return read


@pytest.mark.parametrize(("gpu", "freed"), [(None, None), (10, 300)])
def test_the_memory_that_became_free_is_measured(server, caplog, gpu, freed):
    caplog.set_level(logging.INFO)
    manager, backend = manager_of(server, unload=True, machine=machine_with(20, 50, gpu=gpu))
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        pass
    (record,) = manager.unloads
    assert (record.freed_bytes, record.freed_gpu_bytes) == (30, freed)
    assert "became free: 0 MiB of" in caplog.text


def test_memory_of_another_host_and_of_a_model_that_stays_is_not_measured(server, monkeypatch):
    server.unload_delay_s = 1e6
    clock = Clock()
    manager, backend = manager_of(server, unload=True, machine=machine_with(20, 50), clock=clock, sleep=clock.sleep)
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        pass
    assert manager.unloads[0].freed_bytes is None
    server.unload_delay_s = 0
    monkeypatch.setattr(OllamaBackend, "is_local", False)
    manager, _ = manager_of(server, unload=True, machine=machine_with(20, 50))
    backend.load()
    with manager.freed("training"):
        pass
    assert (manager.unloads[0].unload_s is None, manager.unloads[0].freed_bytes) == (False, None)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1:1", True),
        ("http://localhost:11434", True),
        ("[::1]:1", True),
        ("0.0.0.0", True),
        ("gpu.lan:1", False),
        ("10.0.0.1", False),
    ],
)
def test_whose_memory_it_is_is_read_from_the_address(host, local):
    assert OllamaBackend(LLMConfig(), host).is_local is local


def test_a_real_engine_that_leaves_this_process_frees_memory_that_is_measured(server):
    """No figure is expected of a busy machine, only that there is one."""
    manager, backend = manager_of(server, unload=True)
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        pass
    assert isinstance(manager.unloads[0].freed_bytes, int)


@pytest.mark.parametrize(("said", "sent"), [(300, 300), ("300", 300), (-1, -1), ("-1", -1), (0.5, 0.5), ("10m", "10m"), ("1h30m", "1h30m")])
def test_how_long_the_model_stays_is_a_span_or_a_number(server, said, sent):
    backend = OllamaBackend(LLMConfig(model="tiny", keep_alive=said), server.host)
    backend.load()
    backend.complete(ASK, {}, 0)
    assert [body["keep_alive"] for path, body in server.requests if path != "/api/ps"] == [sent, sent]


@pytest.mark.parametrize("said", ["ten minutes", "m10", "10 m", "", True, None])
def test_a_stay_that_is_no_span_is_refused_before_anything_is_asked(said):
    with pytest.raises(ValidationError, match=r"llm.keep_alive is .*; expected a span such as 10m|valid string"):
        LLMConfig(keep_alive=said)


def test_two_contexts_that_take_turns_are_warned_of(server, caplog):
    small, large = (OllamaBackend(LLMConfig(model="tiny", num_ctx=num_ctx), server.host) for num_ctx in (1024, 2048))
    small.digest()
    small.load()
    small.digest()
    assert caplog.text == ""
    large.digest()
    assert "tiny:latest is in memory with num_ctx 1024, and llm.num_ctx is 2048: each change loads the model again" in caplog.text


@pytest.mark.parametrize("provider", [LLMProvider.MOCK, LLMProvider.OPENAI])
def test_no_call_is_made_for_a_provider_that_cannot_unload(server, provider):
    config = LLMConfig(provider=provider, model="tiny", host=server.host, unload_during_backtest=True)
    manager = GPUMemoryManager(config, Settings())
    with manager.freed("training"):
        pass
    manager.reload()
    assert server.requests == []


def test_no_call_is_made_in_a_replay(server):
    config = LLMConfig(model="tiny", host=server.host, unload_during_backtest=True, replay=True)
    with GPUMemoryManager(config, Settings()).freed("training"):
        pass
    assert server.requests == []


def test_a_dead_server_stops_no_phase(caplog):
    manager = GPUMemoryManager(OFFLINE, Settings(), unload=True)
    ran = []
    with manager.freed("training"):
        ran.append(True)
    manager.reload()
    assert ran == [True]
    assert "cannot tell whether test-model:latest is in the GPU" in caplog.text


@pytest.mark.parametrize("status", [404, 429, 500])
def test_an_unload_that_the_server_refuses_stops_no_phase_and_hides_no_error(server, caplog, status):
    manager, backend = manager_of(server, unload=True)
    backend.complete(ASK, {}, 0)
    server.next_failures = [(status, "no")]
    with pytest.raises(ZeroDivisionError), manager.freed("training"):
        raise ZeroDivisionError
    assert f"was not unloaded before training: Ollama at {server.host} answered {status}" in caplog.text


def test_a_server_that_dies_between_unload_and_poll_stops_no_phase(server, caplog):
    server.unload_delay_s = 1e6
    clock = Clock(on_sleep=server.close)
    manager, backend = manager_of(server, unload=True, clock=clock, sleep=clock.sleep)
    backend.complete(ASK, {}, 0)
    with manager.freed("training"):
        pass
    assert "was not unloaded before training" in caplog.text
    manager.reload()
    assert "was not reloaded after training" in caplog.text


def test_the_host_asked_is_the_one_configured_then_the_environments(server, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    for host in (None, "127.0.0.1:9"):
        with GPUMemoryManager(LLMConfig(model="tiny", host=host), Settings(), unload=True).freed("training"):
            pass
        assert len(server.called("/api/ps")) == 1


def test_patience_is_as_documented():
    assert memory._TIMEOUT_S == 15
