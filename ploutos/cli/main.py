"""The `ploutos` command. Prefect, numpy and torch are imported by the commands, after the thread caps are set."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ploutos.cli import audit, benchmark, data, llm, models, modes, nightly, operations, runs, settings, strategist, validate
from ploutos.cli.shared import (
    EXITS,
    JSON_OPTION,
    MARKET_OPTION,
    PATH_OPTION,
    SOURCE_OPTION,
    WISHES,
    console,
    data_overrides,
    examples,
    fail,
    log_to,
    new_log,
    simulated_market,
)  # fmt: skip
from ploutos.errors import ConfigError, PloutosError
from ploutos.hardware.threads import cap_threads
from ploutos.interrupt import call_at_once, call_at_the_end
from ploutos.wording import plural

app = typer.Typer(
    no_args_is_help=True, help=f"From market bars to an honestly evaluated trading agent.\n\n{EXITS}",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
_RUN, _START, _CHECK, _AFTER = "Run", "Before a run", "Check", "After a run"
app.add_typer(data.app, name="data", rich_help_panel=_START)
app.add_typer(llm.app, name="llm", rich_help_panel=_CHECK)
app.add_typer(models.app, name="models", rich_help_panel=_AFTER)
app.add_typer(audit.app, name="audit", rich_help_panel=_CHECK)
app.add_typer(strategist.app, name="strategist", rich_help_panel=_RUN)

_PREFECT_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "ploutos",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # a server of `ploutos deploy` takes a run that is silent for 90 s for dead
}


def prepare_process() -> None:
    """Set what must be set before the heavy libraries are imported."""
    cap_threads(1)
    for name, value in _PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)


def make_prefect_home() -> None:
    """Make the folder of a temporary server's database; Prefect itself would wait two minutes for one that cannot start.

    Raises:
        ConfigError: it cannot be made or written.
    """
    if "PREFECT_API_URL" in os.environ:
        return
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=home).close()
    except OSError as error:
        raise ConfigError(f"Prefect cannot write in {home}: {error.strerror}; set PREFECT_HOME to a folder that can be written") from error


def _print_version(asked: bool) -> None:
    if asked:
        from ploutos import __version__

        print(f"ploutos {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the details of an error; may stand anywhere in a command.")] = False,
) -> None:
    """No profit is promised, ever."""
    WISHES.debug = debug


@app.command(
    rich_help_panel=_RUN,
    epilog=examples(
        "ploutos run",
        "ploutos run --plan --path bars.csv",
        "ploutos run --preset quick --config mine.yaml --set training.members=5 --out a",
        "ploutos run --mode pipeline --market NQ --quick",
    ),
)
def run(
    preset: Annotated[
        str | None, typer.Option(help="demo, quick (1 % of the steps), test (10 %), full or hardware_maximized; demo by default.")
    ] = None,
    mode: Annotated[str | None, modes.MODE_OPTION] = None,
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as a.b=c; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run; a new one under $PLOUTOS_HOME/runs by default.")] = None,
    llm_replay: Annotated[bool, typer.Option("--llm-replay", help="Answer from the cassette alone; a missing answer is an error.")] = False,
    reveal: Annotated[bool, typer.Option("--reveal", help="Prompts name the asset and the date: an ablation, never a result.")] = False,
    auto_resume: Annotated[
        bool | None,
        typer.Option(
            "--auto-resume/--no-auto-resume",
            help="Continue from the checkpoints of an interrupted run (the default), or train from the start.",
        ),
    ] = None,
    quick: Annotated[bool, modes.QUICK_OPTION] = False,
    mock_llm: Annotated[bool, modes.MOCK_OPTION] = False,
    batch_size: Annotated[int | None, modes.BATCH_OPTION] = None,
    vectorized_envs: Annotated[int | None, modes.ENVS_OPTION] = None,
    start_phase: Annotated[int, modes.PHASE_OPTION] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the run would do, how long it would take and what it would write, and do nothing.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print Prefect's log instead of the progress.")] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take bars through features, walk-forward training, fusion and evaluation, and write a report."""
    prepare_process()
    from ploutos.config import load_config

    overrides = [*(settings or []), *data_overrides(source, path, market)]
    if mode is None and config_file is None:
        overrides += simulated_market(market, overrides)
    if out is not None:
        overrides.append(f"out={json.dumps(str(out))}")
    if auto_resume is not None:
        overrides.append(f"checkpoint.auto_resume={json.dumps(auto_resume)}")
    overrides += [f"llm.{name}=true" for name, given in (("replay", llm_replay), ("reveal", reveal)) if given]
    overrides += modes.shortcuts(quick, mock_llm, batch_size, vectorized_envs)
    try:
        asked = None if mode is None else modes.asked_for(mode, preset, source or path, config_file, overrides)
        config = load_config(preset or "demo", config_file, overrides) if asked is None else asked.run
        if not plan:
            make_prefect_home()
        outlook = _look_ahead(config)
        form = config if start_phase == 1 else modes.going_on(outlook.config, start_phase)
        if plan:
            from ploutos.cli.plan import print_plan

            print_plan(outlook, as_json)
            return
        report = None if asked is None else modes.watched(asked, lambda _: _run_flow(form, outlook, verbose))
        folder = _run_flow(form, outlook, verbose) if report is None else report.folder
    except PloutosError as error:
        raise fail(error, as_json) from error
    _print_summary(folder, as_json)
    if report is not None and not as_json:
        modes.print_findings(report)


