"""Anybody's work under our own rules: does a feature read the future, do decisions survive costs and a delay, are returns more than luck?

A feature function is run on the bars as they are, then on bars whose future after some random bars is cut off, in another order, or
replaced. A row up to such a bar that changes was made of what came later. Every change of the future leaves the past's bytes alone, so a
causal function changes nothing but by rounding. A function that answers differently on the same bars cannot be audited and says so.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.evaluation.summary import Part
from ploutos.market.bars import FIELDS, Bars
from ploutos.seeding import generator
from ploutos.types import BoolArray, FloatArray
from ploutos.wording import plural

Function = Callable[[pd.DataFrame], Any]
"""Bars to features. Of one symbol: a frame of OHLCV by bar start, UTC. Of all: by bar start and symbol."""
Change = Literal["cut off", "put in another order", "replaced", "halved", "delisted"]
_SLACK, _SLACK_SINGLE = 1e-7, 1e-4
_EARLIEST, _LATEST = 0.4, 0.95


class Leak(Part):
    """A column that reads later bars."""

    column: str
    """Its name."""
    symbol: str
    """Where it was seen first."""
    bar: str
    """Start of a bar whose row changed, UTC; the last one that the changed future left alone."""
    change: Change
    """What had become of the future."""
    before: float | None
    """The value with the future as it was; None for nan."""
    after: float | None
    """The value with another future."""
    ahead: int
    """How many bars ahead some row reads, at least."""
    n_seen: int
    """How many of the changed futures showed it."""


class FeatureAudit(Part):
    """What an audit of a feature function found."""

    function: str
    """Its name."""
    n_bars: int
    """Bars it was run on."""
    symbols: tuple[str, ...]
    """Whose bars."""
    columns: tuple[str, ...]
    """That it returned."""
    n_futures: int
    """Changed futures."""
    leaks: tuple[Leak, ...]
    """One per column that reads the future."""


def load_function(where: str) -> Function:
    """The function that `FILE.py:function` names.

    Raises:
        DataError: there is no such file or function, or the file fails.
    """
    file, colon, name = where.rpartition(":")
    path = Path(file)
    if not colon or not path.is_file():
        raise DataError(f"{where} names no function; expected a file that exists and a name, as in features.py:my_features")
    spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} cannot be loaded; expected a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path} fails when it is loaded: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{path} has no function {name}; expected one that takes a frame of bars")
    return function


def audit_features(function: Function, bars: Bars, *, panel: bool = False, n_cuts: int = 8, seed: int = 0, name: str = "") -> FeatureAudit:
    """Look for columns that read the future.

    Args:
        function: gets a copy of the bars and returns a frame, a series or an array with a row per bar; a frame's rows are taken at their
            labels, each claimed to be known when the bar of that label ends.
        panel: it takes all symbols at once, by bar start and symbol, and answers so; else one symbol after the other.
        n_cuts: random bars after which the future is changed, per symbol or for all.

    Raises:
        DataError: the function fails, returns nothing usable, or is random.
    """
    names: list[str] = []
    leaks: dict[str, Leak] = {}
    n_futures = 0
    for symbol, frame, futures in _cases(bars, panel, n_cuts, seed):
        whole = _answer(function, frame, "the bars")
        names = list(dict.fromkeys([*names, *whole.columns]))
        _require_same_twice(whole, _answer(function, frame, "the bars"))
        for cut, change, other in futures:
            n_futures += 1
            again = _answer(function, other, f"bars whose future after bar {cut} was {change}")
            for leak in _changed(whole, again, frame, cut, change, symbol):
                known = leaks.get(leak.column)
                seen = leak if known is None else known
                leaks[leak.column] = seen.model_copy(
                    update={"ahead": max(seen.ahead, leak.ahead), "n_seen": seen.n_seen + (known is not None)}
                )
    return FeatureAudit(
        function=name or getattr(function, "__name__", "function"),
        n_bars=bars.n_bars,
        symbols=bars.symbols,
        columns=tuple(names),
        n_futures=n_futures,
        leaks=tuple(leaks[column] for column in names if column in leaks),
    )


def last_bars(bars: Bars, n: int) -> Bars:
    """The last bars of a panel; those before are as if they had never been."""
    if n >= bars.n_bars:
        return bars
    rows: dict[str, Any] = {name: getattr(bars, name)[-n:] for name in ("timestamps", "available_at", *FIELDS)}
    return replace(bars, **rows)


def frame_of(bars: Bars, symbol: int) -> pd.DataFrame:
    """One symbol's own bars as a frame of OHLCV by bar start, UTC."""
    rows = bars.tradable[:, symbol]
    index = pd.DatetimeIndex(bars.timestamps[rows], name="timestamp").tz_localize("UTC")
    return pd.DataFrame({field: getattr(bars, field)[rows, symbol] for field in FIELDS}, index=index)


def panel_frame(bars: Bars) -> pd.DataFrame:
    """All symbols' bars by bar start and symbol, as they follow each other in time."""
    frames = {symbol: frame_of(bars, j) for j, symbol in enumerate(bars.symbols)}
    return pd.concat(frames, names=["symbol"]).swaplevel().sort_index()


_Case = tuple[str, pd.DataFrame, list[tuple[int, Change, pd.DataFrame]]]


def _cases(bars: Bars, panel: bool, n_cuts: int, seed: int) -> Iterator[_Case]:
    """Whose bars, the bars, and the changed futures."""
    if panel:
        frame = panel_frame(bars)
        yield "all", frame, _futures(frame, n_cuts, generator(seed, "audit"))
        return
    for j, symbol in enumerate(bars.symbols):
        if len(frame := frame_of(bars, j)) >= 20:
            yield symbol, frame, _futures(frame, n_cuts, generator(seed, "audit", j))


