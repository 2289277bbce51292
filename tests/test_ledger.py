"""The ledger: a market worked out by hand, a plain second implementation, and the identity that money obeys."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markets import random_panel, session_panel
from plain_ledger import PlainAccount

from ploutos.envs import kernel, ledger
from ploutos.envs.kernel import KINDS
from ploutos.envs.spec import CostSpec, EnvSpec, cash_in_words, with_initial_cash
from ploutos.errors import ConfigError
from ploutos.market.bars import MAX_SYMBOLS, align
from ploutos.market.instruments import FUTURES
from ploutos.walk_forward import Range


def one_symbol(opens, closes, missing=(), instruments=()):
    """Daily bars of one symbol; `missing` positions have no bar, but stay on the clock through a second symbol."""
    days = pd.date_range("2024-01-01", periods=len(opens), tz="UTC")
    frame = pd.DataFrame({"symbol": "A", "timestamp": days, "open": opens, "close": closes, "volume": 1.0})
    frame["high"], frame["low"] = frame[["open", "close"]].max(axis=1), frame[["open", "close"]].min(axis=1)
    clock = frame.assign(symbol="B")
    return align(pd.concat([frame.drop(index=list(missing)), clock]), pd.Timedelta(days=1), "24/7", "by hand", instruments)


def run(bars, targets, spec):
    arrays = ledger.make_market_arrays(bars)
    accounts = ledger.Accounts.open(1, bars.n_symbols, spec.cash)
    equity = [spec.cash]
    for t, target in enumerate(targets):
        ledger.step(accounts, np.array([t]), np.array([target], dtype=float), arrays, spec)
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
    spec = EnvSpec(rebalance_band=0.1, costs=CostSpec(commission_bps=0, slippage_bps=0))  # of a slot, which is a half
    accounts, _ = run(bars, [[0.5, np.nan], [0.54, np.nan]], spec)
    assert accounts.fill_units[0, 0] == 0
    accounts, _ = run(bars, [[0.5, np.nan], [0.56, np.nan]], spec)
    assert accounts.fill_units[0, 0] == pytest.approx(60)
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
    assert {symbol: FUTURES[symbol].tick_value for symbol in worth} == worth


def test_an_account_of_contracts_starts_with_ten_of_the_dearest_in_every_slot_unless_told():
    nq = FUTURES["NQ"].model_copy(update={"symbol": "A"})
    bars = one_symbol([20_000.0] * 4, [20_000.0, 20_000.0, 21_000.0, 25_000.0], instruments=[nq])
    early, late = Range(start=0, stop=2), Range(start=2, stop=4)
    assert with_initial_cash(EnvSpec(), bars, early).cash == 2 * 10 * 20 * 20_000  # the other slot is the share's
    assert with_initial_cash(EnvSpec(), bars.head(2), early) == with_initial_cash(EnvSpec(), bars, early)  # whatever comes later
    assert with_initial_cash(EnvSpec(), bars, early, late) == with_initial_cash(EnvSpec(), bars)
    assert with_initial_cash(EnvSpec(gross_limit=4), bars, late).cash == 2 * 10 * 20 * 25_000 / 4
    assert with_initial_cash(EnvSpec(), candles([(-30, -20, -40, -37)], [nq])).cash == 10 * 20 * 37
    assert with_initial_cash(EnvSpec(initial_cash=400_000), bars).cash == 400_000
    assert with_initial_cash(EnvSpec(), one_symbol([1.0] * 3, [1.0] * 3)).cash == 100_000
    assert cash_in_words(EnvSpec(), bars, late) == (
        "10,000,000: ten lots of the dearest, A at 500,000 a lot, in each of 2 slots; a slot of it could not buy one lot on 0 of 2 bars"
    )
    assert cash_in_words(EnvSpec(initial_cash=850_000), bars).endswith("as set; a slot of it could not buy one lot on 1 of 4 bars")
    with pytest.raises(ConfigError, match=r"one lot is worth 400,000 and the account may hold 399,999; raise env\.initial_cash"):
        with_initial_cash(EnvSpec(initial_cash=399_999), bars)


def random_orders(seed, n_bars, n_symbols, spec):
    random = np.random.default_rng(seed)
    low = -1.0 if spec.allow_short else 0.0
    targets = random.uniform(low, 1.0, (n_bars - 1, n_symbols)) * 1.5 * spec.gross_limit / n_symbols
    targets[random.random(targets.shape) < 0.4] = np.nan
    targets[random.random(targets.shape) < 0.1] = 0.0
    return targets


def assert_same_fills(accounts, plain):
    """Every fill of the last step: units, price and why."""
    found = []
    for when in ("fill", "stop"):
        units, price, kind = (getattr(accounts, f"{when}_{what}")[0] for what in ("units", "price", "kind"))
        found += [(j, units[j], price[j], KINDS[kind[j]]) for j in np.flatnonzero(np.isfinite(price))]
        assert (units[np.isnan(price)] == 0).all()
        assert (kind[np.isnan(price)] == 0).all()
    by_fill = [sorted(fills, key=lambda fill: (fill[0], fill[3])) for fills in (found, plain.fills)]
    assert [(j, kind) for j, *_, kind in by_fill[0]] == [(j, kind) for j, *_, kind in by_fill[1]]
    numbers = [np.array([fill[1:3] for fill in fills]).reshape(-1, 2) for fills in by_fill]
    np.testing.assert_allclose(*numbers, rtol=1e-9, atol=1e-9)


def assert_equal_to_plain(bars, targets, spec):
    """Bar by bar: equity, units and every kind of cost of kernel and plain ledger, 1e-9 relative; money adds up to 1e-9."""
    arrays, plain = ledger.make_market_arrays(bars), PlainAccount(bars, spec)
    accounts = ledger.Accounts.open(1, bars.n_symbols, spec.cash)
    for t, target in enumerate(targets):
        ledger.step(accounts, np.array([t]), target[None], arrays, spec)
        plain.step(t, target)
        booked = spec.cash + accounts.pnl[0] - accounts.costs[0] + accounts.written_off[0]
        assert accounts.equity[0] == pytest.approx(booked, rel=1e-9, abs=1e-9 * spec.cash)
        assert accounts.equity[0] == pytest.approx(plain.equity, rel=1e-9, abs=1e-9 * spec.cash)
        assert accounts.equity[0] >= 0
        assert accounts.ruined[0] == plain.ruined
        np.testing.assert_allclose(accounts.units[0], plain.units, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(accounts.entry[0], plain.entry, rtol=1e-9)
        for name in ("commission", "slippage", "impact", "borrow", "traded"):
            assert getattr(accounts, name)[0] == pytest.approx(getattr(plain, name), rel=1e-9, abs=1e-9)
        assert accounts.written_off[0] == pytest.approx(plain.written_off, rel=1e-9, abs=1e-9 * spec.cash)
        assert_same_fills(accounts, plain)
    assert accounts.pnl[0] == pytest.approx(plain.pnl, rel=1e-7, abs=1e-4)
    assert accounts.margin_calls[0] == plain.margin_calls
    return plain


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), allow_short=st.booleans(), gross=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_kernel_equals_the_plain_ledger_and_money_adds_up(seed, allow_short, gross):
    """Random orders over gaps, halts, a late listing and an unadjusted split; shorts and leverage may lose more than there is."""
    bars = random_panel(seed % 7, n_bars=260)
    spec = EnvSpec(allow_short=allow_short, gross_limit=gross, ruin_fraction=0, costs=CostSpec(commission_bps=7, slippage_bps=13))
    assert_equal_to_plain(bars, random_orders(seed, 260, bars.n_symbols, spec), spec)


def troubled(bars):
    """The same bars, with the future's prices on both sides of zero and the second share paid out within a session."""
    moved = {}
    for name in ("open", "high", "low", "close", "volume"):
        moved[name] = getattr(bars, name).copy()
        moved[name][97:, 1] = np.nan
        if name != "volume":
            moved[name][:, 2] -= np.nanmedian(bars.close[:, 2])
    return replace(bars, payouts=(np.nan, 0.4 * np.nanmean(bars.close[:97, 1]), np.nan), **moved)


