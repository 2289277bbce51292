"""The compiled kernels, and the only place where orders become fills, fills become costs, and prices become profit or loss.

One step moves an account from the close of bar *t* to the close of bar *t+1*, in this order:

1. Shorts pay their borrow fee for the time between the two closes, at the close of *t*.
2. Orders were decided after the close of *t*: their size is fixed with that close and that equity. A symbol with no bar at
   *t+1* fills nothing and keeps its last mark.
3. Forced closes come before orders: ruin, a margin call, the session's end, a stop that the open has already passed.
4. An order takes at most its share of the volume that was usual at *t*; a forced close takes what it must and pays for it.
5. Orders that add exposure are scaled down together to the gross limit, and to the margin, both at the open of *t+1*.
6. Fills happen at the open of *t+1*, gaps included, made worse by slippage and impact.
7. A stop that the bar's low (a short's: high) reaches fills at the worse of stop and open, made worse in the same way. A
   position that was opened at this very open can be stopped in this very bar.
8. What is left is marked at the close of *t+1*.

Everything compiled is in this one file: numba's disk cache notices a change of the file that a kernel stands in, and of no
other. State is packed: one row of `money` per account, one plane of `positions` and of `counts` per account and field.

An account's step first copies its state and its two bars into `w`, the workbench, whose rows are padded to whole lanes and
stand at fixed distances; so the compiler knows that they do not overlap and computes eight symbols at once. Nearly everything
is computed for every symbol and then chosen: a branch that random orders mispredict costs more. Sums run over the symbols in
their order, one by one: the same orders give the same bytes, whatever the machine's vectors.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

HOLD, BUY, SELL = 0, 1, 2

# board[bar, field, symbol]; the open of a symbol without a bar is nan
OPEN, MARK, VOLATILITY, VOLUME, HIGH, LOW, MUST_CLOSE = range(7)
# terms[field, symbol]
MULTIPLIER, LOT, FEE_PER_UNIT, SLIPPAGE_PRICE, IN_BPS, MARGIN = range(6)
# rules[field]
(
    COMMISSION_RATE, SLIPPAGE_RATE, SLIPPAGE_PER_VOLATILITY, IMPACT, BORROW, PARTICIPATION, GROSS_LIMIT, BAND, RUIN_EQUITY, STOP,
    MARGIN_CALLS, MAINTENANCE, CLOSE_BY_SESSION_END, SHORT, CASH, REWARD_SCALE, SHARPE_DECAY, SHARPE_PRIOR,
    WEIGHT_LOG_RETURN, WEIGHT_SHARPE, WEIGHT_DRAWDOWN, WEIGHT_TURNOVER,
) = range(22)  # fmt: skip
N_RULES = 22
# money[account, field]
(
    CASH_HELD, EQUITY, PEAK, PNL, COMMISSION, SLIPPAGE, IMPACT_PAID, BORROW_PAID, TRADED, N_MARGIN_CALLS, RETURN_MEAN, RETURN_SQUARE,
) = range(12)  # fmt: skip
N_MONEY = 12
# positions[account, field, symbol]
UNITS, ENTRY, TRADE_PNL, WORST, BEST, FILL_UNITS, FILL_PRICE, STOP_UNITS, STOP_PRICE = range(9)
N_POSITIONS = 9
# counts[account, field, symbol]
LOSS_STREAK, OUTCOMES, N_OUTCOMES, EXIT_BAR = range(4)
N_COUNTS = 4
# clock[account, field]
BAR, STEPS_LEFT, LENGTH = range(3)
# episode[account, field]: the reward and its parts, summed
TOTAL, PART_LOG_RETURN, PART_SHARPE, PART_DRAWDOWN, PART_TURNOVER = range(5)
REWARD_PARTS = ("log_return", "differential_sharpe", "drawdown", "turnover")
# features of the account that an observation may hold, per symbol, and what two of them are multiplied by there
N_ACCOUNT = 5
UNREALISED_SCALE, LOSSES_SCALE = 5.0, 0.1

LANES = 8
MAX_SYMBOLS = 256
_ROW = MAX_SYMBOLS + LANES  # an odd number of cache lines, so that rows do not share their places in the cache
# rows of the workbench
(
    _MULTIPLIER, _LOT, _FEE, _SLIP, _BPS, _MARGIN,  # terms, copied once
    _HELD, _ENTRY, _EARNED, _WORST, _BEST, _TARGET,  # the account's, before
    _MARK, _VOLATILITY, _VOLUME, _OPEN, _HIGH, _LOW, _CLOSE, _MUST_CLOSE,  # the market's
    _PRICE, _PER_UNIT, _WORTH, _TIED, _WANT,  # on the way to an order
    _COST, _PAID, _COMMISSION, _LOST, _PUSHED, _TRADED, _GAIN, _VALUE, _FILL, _CHANGE,  # of a fill
    _ENDS, _WON, _STOPPED,  # of a trade
) = range(0, 38 * _ROW, _ROW)  # fmt: skip
_N_ROWS = 38
OUTCOMES_KEPT = 10
_REWARD_FLOOR = 1e-6
_ROUND_UP = 1e-9
_AHEAD = 2
_FLOATS_PER_LINE = 16
_KEPT_BITS = (1 << OUTCOMES_KEPT) - 1

compiled = njit(cache=True, error_model="numpy")
inlined = njit(cache=True, error_model="numpy", inline="always")


def width_of(n_symbols: int) -> int:
    """Places that a row of the board or of positions has: whole lanes, but no seven idle ones for a single symbol."""
    return n_symbols if n_symbols <= LANES // 2 else -(-n_symbols // LANES) * LANES


@intrinsic
def _prefetch(typingctx, array, index):
    """Ask for the cache line of one element of an array, by its flat position, before it is needed."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), cgutils.voidptr_t)
        flag = ir.IntType(32)
        call = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, call, "llvm.prefetch.p0")
        builder.call(function, [address, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


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
def _scale_to_limit(w, lanes, n_symbols, limit):
    """Shrink the orders that add exposure so that the sum of |units| times `_PER_UNIT` stays within a limit."""
    lanes = min(lanes, _ROW)
    for j in range(lanes):
        before, after = abs(w[_HELD + j]) * w[_PER_UNIT + j], abs(w[_WANT + j]) * w[_PER_UNIT + j]
        more = after - before
        w[_WORTH + j] = before if before < after else after
        w[_TIED + j] = more if more > 0.0 else 0.0
    kept = 0.0
    added = 0.0
    for j in range(n_symbols):
        kept += w[_WORTH + j]
        added += w[_TIED + j]
    if added == 0.0 or kept + added <= limit:
        return
    scale = max(limit - kept, 0.0) / added
    for j in range(lanes):
        held, want = w[_HELD + j], w[_WANT + j]
        less = held + _whole_lots((want - held) * scale, w[_LOT + j])
        w[_WANT + j] = less if abs(want) > abs(held) else want


@inlined
def _required_margin(margin, price, multiplier):
    """Account currency that one unit ties up; an instrument without margin is paid in full."""
    full = price * multiplier
    return margin if margin > 0.0 else full


@inlined
def _is_called(i, t, board, terms, rules, money, positions):
    """Whether the broker asks for money after the close of bar t."""
    required = 0.0
    if rules[MARGIN_CALLS] != 0.0:
        for j in range(terms.shape[1]):
            units = positions[i, UNITS, j]
            each = _required_margin(terms[MARGIN, j], board[t, MARK, j], terms[MULTIPLIER, j])
            tied = abs(units) * each
            required += tied if units != 0.0 else 0.0
    return rules[MARGIN_CALLS] != 0.0 and money[i, EQUITY] < rules[MAINTENANCE] * required


@inlined
def _shortfall(price, change, volatility, volume, slippage_rate, slippage_price, per_volatility, impact):
    """How much worse than `price` one unit of a fill is: slippage, then impact. No sale brings less than nothing."""
    slip = price * (slippage_rate + per_volatility * volatility) + slippage_price
    slip = slip if slip < price else price
    known = volume > 0.0
    share = abs(change) / (volume if known else 1.0)
    push = price * impact * volatility * np.sqrt(share if known else 1.0)
    most = price - slip
    return slip, (push if push < most else most)


@compiled
def _stop(i, j, t, w, rules, money, positions, counts):
    """Close a position by its stop within bar t + 1, at the worse of stop and open, after it was marked at that bar's close.

    Returns:
        What cash, P&L and the value of positions change by.
    """
    now, opened, multiplier = positions[i, UNITS, j], w[_PRICE + j], w[_MULTIPLIER + j]
    side, size = _side(now), abs(now)
    level = positions[i, ENTRY, j] * (1.0 - side * rules[STOP])
    at = side * min(side * level, side * opened)
    slip, push = _shortfall(
        at, now, w[_VOLATILITY + j], w[_VOLUME + j], rules[SLIPPAGE_RATE] * w[_BPS + j], w[_SLIP + j],
        rules[SLIPPAGE_PER_VOLATILITY], rules[IMPACT],
    )  # fmt: skip
    fill = at - side * (slip + push)
    notional = size * fill * multiplier
    fee = size * w[_FEE + j] + notional * (rules[COMMISSION_RATE] * w[_BPS + j])
    lost, pushed = size * slip * multiplier, size * push * multiplier
    money[i, COMMISSION] += fee
    money[i, SLIPPAGE] += lost
    money[i, IMPACT_PAID] += pushed
    money[i, TRADED] += notional
    missed = now * (at - w[_CLOSE + j]) * multiplier
    won = 1 if positions[i, TRADE_PNL, j] + missed - (fee + lost + pushed) > 0.0 else 0
    counts[i, LOSS_STREAK, j] = 0 if won else counts[i, LOSS_STREAK, j] + 1
    counts[i, OUTCOMES, j] = ((counts[i, OUTCOMES, j] << 1) | won) & _KEPT_BITS
    counts[i, N_OUTCOMES, j] = min(counts[i, N_OUTCOMES, j] + 1, OUTCOMES_KEPT)
    counts[i, EXIT_BAR, j] = t + 1
    for field in (UNITS, ENTRY, TRADE_PNL, WORST, BEST):
        positions[i, field, j] = 0.0
    positions[i, STOP_UNITS, j] = -now
    positions[i, STOP_PRICE, j] = fill
    return now * fill * multiplier - fee, missed, -now * w[_CLOSE + j] * multiplier


@compiled
def workbench(terms):
    """Scratch for one thread, with the terms in it."""
    w = np.zeros(_N_ROWS * _ROW)
    for j in range(terms.shape[1]):
        w[_MULTIPLIER + j] = terms[MULTIPLIER, j]
        w[_LOT + j] = terms[LOT, j]
        w[_FEE + j] = terms[FEE_PER_UNIT, j]
        w[_SLIP + j] = terms[SLIPPAGE_PRICE, j]
        w[_BPS + j] = terms[IN_BPS, j]
        w[_MARGIN + j] = terms[MARGIN, j]
    return w


@compiled
def _load(i, t, w, targets, board, rules, positions):
    """Copy an account's state, its orders and its two bars to the workbench; a mark that is not known becomes 0."""
    width = min(board.shape[2], _ROW)
    for j in range(targets.shape[1]):
        w[_TARGET + j] = targets[i, j]
    for j in range(width):
        w[_HELD + j] = positions[i, UNITS, j]
        w[_ENTRY + j] = positions[i, ENTRY, j]
    for j in range(width):
        w[_EARNED + j] = positions[i, TRADE_PNL, j]
        w[_WORST + j] = positions[i, WORST, j]
        w[_BEST + j] = positions[i, BEST, j]
    for j in range(width):
        mark, close = board[t, MARK, j], board[t + 1, MARK, j]
        w[_MARK + j] = mark if mark == mark else 0.0
        w[_CLOSE + j] = close if close == close else 0.0
        w[_OPEN + j] = board[t + 1, OPEN, j]
    if rules[SLIPPAGE_PER_VOLATILITY] > 0.0 or rules[IMPACT] > 0.0 or rules[PARTICIPATION] <= 1.0:
        for j in range(width):
            w[_VOLATILITY + j] = board[t, VOLATILITY, j]
            w[_VOLUME + j] = board[t, VOLUME, j]
    if rules[STOP] > 0.0:
        for j in range(width):
            w[_HIGH + j] = board[t + 1, HIGH, j]
            w[_LOW + j] = board[t + 1, LOW, j]
    if rules[CLOSE_BY_SESSION_END] != 0.0:
        for j in range(width):
            w[_MUST_CLOSE + j] = board[t + 1, MUST_CLOSE, j]


@compiled
def _calls(w, lanes, n_symbols, maintenance, equity):
    """Whether the broker asks for money after the close of bar t: `_is_called` on the workbench."""
    lanes = min(lanes, _ROW)
    for j in range(lanes):
        full, margin = w[_MARK + j] * w[_MULTIPLIER + j], w[_MARGIN + j]
        w[_TIED + j] = abs(w[_HELD + j]) * (margin if margin > 0.0 else full)
    required = 0.0
    for j in range(n_symbols):
        required += w[_TIED + j]
    return equity < maintenance * required


@compiled
def _charge(w, lanes, n_symbols, rate):
    """What all shorts owe at the close of bar t; each trade bears its own part."""
    lanes = min(lanes, _ROW)
    for j in range(lanes):
        held = w[_HELD + j]
        owed = -held * w[_MARK + j] * w[_MULTIPLIER + j] * w[_BPS + j] * rate
        owed = owed if held < 0.0 else 0.0
        w[_COST + j] = owed
        w[_EARNED + j] -= owed
    total = 0.0
    for j in range(n_symbols):
        total += w[_COST + j]
    return total


@compiled
def _order(w, lanes, orders, broke, equity, band, participation, stop, by_session_end):
    """Write the units wanted at the open, before they are held against the account's limits."""
    lanes = min(lanes, _ROW)
    able = 1.0 if orders and equity > 0.0 else 0.0
    gone = 1.0 if broke else 0.0
    for j in range(lanes):
        held, mark, multiplier, lot, target = w[_HELD + j], w[_MARK + j], w[_MULTIPLIER + j], w[_LOT + j], w[_TARGET + j]
        opened, margin = w[_OPEN + j], w[_MARGIN + j]
        live = opened == opened
        price = opened if live else mark
        full = price * multiplier
        w[_PRICE + j] = price
        w[_PER_UNIT + j] = full
        w[_WORTH + j] = held * price * multiplier
        w[_TIED + j] = abs(held) * (margin if margin > 0.0 else full)
        worth = mark * multiplier
        asked = _whole_lots(target * equity / worth, lot)
        acts = (target == 0.0) | (abs(target - held * worth / equity) > band)  # nan: neither
        acts = acts & (worth > 0.0) & live & (able != 0.0)
        want = asked if acts else held
        most = participation * w[_VOLUME + j]  # infinite or nan without a cap: never passed
        capped = held + _whole_lots(_side(want - held) * most, lot)
        want = capped if abs(want - held) > most else want
        side = _side(held)
        stopped = (held != 0.0) & (stop > 0.0) & (side * price <= side * (w[_ENTRY + j] * (1.0 - side * stop)))
        ends = (by_session_end != 0.0) & (w[_MUST_CLOSE + j] != 0.0)
        w[_WANT + j] = 0.0 if live & (stopped | ends | (gone != 0.0)) else want


@compiled
def _fill(w, lanes, commission_rate, slippage_rate, per_volatility, impact, stop):
    """Fill what is wanted at the open, mark it at the close, and carry every trade: begun, grown, cut, ended, turned round."""
    lanes = min(lanes, _ROW)
    for j in range(lanes):
        held, now, opened, multiplier = w[_HELD + j], w[_WANT + j], w[_PRICE + j], w[_MULTIPLIER + j]
        close = w[_CLOSE + j]
        change = now - held
        size = abs(change)
        gap, run = held * (opened - w[_MARK + j]) * multiplier, now * (close - opened) * multiplier  # both 0 without a bar
        slip, push = _shortfall(
            opened, change, w[_VOLATILITY + j], w[_VOLUME + j], slippage_rate * w[_BPS + j], w[_SLIP + j], per_volatility, impact
        )
        fill = opened + _side(change) * (slip + push)
        notional = size * fill * multiplier
        fee = size * w[_FEE + j] + notional * (commission_rate * w[_BPS + j])
        lost, pushed = size * slip * multiplier, size * push * multiplier
        cost = fee + lost + pushed
        w[_PAID + j] = change * fill * multiplier + fee
        w[_COMMISSION + j] = fee
        w[_LOST + j] = lost
        w[_PUSHED + j] = pushed
        w[_TRADED + j] = notional
        w[_GAIN + j] = gap + run
        w[_VALUE + j] = now * close * multiplier
        w[_FILL + j] = fill if change != 0.0 else np.nan
        w[_CHANGE + j] = change

        ends, holds = (held != 0.0) & (held * now <= 0.0), now != 0.0
        begins = ends | (held == 0.0)
        ending = cost * (abs(held) / (size if ends else 1.0))
        ending = ending if ends else 0.0
        earned, entry, worst, best = w[_EARNED + j] + gap, w[_ENTRY + j], w[_WORST + j], w[_BEST + j]
        w[_ENDS + j] = 1.0 if ends else 0.0
        w[_WON + j] = earned - ending
        grown = (entry * held + fill * change) / (now if holds else 1.0)
        entry = fill if begins else (grown if abs(now) > abs(held) else entry)
        side = _side(now)
        moved = side * (close / (entry if holds else 1.0) - 1.0)
        worst, best = 0.0 if begins else worst, 0.0 if begins else best
        worst, best = moved if moved < worst else worst, moved if moved > best else best
        level = side * (entry * (1.0 - side * stop))
        reached = w[_LOW + j] if now > 0.0 else -w[_HIGH + j]
        stopped = (reached <= level) & holds & (stop > 0.0) & (w[_OPEN + j] == w[_OPEN + j])
        carried = (0.0 if begins else earned) - (cost - ending) + run
        w[_STOPPED + j] = 1.0 if stopped else 0.0
        w[_ENTRY + j] = entry if holds else 0.0
        w[_EARNED + j] = carried if holds else 0.0
        w[_WORST + j] = worst if holds else 0.0
        w[_BEST + j] = best if holds else 0.0


@compiled
def _store(i, w, positions):
    """Copy an account's state back from the workbench."""
    width = min(positions.shape[2], _ROW)
    for j in range(width):
        positions[i, UNITS, j] = w[_WANT + j]
        positions[i, ENTRY, j] = w[_ENTRY + j]
        positions[i, TRADE_PNL, j] = w[_EARNED + j]
    for j in range(width):
        positions[i, WORST, j] = w[_WORST + j]
        positions[i, BEST, j] = w[_BEST + j]


@compiled
def _record(i, w, n_symbols, positions):
    """Keep the fills at the open; stops are written as they happen."""
    for j in range(n_symbols):
        positions[i, FILL_UNITS, j] = w[_CHANGE + j]
        positions[i, FILL_PRICE, j] = w[_FILL + j]
        positions[i, STOP_UNITS, j] = 0.0
        positions[i, STOP_PRICE, j] = np.nan


@compiled
def _count(i, t, w, n_symbols, counts):
    """Book the outcomes of the trades that have ended."""
    n_symbols = min(n_symbols, MAX_SYMBOLS)
    for j in range(n_symbols):
        ends, won, streak = w[_ENDS + j] != 0.0, w[_WON + j] > 0.0, counts[i, LOSS_STREAK, j]
        longer = 0 if won else streak + 1
        counts[i, LOSS_STREAK, j] = longer if ends else streak
    for j in range(n_symbols):
        ends, won, outcomes = w[_ENDS + j] != 0.0, 1 if w[_WON + j] > 0.0 else 0, counts[i, OUTCOMES, j]
        kept = ((outcomes << 1) | won) & _KEPT_BITS
        counts[i, OUTCOMES, j] = kept if ends else outcomes
    for j in range(n_symbols):
        ends, n_outcomes, exit_bar = w[_ENDS + j] != 0.0, counts[i, N_OUTCOMES, j], counts[i, EXIT_BAR, j]
        more = n_outcomes + 1 if n_outcomes < OUTCOMES_KEPT else OUTCOMES_KEPT
        counts[i, N_OUTCOMES, j] = more if ends else n_outcomes
        counts[i, EXIT_BAR, j] = t + 1 if ends else exit_bar


@compiled
def _settle(i, t, targets, w, record, board, terms, years, rules, money, ruined, positions, counts):
    """Move account i from the close of bar t to the close of bar t + 1; the module says in which order."""
    n_symbols = targets.shape[1]
    lanes = (n_symbols + LANES - 1) // LANES * LANES
    broke = ruined[i]
    _load(i, t, w, targets, board, rules, positions)
    called = _calls(w, lanes, n_symbols, rules[MAINTENANCE], money[i, EQUITY]) if rules[MARGIN_CALLS] != 0.0 else False
    cash = money[i, CASH_HELD]
    if rules[BORROW] > 0.0:
        owed = _charge(w, lanes, n_symbols, rules[BORROW] * years[t + 1])
        cash -= owed
        money[i, BORROW_PAID] += owed

    orders = not (called or broke)
    _order(w, lanes, orders, broke, money[i, EQUITY], rules[BAND], rules[PARTICIPATION], rules[STOP], rules[CLOSE_BY_SESSION_END])
    opening_equity, required, trades = cash, 0.0, False
    for j in range(n_symbols):
        opening_equity += w[_WORTH + j]
        required += w[_TIED + j]
        trades = trades | (w[_WANT + j] != w[_HELD + j])
    if called and not broke:
        money[i, N_MARGIN_CALLS] += 1.0
        share = min(max(opening_equity / required, 0.0), 1.0)
        for j in range(n_symbols):
            if w[_OPEN + j] == w[_OPEN + j] and w[_WANT + j] != 0.0:
                w[_WANT + j] = _whole_lots(w[_HELD + j] * share, w[_LOT + j])
    elif trades:
        _scale_to_limit(w, lanes, n_symbols, rules[GROSS_LIMIT] * opening_equity)
        if rules[MARGIN_CALLS] != 0.0:
            for j in range(min(lanes, _ROW)):
                full, margin = w[_PRICE + j] * w[_MULTIPLIER + j], w[_MARGIN + j]
                w[_PER_UNIT + j] = margin if margin > 0.0 else full
            _scale_to_limit(w, lanes, n_symbols, opening_equity)

    _fill(w, lanes, rules[COMMISSION_RATE], rules[SLIPPAGE_RATE], rules[SLIPPAGE_PER_VOLATILITY], rules[IMPACT], rules[STOP])
    pnl, commission, slippage = money[i, PNL], money[i, COMMISSION], money[i, SLIPPAGE]
    impact, traded, value, n_ended, n_stopped = money[i, IMPACT_PAID], money[i, TRADED], 0.0, 0.0, 0.0
    for j in range(n_symbols):
        cash -= w[_PAID + j]
        pnl += w[_GAIN + j]
        commission += w[_COMMISSION + j]
        slippage += w[_LOST + j]
        impact += w[_PUSHED + j]
        traded += w[_TRADED + j]
        value += w[_VALUE + j]
        n_ended += w[_ENDS + j]
        n_stopped += w[_STOPPED + j]
    money[i, COMMISSION], money[i, SLIPPAGE], money[i, IMPACT_PAID], money[i, TRADED] = commission, slippage, impact, traded
    _store(i, w, positions)
    if record:
        _record(i, w, n_symbols, positions)
    if n_ended > 0.0:
        _count(i, t, w, n_symbols, counts)
    if n_stopped > 0.0:
        for j in range(n_symbols):
            if w[_STOPPED + j] != 0.0:
                paid, missed, gone = _stop(i, j, t, w, rules, money, positions, counts)
                cash += paid
                pnl += missed
                value += gone
    money[i, CASH_HELD], money[i, PNL] = cash, pnl
    money[i, EQUITY] = cash + value
    money[i, PEAK] = max(money[i, PEAK], cash + value)
    if cash + value <= rules[RUIN_EQUITY]:
        ruined[i] = True


@compiled
def settle(bar, targets, board, terms, years, rules, money, ruined, positions, counts):
    """Move every account one bar on, each from its own bar, and keep its fills."""
    w = workbench(terms)
    for i in range(len(money)):
        _settle(i, bar[i], targets, w, True, board, terms, years, rules, money, ruined, positions, counts)


@inlined
def _decode(i, actions, n_tradable, gross_limit, short, targets):
    slot = gross_limit / max(n_tradable, 1)
    sold = -slot if short else 0.0
    for j in range(actions.shape[1]):
        action = actions[i, j]
        other = sold if action == SELL else np.nan
        targets[i, j] = slot if action == BUY else other


@compiled
def decode(actions, n_tradable, gross_limit, short, targets):
    """Write the target weights of discrete actions: one slot, flat or one slot short, nan for HOLD."""
    for i in range(actions.shape[0]):
        _decode(i, actions, n_tradable[i], gross_limit, short, targets)


@compiled
def mask(bar, session_end, board, terms, rules, money, positions, out):
    """Write which of HOLD, BUY and SELL can do anything, shape (n, n_symbols, 3)."""
    for i in range(len(money)):
        t = bar[i]
        last = t + 1 == len(board)
        void = last or _is_called(i, t, board, terms, rules, money, positions)
        void |= not last and rules[CLOSE_BY_SESSION_END] != 0.0 and session_end[t + 1]
        for j in range(out.shape[1]):
            able = not np.isnan(board[t, OPEN, j]) and not void
            out[i, j, HOLD] = True
            out[i, j, BUY] = able
            out[i, j, SELL] = able and (rules[SHORT] != 0.0 or positions[i, UNITS, j] != 0.0)


@compiled
def differential_sharpe(mean, square, simple_return):
    """How much one more return moves the Sharpe ratio of decayed moments, per unit of decay; 0 without variance.

    Source: Moody, Wu, Liao and Saffell (1998), "Performance functions and reinforcement learning for trading systems and
    portfolios", equation 11.
    """
    variance = square - mean * mean
    if not variance > 0.0:
        return 0.0
    moved = square * (simple_return - mean) - 0.5 * mean * (simple_return * simple_return - square)
    return moved / (variance * np.sqrt(variance))


@compiled
def _reward(i, equity_before, peak_before, traded_before, rules, money, episode):
    """The reward of account i's last step, and its parts added to the episode's."""
    floor = _REWARD_FLOOR * rules[CASH]
    ratio = max(money[i, EQUITY], floor) / max(equity_before, floor)
    grown = rules[WEIGHT_LOG_RETURN] * np.log(ratio)
    simple, mean, square = ratio - 1.0, money[i, RETURN_MEAN], money[i, RETURN_SQUARE]
    sharpe = rules[WEIGHT_SHARPE] * differential_sharpe(mean, square, simple)
    money[i, RETURN_MEAN] = mean + rules[SHARPE_DECAY] * (simple - mean)
    money[i, RETURN_SQUARE] = square + rules[SHARPE_DECAY] * (simple * simple - square)
    deeper = rules[WEIGHT_DRAWDOWN] * min(money[i, EQUITY] / money[i, PEAK] - equity_before / peak_before, 0.0)
    turned = -rules[WEIGHT_TURNOVER] * (money[i, TRADED] - traded_before) / max(equity_before, floor)
    scale = rules[REWARD_SCALE]
    episode[i, PART_LOG_RETURN] += grown * scale
    episode[i, PART_SHARPE] += sharpe * scale
    episode[i, PART_DRAWDOWN] += deeper * scale
    episode[i, PART_TURNOVER] += turned * scale
    return np.float32((grown + sharpe + deeper + turned) * scale)


@compiled
def _observe_account(i, j, at, drawdown, money, positions, counts, out):
    """The account's features of one symbol, as `ploutos.features.llm_features.account_features` has them, scaled and clipped."""
    wins, trades = 0, counts[i, N_OUTCOMES, j]
    for k in range(OUTCOMES_KEPT):
        wins += (counts[i, OUTCOMES, j] >> k) & 1
    worst = positions[i, WORST, j]
    swing = positions[i, BEST, j] - worst
    out[i, at] = min(max(UNREALISED_SCALE * (positions[i, TRADE_PNL, j] / max(money[i, EQUITY], 1e-9)), -5.0), 5.0)
    out[i, at + 1] = max(drawdown, -5.0)
    out[i, at + 2] = min(LOSSES_SCALE * counts[i, LOSS_STREAK, j], 5.0)
    out[i, at + 3] = wins / trades if trades > 0 else 0.5
    out[i, at + 4] = -worst / swing if swing > 0.0 else 0.0


@inlined
def _observe(i, t, rows, board, terms, money, positions, counts, out):
    columns, n_symbols = rows.shape[1], terms.shape[1]
    for k in range(columns):
        out[i, k] = rows[t, k]
    equity = money[i, EQUITY]
    scale = max(equity, 1e-9)
    for j in range(n_symbols):
        units, mark, entry = positions[i, UNITS, j], board[t, MARK, j], positions[i, ENTRY, j]
        holds = units != 0.0
        weight = units * mark * terms[MULTIPLIER, j] / scale
        moved = 5.0 * (_side(units) * (mark / (entry if holds else 1.0) - 1.0))
        weight, moved = weight if holds else 0.0, moved if holds else 0.0
        out[i, columns + j] = min(max(weight, -5.0), 5.0)
        out[i, columns + n_symbols + j] = min(max(moved, -5.0), 5.0)
    out[i, columns + 2 * n_symbols] = min(max(money[i, CASH_HELD] / scale, -5.0), 5.0)
    drawdown = equity / money[i, PEAK] - 1.0
    out[i, columns + 2 * n_symbols + 1] = drawdown
    own = columns + 2 * n_symbols + 2
    if out.shape[1] > own:
        for j in range(n_symbols):
            _observe_account(i, j, own + N_ACCOUNT * j, drawdown, money, positions, counts, out)


@compiled
def observe(bar, rows, board, terms, money, positions, counts, out):
    """Write every account's observation after the close of its bar, with the account's features where `out` has room for them."""
    for i in range(len(money)):
        _observe(i, bar[i], rows, board, terms, money, positions, counts, out)


@compiled
def open_accounts(which, cash, prior, money, ruined, positions, counts):
    """Put some accounts back to cash and forget their trades; `prior` is the variance that the Sharpe moments start from."""
    for i in which:
        money[i] = 0.0
        money[i, CASH_HELD] = cash
        money[i, EQUITY] = cash
        money[i, PEAK] = cash
        money[i, RETURN_SQUARE] = prior
        ruined[i] = False
        positions[i] = 0.0
        positions[i, FILL_PRICE] = np.nan
        positions[i, STOP_PRICE] = np.nan
        counts[i] = 0
        counts[i, EXIT_BAR] = -1


@compiled
def restart(which, starts, last_bar, episode_bars, rules, clock, episode, rows, board, terms, money, ruined, positions, counts, out):
    """Begin new episodes at the given bars and write their first observations."""
    open_accounts(which, rules[CASH], rules[SHARPE_PRIOR], money, ruined, positions, counts)
    for k in range(len(which)):
        i = which[k]
        clock[i, BAR] = starts[k]
        clock[i, STEPS_LEFT] = min(episode_bars, last_bar - starts[k])
        clock[i, LENGTH] = 0
        episode[i] = 0.0
        _observe(i, starts[k], rows, board, terms, money, positions, counts, out)


@inlined
def _fetch(t, rows, board):
    """Ask for what a step to bar t will read, some accounts ahead: every account stands at another place of the market."""
    first, last = t * rows.shape[1], (t + 1) * rows.shape[1]
    for k in range(first, last, _FLOATS_PER_LINE):
        _prefetch(rows, k)
    width = board.shape[1] * board.shape[2]
    for k in range(t * width, (t + 1) * width, _FLOATS_PER_LINE // 2):
        _prefetch(board, k)


@compiled
def advance(clock, actions, discrete, n_tradable, targets, w, rows, board, terms, years, rules, money, ruined, positions, counts,
            episode, rewards, done, out):  # fmt: skip
    """One step of a batch: actions to orders, orders to accounts, accounts to rewards, ends and observations.

    With `discrete` the actions are decoded, else `targets` holds the weights. Fills are not kept. Returns how many episodes
    have ended.
    """
    n, n_done = len(money), 0
    for i in range(n):
        t = clock[i, BAR]
        if i + _AHEAD < n:
            _fetch(clock[i + _AHEAD, BAR] + 1, rows, board)
        if discrete:
            _decode(i, actions, n_tradable[t], rules[GROSS_LIMIT], rules[SHORT] != 0.0, targets)
        before, peak, traded = money[i, EQUITY], money[i, PEAK], money[i, TRADED]
        _settle(i, t, targets, w, False, board, terms, years, rules, money, ruined, positions, counts)
        rewards[i] = _reward(i, before, peak, traded, rules, money, episode)
        episode[i, TOTAL] += rewards[i]
        clock[i, BAR] = t + 1
        clock[i, STEPS_LEFT] -= 1
        clock[i, LENGTH] += 1
        done[i] = ruined[i] or clock[i, STEPS_LEFT] <= 0
        n_done += done[i]
        _observe(i, t + 1, rows, board, terms, money, positions, counts, out)
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
