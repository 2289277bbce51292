"""The flow under Prefect: it ends in a report, computes nothing twice, and recomputes exactly what must be."""

import html
import json
import os
import pickle
import runpy
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.testing.utilities import prefect_test_harness
from tracing import followed, modules_of, traced

from ploutos import provenance
from ploutos import walk_forward as folds
from ploutos.advisor.signals import read_signals
from ploutos.config import PipelineConfig, load_config
from ploutos.errors import StoreError
from ploutos.evaluation.candidates import NOT_TRIED
from ploutos.evaluation.summary import GateName, Outcome, read_summary
from ploutos.market.instruments import instrument
from ploutos.market.synthetic.simulate import simulate
from ploutos.market.synthetic.spec import SyntheticSpec
from ploutos.registry.promotion import model_of
from ploutos.reporting.gate_table import gate_sentences
from ploutos.reporting.names import names_of
from ploutos.reporting.page import typeset
from ploutos.reporting.verdict import conclusion, verdict
from ploutos.store import Store
from ploutos.strategies.regression import load_regression
from ploutos.training.checkpoint import load_policy
from tasks import stage as stages
from tasks import training

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Prefect's own server warns about itself

SMALL = [
    "data.symbols=[AAPL, IBM, FB]", "data.start=2007-01-03", "folds.train_years=3", "folds.test_months=16", "training.members=2",
    "training.total_timesteps=512",
    "training.n_envs=4", "training.n_steps=64", "training.batch_size=128", "training.net_arch=[16]", "evaluation.replications=100",
    "evaluation.placebo_draws=2", "evaluation.rank_draws=20", "evaluation.robustness.paths=50", "evaluation.recombination.groups=4",
    "pipeline.pause_between_phases=0", "hardware.workers=1",
]  # fmt: skip
WRITE_THE_LOG = ("tasks.prefect_log.", "tasks.progress_log.")
"""Listeners that a task puts around its work; what a stage makes does not depend on them."""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """A file with every address outside this host that this process, its server or its workers try to reach."""
    file = tmp_path_factory.mktemp("network") / "tried"
    guard = str(Path(__file__).parent / "network_guard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLOUTOS_TEST_TRIED", str(file))
        patch.setenv("PYTHONPATH", guard, prepend=os.pathsep)
        runpy.run_path(f"{guard}/sitecustomize.py")
        yield file


@pytest.fixture(scope="module", autouse=True)
def prefect_server(tried):
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(out: Path, *settings: str) -> dict[str, str]:
    """Run the flow and give back how each stage ended."""
    from flows.pipeline import pipeline

    folder = pipeline(load_config("full", overrides=[*SMALL, *settings, f"out={out}"]))
    assert folder == out
    return json.loads((out / "manifest.json").read_text())["stages"]


def decided(summary) -> set[str]:
    """Slugs of the accounts that could be picked."""
    return {slug for slug, metrics in summary.strategies.items() if metrics.role not in NOT_TRIED}


def computed(stages: dict[str, str]) -> set[str]:
    return {name for name, state in stages.items() if state != "Cached"}


