"""Planted markets: as strong as they say, readable in time and nowhere else, and oracles that nothing beats on its own model."""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from scipy.signal import lfilter

from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.errors import ConfigError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import oracle_capture, periods_of, session_returns, sharpe_ratio
from ploutos.features.build import FeatureSpec, build_features
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.market.synthetic.optimum import autoregression, garleanu_pedersen, optimal_targets, sharpe_of_rule, signal_chain
from ploutos.market.synthetic.planted import LAG, PERSISTENCE, REFERENCE_COST, amplitude_of, chain_of, pace_of
from ploutos.market.synthetic.scenarios import PLANTED
from ploutos.market.synthetic.spec import SyntheticSpec
from ploutos.strategies.base import PrecomputedTargets, StrategyId
from ploutos.strategies.check import check_strategy
from ploutos.strategies.oracles import OracleStrategy, garleanu_pedersen_oracle, oracle
from ploutos.walk_forward import Range

TWENTY = tuple(f"EQ{letter}" for letter in "ABCDEFGHIJKLMNOPQRST")
ENV, FREE = EnvSpec(), EnvSpec(costs=CostSpec(commission_bps=0, slippage_bps=0))
FIRST = 20


@lru_cache(maxsize=16)
def planted(scenario: str, strength: float = 1.5, timeframe: str = "1D", symbols=TWENTY, years: int = 8, seed: int = 7) -> Bars:
    settings = {"scenario": scenario, "strength": strength, "seed": seed}
    span = {"start": f"{2026 - years}-01-02", "end": "2025-12-31"}
    return load(DataSpec(source="synthetic", symbols=symbols, timeframe=timeframe, synthetic=settings, **span))


def spec_of(scenario: str, strength: float = 1.5, timeframe: str = "1D") -> SyntheticSpec:
    return SyntheticSpec(scenario=scenario, strength=strength, timeframe=timeframe)


@dataclass(frozen=True)
class Apart:
    """An account per symbol; each follows the oracle in its own symbol with all its money."""

    oracle: OracleStrategy
    asks_policies = False

    @property
    def ids(self):
        return tuple(StrategyId(f"account-{s}") for s in range(self.oracle.states.shape[1]))

    def targets(self, context):
        whole = replace(self.oracle, slots=np.ones_like(self.oracle.slots)).targets(context)
        return np.where(np.eye(len(whole), dtype=bool), whole, np.nan)


def run(bars: Bars, *strategies, env: EnvSpec = ENV):
    return run_backtests(bars, None, [Segment(Range(start=FIRST, stop=bars.n_bars))], strategies, env, keep=())


def sharpes(bars: Bars, result) -> np.ndarray:
    periods = periods_of(bars, result)
    return np.array([sharpe_ratio(session_returns(equity, periods), periods.per_year) for equity in result.equity])


def growth(result) -> np.ndarray:
    return np.log(result.equity[:, -1] / result.equity[:, 0])


# --- as strong as it says


@pytest.mark.parametrize(("scenario", "timeframe"), [*product(PLANTED, ("1D", "1h"))])
def test_twenty_accounts_of_the_oracle_earn_the_sharpe_ratio_that_was_asked_for(scenario, timeframe):
    bars = planted(scenario, 1.5, timeframe, years=8 if timeframe == "1D" else 3)
    found = sharpes(bars, run(bars, Apart(oracle(bars, spec_of(scenario, 1.5, timeframe), ENV))))
    assert found.mean() == pytest.approx(1.5, abs=2 * found.std(ddof=1) / np.sqrt(20))


def test_many_symbols_earn_the_root_of_their_number_times_as_much():
    bars = planted("planted_slow")
    (found,) = sharpes(bars, run(bars, oracle(bars, spec_of("planted_slow"), ENV)))
    assert found == pytest.approx(1.5 * np.sqrt(20), rel=0.12)


