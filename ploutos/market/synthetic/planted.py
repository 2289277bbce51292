"""Planted signals: what the `planted` scenarios hide in the bars, how much of it, and how it is read back.

Each is noise of one sigma, without gaps, but for one signal that bars tell about the next one. How much the signal moves returns
follows from `strength`: the yearly Sharpe ratio, net of costs, of the best possible account of one symbol, long or flat, that pays
`REFERENCE_COST` a side. It is found without simulating, from the signal's Markov chain. So a daily and an hourly market of one
strength are equally hard, an account of n symbols can earn about the root of n times as much, and strength 0 is a fair game. For
scale: signs that repeat in 65 % of cases, at 18 % volatility, are a strength of 4.2 hourly and 2.4 daily.

What carries a signal is visible in the standard features of the bar that tells it: the sign of a return (`log_return_1`, `body`),
the place of the close between low and high (`close_location`), the length of the bar (`range`), or its volume (`volume_ratio_20`).
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.signal import lfilter

from ploutos.errors import ConfigError
from ploutos.market import calendar as calendars
from ploutos.market.synthetic.factor import stream
from ploutos.market.synthetic.optimum import SignalChain, autoregression, optimal_targets, sharpe_of_rule, signal_chain
from ploutos.market.synthetic.scenarios import Scenario
from ploutos.types import FloatArray, IntArray

REFERENCE_COST = 5e-4
"""Cost of a fill per side on which strength is defined: the environment's default, 5 basis points."""
MEAN_SIZE = float(np.sqrt(2 / np.pi))
"""Mean absolute value of a standard normal."""
LAG = 8
"""Bars from a cue of `planted_lagged` to the bar that follows it."""
PERSISTENCE = 0.95
"""Correlation of a slow signal with its value one bar later; half of it is gone after 13.5 bars."""
COMMON_VARIANCE = 3.0
"""Variance of the part of a cue of `planted_cross` that all symbols share and that tells nothing; the telling part has 1."""
REGIME_STAY = 1 - 1 / 60
"""Chance per bar that a regime of `planted_regime` goes on."""
LOCATION = 0.2
"""Close location per standard deviation of a signal, which is cut at `CUT` of them."""
CUT = 3.0
LENGTH, LONG = 2.5, 2.0
"""Shortest bar that carries a signal, in sigmas, and how much longer bars are where a signal means its opposite."""
VOLUME_CUE, VOLUME_NOISE = 0.5, 0.1
"""Log volume of a cue, up or down, and the deviation of what is noise in it."""
_GRID = np.linspace(-CUT, CUT, 121)
_STRONGEST = 0.95


@dataclass(frozen=True)
class Pace:
    """How fast a symbol's clock goes: bars and sessions of a year, and the deviation of a bar's return."""

    sigma: float
    bars_per_session: float
    sessions_per_year: float


def pace_of(calendar: str, bar: pd.Timedelta, annual_volatility: float) -> Pace:
    """The pace of bars on a calendar, by its year 2024."""
    stamps = calendars.expected_bars(calendar, bar, date(2024, 1, 1), date(2024, 12, 31))
    n_sessions = len(np.unique(calendars.sessions(stamps, bar, calendar)))
    return Pace(annual_volatility / len(stamps) ** 0.5, len(stamps) / n_sessions, float(n_sessions))


# --- how much of it


def chain_of(scenario: Scenario, amplitude: float, sigma: float) -> SignalChain:
    """The Markov chain of a scenario's signal.

    Args:
        amplitude: correlation of the signal with the next return; of the sign with the next sign for `planted`.
        sigma: deviation of a bar's return.
    """
    if scenario == "planted":
        signs, stay = np.array([-1.0, 1.0]), (1 + amplitude) / 2
        realised = sigma * MEAN_SIZE * np.tile(signs, (2, 1))
        return SignalChain(amplitude * sigma * MEAN_SIZE * signs, np.array([[stay, 1 - stay], [1 - stay, stay]]), realised)
    if scenario == "planted_lagged":
        return _lagged_chain(amplitude * sigma)
    moves = autoregression(_GRID, PERSISTENCE)
    if scenario == "planted_regime":
        moves = REGIME_STAY * moves + (1 - REGIME_STAY) * moves[:, ::-1]
    return signal_chain(amplitude * sigma * _GRID, moves)


