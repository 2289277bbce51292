"""Whether the subject of a run may be promoted, in words: one finding, a table of bars, and reasons to doubt."""

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
)
from ploutos.reporting.names import names_of
from ploutos.reporting.page import show

_GATES = {
    GateName.PSR: "probability that the true Sharpe ratio is above 0",
    GateName.DSR: "the same, above the luck of everything tried",
    GateName.PBO: "probability of backtest overfitting",
    GateName.PBO_HIGH: "upper end of its interval",
    GateName.SPA: "p-value against buy and hold at equal volatility, over everything tried",
    GateName.SPA_CHAMPION: "p-value against the champion at equal volatility, over everything tried",
    GateName.SHARPE: "yearly Sharpe ratio",
    GateName.TOTAL_RETURN: "total return",
    GateName.POSITIVE_FOLDS: "share of test ranges that earned something",
    GateName.SEED_IQM: "interquartile mean of the policies' Sharpe ratios",
    GateName.DRAWDOWN: "deepest fall at {} volatility",
    GateName.DAILY_LOSS: "worst session at {} volatility",
    GateName.DOUBLE_COST: "total return at twice the costs",
    GateName.MONTE_CARLO: "share of disturbed paths that lost",
}
_PERCENT = {
    GateName.TOTAL_RETURN, GateName.POSITIVE_FOLDS, GateName.DRAWDOWN, GateName.DAILY_LOSS, GateName.DOUBLE_COST, GateName.MONTE_CARLO,
}  # fmt: skip
_AT_MOST = {GateName.PBO, GateName.SPA, GateName.SPA_CHAMPION, GateName.DRAWDOWN, GateName.DAILY_LOSS, GateName.MONTE_CARLO}
_SIGNS = {GateName.PBO_HIGH: "<", GateName.TOTAL_RETURN: ">", GateName.SEED_IQM: ">"}
_REASONS = {
    GateReason.PASSED: "passed",
    GateReason.MISSED: "missed",
    GateReason.NOT_MEASURED: "not measured",
    GateReason.ANOTHER: "missed: something else that was tried is better, not this",
}
_DOUBTS = {
    Check.RECONCILES: "equity differs from what was booked by {:.1e} of the initial cash",
    Check.EQUITY_POSITIVE: "the account fell to {:.1%} of its initial cash or was ruined",
    Check.BENCHMARK_TRADED: "the benchmark bought nothing",
    Check.RETURN_WITHOUT_FILLS: "a return of {:.1%} came without a single fill",
    Check.EXTREME_RETURN: "one test range earned {:.0%}",
    Check.SEEDS: "too few policies differ by their seed: {:.0f}",
    Check.DISPERSION: "all policies give exactly the same result",
    Check.SHORTENED: "the policies saw fewer training steps than production asks for",
    Check.CLEAN_SESSIONS: "only {:.0%} of the sessions are ones that the advisor cannot remember",
    Check.IN_OVER_OUT: "the Sharpe ratio in training is {:.1f} above that in test",
    Check.SUPERVISED_BETTER: "supervised models of the same features that earned more than the policies: {:.0f}",
    Check.UNTRAINED_SYMBOLS: "symbols that were traded and never trained on: {:.0f}",
}


_KINDS = {
    "candidate": "accounts on test bars",
    "training": "policies trained",
    "looks": "looks at a validation curve",
    "search": "candidates in a search for settings",
    "prompt": "ways of prompting a model",
    "settings": "configurations",
}


def gate_sentences(summary: RunSummary) -> list[str]:
    """The outcome, and what stands in its way; nothing for a run whose trials were not counted."""
    if (gates := summary.gates) is None:
        return []
    name, missed = names_of(summary)[gates.subject], [row for row in gates.rows if row.reason in (GateReason.MISSED, GateReason.ANOTHER)]
    doubts = [check for check in gates.evidence if check.suspect]
    about = [] if gates.champion is None else [_against_champion(gates.champion, name)]
    return [f"{name}: {_outcome(gates, len(missed), len(doubts))}", *about, _tried(gates)]


