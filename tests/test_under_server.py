"""What a run does only where it has a server: slots that other runs may want."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from ploutos.config import load_config
from ploutos.llm.config import LLMConfig
from tasks import slots
from tasks.advice import slot_of
from tasks.slots import SLOTS, make_slot, slot
from tasks.training import trains_on_gpu

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Prefect's own server warns about itself


@pytest.fixture(scope="module", autouse=True)
def server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    return tmp_path


def active(name: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(name).active_slots


HOLDER = "import sys, time; from tasks.slots import slot\nwith slot('gpu'): print('has it', flush=True); time.sleep(600)"


def test_a_killed_holder_holds_up_nobody_on_its_host(monkeypatch):
    monkeypatch.setattr(slots, "POLL_S", 0.05)
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    with subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        assert active("gpu") == 1
        got = threading.Event()

        def want() -> None:
            with slot("gpu"):
                got.set()

        waiter = threading.Thread(target=want)
        waiter.start()
        assert not got.wait(1.0)  # it lives, and nobody takes its slot
        holder.send_signal(signal.SIGKILL)
        assert got.wait(30)
        waiter.join()
    assert active("gpu") == 0


def test_threads_of_a_process_share_a_slot_and_the_last_gives_it_back(home):
    both = threading.Barrier(2, timeout=30)

    def use() -> None:
        with slot("llm"):
            both.wait()

    other = threading.Thread(target=use)
    other.start()
    with slot("llm"):
        assert active("llm") == 1
        assert len(list((home / "slots").iterdir())) == 1
        both.wait()
    other.join()
    assert active("llm") == 0
    assert not list((home / "slots").iterdir())


def test_a_lease_that_the_server_has_let_go_is_taken_again(monkeypatch):
    monkeypatch.setattr(slots, "RENEW_S", 0.05)
    with slot("vendor"):
        hold = slots._shared("vendor").hold
        first = hold.lease
        with get_client(sync_client=True) as client:
            client.release_concurrency_slots_with_lease(first)  # as if it had run out while the server was away
        until = time.monotonic() + 30
        while hold.lease == first and time.monotonic() < until:
            time.sleep(0.05)
        assert hold.lease not in (None, first)
        assert active("vendor") == 1
    assert active("vendor") == 0


def test_a_number_that_a_person_set_stays():
    with get_client(sync_client=True) as client:
        for name in SLOTS:
            make_slot(client, name)
        client.request("PATCH", "/v2/concurrency_limits/{id_or_name}", path_params={"id_or_name": "vendor"}, json={"limit": 3})
        make_slot(client, "vendor")
        assert client.read_global_concurrency_limit_by_name("vendor").limit == 3


def test_a_run_with_a_server_of_its_own_asks_for_no_slot(monkeypatch):
    monkeypatch.setenv(slots.TEMPORARY, "1")
    monkeypatch.setattr(httpx.Client, "send", lambda *_, **__: pytest.fail("it asked the server"))
    with slot("gpu"), slot(None):
        pass


def test_who_asks_a_model_or_trains_on_a_gpu_takes_a_slot_and_nobody_else():
    assert slot_of(LLMConfig(provider="ollama")) == slot_of(LLMConfig(provider="openai")) == "llm"
    assert slot_of(LLMConfig(provider="mock")) is slot_of(LLMConfig(provider="ollama", replay=True)) is None
    assert trains_on_gpu(load_config("full", overrides=["hardware.device=cuda"]))
    assert not trains_on_gpu(load_config("full"))
