"""May the subject of a run be promoted? Bars with margins, checks of the evidence, and an outcome, all as data.

A gate that time alone can open (more sessions like those seen) leaves the evidence insufficient; any other that is missed rejects. A check
that fails makes the result suspect, and a suspect result is never promoted, whatever its gates say. What a gate needs and a run has not
measured is said to be missing, never passed over: where the gate is required, the evidence is insufficient.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ploutos.envs.ledger import COSTS
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.candidates import Candidates, path_of, sessions_tested
from ploutos.evaluation.contamination import clean_sessions
from ploutos.evaluation.metrics import Periods, drawdowns, periods_of, sharpe_ratio
from ploutos.evaluation.overfitting import (
    FEWEST_SESSIONS,
    SharpeMoments,
    chance_deviation,
    deflated_sharpe,
    deflated_track_record,
    distinct,
    minimum_track_record,
    overfitting,
    probabilistic_sharpe,
    sharpe_moments,
    superiority,
)
from ploutos.evaluation.spec import EvidenceSpec, GateSpec
from ploutos.evaluation.summary import (
    ChampionReason,
    ChampionTest,
    Check,
    EvidenceCheck,
    Gate,
    GateName,
    GateReason,
    Gates,
    Outcome,
    RunSummary,
    StressTest,
    TrialFacts,
)
from ploutos.market.bars import Bars
from ploutos.strategies.base import Role
from ploutos.types import FloatArray, TimeArray
from ploutos.walk_forward import Fold

_LISTENS = (Role.FUSED, Role.ADVISOR, Role.HYBRID)
_CURABLE = (GateName.PSR, GateName.DSR, GateName.SPA, GateName.SPA_CHAMPION)
_COVERED = 0.8  # share of the sessions that a path must have to be one of those compared
_FEWEST_SHARED = 63  # sessions with the champion: the fewest at which the size of an interval was measured


@dataclass(frozen=True)
class _Subject:
    """What is judged.

    Attributes:
        returns: session returns to the end of the test span.
        moments: of them; None where the account never moved.
    """

    slug: str
    returns: FloatArray
    moments: SharpeMoments | None


def judge(
    summary: RunSummary,
    backtests: Backtests,
    bars: Bars,
    folds: Sequence[Fold],
    candidates: Candidates,
    spec: GateSpec,
    seed: int,
    *,
    double_cost: float | None = None,
    monte_carlo_losses: float | None = None,
    reads_texts: bool = False,
) -> Gates:
    """Hold the subject of a run, `summary.subject.slug`, against every bar.

    Args:
        backtests: of the run.
        candidates: everything that was tried on these sessions, this run's accounts among them.
        double_cost: total return at twice the costs, where it was measured.
        monte_carlo_losses: share of disturbed paths that lost, where it was measured.
        reads_texts: everything that was trained observes what the advisor made of texts.
    """
    periods = periods_of(bars, backtests)
    returns = path_of(backtests, summary.subject.slug, periods)
    subject = _Subject(summary.subject.slug, returns, sharpe_moments(returns))
    trials, needed = _trials(candidates, subject, spec)
    champion, against_champion = _champion_gate(subject, candidates, sessions_tested(bars, backtests), periods.per_year, spec, seed)
    rows = [
        *_luck_gates(subject, trials, spec),
        *_choice_gates(subject, summary.benchmark, candidates, backtests, bars, spec, seed),
        *against_champion,
        *_seed_gates(summary, subject, periods, spec),
        _gate(GateName.DOUBLE_COST, double_cost, spec.double_cost, required=False),
        _gate(GateName.MONTE_CARLO, monte_carlo_losses, spec.monte_carlo_losses, most=True, required=False),
    ]
    evidence = _evidence(summary, backtests, bars, folds, spec.evidence, reads_texts)
    suspect = any(check.suspect for check in evidence)
    outcome = _outcome(rows, suspect, needed)
    more = None if outcome is not Outcome.INSUFFICIENT or not math.isfinite(needed) else max(math.ceil(needed) - len(returns), 0)
    return Gates(
        subject=subject.slug, outcome=outcome, suspect=suspect, more_sessions=more or None, rows=tuple(rows), evidence=evidence,
        trials=trials, at_volatility=spec.at_volatility, champion=champion,
    )  # fmt: skip


def stressed(summary: RunSummary) -> dict[str, float]:
    """What the stress tests of the subject say to `judge`; nothing where there were none."""
    own = next((each for each in summary.robustness if each.slug == summary.subject.slug), None)
    doubled, paths = (None, None) if own is None else (own.row(StressTest.DOUBLE_COSTS), own.paths)
    found = {} if doubled is None else {"double_cost": doubled.total_return}
    return found if paths is None else found | {"monte_carlo_losses": paths.losses}


def _outcome(rows: Sequence[Gate], suspect: bool, needed: float) -> Outcome:
    missed = [row.name for row in rows if row.reason in (GateReason.MISSED, GateReason.ANOTHER)]
    unknown = [row for row in rows if row.reason is GateReason.NOT_MEASURED and row.required]
    if any(name not in _CURABLE for name in missed) or (missed and not math.isfinite(needed)):
        return Outcome.REJECT
    return Outcome.INSUFFICIENT if missed or unknown or suspect else Outcome.PROMOTE


def _gate(name: GateName, value: float | None, bar: float, *, most: bool = False, strict: bool = False, required: bool = True) -> Gate:
    """A bar and by how much it was cleared.

    Args:
        most: the value must be at most the bar, else at least.
        strict: the bar itself is not enough.
    """
    if value is None or not math.isfinite(value):
        return Gate(name=name, value=None, bar=bar, margin=None, reason=GateReason.NOT_MEASURED, required=required)
    margin = bar - value if most else value - bar
    passed = margin > 0 if strict else margin >= 0
    return Gate(
        name=name, value=value, bar=bar, margin=margin, reason=GateReason.PASSED if passed else GateReason.MISSED, required=required
    )


def _trials(candidates: Candidates, subject: _Subject, spec: GateSpec) -> tuple[TrialFacts, float]:
    """What the subject's luck is measured by, and sessions until its record would be long enough."""
    paths, _ = candidates.covering(_COVERED)
    deviation, independent = chance_deviation(len(subject.returns)), max(candidates.independent(), 1)
    facts = TrialFacts(
        n_trials=candidates.n_trials, n_independent=independent, deviation=deviation, n_compared=paths.shape[1],
        counts=dict(candidates.counts),
    )  # fmt: skip
    if subject.moments is None:
        return facts, math.inf
    plain = minimum_track_record(subject.moments, 0.0, spec.psr)
    return facts, max(plain, deflated_track_record(subject.moments, independent, deviation, spec.dsr))


