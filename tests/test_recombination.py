"""Recombined histories: the splits are skfolio's, the purge holds, and a path is what its models decided."""

from dataclasses import replace
from math import comb

import numpy as np
import pytest
from pydantic import ValidationError
from skfolio.model_selection import CombinatorialPurgedCV

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import periods_of, session_returns, sharpe_ratio
from ploutos.evaluation.recombination import plan_splits, read_recombined, recombine, write_recombined
from ploutos.evaluation.spec import RecombinationSpec
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.regression import decide, fit_on, fit_regression
from ploutos.strategies.spec import RegressionSpec
from ploutos.walk_forward import FoldSpec, Range

REGRESSION = RegressionSpec(bands=(0.0,))
SPEC = RecombinationSpec(groups=3, test_groups=2)
ENV = EnvSpec()


def ranges(*pairs):
    return tuple(Range(start=start, stop=stop) for start, stop in pairs)


def test_the_splits_of_twelve_bars_by_hand():
    found = plan_splits(Range(start=100, stop=112), SPEC, purge=1, embargo=0)
    assert [split.train for split in found] == [ranges((109, 112)), ranges((105, 107)), ranges((100, 103))]
    assert [split.test for split in found] == [
        ranges((100, 104), (104, 108)), ranges((100, 104), (108, 112)), ranges((104, 108), (108, 112))
    ]  # fmt: skip
    assert [split.paths for split in found] == [(0, 0), (1, 0), (1, 1)]
    later = plan_splits(Range(start=100, stop=112), SPEC, purge=1, embargo=1)
    assert [split.train for split in later] == [ranges((110, 112)), ranges((106, 107)), ranges((100, 103))]


@pytest.mark.parametrize(("groups", "test_groups"), [(3, 2), (6, 2), (10, 2), (8, 3)])
def test_paths_are_as_many_as_skfolio_counts_and_each_is_whole(groups, test_groups):
    tested, purge, embargo = Range(start=40, stop=40 + 251), 2, 3
    found = plan_splits(tested, RecombinationSpec(groups=groups, test_groups=test_groups), purge, embargo)
    theirs = CombinatorialPurgedCV(groups, test_groups, purge, embargo)
    assert len(found) == theirs.n_splits == comb(groups, test_groups)
    n_paths = 1 + max(path for split in found for path in split.paths)
    assert n_paths == theirs.n_test_paths == comb(groups, test_groups) * test_groups // groups
    for path in range(n_paths):
        parts = sorted((part.start, part.stop) for split in found for part, to in zip(split.test, split.paths, strict=True) if to == path)
        assert [start for start, _ in parts] == [40, *(stop for _, stop in parts[:-1])]
        assert parts[-1][1] == tested.stop
    for split in found:
        learnt = {bar for part in split.train for bar in range(part.start, part.stop)}
        for part in split.test:
            assert learnt.isdisjoint(range(part.start - purge, part.stop + purge + embargo))


def test_what_happens_in_a_group_that_is_decided_changes_nothing_of_its_model(panel, panel_features):
    """Neither labels nor the account that chooses the band reach into what lies between two parts."""
    parts = ranges((110, 250), (330, 500))
    model = fit_on(panel, panel_features, parts, 6, ENV, RegressionSpec(), "logistic")
    between = (np.arange(panel.n_bars)[:, None] >= 250) & (np.arange(panel.n_bars)[:, None] < 329)  # the account of a part opens after 329
    crash = {name: np.where(between, getattr(panel, name) * 3, getattr(panel, name)) for name in ("open", "high", "low", "close")}
    other = fit_on(replace(panel, **crash), panel_features, parts, 6, ENV, RegressionSpec(), "logistic")
    assert (model.band, model.choices) == (other.band, other.choices)
    np.testing.assert_array_equal(model.arrays["coefficients"], other.arrays["coefficients"])
    inside = {"close": np.where(np.arange(panel.n_bars)[:, None] == 400, panel.open * 0.9, panel.close)}
    touched = replace(panel, **inside)
    third = fit_on(touched, panel_features, parts, 6, ENV, RegressionSpec(), "logistic")
    assert not np.array_equal(model.arrays["coefficients"], third.arrays["coefficients"])  # it would be seen


def test_a_path_is_what_the_models_of_its_groups_decided(panel, panel_features, panel_fold, tmp_path):
    """Three groups of 184 test bars, by hand: the paths take group after group from the splits that decided it."""
    known = fit_regression(panel, panel_features, panel_fold, ENV, REGRESSION, "logistic")
    trees = fit_regression(panel, panel_features, panel_fold, ENV, RegressionSpec(max_trees=10), "trees")
    (found,) = recombine(panel, panel_features, [panel_fold], [known, trees], ENV, REGRESSION, FoldSpec(), SPEC)
    assert (found.slug, found.n_splits, found.purge_bars, found.embargo_bars) == ("logistic", 3, 1, 5)
    a, b, c, d = 506, 567, 628, 690
    as_before = REGRESSION.model_copy(update={"penalties": (known.choices["candidate"],)})
    learnt = [ranges((c + 6, d)), ranges((b + 6, c - 1)), ranges((a, b - 1))]  # for groups 0 and 1, 0 and 2, 1 and 2
    models = [fit_on(panel, panel_features, parts, 6, ENV, as_before, "logistic") for parts in learnt]
    tables = []
    for by in ((0, 0, 1), (1, 2, 2)):
        table = np.full((panel.n_bars, 3), np.nan)
        for split, (start, stop) in zip(by, ((a, b), (b, c), (c, d)), strict=True):
            decided = slice(start - 1, stop - 1)
            table[decided] = decide(panel, panel_features, models[split], ENV, decided)
        tables.append(table)
    own = [PrecomputedTargets(f"p{k}", table) for k, table in enumerate(tables)]
    result = run_backtests(panel, None, [Segment(Range(start=a, stop=d))], own, ENV, keep=())
    periods = periods_of(panel, result)
    assert found.total_return == tuple(path[-1] / path[0] - 1 for path in result.equity)
    assert found.sharpe == tuple(sharpe_ratio(session_returns(path, periods), periods.per_year) for path in result.equity)
    assert found.sharpe[0] != found.sharpe[1]
    write_recombined([found], tmp_path / "found.json")
    assert read_recombined(tmp_path / "found.json") == (found,)


def test_too_few_sessions_and_too_many_splits_are_said(panel, panel_features, panel_fold):
    known = fit_regression(panel, panel_features, panel_fold, ENV, REGRESSION, "ridge")
    assert recombine(panel, panel_features, [panel_fold], [known], ENV, REGRESSION, FoldSpec(), RecombinationSpec()) == ()
    with pytest.raises(ValidationError, match="leaves none of 3 groups to learn from"):
        RecombinationSpec(groups=3, test_groups=3)
    with pytest.raises(ValidationError, match="make 184,756 splits"):
        RecombinationSpec(groups=20, test_groups=10)
