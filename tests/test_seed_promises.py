"""What the seed documents write works: every Python snippet of document 001 is executed from the document's own text.

`tests/data/documents` holds their code blocks. Runs are cut down by the presets below; no text of a document is changed but the package
that the names come from (`src` there, `ploutos` here).
"""

import importlib
import json
import math
import re
import shlex
import textwrap
import tomllib
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pandas as pd
import pytest
from prefect.testing.utilities import prefect_test_harness
from typer.testing import CliRunner

from ploutos.cli import aliases
from ploutos.cli.main import app
from ploutos.cli.modes import going_on
from ploutos.config import PRESETS, PipelineConfig
from ploutos.errors import ConfigError
from ploutos.settings import Settings
from ploutos.store import Store
from ploutos.testing_framework import EnvironmentStatePool, OptimizedFeatureCache, VectorizedDecisionFusion

DOCUMENTS = Path(__file__).parent / "data" / "documents"
TINY = {
    "data": {"start": "2022-01-03", "end": "2024-03-29", "timeframe": "1D"},
    "folds": {"train_years": 1, "validation_months": 3, "test_months": 6},
    "training": {"total_timesteps": 5120, "n_envs": 4, "n_steps": 64, "batch_size": 128, "net_arch": [16], "members": 1},
    "evaluation": {"replications": 100, "placebo_draws": 1, "rank_draws": 20, "robustness": {"enabled": False}},
    "regression": {"enabled": False},
    "llm": {"mirror": False},
    "hybrid": {"enabled": False},
    "pipeline": {"pause_between_phases": 0},
    "hardware": {"workers": 1, "device": "cpu"},
}


def blocks(document: str, language: str) -> list[tuple[str, str]]:
    """Code blocks of one language, each with the heading above it."""
    heading, kind, found, lines = "", "", [], None
    for line in (DOCUMENTS / f"{document}.md").read_text(encoding="utf-8").splitlines():
        if lines is not None and line.strip() == "```":
            if kind == language:
                found.append((heading, textwrap.dedent("\n".join(lines))))
            lines = None
        elif lines is not None:
            lines.append(line)
        elif line.strip().startswith("```"):
            kind, lines = line.strip().removeprefix("```"), []
        else:
            heading = line.lstrip("# ")
    return found


def execute(document: str, heading: str, **names):
    """Run a Python block; gives the names it made."""
    [text] = [text for title, text in blocks(document, "python") if title == heading]
    exec(compile(text.replace("from src.", "from ploutos."), heading, "exec"), names)
    return names


@pytest.fixture(scope="module")
def prefect_server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch):
    """Every preset of a mode is a run of seconds."""
    for name in ("hardware_maximized", "test"):
        monkeypatch.setitem(PRESETS, name, TINY)


# --- document 001: the testing framework

SNIPPETS = {
    "Real-time Hardware Monitoring", "Performance Validation", "1. Cached LLM Feature Calculations", "2. Vectorized Decision Fusion",
    "3. Reduced Network Complexity", "4. Environment State Pooling", "Adding to Main Menu",
}  # fmt: skip


def test_every_snippet_of_the_framework_is_executed_here():
    assert {heading for heading, _ in blocks("testing_framework", "python")} == SNIPPETS


def test_the_monitor_reads_and_saves_what_it_saw(home):
    names = execute("testing_framework", "Real-time Hardware Monitoring")
    names["monitor"].stop_monitoring()
    assert names["peak_memory"] > 50 << 20
    assert math.isnan(names["avg_gpu"]) or 0 <= names["avg_gpu"] <= 100
    assert len(pd.read_csv(home / "hardware_metrics.csv")) >= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Prefect's own server warns about itself
def test_a_validation_runs_as_the_document_writes_it_with_a_gpu_or_without(home, tiny, prefect_server, capsys):
    names = execute("testing_framework", "Performance Validation")
    framework, printed = names["framework"], capsys.readouterr().out
    assert f"GPU Utilization: {framework.hardware_monitor.get_average_gpu_utilization():.1f}%" in printed
    assert f"Execution Time: {framework.total_time:.2f} seconds" in printed
    assert framework.config.run.data.symbols == ("NQ",)
    manifest = json.loads((framework.folder / "manifest.json").read_text())
    assert manifest["source"].startswith("synthetic")
    assert "policy 0 0" in manifest["stages"]
    goes_on_from(framework.folder, framework.config.run)


