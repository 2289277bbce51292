"""The search: a model proposes, code runs, refits and scores, until the model or a limit ends it.

Code has the last word at every turn. What is out of bounds is clipped, and said; what breaks a constraint, lacks a parameter or was tried
before is refused, and said; an acceptance that the criteria do not allow is overruled. The best is chosen by score, not by the model. A
server that does not answer ends the search with an error: begun again, the cassette answers all that was asked before.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ploutos.advisor.config import LLMConfig
from ploutos.errors import ConfigError, LLMUnavailable
from ploutos.llm.client import LLMClient, Outcome, Query
from ploutos.llm.gpu_unload import GPUMemoryManager
from ploutos.research.strategist.conversation import TEMPLATE, Decision, decision_form, given, make_prompt
from ploutos.research.strategist.executor import BacktestExecutor, Evaluation
from ploutos.research.strategist.spec import StrategistSpec
from ploutos.research.sweep import Sweep, grid_sets, sample_sets
from ploutos.seeding import seed_integer
from ploutos.strategies.rules import Rule, Values

logger = logging.getLogger(__name__)
_RAW = 400


class StrategistClient(LLMClient[LLMConfig]):
    """A client whose answers are decisions about a rule."""

    template = TEMPLATE


@dataclass(frozen=True)
class Iteration:
    """One turn.

    Attributes:
        number: 0 for the rule's defaults, where the search starts.
        action: what the model wanted; `unreadable` where it cannot be told.
        reasoning: in the model's words; evidence of nothing.
        evaluation: of what was run; None where nothing was.
        shown: what the model was told of it: another, random set's evaluation in the control with exchanged feedback.
        notes: what code did about the answer.
        budget: sets that the proposal was picked from: 1, or those of a sweep.
        swept: the sweep.
        tokens, seconds: of the question.
        raw: the answer, cut, where it could not be used.
    """

    number: int
    action: str
    reasoning: str = ""
    evaluation: Evaluation | None = None
    shown: Evaluation | None = None
    notes: tuple[str, ...] = ()
    budget: int = 1
    swept: Sweep | None = None
    tokens: int = 0
    seconds: float = 0.0
    raw: str = ""


@dataclass(frozen=True)
class Search:
    """A search that has ended.

    Attributes:
        iterations: all turns, the start first.
        ended: why it ended, in words.
        best: the proposal that is put forward; None where the model proposed nothing that has a score.
        n_questions, n_tokens, seconds: what it took.
    """

    iterations: tuple[Iteration, ...]
    ended: str
    best: Evaluation | None
    n_questions: int
    n_tokens: int
    seconds: float

    @property
    def proposals(self) -> tuple[Iteration, ...]:
        """Turns in which something of the model's was run."""
        return tuple(each for each in self.iterations[1:] if each.evaluation is not None)


@dataclass
class _State:
    """Where a search stands."""

    iterations: list[Iteration]
    unusable: int = 0
    stale: int = 0
    n_sweeps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    ended: str = ""
    last_notes: tuple[str, ...] = field(default=())

    @property
    def n_questions(self) -> int:
        return len(self.iterations) - 1

    @property
    def n_proposals(self) -> int:
        return sum(each.evaluation is not None for each in self.iterations[1:])

    def shown(self) -> list[Evaluation]:
        return [each.shown for each in self.iterations if each.shown is not None]


