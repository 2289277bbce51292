"""Dated texts: nobody sees one before its moment or by its name; a reader with skill is found, and one without is not."""

import json
import re
from datetime import date
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
from markets import mock_advisor, random_panel
from typer.testing import CliRunner

from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import UNKNOWN, CutoffEvidence
from ploutos.advisor.texts import TEXT_NAMES, TextReader, Texts, anonymise, read_texts, scores_of, text_features
from ploutos.cli.main import app
from ploutos.errors import ConfigError, DataError, LLMError
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.text_skill import bag_of_words, outcomes_of_texts, positions, text_skill
from ploutos.llm.backends.base import Reply
from ploutos.llm.cassette import Cassette
from ploutos.reporting.texts_page import render_texts, text_sentences

HORIZON = 5
BOOTSTRAP = BootstrapSpec(replications=200)


class Reader:
    """A language model to everyone else; what it says of a text is `say(words)`."""

    name, is_mock = "scripted", False

    def __init__(self, say):
        self.say, self.asked = say, []

    def digest(self):
        return "d1"

    def complete(self, messages, schema, seed):
        assert list(schema["properties"]) == ["direction", "horizon", "surprise", "confidence"]
        self.asked.append(messages[1].content)
        said = self.say(messages[1].content)
        return Reply(said if said[:1] == "?" else json.dumps({"direction": said, "horizon": "days", "surprise": 40, "confidence": 80}))


def coin(text: str) -> str:
    return "up" if int(sha256(text.encode()).hexdigest(), 16) % 2 else "down"


def knows(words: str) -> str:
    """Reads the code that a bag of words cannot: each stands in one text alone, and an even one means up."""
    return "up" if int(re.search(r"case (\d+)", words)[1]) % 2 == 0 else "down"


@pytest.fixture(scope="module")
def bars():
    return random_panel(11, n_bars=700, n_symbols=3)


def texts_of(bars, plain: bool = False, right: float = 0.8) -> Texts:
    """A text every other bar about each symbol, known a minute before the close; most codes (or plain words) tell what comes next."""
    random, rows = np.random.default_rng(3), []
    for n, (bar, s) in enumerate((bar, s) for bar in range(20, 680, 2) for s in range(bars.n_symbols)):
        if not (bars.tradable[bar, s] and bars.tradable[bar + 1, s]):
            continue
        rose = bool(bars.mark[bar + HORIZON, s] > bars.open[bar + 1, s])
        told = rose if random.random() < right else not rose
        words = ("orders grew and margins widened" if told else "orders fell and margins shrank") if plain else "a routine filing"
        at = pd.Timestamp(bars.available_at[bar], tz="UTC") - pd.Timedelta(minutes=1)
        rows.append((bars.symbols[s], at, "filing", f"{bars.symbols[s]} reports {words}, case {500_000 + 2 * n + (not told)}."))
    return Texts(pd.DataFrame(rows, columns=["symbol", "available_at", "source", "text"]))


def reader(say, cassette=None, **settings):
    return TextReader(Reader(say), LLMConfig(**settings), cassette, sleep=lambda _: None)


def skill_of(bars, texts, say, known=UNKNOWN, draws=100):
    return text_skill(reader(say).read(texts, bars), bars, HORIZON, known, BOOTSTRAP, 1, model="scripted", draws=draws)


# --- the clock


def test_a_text_made_available_a_second_after_the_decision_is_not_seen(bars):
    close = pd.Timestamp(bars.available_at[100], tz="UTC")
    moments = [close - pd.Timedelta(seconds=1), close, close + pd.Timedelta(seconds=1), pd.Timestamp("2099-01-01", tz="UTC")]
    frame = pd.DataFrame({"symbol": "S0", "available_at": moments, "source": "news", "text": [f"text {i}" for i in range(4)]})
    assert Texts(frame).bars_of(bars).tolist() == [100, 100, 101, bars.n_bars]
    asker = reader(coin)
    readings = asker.read(Texts(frame), bars)
    assert readings["bar"].tolist() == [100, 100, 101]
    assert len(asker.backend.asked) == 3  # what comes after the last bar is not read at all

    def seen(rows):
        return text_features(scores_of(readings.iloc[rows]), bars, 10)[:101]

    np.testing.assert_array_equal(seen([0, 1, 2]), seen([0, 1]))  # at the close of bar 100 the late one is not there
    assert not np.array_equal(text_features(scores_of(readings), bars, 10), text_features(scores_of(readings.iloc[[0, 1]]), bars, 10))


