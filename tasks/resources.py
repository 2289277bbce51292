"""The pause between phases, and the memory that must be free."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.hardware import resources
from ploutos.hardware.monitor import Pause
from ploutos.hardware.resources import Held, ResourceSpec
from ploutos.training.pool import end_shared_pools


@task(name="reallocate-resources", task_run_name="reallocate resources before {phase}", cache_policy=NO_CACHE)
def reallocate_resources(phase: str, spec: ResourceSpec, before: Held, on_gpu: bool) -> Pause:
    """Release memory and wait until enough is free for the next phase.

    Training processes that wait for work end where memory is short, and always where they trained on a GPU, whose memory they would keep.
    """
    pause = resources.reallocate(phase, spec, before, end_shared_pools, on_gpu)
    get_run_logger().info("before %s: %s", phase, resources.describe_pause(pause))
    return pause
