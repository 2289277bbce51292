"""Market-wide series beside the bars: VIX, 10-year yield, dollar. Known when they were published, and not before.

A daily value is stamped with its session's date, so a join on the stamp hands every bar of that day a close that is still
to come. Here each value gets the time from which it could be read (`published_at`), and a bar sees the last value
published by the time the bar itself is known. What is not known stays nan. Revisions are not kept: FRED's dollar index is
re-estimated every year, and its history is the one of the day on which it was downloaded.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar
from pydantic import NonNegativeInt

from ploutos.errors import ConfigError, DataError, NoData, VendorDown
from ploutos.market.bars import Bars
from ploutos.market.sources.files import find
from ploutos.specs import Spec
from ploutos.types import TimeArray
from ploutos.wording import plural

Provider = Literal["yahoo", "fred"]

_SUFFIXES = (".parquet", ".csv")
FRED_URL = "https://fred.stlouisfed.org/graph/fredgraph.csv"
DAY = pd.Timedelta(days=1)
TOLERANCE = pd.Timedelta(days=7)
STAMP_NAMES = ("timestamp", "datetime", "date", "time", "observation_date")
VALUE_NAMES = ("value", "close")


class Feed(Spec):
    """One provider's copy of a series."""

    symbol: str
    """The provider's own name of it."""
    published: time
    """Time of day in New York from which the value of a session can be read."""
    business_days: NonNegativeInt = 0
    """US federal business days between the session and that time; 0 is the same day."""


class MacroSeries(Spec):
    """One daily series."""

    name: str
    """Column name."""
    meaning: str
    """What it is, in a line."""
    yahoo: Feed | None = None
    """Yahoo's copy: the close of the session, once the index stops."""
    fred: Feed | None = None
    """FRED's copy, once the St. Louis Fed has loaded it."""
    zone: str = "America/New_York"
    """Zone of the exchange: session dates and publication times are in it."""


# Yahoo's times are when each index stops. FRED's VIXCLS is loaded in the morning; the Board publishes H.15 (DGS10) at 16:15
# on the next business day and H.10 (DTWEXBGS) at 16:15 on Mondays for the week before, which reaches a Monday's value after
# five business days. FRED gets an hour or more of margin.
SERIES = {
    series.name: series
    for series in (
        MacroSeries(
            name="vix",
            meaning="Cboe Volatility Index: implied volatility of the S&P 500 over 30 days, percent a year",
            yahoo=Feed(symbol="^VIX", published=time(16, 15)),
            fred=Feed(symbol="VIXCLS", published=time(12), business_days=1),
        ),
        MacroSeries(
            name="us10y",
            meaning="yield of 10-year US Treasuries, percent a year",
            yahoo=Feed(symbol="^TNX", published=time(15)),
            fred=Feed(symbol="DGS10", published=time(17, 30), business_days=1),
        ),
        MacroSeries(
            name="dxy",
            meaning="ICE US Dollar Index: the dollar against six currencies, 100 in March 1973",
            yahoo=Feed(symbol="DX-Y.NYB", published=time(17)),
        ),
        MacroSeries(
            name="broad_dollar",
            meaning="Federal Reserve nominal broad dollar index: against 26 currencies, 100 in January 2006; no substitute for dxy",
            fred=Feed(symbol="DTWEXBGS", published=time(17, 30), business_days=5),
        ),
    )
}


def align_to_ticker(
    macro: pd.DataFrame,
    bars: Bars | pd.DatetimeIndex | TimeArray,
    provider: Provider = "yahoo",
    zone: str | None = None,
    timeframe: pd.Timedelta = DAY,
    tolerance: pd.Timedelta = TOLERANCE,
) -> pd.DataFrame:
    """Macro values as they were known at each bar.

    Args:
        macro: time stamps of any zone and unit, as index or as a column (timestamp, date, ...), and one column per series,
            named by series (vix), Yahoo symbol (^VIX) or FRED id (VIXCLS); nan where a series has no value.
        bars: bars, which see what was published by their `available_at`; or the times at which one wants to know, in any
            order, UTC where they carry no zone.
        provider: whose publication times hold for columns that are named by series.
        zone: zone of stamps that carry none; None is that of the series' exchange. A midnight is a session's date anyway.
        timeframe: length of the bars that the values are closes of. Daily values are stamped with their session and
            published by the provider's rule; shorter ones are stamped with their bar's start and published at its end.
        tolerance: how long a value holds after its publication.

    Returns:
        n_bars rows in the order of `bars`: `available_at` (datetime64[us, UTC]) and one float64 column per series given,
        nan before its first publication and `tolerance` after its last.

    Raises:
        ConfigError: the zone is unknown or the provider has no such series.
        DataError: a column is not a series, two columns are the same one, a session has two values, or a value is infinite
            or not above 0.

    >>> closes = pd.DataFrame({"vix": [13.2, 14.0]}, index=pd.to_datetime(["2024-01-02", "2024-01-03"]).as_unit("s"))
    >>> times = pd.to_datetime(["2024-01-03 15:00", "2024-01-03 22:00"]).tz_localize("UTC").as_unit("us")
    >>> align_to_ticker(closes, times)["vix"].tolist()  # that of 3 January is published after its close
    [13.2, 14.0]
    """
    known = publish(macro, provider, zone, timeframe)
    return on_clock([frame.rename(columns={"value": name}) for name, frame in known.items()], bars, tolerance)


