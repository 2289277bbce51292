"""Server and worker of `ploutos serve`, two runs with planted secrets, a network of its own, and what a test wants to know of them.

`unshare --user --map-root-user --net python served_story.py HOME` prints JSON. In that network every address in the world is this host,
so that what anybody sends goes out and arrives, and is written down by its destination; nothing listens there but what the story starts.
"""

import contextlib
import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxSyncClient

from deployments.schedules import after_close

PLANTED = {"APCA_API_KEY_ID": "PLANTEDALPACAKEY", "APCA_API_SECRET_KEY": "planted-alpaca-secret", "OPENAI_API_KEY": "sk-planted-openai"}
IN_ADDRESSES = {"llm": "planted-llm-password", "proxy": "planted-proxy-password"}
SECRETS = PLANTED | IN_ADDRESSES
CANARY = "canary-of-no-secret"
"""Name of a run: what can be found is found."""
PORT = 4200
API = f"http://127.0.0.1:{PORT}"
WITHOUT_ANSWER = "203.0.113.7"
"""An address of documentation, to see that what leaves is seen."""
DEMO = {
    "preset": "demo", "name": CANARY, "source": "sample", "symbols": ["AAPL", "IBM"], "members": 1,
    "folds": {"train_years": 3, "test_months": 96}, "regression": {"models": []},
    "training": {
        "total_timesteps": 256, "timesteps_reduction": 1, "n_envs": 4, "n_steps": 32, "batch_size": 128, "net_arch": [8], "teacher": "none",
    },
    "llm": {"provider": "openai", "model": "polite", "cadence_bars": 400, "mirror": False},
    "evaluation": {"replications": 20, "placebo_draws": 2, "robustness": {"enabled": False}},
    "fusion": {"choose": False}, "hybrid": {"enabled": False}, "pipeline": {"pause_between_phases": 0}, "hardware": {"workers": 1},
}  # fmt: skip
_SERVE = """
import sys
from pathlib import Path
from deployments.serve import serve
serve(Path(sys.argv[1]), int(sys.argv[2]), None, print, None)
"""
_RUNS = """
import json, sys
from flows.dataset import build_dataset
from flows.forms import DatasetForm, PipelineForm
from flows.pipeline import pipeline
demo, bars = map(json.loads, sys.argv[1:])
states = build_dataset(DatasetForm(**bars), return_state=True), pipeline(PipelineForm(**demo), return_state=True)
"""
BARS = {"source": "alpaca", "symbols": ["SPY"], "start": "2024-03-04", "end": "2024-03-05"}


class _Vendors(BaseHTTPRequestHandler):
    """Alpaca, which refuses and repeats every header that it got, and a language model that has one opinion."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self._say(200, {"data": [{"id": "polite"}]})
        else:
            self._say(403, {"message": f"refused: {sorted((name.lower(), value) for name, value in self.headers.items())}"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        advice = json.dumps({"action": "hold", "confidence": 50, "reason": "nothing moves"})
        self._say(200, {"choices": [{"message": {"content": advice}, "finish_reason": "stop"}]})

    def _say(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def vendors() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Vendors)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def sniff(seen: set[str]) -> None:
    """Write down where packets go that are not for loopback."""
    for family in (socket.ntohs(0x0800), socket.ntohs(0x86DD)):
        threading.Thread(target=_sniff, args=(family, seen), daemon=True).start()


def _sniff(family: int, seen: set[str]) -> None:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, family)
    raw.bind(("lo", 0))
    while True:
        packet = raw.recv(2048)
        version = packet[0] >> 4
        kind, address, length = (packet[9], packet[16:20], 4 * (packet[0] & 15)) if version == 4 else (packet[6], packet[24:40], 40)
        to = str(ipaddress.ip_address(address))
        if kind in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) and not ipaddress.ip_address(address).is_loopback:  # the rest is the kernel's
            seen.add(f"{to} port {int.from_bytes(packet[length + 2 : length + 4], 'big')}")


def unanswered(spec: dict[str, Any]) -> dict[str, int]:
    """What every route of the API answers to somebody without a password, and to one with a wrong password."""
    found = {}
    with httpx.Client(base_url=f"{API}/api", timeout=60) as client:
        for path, methods in spec["paths"].items():
            for method in methods:
                for auth in (None, ("ploutos", "wrong")):
                    said = client.request(
                        method, re.sub(r"[{}]", "", path), json={} if method in ("post", "put", "patch") else None, auth=auth
                    )
                    found[f"{method} {path} {'with a wrong password' if auth else 'without one'}"] = said.status_code
    return found


def listening() -> list[str]:
    """Addresses that somebody listens at, as `ss` has them: of this network, so of nobody else."""
    lines = subprocess.run(["ss", "-H", "-l", "-n", "-t", "-u"], capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({line.split()[4] for line in lines})


def holding(folder: Path, words: dict[str, str]) -> dict[str, list[str]]:
    """Files that hold each word."""
    found: dict[str, list[str]] = {name: [] for name in words}
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = file.read_bytes()
        for name, word in words.items():
            if word.encode() in content:
                found[name].append(str(file.relative_to(folder)))
    return found


def errors(log: str) -> list[str]:
    """Errors of a server's log, each with its traceback, but for those of a database that was busy, which its clients ask again."""
    records = re.split(r"^(?=\d\d:\d\d:\d\d\.\d{3} \|)", log, flags=re.MULTILINE)
    return [each for each in records if re.match(r"\S+ \| (ERROR|CRITICAL)", each) and "database is locked" not in each]


