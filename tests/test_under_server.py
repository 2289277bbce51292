"""What a run does only where it has a server: slots that other runs may want, and a promotion that waits for a person."""

import http.server
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
from prefect import Task, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, Pause
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Crashed, Pending, Running, Scheduled
from prefect.testing.utilities import prefect_test_harness
from pydantic import SecretStr
from test_models import model

from deployments.deploy import _notify
from deployments.notifications import _SUBJECTS, names, notifying
from deployments.resume import resume
from flows import approval as approvals
from flows import sweep as sweeps
from flows.approval import Question, approval, ask, require_askable
from flows.live import KEY, LiveTable, _Writer, shown_live
from flows.news import News, tell_of
from flows.sweep import ATTEMPT, HOST, PROCESS, SILENT, STARTED, is_gone, own_process, sweep
from ploutos.advisor.config import LLMConfig
from ploutos.config import load_config
from ploutos.errors import ConfigError, OrchestratorError
from ploutos.evaluation.sequential import Evidence
from ploutos.nightly.standing import MoveKind, Verdict
from ploutos.progress import Progress, tell
from ploutos.registry import promotion
from ploutos.registry.models import Alias, FileModels
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


@pytest.fixture
def deployed():
    """The approval's deployment, as `ploutos deploy` would make it."""
    with get_client(sync_client=True) as client:
        client.create_deployment(flow_id=client.create_flow(approval), name="approval", tags=["ploutos"])
        yield client


def due(home, champion=None) -> Question:
    known = Evidence(wealth=30.0, most=40.0, n_sessions=120, decided_after=100)
    kind = MoveKind.FIRST if champion is None else MoveKind.REPLACE
    verdict = Verdict(kind, evidence=None if champion is None else known, n_nights=120)
    return Question(verdict=verdict, session="2026-11-27", run=home / "run", champion=champion, sentences=("It is better.",))


def asked(client, question):
    """The run that waits for a decision on a question, after its process has ended."""
    ask(question)
    [run] = [each for each in client.read_flow_runs() if each.state.is_scheduled()]
    return attempt(client, run)


def attempt(client, run):
    """What a worker does with a run."""
    client.set_flow_run_state(run.id, Pending(), force=True)
    with suppress(Pause):
        run_flow(approval, flow_run=client.read_flow_run(run.id), parameters=run.parameters, return_type="state")
    return client.read_flow_run(run.id)


def answer(client, run, values):
    return client.request("POST", "/flow_runs/{id}/resume", path_params={"id": run.id}, json={"run_input": values}).json()


def test_a_run_that_another_run_started_is_not_what_resume_goes_on_with(home, deployed, monkeypatch):
    @flow(name="starts-another", persist_result=False)
    def starts_another() -> UUID:
        return run_deployment("ploutos-approval/approval", parameters={"config": due(home)}, timeout=0).id

    deployed.set_flow_run_state(starts_another(), Cancelled(), force=True)
    monkeypatch.setenv("PREFECT_API_URL", str(deployed.api_url))
    with pytest.raises(OrchestratorError, match="no run has failed"):
        resume(None)


def test_a_promotion_waits_for_a_person_and_has_no_default(home, deployed, monkeypatch):
    monkeypatch.setattr(approvals, "model_of", lambda folder: model())
    run, store = asked(deployed, due(home)), FileModels(home / "registry")
    assert (run.state.name, run.state.type) == ("Suspended", StateType.PAUSED)
    gone = {HOST: platform.node(), PROCESS: os.getpid(), STARTED: 1.0, ATTEMPT: run.run_count}
    deployed.update_flow_run_labels(run.id, gone)
    assert is_gone(deployed.read_flow_run(run.id))
    assert sweep(deployed) == []  # its process has ended, as it must, and it waits
    monkeypatch.setenv("PREFECT_API_URL", str(deployed.api_url))
    with pytest.raises(OrchestratorError, match=r"waits for a person; answer its form at .*/runs/flow-run/"):
        resume(run.name)
    with pytest.raises(OrchestratorError, match="no run has failed"):
        resume(None)
    for refused in ({}, {"decision": "maybe", "approved_by": "Ada"}, {"decision": "promote"}, {"decision": "promote", "approved_by": ""}):
        assert answer(deployed, run, refused)["status"] == "REJECT"
    assert deployed.read_flow_run(run.id).state.name == "Suspended"
    assert store.aliases() == {}
    assert answer(deployed, run, {"decision": "promote", "approved_by": "Ada", "reason": "seen"})["status"] == "ACCEPT"
    assert attempt(deployed, run).state.is_completed()
    assert store.aliases() == {Alias.CHAMPION: model().name}
    [move] = store.history()
    assert (move.by, move.reason) == ("Ada", "passed every gate; there was no champion; seen")


