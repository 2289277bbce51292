"""Backtests of hourly bars of 15 shares: seconds, processor time, and where it goes; `python -m benchmarks.backtests`.

Three-year folds, two members of [512, 512, 512] each, the mock advisor's advice, every placebo (5 draws of each), one thread. Nobody
trained the members: they are as torch draws them from their seeds, but for their last layer, 100 times as large, so that they differ and
are sure of something. That costs what trained ones cost.

`--file` takes other bars than the simulated ones. `--tree` names another checkout, whose own copy of this program runs in turns with
this one: both must give the same bytes, or, where one has accounts that the other lacks, the same equity of the accounts of both.
`--folder` keeps what each tree made: policies and advice are found there again. `--profile` prints where the time goes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from ploutos.hardware.threads import cap_threads

cap_threads(1)

import numpy as np
import torch

from ploutos.advisor.advisor import Advisor, advise
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.mock import MockBackend
from ploutos.advisor.signals import Signals, read_signals, write_signals
from ploutos.envs.market_arrays import make_market_arrays
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.evaluation.backtest import Backtests, write_backtests
from ploutos.evaluation.experiment import out_of_sample
from ploutos.features.build import FeatureSet, FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.features.scaling import fit_scaler
from ploutos.fusion.spec import FusionSpec
from ploutos.llm.config import LLMProvider
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.training.checkpoint import Policy, load_policy, save_policy
from ploutos.training.ppo import build_model, meta_of
from ploutos.training.spec import TrainingSpec
from ploutos.walk_forward import Fold, FoldSpec, plan_folds, tested_decisions

SYMBOLS = ("SPY", "QQQ", "IWM", "AAPL", "MSFT", "AMZN", "GOOG", "META", "NVDA", "TSLA", "JPM", "XOM", "JNJ", "PG", "KO")
NET, MEMBERS, DRAWS, SEED, SHARPER = (512, 512, 512), 2, 5, 1, 100.0


def bars_of(file: Path | None) -> Bars:
    """The file's bars, or six years of simulated hours."""
    if file:
        return load(DataSpec(source="files", path=file))
    return load(DataSpec(source="synthetic", symbols=SYMBOLS, start=date(2020, 2, 18), end=date(2026, 2, 13), timeframe="1h"))


def policies_of(bars: Bars, features: FeatureSet, fold: Fold, folder: Path) -> list[Policy]:
    """A fold's members, made where they are not there yet."""
    spec, members = TrainingSpec(net_arch=NET, members=MEMBERS, network="joint"), []
    for member in range(MEMBERS):
        path = folder / f"policy-{fold.index}-{member}.zip"
        if not path.exists():
            scaler = fit_scaler(features.values[fold.train.start : fold.train.stop])
            n_columns = bars.n_symbols * (len(features.names) + 1)
            env = MarketVecEnv(
                make_market_arrays(bars), np.zeros((bars.n_bars, n_columns), dtype=np.float32), EnvSpec(), 0, bars.n_bars - 1, 32, SEED
            )
            model = build_model(env, spec, SEED + 100 * fold.index + member, "cpu")
            with torch.no_grad():
                model.policy.action_net.weight *= SHARPER  # type: ignore[operator]
            save_policy(model, meta_of(bars, features, fold, EnvSpec(), spec, scaler, SEED), path)
        members.append(load_policy(path))
    return members


def advice_of(bars: Bars, folds: tuple[Fold, ...], folder: Path) -> Signals:
    """The mock's advice over all test ranges, asked for where it is not there yet."""
    path = folder / "signals.parquet"
    if not path.exists():
        advisor = Advisor(MockBackend(), LLMConfig(provider=LLMProvider.MOCK))
        write_signals(advise(bars, market_features(bars), *tested_decisions(folds), advisor), path)
    return read_signals(path)


