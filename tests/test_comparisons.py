"""Help told from noise: an advisor that knows the next bars, advisors that know nothing, and the words for both."""

import json

import numpy as np
import pandas as pd
import pytest
from markets import QUALITY, mock_advisor

from ploutos.advisor.advisor import Advisor, advise, prompt_at
from ploutos.advisor.mirror import ask_mirrored
from ploutos.advisor.signals import Signals
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.assess import in_sample, out_of_sample, summarise
from ploutos.evaluation.comparisons import Pair, compare, conclusion, consistency, difference_in_words, is_placebo, pairs
from ploutos.evaluation.metrics import periods_of, session_returns
from ploutos.evaluation.significance import mean_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.llm.backends.base import Reply
from ploutos.llm.config import LLMConfig, LLMProvider
from ploutos.reporting.advisor_page import render_advisor_page
from ploutos.reporting.report import render_report
from ploutos.walk_forward import Range, fold_table

BOOTSTRAP = BootstrapSpec(replications=200)
CADENCE = 5
UNCOUNTED = "so none of this counts for it"
PLACEBOS = ["shuffled in time", "shifted in time", "drawn at random"]


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


def against(summary, label):
    [row] = [row for row in summary["comparisons"] if row["against"].endswith(label) and row["of"] == summary["final"]]
    return row


# --- help and noise


def test_an_advisor_that_knows_the_next_bars_helps_and_beats_every_placebo(panel, market, play):
    result, summary = play(scripted(panel, market, knowing(panel)))
    for label in ("RL vote", *PLACEBOS):
        row = against(summary, label)
        assert row["sign"] == 1
        assert 0 < row["low"] < row["difference"] < row["high"]
        assert "a year more than" in row["sentence"]
        assert row["beaten"] in (None, 1.0)
    assert summary["advisor"]["conclusion"].startswith("The advice helped")
    assert "<b>The advice helped" in render_advisor_page(result, summary)


@pytest.mark.parametrize("lasting", [1, 6])
def test_advisors_that_know_nothing_are_not_said_to_help_however_long_their_advice_lasts(panel, market, play, lasting):
    found = [play(scripted(panel, market, ignorant(seed, lasting)))[1] for seed in range(4)]
    assert not any(summary["advisor"]["conclusion"].startswith("The advice helped") for summary in found)
    signs = [against(summary, "shifted in time")["sign"] for summary in found]
    assert np.count_nonzero(signs) <= 1  # one in twenty is what an interval of 95 % allows


def test_an_advisor_that_is_always_wrong_costs_money(panel, market, play):
    right = knowing(panel)
    _, summary = play(scripted(panel, market, lambda t, s: "sell" if right(t, s) == "buy" else "buy"))
    assert against(summary, "RL vote")["sign"] == -1
    assert "less than RL vote, beyond what luck explains" in against(summary, "RL vote")["sentence"]
    assert summary["advisor"]["conclusion"].startswith("The advice cost money")


# --- placebos in a run


@pytest.fixture(scope="module")
def mock_run(panel, market, play):
    signals = advise(panel, market, 505, 698, mock_advisor())
    return signals, *play(signals, ask_mirrored(signals, panel, mock_advisor()), draws=2)


def test_placebos_have_accounts_and_pairs_and_no_place_among_the_strategies(mock_run, panel, folds):
    _, result, summary = mock_run
    placebos = [name for name in result.names if is_placebo(name)]
    assert placebos == [f"placebo {kind} {draw}" for kind in ("shuffled", "shifted", "drawn") for draw in (0, 1)] + ["placebo mirrored"]
    assert not any(map(is_placebo, summary["strategies"]))
    assert not any(map(is_placebo, summary["folds"][0]["sharpe"]))
    assert [row["draws"] for row in summary["comparisons"]] == [1, 1, 2, 2, 2, 1]
    page = render_report(result, summary, QUALITY, fold_table(tuple(folds), panel.timestamps), [])
    assert not any(name in page for name in placebos)
    assert 'href="advisor.html"' in page
    paths = result.equity[[result.row(name) for name in placebos]]
    assert len(np.unique(paths, axis=0)) == len(placebos)


def test_shifted_advice_trades_about_as_much_as_the_advisor_and_shuffled_advice_trades_more(panel, market, play):
    result, _ = play(scripted(panel, market, ignorant(1, lasting=6)))
    traded = dict(zip(result.names, result.traded[:, -1], strict=True))
    ours = traded["fused (LLM)"]
    share = {kind: np.mean([traded[f"placebo {kind} {draw}"] for draw in range(5)]) / ours for kind in ("shuffled", "shifted", "drawn")}
    assert share["shifted"] == pytest.approx(1, abs=0.3)
    assert min(share["shuffled"], share["drawn"]) > 1.4


