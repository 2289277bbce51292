"""The flow `optimize-strategy` and its commands: turns visible as they come, a kill that asks nothing twice, both unload modes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.testing.utilities import prefect_test_harness
from servers.scripted import ScriptedServer
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.cli.strategist import make_spec
from ploutos.config import load_config
from ploutos.errors import ConfigError, StoreError
from ploutos.reporting.strategist_page import read_strategist
from ploutos.research.strategist.spec import StrategistSpec

DATA = ("data.source=synthetic", 'data.symbols=["AAPL"]', "data.start=2012-01-03", "data.end=2016-12-30", "env.allow_short=true")
SPEC = StrategistSpec(max_iterations=3, random_searches=3, optuna_searches=1, exchange_feedback=False)


def propose(body, number):
    values = {"fast": 6 + number, "slow": 30 + 2 * number, "stop_loss": 0.02}
    return {"reasoning": f"idea {number}", "action": "continue", "next_parameters": values}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("UNLOAD_LLM_DURING_BACKTEST", raising=False)


@pytest.mark.slow
def test_the_flow_shows_every_turn_and_leaves_a_page(tmp_path):
    from flows.optimize_strategy import optimize_strategy

    with prefect_test_harness(server_startup_timeout=120), ScriptedServer(propose) as server:
        model = ("llm.provider=ollama", "llm.model=scripted", f"llm.host={server.host}", f"out={tmp_path / 'out'}")
        folder = optimize_strategy(load_config("full", None, [*DATA, *model]), SPEC)
        with get_client(sync_client=True) as client:
            tables = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["ploutos-strategist"])))
    assert sorted(len(json.loads(table.data)) for table in tables) == [1, 2, 3, 4]
    result, page = read_strategist(folder), (folder / "strategist.html").read_text()
    assert result.n_questions == 3
    assert result.n_tokens == 2250
    for text in (result.sentences[0][:50], "idea 2", "fast 8, slow 34, stop_loss 0.02"):
        assert text in page
    shown = CliRunner().invoke(app, ["strategist", "show", str(folder), "--json"])
    assert json.loads(shown.stdout)["result"]["best"] == result.best
    assert result.sentences[0][:40] in CliRunner().invoke(app, ["strategist", "show", str(folder)]).stdout


PROGRAM = """
import sys
from ploutos.agents import StrategistSpec, create_optimizer_from_engine
from ploutos.config import load_config
from ploutos.advisor.config import LLMConfig
from ploutos.market.loader import load
bars = load(load_config("full", None, sys.argv[2:]).data)
strategist, executor = create_optimizer_from_engine(
    LLMConfig(model="scripted", host=sys.argv[1]), data=bars, spec=StrategistSpec(max_iterations=3))
print(len(strategist.optimize(executor).proposals))
"""


@pytest.mark.slow
def test_a_search_that_was_killed_asks_nothing_twice():
    running = []

    def answer(body, number):
        if number == 2:
            os.kill(running[0].pid, signal.SIGKILL)
        return propose(body, number)

    with ScriptedServer(answer) as server:
        command = [sys.executable, "-c", PROGRAM, server.host, *DATA]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        for _ in range(2):
            running[:] = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)]
            out, _ = running[0].communicate(timeout=120)
        assert running[0].returncode == 0
        assert out.strip() == "3"
        assert len(server.chats) == 4, "the question in the air at the kill is asked again, and no other"
        assert len({json.dumps(chat["messages"]) for chat in server.chats}) == 3


def test_both_unload_modes_are_measured_side_by_side(tmp_path, monkeypatch):
    with ScriptedServer(propose) as server:
        model = ("llm.provider=ollama", "llm.model=scripted", f"llm.host={server.host}")
        command = ["strategist", "unload-benchmark", "--json", "--limit", "max_iterations=2"]
        command += [part for setting in (*DATA, *model) for part in ("--set", setting)]
        said = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
        off, on = said["modes"]
        assert (off["unload"], off["n_unloads"], off["unload_s"], off["reload_s"]) == (False, 0, 0, 0)
        assert (on["unload"], on["n_unloads"], on["n_questions"]) == (True, 2, 2)
        assert on["unload_s"] > 0
        assert on["reload_s"] > 0
        assert min(mode["peak_memory_bytes"] for mode in said["modes"]) > 0
        assert len(server.chats) == 4, "no cassette"
        assert server.events.count("unload") == 2 + 2, "each search starts without the model"
        table = CliRunner().invoke(app, [each for each in command if each != "--json"]).stdout
        assert "UNLOAD_LLM_DURING_BACKTEST=True" in table
        server.is_loaded = True  # by a check before, say
        server.events.clear()
        assert CliRunner().invoke(app, command).exit_code == 0
        assert server.events[0] == "unload", "each search starts without the model"


def test_only_ollama_can_be_told_to_unload():
    refused = CliRunner().invoke(app, ["strategist", "unload-benchmark", "--json", "--set", "llm.provider=mock"])
    assert refused.exit_code == 2
    assert "only Ollama can be told to unload a model" in refused.stdout


def test_limits_of_the_command_line_are_checked():
    assert make_spec("momentum", ["max_iterations=3", "min_sharpe=-1"]).max_iterations == 3
    for limit, message in (
        ("max_iterations", "has no value"),
        ("max_iterations=0", "greater than 0"),
        ("most=1", "the limits are strategy"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_spec("momentum", [limit])
    with pytest.raises(StoreError, match=r"holds no complete strategist\.json"):
        read_strategist(Path("nowhere"))
