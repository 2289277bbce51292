"""`ploutos data`: bars of a local server end up on disk, and every other way ends in one sentence and an exit code."""

import json

import pandas as pd
import pytest
from servers.fake_alpaca import KEY, SECRET, FakeAlpaca, random_bars, serving
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.market.data_spec import DataSpec
from ploutos.market.dataset import Dataset, SeriesKey
from ploutos.market.loader import load

run = CliRunner().invoke
HOUR = pd.Timedelta(hours=1)
SPAN = (pd.Timestamp("2024-03-01", tz="UTC"), pd.Timestamp("2024-04-01", tz="UTC"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # no .env of the checkout
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "PLOUTOS_ALPACA_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def stored(home):
    stamps = pd.date_range("2024-03-04T14:00", periods=5, freq="h", tz="UTC").as_unit("us")
    frame = pd.DataFrame({"timestamp": stamps, **dict.fromkeys(("open", "high", "low", "close", "volume"), 100.0)})
    Dataset(home / "datasets").upsert(SeriesKey("alpaca-sip", "total_return", HOUR, "SPY"), frame, SPAN)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["build", "--source", "bloomberg", "--market", "SPY"], 2, "--source is 'bloomberg'; expected alpaca, alpaca-iex or yahoo"),
        (["build", "--source", "yahoo", "--market", "SPY", "--start", "tomorrow"], 2, "--start is 'tomorrow'; expected a date"),
        (["build", "--source", "yahoo", "--market", "SPY", "--start", "2024-02-02", "--end", "2024-02-01"], 2, "is not before --end"),
        (["build", "--source", "yahoo", "--market", "SPY", "--timeframe", "soon"], 2, "data.timeframe is 'soon'"),
        (["build", "--source", "alpaca", "--market", "SPY"], 3, "APCA_API_KEY_ID"),
        (["update", "--source", "yahoo", "--market", "SPY"], 3, "run ploutos data build --source yahoo --market SPY"),
        (["check", "--source", "files"], 2, "source files needs a path"),
        (["check", "--source", "alpaca", "--market", "SPY"], 3, "run ploutos data build --source alpaca-sip --market SPY"),
        (["macro", "--provider", "ecb"], 2, "--provider is 'ecb'; expected yahoo or fred"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_a_code(home, arguments, code, sentence):
    result = run(app, ["data", *arguments])
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.split())


def test_show_lists_what_is_stored_and_names_a_damaged_file(home):
    assert "holds no bars yet" in run(app, ["data", "show"]).stdout
    stored(home)
    answer = json.loads(run(app, ["data", "show", "--json"]).stdout)
    assert [(line["bars"], line["first"]) for line in answer["series"]] == [(5, "2024-03-04")]
    (file,) = (home / "datasets").glob("source=*/*/*/*/bars.parquet")
    file.write_bytes(b"PAR1")
    result = run(app, ["data", "show"])
    assert result.exit_code == 3
    assert "is damaged" in " ".join(result.stderr.split())


def test_check_writes_a_page_and_ends_with_3_when_a_run_would_stop(home):
    result = run(app, ["data", "check", "--out", "page.html", "--set", "data.adjustment=raw"])
    assert result.exit_code == 0
    assert "suspected_splits" in result.stdout
    assert (home / "page.html").stat().st_size > 100_000
    (home / "bars.csv").write_text("timestamp,open,high,low,close,volume\n2024-01-02T00:00Z,1,1,1,1,1\n2024-01-03T00:00Z,-1,1,-1,1,1\n")
    broken = run(app, ["data", "check", "--source", "files", "--path", "bars.csv", "--timeframe", "1D", "--json"])
    assert broken.exit_code == 3
    assert "not_positive" in {finding["check"] for finding in json.loads(broken.stdout)["findings"]}


def test_a_path_alone_means_files_and_beside_another_source_it_is_refused(home):
    (home / "bars.csv").write_text("timestamp,open,high,low,close,volume\n2024-01-02,1,1,1,1,1\n2024-01-03,1,1,1,1,1\n")
    alone = run(app, ["data", "check", "--path", "bars.csv", "--json"])
    assert [each["symbol"] for each in json.loads(alone.stdout)["symbols"]] == ["bars"]
    for beside in (["data", "check", "--source", "sample", "--path", "bars.csv"], ["run", "--set", "data.path=bars.csv"]):
        refused = run(app, beside)
        assert (refused.exit_code, "which source sample does not read" in refused.stderr) == (2, True)


def test_check_reads_the_dataset(home):
    stored(home)
    result = run(app, ["data", "check", "--source", "alpaca", "--market", "SPY", "--json"])
    (symbol,) = json.loads(result.stdout)["symbols"]
    assert (symbol["symbol"], symbol["bars"], symbol["missing"]) == ("SPY", "5", "0")


def test_a_calendar_that_is_named_is_the_one_that_bars_are_held_against(home):
    stamps = pd.date_range("2024-03-01", periods=240, freq="h", tz="UTC")  # ten days round the clock
    pd.DataFrame({"timestamp": stamps, **dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)}).to_csv("coin.csv", index=False)
    arguments = ["data", "check", "--source", "files", "--path", "coin.csv", "--json"]
    assert json.loads(run(app, arguments).stdout)["findings"] == []  # its weekends tell
    assert json.loads(run(app, [*arguments, "--set", "data.calendar=24/7"]).stdout)["findings"] == []
    held = run(app, [*arguments, "--set", "data.asset_class=equity"])
    assert held.exit_code == 3
    assert "off_session" in {finding["check"] for finding in json.loads(held.stdout)["findings"]}


