"""`ploutos serve`: everything that one host needs: server, worker, deployments, reports, and someone who looks after them.

The server listens on loopback, asks for a password that lies in a file of the owner's, sends nothing to anyone and shows the UI that can
resume. Server and worker are started again when they die, end with this process however it ends, and runs that are over although the
server says Running are closed. Left out: a second host (a worker there needs an address that this server does not listen on).
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from deployments.reports import Reports
from ploutos.errors import OrchestratorError
from ploutos.hardware.processes import end_with_parent
from ploutos.hardware.threads import capped_environment
from ploutos.store import write_json

HOST = "127.0.0.1"
_STARTING_S, _ENDING_S, _LOOK_S, _SWEEP_S = 120.0, 15.0, 1.0, 15.0
_SOON_S, _TRIES = 20.0, 3
_HUSHED = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
}
SLOTS = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "deployments.leases",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2",
}
"""How the server keeps the leases of slots."""

MANY_TASKS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "500",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
}
"""For runs of many tasks: one transaction a second for all states of task runs, not one for each, and patience, since a statement that
takes too long on a busy machine ends the flow that it is for."""


@dataclass(frozen=True)
class Served:
    """A server of this host that is up, as `serve.json` has it.

    Attributes:
        pid: of the process that looks after it.
        started: of that process, seconds since 1970, which tells it from another one with its number.
        api: address of the API.
    """

    pid: int
    started: float
    api: str

    @property
    def reports(self) -> str:
        """Address of the reports: the next port."""
        address, port = self.api.removesuffix("/api").rsplit(":", 1)
        return f"{address}:{int(port) + 1}"

    @property
    def is_up(self) -> bool:
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Place:
    """Where a host's server keeps its files: a folder under PLOUTOS_HOME."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / "serve"

    def served(self) -> Served | None:
        """The server that is up; None where there is none."""
        try:
            found = Served(**json.loads((self.folder / "serve.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
            return None
        return found if found.is_up else None

    def password(self) -> str:
        """`user:password` of the server, made when it is first asked for; only the owner can read it."""
        file = self.folder / "auth"
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
                handle.write(f"ploutos:{secrets.token_urlsafe(18)}")
        return file.read_text(encoding="utf-8").strip()

    def use(self) -> bool:
        """Let this process speak to the server that is up, if no other one is named; whether there is one."""
        if "PREFECT_API_URL" in os.environ:
            return True
        served = self.served()
        if served is not None:
            os.environ.update(PREFECT_API_URL=served.api, PREFECT_API_AUTH_STRING=self.password())
            os.environ.setdefault("PLOUTOS_REPORTS", served.reports)
        return served is not None


@dataclass
class _Child:
    """A process that is started again when it ends."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.starts.append(time.monotonic())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=end_with_parent, start_new_session=True,
            )  # fmt: skip

    def keep_up(self) -> bool:
        """Start it again if it has ended; whether it was up.

        Raises:
            OrchestratorError: it ends as soon as it is started.
        """
        if self.process is not None and self.process.poll() is None:
            return True
        if len([each for each in self.starts if time.monotonic() - each < _SOON_S]) >= _TRIES:
            raise OrchestratorError(f"the {self.name} exits as soon as it is started; {self.log} says why")
        self.start()
        return False

    def end(self) -> None:
        """Ask it to end, with all that it started, and see to it that they do."""
        if self.process is None:
            return
        try:
            tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        self.process.terminate()
        _, left = psutil.wait_procs(tree, timeout=_ENDING_S)
        for each in left:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=_ENDING_S)
        self.process.wait()


class _Ended(Exception):
    """Somebody asked for the end."""


def serve(home: Path, port: int, database: str | None, say: Callable[[str], None], deploy: Callable[[], object] | None) -> None:
    """Run server and worker until somebody ends it.

    Args:
        home: PLOUTOS_HOME, absolute.
        port: of the server, on loopback; reports are served at the next one.
        database: SQLAlchemy address of a Postgres; None keeps a SQLite file under `home`.
        say: is told what a person should know.
        deploy: tells the server about the deployments; None leaves that out.

    Raises:
        OrchestratorError: one is up already, the port is taken, or a part of it does not start.
    """
    place = Place(home)
    if (up := place.served()) is not None:
        raise OrchestratorError(f"a server is already running at {up.api}, process {up.pid}; stop it with `ploutos serve --stop`")
    api = f"http://{HOST}:{port}/api"
    _refuse_taken(port)
    _refuse_taken(port + 1)
    reports = Reports(home, place.password(), HOST, port + 1)
    server, worker = _children(place, api, port, database)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _raise_ended)
    try:
        server.start()
        _wait_until_healthy(api, server)
        os.environ.update(PREFECT_API_URL=api, PREFECT_API_AUTH_STRING=place.password())
        write_json(place.folder / "serve.json", asdict(Served(os.getpid(), psutil.Process().create_time(), api)))
        _sweep(say)  # what an end of everything has left is said at once, however long the rest takes
        if deploy is not None:
            deploy()
        worker.start()
        reports.start()
        say(f"http://{HOST}:{port} is up, with reports at port {port + 1}; user and password of both are in {place.folder / 'auth'}")
        _look_after(server, worker, api, say)
    except _Ended:
        say("ending")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        reports.end()
        worker.end()
        if server.process is not None and server.process.poll() is None and (place.folder / "serve.json").is_file():
            _sweep(say)
        server.end()
        (place.folder / "serve.json").unlink(missing_ok=True)


def stop(home: Path) -> str:
    """End the server of this host; the sentence that says so.

    Raises:
        OrchestratorError: none is up, or it does not end.
    """
    served = Place(home).served()
    if served is None:
        raise OrchestratorError(f"no server of {home} is running")
    process = psutil.Process(served.pid)
    process.terminate()
    try:
        process.wait(timeout=4 * _ENDING_S)
    except psutil.TimeoutExpired as error:
        raise OrchestratorError(f"process {served.pid} was asked to stop and has not; look at {Place(home).folder}") from error
    return f"the server at {served.api} has ended; runs that were in progress say Crashed; `ploutos resume` continues them"


def systemd_unit(home: Path, port: int) -> str:
    """A unit for systemd that starts the server when the machine starts."""
    return f"""[Unit]
Description=ploutos: Prefect server and worker on this host
After=network-online.target
Wants=network-online.target

[Service]
WorkingDirectory={home.parent}
Environment=PLOUTOS_HOME={home}
ExecStart={sys.executable} -m ploutos serve --port {port}
KillMode=mixed
TimeoutStopSec=90
Restart=on-failure
RestartSec=5

[Install]
WantedBy=default.target
"""


def _children(place: Place, api: str, port: int, database: str | None) -> tuple[_Child, _Child]:
    """Server and worker, not yet started."""
    password = place.password()
    common = os.environ | _HUSHED | {"PREFECT_HOME": str(place.folder / "prefect"), "PREFECT_API_URL": api}
    for_server = {"PREFECT_SERVER_API_AUTH_STRING": password, "PREFECT_SERVER_API_HOST": HOST, "PREFECT_SERVER_API_PORT": str(port)}
    for_server |= SLOTS | MANY_TASKS
    for_server |= {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}", "PREFECT_API_AUTH_STRING": password}
    if database is not None:
        for_server["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    for_worker = capped_environment(1) | {
        "PREFECT_API_AUTH_STRING": password, "PLOUTOS_HOME": str(place.home), "PREFECT_LOGGING_EXTRA_LOGGERS": "ploutos",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_WORKER_WEBSERVER_HOST": HOST, "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PREFECT_CLIENT_MAX_RETRIES": "8", "PLOUTOS_REPORTS": f"http://{HOST}:{port + 1}",
    }  # fmt: skip
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    worker = [sys.executable, "-m", "deployments.worker", "worker", "start", "--pool", "ploutos", "--type", "process"]
    return (
        _Child("server", server, common | for_server, place.folder / "server.log"),
        _Child("worker", worker, common | for_worker, place.folder / "worker.log"),
    )


def _raise_ended(*_: Any) -> None:
    raise _Ended


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise OrchestratorError(f"port {port} is taken by another program; choose another --port")


def _wait_until_healthy(api: str, server: _Child) -> None:
    until = time.monotonic() + _STARTING_S
    while time.monotonic() < until:
        if server.process is not None and server.process.poll() is not None:
            break
        try:
            if httpx.get(f"{api}/health", timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(_LOOK_S)
    raise OrchestratorError(f"the server did not start; {server.log} says why")


def _look_after(server: _Child, worker: _Child, api: str, say: Callable[[str], None]) -> None:
    """Keep both up, and close runs that are over."""
    swept = 0.0
    while True:
        time.sleep(_LOOK_S)
        if not server.keep_up():
            say("the server had stopped and was started again")
            _wait_until_healthy(api, server)
        if not worker.keep_up():
            say("the worker had stopped and was started again")
        if time.monotonic() - swept > _SWEEP_S:
            swept = time.monotonic()
            _sweep(say)


def _sweep(say: Callable[[str], None]) -> None:
    from prefect.client.orchestration import get_client

    from flows.sweep import sweep

    try:
        with get_client(sync_client=True) as client:
            said = sweep(client)
    except httpx.HTTPError as error:
        said = [f"the server did not answer when asked about its runs: {type(error).__name__}"]
    for sentence in said:
        say(sentence)