COSTS = st.builds(
    CostSpec,
    commission_bps=st.floats(0, 20),
    half_spread_bps=st.floats(0, 20),
    slippage_bps=st.floats(0, 20),
    slippage_per_volatility=st.floats(0, 0.5),
    impact=st.floats(0, 2),
    borrow_per_year=st.floats(0, 0.5),
)


@settings(max_examples=60, deadline=None)
@example(  # ruined by what its own orders cost: it loses more than it has, and is closed at the next open
    seed=1, costs=CostSpec(commission_bps=0, slippage_bps=0, impact=1), allow_short=False, gross=4.0, participation=None, stop=None,
    margin=False, flat=False, maintenance=0.5, band=0.0, cash=10_000_000.0, ruin=0.0, trouble=False,
)  # fmt: skip
@given(
    seed=st.integers(0, 10_000), costs=COSTS, allow_short=st.booleans(), gross=st.sampled_from([0.5, 1.0, 4.0]),
    participation=st.none() | st.floats(0.001, 1), stop=st.none() | st.floats(0.005, 0.2), margin=st.booleans(), flat=st.booleans(),
    maintenance=st.floats(0.5, 0.98), band=st.sampled_from([0.0, 0.1]), cash=st.sampled_from([5_000.0, 100_000.0, 10_000_000.0]),
    ruin=st.sampled_from([0.0, 0.1, 0.8]), trouble=st.booleans(),
)  # fmt: skip
def test_with_every_rule_switched_at_random_the_kernel_equals_the_plain_ledger(
    seed, costs, allow_short, gross, participation, stop, margin, flat, maintenance, band, cash, ruin, trouble
):
    """Shares and a future in lots, intraday, with halts over session ends, empty volumes, reversals and leverage."""
    bars = troubled(session_panel(seed % 5)) if trouble else session_panel(seed % 5)
    spec = EnvSpec(
        initial_cash=cash, allow_short=allow_short, gross_limit=gross, max_participation=participation, stop_loss=stop,
        margin_calls=margin, maintenance_margin=maintenance, flat_by_session_end=flat, rebalance_band=band, ruin_fraction=ruin, costs=costs,
    )  # fmt: skip
    assert_equal_to_plain(bars, random_orders(seed, bars.n_bars, bars.n_symbols, spec), spec)


