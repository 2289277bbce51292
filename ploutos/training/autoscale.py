"""How large a training may be on a machine: accounts, steps, minibatch, and how many trainings at once.

The numbers that change results (`n_envs`, `n_steps`, `batch_size`) come from what the machine is: its cores, its whole
memory, its GPU. What happens to be free at the moment decides `workers` alone, so a machine gives itself the same
numbers tomorrow. They begin at what is requested and are halved until the trainings of all cores fit at once.

The arithmetic, in bytes, with C columns observed, S symbols, N = n_envs * n_steps samples, B samples in a minibatch, W
units in all hidden layers, H units of an LSTM (0 without one):

    rollout buffer    N * (4 C + 8 S + 6 * 4 + 8)    observations, actions, six float32 vectors, the shuffled index
      its one copy    N * max(4 C, 4 H)              stable-baselines3 flattens one array at a time
      LSTM states     N * 4 * 4 H                    hidden and cell state, of policy and of value function
    minibatch         B * 4 * (2 C + 8 W + 40 H)     samples twice, activations and their gradients
    process           512 MiB + the market           interpreter, torch and compiled kernels: 470 MiB (PSS) were measured

Buffer and minibatch together were 1.1 to 2 times what a process with [256, 128] units was seen to take.
"""

from dataclasses import dataclass

from ploutos.errors import ResourceError
from ploutos.hardware.machine import Machine

_MIB, _GIB, _GB = 1 << 20, 1 << 30, 10**9
_SHARE = 0.8
"""Of memory; the rest is for page cache and for what the arithmetic forgets."""
_RESERVE_BYTES = 1 * _GIB
"""For the process that runs the flow and for Prefect's own server."""
_PROCESS_BYTES = 512 * _MIB
_CUDA_CONTEXT_BYTES = 600 * _MIB
_MIN_STEPS = 32
_MIN_MINIBATCHES = 4
_MIN_ROLLOUTS = 8
_RECURRENT_STEPS = 128
_BATCH_BY_VRAM = ((20 * _GB, 65_536), (10 * _GB, 16_384))
_BATCH_ELSE = 4_096


@dataclass(frozen=True)
class TrainingSizes:
    """Sizes of a training; `batch_size` divides `n_envs * n_steps`."""

    n_envs: int
    n_steps: int
    batch_size: int
    workers: int


@dataclass(frozen=True)
class Workload:
    """What one training computes and keeps.

    Attributes:
        n_columns: numbers in an observation.
        n_symbols: actions of a step.
        hidden_units: of all hidden layers together, policy's or value function's.
        lstm_units: of the LSTM, where there is one.
        market_bytes: bars, features and scaled rows of one process.
        timesteps: steps that will be trained, None when it is open. A rollout takes an eighth of them at most, so that
            training in whole rollouts stays near what was asked.
    """

    n_columns: int = 484
    n_symbols: int = 15
    hidden_units: int = 384
    lstm_units: int = 256
    market_bytes: int = 0
    timesteps: int | None = None


DEFAULT_REQUEST = TrainingSizes(n_envs=256, n_steps=4_096, batch_size=65_536, workers=1_024)


def rollout_bytes(n_samples: int, load: Workload, recurrent: bool = False) -> int:
    """Peak of a rollout buffer in bytes, its one copy included."""
    lstm = load.lstm_units if recurrent else 0
    kept = 4 * load.n_columns + 8 * load.n_symbols + 6 * 4 + 8 + 4 * 4 * lstm
    return n_samples * (kept + max(4 * load.n_columns, 4 * lstm))


def minibatch_bytes(batch_size: int, load: Workload, recurrent: bool = False) -> int:
    """What a gradient step keeps of its samples, in bytes."""
    lstm = load.lstm_units if recurrent else 0
    return batch_size * 4 * (2 * load.n_columns + 8 * load.hidden_units + 40 * lstm)


