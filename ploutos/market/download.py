"""Bars from a vendor into the dataset: built once, brought up to date, resumed after whatever ended the process.

Every page lies on disk, with the token of the next one, before that one is requested. A series is stored when its last
page is there; a build that was killed and is run again ends in the same bytes as one that was not. Adjusted prices of the
past change with every dividend, so what is added must agree with what is stored, or the whole series is downloaded again.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from ploutos.errors import CredentialsError, DataError, NoData, RateLimited, VendorDown
from ploutos.market.data_spec import VENDOR_TIMEFRAME, DataSpec, vendor_symbols
from ploutos.market.dataset import Dataset, Series, SeriesKey, Span, checked, read_frame, write_frame
from ploutos.market.sources.vendor import Adjustment, Page, Request, Vendor
from ploutos.store import writing

logger = logging.getLogger(__name__)

OVERLAP_BARS = 50
"""Stored bars that are fetched once more when a series is extended."""
TOLERANCE = 1e-4
"""Largest relative difference of a price between two downloads of the same bar."""
_SETTLING = pd.Timedelta(days=1)
"""What ended later than this does not count as fetched: a free feed is late, and a day of crypto ends in the next one's morning."""
_PASSING = (RateLimited, VendorDown, CredentialsError)
_PRICES = ["open", "high", "low", "close"]

Status = Literal["unchanged", "created", "extended", "rewritten"]


class Progress(Protocol):
    """Told after each page; rows and pages are those of the symbol's download so far, earlier runs included."""

    def __call__(self, symbol: str, rows: int, pages: int) -> None: ...


@dataclass(frozen=True)
class SeriesResult:
    """What became of one series.

    Attributes:
        status: `unchanged`: no bar differs; `rewritten`: downloaded again from its start, because of `note`.
        rows: bars stored now.
        added: how many more than before.
        pages: pages fetched in this run.
        note: why it was downloaded again; empty otherwise.
    """

    key: SeriesKey
    status: Status
    rows: int
    added: int
    pages: int
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """A symbol whose bars did not come, and why, in one sentence."""

    symbol: str
    error: str


@dataclass(frozen=True)
class BuildResult:
    """Series that are stored, and symbols that failed; both in the order asked."""

    series: tuple[SeriesResult, ...]
    failures: tuple[Failure, ...]

    def table(self) -> list[dict[str, Any]]:
        """A row per symbol, those that failed last."""
        return [
            *({"symbol": each.key.symbol, "status": each.status, "bars": each.rows, "new": each.added, "note": each.note}
              for each in self.series),
            *({"symbol": each.symbol, "status": "failed", "bars": 0, "new": 0, "note": each.error} for each in self.failures),
        ]  # fmt: skip


def build(
    dataset: Dataset, vendor: Vendor, requests: Sequence[Request], progress: Progress | None = None,
    *, allow_partial: bool = False, now: pd.Timestamp | None = None,
) -> BuildResult:  # fmt: skip
    """Make the dataset hold what is requested; fetch only what it lacks.

    Args:
        requests: one per symbol; a span beyond `now` is fetched as far as there are bars.
        allow_partial: return the symbols that failed instead of raising.
        now: UTC; the clock by default.

    Raises:
        DataError: symbols failed; it is the first one's error, and its sentence names all. The other symbols are stored.
        StoreError: the disk is full or the folder cannot be written.
    """
    return _each(dataset, vendor, requests, progress, allow_partial, now or pd.Timestamp.now("UTC"), refresh=False)


def update(
    dataset: Dataset, vendor: Vendor, adjustment: Adjustment, timeframe: pd.Timedelta, symbols: Sequence[str] = (),
    progress: Progress | None = None, *, allow_partial: bool = False, now: pd.Timestamp | None = None,
) -> BuildResult:  # fmt: skip
    """Fetch what came after the stored bars, and the last of those again.

    Args:
        symbols: which; empty means every stored one of this vendor, adjustment and timeframe.

    Raises:
        DataError: as `build`; also when a symbol is not stored.
        StoreError: the disk is full or the folder cannot be written.
    """
    now = now or pd.Timestamp.now("UTC")
    keys = dataset.select(vendor.name, adjustment, timeframe, symbols)
    requests = []
    for line in dataset.summary():
        if line.key in keys:
            start, end = (line.requested[0][0], line.requested[-1][1]) if line.requested else (line.first, now)
            requests.append(Request(line.key.symbol, timeframe, start, max(now, end), adjustment))
    return _each(dataset, vendor, requests, progress, allow_partial, now, refresh=True)