def test_every_rule_bites_in_that_comparison():
    """The comparison would prove nothing of a rule that never fires."""
    spec = EnvSpec(
        initial_cash=100_000, allow_short=True, gross_limit=4, max_participation=0.2, stop_loss=0.01, margin_calls=True, ruin_fraction=0,
        flat_by_session_end=True, costs=CostSpec(slippage_per_volatility=0.2, impact=0.5, borrow_per_year=0.1),
    )  # fmt: skip
    levered = spec.model_copy(update={"initial_cash": 5_000.0, "gross_limit": 10.0, "stop_loss": None, "maintenance_margin": 0.98})
    reckless = EnvSpec(initial_cash=5_000, allow_short=True, gross_limit=20, rebalance_band=0, costs=CostSpec(slippage_bps=50))
    calls, kinds, written_off = 0, [], 0.0
    for seed in range(4):
        bars = session_panel(seed)
        plain = assert_equal_to_plain(bars, random_orders(seed, bars.n_bars, bars.n_symbols, spec), spec)
        assert min(plain.kinds.count(kind) for kind in ("stop", "stop gap", "session end", "order")) > 3
        assert min(plain.impact, plain.borrow, plain.slippage, plain.commission) > 1
        plain = assert_equal_to_plain(bars, random_orders(seed, bars.n_bars, bars.n_symbols, levered), levered)
        calls, kinds = calls + plain.margin_calls, kinds + plain.kinds
        plain = assert_equal_to_plain(troubled(bars), random_orders(seed, bars.n_bars, bars.n_symbols, reckless), reckless)
        written_off, kinds = written_off + plain.written_off, kinds + plain.kinds
        plain = assert_equal_to_plain(troubled(bars), random_orders(seed, bars.n_bars, bars.n_symbols, spec), spec)
        kinds += plain.kinds
    assert calls > 3
    assert min(kinds.count(kind) for kind in ("margin call", "ruin", "payout")) > 0, kinds
    assert written_off > 100