def publish(
    macro: pd.DataFrame, provider: Provider = "yahoo", zone: str | None = None, timeframe: pd.Timedelta = DAY
) -> dict[str, pd.DataFrame]:
    """When each value of a macro frame could first be read; arguments and errors as in `align_to_ticker`.

    Returns:
        By series name, a frame of `published_at` (datetime64[us, UTC], increasing) and `value` (float64, no nan), one row
        per session in order.
    """
    if not pd.Timedelta(0) < timeframe <= DAY:
        raise ConfigError(f"timeframe of the macro values is {timeframe}; expected more than 0 and at most one day")
    stamps = _stamps(macro, "macro frame")
    result: dict[str, pd.DataFrame] = {}
    for column, given in _value_columns(macro).items():
        series, own_provider = _find(column)
        feed = _feed(series, own_provider or provider)
        if series.name in result:
            raise DataError(f"macro frame has {series.name} twice, the second time as {column!r}; expected one column per series")
        values = _numbers(given, column)
        present = values.notna().to_numpy()
        localized = _localized(stamps[present], zone or series.zone)
        if timeframe == DAY:
            starts = _session_dates(localized, series.zone)
            published = _publication(starts, feed, series.zone)
        else:
            starts = pd.DatetimeIndex(localized.dt.tz_convert("UTC")).as_unit("us")
            published = starts + timeframe
        frame = pd.DataFrame({"start": starts, "published_at": published, "value": values.to_numpy()[present]}).sort_values("start")
        _check(frame, series.name)
        result[series.name] = frame.drop(columns="start").reset_index(drop=True)
    return result


def on_clock(known: Iterable[pd.DataFrame], bars: Bars | pd.DatetimeIndex | TimeArray, tolerance: pd.Timedelta) -> pd.DataFrame:
    """The last row of each table that was published when a bar was known, on the bars' clock.

    Args:
        known: tables with `published_at` (datetime64[us, UTC], increasing) and value columns.
        bars, tolerance: as in `align_to_ticker`.

    Returns:
        n_bars rows: `available_at` and the value columns of every table.
    """
    moments = pd.DatetimeIndex(bars.available_at if isinstance(bars, Bars) else bars)
    moments = (moments.tz_localize("UTC") if moments.tz is None else moments.tz_convert("UTC")).as_unit("us")
    joined = pd.DataFrame({"available_at": moments, "row": np.arange(len(moments))}).sort_values("available_at")
    for table in known:
        joined = pd.merge_asof(
            joined, table, left_on="available_at", right_on="published_at", direction="backward", tolerance=tolerance
        ).drop(columns="published_at")
    return joined.sort_values("row").drop(columns="row").reset_index(drop=True)


def join_series(frames: Mapping[str, pd.DataFrame], zone: str | None = None) -> pd.DataFrame:
    """One macro frame from daily tables of any vendor.

    Args:
        frames: by series name, Yahoo symbol or FRED id: a table with stamps and a `value` or `close` column, as bars have.
            A table with neither is wide: its columns are named by series themselves, and its key does not matter.
        zone: zone of stamps that carry none; None is that of the series' exchange.

    Returns:
        `timestamp` (session dates, datetime64[us]) and a column per series, named as it was given; nan where a series has
        no value.

    Raises:
        DataError: a table has no stamps, a session twice, a column that is not a series, or one that came before.
        ConfigError: the zone is unknown.
    """
    columns: dict[str, pd.Series] = {}
    for key, frame in frames.items():
        stamps = _stamps(frame, key)
        narrow = next((name for wanted in VALUE_NAMES for name in frame.columns if str(name).lower() == wanted), None)
        for name, column in ({key: frame[narrow]} if narrow is not None else _value_columns(frame)).items():
            if name in columns:
                raise DataError(f"{key} holds {name} a second time; expected one table or column per series")
            series, _ = _find(name)
            index = _session_dates(_localized(stamps, zone or series.zone), series.zone)
            if index.has_duplicates:
                raise DataError(_two_values(name, index[index.duplicated()][0]))
            columns[name] = pd.Series(_numbers(column, name).to_numpy(), index=index)
    return pd.DataFrame(columns).rename_axis("timestamp").sort_index().reset_index()


