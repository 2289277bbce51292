"""From a source to checked bars on one clock: read, tell what the symbols are, check, adjust, time, cut, align.

A run reads this machine only. What a vendor has is brought here first, by `ploutos data build`, into the local dataset. A run and
`ploutos data check` both come through here, so that neither accepts what the other refuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from ploutos.errors import ConfigError, DataError
from ploutos.market import calendar as calendars
from ploutos.market.adjustment import adjust
from ploutos.market.bars import MAX_SYMBOLS, Bars, align, find_change
from ploutos.market.calendar import DAY
from ploutos.market.clock import Timed, drop_unfinished, put_on_clock, show_timeframe
from ploutos.market.data_spec import (
    SYNTHETIC_SYMBOLS,
    VENDOR_TIMEFRAME,
    DataSpec,
    asked_instruments,
    select_symbols,
    served_by,
    substitutes,
    vendor_name,
    vendor_symbols,
)
from ploutos.market.dataset import Dataset
from ploutos.market.instruments import FUTURES, AssetClass, InstrumentSpec, plain_name
from ploutos.market.quality import ENDS_EARLY_SESSIONS, check_bars, inspect_adjustment
from ploutos.market.rolls import back_adjust, find_rolls
from ploutos.market.sources import files, sample
from ploutos.market.synthetic.spec import SyntheticSpec
from ploutos.settings import Settings
from ploutos.store import digest_of, file_sha256
from ploutos.wording import plural

_YEAR_TOLERANCE = 0.03
"""How far the sessions of the bars may differ from the calendar's, as a share of either."""
_FEW = 3
"""Sessions that never count as a difference."""
_WEEKEND, _TELLING = 0.1, 14
"""Share of Saturdays, and of Sundays, above which bars trade round the clock, and the days it takes to tell where days are missing."""
_LIKELY = ("NYSE", "CME Globex Equity", "FX", "24/7", "LSE", "XETR", "JPX", "HKEX", "SSE", "TSX", "ASX")


@dataclass(frozen=True)
class SourceTable:
    """What a source holds, before it is checked.

    Attributes:
        frame: symbol, timestamp (datetime64[us, UTC]), OHLCV, perhaps adj_close and date.
        origin: the source's name for people.
        zone: zone of its timestamps, in words.
        notes: what a reader of a report must know of it.
    """

    frame: pd.DataFrame
    origin: str
    zone: str = "UTC"
    notes: tuple[str, ...] = ()


def read_table(spec: DataSpec, datasets: Path | None = None) -> SourceTable:
    """The long frame of a source with the requested symbols, unchecked.

    Raises:
        DataError: there is nothing to read, or a file cannot be read.
        ConfigError: the spec contradicts itself, or asks for more symbols than the environment holds.
    """
    _require_room(len(spec.symbols))
    if (unread := spec.unread) is not None:
        raise ConfigError(unread)
    table = _read_source(spec, datasets)
    frame = select_symbols(table.frame, spec, table.origin)
    if "adj_close" in frame.columns and spec.adjustment == "raw":
        frame = frame.drop(columns="adj_close")
    return replace(table, frame=frame)


def _require_room(n_symbols: int) -> None:
    if n_symbols > MAX_SYMBOLS:
        raise ConfigError(f"found {n_symbols} symbols; a run holds {MAX_SYMBOLS} at most; name fewer with data.symbols")


def _read_source(spec: DataSpec, datasets: Path | None) -> SourceTable:
    if spec.source == "sample":
        return SourceTable(sample.read(), sample.NAME, "dates without a time")
    if spec.source == "synthetic":
        return _simulated(spec)
    if spec.source == "files":
        path = _require_path(spec)
        if not spec.symbols and len(files.find(path)) > MAX_SYMBOLS:
            _require_room(len(files.symbols_of(path, spec.format) or ()))
        wanted = [each.symbol for each in asked_instruments(spec)]
        found = files.read(
            path, wanted=wanted, timezone=spec.timezone, ambiguous=spec.ambiguous, format=spec.format,
            adjusted=spec.adjustment == "total_return",
        )  # fmt: skip
        return SourceTable(found.frame, f"files: {path.name}", found.zone, found.notes)
    return _from_dataset(spec, datasets)


