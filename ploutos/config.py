"""One configuration for one run: every room's spec in one tree, presets, and a YAML file or `a.b=c` on top."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, field_validator, model_validator

from ploutos.advisor.config import LLMConfig
from ploutos.config_aliases import translate
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError
from ploutos.evaluation.spec import EvaluationSpec
from ploutos.faults import explain, suggestion
from ploutos.features.spec import FeatureSpec
from ploutos.fusion.spec import FusionSpec, HybridSpec
from ploutos.hardware.resources import ResourceSpec
from ploutos.llm.config import LLMProvider
from ploutos.market.data_spec import DataSpec
from ploutos.specs import Spec
from ploutos.strategies.spec import RegressionKind, RegressionSpec
from ploutos.training.spec import CheckpointSpec, Device, LogSpec, TrainingSpec
from ploutos.walk_forward import FoldSpec

logger = logging.getLogger(__name__)


RunnerName = Literal["thread", "process", "dask", "ray", "workers"]


class HardwareSpec(Spec):
    """How much of the machine a run may use."""

    workers: PositiveInt | None = None
    """Training processes at once, one thread each; empty means one per usable core, and more do not help."""
    device: Device = "cpu"
    """Where networks are trained; `auto` is the GPU if there is one that torch can use. A run's config.yaml names the device that was
    used."""
    autoscale: bool = False
    """Fit n_envs, n_steps, batch_size and workers to the machine, up to the values set; results then depend on the machine. A run's
    config.yaml holds the fitted numbers and false, so it gives the same results anywhere."""
    runner: RunnerName = "thread"
    """Where the tasks of folds and members run: `thread` is this process with training processes of its own, `process` a process each,
    `dask` and `ray` a cluster, `workers` Prefect workers on any host. A policy's bytes are the same on each."""
    scheduler: str | None = None
    """Address of the cluster of `dask` (tcp://host:8786) or `ray` (ray://host:10001); empty starts one on this host for the run."""
    tasks: PositiveInt | None = None
    """Prefect tasks at once in this process, one thread each; empty means one per usable core."""
    log_interval: PositiveFloat = 1.0
    """Seconds between two readings of memory, cores and GPU for hardware.csv."""

    @property
    def left_to_machine(self) -> bool:
        """Whether a setting waits for the machine it runs on."""
        return self.autoscale or self.device == "auto"

    @model_validator(mode="after")
    def _only_a_cluster_has_an_address(self) -> "HardwareSpec":
        if self.scheduler is not None and self.runner not in ("dask", "ray"):
            raise ValueError(
                f"hardware.scheduler is set and hardware.runner is {self.runner}; expected runner dask or ray with an address; choose one, "
                "or leave hardware.scheduler empty"
            )
        return self


