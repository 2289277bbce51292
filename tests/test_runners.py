"""Where members run decides nothing: every runner gives the same bytes, and says in a sentence what it lacks."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from itertools import count
from threading import Event, Thread
from types import SimpleNamespace

import httpx
import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.states import Completed, Crashed, Failed, Running, Scheduled
from prefect.testing.utilities import prefect_test_harness

from deployments.deploy import PREFECT_FILE
from flows import helpers, runners
from flows import member as member_module
from flows.helpers import Helpers
from flows.member import DONE, Work, member, work_of
from flows.phases import fitted, phase1, phase2
from flows.stages import at_work
from ploutos.config import HardwareSpec, PipelineConfig, load_config
from ploutos.errors import ConfigError, NetworkError, StoreError, TrainingError
from ploutos.preflight import require_cluster, require_packages
from ploutos.remote_store import open_store
from ploutos.run_refs import RunRefs
from ploutos.settings import Settings
from ploutos.store import Kind, Ref, Store
from tasks import stage
from tasks.regression import fit_teacher_of
from tasks.training import train_member

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Prefect's own server warns about itself
SMALL = [
    "data.symbols=[AAPL, IBM]", "folds.train_years=3", "folds.test_months=60", "training.members=2", "training.total_timesteps=256",
    "training.n_envs=4", "training.n_steps=32", "training.batch_size=128", "training.net_arch=[8]", "pipeline.pause_between_phases=0",
    "hardware.workers=2", "regression.models=[lasso]",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@flow(name="two-phases", persist_result=False)
def two_phases(config: PipelineConfig) -> tuple[RunRefs, dict[str, str]]:
    with at_work(config, Settings()) as stages:
        refs = phase1(stages, config)
        return phase2(stages, refs, fitted(stages, refs, config)), stages.ended


@pytest.fixture
def trained(tmp_path, monkeypatch):
    def train(runner: str) -> tuple[RunRefs, dict[str, str]]:
        monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / runner))
        return two_phases(load_config("full", overrides=[*SMALL, f"hardware.runner={runner}"]))

    return train


class Workers:
    """Prefect workers that start each helper in a thread of this process; what it is sent goes over the server, as JSON.

    Attributes:
        slots: how many helpers they start; others stay scheduled.
        play: what a helper does.
        prompt: whether one that they start has begun before whoever asked for it goes on.
    """

    def __init__(self):
        self.slots, self.context, self.runs, self.threads = 2, copy_context(), [], []
        self.prompt = False
        self.play = lambda run: run_flow(member, flow_run=run, return_type="state")

    def run_deployment(self, name, flow_run_name, timeout):
        self.runs.append(self.context.copy().run(self._create, flow_run_name))
        if len(self.runs) <= self.slots:
            self.threads.append(Thread(target=self.context.copy().run, args=(self.play, self.runs[-1]), daemon=True))
            self.threads[-1].start()
            while self.prompt and not self._begun(self.runs[-1]):
                time.sleep(0.05)
        return self.runs[-1]

    def _create(self, name):
        with get_client(sync_client=True) as client:
            return client.create_flow_run(member, name=name, state=Scheduled())

    def _begun(self, run):
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run.id).state
        return state.is_running() or state.is_final()

    def join(self):
        """Wait until every helper that was started is over."""
        for each in self.threads:
            each.join(120)

    def ended(self):
        """How each helper is once those that were started are over, and how many tasks it did."""
        self.join()
        with get_client(sync_client=True) as client:
            runs = [client.read_flow_run(each.id) for each in self.runs]
        return [(run.state.name, run.labels.get(DONE, 0)) for run in runs]


class Played:
    """A helper that does nothing of what it is sent, and says that it has."""

    def __init__(self, run):
        self.run = run

    def tell(self, state):
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self.run.id, state, force=True)

    def obey(self):
        """Take what comes, one after another, to the end."""
        with get_client(sync_client=True) as client:
            for n_done, _ in enumerate(member_module._heard(client, self.run.id), 1):
                client.update_flow_run_labels(self.run.id, {DONE: n_done})
        self.tell(Completed())

    def wait(self, n_tasks):
        """Until so many tasks have been sent."""
        with get_client(sync_client=True) as client:
            while len(client.filter_flow_run_input(self.run.id, "work-", limit=9, exclude_keys=set())) < n_tasks:
                time.sleep(0.05)


@pytest.fixture
def workers(monkeypatch):
    made = Workers()
    for module, name in ((helpers, "_SOONEST_S"), (helpers, "_LATEST_S"), (member_module, "_LOOK_S")):
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setattr(helpers, "run_deployment", made.run_deployment)
    yield made
    made.join()  # one that a busy server was not asked to end does so after a minute, and needs the server until then


def ask(n_tasks, meanwhile=lambda of: None):
    """Have helpers do so many tasks for a flow; the sentences of those that failed."""

    @flow(name="asks", persist_result=False)
    def asks() -> list[str]:
        with get_client(sync_client=True) as client, ThreadPoolExecutor(n_tasks) as pool:
            of = Helpers(runners.MEMBER, n_tasks, client, count(1))
            work = {"task": "fit", "store": "", "code": "", "values": {}}
            futures = [pool.submit(copy_context().run, of.do, "fit", work) for _ in range(n_tasks)]
            meanwhile(of)
            errors = [each.exception() for each in futures]
            of.dismiss()
            return [f"{type(error).__name__}: {error}" for error in errors if error is not None]

    return asks()


@pytest.mark.timeout(900)
def test_every_runner_ends_in_the_same_bytes_and_finds_again_what_it_made(trained, workers):
    workers.prompt = True  # one that is late is told that there is no work left
    expected, ended = trained("thread")
    assert len(expected.policies) == 2
    assert set(ended.values()) == {"Completed"}
    for runner in ("process", "dask", "workers"):
        found, ended = trained(runner)
        assert found == expected, runner
    states = workers.ended()
    again, ended = trained("workers")
    assert (again, set(ended.values())) == (expected, {"Cached"})
    assert workers.ended() == states  # nobody is asked again
    assert {state for state, _ in states} == {"Completed"}
    assert sum(n_done for _, n_done in states) == 8  # two folds with a model, a teacher and two members each, and none of them twice
    assert len(states) == 2


def test_a_worker_with_other_code_or_another_store_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    config, ref = load_config("full", overrides=SMALL), Ref(kind="bars", path="x", sha256="0", bytes=1)
    values = {"store": Store(tmp_path / "elsewhere"), "bars": ref, "member": 0, "config": config, "teacher": None}
    with pytest.raises(StoreError, match="this worker's store is"):
        member_module.do(Work.model_validate(work_of(train_member, values)), open_store(Settings(), claim=False))

    @flow(name="strange", persist_result=False)
    def strange() -> None:
        from tasks.market import quality_of

        quality_of(Store(tmp_path / "store", code="another"), ref)

    with pytest.raises(StoreError, match="has different code from the flow"):
        strange()


def test_a_worker_that_fails_or_keeps_nothing_is_one_sentence(trained, workers, monkeypatch):
    def fail(work, store):
        raise MemoryError("no memory")

    monkeypatch.setattr(member_module, "do", fail)
    with pytest.raises(TrainingError, match=r"on a Prefect worker ended in Failed: .* no memory; its log is that of flow run helper \d of"):
        trained("workers")
    monkeypatch.setattr(member_module, "do", lambda work, store: None)
    workers.slots = 99
    with pytest.raises(StoreError, match=r"a worker says that it has finished fit-.* look at its PLOUTOS_STORE"):
        trained("workers")


@pytest.mark.parametrize(("end", "said"), [(Crashed(message="it died"), "ended in Crashed: it died"), (Completed(), None)])
def test_what_a_helper_that_ends_had_in_hand_fails_unless_it_heard_nothing_and_the_rest_goes_to_another(workers, end, said):
    def play(run):
        first, helper = Played(workers.runs[0]), Played(run)
        if run.id == first.run.id:
            helper.tell(Running())
            helper.wait(2)  # one that it does, and one ahead
            helper.tell(end)
        else:
            first.wait(2)  # what it is sent hangs on who is seen first
            helper.tell(Running())
            workers.threads[0].join()
            helper.obey()

    workers.play, workers.slots = play, 2
    failed = ask(4)
    assert len(failed) == bool(said)
    assert all(f"TrainingError: fit on a Prefect worker {said}; its log is that of flow run helper 1 of" in each for each in failed)
    assert workers.ended()[:2] == [(end.name, 0), ("Completed", 4 - len(failed))]


def test_helpers_that_cannot_start_fail_what_waits_and_end(workers):
    workers.play, workers.slots = lambda run: Played(run).tell(Failed(message="no folder")), 99
    failed = ask(3)
    assert len(failed) == 3
    assert all("fit on a Prefect worker ended in Failed: no folder" in each for each in failed)


def test_a_helper_that_hears_nothing_ends_and_one_that_is_not_needed_never_starts(workers, monkeypatch):
    monkeypatch.setattr(member_module, "_SILENCE_S", 0.2)
    workers.run_deployment(runners.MEMBER, "helper of nobody", 0)
    assert workers.ended() == [("Completed", 0)]
    monkeypatch.setattr(member_module, "_SILENCE_S", 60)
    monkeypatch.setattr(member_module, "do", lambda work, store: None)
    assert ask(9) == []
    assert workers.ended() == [("Completed", 0), ("Completed", 9), *[("Cancelled", 0)] * 4]  # however much there is to do, few wait


def test_a_busy_server_is_asked_again_to_let_helpers_end(workers, monkeypatch, caplog):
    """SQLite refuses who writes beside somebody else; the helper lived a minute longer then, and took a worker's place."""
    send, dismiss, refused = httpx.Client.send, Helpers.dismiss, []

    def busy(client, request, **kwargs):
        if len(refused) < 2:
            refused.append(request.url.path)
            return httpx.Response(httpx.codes.SERVICE_UNAVAILABLE, request=request)
        return send(client, request, **kwargs)

    def dismissed(of):
        monkeypatch.setattr("prefect.client.base.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
        monkeypatch.setattr(httpx.Client, "send", busy)
        dismiss(of)

    monkeypatch.setattr(Helpers, "dismiss", dismissed)
    monkeypatch.setattr(member_module, "do", lambda work, store: None)
    assert ask(1) == []
    assert workers.ended() == [("Completed", 1)]
    assert len(refused) == 2
    assert "were not told" not in caplog.text


@pytest.mark.parametrize("at_once", [False, True])
def test_a_run_that_ends_begins_nothing_more(workers, at_once):
    def play(run):
        helper = Played(run)
        helper.tell(Running())
        helper.wait(2)
        stopped.wait()
        if not at_once:
            helper.obey()

    def stop(of):
        while len(workers.runs) < 3:  # so many for four tasks with two in hand; one more if all had come at the first look
            time.sleep(0.05)
        Played(workers.runs[0]).wait(2)
        of.stop(at_once)
        stopped.set()

    stopped, workers.play, workers.slots = Event(), play, 1
    failed = ask(4, stop)
    assert [each.partition(";")[0].removeprefix("TrainingError: fit ") for each in failed].count("was not started: the run has ended") == 2
    assert sum("fit was interrupted" in each for each in failed) == len(failed) - 2 == 2 * at_once
    first, *others = workers.ended()
    assert first == (("Cancelling", 0) if at_once else ("Completed", 2))
    assert set(others) == {("Cancelled", 0)}


def test_a_server_without_the_deployment_is_one_sentence():
    assert ask(1) == ["OrchestratorError: there is no deployment ploutos-member/member on this server; run `ploutos deploy`"]


def test_a_worker_process_that_dies_is_one_sentence(trained, monkeypatch):
    """A worker that dies is distinguished from a task that fails."""
    from concurrent.futures.process import BrokenProcessPool

    assert runners.losses("process") == (BrokenProcessPool,)
    assert runners.losses("thread") == runners.losses("workers") == ()
    assert [each.__name__ for each in runners.losses("dask")] == ["KilledWorker"]


def test_what_a_runner_lacks_is_said_before_anything_runs(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigError, match=r"hardware.scheduler is set and hardware.runner is thread; expected runner dask or ray"):
        load_config("full", overrides=["hardware.scheduler=tcp://h:1"])
    with pytest.raises(ConfigError, match=r"hardware.runner is workers, whose workers must reach Prefect's server"):
        require_cluster(HardwareSpec(runner="workers"))
    with pytest.raises(ConfigError, match="expected an address such as tcp://host:8786"):
        require_cluster(HardwareSpec(runner="dask", scheduler="nonsense"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        require_cluster(HardwareSpec(runner="dask", scheduler=address))
    with pytest.raises(NetworkError, match="nothing answers there"):
        require_cluster(HardwareSpec(runner="dask", scheduler=address))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for runner in ("dask", "ray"):
        with pytest.raises(ConfigError, match=rf"needs prefect_{runner}, which is not installed: pip install 'ploutos\[{runner}\]'"):
            require_packages(load_config("full", overrides=[f"hardware.runner={runner}"]))


def test_a_worker_without_a_gpu_is_never_sent_a_gpu_task():
    cuda, cpu = (load_config("full", overrides=[*SMALL, f"hardware.device={device}"]) for device in ("cuda", "cpu"))
    asked = [runners.deployment_of(task, {"config": config}) for config in (cuda, cpu) for task in (train_member, fit_teacher_of)]
    assert asked == ["ploutos-member/gpu-member", *["ploutos-member/member"] * 3]
    declared = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    pools = {each["name"]: each["work_pool"]["name"] for each in declared}
    assert (pools["gpu-member"], pools["member"]) == ("ploutos-gpu", "ploutos-members")


def test_a_slot_is_held_while_something_is_computed_and_not_for_what_is_found(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(stage, "slot", lambda name: nullcontext(taken.append(name)))

    @flow(name="keeps", persist_result=False)
    def keeps() -> None:
        kind = Kind("text", ".txt", lambda value, path: path.write_text(value), lambda path: path.read_text())
        for _ in range(2):
            stage.run_stage(Store(tmp_path), "text", kind, {}, [], lambda: "x", needs="llm")

    keeps()
    assert taken == ["llm"]