def test_a_run_writes_everything_and_a_second_computes_nothing(home, tmp_path):
    first = run(tmp_path / "first")
    assert computed(first) == set(first)
    require_artifacts()
    folder = tmp_path / "first"
    names = {"config.yaml", "manifest.json", "metrics.json", "folds.json", "report.html", "report.md"}
    names |= {"advisor.html", "gates.json", "mirrored.parquet", "signals.parquet", "equity.parquet", "trades.parquet", "hardware.csv"}
    assert names <= {path.name for path in folder.iterdir()}
    summary = read_summary(folder / "metrics.json")
    assert summary.advisor.is_mock
    assert list(summary.strategies)[-2:] == ["hybrid", "hybrid-ablated"]
    assert {"hybrid 0 0", "ablated 0 0", "hybrid 1 0", "fusion-choice"} <= set(first)
    assert [choice.fold for choice in summary.fusion] == [fold.fold for fold in summary.folds]
    assert len(summary.folds[0].members) == 2
    pauses = json.loads((folder / "manifest.json").read_text())["pauses"]
    assert [pause["before"] for pause in pauses] == ["phase 2", "phase 3"]
    assert all(pause["free_bytes"] > 0 for pause in pauses)
    taken = json.loads((folder / "manifest.json").read_text())["hardware"]
    readings = pd.read_csv(folder / "hardware.csv")
    assert taken["peak_memory_bytes"] == readings["pss_bytes"].max() > 100 << 20
    assert 0 < taken["mean_cpu_cores"] < 64
    assert (taken["gpu_utilization"] is None) == readings["gpu_utilization"].isna().all()
    mirrored, tested = pd.read_parquet(folder / "mirrored.parquet"), folds.tested_decisions(folds.read_folds(folder / "folds.json"))
    asked = read_signals(folder / "signals.parquet").within(*tested).frame
    assert len(mirrored) == summary.advisor.mirrored.n_asked == len(asked)
    assert [row.draws for row in summary.comparisons] == [1, 1, 1, 2, 2, 2, 1, 1, 1]
    assert conclusion(summary) in (folder / "advisor.html").read_text()
    page = (folder / "report.html").read_text()
    assert 'href="advisor.html"' in page
    assert "peak memory of all processes" in page
    assert ("not evaluated" in page) == (taken["gpu_utilization"] is None)
    assert "The advisor was a mock" in page
    assert "Fusion, chosen on validation" in page
    assert "hybrid without advice" in page
    assert all(typeset(sentence) in page for sentence in verdict(summary))
    assert [name for name in names_of(summary).values() if "mock" in name] == ["fused (mock advisor)", "advisor (mock)"]
    assert 'src="http' not in page
    equity = pd.read_parquet(folder / "equity.parquet")
    booked = 100_000 + equity["pnl"] - equity["commission"] - equity["slippage"]
    assert ((equity["equity"] - booked).abs() < 1e-9 * equity["equity"].abs()).all()
    trades = pd.read_parquet(folder / "trades.parquet")
    assert (trades["units"] != 0).all()
    assert load_config("full", file=folder / "config.yaml") == load_config("full", overrides=[*SMALL, f"out={folder}"])

    # two members, their vote, fused, advisor, hybrid and its ablated copy, and two regressions
    tried = (home / "registry" / "trials.jsonl").read_bytes()
    distinct = len({summary.strategies[slug].total_return for slug in decided(summary)})  # two that did the same are one trial
    assert summary.gates.trials.counts["candidate"] == summary.gates.trials.n_trials == distinct
    assert summary.gates.trials.counts["training"] == (2 + 1 + 1) * len(summary.folds)  # members, a hybrid, its ablated copy
    assert json.loads((folder / "gates.json").read_text()) == summary.gates.model_dump(mode="json")
    assert summary.gates.outcome is not Outcome.PROMOTE
    assert all(typeset(sentence) in html.unescape(page) for sentence in gate_sentences(summary))
    assert model_of(folder).members["policy 0 1"] == json.loads((folder / "manifest.json").read_text())["artifacts"]["policy 0 1"]

    second = run(tmp_path / "second")
    assert computed(second) == set()
    assert (home / "registry" / "trials.jsonl").read_bytes() == tried  # a repeated run has tried nothing new
    assert (tmp_path / "second" / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()

    # one feature less: features and what stands on them, and neither bars nor the advisor's features
    changed = run(tmp_path / "changed", "features.exclude=[gap]")
    # (the advisor's answers come out the same, and so does what stands on them alone)
    assert set(changed) - computed(changed) == {"bars", "quality", "llm-features", "mirrored"}

    # the number of placebos: no question again
    fewer = run(tmp_path / "fewer", "evaluation.placebo_draws=1", "llm.mirror=false")
    assert computed(fewer) == {"backtests", "candidates", "metrics", "robustness"}
    assert not (tmp_path / "fewer" / "mirrored.parquet").exists()
    assert "Not asked." in (tmp_path / "fewer" / "advisor.html").read_text()

    # a risk limit: what stands on fusion, and no policy
    risk = run(tmp_path / "risk", "fusion.risk.max_consecutive_losses=2")
    assert computed(risk) <= {"fusion-choice", "backtests", "advice-controls", "candidates", "metrics", "robustness"}
    assert "backtests" in computed(risk)

    # a lost and a damaged artifact are made again, with the same content: nothing that stands on them changes, but more was tried since
    manifest = json.loads((folder / "manifest.json").read_text())
    [lost] = (home / "store" / "objects").glob(f"*/{manifest['artifacts']['policy 0 1']}.zip")
    [damaged] = (home / "store" / "objects").glob(f"*/{manifest['artifacts']['features']}.parquet")
    lost.unlink()
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    again = run(tmp_path / "again")
    assert computed(again) == {"features", "policy 0 1", "metrics"}  # nothing was tried since the run before
    repeated = read_summary(tmp_path / "again" / "metrics.json")
    assert repeated.model_copy(update={"gates": None}) == summary.model_copy(update={"gates": None})
    assert repeated.gates.trials.n_trials >= summary.gates.trials.n_trials
    assert repeated.gates.trials.counts["settings"] > summary.gates.trials.counts["settings"]
    luck = [next(row.value for row in each.gates.rows if row.name is GateName.DSR) for each in (repeated, summary)]
    assert luck[0] <= luck[1]


def server_away(*_, **__):
    raise httpx.ConnectError("All connection attempts failed")


class Travelling(ThreadPoolTaskRunner):
    """Hands every task its arguments as another machine would get them."""

    def submit(self, task, parameters, *args, **kwargs):
        return super().submit(task, pickle.loads(pickle.dumps(parameters)), *args, **kwargs)


def test_one_phase_at_a_time_ends_in_the_bytes_of_a_whole_run_and_arguments_of_tasks_travel(home, tmp_path, monkeypatch):
    """No pool, no monitor, no open handle is handed over; and the runner is chosen when the flow is called."""
    from flows.pipeline import phase1_features, phase2_train, phase3_hybrid, pipeline, validate

    monkeypatch.setattr("flows.stages.make_runner", lambda spec: Travelling(max_workers=spec.tasks))
    small = load_config("full", overrides=[*SMALL, "training.members=1", "hardware.tasks=2", "evaluation.robustness.enabled=false"])
    plan = validate(small)
    assert (plan["folds"], plan["policies"], plan["environment steps of a policy"]) == (2, 2, 512)
    first = phase1_features(small.model_copy(update={"out": tmp_path / "1"}))
    second = phase2_train({"from_run": first, "training": small.training, "hardware": small.hardware, "out": tmp_path / "2"})
    monkeypatch.setattr("tasks.evaluation.create_markdown_artifact", server_away)  # which loses no finished run
    third = phase3_hybrid({"from_run": second, "evaluation": small.evaluation, "out": tmp_path / "3"})
    whole = pipeline(small.model_copy(update={"out": tmp_path / "whole"}))
    stages = [json.loads((folder / "manifest.json").read_text())["stages"] for folder in (first, second, third, whole)]
    assert computed(stages[0]) == set()  # by `validate`
    assert set(stages[0]) | set(stages[1]) | set(stages[2]) == set(stages[3])
    assert computed(stages[3]) == set()
    assert (third / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()

    again = pipeline({"start_phase": 3, "from_run": whole, "out": tmp_path / "again"})
    kept = json.loads((again / "manifest.json").read_text())["stages"]
    assert set(kept) == set(stages[2])
    assert computed(kept) == set()
    assert (again / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    with pytest.raises(StoreError, match="ended before phase 2"):
        phase3_hybrid({"from_run": first})


def test_policies_that_give_weights_run_from_end_to_end(home, tmp_path):
    changes = ["training.actions=weights", "fusion.llm_weight=0.6", "env.rebalance_band=0"]
    stages = run(tmp_path / "run", *changes)
    assert computed(stages) == set(stages)
    policy = json.loads((tmp_path / "run" / "manifest.json").read_text())["artifacts"]["policy 0 0"]
    [path] = (home / "store" / "objects").glob(f"*/{policy}.zip")
    assert load_policy(path).is_continuous
    summary = read_summary(tmp_path / "run" / "metrics.json")
    paths = [summary.strategies[slug] for slug in ("vote", "fused", "member-0")]
    assert len({path.total_return for path in paths}) == 3
    assert all(0 < path.exposure < 1.01 for path in paths)
    trades = pd.read_parquet(tmp_path / "run" / "trades.parquet")
    assert (trades["strategy"] == "vote").sum() > 1000  # every bar asks for a weight, however small the change


@pytest.mark.parametrize("source", ["synthetic", "files"])
def test_a_future_trades_whole_contracts_on_its_own_terms(home, tmp_path, source):
    span = [
        "data.symbols=[NQ]",
        "data.start=2023-01-02",
        "data.end=2024-12-31",
        "folds.train_years=1",
        "folds.test_months=6",
        "data.timeframe=4h",
    ]
    if source == "files":
        frame = simulate(SyntheticSpec(start="2023-01-02", end="2024-12-31", timeframe="4h"), [instrument("NQ")])
        frame.to_csv(tmp_path / "bars.csv", index=False)
        span += [f"data.path={tmp_path / 'bars.csv'}"]
    folder = tmp_path / "run"
    run(folder, *span, f"data.source={source}", "training.members=1")
    trades = pd.read_parquet(folder / "trades.parquet")
    assert len(trades) > 0
    assert (trades["units"] % 1 == 0).all()
    equity = pd.read_parquet(folder / "equity.parquet").groupby("strategy").last()
    fills = trades.assign(n=trades["units"].abs()).groupby("strategy")["n"].sum()
    for strategy, contracts in fills.items():
        assert equity.loc[strategy, "commission"] == pytest.approx(2.5 * contracts)
        assert equity.loc[strategy, "slippage"] == pytest.approx(5.0 * contracts)  # a tick of 0.25 at 20 a point
    page = (folder / "report.html").read_text()
    assert "20 a point; 2.5 and 1 ticks of 5 per contract and side" in page
    assert ("The bars are simulated" in page) == (source == "synthetic")


def test_a_planted_market_shows_what_policies_and_regressions_took_of_the_oracle(home, tmp_path):
    market = ["data.source=synthetic", "data.symbols=[AAPL, IBM]", "data.timeframe=1D", "data.synthetic.scenario=planted"]
    market += [
        "data.synthetic.strength=4",
        "data.start=2019-01-02",
        "folds.test_months=60",
        "training.members=1",
        "hybrid.enabled=false",
        "llm.mirror=false",
    ]
    stages = run(tmp_path / "run", *market)
    assert {"regression 0 0", "regression 0 1"} <= computed(stages)
    summary = read_summary(tmp_path / "run" / "metrics.json")
    capture = {slug: row.oracle_capture for slug, row in summary.strategies.items()}
    assert (capture["oracle"], capture["flat"]) == (1, 0)
    assert capture["trees"] > 0.6
    assert [row.against for row in summary.supervised] == [("logistic",), ("trees",), ("lasso",)]
    said, page = verdict(summary), (tmp_path / "run" / "report.html").read_text()
    assert any(sentence.startswith("RL did not beat ") and "boosted trees" in sentence for sentence in said)
    assert "of the oracle's growth" in page.replace("&#39;", "'")
    model = load_regression(tmp_path / "run" / "folds" / "0" / "regression" / "trees.npz")
    assert model.kind == "trees"
    again = run(tmp_path / "again", *market, "regression.models=[trees]")
    assert computed(again) == {"backtests", "candidates", "metrics", "recombined", "robustness"}
    without = run(tmp_path / "without", *market, "regression.enabled=false")
    assert not any(name.startswith("regression") for name in without)
    assert read_summary(tmp_path / "without" / "metrics.json").supervised == ()


def test_the_same_seed_in_two_homes_gives_the_same_numbers_and_parameters(tmp_path, monkeypatch):
    for name in ("one", "two"):
        monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / name))
        run(tmp_path / f"{name}-run", "hardware.workers=2")  # who trains what, and when, is not the same twice
    one, two = tmp_path / "one-run", tmp_path / "two-run"
    assert (one / "metrics.json").read_bytes() == (two / "metrics.json").read_bytes()
    policies = sorted(path.relative_to(one) for path in one.glob("folds/*/*/policy.zip"))
    assert len(policies) == 4
    for policy in policies:
        assert (one / policy).read_bytes() == (two / policy).read_bytes()
        assert load_policy(one / policy).meta.timesteps == 512
    tuned = sorted(path.relative_to(one) for path in one.glob("folds/*/*/*/policy.zip"))
    assert [path.parts[2] for path in tuned] == ["ablated", "hybrid"] * 2
    for policy in tuned:
        assert (one / policy).read_bytes() == (two / policy).read_bytes()
        assert load_policy(one / policy).meta.timesteps == 256
    assert len({(one / policy).read_bytes() for policy in (*policies, *tuned)}) == 8  # every fold, member and kind is another


def test_hardware_maximized_writes_the_numbers_it_chose_and_they_repeat_the_run(home, tmp_path):
    from flows.pipeline import pipeline

    sizes = [text for text in SMALL if not text.startswith(("training.n_envs", "training.n_steps", "training.batch_size"))]
    chosen = pipeline(load_config("hardware_maximized", overrides=[*sizes, "hardware.device=cpu", f"out={tmp_path / 'chosen'}"]))
    written = load_config("full", file=chosen / "config.yaml")
    assert (written.training.n_envs, written.training.n_steps, written.training.batch_size) == (
        2,
        32,
        16,
    )  # an eighth of 512 steps, in quarters
    assert not written.hardware.left_to_machine
    again = run_file(chosen / "config.yaml", tmp_path / "again")
    assert computed(json.loads((again / "manifest.json").read_text())["stages"]) == set()
    assert (again / "metrics.json").read_bytes() == (chosen / "metrics.json").read_bytes()


def run_file(file: Path, out: Path) -> Path:
    from flows.pipeline import pipeline

    return pipeline(load_config("full", file=file, overrides=[f"out={out}"]))


def require_artifacts() -> None:
    """A summary, the folds, a link to the report and the table of what was done are in the UI."""
    with get_client(sync_client=True) as client:
        ours = ArtifactFilter(key=ArtifactFilterKey(like_="ploutos-%"))
        found = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=ours)}
    bars = {key for key in found if key.startswith("ploutos-progress-")}  # of stages that took long
    assert set(found) - bars == {"ploutos-summary", "ploutos-folds", "ploutos-report", "ploutos-progress"}
    assert "mock" in str(found["ploutos-summary"].data)
    assert "report.html" in str(found["ploutos-report"].data)


