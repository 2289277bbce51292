"""Scenarios of the synthetic market: what each does to prices or bars, and where.

A scenario strikes on one session, drawn by the seed between 40 % and 80 % of the span. Market-wide ones move every symbol;
those that look like a fault of one symbol strike the first instrument of the list. The place is known without simulating,
so that a test can ask whether a check finds it.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd

from ploutos.errors import ConfigError
from ploutos.market import calendar as calendars
from ploutos.seeding import generator
from ploutos.types import BoolArray, FloatArray, TimeArray

Scenario = Literal[
    "normal", "calm", "trend", "noise", "planted", "planted_lagged", "planted_slow", "planted_cross", "planted_regime",
    "regime_switch", "crash", "flash_crash", "halted", "stale", "unadjusted_split", "missing_week", "bad_tick", "volume_unit_swap",
]  # fmt: skip

CRASH = 0.20
"""Share of its price that everything loses between 09:30 and 16:00 in New York."""
FLASH_CRASH = 0.15
"""Share that everything loses from 14:30 to 15:00 in New York, and has won back by 16:00."""
TREND_SHARPE = 3.0
"""Annual drift of the trend, in units of the market's annual volatility."""
SPLIT = 4.0
"""New shares for one old share."""
BAD_TICK = 0.8
"""The wrong close as a share of the right one."""
ROUND_LOT = 100.0
"""Shares in a lot, for a vendor that changes from shares to lots."""
HALT_SESSIONS = 3
STALE_SESSIONS = 2
MIN_SESSIONS = 20
"""A shorter span has no room for something to happen in its middle."""

SCENARIOS: dict[Scenario, str] = {
    "normal": "two regimes, fat tails, jumps; nothing is staged",
    "calm": "the normal market held in its quiet regime, without jumps",
    "trend": f"the normal market and a drift of {TREND_SHARPE:.0f} market volatilities a year, times a symbol's beta",
    "noise": "independent normal returns without drift or gaps, one stream per symbol: no strategy can have skill",
    "planted": "noise whose signs persist: the sign of a bar's return predicts the next one's",
    "planted_lagged": "noise, but high or low volume predicts the direction of a bar several bars later: memory pays",
    "planted_slow": "noise, but where the close lies between low and high predicts a slow drift: trading less often than it moves pays",
    "planted_cross": "the same, but only the difference from the other symbols' positions predicts anything: it takes two symbols",
    "planted_regime": "the same as planted_slow, but in long bars the place of the close predicts the opposite",
    "regime_switch": "quiet until the session, stressed from its evening before on: about twice the volatility",
    "crash": f"everything loses {CRASH:.0%} within the regular hours of one session, and does not recover",
    "flash_crash": f"everything loses {FLASH_CRASH:.0%} in half an hour and regains it by the close",
    "halted": f"the first symbol has no bars for {HALT_SESSIONS} sessions",
    "stale": f"the first symbol repeats its last close without volume for {STALE_SESSIONS} sessions",
    "unadjusted_split": f"the first symbol's prices are divided by {SPLIT:.0f} and its volume multiplied, from one bar on",
    "missing_week": "no symbol has bars for seven days",
    "bad_tick": f"one close of the first symbol, and the low with it, is {BAD_TICK:.0%} of what it was",
    "volume_unit_swap": f"the first symbol's volume is counted in lots of {ROUND_LOT:.0f} from one bar on",
}
"""Every scenario and what it does."""

OF_ONE_SYMBOL: tuple[Scenario, ...] = ("halted", "stale", "unadjusted_split", "bad_tick", "volume_unit_swap")
PLANTED: tuple[Scenario, ...] = ("planted", "planted_lagged", "planted_slow", "planted_cross", "planted_regime")
"""Those that hide a signal, as strong as `data.synthetic.strength` says."""
UNEVENTFUL: tuple[Scenario, ...] = ("normal", "calm", "trend", "noise", *PLANTED)
_FROM_THEN_ON: tuple[Scenario, ...] = ("regime_switch", "unadjusted_split", "volume_unit_swap")
_MOVES: dict[Scenario, tuple[tuple[str, str, float], ...]] = {
    "crash": (("09:30", "16:00", 1 - CRASH),),
    "flash_crash": (("14:30", "15:00", 1 - FLASH_CRASH), ("15:00", "16:00", 1 / (1 - FLASH_CRASH))),
}  # from, until (New York), and the share of the price that is left


@dataclass(frozen=True)
class PlannedEvent:
    """Where a scenario shows in the bars of one symbol.

    Attributes:
        symbol: whose bars.
        scenario: what happens to them.
        at: shape (n_hit,), datetime64[us] UTC, starts of the bars that are hit or missing; for a change that lasts, the
            first bar after it.
    """

    symbol: str
    scenario: Scenario
    at: TimeArray


