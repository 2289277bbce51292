"""The pause between phases."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.hardware import resources
from ploutos.hardware.resources import ResourceSpec, describe


@task(name="wait-for-resources", task_run_name="wait for resources before {phase}", cache_policy=NO_CACHE)
def wait_for_resources(phase: str, spec: ResourceSpec) -> None:
    """Let go of memory and wait until enough is free for the next phase."""
    machine = resources.wait_for_resources(spec)
    get_run_logger().info("before %s: %s", phase, describe(machine))
