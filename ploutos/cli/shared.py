"""What every `ploutos` command shares: exit codes, one way to fail, one console."""

import json
import sys
from pathlib import Path

import typer
from rich.console import Console

from ploutos.errors import ConfigError, DataError, HistoryError, PloutosError

_EXIT_FAILED, _EXIT_CONFIG, _EXIT_DATA = 1, 2, 3
JSON_OPTION = typer.Option("--json", help="Print one JSON object at the end.")


def exit_code(error: PloutosError) -> int:
    """1 for a run that failed, 2 for a setting, 3 for data."""
    if isinstance(error, ConfigError):
        return _EXIT_CONFIG
    return _EXIT_DATA if isinstance(error, (DataError, HistoryError)) else _EXIT_FAILED


SOURCE_OPTION = typer.Option(help="sample, files, synthetic, alpaca or yahoo; vendors are read from the local dataset.")
PATH_OPTION = typer.Option(help="File or folder of bars; source files.")
MARKET_OPTION = typer.Option(help="Symbols to trade, separated by commas, futures by their root (NQ); all of the source by default.")


def data_overrides(source: str | None, path: Path | None, market: str | None) -> list[str]:
    """The options that name the bars, as settings; a path alone means source files."""
    source = "files" if source is None and path is not None else source
    overrides = [f"data.{key}={json.dumps(str(value))}" for key, value in (("source", source), ("path", path)) if value is not None]
    if market is not None:
        overrides.append(f"data.symbols={json.dumps([s.strip() for s in market.split(',') if s.strip()])}")
    return overrides


def fail(error: PloutosError, as_json: bool) -> typer.Exit:
    """Print an error and give what to raise."""
    if as_json:
        print(json.dumps({"ok": False, "error": type(error).__name__, "message": str(error)}))
    else:
        Console(stderr=True).print(f"[bold red]{type(error).__name__}[/]: {error}", soft_wrap=True, highlight=False)
    return typer.Exit(exit_code(error))


def console() -> Console:
    """The terminal, or 120 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else 120)
