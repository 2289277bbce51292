"""Eight folds of five members on every runner: wall and processor time against the work itself; `python -m benchmarks.fanout --home DIR`.

Members are short, so that what is around them shows. The work is what training them one after another in one process takes, by the library
alone. Processor time is that of every process that takes part, read from a control group (needs root), because wall time on a machine with
other work says little. A runner meets one member a fold in a fresh home and then five: the second time it finds eight and trains 32, and
what that takes, start of the runner included, is a further member's share. Dask is a scheduler and two workers that were started by hand,
Ray a local one, `workers` two Prefect workers with homes of their own over moto's S3. With `--sleep` members do nothing, so that a member's
time is all the runner's, Prefect's and the store's.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import httpx
from prefect import flow

from benchmarks.sleeping import sleeping
from flows.phases import _by_fold, phase1, phase2
from flows.stages import at_work
from ploutos.config import PipelineConfig, load_config
from ploutos.run_refs import RunRefs
from ploutos.seeding import seed_integer
from ploutos.settings import Settings
from ploutos.store import Store, file_sha256
from ploutos.training.jobs import MemberJob, run_job
from ploutos.training.pool import train_here
from ploutos.training.spec import TrainingPaths
from ploutos.walk_forward import Fold

RUNNERS = ("thread", "process", "dask", "ray", "workers")
FOLDS, MEMBERS = 8, 5
SMALL = [
    "data.symbols=[AAPL, IBM]", "folds.train_years=4", "folds.test_months=12", "training.total_timesteps=512", "training.n_envs=4",
    "training.n_steps=64", "training.batch_size=128", "training.net_arch=[16]", "training.teacher=none", "regression.models=[]",
    "pipeline.pause_between_phases=0", "hardware.workers=2", "hardware.tasks=2",
]  # fmt: skip
_MARK = "measured: "
_S3 = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@flow(name="fan-out", persist_result=False)
def fan_out(config: PipelineConfig, usage: Path) -> dict[str, Any]:
    """Phase 2 of a run: the policies' digests, and the wall and processor seconds that it took."""
    with at_work(config, Settings()) as stages:
        refs = phase1(stages, config)
        began, before = time.perf_counter(), _seconds(usage)
        policies = phase2(stages, refs, config).policies
        shas = [ref.sha256 for row in policies for ref in row]
        return {"wall": time.perf_counter() - began, "busy": _seconds(usage) - before, "policies": shas}


@flow(name="one-after-another", persist_result=False)
def one_after_another(config: PipelineConfig, usage: Path) -> dict[str, Any]:
    """The same members by the library alone, in this process; the first one is trained twice, to be warm."""
    with at_work(config, Settings()) as stages:
        refs, store = phase1(stages, config), stages.store
        jobs = [_job(store, refs, fold, sized, member) for fold, sized in _by_fold(store, refs, config) for member in range(MEMBERS)]
        train_here(run_job, _job(store, refs, *_by_fold(store, refs, config)[0], MEMBERS), lambda: None)
        began, before = time.perf_counter(), _seconds(usage)
        for job in jobs:
            train_here(run_job, job, lambda: None)
        took = {"wall": time.perf_counter() - began, "busy": _seconds(usage) - before}
        return {**took, "policies": [file_sha256(job.target) for job in jobs]}


@flow(name="asleep", persist_result=False)
def asleep(config: PipelineConfig, usage: Path, seconds: float) -> dict[str, Any]:
    """As many members that sleep."""
    began, before = time.perf_counter(), _seconds(usage)
    shas = sleeping(config, FOLDS * config.training.members, seconds)
    return {"wall": time.perf_counter() - began, "busy": _seconds(usage) - before, "policies": shas}


def _job(store: Store, refs: RunRefs, fold: Fold, config: PipelineConfig, member: int) -> MemberJob:
    folder = Settings().home / "alone" / f"{fold.index}-{member}"
    folder.mkdir(parents=True)
    return MemberJob(
        bars=store.path(refs.bars), features=store.path(refs.features), fold=fold, env=config.env, training=config.training,
        checkpoint=config.checkpoint, seed=seed_integer(config.seed, "train", fold.index, member), teacher=None,
        paths=TrainingPaths(folder / "work"), target=folder / "policy.zip",
    )  # fmt: skip