def test_features_stand_for_their_bars_and_give_way_to_what_follows(bars):
    readings = pd.DataFrame(
        {"symbol": ["S1", "S1", "S1"], "bar": [50, 50, 53], "direction": [1, -1, -1], "surprise": [0.2, 0.4, 0.0],
         "confidence": [0.9, 0.5, 0.6], "horizon": ["days", "weeks", "months"], "asked": ["a", "b", "c"]}
    )  # fmt: skip
    values = text_features(scores_of(readings), bars, 4)
    assert values.shape == (bars.n_bars, 3, len(TEXT_NAMES))
    np.testing.assert_allclose(
        values[50:53, 1], [[0.2, 0.3, 0.7, 0.25, 1.0], [0.2, 0.3, 0.7, 0.25, 0.75], [0.2, 0.3, 0.7, 0.25, 0.5]], rtol=1e-6
    )
    np.testing.assert_allclose(values[53:57, 1][:, [0, 3, 4]], [[-0.6, 1, 1], [-0.6, 1, 0.75], [-0.6, 1, 0.5], [-0.6, 1, 0.25]], rtol=1e-6)
    values[50:57, 1] = 0
    assert not values.any()


def test_with_later_texts_and_bars_deleted_features_before_are_the_same(bars):
    readings = reader(coin).read(texts_of(bars), bars)
    past = bars.head(400)
    earlier = reader(coin).read(texts_of(bars), past)
    np.testing.assert_array_equal(text_features(scores_of(readings), bars, 7)[:400], text_features(scores_of(earlier), past, 7))


# --- the file and the words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="available_at"), "has no column available_at; expected symbol, available_at, source, text"),
        (lambda f: f.assign(available_at=f["available_at"].dt.tz_localize(None)), "expected timestamps with a zone"),
        (lambda f: f.assign(text=["a", " "]), "row 1 lacks a symbol, an available_at, a source or a text"),
        (lambda f: f.assign(symbol="XYZ"), "holds no text about S0, S1; found XYZ"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, change, words):
    at = pd.to_datetime(["2020-01-02T21:00Z", "2020-01-01T21:00Z"])
    frame = pd.DataFrame({"symbol": ["S0", "S1"], "available_at": at, "source": "news", "text": ["a", "b"]})
    frame.to_parquet(tmp_path / "texts.parquet")
    assert read_texts(tmp_path / "texts.parquet", ("S0", "S1")).frame["text"].tolist() == ["b", "a"]  # in the order of time
    change(frame).to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=re.escape(words)):
        read_texts(tmp_path / "bad.parquet", ("S0", "S1"))
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_texts(tmp_path / "no.parquet", ("S0", "S1"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("On 2021-05-03 $IBM beat MSFT.", "On DATE ASSET beat OTHER."),
        ("International Business Machines said on 3 May 2021 that INTERNATIONAL grew 12.5%.", "ASSET said on DATE that ASSET grew 12.5%."),
        ("Q2 of FY2022, filed Sept. 4, 2022: 1,500 jobs, $2.5 billion", "Q2 of DATE, filed DATE: 1,500 jobs, $2.5 billion"),
        ("IBMX and aIBM are others; 05/03/2021.", "IBMX and aIBM are others; DATE."),
    ],
)
def test_names_and_dates_are_taken_out_and_numbers_stay(text, shown):
    assert anonymise(text, "IBM", "International Business Machines", ["IBM", "MSFT"]) == shown


def test_what_is_asked_names_nothing_is_cut_to_fit_and_equal_words_are_read_once(bars, tmp_path):
    at = pd.Timestamp(bars.available_at[100], tz="UTC")
    long = "S0 (Acme Corp) won. " + "x" * 9000
    frame = pd.DataFrame({"symbol": ["S0", "S1", "S0"], "available_at": at, "source": "news", "company": ["Acme Corp", "Bolt Inc", None]})
    frame["text"] = ["Acme won in 2003.", "Bolt won in 2004.", long]
    first = reader(coin, Cassette(tmp_path))
    first.read(Texts(frame), bars)
    assert first.backend.asked[0] == "ASSET won in DATE."
    assert len(first.backend.asked) == 2
    assert len(first.backend.asked[1].encode()) < LLMConfig().num_ctx
    again = reader(coin, Cassette(tmp_path))
    again.read(Texts(frame), bars)
    assert again.backend.asked == []
    named = reader(coin, reveal=True)
    named.read(Texts(frame.iloc[:1]), bars)
    assert named.backend.asked == ["S0: Acme won in 2003."]


