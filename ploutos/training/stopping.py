"""Training that stops: the last part of the training range is held out, and checkpoints are scored on it by the same ledger.

The policy decides greedily, as it will in a backtest; the score is its mean log growth per bar, net of costs. The best policy is kept,
and a training that has not bettered it for some looks ends. Every look is a choice made on these bars, so their number is recorded; the
fold's own validation range stays unseen.
"""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from ploutos.envs.actions import action_masks, target_weights, weights_within
from ploutos.envs.ledger import Accounts, MarketArrays, Stepper
from ploutos.envs.observation import observation_size, observe
from ploutos.envs.spec import EnvSpec
from ploutos.training.callbacks import BatchedCallback
from ploutos.training.policy_meta import Stopping
from ploutos.training.spec import StoppingSpec
from ploutos.types import Float32Array
from ploutos.walk_forward import Range

_SHORTEST_RUN = 60
_MOST_RUNS = 16
SCORE = "validation/log_growth_per_bar"


class HeldOut(NamedTuple):
    """Bars that a training does not learn from, and the rules of its accounts."""

    arrays: MarketArrays
    rows: Float32Array
    env: EnvSpec
    part: Range

    def score(self, model: OnPolicyAlgorithm) -> float:
        """Mean log growth per bar of the greedy policy, net of costs.

        Several accounts live through a part of the range each, all at once; each begins in cash.
        """
        n_runs = min(max(self.part.n_bars // _SHORTEST_RUN, 1), _MOST_RUNS)
        length = self.part.n_bars // n_runs
        accounts = Accounts.open(n_runs, self.arrays.n_symbols, self.env.cash)
        stepper, n_symbols = Stepper(accounts, self.arrays, self.env), self.arrays.n_symbols
        seen = np.empty((n_runs, observation_size(self.rows.shape[1], n_symbols, self.env.observe_account)), dtype=np.float32)
        first = self.part.stop - n_runs * length + np.arange(n_runs) * length - 1
        state, begins = None, np.ones(n_runs, dtype=np.bool_)
        for bar in first + np.arange(length)[:, None]:
            observe(accounts, bar, self.rows, self.arrays, seen)
            asked: Any = model
            masks = {"action_masks": action_masks(accounts, bar, self.arrays, self.env)} if isinstance(model, MaskablePPO) else {}
            actions, state = asked.predict(seen, state=state, episode_start=begins, deterministic=True, **masks)
            begins = np.zeros(n_runs, dtype=np.bool_)
            if isinstance(model.action_space, spaces.Box):
                targets = weights_within(actions.astype(np.float64), self.env)
            else:
                targets = target_weights(actions, self.arrays.n_tradable[bar], self.env)
            stepper.step(bar, targets)
        least = 1e-6 * self.env.cash
        return float(np.log(np.maximum(accounts.equity, least) / self.env.cash).mean() / length)


class EarlyStopping(BaseCallback):
    """Every few rollouts, and at the end: score the policy, keep the best, and end a training that does not get better.

    Args:
        log: is told each score; it must come behind this one in a list of callbacks, so that a rollout's record holds it.
    """

    model: OnPolicyAlgorithm

    def __init__(self, held_out: HeldOut, spec: StoppingSpec, log: BatchedCallback) -> None:
        super().__init__()
        self.held_out, self.spec, self.log = held_out, spec, log
        self.scores: list[tuple[int, float]] = []
        self.best: tuple[int, float] | None = None
        self.best_weights: dict[str, torch.Tensor] = {}
        self.stops = self._under_way = False

    @property
    def finished(self) -> bool:
        """Whether the last looks brought nothing better."""
        if self.best is None:
            return False
        since = sum(steps > self.best[0] for steps, _ in self.scores)
        return since >= self.spec.patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, JSON-able."""
        buffer = io.BytesIO()
        torch.save(self.best_weights, buffer)
        return {"scores": self.scores, "best": self.best, "best_weights": base64.b64encode(buffer.getvalue()).decode()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.scores = [(steps, score) for steps, score in state["scores"]]
        self.best = None if state["best"] is None else (state["best"][0], state["best"][1])
        self.best_weights = torch.load(io.BytesIO(base64.b64decode(state["best_weights"])), weights_only=True)
        self.stops = self.finished

    def _on_training_start(self) -> None:
        self._under_way = False

    def _on_rollout_start(self) -> None:
        rollout = self.model.n_steps * self.model.n_envs
        done = self.num_timesteps // rollout
        imitated = done == 1 and getattr(self.model, "imitates", False)  # a policy that is its teacher's copy so far may be the best
        if self._under_way and (imitated or done % self.spec.every_rollouts == 0):
            self._look()
        self._under_way = True

    def _on_step(self) -> bool:
        if self.stops:
            self.log.close()
        return not self.stops

    def _on_training_end(self) -> None:
        if not self.stops and (not self.scores or self.scores[-1][0] < self.num_timesteps):
            self._look()

    def _look(self) -> None:
        score = self.held_out.score(self.model)
        self.scores.append((self.num_timesteps, score))
        self.log.add(SCORE, score)
        if self.best is None or score > self.best[1]:
            self.best = (self.num_timesteps, score)
            self.best_weights = {name: held.detach().clone() for name, held in self.model.policy.state_dict().items()}
        self.stops = self.finished

    def keep_best(self) -> None:
        """Give the model the weights that scored best."""
        self.model.policy.load_state_dict(self.best_weights)
        self.model.num_timesteps = self.scores[-1][0]  # not those of the step in which the stop was heard

    def meta(self) -> Stopping:
        """What a policy's file says of the choice."""
        assert self.best is not None
        steps, score = self.best
        return Stopping(
            validation=self.held_out.part, looks=len(self.scores), chosen_timesteps=steps, chosen_score=score, scores=tuple(self.scores)
        )
