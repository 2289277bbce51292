"""A seeded market that can be simulated anywhere: fat tails, clustered volatility, leverage, busy opens, overnight gaps.

One path goes on day and night in steps of half an hour; each symbol's bars are what its own exchange would have seen of it.
So a share gaps over night by what its future traded, ES, MES and SPY are one path at two levels, and daily bars are the
hourly ones put together. Intraday bars start on the clock of the exchange's zone: the NYSE's hourly bars start from 09:00
to 15:00, the first of them holding 09:30 to 10:00. A later `end` leaves an uneventful market's earlier bars as they were.

Left out: dividends, rolls, spreads, an order book. Volume follows absolute returns, but nothing reacts to an order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ploutos.errors import ConfigError, NoData
from ploutos.market import calendar as calendars
from ploutos.market.bars import FIELDS
from ploutos.market.instruments import InstrumentSpec
from ploutos.market.synthetic.factor import OWN, MarketPath, garch_returns, market_path, stream
from ploutos.market.synthetic.planted import Cues, Pace, amplitude_of, pace_of, plant_cues, planted_signs, shape_bars
from ploutos.market.synthetic.scenarios import (
    OF_ONE_SYMBOL,
    PLANTED,
    UNEVENTFUL,
    PlannedEvent,
    event_session,
    hit_bars,
    stage,
)
from ploutos.market.synthetic.spec import DAY, HALF_HOUR, SyntheticSpec
from ploutos.types import FloatArray, IntArray, TimeArray

JUMPS_PER_STEP = 0.00025
JUMP_MEAN, JUMP_SIGMA = -1.5, 3.0
"""A jump of one symbol, in sigmas of its half-hour."""
CRYPTO_PACE = 0.45
"""No half-hour of a coin's own part is quieter than this."""

PRICES = FIELDS[:4]
BETAS = {"SPY": 1.0, "QQQ": 1.2, "DIA": 0.92, "IWM": 1.15}
INDEX_OWN = 0.25
"""Sigma of an index's own part, in units of the factor's."""
FUTURE_LEVELS = {"SPY": 6_400.0, "QQQ": 24_000.0, "DIA": 44_000.0, "IWM": 2_200.0}
"""First price of the futures on these indices."""
VOLUMES = {"equity": 400_000.0, "future": 20_000.0, "crypto": 3_000.0}
"""Typical units traded in a half-hour of the NYSE's session."""


def simulate(spec: SyntheticSpec, instruments: Sequence[InstrumentSpec]) -> pd.DataFrame:
    """Bars of a simulated market.

    Each symbol has random streams of its own: more symbols leave the others as they were, but for `planted_cross`. The same spec
    gives the same bytes on one machine.

    Args:
        instruments: one or more; their calendars say when there are bars, their ticks how futures are rounded. Shares and
            coins have four decimals. A scenario of one symbol strikes the first.

    Returns:
        Long frame, sorted by symbol and time: symbol, timestamp (datetime64[us, UTC], bar starts; a daily bar carries its
        session's date), open, high, low, close, volume (float64).

    Raises:
        ConfigError: no instrument, a name twice, an unknown calendar, a span too short for the scenario, a strength that cannot be had
            on such bars, or `planted_cross` of symbols that do not trade together.
        NoData: a calendar has no session in the span.

    >>> from datetime import date
    >>> from ploutos.market.instruments import instrument
    >>> day = date(2024, 7, 3)  # closes at 13:00 in New York
    >>> frame = simulate(SyntheticSpec(start=day, end=day), [instrument("SPY")])
    >>> frame["timestamp"].dt.tz_convert("America/New_York").dt.hour.tolist()
    [9, 10, 11, 12]
    """
    _require_instruments(instruments)
    alone = spec.scenario == "noise" or spec.scenario in PLANTED
    cues = _cues(spec, instruments)
    market = None if alone else market_path(spec.start, spec.end, _step(spec), spec.scenario, spec.seed, spec.annual_volatility)
    planned = {event.symbol: event.at for event in planned_events(spec, instruments)}
    frames = []
    for instrument in sorted(instruments, key=lambda each: each.symbol):
        clock = _clock(spec, instrument)
        bars = (
            _bars_alone(spec, instrument, clock, cues.get(instrument.symbol)) if market is None else _bars(spec, instrument, clock, market)
        )
        if instrument.symbol in planned:
            bars = stage(spec.scenario, bars, np.isin(clock.stamps, planned[instrument.symbol]))
        frames.append(_rounded(bars, instrument))
    return pd.concat(frames, ignore_index=True)


