"""Compiled pointwise arithmetic for training on a CPU: tanh and the LSTM cell, several times faster than torch's.

Everything is float32 and exact to about two units in the last place. Each function works in place on contiguous arrays,
row by row in order, so the same input gives the same bytes. A nan stays a nan.
"""

import numpy as np
from numba import njit

_F = np.float32
_ROUND = _F(12582912.0)  # 1.5 * 2**23: adding and taking it away rounds a float32 to a whole number
_PER_LN2 = _F(1 / np.log(2))
_LN2_HIGH = _F(0.693145751953125)  # ln 2 in two parts, the first short enough to be multiplied without an error
_LN2_LOW = _F(np.log(2) - 0.693145751953125)
_HALF, _3, _4, _5, _6, _7 = (_F(1 / n) for n in (2, 6, 24, 120, 720, 5040))
_ZERO, _ONE, _TWO, _FAR = _F(0), _F(1), _F(2), _F(-60)
FASTMATH = {"contract", "nsz"}
_ROWS = 64


@njit(inline="always", fastmath=FASTMATH)
def expm1(x):
    """exp(x) - 1 and exp(x), x at most 80 and taken for -60 below that."""
    x = _FAR if x < _FAR else x
    whole = x * _PER_LN2 + _ROUND - _ROUND
    r = x - whole * _LN2_HIGH - whole * _LN2_LOW
    small = r * (_ONE + r * (_HALF + r * (_3 + r * (_4 + r * (_5 + r * (_6 + r * _7))))))
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return power * small + (power - _ONE), power * small + power


@njit(inline="always", fastmath=FASTMATH)
def _tanh(x):
    below, _ = expm1(-_TWO * abs(x))
    y = -below / (_TWO + below)
    return y if x >= _ZERO else -y


@njit(inline="always", fastmath=FASTMATH)
def _sigmoid(x):
    _, e = expm1(-abs(x))
    return (_ONE if x >= _ZERO else e) / (_ONE + e)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def tanh_(x):
    """x := tanh(x); x of any length."""
    for i in range(x.size):
        x[i] = _tanh(x[i])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def _exp_(x):  # x <= 0
    for i in range(x.size):
        x[i] = expm1(x[i])[1]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def add_tanh_(x, bias):
    """x := tanh(x + bias); x is (n, k), bias (k,)."""
    for i in range(len(x)):
        row = x[i]
        for j in range(row.size):
            row[j] = _tanh(row[j] + bias[j])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def _sigmoid_(x):
    for i in range(x.size):
        x[i] = _sigmoid(x[i])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def tanh_gradient_(y, gradient, total):
    """y := gradient * (1 - y * y), where y was a tanh of shape (n, k); total := its sum over n, added up in blocks of rows."""
    block = np.empty_like(total)
    total[:] = _ZERO
    for first in range(0, len(y), _ROWS):
        block[:] = _ZERO
        for i in range(first, min(first + _ROWS, len(y))):
            row, up = y[i], gradient[i]
            for j in range(block.size):
                row[j] = up[j] * (_ONE - row[j] * row[j])
                block[j] += row[j]
        for j in range(block.size):
            total[j] += block[j]


@njit(cache=True, nogil=True, error_model="numpy")
def gather_beside_(out, table, at, own):
    """out[i] := table[at[i]] with own[i] behind it."""
    split = table.shape[1]
    for i in range(len(at)):
        left, right, row, mine = out[i, :split], out[i, split:], table[at[i]], own[i]
        for j in range(row.size):
            left[j] = row[j]
        for j in range(mine.size):
            right[j] = mine[j]


