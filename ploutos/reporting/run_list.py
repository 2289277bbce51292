"""The runs of a home, and two of them beside each other, in words."""

from dataclasses import dataclass
from pathlib import Path

from ploutos.errors import StoreError
from ploutos.evaluation.run_comparison import Difference, RunComparison
from ploutos.evaluation.summary import RunSummary, read_summary
from ploutos.reporting.names import display_name
from ploutos.reporting.page import show
from ploutos.reporting.verdict import headline
from ploutos.run_manifest import MANIFEST, read_manifest
from ploutos.strategies.base import Role


@dataclass(frozen=True)
class RunEntry:
    """A folder with a manifest.

    Attributes:
        written: when, UTC.
        summary: None for a run that ended before its evaluation, or of another schema version.
        answer: what it showed, or why there is no summary.
    """

    folder: Path
    written: str
    summary: RunSummary | None
    answer: str


def list_runs(root: Path) -> tuple[RunEntry, ...]:
    """Every run under a folder, the newest first; folders without a manifest are not runs yet."""
    entries = [_entry(path.parent) for path in root.glob(f"*/{MANIFEST}")]
    return tuple(sorted(entries, key=lambda each: (each.written, each.folder), reverse=True))


def _entry(folder: Path) -> RunEntry:
    try:
        written = read_manifest(folder).written
    except StoreError as error:
        return RunEntry(folder, "", None, str(error).removeprefix(f"{folder} "))
    if not (folder / "metrics.json").is_file():
        return RunEntry(folder, written, None, "ended before its evaluation")
    try:
        summary = read_summary(folder / "metrics.json")
    except StoreError as error:
        return RunEntry(folder, written, None, str(error).removeprefix(f"{folder / 'metrics.json'} "))
    return RunEntry(folder, written, summary, headline(summary))


def find_run(root: Path, wanted: str | None) -> Path:
    """The folder of a run.

    Args:
        root: where runs are kept.
        wanted: a folder, the name of one under `root`, the beginning of a name, or None for the newest that was evaluated.

    Raises:
        StoreError: there is none, or several begin so.
    """
    if wanted is None:
        newest = next((each.folder for each in list_runs(root) if each.summary is not None), None)
        if newest is None:
            raise StoreError(f"{root} holds no evaluated run; start one with `ploutos run`, or name a folder")
        return newest
    if (Path(wanted) / "metrics.json").is_file():
        return Path(wanted)
    names = sorted(path.parent.name for path in root.glob("*/metrics.json"))
    found = [wanted] if wanted in names else [name for name in names if name.startswith(wanted)]
    if len(found) == 1:
        return root / found[0]
    if found:
        raise StoreError(f"{len(found)} runs under {root} begin with {wanted}: {', '.join(found[:5])}; name one of them")
    raise StoreError(f"{wanted} is neither the folder of an evaluated run nor one under {root}; `ploutos runs` lists them")


# --- two runs


def compared_sentences(found: RunComparison, roles: tuple[Role, Role], mocks: tuple[bool, bool]) -> list[str]:
    """What the comparison allows to be said, the finding first.

    Args:
        roles, mocks: of the two accounts, and whether their advisors are mocks.
    """
    one, other = (
        f"{display_name(side.account, role, mock)} of {side.run}" for side, role, mock in zip(found.sides, roles, mocks, strict=True)
    )
    sentences = [_finding(found, one, other)]
    sentences.append(
        f"Sharpe ratio, first less second: {show(found.sharpe.value, 'ratio')}{_interval(found.sharpe, 'ratio')}. "
        f"{found.n_sessions:,} sessions in common, {found.first} to {found.last}; {100 * found.confidence:g}% intervals of paired "
        "sessions, p-values corrected for both measures."
    )
    if not found.same_bars:
        sentences.append("The runs used different bars, so part of the difference comes from the data.")
    return [*sentences, "What was tried before either run is not counted here; the runs' gates count it."]


def _finding(found: RunComparison, one: str, other: str) -> str:
    row = found.mean_return
    if row.low is None or row.high is None:
        return f"{one} and {other} never differed on the sessions that both tested."
    if row.sign:
        low, high = sorted((abs(row.low), abs(row.high)))
        more = "more" if row.sign > 0 else "less"
        return f"{one} earned {show(low, 'percent')} to {show(high, 'percent')} a year {more} than {other}."
    return (
        f"{one} is statistically indistinguishable from {other}: {row.value:+.1%} a year, interval {row.low:+.1%} to {row.high:+.1%}, "
        f"corrected p = {show(row.p_adjusted, 'p')}."
    )


def _interval(row: Difference, kind: str) -> str:
    return "" if row.low is None or row.high is None else f" [{show(row.low, kind)}, {show(row.high, kind)}]"
