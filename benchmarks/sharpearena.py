"""Our PPO before an outside judge, SharpeArena; `python -m benchmarks.sharpearena`, with the package `sharpearena` installed.

Its protocol: four symbols, 120 bars, training on the scenarios of seeds [0, 256), scores on those of [10256, 10512), for each of its
three markets, calm, hard and extreme; its own scorer, its own costs. Every number in the tables is computed by the package. What is ours
is the agent: the network that reads every symbol with the same weights, with the settings of `training` as they are, trained by
stable-baselines3's loop on their environment. Weights are a quarter of what the network says, so that gross exposure is at most 1, as it
is for the baselines. The entry is the mean of the members' weights. Nothing was chosen by a score on either band.

`--guard` runs the package's guard against looking ahead on the entry and scores nothing: the entry is wrapped so that it can be handed the
observation alone, and before each decision the guard is told which bar the entry has read last and which one is the present one.

Every trained member and every score is written to the folder when it is done, so a program that is stopped goes on where it was.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from ploutos.envs.spec import EnvSpec
from ploutos.training.ppo import build_model
from ploutos.training.spec import TrainingSpec
from ploutos.types import BoolArray, Float32Array, FloatArray

MODES = ("calm", "hard", "extreme")
N_SYMBOLS, N_BARS, N_SEEDS, GAP = 4, 120, 256, 10_000
LOOKBACKS = (1, 5, 20)
N_FEATURES = len(LOOKBACKS) + 3
SPEC = TrainingSpec(actions="weights", credit="portfolio", teacher="none", n_steps=N_BARS, batch_size=320, speed={"fast_loop": False})
"""As a run trains, but for the loop, which knows our environment alone, and for a rollout of one episode an account."""


class Reader:
    """What the agent sees of some accounts: features of the closes so far, sorted as the shared network reads them.

    A symbol's features are its log returns over the last 1, 5 and 20 bars, over their volatility so far; the return since the start the
    same way; the volatility; and the last return less the symbols' mean. Nothing is scaled by what comes later.
    """

    def __init__(self) -> None:
        self.closes: list[FloatArray] = []
        self.cost = self.held = np.zeros(0)
        self.peak = np.zeros(0)

    def begin(self) -> None:
        """Forget the episode."""
        self.closes = []

    def read(self, closes: FloatArray, positions: FloatArray, cash: FloatArray) -> Float32Array:
        """Observations, shape (n, columns).

        Args:
            closes, positions: shape (n, n_symbols), prices and shares.
            cash: shape (n, 1).
        """
        if not self.closes:
            self.cost, self.held, self.peak = closes.copy(), np.zeros_like(closes), np.full(len(closes), -np.inf)
        self.closes.append(closes)
        logs = np.log(np.maximum(np.array(self.closes[-N_BARS - 1 :]), 1e-9))
        moves = np.diff(logs, axis=0)
        usual = np.sqrt((np.square(moves).sum(axis=0) + 0.01**2) / (len(moves) + 1))  # from 1 % a bar on, before there is anything
        back = [logs[-1] - logs[max(-1 - n, -len(logs))] for n in LOOKBACKS]
        features = [each / (usual * np.sqrt(n)) for each, n in zip(back, LOOKBACKS, strict=True)]
        features += [(logs[-1] - logs[0]) / (usual * np.sqrt(max(len(moves), 1))), np.log(usual / 0.01)]
        features += [(back[0] - back[0].mean(axis=1, keepdims=True)) / usual]
        market = np.clip(np.stack(features, axis=2), -5, 5).reshape(len(closes), -1)
        equity = np.maximum((positions * closes).sum(axis=1) + cash[:, 0], 1e-9)
        self.peak = np.maximum(self.peak, equity)
        weights = positions * closes / equity[:, None]
        opened = (np.sign(positions) != np.sign(self.held)) | (np.abs(self.held) < 1e-12)
        self.cost, self.held = np.where(opened, closes, self.cost), positions.copy()
        unrealised = np.where(np.abs(positions) > 1e-12, closes / self.cost - 1, 0.0)
        account = np.column_stack([cash[:, 0] / equity, equity / self.peak - 1])
        return np.column_stack([market, np.ones_like(closes), weights, unrealised, account]).astype(np.float32)


class ArenaVecEnv(VecEnv):
    """Their batched environment for stable-baselines3: every rollout is one episode each of as many training scenarios.

    The reward is the log of 1 plus their per-bar return, times our `reward_scale`.
    """

    env_spec = EnvSpec()

    def __init__(self, mode: str, n_envs: int, seed: int) -> None:
        columns = N_SYMBOLS * (N_FEATURES + 3) + 2
        space = spaces.Box(-np.inf, np.inf, (columns,), np.float32)
        super().__init__(n_envs, space, spaces.Box(-1.0, 1.0, (N_SYMBOLS,), np.float32))
        self.mode, self.reader, self.random = mode, Reader(), np.random.default_rng(seed)
        self.queue: list[int] = []
        self.dead = np.zeros(n_envs, dtype=bool)

    def reset(self) -> Float32Array:
        from sharpearena.vector import SharpeArenaVectorEnv

        while len(self.queue) < self.num_envs:
            self.queue += self.random.permutation(N_SEEDS).tolist()
        seeds, self.queue = self.queue[: self.num_envs], self.queue[self.num_envs :]
        self.arena = SharpeArenaVectorEnv(
            seeds=seeds, n_symbols=N_SYMBOLS, n_days=N_BARS, distribution_mode=self.mode, autoreset_mode="disabled"
        )
        self.reader.begin()
        self.dead[:] = False
        return self._read(self.arena.reset()[0])

    def _read(self, seen: dict[str, FloatArray]) -> Float32Array:
        return self.reader.read(seen["closes"], seen["positions"], seen["cash"])

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = (np.clip(actions, -1, 1) / N_SYMBOLS).astype(np.float32)

    def step_wait(self) -> tuple[Float32Array, Float32Array, BoolArray, list[dict[str, Any]]]:
        seen, rewards, terminated, truncated, _ = self.arena.step(self.actions)
        observed, ends = self._read(seen), truncated | terminated
        paid = np.where(self.dead, 0.0, np.log(np.maximum(1 + rewards, 1e-6)) * self.env_spec.reward_scale).astype(np.float32)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self.dead |= terminated
        if ends.all():  # all scenarios are as long; one that was ruined before waits, and is paid nothing
            for info, row, gone in zip(infos, observed, self.dead, strict=True):
                info |= {"terminal_observation": row, "TimeLimit.truncated": not gone}
            observed = self.reset()
        return observed, paid, np.full(self.num_envs, bool(ends.all())), infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("accounts have no attributes of their own")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("accounts have no methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Entry:
    """The members' mean weights, in the form that the package scores.

    Args:
        members: trained agents.
    """

    def __init__(self, members: Sequence[PPO]) -> None:
        self.members, self.reader = members, Reader()

    def __call__(self, seen: dict[str, FloatArray]) -> Float32Array:
        observed = self.reader.read(*(np.atleast_2d(seen[name]) for name in ("closes", "positions", "cash")))
        said = [np.clip(member.predict(observed, deterministic=True)[0][0], -1, 1) for member in self.members]
        return (np.mean(said, axis=0) / N_SYMBOLS).astype(np.float32)


def trained(mode: str, member: int, steps: int, folder: Path) -> PPO:
    """One member; loaded where it was trained before."""
    file = folder / f"{mode}-{member}-{steps}.zip"
    if not file.exists():
        env = ArenaVecEnv(mode, SPEC.n_envs, member)
        model = build_model(env, SPEC, member, "cpu")  # type: ignore[arg-type]
        model.learn(steps)
        model.save(file.with_suffix(".part.zip"))
        file.with_suffix(".part.zip").replace(file)
        print(f"trained {file.name}", flush=True)
    return PPO.load(file, device="cpu")


def scenario(mode: str, seed: int) -> Any:
    """One of their environments, as their protocol makes it."""
    from sharpearena import SharpeArenaEnv

    return SharpeArenaEnv(n_symbols=N_SYMBOLS, n_days=N_BARS, seed=seed, distribution_mode=mode)


def rollouts(
    mode: str, entry: Entry, seeds: Sequence[int], decide: Callable[[dict[str, FloatArray]], Float32Array] | None = None
) -> list[list[float]]:  # fmt: skip
    """Their per-bar returns, scenario by scenario.

    Args:
        decide: asked in the entry's place; the entry itself where it is left out.
    """
    found = []
    for seed in seeds:
        env = scenario(mode, seed)
        entry.reader.begin()
        seen, ended, returns = env.reset()[0], False, []
        while not ended:
            seen, reward, terminated, truncated, _ = env.step((decide or entry)(seen))
            returns.append(float(reward))
            ended = terminated or truncated
        found.append(returns)
    return found


def guarded(mode: str, entry: Entry, seeds: Sequence[int]) -> dict[str, Any]:
    """What their guard against looking ahead says of an entry; it refuses by raising, and that it can is tried first.

    Returns:
        Decisions that it watched, refusals, and whether the returns are those of the entry without a guard, to the last bit.
    """
    from sharpearena import LookaheadGuard, LookaheadViolation, wrap_policy

    guard, wrapped, present = LookaheadGuard(allow_full_series=False), wrap_policy(entry), 0
    found = {"decisions": 0, "refused": 0}

    def watched(seen: dict[str, FloatArray]) -> Float32Array:
        nonlocal present
        found["decisions"] += 1
        try:
            weights = wrapped(seen)
            guard.check("read_closes", index=len(entry.reader.closes) - 1, current_index=present)
        except LookaheadViolation:
            found["refused"] += 1
            raise
        present += 1
        return weights

    _refuses(lambda: wrapped({}, [1.0]), LookaheadViolation)
    _refuses(lambda: guard.check("read_closes", index=1, current_index=0), LookaheadViolation)
    returns = []
    for seed in seeds:
        present = 0
        returns += rollouts(mode, entry, [seed], watched)
    return found | {"same": returns == rollouts(mode, entry, seeds)}


def _refuses(act: Callable[[], Any], error: type[Exception]) -> None:
    """Fail where a guard lets pass what it is there for."""
    try:
        act()
    except error:
        return
    raise SystemExit("the guard lets pass what it should refuse, so it proves nothing")


def once(file: Path, make: Callable[[], Any]) -> Any:
    """A JSON value that is computed once."""
    if not file.exists():
        file.with_suffix(".part").write_text(json.dumps(make()))
        file.with_suffix(".part").replace(file)
    return json.loads(file.read_text())


def judged(mode: str, members: int, steps: int, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One row per entrant on the held-out band, ours the last, and how ours generalises."""
    from sharpearena.baselines import BASELINE_POLICIES, run_baselines
    from sharpearena.confidence import deflated_sharpe_ci, paired_dsr_diff
    from sharpearena.generalization import generalization_gap, train_test_seeds

    n_trials = len(BASELINE_POLICIES) + 1
    held_out = train_test_seeds(N_SEEDS, N_SEEDS, 0, GAP)[1]
    entry = Entry([trained(mode, member, steps, folder) for member in range(members)])

    def made(seed: int) -> Any:
        entry.reader.begin()
        return scenario(mode, seed)

    gap = once(
        folder / f"{mode}-{members}-{steps}-gap.json",
        lambda: generalization_gap(made, N_SEEDS, N_SEEDS, entry, 0, GAP, n_trials=n_trials),
    )
    ours = once(folder / f"{mode}-{members}-{steps}-test.json", lambda: rollouts(mode, entry, held_out))
    rows = once(
        folder / f"{mode}-baselines.json",
        lambda: run_baselines(seeds=held_out, distribution_mode=mode, n_symbols=N_SYMBOLS, n_days=N_BARS, n_trials=n_trials),
    )
    for row in rows:
        row["against"] = paired_dsr_diff(ours, row["per_seed_returns"], n_trials) if row["policy"] != "flat" else None
    test = gap["test"]
    own = {"policy": "ploutos PPO", **test, "deflated_sharpe_ci": deflated_sharpe_ci(ours, n_trials), "against": None}
    return [*rows, own], gap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=92_160, help="of each member: three passes over the training scenarios")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("sharpearena"))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--guard", type=int, default=0, help="held-out scenarios to run under the guard against looking ahead, instead")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.guard:
        for mode in asked.modes:
            entry = Entry([trained(mode, member, asked.steps, asked.folder) for member in range(asked.members)])
            print(mode, guarded(mode, entry, range(GAP + N_SEEDS, GAP + N_SEEDS + asked.guard)), flush=True)
        return
    for mode in asked.modes:
        rows, gap = judged(mode, asked.members, asked.steps, asked.folder)
        print(f"\n**{mode}**, seeds [10256, 10512)\n\n| policy | deflated Sharpe | 95 % | pass^k rate | mean return | ours less this one |")
        print("|---|---:|---:|---:|---:|---:|")
        for row in rows:
            print(line(row))
        train, test = (gap[part]["deflated_sharpe"] for part in ("train", "test"))
        print(
            f"\nOurs on the training scenarios {shown(train)}, held out {shown(test)}; gap {shown(gap['gap_deflated_sharpe'])}.", flush=True
        )


def shown(value: Any) -> str:
    """A score, or that there is none."""
    return f"{value:.4f}" if isinstance(value, float) else "none"


def line(row: dict[str, Any]) -> str:
    """One line of a Markdown table."""
    interval, against = row["deflated_sharpe_ci"], row["against"]
    between = "-" if not interval else f"{interval['lo']:.4f} to {interval['hi']:.4f}"
    less = "-" if against is None else f"{against['point_diff']:+.4f} [{against['lo']:+.4f}, {against['hi']:+.4f}]"
    rate = f"{row['passed_k_rate']:.2f}" if isinstance(row["passed_k_rate"], float) else "-"
    return f"| {row['policy']} | {shown(row['deflated_sharpe'])} | {between} | {rate} | {row['mean_return']:.6f} | {less} |"


if __name__ == "__main__":
    main()
