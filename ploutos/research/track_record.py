"""Decisions and returns of any system, judged as ours are: through the same ledger, at a delay, beside the market, against luck."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import DataError
from ploutos.evaluation.attribution import attribute
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import drawdown_spans, measure, periods_of, session_returns
from ploutos.evaluation.overfitting import (
    SharpeMoments,
    chance_deviation,
    deflated_sharpe,
    expected_best_sharpe,
    minimum_track_record,
    overfitting,
    probabilistic_sharpe,
    sharpe_moments,
    superiority,
)
from ploutos.evaluation.robustness import robustness
from ploutos.evaluation.spec import RobustnessSpec
from ploutos.evaluation.summary import Attribution, Number, Part, PathMetrics, Robustness
from ploutos.market.bars import Bars
from ploutos.strategies.base import DecisionContext, PrecomputedTargets, Role, Strategy, StrategyId
from ploutos.strategies.baselines import BUY_AND_HOLD, buy_and_hold, equal_weight
from ploutos.types import FloatArray
from ploutos.walk_forward import Range

MATCHED = "market-at-its-exposure"
"""Slug of equal shares of all symbols, together as much as the audited account held on average."""
_OWN, _DEEPEST = "audited", 5
_BLOCKS, _FEWEST = 16, 64


class Luck(Part):
    """How much of a Sharpe ratio chance explains; ratios are per period here."""

    n: int
    """Returns."""
    sharpe: Number
    """Mean over standard deviation, per period."""
    psr: Number
    """Probability that the true ratio is above 0."""
    n_trials: int
    """Declared, or the columns there are."""
    best_by_luck: Number
    """The ratio that the best of so many trials without skill is expected to show."""
    dsr: Number
    """Probability that the true ratio is above that."""
    needed: Number
    """Returns needed before the first probability reaches 95 %; None where no number is enough."""


class Fall(Part):
    """One drawdown."""

    depth: float
    """Deepest fall from the peak."""
    first: str
    """Of the peak."""
    deepest: str
    """Of the lowest point."""
    back: str | None
    """When the peak was reached again; None where it was not."""


class ReturnsAudit(Part):
    """What a table of returns says."""

    columns: tuple[str, ...]
    """Audited, the best Sharpe ratio first."""
    luck: dict[str, Luck]
    """By column."""
    falls: tuple[Fall, ...]
    """The deepest of the first column."""
    spa: Number = None
    """Consistent p-value: no column is better than the benchmark; None with one column."""
    benchmark: str | None = None
    """Column that they are compared with; None is cash."""
    pbo: Number = None
    """Probability of backtest overfitting of choosing the best column; None with one column, or too few returns."""


class DecisionsAudit(Part):
    """What our ledger makes of somebody's decisions."""

    kind: str
    """`weights` or `units`, as they were given."""
    first: str
    """First bar that counts."""
    last: str
    """Last one."""
    own: PathMetrics
    """The account."""
    matched: PathMetrics
    """The market at its mean exposure."""
    hold: PathMetrics
    """Buy and hold."""
    luck: Luck
    """Of its session returns."""
    luck_over_matched: Luck
    """Of its session returns less those of the market at its exposure."""
    attribution: Attribution
    """Where its growth came from."""
    robustness: Robustness
    """Costs, delay, paths."""
    n_ignored: int
    """Rows that no bar or symbol of the source has."""


def luck_of(returns: FloatArray, n_trials: int, deviation: float | None = None) -> Luck:
    """The statistics of one path.

    Args:
        n_trials: how many were tried before this one was shown, itself included.
        deviation: of the trials' Sharpe ratios; chance alone where it is not known.
    """
    moments = sharpe_moments(returns)
    if moments is None:
        return Luck(n=len(returns), sharpe=None, psr=None, n_trials=n_trials, best_by_luck=None, dsr=None, needed=None)
    spread = 1 / math.sqrt(moments.n - 1) if deviation is None else deviation
    return Luck(
        n=moments.n,
        sharpe=moments.sharpe,
        psr=probabilistic_sharpe(moments),
        n_trials=n_trials,
        best_by_luck=expected_best_sharpe(n_trials, spread),
        dsr=deflated_sharpe(moments, n_trials, spread),
        needed=minimum_track_record(moments),
    )


