"""Seconds, memory and page size of reading and checking bars: 1.5 million minute bars, and 500 files of daily bars.

`python -m benchmarks.bars` makes both inputs of random walks (seed 1) in a temporary folder and measures each step in a process of
its own. `--folder F` keeps the inputs there, `--measure PATH` measures one of them (that is what each process runs).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

SYMBOLS, DAILY = 4, 500
STEPS = ("load", "check")


def walk(random, stamps, sigma):
    close = 100 * np.exp(np.cumsum(random.normal(0, sigma, len(stamps))))
    open_ = np.r_[100.0, close[:-1]]
    high, low = np.maximum(open_, close) * 1.0005, np.minimum(open_, close) * 0.9995
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": random.integers(100, 10_000, len(stamps))}
    return pd.DataFrame({"timestamp": pd.DatetimeIndex(stamps).tz_localize("UTC"), **columns})


def make_inputs(folder):
    """The two inputs, where they are not there yet."""
    from ploutos.market.calendar import DAY, expected_bars

    random = np.random.default_rng(1)
    minutes, daily = folder / "minutes.csv", folder / "daily"
    if not minutes.exists():
        stamps = expected_bars("NYSE", pd.Timedelta(minutes=1), date(2020, 1, 2), date(2023, 11, 30))
        frames = [walk(random, stamps, 0.0008).assign(symbol=f"S{k}") for k in range(SYMBOLS)]
        pd.concat(frames).to_csv(minutes, index=False)
    if not daily.exists():
        daily.mkdir()
        stamps = expected_bars("NYSE", DAY, date(2014, 1, 2), date(2023, 12, 29))
        for k in range(DAILY):
            walk(random, stamps, 0.015).to_csv(daily / f"S{k:03d}.csv", index=False)
    return minutes, daily


def measure(path, step):
    """One step in this process: what it took."""
    start = time.perf_counter()
    if step == "load":
        from ploutos.market.data_spec import DataSpec
        from ploutos.market.loader import load

        bars = load(DataSpec(source="files", path=path))
        size = bars.n_bars * bars.n_symbols
    else:
        from typer.testing import CliRunner

        from ploutos.cli.main import app

        page = Path(tempfile.mkdtemp()) / "quality.html"
        result = CliRunner().invoke(app, ["data", "check", "--source", "files", "--path", str(path), "--out", str(page), "--json"])
        assert result.exit_code == 0, result.output[-2000:]
        size = page.stat().st_size
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(seconds, 2), "peak_mib": round(peak), "size": size}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--step", choices=STEPS, default="load")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.step)
        return
    with tempfile.TemporaryDirectory() as temporary:
        for path in make_inputs(arguments.folder or Path(temporary)):
            for step in STEPS:
                command = [sys.executable, "-m", "benchmarks.bars", "--measure", str(path), "--step", step]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
                unit = "bars" if step == "load" else "bytes of page"
                print(f"{path.name:12} {step:6} {found['seconds']:7.2f} s {found['peak_mib']:6} MiB {found['size']:12,} {unit}")


if __name__ == "__main__":
    main()
