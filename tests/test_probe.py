"""The probe finds the memory of models whose memory is known: all, up to a month, none; and it is not fooled by habits."""

import json
import re
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
from markets import mock_advisor, random_panel
from servers.llama import LlamaServer
from typer.testing import CliRunner

from ploutos.advisor.advisor import Advisor, prompt_at
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import CutoffStore
from ploutos.advisor.leakage_probe import monthly_moves, power_of, probe, score_recall
from ploutos.advisor.schedule import decision_times
from ploutos.cli.main import app
from ploutos.errors import ConfigError, DataError, LLMError, LLMUnavailable
from ploutos.features.llm_features import market_features
from ploutos.llm.backends.base import Reply
from ploutos.llm.cassette import Cassette
from ploutos.reporting.probe import describe, faults

FIRST, LAST = 400, 1499
MONTH = re.compile(r"asset: (\S+)\nmonth: \w+ \d{4} \((\d{4}-\d{2})\)")
run = CliRunner().invoke


@pytest.fixture(scope="module")
def world():
    """Daily bars of five symbols, 2001 to 2006, and their market features."""
    bars = random_panel(5, n_bars=1500, n_symbols=5)
    return bars, market_features(bars)


def truth_of(bars) -> dict[tuple[str, str], str]:
    """Symbol and month to up or down, by pandas."""
    closes = pd.DataFrame(bars.close, index=pd.DatetimeIndex(bars.timestamps), columns=list(bars.symbols))
    moves = closes.resample("ME").last().diff().iloc[:-1]
    return {(s, f"{day:%Y-%m}"): "up" if move > 0 else "down" for s in moves for day, move in moves[s].dropna().items() if move}


def coin(text: str, choices: list) -> object:
    return choices[int(sha256(text.encode()).hexdigest(), 16) % len(choices)]


class Model:
    """A language model with habits: by default it guesses, from the words of the question alone."""

    name, is_mock = "fake", False

    def __init__(self):
        self.asked = []

    def digest(self):
        return "abc"

    def complete(self, messages, schema, seed):
        self.asked.append((messages, schema))
        answer = {}
        for field, kind in schema["properties"].items():
            if field == "direction":
                answer[field] = self.direction(*MONTH.fullmatch(messages[1].content).groups())
            else:
                answer[field] = self.sighting(field, messages[1].content, kind["enum"])
        return Reply(json.dumps(answer), prompt_tokens=10, tokens=5, seconds=0.1)

    def direction(self, symbol, month):
        return coin(symbol + month, ["up", "down"])

    def sighting(self, field, prompt, choices):
        return coin(field + prompt, sorted(choices))


class Remembers(Model):
    """It knows every month up to its cutoff, and has a habit after it."""

    def __init__(self, truth, cutoff, habit=None):
        super().__init__()
        self.truth, self.cutoff, self.habit = truth, cutoff, habit

    def direction(self, symbol, month):
        return self.truth[symbol, month] if month <= self.cutoff else self.habit or super().direction(symbol, month)


class AlwaysUp(Model):
    def direction(self, symbol, month):
        return "up"


class Recognises(Model):
    """It knows every blind prompt of a run."""

    def __init__(self, bars, market, first, last):
        super().__init__()
        self.seen = {}
        for t, s, _ in decision_times(bars, market, first, last, LLMConfig()):
            prompt = prompt_at(bars, lambda t, s: market[t, s], bars.symbols[s], bars.available_at[t])
            self.seen[prompt[-1].content] = {"symbol": bars.symbols[s], "year": bars.timestamps[t].astype(object).year}

    def sighting(self, field, prompt, choices):
        return self.seen[prompt][field]


class Habit(Model):
    """It picks by place or by name, whatever it is asked."""

    def __init__(self, pick):
        super().__init__()
        self.pick = pick

    def sighting(self, field, prompt, choices):
        return self.pick(choices)


def advisor_of(backend, cassette=None, **settings):
    return Advisor(backend, LLMConfig(**settings), cassette, sleep=lambda _: None)


def probed(world, backend, questions):
    return probe(advisor_of(backend), *world, FIRST, LAST, questions, 1)


