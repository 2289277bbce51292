"""A shared network's forward pass, PPO's loss and all its gradients as compiled functions: float32, on a CPU.

A small network spends most of its time between operations: torch dispatches a hundred of them for a minibatch, and each reads and
writes an array as long as the minibatch. Here some accounts at a time pass through all layers and back while their numbers are in the
core's cache. The result is that of `ploutos.training.fast.layers` and torch's automatic differentiation but for rounding.

A row is one symbol of one account; the symbols of an account stand side by side.

What is called from outside is compiled for one set of types and kept on disk. Two processes that keep different sets of one function at the
same time may end with the code of one under the types of the other: numba does not lock its files.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from ploutos.envs.actions import BUY, N_ACTIONS, SELL
from ploutos.training.fast.elementwise import FASTMATH, add_tanh_, expm1, pool_, pool_gradient_, tanh_, tanh_gradient_
from ploutos.training.networks import N_ACCOUNT_WIDE, PortfolioValue, SymbolColumns, SymbolHead, SymbolNetwork

COMPILED_IN = "ddc0c8fdfccadcf9"
"""Start of the sha256 of `elementwise.py`, which is compiled into these functions: numba's disk cache sees a change of this file alone."""
_F = np.float32
_ZERO, _ONE, _TWO, _NOT_ALLOWED = _F(0), _F(1), _F(2), _F(-1e8)
_LARGEST = _F(80)  # of an exponent
_ODD = 21  # power of the last term of a logarithm's series
_ROWS = 256  # of a block
_HALF, _HALF_LOG_2_PI = _F(0.5), _F(0.5 * np.log(2 * np.pi))
STATISTICS = ("policy_gradient_loss", "value_loss", "entropy_loss", "teacher_divergence", "approx_kl", "clip_fraction")


class Observations(NamedTuple):
    """What n samples observed: a bar of a table that all share, and their own part."""

    market: np.ndarray
    """(n_bars * n_symbols, n_market), by bar and symbol"""
    usable: np.ndarray
    """(n_bars, n_symbols), 1 or 0"""
    bars: np.ndarray
    """(n,)"""
    own: np.ndarray
    """(n, n_symbols, n_own)"""
    account: np.ndarray
    """(n, 2), cash and drawdown"""


class Outcomes(NamedTuple):
    """What n samples did, what came of it, and what the teacher would have done."""

    actions: np.ndarray
    """(n, n_symbols), float32: numbers of actions, or weights"""
    masks: np.ndarray
    """(n, n_symbols * N_ACTIONS), false for what is not allowed; or (n, 0)"""
    log_probs: np.ndarray
    """(n, n_units), as everything below: of every symbol, or of the portfolio"""
    advantages: np.ndarray
    returns: np.ndarray
    odds: np.ndarray
    """(n_bars, n_symbols, N_ACTIONS), log-probabilities; or of no bars"""


class LossWeights(NamedTuple):
    """How much the parts of the loss count."""

    policy: float
    value: float
    entropy: float
    teacher: float


class _Block(NamedTuple):
    """Room for a block's numbers; k accounts, r rows, h the width of an encoding, n_out N_ACTIONS or 1.

    `sizes` are everywhere the columns of a row, the widths of the encoder's layers, and n_out.
    """

    x: np.ndarray  # (r, n_columns)
    encoded: np.ndarray  # every layer's (r, width), one layer after another
    usable: np.ndarray  # (k, n_symbols)
    others: np.ndarray  # (k, 2 h + 2)
    highest: np.ndarray  # (k, h)
    by_account: np.ndarray  # (k, h)
    actor: np.ndarray  # (r, h)
    critic: np.ndarray  # (r, h)
    logits: np.ndarray  # (r, n_out)
    values: np.ndarray  # (r, 1)


