"""The layers of stable-baselines3's actor-critic networks, computed with less work and the same result but for rounding.

An observation is the market's row of a bar and a short part of the account's own. All accounts at one bar see the same row,
so its product with the first layer's weights is computed once per bar and not once per account: half of all arithmetic and
more, where a batch visits a bar several times. Backwards, the gradients of a bar's samples are added up before the product.

The weights are the policy's own parameters; nothing here has a state. On a CPU the pointwise work is compiled
(`ploutos.training.fast.elementwise`), elsewhere it is torch's. With `half`, matrix products take bfloat16 and add in float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ploutos.training.fast import elementwise
from ploutos.training.networks import pool

_ADDING_UP = 24  # what it costs to share a sample's row, in columns of a product
_BLOCK = 4096
_ROWS = 64  # rows of a product come in multiples of this
_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def pad_rows(rows: Tensor, multiple: int) -> Tensor:
    """Row numbers, the first one repeated until there are a multiple of so many.

    oneDNN compiles a routine for every shape of a product that it meets, and keeps a thousand of them: time and memory that
    grow with every number of rows not met before.
    """
    return torch.cat([rows, rows[:1].expand(-len(rows) % multiple)])


@dataclass(frozen=True)
class ObservationBatch:
    """What a batch of n samples observes: whole observations, or an index into market rows and the accounts' own part."""

    whole: Tensor | None  # (n, n_columns)
    rows: Tensor | None = None  # (m, n_market_columns)
    at: Tensor | None = None  # (n,), which of the rows
    own: Tensor | None = None  # (n, n_own_columns)


class SharedRows:
    """The rows that a training's observations share, on the device of the networks.

    Args:
        rows: shape (n_bars, n_market_columns); read only.
        share: whether samples at one bar may share its row.
        half: whether the first layer takes bfloat16.
    """

    def __init__(self, rows: Tensor, device: torch.device, share: bool, half: bool) -> None:
        self.rows, self.half = rows.to(device), half
        self._factors = _rounded(self.rows, half)
        self.share = share and device.type == "cpu"  # adding up on a GPU is in no fixed order, and its products are cheap

    def batch(self, bars: Tensor, own: Tensor) -> ObservationBatch:
        """Samples that observed some bars; shared where that pays."""
        if self.share:
            distinct, place = (torch.from_numpy(each) for each in elementwise.distinct(bars.numpy(), len(self.rows)))
            if (len(bars) - len(distinct)) * self.rows.shape[1] > _ADDING_UP * len(bars):
                rows = self._factors.index_select(0, pad_rows(distinct, _ROWS))
                return ObservationBatch(None, rows, place, _rounded(own, self.half))
        return ObservationBatch(_rounded(self.whole(bars, own), self.half))

    def whole(self, bars: Tensor, own: Tensor) -> Tensor:
        """Whole observations, shape (n, n_columns)."""
        if not _compiled(own):
            return torch.cat([self.rows.index_select(0, bars), own], dim=1)
        out = torch.empty(len(bars), self.rows.shape[1] + own.shape[1])
        elementwise.gather_beside_(out.numpy(), self.rows.numpy(), bars.numpy(), own.numpy())
        return out


def _compiled(x: Tensor) -> bool:
    """Whether pointwise work on a tensor is done by `elementwise`."""
    return x.device.type == "cpu"


def _rounded(x: Tensor, half: bool) -> Tensor:
    return x.bfloat16() if half else x


def _product(a: Tensor, b: Tensor, half: bool) -> Tensor:
    """A product in float32, of bfloat16 factors with `half`."""
    return (a.bfloat16() @ b.bfloat16()).float() if half else a @ b


def _weight_gradient(g: Tensor, x: Tensor, half: bool) -> Tensor:
    """The gradient of weights, shape (n_out, n_in), from those behind a layer's n samples and what the layer read.

    The narrower factor stands on the left: where it is narrow, that saves a CPU up to two fifths of the time.
    """
    return _product(g.t(), x, half) if g.shape[1] <= x.shape[1] else _product(x.t(), g, half).t()


def _finish(x: Tensor, bias: Tensor, squash: bool) -> Tensor:
    """x := x + bias, or its tanh."""
    if not squash:
        return x.add_(bias)
    if not _compiled(x):
        return x.add_(bias).tanh_()
    elementwise.add_tanh_(x.numpy(), bias.detach().numpy())
    return x


