"""What a search was worth: its find against the last window and against searches on the same budget without a model.

Every set that was looked at is a trial in the registry, and the find is judged deflated by all of them, whoever tried them. The last window
is opened once per search; each look at it is a trial there. Random searches give the rank: of 100 that no model guided, how many ended in
as good a score. Whatever the model said of its find is not read here.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from pydantic import Field

from ploutos.evaluation.metrics import to_date
from ploutos.evaluation.overfitting import chance_deviation, deflated_sharpe, sharpe_moments
from ploutos.evaluation.significance import Estimate, Statistic, estimate, matched_volatility, mean
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.llm.gpu_unload import UnloadRecord
from ploutos.registry.trials import Trial, TrialKind, TrialRegistry, make_trial
from ploutos.research.strategist.executor import BacktestExecutor, Evaluation, LastWindow
from ploutos.research.strategist.loop import Iteration, Search, best_of, describe
from ploutos.research.sweep import Sweeper, sample_sets, search_sets
from ploutos.seeding import seed_integer
from ploutos.specs import Spec
from ploutos.store import digest_of
from ploutos.strategies.rules import Rule, Values
from ploutos.types import FloatArray, TimeArray

_ROUND = 12


class Control(StrEnum):
    """A search on the same budget, without the model or without the truth."""

    RANDOM = "random"
    """Sets drawn by chance."""
    OPTUNA = "optuna"
    """Sets that Optuna proposes."""
    EXCHANGED = "exchanged feedback"
    """The same model, told the scores of other sets."""


class DoubtKind(StrEnum):
    """What stands against a find."""

    NO_FIND = "no find"
    LIMIT = "limit"
    """It breaks a limit of what may be accepted."""
    LUCK = "luck"
    """Its Sharpe ratio may be luck, after all that was tried."""
    LUCK_IN_WINDOW = "luck in window"
    """The same on the last window."""
    MARKET = "market"
    """Its lead over buying and holding is within chance."""
    REVEALED = "revealed"
    """Prompts named assets and dates."""
    REMEMBERED = "remembered"
    """The model may remember sessions of the last window."""


@dataclass(frozen=True)
class Doubt:
    """One thing that stands against a find; its numbers are in the result.

    Attributes:
        needed: probability that is asked for, where one is.
        limit: which limit is broken, as the model was told.
    """

    kind: DoubtKind
    needed: float = math.nan
    limit: str = ""


class IterationRow(Spec):
    """One turn, for people and files."""

    number: int
    """0 is the rule's defaults."""
    action: str
    """What the model wanted."""
    parameters: dict[str, float] | None
    """What was run."""
    failed: str = ""
    """Why it has no score."""
    walk_forward: float | None = None
    """Annualised Sharpe ratio of the stitched tests."""
    in_sample: float | None = None
    """The same over all development bars."""
    max_drawdown: float | None = None
    """Of the stitched tests, decimal."""
    n_fills: int = 0
    """In the tests."""
    swept: int = 0
    """Sets of a sweep that it was picked from."""
    notes: tuple[str, ...] = ()
    """What code did about the answer."""
    reasoning: str = ""
    """In the model's words; evidence of nothing."""
    tokens: int = 0
    """Read and written."""
    seconds: float = 0.0
    """Of the answer."""


class WindowRow(Spec):
    """A strategy on the last window."""

    parameters: dict[str, float] | None
    """As refitted; None for a strategy without."""
    sharpe: float | None
    """Annualised."""
    total_return: float
    """Decimal."""
    max_drawdown: float
    """Decimal, <= 0."""
    n_fills: int
    """Orders and stops that were filled."""


class ControlRow(Spec):
    """Searches on the same budget, without the model or without the truth."""

    name: Control
    """Which."""
    n_searches: int
    """How many."""
    walk_forward: float | None
    """Median of the scores that they ended with."""
    sharpe: float | None
    """Median Sharpe ratio of their finds on the last window."""
    p: float | None
    """Chance that such a search ends with as good a score as the model's: its rank among them."""
    p_window: float | None
    """The same on the last window."""
    lead: float | None = None
    """Yearly mean return of the find less the control's on the last window; of a single control."""
    lead_p: float | None = None
    """Of no lead, both sides."""


