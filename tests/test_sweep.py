"""Sweeps: which sets are tried, that an account per set is the account of a backtest, and what is read off the results."""

import numpy as np
import pytest
from markets import random_panel, session_panel
from plain_ledger import PlainAccount

from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import ConfigError, DataError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import measure, periods_of
from ploutos.research.sweep import Sweeper, grid_sets, heat_table, pareto_front, sample_sets, search_sets
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.rules import RULES, Parameter, Rule, rule_env, rule_targets
from ploutos.walk_forward import Range

RULE, PART = RULES["ema_cross"], Range(start=61, stop=330)
SMALL = Rule("small", RULE.position, {"fast": Parameter(5, 5, 7, 1), "slow": Parameter(7, 6, 10, 2)}, (("fast", "slow"),))


@pytest.fixture(scope="module")
def panel3():
    return random_panel(3, 330)


# --- sets


def test_the_grid_is_every_set_that_keeps_the_constraint():
    assert grid_sets(SMALL) == tuple({"fast": f, "slow": s} for f in (5, 6, 7) for s in (6, 8, 10) if f < s)
    assert grid_sets(SMALL, {"slow": [10]}) == tuple({"fast": f, "slow": 10} for f in (5, 6, 7))
    thinned = grid_sets(RULE, most=100)
    assert 50 < len(thinned) <= 100
    assert {values["slow"] for values in thinned} >= {20, 50}, "the ends of the axes stay"
    with pytest.raises(ConfigError, match="fast must be below slow"):
        grid_sets(SMALL, {"fast": [7], "slow": [6]})


@pytest.mark.parametrize("sampler", ["random", "latin", "sobol"])
def test_samples_are_distinct_lawful_and_seeded(sampler):
    sets = sample_sets(RULE, sampler, 200, 7)
    assert len({tuple(values.values()) for values in sets}) == len(sets) == 200
    assert all(RULE.require(values) == values for values in sets)
    assert sets == sample_sets(RULE, sampler, 200, 7) != sample_sets(RULE, sampler, 200, 8)
    spread = np.histogram([values["fast"] for values in sets], bins=4)[0]
    assert spread.min() > 30, "all of the space is tried"


def test_a_sample_of_more_sets_than_there_are_is_all_of_them():
    assert len(sample_sets(SMALL, "sobol", 100, 1)) == len(grid_sets(SMALL)) == 7


def test_optuna_finds_more_than_chance_and_asks_for_no_set_twice():
    asked = []

    def score(values):
        asked.append(tuple(values.values()))
        return -abs(values["fast"] - 9) - abs(values["slow"] - 44) / 3 if values["fast"] != 12 else float("nan")

    found = search_sets(RULE, score, 40, 3)
    assert len(set(asked)) == len(asked) == len(found) == 40
    best = max(value for _, value in found if np.isfinite(value))
    by_chance = [max(s for v in sample_sets(RULE, "random", 40, seed) if np.isfinite(s := score(v))) for seed in range(5)]
    assert best >= np.median(by_chance)


# --- accounts


def rules_of(name):
    return {
        "plain": EnvSpec(allow_short=True),
        "all costs": EnvSpec(
            allow_short=True, gross_limit=2.0, max_participation=0.2, margin_calls=True, initial_cash=20_000.0,
            costs=CostSpec(half_spread_bps=2, slippage_per_volatility=0.1, impact=0.3, borrow_per_year=0.1),
        ),
        "ruin": EnvSpec(allow_short=True, gross_limit=4.0, ruin_fraction=0.7),
        "session end": EnvSpec(allow_short=True, flat_by_session_end=True, margin_calls=True, initial_cash=50_000.0),
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "all costs", "ruin", "session end"])
def test_an_account_of_a_sweep_is_that_of_a_backtest(name, panel3):
    env = rules_of(name)
    bars, part = (session_panel(4, 20), Range(start=61, stop=250)) if name == "session end" else (panel3, PART)
    sets = sample_sets(RULE, "sobol", 12, 2)
    sweep = Sweeper(RULE, bars, env).run(sets, part)
    for k, values in enumerate(sets):
        own = rule_env(env, values)
        orders = PrecomputedTargets("rule", rule_targets(RULE, values, bars, own, part.start - 1))
        result = run_backtests(bars, None, [Segment(part)], [orders], own)
        expected = measure(result, 0, periods_of(bars, result))
        assert sweep.n_fills[k] == len(result.trades_frame())
        assert sweep.ruined[k] == (result.ruined[0] >= 0)
        whole = result.equity[0, periods_of(bars, result).ends]
        assert sweep.returns[k].tobytes() == (whole[1:] / whole[:-1] - 1).tobytes(), "the same bytes"
        assert sweep.max_drawdown[k] == (result.equity[0] / np.maximum.accumulate(result.equity[0]) - 1).min()
        if not sweep.ruined[k]:
            assert sweep.sharpe[k] == pytest.approx(expected.sharpe, rel=1e-9)
            assert sweep.total_return[k] == pytest.approx(expected.total_return)
            assert sweep.costs[k] == pytest.approx(expected.cost_share)
    if name == "ruin":
        assert sweep.ruined.sum() > 0


