"""Servers that speak OpenAI's chat API each in its own way; what they refuse, and in which words, is from their documentation and issues.

The model behind each says the same thing every time, in the form that this server gives an answer. llama.cpp's own server is in `llama.py`.
"""

import json
import threading
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "a-key"
SAID = '{"action": "sell", "confidence": 64, "reason": "it falls"}'
Answer = tuple[int, dict[str, Any]]


class Dialect(AbstractContextManager["Dialect"]):
    """`with Mistral() as server:` serves on `server.url` until the block ends.

    Attributes:
        model: the one that it has.
        asked: bodies of the questions, in order.
        next: (status, headers, body) of the next questions, first come first served.
    """

    model = "m"
    path = "/v1"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.next: list[tuple[int, dict[str, str], Any]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"dialect": self}))
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.address}{self.path}"

    def __enter__(self) -> "Dialect":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def respond(self, method: str, target: str, headers: Any, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body."""
        parts = urlsplit(target)
        if method == "GET":
            status, said = self.models(headers) if parts.path.endswith("/models") else (404, self.error(404, "not found"))
            return status, {}, said
        self.asked.append(body)
        if self.next:
            return self.next.pop(0)
        status, said = self.refuse(parts.path, parse_qs(parts.query), headers, body) or (200, self.answer(body))
        return status, {}, said

    # --- what differs

    def models(self, headers: Any) -> Answer:
        if not self.knows(headers):
            return 401, self.error(401, "Incorrect API key provided")
        return 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]}

    def knows(self, headers: Any) -> bool:
        """Whether the key is right."""
        return headers.get("Authorization") == f"Bearer {KEY}"

    def refuse(self, path: str, query: dict[str, list[str]], headers: Any, body: dict[str, Any]) -> Answer | None:
        if path != f"{self.path}/chat/completions":
            return 404, self.error(404, f"Invalid URL (POST {path})")
        if not self.knows(headers):
            return 401, self.error(401, "Incorrect API key provided")
        if body["model"] != self.model:
            return 404, self.error(404, f"The model `{body['model']}` does not exist or you do not have access to it.")
        return self.refuse_part(body)

    def refuse_part(self, body: dict[str, Any]) -> Answer | None:
        return None

    def error(self, status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
        return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}

    def message(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"role": "assistant", "content": SAID}

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": "1", "object": "chat.completion", "created": 0, "model": self.model,
            "choices": [{"index": 0, "message": self.message(body), "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 700, "completion_tokens": 40, "total_tokens": 740},
        }  # fmt: skip


class OpenAINow(Dialect):
    """OpenAI's reasoning models: other names, no temperature, and a schema in the strict subset alone."""

    model = "gpt-5-mini"

    def refuse_part(self, body: dict[str, Any]) -> Answer | None:
        if "max_tokens" in body:
            words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
            return 400, self.error(400, words, "max_tokens", "unsupported_parameter")
        if body.get("temperature", 1) != 1:
            words = (
                f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. "
                "Only the default (1) value is supported."
            )
            return 400, self.error(400, words, "temperature", "unsupported_value")
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        for name, field in schema.get("properties", {}).items():
            for rule in ("minimum", "maximum", "maxLength"):
                if rule in field:
                    words = f"Invalid schema for response_format 'answer': In context=('properties', '{name}'), '{rule}' is not permitted."
                    return 400, self.error(400, words, "response_format")
        if schema and schema.get("required") != list(schema["properties"]):
            return 400, self.error(400, "Invalid schema for response_format 'answer': 'required' is required", "response_format")
        return None


class Azure(Dialect):
    """The model is a deployment in the path, the key a header of its own, and what is taken hangs on the api-version."""

    model, path = "my-deployment", "?api-version=2024-06-01"

    def knows(self, headers: Any) -> bool:
        return headers.get("api-key") == KEY

    def refuse(self, path: str, query: dict[str, list[str]], headers: Any, body: dict[str, Any]) -> Answer | None:
        if not self.knows(headers):
            words = "Access denied due to invalid subscription key or wrong API endpoint."
            return 401, {"error": {"code": "401", "message": words}}
        if query.get("api-version") != ["2024-06-01"]:
            return 404, {"error": {"code": "404", "message": "Resource not found"}}
        if path != f"/openai/deployments/{self.model}/chat/completions":
            return 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}
        if body.get("response_format", {}).get("type") == "json_schema":
            words = "response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later"
            return 400, {"error": {"code": "BadRequest", "message": words}}
        if "json" not in json.dumps(body["messages"]).lower():
            words = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
            return 400, self.error(400, words, "messages")
        return None


