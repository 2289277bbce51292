"""What a run, or a search, has tried, as trials."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ploutos.advisor.signals import Signals
from ploutos.config import PipelineConfig
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.candidates import paths_of, sessions_tested
from ploutos.evaluation.metrics import to_date
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import synthetic_spec
from ploutos.provenance import source_digest
from ploutos.registry.trials import Trial, TrialKind, TrialRegistry, make_trial
from ploutos.store import digest_of, file_sha256
from ploutos.training.checkpoint import read_meta
from ploutos.walk_forward import Fold, Range

_CODE = ("ploutos.training.jobs", "ploutos.evaluation.experiment")
_OF_THE_MACHINE = {"name", "out", "hardware", "pipeline", "checkpoint", "logging"}
EXCHANGE = "exchange"
"""Market of bars that were really traded, whoever sold them."""


def market_of(data: DataSpec) -> str:
    """Which history the bars are of: two simulations are two, two vendors of one exchange are one."""
    return digest_of(synthetic_spec(data)) if data.source == "synthetic" else EXCHANGE


def settings_digest(config: PipelineConfig) -> str:
    """Digest of all settings but those of the machine, the advisor's address and patience, and the last day.

    A replay tries nothing new, and neither does the same run a day later.
    """
    of_result = config.model_dump(mode="json", exclude=_OF_THE_MACHINE) | {
        "data": config.data.model_dump(mode="json", exclude={"end"}),
    }  # fmt: skip
    return digest_of(of_result | {"llm": config.llm.cache_fields() | {"mirror": config.llm.mirrors}})


def span_of(bars: Bars, part: Range) -> tuple[date, date]:
    """First and last session of some bars."""
    return to_date(bars.sessions[part.start]), to_date(bars.sessions[part.stop - 1])


def record_run(
    registry: TrialRegistry,
    bars: Bars,
    folds: Sequence[Fold],
    backtests: Backtests,
    signals: Signals,
    policies: Mapping[str, Sequence[Sequence[Path]]],
    config: PipelineConfig,
) -> tuple[Trial, ...]:
    """Record everything that a run has tried, once, and give back all trials on its test bars, its own among them.

    Args:
        policies: files by kind of training, then fold, then member.
    """
    market, run, sessions = market_of(config.data), settings_digest(config), sessions_tested(bars, backtests)
    code = source_digest(*_CODE)
    span = to_date(sessions[0]), to_date(sessions[-1])

    def trial(kind: TrialKind, content: Any, within: tuple[date, date] = span, **more: Any) -> Trial:
        return make_trial(kind, content, market, bars.symbols, within, run, **more)

    trials = [trial(TrialKind.SETTINGS, run, facts={"name": config.name, "seed": config.seed}, procedure=run)]
    for slug, returns in paths_of(bars, backtests).items():
        path = registry.keep_path(sessions, returns)
        made_by = digest_of([run, code, slug])
        trials.append(trial(TrialKind.CANDIDATE, path, facts={"slug": slug, "path": path}, procedure=made_by))
    if not signals.is_mock:
        asked = {"model": signals.model, "digest": signals.digest, "template": signals.template, "reveal": signals.reveal}
        prompt = asked | {"settings": config.llm.cache_fields()}
        trials.append(trial(TrialKind.PROMPT, prompt, facts=asked, procedure=digest_of(prompt)))
    for kind, by_fold in policies.items():
        for fold, members in zip(folds, by_fold, strict=False):  # no folds of a kind that was not trained
            for file in members:
                facts = {"kind": kind, "fold": fold.index}
                sha256 = file_sha256(file)
                trials.append(trial(TrialKind.TRAINING, sha256, span_of(bars, fold.test), facts=facts))
                trials += _looks(trial, bars, file, sha256, facts)
    registry.record(trials)
    return registry.overlapping(market, bars.symbols, *span)


def _looks(trial: Any, bars: Bars, file: Path, sha256: str, facts: dict[str, Any]) -> Iterator[Trial]:
    """The looks by which a training stopped, on the bars that it held out."""
    stopping = read_meta(file).stopping
    if stopping is not None:
        yield trial(TrialKind.LOOKS, sha256, span_of(bars, stopping.validation), count=stopping.looks, facts=facts)


def record_search(
    registry: TrialRegistry, bars: Bars, scored: Range, tried: Sequence[dict[str, Any]], base: dict[str, Any], config: PipelineConfig
) -> int:
    """Record the candidates of a search on the bars that they were scored on.

    Args:
        scored: the bars.
        tried: one set of settings per candidate.
        base: what else decides a candidate's score, such as its steps.

    Returns:
        How many are new.
    """
    run = settings_digest(config)
    shared = (market_of(config.data), bars.symbols, span_of(bars, scored), run)
    return registry.record(make_trial(TrialKind.SEARCH, [run, base, values], *shared, facts={"values": values}) for values in tried)
