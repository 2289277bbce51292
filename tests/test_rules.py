"""Declared rules: their contract, what each decides on a few bars, what may be varied, and one of a user's own."""

import numpy as np
import pandas as pd
import pytest
from markets import random_panel
from plain_ledger import PlainAccount

from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, StrategyError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.market.bars import Bars, align
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.check import check_strategy
from ploutos.strategies.rules import (
    RULES,
    Parameter,
    Rule,
    find_rule,
    latch,
    rule_env,
    rule_targets,
    symbol_bars,
)
from ploutos.walk_forward import Range

FIRST, BOTH = 60, EnvSpec(allow_short=True, initial_cash=1000.0)
FASTER = {"donchian_breakout": {"entry": 20, "exit": 10}, "momentum": {"period": 20}}


def bars_of(closes, opens=None) -> Bars:
    """One share's daily bars; each opens at the close before unless told."""
    close = np.asarray(closes, dtype=float)
    open_ = np.r_[close[0], close[:-1]] if opens is None else np.asarray(opens, dtype=float)
    days = pd.bdate_range("2020-01-01", periods=len(close), tz="UTC")
    columns = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close, "volume": 1000.0}
    return align(pd.DataFrame({"symbol": "S", "timestamp": days, **columns}), pd.Timedelta(days=1), "NYSE", "test")


def wanted(name, closes, **values) -> list[float]:
    rule, bars = RULES[name], bars_of(closes)
    return np.nan_to_num(rule.position(symbol_bars(bars)[0], rule.defaults | values)).tolist()


def strategy_of(rule, values, bars, env, first) -> PrecomputedTargets:
    return PrecomputedTargets("rule", rule_targets(rule, values, bars, env, first))


@pytest.fixture(scope="module")
def small_panel() -> Bars:
    return random_panel(3, 330)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_keeps_the_contract_and_reads_no_later_bar(name, small_panel):
    values = RULES[name].defaults | FASTER.get(name, {})

    def build(bars):
        return strategy_of(RULES[name], values, bars, BOTH, FIRST), None

    check_strategy(build, small_panel, Range(start=FIRST + 1, stop=230), BOTH, n_cuts=1)
    table = rule_targets(RULES[name], values, small_panel, BOTH, FIRST)
    assert np.isnan(table[:FIRST]).all()
    assert len(np.unique(np.sign(table[~np.isnan(table)]))) == 3, "long, short and flat all occur"


def test_a_rule_that_looks_ahead_is_refused(small_panel):
    ahead = Rule("ahead", lambda bars, p: np.r_[np.sign(np.diff(bars.close)), 0.0], {"n": Parameter(1, 1, 2, 1)})
    with pytest.raises(StrategyError, match="reads later bars"):
        check_strategy(lambda bars: (strategy_of(ahead, {"n": 1}, bars, BOTH, FIRST), None), small_panel, Range(start=61, stop=120), BOTH)


# --- what each decides


def test_the_cross_is_long_in_a_rise_and_short_in_a_fall():
    rises, falls = 100 * 1.01 ** np.arange(60), 100 * 0.99 ** np.arange(60)
    for name in ("ema_cross", "macd_cross", "momentum"):
        assert wanted(name, rises, **({"period": 20} if name == "momentum" else {}))[45] == 1, name
        assert wanted(name, falls, **({"period": 20} if name == "momentum" else {}))[45] == (-1 if name != "macd_cross" else 1), name


def test_the_ema_cross_equals_means_computed_one_by_one():
    closes = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.02, 120)))

    def ema(n):
        value, out = closes[:n].mean(), [np.nan] * (n - 1)
        for at in range(n - 1, len(closes)):
            value = value if at == n - 1 else value + 2 / (n + 1) * (closes[at] - value)
            out.append(value)
        return np.array(out)

    assert wanted("ema_cross", closes, fast=7, slow=21) == np.nan_to_num(np.sign(ema(7) - ema(21))).tolist()


def test_momentum_stays_out_within_its_threshold():
    closes = [100.0] * 6 + [102.0, 104.0, 106.0]
    assert wanted("momentum", closes, period=5, threshold=0.03)[5:] == [0, 0, 1, 1]


def test_reversals_enter_beyond_a_level_and_leave_at_the_other():
    closes = [100.0, 101.0] * 10 + [95.0, 96.0, 98.0, 100.0, 101.0]
    fades = wanted("mean_reversion", closes, period=10, entry=2.0, exit=0.5)
    assert fades[:20] == [0] * 20
    assert fades[20] == 1
    assert fades[-1] == 0
    assert wanted("rsi_reversal", closes, period=5, oversold=30)[20] == 1
    assert wanted("bollinger_atr", closes, period=10, width=2.0, atr_stop=4.0)[20] == 1
    assert wanted("bollinger_atr", closes, period=10, width=2.0, atr_stop=0.5)[20] == 0, "beyond the band by more than the stop"


def test_a_breakout_leaves_at_the_shorter_range_on_the_other_side():
    closes = [100.0] * 25 + [101.0, 102.0, 103.0, 103.0, 103.0, 103.0, 103.0, 103.0, 102.5, 99.0]
    position = wanted("donchian_breakout", closes, entry=20, exit=5)
    assert position[24] == 0
    assert position[25:33] == [1] * 8
    assert position[33] == 0
    assert position[34] == -1