def until(holds: Callable[[], object]) -> None:
    limit = time.monotonic() + 600
    while not holds():
        if time.monotonic() > limit:
            raise SystemExit("waited ten minutes in vain")
        time.sleep(0.25)


def story(home: Path) -> dict[str, Any]:
    seen: set[str] = set()
    for command in (
        "ip link set lo up",
        "ip route add local default dev lo table local",
        "ip -6 route add local default dev lo table local",
    ):
        subprocess.run(command.split(), check=True)
    sniff(seen)
    time.sleep(0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"?", (WITHOUT_ANSWER, 53))
    home.mkdir(parents=True)
    with vendors() as url:
        with_password = url.replace("//", f"//ann:{IN_ADDRESSES['llm']}@")
        own = {"PLOUTOS_HOME": str(home), "PLOUTOS_ALPACA_URL": url, "OPENAI_BASE_URL": f"{with_password}/v1"}
        environment = os.environ | PLANTED | {"PLOUTOS_PROXY": f"http://ann:{IN_ADDRESSES['proxy']}@127.0.0.1:9"} | own
        served = start([_SERVE, str(home), str(PORT)], environment, home)
        try:
            return _served(home, served, environment, seen)
        finally:
            served.terminate()
            served.wait(90)


def start(program: list[str], environment: dict[str, str], home: Path) -> "subprocess.Popen[bytes]":
    with (home / "said.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-u", "-c", *program], env=environment, stdout=log, stderr=log, cwd=home)


def _served(home: Path, served: "subprocess.Popen[bytes]", environment: dict[str, str], seen: set[str]) -> dict[str, Any]:
    until(lambda: served.poll() is not None or "is up" in (home / "said.log").read_text())
    password = (home / "serve" / "auth").read_text().strip()
    own = environment | {"PREFECT_API_URL": f"{API}/api", "PREFECT_API_AUTH_STRING": password, "PREFECT_LOGGING_EXTRA_LOGGERS": "ploutos"}
    runs = start([_RUNS, json.dumps(DEMO), json.dumps(BARS)], own, home)
    heard: set[str] = set()
    user, _, secret = password.partition(":")
    with PrefectHttpxSyncClient(base_url=f"{API}/api", auth=(user, secret), timeout=60) as client:  # raises, and asks a busy server again
        answers = unanswered(client.get("openapi.json").json())
        scheduled = nights_ahead(client)
        while runs.poll() is None:
            heard.update(listening())
            time.sleep(0.25)
        found = {name: client.post(f"{name}/filter", json={}).json() for name in ("flow_runs", "artifacts", "logs")}
    served.terminate()
    served.wait(90)  # so that the database is whole
    return {
        "states": {
            each["parameters"]["config"].get("source", ""): (each["state_type"], each["state"]["message"]) for each in found["flow_runs"]
        },
        "scheduled": scheduled,
        "errors": errors((home / "serve" / "server.log").read_text()),
        "artifacts": sorted({each["key"] for each in found["artifacts"] if each["key"]}),
        "answers": answers,
        "listening": sorted(heard),
        "sent": sorted(seen),
        "holding": holding(home, SECRETS | {"server": secret, "canary": CANARY}),
    }


def nights_ahead(client: PrefectHttpxSyncClient) -> list[str]:
    """When the server would start a flow after the close of the NYSE, of itself; it is gone then."""
    rule = after_close("NYSE", 60, date.today())
    schedule = {"active": True, "schedule": {"rrule": rule.rrule, "timezone": rule.timezone}}
    flow = client.post("flows/", json={"name": "night"}).json()["id"]
    made = client.post("deployments/", json={"name": "night", "flow_id": flow, "schedules": [schedule]}).json()["id"]
    asked = {"deployments": {"id": {"any_": [made]}}, "sort": "EXPECTED_START_TIME_ASC"}
    until(lambda: client.post("flow_runs/filter", json=asked).json())
    ahead = [each["expected_start_time"] for each in client.post("flow_runs/filter", json=asked).json()]
    client.delete(f"deployments/{made}")
    client.delete(f"flows/{flow}")
    return ahead


if __name__ == "__main__":
    sys.stdout.write(json.dumps(story(Path(sys.argv[1]))))
