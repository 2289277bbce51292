"""Any server with OpenAI's chat API, by its published client: OpenAI's own, Azure's, Mistral's, Anthropic's, vLLM, LM Studio, llama.cpp's.

Servers differ in what they refuse. What one refuses is left out or put in another way, once for a server and a model, and remembered while
the process lives: `max_completion_tokens` for `max_tokens`; no `temperature`; no `seed`; a schema without bounds, `json_object`, or no
format at all, for `json_schema`. The schema stands in the prompt in every case. Whether a question is asked again is decided in
`ploutos.llm.client`, so the client's own retries are off.

This API has no way to unload a model: for llama-server use its `--sleep-idle-seconds`.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import openai
from openai.types.chat import ChatCompletion

from ploutos.errors import ConfigError, LLMBusy, LLMError, LLMUnavailable
from ploutos.llm.backends import NO_SERVER
from ploutos.llm.backends.base import Messages, Reply, Schema, connect_s, retry_after
from ploutos.llm.config import ClientConfig
from ploutos.wording import without, without_password

_LOG = logging.getLogger(__name__)
_URL = "https://api.openai.com/v1"
_BUSY, _BROKEN = {429, 529}, {408, 409}
_MAY_REFUSE_A_PART = {400, 404, 415, 422, 500, 501}
_PARTS = re.compile(r"\b(max_tokens|temperature|seed|response_format|json_schema|json_object|schema|grammar)\b", re.IGNORECASE)
_RULES = re.compile(r"invalid schema|not permitted|features|minimum|maximum|(min|max)_?(length|items)|additionalProperties", re.IGNORECASE)
_BOUNDS = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "format", "minItems",
    "maxItems", "uniqueItems", "default", "title",
}  # fmt: skip
_FORMATS = ("json_schema", "json_schema without bounds", "json_object", "no format")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Accepted:
    """What a server takes of a request, as far as it has said."""

    format: str = _FORMATS[0]
    length: str = "max_tokens"
    sampling: tuple[str, ...] = ("temperature", "seed")

    def __str__(self) -> str:
        return ", ".join((self.format, self.length, *self.sampling))

    def after(self, refusal: str) -> "Accepted | None":
        """What is left to try; None when nothing was refused that could be left out."""
        for part in _PARTS.findall(refusal):
            if part == "max_tokens" and self.length == part and "max_completion_tokens" in refusal:
                return replace(self, length="max_completion_tokens")
            if part in self.sampling:
                return replace(self, sampling=tuple(name for name in self.sampling if name != part))
            if part not in ("max_tokens", "temperature", "seed") and self.format != _FORMATS[-1]:
                lesser = _FORMATS.index(self.format) + 1
                return replace(self, format=_FORMATS[lesser if _RULES.search(refusal) else max(lesser, 2)])
        return None

    def request(self, config: ClientConfig, messages: Messages, schema: Schema, seed: int) -> dict[str, Any]:
        """The body of a question."""
        sampling = {"temperature": config.temperature, "seed": seed}
        body = {"model": config.model, "messages": [message._asdict() for message in messages], self.length: config.num_predict}
        body |= {name: sampling[name] for name in self.sampling}
        if self.format.startswith("json_schema"):
            asked = schema if self.format == _FORMATS[0] else _without_bounds(schema)
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": asked}}
        elif self.format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body


_ACCEPTED: dict[tuple[str, str], Accepted] = {}
"""By server and model."""


class OpenAIBackend:
    """One model on one server.

    Args:
        base_url: address up to and including `/v1`; None means OpenAI's own. With `?api-version=` it is Azure's, and the model is the
            name of a deployment.
        api_key: a server of your own needs none.

    Raises:
        ConfigError: the address is none.
    """

    is_mock = False

    def __init__(self, config: ClientConfig, base_url: str | None, api_key: str | None) -> None:
        url = (base_url or _URL).rstrip("/")
        self.base_url, self._key = without_password(url), api_key
        self.name = f"{config.model} (OpenAI-compatible)"
        self._config = config
        self._listing = {"x-api-key": api_key, "anthropic-version": "2023-06-01"} if api_key else {"Authorization": openai.Omit()}
        """Anthropic lists models by a header of its own; who has no key sends none."""
        self._asking = {} if api_key else {"Authorization": openai.Omit()}
        self._client = _client(url, api_key, config.timeout_s)

    @property
    def accepted(self) -> Accepted:
        """What the server takes, as far as it has said."""
        return _ACCEPTED.get((self.base_url, self._config.model), Accepted())

    def digest(self) -> str:
        """Empty: this API tells no content digest, so a model that is replaced under its name goes unnoticed.

        The server is asked for its models all the same, which shows whether it is there and takes the key; one that lists none is taken.
        """
        try:
            self._call(lambda: self._client.models.with_raw_response.list(extra_headers=self._listing))
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise self._fault(error) from error
        return ""

    def complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        started = time.perf_counter()
        while True:
            accepted = self.accepted
            body = accepted.request(self._config, messages, schema, seed)
            try:
                answer = self._call(lambda: self._client.chat.completions.create(**body, extra_headers=self._asking))  # noqa: B023 - it is called at once
            except openai.APIStatusError as error:
                lesser = accepted.after(error.response.text) if error.status_code in _MAY_REFUSE_A_PART else None
                if lesser is None:
                    raise self._fault(error) from error
                self._accept_less(accepted, lesser, error)
                continue
            return self._reply(answer, time.perf_counter() - started)

    def _accept_less(self, accepted: Accepted, lesser: Accepted, refusal: openai.APIStatusError) -> None:
        if self.accepted == accepted:  # another thread may have taken the step already
            _ACCEPTED[self.base_url, self._config.model] = lesser
            _LOG.warning("%s said %s; from now on it is asked with %s", self.name, without(_words(refusal), self._key), lesser)

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Make one call; statuses of the server are the caller's matter.

        Raises:
            LLMUnavailable: nobody answers, too late, or something that does not speak this API.
        """
        try:
            return call()
        except openai.APITimeoutError as error:
            raise LLMUnavailable(
                f"{self.base_url} did not answer within {self._config.timeout_s:g} s; raise llm.timeout_s or use a smaller model"
            ) from error
        except openai.APIConnectionError as error:
            raise LLMUnavailable(NO_SERVER.format(self.base_url)) from error
        except (ValueError, openai.APIResponseValidationError) as error:
            raise self._stranger() from error

    def _reply(self, answer: ChatCompletion, seconds: float) -> Reply:
        choices = getattr(answer, "choices", None)
        if not choices:
            said = getattr(answer, "error", None)  # some gateways put it into a good answer
            raise LLMUnavailable(f"{self.base_url} answered {without(_line(said), self._key)}") if said else self._stranger()
        message, usage = choices[0].message, answer.usage
        text, cut = _text(getattr(message, "content", None)), choices[0].finish_reason == "length"
        if not text and not cut:
            text = getattr(message, "reasoning_content", None) or getattr(message, "refusal", None) or ""
        read, written = (0, 0) if usage is None else (usage.prompt_tokens or 0, usage.completion_tokens or 0)
        return Reply(text, cut, read, written, seconds)

    def _stranger(self) -> LLMUnavailable:
        return LLMUnavailable(f"what answers at {self.base_url} does not speak OpenAI's chat API; look at llm.host")

    def _fault(self, error: openai.APIStatusError) -> LLMError:
        sentence = f"{self.base_url} answered {error.status_code} to {self._config.model}: {without(_words(error), self._key)}"
        if error.code == "insufficient_quota":
            return LLMError(f"{sentence}; waiting will not help")
        if error.status_code in _BUSY:
            return LLMBusy(sentence, retry_after(error.response.headers))
        if error.status_code in _BROKEN or (error.status_code >= 500 and error.status_code != 501):
            return LLMUnavailable(sentence)
        remedy = "set OPENAI_API_KEY" if error.status_code in (401, 403) else "look at llm.model and run: ploutos llm check"
        return LLMError(f"{sentence}; {remedy}")


