"""`ploutos llm`: see what the advisor says before a run depends on it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ploutos.cli.shared import JSON_OPTION, MARKET_OPTION, PATH_OPTION, SOURCE_OPTION, data_overrides, fail
from ploutos.errors import PloutosError

app = typer.Typer(no_args_is_help=True, help="Check and probe the advisor, and let it read texts.")


@app.callback()
def _llm() -> None:
    """The advisor."""


@app.command()
def check(
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset full.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as llm.provider=ollama; repeatable.")] = None,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Send one small request to the advisor and show what came back: model, seconds, tokens, decision."""
    from ploutos.advisor.advisor import advice_of
    from ploutos.advisor.check import check_advisor
    from ploutos.config import load_config
    from ploutos.settings import Settings

    try:
        result = check_advisor(load_config("full", config_file, settings or []).llm, Settings())
    except PloutosError as error:
        raise fail(error, as_json) from error
    outcome, advice = result.outcome, advice_of(result.outcome)
    if as_json:
        spent = {"prompt_tokens": outcome.prompt_tokens, "tokens": outcome.tokens, "seconds": outcome.seconds}
        answer = {"model": result.model, "digest": result.digest, "abstained": outcome.abstained, "said": outcome.raw}
        answer["asked_with"] = result.asked_with
        answer |= advice.model_dump() | spent
        cache = {"hits": result.cache.hits, "misses": result.cache.misses, "hit_rate": result.cache.hit_rate}
        print(json.dumps({"ok": not outcome.abstained, **answer, "feature_cache": cache}))
    else:
        print(f"model: {result.model} {result.digest[:12]}".rstrip())
        if result.asked_with:
            print(f"asked with: {result.asked_with}")
        print(f"took: {outcome.seconds:.1f} s, {outcome.prompt_tokens} tokens read, {outcome.tokens} written")
        print(f"feature cache: {result.cache}")
        print(f"said: {outcome.raw!r}")
        print(f"decision: {advice.action}, confidence {advice.confidence} of 100: {advice.reason}")
    if outcome.abstained:
        raise typer.Exit(1)


@app.command()
def probe(
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML of the planned run, on top of the preset full.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as llm.provider=ollama; repeatable.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="How many questions of each of the two kinds to ask.")] = 200,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Ask the model which asset blind prompts are about and what it recalls of past months; record both in the cutoff store.

    Ends with code 1 when it recognises what it must not.
    """
    from ploutos.advisor.leakage_probe import probe_run
    from ploutos.config import load_config
    from ploutos.reporting.probe import describe, faults
    from ploutos.settings import Settings

    try:
        config = load_config("full", config_file, [*(settings or []), *data_overrides(source, path, market)])
        record, probed = probe_run(config.llm, config.data, config.features, config.folds, Settings(), questions, config.seed)
    except PloutosError as error:
        raise fail(error, as_json) from error
    found = faults(probed, config.llm.max_reidentification)
    if as_json:
        who = {"provider": record.provider, "model": record.model, "digest": record.digest, "effective_cutoff": record.cutoff}
        print(json.dumps({"ok": not found, **who, "faults": found, **probed.model_dump(mode="json")}))
    else:
        print(f"model: {record.model} {record.digest[:12]}".rstrip())
        print("\n".join([*describe(probed), *(f"FAIL {sentence}" for sentence in found)]))
    if found:
        raise typer.Exit(1)


@app.command()
def texts(
    file: Annotated[
        Path, typer.Argument(help="Parquet or CSV of symbol, available_at, source and text; also company if names are to be hidden.")
    ],
    source: Annotated[str | None, SOURCE_OPTION] = None,
    path: Annotated[Path | None, PATH_OPTION] = None,
    market: Annotated[str | None, MARKET_OPTION] = None,
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML of the planned run, on top of the preset full.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, such as llm.provider=ollama; repeatable.")] = None,
    horizon: Annotated[int, typer.Option(min=1, help="Bars from a decision to the close at which it is judged.")] = 5,
    draws: Annotated[int, typer.Option(min=20, help="Number of shuffles of the readings to compare with.")] = 200,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("texts.html"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let the model read dated texts, and hold its readings against a bag of words and against shuffled texts.

    The readings are written beside the page as parquet.
    """
    from ploutos.advisor.config import Mask
    from ploutos.advisor.cutoff import known_cutoff
    from ploutos.advisor.texts import make_reader, read_texts
    from ploutos.config import load_config
    from ploutos.evaluation.text_skill import text_skill
    from ploutos.market.loader import load
    from ploutos.reporting.texts_page import render_texts, text_sentences
    from ploutos.settings import Settings
    from ploutos.store import write_text

    try:
        config, paths = load_config("full", config_file, [*(settings or []), *data_overrides(source, path, market)]), Settings()
        reader = make_reader(config.llm, paths)
        bars = load(config.data, paths.datasets_root)
        readings = reader.read(read_texts(file, bars.symbols), bars)
        known = known_cutoff(config.llm, reader.digest, paths.cutoffs_root)
        skill = text_skill(
            readings, bars, horizon, known, config.evaluation, config.seed, model=reader.name,
            reveal=config.llm.hidden is not Mask.ALL, draws=draws,
        )  # fmt: skip
        write_text(out, render_texts(skill))
        readings.to_parquet(out.with_suffix(".parquet"), index=False)
    except PloutosError as error:
        raise fail(error, as_json) from error
    if as_json:
        print(json.dumps({"ok": True, "sentences": text_sentences(skill), "page": str(out), "skill": skill.model_dump(mode="json")}))
    else:
        print("\n".join([*text_sentences(skill), f"page: {out}"]))
