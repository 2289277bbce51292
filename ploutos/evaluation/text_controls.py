"""Did it help that a run read texts? What the readings are worth by themselves, and what deciders make of them.

Every supervised model of the run is fitted four times, fold by fold, on the same bars, costs and choices: on prices alone, on prices and
the language model's readings (the run's own), on prices and a bag of words of the same texts, and on prices and the readings shuffled over
the texts. All four are accounts of the same ledger, and their differences have intervals, corrected for how many there are. Policies learn
from the readings too and have no such ablations: training them four times is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ploutos.advisor.cutoff import CutoffEvidence
from ploutos.advisor.texts import SAID, scores_of, with_texts, without_texts
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import periods_of, session_returns, sharpe_ratio
from ploutos.evaluation.significance import estimate, holm, mean, significant_sign
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import Number, Part
from ploutos.evaluation.text_skill import FEWEST, TextSkill, bag_of_words, outcomes_of_texts, text_skill, with_outcomes
from ploutos.features.build import FeatureSet
from ploutos.market.bars import Bars
from ploutos.progress import counted
from ploutos.seeding import generator, seed_integer
from ploutos.store import Kind, write_json
from ploutos.strategies.regression import Regression, fit_regression, regression_strategy
from ploutos.strategies.spec import RegressionSpec
from ploutos.walk_forward import Fold

Reads = Literal["prices", "model", "words", "shuffled"]
READS: tuple[Reads, ...] = ("prices", "model", "words", "shuffled")
_PAIRS: tuple[tuple[Reads, Reads], ...] = (
    ("model", "prices"), ("words", "prices"), ("shuffled", "prices"), ("model", "words"), ("model", "shuffled"),
)  # fmt: skip


class TextAccount(Part):
    """A supervised model that reads one kind of features beside prices."""

    kind: str
    """Of the model."""
    reads: Reads
    """Beside prices: nothing, the language model's readings, a bag of words, or shuffled readings."""
    total_return: float
    """Out of sample, net of costs."""
    sharpe: Number
    """Sharpe ratio, yearly."""


class TextPair(Part):
    """One such account less another of the same kind."""

    kind: str
    """Of the models."""
    of: Reads
    """What the first one reads."""
    against: Reads
    """What the other one reads."""
    difference: Number
    """Of the yearly mean return, decimal."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of it."""
    p: Number
    """Of no difference, both sides, corrected for the number of pairs."""
    sign: Literal[-1, 0, 1]
    """Of the difference where chance does not explain it."""


class TextControls(Part):
    """What reading texts was worth to a run; its `texts.json`."""

    model: str
    """Who read."""
    mask: str
    """What was hidden of the texts."""
    n_texts: int
    """Texts that were read."""
    n_abstained: int
    """Of them without a usable answer."""
    horizon_bars: int
    """How long a reading stands, and after which it is judged."""
    n_events: int
    """Symbols and bars with texts whose outcome is known."""
    skill: TextSkill | None
    """What the readings are worth by themselves; None with too few events for a test."""
    accounts: tuple[TextAccount, ...]
    """Supervised models out of sample; none where the run has none."""
    pairs: tuple[TextPair, ...]
    """Their differences."""

    def pair(self, kind: str, of: Reads, against: Reads) -> TextPair:
        """One of the differences."""
        return next(each for each in self.pairs if (each.kind, each.of, each.against) == (kind, of, against))


def text_controls(
    bars: Bars, features: FeatureSet, readings: pd.DataFrame, folds: Sequence[Fold], models: Sequence[Sequence[Regression]], env: EnvSpec,
    regression: RegressionSpec, stands_bars: int, known: CutoffEvidence, bootstrap: BootstrapSpec, seed: int, draws: int,
) -> TextControls:  # fmt: skip
    """Hold a run's readings of texts against a bag of words and against shuffled texts.

    Args:
        features: of the run, those of texts last.
        models: supervised ones fitted on them, by fold and kind; none of a run without.
        known: how far the model's memory reaches.
        draws: shuffles of the readings by themselves; models are fitted on one more.
    """
    scored, model = scores_of(readings), readings.attrs["model"]
    n_events = len(outcomes_of_texts(scored, bars, stands_bars))
    reveal = readings.attrs["mask"] != "all"
    skill = text_skill(readings, bars, stands_bars, known, bootstrap, seed, model=model, reveal=reveal, draws=draws)\
        if n_events >= FEWEST else None  # fmt: skip
    prices = without_texts(features)
    others = {
        "prices": prices,
        "words": with_texts(prices, words_of(scored, bars, stands_bars), bars, stands_bars),
        "shuffled": with_texts(prices, scores_of(shuffled(readings, seed)), bars, stands_bars),
    }
    accounts, pairs = _decide(bars, features, others, folds, models, env, regression, bootstrap, seed) if any(models) else ((), ())
    return TextControls(
        model=model, mask=readings.attrs["mask"], n_texts=len(readings), n_abstained=int(readings["abstained"].sum()),
        horizon_bars=stands_bars, n_events=n_events, skill=skill, accounts=accounts, pairs=pairs,
    )  # fmt: skip


