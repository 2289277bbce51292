"""`ploutos benchmark` and `ploutos compare-benchmarks`: the seed document's optimisations, without and with them."""

import json
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.table import Table

from ploutos.cli.shared import JSON_OPTION, console, fail
from ploutos.errors import ConfigError, PloutosError
from ploutos.hardware.threads import cap_threads


def benchmark(
    mode: Annotated[str, typer.Option(help="baseline (without the optimisations) or optimized.")],
    output: Annotated[Path | None, typer.Option("--output", help="JSON file; MODE.json in this folder by default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of measurement; the median is reported.")] = 5,
) -> None:
    """Time the seed document's cache, fusion, pool and network, with or without its optimisations, and write JSON."""
    cap_threads(1)
    from ploutos.store import write_json
    from ploutos.testing_benchmark import Mode, measure

    try:
        if mode not in get_args(Mode):
            raise ConfigError(f"--mode is {mode}; use one of {', '.join(get_args(Mode))}")
        found = measure(cast(Mode, mode), rounds).model_dump()
        output = output or Path(f"{mode}.json")
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, found)
    except PloutosError as error:
        raise fail(error, as_json=False) from error
    print(json.dumps(found, indent=2))
    console().print(f"Written to {output.resolve()}", soft_wrap=True, highlight=False)


def compare(
    one: Annotated[Path, typer.Argument(help="File of a benchmark, such as baseline.json.")],
    other: Annotated[Path, typer.Argument(help="Another, such as optimized.json.")],
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Compare two benchmarks case by case; nothing here is a target."""
    from ploutos.testing_benchmark import compare as ratios
    from ploutos.testing_benchmark import read_benchmark

    try:
        first, second = read_benchmark(one), read_benchmark(other)
        faster = ratios(first, second)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        answer: dict[str, Any] = {"ok": True, "times_faster": faster, "one": first.model_dump(), "other": second.model_dump()}
        print(json.dumps(answer))
        return
    table = Table()
    for heading in ("case", f"{first.mode}, ms", f"{second.mode}, ms", "times faster"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, ratio in faster.items():
        table.add_row(name, f"{1e3 * first.seconds[name]:,.3f}", f"{1e3 * second.seconds[name]:,.3f}", f"{ratio:,.1f}")
    console().print(table)
    for each in (first, second):
        hits = "no cache" if each.cache_hit_rate is None else f"cache hit rate {each.cache_hit_rate:.0%}"
        console().print(f"{each.mode}: {each.network_parameters:,} parameters, {hits}", highlight=False)
