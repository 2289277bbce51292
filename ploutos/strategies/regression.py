"""Supervised deciders: one model of the next return for all symbols, and a no-trade band around it.

They have what policies have: features, folds, a scaler fitted on training rows, costs, and discrete actions. BUY above the band, SELL
below it, HOLD between. A model is fitted on a fold's training range alone. What has to be chosen (penalty, number of trees, band) is
chosen on slices within it, each told by a model of the others and kept apart by the folds' gap; the band is the one whose account grew
most, costs paid. A fitted model is arrays, so its file holds no code. For `lasso` the lasso keeps a few columns, and a logistic regression
on those decides (relaxed lasso, Meinshausen 2007); `lagged` is the same with the columns of its symbol's last bars. Left out: no
probability is calibrated.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numba import njit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, lasso_path
from threadpoolctl import threadpool_limits

from ploutos.envs import ledger
from ploutos.envs.actions import BUY, HOLD, SELL, target_weights
from ploutos.envs.spec import EnvSpec, with_initial_cash
from ploutos.errors import DataError
from ploutos.features.build import FeatureSet
from ploutos.features.scaling import Scaler, fit_scaler
from ploutos.market.bars import Bars
from ploutos.store import Kind, writing
from ploutos.strategies.base import PrecomputedTargets, Role
from ploutos.strategies.spec import RegressionKind, RegressionSpec
from ploutos.training.ppo import learning_ranges
from ploutos.training.spec import TrainingSpec
from ploutos.training.teacher import Teacher, teacher_of_scores
from ploutos.types import BoolArray, Float32Array, FloatArray, IntArray
from ploutos.walk_forward import Fold, Range
from ploutos.wording import plural

_FEWEST = 50
"""Fewest training rows to fit anything on."""
_EVERY = 10
"""Steps in which the number of trees is chosen."""
_SCREENED = 64
"""Columns that the lasso chooses among: those that go with the target most closely (Fan and Lv, 2008)."""
_RELAXED = 1e-4
"""Penalty of the regression on the columns that it kept."""


@dataclass(frozen=True)
class Regression:
    """A fitted model and its band.

    Attributes:
        kind: which model.
        names: n_features names of what it reads.
        scaler: of its training rows.
        arrays: `coefficients` (n_features,) and `intercept`; or, of trees, `feature`, `threshold`, `left`, `right` and `value`, each of
            shape (n_trees, n_nodes), a leaf having feature -1, and `intercept`; after a lasso, each coefficient's `lag` and `column`.
        band: half width of the no-trade band, in the units of `scores`.
        choices: what was chosen on the inner slices, for people.
    """

    kind: RegressionKind
    names: tuple[str, ...]
    scaler: Scaler
    arrays: dict[str, np.ndarray]
    band: float
    choices: dict[str, float]

    def scores(self, values: Float32Array) -> FloatArray:
        """What the model tells of the next return: log odds of a rise, or, of `ridge`, deviations of return.

        Args:
            values: features as they were built, of bars in a row, shape (n_bars, n_symbols, n_features); those before the first count as
                the training mean.
        """
        return _score(self.arrays, self.scaler.transform(values))

    @property
    def reach(self) -> int:
        """Bars before the one decided after that it reads."""
        return int(self.arrays["lag"].max(initial=0)) if "lag" in self.arrays else 0

    def told(self, features: FeatureSet, which: slice) -> FloatArray:
        """The same after some bars, shape (n, n_symbols), with what came before them; nan where a required feature is not known.

        Args:
            features: it reads the first ones of them.

        Raises:
            DataError: those are others than it was fitted on.
        """
        first, stop, _ = which.indices(len(features.values))
        before = min(self.reach, first)
        if features.names[: len(self.names)] != self.names:
            raise DataError(f"the {self.kind} model reads {', '.join(self.names)}; found {', '.join(features.names)}")
        scores = self.scores(features.values[first - before : stop, :, : len(self.names)])[before:]
        return np.where(features.ready[first:stop], scores, np.nan)


def fit_regression(
    bars: Bars, features: FeatureSet, fold: Fold, env: EnvSpec, spec: RegressionSpec, kind: RegressionKind, seed: int = 0
) -> Regression:
    """Fit one model on a fold's training range; the same input gives the same model.

    Args:
        env: costs and limits under which the band is chosen.

    Raises:
        DataError: the training range has too few rows, or its returns all have one sign.
    """
    return fit_on(bars, features, (fold.train,), fold.validation.start - fold.train.stop, env, spec, kind, seed)


def fit_on(
    bars: Bars, features: FeatureSet, parts: Sequence[Range], gap: int, env: EnvSpec, spec: RegressionSpec, kind: RegressionKind,
    seed: int = 0,
) -> Regression:  # fmt: skip
    """Fit one model on some ranges, in order; no return reaches from one into what lies between.

    Args:
        gap: bars that keep inner slices apart.

    Raises:
        DataError: as `fit_regression`.
    """
    return _fitted(bars, features, parts, gap, env, spec, kind, seed)[0]


def _fitted(
    bars: Bars, features: FeatureSet, parts: Sequence[Range], gap: int, env: EnvSpec, spec: RegressionSpec, kind: RegressionKind,
    seed: int,
) -> tuple[Regression, FloatArray]:  # fmt: skip
    """A model, and what models of the other slices told of every training row, shape (n_bars, n_symbols); nan elsewhere."""
    rows = _training_rows(bars, features, parts, spec.horizon_bars)
    candidates = _candidates(kind, spec)
    target, told = rows.target(kind), np.empty((len(candidates), len(rows.bar)))
    with threadpool_limits(limits=1):
        for inside, outside in _inner_slices(rows, gap, spec):
            table = fit_scaler(rows.values[outside], features.n_required).transform(features.values)
            fits = _fits(kind, candidates, table, rows, outside, target, spec, seed)
            told[:, inside] = [_score_at(arrays, table, rows.bar[inside], rows.symbol[inside]) for arrays in fits]
        best = int(np.argmin([_loss(kind, target, scores) for scores in told]))
        learnt = [features.values[part.start : part.stop] for part in parts]
        scaler = fit_scaler(learnt[0] if len(learnt) == 1 else np.concatenate(learnt), features.n_required)
        everything, chosen = np.ones(len(rows.bar), dtype=np.bool_), candidates[best : best + 1]
        (arrays,) = _fits(kind, chosen, scaler.transform(features.values), rows, everything, target, spec, seed)
    scores = np.full((bars.n_bars, bars.n_symbols), np.nan)
    scores[rows.bar, rows.symbol] = told[best]
    bands = float(told[best].std()) * np.array(spec.bands)
    band = int(np.argmax(sum(_growth(bars, scores, bands, part, env) for part in parts)))
    choices = {"candidate": float(candidates[best]), "band": spec.bands[band], "loss": _loss(kind, target, told[best])}
    return Regression(kind, features.names, scaler, arrays, float(bands[band]), choices), scores


def regression_strategy(
    bars: Bars, features: FeatureSet, folds: Sequence[Fold], models: Sequence[Regression], env: EnvSpec
) -> PrecomputedTargets:
    """A model per fold, each deciding over its fold's test range, under its kind as slug.

    Raises:
        DataError: a model reads other features.
    """
    table = np.full((bars.n_bars, bars.n_symbols), np.nan)
    for fold, model in zip(folds, models, strict=True):
        decided = slice(fold.test.start - 1, fold.test.stop - 1)
        table[decided] = decide(bars, features, model, env, decided)
    return PrecomputedTargets(models[0].kind, table, Role.REGRESSION)


def decide(bars: Bars, features: FeatureSet, model: Regression, env: EnvSpec, which: slice) -> FloatArray:
    """Target weights after some bars, shape (n, n_symbols); no order where a feature that is required is not known."""
    return target_weights(_actions(model.told(features, which), model.band), bars.tradable[which].sum(axis=1), env)


def fit_teacher(
    bars: Bars, features: FeatureSet, fold: Fold, env: EnvSpec, training: TrainingSpec, spec: RegressionSpec, seed: int = 0
) -> Teacher:
    """The teacher of a fold's policies, fitted on what they learn from.

    Args:
        training: of the policies, which name the model.

    Raises:
        DataError: as `fit_regression`.
    """
    learnt, _ = learning_ranges(fold, training)
    kind = cast(RegressionKind, training.taught_by)
    model, crossed = _fitted(bars, features, (learnt,), fold.validation.start - fold.train.stop, env, spec, kind, seed)
    told = slice(learnt.start, learnt.stop)
    parts = _parts(model, features.values[told], spec.lags) if kind == "lagged" else None
    whole = slice(learnt.start, fold.train.stop)
    forecast = np.where(np.isnan(crossed[whole]), model.told(features, whole), crossed[whole]).astype(np.float32)
    return teacher_of_scores(model.told(features, told), learnt.start, parts, forecast=forecast, model=as_json(model))


def _actions(scores: FloatArray, band: FloatArray | float) -> IntArray:
    return np.where(scores > band, BUY, np.where(scores < -band, SELL, HOLD)).astype(np.int64)  # nan is neither


def save_regression(model: Regression, path: Path) -> None:
    """Write a model as one npz of plain arrays; the same model gives the same bytes."""
    meta = {"kind": model.kind, "names": model.names, "band": model.band, "choices": model.choices}
    arrays: dict[str, Any] = {"mean": model.scaler.mean, "deviation": model.scaler.deviation, **model.arrays}
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta, sort_keys=True)), **arrays)


def as_json(model: Regression) -> dict[str, Any]:
    """A model in values that JSON holds, to the last bit."""
    arrays = {"mean": model.scaler.mean, "deviation": model.scaler.deviation, **model.arrays}
    held = {name: [str(np.asarray(array).dtype), np.asarray(array).tolist()] for name, array in arrays.items()}
    return {"kind": model.kind, "names": list(model.names), "arrays": held, "band": model.band, "choices": model.choices}


def regression_of(held: dict[str, Any]) -> Regression:
    """The model that `as_json` made values of."""
    arrays = {name: np.array(values, dtype=dtype) for name, (dtype, values) in held["arrays"].items()}
    scaler = Scaler(arrays.pop("mean"), arrays.pop("deviation"))
    return Regression(held["kind"], tuple(held["names"]), scaler, arrays, held["band"], held["choices"])


def load_regression(path: Path) -> Regression:
    """Read what `save_regression` wrote; nothing in it is executed."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    scaler = Scaler(arrays.pop("mean"), arrays.pop("deviation"))
    return Regression(meta["kind"], tuple(meta["names"]), scaler, arrays, meta["band"], meta["choices"])


