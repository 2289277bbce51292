"""What a notebook can rely on: the names of `ploutos`, and that looking at them costs nothing."""

import subprocess
import sys

import numpy as np
import pytest

import ploutos
from ploutos.errors import DataError
from ploutos.features.build import FeatureSpec, build_features
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load_bars

NAMES = [
    "Advisor", "AdvisorStrategy", "Backend", "Backtests", "Bars", "BootstrapSpec", "CostSpec", "DataSpec", "DecisionContext",
    "EnsembleStrategy", "EnvSpec", "FeatureSet", "FeatureSpec", "Fold", "FoldSpec", "FusedStrategy", "FusionSpec", "InstrumentSpec",
    "LLMConfig", "MarketEnv", "MarketVecEnv", "PipelineConfig", "PloutosError", "Policy", "PrecomputedTargets", "Range", "Reply",
    "RewardSpec", "Segment", "Signals", "Strategy", "TrainingSpec", "advise", "backtest_folds", "build_features", "check_strategy",
    "load_bars", "load_config", "load_policy", "make_env", "market_features", "metrics_frame", "plan_folds", "plot_equity",
    "run_backtests", "train_policy",
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
    days = np.datetime_as_string(shipped.timestamps, unit="D")
    rows = [
        f"{day},{o},{high},{low},{c},{v}"
        for day, o, high, low, c, v in zip(
            days, *(getattr(shipped, name)[:, 0] for name in ("open", "high", "low", "close", "volume")), strict=True
        )
    ]
    (tmp_path / "AAPL.csv").write_text("\n".join(["date,open,high,low,close,volume", *rows]))
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


@pytest.mark.parametrize(("name", "shape", "says"), [("body", (700, 3), "there is a feature body already"), ("own", (700,), "expected")])
def test_a_feature_that_does_not_fit_is_refused(panel_features, name, shape, says):
    with pytest.raises(DataError, match=says):
        panel_features.with_column(name, np.zeros(shape))
