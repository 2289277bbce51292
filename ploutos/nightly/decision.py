"""Target weights for the bar that has not come yet, each with its reason.

The decider lives on the account that its backtest leaves behind: the walk-forward test goes on to the last bar that is known, and is asked
once more. So the decision is, to the last bit, the one that a later backtest will find at that bar; a test holds the two together. After
the last test range the last fold's policies go on deciding until the plan has a new fold.

A reason is stated by occlusion: how much the decider's score for buying falls when one feature is set to its training mean, for all
symbols at once. It says what the decision depended on and not what moves the market. Recurrent policies have none: their memory
cannot be taken apart one bar at a time.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ploutos.advisor.signals import Signals
from ploutos.envs import ledger
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.envs.ledger import Accounts
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import ConfigError, DataError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSet
from ploutos.fusion.calibration import FusionChoice
from ploutos.fusion.hybrid import hybrid_env, hybrid_features
from ploutos.fusion.spec import FusionSpec
from ploutos.market import calendar as calendars
from ploutos.market.bars import Bars
from ploutos.store import Kind
from ploutos.strategies.advised import FUSED, FusedStrategy
from ploutos.strategies.base import DecisionContext, Strategy, StrategyId
from ploutos.strategies.ensemble import HYBRID, VOTE, EnsembleStrategy, ensemble_action, is_continuous
from ploutos.strategies.inference import PolicyInference
from ploutos.strategies.regression import Regression, regression_strategy
from ploutos.training.checkpoint import Policy
from ploutos.types import Float32Array, FloatArray
from ploutos.walk_forward import Fold, Range

_TOP = 3
_ACTIONS = {HOLD: "hold", BUY: "buy", SELL: "sell"}


@dataclass(frozen=True)
class DecisionInputs:
    """All that a decision stands on.

    Attributes:
        bars, features: up to the bar after whose close it is taken.
        folds: of the walk-forward test; bars beyond the last test range belong to the last fold.
        policies, models, hybrids: one sequence of members, of kinds, or of hybrid members per fold; empty where the subject has none.
        signals: advice, that for the last bar included; None where the subject takes none.
        market: shape (n_bars, n_symbols, 28), what hybrid policies observe; None for others.
        choices: fusion's parameters of each fold; none to take what is configured.
        subject: slug of what decides: vote, fused, hybrid, or a kind of regression.
    """

    bars: Bars
    features: FeatureSet
    folds: tuple[Fold, ...]
    env: EnvSpec
    fusion: FusionSpec
    subject: str
    policies: Sequence[Sequence[Policy]] = ()
    models: Sequence[Sequence[Regression]] = ()
    hybrids: Sequence[Sequence[Policy]] = ()
    signals: Signals | None = None
    market: Float32Array | None = None
    choices: tuple[FusionChoice, ...] = ()

    def until(self, n_bars: int) -> "DecisionInputs":
        """What was known after the first bars, with the same policies: folds that began later have not happened."""
        folds = tuple(fold for fold in self.folds if fold.test.start < n_bars)
        if not folds:
            raise DataError(f"the first test range begins at bar {self.folds[0].test.start}; expected one before bar {n_bars}")
        sliced = {name: getattr(self.features, name)[:n_bars] for name in ("values", "timestamps", "available_at")}
        signals = None if self.signals is None else self.signals.within(0, n_bars - 1)
        return replace(
            self, bars=self.bars.head(n_bars), features=replace(self.features, **sliced), folds=folds, signals=signals,
            market=None if self.market is None else self.market[:n_bars], choices=self.choices[: len(folds)],
            policies=self.policies[: len(folds)], models=self.models[: len(folds)], hybrids=self.hybrids[: len(folds)],
        )  # fmt: skip

    def ranges(self) -> list[Range]:
        """Test ranges, the last one up to the last bar."""
        n_bars = self.bars.n_bars
        ends = [*(fold.test.stop for fold in self.folds[:-1]), n_bars]
        return [Range(start=fold.test.start, stop=min(end, n_bars)) for fold, end in zip(self.folds, ends, strict=True)]


@dataclass(frozen=True)
class Decision:
    """What is to be held from the next open on.

    Attributes:
        frame: one row per symbol: symbol, last_close, held (share of equity after the last close), target (nan for no order), action
            (buy, hold or sell, before any veto), confidence (0..1), score (for buying; occlusion is measured on it), features
            (JSON, name to part of that score, the largest first), advice, advice_confidence, advice_reason, vetoed.
        session: whose close it was taken after.
        decided_after: when the last bar was known, UTC.
        next_open: when it would be filled, UTC.
        subject: slug of what decided.
        equity: of the decider's account, account currency.
        n_bars: known then.
    """

    frame: pd.DataFrame
    session: str
    decided_after: str
    next_open: str
    subject: str
    equity: float
    n_bars: int

    def weights(self) -> dict[str, float]:
        """Share of equity to hold, by symbol: the target, or what is held where there is no order."""
        target, held = self.frame["target"].to_numpy(), self.frame["held"].to_numpy()
        return dict(zip(self.frame["symbol"].tolist(), np.where(np.isfinite(target), target, held).tolist(), strict=True))


@dataclass
class _Witness:
    """Passes a strategy's questions on and keeps the last one."""

    strategy: Strategy
    contexts: list[DecisionContext] = field(default_factory=list)

    @property
    def ids(self) -> tuple[StrategyId, ...]:
        return self.strategy.ids

    @property
    def asks_policies(self) -> bool:
        return self.strategy.asks_policies

    def targets(self, context: DecisionContext) -> FloatArray:
        self.contexts[:] = [context]
        return self.strategy.targets(context)