def _add_rows(x: Tensor, table: Tensor, at: Tensor, bias: Tensor, squash: bool) -> Tensor:
    """x := x + the table's rows + bias, or its tanh; on a CPU."""
    add = elementwise.gather_add_tanh_ if squash else elementwise.gather_add_
    add(x.numpy(), table.numpy(), at.numpy(), bias.detach().numpy())
    return x


def _before(gradient: Tensor, y: Tensor, squash: bool) -> tuple[Tensor, Tensor]:
    """The gradient before a layer's tanh from that behind it, and its sum over the samples; y, the tanh, is used up."""
    if not squash:
        return gradient, gradient.sum(0)
    if not _compiled(gradient):
        gradient = gradient * (1 - y * y)
        return gradient, gradient.sum(0)
    total = torch.empty(y.shape[1])
    elementwise.tanh_gradient_(y.numpy(), gradient.contiguous().numpy(), total.numpy())
    return y, total


class _Layer(torch.autograd.Function):
    """tanh(x W' + b), or without the tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, squash: bool, half: bool) -> Tensor:
        x = _rounded(x, half)
        y = _finish(_product(x, weight.t(), half), bias, squash)
        ctx.squash, ctx.half = squash, half
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        g, bias = _before(gradients[0], y, ctx.squash)
        g = _rounded(g, ctx.half)
        back = _product(g, weight, ctx.half) if ctx.needs_input_grad[0] else None
        return back, _weight_gradient(g, x, ctx.half), bias, None, None


class _SharedLayer(torch.autograd.Function):
    """The same for samples that share rows: columns of the weights to the left of the split belong to the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, at: Tensor, own: Tensor, weight: Tensor, bias: Tensor, squash: bool, half: bool) -> Tensor:
        split = rows.shape[1]
        table = _product(rows, weight[:, :split].t(), half)
        y = _add_rows(_product(own, weight[:, split:].t(), half), table, at, bias, squash)
        ctx.squash, ctx.half = squash, half
        ctx.save_for_backward(rows, at, own, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rows, at, own, y = ctx.saved_tensors
        g, bias = _before(gradients[0], y, ctx.squash)
        by_row = torch.zeros(len(rows), g.shape[1]).index_add_(0, at, g)
        g = _rounded(g, ctx.half)
        gradient = torch.empty(g.shape[1], rows.shape[1] + own.shape[1])
        gradient[:, : rows.shape[1]] = _weight_gradient(by_row, rows, ctx.half)
        gradient[:, rows.shape[1] :] = _weight_gradient(g, own, ctx.half)
        return None, None, None, gradient, bias, None, None


@dataclass(frozen=True)
class Others:
    """What a shared network joins with each symbol of n accounts."""

    usable: Tensor  # (n, n_symbols), 1 or 0
    account: Tensor  # (n, 2)


class _Pool(torch.autograd.Function):
    """`ploutos.training.networks.pool` in one pass over the encodings, on a CPU."""

    @staticmethod
    def forward(ctx: Any, encoded: Tensor, usable: Tensor) -> Tensor:
        n, _, size = encoded.shape
        out, highest = torch.empty(n, 2 * size), torch.empty(n, size, dtype=torch.int32)
        elementwise.pool_(encoded.numpy(), usable.numpy(), out.numpy(), highest.numpy())
        ctx.save_for_backward(usable, highest)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        usable, highest = ctx.saved_tensors
        out = torch.empty(*usable.shape, highest.shape[1])
        elementwise.pool_gradient_(gradients[0].contiguous().numpy(), usable.numpy(), highest.numpy(), out.numpy())
        return out, None


class _JoinedLayer(torch.autograd.Function):
    """tanh(x W' + others V' + b), where the symbols of an account, side by side, share its others; V stands to the left of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, others: Tensor, weight: Tensor, bias: Tensor, half: bool) -> Tensor:
        split = others.shape[1]
        table = _product(others, weight[:, :split].t(), half)
        at = torch.arange(len(others), device=x.device).repeat_interleave(len(x) // len(others))
        y = _product(x, weight[:, split:].t(), half)
        if _compiled(y):
            _add_rows(y, table, at, bias, True)
        else:
            y.add_(table.index_select(0, at)).add_(bias).tanh_()
        ctx.half = half
        ctx.save_for_backward(x, others, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, others, weight, y = ctx.saved_tensors
        split = others.shape[1]
        g, bias = _before(gradients[0], y, True)
        by_account = g.view(len(others), -1, g.shape[1]).sum(1)
        back = _product(g, weight[:, split:], ctx.half) if ctx.needs_input_grad[0] else None
        back_others = _product(by_account, weight[:, :split], ctx.half) if ctx.needs_input_grad[1] else None
        to_weight = torch.cat([_weight_gradient(by_account, others, ctx.half), _weight_gradient(g, x, ctx.half)], dim=1)
        return back, back_others, to_weight, bias, None


def joined_layers(x: Tensor, others: Others, actor: nn.Linear, critic: nn.Linear, half: bool) -> tuple[Tensor, Tensor]:
    """What a shared network's joining layers make of each symbol, shape (n * n_symbols, size) both; the critic's moves no encoding.

    Args:
        x: shape (n * n_symbols, size), encodings; the symbols of an account stand side by side.
        actor, critic: read the pooled encodings, the account's own columns, then the symbol's encoding.
    """
    each = x.view(*others.usable.shape, -1)
    pooled = _Pool.apply(each, others.usable) if _compiled(x) else pool(each, others.usable)
    read = torch.cat([pooled, others.account], dim=1)
    joined = _JoinedLayer.apply(x, read, actor.weight, actor.bias, half)
    return joined, _JoinedLayer.apply(x.detach(), read.detach(), critic.weight, critic.bias, half)


def first_layer(batch: ObservationBatch, weight: Tensor, bias: Tensor, squash: bool, half: bool) -> Tensor:
    """The layer that reads observations, shape (n, n_out)."""
    if batch.whole is not None:
        return _Layer.apply(batch.whole, weight, bias, squash, half)
    return _SharedLayer.apply(batch.rows, batch.at, batch.own, weight, bias, squash, half)


def project_rows(rows: Tensor, weight: Tensor, half: bool) -> Tensor:
    """Every row's product with its columns of a first layer's weights, shape (n_bars, n_out); no gradient.

    Rows are copied in blocks to where torch aligns memory, since products differ in the last bit with the alignment.
    """
    columns = weight[:, : rows.shape[1]].t()
    out = torch.empty(len(rows), len(weight), device=rows.device)
    for start in range(0, len(rows), _BLOCK):
        at = torch.arange(start, min(start + _BLOCK, len(rows)), device=rows.device)
        out[start : start + _BLOCK] = _product(rows.index_select(0, pad_rows(at, _ROWS)), columns, half)[: len(at)]
    return out


def known_layer(table: Tensor, at: Tensor, own: Tensor, weight: Tensor, bias: Tensor, squash: bool, half: bool) -> Tensor:
    """A first layer whose rows' products are known already; no gradient, on a CPU."""
    return _add_rows(_product(own, weight[:, -own.shape[1] :].t(), half), table, at, bias, squash)


def linear_layers(net: nn.Sequential) -> list[nn.Linear]:
    """The linear layers of one branch of a stable-baselines3 `MlpExtractor`; a tanh follows each."""
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def hidden_layers(x: Tensor, layers: Sequence[nn.Linear], half: bool) -> Tensor:
    """Linear layers with a tanh behind each."""
    for layer in layers:
        x = _Layer.apply(x, layer.weight, layer.bias, True, half)
    return x


class _Recurrence(torch.autograd.Function):
    """An LSTM's steps over whole sequences, once the products with its inputs are known.

    Backwards, its weights' gradient is one product over all steps, and not one per step.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, keep: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, half: bool) -> Tensor:
        steps, n, size = *inputs.shape[:2], cell.shape[1]
        gates, out = torch.empty_like(inputs), torch.empty(steps, n, size, device=inputs.device)
        before = torch.empty(2, steps, n, size, device=inputs.device)  # hidden, cell as each step finds them
        tanh_cell = torch.empty_like(out)
        turned = weight.t().bfloat16() if half else weight.t()
        for t in range(steps):
            torch.mul(hidden, keep[t, :, None], out=before[0, t])
            torch.mul(cell, keep[t, :, None], out=before[1, t])
            if half:
                gates[t] = before[0, t].bfloat16() @ turned
            else:
                torch.mm(before[0, t], turned, out=gates[t])
            cell = _cell(gates[t], inputs[t], before[1, t].clone(), tanh_cell[t], out[t])
            hidden = out[t]
        ctx.half = half
        ctx.save_for_backward(keep, weight, gates, before, tanh_cell)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        keep, weight, gates, before, tanh_cell = ctx.saved_tensors
        steps, n, size = tanh_cell.shape
        carry_cell = torch.zeros_like(tanh_cell[0])
        carry_hidden = torch.zeros_like(carry_cell)
        back = weight.bfloat16() if ctx.half else weight
        for t in reversed(range(steps)):
            up = carry_hidden.add_(gradients[0][t])
            _cell_gradient(gates[t], before[1, t], tanh_cell[t], up, carry_cell)
            carry_cell.mul_(keep[t, :, None])
            carry_hidden = (gates[t].bfloat16() @ back).float() if ctx.half else gates[t] @ back
            carry_hidden.mul_(keep[t, :, None])
        flat = gates.view(steps * n, -1)
        return gates, None, None, None, _weight_gradient(flat, before[0].view(steps * n, size), ctx.half), None


def _cell(gates: Tensor, inputs: Tensor, cell: Tensor, tanh_cell: Tensor, hidden: Tensor) -> Tensor:
    """One step: gates become their values, `tanh_cell` and `hidden` are written, the new cell is returned."""
    if _compiled(gates):
        elementwise.cell_(gates.numpy(), inputs.numpy(), cell.numpy(), tanh_cell.numpy(), hidden.numpy())
        return cell
    input_gate, forget_gate, cell_gate, output_gate = gates.add_(inputs).chunk(4, dim=1)
    input_gate.sigmoid_(), forget_gate.sigmoid_(), cell_gate.tanh_(), output_gate.sigmoid_()
    cell = torch.addcmul(forget_gate * cell, input_gate, cell_gate)
    torch.tanh(cell, out=tanh_cell)
    torch.mul(output_gate, tanh_cell, out=hidden)
    return cell


def _cell_gradient(gates: Tensor, before: Tensor, tanh_cell: Tensor, up: Tensor, carry: Tensor) -> None:
    """Backwards through one step: gates become the gradient of their arguments, `carry` that of the cell before."""
    if _compiled(gates):
        elementwise.cell_gradient_(gates.numpy(), before.numpy(), tanh_cell.numpy(), up.numpy(), carry.numpy())
        return
    input_gate, forget_gate, cell_gate, output_gate = gates.chunk(4, dim=1)
    d = carry + up * output_gate * (1 - tanh_cell * tanh_cell)
    carry.copy_(d * forget_gate)
    gates.copy_(
        torch.cat(
            [
                d * cell_gate * input_gate * (1 - input_gate), d * before * forget_gate * (1 - forget_gate),
                d * input_gate * (1 - cell_gate * cell_gate), up * tanh_cell * output_gate * (1 - output_gate),
            ],
            dim=1,
        )
    )  # fmt: skip


def recurrent_layer(inputs: Tensor, keep: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, half: bool) -> Tensor:
    """What an LSTM puts out over whole sequences.

    Args:
        inputs: shape (n_steps, n, 4 * size), products of the inputs with their weights, both biases added.
        keep: shape (n_steps, n), 0 where an episode starts and the state is forgotten, else 1.
        hidden, cell: shape (n, size), before the first step.
        weight: shape (4 * size, size).

    Returns:
        Shape (n_steps, n, size).
    """
    return _Recurrence.apply(inputs.contiguous(), keep, hidden, cell, weight, half)


def recurrent_step(inputs: Tensor, keep: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, half: bool) -> tuple[Tensor, Tensor]:
    """One step of the same without a gradient: hidden and cell afterwards, shape (n, size)."""
    hidden, cell = hidden * keep[:, None], cell * keep[:, None]
    gates = _product(hidden, weight.t(), half)
    out, tanh_cell = torch.empty_like(hidden), torch.empty_like(cell)
    cell = _cell(gates, inputs.contiguous(), cell, tanh_cell, out)
    return out, cell


def _log_probabilities(logits: Tensor, masks: Tensor | None) -> Tensor:
    if masks is not None:
        logits = torch.where(masks, logits, torch.full((), -1e8, dtype=logits.dtype, device=logits.device))
    return logits.log_softmax(dim=-1)


def _taken(log_p: Tensor, actions: Tensor) -> Tensor:
    return log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1).sum(-1)


def _allowed(each: Tensor, masks: Tensor | None) -> Tensor:
    return torch.empty(0, *each.shape[1:], dtype=torch.bool) if masks is None else masks


def sample_actions(logits: Tensor, n_actions: int, masks: Tensor | None) -> tuple[Tensor, Tensor]:
    """One action per symbol, by one uniform number each from torch's generator.

    Args:
        logits: shape (n, n_symbols * n_actions).
        masks: shape (n, n_symbols, n_actions), false for an action that is not allowed; its probability is 0.

    Returns:
        Actions, shape (n, n_symbols), and their log-probability together, shape (n,).
    """
    each = logits.reshape(len(logits), -1, n_actions)
    uniform = torch.rand(each.shape[:2], device=logits.device)
    if not _compiled(logits):
        log_p = _log_probabilities(each, masks)
        reached = log_p.exp().cumsum(-1)
        actions = (reached <= uniform.unsqueeze(-1) * reached[..., -1:]).sum(-1).clamp_max(n_actions - 1)
        return actions, _taken(log_p, actions)
    actions, log_prob = torch.empty(each.shape[:2], dtype=torch.int64), torch.empty(len(each))
    elementwise.sample_actions_(each.clone().numpy(), _allowed(each, masks).numpy(), uniform.numpy(), actions.numpy(), log_prob.numpy())
    return actions, log_prob


def sample_weights(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """One share per symbol from its normal distribution, by one normal number each from torch's generator.

    Args:
        mean: shape (n, n_symbols).
        log_std: shape (n_symbols,), logs of the deviations.

    Returns:
        Actions, shape (n, n_symbols), not held to any limit, and their log-density together, shape (n,).
    """
    noise = torch.randn_like(mean)
    return mean + log_std.exp() * noise, _log_density(noise, log_std)


def evaluate_weights(mean: Tensor, log_std: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Log-density of the shares of all symbols together and the entropy, shape (n,) both."""
    entropy = (log_std + (0.5 + _HALF_LOG_2_PI)).sum()
    return _log_density((actions - mean) / log_std.exp(), log_std), entropy.expand(len(mean))


def _log_density(noise: Tensor, log_std: Tensor) -> Tensor:
    return (-0.5 * noise * noise - (log_std + _HALF_LOG_2_PI)).sum(-1)


class _EvaluateActions(torch.autograd.Function):
    """`evaluate_actions` and its gradient in one pass over the logits each, on a CPU."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, masks: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        log_p = logits.clone()
        log_prob, entropy = torch.empty(2, len(logits)).unbind()
        elementwise.evaluate_actions_(log_p.numpy(), masks.numpy(), actions.numpy(), log_prob.numpy(), entropy.numpy())
        ctx.save_for_backward(log_p, actions)
        return log_prob, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        log_p, actions = ctx.saved_tensors
        up, apart = (gradient.contiguous().numpy() for gradient in gradients)
        elementwise.evaluate_actions_gradient_(log_p.numpy(), actions.numpy(), up, apart)
        return log_p, None, None


def evaluate_actions(logits: Tensor, n_actions: int, masks: Tensor | None, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of the actions of all symbols together and the entropy, shape (n,) both.

    Args:
        logits: shape (n, n_symbols * n_actions).
        masks: shape (n, n_symbols, n_actions), false for an action that is not allowed.
        actions: shape (n, n_symbols).
    """
    each = logits.reshape(len(logits), -1, n_actions)
    if not _compiled(logits):
        log_p = _log_probabilities(each, masks)
        return _taken(log_p, actions), -(log_p.exp() * log_p).sum((-2, -1))
    log_prob, entropy = _EvaluateActions.apply(each, _allowed(each, masks), actions)
    return log_prob, entropy
