"""Do a model's readings of texts say anything about what the price does next, and more than cheaper readers of the same words do?

Three readers, on the same texts and the same outcomes. The model; a bag of words (TF-IDF and logistic regression), refitted again and
again on texts whose outcome was known by then; and the model's own readings of other texts, which is what it says when it is shown
shuffled ones, since a reading depends on nothing but the words. Every reader is held to the same size of position, so that no one wins
by being loud.
"""

import math
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ploutos.advisor.cutoff import CutoffEvidence, tag_dates
from ploutos.advisor.texts import scores_of
from ploutos.errors import DataError
from ploutos.evaluation.advice_controls import rank_of
from ploutos.evaluation.contamination import COUNTS
from ploutos.evaluation.significance import estimate, mean, significant_sign
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import Number, Part, PlaceboRank
from ploutos.market.bars import Bars
from ploutos.seeding import generator
from ploutos.types import FloatArray

FEWEST = 60
"""Symbols and bars with texts and a known outcome, for a bag of words to learn from and a test."""
_FIRST, _GROWTH = 30, 1.25
_POWER = 0.8


class ReaderScore(Part):
    """What one reader's scores were worth."""

    reader: Literal["model", "words"]
    """Who read."""
    n_said: int
    """Texts on which it took a side."""
    right: Number
    """Share of those that moved its way."""
    value: Number
    """Mean log return of its positions, each of mean size 1, per symbol and bar with texts; before costs."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of it."""
    p: Number
    """Of no value, both sides."""
    sign: Literal[-1, 0, 1]
    """Of the value where chance does not explain it."""


class TextSkill(Part):
    """What reading texts was worth."""

    model: str
    """Who read."""
    horizon_bars: int
    """Bars from the decision to the close that the outcome is taken at."""
    n_texts: int
    """Texts that were read."""
    n_abstained: int
    """Of them without a usable answer."""
    n_events: int
    """Symbols and bars with texts that are compared: those after the bag of words had something to learn from."""
    n_counting: int
    """Of them on sessions that can be evidence for this model."""
    readers: tuple[ReaderScore, ...]
    """The model first."""
    more: ReaderScore
    """The model less the bag of words, in pairs."""
    detectable: Number
    """Smallest true value of the model that this many texts show in four of five cases."""
    shuffled: PlaceboRank
    """The model's readings among shuffled ones; returns are mean values."""


def text_skill(
    readings: pd.DataFrame, bars: Bars, horizon: int, known: CutoffEvidence, bootstrap: BootstrapSpec, seed: int, *, model: str,
    is_mock: bool = False, reveal: bool = False, draws: int = 200,
) -> TextSkill:  # fmt: skip
    """Hold three readers of the same texts against what prices did.

    A decision falls after the close of the first bar that knows a text, is filled at the next open and judged at the close `horizon` bars
    after the decision. One that cannot be filled or judged is left out.

    Args:
        readings: from `TextReader.read`.
        known: how far the model's memory reaches.
        draws: shuffles.

    Raises:
        DataError: there are too few texts whose outcome is known.
    """
    events = outcomes_of_texts(scores_of(readings), bars, horizon)
    if len(events) < FEWEST:
        raise DataError(
            f"{len(events)} symbols and bars have texts and a known outcome; expected {FEWEST} or more, for a bag of words to learn from "
            "and a test"
        )
    words = bag_of_words(events, horizon)
    tested = np.isfinite(words)
    events, words = events[tested], words[tested]
    outcome, said = events["outcome"].to_numpy(), events["score"].to_numpy()
    value, plain = positions(said) * outcome, positions(words) * outcome
    tags = tag_dates(bars.sessions[events["bar"].to_numpy()], known, is_mock, reveal)
    own = _score("model", said, outcome, value, bootstrap, seed)
    random = generator(seed, "shuffled texts")
    drawn = np.array([float((positions(said[random.permutation(len(said))]) * outcome).mean()) for _ in range(draws)])
    error = estimate(mean, [value], bootstrap, seed).error
    return TextSkill(
        model=model, horizon_bars=horizon, n_texts=len(readings), n_abstained=int(readings["abstained"].sum()), n_events=len(events),
        n_counting=sum(tag in COUNTS for tag in tags), readers=(own, _score("words", words, outcome, plain, bootstrap, seed)),
        more=_score("model", said, outcome, value - plain, bootstrap, seed),
        detectable=float(error * (norm.ppf((1 + bootstrap.confidence) / 2) + norm.ppf(_POWER))) if math.isfinite(error) else None,
        shuffled=rank_of(float(value.mean()), drawn),
    )  # fmt: skip


