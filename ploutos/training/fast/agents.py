"""PPO, MaskablePPO and RecurrentPPO with a rollout and an update of our own; everything else is stable-baselines3's.

A network is joint, one that reads whole observations, or shared (`ploutos.training.networks`), one that reads each symbol; then a row
is one symbol of one account, and the symbols of an account stand side by side. Credit is the portfolio's, or each symbol's: then every
symbol has a value, an advantage and a clipped ratio of its own, from the rewards that the environment splits. Rewards by symbol are
multiplied by the number of symbols, so that they are of the portfolio's size and the portfolio's value is the mean of the symbols'.

Actions are HOLD, BUY, SELL per symbol, or weights from a normal distribution each, whose deviation does not depend on what is
seen. The mathematics, the minibatches and the saved files are those of stable-baselines3 and sb3-contrib, whose plain classes
open them. What differs: market rows are multiplied once (`ploutos.training.fast.layers`), or a shared network is passed forwards and
backwards as one function (`ploutos.training.fast.fused`); all symbols' actions are drawn as one tensor, truncated episodes are
bootstrapped together, a rollout is kept as tensors on the networks' device, and RecurrentPPO learns from whole accounts' sequences in
place of padded pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import explained_variance
from torch import Tensor, nn

from ploutos.envs.actions import BUY, N_ACTIONS, SELL
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError
from ploutos.training.fast import fused, layers
from ploutos.training.fast.layers import ObservationBatch, SharedRows
from ploutos.training.fast.optimizer import ClippedStep
from ploutos.training.fast.rollout import Rollout
from ploutos.training.networks import SymbolColumns
from ploutos.training.teacher import Teacher
from ploutos.wording import enumerate_names

_IMITATION_EPOCHS, _LESSONS = 10, 600


@dataclass(frozen=True)
class _Batch:
    """A minibatch; n samples. For RecurrentPPO they are whole sequences, step by step."""

    observations: ObservationBatch | None  # None where all layers are passed as one
    at: Tensor  # (n,), places in the rollout
    others: layers.Others | None = None  # of a shared network
    accounts: Tensor | None = None  # (n_sequences,)


@dataclass(frozen=True)
class _Latent:
    """What the two branches make of n samples, before the last layers."""

    actor: Tensor
    critic: Tensor


class _Fast(OnPolicyAlgorithm):
    """What the three algorithms share. Mixed in before one of their classes, whose attributes it uses.

    Raises:
        ConfigError: an option of stable-baselines3 that this loop does not have.
    """

    batch_size: Any
    n_epochs: Any
    clip_range: Any
    target_kl: Any
    normalize_advantage: Any
    policy: Any
    _last_obs: Any
    _last_episode_starts: Any
    _last_lstm_states: Any

    def __init__(self, policy: Any, env: MarketVecEnv, share_rows: bool = True, half: bool = False, **kwargs: Any) -> None:
        super().__init__(policy, env, **kwargs)
        self._require_known_options()
        self._half, n_symbols = half, env.arrays.n_symbols
        self._columns: SymbolColumns | None = getattr(self.policy, "columns", None)
        market = torch.from_numpy(env.rows[env.first_bar : env.last_bar + 1].copy())
        self._first_bar, self._n_market = env.first_bar, market.shape[1]
        n_own: tuple[int, ...] = (cast(Any, env.observation_space).shape[0] - self._n_market,)
        self._usable = market[:, :0]
        if self._columns is not None:
            market = self._columns.by_symbol(market)
            n_own, self._usable = (n_symbols, self._columns.n_own), market[..., -1].contiguous().to(self.device)
            market = market.reshape(-1, self._columns.n_market)
        self._shared_rows = SharedRows(market, self.device, share_rows, half)
        self._units = n_symbols if self._columns is not None and len(env.credits) else 1  # what has a value and an advantage of its own
        n_mask = n_symbols * N_ACTIONS if isinstance(self, MaskablePPO) else 0
        self._rollout = Rollout((self.n_steps, env.num_envs), n_own, n_symbols, self._units, n_mask, self.device, self._is_continuous)
        self._tables: list[Tensor] = []
        plain, space = self._columns is not None and not isinstance(self, RecurrentPPO) and not half, cast(Any, self.action_space)
        limits = (float(space.low[0]), float(space.high[0])) if self._is_continuous else (0.0, 0.0)
        self._fused = fused.FusedNetwork(self.policy, limits) if plain and self.device.type == "cpu" else None
        self._teacher: Teacher | None = None
        self._taught, self._teacher_weight, self.imitates = torch.empty(0, n_symbols, N_ACTIONS, device=self.device), 0.0, False

    def _require_known_options(self) -> None:
        options = {
            "clip_range_vf": getattr(self, "clip_range_vf", None) is not None, "use_sde": self.use_sde,
            "activation_fn": self.policy.activation_fn is not nn.Tanh,
        }  # fmt: skip
        if found := [name for name, is_set in options.items() if is_set]:
            raise ConfigError(f"the fast loop has no {enumerate_names(found)}; leave it out, or use stable-baselines3's own class")

    def be_taught(self, teacher: Teacher, weight: float, imitate: bool) -> None:
        """Have a teacher.

        Args:
            teacher: it knows every bar of the environment and no other.
            weight: of the divergence from it in the loss.
            imitate: whether the first update, of fresh weights, does nothing but come near it.
        """
        self._teacher, self._teacher_weight, self.imitates = teacher, weight, imitate
        self._taught = self._to_device(np.ascontiguousarray(teacher.odds))

    def _excluded_save_params(self) -> list[str]:
        ours = ["_half", "_shared_rows", "_first_bar", "_n_market", "_rollout", "_tables", "_columns", "_usable", "_units"]
        ours += ["_teacher", "_taught", "_teacher_weight", "imitates", "_fused"]
        return [*super()._excluded_save_params(), *ours]

    @property
    def _is_continuous(self) -> bool:
        return isinstance(self.action_space, spaces.Box)

    # -- the networks -------------------------------------------------------------------------------------------------

    def _encoders(self) -> list[Any]:
        """Layers that read observations: actor's and critic's, or the one that both read of a shared network."""
        extractor = self.policy.mlp_extractor
        return [extractor.policy_net, extractor.value_net] if self._columns is None else [extractor.encoder]

    def _first(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each encoder's first layer."""
        return [(net[0].weight, net[0].bias) for net in self._encoders()]

    _squash_first = True
    _imitation_rate = 1e-3

    def _hidden(self) -> list[list[nn.Linear]]:
        """The layers after those."""
        return [layers.linear_layers(net)[1:] for net in self._encoders()]

    def _read(self, observations: ObservationBatch) -> list[Tensor]:
        return [layers.first_layer(observations, weight, bias, self._squash_first, self._half) for weight, bias in self._first()]

    def _latent(self, batch: _Batch) -> _Latent:
        assert batch.observations is not None
        return _Latent(*self._hidden_layers(self._read(batch.observations), batch.others))

    def _hidden_layers(self, read: list[Tensor], others: layers.Others | None) -> tuple[Tensor, Tensor]:
        """Actor's and critic's latent."""
        encoded = [layers.hidden_layers(x, hidden, self._half) for x, hidden in zip(read, self._hidden(), strict=True)]
        if others is None:
            return encoded[0], encoded[1]
        extractor = self.policy.mlp_extractor
        return layers.joined_layers(encoded[0], others, extractor.policy_join, extractor.value_join, self._half)

    def _rows_of(self, bars: Tensor) -> Tensor:
        """Where the market's rows of some bars stand: one a bar, or one a symbol and bar."""
        if self._columns is None:
            return bars
        n_symbols = self._usable.shape[1]
        return (bars[:, None] * n_symbols + torch.arange(n_symbols, device=bars.device)).flatten()

    def _others_of(self, bars: Tensor, account: Tensor) -> layers.Others | None:
        return None if self._columns is None else layers.Others(self._usable.index_select(0, bars), account)

    # -- the rollout --------------------------------------------------------------------------------------------------

    def _prepare_acting(self) -> None:
        """The weights stand still during a rollout: where the slice is short, all its rows are multiplied beforehand."""
        rollout, rows = self._rollout, self._shared_rows.rows
        known = self._fused is None and self._shared_rows.share and len(rows) <= len(self._rows_of(rollout.bars.flatten()))
        self._tables = [layers.project_rows(rows, weight, self._half) for weight, _ in self._first()] if known else []

    def _read_now(self, bars: Tensor, own: Tensor) -> list[Tensor]:
        at, own = self._rows_of(bars), own.flatten(0, -2)
        if not self._tables:
            return self._read(ObservationBatch(self._shared_rows.whole(at, own)))
        return [
            layers.known_layer(table, at, own, weight, bias, self._squash_first, self._half)
            for table, (weight, bias) in zip(self._tables, self._first(), strict=True)
        ]

    def _act(self, t: int) -> tuple[Tensor, Tensor]:
        """What the last layer of the actor puts out for every account now, and the critic's values."""
        bars, own, account = self._rollout.bars[t], self._rollout.own[t], self._rollout.account[t]
        if self._fused is not None:
            logits, values = self._fused.forward(self._observations(bars, own, account))
            return self._by_unit(logits), self._valued(values)
        actor, critic = self._hidden_layers(self._read_now(bars, own), self._others_of(bars, account))
        return self._logits(actor), self._values(critic)

    def _observations(self, bars: Tensor, own: Tensor, account: Tensor) -> fused.Observations:
        return fused.Observations(*(each.numpy() for each in (self._shared_rows.rows, self._usable, bars, own, account)))

    def _split(self, observations: Tensor) -> tuple[Tensor, layers.Others | None]:
        """Whole observations as the first layer reads them, and what is read later."""
        if self._columns is None:
            return observations, None
        columns, usable, account = self._columns.split(observations)
        return columns.flatten(0, 1), layers.Others(usable, account)

    def _value_of(self, observations: Tensor, accounts: np.ndarray, started: np.ndarray) -> Tensor:
        """The critic's values of whole observations of some accounts, shape (k, n_units)."""
        columns, others = self._split(observations)
        return self._values(self._hidden_layers(self._read(ObservationBatch(columns)), others)[1])

    def _values(self, critic: Tensor) -> Tensor:
        """Shape (n, n_units); a portfolio's value is the mean of its symbols'."""
        values = F.linear(critic, self.policy.value_net.weight, self.policy.value_net.bias)
        return values if self._columns is None else self._valued(values)

    def _valued(self, values: Tensor) -> Tensor:
        """Values by symbol as they are, or their means by account."""
        values = values.view(-1, self._usable.shape[1])
        return values if self._units > 1 else values.mean(1, keepdim=True)

    def _logits(self, actor: Tensor) -> Tensor:
        """What the last layer of the actor puts out: logits, or means of weights; a row for each that is judged apart."""
        out = F.linear(actor, self.policy.action_net.weight, self.policy.action_net.bias)
        return out if self._columns is None else self._by_unit(out)

    def _by_unit(self, out: Tensor) -> Tensor:
        """What is put out for every symbol as it is, or an account's side by side."""
        return out if self._units > 1 else out.view(-1, self._usable.shape[1] * out.shape[1])

    def _sample_actions(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of all symbols, shape (n, n_symbols), and their log-probability together or by symbol, shape (n, n_units)."""
        if self._is_continuous:
            actions, log_prob = layers.sample_weights(logits, self.policy.log_std.expand(logits.shape[1]))
        else:
            actions, log_prob = layers.sample_actions(logits, N_ACTIONS, self._masks_of(masks, logits))
        return actions.view(-1, self._rollout.actions.shape[-1]), log_prob.view(-1, self._units)

    def _evaluate_actions(self, actor: Tensor, masks: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of actions and the entropy, shape (n, n_units) both."""
        logits = self._logits(actor)
        actions = actions.reshape(len(logits), -1)
        if self._is_continuous:
            judged = layers.evaluate_weights(logits, self.policy.log_std.expand(logits.shape[1]), actions)
        else:
            judged = layers.evaluate_actions(logits, N_ACTIONS, self._masks_of(masks, logits), actions)
        log_prob, entropy = judged
        return log_prob.view(-1, self._units), entropy.view(-1, self._units)

    def _order(self, actions: Tensor) -> np.ndarray:
        """Actions as the environment takes them; weights are cut to its limits, and learnt from as they were drawn."""
        orders = actions.cpu().numpy()
        space = self.action_space
        return np.clip(orders, space.low, space.high) if isinstance(space, spaces.Box) else orders

    @staticmethod
    def _masks_of(masks: Tensor, logits: Tensor) -> Tensor | None:
        return masks.reshape(len(logits), -1, N_ACTIONS) if masks.shape[-1] else None

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def collect_rollouts(
        self, env: Any, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int, use_masking: bool = True
    ) -> bool:
        """As in stable-baselines3; the buffer it hands in stays empty, and a MaskablePPO always masks."""
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        rollout: Rollout = self._rollout
        with torch.no_grad():
            self._prepare_acting()
            for t in range(n_rollout_steps):
                rollout.bars[t].copy_(torch.from_numpy(env.bar - self._first_bar))
                self._keep_own(t, torch.from_numpy(self._last_obs[:, self._n_market :]))
                rollout.starts[t] = self._last_episode_starts
                if rollout.masks.shape[-1]:
                    rollout.masks[t].copy_(torch.from_numpy(env.action_masks()))
                logits, rollout.values_there[t] = self._act(t)
                rollout.actions[t], rollout.log_probs[t] = self._sample_actions(logits, rollout.masks[t])
                new_obs, rewards, dones, infos = env.step(self._order(rollout.actions[t]))
                self.num_timesteps += env.num_envs
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
                rollout.rewards[t] = rewards[:, None] if self._units == 1 else env.credits * np.float32(self._units)
                ended = np.flatnonzero(dones)
                if len(ended):
                    self._update_info_buffer([infos[i] for i in ended], dones[ended])
                    self._bootstrap(t, ended, infos)
                self._last_obs, self._last_episode_starts = new_obs, dones
            last = self._value_of(self._to_device(self._last_obs), np.arange(env.num_envs), self._last_episode_starts)
        rollout.finish(last.cpu().numpy(), self._last_episode_starts, self.gamma, self.gae_lambda)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _keep_own(self, t: int, own: Tensor) -> None:
        if self._columns is None:
            self._rollout.own[t].copy_(own)
        else:
            by_symbol, account = self._columns.own_by_symbol(own)
            self._rollout.own[t].copy_(by_symbol)
            self._rollout.account[t].copy_(account)

    def _bootstrap(self, t: int, ended: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Add the value of where truncated episodes stopped to their last reward."""
        cut = np.array([i for i in ended if infos[i]["TimeLimit.truncated"]], dtype=np.int64)
        if len(cut):
            asked = layers.pad_rows(torch.from_numpy(cut), 8).numpy()
            stopped = self._to_device(np.stack([infos[i]["terminal_observation"] for i in asked]))
            values = self._value_of(stopped, asked, np.zeros(len(asked), dtype=np.bool_))[: len(cut)]
            self._rollout.rewards[t, cut] += np.float32(self.gamma) * values.cpu().numpy()

    # -- the update ---------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[_Batch]:
        """One pass over the rollout, in stable-baselines3's order."""
        rollout = self._rollout
        order = np.random.permutation(rollout.bars.numel())
        for start in range(0, len(order), self.batch_size):
            yield self._batch(rollout.positions(order[start : start + self.batch_size]))

    def _batch(self, at: Tensor, accounts: Tensor | None = None, bars: Tensor | None = None) -> _Batch:
        """The samples at some places of the rollout; with other bars than those, if any are named."""
        rollout = self._rollout
        if self._fused is not None:
            return _Batch(None, at)
        own, account = (rollout.flat(tensor).index_select(0, at) for tensor in (rollout.own, rollout.account))
        bars = rollout.flat(rollout.bars).index_select(0, at) if bars is None else bars
        seen = self._shared_rows.batch(self._rows_of(bars), own.flatten(0, -2))
        return _Batch(seen, at, self._others_of(bars, account), accounts)

    def _loss(self, batch: _Batch, clip: float, seen: dict[str, list[Tensor]]) -> tuple[Tensor, Tensor]:
        """PPO's loss of a minibatch and the approximate KL divergence from the rollout's policy."""
        rollout: Rollout = self._rollout
        old, advantages, returns, actions = (
            rollout.flat(tensor).index_select(0, batch.at)
            for tensor in (rollout.log_probs, rollout.advantages, rollout.returns, rollout.actions)
        )
        latent = self._latent(batch)
        masks = rollout.flat(rollout.masks).index_select(0, batch.at)
        log_prob, entropy = (part.flatten() for part in self._evaluate_actions(latent.actor, masks, actions))
        values = self._values(latent.critic).flatten()
        old, advantages, returns = old.flatten(), advantages.flatten(), returns.flatten()
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - old
        ratio = log_ratio.exp()
        policy_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip)).mean()
        value_loss = F.mse_loss(returns, values)
        entropy_loss = -entropy.mean()
        loss: Tensor = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss
        if len(self._taught):
            divergence = self._divergence(self._odds(batch), latent.actor)
            loss = loss + self._teacher_weight * divergence
            seen.setdefault("teacher_divergence", []).append(divergence.detach())
        with torch.no_grad():
            approx_kl = ((ratio - 1) - log_ratio).mean()
            fractions = ((ratio - 1).abs() > clip).float().mean()
        for name, value in (
            ("entropy_loss", entropy_loss), ("policy_gradient_loss", policy_loss), ("value_loss", value_loss),
            ("clip_fraction", fractions), ("approx_kl", approx_kl), ("loss", loss),
        ):  # fmt: skip
            seen.setdefault(name, []).append(value.detach())
        return loss, approx_kl

    def _odds(self, batch: _Batch) -> Tensor:
        """What the teacher says of a minibatch, a row a symbol."""
        return self._taught.index_select(0, self._rollout.flat(self._rollout.bars).index_select(0, batch.at)).view(-1, N_ACTIONS)

    def _divergence(self, odds: Tensor, actor: Tensor) -> Tensor:
        """Mean divergence of the policy from its teacher, per symbol, whatever actions are allowed."""
        if isinstance(self.action_space, spaces.Box):
            return self._distance(actor, odds)
        return F.kl_div(self._logits(actor).reshape(-1, N_ACTIONS).log_softmax(1), odds, reduction="batchmean", log_target=True)

    def _distance(self, actor: Tensor, odds: Tensor) -> Tensor:
        """The same for weights, of two normal distributions as wide as the policy's; the teacher's mean is a slot where it says BUY,
        nothing or a slot short where it says SELL, as discrete actions hold. To hold more is left to the rewards."""
        means, space = self._logits(actor), cast(spaces.Box, self.action_space)
        sides = (odds[:, BUY] - odds[:, SELL]).sign().clamp(float(space.low[0]), float(space.high[0])).view_as(means)
        deviations = self.policy.log_std.detach().exp().expand(means.shape[1])
        return cast(Tensor, 0.5 * ((means - sides / self._rollout.actions.shape[-1]) / deviations).square().mean())

    def _set_gradients(self, batch: _Batch, clip: float, seen: dict[str, list[Tensor]]) -> float:
        """Set the gradients of a minibatch's loss on the parameters; the approximate KL divergence from the rollout's policy."""
        if self._fused is None:
            loss, approx_kl = self._loss(batch, clip, seen)
            self.policy.optimizer.zero_grad()
            torch.autograd.backward(loss)
            return float(approx_kl)
        weights = fused.LossWeights(1.0, self.vf_coef, self.ent_coef, self._teacher_weight)
        told = self._set_fused_gradients(batch, clip, weights)
        parts = dict(zip(fused.STATISTICS, told, strict=True)) | {"loss": told[: len(weights)] @ np.array(weights)}
        if not len(self._taught):
            del parts["teacher_divergence"]
        for name, value in parts.items():
            seen.setdefault(name, []).append(torch.as_tensor(value))
        return float(parts["approx_kl"])

    def _set_fused_gradients(self, batch: _Batch, clip: float, weights: fused.LossWeights) -> np.ndarray:
        """The same by one function; what `fused.STATISTICS` names."""
        assert self._fused is not None
        r, flat = self._rollout, self._rollout.flat
        observed = self._observations(flat(r.bars), flat(r.own), flat(r.account))
        kept = [flat(each) for each in (r.actions.float(), r.masks, r.log_probs, r.advantages, r.returns)]
        outcomes = fused.Outcomes(*(each.numpy() for each in (*kept, self._taught)))
        return self._fused.set_gradients(observed, outcomes, batch.at.numpy(), bool(self.normalize_advantage), clip, weights)

    def _lessons(self) -> Iterator[tuple[_Batch, Tensor]]:
        """Minibatches to imitate on, and what the teacher says of them."""
        for _ in range(_IMITATION_EPOCHS):
            for batch in self._batches():
                yield batch, self._odds(batch)

    def _imitate(self) -> None:
        """Come near the teacher on the rollout's observations; the value function learns nothing yet."""
        optimizer, divergence = torch.optim.Adam(self.policy.parameters(), lr=self._imitation_rate), torch.empty(0)
        for batch, odds in self._lessons():
            if self._fused is None:
                divergence = self._divergence(odds, self._latent(batch).actor)
                optimizer.zero_grad()
                torch.autograd.backward(divergence)
            else:
                told = self._set_fused_gradients(batch, 1.0, fused.LossWeights(0.0, 0.0, 0.0, 1.0))
                divergence = torch.as_tensor(told[fused.STATISTICS.index("teacher_divergence")])
            optimizer.step()
        self._n_updates += 1
        self.logger.record("train/teacher_divergence", float(divergence.detach()))

    def train(self) -> None:
        """As in stable-baselines3; a policy that imitates does that at its first update and nothing else."""
        self.policy.set_training_mode(True)
        self._tables = []
        if self.imitates and not self._n_updates:
            return self._imitate()
        optimizer = self.policy.optimizer
        self._update_learning_rate(optimizer)
        for group in optimizer.param_groups:
            group["fused"] = True  # all of Adam in one pass; saved as stable-baselines3 has it
        deviation = [self.policy.log_std] if hasattr(self.policy, "log_std") else []  # it would drift to 1 with the number of steps
        step, clip = ClippedStep(optimizer, self.max_grad_norm, deviation), self.clip_range(self._current_progress_remaining)
        seen: dict[str, list[Tensor]] = {}
        for _ in range(self.n_epochs):
            seen["approx_kl"] = []
            kl_exceeded = False
            for batch in self._batches():
                approx_kl = self._set_gradients(batch, clip, seen)
                kl_exceeded = self.target_kl is not None and approx_kl > 1.5 * self.target_kl
                if kl_exceeded:
                    break
                step()
            self._n_updates += 1
            if kl_exceeded:
                break
        for group in optimizer.param_groups:
            group["fused"] = None
        for name, values in seen.items():
            self.logger.record(f"train/{name}", float(values[-1] if name == "loss" else torch.stack(values).mean()))
        rollout = self._rollout
        explained = explained_variance(rollout.values.flatten(), rollout.returns.cpu().numpy().flatten())
        self.logger.record("train/explained_variance", float(explained))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip)


