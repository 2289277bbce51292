"""`ploutos data`: download bars, keep them up to date, inspect them. No other command contacts a vendor."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ploutos.cli.shared import JSON_OPTION, PATH_OPTION, console, data_overrides, exit_code, fail
from ploutos.errors import ConfigError, DataError, PloutosError

if TYPE_CHECKING:
    from ploutos.market.data_spec import DataSpec
    from ploutos.market.download import BuildResult
    from ploutos.market.loader import SourceTable
    from ploutos.market.macro import Provider
    from ploutos.market.sources.vendor import Vendor

app = typer.Typer(no_args_is_help=True, help="Bring vendors' bars into the local dataset, and see what is wrong with them.")

_SOURCE = typer.Option(help="alpaca (alpaca-sip), alpaca-iex or yahoo.")
_MARKET = typer.Option(help="Symbols, separated by commas; futures by their root: NQ.")
_TIMEFRAME = typer.Option(help="Bar length, such as 1h, 1D or 15min.")
_ADJUSTMENT = typer.Option(help="total_return (splits and dividends folded in) or raw.")
_PARTIAL = typer.Option("--allow-partial", help="Exit with 0 even if some symbols failed.")


def _spec(source: str, market: str | None, timeframe: str, adjustment: str) -> "DataSpec":
    """The settings of a run that would read the same series."""
    from ploutos.config import make_config

    vendor, _, feed = source.partition("-")
    if vendor not in ("alpaca", "yahoo"):
        raise ConfigError(f"--source is {source!r}; expected alpaca, alpaca-iex or yahoo; other sources need no download")
    data: dict[str, Any] = {"source": vendor, "symbols": _symbols(market), "timeframe": timeframe, "adjustment": adjustment}
    return make_config({"data": data | ({"feed": feed} if feed else {})}).data


def _symbols(market: str | None) -> list[str]:
    return [name.strip() for name in (market or "").split(",") if name.strip()]


def _vendor(spec: "DataSpec") -> "Vendor":
    from ploutos.market.sources.connect import connect
    from ploutos.settings import Settings

    return connect(spec, Settings())


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a callback that draws one line per symbol on the error stream."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} bars, {task.fields[pages]} pages"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        lines: dict[str, Any] = {}

        def told(symbol: str, rows: int, pages: int) -> None:
            if symbol not in lines:
                for line in lines.values():
                    bar.update(line, total=1, completed=1)
                lines[symbol] = bar.add_task(f"{len(lines) + 1}/{total} {symbol}", total=None, rows=0, pages=0)
            bar.update(lines[symbol], rows=rows, pages=pages)

        yield told
        for line in lines.values():
            bar.update(line, total=1, completed=1)


@app.command()
def build(
    source: Annotated[str, _SOURCE],
    market: Annotated[str, _MARKET],
    timeframe: Annotated[str, _TIMEFRAME] = "1h",
    adjustment: Annotated[str, _ADJUSTMENT] = "total_return",
    start: Annotated[str, typer.Option(help="First day, such as 2020-01-01.")] = "2020-01-01",
    end: Annotated[str | None, typer.Option(help="End date, exclusive; now by default.")] = None,
    allow_partial: Annotated[bool, _PARTIAL] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Download the bars that the dataset lacks; run it again to continue after an interruption."""
    import pandas as pd

    from ploutos.market import download
    from ploutos.market.data_spec import VENDOR_TIMEFRAME, substitutes, vendor_symbols
    from ploutos.market.dataset import Dataset
    from ploutos.market.sources.vendor import Request
    from ploutos.settings import Settings

    try:
        spec = _spec(source, market, timeframe, adjustment)
        first, last = _moment(start, "--start"), pd.Timestamp.now("UTC").ceil("D") if end is None else _moment(end, "--end")
        if first >= last:
            raise ConfigError(f"--start {start} is not before --end {end or 'now'}")
        bar = spec.bar or VENDOR_TIMEFRAME
        requests = [Request(symbol, bar, first, last, spec.adjustment) for symbol in vendor_symbols(spec)]
        for symbol, served in substitutes(spec).items():
            Console(stderr=True).print(f"Alpaca has no futures: {served} stands in for {symbol}.", highlight=False)
        vendor = _vendor(spec)
        with _progress(len(requests)) as told:
            result = download.build(Dataset(Settings().datasets_root), vendor, requests, told, allow_partial=allow_partial)
    except PloutosError as error:
        raise fail(error, as_json) from error
    _print_result(result, as_json)