@pytest.mark.parametrize("n_symbols", [1, 3, 9])
def test_an_account_moves_alike_whoever_steps_with_it(n_symbols):
    """150 accounts at bars of their own, some called, some ruined, against each of them alone: the same bytes."""
    arrays = ledger.make_market_arrays(random_panel(n_symbols, 300, n_symbols))
    spec = EnvSpec(
        initial_cash=100_000, allow_short=True, gross_limit=1.5, max_participation=0.5, stop_loss=0.05, margin_calls=True,
        maintenance_margin=0.98, ruin_fraction=0.9, costs=CostSpec(slippage_per_volatility=0.1, impact=0.3, borrow_per_year=0.1),
    )  # fmt: skip
    random, n = np.random.default_rng(n_symbols), 150
    together, alone = ledger.Accounts.open(n, n_symbols, spec.cash), [ledger.Accounts.open(1, n_symbols, spec.cash) for _ in range(n)]
    start, n_stopped = random.integers(5, 250, n), 0
    for bar in (start + k for k in range(40)):
        targets = random.uniform(-6, 6, (n, n_symbols)) / n_symbols
        targets[random.random(targets.shape) < 0.4] = np.nan
        ledger.step(together, bar, targets, arrays, spec)
        for i, account in enumerate(alone):
            ledger.step(account, bar[i : i + 1], targets[i : i + 1], arrays, spec)
        for field in fields(together):
            each = np.concatenate([getattr(account, field.name) for account in alone])
            assert getattr(together, field.name).tobytes() == each.tobytes(), field.name
        n_stopped += np.count_nonzero(together.stop_units)
    assert min(together.margin_calls.sum(), together.ruined.sum(), n_stopped) > 5


FREE = CostSpec(commission_bps=0, slippage_bps=0)


def candles(rows, instruments=()):
    """Daily bars of one symbol from (open, high, low, close) rows."""
    days = pd.date_range("2024-01-01", periods=len(rows), tz="UTC")
    frame = pd.DataFrame(rows, columns=["open", "high", "low", "close"]).assign(symbol="A", timestamp=days, volume=1000.0)
    return align(frame, pd.Timedelta(days=1), "24/7", "by hand", instruments)


@pytest.mark.parametrize(
    ("third_bar", "leaves_at"),
    [((99, 100, 94, 98), 95.0), ((90, 96, 89, 95), 90.0), ((99, 101, 95.5, 96), None)],
    ids=["within the bar", "at an open beyond it", "not reached"],
)
def test_a_stop_fills_at_the_worse_of_stop_and_open(third_bar, leaves_at):
    bars = candles([(100, 100, 100, 100), (100, 102, 99, 100), third_bar, (96, 96, 96, 96)])
    spec = EnvSpec(initial_cash=1_000, stop_loss=0.05, rebalance_band=0, costs=FREE)
    accounts, equity = run(bars, [[1.0], [np.nan]], spec)
    assert equity[-1] == pytest.approx(1_000 + 10 * ((leaves_at or third_bar[3]) - 100))
    assert (accounts.units[0, 0] == 0) == (leaves_at is not None)
    assert (accounts.stop_units[0, 0] == -10) == (leaves_at == 95.0)


def test_a_position_opened_at_this_open_can_be_stopped_in_this_bar():
    bars = candles([(100, 100, 100, 100), (100, 101, 90, 101)])
    accounts, equity = run(bars, [[1.0]], EnvSpec(initial_cash=1_000, stop_loss=0.05, costs=FREE))
    assert equity[-1] == pytest.approx(950)
    assert accounts.loss_streak[0, 0] == 1
    assert (accounts.fill_units[0, 0], accounts.stop_units[0, 0], accounts.stop_price[0, 0]) == (10, -10, 95)


def test_a_margin_call_cuts_positions_alike_until_the_margin_fits():
    future = FUTURES["MES"].model_copy(update={"symbol": "A", "margin": 2_000, "commission_per_unit": 0, "slippage_ticks": 0})
    closes = [4_000.0, 4_000.0, 3_500.0, 3_500.0, 3_500.0]
    bars = candles([(c, c, c, c) for c in closes], [future])
    spec = EnvSpec(initial_cash=20_000, gross_limit=20, margin_calls=True, ruin_fraction=0, rebalance_band=0)
    # ten contracts tie up all 20,000; 500 points against them cost 5 * 10 * 500, more than there is
    accounts, equity = run(bars, [[20.0]], spec)
    assert accounts.units[0, 0] == 10
    accounts, equity = run(bars, [[20.0], [np.nan]], spec)
    assert (equity[-1], accounts.written_off[0]) == (0, pytest.approx(5_000))
    accounts, equity = run(bars, [[20.0], [np.nan], [1.0]], spec)
    assert (accounts.units[0, 0], equity[-1], bool(accounts.ruined[0])) == (0, 0, True)  # beyond a call: closed for good
    closes[2:] = [3_900.0] * 3
    bars = candles([(c, c, c, c) for c in closes], [future])
    # 100 points cost 5,000: 15,000 are left, less than 0.9 of 20,000; seven contracts fit
    accounts, equity = run(bars, [[20.0], [np.nan], [20.0]], spec)
    assert equity[2] == pytest.approx(15_000)
    assert (accounts.units[0, 0], accounts.margin_calls[0]) == (7, 1)


