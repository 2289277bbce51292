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

compiled = njit(cache=True, error_model="numpy")


@compiled
def _whole_lots(units, lot):
    """Units rounded towards zero to whole lots; as they are where fractions trade."""
    return np.trunc(units / lot + np.sign(units) * _ROUND_UP) * lot if lot > 0.0 else units


@compiled
def _wanted_units(held, target, equity, per_unit, band, lot):
    """Units that a target weight asks for at the decision's own prices."""
    if np.isnan(target) or not per_unit > 0.0 or not equity > 0.0:
        return held
    if target != 0.0 and abs(target - held * per_unit / equity) <= band:
        return held
    return _whole_lots(target * equity / per_unit, lot)


@compiled
def _scale_to_limit(held, wanted, per_unit, lot, limit):
    """Shrink the orders that add exposure so that the sum of |units| times `per_unit` stays within a limit."""
    kept = 0.0
    added = 0.0
    for j in range(len(held)):
        before, after = abs(held[j]) * per_unit[j], abs(wanted[j]) * per_unit[j]
        kept += min(before, after)
        added += max(after - before, 0.0)
    if added == 0.0 or kept + added <= limit:
        return
    scale = max(limit - kept, 0.0) / added
    for j in range(len(held)):
        if abs(wanted[j]) > abs(held[j]):
            wanted[j] = held[j] + _whole_lots((wanted[j] - held[j]) * scale, lot[j])


@compiled
def _required_margin(margin, price, multiplier):
    """Account currency that one unit ties up; an instrument without margin is paid in full."""
    return margin if margin > 0.0 else price * multiplier


@compiled
def _margin_held(units, price, terms):
    """Account currency that all positions tie up."""
    required = 0.0
    for j in range(len(units)):
        if units[j] != 0.0:
            required += abs(units[j]) * _required_margin(terms[MARGIN, j], price[j], terms[MULTIPLIER, j])
    return required


@compiled
def _is_called(i, t, board, terms, rules, money, positions):
    """Whether the broker asks for money after the close of bar t."""
    if rules[MARGIN_CALLS] == 0.0:
        return False
    return money[i, EQUITY] < rules[MAINTENANCE] * _margin_held(positions[i, UNITS], board[t, MARK], terms)


@compiled
def _shortfall(price, change, volatility, volume, term_rate, term_price, rules):
    """How much worse than `price` one unit of a fill is: slippage, then impact. No sale brings less than nothing."""
    slip = min(price * (term_rate + rules[SLIPPAGE_PER_VOLATILITY] * volatility) + term_price, price)
    if rules[IMPACT] == 0.0:
        return slip, 0.0
    share = abs(change) / volume if volume > 0.0 else 1.0
    return slip, min(price * rules[IMPACT] * volatility * np.sqrt(share), price - slip)


@compiled
def _end_trade(i, j, bar, cost, positions, counts):
    """Book the outcome of a trade that has ended; `cost` is what ending it cost."""
    won = positions[i, TRADE_PNL, j] - cost > 0.0
    counts[i, LOSS_STREAK, j] = 0 if won else counts[i, LOSS_STREAK, j] + 1
    counts[i, OUTCOMES, j] = ((counts[i, OUTCOMES, j] << 1) | (1 if won else 0)) & ((1 << OUTCOMES_KEPT) - 1)
    counts[i, N_OUTCOMES, j] = min(counts[i, N_OUTCOMES, j] + 1, OUTCOMES_KEPT)
    counts[i, EXIT_BAR, j] = bar
    positions[i, ENTRY, j] = 0.0
    positions[i, TRADE_PNL, j] = 0.0
    positions[i, WORST, j] = 0.0
    positions[i, BEST, j] = 0.0


@compiled
def _book_trade(i, j, bar, held, now, fill, cost, positions, counts):
    """Carry a symbol's trade through one fill: open it, add to it, reduce it, end it, or turn it round."""
    if held != 0.0 and held * now <= 0.0:
        ending = cost * (abs(held) / abs(now - held))
        _end_trade(i, j, bar, ending, positions, counts)
        cost -= ending
        held = 0.0
    if now == 0.0:
        return
    if held == 0.0:
        positions[i, ENTRY, j] = fill
    elif abs(now) > abs(held):
        positions[i, ENTRY, j] = (positions[i, ENTRY, j] * held + fill * (now - held)) / now
    positions[i, TRADE_PNL, j] -= cost