def recalled(world, backend, questions=400):
    """A probe that has hardly a blind prompt to show: what it recalls is looked at."""
    return probe(advisor_of(backend), *world, LAST - 4, LAST, questions, 1)


def months_between(a: str, b: str) -> int:
    return abs(int((np.datetime64(a, "M") - np.datetime64(b, "M")).astype(int)))


# --- recall


def test_months_rose_or_fell_as_pandas_says_and_the_last_one_is_not_asked_about(world):
    bars, _ = world
    months, rose = monthly_moves(bars)
    found = {(s, str(m)): ("down", "up")[rose[i, j]] for i, m in enumerate(months) for j, s in enumerate(bars.symbols) if rose[i, j] >= 0}
    assert found == truth_of(bars)
    assert str(months[-1]) == str(bars.timestamps[-1].astype("datetime64[M]") - 1)
    assert not any(month <= "2001-10" for symbol, month in found if symbol == "S2")  # listed in that month


@pytest.mark.parametrize("cutoff", ["2003-01", "2004-06", "2005-12"])
@pytest.mark.parametrize("habit", [None, "up", "down"])
def test_a_model_that_remembers_up_to_a_month_is_dated_within_one_month(world, cutoff, habit):
    recall = recalled(world, Remembers(truth_of(world[0]), cutoff, habit)).recall
    assert recall.p_value < 0.01
    assert months_between(recall.cutoff, cutoff) <= 1
    assert recall.accuracy_before > 0.95
    assert abs(recall.accuracy_after - 0.5) < 0.25


def test_a_model_that_remembers_everything_has_its_cutoff_at_the_end_of_the_range_or_later(world):
    found = recalled(world, Remembers(truth_of(world[0]), "9999-12"))
    last = found.recall.months[-1].month
    assert (found.recall.cutoff, found.recall.accuracy, found.recall.accuracy_after) == (last, 1.0, None)
    assert f"effective cutoff: {last} or later, where the range ends" in describe(found)[-1]


def test_the_power_of_a_probe_is_how_often_it_really_finds_a_memory_out():
    """Models that know a fifth of the months, dated by the probe itself, are found out as often as is said."""
    random = np.random.default_rng(7)
    months = np.arange(np.datetime64("2001-01"), np.datetime64("2001-01") + 60)
    rose = (random.random((60, 6)) < 0.6).astype(int)
    guessed = (random.random((60, 6)) < 0.5).astype(int)
    stated = power_of(months, rose, guessed, 1, 6)
    assert [reach.month for reach in stated.reaches] == ["2001-01", "2002-09", "2004-04", "2005-12"]
    found = 0
    for seed in range(60):
        known = random.random((60, 6)) < 0.2
        scored = score_recall(tuple("ABCDEF"), months, rose, np.where(known, rose, random.random((60, 6)) < 0.5).astype(int), seed)
        found += scored.cutoff is not None and scored.cutoff >= "2005-06"
    assert abs(found / 60 - stated.at("2006-03")) < 3.5 * np.sqrt(0.25 / 60 + 0.25 / 200)
    assert stated.at("2000-12") == 0.0


def test_more_questions_find_out_more():
    random = np.random.default_rng(8)
    months = np.arange(np.datetime64("2001-01"), np.datetime64("2001-01") + 60)
    rose = (random.random((60, 40)) < 0.6).astype(int)
    few, many = (power_of(months, rose[:, :k], np.ones((60, k), dtype=int) * (np.arange(60) % 2)[:, None], 1, 6) for k in (2, 40))
    assert few.at("2006-01") < 0.5 < 0.9 < many.at("2006-01")


def test_a_model_that_guesses_recalls_nothing(world):
    found = recalled(world, Model())
    assert found.recall.cutoff is None
    assert found.recall.p_value > 0.05
    assert found.recall.power.margin_months == 6
    assert re.search(
        r"power: a model that knows 20% of the months up to 2006-08 would be found out by \d+% of such probes", describe(found)[-2]
    )
    assert "it recalls nothing in this range" in describe(found)[-1]
    assert not faults(found, None)