class FastPPO(_Fast, PPO):
    """PPO with our rollout and update."""


class FastMaskablePPO(_Fast, MaskablePPO):
    """MaskablePPO with our rollout and update."""


class FastRecurrentPPO(_Fast, RecurrentPPO):
    """RecurrentPPO with our rollout and update: one LSTM layer each for actor and critic. A minibatch is whole sequences.

    Raises:
        ConfigError: `batch_size` is not a multiple of `n_steps`.
    """

    _squash_first = False
    _imitation_rate = 3e-3

    def __init__(self, policy: str, env: MarketVecEnv, **kwargs: Any) -> None:
        super().__init__(policy, env, **kwargs)
        if self.batch_size % self.n_steps:
            raise ConfigError(
                f"training.batch_size {self.batch_size} is not a multiple of n_steps {self.n_steps}; "
                "RecurrentPPO learns from whole sequences, so choose a multiple"
            )
        self._states: list[tuple[Tensor, Tensor]] = []
        self._states_at_start: list[tuple[Tensor, Tensor]] = []

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_states", "_states_at_start"]

    def _lstms(self) -> list[Any]:
        return [self.policy.lstm_actor, self.policy.lstm_critic] if self._columns is None else [self.policy.lstm_actor.each]

    def _keep(self, starts: np.ndarray) -> Tensor:
        """0 where an episode starts, else 1, for every row."""
        keep = self._to_device(1 - starts.astype(np.float32))
        return keep if self._columns is None else keep.repeat_interleave(self._usable.shape[1], dim=-1)

    def _first(self) -> list[tuple[Tensor, Tensor]]:
        return [(lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0) for lstm in self._lstms()]

    def _hidden(self) -> list[list[nn.Linear]]:
        return [layers.linear_layers(net) for net in self._encoders()]

    def _prepare_acting(self) -> None:
        super()._prepare_acting()
        last, lstms = self._last_lstm_states, self._lstms()
        size = lstms[0].hidden_size
        self._states = [(pair[0].view(-1, size), pair[1].view(-1, size)) for pair, _ in zip((last.pi, last.vf), lstms, strict=False)]
        self._states_at_start = self._states

    def _act(self, t: int) -> tuple[Tensor, Tensor]:
        rollout = self._rollout
        keep = self._keep(rollout.starts[t])
        read = self._read_now(rollout.bars[t], rollout.own[t])
        self._states = [
            layers.recurrent_step(x, keep, *state, lstm.weight_hh_l0, self._half)
            for x, state, lstm in zip(read, self._states, self._lstms(), strict=True)
        ]
        shape = 1, rollout.shape[1], -1
        states = [(hidden.view(shape), cell.view(shape)) for hidden, cell in self._states]
        self._last_lstm_states = RNNStates(states[0], states[-1])
        others = self._others_of(rollout.bars[t], rollout.account[t])
        actor, critic = self._hidden_layers([hidden for hidden, _ in self._states], others)
        return self._logits(actor), self._values(critic)

    def _value_of(self, observations: Tensor, accounts: np.ndarray, started: np.ndarray) -> Tensor:
        columns, others = self._split(observations)
        at, keep, memories = self._to_device(accounts), self._keep(started), []
        for x, state, lstm in zip(self._read(ObservationBatch(columns)), self._states, self._lstms(), strict=True):
            hidden, cell = (part.view(self._rollout.shape[1], -1)[at].view(len(x), -1) for part in state)
            memories.append(layers.recurrent_step(x, keep, hidden, cell, lstm.weight_hh_l0, self._half)[0])
        return self._values(self._hidden_layers(memories, others)[1])

    def _batches(self) -> Iterator[_Batch]:
        """One pass over the rollout, some accounts' whole sequences at a time, step by step."""
        n_steps, n_envs = self._rollout.shape
        order = np.random.permutation(n_envs)
        for start in range(0, n_envs, self.batch_size // n_steps):
            accounts = order[start : start + self.batch_size // n_steps]
            at = self._to_device((np.arange(n_steps)[:, None] * n_envs + accounts).ravel())
            yield self._batch(at, self._to_device(accounts))

    def _lessons(self) -> Iterator[tuple[_Batch, Tensor]]:
        """On bars in any order: a memory would else learn by heart what came after what, and not what the teacher reads."""
        if self._teacher is None or self._teacher.parts is None:
            yield from super()._lessons()
            return
        n_steps, lessons = self._rollout.shape[0], 0
        while lessons < _LESSONS:
            for batch in self._batches():
                assert batch.accounts is not None
                bars = np.random.randint(len(self._teacher.odds), size=(n_steps, len(batch.accounts)))
                drawn = self._batch(batch.at, batch.accounts, self._to_device(bars.ravel()))
                yield drawn, self._to_device(self._teacher.on(bars)).view(-1, N_ACTIONS)
                lessons += 1

    def _latent(self, batch: _Batch) -> _Latent:
        assert batch.observations is not None
        assert batch.accounts is not None
        rows = self._rows_of(batch.accounts)  # accounts' states stand as bars' rows do
        keep = self._keep(self._rollout.starts)[:, rows].contiguous()
        out = []
        for x, (hidden, cell), lstm in zip(self._read(batch.observations), self._states_at_start, self._lstms(), strict=True):
            inputs = x.view(self.n_steps, len(rows), -1)
            out.append(layers.recurrent_layer(inputs, keep, hidden[rows], cell[rows], lstm.weight_hh_l0, self._half).flatten(0, 1))
        return _Latent(*self._hidden_layers(out, batch.others))
