"""Ollama by its published client: schema-constrained answers, and the model's way into memory and out of it.

The client waits for ever by default and raises three families of errors; here every call has a limit and raises ours.
Every call sends the same load-time options, because another `num_ctx` makes Ollama load the model again.
"""

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import ollama

from ploutos.errors import ConfigError, LLMBusy, LLMError, LLMUnavailable
from ploutos.llm.backends import NO_OLLAMA, OLLAMA
from ploutos.llm.backends.base import Messages, Reply, Schema, timeouts
from ploutos.llm.config import ClientConfig
from ploutos.wording import without_password

_LOG = logging.getLogger(__name__)
_BROKEN = {-1, 408, 500, 502, 503, 504}
_BUSY = {429}
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_LOCAL = re.compile(r"(https?://)?(127\.0\.0\.1|localhost|0\.0\.0\.0|\[::1?\])(:\d+)?/?")
Answer = TypeVar("Answer")


class OllamaBackend:
    """One model on one Ollama server.

    Args:
        host: server's address as Ollama's own tools write it; None means 127.0.0.1:11434.
    """

    is_mock = False

    def __init__(self, config: ClientConfig, host: str | None) -> None:
        address = host or OLLAMA
        self.host = without_password(address)
        self.tag = tag_of(config.model)
        self.name = f"{self.tag} (Ollama)"
        self._config = config
        try:
            self._client = ollama.Client(host=address, **timeouts(config.timeout_s))
        except (ValueError, httpx.InvalidURL) as error:
            raise ConfigError(f"llm.host or OLLAMA_HOST is {self.host!r}, which is not an address; write it as 127.0.0.1:11434") from error
        self._options = {"num_ctx": config.num_ctx, "num_predict": config.num_predict, "temperature": config.temperature}
        self._keep_alive = float(config.keep_alive) if _NUMBER.fullmatch(config.keep_alive) else config.keep_alive

    @property
    def is_local(self) -> bool:
        """Whether the server's memory is this host's."""
        return bool(_LOCAL.fullmatch(self.host))

    def digest(self) -> str:
        models = {model.model or "": model.digest or "" for model in self._call(self._client.list).models}
        digests = {tag_of(name).casefold(): digest for name, digest in models.items()}
        if self.tag.casefold() not in digests:
            raise LLMError(
                f"Ollama at {self.host} has no {self.tag}, it has {', '.join(sorted(models)) or 'no model at all'}; "
                f"run: ollama pull {self._config.model}"
            )
        self._warn_of_another_context()
        return digests[self.tag.casefold()]

    def complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        started = time.perf_counter()
        answer = self._call(
            lambda: self._client.chat(
                self.tag,
                [message._asdict() for message in messages],
                format=schema,
                options={**self._options, "seed": seed},
                keep_alive=self._keep_alive,
                think=self._config.think,
            )
        )
        return Reply(
            text=answer.message.content or "",
            truncated=answer.done_reason == "length",
            prompt_tokens=answer.prompt_eval_count or 0,
            tokens=answer.eval_count or 0,
            seconds=time.perf_counter() - started,
            load_seconds=(answer.load_duration or 0) / 1e9,
        )

    def is_loaded(self) -> bool:
        """Whether exactly this tag is in the server's memory."""
        return self._in_memory() is not None

    def _in_memory(self) -> ollama.ProcessResponse.Model | None:
        tag = self.tag.casefold()
        return next((model for model in self._call(self._client.ps).models if tag_of(model.model or "").casefold() == tag), None)

    def _warn_of_another_context(self) -> None:
        """Say that the model is there with another `num_ctx`: whoever asks next, it is loaded again."""
        there = self._in_memory()
        if there is not None and there.context_length and there.context_length != self._config.num_ctx:
            _LOG.warning(
                "%s is in memory with num_ctx %d, and llm.num_ctx is %d: each change loads the model again; give all who ask it the same",
                self.tag, there.context_length, self._config.num_ctx,
            )  # fmt: skip

    def load(self) -> None:
        """Bring the model into memory and wait until it is there."""
        self._call(lambda: self._client.generate(self.tag, keep_alive=self._keep_alive, options=self._options))

    def unload(self) -> None:
        """Ask the server to let go of the model. It answers before the memory is free: look at `is_loaded`."""
        self._call(lambda: self._client.generate(self.tag, keep_alive=0))

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Make one call; what goes wrong becomes one sentence."""
        try:
            return call()
        except httpx.TimeoutException as error:
            raise LLMUnavailable(
                f"Ollama at {self.host} did not answer within {self._config.timeout_s:g} s; raise llm.timeout_s or use a smaller model"
            ) from error
        except (ConnectionError, httpx.HTTPError) as error:
            raise LLMUnavailable(NO_OLLAMA.format(self.host)) from error
        except ollama.ResponseError as error:
            sentence = f"Ollama at {self.host} answered {error.status_code} to {self.tag}: {_first_line(error.error)}"
            if error.status_code in _BUSY:
                raise LLMBusy(sentence) from error
            if error.status_code in _BROKEN:
                raise LLMUnavailable(sentence) from error
            if error.status_code == 404:
                raise LLMError(f"{sentence}; run: ollama pull {self._config.model}") from error
            raise LLMError(f"{sentence}; run: ploutos llm check") from error
        except ValueError as error:  # a body that is no JSON, or JSON of another shape
            raise LLMUnavailable(f"what answers at {self.host} does not speak Ollama's API; look at llm.host and OLLAMA_HOST") from error


def tag_of(model: str) -> str:
    """The exact tag of a model's name, as Ollama lists it: no registry and library of its own, `latest` where no tag stands.

    >>> tag_of("llama3.2"), tag_of("registry.ollama.ai/library/llama3.2:1b"), tag_of("host:5000/a/b")
    ('llama3.2:latest', 'llama3.2:1b', 'host:5000/a/b:latest')
    """
    name = model.strip().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no explanation"
