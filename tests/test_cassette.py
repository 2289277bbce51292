"""The cassette: one file per answer, whole or not there, the first one stays, and what an answer hangs on is its name."""

import json
import multiprocessing
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


def answers(root: Path) -> list[Path]:
    return sorted((root / "cassettes" / "answers").rglob("*.json"))


def test_an_answer_comes_back_as_it_was_said(cassette, tmp_path):
    recorded = Recorded(text='{"half": "é', truncated=True, prompt_tokens=7, tokens=3, seconds=0.1, load_seconds=0.05)
    assert cassette.find(QUESTION) is None
    assert cassette.keep(QUESTION, recorded) == recorded
    assert Cassette(tmp_path / "cassettes").find(QUESTION) == recorded
    (file,) = answers(tmp_path)
    assert json.loads(file.read_text())["question"]["messages"] == [["user", "?"]]


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


def test_a_damaged_recording_counts_as_missing_and_is_made_again(cassette, tmp_path, caplog):
    cassette.keep(QUESTION, Recorded(text="one"))
    (file,) = answers(tmp_path)
    file.write_bytes(file.read_bytes()[:40])
    assert cassette.find(QUESTION) is None
    assert "is damaged and counts as missing" in caplog.text
    assert cassette.keep(QUESTION, Recorded(text="two")).text == "two"
    assert cassette.find(QUESTION).text == "two"


def test_a_model_that_was_never_asked_cannot_be_replayed(cassette):
    with pytest.raises(LLMError, match=r"has nothing of ollama m, and a replay makes no calls; run once without llm.replay"):
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
    assert len(answers(tmp_path)) == 60
    assert not [path for path in root.rglob("*.tmp*")]