def decide(inputs: DecisionInputs, reasons: bool = True) -> Decision:
    """The subject's decision after the last bar.

    Args:
        reasons: say what the decider listened to; weights alone are there sooner.

    Raises:
        ConfigError: the inputs hold no such subject.
        DataError: the bars end before the first test range.
    """
    bars, ranges = inputs.bars, inputs.ranges()
    if ranges[-1].n_bars < 1:
        raise DataError(f"the bars end at {bars.n_bars}, before the last test range begins at {ranges[-1].start}; use a longer history")
    env = with_initial_cash(hybrid_env(inputs.env) if inputs.subject == HYBRID.slug else inputs.env, bars, *ranges)
    features, by_fold = observed(inputs)
    strategy = strategy_of(inputs, features, env)
    witness = _Witness(strategy)
    segments = [Segment(part, members) for part, members in zip(ranges, by_fold or [()] * len(ranges), strict=True)]
    result = run_backtests(bars, features, segments, [witness], env, keep=("weights", "targets"), decide_next=True)
    context, held, target = witness.contexts[0], result.weights[0, -1], result.targets[0, -1]
    frame = pd.DataFrame({"symbol": bars.symbols, "last_close": bars.mark[-1], "held": held, "target": target})
    if reasons:
        frame = frame.assign(**_scored(inputs, features, context, by_fold[-1] if by_fold else (), env))
        frame = frame.assign(**_advised(inputs, strategy, context))
    return Decision(
        frame, str(bars.sessions[-1]), _utc(bars.available_at[-1]), _utc(next_open(bars)), inputs.subject, float(result.equity[0, -1]),
        bars.n_bars,
    )  # fmt: skip


def observed(inputs: DecisionInputs) -> tuple[FeatureSet, Sequence[Sequence[Policy]]]:
    """What the subject's policies observe, and the policies by fold; none for a supervised model."""
    if inputs.subject == HYBRID.slug:
        if inputs.market is None or not inputs.hybrids:
            raise ConfigError("the run has no hybrid policies to decide; choose another evaluation.subject")
        return hybrid_features(inputs.features, inputs.bars, inputs.market, inputs.signals), inputs.hybrids
    return inputs.features, inputs.policies if inputs.subject in (VOTE.slug, FUSED.slug) else ()