def read_macro(path: Path, zone: str | None = None) -> pd.DataFrame:
    """Daily macro series from a parquet or CSV file, or a folder of them.

    A file holds one series, named by the file (vix.csv, VIXCLS.csv, ^VIX.parquet) with its values in `value` or `close`,
    or one column per series. FRED's own CSV is read as it is: `observation_date,VIXCLS`, with `.` or nothing for a holiday.

    Args:
        path: a .parquet or .csv file, or a folder.
        zone: zone of stamps that carry none; None is that of the series' exchange.

    Returns:
        What `join_series` gives.

    Raises:
        DataError: nothing there, a file cannot be parsed, or its columns are not as above.
        ConfigError: the zone is unknown.
    """
    files = [file for file in find(path) if file == path or (file.parent == path and file.suffix.lower() in _SUFFIXES)]
    if not files:
        raise DataError(f"{path} holds no parquet or CSV file; expected one or more of daily series")
    return join_series({file.stem: _parse(file) for file in files}, zone)


def fetch_fred(ids: Iterable[str], get: Callable[[str], bytes], first: date, last: date) -> pd.DataFrame:
    """Daily series from FRED, which requires no key.

    Args:
        ids: FRED ids: VIXCLS, DGS10, DTWEXBGS.
        get: fetches a URL; timeouts, retries and their errors are its own.
        first, last: observation dates, both included.

    Returns:
        What `join_series` gives, one column per id.

    Raises:
        VendorDown: the answer is no CSV of that series.
        NoData: FRED has no value in the range.
        DataError: an id is not one of our series.
    """
    return join_series({identifier: _fred_table(identifier, get, first, last) for identifier in ids})


def _fred_table(identifier: str, get: Callable[[str], bytes], first: date, last: date) -> pd.DataFrame:
    _find(identifier)
    answer = get(f"{FRED_URL}?id={identifier}&cosd={first}&coed={last}")
    header = answer.split(b"\n", 1)[0].strip().upper()
    if header not in (f"{stamp},{identifier}".upper().encode() for stamp in ("observation_date", "date")):
        raise VendorDown(
            f"FRED answered {header[:60]!r} for {identifier}; expected CSV with observation_date,{identifier}; try again later"
        )
    try:
        frame = _read_csv(BytesIO(answer))
    except ValueError as error:
        raise VendorDown(f"FRED's CSV of {identifier} is broken: {_first_line(error)}; try again later") from error
    if frame[frame.columns[1]].isna().all():
        raise NoData(f"FRED has no {identifier} between {first} and {last}; request a longer range")
    return frame


def _read_csv(source: Path | BytesIO) -> pd.DataFrame:
    return pd.read_csv(source, na_values=["."])


