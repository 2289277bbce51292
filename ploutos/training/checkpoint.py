"""Two kinds of file: the checkpoint that lets an interrupted training run continue, and the policy that it ends in.

A checkpoint is everything that decides the future at a rollout boundary: weights, optimiser, the random states of torch (and
of its GPU), numpy, Python and the environment, every account, whose bar and state give the observation that comes next, an
LSTM's state, the learning curve so far. Schedules follow from the step count. A run that resumes from one ends in the same
bytes as one that was never stopped. It holds arrays and JSON, no pickle.

A policy is an ordinary stable-baselines3 zip, which plain `PPO.load` (`MaskablePPO.load`, `RecurrentPPO.load`) opens, with
one member more: `ploutos.json`, the scaler, the names of what it observed, the fold, the seed, the learning curve and the
versions. Its bytes depend on its content alone.
"""

import io
import json
import random
import zipfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from ploutos.envs.observation import column_names
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import TrainingError
from ploutos.features.scaling import Scaler
from ploutos.store import Kind, writing
from ploutos.training.networks import SymbolColumns
from ploutos.training.policy_meta import PolicyMeta, parse_meta, write_meta
from ploutos.training.teacher import FORECAST

META = "ploutos.json"
ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"PPO": PPO, "MaskablePPO": MaskablePPO, "RecurrentPPO": RecurrentPPO}
# The weights that multiply observations, of a joint network and of a shared one.
_READERS = {f"mlp_extractor.{net}.0.weight" for net in ("policy_net", "value_net", "encoder")}
_LSTM_READERS = {f"lstm_{net}.weight_ih_l0" for net in ("actor", "critic", "actor.each")}
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


def save_policy(model: OnPolicyAlgorithm, meta: PolicyMeta, path: Path) -> None:
    """Write a policy; the same parameters and meta give the same bytes."""
    at_start = model._num_timesteps_at_start
    model._num_timesteps_at_start = 0  # where this process came in is no part of the policy
    buffer = io.BytesIO()
    model.save(buffer, exclude=_MOMENTARY)
    model._num_timesteps_at_start = at_start
    with writing(path) as temporary, zipfile.ZipFile(buffer) as saved, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(saved.namelist()):
            content = saved.read(name)
            _write_member(archive, name, _without_addresses(content) if name == "data" else content)
        _write_member(archive, META, write_meta(meta))


@dataclass(frozen=True)
class Policy:
    """A trained member, ready to decide."""

    model: OnPolicyAlgorithm
    scaler: Scaler
    meta: PolicyMeta

    @property
    def masked(self) -> bool:
        """Whether it must be told which actions are allowed."""
        return isinstance(self.model, MaskablePPO)

    @property
    def recurrent(self) -> bool:
        """Whether it remembers what it saw."""
        return isinstance(self.model, RecurrentPPO)

    @property
    def observes_account(self) -> bool:
        """Whether its observations end with the account's features."""
        return self.meta.env.observe_account

    @property
    def observes(self) -> list[str]:
        """Names of what its first layer reads: the columns of its observations, or of one symbol."""
        return names_read(self.model, self.meta.symbols, self.meta.features, self.observes_account)

    @property
    def forecast(self) -> dict[str, Any] | None:
        """The model whose forecast it observes beside its features; None where it observes none."""
        return self.meta.forecast

    @property
    def columns(self) -> SymbolColumns | None:
        """How a shared network sorts its observations by symbol; None for a joint one."""
        return columns_of(self.model)

    @property
    def is_continuous(self) -> bool:
        """Whether it answers with weights and not with actions."""
        return isinstance(self.model.action_space, spaces.Box)

    def require(self, symbols: tuple[str, ...], features: tuple[str, ...]) -> None:
        """Refuse to decide on anything but what the policy was trained to see. A shared network decides on any symbols.

        Raises:
            TrainingError: other symbols or features, or another order.
        """
        observed = features if self.forecast is None else (*features, FORECAST)
        for what, trained, given in (("symbols", self.meta.symbols, symbols), ("features", self.meta.features, observed)):
            if trained != given and (what == "features" or self.columns is None):
                raise TrainingError(f"the policy was trained on {what} {', '.join(trained)}; found {', '.join(given)}")