@njit(inline="always", fastmath=FASTMATH)
def _weigh(rows, masks, i, power):
    """Subtract the highest of each symbol's logits that sample i may choose; power := exp of what is left."""
    n_symbols, k = rows.shape
    for s in range(n_symbols):
        highest = _F(-np.inf)
        for j in range(k):
            if len(masks) and not masks[i, s, j]:
                rows[s, j] = _F(-1e8)
            highest = max(highest, rows[s, j])
        for j in range(k):
            rows[s, j] -= highest
            power[s * k + j] = rows[s, j]
    _exp_(power)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def evaluate_actions_(log_p, masks, actions, log_prob, entropy):
    """What a policy makes of its choices.

    Args:
        log_p: shape (n, n_symbols, k), logits; holds log-probabilities afterwards.
        masks: the same shape, false for what is not allowed, or of no length at all.
        actions: shape (n, n_symbols), what was chosen.
        log_prob, entropy: shape (n,), written: of all symbols together.
    """
    n, n_symbols, k = log_p.shape
    power = np.empty(n_symbols * k, dtype=np.float32)
    for i in range(n):
        rows = log_p[i]
        _weigh(rows, masks, i, power)
        together, spread = _ZERO, _ZERO
        for s in range(n_symbols):
            total, product = _ZERO, _ZERO
            for j in range(k):
                total += power[s * k + j]
                product += power[s * k + j] * rows[s, j]
            shift = np.log(total)
            spread += shift - product / total
            for j in range(k):
                rows[s, j] -= shift
            together += rows[s, actions[i, s]]
        log_prob[i], entropy[i] = together, spread


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def sample_actions_(logits, masks, uniform, actions, log_prob):
    """Draw one action per symbol.

    Args:
        logits, masks: as in `evaluate_actions_`; logits are used up.
        uniform: shape (n, n_symbols), from [0, 1).
        actions: shape (n, n_symbols), written.
        log_prob: shape (n,), written: of all symbols together.
    """
    n, n_symbols, k = logits.shape
    power = np.empty(n_symbols * k, dtype=np.float32)
    for i in range(n):
        rows = logits[i]
        _weigh(rows, masks, i, power)
        together = _ZERO
        for s in range(n_symbols):
            total = _ZERO
            for j in range(k):
                total += power[s * k + j]
            below, chosen = uniform[i, s] * total, -1
            for j in range(k):
                if power[s * k + j] > _ZERO and (chosen < 0 or below >= _ZERO):  # the last one stands if rounding leaves none
                    chosen = j
                    below -= power[s * k + j]
            actions[i, s] = chosen
            together += rows[s, chosen] - np.log(total)
        log_prob[i] = together


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def evaluate_actions_gradient_(log_p, actions, gradient_log_prob, gradient_entropy):
    """Backwards: log_p becomes the gradient of the logits."""
    n, n_symbols, k = log_p.shape
    power = np.empty(n_symbols * k, dtype=np.float32)
    for i in range(n):
        rows, up, apart = log_p[i], gradient_log_prob[i], gradient_entropy[i]
        power[:] = rows.ravel()
        _exp_(power)
        for s in range(n_symbols):
            mean = _ZERO
            for j in range(k):
                mean += power[s * k + j] * rows[s, j]
            for j in range(k):
                rows[s, j] = -power[s * k + j] * (up + apart * (rows[s, j] - mean))
            rows[s, actions[i, s]] += up


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def gather_add_(x, table, at, bias):
    """x[i] := x[i] + table[at[i]] + bias; x is (n, k), table (m, k), at (n,), bias (k,)."""
    for i in range(len(at)):
        row, out = table[at[i]], x[i]
        for j in range(out.size):
            out[j] += row[j] + bias[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def gather_add_tanh_(x, table, at, bias):
    """x[i] := tanh(x[i] + table[at[i]] + bias)."""
    for i in range(len(at)):
        row, out = table[at[i]], x[i]
        for j in range(out.size):
            out[j] = _tanh(out[j] + row[j] + bias[j])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def cell_(gates, inputs, cell, tanh_cell, hidden):
    """One step of an LSTM.

    Args:
        gates: shape (n, 4 * h), of input, forget, cell, output: what the hidden state adds; holds their values afterwards.
        inputs: shape (n, 4 * h), what the inputs add.
        cell: shape (n, h); the cell before, then after.
        tanh_cell, hidden: shape (n, h), written.
    """
    n, h = cell.shape
    for i in range(n):
        g, x, c, tc, out = gates[i], inputs[i], cell[i], tanh_cell[i], hidden[i]
        for j in range(x.size):
            g[j] += x[j]
        input_gate, forget_gate, cell_gate, output_gate = g[:h], g[h : 2 * h], g[2 * h : 3 * h], g[3 * h :]
        _sigmoid_(g[: 2 * h])
        tanh_(cell_gate)
        _sigmoid_(output_gate)
        for j in range(c.size):
            c[j] = forget_gate[j] * c[j] + input_gate[j] * cell_gate[j]
        for j in range(c.size):
            tc[j] = _tanh(c[j])
        for j in range(c.size):
            out[j] = output_gate[j] * tc[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def cell_gradient_(gates, cell_before, tanh_cell, gradient_hidden, gradient_cell):
    """Backwards through one step of an LSTM.

    Args:
        gates: shape (n, 4 * h), the gates' values; holds the loss's gradient with respect to their arguments afterwards.
        cell_before, tanh_cell: shape (n, h), of this step.
        gradient_hidden: shape (n, h), of the loss with respect to this step's output.
        gradient_cell: shape (n, h), with respect to the cell after this step; then to the cell before it.
    """
    n, h = tanh_cell.shape
    for i in range(n):
        g, before, tc, up, carry = gates[i], cell_before[i], tanh_cell[i], gradient_hidden[i], gradient_cell[i]
        input_gates, forget_gates, cell_gates, output_gates = g[:h], g[h : 2 * h], g[2 * h : 3 * h], g[3 * h :]
        for j in range(carry.size):
            input_gate, forget_gate, cell_gate, output_gate = input_gates[j], forget_gates[j], cell_gates[j], output_gates[j]
            d = carry[j] + up[j] * output_gate * (_ONE - tc[j] * tc[j])
            input_gates[j] = d * cell_gate * input_gate * (_ONE - input_gate)
            forget_gates[j] = d * before[j] * forget_gate * (_ONE - forget_gate)
            cell_gates[j] = d * input_gate * (_ONE - cell_gate * cell_gate)
            output_gates[j] = up[j] * tc[j] * output_gate * (_ONE - output_gate)
            carry[j] = d * forget_gate


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def pool_(x, usable, out, highest):
    """Pool what is usable: out := mean and highest of x, shape (n, 2 * k); highest := which symbol that was, -1 for none.

    Args:
        x: shape (n, n_symbols, k), each above -1 or equal to it.
        usable: shape (n, n_symbols), 1 or 0.
    """
    n, n_symbols, k = x.shape
    for i in range(n):
        mean, most, which, count = out[i, :k], out[i, k : 2 * k], highest[i], _ZERO
        mean[:], most[:], which[:] = _ZERO, -_ONE, np.int32(-1)
        for s in range(n_symbols):
            if usable[i, s] > _ZERO:
                count += _ONE
                row, here = x[i, s], np.int32(s)
                for j in range(mean.size):
                    mean[j] += row[j]
                for j in range(which.size):
                    which[j] = here if row[j] > most[j] else which[j]
                for j in range(most.size):
                    most[j] = max(row[j], most[j])
        share = _ONE / max(count, _ONE)
        for j in range(mean.size):
            mean[j] *= share


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def pool_gradient_(gradient, usable, highest, out):
    """Backwards: out := the gradient of x, shape (n, n_symbols, k)."""
    n, n_symbols, k = out.shape
    for i in range(n):
        mean, most, which, count = gradient[i, :k], gradient[i, k : 2 * k], highest[i], _ZERO
        for s in range(n_symbols):
            count += usable[i, s]
        share = _ONE / max(count, _ONE)
        for s in range(n_symbols):
            row, part = out[i, s], share if usable[i, s] > _ZERO else _ZERO
            for j in range(which.size):
                row[j] = part * mean[j] + (most[j] if which[j] == s else _ZERO)


@njit(cache=True, nogil=True)
def distinct(rows, n):
    """Which of n rows are named, in order, and where each name stands among them."""
    place, count = np.full(n, -1), 0
    for row in rows:
        place[row] = 0
    for row in range(n):
        if place[row] == 0:
            place[row] = count
            count += 1
    named, at = np.empty(count, np.int64), np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        at[i] = place[rows[i]]
        named[at[i]] = rows[i]
    return named, at
