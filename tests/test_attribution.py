"""Growth split into parts: they add up on every market, and each is what it says on markets worked out by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import random_panel, session_panel
from plain_ledger import PlainAccount
from test_ledger import COSTS, random_orders, troubled

from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.attribution import Ablations, attribute
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.replay import replay_accounts
from ploutos.market.bars import align
from ploutos.reporting.growth import ablation_sentences, lead_sentence, shown_parts, waterfall
from ploutos.strategies import baselines
from ploutos.strategies.base import PrecomputedTargets
from ploutos.walk_forward import Fold, Range

FREE = CostSpec(commission_bps=0, slippage_bps=0)
COST_PARTS = ("commission", "spread", "slippage", "impact", "borrow")


def decided(bars, env, **tables):
    """A backtest of tables of targets over all bars."""
    strategies = [PrecomputedTargets(slug, table) for slug, table in tables.items()]
    return run_backtests(bars, None, [Segment(Range(start=1, stop=bars.n_bars))], strategies, env)


def folds_at(bars, *starts):
    edges, nothing = [1, *starts, bars.n_bars], Range(start=0, stop=0)
    tests = [Range(start=a, stop=b) for a, b in pairwise(edges)]
    return [Fold(index=k, train=nothing, validation=nothing, test=test, warmup_bars=0, data_sha256="") for k, test in enumerate(tests)]


def total(growths):
    return sum(growth.total for growth in growths)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), costs=COSTS, allow_short=st.booleans(), gross=st.sampled_from([0.5, 1.0, 4.0, 20.0]),
    participation=st.none() | st.floats(0.001, 1), stop=st.none() | st.floats(0.005, 0.2), margin=st.booleans(), flat=st.booleans(),
    cash=st.sampled_from([5_000.0, 100_000.0, 10_000_000.0]), ruin=st.sampled_from([0.0, 0.1]), trouble=st.booleans(),
)  # fmt: skip
def test_the_parts_add_up_to_the_growth_whatever_happens(
    seed, costs, allow_short, gross, participation, stop, margin, flat, cash, ruin, trouble
):
    """Shares and a future in lots, shorts, stops, margin, halts, a delisting, prices below zero, bankrupt accounts: under a cent."""
    bars = troubled(session_panel(seed % 5)) if trouble else session_panel(seed % 5)
    env = EnvSpec(
        initial_cash=cash, allow_short=allow_short, gross_limit=gross, max_participation=participation, stop_loss=stop,
        margin_calls=margin, flat_by_session_end=flat, rebalance_band=0.0, ruin_fraction=ruin, costs=costs,
    )  # fmt: skip
    orders = [np.vstack([random_orders(seed + k, bars.n_bars, 3, env), np.full((1, 3), np.nan)]) for k in range(3)]
    result = decided(bars, env, own=orders[0], blank=orders[1], free=orders[2])
    found = attribute(bars, result, "own", env, folds_at(bars, 40, 90), Ablations("blank", "free"))
    assert abs(found.residual) < 0.01
    assert found.growth.total == pytest.approx(result.equity[0, -1] - cash, abs=0.01)
    assert total(found.by_symbol.values()) + found.growth.written_off == pytest.approx(found.growth.total, abs=0.01)
    assert total(found.by_side.values()) + found.growth.written_off == pytest.approx(found.growth.total, abs=0.01)
    assert total(found.by_fold.values()) == pytest.approx(found.growth.total, abs=0.01)
    fold_equity = result.equity[0, [0, 39, 89, -1]]
    np.testing.assert_allclose([g.total for g in found.by_fold.values()], np.diff(fold_equity), atol=0.01)
    for cost in ("commission", "impact", "borrow"):
        assert getattr(found.growth, cost) == pytest.approx(-getattr(result, cost)[0, -1], abs=0.01)
    assert found.growth.spread + found.growth.slippage == pytest.approx(-result.slippage[0, -1], abs=0.01)
    assert found.growth.written_off == pytest.approx(result.written_off[0, -1], abs=0.01)
    assert found.of_advice.total == pytest.approx(found.growth.advice, abs=0.01)
    assert found.of_vetoes.total == pytest.approx(found.growth.vetoes, abs=0.01)


def test_what_that_property_covers_happens():
    """Ruin with a loss beyond all, a payout, a stop within a bar and a borrow fee all occur among such accounts."""
    env = EnvSpec(
        initial_cash=5_000, allow_short=True, gross_limit=20, rebalance_band=0, ruin_fraction=0,
        costs=CostSpec(slippage_bps=50, borrow_per_year=0.1),
    )  # fmt: skip
    written_off, stops = 0.0, 0.0
    for seed in range(4):
        bars = troubled(session_panel(seed))
        orders = np.vstack([random_orders(seed, bars.n_bars, 3, env), np.full((1, 3), np.nan)])
        written_off += attribute(bars, decided(bars, env, own=orders), "own", env).growth.written_off
        calm = env.model_copy(update={"gross_limit": 1.0, "stop_loss": 0.01})
        growth = attribute(bars, decided(bars, calm, own=orders / 20), "own", calm).growth
        stops += abs(growth.stops)
        assert growth.borrow < 0
    assert written_off > 100
    assert stops > 10


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_each_symbol_s_part_is_what_its_own_trades_say(seed):
    """Cash in and out of a symbol and what is held of it at the end, from the plain ledger's fills: its growth, symbol by symbol."""
    bars = session_panel(seed % 5)
    env = EnvSpec(initial_cash=100_000, allow_short=True, rebalance_band=0.0, stop_loss=0.01, costs=CostSpec(impact=0.1, half_spread_bps=3))
    orders = np.vstack([random_orders(seed, bars.n_bars, 3, env), np.full((1, 3), np.nan)])
    found = attribute(bars, decided(bars, env, own=orders), "own", env)
    plain, cash, worth = PlainAccount(bars, env), np.zeros(3), [spec.multiplier for spec in bars.instruments]
    fees = np.zeros(3)
    for t in range(bars.n_bars - 1):
        plain.step(t, orders[t])
        for j, units, price, _ in plain.fills:
            spec = bars.instruments[j]
            cash[j] -= units * price * worth[j]
            rate = env.costs.commission_bps / 1e4 if spec.costs_in_bps else 0.0
            fees[j] += abs(units) * (spec.commission_per_unit + rate * price * worth[j])
    held = np.array(plain.units) * np.nan_to_num(bars.mark[-1]) * worth
    for j, symbol in enumerate(bars.symbols):
        growth = found.by_symbol[symbol]
        assert growth.total == pytest.approx(cash[j] + held[j] - fees[j], abs=0.01)
        assert growth.commission == pytest.approx(-fees[j], abs=0.01)


