"""What a wide market of minute bars costs per bar, per step and per artifact: the figures of docs/scale.md; `python -m benchmarks.scale`.

500 symbols, random walks of seed 1 on the NYSE's minutes, by default 2,000 and 4,000. Every step runs in a process of its own, so that
its peak of memory is its own; what is printed as "a bar more" is the difference of the two lengths, per symbol and bar. Processor time, not
wall time. Artifacts on S3 are counted at moto's server: requests of a host that computes one and of a host that finds it.
"""

import argparse
import json
import os
import resource
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
import pandas as pd

from benchmarks.bars import walk
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.features.build import FeatureSpec, build_features, read_features, write_features
from ploutos.market.bars import align, read_bars, write_bars
from ploutos.market.calendar import expected_bars
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.walk_forward import Fold, Range, data_digest

MINUTE = pd.Timedelta(minutes=1)
STEPS = ("write bars", "read bars", "write features", "read features", "train 4", "train 12")
_KEY = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


def make_bars(path: Path, n_symbols: int, n_bars: int) -> None:
    random = np.random.default_rng(1)
    stamps = expected_bars("NYSE", MINUTE, date(2024, 1, 2), date(2024, 3, 28))[:n_bars]
    frame = pd.concat([walk(random, stamps, 0.0008).assign(symbol=f"S{k:03d}") for k in range(n_symbols)])
    write_bars(align(frame, MINUTE, "NYSE", "random walks"), path)


def train(folder: Path, rollouts: int) -> int:
    """Train one policy for some rollouts; its steps."""
    bars, features = read_bars(folder / "bars.parquet"), read_features(folder / "features.parquet")
    spec = TrainingSpec(total_timesteps=256 * rollouts, n_envs=8, n_steps=32, batch_size=256, teacher="none")
    fold = Fold(
        index=0, train=Range(start=400, stop=1400), validation=Range(start=1406, stop=1500), test=Range(start=1506, stop=1900),
        warmup_bars=300, data_sha256=data_digest(bars, features, 1500),
    )  # fmt: skip
    env = with_initial_cash(EnvSpec(episode_bars=390), bars, fold.train)
    paths = TrainingPaths(folder / f"work{rollouts}")
    train_member(bars, features, fold, env, spec, CheckpointSpec(), 1, paths, folder / f"policy{rollouts}.zip")
    return 256 * rollouts


def step(name: str, folder: Path, n_symbols: int, n_bars: int) -> dict[str, float]:
    """One step in this process: what it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bars, features, size, began = folder / "bars.parquet", folder / "features.parquet", 0, time.process_time()
    if name == "write bars":
        make_bars(bars, n_symbols, n_bars)
        size = bars.stat().st_size
    elif name == "read bars":
        read_bars(bars)
    elif name == "write features":
        panel = read_bars(bars)
        began = time.process_time()
        write_features(build_features(panel, FeatureSpec()), features)
        size = features.stat().st_size
    elif name == "read features":
        size = read_features(features).values.shape[2]
    else:
        size = train(folder, int(name.split()[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.process_time() - began, "peak_mib": peak - before, "size": size}


def wide(n_symbols: int, lengths: list[int]) -> None:
    """Every step on every length."""
    found: dict[str, list[dict[str, float]]] = {}
    for n_bars in lengths:
        with tempfile.TemporaryDirectory() as folder:
            for name in STEPS[: len(STEPS) if n_bars == lengths[0] else 4]:
                command = [sys.executable, "-m", "benchmarks.scale", "--step", name, "--folder", folder, "--symbols", str(n_symbols)]
                done = subprocess.run([*command, "--bars", str(n_bars)], check=True, capture_output=True, text=True)
                found.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
            if n_bars == lengths[0]:
                print(f"policy file: {(Path(folder) / 'policy12.zip').stat().st_size:,} bytes")
    print("\n| step | " + " | ".join(f"{n:,} bars: s, MiB, bytes" for n in lengths) + " | a bar more: µs, bytes of memory, of file |")
    print("|---|" + "---:|" * (len(lengths) + 1))
    more = n_symbols * (lengths[-1] - lengths[0])
    for name in STEPS[:4]:
        first, last = found[name][0], found[name][-1]
        cells = [f"{each['seconds']:.1f}, {each['peak_mib']:,.0f}, {each['size']:,.0f}" for each in found[name]]
        cells.append(
            ", ".join(
                f"{scale * (last[key] - first[key]) / more:.2f}" for key, scale in (("seconds", 1e6), ("peak_mib", 2**20), ("size", 1))
            )
        )
        print(f"| {name} | {' | '.join(cells)} |")
    short, long = found["train 4"][0], found["train 12"][0]
    seconds = (long["seconds"] - short["seconds"]) / (long["size"] - short["size"])
    print(f"\ntraining: {1 / seconds:,.0f} steps/s of {n_symbols} symbols on one core, {long['peak_mib']:,.0f} MiB")


def artifact_requests() -> None:
    """Requests to S3 of a host that computes an artifact, and of one that finds it, by what they do."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(_KEY | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"})
    import s3fs

    from ploutos.remote_store import RemoteStore
    from ploutos.store import Kind

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("scale")
    kind: Kind[Any] = Kind("bytes", ".bin", lambda value, path: path.write_bytes(value), Path.read_bytes)
    asked: list[str] = []
    app = server._server.app  # type: ignore[attr-defined]  # moto has no other way to see its requests

    def counted(environ: dict[str, Any], start: Any) -> Any:
        asked.append(environ["REQUEST_METHOD"])
        return app(environ, start)

    server._server.app = counted  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("computes", "finds"):
            store = RemoteStore("s3://scale/store", Path(folder) / name)
            asked.clear()
            store.cached("stage", "key", kind, lambda path: path.write_bytes(b"policy" * 10_000))
            kinds = ", ".join(f"{asked.count(method)} {method}" for method in sorted(set(asked)))
            print(f"a host that {name} an artifact: {len(asked)} requests ({kinds})")
    server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--bars", type=int, nargs="*", default=[2_000, 4_000], help="lengths, shortest first")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(step(asked.step, asked.folder, asked.symbols, asked.bars[0])))
        return
    artifact_requests()
    wide(asked.symbols, asked.bars)


if __name__ == "__main__":
    main()
