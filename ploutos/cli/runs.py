"""`ploutos runs`, `ploutos report` and `ploutos compare`: what was run, what it showed, and how two runs differ."""

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ploutos.cli.shared import JSON_OPTION, console, fail
from ploutos.errors import PloutosError, StoreError

_RUN = typer.Argument(help="A run's folder, its name under $PLOUTOS_HOME/runs, or the beginning of that name.")


def _root() -> Path:
    from ploutos.settings import Settings

    return Settings().runs_root


def runs(
    most: Annotated[int, typer.Option("--most", min=1, help="How many runs to list.")] = 20,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List the runs under $PLOUTOS_HOME and what each showed, newest first."""
    from ploutos.reporting.run_list import list_runs

    found = list_runs(_root())
    if as_json:
        rows = [{"run": each.folder.name, "folder": str(each.folder), "written": each.written, "answer": each.answer,
                 "evaluated": each.summary is not None} for each in found[:most]]  # fmt: skip
        print(json.dumps({"ok": True, "n_runs": len(found), "runs": rows}))
        return
    if not found:
        console().print(f"No run under {_root()} yet; `ploutos run` starts one.", highlight=False)
        return
    table = Table()
    for heading in ("run", "tested", "answer"):
        table.add_column(heading, overflow="fold")
    for each in found[:most]:
        summary = each.summary
        tested = "-" if summary is None else f"{summary.first} to {summary.last}"
        table.add_row(each.folder.name, tested, each.answer)
    console().print(table)
    if len(found) > most:
        console().print(f"{len(found) - most:,} older; --most shows more.", highlight=False)


def report(
    run: Annotated[str | None, _RUN] = None,
    opened: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say what a run showed and where its report is; the newest evaluated run by default."""
    from ploutos.evaluation.summary import read_summary
    from ploutos.reporting.run_list import find_run
    from ploutos.reporting.verdict import headline, verdict

    try:
        folder = find_run(_root(), run)
        page, summary = folder / "report.html", read_summary(folder / "metrics.json")
        if opened and not page.is_file():
            raise StoreError(f"{folder} has no report.html; repeat the run")
        if opened and not webbrowser.open(page.resolve().as_uri()):
            raise StoreError(f"no browser can be opened from here; open {page.resolve()} with one")
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        said = {"headline": headline(summary), "verdict": verdict(summary)}
        print(json.dumps({"ok": True, "folder": str(folder), "report": str(page), **said}))
        return
    for sentence in (headline(summary) + ".", *verdict(summary)):
        console().print(sentence, highlight=False)
    console().print(f"\nReport: {page.resolve()}", soft_wrap=True, highlight=False)


def compare(
    one: Annotated[str, _RUN],
    other: Annotated[str, typer.Argument(help="The other run, named in the same way.")],
    account: Annotated[
        str | None, typer.Option(help="Account of both runs, as metrics.json names it; the account that each run is about by default.")
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Compare two runs on the sessions that both tested: paired differences with intervals."""
    from ploutos.evaluation.run_comparison import compare_runs, read_account
    from ploutos.evaluation.spec import BootstrapSpec
    from ploutos.reporting.page import show
    from ploutos.reporting.run_list import compared_sentences, find_run

    try:
        accounts = [read_account(find_run(_root(), name), account) for name in (one, other)]
        found = compare_runs(accounts[0], accounts[1], BootstrapSpec(confidence=accounts[0].summary.confidence), seed=0)
    except PloutosError as error:
        raise fail(error, as_json) from error
    metrics = [each.summary.strategies[each.slug] for each in accounts]
    mocks = [each.summary.advisor.is_mock for each in accounts]
    sentences = compared_sentences(found, (metrics[0].role, metrics[1].role), (mocks[0], mocks[1]))
    if as_json:
        print(json.dumps({"ok": True, "sentences": sentences, **found.model_dump(mode="json")}))
        return
    table = Table()
    for heading in ("run", "account", "total return", "Sharpe", "max drawdown"):
        table.add_column(heading, justify="left" if heading in ("run", "account") else "right", overflow="fold")
    for side in found.sides:
        numbers = (show(side.total_return, "percent"), show(side.sharpe, "ratio"), show(side.max_drawdown, "percent"))
        table.add_row(side.run, side.account, *numbers)
    console().print(table)
    for sentence in sentences:
        console().print(sentence, highlight=False)