def outcomes_of_texts(scored: pd.DataFrame, bars: Bars, horizon: int) -> pd.DataFrame:
    """The same with `outcome`, where it is known; in the order of time."""
    told = with_outcomes(scored, bars, horizon)
    return told[np.isfinite(told["outcome"])].reset_index(drop=True)


def with_outcomes(scored: pd.DataFrame, bars: Bars, horizon: int) -> pd.DataFrame:
    """The same with `outcome`, the log return from the next open to the close `horizon` bars after the decision; nan where none is."""
    column = {symbol: s for s, symbol in enumerate(bars.symbols)}
    bar, s = scored["bar"].to_numpy(), scored["symbol"].map(column).to_numpy(dtype=np.int64)
    known, last = bar + horizon < bars.n_bars, bars.n_bars - 1
    fill, judged = np.minimum(bar + 1, last), np.minimum(bar + horizon, last)
    filled = np.where(known & bars.tradable[fill, s], bars.open[fill, s], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return scored.assign(outcome=np.log(bars.mark[judged, s] / filled))


def positions(scores: FloatArray) -> FloatArray:
    """Scores at a mean size of 1; nothing where no score takes a side."""
    size = float(np.abs(scores).mean())
    return scores / size if size > 0 else scores * 0.0


def bag_of_words(events: pd.DataFrame, horizon: int) -> FloatArray:
    """Score of each event by words alone, -1..1, shape (n,); nan for the first ones, which have nothing to learn from.

    The first thirty are learnt from, and each time that there are a quarter more everything is learnt anew, from the events before whose
    outcome was known by then. So a score depends on nothing that comes after it, not even on how much does.
    """
    scores, edges = np.full(len(events), np.nan), [_FIRST]
    while edges[-1] < len(events):
        edges.append(round(edges[-1] * _GROWTH))
    bar, outcome, words = (events[name].to_numpy() for name in ("bar", "outcome", "asked"))
    for first, stop in pairwise(edges):
        learnt = (bar + horizon <= bar[first]) & np.isfinite(outcome)
        rose = outcome[learnt] > 0
        if rose.all() or not rose.any():
            scores[first:stop] = 0.0
            continue
        vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        try:
            seen = vectors.fit_transform(words[learnt])
        except ValueError:  # scikit-learn's word for texts that share no word
            scores[first:stop] = 0.0
            continue
        fitted = LogisticRegression(max_iter=1000).fit(seen, rose)
        scores[first:stop] = 2 * fitted.predict_proba(vectors.transform(words[first:stop]))[:, 1] - 1
    return scores


def _score(
    reader: Literal["model", "words"], said: FloatArray, outcome: FloatArray, value: FloatArray, bootstrap: BootstrapSpec, seed: int
) -> ReaderScore:
    found, sided = estimate(mean, [value], bootstrap, seed), (said != 0) & (outcome != 0)
    numbers: dict[str, Any] = {"value": found.value, "low": found.low, "high": found.high, "p": found.p}
    right = float((np.sign(said) == np.sign(outcome))[sided].mean()) if sided.any() else math.nan
    return ReaderScore(
        reader=reader, n_said=int(sided.sum()), right=right, sign=significant_sign(found.value, found.p, bootstrap.confidence), **numbers
    )
