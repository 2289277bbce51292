"""From a run's folder to champion, and back: who may be promoted, who approved, and what was known.

Champion and challenger are moved by five actions. *Promote* makes a run's subject champion; the previous champion becomes what a rollback
returns to. *Demote* removes the champion. *Rollback* reinstates the previous champion. *Challenge* names who runs beside the champion,
*dismiss* nobody. Whoever takes a champion's place, by a person's hand or by night, is on probation for a quarter, in which the one that
it displaced runs on as its challenger: the same nightly test brings that one back (`reinstate`).
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ploutos.config import load_config
from ploutos.errors import PloutosError, StoreError
from ploutos.evaluation.candidates import Incumbent
from ploutos.evaluation.run_comparison import read_closes
from ploutos.evaluation.sequential import NIGHTLY, Evidence, NightlySpec, nightly_evidence
from ploutos.evaluation.summary import GateName, Outcome, RunSummary, read_summary
from ploutos.registry.models import Alias, Model, ModelStore, Move, find_model, make_model
from ploutos.registry.recording import market_of, settings_digest
from ploutos.registry.trials import TrialRegistry, counted
from ploutos.run_manifest import read_manifest
from ploutos.store import file_sha256
from ploutos.types import FloatArray, TimeArray

PROBATION_SESSIONS = 63
"""Sessions for which a new champion is watched: a quarter."""
_POLICIES = ("policy", "hybrid", "ablated", "regression")


def model_of(folder: Path) -> Model:
    """The model that a run's folder holds, its policies' files checked against the manifest.

    Raises:
        StoreError: the folder is not that of a finished run, or a file is not what the manifest says.
    """
    summary, manifest = read_summary(folder / "metrics.json"), read_manifest(folder)
    artifacts = manifest.artifacts
    members = {name: sha256 for name, sha256 in artifacts.items() if name.startswith(_POLICIES)}
    for name, sha256 in members.items():
        _require_file(folder, name, sha256)
    return make_model(
        run=folder.resolve().name, subject=_subject(summary), symbols=summary.symbols, members=members,
        market=market_of(load_config("full", folder / "config.yaml").data), first=summary.first, last=summary.last,
        artifacts={name: sha256 for name, sha256 in artifacts.items() if name not in members}, config=manifest.config_sha256,
        commit=manifest.commit, code=manifest.code, versions=manifest.versions, seed=manifest.seed,
        reduced=summary.reduced, gates=summary.gates,
    )  # fmt: skip


def _subject(summary: RunSummary) -> str:
    return summary.subject.slug if summary.gates is None else summary.gates.subject


def _require_file(folder: Path, name: str, sha256: str) -> None:
    kind, fold, member = name.split(" ")
    place = {"policy": f"seed_{member}", "regression": "regression"}.get(kind, f"{kind}/seed_{member}")
    file = folder / "folds" / fold / place / (f"{member}.npz" if kind == "regression" else "policy.zip")
    if not file.is_file() or file_sha256(file) != sha256:
        raise StoreError(f"{file} is missing or not the one that the manifest names; repeat the run")


def tried_since(model: Model, registry: TrialRegistry) -> int:
    """Trials on a model's test bars that its gates do not know of: the best of them all was chosen, whenever it ran."""
    known = 0 if model.gates is None else model.gates.trials.n_trials
    return max(counted(registry.overlapping(model.market, model.symbols, model.first, model.last)) - known, 0)


def faults_of(model: Model, since: int = 0, champion: str | None = None) -> list[str]:
    """What stands against a promotion: codes of gates that are shut and of checks that failed; empty where nothing does.

    Args:
        since: from `tried_since`; the run must be repeated, which computes its gates anew and nothing else.
        champion: name of the model whose place it would take, which its gates must have held it against; None where there is none, or
            where nights answer that question.
    """
    gates = model.gates
    if gates is None:
        return ["not-judged"]
    asked = [row for row in gates.rows if champion is not None or row.name is not GateName.SPA_CHAMPION]
    faults = [f"gate:{row.name}" for row in asked if row.reason != "passed" and (row.required or row.value is not None)]
    faults += [f"evidence:{check.name}" for check in gates.evidence if check.suspect]
    faults += [f"trials-since:{since}"] if since else []
    if champion is not None and (gates.champion is None or gates.champion.model != champion):
        faults.append(f"champion-since:{champion}")
    whole = len(asked) == len(gates.rows)
    return faults or ([] if gates.outcome is Outcome.PROMOTE or not whole else [f"outcome:{gates.outcome}"])


