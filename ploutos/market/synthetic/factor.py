"""The path that all symbols of the synthetic market share: a common factor on one clock that goes on day and night.

The session of the NYSE moves by the hour, every night, weekend or holiday is one GARCH step, and two regimes change from
session to session. Sigmas follow the time of day in New York. Each symbol adds a part of its own with `garch_returns`.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
from numba import njit

from ploutos.market import calendar as calendars
from ploutos.market.synthetic.scenarios import TREND_SHARPE, UNEVENTFUL, Scenario, event_session, staged_moves
from ploutos.market.synthetic.spec import DAY, HALF_HOUR
from ploutos.seeding import generator
from ploutos.types import BoolArray, FloatArray, IntArray, TimeArray

ONE_DAY = np.timedelta64(1, "D")
SESSIONS_PER_YEAR = 252


@dataclass(frozen=True)
class Garch:
    """GJR-GARCH(1, 1) with unit variance, in hours of the NYSE's session; a night or a weekend is one step.

    Shocks are Student-t with `freedom` degrees, standardised. Source: Glosten, Jagannathan, Runkle (1993).
    """

    alpha: float
    gamma: float
    beta: float
    freedom: float


FACTOR = Garch(alpha=0.0, gamma=0.14, beta=0.92, freedom=8.0)
"""The common factor. A fit of hourly SPY bars has alpha 0.05, gamma 0.125, beta 0.885 and 4.8 degrees, whose variance has so
heavy a tail that a sample's volatility is luck; alpha and the shocks' tails give way, and what lasts is left to regimes."""
OWN = Garch(alpha=0.0, gamma=0.12, beta=0.93, freedom=8.0)
"""What a symbol does on its own."""

REGIME_STAY = (0.993, 0.97)
"""Chance per session to stay in the quiet and in the stressed regime."""
REGIME_VOLATILITY = (0.85, 1.80)
"""Sigma in each regime, against each other; their scale does not matter."""
REGIME_DRIFT = (0.13, -0.25)
"""Annual log drift of the factor in each regime."""

SESSION_PACE = (1.60, 1.25, 1.10, 0.95, 0.90, 0.80, 0.75, 0.75, 0.75, 0.80, 0.85, 0.90, 1.25)
"""Sigma of each half-hour from 09:30 to 16:00 in New York."""
NIGHT_PACE = ((0, 0.30), (3, 0.42), (8, 0.60), (16, 0.40), (18, 0.30))
"""Sigma of a half-hour outside of it, from this hour on."""
CLOSED_PACE = 0.10
"""Sigma of a half-hour of weekends and NYSE holidays, from 18:00 the evening before."""


@dataclass(frozen=True)
class MarketPath:
    """The shared part of the path; every array has shape (n_steps,).

    Attributes:
        origin: start of the first step, UTC.
        pace: sigma of each step against a half-hour of the session.
        hours: number of the GARCH step, non-decreasing.
        activity: sigma of each step where a year has variance 1.
        volatility: sigma of the regime, in units of the annual volatility.
        drift: annual log drift of the regime.
        factor: returns in units of `activity` and `volatility`.
        factor_sigma: their conditional sigma.
        staged: log returns that the scenario adds to every symbol.
    """

    origin: np.datetime64
    pace: FloatArray
    hours: IntArray
    activity: FloatArray
    volatility: FloatArray
    drift: FloatArray
    factor: FloatArray
    factor_sigma: FloatArray
    staged: FloatArray


def market_path(start: date, end: date, step: np.timedelta64, scenario: Scenario, seed: int, annual_volatility: float) -> MarketPath:
    """The shared part of the path of every symbol.

    Args:
        start, end: session dates, both included.
        step: timedelta64[us] that divides half an hour.
        annual_volatility: decimal; only the trend reads it.

    Raises:
        ConfigError: the span is too short for the scenario.
    """
    # A session may open the evening before its date. Sessions beyond the end keep the last evening as it is in a longer span.
    origin = np.datetime64(start, "us") - ONE_DAY
    steps = np.arange(origin, np.datetime64(end, "us") + ONE_DAY, step)
    local = pd.DatetimeIndex(steps).tz_localize("UTC").tz_convert("America/New_York").tz_localize(None).to_numpy().astype("datetime64[us]")
    sessions = calendars.expected_bars("NYSE", DAY, start, end + timedelta(days=7)).astype("datetime64[D]")
    struck = None if scenario in UNEVENTFUL else event_session(scenario, start, end, seed)
    trade_dates = (local + np.timedelta64(6, "h")).astype("datetime64[D]")
    on_session = np.isin(trade_dates, sessions)
    pace, hours = _pace(local, on_session), _garch_steps(local, on_session)
    regime = _regimes(scenario, sessions, struck, seed)[np.searchsorted(sessions, trade_dates)]
    factor, factor_sigma = garch_returns(seed, "common factor", FACTOR, pace, hours)
    trend = TREND_SHARPE * annual_volatility if scenario == "trend" else 0.0
    return MarketPath(
        origin=origin,
        pace=pace,
        hours=hours,
        activity=_activity(pace, step),
        volatility=np.array(REGIME_VOLATILITY)[regime] / _regime_sigma(),
        drift=np.array(REGIME_DRIFT)[regime] + trend,
        factor=factor,
        factor_sigma=factor_sigma,
        staged=np.zeros(len(steps)) if struck is None else staged_moves(scenario, struck, steps),
    )


def _minute(local: TimeArray) -> IntArray:
    return (local - local.astype("datetime64[D]")) // np.timedelta64(1, "m")


def _in_session(local: TimeArray, on_session: BoolArray) -> BoolArray:
    minute = _minute(local)
    return on_session & (minute >= 570) & (minute < 960)


def _pace(local: TimeArray, on_session: BoolArray) -> FloatArray:
    """Sigma of each step against a typical half-hour of the session; shape (n_steps,)."""
    minute = _minute(local)
    half_hour = np.clip((minute - 570) // 30, 0, len(SESSION_PACE) - 1)
    hours, paces = (np.array(column) for column in zip(*NIGHT_PACE, strict=True))
    night = paces[np.searchsorted(hours, minute // 60, side="right") - 1]
    weekday = np.where(_in_session(local, on_session), np.array(SESSION_PACE)[half_hour], night)
    return np.where(on_session, weekday, CLOSED_PACE)


def _activity(pace: FloatArray, step: np.timedelta64) -> FloatArray:
    """Sigma of each step where a year of `SESSIONS_PER_YEAR` sessions has variance 1; shape (n_steps,)."""
    half_hours = np.datetime64("2024-07-01", "us") + np.arange(48) * HALF_HOUR.to_timedelta64()
    open_day, closed_day = (float(np.sum(_pace(half_hours, np.full(48, on)) ** 2)) for on in (True, False))
    year = SESSIONS_PER_YEAR * open_day + (365 - SESSIONS_PER_YEAR) * closed_day
    return pace * np.sqrt(step / HALF_HOUR.to_timedelta64() / year)


def _regime_sigma() -> float:
    """Root of the long-run mean of the squared regime volatility."""
    leave_quiet, leave_stressed = (1 - stay for stay in REGIME_STAY)
    quiet, stressed = np.square(REGIME_VOLATILITY)
    return float(np.sqrt((leave_stressed * quiet + leave_quiet * stressed) / (leave_quiet + leave_stressed)))


def _garch_steps(local: TimeArray, on_session: BoolArray) -> IntArray:
    """Number of the GARCH step of each step: a clock hour of the session, or all the time until the next session."""
    hour = np.where(_in_session(local, on_session), _minute(local) // 60, -1)
    return np.cumsum(np.r_[False, hour[1:] != hour[:-1]])


def _regimes(scenario: Scenario, sessions: TimeArray, struck: np.datetime64 | None, seed: int) -> IntArray:
    """0 quiet, 1 stressed; shape (n_sessions + 1,), the last one for the time after the last session."""
    if scenario == "calm":
        return np.zeros(len(sessions) + 1, dtype=np.int64)
    if scenario == "regime_switch" and struck is not None:
        return np.r_[sessions >= struck, True].astype(np.int64)
    return _markov(stream(seed, "common regime").random(len(sessions) + 1), *REGIME_STAY)


@njit(cache=True)
def _markov(draws: FloatArray, stay_quiet: float, stay_stressed: float) -> IntArray:
    states = np.zeros(len(draws), dtype=np.int64)
    for i in range(1, len(draws)):
        before = states[i - 1]
        stay = stay_stressed if before else stay_quiet
        states[i] = before if draws[i] < stay else 1 - before
    return states


def garch_returns(seed: int, name: str, model: Garch, pace: FloatArray, hours: IntArray) -> tuple[FloatArray, FloatArray]:
    """Returns of unit long-run variance and their conditional sigma, each of shape (n_steps,).

    The steps of one hour share a mixing variable, so that the hour's return is Student-t however many steps it has.

    Args:
        name: whose shocks; every name has streams of its own.
        pace, hours: as in `MarketPath`.
    """
    normal = stream(seed, name, 1).standard_normal(len(hours))
    mixing = stream(seed, name, 2).chisquare(model.freedom, int(hours[-1]) + 1)
    shocks = normal * np.sqrt((model.freedom - 2) / mixing[hours])
    sigma = _garch_sigma(shocks, pace, hours, model.alpha, model.gamma, model.beta)
    return sigma * shocks, sigma


@njit(cache=True)
def _garch_sigma(shocks: FloatArray, pace: FloatArray, hours: IntArray, alpha: float, gamma: float, beta: float) -> FloatArray:
    """Conditional sigma of each step; the variance moves once an hour, by the hour's whole shock."""
    sigma = np.empty(len(shocks))
    variance, shock, weight = 1.0, 0.0, 0.0
    for i in range(len(shocks)):
        if i > 0 and hours[i] != hours[i - 1]:
            squared = variance * shock * shock / weight
            variance = 1.0 - alpha - gamma / 2 - beta + (alpha + gamma * (shock < 0)) * squared + beta * variance
            shock, weight = 0.0, 0.0
        sigma[i] = np.sqrt(variance)
        shock += pace[i] * shocks[i]
        weight += pace[i] ** 2
    return sigma


def stream(seed: int, name: str, quantity: int = 0) -> np.random.Generator:
    """A generator of its own for each quantity of each path, so that a longer span only appends draws."""
    return generator(seed, f"synthetic {name}", quantity)
