"""`ploutos run --plan`: what a run would do, take and write, said before anything is done."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ploutos.cli.shared import console
from ploutos.wording import show_seconds

if TYPE_CHECKING:
    from ploutos.advisor.config import LLMConfig
    from ploutos.preflight import Asked, Outlook

_BYTES_PER_TOKEN = 2.6
"""Of a prompt, which is numbers and JSON for the most part: measured with SmolLM2's tokenizer."""


def plan_of(outlook: "Outlook") -> dict[str, Any]:
    """The plan, JSON-able; `seconds` is None for a stage that this machine has not been timed in yet."""
    from ploutos.features.llm_features import market_features
    from ploutos.preflight import questions_of
    from ploutos.rates import measure_training, rates_for, work_of, workers_of
    from ploutos.settings import Settings
    from ploutos.walk_forward import fold_table

    config, folds, bars = outlook.config, outlook.folds, outlook.bars
    work, rates = work_of(outlook), rates_for(Settings().home, outlook)
    measured = None
    if "policy" not in rates:
        measured = measure_training(outlook)
        rates |= {"policy": 1 / measured, "hybrid": 1 / measured}
    asked = outlook.asked
    n_questions = len(questions_of(config, bars, market_features(bars), folds)) if asked is None else asked.questions
    return {
        "bars": {"source": bars.source, "n_bars": bars.n_bars, "symbols": list(bars.symbols)},
        "folds": fold_table(folds, bars.timestamps),
        "policies": {
            "n": len(folds) * config.training.members, "members": config.training.members, "steps": config.training.planned_timesteps,
            "hybrids": 2 * len(folds) * config.hybrid.members if config.with_hybrid else 0,
            "processes": workers_of(outlook),
        },
        "advisor": {
            "provider": config.llm.provider.value, "model": config.llm.model, "questions": n_questions, "mirrored": config.llm.mirrors,
            **({} if asked is None else cost_of(asked, config.llm)),
        },
        "disk_bytes": outlook.disk_bytes,
        "seconds": {name: units * rates[name] if name in rates else None for name, units in work.items()},
        "steps_per_second": measured or (1 / rates["policy"]),
        "measured_now": measured is not None,
    }  # fmt: skip


def cost_of(asked: "Asked", llm: "LLMConfig") -> dict[str, Any]:
    """About what a run's questions would cost a model that was asked none of them before, and which limits would end it, JSON-able.

    An answer counts as long as it may be; seconds are not known in advance.
    """
    from ploutos.llm.meter import price_of

    read, written = round(asked.prompt_bytes / _BYTES_PER_TOKEN), asked.n * llm.num_predict
    costs = {"questions": asked.n, "tokens": read + written, "money": price_of(read, written, llm.limits), "seconds": None}
    limits = {
        name: {"limit": most, "reached": None if (cost := costs[name]) is None else cost >= most}
        for name in costs
        if (most := getattr(llm.limits, name)) is not None
    }
    return {"texts": asked.texts, "questions_in_all": asked.n, "tokens": read + written, "money": costs["money"], "limits": limits}


def _say_costs(advisor: dict[str, Any], say: Callable[[str], None]) -> None:
    """What the questions come to, against every limit."""
    texts = f", {advisor['texts']:,} of them about texts" if advisor["texts"] else ""
    money = "" if advisor["money"] is None else f", {advisor['money']:.3g} at llm.limits.price_in and price_out"
    say(
        f"{advisor['questions_in_all']:,} questions in all{texts}: about {advisor['tokens']:,} tokens at most{money}; what was answered "
        "before costs nothing"
    )
    for name, each in advisor["limits"].items():
        ends = {
            True: "may end the run before everything is asked; answers are kept, and a run with a higher limit continues",
            False: "leaves room for everything",
        }
        said = ends.get(each["reached"], "may end the run: how long an answer takes is not known in advance; `ploutos llm check` times one")
        say(f"llm.limits.{name}={each['limit']:g} {said}")
    if not advisor["limits"]:
        say("no limit is set (llm.limits.questions, .tokens, .seconds, .money): everything is asked")


def print_plan(outlook: "Outlook", as_json: bool) -> None:
    """Print the plan of a run."""
    plan = plan_of(outlook)
    if as_json:
        print(json.dumps({"ok": True, **plan}))
        return
    terminal, policies, advisor = console(), plan["policies"], plan["advisor"]

    def say(text: str) -> None:
        terminal.print(text, highlight=False, soft_wrap=True)

    bars = plan["bars"]
    say(f"{bars['n_bars']:,} bars of {len(bars['symbols'])} symbols ({bars['source']}): {', '.join(bars['symbols'][:10])}")
    table = Table()
    for name in plan["folds"][0]:
        table.add_column(name)
    for row in plan["folds"]:
        table.add_row(*row.values())
    terminal.print(table)
    hybrids = f", then {policies['hybrids']} hybrid policies" if policies["hybrids"] else ""
    say(f"{policies['n']} policies ({policies['members']} a fold) of {policies['steps']:,} steps{hybrids}; {policies['processes']} at once")
    asked = "a fixed rule that costs nothing" if advisor["provider"] == "mock" else advisor["model"]
    again = ", and those of the test ranges again on the mirrored market" if advisor["mirrored"] else ""
    say(f"{advisor['questions']:,} questions to {advisor['provider']} ({asked}){again}")
    if "limits" in advisor:
        _say_costs(advisor, say)
    say(f"about {plan['disk_bytes'] / (1 << 20):,.0f} MiB on disk")
    known = [seconds for seconds in plan["seconds"].values() if seconds is not None]
    untimed = [name for name, seconds in plan["seconds"].items() if seconds is None]
    rate = f"{plan['steps_per_second']:,.0f} steps/s a process"
    if not plan["measured_now"]:
        say(f"about {show_seconds(sum(known))}, at the rates of the last runs on this machine (training: {rate})")
    else:
        say(f"training takes about {show_seconds(sum(known))} at {rate}, measured just now")
    if untimed:
        say(f"not timed on this machine yet, so not counted: {', '.join(untimed)}; a first run measures them")
    say("Nothing was done. What is in the store already will not be computed again, and takes no time.")