def bring(
    dataset: Dataset, vendor: Vendor, spec: DataSpec, start: date | None, end: date | None, progress: Progress | None = None,
    *, allow_partial: bool = False,
) -> BuildResult:  # fmt: skip
    """Make the dataset hold a span of what a source trades, or bring up to date what is stored of it.

    Args:
        spec: of the source; without symbols, everything that is stored of its vendor is brought up to date.
        start: first day of the span; None to bring up to date.
        end: exclusive; None means now.

    Raises:
        DataError, StoreError: as `build` and `update`.
    """
    bar, symbols = spec.bar or VENDOR_TIMEFRAME, list(vendor_symbols(spec)) if start is not None or spec.symbols else []
    if start is None:
        return update(dataset, vendor, spec.adjustment, bar, symbols, progress, allow_partial=allow_partial)
    first, last = pd.Timestamp(start, tz="UTC"), pd.Timestamp.now("UTC").ceil("D") if end is None else pd.Timestamp(end, tz="UTC")
    requests = [Request(symbol, bar, first, last, spec.adjustment) for symbol in symbols]
    return build(dataset, vendor, requests, progress, allow_partial=allow_partial)


def _each(
    dataset: Dataset,
    vendor: Vendor,
    requests: Sequence[Request],
    progress: Progress | None,
    allow_partial: bool,
    now: pd.Timestamp,
    refresh: bool,
) -> BuildResult:
    series, failed = [], {}
    for request in requests:
        key = SeriesKey(vendor.name, request.adjustment, request.timeframe, request.symbol)
        try:
            with dataset.working(key) as folder:
                job = _Job(dataset, vendor, key, now, _Checkpoint(folder), progress)
                result = job.run(request, refresh)
        except DataError as error:
            logger.info("%s failed: %s", request.symbol, error)
            failed[request.symbol] = error
        else:
            logger.info("%s is %s: %d bars, %d new", request.symbol, result.status, result.rows, result.added)
            series.append(result)
    if failed and not allow_partial:
        symbol, first = next(iter(failed.items()))
        rest = f"; the other {len(series)} are stored" if series else ""
        sentence = f"{len(failed)} of {len(requests)} symbols failed: {', '.join(failed)}{rest}; {symbol}: {first}"
        raise type(first)(sentence, *first.args[1:]) from first
    return BuildResult(tuple(series), tuple(Failure(symbol, str(error)) for symbol, error in failed.items()))


@dataclass(frozen=True)
class _Plan:
    """A span to download.

    Attributes:
        settled: bars that start before it are final; later ones are stored and will be requested again.
        whole: what comes takes the place of the series instead of being added.
        note: why a stored series is downloaded again.
    """

    start: pd.Timestamp
    end: pd.Timestamp
    settled: pd.Timestamp
    whole: bool
    note: str = ""


