"""From the accounts of a run to what they showed: every number of a `RunSummary`, and no word about it."""

import math
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np

from ploutos.advisor.cutoff import UNKNOWN, CutoffEvidence, tag_dates
from ploutos.advisor.schedule import CADENCE
from ploutos.advisor.signals import Signals
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.benchmark import purchase_of
from ploutos.evaluation.comparisons import compare, corrected, mirror_of, pairs, supervised_pairs
from ploutos.evaluation.contamination import evidence_of, spans_of
from ploutos.evaluation.experiment import InSample
from ploutos.evaluation.history import history_of
from ploutos.evaluation.metrics import (
    Periods,
    measure,
    oracle_capture,
    periods_of,
    ruin_date,
    session_closes,
    session_returns,
    sharpe_and_return,
    to_date,
)
from ploutos.evaluation.significance import Estimate, alpha, beta, estimate, mean, sharpe_interval
from ploutos.evaluation.skill import against_benchmark, subject_of
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import (
    AdvisorFacts,
    FoldMetrics,
    MemberSharpe,
    Mirror,
    RunSummary,
    StrategyMetrics,
)
from ploutos.market.bars import Bars
from ploutos.progress import counted
from ploutos.strategies.base import Role
from ploutos.strategies.baselines import BUY_AND_HOLD
from ploutos.walk_forward import Fold, Range, tested_decisions


def summarise(
    backtests: Backtests,
    bars: Bars,
    folds: Sequence[Fold],
    inside: Sequence[InSample],
    signals: Signals,
    bootstrap: BootstrapSpec,
    seed: int,
    reduced: bool,
    *,
    known: CutoffEvidence = UNKNOWN,
    mirrored: Signals | None = None,
    subject: str = "auto",
    reads_texts: bool = False,
) -> RunSummary:
    """All numbers of a run that are measured on its accounts; what other stages found is left empty for the caller to join.

    Args:
        backtests: from `ploutos.evaluation.experiment.out_of_sample`, with any other accounts beside them.
        inside: from `in_sample`, one row per fold.
        reduced: the policies saw fewer steps than production asks for.
        known: how far the advisor's memory reaches.
        mirrored: what the advisor said about the mirrored market, if it was asked.
        subject: whom the verdict is about, as `ploutos.evaluation.skill.subject_of` reads it.
        reads_texts: everything that was trained observes what the language model made of texts.

    Raises:
        ConfigError: there is no such account.
    """
    periods, contenders = periods_of(bars, backtests), backtests.contenders()
    ruined = {slug: day for slug in backtests.slugs if (day := ruin_date(bars, backtests, slug))}
    strategies = {slug: _metrics(contenders, slug, periods, ruined, bootstrap, seed) for slug in counted(contenders.slugs, "accounts")}
    dates = bars.sessions[backtests.positions[periods.ends[1:]]]
    tags = tag_dates(dates, known, signals.is_mock, signals.reveal)
    equity = dict(zip(contenders.slugs, contenders.equity, strict=True))
    tested = signals.within(*tested_decisions(folds))
    counts = evidence_of(tags)
    about = subject_of(subject, contenders.slugs, signals.is_mock, bool(counts.any()), reads_texts)
    compared, supervised = (
        [compare(backtests, periods, pair, bootstrap, seed, ruined) for pair in counted(found, "comparisons")]
        for found in (pairs(backtests.slugs), supervised_pairs(backtests))
    )
    ended = bool(ruined.keys() & {about.slug, BUY_AND_HOLD})
    answers = corrected([*compared, *supervised], bootstrap.confidence)
    return RunSummary(
        first=to_date(backtests.timestamps[1]),
        last=to_date(backtests.timestamps[-1]),
        n_bars=len(backtests.timestamps) - 1,
        n_sessions=len(periods.ends) - 1,
        sessions_per_year=periods.per_year,
        symbols=bars.symbols,
        source=bars.source,
        confidence=bootstrap.confidence,
        reduced=reduced,
        subject=about,
        benchmark=BUY_AND_HOLD,
        strategies=strategies,
        against_benchmark=against_benchmark(
            contenders, about.slug, BUY_AND_HOLD, periods, counts, bootstrap, seed, ended, reads_texts=reads_texts
        ),
        comparisons=answers[: len(compared)],
        supervised=answers[len(compared) :],
        advisor=_advisor(signals, known, None if mirrored is None else mirror_of(tested, mirrored, bootstrap, seed)),
        purchase=purchase_of(backtests, BUY_AND_HOLD, bars),
        spans=spans_of(dates, tags, equity, periods, strategies, bootstrap, seed),
        folds=tuple(_fold(contenders, bars, fold, row, periods.per_year) for fold, row in zip(folds, inside, strict=True)),
        histories=tuple(history_of(contenders, slug, bars, periods) for slug in dict.fromkeys([about.slug, BUY_AND_HOLD])),
    )


