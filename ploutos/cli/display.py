"""What a run shows while it works: one live display on a terminal, plain lines where there is none.

On a terminal something changes every second. Elsewhere a line comes at the end of every stage that took a while, and in between when
five seconds have passed, or a fifth of the run so far, so that a log of a night stays short.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ploutos.progress import Progress, listening
from ploutos.wording import plural, show_seconds

if TYPE_CHECKING:
    from ploutos.preflight import Outlook

_TITLES = {
    "bars": "bars", "quality": "inspection of the bars", "features": "features", "readings": "reading of texts",
    "text-features": "features of texts", "folds": "folds", "texts": "controls of the texts",
    "regression": "supervised models",
    "teacher": "teachers", "policy": "policies", "llm-features": "features for the advisor", "signals": "advice",
    "mirrored": "advice on the mirrored market", "hybrid": "hybrid policies", "fusion-choice": "choice of fusion",
    "backtests": "backtests", "in-sample": "backtests in sample", "robustness": "stress tests", "candidates": "trials",
    "advice-controls": "rank of the advice", "recombined": "recombined histories", "metrics": "metrics and intervals", "report": "report",
    "search": "search for settings",
}  # fmt: skip
_PHASES = {
    **dict.fromkeys(("bars", "quality", "features", "readings", "text-features", "folds"), "1 of 3, data"),
    **dict.fromkeys(("regression", "teacher", "policy"), "2 of 3, training"),
}
_LAST_PHASE = "3 of 3, advice and evaluation"
_QUIET_S, _SHARE, _BRIEF_S, _TICK_S = 5.0, 0.2, 2.0, 0.25


@dataclass
class _Stage:
    """All work of one kind."""

    began: float
    planned: int = 0
    ended: dict[str, bool] = field(default_factory=dict)
    """By label, whether it was found in the store."""
    running: dict[str, Progress] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)
    """By label, the share that an earlier process had done."""
    over: float | None = None

    @property
    def all_cached(self) -> bool:
        return all(self.ended.values())

    def done_and_left(self) -> tuple[float, float]:
        """Pieces that were computed here, and pieces that are left, each with parts of those that are under way."""
        under_way = [each for each in self.running.values() if each.total]
        ended = sum(1 - self.found.get(label, 0.0) for label, cached in self.ended.items() if not cached)
        here = ended + sum((each.done - each.resumed_at) / each.total for each in under_way)
        return here, self.planned - len(self.ended) - sum(each.done / each.total for each in under_way)


def _kind(stage: str) -> str:
    return "regression" if stage.startswith("regression-") else "hybrid" if stage == "ablated" else stage


class Display:
    """What is known of a run's work, and how it is shown.

    Args:
        console: where it is shown.
        clock: seconds that only grow.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self._clock = console, clock
        self.began = self._said = clock()
        self._stages: dict[str, _Stage] = {}
        self._lock = threading.RLock()
        self._plain = not console.is_terminal
        self.silent = False

    def introduce(self, outlook: "Outlook") -> None:
        """One line about what is to come."""
        config, folds, stamps = outlook.config, outlook.folds, outlook.bars.timestamps
        first, last = (str(stamps[bar].astype("datetime64[D]")) for bar in (folds[0].test.start, folds[-1].test.stop - 1))
        members = config.training.members
        asked = "" if outlook.asked is None else f"; {outlook.asked.questions:,} questions to {config.llm.model}"
        asked += f", {plural(outlook.asked.texts, 'text')} to read" if outlook.asked and outlook.asked.texts else ""
        self.console.print(
            f"{config.name}: {outlook.bars.n_bars:,} bars of {', '.join(outlook.bars.symbols[:8])}; {plural(len(folds), 'fold')}, "
            f"tested {first} to {last}; "
            f"{plural(members, 'policy', 'policies')} a fold of {config.training.planned_timesteps:,} steps{asked}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip

    def hear(self, progress: Progress) -> None:
        """Take in one piece of news."""
        kind, now = _kind(progress.stage), self._clock()
        label = f"{progress.stage} {progress.label}".strip() if progress.stage == "ablated" else progress.label
        with self._lock:
            stage = self._stages.setdefault(kind, _Stage(now))
            if progress.state == "planned":
                stage.planned, stage.over = stage.planned + progress.total, None
                stage.running.pop("", None)
            elif progress.state == "working":
                key = label if stage.planned else ""
                stage.running[key] = progress
                if progress.resumed_at:
                    stage.found[f"{progress.stage} {label}"] = progress.resumed_at / progress.total
            else:
                stage.running.pop(label if stage.planned else "", None)
                stage.ended[f"{progress.stage} {label}"] = progress.state == "cached"
                if len(stage.ended) >= stage.planned and stage.over is None:
                    stage.over = now
                    if self._plain and now - stage.began >= _BRIEF_S:
                        self._line(self._sentence(kind, stage, now), now)

    def tick(self) -> None:
        """Break a silence, where there is no live display."""
        with self._lock:
            now = self._clock()
            quiet = max(_QUIET_S, _SHARE * (now - self.began))
            if now - self._said >= quiet:
                open_ = [(kind, stage) for kind, stage in self._stages.items() if stage.over is None]
                self._line(
                    "; ".join(self._sentence(kind, stage, now) for kind, stage in open_)
                    or ("working" if self._stages else "starting Prefect"),
                    now,
                )

    def seconds(self) -> dict[str, float]:
        """What every stage took that was computed, from the end of the one before."""
        over = sorted((stage.over, kind) for kind, stage in self._stages.items() if stage.over is not None)
        spans, before = {}, self.began
        for end, kind in over:
            if not any(self._stages[kind].ended.values()):
                spans[kind] = end - max(before, min(self._stages[kind].began, end))
            before = end
        return spans

    def _line(self, text: str, now: float) -> None:
        self._said = now
        self.console.print(f"{now - self.began:5.0f} s  {text}", markup=False, highlight=False, soft_wrap=True)

    def _sentence(self, kind: str, stage: _Stage, now: float) -> str:
        """One stage in words."""
        title = _TITLES.get(kind, kind)
        found = sum(stage.ended.values())
        kept = " (found in the store)" if stage.ended and stage.all_cached else f" ({found} found in the store)" if found else ""
        if stage.over is not None:
            count = f"{len(stage.ended)} " if stage.planned else ""
            return f"{count}{title} done{kept} in {show_seconds(stage.over - stage.began)}"
        if not stage.planned:
            parts = [_of(each) for each in stage.running.values()]
            return f"{title}: {parts[0]}" if parts and parts[0] else title
        return f"{title}: {len(stage.ended)} of {stage.planned}{kept}{self._left(stage, now)}"

    def _left(self, stage: _Stage, now: float) -> str:
        done, left = stage.done_and_left()
        return f", about {show_seconds((now - stage.began) * left / done)} left" if done > 0 and left > 0 else ""

    def __rich__(self) -> Text:
        """The live display."""
        with self._lock:
            now = self._clock()
            over = [kind for kind, stage in self._stages.items() if stage.over is not None]
            open_ = [(kind, stage) for kind, stage in self._stages.items() if stage.over is None]
            latest = open_[-1][0] if open_ else over[-1] if over else "bars"
            phase = "" if latest == "search" else f"Phase {_PHASES.get(latest, _LAST_PHASE)}, "
            lines = [Text(f"{phase}{show_seconds(now - self.began)}", style="bold")]
            if not self._stages:
                lines.append(Text("> starting Prefect"))
            if over:
                lines.append(Text("done: " + ", ".join(_TITLES.get(kind, kind) for kind in over), style="green"))
            for kind, stage in open_:
                lines.append(Text(f"> {self._sentence(kind, stage, now)}"))
                if stage.planned:
                    lines += [Text(f"    {grid}", style="dim") for grid in _grid(stage)]
                    lines += [Text(f"    {_of(each)}") for each in stage.running.values() if each.total]
            return Text("\n").join(lines)


def _of(progress: Progress) -> str:
    """How far one piece is."""
    counted = f"{progress.done:,} of {progress.total:,} {progress.unit}" if progress.total else ""
    return ", ".join(part for part in (progress.label, counted, progress.note) if part)


def _grid(stage: _Stage) -> list[str]:
    """Folds by members, a mark for each: done, under way, to come."""
    ended = {label.split(" ", 1)[1] for label in stage.ended if " fold " in f" {label}"}
    marks = {label: "#" for label in ended} | {label: "+" for label in stage.running}
    folds: dict[str, str] = {}
    for label in sorted(marks):
        words = label.split()
        if "fold" in words and "member" in words:
            name = words[words.index("fold") + 1]
            folds[name] = folds.get(name, "") + marks[label]
    return ["folds " + "  ".join(f"{name} {row}" for name, row in sorted(folds.items(), key=lambda each: int(each[0])))] if folds else []


class _Warnings(logging.Handler):
    """Shows warnings above the display; how a run failed is said by the command, once."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("prefect.flow_runs", "prefect.task_runs", "prefect.flow_engine", "prefect.task_engine")):
            self._console.print(f"{record.levelname.lower()}: {record.getMessage()}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def displayed(console: Console | None = None) -> Iterator[Display]:
    """A block whose work is shown on the error stream."""
    console = console or Console(stderr=True)
    display = Display(console)
    live = Live(display, console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    ended, warnings = threading.Event(), _Warnings(console)

    def watch() -> None:
        while not ended.wait(_TICK_S) and not display.silent:
            if live is None:
                display.tick()
            else:
                live.refresh()

    thread = threading.Thread(target=watch, name="display", daemon=True)
    logging.getLogger().addHandler(warnings)
    with listening(display.hear), live or nullcontext():
        thread.start()
        try:
            yield display
        finally:
            ended.set()
            thread.join()
            logging.getLogger().removeHandler(warnings)


def leave_terminal(display: Display) -> None:
    """Give the terminal back at an interruption: no more frames, and a cursor."""
    display.silent = True
    if display.console.is_terminal:
        sys.__stderr__.write("\x1b[?25h\n")  # type: ignore[union-attr]