def test_latch_starts_flat_and_leaving_wins():
    assert latch(np.array([0, 1, 0, 1, 1]) > 0, np.array([1, 0, 0, 1, 0]) > 0).tolist() == [0, 1, 1, 0, 1]


# --- orders


def test_an_order_is_given_once_and_waits_for_a_bar_of_its_symbol(small_panel):
    rule, values = RULES["momentum"], {"period": 20, "threshold": 0.0, "stop_loss": 0.0}
    table, tradable = rule_targets(rule, values, small_panel, BOTH, FIRST), small_panel.tradable
    for column, own in enumerate(symbol_bars(small_panel)):
        position = np.nan_to_num(np.sign(rule.position(own, values)))
        expected, standing, last = [], True, 0.0
        for t in range(FIRST, small_panel.n_bars):  # in words: a change is ordered, and ordered again until the symbol trades
            seen = np.flatnonzero(own.rows <= t)
            now = position[seen[-1]] if len(seen) else 0.0
            standing = now != last or (standing and not tradable[t, column]) or t == FIRST
            expected.append(now / 3 if standing else np.nan)
            last = now
        np.testing.assert_allclose(table[FIRST:, column], expected)


def test_a_stopped_position_stays_closed_until_the_rule_changes_its_mind():
    closes = [*(100 * 1.01 ** np.arange(40)), *(148 * 0.97 ** np.arange(1, 4)), *(135 * 1.01 ** np.arange(12))]
    bars, values = bars_of(closes), {"period": 30, "threshold": 0.0, "stop_loss": 0.03}
    env = rule_env(BOTH, values)
    rule = RULES["momentum"]
    result = run_backtests(bars, None, [Segment(Range(start=36, stop=bars.n_bars))], [strategy_of(rule, values, bars, env, 35)], env)
    trades = result.trades_frame()
    assert trades["kind"].tolist() == ["order", "stop"]
    assert result.weights[0, -1, 0] == 0


def test_fills_are_those_of_the_plain_ledger():
    bars, rule, values = random_panel(9, 330, 1), RULES["ema_cross"], {"fast": 5, "slow": 20, "stop_loss": 0.03}
    env = rule_env(BOTH, values)
    table = rule_targets(rule, values, bars, env, FIRST)
    result = run_backtests(bars, None, [Segment(Range(start=FIRST + 1, stop=330))], [strategy_of(rule, values, bars, env, FIRST)], env)
    plain, fills = PlainAccount(bars, env), []
    for t in range(FIRST, 329):
        plain.step(t, table[t])
        fills += [(units, price, kind) for _, units, price, kind in plain.fills]
        assert result.equity[0, t + 1 - FIRST] == pytest.approx(plain.equity, rel=1e-12)
    trades = result.trades_frame()
    assert trades["kind"].tolist() == [kind for *_, kind in fills]
    np.testing.assert_allclose(trades[["units", "price"]], [fill[:2] for fill in fills], rtol=1e-12)
    assert {"order", "stop"} <= set(trades["kind"])


# --- what may be varied


def test_values_out_of_bounds_or_order_are_refused():
    rule = RULES["ema_cross"]
    assert rule.require(rule.defaults) == rule.defaults
    for change, message in (
        ({"fast": 4}, "fast is 4; expected 5 to 20"),
        ({"fast": 5.5}, "expected a whole number"),
        ({"stop_loss": float("nan")}, "stop_loss is nan"),
        ({"fast": 20, "slow": 20}, "fast must be below slow, found 20 and 20"),
        ({"slower": 3}, "expected fast, slow and stop_loss"),
    ):
        with pytest.raises(ConfigError, match=message):
            rule.require(rule.defaults | change)


def test_a_parameter_snaps_to_its_steps():
    stop = Parameter(0.02, 0.01, 0.05, 0.005)
    assert [stop.snap(x) for x in (-1.0, 0.0124, 0.0126, 9.0)] == [0.01, 0.01, 0.015, 0.05]
    assert stop.size == 9
    with pytest.raises(ConfigError, match="low <= default <= high"):
        Parameter(1, 2, 3, 1)


OWN = '''"""Buys after falling closes."""
import numpy as np
from ploutos.strategies.rules import Parameter, Rule

def position(bars, p):
    falls = np.r_[0.0, np.diff(bars.close)] < 0
    return np.convolve(falls, np.ones(p["n"]))[: len(falls)] >= p["n"]

RULE = Rule("falling", position, {"n": Parameter(3, 2, 6, 1)})
'''


def test_a_rule_of_ones_own_is_a_file_of_ten_lines(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert len(OWN.splitlines()) <= 10
    rule, bars = find_rule(f"{file}:RULE"), bars_of([5.0, 4.0, 3.0, 2.0, 1.0, 2.0])
    assert rule_targets(rule, {"n": 3}, bars, EnvSpec())[:, 0].tolist()[3] == 1.0
    for name, message in (("sma", "sma is not a rule"), (f"{file}:NONE", "has no rule NONE"), ("none.py:RULE", "is not a rule")):
        with pytest.raises(ConfigError, match=message):
            find_rule(name)
    file.write_text("1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        find_rule(f"{file}:RULE")


def test_an_answer_of_another_length_is_refused():
    short = Rule("short", lambda bars, p: bars.close[1:], {"n": Parameter(1, 1, 2, 1)})
    with pytest.raises(StrategyError, match="one position per bar"):
        rule_targets(short, {"n": 1}, bars_of([1.0, 2.0, 3.0]), EnvSpec())
