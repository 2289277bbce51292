"""Members that sleep: what a runner, Prefect and the store take for each of them is all that they take; `benchmarks.fanout --sleep S`."""

import time
from pathlib import Path
from typing import Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from flows.member import TASKS, member
from flows.stages import at_work
from ploutos.config import PipelineConfig
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.training.checkpoint import POLICY
from tasks.stage import keep_stage, stage_key

__all__ = ["member", "sleeping"]


@task(name="sleep", task_run_name="sleep {number}", cache_policy=NO_CACHE)
def sleep(store: Store, number: int, seconds: float) -> State[Ref]:
    """A member that writes its number when it has slept."""

    def rest(path: Path) -> None:
        time.sleep(seconds)
        path.write_text(str(number))

    return keep_stage(store, "sleep", POLICY, stage_key("sleep", POLICY, number, [], rest), rest, f"member {number}")


TASKS[sleep.name] = sleep  # for a Prefect worker, whose helper is this module's `member`


@flow(name="sleeping", persist_result=False)
def sleeping(config: PipelineConfig, n_members: int, seconds: float) -> list[Any]:
    """All members, on the runner of the settings; their digests."""
    with at_work(config, Settings()) as stages:
        futures = [stages.spread(sleep, stages.store, number, seconds) for number in range(n_members)]
        return [future.result().sha256 for future in futures]
