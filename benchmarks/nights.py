"""Nights in a row on a file that grows, with what happens to such files; `python -m benchmarks.nights --home DIR`.

Simulated daily bars without an edge. Among the nights: one whose bars are late, one that finds old bars revised, one on which a symbol
lists, one after which a symbol is gone; a change of code is made by going on from another checkout. Every night is a flow under a
temporary Prefect server, with tiny policies: what is shown is that nothing is trained twice, the log is complete, every decision comes out
of the store again, and noise is not promoted. A benchmark that is stopped goes on with the next night.
"""

import argparse
import json
import os
import time
from datetime import date
from pathlib import Path

from ploutos.hardware.threads import cap_threads

cap_threads(1)
os.environ |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}  # before Prefect is imported

import numpy as np
import pandas as pd
from prefect.testing.utilities import prefect_test_harness

from flows.nightly import nightly
from ploutos.config import load_config
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.market.synthetic.spec import SyntheticSpec
from ploutos.nightly.config import NightlyConfig
from ploutos.nightly.forward_log import ForwardLog
from ploutos.nightly.night import Nights, replay
from ploutos.store import Store

TINY = [
    "name=night", "folds.train_years=4", "folds.test_months=12", "training.members=1", "training.total_timesteps=512", "training.n_envs=4",
    "training.n_steps=64", "training.batch_size=128", "training.net_arch=[8]", "evaluation.replications=50", "evaluation.placebo_draws=0",
    "evaluation.robustness.enabled=false", "fusion.choose=false", "hybrid.enabled=false", "regression.models=[logistic]",
    "pipeline.pause_between_phases=0", "hardware.workers=1", "data.source=files",
]  # fmt: skip
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")


def simulated(seed: int) -> pd.DataFrame:
    """Seven years of daily bars of four symbols, as a vendor's file."""
    spec = DataSpec(
        source="synthetic", symbols=SYMBOLS, timeframe="1D", asset_class="equity",
        synthetic=SyntheticSpec(seed=seed, start=date(2019, 1, 2)),
    )  # fmt: skip
    bars = load(spec)
    days = np.repeat(np.datetime_as_string(bars.sessions), bars.n_symbols)
    columns = {name: getattr(bars, name).ravel() for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame({"timestamp": days, "symbol": np.tile(np.array(bars.symbols), bars.n_bars), **columns})


def as_of(frame: pd.DataFrame, sessions: list[str], night: int) -> tuple[pd.DataFrame, str]:
    """The file as it is on a night, and what happened to it."""
    late, revised, listed, gone = 7, 12, 17, 22
    until, event = sessions[night - (night == late)], ""
    found = frame[frame["timestamp"] <= until].copy()
    if night == late:
        event = "bars late"
    if night >= revised:
        at = (found["symbol"] == "AAA") & (found["timestamp"] == sessions[revised - 5])
        found.loc[at, "close"] = found.loc[at, ["open", "close"]].mean(axis=1)
        event = "old bar revised" if night == revised else event
    if night < listed:
        found = found[found["symbol"] != "DDD"]
    else:
        found = found[(found["symbol"] != "DDD") | (found["timestamp"] >= sessions[listed - 1])]
        event = "DDD lists" if night == listed else event
    if night >= gone:
        found = found[(found["symbol"] != "CCC") | (found["timestamp"] < sessions[gone])]
        event = "CCC has no bars any more" if night == gone else event
    return found, event


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="folder to keep everything in")
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    home: Path = asked.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PLOUTOS_HOME"], file = str(home / "home"), home / "bars.csv"
    frame = simulated(asked.seed)
    sessions = sorted(frame["timestamp"].unique().tolist())[-asked.nights - 2 :]
    print("| night | session | event | seconds | stages computed | policies trained | weights moved by | verdict |")
    print("|---:|---|---|---:|---:|---:|---|---|", flush=True)
    with prefect_test_harness(server_startup_timeout=120):
        for night in range(1, asked.nights + 1):
            line = _night(home, file, frame, sessions, night)
            print(f"| {night} | " + " | ".join(line) + " |", flush=True)
    _proof(home)


def _night(home: Path, file: Path, frame: pd.DataFrame, sessions: list[str], night: int) -> list[str]:
    done = home / f"night-{night}.json"
    if not done.exists():
        bars, event = as_of(frame, sessions, night)
        bars.to_csv(file, index=False)
        run = load_config("full", overrides=[*TINY, f"data.path={file}"])
        began = time.monotonic()
        folder = nightly(NightlyConfig(run=run, session=sessions[night], wait_minutes=0, promotion="automatic"))
        seconds = time.monotonic() - began
        said, changes = (json.loads((folder / name).read_bytes()) for name in ("night.json", "changes.json"))
        stages = json.loads((folder / said["run"] / "manifest.json").read_bytes())["stages"]
        computed = [name for name, state in stages.items() if state != "Cached"]
        parts: dict[str, float] = {}
        for row in changes["weights"]:
            for cause, part in row["parts"].items():
                parts[cause] = parts.get(cause, 0.0) + abs(part)
        moved = ", ".join(f"{cause} {part:.1%}" for cause, part in parts.items() if part > 5e-5) or "-"
        trained = sum(name.startswith("policy") for name in computed)
        line = [
            sessions[night],
            event or "-",
            f"{seconds:.0f}",
            f"{len(computed)} of {len(stages)}",
            str(trained),
            moved,
            said["verdict"]["kind"],
        ]
        done.write_text(json.dumps(line))
    return list(json.loads(done.read_text()))


def _proof(home: Path) -> None:
    registry, store = home / "home" / "registry", Store(home / "home" / "store")
    entries = ForwardLog(registry).entries()
    nights = Nights(registry)
    records = [record for session in nights.sessions() for record in nights.of(session)]
    equal = sum(replay(store, record)[0] == record.decision for record in records)
    moves = registry / "moves.jsonl"
    print(f"\n{len(entries)} entries in the forward log, chain whole; {equal} of {len(records)} decisions replayed to the same bytes; "
          f"{len(moves.read_text().splitlines()) if moves.exists() else 0} promotions.")  # fmt: skip


if __name__ == "__main__":
    main()