def _lagged_chain(worth: float) -> SignalChain:
    """States are the last `LAG` cues as bits, the newest lowest; the oldest one is followed by the next bar."""
    states = np.arange(2**LAG)
    transition = np.zeros((len(states), len(states)))
    for newest in (0, 1):
        transition[states, (2 * states + newest) % len(states)] = 0.5
    return signal_chain(worth * np.where(states >= len(states) // 2, 1.0, -1.0), transition)


@lru_cache(maxsize=256)
def amplitude_of(scenario: Scenario, strength: float, pace: Pace) -> float:
    """The amplitude that gives the oracle a yearly Sharpe ratio, net of `REFERENCE_COST` a side, long or flat.

    Raises:
        ConfigError: not even the strongest signal earns so much at this pace.
    """
    if strength == 0:
        return 0.0
    most = _reference_sharpe(scenario, _STRONGEST, pace)
    if strength >= most:
        raise ConfigError(
            f"data.synthetic.strength is {strength:g}; the oracle of {scenario} can earn a Sharpe ratio of "
            f"{most:.1f} at most on such bars; lower it, or choose longer bars"
        )
    return float(brentq(lambda amplitude: _reference_sharpe(scenario, amplitude, pace) - strength, 0.0, _STRONGEST, xtol=1e-7))


def _reference_sharpe(scenario: Scenario, amplitude: float, pace: Pace) -> float:
    chain, positions = chain_of(scenario, amplitude, pace.sigma), np.array([0.0, 1.0])
    targets = optimal_targets(chain, positions, REFERENCE_COST, pace.sigma**2)
    return sharpe_of_rule(chain, targets, positions, REFERENCE_COST, pace.sigma, pace.bars_per_session, pace.sessions_per_year)


# --- where it is


@dataclass(frozen=True)
class Cues:
    """What the bars of one symbol carry; every array has shape (n_bars,).

    Attributes:
        signal: what each bar tells about the next one, of variance 1.
        location: of the close, from -1 at the low to 1 at the high; None leaves the bar its natural shape.
        length: of the bar, in units of the shortest that carries a signal.
        volume: what is added to log volume; None leaves volume natural.
    """

    signal: FloatArray
    location: FloatArray | None = None
    length: FloatArray | None = None
    volume: FloatArray | None = None


def plant_cues(scenario: Scenario, seed: int, names: list[str], n_bars: int) -> list[Cues]:
    """Draw what the bars of some symbols on one clock carry; every symbol has streams of its own.

    Args:
        names: symbols; of `planted_cross` all that there are, for each is told against the others.
    """
    if scenario == "planted_cross":
        common = _slow(seed, "planted common", n_bars)
        mixed = [(_slow(seed, name, n_bars) + np.sqrt(COMMON_VARIANCE) * common) / np.sqrt(1 + COMMON_VARIANCE) for name in names]
        cut = np.clip(np.stack(mixed, axis=1), -CUT, CUT)
        return [Cues(signal, LOCATION * cue, np.ones(n_bars)) for signal, cue in zip(relative(cut).T, cut.T, strict=True)]
    return [_own_cues(scenario, seed, name, n_bars) for name in names]


def _own_cues(scenario: Scenario, seed: int, name: str, n_bars: int) -> Cues:
    if scenario == "planted_lagged":
        cues = np.where(stream(seed, name, 2).random(n_bars) < 0.5, -1.0, 1.0)
        return Cues(_lagged(cues), volume=VOLUME_CUE * cues + VOLUME_NOISE * stream(seed, name, 6).standard_normal(n_bars))
    slow = np.clip(_slow(seed, name, n_bars), -CUT, CUT)
    turned = np.cumsum(stream(seed, name, 3).random(n_bars) >= REGIME_STAY) % 2 if scenario == "planted_regime" else np.zeros(n_bars)
    return Cues(slow * np.where(turned, -1.0, 1.0), LOCATION * slow, np.where(turned, LONG, 1.0))


def _slow(seed: int, name: str, n_bars: int) -> FloatArray:
    """A standard normal AR(1) from its stationary distribution on."""
    shocks = stream(seed, name, 2).standard_normal(n_bars)
    shocks[1:] *= np.sqrt(1 - PERSISTENCE**2)
    return np.asarray(lfilter([1.0], [1.0, -PERSISTENCE], shocks))


def _lagged(cues: FloatArray) -> FloatArray:
    """The cue that the next bar follows, 0 before there is one."""
    return np.r_[np.zeros(min(LAG - 1, len(cues))), cues[: max(len(cues) - LAG + 1, 0)]]


def relative(cues: FloatArray) -> FloatArray:
    """Cues of `planted_cross` against their mean over symbols, at variance 1.

    Args:
        cues: shape (n_bars, n_symbols), at least two symbols.
    """
    n = cues.shape[1]
    return np.asarray((cues - cues.mean(axis=1, keepdims=True)) * np.sqrt((1 + COMMON_VARIANCE) * n / (n - 1)))


def planted_signs(seed: int, name: str, n_bars: int, amplitude: float) -> FloatArray:
    """Signs of returns of `planted`: each is the last one's with chance (1 + amplitude) / 2; shape (n_bars,)."""
    turns = stream(seed, name, 2).random(n_bars) >= (1 + amplitude) / 2
    return np.where(np.cumsum(turns) % 2, -1.0, 1.0)


def shape_bars(open_: FloatArray, close: FloatArray, sigma: float, cues: Cues) -> tuple[FloatArray, FloatArray]:
    """Highs and lows that put the close where the cues say.

    Args:
        open_, close: shape (n_bars,), prices.
        sigma: deviation of a bar's return.

    Raises:
        ConfigError: a low would not be positive.
    """
    assert cues.location is not None
    assert cues.length is not None
    reach = _shortest(open_, close, cues.location, sigma) * cues.length
    high, low = close + reach * (1 - cues.location) / 2, close - reach * (1 + cues.location) / 2
    if (low <= 0).any():
        raise ConfigError(
            f"bars with a volatility of {sigma:.1%} are too volatile to carry a signal in their shape; "
            "lower data.synthetic.annual_volatility, "
            "or choose shorter bars"
        )
    return high, low


def _shortest(open_: FloatArray, close: FloatArray, location: FloatArray, sigma: float) -> FloatArray:
    """The shortest bar that holds open and close and has its close at a location."""
    rise = close - open_
    return np.maximum(LENGTH * sigma * close, 2 * np.maximum(-rise / (1 - location), rise / (1 + location)))


def read_states(
    scenario: Scenario, open_: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray, volume: FloatArray, sigma: float
) -> IntArray:
    """The state of the signal's chain after each bar, read from the bars alone.

    Args:
        open_, high, low, close, volume: shape (n_bars, n_symbols), consecutive bars.

    Returns:
        Shape (n_bars, n_symbols), places in the arrays of `chain_of`; -1 where nothing is known yet.
    """
    if scenario == "planted":
        return np.where(close == open_, -1, (close > open_).astype(np.int64))
    if scenario == "planted_lagged":
        return _read_lagged(volume)
    location = (2 * close - high - low) / (high - low)
    signal = location / LOCATION
    if scenario == "planted_cross":
        signal = relative(signal)
    if scenario == "planted_regime":
        turned = high - low > (1 + LONG) / 2 * _shortest(open_, close, location, sigma)
        signal = np.where(turned, -signal, signal)
    nearest = np.rint((signal - _GRID[0]) / (_GRID[1] - _GRID[0]))
    return np.asarray(np.clip(nearest, 0, len(_GRID) - 1), dtype=np.int64)


def _read_lagged(volume: FloatArray) -> IntArray:
    """The last `LAG` cues as bits; none before volume has been seen high and low, which is when its middle is known."""
    logs = np.log(np.maximum(volume, 1.0))
    highest, lowest = np.maximum.accumulate(logs), np.minimum.accumulate(logs)
    bits = np.where(highest - lowest > VOLUME_CUE, logs > (highest + lowest) / 2, -1).astype(np.int64)
    states = np.full(volume.shape, -1, dtype=np.int64)
    if len(bits) >= LAG:
        windows = np.lib.stride_tricks.sliding_window_view(bits, LAG, axis=0)
        states[LAG - 1 :] = np.where(windows.min(axis=-1) < 0, -1, windows @ (2 ** np.arange(LAG)[::-1]))
    return states
