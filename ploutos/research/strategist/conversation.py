"""What a strategist is told and what it may answer: one JSON object each way.

A prompt names no asset and no date unless `llm.reveal` is set, and no price at all. It holds nothing that differs between two runs of the
same search, such as a time, so that the cassette answers a search that was killed and begun again. What the model says of its own success
has no field to stand in: scores come from backtests alone.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from ploutos.advisor.config import LLMConfig
from ploutos.llm.backends.base import Message, Messages, Reply, Schema
from ploutos.llm.client import REMINDER
from ploutos.research.strategist.executor import BacktestExecutor, Evaluation
from ploutos.seeding import generator
from ploutos.strategies.rules import Rule, Values

TEMPLATE = "strategist-1"
_REASONING = 300
_TEMPLATE_BYTES = 64
_SYSTEM = """You tune the parameters of a trading rule on a market you are not told. Answer with one JSON object: reasoning (30 words at
most), action, and what the action needs.
continue: next_parameters, a value for every parameter. change_direction: the same, far from what was tried.
sweep: ranges, min, max and step of the parameters to vary; the others stay as in the best; the best of the grid is tested.
accept: the best so far will do. stop: nothing better is to be found.
walk_forward is the yearly Sharpe ratio net of costs on bars that the refit has not seen, and counts. in_sample is on all of them. failed
means that there is no score. sensitivity is the change of in_sample for one step down or up. Values out of bounds are clipped, repeated
sets are of no use, and code decides what is accepted."""
Action = Literal["continue", "accept", "stop", "change_direction", "sweep"]
_ACTIONS = {"approve": "accept", "iterate": "continue", "propose": "continue", "change direction": "change_direction"}


class StepRange(BaseModel):
    """Values of one parameter in a sweep."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    min: float
    max: float
    step: float


