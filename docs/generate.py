"""What the site says of the code, taken from the code: settings, commands, metrics, observations and the Python API.

MkDocs calls `on_page_markdown`; a line `<!-- generated: settings -->` in a page becomes what `settings()` returns.
"""

import re
import types
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import ploutos
from ploutos.cli.main import app
from ploutos.config import PipelineConfig
from ploutos.envs.observation import observation_names
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.summary import Growth, StrategyMetrics
from ploutos.features.build import FeatureSet

_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_BOUNDS: dict[type, tuple[str, str]] = {Gt: ("> {}", "gt"), Ge: ("≥ {}", "ge"), Lt: ("< {}", "lt"), Le: ("≤ {}", "le")}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated where a page asks for it."""
    return _MARK.sub(lambda mark: _MAKE[mark[1]](), markdown)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def settings() -> str:
    """Every setting of a run: one table per section of the configuration."""
    top = [_row(name, field) for name, field in PipelineConfig.model_fields.items() if _model(field.annotation) is None]
    parts = [_table(_HEADINGS, top)]
    for key, doc, model in _sections(PipelineConfig):
        rows = [_row(f"{key}.{name}", field) for name, field in model.model_fields.items() if _nested(field.annotation) is None]
        parts += [f"\n## {key}\n", doc, "", _table(_HEADINGS, rows)]
    return "\n".join(parts)


_HEADINGS = ("setting", "type", "default", "what it is")


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Groups of settings by dotted key, each with its doc line."""
    for name, field in model.model_fields.items():
        inner = _nested(field.annotation)
        if inner is not None:
            key = prefix + name if _model(field.annotation) else f"{prefix}{name}[]"
            yield key, field.description or "", inner
            yield from _sections(inner, f"{key}.")


