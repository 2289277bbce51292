"""The pause between phases."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.hardware.resources import GateSpec, describe, wait_for_resources


@task(name="settle", task_run_name="settle before {phase}", cache_policy=NO_CACHE)
def settle(phase: str, spec: GateSpec) -> None:
    """Let go of memory and wait until enough is free for the next phase."""
    machine = wait_for_resources(spec)
    get_run_logger().info("before %s: %s", phase, describe(machine))
