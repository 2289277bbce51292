"""Reports and nights, served to this host's browser: one that has a page of the UI open follows no link to a file.

On loopback, with the server's password, and from the folders `runs` and `nights` alone: no list of what is there, and nothing by a
symbolic link.
"""

import base64
import secrets
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from ploutos.settings import SERVED

_HEADERS = [("x-content-type-options", "nosniff"), ("cache-control", "no-store"), ("referrer-policy", "no-referrer")]


class _WithPassword:
    """Answers who knows the password."""

    def __init__(self, app: ASGIApp, password: str) -> None:
        self._app, self._expected = app, "Basic " + base64.b64encode(password.encode()).decode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = Headers(scope=scope).get("authorization", "")
            if not secrets.compare_digest(given.encode(), self._expected.encode()):
                asks = {"WWW-Authenticate": 'Basic realm="ploutos", charset="UTF-8"'}
                await PlainTextResponse("user and password are in serve/auth of PLOUTOS_HOME", 401, asks)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def make_app(home: Path, password: str) -> ASGIApp:
    """What serves the reports under a home.

    Args:
        password: user:password.
    """
    files = [Mount(f"/{name}", StaticFiles(directory=home / name, check_dir=False)) for name in SERVED]
    return _WithPassword(Starlette(routes=files), password)


class Reports:
    """A server of reports in a thread of this process.

    Args:
        port: on loopback; 0 takes a free one.
    """

    def __init__(self, home: Path, password: str, host: str, port: int) -> None:
        config = uvicorn.Config(
            make_app(home, password), host=host, port=port, headers=_HEADERS, log_level="error", access_log=False, server_header=False,
            lifespan="off",
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="reports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens; nothing before it does."""
        sockets = [each for server in getattr(self._server, "servers", []) for each in server.sockets]
        return [each.getsockname()[:2] for each in sockets]

    def end(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