def two_symbols(a, b):
    """Daily bars that open where the last one closed."""
    days, frames = pd.date_range("2024-01-01", periods=len(a), tz="UTC"), []
    for symbol, close in (("A", a), ("B", b)):
        close = np.array(close, dtype=float)
        open_ = np.r_[close[0], close[:-1]]
        columns = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close, "volume": 1.0}
        frames.append(pd.DataFrame({"symbol": symbol, "timestamp": days, **columns}))
    return align(pd.concat(frames), pd.Timedelta(days=1), "24/7", "two symbols")


def test_an_account_that_holds_half_of_the_market_shows_market_exposure_alone():
    bars = two_symbols([100, 100, 110, 99, 108.9], [50, 50, 55, 49.5, 54.45])  # both +10 %, -10 %, +10 %
    env = EnvSpec(initial_cash=1000, rebalance_band=0, costs=FREE)
    held = np.full((5, 2), 0.25)
    growth = attribute(bars, decided(bars, env, half=held), "half", env).growth
    path = [1000, 1000 * 1.05, 1000 * 1.05 * 0.95, 1000 * 1.05 * 0.95 * 1.05]
    assert growth.total == pytest.approx(path[-1] - 1000)
    assert growth.selection == pytest.approx(0, abs=1e-9)
    # bought at the first open: its mean share of equity is not a half on the leg before that
    assert growth.market + growth.timing == pytest.approx(growth.total)
    assert abs(growth.timing) < 0.15 * abs(growth.market)


