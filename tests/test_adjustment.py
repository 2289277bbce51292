"""Adjustment: the traded value stays what it was, and an adj_close that would lose a symbol is refused in one sentence."""

import numpy as np
import pandas as pd
import pytest

from ploutos.errors import DataError
from ploutos.market.adjustment import adjust
from ploutos.market.quality import check_bars, inspect_adjustment


def raw(**adj_close):
    """Five daily bars per symbol, closes 10 to 14, and their adj_close."""
    days = pd.date_range("2024-01-02", periods=5, tz="UTC", unit="us")
    close = np.arange(10.0, 15.0)
    prices = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": 100.0}
    parts = [pd.DataFrame({"symbol": name, "timestamp": days, **prices}).assign(adj_close=values) for name, values in adj_close.items()]
    return pd.concat(parts, ignore_index=True)


RIGHT = [5.0, 5.5, 6.0, 13.0, 14.0]


def test_every_price_of_a_bar_is_multiplied_and_its_volume_divided_by_its_own_factor():
    frame = raw(A=RIGHT)
    adjusted = adjust(frame, "test")
    assert adjusted["adjustment"].tolist() == [0.5, 0.5, 0.5, 1.0, 1.0]
    assert adjusted["high"].tolist() == [5.5, 6.0, 6.5, 14.0, 15.0]
    assert adjusted["volume"].tolist() == [200.0, 200.0, 200.0, 100.0, 100.0]
    assert adjusted["close"].tolist() == RIGHT
    assert "adj_close" not in adjusted.columns
    assert frame["close"].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0]
    check_bars(adjusted, "test")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([np.nan] * 5, "no adj_close in any of its 5 rows, first at 2024-01-02"),
        ([5.0, np.nan, np.nan, 13.0, 14.0], "no adj_close in 2 of its 5 rows, first at 2024-01-03"),
        ([5.0, 5.5, 6.0, 0.0, 14.0], "an adj_close of 0 in 1 of its 5 rows, first at 2024-01-05"),
        ([-5.0, 5.5, 6.0, 13.0, 14.0], "an adj_close of -5 in 1 of its 5 rows, first at 2024-01-02"),
        ([5.0, np.inf, 6.0, 13.0, np.nan], "an infinite adj_close or another unusable one in 2 of its 5 rows, first at 2024-01-03"),
        (pd.array([5, None, 6, 13, 14], dtype="Int64"), "no adj_close in 1 of its 5 rows, first at 2024-01-03"),
    ],
)
def test_an_adj_close_that_is_no_price_is_refused(wrong, words):
    with pytest.raises(DataError, match=rf"^mine: META has {words}.*its prices would vanish;.*set data\.adjustment=raw") as caught:
        adjust(raw(AAPL=RIGHT, META=wrong), "mine")
    assert "\n" not in str(caught.value)


def test_other_symbols_with_the_same_fault_are_counted():
    with pytest.raises(DataError, match=r"^mine: B has no adj_close in any of its 5 rows.* \(1 more symbols have such rows\)$"):
        adjust(raw(A=RIGHT, B=[np.nan] * 5, C=[0.0] * 5), "mine")


@pytest.mark.parametrize("close", [np.nan, 0.0, -1.0])
def test_a_close_that_is_no_price_is_left_for_the_check_to_name(close):
    frame = raw(A=RIGHT)
    frame.loc[2, ["close", "adj_close"]] = close
    adjusted = adjust(frame, "test")
    assert adjusted["adjustment"].tolist() == [0.5, 0.5, 1.0, 1.0, 1.0]
    with pytest.raises(
        DataError, match=r"test has 1 (missing or infinite value in close|close price of zero or less), first A at 2024-01-04"
    ):
        check_bars(adjusted, "test")


@pytest.mark.parametrize(("factor", "check"), [(np.r_[np.full(150, 100.0), np.ones(150)], "adjustment_jumps"), (None, "adjustment_stale")])
def test_an_adjusted_close_that_makes_prices_false_is_an_error(factor, check):
    close = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, 300)))
    frame = pd.DataFrame({"symbol": "A", "timestamp": pd.date_range("2020-01-01", periods=300, freq="D", tz="UTC").as_unit("us")})
    frame = frame.assign(open=close, high=close, low=close, close=close, volume=1.0, adj_close=50.0 if factor is None else close * factor)
    (found,) = [finding for finding in inspect_adjustment(adjust(frame, "files")) if finding.check == check]
    assert found.severity == "error"
