"""The compiled kernels, and the only place where orders become fills, fills become costs, and prices become profit or loss.

One step moves an account from the close of bar *t* to the close of bar *t+1*, in this order:

1. Shorts pay their borrow fee for the time between the two closes, at the close of *t*.
2. A symbol that was delisted with bar *t* is paid out: what is held of it becomes cash at its payout price, at no cost.
3. Orders were decided after the close of *t*: their size is fixed with that close and that equity. A symbol with no bar at
   *t+1* fills nothing and keeps its last mark. A close that is not positive, as a future's can be, sizes no order; one that
   closes a position needs no size.
4. Forced closes come before orders: ruin, a margin call, the session's end, a stop that the open has already passed.
5. An order takes at most its share of the volume that was usual at *t*; a forced close takes what it must and pays for it.
6. Orders that add exposure are scaled down together to the gross limit, and to the margin, both at the open of *t+1*.
7. Fills happen at the open of *t+1*, gaps included, made worse by slippage and impact.
8. A stop that the bar's low (a short's: high) reaches fills at the worse of stop and open, made worse in the same way. A
   position that was opened at this very open can be stopped in this very bar.
9. What is left is marked at the close of *t+1*.
10. An account whose equity is not above the ruin's level is ruined: it trades no more, but for closing what it holds. Where
    equity is below 0, its positions are taken away, cash and equity are 0, and what is missing is written off by the broker.

The same rules in ordinary Python, one account and one symbol after the other, are `tests/plain_ledger.py`: the specification to read
first, which the tests hold this file against with every rule switched on and off at random.

Everything compiled is in this one file: numba's disk cache notices a change of the file that a kernel stands in, and of no
other. State is packed, one row per field. A lane is one symbol of one account; the lanes of an account stand side by side.

Some accounts step together, as many as fill `_GROUP` lanes. Their state and their bars are first copied to `w`, the
scratch array, whose rows stand at fixed distances; so the compiler knows that they do not overlap and computes eight lanes at
once, be they eight symbols of one account or one symbol of eight. A long row has a place per lane, a short one a place per
account; `_spread` copies a short row to the lanes, `_add` sums lanes up. Nearly everything is computed for every lane and
then chosen: a branch that random orders mispredict costs more. Sums run over an account's symbols in their order, one by
one: the same orders give the same bytes, whatever the machine's vectors and whoever shares the group.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

HOLD, BUY, SELL = 0, 1, 2

# prices[bar, field, symbol]; the open of a symbol without a bar is nan
OPEN, MARK, VOLATILITY, VOLUME, HIGH, LOW, MUST_CLOSE = range(7)
# contract_terms[field, symbol]
MULTIPLIER, LOT, FEE_PER_UNIT, SLIPPAGE_PRICE, IN_BPS, MARGIN, LEAST_PRICE, PAYOUT_BAR, PAYOUT_PRICE = range(9)
# rules[field]
(
    COMMISSION_RATE, SLIPPAGE_RATE, SLIPPAGE_PER_VOLATILITY, IMPACT, BORROW, PARTICIPATION, GROSS_LIMIT, BAND, RUIN_EQUITY, STOP,
    MARGIN_CALLS, MAINTENANCE, CLOSE_BY_SESSION_END, SHORT, CASH, REWARD_SCALE, SHARPE_DECAY, SHARPE_PRIOR,
    WEIGHT_LOG_RETURN, WEIGHT_SHARPE, WEIGHT_DRAWDOWN, WEIGHT_TURNOVER, HALF_SPREAD,
) = range(23)  # fmt: skip
N_RULES = 23
# money[field, account]
(
    CASH_HELD, EQUITY, PEAK, PNL, COMMISSION, SLIPPAGE, IMPACT_PAID, BORROW_PAID, TRADED, N_MARGIN_CALLS, RETURN_MEAN, RETURN_SQUARE,
    WRITTEN_OFF,
) = range(13)  # fmt: skip
N_MONEY = 13
_N_CARRIED = WRITTEN_OFF  # the fields that every step reads and writes
# positions[field, lane]
UNITS, ENTRY, TRADE_PNL, WORST, BEST, FILL_UNITS, FILL_PRICE, STOP_UNITS, STOP_PRICE = range(9)
N_POSITIONS = 9
# counts[field, lane]
LOSS_STREAK, OUTCOMES, N_OUTCOMES, EXIT_BAR, FILL_KIND, STOP_KIND = range(6)
N_COUNTS = 6
# parts[field, lane]: what the last step made of every symbol, for those who ask: units before it and after its open, then money
(
    HELD_UNITS, OPENED_UNITS, GAP_GAIN, RUN_GAIN, STOP_GAIN, PART_COMMISSION, PART_SPREAD, PART_SLIPPAGE, PART_IMPACT, PART_BORROW,
) = range(10)  # fmt: skip
N_PARTS = 10
# why something was filled; a stop and a ruin may come after the open
ORDER, STOPPED, STOP_GAP, SESSION_END, MARGIN_CALL, RUIN, PAYOUT = range(1, 8)
KINDS = ("", "order", "stop", "stop gap", "session end", "margin call", "ruin", "payout")
# clock[field, account]
BAR, STEPS_LEFT, LENGTH = range(3)
# episode[field, account]: the reward and its parts, summed
TOTAL, PART_LOG_RETURN, PART_SHARPE, PART_DRAWDOWN, PART_TURNOVER = range(5)
REWARD_PARTS = ("log_return", "differential_sharpe", "drawdown", "turnover")
# facts[ended episode, field], then the reward and its parts, as in episode
END_TRUNCATED, END_LENGTH, END_EQUITY, END_REWARD = range(4)
N_FACTS = 8
# features of the account that an observation may hold, per symbol, and what two of them are multiplied by there
N_ACCOUNT = 5
UNREALISED_SCALE, LOSSES_SCALE = 5.0, 0.1

MAX_SYMBOLS = 512
_VECTOR = 8
_GROUP = 128
_LONG = MAX_SYMBOLS + _VECTOR  # odd numbers of cache lines, so that rows do not share their places in the cache
_SHORT = _GROUP + _VECTOR
# long rows of the scratch array
(
    _MULTIPLIER, _LOT, _FEE, _SLIP, _BPS, _MARGIN, _LEAST,  # terms, copied once
    _HELD, _ENTRY, _EARNED, _WORST, _BEST, _TARGET,  # the account's, before
    _MARK, _VOLATILITY, _VOLUME, _OPEN, _HIGH, _LOW, _CLOSE, _MUST_CLOSE,  # the market's
    _PRICE, _PER_UNIT, _WORTH, _MARGIN_USED, _TARGET_UNITS,  # on the way to an order
    _COST, _PAID, _COMMISSION, _LOST, _IMPACT_COST, _TRADED, _GAIN, _VALUE, _FILL, _CHANGE, _KIND,  # owed before the open; of a fill
    _ENDS, _WON, _STOPPED,  # of a trade
    _OF_EQUITY, _OF_ABLE, _OF_RUINED, _OF_ACCOUNT,  # short rows, spread; the last is whatever is needed next
) = range(0, 44 * _LONG, _LONG)  # fmt: skip
# short rows of the scratch array, the first as in money
(
    _CASH, _EQUITY, _PEAK, _PNL, _FEES, _SLIPPAGE, _IMPACT, _BORROWED, _TURNED_OVER, _CALLS, _MEAN, _SQUARE,
    _BEFORE, _PEAK_BEFORE, _TURNED_BEFORE, _NEXT, _SLOT, _RATE, _RUINED, _CALLED, _ABLE,  # before the step
    _OWED, _OPENING, _REQUIRED, _SHARE, _LIMIT, _KEPT, _ADDED, _SCALE, _HOLDINGS,  # sums over symbols and what they say
    _REWARD, _GROWN, _SHARPE, _DEEPER, _TURNED, _RATIO, _LOG, _IDLE,  # of the reward; the first five as in episode
) = range(44 * _LONG, 44 * _LONG + 38 * _SHORT, _SHORT)  # fmt: skip
_N_PAYOUTS = 44 * _LONG + 38 * _SHORT  # a single number: of symbols that are paid out some day
_SCRATCH = _N_PAYOUTS + _VECTOR
_FAR = 2**40  # beyond every account and lane
_ALONE = -1.0  # a share that leaves orders as they are
OUTCOMES_KEPT = 10
_REWARD_FLOOR = 1e-6
_ROUND_UP = 1e-9
_NO_RETURN = 1e-12
LINE = 64
_PARTS = 4
_FLOATS_PER_LINE = 16
_KEPT_BITS = (1 << OUTCOMES_KEPT) - 1

compiled = njit(cache=True, error_model="numpy")
inlined = njit(cache=True, error_model="numpy", inline="always")


def width_of(n_symbols: int) -> int:
    """Lanes of an account: whole vectors, but no seven idle lanes for a single symbol."""
    return n_symbols if n_symbols <= _VECTOR // 2 else -(-n_symbols // _VECTOR) * _VECTOR


@inlined
def _group_of(width):
    """How many accounts step together."""
    return max(_GROUP // width, 1)


@inlined
def _index(value, most):
    """The same number, which the compiler now knows to lie within 0 and `most`: an index that might be negative costs much."""
    return min(max(value, 0), most)


@inlined
def _whole(n):
    """So many places, rounded up to whole vectors: a loop over them has no remainder, and what it computes there is not read."""
    return (n + _VECTOR - 1) // _VECTOR * _VECTOR


def aligned(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """Zeros that start at a cache line.

    Matrix products differ in the last bit with their input's alignment, and torch reads observations where numpy put
    them. Aligned like torch's own memory, a resumed or repeated run gives the same bytes.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + LINE, dtype=np.uint8)
    offset = -raw.ctypes.data % LINE
    return raw[offset : offset + size].view(dtype).reshape(shape)


