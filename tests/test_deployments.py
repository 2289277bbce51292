"""What a server is told: a night after the close on session days, and flows that load."""

import asyncio
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import RRuleSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import RRuleSchedule as ServerSchedule
from prefect.settings import Settings as PrefectSettings
from prefect.utilities.schema_tools import validate
from prefect.utilities.templating import apply_values, find_placeholders

from deployments import serve
from deployments.deploy import PREFECT_FILE, connected, require_loadable, silent_runs
from deployments.host import work_beside_home
from deployments.schedules import YEARS_OF_HOLIDAYS, after_close
from deployments.serve import MANY_TASKS, SLOTS, Place, Served, stop, systemd_unit
from ploutos.cli import main
from ploutos.errors import ConfigError, OrchestratorError
from ploutos.market.calendar import sessions_around
from ploutos.settings import Settings
from tasks import slots

DECLARED = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]


@pytest.mark.parametrize(("calendar", "zone"), [("NYSE", "America/New_York"), ("LSE", "Europe/London")])
def test_a_night_starts_after_the_close_of_every_session_and_on_no_other_day(calendar, zone):
    first, last = date(2026, 11, 23), date(2026 + YEARS_OF_HOLIDAYS, 12, 31)
    rule = after_close(calendar, 60, first)
    assert rule.timezone == zone
    stored = RRuleSchedule(rrule=rule.rrule, timezone=rule.timezone).rrule  # as a client sends it
    runs = ServerSchedule(rrule=stored, timezone=zone).to_rrule()
    starts = pd.DatetimeIndex(
        [each for each in runs.between(pd.Timestamp(first, tz=zone), pd.Timestamp(last, tz=zone) + pd.Timedelta(days=1))]
    )
    sessions = sessions_around(np.datetime64(first, "us"), np.datetime64(last, "us"), calendar)
    held = (sessions.dates >= np.datetime64(first)) & (sessions.dates <= np.datetime64(last))
    assert [str(day.date()) for day in starts] == [str(day) for day in sessions.dates[held]]
    after = starts.tz_convert("UTC").tz_localize(None) - pd.DatetimeIndex(sessions.closes[held])
    assert after.min() == pd.Timedelta(minutes=60)  # summer time or not
    assert after.max() < pd.Timedelta(hours=6)  # half days


