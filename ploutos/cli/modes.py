"""`ploutos run --mode` and `--start-phase`: the testing framework of the seed document on the command line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ploutos.cli.shared import console, say_simulated
from ploutos.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from ploutos.config import PipelineConfig
    from ploutos.testing_framework import TestConfig, ValidationReport

MODE_OPTION = typer.Option(
    "--mode", help="hardware-maximized or pipeline, instead of a preset; bars are simulated unless a source is named."
)
QUICK_OPTION = typer.Option("--quick", help="Train 1 % of the steps.")
MOCK_OPTION = typer.Option("--mock-llm", help="Use the mock advisor, whatever the file says.")
BATCH_OPTION = typer.Option("--batch-size", min=1, help="Size of an update's minibatch: training.batch_size.")
ENVS_OPTION = typer.Option("--vectorized-envs", min=1, help="Accounts that step together: training.n_envs.")
PHASE_OPTION = typer.Option(
    "--start-phase", min=1, max=3, help="Start from phase 2 or 3 of the newest run whose earlier phases had the same settings."
)


def shortcuts(quick: bool, mock_llm: bool, batch_size: int | None, vectorized_envs: int | None) -> list[str]:
    """The document's options as settings."""
    found = ["training.timesteps_reduction=0.01"] if quick else []
    found += ["llm.provider=mock"] if mock_llm else []
    numbers = {"training.batch_size": batch_size, "training.n_envs": vectorized_envs}
    return [*found, *(f"{key}={value}" for key, value in numbers.items() if value is not None)]


def asked_for(mode: str, preset: str | None, source: object, file: Path | None, overrides: Sequence[str]) -> "TestConfig":
    """A mode's run; where nobody named a source, that bars are simulated is said on stderr.

    Raises:
        ConfigError: a preset stands beside the mode, or a value does not fit.
    """
    from ploutos.testing_framework import create_test_config

    if preset is not None:
        raise ConfigError(f"--mode {mode} has its own preset; leave out --preset {preset}")
    config = create_test_config(mode, file=file, settings=overrides)
    data = config.run.data
    if source is None and data.source == "synthetic":
        say_simulated(data.symbols)
    return config


def going_on(config: "PipelineConfig", phase: int) -> Any:
    """A form for the pipeline's flow that keeps what an earlier run's phases made.

    Raises:
        ConfigError: no run under $PLOUTOS_HOME had the same settings in those phases.
    """
    from flows.forms import PipelineForm, fixed_before
    from ploutos.config import PipelineConfig
    from ploutos.settings import Settings

    fixed = fixed_before(phase)
    earlier = _newest_like(config, fixed, phase, Settings().runs_root)
    rest = {name: getattr(config, name).model_dump() for name in ("llm", "fusion", "hybrid", "evaluation", "env", "training", "regression",
            "hardware", "pipeline", "checkpoint", "logging") if name not in fixed}  # fmt: skip
    plain = {name: getattr(config, name) for name in ("name", "seed", "out") if name not in fixed}
    assert {*fixed, *rest, *plain} == set(PipelineConfig.model_fields)
    return PipelineForm.model_validate({**rest, **plain, "start_phase": phase, "from_run": earlier})


def _newest_like(config: "PipelineConfig", fixed: Sequence[str], phase: int, root: Path) -> Path:
    from ploutos.config import load_config
    from ploutos.remote_store import open_store
    from ploutos.reporting.run_list import list_runs
    from ploutos.run_manifest import read_refs
    from ploutos.settings import Settings

    store = open_store(Settings())
    for each in list_runs(root):
        made = load_config("full", each.folder / "config.yaml")
        if all(getattr(made, name) == getattr(config, name) for name in fixed):
            try:
                read_refs(each.folder, phase - 1, store)
            except StoreError:  # it ended too early, or its artifacts are gone
                continue
            return each.folder
    raise ConfigError(
        f"no run under {root} has the {', '.join(fixed)} settings that this one asks for and finished phase {phase - 1}; "
        "leave --start-phase out: finished stages are found in the store anyway"
    )


def print_findings(report: "ValidationReport") -> None:
    """Each target beside what was measured."""
    for name, finding in report.targets.items():
        value = getattr(report, name)
        word = {True: "met", False: "MISSED", None: finding.reason}[finding.met]
        measured = "" if value is None else f"{value:,.2f}, "
        console().print(f"{name} {finding.target}: {measured}{word}", highlight=False)


def watched(config: "TestConfig", run: "Callable[[PipelineConfig], Path]") -> "ValidationReport":
    """Make a mode's run under the framework's monitor."""
    from ploutos.testing_framework import TestingFramework

    framework = TestingFramework(config, run)
    work = {"hardware_maximized": framework.run_hardware_maximized_validation, "pipeline": framework.run_automated_pipeline}
    return work[config.mode]()