class PipelineConfig(Spec):
    """Everything that decides a run. Two runs with equal configurations on equal data give equal numbers."""

    name: str = "full"
    """Label of the run, part of its folder's name."""
    seed: NonNegativeInt = 42
    """Root of every seed."""
    out: Path | None = None
    """Folder to write the run into; empty makes one under $PLOUTOS_HOME/runs."""
    data: DataSpec = DataSpec()
    """Phase 1: which bars."""
    features: FeatureSpec = FeatureSpec()
    """Phase 1: which features."""
    folds: FoldSpec = FoldSpec()
    """Phase 2: walk-forward geometry."""
    env: EnvSpec = EnvSpec()
    """Phase 2: account, costs, reward."""
    training: TrainingSpec = TrainingSpec()
    """Phase 2: PPO and its ensemble."""
    regression: RegressionSpec = RegressionSpec()
    """Phase 2: supervised models beside the policies."""
    llm: LLMConfig = LLMConfig(provider=LLMProvider.MOCK)
    """Phase 3: the advisor; the mock, in every preset, unless llm.provider names another."""
    fusion: FusionSpec = FusionSpec()
    """Phase 3: fusion and risk."""
    hybrid: HybridSpec = HybridSpec()
    """Phase 3: policies that observe the advice."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """The verdict and its intervals."""
    hardware: HardwareSpec = HardwareSpec()
    """Processes and device."""
    pipeline: ResourceSpec = ResourceSpec()
    """The pause between phases, and the memory that must be free."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """Checkpoints of training."""
    logging: LogSpec = LogSpec()
    """Logs of the training runs, for people to read."""

    @property
    def supervised(self) -> tuple[RegressionKind, ...]:
        """Supervised models that stand beside the policies: `regression.models`, and the one that taught them."""
        kinds, taught_by = self.regression.models if self.regression.enabled else (), self.training.taught_by
        return (*kinds, taught_by) if kinds and taught_by and taught_by not in kinds else kinds

    @property
    def with_hybrid(self) -> bool:
        """Whether hybrid policies are trained."""
        return self.llm.provider is LLMProvider.MOCK if self.hybrid.enabled is None else self.hybrid.enabled

    @model_validator(mode="after")
    def _every_hybrid_has_a_start(self) -> "PipelineConfig":
        if self.with_hybrid and self.hybrid.members > self.training.members:
            raise ValueError(
                f"hybrid.members is {self.hybrid.members} and training.members {self.training.members}; "
                "a hybrid policy starts from the member of its number, so choose at most that many"
            )
        return self

    @model_validator(mode="after")
    def _fine_tuning_leaves_something(self) -> "PipelineConfig":
        rate, decay = self.hybrid.learning_rate, self.training.weight_decay
        if self.with_hybrid and rate is not None and rate * decay >= 1:
            raise ValueError(
                f"hybrid.learning_rate {rate:g} at training.weight_decay {decay:g} shrinks every weight to nothing at each step; it must "
                f"be below {1 / decay:g}"
            )
        return self

    @model_validator(mode="after")
    def _all_data_settings_are_read(self) -> "PipelineConfig":
        if (unread := self.data.unread) is not None:
            raise ValueError(unread)
        return self

    @model_validator(mode="after")
    def _texts_have_a_reader(self) -> "PipelineConfig":
        if self.data.texts is not None and self.llm.provider is LLMProvider.MOCK:
            raise ValueError(
                f"data.texts is {self.data.texts}, and llm.provider is mock, a fixed rule that cannot read; name a model, such as "
                "llm.provider=ollama, or leave the texts out"
            )
        return self

    @model_validator(mode="after")
    def _the_subject_takes_part(self) -> "PipelineConfig":
        subject, kinds = self.evaluation.subject, self.supervised
        there = ["auto", "vote", "fused", *(["hybrid"] if self.with_hybrid else []), *(f"regression:{kind}" for kind in kinds)]
        if subject not in there:
            raise ValueError(f"evaluation.subject is {subject}, which this run does not have; choose one of {', '.join(there)}")
        return self

    @field_validator("llm", mode="before")
    @classmethod
    def _mock_unless_named(cls, value: Any) -> Any:
        """An `llm` section that names no provider must not begin to call one."""
        return {"provider": LLMProvider.MOCK, **value} if isinstance(value, dict) else value


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "training": {"timesteps_reduction": 0.02, "members": 3},
        "evaluation": {"replications": 1000, "robustness": {"perturbations": 0}},
        "pipeline": {"pause_between_phases": 1.0},
    },
    "quick": {"training": {"timesteps_reduction": 0.01}},
    "test": {"training": {"timesteps_reduction": 0.1}},
    "full": {},
    "hardware_maximized": {
        "training": {"total_timesteps": 10_000_000, "n_envs": 256, "n_steps": 4_096, "batch_size": 65_536},
        "hardware": {"device": "auto", "autoscale": True},
    },
}


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """One nested dictionary over another, key by key."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _override(text: str) -> dict[str, Any]:
    """`a.b=c` as a nested dictionary; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r} is not a setting; expected one such as training.members=5")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        if any(mark in value for mark in "[]{}"):
            raise ConfigError(f"--set {text!r}: the value cannot be read as YAML: {str(error).splitlines()[0]}") from error
        parsed = value  # a date format or a separator is not valid YAML
    nested: Any = parsed
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def make_config(values: dict[str, Any]) -> PipelineConfig:
    """A configuration from plain values.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or a value that does not fit.
    """
    try:
        return PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, PipelineConfig)) from error


def _translated(values: dict[str, Any]) -> dict[str, Any]:
    """Values in ploutos' own keys; what has no effect is said."""
    translated, notes = translate(values)
    for note in notes:
        logger.warning(note)
    return translated


def load_config(
    preset: str = "full", file: Path | None = None, overrides: Sequence[str] = (), defaults: dict[str, Any] | None = None
) -> PipelineConfig:
    """A preset, then a YAML file, then `a.b=c` overrides; the later one wins.

    Keys of the seed documents' files are taken as well; a warning names each that has no effect (`ploutos.config_aliases`).

    Args:
        defaults: values between the preset and the file.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key, or a value that does not fit.

    Examples:
        >>> load_config("demo", overrides=["training.members=2"]).training.members
        2
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset {preset!r} is unknown; use one of {', '.join(PRESETS)}{suggestion(preset, list(PRESETS))}")
    values: dict[str, Any] = merge({"name": preset, **PRESETS[preset]}, defaults or {})
    if file is not None:
        try:
            given = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(given, dict):
            raise ConfigError(f"{file} holds a {type(given).__name__}; expected sections such as data: and training:")
        values = merge(values, _translated(given))
    for text in overrides:
        values = merge(values, _translated(_override(text)))
    return make_config(values)


def dump_yaml(config: PipelineConfig) -> str:
    """The resolved configuration as YAML that `load_config` reads again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