def planned_events(spec: SyntheticSpec, instruments: Sequence[InstrumentSpec]) -> tuple[PlannedEvent, ...]:
    """Where the scenario of a spec shows in the bars that `simulate` would give, in the order of the instruments.

    Returns:
        One event per symbol that is hit; none where nothing is staged at one place (normal, calm, trend, noise, and all that are planted).

    Raises:
        ConfigError, NoData: as in `simulate`.
    """
    _require_instruments(instruments)
    if spec.scenario in UNEVENTFUL:
        return ()
    session = _event_session(spec)
    events = []
    for instrument in instruments[:1] if spec.scenario in OF_ONE_SYMBOL else instruments:
        clock = _clock(spec, instrument)
        hit = hit_bars(spec.scenario, session, clock.stamps, clock.sessions, spec.bar)
        events.append(PlannedEvent(instrument.symbol, spec.scenario, clock.stamps[hit]))
    return tuple(events)


def _require_instruments(instruments: Sequence[InstrumentSpec]) -> None:
    symbols = [instrument.symbol for instrument in instruments]
    if not symbols:
        raise ConfigError("the synthetic market was given no instruments; expected at least one; name some symbols")
    if twice := sorted({symbol for symbol in symbols if symbols.count(symbol) > 1}):
        raise ConfigError(f"the synthetic market was given {', '.join(twice)} more than once; expected each symbol once")


# --- clocks


@dataclass(frozen=True)
class _Clock:
    """A symbol's bars: starts (datetime64[us] UTC) and session dates (D)."""

    stamps: TimeArray
    sessions: TimeArray


def _clock(spec: SyntheticSpec, instrument: InstrumentSpec) -> _Clock:
    stamps = calendars.expected_bars(instrument.calendar, spec.bar, spec.start, spec.end)
    if not len(stamps):
        raise NoData(f"{instrument.calendar} has no session from {spec.start} to {spec.end}; {instrument.symbol} needs one; widen the span")
    return _Clock(stamps, calendars.sessions(stamps, spec.bar, instrument.calendar))


def _step(spec: SyntheticSpec) -> np.timedelta64:
    return min(spec.bar, HALF_HOUR).to_timedelta64().astype("timedelta64[us]")


def _traded_steps(spec: SyntheticSpec, instrument: InstrumentSpec, clock: _Clock) -> tuple[TimeArray, IntArray]:
    """Starts of the steps that an exchange is open in, and the position of each bar's first one."""
    step = pd.Timedelta(_step(spec))
    steps = calendars.expected_bars(instrument.calendar, step, spec.start, spec.end)
    if spec.bar == DAY:
        sessions = calendars.sessions(steps, step, instrument.calendar)
        return steps, np.searchsorted(sessions, clock.sessions)
    return steps, np.searchsorted(steps, clock.stamps)


# --- the bars of one symbol


@dataclass(frozen=True)
class _Traits:
    """What sets a symbol apart: sigma of its own part against the factor's, first price, units in a typical half-hour."""

    beta: float
    own: float
    level: float
    volume: float


def _underlying(instrument: InstrumentSpec) -> str:
    """A future and its micro move with the fund on their index."""
    return instrument.alpaca_proxy or instrument.symbol


