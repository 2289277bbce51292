"""Looking every night: false promotions stay rare whatever the variance does, edges are seen, and losses count in full."""

import numpy as np
import pytest

from benchmarks.nightly import WORLDS, differences, ever, naive
from ploutos.evaluation.sequential import NIGHTLY, NightlySpec, nightly_evidence, wealth_of

ONE = NightlySpec(block_sessions=1, stakes=(0.5,), first_blocks=1, memory_blocks=1)


def test_wealth_worked_out_by_hand():
    # the first block is watched; then the scale is the root mean square before, of which older ones count half as much
    wealth = wealth_of(np.array([2.0, 1.0, -4.0, 3.0]), ONE)
    scales = [2.0, np.sqrt((4 / 2 + 1) / 1.5), np.sqrt((4 / 4 + 1 / 2 + 16) / 1.75)]
    factors = [1 + 0.5 * 1 / scales[0], max(1 - 0.5 * 4 / scales[1], 0), 1 + 0.5 * 3 / scales[2]]
    assert wealth == pytest.approx([1.0, *np.cumprod(factors)])
    assert wealth[2] == 0  # a loss beyond the stake takes all of it, for good
    blocks = wealth_of(np.array([1.0, 1.0, 0.5, 0.5, 9.9]), ONE.model_copy(update={"block_sessions": 2}))
    assert blocks == pytest.approx([1.0, 1 + 0.5 * 1.0 / 2.0])  # the last night is half a block and waits


def test_the_scale_of_a_night_is_known_before_it():
    past, future = np.random.default_rng(1).standard_normal((2, 60))
    changed = np.r_[past[:40], future[40:] * 50]
    assert (wealth_of(past)[:8] == wealth_of(changed)[:8]).all()


@pytest.mark.parametrize("world", list(WORLDS)[:7])
def test_at_most_one_false_promotion_in_twenty_over_250_nights(world):
    drawn = differences(np.random.default_rng(7), 1500, 250, **WORLDS[world])
    promoted = np.isfinite(ever(drawn)).mean()
    assert promoted <= 0.05
    assert np.isfinite(naive(drawn)).mean() > 4 * max(promoted, 0.03)


def test_blocks_are_what_guards_against_dependence():
    drawn = differences(np.random.default_rng(8), 1500, 250, **WORLDS["AR(1) 0.2, GARCH, t4"])
    single = NIGHTLY.model_copy(update={"block_sessions": 1, "first_blocks": 20})
    assert np.isfinite(ever(drawn, single)).mean() > 1.5 * np.isfinite(ever(drawn)).mean()


def test_real_edges_are_seen_and_sooner_the_larger_they_are():
    rng = np.random.default_rng(9)
    nights = {sharpe: ever(differences(rng, 400, 1260) + sharpe / np.sqrt(252)) for sharpe in (1.0, 2.0, 3.0)}
    medians = [np.median(nights[sharpe]) for sharpe in (3.0, 2.0)]
    assert medians[0] < medians[1] < 504
    assert (nights[3.0] <= 504).mean() > 0.85
    assert np.isfinite(nights[1.0]).mean() < np.isfinite(nights[2.0]).mean()


def test_small_gains_until_a_crash_are_no_edge():
    """A premium that one crash takes back: cutting losses off would call it an edge."""
    drawn = differences(np.random.default_rng(10), 1500, 250, **WORLDS["a crash of 30 deviations every 500 days"])
    assert np.isfinite(ever(drawn)).mean() < 0.06
    won = np.full(400, 0.1) + np.random.default_rng(2).standard_normal(400) * 0.2
    assert wealth_of(won)[-1] > 20
    assert wealth_of(np.r_[won, -30.0, np.zeros(4)])[-1] == 0


def test_evidence_counts_from_the_best_night_and_says_when_it_decided():
    rng = np.random.default_rng(3)
    found = nightly_evidence(rng.standard_normal(600) * 0.01 + 0.003, NIGHTLY)
    assert found.decided_after % 5 == 0
    before = nightly_evidence((rng.standard_normal(3) * 0.01), NIGHTLY)
    assert (before.wealth, before.p, before.n_sessions, before.decided_after) == (1.0, 1.0, 0, None)
    later = nightly_evidence(np.r_[np.full(200, 0.003) + rng.standard_normal(200) * 0.004, np.full(100, -0.02)], NIGHTLY)
    assert later.most > 20 > later.wealth
    assert later.decided_after <= 200


def test_no_difference_is_no_evidence_either_way():
    assert nightly_evidence(np.zeros(300)).most == 1


def test_a_scale_known_beforehand_bets_from_the_first_night():
    drawn = np.full(20, 0.01)
    assert wealth_of(drawn, scale=None)[3] == 1
    assert wealth_of(drawn, scale=0.01)[0] > 1