REGRESSION = Kind("regression", ".npz", save_regression, load_regression)


# --- training rows


@dataclass(frozen=True)
class _Rows:
    """One row per symbol and decision of the training range; n rows.

    Attributes:
        bar, symbol: shape (n,), whose decision.
        values: shape (n, n_features), as built.
        returns: shape (n,), what an order decided then earned from its fill on, in deviations of its symbol's.
    """

    bar: IntArray
    symbol: IntArray
    values: Float32Array
    returns: FloatArray

    def target(self, kind: RegressionKind) -> FloatArray | IntArray:
        return self.returns if kind == "ridge" else (self.returns > 0).astype(np.int64)


def _training_rows(bars: Bars, features: FeatureSet, parts: Sequence[Range], horizon: int) -> _Rows:
    """Decisions whose return is known within their range."""
    bar, symbol, earned = (np.concatenate(each) for each in zip(*(_decisions(bars, features, p, horizon) for p in parts), strict=True))
    deviation = np.array([earned[symbol == s].std() if (symbol == s).any() else 1.0 for s in range(bars.n_symbols)])
    returns = earned / np.where(deviation > 0, deviation, 1.0)[symbol]
    if len(returns) < _FEWEST or (returns > 0).all() or not (returns > 0).any():
        raise DataError(
            f"found {plural(len(returns), 'training row')}, {int((returns > 0).sum())} with a rise; expected at least {_FEWEST}, "
            "rises and falls among them; train on a longer range, or unset regression.enabled"
        )
    return _Rows(bar, symbol, features.values[bar, symbol], returns)