def test_a_killed_holder_blocks_its_slot_for_less_than_a_minute_wherever_it_was(tmp_path):
    server, longest = SLOTS, timedelta(seconds=slots.LEASE_S)
    storage = import_module(server["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]).ConcurrencyLeaseStorage(tmp_path)
    lease = asyncio.run(storage.create_lease([], longest))
    assert asyncio.run(storage.renew_lease(lease.id, longest))  # the holder is killed a moment later
    until = asyncio.run(storage.read_lease(lease.id)).expiration
    held = (until - datetime.now(UTC)).total_seconds()
    looks = float(server["PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS"]) + slots.POLL_S
    assert held + looks <= 55  # five seconds for a server that has much to do
    assert (lease.expiration - lease.created_at).total_seconds() > 3 * slots.RENEW_S  # who lives has three tries to renew it


class Part:
    """A server or a worker that is up as soon as it is started."""

    process = None

    def __init__(self, name, did):
        self.name, self.did = name, did

    def start(self):
        self.did.append(f"{self.name} starts")

    def end(self):
        self.did.append(f"{self.name} ends")


def test_runs_that_died_with_the_server_are_closed_before_anything_that_takes_long(tmp_path, monkeypatch):
    did: list[str] = []
    monkeypatch.setattr(serve, "_children", lambda *_: (Part("server", did), Part("worker", did)))
    monkeypatch.setattr(serve, "_wait_until_healthy", lambda *_: did.append("healthy"))
    monkeypatch.setattr(serve, "_sweep", lambda say: did.append("sweep"))
    monkeypatch.setattr(serve, "_look_after", lambda *_: serve._raise_ended())
    monkeypatch.setattr(serve, "Reports", lambda *_: Part("reports", did))
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):  # set by serve, and taken back with the test
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    serve.serve(tmp_path, 4, None, lambda _: None, lambda: did.append("deploy"))
    assert did[:4] == ["server starts", "healthy", "sweep", "deploy"]


def test_a_time_on_the_next_day_is_refused():
    with pytest.raises(ConfigError, match="another day"):
        after_close("NYSE", 9 * 60, date(2026, 11, 23))


def test_every_deployment_names_a_flow_that_loads_and_parameters_that_it_takes():
    for deployment in DECLARED:
        flow: Flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        if parameters := deployment.get("parameters"):
            flow.validate_parameters(parameters)
        assert set(flow.parameters.properties) == (set() if flow.name == "ploutos-member" else {"config"})  # whom it helps tells it
    assert {each["name"] for each in DECLARED} >= {"pipeline", "phase-1", "phase-2", "phase-3", "walk-forward", "validate", "nightly"}


def kubernetes(**values):
    """The job that a pool made from our template would start."""
    template = json.loads(PREFECT_FILE.with_name("kubernetes.json").read_text())
    validate(values, template["variables"], raise_on_error=True)
    defaults = {name: each["default"] for name, each in template["variables"]["properties"].items() if "default" in each}
    assert {each.name for each in find_placeholders(template["job_configuration"])} == set(template["variables"]["properties"])
    return apply_values(template["job_configuration"], defaults | values)["job_manifest"]


def test_a_member_on_kubernetes_has_one_core_its_secret_and_a_home_on_a_disk_of_its_own():
    member = next(each for each in DECLARED if each["name"] == "member")
    env = {**member["work_pool"]["job_variables"]["env"], "PLOUTOS_STORE": "s3://bucket/prefix", "PLOUTOS_HOME": "/ploutos/home"}
    job = kubernetes(image="registry/ploutos:1", env=env, command="prefect flow-run execute", labels={}, name="member")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["image"], container["env"]["PLOUTOS_STORE"]) == ("registry/ploutos:1", "s3://bucket/prefix")
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"cpu": "1", "memory": "2Gi"}
    assert container["envFrom"] == [{"secretRef": {"name": "ploutos"}}]
    assert container["env"]["PLOUTOS_HOME"].startswith(container["volumeMounts"][0]["mountPath"])
    assert job["spec"]["backoffLimit"] == 0  # Prefect and the store take up what died
    assert job["spec"]["ttlSecondsAfterFinished"] == 600
    with pytest.raises(Exception, match="'image' is a required property"):
        kubernetes(env=env)


def test_a_slurm_job_starts_one_worker_of_as_many_members_as_cores_and_names_what_it_lacks(tmp_path):
    (tmp_path / "prefect").write_text('#!/bin/sh\necho "$PLOUTOS_HOME $OMP_NUM_THREADS $@"\n')
    (tmp_path / "prefect").chmod(0o755)
    script = str(PREFECT_FILE.with_name("slurm.sbatch"))
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4"}
    given |= {"PREFECT_API_URL": "http://server:4200/api", "PLOUTOS_STORE": "s3://bucket/prefix"}
    done = subprocess.run(["bash", script], env=given, capture_output=True, text=True, check=True)
    words = done.stdout.split()
    assert words[:8] == [f"{tmp_path}/ploutos-7", "1", "worker", "start", "--pool", "ploutos-members", "--type", "process"]
    assert words[8:11] == ["--limit", "4", "--name"]
    for name in ("PREFECT_API_URL", "PLOUTOS_STORE"):
        lacking = {key: value for key, value in given.items() if key != name}
        refused = subprocess.run(["bash", script], env=lacking, capture_output=True, text=True, check=False)
        assert (refused.returncode, name in refused.stderr, refused.stdout) == (1, True, "")


