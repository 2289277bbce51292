"""Scores over recombined histories: how much the order of years that happened to be decides a score.

Combinatorial purged cross-validation over the run's own test bars. They are cut into groups; for every choice of some of them a linear
model is fitted on the others and decides over the chosen ones. Every group is decided as often as it is chosen, so the decisions make
several whole paths, each an account in the ledger. A model learns from bars after those it decides: **the scores are neither a forecast
nor a gate**, their spread alone is of use. Policies are left out, since each split would train them anew; a path of returns that was
recorded once cannot be recombined, since its blocks would stay what they were.

Rows whose return reaches over a boundary are purged on both sides, and an embargo follows every chosen group. Features of bars behind it
still look back into it.

Source: López de Prado (2018), "Advances in Financial Machine Learning", chapters 7 and 12; splits and paths are skfolio's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import RootModel

from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import periods_of, session_returns, sharpe_ratio
from ploutos.evaluation.spec import RecombinationSpec
from ploutos.evaluation.summary import Recombined
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.progress import counted
from ploutos.store import Kind, write_json
from ploutos.strategies.base import PrecomputedTargets
from ploutos.strategies.regression import Regression, decide, fit_on
from ploutos.strategies.spec import RegressionSpec
from ploutos.types import IntArray
from ploutos.walk_forward import Fold, FoldSpec, Range

LINEAR = ("logistic", "ridge")
"""Kinds that are cheap enough to be fitted for every split."""
_FEWEST_SESSIONS = 20


@dataclass(frozen=True)
class Split:
    """One choice of groups.

    Attributes:
        train: runs of bars to learn from.
        test: chosen groups.
        paths: to which path each chosen group goes.
    """

    train: tuple[Range, ...]
    test: tuple[Range, ...]
    paths: tuple[int, ...]


def plan_splits(tested: Range, spec: RecombinationSpec, purge: int, embargo: int) -> tuple[Split, ...]:
    """Every choice of groups of some bars.

    Args:
        purge: bars dropped on both sides of a chosen group.
        embargo: further bars dropped behind it.
    """
    from skfolio.model_selection import CombinatorialPurgedCV  # a third of a second, and only here

    cv = CombinatorialPurgedCV(spec.groups, spec.test_groups, purge, embargo)
    chosen = cv.split(np.empty((tested.n_bars, 1)))
    return tuple(
        Split(_runs(train + tested.start), tuple(_runs(each + tested.start)[0] for each in tests), tuple(int(each) for each in paths))
        for (train, tests), paths in zip(chosen, cv.get_path_ids(), strict=True)
    )


def _runs(bars: IntArray) -> tuple[Range, ...]:
    """Neighbouring bars as ranges."""
    return tuple(Range(start=int(run[0]), stop=int(run[-1]) + 1) for run in np.split(bars, np.flatnonzero(np.diff(bars) > 1) + 1))


def recombine(
    bars: Bars, features: FeatureSet, folds: Sequence[Fold], models: Sequence[Regression], env: EnvSpec, regression: RegressionSpec,
    fold_spec: FoldSpec, spec: RecombinationSpec,
) -> tuple[Recombined, ...]:  # fmt: skip
    """Scores of linear models over recombined test bars; none where those are too few for so many groups.

    Args:
        models: of the first fold. Their penalties are taken over, which were chosen before every tested bar.
    """
    tested = Range(start=folds[0].test.start, stop=folds[-1].test.stop)
    purge = fold_spec.purge_bars + regression.horizon_bars - 1
    sessions = len(np.unique(bars.sessions[tested.start : tested.stop]))
    if sessions < _FEWEST_SESSIONS * spec.groups or tested.n_bars // spec.groups <= 2 * (purge + fold_spec.embargo_bars + 1):
        return ()
    splits = plan_splits(tested, spec, purge, fold_spec.embargo_bars)
    linear = [model for model in models if model.kind in LINEAR]
    return tuple(_recombined(bars, features, tested, splits, model, env, regression, fold_spec, spec) for model in linear)


def _recombined(
    bars: Bars, features: FeatureSet, tested: Range, splits: Sequence[Split], known: Regression, env: EnvSpec, regression: RegressionSpec,
    fold_spec: FoldSpec, spec: RecombinationSpec,
) -> Recombined:  # fmt: skip
    as_before = regression.model_copy(update={"penalties": (known.choices["candidate"],)})
    gap = fold_spec.purge_bars + fold_spec.embargo_bars
    n_paths = max(path for split in splits for path in split.paths) + 1
    tables = np.full((n_paths, bars.n_bars, bars.n_symbols), np.nan)
    for split in counted(splits, "splits"):
        model = fit_on(bars, features, split.train, gap, env, as_before, known.kind)
        for part, path in zip(split.test, split.paths, strict=True):
            decided = slice(part.start - 1, part.stop - 1)
            tables[path, decided] = decide(bars, features, model, env, decided)
    strategies = [PrecomputedTargets(f"path-{path}", table) for path, table in enumerate(tables)]
    result = run_backtests(bars, None, [Segment(tested)], strategies, env, keep=())
    periods = periods_of(bars, result)
    return Recombined(
        slug=known.kind,
        groups=spec.groups,
        test_groups=spec.test_groups,
        n_splits=len(splits),
        purge_bars=fold_spec.purge_bars + regression.horizon_bars - 1,
        embargo_bars=fold_spec.embargo_bars,
        sharpe=tuple(float(sharpe_ratio(session_returns(path, periods), periods.per_year)) for path in result.equity),
        total_return=tuple(float(path[-1] / path[0] - 1) for path in result.equity),
    )


class _Recombined(RootModel[tuple[Recombined, ...]]):
    """What a file holds."""


def write_recombined(found: Sequence[Recombined], path: Path) -> None:
    """Write it as JSON."""
    write_json(path, _Recombined(tuple(found)).model_dump(mode="json"))


def read_recombined(path: Path) -> tuple[Recombined, ...]:
    """Read what `write_recombined` wrote."""
    return _Recombined.model_validate_json(path.read_bytes()).root


RECOMBINED = Kind("recombined", ".json", write_recombined, read_recombined)
