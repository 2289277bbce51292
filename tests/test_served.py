"""A server of `ploutos serve` lets nobody in without its password, listens on loopback alone, calls nobody and keeps secrets to itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import served_story
from served_story import SECRETS, WITHOUT_ANSWER, errors

OPEN = {"get /health", "get /ready"}
"""Routes that say that the server is up, and no more."""
_OWN_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]


def own_network() -> bool:
    try:
        return subprocess.run([*_OWN_NETWORK, "ss", "-H", "-l"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not own_network(), reason="needs unshare with a network of its own, ss and ip")]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [*_OWN_NETWORK, sys.executable, served_story.__file__, str(tmp_path_factory.mktemp("served") / "home")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(900)
def test_the_runs_ended_as_they_should_have(told):
    refused, message = told["states"]["alpaca"]
    assert told["states"]["sample"][0] == "COMPLETED"
    assert refused == "FAILED"
    assert "('apca-api-key-id', '***')" in message
    assert told["artifacts"]


def test_the_server_starts_the_night_by_itself_once_its_schedule_is_on(told):
    """Its scheduler died of a newer SQLAlchemy, and only its log said so."""
    ahead = pd.DatetimeIndex(told["scheduled"]).tz_convert("America/New_York")
    assert len(ahead) >= 3
    assert {(each.hour, each.minute) for each in ahead} == {(17, 0)}
    assert set(ahead.day_of_week) <= set(range(5))
    assert told["errors"] == []


def test_an_error_of_the_server_counts_unless_its_database_was_busy():
    died = "03:20:31.000 | ERROR   | prefect.scheduler - died\nTraceback (most recent call last):\nTypeError: no\n"
    busy = "03:20:30.506 | ERROR   | prefect.workers - failed\nTraceback (most recent call last):\nOperationalError: database is locked\n"
    fine = "03:20:30.000 | INFO    | prefect - the word | ERROR is no error\n"
    assert errors(fine + busy + died + fine) == [died]
    assert errors(died + busy) == [died]


def test_no_route_answers_without_the_password_or_to_a_wrong_one(told):
    let_in = {route.rsplit(" with", 1)[0] for route, status in told["answers"].items() if status != 401}
    assert let_in == OPEN
    assert len(told["answers"]) > 300


def test_nothing_listens_beyond_loopback(told):
    assert "127.0.0.1:4200" in told["listening"]
    assert [each for each in told["listening"] if not each.startswith(("127.", "[::1]"))] == []


def test_nothing_is_sent_beyond_loopback(told):
    assert told["sent"] == [f"{WITHOUT_ANSWER} port 53"]  # the story's own


def test_a_planted_secret_is_in_no_file(told):
    found = told["holding"]
    assert any("prefect.db" in file for file in found["canary"])
    assert any(file.endswith("report.html") for file in found["canary"])
    assert any("said.log" in file for file in found["canary"])
    assert found["server"] == ["serve/auth"]
    assert {name: found[name] for name in SECRETS} == {name: [] for name in SECRETS}
