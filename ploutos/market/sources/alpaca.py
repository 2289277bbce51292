"""Bars from Alpaca: US shares and ETFs back to 2016, and crypto. It has no futures.

The requests are those of alpaca-py; the paging is ours, because the client's loses every page when one fails, ends its
retries after nine seconds, has no timeout, and builds an object per bar. An hourly page holds the hours of some 10,000
minutes, whatever is requested, so years take many pages and minutes of pacing.
"""

import json
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from alpaca.common.enums import BaseURL
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from requests import PreparedRequest, RequestException, Response, Timeout
from requests.adapters import HTTPAdapter

from ploutos.errors import ConfigError, CredentialsError, NoData, RateLimited, UnknownSymbol, VendorDown, VendorError
from ploutos.market.sources.retry import RateLimiter, Retry
from ploutos.market.sources.vendor import Page, Request
from ploutos.wording import without

SIP_DELAY = pd.Timedelta(minutes=16)
"""A free plan does not see the last 15 minutes of the consolidated tape; a minute more is for clocks that differ."""
REQUESTS_PER_MINUTE = 180.0
"""A free plan has 200."""
_PAGE_BARS = 10_000
_COLUMNS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
_MINUTE, _HOUR, _DAY = pd.Timedelta(minutes=1), pd.Timedelta(hours=1), pd.Timedelta(days=1)
_TAPE_CLOSES = pd.Timedelta(hours=20)  # New York: trades before and after the session are on the tape too
_TRANSIENT = (500, 502, 503, 504)
_NO_STATUS = [0]


def parse_bars(bars: list[dict[str, Any]]) -> pd.DataFrame:
    """Alpaca's bars as columns.

    Args:
        bars: as its JSON has them: t (ISO 8601, UTC), o, h, l, c, v; other keys are left out.

    Returns:
        timestamp (datetime64[us, UTC]), open, high, low, close, volume (float64), one row per bar in the order given.

    Raises:
        KeyError, TypeError, ValueError: a bar lacks a key, or a value is not a time or not a number.

    >>> parse_bars([{"t": "2024-01-02T15:00:00Z", "o": 1, "h": 3, "l": 1, "c": 2, "v": 10}])["close"].tolist()
    [2.0]
    """
    stamps = pd.DatetimeIndex(pd.to_datetime([bar["t"] for bar in bars], format="ISO8601", utc=True)).as_unit("us")
    columns = {name: np.array([bar[key] for bar in bars], dtype=np.float64) for name, key in _COLUMNS.items()}
    return pd.DataFrame({"timestamp": stamps, **columns})