def test_nothing_is_held_over_a_session_end_unless_a_halt_kept_it():
    for seed in range(4):
        bars = session_panel(seed)
        spec = EnvSpec(initial_cash=1_000_000, allow_short=True, flat_by_session_end=True, costs=FREE, ruin_fraction=0)
        arrays, targets = ledger.make_market_arrays(bars), random_orders(seed, bars.n_bars, bars.n_symbols, spec)
        accounts = ledger.Accounts.open(1, bars.n_symbols, spec.cash)
        held_inside = kept_by_a_halt = 0
        for t, target in enumerate(targets):
            ledger.step(accounts, np.array([t]), target[None], arrays, spec)
            held_inside += bool(accounts.units.any())
            if arrays.session_end[t + 1]:
                assert not accounts.units[0, bars.tradable[t + 1]].any()
                kept_by_a_halt += bool(accounts.units.any())
        assert held_inside > 50
        assert kept_by_a_halt > 0


def test_a_rule_that_would_forbid_every_position_is_refused():
    with pytest.raises(ConfigError, match="every bar ends a session"):
        ledger.require_rules(ledger.make_market_arrays(random_panel(1, 50)), EnvSpec(flat_by_session_end=True))


def test_an_order_takes_its_share_of_the_usual_volume_and_the_rest_lapses():
    bars = one_symbol([100.0] * 4, [100.0] * 4)  # one unit of volume per bar
    accounts, _ = run(bars, [[1.0, np.nan]], EnvSpec(max_participation=0.25, costs=FREE))
    assert accounts.units[0, 0] == 0.25
    accounts, _ = run(bars, [[1.0, np.nan], [np.nan, np.nan]], EnvSpec(max_participation=0.25, costs=FREE))
    assert accounts.units[0, 0] == 0.25


def test_impact_is_volatility_times_the_root_of_the_share_of_volume():
    closes = [100.0, 110.0, 100.0, 100.0, 100.0]
    bars = one_symbol([100.0] * 5, closes)
    spec = EnvSpec(rebalance_band=0, costs=CostSpec(commission_bps=0, slippage_bps=0, impact=0.3))
    accounts, _ = run(bars, [[np.nan, np.nan]] * 3 + [[0.0004, np.nan]], spec)  # 40 of 100,000: 0.4 units of a volume of 1
    square = np.log(1.1) ** 2
    volatility = np.sqrt(0.94 * square + 0.06 * 0)  # two moves of the same size, then none
    assert accounts.impact[0] == pytest.approx(0.4 * 100 * 0.3 * volatility * np.sqrt(0.4))


def test_a_short_pays_for_the_nights_it_is_held():
    bars = one_symbol([100.0] * 5, [100.0] * 5)
    spec = EnvSpec(allow_short=True, rebalance_band=0, costs=CostSpec(commission_bps=0, slippage_bps=0, borrow_per_year=0.365))
    accounts, equity = run(bars, [[-0.5, np.nan], [np.nan, np.nan], [np.nan, np.nan], [0.0, np.nan]], spec)
    # opened at the second bar's open, closed at the fifth's: three nights at 0.1 % of 50,000
    assert accounts.borrow[0] == pytest.approx(3 * 0.001 * 50_000)
    assert equity[-1] == pytest.approx(100_000 - 150)


@settings(max_examples=15, deadline=None)
@given(t=st.integers(3, 150), seed=st.integers(0, 4))
def test_cutting_the_future_changes_nothing_that_the_tape_knew(t, seed):
    bars = session_panel(seed)
    whole, past = ledger.make_market_arrays(bars), ledger.make_market_arrays(bars.head(t))
    for name in ("prices", "years", "session_end", "n_tradable"):
        np.testing.assert_array_equal(getattr(past, name), getattr(whole, name)[:t], err_msg=name)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_doubling_the_costs_never_makes_anyone_richer(seed):
    """All kinds of cost. The band and the stop are off: they trade at other moments when the account or its entry differ."""
    bars = session_panel(seed % 5)
    targets = np.random.default_rng(seed).uniform(-0.3, 0.3, (bars.n_bars - 1, bars.n_symbols))
    kinds = {
        "commission_bps": 3, "half_spread_bps": 1, "slippage_bps": 2, "slippage_per_volatility": 0.05, "impact": 0.2, "borrow_per_year": 0.1
    }  # fmt: skip
    wealth = []
    for factor in (1, 2, 4):
        costs = CostSpec(**{kind: factor * size for kind, size in kinds.items()})
        spec = EnvSpec(initial_cash=1_000_000, allow_short=True, rebalance_band=0, ruin_fraction=0, costs=costs)
        wealth.append(run(bars, targets, spec)[1][-1])
    assert wealth[0] > wealth[1] > wealth[2]