class StrategistResult(Spec):
    """All that a search by a language model came to."""

    rule: str
    """Its name."""
    model: str
    """Who was asked."""
    is_mock: bool
    """Whether that is a fixed rule."""
    blind: bool
    """Whether prompts named no asset and no date."""
    window_clean: float | None = None
    """Share of the last window's sessions that the model is shown not to remember; None for a result from before it was asked."""
    ended: str
    """Why the search ended."""
    n_questions: int
    """Asked."""
    n_tokens: int
    """Read and written."""
    seconds: float
    """Of answers and backtests."""
    development: tuple[str, str]
    """First and last session that the model's scores come from."""
    window: tuple[str, str]
    """First and last session of the last window."""
    iterations: tuple[IterationRow, ...]
    """Turn by turn."""
    best: dict[str, float] | None
    """Proposal that was put forward."""
    n_trials: int
    """Trials on the development sessions, of every search and run in this registry."""
    n_independent: float
    """What they amount to: groups of paths that move together, and no fewer than the model's proposals."""
    deflated: float | None
    """Probability that the find's Sharpe ratio is above what the best of so many trials shows by luck."""
    n_looks: int
    """Finds that were shown the last window, this one included."""
    deflated_window: float | None
    """The same on the last window."""
    found: WindowRow | None
    """The find on the last window."""
    defaults: WindowRow
    """The rule's defaults, refitted, on the last window."""
    buy_and_hold: WindowRow
    """Equal shares, bought once, on the last window."""
    lead_over_market: float | None
    """Yearly mean return of the find on the last window, less that of buying and holding at the same volatility."""
    lead_over_market_p: float | None
    """Of no lead, both sides."""
    controls: tuple[ControlRow, ...]
    """What the same budget finds otherwise."""
    unloads: tuple[UnloadRecord, ...] = ()
    """Every time that the model left the GPU."""
    promoted: bool
    """Whether the find is worth anything."""
    doubts: tuple[Doubt, ...] = Field(default=(), exclude=True)
    """What stands against it; not in a file, which holds the words."""
    reasons: tuple[str, ...] = ()
    """Why it is not, once `ploutos.reporting.strategist_verdict.in_words` has said so."""
    sentences: tuple[str, ...] = ()
    """The verdict, the finding first; from there, too."""


@dataclass(frozen=True)
class AskedModel:
    """Who was asked, as in `StrategistResult`."""

    model: str
    is_mock: bool
    blind: bool
    window_clean: float


