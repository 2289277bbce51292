"""`ploutos models`: who is champion, who may become it, and the way back."""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ploutos.cli.shared import JSON_OPTION, console, fail
from ploutos.errors import PloutosError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ploutos.registry.models import Model, ModelStore

app = typer.Typer(no_args_is_help=True, help="Promote models, roll them back, and show champion, challenger and their history.")

_MLFLOW = typer.Option("--mlflow", help="Address of an MLflow server that holds the models; files under $PLOUTOS_HOME/registry by default.")
_REASON = typer.Option("--reason", help="Why; recorded with the move.")
_BY = typer.Option("--by", help="Who approves; your user name by default.")


@app.callback()
def _models() -> None:
    """Champion, challenger and their history."""


def _store(mlflow: str | None) -> "ModelStore":
    from ploutos.registry.mlflow_store import MLflowModels
    from ploutos.registry.models import FileModels
    from ploutos.settings import Settings

    return FileModels(Settings().registry_root) if mlflow is None else MLflowModels(mlflow)


def _found(store: "ModelStore", wanted: str) -> "Model":
    """A model of the registry, or that of a run's folder."""
    from ploutos.registry.models import find_model
    from ploutos.registry.promotion import model_of

    folder = Path(wanted)
    return model_of(folder) if (folder / "manifest.json").is_file() else find_model(store, wanted)


@app.command("list")
def list_models(mlflow: Annotated[str | None, _MLFLOW] = None, as_json: Annotated[bool, JSON_OPTION] = False) -> None:
    """Show all models, what each alias points at, and every move so far."""
    try:
        store = _store(mlflow)
        models, aliases, history = store.models(), store.aliases(), store.history()
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        moves = [move.model_dump(mode="json") for move in history]
        print(json.dumps({"ok": True, "models": [_row(model) for model in models], "aliases": aliases, "moves": moves}))
        return
    table, by_model = Table(), {name: alias for alias, name in aliases.items()}
    for heading in ("model", "alias", "run", "decides", "outcome"):
        table.add_column(heading)
    for model in models:
        table.add_row(model.name, by_model.get(model.name, ""), model.run, model.subject, str(_row(model)["outcome"] or "not judged"))
    terminal = console()
    terminal.print(table)
    for move in history:
        forced = ", forced" if move.forced else ""
        line = f"{move.at} {move.action} {move.alias}: {move.before or '-'} to {move.model or '-'}, by {move.by}{forced}. {move.reason}"
        terminal.print(line, highlight=False)


def _row(model: "Model") -> dict[str, Any]:
    outcome = None if model.gates is None else str(model.gates.outcome)
    return {"name": model.name, "run": model.run, "subject": model.subject, "outcome": outcome, "reduced": model.reduced}


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="champion, challenger, a model's name, or a run's folder.")],
    mlflow: Annotated[str | None, _MLFLOW] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show where a model comes from, and what holds back its promotion."""
    from ploutos.registry.models import Alias
    from ploutos.registry.promotion import faults_of, tried_since
    from ploutos.registry.trials import TrialRegistry
    from ploutos.settings import Settings

    try:
        store = _store(mlflow)
        found, champion = _found(store, model), store.aliases().get(Alias.CHAMPION)
        since = tried_since(found, TrialRegistry(Settings().registry_root))
        faults = faults_of(found, since, None if champion == found.name else champion)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": True, "faults": faults, **found.model_dump(mode="json")}))
        return
    facts = {**_row(found), "symbols": ", ".join(found.symbols), "commit": found.commit, "code": found.code, "configuration": found.config}
    facts |= {"seed": found.seed, "promotion held back by": ", ".join(faults) or "nothing"}
    for name, value in [*facts.items(), *found.members.items(), *found.artifacts.items()]:
        console().print(f"{name}: {value}", highlight=False, soft_wrap=True)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="A run's folder, a model's name, or challenger.")],
    mlflow: Annotated[str | None, _MLFLOW] = None,
    by: Annotated[str | None, _BY] = None,
    reason: Annotated[str, _REASON] = "",
    force: Annotated[bool, typer.Option("--force", help="Promote even if gates are shut; needs --reason, and is recorded.")] = False,
    as_challenger: Annotated[
        bool, typer.Option("--challenger", help="Make it challenger instead, so that it runs beside the champion.")
    ] = False,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Make a model champion if every gate is open, on probation against the previous champion; or make it challenger."""
    from ploutos.registry import promotion
    from ploutos.registry.models import Alias
    from ploutos.registry.trials import TrialRegistry
    from ploutos.settings import Settings

    try:
        store, who = _store(mlflow), by or getpass.getuser()
        found = _found(store, model)
        if as_challenger:
            move = promotion.challenge(store, found, who, reason)
        else:
            since = promotion.tried_since(found, TrialRegistry(Settings().registry_root))
            move = promotion.promote(store, found, who, reason=reason, force=force, since=since)
        _say(move, store.aliases().get(Alias.CHALLENGER), as_json)
    except PloutosError as error:
        raise fail(error, as_json) from error