def test_scaling_all_prices_changes_no_return(panel):
    """Ten times the price and a tenth of the volume: the same money changes hands."""
    scaled = replace(panel, volume=panel.volume / 10, **{name: getattr(panel, name) * 10 for name in ("open", "high", "low", "close")})
    targets = np.random.default_rng(0).uniform(-0.3, 0.3, (300, panel.n_symbols))
    rules = EnvSpec(
        allow_short=True, max_participation=0.01, stop_loss=0.05, margin_calls=True,
        costs=CostSpec(half_spread_bps=2, slippage_per_volatility=0.1, impact=0.3, borrow_per_year=0.03),
    )  # fmt: skip
    for spec in (EnvSpec(), rules):
        np.testing.assert_allclose(run(scaled, targets, spec)[1], run(panel, targets, spec)[1], rtol=1e-9)


def test_a_short_squeeze_ends_an_account_and_the_broker_bears_the_rest():
    """Ten short at 100; at 350 they owe 1,500 beyond the 1,000 that there were. What falls again is nobody's any more."""
    bars = candles([(100, 100, 100, 100), (100, 100, 100, 100), (100, 350, 100, 350), (350, 350, 50, 50), (50, 50, 50, 50)])
    spec = EnvSpec(initial_cash=1_000, allow_short=True, rebalance_band=0, costs=FREE)
    accounts, equity = run(bars, [[-1.0], [np.nan], [np.nan], [1.0]], spec)
    assert equity == [1_000, 1_000, 0, 0, 0]
    assert (accounts.cash[0], accounts.written_off[0], accounts.pnl[0], bool(accounts.ruined[0])) == (0, 1_500, -2_500, True)
    assert (accounts.units[0, 0], accounts.outcomes[0, 0], accounts.n_outcomes[0, 0], accounts.exit_bar[0, 0]) == (0, 0, 1, 2)


def test_a_gap_between_ruin_and_its_liquidation_is_written_off_as_well():
    """At 185 a tenth and a half of 1,000 is left, below the fifth that ruins; the next open of 210 takes 100 more than there is."""
    bars = candles([(100, 100, 100, 100), (100, 100, 100, 100), (100, 185, 100, 185), (210, 210, 210, 210), (50, 50, 50, 50)])
    spec = EnvSpec(initial_cash=1_000, allow_short=True, rebalance_band=0, ruin_fraction=0.2, costs=FREE)
    accounts, equity = run(bars, [[-1.0], [np.nan]], spec)
    assert (equity[-1], bool(accounts.ruined[0]), accounts.units[0, 0]) == (150, True, -10)
    accounts, equity = run(bars, [[-1.0], [np.nan], [-1.0], [1.0]], spec)
    assert equity[3:] == [0, 0]
    assert accounts.written_off[0] == 100


def kinds_of(bars, targets, spec):
    """Bar, kind, units and price of every fill of one account in one symbol."""
    arrays, found = ledger.make_market_arrays(bars), []
    accounts = ledger.Accounts.open(1, bars.n_symbols, spec.cash)
    for t, target in enumerate(targets):
        ledger.step(accounts, np.array([t]), np.array([target], dtype=float), arrays, spec)
        for when in ("fill", "stop"):
            units, price, kind = (getattr(accounts, f"{when}_{what}")[0, 0] for what in ("units", "price", "kind"))
            found += [(t + 1, KINDS[kind], units, price)] if kind else []
    return found


@pytest.mark.parametrize(
    ("third_bar", "fill"),
    [((99, 100, 94, 98), (2, "stop", -10, 95)), ((90, 96, 89, 95), (2, "stop gap", -10, 90))],
    ids=["within the bar", "at an open beyond it"],
)
def test_a_fill_says_whether_its_stop_was_reached_or_jumped_over(third_bar, fill):
    bars = candles([(100, 100, 100, 100), (100, 102, 99, 100), third_bar])
    spec = EnvSpec(initial_cash=1_000, stop_loss=0.05, rebalance_band=0, costs=FREE)
    assert kinds_of(bars, [[1.0], [np.nan]], spec) == [(1, "order", 10, 100), fill]