def strategy_of(inputs: DecisionInputs, features: FeatureSet, env: EnvSpec) -> Strategy:
    """The subject as a strategy, over the inputs' ranges.

    Raises:
        ConfigError: the inputs hold no such subject.
    """
    bars = inputs.bars
    if inputs.subject == VOTE.slug:
        return EnsembleStrategy(bars=bars, env=env)
    if inputs.subject == HYBRID.slug:
        return EnsembleStrategy({HYBRID: slice(None)}, bars=bars, env=env)
    if inputs.subject == FUSED.slug:
        if inputs.signals is None:
            raise ConfigError("a fused decision needs advice, and there is none")
        actions, confidences = inputs.signals.align_to_bars(bars)
        return FusedStrategy((FUSED,), actions[None], confidences[None], bars, env, (inputs.fusion,), inputs.choices)
    kinds = [[model for model in models if model.kind == inputs.subject] for models in inputs.models]
    if not kinds or not all(kinds):
        raise ConfigError(f"the run has no {inputs.subject} to decide; choose another evaluation.subject")
    live = [fold.model_copy(update={"test": Range(start=part.start, stop=part.stop)}) for fold, part in
            zip(inputs.folds, inputs.ranges(), strict=True)]  # fmt: skip
    live[-1] = live[-1].model_copy(update={"test": Range(start=live[-1].test.start, stop=bars.n_bars + 1)})
    return regression_strategy(bars, features, live, [own[0] for own in kinds], env)


def _scored(
    inputs: DecisionInputs, features: FeatureSet, context: DecisionContext, members: Sequence[Policy], env: EnvSpec
) -> dict[str, Any]:
    """Action, confidence, score and what it is made of, by symbol."""
    last = inputs.bars.n_bars - 1
    if not len(members):
        model = next(model for model in inputs.models[-1] if model.kind == inputs.subject)
        return _of_regression(model, features, last)
    actions, confidences = (each[0] for each in ensemble_action(context.predictions))
    score = _buy_score(context.predictions)
    columns = {"action": [_ACTIONS[int(each)] for each in actions], "confidence": confidences, "score": score}
    if any(policy.recurrent for policy in members):
        return columns | {"features": ["{}"] * len(score)}
    parts = _occluded(list(members), inputs.bars, features, context.accounts.copy(), env)
    return columns | {"features": _named(score[:, None] - parts, features.names)}


def _buy_score(predictions: FloatArray) -> FloatArray:
    """Of the first account, shape (n_symbols,): mean probability of buying less that of selling, or the mean weight."""
    mean = predictions[:, 0].mean(axis=0)
    return np.asarray(mean[:, 0] if is_continuous(predictions) else mean[:, BUY] - mean[:, SELL])


def _occluded(members: list[Policy], bars: Bars, features: FeatureSet, accounts: Accounts, env: EnvSpec) -> FloatArray:
    """The score with each feature at its training mean, shape (n_symbols, n_features)."""
    last, values = bars.n_bars - 1, features.values.copy()
    arrays, known = ledger.make_market_arrays(bars), features.values[last].copy()
    here, mean = Range(start=last + 1, stop=last + 2), members[0].scaler.mean
    scores = np.empty((bars.n_symbols, len(features.names)))
    for column in range(len(features.names)):
        values[last] = known
        values[last, np.isfinite(known[:, column]), column] = mean[column]
        inference = PolicyInference(members, bars, replace(features, values=values), here, arrays, env)
        scores[:, column] = _buy_score(inference.predict(accounts, np.full(len(accounts.equity), last)))
    return scores


