"""A configuration with everything that is left to the machine written out, so that it gives the same on any other."""

import logging
from dataclasses import replace

import torch

from ploutos.config import PipelineConfig
from ploutos.envs.observation import column_names
from ploutos.features.build import FeatureSet
from ploutos.fusion.hybrid import hybrid_names
from ploutos.hardware.machine import Machine, read_machine, usable_cores
from ploutos.hardware.resources import describe
from ploutos.training.autoscale import TrainingSizes, Workload, autoscale
from ploutos.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_COPIES_OF_MARKET = 6
"""A worker holds the features as a table, as an array and as scaled rows, and bars in float64."""


def _most_observed(config: PipelineConfig, features: FeatureSet) -> tuple[tuple[str, ...], bool]:
    """Features of the widest observation that a run trains on, and whether it holds the account's."""
    return (hybrid_names(features.names), True) if config.with_hybrid else (features.names, config.env.observe_account)


def _hidden_units(training: TrainingSpec, n_symbols: int) -> int:
    """Of one sample: a shared network encodes every symbol, and joins each with the others."""
    units = sum(training.net_arch)
    return (units + training.net_arch[-1]) * n_symbols if training.network == "shared" else units


def resolve_for_machine(config: PipelineConfig, features: FeatureSet, machine: Machine | None = None) -> PipelineConfig:
    """The configuration with everything that is left to the machine written out; nothing else changes.

    Args:
        features: what policies will observe.
        machine: this one by default.

    Returns:
        A configuration with `hardware.device` named and `hardware.autoscale` false, which gives the same on any machine.

    Raises:
        ResourceError: not even the smallest training fits.
    """
    if not config.hardware.left_to_machine:
        return config
    machine = machine or read_machine()
    hardware, training = config.hardware, config.training
    if hardware.device == "auto":
        on_gpu = bool(machine.gpus) and torch.cuda.is_available()
        hardware = hardware.model_copy(update={"device": "cuda" if on_gpu else "cpu"})
        logger.info(
            "training runs on %s: %s, torch %s CUDA", hardware.device, describe(machine), "has" if torch.cuda.is_available() else "has no"
        )
    if hardware.autoscale:
        load = Workload(
            n_columns=len(column_names(features.symbols, *_most_observed(config, features))),
            n_symbols=len(features.symbols),
            hidden_units=_hidden_units(training, len(features.symbols)),
            lstm_units=training.lstm_size * (len(features.symbols) if training.network == "shared" else 1),
            market_bytes=_COPIES_OF_MARKET * features.values.nbytes,
            timesteps=round(training.total_timesteps * training.timesteps_reduction),
        )
        requested = TrainingSizes(training.n_envs, training.n_steps, training.batch_size, hardware.workers or machine.cores)
        recurrent = training.algorithm == "RecurrentPPO"
        scale = autoscale(machine if hardware.device == "cuda" else replace(machine, gpus=()), recurrent, load, requested)
        logger.info("requested %s; %s gives %s", requested, describe(machine), scale)
        sizes = {"n_envs": scale.n_envs, "n_steps": scale.n_steps, "batch_size": scale.batch_size}
        training = training.model_copy(update=sizes)
        hardware = hardware.model_copy(update={"workers": scale.workers, "autoscale": False})
    return config.model_copy(update={"training": training, "hardware": hardware})


def gpu_share(config: PipelineConfig, stage: str) -> float | None:
    """What of a GPU's memory one training may take, of what the settings give its phase; a process on another host is alone on its GPU."""
    together = config.pipeline.gpu_usage_phase2 if stage == "policy" else config.pipeline.gpu_usage_phase3
    n_processes = (config.hardware.workers or usable_cores()) if config.hardware.runner in ("thread", "process") else 1
    return None if together is None else together / n_processes