def test_strength_is_defined_on_the_costs_that_an_environment_charges_by_default():
    costs = CostSpec()
    assert pytest.approx((costs.commission_bps + costs.half_spread_bps + costs.slippage_bps) / 1e4) == REFERENCE_COST


def test_the_strength_of_today_and_of_before():
    """The constant that `planted` had, a correlation of signs of 0.3, is 4.2 hourly and 2.4 daily."""
    for timeframe, expected in (("1h", 4.2), ("1D", 2.4)):
        pace = pace_of("NYSE", SyntheticSpec(timeframe=timeframe).bar, 0.18)
        assert amplitude_of("planted", expected, pace) == pytest.approx(0.3, abs=0.005)


@pytest.mark.parametrize("scenario", PLANTED)
def test_more_strength_is_more_amplitude_and_none_is_none(scenario):
    pace = pace_of("NYSE", SyntheticSpec().bar, 0.18)
    found = [amplitude_of(scenario, strength, pace) for strength in (0, 0.5, 1, 2, 4)]
    assert found[0] == 0
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("scenario", PLANTED)
def test_without_strength_what_the_oracle_reads_tells_nothing(scenario):
    bars = planted(scenario, 0.0)
    told = oracle(bars, spec_of(scenario, 1.5), FREE)  # as if there were something
    found = sharpes(bars, run(bars, Apart(told), env=FREE))
    assert abs(found.mean()) < 3 * found.std(ddof=1) / np.sqrt(20)
    assert (growth(run(bars, oracle(bars, spec_of(scenario, 0.0), ENV))) == 0).all()


def test_impossible_markets_are_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"strength is 99; the oracle of planted can earn a Sharpe ratio of \d+\.\d at most"):
        planted("planted", 99.0)
    with pytest.raises(ConfigError, match="planted_cross got SPY; expected two markets or more"):
        planted("planted_cross", symbols=("SPY",))
    with pytest.raises(ConfigError, match="too volatile to carry a signal"):
        load(DataSpec(source="synthetic", timeframe="1D", synthetic={"scenario": "planted_slow", "annual_volatility": 3.0}))
    with pytest.raises(ConfigError, match="the scenario noise plants no signal"):
        oracle(planted("planted"), spec_of("noise"), ENV)


# --- read in time, from the standard features, and from nothing else


@pytest.mark.parametrize("scenario", PLANTED)
def test_oracles_keep_the_contract_of_a_strategy_and_know_no_future(scenario):
    bars = planted(scenario, symbols=TWENTY[:3])
    check_strategy(lambda some: (oracle(some, spec_of(scenario), ENV), None), bars, Range(start=FIRST, stop=400), ENV)


def signal_of(bars: Bars, scenario: str, **settings) -> np.ndarray:
    states = oracle(bars, spec_of(scenario, **settings), ENV).states
    worth = chain_of(scenario, 0.5, 1.0).forecast
    return np.where(states >= 0, worth[states] / worth.std(), np.nan)


def next_returns(bars: Bars) -> np.ndarray:
    return np.vstack([np.log(bars.close[1:] / bars.close[:-1]), np.full((1, bars.n_symbols), np.nan)])


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    known = np.isfinite(first) & np.isfinite(second)
    return float(np.corrcoef(first[known], second[known])[0, 1])


@pytest.mark.parametrize("scenario", PLANTED[1:])
def test_the_signal_correlates_with_the_next_return_by_the_amplitude(scenario):
    bars = planted(scenario, 4.5)
    amplitude = amplitude_of(scenario, 4.5, pace_of("NYSE", SyntheticSpec(timeframe="1D").bar, 0.18))
    assert correlation(signal_of(bars, scenario, strength=4.5), next_returns(bars)) == pytest.approx(amplitude, abs=0.02)


def test_the_cue_of_a_slow_signal_is_one_standard_feature():
    bars = planted("planted_slow")
    features = build_features(bars, FeatureSpec(include=("close_location",)))
    assert correlation(features.values[:, :, 0].astype(float), signal_of(bars, "planted_slow")) > 0.999


