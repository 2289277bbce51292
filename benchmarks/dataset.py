"""Building, updating and reading the local dataset: `python -m benchmarks.dataset [--file BARS.parquet]`.

Two vendors: one that answers from memory, so that what is left is our own cost (pages into checkpoints, checkpoints into
series, series into a checked frame), and Alpaca, unpaced, against the tests' server in another process. Pages are full
(10,000 bars) or as short as Alpaca's are for hourly bars (167). Each case runs in its own process; memory is that
process's, before the build and at its peak. Nothing here asserts a time.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
import pandas as pd
import psutil
from rich.console import Console
from rich.table import Table

from ploutos.market import download
from ploutos.market.bars import infer_timeframe
from ploutos.market.dataset import COLUMNS, Dataset
from ploutos.market.quality import check_bars
from ploutos.market.sources.vendor import Page, Request, Vendor

N_SYMBOLS, N_BARS = 15, 10_548  # six years of regular hours
PAGE_ROWS = (10_000, 167)


class MemoryVendor:
    """Pages of bars that are in memory already."""

    name = "memory"

    def __init__(self, frames: dict[str, pd.DataFrame], page_rows: int) -> None:
        self.frames = frames
        self.page_rows = page_rows

    def pages(self, request: Request, token: str | None = None) -> Iterator[Page]:
        times = self.frames[request.symbol]["timestamp"]
        first, last = times.searchsorted(request.start), times.searchsorted(request.end)
        at = first if token is None else int(token)
        while True:
            end = min(at + self.page_rows, last)
            yield Page(self.frames[request.symbol].iloc[at:end].reset_index(drop=True), str(end) if end < last else None)
            if end == last:
                return
            at = end


def random_walk() -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(0)
    hours = pd.date_range("2020-01-01", periods=N_BARS, freq="1h", tz="UTC").as_unit("us")
    frames = {}
    for n in range(N_SYMBOLS):
        close = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.004, N_BARS))), 2)
        columns = {"open": close, "high": close + 0.5, "low": close - 0.5, "close": close}
        frames[f"S{n:02}"] = pd.DataFrame({"timestamp": hours, **columns, "volume": random.integers(1, 10**7, N_BARS) * 1.0})
    return frames


def from_file(path: Path) -> dict[str, pd.DataFrame]:
    """Series of a long parquet (symbol, timestamp in UTC, OHLCV)."""
    long = pd.read_parquet(path)
    frames = {}
    for symbol, frame in long.groupby("symbol"):
        frame = frame[list(COLUMNS)].astype(dict.fromkeys(COLUMNS[1:], "float64")).sort_values("timestamp", ignore_index=True)
        frames[str(symbol)] = frame.assign(timestamp=frame["timestamp"].dt.tz_convert("UTC").dt.as_unit("us"))
    return frames


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def around(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*args, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - started

        return measured


class TimedVendor:
    """A vendor whose pages are timed."""

    def __init__(self, vendor: Vendor, watch: Stopwatch) -> None:
        self.name = vendor.name
        self._vendor = vendor
        self._next = watch.around("  vendor's pages", lambda pages: next(pages, None))

    def pages(self, request: Request, token: str | None = None) -> Iterator[Page]:
        pages = self._vendor.pages(request, token)
        while (page := self._next(pages)) is not None:
            yield page


@dataclass(frozen=True)
class Figures:
    seconds: dict[str, float]
    n_pages: int
    disk_bytes: int
    resident_mib: float
    peak_mib: float


def measure(vendor: Vendor, requests: list[Request], root: Path, watch: Stopwatch) -> Figures:
    """Build, build again, update, read and check; every series is asked for up to the last request's end."""
    dataset = Dataset(root)
    now = max(request.end for request in requests) + pd.Timedelta(days=2)
    resident = psutil.Process().memory_info().rss / 2**20
    download._Checkpoint.add = watch.around("  checkpoints", download._Checkpoint.add)  # type: ignore[method-assign]
    Dataset.upsert = watch.around("  series files", Dataset.upsert)  # type: ignore[method-assign]
    result = watch.around("build", download.build)(dataset, TimedVendor(vendor, watch), requests, now=now)
    during = dict(watch.seconds)
    watch.around("build again: all is there", download.build)(dataset, vendor, requests, now=now)
    shelf = (vendor.name, requests[0].adjustment, requests[0].timeframe)
    watch.around("update: nothing is new", download.update)(dataset, vendor, *shelf[1:], now=now)
    frame = watch.around("read", dataset.read)(*shelf)
    watch.around("check", check_bars)(frame, vendor.name)
    stages = {"build": during.pop("build"), **during} | {name: took for name, took in watch.seconds.items() if name[0] in "bur"}
    return Figures(
        seconds=stages | {"check": watch.seconds["check"]},
        n_pages=sum(line.pages for line in result.series),
        disk_bytes=sum(line.bytes for line in dataset.summary()),
        resident_mib=resident,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def serve_alpaca(frames: dict[str, pd.DataFrame], page_rows: int, pipe: Connection) -> None:
    from tests.servers.fake_alpaca import FakeAlpaca, serving

    with serving(FakeAlpaca(frames, page_rows)) as url:
        pipe.send(url)
        pipe.recv()


@contextmanager
def alpaca(frames: dict[str, pd.DataFrame], page_rows: int, watch: Stopwatch) -> Iterator[Vendor]:
    """The real vendor on a server in another process."""
    from ploutos.market.sources import alpaca as rooms
    from tests.servers.fake_alpaca import KEY, SECRET

    rooms.parse_bars = watch.around("    of them, parsing", rooms.parse_bars)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_alpaca, args=(frames, page_rows, theirs))
    server.start()
    try:
        yield rooms.Alpaca(KEY, SECRET, url=ours.recv(), requests_per_minute=1e9)
    finally:
        ours.send("done")
        server.join()