@app.command()
def rollback(
    mlflow: Annotated[str | None, _MLFLOW] = None,
    by: Annotated[str | None, _BY] = None,
    reason: Annotated[str, _REASON] = "",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Reinstate the previous champion, on probation against the one it displaces."""
    from ploutos.registry import promotion

    _carry_out(promotion.rollback, mlflow, by, reason, as_json)


@app.command()
def demote(
    mlflow: Annotated[str | None, _MLFLOW] = None,
    by: Annotated[str | None, _BY] = None,
    reason: Annotated[str, _REASON] = "",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Remove the champion, so that no model decides."""
    from ploutos.registry import promotion

    _carry_out(promotion.demote, mlflow, by, reason, as_json)


@app.command()
def dismiss(
    mlflow: Annotated[str | None, _MLFLOW] = None,
    by: Annotated[str | None, _BY] = None,
    reason: Annotated[str, _REASON] = "",
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Remove the challenger, so that no model runs beside the champion; this ends a probation."""
    from ploutos.registry import promotion

    _carry_out(promotion.dismiss, mlflow, by, reason, as_json)


@app.command()
def holdout(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was planned with folds.holdout_months.")],
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Read the bars that a run held out, once: every read is recorded, and only the first one counts."""
    from ploutos.nightly.holdout import inputs_of_run, read_holdout
    from ploutos.registry.trials import TrialRegistry
    from ploutos.remote_store import open_store
    from ploutos.reporting.nightly_page import holdout_sentences
    from ploutos.settings import Settings

    try:
        place = Settings()
        inputs, config = inputs_of_run(open_store(place), run, place)
        read = read_holdout(inputs, config, TrialRegistry(place.registry_root))
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": True, **read.model_dump(mode="json"), "sentences": holdout_sentences(read)}))
        return
    for sentence in holdout_sentences(read):
        console().print(sentence, highlight=False)


def _carry_out(action: "Callable[[ModelStore, str, str], Any]", mlflow: str | None, by: str | None, reason: str, as_json: bool) -> None:
    """Move an alias and say so."""
    from ploutos.registry.models import Alias

    try:
        store = _store(mlflow)
        move = action(store, by or getpass.getuser(), reason)
        _say(move, store.aliases().get(Alias.CHALLENGER), as_json)
    except PloutosError as error:
        raise fail(error, as_json) from error


def _say(move: Any, challenger: str | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ok": True, **move.model_dump(mode="json"), "challenger": challenger}))
        return
    print(f"{move.alias} is now {move.model or 'no model'}; before: {move.before or 'no model'}{' (forced)' if move.forced else ''}")
    if move.alias == "champion" and move.before is not None and move.before == challenger:
        print(
            f"it is on probation: {challenger} runs on beside it as challenger, and the nights decide; `ploutos models dismiss` ends that"
        )
