"""Runs of a home: listed, found, opened, and compared in pairs on the sessions that both tested."""

import json
import webbrowser
from dataclasses import replace
from datetime import date

import jsonschema
import numpy as np
import pandas as pd
import pytest
from markets import QUALITY, manifest_of, mock_advisor
from pages import figures, script
from typer.testing import CliRunner

from ploutos.advisor.advisor import advise
from ploutos.cli.main import app
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError, StoreError
from ploutos.evaluation.experiment import in_sample, out_of_sample
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.run_comparison import compare_runs, read_account
from ploutos.evaluation.significance import mean_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import RunSummary, write_summary
from ploutos.features.llm_features import market_features
from ploutos.fusion.spec import FusionSpec
from ploutos.hardware.monitor import Pause
from ploutos.llm.gpu_unload import UnloadRecord
from ploutos.market.instruments import InstrumentSpec
from ploutos.reporting.page import render_page, show, typeset
from ploutos.reporting.report import RunFacts, render_markdown, render_report
from ploutos.reporting.run_folder import facts_of, repeating_command
from ploutos.reporting.run_list import find_run, list_runs
from ploutos.reporting.verdict import headline, verdict, vote_sentence
from ploutos.run_manifest import Asked, read_manifest, write_manifest
from ploutos.walk_forward import Range, fold_table

BOOTSTRAP = BootstrapSpec(replications=99)
invoke = CliRunner().invoke


@pytest.fixture(scope="module")
def small(panel, panel_features, panel_fold, panel_policies):
    """Accounts, summary and table of folds of a run over 60 bars."""
    folds = [panel_fold.model_copy(update={"test": Range(start=506, stop=566)})]
    signals = advise(panel, market_features(panel), 505, 565, mock_advisor())
    result = out_of_sample(panel, panel_features, folds, [panel_policies], signals, EnvSpec(), FusionSpec(), 1)
    inside = in_sample(panel, panel_features, folds, [panel_policies], EnvSpec())
    return (
        result,
        summarise(result, panel, folds, inside, signals, BootstrapSpec(replications=30), 1, True),
        fold_table(folds, panel.timestamps),
    )


def write(folder, result, summary, panel, **facts):
    """What comparing needs of a run's folder."""
    folder.mkdir(parents=True)
    write_summary(summary, folder / "metrics.json")
    write_manifest(manifest_of(bars=facts_of(panel), artifacts={"bars": "a" * 64}, **facts), folder)
    result.equity_frame().to_parquet(folder / "equity.parquet", index=False)
    (folder / "report.html").write_text("<p>report</p>")
    return folder


def later(result, by):
    """The same accounts without their first sessions."""
    arrays = {
        name: getattr(result, name)[:, by:]
        for name in ("equity", "pnl", "commission", "slippage", "impact", "borrow", "traded", "written_off")
    }
    return replace(result, timestamps=result.timestamps[by:], positions=result.positions[by:], **arrays)


@pytest.fixture
def home(tmp_path, monkeypatch, small, panel):
    """Two runs: one tested 20 sessions less than the other."""
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    result, summary, _ = small
    write(tmp_path / "runs" / "20260101T000000Z_one", result, summary, panel)
    write(tmp_path / "runs" / "20260102T000000Z_two", later(result, 20), summary, panel, written="2026-01-02T00:00:00+00:00")
    return tmp_path / "runs"


def test_runs_are_listed_newest_first_with_their_answers(home, small):
    (home / "20260103T000000Z_started").mkdir()
    (home / "20260104T000000Z_phase").mkdir()
    write_manifest(manifest_of(written="2026-01-04", phase=1), home / "20260104T000000Z_phase")
    (home / "20260105T000000Z_damaged").mkdir()
    (home / "20260105T000000Z_damaged" / "manifest.json").write_text('{"written": "2026-01-05"')
    content = json.loads((home / "20260101T000000Z_one" / "metrics.json").read_text()) | {"schema_version": 1}
    (home / "20260101T000000Z_one" / "metrics.json").write_text(json.dumps(content))
    found = list_runs(home)
    assert [each.folder.name[-5:] for each in found] == ["phase", "Z_two", "Z_one", "maged"]
    assert found[0].answer == "ended before its evaluation"
    assert found[1].answer == headline(small[1])
    assert found[2].answer.startswith("has schema version 1; expected 5")
    assert found[3].answer.startswith("holds no manifest.json of a run (")
    answer = json.loads(invoke(app, ["runs", "--json", "--most", "1"]).stdout)
    assert (answer["n_runs"], len(answer["runs"]), answer["runs"][0]["evaluated"]) == (4, 1, False)
    assert "3 older" in invoke(app, ["runs", "--most", "1"]).stdout
    assert find_run(home, None).name.endswith("two")


