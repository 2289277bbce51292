"""Where members run decides nothing: every runner gives the same bytes, and says in a sentence what it lacks."""

import json
import socket
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import yaml
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from deployments.deploy import PREFECT_FILE
from flows import runners
from flows.member import member, work_of
from flows.phases import fitted, phase1, phase2
from flows.stages import at_work
from ploutos.config import HardwareSpec, PipelineConfig, load_config
from ploutos.errors import ConfigError, NetworkError, StoreError, TrainingError
from ploutos.preflight import require_cluster, require_packages
from ploutos.run_refs import RunRefs
from ploutos.settings import Settings
from ploutos.store import Kind, Ref, Store
from ploutos.walk_forward import Fold, Range
from tasks import stage
from tasks.regression import fit_teacher_of
from tasks.training import train_member

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Prefect's own server warns about itself
SMALL = [
    "data.symbols=[AAPL, IBM]", "folds.train_years=3", "folds.test_months=60", "training.members=2", "training.total_timesteps=256",
    "training.n_envs=4", "training.n_steps=32", "training.batch_size=128", "training.net_arch=[8]", "pipeline.pause_between_phases=0",
    "hardware.workers=2", "regression.models=[logistic]",
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


def over_the_wire(name, parameters, poll_interval):
    """A Prefect worker's part: what it is sent is JSON."""
    assert name == "ploutos-member/member"
    state = member(**json.loads(json.dumps(parameters)), return_state=True)
    return SimpleNamespace(name="of-a-worker", state=state)


@pytest.mark.timeout(900)
def test_every_runner_ends_in_the_same_bytes_and_finds_again_what_it_made(trained, monkeypatch):
    asked = []

    def counted(name, parameters, poll_interval):
        asked.append(parameters["config"]["task"])
        return over_the_wire(name, parameters, poll_interval)

    monkeypatch.setattr(runners, "run_deployment", counted)
    expected, ended = trained("thread")
    assert len(expected.policies) == 2
    assert set(ended.values()) == {"Completed"}
    for runner in ("process", "dask", "workers"):
        found, ended = trained(runner)
        assert found == expected, runner
    again, ended = trained("workers")
    assert (again, set(ended.values())) == (expected, {"Cached"})
    assert sorted(set(asked)) == ["fit-regression", "fit-teacher", "train-member"]
    assert len(asked) == 8  # two folds with a model, a teacher and two members each, and none of them twice


def test_a_worker_with_other_code_or_another_store_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    config, ref = load_config("full", overrides=SMALL), Ref(kind="bars", path="x", sha256="0", bytes=1)
    values = {"store": Store(tmp_path / "elsewhere"), "bars": ref, "member": 0, "config": config, "teacher": None}
    with pytest.raises(StoreError, match="this worker's store is"):
        member(work_of(train_member, values))

    @flow(name="strange", persist_result=False)
    def strange() -> None:
        from tasks.market import quality_of

        quality_of(Store(tmp_path / "store", code="another"), ref)

    with pytest.raises(StoreError, match="has other code than the flow"):
        strange()


def test_a_worker_that_fails_or_keeps_nothing_is_one_sentence(trained, monkeypatch):
    state = SimpleNamespace(name="Failed", message="no memory", is_completed=lambda: False)
    monkeypatch.setattr(runners, "run_deployment", lambda *_, **__: SimpleNamespace(name="of-a-worker", state=state))
    with pytest.raises(TrainingError, match="on a Prefect worker ended in Failed: no memory; its log is that of flow run of-a-worker"):
        trained("workers")
    state.is_completed = lambda: True
    with pytest.raises(StoreError, match=r"a worker says that it has finished fit-.* look at its PLOUTOS_STORE"):
        trained("workers")


def test_a_worker_process_that_dies_is_one_sentence(trained, monkeypatch):
    """What dies is told apart from what fails."""
    from concurrent.futures.process import BrokenProcessPool

    assert runners.losses("process") == (BrokenProcessPool,)
    assert runners.losses("thread") == runners.losses("workers") == ()
    assert [each.__name__ for each in runners.losses("dask")] == ["KilledWorker"]


def test_what_a_runner_lacks_is_said_before_anything_runs(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigError, match="an address is of runner dask or ray"):
        load_config("full", overrides=["hardware.scheduler=tcp://h:1"])
    with pytest.raises(ConfigError, match=r"hardware.runner is workers, whose workers must reach Prefect's server"):
        require_cluster(HardwareSpec(runner="workers"))
    with pytest.raises(ConfigError, match="expected an address such as tcp://host:8786"):
        require_cluster(HardwareSpec(runner="dask", scheduler="nonsense"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        require_cluster(HardwareSpec(runner="dask", scheduler=address))
    with pytest.raises(NetworkError, match="nobody answers there"):
        require_cluster(HardwareSpec(runner="dask", scheduler=address))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for runner in ("dask", "ray"):
        with pytest.raises(ConfigError, match=rf"needs prefect_{runner}, which is not installed: pip install 'ploutos\[{runner}\]'"):
            require_packages(load_config("full", overrides=[f"hardware.runner={runner}"]))


def test_a_worker_without_a_gpu_is_never_sent_a_gpu_task(tmp_path, monkeypatch):
    asked = []
    state = SimpleNamespace(is_completed=lambda: True)

    def note(name, **_):
        asked.append(name)
        return SimpleNamespace(name="r", state=state)

    monkeypatch.setattr(runners, "run_deployment", note)
    ref, store = Ref(kind="bars", path="x", sha256="0", bytes=1), Store(tmp_path)
    fold = Fold(
        index=0, train=Range(start=0, stop=1), validation=Range(start=1, stop=2), test=Range(start=2, stop=3), warmup_bars=0, data_sha256=""
    )
    for device in ("cuda", "cpu"):
        config = load_config("full", overrides=[*SMALL, f"hardware.device={device}"])
        given = {"store": store, "bars": ref, "features": ref, "fold": fold, "config": config}
        runners._ask(train_member, given | {"member": 0, "teacher": None})
        runners._ask(fit_teacher_of, given)
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
