"""Whether an account did better than the benchmark, and which account the question is about.

More return than a benchmark that is always invested is the wrong question of an account that is half invested. Five are asked: raw
excess, alpha, the benchmark at the account's mean exposure, the benchmark at its volatility, and the Sharpe ratio. Their p-values
are corrected together. A rule that reads no result decides whom they are asked about.
"""

import math

import numpy as np

from ploutos.errors import ConfigError
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.metrics import Periods, session_returns
from ploutos.evaluation.significance import (
    Estimate,
    alpha,
    estimate,
    holm,
    matched_volatility,
    mean,
    measured_coverage,
    sharpe_difference,
    significant_sign,
)
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import AgainstBenchmark, BenchmarkTest, Measure, Subject, SubjectReason
from ploutos.strategies.advised import FUSED
from ploutos.strategies.base import Role
from ploutos.strategies.ensemble import VOTE
from ploutos.types import BoolArray, FloatArray

HEARS_ADVICE = (Role.FUSED, Role.ADVISOR, Role.HYBRID)


def subject_of(asked: str, slugs: tuple[str, ...], is_mock: bool, any_clean: bool, reads_texts: bool = False) -> Subject:
    """Whom the verdict is about.

    Args:
        asked: `auto`, a slug, or a supervised model as in `regression:trees`.
        slugs: of the accounts.
        is_mock: the advisor is not a language model.
        any_clean: some tested session is clean of what the advisor may remember.
        reads_texts: the policies observe what the advisor made of texts.

    Raises:
        ConfigError: the run has no such account.
    """
    if asked == "auto":
        unclean = SubjectReason.READS_TEXTS if reads_texts else SubjectReason.NOT_CLEAN
        reason = SubjectReason.MOCK if is_mock else SubjectReason.ADVISED if any_clean else unclean
        slug = FUSED.slug if reason is SubjectReason.ADVISED else VOTE.slug
    else:
        slug, reason = asked.removeprefix("regression:"), SubjectReason.ASKED
    if slug not in slugs:
        raise ConfigError(f"evaluation.subject is {asked}, and the run has no account {slug}; choose one of {', '.join(slugs)}")
    return Subject(slug=slug, reason=reason)


def against_benchmark(
    backtests: Backtests, slug: str, benchmark: str, periods: Periods, counts: BoolArray, bootstrap: BootstrapSpec, seed: int, ruined: bool,
    reads_texts: bool = False,
) -> AgainstBenchmark:  # fmt: skip
    """The five questions about one account.

    Args:
        counts: shape (n_sessions,), sessions that can be evidence for an account that hears the advisor; the others use all.
        ruined: one of the two accounts was, so nothing is compared.
        reads_texts: every account hears the advisor, through what it made of texts.
    """
    rows = [backtests.row(each) for each in (slug, benchmark)]
    if not (reads_texts or backtests.roles[rows[0]] in HEARS_ADVICE) or not counts.any():
        counts = np.ones(len(counts), dtype=bool)
    share = relative_exposure(backtests, rows[0], rows[1], periods, counts)
    own, market = session_returns(backtests.equity[rows], periods)[:, counts]
    return AgainstBenchmark(
        n_sessions=int(counts.sum()),
        relative_exposure=share,
        coverage=measured_coverage(int(counts.sum())),
        tests=() if ruined else benchmark_tests(own, market, share, periods.per_year, bootstrap, seed),
    )


def benchmark_tests(
    own: FloatArray, market: FloatArray, share: float, per_year: float, bootstrap: BootstrapSpec, seed: int
) -> tuple[BenchmarkTest, ...]:
    """Every measure of returns against a benchmark's, corrected for their number.

    Args:
        own, market: shape (n,), session returns.
        share: exposure of the account over the benchmark's; nan leaves that measure out.
    """
    nothing = Estimate(math.nan)
    found = {
        Measure.EXCESS: estimate(mean, [own - market], bootstrap, seed).times(per_year),
        Measure.ALPHA: estimate(alpha, [own, market], bootstrap, seed).times(per_year),
        Measure.EXPOSURE: estimate(mean, [own - share * market], bootstrap, seed).times(per_year) if math.isfinite(share) else nothing,
        Measure.VOLATILITY: estimate(matched_volatility, [own, market], bootstrap, seed).times(per_year),
        Measure.SHARPE: estimate(sharpe_difference, [own, market], bootstrap, seed).times(math.sqrt(per_year)),
    }
    adjusted = holm([each.p for each in found.values()])
    return tuple(
        BenchmarkTest(
            measure=measure,
            value=each.value,
            error=each.error,
            low=each.low,
            high=each.high,
            p=each.p,
            p_adjusted=p,
            sign=significant_sign(each.value, p, bootstrap.confidence),
        )
        for (measure, each), p in zip(found.items(), adjusted, strict=True)
    )


def relative_exposure(backtests: Backtests, own: int, market: int, periods: Periods, counts: BoolArray) -> float:
    """Mean net exposure of one account over another's, at session ends; nan where the other held nothing then."""
    ends = periods.ends[1:][counts]
    held = backtests.weights[[own, market]][:, ends].sum(axis=2).mean(axis=1)
    return float(held[0] / held[1]) if abs(held[1]) > 1e-9 else math.nan
