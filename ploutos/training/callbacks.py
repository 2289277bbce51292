"""What a training run reports: a learning curve of means, and the files that show its progress."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError
from ploutos.training.checkpoint import CheckpointFolder, save_policy

Record = dict[str, float]


class HasState(Protocol):
    """A callback that a resumed training goes on with."""

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


class Progress(BaseCallback):
    """At every rollout boundary: report progress, and write a checkpoint when one is due.

    Args:
        others: callbacks whose states travel with the checkpoints, by name; they must come before this one in a list of callbacks.
        every_rollouts: rollouts between two checkpoints, None for no checkpoints.
        best: where to keep the policy with the highest mean episode reward at a checkpoint, None for nowhere.
        meta: what goes into that policy's file.
    """

    model: OnPolicyAlgorithm

    def __init__(
        self, env: MarketVecEnv, others: Mapping[str, HasState], checkpoints: CheckpointFolder, every_rollouts: int | None, total: int,
        progress_file: Path, best: Path | None = None, meta: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.env, self.others, self.checkpoints, self.every_rollouts, self.total = env, others, checkpoints, every_rollouts, total
        self.progress_file, self.best, self.meta = progress_file, best, meta or {}
        self.best_reward: float | None = None
        self.rollouts = 0
        self.started, self.first_step = time.perf_counter(), 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the callbacks."""
        return {"best_reward": self.best_reward} | {name: other.state() for name, other in self.others.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        for name, other in self.others.items():
            other.restore(state[name])
        self.best_reward = state["best_reward"]

    def _on_training_start(self) -> None:
        self.started, self.first_step = time.perf_counter(), self.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.rollouts:
            reward = self._mean_reward()
            self._report(reward)
            if self.every_rollouts is not None and self.rollouts % self.every_rollouts == 0:
                self._keep_best(reward)
                self.checkpoints.save(self.model, self.env, self.state())
        self.rollouts += 1

    def _mean_reward(self) -> float | None:
        episodes = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        return float(np.mean(episodes)) if episodes else None

    def _keep_best(self, reward: float | None) -> None:
        if self.best is not None and reward is not None and (self.best_reward is None or reward > self.best_reward):
            self.best_reward = reward
            save_policy(self.model, self.meta | {"timesteps": self.num_timesteps, "mean_episode_reward": reward}, self.best)

    def _report(self, reward: float | None) -> None:
        seconds = time.perf_counter() - self.started
        progress = {
            "steps": self.num_timesteps,
            "total": self.total,
            "steps_per_second": round((self.num_timesteps - self.first_step) / max(seconds, 1e-9)),
            "mean_episode_reward": None if reward is None else round(reward, 3),
        }
        temporary = self.progress_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(progress), encoding="utf-8")
        temporary.replace(self.progress_file)

    def _on_step(self) -> bool:
        return True
