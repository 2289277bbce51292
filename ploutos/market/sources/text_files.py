"""Bars in text: encoding, separator, header or none, one table or a block per symbol."""

import codecs
import csv
import gzip
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from ploutos.errors import DataError
from ploutos.market.sources.columns import (
    AUTO,
    PRICES,
    SEPARATORS,
    FileFormat,
    Table,
    count_prices,
    is_price,
    key_of,
    looks_like_bars,
    match_columns,
    match_tickers,
)
from ploutos.market.sources.numerals import NULLS, decode, read_numbers, require_a_telling_dot
from ploutos.types import FloatArray

_HEAD = 1 << 20  # bytes; a row of a wide file is long
_HEAD_LINES = 100
_TOP = 20  # lines among which a header is looked for
_NUMBER = re.compile(r"[-+$€£¥]?[\d.,'\u2019 \u00a0\u202f]*\d[\d.,]*(?:[eE][-+]?\d+)?[KMBT%]?")
_DATE = re.compile(
    r"\d{1,4}[-/.](?:\d{1,2}|[A-Za-z]{3,9})[-/.]\d{1,4}.*"  # 2024-01-02 09:30, 02-Jan-2024
    r"|(?:19|20)\d{6}(?:\D.*|\d{4}|\d{6})?|\d{9,19}(?:\.\d+)?"  # 20240102 093000, counts from 1970
    r"|[A-Za-z]{3,9}\.? \d.*\d{4}.*"  # Jan 02, 2024
)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s*[AaPp]\.?[Mm]\.?)?")
_DOTTED = re.compile(r"\d{1,3}\.\d{3}")  # 5.017, which may be thousands where semicolons stand between columns
_EUROPEAN_DATE = re.compile(r"\d{1,2}\.\d{1,2}\.\d{2,4}")
_DIGIT_CLOCK = re.compile(r"\d{3,6}")


def _read_text(file: Path) -> bytes:
    """What a file holds, packed or not, as UTF-8."""
    with _opened(file) as stream:
        return _utf8(stream.read())


def _read_top(file: Path) -> bytes:
    """The whole lines among the first bytes of a file."""
    with _opened(file) as stream:
        raw = stream.read(_HEAD)
    text = _utf8(raw)
    return text if len(raw) < _HEAD else text[: text.rfind(b"\n") + 1] or text


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """A file, or the one that is packed in it.

    Raises:
        DataError: a zip holds more than one.
    """
    ending = file.suffix.lower()
    if ending == ".zip":
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.namelist() if not m.endswith("/") and not m.startswith("__MACOSX/")]
            if len(members) != 1:
                raise DataError(f"{file.name} holds {len(members)} files; expected one; unpack it into a folder and set data.path to that")
            with archive.open(members[0]) as member:
                yield member
    else:
        with cast(IO[bytes], gzip.open(file) if ending == ".gz" else file.open("rb")) as stream:
            yield stream


