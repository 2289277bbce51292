"""The seed document's script names as programs of their own; each is a command of `ploutos`."""

import sys
from pathlib import Path

from ploutos.cli import start

COMMANDS = {
    "run_hardware_maximized": ["run", "--mode", "hardware-maximized"],
    "run_pipeline": ["run", "--mode", "pipeline"],
    "validate_testing_framework": ["validate"],
    "benchmark_framework": ["benchmark"],
    "compare_benchmarks": ["compare-benchmarks"],
}


def start_as_named() -> None:
    """Run the command that the program's own name stands for, with its arguments."""
    sys.argv[1:1] = COMMANDS[Path(sys.argv[0]).stem]
    start()