@compiled
def _settle(i, t, target, board, terms, years, rules, money, ruined, positions, counts, wanted, price, per_unit):
    """Move account i from the close of bar t to the close of bar t + 1; the module says in which order."""
    n_symbols = positions.shape[2]
    units = positions[i, UNITS]
    now_bar, next_bar = board[t], board[t + 1]
    lot = terms[LOT]
    called = _is_called(i, t, board, terms, rules, money, positions)
    cash = money[i, CASH_HELD]
    if rules[BORROW] > 0.0:
        for j in range(n_symbols):
            if units[j] < 0.0:
                owed = -units[j] * now_bar[MARK, j] * terms[MULTIPLIER, j] * terms[IN_BPS, j] * rules[BORROW] * years[t + 1]
                cash -= owed
                money[i, BORROW_PAID] += owed
                positions[i, TRADE_PNL, j] -= owed

    equity = money[i, EQUITY]
    opening_equity = cash
    orders = not (ruined[i] or called)
    for j in range(n_symbols):
        live = next_bar[LIVE, j] != 0.0
        held = units[j]
        price[j] = next_bar[OPEN, j] if live else (now_bar[MARK, j] if np.isfinite(now_bar[MARK, j]) else 0.0)
        per_unit[j] = price[j] * terms[MULTIPLIER, j]
        opening_equity += held * price[j] * terms[MULTIPLIER, j]
        wanted[j] = held
        if not live:
            continue
        if orders:
            wanted[j] = _wanted_units(held, target[j], equity, now_bar[MARK, j] * terms[MULTIPLIER, j], rules[BAND], lot[j])
            most = rules[PARTICIPATION] * now_bar[VOLUME, j]  # without a cap infinite, or nan: neither is ever passed
            if abs(wanted[j] - held) > most:
                wanted[j] = held + _whole_lots(np.sign(wanted[j] - held) * most, lot[j])
        elif ruined[i]:
            wanted[j] = 0.0
        if rules[CLOSE_BY_SESSION_END] != 0.0 and next_bar[MUST_CLOSE, j] != 0.0:
            wanted[j] = 0.0
        if rules[STOP] > 0.0 and held != 0.0:
            side = np.sign(held)
            if side * next_bar[OPEN, j] <= side * positions[i, ENTRY, j] * (1.0 - side * rules[STOP]):
                wanted[j] = 0.0
    if called and not ruined[i]:
        money[i, N_MARGIN_CALLS] += 1.0
        required = _margin_held(units, price, terms)
        share = min(max(opening_equity / required, 0.0), 1.0) if required > 0.0 else 1.0
        for j in range(n_symbols):
            if next_bar[LIVE, j] != 0.0 and wanted[j] != 0.0:
                wanted[j] = _whole_lots(units[j] * share, lot[j])
    _scale_to_limit(units, wanted, per_unit, lot, rules[GROSS_LIMIT] * opening_equity)
    if rules[MARGIN_CALLS] != 0.0:
        for j in range(n_symbols):
            per_unit[j] = _required_margin(terms[MARGIN, j], price[j], terms[MULTIPLIER, j])
        _scale_to_limit(units, wanted, per_unit, lot, opening_equity)

    value = 0.0
    pnl, commission, slippage = money[i, PNL], money[i, COMMISSION], money[i, SLIPPAGE]
    impact, traded = money[i, IMPACT_PAID], money[i, TRADED]
    for j in range(n_symbols):
        held, now, multiplier = units[j], wanted[j], terms[MULTIPLIER, j]
        positions[i, FILL_UNITS, j] = now - held
        positions[i, FILL_PRICE, j] = np.nan
        positions[i, STOP_UNITS, j] = 0.0
        positions[i, STOP_PRICE, j] = np.nan
        if held == 0.0 and now == 0.0:
            continue
        if next_bar[LIVE, j] != 0.0:
            opened, at = price[j], next_bar[MARK, j]
            commission_rate, slippage_rate = rules[COMMISSION_RATE] * terms[IN_BPS, j], rules[SLIPPAGE_RATE] * terms[IN_BPS, j]
            gap = held * (opened - now_bar[MARK, j]) * multiplier if held != 0.0 else 0.0
            positions[i, TRADE_PNL, j] += gap
            change, fill_at, stops, run = now - held, opened, False, 0.0
            for leg in range(2):  # the order at the open, then the stop within the bar
                if change != 0.0:
                    slip, push = _shortfall(
                        fill_at, change, now_bar[VOLATILITY, j], now_bar[VOLUME, j], slippage_rate, terms[SLIPPAGE_PRICE, j], rules
                    )
                    fill = fill_at + np.sign(change) * (slip + push)
                    notional = abs(change) * fill * multiplier
                    fee = abs(change) * terms[FEE_PER_UNIT, j] + notional * commission_rate
                    lost, pushed = abs(change) * slip * multiplier, abs(change) * push * multiplier
                    cash -= change * fill * multiplier + fee
                    commission += fee
                    slippage += lost
                    impact += pushed
                    traded += notional
                    _book_trade(i, j, t + 1, held, now, fill, fee + lost + pushed, positions, counts)
                    positions[i, STOP_PRICE if stops else FILL_PRICE, j] = fill
                if leg == 1 or rules[STOP] == 0.0 or now == 0.0:
                    break
                side = np.sign(now)
                level = positions[i, ENTRY, j] * (1.0 - side * rules[STOP])
                stops = next_bar[LOW, j] <= level if now > 0.0 else next_bar[HIGH, j] >= level
                if not stops:
                    break
                fill_at = side * min(side * level, side * opened)
                run = now * (fill_at - opened) * multiplier
                positions[i, TRADE_PNL, j] += run
                positions[i, STOP_UNITS, j] = -now
                held, now, change = now, 0.0, -now
            if now != 0.0:
                run = now * (at - opened) * multiplier
                positions[i, TRADE_PNL, j] += run
                moved = np.sign(now) * (at / positions[i, ENTRY, j] - 1.0)
                positions[i, WORST, j] = min(positions[i, WORST, j], moved)
                positions[i, BEST, j] = max(positions[i, BEST, j], moved)
            pnl += gap + run
        units[j] = now
        if now != 0.0:
            value += now * next_bar[MARK, j] * multiplier
    money[i, CASH_HELD] = cash
    money[i, PNL], money[i, COMMISSION], money[i, SLIPPAGE] = pnl, commission, slippage
    money[i, IMPACT_PAID], money[i, TRADED] = impact, traded
    money[i, EQUITY] = cash + value
    money[i, PEAK] = max(money[i, PEAK], cash + value)
    if cash + value <= rules[RUIN_EQUITY]:
        ruined[i] = True