def _utf8(content: bytes) -> bytes:
    """The same text as UTF-8 without a byte order mark; what is neither UTF-8 nor UTF-16 counts as Windows' Latin."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace").encode()
    if 0 in content[:2]:
        return content.decode("utf-16-le" if content[1] == 0 else "utf-16-be", errors="replace").encode()
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content.isascii():
        return content
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)  # the last letter may be cut
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace").encode()
    return content


@dataclass(frozen=True)
class _Head:
    """The first lines that are not blank: where each starts, its cells, and whether it is a comment."""

    offsets: list[int]
    rows: list[list[str]]
    comments: list[bool]
    separator: str


def open_text(path: Path, format: FileFormat) -> Table:
    """Find out how a text is written from its first lines.

    Raises:
        DataError: it is empty or no text, or its header and its rows do not fit each other.
        ConfigError: `format` names a column that is not there.
        OSError, ValueError, zipfile.BadZipFile, zlib.error: it cannot be unpacked.
    """
    file, top = path.name, _read_top(path)
    if b"\x00" in top:
        raise DataError(f"{file} is not text, whatever its name says; expected text; convert it")
    head = _read_head(top, format)
    if not head.rows:
        raise DataError(f"{file} is empty; expected a header and one row per bar")
    data = [i for i, row in enumerate(head.rows) if not head.comments[i] and _is_data(row)]
    header = _header_row(head, data, format)
    tickers: list[str] | None = None
    if header is None:
        start = next(i for i, comment in enumerate(head.comments) if not comment)
        body = [head.rows[i] for i in range(start, len(head.rows)) if not head.comments[i]]
        n = _width(body)
        names = [str(i + 1) for i in range(n)]
        places: dict[str | None, dict[str, int]] = {None: _positions(body, names, format, file)}
        prices = True
    else:
        names, tickers, start = _read_header(head, header)
        body = [head.rows[i] for i in range(start, len(head.rows)) if not head.comments[i]]
        n = _width(body) if body else len(names)
        prices = (bool(data) or path.suffix.lower() != ".txt") and looks_like_bars(names, format)  # a README may name columns, too
        prices = prices or _ordered_from(body) is not None
        if prices:
            padded = all(row[-1] == "" for row in body if len(row) == n)
            names, tickers = _fit(names, n, padded, file), None if tickers is None else _fit(tickers, n, padded, file)
            places = match_tickers(names, tickers, format, file)
        else:
            places = {None: match_columns(dict(enumerate(dict.fromkeys(names))), AUTO, file)}

    def load(texts: Sequence[int], numbers: Sequence[int]) -> tuple[dict[int, Any], dict[int, FloatArray]]:
        if not body:
            raise DataError(f"{file} holds no bars; expected at least one row; get it again, or remove it from data.path")
        volumes = {own["volume"] for own in places.values() if "volume" in own} & set(numbers)
        telling = _telling(numbers, volumes, body[0]) if head.separator == ";" else []
        cells = [row[i] for row in body if len(row) == n for i in telling if row[i]]
        dotted = bool(cells) and all(_DOTTED.fullmatch(cell) for cell in cells)
        data = _read_rows(path, head.offsets[start], n, head.separator, texts, numbers, format, dotted)
        columns = {i: decode(data[str(i)]) for i in (*texts, *numbers)}
        if dotted and format.decimal is None:
            require_a_telling_dot([columns[i] for i in telling], file)
        return {i: columns[i] for i in texts}, read_numbers({i: columns[i] for i in numbers}, format.decimal, names, file)

    return Table(file, tuple(names), head.separator, places, prices, load)


def _telling(numbers: Sequence[int], volumes: set[int], row: Sequence[str]) -> list[int]:
    """The columns that must all look like thousands for dots to be in doubt: the prices alone where dates are 30.01.2024."""
    if any(_EUROPEAN_DATE.match(cell) for cell in row[:3]):
        return [i for i in numbers if i not in volumes]
    return list(numbers) if volumes else []


def _read_head(content: bytes, format: FileFormat) -> _Head:
    """The first lines of a text, cut at the separator that is set or that fits best."""
    offsets: list[int] = []
    lines: list[str] = []
    for match in re.finditer(rb"[^\r\n]+", content):
        if match[0].strip(b" \t\x1a"):
            offsets.append(match.start())
            lines.append(match[0].decode(errors="replace").strip(" \x1a"))
        if len(lines) == _HEAD_LINES:
            break
    if not lines:
        return _Head([], [], [], "")
    comments = [line.startswith("#") or re.fullmatch("sep=.", line) is not None for line in lines]
    if all(comments):
        comments = [False] * len(lines)
    lines = [line.lstrip("# ") if comment else line for line, comment in zip(lines, comments, strict=True)]
    given = [SEPARATORS[format.separator]] if format.separator else list(SEPARATORS.values())
    cut = {mark: [_cells(line, mark) for line in lines] for mark in given}
    named = next((m for m in given if any(count_prices(row, format) >= 2 for row in cut[m][:_TOP])), None)
    agreed = next((mark for mark in given if _agreement(cut[mark])), None)
    best = named or agreed or max(given, key=lambda mark: max(len(row) for row in cut[mark]))
    return _Head(offsets, cut[best], comments, best)


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _agreement(rows: list[list[str]]) -> bool:
    """Whether nearly all rows have the same number of columns, enough for bars."""
    width, n = Counter(len(row) for row in rows).most_common(1)[0]
    return width >= 5 and n >= 0.9 * len(rows) - 3


def _width(rows: list[list[str]]) -> int:
    return Counter(len(row) for row in rows).most_common(1)[0][0]


def _is_data(row: Sequence[str]) -> bool:
    """Whether cells are a date and numbers."""
    return any(_DATE.fullmatch(cell) for cell in row[:3]) and sum(_NUMBER.fullmatch(cell) is not None for cell in row) >= 4


def _header_row(head: _Head, data: list[int], format: FileFormat) -> int | None:
    """The line that names the columns, None where there is none."""
    first = next(i for i, comment in enumerate(head.comments) if not comment)
    if format.header is not None:
        return first if format.header else None
    until = min(data[0] if data else len(head.rows), _TOP)
    ranked = sorted(range(until), key=lambda i: (-count_prices(head.rows[i], format), i))
    if ranked and count_prices(head.rows[ranked[0]], format) >= 2:
        return ranked[0]
    if data and until == first:
        return None
    return max(i for i in range(until) if not head.comments[i]) if data else first


def _read_header(head: _Head, header: int) -> tuple[list[str], list[str] | None, int]:
    """Names, tickers where a line beside the names holds them, and the first line below the header."""
    names, below = head.rows[header], header + 1
    rows = head.rows

    def holds_tickers(i: int) -> bool:
        row = rows[i] if 0 <= i < len(rows) and not head.comments[i] else []
        if len(row) != len(names) or row[0].lower() not in ("", "ticker", "tickers", "symbol", "symbols"):
            return False
        heads = [cell for cell, name in zip(row, names, strict=True) if is_price(name)]
        return all(heads) and (row[0] != "" or not any(_NUMBER.fullmatch(cell) for cell in heads))

    tickers = rows[header - 1] if holds_tickers(header - 1) else rows[below] if holds_tickers(below) else None
    if tickers is None:
        return names, None, below
    below += tickers is rows[below] if below < len(rows) else 0
    first = "" if key_of(names[0]) in ("price", "ticker", "attributes", "") else names[0]
    if below < len(rows) and not any(rows[below][1:]):  # the name of the index, alone in its line
        first, below = rows[below][0], below + 1
    return [first, *(name or ticker for name, ticker in zip(names[1:], tickers[1:], strict=True))], tickers, below


def _fit(cells: list[str], n: int, padded: bool, file: str) -> list[str]:
    """A header as wide as its rows, where only separators at the end of lines make the difference."""
    if len(cells) >= n and not any(cells[n:]):
        return cells[:n]
    if len(cells) == n - 1 and padded:
        return [*cells, ""]
    raise DataError(f"{file} names {len(cells)} columns and its rows have {n}; expected a name for every column; correct the header")


def _positions(rows: list[list[str]], names: list[str], format: FileFormat, file: str) -> dict[str, int]:
    """Our columns in rows without a header, by what stands in them: perhaps a symbol, a date, perhaps a time, OHLC, volume.

    Raises:
        DataError: the prices are not where they are expected.
    """
    if format.columns:
        return match_columns(dict(enumerate(names)), format, file)
    first = rows[0]
    stamp = 0 if _DATE.fullmatch(first[0]) else 1
    start = _ordered_from(rows)
    if start is None or start - stamp not in (1, 2) or not _DATE.fullmatch(first[stamp]):
        raise DataError(
            f"{file} names no columns, and after the date there are not open, high, low and close: {', '.join(first[:8])}; "
            "expected a header; add one, or number the columns, such as data.format.header=false data.format.columns.date=1"
        )
    if len(first) == start + 6 and all(_NUMBER.fullmatch(cell) for cell in first[start + 4 :]):
        raise DataError(
            f"{file} names no columns, and after open, high, low and close there are two numbers: {', '.join(first[:8])}; expected the "
            "volume alone; number the columns, such as data.format.columns.adj_close=6 data.format.columns.volume=7"
        )
    found = {"date" if start - stamp == 2 else "timestamp": stamp, **{name: start + i for i, name in enumerate(PRICES)}}
    if start - stamp == 2:
        found["time"] = stamp + 1
    if stamp == 1:
        found["symbol"] = 0
    if len(first) > start + 4 and _NUMBER.fullmatch(first[start + 4]):
        found["volume"] = start + 4
    return found


def _ordered_from(rows: list[list[str]]) -> int | None:
    """The column from which rows hold open, high, low and close, None where none does."""
    complete = [row for row in rows if len(row) == _width(rows)]
    for stamp in (0, 1):
        for start in (stamp + 1, stamp + 2):
            if not complete or len(complete[0]) < start + 4 or not all(_DATE.fullmatch(row[stamp]) for row in complete):
                continue
            if start == stamp + 2 and not all(_CLOCK.fullmatch(r[stamp + 1]) or _DIGIT_CLOCK.fullmatch(r[stamp + 1]) for r in complete):
                continue
            if np.mean([_is_ordered(row[start : start + 4]) for row in complete]) >= 0.9:
                return start
    return None


def _is_ordered(cells: Sequence[str]) -> bool:
    """Whether four cells are open, high, low and close."""
    if not all(_NUMBER.fullmatch(cell) for cell in cells):
        return False
    try:
        o, h, low, c = (float(re.sub(r"[$€£¥\s]", "", cell).replace(",", ".")) for cell in cells)
    except ValueError:
        return False
    return h >= max(o, c) and low <= min(o, c)


def _read_rows(
    path: Path, offset: int, n: int, separator: str, texts: Sequence[int], numbers: Sequence[int], format: FileFormat, written: bool
) -> Any:  # fmt: skip
    """Columns of a text, called by their positions: some as text, the others as float64, or as text where a person wrote them.

    Args:
        written: read them as text in any case.

    Raises:
        DataError: a line has more or fewer fields than the others, or there is none.
        ArrowInvalid: it is not such a text.
    """
    odd: list[Any] = []

    def skip(row: Any) -> str:
        if not row.text.startswith("#") and row.text.strip(" \t\x1a"):
            odd.append(row)
        return "skip"

    def parse(kind: Any, threaded: bool = True) -> Any:
        types = {str(i): pa.large_string() for i in texts} | {str(i): kind for i in numbers}
        return pacsv.read_csv(
            pa.BufferReader(content),
            read_options=pacsv.ReadOptions(column_names=[str(i) for i in range(n)], use_threads=threaded),
            parse_options=pacsv.ParseOptions(delimiter=separator, invalid_row_handler=None if threaded else skip),
            convert_options=pacsv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=NULLS, strings_can_be_null=False
            ),
        )

    content = pa.py_buffer(_read_text(path)).slice(offset)
    data = None
    for kind in [pa.float64()] * (format.decimal != "comma" and not written) + [pa.large_string()]:
        for threaded in (True, False):  # a handler of odd lines is Python, which Arrow's threads may end with the process
            try:
                data = parse(kind, threaded)
                break
            except pa.ArrowInvalid as error:
                failed = error
        if data is not None:
            break
    if data is None:
        raise failed
    if odd:
        raise DataError(
            f"{path.name} has a line of {odd[0].actual_columns} fields where {n} are expected: {odd[0].text[:80]!r}; "
            "the file may be cut off; get it again or correct the line"
        )
    return data