def training_bytes(scale: TrainingSizes, load: Workload, recurrent: bool = False) -> int:
    """Peak memory of one training process in bytes."""
    buffer = rollout_bytes(scale.n_envs * scale.n_steps, load, recurrent)
    return _PROCESS_BYTES + load.market_bytes + buffer + minibatch_bytes(scale.batch_size, load, recurrent)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is not above a limit of at least 1.

    >>> largest_divisor(14 * 4_096, 32_768)
    28672
    """
    divisors = (d for low in range(1, int(number**0.5) + 1) if number % low == 0 for d in (low, number // low))
    return max(divisor for divisor in divisors if divisor <= limit)


def _batch_limit(machine: Machine, requested: int) -> int:
    vram = machine.vram_bytes or 0
    return min(next((batch for least, batch in _BATCH_BY_VRAM if vram >= least), _BATCH_ELSE), requested)


def _sized(n_envs: int, n_steps: int, batch_limit: int) -> TrainingSizes:
    samples = n_envs * n_steps
    return TrainingSizes(n_envs, n_steps, largest_divisor(samples, max(min(batch_limit, samples // _MIN_MINIBATCHES), 1)), 1)


def _smaller(scale: TrainingSizes, batch_limit: int) -> TrainingSizes:
    """Half the steps, and when few are left, half the accounts."""
    if scale.n_steps > _MIN_STEPS:
        return _sized(scale.n_envs, max(scale.n_steps // 2, _MIN_STEPS), batch_limit)
    return _sized(scale.n_envs // 2, scale.n_steps, batch_limit)


def _on_gpu(machine: Machine, batch_size: int, load: Workload, recurrent: bool, free: bool) -> int | None:
    """Trainings that fit the GPU at once; None without one."""
    if not machine.gpus:
        return None
    memory = min(gpu.free_bytes if free else gpu.total_bytes for gpu in machine.gpus)
    return int(_SHARE * memory / (_CUDA_CONTEXT_BYTES + minibatch_bytes(batch_size, load, recurrent)))


def autoscale(
    machine: Machine, recurrent: bool = False, load: Workload | None = None, requested: TrainingSizes = DEFAULT_REQUEST
) -> TrainingSizes:
    """Sizes that use a machine and fit it; the same machine and load always give the same `n_envs`, `n_steps`, `batch_size`.

    Args:
        machine: with its GPUs if training runs on them, without any if it runs on cores.
        recurrent: an LSTM is trained. Rollouts are then 128 steps at most: its gradient walks a sequence bar by bar, and
            few accounts with long sequences were measured at half the speed.
        load: what one training keeps; 15 symbols with 30 features each by default.
        requested: no number of the result is above it.

    Returns:
        The sizes. Minibatches are at most 65,536 samples from 20 GB of GPU memory, 16,384 from 10 GB, else 4,096, and at
        least four make a rollout. Larger ones were measured to bring nothing on cores.

    Raises:
        ResourceError: not even the smallest training fits.
    """
    load = load or Workload()
    limit = _batch_limit(machine, requested.batch_size)
    room = int(_SHARE * machine.total_bytes) - _RESERVE_BYTES
    n_steps = min(requested.n_steps, _RECURRENT_STEPS) if recurrent else requested.n_steps
    scale = _sized(requested.n_envs, n_steps, limit)
    at_once = min(machine.cores, requested.workers)

    def too_long(scale: TrainingSizes) -> bool:
        return load.timesteps is not None and scale.n_envs * scale.n_steps * _MIN_ROLLOUTS > load.timesteps

    def too_large(scale: TrainingSizes) -> bool:
        on_gpu = _on_gpu(machine, scale.batch_size, load, recurrent, free=False)
        together = at_once if on_gpu is None else min(at_once, max(on_gpu, 1))
        if scale.n_steps <= _MIN_STEPS:
            together = 1  # rather fewer trainings at once than rollouts without length
        return on_gpu == 0 or together * training_bytes(scale, load, recurrent) > room

    while (too_long(scale) or too_large(scale)) and scale.n_envs * scale.n_steps > min(_MIN_STEPS, n_steps):
        scale = _smaller(scale, limit)
    if too_large(scale):
        raise ResourceError(_no_room(machine, room, training_bytes(scale, load, recurrent), "memory that trainings may use"))
    return _with_workers(machine, recurrent, load, scale, at_once)


def _with_workers(machine: Machine, recurrent: bool, load: Workload, scale: TrainingSizes, at_once: int) -> TrainingSizes:
    """As many trainings at once as fit what is free now."""
    need, room = training_bytes(scale, load, recurrent), int(_SHARE * machine.free_bytes)
    on_gpu = _on_gpu(machine, scale.batch_size, load, recurrent, free=True)
    workers = min(at_once, room // need, *([] if on_gpu is None else [on_gpu]))
    if workers < 1:
        raise ResourceError(_no_room(machine, room, need, "memory free for trainings"))
    return TrainingSizes(scale.n_envs, scale.n_steps, scale.batch_size, workers)


def _no_room(machine: Machine, room: int, need: int, what: str) -> str:
    gpus = "".join(f", {gpu.name} with {gpu.free_bytes / _GIB:.1f} of {gpu.total_bytes / _GIB:.1f} GiB free" for gpu in machine.gpus)
    return (
        f"found {max(room, 0) / _GIB:.1f} GiB of {what}{gpus}; expected {need / _GIB:.1f} GiB for a training of this size; "
        "close other programs, trade fewer symbols, or train on a larger machine"
    )