@compiled
def settle(bar, targets, board, terms, years, rules, money, ruined, positions, counts):
    """Move every account one bar on, each from its own bar."""
    n_symbols = positions.shape[2]
    wanted, price, per_unit = np.empty(n_symbols), np.empty(n_symbols), np.empty(n_symbols)
    for i in range(len(money)):
        _settle(i, bar[i], targets[i], board, terms, years, rules, money, ruined, positions, counts, wanted, price, per_unit)


@compiled
def decode(actions, n_tradable, gross_limit, short, targets):
    """Write the target weights of discrete actions: one slot, flat or one slot short, nan for HOLD."""
    for i in range(actions.shape[0]):
        slot = gross_limit / max(n_tradable[i], 1)
        for j in range(actions.shape[1]):
            action = actions[i, j]
            targets[i, j] = slot if action == BUY else ((-slot if short else 0.0) if action == SELL else np.nan)


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
    grown = np.log(ratio)
    simple, mean, square = ratio - 1.0, money[i, RETURN_MEAN], money[i, RETURN_SQUARE]
    sharpe = differential_sharpe(mean, square, simple)
    money[i, RETURN_MEAN] = mean + rules[SHARPE_DECAY] * (simple - mean)
    money[i, RETURN_SQUARE] = square + rules[SHARPE_DECAY] * (simple * simple - square)
    deeper = min(money[i, EQUITY] / money[i, PEAK] - equity_before / peak_before, 0.0)
    turned = -(money[i, TRADED] - traded_before) / max(equity_before, floor)
    parts = (
        rules[WEIGHT_LOG_RETURN] * grown,
        rules[WEIGHT_SHARPE] * sharpe,
        rules[WEIGHT_DRAWDOWN] * deeper,
        rules[WEIGHT_TURNOVER] * turned,
    )
    reward = 0.0
    for k in range(4):
        reward += parts[k]
        episode[i, PART_LOG_RETURN + k] += parts[k] * rules[REWARD_SCALE]
    return np.float32(reward * rules[REWARD_SCALE])


@compiled
def _observe(i, t, rows, board, terms, money, positions, out):
    n_symbols, columns = positions.shape[2], rows.shape[1]
    seen = out[i]
    seen[:columns] = rows[t]
    equity = money[i, EQUITY]
    scale = max(equity, 1e-9)
    for j in range(n_symbols):
        weight, moved = 0.0, 0.0
        units = positions[i, UNITS, j]
        if units != 0.0:
            mark = board[t, MARK, j]
            weight = units * mark * terms[MULTIPLIER, j] / scale
            moved = np.sign(units) * (mark / positions[i, ENTRY, j] - 1.0)
        seen[columns + j] = min(max(weight, -5.0), 5.0)
        seen[columns + n_symbols + j] = min(max(5.0 * moved, -5.0), 5.0)
    seen[columns + 2 * n_symbols] = min(max(money[i, CASH_HELD] / scale, -5.0), 5.0)
    seen[columns + 2 * n_symbols + 1] = equity / money[i, PEAK] - 1.0


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
    wanted, price, per_unit = np.empty(n_symbols), np.empty(n_symbols), np.empty(n_symbols)
    for i in range(len(money)):
        t = clock[i, BAR]
        if discrete:
            decode(actions[i : i + 1], n_tradable[t : t + 1], rules[GROSS_LIMIT], rules[SHORT] != 0.0, targets[i : i + 1])
        before, peak, traded = money[i, EQUITY], money[i, PEAK], money[i, TRADED]
        _settle(i, t, targets[i], board, terms, years, rules, money, ruined, positions, counts, wanted, price, per_unit)
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