def _look_ahead(config: Any) -> Any:
    """Find what would end the run later, before Prefect is imported."""
    from ploutos.preflight import look_ahead
    from ploutos.settings import Settings

    return look_ahead(config, Settings(), os.environ.get("PREFECT_API_URL"))


def _run_flow(config: Any, outlook: Any, verbose: bool) -> Path:
    """Run the main job and show its progress."""

    def call() -> Path:
        from flows.pipeline import pipeline

        return Path(pipeline(config))

    folder, seconds = show_flow("run", call, verbose, outlook)
    if seconds is not None:
        _keep_rates(outlook, seconds)
    return folder


def show_flow(name: str, call: Callable[[], Path], verbose: bool, outlook: Any = None) -> tuple[Path, dict[str, float] | None]:
    """Call a flow and show its progress; everything else that is said goes into a log file.

    Args:
        name: of the log file.
        verbose: print Prefect's log instead of the progress.
        outlook: what is to come, if it was looked at.

    Returns:
        What the flow returns, and seconds by stage, where they were taken.
    """
    from ploutos.cli.display import displayed, leave_terminal
    from ploutos.training.pool import quiet_workers

    if verbose:
        return _call_flow(call), None
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    quiet_workers()
    log = new_log(name)
    with displayed() as display:
        call_at_once(lambda: leave_terminal(display))
        if outlook is not None:
            display.introduce(outlook)
        return _call_flow(call, log), display.seconds()


def _keep_rates(outlook: Any, seconds: dict[str, float]) -> None:
    from ploutos.rates import keep_rates
    from ploutos.settings import Settings

    keep_rates(Settings().home, seconds, outlook)


def _call_flow(call: Callable[[], Path], log: Path | None = None) -> Path:
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "8")  # a server may be away for minutes
    from flows.interrupted import tell_server

    call_at_the_end(tell_server)
    if log is not None:
        log_to(log)
    return call()


def _print_summary(folder: Path, as_json: bool) -> None:
    from ploutos.evaluation.summary import read_summary
    from ploutos.reporting.report import SHORT_COLUMNS, comparison
    from ploutos.reporting.verdict import verdict

    summary = read_summary(folder / "metrics.json")
    sentences, page = verdict(summary), folder / "report.html"
    if as_json:
        metrics = summary.model_dump(mode="json")
        print(json.dumps({"ok": True, "folder": str(folder), "report": str(page), "verdict": sentences, "metrics": metrics}))
        return
    table = Table(title=f"Out of sample, {summary.first} to {summary.last}, net of costs", title_justify="left")
    for name in SHORT_COLUMNS:
        table.add_column(name, justify="left" if name == "strategy" else "right")
    for slug, row in zip(summary.strategies, comparison(summary), strict=True):
        table.add_row(*(row[name] for name in SHORT_COLUMNS), style="bold" if slug == summary.subject.slug else None)
    terminal = console()
    terminal.print(table)
    for sentence in sentences:
        terminal.print(sentence, highlight=False)
    terminal.print(f"\nReport: {page.resolve()}", soft_wrap=True, highlight=False)


@app.command(rich_help_panel=_RUN, epilog=examples("ploutos optimize --preset demo --trials 20 --out best.yaml"))
def optimize(
    preset: Annotated[str, typer.Option(help="demo, quick, test or full.")] = "full",
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as a.b=c; repeatable.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of candidates to try.")] = 20,
    timesteps: Annotated[int, typer.Option(min=1, help="Environment steps per candidate.")] = 200_000,
    kinds: Annotated[bool, typer.Option("--kinds", help="Also try different kinds of network, actions and teacher.")] = False,
    out: Annotated[Path | None, typer.Option(help="YAML file to write the best settings to; `ploutos run --config` reads it.")] = None,
) -> None:
    """Search for training settings inside the first fold's training bars; no later bar is read."""
    prepare_process()
    import yaml

    from ploutos.config import load_config
    from ploutos.preflight import require_surroundings, require_writable
    from ploutos.settings import Settings
    from ploutos.store import write_text

    try:
        if out is not None:
            require_writable(out.parent, "choose another --out")
        config = load_config(preset, config_file, list(settings or []))
        require_surroundings(config, Settings())
        found = _search(config, trials, timesteps, kinds)
    except PloutosError as error:
        raise fail(error, as_json=False) from error
    text = yaml.safe_dump({"training": found.values}, sort_keys=False)
    dropped = sum(trial.dropped for trial in found.trials)
    print(f"# score {found.score:.3f}, the best of {plural(len(found.trials), 'candidate')} ({dropped} dropped early), which flatters it")
    print(text, end="", flush=True)
    if out is not None:
        try:
            write_text(out, text)
        except PloutosError as error:
            raise fail(error, as_json=False) from error


