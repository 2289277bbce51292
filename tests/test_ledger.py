"""The ledger: a market worked out by hand, a plain second implementation, and the identity that money obeys."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import random_panel

from ploutos.envs import ledger
from ploutos.envs.spec import CostSpec, EnvSpec, sized_for
from ploutos.errors import ConfigError
from ploutos.market.bars import align
from ploutos.market.specs import FUTURES


def one_symbol(opens, closes, missing=(), instruments=()):
    """Daily bars of one symbol; `missing` positions have no bar, but stay on the clock through a second symbol."""
    days = pd.date_range("2024-01-01", periods=len(opens), tz="UTC")
    frame = pd.DataFrame({"symbol": "A", "timestamp": days, "open": opens, "close": closes, "volume": 1.0})
    frame["high"], frame["low"] = frame[["open", "close"]].max(axis=1), frame[["open", "close"]].min(axis=1)
    clock = frame.assign(symbol="B")
    return align(pd.concat([frame.drop(index=list(missing)), clock]), pd.Timedelta(days=1), "24/7", "by hand", instruments)


def run(bars, targets, spec):
    tape = ledger.make_tape(bars)
    accounts = ledger.Accounts.open(1, bars.n_symbols, spec.cash)
    equity = [spec.cash]
    for t, target in enumerate(targets):
        ledger.step(accounts, np.array([t]), np.array([target], dtype=float), tape, spec)
        equity.append(float(accounts.equity[0]))
    return accounts, equity


def test_a_six_bar_market_worked_out_by_hand():
    opens, closes = [100.0, 102.0, 110.0, 90.0, 95.0, 100.0], [101.0, 108.0, 104.0, 92.0, 99.0, 98.0]
    bars = one_symbol(opens, closes, missing=[3])
    spec = EnvSpec(initial_cash=10_000, rebalance_band=0, costs=CostSpec(commission_bps=10, slippage_bps=20))
    none = np.nan
    accounts, equity = run(bars, [[0.5, none], [none, none], [0.0, none], [0.0, none], [none, none]], spec)

    # bar 0: half of 10,000 at the close of 101; bought at the open of 102, 20 bps worse, 10 bps fee
    units = 0.5 * 10_000 / 101
    bought = units * 102 * 1.002
    cash = 10_000 - bought - 0.001 * bought
    after_1 = cash + units * 108
    after_2 = cash + units * 104  # no order: the position is marked
    after_3 = after_2  # sold, but there is no bar: no fill, and the last mark stands
    sold = units * 95 * 0.998  # the gap from 104 to 95 is ours
    after_4 = cash + sold - 0.001 * sold
    assert equity == pytest.approx([10_000, after_1, after_2, after_3, after_4, after_4], rel=1e-12)
    assert accounts.commission[0] == pytest.approx(0.001 * (bought + sold))
    assert accounts.slippage[0] == pytest.approx(0.002 * units * (102 + 95))
    assert accounts.pnl[0] == pytest.approx(units * (95 - 102))
    assert accounts.loss_streak[0].tolist() == [1, 0]
    assert accounts.exit_bar[0].tolist() == [4, -1]


def test_a_future_pays_points_times_multiplier_less_ticks_and_commission():
    nq = FUTURES["NQ"].model_copy(update={"symbol": "A"})
    bars = one_symbol([20_000.0, 20_010.0, 20_040.0, 20_050.0], [20_005.0, 20_030.0, 20_050.0, 20_060.0], instruments=[nq])
    spec = EnvSpec(initial_cash=1_000_000, rebalance_band=0)  # its basis points are for shares
    # 0.9 of a million buys 2.249 contracts of 400,100: two
    accounts, equity = run(bars, [[0.9, np.nan], [np.nan, np.nan], [0.0, np.nan]], spec)
    points = 20_050.0 - 20_010.0
    assert equity[-1] - 1_000_000 == pytest.approx(2 * (points * 20 - 2 * 0.25 * 20 - 2 * 2.5))
    assert accounts.units[0, 0] == 0


def test_an_order_is_sized_with_the_close_and_cut_to_the_limit_at_the_open():
    bars = one_symbol([100.0, 125.0], [100.0, 125.0])
    spec = EnvSpec(initial_cash=1_000, costs=CostSpec(commission_bps=0, slippage_bps=0))
    accounts, _ = run(bars, [[1.0, np.nan]], spec)
    assert accounts.units[0, 0] == pytest.approx(1_000 / 125)  # ten were wanted, eight can be paid


def test_a_target_within_the_band_is_left_alone_and_zero_never_is():
    bars = one_symbol([100.0] * 4, [100.0] * 4)
    spec = EnvSpec(rebalance_band=0.05, costs=CostSpec(commission_bps=0, slippage_bps=0))
    accounts, _ = run(bars, [[0.5, np.nan], [0.54, np.nan]], spec)
    assert accounts.fill_units[0, 0] == 0
    accounts, _ = run(bars, [[0.04 + 0.02, np.nan], [0.0, np.nan]], spec)
    assert accounts.units[0, 0] == 0


def test_ruin_closes_everything_and_stays_in_cash():
    bars = one_symbol([100.0, 100.0, 5.0, 5.0, 50.0], [100.0, 100.0, 5.0, 5.0, 50.0])
    spec = EnvSpec(costs=CostSpec(commission_bps=0, slippage_bps=0))
    accounts, equity = run(bars, [[1.0, np.nan]] * 4, spec)
    assert accounts.ruined[0]
    assert accounts.units[0, 0] == 0
    assert equity[-1] == equity[2] == pytest.approx(5_000)  # the rebound to 50 is not ours any more


def test_a_position_that_turns_round_ends_one_trade_and_begins_another():
    bars = one_symbol([100.0, 100.0, 110.0, 121.0], [100.0, 110.0, 121.0, 121.0])
    spec = EnvSpec(allow_short=True, rebalance_band=0, costs=CostSpec(commission_bps=0, slippage_bps=0))
    accounts, _ = run(bars, [[0.5, np.nan], [-0.5, np.nan]], spec)
    assert accounts.outcomes[0, 0] == 1
    assert accounts.n_outcomes[0, 0] == 1
    assert accounts.entry[0, 0] == 110.0
    assert accounts.worst[0, 0] == pytest.approx(1 - 121 / 110)


def test_a_tick_is_worth_its_size_times_the_multiplier():
    worth = {"ES": 12.5, "NQ": 5.0, "YM": 5.0, "RTY": 5.0, "MES": 1.25, "MNQ": 0.5, "MYM": 0.5, "M2K": 0.5}
    assert {symbol: spec.tick_value for symbol, spec in FUTURES.items()} == worth


def test_an_account_of_contracts_starts_with_ten_of_the_dearest_unless_told():
    nq = FUTURES["NQ"].model_copy(update={"symbol": "A"})
    bars = one_symbol([20_000.0] * 3, [20_000.0] * 3, instruments=[nq])
    assert sized_for(EnvSpec(), bars).cash == 10 * 20 * 20_000
    assert sized_for(EnvSpec(initial_cash=400_000), bars).cash == 400_000
    assert sized_for(EnvSpec(), one_symbol([1.0] * 3, [1.0] * 3)).cash == 100_000
    with pytest.raises(ConfigError, match=r"one lot is worth 400,000 and the account may hold 399,999; raise env\.initial_cash"):
        sized_for(EnvSpec(initial_cash=399_999), bars)


def plain_step(state, t, targets, bars, spec):
    """One step of one account, written for reading: the second implementation that the kernel must equal."""
    cash, units, equity = state
    n = bars.n_symbols
    live = bars.tradable[t + 1]
    price = [bars.open[t + 1, j] if live[j] else bars.mark[t, j] for j in range(n)]
    price = [p if np.isfinite(p) else 0.0 for p in price]
    wanted = list(units)
    for j in range(n):
        known = bars.mark[t, j]
        if live[j] and not np.isnan(targets[j]) and known > 0:
            weight = units[j] * known / equity
            if targets[j] == 0 or abs(targets[j] - weight) > spec.rebalance_band:
                wanted[j] = targets[j] * equity / known
    opening = cash + sum(units[j] * price[j] for j in range(n))
    gross = [(abs(units[j]) * price[j], abs(wanted[j]) * price[j]) for j in range(n)]
    kept = sum(min(pair) for pair in gross)
    added = sum(max(after - before, 0) for before, after in gross)
    limit = spec.gross_limit * opening
    if added and kept + added > limit:
        share = max(limit - kept, 0) / added
        wanted = [u + (w - u) * share if abs(w) > abs(u) else w for u, w in zip(units, wanted, strict=True)]
    pnl = costs = 0.0
    for j in range(n):
        change = wanted[j] - units[j]
        if live[j]:
            if units[j]:
                pnl += units[j] * (price[j] - bars.mark[t, j])
            fill = price[j] * (1 + np.sign(change) * spec.costs.slippage_bps / 1e4)
            fee = abs(change) * fill * spec.costs.commission_bps / 1e4
            costs += fee + abs(change) * abs(fill - price[j])
            cash -= change * fill + fee
            pnl += wanted[j] * (bars.close[t + 1, j] - price[j])
    equity = cash + sum(wanted[j] * bars.mark[t + 1, j] for j in range(n) if wanted[j])
    return (cash, wanted, equity), pnl, costs


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), allow_short=st.booleans(), gross=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_kernel_equals_the_plain_ledger_and_money_adds_up(seed, allow_short, gross):
    """Random orders over gaps, halts, a late listing and an unadjusted split; 1e-9 of the equity."""
    bars = random_panel(seed % 7, n_bars=260)
    random = np.random.default_rng(seed)
    spec = EnvSpec(allow_short=allow_short, gross_limit=gross, ruin_fraction=0, costs=CostSpec(commission_bps=7, slippage_bps=13))
    low = -1.0 if allow_short else 0.0
    targets = random.uniform(low, 1.0, (259, bars.n_symbols)) * gross / bars.n_symbols
    targets[random.random(targets.shape) < 0.4] = np.nan
    targets[random.random(targets.shape) < 0.1] = 0.0
    tape = ledger.make_tape(bars)
    accounts = ledger.Accounts.open(1, bars.n_symbols, spec.cash)
    state = (spec.cash, [0.0] * bars.n_symbols, spec.cash)
    pnl = costs = 0.0
    for t in range(259):
        ledger.step(accounts, np.array([t]), targets[t][None], tape, spec)
        state, earned, paid = plain_step(state, t, targets[t], bars, spec)
        pnl, costs = pnl + earned, costs + paid
        booked = spec.cash + accounts.pnl[0] - accounts.commission[0] - accounts.slippage[0]
        assert accounts.equity[0] == pytest.approx(booked, rel=1e-9)
        assert accounts.equity[0] == pytest.approx(state[2], rel=1e-9)
        np.testing.assert_allclose(accounts.units[0], state[1], rtol=1e-9, atol=1e-9)
    assert accounts.pnl[0] == pytest.approx(pnl, rel=1e-7, abs=1e-4)
    assert accounts.commission[0] + accounts.slippage[0] == pytest.approx(costs, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_doubling_the_costs_never_makes_anyone_richer(seed):
    bars = random_panel(3, n_bars=200)
    targets = np.random.default_rng(seed).uniform(0, 0.3, (199, bars.n_symbols))
    dear = EnvSpec(costs=CostSpec(commission_bps=10, slippage_bps=10))
    cheap = EnvSpec(costs=CostSpec(commission_bps=5, slippage_bps=5))
    assert run(bars, targets, dear)[1][-1] < run(bars, targets, cheap)[1][-1]


def test_scaling_all_prices_changes_no_return(panel):
    from dataclasses import replace

    scaled = replace(panel, **{name: getattr(panel, name) * 10 for name in ("open", "high", "low", "close")})
    targets = np.random.default_rng(0).uniform(0, 0.3, (300, panel.n_symbols))
    spec = EnvSpec()
    np.testing.assert_allclose(run(scaled, targets, spec)[1], run(panel, targets, spec)[1], rtol=1e-9)
