"""What supervised deciders take of a planted market; `python -m benchmarks.planted`.

*Share* is log growth over the oracle's, out of sample, after costs, in the same ledger: the test ranges of walk-forward folds in one
piece. `--strengths` are the oracle's yearly Sharpe ratios of the whole account, so a symbol's own is that over the root of their number.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import mean, stdev

from ploutos.hardware.threads import cap_threads

cap_threads(1)

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import oracle_capture
from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load, synthetic_spec
from ploutos.market.synthetic.scenarios import PLANTED
from ploutos.strategies.base import Strategy
from ploutos.strategies.oracles import garleanu_pedersen_oracle, oracle
from ploutos.strategies.regression import fit_regression, regression_strategy
from ploutos.strategies.spec import RegressionKind, RegressionSpec
from ploutos.walk_forward import Fold, FoldSpec, plan_folds

CLOSED_FORM = "garleanu-pedersen"
Decider = Callable[[Bars, FeatureSet, Sequence[Fold], EnvSpec], Strategy]


def planted_data(scenario: str, strength: float, n_symbols: int, seed: int, timeframe: str = "1D", years: int = 10) -> DataSpec:
    """A planted market whose oracle earns `strength` with all symbols together."""
    names = tuple(f"EQ{chr(65 + s // 26)}{chr(65 + s % 26)}" for s in range(n_symbols))
    synthetic = {"scenario": scenario, "strength": strength / n_symbols**0.5, "seed": seed}
    return DataSpec(
        source="synthetic", symbols=names, timeframe=timeframe, start=f"{2026 - years}-01-04", end="2025-12-31", synthetic=synthetic
    )


def shares(data: DataSpec, deciders: dict[str, Decider], env: EnvSpec | None = None, folds: FoldSpec | None = None) -> dict[str, float]:
    """Share of each decider; its strategy must have one account."""
    env, bars = env or EnvSpec(), load(data)
    features = build_features(bars, FeatureSpec())
    plan = plan_folds(bars, features, folds or FoldSpec())
    strategies = [decider(bars, features, plan, env) for decider in deciders.values()]
    told = oracle(bars, synthetic_spec(data), env)
    result = run_backtests(bars, None, [Segment(fold.test) for fold in plan], [*strategies, told], env, keep=())
    return {name: oracle_capture(result, strategy.ids[0].slug) for name, strategy in zip(deciders, strategies, strict=True)}


def regression(kind: RegressionKind, spec: RegressionSpec | None = None) -> Decider:
    """The supervised decider of a kind, fitted anew for every fold."""

    def decide(bars: Bars, features: FeatureSet, folds: Sequence[Fold], env: EnvSpec) -> Strategy:
        models = [fit_regression(bars, features, fold, env, spec or RegressionSpec(), kind) for fold in folds]
        return regression_strategy(bars, features, folds, models, env)

    return decide


def closed_form(data: DataSpec) -> Decider:
    """Gârleanu and Pedersen's rule, which knows the plant as the oracle does and whose weights are free; `planted_slow` alone has it."""
    return lambda bars, features, folds, env: garleanu_pedersen_oracle(bars, synthetic_spec(data), env, risk_aversion=1.0, cost=20.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=PLANTED, default=["planted"])
    parser.add_argument("--strengths", nargs="+", type=float, default=[4.5, 1.8])
    parser.add_argument("--symbols", nargs="+", type=int, default=[1, 3, 10])
    parser.add_argument("--kinds", nargs="+", default=["logistic", "trees"])
    parser.add_argument("--markets", type=int, default=3)
    parser.add_argument("--timeframe", default="1D")
    parser.add_argument("--years", type=int, default=10)
    asked = parser.parse_args()
    print(f"{asked.timeframe} bars, {asked.years} years, {asked.markets} markets each: mean share and standard error")
    for scenario in asked.scenarios:
        for strength in asked.strengths:
            for n in asked.symbols:
                if scenario == "planted_cross" and n == 1:
                    continue
                began = time.process_time()
                data = [planted_data(scenario, strength, n, seed, asked.timeframe, asked.years) for seed in range(asked.markets)]
                rows = [
                    shares(each, {kind: closed_form(each) if kind == CLOSED_FORM else regression(kind) for kind in asked.kinds})
                    for each in data
                ]
                found = {kind: [row[kind] for row in rows] for kind in asked.kinds}
                errors = {kind: stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan") for kind, values in found.items()}
                told = "  ".join(f"{kind} {mean(values):5.2f} ±{errors[kind]:.2f}" for kind, values in found.items())
                print(f"{scenario:15} strength {strength:3g}  {n:2} symbols  {told}  ({time.process_time() - began:.0f} s CPU)", flush=True)


if __name__ == "__main__":
    main()
