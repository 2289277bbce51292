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
"""

import numpy as np
from numba import njit

HOLD, BUY, SELL = 0, 1, 2

# board[bar, field, symbol]
OPEN, HIGH, LOW, MARK, LIVE, VOLATILITY, VOLUME, MUST_CLOSE = range(8)
N_BOARD = 8
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

OUTCOMES_KEPT = 10
_REWARD_FLOOR = 1e-6
_ROUND_UP = 1e-9
_KEPT_BITS = (1 << OUTCOMES_KEPT) - 1

compiled = njit(cache=True, error_model="numpy")
inlined = njit(cache=True, error_model="numpy", inline="always")


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
def _scale_to_limit(i, positions, wanted, per_unit, terms, limit):
    """Shrink the orders that add exposure so that the sum of |units| times `per_unit` stays within a limit."""
    n_symbols = len(wanted)
    kept = 0.0
    added = 0.0
    for j in range(n_symbols):
        before, after = abs(positions[i, UNITS, j]) * per_unit[j], abs(wanted[j]) * per_unit[j]
        more = after - before
        kept += before if before < after else after
        added += more if more > 0.0 else 0.0
    if added == 0.0 or kept + added <= limit:
        return
    scale = max(limit - kept, 0.0) / added
    for j in range(n_symbols):
        held, want = positions[i, UNITS, j], wanted[j]
        less = held + _whole_lots((want - held) * scale, terms[LOT, j])
        wanted[j] = less if abs(want) > abs(held) else want


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
        for j in range(positions.shape[2]):
            units = positions[i, UNITS, j]
            each = _required_margin(terms[MARGIN, j], board[t, MARK, j], terms[MULTIPLIER, j])
            tied = abs(units) * each
            required += tied if units != 0.0 else 0.0
    return rules[MARGIN_CALLS] != 0.0 and money[i, EQUITY] < rules[MAINTENANCE] * required


@inlined
def _shortfall(price, change, volatility, volume, slippage_rate, slippage_price, rules):
    """How much worse than `price` one unit of a fill is: slippage, then impact. No sale brings less than nothing."""
    slip = price * (slippage_rate + rules[SLIPPAGE_PER_VOLATILITY] * volatility) + slippage_price
    slip = slip if slip < price else price
    share = abs(change) / (volume if volume > 0.0 else 1.0)
    push = price * rules[IMPACT] * volatility * np.sqrt(share if volume > 0.0 else 1.0)
    most = price - slip
    return slip, (push if push < most else most)


@compiled
def _stop(i, j, t, now, level, opened, board, terms, rules, money, positions, counts):
    """Close a position by its stop within bar t + 1: at the worse of stop and open.

    Returns:
        What cash changes by and what the price earned from the open to the stop.
    """
    side, multiplier, change = _side(now), terms[MULTIPLIER, j], -now
    at = side * min(side * level, side * opened)
    slip, push = _shortfall(
        at, change, board[t, VOLATILITY, j], board[t, VOLUME, j], rules[SLIPPAGE_RATE] * terms[IN_BPS, j], terms[SLIPPAGE_PRICE, j], rules
    )
    fill = at - side * (slip + push)
    size = abs(change)
    notional = size * fill * multiplier
    fee = size * terms[FEE_PER_UNIT, j] + notional * (rules[COMMISSION_RATE] * terms[IN_BPS, j])
    lost, pushed, run = size * slip * multiplier, size * push * multiplier, now * (at - opened) * multiplier
    money[i, COMMISSION] += fee
    money[i, SLIPPAGE] += lost
    money[i, IMPACT_PAID] += pushed
    money[i, TRADED] += notional
    won = 1 if positions[i, TRADE_PNL, j] + run - (fee + lost + pushed) > 0.0 else 0
    counts[i, LOSS_STREAK, j] = 0 if won else counts[i, LOSS_STREAK, j] + 1
    counts[i, OUTCOMES, j] = ((counts[i, OUTCOMES, j] << 1) | won) & _KEPT_BITS
    counts[i, N_OUTCOMES, j] = min(counts[i, N_OUTCOMES, j] + 1, OUTCOMES_KEPT)
    counts[i, EXIT_BAR, j] = t + 1
    for field in (UNITS, ENTRY, TRADE_PNL, WORST, BEST):
        positions[i, field, j] = 0.0
    positions[i, STOP_UNITS, j] = change
    positions[i, STOP_PRICE, j] = fill
    return -(change * fill * multiplier + fee), run


@compiled
def _settle(i, t, targets, board, terms, years, rules, money, ruined, positions, counts, wanted, prices, per_unit):
    """Move account i from the close of bar t to the close of bar t + 1; the module says in which order.

    Nearly everything is computed for every symbol and then chosen: under random orders a branch costs more than arithmetic.
    """
    n_symbols = positions.shape[2]
    called = _is_called(i, t, board, terms, rules, money, positions)
    broke = ruined[i]
    orders = not (called or broke)
    cash, equity = money[i, CASH_HELD], money[i, EQUITY]
    if rules[BORROW] > 0.0:
        rate = rules[BORROW] * years[t + 1]
        for j in range(n_symbols):
            held = positions[i, UNITS, j]
            owed = -held * board[t, MARK, j] * terms[MULTIPLIER, j] * terms[IN_BPS, j] * rate
            owed = owed if held < 0.0 else 0.0
            cash -= owed
            money[i, BORROW_PAID] += owed
            positions[i, TRADE_PNL, j] -= owed

    opening_equity, required, trades = cash, 0.0, False
    solvent = equity > 0.0
    for j in range(n_symbols):
        held, mark, multiplier, lot = positions[i, UNITS, j], board[t, MARK, j], terms[MULTIPLIER, j], terms[LOT, j]
        live = board[t + 1, LIVE, j] != 0.0
        known = mark if mark == mark else 0.0
        price = board[t + 1, OPEN, j]
        price = price if live else known
        prices[j] = price
        per_unit[j] = price * multiplier
        opening_equity += held * price * multiplier
        required += abs(held) * _required_margin(terms[MARGIN, j], price, multiplier)
        target, worth = targets[i, j], mark * multiplier
        asked = _whole_lots(target * equity / worth, lot)
        acts = (target == 0.0) | (abs(target - held * worth / equity) > rules[BAND])  # nan: neither
        acts = acts & (worth > 0.0) & solvent & live & orders
        want = asked if acts else held
        most = rules[PARTICIPATION] * board[t, VOLUME, j]  # infinite or nan without a cap: never passed
        if abs(want - held) > most:
            want = held + _whole_lots(_side(want - held) * most, lot)
        side = _side(held)
        stopped = (held != 0.0) & (rules[STOP] > 0.0) & (side * price <= side * (positions[i, ENTRY, j] * (1.0 - side * rules[STOP])))
        ends = (rules[CLOSE_BY_SESSION_END] != 0.0) & (board[t + 1, MUST_CLOSE, j] != 0.0)
        want = 0.0 if live & (stopped | ends | broke) else want
        wanted[j] = want
        trades = trades | (want != held)
    if called and not broke:
        money[i, N_MARGIN_CALLS] += 1.0
        share = min(max(opening_equity / required, 0.0), 1.0)
        for j in range(n_symbols):
            if board[t + 1, LIVE, j] != 0.0 and wanted[j] != 0.0:
                wanted[j] = _whole_lots(positions[i, UNITS, j] * share, terms[LOT, j])
    elif trades:
        _scale_to_limit(i, positions, wanted, per_unit, terms, rules[GROSS_LIMIT] * opening_equity)
        if rules[MARGIN_CALLS] != 0.0:
            for j in range(n_symbols):
                per_unit[j] = _required_margin(terms[MARGIN, j], prices[j], terms[MULTIPLIER, j])
            _scale_to_limit(i, positions, wanted, per_unit, terms, opening_equity)

    value = 0.0
    pnl, commission, slippage = money[i, PNL], money[i, COMMISSION], money[i, SLIPPAGE]
    impact, traded, any_stop = money[i, IMPACT_PAID], money[i, TRADED], False
    for j in range(n_symbols):
        held, now, opened, multiplier = positions[i, UNITS, j], wanted[j], prices[j], terms[MULTIPLIER, j]
        mark, before = board[t + 1, MARK, j], board[t, MARK, j]
        mark, before = mark if mark == mark else 0.0, before if before == before else 0.0
        change = now - held
        size = abs(change)
        gap, run = held * (opened - before) * multiplier, now * (mark - opened) * multiplier  # both 0 without a bar
        slip, push = _shortfall(
            opened, change, board[t, VOLATILITY, j], board[t, VOLUME, j], rules[SLIPPAGE_RATE] * terms[IN_BPS, j],
            terms[SLIPPAGE_PRICE, j], rules,
        )  # fmt: skip
        fill = opened + _side(change) * (slip + push)
        notional = size * fill * multiplier
        fee = size * terms[FEE_PER_UNIT, j] + notional * (rules[COMMISSION_RATE] * terms[IN_BPS, j])
        lost, pushed = size * slip * multiplier, size * push * multiplier
        cash -= change * fill * multiplier + fee
        commission += fee
        slippage += lost
        impact += pushed
        traded += notional

        # the trade: it opens, grows, shrinks, ends or turns round
        cost = fee + lost + pushed
        ends, holds = (held != 0.0) & (held * now <= 0.0), now != 0.0
        begins = ends | (held == 0.0)
        ending = cost * (abs(held) / (size if ends else 1.0))
        ending = ending if ends else 0.0
        earned = positions[i, TRADE_PNL, j] + gap
        won = 1 if earned - ending > 0.0 else 0
        streak, exit_bar = counts[i, LOSS_STREAK, j], counts[i, EXIT_BAR, j]
        outcomes, n_outcomes = counts[i, OUTCOMES, j], counts[i, N_OUTCOMES, j]
        counts[i, LOSS_STREAK, j] = (streak + 1) * (1 - won) if ends else streak
        counts[i, OUTCOMES, j] = ((outcomes << 1) | won) & _KEPT_BITS if ends else outcomes
        counts[i, N_OUTCOMES, j] = min(n_outcomes + 1, OUTCOMES_KEPT) if ends else n_outcomes
        counts[i, EXIT_BAR, j] = t + 1 if ends else exit_bar
        entry, grown = positions[i, ENTRY, j], (positions[i, ENTRY, j] * held + fill * change) / (now if holds else 1.0)
        entry = fill if begins else (grown if abs(now) > abs(held) else entry)
        moved = _side(now) * (mark / (entry if holds else 1.0) - 1.0)
        worst, best = positions[i, WORST, j], positions[i, BEST, j]
        worst, best = 0.0 if begins else worst, 0.0 if begins else best
        worst, best = moved if moved < worst else worst, moved if moved > best else best
        level = entry * (1.0 - _side(now) * rules[STOP])
        low, high = board[t + 1, LOW, j], board[t + 1, HIGH, j]
        passes = ((now > 0.0) & (low <= level)) | ((now < 0.0) & (high >= level))
        any_stop = any_stop | (passes & holds & (rules[STOP] > 0.0))
        carried = (0.0 if begins else earned) - (cost - ending)
        positions[i, ENTRY, j] = entry if holds else 0.0
        positions[i, TRADE_PNL, j] = carried + run if holds else 0.0
        positions[i, WORST, j] = worst if holds else 0.0
        positions[i, BEST, j] = best if holds else 0.0
        positions[i, FILL_UNITS, j] = change
        positions[i, FILL_PRICE, j] = fill if change != 0.0 else np.nan
        positions[i, STOP_UNITS, j] = 0.0
        positions[i, STOP_PRICE, j] = np.nan
        positions[i, UNITS, j] = now
        pnl += gap + run
        value += now * mark * multiplier
    money[i, COMMISSION], money[i, SLIPPAGE], money[i, IMPACT_PAID], money[i, TRADED] = commission, slippage, impact, traded
    if any_stop:
        for j in range(n_symbols):
            now, mark, multiplier = positions[i, UNITS, j], board[t + 1, MARK, j], terms[MULTIPLIER, j]
            level = positions[i, ENTRY, j] * (1.0 - _side(now) * rules[STOP])
            passes = board[t + 1, LOW, j] <= level if now > 0.0 else board[t + 1, HIGH, j] >= level
            if now != 0.0 and passes:
                run = now * (mark - prices[j]) * multiplier
                positions[i, TRADE_PNL, j] -= run
                paid, stop_run = _stop(i, j, t, now, level, prices[j], board, terms, rules, money, positions, counts)
                cash += paid
                pnl += stop_run - run
                value -= now * mark * multiplier
    money[i, CASH_HELD], money[i, PNL] = cash, pnl
    money[i, EQUITY] = cash + value
    money[i, PEAK] = max(money[i, PEAK], cash + value)
    if cash + value <= rules[RUIN_EQUITY]:
        ruined[i] = True


@compiled
def settle(bar, targets, board, terms, years, rules, money, ruined, positions, counts):
    """Move every account one bar on, each from its own bar."""
    n_symbols = positions.shape[2]
    wanted, prices, per_unit = np.empty(n_symbols), np.empty(n_symbols), np.empty(n_symbols)
    for i in range(len(money)):
        _settle(i, bar[i], targets, board, terms, years, rules, money, ruined, positions, counts, wanted, prices, per_unit)


@inlined
def _decode(i, actions, n_tradable, gross_limit, short, targets):
    slot = gross_limit / max(n_tradable, 1)
    for j in range(actions.shape[1]):
        action = actions[i, j]
        targets[i, j] = slot if action == BUY else ((-slot if short else 0.0) if action == SELL else np.nan)


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
        for j in range(positions.shape[2]):
            able = board[t, LIVE, j] != 0.0 and not void
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


@inlined
def _observe(i, t, rows, board, terms, money, positions, out):
    n_symbols, columns = positions.shape[2], rows.shape[1]
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
    out[i, columns + 2 * n_symbols + 1] = equity / money[i, PEAK] - 1.0


@compiled
def observe(bar, rows, board, terms, money, positions, out):
    """Write every account's observation after the close of its bar."""
    for i in range(len(money)):
        _observe(i, bar[i], rows, board, terms, money, positions, out)


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
        _observe(i, starts[k], rows, board, terms, money, positions, out)