def _luck_gates(subject: _Subject, trials: TrialFacts, spec: GateSpec) -> list[Gate]:
    known = subject.moments
    psr = None if known is None else probabilistic_sharpe(known)
    dsr = None if known is None else deflated_sharpe(known, trials.n_independent, trials.deviation)
    return [_gate(GateName.PSR, psr, spec.psr), _gate(GateName.DSR, dsr, spec.dsr)]


def _choice_gates(
    subject: _Subject, benchmark: str, candidates: Candidates, backtests: Backtests, bars: Bars, spec: GateSpec, seed: int
) -> list[Gate]:
    """Whether choosing among everything that was tried means anything, and whether the subject is better than holding."""
    periods = periods_of(bars, backtests)
    paths, sessions = candidates.covering(_COVERED)
    choices = distinct(paths)  # to choose one of some that are alike is no choice: which of them is best is chance, however good all are
    split = overfitting(choices, seed)
    chosen = split is not None or (choices.shape[1] > 1 and len(choices) < FEWEST_SESSIONS)  # else only one of them moved throughout
    rows = [
        _gate(GateName.PBO, split.pbo if split else None, spec.pbo, most=True, required=chosen),
        _gate(GateName.PBO_HIGH, split.high if split else None, spec.pbo_high, most=True, strict=True, required=chosen),
    ]
    shared = np.isin(sessions_tested(bars, backtests), sessions)
    holding = path_of(backtests, benchmark, periods)[shared]
    return [*rows, _spa_gate(GateName.SPA, subject.returns[shared], paths, holding, spec, seed)[0]]


