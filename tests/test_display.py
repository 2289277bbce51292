"""What a run shows while it works: short lines where there is no terminal, honest about what is left."""

import io
import logging
import threading
import time
from itertools import pairwise

import pytest
from rich.console import Console

from ploutos.cli.display import Display, displayed, leave_terminal
from ploutos.progress import Progress, advance, counted, part, tell, working


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def shown():
    """A display on a pipe, its clock, and what it printed so far."""
    clock, console = Clock(), Console(file=io.StringIO(), width=120)
    return Display(console, clock), clock, lambda: console.file.getvalue().splitlines()


def test_a_stage_that_took_a_while_is_one_line_and_a_brief_one_none(shown):
    display, clock, lines = shown
    display.hear(Progress("bars"))
    display.hear(Progress("bars", "", "computed"))
    display.hear(Progress("backtests"))
    clock.now = 65.0
    display.hear(Progress("backtests", "", "computed"))
    assert lines() == ["   65 s  backtests done in 1 min 05 s"]


def test_what_is_left_is_what_half_of_the_work_took(shown):
    display, clock, lines = shown
    display.hear(Progress("policy", state="planned", total=4))
    display.hear(Progress("policy", "fold 0 member 0"))
    display.hear(Progress("policy", "fold 0 member 1"))
    clock.now = 30.0
    display.hear(Progress("policy", "fold 0 member 0", "computed"))
    display.hear(Progress("policy", "fold 0 member 1", "working", 500, 1000, "steps", "900 steps/s"))
    display.hear(Progress("policy", "fold 1 member 0", "cached"))  # takes no time, so it says nothing about the rest
    display.tick()
    assert lines() == ["   30 s  policies: 2 of 4 (1 found in the store), about 30 s left"]
    assert "folds 0 #+  1 #" in str(display.__rich__())
    assert "fold 0 member 1, 500 of 1,000 steps, 900 steps/s" in str(display.__rich__())


def test_what_an_earlier_process_did_says_nothing_about_the_speed_of_this_one(shown):
    display, clock, lines = shown
    display.hear(Progress("policy", state="planned", total=2))
    display.hear(Progress("policy", "fold 0 member 0"))
    clock.now = 10.0
    display.hear(Progress("policy", "fold 0 member 0", "working", 600, 1000, "steps", "", 500))
    display.tick()  # a tenth of a policy in 10 s; 1.4 are left
    assert lines() == ["   10 s  policies: 0 of 2, about 2 min 20 s left"]
    clock.now = 50.0
    display.hear(Progress("policy", "fold 0 member 0", "computed"))
    display.tick()  # half a policy in 50 s; one is left
    assert lines()[-1] == "   50 s  policies: 1 of 2, about 1 min 40 s left"


def test_a_silence_is_broken_after_five_seconds_and_later_after_a_fifth_of_the_run(shown):
    display, clock, lines = shown
    display.hear(Progress("robustness", "world 3 of 8", "working", 400, 1700, "bars"))
    said = []
    for second in range(1, 601):
        clock.now = float(second)
        before = len(lines())
        display.tick()
        said += [second] * (len(lines()) - before)
    assert said[:4] == [5, 10, 15, 20]
    assert all(later - before <= max(5, 0.2 * later) + 1 for before, later in pairwise(said))
    assert len(said) < 25
    assert lines()[0] == "    5 s  stress tests: world 3 of 8, 400 of 1,700 bars"


def test_seconds_are_counted_once_where_stages_overlap(shown):
    display, clock, _ = shown
    news = [
        (0.0, "in-sample", "working"), (0.0, "backtests", "working"), (10.0, "in-sample", "computed"), (10.0, "signals", "working"),
        (11.0, "signals", "cached"), (12.0, "backtests", "computed"),
    ]  # fmt: skip
    for clock.now, stage, state in news:
        display.hear(Progress(stage, "", state))
    assert display.seconds() == {"in-sample": 10.0, "backtests": 1.0}  # the third was found, and says nothing


def test_the_library_tells_without_knowing_of_which_stage_it_is_part():
    console = Console(file=io.StringIO(), width=120)
    with displayed(console) as display:
        advance(1, 2, "bars")  # outside of a stage nobody hears it
        with working("fusion-choice"), part("fold 3"):
            assert list(counted(["a", "b"], "candidates")) == ["a", "b"]
            text = str(display.__rich__())
        tell(Progress("fusion-choice", "", "computed"))
    assert "choice of fusion: fold 3, 1 of 2 candidates" in text
    assert threading.active_count() == len([t for t in threading.enumerate() if t.name != "display"])
    tell(Progress("bars"))  # nobody listens any more
    assert "bars" not in display._stages


def test_a_terminal_shows_what_is_under_way_and_warnings_above_it(monkeypatch):
    for name in ("", "prefect", "prefect.task_runs"):  # what Prefect prints, once something has set it up, is not the display's
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with displayed(console) as display:
        tell(Progress("backtests", "", "working", 40, 100, "bars"))
        logging.getLogger("ploutos.training").warning("a checkpoint is damaged")
        logging.getLogger("prefect.task_runs").error("the command itself says how it ended")
        deadline = time.monotonic() + 10
        while "40 of 100 bars" not in console.file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    shown = console.file.getvalue()
    assert "> backtests: 40 of 100 bars" in shown
    assert "warning: a checkpoint is damaged" in shown
    assert "how it ended" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back
    leave_terminal(display)
    assert display.silent
