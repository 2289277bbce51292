"""What people get wrong: each mistake ends in one sentence that says what to do, with an honest exit code, before anything is trained."""

import shutil
import sys
from collections import namedtuple

import pytest
from typer.testing import CliRunner

from ploutos import cli
from ploutos.cli import shared
from ploutos.cli.main import app

NOBODY = "http://127.0.0.1:9"  # a port on which nothing answers
DAILY = "timestamp,open,high,low,close,volume\n" + "".join(f"2024-01-{day:02d},1,1,1,1,1\n" for day in (2, 3, 4, 5, 8, 9))
HOURLY = "timestamp,open,high,low,close,volume\n2024-01-02 10:00,1,1,1,1,1\n2024-01-02 11:00,1,1,1,1,1\n"
NEGATIVE = DAILY.replace("2024-01-04,1,1,1,1,1", "2024-01-04,1,1,-1,1,1")
JARGON = ("input should", "Input should", "valid dictionary", "instance of", "Traceback", "validation error", "pydantic")


def setting(*texts):
    return [word for text in texts for word in ("--set", text)]


MISTAKES = [
    (["run", "--preset", "dmeo"], 2, "preset 'dmeo' is unknown; use one of demo, quick, test, full, hardware_maximized; did you mean demo"),
    (["run", *setting("training.membres=3")], 2, "training.membres is not a setting; did you mean training.members?"),
    (["run", *setting("trainig.members=3")], 2, "trainig is not a setting; did you mean training?"),
    (["run", *setting("training.members=many")], 2, "training.members is 'many'; expected a whole number"),
    (["run", *setting("training.members=0")], 2, "training.members is 0; expected more than 0"),
    (["run", *setting("training.gamma=1.5")], 2, "training.gamma is 1.5; expected 1 or less"),
    (["run", *setting("training.batch_size=1000")], 2, "training.batch_size 1000 does not divide n_envs * n_steps"),
    (["run", *setting("members")], 2, "--set 'members' is not a setting; expected one such as training.members=5"),
    (["run", *setting("folds=3")], 2, "folds is 3; expected settings of its own, such as folds.name=value"),
    (["run", *setting("seed=[1")], 2, "the value cannot be read as YAML"),
    (["run", *setting("data.start=yesterday")], 2, "data.start is 'yesterday'; expected a date such as 2020-01-31"),
    (["run", *setting("data.symbols=AAPL")], 2, "data.symbols is 'AAPL'; expected a list such as [a, b]"),
    (["run", *setting("data.rolls=sometimes")], 2, "data.rolls is 'sometimes'; expected keep or detected, or a list such as [a, b]"),
    (["run", "--source", "yahooo"], 2, "expected sample, files, synthetic, alpaca or yahoo; did you mean yahoo?"),
    (["run", *setting("data.timezone=America/New_York")], 2, "data.timezone is America/New_York, which source sample does not read"),
    (["run", *setting("data.feed=iex")], 2, "data.feed is iex, which source sample does not read; set data.source to alpaca"),
    (["run", *setting("data.synthetic.seed=3")], 2, "data.synthetic holds settings that source sample does not read"),
    (["run", *setting("data.timeframe=7h")], 2, "data.timeframe is '7h'; expected a part of a day such as 15min or 1h"),
    (["run", *setting("data.timeframe=banana")], 2, "data.timeframe is 'banana'; expected a length such as 15min, 1h, 1D, 1W or 1M"),
    (["run", *setting("data.calendar=NASDAK")], 2, "use one such as NYSE, FX, 24/7 or CME Globex Equity; did you mean NASDAQ?"),
    (["run", "--market", "APPL"], 3, "has no symbol APPL; it holds AAPL, FB, GOOG, IBM and MSFT; did you mean AAPL?"),
    (["run", "--path", "nowhere.csv"], 3, "nowhere.csv"),
    (["run", "--source", "files"], 2, "source files needs a path; add --path FOLDER"),
    (["run", "--path", "hourly.csv"], 3, "without a time zone, such as 2024-01-02 10:00:00; expected one such as 2024-01-02T14:30:00Z"),
    (["run", "--path", "hourly.csv", *setting("data.timezone=America/New_Yrok")], 2, "did you mean America/New_York?"),
    (["run", "--path", "empty.csv"], 3, "empty.csv holds no bars; expected at least one row"),
    (["run", "--path", "daily.csv"], 3, "used up by the features' warm-up"),
    (["run", "--path", "negative.csv"], 3, "negative.csv has 1 low price of zero or less"),
    (["run", *setting("folds.train_years=30")], 3, "too few for one fold"),
    (["run", *setting("features.include=[rsi_41]")], 2, "did you mean rsi_14?"),
    (["run", *setting("evaluation.subject=hybrid", "hybrid.enabled=false")], 2, "subject is hybrid, which this run does not have"),
    (["run", *setting("hardware.device=cuda")], 2, "hardware.device is cuda, and torch finds no GPU here; use auto"),
    (["run", *setting("llm.provider=olama")], 2, "llm.provider is 'olama'; expected ollama, openai or mock; did you mean ollama?"),
    (["run", *setting("llm.provider=openai")], 2, "llm.provider is openai, and neither an address nor a key is set; set OPENAI_API_KEY"),
    (["run", *setting("llm.provider=openai", f"llm.host={NOBODY}/v1")], 4, f"{NOBODY}/v1 cannot be reached; start the server"),
    (["run", *setting("llm.provider=ollama", "llm.host=127.0.0.1:9")], 4, "127.0.0.1:9 cannot be reached; start it (ollama serve)"),
    (["run", "--llm-replay", *setting("llm.provider=ollama")], 4, "replay"),
    (["llm", "check", *setting("llm.provider=ollama", "llm.host=127.0.0.1:9")], 4, "Ollama at 127.0.0.1:9 cannot be reached"),
    (["run", "--out", "notes"], 2, "notes holds todo.txt but no run; choose another --out, such as notes/run, or empty it"),
    (["run", "--out", "daily.csv"], 2, "cannot write in daily.csv: Not a directory; choose another --out"),
    (["run", "--config", "none.yaml"], 2, "none.yaml cannot be read: No such file or directory"),
    (["run", "--config", "broken.yaml"], 2, "broken.yaml is not valid YAML"),
    (["run", "--config", "list.yaml"], 2, "list.yaml holds a list; expected sections such as data: and training:"),
    (["optimize", "--preset", "demo", "--out", "daily.csv/best.yaml"], 2, "daily.csv: Not a directory; choose another --out"),
    (["optimize", *setting("data.macro=nowhere")], 3, "nowhere"),
    (["optimize", *setting("data.texts=daily.csv", "llm.provider=ollama")], 2, "a search reads no texts; found data.texts daily.csv"),
    (["optimize", *setting("hardware.device=cuda")], 2, "hardware.device is cuda, and torch finds no GPU here; use auto"),
    (["data", "check", "--path", "nowhere.csv"], 3, "nowhere.csv"),
    (["data", "build", "--source", "sample", "--market", "AAPL"], 2, "--source is 'sample'; expected alpaca, alpaca-iex or yahoo"),
    (["data", "build", "--source", "alpaca", "--market", "SPY", "--timeframe", "7h"], 2, "timeframe is '7h'; expected a part of a day"),
    (["audit", "features", "no.py:f"], 3, "no.py"),
]  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder as people have them."""
    folder = tmp_path_factory.mktemp("desk")
    files = {
        "daily.csv": DAILY, "hourly.csv": HOURLY, "negative.csv": NEGATIVE, "empty.csv": DAILY.splitlines()[0] + "\n",
        "broken.yaml": "a: [1\n", "list.yaml": "- a\n", "notes/todo.txt": "buy milk\n",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def invoke(desk, tmp_path, monkeypatch):
    """The command, in that folder, with homes of its own and no server; nothing may come to be trained."""
    monkeypatch.chdir(desk)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setattr("ploutos.cli.main._run_flow", lambda *_: pytest.fail("the mistake was not found before the run"))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def one_sentence(result, code):
    """What a failed command said."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr or result.exception
    assert not any(word in lines[0] for word in JARGON)
    assert result.exit_code == code, lines
    return lines[0]