def test_the_form_begins_with_what_is_due(home):
    question = due(home).model_copy(update={"sentences": ("The candidate holds SPY.", "A first promotion is due.")})
    assert approvals._description(question).splitlines()[2:] == ["- A first promotion is due.", "- The candidate holds SPY."]


def test_a_rejection_moves_nothing_and_a_later_question_takes_an_earlier_ones_place(home, deployed, monkeypatch):
    monkeypatch.setattr(approvals, "model_of", lambda folder: model())
    first = asked(deployed, due(home))
    second = asked(deployed, due(home))
    assert deployed.read_flow_run(first.id).state.is_cancelled()
    answer(deployed, second, {"decision": "reject", "approved_by": "Ada"})
    assert attempt(deployed, second).state.is_completed()
    assert FileModels(home / "registry").aliases() == {}


def test_an_answer_that_comes_after_another_move_moves_nothing(home, deployed, monkeypatch):
    monkeypatch.setattr(approvals, "model_of", lambda folder: model())
    run, store = asked(deployed, due(home)), FileModels(home / "registry")
    promotion.promote(store, model(2), "Grace")
    answer(deployed, run, {"decision": "promote", "approved_by": "Ada"})
    ended = attempt(deployed, run).state
    assert ended.is_failed()
    assert "nothing was moved" in ended.message
    assert store.aliases() == {Alias.CHAMPION: model(2).name}


def test_a_challenger_that_a_person_approves_is_on_probation(home, deployed, monkeypatch):
    monkeypatch.setattr(approvals, "model_of", lambda folder: model(2))
    store = FileModels(home / "registry")
    promotion.promote(store, model(), "Grace")
    promotion.challenge(store, model(2), "night")
    run = asked(deployed, due(home, model().name))
    answer(deployed, run, {"decision": "promote", "approved_by": "Ada"})
    assert attempt(deployed, run).state.is_completed()
    assert store.aliases() == {Alias.CHAMPION: model(2).name, Alias.CHALLENGER: model().name}


def test_nobody_can_be_asked_without_a_server_or_its_deployment(monkeypatch):
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        client.delete_deployment(client.read_deployment_by_name(approvals.APPROVAL).id)
    with pytest.raises(OrchestratorError, match="there is no deployment ploutos-approval/approval on this server; run `ploutos deploy`"):
        require_askable()
    monkeypatch.setenv(slots.TEMPORARY, "1")
    with pytest.raises(ConfigError, match="there is no Prefect server"):
        require_askable()


@flow(name="works", persist_result=False)
def works(updates: threading.Event) -> None:
    with shown_live(0.02):
        tell(Progress("policy", "fold 0 member 0", "working", 1, 2, "steps", "7 steps/s"))
        assert updates.wait(30)
        tell(Progress("policy", "fold 0 member 0", "computed"))


def test_there_is_one_table_a_run_and_it_changes_while_it_works(monkeypatch):
    seen, wanted = threading.Event(), ArtifactFilter(key=ArtifactFilterKey(any_=[KEY]))
    states: list[str] = []
    write = _Writer._write

    def watched(self, client):
        write(self, client)
        [table] = client.read_artifacts(artifact_filter=wanted)
        states.append(json.loads(table.data)[0]["state"])
        seen.set()

    monkeypatch.setattr(_Writer, "_write", watched)
    works(seen)
    assert (states[0], states[-1]) == ("at work", "done")
    with get_client(sync_client=True) as client:
        [table] = client.read_artifacts(artifact_filter=wanted)
        again = _Writer(table.flow_run_id, LiveTable())
        again._keep(client, KEY, "table", "[]", "")  # another attempt at the same run
        assert [each.data for each in client.read_artifacts(artifact_filter=wanted)] == ["[]"]