def test_the_cue_of_a_lagged_signal_is_the_volume_of_its_own_bar_and_of_no_later_one():
    bars = planted("planted_lagged", 4.5)
    features = build_features(bars, FeatureSpec())
    ahead, row = next_returns(bars), {name: features.values[:, :, i].astype(float) for i, name in enumerate(features.names)}
    cue = np.roll(row["volume_ratio_20"], LAG - 1, axis=0)
    assert correlation(cue[40:], ahead[40:]) > 0.35
    now = {name: abs(correlation(values[120:], ahead[120:])) for name, values in row.items() if name != "gap"}  # there are no gaps
    assert max(now.values()) < 0.05  # a window of 20 bars holds a twentieth of it


def test_a_strategy_that_sees_the_last_bar_alone_earns_nothing_where_the_cue_is_many_bars_back():
    bars = planted("planted_lagged", 4.5)
    features = build_features(bars, FeatureSpec(include=("volume_ratio_20", "log_return_1")))
    whole = growth(run(bars, oracle(bars, spec_of("planted_lagged", 4.5), FREE), env=FREE))[0]
    for feature, sign in product(range(2), (1, -1)):
        table = np.where(sign * features.values[:, :, feature] > 0, 1 / 20, 0.0)
        (earned,) = growth(run(bars, PrecomputedTargets("last-bar", table), env=FREE))
        assert abs(earned) < 0.06 * whole


def test_deciding_symbol_by_symbol_earns_less_than_deciding_across_symbols():
    bars = planted("planted_cross", 3.0)
    cues = build_features(bars, FeatureSpec(include=("close_location",))).values[:, :, 0].astype(float)
    across = cues - cues.mean(axis=1, keepdims=True)
    tables = [PrecomputedTargets(name, np.where(each > 0, 1 / 20, 0.0)) for name, each in (("own", cues), ("across", across))]
    own, relative, best = growth(run(bars, *tables, oracle(bars, spec_of("planted_cross", 3.0), ENV)))
    assert own < 0.6 * relative < 0.6 * best


def test_no_linear_rule_of_the_cue_earns_anything_where_regimes_turn_its_meaning():
    bars = planted("planted_regime", 4.5)
    features = build_features(bars, FeatureSpec(include=("range", "close_location"))).values.astype(float)
    length, cue = features[:, :, 0], features[:, :, 1]
    assert abs(correlation(cue, next_returns(bars))) < 0.05
    turned = np.where(length > 3.5 * 0.18 / np.sqrt(252), -cue, cue)  # the length of a bar tells which regime it is
    assert correlation(turned, signal_of(bars, "planted_regime", strength=4.5)) > 0.7
    assert correlation(turned, next_returns(bars)) > 0.3


# --- optima


def test_the_programme_equals_value_iteration_by_hand_on_a_small_grid():
    grid, positions, cost, variance = np.array([-1.5, -0.5, 0.5, 1.5]), np.array([-1.0, 0.0, 0.5, 1.0]), 0.4, 0.3
    chain = signal_chain(0.2 * grid, autoregression(grid, 0.8))
    n, m = len(grid), len(positions)
    value = [[0.0] * m for _ in range(n)]

    def worth(s: int, held: int, then: int) -> float:
        ahead = sum(chain.transition[s, after] * value[after][then] for after in range(n))
        earned = positions[then] * chain.forecast[s] - variance / 2 * positions[then] ** 2
        return earned - cost * abs(positions[then] - positions[held]) + 0.9999 * ahead

    for _ in range(400):
        value = [[max(worth(s, held, then) for then in range(m)) for held in range(m)] for s in range(n)]
    by_hand = [[max(range(m), key=lambda then, s=s, held=held: worth(s, held, then)) for held in range(m)] for s in range(n)]
    assert optimal_targets(chain, positions, cost, variance).tolist() == by_hand
    assert len({target for row in by_hand for target in row}) > 2


