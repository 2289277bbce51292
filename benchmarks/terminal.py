"""What a person waits for and reads when something is wrong, or stops a run: `python -m benchmarks.terminal`.

Processor seconds of the whole command, lines it printed, tracebacks among them and its exit code, each case in an empty home; of a
run that is stopped in its training, the seconds from the signal to the end and the processes that stay. The short runs train one
member a fold for 0.5 % of the steps on two folds.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SHORT = ("--set", "training.members=1", "--set", "training.timesteps_reduction=0.005", "--set", "folds.test_months=60")
NOBODY = "http://127.0.0.1:9/api"
DAILY = "timestamp,open,high,low,close,volume\n" + "".join(f"2024-01-{day:02d},1,1,1,1,1\n" for day in (2, 3, 4, 5, 8, 9))
PLOUTOS = [sys.executable, "-m", "ploutos.cli"]


@dataclass(frozen=True)
class Case:
    name: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


CASES = (
    Case("misspelt preset", ("run", "--preset", "dmeo")),
    Case("unknown setting", ("run", "--set", "training.membres=3")),
    Case("nobody at `PREFECT_API_URL`", ("run",), (("PREFECT_API_URL", NOBODY),)),
    Case("a file of bars without a row", ("run", "--path", "empty.csv")),
    Case("too short a history", ("run", "--path", "daily.csv")),
    Case("Ollama does not answer", ("run", "--set", "llm.provider=ollama", "--set", "llm.host=127.0.0.1:9")),
    Case("`llm.provider=openai` without address and key", ("run", *SHORT, "--set", "llm.provider=openai")),
    Case("`data.timezone` on the sample", ("run", *SHORT, "--set", "data.timezone=America/New_York")),
    Case("`--out` into a folder with other files", ("run", *SHORT, "--out", "notes")),
    Case("`optimize --out` that cannot be written", ("optimize", "--preset", "demo", "--out", "daily.csv/best.yaml")),
    Case("`data check --out` that cannot be written", ("data", "check", "--out", "daily.csv/page.html")),
    Case("`ploutos --help`", ("--help",)),
)


def desk(folder: Path) -> Path:
    (folder / "empty.csv").write_text(DAILY.splitlines()[0] + "\n")
    (folder / "daily.csv").write_text(DAILY)
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("mine")
    return folder


def environment(home: Path, *others: tuple[str, str]) -> dict[str, str]:
    own = {"PLOUTOS_HOME": str(home / "ploutos"), "PREFECT_HOME": str(home / "prefect"), "PYTHONPATH": str(Path(__file__).parents[1])}
    return os.environ | own | dict(others)


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def mistakes() -> None:
    row("case", "processor s", "lines", "tracebacks", "code")
    row("---", "---:", "---:", "---:", "---:")
    for case in CASES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            before = processor_s()
            at = desk(Path(folder))
            ended = subprocess.run(
                [*PLOUTOS, *case.arguments], cwd=at, env=environment(at, *case.environment), capture_output=True, text=True, check=False
            )
            printed = ended.stdout + ended.stderr
            row(case.name, f"{processor_s() - before:.1f}", len(printed.splitlines()), printed.count("Traceback"), ended.returncode)
    before = processor_s()
    subprocess.run([sys.executable, "-c", "import ploutos.config"], env=environment(Path.cwd()), check=True)
    row("`import ploutos.config`", f"{processor_s() - before:.1f}", 0, 0, 0)


def stopped(name: str, home: Path, *signals: signal.Signals) -> None:
    """A run is given signals, half a second apart, once it trains."""
    log = home / "log"
    with log.open("w") as file:
        run = subprocess.Popen(
            [*PLOUTOS, "run", *SHORT[:-2], "--set", "training.timesteps_reduction=0.05"],
            cwd=home, env=environment(home), stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    own = psutil.Process(run.pid)
    while run.poll() is None and "policies" not in log.read_text():
        time.sleep(0.2)
    assert run.poll() is None, log.read_text()
    children, began = own.children(recursive=True), time.monotonic()
    for each in signals:
        os.killpg(run.pid, each) if each == signal.SIGINT else run.send_signal(each)  # a terminal signals the whole group
        time.sleep(0.5 if each != signals[-1] else 0)
    code, took = run.wait(), time.monotonic() - began
    _, left = psutil.wait_procs(children, timeout=1)
    printed = log.read_text()
    row(name, f"{took:.1f}", len(printed.splitlines()), printed.count("Traceback"), code, len(left))


def interrupts() -> None:
    print()
    row("a run in its training", "s to the end", "lines in all", "tracebacks", "code", "processes left")
    row("---", "---:", "---:", "---:", "---:", "---:")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        stopped("Ctrl-C", Path(folder), signal.SIGINT)
        stopped("Ctrl-C twice", Path(folder), signal.SIGINT, signal.SIGINT)
        stopped("SIGTERM", Path(folder), signal.SIGTERM)


if __name__ == "__main__":
    mistakes()
    interrupts()
