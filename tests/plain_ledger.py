"""One account, written for reading: the second implementation that the compiled kernel must equal.

It follows the rules in words (see `ploutos.envs.kernel`), not the kernel's code: plain floats, one symbol after the other,
nothing vectorised, nothing packed.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from ploutos.envs.spec import EnvSpec
from ploutos.market.bars import Bars
from ploutos.market.calendar import session_closes


@dataclass
class PlainAccount:
    bars: Bars
    spec: EnvSpec
    cash: float = 0.0
    equity: float = 0.0
    units: list[float] = field(default_factory=list)
    entry: list[float] = field(default_factory=list)
    commission: float = 0.0
    slippage: float = 0.0
    impact: float = 0.0
    borrow: float = 0.0
    traded: float = 0.0
    pnl: float = 0.0
    margin_calls: int = 0
    written_off: float = 0.0
    kinds: list[str] = field(default_factory=list)
    fills: list[tuple[int, float, float, str]] = field(default_factory=list)
    ruined: bool = False

    def __post_init__(self):
        self.cash = self.equity = self.spec.cash
        self.units = [0.0] * self.bars.n_symbols
        self.entry = [0.0] * self.bars.n_symbols
        closes = session_closes(self.bars.timestamps, self.bars.timeframe, self.bars.calendar)
        self.last_of_session = [bool(np.isnat(c) or a >= c) for a, c in zip(self.bars.available_at, closes, strict=True)]
        self.volatility, self.volume = self._usual()

    def _usual(self):
        """Decayed volatility and volume of every symbol at every close, from its own bars alone."""
        bars, n = self.bars, self.bars.n_symbols
        volatility, volume = np.zeros((bars.n_bars, n)), np.zeros((bars.n_bars, n))
        for j in range(n):
            squares = usual = last = None
            for t in range(bars.n_bars):
                if bars.tradable[t, j]:
                    if last is not None and last > 0 and bars.close[t, j] > 0:
                        square = math.log(bars.close[t, j] / last) ** 2
                        squares = square if squares is None else 0.94 * squares + 0.06 * square
                    usual = bars.volume[t, j] if usual is None else 0.94 * usual + 0.06 * bars.volume[t, j]
                    last = bars.close[t, j]
                volatility[t, j], volume[t, j] = math.sqrt(squares or 0.0), usual or 0.0
        return volatility, volume

    def whole(self, j, units):
        lot = self.bars.instruments[j].lot
        return math.trunc(units / lot + math.copysign(1e-9, units)) * lot if lot else units

    def margin_of(self, j, price):
        instrument = self.bars.instruments[j]
        return instrument.margin or abs(price) * instrument.multiplier

    def fill(self, t, j, change, price, kind):
        """Trade `change` units at `price`, made worse; returns the fill."""
        costs, instrument = self.spec.costs, self.bars.instruments[j]
        bps = 1.0 if instrument.costs_in_bps else 0.0
        rate = bps * (costs.half_spread_bps + costs.slippage_bps) / 1e4 + costs.slippage_per_volatility * self.volatility[t, j]
        slip = abs(price) * rate + instrument.slippage_ticks * instrument.tick_size
        share = abs(change) / self.volume[t, j] if self.volume[t, j] > 0 else 1.0
        push = abs(price) * costs.impact * self.volatility[t, j] * math.sqrt(share)
        if instrument.asset_class != "future":  # no sale brings less than nothing
            slip = min(slip, price)
            push = min(push, price - slip)
        at = price + slip + push if change > 0 else price - slip - push
        worth = abs(change) * instrument.multiplier
        fee = abs(change) * instrument.commission_per_unit + bps * worth * at * costs.commission_bps / 1e4
        self.cash -= change * at * instrument.multiplier + fee
        self.commission += fee
        self.slippage += worth * slip
        self.impact += worth * push
        self.traded += worth * abs(at)
        self.fills.append((j, change, at, kind))
        return at

    def hold(self, j, now, at):
        """Carry the average entry through a fill."""
        held = self.units[j]
        if now == 0:
            self.entry[j] = 0.0
        elif held == 0 or held * now < 0:
            self.entry[j] = at
        elif abs(now) > abs(held):
            self.entry[j] = (self.entry[j] * held + at * (now - held)) / now
        self.units[j] = now

    def missed_the_end(self, t, j):
        """The symbol's last bar before t lies in an earlier session, whose end it did not reach."""
        for before in range(t - 1, -1, -1):
            if self.bars.tradable[before, j]:
                return self.bars.sessions[before] != self.bars.sessions[t] and not self.last_of_session[before]
        return False

    def pay_out(self, t, mark):
        """Turn what is held of symbols that were delisted with bar t into cash."""
        for j in range(self.bars.n_symbols):
            if self.bars.payout_bars[j] == t + 1 and self.units[j]:
                units, price, worth = self.units[j], self.bars.payouts[j], self.bars.instruments[j].multiplier
                self.cash += units * price * worth
                self.pnl += units * (price - mark[j]) * worth
                self.fills.append((j, -units, price, "payout"))
                self.hold(j, 0.0, price)

    def write_off(self, t):
        """Take everything from an account that owes more than it has."""
        for j in range(self.bars.n_symbols):
            if self.units[j]:
                self.fills.append((j, -self.units[j], self.bars.mark[t, j], "ruin"))
                self.hold(j, 0.0, 0.0)
        self.written_off -= self.equity
        self.cash = self.equity = 0.0

    def is_stopped(self, j, price):
        level = self.stop_level(j)
        return level is not None and (price <= level if self.units[j] > 0 else price >= level)

    def stop_level(self, j):
        """A share of the entry against what is held; None where there is no stop."""
        if not self.spec.stop_loss or not self.units[j]:
            return None
        away = abs(self.entry[j]) * self.spec.stop_loss
        return self.entry[j] - away if self.units[j] > 0 else self.entry[j] + away

    def step(self, t, targets):
        bars, spec, n = self.bars, self.spec, self.bars.n_symbols
        self.fills = []
        slot = spec.gross_limit / max(sum(bars.tradable[t]), 1)
        worth = [instrument.multiplier for instrument in bars.instruments]
        mark = [0.0 if math.isnan(m) else m for m in bars.mark[t]]
        live = bars.tradable[t + 1]
        open_ = [bars.open[t + 1, j] if live[j] else mark[j] for j in range(n)]
        margin_now = sum(abs(self.units[j]) * self.margin_of(j, mark[j]) for j in range(n) if self.units[j])
        broke = self.ruined
        called = spec.margin_calls and not broke and self.equity < spec.maintenance_margin * margin_now

        years = (bars.available_at[t + 1] - bars.available_at[t]) / np.timedelta64(365, "D")
        for j in range(n):
            if self.units[j] < 0 and bars.instruments[j].costs_in_bps:
                owed = -self.units[j] * mark[j] * worth[j] * spec.costs.borrow_per_year * years
                self.cash -= owed
                self.borrow += owed

        self.pay_out(t, mark)
        opening = self.cash + sum(self.units[j] * open_[j] * worth[j] for j in range(n))
        wanted, why = list(self.units), ["margin call" if called else "order"] * n
        for j in range(n):
            if live[j] and not called and not broke and not math.isnan(targets[j]):
                weight = self.units[j] * mark[j] * worth[j] / self.equity
                if targets[j] == 0:
                    wanted[j] = 0.0
                elif mark[j] > 0 and abs(targets[j] - weight) > spec.rebalance_band * slot:
                    wanted[j] = self.whole(j, targets[j] * self.equity / (mark[j] * worth[j]))
            if spec.max_participation is not None:
                most, change = spec.max_participation * self.volume[t, j], wanted[j] - self.units[j]
                if abs(change) > most:
                    wanted[j] = self.units[j] + self.whole(j, math.copysign(most, change))
        if called:
            self.margin_calls += 1
            margin_open = sum(abs(self.units[j]) * self.margin_of(j, open_[j]) for j in range(n) if self.units[j])
            share = min(max(opening / margin_open, 0.0), 1.0) if margin_open else 1.0
            wanted = [self.whole(j, self.units[j] * share) if live[j] else self.units[j] for j in range(n)]
        for j in range(n):
            if spec.flat_by_session_end and (self.last_of_session[t + 1] or self.missed_the_end(t + 1, j)):
                why[j] = "session end"
            if self.is_stopped(j, open_[j]):
                why[j] = "stop gap"
            if broke:
                why[j] = "ruin"
            if live[j] and why[j] in ("session end", "stop gap", "ruin"):
                wanted[j] = 0.0
        if not called:
            wanted = self.within(wanted, [abs(open_[j]) * worth[j] for j in range(n)], spec.gross_limit * opening)
            if spec.margin_calls:
                wanted = self.within(wanted, [self.margin_of(j, open_[j]) for j in range(n)], opening)

        for j in range(n):
            if not live[j]:
                continue
            if self.units[j]:
                self.pnl += self.units[j] * (open_[j] - mark[j]) * worth[j]
            change = wanted[j] - self.units[j]
            if change:
                self.hold(j, wanted[j], self.fill(t, j, change, open_[j], why[j]))
            leaves_at = self.stop_price(t + 1, j, open_[j])
            if leaves_at is not None:
                self.pnl += self.units[j] * (leaves_at - open_[j]) * worth[j]
                self.hold(j, 0.0, self.fill(t, j, -self.units[j], leaves_at, "stop"))
            self.pnl += self.units[j] * (bars.close[t + 1, j] - open_[j]) * worth[j]
        self.equity = self.cash + sum(self.units[j] * bars.mark[t + 1, j] * worth[j] for j in range(n) if self.units[j])
        self.ruined |= self.equity <= spec.ruin_fraction * spec.cash
        if self.equity < 0:
            self.write_off(t + 1)
        self.kinds += [kind for *_, kind in self.fills]

    def stop_price(self, t, j, opened):
        """The worse of stop and open when bar t reaches the stop of what is held, else None."""
        level = self.stop_level(j)
        if level is None:
            return None
        if self.units[j] > 0:
            return min(level, opened) if self.bars.low[t, j] <= level else None
        return max(level, opened) if self.bars.high[t, j] >= level else None

    def within(self, wanted, each, limit):
        """Shrink additions alike until the sum of |units| times `each` fits the limit."""
        pairs = [(abs(u) * e, abs(w) * e) for u, w, e in zip(self.units, wanted, each, strict=True)]
        kept = sum(min(pair) for pair in pairs)
        added = sum(max(after - before, 0.0) for before, after in pairs)
        if not added or kept + added <= limit:
            return wanted
        share = max(limit - kept, 0.0) / added
        return [
            held + self.whole(j, (want - held) * share) if abs(want) > abs(held) else want
            for j, (held, want) in enumerate(zip(self.units, wanted, strict=True))
        ]
