"""`ploutos llm`: see what the advisor says before a run depends on it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ploutos.cli.shared import JSON_OPTION, MARKET_OPTION, PATH_OPTION, SOURCE_OPTION, data_overrides, fail
from ploutos.errors import PloutosError

app = typer.Typer(no_args_is_help=True, help="The advisor.")


@app.callback()
def _llm() -> None:
    """The advisor."""


@app.command()
def check(
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset full.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, as llm.provider=ollama; repeatable.")] = None,
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
    config_file: Annotated[Path | None, typer.Option("--config", help="YAML on top of the preset full: that of the planned run.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting, as llm.provider=ollama; repeatable.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="Questions of each of the two kinds.")] = 200,
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Ask the model which asset blind prompts are about and what it recalls of past months; record both in the cutoff store.

    Ends with code 1 when it recognises what it must not.
    """
    from ploutos.advisor.leakage_probe import describe, faults, probe_run
    from ploutos.config import load_config
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
