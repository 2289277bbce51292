"""What the best possible decider earns on a planted market, after costs: the ceiling that a learnt one is measured against.

An oracle knows how the market was made and reads from the bars, up to its own bar, what they tell about the next one. What it then does
is the optimum of a dynamic programme under the costs of the run. Every symbol has a slot of its own, long or flat (or short, where that
is allowed), as with discrete actions; within it the rule is exact for proportional costs. Weights that move a slot's money to another
symbol can earn more than this. Left out: borrow fees, slippage by volatility, and impact.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError
from ploutos.market.bars import FIELDS, Bars
from ploutos.market.instruments import InstrumentSpec
from ploutos.market.synthetic.optimum import PartialAdjustment, garleanu_pedersen, optimal_targets
from ploutos.market.synthetic.planted import PERSISTENCE, Pace, amplitude_of, chain_of, pace_of, read_states
from ploutos.market.synthetic.scenarios import PLANTED, Scenario
from ploutos.market.synthetic.spec import SyntheticSpec
from ploutos.strategies.base import DecisionContext, Role, StrategyId
from ploutos.types import FloatArray, IntArray

ORACLE = StrategyId("oracle", Role.ORACLE)


@dataclass(frozen=True)
class OracleStrategy:
    """Holds in every slot what the dynamic programme says.

    Attributes:
        states: shape (n_bars, n_symbols), state of each symbol's signal, -1 where there is none.
        targets_of: shape (n_symbols, n_states, n_positions), place of the best position.
        positions: shape (n_positions,), shares of a slot.
        slots: shape (n_bars,), share of equity that a slot is.
    """

    states: IntArray
    targets_of: IntArray
    positions: FloatArray
    slots: FloatArray
    asks_policies = False
    ids = (ORACLE,)

    def targets(self, context: DecisionContext) -> FloatArray:
        states, slot = self.states[context.bar], self.slots[context.bar]
        now = np.abs(context.held[..., None] / slot - self.positions).argmin(axis=-1)
        best = self.targets_of[np.arange(len(states)), states, now]
        return np.where((best == now) | (states < 0), np.nan, self.positions[best] * slot)


@dataclass(frozen=True)
class GarleanuPedersenStrategy:
    """Trades part of the way to an aim at every bar, as is best under quadratic costs; weights are cut to what the account may hold.

    Attributes:
        signals: shape (n_bars, n_symbols), standard deviations, nan where there is none.
    """

    signals: FloatArray
    rule: PartialAdjustment
    env: EnvSpec
    asks_policies = False
    ids = (StrategyId("garleanu-pedersen", Role.ORACLE),)

    def targets(self, context: DecisionContext) -> FloatArray:
        wanted = self.rule.next_weights(context.held, np.nan_to_num(self.signals[context.bar]))
        within = np.clip(wanted, -self.env.gross_limit if self.env.allow_short else 0.0, self.env.gross_limit)
        return np.asarray(within * np.minimum(1.0, self.env.gross_limit / np.maximum(np.abs(within).sum(axis=1, keepdims=True), 1e-12)))


def oracle(bars: Bars, spec: SyntheticSpec, env: EnvSpec) -> OracleStrategy:
    """The best account on a planted market.

    Args:
        spec: of the simulation that made the bars, from its start.

    Raises:
        ConfigError: the scenario plants nothing.
    """
    states, chosen, positions = _states(bars, spec), [], (-1.0, 0.0, 1.0) if env.allow_short else (0.0, 1.0)
    slots = env.gross_limit / np.maximum(bars.n_tradable, 1)
    for s, instrument in enumerate(bars.instruments):
        pace, first = _pace(spec, instrument), float(bars.close[bars.tradable[:, s], s][0])
        cost = cost_per_side(instrument, first, env)
        chosen.append(_rule(spec.scenario, spec.strength, pace, cost, positions, float(slots[0])))
    return OracleStrategy(states, np.stack(chosen), np.array(positions), slots)


def garleanu_pedersen_oracle(
    bars: Bars, spec: SyntheticSpec, env: EnvSpec, risk_aversion: float, cost: float, discount: float = 0.0
) -> GarleanuPedersenStrategy:
    """The closed form on `planted_slow`, for any number of symbols.

    Args:
        risk_aversion, cost, discount: as in `ploutos.market.synthetic.optimum.garleanu_pedersen`.

    Raises:
        ConfigError: another scenario, whose signals do not fall back to 0 at one rate.
    """
    if spec.scenario != "planted_slow":
        raise ConfigError(f"the closed form is for planted_slow; found {spec.scenario}: take `oracle`")
    paces = [_pace(spec, instrument) for instrument in bars.instruments]
    sigmas = np.array([pace.sigma for pace in paces])
    betas = sigmas * np.array([amplitude_of(spec.scenario, spec.strength, pace) for pace in paces])
    n = bars.n_symbols
    rule = garleanu_pedersen(np.diag(betas), np.full(n, 1 - PERSISTENCE), np.diag(sigmas**2), risk_aversion, cost, discount)
    states = _states(bars, spec)
    worth = chain_of(spec.scenario, 1.0, 1.0).forecast
    return GarleanuPedersenStrategy(np.where(states < 0, np.nan, worth[states]), rule, env)


def cost_per_side(instrument: InstrumentSpec, price: float, env: EnvSpec) -> float:
    """What a fill costs as a share of its value, without what depends on its size or on volatility."""
    bps = env.costs.commission_bps + env.costs.half_spread_bps + env.costs.slippage_bps if instrument.costs_in_bps else 0.0
    per_unit = instrument.commission_per_unit + instrument.slippage_ticks * instrument.tick_value
    return bps / 1e4 + per_unit / (price * instrument.multiplier)


def _pace(spec: SyntheticSpec, instrument: InstrumentSpec) -> Pace:
    return pace_of(instrument.calendar, spec.bar, spec.annual_volatility)


@lru_cache(maxsize=256)
def _rule(scenario: Scenario, strength: float, pace: Pace, cost: float, positions: tuple[float, ...], slot: float) -> IntArray:
    chain = chain_of(scenario, amplitude_of(scenario, strength, pace), pace.sigma)
    return optimal_targets(chain, np.array(positions), cost, slot * pace.sigma**2)


def _states(bars: Bars, spec: SyntheticSpec) -> IntArray:
    """States of every symbol's signal, each read on its own bars; shape (n_bars, n_symbols), -1 where there is none."""
    if spec.scenario not in PLANTED:
        raise ConfigError(f"the scenario {spec.scenario} plants no signal, so it has no oracle; choose one of {', '.join(PLANTED)}")
    states = np.full((bars.n_bars, bars.n_symbols), -1, dtype=np.int64)
    together = [list(range(bars.n_symbols))] if spec.scenario == "planted_cross" else [[s] for s in range(bars.n_symbols)]
    for group in together:
        rows = np.flatnonzero(bars.tradable[:, group].all(axis=1))[:, None]
        open_, high, low, close, volume = (getattr(bars, field)[rows, group] for field in FIELDS)
        states[rows, group] = read_states(spec.scenario, open_, high, low, close, volume, _pace(spec, bars.instruments[group[0]]).sigma)
    return states
