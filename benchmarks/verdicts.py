"""What a verdict says of accounts whose truth is known; `python -m benchmarks.verdicts`.

(a) An account that is in the market on half of the days, by skill up to a true yearly Sharpe ratio, or by a coin, over 8 years. *Raw
excess* is the plain percentile interval of the mean difference from buy and hold, which was the verdict before; *skill* is the verdict of
today: alpha or the return at matched exposure, corrected for all five measures.
*best* is the most that any test of that size can find in (a), and *best, corrected* at the strictest of five corrected levels: it knows
the market's volatility and on which days the account was in, and asks whether the market's mean differed between them.
(d) How often an interval of a mean over a short test excludes the truth, where there is nothing: `python -m benchmarks.coverage`.
"""

import argparse
from collections.abc import Sequence

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
from scipy import stats

from benchmarks.coverage import percentile
from ploutos.evaluation.skill import benchmark_tests
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import SKILL, Measure
from ploutos.seeding import generator
from ploutos.types import FloatArray

YEAR = 252
VOLATILITY = 0.16
"""Of the market, yearly."""


def half_invested(skill: float | None, market_sharpe: float, years: float, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Session returns of an account that is in the market on half of the days, and of the market.

    Args:
        skill: the account's true yearly Sharpe ratio; None for a coin.
    """
    n = int(YEAR * years)
    inside, level = random.random(n) < 0.5, market_sharpe * VOLATILITY / YEAR
    own = level / 2 if skill is None else skill * VOLATILITY * 0.5**0.5 / YEAR
    market = np.where(inside, 2 * own, 2 * (level - own)) + random.normal(0, VOLATILITY / YEAR**0.5, n)
    return inside * market, market


def best_power(skill: float | None, market_sharpe: float, years: float, size: float = 0.05) -> float:
    """Chance that the best two-sided test finds the account better, where one side of 2.5 % says so.

    Without skill the market's mean is the same on days in and out. Their difference is normal with a known variance, so by Neyman and
    Pearson nothing of that size finds more; knowing the market's mean as well, or asking for alpha, has the same noncentrality.
    """
    n, deviation = int(YEAR * years), VOLATILITY / YEAR**0.5
    level = market_sharpe * VOLATILITY / YEAR
    own = level / 2 if skill is None else skill * VOLATILITY * 0.5**0.5 / YEAR
    return float(stats.norm.cdf((4 * own - 2 * level) * n**0.5 / (2 * deviation) - stats.norm.ppf(1 - size / 2)))


def verdicts(skill: float | None, market_sharpe: float, years: float, worlds: int, spec: BootstrapSpec) -> dict[str, float]:
    """Share of worlds where each way of asking finds the account better."""
    found: dict[str, list[bool]] = {}
    for world in range(worlds):
        own, market = half_invested(skill, market_sharpe, years, generator(world, f"half invested {skill} {market_sharpe} {years}"))
        signs = {row.measure: row.sign for row in benchmark_tests(own, market, 0.5, YEAR, spec, world)}
        answers = {"before": percentile(own - market, spec, world)[0] > 0, "after": any(signs[measure] > 0 for measure in SKILL)}
        for name, better in (answers | {measure.value: sign > 0 for measure, sign in signs.items()}).items():
            found.setdefault(name, []).append(better)
    shares = {name: float(np.mean(each)) for name, each in found.items()}
    best = best_power(skill, market_sharpe, years)
    return shares | {"best": best, "best, corrected": best_power(skill, market_sharpe, years, 0.05 / len(Measure))}


def row(label: str, shares: dict[str, float], names: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {label} | " + " | ".join(f"{100 * shares[name]:.1f} %" for name in names) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--years", type=float, default=8)
    parser.add_argument("--replications", type=int, default=399)
    asked = parser.parse_args()
    spec, names = (
        BootstrapSpec(replications=asked.replications),
        ("before", "after", "best", "best, corrected", *(measure.value for measure in Measure)),
    )
    print(f"| true Sharpe ratio, market's | {' | '.join(names)} |")
    print("|---|" + "---:|" * len(names))
    for skill in (1.5, None):
        for market_sharpe in (0.7, 1.0, -1.0) if skill is None else (0.7, 1.0):
            label = f"{'a coin' if skill is None else skill}, {market_sharpe}"
            print(row(label, verdicts(skill, market_sharpe, asked.years, asked.worlds, spec), names), flush=True)


if __name__ == "__main__":
    main()
