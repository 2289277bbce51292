"""Who decides tonight, and who moves up: the champion, who runs beside it, and the test that is looked at every night.

A decider is a subject and the settings that make it, so a champion that is retrained by plan stays champion. Where tonight's run has other
settings than the champion, the champion goes on deciding with the policies it had, and tonight's subject runs beside it as challenger. A
challenger that was champion before is there for the champion's probation, and is put back where the nights speak for it. Nothing moves on a
stale night, and nothing moves by itself unless the settings say so: a move that is due is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from ploutos.config import load_config
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StoreError
from ploutos.evaluation.sequential import Evidence
from ploutos.market.bars import Bars
from ploutos.nightly.forward_log import DeciderRole, Entry, forward_returns
from ploutos.nightly.night import decider_digest
from ploutos.registry import promotion
from ploutos.registry.models import Alias, Model, ModelStore, find_model
from ploutos.registry.trials import TrialRegistry

BY = "nightly run"


class MoveKind(StrEnum):
    """What the night says of who should decide."""

    NONE = "none"
    """Nothing is due."""
    FIRST = "promote"
    """There is no champion, and tonight's subject passes every gate."""
    CHALLENGE = "challenge"
    """Tonight's subject begins to run beside the champion."""
    REPLACE = "replace"
    """The challenger has shown itself better."""
    ROLLBACK = "rollback"
    """The previous champion has shown itself better than the one that replaced it."""


@dataclass(frozen=True)
class Standing:
    """Champion and challenger, as models and as deciders."""

    champion: Model | None
    challenger: Model | None
    champion_decider: str | None
    challenger_decider: str | None

    def role_of(self, decider: str) -> DeciderRole:
        """What tonight's decider is."""
        if decider == self.champion_decider:
            return DeciderRole.CHAMPION
        if self.champion is None:
            return DeciderRole.CANDIDATE
        return DeciderRole.CHALLENGER if self.challenger_decider in (None, decider) else DeciderRole.CANDIDATE

    def beside(self, decider: str) -> list[tuple[DeciderRole, str, Model]]:
        """Who else decides tonight, with the policies it has."""
        named = [
            (DeciderRole.CHAMPION, self.champion_decider, self.champion),
            (DeciderRole.CHALLENGER, self.challenger_decider, self.challenger),
        ]
        return [(role, who, model) for role, who, model in named if who is not None and model is not None and who != decider]


def standing(store: ModelStore, runs_root: Path) -> Standing:
    """Champion and challenger of a home.

    Raises:
        StoreError: a model's run folder is gone.
    """
    aliases = store.aliases()
    models = [find_model(store, aliases[alias]) if alias in aliases else None for alias in (Alias.CHAMPION, Alias.CHALLENGER)]
    ways_out = ("demote", "dismiss")
    deciders = (None if model is None else _decider_of(model, runs_root, way) for model, way in zip(models, ways_out, strict=True))
    return Standing(models[0], models[1], *deciders)


def _decider_of(model: Model, runs_root: Path, way_out: str) -> str:
    file = runs_root / model.run / "config.yaml"
    if not file.is_file():
        raise StoreError(f"{file}, the settings of model {model.name}, is missing; restore the folder, or `ploutos models {way_out}`")
    return decider_digest(load_config("full", file), model.subject)


@dataclass(frozen=True)
class Verdict:
    """What the night says of who should decide, and whether it was done.

    Attributes:
        faults: what stands in the way of a promotion, as `faults_of` names it.
        evidence: of the nights on which champion and challenger both decided in time; None without such nights.
        n_nights: how many.
        done: the alias was moved.
        asked: a person has been asked, and has not decided yet.
    """

    kind: MoveKind
    faults: tuple[str, ...] = ()
    evidence: Evidence | None = None
    n_nights: int = 0
    done: bool = False
    asked: bool = False

    @property
    def is_due(self) -> bool:
        """Whether it waits for a person."""
        return not self.done and self.kind in (MoveKind.FIRST, MoveKind.REPLACE, MoveKind.ROLLBACK)


def still_stands(store: ModelStore, champion: str | None) -> None:
    """Refuse to act on a question that was put under another champion.

    Raises:
        StoreError: another model is champion by now.
    """
    now = store.aliases().get(Alias.CHAMPION)
    if now != champion:
        raise StoreError(f"this was asked when {champion or 'no model'} was champion, and now {now or 'no model'} is; nothing was moved")


