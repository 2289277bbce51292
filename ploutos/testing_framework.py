"""The testing framework of the seed document, by its own names: thin over the parts that every run is made of.

What the document prints as a number is a number here: without a GPU the utilisation is nan, in percent as it prints it, and its `:.1f`
works. In a report nan is null, with the reason beside it. A target that nothing could be measured for is neither met nor missed.

A run is the pipeline's flow. The library knows no orchestrator, so the flow is imported when a run starts and not before; give
`TestingFramework` another `run` and it never is.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import gymnasium
import numpy as np
from numpy.typing import ArrayLike
from pydantic import PositiveFloat

from ploutos.config import PipelineConfig, load_config
from ploutos.envs import pool
from ploutos.errors import ConfigError, PoolError
from ploutos.features.online import OptimizedFeatureCache
from ploutos.fusion import decisions
from ploutos.hardware import monitor
from ploutos.hardware.monitor import NOT_EVALUATED
from ploutos.run_manifest import read_manifest
from ploutos.specs import Spec
from ploutos.store import write_json
from ploutos.training.callbacks import BatchedCallback
from ploutos.training.checkpoint import read_meta
from ploutos.types import IntArray

__all__ = [
    "BatchedCallback", "EnvironmentStatePool", "HardwareMonitor", "OptimizedFeatureCache", "TestConfig", "TestingFramework",
    "ValidationReport", "VectorizedDecisionFusion", "create_test_config",
]  # fmt: skip

Mode = Literal["hardware_maximized", "pipeline"]
Env = TypeVar("Env", bound=gymnasium.Env[Any, Any])
_GB = 10**9
_DEFAULT_MARKET = "NQ"


class HardwareMonitor(monitor.HardwareMonitor):
    """`ploutos.hardware.monitor.HardwareMonitor` with the document's unit."""

    def get_average_gpu_utilization(self) -> float:
        """Mean of NVML's utilisation over all readings, percent; nan where there is no GPU or it does not tell."""
        share = super().get_average_gpu_utilization()
        return math.nan if share is None else 100 * share


class VectorizedDecisionFusion(decisions.VectorizedDecisionFusion):
    """`ploutos.fusion.decisions.VectorizedDecisionFusion` that takes lists as well as arrays."""

    def fuse_batch(
        self,
        rl_actions: ArrayLike,
        rl_confidences: ArrayLike,
        llm_actions: ArrayLike,
        llm_confidences: ArrayLike,
        risk_scores: ArrayLike,
    ) -> IntArray:
        """One action per decision, by the rules of the original.

        >>> VectorizedDecisionFusion().fuse_batch([1, 1], [0.5, 0.5], [2, 2], [0.9, 0.9], [0.0, 0.9]).tolist()
        [2, 0]
        """
        rl, llm = np.asarray(rl_actions, dtype=np.int64), np.asarray(llm_actions, dtype=np.int64)
        numbers = [np.asarray(each, dtype=np.float64) for each in (rl_confidences, llm_confidences, risk_scores)]
        return super().fuse_batch(rl, numbers[0], llm, numbers[1], numbers[2])


class EnvironmentStatePool(Generic[Env]):
    """`ploutos.envs.pool.EnvironmentStatePool` that lends by number, as the document does.

    >>> pool = EnvironmentStatePool(gymnasium.make, {"id": "CartPole-v1"}, pool_size=2)
    >>> env_id, env = pool.acquire()
    >>> pool.release(env_id)
    >>> pool.close()

    Args:
        env_class: what builds an environment.
        env_kwargs: what it is called with.
        pool_size: most environments that exist at once.
    """

    def __init__(self, env_class: type[Env] | Any, env_kwargs: Mapping[str, Any] | None = None, pool_size: int = 8) -> None:
        self._pool: pool.EnvironmentStatePool[Env] = pool.EnvironmentStatePool(env_class, env_kwargs, pool_size)
        self._loans = itertools.count()
        self._lent: dict[int, Env] = {}

    def acquire(self, timeout: float = 30.0) -> tuple[int, Env]:
        """A number for this loan, and an environment that is nobody else's until the number is released.

        Args:
            timeout: seconds to wait for one when all are lent.

        Raises:
            ResourceError: none was released in time.
            PoolError: the pool is closed.
        """
        env, loan = self._pool.acquire(timeout), next(self._loans)
        self._lent[loan] = env
        return loan, env

    def release(self, env_id: int) -> None:
        """Give an environment back; it is reset before anyone else gets it.

        Raises:
            PoolError: nothing is lent by that number, or no longer.
        """
        env = self._lent.pop(env_id, None)
        if env is None:
            raise PoolError(f"no environment {env_id} is in use; release each number that acquire returned, once")
        self._pool.release(env)

    def close(self) -> None:
        """Close all idle environments now and each lent one when it is released."""
        self._pool.close()


