"""`ploutos config` and `ploutos init`: what can be set, and a file to start from."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ploutos.cli.shared import JSON_OPTION, console, fail
from ploutos.errors import ConfigError, PloutosError, StoreError

_START = """## All settings of ploutos at their values in the preset {preset}. A line with one "#" is a setting: remove the "#" of
## what you change, and of the groups above it. `ploutos config KEY` explains one in the terminal.
##
##   ploutos run --preset {preset} --config {file} --plan
##   ploutos run --preset {preset} --config {file} --out {out}
"""


def config(
    key: Annotated[str | None, typer.Argument(help="A setting or a group, such as training.members or env.costs; all by default.")] = None,
    preset: Annotated[str, typer.Option(help="Preset whose values are shown.")] = "full",
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset.")] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Explain settings: what each is, its range, its default, and its value where a preset or a file changes it."""
    from ploutos.config import PipelineConfig, load_config
    from ploutos.faults import suggestion
    from ploutos.market.data_spec import EVERY_SETTING
    from ploutos.setting_help import settings_of

    try:
        values = load_config(preset, config_file).model_dump(mode="json", context=EVERY_SETTING)
        known = list(settings_of(PipelineConfig))
        found = [each for each in known if key is None or each.key == key or each.key.startswith((f"{key}.", f"{key}[]"))]
        if not found:
            groups = {each.key.rpartition(".")[0] for each in known} - {""}
            near = suggestion(str(key), [*groups, *(each.key for each in known)], 0.4)
            raise ConfigError(f"{key} is not a setting{near}")
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps([asdict(each) | {"value": _value(values, each.key)} for each in found]))
        return
    table = Table(show_lines=False)
    for heading in ("setting", "value", "type and range", "what it is"):
        table.add_column(heading, overflow="fold")
    for each in found:
        value = _show(_value(values, each.key)) if "[]" not in each.key else each.default
        table.add_row(each.key, value, ", ".join(part for part in (", ".join(each.choices) or each.kind, each.range) if part), each.meaning)
    console().print(table)


def _value(values: dict[str, Any], key: str) -> Any:
    """A setting's value; None for one of a list's items."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _show(value: Any) -> str:
    return "empty" if value in (None, [], {}, "") else str(value).lower() if isinstance(value, bool) else str(value)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if it does not exist.")] = Path("ploutos-run"),
    preset: Annotated[str, typer.Option(help="Preset whose values the file holds.")] = "demo",
) -> None:
    """Make a folder with a YAML file of all settings, each explained and commented out, to start from."""
    from ploutos.config import PipelineConfig, load_config
    from ploutos.market.data_spec import EVERY_SETTING
    from ploutos.setting_help import commented_yaml
    from ploutos.store import write_text

    file = folder / "ploutos.yaml"
    try:
        chosen = load_config(preset)
        if file.exists():
            raise StoreError(f"{file} already exists; choose another folder, or edit it")
        start = _START.format(preset=preset, file=file, out=folder / "run")
        lines = commented_yaml(PipelineConfig, chosen.model_dump(mode="json", context=EVERY_SETTING))
        write_text(file, start + "\n".join(lines) + "\n")
    except PloutosError as error:
        raise fail(error, as_json=False) from error
    print(f"{file} holds every setting, explained and commented out. Then:\n")
    print(f"  ploutos run --preset {preset} --config {file} --plan\n  ploutos run --preset {preset} --config {file} --out {folder / 'run'}")
