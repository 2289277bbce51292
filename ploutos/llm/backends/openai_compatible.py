"""Any server with OpenAI's chat API: OpenAI's own, llama.cpp's, vLLM and the like.

The answer's schema goes along as `json_schema`. A server that refuses that is asked once more with `json_object`, then
with no format at all, and what it took is remembered; the schema stands in the prompt in every case. This API has no
way to unload a model: for llama-server use its `--sleep-idle-seconds`.
"""

import time
from typing import Any

import httpx

from ploutos.errors import LLMBusy, LLMError, LLMUnavailable
from ploutos.llm.backends.base import Messages, Reply, Schema, retry_after, timeouts
from ploutos.llm.config import LLMConfig
from ploutos.wording import without, without_password

_URL = "https://api.openai.com/v1"
_BROKEN = {408, 409, 500, 502, 503, 504, 520, 521, 522, 524}
_BUSY = {429, 529}
_MAY_REFUSE_A_FORMAT = {400, 404, 415, 422, 500, 501}
_REFUSED = ("response_format", "json_schema", "json_object")


class OpenAIBackend:
    """One model on one server.

    Args:
        base_url: address up to and including `/v1`; None means OpenAI's own.
        api_key: sent as a bearer token; a server of your own needs none.
    """

    is_mock = False

    def __init__(self, config: LLMConfig, base_url: str | None, api_key: str | None) -> None:
        url = (base_url or _URL).rstrip("/")
        self.base_url = without_password(url)
        self._key = api_key
        self.name = f"{config.model} (OpenAI-compatible)"
        self._config = config
        self._formats = ["json_schema", "json_object", "none"]
        self._http = httpx.Client(
            base_url=url,
            **timeouts(config.timeout_s),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        )

    def digest(self) -> str:
        """Empty: this API tells no content digest, so a model that is replaced under its name goes unnoticed.

        The server is asked for its models all the same, which shows whether it is there and takes the key; one that lists none is taken.
        """
        answer = self._send("GET", "/models")
        if answer.status_code in (401, 403):
            raise self._fault(answer)
        return ""

    def complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        started = time.perf_counter()
        request = {
            "model": self._config.model,
            "messages": [message._asdict() for message in messages],
            "temperature": self._config.temperature,
            "seed": seed,
            "max_tokens": self._config.num_predict,
        }
        while True:
            kind = self._formats[0]
            answer = self._send("POST", "/chat/completions", request | _format(kind, schema))
            if answer.is_success:
                return self._reply(answer, time.perf_counter() - started)
            refused = answer.status_code in _MAY_REFUSE_A_FORMAT and any(word in answer.text for word in _REFUSED)
            if not refused or kind == "none":
                raise self._fault(answer)
            if self._formats[0] == kind:  # another thread may have taken the step already
                self._formats = self._formats[1:]

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise LLMUnavailable(
                f"{self.base_url} did not answer within {self._config.timeout_s:g} s; raise llm.timeout_s or use a smaller model"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LLMUnavailable(f"{self.base_url} cannot be reached; start the server or set OPENAI_BASE_URL") from error

    def _reply(self, answer: httpx.Response, seconds: float) -> Reply:
        try:
            body = answer.json()
            choice, usage = body["choices"][0], body.get("usage") or {}
            return Reply(
                text=choice["message"]["content"] or "",
                truncated=choice["finish_reason"] == "length",
                prompt_tokens=int(usage.get("prompt_tokens") or 0),
                tokens=int(usage.get("completion_tokens") or 0),
                seconds=seconds,
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise LLMUnavailable(f"what answers at {self.base_url} does not speak OpenAI's chat API; look at llm.host") from error

    def _fault(self, answer: httpx.Response) -> LLMError:
        sentence = f"{self.base_url} answered {answer.status_code} to {self._config.model}: {self._message(answer)}"
        if answer.status_code in _BUSY:
            return LLMBusy(sentence, retry_after(answer.headers))
        if answer.status_code in _BROKEN:
            return LLMUnavailable(sentence)
        if answer.status_code in (401, 403):
            return LLMError(f"{sentence}; set OPENAI_API_KEY")
        return LLMError(f"{sentence}; look at llm.model and run: ploutos llm check")

    def _message(self, answer: httpx.Response) -> str:
        try:
            text = str(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            text = answer.text
        text = without(text, self._key)
        return text.strip().splitlines()[0][:200] if text.strip() else "no explanation"


def _format(kind: str, schema: Schema) -> dict[str, Any]:
    """The part of a request that asks for JSON."""
    if kind == "json_schema":
        return {"response_format": {"type": kind, "json_schema": {"name": "answer", "strict": True, "schema": schema}}}
    return {"response_format": {"type": kind}} if kind == "json_object" else {}
