"""What a run is doing, told to whoever listens; nobody does by default.

A task opens a stage around its work, and long loops of the library say how far they are without knowing of which stage they are part.
Listeners are called in the thread that works, so they must be quick. Worker processes have none: what trains there writes a file.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One piece of work as it stands.

    Attributes:
        stage: its kind, such as policy or backtests.
        label: which of many of its kind, such as fold 0 member 1.
        state: what it has come to; `planned` says how many of its kind there will be, in `total`.
        done, total: units of work; total is 0 while nobody knows it.
        resumed_at: units that an earlier process did.
        unit: what is counted.
        note: anything else in words.
    """

    stage: str
    label: str = ""
    state: Literal["planned", "working", "computed", "cached"] = "working"
    done: int = 0
    total: int = 0
    unit: str = ""
    note: str = ""
    resumed_at: int = 0


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []
_current: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """A block in which a listener hears of all work of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Tell all listeners."""
    for listener in tuple(_listeners):
        listener(progress)


@contextmanager
def working(stage: str, label: str = "") -> Iterator[None]:
    """A block of work of this thread, which `advance` in it belongs to."""
    begun = Progress(stage, label)
    token = _current.set(begun)
    tell(begun)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def part(label: str) -> Iterator[None]:
    """A block that is one part of the work of this thread, such as world 3 of 8."""
    current = _current.get()
    with nullcontext() if current is None else working(current.stage, label):
        yield


def counted(items: Sequence[T], unit: str) -> Iterator[T]:
    """The items, one after the other, each told when it is begun."""
    for position, item in enumerate(items):
        advance(position, len(items), unit)
        yield item


def advance(done: int, total: int, unit: str, note: str = "") -> None:
    """Say how far the work of this thread is; outside of a stage nobody hears it.

    >>> heard = []
    >>> with listening(heard.append), working("backtests"):
    ...     advance(50, 100, "bars")
    >>> heard[-1].done, heard[-1].stage
    (50, 'backtests')
    """
    current = _current.get()
    if current is not None and _listeners:
        tell(replace(current, done=done, total=total, unit=unit, note=note))
