"""Phase 1, where a run has texts: they are read by the language model, and stand beside the features of prices. Phase 3: their controls."""

from pathlib import Path
from typing import Any

import pandas as pd
from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import known_cutoff
from ploutos.advisor.texts import READINGS, make_reader, read_texts, scores_of, with_texts
from ploutos.config import PipelineConfig
from ploutos.evaluation.text_controls import TEXT_CONTROLS, TextControls, text_controls
from ploutos.features.build import FEATURES, FeatureSet
from ploutos.market.bars import BARS
from ploutos.market.sources import files
from ploutos.run_refs import RunRefs
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.strategies.regression import REGRESSION
from ploutos.walk_forward import FOLDS
from tasks.advice import slot_of
from tasks.progress_log import questions_logged
from tasks.stage import run_stage

_DRAWS = 200
"""Shuffles of the readings where the advice is not ranked."""


@task(name="read-texts", cache_policy=NO_CACHE)
def readings_of(store: Store, bars: Ref, file: Path, config: LLMConfig) -> State[Ref]:
    """Ask the language model once about every text that a bar can know; one without an answer ends the run, and the rest is kept."""
    logger, reader = get_run_logger(), make_reader(config, Settings())

    def compute() -> pd.DataFrame:
        panel = store.load(bars, BARS)
        return reader.read(read_texts(file, panel.symbols), panel)

    asked = {"llm": config.reading_fields(), "digest": reader.digest, "template": reader.template}
    with questions_logged(logger, "readings"):
        state = run_stage(store, "readings", READINGS, asked, [bars.sha256, *files.digests(file)], compute, needs=slot_of(config))
    readings = store.load(state.result(), READINGS)
    logger.info("%s read %d texts, %d abstentions, %d calls", reader.name, len(readings), readings["abstained"].sum(), reader.calls)
    return state


@task(name="features-of-texts", cache_policy=NO_CACHE)
def texts_beside(store: Store, bars: Ref, features: Ref, readings: Ref, stands_bars: int) -> State[Ref]:
    """The features of prices with those of texts behind them."""

    def compute() -> FeatureSet:
        return with_texts(store.load(features, FEATURES), scores_of(store.load(readings, READINGS)), store.load(bars, BARS), stands_bars)

    upstream = [bars.sha256, features.sha256, readings.sha256]
    return run_stage(store, "text-features", FEATURES, {"stands_bars": stands_bars}, upstream, compute)


@task(name="text-controls", cache_policy=NO_CACHE)
def text_controls_of(store: Store, refs: RunRefs, config: PipelineConfig) -> State[Ref]:
    """Hold the readings, and the supervised models that learnt from them, against a bag of words and against shuffled texts."""
    readings, digests = refs.require("readings"), [ref.sha256 for models in refs.regressions for ref in models]
    known = known_cutoff(config.llm, str(store.load(readings, READINGS).attrs["digest"]), Settings().cutoffs_root)
    evaluation = config.evaluation

    def compute() -> TextControls:
        bars, features, folds = store.load(refs.bars, BARS), store.load(refs.features, FEATURES), store.load(refs.folds, FOLDS)
        models = [[store.load(ref, REGRESSION) for ref in kinds] for kinds in refs.regressions]
        return text_controls(
            bars, features, store.load(readings, READINGS), folds, models, config.env, config.regression, config.data.texts_stand_bars,
            known, evaluation, config.seed, evaluation.rank_draws or _DRAWS,
        )  # fmt: skip

    settings: dict[str, Any] = {name: getattr(config, name).model_dump(mode="json") for name in ("env", "regression")}
    settings |= {"bootstrap": evaluation.model_dump(mode="json", include={"replications", "confidence"}), "draws": evaluation.rank_draws}
    settings |= {"stands_bars": config.data.texts_stand_bars, "known": known.model_dump(mode="json"), "seed": config.seed}
    upstream = [refs.bars.sha256, refs.features.sha256, refs.folds.sha256, readings.sha256, *digests]
    return run_stage(store, "texts", TEXT_CONTROLS, settings, upstream, compute)
