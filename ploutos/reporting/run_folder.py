"""A run's folder: everything one needs to believe it, or not, in files that stand alone. The manifest comes last."""

import shlex
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ploutos.config import PipelineConfig, dump_yaml
from ploutos.envs.spec import CostSpec, cash_in_words
from ploutos.errors import StoreError
from ploutos.evaluation.backtest import BACKTESTS
from ploutos.evaluation.summary import SUMMARY, RunSummary
from ploutos.evaluation.text_controls import TEXT_CONTROLS
from ploutos.hardware.monitor import Usage, describe_usage
from ploutos.llm.gpu_unload import UnloadRecord, freed_of
from ploutos.market.bars import BARS, Bars
from ploutos.market.clock import show_timeframe
from ploutos.market.data_spec import substitutes
from ploutos.market.instruments import InstrumentSpec
from ploutos.market.quality_report import QUALITY
from ploutos.provenance import git_commit, library_versions, source_digest
from ploutos.reporting.advisor_page import render_advisor_page
from ploutos.reporting.report import RunFacts, render_markdown, render_report
from ploutos.reporting.texts_page import render_run_texts, run_sentences
from ploutos.run_manifest import Asked, BarsFacts, RunManifest, write_manifest
from ploutos.run_refs import RunRefs
from ploutos.store import Store, digest_of, write_json, write_text, writing
from ploutos.walk_forward import FOLDS, Fold, fold_table
from ploutos.wording import plural

_LIBRARIES = {
    "torch",
    "sklearn",
    "stable_baselines3",
    "gymnasium",
    "numpy",
    "numba",
    "pandas",
    "pyarrow",
    "talib",
    "arch",
    "prefect",
    "ollama",
    "openai",
    "httpx",
}
_MIB = 1 << 20


_CODE = ("ploutos.training.jobs", "ploutos.fusion.jobs", "ploutos.evaluation.experiment", "ploutos.evaluation.gates")
"""What a run's policies and numbers stand on, with all that these import."""


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


def facts_of(bars: Bars) -> BarsFacts:
    """What the numbers assume about the bars."""
    return BarsFacts(
        timeframe=show_timeframe(bars.timeframe), calendar=bars.calendar, sessions_per_year=bars.sessions_per_year, zone=bars.zone,
        label=bars.label, instruments=bars.instruments, notes=bars.notes,
    )  # fmt: skip


def _costs_assumed(instrument: InstrumentSpec, costs: CostSpec) -> str:
    """What a fill costs, in words."""
    words = []
    if instrument.asset_class == "future":
        words.append(f"{instrument.multiplier:g} a point")
    if instrument.commission_per_unit or instrument.slippage_ticks:
        each = "contract" if instrument.lot else "unit"
        tick = f"{instrument.slippage_ticks:g} ticks of {instrument.tick_value:g}"
        words.append(f"{instrument.commission_per_unit:g} and {tick} per {each} and side")
    if instrument.costs_in_bps:
        words.append(f"{costs.commission_bps:g} bps commission and {costs.slippage_bps:g} bps slippage per side")
    return "; ".join(words)


def _asked_in_words(asked: Asked | None) -> list[tuple[str, str]]:
    """What a language model was asked in this run, and how it left memory and came back."""
    if asked is None:
        return []
    words = [plural(asked.questions, "question"), f"{plural(asked.prompt_tokens, 'token')} read", f"{asked.tokens:,} written"]
    words += [f"{asked.seconds:.1f} s", f"{asked.load_seconds:.1f} s of it loading the model"]
    words += [plural(n, word) for n, word in ((asked.abstentions, "abstention"), (asked.failures, "failed call")) if n]
    words += [] if asked.money is None else [f"cost {asked.money:.4g}"]
    return [("asked of the model in this run", ", ".join(words)), *(_unload_in_words(each) for each in asked.unloads)]


def _unload_in_words(unload: UnloadRecord) -> tuple[str, str]:
    left = "it did not leave" if unload.unload_s is None else f"left in {unload.unload_s:.1f} s"
    freed = [f"{n / _MIB:,.0f} MiB of {kind} became free" for kind, n in freed_of(unload)]
    back = [] if unload.reload_s is None else [f"back in {unload.reload_s:.1f} s"]
    return f"model unloaded for {unload.phase}", ", ".join([left, *freed, f"{unload.block_s:.1f} s without it", *back])


def _provenance(manifest: RunManifest, bars: Bars, folds: Sequence[Fold], config: PipelineConfig) -> list[tuple[str, str]]:
    assumed: dict[str, list[str]] = {}
    for instrument in bars.instruments:
        assumed.setdefault(_costs_assumed(instrument, config.env.costs), []).append(instrument.symbol)
    zone = f"timestamps of the source: {bars.label}, zone {bars.zone}; ours name the start, in UTC"
    rows = [
        ("bars", f"{show_timeframe(bars.timeframe)}; {zone}"),
        ("calendar", f"{bars.calendar}; the bars hold {bars.sessions_per_year:.1f} sessions a year"),
        ("prices in", bars.instruments[0].currency),
        *(("about the bars", note) for note in bars.notes),
    ]
    rows += [(f"costs of {', '.join(symbols)}", words) for words, symbols in assumed.items()]
    rows += [("initial cash", cash_in_words(config.env, bars, *(fold.test for fold in folds)))]
    rows += [("written", manifest.written), ("commit", manifest.commit), ("configuration", manifest.config_sha256)]
    rows += [("seed", str(manifest.seed)), *describe_usage(manifest.hardware), *_asked_in_words(manifest.llm)]
    rows += [
        (f"artifact {name}", sha256)
        for name, sha256 in manifest.artifacts.items()
        if not name.startswith(("policy", "hybrid", "ablated", "regression"))
    ]
    rows += [("versions", ", ".join(f"{name} {found}" for name, found in manifest.versions.items()))]
    return rows