def words_of(scored: pd.DataFrame, bars: Bars, horizon: int) -> pd.DataFrame:
    """What a bag of words says in the model's place: a score and how sure it is; nothing of surprise and horizon."""
    scores = np.nan_to_num(bag_of_words(with_outcomes(scored, bars, horizon), horizon))
    return scored.assign(score=scores, confidence=np.abs(scores), surprise=0.0, horizon=0.0)


def shuffled(readings: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The readings exchanged among the texts: what the model says of each when it is shown another one."""
    order = generator(seed, "shuffled readings").permutation(len(readings))
    return readings.assign(**{name: readings[name].to_numpy()[order] for name in SAID})


def _decide(
    bars: Bars, features: FeatureSet, others: Mapping[str, FeatureSet], folds: Sequence[Fold], models: Sequence[Sequence[Regression]],
    env: EnvSpec, regression: RegressionSpec, bootstrap: BootstrapSpec, seed: int,
) -> tuple[tuple[TextAccount, ...], tuple[TextPair, ...]]:  # fmt: skip
    kinds = [model.kind for model in models[0]]
    fitted: dict[tuple[str, str], list[Regression]] = {(kind, "model"): [own[n] for own in models] for n, kind in enumerate(kinds)}
    for fold, kind, (reads, values) in counted(list(product(folds, kinds, others.items())), "models"):
        model = fit_regression(bars, values, fold, env, regression, kind, seed_integer(seed, "regression", fold.index))
        fitted.setdefault((kind, reads), []).append(model)
    seen = {**others, "model": features}
    strategies = [
        replace(regression_strategy(bars, seen[reads], folds, fitted[kind, reads], env), slug=f"{kind}-{reads}")
        for kind in kinds
        for reads in READS
    ]
    result = run_backtests(bars, None, [Segment(fold.test) for fold in folds], strategies, env, keep=())
    periods = periods_of(bars, result)
    returns = {slug: session_returns(path, periods) for slug, path in zip(result.slugs, result.equity, strict=True)}
    accounts = tuple(
        TextAccount(
            kind=kind, reads=reads, total_return=float(result.equity[result.row(f"{kind}-{reads}"), -1] / result.equity[0, 0] - 1),
            sharpe=sharpe_ratio(returns[f"{kind}-{reads}"], periods.per_year),
        )
        for kind in kinds
        for reads in READS
    )  # fmt: skip
    asked = [(kind, of, against) for kind in kinds for of, against in _PAIRS]
    found = [
        estimate(mean, [returns[f"{kind}-{of}"] - returns[f"{kind}-{against}"]], bootstrap, seed).times(periods.per_year)
        for kind, of, against in asked
    ]
    pairs = tuple(
        TextPair(
            kind=kind, of=of, against=against, difference=each.value, low=each.low, high=each.high, p=p,
            sign=significant_sign(each.value, p, bootstrap.confidence),
        )
        for (kind, of, against), each, p in zip(asked, found, holm([each.p for each in found]), strict=True)
    )  # fmt: skip
    return accounts, pairs


def write_controls(controls: TextControls, path: Path) -> None:
    """Write them as JSON."""
    write_json(path, controls.model_dump(mode="json"))


def read_controls(path: Path) -> TextControls:
    """Read what `write_controls` wrote."""
    return TextControls.model_validate_json(path.read_bytes())


TEXT_CONTROLS: Kind[Any] = Kind("texts", ".json", write_controls, read_controls)