class _Checkpoint:
    """The pages of one plan that are fetched and not stored yet: a file each, with the plan and the next page's token."""

    def __init__(self, folder: Path) -> None:
        self._parts = folder / "parts"
        self._old = folder / "old"
        shutil.rmtree(self._old, ignore_errors=True)
        self._frames: list[pd.DataFrame] = []
        self.plan: _Plan | None = None
        self.token: str | None = None
        try:
            self._load()
        except DataError as error:
            logger.warning("%s; its pages are fetched again", error)
            self.clear()

    @property
    def pages(self) -> int:
        return len(self._frames)

    @property
    def rows(self) -> int:
        return sum(map(len, self._frames))

    @property
    def complete(self) -> bool:
        return bool(self._frames) and self.token is None

    def frame(self) -> pd.DataFrame:
        """All bars so far; at least one page must be there."""
        return pd.concat(self._frames, ignore_index=True)

    def add(self, plan: _Plan, page: Page) -> None:
        moments = {name: getattr(plan, name).isoformat() for name in ("start", "end", "settled")}
        with writing(self._file(self.pages)) as temporary:
            write_frame(temporary, page.frame, {**moments, "whole": plan.whole, "note": plan.note, "token": page.token})
        self._frames.append(page.frame)
        self.plan, self.token = plan, page.token

    def clear(self) -> None:
        """Forget the pages, all at once: the folder is renamed before it is emptied."""
        if self._parts.exists():
            self._parts.rename(self._old)
            shutil.rmtree(self._old)
        self._frames, self.plan, self.token = [], None, None

    def _file(self, number: int) -> Path:
        return self._parts / f"{number:06d}.part"

    def _load(self) -> None:
        while (file := self._file(self.pages)).is_file():
            frame, about = read_frame(file.read_bytes(), str(file))
            moments = {name: pd.Timestamp(about[name]) for name in ("start", "end", "settled")}
            self.plan = _Plan(**moments, whole=about["whole"], note=about["note"])
            self.token = about["token"]
            self._frames.append(frame)


