"""What every setting is, taken from the code: its type, range, default and meaning, for a terminal, a page and a file to start from."""

import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_BOUNDS: dict[type, tuple[str, str]] = {Gt: ("> {}", "gt"), Ge: ("≥ {}", "ge"), Lt: ("< {}", "lt"), Le: ("≤ {}", "le")}
_WIDTH = 116


@dataclass(frozen=True)
class SettingHelp:
    """One setting for people.

    Attributes:
        kind: type in words.
        choices: all values that it may have, where they are few.
        range: bounds of a number, empty without any.
        default: as YAML; `required`, or `empty`.
    """

    key: str
    kind: str
    choices: tuple[str, ...]
    range: str
    default: str
    meaning: str


def settings_of(model: type[BaseModel]) -> Iterator[SettingHelp]:
    """Every setting, those of the top first, then group by group."""
    for name, field in model.model_fields.items():
        if nested(field.annotation) is None:
            yield describe_setting(name, field)
    for key, _, inner in sections(model):
        for name, field in inner.model_fields.items():
            if nested(field.annotation) is None:
                yield describe_setting(f"{key}.{name}", field)


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Groups of settings by dotted key, each with its doc line; `[]` follows the key of a list of them."""
    for name, field in model.model_fields.items():
        inner = nested(field.annotation)
        if inner is not None:
            key = prefix + name if _model(field.annotation) else f"{prefix}{name}[]"
            yield key, field.description or "", inner
            yield from sections(inner, f"{key}.")


def nested(annotation: Any) -> type[BaseModel] | None:
    """The group of settings that a field holds, one or a list of them."""
    return _model(annotation) or next((model for each in get_args(annotation) if (model := _model(each))), None)


def _model(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def describe_setting(key: str, field: FieldInfo) -> SettingHelp:
    """One setting in words."""
    kind, choices, bounds = _kind(field.annotation, field.metadata)
    default = _default(field.get_default(call_default_factory=True))
    return SettingHelp(key, kind, choices, " and ".join(bounds), default, " ".join((field.description or "").split()))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value in (None, (), {}, ""):
        return "empty"
    if isinstance(value, Enum):
        value = value.value
    return f"{list(value) if isinstance(value, tuple) else value}".replace("True", "true").replace("False", "false")


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> tuple[str, tuple[str, ...], list[str]]:
    """A type in words, its values where they are few, and the bounds of its values."""
    bounds = [
        text.format(f"{getattr(each, name):g}") for each in metadata for kind, (text, name) in _BOUNDS.items() if isinstance(each, kind)
    ]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, choices, inner = _kind(args[0], args[1:])
        return kind, choices, inner + bounds
    if origin in (Union, types.UnionType):
        found = [_kind(each) for each in args if each is not type(None)]
        kinds = [", ".join(choices) or kind for kind, choices, _ in found]
        only = found[0][1] if len(found) == 1 else ()
        return " or ".join(kinds), only, [each for *_, inner in found for each in inner] + bounds
    if origin is Literal:
        return "choice", tuple(str(value) for value in args), bounds
    if origin is tuple:
        kind, choices, inner = _kind(args[0])
        return f"list of {', '.join(choices) or kind}", (), inner + bounds
    if origin is dict:
        return f"{_kind(args[0])[0]} to {_kind(args[1])[0]}", (), bounds
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "choice", tuple(str(each.value) for each in annotation), bounds
    words = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation))), (), bounds


def commented_yaml(model: type[BaseModel], values: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Lines of a file in which every setting stands with its meaning, commented out: `##` begins words, `#` a setting.

    Args:
        values: what stands there for each setting, as `model_dump(mode="json")` gives them.
    """
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        help_ = describe_setting(name, field)
        shown = ", ".join(help_.choices) or help_.kind
        shown = f" ({shown}{f', {help_.range}' if help_.range else ''})" if inner is None else ""
        yield from _comment(f"{help_.meaning}{shown}", indent)
        if inner is None:
            text = yaml.safe_dump(values[name], default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            yield f"#{indent}{name}: {text}"
        else:
            yield f"#{indent}{name}:"
            yield from commented_yaml(inner, values[name], f"{indent}  ")


def _comment(text: str, indent: str) -> Iterator[str]:
    yield from (f"## {indent}{line}" for line in textwrap.wrap(text, _WIDTH - len(indent), break_long_words=False))