class Targets(Spec):
    """What the document asks of a run."""

    gpu_utilization: PositiveFloat | None = None
    """More than this mean utilisation of the GPU, percent."""
    execution_time: PositiveFloat = 3600.0
    """Less than so many seconds."""
    cache_hit_rate: PositiveFloat | None = None
    """More than this share of a cache's questions answered."""
    peak_memory_gb: PositiveFloat | None = None
    """Less than so many GB at the peak, all processes together."""


class TestConfig(Spec):
    """A mode, the run that it makes, and what is asked of it."""

    __test__: ClassVar[bool] = False  # no test of pytest's

    mode: Mode
    """`hardware_maximized`: sizes fitted to the machine; `pipeline`: the phases one after the other, a tenth of the steps."""
    run: PipelineConfig
    """The run."""
    targets: Targets
    """The document's targets for the mode."""


@dataclass(frozen=True)
class _Mode:
    """What a mode of the document is made of; a new mode is a new entry of `_MODES`."""

    title: str
    preset: str
    values: Mapping[str, Any]
    targets: Targets


_MODES: dict[Mode, _Mode] = {
    "hardware_maximized": _Mode(
        "Hardware-Maximized Validation", "hardware_maximized", {"training": {"timesteps_reduction": 0.1}},
        Targets(gpu_utilization=90, cache_hit_rate=0.7, peak_memory_gb=24),
    ),
    "pipeline": _Mode("Automated Sequential Pipeline", "test", {}, Targets(execution_time=5400)),
}  # fmt: skip


def create_test_config(
    mode: str, market: str | None = None, file: Path | None = None, settings: Sequence[str] = (), quick: bool = False
) -> TestConfig:
    """The run of a mode: its preset, then a YAML file of ours or of the document, then single settings.

    Args:
        mode: `hardware_maximized` or `pipeline`; a hyphen will do.
        market: symbols, separated by commas; NQ by default. Their bars are simulated unless the file or a setting names a source.
        settings: as `training.members=1`.
        quick: train 1 % of the steps.

    Raises:
        ConfigError: an unknown mode or setting, or a value that does not fit.

    >>> create_test_config("pipeline", "ES").run.data.symbols
    ('ES',)
    """
    name = mode.replace("-", "_")
    found = next((key for key in _MODES if key == name), None)
    if found is None:
        raise ConfigError(f"mode {mode!r} is unknown; use one of {', '.join(get_args(Mode))}")
    asked = _MODES[found]
    defaults = {"name": found, "data": {"source": "synthetic"}, **asked.values}
    chosen = [f"data.symbols={json.dumps([name.strip() for name in market.split(',') if name.strip()])}"] if market is not None else []
    chosen += ["training.timesteps_reduction=0.01"] if quick else []
    run = load_config(asked.preset, file, [*chosen, *settings], defaults)
    if run.data.source == "synthetic" and not run.data.symbols:
        run = run.model_copy(update={"data": run.data.model_copy(update={"symbols": (_DEFAULT_MARKET,)})})
    return TestConfig(mode=found, run=run, targets=asked.targets)


@dataclass(frozen=True)
class Finding:
    """One target beside what was measured.

    Attributes:
        target: in words.
        met: None where nothing was measured.
        reason: why it was not evaluated; empty where it was.
    """

    target: str
    met: bool | None
    reason: str = ""


@dataclass(frozen=True)
class ValidationReport:
    """What a run took, by the document's names; None is what was not evaluated.

    Attributes:
        gpu_utilization: percent, mean over the run.
        execution_time: seconds.
        cache_hit_rate: share; a run asks no feature cache, so None.
        peak_memory_gb: all processes together, 10^9 bytes.
        timesteps_completed: environment steps that the run's policies were trained for, all folds and members.
        validation_passed: whether no target was missed and the time is that of the whole work.
        targets: by the same names.
        folder: of the run.
    """

    test_name: str
    gpu_utilization: float | None
    execution_time: float
    cache_hit_rate: float | None
    peak_memory_gb: float | None
    timesteps_completed: int
    validation_passed: bool
    targets: dict[str, Finding]
    folder: Path

    def as_json(self) -> dict[str, Any]:
        """The report as plain values; what was not evaluated is null."""
        return asdict(self) | {"folder": str(self.folder)}

    def save(self, path: Path) -> None:
        """Write it as JSON, in a folder that is made if it is not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.as_json())


def _run_flow(config: PipelineConfig) -> Path:
    """The pipeline's flow; Prefect is imported here and nowhere above."""
    from flows.pipeline import pipeline

    flow: Callable[[Any], Any] = pipeline  # a configuration will do in place of the form
    return Path(flow(config))