def test_a_model_that_always_says_up_does_not_look_as_if_it_remembered_a_rising_market():
    """Three months in four rise here, so it is right three times in four."""
    bars = random_panel(5, n_bars=1500)
    drift = np.exp(0.003 * np.arange(1500))[:, None]
    bars = replace(bars, **{name: getattr(bars, name) * drift for name in ("open", "high", "low", "close")})
    recall = recalled((bars, market_features(bars)), AlwaysUp()).recall
    assert recall.accuracy == recall.base_rate > 0.7
    assert (recall.balanced_accuracy, recall.said_up, recall.p_value, recall.cutoff) == (0.5, 1.0, 1.0, None)


@pytest.mark.parametrize("together", [False, True])
def test_guesses_are_taken_for_memory_no_more_often_than_the_level_says(together, monkeypatch):
    """Also where all symbols move together and the model has one opinion a month."""
    monkeypatch.setattr("ploutos.advisor.leakage_probe._PERMUTATIONS", 199)
    random = np.random.default_rng(3)
    months = np.arange("2001-01", "2006-01", dtype="datetime64[M]")
    found = 0
    for seed in range(100):
        rose, said = (np.repeat(random.random((60, 1 if together else 4)) < 0.6, 4 if together else 1, axis=1).astype(int) for _ in "ab")
        found += score_recall(("A", "B", "C", "D"), months, rose, said, seed).cutoff is not None
    assert found <= 11  # 5 expected; more than 11 has a chance of 0.4 %


def test_a_weak_memory_is_dated_without_a_lean_whatever_the_habit_after_it(monkeypatch):
    """Seven in ten right for 40 of 67 months in which six in ten rise, then "up" always."""
    monkeypatch.setattr("ploutos.advisor.leakage_probe._PERMUTATIONS", 199)
    random = np.random.default_rng(4)
    months = np.arange("2001-01", "2006-08", dtype="datetime64[M]")
    late = []
    for seed in range(40):
        rose = (random.random((67, 5)) < 0.6).astype(int)
        said = np.where(random.random((67, 5)) < 0.7, rose, 1 - rose)
        said[40:] = 1
        cutoff = score_recall(tuple("ABCDE"), months, rose, said, seed).cutoff
        late.append(int((np.datetime64(cutoff, "M") - months[39]).astype(int)))
    assert abs(np.median(late)) <= 3
    assert np.mean(np.abs(late) <= 12) > 0.8


def test_with_fewer_questions_than_months_the_gap_to_the_next_one_counts_as_recalled(world):
    found = recalled(world, Remembers(truth_of(world[0]), "2004-06"), questions=23).recall
    assert len(found.months) == found.n == 23
    asked = [month.month for month in found.months]
    right_until = max(month for month in asked if month <= "2004-06")
    after = asked[asked.index(right_until) + 1]
    assert months_between(right_until, after) > 1
    assert found.cutoff >= str(np.datetime64(after, "M") - 1)


def test_every_month_is_asked_about_the_same_symbols_and_no_price_or_date_but_the_month_is_shown(world):
    backend = Model()
    found = recalled(world, backend, questions=150)
    asked = [MONTH.fullmatch(messages[1].content).groups() for messages, schema in backend.asked if "direction" in schema["properties"]]
    assert len(found.recall.symbols) == 2  # 67 months go twice into 150
    assert Counter(symbol for symbol, _ in asked).keys() == set(found.recall.symbols)
    assert len(asked) == len(set(asked)) == found.recall.n <= 150


# --- re-identification


def test_what_is_shown_are_the_very_prompts_of_a_run_and_no_name_is_in_them(world):
    bars, market = world
    backend = Model()
    probed(world, backend, questions=200)
    known = Recognises(bars, market, FIRST, LAST).seen
    shown = [messages[1].content for messages, schema in backend.asked if "symbol" in schema["properties"]]
    assert len(shown) == 200
    assert set(shown) <= set(known)
    spread = Counter(known[prompt]["symbol"] for prompt in shown), Counter(known[prompt]["year"] for prompt in shown)
    for counts in spread:
        assert max(counts.values()) <= min(counts.values()) * 1.2
    assert not any(re.search(r"S\d|200\d", prompt) for prompt in shown)


