"""Commands of README and docs are taken as they stand: every option is there, every setting is one, and the cheap ones run."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_CODE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CHEAP = ("config", "init", "models list", "data show", "data check --path bars.csv", "run --plan --path bars.csv")


def commands():
    """Every `ploutos ...` of a code block, without comments; alternatives in brackets or with dots are words, not commands."""
    found = {}
    for page in PAGES:
        for block in _CODE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;|>", line.split("  #")[0]):
                    words = shlex.split(part, comments=True) if part.strip().startswith("ploutos ") else []
                    if words and not any(mark in part for mark in ("...", "COMMAND", "KEY")):
                        found.setdefault(" ".join(words), words[1:])
    return found


def options_of(words):
    """The command that words name, and the values of its options; whatever is wrong with them is raised."""
    command, context = typer.main.get_command(app), None
    name = "ploutos"
    while True:
        context = command.make_context(name, list(words), parent=context)
        if not hasattr(command, "commands"):
            return command, context.params
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        name, command, words = command.resolve_command(context, rest)


COMMANDS = commands()


def test_there_are_commands_to_look_at():
    assert len(COMMANDS) > 20
    assert "ploutos run" in COMMANDS


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_of_the_docs_has_its_options_and_settings(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, options = options_of(COMMANDS[text])
    settings = [each for each in options.get("settings") or () if not each.startswith("data.")]
    load_config(options.get("preset") or "full", None, settings)


@pytest.mark.parametrize("text", [text for text in COMMANDS if text.removeprefix("ploutos ").startswith(_CHEAP)])
def test_a_cheap_command_of_the_docs_runs(text, tmp_path, monkeypatch, sample_bars):
    columns = {name: getattr(sample_bars, name)[:, 0] for name in ("open", "high", "low", "close", "volume")}
    pd.DataFrame({"date": sample_bars.sessions, **columns}).dropna().to_csv(tmp_path / "bars.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ploutos.rates._MEASURED_S", 0.0)
    result = CliRunner().invoke(app, COMMANDS[text])
    assert result.exit_code == 0, result.output