def _times(frame: pd.DataFrame) -> pd.DatetimeIndex:
    """Bar start of every row."""
    level = frame.index.get_level_values(0) if isinstance(frame.index, pd.MultiIndex) else frame.index
    return pd.DatetimeIndex(level)


def _futures(frame: pd.DataFrame, n_cuts: int, random: np.random.Generator) -> list[tuple[int, Change, pd.DataFrame]]:
    """For random bars, the frame with the rows after them cut off, in another order, replaced, or halved in price; or a symbol gone."""
    times = _times(frame)
    stamps = times.unique().sort_values()
    n = len(stamps)
    first, last = int(_EARLIEST * n), min(int(_LATEST * n), n - 3)
    found: list[tuple[int, Change, pd.DataFrame]] = []
    for cut in np.sort(random.choice(np.arange(first, last), size=min(n_cuts, last - first), replace=False)).tolist():
        later = np.asarray(times > stamps[cut])
        found.append((cut, "cut off", frame[~later].copy()))
        found += [(cut, change, other) for change, other in _replaced(frame, later, random)]
        if isinstance(frame.index, pd.MultiIndex):
            symbols = frame.index.get_level_values(1)
            gone = random.choice(np.asarray(symbols.unique()))
            found.append((cut, "delisted", frame[~(later & np.asarray(symbols == gone))].copy()))
    return found


def _replaced(frame: pd.DataFrame, later: BoolArray, random: np.random.Generator) -> list[tuple[Change, pd.DataFrame]]:
    rows = np.flatnonzero(later)
    values = frame.to_numpy(dtype=np.float64)
    permuted, walked, halved = values.copy(), values.copy(), values.copy()
    permuted[rows] = values[rows[::-1]]
    factor = np.exp(np.cumsum(random.normal(0, 0.05, len(rows))))
    walked[rows, :4] *= factor[:, None]
    walked[rows, 4] *= np.exp(random.normal(0, 1, len(rows)))
    halved[rows, :4] *= 0.5
    named: list[tuple[Change, FloatArray]] = [("put in another order", permuted), ("replaced", walked), ("halved", halved)]
    return [(change, pd.DataFrame(array, index=frame.index, columns=frame.columns)) for change, array in named]


def _answer(function: Function, frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """What the function makes of a frame, as numbers by the frame's labels."""
    try:
        found = function(frame.copy())
    except Exception as error:
        raise DataError(f"the function fails on {what}: {type(error).__name__}: {error}") from error
    if isinstance(found, pd.Series):
        found = found.to_frame(str(found.name or "value"))
    if not isinstance(found, pd.DataFrame):
        array = np.asarray(found)
        if array.ndim not in (1, 2) or len(array) != len(frame):
            raise DataError(
                f"the function returns {type(found).__name__} of shape {array.shape} on {what}; expected {plural(len(frame), 'row')}"
            )
        found = pd.DataFrame(array.reshape(len(array), -1), index=frame.index)
    found.columns = [str(column) for column in found.columns]
    numbers = found.apply(pd.to_numeric, errors="coerce") if len(found.columns) else found
    if not len(numbers.columns) or numbers.index.has_duplicates:
        raise DataError(f"the function returns no columns, or two rows of one label, on {what}; expected one row per bar")
    return numbers.reindex(frame.index) if len(numbers.index.intersection(frame.index)) else numbers


def _require_same_twice(one: pd.DataFrame, other: pd.DataFrame) -> None:
    if list(one.columns) != list(other.columns) or _differ(one.to_numpy(np.float64), other.to_numpy(np.float64), _slack(one)).any():
        raise DataError("the function returns different values for the same bars; expected the same: fix its random seed")


def _slack(answer: pd.DataFrame) -> FloatArray:
    """What counts as rounding, by column: a share of the values, larger for single precision."""
    single = np.array([dtype == np.float32 for dtype in answer.dtypes])
    return np.where(single, _SLACK_SINGLE, _SLACK)


def _differ(one: FloatArray, other: FloatArray, slack: FloatArray) -> BoolArray:
    """Where two answers differ by more than rounding; nan equals nan."""
    with np.errstate(invalid="ignore"):
        usual = np.nan_to_num(np.nanmedian(np.abs(np.where(np.isfinite(one), one, 0.0)), axis=0))
        near = np.abs(one - other) <= slack * (np.abs(one) + np.abs(other) + usual)
    return ~(near | (one == other) | (np.isnan(one) & np.isnan(other)))


def _changed(
    whole: pd.DataFrame, again: pd.DataFrame, frame: pd.DataFrame, cut: int, change: Change, symbol: str
) -> Iterator[Leak]:  # fmt: skip
    """The columns of which a row up to the cut changed."""
    stamps = _times(frame).unique().sort_values()
    past = whole[np.asarray(_times(whole) <= stamps[cut])]
    other = again.reindex(index=past.index, columns=whole.columns)
    old, new = past.to_numpy(np.float64), other.to_numpy(np.float64)
    differs = _differ(old, new, _slack(whole))
    at = stamps.get_indexer(_times(past), method="ffill")
    for j in np.flatnonzero(differs.any(axis=0)).tolist():
        rows = np.flatnonzero(differs[:, j])
        row = int(rows[-1])
        who = str(past.index[row][1]) if isinstance(past.index, pd.MultiIndex) else symbol
        yield Leak(
            column=str(whole.columns[j]),
            symbol=who,
            bar=f"{_times(past)[row]:%Y-%m-%d %H:%M}Z",
            change=change,
            before=_number(old[row, j]),
            after=_number(new[row, j]),
            ahead=int(cut + 1 - at[rows].min()),
            n_seen=1,
        )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