def audit_returns(table: pd.DataFrame, trials: int | None = None, benchmark: str | None = None, seed: int = 0) -> ReturnsAudit:
    """Judge columns of simple returns.

    Args:
        table: by date, decimal, net of costs; rows with a nan are left out where columns are compared.
        trials: how many were tried in all; the columns there are where it is not told.
        benchmark: column that the others are compared with.

    Raises:
        DataError: there is no such column, nothing to audit, or fewer trials than columns.
    """
    if benchmark is not None and benchmark not in table.columns:
        raise DataError(f"the table has no column {benchmark}; it has {', '.join(map(str, table.columns))}")
    own = table.drop(columns=[benchmark] if benchmark else [])
    if own.empty:
        raise DataError("the table holds no returns; expected a date and at least one column of simple returns")
    n_trials = own.shape[1] if trials is None else trials
    if n_trials < own.shape[1]:
        raise DataError(f"--trials is {n_trials} and the table holds {own.shape[1]} columns; expected at least as many")
    whole = {str(name): own[name].dropna().to_numpy(np.float64) for name in own.columns}
    sharpes = np.array([moments.sharpe if (moments := sharpe_moments(path)) else math.nan for path in whole.values()])
    deviation = chance_deviation(min(map(len, whole.values()))) if len(whole) > 1 else None
    order = [list(whole)[j] for j in np.argsort(-np.nan_to_num(sharpes, nan=-np.inf), kind="stable")]
    shared = table.dropna()
    paths = shared[own.columns].to_numpy(np.float64)
    against = shared[benchmark].to_numpy(np.float64) if benchmark else np.zeros(len(shared))
    better = superiority(paths, against, seed) if paths.shape[1] > 1 and len(paths) >= _FEWEST else None
    chosen = overfitting(paths, seed, _BLOCKS, replications=50) if paths.shape[1] > 1 and len(paths) >= _FEWEST else None
    best = own[order[0]].dropna()
    return ReturnsAudit(
        columns=tuple(order),
        luck={name: luck_of(whole[name], n_trials, deviation) for name in order},
        falls=falls_of(best.to_numpy(np.float64), [f"{stamp:%Y-%m-%d}" for stamp in best.index]),
        spa=None if better is None else better.p,
        benchmark=benchmark,
        pbo=None if chosen is None else chosen.pbo,
    )


def falls_of(returns: FloatArray, dates: Sequence[str], n: int = _DEEPEST) -> tuple[Fall, ...]:
    """The deepest drawdowns of a path, each from its peak to its return; the deepest first."""
    equity = np.r_[1.0, np.cumprod(1 + returns)]
    labels = ["start", *dates]
    return tuple(
        Fall(
            depth=float(equity[low] / equity[peak] - 1),
            first=labels[peak],
            deepest=labels[low],
            back=None if back is None else labels[back],
        )
        for peak, low, back in drawdown_spans(equity)[:n]
    )


@dataclass(frozen=True)
class UnitsStrategy:
    """Asks for units, as another system held them.

    Attributes:
        units: shape (n_bars, n_symbols), wanted after each bar; nan for no order.
        worth: shape (n_bars, n_symbols), of one unit at each close.
    """

    units: FloatArray
    worth: FloatArray
    asks_policies = False

    @property
    def ids(self) -> tuple[StrategyId, ...]:
        return (StrategyId(_OWN),)

    def targets(self, context: DecisionContext) -> FloatArray:
        wanted = self.units[context.bar] * self.worth[context.bar]
        return np.asarray(wanted / np.maximum(context.accounts.equity[:, None], 1e-9))