@contextmanager
def memory(frames: dict[str, pd.DataFrame], page_rows: int, watch: Stopwatch) -> Iterator[Vendor]:
    yield MemoryVendor(frames, page_rows)


VENDORS = {"memory": memory, "alpaca": alpaca}


def run_case(file: Path | None, vendor_name: str, page_rows: int, pipe: Connection) -> None:
    frames = from_file(file) if file else random_walk()
    timeframe = infer_timeframe(next(iter(frames.values()))["timestamp"])
    start, end = min(f["timestamp"].iloc[0] for f in frames.values()), max(f["timestamp"].iloc[-1] for f in frames.values())
    requests = [Request(symbol, timeframe, start, end + timeframe) for symbol in frames]
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, VENDORS[vendor_name](frames, page_rows, watch) as vendor:
        figures = measure(vendor, requests, Path(folder), watch)
    pipe.send((len(frames), sum(map(len, frames.values())), figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, help="long parquet: symbol, timestamp (UTC), OHLCV; a random walk by default")
    file = parser.parse_args().file
    console = Console(width=110)
    for vendor, page_rows in product(VENDORS, PAGE_ROWS):
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=run_case, args=(file, vendor, page_rows, theirs))
        child.start()
        theirs.close()
        n_symbols, n_rows, figures = ours.recv()
        child.join()
        title = f"{n_symbols} symbols, {n_rows:,} bars from {file.name if file else 'a random walk'}, {vendor}, {page_rows:,} bars a page"
        console.print(title, highlight=False)
        table = Table()
        for heading in ("stage", "s", "rows/s"):
            table.add_column(heading, justify="left" if heading == "stage" else "right")
        for stage, seconds in figures.seconds.items():
            table.add_row(stage, f"{seconds:.2f}", f"{n_rows / seconds:,.0f}")
        console.print(table)
        console.print(
            f"{figures.n_pages} pages, {figures.disk_bytes / 2**20:.1f} MiB on disk; memory {figures.resident_mib:.0f} MiB before, "
            f"{figures.peak_mib:.0f} MiB at the peak\n"
        )


if __name__ == "__main__":
    main()