def test_a_flow_whose_module_cannot_be_imported_is_not_deployed(tmp_path, monkeypatch):
    (tmp_path / "broken_flow.py").write_text("import no_such_module\nfrom prefect import flow\n\n@flow\ndef f(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"nothing was deployed: .*no_such_module"):
        require_loadable("broken_flow.f")


def test_silence_is_no_crash_of_a_run_that_waits():
    trigger = silent_runs().trigger
    assert {f"prefect.flow-run.{state}" for state in ("Suspended", "Paused", "Scheduled", "Completed")} <= trigger.expect
    assert trigger.within.total_seconds() <= 90


def test_a_worker_needs_an_absolute_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLOUTOS_HOME", "relative")
    with pytest.raises(ConfigError, match="absolute"):
        work_beside_home()
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "new" / "work" / "home"))  # as on a host that starts its first member
    assert work_beside_home() == {"directory": str(tmp_path / "new" / "work")}
    assert Path.cwd() == tmp_path / "new" / "work"
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ConfigError, match="cannot be made or entered"):
        work_beside_home()


def test_the_password_is_the_owners_and_stays(tmp_path):
    place = Place(tmp_path)
    password = place.password()
    assert password.startswith("ploutos:")
    assert len(password) > 24
    assert stat.S_IMODE((tmp_path / "serve" / "auth").stat().st_mode) == 0o600
    assert Place(tmp_path).password() == password
    assert password not in systemd_unit(tmp_path, 4200)


def test_prefect_knows_the_settings_that_a_server_gets_for_many_tasks(monkeypatch):
    for name, value in MANY_TASKS.items():
        monkeypatch.setenv(name, value)
    server = PrefectSettings().server
    recorder, database = server.services.task_run_recorder, server.database
    assert (recorder.batch_size, recorder.flush_interval, database.timeout, database.connection_timeout) == (500, 1, 60, 60)


def test_a_server_that_is_gone_is_not_taken_for_one_that_is_up(tmp_path):
    place = Place(tmp_path)
    with pytest.raises(OrchestratorError, match="no server of"):
        stop(tmp_path)
    place.folder.mkdir()
    (place.folder / "serve.json").write_text(json.dumps({"pid": os.getpid(), "started": 1.0, "api": "http://127.0.0.1:1/api"}))
    assert place.served() is None  # the number belongs to another process by now
    assert not Served(os.getpid(), 1.0, "").is_up


def test_a_terminal_finds_the_server_of_its_home_and_where_reports_are(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    assert not Place(tmp_path).use()
    Place(tmp_path).folder.mkdir()
    up = {"pid": os.getpid(), "started": psutil.Process().create_time(), "api": "http://127.0.0.1:4200/api"}
    (tmp_path / "serve" / "serve.json").write_text(json.dumps(up))
    assert Place(tmp_path).use()
    assert (os.environ["PREFECT_API_URL"], os.environ["PLOUTOS_REPORTS"]) == (up["api"], "http://127.0.0.1:4201")
    assert os.environ["PREFECT_API_AUTH_STRING"] == Place(tmp_path).password()


def test_a_night_that_asks_speaks_to_the_server_of_its_home(tmp_path):
    (tmp_path / "serve").mkdir()
    up = {"pid": os.getpid(), "started": psutil.Process().create_time(), "api": "http://127.0.0.1:9/api"}  # nobody answers there
    (tmp_path / "serve" / "serve.json").write_text(json.dumps(up))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "ploutos", "nightly", "--ask"], env=kept | {"PLOUTOS_HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert "http://127.0.0.1:9/api, and no server answers there" in " ".join(done.stderr.split())


def test_every_run_gives_signs_of_life_three_times_within_the_silence_that_is_taken_for_a_crash(tmp_path):
    environments = [each["work_pool"]["job_variables"]["env"] for each in DECLARED]
    environments += [main._PREFECT_DEFAULTS, serve._children(Place(tmp_path), "http://127.0.0.1:9/api", 9, None)[1].environment]
    [seconds] = {each["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for each in environments}
    assert silent_runs().trigger.within == 3 * timedelta(seconds=int(seconds))


def test_no_server_is_one_sentence(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(OrchestratorError, match="ploutos serve"), connected():
        pass


def test_an_empty_address_is_none(monkeypatch):
    monkeypatch.setenv("PLOUTOS_NOTIFY", "")
    monkeypatch.setenv("PLOUTOS_REPORTS", "")
    assert (Settings().notify, Settings().reports) == (None, None)
    monkeypatch.setenv("PLOUTOS_NOTIFY", "json://127.0.0.1/planted-secret")
    assert "planted-secret" not in repr(Settings())