def _model(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The group of settings that a field holds, one or a list of them."""
    return _model(annotation) or next((model for each in get_args(annotation) if (model := _model(each))), None)


def _row(key: str, field: FieldInfo) -> list[str]:
    kind, bounds = _kind(field.annotation, field.metadata)
    shown = f"{kind}, {' and '.join(bounds)}" if bounds else kind
    return [f"`{key}`", shown, _default(field.get_default(call_default_factory=True)), field.description or ""]


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value in (None, (), {}, ""):
        return "empty"
    if isinstance(value, Enum):
        value = value.value
    return f"`{list(value) if isinstance(value, tuple) else value}`".replace("True", "true").replace("False", "false")


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> tuple[str, list[str]]:
    """A type in words, and the bounds of its values."""
    bounds = [
        text.format(f"{getattr(each, name):g}") for each in metadata for kind, (text, name) in _BOUNDS.items() if isinstance(each, kind)
    ]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, inner = _kind(args[0], args[1:])
        return kind, inner + bounds
    if origin in (Union, types.UnionType):
        found = [_kind(each) for each in args if each is not type(None)]
        return " or ".join(kind for kind, _ in found), [each for _, inner in found for each in inner] + bounds
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args), bounds
    if origin is tuple:
        kind, inner = _kind(args[0])
        return f"list of {kind}", inner + bounds
    if origin is dict:
        return f"{_kind(args[0])[0]} to {_kind(args[1])[0]}", bounds
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation), bounds
    words = {int: "integer", float: "number", bool: "true or false", str: "text", Path: "path"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation))), bounds


def commands() -> str:
    """Every command with its options."""
    return "\n".join(_command(typer.main.get_command(app), "ploutos"))


def _command(command: Any, name: str) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if not inner:
        yield f"## {name}\n\n{command.help}\n"
        rows = [[_option(each), _preset(each), each.help or ""] for each in command.params]
        yield _table(("option", "default", "what it does"), rows) + "\n"
    for key, each in inner.items():
        yield from _command(each, f"{name} {key}")


def _option(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def _preset(option: Any) -> str:
    """What an option is where it is not given."""
    shown = option.default
    return "" if shown is None or option.is_flag or callable(shown) else f"`{shown}`"


def metrics() -> str:
    """Every metric and what it is."""
    described = StrategyMetrics.model_fields.items()
    return _table(("metric", "meaning"), [[f"`{name}`", str(field.description)] for name, field in described])


def growth() -> str:
    """Every part of growth and what it is."""
    return _table(("part", "meaning"), [[f"`{name}`", str(field.description)] for name, field in Growth.model_fields.items()])


def observation_columns(account: bool) -> list[str]:
    """Columns of the observation of one symbol S with one feature F."""
    stamps = np.array(["2000-01-01"], dtype="datetime64[us]")
    return observation_names(FeatureSet(np.zeros((1, 1, 1), dtype=np.float32), ("F",), stamps, stamps, ("S",)), account)


_COLUMNS = {
    "S.F": ("features, symbol by symbol", "-5 .. 5", "feature *F* of symbol *S*, scaled by the training rows' mean and deviation"),
    "S.usable": ("1 per symbol", "0 or 1", "the symbol has a bar and its features' windows are full"),
    "S.weight": ("1 per symbol", "-5 .. 5", "what is held, as a share of equity, signed"),
    "S.unrealised": ("1 per symbol", "-5 .. 5", "return of the open position since its average entry, times 5"),
    "cash": ("1", "-5 .. 5", "cash as a share of equity"),
    "drawdown": ("1", "-1 .. 0", "equity below its highest close so far"),
    "S.unrealized_pnl": ("1 per symbol", "-5 .. 5", "profit of the open trade as a share of equity, times 5"),
    "S.drawdown_current": ("1 per symbol", "-1 .. 0", "the drawdown again, as an advisor reads it"),
    "S.consecutive_losses": ("1 per symbol", "0 .. 5", "losing trades in a row, over 10"),
    "S.win_rate_recent": ("1 per symbol", "0 .. 1", "winners among the last ten trades; 0.5 before the first"),
    "S.mae_mfe_ratio": ("1 per symbol", "0 .. 1", "worst over worst plus best excursion of the open trade"),
}


def observation() -> str:
    """The observation's columns, in order."""
    always = len(observation_columns(account=False))
    rows = []
    for position, name in enumerate(observation_columns(account=True)):
        columns, bounds, meaning = _COLUMNS[name]
        rows.append([f"`{name}`", columns, bounds, meaning + ("" if position < always else "; with `env.observe_account`")])
    return _table(("column", "how many", "range", "meaning"), rows)


def environment_settings() -> str:
    """What an environment is told."""
    return _table(_HEADINGS, [_row(name, field) for name, field in EnvSpec.model_fields.items() if _nested(field.annotation) is None])


def api() -> str:
    """Every public name, under the package that it comes from."""
    found: dict[str, list[str]] = {}
    keys = {model: key for key, _, model in _sections(PipelineConfig)} | {PipelineConfig: ""}
    for name in ploutos.__all__:
        public = getattr(ploutos, name)
        room, options = public.__module__.split(".")[1], "\n    options:\n      heading_level: 3\n"
        if public in keys:  # its fields are settings, and stand there
            anchor = f"#{keys[public].replace('.', '').replace('[]', '')}" if keys[public] else ""
            options += f"      members: []\n\nFields: [{keys[public] or 'all settings'}](settings.md{anchor}).\n"
        found.setdefault(_ROOMS.get(room, room), []).append(f"::: {public.__module__}.{name}{options}")
    order = [title for title in dict.fromkeys(_ROOMS.values()) if title in found]
    return "\n".join(f"## {title}\n\n" + "\n".join(found[title]) for title in [*order, *(found.keys() - set(order))])


_ROOMS = {
    "config": "Configuration", "market": "Bars", "features": "Features", "walk_forward": "Folds", "envs": "Environment",
    "training": "Training", "strategies": "Strategies", "advisor": "Advisor", "llm": "Language models", "fusion": "Fusion",
    "evaluation": "Evaluation", "reporting": "Figures", "errors": "Errors",
}  # fmt: skip
_MAKE = {
    "settings": settings, "commands": commands, "metrics": metrics, "growth": growth, "observation": observation, "api": api,
    "environment_settings": environment_settings,
}  # fmt: skip
