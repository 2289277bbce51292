"""200 task runs at once under one Prefect server: is any of it lost? `python -m benchmarks.concurrent --home DIR [--database URL]`.

No task ends before all 200 have begun, so all are running at once. Afterwards the server must know of every task run that it completed,
its Pending, Running and Completed states in that order, and its log line. Without `--database` the server keeps a SQLite file.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from benchmarks.fanout import answers, free_port, until
from deployments.serve import MANY_TASKS

PROCESSES, TASKS = 1, 200
WHOLE = ("runs", "states", "log lines")
_SETTLED_S = 180.0
_together = threading.Barrier(TASKS, timeout=600)


@task(name="small", task_run_name="small {number}", cache_policy=NO_CACHE)
def small(number: int) -> int:
    _together.wait()
    get_run_logger().info("number %d was here", number)
    return number


@flow(name="concurrent", task_runner=ThreadPoolTaskRunner(max_workers=TASKS))  # type: ignore[arg-type]  # Prefect types no runner's result
def concurrent(first: int) -> None:
    futures = small.map(range(first, first + TASKS))
    assert [future.result() for future in futures] == list(range(first, first + TASKS))


def gather(client: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Every record of a filter."""
    found: list[dict[str, Any]] = []
    while page := client.post(path, json={**body, "limit": 200, "offset": len(found)}).raise_for_status().json():
        found += page
    return found


def known(client: httpx.Client) -> Counter[str]:
    """What the server knows of the task runs: whole ones, and what others lack."""
    runs = [each for each in gather(client, "task_runs/filter", {}) if each["name"].startswith("small ")]
    lines = [each["message"] for each in gather(client, "logs/filter", {})]
    counts: Counter[str] = Counter()
    for number in range(PROCESSES * TASKS):
        mine = [each for each in runs if each["name"] == f"small {number}"]
        states = [state["type"] for each in mine for state in client.get("task_run_states/", params={"task_run_id": each["id"]}).json()]
        completed = len(mine) == 1 and mine[0]["state_type"] == "COMPLETED"
        in_order, told = states == ["PENDING", "RUNNING", "COMPLETED"], lines.count(f"number {number} was here") == 1
        counts.update(name for name, holds in zip(WHOLE, (completed, in_order, told), strict=True) if holds)
    return counts


def at_once(client: httpx.Client) -> int:
    """The most task runs that were running at one moment, by the server's own times."""
    runs = [each for each in gather(client, "task_runs/filter", {}) if each["start_time"] and each["end_time"]]
    moments = sorted([(each["start_time"], 1) for each in runs] + [(each["end_time"], -1) for each in runs])
    running = most = 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="folder of the server; emptied first")
    parser.add_argument("--database", help="SQLAlchemy address of an empty Postgres, postgresql+asyncpg://user:password@host/name")
    parser.add_argument("--plain", action="store_true", help="Prefect's own settings in place of those of `ploutos serve`")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="NAME=VALUE", help="further settings of the server")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.first is not None:
        until(Path(os.environ["CONCURRENT_GO"]).exists, 600)
        concurrent(asked.first)
        return
    if asked.home is None:
        parser.error("--home is needed")
    folder = asked.home.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = dict(each.split("=", 1) for each in asked.settings)
    measure(folder, asked.database, own if asked.plain else MANY_TASKS | own)


def measure(folder: Path, database: str | None, settings: dict[str, str]) -> None:
    port, go = free_port(), folder / "go"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_HOME": str(folder / "prefect")}
    environment = kept | quiet | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "CONCURRENT_GO": str(go)}
    of_server = ({"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}) | settings
    with (folder / "server.log").open("wb") as log, (folder / "flows.log").open("wb") as flows:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, env=environment | of_server, stdout=log, stderr=log)
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/api/health"), 1_200)
            own = [sys.executable, "-m", "benchmarks.concurrent", "--first"]
            starts = [subprocess.Popen([*own, str(TASKS * k)], env=environment, stdout=flows, stderr=flows) for k in range(PROCESSES)]
            time.sleep(20)  # they import
            began = time.monotonic()
            go.touch()
            codes = [each.wait() for each in starts]
            seconds = time.monotonic() - began
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=120) as client:
                found, whole = Counter[str](), PROCESSES * TASKS
                limit = time.monotonic() + _SETTLED_S
                while any(found[name] != whole for name in WHOLE) and time.monotonic() < limit:
                    found = known(client)
                settled = time.monotonic() - began - seconds
                most = at_once(client)
        finally:
            server.terminate()
            server.wait()
    words = (folder / "server.log").read_text() + (folder / "flows.log").read_text()
    told = {"database": "Postgres" if database else "SQLite", "flows that ended well": codes.count(0), "at once": most}
    told |= {"seconds": round(seconds, 1), "settled after": round(settled, 1), **{name: found[name] for name in WHOLE}}
    told |= {"locked": words.lower().count("database is locked"), "tracebacks": words.count("Traceback")}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