def write_phase(refs: RunRefs, config: PipelineConfig, runs_root: Path, stages: dict[str, str], phase: int) -> Path:
    """The folder of a run that ends after phase 1 or 2: its configuration, and a manifest from which the next phase starts."""
    folder = _new_folder(config, runs_root)
    write_text(folder / "config.yaml", dump_yaml(config))
    write_manifest(RunManifest(**_origin(config), refs=refs, stages=stages, phase=phase), folder)
    return folder


def repeating_command(folder: Path, config: PipelineConfig) -> str:
    """What repeats a run from its folder, into another one; stages that are still in the store are not computed again."""
    elsewhere = [] if config.out is None else ["--out", str(folder.with_name(f"{folder.name}-again"))]
    return shlex.join(["ploutos", "run", "--config", str(folder / "config.yaml"), *elsewhere])


def _copy_models(store: Store, refs: RunRefs, config: PipelineConfig, folds: Sequence[Fold], folder: Path) -> dict[str, str]:
    """Copy every policy and supervised model into the folders of their folds; their digests by name."""
    copied = {}
    kinds = (("policy", ".", refs.policies), ("hybrid", "hybrid", refs.hybrids), ("ablated", "ablated", refs.ablated))
    for kind, place, by_fold in kinds:
        for fold, members in zip(folds, by_fold, strict=False):  # no folds of a kind that was not trained
            for member, ref in enumerate(members):
                copied[f"{kind} {fold.index} {member}"] = (ref, Path(place) / f"seed_{member}" / "policy.zip", fold.index)
    for fold, models in zip(folds, refs.regressions, strict=False):
        for kind, ref in zip(config.supervised, models, strict=True):
            copied[f"regression {fold.index} {kind}"] = (ref, Path("regression") / f"{kind}.npz", fold.index)
    for ref, file, index in copied.values():
        with writing(folder / "folds" / str(index) / file) as temporary:
            shutil.copyfile(store.path(ref), temporary)
    return {name: ref.sha256 for name, (ref, _, _) in copied.items()}


def _origin(config: PipelineConfig) -> dict[str, Any]:
    """When and by what code and settings a manifest's run was written."""
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "code": source_digest(*_CODE),
        "config_sha256": digest_of(config.model_dump(mode="json", exclude={"out"})),
        "seed": config.seed,
    }


def write_run(
    store: Store,
    refs: RunRefs,
    config: PipelineConfig,
    runs_root: Path,
    stages: dict[str, str],
    usage: Usage,
    asked: Asked | None = None,
) -> tuple[Path, RunSummary]:
    """Write config, folds, policies, metrics, tables, report, the page about the advisor and manifest.

    Args:
        stages: stage to `Cached` or `Completed`, for the manifest.
        usage: what the run took. Its figures differ from run to run, so no metric holds them.
        asked: what a language model was asked anew and how it came and went; None with the mock.

    Returns:
        The folder, and the summary.
    """
    folder = _new_folder(config, runs_root)
    texts = None if refs.texts is None else store.load(refs.texts, TEXT_CONTROLS)
    bars, folds, quality = store.load(refs.bars, BARS), store.load(refs.folds, FOLDS), store.load(refs.quality, QUALITY)
    backtests, summary = store.load(refs.require("backtests"), BACKTESTS), store.load(refs.require("metrics"), SUMMARY)
    artifacts = {
        name: refs.require(name).sha256
        for name in ("bars", "quality", "features", "folds", "signals", "backtests", "candidates", "metrics")
    }
    if refs.fusion is not None:
        artifacts["fusion"] = refs.fusion.sha256
    artifacts |= _copy_models(store, refs, config, folds, folder)
    copies = ["metrics.json", "folds.json", "signals.parquet"]
    if refs.mirrored is not None:
        artifacts["mirrored"] = refs.mirrored.sha256
        copies.append("mirrored.parquet")
    if texts is not None:
        artifacts |= {name: refs.require(name).sha256 for name in ("readings", "texts")}
        copies += ["readings.parquet", "texts.json"]
        write_text(folder / "texts.html", render_run_texts(texts))
    manifest = RunManifest(
        **_origin(config), refs=refs, stages=stages, source=bars.source, bars=facts_of(bars), artifacts=artifacts,
        substitutes=substitutes(config.data), data_quality=quality.warnings, versions=library_versions(_LIBRARIES),
        hardware=usage.summary(), pauses=usage.pauses, llm=asked,
    )  # fmt: skip
    facts = RunFacts(
        fold_table(folds, bars.timestamps), _provenance(manifest, bars, folds, config), repeating_command(folder, config),
        () if texts is None else tuple(run_sentences(texts)),
    )  # fmt: skip
    for name, text in (
        ("config.yaml", dump_yaml(config)),
        ("report.html", render_report(backtests, summary, bars, quality, facts)),
        ("report.md", render_markdown(summary, facts.texts)),
        ("advisor.html", render_advisor_page(backtests, summary)),
    ):
        write_text(folder / name, text)
    for name in copies:
        with writing(folder / name) as temporary:
            shutil.copyfile(store.path(refs.require(Path(name).stem)), temporary)
    for name, frame in (("equity.parquet", backtests.equity_frame()), ("trades.parquet", backtests.trades_frame())):
        with writing(folder / name) as temporary:
            frame.to_parquet(temporary, index=False)
    if summary.gates is not None:
        write_json(folder / "gates.json", summary.gates.model_dump(mode="json"))
    usage.save(folder / "hardware.csv")
    write_manifest(manifest, folder)
    return folder, summary
