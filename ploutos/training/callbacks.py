"""What a training run reports: a learning curve of means, and the files that show its progress."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError
from ploutos.training.checkpoint import CheckpointFolder, save_policy
from ploutos.training.policy_meta import PolicyMeta, Record


class HasState(Protocol):
    """A callback that a resumed training continues with."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class BatchedCallback(BaseCallback):
    """Adds up what episodes and updates say, and hands on their means once every few rollouts.

    No step costs more than a look at which episodes ended, and nothing is lost: the last stretch is handed on when training
    ends, however short it is. A record holds `timesteps`, `episodes`, `episode/...` and `reward/...` (means over the
    episodes that ended; absent when none did) and `train/...` (means over the updates).

    Args:
        every_rollouts: rollouts per record.
        sink: is given each record as it is made.
    """

    def __init__(self, every_rollouts: int = 1, sink: Callable[[Record], None] | None = None) -> None:
        super().__init__()
        self.every_rollouts, self.sink = every_rollouts, sink
        self.records: list[Record] = []
        self._sums: dict[str, list[float]] = {}  # name: sum, count
        self._rollouts = 0
        self._under_way = self._closed = False

    def state(self) -> dict[str, Any]:
        """Everything gathered so far, JSON-able, as it stands between two rollouts."""
        return {"records": self.records, "sums": self._sums, "rollouts": self._rollouts}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.records, self._sums, self._rollouts = state["records"], state["sums"], state["rollouts"]

    def add(self, name: str, value: float) -> None:
        """Put a number into the record that is being gathered."""
        held = self._sums.setdefault(name, [0.0, 0])
        held[0] += value
        held[1] += 1

    def close(self) -> None:
        """Gather no more: the training stops, and the rollout that has begun is no part of it."""
        self._closed, self._under_way = True, False

    def _on_training_start(self) -> None:
        self._under_way = False

    def _on_step(self) -> bool:
        for i in () if self._closed else np.flatnonzero(self.locals["dones"]):
            info = self.locals["infos"][i]
            self.add("episode/reward", info["episode"]["r"])
            self.add("episode/length", info["episode"]["l"])
            self.add("episode/final_equity", info["final_equity"])
            for part, value in info["reward_parts"].items():
                self.add(f"reward/{part}", value)
        return True

    def _on_rollout_start(self) -> None:
        if self._under_way:
            self._close_rollout()
        self._under_way = True

    def _on_training_end(self) -> None:
        if self._under_way:
            self._close_rollout()
        self._under_way = False
        if self._sums:
            self._flush()

    def _close_rollout(self) -> None:
        """A rollout and its update are done."""
        for name, value in self.model.logger.name_to_value.items():
            if name.startswith("train/"):
                self.add(name, float(value))
        self._rollouts += 1
        if self._rollouts % self.every_rollouts == 0:
            self._flush()

    def _flush(self) -> None:
        record: Record = {"timesteps": self.num_timesteps, "episodes": int(self._sums.get("episode/reward", [0, 0])[1])}
        record |= {name: total / count for name, (total, count) in sorted(self._sums.items())}
        self._sums = {}
        self.records.append(record)
        if self.sink is not None:
            self.sink(record)


def growth_per_bar(record: Mapping[str, float], cash: float) -> float:
    """Log growth per bar of a record's mean episode, net of costs; nan where no episode ended, or all was lost."""
    final = record.get("episode/final_equity", 0.0)
    return math.log(final / cash) / record["episode/length"] if final > 0 else math.nan


def tensorboard_sink(folder: Path) -> Callable[[Record], None]:
    """A sink that writes TensorBoard's event files.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("logging.tensorboard needs tensorboard, which is not installed: pip install 'ploutos[tensorboard]'") from error
    writer: Any = SummaryWriter(str(folder))

    def write(record: Record) -> None:
        for name, value in record.items():
            if name != "timesteps":
                writer.add_scalar(name, value, int(record["timesteps"]))
        writer.flush()

    return write


class _BetweenRollouts(BaseCallback):
    """Is called between two rollouts, every so often; the first rollout has none before it."""

    model: OnPolicyAlgorithm

    def __init__(self, every_rollouts: int = 1) -> None:
        super().__init__()
        self.every_rollouts, self.rollouts = every_rollouts, 0

    def _on_rollout_start(self) -> None:
        if self.rollouts and self.rollouts % self.every_rollouts == 0:
            self._between()
        self.rollouts += 1

    def _between(self) -> None:
        raise NotImplementedError

    def _on_step(self) -> bool:
        return True

    def _mean_reward(self) -> float | None:
        """Of the last episodes that ended."""
        episodes = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        return float(np.mean(episodes)) if episodes else None


@dataclass(frozen=True)
class MemberProgress:
    """How far a training is.

    Attributes:
        steps, total: done and planned.
        resumed_at: steps that an earlier process did.
        steps_per_second: of this process.
        mean_episode_reward: of the last episodes that ended; None where none did.
    """

    steps: int
    total: int
    resumed_at: int
    steps_per_second: int
    mean_episode_reward: float | None


class ReportProgress(_BetweenRollouts):
    """Writes how many of the planned steps are done, for whoever waits."""

    def __init__(self, total: int, progress_file: Path) -> None:
        super().__init__()
        self.total, self.progress_file = total, progress_file
        self.started, self.first_step = time.perf_counter(), 0

    def _on_training_start(self) -> None:
        self.started, self.first_step = time.perf_counter(), self.num_timesteps

    def _between(self) -> None:
        seconds, reward = time.perf_counter() - self.started, self._mean_reward()
        rate = round((self.num_timesteps - self.first_step) / max(seconds, 1e-9))
        shown = None if reward is None else round(reward, 3)
        progress = MemberProgress(self.num_timesteps, self.total, self.first_step, rate, shown)
        temporary = self.progress_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        temporary.replace(self.progress_file)


class KeepBest(_BetweenRollouts):
    """Keeps the policy whose last episodes paid best so far.

    Args:
        path: where it is kept.
        meta: what goes into its file.
    """

    def __init__(self, every_rollouts: int, path: Path, meta: PolicyMeta) -> None:
        super().__init__(every_rollouts)
        self.path, self.meta = path, meta
        self.reward: float | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"reward": self.reward}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.reward = state["reward"]

    def _between(self) -> None:
        reward = self._mean_reward()
        if reward is not None and (self.reward is None or reward > self.reward):
            self.reward = reward
            found = {"timesteps": self.num_timesteps, "mean_episode_reward": reward}
            save_policy(self.model, self.meta.model_copy(update=found), self.path)


class SaveCheckpoints(_BetweenRollouts):
    """Writes a checkpoint of the training and of the callbacks that a resumed training continues with.

    Args:
        others: by name; they must come before this one in a list of callbacks.
    """

    def __init__(self, every_rollouts: int, env: MarketVecEnv, folder: CheckpointFolder, others: Mapping[str, HasState]) -> None:
        super().__init__(every_rollouts)
        self.env, self.folder, self.others = env, folder, others

    def _between(self) -> None:
        self.folder.save(self.model, self.env, {name: other.state() for name, other in self.others.items()})
