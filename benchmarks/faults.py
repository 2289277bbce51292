"""Faults in the middle of a run under `ploutos serve`, and what becomes of it; `python -m benchmarks.faults --home DIR`.

One server and worker meet the faults one after another; before each, all of the home but the server's own files is removed, so that a run
finds nothing. Counted are the states that the server shows and for how long after the fault the run goes on saying that it is at work, the
finished stages that are computed again, the processes of the home that outlive what started them, and whether everything ends in the bytes
of a run that nothing happened to. A benchmark that is stopped goes on with the next fault.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows.sweep import SILENT

SETTINGS: dict[str, Any] = {
    "preset": "demo", "name": "fault", "source": "sample", "symbols": ["AAPL", "IBM"], "members": 2,
    "folds": {"train_years": 3, "test_months": 60},
    "training": {"total_timesteps": 6_000, "timesteps_reduction": 1, "n_envs": 4, "n_steps": 64, "batch_size": 128, "net_arch": [16]},
    "checkpoint": {"every_rollouts": 4},
    "evaluation": {"replications": 100, "placebo_draws": 20, "robustness": {"enabled": False}},
    "fusion": {"choose": False}, "hybrid": {"enabled": False}, "pipeline": {"pause_between_phases": 0}, "hardware": {"workers": 1},
}  # fmt: skip
AT_WORK = {"RUNNING", "PENDING", "CANCELLING"}
ENDED_BADLY = {"FAILED", "CRASHED", "CANCELLED"}
_LIMIT_S = 1_200.0


@dataclass
class Outcome:
    """What became of a run that a fault met.

    Attributes:
        states: that the server showed after the fault, in order.
        at_work_s: seconds after the fault until the run was Running no more, or Running again because it goes on by itself; None where
            it never stopped.
        resumed: whether somebody had to say `ploutos resume`, or the like.
        finished: stages that were done when the fault came.
        repeated: those of them that were computed again.
        orphans: processes that nobody looked after any more ten seconds after the fault.
        left: processes of this home a minute after the run is over, beside server, worker and what looks after them.
        equal: whether numbers and every artifact have the bytes of the undisturbed run.
        note: what a person was told.
    """

    states: list[str] = field(default_factory=list)
    at_work_s: float | None = None
    resumed: bool = False
    finished: int = 0
    repeated: int = 0
    orphans: int = 0
    left: int = 0
    equal: bool = False
    note: str = ""


class Host:
    """A home with a server, a worker and one run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
            "PLOUTOS_HOME": str(home)
        }
        self.keeper: subprocess.Popen[bytes] | None = None
        self.run_id = ""

    @property
    def tree(self) -> set[int]:
        """What the keeper has started, and what that has."""
        if self.keeper is None or self.keeper.poll() is not None:
            return set()
        return {self.keeper.pid, *(each.pid for each in psutil.Process(self.keeper.pid).children(recursive=True))}

    @property
    def client(self) -> httpx.Client:
        user, _, password = (self.home / "serve" / "auth").read_text().strip().partition(":")
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api", auth=(user, password), timeout=20)

    def up(self) -> None:
        log = (self.home.parent / f"{self.home.name}.log").open("ab")
        before = Path(log.name).read_text().count("is up")
        command = [sys.executable, "-m", "ploutos", "serve", "--port", str(self.port)]
        self.keeper = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.until(lambda: Path(log.name).read_text().count("is up") > before, _LIMIT_S, "the server is up")

    def said(self, path: str) -> Any:
        """An answer of the server; None while it is away."""
        try:
            with self.client as client:
                answer = client.get(path)
                return answer.json() if answer.is_success else None
        except (httpx.HTTPError, OSError):
            return None

    def start(self, deployment: str = "ploutos-pipeline/pipeline") -> None:
        with self.client as client:
            found = client.get(f"deployments/name/{deployment}").raise_for_status().json()
            made = client.post(f"deployments/{found['id']}/create_flow_run", json={"parameters": {"config": SETTINGS}})
            self.run_id = made.raise_for_status().json()["id"]

    def state(self) -> str | None:
        run = self.said(f"flow_runs/{self.run_id}")
        return None if run is None else str(run["state_type"])

    def cancel(self) -> None:
        with self.client as client:
            state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
            client.post(f"flow_runs/{self.run_id}/set_state", json=state).raise_for_status()

    def resume(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ploutos", "resume", self.run_id], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"resume: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def empty(self) -> None:
        """Remove all that earlier runs left, but for the server's own files."""
        for each in self.home.iterdir():
            if each.name != "serve":
                shutil.rmtree(each)

    def down(self) -> None:
        if self.keeper is not None and self.keeper.poll() is None:
            self.keeper.terminate()
            self.keeper.wait(90)

    def keys(self) -> dict[str, tuple[int, str]]:
        """When each finished stage was written, and the artifact that it gave."""
        found = {}
        for file in sorted((self.home / "store" / "keys").glob("*/*.json")):
            found[file.relative_to(self.home).as_posix()] = (file.stat().st_mtime_ns, json.loads(file.read_text())["ref"]["sha256"])
        return found

    def done(self, stage: str) -> int:
        return len(list((self.home / "store" / "keys" / stage).glob("*.json")))

    def checkpoints(self) -> int:
        return sum("checkpoint" in str(each) for each in self.home.rglob("*.zip"))

    def metrics(self) -> set[bytes]:
        """The different numbers that runs of this home ended in: one, if all is well."""
        return {each.read_bytes() for each in (self.home / "runs").glob("*/metrics.json")}

    def left(self) -> int:
        """Processes of this home, a minute after its run is over at most, beside server, worker and what looks after them."""
        limit = time.monotonic() + 60
        while (count := len(self._others())) and time.monotonic() < limit:
            time.sleep(1)
        return count

    def _others(self) -> list[psutil.Process]:
        assert self.keeper is not None
        server = self.server()
        looked_after = {self.keeper.pid, self.worker().pid, server.pid, *(each.pid for each in server.children(recursive=True))}
        return [each for each in self.processes() if each.pid not in looked_after]

    def processes(self) -> list[psutil.Process]:
        """Every process that works for this home."""
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get("PLOUTOS_HOME") == str(self.home) and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
        return found

    def flow(self) -> psutil.Process:
        """The process of the run: a child of the worker."""
        return next(each for each in self.worker().children() if "prefect" in " ".join(each.cmdline()))

    def server(self) -> psutil.Process:
        return self._part("server")

    def worker(self) -> psutil.Process:
        return self._part("worker")

    def trainer(self) -> psutil.Process:
        """A process that trains: the busiest of the run's children."""
        children = self.flow().children(recursive=True)
        return max(children, key=lambda each: sum(each.cpu_times()[:2]))

    def until(self, holds: Callable[[], Any], limit: float, what: str) -> float:
        """Wait; the seconds that it took."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > limit:
                raise SystemExit(f"{self.home.name}: waited {limit:.0f} s for this: {what}")
            time.sleep(0.25)
        return time.monotonic() - began

    def in_training(self) -> None:
        """Wait until one policy is finished and another has written a checkpoint."""
        self._under_way(lambda: self.done("policy") >= 1 and self.checkpoints(), "a policy is trained, another one half")

    def in_evaluation(self) -> None:
        """Wait until everything is trained and the advice is there."""
        self._under_way(lambda: self.done("signals") >= 1, "the advice is there")

    def _under_way(self, holds: Callable[[], Any], what: str) -> None:
        """Wait for something in a run that goes well."""
        self.until(lambda: holds() or self.state() in ENDED_BADLY, _LIMIT_S, what)
        if not holds():
            raise SystemExit(f"{self.home.name}: the run said {self.state()} before this: {what}")

    def _part(self, name: str) -> psutil.Process:
        assert self.keeper is not None
        return next(each for each in psutil.Process(self.keeper.pid).children() if f" {name} start" in " ".join(each.cmdline()))


def kill(*processes: psutil.Process) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(each.pid, signal.SIGKILL)


def flow_killed(host: Host) -> None:
    kill(host.flow())


def flow_asked_to_end(host: Host) -> None:
    host.flow().terminate()


def worker_killed(host: Host) -> None:
    kill(host.worker())


def worker_and_flow_killed(host: Host) -> None:
    flow = host.flow()
    kill(host.worker(), flow)


def server_killed(host: Host) -> None:
    kill(host.server())


def server_away(host: Host, seconds: float) -> None:
    server = host.server()
    parts = [server, *server.children(recursive=True)]
    for each in parts:
        each.suspend()
    time.sleep(seconds)
    for each in parts:
        each.resume()


def server_away_shortly(host: Host) -> None:
    server_away(host, 20)


def server_away_long(host: Host) -> None:
    server_away(host, 150)


def server_gone(host: Host) -> None:
    """Connections are refused, and who would start the server again is held for 150 s."""
    assert host.keeper is not None
    keeper, server = psutil.Process(host.keeper.pid), host.server()
    keeper.suspend()
    kill(server, *server.children(recursive=True))
    time.sleep(150)
    keeper.resume()


def keeper_killed(host: Host) -> None:
    assert host.keeper is not None
    host.keeper.kill()
    host.keeper.wait()
    time.sleep(10)
    host.up()


def all_killed(host: Host) -> None:
    """As if the power had gone."""
    kill(*host.processes())
    assert host.keeper is not None
    host.keeper.wait()
    host.up()


def trainer_killed(host: Host) -> None:
    kill(host.trainer())


def cancelled(host: Host) -> None:
    host.cancel()


def artifact_deleted(host: Host) -> None:
    kill(host.flow())
    _features(host).unlink()


def artifact_damaged(host: Host) -> None:
    kill(host.flow())
    file = _features(host)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def checkpoint_damaged(host: Host) -> None:
    kill(host.flow())
    for each in host.home.rglob("*.zip"):
        if "checkpoint" in str(each):
            each.write_bytes(each.read_bytes()[:100])


def disk_full(host: Host) -> None:
    """The store lies on a disk of its own, which another program fills."""
    filler = host.home / "store" / "filler"
    free = shutil.disk_usage(host.home / "store").free
    with contextlib.suppress(OSError), filler.open("wb") as file:
        for _ in range(free // 65_536 + 2):
            file.write(bytes(65_536))
    host.until(lambda: host.state() in ENDED_BADLY, _LIMIT_S, "a full disk ends the run")
    filler.unlink()


def started_twice(host: Host) -> None:
    """The same run a second time while the first is under way."""
    first = host.run_id
    host.start("ploutos-pipeline/demo")
    second, host.run_id = host.run_id, first
    host.until(lambda: (host.said(f"flow_runs/{second}") or {}).get("state_type") == "COMPLETED", _LIMIT_S, "the second run completes")


def _features(host: Host) -> Path:
    (key,) = (host.home / "store" / "keys" / "features").glob("*.json")
    return host.home / "store" / str(json.loads(key.read_text())["ref"]["path"])


FAULTS: dict[str, tuple[str, Callable[[Host], None]]] = {
    "flow-killed": ("flow killed in training (`kill -9`)", flow_killed),
    "flow-killed-late": ("flow killed in evaluation", flow_killed),
    "flow-terminated": ("flow told to end (SIGTERM)", flow_asked_to_end),
    "worker-killed": ("worker killed", worker_killed),
    "worker-and-flow": ("worker and flow killed", worker_and_flow_killed),
    "server-killed": ("server killed", server_killed),
    "server-20": ("server away for 20 s", server_away_shortly),
    "server-150": ("server away for 150 s", server_away_long),
    "server-gone": ("server killed and gone for 150 s", server_gone),
    "keeper-killed": ("`ploutos serve` killed, started again", keeper_killed),
    "power": ("everything killed at once, as by a power cut", all_killed),
    "trainer-killed": ("a training process killed", trainer_killed),
    "cancelled": ("cancelled in the UI", cancelled),
    "artifact-deleted": ("flow killed, an artifact deleted", artifact_deleted),
    "artifact-damaged": ("flow killed, an artifact cut in half", artifact_damaged),
    "checkpoint-damaged": ("flow killed, every checkpoint damaged", checkpoint_damaged),
    "disk-full": ("disk full", disk_full),
    "twice": ("the same run started twice", started_twice),
}


@contextlib.contextmanager
def hosted(home: Path) -> Iterator[Host]:
    """A home with a server, and nothing left of its processes afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    host = Host(home)
    try:
        host.up()
        yield host
    finally:
        host.down()
        kill(*host.processes())


@contextlib.contextmanager
def on_a_small_disk(folder: Path) -> Iterator[None]:
    """The folder lies on a disk of 200 MB of its own."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def undisturbed(host: Host) -> dict[str, Any]:
    """Numbers, artifacts and seconds of a run that nothing happens to."""
    host.empty()
    host.start()
    seconds = host.until(lambda: host.state() == "COMPLETED", _LIMIT_S, "an undisturbed run completes")
    return {"metrics": host.metrics().pop().decode(), "keys": {key: sha for key, (_, sha) in host.keys().items()}, "seconds": seconds}


def meet(host: Host, name: str, whole: dict[str, Any]) -> Outcome:
    """A run that a fault meets."""
    outcome = Outcome()
    host.empty()
    with on_a_small_disk(host.home / "store") if name == "disk-full" else contextlib.nullcontext():
        host.start()
        if name == "flow-killed-late":
            host.in_evaluation()
        else:
            host.in_training()
        before = host.keys()
        outcome.finished = len(before)
        began = time.monotonic()
        FAULTS[name][1](host)
        if name in ("artifact-deleted", "artifact-damaged"):
            before = {key: value for key, value in before.items() if "/features/" not in key}
        outcome.at_work_s = _watch(host, outcome, began)
        known = host.tree
        outcome.orphans = sum(each.pid not in known for each in host.processes())
        if outcome.states[-1] in ENDED_BADLY:
            run = host.said(f"flow_runs/{host.run_id}")
            outcome.note = " ".join(str(run["state"].get("message") or "").split())[:160]
            outcome.resumed = True
            host.resume()
            host.until(lambda: host.state() == "COMPLETED", _LIMIT_S, "the run completes after all")
        after = host.keys()
        outcome.repeated = sum(after[key][0] != written for key, (written, _) in before.items())
        outcome.equal = host.metrics() == {whole["metrics"].encode()} and {key: sha for key, (_, sha) in after.items()} == whole["keys"]
        outcome.left = host.left()
    return outcome


def _watch(host: Host, outcome: Outcome, began: float) -> float | None:
    """Follow the run to an end, good or bad; the seconds until it said something else than being at work, None if it went on."""
    limit = time.monotonic() + _LIMIT_S
    while time.monotonic() < limit:
        state = host.state()
        shown = "away" if state is None else state
        if not outcome.states or outcome.states[-1] != shown:
            outcome.states.append(shown)
        if state in ENDED_BADLY:
            seconds = time.monotonic() - began
            if _was_put_right(host):
                continue
            time.sleep(max(0.0, 10 - seconds))
            return seconds
        if state == "COMPLETED":
            return None
        time.sleep(0.25)
    raise SystemExit(f"{host.home.name}: still {outcome.states[-1]} after {_LIMIT_S:.0f} s")


def _was_put_right(host: Host) -> bool:
    """Whether a run that a server which was away took for dead says within a minute that it is not."""
    run = host.said(f"flow_runs/{host.run_id}")
    if run is None or not (run["state"].get("message") or "").startswith(SILENT):
        return False
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        if host.state() not in ENDED_BADLY:
            return True
        time.sleep(0.25)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="folder to keep everything in")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS), metavar="FAULT", help=", ".join(FAULTS))
    asked = parser.parse_args()
    folder: Path = asked.home.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    todo = [name for name in asked.faults if not (folder / f"{name}.json").exists()]
    if todo:
        with hosted(folder / "home") as host:
            kept = folder / "undisturbed.json"
            if not kept.exists():
                kept.write_text(json.dumps(undisturbed(host)))
            for name in todo:
                (folder / f"{name}.json").write_text(json.dumps(asdict(meet(host, name, json.loads(kept.read_text())))))
                print(row(folder, name), flush=True)
    whole = json.loads((folder / "undisturbed.json").read_text())
    print(f"\nundisturbed: {whole['seconds']:.0f} s, {len(whole['keys'])} stages\n")
    columns = [
        "fault",
        "states shown",
        "s until it says so",
        "resumed by hand",
        "stages finished",
        "repeated",
        "orphans",
        "left",
        "bytes equal",
    ]
    print(f"| {' | '.join(columns)} |\n|---|---|---:|---|---:|---:|---:|---:|---|")
    for name in asked.faults:
        print(row(folder, name))


def row(folder: Path, name: str) -> str:
    o = Outcome(**json.loads((folder / f"{name}.json").read_text()))
    told = "goes on" if o.at_work_s is None else f"{o.at_work_s:.1f}"
    resumed, equal = ("yes" if each else "no" for each in (o.resumed, o.equal))
    cells = [
        FAULTS[name][0],
        ", ".join(each.capitalize() for each in o.states),
        told,
        resumed,
        o.finished,
        o.repeated,
        o.orphans,
        o.left,
        equal,
    ]
    return f"| {' | '.join(str(each) for each in cells)} |"


if __name__ == "__main__":
    main()
