"""What `python -m benchmarks.learning` shows, small: a short training of the default agent finds what is planted, out of sample."""

import numpy as np
import pytest

from benchmarks.learning import LAGGED, MEMORY, SLOW, STRONG, Case, by_luck, run, share
from ploutos.strategies.ensemble import member_id

SHORT = 41_000


def found(case, seeds=(1, 2)):
    """Log growth of some accounts over the oracle's, out of sample, all markets together."""
    markets = [run(case, seed) for seed in seeds]
    growth = {
        slug: sum(one[f"out_growth_{slug}"] for one in markets) for slug in ("vote", "logistic", "lasso", "trees", "lagged", "oracle")
    }
    return {slug: value / growth["oracle"] for slug, value in growth.items()}


def short(case, **training):
    return Case(case.scenario, case.strength, case.n_symbols, SHORT, training=training, costs=case.costs, context=case.context)


def test_three_symbols_are_traded_as_well_as_by_the_regressions():
    shares = found(short(STRONG[1]))
    assert shares["vote"] > 0.75
    assert shares["vote"] > shares["logistic"] - 0.05


@pytest.mark.slow
def test_costs_keep_an_agent_from_trading_more_than_a_slow_signal_is_worth():
    shares = found(short(SLOW[2]), seeds=(1, 2))
    assert shares["vote"] > 0.7


@pytest.mark.slow
def test_the_other_symbols_are_worth_something_where_one_is_cheap_beside_them():
    seen, alone = (found(short(Case("planted_cross", 4.5, 10, context=context)), seeds=(1,)) for context in (True, False))
    assert seen["vote"] > max(alone["vote"], alone["logistic"]) + 0.1


@pytest.mark.slow
def test_a_memory_reads_a_cue_that_is_gone_and_a_policy_without_one_does_not():
    remembers, forgets = found(short(LAGGED, **MEMORY), seeds=(1,)), found(short(LAGGED), seeds=(1,))
    assert remembers["vote"] > 0.7
    assert abs(forgets["vote"]) < 0.3


def test_shares_and_luck_are_what_their_words_say():
    assert share(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == "0.50 ± 0.00"
    assert share(np.array([1.0, 2.0]), np.array([2.0, 2.0])) == "0.75 ± 0.25"
    one = {"out_sharpe_vote": -0.2, "out_paid_vote": 0.3, "out_low_vote": -0.1, "out_high_vote": 0.2}
    other = one | {"out_low_vote": 0.01, "out_sharpe_vote": 0.4}
    said = by_luck([{name.replace("vote", member_id(0).slug): value for name, value in each.items()} for each in (one, other)], 1)
    assert said.startswith("1 of 2 trainings beat holding (50.0%")
    assert "0 fell short of it; mean Sharpe ratio 0.100, costs -0.300 of it, before costs 0.400 ± 0.300; 0 never traded" in said
