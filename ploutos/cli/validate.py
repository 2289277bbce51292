"""`ploutos validate`: one run of the hardware-maximised mode, held against the seed document's targets."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ploutos.cli.shared import JSON_OPTION, MARKET_OPTION, PATH_OPTION, SOURCE_OPTION, console, data_overrides, fail
from ploutos.errors import PloutosError


def validate(
    market: Annotated[str, MARKET_OPTION] = "NQ",
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="YAML on top of the mode, with our keys or the seed document's.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as a.b=c; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Train 1 % of the steps.")] = False,
    output: Annotated[Path | None, typer.Option(help="JSON file to write the report to.")] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Run with sizes fitted to the machine and compare the measurements with the targets; exits with 1 when it does not pass."""
    from ploutos.cli.main import make_prefect_home, prepare_process

    prepare_process()
    from ploutos.testing_framework import TestingFramework, create_test_config

    try:
        config = create_test_config(
            "hardware_maximized", market, config_file, [*(settings or []), *data_overrides(source, path, None)], quick
        )
        if config.run.data.source == "synthetic" and source is None:
            typer.echo(f"the bars of {market} are simulated; --source or --path names real ones", err=True)
        make_prefect_home()
        report = TestingFramework(config).run_hardware_maximized_validation()
        if output is not None:
            report.save(output)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": report.validation_passed, **report.as_json()}))
    else:
        _print(report)
    if not report.validation_passed:
        raise typer.Exit(1)


def _print(report: Any) -> None:
    terminal = console()
    terminal.print(f"{report.test_name}: {'passed' if report.validation_passed else 'not passed'}", highlight=False)
    for name, finding in report.targets.items():
        measured = getattr(report, name)
        shown = finding.reason if finding.met is None else f"{measured:.2f}, {'met' if finding.met else 'missed'}"
        terminal.print(f"  {name} {finding.target}: {shown}", highlight=False)
    terminal.print(f"  timesteps_completed: {report.timesteps_completed}", highlight=False)
    terminal.print(f"Run: {report.folder}", soft_wrap=True, highlight=False)