def serve(folder: Path, file: Path | None) -> None:
    """Run the backtests whenever a line arrives, and say what they took and where their arrays are."""
    torch.set_num_threads(1)
    bars = bars_of(file)
    features = build_features(bars, FeatureSpec())
    folds = plan_folds(bars, features, FoldSpec(train_years=3))
    policies, signals = [policies_of(bars, features, fold, folder) for fold in folds], advice_of(bars, folds, folder)

    def run() -> Backtests:
        return out_of_sample(bars, features, folds, policies, signals, EnvSpec(), FusionSpec(), SEED, placebo_draws=DRAWS)

    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "profile":
            import cProfile
            import pstats

            with cProfile.Profile() as profile:
                run()
            pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)
            print("profiled", flush=True)
            continue
        started, began = time.process_time(), time.perf_counter()
        result = run()
        processor, seconds = time.process_time() - started, time.perf_counter() - began
        write_backtests(result, Path(line.strip()))
        k, n = result.equity.shape
        print(json.dumps({"seconds": seconds, "processor": processor, "accounts": k, "bars": n - 1, "folds": len(folds)}), flush=True)


class Tree:
    """A checkout whose copy of this program runs in a process of its own."""

    def __init__(self, path: Path, folder: Path, file: Path | None) -> None:
        self.path = path
        command = [
            sys.executable,
            "-m",
            "benchmarks.backtests",
            "--serve",
            "--folder",
            str(folder),
            *(["--file", str(file)] if file else []),
        ]
        self._process = subprocess.Popen(command, cwd=path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def ask(self, line: str) -> str:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        if not (answer := self._process.stdout.readline()):
            raise SystemExit(f"the program of {self.path} ended; its own message stands above")
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def difference(one: Path, other: Path) -> str:
    """Which arrays have other bytes; of trees that have not the same accounts, how many accounts of the one the other has too."""
    with np.load(one) as a, np.load(other) as b:
        if a.files == b.files and len(a["equity"]) == len(b["equity"]):
            changed = [name for name in a.files if a[name].tobytes() != b[name].tobytes()]
            return f"other bytes in {', '.join(changed)}" if changed else "the same bytes"
        theirs = {path.tobytes() for path in b["equity"]}
        return f"the same equity of {sum(path.tobytes() in theirs for path in a['equity'])} of {len(a['equity'])} accounts"


def compare(trees: list[Path], folder: Path, file: Path | None, rounds: int, profile: bool) -> None:
    """Seconds of every tree, in turns, against those of the first; and whether their arrays are the same."""
    running = [Tree(path, folder / "-".join(path.resolve().parts[1:]), file) for path in trees]
    if profile:
        running[-1].ask("profile")
        return
    taken: list[list[float]] = [[] for _ in running]
    facts: dict[str, Any] = {}
    for turn in range(rounds + 1):
        for at, tree in enumerate(running):
            facts = json.loads(tree.ask(str(folder / f"backtests-{at}.npz")))
            if turn:  # the first round warms up
                taken[at].append(facts["seconds"])
    print(f"{facts['accounts']} accounts, {facts['folds']} folds, {facts['bars']:,} test bars; {rounds} rounds in turns")
    for at, (tree, seconds) in enumerate(zip(running, taken, strict=True)):
        tree.close()
        ratios = [base / own for base, own in zip(taken[0], seconds, strict=True)]
        same = difference(folder / "backtests-0.npz", folder / f"backtests-{at}.npz")
        taken_by = f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}..{max(seconds):.2f})"
        print(f"{tree.path}: {taken_by}, {statistics.median(ratios):.2f} x ({min(ratios):.2f}..{max(ratios):.2f}), {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--file", type=Path, help="bars to use in place of simulated ones")
    parser.add_argument("--tree", type=Path, action="append", default=[], help="another checkout; the first is what all are compared with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if options.serve:
            serve(folder, options.file)
        else:
            compare([*options.tree, Path.cwd()], folder, options.file and options.file.absolute(), options.rounds, options.profile)


if __name__ == "__main__":
    main()