class Alpaca:
    """Bars of one feed, behind `ploutos.market.sources.vendor.Vendor`.

    Intraday bars lie on the clock of the exchange and hold trades before and after the session too. A daily bar is
    labelled by its date at 00:00 UTC and counts as finished when the tape closes, 20:00 in New York; a day of crypto is one
    of Chicago's and ends with it. `total_return` is Alpaca's `all`. Crypto has neither feed nor adjustment.

    A page's token holds the moment at which its download began, so that pages requested later, in another process, are
    pages of the same answer.
    """

    def __init__(
        self,
        key: str | None,
        secret: str | None,
        feed: Literal["sip", "iex"] = "sip",
        url: str | None = None,
        *,
        requests_per_minute: float = REQUESTS_PER_MINUTE,
        delay: pd.Timedelta = SIP_DELAY,
        timeout_s: float = 30.0,
        retry_for_s: float = 180.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare the clients; no request is sent yet.

        Args:
            key, secret: of the account; None where they are not set.
            feed: `sip`, all exchanges, or `iex`, one of them with a few percent of the volume.
            url: of another server than Alpaca's.
            requests_per_minute: the most that go out.
            delay: how much of the latest SIP bars the plan withholds; zero for a paid one. IEX and crypto have none.
            timeout_s: seconds without a byte after which a request has failed.
            retry_for_s: seconds over which a request is repeated.
            clock, sleep: seconds since 1970, and how to wait.

        Raises:
            CredentialsError: a key is missing.
        """
        if not key or not secret:
            missing = " and ".join(name for name, value in {"APCA_API_KEY_ID": key, "APCA_API_SECRET_KEY": secret}.items() if not value)
            raise CredentialsError(
                f"{missing} missing; Alpaca requires keys, which a free account has; put them into the environment or .env"
            )
        self.name = f"alpaca-{feed}"
        self._feed = feed
        self._delay = delay if feed == "sip" else pd.Timedelta(0)
        base = (url or BaseURL.DATA.value).rstrip("/")
        self._secrets = (key, secret)
        self._stocks = _Client(base, key, secret, "v2", timeout_s)
        self._coins = _Client(base, key, secret, "v1beta3", timeout_s)
        self._timeout_s = timeout_s
        self._clock = clock
        self._rate_limiter = RateLimiter(requests_per_minute, clock, sleep)
        self._retry = Retry(retry_for_s, clock=clock, sleep=sleep)

    def pages(self, request: Request, token: str | None = None) -> Iterator[Page]:
        """Pages from the start, or from a token that an earlier page gave; as `Vendor.pages`.

        A page may be short or empty and still not be the last.

        Raises:
            CredentialsError: the keys or the subscription do not reach that far.
            UnknownSymbol: nothing at all came; Alpaca does not tell a symbol it does not know from one without bars.
            NoData: the span lies in the future or in what the plan withholds, or holds no finished bar.
            RateLimited, VendorDown: after every retry.
            VendorError: the request was refused for another reason.
            ConfigError: Alpaca has no bars of that length.
        """
        coin = "/" in request.symbol
        horizon, page_token = (self._horizon(coin), None) if token is None else _parted(token)
        params = self._params(request, coin, horizon)
        last, came, kept_any = None, token is not None, token is not None
        while True:
            frame, following = self._retry(partial(self._ask, coin, {**params, "page_token": page_token}, last))
            if not frame.empty:
                last, came = frame["timestamp"].iloc[-1], True
            kept = _asked_for(frame, request, coin, horizon)
            kept_any = kept_any or not kept.empty
            if following is None:
                break
            yield Page(kept, f"{horizon.isoformat()} {following}")
            page_token = following
        span = f"{request.symbol} from {request.start} to {request.end}"
        if not came:
            raise UnknownSymbol(
                f"{self.name} gave no bars of {span}, and does not say whether it knows {request.symbol}; "
                "expected a US share, an ETF or a coin pair such as BTC/USD, in a span in which it traded; check both"
            )
        if not kept_any:
            raise NoData(f"{self.name} has no finished bars of {span} yet; request a span that begins earlier")
        yield Page(kept, None)

    def _horizon(self, coin: bool) -> pd.Timestamp:
        """Until when bars can be had now, in whole seconds, as Alpaca is told."""
        now = pd.Timestamp(int(self._clock()), unit="s", tz="UTC")
        return now if coin else now - self._delay

    def _params(self, request: Request, coin: bool, horizon: pd.Timestamp) -> dict[str, Any]:
        # Alpaca may cut a bar off at `end`, so the end lies one bar further and what is too much is dropped
        end = min(request.end + request.timeframe, horizon)
        if end <= request.start:
            raise NoData(
                f"{self.name} has bars of {request.symbol} until {horizon} and those from {request.start} on were requested; "
                "request an earlier span" + ("" if coin or not self._delay else ", or use --set data.feed=iex for the last minutes")
            )
        stock = {"feed": self._feed, "adjustment": "raw" if request.adjustment == "raw" else "all"}
        return {
            "symbols": request.symbol, "timeframe": _timeframe(request.timeframe), "start": _rfc3339(request.start),
            "end": _rfc3339(end), "limit": _PAGE_BARS, "sort": "asc", **({} if coin else stock),
        }  # fmt: skip

    def _ask(self, coin: bool, params: dict[str, Any], last: pd.Timestamp | None) -> tuple[pd.DataFrame, str | None]:
        """One page as it came: its bars, which follow `last`, and the next one's token."""
        self._rate_limiter.wait()
        client, path = (self._coins, "/crypto/us/bars") if coin else (self._stocks, "/stocks/bars")
        try:
            answer: Any = client.get(path, params)
        except APIError as error:
            raise self._refusal(error, params["symbols"]) from None  # a log has the whole chain, and the error may repeat the keys
        except Timeout as error:
            raise VendorDown(f"{self.name} did not answer within {self._timeout_s:g} s") from error
        except RequestException as error:  # no connection, a connection that broke, and an answer that is no JSON
            raise VendorDown(f"{self.name} could not be reached or broke off its answer ({type(error).__name__})") from error
        return self._page(answer, params, last)

    def _page(self, answer: Any, params: dict[str, Any], last: pd.Timestamp | None) -> tuple[pd.DataFrame, str | None]:
        symbol = params["symbols"]
        try:
            bars, following = answer["bars"] or {}, answer["next_page_token"]
            frame = parse_bars(bars.get(symbol) or [])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise VendorDown(f"{self.name} answered with something that is not a page of bars ({type(error).__name__}: {error})") from error
        if others := sorted(set(bars) - {symbol}):
            raise UnknownSymbol(f"{self.name} answered with {', '.join(others)} when {symbol} was requested; use its own spelling")
        if not _follow(frame["timestamp"], last):
            raise VendorDown(f"{self.name} answered with bars of {symbol} out of order; expected each to start after the one before")
        if following is not None and following == params["page_token"]:
            raise VendorDown(f"{self.name} named the page of {symbol} that it had just sent as the next one; expected another or none")
        return frame, following

    def _refusal(self, error: APIError, symbol: str) -> VendorError | UnknownSymbol:
        status, said = error.status_code, _said(without(str(error), *self._secrets))
        what = f"{self.name} answered {status} ({said})"
        if status == 429:
            return RateLimited(what, _retry_after(error.response, self._clock()))
        if status in _TRANSIENT:
            return VendorDown(what)
        if status == 403 and "subscription" in said.lower():
            return CredentialsError(
                f"{what}: the plan behind these keys does not reach that far; request an earlier span, or use --set data.feed=iex"
            )
        if status in (401, 403):
            return CredentialsError(f"{what}: it refused the keys; check APCA_API_KEY_ID and APCA_API_SECRET_KEY, both of one account")
        if status == 400 and "symbol" in said.lower():
            return UnknownSymbol(f"{what}: it does not know {symbol}; expected a US share, an ETF or a coin pair such as BTC/USD")
        return VendorError(f"{what} to a request for {symbol}; expected bars; check the address of Alpaca and the request")


class _Client(RESTClient):
    """Alpaca's client without retries of its own and with a timeout, which it lacks."""

    def __init__(self, url: str, key: str, secret: str, version: str, timeout_s: float) -> None:
        super().__init__(url, key, secret, api_version=version, raw_data=True, retry_exception_codes=_NO_STATUS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Timed(timeout_s))


class _Timed(HTTPAdapter):
    """Connections on which a silence of `timeout_s` ends a request."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self._timeout_s = timeout_s

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        return super().send(request, *args, **{**options, "timeout": self._timeout_s})


def _timeframe(length: pd.Timedelta) -> str:
    """Alpaca's name of a bar length; its own TimeFrame sits in a package that imports half of the client."""
    if length == _DAY:
        return "1Day"
    for step, most, name in ((_HOUR, 23, "Hour"), (_MINUTE, 59, "Min")):
        amount, rest = divmod(length, step)
        if not rest and 1 <= amount <= most:
            return f"{amount}{name}"
    raise ConfigError(f"Alpaca has no bars of {length}; expected 1 to 59 minutes, 1 to 23 hours or 1 day")


def _asked_for(frame: pd.DataFrame, request: Request, coin: bool, horizon: pd.Timestamp) -> pd.DataFrame:
    """The bars that start in the span and were finished at the horizon, under our labels."""
    stamps = frame["timestamp"]
    if request.timeframe < _DAY:
        ends = stamps + request.timeframe
        labels = stamps
    else:  # midnight of New York or Chicago is in the small hours of the same date, UTC
        labels = stamps.dt.normalize()
        dates = labels.dt.tz_localize(None)
        ends = stamps + _DAY if coin else (dates + _TAPE_CLOSES).dt.tz_localize("America/New_York").dt.tz_convert("UTC")
    keep = (labels >= request.start) & (labels < request.end) & (ends <= horizon)
    return frame.assign(timestamp=labels)[keep].reset_index(drop=True)


def _follow(stamps: pd.Series, last: pd.Timestamp | None) -> bool:
    """Whether each is later than the one before, and the first than `last`."""
    return stamps.empty or (stamps.is_monotonic_increasing and stamps.is_unique and (last is None or stamps.iloc[0] > last))


def _parted(token: str) -> tuple[pd.Timestamp, str]:
    horizon, page_token = token.split(" ", 1)
    return pd.Timestamp(horizon), page_token


def _rfc3339(moment: pd.Timestamp) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _said(body: str) -> str:
    """What an error body says, in one line."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = body
    text = answer["message"] if isinstance(answer, dict) and "message" in answer else body
    return " ".join(str(text).split())[:200] or "no explanation"


def _retry_after(response: Response, now: float) -> float:
    """Seconds until the vendor answers again, as far as it said; 0 where it did not."""
    after, reset = response.headers.get("Retry-After", ""), response.headers.get("X-RateLimit-Reset", "")
    try:
        if after:
            return float(after) if after.isdigit() else max(parsedate_to_datetime(after).timestamp() - now, 0.0)
        return max(float(reset) - now, 0.0) if reset else 0.0
    except ValueError:  # a header that is neither says nothing
        return 0.0
