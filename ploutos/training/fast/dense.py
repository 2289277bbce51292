"""Layers with tanh between them for a few rows at a time, on one core of a CPU: float32, as fast as its multipliers allow.

A bar of a backtest asks a network about as many rows as there are accounts, a score or so, and the next bar's rows follow from the answer.
Libraries for products prepare each one anew, and are made for more rows. Here a block of rows passes through all layers in one call. Its
sums stay in registers while a strip of weights, as wide as a register, is read once and in order.

Every number is one chain of multiply-adds over its inputs in order, fused where the processor can. So no bit of a row depends on the other
rows, on their number or on the registers' width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ploutos.training.fast.elementwise import FASTMATH, tanh_
from ploutos.types import Float32Array

COMPILED_IN = "ddc0c8fdfccadcf9"
"""Start of the sha256 of `elementwise.py`, which is compiled in: numba's disk cache sees a change of this file alone."""
_FEATURES = cpu_target.target_context.codegen().magic_tuple()[-1].split(",")
"""Of the processor that numba compiles for; it keeps what it compiled under them, so what follows may depend on them."""
_LANES, _MOST = (16, 24) if "+avx512f" in _FEATURES else (8, 12)
"""Numbers in a register, and rows of a block: their sums and what they are made of fit into the registers."""
_STEP = 4
"""What every number of rows that is compiled in is a multiple of."""
_F = np.float32


@intrinsic
def _multiply(typing_context, x, strip, bias, n, rows, out):
    """One strip of a layer's outputs before its tanh, shape (rows, _LANES).

    Args:
        x: the layer's n inputs, in strips of shape (rows, _LANES).
        strip: shape (n, _LANES).
        bias: shape (_LANES,).
    """
    for array in (x, strip, bias, out):
        if array.dtype != types.float32 or array.layout != "C":
            raise TypingError(f"found {array}; expected contiguous float32")
    vector, whole = ir.VectorType(ir.FloatType(), _LANES), ir.IntType(64)

    def generate(context, builder, signature, args):
        x, strip, bias, out = (context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 1, 2, 5))
        add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{_LANES}f32")
        end, bias = builder.append_basic_block("end"), builder.load(lanes(builder, bias, whole(0)), align=4)
        choice = builder.switch(args[4], end)
        for size in range(_STEP, _MOST + 1, _STEP):
            block = builder.append_basic_block(f"rows{size}")
            choice.add_case(whole(size), block)
            builder.position_at_end(block)
            for row, total in enumerate(sums(builder, add, x, strip, args[3], size)):
                builder.store(builder.fadd(total, bias), lanes(builder, out, whole(row * _LANES)), align=4)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    def lanes(builder, data, at):
        return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

    def sums(builder, add, x, strip, n, size):
        before, loop, done = builder.block, builder.append_basic_block("sums"), builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, totals = builder.phi(whole), [builder.phi(vector) for _ in range(size)]
        lane = builder.and_(k, whole(_LANES - 1))
        first = builder.add(builder.mul(builder.sub(k, lane), whole(size)), lane)
        weights = builder.load(lanes(builder, strip, builder.mul(k, whole(_LANES))), align=4)
        new, nothing, zero = [], ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * _LANES)
        for row, total in enumerate(totals):
            one = builder.load(builder.gep(x, [builder.add(first, whole(row * _LANES))]), align=4)
            same = builder.insert_element(nothing, one, ir.IntType(32)(0))
            same = builder.shuffle_vector(same, nothing, ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES))
            new.append(builder.call(add, [same, weights, total]))
        after = builder.add(k, whole(1))
        for phi, value, next_value in zip([k, *totals], [whole(0), *[zero] * size], [after, *new], strict=True):
            phi.add_incoming(value, before)
            phi.add_incoming(next_value, loop)
        builder.cbranch(builder.icmp_signed("<", after, n), loop, done)
        builder.position_at_end(done)
        return new

    return types.void(x, strip, bias, types.intp, types.intp, out), generate


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def _forward(x, added, flat, sizes, out):
    """What the last layer makes of rows of inputs.

    Args:
        x: shape (n, sizes[0]).
        added: the first layer's bias.
        flat: of each layer its strips of weights, one after another, then its bias, which the first one lacks.
        sizes: numbers of inputs and of each layer's outputs.
        out: shape (n, sizes[-1]), written.
    """
    n = max(len(x), 1)
    most = -(-n // (-(-n // _MOST) * _STEP)) * _STEP  # as few blocks as can be, of one size but for the last
    seen, after = np.zeros((sizes.max() + _LANES) * most, _F), np.zeros((sizes.max() + _LANES) * most, _F)
    for first in range(0, len(x), most):
        here, at = min(most, len(x) - first), 0
        rows = -(-here // _STEP) * _STEP
        for i in range(here):
            for k in range(x.shape[1]):
                seen[k // _LANES * _LANES * rows + i * _LANES + k % _LANES] = x[first + i, k]
        for layer in range(len(sizes) - 1):
            n_in, n_wide = sizes[layer], -(-sizes[layer + 1] // _LANES) * _LANES
            end = at + n_wide * n_in
            bias = flat[end:] if layer else added
            for column in range(0, n_wide, _LANES):
                _multiply(seen, flat[at + column * n_in :], bias[column:], n_in, rows, after[column * rows :])
            if layer < len(sizes) - 2:
                tanh_(after[: n_wide * rows])
            at = end + (n_wide if layer else 0)
            seen, after = after, seen
        for i in range(here):
            for k in range(out.shape[1]):
                out[first + i, k] = seen[k // _LANES * _LANES * rows + i * _LANES + k % _LANES]


class DenseLayers:
    """Layers of a network that has tanh between them and none behind the last, their weights laid out once.

    Args:
        first: weight of the first layer, shape (n_out, n_in); its bias is given with each call.
        later: weight and bias of each other layer.

    Raises:
        ValueError: a layer does not read what the one before puts out.
    """

    def __init__(self, first: torch.Tensor, later: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        weights = [first, *(weight for weight, _ in later)]
        self._sizes = np.array([first.shape[1], *map(len, weights)])
        if [weight.shape[1] for weight in weights] != self._sizes[:-1].tolist():
            raise ValueError(f"found weights of {[tuple(weight.shape) for weight in weights]}; expected each to read what comes before it")
        biases = [np.empty(0, np.float32), *(pad(bias.detach().numpy()) for _, bias in later)]
        strips = [pad(weight.detach().T.numpy()).reshape(weight.shape[1], -1, _LANES).swapaxes(0, 1).ravel() for weight in weights]
        self._flat = np.concatenate([part for layer in zip(strips, biases, strict=True) for part in layer])
        self._n_bias = strips[0].size // first.shape[1]

    def __call__(self, x: Float32Array, bias: Float32Array) -> Float32Array:
        """The last layer's outputs, shape (n, n_outputs).

        Args:
            x: shape (n, n_inputs).
            bias: of the first layer, as `pad` makes it.

        Raises:
            ValueError: x or the bias is not as wide as the weights.
        """
        if x.shape[1] != self._sizes[0] or len(bias) != self._n_bias:
            raise ValueError(f"found {x.shape[1]} inputs and a bias of {len(bias)}; expected {self._sizes[0]} and {self._n_bias}")
        out = np.empty((len(x), self._sizes[-1]), dtype=np.float32)
        _forward(x, bias, self._flat, self._sizes, out)
        return out


def pad(rows: Float32Array) -> Float32Array:
    """The same with its last axis filled up with zeros, to whole registers."""
    return np.ascontiguousarray(np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % _LANES)]))