def test_placebos_change_no_other_account(mock_run, play):
    signals, result, _ = mock_run
    alone, summary = play(signals, draws=0)
    np.testing.assert_array_equal(result.only(alone.names).equity, alone.equity)
    assert [row["against"] for row in summary["comparisons"]] == ["RL vote", "buy and hold"]
    assert summary["advisor"]["mirrored"] is None


def test_advice_before_the_test_ranges_changes_nothing(mock_run, panel, market, play):
    _, result, summary = mock_run
    longer = advise(panel, market, 110, 698, mock_advisor())
    tested = longer.within(505, 698)
    again, other = play(longer, ask_mirrored(tested, panel, mock_advisor()), draws=2)
    np.testing.assert_array_equal(again.equity, result.equity)
    assert other["comparisons"] == summary["comparisons"]
    assert other["advisor"]["mirrored"] == summary["advisor"]["mirrored"]


def test_hybrids_are_compared_when_there_are_any():
    names = ["f", "v", "a", "b", "hybrid", "hybrid, advice blanked"]
    found = [(pair.of, pair.against) for pair in pairs(names, "f", "v", "a", "b")]
    assert found == [("f", ("v",)), ("a", ("b",)), ("hybrid", ("v",)), ("hybrid", ("hybrid, advice blanked",))]
    assert len(pairs(names[:4], "f", "v", "a", "b")) == 2


# --- numbers and words


def test_a_pair_is_the_mean_difference_of_sessions_and_resampled_as_one(mock_run, panel):
    _, result, _ = mock_run
    periods = periods_of(panel, result)
    returns = {name: session_returns(result.equity[result.row(name)], periods) for name in result.names}
    draws = ("placebo drawn 0", "placebo drawn 1")
    row = compare(result, periods, Pair("?", "RL vote", draws, "chance"), BOOTSTRAP, 3)
    difference = returns["RL vote"] - (returns[draws[0]] + returns[draws[1]]) / 2
    assert row["difference"] == pytest.approx(difference.mean() * periods.per_year)
    assert (row["low"], row["high"]) == pytest.approx(mean_interval(difference, periods.per_year, BOOTSTRAP, 3))
    assert row["beaten"] == np.mean([returns["RL vote"].mean() > returns[name].mean() for name in draws])
    back = compare(result, periods, Pair("?", "flat", ("RL vote",), "RL vote"), BOOTSTRAP, 3)
    forth = compare(result, periods, Pair("?", "RL vote", ("flat",), "cash"), BOOTSTRAP, 3)
    assert (back["low"], back["high"]) == pytest.approx((-forth["high"], -forth["low"]))
    same = compare(result, periods, Pair("?", "flat", ("flat",), "cash"), BOOTSTRAP, 3)
    assert (same["sign"], same["sentence"]) == (0, "flat never differed from cash, so there is nothing to compare.")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "A earned 1.0% to 5.0% a year more than B."),
        (-0.05, -0.01, "A earned 1.0% to 5.0% a year less than B, beyond what luck explains."),
        (-0.05, 0.02, "A cannot be told from B: the yearly difference lies between -5.0% and 2.0%, and zero lies inside."),
        (0.0, 0.02, "A cannot be told from B: the yearly difference lies between 0.0% and 2.0%, and zero lies inside."),
    ],
)
def test_words_follow_the_interval(low, high, words):
    assert difference_in_words("A", "B", low, high) == words


@pytest.mark.parametrize(
    ("signs", "words"),
    [
        ([1, 1, 1, 1], "The advice helped"),
        ([1, 1, 0, 1], "not more than with every placebo"),
        ([1, 1, -1, 1], "not more than with every placebo"),
        ([1], "no placebo was run"),
        ([0, 1, 1, 1], "No help can be shown: with the advice the result cannot be told"),
        ([-1, 1, 1, 1], "The advice cost money"),
    ],
)
def test_help_needs_a_lead_over_no_advice_and_over_every_placebo(signs, words):
    labels = ["RL vote", *(f"the same with {what}" for what in ("its advice shuffled in time", "its advice shifted in time"))]
    labels.append("the same with advice drawn at random")
    rows = [{"against": label, "sign": sign} for label, sign in zip(labels, signs, strict=False)]
    assert words in conclusion(rows, is_mock=False)
    assert "mock" not in conclusion(rows, is_mock=False)
    assert conclusion(rows, is_mock=True).endswith("none of this is about a language model.")


def table(actions: list[str], abstained: tuple[int, ...] = ()) -> Signals:
    n = len(actions)
    frame = pd.DataFrame({"bar": range(n), "symbol": "A", "action": actions, "abstained": [i in abstained for i in range(n)], "tokens": 2})
    return Signals(frame, "m", True, 5)


