"""A cached stage: the key of a task, and the state that says whether its artifact was there already.

Key = stage name + source of the library modules it stands on and of the task's own code + the config fields it reads + sha256 of what
it is given.
Prefect's own result cache is not used: it would hand out a reference whose file is gone. Here the file is checked first.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger
from prefect.states import Completed

from ploutos.provenance import logic_of, source_digest
from ploutos.store import Ref, Store, digest_of

Write = Callable[[Path], object]


def stage_key(name: str, modules: Sequence[str], config: Any, upstream: Sequence[str], write: Write) -> tuple[str, dict[str, Any]]:
    """Cache key of a stage, and what went into it.

    Args:
        modules: library modules the stage stands on beside those that `write` names, such as what a worker runs; what they import
            within ploutos counts as well.
        write: what computes it; its own source counts, and that of every function of the tasks that it names.
        config: exactly the settings it reads, JSON-able.
        upstream: sha256 of everything it is given.
    """
    logic, named = logic_of(write, ("tasks",))
    describe = {
        "stage": name,
        "source": source_digest(*modules, *sorted(named)),
        "task": logic,
        "config": config,
        "upstream": list(upstream),
    }
    return digest_of(describe), describe


def run_stage(
    store: Store,
    name: str,
    modules: Sequence[str],
    config: Any,
    upstream: Sequence[str],
    suffix: str,
    write: Write,
    label: str = "",
) -> State[Ref]:
    """Compute a stage's artifact, or find it; the state is named `Cached` when it was found intact."""
    key, describe = stage_key(name, modules, config, upstream, write)
    ref, hit = store.cached(name, key, suffix, write, describe)
    title = f"{name} {label}".strip()
    get_run_logger().info("%s: %s %s", title, "cached" if hit else "computed", ref.sha256[:12])
    return Completed(name="Cached" if hit else "Completed", message=f"{title} {ref.sha256[:12]}", data=ref)
