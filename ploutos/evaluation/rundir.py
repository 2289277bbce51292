"""A run's folder: everything one needs to believe it, or not, in files that stand alone. The manifest comes last."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ploutos.config import PipelineConfig, dump_yaml
from ploutos.errors import StoreError
from ploutos.evaluation.backtest import read_backtests
from ploutos.evaluation.report import render_report
from ploutos.hardware.monitor import HardwareMonitor, describe_usage
from ploutos.market.bars import read_bars
from ploutos.provenance import git_commit, library_versions
from ploutos.store import Ref, Store, digest_of, write_json, writing
from ploutos.training.folds import fold_table, read_folds

_LIBRARIES = {"torch", "stable_baselines3", "gymnasium", "numpy", "numba", "pandas", "pyarrow", "talib", "arch", "prefect"}


@dataclass(frozen=True)
class RunRefs:
    """What a run stands on; the later ones are None until they are made."""

    bars: Ref
    features: Ref
    folds: Ref
    policies: tuple[tuple[Ref, ...], ...]  # by fold, then member
    signals: Ref | None = None
    backtests: Ref | None = None
    metrics: Ref | None = None

    def require(self, name: str) -> Ref:
        """A later reference, which must have been made by now."""
        ref = getattr(self, name)
        if ref is None:
            raise StoreError(f"the run has no {name} yet")
        return ref


def _new_folder(config: PipelineConfig, runs_root: Path) -> Path:
    """The run's own folder; two runs of the same second get two."""
    if config.out is not None:
        folder = config.out
        attempts = [folder]
    else:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folder = runs_root / f"{stamp}_{config.name}_{digest_of(config)[:8]}"
        attempts = [folder, *(folder.with_name(f"{folder.name}-{n}") for n in range(2, 100))]
    for attempt in attempts:
        try:
            attempt.mkdir(parents=True, exist_ok=config.out is not None)
        except FileExistsError:
            continue
        except OSError as error:
            raise StoreError(f"cannot make {attempt}: {error.strerror}; choose another --out") from error
        return attempt
    raise StoreError(f"cannot make a folder for the run: {folder} exists; choose another --out")


def _provenance(manifest: dict[str, Any], config: PipelineConfig) -> list[tuple[str, str]]:
    costs = config.env.costs
    rows = [("costs assumed", f"{costs.commission_bps:g} bps commission and {costs.slippage_bps:g} bps slippage per side")]
    rows += [("written", manifest["written"]), ("commit", manifest["commit"]), ("configuration", manifest["config_sha256"])]
    rows += [("seed", str(manifest["seed"])), *describe_usage(manifest["hardware"])]
    rows += [(f"artifact {name}", sha256) for name, sha256 in manifest["artifacts"].items() if not name.startswith("policy")]
    rows += [("versions", ", ".join(f"{name} {found}" for name, found in manifest["versions"].items()))]
    return rows


def write_run(
    store: Store, refs: RunRefs, config: PipelineConfig, runs_root: Path, stages: dict[str, str], monitor: HardwareMonitor
) -> tuple[Path, dict[str, Any]]:
    """Write config, folds, policies, metrics, tables, report and manifest.

    Args:
        stages: stage to `Cached` or `Completed`, for the manifest.
        monitor: what watched the run; stopped here. Its figures differ from run to run, so no metric holds them.

    Returns:
        The folder, and the metrics.
    """
    monitor.stop_monitoring()
    folder = _new_folder(config, runs_root)
    bars, folds = read_bars(store.path(refs.bars)), read_folds(store.path(refs.folds))
    backtests = read_backtests(store.path(refs.require("backtests")))
    summary = json.loads(store.path(refs.require("metrics")).read_text(encoding="utf-8"))
    artifacts = {name: refs.require(name).sha256 for name in ("bars", "features", "folds", "signals", "backtests", "metrics")}
    for fold, members in zip(folds, refs.policies, strict=True):
        for member, ref in enumerate(members):
            place = folder / "folds" / str(fold.index) / f"seed_{member}" / "policy.zip"
            with writing(place) as temporary:
                shutil.copyfile(store.path(ref), temporary)
            artifacts[f"policy {fold.index} {member}"] = ref.sha256
    manifest = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "config_sha256": digest_of(config.model_dump(mode="json", exclude={"out"})),
        "seed": config.seed,
        "versions": library_versions(_LIBRARIES),
        "artifacts": artifacts,
        "stages": stages,
        "hardware": monitor.summary(),
    }
    plan = fold_table(folds, bars.timestamps)
    for name, text in (
        ("config.yaml", dump_yaml(config)),
        ("report.html", render_report(backtests, summary, plan, _provenance(manifest, config))),
    ):
        with writing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for name in ("metrics.json", "folds.json", "signals.parquet"):
        with writing(folder / name) as temporary:
            shutil.copyfile(store.path(refs.require(Path(name).stem)), temporary)
    for name, frame in (("equity.parquet", backtests.equity_frame()), ("trades.parquet", backtests.trades_frame())):
        with writing(folder / name) as temporary:
            frame.to_parquet(temporary, index=False)
    monitor.save_metrics(folder / "hardware.csv")
    write_json(folder / "manifest.json", manifest)
    return folder, summary