def test_a_build_brings_bars_that_a_check_and_a_run_can_read(home, monkeypatch):
    stamps = pd.date_range("2024-03-04T15:00", periods=6, freq="h", tz="UTC").as_unit("us")
    with serving(FakeAlpaca({"QQQ": random_bars(stamps)}, page_rows=4)) as url:
        monkeypatch.setenv("PLOUTOS_ALPACA_URL", url)
        monkeypatch.setenv("APCA_API_KEY_ID", KEY)
        monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
        build = ["data", "build", "--source", "alpaca", "--market", "NQ", "--start", "2024-03-01", "--end", "2024-03-06", "--json"]
        first, again = (run(app, build) for _ in range(2))
        unknown = run(app, ["data", "build", "--source", "alpaca", "--market", "NOPE", "--start", "2024-03-01", "--end", "2024-03-06"])
    assert first.exit_code == 0
    assert "QQQ stands in for NQ" in first.stderr
    (series,) = json.loads(first.stdout)["series"]
    assert (series["symbol"], series["status"], series["bars"], series["pages"]) == ("QQQ", "created", 6, 2)
    assert json.loads(again.stdout)["series"][0]["status"] == "unchanged"
    assert unknown.exit_code == 3
    assert "does not say whether it knows NOPE" in " ".join(unknown.stderr.split())
    checked = json.loads(run(app, ["data", "check", "--source", "alpaca", "--market", "NQ", "--json"]).stdout)
    assert checked["symbols"][0]["symbol"] == "QQQ"
    bars = load(DataSpec(source="alpaca", symbols=("NQ",)), home / "datasets")
    assert bars.n_bars == 6


def test_the_check_says_which_facts_of_real_markets_simulated_bars_lack(home):
    arguments = ["data", "check", "--source", "synthetic", "--market", "SPY", "--timeframe", "1h", "--json"]
    found = {
        scenario: json.loads(run(app, [*arguments, "--set", f"data.synthetic.scenario={scenario}"]).stdout)["notes"]
        for scenario in ("normal", "noise")
    }
    assert not any("expected" in note for note in found["normal"])
    assert any(note.startswith("SPY has excess_kurtosis ") for note in found["noise"])
