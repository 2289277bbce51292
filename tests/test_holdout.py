"""Bars that no fold touches: nothing of a plan depends on them, and a read of them is remembered."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from light_jobs import read_held_out
from pydantic import ValidationError

from ploutos.config import make_config
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, HistoryError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.fusion.spec import FusionSpec
from ploutos.nightly.config import NightlyConfig
from ploutos.nightly.decision import DecisionInputs
from ploutos.nightly.holdout import read_holdout
from ploutos.registry.trials import TrialKind, TrialRegistry
from ploutos.reporting.nightly_page import holdout_sentences
from ploutos.strategies.ensemble import EnsembleStrategy
from ploutos.walk_forward import FoldSpec, Range, holdout, plan_folds

SPEC = FoldSpec(train_years=1, validation_months=2, test_months=3, min_test_months=1, holdout_months=4)
CONFIG = make_config({"folds": {"holdout_months": 9}, "evaluation": {"replications": 100}, "env": {"episode_bars": 60}})


def test_no_fold_touches_what_is_held_out(panel, panel_features):
    part = holdout(panel, SPEC)
    folds = plan_folds(panel, panel_features, SPEC)
    assert (part.stop, part.n_bars > 60) == (panel.n_bars, True)
    assert folds[-1].test.stop <= part.start
    assert len(plan_folds(panel, panel_features, SPEC.model_copy(update={"holdout_months": 0}))) > len(folds)
    close = panel.close * np.where(np.arange(panel.n_bars)[:, None] >= part.start, 3.0, 1.0)
    other = replace(panel, open=close, high=close, low=close, close=close)
    head = replace(other, **{name: np.where(np.arange(700)[:, None] < part.start, getattr(panel, name), close)
                             for name in ("open", "high", "low", "close")})  # fmt: skip
    assert plan_folds(head, build_features(head, FeatureSpec()), SPEC) == folds


def test_a_plan_that_leaves_nothing_says_how_much_is_missing(panel, panel_features):
    with pytest.raises(HistoryError, match="which leaves"):
        plan_folds(panel, panel_features, SPEC.model_copy(update={"holdout_months": 60}))
    with pytest.raises(HistoryError, match="12 months held out"):
        plan_folds(panel, panel_features, FoldSpec(train_years=2, holdout_months=12))
    with pytest.raises(ValidationError, match="a night decides on the last bar"):
        NightlyConfig(run=CONFIG)


@pytest.fixture
def inputs(panel, panel_features, panel_fold, panel_policies):
    fold = panel_fold.model_copy(update={"test": Range(start=506, stop=510)})
    return DecisionInputs(panel, panel_features, (fold,), CONFIG.env, FusionSpec(), "vote", policies=(panel_policies,))


def test_a_read_is_a_backtest_of_the_last_policies_and_is_remembered(inputs, panel, panel_features, panel_policies, tmp_path):
    registry, part = TrialRegistry(tmp_path), holdout(panel, CONFIG.folds)
    read = read_holdout(inputs, CONFIG, registry)
    env = EnvSpec(episode_bars=60)
    alone = run_backtests(panel, panel_features, [Segment(part, panel_policies)], [EnsembleStrategy(bars=panel, env=env)], env)
    assert read.own.total_return == pytest.approx(alone.equity[0, -1] / alone.equity[0, 0] - 1)
    assert (str(read.first), str(read.last)) == (str(panel.sessions[part.start]), str(panel.sessions[-1]))
    assert (read.read_before, read_holdout(inputs, CONFIG, registry).read_before) == (0, 1)
    again = read_holdout(inputs, CONFIG.model_copy(update={"seed": 7}), registry)
    assert again.read_before == 2
    assert [trial.kind for trial in registry.trials()] == [TrialKind.HOLDOUT] * 3
    assert "the first read is the one that counts" in holdout_sentences(again)[-1]
    assert "was read" not in " ".join(holdout_sentences(read))


def test_a_run_that_holds_out_nothing_is_refused(inputs, tmp_path):
    with pytest.raises(ConfigError, match=r"plan a run with folds\.holdout_months"):
        read_holdout(inputs, make_config({}), TrialRegistry(tmp_path))
    assert TrialRegistry(tmp_path).trials() == ()


def test_two_readers_at_once_count_each_other(tmp_path):
    """Both begin together and read thirty times: no count is given twice, and none is left out."""
    with get_context("spawn").Manager() as manager, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        gate = manager.Barrier(2)
        readers = [pool.submit(read_held_out, tmp_path, 30, gate) for _ in range(2)]
        counts = [reader.result(timeout=120) for reader in readers]
    assert sorted(counts[0] + counts[1]) == list(range(60))
    assert all(each == sorted(each) for each in counts)
    assert len({trial.key for trial in TrialRegistry(tmp_path).trials()}) == 60
