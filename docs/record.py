"""Records what a terminal shows, as text, into docs/recordings: `python docs/record.py` in a clone that `make install` was run in.

tmux is a terminal of 120 columns without a screen; what stands on it is a frame. Only paths are changed, to `...`. Without names every
scene is recorded, with a name that one (`python docs/record.py mistakes`).
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "recordings"
PROMPT = "$ "
LONGEST_S = 3600
"""A scene that waits longer for something fails."""


class Terminal:
    """A shell in tmux, in the root of the clone, with stores of its own and the commands of its environment."""

    def __init__(self, home: Path) -> None:
        self._home, self._socket = home, home / "tmux"
        homes = f"PLOUTOS_HOME={home / 'ploutos'} PREFECT_HOME={home / 'prefect'}"
        shell = f"env PS1='{PROMPT}' PATH={ROOT / '.venv/bin'}:$PATH {homes} bash --norc"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "45", "-c", str(ROOT), shell)
        self._tmux("set-option", "-g", "history-limit", "10000")
        self._began = time.monotonic()
        self.wait(lambda text: text.endswith(PROMPT.strip()))

    def _tmux(self, *words: str) -> str:
        return subprocess.run(["tmux", "-S", str(self._socket), *words], check=True, capture_output=True, text=True).stdout

    def text(self) -> str:
        """All that was printed since the last `clear`, what scrolled away too, without machine paths."""
        shown = self._tmux("capture-pane", "-p", "-J", "-S", "-").rstrip()
        for path, name in ((self._home / "ploutos", ".ploutos"), (self._home / "prefect", ".prefect"), (ROOT, "...")):
            shown = shown.replace(str(path), name)
        return "\n".join(line.rstrip() for line in shown.splitlines())

    def type(self, command: str) -> None:
        self._began = time.monotonic()
        self._tmux("send-keys", "-l", command)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def clear(self) -> None:
        self._tmux("send-keys", "-R", "C-l")
        self._tmux("clear-history")

    def close(self) -> None:
        self._tmux("kill-server")

    def wait(self, seen: Callable[[str], bool]) -> str:
        """What stands there as soon as `seen` says so."""
        until = time.monotonic() + LONGEST_S
        while not seen(text := self.text()):
            if time.monotonic() > until:
                raise TimeoutError(f"not seen in {LONGEST_S} s; the terminal shows:\n{text}")
            time.sleep(0.3)
        return text

    def when(self, pattern: str) -> str:
        """A frame: what stands there when `pattern` does, and how long after the command was typed."""
        text = self.wait(lambda text: re.search(pattern, text) is not None)
        return f"[{time.monotonic() - self._began:.0f} s later]\n{text.split(chr(10), 1)[1].strip()}"

    def end(self) -> str:
        """The last frame: the command is over and has said its exit code."""
        text = self.wait(lambda text: re.search(r"^exit \d+$", text, re.MULTILINE) is not None and text.endswith(PROMPT.strip()))
        return f"[{time.monotonic() - self._began:.0f} s later]\n{text.removesuffix(PROMPT.strip()).split(chr(10), 1)[1].strip()}"


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal for one scene."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        opened = Terminal(Path(home))
        try:
            yield opened
        finally:
            opened.close()


def run() -> str:
    """The main job, from the command to its table."""
    with terminal() as screen:
        screen.type("make run; echo exit $?")
        frames = [screen.when(rf"> .*{stage}") for stage in ("policies: [2-9]", "backtests", "stress tests")]
        return "\n\n".join([f"{PROMPT}make run; echo exit $?", *frames, screen.end()])


def mistakes() -> str:
    """Runs that fail before anything is trained, and what they leave."""
    commands = (
        "ploutos run --market APPL",
        "ploutos run --set training.membres=5",
        "ploutos run --set llm.provider=openai --set llm.host=http://127.0.0.1:9/v1",
        "PREFECT_API_URL=http://127.0.0.1:9/api ploutos run",
        "ploutos run --source files --path bars.csv --json",
    )
    parts = []
    with terminal() as screen:
        for command in commands:
            screen.clear()
            screen.type(f"{command}; echo exit $?")
            parts.append(f"{PROMPT}{command}; echo exit $?\n{screen.end()}")
    return "\n\n".join(parts)


def resumed() -> str:
    """A run that Ctrl-C ends in its training, and the same command again."""
    command = "ploutos run --set training.members=2 --set folds.test_months=42; echo exit $?"
    with terminal() as screen:
        screen.type(command)
        before = screen.when("> policies: [1-9]")
        screen.press("C-c")
        began = time.monotonic()
        ended = screen.end().split("\n", 1)[1]
        took = f"[Ctrl-C; {time.monotonic() - began:.1f} s later]"
        screen.clear()
        screen.type(command)
        frames = [screen.when(r"> policies: .*found in the store"), screen.end()]
    return "\n\n".join([f"{PROMPT}{command}", before, f"{took}\n{ended}", f"{PROMPT}{command}", *frames])


SCENES = {scene.__name__: scene for scene in (run, mistakes, resumed)}

if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SCENES:
        (OUT / f"{name}.txt").write_text(SCENES[name]() + "\n", encoding="utf-8")
