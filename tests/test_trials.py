"""The registry of trials: one line each, once, whatever dies in between; and what was tried on the same bars is found again."""

import json
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from markets import write_policy_file

from ploutos.config import PipelineConfig
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StoreError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.candidates import paths_of, sessions_tested
from ploutos.registry.recording import record_run, record_search
from ploutos.registry.trials import Trial, TrialKind, TrialRegistry, counted, make_trial
from ploutos.strategies.base import PrecomputedTargets, Role
from ploutos.training.policy_meta import Stopping
from ploutos.walk_forward import Range

SPAN = (date(2020, 1, 2), date(2020, 12, 31))
DAYS = np.arange("2020-01-02", "2020-06-01", dtype="datetime64[D]")


def trial(content="a", kind=TrialKind.SETTINGS, market="exchange", symbols=("B", "A"), span=SPAN, **more) -> Trial:
    return make_trial(kind, content, market, symbols, span, "run", **more)


def test_a_trial_counts_once_however_often_it_is_recorded(tmp_path):
    registry = TrialRegistry(tmp_path / "registry")
    assert registry.trials() == ()
    assert registry.record([trial("a"), trial("b"), trial("a")]) == 2
    assert registry.record([trial("b"), trial("c")]) == 1
    before = registry.file.read_bytes()
    assert TrialRegistry(registry.root).record([trial("a")]) == 0
    assert registry.file.read_bytes() == before
    assert len({each.key for each in registry.trials()}) == 3
    assert registry.trials()[0].symbols == ("A", "B")


def test_other_bars_other_kind_other_market_are_other_trials():
    others = [trial(span=(SPAN[0], date(2021, 1, 4))), trial(kind=TrialKind.PROMPT)]
    others += [trial(market="simulated"), trial(symbols=("A",)), trial("b")]
    assert len({each.key for each in [trial(), *others]}) == 6
    assert trial(symbols=("A", "B")).key == trial(symbols=("B", "A")).key


@pytest.mark.parametrize("torn", [b'{"key": "half', b"\x00\x00", b'{"key": "whole but not ended"}'])
def test_a_torn_last_line_is_passed_over_and_repaired(tmp_path, torn):
    registry = TrialRegistry(tmp_path)
    registry.record([trial("a")])
    with registry.file.open("ab") as file:
        file.write(torn)
    assert len(registry.trials()) == 1
    assert registry.record([trial("b")]) == 1
    assert len(registry.trials()) == 2
    assert all(json.loads(line) for line in registry.file.read_text().splitlines())


def test_a_damaged_line_is_an_error_and_never_fewer_trials(tmp_path):
    registry = TrialRegistry(tmp_path)
    registry.record([trial("a"), trial("b")])
    lines = registry.file.read_bytes().splitlines(keepends=True)
    registry.file.write_bytes(lines[0][:40] + b"\n" + lines[1])
    with pytest.raises(StoreError, match=r"line 1 of .* is not a trial; restore it"):
        registry.record([trial("c")])


WRITER = """
import sys
from datetime import date, timedelta
from pathlib import Path
from ploutos.registry.trials import TrialKind, TrialRegistry, make_trial
registry = TrialRegistry(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    content = [sys.argv[2], number]
    registry.record([make_trial(TrialKind.SEARCH, content, "exchange", ["A"], (date(2020, 1, 2), date(2020, 1, 3)), "run")])
    print(number, flush=True)
"""


def writer(root, name, n):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(root), name, str(n)], stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_loses_nothing_it_was_told_is_kept(tmp_path):
    with writer(tmp_path, "killed", 100_000) as process:
        for _ in range(15):
            acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    found = len(TrialRegistry(tmp_path).trials())
    assert found >= acknowledged + 1
    assert TrialRegistry(tmp_path).record([trial("after")]) == 1
    assert len(TrialRegistry(tmp_path).trials()) == found + 1


def test_two_writers_at_once_lose_nothing(tmp_path):
    with writer(tmp_path, "one", 20) as one, writer(tmp_path, "two", 20) as two:
        assert [one.wait(), two.wait()] == [0, 0]
    assert len(TrialRegistry(tmp_path).trials()) == 40


def test_overlapping_means_shared_market_shared_sessions_and_a_shared_symbol(tmp_path):
    registry = TrialRegistry(tmp_path)
    inside = trial("inside", span=(date(2020, 3, 1), date(2020, 3, 31)))
    touching = trial("touching", span=(date(2019, 1, 2), SPAN[0]))
    wider = trial("wider", symbols=("A", "Z"))
    apart = [trial("before", span=(date(2019, 1, 2), date(2020, 1, 1))), trial("market", market="sim"), trial("universe", symbols=("Z",))]
    registry.record([inside, touching, wider, *apart])
    found = registry.overlapping("exchange", ("A", "B"), *SPAN)
    assert {each.key for each in found} == {inside.key, touching.key, wider.key}
    assert [each.key for each in found] == sorted(each.key for each in found)


def test_the_same_procedure_on_a_longer_span_is_no_further_try(tmp_path):
    """A year of nights would else be a year of tries."""
    registry, later = TrialRegistry(tmp_path), (SPAN[0], SPAN[1] + timedelta(days=1))
    for content, span in (("one night", SPAN), ("the next", later)):
        registry.record([trial(content, TrialKind.CANDIDATE, span=span, procedure="p")])
    registry.record([trial("another", TrialKind.CANDIDATE, span=SPAN, procedure="q"), trial("none", TrialKind.CANDIDATE, span=SPAN)])
    found = registry.overlapping("exchange", ("A", "B"), *SPAN)
    assert len(registry.trials()) == 4
    assert counted(found) == 3
    assert {each.last for each in found if each.procedure == "p"} == {later[1]}