def measure(runner: str, members: int, usage: Path) -> None:
    """Do it and print what it took: this process is one of a host's."""
    place = [] if runner == "alone" else [f"hardware.runner={runner}"]
    if "FANOUT_SCHEDULER" in os.environ:
        place.append(f"hardware.scheduler={os.environ['FANOUT_SCHEDULER']}")
    config = load_config("full", overrides=[*SMALL, *place, f"training.members={members}"])
    if "FANOUT_SLEEP" in os.environ:
        print(_MARK + json.dumps(asleep(config, usage, float(os.environ["FANOUT_SLEEP"]))))
        return
    print(_MARK + json.dumps((one_after_another if runner == "alone" else fan_out)(config, usage)))


class Group:
    """Processes whose processor time is counted together, with all that they start."""

    def __init__(self, name: str) -> None:
        self.folder = Path("/sys/fs/cgroup/cpuacct") / f"ploutos-{os.getpid()}-{name}"
        try:
            self.folder.mkdir()
        except OSError as error:
            raise SystemExit(f"processor time is read from a control group (version 1), which cannot be made here: {error}") from error

    def start(self, command: list[str], environment: dict[str, str], log: Path, **options: Any) -> "subprocess.Popen[str]":
        """A process of the group."""
        join = ["sh", "-c", f'echo $$ > {self.folder}/tasks && exec "$@"', "sh"]
        with log.open("a") as errors:
            return subprocess.Popen([*join, *command], env=environment, stderr=errors, text=True, **options)

    @property
    def usage(self) -> Path:
        return self.folder / "cpuacct.usage"

    def remove(self) -> None:
        until(lambda: not (self.folder / "tasks").read_text(), 60)  # what a process leaves behind ends with it, a moment later
        self.folder.rmdir()


def _seconds(usage: Path) -> float:
    return int(usage.read_text()) / 1e9