@njit(nogil=True, error_model="numpy")
def _allocate(n_accounts, n_symbols, sizes):
    h, n_rows = sizes[-2], n_accounts * n_symbols
    return _Block(
        np.empty((n_rows, sizes[0]), np.float32), np.empty(n_rows * sizes[1:-1].sum(), np.float32),
        np.empty((n_accounts, n_symbols), np.float32), np.empty((n_accounts, 2 * h + N_ACCOUNT_WIDE), np.float32),
        np.empty((n_accounts, h), np.int32), np.empty((n_accounts, h), np.float32),
        np.empty((n_rows, h), np.float32), np.empty((n_rows, h), np.float32),
        np.empty((n_rows, sizes[-1]), np.float32), np.empty((n_rows, 1), np.float32),
    )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _trim(room, n_accounts, n_symbols):
    """The same room for fewer accounts."""
    r = n_accounts * n_symbols
    n_encoded = len(room.encoded) // len(room.x) * r
    return _Block(
        room.x[:r], room.encoded[:n_encoded], room.usable[:n_accounts], room.others[:n_accounts], room.highest[:n_accounts],
        room.by_account[:n_accounts], room.actor[:r], room.critic[:r], room.logits[:r], room.values[:r],
    )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _matrix(flat, at, n, m):
    return flat[at : at + n * m].reshape(n, m)


@njit(nogil=True, error_model="numpy")
def _linear(flat, at, n_out, n_in):
    """Weight and bias of a layer, and where the next one begins."""
    end = at + n_out * n_in
    return _matrix(flat, at, n_out, n_in), flat[end : end + n_out], end + n_out


@njit(nogil=True, error_model="numpy")
def _joins_and_heads(flat, sizes):
    """Weight and bias of what stands behind the encoder: actor's and critic's joining layer, actor's and critic's head."""
    at, h = 0, sizes[-2]
    for layer in range(len(sizes) - 2):
        at += sizes[layer + 1] * (sizes[layer] + 1)
    join, join_bias, at = _linear(flat, at, h, 3 * h + N_ACCOUNT_WIDE)
    value_join, value_join_bias, at = _linear(flat, at, h, 3 * h + N_ACCOUNT_WIDE)
    action, action_bias, at = _linear(flat, at, sizes[-1], h)
    value, value_bias, at = _linear(flat, at, 1, h)
    return (join, join_bias), (value_join, value_join_bias), (action, action_bias), (value, value_bias)


@njit(nogil=True, error_model="numpy")
def _split_join(join):
    """A joining layer's weights of the others and of a symbol's own encoding, each in one piece, and its bias."""
    weight, bias = join
    split = weight.shape[1] - len(bias)
    return weight[:, :split].copy(), weight[:, split:].copy(), bias


@njit(nogil=True, error_model="numpy")
def _split_joins_and_heads(flat, sizes):
    """As `_joins_and_heads`, the joining layers as `_split_join` has them."""
    join, value_join, action, value = _joins_and_heads(flat, sizes)
    return _split_join(join), _split_join(value_join), action, value