@app.command()
def update(
    source: Annotated[str, _SOURCE],
    market: Annotated[str | None, _MARKET] = None,
    timeframe: Annotated[str, _TIMEFRAME] = "1h",
    adjustment: Annotated[str, _ADJUSTMENT] = "total_return",
    allow_partial: Annotated[bool, _PARTIAL] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Add new bars; where the vendor rewrote the past (a new dividend), download the whole series again."""
    from ploutos.market import download
    from ploutos.market.data_spec import VENDOR_TIMEFRAME, vendor_symbols
    from ploutos.market.dataset import Dataset
    from ploutos.settings import Settings

    try:
        spec = _spec(source, market, timeframe, adjustment)
        symbols = list(vendor_symbols(spec))
        vendor = _vendor(spec)
        with _progress(len(symbols)) as told:
            result = download.update(
                Dataset(Settings().datasets_root), vendor, spec.adjustment, spec.bar or VENDOR_TIMEFRAME, symbols, told,
                allow_partial=allow_partial,
            )  # fmt: skip
    except PloutosError as error:
        raise fail(error, as_json) from error
    _print_result(result, as_json)


def _moment(text: str, option: str) -> Any:
    import pandas as pd

    try:
        return pd.Timestamp(date.fromisoformat(text), tz="UTC")
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; expected a date such as 2020-01-01") from error


def _print_result(result: "BuildResult", as_json: bool) -> None:
    series = [
        {"symbol": each.key.symbol, "status": each.status, "bars": each.rows, "new": each.added, "pages": each.pages, "note": each.note}
        for each in result.series
    ]
    failures = [{"symbol": failure.symbol, "error": failure.error} for failure in result.failures]
    if as_json:
        print(json.dumps({"ok": True, "series": series, "failures": failures}))
        return
    _print_table(series, "symbol")
    for failure in failures:
        _say("red", failure["symbol"], f" failed: {failure['error']}")


def _say(style: str, head: str, rest: str) -> None:
    console().print(Text.assemble((head, style), rest), highlight=False)


def _print_table(rows: list[dict[str, Any]], left: str, title: str | None = None) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in (left, "note", "status", "finding", "check", "series") else "right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    console().print(table)


@app.command()
def show(as_json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List what is stored and verify every file."""
    from ploutos.market.dataset import Dataset
    from ploutos.settings import Settings

    try:
        dataset = Dataset(Settings().datasets_root)
        lines, problems = dataset.summary(), dataset.verify()
    except PloutosError as error:
        raise fail(error, as_json) from error
    rows = [
        {
            "series": line.key.folder,
            "bars": line.rows,
            "first": f"{line.first:%Y-%m-%d}",
            "last": f"{line.last:%Y-%m-%d}",
            "bytes": line.bytes,
        }
        for line in lines
    ]
    if as_json:
        print(json.dumps({"ok": not problems, "series": rows, "problems": problems}))
    elif rows:
        _print_table(rows, "series", str(dataset.root))
    else:
        console().print(f"{dataset.root} holds no bars yet; download some with ploutos data build", highlight=False)
    if problems:
        raise fail(DataError("; ".join(problems)), as_json=False)


@app.command()
def check(
    source: Annotated[str | None, typer.Option(help="sample (the default), files, synthetic, alpaca, alpaca-iex or yahoo.")] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, _MARKET] = None,
    timeframe: Annotated[str, _TIMEFRAME] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One setting of data, such as data.calendar=24/7; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("quality.html"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Inspect bars for gaps, bad ticks, suspected splits, stale quotes and more; simulated bars also for the facts of real markets
    that they lack. Prints a table and writes a page with every symbol."""
    from ploutos.config import load_config
    from ploutos.market.calendar import DAY
    from ploutos.market.loader import read_table
    from ploutos.market.synthetic.stylised_facts import missing_facts
    from ploutos.reporting.quality_page import days, finding_rows, symbol_rows, write_quality_report
    from ploutos.settings import Settings
    from ploutos.store import writing

    try:
        vendor, _, feed = (source or "").partition("-")
        overrides = [*data_overrides(vendor or None, path, market), f"data.timeframe={timeframe}"]
        overrides += [f"data.feed={feed}"] if feed else []
        spec = load_config("demo", None, [*overrides, *(settings or [])]).data
        table = read_table(spec, Settings().datasets_root)
        report, bars, fault = _examine(table, spec)
    except PloutosError as error:
        raise fail(error, as_json) from error
    unwritten: PloutosError | None = None
    try:
        with writing(out) as temporary:
            write_quality_report(report, bars, temporary)
    except PloutosError as error:  # what was found is said all the same
        unwritten = error
    notes = list(table.notes if fault else bars.notes)
    if spec.source == "synthetic" and fault is None:
        notes += missing_facts(bars)
    if as_json:
        refused = {"error": type(fault).__name__, "message": str(fault)} if fault else {}
        found = {
            "symbols": symbol_rows(report.summary, report.timeframe >= DAY),
            "findings": finding_rows(report),
            "notes": notes,
            "page": None if unwritten else str(out),
        }
        print(json.dumps({"ok": fault is None and not report.errors} | refused | found))
    else:
        _print_table(symbol_rows(report.summary, report.timeframe >= DAY), "symbol", table.origin)
        for note in notes:
            console().print(note, highlight=False)
        for finding in report.errors:
            _say("red", finding.check, f": {days(finding.sentence, report.timeframe >= DAY)}")
        for warning in report.summary.warnings:
            _say("yellow", warning.check, f": {days(warning.sentence, report.timeframe >= DAY)}")
        if unwritten is None:
            console().print(f"Page: {out.resolve()}", soft_wrap=True, highlight=False)
    if unwritten is not None:
        raise typer.Exit(exit_code(unwritten)) if as_json else fail(unwritten, as_json)
    if fault is not None:
        raise typer.Exit(exit_code(fault)) if as_json else fail(fault, as_json)
    if report.errors:
        raise typer.Exit(3)


def _examine(table: "SourceTable", spec: "DataSpec") -> tuple[Any, Any, PloutosError | None]:
    """What an inspection finds, the bars it looked at, and why a run would refuse them, if it would.

    Bars that load are inspected as a run does; of those that do not, the table is, as far as it can be read at all.
    """
    import pandas as pd

    from ploutos.market.loader import load_table
    from ploutos.market.quality import inspect_bars

    now = pd.Timestamp.now("UTC") if spec.source in ("alpaca", "yahoo") else None
    try:
        bars = load_table(table, spec)
        return inspect_bars(bars, now=now), bars, None
    except (ConfigError, DataError) as fault:
        try:
            calendar = None if spec.calendar == "auto" else spec.calendar
            return inspect_bars(table.frame, spec.bar, calendar, source=table.origin), table.frame, fault
        except (ConfigError, DataError):
            raise fault from None


@app.command()
def macro(
    provider: Annotated[
        str, typer.Option(help="yahoo (VIX, 10-year yield, dollar index) or fred (VIX, 10-year yield, broad dollar).")
    ] = "fred",
    start: Annotated[str, typer.Option(help="First day.")] = "2000-01-01",
    out: Annotated[Path, typer.Option(help="Folder for one CSV per series; give it to a run as --set data.macro=FOLDER.")] = Path("macro"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Download daily VIX, 10-year yield and dollar; runs join them by publication time."""
    from ploutos.market.sources.macro_download import download_macro
    from ploutos.settings import Settings

    try:
        if provider not in ("yahoo", "fred"):
            raise ConfigError(f"--provider is {provider!r}; expected yahoo or fred")
        vendor = _vendor(_spec("yahoo", "^VIX", "1D", "raw")) if provider == "yahoo" else None
        rows = download_macro(cast("Provider", provider), _moment(start, "--start"), out, vendor, Settings().proxy)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": True, "series": rows}))
    else:
        _print_table(rows, "series")