def test_a_manifest_is_read_as_it_was_written_by_this_version_or_an_older_one(tmp_path, panel):
    unload = UnloadRecord("training", unload_s=0.1 + 0.2, block_s=3.0, freed_bytes=5)
    asked = Asked(3, 100, 20, abstentions=1, failures=0, seconds=1.5, load_seconds=0.5, money=None, unloads=(unload,))
    made = manifest_of(
        bars=facts_of(panel), data_quality=QUALITY.warnings, pauses=(Pause("phase 2", 0.1, 1, None, 2, None),), llm=asked,
        hardware={"peak_memory_bytes": 3, "mean_cpu_cores": 0.1 + 0.2, "gpu_utilization": None},
    )  # fmt: skip
    write_manifest(made, tmp_path)
    assert read_manifest(tmp_path) == made
    content = json.loads((tmp_path / "manifest.json").read_text())
    older = json.loads(json.dumps(content))
    for group in (older, older["bars"]["instruments"][0], older["refs"], older["llm"]):
        group["since removed"] = 1
    del older["schema_version"], older["llm"]["failures"]
    (tmp_path / "manifest.json").write_text(json.dumps(older))
    assert read_manifest(tmp_path) == made
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"schema_version": 2}))
    with pytest.raises(
        StoreError, match=r"holds no manifest\.json of a run \(schema_version: .*1\); name the folder of a run or of a phase"
    ):
        read_manifest(tmp_path)
    with pytest.raises(StoreError, match="ended after phase 1, so nothing was tested"):
        manifest_of(phase=1).require_bars()


def test_a_run_is_found_by_folder_name_or_beginning_or_refused_in_one_sentence(home, tmp_path):
    assert find_run(home, "20260102").name == find_run(tmp_path, str(home / "20260102T000000Z_two")).name == "20260102T000000Z_two"
    with pytest.raises(StoreError, match=r"2 runs under .* begin with 2026: 20260101T000000Z_one, 20260102T000000Z_two; name one"):
        find_run(home, "2026")
    with pytest.raises(StoreError, match="mine is neither the folder of an evaluated run nor one under"):
        find_run(home, "mine")
    with pytest.raises(StoreError, match="holds no evaluated run; start one"):
        find_run(tmp_path / "empty", None)


def test_a_report_is_opened_in_the_browser_and_said_in_words(home, small, monkeypatch):
    asked = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: asked.append(uri) or True)
    shown = invoke(app, ["report", "--open"])
    assert shown.exit_code == 0
    assert asked == [(home / "20260102T000000Z_two" / "report.html").as_uri()]
    words = " ".join(shown.stdout.split())
    assert all(sentence in words for sentence in (headline(small[1]), *verdict(small[1])))
    monkeypatch.setattr(webbrowser, "open", lambda uri: False)
    answer = json.loads(invoke(app, ["report", "20260101", "--open", "--json"]).stdout)
    assert "no browser can be opened from here; open " in answer["message"]


def test_two_runs_are_compared_on_common_sessions_alone(home, small):
    one, two = (read_account(home / name, "momentum") for name in ("20260101T000000Z_one", "20260102T000000Z_two"))
    same = compare_runs(one, two, BOOTSTRAP, 0)
    assert (same.n_sessions, same.mean_return.value, same.mean_return.low, same.mean_return.sign) == (40, 0.0, None, 0)
    market = read_account(home / "20260101T000000Z_one", "buy-and-hold")
    found = compare_runs(market, two, BOOTSTRAP, 0)
    frame = pd.read_parquet(home / "20260102T000000Z_two" / "equity.parquet").pivot(index="timestamp", columns="strategy", values="equity")
    returns = frame[["buy-and-hold", "momentum"]].pct_change().dropna()
    difference, per_year = (returns["buy-and-hold"] - returns["momentum"]).to_numpy(), small[1].sessions_per_year
    assert found.mean_return.value == pytest.approx(difference.mean() * per_year)
    np.testing.assert_allclose(
        (found.mean_return.low, found.mean_return.high), mean_interval(difference, per_year, BOOTSTRAP, 0), rtol=1e-6
    )
    sharpes = returns.mean() / returns.std() * np.sqrt(per_year)
    assert found.sharpe.value == pytest.approx(sharpes["buy-and-hold"] - sharpes["momentum"])
    assert found.sides[0].total_return == pytest.approx((1 + returns["buy-and-hold"]).prod() - 1)
    assert (found.first, found.last) == (returns.index[0].date(), returns.index[-1].date())
    turned = compare_runs(two, market, BOOTSTRAP, 0)
    assert turned.mean_return.value == -found.mean_return.value
    assert turned.mean_return.low == pytest.approx(-found.mean_return.high)


def test_a_session_that_follows_another_one_in_the_other_run_is_no_pair(home, small):
    one = read_account(home / "20260101T000000Z_one", "momentum")
    hole = replace(one, days=np.delete(one.days, 30), closes=np.delete(one.closes, 30))
    assert compare_runs(one, hole, BOOTSTRAP, 0).n_sessions == len(one.days) - 1 - 2