@njit(nogil=True, error_model="numpy")
def _observe(observed, samples, block):
    n_symbols, n_market, pooled = block.usable.shape[1], observed.market.shape[1], block.others.shape[1] - N_ACCOUNT_WIDE
    for k in range(len(samples)):
        i = samples[k]
        bar = observed.bars[i]
        for s in range(n_symbols):
            left, right = block.x[k * n_symbols + s, :n_market], block.x[k * n_symbols + s, n_market:]
            row, own = observed.market[bar * n_symbols + s], observed.own[i, s]
            for j in range(left.size):
                left[j] = row[j]
            for j in range(right.size):
                right[j] = own[j]
            block.usable[k, s] = observed.usable[bar, s]
        for j in range(N_ACCOUNT_WIDE):
            block.others[k, pooled + j] = observed.account[i, j]


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _join(encoded, others, weights, shared, out):
    """tanh(x W' + others V' + b)."""
    of_others, of_own, bias = weights
    np.dot(others, of_others.T, shared)
    np.dot(encoded, of_own.T, out)
    n_symbols = len(out) // len(others)
    for i in range(len(out)):
        row, added = out[i], shared[i // n_symbols]
        for j in range(row.size):
            row[j] += added[j] + bias[j]
    tanh_(out.ravel())


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _head(joined, head, out):
    weight, bias = head
    np.dot(joined, weight.T, out)
    for i in range(len(out)):
        for j in range(len(bias)):
            out[i, j] += bias[j]


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _forward(flat, sizes, parts, observed, samples, block):
    """Logits and values of a block, and all that leads to them."""
    _observe(observed, samples, block)
    before, at, kept = block.x, 0, 0
    for layer in range(len(sizes) - 2):
        weight, bias, at = _linear(flat, at, sizes[layer + 1], sizes[layer])
        after = _matrix(block.encoded, kept, len(block.x), sizes[layer + 1])
        np.dot(before, weight.T, after)
        add_tanh_(after, bias)
        before, kept = after, kept + after.size
    h, n_symbols = sizes[-2], block.usable.shape[1]
    pool_(before.reshape(len(samples), n_symbols, h), block.usable, block.others, block.highest)
    actor, critic, action, value = parts
    _join(before, block.others, actor, block.by_account, block.actor)
    _join(before, block.others, critic, block.by_account, block.critic)
    _head(block.actor, action, block.logits)
    _head(block.critic, value, block.values)


@njit(inline="always", fastmath=FASTMATH)
def _log(x):  # 1 <= x <= N_ACTIONS
    z = (x - _ONE) / (x + _ONE)
    y, series = z * z, _ZERO
    for odd in range(_ODD, 0, -2):
        series = series * y + _ONE / _F(odd)
    return _TWO * z * series


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _log_softmax_(log_p, p, entropy):
    """Logits, shape (N_ACTIONS, r), become log-probabilities; p and entropy, (r,), are written."""
    for i in range(entropy.size):
        highest, total, product = log_p[0, i], _ZERO, _ZERO
        for j in range(1, N_ACTIONS):
            highest = max(highest, log_p[j, i])
        for j in range(N_ACTIONS):
            log_p[j, i] -= highest
            p[j, i] = expm1(log_p[j, i])[1]
            total += p[j, i]
        shift, share = _log(total), _ONE / total
        for j in range(N_ACTIONS):
            log_p[j, i] -= shift
            p[j, i] *= share
            product += p[j, i] * log_p[j, i]
        entropy[i] = -product


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _surrogate(log_prob, entropy, values, outcomes, samples, n_samples, scale, clip, weights, statistics):
    """Add PPO's own part of a block's loss to the statistics; log_prob and values, of each row, become its gradient."""
    n_symbols, n_units = outcomes.actions.shape[1], outcomes.log_probs.shape[1]
    of_unit, per_unit, row = n_symbols // n_units, _ONE / _F(n_samples * n_units), 0
    for i in samples:
        for unit in range(n_units):
            together, value, spread = _ZERO, _ZERO, _ZERO
            for s in range(row, row + of_unit):
                together += log_prob[s]
                value += values[s, 0]
                spread += entropy[s]
            error = value / _F(of_unit) - outcomes.returns[i, unit]
            advantage = (outcomes.advantages[i, unit] - scale[0]) * scale[1]
            log_ratio = together - outcomes.log_probs[i, unit]
            ratio = expm1(min(log_ratio, _LARGEST))[1]
            clipped = min(max(ratio, _ONE - clip), _ONE + clip)
            statistics[0] -= min(advantage * ratio, advantage * clipped) * per_unit
            statistics[1] += error * error * per_unit
            statistics[2] -= spread * per_unit
            statistics[4] += (ratio - _ONE - log_ratio) * per_unit
            statistics[5] += per_unit if abs(ratio - _ONE) > clip else _ZERO
            moves = ratio == clipped or advantage * ratio < advantage * clipped
            for s in range(row, row + of_unit):
                log_prob[s] = -weights[0] * advantage * ratio * per_unit if moves else _ZERO
                values[s, 0] = weights[1] * _TWO * error * per_unit / _F(of_unit)
            row += of_unit


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _loss_of_actions(block, outcomes, samples, bars, n_samples, scale, clip, weights, statistics):
    """Add a block's part of the loss to the statistics; its logits and values become their gradient.

    Args:
        n_samples: of the whole minibatch.
        scale: mean of the minibatch's advantages and 1 / deviation.
        weights: as `LossWeights`.
    """
    n_rows, n_symbols = len(block.logits), outcomes.actions.shape[1]
    log_p, entropy = np.empty((N_ACTIONS, n_rows), np.float32), np.empty(n_rows, np.float32)
    p, up = np.empty_like(log_p), np.empty_like(entropy)
    for i in range(n_rows):
        for j in range(N_ACTIONS):
            log_p[j, i] = block.logits[i, j]
    free, q = log_p, p
    if outcomes.masks.shape[1]:
        free, q = log_p.copy(), np.empty_like(p)
        _log_softmax_(free, q, entropy)
        for i in range(n_rows):
            for j in range(N_ACTIONS):
                if not outcomes.masks[samples[i // n_symbols], i % n_symbols * N_ACTIONS + j]:
                    log_p[j, i] = _NOT_ALLOWED
    _log_softmax_(log_p, p, entropy)
    for i in range(n_rows):
        up[i] = log_p[int(outcomes.actions[samples[i // n_symbols], i % n_symbols]), i]
    _surrogate(up, entropy, block.values, outcomes, samples, n_samples, scale, clip, weights, statistics)
    of_entropy, of_teacher = weights[2] / _F(n_samples * outcomes.log_probs.shape[1]), weights[3] / _F(n_samples * n_symbols)
    for i in range(n_rows):
        logits, sample, symbol = block.logits[i], samples[i // n_symbols], i % n_symbols
        for j in range(N_ACTIONS):
            logits[j] = of_entropy * p[j, i] * (log_p[j, i] + entropy[i]) - up[i] * p[j, i]
        logits[int(outcomes.actions[sample, symbol])] += up[i]
        if len(outcomes.odds):
            for j in range(N_ACTIONS):
                odds = outcomes.odds[bars[sample], symbol, j]
                told = expm1(odds)[1]
                statistics[3] += told * (odds - free[j, i]) / _F(n_samples * n_symbols)
                logits[j] += of_teacher * (q[j, i] - told)


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _loss_of_weights(block, outcomes, samples, bars, n_samples, scale, clip, weights, statistics, deviation, limits):
    """The same for means of weights, which have one deviation; to the gradient of its logarithm is added."""
    n_rows, n_symbols, (log_std, to_log_std) = len(block.logits), outcomes.actions.shape[1], deviation
    up, noise, narrow = np.empty(n_rows, np.float32), np.empty(n_rows, np.float32), np.exp(-log_std[0])
    for i in range(n_rows):
        noise[i] = (outcomes.actions[samples[i // n_symbols], i % n_symbols] - block.logits[i, 0]) * narrow
        up[i] = -_HALF * noise[i] * noise[i] - (log_std[0] + _HALF_LOG_2_PI)
    entropy = np.full(n_rows, log_std[0] + _HALF + _HALF_LOG_2_PI)
    _surrogate(up, entropy, block.values, outcomes, samples, n_samples, scale, clip, weights, statistics)
    of_entropy, per_row = weights[2] / _F(n_samples * outcomes.log_probs.shape[1]), _ONE / _F(n_samples * n_symbols)
    for i in range(n_rows):
        mean, bar, symbol = block.logits[i, 0], bars[samples[i // n_symbols]], i % n_symbols
        block.logits[i, 0] = up[i] * noise[i] * narrow
        to_log_std[0] += up[i] * (noise[i] * noise[i] - _ONE) - of_entropy
        if len(outcomes.odds):
            side = np.sign(outcomes.odds[bar, symbol, BUY] - outcomes.odds[bar, symbol, SELL])
            away = (mean - min(max(side, limits[0]), limits[1]) / _F(n_symbols)) * narrow
            statistics[3] += _HALF * away * away * per_row
            block.logits[i, 0] += weights[3] * away * narrow * per_row


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _add(out, x):
    for i in range(out.size):
        out[i] += x[i]


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _add_product(out, a, b):
    """out += a' b."""
    _add(out.ravel(), np.dot(a.T, b).ravel())


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _head_back(joined, head, gradient, to_head, up):
    """Backwards through a head: up := the gradient of what it read."""
    _add_product(to_head[0], gradient, joined)
    for i in range(len(gradient)):
        _add(to_head[1], gradient[i])
    np.dot(gradient, head[0], up)


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _join_back(joined, up, encoded, others, to_weights, by_account):
    """Backwards through a joining layer: joined := the gradient before its tanh, by_account := its sum over an account's symbols."""
    total = np.empty(joined.shape[1], np.float32)
    tanh_gradient_(joined, up, total)
    _add(to_weights[2], total)
    _add_product(to_weights[1], joined, encoded)
    n_symbols = len(joined) // len(others)
    by_account[:] = _ZERO
    for i in range(len(joined)):
        _add(by_account[i // n_symbols], joined[i])
    _add_product(to_weights[0], by_account, others)


@njit(nogil=True, error_model="numpy", fastmath=FASTMATH)
def _backward(flat, sizes, parts, block, to_flat, to_parts):
    """Add a block's gradients, whose logits and values hold theirs; the block is used up."""
    h, n_layers, (k, n_symbols) = sizes[-2], len(sizes) - 2, block.usable.shape
    actor, _, action, value = parts
    to_actor, to_critic, to_action, to_value = to_parts
    kept = block.encoded.size - len(block.x) * h
    encoded, up = _matrix(block.encoded, kept, len(block.x), h), np.empty_like(block.actor)
    _head_back(block.critic, value, block.values, to_value, up)
    _join_back(block.critic, up, encoded, block.others, to_critic, block.by_account)
    _head_back(block.actor, action, block.logits, to_action, up)
    _join_back(block.actor, up, encoded, block.others, to_actor, block.by_account)
    pooled = np.dot(block.by_account, actor[0])
    pool_gradient_(pooled, block.usable, block.highest, up.reshape(k, n_symbols, h))
    _add(up.ravel(), np.dot(block.actor, actor[1]).ravel())
    at = 0
    for layer in range(n_layers):
        at += sizes[layer + 1] * (sizes[layer] + 1)
    for layer in range(n_layers - 1, -1, -1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        at -= n_out * (n_in + 1)
        y, total = _matrix(block.encoded, kept, len(block.x), n_out), np.empty(n_out, np.float32)
        tanh_gradient_(y, up, total)
        to_weight, to_bias, _ = _linear(to_flat, at, n_out, n_in)
        _add(to_bias, total)
        if not layer:
            _add_product(to_weight, y, block.x)
            break
        kept -= len(block.x) * n_in
        _add_product(to_weight, y, _matrix(block.encoded, kept, len(block.x), n_in))
        up = np.dot(y, _linear(flat, at, n_out, n_in)[0])


@njit(nogil=True, error_model="numpy")
def _scale(advantages, samples):
    """Mean of a minibatch's advantages and 1 / deviation, as stable-baselines3 takes them."""
    total, squares, n = 0.0, 0.0, len(samples) * advantages.shape[1]
    for i in samples:
        for unit in range(advantages.shape[1]):
            total += advantages[i, unit]
    for i in samples:
        for unit in range(advantages.shape[1]):
            squares += (advantages[i, unit] - total / n) ** 2
    return _F(total / n), _F(1 / (np.sqrt(squares / (n - 1)) + 1e-8))


@njit(cache=True, nogil=True, error_model="numpy")
def _gradients(flat, sizes, observed, outcomes, samples, normalize, clip, weights, limits, to_flat, statistics):
    to_flat[:], statistics[:] = _ZERO, 0.0
    scale = _scale(outcomes.advantages, samples) if normalize and outcomes.advantages.shape[1] * len(samples) > 1 else (_ZERO, _ONE)
    parts, to_parts, n_symbols = _split_joins_and_heads(flat, sizes), _split_joins_and_heads(to_flat, sizes), observed.usable.shape[1]
    n_at_once = max(1, _ROWS // n_symbols)
    room = _allocate(min(n_at_once, len(samples)), n_symbols, sizes)
    for first in range(0, len(samples), n_at_once):
        some = samples[first : first + n_at_once]
        block = _trim(room, len(some), n_symbols)
        _forward(flat, sizes, parts, observed, some, block)
        if sizes[-1] == N_ACTIONS:
            _loss_of_actions(block, outcomes, some, observed.bars, len(samples), scale, clip, weights, statistics)
        else:
            deviation = (flat[-1:], to_flat[-1:])
            _loss_of_weights(block, outcomes, some, observed.bars, len(samples), scale, clip, weights, statistics, deviation, limits)
        _backward(flat, sizes, parts, block, to_flat, to_parts)
    to_join, to_value_join, _, _ = _joins_and_heads(to_flat, sizes)
    for (weight, _), (of_others, of_own, _) in ((to_join, to_parts[0]), (to_value_join, to_parts[1])):
        weight[:, : of_others.shape[1]], weight[:, of_others.shape[1] :] = of_others, of_own


@njit(cache=True, nogil=True, error_model="numpy")
def _forward_all(flat, sizes, observed, n_at_once, logits, values):
    parts, n_symbols, samples = _split_joins_and_heads(flat, sizes), observed.usable.shape[1], np.arange(len(observed.bars))
    room = _allocate(min(n_at_once, len(samples)), n_symbols, sizes)
    for first in range(0, len(samples), n_at_once):
        some = samples[first : first + n_at_once]
        block = _trim(room, len(some), n_symbols)
        _forward(flat, sizes, parts, observed, some, block)
        logits[first * n_symbols : (first + len(some)) * n_symbols] = block.logits
        values[first * n_symbols : (first + len(some)) * n_symbols] = block.values


class FusedNetwork:
    """A policy of shared network whose layers are passed as one.

    Args:
        policy: on a CPU; its parameters are read anew with every call.
        limits: the least and the most that a weight may be; of no meaning for discrete actions.
    """

    def __init__(self, policy: Any, limits: tuple[float, float] = (0.0, 0.0)) -> None:
        extractor, self._limits = policy.mlp_extractor, limits
        encoder = [layer for layer in extractor.encoder if isinstance(layer, nn.Linear)]
        parts = [extractor.policy_join, extractor.value_join, policy.action_net, policy.value_net]
        self._sizes = np.array([encoder[0].in_features, *(layer.out_features for layer in encoder), policy.action_net.out_features])
        self._parameters: list[Tensor] = [each for layer in (*encoder, *parts) for each in (layer.weight, layer.bias)]
        self._parameters += [policy.log_std] if policy.action_net.out_features != N_ACTIONS else []
        self._gradient = torch.empty(sum(each.numel() for each in self._parameters))
        parts = self._gradient.split([each.numel() for each in self._parameters])
        self._gradients = [part.view_as(each) for part, each in zip(parts, self._parameters, strict=True)]

    def _flat(self) -> np.ndarray:
        return torch.cat([each.detach().view(-1) for each in self._parameters]).numpy()

    def forward(self, observed: Observations, one_by_one: bool = False) -> tuple[Tensor, Tensor]:
        """Logits, shape (n * n_symbols, N_ACTIONS), or means of weights, (n * n_symbols, 1), and values, (n * n_symbols, 1).

        Args:
            one_by_one: a sample's answer has the same bits whatever other samples there are.
        """
        n_at_once = 1 if one_by_one else max(1, _ROWS // observed.own.shape[1])
        n_rows = observed.own.shape[0] * observed.own.shape[1]
        logits, values = torch.empty(n_rows, int(self._sizes[-1])), torch.empty(n_rows, 1)
        _forward_all(self._flat(), self._sizes, observed, n_at_once, logits.numpy(), values.numpy())
        return logits, values

    def set_gradients(
        self, observed: Observations, outcomes: Outcomes, samples: np.ndarray, normalize: bool, clip: float, weights: LossWeights
    ) -> np.ndarray:
        """Set the gradients of a minibatch's loss on the policy's parameters; returns what `STATISTICS` names.

        Args:
            samples: places among those that were observed.
            normalize: whether advantages are those of the minibatch in units of their deviation.
        """
        statistics, factors, limits = np.empty(len(STATISTICS)), tuple(map(_F, weights)), tuple(map(_F, self._limits))
        to_flat = self._gradient.numpy()
        _gradients(self._flat(), self._sizes, observed, outcomes, samples, normalize, _F(clip), factors, limits, to_flat, statistics)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return statistics


def compile_ahead() -> None:
    """Compile for discrete actions, which takes some twenty seconds that the first training would wait for else."""
    layers = SymbolNetwork(SymbolColumns(1, account=False), [2])
    policy = SimpleNamespace(mlp_extractor=layers, action_net=SymbolHead(2, N_ACTIONS), value_net=PortfolioValue(2, 1))
    network, one = FusedNetwork(policy), np.ones((1, 1), np.float32)
    bars = np.zeros(1, np.int64)
    observed = Observations(np.ones((1, 2), np.float32), one, bars, np.ones((1, 1, 2), np.float32), np.ones((1, 2), np.float32))
    outcomes = Outcomes(np.zeros((1, 1), np.float32), np.ones((1, 0), np.bool_), one, one, one, np.zeros((0, 1, N_ACTIONS), np.float32))
    network.forward(observed)
    network.set_gradients(observed, outcomes, bars, True, 0.2, LossWeights(1.0, 0.5, 0.01, 0.3))
