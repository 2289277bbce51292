"""Ollama's HTTP API over a function: what a model would say is computed from the messages, so that its skill is known.

Shapes are those of `llama.py`. Every chat is recorded, and a model is in memory from its first question until it is told to go.
"""

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TAG = "scripted:latest"


class ScriptedServer(AbstractContextManager["ScriptedServer"]):
    """`with ScriptedServer(answer) as server:` serves on `server.host` until the block ends.

    Args:
        answer: gets the user message and its number; returns what is said: a dict, or text as it is.
        parse: what makes an argument of the message's text.

    Attributes:
        chats: bodies of the questions, in order.
        events: `chat`, `load` and `unload`, in order.
        refuse_after: questions from which on it answers 503.
    """

    def __init__(self, answer: Callable[[Any, int], dict[str, Any] | str], parse: Callable[[str], Any] = json.loads) -> None:
        self.answer, self.parse = answer, parse
        self.chats: list[dict[str, Any]] = []
        self.events: list[str] = []
        self.refuse_after = 10**9
        self.is_loaded = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of": self}))
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "ScriptedServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def respond(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/api/tags":
            return 200, {"models": [{"name": TAG, "model": TAG, "digest": "d" * 64, "size": 1}]}
        if path == "/api/ps":
            return 200, {"models": [{"name": TAG, "model": TAG, "digest": "d" * 64, "size": 1, "size_vram": 1}] if self.is_loaded else []}
        if path == "/api/generate":
            self.is_loaded = body.get("keep_alive") != 0
            self.events.append("load" if self.is_loaded else "unload")
            return 200, {"model": TAG, "created_at": "", "response": "", "done": True, "done_reason": "load"}
        if len(self.chats) >= self.refuse_after:
            return 503, {"error": "the server is going down"}
        self.is_loaded = True
        self.events.append("chat")
        self.chats.append(body)
        user = next(message["content"] for message in body["messages"] if message["role"] == "user")
        said = self.answer(self.parse(user), len(self.chats) - 1)
        text = said if isinstance(said, str) else json.dumps(said)
        return 200, {
            "model": TAG, "created_at": "", "message": {"role": "assistant", "content": text}, "done": True, "done_reason": "stop",
            "prompt_eval_count": 700, "eval_count": 50, "load_duration": 0,
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: ScriptedServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._respond({})

    def do_POST(self) -> None:
        self._respond(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"))

    def _respond(self, body: dict[str, Any]) -> None:
        status, said = self.server_of.respond(self.path, body)
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
