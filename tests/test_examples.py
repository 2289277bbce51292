"""Every example runs as its first lines say, and leaves in its folder what it says."""

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
WRITES = {
    "01_first_policy.py": "equity.html",
    "02_own_strategy.py": "trend.html",
    "03_own_feature.py": "policy.zip",
    "04_own_advisor.py": "signals.parquet",
}


@pytest.fixture
def folder(tmp_path):
    """Not there yet, nor is its parent: the example makes both."""
    return tmp_path / "examples" / "first"


def run(name, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, str(folder)])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(WRITES)


def test_the_first_policy_stands_beside_eight_baselines(folder, monkeypatch, capsys):
    metrics = run("01_first_policy.py", folder, monkeypatch)["metrics"]
    printed = capsys.readouterr().out
    assert len(metrics) == 9
    for name, total_return in metrics["total_return"].items():
        assert f"{name}  " in printed
        assert f"{total_return:.2f}" in printed
    assert (metrics["sharpe_low"] <= metrics["sharpe"]).sum() == (metrics["sharpe"] <= metrics["sharpe_high"]).sum() == 8  # cash has none
    page = (folder / WRITES["01_first_policy.py"]).read_text()
    assert all(name in page for name in metrics.index)


def test_a_strategy_of_ones_own_passes_the_check_and_its_peeking_copy_does_not(folder, monkeypatch, capsys):
    result = run("02_own_strategy.py", folder, monkeypatch)["result"]
    assert "refused: the answer of trend changed after bar" in capsys.readouterr().out
    assert set(result.trades_frame()["strategy"]) >= {"trend"}
    assert (folder / WRITES["02_own_strategy.py"]).exists()


def test_a_feature_of_ones_own_is_observed(folder, monkeypatch, capsys):
    found = run("03_own_feature.py", folder, monkeypatch)
    assert "share_of_gains" in found["with_feature"].observes
    assert "share_of_gains" not in found["without"].observes
    assert capsys.readouterr().out.count("Sharpe") == 2
    assert (folder / WRITES["03_own_feature.py"]).exists()


def test_an_advisor_of_ones_own_is_followed(folder, monkeypatch, capsys):
    found = run("04_own_advisor.py", folder, monkeypatch)
    frame = pd.read_parquet(folder / WRITES["04_own_advisor.py"])
    printed = capsys.readouterr().out
    assert all(f"{action} " in printed and f" {count}" in printed for action, count in frame["action"].value_counts().items())
    assert not frame["abstained"].any()
    traded = found["result"].trades_frame()
    assert (traded["strategy"] == "advisor").sum() == found["result"].fill_kind[0].astype(bool).sum() > 0


@pytest.mark.parametrize("name", sorted(WRITES))
def test_an_example_says_how_it_is_run(name):
    assert f"python examples/{name} FOLDER" in (EXAMPLES / name).read_text()