def goes_on_from(folder, config):
    """Later phases start from the newest run whose earlier ones had the same settings, and keep what is set for the later ones."""
    more = config.model_copy(update={"training": config.training.model_copy(update={"members": 2})})
    changed = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"replications": 150})})
    for phase, wanted in ((2, more), (3, changed)):
        form = going_on(wanted, phase)
        assert form.from_run == folder
        assert form.resolve() == wanted
        assert bool(form.refs(Store(Settings().store_root)).policies) is (phase == 3)
    with pytest.raises(ConfigError, match=r"no run under .* has the data, features, folds, env, training, regression, seed settings"):
        going_on(more, 3)


def test_the_cache_snippet_computes_a_row_once():
    asked = []

    def calculate_llm_features(data):
        asked.append(data)
        return [1.0, 2.0, 3.0]

    names = {"OptimizedFeatureCache": OptimizedFeatureCache, "calculate_llm_features": calculate_llm_features, "data": "bars"}
    first = execute("testing_framework", "1. Cached LLM Feature Calculations", cache_key=("NQ", 7), **names)
    assert first["cached_features"] is None
    assert first["cache"].get(("NQ", 7)).tolist() == [1.0, 2.0, 3.0]
    assert (first["cache"].max_size, first["cache"].hit_rate, len(asked)) == (1000, 0.5, 1)


def test_the_fusion_snippet_fuses_lists_and_arrays_alike():
    lists = {"rl_actions": [1, 2, 1], "rl_confidences": [0.9, 0.4, 0.2], "llm_actions": [2, 2, 2]}
    lists |= {"llm_confidences": [0.1, 0.9, 0.9], "risk_scores": [0.0, 0.9, 0.1]}
    fused = [
        execute("testing_framework", "2. Vectorized Decision Fusion", fusion=VectorizedDecisionFusion(), **given)["fused_actions"].tolist()
        for given in (lists, {name: np.array(values) for name, values in lists.items()})
    ]
    assert fused == [[1, 0, 2]] * 2  # the sure policy's, a veto, the sure advisor's


def test_the_pool_snippet_lends_by_number_and_resets():
    names = execute(
        "testing_framework", "4. Environment State Pooling", EnvironmentStatePool=EnvironmentStatePool, env_class=gymnasium.make,
        env_kwargs={"id": "CartPole-v1"},
    )  # fmt: skip
    pool, first = names["pool"], names["env"]
    again, env = pool.acquire()
    assert env is first
    assert again != names["env_id"]
    pool.close()


def test_the_menu_snippet_names_what_has_a_command():
    [text] = [text for heading, text in blocks("testing_framework", "python") if heading == "Adding to Main Menu"]
    assert list(eval("{" + text + "}")) == ["9", "10", "11"]


# --- the page of promises


PAGE = (Path(__file__).parents[1] / "docs" / "seed-promises.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (kept|kept under another name|not kept) \| (.+) \|$", PAGE, re.MULTILINE)


def test_the_page_answers_every_promise_and_counts_its_answers():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 219))
    counts = [sum(row[2] == status for row in ROWS) for status in ("kept", "kept under another name", "not kept")]
    assert "218 rows: {} kept, {} kept under another name, {} not kept".format(*counts) in PAGE