def carry_out(store: ModelStore, verdict: Verdict, tonight: Model, by: str, trials: TrialRegistry, reason: str = "") -> None:
    """Move what a night has found due.

    Args:
        tonight: the model of the night's run.
        by: who approves.
        reason: of a person, beside what the night knows.

    Raises:
        StoreError: the model may not be promoted.
    """
    nights, p = verdict.n_nights, None if verdict.evidence is None else verdict.evidence.p
    known = {} if p is None else {"p": p, "nights": nights}
    if verdict.kind is MoveKind.ROLLBACK:
        promotion.reinstate(store, by, _with(f"better on {nights} nights, p = {p:.3f}", reason))
        return
    since = promotion.tried_since(tonight, trials)
    first = verdict.kind is MoveKind.FIRST
    why = "passed every gate; there was no champion" if first else f"better on {nights} nights"
    promotion.promote(store, tonight, by, reason=_with(why, reason), since=since, evidence=known, better_by_night=not first)


def _with(found: str, reason: str) -> str:
    return f"{found}; {reason}" if reason else found


def judge_night(
    store: ModelStore, now: Standing, tonight: Model, decider: str, entries: Sequence[Entry], bars: Bars, env: EnvSpec,
    trials: TrialRegistry, *, stale: bool, automatic: bool,
) -> Verdict:  # fmt: skip
    """Look at gates and at the forward log, and move an alias where it is due and allowed.

    Args:
        tonight: the model of tonight's run.
        decider: its digest.
        stale: the bars end before the session; nothing moves.
        automatic: carry out what is due; otherwise it is only reported.
    """
    faults = tuple(promotion.faults_of(tonight, promotion.tried_since(tonight, trials)))
    if now.champion is None:
        if faults or stale:
            return Verdict(MoveKind.NONE, faults)
        return _done(store, Verdict(MoveKind.FIRST), tonight, trials, automatic)
    if now.challenger is None:
        if decider == now.champion_decider or stale:
            return Verdict(MoveKind.NONE, faults)
        promotion.challenge(store, tonight, BY, "its settings differ from the champion's")
        return Verdict(MoveKind.CHALLENGE, faults, done=True)
    if now.challenger_decider == now.champion_decider:
        promotion.dismiss(store, BY, "it has the champion's settings, so there is nothing to compare")
        return Verdict(MoveKind.NONE, faults)
    verdict = _challenge(store, now, tonight, decider, entries, bars, env, faults, stale=stale)
    return _done(store, verdict, tonight, trials, automatic)


def _done(store: ModelStore, verdict: Verdict, tonight: Model, trials: TrialRegistry, automatic: bool) -> Verdict:
    """What is due, carried out where that is allowed."""
    if not automatic or not verdict.is_due:
        return verdict
    carry_out(store, verdict, tonight, BY, trials)
    return replace(verdict, done=True)


def _challenge(
    store: ModelStore, now: Standing, tonight: Model, decider: str, entries: Sequence[Entry], bars: Bars, env: EnvSpec,
    faults: tuple[str, ...], *, stale: bool,
) -> Verdict:  # fmt: skip
    """The nightly test of a challenger, over the nights since it became one."""
    assert now.champion is not None
    assert now.challenger is not None
    assert now.champion_decider is not None
    assert now.challenger_decider is not None
    since = max(move.at[:10] for move in store.history() if move.alias is Alias.CHALLENGER)
    nights = [entry for entry in entries if entry.session >= since]
    returns = forward_returns(bars, nights, now.champion_decider, now.challenger_decider, env)
    if returns is None:
        return Verdict(MoveKind.NONE, faults)
    evidence, n_nights = promotion.nightly_decision(returns.one, returns.other), len(returns.sessions)
    displaced = promotion.was_champion(store, now.challenger.name)
    if evidence.decided_after is None or stale:
        if displaced and not promotion.on_probation(store, n_nights):
            promotion.dismiss(store, BY, f"the champion stood its probation of {n_nights} nights")
        return Verdict(MoveKind.NONE, faults, evidence, n_nights)
    if displaced:
        return Verdict(MoveKind.ROLLBACK, evidence=evidence, n_nights=n_nights)
    if faults or decider != now.challenger_decider:
        return Verdict(MoveKind.NONE, faults, evidence, n_nights)
    return Verdict(MoveKind.REPLACE, evidence=evidence, n_nights=n_nights)