class Place:
    """A folder with a Prefect server, and what a runner needs beside it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.log = folder / "log"
        api = f"http://127.0.0.1:{free_port()}/api"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PLOUTOS_", "AWS_"))}
        quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_HOME": str(folder / "prefect")}
        self.environment = kept | quiet | {"PREFECT_API_URL": api}
        self.server = self.group("server")
        port = api.split(":")[2].split("/")[0]
        self.start(self.server, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
        until(lambda: answers(f"{api}/health"), 1_200)

    def group(self, name: str) -> Group:
        made = Group(name)
        self._stack.callback(made.remove)
        return made

    def start(self, group: Group, *command: str, **environment: str) -> None:
        """A process that ends with the program."""
        process = group.start([sys.executable, *command], self.environment | environment, self.log, stdout=subprocess.DEVNULL)
        self._stack.callback(_end, process)

    def run(self, group: Group, runner: str, members: int, **environment: str) -> dict[str, Any]:
        """What the measuring process prints."""
        command = [sys.executable, "-m", "benchmarks.fanout", "--measure", runner, "--members", str(members), "--usage", str(group.usage)]
        before = _seconds(self.server.usage)
        process = group.start(command, self.environment | environment, self.log, stdout=subprocess.PIPE)
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{runner} failed; {self.log} says why")
        told: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith(_MARK)).removeprefix(_MARK))
        return {**told, "server": _seconds(self.server.usage) - before}

    def with_dask(self, group: Group) -> dict[str, str]:
        """A scheduler and two workers of one thread, started by hand."""
        address = f"tcp://127.0.0.1:{free_port()}"
        here = ("--host", "127.0.0.1", "--no-dashboard")
        self.start(group, "-m", "distributed.cli.dask_scheduler", *here, "--port", address.rsplit(":", 1)[1])
        for _ in range(2):
            self.start(group, "-m", "distributed.cli.dask_worker", address, *here, "--nthreads", "1", "--no-nanny")
        return {"FANOUT_SCHEDULER": address}

    def with_prefect_workers(self, group: Group) -> dict[str, str]:
        """A bucket of moto's, the deployments, and two workers, each with a home as another host has it."""
        port = free_port()
        self.start(self.group("s3"), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
        until(lambda: answers(f"http://127.0.0.1:{port}/moto-api/"), 600)
        store = _S3 | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "PLOUTOS_STORE": "s3://fanout/store"}
        httpx.put(f"http://127.0.0.1:{port}/fanout", timeout=60).raise_for_status()
        own = self.environment | store | {"PLOUTOS_HOME": str(self.folder / "deploys")}
        with self.log.open("a") as log:
            subprocess.run([sys.executable, "-m", "ploutos", "deploy"], env=own, stdout=log, stderr=log, check=True)
        if "FANOUT_SLEEP" in os.environ:
            self.put_asleep()
        for host in ("one", "another"):
            worker = ("-m", "prefect", "worker", "start", "--pool", "ploutos-members", "--type", "process", "--limit", "1", "--name", host)
            home = {"PLOUTOS_HOME": str(self.folder / host / "home")}
            self.start(group, *worker, **store, **home)
        return store

    def put_asleep(self) -> None:
        """Have helpers know the members that sleep."""
        api = self.environment["PREFECT_API_URL"]
        found = httpx.get(f"{api}/deployments/name/ploutos-member/member", timeout=60).raise_for_status().json()
        asked = httpx.patch(f"{api}/deployments/{found['id']}", json={"entrypoint": "benchmarks.sleeping.member"}, timeout=60)
        asked.raise_for_status()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > limit:
            raise SystemExit(f"waited {seconds:.0f} s in vain")
        time.sleep(0.5)


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def meet(folder: Path, runner: str) -> dict[str, Any]:
    """One member a fold and then five, in a fresh home; alone only the five."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        place = Place(folder, stack)
        group = place.group(runner)
        given = {"PLOUTOS_HOME": str(folder / "home")}
        if runner == "dask":
            given |= place.with_dask(group)
        elif runner == "workers":
            given |= place.with_prefect_workers(group)
        first = None if runner == "alone" else place.run(group, runner, 1, **given)
        whole = place.run(group, runner, MEMBERS, **given)
        hosts = {host: len(list((folder / host).rglob("*.zip"))) for host in ("one", "another")} if runner == "workers" else {}
    return {"first": first, "whole": whole, "hosts": hosts, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="folder to keep everything in; what is there is not measured again")
    parser.add_argument("--runners", nargs="*", default=list(RUNNERS), choices=RUNNERS, metavar="RUNNER", help=", ".join(RUNNERS))
    parser.add_argument("--sleep", type=float, metavar="S", help="members only sleep for S seconds: what is left is what is around them")
    for name, kind in (("measure", str), ("members", int), ("usage", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measure(asked.measure, asked.members, asked.usage)
        return
    if asked.home is None:
        parser.error("--home is needed")
    if asked.sleep is not None:
        _tell_of_sleep(asked.home.resolve(), asked.runners, asked.sleep)
        return
    found = {}
    for runner in ("alone", *asked.runners):
        kept = asked.home.resolve() / f"{runner}.json"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(meet(kept.with_suffix(""), runner)))
        found[runner] = json.loads(kept.read_text())
        print(row(runner, found[runner], found["alone"]["whole"]), flush=True)


def _tell_of_sleep(folder: Path, runners: list[str], seconds: float) -> None:
    """What a member takes that takes nothing itself; the start of a runner is what both times have in common."""
    os.environ["FANOUT_SLEEP"] = str(seconds)
    print("| runner | wall s | processor s a member | server, s a member | its start, processor s | load |\n|---|---:|---:|---:|---:|---:|")
    for runner in runners:
        found = meet(folder / f"{runner}-asleep", runner)
        first, whole, more = found["first"], found["whole"], FOLDS * (MEMBERS - 1)
        each, server = ((whole[name] - first[name]) / (more - FOLDS) for name in ("busy", "server"))
        if runner == "dask":  # its workers start once for both, so what they import counts in the first alone
            each = whole["busy"] / more
        start = first["busy"] - FOLDS * each
        print(f"| {runner} | {whole['wall']:.1f} | {each:.3f} | {server:.3f} | {start:.1f} | {found['load']:.1f} |", flush=True)


def row(runner: str, found: dict[str, Any], alone: dict[str, Any]) -> str:
    """A line of the table: wall, work, what a further member costs and what it costs the server."""
    whole, work = found["whole"], alone["busy"] / FOLDS / MEMBERS
    if runner == "alone":
        head = ["runner", "wall s", "processor s", "a further member, s", "of it beyond its work", "server, s a member", "hosts", "load"]
        lines = ["| " + " | ".join([*head, "bytes equal"]) + " |", "|---|" + "---:|" * 5 + "---|---:|---|"]
        return "\n".join(
            [*lines, f"| one after another | {alone['wall']:.1f} | {alone['busy']:.1f} | {work:.2f} | | | | {found['load']:.1f} | |"]
        )
    first, further = found["first"], FOLDS * (MEMBERS - 1)
    wall, busy = first["wall"] + whole["wall"], first["busy"] + whole["busy"]
    each, server = whole["busy"] / further, whole["server"] / further
    equal = "yes" if whole["policies"] == alone["policies"] else "no"
    hosts = ", ".join(str(n) for n in found["hosts"].values())
    return (
        f"| {runner} | {wall:.1f} | {busy:.1f} | {each:.2f} | {each - work:.2f} | {server:.2f} | {hosts} | {found['load']:.1f} | {equal} |"
    )


if __name__ == "__main__":
    main()