def _traits(seed: int, instrument: InstrumentSpec) -> _Traits:
    name, kind = _underlying(instrument), instrument.asset_class
    random = stream(seed, name)
    beta, own, coin, level, volume = (random.uniform(*span) for span in ((0.7, 1.4), (0.6, 1.3), (1.8, 2.6), (40, 400), (0.3, 3.0)))
    return _Traits(
        beta=BETAS.get(name, beta),
        own=INDEX_OWN if name in BETAS else coin if kind == "crypto" else own,
        level=FUTURE_LEVELS.get(name, 5_000.0) if kind == "future" else level,
        volume=VOLUMES[kind] * volume,
    )


def _bars(spec: SyntheticSpec, instrument: InstrumentSpec, clock: _Clock, market: MarketPath) -> pd.DataFrame:
    """Bars that the symbol's exchange sees of its path."""
    name, traits = _underlying(instrument), _traits(spec.seed, instrument)
    returns, sigma = _path(spec, instrument, traits, market)
    steps, firsts = _traded_steps(spec, instrument, clock)
    at = (steps - market.origin) // _step(spec)
    levels = np.r_[0.0, np.cumsum(returns)]
    high, low = _extremes(levels[at], levels[at + 1], sigma[at], stream(spec.seed, name, 5).random((len(sigma), 2))[at])
    busy = market.pace * _step(spec) / HALF_HOUR.to_timedelta64() * np.sqrt(sigma / (spec.annual_volatility * market.activity))
    moved = (0.3 + np.abs(returns) / sigma) ** 0.25
    volume = traits.volume * busy * moved * np.exp(stream(spec.seed, name, 6).normal(0, 0.5, len(sigma)))
    lasts = np.r_[firsts[1:], len(steps)] - 1
    logs = {
        "open": levels[at[firsts]],
        "high": np.maximum.reduceat(high, firsts),
        "low": np.minimum.reduceat(low, firsts),
        "close": levels[at[lasts] + 1],
    }
    return _frame(clock, {key: traits.level * np.exp(value) for key, value in logs.items()}, np.add.reduceat(volume[at], firsts))


def _path(spec: SyntheticSpec, instrument: InstrumentSpec, traits: _Traits, market: MarketPath) -> tuple[FloatArray, FloatArray]:
    """Log returns of each step and their conditional sigma, each of shape (n_steps,)."""
    name = _underlying(instrument)
    own, own_sigma = garch_returns(spec.seed, name, OWN, market.pace, market.hours)
    floor = CRYPTO_PACE if instrument.asset_class == "crypto" else 0.0
    own_part = traits.own * np.maximum(1.0, floor / market.pace)
    unit = spec.annual_volatility * market.activity * market.volatility
    sigma = unit * np.hypot(traits.beta * market.factor_sigma, own_part * own_sigma)
    returns = unit * (traits.beta * market.factor + own_part * own)
    if spec.scenario != "calm":
        jumps = stream(spec.seed, name, 3).random(len(unit)) < JUMPS_PER_STEP * (_step(spec) / HALF_HOUR.to_timedelta64())
        returns = returns + jumps * unit * stream(spec.seed, name, 4).normal(JUMP_MEAN, JUMP_SIGMA, len(unit))
    return returns + traits.beta * market.drift * market.activity**2 + market.staged, sigma


def _pace(spec: SyntheticSpec, instrument: InstrumentSpec) -> Pace:
    return pace_of(instrument.calendar, spec.bar, spec.annual_volatility)