def test_a_mock_cannot_read_and_too_many_unreadable_answers_end_the_run(bars):
    mock = mock_advisor()
    with pytest.raises(ConfigError, match="a fixed rule that cannot read"):
        TextReader(mock.backend, mock.config).read(texts_of(bars), bars)
    with pytest.raises(LLMError, match="cannot be read"):
        reader(lambda words: "?").read(texts_of(bars), bars)


# --- skill


def test_a_reader_with_skill_beats_shuffled_texts_and_a_bag_of_words_that_cannot_know(bars):
    skill = skill_of(bars, texts_of(bars), knows)
    own, plain = skill.readers
    assert own.right == pytest.approx(0.8, abs=0.05)
    assert (own.sign, skill.more.sign, skill.shuffled.beaten) == (1, 1, 100)
    assert plain.sign == 0
    assert text_sentences(skill)[0] == "scripted reads something in these texts that a bag of words does not."
    page = render_texts(skill)
    assert "bag of words" in page
    assert "more than 100 of 100 shuffles" in page


def test_a_reader_without_skill_is_not_said_to_read_anything(bars):
    found = [skill_of(bars, texts_of(bars, right=0.5), lambda words, k=k: coin(f"{k}{words}"), draws=39) for k in range(3)]
    said = [text_sentences(skill)[0] for skill in found]
    assert sum(each.startswith("Nothing shows that scripted reads anything") for each in said) >= 2
    assert all("in four of five cases" in each for each in said if each.startswith("Nothing"))


def test_where_plain_words_tell_all_a_bag_of_words_does_as_well(bars):
    skill = skill_of(bars, texts_of(bars, plain=True), lambda words: "up" if "grew" in words else "down")
    assert [row.sign for row in skill.readers] == [1, 1]
    assert skill.more.sign == 0
    assert "nothing shows that it reads more than a bag of words" in text_sentences(skill)[0]


def test_a_bag_of_words_learns_from_known_outcomes_alone(bars):
    """Outcomes from its block on are turned round: what it says of that block stays."""
    readings = reader(coin).read(texts_of(bars, plain=True), bars)
    events = outcomes_of_texts(scores_of(readings), bars, HORIZON)
    scores, edge = bag_of_words(events, HORIZON), 30
    assert np.isnan(scores[:edge]).all()
    assert np.isfinite(scores[edge:]).all()
    begin = events["bar"][edge]
    unknown = events["bar"] + HORIZON > begin
    turned = events.assign(outcome=np.where(unknown, -events["outcome"], events["outcome"]))
    second = slice(edge, round(1.25 * edge))
    np.testing.assert_array_equal(bag_of_words(turned, HORIZON)[second], scores[second])
    assert not np.array_equal(bag_of_words(turned, HORIZON)[edge:], scores[edge:])


def test_loudness_is_no_skill_and_what_may_be_memory_is_said(bars):
    np.testing.assert_allclose(positions(np.array([0.1, -0.3, 0.0])), positions(np.array([1.0, -3.0, 0.0])))
    assert positions(np.zeros(3)).tolist() == [0, 0, 0]
    silent = skill_of(bars, texts_of(bars), lambda words: "none")
    assert silent.readers[0].n_said == 0
    assert text_sentences(silent)[0].startswith("Nothing shows")
    remembers = CutoffEvidence(stated=date(2099, 1, 1))
    skill = skill_of(bars, texts_of(bars), knows, known=remembers)
    assert skill.n_counting == 0
    assert any("0 lie on sessions that the model is shown not to remember" in sentence for sentence in text_sentences(skill))
    with pytest.raises(DataError, match="expected 60 or more"):
        skill_of(bars, Texts(texts_of(bars).frame.iloc[:40]), knows)


def test_the_command_writes_page_and_readings_and_refuses_a_mock(tmp_path, monkeypatch, bars):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    monkeypatch.setattr("ploutos.advisor.texts.make_backend", lambda config, settings: Reader(knows))
    monkeypatch.setattr("ploutos.market.loader.load", lambda spec, root: bars)
    texts_of(bars).frame.iloc[:240].to_parquet(tmp_path / "texts.parquet")
    arguments = ["llm", "texts", str(tmp_path / "texts.parquet"), "--out", str(tmp_path / "page.html"), "--draws", "20", "--json"]
    found = CliRunner().invoke(app, [*arguments, "--set", "llm.provider=ollama", "--set", "evaluation.replications=100"])
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["skill"]["shuffled"]["draws"] == 20
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert pd.read_parquet(tmp_path / "page.parquet")["direction"].isin([-1, 0, 1]).all()
    monkeypatch.undo()
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    assert CliRunner().invoke(app, arguments).exit_code != 0
