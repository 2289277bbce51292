"""Who decides on a night, and who moves up: roles, the nightly test over logged decisions, probation and the way back."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from test_models import gates, model

from ploutos.config import dump_yaml, load_config
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StoreError
from ploutos.nightly.decision import Decision
from ploutos.nightly.forward_log import DeciderRole, ForwardLog
from ploutos.nightly.night import decider_digest
from ploutos.nightly.standing import MoveKind, judge_night, standing
from ploutos.registry import promotion
from ploutos.registry.models import Alias, FileModels
from ploutos.registry.trials import TrialRegistry

ENV = EnvSpec(rebalance_band=0.0)


@pytest.fixture
def place(tmp_path):
    return FileModels(tmp_path / "registry"), tmp_path / "runs", TrialRegistry(tmp_path / "registry")


def with_settings(runs, of, seed):
    """A model whose run folder holds settings; its decider."""
    config = load_config("full", overrides=[f"seed={seed}"])
    (runs / of.run).mkdir(parents=True, exist_ok=True)
    (runs / of.run / "config.yaml").write_text(dump_yaml(config))
    return decider_digest(config, of.subject)


def judge(place, bars, tonight, decider, entries=(), **more):
    store, runs, trials = place
    more = {"stale": False, "automatic": True} | more
    return judge_night(store, standing(store, runs), tonight, decider, entries, bars, ENV, trials, **more)


def logged(tmp_path, panel, deciders, weights):
    """Decisions of every night from bar 500 on, in time, weights by decider, bar and symbol."""
    log = ForwardLog(tmp_path / "log")
    for bar in range(500, 690):
        opens = f"{panel.sessions[bar + 1]}T14:30:00Z"
        for name, table in zip(deciders, weights, strict=True):
            frame = pd.DataFrame({"symbol": panel.symbols, "held": 0.0, "target": table[bar]})
            decision = Decision(frame, str(panel.sessions[bar]), "", opens, "vote", 1.0, bar + 1)
            now = datetime.fromisoformat(str(panel.sessions[bar])).replace(tzinfo=UTC) + timedelta(hours=22)
            log.append(decision, DeciderRole.CHAMPION, name, sha256=f"{bar}{name}", bars="b", now=now)
    return log.entries()


@pytest.fixture
def foresight(panel):
    """Weights that know the next session, and weights that hold nothing."""
    ahead = np.where(np.vstack([panel.mark[1:] > panel.open[1:], np.zeros((1, 3), dtype=bool)]), 0.3, 0.0)
    return ahead, np.zeros_like(ahead)


def test_the_first_promotion_needs_every_gate_and_a_fresh_night(place, panel):
    store, _, _ = place
    assert judge(place, panel, model(), "me", automatic=False).kind is MoveKind.FIRST
    assert store.aliases() == {}
    assert judge(place, panel, model(), "me", stale=True).kind is MoveKind.NONE
    shut = judge(place, panel, model(judged=gates(passed=False)), "me")
    assert shut.kind is MoveKind.NONE
    assert shut.faults
    assert judge(place, panel, model(), "me").done
    assert store.aliases() == {Alias.CHAMPION: model().name}


def test_other_settings_run_beside_the_champion_and_retraining_does_not(place, panel):
    store, runs, _ = place
    champion, other = model(1), model(2)
    mine, theirs = with_settings(runs, champion, 1), with_settings(runs, other, 2)
    promotion.promote(store, champion, "me")
    now = standing(store, runs)
    assert now.role_of(mine) is DeciderRole.CHAMPION
    assert now.beside(mine) == []
    assert now.role_of(theirs) is DeciderRole.CHALLENGER
    assert [(role, who) for role, who, _ in now.beside(theirs)] == [(DeciderRole.CHAMPION, mine)]
    retrained = model(3, run=champion.run)
    assert judge(place, panel, retrained, mine).kind is MoveKind.NONE
    assert judge(place, panel, other, theirs).kind is MoveKind.CHALLENGE
    assert store.aliases()[Alias.CHALLENGER] == other.name


def test_a_settings_file_that_is_gone_is_said(place):
    store, runs, _ = place
    promotion.promote(store, model(), "me")
    with pytest.raises(StoreError, match="the settings of model"):
        standing(store, runs)


@pytest.fixture
def contest(place, panel, tmp_path, monkeypatch):
    """A champion and a challenger that was named before the first logged night."""
    store, runs, _ = place
    clock = type("Then", (datetime,), {"now": classmethod(lambda cls, zone: cls(2002, 1, 1, tzinfo=zone))})
    monkeypatch.setattr(promotion, "datetime", clock)
    old, new = model(1), model(2)
    deciders = with_settings(runs, old, 1), with_settings(runs, new, 2)
    promotion.promote(store, old, "me")
    promotion.challenge(store, new, "me")
    return old, new, deciders


def test_a_better_challenger_takes_over_and_the_old_champion_is_beside_it(place, panel, tmp_path, contest, foresight):
    store, _, _ = place
    old, new, deciders = contest
    entries = logged(tmp_path, panel, deciders, foresight[::-1])
    assert judge(place, panel, new, deciders[1], entries, stale=True).kind is MoveKind.NONE
    assert judge(place, panel, model(2, judged=gates(passed=False)), deciders[1], entries).kind is MoveKind.NONE
    said = judge(place, panel, new, deciders[1], entries, automatic=False)
    assert (said.kind, said.done, store.aliases()[Alias.CHAMPION]) == (MoveKind.REPLACE, False, old.name)
    assert said.evidence.p < 0.05
    assert judge(place, panel, new, deciders[1], entries).done
    assert store.aliases() == {Alias.CHAMPION: new.name, Alias.CHALLENGER: old.name}


def test_a_challenger_that_is_no_better_does_not(place, panel, tmp_path, contest, foresight):
    _, new, deciders = contest
    entries = logged(tmp_path, panel, deciders, foresight)
    verdict = judge(place, panel, new, deciders[1], entries)
    assert verdict.kind is MoveKind.NONE
    assert verdict.evidence.p > 0.05


@pytest.mark.parametrize("better", ["old", "neither"])
@pytest.mark.parametrize("by_night", [True, False])
def test_probation_ends_in_a_rollback_or_in_peace(place, panel, tmp_path, contest, foresight, better, by_night):
    store, _, _ = place
    old, new, (first, second) = contest
    if by_night:
        promotion.promote(store, new, "me", better_by_night=True)
    else:
        promotion.promote(store, new, "me", force=True, reason="a person's choice")
    weights = (foresight[1], foresight[0]) if better == "old" else (foresight[1], foresight[1])
    entries = logged(tmp_path, panel, (second, first), weights)
    verdict = judge(place, panel, new, second, entries)
    assert (verdict.kind is MoveKind.ROLLBACK) == (better == "old")
    assert store.aliases() == {Alias.CHAMPION: old.name if better == "old" else new.name}


@pytest.mark.parametrize("better", ["new", "neither"])
def test_a_rollback_by_hand_is_on_probation_too(place, panel, tmp_path, contest, foresight, better):
    store, _, _ = place
    old, new, (first, second) = contest
    promotion.promote(store, new, "me", better_by_night=True)
    promotion.rollback(store, "me", "I do not like it")
    weights = (foresight[0] if better == "new" else foresight[1], foresight[1])
    entries = logged(tmp_path, panel, (second, first), weights)
    said = judge(place, panel, old, first, entries, automatic=False)
    assert said.kind is (MoveKind.ROLLBACK if better == "new" else MoveKind.NONE)
    if better == "new":
        assert store.aliases() == {Alias.CHAMPION: old.name, Alias.CHALLENGER: new.name}  # it is only said
        assert judge(place, panel, old, first, entries).done
    assert store.aliases() == {Alias.CHAMPION: new.name if better == "new" else old.name}


def test_a_displaced_model_with_the_same_settings_does_not_run_beside_the_champion(place, panel):
    store, runs, _ = place
    old, new = model(1), model(2)
    with_settings(runs, old, 1)
    decider = with_settings(runs, new, 1)
    promotion.promote(store, old, "me")
    promotion.promote(store, new, "me", force=True, reason="newer bars")
    assert store.aliases()[Alias.CHALLENGER] == old.name
    assert judge(place, panel, new, decider).kind is MoveKind.NONE
    assert store.aliases() == {Alias.CHAMPION: new.name}


def test_a_displaced_model_whose_folder_is_gone_names_the_way_out(place, panel):
    store, runs, _ = place
    promotion.promote(store, model(1), "me")
    promotion.promote(store, model(2), "me", force=True, reason="newer bars")
    with_settings(runs, model(2), 2)
    with pytest.raises(StoreError, match="ploutos models dismiss"):
        standing(store, runs)
    promotion.dismiss(store, "me", "gone")
    assert standing(store, runs).challenger is None


def test_decisions_that_came_late_are_no_evidence(place, panel, tmp_path, contest, foresight):
    _, new, deciders = contest
    entries = [replace_late(entry) for entry in logged(tmp_path, panel, deciders, foresight[::-1])]
    assert judge(place, panel, new, deciders[1], entries).evidence is None


def replace_late(entry):
    return entry.model_copy(update={"late": True})