class _Job:
    """One series of one run, held against other processes."""

    def __init__(
        self, dataset: Dataset, vendor: Vendor, key: SeriesKey, now: pd.Timestamp, checkpoint: _Checkpoint, progress: Progress | None
    ) -> None:
        self.dataset = dataset
        self.vendor = vendor
        self.key = key
        self.settled = now - key.timeframe - _SETTLING
        self.checkpoint = checkpoint
        self.progress = progress
        self.pages = 0
        self.note = ""

    def run(self, asked: Request, refresh: bool) -> SeriesResult:
        before, asked = self._standing(asked)
        stored, plan, started = before, self._plan(before, asked, refresh), self.checkpoint.plan
        if plan is None or started is None or not self._leads_to(plan, started, before, asked):
            self.checkpoint.clear()
        elif started.end < plan.end:  # finish what was begun with an older end, then continue from there
            stored = self._carry_out(started, before)
            plan = self._plan(stored, asked, refresh)
        else:
            plan = started
        if plan is not None:
            stored = self._carry_out(plan, stored)
        assert stored is not None  # there is always a plan for a series that is not stored
        return self._result(before, stored)

    def _standing(self, asked: Request) -> tuple[Series | None, Request]:
        """What is stored, and what to request: of a damaged file, all that it held as well."""
        try:
            return self.dataset.recover(self.key), asked
        except DataError as error:
            logger.warning("%s", error)
            self.note = "the stored file was damaged; downloaded again in full"
            held = [span for line in self.dataset.summary() if line.key == self.key for span in line.requested]
            return None, replace(asked, start=min([asked.start, *(s for s, _ in held)]), end=max([asked.end, *(e for _, e in held)]))

    def _plan(self, stored: Series | None, asked: Request, refresh: bool) -> _Plan | None:
        """What is to be downloaded; None when all of it is there."""
        around = self._around(stored, asked)
        if stored is None or around is None:
            return self._whole(stored, asked, self.note)
        if not refresh and min(asked.end, self.settled) <= around[1]:
            return None
        times = stored.frame["timestamp"]
        tail = times[(times >= around[0]) & (times < around[1])].iloc[-OVERLAP_BARS:]
        start = around[0] if tail.empty else tail.iloc[0]
        return _Plan(start, asked.end, min(asked.end, self.settled), whole=False)

    def _whole(self, stored: Series | None, asked: Request, note: str) -> _Plan:
        spans = [(asked.start, asked.end), *(stored.requested if stored else ())]
        end = max(end for _, end in spans)
        return _Plan(min(start for start, _ in spans), end, min(end, self.settled), whole=True, note=note)

    @staticmethod
    def _around(stored: Series | None, asked: Request) -> Span | None:
        """The stored span in which the asked one begins."""
        spans = stored.requested if stored else ()
        return next((span for span in spans if span[0] <= asked.start <= span[1]), None)

    def _leads_to(self, plan: _Plan, started: _Plan, stored: Series | None, asked: Request) -> bool:
        """Whether an unfinished download is a beginning of what is to be done."""
        whole = self._whole(stored, asked, "")
        return (started.start, started.whole) in {(plan.start, plan.whole), (whole.start, True)} and started.end <= whole.end

    def _carry_out(self, plan: _Plan, stored: Series | None) -> Series:
        frame = self._fetch(plan)
        self.note = self.note or plan.note
        if not plan.whole and stored is not None and (note := self._disagreement(stored, frame, plan)):
            self.checkpoint.clear()
            logger.warning("%s: %s", self.key.symbol, note)
            span = Request(self.key.symbol, self.key.timeframe, plan.start, plan.end, self.key.adjustment)
            return self._carry_out(self._whole(stored, span, note), stored)
        self.dataset.upsert(self.key, frame, (plan.start, plan.settled), replace=plan.whole)
        self.checkpoint.clear()
        return self.dataset.load(self.key)

    def _fetch(self, plan: _Plan) -> pd.DataFrame:
        """All bars of a plan, those of earlier runs from their checkpoint."""
        symbol, checkpoint = self.key.symbol, self.checkpoint
        asked = f"{symbol} from {plan.start} to {plan.end}"
        if not checkpoint.complete:
            request = Request(symbol, self.key.timeframe, plan.start, plan.end, self.key.adjustment)
            resumed_at = checkpoint.pages
            try:
                for page in self.vendor.pages(request, checkpoint.token):
                    frame = checked(page.frame, f"a page of {self.vendor.name}")
                    if not frame["timestamp"].between(plan.start, plan.end, inclusive="left").all():
                        raise VendorDown(f"{self.vendor.name} answered with bars outside what was requested, {asked}; run again")
                    checkpoint.add(plan, Page(frame, page.token))
                    self.pages += 1
                    if self.progress:
                        self.progress(symbol, checkpoint.rows, checkpoint.pages)
            except DataError as error:
                if checkpoint.pages == resumed_at and not isinstance(error, _PASSING):  # perhaps it is the old token that is refused
                    checkpoint.clear()
                raise
        if checkpoint.pages and not checkpoint.complete:
            raise VendorDown(f"{self.vendor.name} ended in the middle of {asked}; run again to continue from there")
        if not checkpoint.rows:
            checkpoint.clear()
            raise NoData(f"{self.vendor.name} has no bars of {asked}; request another span")
        return checkpoint.frame()

    def _disagreement(self, stored: Series, fetched: pd.DataFrame, plan: _Plan) -> str:
        """How the fetched bars contradict the stored ones, as a sentence; empty when they do not."""
        before = stored.frame[stored.frame["timestamp"].between(plan.start, plan.end, inclusive="left")]
        both = before.merge(fetched, on="timestamp", suffixes=("", "_fetched"))
        old, new = both[_PRICES].to_numpy(), both[[f"{name}_fetched" for name in _PRICES]].to_numpy()
        apart = (np.abs(new - old) > TOLERANCE * np.abs(old)).any(axis=1)
        if not apart.any() and len(both) == len(before):
            return ""
        found = f"{len(before) - len(both)} are gone" if len(both) < len(before) else f"first {both['timestamp'][int(apart.argmax())]}"
        what = "raw prices of the past" if self.key.adjustment == "raw" else "the adjusted past"
        differing = f"{int(apart.sum())} of {len(before)} overlapping bars differ, {found}"
        return f"{self.vendor.name} changed {what}: {differing}; downloaded again in full"

    def _result(self, before: Series | None, after: Series) -> SeriesResult:
        rows = len(before.frame) if before else 0
        status: Status = "extended"
        if before is not None and before.frame.equals(after.frame):
            status = "unchanged"
        elif self.note:
            status = "rewritten"
        elif before is None:
            status = "created"
        return SeriesResult(self.key, status, len(after.frame), len(after.frame) - rows, self.pages, self.note)
