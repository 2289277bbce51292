"""Help told from noise: an advisor that knows the next bars, advisors that know nothing, and the words for both."""

import json
import math
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
from markets import QUALITY, mock_advisor
from pages import figures
from scipy.stats import norm

from ploutos import walk_forward
from ploutos.advisor.advisor import Advisor, advise, prompt_at
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import Certificate, HitRate, Tag
from ploutos.advisor.mirror import ask_mirrored
from ploutos.advisor.placebos import shifted
from ploutos.advisor.signals import Signals
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.advice_controls import control_advice, rank_of, reliability_of
from ploutos.evaluation.comparisons import Pair, compare, mirror_of, pairs
from ploutos.evaluation.experiment import in_sample, out_of_sample
from ploutos.evaluation.fusion_selection import outcomes_of
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.metrics import periods_of, session_returns
from ploutos.evaluation.significance import estimate, mean, mean_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import Comparison, Question, Side, Span, SpanMetrics
from ploutos.features.llm_features import market_features
from ploutos.fusion.calibration import Calibration, Candidate, FusionChoice, Lead
from ploutos.fusion.spec import FusionSpec
from ploutos.llm.backends.base import Reply
from ploutos.llm.config import LLMProvider
from ploutos.reporting.advisor_page import render_advisor_page
from ploutos.reporting.names import names_of
from ploutos.reporting.page import typeset
from ploutos.reporting.report import RunFacts, render_report
from ploutos.reporting.verdict import (
    QUESTIONS,
    comparison_sentence,
    conclusion,
    difference_sentence,
    mirror_sentence,
    rank_sentence,
    verdict,
)
from ploutos.strategies.base import Role
from ploutos.walk_forward import Range, fold_table

BOOTSTRAP = BootstrapSpec(replications=200)
CADENCE = 5
UNCOUNTED = "so none of this counts as evidence for it"
PLACEBOS = [Question.SHUFFLED, Question.SHIFTED, Question.DRAWN]


class Scripted:
    """A language model to everyone else, whose answers are fixed before by what each prompt is about."""

    name, is_mock = "scripted", False

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def digest(self) -> str:
        return ""

    def complete(self, messages, schema, seed) -> Reply:
        return Reply(json.dumps({"action": self.answers[messages[1].content], "confidence": 90, "reason": ""}))


@pytest.fixture(scope="module")
def market(panel):
    return market_features(panel)


@pytest.fixture(scope="module")
def folds(panel_fold):
    return [panel_fold, panel_fold.model_copy(update={"index": 1, "test": Range(start=690, stop=700)})]


def scripted(panel, market, say) -> Signals:
    """Advice on the test ranges by a model that says `say(bar, column)`."""
    asked = [(t, s) for t in range(505, 700, CADENCE) for s in range(panel.n_symbols) if panel.tradable[t, s]]
    prompts = [prompt_at(panel, lambda t, s: market[t, s], panel.symbols[s], panel.available_at[t])[1].content for t, s in asked]
    answers = {prompt: say(t, s) for prompt, (t, s) in zip(prompts, asked, strict=True)}
    config = LLMConfig(provider=LLMProvider.OLLAMA, model="scripted", cadence_bars=CADENCE)
    return advise(panel, market, 505, 698, Advisor(Scripted(answers), config))


def knowing(panel):
    """Looks at what its advice will earn: from the next open to the open at which the next advice is filled."""
    opens = pd.DataFrame(panel.open).bfill().to_numpy()

    def say(t, s):
        later = min(t + 1 + CADENCE, panel.n_bars - 1)
        return "buy" if opens[later, s] > opens[min(t + 1, panel.n_bars - 1), s] else "sell"

    return say