@dataclass(frozen=True)
class Judge:
    """What a verdict needs beside the search.

    Attributes:
        registry: where trials are kept; None keeps none and counts this search's alone.
        market: of the trials, as `ploutos.registry.recording.market_of` names it.
        seed: of the controls.
    """

    executor: BacktestExecutor
    registry: TrialRegistry | None
    market: str
    seed: int

    def judge(self, search: Search, other: Search | None, about: AskedModel, unloads: Sequence[UnloadRecord] = ()) -> StrategistResult:
        """Record the trials, run the controls, open the last window, and decide what came of it; `reporting` puts it in words.

        Args:
            other: the same search with exchanged feedback.
            about: who was asked.
        """
        executor, best = self.executor, search.best
        tried = self._trials(search)
        n_trials, clusters = self._count(tried, best)
        independent = max(clusters, float(len(search.proposals)))  # alike or not, each was chosen after the scores of the others
        window = executor.open_last_window(best.values) if best else None
        looks, n_looks = self._look(window)
        deflated = _deflated(best.returns, independent) if best else None
        deflated_window = _deflated(window.returns, looks) if window else None
        held, market = self._buy_and_hold()
        lead = self._estimate(matched_volatility, window.returns, market) if window else Estimate(math.nan)
        controls = self._controls(search, other, window)
        doubts = self._doubts(search, deflated, deflated_window, lead, about)
        return StrategistResult(
            rule=executor.rule.name, **asdict(about), ended=search.ended, n_questions=search.n_questions, n_tokens=search.n_tokens,
            seconds=round(search.seconds, 3), development=self._days(executor.tests[0].start, executor.tests[-1].stop),
            window=self._days(executor.last_window.start, executor.last_window.stop),
            iterations=tuple(iteration_row(each) for each in search.iterations), best=best.values if best else None, n_trials=n_trials,
            n_independent=independent, deflated=deflated, n_looks=n_looks, deflated_window=deflated_window,
            found=_window_row(window) if window else None, defaults=_window_row(executor.open_last_window(executor.rule.defaults)),
            buy_and_hold=held, lead_over_market=_finite(lead.value), lead_over_market_p=_finite(lead.p),
            controls=controls, unloads=tuple(unloads), promoted=not doubts, doubts=doubts,
        )  # fmt: skip

    # --- trials

    def _trials(self, search: Search) -> list[Trial]:
        """Every set that was looked at, with its path over the development bars; proposals by the path of their tests."""
        found: list[Trial] = []
        for each in search.iterations:
            if each.evaluation is not None and len(each.evaluation.returns):
                found.append(self._trial("proposal", each.evaluation.values, each.evaluation.sessions, each.evaluation.returns))
            near = each.evaluation.tried if each.evaluation is not None else None
            for what, sweep in (("neighbour", near), ("sweep", each.swept)):
                if sweep is not None:
                    found += [
                        self._trial(what, values, sweep.sessions, path) for values, path in zip(sweep.sets, sweep.returns, strict=True)
                    ]
        return list({trial.key: trial for trial in found}.values())

    def _trial(self, what: str, values: Values, sessions: TimeArray, returns: FloatArray) -> Trial:
        rule, run = self.executor.rule.name, digest_of([self.executor.rule.name, self.executor.spec.model_dump(mode="json")])
        span = to_date(sessions[0]), to_date(sessions[-1])
        path = self.registry.keep_path(sessions, returns) if self.registry else digest_of([returns.round(_ROUND).tolist()])
        facts = {"slug": f"{rule} {describe(values)}", "path": path, "by": f"strategist {what}"}
        return make_trial(TrialKind.CANDIDATE, path, self.market, self.executor.bars.symbols, span, run, facts=facts)

    def _count(self, tried: Sequence[Trial], best: Evaluation | None) -> tuple[int, float]:
        """Trials on the development sessions, and how many independent ones they amount to."""
        if self.registry is None or best is None:
            return len(tried), float(len(tried))
        self.registry.record(tried)
        span = to_date(best.sessions[0]), to_date(best.sessions[-1])
        found = self.registry.candidates(self.registry.overlapping(self.market, self.executor.bars.symbols, *span), best.sessions)
        return found.n_trials, float(max(found.independent(), 1))

    def _look(self, window: LastWindow | None) -> tuple[float, int]:
        """Record that the last window was opened; independent looks at it, and how many there were."""
        if window is None:
            return 0.0, 0
        if self.registry is None:
            return 1.0, 1
        self.registry.record([self._trial("last window", window.values, window.sessions, window.returns)])
        span = to_date(window.sessions[0]), to_date(window.sessions[-1])
        trials = self.registry.overlapping(self.market, self.executor.bars.symbols, *span)
        found = self.registry.candidates(trials, window.sessions)
        return float(max(found.independent(), 1)), found.n_trials

    # --- controls

    def _controls(self, search: Search, other: Search | None, window: LastWindow | None) -> tuple[ControlRow, ...]:
        spec, budgets = self.executor.spec, [each.budget for each in search.proposals]
        if not budgets:
            return ()
        rows = [self._ranked(Control.RANDOM, [self._random(budgets, k) for k in range(spec.random_searches)], search, window)]
        if spec.optuna_searches:
            rows.append(self._ranked(Control.OPTUNA, [self._optuna(len(budgets), k) for k in range(spec.optuna_searches)], search, window))
        if other is not None:
            rows.append(self._ranked(Control.EXCHANGED, [other.best], search, window))
        return tuple(rows)

    def _random(self, budgets: Sequence[int], k: int) -> Evaluation | None:
        """What chance finds with as many proposals, each picked from as many sets."""
        executor, found = self.executor, []
        sets = list(sample_sets(executor.rule, "random", sum(budgets), seed_integer(self.seed, "random search", k)))
        for budget in budgets:
            some, sets = sets[:budget], sets[budget:]
            if len(some) > 1:
                some = [some[int(np.argmax(np.nan_to_num(executor.in_sample(some).sharpe, nan=-np.inf)))]]
            found += [executor.evaluate(values) for values in some]
        return best_of(executor, found)

    def _optuna(self, n: int, k: int) -> Evaluation | None:
        """What Optuna finds with as many proposals."""
        executor = self.executor

        def score(values: Values) -> float:
            return executor.evaluate(values).score

        found = search_sets(executor.rule, score, n, seed_integer(self.seed, "optuna search", k))
        return best_of(executor, [executor.evaluate(values) for values, _ in found])

    def _ranked(self, name: Control, finds: Sequence[Evaluation | None], search: Search, window: LastWindow | None) -> ControlRow:
        """A control's scores and the model's rank among them; nothing to rank counts as the worst."""
        windows = [self.executor.open_last_window(found.values) if found else None for found in finds]
        scores = [found.score if found else -math.inf for found in finds]
        sharpes = [each.sharpe if each and math.isfinite(each.sharpe) else -math.inf for each in windows]
        own = search.best.score if search.best else -math.inf
        shown = window.sharpe if window and math.isfinite(window.sharpe) else -math.inf
        single = name is Control.EXCHANGED
        lead = self._lead(window, windows[0]) if single else (None, None)
        return ControlRow(
            name=name, n_searches=len(finds), walk_forward=_finite(float(np.median(scores))), sharpe=_finite(float(np.median(sharpes))),
            p=None if single else _rank(own, scores), p_window=None if single else _rank(shown, sharpes), lead=lead[0], lead_p=lead[1],
        )  # fmt: skip

    def _lead(self, window: LastWindow | None, other: LastWindow | None) -> tuple[float | None, float | None]:
        """Yearly mean difference on the last window and its p-value."""
        if window is None or other is None:
            return None, None
        found = self._estimate(mean, window.returns - other.returns)
        return _finite(found.value), _finite(found.p)

    def _estimate(self, statistic: Statistic, *series: FloatArray) -> Estimate:
        """A yearly figure of session returns on the last window."""
        found = estimate(statistic, series, BootstrapSpec(), seed_integer(self.seed, "strategist lead"))
        return found.times(self.executor.bars.sessions_per_year)

    def _buy_and_hold(self) -> tuple[WindowRow, FloatArray]:
        """What buying and holding came to on the last window, and its path."""
        executor = self.executor
        held = Rule("buy_and_hold", lambda bars, p: np.ones(len(bars.close)), {})
        run = Sweeper(held, executor.bars, executor.env).run([{}], executor.last_window)
        row = WindowRow(
            parameters=None, sharpe=_finite(float(run.sharpe[0])), total_return=float(run.total_return[0]),
            max_drawdown=float(run.max_drawdown[0]), n_fills=int(run.n_fills[0]),
        )  # fmt: skip
        return row, run.returns[0]

    # --- the verdict

    def _doubts(
        self, search: Search, deflated: float | None, deflated_window: float | None, lead: Estimate, about: AskedModel
    ) -> tuple[Doubt, ...]:  # fmt: skip
        """What stands against the find; empty where it is promoted."""
        needed = self.executor.spec.confidence
        if search.best is None:
            return (Doubt(DoubtKind.NO_FIND),)
        found = {
            DoubtKind.LUCK: not (deflated or 0.0) >= needed,
            DoubtKind.LUCK_IN_WINDOW: not (deflated_window or 0.0) >= needed,
            DoubtKind.MARKET: not (lead.value > 0 and lead.p <= 1 - needed),
            DoubtKind.REVEALED: not about.blind,
            DoubtKind.REMEMBERED: about.window_clean < 1,
        }
        limits = [Doubt(DoubtKind.LIMIT, limit=limit) for limit in self.executor.faults(search.best)]
        return (*limits, *(Doubt(kind, needed) for kind, stands in found.items() if stands))

    def _days(self, start: int, stop: int) -> tuple[str, str]:
        sessions = self.executor.bars.sessions
        return str(sessions[start])[:10], str(sessions[stop - 1])[:10]


