"""A run's summary: it survives its file, holds facts and no prose, and every number of the report is one of its own."""

import ast
import json
import math
import re
from pathlib import Path

import pytest
from markets import QUALITY, mock_advisor
from pages import tables
from typer.testing import CliRunner

import ploutos.evaluation
from ploutos.advisor.advisor import advise
from ploutos.advisor.mirror import ask_mirrored
from ploutos.cli.main import app
from ploutos.envs.spec import EnvSpec
from ploutos.errors import StoreError
from ploutos.evaluation.attribution import attributions
from ploutos.evaluation.experiment import in_sample, out_of_sample, read_in_sample, write_in_sample
from ploutos.evaluation.fusion_selection import choose_fusion
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import RunSummary, SpanMetrics, StrategyMetrics, read_summary, write_summary
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.reporting.names import names_of
from ploutos.reporting.page import show, typeset
from ploutos.reporting.report import RunFacts, comparison, drawdown_rows, measure_rows, render_report
from ploutos.reporting.verdict import verdict
from ploutos.walk_forward import Range, fold_table


@pytest.fixture(scope="module")
def run(panel, panel_features, panel_fold, panel_policies):
    """Backtests, in-sample rows and summary of a small run with all its parts."""
    fold = panel_fold.model_copy(update={"test": Range(start=506, stop=566)})
    folds, policies, env = [fold], [panel_policies], EnvSpec()
    signals = advise(panel, market_features(panel), 405, 565, mock_advisor())
    mirrored = ask_mirrored(signals.within(505, 564), panel, mock_advisor())
    choices = choose_fusion(panel, panel_features, folds, policies, signals, env, FusionSpec())
    result = out_of_sample(
        panel, panel_features, folds, policies, signals, env, FusionSpec(), 1, choices=choices, mirrored=mirrored, placebo_draws=2
    )
    inside = in_sample(panel, panel_features, folds, policies, env)
    bootstrap = BootstrapSpec(replications=30)
    growth = attributions(panel, result, ("fused", "vote", "buy-and-hold"), env, folds)
    summary = summarise(result, panel, folds, inside, signals, bootstrap, 1, reduced=True, mirrored=mirrored)
    summary = summary.model_copy(update={"fusion": choices, "attribution": growth})
    return result, inside, summary, fold_table(tuple(folds), panel.timestamps)


def test_a_summary_and_in_sample_rows_survive_their_files(run, tmp_path):
    _, inside, summary, _ = run
    write_summary(summary, tmp_path / "metrics.json")
    again = read_summary(tmp_path / "metrics.json")
    assert again == summary
    assert list(again.strategies) == list(summary.strategies)
    write_summary(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "metrics.json").read_bytes()
    write_in_sample(inside, tmp_path / "in_sample.json")
    assert read_in_sample(tmp_path / "in_sample.json") == inside


def test_what_has_no_value_is_none_here_and_null_in_the_file(run, tmp_path):
    summary = run[2]
    for nothing in (math.nan, math.inf, None):
        assert SpanMetrics(total_return=nothing, sharpe=1, sharpe_low=0, sharpe_high=2).total_return is None
    write_summary(summary, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text())["strategies"]["flat"]["sharpe"] is None
    with pytest.raises(ValueError, match="finite number"):
        StrategyMetrics.model_validate(summary.strategies["flat"].model_dump() | {"total_return": math.nan})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 1}, "has schema version 1; expected 5: repeat the run, or read it with the ploutos that wrote it"),
        ({"schema_version": 6}, "has schema version 6; expected 5"),
        ({"schema_version": None}, "has no schema version; expected 5"),
        ({"sharp": 1.0}, "is not the summary of a run: sharp: Extra inputs are not permitted; repeat the run"),
        ({"n_bars": "many"}, "is not the summary of a run: n_bars: Input should be a valid integer"),
    ],
)
def test_another_version_or_a_field_that_does_not_fit_is_refused_in_one_sentence(run, tmp_path, change, sentence):
    content = run[2].model_dump(mode="json") | change
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(StoreError) as error:
        read_summary(tmp_path / "metrics.json")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_file_that_is_no_summary_is_refused(tmp_path, content):
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"metrics\.json"):
        read_summary(tmp_path / "metrics.json")
    with pytest.raises(StoreError, match=r"missing\.json is not the summary of a run: no such file"):
        read_summary(tmp_path / "missing.json")


def typeset_rows(rows):
    return [[typeset(cell) for cell in row] for row in rows]