def _simulated(spec: DataSpec) -> SourceTable:
    from ploutos.market.synthetic.simulate import simulate  # loads numba and scipy, which no other source needs

    chosen = synthetic_spec(spec)
    frame = simulate(chosen, [served_by(spec, symbol) for symbol in spec.symbols or SYNTHETIC_SYMBOLS])
    return SourceTable(frame, f"synthetic: {chosen.scenario}, {chosen.timeframe}, seed {chosen.seed}")


def synthetic_spec(spec: DataSpec) -> SyntheticSpec:
    """The simulation's own settings under those of the data; a simulation is made over its own span, then cut."""
    given = {"timeframe": None if spec.bar is None else spec.timeframe, "start": spec.start, "end": spec.end}
    merged = spec.synthetic.model_dump() | {name: value for name, value in given.items() if value is not None}
    try:
        return SyntheticSpec.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(str(error.errors()[0]["ctx"]["error"])) from error


def _from_dataset(spec: DataSpec, datasets: Path | None) -> SourceTable:
    names = vendor_symbols(spec)
    frame = _dataset(spec, datasets).read(vendor_name(spec), spec.adjustment, spec.bar or VENDOR_TIMEFRAME, list(names))
    frame["symbol"] = frame["symbol"].map(names)
    stand_ins = "".join(f"; {served} stands in for {symbol}" for symbol, served in substitutes(spec).items())
    return SourceTable(frame, f"{vendor_name(spec)}, {spec.adjustment.replace('_', ' ')}{stand_ins}")


def _dataset(spec: DataSpec, datasets: Path | None) -> Dataset:
    if datasets is None or not spec.symbols:
        raise ConfigError(f"source {spec.source} reads symbols that ploutos data build downloaded; name them, such as --market SPY,QQQ")
    return Dataset(datasets)


def _require_path(spec: DataSpec) -> Path:
    if spec.path is None:
        raise ConfigError("source files needs a path; add --path FOLDER or --set data.path=FOLDER")
    return spec.path


# --- what the symbols are


def _instruments(frame: pd.DataFrame, spec: DataSpec) -> list[InstrumentSpec]:
    """What every symbol of a table is: as told, by its name, or by the days it trades on."""
    found = asked_instruments(spec) or [served_by(spec, str(symbol)) for symbol in frame["symbol"].dropna().unique()]
    told = {each.symbol for each in spec.instruments}
    if spec.asset_class is None and spec.source == "files":
        shares = [each for each in found if each.asset_class == "equity" and each.symbol not in told]
        _require_no_bare_root(frame, found, [each.symbol for each in shares], told)
        own = dict(iter(frame.groupby("symbol", sort=False)["timestamp"]))
        for each in shares:
            if _trades_at_weekends(own[each.symbol]):
                found[found.index(each)] = InstrumentSpec(symbol=each.symbol, asset_class="crypto", calendar="24/7")
            else:
                _require_nights(each.symbol, own[each.symbol])
    return found


def _trades_at_weekends(stamps: pd.Series) -> bool:
    """Whether Saturdays and Sundays are as frequent as other days; longer bars than days have dates that tell nothing."""
    days = pd.DatetimeIndex(stamps.dt.tz_localize(None).dt.normalize().dropna().unique())
    if len(days) < 2 or np.median(np.diff(days)) >= 2 * DAY.to_timedelta64():
        return False
    shares = np.bincount(days.day_of_week, minlength=7) / len(days)
    every_day = days[-1] - days[0] == (len(days) - 1) * DAY
    return bool(min(shares[5:]) > (0 if every_day else _WEEKEND)) and (every_day or len(days) >= _TELLING)


def _require_nights(symbol: str, stamps: pd.Series) -> None:
    """Refuse the name of a share where bars fill all hours of the day and there is no weekend to tell coins from currencies.

    Raises:
        ConfigError: it cannot be told what trades.
    """
    days = pd.DatetimeIndex(stamps.dt.normalize().dropna().unique())
    if len(days) and stamps.dt.hour.nunique() == 24 and days[-1] - days[0] < 5 * DAY and days.day_of_week.max() < 5:
        raise ConfigError(
            f"{symbol} has bars in all 24 hours of the day, which no share has, and spans no weekend that would set coins apart from "
            "currencies; expected a longer file or an unambiguous name; set data.asset_class=crypto, fx, future or equity"
        )