def columns_of(model: OnPolicyAlgorithm) -> SymbolColumns | None:
    """How a model's shared network sorts observations by symbol; None for a joint one."""
    return cast(SymbolColumns | None, getattr(model.policy, "columns", None))


def names_read(model: OnPolicyAlgorithm, symbols: Sequence[str], features: Sequence[str], account: bool) -> list[str]:
    """Names of what a model's first layer reads: all columns of an observation, or, if it is shared, those of one symbol."""
    columns = columns_of(model)
    return column_names(symbols, features, account) if columns is None else columns.names(features)


def read_meta(path: Path) -> PolicyMeta:
    """What a policy's file says of it, without its networks.

    Raises:
        StoreError: it says it in another form than this version's.
    """
    with zipfile.ZipFile(path) as archive:
        return parse_meta(archive.read(META), path)


def load_policy(path: Path) -> Policy:
    """Read a policy that the store has verified."""
    meta = read_meta(path)
    scaler = Scaler(np.array(meta.scaler.mean), np.array(meta.scaler.deviation))
    return Policy(ALGORITHMS[meta.training.algorithm].load(path, device="cpu"), scaler, meta)


POLICY: Kind[Policy] = Kind("policy", ".zip", lambda policy, path: save_policy(policy.model, policy.meta, path), load_policy)
"""A trained member."""


@dataclass(frozen=True)
class StoredPolicies(Sequence[Policy]):
    """Policies that are read from their files whenever one is needed: of many folds, only the one at work is in memory."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, at: int) -> Policy: ...
    @overload
    def __getitem__(self, at: slice) -> "StoredPolicies": ...
    def __getitem__(self, at: int | slice) -> "Policy | StoredPolicies":
        return StoredPolicies(self.paths[at]) if isinstance(at, slice) else load_policy(self.paths[at])


def warm_start(model: OnPolicyAlgorithm, symbols: Sequence[str], features: Sequence[str], account: bool, policy: Policy) -> None:
    """Give a freshly built model the weights of a policy that observed part of what it observes.

    Until its first update the model then decides as the policy does, whatever the new columns hold: in the layers that read
    observations a column's weights are found by its name, and those of a new column are 0. The optimiser stays fresh.

    Args:
        symbols, features: what the model observes.
        account: whether it observes the account's features.

    Raises:
        TrainingError: the policy observed something that the model does not, or its layers are of other sizes.
    """
    names, observed = names_read(model, symbols, features, account), policy.observes
    if (policy.columns is None) != (columns_of(model) is None):
        raise TrainingError("a shared network cannot start from a joint one, nor a joint one from a shared one; train both the same way")
    missing = [name for name in observed if name not in names]
    if missing:
        raise TrainingError(f"the policy to start from observed {', '.join(missing)}; expected only what is observed now")
    columns = [names.index(name) for name in observed]
    readers = _LSTM_READERS if isinstance(model, RecurrentPPO) else _READERS
    weights = policy.model.policy.state_dict()
    for name in readers & weights.keys():
        spread = torch.zeros(len(weights[name]), len(names))
        spread[:, columns] = weights[name]
        weights[name] = spread
    if {name: held.shape for name, held in weights.items()} != {name: held.shape for name, held in model.policy.state_dict().items()}:
        raise TrainingError("the policy to start from has other layers; use the algorithm, net_arch and lstm_size that it was trained with")
    model.policy.load_state_dict(weights)


def _account_arrays(env: MarketVecEnv) -> dict[str, np.ndarray]:
    arrays = {f"accounts.{field.name}": getattr(env.accounts, field.name) for field in fields(env.accounts)}
    names = ("bar", "steps_left", "episode_reward", "episode_length", "episode_parts")
    return {**arrays, **{name: getattr(env, name) for name in names}}


def _lstm_arrays(model: OnPolicyAlgorithm) -> dict[str, np.ndarray]:
    """An LSTM's state of every account: actor's hidden and cell, critic's hidden and cell; empty without an LSTM."""
    if not isinstance(model, RecurrentPPO):
        return {}
    states = cast(RNNStates, model._last_lstm_states)
    return {f"lstm.{i}": part.cpu().numpy() for i, part in enumerate((*states.pi, *states.vf))}


