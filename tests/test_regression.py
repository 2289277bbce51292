"""Supervised deciders: they find what is planted, know training rows alone, and travel as plain arrays."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import oracle_capture
from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.features.scaling import fit_scaler
from ploutos.market.bars import FIELDS, Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load, synthetic_spec
from ploutos.market.synthetic.planted import LAG
from ploutos.strategies.base import Role, StrategyId
from ploutos.strategies.check import check_strategy
from ploutos.strategies.oracles import oracle
from ploutos.strategies.regression import (
    Regression,
    _inner_slices,
    _training_rows,
    _tree_arrays,
    fit_regression,
    load_regression,
    regression_strategy,
    save_regression,
)
from ploutos.strategies.spec import RegressionKind, RegressionSpec
from ploutos.walk_forward import Fold, FoldSpec, Range, plan_folds

ENV, FEATURES = EnvSpec(), FeatureSpec(include=("log_return_1", "body", "close_location", "volatility_20", "volume_ratio_20"))
SMALL = RegressionSpec(penalties=(1e-3, 1e-1), max_trees=30, bands=(0.0, 0.5, 1.0))
KINDS: tuple[RegressionKind, ...] = ("logistic", "ridge", "trees", "lasso", "lagged")


@lru_cache(maxsize=4)
def market(scenario: str = "planted", strength: float = 4.0) -> tuple[DataSpec, Bars, FeatureSet, tuple[Fold, ...]]:
    settings = {"scenario": scenario, "strength": strength}
    data = DataSpec(source="synthetic", symbols=("AAPL", "MSFT"), timeframe="1D", start="2019-01-02", end="2024-12-31", synthetic=settings)
    bars = load(data)
    features = build_features(bars, FEATURES)
    return data, bars, features, plan_folds(bars, features, FoldSpec(train_years=3))


@lru_cache(maxsize=8)
def fitted(kind: RegressionKind) -> Regression:
    _, bars, features, folds = market()
    return fit_regression(bars, features, folds[0], ENV, SMALL, kind)


def test_they_find_what_is_planted():
    data, bars, features, folds = market()
    models = [[fit_regression(bars, features, fold, ENV, SMALL, kind) for fold in folds] for kind in KINDS]
    strategies = [regression_strategy(bars, features, folds, each, ENV) for each in models]
    assert [strategy.ids for strategy in strategies] == [(StrategyId(kind, Role.REGRESSION),) for kind in KINDS]
    best = oracle(bars, synthetic_spec(data), ENV)
    result = run_backtests(bars, None, [Segment(fold.test) for fold in folds], [*strategies, best], ENV, keep=())
    shares = {kind: oracle_capture(result, kind) for kind in KINDS}
    assert min(shares.values()) > 0.6
    assert shares["trees"] > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_the_same_whatever_happens_after_its_training_range(kind, tmp_path):
    _, bars, _, folds = market()
    stop, factor = folds[0].train.stop, np.ones((bars.n_bars, 1))
    factor[stop:] = np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.1, (bars.n_bars - stop, 1)), axis=0))
    other = replace(bars, **{name: getattr(bars, name) * factor for name in FIELDS})
    again = fit_regression(other, build_features(other, FEATURES), folds[0], ENV, SMALL, kind)
    for name, model in (("a", fitted(kind)), ("b", again)):
        save_regression(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_and_tells_the_same_to_the_last_bit(kind, tmp_path):
    _, _, features, _ = market()
    model = fitted(kind)
    save_regression(model, tmp_path / "model.npz")
    read = load_regression(tmp_path / "model.npz")
    assert (read.kind, read.names, read.band, read.choices) == (model.kind, model.names, model.band, model.choices)
    np.testing.assert_array_equal(read.scores(features.values), model.scores(features.values))
    np.testing.assert_array_equal(model.told(features, slice(700, 703)), model.told(features, slice(0, 703))[700:])


@pytest.mark.parametrize("kind", KINDS)
def test_they_keep_the_contract_of_a_strategy(kind):
    _, bars, _, folds = market()
    test = Range(start=folds[0].test.start, stop=folds[0].test.start + 60)

    def build(some: Bars):
        short = folds[0].model_copy(update={"test": Range(start=test.start, stop=min(test.stop, some.n_bars + 1))})
        return regression_strategy(some, build_features(some, FEATURES), [short], [fitted(kind)], ENV), None

    check_strategy(build, bars, test, ENV)


def test_trees_as_arrays_tell_what_scikit_learn_tells():
    random = np.random.default_rng(2)
    rows = random.normal(size=(600, 4)).astype(np.float32)
    rises = (rows[:, 0] * rows[:, 1] + random.normal(size=600) > 0.3).astype(int)
    trees = HistGradientBoostingClassifier(max_iter=25, max_leaf_nodes=6, min_samples_leaf=10, early_stopping=False).fit(rows, rises)
    model = Regression("trees", ("a",), fit_scaler(rows), _tree_arrays(trees), 0.0, {})
    identity = replace(model.scaler, mean=np.zeros(4), deviation=np.ones(4))
    asked = random.normal(size=(300, 4)).astype(np.float32).clip(-4, 4)
    np.testing.assert_allclose(replace(model, scaler=identity).scores(asked), trees.decision_function(asked), rtol=1e-12, atol=1e-12)


def test_the_logistic_model_is_scikit_learns_on_the_rows_of_all_symbols():
    _, bars, features, folds = market()
    model, train = fitted("logistic"), folds[0].train
    which = slice(train.start - 1, train.stop - 1)
    ready = features.ready[which]
    rows = model.scaler.transform(features.values[which])[ready].astype(np.float64)
    rises = (bars.close[train.start : train.stop] > bars.open[train.start : train.stop])[ready]
    plain = LogisticRegression(C=1 / (model.choices["candidate"] * len(rows)), max_iter=1000).fit(rows, rises)
    np.testing.assert_allclose(model.arrays["coefficients"], plain.coef_[0], rtol=1e-6)


def test_what_earlier_bars_tell_is_found_by_the_one_that_reads_them():
    data, bars, features, folds = market("planted_lagged")
    models = [[fit_regression(bars, features, fold, ENV, SMALL, kind) for fold in folds] for kind in ("logistic", "lagged")]
    strategies = [regression_strategy(bars, features, folds, each, ENV) for each in models]
    best = oracle(bars, synthetic_spec(data), ENV)
    result = run_backtests(bars, None, [Segment(fold.test) for fold in folds], [*strategies, best], ENV, keep=())
    assert oracle_capture(result, "lagged") > 0.8 > 0.3 > oracle_capture(result, "logistic")
    names, lagged = features.names, models[1][0]
    largest = int(np.argmax(np.abs(lagged.arrays["coefficients"])))
    assert (names[lagged.arrays["column"][largest]], lagged.arrays["lag"][largest]) == ("volume_ratio_20", LAG - 1)
    assert lagged.reach < SMALL.lags


def test_a_model_does_not_care_for_the_order_of_symbols():
    _, bars, _, folds = market()
    turned = replace(
        bars, symbols=bars.symbols[::-1], instruments=bars.instruments[::-1], **{name: getattr(bars, name)[:, ::-1] for name in FIELDS}
    )
    again = fit_regression(turned, build_features(turned, FEATURES), folds[0], ENV, SMALL, "logistic")
    np.testing.assert_allclose(again.arrays["coefficients"], fitted("logistic").arrays["coefficients"], rtol=1e-4, atol=1e-6)
    assert again.choices["band"] == fitted("logistic").choices["band"]


def test_dearer_trading_never_narrows_the_band():
    _, bars, features, folds = market("planted_slow", 3.0)
    spec = SMALL.model_copy(update={"bands": (0.0, 0.25, 0.5, 1.0, 2.0)})
    bands = [
        fit_regression(
            bars, features, folds[0], EnvSpec(costs=CostSpec(commission_bps=0, slippage_bps=bps)), spec, "logistic"
        ).choices["band"]
        for bps in (0, 40, 300)
    ]  # fmt: skip
    assert bands[0] <= bands[1] <= bands[2]
    assert bands[0] < bands[2]


def test_inner_slices_are_told_by_rows_that_are_kept_apart():
    _, bars, features, folds = market()
    spec = SMALL.model_copy(update={"horizon_bars": 3})
    rows = _training_rows(bars, features, (folds[0].train,), 3)
    assert rows.bar.max() + 3 == folds[0].train.stop - 1  # the last return is known within the range
    slices = _inner_slices(rows, folds[0].validation.start - folds[0].train.stop, spec)
    assert np.array_equal(sum(inside.astype(int) for inside, _ in slices), np.ones(len(rows.bar), int))
    gap = folds[0].validation.start - folds[0].train.stop + 3
    for inside, outside in slices:
        assert np.abs(rows.bar[inside][:, None] - rows.bar[outside][None, :]).min() >= gap


def test_a_range_with_nothing_to_learn_from_is_refused_in_a_sentence():
    _, bars, features, folds = market()
    tiny = folds[0].model_copy(update={"train": Range(start=200, stop=210)})
    with pytest.raises(DataError, match=r"found 20 training rows, \d+ with a rise; expected at least 50, rises and falls among them"):
        fit_regression(bars, features, tiny, ENV, SMALL, "logistic")
    with pytest.raises(DataError, match="the logistic model reads log_return_1"):
        regression_strategy(bars, replace(features, names=("other",)), folds[:1], [fitted("logistic")], ENV)
