"""The local dataset: the same bytes whatever happened on the way, and no bar that a vendor did not give."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ploutos.errors import DataError, NoData, RateLimited, StoreError, UnknownSymbol, VendorDown, VendorError
from ploutos.market.data_spec import DataSpec
from ploutos.market.dataset import MANIFEST, Dataset, SeriesKey, timeframe_name
from ploutos.market.download import OVERLAP_BARS, bring, build, update
from ploutos.market.sources.vendor import Page, Request

HOUR = pd.Timedelta(hours=1)
START, END, NOW = (pd.Timestamp(f"2024-0{month}-01", tz="UTC") for month in (1, 6, 7))
SPY = SeriesKey("fake-sip", "total_return", HOUR, "SPY")
KILLS = 20


def walk(seed: int, n_bars: int = 400) -> pd.DataFrame:
    """Hourly bars from START on with some hours missing."""
    random = np.random.default_rng(seed)
    hours = np.sort(random.choice(n_bars * 2, n_bars, replace=False))
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, n_bars)))
    columns = {"open": close * 1.001, "high": close * 1.01, "low": close * 0.99, "close": close}
    frame = pd.DataFrame({"timestamp": START + hours * HOUR, **columns, "volume": random.integers(0, 10**6, n_bars) * 1.0})
    frame["timestamp"] = frame["timestamp"].dt.as_unit("us")
    return frame


@dataclass
class FakeVendor:
    """Bars in memory, by pages; every third page is empty and has a token all the same."""

    bars: dict[str, pd.DataFrame]
    name: str = "fake-sip"
    page_rows: int = 60
    log: Path | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    faults: dict[str, tuple[int, Exception]] = field(default_factory=dict)

    def pages(self, request: Request, token: str | None = None) -> Iterator[Page]:
        if request.symbol not in self.bars:
            raise UnknownSymbol(f"fake-sip has no symbol {request.symbol}; check its name")
        frame = self.bars[request.symbol]
        frame = frame[frame["timestamp"].between(request.start, request.end, inclusive="left")].reset_index(drop=True)
        at, number = map(int, token.split(":")) if token else (0, 0)
        while token is not None or number == 0:
            self.asked.append((request.symbol, token))
            if self.log:
                with self.log.open("a") as log:
                    log.write(f"{request.symbol} {token}\n")
            if request.symbol in self.faults and self.faults[request.symbol][0] == number:
                raise self.faults[request.symbol][1]
            rows = 0 if number % 3 == 1 else self.page_rows
            page, at, number = frame.iloc[at : at + rows].reset_index(drop=True), at + rows, number + 1
            token = f"{at}:{number}" if at < len(frame) else None
            yield Page(page, token)


def three_symbols(factor: float = 1.0, n_bars: int = 400) -> dict[str, pd.DataFrame]:
    bars = {symbol: walk(seed, n_bars) for seed, symbol in enumerate(("SPY", "BTC/USD", "NQ=F"))}
    for frame in bars.values():
        frame[["open", "high", "low", "close"]] *= factor
    return bars


def requests(symbols=("SPY", "BTC/USD", "NQ=F"), start=START, end=END, adjustment="total_return") -> list[Request]:
    return [Request(symbol, HOUR, start, end, adjustment) for symbol in symbols]


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones and leftovers as well."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def read(dataset: Dataset, symbol: str = "SPY", adjustment="total_return") -> pd.DataFrame:
    return dataset.read("fake-sip", adjustment, HOUR, (symbol,)).drop(columns="symbol")


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return Dataset(tmp_path / "datasets")


# The file


def test_what_is_built_is_what_the_vendor_has(dataset):
    vendor = FakeVendor(three_symbols())
    result = build(dataset, vendor, requests(), now=NOW)
    assert [(line.status, line.rows, line.added, line.note) for line in result.series] == [("created", 400, 400, "")] * 3
    for symbol, frame in vendor.bars.items():
        pd.testing.assert_frame_equal(read(dataset, symbol), frame)
    long = dataset.read("fake-sip", "total_return", HOUR)
    assert list(long.columns) == ["symbol", "timestamp", "open", "high", "low", "close", "volume"]
    assert list(long["symbol"].unique()) == ["BTC/USD", "NQ=F", "SPY"]
    assert str(long["timestamp"].dtype) == "datetime64[us, UTC]"


def test_the_same_build_twice_asks_nothing_and_writes_nothing_and_elsewhere_gives_the_same_bytes(dataset, tmp_path):
    build(dataset, FakeVendor(three_symbols()), requests(), now=NOW)
    written = {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*") if path.is_file()}
    vendor = FakeVendor(three_symbols())
    result = build(dataset, vendor, requests(), now=NOW + HOUR)
    assert vendor.asked == []
    assert {line.status for line in result.series} == {"unchanged"}
    assert {path: path.stat().st_mtime_ns for path in dataset.root.rglob("*") if path.is_file()} == written
    build(Dataset(tmp_path / "other"), FakeVendor(three_symbols(), page_rows=7), requests(), now=NOW)
    assert tree(tmp_path / "other") == tree(dataset.root)


def test_pyarrow_and_pandas_read_the_tree_as_it_is(dataset):
    build(dataset, FakeVendor(three_symbols()), requests(), now=NOW)
    with dataset.working(SPY) as folder:
        (folder / "leftover.part").write_text("not parquet")
    for frame in (
        pyarrow.dataset.dataset(dataset.root, format="parquet", partitioning="hive").to_table().to_pandas(),
        pd.read_parquet(dataset.root),
    ):
        assert len(frame) == 1200
        assert set(frame["symbol"]) == {"SPY", "BTC/USD", "NQ=F"}
        assert set(frame["source"]) == {"fake-sip"}
        assert set(frame["timeframe"]) == {"1h"}
        assert str(frame["timestamp"].dtype) == "datetime64[us, UTC]"


def test_the_footer_says_where_the_bars_come_from(dataset):
    build(dataset, FakeVendor(three_symbols()), requests(), now=NOW)
    key = replace(SPY, symbol="NQ=F")
    about = json.loads(pq.read_schema(dataset.path(key)).metadata[b"ploutos"])
    assert len(about.pop("content_sha256")) == 64
    assert about.pop("client").startswith("ploutos ")
    assert about == {
        "schema_version": 1, "source": "fake-sip", "adjustment": "total_return", "timeframe": "1h", "vendor_symbol": "NQ=F",
        "label": "start", "tz": "UTC", "requested": [["2024-01-01T00:00:00+00:00", "2024-06-01T00:00:00+00:00"]], "rows": 400,
    }  # fmt: skip
    assert pq.ParquetFile(dataset.path(key)).metadata.row_group(0).column(0).compression == "ZSTD"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.sampled_from(["1min", "15min", "90min", "1h", "4h", "1D"]),
)
def test_any_symbol_makes_a_folder_of_one_level_and_comes_back(symbol, timeframe):
    key = SeriesKey("yahoo", "raw", pd.Timedelta(timeframe), symbol)
    assert len(Path(key.folder).parts) == 4
    assert key.folder.isascii()
    assert timeframe_name(key.timeframe) == timeframe
    assert SeriesKey.of_folder(key.folder) == key


@pytest.mark.parametrize("length", ["30s", "90s", "2D", "0s"])
def test_a_bar_of_odd_length_is_refused(length):
    with pytest.raises(DataError, match="expected whole minutes, from 1min to 1D"):
        timeframe_name(pd.Timedelta(length))


@st.composite
def overlapping_pieces(draw):
    """Pieces of one frame that cover it, overlap, and come in any order, some of them twice."""
    n_bars = draw(st.integers(2, 30))
    cuts = draw(st.lists(st.integers(0, n_bars), max_size=4))
    edges = sorted({0, n_bars, *cuts})
    pieces = [(max(0, a - draw(st.integers(0, 3))), b) for a, b in itertools.pairwise(edges)]
    pieces += draw(st.lists(st.sampled_from(pieces), max_size=2))
    return n_bars, draw(st.permutations(pieces))


@settings(deadline=None, max_examples=25)
@given(overlapping_pieces())
def test_pieces_in_any_order_give_the_bytes_of_the_whole(tmp_path_factory, drawn):
    n_bars, pieces = drawn
    whole = walk(3, n_bars)
    edges = [*whole["timestamp"], END]
    expected, got = (Dataset(tmp_path_factory.mktemp("pieces")) for _ in range(2))
    assert expected.upsert(SPY, whole, (edges[0], END))
    for a, b in pieces:
        got.upsert(SPY, whole.iloc[a:b].sample(frac=1, random_state=0), (edges[a], edges[b]))
    assert tree(got.root) == tree(expected.root)
    assert not got.upsert(SPY, whole, (edges[0], END))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10)), min_size=1, max_size=6))
def test_of_two_bars_at_one_time_the_later_one_wins(tmp_path_factory, writes):
    dataset, expected = Dataset(tmp_path_factory.mktemp("later")), {}
    times = walk(3, 20)["timestamp"]
    for n, (first, length) in enumerate(writes):
        frame = walk(n, 20).iloc[first : first + length].assign(timestamp=times)
        dataset.upsert(SPY, frame, (START, END))
        expected.update({bar[0]: bar for bar in frame.itertuples(index=False, name=None)})
    assert list(dataset.load(SPY).frame.itertuples(index=False, name=None)) == [expected[stamp] for stamp in sorted(expected)]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda frame: frame.drop(columns="close"), "no column close"),
        (lambda frame: frame.assign(volume=frame["volume"].astype("int64")), "int64 in column volume; expected float64"),
        (lambda frame: frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)), r"datetime64\[us\] in column timestamp"),
        (lambda frame: frame.assign(timestamp=frame["timestamp"].where(frame.index > 0)), "without a timestamp"),
        (lambda frame: frame.iloc[:0], "no bars of SPY to store"),
    ],
)
def test_a_frame_of_another_shape_is_refused(dataset, spoil, sentence):
    with pytest.raises(DataError, match=sentence):
        dataset.upsert(SPY, spoil(walk(0)), (START, END))


def test_feeds_and_adjustments_lie_apart(dataset):
    bars = {"SPY": walk(0)}
    build(dataset, FakeVendor(bars), [*requests(["SPY"]), *requests(["SPY"], adjustment="raw")], now=NOW)
    build(dataset, FakeVendor({"SPY": walk(1)}, name="fake-iex"), requests(["SPY"]), now=NOW)
    assert len(dataset.summary()) == 3
    pd.testing.assert_frame_equal(read(dataset), bars["SPY"])
    source = dataset.path(SPY)
    shutil.copy(source, dataset.path(replace(SPY, source="fake-iex")))
    with pytest.raises(DataError, match="says that it holds fake-sip total_return 1h SPY; expected what its folder says"):
        dataset.recover(replace(SPY, source="fake-iex"))


def test_the_summary_has_rows_dates_and_bytes(dataset):
    build(dataset, FakeVendor(three_symbols()), requests(), now=NOW)
    line = dataset.summary()[-1]
    frame = three_symbols()["SPY"]
    assert line.key == SPY
    assert (line.rows, line.first, line.last) == (400, frame["timestamp"].iloc[0], frame["timestamp"].iloc[-1])
    assert line.bytes == dataset.path(SPY).stat().st_size


def test_the_identity_changes_when_a_bar_does_and_not_when_only_more_was_asked_for(dataset):
    vendor = FakeVendor(three_symbols())
    build(dataset, vendor, requests(), now=NOW)
    before, manifest = dataset.identity("fake-sip", "total_return", HOUR), tree(dataset.root)[MANIFEST]
    build(dataset, vendor, requests(end=END + 24 * HOUR), now=NOW)
    assert tree(dataset.root)[MANIFEST] != manifest
    assert dataset.identity("fake-sip", "total_return", HOUR) == before
    spy = dataset.identity("fake-sip", "total_return", HOUR, ("SPY",))
    changed = read(dataset, "NQ=F").iloc[[7]]
    changed["close"] += 1e-9
    dataset.upsert(replace(SPY, symbol="NQ=F"), changed, (START, END))
    assert dataset.identity("fake-sip", "total_return", HOUR) != before
    assert dataset.identity("fake-sip", "total_return", HOUR, ("SPY",)) == spy


def test_a_missing_series_names_the_command_that_downloads_it(dataset):
    command = "run ploutos data build --source fake-sip --market {} --timeframe 1h --adjustment total_return"
    with pytest.raises(DataError, match=command.format("SYMBOLS")):
        dataset.read("fake-sip", "total_return", HOUR)
    build(dataset, FakeVendor(three_symbols()), requests(["SPY"]), now=NOW)
    with pytest.raises(DataError, match=f"has no fake-sip bars of BTC/USD, QQQ; {command.format('BTC/USD,QQQ')}$"):
        dataset.read("fake-sip", "total_return", HOUR, ("QQQ", "SPY", "BTC/USD"))
    dataset.path(SPY).unlink()
    with pytest.raises(DataError, match=f"does not exist; {command.format('SPY')}"):
        read(dataset)


# Damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def by_pandas(path: Path) -> None:
    pd.read_parquet(path).assign(close=1.0).to_parquet(path)


@pytest.mark.parametrize("damage", [flip, cut, by_pandas])
def test_a_damaged_file_is_refused_and_a_build_downloads_all_that_it_held(dataset, damage):
    vendor = FakeVendor(three_symbols())
    build(dataset, vendor, requests(), now=NOW)
    whole = tree(dataset.root)
    damage(dataset.path(SPY))
    with pytest.raises(DataError, match=r"is damaged: its sha256 is not that in _manifest.json; run ploutos data build .* to repair it"):
        read(dataset)
    assert [SPY.folder in problem for problem in dataset.verify()] == [True]
    with pytest.raises(DataError, match="to download it again"):
        dataset.upsert(SPY, walk(0), (START, END))
    result = build(dataset, vendor, requests(["SPY"], start=START + 100 * HOUR, end=START + 200 * HOUR), now=NOW)
    assert (result.series[0].status, result.series[0].note) == ("rewritten", "the stored file was damaged; downloaded again in full")
    assert tree(dataset.root) == whole
    assert dataset.verify() == ()


def test_a_file_that_the_manifest_does_not_know_is_refused_until_a_build_has_seen_it(dataset):
    build(dataset, FakeVendor(three_symbols()), requests(), now=NOW)
    whole = tree(dataset.root)
    (dataset.root / MANIFEST).unlink()
    with pytest.raises(DataError, match=r"is not in _manifest\.json"):
        dataset.load(SPY)
    assert len(dataset.verify()) == 3
    vendor = FakeVendor({})
    build(dataset, vendor, requests(), now=NOW)
    assert vendor.asked == []
    assert tree(dataset.root) == whole


def test_a_damaged_manifest_says_what_to_do(dataset):
    build(dataset, FakeVendor(three_symbols()), requests(), now=NOW)
    (dataset.root / MANIFEST).write_text('{"series": {')
    for act in (lambda: read(dataset), lambda: build(dataset, FakeVendor({}), requests(), now=NOW)):
        with pytest.raises(DataError, match="delete it and run ploutos data build as before"):
            act()


@pytest.mark.parametrize("name", ["bars", "manifest", "page"])
def test_a_full_disk_leaves_the_old_files_whole(dataset, monkeypatch, name):
    vendor = FakeVendor({"SPY": walk(0)})
    build(dataset, vendor, requests(["SPY"], end=START + 200 * HOUR), now=NOW)
    before = tree(dataset.root)
    write_table, write_text = pq.write_table, Path.write_text

    def full(table, path, **options):
        if (".part" in path.name) == (name == "page") and name != "manifest":
            path.write_bytes(b"PAR1 half of a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        write_table(table, path, **options)

    def full_text(path, text, **options):
        write_text(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        if name == "manifest":
            patched.setattr(Path, "write_text", full_text)
        with pytest.raises(StoreError, match=r"no space left in .* run again"):
            build(dataset, vendor, requests(["SPY"]), now=NOW)
    after = tree(dataset.root)
    assert after[MANIFEST] == before[MANIFEST]
    if name != "manifest":  # otherwise the new file is there, whole, and not yet listed
        pd.testing.assert_frame_equal(read(dataset), walk(0)[walk(0)["timestamp"] < START + 200 * HOUR])
    build(dataset, vendor, requests(["SPY"]), now=NOW)
    pd.testing.assert_frame_equal(read(dataset), walk(0))
    assert set(tree(dataset.root)) == set(before)


def test_a_folder_that_cannot_be_used_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot use .*; choose another PLOUTOS_HOME"):
        build(Dataset(tmp_path / "file" / "datasets"), FakeVendor(three_symbols()), requests(), now=NOW)


def test_who_reads_while_another_writes_sees_one_state_or_the_other(dataset):
    bars = walk(0)
    dataset.upsert(SPY, bars.iloc[:10], (START, END))
    lengths, done = set(), threading.Event()

    def look():
        while not done.is_set():
            lengths.add(len(dataset.load(SPY).frame))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for n in range(11, 41):
            dataset.upsert(SPY, bars.iloc[:n], (START, END))
    finally:
        done.set()
        reader.join()
    assert lengths <= set(range(10, 41))
    assert len(lengths) > 1


# The download


def test_pages_that_are_on_disk_are_not_asked_for_again(dataset, tmp_path):
    vendor = FakeVendor({"SPY": walk(0)}, faults={"SPY": (4, VendorDown("fake-sip is down; try later"))})
    seen = []
    with pytest.raises(VendorDown):
        build(dataset, vendor, requests(["SPY"]), progress=lambda *page: seen.append(page), now=NOW)
    assert seen == [("SPY", 60, 1), ("SPY", 60, 2), ("SPY", 120, 3), ("SPY", 180, 4)]
    assert dataset.summary() == ()
    again = FakeVendor({"SPY": walk(0)})
    result = build(dataset, again, requests(["SPY"]), progress=lambda *page: seen.append(page), now=NOW + 99 * HOUR)
    assert again.asked[0] == vendor.asked[-1] == ("SPY", "180:4")
    assert seen[4:6] == [("SPY", 180, 5), ("SPY", 240, 6)]
    assert result.series[0].pages == len(again.asked)
    build(Dataset(tmp_path / "other"), FakeVendor({"SPY": walk(0)}), requests(["SPY"]), now=NOW)
    assert tree(dataset.root) == tree(tmp_path / "other")


def test_a_download_that_was_begun_with_an_older_end_is_finished_first(dataset):
    vendor = FakeVendor({"SPY": walk(0)}, faults={"SPY": (4, VendorDown("down"))})
    with pytest.raises(VendorDown):
        build(dataset, vendor, requests(["SPY"], end=START + 600 * HOUR), now=NOW)
    vendor.faults, vendor.asked = {}, []
    build(dataset, vendor, requests(["SPY"]), now=NOW)
    assert vendor.asked[0] == ("SPY", "180:4")
    pd.testing.assert_frame_equal(read(dataset), walk(0))


def test_a_download_that_leads_elsewhere_is_forgotten(dataset):
    vendor = FakeVendor({"SPY": walk(0)}, faults={"SPY": (4, VendorDown("down"))})
    with pytest.raises(VendorDown):
        build(dataset, vendor, requests(["SPY"]), now=NOW)
    vendor.faults, vendor.asked = {}, []
    build(dataset, vendor, requests(["SPY"], start=START + 48 * HOUR, end=START + 96 * HOUR), now=NOW)
    assert vendor.asked[0] == ("SPY", None)
    pd.testing.assert_frame_equal(
        read(dataset), walk(0)[walk(0)["timestamp"].between(START + 48 * HOUR, START + 95 * HOUR)].reset_index(drop=True)
    )


def test_a_token_that_the_vendor_no_longer_takes_costs_one_run(dataset):
    vendor = FakeVendor({"SPY": walk(0)}, faults={"SPY": (4, VendorDown("down"))})
    for fault, resumed in ((VendorDown("down"), None), (VendorError("fake-sip answered 400 to its token"), "180:4")):
        vendor.faults, vendor.asked = {"SPY": (4, fault)}, []
        with pytest.raises(type(fault)):
            build(dataset, vendor, requests(["SPY"]), now=NOW)
        assert vendor.asked[0] == ("SPY", resumed)
    vendor.faults, vendor.asked = {}, []
    build(dataset, vendor, requests(["SPY"]), now=NOW)
    assert vendor.asked[0] == ("SPY", None)


def test_a_damaged_page_on_disk_is_fetched_again(dataset):
    vendor = FakeVendor({"SPY": walk(0)}, faults={"SPY": (4, VendorDown("down"))})
    with pytest.raises(VendorDown):
        build(dataset, vendor, requests(["SPY"]), now=NOW)
    cut(next(dataset.root.rglob("*.part")))
    vendor.faults = {}
    build(dataset, vendor, requests(["SPY"]), now=NOW)
    pd.testing.assert_frame_equal(read(dataset), walk(0))


def test_a_later_end_fetches_the_rest_and_the_overlap_only(dataset, tmp_path):
    vendor = FakeVendor({"SPY": walk(0)})
    build(dataset, vendor, requests(["SPY"], end=START + 400 * HOUR), now=NOW)
    held = len(read(dataset))
    vendor.asked, seen = [], []
    line = build(dataset, vendor, requests(["SPY"]), progress=lambda *page: seen.append(page), now=NOW).series[0]
    assert (line.status, line.rows, line.added) == ("extended", 400, 400 - held)
    assert seen[-1][1] == 400 - held + OVERLAP_BARS
    build(Dataset(tmp_path / "other"), FakeVendor({"SPY": walk(0)}), requests(["SPY"]), now=NOW)
    assert tree(dataset.root) == tree(tmp_path / "other")


def test_an_earlier_start_leaves_no_hole(dataset, tmp_path):
    vendor = FakeVendor({"SPY": walk(0)})
    build(dataset, vendor, requests(["SPY"], start=START + 500 * HOUR), now=NOW)
    build(dataset, vendor, requests(["SPY"], end=START + 100 * HOUR), now=NOW)
    build(Dataset(tmp_path / "other"), FakeVendor({"SPY": walk(0)}), requests(["SPY"]), now=NOW)
    assert tree(dataset.root) == tree(tmp_path / "other")


def test_bars_that_are_still_to_come_are_fetched_when_they_are_there(dataset):
    bars = walk(0)
    for n_bars in (100, 200, 300):
        now = bars["timestamp"][n_bars - 1] + HOUR
        vendor = FakeVendor({"SPY": bars.iloc[:n_bars]})
        assert build(dataset, vendor, requests(["SPY"]), now=now).series[0].rows == n_bars
        vendor.asked = []
        assert build(dataset, vendor, requests(["SPY"]), now=now).series[0].status == "unchanged"
        assert vendor.asked == []
    vendor = FakeVendor({"SPY": bars})
    line = build(dataset, vendor, requests(["SPY"]), now=NOW).series[0]
    assert (line.status, line.rows) == ("extended", 400)
    vendor.asked = []
    build(dataset, vendor, requests(["SPY"]), now=NOW + HOUR)
    assert vendor.asked == []


@pytest.mark.parametrize("late", [HOUR, 10 * HOUR])
def test_a_bar_that_the_vendor_gives_late_is_asked_for_again(dataset, late):
    bars = walk(0)
    now = bars["timestamp"][299] + HOUR + late
    build(dataset, FakeVendor({"SPY": bars.iloc[:200]}), requests(["SPY"], end=bars["timestamp"][200]), now=now)
    build(dataset, FakeVendor({"SPY": bars.iloc[:299]}), requests(["SPY"], end=bars["timestamp"][300]), now=now)
    build(dataset, FakeVendor({"SPY": bars}), requests(["SPY"], end=bars["timestamp"][300]), now=now + 24 * HOUR)
    assert len(read(dataset)) == 300


def test_a_first_bar_that_has_just_ended_can_be_updated(dataset):
    bars = walk(0)
    first = bars["timestamp"][0]
    build(dataset, FakeVendor({"SPY": bars.iloc[:1]}), requests(["SPY"], start=first), now=first + HOUR)
    update(dataset, FakeVendor({"SPY": bars}), "total_return", HOUR, now=NOW)
    pd.testing.assert_frame_equal(read(dataset), bars)


def test_an_update_takes_every_stored_symbol_to_now(dataset):
    vendor = FakeVendor(three_symbols())
    build(dataset, vendor, requests(end=START + 400 * HOUR), now=NOW)
    result = update(dataset, vendor, "total_return", HOUR, now=NOW)
    assert [line.status for line in result.series] == ["extended"] * 3
    for symbol, frame in vendor.bars.items():
        pd.testing.assert_frame_equal(read(dataset, symbol), frame)
    whole = tree(dataset.root)
    assert [line.status for line in update(dataset, vendor, "total_return", HOUR, ["SPY"], now=NOW).series] == ["unchanged"]
    assert tree(dataset.root) == whole
    with pytest.raises(DataError, match="no fake-sip bars of QQQ; run ploutos data build --source fake-sip --market QQQ"):
        update(dataset, vendor, "total_return", HOUR, ["QQQ"], now=NOW)


@pytest.mark.parametrize(
    ("adjustment", "sentence"), [("total_return", "changed the adjusted past"), ("raw", "changed raw prices of the past")]
)
def test_a_rewritten_history_is_downloaded_whole_and_said(dataset, tmp_path, adjustment, sentence):
    build(dataset, FakeVendor(three_symbols()), requests(end=START + 400 * HOUR, adjustment=adjustment), now=NOW)
    after_a_dividend = FakeVendor(three_symbols(0.9997))
    result = update(dataset, after_a_dividend, adjustment, HOUR, now=NOW)
    assert {line.status for line in result.series} == {"rewritten"}
    assert all(f"fake-sip {sentence}: 50 of 50 overlapping bars differ" in line.note for line in result.series)
    build(Dataset(tmp_path / "other"), after_a_dividend, requests(adjustment=adjustment), now=NOW)
    for symbol in after_a_dividend.bars:
        pd.testing.assert_frame_equal(read(dataset, symbol, adjustment), after_a_dividend.bars[symbol])


def test_a_difference_below_the_tolerance_is_no_rewriting_and_a_bar_that_is_gone_is(dataset):
    build(dataset, FakeVendor(three_symbols()), requests(["SPY"], end=START + 400 * HOUR), now=NOW)
    line = update(dataset, FakeVendor(three_symbols(1.00009)), "total_return", HOUR, now=NOW).series[0]
    assert (line.status, line.note) == ("extended", "")
    without = walk(0).drop(index=390)
    line = update(dataset, FakeVendor({"SPY": without}), "total_return", HOUR, now=NOW).series[0]
    assert line.status == "rewritten"
    assert "1 are gone" in line.note
    pd.testing.assert_frame_equal(read(dataset), without.reset_index(drop=True))


def test_a_symbol_that_fails_does_not_lose_the_others(dataset):
    limited = RateLimited("fake-sip allows 200 requests a minute; wait", retry_after=30.0)
    vendor = FakeVendor(three_symbols(), faults={"BTC/USD": (2, limited)})
    with pytest.raises(
        RateLimited, match="2 of 4 symbols failed: BTC/USD, QQQ; the other 2 are stored; BTC/USD: fake-sip allows"
    ) as caught:
        build(dataset, vendor, requests(["SPY", "BTC/USD", "QQQ", "NQ=F"]), now=NOW)
    assert caught.value.retry_after == 30.0
    assert [line.key.symbol for line in dataset.summary()] == ["NQ=F", "SPY"]
    vendor.faults = {}
    result = build(dataset, vendor, requests(["SPY", "BTC/USD", "QQQ", "NQ=F"]), now=NOW, allow_partial=True)
    assert [(line.key.symbol, line.status) for line in result.series] == [
        ("SPY", "unchanged"),
        ("BTC/USD", "created"),
        ("NQ=F", "unchanged"),
    ]
    assert [(failure.symbol, failure.error) for failure in result.failures] == [("QQQ", "fake-sip has no symbol QQQ; check its name")]


def test_a_source_brings_its_span_then_what_is_new_and_says_so_in_a_row_per_symbol(dataset):
    spec, bars = DataSpec(source="alpaca", symbols=("SPY", "QQQ")), {"SPY": walk(1, 400)}
    first = bring(dataset, FakeVendor({"SPY": bars["SPY"][:300]}), spec, START.date(), None, allow_partial=True)
    assert first.table() == [
        {"symbol": "SPY", "status": "created", "bars": 300, "new": 300, "note": ""},
        {"symbol": "QQQ", "status": "failed", "bars": 0, "new": 0, "note": "fake-sip has no symbol QQQ; check its name"},
    ]
    for some in (spec.model_copy(update={"symbols": ()}), spec.model_copy(update={"symbols": ("SPY",)})):
        (row,) = bring(dataset, FakeVendor(bars), some, None, None).table()
        assert (row["symbol"], row["bars"]) == ("SPY", 400)


class Broken(FakeVendor):
    def __init__(self, pages: list[Page]):
        super().__init__({})
        self.answer = pages

    def pages(self, request, token=None):
        yield from self.answer


@pytest.mark.parametrize(
    ("pages", "error", "sentence"),
    [
        ([Page(walk(0), "more")], VendorDown, "fake-sip ended in the middle of SPY .* run again"),
        ([Page(walk(0).assign(timestamp=lambda f: f["timestamp"] - 48 * HOUR), None)], VendorDown, "bars outside what was requested"),
        ([Page(walk(0).iloc[:0], "more"), Page(walk(0).iloc[:0], None)], NoData, "fake-sip has no bars of SPY from 2024-01-01"),
        ([], NoData, "fake-sip has no bars of SPY"),
        ([Page(walk(0).drop(columns="open"), None)], DataError, "a page of fake-sip has no column open"),
    ],
)
def test_a_vendor_that_breaks_its_word_is_not_believed(dataset, pages, error, sentence):
    with pytest.raises(error, match=sentence):
        build(dataset, Broken(pages), requests(["SPY"]), now=NOW)
    assert dataset.summary() == ()
    build(dataset, FakeVendor({"SPY": walk(0)}), requests(["SPY"], start=START - HOUR), now=NOW)


# Death


@dataclass(frozen=True)
class Scene:
    """What is stored, and what is asked for then."""

    held: float
    factor: float

    def prepare(self, root: Path) -> None:
        if self.held:
            build(Dataset(root), FakeVendor(three_symbols(n_bars=150)), requests(end=START + self.held * HOUR), now=NOW)

    def play(self, root: Path, log: Path | None = None) -> None:
        build(Dataset(root), FakeVendor(three_symbols(self.factor, 150), log=log), requests(), now=NOW)


SCENES = {"fresh": Scene(0, 1.0), "extended": Scene(150, 1.0), "rewritten": Scene(150, 0.9)}


def die_at(event: int) -> list[int]:
    """Kill this process at the n-th time that it touches the file system; the list counts them."""
    count = [0]

    def hook(name: str, _: object) -> None:
        if name.startswith(("open", "os.", "shutil.", "tempfile.", "fcntl.")):
            count[0] += 1
            if count[0] == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def in_child(act) -> tuple[int, float]:
    """Run in a forked process; its exit status and its seconds."""
    started, child = time.monotonic(), os.fork()
    if child == 0:
        act()
        os._exit(0)
    return os.waitpid(child, 0)[1], time.monotonic() - started


def kill_builds(scene_name: str, folder: str, seed: int) -> None:
    """Prepare KILLS datasets and kill their builds: half at system calls, half at moments, each one twice."""
    scene, random, root = SCENES[scene_name], np.random.default_rng(seed), Path(folder)
    scene.prepare(root / "base")

    def copy(name: str) -> Path:
        shutil.copytree(root / "base", root / name) if scene.held else (root / name).mkdir()
        return root / name

    def counted() -> None:
        count = die_at(-1)
        scene.play(copy("counted"))
        (root / "events").write_text(str(count[0]))

    in_child(counted)
    events = int((root / "events").read_text())
    seconds = in_child(lambda: scene.play(copy("timed")))[1]
    died = 0
    for n in range(KILLS):
        target = copy(f"killed{n}")
        for life in range(2):
            if n % 2:
                event = int(random.integers(1, events // (1 + life)))
                status, _ = in_child(lambda target=target, event=event: (die_at(event), scene.play(target)))
            else:
                child = os.fork()
                if child == 0:
                    scene.play(target)
                    os._exit(0)
                time.sleep(seconds * random.random() / (1 + life))
                os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)[1]
            died += status == signal.SIGKILL
    sys.stdout.write(str(died))


def helper(call: str) -> str:
    """Run a function of this file in a fresh Python, which can fork without threads."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_dataset; test_dataset.{call}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_build_that_is_killed_and_run_again_ends_in_the_same_bytes(scene, tmp_path):
    died = int(helper(f"kill_builds({scene!r}, {str(tmp_path)!r}, 7)"))
    assert died >= KILLS  # the second life of a build may end before its death
    expected = tree(tmp_path / "counted")
    assert tree(tmp_path / "timed") == expected
    unfinished = 0
    for n in range(KILLS):
        root = tmp_path / f"killed{n}"
        unfinished += tree(root) != expected
        SCENES[scene].play(root)
        assert tree(root) == expected
        assert Dataset(root).verify() == ()
    assert unfinished >= KILLS / 4


