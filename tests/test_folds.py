"""The planner: dates one can check on a calendar, and no fold that sees its own future."""

from itertools import pairwise

import numpy as np
import pytest

from ploutos.errors import HistoryError
from ploutos.features.build import FeatureSpec, build_features
from ploutos.walk_forward import FoldSpec, data_digest, fold_table, plan_folds, read_folds, with_bar_to_come, write_folds


@pytest.fixture(scope="module")
def features(sample_bars):
    return build_features(sample_bars, FeatureSpec())


def test_the_sample_holds_seven_folds_whose_tests_are_stitched_without_a_hole(sample_bars, features):
    folds = plan_folds(sample_bars, features, FoldSpec())
    assert len(folds) == 7
    assert folds[0].train.start == features.warmup_bars == 100
    assert all(before.test.stop == after.test.start for before, after in pairwise(folds))
    for fold in folds:
        assert fold.train.stop + 6 == fold.validation.start  # purge 1 + embargo 5
        assert fold.validation.stop + 6 == fold.test.start
        years = (sample_bars.timestamps[fold.train.stop] - sample_bars.timestamps[fold.train.start]) / np.timedelta64(1, "D") / 365.25
        assert years >= 4.99 + fold.index  # anchored: grows by a year per fold
    rows = fold_table(folds, sample_bars.timestamps)
    assert rows[0]["test"].startswith("2006-02-09")
    assert rows[-1]["test"].split(" .. ")[1].startswith("2013-02-08")


def test_rolling_folds_keep_their_length(sample_bars, features):
    folds = plan_folds(sample_bars, features, FoldSpec(scheme="rolling"))
    lengths = [fold.train.n_bars for fold in folds]
    assert max(lengths) - min(lengths) <= 5


def test_a_short_last_test_range_is_kept_when_long_enough(sample_bars, features):
    folds = plan_folds(sample_bars, features, FoldSpec(test_months=36))
    assert [fold.test.n_bars for fold in folds] == [756, 755, 265]
    assert len(plan_folds(sample_bars, features, FoldSpec(test_months=36, min_test_months=18))) == 2


def test_too_little_history_says_how_many_years_are_missing(sample_bars):
    short = sample_bars.head(1000)
    with pytest.raises(HistoryError, match=r"found 4\.0 years .* expected 6\.2 .* 2\.2 years are missing"):
        plan_folds(short, build_features(short, FeatureSpec()), FoldSpec())
    tiny = sample_bars.head(50)
    with pytest.raises(HistoryError, match="warm-up"):
        plan_folds(tiny, build_features(tiny, FeatureSpec()), FoldSpec())


def test_a_longer_history_leaves_earlier_folds_and_their_digests_as_they_were(sample_bars, features):
    """This is what lets a nightly run find yesterday's policies in the cache."""
    shorter = sample_bars.head(2900)
    before = plan_folds(shorter, build_features(shorter, FeatureSpec()), FoldSpec())
    after = plan_folds(sample_bars, features, FoldSpec())
    for old, new in zip(before[:-1], after, strict=False):
        assert old == new


def test_the_digest_sees_every_value_before_its_bar_and_none_after(panel, panel_features):
    from dataclasses import replace

    base = data_digest(panel, panel_features, 300)
    for bar, same in ((299, False), (300, True)):
        close = panel.open.copy()
        close[bar] *= 1.01
        assert (data_digest(replace(panel, open=close), panel_features, 300) == base) is same


def test_a_live_plan_reaches_over_the_bar_to_come_and_is_else_as_it_was(sample_bars, features):
    folds = plan_folds(sample_bars, features, FoldSpec())
    live = with_bar_to_come(folds, sample_bars.n_bars)
    assert live[:-1] == folds[:-1]
    assert live[-1].test == folds[-1].test.model_copy(update={"stop": sample_bars.n_bars + 1})
    assert live[-1].model_copy(update={"test": folds[-1].test}) == folds[-1]


def test_a_plan_survives_its_file(sample_bars, features, tmp_path):
    folds = plan_folds(sample_bars, features, FoldSpec())
    write_folds(folds, tmp_path / "folds.json")
    assert read_folds(tmp_path / "folds.json") == folds
