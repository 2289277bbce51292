"""Ollama's HTTP API, and OpenAI's chat API beside it, over a real llama.cpp in this process.

    python tests/servers/llama.py NAME=FILE.gguf     # serves until it is killed; its first line is its address

Models, loading, unloading, tokens and constrained sampling are real; the HTTP shapes are ours, from Ollama's API
documentation, so this is no substitute for Ollama itself. Left out: streams, pull, push, create, tools, images, thinking.
A test can make it slow, broken, busy or hanging.
"""

import hashlib
import json
import re
import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import xllamacpp

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FOREVER, _DEFAULT_KEEP_ALIVE, _DEFAULT_CONTEXT = 1e9, 300.0, 4096
_NS = 1e9


class Refusal(Exception):
    """An HTTP status and what is said with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _seconds(keep_alive: Any) -> float:
    if keep_alive is None:
        return _DEFAULT_KEEP_ALIVE
    if isinstance(keep_alive, str):
        parts = re.findall(r"([\d.]+)(ms|s|m|h)", keep_alive)
        if not parts:
            raise Refusal(400, f'time: invalid duration "{keep_alive}"')
        keep_alive = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return _FOREVER if keep_alive < 0 else float(keep_alive)


@dataclass
class _Loaded:
    """A model in memory: its engine, its context, and when it is due to go."""

    engine: Any
    num_ctx: int
    expires: float = _FOREVER
    leaving: float | None = None


class LlamaServer(AbstractContextManager["LlamaServer"]):
    """`with LlamaServer({"tiny": path}) as server:` serves on `server.url` until the block ends.

    Attributes:
        requests: (path, body) of every request, in order.
        next_failures: (status, message) for the next questions, first come first served.
        hang_s: seconds that a question waits before anything happens.
        unload_delay_s: seconds that a model stays listed after it was told to go, as with Ollama.
        refused_formats: `response_format` types that the OpenAI side answers with 400.
        loads, unloads: how often a model entered and left memory.
    """

    def __init__(self, models: dict[str, Path]) -> None:
        self.files = {name if ":" in name else f"{name}:latest": Path(file) for name, file in models.items()}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.next_failures: list[tuple[int, str]] = []
        self.refused_formats: set[str] = set()
        self.hang_s = self.unload_delay_s = 0.0
        self.loads = self.unloads = 0
        self._memory: dict[str, _Loaded] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"llama": self}))
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> "LlamaServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; what hangs is let go."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self.crash()

    def serve_forever(self) -> None:
        """Serve in this thread."""
        self._http.serve_forever()

    def crash(self) -> None:
        """Lose every model, as when the process that runs them dies."""
        with self._lock:
            self._memory.clear()

    def called(self, path: str) -> list[dict[str, Any]]:
        """Bodies of the requests to one path."""
        return [body for asked, body in self.requests if asked == path]

    def loaded(self) -> list[str]:
        """Tags in memory now."""
        with self._lock:
            now = time.monotonic()
            for tag, model in list(self._memory.items()):
                if min(model.expires, model.leaving or _FOREVER) <= now:
                    del self._memory[tag]
                    self.unloads += 1
            return list(self._memory)

    # --- what is answered

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            Refusal: the answer is a fault.
        """
        self.requests.append((path, body))
        if path == "/api/tags":
            return {"models": [{**self._describe(tag), "modified_at": "2026-01-01T00:00:00Z"} for tag in self.files]}
        if path == "/api/ps":
            loaded = self.loaded()
            return {"models": [{**self._describe(tag), "size_vram": 0, "context_length": self._memory[tag].num_ctx} for tag in loaded]}
        if path not in ("/api/chat", "/api/generate", "/v1/chat/completions"):
            raise Refusal(404, "404 page not found")
        self._closing.wait(self.hang_s)
        if self.next_failures:
            raise Refusal(*self.next_failures.pop(0))
        asked = body["model"] if ":" in body["model"] else f"{body['model']}:latest"
        tag = next((known for known in self.files if known.casefold() == asked.casefold()), "")
        if not tag:
            raise Refusal(404, f"model '{body['model']}' not found")
        if path == "/v1/chat/completions":
            return self._openai(tag, body)
        return self._chat(tag, body) if path == "/api/chat" else self._load_or_unload(tag, body)

    def _describe(self, tag: str) -> dict[str, Any]:
        content = self.files[tag].read_bytes()
        return {
            "name": tag,
            "model": tag,
            "size": len(content),
            "digest": hashlib.sha256(content).hexdigest(),
            "details": {"format": "gguf"},
        }

    def _load_or_unload(self, tag: str, body: dict[str, Any]) -> dict[str, Any]:
        """`generate` without a prompt: Ollama's way to load, and with keep_alive 0 to unload."""
        keep_alive = _seconds(body.get("keep_alive"))
        if keep_alive == 0:
            with self._lock:
                if tag in self.loaded():
                    self._memory[tag].leaving = time.monotonic() + self.unload_delay_s
            reason = "unload"
        else:
            self._hold(tag, keep_alive, body.get("options") or {})
            reason = "load"
        return {"model": body["model"], "created_at": "", "response": "", "done": True, "done_reason": reason}

    def _chat(self, tag: str, body: dict[str, Any]) -> dict[str, Any]:
        options, started = body.get("options") or {}, time.perf_counter()
        request = {"messages": body["messages"], "max_tokens": options.get("num_predict", -1)}
        request |= {name: options[name] for name in ("temperature", "seed") if name in options}
        if isinstance(body.get("format"), dict):
            request["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": body["format"]}}
        model, load_s = self._hold(tag, _seconds(body.get("keep_alive")), options)
        answer = _complete(model, request)
        choice, usage = answer["choices"][0], answer["usage"]
        return {
            "model": body["model"],
            "created_at": "",
            "message": {"role": "assistant", "content": choice["message"].get("content") or ""},
            "done": True,
            "done_reason": choice["finish_reason"],
            "total_duration": int((time.perf_counter() - started) * _NS),
            "load_duration": int(load_s * _NS),
            "prompt_eval_count": usage["prompt_tokens"],
            "eval_count": usage["completion_tokens"],
        }

    def _openai(self, tag: str, body: dict[str, Any]) -> dict[str, Any]:
        kind = (body.get("response_format") or {}).get("type", "none")
        if kind in self.refused_formats:
            raise Refusal(400, f"response_format type {kind} is not supported")
        model, _ = self._hold(tag, _DEFAULT_KEEP_ALIVE, {})
        return _complete(model, body)

    def _hold(self, tag: str, keep_alive: float, options: dict[str, Any]) -> tuple[_Loaded, float]:
        """The model in memory, loaded if need be (and again for another context), and the seconds that took."""
        started, num_ctx = time.perf_counter(), int(options.get("num_ctx") or _DEFAULT_CONTEXT)
        with self._lock:
            if tag in self.loaded() and self._memory[tag].num_ctx != num_ctx:
                del self._memory[tag]
                self.unloads += 1
            if tag not in self._memory:
                self._memory[tag] = _Loaded(_engine(self.files[tag], num_ctx), num_ctx)
                self.loads += 1
            model = self._memory[tag]
            model.expires, model.leaving = time.monotonic() + keep_alive, None
            return model, time.perf_counter() - started


def _engine(file: Path, num_ctx: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel = num_ctx, 1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.verbosity = False, 0
    return xllamacpp.Server(params)


def _complete(model: _Loaded, request: dict[str, Any]) -> dict[str, Any]:
    answer = model.engine.handle_chat_completions({**request, "stream": False})
    if "choices" not in answer:
        error = answer.get("error", answer)
        raise Refusal(int(error.get("code", 500)), str(error.get("message", error)))
    return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    llama: LlamaServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._respond({})

    def do_POST(self) -> None:
        self._respond(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"))

    def _respond(self, body: dict[str, Any]) -> None:
        try:
            status, said = 200, self.llama.answer(self.path, body)
        except Refusal as refusal:
            native = not self.path.startswith("/v1/")
            status, said = refusal.status, {"error": str(refusal) if native else {"message": str(refusal)}}
        content = json.dumps(said).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            pass  # the client did not wait


if __name__ == "__main__":
    server = LlamaServer(dict([(name, Path(file)) for name, _, file in [sys.argv[1].partition("=")]]))
    sys.stdout.write(f"{server.host}\n")
    sys.stdout.flush()
    server.serve_forever()