def _parse(file: Path) -> pd.DataFrame:
    if file.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{file.name} is neither .parquet nor .csv")
    try:
        return pd.read_parquet(file) if file.suffix.lower() == ".parquet" else _read_csv(file)
    except (ValueError, OSError) as error:  # ValueError covers pandas' and Arrow's parse errors
        raise DataError(f"{file.name} cannot be read as {file.suffix[1:]}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _find(column: str) -> tuple[MacroSeries, Provider | None]:
    """The series that a column or file is named after, and the provider if the name is one provider's own."""
    found = _BY_NAME.get(column.lower())
    if found is None:
        raise DataError(f"macro data has {column!r}, which is not a series; expected one of {', '.join(_BY_NAME)}; rename or drop it")
    return found


def _feed(series: MacroSeries, provider: Provider) -> Feed:
    feed = _feeds(series)[provider]
    if feed is None:
        other = next(name for name, feed in _feeds(series).items() if feed)
        raise ConfigError(f"{provider} has no {series.name} ({series.meaning}); give provider={other!r} for it")
    return feed


def _feeds(series: MacroSeries) -> dict[Provider, Feed | None]:
    return {"yahoo": series.yahoo, "fred": series.fred}


def _names() -> dict[str, tuple[MacroSeries, Provider | None]]:
    """Every name of every series in small letters; Yahoo's also without its caret."""
    names: dict[str, tuple[MacroSeries, Provider | None]] = {name: (series, None) for name, series in SERIES.items()}
    for series in SERIES.values():
        for provider, feed in _feeds(series).items():
            if feed is not None:
                names.setdefault(feed.symbol.lower(), (series, provider))
                names.setdefault(feed.symbol.lower().lstrip("^"), (series, provider))
    return names


_BY_NAME = _names()


def _stamp_column(frame: pd.DataFrame) -> str | None:
    return next((name for wanted in STAMP_NAMES for name in frame.columns if str(name).lower() == wanted), None)


def _value_columns(frame: pd.DataFrame) -> dict[str, pd.Series]:
    stamp = _stamp_column(frame)
    return {str(name): frame[name] for name in frame.columns if name != stamp}


def _stamps(frame: pd.DataFrame, origin: str) -> pd.Series:
    """Stamps of a table, in its own zone if it has one, from a column or from the index."""
    name = _stamp_column(frame)
    stamps = frame[name] if name is not None else pd.Series(frame.index)
    if frame.empty or pd.api.types.is_numeric_dtype(stamps):
        found = "no rows" if frame.empty else "no dates"
        raise DataError(f"{origin} has {found}; expected a date index or a column {', '.join(STAMP_NAMES)}, and values")
    try:
        parsed = _to_datetime(stamps)
    except (ValueError, TypeError) as error:
        raise DataError(f"{origin} has a stamp that is not an ISO date: {_first_line(error)}; expected dates such as 2024-01-02") from error
    if parsed.isna().any():
        raise DataError(f"{origin} has {plural(int(parsed.isna().sum()), 'row')} without a date; expected none")
    return parsed.reset_index(drop=True)


def _to_datetime(stamps: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(stamps):
        return stamps
    try:
        return pd.to_datetime(stamps, format="ISO8601")
    except ValueError:  # offsets that change with daylight saving have no one zone
        return pd.to_datetime(stamps, format="ISO8601", utc=True)


def _localized(stamps: pd.Series, zone: str) -> pd.Series:
    """Stamps with a zone: their own, or `zone` where they have none."""
    if stamps.dt.tz is not None:
        return stamps
    try:
        return stamps.dt.tz_localize(zone)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"zone {zone!r} does not fit the macro stamps: {_first_line(error)}; name the zone they are in") from error


def _numbers(column: pd.Series, name: str) -> pd.Series:
    try:
        return pd.to_numeric(column).astype("float64").reset_index(drop=True)
    except (ValueError, TypeError) as error:
        raise DataError(f"macro series {name} has text among its values: {error}; expected numbers") from error


def _session_dates(stamps: pd.Series, zone: str) -> pd.DatetimeIndex:
    """The session that each stamp of a daily value means.

    Vendors write a session as midnight of its date in the exchange's zone, in UTC, or in their own; a stamp that is
    midnight in its own zone or in UTC means that date, and any other the date it has at the exchange. Where readings
    differ, the later one is taken: a value may come late and never early. Each stamp is read by itself.

    Returns:
        Dates without a zone, datetime64[us].
    """
    own = stamps.dt.tz_localize(None)
    utc = stamps.dt.tz_convert("UTC").dt.tz_localize(None)
    local = stamps.dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
    dates = own.where(own == own.dt.normalize(), utc.where(utc == utc.dt.normalize(), local))
    return pd.DatetimeIndex(dates).as_unit("us")


def _publication(dates: pd.DatetimeIndex, feed: Feed, zone: str) -> pd.DatetimeIndex:
    """When the values of these sessions can be read, UTC."""
    days = dates.to_numpy().astype("datetime64[D]")
    if feed.business_days and len(days):
        span = (pd.Timestamp(days.min()) - TOLERANCE, pd.Timestamp(days.max()) + (feed.business_days + 7) * DAY)
        holidays = USFederalHolidayCalendar().holidays(*span).to_numpy().astype("datetime64[D]")
        days = np.busday_offset(days, feed.business_days, roll="backward", holidays=holidays)
    moments = pd.DatetimeIndex(days).as_unit("us") + pd.Timedelta(hours=feed.published.hour, minutes=feed.published.minute)
    return moments.tz_localize(zone).tz_convert("UTC")


def _check(frame: pd.DataFrame, name: str) -> None:
    """Refuse two values for one time, and values that stand for missing ones."""
    repeated = frame["start"].duplicated()
    if repeated.any():
        raise DataError(_two_values(name, frame.loc[repeated, "start"].iloc[0]))
    wrong = ~(np.isfinite(frame["value"]) & (frame["value"] > 0))
    if wrong.any():
        first = frame[wrong].iloc[0]
        raise DataError(f"macro series {name} is {first['value']} at {first['start']}; expected more than 0; leave missing values empty")


def _two_values(name: str, moment: pd.Timestamp) -> str:
    return f"macro series {name} has two values for {moment}; expected one; remove one, or give the timeframe of intraday values"
