"""Which sessions count: tags by what is stated and what was probed, the cutoff store that keeps it, and numbers on each span."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import mock_advisor

from ploutos.advisor.advisor import advise
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import (
    UNKNOWN,
    Certificate,
    CutoffEvidence,
    CutoffStore,
    HitRate,
    ModelRecord,
    MonthScore,
    Power,
    ProbeResult,
    Reach,
    Recall,
    Tag,
    known_cutoff,
    tag_dates,
)
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StoreError
from ploutos.evaluation.contamination import ENOUGH_LOGGED, clean_sessions, evidence_of
from ploutos.evaluation.experiment import in_sample, out_of_sample
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.metrics import periods_of, session_returns, sharpe_ratio
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.reporting.verdict import verdict
from ploutos.store import digest_of
from ploutos.walk_forward import Range

ORDER = [Tag.CONTAMINATED, Tag.GREY, Tag.CLAIMED, Tag.CLEAN]
STRONG = Power(known=0.2, margin_months=0, reaches=(Reach(month="1990-01", found=0.9),))
HITS = HitRate(n_choices=5, n=50, hits=12, rate=0.24, low=0.131, high=0.382, chance=0.2, p_value=0.29)


def probe_of(cutoff: str | None, power: Power | None = None, **more) -> ProbeResult:
    """A probe that dated this month."""
    recall = Recall(
        symbols=("A",), n=10, accuracy=0.5, balanced_accuracy=0.5, base_rate=0.5, said_up=0.5, p_value=0.5, cutoff=cutoff,
        accuracy_before=None, accuracy_after=0.5, months=(MonthScore(month="2001-02", n=1, right=1),), power=power,
    )  # fmt: skip
    values = dict(
        probed_at=datetime(2026, 1, 2, tzinfo=UTC), source="s", symbols=("A",), questions=10, seed=1, template="2", n_asked=20,
        n_abstained=1, tokens=9, seconds=0.5, reidentification={"symbol": HITS}, recall=recall,
    )  # fmt: skip
    return ProbeResult(**(values | more))


def known(stated: str | None = None, probed: str | None = None, grey_months: int = 6, power: Power | None = STRONG) -> CutoffEvidence:
    """What is known when a probe could have found out everything, or as much as is told."""
    record = ModelRecord(provider="ollama", model="m", digest="d", probes=(probe_of(probed, power),))
    return CutoffEvidence(stated=None if stated is None else date.fromisoformat(stated), grey_months=grey_months, record=record)


def claimed(stated: str, grey_months: int = 6) -> CutoffEvidence:
    """What a maker says and nobody has probed."""
    return CutoffEvidence(stated=date.fromisoformat(stated), grey_months=grey_months)


def days(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[D]")


# --- tags


@pytest.mark.parametrize(
    ("stated", "probed", "expected"),
    [
        (None, None, "ggggggg"),
        (None, "2023-08", "ccggggg"),
        ("2023-08-31", None, "ccggg++"),  # grey until 29 February
        ("2023-08-31", "2023-05", "ccggg++"),  # what is stated later than recalled still counts
        ("2023-05-31", "2023-08", "ccggg++"),  # the margin begins at the later of the two
        ("2023-08-31", "2024-02", "cccccgg"),
        ("2023-08-30", "2023-08", "ccggg++"),  # the whole month is recalled
    ],
)
def test_tags_worked_out_by_hand(stated, probed, expected):
    dates = days("2023-08-01", "2023-08-31", "2023-09-01", "2024-01-31", "2024-02-29", "2024-03-01", "2024-04-01")
    letters = {Tag.CONTAMINATED: "c", Tag.GREY: "g", Tag.CLEAN: "+"}
    assert "".join(letters[tag] for tag in tag_dates(dates, known(stated, probed))) == expected


def test_a_clean_day_needs_a_probe_that_could_have_found_it_out_and_is_else_only_claimed():
    at = days("2023-08-31", "2024-03-15", "2024-06-15", "2024-09-15")

    def tags(memory):
        return [str(tag) for tag in tag_dates(at, memory)][1:]

    grows = Power(known=0.2, margin_months=6, reaches=(Reach(month="2024-01", found=0.3), Reach(month="2024-06", found=0.8)))
    assert tags(claimed("2023-08-31")) == ["claimed"] * 3
    assert tags(known("2023-08-31", power=None)) == ["claimed"] * 3  # a probe from before power was measured
    assert tags(known("2023-08-31", power=STRONG.model_copy(update={"reaches": (Reach(month="1990-01", found=0.79),)}))) == ["claimed"] * 3
    assert tags(known("2023-08-31", power=STRONG)) == ["clean"] * 3
    assert tags(known("2023-08-31", power=grows)) == ["claimed", "clean", "clean"]
    assert tags(known("2023-08-31", power=grows, grey_months=5)) == ["claimed"] * 3  # it allowed itself a wider margin than the run does
    record = known("2023-08-31", power=None).record
    two = record.model_copy(update={"probes": (probe_of(None, STRONG), probe_of(None, None))})
    assert tags(CutoffEvidence(stated=date(2023, 8, 31), record=two)) == ["clean"] * 3  # a weaker probe takes nothing back


def test_what_the_forward_log_holds_counts_whatever_the_model_remembers():
    at = days("2023-01-02", "2023-01-03", "2024-06-15")
    memory = known("2023-08-31").model_copy(update={"logged": (date(2023, 1, 3),)})
    assert tag_dates(at, memory) == [Tag.CONTAMINATED, Tag.LOGGED, Tag.CLEAN]
    assert tag_dates(at, memory, reveal=True) == [Tag.CONTAMINATED, Tag.LOGGED, Tag.CONTAMINATED]
    assert set(tag_dates(at, memory, is_mock=True)) == {Tag.NOT_APPLICABLE}


def test_enough_of_the_forward_log_is_asked_alone():
    tags = [Tag.CLEAN, Tag.CLAIMED, Tag.GREY]
    assert evidence_of([*tags, *[Tag.LOGGED] * (ENOUGH_LOGGED - 1)]).tolist() == [True, False, False, *[True] * (ENOUGH_LOGGED - 1)]
    assert evidence_of([*tags, *[Tag.LOGGED] * ENOUGH_LOGGED]).tolist() == [False] * 3 + [True] * ENOUGH_LOGGED


DATES = st.dates(date(1999, 1, 1), date(2030, 12, 31))
MONTHS = st.none() | DATES.map(lambda day: f"{day:%Y-%m}")
STATED = st.none() | DATES.map(date.isoformat)


@given(dates=st.lists(DATES, max_size=30), stated=STATED, probed=MONTHS, grey=st.integers(0, 24))
def test_time_only_makes_a_session_cleaner_and_without_a_stated_cutoff_none_is(dates, stated, probed, grey):
    tags = tag_dates(np.array(sorted(dates), dtype="datetime64[D]"), known(stated, probed, grey))
    assert Tag.CLAIMED not in tags
    ranks = [ORDER.index(tag) for tag in tags]
    assert ranks == sorted(ranks)
    if stated is None:
        assert Tag.CLEAN not in tags
    if stated is None and probed is None:
        assert set(tags) <= {Tag.GREY}


@given(dates=st.lists(DATES, min_size=1, max_size=30), stated=STATED, probed=MONTHS, later=MONTHS, grey=st.integers(0, 24))
def test_knowing_more_of_a_memory_never_makes_a_session_cleaner(dates, stated, probed, later, grey):
    """A longer margin and a probe that recalls more can only take away."""
    at = np.array(dates, dtype="datetime64[D]")
    before = [ORDER.index(tag) for tag in tag_dates(at, known(stated, probed, grey))]
    wider = [ORDER.index(tag) for tag in tag_dates(at, known(stated, probed, grey + 1))]
    recalled = max(filter(None, (probed, later)), default=None)
    further = [ORDER.index(tag) for tag in tag_dates(at, known(stated, recalled, grey))]
    assert all(w <= b for w, b in zip(wider, before, strict=True))
    assert all(f <= b for f, b in zip(further, before, strict=True))


@given(dates=st.lists(DATES, max_size=10), stated=STATED, probed=MONTHS)
def test_a_rule_has_no_memory_and_a_prompt_that_names_the_day_leaves_none_clean(dates, stated, probed):
    at = np.array(dates, dtype="datetime64[D]")
    assert set(tag_dates(at, known(stated, probed), is_mock=True)) <= {Tag.NOT_APPLICABLE}
    assert set(tag_dates(at, known(stated, probed), reveal=True)) <= {Tag.CONTAMINATED}


# --- the cutoff store


def test_a_probe_survives_its_file_and_a_weaker_one_takes_nothing_back(tmp_path):
    store = CutoffStore(tmp_path)
    assert store.find("ollama", "m", "d") is None
    for cutoff in ("2023-01", "2023-06", None):
        store.add("ollama", "m", "d", probe_of(cutoff))
    record = CutoffStore(tmp_path).find("ollama", "m", "d")
    assert [probe.recall.cutoff for probe in record.probes] == ["2023-01", "2023-06", None]
    assert record.probes[0] == probe_of("2023-01")
    assert record.cutoff == "2023-06"
    assert (tmp_path / "d.json").is_file()


def test_a_provider_without_digests_is_kept_by_name(tmp_path):
    store = CutoffStore(tmp_path)
    store.add("openai", "a/b", "", probe_of(None))
    store.add("openai", "a-b", "", probe_of("2020-01"))
    assert (tmp_path / "openai-a%2Fb.json").is_file()
    assert store.find("openai", "a/b", "").cutoff is None
    found = known_cutoff(LLMConfig(provider="openai", model="a-b"), "", tmp_path)
    assert (found.recalled, found.digest_match) == ("2020-01", None)


def test_a_probe_of_another_content_under_the_same_name_does_not_count_and_is_told_of(tmp_path):
    CutoffStore(tmp_path).add("ollama", "m", "old", probe_of("2023-06"))
    config = LLMConfig(model="m", stated_cutoff="2023-01-31", grey_months=2)
    same, other, never = (
        known_cutoff(config.model_copy(update={"model": m}), d, tmp_path) for m, d in (("m", "old"), ("m", "new"), ("n", "x"))
    )
    assert (same.digest_match, same.recalled, same.grey_months) == (True, "2023-06", 2)
    assert (other.digest_match, other.recalled) == (False, None)
    assert (never.digest_match, never.recalled) == (None, None)
    assert known_cutoff(LLMConfig(provider="mock", stated_cutoff="2023-01-31"), "", tmp_path) == UNKNOWN


def test_a_damaged_entry_is_an_error_and_not_a_model_without_memory(tmp_path):
    (tmp_path / "d.json").write_text('{"model": "m"')
    with pytest.raises(StoreError, match=r"d.json is not a record of the cutoff store; delete it and run ploutos llm probe again"):
        known_cutoff(LLMConfig(model="m"), "d", tmp_path)


def test_probes_that_end_at_once_are_all_kept(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: CutoffStore(tmp_path).add("ollama", "m", "d", probe_of(None, seed=seed)), range(24)))
    assert {probe.seed for probe in CutoffStore(tmp_path).find("ollama", "m", "d").probes} == set(range(24))


def test_everything_that_is_known_is_part_of_what_the_metrics_stand_on():
    kinds = [known(), known("2023-08-31"), known(None, "2023-08"), known("2023-08-31", "2023-08"), known("2023-08-31", grey_months=5)]
    kinds += [
        claimed("2023-08-31"),
        known("2023-08-31", power=None),
        claimed("2023-08-31").model_copy(update={"logged": (date(2024, 1, 2),)}),
    ]
    assert len({digest_of(kind) for kind in kinds}) == len(kinds)


# --- in a run


@pytest.fixture(scope="module")
def tested(panel, panel_features, panel_fold, panel_policies):
    """One fold of 120 sessions, and its metrics for what is known of the advisor."""
    fold = panel_fold.model_copy(update={"test": Range(start=506, stop=626)})
    signals = advise(panel, market_features(panel), 505, 625, mock_advisor())
    result = out_of_sample(panel, panel_features, [fold], [panel_policies], signals, EnvSpec(), FusionSpec(), 1)
    inside = in_sample(panel, panel_features, [fold], [panel_policies], EnvSpec())

    def summary(memory=UNKNOWN, is_mock=False, reveal=False):
        who = replace(signals, is_mock=is_mock, reveal=reveal)
        return summarise(result, panel, [fold], inside, who, BootstrapSpec(replications=30), 1, False, known=memory)

    return panel, result, summary


def test_spans_share_out_the_sessions_and_their_numbers_are_those_of_their_own_returns(tested):
    bars, result, summary = tested
    periods = periods_of(bars, result)
    dates = bars.sessions[result.positions[periods.ends[1:]]]
    stated = str(dates[30])
    found = summary(known(stated, grey_months=1))
    assert [span.tag for span in found.spans] == [Tag.CONTAMINATED, Tag.GREY, Tag.CLEAN]
    assert sum(span.n_sessions for span in found.spans) == found.n_sessions == len(dates)
    assert (str(found.spans[0].first), str(found.spans[0].last), found.spans[0].n_sessions) == (str(dates[0]), stated, 31)
    assert str(found.spans[-1].last) == str(dates[-1])
    clean = clean_sessions(found, dates)
    assert clean.sum() == found.spans[-1].n_sessions
    returns = session_returns(result.equity[result.row("buy-and-hold")], periods)
    numbers = found.spans[-1].strategies["buy-and-hold"]
    assert numbers.total_return == pytest.approx(np.prod(1 + returns[clean]) - 1)
    assert numbers.sharpe == pytest.approx(sharpe_ratio(returns[clean], periods.per_year))
    assert numbers.sharpe_low < numbers.sharpe < numbers.sharpe_high
    for name, whole in found.strategies.items():
        grown = np.prod([1 + span.strategies[name].total_return for span in found.spans]) - 1
        assert grown == pytest.approx(whole.total_return)
    assert not any("counts as evidence for the advisor" in sentence for sentence in verdict(found))


def test_a_mock_has_one_span_where_nothing_can_be_remembered_and_the_numbers_are_the_whole_run_s(tested):
    bars, result, summary = tested
    found = summary(is_mock=True)
    (span,) = found.spans
    assert (span.tag, span.n_sessions) == (Tag.NOT_APPLICABLE, found.n_sessions)
    for name, numbers in span.strategies.items():
        assert numbers.model_dump() == found.strategies[name].model_dump(include={"total_return", "sharpe", "sharpe_low", "sharpe_high"})
    assert found.advisor.certificate is None
    assert clean_sessions(found, bars.sessions[result.positions[1:]]).all()
    assert not any("counts as evidence for the advisor" in sentence for sentence in verdict(found))


@pytest.mark.parametrize(
    ("memory", "reveal", "tag"),
    [
        (UNKNOWN, False, "grey"),
        (known("2020-01-01"), False, "contaminated"),
        (known("1999-01-01"), True, "contaminated"),
        (claimed("1999-01-01"), False, "claimed"),
    ],
)
def test_without_a_clean_session_the_verdict_says_that_nothing_counts(tested, memory, reveal, tag):
    bars, result, summary = tested
    found = summary(memory, reveal=reveal)
    (sentence,) = [s for s in verdict(found) if "Nothing here counts as evidence for the advisor" in s]
    assert f"its sessions are 120 {tag}, none is clean" in sentence
    assert not clean_sessions(found, bars.sessions[result.positions[1:]]).any()


def test_the_certificate_says_what_is_stated_what_was_probed_and_when(tested):
    _, _, summary = tested
    record = ModelRecord(provider="ollama", model="m", digest="d", probes=(probe_of("2002-05"), probe_of(None)))
    memory = CutoffEvidence(stated=date(2002, 1, 31), record=record, digest_match=True)
    found = summary(memory).advisor.certificate
    certificate = json.loads(found.model_dump_json())
    assert Certificate.model_validate(certificate) == found
    expected = {
        "stated": "2002-01-31", "grey_months": 6, "probed": "2002-05", "effective_cutoff": "2002-05-31", "digest_match": True,
        "n_probes": 2, "probed_at": "2026-01-02T00:00:00Z", "source": "s", "n_asked": 20, "n_abstained": 1,
    }  # fmt: skip
    assert {name: certificate[name] for name in expected} == expected
    assert certificate["reidentification"]["symbol"]["rate"] == 0.24
    assert summary().advisor.certificate is None
    assert summary(claimed("2002-01-31")).advisor.certificate.probed_at is None


def test_the_verdict_says_by_whose_word_sessions_are_clean(tested):
    bars, result, summary = tested
    dates = bars.sessions[result.positions[1:]]
    early = [day.item() for day in dates]
    never = verdict(summary(claimed("1999-01-01")))
    assert any(
        "Claimed to be clean by the model's maker alone, and not counted: 120 sessions. Here the model was never probed." in s
        for s in never
    )
    weak = known("1999-01-01", power=STRONG.model_copy(update={"reaches": (Reach(month="1990-01", found=0.37),)}))
    told = "a model that knows 20% of the months would be found out by 37% of such probes, and 80% are needed"
    assert any(told in s for s in verdict(summary(weak)))
    earned = verdict(summary(known("1999-01-01")))
    assert any("Clean: 120 sessions, after the stated cutoff" in s and "found out by 90% of such probes" in s for s in earned)
    logged = summary(claimed("1999-01-01").model_copy(update={"logged": (early[3], *early[10:80])}))
    assert any("The decisions for 71 sessions stand in the forward log" in s and "judged by them alone" in s for s in verdict(logged))
    counting = clean_sessions(logged, dates)
    assert np.flatnonzero(counting).tolist() == [3, *range(10, 80)]  # the nights between them are missing
    assert logged.subject.reason == "advised"
    assert logged.against_benchmark.n_sessions == 71


def test_a_model_that_sees_through_its_prompts_is_named_in_the_verdict(tested):
    _, _, summary = tested
    for low, named in ((0.21, True), (0.2, False)):
        probe = probe_of(None, reidentification={"symbol": HITS.model_copy(update={"low": low})})
        record = ModelRecord(provider="ollama", model="m", digest="d", probes=(probe,))
        assert any("The prompts are less blind" in s for s in verdict(summary(CutoffEvidence(record=record)))) is named
