"""A whole run with a language model: a server that dies, a run that resumes, a replay with nobody there."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
from prefect.testing.utilities import prefect_test_harness
from servers.llama import LlamaServer
from test_cutoff import STRONG, probe_of
from test_pipeline import SMALL

from ploutos.advisor.cutoff import CutoffStore
from ploutos.config import load_config
from ploutos.errors import LLMStopped, LLMUnavailable
from ploutos.evaluation.summary import read_summary
from ploutos.reporting.names import names_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Prefect's own server warns about itself

ADVISED = [*SMALL, "llm.provider=ollama", "llm.model=tiny", "llm.cadence_bars=100", "llm.timeout_s=30", "llm.unload_during_backtest=true"]


@pytest.fixture(scope="module", autouse=True)
def prefect_server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(out: Path, *settings: str) -> Path:
    from flows.pipeline import pipeline

    return pipeline(load_config("full", overrides=[*ADVISED, *settings, f"out={out}"]))


def stages(folder: Path) -> dict[str, str]:
    return json.loads((folder / "manifest.json").read_text())["stages"]


def test_a_run_whose_server_dies_resumes_asks_nothing_twice_and_replays_with_nobody_there(gguf, home, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("ploutos.llm.client._PAUSE_S", 0)
    with LlamaServer({"tiny": gguf}) as server:
        answer, asked = server.answer, []

        def dying(path, body):
            if path == "/api/chat":
                asked.append(body["messages"][1]["content"])
                if len(asked) == 5:
                    server.next_failures = [(500, "llama runner process has terminated")] * 99
            return answer(path, body)

        server.answer = dying
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        with pytest.raises(LLMUnavailable, match=r"llama runner process has terminated; 4 of .* answers are kept"):
            run(tmp_path / "dead")
        assert not (tmp_path / "dead").exists()
        kept = asked[:4]
        server.next_failures, server.answer = [], answer
        server.crash()
        server.requests.clear()

        with pytest.raises(LLMStopped, match=r"questions=2 is reached after 2 questions, .*; 6 of .* answers are kept"):
            run(tmp_path / "limited", "llm.limits.questions=2")
        kept += [body["messages"][1]["content"] for body in server.called("/api/chat")]
        server.requests.clear()

        live = run(tmp_path / "live", "llm.limits.questions=900", "llm.limits.price_in=0.5", "llm.limits.price_out=2")
        again = [body["messages"][1]["content"] for body in server.called("/api/chat")]
        assert not set(again) & set(kept)
        assert len(set(again)) == len(again)
        assert stages(live)["policy 0 0"] == "Cached"  # trained before the server died
        assert server.loaded() == []  # out of the GPU for the backtests
        assert "tiny:latest left the GPU" in caplog.text
        assert "backtests ran" in caplog.text
        spent = json.loads((live / "manifest.json").read_text())["llm"]
        assert spent["questions"] == len(server.called("/api/chat"))
        assert spent["money"] == pytest.approx((spent["prompt_tokens"] * 0.5 + spent["tokens"] * 2) / 1e6)
        assert 0 < spent["load_seconds"] <= spent["seconds"]
        assert [unload["phase"] for unload in spent["unloads"]] == ["training", "backtests"]  # the run before had left the model there
        for unload in spent["unloads"]:
            assert unload["unload_s"] > 0
            assert isinstance(unload["freed_bytes"], int)
        report = (live / "report.html").read_text()
        assert f"{spent['questions']} questions, {spent['prompt_tokens']:,} tokens read" in report
        assert "model unloaded for backtests" in report

        server.requests.clear()
        second = run(tmp_path / "second")
        assert set(stages(second).values()) == {"Cached"}
        assert server.called("/api/chat") == []

        mirrored = run(tmp_path / "mirrored", "llm.mirror=true")  # asks about the mirrored market, and nothing else
        asked = [body["messages"][1]["content"] for body in server.called("/api/chat")]
        assert asked
        assert not set(asked) & {*kept, *again}
        anew = {name for name, state in stages(mirrored).items() if state != "Cached"}
        assert anew == {"mirrored", "backtests", "robustness", "candidates", "metrics"}
        assert server.loaded() == []

    signals = pd.read_parquet(live / "signals.parquet")
    assert len(signals) == len(again) + len(kept)
    summary = read_summary(live / "metrics.json")
    assert summary.advisor.model == "tiny:latest (Ollama)"
    assert not summary.advisor.is_mock
    assert summary.advisor.tokens == signals["tokens"].sum() > 0
    assert names_of(summary)["fused"] == "fused (LLM)"
    assert (summary.subject.slug, summary.subject.reason) == ("vote", "not-clean")  # nobody has vouched for this model

    # the server is gone: a run that needs it says so before it trains, one that replays does not miss it
    caplog.clear()
    with pytest.raises(LLMUnavailable, match="cannot be reached"):
        run(tmp_path / "nobody")
    assert "bars: " not in caplog.text
    for keys in ("signals", "mirrored", "backtests", "metrics"):
        for key in (home / "store" / "keys" / keys).iterdir():
            key.unlink()
    replayed = run(tmp_path / "replayed", "llm.replay=true", "llm.mirror=true")
    assert {stages(replayed)[name] for name in ("signals", "mirrored")} == {"Completed"}
    for name in ("signals.parquet", "mirrored.parquet", "metrics.json", "equity.parquet", "trades.parquet"):
        assert (replayed / name).read_bytes() == (mirrored / name).read_bytes()
    assert (mirrored / "signals.parquet").read_bytes() == (live / "signals.parquet").read_bytes()

    # what the cutoff store learns of the model changes the numbers' words, and nothing that they stand on
    assert summary.advisor.certificate is None
    assert [span.tag for span in summary.spans] == ["grey"]
    CutoffStore(home / "llm" / "cutoffs").add("ollama", "tiny", summary.advisor.digest, probe_of("2011-08", STRONG))
    probed = run(tmp_path / "probed", "llm.replay=true", "llm.mirror=true", "llm.stated_cutoff=2011-03-31")
    assert (stages(probed)["backtests"], stages(probed)["metrics"]) == ("Cached", "Completed")
    certified = read_summary(probed / "metrics.json")
    assert (certified.advisor.certificate.probed, certified.advisor.certificate.digest_match) == ("2011-08", True)
    assert [span.tag for span in certified.spans] == ["contaminated", "grey", "clean"]
    assert certified.strategies == summary.strategies