def state_rows(n_rows: int, places: int, dtype: Any = np.float64) -> np.ndarray:
    """Zeroed rows for so many places or more: an odd number of cache lines, so that rows do not share their places in the cache."""
    return aligned((n_rows, (-(-places // _VECTOR) | 1) * _VECTOR), dtype)


@intrinsic
def _prefetch(typingctx, array, index):
    """Ask the second-level cache for the line of one element of an array, by its flat position, before it is needed."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), cgutils.voidptr_t)
        flag = ir.IntType(32)
        call = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, call, "llvm.prefetch.p0")
        builder.call(function, [address, flag(0), flag(2), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def _copy(typingctx, target, to, source, start, count):
    """Copy elements between arrays of one type by flat positions: a loop over a short row is mostly its remainder."""
    if target.dtype != source.dtype or target.layout + source.layout != "CC":
        raise TypingError(f"found a copy from {source} to {target}; expected contiguous arrays of one type")

    def generate(context, builder, signature, args):
        source_type = signature.args[2]
        data = [context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 2)]
        there, here = builder.gep(data[0], [args[1]]), builder.gep(data[1], [args[3]])
        cgutils.raw_memcpy(builder, there, here, args[4], context.get_abi_sizeof(context.get_data_type(source_type.dtype)))
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), generate


@inlined
def _side(value):
    """1 or -1; without a branch, which random orders would mispredict. Nobody asks for the side of nothing."""
    return np.copysign(1.0, value)


@inlined
def _whole_lots(units, lot):
    """Units rounded towards zero to whole lots; as they are where fractions trade."""
    size = lot if lot > 0.0 else 1.0
    whole = np.trunc(units / size + _side(units) * _ROUND_UP) * size
    return whole if lot > 0.0 else units


@compiled
def _spread(w, short, long, n, width):
    """Give every lane its account's number."""
    short, long = _index(short, _SCRATCH), _index(long, _SCRATCH)
    n, width = _index(n, _SHORT), _index(width, _LONG)
    if width == 1:
        for a in range(n):
            w[long + a] = w[short + a]
    else:
        for a in range(n):
            for k in range(a * width, (a + 1) * width):
                w[long + k] = w[short + a]


@compiled
def _add(w, long, short, n, n_symbols, width):
    """Add the numbers of each account's lanes to the account's own, one by one."""
    short, long = _index(short, _SCRATCH), _index(long, _SCRATCH)
    n, n_symbols, width = _index(n, _SHORT), _index(n_symbols, _LONG), _index(width, _LONG)
    if width == 1:
        for a in range(n):
            w[short + a] += w[long + a]
    else:
        for a in range(n):
            total = w[short + a]
            for j in range(n_symbols):
                total += w[long + a * width + j]
            w[short + a] = total


@compiled
def _scale_to_limit(w, n, n_symbols, width):
    """Shrink the orders that add exposure so that each account's sum of |units| times `_PER_UNIT` stays within its `_LIMIT`."""
    accounts, lanes = min(_whole(n), _SHORT), min(_whole(n * width), _LONG)
    for k in range(lanes):
        before, after = abs(w[_HELD + k]) * w[_PER_UNIT + k], abs(w[_TARGET_UNITS + k]) * w[_PER_UNIT + k]
        more = after - before
        w[_WORTH + k] = before if before < after else after
        w[_MARGIN_USED + k] = more if more > 0.0 else 0.0
    for a in range(accounts):
        w[_KEPT + a] = 0.0
        w[_ADDED + a] = 0.0
    _add(w, _WORTH, _KEPT, n, n_symbols, width)
    _add(w, _MARGIN_USED, _ADDED, n, n_symbols, width)
    for a in range(accounts):
        kept, added, limit = w[_KEPT + a], w[_ADDED + a], w[_LIMIT + a]
        left = limit - kept
        scale = (left if left > 0.0 else 0.0) / added
        alone = (added == 0.0) | (kept + added <= limit) | (w[_CALLED + a] != 0.0)
        w[_SCALE + a] = _ALONE if alone else scale
    n_over = 0
    for a in range(n):
        n_over += w[_SCALE + a] != _ALONE
    if n_over == 0:
        return
    _spread(w, _SCALE, _OF_ACCOUNT, n, width)
    for k in range(lanes):
        held, want, scale = w[_HELD + k], w[_TARGET_UNITS + k], w[_OF_ACCOUNT + k]
        less = held + _whole_lots((want - held) * scale, w[_LOT + k])
        w[_TARGET_UNITS + k] = less if (abs(want) > abs(held)) & (scale != _ALONE) else want


@inlined
def _required_margin(margin, price, multiplier):
    """Account currency that one unit ties up; an instrument without margin is paid in full."""
    full = abs(price) * multiplier
    return margin if margin > 0.0 else full


@inlined
def _is_called(i, t, prices, contract_terms, rules, money, positions):
    """Whether the broker asks for money after the close of bar t."""
    required = 0.0
    if rules[MARGIN_CALLS] != 0.0:
        for j in range(contract_terms.shape[1]):
            units = positions[UNITS, i * prices.shape[2] + j]
            each = _required_margin(contract_terms[MARGIN, j], prices[t, MARK, j], contract_terms[MULTIPLIER, j])
            tied = abs(units) * each
            required += tied if units != 0.0 else 0.0
    return rules[MARGIN_CALLS] != 0.0 and money[EQUITY, i] < rules[MAINTENANCE] * required


@inlined
def _shortfall(price, change, volatility, volume, least, slippage_rate, slippage_price, per_volatility, impact):
    """How much worse than `price` one unit of a fill is: slippage, then impact. No sale brings less than `least`."""
    size, most = abs(price), price - least
    slip = size * (slippage_rate + per_volatility * volatility) + slippage_price
    slip = slip if slip < most else most
    known = volume > 0.0
    share = abs(change) / (volume if known else 1.0)
    push = size * impact * volatility * np.sqrt(share if known else 1.0)
    most = most - slip
    return slip, (push if push < most else most)


@inlined
def _stop_level(side, entry, stop):
    """The price at which a position is stopped: a share of its entry against it."""
    return entry - side * (abs(entry) * stop)


@inlined
def _is_stopped(held, price, entry, stop):
    """Whether an open has already passed the stop of what is held."""
    side = _side(held)
    return (held != 0.0) & (stop > 0.0) & (side * price <= side * _stop_level(side, entry, stop))


@inlined
def _moved(side, price, entry):
    """Return of a position from its entry; the sign of a price below zero turns the quotient round. 0 from an entry of 0."""
    known = entry != 0.0
    moved = side * _side(entry) * (price / (entry if known else 1.0) - 1.0)
    return moved if known else 0.0


@inlined
def _end_trade(lane, won, bar, counts):
    """Book the outcome of one trade."""
    counts[LOSS_STREAK, lane] = 0 if won else counts[LOSS_STREAK, lane] + 1
    counts[OUTCOMES, lane] = ((counts[OUTCOMES, lane] << 1) | (1 if won else 0)) & _KEPT_BITS
    counts[N_OUTCOMES, lane] = min(counts[N_OUTCOMES, lane] + 1, OUTCOMES_KEPT)
    counts[EXIT_BAR, lane] = np.int64(bar)


@inlined
def _empty(lane, price, kind, positions, counts):
    """Leave nothing of a position, after the open; keep what it left at, and why."""
    positions[STOP_UNITS, lane] = -positions[UNITS, lane]
    positions[STOP_PRICE, lane] = price
    counts[STOP_KIND, lane] = kind
    for field in (UNITS, ENTRY, TRADE_PNL, WORST, BEST):
        positions[field, lane] = 0.0


@compiled
def _stop(w, a, k, at_lane, rules, positions, counts):
    """Close a position by its stop within the bar, at the worse of stop and open, after it was marked at the bar's close.

    Args:
        a, k: account and lane on the scratch array.
        at_lane: lane in the state.
    """
    now, opened, multiplier = w[_TARGET_UNITS + k], w[_PRICE + k], w[_MULTIPLIER + k]
    side, size = _side(now), abs(now)
    level = _stop_level(side, w[_ENTRY + k], rules[STOP])
    at = side * min(side * level, side * opened)
    slip, push = _shortfall(
        at, now, w[_VOLATILITY + k], w[_VOLUME + k], w[_LEAST + k], rules[SLIPPAGE_RATE] * w[_BPS + k], w[_SLIP + k],
        rules[SLIPPAGE_PER_VOLATILITY], rules[IMPACT],
    )  # fmt: skip
    fill = at - side * (slip + push)
    notional = size * abs(fill) * multiplier
    fee = size * w[_FEE + k] + notional * (rules[COMMISSION_RATE] * w[_BPS + k])
    lost, impact_cost = size * slip * multiplier, size * push * multiplier
    missed = now * (at - w[_CLOSE + k]) * multiplier
    w[_FEES + a] += fee
    w[_SLIPPAGE + a] += lost
    w[_IMPACT + a] += impact_cost
    w[_TURNED_OVER + a] += notional
    w[_CASH + a] += now * fill * multiplier - fee
    w[_PNL + a] += missed
    w[_HOLDINGS + a] += -now * w[_CLOSE + k] * multiplier
    w[_GAIN + k] += missed
    w[_COMMISSION + k] += fee
    w[_LOST + k] += lost
    w[_IMPACT_COST + k] += impact_cost
    w[_TRADED + k] += notional
    _end_trade(at_lane, w[_EARNED + k] + missed - (fee + lost + impact_cost) > 0.0, w[_NEXT + a], counts)
    _empty(at_lane, fill, STOPPED, positions, counts)


@compiled
def _write_off(w, a, account, n_symbols, width, money, positions, counts):
    """Take all positions from an account that owes more than it has; what is missing is the broker's loss.

    Args:
        a: account on the scratch array.
        account: the same in the state.
    """
    for j in range(n_symbols):
        lane = account * width + j
        if positions[UNITS, lane] != 0.0:
            _end_trade(lane, positions[TRADE_PNL, lane] > 0.0, w[_NEXT + a], counts)
            _empty(lane, w[_CLOSE + a * width + j], RUIN, positions, counts)
    money[WRITTEN_OFF, account] -= w[_EQUITY + a]
    w[_CASH + a] = 0.0
    w[_EQUITY + a] = 0.0


@compiled
def scratch(contract_terms, width):
    """Scratch for one thread, with the terms of every lane in it."""
    raw = np.zeros(_SCRATCH + _VECTOR)
    at = -(raw.ctypes.data // raw.itemsize) % _VECTOR
    w = raw[at : at + _SCRATCH]
    for j in range(contract_terms.shape[1]):
        w[_N_PAYOUTS] += contract_terms[PAYOUT_BAR, j] >= 0.0
    for a in range(_group_of(width)):
        for j in range(contract_terms.shape[1]):
            k = a * width + j
            w[_MULTIPLIER + k] = contract_terms[MULTIPLIER, j]
            w[_LOT + k] = contract_terms[LOT, j]
            w[_FEE + k] = contract_terms[FEE_PER_UNIT, j]
            w[_SLIP + k] = contract_terms[SLIPPAGE_PRICE, j]
            w[_BPS + k] = contract_terms[IN_BPS, j]
            w[_MARGIN + k] = contract_terms[MARGIN, j]
            w[_LEAST + k] = contract_terms[LEAST_PRICE, j]
    return w


@inlined
def _slot(n_tradable, gross_limit):
    """Share of equity that one BUY asks for."""
    return gross_limit / max(n_tradable, 1)


@compiled
def _load(w, first, n, bar, prices, n_tradable, years, rules, money, ruined, positions):
    """Copy the state and the two bars of n accounts to the scratch array; a mark that is not known becomes 0."""
    width = _index(prices.shape[2], _LONG)
    first, n, lanes, start = _index(first, _FAR), min(n, _SHORT), min(n * width, _LONG), _index(first * width, _FAR)
    for field in range(_N_CARRIED):
        for a in range(n):
            w[_CASH + field * _SHORT + a] = money[field, first + a]
    for a in range(n):
        w[_BEFORE + a] = w[_EQUITY + a]
        w[_PEAK_BEFORE + a] = w[_PEAK + a]
        w[_TURNED_BEFORE + a] = w[_TURNED_OVER + a]
    for a in range(n):
        w[_RUINED + a] = 1.0 if ruined[first + a] else 0.0
        w[_NEXT + a] = bar[first + a] + 1
        w[_SLOT + a] = _slot(n_tradable[bar[first + a]], rules[GROSS_LIMIT])
    for k in range(lanes):
        w[_HELD + k] = positions[UNITS, start + k]
        w[_ENTRY + k] = positions[ENTRY, start + k]
    for k in range(lanes):
        w[_EARNED + k] = positions[TRADE_PNL, start + k]
        w[_WORST + k] = positions[WORST, start + k]
        w[_BEST + k] = positions[BEST, start + k]
    usual = rules[SLIPPAGE_PER_VOLATILITY] > 0.0 or rules[IMPACT] > 0.0 or rules[PARTICIPATION] <= 1.0
    for a in range(n):
        t, at = bar[first + a], a * width
        for j in range(width):
            mark, close = prices[t, MARK, j], prices[t + 1, MARK, j]
            w[_MARK + at + j] = mark if mark == mark else 0.0
            w[_CLOSE + at + j] = close if close == close else 0.0
            w[_OPEN + at + j] = prices[t + 1, OPEN, j]
        if usual:
            for j in range(width):
                w[_VOLATILITY + at + j] = prices[t, VOLATILITY, j]
                w[_VOLUME + at + j] = prices[t, VOLUME, j]
        if rules[STOP] > 0.0:
            for j in range(width):
                w[_HIGH + at + j] = prices[t + 1, HIGH, j]
                w[_LOW + at + j] = prices[t + 1, LOW, j]
        if rules[CLOSE_BY_SESSION_END] != 0.0:
            for j in range(width):
                w[_MUST_CLOSE + at + j] = prices[t + 1, MUST_CLOSE, j]
        if rules[BORROW] > 0.0:
            w[_RATE + a] = rules[BORROW] * years[t + 1]


@compiled
def _load_targets(w, first, n, width, targets):
    """Copy the target weights of n accounts to the scratch array."""
    first, width = _index(first, _FAR), _index(width, _LONG)
    for a in range(n):
        for j in range(targets.shape[1]):
            w[_TARGET + a * width + j] = targets[first + a, j]


@inlined
def _target_of(action, slot, short):
    """A discrete action's target weight: one slot, flat or one slot short, nan for HOLD."""
    sold = -slot if short else 0.0
    other = sold if action == SELL else np.nan
    return slot if action == BUY else other


@compiled
def _load_actions(w, first, n, width, actions, short):
    """Write the target weights of n accounts' discrete actions to the scratch array."""
    first, n, n_symbols, width = _index(first, _FAR), _index(n, _SHORT), _index(actions.shape[1], _LONG), _index(width, _LONG)
    for a in range(n):
        for j in range(n_symbols):
            w[_TARGET + a * width + j] = actions[first + a, j]
    _spread(w, _SLOT, _OF_ACCOUNT, n, width)
    for k in range(min(_whole(n * width), _LONG)):
        w[_TARGET + k] = _target_of(w[_TARGET + k], w[_OF_ACCOUNT + k], short)


@compiled
def _call(w, n, n_symbols, width, maintenance):
    """Whom the broker asks for money after the close of bar t: `_is_called` on the scratch array. Who is ruined is closed anyway."""
    accounts, lanes = min(_whole(n), _SHORT), min(_whole(n * width), _LONG)
    for k in range(lanes):
        full, margin = abs(w[_MARK + k]) * w[_MULTIPLIER + k], w[_MARGIN + k]
        w[_MARGIN_USED + k] = abs(w[_HELD + k]) * (margin if margin > 0.0 else full)
    for a in range(accounts):
        w[_REQUIRED + a] = 0.0
    _add(w, _MARGIN_USED, _REQUIRED, n, n_symbols, width)
    for a in range(accounts):
        called = (w[_EQUITY + a] < maintenance * w[_REQUIRED + a]) & (w[_RUINED + a] == 0.0)
        w[_CALLED + a] = 1.0 if called else 0.0
        w[_CALLS + a] += w[_CALLED + a]


@compiled
def _charge(w, n, n_symbols, width):
    """What all shorts owe at the close of bar t; each trade bears its own part."""
    accounts, lanes = min(_whole(n), _SHORT), min(_whole(n * width), _LONG)
    _spread(w, _RATE, _OF_ACCOUNT, n, width)
    for k in range(lanes):
        held = w[_HELD + k]
        owed = -held * w[_MARK + k] * w[_MULTIPLIER + k] * w[_BPS + k] * w[_OF_ACCOUNT + k]
        owed = owed if held < 0.0 else 0.0
        w[_COST + k] = owed
        w[_EARNED + k] -= owed
    for a in range(accounts):
        w[_OWED + a] = 0.0
    _add(w, _COST, _OWED, n, n_symbols, width)
    for a in range(accounts):
        w[_CASH + a] -= w[_OWED + a]
        w[_BORROWED + a] += w[_OWED + a]


@compiled
def _pay_out(w, n, width, start, contract_terms, counts):
    """Turn into cash what is held of symbols whose payout is due in bar t+1."""
    for j in range(contract_terms.shape[1]):
        if contract_terms[PAYOUT_BAR, j] >= 0.0:
            for a in range(n):
                k = a * width + j
                held = w[_HELD + k]
                if (w[_NEXT + a] == contract_terms[PAYOUT_BAR, j]) & (held != 0.0):
                    gain = held * (contract_terms[PAYOUT_PRICE, j] - w[_MARK + k]) * w[_MULTIPLIER + k]
                    w[_CASH + a] += held * contract_terms[PAYOUT_PRICE, j] * w[_MULTIPLIER + k]
                    w[_PNL + a] += gain
                    w[_COST + k] -= gain
                    _end_trade(start + k, w[_EARNED + k] + gain > 0.0, w[_NEXT + a], counts)
                    for row in (_HELD, _ENTRY, _EARNED, _WORST, _BEST):
                        w[row + k] = 0.0


@compiled
def _order(w, n, width, band, participation, stop, by_session_end):
    """Write the units wanted at the open, before they are held against the account's limits."""
    accounts, lanes = min(_whole(n), _SHORT), min(_whole(n * width), _LONG)
    for a in range(accounts):
        able = (w[_CALLED + a] == 0.0) & (w[_RUINED + a] == 0.0) & (w[_EQUITY + a] > 0.0)
        w[_ABLE + a] = band * w[_SLOT + a] if able else -1.0  # what an able account leaves alone
    _spread(w, _EQUITY, _OF_EQUITY, n, width)
    _spread(w, _ABLE, _OF_ABLE, n, width)
    _spread(w, _RUINED, _OF_RUINED, n, width)
    for k in range(lanes):
        held, mark, multiplier, lot, target = w[_HELD + k], w[_MARK + k], w[_MULTIPLIER + k], w[_LOT + k], w[_TARGET + k]
        opened, margin, equity = w[_OPEN + k], w[_MARGIN + k], w[_OF_EQUITY + k]
        live = opened == opened
        price = opened if live else mark
        full = abs(price) * multiplier
        w[_PRICE + k] = price
        w[_PER_UNIT + k] = full
        w[_WORTH + k] = held * price * multiplier
        w[_MARGIN_USED + k] = abs(held) * (margin if margin > 0.0 else full)
        worth, left_alone, closes = mark * multiplier, w[_OF_ABLE + k], target == 0.0
        sizes = worth > 0.0
        asked = _whole_lots(target * equity / (worth if sizes else 1.0), lot)
        acts = closes | (sizes & (abs(target - held * worth / equity) > left_alone))  # nan: neither
        acts = acts & live & (left_alone >= 0.0)
        want = asked if acts else held
        most = participation * w[_VOLUME + k]  # infinite or nan without a cap: never passed
        capped = held + _whole_lots(_side(want - held) * most, lot)
        want = capped if abs(want - held) > most else want
        stopped = _is_stopped(held, price, w[_ENTRY + k], stop)
        ends = (by_session_end != 0.0) & (w[_MUST_CLOSE + k] != 0.0)
        w[_TARGET_UNITS + k] = 0.0 if live & (stopped | ends | (w[_OF_RUINED + k] != 0.0)) else want


@compiled
def _cut(w, n, width):
    """Cut all positions of a called account alike, to what its equity can carry at the open."""
    accounts, lanes = min(_whole(n), _SHORT), min(_whole(n * width), _LONG)
    n_called = 0
    for a in range(n):
        n_called += w[_CALLED + a] != 0.0
    if n_called == 0:
        return
    for a in range(accounts):
        required = w[_REQUIRED + a]
        share = min(max(w[_OPENING + a] / (required if required > 0.0 else 1.0), 0.0), 1.0)
        w[_SHARE + a] = share if w[_CALLED + a] != 0.0 else _ALONE
    _spread(w, _SHARE, _OF_ACCOUNT, n, width)
    for k in range(lanes):
        want, share = w[_TARGET_UNITS + k], w[_OF_ACCOUNT + k]
        less = _whole_lots(w[_HELD + k] * share, w[_LOT + k])
        w[_TARGET_UNITS + k] = less if (share != _ALONE) & (w[_OPEN + k] == w[_OPEN + k]) & (want != 0.0) else want


@compiled
def _limit(w, n, n_symbols, width, gross_limit, margin_calls):
    """Hold what is wanted against what the account may hold at the open."""
    accounts, lanes = min(_whole(n), _SHORT), min(_whole(n * width), _LONG)
    for a in range(accounts):
        w[_OPENING + a] = w[_CASH + a]
        w[_REQUIRED + a] = 0.0
    _add(w, _WORTH, _OPENING, n, n_symbols, width)
    _add(w, _MARGIN_USED, _REQUIRED, n, n_symbols, width)
    _cut(w, n, width)
    for a in range(accounts):
        w[_LIMIT + a] = gross_limit * w[_OPENING + a]
    _scale_to_limit(w, n, n_symbols, width)
    if margin_calls:
        for k in range(lanes):
            full, margin = abs(w[_PRICE + k]) * w[_MULTIPLIER + k], w[_MARGIN + k]
            w[_PER_UNIT + k] = margin if margin > 0.0 else full
        for a in range(accounts):
            w[_LIMIT + a] = w[_OPENING + a]
        _scale_to_limit(w, n, n_symbols, width)


@compiled
def _explain(w, n, width, stop, by_session_end):
    """Say of every lane why it trades at the open, if it does."""
    _spread(w, _CALLED, _OF_ACCOUNT, n, width)
    for k in range(min(_whole(n * width), _LONG)):
        kind = MARGIN_CALL if w[_OF_ACCOUNT + k] != 0.0 else ORDER
        kind = SESSION_END if (by_session_end != 0.0) & (w[_MUST_CLOSE + k] != 0.0) else kind
        kind = STOP_GAP if _is_stopped(w[_HELD + k], w[_PRICE + k], w[_ENTRY + k], stop) else kind
        w[_KIND + k] = RUIN if w[_OF_RUINED + k] != 0.0 else kind


@compiled
def _fill(w, n, width, commission_rate, slippage_rate, per_volatility, impact, stop):
    """Fill what is wanted at the open, mark it at the close, and carry every trade: begun, grown, cut, ended, turned round."""
    for k in range(min(_whole(n * width), _LONG)):
        held, now, opened, multiplier = w[_HELD + k], w[_TARGET_UNITS + k], w[_PRICE + k], w[_MULTIPLIER + k]
        close = w[_CLOSE + k]
        change = now - held
        size = abs(change)
        gap, run = held * (opened - w[_MARK + k]) * multiplier, now * (close - opened) * multiplier  # both 0 without a bar
        slip, push = _shortfall(
            opened,
            change,
            w[_VOLATILITY + k],
            w[_VOLUME + k],
            w[_LEAST + k],
            slippage_rate * w[_BPS + k],
            w[_SLIP + k],
            per_volatility,
            impact,
        )
        fill = opened + _side(change) * (slip + push)
        notional = size * abs(fill) * multiplier
        fee = size * w[_FEE + k] + notional * (commission_rate * w[_BPS + k])
        lost, impact_cost = size * slip * multiplier, size * push * multiplier
        cost = fee + lost + impact_cost
        w[_PAID + k] = -(change * fill * multiplier + fee)
        w[_COMMISSION + k] = fee
        w[_LOST + k] = lost
        w[_IMPACT_COST + k] = impact_cost
        w[_TRADED + k] = notional
        w[_GAIN + k] = gap + run
        w[_VALUE + k] = now * close * multiplier
        w[_FILL + k] = fill if change != 0.0 else np.nan
        w[_CHANGE + k] = change

        ends, holds = (held != 0.0) & (held * now <= 0.0), now != 0.0
        begins = ends | (held == 0.0)
        ending = cost * (abs(held) / (size if ends else 1.0))
        ending = ending if ends else 0.0
        earned, entry, worst, best = w[_EARNED + k] + gap, w[_ENTRY + k], w[_WORST + k], w[_BEST + k]
        w[_ENDS + k] = 1.0 if ends else 0.0
        w[_WON + k] = earned - ending
        grown = (entry * held + fill * change) / (now if holds else 1.0)
        entry = fill if begins else (grown if abs(now) > abs(held) else entry)
        side = _side(now)
        moved = _moved(side, close, entry if holds else 1.0)
        worst, best = 0.0 if begins else worst, 0.0 if begins else best
        worst, best = moved if moved < worst else worst, moved if moved > best else best
        level = side * _stop_level(side, entry, stop)
        reached = w[_LOW + k] if now > 0.0 else -w[_HIGH + k]
        stopped = (reached <= level) & holds & (stop > 0.0) & (w[_OPEN + k] == w[_OPEN + k])
        carried = (0.0 if begins else earned) - (cost - ending) + run
        w[_STOPPED + k] = 1.0 if stopped else 0.0
        w[_ENTRY + k] = entry if holds else 0.0
        w[_EARNED + k] = carried if holds else 0.0
        w[_WORST + k] = worst if holds else 0.0
        w[_BEST + k] = best if holds else 0.0


@compiled
def _store(w, start, lanes, positions):
    """Copy positions back from the scratch array."""
    start, lanes = _index(start, _FAR), min(lanes, _LONG)
    for k in range(lanes):
        positions[UNITS, start + k] = w[_TARGET_UNITS + k]
        positions[ENTRY, start + k] = w[_ENTRY + k]
        positions[TRADE_PNL, start + k] = w[_EARNED + k]
    for k in range(lanes):
        positions[WORST, start + k] = w[_WORST + k]
        positions[BEST, start + k] = w[_BEST + k]


@compiled
def _record(w, start, n, width, contract_terms, positions, counts):
    """Keep the fills at the open, and payouts in their place; what comes after the open is written as it happens."""
    for a in range(n):
        for j in range(contract_terms.shape[1]):
            k = a * width + j
            lane = start + k
            paid = w[_HELD + k] - positions[UNITS, lane]  # a payout alone moves what is held before an order does
            positions[FILL_UNITS, lane] = w[_CHANGE + k] + paid
            positions[FILL_PRICE, lane] = contract_terms[PAYOUT_PRICE, j] if paid != 0.0 else w[_FILL + k]
            kind = PAYOUT if paid != 0.0 else np.int64(w[_KIND + k])
            counts[FILL_KIND, lane] = kind if positions[FILL_UNITS, lane] != 0.0 else 0
            positions[STOP_UNITS, lane] = 0.0
            positions[STOP_PRICE, lane] = np.nan
            counts[STOP_KIND, lane] = 0


@compiled
def _count(w, start, n, width, counts):
    """Book the outcomes of the trades that have ended."""
    start, lanes = _index(start, _FAR), min(n * width, _LONG)
    _spread(w, _NEXT, _OF_ACCOUNT, n, width)
    for k in range(lanes):
        ends, won, streak = w[_ENDS + k] != 0.0, w[_WON + k] > 0.0, counts[LOSS_STREAK, start + k]
        longer = 0 if won else streak + 1
        counts[LOSS_STREAK, start + k] = longer if ends else streak
    for k in range(lanes):
        ends, won, outcomes = w[_ENDS + k] != 0.0, 1 if w[_WON + k] > 0.0 else 0, counts[OUTCOMES, start + k]
        kept = ((outcomes << 1) | won) & _KEPT_BITS
        counts[OUTCOMES, start + k] = kept if ends else outcomes
    for k in range(lanes):
        ends, n_outcomes, exit_bar = w[_ENDS + k] != 0.0, counts[N_OUTCOMES, start + k], counts[EXIT_BAR, start + k]
        more = n_outcomes + 1 if n_outcomes < OUTCOMES_KEPT else OUTCOMES_KEPT
        counts[N_OUTCOMES, start + k] = more if ends else n_outcomes
        counts[EXIT_BAR, start + k] = np.int64(w[_OF_ACCOUNT + k]) if ends else exit_bar


@compiled
def _decide(w, first, n, n_symbols, width, contract_terms, rules, counts):
    """The first half of a step, on the scratch array: what is charged and called at the close of bar t, and what is wanted at the open."""
    for a in range(min(_whole(n), _SHORT)):
        w[_CALLED + a] = 0.0
        w[_HOLDINGS + a] = 0.0
    if rules[MARGIN_CALLS] != 0.0:
        _call(w, n, n_symbols, width, rules[MAINTENANCE])
    if rules[BORROW] > 0.0:
        _charge(w, n, n_symbols, width)
    if w[_N_PAYOUTS] > 0.0:
        if rules[BORROW] == 0.0:
            w[_COST : _COST + n * width] = 0.0
        _pay_out(w, n, width, first * width, contract_terms, counts)
    _order(w, n, width, rules[BAND], rules[PARTICIPATION], rules[STOP], rules[CLOSE_BY_SESSION_END])
    _limit(w, n, n_symbols, width, rules[GROSS_LIMIT], rules[MARGIN_CALLS] != 0.0)


@compiled
def _trade(w, first, n, n_symbols, width, record, contract_terms, rules, money, ruined, positions, counts):
    """The second half: what is wanted is filled at the open, stopped within the bar, marked at the close and booked."""
    first, n = _index(first, _FAR), _index(n, _SHORT)
    accounts, lanes, start = min(_whole(n), _SHORT), min(n * width, _LONG), first * width
    _fill(w, n, width, rules[COMMISSION_RATE], rules[SLIPPAGE_RATE], rules[SLIPPAGE_PER_VOLATILITY], rules[IMPACT], rules[STOP])
    _add(w, _PAID, _CASH, n, n_symbols, width)
    _add(w, _GAIN, _PNL, n, n_symbols, width)
    _add(w, _COMMISSION, _FEES, n, n_symbols, width)
    _add(w, _LOST, _SLIPPAGE, n, n_symbols, width)
    _add(w, _IMPACT_COST, _IMPACT, n, n_symbols, width)
    _add(w, _TRADED, _TURNED_OVER, n, n_symbols, width)
    _add(w, _VALUE, _HOLDINGS, n, n_symbols, width)
    if record:
        _record(w, start, n, width, contract_terms, positions, counts)
    _store(w, start, lanes, positions)
    n_ended, n_stopped = 0, 0
    for k in range(lanes):
        n_ended += w[_ENDS + k] != 0.0
        n_stopped += w[_STOPPED + k] != 0.0
    if n_ended > 0:
        _count(w, start, n, width, counts)
    if n_stopped > 0:
        for k in range(lanes):
            if w[_STOPPED + k] != 0.0:
                _stop(w, k // width, k, start + k, rules, positions, counts)
    for a in range(accounts):
        equity, peak = w[_CASH + a] + w[_HOLDINGS + a], w[_PEAK + a]
        w[_EQUITY + a] = equity
        w[_PEAK + a] = equity if equity > peak else peak
        w[_RUINED + a] = 1.0 if equity <= rules[RUIN_EQUITY] else w[_RUINED + a]
    n_broke = 0
    for a in range(n):
        ruined[first + a] = w[_RUINED + a] != 0.0
        n_broke += w[_EQUITY + a] < 0.0
    if n_broke > 0:
        for a in range(n):
            if w[_EQUITY + a] < 0.0:
                _write_off(w, a, first + a, n_symbols, width, money, positions, counts)


@compiled
def _store_money(w, first, n, money):
    """Copy money back from the scratch array."""
    first, n = _index(first, _FAR), min(n, _SHORT)
    for field in range(_N_CARRIED):
        for a in range(n):
            money[field, first + a] = w[_CASH + field * _SHORT + a]


@compiled
def _part_before(w, first, n, n_symbols, width, contract_terms, positions, parts):
    """Between the halves of a step: what was held, what a payout earned and what a short paid."""
    for a in range(n):
        for j in range(n_symbols):
            k, lane = a * width + j, (first + a) * width + j
            paid = positions[UNITS, lane] - w[_HELD + k]
            gain = paid * (contract_terms[PAYOUT_PRICE, j] - w[_MARK + k]) * w[_MULTIPLIER + k]
            parts[HELD_UNITS, lane] = positions[UNITS, lane]
            parts[GAP_GAIN, lane] = gain
            parts[PART_BORROW, lane] = w[_COST + k] + gain  # what is owed less what was paid out


@compiled
def _part_after(w, first, n, n_symbols, width, rules, parts):
    """After a step: what the gap, the bar and a stop within it earned, and every cost of the fills."""
    for a in range(n):
        for j in range(n_symbols):
            k, lane = a * width + j, (first + a) * width + j
            now, opened, close, multiplier = w[_TARGET_UNITS + k], w[_PRICE + k], w[_CLOSE + k], w[_MULTIPLIER + k]
            gap, run = w[_HELD + k] * (opened - w[_MARK + k]) * multiplier, now * (close - opened) * multiplier
            stopped = w[_STOPPED + k] != 0.0
            missed = w[_GAIN + k] - gap - run if stopped else 0.0
            left = abs(now * multiplier * close + missed) if stopped else 0.0  # worth of what was stopped, at its stop
            filled = abs(w[_CHANGE + k] * opened) * multiplier + left
            spread = min(filled * rules[HALF_SPREAD] * w[_BPS + k], w[_LOST + k])
            parts[OPENED_UNITS, lane] = now
            parts[GAP_GAIN, lane] += gap
            parts[RUN_GAIN, lane] = run
            parts[STOP_GAIN, lane] = missed
            parts[PART_COMMISSION, lane] = w[_COMMISSION + k]
            parts[PART_SPREAD, lane] = spread
            parts[PART_SLIPPAGE, lane] = w[_LOST + k] - spread
            parts[PART_IMPACT, lane] = w[_IMPACT_COST + k]


@compiled
def step_accounts(bar, targets, w, prices, contract_terms, n_tradable, years, rules, money, ruined, positions, counts, parts):
    """Move every account one bar on, each from its own bar, and keep its fills and why they happened.

    Where `parts` has room, shape (N_PARTS, n lanes), it is told what the step made of every symbol.
    """
    width = prices.shape[2]
    group, n_symbols = _group_of(width), contract_terms.shape[1]
    for first in range(0, len(bar), group):
        n = min(group, len(bar) - first)
        _load(w, first, n, bar, prices, n_tradable, years, rules, money, ruined, positions)
        _load_targets(w, first, n, width, targets)
        _decide(w, first, n, n_symbols, width, contract_terms, rules, counts)
        _explain(w, n, width, rules[STOP], rules[CLOSE_BY_SESSION_END])
        if len(parts) > 0:
            _part_before(w, first, n, n_symbols, width, contract_terms, positions, parts)
        _trade(w, first, n, n_symbols, width, True, contract_terms, rules, money, ruined, positions, counts)
        if len(parts) > 0:
            _part_after(w, first, n, n_symbols, width, rules, parts)
        _store_money(w, first, n, money)


@compiled
def shares_held(t, prices, contract_terms, money, positions, out):
    """Write the share of equity that every account holds of every symbol after the close of bar t, signed."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            units = positions[UNITS, i * prices.shape[2] + j]
            worth = units * prices[t, MARK, j] * contract_terms[MULTIPLIER, j]
            out[i, j] = (worth if units != 0.0 else 0.0) / max(money[EQUITY, i], 1e-9)


@compiled
def decode(actions, n_tradable, gross_limit, short, targets):
    """Write the target weights of discrete actions: one slot, flat or one slot short, nan for HOLD."""
    for i in range(actions.shape[0]):
        slot = _slot(n_tradable[i], gross_limit)
        for j in range(actions.shape[1]):
            targets[i, j] = _target_of(actions[i, j], slot, short)


@compiled
def mask(bar, session_end, prices, contract_terms, rules, money, positions, out):
    """Write which of HOLD, BUY and SELL can do anything, shape (n, n_symbols, 3)."""
    for i in range(len(bar)):
        t = bar[i]
        last = t + 1 == len(prices)
        void = last or _is_called(i, t, prices, contract_terms, rules, money, positions)
        void |= not last and rules[CLOSE_BY_SESSION_END] != 0.0 and session_end[t + 1]
        for j in range(out.shape[1]):
            able = not np.isnan(prices[t, OPEN, j]) and not void
            out[i, j, HOLD] = True
            out[i, j, BUY] = able
            out[i, j, SELL] = able and (rules[SHORT] != 0.0 or positions[UNITS, i * prices.shape[2] + j] != 0.0)


@compiled
def differential_sharpe(mean, square, simple_return):
    """How much one more return moves the Sharpe ratio of decayed moments, per unit of decay; 0 without variance.

    Source: Moody, Wu, Liao and Saffell (1998), "Performance functions and reinforcement learning for trading systems and
    portfolios", equation 11.
    """
    variance = square - mean * mean
    known = variance > 0.0
    variance = variance if known else 1.0
    moved = square * (simple_return - mean) - 0.5 * mean * (simple_return * simple_return - square)
    slope = moved / (variance * np.sqrt(variance))
    return slope if known else 0.0


@compiled
def _reward(w, first, n, rules, episode, rewards):
    """The rewards of n accounts' last step, and their parts added to the episodes'."""
    first, n = _index(first, _FAR), _index(n, _SHORT)
    accounts, floor, scale = min(_whole(n), _SHORT), _REWARD_FLOOR * rules[CASH], rules[REWARD_SCALE]
    for a in range(accounts):
        w[_RATIO + a] = max(w[_EQUITY + a], floor) / max(w[_BEFORE + a], floor)
    for a in range(n):
        w[_LOG + a] = np.log(w[_RATIO + a])
    for a in range(accounts):
        simple, mean, square, before = w[_RATIO + a] - 1.0, w[_MEAN + a], w[_SQUARE + a], w[_BEFORE + a]
        grown = rules[WEIGHT_LOG_RETURN] * w[_LOG + a]
        sharpe = rules[WEIGHT_SHARPE] * differential_sharpe(mean, square, simple)
        w[_MEAN + a] = mean + rules[SHARPE_DECAY] * (simple - mean)
        w[_SQUARE + a] = square + rules[SHARPE_DECAY] * (simple * simple - square)
        deeper = rules[WEIGHT_DRAWDOWN] * min(w[_EQUITY + a] / w[_PEAK + a] - before / w[_PEAK_BEFORE + a], 0.0)
        turned = -rules[WEIGHT_TURNOVER] * (w[_TURNED_OVER + a] - w[_TURNED_BEFORE + a]) / max(before, floor)
        w[_REWARD + a] = np.float32((grown + sharpe + deeper + turned) * scale)
        w[_GROWN + a] = grown * scale
        w[_SHARPE + a] = sharpe * scale
        w[_DEEPER + a] = deeper * scale
        w[_TURNED + a] = turned * scale
    for field in range(len(episode)):
        for a in range(n):
            episode[field, first + a] += w[_REWARD + field * _SHORT + a]
    for a in range(n):
        rewards[first + a] = w[_REWARD + a]


@compiled
def _idle(w, n, rules):
    """What the Sharpe ratio's part would pay for a return of 0: no symbol's doing. Before `_reward` moves the moments on."""
    for a in range(n):
        w[_IDLE + a] = rules[WEIGHT_SHARPE] * differential_sharpe(w[_MEAN + a], w[_SQUARE + a], 0.0) * rules[REWARD_SCALE]


@compiled
def _split(w, first, n, n_symbols, width, rules, credits):
    """Split n accounts' rewards among their symbols, so that they add up to the reward.

    A symbol bears the penalty for its own turnover, and of what is paid for the account's return the share that its profit net of its
    costs has in all symbols' together: for a smooth reward this is the split of Aumann and Shapley along the straight line from no
    return. What is left, all of it where nothing was earned, is borne by all symbols alike.
    """
    floor = _REWARD_FLOOR * rules[CASH]
    for a in range(n):
        before, start, total = max(w[_BEFORE + a], floor), a * width, 0.0
        for k in range(start, start + n_symbols):
            profit = w[_GAIN + k] - w[_COMMISSION + k] - w[_LOST + k] - w[_IMPACT_COST + k] - w[_COST + k]
            w[_PAID + k] = profit / before
            total += w[_PAID + k]
        earned = w[_GROWN + a] + w[_SHARPE + a] + w[_DEEPER + a] - w[_IDLE + a]
        moved = abs(total) > _NO_RETURN
        rate = earned / (total if moved else 1.0) if moved else 0.0
        penalty = rules[WEIGHT_TURNOVER] * rules[REWARD_SCALE] / before
        left = w[_GROWN + a] + w[_SHARPE + a] + w[_DEEPER + a] + w[_TURNED + a]
        for k in range(start, start + n_symbols):
            w[_PAID + k] = rate * w[_PAID + k] - penalty * w[_TRADED + k]
            left -= w[_PAID + k]
        for j in range(n_symbols):
            credits[first + a, j] = w[_PAID + start + j] + left / n_symbols


@compiled
def _observe_account(i, lane, at, drawdown, money, positions, counts, out):
    """The account's features of one symbol, as `ploutos.envs.account_features.account_features` has them, scaled and clipped."""
    wins, trades = 0, counts[N_OUTCOMES, lane]
    for k in range(OUTCOMES_KEPT):
        wins += (counts[OUTCOMES, lane] >> k) & 1
    worst = positions[WORST, lane]
    swing = positions[BEST, lane] - worst
    out[i, at] = min(max(UNREALISED_SCALE * (positions[TRADE_PNL, lane] / max(money[EQUITY, i], 1e-9)), -5.0), 5.0)
    out[i, at + 1] = max(drawdown, -5.0)
    out[i, at + 2] = min(LOSSES_SCALE * counts[LOSS_STREAK, lane], 5.0)
    out[i, at + 3] = wins / trades if trades > 0 else 0.5
    out[i, at + 4] = -worst / swing if swing > 0.0 else 0.0


@inlined
def _observe(i, t, rows, prices, contract_terms, money, positions, counts, out):
    columns, n_symbols = rows.shape[1], contract_terms.shape[1]
    at = _index(i * prices.shape[2], _FAR)
    _copy(out, i * out.shape[1], rows, t * columns, columns)
    equity = money[EQUITY, i]
    scale = max(equity, 1e-9)
    for j in range(n_symbols):
        units, mark, entry = positions[UNITS, at + j], prices[t, MARK, j], positions[ENTRY, at + j]
        holds = units != 0.0
        weight = units * mark * contract_terms[MULTIPLIER, j] / scale
        moved = 5.0 * _moved(_side(units), mark, entry if holds else 1.0)
        weight, moved = weight if holds else 0.0, moved if holds else 0.0
        out[i, columns + j] = min(max(weight, -5.0), 5.0)
        out[i, columns + n_symbols + j] = min(max(moved, -5.0), 5.0)
    out[i, columns + 2 * n_symbols] = min(max(money[CASH_HELD, i] / scale, -5.0), 5.0)
    drawdown = equity / money[PEAK, i] - 1.0
    out[i, columns + 2 * n_symbols + 1] = drawdown
    own = columns + 2 * n_symbols + 2
    if out.shape[1] > own:
        for j in range(n_symbols):
            _observe_account(i, at + j, own + N_ACCOUNT * j, drawdown, money, positions, counts, out)


@compiled
def observe(bar, rows, prices, contract_terms, money, positions, counts, out):
    """Write every account's observation after the close of its bar, with the account's features where `out` has room for them."""
    for i in range(len(bar)):
        _observe(i, bar[i], rows, prices, contract_terms, money, positions, counts, out)


@compiled
def open_accounts(which, width, cash, prior, money, ruined, positions, counts):
    """Put some accounts back to cash and forget their trades; `prior` is the variance that the Sharpe moments start from."""
    for i in which:
        money[:, i] = 0.0
        money[CASH_HELD, i] = cash
        money[EQUITY, i] = cash
        money[PEAK, i] = cash
        money[RETURN_SQUARE, i] = prior
        ruined[i] = False
        for k in range(i * width, (i + 1) * width):
            positions[:, k] = 0.0
            positions[FILL_PRICE, k] = np.nan
            positions[STOP_PRICE, k] = np.nan
            counts[:, k] = 0
            counts[EXIT_BAR, k] = -1


@compiled
def restart(
    which, starts, last_bar, episode_bars, rules, clock, episode, rows, prices, contract_terms, money, ruined, positions, counts, out
):
    """Begin new episodes at the given bars and write their first observations."""
    open_accounts(which, prices.shape[2], rules[CASH], rules[SHARPE_PRIOR], money, ruined, positions, counts)
    for k in range(len(which)):
        i = which[k]
        clock[BAR, i] = starts[k]
        clock[STEPS_LEFT, i] = min(episode_bars, last_bar - starts[k])
        clock[LENGTH, i] = 0
        episode[:, i] = 0.0
        _observe(i, starts[k], rows, prices, contract_terms, money, positions, counts, out)


@compiled
def finish(which, facts, kept, starts, last_bar, episode_bars, rules, clock, episode, rows, prices, contract_terms, money, ruined,
           positions, counts, out):  # fmt: skip
    """Write down how episodes ended, keep their last observations, and begin the next ones."""
    for k in range(len(which)):
        i = which[k]
        facts[k, END_TRUNCATED] = not ruined[i]
        facts[k, END_LENGTH] = clock[LENGTH, i]
        facts[k, END_EQUITY] = money[EQUITY, i]
        for field in range(len(episode)):
            facts[k, END_REWARD + field] = episode[field, i]
        _copy(kept, k * kept.shape[1], out, i * out.shape[1], out.shape[1])
    restart(
        which, starts, last_bar, episode_bars, rules, clock, episode, rows, prices, contract_terms, money, ruined, positions, counts, out
    )


@inlined
def _fetch(t, table, per_line):
    """Ask for bar t of a table before it is read: every account stands at another place of the market."""
    width = table.size // len(table)
    for k in range(t * width, (t + 1) * width, per_line):
        _prefetch(table, k)


@compiled
def _ahead(part, first, bar, rows, prices):
    """Ask for a part of what the next group will read, while this one is computed: all at once would be waited for.

    After the last group comes the first, in the next step.
    """
    n = min(_group_of(prices.shape[2]), len(bar) - first)
    for i in range(first + n * part // _PARTS, first + n * (part + 1) // _PARTS):
        _fetch(bar[i] + 1, prices, _FLOATS_PER_LINE // 2)
        _fetch(bar[i] + 1, rows, _FLOATS_PER_LINE)


@compiled
def _tick(first, n, clock, ruined, done):
    """Turn n accounts' clocks one bar on; returns how many episodes have ended."""
    first, n, n_done = _index(first, _FAR), _index(n, _SHORT), 0
    for i in range(first, first + n):
        clock[BAR, i] += 1
        clock[STEPS_LEFT, i] -= 1
        clock[LENGTH, i] += 1
    for i in range(first, first + n):
        done[i] = ruined[i] | (clock[STEPS_LEFT, i] <= 0)
        n_done += done[i]
    return n_done


@compiled
def advance(clock, actions, discrete, n_tradable, targets, w, rows, prices, contract_terms, years, rules, money, ruined, positions, counts,
            episode, rewards, credits, done, out):  # fmt: skip
    """One step of a batch: actions to orders, orders to accounts, accounts to rewards, ends and observations.

    With `discrete` the actions are decoded, else `targets` holds the weights. Where `credits` has room, shape (n, n_symbols), rewards are
    split among symbols. Fills are not kept. Returns how many episodes have ended.
    """
    bar, width, n_symbols = clock[BAR], prices.shape[2], contract_terms.shape[1]
    group, n_done = _group_of(width), 0
    for first in range(0, len(bar), group):
        n, following = min(group, len(bar) - first), first + group if first + group < len(bar) else 0
        _load(w, first, n, bar, prices, n_tradable, years, rules, money, ruined, positions)
        _ahead(0, following, bar, rows, prices)
        if discrete:
            _load_actions(w, first, n, width, actions, rules[SHORT] != 0.0)
        else:
            _load_targets(w, first, n, width, targets)
        _ahead(1, following, bar, rows, prices)
        _decide(w, first, n, n_symbols, width, contract_terms, rules, counts)
        _ahead(2, following, bar, rows, prices)
        _trade(w, first, n, n_symbols, width, False, contract_terms, rules, money, ruined, positions, counts)
        _ahead(3, following, bar, rows, prices)
        if len(credits) > 0:
            _idle(w, n, rules)
        _reward(w, first, n, rules, episode, rewards)
        if len(credits) > 0:
            _split(w, first, n, n_symbols, width, rules, credits)
        _store_money(w, first, n, money)
        n_done += _tick(first, n, clock, ruined, done)
        for i in range(first, first + n):
            _observe(i, bar[i], rows, prices, contract_terms, money, positions, counts, out)
    return n_done


@compiled
def decayed(values, known, decay, out):
    """Write the decayed mean of each column's known values so far, each row's own included; 0 before the first."""
    for j in range(values.shape[1]):
        mean, seen = 0.0, False
        for t in range(values.shape[0]):
            if known[t, j]:
                mean = decay * mean + (1.0 - decay) * values[t, j] if seen else values[t, j]
                seen = True
            out[t, j] = mean


# tallies[field, account] of a run of orders
DEEPEST, N_FILLS = range(2)


@inlined
def _gather(which, n, width, from_money, from_ruined, from_positions, from_counts, money, ruined, positions, counts, back):
    """Copy some accounts to the first places of another set of accounts; or from there to where they were."""
    for k in range(n):
        i = which[k]
        source, target = (k, i) if back else (i, k)
        ruined[target] = from_ruined[source]
        for field in range(money.shape[0]):
            money[field, target] = from_money[field, source]
        for j in range(width):
            for field in range(positions.shape[0]):
                positions[field, target * width + j] = from_positions[field, source * width + j]
            for field in range(counts.shape[0]):
                counts[field, target * width + j] = from_counts[field, source * width + j]


@inlined
def _touches_stop(i, t, prices, rules, positions, n_symbols):
    """Whether bar t+1 reaches the stop of anything that an account holds."""
    touched = False
    for j in range(n_symbols):
        lane = i * prices.shape[2] + j
        units = positions[UNITS, lane]
        if units != 0.0 and prices[t + 1, OPEN, j] == prices[t + 1, OPEN, j]:
            side = _side(units)
            level = side * _stop_level(side, positions[ENTRY, lane], rules[STOP])
            reached = prices[t + 1, LOW, j] if units > 0.0 else -prices[t + 1, HIGH, j]
            touched |= (reached <= level) | (side * prices[t + 1, OPEN, j] <= level)
    return touched


@inlined
def _marked(i, t, prices, contract_terms, money, positions):
    """Equity of an account at a close, if nothing has happened to it since the last one."""
    holdings = 0.0
    for j in range(contract_terms.shape[1]):
        mark = prices[t, MARK, j]
        units = positions[UNITS, i * prices.shape[2] + j]
        holdings += units * (mark if mark == mark else 0.0) * contract_terms[MULTIPLIER, j]
    return money[CASH_HELD, i] + holdings


@compiled
def run_orders(first, orders, w, prices, contract_terms, n_tradable, years, rules, money, ruined, positions, counts,
               room_money, room_ruined, room_positions, room_counts, kept, equity, tallies):  # fmt: skip
    """Move accounts over consecutive bars, and step only those to which something happens: all others are marked at the close.

    An account steps where it has an order, a bar reaches its stop, or its equity falls to the ruin's level; every account steps on every
    bar under rules that act by themselves (borrow fees, margin calls, session ends, payouts). What is booked bar by bar for people and
    networks is not kept: profit before costs, that of the open trade, its best and worst, and outcomes.

    Args:
        first: the bar after whose close the first decision is made.
        orders: shape (n_steps, n_accounts, n_symbols), nan for no order.
        room_money, room_ruined, room_positions, room_counts: another set of accounts of the same shape.
        kept: shape (n_steps,), the row of `equity` that a step's close is written to, -1 for none.
    """
    n_steps, n, n_symbols = orders.shape
    width = prices.shape[2]
    which, bar, targets = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty((n, n_symbols))
    peak, parts = money[PEAK, :n].copy(), np.zeros((0, n * width))
    always = (rules[BORROW] > 0.0) | (rules[MARGIN_CALLS] != 0.0) | (rules[CLOSE_BY_SESSION_END] != 0.0)
    for j in range(n_symbols):
        always |= contract_terms[PAYOUT_BAR, j] >= 0.0
    for step in range(n_steps):
        t, m = first + step, 0
        for i in range(n):
            acts = always
            for j in range(n_symbols):
                acts |= orders[step, i, j] == orders[step, i, j]
            if rules[STOP] > 0.0 and not acts:
                acts = _touches_stop(i, t, prices, rules, positions, n_symbols)
            value = _marked(i, t + 1, prices, contract_terms, money, positions)
            if acts or value <= rules[RUIN_EQUITY]:
                which[m], bar[m] = i, t
                for j in range(n_symbols):
                    targets[m, j] = orders[step, i, j]
                m += 1
            else:
                money[EQUITY, i] = value
        if m > 0:
            _gather(which, m, width, money, ruined, positions, counts, room_money, room_ruined, room_positions, room_counts, False)
            step_accounts(bar[:m], targets[:m], w, prices, contract_terms, n_tradable, years, rules, room_money, room_ruined,
                          room_positions, room_counts, parts)  # fmt: skip
            _gather(which, m, width, room_money, room_ruined, room_positions, room_counts, money, ruined, positions, counts, True)
            for k in range(m):
                for lane in range(k * width, k * width + n_symbols):
                    tallies[N_FILLS, which[k]] += (room_positions[FILL_UNITS, lane] != 0.0) + (room_positions[STOP_UNITS, lane] != 0.0)
        for i in range(n):
            value = money[EQUITY, i]
            peak[i] = max(peak[i], value)
            tallies[DEEPEST, i] = min(tallies[DEEPEST, i], value / peak[i] - 1.0)
        if kept[step] >= 0:
            for i in range(n):
                equity[kept[step], i] = money[EQUITY, i]
