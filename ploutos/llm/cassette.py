"""The cassette: every raw answer of a language model on disk, so that a run can be repeated with the server gone.

One SQLite file holds them all, each under the digest of all that it depends on: provider, model and its content digest, template version,
messages, schema, options and the seed of this very attempt. An answer is written whole or not at all, and the first answer to a question is
the one that stays, so several processes may share a cassette. A question that got no answer leaves nothing here: it is asked again.

Raw text is kept, not what was made of it, so another reader finds the old answers. Old cassettes, with one file per answer, are read where
they lie. The mock needs no cassette.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ploutos.errors import LLMError, StoreError
from ploutos.llm.backends.base import Messages, Schema
from ploutos.store import digest_of, writing

_LOG = logging.getLogger(__name__)
_WAIT_S = 60.0
"""For another process that writes."""
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, recorded TEXT NOT NULL, question TEXT NOT NULL)"


class Question(BaseModel):
    """All that one answer depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str
    model_digest: str
    template: str
    messages: Messages
    answer_schema: Schema
    options: dict[str, float | int | bool | str | None]
    seed: int

    @property
    def key(self) -> str:
        """Hex digest that names the recording."""
        return digest_of(self)


class Recorded(BaseModel):
    """One attempt to get an answer; `failure` says why there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = ""
    truncated: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    load_seconds: float = 0.0
    failure: str = ""


class _Recording(BaseModel):
    """A file of an old cassette: the question in full, and its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    recorded: Recorded


class _Model(BaseModel):
    """Which content a model's name stood for when it was last asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    model: str
    digest: str


class Cassette:
    """Recordings under one folder, usually `$PLOUTOS_HOME/cassettes`.

    Attributes:
        file: the answers; `sqlite3 answers.sqlite "SELECT question, recorded FROM answers"` shows them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.file = root / "answers.sqlite"

    def find(self, question: Question) -> Recorded | None:
        """What was recorded for a question; None when nothing was, or the recording is damaged.

        Raises:
            StoreError: the file is none of ours, or damaged as a whole.
        """
        if not self.file.exists():
            return self._read_old(question.key)
        with self._open() as answers:
            if answers.execute("SELECT name FROM sqlite_master").fetchone() is None:  # somebody begins it at this moment
                return self._read_old(question.key)
            return self._read(answers, question.key)

    def keep(self, question: Question, recorded: Recorded) -> Recorded:
        """Record an attempt.

        Returns:
            What the cassette holds now: an answer that another process recorded before wins over this one.

        Raises:
            StoreError: the file cannot be written, is none of ours, or is damaged as a whole.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write in {self._root}: {error.strerror}; choose another PLOUTOS_HOME") from error
        with self._open() as answers:
            answers.execute("BEGIN IMMEDIATE")  # nobody else writes until this has ended
            answers.execute(_TABLE)
            before = self._read(answers, question.key)
            if before is not None and not before.failure:
                recorded = before
            else:
                row = (question.key, recorded.model_dump_json(), question.model_dump_json())
                answers.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
            answers.execute("COMMIT")
        return recorded

    def _read(self, answers: sqlite3.Connection, key: str) -> Recorded | None:
        row = answers.execute("SELECT recorded FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return self._read_old(key)
        try:
            return Recorded.model_validate_json(row[0])
        except ValidationError:
            _LOG.warning("recording %s of %s is damaged and counts as missing", key[:12], self.file)
            return None

    def _read_old(self, key: str) -> Recorded | None:
        """What an old cassette has."""
        file = self._root / "answers" / key[:2] / f"{key}.json"
        try:
            return _Recording.model_validate_json(file.read_bytes()).recorded
        except FileNotFoundError:
            return None
        except ValidationError:
            _LOG.warning("recording %s is damaged and counts as missing", file)
            return None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for the length of a block; what has not been committed then is undone."""
        try:
            with closing(sqlite3.connect(self.file, timeout=_WAIT_S, isolation_level=None)) as answers:
                yield answers
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot read or write {self.file}: {error}; restore an intact copy, or move the file away and everything is asked again"
            ) from error

    def note_model(self, provider: str, model: str, digest: str) -> None:
        """Remember what a model's name stands for, for a replay without its server."""
        noted = _Model(provider=provider, model=model, digest=digest)
        with writing(self._model_file(provider, model)) as temporary:
            temporary.write_text(noted.model_dump_json() + "\n", encoding="utf-8")

    def noted_digest(self, provider: str, model: str) -> str:
        """Digest of a model as it was last asked.

        Raises:
            LLMError: it never was.
        """
        try:
            return _Model.model_validate_json(self._model_file(provider, model).read_bytes()).digest
        except (FileNotFoundError, ValidationError) as error:
            raise LLMError(
                f"the cassette in {self._root} has no answers of {provider} {model}, "
                "and a replay makes no calls; run once without llm.replay"
            ) from error

    def _model_file(self, provider: str, model: str) -> Path:
        return self._root / "models" / f"{digest_of([provider, model])}.json"