def _of_regression(model: Regression, features: FeatureSet, last: int) -> dict[str, Any]:
    values = features.values[max(last - model.reach, 0) : last + 1]
    score, parts = model.scores(values)[-1], np.empty(values.shape[1:])
    for column in range(len(features.names)):
        changed = values.copy()
        changed[..., column] = model.scaler.mean[column]
        parts[:, column] = model.scores(changed)[-1]
    ready = features.ready[last]
    act = np.where(ready & (score > model.band), BUY, np.where(ready & (score < -model.band), SELL, HOLD))
    sure = np.full(len(score), np.nan) if model.kind == "ridge" else 1 / (1 + np.exp(-np.abs(score)))
    named = _named(score[:, None] - parts, features.names)
    return {"action": [_ACTIONS[int(each)] for each in act], "confidence": sure, "score": score, "features": named}


def _named(parts: FloatArray, names: Sequence[str]) -> list[str]:
    """The largest parts of each symbol's score, as JSON."""
    order = np.argsort(-np.abs(parts), axis=1, kind="stable")[:, :_TOP]
    return [json.dumps({names[column]: round(float(row[column]), 6) for column in best}) for row, best in zip(parts, order, strict=True)]


def _advised(inputs: DecisionInputs, strategy: Strategy, context: DecisionContext) -> dict[str, Any]:
    """The advice that stands, and whether the risk veto changed the order."""
    symbols, signals = inputs.bars.symbols, inputs.signals
    if signals is None or inputs.subject not in (FUSED.slug, HYBRID.slug):
        return {"advice": "", "advice_confidence": np.nan, "advice_reason": "", "vetoed": False}
    actions, sure = (each[-1] for each in signals.align_to_bars(inputs.bars))
    standing = signals.frame[signals.frame["bar"] > inputs.bars.n_bars - 1 - signals.cadence_bars]
    reasons = standing.drop_duplicates("symbol", keep="last").set_index("symbol")["reason"].to_dict()
    vetoed = np.zeros(len(symbols), dtype=np.bool_)
    if isinstance(strategy, FusedStrategy):
        wanted, history = strategy.wanted(context)
        left = history.veto(wanted, context.held)
        vetoed = ~((wanted == left) | (np.isnan(wanted) & np.isnan(left)))[0]
    return {
        "advice": [_ACTIONS[int(each)] for each in actions], "advice_confidence": sure,
        "advice_reason": [str(reasons.get(symbol, "")) for symbol in symbols], "vetoed": vetoed,
    }  # fmt: skip


def next_open(bars: Bars) -> np.datetime64:
    """When the bar after the last one opens, by the calendar, datetime64[us] UTC: later today, or at the next session's open."""
    known = bars.available_at[-1]
    sessions = calendars.sessions_around(bars.timestamps[0], known, bars.calendar)
    within = (sessions.opens <= known) & (known < sessions.closes)
    if bars.timeframe < calendars.DAY and within.any():
        return np.datetime64(known)
    return np.datetime64(sessions.opens[np.searchsorted(sessions.opens, known)])


def for_session(decision: Decision, session: str, bars: Bars) -> Decision:
    """The same decision, standing in for that of a later session whose bars did not come."""
    if session == decision.session:
        return decision
    close = calendars.session_close(session, bars.calendar)
    sessions = calendars.sessions_around(bars.timestamps[0], close, bars.calendar)
    opens = _utc(sessions.opens[np.searchsorted(sessions.opens, close)])
    return replace(decision, session=session, next_open=opens)


def _utc(moment: np.datetime64) -> str:
    return f"{moment.astype('datetime64[s]')}Z"


_FACTS = ("session", "decided_after", "next_open", "subject", "equity", "n_bars")


def write_decision(decision: Decision, path: Path) -> None:
    """Write a decision as parquet; the same decision gives the same bytes."""
    frame = decision.frame.copy()
    frame.attrs = {name: getattr(decision, name) for name in _FACTS}
    frame.to_parquet(path, index=False)


def read_decision(path: Path) -> Decision:
    """Read what `write_decision` wrote."""
    frame = pd.read_parquet(path)
    return Decision(frame, **{name: frame.attrs[name] for name in _FACTS})


DECISION = Kind("decision", ".parquet", write_decision, read_decision)
