"""The night: a decision that a later backtest finds again, a log that cannot be changed unseen, and causes named right."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from markets import manifest_of, mock_advisor, random_panel

from ploutos.advisor.advisor import advise
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError, StoreError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market.calendar import last_closed, session_close, sessions_between
from ploutos.nightly.changes import Cause, Drift, NightFacts, Revision, drift, explain_changes, psi, retraining_cause, revisions
from ploutos.nightly.decision import DECISION, DecisionInputs, decide, for_session, next_open
from ploutos.nightly.forward_log import DeciderRole, ForwardLog, certified_sessions, decided_in_time, forward_returns
from ploutos.nightly.night import NightRecord, Nights
from ploutos.nightly.night_changes import NightChanges, WeightRow, read_changes, recent_range, write_changes
from ploutos.strategies.advised import FUSED, FusedStrategy
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.ensemble import VOTE, EnsembleStrategy
from ploutos.strategies.regression import fit_regression, regression_strategy
from ploutos.strategies.spec import RegressionSpec
from ploutos.walk_forward import Range

ENV = EnvSpec(episode_bars=60)
CUTS = (520, 599, 688)


@pytest.fixture(scope="module")
def signals(panel):
    return advise(panel, market_features(panel), 490, panel.n_bars - 1, mock_advisor(cadence_bars=5))


@pytest.fixture(scope="module")
def model(panel, panel_features, panel_fold):
    return fit_regression(panel, panel_features, panel_fold, ENV, RegressionSpec(), "logistic")


@pytest.fixture(scope="module")
def inputs(panel, panel_features, panel_fold, panel_policies, model, signals):
    """All that the subjects of a run decide by, up to the last bar."""

    def of(subject: str) -> DecisionInputs:
        return DecisionInputs(
            panel, panel_features, (panel_fold,), ENV, FusionSpec(confidence_threshold=0.5), subject,
            policies=(panel_policies,), models=((model,),), signals=signals,
        )  # fmt: skip

    return of


def backtested(inputs: DecisionInputs):
    """What a backtest over all bars, made later, finds at every bar."""
    bars, test = inputs.bars, Range(start=inputs.folds[0].test.start, stop=inputs.bars.n_bars)
    if inputs.subject == "logistic":
        fold = inputs.folds[0].model_copy(update={"test": test})
        strategy = regression_strategy(bars, inputs.features, [fold], [inputs.models[0][0]], ENV)
    elif inputs.subject == VOTE.slug:
        strategy = EnsembleStrategy(bars=bars, env=ENV)
    else:
        actions, sure = inputs.signals.align_to_bars(bars)
        strategy = FusedStrategy((FUSED,), actions[None], sure[None], bars, ENV, (inputs.fusion,))
    return run_backtests(bars, inputs.features, [Segment(test, inputs.policies[0])], [strategy], ENV)


@pytest.mark.parametrize("subject", ["vote", "fused", "logistic"])
def test_a_decision_is_the_one_that_a_later_backtest_finds(inputs, subject):
    later = backtested(inputs(subject))
    moved = 0
    for cut in CUTS:
        decision = decide(inputs(subject).until(cut))
        at = int(np.flatnonzero(later.positions == cut - 1)[0])
        np.testing.assert_array_equal(decision.frame["target"], later.targets[0, at])
        np.testing.assert_array_equal(decision.frame["held"], later.weights[0, at])
        assert decision.equity == later.equity[0, at]
        moved += np.isfinite(decision.frame["target"]).sum()
    assert moved or subject == "logistic"


def test_bars_of_the_future_change_no_decision(inputs):
    whole = inputs("fused")
    close = np.where(np.arange(700)[:, None] >= 600, whole.bars.close * 3, whole.bars.close)
    changed = replace(whole, bars=replace(whole.bars, close=close))
    pd.testing.assert_frame_equal(decide(whole.until(600)).frame, decide(changed.until(600)).frame)


def test_the_last_fold_decides_on_after_its_test_range(inputs):
    assert inputs("vote").folds[0].test.stop == 690
    assert decide(inputs("vote")).n_bars == 700


def test_what_was_listened_to_is_what_a_linear_model_adds_up(inputs, model, panel_features):
    decision = decide(inputs("logistic").until(600))
    values = model.scaler.transform(panel_features.values[599])
    for row, (score, named) in enumerate(zip(decision.frame["score"], decision.frame["features"], strict=True)):
        parts = values[row].astype(np.float64) * model.arrays["coefficients"]
        for name, part in json.loads(named).items():
            assert part == pytest.approx(parts[panel_features.names.index(name)], abs=2e-6)
        assert score == pytest.approx(parts.sum() + model.arrays["intercept"])
        assert max(abs(part) for part in json.loads(named).values()) == pytest.approx(np.abs(parts).max(), abs=2e-6)


def test_a_feature_that_no_policy_reads_is_not_named(inputs, panel_policies):
    named = [json.loads(each) for each in decide(inputs("vote").until(600)).frame["features"]]
    assert all(len(each) == 3 for each in named)
    assert all(abs(part) > 0 for each in named for part in each.values())


def test_a_subject_that_the_run_does_not_have_is_refused(inputs):
    with pytest.raises(ConfigError, match="no trees to decide"):
        decide(inputs("trees"))
    with pytest.raises(ConfigError, match="no hybrid policies"):
        decide(inputs("hybrid"))
    with pytest.raises(ConfigError, match="needs advice"):
        decide(replace(inputs("fused"), signals=None))


def test_a_decision_survives_its_file_with_the_same_bytes(inputs, tmp_path):
    decision = decide(inputs("fused").until(600))
    for name in ("a", "b"):
        DECISION.write(decision, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert DECISION.read(tmp_path / "a").weights() == decision.weights()


def test_the_next_open_is_the_calendars():
    friday = random_panel(5).head(4)  # 2001-01-04 is the last bar, a Thursday
    assert str(next_open(friday)) == "2001-01-05T14:30:00.000000"
    assert last_closed(np.datetime64("2026-11-27T17:59", "us"), "NYSE") == "2026-11-25"  # a half day closes at 18:00 UTC
    assert last_closed(np.datetime64("2026-11-27T18:00", "us"), "NYSE") == "2026-11-27"
    assert sessions_between("2026-11-24", "2026-11-30", "NYSE") == ("2026-11-25", "2026-11-27", "2026-11-30")
    assert str(session_close("2026-07-01", "NYSE"))[:16] == "2026-07-01T20:00"
    with pytest.raises(ConfigError, match="no session on 2026-11-26; the ones around it are 2026-11-25 and 2026-11-27"):
        session_close("2026-11-26", "NYSE")


# --- the forward log


@pytest.fixture
def decision(inputs):
    return decide(inputs("vote").until(600))


def put(log, decision, **more):
    more = {"sha256": "s" * 64, "bars": "b" * 64, "now": datetime(2003, 4, 18, 21, tzinfo=UTC)} | more
    return log.append(decision, more.pop("role", DeciderRole.CANDIDATE), more.pop("decider", "me"), **more)


def test_the_log_knows_what_was_in_time(decision, tmp_path):
    log = ForwardLog(tmp_path)
    first = put(log, decision)
    assert not first.late
    assert put(log, decision) == first  # the same decision counts once
    late = put(
        log, replace(decision, session="2003-04-21", next_open="2003-04-22T13:30:00Z"), now=datetime(2003, 4, 22, 13, 30, tzinfo=UTC)
    )
    assert late.late
    assert late.before == first.hash
    assert list(decided_in_time(log.entries(), "me")) == [decision.session]


def test_a_second_decision_of_a_session_is_kept_and_does_not_replace_the_first(decision, tmp_path):
    log = ForwardLog(tmp_path)
    first = put(log, decision)
    put(log, decision, sha256="t" * 64)
    assert decided_in_time(log.entries(), "me")[decision.session] == first


@pytest.mark.parametrize("harm", ["edit", "drop", "swap", "insert"])
def test_a_log_that_was_changed_is_refused(decision, tmp_path, harm):
    log = ForwardLog(tmp_path)
    for day in ("2003-04-18", "2003-04-21", "2003-04-22"):
        put(log, replace(decision, session=day))
    lines = log.file.read_text().splitlines()
    edited = {
        "edit": [lines[0].replace('"session":"2003-04-18"', '"session":"2003-04-17"'), *lines[1:]], "drop": [lines[0], lines[2]],
        "swap": [lines[1], lines[0], lines[2]], "insert": [*lines, lines[2]],
    }  # fmt: skip
    log.file.write_text("\n".join(edited[harm]) + "\n")
    with pytest.raises(StoreError, match="was changed after it was written"):
        log.entries()


def test_a_line_cut_short_by_a_crash_was_never_there(decision, tmp_path):
    log = ForwardLog(tmp_path)
    put(log, decision)
    with log.file.open("a") as file:
        file.write('{"number": 1, "ses')
    assert len(log.entries()) == 1
    put(log, replace(decision, session="2003-04-21"))
    assert len(log.entries()) == 2


def test_a_session_is_certified_by_a_decision_in_time_that_the_backtest_repeats_to_the_last_bit(decision, tmp_path, panel):
    log, sessions = ForwardLog(tmp_path), [str(each) for each in panel.sessions]
    weights = np.random.default_rng(3).uniform(-0.3, 0.3, (700, 3))
    weights[605] = np.nan  # no order is a decision too
    table = weights.copy()
    table[603, 1] += 1e-12  # decided otherwise since: revised bars, other code
    result = run_backtests(panel, None, [Segment(Range(start=601, stop=611))], [PrecomputedTargets("fused", table)], ENV)
    for bar in (600, 601, 602, 603, 605, 606, 607):
        now = replace(decision, session=sessions[bar], frame=decision.frame.assign(target=weights[bar]))
        now = replace(now, next_open="2001" if bar == 601 else "2099")
        put(log, now, sha256=str(bar), stale=bar == 602)
    put(log, replace(decision, session=sessions[608], next_open="2099"), decider="another")
    found = certified_sessions(log.entries(), "me", result, "fused", panel)
    assert [str(day) for day in found] == [sessions[bar + 1] for bar in (600, 605, 606, 607)]  # not late, stale, changed or missing
    assert certified_sessions(log.entries(), "nobody", result, "fused", panel) == ()
    assert certified_sessions(log.entries(), "me", result, "vote", panel) == ()


def test_forward_returns_are_those_of_the_ledger(inputs, tmp_path, panel):
    log, sessions = ForwardLog(tmp_path), [str(each) for each in panel.sessions]
    weights = np.random.default_rng(3).uniform(-0.3, 0.3, (700, 2, 3))
    decision = decide(inputs("vote").until(600))
    for bar in (*range(600, 640), *range(641, 690)):  # one night is missing
        for who, name in enumerate(("old", "new")):
            now = replace(decision, session=sessions[bar], frame=decision.frame.assign(target=weights[bar, who]), next_open="2099")
            put(log, now, decider=name, sha256=f"{bar}{name}")
    found = forward_returns(panel, log.entries(), "old", "new", ENV)
    for who, returns in enumerate((found.one, found.other)):
        table = np.full((700, 3), np.nan)
        for bar in (*range(600, 640), *range(641, 690)):
            table[bar] = weights[bar, who]
        result = run_backtests(panel, None, [Segment(Range(start=601, stop=700))], [PrecomputedTargets("x", table)], ENV)
        np.testing.assert_allclose(returns, result.equity[0, 1:] / result.equity[0, :-1] - 1, atol=1e-15)
    assert len(found.sessions) == len(found.one)
    assert forward_returns(panel, log.entries(), "old", "nobody", ENV) is None


# --- what changed

FACTS = NightFacts({"seed": 1, "training.members": 2, "fusion.x": 1}, "code", (("p0", "p1"),), ("data",))
_CAUSES = ["code", "revision", "seed", "advice", "bar"]


def night_pair(inputs, panel_policies, cause: str, seed: int):
    """Inputs of two nights that differ by one cause, with what was decided on the first, and who differs."""
    random = np.random.default_rng(seed)
    cut = int(random.integers(560, 680))
    before = inputs("fused").until(cut)
    after, facts, kept = before, FACTS, decide(before, reasons=False)
    if cause == "code":  # what was kept is not what the same inputs give
        kept = replace(kept, frame=kept.frame.assign(target=kept.frame["target"].fillna(kept.frame["held"]) + random.normal(0, 0.1, 3)))
        return kept, before, after, (replace(FACTS, code="old"), FACTS)
    if cause == "revision":
        close = before.bars.close.copy()
        close[cut - 2 - int(random.integers(0, 3))] *= random.uniform(0.5, 2, 3)
        bars = replace(before.bars, close=close, high=np.fmax(before.bars.high, close), low=np.fmin(before.bars.low, close))
        after = replace(before, bars=bars, features=build_features(bars, FeatureSpec()))
    if cause == "seed":
        after = replace(before, policies=(panel_policies[::-1][:1],))
        facts = replace(FACTS, settings=FACTS.settings | {"seed": 2}, members=(("p1",),))
    if cause == "advice":
        frame = before.signals.frame
        other = frame["action"].map({"buy": "sell", "sell": "buy", "hold": "buy"})
        after = replace(before, signals=replace(before.signals, frame=frame.assign(action=other, confidence=0.99)))
    if cause == "bar":
        after = inputs("fused").until(cut + 1)
        after = replace(after, signals=before.signals)
    return kept, before, after, (FACTS, facts)


@pytest.mark.parametrize("cause", _CAUSES)
def test_a_planted_cause_is_the_one_that_is_named(inputs, panel_policies, cause):
    expected = dict(zip(_CAUSES, (Cause.CODE, Cause.REVISION, Cause.SEED, Cause.ADVICE, Cause.NEW_BAR), strict=True))[cause]
    moved = 0
    for seed in range(5):
        kept, before, after, facts = night_pair(inputs, panel_policies, cause, seed)
        rows = explain_changes(kept, before, after, facts, decide(after, reasons=False))
        for row in rows:
            assert abs(row.residual) < 1e-12
            assert {name for name, part in row.parts.items() if part} <= {expected}
            assert row.parts[expected] == pytest.approx(row.after - row.before, abs=1e-12)
            moved += row.after != row.before
    assert moved


def test_several_causes_at_once_still_add_up(inputs, panel_policies):
    _, _, revised, _ = night_pair(inputs, panel_policies, "revision", 3)
    before = inputs("fused").until(revised.bars.n_bars)
    after = replace(revised, policies=(panel_policies[:1],), fusion=FusionSpec(confidence_threshold=0.9))
    facts = FACTS, replace(FACTS, settings=FACTS.settings | {"fusion.x": 2, "seed": 9}, members=(("p0",),))
    rows = explain_changes(decide(before), before, after, facts, decide(after))
    assert all(abs(row.residual) < 1e-12 for row in rows)
    assert all(Cause.RETRAINING in row.parts for row in rows)


def test_why_policies_are_others_is_said_where_one_cause_is_there():
    def after(**changes):
        return replace(FACTS, **changes)

    assert retraining_cause(FACTS, after(settings=FACTS.settings | {"seed": 2}, members=(("x",),))) is Cause.SEED
    assert retraining_cause(FACTS, after(settings=FACTS.settings | {"fusion.x": 2})) is Cause.SETTINGS
    assert retraining_cause(FACTS, after(members=(("x", "y"),), fold_data=("other",))) is Cause.REVISION
    assert retraining_cause(FACTS, after(members=(*FACTS.members, ("q",)), fold_data=("data", "more"))) is Cause.NEW_FOLD
    assert retraining_cause(FACTS, after(members=(("x", "y"),))) is Cause.CODE
    both = after(settings=FACTS.settings | {"seed": 2, "fusion.x": 2}, members=(("x",),))
    assert retraining_cause(FACTS, both) is Cause.RETRAINING


def test_revisions_name_the_value_and_the_bar(panel):
    close = panel.close.copy()
    close[400, 1] *= 1.5
    gone = replace(panel, close=np.where((np.arange(700) == 300)[:, None], np.nan, close))
    found = revisions(panel.head(690), gone)
    values = [(row.field, row.symbol) for row in found]
    assert ("close", panel.symbols[1]) in values
    assert {row.timestamp[:10] for row in found} == {str(panel.sessions[300]), str(panel.sessions[400])}
    assert all(row.after is None for row in found if row.timestamp[:10] == str(panel.sessions[300]))
    assert revisions(panel.head(690), panel) == []


def test_drift_is_that_of_the_definition(panel_features):
    random = np.random.default_rng(0)
    old, new = random.normal(0, 1, 4000), random.normal(1, 1, 3000)
    edges = np.quantile(old, np.arange(0.1, 1, 0.1))
    shares = [np.histogram(values, np.r_[-np.inf, edges, np.inf])[0] / len(values) for values in (old, new)]
    assert psi(old, new) == pytest.approx(sum((b - a) * np.log(b / a) for a, b in zip(*shares, strict=True)), rel=1e-2)
    values = panel_features.values.copy()
    values[600:, :, 3] += 10 * np.nanstd(values[:, :, 3])
    found = drift(replace(panel_features, values=values), Range(start=110, stop=400), Range(start=600, stop=700))
    assert found[0].feature == panel_features.names[3]
    assert found[0].p < 1e-6


def test_a_stale_decision_is_for_the_session_that_did_not_come(inputs):
    before = inputs("vote").until(600)
    decision = for_session(decide(before), "2003-04-21", before.bars)
    assert (decision.session, decision.next_open) == ("2003-04-21", "2003-04-22T13:30:00Z")
    assert decision.n_bars == 600


def test_what_changed_is_read_as_it_was_written_and_so_is_a_file_of_before_it_had_a_version(tmp_path):
    row = WeightRow(symbol="IBM", before=0.1, after=0.3, parts={Cause.NEW_BAR: 0.15, Cause.ADVICE: 0.05}, residual=0.0)
    moved = Revision("IBM", "2013-02-01T00:00Z", "close", 100.0, None)
    changes = NightChanges(
        session="2013-03-01", before="2013-02-28", revisions=(moved,), n_revisions=1, settings={"seed": (1, 2)}, weights=(row,),
        drift=(Drift("rsi", 0.3, 0.1, 0.02, 63),),
    )  # fmt: skip
    write_changes(changes, tmp_path / "changes.json")
    assert read_changes(tmp_path / "changes.json") == changes
    old = json.loads((tmp_path / "changes.json").read_bytes())
    assert list(old) == [
        "schema_version", "session", "before", "revisions", "n_revisions", "settings", "code_changed", "weights", "drift",
    ]  # fmt: skip
    assert old.pop("schema_version") == 1
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert read_changes(tmp_path / "old.json") == changes
    for content in (json.dumps(old | {"schema_version": 2}), json.dumps(old | {"n_revisions": "many"}), "{"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(StoreError, match=r"bad\.json does not say what changed in a night"):
            read_changes(tmp_path / "bad.json")


def test_a_nights_record_is_read_as_it_was_written_by_this_version_or_an_older_one(tmp_path):
    nights, refs = Nights(tmp_path), manifest_of().refs
    record = NightRecord(
        session="2013-03-01", role=DeciderRole.CHAMPION, decider="d", subject="vote", run="r", code="c", config={}, refs=refs, signals=None,
        decision=refs.quality, stale=False,
    )  # fmt: skip
    nights.keep(record)
    assert nights.of("2013-03-01") == (record,)
    [file] = nights.root.iterdir()
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps(content | {"refs": content["refs"] | {"since removed": []}}))
    assert nights.of("2013-03-01") == (record,)
    file.write_text(json.dumps(content | {"refs": {}}))
    with pytest.raises(StoreError, match="is not a record of a night; restore it from a copy"):
        nights.of("2013-03-01")


def test_features_are_held_against_training_over_about_a_quarter(panel):
    found = recent_range(panel)
    assert found.stop == panel.n_bars
    assert len(set(panel.sessions[found.start :].tolist())) == pytest.approx(63, abs=4)
