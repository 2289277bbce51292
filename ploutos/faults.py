"""What is wrong with a setting or a file, for people. Pydantic finds the fault; its own words never reach anybody who set something."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_WHOLE, _SETTINGS, _DATE = "a whole number", "settings of its own, such as {where}.name=value", "a date such as 2020-01-31"
_EXPECTED = {
    "int_parsing": _WHOLE, "int_type": _WHOLE, "int_from_float": _WHOLE, "float_parsing": "a number", "float_type": "a number",
    "finite_number": "a finite number", "bool_parsing": "true or false", "bool_type": "true or false", "string_type": "text",
    "string_too_short": "at least one character", "model_type": _SETTINGS, "model_attributes_type": _SETTINGS, "dict_type": _SETTINGS,
    "tuple_type": "a list such as [a, b]", "list_type": "a list such as [a, b]", "path_type": "a path", "date_type": _DATE,
    "date_parsing": _DATE, "date_from_datetime_parsing": _DATE, "date_from_datetime_inexact": _DATE, "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more", "less_than": "less than {lt}", "less_than_equal": "{le} or less", "missing": "a value",
    "literal_error": "{expected}", "enum": "{expected}",
}  # fmt: skip
"""By pydantic's type of fault."""


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, groups before what they hold."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_names(field.annotation, f"{prefix}{name}.")


def suggestion(word: str, known: Sequence[str], cutoff: float = 0.5) -> str:
    """Words that end a sentence with the nearest of what is known; nothing where none is near.

    >>> suggestion("dmeo", ["demo", "quick"]), suggestion("x", ["demo"])
    ('; did you mean demo?', '')
    """
    folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=cutoff)
    return f"; did you mean {folded[near[0]]}?" if near else ""


def first_fault(error: OSError | ValueError) -> str:
    """Why a file was not read: the first thing that is wrong with what it holds."""
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return ": ".join([*([".".join(map(str, first["loc"]))] if first["loc"] else []), first["msg"]])


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of settings in one sentence.

    Args:
        model: whose settings they are.
    """
    faults = error.errors()
    first = faults[0]
    where = _where(first["loc"], model)
    if first["type"] == "extra_forbidden":
        return f"{where} is not a setting{suggestion(where, list(setting_names(model)), 0.4)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    same = [fault for fault in faults if _where(fault["loc"], model) == where]  # one for each form that a value may have
    expected = list(dict.fromkeys(_expected(fault, where) for fault in same))
    given = first["input"]
    choices = [part.strip(" '") for each in expected for part in each.replace(" or ", ", ").split(",")]
    near = suggestion(given, choices) if isinstance(given, str) and first["type"] in ("literal_error", "enum") else ""
    return f"{where} is {given!r}; expected {', or '.join(expected)}{near}"


def _expected(fault: Any, where: str) -> str:
    text = _EXPECTED.get(fault["type"])
    if text is None:
        return f"something else ({fault['msg'][0].lower()}{fault['msg'][1:]})"
    shown = {
        key: f"{value:g}" if isinstance(value, (int, float)) else str(value).replace("'", "") for key, value in fault.get("ctx", {}).items()
    }
    return text.format(where=where, **{key: value for key, value in shown.items() if key != "where"})


def _where(place: Sequence[int | str], model: type[BaseModel]) -> str:
    """A fault's setting, without what pydantic adds about the form that it tried."""
    parts: list[str] = []
    inside: Any = model
    for part in place:
        if isinstance(part, int):
            parts.append(str(part))
        elif inside is None or (fields := inside.model_fields) is None or (part not in fields and not _unknown(part)):
            break
        else:
            parts.append(part)
            inside = _model_of(fields[part].annotation) if part in fields else None
    return ".".join(parts)


def _unknown(part: str) -> bool:
    """Whether a part of a place is a key that somebody wrote, and not pydantic's name of a form."""
    return not any(mark in part for mark in "[]'(") and part not in ("tuple", "literal", "dict", "str", "int", "float", "bool")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_of(each))), None)