def ignorant(seed: int, lasting: int):
    """Says what a coin says, for `lasting` decisions in a row."""
    coins = np.random.default_rng(seed).choice(["buy", "sell"], size=(700 // (CADENCE * lasting) + 1, 3))
    return lambda t, s: str(coins[t // (CADENCE * lasting), s])


@pytest.fixture(scope="module")
def play(panel, panel_features, panel_policies, folds):
    """Backtests and summary of a run with given signals."""
    policies, env = [panel_policies, panel_policies], EnvSpec()
    inside = in_sample(panel, panel_features, folds, policies, env)

    def run(signals, mirrored=None, draws=5):
        result = out_of_sample(
            panel, panel_features, folds, policies, signals, env, FusionSpec(), 1, mirrored=mirrored, placebo_draws=draws
        )
        return result, summarise(result, panel, folds, inside, signals, BOOTSTRAP, 1, reduced=False, mirrored=mirrored)

    return run


# --- help and noise


def test_an_advisor_that_knows_the_next_bars_helps_and_beats_every_placebo(panel, market, play):
    result, summary = play(scripted(panel, market, knowing(panel)))
    for question in (Question.ADVICE, *PLACEBOS):
        row = summary.comparison(question)
        assert row.sign == 1
        assert 0 < row.low < row.difference < row.high
        assert "a year more than" in comparison_sentence(summary, row)
        assert row.beaten in (None, 1.0)
    assert conclusion(summary).startswith("The advice helped")
    assert "<b>The advice helped" in render_advisor_page(result, summary)


@pytest.mark.parametrize("lasting", [1, 6])
def test_advisors_that_know_nothing_are_not_said_to_help_however_long_their_advice_lasts(panel, market, play, lasting):
    found = [play(scripted(panel, market, ignorant(seed, lasting)))[1] for seed in range(4)]
    assert not any(conclusion(summary).startswith("The advice helped") for summary in found)
    signs = [summary.comparison(Question.SHIFTED).sign for summary in found]
    assert np.count_nonzero(signs) <= 1  # one in twenty is what an interval of 95 % allows


def test_an_advisor_that_is_always_wrong_costs_money(panel, market, play):
    right = knowing(panel)
    _, summary = play(scripted(panel, market, lambda t, s: "sell" if right(t, s) == "buy" else "buy"))
    assert summary.comparison(Question.ADVICE).sign == -1
    assert "less than fused without advice; chance does not explain the loss" in comparison_sentence(
        summary, summary.comparison(Question.ADVICE)
    )
    assert conclusion(summary).startswith("The advice cost money")


# --- rank and reliability


@pytest.fixture(scope="module")
def control(panel, panel_features, panel_policies, folds):
    """Controls of given signals, and the summary's words about them."""

    def run(signals, draws=40):
        return control_advice(panel, panel_features, folds, [panel_policies] * 2, signals, EnvSpec(), FusionSpec(), 1, draws)

    return run


def test_an_advisor_that_knows_the_next_bars_ranks_first_and_one_that_guesses_does_not(panel, market, control):
    knows, guesses = (control(scripted(panel, market, rule)) for rule in (knowing(panel), ignorant(3, lasting=6)))
    assert (knows.rank.beaten, knows.rank.draws) == (40, 40)
    assert knows.rank.p == pytest.approx(1 / 41)
    assert guesses.rank.p > 0.05
    said = {side: [row for row in knows.reliability if row.side is side] for side in Side}
    assert min(row.right for row in said[Side.ADVISOR]) > 0.9
    assert 0.3 < np.average([row.right for row in said[Side.POLICIES]], weights=[row.n for row in said[Side.POLICIES]]) < 0.7
    assert not knows.calibrated


def test_every_draw_is_the_account_that_follows_the_shifted_advice(panel, market, panel_features, panel_policies, folds, control, play):
    signals = scripted(panel, market, ignorant(1, lasting=6))
    rank = control(signals, draws=2).rank
    tested = signals.within(*walk_forward.tested_decisions(folds))
    returns = [play(each, draws=0)[1].strategies["fused"].total_return for each in (signals, *(shifted(tested, 1, k) for k in range(2)))]
    assert rank.own == pytest.approx(returns[0], abs=1e-12)
    assert (rank.low, rank.high) == (pytest.approx(np.quantile(returns[1:], 0.025)), pytest.approx(np.quantile(returns[1:], 0.975)))
    assert rank.beaten == sum(each < returns[0] for each in returns[1:])
    assert control(signals, draws=0).rank is None


def test_a_rank_among_its_equals_is_as_often_low_as_high():
    random = np.random.default_rng(2)
    ps = np.array([rank_of(float(random.normal()), random.normal(size=99)).p for _ in range(2000)])
    for level in (0.05, 0.5):
        assert (ps <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2000))


def test_bins_of_reliability_hold_every_decision_that_counts_once(panel):
    random = np.random.default_rng(5)
    decisions = [(bar, random.integers(0, 3, 3), random.uniform(0.4, 0.9, 3)) for bar in range(400, 690)]
    said, right = outcomes_of(panel, decisions, 5, 699)
    rows = reliability_of(panel, Side.ADVISOR, decisions, 5, 699)
    assert sum(row.n for row in rows) == len(said)
    assert sum(row.n * row.right for row in rows) == pytest.approx(right.sum())
    assert sum(row.n * row.said for row in rows) == pytest.approx(said.sum())
    assert [row.said for row in rows] == sorted(row.said for row in rows)
    assert all(row.low <= row.right <= row.high for row in rows)
    alike = [(bar, actions, np.full(3, 0.55)) for bar, actions, _ in decisions]
    assert [row.said for row in reliability_of(panel, Side.ADVISOR, alike, 5, 699)] == [pytest.approx(0.55)]
    assert reliability_of(panel, Side.ADVISOR, [], 5, 699) == []


def test_help_needs_a_rank_and_no_help_says_what_could_have_been_found(panel, market, play, control):
    signals = scripted(panel, market, knowing(panel))
    result, summary = play(signals)
    controls = control(signals)
    ranked = summary.model_copy(update={"controls": controls})
    assert conclusion(ranked).startswith("The advice helped")
    page = render_advisor_page(result, ranked)
    assert typeset(rank_sentence(controls.rank)) in page
    assert "How often is each side right?" in page
    low = controls.model_copy(update={"rank": controls.rank.model_copy(update={"p": 0.3, "beaten": 28})})
    told = conclusion(summary.model_copy(update={"controls": low}))
    assert told.startswith("No benefit was shown")
    assert "28 of 40 copies of it shifted in time" in told
    nothing = play(scripted(panel, market, ignorant(1, lasting=6)))[1]
    row = nothing.comparison(Question.ADVICE)
    assert row.sign == 0
    n = nothing.n_corrected
    assert row.detectable == pytest.approx(row.error * (norm.ppf(1 - 0.025 / n) + norm.ppf(0.8)))
    least = f"Histories like this one show a true difference of {row.detectable:.1%} a year in four of five cases"
    assert least in conclusion(nothing)
    assert least in comparison_sentence(nothing, row)


def test_what_is_detectable_is_found_in_four_of_five_histories():
    random, n = np.random.default_rng(6), 250
    effect = (norm.ppf(0.975) + norm.ppf(0.8)) * 0.01 / np.sqrt(n)
    found = [estimate(mean, [random.normal(effect, 0.01, n)], BOOTSTRAP, 1).p <= 0.05 for _ in range(120)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.14)


# --- placebos in a run


@pytest.fixture(scope="module")
def mock_run(panel, market, play):
    signals = advise(panel, market, 505, 698, mock_advisor())
    return signals, *play(signals, ask_mirrored(signals, panel, mock_advisor()), draws=2)


def test_placebos_have_accounts_and_pairs_and_no_place_among_the_strategies(mock_run, panel, folds):
    _, result, summary = mock_run
    placebos = result.of(Role.PLACEBO)
    assert placebos == (*(f"placebo-{kind}-{draw}" for kind in ("shuffled", "shifted", "drawn") for draw in (0, 1)), "mirrored")
    assert not set(placebos) & set(summary.strategies)
    assert not set(placebos) & set(summary.folds[0].sharpe)
    assert [row.draws for row in summary.comparisons] == [1, 1, 1, 2, 2, 2, 1]
    page = render_report(result, summary, panel, QUALITY, RunFacts(fold_table(tuple(folds), panel.timestamps), []))
    assert not any(name in page for slug in placebos for name in (slug, slug.replace("-", " ")))
    assert 'href="advisor.html"' in page
    paths = result.equity[[result.row(slug) for slug in placebos]]
    assert len(np.unique(paths, axis=0)) == len(placebos)


def test_shifted_advice_trades_about_as_much_as_the_advisor_and_shuffled_advice_trades_more(panel, market, play):
    result, _ = play(scripted(panel, market, ignorant(1, lasting=6)))
    traded = dict(zip(result.slugs, result.traded[:, -1], strict=True))
    ours = traded["fused"]
    share = {kind: np.mean([traded[f"placebo-{kind}-{draw}"] for draw in range(5)]) / ours for kind in ("shuffled", "shifted", "drawn")}
    assert share["shifted"] == pytest.approx(1, abs=0.3)
    assert min(share["shuffled"], share["drawn"]) > 1.4


def test_placebos_change_no_other_account(mock_run, play):
    signals, result, _ = mock_run
    alone, summary = play(signals, draws=0)
    np.testing.assert_array_equal(result.only(alone.slugs).equity, alone.equity)
    assert [row.against for row in summary.comparisons] == [("fused-ablated",), ("vote",), ("buy-and-hold",)]
    assert summary.advisor.mirrored is None


def test_advice_before_the_test_ranges_changes_nothing(mock_run, panel, market, play):
    _, result, summary = mock_run
    longer = advise(panel, market, 110, 698, mock_advisor())
    tested = longer.within(505, 698)
    again, other = play(longer, ask_mirrored(tested, panel, mock_advisor()), draws=2)
    np.testing.assert_array_equal(again.equity, result.equity)
    assert other.comparisons == summary.comparisons
    assert other.advisor.mirrored == summary.advisor.mirrored


def test_hybrids_are_compared_when_there_are_any():
    slugs = ["fused", "fused-ablated", "vote", "advisor", "buy-and-hold", "hybrid", "hybrid-ablated"]
    found = [(pair.of, *pair.against) for pair in pairs(slugs)]
    assert found == [
        ("fused", "fused-ablated"),
        ("fused-ablated", "vote"),
        ("advisor", "buy-and-hold"),
        ("hybrid", "vote"),
        ("hybrid", "hybrid-ablated"),
    ]
    assert len(pairs(slugs[:5])) == 3


# --- numbers and words


def test_a_pair_is_the_mean_difference_of_sessions_and_resampled_as_one(mock_run, panel):
    _, result, _ = mock_run
    periods = periods_of(panel, result)
    returns = {slug: session_returns(result.equity[result.row(slug)], periods) for slug in result.slugs}
    draws = ("placebo-drawn-0", "placebo-drawn-1")
    row = compare(result, periods, Pair(Question.DRAWN, "vote", draws), BOOTSTRAP, 3)
    difference = returns["vote"] - (returns[draws[0]] + returns[draws[1]]) / 2
    assert row.difference == pytest.approx(difference.mean() * periods.per_year)
    assert (row.low, row.high) == pytest.approx(mean_interval(difference, periods.per_year, BOOTSTRAP, 3))
    assert row.beaten == np.mean([returns["vote"].mean() > returns[slug].mean() for slug in draws])
    back = compare(result, periods, Pair(Question.ADVICE, "flat", ("vote",)), BOOTSTRAP, 3)
    forth = compare(result, periods, Pair(Question.ADVICE, "vote", ("flat",)), BOOTSTRAP, 3)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    same = compare(result, periods, Pair(Question.ADVICE, "flat", ("flat",)), BOOTSTRAP, 3)
    assert (same.sign, same.difference, same.low, same.high) == (0, 0, None, None)
    assert comparison_sentence(mock_run[2], same) == "flat never differed from flat, so there is nothing to compare."


def test_a_ruined_placebo_is_named_with_its_date(mock_run, panel):
    _, result, summary = mock_run
    pair = next(pair for pair in pairs(result.slugs) if pair.question is Question.SHIFTED)
    row = compare(result, periods_of(panel, result), pair, BOOTSTRAP, 1, {"placebo-shifted-1": date(2003, 1, 2)})
    assert (row.difference, row.sign, row.beaten, row.ruined) == (None, 0, None, "placebo-shifted-1")
    assert comparison_sentence(summary, row).startswith("placebo shifted 1 was ruined on 2003-01-02, so fused (mock advisor) and the same")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "A earned 1.0% to 5.0% a year more than B."),
        (-0.05, -0.01, "A earned 1.0% to 5.0% a year less than B; chance does not explain the loss."),
        (-0.05, 0.02, "A is statistically indistinguishable from B: the interval of the yearly difference, -5.0% to 2.0%, includes zero."),
        (0.0, 0.02, "A is statistically indistinguishable from B: the interval of the yearly difference, 0.0% to 2.0%, includes zero."),
    ],
)
def test_words_follow_the_interval(low, high, words):
    assert difference_sentence("A", "B", low, high) == words


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ([1, 1, 1, 1], "The advice helped"),
        ([1, 1, 0, 1], "not more than with every placebo"),
        ([1, 1, -1, 1], "not more than with every placebo"),
        ([1], "no placebo was run"),
        ([0, 1, 1, 1], "No benefit was shown: results with and without the advice are statistically indistinguishable"),
        ([-1, 1, 1, 1], "The advice cost money"),
    ],
)
def test_help_needs_a_lead_over_no_advice_and_over_every_placebo(mock_run, signs, words):
    rows = [
        Comparison(question=question, of="fused", against=("vote",), difference=0, low=0, high=0, sign=sign, beaten=None)
        for question, sign in zip((Question.ADVICE, *PLACEBOS), signs, strict=False)
    ]
    mock = mock_run[2].model_copy(update={"comparisons": tuple(rows)})
    real = mock.model_copy(update={"advisor": mock.advisor.model_copy(update={"is_mock": False})})
    assert words in conclusion(real)
    assert "mock" not in conclusion(real)
    assert conclusion(mock).endswith("none of this is about a language model.")