def _spa_gate(name: GateName, own: FloatArray, paths: FloatArray, against: FloatArray, spec: GateSpec, seed: int) -> tuple[Gate, int, int]:
    """Whether the subject is better than somebody, at the same volatility, the search for it counted; how many are, and of how many.

    Args:
        own, against: shape (n,).
        paths: shape (n, k), everything that was tried, on the same sessions.
    """
    others = paths[:, ~(paths == own[:, None]).all(axis=0)] if len(own) else paths
    everything = np.column_stack([own, others])
    found = superiority(_at_volatility_of(everything, against), against, seed, spec.spa) if len(own) > 2 else None
    row = _gate(name, found.p if found else None, spec.spa, most=True)
    if found and row.reason is GateReason.PASSED and 0 not in found.better:
        row = row.model_copy(update={"reason": GateReason.ANOTHER})
    return row, len(found.better) if found else 0, everything.shape[1]


def _champion_gate(
    subject: _Subject, candidates: Candidates, tested: TimeArray, per_year: float, spec: GateSpec, seed: int
) -> tuple[ChampionTest | None, list[Gate]]:
    """The subject, and everything that was tried, against whoever decides now, on the sessions that both tested.

    Args:
        tested: shape (n,), sessions of the subject's returns.
    """
    champion = candidates.champion
    if champion is None:
        return None, []
    who: dict[str, Any] = {"model": champion.model, "run": champion.run, "slug": champion.slug}
    if champion.same_settings and champion.slug == subject.slug:
        return ChampionTest(**who, reason=ChampionReason.SAME_DECIDER), []
    paths, sessions = candidates.covering(_COVERED)
    returns = champion.returns[np.isin(candidates.sessions, sessions)]
    shared = np.isfinite(returns)
    n_sessions = int(shared.sum())
    if n_sessions < _FEWEST_SHARED:
        reason = ChampionReason(champion.unknown or ChampionReason.TOO_SHORT)
        return ChampionTest(**who, reason=reason, n_sessions=n_sessions), [_gate(GateName.SPA_CHAMPION, None, spec.spa, most=True)]
    own, theirs = subject.returns[np.isin(tested, sessions[shared])], returns[shared]
    row, n_better, n_compared = _spa_gate(GateName.SPA_CHAMPION, own, paths[shared], theirs, spec, seed)
    if row.reason is GateReason.NOT_MEASURED:  # nothing that was tried ever differed from it
        row = _gate(GateName.SPA_CHAMPION, 1.0, spec.spa, most=True)
    test = ChampionTest(
        **who, reason=ChampionReason.COMPARED, n_sessions=n_sessions, n_compared=n_compared, n_better=n_better,
        sharpe=sharpe_ratio(own, per_year), champion_sharpe=sharpe_ratio(theirs, per_year),
    )  # fmt: skip
    return test, [row]


def _at_volatility_of(returns: FloatArray, benchmark: FloatArray) -> FloatArray:
    """Every path scaled to the volatility of a benchmark; one that never moved stays as it is."""
    deviation = returns.std(axis=0)
    return returns * np.where(deviation > 1e-12, benchmark.std() / np.maximum(deviation, 1e-12), 1.0)


def _seed_gates(summary: RunSummary, subject: _Subject, periods: Periods, spec: GateSpec) -> list[Gate]:
    """Bars of the seed documents: ratio, return, test ranges, policies, and risk at a stated volatility."""
    metrics = summary.strategies[subject.slug]
    earned = [fold.total_return[subject.slug] for fold in summary.folds]
    won = float(np.mean([each is not None and each > 0 for each in earned])) if earned else None
    members = [sharpe for slug in summary.of(Role.MEMBER) if (sharpe := summary.strategies[slug].sharpe) is not None]
    iqm = float(stats.trim_mean(members, 0.25)) if members else None
    deepest = worst = None
    if metrics.ann_vol:
        scaled = subject.returns * spec.at_volatility / metrics.ann_vol
        deepest, worst = -float(drawdowns(np.r_[1.0, np.cumprod(1 + scaled)]).min()), -float(scaled.min())
    return [
        _gate(GateName.SHARPE, metrics.sharpe, spec.sharpe),
        _gate(GateName.TOTAL_RETURN, metrics.total_return, spec.total_return, strict=True),
        _gate(GateName.POSITIVE_FOLDS, won, spec.positive_folds),
        _gate(GateName.SEED_IQM, iqm, spec.seed_iqm, strict=True),
        _gate(GateName.DRAWDOWN, deepest, spec.max_drawdown, most=True),
        _gate(GateName.DAILY_LOSS, worst, spec.max_daily_loss, most=True),
    ]