def _search(config: Any, trials: int, timesteps: int, kinds: bool) -> Any:
    from ploutos.cli.display import displayed
    from ploutos.envs.spec import with_initial_cash
    from ploutos.features.macro_features import features_with_macro
    from ploutos.market.loader import load
    from ploutos.progress import working
    from ploutos.registry.recording import record_search
    from ploutos.registry.trials import TrialRegistry
    from ploutos.research.hyperparameters import SearchSpec, search
    from ploutos.resolve import resolve_for_machine
    from ploutos.settings import Settings
    from ploutos.walk_forward import plan_folds

    if config.data.texts is not None:
        raise ConfigError(f"a search reads no texts; found data.texts {config.data.texts}, so leave it out")
    bars = load(config.data, Settings().datasets_root)
    features = features_with_macro(bars, config.features, config.data.macro, config.data.macro_provider)
    config = resolve_for_machine(config, features)
    fold, gap = plan_folds(bars, features, config.folds)[0], config.folds.purge_bars + config.folds.embargo_bars
    spec = SearchSpec(trials=trials, timesteps=timesteps, kinds=kinds)
    env = with_initial_cash(config.env, bars, fold.train)
    with displayed(), working("search"):
        found = search(bars, features, fold, gap, env, config.training, spec, config.seed, config.hardware.device)
    base = spec.model_dump(mode="json", exclude={"trials"})
    record_search(TrialRegistry(Settings().registry_root), bars, found.validation, [trial.values for trial in found.trials], base, config)
    return found


def doctor(
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML of the planned run, for its advisor.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as llm.provider=ollama; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Check versions, Prefect's server, data, GPU, advisor and thread caps; say how to fix what is wrong."""
    prepare_process()
    from ploutos.cli.doctor import examine
    from ploutos.config import load_config

    try:
        checks = examine(load_config("full", config_file, settings or []).llm)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps([vars(check) for check in checks]))
    else:
        terminal = console()
        for check in checks:
            mark = ("ok  ", "green") if check.ok else ("FAIL", "red")
            terminal.print(Text.assemble(mark, f" {check.name}: {check.found}"), highlight=False)
            if not check.ok:
                terminal.print(f"     what to do: {check.remedy}", highlight=False)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


# `ploutos --help` lists commands as they are added: the first of a group is what most people look for
app.command("nightly", rich_help_panel=_RUN, epilog=examples("ploutos nightly --source yahoo --market SPY,QQQ"))(nightly.nightly)
app.command("resume", rich_help_panel=_RUN, epilog=examples("ploutos resume", "ploutos resume curious-otter"))(operations.resume)
app.command("serve", rich_help_panel=_RUN, epilog=examples("ploutos serve", "ploutos serve --stop", "ploutos serve --unit"))(
    operations.serve
)
app.command("deploy", rich_help_panel=_RUN, epilog=examples("ploutos deploy", "ploutos deploy --calendar LSE"))(operations.deploy)
app.command("init", rich_help_panel=_START, epilog=examples("ploutos init mine"))(settings.init)
app.command("config", rich_help_panel=_START, epilog=examples("ploutos config env.costs", "ploutos config training --preset demo"))(
    settings.config
)
app.command("runs", rich_help_panel=_AFTER, epilog=examples("ploutos runs --most 5"))(runs.runs)
app.command("report", rich_help_panel=_AFTER, epilog=examples("ploutos report --open", "ploutos report 20261128T"))(runs.report)
app.command("compare", rich_help_panel=_AFTER, epilog=examples("ploutos compare 20261127T 20261128T"))(runs.compare)
app.command("replay", rich_help_panel=_AFTER, epilog=examples("ploutos replay 2026-11-27"))(nightly.replay)
app.command("doctor", rich_help_panel=_CHECK, epilog=examples("ploutos doctor --set llm.provider=ollama"))(doctor)
app.command("validate", rich_help_panel=_CHECK, epilog=examples("ploutos validate --market NQ --quick --output logs/report.json"))(
    validate.validate
)
app.command(
    "benchmark", rich_help_panel=_CHECK, epilog=examples("ploutos benchmark --mode baseline", "ploutos benchmark --mode optimized")
)(benchmark.benchmark)
app.command("compare-benchmarks", rich_help_panel=_CHECK, epilog=examples("ploutos compare-benchmarks baseline.json optimized.json"))(
    benchmark.compare
)
