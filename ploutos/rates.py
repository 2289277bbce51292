"""How fast this machine was: seconds per unit of work of every stage, kept after a run, and what a run like it would take.

What a stage takes is counted from the end of the one before it, so that stages which run at the same time are not counted twice.
"""

import json
import time
from collections.abc import Callable, Mapping
from math import comb
from pathlib import Path

from ploutos.envs.spec import with_initial_cash
from ploutos.errors import StoreError
from ploutos.hardware.machine import usable_cores
from ploutos.llm.config import LLMProvider
from ploutos.preflight import Outlook
from ploutos.store import write_json

_MEASURED_S = 2.0
_ADVICE = ("signals", "mirrored")
_WORLDS = 7


def work_of(outlook: Outlook) -> dict[str, float]:
    """Units of work of every stage of a run; a unit means the same in another run, for one stage."""
    config, n_symbols, tested = outlook.config, outlook.bars.n_symbols, outlook.n_test_bars
    trained = sum(fold.train.n_bars for fold in outlook.folds) * n_symbols
    steps = config.training.planned_timesteps * len(outlook.folds) / workers_of(outlook)
    every, decided = float(outlook.bars.n_bars * n_symbols), float(tested * n_symbols)
    work = {name: every for name in ("bars", "quality", "features", "folds", "llm-features")}
    work |= {name: decided for name in (_ADVICE[0], "fusion-choice", "backtests", "advice-controls", "in-sample", "candidates", "report")}
    work |= {"policy": steps * config.training.members, "metrics": float(tested * config.evaluation.replications)}
    if config.supervised:
        work["regression"] = float(trained * len(config.supervised))
    if config.training.is_taught:
        work["teacher"] = float(trained)
    if config.llm.mirrors:
        work[_ADVICE[1]] = decided
    if config.with_hybrid:
        work["hybrid"] = 2 * steps * config.hybrid.timesteps_share * config.hybrid.members
    if config.evaluation.robustness.enabled:
        work["robustness"] = decided * (_WORLDS + config.evaluation.robustness.perturbations)
    spec = config.evaluation.recombination
    if spec.enabled and config.regression.enabled:
        work["recombined"] = decided * comb(spec.groups, spec.test_groups)
    return work


def workers_of(outlook: Outlook) -> int:
    """Training processes at once."""
    return outlook.config.hardware.workers or usable_cores()


def keep_rates(home: Path, seconds: Mapping[str, float], outlook: Outlook) -> None:
    """Remember what stages took that were computed, beside what is known of others; what a language model took is not known of the next."""
    work = work_of(outlook)
    unknown = () if _is_mock(outlook) else _ADVICE
    found = {name: taken / work[name] for name, taken in seconds.items() if work.get(name) and name not in unknown}
    write_json(home / "rates.json", _read(home) | found)


def _is_mock(outlook: Outlook) -> bool:
    return outlook.config.llm.provider is LLMProvider.MOCK


def rates_for(home: Path, outlook: Outlook) -> dict[str, float]:
    """Seconds per unit by stage, as far as they are known for a run; empty before the first one.

    Raises:
        StoreError: the file is damaged.
    """
    return {name: rate for name, rate in _read(home).items() if _is_mock(outlook) or name not in _ADVICE}


def _read(home: Path) -> dict[str, float]:
    """Every rate that is known.

    Raises:
        StoreError: the file is damaged.
    """
    file = home / "rates.json"
    try:
        return {str(name): float(rate) for name, rate in json.loads(file.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise StoreError(f"{file} is damaged; remove it: the next run writes it again") from error


def measure_training(outlook: Outlook, clock: Callable[[], float] = time.perf_counter) -> float:
    """Environment steps per second of one training process, measured now on the first fold for some seconds; nothing is kept."""
    from ploutos.seeding import seed_integer
    from ploutos.training.ppo import build_env, build_model, fit_range_scaler, learning_ranges

    config, fold = outlook.config, outlook.folds[0]
    env_spec = with_initial_cash(config.env, outlook.bars, fold.train)
    learnt, _ = learning_ranges(fold, config.training)
    seed = seed_integer(config.seed, "rate")
    env = build_env(outlook.bars, outlook.features, fit_range_scaler(outlook.features, learnt), learnt, env_spec, config.training, seed)
    model = build_model(env, config.training, seed, "cpu")
    rollout = config.training.n_envs * config.training.n_steps
    model.learn(rollout, log_interval=10**9)  # what is compiled or allocated once is not measured
    started, steps = clock(), 0
    while not steps or clock() - started < _MEASURED_S:
        model.learn(rollout, log_interval=10**9, reset_num_timesteps=False)
        steps += rollout
    return steps / (clock() - started)
