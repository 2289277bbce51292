"""What a server is told: a night after the close on session days, and flows that load."""

import json
import os
import stat
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import RRuleSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import RRuleSchedule as ServerSchedule

from deployments.deploy import PREFECT_FILE, connected, require_loadable, silent_runs
from deployments.host import work_beside_home
from deployments.schedules import YEARS_OF_HOLIDAYS, after_close
from deployments.serve import Place, Served, stop, systemd_unit
from ploutos.errors import ConfigError, OrchestratorError
from ploutos.market.calendar import sessions_around
from ploutos.settings import Settings

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


def test_a_time_on_the_next_day_is_refused():
    with pytest.raises(ConfigError, match="another day"):
        after_close("NYSE", 9 * 60, date(2026, 11, 23))


def test_every_deployment_names_a_flow_that_loads_and_parameters_that_it_takes():
    for deployment in DECLARED:
        flow: Flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        if parameters := deployment.get("parameters"):
            flow.validate_parameters(parameters)
        assert set(flow.parameters.properties) == {"config"}
    assert {each["name"] for each in DECLARED} >= {"pipeline", "phase-1", "phase-2", "phase-3", "walk-forward", "validate", "nightly"}


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
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "work" / "home"))
    assert work_beside_home() == {"directory": str(tmp_path / "work")}
    assert Path.cwd() == tmp_path / "work"


def test_the_password_is_the_owners_and_stays(tmp_path):
    place = Place(tmp_path)
    password = place.password()
    assert password.startswith("ploutos:")
    assert len(password) > 24
    assert stat.S_IMODE((tmp_path / "serve" / "auth").stat().st_mode) == 0o600
    assert Place(tmp_path).password() == password
    assert password not in systemd_unit(tmp_path, 4200)


def test_a_server_that_is_gone_is_not_taken_for_one_that_is_up(tmp_path):
    place = Place(tmp_path)
    with pytest.raises(OrchestratorError, match="is up"):
        stop(tmp_path)
    place.folder.mkdir()
    (place.folder / "serve.json").write_text(json.dumps({"pid": os.getpid(), "started": 1.0, "api": "http://127.0.0.1:1/api"}))
    assert place.served() is None  # the number belongs to another process by now
    assert not Served(os.getpid(), 1.0, "").is_up


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