def test_what_cannot_be_compared_is_refused_in_one_sentence(home, small, panel):
    result, summary, _ = small
    one = read_account(home / "20260101T000000Z_one")
    cases = [
        (
            replace(one, bars=one.bars.model_copy(update={"calendar": "24/7"})),
            "has the calendar NYSE and .* 24/7; expected runs of the same calendar",
        ),
        (
            replace(one, bars=one.bars.model_copy(update={"instruments": (InstrumentSpec(symbol="A", currency="EUR"),)})),
            "expected runs of the same currency",
        ),
        (replace(one, days=one.days + 4000), r"0 sessions in common; expected at least 8"),
        (replace(one, bars_digest="b" * 64, summary=summary.model_copy(update={"source": "synthetic: x"})), "equal dates mean nothing"),
    ]
    for other, sentence in cases:
        with pytest.raises(DataError, match=sentence):
            compare_runs(one, other, BOOTSTRAP, 0)
    ruined = summary.strategies | {"momentum": summary.strategies["momentum"].model_copy(update={"ruined": date(2003, 1, 2)})}
    write(home / "gone", result, summary.model_copy(update={"strategies": ruined}), panel)
    answer = json.loads(invoke(app, ["compare", "gone", "20260101", "--account", "momentum", "--json"]).stdout)
    assert answer["message"].startswith("momentum of gone was ruined on 2003-01-02, so there is nothing to compare")
    with pytest.raises(DataError, match="has no account nobody; choose one of fused, vote"):
        read_account(home / "gone", "nobody")
    (home / "gone" / "equity.parquet").unlink()
    with pytest.raises(StoreError, match="is not the folder of a complete run"):
        read_account(home / "gone")


def test_the_command_compares_and_says_the_finding_first(home):
    answer = json.loads(invoke(app, ["compare", "20260101", "20260102", "--json"]).stdout)
    assert (answer["ok"], answer["n_sessions"], answer["same_bars"]) == (True, 40, True)
    assert answer["sentences"][0].startswith("RL vote of 20260101T000000Z_one and RL vote of 20260102T000000Z_two never differed")
    shown = " ".join(invoke(app, ["compare", "20260101", "20260102"]).stdout.split())
    assert all(sentence in shown for sentence in answer["sentences"])


# --- the page and the card


def test_the_schema_in_the_reference_is_that_of_the_file_and_the_file_fits_it(small, pytestconfig):
    schema = json.loads((pytestconfig.rootpath / "docs" / "reference" / "metrics.schema.json").read_text())
    assert schema == RunSummary.model_json_schema(mode="serialization"), "refresh it as docs/reference/files.md says"
    jsonschema.validate(small[1].model_dump(mode="json"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(small[1].model_dump(mode="json") | {"n_bars": "many"}, schema)


def test_the_card_holds_the_answer_the_table_and_the_gates(small):
    summary = small[1]
    lines = render_markdown(summary).splitlines()
    assert lines[0] == f"## {headline(summary)}"
    assert all(f"- {sentence}" in lines for sentence in verdict(summary))
    assert sum(line.startswith("| ") for line in lines) == 1 + len(summary.strategies)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_the_page_is_light_titled_by_its_answer_and_readable_without_seeing(small, panel):
    result, summary, plan = small
    page = render_report(result, summary, panel, QUALITY, RunFacts(plan, [], "ploutos run --config 'a b/config.yaml' --set x=-0.5"))
    assert f"<title>{typeset(headline(summary))}</title>" in page
    assert len(page.encode()) < 2_500_000
    assert page.count('class="chart" role="img" aria-label="') == len(figures(page))
    assert 'aria-label=""' not in page
    assert page.count("<th>") == 0  # every heading says whether of a row or a column
    assert "ploutos run --config &#39;a b/config.yaml&#39; --set x=-0.5" in page  # a command keeps its hyphens
    assert typeset(vote_sentence(summary)) in page
    assert "T00:00Z" not in page
    assert script(page).startswith("/**\n* plotly.js v")
    assert render_report(result, summary, panel, QUALITY, RunFacts(plan, [])) == render_report(
        result, summary, panel, QUALITY, RunFacts(plan, [])
    )


def test_a_page_without_figures_carries_no_library():
    page = render_page("audit.html.j2", title="t", sentences=["Lost -3.0%."], figures=[], tables=[])
    assert len(page) < 20_000
    assert "Lost \N{MINUS SIGN}3.0%." in page


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [(-0.0004, "percent", "0.0%"), (-0.1, "percent", "-10.0%"), (-0.4, "money", "$0"), (-1234.5, "money", "-$1,234"), (2, "times", "2.0x"),
     (None, "p", "-"), (1234, "count", "1,234"), (-0.004, "ratio", "0.00")],
)  # fmt: skip
def test_numbers_for_people_have_one_style_and_no_negative_zero(value, kind, text):
    assert show(value, kind) == text


def test_the_command_that_repeats_a_run_writes_elsewhere(tmp_path):
    from ploutos.config import PipelineConfig

    assert repeating_command(tmp_path / "a b", PipelineConfig()) == f"ploutos run --config '{tmp_path}/a b/config.yaml'"
    given = repeating_command(tmp_path / "x", PipelineConfig(out=tmp_path / "x"))
    assert given == f"ploutos run --config {tmp_path}/x/config.yaml --out {tmp_path}/x-again"