def test_fills_of_a_ruin_say_so():
    bars = candles([(100, 100, 100, 100), (100, 100, 100, 100), (5, 5, 5, 5), (6, 6, 6, 6)])
    spec = EnvSpec(initial_cash=1_000, rebalance_band=0, costs=FREE)
    assert kinds_of(bars, [[1.0], [np.nan], [1.0]], spec) == [(1, "order", 10, 100), (3, "ruin", -10, 6)]
    short = spec.model_copy(update={"allow_short": True})
    squeeze = candles([(100, 100, 100, 100), (100, 100, 100, 100), (100, 350, 100, 350)])
    assert kinds_of(squeeze, [[-1.0], [np.nan]], short) == [(1, "order", -10, 100), (2, "ruin", 10, 350)]


@pytest.mark.parametrize(("side", "payout"), [(0.5, 30.0), (0.5, 0.0), (-0.5, 30.0), (-0.5, 160.0)])
def test_a_delisted_symbol_is_paid_out_at_no_cost_whatever_an_order_asks(side, payout):
    """A's last bar is the third; in the fourth each of its units, held or owed, is worth its payout."""
    bars = replace(one_symbol([100.0] * 6, [100.0, 100.0, 90.0, 90.0, 90.0, 90.0], missing=[3, 4, 5]), payouts=(payout, np.nan))
    spec = EnvSpec(initial_cash=1_000, allow_short=True, rebalance_band=0)
    targets = [[side, np.nan], [np.nan, np.nan], [side * 2, np.nan], [side, np.nan], [side, np.nan]]
    accounts, equity = run(bars, targets, spec)
    units = 5 * np.sign(side)
    paid_once = accounts.commission[0] + accounts.slippage[0]
    assert equity[3:] == pytest.approx([1_000 + units * (payout - 100) - paid_once] * 3)
    assert (accounts.units[0, 0], accounts.n_outcomes[0, 0], accounts.exit_bar[0, 0]) == (0, 1, 3)
    assert accounts.outcomes[0, 0] == (units * (payout - 100) > 0)
    assert accounts.cash[0] == equity[-1]
    assert accounts.traded[0] == pytest.approx(500, rel=1e-3)  # a payout is no trade
    assert [fill for fill in kinds_of(bars, targets, spec) if fill[1] != "order"] == [(3, "payout", -units, payout)]


@pytest.mark.parametrize("n_symbols", [1, 2, 9, 130, 500])
def test_no_equity_stays_in_a_delisted_symbol_however_many_there_are(n_symbols):
    """Every other symbol ends at bar 20 of 40 and pays half its last close, for a batch at bars of its own."""
    days, close = pd.date_range("2024-01-01", periods=40, tz="UTC"), 10.0 + np.arange(40.0)
    frames = []
    for s in range(n_symbols + 1):
        frame = pd.DataFrame({"symbol": f"S{s:03d}", "timestamp": days, "close": close, "volume": 1.0})
        frame = frame.assign(open=close, high=close, low=close)
        frames.append(frame[:20] if s % 2 == 0 and n_symbols else frame)
    bars = align(pd.concat(frames), pd.Timedelta(days=1), "24/7", "by hand")
    bars = replace(bars, payouts=tuple(close[19] / 2 if s % 2 == 0 else np.nan for s in range(n_symbols + 1)))
    arrays, n = ledger.make_market_arrays(bars), 3
    spec = EnvSpec(rebalance_band=0, costs=FREE)
    accounts, start = ledger.Accounts.open(n, bars.n_symbols, spec.cash), np.array([5, 10, 15])
    slot = 1 / bars.n_symbols
    for k in range(20):
        targets = np.full((n, bars.n_symbols), slot if k == 0 else np.nan)
        ledger.step(accounts, start + k, targets, arrays, spec)
    gone = np.array([spec_bar >= 0 for spec_bar in bars.payout_bars])
    assert (accounts.units[:, gone] == 0).all()
    assert (accounts.units[:, ~gone] > 0).all()
    bought, last = close[start], close[start + 20]  # at the close's size, filled at the next open, which is a point higher
    scale = bought / close[start + 1]
    held = 100_000 * slot * scale
    worth = gone.sum() * held / bought * close[19] / 2 + (~gone).sum() * held / bought * last
    np.testing.assert_allclose(accounts.equity, worth, rtol=1e-9)