def _client(url: str, key: str | None, timeout_s: float) -> openai.OpenAI:
    """OpenAI's client; for an address with an api-version, Azure's. No connection is kept between two questions, as with `timeouts`.

    Raises:
        ConfigError: the address is none.
    """
    options: dict[str, Any] = {
        "api_key": key or "none", "timeout": openai.Timeout(timeout_s, connect=connect_s(timeout_s)), "max_retries": 0,
        "default_headers": {"Connection": "close"},
    }  # fmt: skip
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError as error:
        raise ConfigError(
            f"llm.host or OPENAI_BASE_URL is {without_password(url)!r}; expected an address such as http://127.0.0.1:8080/v1"
        ) from error
    version = parse_qs(parts.query).get("api-version")
    if version:
        return openai.AzureOpenAI(azure_endpoint=f"{parts.scheme}://{parts.netloc}", api_version=version[0], **options)
    return openai.OpenAI(base_url=url, **options)


def _without_bounds(schema: Any) -> Any:
    """A schema in what OpenAI's strict mode takes: no bounds, every field required, nothing else allowed."""
    if isinstance(schema, list):
        return [_without_bounds(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _without_bounds(value) for name, value in schema.items() if name not in _BOUNDS | {"properties"}}
    if "properties" in schema:
        fields = {name: _without_bounds(field) for name, field in schema["properties"].items()}
        kept |= {"properties": fields, "required": list(fields), "additionalProperties": False}
    return kept


def _text(content: Any) -> str:
    """What was said; of a list of parts, those of text, without the thoughts."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict) and part.get("type") == "text")
    return content or ""


def _words(error: openai.APIStatusError) -> str:
    return _line(error.body or error.response.text)


def _line(said: Any) -> str:
    """The server's own words, wherever it put them, in one line."""
    text = _found(said).strip()
    return text.splitlines()[0][:200] if text else "no explanation"


def _found(said: Any) -> str:
    if isinstance(said, list):
        return "; ".join(_found(each) for each in said)
    if not isinstance(said, dict):
        return str(said)
    where = ".".join(str(part) for part in said.get("loc", ()))
    words = _found(next((said[name] for name in ("error", "message", "detail", "msg") if said.get(name)), ""))
    return f"{where}: {words}" if where else words