def test_decisions_that_turned_stayed_or_became_hold_are_counted_and_abstentions_are_not():
    was = table(["buy", "sell", "buy", "hold", "sell"] * 10)
    now = table(["sell", "buy", "hold", "buy", "hold"] * 10, abstained=(4, 9))
    found = consistency(was, now, BOOTSTRAP, 1)
    assert (found["n"], found["n_asked"], found["n_abstained"], found["tokens"]) == (38, 50, 2, 100)
    assert (found["turned"], found["stayed"], found["held"]) == pytest.approx((20 / 38, 0, 18 / 38))
    assert 0 < found["low"] < 20 / 38 < found["high"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda action, coin: {"buy": "sell", "sell": "buy"}[action], "100% of 60 buy and sell decisions turned round"),
        (lambda action, coin: action, "remembers, or leans one way"),
        (lambda action, coin: "buy", "cannot be told from staying"),  # half of the decisions were sales
        (lambda action, coin: "buy" if coin else "sell", "cannot be told from staying"),
        (lambda action, coin: "hold", "cannot be told from staying"),
    ],
)
def test_a_reader_turns_round_and_who_remembers_or_guesses_does_not(answer, words):
    random = np.random.default_rng(1)
    was = random.choice(["buy", "sell"], 60).tolist()
    found = consistency(table(was), table([answer(action, random.random() < 0.5) for action in was]), BOOTSTRAP, 1)
    assert words in found["sentence"]


def test_who_never_decides_has_nothing_to_turn_round():
    found = consistency(table(["hold"] * 5), table(["buy"] * 5), BOOTSTRAP, 1)
    assert found["n"] == 0
    assert "nothing to turn round" in found["sentence"]


# --- the page


def test_the_page_is_one_file_that_holds_every_comparison_and_says_what_was_not_done(mock_run, market, panel, play):
    _, result, summary = mock_run
    page = render_advisor_page(result, summary)
    body = page[page.index("<body>") :]
    for row in summary["comparisons"]:
        assert row["question"] in body
        assert row["sentence"] in body
    for wanted in (
        summary["advisor"]["conclusion"],
        summary["advisor"]["mirrored"]["sentence"],
        *summary["verdict"],
        "has no memory to probe",
    ):
        assert wanted in body
    assert "none of this is about a language model" in body
    assert body.count("plotly-graph-div") == 2
    for forbidden in ('src="http', "src='http", "<link", "@import"):
        assert forbidden not in body
    bare = render_advisor_page(*play(scripted(panel, market, knowing(panel)), draws=0))
    for wanted in (
        "No placebo was run",
        "Not asked.",
        "Not probed: run <code>ploutos llm probe</code>",
        "no placebo was run, so it may not",
    ):
        assert wanted in bare
    assert "How the desk weighs it" not in bare
    assert UNCOUNTED in bare
    assert UNCOUNTED not in page


def test_the_page_shows_a_certificate_spans_and_chosen_fusion_where_there_are_any(mock_run):
    _, result, summary = mock_run
    certificate = {
        "stated": "2023-12-01",
        "probed": None,
        "reidentification": {"symbol": {"rate": 0.25, "low": 0.1, "high": 0.4}},
        "recall": [],
    }
    earned = {name: {"total_return": 0.125, "sharpe": None} for name in summary["strategies"]}
    span = {"tag": "contaminated", "first": "2003-01-01", "last": "2003-02-01", "n_sessions": 22, "strategies": earned}
    known = summary | {
        "advisor": summary["advisor"] | {"is_mock": False, "certificate": certificate},
        "spans": [span],
        "fusion": [{"fold": 0, "llm_weight": 0.5, "scores": [1, 2]}],
    }
    page = render_advisor_page(result, known)
    for wanted in ("reidentification: symbol: rate", "0.25", "2023-12-01", "contaminated", "12.5 %", "no evidence", "llm weight", "0.5"):
        assert wanted in page[page.index("<body>") :]
    assert "Not probed" not in page
    assert UNCOUNTED in page
    assert UNCOUNTED not in render_advisor_page(result, known | {"spans": [span, span | {"tag": "clean"}]})


def test_markup_in_a_models_name_does_no_harm(mock_run):
    _, result, summary = mock_run
    page = render_advisor_page(result, summary | {"advisor": summary["advisor"] | {"model": "<b>x</b>"}})
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b><b>x" not in page


def test_a_pair_that_never_differed_has_no_bar_on_the_page(mock_run):
    _, result, summary = mock_run
    never = replace_first(summary["comparisons"], {"low": None, "high": None, "sign": 0, "sentence": "never differed"})
    assert "never differed" in render_advisor_page(result, summary | {"comparisons": never})


def replace_first(rows: list[dict], changes: dict) -> list[dict]:
    return [rows[0] | changes, *rows[1:]]