def growth_of_path(signal: np.ndarray, returns: np.ndarray, low: float, high: float, cost: float) -> float:
    """Of an account that is long above a band, flat below it, and keeps what it holds within."""
    decided = np.where(signal > high, 1.0, np.where(signal < low, 0.0, np.nan))
    last = np.maximum.accumulate(np.where(np.isnan(decided), 0, np.arange(len(decided))))
    held = np.nan_to_num(decided[last])
    return float((held[:-1] * returns[1:]).sum() - cost * np.abs(np.diff(held, prepend=0.0)).sum())


@pytest.mark.parametrize("cost", [5e-4, 2e-3, 5e-3])
def test_no_constant_band_beats_the_programme_on_its_own_model(cost):
    random, n, sigma, amplitude = np.random.default_rng(3), 200_000, 0.01, 0.1
    signal = lfilter([np.sqrt(1 - PERSISTENCE**2)], [1.0, -PERSISTENCE], random.standard_normal(n))
    returns = amplitude * sigma * np.r_[0.0, np.clip(signal, -3, 3)[:-1]]  # in the mean: the noise is the same for all
    targets = optimal_targets(chain_of("planted_slow", amplitude, sigma), np.array([0.0, 1.0]), cost)
    grid = np.linspace(-3, 3, 121)
    enter, leave = grid[targets[:, 0] == 1].min(), grid[targets[:, 1] == 0].max()
    best = growth_of_path(signal, returns, leave + 0.025, enter - 0.025, cost)
    edges = np.arange(-1.6, 1.61, 0.2)
    others = [growth_of_path(signal, returns, low, high, cost) for low, high in product(edges, edges) if low <= high]
    assert max(others) < best * 1.005
    assert growth_of_path(signal, returns, 0.0, 0.0, cost) < best * 0.99  # following every turn is worse


def test_higher_costs_widen_the_region_in_which_nothing_is_traded():
    chain = chain_of("planted_slow", 0.1, 0.01)
    rules = [optimal_targets(chain, np.array([0.0, 1.0]), cost) for cost in (0.0, 5e-4, 2e-3, 5e-3)]
    kept = [int((rule == np.arange(2)).all(axis=1).sum()) for rule in rules]
    assert kept[0] <= 1
    assert (np.diff(kept) > 0).all()
    assert (optimal_targets(chain, np.array([0.0, 1.0]), 10.0) == np.arange(2)).all()


