"""`ploutos strategist`: a language model tunes a rule; what code makes of it; and what unloading the model costs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ploutos.cli.shared import JSON_OPTION, MARKET_OPTION, PATH_OPTION, SOURCE_OPTION, console, data_overrides, examples, fail
from ploutos.errors import ConfigError, PloutosError

if TYPE_CHECKING:
    from ploutos.config import PipelineConfig
    from ploutos.research.strategist.spec import StrategistSpec

app = typer.Typer(no_args_is_help=True, help="Let a language model tune a trading rule, and let code judge what that was worth.")
_STRATEGY = typer.Option(help="A rule such as ema_cross, or one of your own as my_rules.py:RULE.")
_PRESET = typer.Option(help="demo, quick, test or full.")
_CONFIG = typer.Option("--config", help="YAML on top of the preset.")
_SETTINGS = typer.Option("--set", help="One setting, such as llm.provider=ollama or env.allow_short=true; repeatable.")
_LIMITS = typer.Option("--limit", help="One limit of the search, such as max_iterations=5; repeatable.")


def make_spec(strategy: str, limits: list[str] | None) -> "StrategistSpec":
    """The limits of a search, from the command line.

    Raises:
        ConfigError: one of them is unknown or out of bounds.
    """
    import yaml
    from pydantic import ValidationError

    from ploutos.research.strategist.spec import StrategistSpec

    given: dict[str, Any] = {"strategy": strategy}
    for limit in limits or []:
        name, equals, value = limit.partition("=")
        if not equals:
            raise ConfigError(f"--limit {limit} has no value; expected name=value, such as max_iterations=5")
        given[name] = yaml.safe_load(value)
    try:
        return StrategistSpec.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(StrategistSpec.model_fields)
        raise ConfigError(f"--limit {'.'.join(map(str, first['loc']))}: {first['msg']}; the limits are {known}") from error


@app.command(epilog=examples("ploutos strategist run --set llm.provider=ollama --set env.allow_short=true --limit max_iterations=5"))
def run(
    strategy: Annotated[str, _STRATEGY] = "ema_cross",
    preset: Annotated[str, _PRESET] = "full",
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    config_file: Annotated[Path | None, _CONFIG] = None,
    settings: Annotated[list[str] | None, _SETTINGS] = None,
    limits: Annotated[list[str] | None, _LIMITS] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; a new one under $PLOUTOS_HOME/runs by default.")] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Search for a rule's parameters: propose, backtest, refit, judge. Run it again after an interruption: no question is asked twice."""
    from ploutos.cli.main import make_prefect_home, prepare_process

    prepare_process()
    try:
        config = _config(preset, config_file, settings, source, path, market, out)
        spec = make_spec(strategy, limits)
        make_prefect_home()
        folder = _run_flow(config, spec)
        _print(folder, as_json)
    except PloutosError as error:
        raise fail(error, as_json) from error


@app.command(epilog=examples("ploutos strategist show runs/mine"))
def show(
    folder: Annotated[Path, typer.Argument(help="Folder that `ploutos strategist run` wrote.")],
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Print the verdict and the turns of a finished search."""
    try:
        _print(folder, as_json)
    except PloutosError as error:
        raise fail(error, as_json) from error


@app.command("unload-benchmark", epilog=examples("ploutos strategist unload-benchmark --set llm.provider=ollama"))
def unload_benchmark(
    strategy: Annotated[str, _STRATEGY] = "ema_cross",
    preset: Annotated[str, _PRESET] = "full",
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    config_file: Annotated[Path | None, _CONFIG] = None,
    settings: Annotated[list[str] | None, _SETTINGS] = None,
    limits: Annotated[list[str] | None, _LIMITS] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Run one search with the model in the GPU during backtests and one without: seconds, peak GPU memory, peak memory."""
    from ploutos.cli.main import prepare_process

    prepare_process()
    try:
        config = _config(preset, config_file, settings, source, path, market, None)
        from ploutos.market.loader import load
        from ploutos.research.strategist.unload_benchmark import measure_unload
        from ploutos.settings import Settings

        machine = Settings()
        bars = load(config.data, machine.datasets_root)
        modes = measure_unload(config.llm, machine, bars, config.env, make_spec(strategy, limits))
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": True, "modes": [asdict(mode) for mode in modes]}))
        return
    table = Table("", *(f"UNLOAD_LLM_DURING_BACKTEST={mode.unload}" for mode in modes))
    for name in asdict(modes[0]):
        if name != "unload":
            table.add_row(name, *(_cell(getattr(mode, name)) for mode in modes))
    console().print(table)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "not evaluated"
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def _config(
    preset: str, config_file: Path | None, settings: list[str] | None, source: str | None, path: Path | None, market: str | None,
    out: Path | None,
) -> "PipelineConfig":  # fmt: skip
    from ploutos.config import load_config

    overrides = [*(settings or []), *data_overrides(source, path, market)]
    if out is not None:
        overrides.append(f"out={json.dumps(str(out))}")
    return load_config(preset, config_file, overrides)


def _run_flow(config: "PipelineConfig", spec: "StrategistSpec") -> Path:
    from flows.interrupted import tell_server
    from flows.optimize_strategy import optimize_strategy
    from ploutos.interrupt import call_at_the_end

    call_at_the_end(tell_server)
    return Path(optimize_strategy(config, spec))


def _print(folder: Path, as_json: bool) -> None:
    from ploutos.reporting.strategist_page import read_strategist, turn_cells

    result = read_strategist(folder)
    if as_json:
        print(json.dumps({"ok": True, "folder": str(folder), "result": result.model_dump(mode="json")}))
        return
    rows = [turn_cells(row) for row in result.iterations]
    table = Table(*list(rows[0])[:-1])
    for row in rows:
        table.add_row(*list(row.values())[:-1])
    terminal = console()
    terminal.print(table)
    for sentence in result.sentences:
        terminal.print(sentence, highlight=False, markup=False)
    terminal.print(f"\nPage: {(folder / 'strategist.html').resolve()}", soft_wrap=True, highlight=False)