def _require_no_bare_root(frame: pd.DataFrame, found: list[InstrumentSpec], shares: list[str], told: set[str]) -> None:
    """Refuse a name that a share and a future have in common where the company it keeps, or its own hours, are those of a share.

    Raises:
        ConfigError: it cannot be told which is meant.
    """
    for each in found:
        if plain_name(each.symbol) not in FUTURES or each.symbol in told:
            continue
        meant = f"set data.asset_class=equity if it is a share, or name the future {each.symbol}=F or set data.asset_class=future"
        if shares:
            others = ", ".join(shares[:3]) + (" ..." if len(shares) > 3 else "")
            raise ConfigError(f"{each.symbol} is the name of a future and stands beside shares ({others}); {meant}")
        stamps = frame.loc[frame["symbol"] == each.symbol, "timestamp"]
        if _keeps_the_hours_of_shares(stamps, each.calendar):
            hours = f"its bars keep the hours of the NYSE, not of {each.calendar}"
            raise ConfigError(f"{each.symbol} is the name of a future and {hours}; {meant}")


def _keeps_the_hours_of_shares(stamps: pd.Series, calendar: str) -> bool:
    """Whether bars follow the sessions of the NYSE alone over a span in which the future's exchange held others, or its nights."""
    naive = stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    hours = stamps.dt.tz_convert("America/New_York").dt.hour
    if hours.nunique() > 2:  # intraday
        return not ((hours < 4) | (hours >= 20)).any()
    days = np.unique(naive.astype("datetime64[D]"))
    around = [calendars.sessions_around(naive[0], naive[-1], name).dates for name in ("NYSE", calendar)]
    nyse, own = (dates[(dates >= days[0]) & (dates <= days[-1])] for dates in around)
    return len(np.setdiff1d(own, nyse)) >= _FEW and len(np.setdiff1d(days, nyse)) == 0


def _calendar(instruments: Sequence[InstrumentSpec], spec: DataSpec) -> str:
    """The one calendar of all symbols: that of futures, coins and rates follows from what they are, that of shares may be set.

    Raises:
        ConfigError: there are several, or the one that is set is not that of a future, a coin or an exchange rate.
    """
    told = {each.symbol for each in spec.instruments}
    bound = [each for each in instruments if each.asset_class != "equity" or each.symbol in told]
    if not bound and spec.calendar != "auto":
        if spec.source == "files" and spec.asset_class is None and (kind := _class_of(spec.calendar)) != "equity":
            raise ConfigError(
                f"{instruments[0].symbol} is taken as a share by its name, and data.calendar is {spec.calendar}, that of {_plural(kind)}; "
                f"{_remedy(kind)}, or set data.asset_class=equity to trade it as a share anyway"
            )
        return spec.calendar
    own = {each.calendar: each for each in instruments}
    if len(own) > 1:
        words = " and ".join(f"{each.symbol} trades on {name}" for name, each in sorted(own.items()))
        raise ConfigError(
            f"{words}; expected one calendar for all symbols; run them separately, or say what they are with data.asset_class"
        )
    ((calendar, one),) = own.items()
    if spec.calendar not in ("auto", calendar):
        raise ConfigError(
            f"{one.symbol} is {_a(one.asset_class)} and trades on {calendar}, and data.calendar is {spec.calendar}; leave data.calendar "
            "out, or say what it is with data.asset_class"
        )
    return calendar


def _class_of(calendar: str) -> AssetClass:
    """What trades on a calendar."""
    if calendar in ("FX", "24/7"):
        return "fx" if calendar == "FX" else "crypto"
    return "future" if calendar.startswith(("CME", "CBOT", "COMEX", "NYMEX", "ICE", "CFE", "us_futures")) else "equity"


def _plural(asset_class: AssetClass) -> str:
    return {"future": "futures", "crypto": "coins", "fx": "exchange rates", "equity": "shares"}[asset_class]


def _remedy(asset_class: AssetClass) -> str:
    """How to say that a symbol is of another class than its name says; of a future the contract must be known, too."""
    if asset_class == "future":
        return "name the future as NQ, NQ=F or NQH24, or give its contract in data.instruments"
    return f"set data.asset_class={asset_class}"


def _a(asset_class: str) -> str:
    return {"future": "a future", "crypto": "crypto", "fx": "an exchange rate", "equity": "a share"}[asset_class]


def _require_one_currency(instruments: Sequence[InstrumentSpec]) -> None:
    by_currency = {each.currency: each.symbol for each in instruments}
    if len(by_currency) > 1:
        words = " and ".join(f"{symbol} in {currency}" for currency, symbol in by_currency.items())
        raise ConfigError(
            f"prices are {words}; expected one currency, since one account holds one; run them separately or convert the prices"
        )


