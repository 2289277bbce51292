"""A sweep of 1,000 sets of `ema_cross` over five years of hours: backtests per second of one core; `python -m benchmarks.sweep`.

One simulated share, long and short, stops, 5 basis points a side, fills at the next open. Sets are Sobol's, seed 1; EMAs are computed
inside the time, and so are Sharpe ratios, drawdowns and counts of trades. `--others` names the interpreter of an environment with
backtesting.py and vectorbt, which then take turns with ploutos in one run: `python -m venv /tmp/others && /tmp/others/bin/pip install
backtesting vectorbt`. They are no dependencies: the first is under the AGPL.

The programs do not agree to the last trade: vectorbt takes a stop from the close of the entry's bar, backtesting.py trades whole units.
What is compared is the time for the same work.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np

from ploutos.envs.spec import EnvSpec
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.research.sweep import Sweeper, sample_sets
from ploutos.strategies.rules import RULES, Values
from ploutos.walk_forward import Range

N, SEED, SLOW_N = 1000, 1, 10
TARGETS = {"backtesting": 100.0, "vectorbt": 5.0}


def five_years() -> Bars:
    return load(DataSpec(source="synthetic", symbols=("AAPL",), start=date(2018, 1, 2), end=date(2022, 12, 30), timeframe="1h"))


class Others:
    """The process of the other programs."""

    def __init__(self, interpreter: Path, bars: Bars, sets: tuple[Values, ...], folder: Path) -> None:
        arrays: dict[str, Any] = {name: getattr(bars, name)[:, 0] for name in ("open", "high", "low", "close")}
        np.savez(folder / "bars.npz", timestamps=bars.timestamps, **arrays)
        (folder / "sets.json").write_text(json.dumps(sets))
        program = Path(__file__).with_name("sweep_others.py")
        command = [str(interpreter), str(program), str(folder / "bars.npz"), str(folder / "sets.json")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"TQDM_DISABLE": "1"}
        )
        self.trades: dict[str, float] = {}
        self._answer()

    def run(self, name: str, n: int) -> float:
        """Processor seconds per backtest."""
        assert self._process.stdin
        self._process.stdin.write(f"{name} {n}\n")
        self._process.stdin.flush()
        answer = json.loads(self._answer())
        self.trades[name] = answer["trades"]
        return answer["seconds"] / n

    def _answer(self) -> str:
        assert self._process.stdout
        if not (answer := self._process.stdout.readline()):
            raise SystemExit("the other interpreter ended; its own message stands above")
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def measure(interpreter: Path | None, rounds: int, folder: Path) -> None:
    bars, rule = five_years(), RULES["ema_cross"]
    sets, part = sample_sets(rule, "sobol", N, SEED), Range(start=60, stop=bars.n_bars)
    others = Others(interpreter, bars, sets, folder) if interpreter else None
    taken: dict[str, list[float]] = {"ploutos": [], **({"backtesting": [], "vectorbt": []} if others else {})}
    for turn in range(rounds + 1):
        started = time.process_time()
        sweep = Sweeper(rule, bars, EnvSpec(allow_short=True)).run(sets, part)
        now = {"ploutos": (time.process_time() - started) / len(sets)}
        if others:
            now |= {"backtesting": others.run("backtesting", SLOW_N), "vectorbt": others.run("vectorbt", len(sets))}
        if turn:  # the first round compiles
            for name, seconds in now.items():
                taken[name].append(seconds)
    if others:
        others.close()
        print(", ".join(f"{name}: {trades:.0f} trades a set" for name, trades in others.trades.items()))
    fills = f"{sweep.n_fills.mean():.0f} fills a set (a reversal is one)"
    print(f"{len(sets)} sets, {bars.n_bars:,} bars, {fills}; one core, {rounds} rounds in turns, medians")
    for name, seconds in taken.items():
        ratio = statistics.median(other / own for other, own in zip(seconds, taken["ploutos"], strict=True))
        target = f", ploutos is {ratio:.1f} x (target {TARGETS[name]:g})" if name in TARGETS else ""
        print(f"{name}: {1 / statistics.median(seconds):,.1f} backtests/s ({1 / max(seconds):,.1f}..{1 / min(seconds):,.1f}){target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=Path, help="Python of an environment with backtesting and vectorbt")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.others, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