@pytest.mark.parametrize(("arguments", "code", "sentence"), MISTAKES, ids=[" ".join(mistake[0]) for mistake in MISTAKES])
def test_a_mistake_ends_in_one_sentence(invoke, arguments, code, sentence):
    assert sentence in one_sentence(invoke(*arguments), code)


@pytest.mark.parametrize("url", [f"{NOBODY}/api", "nonsense"])
def test_a_prefect_server_that_does_not_answer(invoke, monkeypatch, url):
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert f"PREFECT_API_URL is {url}, and no server answers there; start one" in one_sentence(invoke("run"), 5)


@pytest.mark.parametrize(
    ("variable", "remedy"), [("PLOUTOS_HOME", "set PLOUTOS_HOME to a folder"), ("PREFECT_HOME", "set PREFECT_HOME to a folder")]
)
def test_a_home_that_cannot_be_written(invoke, desk, monkeypatch, variable, remedy):
    monkeypatch.setenv(variable, str(desk / "daily.csv" / "home"))
    assert remedy in one_sentence(invoke("run"), 2)


def test_a_disk_that_is_nearly_full(invoke, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(1 << 40, 1 << 40, 3 << 20))
    assert "found 3 MiB free" in one_sentence(invoke("run"), 1)


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["run", *setting("logging.tensorboard=board")], "tensorboard", "tensorboard"),
        (["run", *setting("llm.provider=ollama")], "ollama", "ollama"),
        (["run", *setting("llm.provider=openai")], "openai", "openai"),
        (["data", "build", "--source", "yahoo", "--market", "SPY"], "yfinance", "vendors"),
        (["data", "build", "--source", "alpaca", "--market", "SPY"], "alpaca", "vendors"),
    ],
)
def test_an_extra_in_brackets_reaches_the_reader(invoke, monkeypatch, arguments, package, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert f"needs {package}, which is not installed: pip install 'ploutos[{extra}]'" in one_sentence(invoke(*arguments), 2)


def test_bars_are_said_even_where_their_page_cannot_be_written(invoke):
    result = invoke("data", "check", "--path", "daily.csv", "--out", "list.yaml/page.html")
    assert "daily" in result.stdout
    assert "cannot write in list.yaml: File exists" in one_sentence(result, 1)


# --- what nobody foresaw


def start(monkeypatch, *arguments):
    """The command as a terminal starts it; gives the exit code."""
    monkeypatch.setattr(sys, "argv", ["ploutos", *arguments])
    monkeypatch.setattr(shared.WISHES, "debug", False)
    monkeypatch.setattr(cli, "end_at_once_on_signals", lambda: None)
    monkeypatch.setattr("ploutos.config.load_config", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error: device lost\nat line 3")))
    with pytest.raises(SystemExit) as ended:
        cli.start()
    return ended.value.code


def test_what_nobody_foresaw_is_one_sentence_and_a_log_file(invoke, monkeypatch, capsys, tmp_path):
    assert start(monkeypatch, "run") == 1
    (said,) = capsys.readouterr().err.splitlines()
    (log,) = (tmp_path / "home" / "logs").iterdir()
    assert said == f"RuntimeError: CUDA error: device lost (unexpected; details in {log}, or run again with --debug)"
    assert "Traceback" in log.read_text()


def test_debug_shows_the_details_wherever_it_stands(invoke, monkeypatch, capsys):
    assert start(monkeypatch, "run", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err