def build_at_once(scene_name: str, folder: str, processes: int) -> None:
    scene, root = SCENES[scene_name], Path(folder)
    scene.prepare(root / "together")
    children = []
    for n in range(processes):
        child = os.fork()
        if child == 0:
            scene.play(root / "together", root / f"log{n}")
            os._exit(0)
        children.append(child)
    sys.stdout.write(str(sum(os.waitpid(child, 0)[1] for child in children)))


@pytest.mark.parametrize("scene", SCENES)
def test_builds_that_run_at_once_share_the_work(scene, tmp_path):
    assert helper(f"build_at_once({scene!r}, {str(tmp_path)!r}, 3)") == "0"
    SCENES[scene].prepare(tmp_path / "alone")
    SCENES[scene].play(tmp_path / "alone", tmp_path / "alone.log")
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")
    asked = [line for log in tmp_path.glob("log*") for line in log.read_text().splitlines()]
    assert sorted(asked) == sorted((tmp_path / "alone.log").read_text().splitlines())


def test_alpaca_resumes_from_a_page_on_disk_in_the_same_bytes(dataset, tmp_path):
    from servers.fake_alpaca import KEY, SECRET, FakeAlpaca, serving

    from ploutos.market.sources.alpaca import Alpaca

    bars = {symbol: walk(seed) for seed, symbol in enumerate(("SPY", "BTC/USD"))}

    def play(fake: FakeAlpaca, root: Path) -> None:
        with serving(fake) as url:
            vendor = Alpaca(KEY, SECRET, url=url, requests_per_minute=1e9, retry_for_s=0, clock=NOW.timestamp, sleep=lambda _: None)
            build(Dataset(root), vendor, requests(bars), now=NOW)

    broken = FakeAlpaca(bars, page_rows=60, clock=NOW.timestamp)
    broken.faults = [None, None, (500, "{}"), None, (500, "{}")]
    with pytest.raises(VendorDown, match="2 of 2 symbols failed: SPY, BTC/USD"):
        play(broken, dataset.root)
    again, whole = (FakeAlpaca(bars, page_rows=60, clock=NOW.timestamp) for _ in range(2))
    play(again, dataset.root)
    play(whole, tmp_path / "other")
    assert tree(dataset.root) == tree(tmp_path / "other")
    assert len(again.asked) == len(whole.asked) - 3
    for symbol, frame in bars.items():
        pd.testing.assert_frame_equal(dataset.read("alpaca-sip", "total_return", HOUR, (symbol,)).drop(columns="symbol"), frame)
