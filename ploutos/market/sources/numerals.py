"""Numbers as people write them: 1,234.50 and 1.234,50, $12.30, 1'000, 1.2M."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ploutos.errors import DataError
from ploutos.market.sources.columns import MARKS
from ploutos.types import FloatArray

NULLS = ("", "-", "--", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "NAN", "null", "NULL", "None")
"""How a number that is not there is written."""
NUMBER = r"^[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?i:inf(?:inity)?|nan))$"
_FILLERS = "[\\s$€£¥'\u2019_\u00a0\u202f]"
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def decode(column: Any) -> Any:
    """An Arrow column as one array; categories as what they stand for, every kind of text as one kind."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
    return pc.cast(values, pa.large_string()) if pa.types.is_string(values.type) or pa.types.is_string_view(values.type) else values


def read_numbers(columns: Mapping[int, Any], decimal: str | None, names: Sequence[str], file: str) -> dict[int, FloatArray]:
    """Float64 of Arrow columns of any type that holds numbers."""
    texts = {i: values for i, values in columns.items() if pa.types.is_large_string(values.type)}
    found = _parse(texts, decimal, names, file) if texts else {}
    for i, values in columns.items():
        kind = values.type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
            found[i] = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        elif i not in texts:
            raise DataError(f"{file} has {kind} in column {names[i]}; expected numbers")
    return found


def _parse(columns: Mapping[int, Any], decimal: str | None, names: Sequence[str], file: str) -> dict[int, FloatArray]:
    """Float64 of text columns that share one way of writing numbers.

    Args:
        columns: Arrow string arrays by position.
        decimal: the decimal mark, `point` or `comma`; None tells it from all the numbers together.
        names: what the file calls its columns, and the file's name, for sentences.

    Raises:
        DataError: a cell is not a number, or the decimal mark cannot be told.
    """
    null = pa.array(NULLS)
    bare = {i: pc.replace_substring_regex(column, _FILLERS, "") for i, column in columns.items()}
    bare = {i: pc.if_else(pc.is_in(column, null), None, column) for i, column in bare.items()}
    mark = MARKS[decimal] if decimal else _decimal_mark(list(bare.values()), file)
    return {i: _floats(column, mark, f"{file} has text in column {names[i]}", columns[i]) for i, column in bare.items()}


def _decimal_mark(columns: list[Any], file: str) -> str:
    """The decimal mark of numbers, by what rules the other one out."""

    def found(pattern: str) -> bool:
        return any(pc.any(pc.match_substring_regex(column, pattern)).as_py() for column in columns)

    if not found(","):
        return "," if found(r"\..*\.") else "."
    as_decimal = found(r"\..*,") or found(r"\..*\.") or found(r",\d{0,2}\D*$|,\d{4}") or found(r"^[-+]?0\d*,|^[-+]?\d{4,},")
    as_thousands = found(r",.*\.") or found(r",.*,")
    if as_decimal and as_thousands:
        raise DataError(f"{file} writes some numbers like 1,234.5 and others like 1.234,5; expected one way; correct the file")
    if not (as_decimal or as_thousands):  # 1,234 alone says nothing; its neighbours may
        as_thousands = found(r"^[^,]*\.(?:\d{1,2}|\d{4,})\D*$")
        as_decimal = not as_thousands and found(r"^[-+]?\d{4,}$")
    if not (as_decimal or as_thousands):
        raise _untold("1,234", file)
    return "," if as_decimal else "."


def _untold(example: str, file: str) -> DataError:
    return DataError(
        f"{file} has numbers such as {example} that can be a thousand or a little more than one; expected an unambiguous one; "
        "set data.format.decimal=point or data.format.decimal=comma"
    )


def require_a_telling_dot(columns: list[Any], file: str) -> None:
    """Refuse text columns whose numbers are all like 1.234, prices and volumes alike.

    Raises:
        DataError: they are.
    """
    null = pa.array(NULLS)
    if all(pc.all(pc.or_(pc.is_in(column, null), pc.match_substring_regex(column, r"^\d{1,3}\.\d{3}$"))).as_py() for column in columns):
        raise _untold("1.234", file)


def _floats(bare: Any, mark: str, sentence: str, written: Any) -> FloatArray:
    plain = pc.replace_substring(bare, "." if mark == "," else ",", "")
    if mark == ",":
        plain = pc.replace_substring(plain, ",", ".")
    factor = None
    if pc.any(pc.match_substring_regex(plain, r"\d[KMBTkmbt]$")).as_py():
        split = pc.extract_regex(plain, r"^(?P<number>.*?)(?P<unit>[KMBTkmbt]?)$")
        plain, unit = pc.struct_field(split, "number"), pc.utf8_upper(pc.struct_field(split, "unit"))
        factor = np.array([_UNITS.get(text, 1.0) for text in unit.to_pylist()])
    wrong = pc.invert(pc.match_substring_regex(plain, NUMBER))
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise DataError(f"{sentence}: {written[row].as_py()!r} in row {row + 1}; expected numbers")
    values: FloatArray = pc.cast(plain, pa.float64()).to_numpy(zero_copy_only=False)
    return values if factor is None else values * factor