def _evidence(
    summary: RunSummary, backtests: Backtests, bars: Bars, folds: Sequence[Fold], spec: EvidenceSpec, reads_texts: bool
) -> tuple[EvidenceCheck, ...]:  # fmt: skip
    """Everything that would make the numbers themselves suspect."""

    def check(name: Check, found: float | None, limit: float, fails: Callable[[float], bool]) -> EvidenceCheck:
        return EvidenceCheck(name=name, found=found, limit=limit, suspect=found is None or math.isnan(found) or fails(found))

    subject, holding = (backtests.row(slug) for slug in (summary.subject.slug, summary.benchmark))
    metrics, fills = summary.strategies[summary.subject.slug], summary.strategies[summary.benchmark].n_fills
    returns = [_yearly(fold.total_return[summary.subject.slug] or 0.0, (fold.last - fold.first).days / 365.25) for fold in summary.folds]
    members = [summary.strategies[slug].sharpe for slug in summary.of(Role.MEMBER)]
    gap = _in_over_out(summary)
    listens = (reads_texts or metrics.role in _LISTENS) and not summary.advisor.is_mock
    clean = float(clean_sessions(summary, sessions_tested(bars, backtests)).mean()) if listens else 1.0
    error = max(_unbooked(backtests, row) for row in (subject, holding))
    least = float(backtests.equity[subject, : int(backtests.last[subject]) + 1].min() / backtests.equity[subject, 0])
    unpaid = abs(metrics.total_return) if metrics.n_fills == 0 else 0.0
    worse = sum(row.sign < 0 for row in summary.supervised)
    return (
        check(Check.RECONCILES, error, spec.reconciliation, lambda x: x > spec.reconciliation),
        check(Check.EQUITY_POSITIVE, least, 0.0, lambda x: x <= 0 or metrics.ruined is not None),
        check(Check.BENCHMARK_TRADED, float(fills), 1.0, lambda x: x < 1),
        check(Check.RETURN_WITHOUT_FILLS, unpaid, 0.0, lambda x: x > 0),
        check(Check.EXTREME_RETURN, max(returns, default=0.0), spec.fold_return, lambda x: x > spec.fold_return),
        check(Check.SEEDS, float(len(members)), float(spec.min_members), lambda x: x < spec.min_members),
        check(Check.DISPERSION, float(len(set(members))), 2.0, lambda x: len(members) > 1 and x < 2),
        check(Check.SHORTENED, float(summary.reduced), 0.0, lambda x: x > 0),
        check(Check.CLEAN_SESSIONS, clean, spec.min_clean_share, lambda x: x < spec.min_clean_share),
        check(Check.IN_OVER_OUT, gap, spec.in_over_out, lambda x: x > spec.in_over_out),
        check(Check.SUPERVISED_BETTER, float(worse), 0.0, lambda x: x > 0),
        check(Check.UNTRAINED_SYMBOLS, float(len(untrained_symbols(bars, folds))), 0.0, lambda x: x > 0),
    )


def _yearly(growth: float, years: float) -> float:
    """A return over more than a year as a yearly rate; that of a shorter span as it is."""
    return float(max(1 + growth, 0.0) ** (1 / max(years, 1.0)) - 1)


def _unbooked(backtests: Backtests, row: int) -> float:
    """Most by which an account differs from what was booked on it, as a share of its initial cash."""
    equity = backtests.equity[row]
    costs = sum(getattr(backtests, name)[row] for name in COSTS)
    booked = equity[0] + backtests.pnl[row] - costs + backtests.written_off[row]
    return float(np.abs(equity - booked).max() / equity[0])


def _in_over_out(summary: RunSummary) -> float | None:
    """Mean of the members' Sharpe ratio in training less that in test; None where no member has both."""
    pairs = [(each.train, each.test) for fold in summary.folds for each in fold.members]
    known = [train - test for train, test in pairs if train is not None and test is not None]
    return float(np.mean(known)) if known else None


def untrained_symbols(bars: Bars, folds: Sequence[Fold]) -> tuple[str, ...]:
    """Symbols that some test range trades and its training range had no bar of."""
    found = np.zeros(bars.n_symbols, dtype=np.bool_)
    for fold in folds:
        trained, tested = (bars.tradable[part.start : part.stop].any(axis=0) for part in (fold.train, fold.test))
        found |= tested & ~trained
    return tuple(symbol for symbol, each in zip(bars.symbols, found, strict=True) if each)
