"""What a person is told about settings is what the code reads."""

import json

import pytest
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.config import PRESETS, PipelineConfig, load_config
from ploutos.setting_help import settings_of

run = CliRunner().invoke


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_to_start_from_changes_nothing_and_uncommented_is_the_preset(preset, tmp_path):
    assert run(app, ["init", str(tmp_path / "mine"), "--preset", preset]).exit_code == 0
    file = tmp_path / "mine" / "ploutos.yaml"
    assert load_config(preset, file) == load_config(preset)
    lines = [line for line in file.read_text().splitlines() if not line.startswith("##")]
    assert all(line.startswith("#") for line in lines)
    file.write_text("\n".join(line.removeprefix("#") for line in lines))
    assert load_config("full", file) == load_config(preset)


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "ploutos.yaml").write_text("seed: 7\n")
    result = run(app, ["init", str(tmp_path)])
    assert (result.exit_code, (tmp_path / "ploutos.yaml").read_text()) == (1, "seed: 7\n")
    assert "already exists" in result.stderr


def test_the_command_explains_every_setting_with_its_value():
    told = json.loads(run(app, ["config", "--preset", "demo", "--json"]).stdout)
    assert [each["key"] for each in told] == [each.key for each in settings_of(PipelineConfig)]
    (members,) = json.loads(run(app, ["config", "training.members", "--preset", "demo", "--json"]).stdout)
    assert (members["default"], members["value"], members["range"]) == ("5", 3, "> 0")
    costs = json.loads(run(app, ["config", "env.costs", "--json"]).stdout)
    assert all(each["key"].startswith("env.costs.") for each in costs)
    assert "Policies per fold" in run(app, ["config", "training.members"]).stdout


def test_a_setting_that_is_none_is_answered_with_the_nearest():
    result = run(app, ["config", "training.membres"])
    assert (result.exit_code, "did you mean training.members?" in result.stderr) == (2, True)