def incumbent(store: ModelStore, runs_root: Path, market: str, sessions: TimeArray, settings: str) -> Incumbent | None:
    """The champion's tested path, for the gates of another run; None where there is no champion.

    A return counts where both runs came from the same session before. A run's folder that is gone is said in `unknown`.

    Args:
        market: of the run that is judged, as trials name it.
        sessions: shape (n,), that it tested.
        settings: digest of its settings, as trials have it.
    """
    name = store.aliases().get(Alias.CHAMPION)
    if name is None:
        return None
    model = find_model(store, name)
    folder, returns = runs_root / model.run, np.full(len(sessions), np.nan)
    champion = Incumbent(model.name, model.run, model.subject, returns, same_settings=False)
    if model.market != market:
        return replace(champion, unknown="other-history")
    try:
        same_settings = settings_digest(load_config("full", folder / "config.yaml")) == settings
        days, closes = read_closes(folder, model.subject)
    except PloutosError:
        return replace(champion, unknown="run-gone")
    with np.errstate(divide="ignore", invalid="ignore"):
        theirs = np.where(closes[:-1] > 0, closes[1:] / closes[:-1] - 1, 0.0)
    ours = sessions.astype("datetime64[D]")
    _, mine, other = np.intersect1d(ours[1:], days[1:], return_indices=True)
    alike = ours[mine] == days[other]  # the sessions before
    returns[mine[alike] + 1] = theirs[other[alike]]
    return replace(champion, same_settings=same_settings)


def promote(
    store: ModelStore, model: Model, by: str, *, reason: str = "", force: bool = False, since: int = 0, evidence: Mapping[str, Any] = {},
    better_by_night: bool = False,
) -> Move:  # fmt: skip
    """Make a model champion, on probation against the champion whose place it takes.

    Args:
        by: who approves.
        reason: why; a forced promotion must have one.
        force: promote although gates are shut. A shortened run cannot even be forced.
        since: trials on its test bars that its gates do not know of, from `tried_since`.
        evidence: what else was known, such as the nightly test's.
        better_by_night: the nightly test has shown it better than the champion, so its gates need not have.

    Raises:
        StoreError: the model may not be promoted, or is champion already.
    """
    if model.reduced:
        raise StoreError(f"{model.name} comes from a shortened run, which proves nothing and cannot be promoted; run it with preset full")
    before = store.aliases().get(Alias.CHAMPION)
    if before == model.name:
        raise StoreError(f"{model.name} is already champion")
    if faults := faults_of(model, since, None if better_by_night else before):
        if not force:
            raise StoreError(f"{model.name} may not be promoted: {', '.join(faults)}; see its gates, or use --force with --reason")
        if not reason.strip():
            raise StoreError(f"{model.name} does not pass ({', '.join(faults)}); a forced promotion needs --reason")
    known = {"faults": faults, "gates": None if model.gates is None else model.gates.model_dump(mode="json"), **evidence}
    store.add(model)
    move = _move(Alias.CHAMPION, model.name, before, "promote", by, reason, forced=bool(faults), evidence=known)
    store.move(move)
    if before is not None:
        _put_on_probation(store, before, by)
    elif store.aliases().get(Alias.CHALLENGER) == model.name:
        store.move(_move(Alias.CHALLENGER, None, model.name, "promote", by, "it is now champion"))
    return move


def _put_on_probation(store: ModelStore, displaced: str, by: str) -> None:
    """Let the champion that was displaced run beside the one that took its place; whoever ran there gives way."""
    held = store.aliases().get(Alias.CHALLENGER)
    store.move(_move(Alias.CHALLENGER, displaced, held, "challenge", by, "displaced; it runs beside the new champion for the probation"))


def challenge(store: ModelStore, model: Model, by: str, reason: str = "") -> Move:
    """Let a model run beside the champion; it needs no gates, since it decides nothing."""
    store.add(model)
    move = _move(Alias.CHALLENGER, model.name, store.aliases().get(Alias.CHALLENGER), "challenge", by, reason)
    store.move(move)
    return move