def test_crude_below_zero_is_worth_what_it_costs_to_be_rid_of_it():
    """Two contracts bought at 10 and sold at -37.63: 47.63 points of 1,000 each, exactly, with a tick and a fee per side."""
    crude = FUTURES["NQ"].model_copy(
        update={"symbol": "A", "multiplier": 1_000, "tick_size": 0.01, "slippage_ticks": 1, "commission_per_unit": 2.5, "margin": 0}
    )
    rows = [(18.0, 18, 18, 18.0), (10.0, 10, 10, 10.0), (5.0, 5, -40, -37.63), (-37.63, -10, -40, -10.0), (-10.0, 10, -10, 10.0)]
    bars = candles(rows, [crude])
    spec = EnvSpec(initial_cash=200_000, rebalance_band=0)
    accounts, equity = run(bars, [[0.18], [np.nan], [0.0], [np.nan]], spec)
    points = -37.63 - 10.0
    assert equity[-1] == pytest.approx(200_000 + 2 * (1_000 * (points - 2 * 0.01) - 2 * 2.5))
    assert accounts.traded[0] == pytest.approx(2 * 1_000 * (10.01 + 37.64))
    assert np.isfinite(accounts.arrays[0]).all()
    assert np.isfinite(accounts.worst).all()
    # nothing is sized at a close below zero, neither more nor less of it
    assert [fill[0] for fill in kinds_of(bars, [[0.18], [np.nan], [0.36], [np.nan]], spec)] == [1]
    # and its stop stands above a negative entry's short, a share of its size away
    short = spec.model_copy(update={"allow_short": True, "stop_loss": 0.5})
    falls = candles([(1.0, 1, 1, 1.0), (-2.0, -1.5, -3, -2.0), (-1.5, -0.9, -2, -1.5)], [crude.model_copy(update={"slippage_ticks": 0})])
    assert kinds_of(falls, [[-0.01], [np.nan]], short) == [(1, "order", -2, -2.0), (2, "stop", 2, -1.0)]


def test_volatility_says_nothing_of_prices_that_have_no_log():
    bars = candles([(p, p, p, p) for p in (2.0, 1.0, -1.0, -2.0, 0.0, 1.0, 2.0)], [FUTURES["NQ"].model_copy(update={"symbol": "A"})])
    np.testing.assert_allclose(ledger.make_market_arrays(bars).prices[:, kernel.VOLATILITY, 0], [0.0] + [np.log(2)] * 6)


@pytest.mark.parametrize("n_symbols", [1, 50, 200, 500])
def test_the_band_is_a_share_of_a_slot_however_many_slots_there_are(n_symbols):
    bars = random_panel(1, 30, n_symbols)
    bars = replace(bars, **{name: np.nan_to_num(getattr(bars, name), nan=50.0) for name in ("open", "high", "low", "close", "volume")})
    n_symbols, arrays, spec = bars.n_symbols, ledger.make_market_arrays(bars), EnvSpec(costs=FREE)
    slot = 1 / n_symbols  # those who list beyond the panel's end are not in it
    for away, fills in ((0.05, 0), (0.2, n_symbols)):
        accounts = ledger.Accounts.open(1, n_symbols, spec.cash)
        ledger.step(accounts, np.array([3]), np.full((1, n_symbols), 0.5 * slot), arrays, spec)
        assert np.isfinite(accounts.fill_price).sum() == n_symbols
        held = accounts.units * arrays.mark[4] / accounts.equity[0]
        ledger.step(accounts, np.array([4]), held + away * slot, arrays, spec)
        assert np.isfinite(accounts.fill_price).sum() == fills


def test_a_symbol_without_volume_is_named_where_orders_take_a_share_of_it():
    bars = one_symbol([100.0] * 4, [100.0] * 4)
    bars = replace(bars, volume=bars.volume * [0.0, 1.0])
    with pytest.raises(ConfigError, match=r"no bar of A has any volume.*env\.max_participation=0\.1; unset env\.max_participation"):
        ledger.require_rules(ledger.make_market_arrays(bars), EnvSpec(max_participation=0.1))
    ledger.require_rules(ledger.make_market_arrays(bars), EnvSpec())


def test_the_kernels_hold_as_many_symbols_as_a_run_may_list():
    assert kernel.MAX_SYMBOLS == MAX_SYMBOLS
