"""Champion and challenger: nobody gets there without passing, every move is kept, and one command goes back."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from markets import manifest_of
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.config import dump_yaml, load_config
from ploutos.errors import StoreError
from ploutos.evaluation.summary import (
    ChampionReason,
    ChampionTest,
    Check,
    EvidenceCheck,
    Gate,
    GateName,
    GateReason,
    Gates,
    Outcome,
    TrialFacts,
)
from ploutos.registry.mlflow_store import MLflowModels
from ploutos.registry.models import Alias, FileModels, Model, find_model, make_model
from ploutos.registry.promotion import (
    PROBATION_SESSIONS,
    challenge,
    demote,
    faults_of,
    incumbent,
    model_of,
    nightly_decision,
    on_probation,
    promote,
    reinstate,
    rollback,
    tried_since,
)
from ploutos.registry.recording import settings_digest
from ploutos.registry.trials import TrialKind, TrialRegistry, make_trial
from ploutos.run_manifest import BarsFacts, write_manifest


def gates(passed=True, suspect=False, measured=True) -> Gates:
    value, reason = (0.97 if passed else 0.4), GateReason.PASSED if passed else GateReason.MISSED
    rows = [Gate(name=GateName.PSR, value=value, bar=0.95, margin=value - 0.95, reason=reason, required=True)]
    missing = GateReason.NOT_MEASURED
    rows.append(Gate(name=GateName.DOUBLE_COST, value=None, bar=0.0, margin=None, reason=missing, required=False))
    if not measured:
        rows.append(Gate(name=GateName.PBO, value=None, bar=0.35, margin=None, reason=missing, required=True))
    outcome = Outcome.PROMOTE if passed and measured and not suspect else Outcome.REJECT
    return Gates(
        subject="vote", outcome=outcome, suspect=suspect, more_sessions=None, rows=tuple(rows),
        evidence=(EvidenceCheck(name=Check.SEEDS, found=1.0, limit=2.0, suspect=suspect),),
        trials=TrialFacts(n_trials=3, n_independent=2, n_compared=3, deviation=0.03, counts={}), at_volatility=0.06,
    )  # fmt: skip


def against(seed, champion, passed=True) -> Model:
    """A model whose gates held it against a champion."""
    value, reason = (0.01, GateReason.PASSED) if passed else (0.6, GateReason.MISSED)
    asked = gates()
    row = Gate(name=GateName.SPA_CHAMPION, value=value, bar=0.1, margin=0.1 - value, reason=reason, required=True)
    test = ChampionTest(model=champion.name, run=champion.run, slug="vote", reason=ChampionReason.COMPARED, n_sessions=500)
    outcome = Outcome.PROMOTE if passed else Outcome.INSUFFICIENT
    return model(seed, judged=asked.model_copy(update={"rows": (*asked.rows, row), "champion": test, "outcome": outcome}))


def model(seed=1, reduced=False, judged=None, **more) -> Model:
    facts = {
        "run": f"run-{seed}", "subject": "vote", "symbols": ("A", "B"), "market": "exchange",
        "first": date(2020, 1, 2), "last": date(2021, 12, 31), "members": {"policy 0 0": f"{seed:064x}"},
        "artifacts": {"bars": "b" * 64}, "config": "c", "commit": "d+", "code": "e", "versions": {"numpy": "2"}, "seed": seed,
        "reduced": reduced, "gates": judged or gates(),
    }  # fmt: skip
    return make_model(**facts | more)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """A real server on SQLite, where MLflow is installed: in an environment of its own, named by PLOUTOS_TEST_MLFLOW, or on the path."""
    command = os.environ.get("PLOUTOS_TEST_MLFLOW") or shutil.which("mlflow")
    if command is None:
        pytest.skip("MLflow is not installed; it needs an environment of its own")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = ["--backend-store-uri", f"sqlite:///{folder}/ml.db", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    env, quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, subprocess.DEVNULL
    with subprocess.Popen([command, "server", *given], cwd=folder, env=env, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.HTTPError:
                time.sleep(0.3)
        yield address
        os.killpg(process.pid, signal.SIGTERM)


@pytest.fixture(params=["files", "mlflow"])
def store(request, tmp_path):
    if request.param == "files":
        return FileModels(tmp_path)
    found = MLflowModels(request.getfixturevalue("mlflow_server"))
    if found._ask("GET", "registered-models/get", {"name": "ploutos"}, missing_ok=True):
        found._ask("DELETE", "registered-models/delete", {"name": "ploutos"})
    return found


def test_a_model_travels_from_challenger_to_champion_and_back(store):
    first = model(1)
    second = against(2, first)
    assert store.aliases() == {}
    promote(store, first, "ann", reason="first of all")
    challenge(store, second, "ann")
    assert store.aliases() == {Alias.CHAMPION: first.name, Alias.CHALLENGER: second.name}
    move = promote(store, find_model(store, "challenger"), "bob", evidence={"nightly_p": 0.04})
    assert (move.before, move.model, move.by, move.forced) == (first.name, second.name, "bob", False)
    assert store.aliases() == {Alias.CHAMPION: second.name, Alias.CHALLENGER: first.name}
    rollback(store, "bob", "it lost")
    assert store.aliases() == {Alias.CHAMPION: first.name, Alias.CHALLENGER: second.name}
    assert [each.action for each in store.history()] == ["promote", "challenge", "promote", "challenge", "rollback", "challenge"]
    assert (store.history()[3].before, store.history()[3].by) == (second.name, "bob")
    kept = store.history()[2]
    assert kept.evidence["nightly_p"] == 0.04
    assert Gates.model_validate(kept.evidence["gates"]) == second.gates
    assert store.models() == tuple(sorted([first, second], key=lambda each: each.name))
    with pytest.raises(StoreError, match="no previous champion to return to"):
        rollback(store, "bob", "again")


def test_rollback_goes_back_step_by_step_and_never_to_one_that_was_demoted(store):
    a = model(1)
    b = against(2, a)
    c = against(3, b)
    for each in (a, b, c):
        promote(store, each, "ann")
    rollback(store, "ann", "")
    assert store.aliases()[Alias.CHAMPION] == b.name
    assert store.aliases()[Alias.CHALLENGER] == c.name
    demote(store, "ann", "b failed too")
    assert store.aliases() == {Alias.CHALLENGER: c.name}
    rollback(store, "ann", "")
    assert store.aliases() == {Alias.CHAMPION: a.name, Alias.CHALLENGER: c.name}  # nobody was displaced
    with pytest.raises(StoreError, match="already champion"):
        promote(store, a, "ann")


def test_whoever_takes_a_champions_place_is_on_probation_against_it(store):
    a, other = model(1), model(9)
    b = against(2, a)
    promote(store, a, "ann")
    assert store.aliases() == {Alias.CHAMPION: a.name}  # it displaced nobody
    challenge(store, other, "ann")
    promote(store, b, "ann")
    assert store.aliases() == {Alias.CHAMPION: b.name, Alias.CHALLENGER: a.name}  # the challenger of before gives way
    assert reinstate(store, "night", "better").action == "rollback"
    assert store.aliases() == {Alias.CHAMPION: a.name}
    promote(store, against(3, a), "ann")
    rollback(store, "ann", "")
    move = reinstate(store, "night", "better")  # against the person who took it back
    assert (move.action, move.model) == ("promote", model(3, judged=against(3, a).gates).name)
    assert store.aliases() == {Alias.CHAMPION: move.model}
    assert rollback(store, "ann", "").model == a.name


def test_nobody_is_reinstated_who_never_was_champion(store):
    with pytest.raises(StoreError, match="no previous champion to reinstate"):
        reinstate(store, "night", "")
    promote(store, model(1), "ann")
    challenge(store, model(2), "ann")
    with pytest.raises(StoreError, match="no previous champion to reinstate"):
        reinstate(store, "night", "")


@pytest.mark.parametrize(
    ("judged", "fault"),
    [
        (gates(passed=False), "gate:psr"),
        (gates(suspect=True), "evidence:seeds"),
        (gates(measured=False), "gate:pbo"),
    ],
)
def test_shut_gates_promote_nothing_without_force_and_a_reason(tmp_path, judged, fault):
    store, weak = FileModels(tmp_path), model(judged=judged)
    assert faults_of(weak) == [fault]
    with pytest.raises(StoreError, match=f"may not be promoted: {fault}"):
        promote(store, weak, "ann")
    with pytest.raises(StoreError, match="needs --reason"):
        promote(store, weak, "ann", force=True, reason="  ")
    assert store.models() == ()
    move = promote(store, weak, "ann", force=True, reason="paper account")
    assert (move.forced, move.evidence["faults"]) == (True, [fault])


def test_what_was_tried_after_the_run_was_judged_counts_against_it(tmp_path):
    """Judged early, tried on for long, and then the lucky early one is picked."""
    registry, early = TrialRegistry(tmp_path), model()
    span = (date(2021, 1, 4), date(2022, 1, 3))
    trials = [make_trial(TrialKind.SEARCH, number, "exchange", ("B",), span, "run") for number in range(10)]
    registry.record([*trials, make_trial(TrialKind.SETTINGS, "s", "exchange", ("B",), span, "run")])
    since = tried_since(early, registry)
    assert since == 10 - early.gates.trials.n_trials == 7
    with pytest.raises(StoreError, match="trials-since:7"):
        promote(FileModels(tmp_path), early, "ann", since=since)
    assert tried_since(model(symbols=("Z",)), registry) == 0


def test_a_promotion_needs_gates_that_held_it_against_the_champion_of_now(tmp_path):
    store, first = FileModels(tmp_path), model(1)
    promote(store, first, "ann")
    with pytest.raises(StoreError, match=f"champion-since:{first.name}"):
        promote(store, model(2), "ann")  # judged before there was a champion
    with pytest.raises(StoreError, match="gate:spa-champion"):
        promote(store, against(2, first, passed=False), "ann")
    with pytest.raises(StoreError, match=f"champion-since:{first.name}"):
        promote(store, against(2, model(3)), "ann")  # held against another
    assert not promote(store, against(2, first, passed=False), "night", better_by_night=True).forced
    demote(store, "ann", "")
    assert not promote(store, against(4, first, passed=False), "ann").forced  # nobody is in charge, so nobody is in the way


def test_the_champions_path_is_paired_session_by_session(tmp_path):
    runs, store = tmp_path / "runs", FileModels(tmp_path / "registry")
    days = np.array(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-08", "2020-01-09"], dtype="datetime64[D]")  # without the 7th
    champion = model(run="one")
    sessions = np.array(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08", "2020-01-09"], dtype="datetime64[D]")
    assert incumbent(store, runs, "exchange", sessions, "x") is None
    promote(store, champion, "ann")
    assert incumbent(store, runs, "exchange", sessions, "x").unknown == "run-gone"
    config, folder = load_config("full"), runs / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_yaml(config))
    bars = BarsFacts(timeframe="1D", calendar="NYSE", sessions_per_year=252.0, zone="UTC", label="start", instruments=(), notes=())
    write_manifest(manifest_of(bars=bars), folder)
    stamps = pd.to_datetime(days).tz_localize("UTC") + pd.Timedelta(hours=5)
    pd.DataFrame({"strategy": "vote", "timestamp": stamps, "equity": [100.0, 110.0, 99.0, 99.0, 198.0]}).to_parquet(
        folder / "equity.parquet"
    )
    found = incumbent(store, runs, "exchange", sessions, settings_digest(config))
    np.testing.assert_allclose(found.returns, [np.nan, 0.1, -0.1, np.nan, np.nan, 1.0])
    assert (found.model, found.slug, found.same_settings, found.unknown) == (champion.name, "vote", True, "")
    assert not incumbent(store, runs, "exchange", sessions, "x").same_settings
    assert incumbent(store, runs, "a simulation", sessions, "x").unknown == "other-history"


def test_a_shortened_run_cannot_even_be_forced(tmp_path):
    with pytest.raises(StoreError, match="shortened run"):
        promote(FileModels(tmp_path), model(reduced=True), "ann", force=True, reason="please")


def test_a_run_that_nobody_judged_is_not_promoted(tmp_path):
    nobody = model().model_copy(update={"gates": None})
    with pytest.raises(StoreError, match="not-judged"):
        promote(FileModels(tmp_path), nobody, "ann")


def test_a_torn_move_is_passed_over_and_two_at_once_do_not_both_win(tmp_path):
    store = FileModels(tmp_path)
    promote(store, model(1), "ann")
    with (tmp_path / "moves.jsonl").open("ab") as file:
        file.write(b'{"at": "half')
    assert len(store.history()) == 1
    promote(store, against(2, model(1)), "ann")
    assert [each.model for each in store.history()] == [model(1).name, model(2).name, model(1).name]
    late = store.history()[1].model_copy(update={"before": model(1).name, "model": model(1).name})
    with pytest.raises(StoreError, match=r"is now .* and not"):
        store.move(late)


def test_the_same_run_is_the_same_model_and_other_weights_are_another():
    assert model(1).name == model(1, run="elsewhere").name
    assert model(1).name != model(1, members={"policy 0 0": "f" * 64}).name
    assert model(1).name != model(1, code="other").name


def test_nights_are_taken_together_and_must_be_the_same():
    rng = np.random.default_rng(0)
    champion = rng.standard_normal(500) * 0.01
    better, same = champion + 0.002 + rng.standard_normal(500) * 0.005, champion + rng.standard_normal(500) * 0.005
    assert nightly_decision(champion, better).decided_after is not None
    assert nightly_decision(better, champion).decided_after is None  # seen from the champion's side nothing speaks for a change
    assert nightly_decision(champion, same).decided_after is None
    with pytest.raises(StoreError, match="same nights"):
        nightly_decision(champion, better[:-1])


def test_a_new_champion_is_watched_for_a_quarter(tmp_path):
    store = FileModels(tmp_path)
    assert not on_probation(store, 0)
    promote(store, model(), "ann")
    assert on_probation(store, PROBATION_SESSIONS - 1)
    assert not on_probation(store, PROBATION_SESSIONS)


def test_a_folder_whose_policy_was_exchanged_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match=r"metrics\.json"):
        model_of(tmp_path)


def command(home: Path, *words: str):
    result = CliRunner().invoke(app, ["models", *words, "--json"], env={"PLOUTOS_HOME": str(home)})
    return result.exit_code, json.loads(result.stdout)


def test_the_command_lists_shows_promotes_and_rolls_back(tmp_path):
    store = FileModels(tmp_path / "registry")
    first, second = model(1), model(2, judged=gates(passed=False))
    for each in (first, second):
        store.add(each)
    assert command(tmp_path, "list")[1]["aliases"] == {}
    assert command(tmp_path, "promote", first.name, "--by", "ann")[0] == 0
    code, said = command(tmp_path, "promote", second.name)
    assert (code, said["ok"]) == (1, False)
    assert "gate:psr" in said["message"]
    assert command(tmp_path, "promote", second.name, "--force", "--reason", "trial")[1]["forced"]
    assert command(tmp_path, "show", "champion")[1]["faults"] == ["gate:psr"]
    assert command(tmp_path, "show", first.name)[1]["faults"] == [f"champion-since:{second.name}"]
    back = command(tmp_path, "rollback", "--reason", "no good")[1]
    assert (back["model"], back["challenger"]) == (first.name, second.name)
    assert command(tmp_path, "dismiss", "--reason", "it is broken")[1]["before"] == second.name
    assert command(tmp_path, "dismiss")[0] == 1
    listed = command(tmp_path, "list")[1]
    assert listed["aliases"] == {"champion": first.name}
    assert [move["action"] for move in listed["moves"]] == ["promote", "promote", "challenge", "rollback", "challenge", "dismiss"]
    assert command(tmp_path, "show", "nobody")[0] == 1