class Decision(BaseModel):
    """What a strategist may say; read with some tolerance for how models write it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoning: str = Field(max_length=_REASONING)
    action: Action
    next_parameters: Any = None
    ranges: Any = None

    @model_validator(mode="before")
    @classmethod
    def _as_models_write_it(cls, said: Any) -> Any:
        """Names in any case, further fields left out, reasoning cut or missing."""
        if not isinstance(said, dict):
            return said
        named = {str(name).lower(): value for name, value in said.items()}
        reasoning = named.get("reasoning")
        known = {name: named[name] for name in ("action", "next_parameters", "ranges") if name in named}
        return known | {"reasoning": reasoning[:_REASONING] if isinstance(reasoning, str) else ""}

    @field_validator("action", mode="before")
    @classmethod
    def _synonym(cls, said: Any) -> Any:
        word = said.strip().lower() if isinstance(said, str) else said
        return _ACTIONS.get(word, word) if isinstance(word, str) else word


class _Named(BaseModel):
    """Something per parameter; what is not a parameter is kept, so that it can be spoken of."""

    model_config = ConfigDict(frozen=True, extra="allow")


def decision_form(rule: Rule) -> type[Decision]:
    """The form of an answer about one rule: its parameters by name, each of them a number or left out."""
    fields: dict[str, Any] = {name: (float | None, None) for name in rule.parameters}
    steps: dict[str, Any] = {name: (StepRange | None, None) for name in rule.parameters}
    values: Any = create_model("Parameters", __base__=_Named, **fields)
    ranges: Any = create_model("Ranges", __base__=_Named, **steps)
    return create_model("Decision", __base__=Decision, next_parameters=(values | None, None), ranges=(ranges | None, None))


def given(part: Any) -> dict[str, Any]:
    """What was said of next_parameters or ranges, names in order; what was left out is left out."""
    return {} if part is None else {name: value for name, value in part if value is not None}


# --- the prompt


def shown_evaluation(found: Evaluation) -> dict[str, Any]:
    """An evaluation as a prompt has it: rounded, and without a score where there is none."""
    if found.failed:
        return {"parameters": found.values, "failed": found.failed}
    numbers = {"walk_forward": found.walk_forward, "in_sample": found.in_sample, "drawdown": -found.max_drawdown}
    folds = [round(each, 2) if each == each else None for each in found.by_fold]
    return {"parameters": found.values, **{name: round(each, 2) for name, each in numbers.items()}, "folds": folds, "fills": found.n_fills}


def make_prompt(
    executor: BacktestExecutor, shown: Sequence[Evaluation], best: Evaluation | None, notes: Sequence[str], left: Mapping[str, int],
    config: LLMConfig,
) -> Messages:  # fmt: skip
    """The next question.

    Args:
        shown: of every proposal so far, the rule's defaults first.
        best: of these.
        notes: what became of the last answer.
        left: of every limit.
    """
    rule, spec = executor.rule, executor.spec
    body: dict[str, Any] = {
        "rule": rule.about or rule.name,
        "parameters": {name: {"min": each.low, "max": each.high, "step": each.step} for name, each in rule.parameters.items()},
        "constraints": [f"{low} < {high}" for low, high in rule.increasing],
        "market": _market(executor, config.reveal),
        "needed": {"walk_forward": spec.min_sharpe, "drawdown_at_most": spec.max_drawdown, "fills": spec.min_fills},
        "left": dict(left),
        "best": shown_evaluation(best) if best else None,
        "sensitivity_of_best": _rounded(best.sensitivity) if best else {},
        "notes": list(notes),
        "history": [shown_evaluation(each) for each in shown[-spec.shown :]],
    }
    room = config.num_ctx - config.num_predict - _TEMPLATE_BYTES - len(REMINDER.content.encode()) - len(_SYSTEM.encode())
    while len(text := json.dumps(body, separators=(",", ":"))) > room and body["history"]:
        body["history"].pop(0)
    return Message("system", _SYSTEM), Message("user", text)


def _market(executor: BacktestExecutor, reveal: bool) -> dict[str, Any]:
    bars, part = executor.bars, executor.development
    seen: dict[str, Any] = {"bars": part.n_bars, "hours_per_bar": round(bars.timeframe.total_seconds() / 3600, 3)}
    seen |= {"assets": bars.n_symbols, "shorts": executor.env.allow_short}
    if reveal:
        seen |= {"symbols": list(bars.symbols), "from": str(bars.timestamps[part.start])[:10], "to": str(bars.timestamps[part.stop])[:10]}
    return seen


def _rounded(sensitivity: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {sign: round(change, 2) for sign, change in steps.items()} for name, steps in sensitivity.items()}


class MockStrategist:
    """A fixed rule in a model's place: one step along the greatest sensitivity, else a random set. Not a language model; it says so."""

    name = "mock strategist (a fixed rule, not a language model)"
    is_mock = True

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def digest(self) -> str:
        return ""

    def complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        """The rule's answer: a function of the prompt."""
        body = json.loads(messages[-1].content)
        tried = [each["parameters"] for each in body["history"]]
        moves = sorted(
            ((gain, name, sign) for name, steps in body["sensitivity_of_best"].items() for sign, gain in steps.items() if gain > 0),
            reverse=True,
        )
        for _, name, sign in moves:
            each = self._rule.parameters[name]
            best: Values = body["best"]["parameters"]
            moved = best | {name: each.snap(best[name] + (each.step if sign == "+" else -each.step))}
            if moved not in tried and not self._rule.broken(moved):
                return self._reply("continue", moved, f"one step of {name} up the slope")
        random = generator(len(tried), "mock strategist", body["left"]["questions"])
        for _ in range(100):
            moved = {name: each.value(int(random.integers(each.size))) for name, each in self._rule.parameters.items()}
            if moved not in tried and not self._rule.broken(moved):
                return self._reply("change_direction", moved, "no slope left: trying somewhere else")
        return self._reply("stop", None, "nothing left to try")

    def _reply(self, action: Action, values: Values | None, reasoning: str) -> Reply:
        return Reply(json.dumps({"reasoning": f"mock rule: {reasoning}", "action": action, "next_parameters": values, "ranges": None}))
