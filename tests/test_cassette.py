"""The cassette: one file, every answer whole or not there, the first one stays, and what an answer hangs on is its name."""

import json
import multiprocessing
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ploutos.errors import LLMError, StoreError
from ploutos.llm.backends.base import Message
from ploutos.llm.cassette import Cassette, Question, Recorded

QUESTION = Question(
    provider="ollama", model="m", model_digest="d", template="2", messages=(Message("user", "?"),), answer_schema={"type": "object"},
    options={"temperature": 0.0, "num_ctx": 4096, "num_predict": 256, "think": None}, seed=0,
)  # fmt: skip


@pytest.fixture
def cassette(tmp_path) -> Cassette:
    return Cassette(tmp_path / "cassettes")


def rows(root: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(root / "cassettes" / "answers.sqlite")) as answers:
        return answers.execute("SELECT key, recorded, question FROM answers").fetchall()


def test_an_answer_comes_back_as_it_was_said(cassette, tmp_path):
    recorded = Recorded(text='{"half": "é', truncated=True, prompt_tokens=7, tokens=3, seconds=0.1, load_seconds=0.05)
    assert cassette.find(QUESTION) is None
    assert cassette.keep(QUESTION, recorded) == recorded
    assert Cassette(tmp_path / "cassettes").find(QUESTION) == recorded
    ((key, _, question),) = rows(tmp_path)
    assert key == QUESTION.key
    assert json.loads(question)["messages"] == [["user", "?"]]


