"""Nights in a row on a file that grows: nothing is trained twice, every decision is logged and comes out again from the store."""

import json
from pathlib import Path

import pandas as pd
import pytest
from prefect.testing.utilities import prefect_test_harness

from ploutos.config import load_config
from ploutos.market.bars import write_bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.nightly.config import NightlyConfig
from ploutos.nightly.forward_log import ForwardLog
from ploutos.nightly.night import Nights, replay
from ploutos.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Prefect's own server warns about itself

SMALL = [
    "folds.train_years=5", "folds.test_months=60", "training.members=1", "training.total_timesteps=256", "training.n_envs=4",
    "training.n_steps=32", "training.batch_size=64", "training.net_arch=[8]", "evaluation.replications=20", "evaluation.placebo_draws=0",
    "evaluation.rank_draws=0",
    "evaluation.robustness.enabled=false", "fusion.choose=false", "hybrid.enabled=false", "regression.enabled=false",
    "pipeline.pause_between_phases=0", "hardware.workers=1", "data.source=files",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def prefect_server():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> pd.DataFrame:
    file = tmp_path_factory.mktemp("bars") / "bars.parquet"
    write_bars(load(DataSpec(symbols=("AAPL", "IBM"))), file)
    bars = pd.read_parquet(file).assign(timestamp=lambda table: table["timestamp"].dt.strftime("%Y-%m-%d"))
    return bars[["timestamp", "symbol", "open", "high", "low", "close", "volume"]]


def night(frame: pd.DataFrame, file: Path, until: str, session: str, **more) -> dict:
    """One night on the bars that there are by then; what its folder says, and how the run's stages ended."""
    from flows.nightly import nightly

    frame[frame["timestamp"] <= until].to_csv(file, index=False)
    run = load_config("full", overrides=[*SMALL, f"data.path={file}"])
    folder = nightly(NightlyConfig(run=run, session=session, wait_minutes=0, **more))
    said = json.loads((folder / "night.json").read_bytes())
    manifest = json.loads((folder / said["run"] / "manifest.json").read_bytes())
    return said | {"changes": json.loads((folder / "changes.json").read_bytes()), "stages": manifest["stages"]}


def test_nights_in_a_row(frame, tmp_path, monkeypatch):
    monkeypatch.setenv("PLOUTOS_HOME", str(tmp_path / "home"))
    file, home = tmp_path / "bars.csv", tmp_path / "home"
    first = night(frame, file, "2012-06-04", "2012-06-04")
    assert first["changes"]["before"] is None
    revised = frame.assign(close=frame["close"].mask((frame["timestamp"] == "2012-06-01") & (frame["symbol"] == "IBM"), frame["high"]))
    stale = night(revised, file, "2012-06-05", "2012-06-06")  # one night was missed, and the bars of this one are late
    trained = {name: state for name, state in stale["stages"].items() if name.startswith(("policy", "teacher"))}
    assert trained
    assert set(trained.values()) == {"Cached"}
    made_up = json.loads((home / "nights" / "2012-06-05" / "changes.json").read_bytes())
    [row] = made_up["revisions"]
    assert (row["symbol"], row["timestamp"][:10], row["field"]) == ("IBM", "2012-06-01", "close")
    assert {cause for each in made_up["weights"] for cause, part in each["parts"].items() if part} <= {"data revision", "new bar"}
    assert all(abs(each["residual"]) < 1e-12 for each in made_up["weights"])
    entries = ForwardLog(home / "registry").entries()
    assert [entry.session for entry in entries] == ["2012-06-04", "2012-06-05", "2012-06-06"]
    assert [entry.stale for entry in entries] == [False, False, True]
    assert all(entry.late for entry in entries)
    assert len({entry.decider for entry in entries}) == 1
    assert entries[1].weights == entries[2].weights
    assert "had no bars of 2012-06-06" in " ".join(stale["sentences"])
    assert stale["verdict"]["kind"] == "none"
    store = Store(home / "store")
    for session in Nights(home / "registry").sessions():
        for record in Nights(home / "registry").of(session):
            assert replay(store, record)[0] == record.decision
    assert (home / "nights" / "2012-06-05" / "index.html").stat().st_size > 5_000
