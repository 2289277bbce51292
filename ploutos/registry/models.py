"""Which models are champion and challenger, by alias, with everything they stand on; files by default.

A model is one run's subject: the policies' files by sha256, and the data, settings and source that made them. An alias points at a model
and is moved in one step; a move is a line in a history that is only added to. `ModelStore` is what a store of models must do: the files
here, or MLflow's server (`ploutos.registry.mlflow_store`).
"""

import json
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from ploutos.append_log import AppendLog
from ploutos.errors import StoreError
from ploutos.evaluation.summary import Gates
from ploutos.specs import Spec
from ploutos.store import digest_of, write_json


class Alias(StrEnum):
    """What a model is to its market."""

    CHAMPION = "champion"
    """Decides."""
    CHALLENGER = "challenger"
    """Runs beside it and is judged every night."""


class Model(Spec):
    """A run's subject, and what it stands on."""

    name: str
    """First letters of the digest of what follows."""
    run: str
    """Name of the run's folder."""
    subject: str
    """Slug of what decides."""
    symbols: tuple[str, ...]
    """What it trades."""
    market: str
    """Which history it was tested on, as trials name it."""
    first: date
    """First tested session."""
    last: date
    """Last one."""
    members: dict[str, str]
    """sha256 of each policy's file, by kind, fold and member."""
    artifacts: dict[str, str]
    """sha256 of everything else it stands on: bars, features, folds, signals."""
    config: str
    """Digest of the configuration."""
    commit: str
    """Commit of the source."""
    code: str
    """Digest of the source that trained and judged it."""
    versions: dict[str, str]
    """Of the libraries below."""
    seed: int
    """Root of every seed."""
    reduced: bool
    """Its policies saw fewer steps than production asks for."""
    gates: Gates | None
    """How the run was judged."""


class Move(Spec):
    """One change of an alias."""

    at: str
    """When, UTC."""
    alias: Alias
    """Which."""
    model: str | None
    """What it points at since; None for nothing."""
    before: str | None
    """What it pointed at until then."""
    action: str
    """promote, demote, rollback, challenge or dismiss."""
    by: str
    """Who approved."""
    reason: str
    """Why."""
    forced: bool = False
    """Gates were shut, or evidence was suspect."""
    evidence: dict[str, Any] = {}
    """Gates and nightly evidence as they stood."""


def make_model(**facts: Any) -> Model:
    """A model named by the digest of what it stands on: the same run gives the same name."""
    named = {key: value for key, value in facts.items() if key not in ("gates", "run")}
    return Model(name=digest_of(json.loads(json.dumps(named, default=str)))[:12], **facts)


class ModelStore(Protocol):
    """What keeps models, aliases and their history."""

    def add(self, model: Model) -> None:
        """Keep a model; one that is there already stays as it is."""

    def models(self) -> tuple[Model, ...]:
        """All models, by name."""

    def aliases(self) -> dict[Alias, str]:
        """Names of the models that aliases point at."""

    def move(self, move: Move) -> None:
        """Point an alias elsewhere and keep that it was."""

    def history(self) -> tuple[Move, ...]:
        """All moves, the oldest first."""


class FileModels:
    """Models as JSON files under `$PLOUTOS_HOME/registry`; one host.

    The history is written first and is what counts: an alias is the last move of its kind, so there is no moment between the two.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._history = AppendLog(self.root / "moves.jsonl", "a move of an alias")

    def add(self, model: Model) -> None:
        target = self.root / "models" / f"{model.name}.json"
        if not target.exists():
            write_json(target, model.model_dump(mode="json"))

    def models(self) -> tuple[Model, ...]:
        return tuple(_read(file) for file in sorted((self.root / "models").glob("*.json")))

    def aliases(self) -> dict[Alias, str]:
        last = {move.alias: move.model for move in self.history()}
        return {alias: model for alias, model in last.items() if model is not None}

    def history(self) -> tuple[Move, ...]:
        return self._history.read(Move)

    def move(self, move: Move) -> None:
        with self._history.locked():
            now = self.aliases().get(move.alias)
            if now != move.before:
                raise StoreError(
                    f"{move.alias} is now {now or 'no model'} and not {move.before or 'no model'}; check `ploutos models list` and repeat"
                )
            self._history.append([move])


def _read(file: Path) -> Model:
    try:
        return Model.model_validate(json.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is not a model of this registry; restore it from a copy, or remove it") from error


def find_model(store: ModelStore, wanted: str) -> Model:
    """A model by its alias, its name, or the first letters of it.

    Raises:
        StoreError: none or several fit.
    """
    name = store.aliases().get(Alias(wanted), wanted) if wanted in set(Alias) else wanted
    found = [model for model in store.models() if model.name.startswith(name)]
    if len(found) != 1:
        known = ", ".join(model.name for model in store.models()) or "none yet"
        raise StoreError(f"{len(found) or 'no'} models are called {wanted!r}; expected one of: {known}")
    return found[0]