def table(actions: list[str], abstained: tuple[int, ...] = ()) -> Signals:
    n = len(actions)
    frame = pd.DataFrame({"bar": range(n), "symbol": "A", "action": actions, "abstained": [i in abstained for i in range(n)], "tokens": 2})
    return Signals(frame, "m", True, 5)


def test_decisions_that_turned_stayed_or_became_hold_are_counted_and_abstentions_are_not():
    was = table(["buy", "sell", "buy", "hold", "sell"] * 10)
    now = table(["sell", "buy", "hold", "buy", "hold"] * 10, abstained=(4, 9))
    found = mirror_of(was, now, BOOTSTRAP, 1)
    assert (found.n, found.n_asked, found.n_abstained, found.tokens) == (38, 50, 2, 100)
    assert (found.turned, found.stayed, found.held) == pytest.approx((20 / 38, 0, 18 / 38))
    assert 0 < found.low < 20 / 38 < found.high
    assert found.sign == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda action, coin: {"buy": "sell", "sell": "buy"}[action], "100% of 60 buy and sell decisions were reversed"),
        (lambda action, coin: action, "remembers, or favours one side"),
        (lambda action, coin: "buy", "statistically indistinguishable"),  # half of the decisions were sales
        (lambda action, coin: "buy" if coin else "sell", "statistically indistinguishable"),
        (lambda action, coin: "hold", "statistically indistinguishable"),
    ],
)
def test_a_reader_turns_round_and_who_remembers_or_guesses_does_not(answer, words):
    random = np.random.default_rng(1)
    was = random.choice(["buy", "sell"], 60).tolist()
    found = mirror_of(table(was), table([answer(action, random.random() < 0.5) for action in was]), BOOTSTRAP, 1)
    assert words in mirror_sentence(found)