def _cues(spec: SyntheticSpec, instruments: Sequence[InstrumentSpec]) -> dict[str, Cues]:
    """What the bars of each symbol carry, where the scenario plants something beside the signs of returns."""
    if spec.scenario not in PLANTED or spec.scenario == "planted":
        return {}
    clocks = [_clock(spec, instrument).stamps for instrument in instruments]
    names = [_underlying(instrument) for instrument in instruments]
    if spec.scenario != "planted_cross":
        planted = [plant_cues(spec.scenario, spec.seed, [name], len(clock))[0] for name, clock in zip(names, clocks, strict=True)]
        return {each.symbol: cues for each, cues in zip(instruments, planted, strict=True)}
    if len(set(names)) < 2 or not all(np.array_equal(clock, clocks[0]) for clock in clocks):
        raise ConfigError(
            f"planted_cross got {', '.join(each.symbol for each in instruments)}; expected two markets or more whose bars start together: "
            "name more symbols of one calendar"
        )
    return dict(zip((each.symbol for each in instruments), plant_cues(spec.scenario, spec.seed, names, len(clocks[0])), strict=True))


def _bars_alone(spec: SyntheticSpec, instrument: InstrumentSpec, clock: _Clock, cues: Cues | None) -> pd.DataFrame:
    """Bars of `noise` or of a planted signal: normal returns of one sigma, without gaps, on the symbol's own clock."""
    name, traits, n_bars = _underlying(instrument), _traits(spec.seed, instrument), len(clock.stamps)
    pace = _pace(spec, instrument)
    sigma, returns = pace.sigma, pace.sigma * stream(spec.seed, name, 1).standard_normal(n_bars)
    amplitude = amplitude_of(spec.scenario, spec.strength, pace) if spec.scenario in PLANTED else 0.0
    if spec.scenario == "planted":
        returns = np.abs(returns) * planted_signs(spec.seed, name, n_bars, amplitude)
    if cues is not None:
        returns = np.sqrt(1 - amplitude**2) * returns + amplitude * sigma * np.r_[0.0, cues.signal[:-1]]
    levels = np.r_[0.0, np.cumsum(returns - sigma**2 / 2)]  # so that the price itself, not its logarithm, has no drift
    start, end = levels[:-1], levels[1:]
    high, low = _extremes(start, end, np.full(n_bars, sigma), stream(spec.seed, name, 5).random((n_bars, 2)))
    prices = {key: traits.level * np.exp(value) for key, value in {"open": start, "high": high, "low": low, "close": end}.items()}
    if cues is not None and cues.location is not None:
        prices["high"], prices["low"] = shape_bars(prices["open"], prices["close"], sigma, cues)
    busy = stream(spec.seed, name, 6).normal(0, 0.5, n_bars) if cues is None or cues.volume is None else cues.volume
    return _frame(clock, prices, traits.volume * np.exp(busy))


def _extremes(start: FloatArray, end: FloatArray, sigma: FloatArray, draws: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Highest and lowest point of Brownian bridges, each drawn from its exact distribution, the two as if independent.

    Args:
        draws: shape (n, 2), uniform.
    """
    reach = np.sqrt((end - start)[:, None] ** 2 - 2 * sigma[:, None] ** 2 * np.log1p(-draws))
    return (start + end + reach[:, 0]) / 2, (start + end - reach[:, 1]) / 2


def _frame(clock: _Clock, prices: dict[str, FloatArray], volume: FloatArray) -> pd.DataFrame:
    timestamps = pd.DatetimeIndex(clock.stamps).tz_localize("UTC")
    return pd.DataFrame({"timestamp": timestamps, **prices, "volume": volume})


def _rounded(bars: pd.DataFrame, instrument: InstrumentSpec) -> pd.DataFrame:
    """Prices as they are quoted, with the symbol before them."""
    tick = instrument.tick_size if instrument.asset_class == "future" else 1e-4
    quoted = bars.assign(symbol=instrument.symbol, volume=bars["volume"].round())
    quoted[list(PRICES)] = (np.maximum(np.rint(bars[list(PRICES)] / tick), 1) * tick).round(10)
    return quoted[["symbol", "timestamp", *FIELDS]]


def _event_session(spec: SyntheticSpec) -> np.datetime64:
    return event_session(spec.scenario, spec.start, spec.end, spec.seed)