def test_every_number_of_the_report_is_the_summarys(run, panel):
    result, _, summary, plan = run
    page = render_report(result, summary, panel, QUALITY, RunFacts(plan, []))
    shown = tables(page)
    by_heading = {headings[1] if headings[0] == "account" else headings[0]: rows for headings, *rows in shown}
    assert by_heading["RL vote less buy and hold"] == typeset_rows(measure_rows(summary))
    assert len(summary.against_benchmark.tests) == 5
    rows, metrics = by_heading["strategy"], summary.strategies.values()
    assert rows == typeset_rows(row.values() for row in comparison(summary))
    assert [row[0] for row in rows] == list(names_of(summary).values())
    kinds = {"total_return": "percent", "sharpe": "ratio", "max_drawdown": "percent", "excess_return": "percent", "costs": "money"}
    kinds |= {"turnover": "times", "exposure": "percent", "n_fills": "count", "cagr": "percent", "ann_vol": "percent"}
    for column, (name, kind) in enumerate({**kinds, "sortino": "ratio", "calmar": "ratio", "alpha": "percent", "beta": "ratio"}.items(), 1):
        assert [row[column].split(" [")[0] for row in rows] == [typeset(show(getattr(each, name), kind)) for each in metrics]
    for slug, each in summary.strategies.items():
        ends = f"[{show(each.sharpe_low, 'ratio')}, {show(each.sharpe_high, 'ratio')}]"
        assert each.sharpe_low is None or typeset(ends) in rows[list(summary.strategies).index(slug)][2]
    assert [each.slug for each in summary.histories] == ["vote", "buy-and-hold"]
    assert [rows for headings, *rows in shown if headings[0] == "depth"] == [
        typeset_rows(drawdown_rows(each)) for each in summary.histories
    ]
    heats = [rows for headings, *rows in shown if headings[-1] == "year"]
    for history, heat in zip(summary.histories, heats, strict=True):
        cells = [cell for row in heat for cell in row[1:-1] if cell]
        assert cells == [typeset(show(value, "percent")) for value in history.months.values()]
        assert [row[-1] for row in heat] == [typeset(show(value, "percent")) for value in history.years.values()]
    for slug, row in zip(("vote", "buy-and-hold"), by_heading["value at risk, 95%"], strict=True):
        tail = [getattr(summary.strategies[slug], name) for name in ("value_at_risk", "expected_shortfall", "ann_vol")]
        assert row[1:] == [typeset(show(value, "percent")) for value in tail]
    sharpes = [[fold.sharpe[slug] for fold in summary.folds] for slug in ("buy-and-hold", "vote")]
    heat = next(rows for headings, *rows in shown if headings[1].startswith("fold 0, "))
    assert [row[1:] for row in heat[:2]] == [[typeset(show(value, "ratio")) for value in row] for row in sharpes]


def test_the_command_prints_the_sentences_beside_the_facts(run, tmp_path, monkeypatch):
    summary = run[2]
    write_summary(summary, tmp_path / "metrics.json")
    monkeypatch.setattr("ploutos.cli.main._run_flow", lambda *_: tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    answer = json.loads(CliRunner().invoke(app, ["run", "--preset", "demo", "--json"]).stdout)
    assert answer["verdict"] == verdict(summary)
    assert answer["metrics"] == json.loads((tmp_path / "metrics.json").read_text())
    shown = " ".join(CliRunner().invoke(app, ["run", "--preset", "demo"]).stdout.split())
    assert all(sentence in shown for sentence in verdict(summary))
    assert "fused (mock advisor)" in shown


def texts(value, path=""):
    """Every text of a JSON value with where it stands; names of fields are not among them, keys that are data are."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            yield from texts(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, path)
    elif isinstance(value, str):
        yield path, value


FREE_TEXT = {".source", ".advisor.model"}
"""Worded by a reader of bars and by the advisor's server."""


def test_the_file_holds_no_free_text_but_where_bars_and_advisor_are_named(run):
    _, _, summary, _ = run
    found = list(texts(summary.model_dump(mode="json")))
    assert {path for path, _ in found} >= FREE_TEXT
    code = re.compile(r"[\w-]*")  # slugs, codes, dates, symbols, digests, names of fields
    assert [(path, text) for path, text in found if path not in FREE_TEXT and not code.fullmatch(text)] == []


def prose(module: Path) -> list[str]:
    """Texts of three words or more in a module that are neither docstrings nor in a function that raises: sentences for people."""
    tree = ast.parse(module.read_text())
    excused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(isinstance(each, ast.Raise) for each in ast.walk(node)):
            excused |= {id(each) for each in ast.walk(node)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in constants if id(node) not in excused and len(re.findall(r"[A-Za-z]{2,}[\s.,;:]", node.value + " ")) >= 3]


def test_evaluation_makes_no_sentence(tmp_path):
    folder = Path(ploutos.evaluation.__file__).parent
    for module in folder.glob("*.py"):
        assert prose(module) == [], module.name
    (tmp_path / "other.py").write_text('"""Some words to read."""\n\ndef f(x):\n    return f"{x} was ruined that day"\n')
    assert prose(tmp_path / "other.py") == [" was ruined that day"]


def test_every_number_has_a_line_that_says_what_it_is():
    def described(model):
        for name, field in model.model_fields.items():
            assert field.description, (model.__name__, name)

    for model in (RunSummary, StrategyMetrics, SpanMetrics):
        described(model)