def candidate(registry, days, returns, slug="vote"):
    path = registry.keep_path(days, returns)
    span = (days[0].item(), days[-1].item())
    return trial(path, TrialKind.CANDIDATE, span=span, facts={"slug": slug, "path": path})


def test_paths_come_back_on_the_sessions_of_another_run(tmp_path):
    registry, rng = TrialRegistry(tmp_path), np.random.default_rng(0)
    first, second = rng.standard_normal((2, len(DAYS)))
    trials = [candidate(registry, DAYS, first), candidate(registry, DAYS[:100], second[:100])]
    again = candidate(registry, DAYS, first.copy(), slug="fused")
    assert again.key == trials[0].key  # the same path by another name is the same trial
    looks = trial("looks", TrialKind.LOOKS, count=7)
    searched = trial("found", TrialKind.SEARCH)
    registry.record([*trials, again, looks, searched])
    sessions = DAYS[50:] + np.timedelta64(0, "D")
    found = registry.candidates(registry.overlapping("exchange", ("A",), sessions[0].item(), sessions[-1].item()), sessions)
    by_key = dict(zip(found.keys, found.returns.T, strict=True))
    np.testing.assert_array_equal(by_key[trials[0].key], first[50:])
    np.testing.assert_array_equal(by_key[trials[1].key][:50], second[50:100])
    assert np.isnan(by_key[trials[1].key][50:]).all()
    assert found.counts == {"candidate": 2, "looks": 7, "search": 1}
    assert (found.n_trials, found.searched) == (3, 1)  # looks chose for other bars
    assert found.independent() == 3
    paths, days = found.covering(0.8)
    assert paths.shape == (len(sessions), 1)
    assert len(found.covering(0.3)[1]) == 50
    assert len(days) == len(sessions)


def test_a_lost_path_still_counts(tmp_path):
    registry = TrialRegistry(tmp_path)
    trials = [candidate(registry, DAYS, np.random.default_rng(seed).standard_normal(len(DAYS))) for seed in range(3)]
    registry.record(trials)
    [lost, cut, _] = sorted((tmp_path / "paths").glob("*/*.npy"))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:200])
    found = registry.candidates(registry.trials(), DAYS)
    assert (found.n_trials, found.independent(), len(found.keys)) == (3, 3, 1)


def test_a_run_records_its_paths_policies_looks_and_prompt_once(tmp_path, panel, panel_fold):
    env, hold = EnvSpec(), np.full((panel.n_bars, panel.n_symbols), 0.3)
    strategies = [PrecomputedTargets("own", hold), PrecomputedTargets("flat", hold * 0, Role.BASELINE)]
    backtests = run_backtests(panel, None, [Segment(panel_fold.test)], strategies, env)
    stopping = Stopping(validation=Range(start=300, stop=400), looks=9, chosen_timesteps=1, chosen_score=0.0, scores=())
    files = [write_policy_file(tmp_path / "a.zip", stopping=stopping), write_policy_file(tmp_path / "b.zip", seed=2)]
    signals = SimpleNamespace(is_mock=False, model="m", digest="d", template="1", reveal=False)
    registry, config = TrialRegistry(tmp_path / "registry"), PipelineConfig()

    def record(config=config, backtests=backtests):
        return record_run(registry, panel, [panel_fold], backtests, signals, {"policy": [files], "hybrid": []}, config)

    found = record()
    kept = registry.file.read_bytes()
    assert record() == found
    assert record(config.model_copy(update={"name": "other", "out": tmp_path})) == found  # where it is written is not what was tried
    assert registry.file.read_bytes() == kept
    kinds = sorted(trial.kind for trial in registry.trials())
    assert kinds == ["candidate", "looks", "prompt", "settings", "training", "training"]  # cash is nobody's idea
    assert {trial.kind for trial in found} == set(kinds) - {"looks"}  # the held-out bars come before the test
    [looks] = [trial for trial in registry.trials() if trial.kind is TrialKind.LOOKS]
    assert (looks.count, str(looks.first)) == (9, str(panel.sessions[300].astype("datetime64[D]")))
    tried = registry.candidates(found, sessions_tested(panel, backtests))
    np.testing.assert_array_equal(tried.returns[:, 0], paths_of(panel, backtests)["own"])

    other = run_backtests(panel, None, [Segment(panel_fold.test)], [PrecomputedTargets("own", hold / 2)], env)
    again = record(config.model_copy(update={"seed": 1}), other)
    assert registry.candidates(again, sessions_tested(panel, other)).n_trials == 2
    simulated = config.model_copy(update={"data": config.data.model_copy(update={"source": "synthetic"})})
    assert registry.candidates(record(simulated), sessions_tested(panel, backtests)).n_trials == 1  # another history


def test_a_search_that_is_repeated_counts_once_and_counts_where_its_bars_are_tested(tmp_path, panel):
    registry, scored = TrialRegistry(tmp_path), Range(start=300, stop=400)
    tried = [{"gamma": 0.9}, {"gamma": 0.5}]
    assert record_search(registry, panel, scored, tried, {"timesteps": 10}, PipelineConfig()) == 2
    assert record_search(registry, panel, scored, tried, {"timesteps": 10}, PipelineConfig()) == 0
    assert record_search(registry, panel, scored, tried[:1], {"timesteps": 20}, PipelineConfig()) == 1
    days = panel.sessions.astype("datetime64[D]")
    inside = registry.overlapping("exchange", panel.symbols, days[390].item(), days[500].item())
    assert registry.candidates(inside, days[390:500]).n_trials == 3
    assert registry.overlapping("exchange", panel.symbols, days[401].item(), days[500].item()) == ()
