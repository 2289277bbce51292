"""The part of a report that says what an account stands, and what would have had to be true for it to earn nothing."""

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
    StressTest.WILD: "every move about the trend doubled",
    StressTest.CALM: "every move about the trend halved",
    StressTest.MISSING_BARS: "one bar in twenty missing",
    StressTest.NOISE: "noise on all prices",
}
_HEADINGS = ["world", "decisions", "total return", "Sharpe", "max drawdown", "buy and hold there"]


@dataclass(frozen=True)
class StressPart:
    """What the template shows."""

    sentences: list[str]
    tables: list[tuple[str, list[str], list[list[str]]]]


def stress_part(summary: RunSummary) -> StressPart | None:
    """Of the account that the run is about; None where it was not tested."""
    own = next((each for each in summary.robustness if each.slug == summary.subject.slug), None)
    if own is None:
        return None
    name = names_of(summary)[own.slug]
    regimes = [
        [regime.name, str(regime.n_sessions), show(regime.mean_return, "percent"), show(regime.sharpe, "ratio"),
         show(regime.benchmark_mean_return, "percent")]
        for regime in own.regimes
    ]  # fmt: skip
    headings = ["volatility before the session", "sessions", "mean return / y", "Sharpe", "buy and hold / y"]
    return StressPart(
        sentences=needed_sentences(own, name),
        tables=[(f"{name} in changed worlds", _HEADINGS, stress_rows(own)), ("Sessions by volatility, as run", headings, regimes)],
    )


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
        sentences.append(f"{name} earned nothing even where trading is free.")
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
