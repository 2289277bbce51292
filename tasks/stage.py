"""A cached stage: the key of a task, and the state that says whether its artifact was there already.

Key = stage name + source of the library modules it stands on and of the task's own code + the config fields it reads + sha256 of what
it is given.
Prefect's own result cache is not used: it would hand out a reference whose file is gone. Here the file is checked first.
"""

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefect import State, get_run_logger
from prefect.states import Completed

from ploutos.errors import StoreError
from ploutos.progress import Progress, tell, working
from ploutos.provenance import logic_of, source_digest
from ploutos.store import Kind, Ref, Store, digest_of
from tasks.slots import SlotName, slot

T = TypeVar("T")
_WORK = ("ploutos.training.jobs", "ploutos.fusion.jobs", "ploutos.strategies.regression")


def code_of_work() -> str:
    """Digest of the code that fits and trains, and of the versions of the packages below it."""
    return source_digest(*_WORK)


def stage_key(name: str, kind: Kind[Any], config: Any, upstream: Sequence[str], work: Callable[..., object]) -> tuple[str, dict[str, Any]]:
    """Cache key of a stage, and what went into it.

    Args:
        config: exactly the settings it reads, JSON-able.
        upstream: sha256 of everything it is given.
        work: what computes it; its own source counts, that of every function of the tasks that it names, and every library module
            that these name or close over, what a worker runs included, with all that it imports within ploutos.
    """
    logic, named = logic_of(work, ("tasks",))
    describe = {
        "stage": name,
        "source": source_digest(*sorted({*named, kind.write.__module__})),
        "task": logic,
        "config": config,
        "upstream": list(upstream),
    }
    return digest_of(describe), describe


def run_stage(
    store: Store,
    name: str,
    kind: Kind[T],
    config: Any,
    upstream: Sequence[str],
    compute: Callable[[], T],
    label: str = "",
    needs: SlotName | None = None,
) -> State[Ref]:
    """Compute a stage's artifact, or find it; the state is named `Cached` when it was found intact.

    Args:
        label: which of many of its name, for the log.
        needs: the slot that is held while it is computed.
    """
    key = stage_key(name, kind, config, upstream, compute)
    return keep_stage(store, name, kind, key, lambda path: kind.write(compute(), path), label, needs)


def keep_stage(
    store: Store,
    name: str,
    kind: Kind[Any],
    key: tuple[str, dict[str, Any]],
    write: Callable[[Path], object],
    label: str = "",
    needs: SlotName | None = None,
) -> State[Ref]:
    """The same for what writes its file itself.

    Args:
        key: from `stage_key`.

    Raises:
        StoreError: this is a worker whose code is not that of the flow.
    """
    if store.code and store.code != code_of_work():
        raise StoreError(
            f"the worker on {platform.node()} has different code from the flow, ploutos' own or that of a package below it; "
            "install the same versions on every host and start the workers again"
        )

    def computed(path: Path) -> None:
        with slot(needs):
            write(path)

    with working(name, label):
        ref, hit = store.cached(name, key[0], kind, computed, key[1])
    tell(Progress(name, label, "cached" if hit else "computed"))
    title = f"{name} {label}".strip()
    get_run_logger().info("%s: %s %s", title, "cached" if hit else "computed", ref.sha256[:12])
    return Completed(name="Cached" if hit else "Completed", message=f"{title} {ref.sha256[:12]}", data=ref)
