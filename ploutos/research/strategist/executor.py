"""Backtests of a rule's parameters for a strategist: walk-forward with a refit, and a last window that is opened once.

A proposal stands for its neighbourhood: itself and every set one step away. In each fold the best of them on all earlier bars is run, from
cash, on the fold's test bars; these tests, stitched, are the proposal's score. The neighbours' Sharpe ratios also say which way is up. A
set that never traded, or was ruined, has failed: it has no score, which is not a score of 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ploutos.envs.spec import EnvSpec
from ploutos.errors import HistoryError
from ploutos.evaluation.metrics import drawdowns, sharpe_ratio
from ploutos.market.bars import Bars
from ploutos.research.strategist.spec import StrategistSpec
from ploutos.research.sweep import Sweep, Sweeper
from ploutos.strategies.rules import Rule, Values
from ploutos.types import FloatArray, TimeArray
from ploutos.walk_forward import Range

_FEWEST_SESSIONS = 20


@dataclass(frozen=True)
class Evaluation:
    """What a proposal came to on the development bars.

    Attributes:
        values: as proposed.
        failed: why it has no score; empty where it has one.
        walk_forward: annualised Sharpe ratio of the stitched tests.
        in_sample: the same of its own values over all development bars.
        train: mean over folds of the Sharpe ratio that the refit chose by.
        by_fold: Sharpe ratio of each test.
        max_drawdown: of the stitched tests, by session closes, decimal, <= 0.
        n_fills: in the tests.
        sensitivity: by parameter and step, how the Sharpe ratio in sample changes.
        sessions, returns: of the stitched tests, shape (n,).
        tried: sets that were looked at, and the path of each over the development bars.
    """

    values: Values
    failed: str = ""
    walk_forward: float = float("nan")
    in_sample: float = float("nan")
    train: float = float("nan")
    by_fold: tuple[float, ...] = ()
    max_drawdown: float = float("nan")
    n_fills: int = 0
    sensitivity: dict[str, dict[str, float]] = field(default_factory=dict)
    sessions: TimeArray = field(default_factory=lambda: np.empty(0, dtype="datetime64[D]"))
    returns: FloatArray = field(default_factory=lambda: np.empty(0))
    tried: Sweep | None = None

    @property
    def score(self) -> float:
        """Walk-forward Sharpe ratio; minus infinity for what failed, so that it is never the best."""
        return -np.inf if self.failed else self.walk_forward

    @property
    def overfitting(self) -> float:
        """Sharpe ratio in training over that in the tests; infinite where the tests lost."""
        return self.train / self.walk_forward if self.walk_forward > 0 else np.inf


@dataclass(frozen=True)
class LastWindow:
    """What a rule came to on bars that nobody had seen.

    Attributes:
        values: as refitted on all development bars.
        sharpe: annualised; nan where it never traded.
        total_return, max_drawdown: decimal.
        n_fills: in the window.
        sessions, returns: shape (n,).
    """

    values: Values
    sharpe: float
    total_return: float
    max_drawdown: float
    n_fills: int
    sessions: TimeArray
    returns: FloatArray


class BacktestExecutor:
    """Runs what a strategist proposes, for one rule on one panel.

    Args:
        env: account and costs.

    Attributes:
        development, last_window: ranges of bars; what is asked about the second before the search is over is nothing.

    Raises:
        HistoryError: too few bars for the folds and the last window.
    """

    def __init__(self, rule: Rule, bars: Bars, env: EnvSpec, spec: StrategistSpec) -> None:
        self.rule, self.bars, self.env, self.spec = rule, bars, env, spec
        cut = self._session_start(round(bars.n_bars * (1 - spec.holdout_share)))
        start = max(self._session_start(spec.warmup_bars), 1)
        self.development, self.last_window = Range(start=start, stop=max(cut - spec.gap_bars, start)), Range(start=cut, stop=bars.n_bars)
        edges = np.linspace(start, self.development.stop, spec.folds + 2)[1:-1].round().astype(int)
        starts = [self._session_start(int(edge)) for edge in edges]
        self.tests = tuple(Range(start=a, stop=b) for a, b in zip(starts, [*starts[1:], self.development.stop], strict=True))
        for part in (Range(start=start, stop=starts[0]), *self.tests, self.last_window):
            self._require_sessions(part)
        self._sweeper = Sweeper(rule, bars.head(self.development.stop), env)
        self._known: dict[tuple[float, ...], Evaluation] = {}

    def _session_start(self, bar: int) -> int:
        """The first bar, at or after one, that begins a session; the end where none does."""
        sessions = self.bars.sessions
        later = np.flatnonzero(sessions[max(bar, 1) :] != sessions[max(bar, 1) - 1 : -1])
        return max(bar, 1) + int(later[0]) if len(later) else self.bars.n_bars

    def _require_sessions(self, part: Range) -> None:
        n = len(np.unique(self.bars.sessions[part.start : part.stop]))
        if n < _FEWEST_SESSIONS:
            raise HistoryError(
                f"a fold or the last window of the strategist would hold {n} sessions; expected {_FEWEST_SESSIONS} or more: give a longer "
                "history, or fewer folds"
            )

    def evaluate(self, values: Values) -> Evaluation:
        """Walk forward with a proposal and its neighbours; asked again, the same answer costs nothing."""
        key = tuple(values.values())
        if key not in self._known:
            self._known[key] = self._evaluate(values)
        return self._known[key]

    def in_sample(self, sets: Sequence[Values]) -> Sweep:
        """Sets over all development bars."""
        return self._sweeper.run(sets, self.development)

    def neighbours(self, values: Values) -> list[tuple[str, str, Values]]:
        """Parameter, direction and set of every lawful step from a set."""
        found = []
        for name, each in self.rule.parameters.items():
            at = round((values[name] - each.low) / each.step)
            for sign, k in (("-", at - 1), ("+", at + 1)):
                if 0 <= k < each.size and not self.rule.broken(moved := values | {name: each.value(k)}):
                    found.append((name, sign, moved))
        return found

    def _evaluate(self, values: Values) -> Evaluation:
        near = self.neighbours(values)
        sets = [values, *(moved for *_, moved in near)]
        tried = self.in_sample(sets)
        if tried.ruined[0] or not np.isfinite(tried.sharpe[0]):
            return Evaluation(values, "the account was ruined" if tried.ruined[0] else "it never traded", tried=tried)
        changes = {
            f"{name} {sign}": float(tried.sharpe[k] - tried.sharpe[0])
            for k, (name, sign, _) in enumerate(near, start=1)
            if np.isfinite(tried.sharpe[k])
        }
        sensitivity = {
            name: {sign: changes[f"{name} {sign}"] for sign in "-+" if f"{name} {sign}" in changes} for name in self.rule.parameters
        }
        trains, tests = [], []
        for part in self.tests:
            train, chosen = self._refit(tried, self.bars.sessions[part.start - self.spec.gap_bars])
            if chosen is None:
                return Evaluation(values, "it never traded before one of the tests", tried=tried, sensitivity=sensitivity)
            trains.append(train)
            tests.append(self._sweeper.run([sets[chosen]], part))
        if any(test.ruined[0] for test in tests):
            return Evaluation(values, "the account was ruined in a test", tried=tried, sensitivity=sensitivity)
        returns = np.concatenate([test.returns[0] for test in tests])
        per_year = self.bars.sessions_per_year
        walked = sharpe_ratio(returns, per_year)
        return Evaluation(
            values=values, failed="" if np.isfinite(walked) else "it never traded in the tests", walk_forward=walked,
            in_sample=float(tried.sharpe[0]), train=float(np.mean(trains)), by_fold=tuple(float(test.sharpe[0]) for test in tests),
            max_drawdown=float(drawdowns(np.r_[1.0, np.cumprod(1 + returns)]).min()), n_fills=int(sum(test.n_fills[0] for test in tests)),
            sensitivity=sensitivity, sessions=np.concatenate([test.sessions for test in tests]), returns=returns, tried=tried,
        )  # fmt: skip

    def _refit(self, tried: Sweep, before: Any) -> tuple[float, int | None]:
        """The set with the best Sharpe ratio on the sessions before a date, and that ratio; None where none ever traded."""
        known = tried.sessions < before
        sharpes = np.array([sharpe_ratio(path[known], self.bars.sessions_per_year) for path in tried.returns])
        if not np.isfinite(sharpes).any():
            return float("nan"), None
        best = int(np.nanargmax(sharpes))
        return float(sharpes[best]), best

    def faults(self, found: Evaluation) -> tuple[str, ...]:
        """Which limits of what may be accepted it breaks, in words; failed counts as all of them."""
        spec = self.spec
        if found.failed:
            return (f"it has no score: {found.failed}",)
        broken = {
            f"walk-forward Sharpe ratio {found.walk_forward:.2f}, at least {spec.min_sharpe:g} is needed": (
                found.walk_forward < spec.min_sharpe
            ),
            f"drawdown {-found.max_drawdown:.1%}, at most {spec.max_drawdown:.1%} is allowed": -found.max_drawdown > spec.max_drawdown,
            f"{found.n_fills} fills in the tests, at least {spec.min_fills} are needed": found.n_fills < spec.min_fills,
            f"Sharpe ratio in training is {found.overfitting:.2f} times that in the tests, at most {spec.max_overfitting:g} is allowed": (
                found.overfitting > spec.max_overfitting
            ),
        }
        return tuple(sentence for sentence, is_broken in broken.items() if is_broken)

    def open_last_window(self, values: Values) -> LastWindow:
        """Refit a proposal on all development bars and run it, from cash, on the last window. For what a search has ended with."""
        sets = [values, *(moved for *_, moved in self.neighbours(values))]
        tried = self.in_sample(sets)
        chosen = sets[int(np.nanargmax(tried.sharpe))] if np.isfinite(tried.sharpe).any() else values
        run = Sweeper(self.rule, self.bars, self.env).run([chosen], self.last_window)
        return LastWindow(
            chosen, float(run.sharpe[0]), float(run.total_return[0]), float(run.max_drawdown[0]), int(run.n_fills[0]), run.sessions,
            run.returns[0],
        )  # fmt: skip