def save_checkpoint(model: OnPolicyAlgorithm, env: MarketVecEnv, extra: dict[str, Any], path: Path) -> None:
    """Write everything that decides the future of a training run, between two rollouts.

    Args:
        extra: whatever else a caller wants to find again, JSON-able.
    """
    weights = io.BytesIO()
    torch.save({"policy": model.policy.state_dict(), "optimizer": model.policy.optimizer.state_dict()}, weights)
    name, keys, position, has_gauss, cached_gauss = np.random.get_state()
    arrays = io.BytesIO()
    on_gpu = {"cuda_state": torch.cuda.get_rng_state(model.device).numpy()} if model.device.type == "cuda" else {}
    np.savez(
        arrays,
        torch_state=torch.get_rng_state().numpy(),
        numpy_keys=np.asarray(keys),
        episode_starts=np.asarray(model._last_episode_starts),
        **cast(dict[str, Any], _account_arrays(env) | _lstm_arrays(model) | on_gpu),
    )
    state = {
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "numpy": [name, int(position), int(has_gauss), float(cached_gauss)],
        "python": random.getstate(),
        "environment": env.random.bit_generator.state,
        "episodes": list(model.ep_info_buffer or ()),
        "extra": extra,
    }
    with writing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _write_member(archive, "weights.pth", weights.getvalue())
        _write_member(archive, "arrays.npz", arrays.getvalue())
        _write_member(archive, "state.json", json.dumps(state).encode())


def load_checkpoint(model: OnPolicyAlgorithm, env: MarketVecEnv, path: Path) -> dict[str, Any]:
    """Put a freshly built model and environment into a checkpoint's state.

    Returns:
        The checkpoint's `extra`.
    """
    with zipfile.ZipFile(path) as archive:
        weights = torch.load(io.BytesIO(archive.read("weights.pth")), weights_only=True, map_location=model.device)
        arrays = dict(np.load(io.BytesIO(archive.read("arrays.npz")), allow_pickle=False))
        state = json.loads(archive.read("state.json"))
    model.policy.load_state_dict(weights["policy"])
    model.policy.optimizer.load_state_dict(weights["optimizer"])
    model.num_timesteps, model._n_updates = state["num_timesteps"], state["n_updates"]
    for name, held in _account_arrays(env).items():
        held[...] = arrays[name]
    model._last_obs, model._last_episode_starts = env.observe(), arrays["episode_starts"]
    if isinstance(model, RecurrentPPO):
        lstm = [torch.tensor(arrays[f"lstm.{i}"], device=model.device) for i in range(4)]
        cast(Any, model)._last_lstm_states = RNNStates((lstm[0], lstm[1]), (lstm[2], lstm[3]))
    model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    env.random.bit_generator.state = state["environment"]
    torch.set_rng_state(torch.from_numpy(arrays["torch_state"]))
    if model.device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(arrays["cuda_state"]), model.device)
    name, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((name, arrays["numpy_keys"], position, has_gauss, cached_gauss))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    return dict(state["extra"])


class CheckpointFolder:
    """The checkpoints of one training run, newest last; `keep` of them stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.zip"))

    def save(self, model: OnPolicyAlgorithm, env: MarketVecEnv, extra: dict[str, Any]) -> None:
        save_checkpoint(model, env, extra, self.folder / f"step_{model.num_timesteps:012d}.zip")
        for old in self._found()[: -self.keep]:
            old.unlink(missing_ok=True)

    def resume(self, model: OnPolicyAlgorithm, env: MarketVecEnv, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """Load the newest intact checkpoint; a damaged one is passed over with a warning.

        Returns:
            The checkpoint's `extra`, None when there is no checkpoint.
        """
        for path in reversed(self._found()):
            try:
                return load_checkpoint(model, env, path)
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                warn(f"checkpoint {path.name} is damaged ({error}); trying the previous one")
        return None

    def clear(self) -> None:
        """Remove the checkpoints of a finished training run, and their folder when nothing else is in it."""
        for path in self._found():
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