def test_a_model_that_recognises_its_prompts_is_found_out(world):
    found = probed(world, Recognises(*world, FIRST, LAST), questions=60)
    for name, n_choices in (("symbol", 5), ("year", 5)):
        hits = found.reidentification[name]
        assert (hits.n_choices, hits.n, hits.hits, hits.rate, hits.high) == (n_choices, 60, 60, 1.0, 1.0)
        assert hits.low == pytest.approx(0.025 ** (1 / 60))  # Clopper-Pearson with no miss
        assert hits.p_value < 1e-30
    symbol, year = faults(found, None)
    assert symbol.startswith("the model recognises the symbol in 100.0% of 60 blind prompts (94.0% to 100.0%; guessing among 5 gives")
    assert "the year" in year
    assert faults(found, 1.0) == []


@pytest.mark.parametrize("pick", [lambda c: c[0], lambda c: c[-1], min, max], ids=["first", "last", "least", "greatest"])
@pytest.mark.parametrize("questions", [7, 200])
def test_a_favourite_place_or_name_does_not_pass_for_recognition(world, pick, questions):
    found = probed(world, Habit(pick), questions)
    assert faults(found, None) == []
    for hits in found.reidentification.values():
        assert hits.low <= hits.chance
        assert hits.chance >= 1 / hits.n_choices


def test_of_many_symbols_twenty_are_offered_and_the_right_one_is_among_them():
    bars = random_panel(7, n_bars=420, n_symbols=25)
    market = market_features(bars)
    backend = Recognises(bars, market, 300, 400)
    found = probe(advisor_of(backend), bars, market, 300, 400, 50, 1)
    offered = [schema["properties"]["symbol"]["enum"] for _, schema in backend.asked if "symbol" in schema["properties"]]
    assert {len(choices) for choices in offered} == {20}
    assert len({tuple(choices) for choices in offered}) == 50
    assert (found.reidentification["symbol"].rate, found.reidentification["symbol"].chance) == (1.0, 0.05)
    assert "year" not in found.reidentification  # the tests lie in one year: nothing to choose from


def test_where_there_is_nothing_to_choose_from_nothing_is_asked(world):
    bars = random_panel(5, n_bars=40, n_symbols=1)
    with pytest.raises(DataError, match="there is nothing to ask about"):
        probe(advisor_of(Model()), bars, market_features(bars), 30, 39, 10, 1)


# --- the advisor's machinery


def test_the_same_probe_twice_asks_nobody_and_finds_the_same(world, tmp_path):
    found = []
    for settings in ({}, {}, {"replay": True}):
        advisor = advisor_of(Model(), Cassette(tmp_path), **settings)
        found.append(probe(advisor, *world, FIRST, LAST, 20, 1))
        assert advisor.calls == (40 if len(found) == 1 else 0)
    assert len({record.model_copy(update={"probed_at": found[0].probed_at}).model_dump_json() for record in found}) == 1
    assert (found[0].n_asked, found[0].tokens) == (40, 200)


def test_abstentions_are_counted_and_left_out(world):
    class Shy(Recognises):
        def complete(self, messages, schema, seed):
            reply = super().complete(messages, schema, seed)
            return Reply("I would rather not say") if coin(messages[1].content, [True, False]) else reply

    found = probed(world, Shy(*world, FIRST, LAST), questions=60)
    hits = found.reidentification["symbol"]
    assert (found.n_asked, found.n_abstained) == (120, 120 - hits.n - found.recall.n)
    assert 15 < hits.n < 45
    assert hits.rate == 1.0


def test_a_model_that_never_answers_proves_nothing(world):
    class Mute(Model):
        def complete(self, messages, schema, seed):
            return Reply("no")

    with pytest.raises(LLMError, match=r"fake gave no usable answer to 9 questions: .*schema.*run: ploutos llm check"):
        probed(world, Mute(), questions=9)


