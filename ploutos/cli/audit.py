"""`ploutos audit`: features, decisions and returns of any system under our rules. Exits with 4 where it found something."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ploutos.cli.shared import JSON_OPTION, MARKET_OPTION, PATH_OPTION, SOURCE_OPTION, console, data_overrides, fail
from ploutos.errors import PloutosError, StoreError

if TYPE_CHECKING:
    from ploutos.config import PipelineConfig
    from ploutos.market.bars import Bars

app = typer.Typer(
    no_args_is_help=True, help="Check any system for leaks in its features, and for luck and costs in its decisions and returns."
)
FOUND = 4
_OUT = typer.Option(help="The page to write.")
_SEED = typer.Option(help="Seed of the random bars, paths and samples.")
_TRIALS = typer.Option(min=1, help="How many variants were tried in all, this one included.")
_SETTINGS = typer.Option("--set", help="One setting, such as env.gross_limit=2; repeatable.")


def _bars(source: str | None, path: Path | None, market: str | None, settings: list[str] | None) -> "tuple[Bars, PipelineConfig]":
    from ploutos.config import load_config
    from ploutos.market.loader import load
    from ploutos.settings import Settings

    config = load_config("full", None, [*(settings or []), *data_overrides(source, path, market)])
    return load(config.data, Settings().datasets_root), config


def _report(audit: Any, sentences: list[str], page: Callable[[], str], found: bool, out: Path, as_json: bool) -> None:
    """Write the page, say what was found, and exit with 4 where something was."""
    try:
        out.write_text(page(), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    if as_json:
        print(json.dumps({"ok": True, "found": found, "sentences": sentences, "page": str(out), "audit": audit.model_dump(mode="json")}))
    else:
        terminal = console()
        for sentence in sentences:
            terminal.print(sentence, highlight=False, soft_wrap=True)
        terminal.print(f"\nPage: {out.resolve()}", soft_wrap=True, highlight=False)
    if found:
        raise typer.Exit(FOUND)


@app.command()
def features(
    function: Annotated[str, typer.Argument(help="FILE.py:function; it is given a frame of OHLCV by bar start, UTC.")],
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    settings: Annotated[list[str] | None, _SETTINGS] = None,
    panel: Annotated[bool, typer.Option("--panel", help="Give the function all symbols at once, by bar start and symbol.")] = False,
    bars: Annotated[int, typer.Option(min=100, help="How many of the source's last bars to run it on.")] = 2000,
    cuts: Annotated[int, typer.Option(min=1, help="How many random bars per symbol to change the future after.")] = 8,
    seed: Annotated[int, _SEED] = 0,
    out: Annotated[Path, _OUT] = Path("audit.html"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Find columns that read later bars: exits with 0 where none does, with 4 where one does."""
    try:
        from ploutos.reporting.audit_page import feature_sentences, render_features
        from ploutos.research.audit import audit_features, last_bars, load_function

        audited = load_function(function)
        found = audit_features(
            audited, last_bars(_bars(source, path, market, settings)[0], bars), panel=panel, n_cuts=cuts, seed=seed,
            name=function.rpartition(":")[2],
        )  # fmt: skip
        _report(found, feature_sentences(found), lambda: render_features(found), bool(found.leaks), out, as_json)
    except PloutosError as error:
        raise fail(error, as_json) from error


@app.command()
def decisions(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV: timestamp (bar start), symbol, and weight or units (traded).")],
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    settings: Annotated[list[str] | None, _SETTINGS] = None,
    trials: Annotated[int, _TRIALS] = 1,
    seed: Annotated[int, _SEED] = 0,
    out: Annotated[Path, _OUT] = Path("audit.html"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Replay decisions with our costs: exits with 4 unless they beat the market at the same exposure by more than luck."""
    try:
        from ploutos.reporting.audit_page import CONFIDENCE, decisions_sentences, render_decisions
        from ploutos.research.track_record import audit_decisions, read_decisions

        table = read_decisions(file)
        panel, config = _bars(source, path, market, settings)
        found = audit_decisions(table, panel, config.env, trials, seed, config.evaluation.robustness)
        doubtful = not (found.luck_over_matched.dsr or 0) >= CONFIDENCE
        _report(found, decisions_sentences(found), lambda: render_decisions(found), doubtful, out, as_json)
    except PloutosError as error:
        raise fail(error, as_json) from error


@app.command()
def returns(
    file: Annotated[Path, typer.Argument(help="CSV: a date, then one or more columns of simple returns.")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="How many strategies were tried in all; the number of columns by default.")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Column that the others are compared with; cash by default.")] = None,
    seed: Annotated[int, _SEED] = 0,
    out: Annotated[Path, _OUT] = Path("audit.html"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Probabilistic and deflated Sharpe ratios, track record, SPA, drawdowns: exits with 4 unless the best is more than luck."""
    try:
        from ploutos.reporting.audit_page import CONFIDENCE, render_returns, returns_sentences
        from ploutos.research.track_record import audit_returns, read_returns

        found = audit_returns(read_returns(file), trials, benchmark, seed)
        doubtful = not (found.luck[found.columns[0]].dsr or 0) >= CONFIDENCE
        _report(found, returns_sentences(found), lambda: render_returns(found), doubtful, out, as_json)
    except PloutosError as error:
        raise fail(error, as_json) from error