def _against_champion(test: ChampionTest, name: str) -> str:
    """Which champion a promotion would replace, and whether anything is better."""
    champion = f"the champion, {test.slug} of {test.run}"
    match test.reason:
        case ChampionReason.SAME_DECIDER:
            return f"{name} has the settings of {champion}, so there is nothing to compare."
        case ChampionReason.OTHER_HISTORY:
            return f"It was not compared with {champion}, which was tested on another history, where equal dates mean nothing."
        case ChampionReason.RUN_GONE:
            return f"It was not compared with {champion}, whose folder is missing or damaged; restore it, or demote the champion."
        case ChampionReason.TOO_SHORT:
            return f"It was not compared with {champion}: both tested {test.n_sessions:,} sessions, too few to distinguish them."
    ratios = f"Sharpe ratio {show(test.sharpe, 'ratio')} against {show(test.champion_sharpe, 'ratio')}"
    better = f"{test.n_better or 'none'} of the {test.n_compared:,} paths that were tried {'is' if test.n_better == 1 else 'are'} better"
    return f"Against {champion}, on {test.n_sessions:,} common sessions at its volatility {better} by more than chance ({ratios})."


def _outcome(gates: Gates, n_missed: int, n_doubts: int) -> str:
    measured = sum(row.reason is not GateReason.NOT_MEASURED for row in gates.rows)
    doubts = f" {n_doubts} of {len(gates.evidence)} checks of the evidence failed, so no number here can promote it." if n_doubts else ""
    missed = f"It misses {n_missed} of {measured} gates."
    match gates.outcome:
        case Outcome.PROMOTE:
            return f"it may be promoted. It passes all {measured} gates and nothing about the evidence is suspect."
        case Outcome.REJECT:
            return f"not to be promoted. {missed}{doubts}"
    if gates.more_sessions:
        return f"too early to say. {missed} About {gates.more_sessions:,} more sessions like those seen would be enough.{doubts}"
    missed = f" {missed}" if n_missed else ""
    unmeasured = (
        " A gate could not be measured." if any(row.reason is GateReason.NOT_MEASURED and row.required for row in gates.rows) else ""
    )
    return f"not to be promoted on this evidence.{missed}{unmeasured}{doubts}"


def _tried(gates: Gates) -> str:
    trials = gates.trials
    one = trials.n_trials == 1
    return (
        f"{trials.n_trials:,} {'path was' if one else 'paths were'} tried on these sessions so far, as many as {trials.n_independent:,} "
        f"independent {'one' if trials.n_independent == 1 else 'ones'}; the bars take that into account."
    )


def trial_rows(gates: Gates) -> list[list[str]]:
    """Everything that was recorded, by kind, and what luck is measured by."""
    trials = gates.trials
    counted = {"paths that were tried": trials.n_trials, "independent ones among them": trials.n_independent}
    counted |= {"paths compared one by one": trials.n_compared}
    recorded = {_KINDS.get(kind, kind): n for kind, n in trials.counts.items()}
    return [[name, show(n, "count")] for name, n in (recorded | counted).items()]


def gate_rows(gates: Gates) -> list[list[str]]:
    """Gate, value, bar, margin and why, as text."""
    rows = []
    for gate in gates.rows:
        sign = _SIGNS.get(gate.name, "≤" if gate.name in _AT_MOST else "≥")
        what = _GATES[gate.name].format(f"{gates.at_volatility:.0%}")
        rows.append([what, _number(gate, gate.value), f"{sign} {_number(gate, gate.bar)}", _margin(gate), _REASONS[gate.reason]])
    return rows


def _number(gate: Gate, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if gate.name in _PERCENT else f"{value:.3f}"


def _margin(gate: Gate) -> str:
    if gate.margin is None:
        return "-"
    return f"{gate.margin:+.1%}" if gate.name in _PERCENT else f"{gate.margin:+.3f}"


def doubts(gates: Gates) -> list[str]:
    """Every reason to doubt, as a clause."""
    return [_doubt(check) for check in gates.evidence if check.suspect]


def _doubt(check: EvidenceCheck) -> str:
    return f"this could not be checked: {check.name}" if check.found is None else _DOUBTS[check.name].format(check.found)
