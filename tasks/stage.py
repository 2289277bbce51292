"""A cached stage: the key of a task, and the state that says whether its artifact was there already.

Key = stage name + source of the library modules it stands on + the config fields it reads + sha256 of what it is given.
Prefect's own result cache is not used: it would hand out a reference whose file is gone. Here the file is checked first.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger
from prefect.states import Completed

from ploutos.provenance import source_digest
from ploutos.store import Ref, Store, digest_of


def stage_key(name: str, modules: Sequence[str], config: Any, upstream: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Cache key of a stage, and what went into it.

    Args:
        modules: library modules the stage calls; their imports within ploutos count as well.
        config: exactly the settings it reads, JSON-able.
        upstream: sha256 of everything it is given.
    """
    describe = {"stage": name, "source": source_digest(*modules), "config": config, "upstream": list(upstream)}
    return digest_of(describe), describe


def run_stage(
    store: Store,
    name: str,
    modules: Sequence[str],
    config: Any,
    upstream: Sequence[str],
    suffix: str,
    write: Callable[[Path], object],
    label: str = "",
) -> State[Ref]:
    """Compute a stage's artifact, or find it; the state is named `Cached` when it was found whole."""
    key, describe = stage_key(name, modules, config, upstream)
    ref, hit = store.cached(name, key, suffix, write, describe)
    title = f"{name} {label}".strip()
    get_run_logger().info("%s: %s %s", title, "cached" if hit else "computed", ref.sha256[:12])
    return Completed(name="Cached" if hit else "Completed", message=f"{title} {ref.sha256[:12]}", data=ref)
