"""Kinds of files that hold bars: text and what packs it, parquet, feather, arrow."""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from ploutos.errors import DataError
from ploutos.market.sources.columns import AUTO, UNREADABLE, FileFormat, Table, count_prices, damaged, looks_like_bars, match_tickers
from ploutos.market.sources.numerals import decode, read_numbers
from ploutos.market.sources.text_files import open_text
from ploutos.types import FloatArray

_NAME = re.compile(r"(?P<stem>.+?)(?:\.(?P<kind>csv|txt|tsv|parquet|pq|feather|arrow))?(?:\.(?P<packed>gz|zip))?", re.IGNORECASE)
_ARROW = ("parquet", "pq", "feather", "arrow")


def split_name(name: str) -> tuple[str, str] | None:
    """Stem and kind (csv, parquet ...) of a file's name, None where it is of no kind that is read."""
    match = _NAME.fullmatch(name)
    assert match is not None
    if match["kind"] is None and match["packed"] is None:
        return None
    return match["stem"], (match["kind"] or "csv").lower()


def open_table(file: Path, format: FileFormat = AUTO) -> Table:
    """Find out how a file is written.

    Raises:
        DataError: it is empty, damaged, or of a kind that is not read.
        ConfigError: `format` names a column that is not there.
    """
    named = split_name(file.name)
    if named is None:
        raise DataError(f"{file.name} is neither text (.csv, .txt, .tsv, also .gz or .zip) nor .parquet, .feather or .arrow; convert it")
    if file.stat().st_size == 0:
        raise DataError(f"{file.name} is empty; expected a header and one row per bar")
    try:
        return _open_arrow(file, named[1], format) if named[1] in _ARROW else open_text(file, format)
    except UNREADABLE as error:
        raise damaged(file.name, error) from error


def _open_arrow(file: Path, kind: str, format: FileFormat) -> Table:
    if kind in ("parquet", "pq"):
        source = pq.ParquetFile(file)  # not read_table, which would take folders named a=b for columns
        names, rows = list(source.schema_arrow.names), source.metadata.num_rows
    else:
        source = _read_ipc(file)
        names, rows = list(source.column_names), source.num_rows
    if len(set(names)) < len(names):
        twice = next(name for name, n in Counter(names).items() if n > 1)
        raise DataError(f"{file.name} has two columns called {twice!r}; expected one of each name; rename one")
    labels, tickers = _levels(names)

    def load(texts: Sequence[int], numbers: Sequence[int]) -> tuple[dict[int, Any], dict[int, FloatArray]]:
        if rows == 0:
            raise DataError(f"{file.name} holds no bars; expected at least one row; get it again, or remove it from data.path")
        data = source.read(columns=[names[i] for i in (*texts, *numbers)]) if kind in ("parquet", "pq") else source
        columns = {i: decode(data.column(names[i])) for i in (*texts, *numbers)}
        return {i: columns[i] for i in texts}, read_numbers({i: columns[i] for i in numbers}, format.decimal, names, file.name)

    prices = looks_like_bars(labels, format)
    places = match_tickers(labels, tickers, format if prices else AUTO, file.name)
    return Table(file.name, tuple(names), None, places, prices, load)


def _read_ipc(file: Path) -> Any:
    try:
        return feather.read_table(file, memory_map=False)
    except pa.ArrowInvalid:
        with pa.OSFile(str(file)) as stream:
            return pa.ipc.open_stream(stream).read_all()


def _levels(names: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Field names, and tickers where pandas wrote columns of two levels, which it does as the text of a tuple."""
    pairs = [ast.literal_eval(name) if re.fullmatch(r"\(\s*['\"].*\)", name) else (name, "") for name in names]
    if not any(name.startswith("(") for name in names) or {len(pair) for pair in pairs} != {2}:
        return list(names), None
    levels = [[str(pair[i]) for pair in pairs] for i in (0, 1)]
    if count_prices(levels[1], AUTO) > count_prices(levels[0], AUTO):
        levels = [[b or a for a, b in zip(*levels, strict=True)], [a if b else "" for a, b in zip(*levels, strict=True)]]
    return levels[0], levels[1]