def audit_decisions(
    frame: pd.DataFrame, bars: Bars, env: EnvSpec, trials: int = 1, seed: int = 0, stress: RobustnessSpec | None = None
) -> DecisionsAudit:
    """Re-play weights or trades through our ledger.

    Args:
        frame: timestamp (bar start), symbol, and `weight` (share of equity wanted after that bar) or `units` (bought after that bar, sold
            where negative). A symbol without a row in a bar has no order then.
        env: costs and limits; a weight is carried out as it stands, without a band.
        trials: how many variants were tried before this one was shown.

    Raises:
        DataError: a column is missing, nothing fits the bars, or a weight is beyond the limits.
    """
    kind = next((name for name in ("weight", "units") if name in frame.columns), None)
    if kind is None or not {"timestamp", "symbol"} <= set(frame.columns):
        raise DataError(f"the table has columns {', '.join(map(str, frame.columns))}; expected timestamp, symbol, and weight or units")
    table, n_ignored = _table(frame, bars, kind)
    if not np.isfinite(table).any():
        raise DataError(f"none of {len(frame):,} rows fits a bar of {', '.join(bars.symbols)}; check --source and the timestamps' zone")
    first = int(np.isfinite(table).any(axis=1).argmax())
    if first >= bars.n_bars - 2:
        raise DataError("the first decision comes with the last bars; expected bars after it")
    part = Range(start=first + 1, stop=bars.n_bars)
    env = with_initial_cash(env.model_copy(update={"rebalance_band": 0.0}), bars, part)
    _require_within(table, env, kind)
    own = _strategy(table, bars, kind)
    segment = [Segment(part)]
    alone = run_backtests(bars, None, segment, [own], env)
    exposure = float(np.abs(alone.weights[0, 1:]).sum(axis=1).mean())
    matched = equal_weight(bars, first, env) * min(exposure / env.gross_limit, 1.0)
    others = [
        PrecomputedTargets(MATCHED, matched, Role.BASELINE),
        PrecomputedTargets(BUY_AND_HOLD, buy_and_hold(bars, first, env), Role.BASELINE),
    ]
    result = run_backtests(bars, None, segment, [own, *others], env)
    periods = periods_of(bars, result)
    sessions = session_returns(result.equity, periods)
    (tested,) = robustness(bars, result, [_OWN], env, stress or RobustnessSpec(), seed, benchmark=MATCHED)
    measured = [measure(result, row, periods) for row in range(3)]
    return DecisionsAudit(
        kind="weights" if kind == "weight" else "units",
        first=str(result.timestamps[1])[:16],
        last=str(result.timestamps[-1])[:16],
        own=measured[0],
        matched=measured[1],
        hold=measured[2],
        luck=luck_of(sessions[0], trials),
        luck_over_matched=luck_of(sessions[0] - sessions[1], trials),
        attribution=attribute(bars, result, _OWN, env),
        robustness=tested,
        n_ignored=n_ignored,
    )


def _strategy(table: FloatArray, bars: Bars, kind: str) -> Strategy:
    if kind == "weight":
        return PrecomputedTargets(_OWN, table)
    held = np.cumsum(np.nan_to_num(table), axis=0)
    multiplier = np.array([spec.multiplier for spec in bars.instruments])
    return UnitsStrategy(np.where(np.isfinite(table), held, np.nan), np.nan_to_num(bars.mark) * multiplier)


def _table(frame: pd.DataFrame, bars: Bars, kind: str) -> tuple[FloatArray, int]:
    """Rows of a long table at their bars and symbols, shape (n_bars, n_symbols), and how many fit none."""
    stamps = pd.to_datetime(frame["timestamp"], utc=True).dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    rows = np.searchsorted(bars.timestamps, stamps)
    rows = np.where((rows < bars.n_bars) & (bars.timestamps[np.minimum(rows, bars.n_bars - 1)] == stamps), rows, -1)
    columns = pd.Index(bars.symbols).get_indexer(pd.Index(frame["symbol"].astype(str)))
    fits = (rows >= 0) & (columns >= 0)
    cells = pd.Series(rows[fits] * bars.n_symbols + columns[fits])
    if kind == "weight" and cells.duplicated().any():
        raise DataError("the table has two weights for one symbol and bar; expected one")
    table = np.full((bars.n_bars, bars.n_symbols), np.nan)
    totals = pd.Series(frame[kind].to_numpy(np.float64)[fits]).groupby(cells.to_numpy()).sum(min_count=1)
    table.ravel()[totals.index.to_numpy(dtype=np.int64)] = totals.to_numpy()
    return table, int((~fits).sum())


def _require_within(table: FloatArray, env: EnvSpec, kind: str) -> None:
    """Refuse what the account may not hold: cut down in silence it would be another system's result."""
    if kind == "weight" and (most := float(np.nansum(np.abs(table), axis=1).max())) > env.gross_limit + 1e-9:
        raise DataError(
            f"the weights of one bar come to {most:.3g} times equity; expected {env.gross_limit:g} at most: raise env.gross_limit"
        )
    if kind == "weight" and not env.allow_short and (np.nan_to_num(table) < 0).any():
        raise DataError("a weight is negative; expected none while env.allow_short is off: --set env.allow_short=true")


def read_returns(path: Path) -> pd.DataFrame:
    """A table of returns: the first column holds dates, the others simple returns.

    Raises:
        DataError: it cannot be read so.
    """
    try:
        table = pd.read_csv(path, index_col=0)
        table.index = pd.to_datetime(table.index)
        return table.apply(pd.to_numeric)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a table of returns: {error}; expected a date, then one or more columns of simple returns"
        ) from error


def read_decisions(path: Path) -> pd.DataFrame:
    """A parquet or CSV of decisions.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; expected a parquet or CSV with timestamp, symbol, and weight or units") from error


__all__ = ["DecisionsAudit", "Luck", "ReturnsAudit", "SharpeMoments", "audit_decisions", "audit_returns", "luck_of"]