def _decisions(bars: Bars, features: FeatureSet, part: Range, horizon: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Bar, symbol and what an order earned, of every decision whose return is known within a range."""
    first, last = max(part.start - 1, 0), part.stop - horizon
    opens, closes = bars.open[first + 1 : last + 1], bars.mark[first + horizon : last + horizon]
    filled = bars.tradable[first + 1 : last + 1] & (opens != 0)
    earned = (closes - opens) / np.where(filled, np.abs(opens), 1.0)
    usable = filled & bars.tradable[first:last] & features.ready[first:last]
    bar, symbol = np.nonzero(usable)
    return bar + first, symbol, earned[bar, symbol]


def _inner_slices(rows: _Rows, gap: int, spec: RegressionSpec) -> list[tuple[BoolArray, BoolArray]]:
    """Rows of each slice of the training range, and those far enough from it to tell it."""
    apart = gap + spec.horizon_bars
    edges = np.linspace(rows.bar[0], rows.bar[-1] + 1, spec.inner_slices + 1)
    return [
        ((rows.bar >= start) & (rows.bar < stop), (rows.bar < start - apart) | (rows.bar >= stop + apart))
        for start, stop in pairwise(edges)
    ]


# --- models


def _linear(
    kind: RegressionKind, penalty: float, seen: Float32Array | FloatArray, target: FloatArray | IntArray
) -> LogisticRegression | Ridge:
    weight = penalty * len(target)
    model = Ridge(alpha=weight) if kind == "ridge" else LogisticRegression(C=1 / weight, max_iter=1000)
    return model.fit(seen.astype(np.float64), target)


def _trees(n: int, seen: Float32Array, target: FloatArray | IntArray, spec: RegressionSpec, seed: int) -> HistGradientBoostingClassifier:
    model = HistGradientBoostingClassifier(
        learning_rate=spec.learning_rate, max_iter=n, max_leaf_nodes=spec.leaves, min_samples_leaf=spec.rows_per_leaf,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    return model.fit(seen, target)


def _candidates(kind: RegressionKind, spec: RegressionSpec) -> Sequence[float]:
    """What is chosen among on the inner slices: numbers of trees, or penalties."""
    if kind == "trees":
        return range(_EVERY, spec.max_trees + 1, _EVERY)
    return spec.lasso_shares if kind in ("lasso", "lagged") else spec.penalties


def _fits(
    kind: RegressionKind, candidates: Sequence[float], table: Float32Array, rows: _Rows, which: BoolArray, target: FloatArray | IntArray,
    spec: RegressionSpec, seed: int,
) -> list[dict[str, np.ndarray]]:  # fmt: skip
    """A model for each candidate, as arrays, fitted on some of the rows.

    Args:
        table: scaled features of all bars, shape (n_bars, n_symbols, n_features).
    """
    bar, symbol, target = rows.bar[which], rows.symbol[which], target[which]
    if kind in ("lasso", "lagged"):
        return _sparse(candidates, table, bar, symbol, target, spec.lags if kind == "lagged" else 1)
    seen = table[bar, symbol]
    if kind == "trees":
        arrays = _tree_arrays(_trees(int(candidates[-1]), seen, target, spec, seed))
        return [*({**arrays, "n": np.array(int(n))} for n in candidates[:-1]), arrays]
    return [_linear_arrays(_linear(kind, penalty, seen, target)) for penalty in candidates]


def _sparse(
    shares: Sequence[float], scaled: Float32Array, bar: IntArray, symbol: IntArray, target: FloatArray | IntArray, n_lags: int
) -> list[dict[str, np.ndarray]]:
    """A model for each of some penalties, fitted on rows of a whole table.

    Args:
        scaled: shape (n_bars, n_symbols, n_features).
        n_lags: bars that are read, the one decided after included.
    """
    centred, n_features = target - target.mean(), scaled.shape[2]
    worth = np.abs([_column_of(scaled, bar, symbol, lag).T @ centred for lag in range(n_lags)]).ravel()
    lag, column = np.divmod(np.argsort(-worth, kind="stable")[:_SCREENED], n_features)
    seen = _gather(scaled, bar, symbol, lag, column)
    mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    standard = (seen - mean) / np.where(deviation > 0, deviation, 1.0)
    highest = np.abs(standard.T @ centred).max() / len(target)
    _, paths, _ = lasso_path(standard, centred.astype(np.float64), alphas=highest * np.sort(np.array(shares))[::-1])
    by_share = dict(zip(np.sort(np.array(shares))[::-1].tolist(), paths.T, strict=True))
    return [_relaxed(seen, target, lag, column, np.flatnonzero(by_share[share])) for share in shares]


def _relaxed(seen: FloatArray, target: FloatArray | IntArray, lag: IntArray, column: IntArray, kept: IntArray) -> dict[str, np.ndarray]:
    """A logistic regression on the columns that the lasso kept; the share of rises where it kept none."""
    if not len(kept):
        rises = target.mean()
        fitted = {"coefficients": np.empty(0), "intercept": np.log(rises / (1 - rises))}
    else:
        fitted = _linear_arrays(_linear("logistic", _RELAXED, seen[:, kept], target))
    return fitted | {"lag": lag[kept].astype(np.int64), "column": column[kept].astype(np.int64)}


def _column_of(scaled: Float32Array, bar: IntArray, symbol: IntArray, lag: int) -> FloatArray:
    """What rows read of the bar so many before their own, shape (n, n_features); 0 before the first."""
    return np.where((bar >= lag)[:, None], scaled[np.maximum(bar - lag, 0), symbol], 0.0).astype(np.float64)


def _gather(scaled: Float32Array, bar: IntArray, symbol: IntArray, lag: IntArray, column: IntArray) -> FloatArray:
    """Some columns of earlier bars, shape (n, n_columns); 0 before the first."""
    before = bar[:, None] - lag
    return np.where(before >= 0, scaled[np.maximum(before, 0), symbol[:, None], column], 0.0).astype(np.float64)


def _parts(model: Regression, values: Float32Array, n_lags: int) -> Float32Array:
    """What each bar adds to the score of its own decision and of the next ones, shape (n_bars, n_symbols, n_lags)."""
    scaled, arrays = model.scaler.transform(values), model.arrays
    weights = np.zeros((scaled.shape[2], n_lags))
    weights[arrays["column"], arrays["lag"]] = arrays["coefficients"]
    parts = scaled.astype(np.float64) @ weights
    parts[..., 0] += arrays["intercept"]
    return parts.astype(np.float32)


def _linear_arrays(model: LogisticRegression | Ridge) -> dict[str, np.ndarray]:
    return {"coefficients": np.ravel(model.coef_).astype(np.float64), "intercept": np.ravel(model.intercept_)[0]}


def _tree_arrays(model: HistGradientBoostingClassifier) -> dict[str, np.ndarray]:
    """Trees as arrays; scikit-learn has no public way to read them, so a test holds this against its own answers."""
    trees = [stage[0].nodes for stage in model._predictors]
    width = max(len(nodes) for nodes in trees)
    columns = {"feature": "feature_idx", "threshold": "num_threshold", "left": "left", "right": "right", "value": "value"}
    arrays = {name: np.stack([np.pad(nodes[field], (0, width - len(nodes))) for nodes in trees]) for name, field in columns.items()}
    leaves = np.stack([np.pad(nodes["is_leaf"], (0, width - len(nodes)), constant_values=1) for nodes in trees]).astype(bool)
    kinds = {"feature": np.int64, "left": np.int64, "right": np.int64}
    arrays = {name: array.astype(kinds.get(name, np.float64)) for name, array in arrays.items()}
    return arrays | {"feature": np.where(leaves, -1, arrays["feature"]), "intercept": np.ravel(model._baseline_prediction)[0]}


def _score(arrays: dict[str, np.ndarray], rows: Float32Array) -> FloatArray:
    """What a model tells; a row's answer does not depend on the other rows, to the last bit."""
    if "lag" in arrays:
        bar, symbol = (each.ravel() for each in np.indices(rows.shape[:2]))
        return _score_at(arrays, rows, bar, symbol).reshape(rows.shape[:2])
    if "coefficients" in arrays:
        return np.asarray(np.einsum("...f,f->...", rows.astype(np.float64), arrays["coefficients"]) + arrays["intercept"])
    nodes = (arrays["feature"], arrays["threshold"], arrays["left"], arrays["right"], arrays["value"])
    flat = np.ascontiguousarray(rows.reshape(-1, rows.shape[-1]))
    return _tree_sums(flat, *nodes, int(arrays.get("n", len(nodes[0])))).reshape(rows.shape[:-1]) + arrays["intercept"]


def _score_at(arrays: dict[str, np.ndarray], table: Float32Array, bar: IntArray, symbol: IntArray) -> FloatArray:
    """The same after some bars of a whole table, shape (n,)."""
    if "lag" not in arrays:
        return _score(arrays, table[bar, symbol])
    seen = _gather(table, bar, symbol, arrays["lag"], arrays["column"])
    return np.asarray(np.einsum("nf,f->n", seen, arrays["coefficients"]) + arrays["intercept"])


@njit(cache=True)
def _tree_sums(rows, feature, threshold, left, right, value, n_trees):  # type: ignore[no-untyped-def]
    """The sum of each row's leaves over the first trees."""
    sums = np.zeros(len(rows))
    for i in range(len(rows)):
        for tree in range(n_trees):
            node = 0
            while feature[tree, node] >= 0:
                low = rows[i, feature[tree, node]] <= threshold[tree, node]
                node = left[tree, node] if low else right[tree, node]
            sums[i] += value[tree, node]
    return sums


def _loss(kind: RegressionKind, target: FloatArray | IntArray, scores: FloatArray) -> float:
    """Mean loss of a row: log loss, or the squared error of `ridge`."""
    if kind == "ridge":
        return float(np.mean((scores - target) ** 2))
    return float(np.mean(np.logaddexp(0.0, np.where(target > 0, -scores, scores))))


def _growth(bars: Bars, scores: FloatArray, bands: FloatArray, train: Range, env: EnvSpec) -> FloatArray:
    """Log growth over the training range of an account for each band, costs paid; shape (n_bands,)."""
    env = with_initial_cash(env, bars, train)
    arrays, n = ledger.make_market_arrays(bars), len(bands)
    stepper = ledger.Stepper(ledger.Accounts.open(n, bars.n_symbols, env.cash), arrays, env)
    for decided in range(max(train.start - 1, 0), train.stop - 1):
        bar = np.full(n, decided, dtype=np.int64)
        stepper.step(bar, target_weights(_actions(scores[decided], bands[:, None]), arrays.n_tradable[bar], env))
    return np.log(np.maximum(stepper.accounts.equity, 1e-9) / env.cash)