class AutonomousStrategist:
    """Asks a model for parameters, again and again.

    Args:
        llm: whom to ask.
        memory: takes the model out of the GPU while backtests run, and brings it back for the next question; None does neither.
        on_iteration: is told every turn as it ends.
        exchange: seed of random sets whose scores the model is told in place of its own proposals'; None tells it the truth.
    """

    def __init__(
        self, llm: LLMClient[LLMConfig], spec: StrategistSpec, memory: GPUMemoryManager | None = None,
        on_iteration: Callable[[Iteration], None] | None = None, exchange: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.llm, self.spec, self.memory = llm, spec, memory
        self._on_iteration, self._exchange, self._clock = on_iteration, exchange, clock

    def optimize(self, executor: BacktestExecutor) -> Search:
        """Search until the model or a limit ends it.

        Raises:
            LLMUnavailable: the server did not answer; what was asked before is on the cassette.
            LLMError: a prompt does not fit, or a request is refused.
        """
        start = self._run_backtest_with_gpu_optimization(lambda: executor.evaluate(executor.rule.defaults))
        state = _State([])
        self._note(state, Iteration(0, "start", evaluation=start, shown=start))
        while not state.ended:
            state.ended = self._limit_reached(state)
            if not state.ended:
                self._turn(state, executor)
        logger.info("the search ended after %d questions: %s", state.n_questions, state.ended)
        best = best_of(executor, [each.evaluation for each in state.iterations[1:] if each.evaluation is not None])
        return Search(tuple(state.iterations), state.ended, best, state.n_questions, state.tokens, state.seconds)

    def _limit_reached(self, state: _State) -> str:
        spec = self.spec
        limits = {
            f"{spec.max_iterations} proposals were run (max_iterations)": state.n_proposals >= spec.max_iterations,
            f"{spec.max_questions} questions were asked (max_questions)": state.n_questions >= spec.max_questions,
            f"{state.tokens} tokens were used (max_tokens={spec.max_tokens})": state.tokens >= spec.max_tokens,
            f"{state.seconds:.0f} s were used (max_seconds={spec.max_seconds:g})": state.seconds >= spec.max_seconds,
            f"{spec.max_unusable} answers in a row could not be used (max_unusable)": state.unusable >= spec.max_unusable,
            f"{spec.patience} proposals in a row improved nothing (patience)": state.stale >= spec.patience,
        }
        return next((why for why, reached in limits.items() if reached), "")

    def _turn(self, state: _State, executor: BacktestExecutor) -> None:
        """One question, what it leads to, and what it cost."""
        outcome = self._ask(state, executor)
        started, before = self._clock(), best_of(executor, state.shown())
        iteration = self._act(state, executor, outcome)
        state.seconds += outcome.seconds + self._clock() - started
        state.tokens += outcome.prompt_tokens + outcome.tokens
        state.unusable = 0 if iteration.evaluation is not None else state.unusable + 1
        if iteration.evaluation is not None:
            now = best_of(executor, [*state.shown(), *([iteration.shown] if iteration.shown else [])])
            gained = now is not None and (before is None or now.score >= before.score + self.spec.min_improvement)
            state.stale = 0 if gained else state.stale + 1
        self._note(state, iteration)

    def _ask(self, state: _State, executor: BacktestExecutor) -> Outcome[Any]:
        spec = self.spec
        left = {
            "proposals": spec.max_iterations - state.n_proposals, "questions": spec.max_questions - state.n_questions,
            "sweeps": spec.max_sweeps - state.n_sweeps,
        }  # fmt: skip
        shown = state.shown()
        prompt = make_prompt(executor, shown, best_of(executor, shown), state.last_notes, left, self.llm.config)
        if self.memory is not None:
            self.memory.reload()
        outcome = self.llm.query(Query(prompt, decision_form(executor.rule)))
        if outcome.unanswered:
            raise LLMUnavailable(f"{outcome.why}; {state.n_questions} answers are kept; run again to continue")
        return outcome

    def _act(self, state: _State, executor: BacktestExecutor, outcome: Outcome[Any]) -> Iteration:
        decision: Decision | None = outcome.answer
        made = Iteration(
            len(state.iterations), decision.action if decision else "unreadable", decision.reasoning if decision else "",
            tokens=outcome.prompt_tokens + outcome.tokens, seconds=outcome.seconds,
        )  # fmt: skip
        if decision is None:
            return replace(made, notes=(f"your answer was of no use: {outcome.why}",), raw=outcome.raw[:_RAW])
        if decision.action == "stop":
            state.ended = "the model stopped"
            return made
        if decision.action == "accept":
            return self._accept(state, executor, made)
        run = self._sweep if decision.action == "sweep" else self._propose
        return run(state, executor, decision, made)

    def _accept(self, state: _State, executor: BacktestExecutor, made: Iteration) -> Iteration:
        """End with the best proposal, if the criteria allow it."""
        best = best_of(executor, [each.shown for each in state.iterations[1:] if each.shown is not None])
        faults = ("you have proposed nothing that has a score",) if best is None else executor.faults(best)
        if not faults:
            state.ended = "the model accepted its best proposal, and the criteria allow it"
            return made
        return _with_notes(made, (f"not accepted: {'; '.join(faults)}",))

    def _propose(self, state: _State, executor: BacktestExecutor, decision: Decision, made: Iteration) -> Iteration:
        values, notes = lawful_values(executor.rule, given(decision.next_parameters))
        if values is None:
            return _with_notes(made, notes)
        return self._run(state, executor, values, notes, made)

    def _sweep(self, state: _State, executor: BacktestExecutor, decision: Decision, made: Iteration) -> Iteration:
        if state.n_sweeps >= self.spec.max_sweeps:
            return _with_notes(made, (f"refused: {self.spec.max_sweeps} sweeps were run (max_sweeps)",))
        best = best_of(executor, state.shown())
        around = best.values if best else executor.rule.defaults
        sets, notes = sweep_sets(executor.rule, given(decision.ranges), around, self.spec.max_combinations)
        if not sets:
            return _with_notes(made, notes)
        state.n_sweeps += 1
        swept = self._run_backtest_with_gpu_optimization(lambda: executor.in_sample(sets))
        order = np.argsort(-np.nan_to_num(swept.sharpe, nan=-np.inf), kind="stable")
        tried = _tried(state)
        fresh = [sets[k] for k in order.tolist() if tuple(sets[k].values()) not in tried and math.isfinite(swept.sharpe[k])]
        notes += (f"{len(sets)} sets were swept, and the best of them that was not tried before was tested",)
        if not fresh:
            return _with_notes(made, (*notes, "refused: the sweep holds nothing new that ever traded"), budget=len(sets), swept=swept)
        return self._run(state, executor, fresh[0], notes, _with_notes(made, (), budget=len(sets), swept=swept))

    def _run(self, state: _State, executor: BacktestExecutor, values: Values, notes: tuple[str, ...], made: Iteration) -> Iteration:
        if tuple(values.values()) in _tried(state):
            return _with_notes(made, (*notes, f"refused: {describe(values)} was tried before"))
        evaluation = self._run_backtest_with_gpu_optimization(lambda: executor.evaluate(values))
        shown = evaluation if self._exchange is None else self._exchanged(executor, evaluation, made.number)
        return replace(made, evaluation=evaluation, shown=shown, notes=(*made.notes, *notes))

    def _exchanged(self, executor: BacktestExecutor, evaluation: Evaluation, number: int) -> Evaluation:
        """The same proposal with the scores of a random set."""
        other = sample_sets(executor.rule, "random", 1, seed_integer(self._exchange or 0, "exchange", number))[0]
        return replace(executor.evaluate(other), values=evaluation.values)

    def _run_backtest_with_gpu_optimization(self, work: Callable[[], Any]) -> Any:
        """Run backtests, without the model in the GPU where that is wanted."""
        with self.memory.freed("backtests") if self.memory is not None else nullcontext():
            return work()

    def _note(self, state: _State, iteration: Iteration) -> None:
        """Keep a turn, and say it."""
        state.iterations.append(iteration)
        state.last_notes = iteration.notes
        logger.info("iteration %d: %s", iteration.number, one_line(iteration))
        if self._on_iteration is not None:
            self._on_iteration(iteration)


def _with_notes(made: Iteration, notes: tuple[str, ...], **more: Any) -> Iteration:
    return replace(made, notes=(*made.notes, *notes), **more)


def _tried(state: _State) -> set[tuple[float, ...]]:
    return {tuple(each.evaluation.values.values()) for each in state.iterations if each.evaluation is not None}


def best_of(executor: BacktestExecutor, found: Sequence[Evaluation]) -> Evaluation | None:
    """The best score among what breaks no limit, else among all; None where nothing has a score."""
    scored = [each for each in found if not each.failed]
    return max(scored, key=lambda each: (not executor.faults(each), each.score), default=None)


def lawful_values(rule: Rule, said: dict[str, Any]) -> tuple[Values | None, tuple[str, ...]]:
    """What was proposed, on the grid and within bounds, and what was changed; None where it is refused."""
    numbers = {name: float(value) for name, value in said.items() if isinstance(value, (int, float)) and math.isfinite(value)}
    if missing := [name for name in rule.parameters if name not in numbers]:
        return None, (f"refused: next_parameters lacks a number for {', '.join(missing)}",)
    unknown = [name for name in said if name not in rule.parameters]
    notes = [f"{', '.join(unknown)} is not a parameter and was left out"] if unknown else []
    values = {}
    for name, each in rule.parameters.items():
        values[name] = each.snap(numbers[name])
        if not each.low <= numbers[name] <= each.high:
            notes.append(f"{name} {numbers[name]:g} was clipped to {values[name]:g}")
    if fault := rule.broken(values):
        return None, (*notes, f"refused: {fault}")
    return values, tuple(notes)


def sweep_sets(rule: Rule, said: dict[str, Any], around: Values, most: int) -> tuple[tuple[Values, ...], tuple[str, ...]]:
    """Sets of a sweep that was asked for, on the grid and within bounds; none, and why, where it is refused."""
    axes: dict[str, Sequence[float]] = {name: [value] for name, value in around.items()}
    asked = {name: each for name, each in said.items() if name in rule.parameters}
    if not asked:
        return (), ("refused: ranges names no parameter",)
    for name, wanted in asked.items():
        each = rule.parameters[name]
        if not (math.isfinite(wanted.min) and math.isfinite(wanted.max) and wanted.min <= wanted.max and wanted.step > 0):
            return (), (f"refused: the range of {name} needs min <= max and a step above 0",)
        low, high = each.snap(wanted.min), each.snap(wanted.max)
        stride = max(round(wanted.step / each.step), 1) if math.isfinite(wanted.step) else each.size
        first, last = round((low - each.low) / each.step), round((high - each.low) / each.step)
        axes[name] = [each.value(k) for k in range(first, last + 1, stride)]
    combinations = math.prod(map(len, axes.values()))
    notes = (f"{combinations} combinations were thinned out to {most} (max_combinations)",) if combinations > most else ()
    try:
        return grid_sets(rule, axes, most), notes
    except ConfigError as error:
        return (), (*notes, f"refused: {error}")


def describe(values: Values) -> str:
    """Values in one phrase."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def one_line(iteration: Iteration) -> str:
    """A turn in one line of a log."""
    found = iteration.evaluation
    if found is None:
        outcome = "nothing was run"
    elif found.failed:
        outcome = f"{describe(found.values)}: failed, {found.failed}"
    else:
        outcome = f"{describe(found.values)}: walk-forward Sharpe ratio {found.walk_forward:.2f}, drawdown {-found.max_drawdown:.1%}"
    return "; ".join([f"{iteration.action}: {outcome}", *iteration.notes])