def test_a_misspelt_parameter_is_refused_before_anything_runs():
    from prefect.exceptions import ParameterTypeError

    from flows.pipeline import pipeline

    with pytest.raises(ParameterTypeError, match="membres"):
        pipeline(config={"training": {"membres": 1}})
    assert PipelineConfig.model_config["extra"] == "forbid"


def test_every_function_that_ran_in_a_stage_is_in_its_key(home, tmp_path, monkeypatch):
    ran, keys, works = {}, {}, {}
    cached, key = Store.cached, stages.stage_key

    def watched(self, name, digest, kind, write, describe):
        def within(path):
            ran[name] = traced(lambda: write(path), works[name])

        return cached(self, name, digest, kind, within, describe)

    def kept(name, kind, config, upstream, work):
        keys[name] = modules_of([kind.write.__module__, *provenance.logic_of(work, ("tasks",))[1]])
        works[name] = work
        return key(name, kind, config, upstream, work)

    monkeypatch.setattr(Store, "cached", watched)
    for module in (stages, training):
        monkeypatch.setattr(module, "stage_key", kept)
    run(tmp_path / "run", "training.members=1")
    assert {"bars", "features", "folds", "quality", "policy", "signals", "backtests", "in-sample", "metrics"} <= set(ran)
    for name, (modules, functions) in ran.items():
        assert {module for module in modules - keys[name] if module.startswith("ploutos.")} == set(), name
        known = tuple(f"{each}.<locals>." for each in followed(works[name], "tasks"))
        own = {each for each in functions if each.startswith("tasks.") and not each.startswith(WRITE_THE_LOG)}
        assert own, name
        assert {each for each in own if not f"{each}.<locals>.".startswith(known)} == set(), name


def test_nothing_of_all_this_asked_a_host_outside(tried):
    """Server, flows and workers of this file: no telemetry, no look for updates, no bars."""
    assert not tried.exists(), tried.read_text()
    with suppress(OSError):  # the guard is awake, here and in children
        socket.create_connection(("192.0.2.1", 80), timeout=0.01)
    subprocess.run([sys.executable, "-c", "import socket; socket.getaddrinfo('192.0.2.2', 80)"], check=True)
    assert {line.split()[0] for line in tried.read_text().splitlines()} == {"192.0.2.1", "192.0.2.2"}