# --- loading


def load(spec: DataSpec, datasets: Path | None = None, now: pd.Timestamp | None = None) -> Bars:
    """Read, check, adjust, time and align the bars of a source.

    Args:
        datasets: root of the local dataset, for the vendors' sources.
        now: time by which a bar must be over, UTC; the present where it is left out. A simulation has no present.

    Raises:
        DataError: the bars cannot be used; the message says which and why.
        ConfigError: the spec contradicts itself, or the bars.
    """
    return load_table(read_table(spec, datasets), spec, now)


def load_bars(source: DataSpec | Path | str | None = None) -> Bars:
    """The bars of a source, for a notebook: what a run with the same settings reads.

    Args:
        source: a file or a folder of files, or all settings; the bars that ship with ploutos where it is left out.

    Raises:
        DataError, ConfigError: as `load`.

    Examples:
        >>> load_bars().symbols
        ('AAPL', 'FB', 'GOOG', 'IBM', 'MSFT')
    """
    if source is None:
        source = DataSpec()
    elif not isinstance(source, DataSpec):
        source = DataSpec(source="files", path=Path(source))
    return load(source, Settings().datasets_root)


def load_table(table: SourceTable, spec: DataSpec, now: pd.Timestamp | None = None) -> Bars:
    """What `load` does after reading."""
    frame, origin = table.frame, table.origin
    if frame.empty:
        raise DataError(f"{origin} holds no bars; expected at least two of each symbol")
    instruments = _instruments(frame, spec)
    _require_room(len(instruments))
    calendar = _calendar(instruments, spec)
    _require_one_currency(instruments)
    check_bars(frame, origin, instruments, calendar)
    raw, notes = frame, list(table.notes)
    if "adj_close" in frame.columns:
        frame = adjust(frame, origin)
        check_bars(frame, origin, instruments, calendar)
        notes += _adjustment_notes(frame)
    _require_one_length(frame)
    timed = put_on_clock(frame, calendar, spec.bar, spec.label)
    notes += timed.notes
    notes += _left_out(timed, [each.symbol for each in instruments], origin)
    frame, rolled = _without_rolls(timed.frame, instruments, calendar, spec)
    notes += rolled
    if spec.source != "synthetic":
        frame, unfinished = drop_unfinished(frame, now or pd.Timestamp.now("UTC"))
        notes += unfinished
    if frame.empty:
        raise DataError(f"{origin} has no finished bar; expected at least two of each symbol; wait for them, or give more bars")
    frame = _between(frame, spec, timed.timeframe, calendar, origin)
    bars = align(frame, timed.timeframe, calendar, origin, instruments, zone=table.zone, label=timed.label)
    _require_year(bars)
    payouts, ended = _payouts(bars, spec, raw)
    return replace(bars, payouts=payouts, notes=(*notes, *ended))


def _adjustment_notes(frame: pd.DataFrame) -> list[str]:
    """What looks wrong with adjusted prices.

    Raises:
        DataError: it is wrong.
    """
    found = inspect_adjustment(frame)
    for finding in found:
        if finding.severity == "error":
            raise DataError(finding.sentence)
    return [finding.sentence for finding in found]


def _require_one_length(frame: pd.DataFrame) -> None:
    """Refuse a series whose bars change their length: at the shorter one, the longer bars would be known before they end.

    Raises:
        DataError: one does.
    """
    for symbol, stamps in frame.groupby("symbol", sort=False)["timestamp"]:
        if (change := find_change(stamps)) is not None:
            at, before, after = change
            raise DataError(
                f"{symbol} has bars of {show_timeframe(before)} before {at:%Y-%m-%d %H:%MZ} and of {show_timeframe(after)} from there; "
                f"expected one length; remove the bars before or after it, or make all of them {show_timeframe(max(before, after))}"
            )


def _left_out(timed: Timed, symbols: Sequence[str], origin: str) -> list[str]:
    """A sentence about how many incomplete bars of each symbol resampling left out.

    Raises:
        DataError: it left nothing of a symbol.
    """
    frame, name = timed.frame, show_timeframe(timed.timeframe)
    if empty := sorted(set(symbols) - set(frame["symbol"].astype(str))):
        others = ", or name the other symbols with data.symbols" if len(empty) < len(symbols) else ""
        raise DataError(
            f"{origin} has no complete bar of {name} of {', '.join(empty)}; expected at least one of each symbol; give more bars, or set a "
            f"shorter data.timeframe{others}"
        )
    counts = ", ".join(f"{count:,} of {symbol}" for symbol, count in sorted(frame.attrs.get("left_out", {}).items()))
    return [f"Incomplete bars of {name} left out: {counts}."] if counts else []