def exists(name: str) -> bool:
    """Whether a dotted name can be imported, whole or as an attribute of what can."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        return all((found := getattr(found, part, None)) is not None for part in parts[split:])
    return False


def test_every_name_setting_and_command_of_the_page_is_there():
    quoted = {text for _, _, _, where in ROWS for text in re.findall(r"`([^`]+)`", where)}
    names = {text for text in quoted if re.fullmatch(r"(ploutos|flows|tasks)(\.\w+)+", text)}
    assert len(names) > 20
    assert [name for name in sorted(names) if not exists(name)] == []
    settings = {text for text in quoted if re.fullmatch(r"(training|llm|hybrid|hardware|pipeline|data|folds|evaluation)\.[\w.]+", text)}
    settings.remove("hardware.csv")  # a file
    assert len(settings) > 10
    for setting in settings:
        value = PipelineConfig()
        for part in setting.split("."):
            assert hasattr(value, part), setting
            value = getattr(value, part)
    for path in (text for text in quoted if re.fullmatch(r"(docs|tests|benchmarks)/[\w./-]+", text)):
        assert (Path(__file__).parents[1] / path).exists(), path


# --- the commands of document 001


def arguments_of(document: str) -> list[list[str]]:
    """Every script call of a document's shell blocks, as ploutos takes it."""
    lines = [line for _, text in blocks(document, "bash") for line in text.splitlines() if line.startswith("python ")]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    return [[*aliases.COMMANDS[script.removesuffix(".py")], *rest] for script, *rest in words]


COMMANDS = arguments_of("testing_framework")


def test_the_documents_commands_are_all_looked_at():
    assert len(COMMANDS) == 17


def test_the_documents_script_names_are_programs(monkeypatch, capsys):
    scripts = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["scripts"]
    assert {name for name, target in scripts.items() if target == "ploutos.cli.aliases:start_as_named"} == set(aliases.COMMANDS)
    monkeypatch.setattr("sys.argv", ["/usr/bin/compare_benchmarks", "none.json", "other.json"])
    with pytest.raises(SystemExit) as ended:
        aliases.start_as_named()
    assert ended.value.code == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] in ("run", "validate")], ids=" ".join)
def test_a_command_of_the_document_starts_the_run_that_it_asks_for(words, home, monkeypatch):
    (home / "config").mkdir()
    (home / "config" / "test_hardware_maximized.yaml").write_text(blocks("testing_framework", "yaml")[0][1])
    started = []

    class Started(ConfigError):
        pass

    def start(config, *_):
        started.append(config)
        raise Started("enough")

    monkeypatch.setattr("ploutos.cli.main.make_prefect_home", lambda: None)
    monkeypatch.setattr("ploutos.cli.main._look_ahead", lambda config: SimpleNamespace(config=config))
    monkeypatch.setattr("ploutos.cli.main._run_flow", start)
    monkeypatch.setattr("ploutos.testing_framework._run_flow", start)
    result = CliRunner().invoke(app, words)
    if "--start-phase" in words:
        assert "no run under" in result.output  # nothing to go on from
        return
    assert [type(config).__name__ for config in started] == ["PipelineConfig"], result.output
    config, given = started[0], dict(pairwise(words))
    assert config.data.symbols == (given.get("--market", "NQ"),)
    assert config.data.source == "synthetic"
    assert "simulated" in result.output
    assert config.training.timesteps_reduction == (0.01 if "--quick" in words else 0.1)
    assert config.llm.provider.value == "mock"
    if "--batch-size" in given:
        assert (config.training.batch_size, config.training.n_envs) == (int(given["--batch-size"]), int(given["--vectorized-envs"]))
    if "--config" in given:
        assert (config.training.n_envs, config.training.net_arch) == (32, (256, 128))


def test_both_benchmarks_run_and_are_compared(home):
    for words in ([*words, "--rounds", "1"] if words[0] == "benchmark" else [*words, "--json"] for words in COMMANDS):
        if words[0] in ("benchmark", "compare-benchmarks"):
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, result.output
    compared = json.loads(result.stdout)
    assert (compared["one"]["cache_hit_rate"], compared["other"]["cache_hit_rate"]) == (None, pytest.approx(2 / 3))
    assert compared["one"]["network_parameters"] > 4 * compared["other"]["network_parameters"]
    assert compared["times_faster"].keys() == compared["one"]["seconds"].keys()
    (home / "baseline.json").write_text("{}")
    assert "is not a benchmark" in CliRunner().invoke(app, ["compare-benchmarks", "baseline.json", "optimized.json"]).output


def test_a_mode_has_no_preset_beside_it():
    result = CliRunner().invoke(app, ["run", "--mode", "pipeline", "--preset", "demo"])
    assert result.exit_code == 2
    assert "leave out --preset demo" in result.output
