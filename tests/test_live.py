"""The table of a run's work: what is at work, how fast, and how much is left."""

from flows.live import LiveTable
from ploutos.progress import Progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def heard(*news, clock=None):
    table = LiveTable(clock or Clock())
    for each in news:
        table.hear(each)
    return table


def test_a_member_at_work_has_its_pace_and_what_is_left():
    clock = Clock()
    table = heard(Progress("policy", state="planned", total=3), Progress("policy", "fold 0 member 0"), clock=clock)
    clock.now = 10.0
    table.hear(Progress("policy", "fold 0 member 0", "working", 600, 1000, "steps", "50 steps/s", resumed_at=100))
    [row, coming] = table.rows()
    assert row == {
        "what": "policy fold 0 member 0", "state": "at work", "progress": "60 % of 1,000 steps", "pace": "50 steps/s", "left": "8 s",
    }  # fmt: skip
    assert coming["what"] == "2 more of policy"
    table.hear(Progress("policy", "fold 0 member 0", "computed"))
    table.hear(Progress("policy", "fold 0 member 1", "cached"))
    assert [(each["what"], each["state"]) for each in table.rows()] == [
        ("1 more of policy", "to come"), ("policy fold 0 member 1", "found in the store"), ("policy fold 0 member 0", "done"),
    ]  # fmt: skip


def test_parts_end_with_their_stage_and_models_of_every_kind_are_planned_together():
    table = heard(
        Progress("robustness", "world 1 of 2", "working", 1, 2, "bars"), Progress("robustness", "", "computed"),
        Progress("regression", state="planned", total=2), Progress("regression-logistic", "fold 0", "computed"),
    )  # fmt: skip
    assert [each["what"] for each in table.rows()] == ["1 more of regression", "regression-logistic fold 0", "robustness"]


def test_a_bar_is_shown_of_a_stage_that_takes_long():
    clock = Clock()
    table = heard(Progress("policy", state="planned", total=4), Progress("policy", "fold 0 member 0", "computed"), clock=clock)
    assert table.shares() == {}
    clock.now = 60.0
    table.hear(Progress("policy", "fold 0 member 1", "working", 1, 2, "steps"))
    table.hear(Progress("bars", "", "computed"))
    clock.now = 120.0
    assert table.shares() == {"policy": 37.5}  # of what has ended in no time there is none
    for member in (1, 2, 3):
        table.hear(Progress("policy", f"fold 0 member {member}", "cached"))
    assert table.shares() == {"policy": 100.0}
