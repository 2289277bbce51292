"""Does the advice help? Accounts in pairs over the same sessions, every difference with an interval.

Returns of a pair are subtracted session by session before they are resampled, so what both sides lived through cancels. A
placebo is the fused strategy with advice that cannot help in place of the advisor's; its draws count by their mean. A pair differs in
one thing: the advice is judged against the same account without it, under the same risk veto and calibration, and what the veto does
alone is a pair of its own. A sign needs a p-value that is corrected for all comparisons of the run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count, takewhile
from typing import Literal

import numpy as np
from scipy.stats import norm

from ploutos.advisor.placebos import PLACEBOS, placebo_slug
from ploutos.advisor.signals import ACTIONS, Signals
from ploutos.envs.actions import HOLD
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.metrics import Periods, session_returns
from ploutos.evaluation.significance import estimate, holm, mean, mean_interval, significant_sign
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import Comparison, Mirror, Question
from ploutos.strategies.advised import ADVISOR, FUSED, FUSED_ABLATED, MIRRORED
from ploutos.strategies.base import Role
from ploutos.strategies.baselines import BUY_AND_HOLD
from ploutos.strategies.ensemble import HYBRID, HYBRID_ABLATED, VOTE

_POWER = 0.8


@dataclass(frozen=True)
class Pair:
    """One account against another, or against the mean of several draws, by slug."""

    question: Question
    of: str
    against: tuple[str, ...]


def pairs(slugs: Sequence[str]) -> list[Pair]:
    """Every pair that a run holds; the first is the advice against none.

    Args:
        slugs: of all accounts.
    """
    found = [
        Pair(Question.ADVICE, FUSED.slug, (FUSED_ABLATED.slug,)),
        Pair(Question.VETO, FUSED_ABLATED.slug, (VOTE.slug,)),
        Pair(Question.ADVICE_ALONE, ADVISOR.slug, (BUY_AND_HOLD,)),
        *(Pair(Question(kind), FUSED.slug, _draws(kind, slugs)) for kind in PLACEBOS),
        Pair(Question.MIRRORED, ADVISOR.slug, (MIRRORED.slug,)),
        Pair(Question.HYBRID, HYBRID.slug, (VOTE.slug,)),
        Pair(Question.HYBRID_ADVICE, HYBRID.slug, (HYBRID_ABLATED.slug,)),
    ]
    return [pair for pair in found if pair.against and {pair.of, *pair.against} <= set(slugs)]


def supervised_pairs(backtests: Backtests) -> list[Pair]:
    """The vote of the policies against every supervised model that a run holds; none without policies."""
    models = backtests.of(Role.REGRESSION) if VOTE.slug in backtests.slugs else ()
    return [Pair(Question.SUPERVISED, VOTE.slug, (slug,)) for slug in models]


def _draws(kind: str, slugs: Sequence[str]) -> tuple[str, ...]:
    """Slugs of a placebo's draws."""
    return tuple(takewhile(slugs.__contains__, (placebo_slug(kind, draw) for draw in count())))


def compare(
    backtests: Backtests, periods: Periods, pair: Pair, bootstrap: BootstrapSpec, seed: int, ruined: Mapping[str, date] = {}
) -> Comparison:
    """The yearly difference of a pair's session returns, decimal; its sign is yet to be corrected for other pairs.

    Args:
        ruined: when an account was, by slug; a pair with one is not compared, for what came after has no returns.
    """
    if gone := [slug for slug in (pair.of, *pair.against) if slug in ruined]:
        nothing = dict.fromkeys(("difference", "low", "high", "beaten"), math.nan)
        return Comparison(
            question=pair.question, of=pair.of, against=pair.against, sign=0, ruined=gone[0], ruined_on=ruined[gone[0]], **nothing
        )
    ours = session_returns(backtests.equity[backtests.row(pair.of)], periods)
    theirs = session_returns(backtests.equity[[backtests.row(slug) for slug in pair.against]], periods)
    difference = ours - theirs.mean(axis=0)
    found = estimate(mean, [difference], bootstrap, seed).times(periods.per_year)
    return Comparison(
        question=pair.question,
        of=pair.of,
        against=pair.against,
        difference=float(difference.mean() * periods.per_year),
        low=found.low,
        high=found.high,
        p=found.p,
        error=found.error,
        sign=significant_sign(found.value, found.p, bootstrap.confidence),
        beaten=float((theirs.mean(axis=1) < ours.mean()).mean()) if len(pair.against) > 1 else math.nan,
    )


def corrected(rows: Sequence[Comparison], confidence: float) -> tuple[Comparison, ...]:
    """The same with p-values and signs corrected for how many comparisons there are, and with what each could have found.

    One without an interval is not counted. What is detectable is so at the level that the correction asks of the first of them.
    """
    adjusted = holm([math.nan if row.p is None else row.p for row in rows])
    n = max(sum(row.p is not None and math.isfinite(row.p) for row in rows), 1)
    errors = float(norm.isf((1 - confidence) / (2 * n)) + norm.ppf(_POWER))
    return tuple(
        row.model_copy(
            update={
                "p_adjusted": p,
                "sign": significant_sign(row.difference or 0.0, p, confidence),
                "detectable": None if row.error is None else errors * row.error,
            }
        )
        if math.isfinite(p)
        else row
        for row, p in zip(rows, adjusted, strict=True)
    )


def _sign(low: float, high: float) -> Literal[-1, 0, 1]:
    """1 or -1 where an interval leaves out 0; 0 otherwise, and where there is none."""
    return 1 if low > 0 else -1 if high < 0 else 0


def mirror_of(signals: Signals, mirrored: Signals, bootstrap: BootstrapSpec, seed: int) -> Mirror:
    """What became of buy and sell decisions on the mirrored market.

    Args:
        signals, mirrored: row for row on the same questions; where the mirrored one is an abstention nothing is counted.
    """
    was, now = (frame["action"].map(ACTIONS).to_numpy(dtype=np.int64) for frame in (signals.frame, mirrored.frame))
    counted = (was != HOLD) & ~mirrored.frame["abstained"].to_numpy(dtype=bool)
    was, now = was[counted], now[counted]
    stayed, held = now == was, now == HOLD
    turned = ~stayed & ~held
    low, high = mean_interval(turned * 1.0 - stayed, 1.0, bootstrap, seed)
    shares = {name: float(part.mean()) if len(was) else math.nan for name, part in (("turned", turned), ("stayed", stayed), ("held", held))}
    alike = int(turned.all()) - int(stayed.all()) if len(was) else 0  # all alike have no interval and need none
    return Mirror(
        n=len(was),
        **shares,
        low=low,
        high=high,
        sign=_sign(alike, alike) or _sign(low, high),
        n_asked=len(mirrored.frame),
        n_abstained=mirrored.n_abstained,
        tokens=int(mirrored.frame["tokens"].sum()),
    )
