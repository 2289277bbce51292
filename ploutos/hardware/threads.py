"""Thread caps. 256 processes with 128 BLAS threads each are 32,768 threads; ours start one.

The numeric libraries read these variables once, when they are first imported. So the caps are put into the environment
that worker processes are born with, and a process that must hold them itself calls `cap_threads` before it imports
numpy or torch. This module imports neither.
"""

import os
from collections.abc import Mapping

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def capped_environment(threads: int = 1) -> dict[str, str]:
    """The variables that hold a process to `threads` threads per numeric library."""
    return {name: str(threads) for name in VARIABLES}


def cap_threads(threads: int = 1) -> None:
    """Cap this process and all its children; only before numpy and torch are imported does it reach this one."""
    os.environ.update(capped_environment(threads))


def uncapped(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that an environment leaves unset."""
    return [name for name in VARIABLES if name not in environment]