class Mistral(Dialect):
    """Anything that it does not know is forbidden, `seed` (its `random_seed`) too; content is a list of parts, thoughts among them."""

    model = "magistral-small-latest"
    known = {"model", "messages", "max_tokens", "temperature", "random_seed", "response_format"}

    def refuse_part(self, body: dict[str, Any]) -> Answer | None:
        extra = [name for name in body if name not in self.known]
        detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 0} for name in extra]
        if not extra:
            return None
        return 422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error", "param": None, "code": None}

    def message(self, body: dict[str, Any]) -> dict[str, Any]:
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": '{"action": "buy", "confidence": 9, "reason": "no"}'}]}
        return {"role": "assistant", "content": [thought, {"type": "text", "text": SAID}]}


class Anthropic(Dialect):
    """Ignores formats and seeds, fences its JSON, lists models by other headers, and says 529 when it is overloaded."""

    model = "claude-x"

    def models(self, headers: Any) -> Answer:
        if headers.get("x-api-key") != KEY or "anthropic-version" not in headers:
            return 401, {"type": "error", "error": {"type": "authentication_error", "message": "x-api-key header is required"}}
        return 200, {"data": [{"type": "model", "id": self.model}], "has_more": False}

    def message(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"role": "assistant", "content": f"Here is my decision:\n\n```json\n{SAID}\n```"}

    @staticmethod
    def overloaded() -> tuple[int, dict[str, str], Any]:
        return 529, {"Retry-After": "3"}, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


class VLLM(Dialect):
    """Its error is the whole body, its grammar refuses some bounds, and a reasoning parser may take the answer for a thought."""

    model = "Qwen/Qwen3-8B"

    def knows(self, headers: Any) -> bool:
        return True

    def error(self, status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
        return {"object": "error", "message": message, "type": "BadRequestError", "param": param, "code": status}

    def refuse_part(self, body: dict[str, Any]) -> Answer | None:
        schema = json.dumps(body.get("response_format", {}))
        return (
            (400, self.error(400, "The provided JSON schema contains features not supported by xgrammar."))
            if "maxLength" in schema
            else None
        )

    def message(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "reasoning_content": SAID}


class LMStudio(Dialect):
    """No key; an error is a bare string; `json_object` was never taken, and here the engine has no grammar for `json_schema` either."""

    model = "qwen3-8b-mlx"

    def knows(self, headers: Any) -> bool:
        return "Authorization" not in headers

    def refuse_part(self, body: dict[str, Any]) -> Answer | None:
        kind = body.get("response_format", {}).get("type", "text")
        if kind == "json_schema":
            return 400, {"error": "response_format 'json_schema' is not supported by this model's engine"}
        return None if kind == "text" else (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"})

    def message(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"role": "assistant", "content": f"<think>\nIt fell for a week.\n</think>\n\n{SAID}"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    dialect: Dialect

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(*self.dialect.respond("GET", self.path, self.headers, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self._send(*self.dialect.respond("POST", self.path, self.headers, body))

    def _send(self, status: int, headers: dict[str, str], said: Any) -> None:
        content = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        kind = "text/html" if isinstance(said, str) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