def _without_rolls(
    frame: pd.DataFrame, instruments: Sequence[InstrumentSpec], calendar: str, spec: DataSpec
) -> tuple[pd.DataFrame, list[str]]:
    """Remove the gaps at rolls that were asked to be removed, and say which series is traded."""
    futures = [each for each in instruments if each.asset_class == "future"]
    if not futures:
        if spec.rolls not in ("keep", "detected"):
            raise ConfigError("data.rolls names dates and no symbol is a future; expected futures; leave data.rolls out")
        return frame, []
    parts, notes = {str(symbol): rows for symbol, rows in frame.groupby("symbol", sort=False)}, []
    for each in futures:
        rows, dates = parts[each.symbol], () if isinstance(spec.rolls, str) else spec.rolls
        if spec.rolls == "keep":
            notes.append(f"{each.symbol} is traded as the source gives it: gaps at rolls, if any, count as gains and losses.")
            continue
        if spec.rolls == "detected":
            dates = find_rolls(rows, each, calendar).dates
        parts[each.symbol] = back_adjust(rows, dates, calendar)
        notes.append(
            f"{each.symbol} is back-adjusted by ratio at {plural(len(dates), 'roll')}"
            f"{' that stand out' if spec.rolls == 'detected' else ''}: the gaps at those opens count as neither gains nor losses."
        )
    return pd.concat(parts.values(), ignore_index=True), notes


def _between(frame: pd.DataFrame, spec: DataSpec, timeframe: pd.Timedelta, calendar: str, origin: str) -> pd.DataFrame:
    """The bars of the sessions from `data.start` to `data.end`.

    Raises:
        DataError: none lies between them.
    """
    if spec.start is None and spec.end is None:
        return frame
    stamps, inverse = np.unique(frame["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[us]"), return_inverse=True)
    days = calendars.sessions(stamps, timeframe, calendar)[inverse]
    keep = np.ones(len(frame), dtype=bool)
    if spec.start is not None:
        keep &= days >= np.datetime64(spec.start)
    if spec.end is not None:
        keep &= days <= np.datetime64(spec.end)
    if not keep.any():
        raise DataError(
            f"{origin} has no bars between {spec.start or 'its start'} and {spec.end or 'its end'}; it spans {days.min()} to {days.max()}"
        )
    return frame[keep].reset_index(drop=True)


def _require_year(bars: Bars) -> None:
    """Refuse bars whose year is not that of their calendar: every yearly figure would be wrong.

    Raises:
        DataError: more than three in a hundred sessions are missing or are not sessions of the calendar.
    """
    held = np.unique(bars.sessions)
    first, last = held[0].item(), held[-1].item()
    if bars.timeframe > DAY:
        starts = calendars.period_starts(calendars.sessions_around(held[0], held[-1], bars.calendar).dates, bars.timeframe)
        expected = np.unique(starts[(starts >= calendars.period_starts(held[:1], bars.timeframe)) & (starts <= held[-1])])
        held = np.unique(calendars.period_starts(held, bars.timeframe))
    else:
        expected = calendars.expected_bars(bars.calendar, DAY, first, last).astype("datetime64[D]")
    missing, foreign = len(np.setdiff1d(expected, held)), np.setdiff1d(held, expected)
    limit = max(_YEAR_TOLERANCE * max(len(expected), len(held)), _FEW)
    weekends = np.count_nonzero((foreign.astype("int64") + 3) % 7 >= 5) if bars.timeframe <= DAY else 0  # 1970-01-01 was a Thursday
    if missing <= limit and len(foreign) <= limit and weekends <= _YEAR_TOLERANCE * len(held):
        return
    per_year = bars.sessions_per_year
    period = "sessions" if bars.timeframe <= DAY else f"bars of {show_timeframe(bars.timeframe)}"
    found = f"{bars.source} has {per_year:.1f} {period} a year from {first} to {last}; {bars.calendar} lacks {len(foreign)} of them"
    raise DataError(f"{found} and holds {missing} more; {_what_fits(bars)}")