def dismiss(store: ModelStore, by: str, reason: str) -> Move:
    """Let no model run beside the champion.

    Raises:
        StoreError: none does.
    """
    return _vacate(store, Alias.CHALLENGER, "dismiss", by, reason)


def demote(store: ModelStore, by: str, reason: str) -> Move:
    """Remove the champion, so that no model decides.

    Raises:
        StoreError: there is no champion.
    """
    return _vacate(store, Alias.CHAMPION, "demote", by, reason)


def _vacate(store: ModelStore, alias: Alias, action: str, by: str, reason: str) -> Move:
    """Point an alias at nobody."""
    held = store.aliases().get(alias)
    if held is None:
        raise StoreError(f"there is no {alias} to {action}")
    move = _move(alias, None, held, action, by, reason)
    store.move(move)
    return move


def rollback(store: ModelStore, by: str, reason: str) -> Move:
    """Reinstate the previous champion, on probation against the one it displaces; twice goes back two steps.

    Raises:
        StoreError: there was none before.
    """
    champion = store.aliases().get(Alias.CHAMPION)
    earlier = _reigns(store)[: -1 if champion is not None else None]
    if not earlier:
        raise StoreError("there is no previous champion to return to; `ploutos models list` shows all moves")
    back = find_model(store, earlier[-1])
    move = _move(Alias.CHAMPION, back.name, champion, "rollback", by, reason)
    store.move(move)
    if champion is not None:
        _put_on_probation(store, champion, by)
    elif store.aliases().get(Alias.CHALLENGER) == back.name:
        store.move(_move(Alias.CHALLENGER, None, back.name, "rollback", by, "it is champion again"))
    return move


def reinstate(store: ModelStore, by: str, reason: str) -> Move:
    """Make the challenger, a champion that was displaced, champion again: the nights of the probation favour it, and end the probation.

    Raises:
        StoreError: there is no champion, or no challenger that was champion before.
    """
    aliases = store.aliases()
    champion, back = aliases.get(Alias.CHAMPION), aliases.get(Alias.CHALLENGER)
    if champion is None or back is None or not was_champion(store, back):
        raise StoreError(
            "no champion is on probation, so there is no previous champion to reinstate; `ploutos models list` shows all moves"
        )
    undone = _reigns(store)[-2:-1] == [back]  # else a person had rolled it back, or named an older one
    move = _move(Alias.CHAMPION, back, champion, "rollback" if undone else "promote", by, reason)
    store.move(move)
    store.move(_move(Alias.CHALLENGER, None, back, "dismiss", by, "it is champion again"))
    return move


def was_champion(store: ModelStore, name: str) -> bool:
    """Whether a model ever was champion."""
    return any(move.alias is Alias.CHAMPION and move.model == name for move in store.history())


def _reigns(store: ModelStore) -> list[str]:
    """Champions that have not been taken back, the present one last; a demoted one is not among them."""
    reigns: list[str] = []
    for move in store.history():
        if move.alias is not Alias.CHAMPION:
            continue
        if move.action == "promote" and move.model is not None:
            reigns.append(move.model)
        elif move.before is not None:  # demoted, or rolled back
            reigns.pop()
    return reigns


def on_probation(store: ModelStore, sessions_since: int) -> bool:
    """Whether the champion is still watched.

    Args:
        sessions_since: that it has been champion for.
    """
    return Alias.CHAMPION in store.aliases() and sessions_since < PROBATION_SESSIONS


def nightly_decision(champion: FloatArray, challenger: FloatArray, spec: NightlySpec = NIGHTLY, scale: float | None = None) -> Evidence:
    """Whether the challenger has shown itself better, all nights of the challenge taken together.

    Args:
        champion, challenger: shape (n,), session returns of the same nights, since the challenge began.
        scale: typical size of a session's difference in the backtest.

    Raises:
        StoreError: the nights are not the same.
    """
    if champion.shape != challenger.shape:
        raise StoreError(f"{champion.size} nights of the champion and {challenger.size} of the challenger; expected the same nights")
    return nightly_evidence(challenger - champion, spec, scale)


def _move(alias: Alias, model: str | None, before: str | None, action: str, by: str, reason: str, **more: Any) -> Move:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Move(at=at, alias=alias, model=model, before=before, action=action, by=by, reason=reason, **more)
