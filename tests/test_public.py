"""What a notebook can rely on: the names of `ploutos`, and that looking at them costs nothing."""

import subprocess
import sys

import numpy as np
import pytest

import ploutos
from ploutos.errors import ConfigError, DataError
from ploutos.features.build import FeatureSpec, build_features
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load_bars

NAMES = [
    "Advisor", "AdvisorStrategy", "Backend", "Backtests", "Bars", "BootstrapSpec", "CostSpec", "DataSpec", "DecisionContext",
    "EnsembleStrategy", "EnvSpec", "FeatureSet", "FeatureSpec", "Fold", "FoldSpec", "FusedStrategy", "FusionSpec", "InstrumentSpec",
    "LLMConfig", "MarketEnv", "MarketVecEnv", "PipelineConfig", "PloutosError", "Policy", "PrecomputedTargets", "Range", "Reply",
    "RewardSpec", "Segment", "Signals", "Strategy", "TrainingSpec", "advise", "backtest_folds", "build_features", "check_strategy",
    "load_bars", "load_config", "load_policy", "make_env", "market_features", "metrics_frame", "plan_folds", "plot_drawdowns",
    "plot_equity", "plot_weights", "run_backtests", "train_policy",
]  # fmt: skip


def test_public_names_are_these_in_order():
    assert ploutos.__all__ == NAMES == sorted(NAMES)
    assert set(NAMES) <= set(dir(ploutos))


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring_and_comes_from_the_module_that_defines_it(name):
    found = getattr(ploutos, name)
    assert found.__doc__
    assert getattr(sys.modules[found.__module__], name) is found


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        ploutos.no_such_name  # noqa: B018


def test_importing_ploutos_loads_nothing_heavy():
    heavy = "numpy", "pandas", "torch", "numba", "prefect"
    code = f"import sys, ploutos, ploutos.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_bars_come_from_a_path_or_from_settings(tmp_path, sample_bars):
    shipped = load_bars()
    np.testing.assert_array_equal(shipped.close, sample_bars.close)
    table = shipped.to_frame()
    assert list(table.columns) == ["symbol", "timestamp", "open", "high", "low", "close", "volume"]
    assert len(table) == shipped.tradable.sum()
    table[table["symbol"] == "AAPL"].drop(columns="symbol").to_csv(tmp_path / "AAPL.csv", index=False)
    np.testing.assert_allclose(load_bars(tmp_path / "AAPL.csv").close[:, 0], shipped.close[:, 0])
    assert load_bars(DataSpec(symbols=("IBM",))).symbols == ("IBM",)


def test_a_feature_of_ones_own_stands_last_and_is_required(panel):
    features = build_features(panel, FeatureSpec(include=("log_return_1", "body")))
    own = np.where(np.arange(panel.n_bars)[:, None] < 300, np.nan, panel.close)
    widened = features.with_column("own", own)
    assert widened.names == (*features.names, "own")
    np.testing.assert_array_equal(widened.values[:, :, -1], own.astype(np.float32))
    assert not widened.ready[:300].any()
    assert widened.ready[300:].any()


def test_a_feature_of_ones_own_stands_before_those_that_are_not_required(panel):
    macro = build_features(panel, FeatureSpec(include=("log_return_1",))).with_column(
        "late", np.full((panel.n_bars, panel.n_symbols), np.nan)
    )
    optional = type(macro)(macro.values, macro.names, macro.timestamps, macro.available_at, macro.symbols, n_required=1)
    widened = optional.with_column("own", panel.close)
    assert widened.names == ("log_return_1", "own", "late")
    assert widened.n_required == 2
    np.testing.assert_array_equal(widened.ready, np.isfinite(optional.values[:, :, 0]) & panel.tradable)


@pytest.mark.parametrize(("name", "shape", "says"), [("body", (700, 3), "feature body already exists"), ("own", (700,), "expected")])
def test_a_feature_that_does_not_fit_is_refused(panel_features, name, shape, says):
    with pytest.raises(DataError, match=says):
        panel_features.with_column(name, np.zeros(shape))


def test_what_a_notebook_prints_is_short(sample_bars, panel, panel_features):
    assert repr(sample_bars) == (
        "Bars(3,270 of AAPL, FB, GOOG, IBM and MSFT, 2000-03-01 to 2013-03-01, sample: 5 US shares, daily, 2000-2013)"
    )
    assert len(repr(panel_features)) < 120
    assert f"{len(panel_features.names)} features of {panel.n_symbols} symbols" in repr(panel_features)


def test_figures_draw_what_accounts_did(sample_bars):
    folds = ploutos.plan_folds(sample_bars, build_features(sample_bars))[-1:]
    result = ploutos.backtest_folds(sample_bars, folds)
    assert repr(result).startswith("Backtests(flat, ")
    depths = {line.name: line.y for line in ploutos.plot_drawdowns(result).data}
    assert tuple(depths) == result.slugs
    own = result.equity[result.row("buy-and-hold")]
    assert depths["buy-and-hold"].min() == pytest.approx(min(own[t] / own[: t + 1].max() for t in range(len(own))) - 1)
    held = ploutos.plot_weights(result, "buy-and-hold").data
    assert [line.name for line in held] == list(sample_bars.symbols)
    assert held[0].y[-1] == result.weights[result.row("buy-and-hold"), -1, 0]


def test_training_takes_single_settings_and_refuses_one_that_is_none(panel, panel_features, panel_fold):
    settings = {"n_envs": 2, "n_steps": 16, "batch_size": 32, "total_timesteps": 32, "teacher": "none"}
    policy = ploutos.train_policy(panel, panel_features, panel_fold, net_arch=(8,), **settings)
    assert (policy.meta.training.net_arch, policy.meta.timesteps) == ((8,), 32)
    with pytest.raises(ConfigError, match="totl_timesteps is not a setting; did you mean total_timesteps"):
        ploutos.train_policy(panel, panel_features, panel_fold, totl_timesteps=32)