def _what_fits(bars: Bars) -> str:
    """What to do about bars on other days than their calendar's."""
    misfits = {name: _misfit(bars, name) for name in _LIKELY if name != bars.calendar} if bars.timeframe <= DAY else {}
    name = min(misfits, key=lambda each: misfits[each], default="")
    if not name or not np.isfinite(misfits[name]):
        return "expected the calendar's; set data.calendar to what the symbols trade on, fill the gaps, or cut them off with data.start"
    share = f"set data.calendar={name}, or data.asset_class=equity if the name is not that of a share"
    return f"the sessions are those of {name}; {share if (kind := _class_of(name)) == 'equity' else _remedy(kind)}"


def _misfit(bars: Bars, name: str) -> float:
    """Sessions in which bars differ from those of a calendar; infinite where they are too many, or bars keep other hours."""
    held = np.unique(calendars.sessions(bars.timestamps, bars.timeframe, name))
    days = calendars.expected_bars(name, DAY, held[0].item(), held[-1].item()).astype("datetime64[D]")
    differ = len(np.setxor1d(days, held))
    if differ > max(0.01 * len(held), _FEW) or (bars.timeframe < DAY and not _keeps_hours(bars, name)):
        return float("inf")
    return float(differ)


def _keeps_hours(bars: Bars, name: str) -> bool:
    """Whether most sessions begin and end, to within a bar, with those of a calendar, or with its extended hours."""
    sessions = calendars.sessions_around(bars.timestamps[0], bars.timestamps[-1], name)
    step = bars.timeframe.to_timedelta64()
    for opens, closes in filter(None, ((sessions.opens, sessions.closes), calendars.extended_hours(name, sessions))):
        at = np.searchsorted(closes, bars.timestamps, side="right")
        edges = np.flatnonzero(np.diff(at, prepend=-1, append=-1))
        first, last, of = bars.timestamps[edges[:-1]], bars.timestamps[edges[1:] - 1] + step, at[edges[:-1]]
        if np.mean((np.abs(first - opens[of]) < step) & (np.abs(last - closes[of]) < step)) > 0.5:
            return True
    return False


def _payouts(bars: Bars, spec: DataSpec, raw: pd.DataFrame) -> tuple[tuple[float, ...], list[str]]:
    """What a unit of every delisted symbol is paid out at, nan for the others, and the sentences about them.

    Raises:
        ConfigError: `data.delisting` names a symbol that trades to the end.
    """
    numbers = np.r_[0, np.cumsum(bars.sessions[1:] != bars.sessions[:-1])]
    last = bars.n_bars - 1 - bars.tradable[::-1].argmax(axis=0)
    ended = numbers[-1] - numbers[last] > ENDS_EARLY_SESSIONS
    prices, notes = np.full(bars.n_symbols, np.nan), []
    table = spec.delisting if isinstance(spec.delisting, dict) else {}
    if wrong := sorted(set(table) - {name for name, gone in zip(bars.symbols, ended, strict=True) if gone}):
        raise ConfigError(f"data.delisting names {', '.join(wrong)}, which trades to the end; expected symbols whose bars end earlier")
    for s in np.flatnonzero(ended):
        symbol, close = bars.symbols[s], float(bars.close[last[s], s])
        if symbol in table:  # what was paid is in the prices of the day; ours may be adjusted
            paid = raw.loc[raw["symbol"] == symbol, "close"].iloc[-1]
            prices[s] = table[symbol] * close / float(paid)
        else:
            prices[s] = 0.0 if spec.delisting == "zero" else close
        at = "its last close" if prices[s] == close else f"{prices[s]:g} a unit"
        notes.append(f"{symbol} ends on {bars.sessions[last[s]]}, before the others: taken as delisted and paid out at {at} one bar later.")
    return tuple(prices.tolist()) if ended.any() else (), notes


def fingerprint(spec: DataSpec, datasets: Path | None = None) -> list[str]:
    """Digests of what `load` would read; new content gives new digests.

    Raises:
        DataError, ConfigError: there is nothing to read.
    """
    if spec.source == "sample":
        with sample.open_file() as path:
            return [file_sha256(path)]
    if spec.source == "synthetic":
        return [digest_of(synthetic_spec(spec).model_dump(mode="json"))]
    if spec.source == "files":
        return files.digests(_require_path(spec))
    name, bar = vendor_name(spec), spec.bar or VENDOR_TIMEFRAME
    return [_dataset(spec, datasets).identity(name, spec.adjustment, bar, list(vendor_symbols(spec)))]
