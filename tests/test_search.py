"""The search stays inside the training range, drops what is bad, and repeats."""

from dataclasses import replace
from datetime import date

import numpy as np
import optuna
import pytest
from markets import TINY
from typer.testing import CliRunner

from ploutos.cli import main as cli
from ploutos.config import load_config, make_config
from ploutos.envs.spec import EnvSpec
from ploutos.errors import HistoryError
from ploutos.registry.trials import TrialRegistry
from ploutos.research import hyperparameters as module
from ploutos.research.hyperparameters import Found, SearchSpec, candidate, search
from ploutos.strategies import regression
from ploutos.training.spec import StoppingSpec
from ploutos.walk_forward import Range, inner_split

SPEC = SearchSpec(trials=3, timesteps=512, reports=2)


def run(bars, features, fold, spec=SPEC, **changes):
    return search(bars, features, fold, 6, EnvSpec(episode_bars=60), TINY.model_copy(update=changes), spec, 5)


def test_nothing_after_the_training_range_is_read_and_the_same_seed_finds_the_same(panel, panel_features, panel_fold):
    stop = panel_fold.train.stop
    prices = {}
    for name in ("open", "high", "low", "close", "volume"):
        prices[name] = getattr(panel, name).copy()
        prices[name][stop:] *= 7
    values = panel_features.values.copy()
    values[stop:] = 9
    one = run(panel, panel_features, panel_fold)
    other = run(replace(panel, **prices), replace(panel_features, values=values), panel_fold)
    assert one == other
    assert panel_fold.train.start == one.train.start < one.train.stop == one.validation.start - 6
    assert one.validation.stop == stop
    assert one.score == max(trial.scores[-1] for trial in one.trials)


def test_a_candidate_worse_than_the_median_is_dropped_early(panel, panel_features, panel_fold, monkeypatch):
    """Scores fall from call to call: each is worse than all before it."""
    calls, last = [], {"stopping": StoppingSpec(enabled=False)}

    def falling(*_):
        calls.append(1)
        return -float(len(calls))

    monkeypatch.setattr(module, "score_policy", falling)
    found = run(panel, panel_features, panel_fold, SearchSpec(trials=4, timesteps=512, reports=2, unpruned_trials=2), **last)
    assert [trial.dropped for trial in found.trials] == [False, False, True, True]
    assert [len(trial.scores) for trial in found.trials] == [2, 2, 1, 1]
    assert found.score == -2
    assert found.values == found.trials[0].values
    calls.clear()
    kept = run(panel, panel_features, panel_fold, SearchSpec(trials=2, timesteps=512, reports=2))
    assert [trial.scores for trial in kept.trials] == [(-1, -1), (-3, -3)]  # as a training that stops keeps its best


@pytest.mark.parametrize(
    ("algorithm", "actions"), [("PPO", "discrete"), ("PPO", "weights"), ("MaskablePPO", "discrete"), ("RecurrentPPO", "discrete")]
)
def test_every_algorithm_can_be_searched(panel, panel_features, panel_fold, algorithm, actions):
    short, changes = SearchSpec(trials=1, timesteps=256, reports=1), {"algorithm": algorithm, "actions": actions, "lstm_size": 8}
    found = run(panel, panel_features, panel_fold, short, **changes)
    assert np.isfinite(found.score)


@pytest.mark.parametrize("algorithm", ["PPO", "RecurrentPPO"])
def test_every_candidate_is_a_valid_configuration(algorithm):
    base = load_config("full").training.model_copy(update={"algorithm": algorithm})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for turn in range(60):
        values = candidate(study.ask(), base, kinds=turn >= 30)
        config = make_config({"training": base.model_dump(mode="json") | values})
        assert list(config.training.net_arch) == values["net_arch"]
        assert {"network", "actions", "teacher"} <= set(values) or turn < 30


def test_a_candidate_of_every_kind_is_trained_and_its_teacher_is_kept_apart_by_the_folds_own_gap(
    panel, panel_features, panel_fold, monkeypatch
):
    gaps, fitted = [], regression._fitted

    def watched(bars, features, parts, gap, *more):
        gaps.append(gap)
        return fitted(bars, features, parts, gap, *more)

    monkeypatch.setattr(regression, "_fitted", watched)
    wide = SearchSpec(trials=6, timesteps=128, reports=1, kinds=True, validation_share=0.4)
    found = run(panel, panel_features, panel_fold, wide)
    assert len({(trial.values["network"], trial.values["actions"]) for trial in found.trials}) > 1
    assert len(gaps) == len({trial.values["teacher"] for trial in found.trials}) > 1
    assert set(gaps) == {6}


def test_a_short_training_range_is_one_clear_sentence():
    with pytest.raises(HistoryError, match="60 bars is too short"):
        inner_split(Range(start=0, stop=60), 6, 0.25)


def test_the_command_prints_settings_that_a_run_reads(tmp_path, monkeypatch):
    asked = {}

    def fake(config, trials, timesteps, kinds):
        asked.update(name=config.name, trials=trials, timesteps=timesteps, kinds=kinds)
        return Found({"learning_rate": 1e-4, "net_arch": [64, 64]}, 0.5, (), Range(start=0, stop=1), Range(start=1, stop=2))

    monkeypatch.setattr(cli, "_search", fake)
    out = tmp_path / "best.yaml"
    result = CliRunner().invoke(
        cli.app, ["optimize", "--preset", "demo", "--trials", "3", "--timesteps", "9", "--kinds", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert asked == {"name": "demo", "trials": 3, "timesteps": 9, "kinds": True}
    training = load_config("demo", out).training
    assert (training.learning_rate, training.net_arch) == (1e-4, (64, 64))


@pytest.mark.slow
def test_the_command_searches_the_sample_and_its_candidates_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    settings = ["--set", "training.n_envs=4", "--set", "training.n_steps=32", "--set", "training.batch_size=64"]
    result = CliRunner().invoke(cli.app, ["optimize", "--preset", "demo", "--trials", "1", "--timesteps", "256", *settings])
    assert result.exit_code == 0, result.output
    assert "learning_rate:" in result.output
    [trial] = TrialRegistry(tmp_path / "registry").trials()
    assert (trial.kind, trial.market) == ("search", "exchange")
    assert trial.last < date(2006, 1, 1)  # scored inside the first fold's training range