class TestingFramework:
    """Runs a mode, watches the machine meanwhile, and holds what it took against the document's targets.

    Args:
        config: of `create_test_config`.
        run: makes the run and gives its folder; the pipeline's flow by default.

    Attributes:
        hardware_monitor: its readings of the last run.
        total_time: seconds of the last run; nan before the first.
        folder: of the last run; None before the first.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, config: TestConfig, run: Callable[[PipelineConfig], Path] | None = None) -> None:
        self.config = config
        self.hardware_monitor = HardwareMonitor(config.run.hardware.log_interval)
        self.total_time = math.nan
        self.folder: Path | None = None
        self._run = run or _run_flow

    def run_hardware_maximized_validation(self) -> ValidationReport:
        """Train with sizes that are fitted to the machine, and compare what that took with the targets.

        Raises:
            ConfigError: the configuration is another mode's.
        """
        return self._validate("hardware_maximized")

    def run_automated_pipeline(self) -> ValidationReport:
        """All phases one after the other, with a pause between them; finished stages come from the store.

        Raises:
            ConfigError: the configuration is another mode's.
        """
        return self._validate("pipeline")

    def _validate(self, mode: Mode) -> ValidationReport:
        if self.config.mode != mode:
            raise ConfigError(f"the configuration is for mode {self.config.mode}; make one with create_test_config({mode!r})")
        started = time.monotonic()
        with self.hardware_monitor:
            self.folder = self._run(self.config.run)
        self.total_time = time.monotonic() - started
        return self._report(self.folder)

    def _report(self, folder: Path) -> ValidationReport:
        gpu, memory = self.hardware_monitor.get_average_gpu_utilization(), self.hardware_monitor.get_peak_memory_usage()
        busy, peak = None if math.isnan(gpu) else gpu, None if memory is None else memory / _GB
        measured = {"gpu_utilization": busy, "execution_time": self.total_time, "cache_hit_rate": None, "peak_memory_gb": peak}
        found = _findings(self.config.targets, measured, _not_done(folder))
        passed = all(each.met is not False for each in found.values()) and found["execution_time"].met is True
        return ValidationReport(
            _MODES[self.config.mode].title, gpu_utilization=busy, execution_time=self.total_time, cache_hit_rate=None,
            peak_memory_gb=peak, timesteps_completed=_timesteps(folder), validation_passed=passed, targets=found, folder=folder,
        )  # fmt: skip


_REASONS = {
    "gpu_utilization": "no GPU, or one that does not report it",
    "cache_hit_rate": "a run computes the features of all bars at once and asks no cache; the cache serves questions one by one",
    "peak_memory_gb": "the system does not report it",
}


def _findings(targets: Targets, measured: Mapping[str, float | None], not_done: str) -> dict[str, Finding]:
    """Every target of a mode beside what was measured.

    Args:
        not_done: what of the work this run left out, in words; a time is then none of the whole work.
    """
    found = {}
    for name, limit in targets:
        if limit is None:
            continue
        value, above = measured[name], name in ("gpu_utilization", "cache_hit_rate")
        words = f"{'>' if above else '<'} {limit:g}"
        if value is None:
            found[name] = Finding(words, None, f"{NOT_EVALUATED}: {_REASONS[name]}")
        elif name in ("execution_time", "gpu_utilization") and not_done:
            found[name] = Finding(words, None, f"{NOT_EVALUATED}: {not_done}")
        else:
            found[name] = Finding(words, value > limit if above else value < limit)
    return found


def _not_done(folder: Path) -> str:
    """What of the work a run left out: trainings that were found in the store, or earlier phases; empty when it did all."""
    stages = read_manifest(folder).stages
    stored = [name for name, state in stages.items() if state == "Cached" and name.startswith(("policy", "hybrid", "ablated"))]
    if stored:
        return f"{len(stored)} trainings came from the store ({stored[0]} first); an empty PLOUTOS_HOME measures them all"
    return "" if "bars" in stages else "the run started from a later phase"


def _timesteps(folder: Path) -> int:
    """Steps that all policies of a run were trained for, as their files say."""
    return sum(read_meta(path).timesteps for path in sorted(folder.glob("folds/**/policy.zip")))
