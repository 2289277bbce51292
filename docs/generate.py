"""What the site says of the code, taken from the code: settings, commands, metrics, observations and the Python API.

MkDocs calls `on_page_markdown`; a line `<!-- generated: settings -->` in a page becomes what `settings()` returns.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import typer
from pydantic.fields import FieldInfo

import ploutos
from ploutos.cli.main import app
from ploutos.config import PipelineConfig
from ploutos.envs.observation import observation_names
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.summary import Growth, StrategyMetrics
from ploutos.features.build import FeatureSet
from ploutos.market.synthetic.scenarios import SCENARIOS
from ploutos.setting_help import describe_setting, nested, sections

_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated where a page asks for it."""
    return _MARK.sub(lambda mark: _MAKE[mark[1]](), markdown)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def settings() -> str:
    """Every setting of a run: one table per section of the configuration."""
    top = [_row(name, field) for name, field in PipelineConfig.model_fields.items() if nested(field.annotation) is None]
    parts = [_table(_HEADINGS, top)]
    for key, doc, model in sections(PipelineConfig):
        rows = [_row(f"{key}.{name}", field) for name, field in model.model_fields.items() if nested(field.annotation) is None]
        parts += [f"\n## {key}\n", doc, "", _table(_HEADINGS, rows)]
    return "\n".join(parts)


_HEADINGS = ("setting", "type", "default", "what it is")


def _row(key: str, field: FieldInfo) -> list[str]:
    row = describe_setting(key, field)
    choices = ", ".join(f"`{choice}`" for choice in row.choices)
    shown = f"{choices or row.kind}, {row.range}" if row.range else choices or row.kind
    return [f"`{key}`", shown, row.default if row.default in ("required", "empty") else f"`{row.default}`", row.meaning]


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
    return "" if shown is None or getattr(option, "is_flag", False) or callable(shown) else f"`{shown}`"


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
    return _table(_HEADINGS, [_row(name, field) for name, field in EnvSpec.model_fields.items() if nested(field.annotation) is None])


def scenarios() -> str:
    """Every scenario of the simulated market and what it does."""
    return _table(("scenario", "what it does"), [[f"`{name}`", meaning] for name, meaning in SCENARIOS.items()])


def api() -> str:
    """Every public name, under the package that it comes from."""
    found: dict[str, list[str]] = {}
    keys = {model: key for key, _, model in sections(PipelineConfig)} | {PipelineConfig: ""}
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
    "environment_settings": environment_settings, "scenarios": scenarios,
}  # fmt: skip