def test_who_never_decides_has_nothing_to_turn_round():
    found = mirror_of(table(["hold"] * 5), table(["buy"] * 5), BOOTSTRAP, 1)
    assert (found.n, found.turned) == (0, None)
    assert "nothing to reverse" in mirror_sentence(found)


# --- the page


def test_the_page_is_one_file_that_holds_every_comparison_and_says_what_was_not_done(mock_run, market, panel, play):
    _, result, summary = mock_run
    page = render_advisor_page(result, summary)
    body = page[page.index("<body>") :]
    for row in summary.comparisons:
        assert QUESTIONS[row.question] in body
        assert typeset(comparison_sentence(summary, row)) in body
    for wanted in (
        conclusion(summary),
        mirror_sentence(summary.advisor.mirrored),
        *map(typeset, verdict(summary)),
        "has no memory to probe",
    ):
        assert wanted in body
    assert "none of this is about a language model" in body
    assert len(figures(body)) == 2
    for forbidden in ('src="http', "src='http", "<link", "@import"):
        assert forbidden not in body
    bare = render_advisor_page(*play(scripted(panel, market, knowing(panel)), draws=0))
    for wanted in (
        "No placebo was run",
        "Not asked.",
        "Not probed: run <code>ploutos llm probe</code>",
        "no placebo was run, so its content may not",
    ):
        assert wanted in bare
    assert "How its advice is weighed" not in bare
    assert UNCOUNTED in bare
    assert UNCOUNTED not in page