def test_trades_of_every_set_are_those_of_the_plain_ledger():
    bars, env = random_panel(9, 200, 1), EnvSpec(allow_short=True, initial_cash=5000.0)
    sets, part = sample_sets(RULE, "latin", 8, 5), Range(start=61, stop=200)
    sweep = Sweeper(RULE, bars, env).run(sets, part)
    n_stops = 0
    for k, values in enumerate(sets):
        own = rule_env(env, values)
        plain, table = PlainAccount(bars, own), rule_targets(RULE, values, bars, own, 60)
        for t in range(60, 199):
            plain.step(t, table[t])
        n_stops += plain.kinds.count("stop")
        assert sweep.n_fills[k] == len(plain.kinds) > 0
        assert sweep.total_return[k] == pytest.approx(plain.equity / 5000 - 1, rel=1e-9)
        assert sweep.costs[k] * 5000 == pytest.approx(plain.commission + plain.slippage, rel=1e-9)
    assert n_stops > 3


def test_the_order_and_number_of_sets_change_nothing(panel3, monkeypatch):
    sets = sample_sets(RULE, "sobol", 20, 2)
    sweeper = Sweeper(RULE, panel3, EnvSpec())
    whole = sweeper.run(sets, PART)
    monkeypatch.setattr("ploutos.research.sweep._CELLS", 3 * PART.n_bars * panel3.n_symbols)
    for at in (0, 7, 19):
        assert sweeper.run(sets[at:] + sets[:at], PART).returns[0].tobytes() == whole.returns[at].tobytes()
    assert sweeper.run(sets, PART).returns.tobytes() == whole.returns.tobytes()


def test_later_bars_change_no_earlier_return(panel3):
    sets = sample_sets(RULE, "sobol", 6, 2)
    short = Sweeper(RULE, panel3.head(250), EnvSpec()).run(sets, Range(start=61, stop=250))
    long = Sweeper(RULE, panel3, EnvSpec()).run(sets, PART)
    assert short.returns.tobytes() == long.returns[:, : 250 - 61].copy().tobytes()


def test_a_sweep_needs_a_bar_to_decide_on(panel3):
    with pytest.raises(DataError, match="no bar before it"):
        Sweeper(RULE, panel3, EnvSpec()).run([RULE.defaults], Range(start=0, stop=50))


# --- what is read off


def test_the_front_holds_whatever_no_other_set_beats_in_both(panel3):
    sweep = Sweeper(RULE, panel3, EnvSpec(allow_short=True)).run(sample_sets(RULE, "sobol", 40, 2), PART)
    front = pareto_front(sweep)

    def beaten(k):
        better = (sweep.sharpe >= sweep.sharpe[k]) & (sweep.max_drawdown >= sweep.max_drawdown[k])
        return (better & ((sweep.sharpe > sweep.sharpe[k]) | (sweep.max_drawdown > sweep.max_drawdown[k]))).any()

    assert set(front) == {k for k in range(40) if not beaten(k)}
    assert list(front) == sorted(front, key=lambda k: -sweep.sharpe[k])


def test_the_heat_table_is_the_median_over_all_other_values(panel3):
    sweep = Sweeper(RULE, panel3, EnvSpec()).run(grid_sets(RULE, {"fast": [5, 9], "slow": [20, 30], "stop_loss": [0.01, 0.03, 0.05]}), PART)
    table, frame = heat_table(sweep, "fast", "slow"), sweep.frame()
    assert table.shape == (2, 2)
    assert table.loc[30, 9] == frame[(frame["fast"] == 9) & (frame["slow"] == 30)]["sharpe"].median()
    with pytest.raises(ConfigError, match="not a parameter"):
        heat_table(sweep, "fast", "speed")
