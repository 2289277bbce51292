"""Bars from Yahoo Finance, by yfinance: shares, futures, indices, currencies and crypto, without keys.

Yahoo keeps hourly bars for two years and shorter ones for weeks. Its prices are adjusted for splits always, and for
dividends in daily bars only. yfinance by itself turns every failure into an empty frame; here each has its error.
"""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import yfinance as yf
from yfinance.data import YfData
from yfinance.exceptions import (
    YFException,
    YFPricesMissingError,
    YFRateLimitError,
    YFTzMissingError,
)

from ploutos.errors import ConfigError, DataError, NoData, RangeTooOld, RateLimited, UnknownSymbol, VendorDown
from ploutos.market.sources.retry import RateLimiter, Retry
from ploutos.market.sources.vendor import Page, Request

logger = logging.getLogger(__name__)

DELAY = pd.Timedelta(minutes=20)
"""Yahoo shows some exchanges a quarter of an hour late; what ended later than this does not count as finished."""
REQUESTS_PER_MINUTE = 60.0
"""Yahoo names no limit; this is slow enough for a person."""
_DAY = pd.Timedelta(days=1)
_INTERVALS = {pd.Timedelta(minutes=n): f"{n}m" for n in (1, 2, 5, 15, 30, 90)} | {pd.Timedelta(hours=1): "1h", _DAY: "1d"}
_KEPT_DAYS = {"1m": 30, "2m": 60, "5m": 60, "15m": 60, "30m": 60, "90m": 60, "1h": 730}
_PER_REQUEST = {"1m": 7 * _DAY}
_COLUMNS = {name: name.lower() for name in ("Open", "High", "Low", "Close", "Volume")}