def _metrics(
    backtests: Backtests, slug: str, periods: Periods, ruined: Mapping[str, date], bootstrap: BootstrapSpec, seed: int
) -> StrategyMetrics:
    """One account's numbers, with intervals; no excess over the benchmark where one of the two was ruined."""
    row = backtests.row(slug)
    own = session_returns(backtests.equity[row], periods.until(int(backtests.last[row])))
    low, high = sharpe_interval(own, periods.per_year, bootstrap, seed)
    excess = left = slope = Estimate(math.nan)
    if not ruined.keys() & {slug, BUY_AND_HOLD}:
        market = session_returns(backtests.equity[backtests.row(BUY_AND_HOLD)], periods)
        excess = estimate(mean, [own - market], bootstrap, seed).times(periods.per_year)
        left = estimate(alpha, [own, market], bootstrap, seed).times(periods.per_year)
        slope = estimate(beta, [own, market], bootstrap, seed)
    return StrategyMetrics(
        role=backtests.roles[row],
        **measure(backtests, row, periods).model_dump(),
        sharpe_low=low,
        sharpe_high=high,
        excess_return=excess.value,
        excess_low=excess.low,
        excess_high=excess.high,
        alpha=left.value,
        alpha_low=left.low,
        alpha_high=left.high,
        beta=slope.value,
        beta_low=slope.low,
        beta_high=slope.high,
        ruined=ruined.get(slug),
        oracle_capture=oracle_capture(backtests, slug),
    )


def _fold(backtests: Backtests, bars: Bars, fold: Fold, inside: InSample, per_year: float) -> FoldMetrics:
    closes = _closes(backtests, fold.test)
    periods = Periods(session_closes(bars.sessions[backtests.positions[closes]]), per_year)
    ends = np.minimum(backtests.last, closes.stop - 1) - closes.start
    measured = [sharpe_and_return(path, periods, int(end)) for path, end in zip(backtests.equity[:, closes], ends, strict=True)]
    sharpe, total_return = (dict(zip(backtests.slugs, numbers, strict=True)) for numbers in zip(*measured, strict=True))
    in_and_out = zip(inside.train, inside.validation, (sharpe[slug] for slug in backtests.of(Role.MEMBER)), strict=True)
    return FoldMetrics(
        fold=fold.index,
        first=to_date(bars.timestamps[fold.test.start]),
        last=to_date(bars.timestamps[fold.test.stop - 1]),
        sharpe=sharpe,
        total_return=total_return,
        members=tuple(MemberSharpe(member=m, train=row[0], validation=row[1], test=row[2]) for m, row in enumerate(in_and_out)),
        learning=inside.learning,
    )


def _closes(backtests: Backtests, test: Range) -> slice:
    """One fold's closes within the stitched path: the close before its first bar, then its bars."""
    first = int(backtests.positions[0])
    return slice(test.start - 1 - first, test.stop - first)


def _advisor(signals: Signals, known: CutoffEvidence, mirror: Mirror | None) -> AdvisorFacts:
    frame = signals.frame
    asked = frame["as_of"].iloc[[0, -1]].dt.date.tolist() if len(frame) else [None, None]
    return AdvisorFacts(
        model=signals.model,
        digest=signals.digest,
        is_mock=signals.is_mock,
        n_advice=len(frame),
        n_abstained=signals.n_abstained,
        prompt_tokens=int(frame["prompt_tokens"].sum()),
        tokens=int(frame["tokens"].sum()),
        reveal=signals.reveal,
        mask=signals.mask,
        cadence_bars=signals.cadence_bars,
        n_triggered=int((frame["asked_for"] != CADENCE).sum()),
        first_asked=asked[0],
        last_asked=asked[1],
        certificate=None if signals.is_mock else known.certificate(),
        mirrored=mirror,
    )
