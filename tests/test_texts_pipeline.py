"""A whole run on dated texts: read once, in a stage of its own; a kill asks nothing twice; what is planted is found, and nothing else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prefect.testing.utilities import prefect_test_harness
from servers.scripted import ScriptedServer
from test_pipeline import SMALL

from flows.forms import Phase2Form
from flows.pipeline import phase1_features, phase2_train, pipeline
from ploutos.advisor.texts import TEXT_NAMES
from ploutos.config import PipelineConfig, load_config
from ploutos.errors import DataError, LLMError, LLMUnavailable
from ploutos.evaluation.summary import Check, read_summary
from ploutos.evaluation.text_controls import read_controls
from ploutos.features.build import read_features
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.preflight import look_ahead
from ploutos.settings import Settings
from ploutos.training.checkpoint import load_policy

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Prefect's own server warns about itself

SOURCE = ("data.source=synthetic", "data.timeframe=1D", "data.synthetic.scenario=noise", "data.start=2012-01-03", "data.end=2019-12-30")
RUN = [
    *(each for each in SMALL if not each.startswith(("data.symbols", "evaluation.replications"))), *SOURCE, "evaluation.replications=500",
    "folds.test_months=60",
    "evaluation.recombination.enabled=false", "data.texts_stand_bars=1", "llm.provider=ollama",
    "llm.model=scripted", "llm.cadence_bars=400", "env.allow_short=true", "features.include=[log_return_1, volatility_20, rsi_14]",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def prefect_server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """A text on every bar, a minute before its close: four of five say in plain words which way the next bar goes."""
    config = load_config("full", overrides=list(SOURCE))
    bars, random, rows = load(config.data), np.random.default_rng(1), []
    for bar, s in np.argwhere(bars.tradable[:-1] & bars.tradable[1:]):
        rose = bool(bars.mark[bar + 1, s] > bars.open[bar + 1, s])
        told = rose if random.random() < 0.8 else not rose
        words = f"{bars.symbols[s]}: orders {'grew' if told else 'fell'} in region {random.integers(12)}"
        rows.append((bars.symbols[s], pd.Timestamp(bars.available_at[bar], tz="UTC") - pd.Timedelta(minutes=1), "news", words))
    file = tmp_path_factory.mktemp("texts") / "texts.parquet"
    pd.DataFrame(rows, columns=["symbol", "available_at", "source", "text"]).to_parquet(file)
    return file


def answer(words: str, number: int):
    """A model that reads texts and has no opinion on numbers."""
    if "orders" not in words:
        return {"reason": "numbers alone", "action": "hold", "confidence": 50}
    return {"direction": "up" if "grew" in words else "down", "horizon": "days", "surprise": 30, "confidence": 80}


def config_of(out: Path, server: ScriptedServer, texts: Path, *settings: str) -> PipelineConfig:
    return load_config("full", overrides=[*RUN, f"llm.host={server.host}", f"data.texts={texts}", *settings, f"out={out}"])


def run(out: Path, server: ScriptedServer, texts: Path) -> Path:
    return pipeline(config_of(out, server, texts))


def stages(folder: Path) -> dict[str, str]:
    return json.loads((folder / "manifest.json").read_text())["stages"]


def read_by(server: ScriptedServer) -> list[str]:
    """The texts that it was shown."""
    return [shown for body in server.chats if "orders" in (shown := body["messages"][1]["content"])]


def test_a_run_reads_texts_once_trains_on_them_and_finds_what_is_planted(home, tmp_path, texts, monkeypatch):
    monkeypatch.setattr("ploutos.llm.client._PAUSE_S", 0)
    with ScriptedServer(answer, parse=str) as server:
        server.refuse_after = 10
        with pytest.raises(LLMUnavailable, match=r"10 of .* answers are kept"):
            run(tmp_path / "dead", server, texts)
        assert not list((home / "store" / "keys").glob("readings/*"))  # no table with holes is ever finished
        asked = read_by(server)
        server.refuse_after = 10**9
        folder = run(tmp_path / "run", server, texts)
        again = read_by(server)[len(asked) :]
        assert not set(asked) & set(again)
        assert sorted({*asked, *again}) == sorted(f"ASSET: orders {way} in region {n}" for way in ("grew", "fell") for n in range(12))

        n_chats = len(server.chats)
        second = run(tmp_path / "second", server, texts)
        assert len(server.chats) == n_chats
        assert set(stages(second).values()) == {"Cached"}

        # texts that come later train nothing anew, and without any a run is what it was; phase by phase as in one go
        frame = pd.read_parquet(texts)
        fewer = tmp_path / "fewer.parquet"
        frame[frame["available_at"] < "2019-11-01"].to_parquet(fewer)
        config = config_of(tmp_path / "cut", server, fewer)
        first = phase1_features(config)
        cut = stages(first)
        assert (cut["readings"], cut["text-features"], cut["features"], cut["bars"]) == ("Completed", "Completed", "Cached", "Cached")
        learnt = {name: getattr(config, name) for name in ("env", "training", "regression", "hardware", "pipeline")}
        trained = stages(phase2_train(Phase2Form(from_run=first, out=tmp_path / "trained", **learnt)))
        assert {state for name, state in trained.items() if name.startswith(("policy", "regression"))} == {"Cached"}
        plain = stages(phase1_features(config_of(tmp_path / "plain", server, texts, "data.texts=null", "data.texts_stand_bars=5")))
        assert (plain["bars"], plain["features"]) == ("Cached", "Cached")
        assert not {"readings", "text-features", "texts"} & set(plain)
        assert len(server.chats) == n_chats

    manifest = json.loads((folder / "manifest.json").read_text())
    features = read_features(home / "store" / manifest["refs"]["features"]["path"])
    assert features.names[-len(TEXT_NAMES) :] == TEXT_NAMES
    assert load_policy(next(folder.glob("folds/0/seed_0/policy.zip"))).meta.features[-len(TEXT_NAMES) :] == TEXT_NAMES
    found = read_controls(folder / "texts.json")
    for kind in ("logistic", "trees"):
        signs = {of: found.pair(kind, of, "prices").sign for of in ("model", "words", "shuffled")}
        assert signs == {"model": 1, "words": 1, "shuffled": 0}
    assert [row.sign for row in found.skill.readers] == [1, 1]
    assert found.skill.shuffled.beaten == 20
    assert found.skill.n_counting == 0  # nobody has vouched for this model's memory
    page = (folder / "texts.html").read_text()
    assert "Reading texts helped: beside prices alone, logistic earns a year" in page
    assert 'href="texts.html"' in (folder / "report.html").read_text()
    assert "Reading texts helped" in (folder / "report.md").read_text()
    assert len(pd.read_parquet(folder / "readings.parquet")) == found.n_texts == len(frame)

    # whatever read them listened to the model, so no session is evidence for anybody
    summary = read_summary(folder / "metrics.json")
    assert (summary.subject.slug, summary.subject.reason) == ("vote", "reads-texts")
    clean = next(check for check in summary.gates.evidence if check.name is Check.CLEAN_SESSIONS)
    assert (clean.found, clean.suspect) == (0.0, True)
    assert summary.strategies["logistic"].total_return == next(
        row.total_return for row in found.accounts if (row.kind, row.reads) == ("logistic", "model")
    )


PROGRAM = """
import sys
from flows.pipeline import phase1_features
from ploutos.config import load_config
if __name__ == "__main__":
    print(phase1_features(load_config("full", overrides=sys.argv[1:])))
