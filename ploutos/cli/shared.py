"""What every `ploutos` command shares: exit codes, one way to fail, one console, and where details go."""

import json
import logging
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from ploutos.errors import (
    ConfigError,
    DataError,
    HistoryError,
    LLMError,
    NetworkError,
    OrchestratorError,
    PloutosError,
    RateLimited,
    VendorDown,
)

EXIT_FAILED, EXIT_CONFIG, EXIT_DATA, EXIT_ADVISOR, EXIT_NETWORK = 1, 2, 3, 4, 5
EXITS = (
    "Exit codes: 0 done, 1 failed, 2 a setting is wrong, 3 data cannot be used, 4 the advisor does not answer (of audit: something was "
    "found), 5 a server does not answer, 130 interrupted."
)


def examples(*commands: str) -> str:
    """Commands and exit codes for the end of a command's help."""
    return "Examples:\n\n" + "\n\n".join(commands) + f"\n\n{EXITS}"


JSON_OPTION = typer.Option("--json", help="Print one JSON object at the end.")


class _Wishes:
    """What a person asked of every command."""

    debug = False


WISHES = _Wishes()


def exit_code(error: PloutosError) -> int:
    """1 for a run that failed, 2 for a setting, 3 for data, 4 for the advisor, 5 for a server that does not answer."""
    for kinds, code in (
        (ConfigError, EXIT_CONFIG), (LLMError, EXIT_ADVISOR), ((NetworkError, VendorDown, RateLimited, OrchestratorError), EXIT_NETWORK),
        ((DataError, HistoryError), EXIT_DATA),
    ):  # fmt: skip
        if isinstance(error, kinds):
            return code
    return EXIT_FAILED


SOURCE_OPTION = typer.Option(help="sample, files, synthetic, alpaca or yahoo; vendors are read from the local dataset.")
PATH_OPTION = typer.Option(help="File or folder of bars, for source files.")
MARKET_OPTION = typer.Option(
    help="Symbols to trade, separated by commas, futures by their root (NQ); all symbols of the source by default."
)


def data_overrides(source: str | None, path: Path | None, market: str | None) -> list[str]:
    """The options that name the bars, as settings; a path alone means source files."""
    source = "files" if source is None and path is not None else source
    overrides = [f"data.{key}={json.dumps(str(value))}" for key, value in (("source", source), ("path", path)) if value is not None]
    if market is not None:
        overrides.append(f"data.symbols={json.dumps([s.strip() for s in market.split(',') if s.strip()])}")
    return overrides


def simulated_market(market: str | None, overrides: Sequence[str]) -> list[str]:
    """The simulation, where nothing names a source and every symbol is a future that ploutos knows: no bars of one are shipped.

    Args:
        overrides: settings that name the source, if any does.
    """
    from ploutos.market.instruments import root_of

    symbols = [name.strip() for name in (market or "").split(",") if name.strip()]
    if not symbols or any(each.startswith(("data.source=", "data.path=")) for each in overrides) or not all(map(root_of, symbols)):
        return []
    say_simulated(symbols)
    return ['data.source="synthetic"']


def say_simulated(symbols: Sequence[str]) -> None:
    """Say where bars come from when no source was named."""
    said = f"Bars of {', '.join(symbols)} are simulated, because no source was named; --source or --path names one."
    Console(stderr=True).print(said, soft_wrap=True, highlight=False, markup=False)


def fail(error: PloutosError, as_json: bool) -> typer.Exit:
    """Print an error and give what to raise."""
    say_error(type(error).__name__, str(error), as_json)
    if WISHES.debug:
        traceback.print_exception(error)
    return typer.Exit(exit_code(error))


def say_error(name: str, sentence: str, as_json: bool) -> None:
    """One line for a person, or one JSON object."""
    if as_json:
        print(json.dumps({"ok": False, "error": name, "message": sentence}))
    else:  # what stands in brackets, such as an extra's name, is not markup
        Console(stderr=True).print(f"[bold red]{name}[/]: {escape(sentence)}", soft_wrap=True, highlight=False)


def console() -> Console:
    """The terminal, or 120 columns where there is none; text is shown as it is, brackets included."""
    return Console(width=None if sys.stdout.isatty() else 120, markup=False)


def new_log(name: str) -> Path:
    """A log file that does not exist yet: under $PLOUTOS_HOME/logs, or in the system's folder for temporary files."""
    import tempfile

    from ploutos.settings import Settings

    folder = Settings().home / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:  # a home that cannot be written is said elsewhere; details must not be lost over it
        folder = Path(tempfile.mkdtemp(prefix="ploutos-"))
    return folder.absolute() / f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%fZ')}_{name}.log"


def say_unexpected(error: Exception, as_json: bool, log: Path | None = None) -> int:
    """One sentence about an unexpected error, its details in a log file, and the exit code."""
    log = log or new_log("error")
    with log.open("a", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    first = (str(error).strip() or "no explanation").splitlines()[0][:300]
    say_error(type(error).__name__, f"{first} (unexpected; details in {log}, or run again with --debug)", as_json)
    if WISHES.debug:
        traceback.print_exception(error)
    return EXIT_FAILED


def log_to(file: Path) -> None:
    """Keep every word of ours and of Prefect, from INFO up, in a file; it is made with the first of them."""
    handler = logging.FileHandler(file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    for name in ("prefect", "ploutos"):
        logging.getLogger(name).addHandler(handler)