class Yahoo:
    """Yahoo's bars, behind `ploutos.market.sources.vendor.Vendor`.

    Intraday bars are those of regular hours and start with the session (09:30 in New York), unlike Alpaca's, which start
    with the hour. A daily bar is labelled by its session's date at 00:00 UTC and counts as finished some minutes after the
    session's close. `raw` is adjusted for splits all the same, and `total_return` has dividends in daily bars only.

    yfinance keeps its settings, its session and its folder once per process: use one Yahoo at a time, from one thread.
    """

    name = "yahoo"

    def __init__(
        self,
        cache: Path,
        proxy: str | None = None,
        *,
        requests_per_minute: float = REQUESTS_PER_MINUTE,
        timeout_s: float = 30.0,
        retry_for_s: float = 180.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Say how Yahoo is reached; no request is sent yet.

        Args:
            cache: folder in which yfinance keeps cookies and the time zones of symbols.
            proxy: address of a proxy; None for none but the environment's.
            requests_per_minute: the most histories that are requested; yfinance may send a few requests for one.
            timeout_s: seconds without an answer after which a request for bars has failed.
            retry_for_s: seconds over which a request is repeated.
            clock, sleep: seconds since 1970, and how to wait.
        """
        self._cache = cache
        self._proxy = proxy
        self._timeout_s = timeout_s
        self._clock = clock
        self._rate_limiter = RateLimiter(requests_per_minute, clock, sleep)
        self._retry = Retry(retry_for_s, clock=clock, sleep=sleep)

    def pages(self, request: Request, token: str | None = None) -> Iterator[Page]:
        """One page, or one per week for bars of a minute; as `Vendor.pages`.

        Raises:
            RangeTooOld: Yahoo does not keep bars of that length that far back.
            UnknownSymbol: Yahoo does not know the symbol.
            NoData: Yahoo has no bars in the span, or no finished one yet.
            RateLimited, VendorDown: after every retry.
            ConfigError: Yahoo has no bars of that length.
        """
        interval = _interval(request.timeframe)
        start, came = (request.start, False) if token is None else (pd.Timestamp(token), True)
        self._check_age(request, interval, start)
        while True:
            end = min(start + _PER_REQUEST[interval], request.end) if interval in _PER_REQUEST else request.end
            try:
                frame = self._retry(partial(self._ask, request, interval, start, end))
            except NoData:
                frame = _NO_BARS
            came = came or not frame.empty
            if end >= request.end:
                break
            yield Page(frame, end.isoformat())
            start = end
        if not came:
            raise _no_data(request)
        yield Page(frame, None)

    def _now(self) -> pd.Timestamp:
        return pd.Timestamp(self._clock(), unit="s", tz="UTC")

    def _check_age(self, request: Request, interval: str, start: pd.Timestamp) -> None:
        if interval in _KEPT_DAYS and start < self._now() - _KEPT_DAYS[interval] * _DAY:
            raise _too_old(request, interval, self._now())

    def _ask(self, request: Request, interval: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        self._rate_limiter.wait()
        YfData.cache_get.cache_clear()  # it keeps failed answers as well and would give them again
        daily = interval == "1d"
        with self._yfinance():
            try:
                ticker = yf.Ticker(request.symbol)
                found = ticker.history(
                    interval=interval,
                    start=start.ceil("D").date() if daily else start,  # dates are the exchange's own
                    end=end.ceil("D").date() if daily else end,
                    auto_adjust=request.adjustment == "total_return",
                    timeout=self._timeout_s,
                )
                closes = ticker.history_metadata["currentTradingPeriod"]["regular"]["end"]
            except (YFException, OSError) as error:  # every error of either HTTP library is an OSError
                raise self._refusal(error, request, interval) from error
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise VendorDown(
                    f"Yahoo answered with something that is not a chart of {request.symbol} ({type(error).__name__})"
                ) from error
        if not daily and request.adjustment == "total_return" and found["Dividends"].any():
            logger.warning("%s paid dividends, and Yahoo adjusts bars of %s for splits only", request.symbol, interval)
        horizon = self._now() - DELAY
        if daily:
            known = (found.index < closes.normalize()) | ((found.index == closes.normalize()) & (closes <= horizon))
            labels = found.index.tz_localize(None).normalize().tz_localize("UTC")
        else:
            known = found.index + request.timeframe <= horizon
            labels = found.index.tz_convert("UTC")
        keep = known & (labels >= start) & (labels < end)
        return _bars(found[keep], labels[keep])

    def _refusal(self, error: Exception, request: Request, interval: str) -> DataError:
        symbol = request.symbol
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = (error.yahoo_reason or "") if isinstance(error, YFPricesMissingError) else ""
        if isinstance(error, YFRateLimitError) or status == 429:
            return RateLimited(f"Yahoo answered a request for {symbol} with 429 (too many requests)", 0.0)
        if isinstance(error, YFTzMissingError) or status == 404 or "No data found" in reason:
            return UnknownSymbol(
                f"Yahoo has no chart of {symbol}, as for names that it does not know; expected Yahoo's own name for it, such as SPY, "
                "NQ=F, ^VIX or BTC-USD; look it up there"
            )
        if "must be within the last" in reason or "granularity data are allowed" in reason:
            return _too_old(request, interval, self._now(), reason)
        if isinstance(error, YFPricesMissingError) and (not reason or "doesn't exist" in reason):
            return _no_data(request)
        if isinstance(error, YFException):
            return VendorDown(f"Yahoo is down for maintenance or refused the chart of {symbol} ({reason or error})")
        silence = f"gave no answer within {self._timeout_s:g} s, or could not be reached ({type(error).__name__}),"
        return VendorDown(f"Yahoo {f'answered {status}' if status else silence} when {symbol} was requested")

    @contextmanager
    def _yfinance(self) -> Iterator[None]:
        """yfinance with exceptions, our proxy and our folder, for the length of a block."""
        before = yf.config.debug.hide_exceptions, yf.config.network.proxy
        yf.set_tz_cache_location(str(self._cache))
        yf.config.debug.hide_exceptions = False
        yf.config.network.proxy = self._proxy or before[1]
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=DeprecationWarning, module="yfinance")  # pandas' to yfinance, not to us
                yield
        finally:
            yf.config.debug.hide_exceptions, yf.config.network.proxy = before


def _interval(timeframe: pd.Timedelta) -> str:
    if timeframe not in _INTERVALS:
        raise ConfigError(f"Yahoo has no bars of {timeframe}; expected one of {', '.join(_INTERVALS.values())}")
    return _INTERVALS[timeframe]


def _bars(found: pd.DataFrame, labels: pd.DatetimeIndex) -> pd.DataFrame:
    columns = {ours: found[theirs].to_numpy(dtype="float64") for theirs, ours in _COLUMNS.items()}
    return pd.DataFrame({"timestamp": labels.as_unit("us"), **columns})


_NO_BARS = _bars(pd.DataFrame(columns=list(_COLUMNS)), pd.DatetimeIndex([], tz="UTC"))


def _too_old(request: Request, interval: str, now: pd.Timestamp, said: str = "") -> RangeTooOld:
    limit = f"Yahoo keeps bars of {interval} for {_KEPT_DAYS[interval]} days" if interval in _KEPT_DAYS else "Yahoo keeps fewer bars"
    earliest = f", from {now - _KEPT_DAYS[interval] * _DAY:%Y-%m-%d} on" if interval in _KEPT_DAYS else ""
    return RangeTooOld(
        f"{limit}{earliest}, and {request.symbol} was requested from {request.start:%Y-%m-%d}{f' ({said})' if said else ''}; "
        "request a later start or daily bars, or use a source that has more: alpaca, or your own files"
    )


def _no_data(request: Request) -> NoData:
    return NoData(f"Yahoo has no finished bars of {request.symbol} from {request.start} to {request.end}; request another span")