"""


def test_a_run_that_is_killed_while_it_reads_asks_nothing_twice(home, tmp_path, texts):
    def killed(words, number):
        if number == 8:
            os.kill(process.pid, signal.SIGKILL)
        return answer(words, number)

    with ScriptedServer(killed, parse=str) as server:
        command = [sys.executable, "-c", PROGRAM, *RUN, f"llm.host={server.host}", f"data.texts={texts}", f"out={tmp_path / 'out'}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert process.wait(timeout=300) == -signal.SIGKILL
        asked = read_by(server)
        assert len(asked) == 9
        assert not list((home / "store" / "keys").glob("readings/*"))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output = process.communicate(timeout=300)[0].decode()
        assert process.returncode == 0, output
        again = read_by(server)[9:]
    assert not set(asked[:8]) & set(again)  # the ninth was under way when it was killed
    assert len({*asked, *again}) == 24
    assert stages(tmp_path / "out")["readings"] == "Completed"


def test_what_cannot_be_read_ends_a_run_before_it_begins(home, tmp_path, texts):
    with ScriptedServer(answer, parse=str) as server:

        def outlook(*settings: str):
            config = load_config("full", overrides=[*RUN, f"llm.host={server.host}", f"data.texts={texts}", *settings])
            return look_ahead(config, Settings())

        found = outlook()
        assert found.asked.texts == 24  # equal words are asked about once
        assert server.chats == []
        with pytest.raises(DataError, match="cannot be read as parquet"):
            outlook(f"data.texts={tmp_path / 'none.parquet'}")
        with pytest.raises(LLMError, match=r"no trace|no answer"):
            outlook("llm.replay=true")
    assert DataSpec().texts is None
