"""Two kinds of file: the snapshot that lets a killed training go on, and the policy that it ends in.

A snapshot is everything that decides the future at a rollout boundary: weights, optimiser, the random states of torch,
numpy and the environment, and every account, whose bar and state give the observation that comes next. A run that
resumes from one ends in the same bytes as one that was never stopped. It holds arrays and JSON, no pickle.

A policy is an ordinary stable-baselines3 zip, which plain `PPO.load` opens, with one member more: `ploutos.json`, the
scaler, the names of what it observed, the fold, the seed and the versions. Its bytes depend on its content alone.
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from stable_baselines3 import PPO

from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import TrainingError
from ploutos.features.scaling import Scaler
from ploutos.store import writing

META = "ploutos.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
# What stable-baselines3 would save of one moment of one run: clocks, last observations, episode statistics.
_MOMENTARY = ["start_time", "ep_info_buffer", "ep_success_buffer", "_last_obs", "_last_episode_starts", "_last_original_obs"]


def _write_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)


def _without_addresses(data: bytes) -> bytes:
    """Stable-baselines3's attributes without the printed objects beside each pickle, which hold memory addresses."""
    kept = (":type:", ":serialized:")
    attributes = {
        name: {key: value[key] for key in kept} if isinstance(value, dict) and kept[1] in value else value
        for name, value in json.loads(data).items()
    }
    return json.dumps(attributes, indent=1).encode()


def save_policy(model: PPO, meta: dict[str, Any], path: Path) -> None:
    """Write a policy; the same parameters and meta give the same bytes."""
    model._num_timesteps_at_start = 0  # where this process came in is no part of the policy
    buffer = io.BytesIO()
    model.save(buffer, exclude=_MOMENTARY)
    with zipfile.ZipFile(buffer) as saved, zipfile.ZipFile(path, "w") as archive:
        for name in sorted(saved.namelist()):
            content = saved.read(name)
            _write_member(archive, name, _without_addresses(content) if name == "data" else content)
        _write_member(archive, META, json.dumps(meta, sort_keys=True, indent=1).encode())


@dataclass(frozen=True)
class Policy:
    """A trained member, ready to decide."""

    model: PPO
    scaler: Scaler
    meta: dict[str, Any]

    def require(self, symbols: tuple[str, ...], features: tuple[str, ...]) -> None:
        """Refuse to decide on anything but what the policy was trained to see.

        Raises:
            TrainingError: other symbols or features, or another order.
        """
        for what, trained, given in (("symbols", self.meta["symbols"], symbols), ("features", self.meta["features"], features)):
            if tuple(trained) != given:
                raise TrainingError(f"the policy was trained on {what} {', '.join(trained)}; found {', '.join(given)}")


def load_policy(path: Path) -> Policy:
    """Read a policy that the store has verified."""
    with zipfile.ZipFile(path) as archive:
        meta = json.loads(archive.read(META))
    scaler = Scaler(np.array(meta["scaler"]["mean"]), np.array(meta["scaler"]["deviation"]))
    return Policy(PPO.load(path, device="cpu"), scaler, meta)


def _account_arrays(env: MarketVecEnv) -> dict[str, np.ndarray]:
    arrays = {f"accounts.{field.name}": getattr(env.accounts, field.name) for field in fields(env.accounts)}
    names = ("bar", "steps_left", "episode_reward", "episode_length", "episode_parts")
    return {**arrays, **{name: getattr(env, name) for name in names}}


def save_snapshot(model: PPO, env: MarketVecEnv, path: Path) -> None:
    """Write everything that decides the future of a training, between two rollouts."""
    weights = io.BytesIO()
    torch.save({"policy": model.policy.state_dict(), "optimizer": model.policy.optimizer.state_dict()}, weights)
    name, keys, position, has_gauss, cached_gauss = np.random.get_state()
    arrays = io.BytesIO()
    np.savez(
        arrays,
        torch_state=torch.get_rng_state().numpy(),
        numpy_keys=np.asarray(keys),
        episode_starts=np.asarray(model._last_episode_starts),
        **cast(dict[str, Any], _account_arrays(env)),
    )
    state = {
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "numpy": [name, int(position), int(has_gauss), float(cached_gauss)],
        "environment": env.random.bit_generator.state,
    }
    with writing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _write_member(archive, "weights.pth", weights.getvalue())
        _write_member(archive, "arrays.npz", arrays.getvalue())
        _write_member(archive, "state.json", json.dumps(state).encode())


def load_snapshot(model: PPO, env: MarketVecEnv, path: Path) -> None:
    """Put a freshly built model and environment into a snapshot's state."""
    with zipfile.ZipFile(path) as archive:
        weights = torch.load(io.BytesIO(archive.read("weights.pth")), weights_only=True)
        arrays = dict(np.load(io.BytesIO(archive.read("arrays.npz")), allow_pickle=False))
        state = json.loads(archive.read("state.json"))
    model.policy.load_state_dict(weights["policy"])
    model.policy.optimizer.load_state_dict(weights["optimizer"])
    model.num_timesteps, model._n_updates = state["num_timesteps"], state["n_updates"]
    for name, held in _account_arrays(env).items():
        held[...] = arrays[name]
    model._last_obs, model._last_episode_starts = env.observe(), arrays["episode_starts"]
    env.random.bit_generator.state = state["environment"]
    torch.set_rng_state(torch.from_numpy(arrays["torch_state"]))
    name, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((name, arrays["numpy_keys"], position, has_gauss, cached_gauss))


class SnapshotFolder:
    """The snapshots of one training, newest last; `keep` of them stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.zip"))

    def save(self, model: PPO, env: MarketVecEnv) -> None:
        save_snapshot(model, env, self.folder / f"step_{model.num_timesteps:012d}.zip")
        for old in self._found()[: -self.keep]:
            old.unlink(missing_ok=True)

    def resume(self, model: PPO, env: MarketVecEnv, warn: Callable[[str], None]) -> int:
        """Load the newest whole snapshot; a damaged one is passed over with a warning.

        Returns:
            Steps done so far, 0 when there is none.
        """
        for path in reversed(self._found()):
            try:
                load_snapshot(model, env, path)
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                warn(f"snapshot {path.name} is damaged ({error}); trying the one before")
                continue
            return model.num_timesteps
        return 0

    def clear(self) -> None:
        """Remove the snapshots of a finished training."""
        for path in self._found():
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