def test_a_cassette_that_another_thread_begins_at_this_moment_holds_nothing_yet(cassette, tmp_path):
    """The first questions of a run that asks several at once: now and then one found the file and no table in it, and the run failed."""
    (tmp_path / "cassettes").mkdir()
    cassette.file.touch()
    assert cassette.find(QUESTION) is None
    with closing(sqlite3.connect(cassette.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, recorded TEXT NOT NULL, question TEXT NOT NULL)")
        assert cassette.find(QUESTION) is None


def test_the_name_of_an_answer_is_what_it_was_in_cassettes_of_before():
    """One that changes would ask every recorded question again."""
    assert QUESTION.key == "57fe0205d59cf5cd0ab41ebdbf8d724daf30021d12c66bc2b722c4f09772f5be"


def test_a_cassette_of_before_answers_and_takes_no_new_files(cassette, tmp_path):
    """Written as it was: a file an answer, with the question in full."""
    old = tmp_path / "cassettes" / "answers" / QUESTION.key[:2] / f"{QUESTION.key}.json"
    old.parent.mkdir(parents=True)
    said = {"text": "one", "truncated": False, "prompt_tokens": 7, "tokens": 3, "seconds": 0.1, "load_seconds": 0.0, "failure": ""}
    old.write_text(json.dumps({"question": QUESTION.model_dump(mode="json"), "recorded": said}, indent=1) + "\n")
    assert cassette.find(QUESTION) == Recorded(**said)
    other = QUESTION.model_copy(update={"seed": 1})
    assert cassette.keep(other, Recorded(text="two")).text == "two"
    assert cassette.find(QUESTION) == Recorded(**said)
    assert cassette.keep(QUESTION, Recorded(text="three")).text == "one"
    assert [key for key, _, _ in rows(tmp_path)] == [other.key]
    old.write_bytes(old.read_bytes()[:40])
    assert cassette.find(QUESTION) is None
    assert cassette.keep(QUESTION, Recorded(text="four")).text == "four"
    assert cassette.find(QUESTION).text == "four"


def test_many_answers_are_one_file(cassette, tmp_path):
    for seed in range(50):
        cassette.keep(QUESTION.model_copy(update={"seed": seed}), Recorded(text=str(seed)))
    cassette.note_model("ollama", "m", "d")
    files = sorted(path.relative_to(tmp_path / "cassettes").parts[0] for path in (tmp_path / "cassettes").rglob("*") if path.is_file())
    assert files == ["answers.sqlite", "models"]


@pytest.mark.parametrize(
    "other",
    [
        {"provider": "openai"}, {"model": "n"}, {"model_digest": "e"}, {"template": "0"}, {"messages": (Message("system", "?"),)},
        {"answer_schema": {"type": "array"}}, {"options": {**QUESTION.options, "num_ctx": 8192}}, {"seed": 1},
    ],
)  # fmt: skip
def test_everything_an_answer_hangs_on_is_in_its_name(cassette, other):
    assert set(Question.model_fields) == {
        "provider", "model", "model_digest", "template", "messages", "answer_schema", "options", "seed"
    }  # fmt: skip
    cassette.keep(QUESTION, Recorded(text="one"))
    assert cassette.find(QUESTION.model_copy(update=other)) is None


def test_the_first_answer_stays_and_a_failure_makes_room_for_one(cassette):
    cassette.keep(QUESTION, Recorded(failure="too slow"))
    assert cassette.find(QUESTION).failure == "too slow"
    assert cassette.keep(QUESTION, Recorded(text="one")).text == "one"
    assert cassette.keep(QUESTION, Recorded(text="two")).text == "one"
    assert cassette.keep(QUESTION, Recorded(failure="gone")).text == "one"


def test_a_damaged_recording_counts_as_missing_and_is_made_again(cassette, caplog):
    cassette.keep(QUESTION, Recorded(text="one"))
    with closing(sqlite3.connect(cassette.file)) as answers, answers:
        answers.execute("UPDATE answers SET recorded = substr(recorded, 1, 10)")
    assert cassette.find(QUESTION) is None
    assert "is damaged and counts as missing" in caplog.text
    assert cassette.keep(QUESTION, Recorded(text="two")).text == "two"
    assert cassette.find(QUESTION).text == "two"


def test_a_file_that_is_no_cassette_is_one_sentence_and_stays_as_it_is(cassette):
    cassette.file.parent.mkdir()
    cassette.file.write_text("my notes " * 100)
    for call in (lambda: cassette.find(QUESTION), lambda: cassette.keep(QUESTION, Recorded(text="one"))):
        with pytest.raises(StoreError, match=r"cannot read or write .*answers.sqlite: file is not a database; restore"):
            call()
    assert cassette.file.read_text() == "my notes " * 100


def test_a_model_that_was_never_asked_cannot_be_replayed(cassette):
    with pytest.raises(LLMError, match=r"has no answers of ollama m, .* run once without llm.replay"):
        cassette.noted_digest("ollama", "m")
    cassette.note_model("ollama", "m", "old")
    cassette.note_model("ollama", "m", "new")
    cassette.note_model("openai", "m", "")
    assert cassette.noted_digest("ollama", "m") == "new"


def test_a_cassette_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write in"):
        Cassette(tmp_path / "file").keep(QUESTION, Recorded(text="one"))


def _write(root: str, name: str) -> list[str]:
    cassette = Cassette(Path(root))
    return [cassette.keep(QUESTION.model_copy(update={"seed": seed}), Recorded(text=f"{name} {seed}")).text for seed in range(60)]


def test_processes_that_record_at_once_agree_on_every_answer_and_leave_nothing_half_written(tmp_path):
    root = tmp_path / "cassettes"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        kept = pool.starmap(_write, [(str(root), name) for name in "ab"])
    assert kept[0] == kept[1]
    assert [Cassette(root).find(QUESTION.model_copy(update={"seed": seed})).text for seed in range(60)] == kept[0]
    assert len(rows(tmp_path)) == 60
    assert [path.name for path in root.iterdir()] == ["answers.sqlite"]


def _write_and_die(root: str) -> None:
    cassette = Cassette(Path(root))
    cassette.keep(QUESTION, Recorded(text="one"))
    with cassette._open() as answers:
        answers.execute("BEGIN IMMEDIATE")
        answers.execute("INSERT INTO answers VALUES ('half', '{}', '{}')")
        os._exit(9)


def test_a_process_that_dies_while_it_records_leaves_the_answers_before_and_no_lock(tmp_path):
    root = tmp_path / "cassettes"
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(str(root),))
    process.start()
    process.join()
    assert process.exitcode == 9
    cassette = Cassette(root)
    assert cassette.find(QUESTION).text == "one"
    cassette.keep(QUESTION.model_copy(update={"seed": 1}), Recorded(text="two"))
    assert len(rows(tmp_path)) == 2
