"""Worker processes by the dozen: one thread each, gone when they should be, and no larger after the fiftieth job."""

import gc
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from light_jobs import count, multiply_and_wait, multiply_with_torch
from markets import TINY

from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import TrainingError
from ploutos.features.build import write_features
from ploutos.hardware.machine import usable_cores
from ploutos.hardware.threads import VARIABLES
from ploutos.market.bars import write_bars
from ploutos.training.jobs import MemberJob, run_job
from ploutos.training.pool import WorkerPool, shared_pool, shared_pools
from ploutos.training.spec import CheckpointSpec, TrainingPaths

N_WORKERS = 64


def alive(pids):
    """Those that still run; a zombie does not."""
    return [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_sixty_four_workers_have_one_thread_for_work_and_one_that_watches_their_parent(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "7")  # what they would take over without their caps
    with WorkerPool(N_WORKERS) as pool:
        futures = [pool.submit(multiply_and_wait, tmp_path) for _ in range(N_WORKERS)]
        deadline = time.monotonic() + 240
        while len(signed_in := list(tmp_path.iterdir())) < N_WORKERS and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = [psutil.Process(int(file.name)) for file in signed_in]
        threads = [worker.num_threads() for worker in workers]  # all of them at the same time: they wait
        (tmp_path / "gate").touch()
        answers = [pool.result(future, lambda: None) for future in futures]
        assert pool.result(pool.submit(multiply_with_torch), lambda: None) == (64e6, 1, 2)
    assert threads == [2] * N_WORKERS
    assert answers == [(False, 27e6, [1])] * N_WORKERS
    assert alive(worker.pid for worker in workers) == []


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="one core: one thread with caps and without")
def test_the_same_work_without_the_caps_takes_more_threads():
    code = "import numpy as np, psutil; np.ones((300, 300)) @ np.ones((300, 300)); print(psutil.Process().num_threads())"
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(found.stdout) > 1


def test_an_interrupted_pool_leaves_its_jobs_and_no_process():
    pool = WorkerPool(2)
    first = [pool.submit(count, 1_000_000) for _ in range(2)]
    assert [pool.result(future, lambda: None) for future in first] == [count(1_000_000)] * 2
    workers = [process.pid for process in psutil.Process().children() if "spawn_main" in " ".join(process.cmdline())]
    assert workers

    def interrupted():
        with pool:
            futures.extend(pool.submit(time.sleep, 600) for _ in range(4))
            raise KeyboardInterrupt

    futures = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert alive(workers) == []
    assert all(future.cancelled() or isinstance(future.exception(), BrokenProcessPool) for future in futures)


def test_a_run_that_has_failed_starts_no_other_training():
    """A thread of it did, and the run said Running until that training was over."""
    with pytest.raises(ValueError, match="a member died"), shared_pools():
        raise ValueError("a member died")
    with pytest.raises(TrainingError, match=r"no training is started, .* run again"):
        shared_pool(1)
    with shared_pools():
        pool = shared_pool(1)
        assert pool.result(pool.submit(count, 10), lambda: None) == count(10)


_PARENT = """
from light_jobs import count

from ploutos.training.pool import WorkerPool

if __name__ == "__main__":
    with WorkerPool(2) as pool:
        futures = [pool.submit(count, 15_000_000) for _ in range(5)]
        print("started", flush=True)
        for future in futures:
            pool.result(future, lambda: None)
    print("ended", flush=True)
"""