def test_the_sharpe_ratio_of_a_rule_is_that_of_a_simulation():
    chain, positions, sigma, cost = chain_of("planted", 0.3, 0.01), np.array([0.0, 1.0]), 0.01, 1e-3
    random, n = np.random.default_rng(5), 700_000
    sign = np.where(np.cumsum(random.random(n) >= 0.65) % 2, -1.0, 1.0)
    returns = sigma * np.abs(random.standard_normal(n)) * sign
    held = (sign[:-1] > 0).astype(float)
    earned = held * returns[1:] - cost * np.abs(np.diff(held, prepend=0.0))
    sessions = earned[: n // 7 * 7 - 7].reshape(-1, 7).sum(axis=1)
    expected = sharpe_of_rule(chain, optimal_targets(chain, positions, cost), positions, cost, sigma, 7, 252)
    assert sharpe_ratio(sessions, 252) == pytest.approx(expected, abs=0.1)


def test_garleanu_and_pedersen_is_their_example_and_the_solution_of_its_riccati_equation():
    """Example 1 of the paper: one asset, one signal; and the same problem solved numerically, two assets and two signals."""
    gamma, cost = 2.0, 5.0
    one = garleanu_pedersen(np.array([[0.3]]), np.array([0.1]), np.array([[0.04]]), gamma, cost)
    share = (np.sqrt(gamma**2 + 4 * gamma * cost) - gamma) / 2
    assert one.rate == pytest.approx(share / cost)
    assert one.loadings[0, 0] == pytest.approx(0.3 / (gamma * 0.04) / (1 + 0.1 * share / gamma))
    betas, reversion, discount = np.array([[0.3, 0.1], [-0.2, 0.25]]), np.array([0.1, 0.4]), 0.02
    covariance = np.array([[0.04, 0.01], [0.01, 0.09]])
    rule = garleanu_pedersen(betas, reversion, covariance, gamma, cost, discount)
    trade, kept = cost * covariance, 1 - discount
    quadratic, mixed = np.zeros((2, 2)), np.zeros((2, 2))  # value = -x'Ax/2 + x'Bf
    for _ in range(20_000):
        whole = trade + kept * (gamma * covariance + quadratic)
        quadratic, mixed = (
            trade - trade @ np.linalg.solve(whole, trade),
            trade @ np.linalg.solve(whole, kept * (betas + mixed @ np.diag(1 - reversion))),
        )
    whole = trade + kept * (gamma * covariance + quadratic)
    held, signals = np.array([0.5, -0.2]), np.array([1.2, -0.7])
    best = np.linalg.solve(whole, trade @ held + kept * (betas + mixed @ np.diag(1 - reversion)) @ signals)
    np.testing.assert_allclose(rule.next_weights(held, signals), best, rtol=1e-8)


def test_the_closed_form_runs_through_the_ledger_within_the_account_limits():
    bars = planted("planted_slow", 4.5, symbols=TWENTY[:3])

    def build(some: Bars):
        return garleanu_pedersen_oracle(some, spec_of("planted_slow", 4.5), ENV, risk_aversion=1.0, cost=20.0), None

    check_strategy(build, bars, Range(start=FIRST, stop=400), ENV)
    free, slots = growth(run(bars, build(bars)[0], oracle(bars, spec_of("planted_slow", 4.5), ENV)))
    assert free > slots  # it may hold one symbol with all its money, and a slot is a third
    alone = planted("planted_slow", 4.5, symbols=TWENTY[:1])
    smooth, best = growth(run(alone, build(alone)[0], oracle(alone, spec_of("planted_slow", 4.5), ENV)))
    assert 0 < smooth < best  # under proportional costs
    with pytest.raises(ConfigError, match="the closed form is for planted_slow; found planted_cross"):
        garleanu_pedersen_oracle(bars, spec_of("planted_cross"), ENV, 1.0, 20.0)


def test_an_oracle_trades_less_where_trading_is_dear_and_goes_short_where_it_may():
    bars = planted("planted_slow", 3.0, symbols=TWENTY[:3])
    dear = EnvSpec(costs=CostSpec(slippage_bps=40))
    few, many = (
        run_backtests(
            bars, None, [Segment(Range(start=FIRST, stop=bars.n_bars))], [oracle(bars, spec_of("planted_slow", 3.0), env)], env, ("costs",)
        ).traded[0, -1]
        for env in (dear, ENV)
    )
    assert few < 0.6 * many
    both = ENV.model_copy(update={"allow_short": True})
    long, short = (growth(run(bars, oracle(bars, spec_of("planted_slow", 3.0), env), env=env))[0] for env in (ENV, both))
    assert short > 1.5 * long


def test_capture_is_growth_over_the_oracles():
    bars = planted("planted", 4.5, symbols=TWENTY[:3])
    follow = PrecomputedTargets("follow", np.where(bars.close > bars.open, 1 / 3, 0.0))
    result = run(bars, follow, oracle(bars, spec_of("planted", 4.5), ENV))
    assert oracle_capture(result, "oracle") == pytest.approx(1.0)
    assert oracle_capture(result, "follow") == pytest.approx(growth(result)[0] / growth(result)[1])
    assert 0.8 < oracle_capture(result, "follow") < 1.05
    nothing = replace(result, equity=np.ones_like(result.equity))
    assert np.isnan(oracle_capture(nothing, "follow"))