def test_the_page_shows_a_certificate_spans_and_chosen_fusion_where_there_are_any(mock_run):
    _, result, summary = mock_run
    hits = HitRate(n_choices=3, n=40, hits=10, rate=0.25, low=0.1, high=0.4, chance=0.3, p_value=0.5)
    certificate = Certificate(
        stated=date(2023, 12, 1), grey_months=6, probed=None, effective_cutoff=date(2023, 12, 1), digest_match=True, n_probes=1,
        probed_at=datetime(2026, 1, 2, tzinfo=UTC), reidentification={"symbol": hits},
    )  # fmt: skip
    earned = SpanMetrics(total_return=0.125, sharpe=math.nan, sharpe_low=None, sharpe_high=None)
    span = Span(
        tag=Tag.CONTAMINATED, first=date(2003, 1, 1), last=date(2003, 2, 1), n_sessions=22,
        strategies=dict.fromkeys(summary.strategies, earned),
    )  # fmt: skip
    best = Candidate(llm_weight=0.5, confidence_threshold=0.6, growth=0.001)
    choice = FusionChoice(
        fold=0, calibration=Calibration(slope=0.625), advisor=Calibration(), chosen=best, lead=Lead(best=best), table=(best,)
    )
    advisor = summary.advisor.model_copy(update={"is_mock": False, "certificate": certificate})
    known = summary.model_copy(update={"advisor": advisor, "spans": (span,), "fusion": (choice,)})
    page = render_advisor_page(result, known)
    shown = ("reidentification: symbol: rate", "0.25", "2023-12-01", "contaminated", "12.5%", "not evidence")
    for wanted in (*shown, "<td>0.62 x +0.00</td>", "<td>0.5</td>"):
        assert wanted in page[page.index("<body>") :]
    assert "Not probed" not in page
    assert UNCOUNTED in page
    counted = known.model_copy(update={"spans": (span, span.model_copy(update={"tag": Tag.CLEAN}))})
    assert UNCOUNTED not in render_advisor_page(result, counted)


def test_markup_in_a_models_name_does_no_harm(mock_run):
    _, result, summary = mock_run
    page = render_advisor_page(result, summary.model_copy(update={"advisor": summary.advisor.model_copy(update={"model": "<b>x</b>"})}))
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b><b>x" not in page


def test_a_pair_that_never_differed_has_no_bar_on_the_page(mock_run):
    _, result, summary = mock_run
    first, *others = summary.comparisons
    never = first.model_copy(update={"low": None, "high": None, "sign": 0})
    page = render_advisor_page(result, summary.model_copy(update={"comparisons": (never, *others)}))
    assert f"{names_of(summary)['fused']} never differed from fused without advice" in page
    bars = [sum("error_x" in trace for trace in figures(each)[0]["data"]) for each in (render_advisor_page(result, summary), page)]
    assert bars[0] - bars[1] == 1
