"""The command: faults end in one sentence and an honest exit code, before or inside a flow."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ploutos.cli import app

run = CliRunner().invoke
HEADER = "timestamp,open,high,low,close,volume\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "dmeo"], "preset 'dmeo' is unknown"),
        (["--preset", "demo", "--set", "training.membres=3"], "did you mean training.members?"),
        (["--preset", "demo", "--source", "yahooo"], "data.source is 'yahooo'"),
    ],
)
def test_a_wrong_setting_ends_with_code_2_before_anything_runs(arguments, sentence):
    result = run(app, ["run", *arguments])
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    as_json = run(app, ["run", *arguments, "--json"])
    assert as_json.exit_code == 2
    answer = json.loads(as_json.stdout)
    assert answer["ok"] is False
    assert answer["error"] == "ConfigError"
    assert sentence in answer["message"]


def test_help_names_every_option_of_a_run():
    text = run(app, ["run", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    for option in ("--preset", "--source", "--path", "--market", "--config", "--set", "--out", "--json"):
        assert option in text


def test_the_doctor_finds_this_machine_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    result = run(app, ["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == 0, checks
    assert set(checks) == {"versions", "Prefect server", "sample data", "store", "machine", "advisor", "thread caps"}
    assert "mock" in checks["advisor"]["found"]


def test_the_doctor_says_what_to_do_about_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "file"))
    result = run(app, ["doctor"])
    assert result.exit_code == 1
    assert "what to do: set PLOUTOS_HOME to a folder that can be written" in result.stdout


def command(tmp_path, *arguments):
    environment = {**os.environ, "PLOUTOS_HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    code = "import sys; from ploutos.cli import app; sys.argv[0] = 'ploutos'; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (HEADER, "A.csv holds no bars; expected at least one row"),
        (
            "timestamp,open,high,low,close,volume\n2024-01-02T00:00Z,1,1,1,1,1\n2024-01-03T00:00Z,1,1,1,1,1\n",
            "used up by the features' warm-up",
        ),
    ],
)
def test_bad_bars_end_the_flow_with_code_3_one_sentence_and_nothing_half_written(tmp_path, content, sentence):
    (tmp_path / "A.csv").write_text(content)
    result = command(tmp_path, "run", "--preset", "demo", "--source", "files", "--path", "A.csv", "--json")
    assert result.returncode == 3, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    assert sentence in answer["message"]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "home" / "runs").exists()
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "locks" not in path.parts]
    assert not [path for path in left if "tmp" in path.name or path.stat().st_size == 0]
