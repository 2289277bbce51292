"""What a strategist's search came to: one page, one JSON, and the settings that made it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ploutos.config import PipelineConfig, dump_yaml
from ploutos.errors import StoreError
from ploutos.reporting.page import render_page, show
from ploutos.reporting.strategist_verdict import CONTROLS
from ploutos.research.strategist.loop import Iteration, describe
from ploutos.research.strategist.spec import StrategistSpec
from ploutos.research.strategist.verdict import IterationRow, StrategistResult, WindowRow, iteration_row
from ploutos.store import digest_of, write_json, write_text

RESULT = "strategist.json"
_TURNS = ("turn", "action", "parameters", "walk-forward", "in sample", "drawdown", "fills", "what code said", "reasoning")


def turn_cells(row: IterationRow) -> dict[str, str]:
    """One turn for people, by the headings of its columns."""
    parameters = "-" if row.parameters is None else describe(row.parameters)
    cells = (
        str(row.number), row.action, f"{parameters} (best of {row.swept} swept)" if row.swept else parameters,
        f"failed: {row.failed}" if row.failed else show(row.walk_forward, "ratio"), show(row.in_sample, "ratio"),
        show(None if row.max_drawdown is None else -row.max_drawdown, "percent"), str(row.n_fills), "; ".join(row.notes), row.reasoning,
    )  # fmt: skip
    return dict(zip(_TURNS, cells, strict=True))


def turn_of(iteration: Iteration) -> dict[str, str]:
    """The same of a turn that has just ended."""
    return turn_cells(iteration_row(iteration))


def new_folder(runs_root: Path, out: Path | None, spec: StrategistSpec) -> Path:
    """A folder for the result: the one that was asked for, or one of its own.

    Raises:
        StoreError: it cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    folder = out or runs_root / f"{stamp}_strategist_{digest_of(spec)[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
    return folder


def write_strategist(result: StrategistResult, config: PipelineConfig, spec: StrategistSpec, folder: Path) -> Path:
    """Write page, settings and result; the result comes last. Returns the page."""
    page = folder / "strategist.html"
    write_text(page, render_strategist(result))
    write_text(folder / "config.yaml", dump_yaml(config))
    write_json(folder / RESULT, {"spec": spec.model_dump(mode="json"), "result": result.model_dump(mode="json")})
    return page


def read_strategist(folder: Path) -> StrategistResult:
    """The result in a folder.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    import json

    try:
        return StrategistResult.model_validate(json.loads((folder / RESULT).read_bytes())["result"])
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{folder} holds no complete {RESULT}; expected a folder that ploutos strategist run wrote") from error


def render_strategist(result: StrategistResult) -> str:
    """The page."""
    windows = {"the find": result.found, "the rule's defaults": result.defaults, "buying and holding": result.buy_and_hold}
    costs = [("questions", str(result.n_questions)), ("tokens", f"{result.n_tokens:,}"), ("seconds", f"{result.seconds:.1f}")]
    costs += [("times the model was unloaded from the GPU", str(len(result.unloads)))]
    return render_page(
        "strategist.html.j2", headline=result.sentences[0], rule=result.rule, model=result.model, development=result.development,
        window=result.window, sentences=result.sentences[1:], ended=result.ended[0].upper() + result.ended[1:], costs=costs,
        window_headings=("", "parameters", "Sharpe ratio", "return", "drawdown", "fills"),
        window_rows=[_window_cells(name, row) for name, row in windows.items() if row is not None],
        control_headings=("", "searches", "walk-forward, median", "last window, median", "p", "p, last window"),
        control_rows=[
            (CONTROLS[each.name], each.n_searches, show(each.walk_forward, "ratio"), show(each.sharpe, "ratio"), show(each.p, "p"),
             show(each.p_window, "p"))
            for each in result.controls
        ],
        iteration_headings=_TURNS, iteration_rows=[tuple(turn_cells(row).values()) for row in result.iterations],
    )  # fmt: skip


def _window_cells(name: str, row: WindowRow) -> tuple[Any, ...]:
    parameters = "-" if row.parameters is None else describe(row.parameters)
    numbers = (show(row.sharpe, "ratio"), show(row.total_return, "percent"), show(-row.max_drawdown, "percent"))
    return (name, parameters, *numbers, row.n_fills)
