"""The part of a report that says what accounts stand, and what would have had to be true for the subject to earn nothing."""

import math
from dataclasses import dataclass

from ploutos.evaluation.summary import Paths, Robustness, RunSummary, StressTest
from ploutos.reporting.names import names_of
from ploutos.reporting.page import show

TESTS = {
    StressTest.AS_RUN: "as it was run",
    StressTest.NO_COSTS: "trading is free",
    StressTest.DOUBLE_COSTS: "every cost doubled",
    StressTest.ONE_BAR_LATER: "every order one bar later",
    StressTest.CRASH: "all prices fall by 20% over six bars",
    StressTest.GAPS: "sudden gaps of three sessions' moves, once in 21 sessions",
    StressTest.WILD: "every move around the trend doubled",
    StressTest.CALM: "every move around the trend halved",
    StressTest.MISSING_BARS: "one bar in twenty missing",
    StressTest.NOISE: "noise on all prices",
}
SHORT = {
    StressTest.AS_RUN: "as run",
    StressTest.NO_COSTS: "free",
    StressTest.DOUBLE_COSTS: "costs x2",
    StressTest.ONE_BAR_LATER: "a bar later",
    StressTest.CRASH: "crash",
    StressTest.GAPS: "gaps",
    StressTest.WILD: "moves x2",
    StressTest.CALM: "moves x0.5",
    StressTest.MISSING_BARS: "bars missing",
    StressTest.NOISE: "noise",
}
_HEADINGS = ["world", "decisions", "total return", "Sharpe", "max drawdown", "buy and hold there"]


@dataclass(frozen=True)
class StressPart:
    """What the template shows."""

    sentences: list[str]
    tables: list[tuple[str, list[str], list[list[str]]]]


def stress_part(summary: RunSummary) -> StressPart | None:
    """Of the account that the run is about, and of every other that decides; None where none was tested."""
    if not summary.robustness:
        return None
    own = next((each for each in summary.robustness if each.slug == summary.subject.slug), None)
    everyone = ("Every decider in these worlds: total return and, in brackets, Sharpe ratio", *decider_table(summary))
    if own is None:  # a member, an ablation or an oracle
        return StressPart([], [everyone])
    name = names_of(summary)[own.slug]
    regimes = [
        [regime.name, str(regime.n_sessions), show(regime.mean_return, "percent"), show(regime.sharpe, "ratio"),
         show(regime.benchmark_mean_return, "percent")]
        for regime in own.regimes
    ]  # fmt: skip
    headings = ["volatility before the session", "sessions", "mean return / y", "Sharpe", "buy and hold / y"]
    return StressPart(
        sentences=needed_sentences(own, name),
        tables=[
            (f"{name} in changed worlds", _HEADINGS, stress_rows(own)),
            ("Sessions by volatility, as run", headings, regimes),
            everyone,
        ],
    )


def decider_table(summary: RunSummary) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: an account each, a column for every world; of several draws of noise the one with the lowest return."""
    names, tests = names_of(summary), [test for test in StressTest if any(each.row(test) for each in summary.robustness)]
    headings = ["decider", *(SHORT[test] for test in tests), "costs it bears", "paths that lost"]
    return headings, [
        [names[each.slug], *(_worst(each, test) for test in tests), _borne(each), _losses(each)] for each in summary.robustness
    ]


def _worst(tested: Robustness, test: StressTest) -> str:
    rows = [row for row in tested.rows if row.test is test]
    if not rows:
        return show(None, "percent")
    row = min(rows, key=lambda each: math.inf if each.total_return is None else each.total_return)
    return f"{show(row.total_return, 'percent')} ({'ruined' if row.ruined else show(row.sharpe, 'ratio')})"


def _borne(tested: Robustness) -> str:
    """Multiple of its costs at which nothing is left."""
    free = tested.row(StressTest.NO_COSTS)
    if tested.break_even_costs is not None:
        return f"{tested.break_even_costs:.1f}x"
    return "none" if free is not None and (free.total_return or 0) <= 0 else "above 64x"


def _losses(tested: Robustness) -> str:
    return show(None, "percent") if tested.paths is None else f"{tested.paths.losses:.0%}"


def stress_rows(own: Robustness) -> list[list[str]]:
    """The stress table as text."""
    return [
        [
            TESTS[row.test] + (f", draw {row.draw + 1}" if row.test is StressTest.NOISE else ""),
            "taken again" if row.decided_again else "as taken",
            show(row.total_return, "percent") + (", ruined" if row.ruined else ""),
            show(row.sharpe, "ratio"),
            show(row.max_drawdown, "percent"),
            show(row.benchmark_return, "percent"),
        ]
        for row in own.rows
    ]


def needed_sentences(own: Robustness, name: str, other: str = "buy and hold") -> list[str]:
    """What would have had to be true."""
    as_run, free = own.row(StressTest.AS_RUN), own.row(StressTest.NO_COSTS)
    sentences = []
    if own.break_even_costs is not None:
        sentences.append(f"{name} would have earned nothing at {own.break_even_costs:.1f} times its costs.")
    elif free is not None and free.total_return <= 0:
        sentences.append(f"{name} earned nothing even with free trading.")
    else:
        sentences.append(f"{name} would have earned something at 64 times its costs.")
    if own.break_even_benchmark is not None:
        sentences.append(f"It would have earned what {other} did at {own.break_even_benchmark:.1f} times the costs of both.")
    if own.best_sessions is not None and as_run is not None and as_run.total_return > 0:
        many = "session" if own.best_sessions == 1 else "sessions"
        sentences.append(f"Without its best {own.best_sessions} {many} of {own.n_sessions:,} it would have earned nothing.")
    return sentences + ([paths_sentence(own.paths, other)] if own.paths else [])


def paths_sentence(paths: Paths, other: str) -> str:
    """What resampled histories with late and lost orders showed."""
    low, high, deep = (show(value, "percent") for value in (paths.return_low, paths.return_high, -paths.drawdown_bad))
    return (
        f"Of {paths.n:,} paths of resampled sessions with late and lost orders {paths.losses:.0%} lost and {paths.behind:.0%} earned less "
        f"than {other}; nine in ten returned {low} to {high}, and one in twenty fell by more than {deep}."
    )
