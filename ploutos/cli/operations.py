"""`ploutos serve`, `ploutos deploy`, `ploutos resume`: a Prefect server for this host, what it must know, and runs that go on."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ploutos.cli.shared import JSON_OPTION, console, fail
from ploutos.errors import PloutosError

_CALENDAR = typer.Option(help="Exchange after whose close the nightly run starts, by its name in pandas-market-calendars.")
_MINUTES = typer.Option("--after-close", min=0, help="Minutes from that close to the nightly run.")


def serve(
    port: Annotated[
        int, typer.Option(min=1, max=65_534, help="Port of server and UI, on this host alone; reports use the next one.")
    ] = 4200,
    calendar: Annotated[str, _CALENDAR] = "NYSE",
    minutes: Annotated[int, _MINUTES] = 60,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server of this PLOUTOS_HOME, and everything it runs.")] = False,
    unit: Annotated[bool, typer.Option("--unit", help="Print a systemd unit that starts the server after a reboot, and exit.")] = False,
) -> None:
    """Run a Prefect server with UI, worker and deployments on this host: on loopback, with a password, and without telemetry."""
    from ploutos.cli.main import prepare_process

    prepare_process()
    from deployments import serve as served
    from ploutos.settings import Settings

    settings = Settings()
    home = settings.home.resolve()
    try:
        if unit:
            print(served.systemd_unit(home, port), end="")
        elif stop:
            print(served.stop(home))
        else:
            database = None if settings.database is None else settings.database.get_secret_value()
            served.serve(home, port, database, _say, lambda: _deploy(calendar, minutes))
    except PloutosError as error:
        raise fail(error, as_json=False) from error


def _deploy(calendar: str, minutes: int) -> None:
    from deployments.deploy import deploy as deploy_all  # Prefect reads where its server is when it is imported
    from ploutos.settings import Settings

    deploy_all(calendar, minutes, notify=Settings().notify)


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def deploy(
    calendar: Annotated[str, _CALENDAR] = "NYSE",
    minutes: Annotated[int, _MINUTES] = 60,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Register every flow with a Prefect server, after loading each. Run it again after an upgrade; what you have set there stays."""
    from ploutos.cli.main import prepare_process

    prepare_process()
    try:
        use_served()
        from deployments.deploy import deploy as deploy_all
        from ploutos.settings import Settings

        done = deploy_all(calendar, minutes, notify=Settings().notify)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": True, "deployments": done.deployments, "schedule": done.schedule, "scheduled": done.scheduled}))
        return
    for name in done.deployments:
        console().print(name, highlight=False)
    state = "on" if done.scheduled else "off until you turn it on in the UI"
    console().print(f"The nightly run starts {done.schedule}; its schedule is {state}.", highlight=False)


def resume(
    run: Annotated[
        str | None, typer.Argument(help="Name or id of the run; by default the last one that failed, crashed or was cancelled.")
    ] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Continue a run of a deployment that failed, crashed or was cancelled, after saying which code has changed since."""
    from ploutos.cli.main import prepare_process

    prepare_process()
    try:
        use_served()
        from deployments.resume import resume as resume_run

        said = resume_run(run)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": True, "said": said}))
        return
    for sentence in said:
        print(sentence)


def use_served() -> None:
    """Use this host's own server where no other one is named."""
    from deployments.serve import Place
    from ploutos.settings import Settings

    Place(Path(Settings().home).resolve()).use()