@pytest.mark.slow
def test_fifty_jobs_interrupted_or_not_leave_no_orphan(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    mark = f"PLOUTOS_TEST_MARK={os.getpid()}-{time.time_ns()}"
    environment = {**os.environ, **dict([mark.split("=", 1)]), "PYTHONPATH": os.pathsep.join(sys.path)}
    random, printed = np.random.default_rng(8), {}
    for number in range(10):
        how = (None, signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[number % 5]
        parent = subprocess.Popen(
            [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert parent.stdout.readline() == "started\n"
        time.sleep(random.uniform(0, 0.6))
        if how is not None and parent.poll() is None:
            parent.send_signal(how)
        printed[number] = how, parent.stdout.read()
        parent.wait(timeout=60)
        parent.stdout.close()
    assert [text for how, text in printed.values() if how is None] == ["ended\n"] * 2
    assert sum(text == "" for how, text in printed.values() if how is not None) >= 4  # they were in the middle of it
    deadline = time.monotonic() + 20
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def marked(mark):
    """Processes that were born with a mark in their environment, but for those that already ended."""
    name, value = mark.split("=", 1)
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture
def job(tmp_path, panel, panel_features, panel_fold):
    write_bars(panel, tmp_path / "bars.parquet")
    write_features(panel_features, tmp_path / "features.parquet")
    return MemberJob(
        bars=tmp_path / "bars.parquet", features=tmp_path / "features.parquet", fold=panel_fold, env=EnvSpec(episode_bars=60),
        training=TINY, checkpoint=CheckpointSpec(every_rollouts=1), seed=0, teacher=None, paths=TrainingPaths(tmp_path / "work"),
        target=tmp_path / "p.zip",
    )  # fmt: skip


def environments():
    return sum(type(thing) is MarketVecEnv for thing in gc.get_objects())


def test_a_job_leaves_no_environment_behind_for_a_later_collection(job):
    gc.collect()
    before = environments()
    gc.disable()
    try:
        run_job(job)
        assert environments() == before
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_worker_is_no_larger_after_fifty_trainings_than_after_ten(job):
    resident = []
    with WorkerPool(1) as pool:
        worker = psutil.Process(pool.result(pool.submit(os.getpid), lambda: None))
        for number in range(60):
            pool.result(pool.submit(run_job, replace(job, seed=number)), lambda: None)
            resident.append(worker.memory_info().rss)
    assert max(resident[10:]) <= 1.05 * resident[9]
    assert alive([worker.pid]) == []


_RUN = """
import os, sys, time
from ploutos.interrupt import end_at_once_on_signals
end_at_once_on_signals()
from light_jobs import count
from ploutos.training.pool import shared_pool, shared_pools
if __name__ == "__main__":
    with shared_pools():
        pool = shared_pool(2)
        futures = [pool.submit(count, 10**11) for _ in range(4)]
        print("running", flush=True)
        [pool.result(future, lambda: None) for future in futures]
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_command_says_one_line_and_leaves_no_process(tmp_path, number, code, times):
    """Pressed in a terminal, Ctrl-C reaches the workers too; pressed twice it does no more."""
    script, mark = tmp_path / "run.py", f"{tmp_path.name}-{number}-{times}"
    script.write_text(_RUN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())]), "INTERRUPTED": mark}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    time.sleep(1)
    for _ in range(times):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert said.split("\n") == ["", "interrupted; run the same command again to go on", ""]
    assert marked(f"INTERRUPTED={mark}") == []


_FLOW = """
import os, signal, time
from ploutos.interrupt import end_at_once_on_signals
end_at_once_on_signals()
from flows.attempt import begin_attempt
from prefect.utilities.engine import capture_sigterm
with capture_sigterm():
    begin_attempt()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException as error:
        print("ends in order, which takes minutes:", type(error).__name__, flush=True)
        raise
"""


def test_a_flow_that_a_command_runs_ends_at_once_on_sigterm(tmp_path):
    """Prefect takes SIGTERM over when a flow begins, and waited for threads and workers: 284 s."""
    script = tmp_path / "run.py"
    script.write_text(_FLOW)
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "PREFECT_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (143, ""), ended.stderr[-1000:]
    assert ended.stderr.split("\n")[-2] == "interrupted; run the same command again to go on"


_WORKER = """
import subprocess, sys
flow = '''
import sys, time
from types import SimpleNamespace as Some
from prefect.context import FlowRunContext
from flows.attempt import end_with_worker
FlowRunContext.get = classmethod(lambda cls: Some(flow_run=Some(deployment_id=DEPLOYMENT)))
end_with_worker()
print("at work", flush=True)
time.sleep(120)
'''
subprocess.Popen([sys.executable, "-c", flow]).wait()
"""


@pytest.mark.parametrize(("deployment", "ends"), [("'pipeline'", True), ("None", False)])
def test_a_flow_ends_with_the_worker_that_started_it_and_not_with_a_terminal(tmp_path, deployment, ends):
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "PREFECT_HOME": str(tmp_path), "OF_WORKER": str(tmp_path)}
    code = _WORKER.replace("DEPLOYMENT", deployment)
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "at work\n"
        worker.kill()
        worker.wait()
        deadline = time.monotonic() + (20 if ends else 1)
        while (left := marked(f"OF_WORKER={tmp_path}")) and time.monotonic() < deadline:
            time.sleep(0.05)
        for each in left:
            os.kill(each, signal.SIGKILL)
    assert bool(left) != ends


_TERMINAL = """
import os, signal, subprocess
from prefect import flow
from flows.attempt import begin_attempt
@flow(persist_result=False)
def killed():
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a child that nobody has waited for has no command line
    begin_attempt()
    os.kill(os.getpid(), signal.SIGKILL)
killed()
"""


@pytest.mark.slow
def test_a_killed_run_takes_its_temporary_server_along(tmp_path):
    """It was left behind, for ever: a server of some hundred MiB for each run that memory ran out on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    environment |= {"PYTHONPATH": str(Path.cwd()), "PREFECT_HOME": str(tmp_path), "KILLED": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", _TERMINAL], env=environment, timeout=300, check=False).returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while (left := marked(f"KILLED={tmp_path}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    for each in left:
        os.kill(each, signal.SIGKILL)
    assert left == []


def test_a_script_without_a_guard_trains_once(tmp_path):
    """A worker that ran the script again would start a pool within a pool, and wait for it for ever."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from light_jobs import count\n"
        "from ploutos.training.pool import WorkerPool\n"
        "print('begun', flush=True)\n"
        "with WorkerPool(1) as pool:\n    print(pool.result(pool.submit(count, 1000), lambda: None))\n"
    )
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (said.returncode, said.stdout.count("begun")) == (0, 1), said.stderr[-2000:]
