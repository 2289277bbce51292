"""What fusion and the vetoes must hold for every spec, and the sides of each veto that must stay open."""

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

share = st.floats(0, 1)
LOSING = [0.1, 0.0]  # bought and sold at one price: the fee makes it a loss


def traded(orders, closes):
    """An account that traded one symbol whose bars open where they close, for a fee of one basis point."""
    spec = EnvSpec(rebalance_band=0, ruin_fraction=0, costs=CostSpec(commission_bps=1, slippage_bps=0))
    arrays = ledger.make_market_arrays(one_symbol(closes, closes))
    accounts = ledger.Accounts.open(1, 2, spec.cash)
    for t, order in enumerate(orders):
        ledger.step(accounts, np.array([t]), np.array([[order, np.nan]]), arrays, spec)
    return accounts, len(orders)


def answer(target, accounts, bar, **limits):
    """What a veto leaves of an order for each symbol, None for no order."""
    held = 0.5 * np.sign(accounts.units)  # the size of a position does not matter here
    left = RiskHistory.of(accounts, bar, RiskSpec(**limits)).veto(np.full((1, 2), target), held)[0]
    return [None if np.isnan(order) else float(order) for order in left]


def scalar(spec, rl, rl_confidence, llm, llm_confidence, risk):
    """The documented rules for one decision under any spec."""
    sure = spec.confidence_threshold
    if risk > spec.risk_threshold:
        return HOLD
    if rl == llm:
        return rl
    if rl_confidence > sure >= llm_confidence:
        return rl
    if llm_confidence > sure >= rl_confidence:
        return llm
    return llm if llm_confidence * spec.llm_weight > rl_confidence * (1 - spec.llm_weight) else rl


@settings(max_examples=200, deadline=None)
@given(data=st.data(), risk_threshold=share, sure=share, weight=share)
def test_the_rules_hold_for_every_spec_and_at_its_very_thresholds(data, risk_threshold, sure, weight):
    spec = FusionSpec(risk_threshold=risk_threshold, confidence_threshold=sure, llm_weight=weight)
    level = st.one_of(share, st.sampled_from([risk_threshold, sure, weight]))
    row = data.draw(st.tuples(st.integers(0, 2), level, st.integers(0, 2), level, level))
    fused = VectorizedDecisionFusion(spec).fuse_batch(*(np.array([value]) for value in row))
    assert fused.tolist() == [scalar(spec, *row)]


@pytest.mark.parametrize(
    ("row", "action"),
    [
        ((BUY, 1.0, BUY, 1.0, 0.71), HOLD),  # risk dominates even two who agree
        ((BUY, 0.0, BUY, 0.0, 0.7), BUY),  # at the threshold is not above it
        ((BUY, 0.7, SELL, 0.71, 0.0), SELL),  # one side at the threshold, the other above
        ((BUY, 0.71, SELL, 0.7, 0.0), BUY),
        ((BUY, 0.3, SELL, 0.7, 0.0), BUY),  # 0.21 against 0.21: the policy's
        ((HOLD, 0.2, SELL, 0.6, 0.0), SELL),  # 0.14 against 0.18
        ((BUY, 0.9, SELL, 1.0, 0.0), BUY),  # both sure: 0.63 against 0.30
    ],
)
def test_each_rule_decides_its_own_case(row, action):
    assert VectorizedDecisionFusion().fuse_batch(*(np.array([value]) for value in row)).tolist() == [action]


def test_the_score_of_an_account_that_lost_three_trades_is_forgiven_after_the_cooldown():
    accounts, bar = traded(LOSING * 3, [100.0] * 8)
    assert RiskHistory.of(accounts, bar + 20, RiskSpec()).scores()[0].tolist() == [0.4, 0.0]  # the other symbol never traded
    assert RiskHistory.of(accounts, bar + 21, RiskSpec()).scores()[0].tolist() == [0.0, 0.0]


def test_a_losing_streak_blocks_its_own_symbol_only():
    accounts, bar = traded(LOSING * 3, [100.0] * 8)
    assert answer(0.6, accounts, bar) == [None, 0.6]
    assert answer(-0.6, accounts, bar) == [None, -0.6]
    assert answer(0.0, accounts, bar) == [0.0, 0.0]


def test_a_position_held_through_a_losing_streak_may_be_enlarged_or_sold_but_not_turned():
    accounts, bar = traded([*LOSING * 3, 0.1], [100.0] * 9)
    assert accounts.loss_streak[0, 0] == 3
    assert accounts.units[0, 0] > 0
    assert answer(0.6, accounts, bar)[0] == 0.6
    assert answer(0.1, accounts, bar)[0] == 0.1
    assert answer(-0.6, accounts, bar)[0] == 0.0  # of a reversal only the closing half remains


def test_a_poor_hit_rate_is_forgiven_after_the_cooldown():
    accounts, bar = traded(LOSING * 5, [100.0] * 10 + [110.0])
    assert (accounts.loss_streak[0, 0], accounts.n_outcomes[0, 0]) == (0, 5)  # the fifth trade won
    assert answer(0.6, accounts, bar + 7, cooldown_bars=7)[0] is None
    assert answer(0.6, accounts, bar + 8, cooldown_bars=7)[0] == 0.6


def test_a_drawdown_that_uses_up_its_buffer_is_never_forgiven_and_binds_every_symbol():
    accounts, bar = traded([1.0, 0.0], [100.0, 100.0, 55.0])
    assert accounts.drawdown[0] == pytest.approx(-0.45, abs=1e-3)
    assert answer(0.6, accounts, bar + 1000) == [None, None]  # a tenth of the allowed half is left
    assert answer(0.6, accounts, bar + 1000, min_drawdown_buffer=0.09) == [0.6, 0.6]
    assert answer(0.0, accounts, bar) == [0.0, 0.0]