def event_session(scenario: Scenario, first: date, last: date, seed: int) -> np.datetime64:
    """The NYSE session, of full length, on which a scenario strikes.

    Raises:
        ConfigError: the span has fewer than `MIN_SESSIONS` sessions.
    """
    steps = calendars.expected_bars("NYSE", pd.Timedelta(minutes=30), first, last)
    sessions, n_steps = np.unique(steps.astype("datetime64[D]"), return_counts=True)
    if len(sessions) < MIN_SESSIONS:
        raise ConfigError(
            f"scenario {scenario} has {len(sessions)} NYSE sessions from {first} to {last}; "
            f"expected at least {MIN_SESSIONS}; choose a longer span"
        )
    middle = slice(int(0.4 * len(sessions)), int(0.8 * len(sessions)))
    whole_days = sessions[middle][n_steps[middle] == n_steps.max()]
    return generator(seed, "synthetic staged event").choice(whole_days)


def staged_moves(scenario: Scenario, session: np.datetime64, steps: TimeArray) -> FloatArray:
    """Log returns that a crash adds to every symbol; zeros in another scenario.

    Args:
        session: datetime64[D], when it strikes.
        steps: shape (n_steps,), starts of the steps of the path, UTC.

    Returns:
        Shape (n_steps,).
    """
    returns = np.zeros(len(steps))
    for start, end, left in _MOVES.get(scenario, ()):
        during = (steps >= _new_york(session, start)) & (steps < _new_york(session, end))
        returns[during] = np.log(left) / during.sum()
    return returns


def hit_bars(scenario: Scenario, session: np.datetime64, stamps: TimeArray, sessions: TimeArray, timeframe: pd.Timedelta) -> BoolArray:
    """Which of a symbol's bars a scenario strikes.

    Args:
        session: datetime64[D], when it strikes.
        stamps: shape (n_bars,), bar starts, UTC.
        sessions: shape (n_bars,), session date of each bar.

    Returns:
        Shape (n_bars,); see `PlannedEvent.at`.
    """
    if scenario in _MOVES:
        start, end = _new_york(session, _MOVES[scenario][0][0]), _new_york(session, _MOVES[scenario][-1][1])
        return (stamps < end) & (stamps + timeframe.to_timedelta64() > start)
    later = sessions >= session
    if scenario in _FROM_THEN_ON:
        return _only(later, int(later.argmax()))
    if scenario == "bad_tick":
        today = np.flatnonzero(sessions == session)
        return _only(later, int(today[len(today) // 2]))
    if scenario == "missing_week":
        return later & (sessions < session + np.timedelta64(7, "D"))
    lasting = HALT_SESSIONS if scenario == "halted" else STALE_SESSIONS
    return np.isin(sessions, np.unique(sessions[later])[:lasting])


def stage(scenario: Scenario, bars: pd.DataFrame, hit: BoolArray) -> pd.DataFrame:
    """The bars of one symbol as they look after a fault of the data; a market-wide move leaves them as they are.

    Args:
        bars: n_bars rows of open, high, low, close, volume.
        hit: shape (n_bars,), from `hit_bars`.
    """
    staged = bars.copy()
    prices = ["open", "high", "low", "close"]
    since = np.maximum.accumulate(hit)
    if scenario in ("halted", "missing_week"):
        staged = staged[~hit]
    elif scenario == "stale":
        staged.loc[hit, prices] = bars["close"].iloc[int(hit.argmax()) - 1]
        staged.loc[hit, "volume"] = 0.0
    elif scenario == "unadjusted_split":
        staged.loc[since, prices] /= SPLIT
        staged.loc[since, "volume"] *= SPLIT
    elif scenario == "bad_tick":
        staged.loc[hit, "close"] *= BAD_TICK
        staged.loc[hit, "low"] = np.minimum(staged.loc[hit, "low"], staged.loc[hit, "close"])
    elif scenario == "volume_unit_swap":
        staged.loc[since, "volume"] = np.floor(staged.loc[since, "volume"] / ROUND_LOT)
    return staged


def _only(like: BoolArray, position: int) -> BoolArray:
    return np.arange(len(like)) == position


def _new_york(session: np.datetime64, clock: str) -> np.datetime64:
    """A time of day on a session, as UTC."""
    local = pd.Timestamp(f"{session} {clock}", tz="America/New_York")
    return local.tz_convert("UTC").tz_localize(None).to_datetime64().astype("datetime64[us]")
