"""Our reading of Alpaca's pages against its own client's, on the same 95,000 bars; `python -m benchmarks.parsing`.

The pages come over HTTP from a server on this machine, once, and both sides read the same answers: ours straight into
columns, the client's into an object per bar and from those into a frame (`BarSet(...).df`). The two alternate, and each
ratio is taken within its round. Memory is the peak of what each side allocates, by tracemalloc, in a pass of its own,
because tracing slows down. Nothing here asserts a time.
"""

import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ploutos.market.sources.alpaca import Alpaca, parse_bars
from ploutos.market.sources.vendor import Request
from tests.servers.fake_alpaca import KEY, SECRET, FakeAlpaca, random_bars, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from alpaca.data.historical import StockHistoricalDataClient
    from alpaca.data.models.bars import BarSet

SYMBOLS, BARS_EACH, ROUNDS = ("DIA", "IWM", "QQQ", "SPY"), 23_773, 5
Answers = list[dict[str, Any]]


def fetch(url: str) -> Answers:
    """Every page as the client's own JSON, 10,000 bars at most in each."""
    client = StockHistoricalDataClient(KEY, SECRET, raw_data=True, url_override=url)
    query = {"symbols": ",".join(SYMBOLS), "timeframe": "1Hour", "start": "2000-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z"}
    pages: Answers = []
    while not pages or pages[-1]["next_page_token"]:
        token = pages[-1]["next_page_token"] if pages else None
        pages.append(client.get("/stocks/bars", {**query, "limit": 10_000, "page_token": token}))  # type: ignore[arg-type]
    return pages


def ours(pages: Answers) -> dict[str, pd.DataFrame]:
    found: dict[str, list[pd.DataFrame]] = {symbol: [] for symbol in SYMBOLS}
    for page in pages:
        for symbol, bars in page["bars"].items():
            found[symbol].append(parse_bars(bars))
    return {symbol: pd.concat(frames, ignore_index=True) for symbol, frames in found.items()}


def theirs(pages: Answers) -> pd.DataFrame:
    joined: dict[str, list[Any]] = {symbol: [] for symbol in SYMBOLS}
    for page in pages:
        for symbol, bars in page["bars"].items():
            joined[symbol].extend(bars)
    return BarSet(joined).df


def seconds(read: Callable[[Answers], object], pages: Answers) -> float:
    started = time.perf_counter()
    read(pages)
    return time.perf_counter() - started


def peak_mib(read: Callable[[Answers], object], pages: Answers) -> float:
    tracemalloc.start()
    read(pages)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def check_equal(pages: Answers) -> int:
    """Both sides give the same bars; returns how many."""
    whole = theirs(pages)
    for symbol, frame in ours(pages).items():
        pd.testing.assert_frame_equal(frame, whole.loc[symbol].reset_index()[list(frame.columns)], check_dtype=False)
    return len(whole)


def vendor_seconds(url: str) -> float:
    """From the first request to the last frame, for every symbol, without pacing."""
    vendor = Alpaca(KEY, SECRET, url=url, requests_per_minute=1e9)
    span = pd.Timestamp("2000-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
    started = time.perf_counter()
    for symbol in SYMBOLS:
        list(vendor.pages(Request(symbol, pd.Timedelta(hours=1), *span)))
    return time.perf_counter() - started


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # pandas' to the client
    stamps = pd.date_range("2018-01-01", periods=BARS_EACH, freq="h", tz="UTC", unit="us")
    fake = FakeAlpaca({symbol: random_bars(stamps, seed) for seed, symbol in enumerate(SYMBOLS)})
    with serving(fake) as url:
        pages = fetch(url)
        through = vendor_seconds(url)
    rows = check_equal(pages)
    took: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        took["ours"].append(seconds(ours, pages))
        took["theirs"].append(seconds(theirs, pages))
    ratio = statistics.median(slow / fast for slow, fast in zip(took["theirs"], took["ours"], strict=True))
    table = Table(title=f"{rows:,} bars in {len(pages)} pages, median of {ROUNDS} rounds, the same answers for both")
    for heading in ("reading", "seconds", "rows/s", "ratio", "peak MiB"):
        table.add_column(heading, justify="left" if heading == "reading" else "right")
    for name, read, label, times in (
        ("alpaca-py: BarSet and .df", theirs, "theirs", 1.0),
        ("ploutos: parse_bars", ours, "ours", ratio),
    ):
        middle = statistics.median(took[label])
        table.add_row(name, f"{middle:.3f}", f"{rows / middle:,.0f}", f"{times:.1f}", f"{peak_mib(read, pages):.1f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"server, HTTP, JSON, parse and filter together, unpaced: {rows / through:,.0f} rows/s")


if __name__ == "__main__":
    main()
