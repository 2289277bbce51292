"""The cassette: every raw answer of a language model on disk, so that a run can be repeated with the server gone.

One file per answer, named by the digest of all that it depends on: provider, model and its content digest, template
version, messages, schema, options and the seed of this very attempt. Files are moved into place whole, and the first
answer to a question is the one that stays, so several processes may share a cassette. A question that got no answer
leaves nothing here: it is asked again.

Raw text is kept, not what was made of it, so another reader finds the old answers. The mock needs no cassette.
"""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ploutos.errors import LLMError
from ploutos.llm.backends.base import Messages, Schema
from ploutos.store import Store, digest_of, writing

_LOG = logging.getLogger(__name__)


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
    """A file of the cassette: the question in full, for people and for the probe of a digest, and its answer."""

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
    """Recordings under one folder, usually `$PLOUTOS_HOME/cassettes`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = Store(root)

    def find(self, question: Question) -> Recorded | None:
        """What was recorded for a question; None when nothing was, or the file is damaged."""
        file = self._file(question)
        try:
            return _Recording.model_validate_json(file.read_bytes()).recorded
        except FileNotFoundError:
            return None
        except ValidationError:
            _LOG.warning("recording %s is damaged and counts as missing", file)
            return None

    def keep(self, question: Question, recorded: Recorded) -> Recorded:
        """Record an attempt.

        Returns:
            What the cassette holds now: an answer that another process recorded before wins over this one.
        """
        with self._store.locked("cassette"):
            before = self.find(question)
            if before is not None and not before.failure:
                return before
            with writing(self._file(question)) as temporary:
                temporary.write_text(_Recording(question=question, recorded=recorded).model_dump_json(indent=1) + "\n", encoding="utf-8")
        return recorded

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
                f"the cassette in {self._root} has nothing of {provider} {model}, and a replay makes no calls; run once without llm.replay"
            ) from error

    def _file(self, question: Question) -> Path:
        return self._root / "answers" / question.key[:2] / f"{question.key}.json"

    def _model_file(self, provider: str, model: str) -> Path:
        return self._root / "models" / f"{digest_of([provider, model])}.json"
