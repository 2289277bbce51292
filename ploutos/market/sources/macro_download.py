"""Daily macro series from Yahoo or FRED into CSV files, which runs then read; a run itself contacts no vendor."""

from pathlib import Path
from typing import Any

import pandas as pd
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ploutos.errors import VendorDown
from ploutos.market.macro import FRED_URL, SERIES, Feed, Provider, fetch_fred, join_series
from ploutos.market.sources.vendor import Request, Vendor
from ploutos.store import writing

TIMEOUT = (10.0, 60.0)
"""Seconds to connect and to wait for an answer."""
_RETRY = Retry(
    total=4, backoff_factor=2.0, status_forcelist=(429, 500, 502, 503, 504), respect_retry_after_header=True, raise_on_status=False
)


def download_macro(
    provider: Provider, start: pd.Timestamp, folder: Path, yahoo: Vendor | None = None, proxy: str | None = None, url: str = FRED_URL
) -> list[dict[str, Any]]:
    """Write one CSV per series, `date,value`, named as the provider names the series.

    Args:
        start: first day, UTC.
        yahoo: the vendor to ask when the provider is Yahoo.
        url: FRED's address.

    Returns:
        One row per file: series, meaning, rows, first, last.

    Raises:
        VendorError, NoData: the provider did not answer as it should; files that were there stay.
        StoreError: the folder cannot be written.
    """
    end = pd.Timestamp.now("UTC").ceil("D")
    feeds = {series.name: feed for series in SERIES.values() if (feed := getattr(series, provider)) is not None}
    if yahoo is not None:
        macro = join_series({feed.symbol: _closes(yahoo, feed, start, end) for feed in feeds.values()})
    else:
        get = _getter(proxy, url)
        macro = fetch_fred([feed.symbol for feed in feeds.values()], get, start.date(), end.date())
    rows = []
    for name, feed in feeds.items():
        values = macro[["timestamp", feed.symbol]].dropna()
        with writing(folder / f"{feed.symbol}.csv") as temporary:
            dates = values["timestamp"].dt.strftime("%Y-%m-%d")
            pd.DataFrame({"date": dates, "value": values[feed.symbol]}).to_csv(temporary, index=False)
        rows.append(
            {"series": feed.symbol, "meaning": SERIES[name].meaning, "rows": len(values), "first": dates.iloc[0], "last": dates.iloc[-1]}
        )
    return rows


def _closes(vendor: Vendor, feed: Feed, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    request = Request(feed.symbol, pd.Timedelta(days=1), start, end, "raw")
    return pd.concat([page.frame for page in vendor.pages(request)], ignore_index=True)[["timestamp", "close"]]


def _getter(proxy: str | None, url: str) -> Any:
    """A function that fetches FRED's pages, from another address if told, with timeouts and retries."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=_RETRY))
    proxies = {"http": proxy, "https": proxy} if proxy else None

    def get(asked: str) -> bytes:
        try:
            answer = session.get(asked.replace(FRED_URL, url), timeout=TIMEOUT, proxies=proxies)
        except requests.RequestException as error:
            raise VendorDown(f"FRED did not answer: {type(error).__name__}; check the network or PLOUTOS_PROXY, then try again") from error
        if answer.status_code != requests.codes.ok:
            raise VendorDown(f"FRED answered with status {answer.status_code}; expected 200; try again later")
        return answer.content

    return get