@pytest.fixture
def receiver():
    """A local server of apprise's json:// address; what it was sent."""
    sent: queue.Queue[dict] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}/hook", sent
        server.shutdown()


@flow(name="ploutos-pipeline", persist_result=False)
def breaks() -> None:
    raise ValueError("the disk is full")


@flow(name="somebody-elses", persist_result=False)
def breaks_too() -> None:
    raise ValueError("not ours")


def test_nobody_is_told_unless_an_address_is_given_and_then_of_each_kind_of_news(receiver):
    address, sent = receiver
    declared = [{"entrypoint": "flows.pipeline.pipeline", "name": "pipeline"}]
    with get_client(sync_client=True) as client:
        _notify(client, SecretStr(address), declared)
        _notify(client, SecretStr(address), declared)  # once each, however often
        assert sorted(each.name for each in client.read_automations()) == sorted(names())
        time.sleep(2)  # the server's triggers read their automations anew
        for news in News:
            tell_of(news, "2026-11-27", f"text of {news}", "http://127.0.0.1:4201/nights/x")
        for each in (breaks, breaks_too):
            each(return_state=True)
        told = [sent.get(timeout=60) for _ in names()]
        assert sorted(each["title"] for each in told) == sorted(
            [*(f"ploutos: {subject}" for subject in _SUBJECTS.values()), "ploutos: Failed"]
        )
        by_title = {each["title"]: each["message"] for each in told}
        assert by_title["ploutos: no data"] == "text of no-data http://127.0.0.1:4201/nights/x"
        assert "ploutos-pipeline" in by_title["ploutos: Failed"]
        assert "the disk is full" in by_title["ploutos: Failed"]
        assert sent.empty()
        _notify(client, None, declared)
        assert client.read_automations() == []


def test_an_address_that_nobody_knows_is_refused_without_showing_it():
    with pytest.raises(ConfigError, match="not an address that apprise knows") as refused:
        notifying(SecretStr("nonsense:planted-secret"), ["ploutos-pipeline"])
    assert "planted-secret" not in str(refused.value)


def test_a_task_run_that_is_not_written_down_yet_is_not_closed_for_the_end_of_its_flow_run(monkeypatch):
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(breaks_too, state=Scheduled())
        task_run = client.create_task_run(Task(lambda: None, name="late"), run.id, "0", state=Running())
        client.set_flow_run_state(run.id, Completed(), force=True)
        assert sweep(client) == []
        assert client.read_task_run(task_run.id).state.is_running()
        monkeypatch.setattr(sweeps, "_WRITTEN", timedelta(0))
        assert sweep(client) == ["1 task runs of runs that are over were closed"]
        assert client.read_task_run(task_run.id).state.is_crashed()


def test_a_run_that_a_server_took_for_dead_is_put_right_where_its_process_lives(monkeypatch):
    with get_client(sync_client=True) as client:
        made = [client.create_flow_run(breaks_too, state=Scheduled()) for _ in range(3)]
        own = own_process(client.read_flow_run(made[0].id)) | {ATTEMPT: 1}
        ended, mine, failed = own | {STARTED: 1.0}, own, own
        for run, labels, message in zip(
            made, (mine, ended, failed), (f"{SILENT} for 90 s.", f"{SILENT} for 90 s.", "out of memory"), strict=True
        ):
            client.set_flow_run_state(run.id, Running(), force=True)
            client.update_flow_run_labels(run.id, labels)
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)
        assert sweep(client) == [f"{client.read_flow_run(made[0].id).name} said Crashed and its process lives: Running"]
        states = [client.read_flow_run(run.id).state.name for run in made]
        assert states == ["Running", "Crashed", "Crashed"]
        again = client.read_flow_run(made[0].id)
        assert again.labels[ATTEMPT] == again.run_count  # so that it is closed when it does end
        monkeypatch.setattr(psutil, "Process", lambda pid=None: (_ for _ in ()).throw(psutil.NoSuchProcess(1)))
        assert sweep(client) == [f"{again.name} said Running and its process is gone: Crashed"]