def test_picking_the_better_symbol_is_selection_and_being_out_of_a_fall_is_timing():
    bars = two_symbols([100, 100, 110, 121, 133.1], [100, 100, 100, 100, 100])  # A +10 % a bar, B nothing: the market +5 %
    env = EnvSpec(initial_cash=1000, rebalance_band=0, costs=FREE)
    picks = np.tile([1.0, 0.0], (5, 1))
    growth = attribute(bars, decided(bars, env, picks=picks), "picks", env).growth
    assert growth.total == pytest.approx(331)
    assert growth.selection == pytest.approx(0.05 * (1000 + 1100 + 1210))  # ahead of the market by 5 % of equity, thrice

    fall = two_symbols([100, 100, 110, 121, 96.8], [100, 100, 110, 121, 96.8])  # +10 %, +10 %, -20 %
    out = np.array([[0.5, 0.5]] * 3 + [[0.0, 0.0]] * 2)  # sold at the open of the fall's own bar, which is the last close
    growth = attribute(fall, decided(fall, env, out=out), "out", env).growth
    assert growth.total == pytest.approx(210)
    assert growth.selection == pytest.approx(0, abs=1e-9)
    assert growth.timing > 200  # the market ends below where it began


def test_buying_and_holding_is_market_and_selection_without_timing():
    """Gaps, halts, a late listing and a split that nobody adjusted for: all of them move the market, none is timing."""
    bars = random_panel(3, n_bars=500)
    bars = replace(bars, open=np.where(np.arange(500)[:, None] == 1, bars.close[:1], bars.open))  # bought where the first bar closed
    env = EnvSpec(costs=FREE)
    growth = attribute(bars, decided(bars, env, hold=baselines.buy_and_hold(bars, 0, env)), "hold", env).growth
    assert abs(growth.total) > 1000
    assert abs(growth.timing) < 0.01 * abs(growth.total)


def test_the_spread_is_its_share_of_the_slippage():
    bars = session_panel(1)
    env = EnvSpec(initial_cash=1e6, rebalance_band=0, costs=CostSpec(half_spread_bps=3, slippage_bps=1))
    shares = random_orders(5, bars.n_bars, 3, env)
    shares[:, 2] = np.nan  # no futures: they pay ticks
    result = decided(bars, env, own=np.vstack([shares, np.full((1, 3), np.nan)]))
    growth = attribute(bars, result, "own", env).growth
    assert growth.spread == pytest.approx(0.75 * -result.slippage[0, -1])


def test_advice_is_the_difference_from_its_ablation_and_says_how():
    """The ablation holds half; the advice holds all of a market that rises: it earned market exposure, and the page can say so."""
    bars = two_symbols([100, 100, 110, 121, 133.1], [100, 100, 110, 121, 133.1])
    env = EnvSpec(initial_cash=1000, rebalance_band=0, costs=FREE)
    result = decided(bars, env, advised=np.full((5, 2), 0.5), blank=np.full((5, 2), 0.25))
    found = attribute(bars, result, "advised", env, ablations=Ablations("blank"))
    assert found.growth.advice == pytest.approx(331 - 1000 * (1.05**3 - 1))
    assert found.of_advice.market > 0.8 * found.growth.advice
    assert found.growth.vetoes == 0
    assert found.of_vetoes is None
    (sentence,) = ablation_sentences(found, "fused")
    assert sentence == "The advice changed the gross profit of fused by $173 (market exposure $152, timing $21)."
    assert lead_sentence(found, "fused") == "fused earned $331 net of costs; market exposure alone would have made $293."
    steps = waterfall(found.growth, shown_parts([found.growth])).data[0]
    assert list(steps.x) == ["market exposure", "selection", "timing", "advice", "growth"]
    assert sum(steps.y[:-1]) == pytest.approx(331)


def test_decisions_that_do_not_give_the_path_are_refused():
    bars = random_panel(1, n_bars=260)
    env = EnvSpec()
    result = decided(bars, env, own=baselines.random(bars, env, 1))
    other = EnvSpec(costs=CostSpec(commission_bps=2))
    with pytest.raises(DataError, match="the decisions of own do not give the equity that was kept"):
        attribute(bars, result, "own", other)
    kept = run_backtests(
        bars, None, [Segment(Range(start=1, stop=260))], [PrecomputedTargets("own", baselines.random(bars, env, 1))], env, keep=("costs",)
    )
    with pytest.raises(DataError, match="kept no decisions"):
        attribute(bars, kept, "own", env)
    again = replay_accounts(make_market_arrays(bars), result, ["own"], env)
    np.testing.assert_array_equal(again.weights[:, 0], result.weights[0])
