"""Fusion against a plain reading of its rules; vetoes fired by accounts that really traded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ledger import one_symbol

from ploutos.envs import ledger
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.fusion.decisions import VectorizedDecisionFusion
from ploutos.fusion.risk import RiskHistory
from ploutos.fusion.spec import FusionSpec, RiskSpec

fuse = VectorizedDecisionFusion().fuse_batch


def plain(rl, rl_confidence, llm, llm_confidence, risk):
    """The documented order of rules for one decision."""
    if risk > 0.7:
        return HOLD
    if rl == llm:
        return rl
    if rl_confidence > 0.7 and not llm_confidence > 0.7:
        return rl
    if llm_confidence > 0.7 and not rl_confidence > 0.7:
        return llm
    return llm if llm_confidence * 0.3 > rl_confidence * (1 - 0.3) else rl


levels = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.3, 0.7, np.nextafter(0.7, 1), 1.0]))
decision = st.tuples(st.integers(0, 2), levels, st.integers(0, 2), levels, levels)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(decision, min_size=1, max_size=30))
def test_a_batch_equals_the_rules_read_one_by_one(rows):
    fused = fuse(*(np.array(column) for column in zip(*rows, strict=True)))
    assert fused.tolist() == [plain(*row) for row in rows]


def test_ten_thousand_random_decisions_equal_the_rules_read_one_by_one():
    random = np.random.default_rng(0)
    rl, llm = random.integers(0, 3, (2, 10_000))
    rl_confidence, llm_confidence, risk = random.random((3, 10_000))
    fused = fuse(rl, rl_confidence, llm, llm_confidence, risk)
    assert fused.tolist() == [plain(*row) for row in zip(rl, rl_confidence, llm, llm_confidence, risk, strict=True)]
    assert set(fused[risk > 0.7]) == {HOLD}


def test_rows_and_columns_of_tables_are_fused_as_they_lie_and_a_missing_one_is_refused():
    random = np.random.default_rng(1)
    rl, llm = random.integers(0, 3, (2, 8, 5))
    rl_confidence, llm_confidence, risk = random.random((3, 8, 5))
    columns = [rl, rl_confidence, llm, llm_confidence, risk]
    expected = np.array([plain(*row) for row in zip(*(column.ravel() for column in columns), strict=True)]).reshape(8, 5)
    np.testing.assert_array_equal(fuse(*columns), expected)
    np.testing.assert_array_equal(fuse(*(column.T for column in columns)), expected.T)
    np.testing.assert_array_equal(fuse(*(column[:, ::2] for column in columns)), expected[:, ::2])
    with pytest.raises(ValueError, match="differ in length"):
        fuse(rl, rl_confidence[:7], llm, llm_confidence, risk)


def test_the_thresholds_and_the_weight_are_settings():
    one = (np.array([BUY]), np.array([0.6]), np.array([SELL]), np.array([0.65]), np.array([0.5]))
    assert fuse(*one) == BUY
    assert VectorizedDecisionFusion(FusionSpec(llm_weight=0.5)).fuse_batch(*one) == SELL
    assert VectorizedDecisionFusion(FusionSpec(confidence_threshold=0.62)).fuse_batch(*one) == SELL
    assert VectorizedDecisionFusion(FusionSpec(risk_threshold=0.4)).fuse_batch(*one) == HOLD


def plain_blend(rl, p, llm, q, risk, weight):
    """The documented rules of a blend for one decision; None as the advice is HOLD, and as the answer no order."""
    if risk > 0.7:
        return None
    if llm is None or q * weight == 0:
        return rl
    share = q * weight / (q * weight + p * (1 - weight))
    return rl + share * (llm - rl)


size = st.floats(-1, 1)
blending = st.tuples(size, levels, st.one_of(st.none(), size), levels, levels)


def blend(rows, weight):
    columns = [np.array([np.nan if value is None else value for value in column]) for column in zip(*rows, strict=True)]
    return VectorizedDecisionFusion(FusionSpec(llm_weight=weight)).blend_batch(*columns)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(blending, min_size=1, max_size=30), weight=levels)
def test_a_blended_batch_equals_the_rules_read_one_by_one_and_lies_between_the_two(rows, weight):
    for row, found in zip(rows, blend(rows, weight), strict=True):
        expected = plain_blend(*row, weight)
        if expected is None:
            assert np.isnan(found)
            continue
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-300)
        ends = [row[0], row[0] if row[2] is None else row[2]]
        assert min(ends) - 1e-15 <= found <= max(ends) + 1e-15
        if weight == 0 or row[3] == 0 or row[2] is None or row[2] == row[0]:
            assert found == row[0]


@settings(max_examples=200, deadline=None)
@given(rl=size, llm=size, p=st.floats(0.5, 1), q=st.floats(0, 1), weight=st.floats(0, 0.9), step=st.floats(0, 1e-4))
def test_a_blend_moves_towards_the_advice_with_its_weight_and_confidence_and_never_jumps(rl, llm, p, q, weight, step):
    """Not even where a confidence passes the threshold of 0.7, and it ends where the policy stands."""
    at = blend([(rl, p, llm, q, 0.0)], weight)[0]
    more = [blend([(rl, p, llm, min(q + step, 1.0), 0.0)], weight)[0], blend([(rl, p, llm, q, 0.0)], weight + step)[0]]
    more.append(blend([(rl, max(p - step, 0.5), llm, q, 0.0)], weight)[0])
    for further in more:
        assert abs(further - llm) <= abs(at - llm) + 1e-12
        assert abs(further - at) <= 2 * 20 * step + 1e-12  # p (1 - w) is 0.05 at least, so no slope is above 20
    assert blend([(rl, p, llm, 1e-9, 0.0)], weight)[0] == pytest.approx(rl, abs=1e-6)


def account(losses=0, exit_bar=100, drawdown=0.0, outcomes=0, n_outcomes=0, units=0.0):
    accounts = ledger.Accounts.open(1, 1, 1000.0)
    accounts.loss_streak[:], accounts.exit_bar[:] = losses, exit_bar
    accounts.equity[:] = 1000.0 * (1 - drawdown)
    accounts.outcomes[:], accounts.n_outcomes[:], accounts.units[:] = outcomes, n_outcomes, units
    return accounts


@pytest.mark.parametrize(
    ("state", "score"),
    [
        ({}, 0.0),
        ({"losses": 1}, 0.2 / 3),
        ({"losses": 2}, 0.4 / 3),
        ({"losses": 3}, 0.4),
        ({"losses": 5}, 0.4),
        ({"losses": 5, "exit_bar": 79}, 0.0),  # 21 bars ago: forgiven
        ({"drawdown": 0.2}, 0.0),
        ({"drawdown": 0.21}, 0.3),
        ({"outcomes": 0b1, "n_outcomes": 4}, 0.0),  # too few trades to judge
        ({"outcomes": 0b1, "n_outcomes": 5}, 0.3),
        ({"outcomes": 0b11, "n_outcomes": 5}, 0.0),  # two of five are not below 40 %
        ({"losses": 4, "drawdown": 0.3, "outcomes": 0b1, "n_outcomes": 5}, 1.0),
    ],
)
def test_the_risk_score_adds_up(state, score):
    assert RiskHistory.of(account(**state), 100, RiskSpec()).scores() == pytest.approx(score)


def traded(orders, closes, **spec):
    """An account that traded one symbol: open and close of each bar alike, no costs but a basis point."""
    bars = one_symbol(closes, closes)
    env = EnvSpec(rebalance_band=0, ruin_fraction=0, costs=CostSpec(commission_bps=1, slippage_bps=0), **spec)
    arrays = ledger.make_market_arrays(bars)
    accounts = ledger.Accounts.open(1, 2, env.cash)
    for t, order in enumerate(orders):
        ledger.step(accounts, np.array([t]), np.array([[order, np.nan]]), arrays, env)
    return accounts, len(orders)


def allowed(target, accounts, bar, **spec):
    held = 0.5 * np.sign(accounts.units)
    return RiskHistory.of(accounts, bar, RiskSpec(**spec)).veto(np.full((1, 2), target), held)[0, 0]


def test_three_losing_trades_in_a_row_block_the_next_entry_for_a_while():
    losing = [0.1, 0.0] * 3  # bought and sold at the same price: the fee makes each a loss
    for trades, blocked in ((2, False), (3, True)):
        accounts, bar = traded(losing[: 2 * trades], [100.0] * 8)
        assert accounts.loss_streak[0, 0] == trades
        assert np.isnan(allowed(0.6, accounts, bar)) == blocked
    assert np.isnan(allowed(0.6, accounts, bar + 20))
    assert allowed(0.6, accounts, bar + 21) == 0.6
    assert allowed(0.6, accounts, bar, max_consecutive_losses=4) == 0.6


def test_a_poor_hit_rate_blocks_an_entry_even_after_a_winner():
    closes = [100.0] * 9 + [100.0, 110.0, 110.0]
    accounts, bar = traded([0.1, 0.0] * 4 + [0.1, 0.0], closes)
    assert accounts.loss_streak[0, 0] == 0  # the last trade won
    assert accounts.n_outcomes[0, 0] == 5
    assert np.isnan(allowed(0.6, accounts, bar))
    assert allowed(0.6, accounts, bar, min_win_rate=0.1) == 0.6


def test_a_deep_drawdown_forbids_buying_more_and_never_selling():
    accounts, bar = traded([1.0, np.nan], [100.0, 100.0, 55.0])
    assert accounts.drawdown[0] < -0.4
    assert accounts.units[0, 0] > 0
    assert np.isnan(allowed(0.6, accounts, bar))
    assert allowed(0.4, accounts, bar) == 0.4
    assert allowed(0.0, accounts, bar) == 0.0
    assert allowed(0.6, accounts, bar, allowed_drawdown=1.0) == 0.6