@compiled
def advance(clock, actions, discrete, n_tradable, targets, rows, board, terms, years, rules, money, ruined, positions, counts,
            episode, rewards, done, out):  # fmt: skip
    """One step of a batch: actions to orders, orders to accounts, accounts to rewards, ends and observations.

    With `discrete` the actions are decoded, else `targets` holds the weights. Returns how many episodes have ended.
    """
    n_symbols, n_done = positions.shape[2], 0
    wanted, prices, per_unit = np.empty(n_symbols), np.empty(n_symbols), np.empty(n_symbols)
    for i in range(len(money)):
        t = clock[i, BAR]
        if discrete:
            _decode(i, actions, n_tradable[t], rules[GROSS_LIMIT], rules[SHORT] != 0.0, targets)
        before, peak, traded = money[i, EQUITY], money[i, PEAK], money[i, TRADED]
        _settle(i, t, targets, board, terms, years, rules, money, ruined, positions, counts, wanted, prices, per_unit)
        rewards[i] = _reward(i, before, peak, traded, rules, money, episode)
        episode[i, TOTAL] += rewards[i]
        clock[i, BAR] = t + 1
        clock[i, STEPS_LEFT] -= 1
        clock[i, LENGTH] += 1
        done[i] = ruined[i] or clock[i, STEPS_LEFT] <= 0
        n_done += done[i]
        _observe(i, t + 1, rows, board, terms, money, positions, out)
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