def iteration_row(each: Iteration) -> IterationRow:
    """A turn for people and files."""
    found = each.evaluation
    scores: dict[str, Any] = {} if found is None else {
        "failed": found.failed, "walk_forward": _finite(found.walk_forward), "in_sample": _finite(found.in_sample),
        "max_drawdown": _finite(found.max_drawdown), "n_fills": found.n_fills,
    }  # fmt: skip
    return IterationRow(
        number=each.number, action=each.action, parameters=found.values if found else None, swept=len(each.swept.sets) if each.swept else 0,
        notes=each.notes, reasoning=each.reasoning or each.raw, tokens=each.tokens, seconds=round(each.seconds, 3), **scores,
    )  # fmt: skip


def _window_row(window: LastWindow) -> WindowRow:
    return WindowRow(
        parameters=window.values, sharpe=_finite(window.sharpe), total_return=window.total_return, max_drawdown=window.max_drawdown,
        n_fills=window.n_fills,
    )  # fmt: skip


def _deflated(returns: FloatArray, n_trials: float) -> float | None:
    moments = sharpe_moments(returns)
    return None if moments is None else _finite(deflated_sharpe(moments, n_trials, chance_deviation(len(returns))))


def _rank(own: float, others: Sequence[float]) -> float:
    """Share of others that are as good, itself counted."""
    return (1 + sum(each >= own for each in others)) / (1 + len(others))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
