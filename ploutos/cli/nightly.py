"""`ploutos nightly` and `ploutos replay`: decide for the next open, and take an earlier decision again."""

import json
import os
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ploutos.cli.operations import use_served
from ploutos.cli.shared import JSON_OPTION, MARKET_OPTION, PATH_OPTION, SOURCE_OPTION, console, data_overrides, fail
from ploutos.errors import ConfigError, PloutosError

if TYPE_CHECKING:
    from ploutos.nightly.config import NightlyConfig


def nightly(
    preset: Annotated[str, typer.Option(help="demo, quick (1 % of the steps), test (10 %), full or hardware_maximized.")] = "full",
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting of the run, such as a.b=c; repeatable.")] = None,
    session: Annotated[
        str | None, typer.Option("--date", help="Session after whose close to decide; the last one that has closed by default.")
    ] = None,
    wait_minutes: Annotated[float, typer.Option("--wait", min=0, help="Minutes to wait for late bars.")] = 60.0,
    catch_up: Annotated[int, typer.Option(min=0, help="Most missed sessions to make up for, in order.")] = 20,
    automatic: Annotated[bool, typer.Option("--promote", help="Carry out a promotion that is due; otherwise it is only reported.")] = False,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for a decision on the Prefect server when a promotion is due.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print Prefect's log instead of the progress.")] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Run the walk-forward test up to a session and decide for the next open; what has not changed comes from the cache."""
    from ploutos.cli.main import make_prefect_home, prepare_process

    prepare_process()
    from ploutos.config import load_config

    try:
        run = load_config(preset, config_file, [*(settings or []), *data_overrides(source, path, market)])
        config = _config({
            "run": run, "session": None if session is None else _day(session, "--date"), "wait_minutes": wait_minutes, "catch_up": catch_up,
            "promotion": _promotion(automatic, ask),
        })  # fmt: skip
        if ask:
            use_served()
        make_prefect_home()
        folder = _run_flow(config, verbose)
    except PloutosError as error:
        raise fail(error, as_json) from error
    said = json.loads((folder / "night.json").read_bytes())
    if as_json:
        print(json.dumps({"ok": True, "folder": str(folder), **said}))
        return
    for sentence in said["sentences"]:
        console().print(sentence, highlight=False)
    console().print(f"\nNight: {(folder / 'index.html').resolve()}", soft_wrap=True, highlight=False)


def _promotion(automatic: bool, ask: bool) -> str:
    if automatic and ask:
        raise ConfigError("--promote carries a promotion out and --ask asks first; give only one of them")
    return "automatic" if automatic else "asked" if ask else "said"


def _config(values: dict[str, Any]) -> "NightlyConfig":
    from pydantic import ValidationError

    from ploutos.faults import explain
    from ploutos.nightly.config import NightlyConfig

    try:
        return NightlyConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, NightlyConfig)) from error


def _run_flow(config: "NightlyConfig", verbose: bool) -> Path:
    from ploutos.cli.main import show_flow
    from ploutos.preflight import require_advisor, require_prefect, require_surroundings
    from ploutos.settings import Settings

    require_surroundings(config.run, Settings())
    require_prefect(os.environ.get("PREFECT_API_URL"))
    require_advisor(config.run.llm, Settings())

    def call() -> Path:
        from flows.nightly import nightly as flow

        return Path(flow(config))

    return show_flow("nightly", call, verbose)[0]


def replay(
    session: Annotated[str, typer.Argument(help="Session whose decision to take again, such as 2026-11-27.")],
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take the decisions of a night again from the store alone, and compare them byte by byte with what was stored."""
    from ploutos.cli.main import prepare_process

    prepare_process()
    from ploutos.nightly.night import Nights, replay
    from ploutos.remote_store import open_store
    from ploutos.settings import Settings

    try:
        place = Settings()
        records = Nights(place.registry_root).require(str(_day(session, "the session")))
        found = [(record, replay(open_store(place), record)[0]) for record in records]
    except PloutosError as error:
        raise fail(error, as_json) from error
    rows: list[dict[str, Any]] = [
        {"role": record.role, "subject": record.subject, "kept": record.decision.sha256, "replayed": ref.sha256,
         "equal": ref.sha256 == record.decision.sha256}
        for record, ref in found
    ]  # fmt: skip
    equal = all(row["equal"] for row in rows)
    if as_json:
        print(json.dumps({"ok": equal, "session": session, "decisions": rows}))
    else:
        for row in rows:
            end = (
                "the same bytes as then" if row["equal"] else f"not the same bytes as then: {row['replayed'][:12]}, kept {row['kept'][:12]}"
            )
            console().print(f"{row['role']} ({row['subject']}): {end}", highlight=False)
    if not equal:
        raise typer.Exit(1)


def _day(text: str, what: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{what} is {text!r}; expected a date such as 2026-11-27") from error
