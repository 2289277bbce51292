"""What the seed documents write works: every Python snippet of document 001 is executed from the document's own text.

`tests/data/documents` holds their code blocks. Runs are cut down by the presets below; no text of a document is changed but the package
that the names come from (`src` there, `ploutos` here).
"""

import json
import math
import textwrap
from pathlib import Path

import gymnasium
import numpy as np
import pandas as pd
import pytest
from prefect.testing.utilities import prefect_test_harness

from ploutos.config import PRESETS
from ploutos.testing_framework import EnvironmentStatePool, OptimizedFeatureCache, VectorizedDecisionFusion

DOCUMENTS = Path(__file__).parent / "data" / "documents"
TINY = {
    "data": {"start": "2022-01-03", "end": "2024-03-29", "timeframe": "1D"},
    "folds": {"train_years": 1, "validation_months": 3, "test_months": 6},
    "training": {"total_timesteps": 5120, "n_envs": 4, "n_steps": 64, "batch_size": 128, "net_arch": [16], "members": 1},
    "evaluation": {"replications": 100, "placebo_draws": 1, "robustness": {"enabled": False}},
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