def test_a_server_that_dies_ends_the_probe_and_the_next_one_asks_nothing_twice(world, tmp_path):
    class Dying(Model):
        def complete(self, messages, schema, seed):
            if len(self.asked) == 12:
                raise LLMUnavailable("gone")
            return super().complete(messages, schema, seed)

    dying, whole = Dying(), Model()
    with pytest.raises(LLMUnavailable, match="gone; 12 of 20 answers are kept"):
        probe(advisor_of(dying, Cassette(tmp_path)), *world, FIRST, LAST, 20, 1)
    probe(advisor_of(whole, Cassette(tmp_path)), *world, FIRST, LAST, 20, 1)
    assert len(whole.asked) == 40 - 12


def test_a_mock_has_no_memory_to_probe(world):
    with pytest.raises(ConfigError, match=r"a fixed rule, which has no memory to probe; name a model, such as --set llm.provider=ollama"):
        probe(mock_advisor(), *world, FIRST, LAST, 10, 1)


# --- the command


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    return tmp_path


def test_the_command_refuses_a_mock_and_simulated_bars_with_code_2(home):
    mock = run(app, ["llm", "probe"])
    assert (mock.exit_code, "no memory to probe" in mock.stderr) == (2, True)
    simulated = run(app, ["llm", "probe", "--source", "synthetic", "--set", "llm.provider=ollama", "--json"])
    assert simulated.exit_code == 2
    assert "nobody can remember simulated bars" in json.loads(simulated.stdout)["message"]


def test_the_command_ends_with_code_1_and_a_sentence_when_the_model_recognises_its_prompts(home, monkeypatch, sample_bars):
    backend = Recognises(sample_bars, market_features(sample_bars), 1000, sample_bars.n_bars - 1)
    monkeypatch.setattr("ploutos.advisor.advisor.make_backend", lambda config, settings: backend)
    arguments = ["llm", "probe", "--questions", "40", "--set", "llm.provider=ollama", "--set", "llm.model=seer"]
    result = run(app, arguments)
    assert result.exit_code == 1, result.stderr
    assert "model: seer abc" in result.stdout
    assert "FAIL the model recognises the symbol in 100.0% of 40 blind prompts" in result.stdout
    assert CutoffStore(home / "llm" / "cutoffs").find("ollama", "seer", "abc") is not None  # what was found is kept all the same
    allowed = run(app, [*arguments, "--set", "llm.max_reidentification=1", "--market", "AAPL,IBM", "--json"])
    assert allowed.exit_code == 0, allowed.stderr
    answer = json.loads(allowed.stdout)
    assert (answer["ok"], answer["symbols"], answer["faults"]) == (True, ["AAPL", "IBM"], [])


def test_a_nonsense_model_on_a_real_server_is_probed_from_end_to_end(home, gguf, monkeypatch):
    """What it says is noise within the grammar; nothing of the path is ours but the shapes of the API."""
    with LlamaServer({"tiny": gguf}) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        arguments = ["llm", "probe", "--questions", "12", "--json", "--set", "llm.provider=ollama", "--set", "llm.model=tiny"]
        result = run(app, arguments)
        asked = server.called("/api/chat")
        again = run(app, arguments)
        assert len(server.called("/api/chat")) == len(asked) >= 24
    answer = json.loads(result.stdout)
    assert result.exit_code == (0 if answer["ok"] else 1)
    assert (answer["n_asked"], answer["n_abstained"]) == (24, 0)  # the grammar holds it to the choices
    assert {name: (hits["n_choices"], hits["n"]) for name, hits in answer["reidentification"].items()} == {
        "symbol": (5, 12),
        "year": (8, 12),
    }
    assert answer["recall"]["n"] == 12
    assert answer["recall"]["p_value"] > 0.01
    assert answer["digest"] == sha256(gguf.read_bytes()).hexdigest()
    assert json.loads(again.stdout) | {"probed_at": ""} == answer | {"probed_at": ""}
    record = CutoffStore(home / "llm" / "cutoffs").find("ollama", "tiny", answer["digest"])
    assert len(record.probes) == 2
