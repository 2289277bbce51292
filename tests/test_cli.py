"""The command: faults end in one sentence and an honest exit code, before or inside a flow."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from servers.llama import LlamaServer
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.errors import ConfigError

run = CliRunner().invoke
HEADER = "timestamp,open,high,low,close,volume\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "dmeo"], "preset 'dmeo' is unknown"),
        (["--preset", "demo", "--set", "training.membres=3"], "did you mean training.members?"),
        (["--preset", "demo", "--source", "yahooo"], "data.source is 'yahooo'"),
    ],
)
def test_a_wrong_setting_ends_with_code_2_before_anything_runs(arguments, sentence):
    result = run(app, ["run", *arguments])
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    as_json = run(app, ["run", *arguments, "--json"])
    assert as_json.exit_code == 2
    answer = json.loads(as_json.stdout)
    assert answer["ok"] is False
    assert answer["error"] == "ConfigError"
    assert sentence in answer["message"]


def test_help_names_every_option_of_a_run():
    text = run(app, ["run", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    for option in ("--preset", "--source", "--path", "--market", "--config", "--set", "--out", "--llm-replay", "--reveal", "--json"):
        assert option in text


def test_the_first_command_of_the_help_is_run():
    text = run(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    groups = re.findall(r"─ ([A-Z][a-z ]+) ─", text)
    assert groups == ["Options", "Run", "Before a run", "After a run", "Check"]
    commands = re.findall(r"^│ ([a-z][a-z-]+) ", text, flags=re.MULTILINE)
    assert commands[0] == "run"
    assert commands[commands.index("init") + 1] == "config"


def test_the_doctor_finds_this_machine_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    result = run(app, ["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert result.exit_code == 0, checks
    assert set(checks) == {"versions", "Prefect server", "sample data", "store", "machine", "advisor", "thread caps"}
    assert "mock" in checks["advisor"]["found"]


def test_the_doctor_says_what_to_do_about_a_server_that_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "__init__.py").write_text("raise TypeError('a FastAPI that Prefect does not know')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {check["name"]: check for check in json.loads(run(app, ["doctor", "--json"]).stdout)}["Prefect server"]
    assert (found["ok"], found["found"]) == (False, "cannot be imported: TypeError: a FastAPI that Prefect does not know")
    assert "under constraints.txt" in found["remedy"]


def test_the_doctor_says_what_to_do_about_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "file"))
    result = run(app, ["doctor"])
    assert result.exit_code == 1
    assert "what to do: set PLOUTOS_HOME to a folder that can be written" in result.stdout


def test_a_home_that_prefect_cannot_write_is_said_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    result = run(app, ["run", "--preset", "demo"])
    assert result.exit_code == 2
    assert "set PREFECT_HOME to a folder that can be written" in " ".join(result.stderr.split())


def command(tmp_path, *arguments):
    """In homes whose parent folder is not there yet."""
    environment = {**os.environ, "PLOUTOS_HOME": str(tmp_path / "home"), "PREFECT_HOME": str(tmp_path / "new" / "prefect")}
    environment.pop("PREFECT_API_URL", None)
    code = "import sys; from ploutos.cli.main import app; sys.argv[0] = 'ploutos'; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (HEADER, "A.csv holds no bars; expected at least one row"),
        (
            "timestamp,open,high,low,close,volume\n2024-01-02T00:00Z,1,1,1,1,1\n2024-01-03T00:00Z,1,1,1,1,1\n",
            "used up by the features' warm-up",
        ),
    ],
)
def test_bad_bars_end_the_flow_with_code_3_one_sentence_and_nothing_half_written(tmp_path, content, sentence):
    (tmp_path / "A.csv").write_text(content)
    result = command(tmp_path, "run", "--preset", "demo", "--source", "files", "--path", "A.csv", "--json")
    assert result.returncode == 3, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    assert sentence in answer["message"]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "home" / "runs").exists()
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and "locks" not in path.parts]
    assert not [path for path in left if "tmp" in path.name or path.stat().st_size == 0]


# --- the advisor


@pytest.fixture
def llama(gguf, monkeypatch):
    with LlamaServer({"tiny": gguf}) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        yield server


TINY_MODEL = ["--set", "llm.model=tiny", "--set", "llm.num_predict=400"]


@pytest.mark.parametrize(("provider", "path"), [("ollama", "/api/chat"), ("openai", "/v1/chat/completions")])
def test_the_check_of_the_advisor_says_what_came_back(llama, provider, path):
    arguments = ["llm", "check", "--set", f"llm.provider={provider}", *TINY_MODEL]
    result = run(app, arguments)
    assert result.exit_code == 0, result.stderr
    model, *asked_with, took, cache, said, decision = result.stdout.splitlines()
    assert model.startswith("model: tiny")
    assert [line.split(":")[0] for line in asked_with] == (["asked with"] if provider == "openai" else [])
    assert re.fullmatch(r"took: \d+\.\d s, \d+ tokens read, \d+ written", took)
    assert cache == "feature cache: 0 of 1 rows found, hit rate 0%"  # one question reads one bar, for the first time
    assert re.match(r"decision: (buy|sell|hold), confidence \d+ of 100: ", decision)
    assert json.loads(ast.literal_eval(said.removeprefix("said: ")))["action"] == decision.split()[1].rstrip(",")  # as it was said
    answer = json.loads(run(app, [*arguments, "--json"]).stdout)
    assert (answer["ok"], answer["abstained"]) == (True, False)
    assert answer["tokens"] > 0
    assert answer["feature_cache"] == {"hits": 0, "misses": 1, "hit_rate": 0.0}
    assert len(llama.called(path)) == 2


def test_the_check_of_a_mock_says_that_it_is_one():
    result = run(app, ["llm", "check"])
    assert result.exit_code == 0
    assert "mock (a fixed trend rule, not a language model)" in result.stdout


def test_a_check_that_fails_ends_in_one_sentence_and_code_4(llama):
    nobody = run(app, ["llm", "check", "--set", "llm.provider=ollama", "--set", "llm.host=127.0.0.1:9"])
    assert nobody.exit_code == 4
    assert "LLMUnavailable: Ollama at 127.0.0.1:9 cannot be reached; start it (ollama serve) or set OLLAMA_HOST" in nobody.stderr
    absent = run(app, ["llm", "check", "--set", "llm.provider=ollama", "--json"])
    assert absent.exit_code == 4
    assert "has no llama3.2:latest, it has tiny:latest; run: ollama pull llama3.2" in json.loads(absent.stdout)["message"]
    cut = run(app, ["llm", "check", "--set", "llm.provider=ollama", *TINY_MODEL[:2], "--set", "llm.num_predict=3"])
    assert cut.exit_code == 1
    assert "abstained: the answer was cut off after 3 tokens" in cut.stdout


def test_the_doctor_asks_the_advisor_of_the_configuration(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("llm: {provider: ollama, model: tiny, num_predict: 400}\n")
    checks = json.loads(run(app, ["doctor", "--json", "--config", str(tmp_path / "mine.yaml")]).stdout)
    assert re.search(
        r"tiny:latest \(Ollama\).* was asked once and said", next(check for check in checks if check["name"] == "advisor")["found"]
    )
    assert len(llama.called("/api/chat")) == 1
    result = run(app, ["doctor", "--set", "llm.provider=ollama", "--set", "llm.host=127.0.0.1:9"])
    assert result.exit_code == 1
    assert "FAIL advisor: Ollama at 127.0.0.1:9 cannot be reached" in result.stdout


def test_what_a_model_would_be_asked_in_vain_is_found_before_anything_is_trained(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ploutos.cli.main._run_flow", lambda *_: pytest.fail("this run cannot end well"))
    model = ["--set", "llm.provider=ollama", *TINY_MODEL, "--set", "data.symbols=[AAPL]"]
    monkeypatch.setattr("ploutos.rates._MEASURED_S", 0.0)
    plan = json.loads(run(app, ["run", "--plan", "--json", *model]).stdout)
    assert plan["advisor"]["questions"] > 300
    assert plan["seconds"]["signals"] is None  # nobody knows how long a model takes
    limits = {"questions": 100, "tokens": 10**9, "seconds": 60, "money": 0.01, "price_in": 1, "price_out": 2}
    limited = [*model, *(part for name, most in limits.items() for part in ("--set", f"llm.limits.{name}={most}"))]
    asked = json.loads(run(app, ["run", "--plan", "--json", *limited]).stdout)["advisor"]
    assert asked["questions_in_all"] == asked["questions"]
    assert 300 * asked["questions"] < asked["tokens"] < 2000 * asked["questions"]
    read = asked["tokens"] - 400 * asked["questions"]
    assert asked["money"] == pytest.approx((read + 2 * 400 * asked["questions"]) / 1e6)
    assert {name: each["reached"] for name, each in asked["limits"].items()} == {
        "questions": True, "tokens": False, "money": True, "seconds": None,
    }  # fmt: skip
    said = run(app, ["run", "--plan", *limited]).stdout
    for words in (
        "llm.limits.questions=100 may end the run before everything is asked", "llm.limits.tokens=1e+09 leaves room",
        "llm.limits.seconds=60 may end the run: how long an answer takes is not known in advance",
    ):  # fmt: skip
        assert words in said
    assert "no limit is set" in run(app, ["run", "--plan", *model]).stdout
    assert llama.called("/api/chat") == []
    never = run(app, ["run", "--llm-replay", *model])
    assert (never.exit_code, "the cassette has no answer to question" in never.stderr) == (4, True)
    cut = run(app, ["run", *model, "--set", "llm.num_ctx=600"])
    assert (cut.exit_code, "may not fit into llm.num_ctx=600" in cut.stderr) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "source", "said"),
    [
        (["--market", "NQ"], "synthetic", "Bars of NQ are simulated, because no source was named"),
        (["--market", "nq=f, ES"], "synthetic", "Bars of nq=f, ES are simulated"),
        (["--market", "NQ", "--source", "alpaca"], "alpaca", ""),
        (["--market", "NQ", "--set", "data.source=yahoo"], "yahoo", ""),
        (["--market", "NQ", "--path", "."], "files", ""),
        (["--market", "NQ,AAPL"], "sample", ""),
        (["--market", "NQX"], "sample", ""),
        ([], "sample", ""),
    ],
)
def test_a_future_without_a_source_is_simulated_and_the_run_says_so(monkeypatch, arguments, source, said):
    given = []
    monkeypatch.setattr("ploutos.cli.main._look_ahead", lambda config: given.append(config) or (_ for _ in ()).throw(ConfigError("enough")))
    result = run(app, ["run", *arguments])
    assert result.exit_code == 2
    assert given[0].data.source == source
    assert said in " ".join(result.stderr.split())
    assert ("simulated" in result.stderr) is bool(said)


def test_replay_and_reveal_reach_the_configuration(monkeypatch):
    given = []
    monkeypatch.setattr("ploutos.cli.main._look_ahead", lambda config: config)
    monkeypatch.setattr(
        "ploutos.cli.main._run_flow", lambda config, *_: given.append(config.llm) or (_ for _ in ()).throw(ConfigError("enough"))
    )
    for arguments in (["--llm-replay"], ["--reveal"], ["--set", "llm.replay=true"], []):
        assert run(app, ["run", "--preset", "demo", *arguments]).exit_code == 2
    assert [(llm.replay, llm.reveal) for llm in given] == [(True, False), (False, True), (True, False), (False, False)]


def test_a_plan_says_what_a_run_would_take_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("ploutos.rates._MEASURED_S", 0.0)
    plan = json.loads(run(app, ["run", "--plan", "--json", "--set", "hardware.workers=2"]).stdout)
    assert (len(plan["folds"]), plan["policies"]["n"], plan["policies"]["hybrids"]) == (7, 21, 14)
    assert plan["measured_now"]
    steps_of_a_process = 21 * plan["policies"]["steps"] / 2
    assert plan["seconds"]["policy"] == pytest.approx(steps_of_a_process / plan["steps_per_second"])
    assert plan["seconds"]["metrics"] is None
    assert not (tmp_path / "home").exists()
    rates = dict.fromkeys(plan["seconds"], 0.0) | {"policy": 2e-4, "metrics": 1e-5}  # as the last run kept them
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "rates.json").write_text(json.dumps(rates))
    said = run(app, ["run", "--plan", "--set", "hardware.workers=2"]).stdout
    tested = sum(bars for bars in (251, 252, 253, 251, 252, 252, 251))
    whole = round(steps_of_a_process * 2e-4 + tested * 1000 * 1e-5)
    assert f"about {whole // 60} min {whole % 60:02d} s, at the rates of the last runs on this machine (training: 5,000 steps/s" in said
    assert "21 policies (3 a fold) of 40,960 steps, then 14 hybrid policies; 2 at once" in said
    assert "2,358 questions to mock" in said


def loaded_by(code, *absent):
    """Which heavy modules a piece of code loads, in a process in which some packages are not installed."""
    heavy = ("torch", "numba", "talib", "scipy", "sklearn", "prefect", "pynvml")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))"
    shown = f"print(*(name for name in {heavy!r} if sys.modules.get(name)))"
    return subprocess.run([sys.executable, "-c", f"{blocked}; {code}; {shown}"], capture_output=True, text=True, check=True).stdout.split()


def test_reading_settings_loads_nothing_heavy():
    assert loaded_by("from ploutos.config import load_config; load_config('demo')") == []


def test_a_backtest_without_policies_does_not_load_what_policies_need():
    assert "torch" not in loaded_by("import ploutos.evaluation.backtest, ploutos.strategies.base")


def test_the_main_job_is_there_without_the_packages_of_any_extra():
    absent = ("alpaca", "yfinance", "ollama", "pynvml", "tensorboard", "mlflow", "openai")
    code = "import flows.pipeline, ploutos.cli.doctor; from ploutos.hardware.machine import read_machine; assert read_machine().gpus == ()"
    assert {"torch", "prefect"} <= set(loaded_by(code, *absent))


@pytest.mark.parametrize("module", ["ploutos", "ploutos.cli"])
def test_the_command_runs_as_a_module(module):
    ended = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    assert "honestly evaluated" in ended.stdout
