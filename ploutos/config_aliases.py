"""Keys of the testing framework's and the knowledge base's YAML files, as ploutos' own settings.

The two files of the seed document load as they stand. A key of theirs either becomes settings of ours or has no effect here, and then
`translate` says why; none is dropped without a word. A key that is neither theirs nor ours stays, and the configuration refuses it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ploutos.errors import ConfigError

_PRODUCTION = 10
"""The document's `total_timesteps` of a phase are a tenth of those in production."""
_BATCHED = 10
"""Rollouts that one point of the learning curve sums up where logging is batched."""

Settings = dict[str, Any]


def _renamed(target: str) -> Callable[[Any], Settings]:
    return lambda value: {target: value}


def _net_arch(value: Any) -> Settings:
    """One list for policy and value function."""
    if isinstance(value, dict):
        if set(value) - {"pi", "vf"} or len({str(layers) for layers in value.values()}) != 1:
            raise ConfigError(f"net_arch is {value}; policy and value function have the same layers here, so give pi and vf one list")
        value = next(iter(value.values()))
    return {"training.net_arch": value}


def _phase2(value: Any) -> Settings:
    steps = _steps("phase2.total_timesteps", value)
    return {"training.total_timesteps": _PRODUCTION * steps, "training.timesteps_reduction": 1 / _PRODUCTION}


def _steps(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key} is {value!r}; expected a number of steps, 1 or more")
    return value


def _reallocate(value: Any) -> Settings:
    return {} if value else {"pipeline.min_free_ram_gib": 0.0, "pipeline.min_free_vram_gib": 0.0}


_ALIASES: dict[str, Callable[[Any], Settings]] = {
    "hardware.vectorized_envs": _renamed("training.n_envs"),
    "hardware.batch_size": _renamed("training.batch_size"),
    "vectorized_envs": _renamed("training.n_envs"),
    "batch_size": _renamed("training.batch_size"),
    "timesteps_reduction": _renamed("training.timesteps_reduction"),
    "training.policy_kwargs.net_arch": _net_arch,
    "training.net_arch": _net_arch,
    "net_arch": _net_arch,
    "mixed_precision": _renamed("training.speed.bf16"),
    "hardware.mixed_precision": _renamed("training.speed.bf16"),
    "training.mixed_precision": _renamed("training.speed.bf16"),
    "performance.mixed_precision": _renamed("training.speed.bf16"),
    "optimize_memory": _renamed("hardware.autoscale"),
    "hardware.optimize_memory": _renamed("hardware.autoscale"),
    "performance.optimize_memory": _renamed("hardware.autoscale"),
    "performance.batched_logging": lambda value: {"training.log_every_rollouts": _BATCHED if value else 1},
    "pipeline.reallocate_resources": _reallocate,
    "phase2.total_timesteps": _phase2,
    "phase2.gpu_usage": _renamed("pipeline.gpu_usage_phase2"),
    "phase3.gpu_usage": _renamed("pipeline.gpu_usage_phase3"),
    "dataset_path": lambda value: {"data.source": "files", "data.path": value},
    "train_years": _renamed("folds.train_years"),
}

_A_SHARE = "how busy a GPU is cannot be set; manifest.json and hardware.csv say how busy it was"
_NO_EFFECT = {
    "hardware.memory_fraction": "torch takes GPU memory as it needs it; hardware.autoscale fits a run to four fifths of what is there",
    "performance.cached_llm_features": "the features of all bars are computed once and kept in the store, whatever is set",
    "performance.vectorized_decision_fusion": "decisions are always fused in batches; the loop exists only in benchmarks",
    "performance.environment_state_pooling": "accounts step together in one batch, which is built in a millisecond and not pooled",
    "pipeline.auto_advance": "a phase always follows when the previous one is done; --start-phase starts from a later one",
    "pipeline.reallocate_resources": "memory is always freed and waited for between phases; it cannot be switched off",
    "phase1.gpu_usage": _A_SHARE,
    "phase1.estimated_duration": "nothing is scheduled by an estimate; a validation report holds the time that was measured",
    "phase2.estimated_duration": "nothing is scheduled by an estimate; a validation report holds the time that was measured",
    "phase3.estimated_duration": "nothing is scheduled by an estimate; a validation report holds the time that was measured",
    "checkpoint.strategy": "every finished stage of every phase is kept, and trainings in progress every checkpoint.every_rollouts",
    "monitoring.monitor_gpu": "readings cost at most 2 % of a core; hardware.log_interval makes them less frequent",
    "quantization": "the server's model tag decides: llm.model=llama3.2:3b-instruct-q4_K_M",
    "llm.quantization": "the server's model tag decides: llm.model=llama3.2:3b-instruct-q4_K_M",
}
_PHASE3 = "phase3.total_timesteps"
KEYS = (*_ALIASES, *(key for key in _NO_EFFECT if key not in _ALIASES), _PHASE3)
"""Every key that is accepted beside ploutos' own."""


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, as deep as a key of theirs or of ours may reach."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in KEYS or not isinstance(value, dict) or not any(known.startswith(f"{key}.") for known in KEYS):
            yield key, value
        else:
            yield from _leaves(value, f"{key}.")


def _put(values: dict[str, Any], key: str, value: Any, given: str) -> None:
    *path, name = key.split(".")
    for part in path:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    if values.get(name, value) != value:
        raise ConfigError(
            f"{given} sets {key} to {value!r}, and another key of the same file sets it to {values[name]!r}; leave one of them out"
        )
    values[name] = value


def translate(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A file's values in ploutos' own keys, and a sentence for each key that has no effect.

    Raises:
        ConfigError: a value of theirs has no counterpart here, or two keys contradict each other.

    >>> translate({"hardware": {"vectorized_envs": 32}, "phase1": {"estimated_duration": 300}})[0]
    {'training': {'n_envs': 32}}
    """
    translated: dict[str, Any] = {}
    notes: list[str] = []
    found = dict(_leaves(values))
    for key, value in found.items():
        if key == _PHASE3:
            if "phase2.total_timesteps" not in found:
                raise ConfigError(f"{key} is a share of phase 2's steps here; give phase2.total_timesteps too, or hybrid.timesteps_share")
            settings = {"hybrid.timesteps_share": _steps(key, value) / _steps("phase2.total_timesteps", found["phase2.total_timesteps"])}
        elif key in _ALIASES:
            settings = _ALIASES[key](value)
        else:
            settings = {} if key in _NO_EFFECT else {key: value}
        if not settings:
            notes.append(f"{key} is accepted and has no effect here: {_NO_EFFECT[key]}")
        for target, setting in settings.items():
            _put(translated, target, setting, key)
    return translated, notes
