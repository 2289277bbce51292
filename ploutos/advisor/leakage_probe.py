"""`ploutos llm probe`: does the model know which asset its blind prompts are about, and how far does its memory reach?

Re-identification shows the model the very prompts of a run and asks which symbol and which year they are. Questions are
spread evenly over symbols and years and the choices stand in another order each time, so neither a favourite answer nor
a favourite place beats guessing.

Recall names a symbol and a month, shows no data, and asks whether the price rose. The effective cutoff is the month up to
which the answers are most likely better than a coin's, and a coin's after it; right rises and right falls weigh alike, so
that always saying "up" is a coin too. Its p-value comes from giving the answers to other months: a habit scores as well
there, a memory does not.

A probe that finds nothing says little if it could find little. So the same questions are put to simulated models that know a fifth of the
months up to some day and guess the rest, and how often those are found out is kept with the answer.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, create_model
from scipy.special import xlogy
from scipy.stats import binomtest

from ploutos.advisor.advisor import Advisor, make_advisor, prompt_at
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import CutoffStore, HitRate, ModelRecord, MonthScore, Power, ProbeResult, Reach, Recall
from ploutos.advisor.prompts import TEMPLATE_VERSION, with_schema
from ploutos.advisor.schedule import DecisionTime, decision_times
from ploutos.errors import ConfigError, DataError, LLMError
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.llm.backends.base import Message, Messages
from ploutos.llm.client import Outcome, Query, schema_of
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.seeding import generator
from ploutos.settings import Settings
from ploutos.types import Float32Array, FloatArray, IntArray, TimeArray
from ploutos.walk_forward import FoldSpec, plan_folds, tested_decisions

_MOST_CHOICES = 20
_CONFIDENCE, _LEVEL = 0.95, 0.05
_PERMUTATIONS = 1999
_KNOWN = 0.2
_SIMULATED, _SIMULATED_PERMUTATIONS, _REACHES = 200, 99, 4
_NONE = -1
_BLIND_HEAD = """The numbers below are about one asset of a real market; its name and all dates were taken away.
Say what they are about; the year is that of bar t-0. Guess when you are not sure. Answer with one JSON object:
"""
_RECALL_HEAD = """Answer from memory, without data, about the price of one asset; guess when you are not sure.
Answer with one JSON object: direction is up if the asset closed the month higher than the month before, else down.
"""
_FormT = TypeVar("_FormT", bound=BaseModel)


class Direction(BaseModel):
    """Whether a month closed higher than the one before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    direction: Literal["up", "down"]


def probe_run(
    llm: LLMConfig, data: DataSpec, features: FeatureSpec, folds: FoldSpec, settings: Settings, questions: int, seed: int
) -> tuple[ModelRecord, ProbeResult]:
    """Probe the model of a run on that run's bars and test ranges, and write what was found into the cutoff store.

    Args:
        llm, data, features, folds: the run's.
        questions: of each kind at most.

    Returns:
        The cutoff store's record of the model, and this probe, which is its last.

    Raises:
        ConfigError: the advisor is a mock or the bars are simulated.
        LLMError: the server cannot be asked, or nothing it said can be used.
        DataError, HistoryError: the bars cannot be used, or hold nothing to choose from.
    """
    if data.source == "synthetic":
        raise ConfigError("data.source is synthetic, and nobody can remember simulated bars; probe with bars of a real market")
    advisor = make_advisor(llm, settings)
    require_memory(advisor)
    bars = load(data, settings.datasets_root)
    first_bar, last_bar = tested_decisions(plan_folds(bars, build_features(bars, features), folds))
    probed = probe(advisor, bars, market_features(bars), first_bar, last_bar, questions, seed)
    record = CutoffStore(settings.cutoffs_root).add(advisor.config.provider.value, advisor.config.model, advisor.digest, probed)
    return record, probed


def require_memory(advisor: Advisor) -> None:
    """Refuse a mock.

    Raises:
        ConfigError: the advisor is one.
    """
    if advisor.is_mock:
        raise ConfigError(
            "llm.provider is mock, a fixed rule, which has no memory to probe; name a model, "
            "such as --set llm.provider=ollama --set llm.model=llama3.2"
        )


def probe(advisor: Advisor, bars: Bars, market: Float32Array, first_bar: int, last_bar: int, questions: int, seed: int) -> ProbeResult:
    """Ask both kinds of questions.

    Args:
        market: shape (n_bars, n_symbols, 28), from `market_features`.
        first_bar, last_bar: inclusive range of the decisions whose prompts are shown. Months are taken from all bars.
        questions: of each kind at most.

    Raises:
        DataError: there is no choice of symbols or years, and no month follows another.
        LLMError: nothing that was said can be used.
    """
    require_memory(advisor)
    sightings = _blind_queries(advisor, bars, market, first_bar, last_bar, questions, seed)
    months, rose, columns = _months_to_ask(bars, questions, seed)
    recalls = [
        (m, k, Query(_recall_prompt(bars.symbols[columns[k]], months[m]), Direction)) for m, k in np.argwhere(rose != _NONE).tolist()
    ]
    if not sightings and not recalls:
        raise DataError("the bars hold one symbol, one year of tests and no month after another: there is nothing to ask about")
    seen = _answers(advisor, [query for _, query in sightings])
    said = _answers(advisor, [query for _, _, query in recalls])
    spent: list[Outcome[Any]] = [*seen, *said]
    reidentification = {
        name: _hits([truth for truth, _ in sightings], seen, name, n_choices) for name, n_choices in _n_choices(sightings).items()
    }
    recall = None
    if recalls:
        answers = np.full(rose.shape, _NONE)
        for (m, k, _), outcome in zip(recalls, said, strict=True):
            if outcome.answer is not None:
                answers[m, k] = outcome.answer.direction == "up"
        scored = score_recall(tuple(bars.symbols[c] for c in columns), months, rose, answers, seed)
        recall = scored.model_copy(update={"power": power_of(months, rose, answers, seed, advisor.config.grey_months)})
    return ProbeResult(
        probed_at=datetime.now(UTC).replace(microsecond=0), source=bars.source, symbols=bars.symbols, questions=questions, seed=seed,
        template=TEMPLATE_VERSION, n_asked=len(spent), n_abstained=sum(o.abstained for o in spent), tokens=sum(o.tokens for o in spent),
        seconds=sum(o.seconds for o in spent), reidentification=reidentification, recall=recall,
    )  # fmt: skip


def _answers(advisor: Advisor, queries: Sequence[Query[_FormT]]) -> list[Outcome[_FormT]]:
    outcomes = advisor.query_all(queries)
    if outcomes and all(outcome.abstained for outcome in outcomes):
        raise LLMError(f"{advisor.name} gave no usable answer to {len(outcomes)} questions: {outcomes[0].why}; run: ploutos llm check")
    return outcomes


# --- re-identification


_Sighting = tuple[dict[str, Any], Query[BaseModel]]


def _blind_queries(
    advisor: Advisor, bars: Bars, market: Float32Array, first_bar: int, last_bar: int, questions: int, seed: int
) -> list[_Sighting]:
    """Blind prompts of a run, each with what it is about; none when there is no choice of symbols or years."""
    random = generator(seed, "re-identification")
    times = decision_times(bars, market, first_bar, last_bar, advisor.config)
    years = bars.available_at[[time.bar for time in times]].astype("datetime64[Y]").astype(int) + 1970
    symbols = sorted({bars.symbols[time.column] for time in times})
    queries: list[_Sighting] = []
    cadence = advisor.config.cadence_bars
    for i in _spread(times, years, questions, random):
        time, symbol = times[i], bars.symbols[times[i].column]
        offered = {"symbol": _offer(symbols, symbol, random), "year": random.permutation(np.unique(years)).tolist()}
        offered = {name: choices for name, choices in offered.items() if len(choices) > 1}
        if offered:
            prompt = prompt_at(bars, lambda t, s: market[t, s], symbol, bars.available_at[time.bar], cadence_bars=cadence)
            queries.append(({"symbol": symbol, "year": int(years[i])}, _sighting_query(prompt, offered)))
    return queries


def _spread(times: Sequence[DecisionTime], years: IntArray, n: int, random: np.random.Generator) -> list[int]:
    """Positions of n decision times, as evenly as may be over symbols, then over years."""
    pools: dict[tuple[int, int], list[int]] = {}
    for i in random.permutation(len(times)).tolist():
        pools.setdefault((times[i].column, int(years[i])), []).append(i)
    by_symbol, by_year = Counter[int](), Counter[int]()
    chosen: list[int] = []
    while pools and len(chosen) < n:
        column, year = min(pools, key=lambda cell: (by_symbol[cell[0]], by_year[cell[1]]))
        pool = pools[column, year]
        chosen.append(pool.pop())
        if not pool:
            del pools[column, year]
        by_symbol[column] += 1
        by_year[year] += 1
    return chosen


def _offer(symbols: Sequence[str], truth: str, random: np.random.Generator) -> list[str]:
    """The true symbol among others, 20 at most, in random order."""
    others = random.permutation([symbol for symbol in symbols if symbol != truth])[: _MOST_CHOICES - 1]
    return random.permutation([truth, *others.tolist()]).tolist()


def _sighting_query(prompt: Messages, offered: dict[str, list[Any]]) -> Query[BaseModel]:
    literal: Any = Literal
    fields: dict[str, Any] = {name: (literal[tuple(choices)], ...) for name, choices in offered.items()}
    form = create_model("Sighting", __config__=ConfigDict(frozen=True, extra="forbid"), **fields)
    lines = "".join(f"{name}: one of {', '.join(map(str, choices))}\n" for name, choices in offered.items())
    return Query((Message("system", with_schema(_BLIND_HEAD + lines, schema_of(form))), prompt[-1]), form)


def _n_choices(sightings: Sequence[_Sighting]) -> dict[str, int]:
    """How many answers each part of the question offers."""
    if not sightings:
        return {}
    properties = schema_of(sightings[0][1].form)["properties"]
    return {name: len(properties[name]["enum"]) for name in properties}


def _hits(truths: Sequence[dict[str, Any]], outcomes: Sequence[Outcome[BaseModel]], name: str, n_choices: int) -> HitRate:
    pairs = [(truth[name], getattr(o.answer, name)) for truth, o in zip(truths, outcomes, strict=True) if o.answer is not None]
    n, hits = len(pairs), sum(truth == answer for truth, answer in pairs)
    chance = max(1 / n_choices, Counter(truth for truth, _ in pairs).most_common(1)[0][1] / n)
    interval = binomtest(hits, n).proportion_ci(_CONFIDENCE, "exact")
    return HitRate(
        n_choices=n_choices, n=n, hits=hits, rate=hits / n, low=float(interval.low), high=float(interval.high), chance=chance,
        p_value=float(binomtest(hits, n, chance, alternative="greater").pvalue),
    )  # fmt: skip


# --- recall


def _months_to_ask(bars: Bars, questions: int, seed: int) -> tuple[TimeArray, IntArray, list[int]]:
    """Every month and as many symbols as the questions allow, the same ones each month; or else fewer months, evenly spread.

    Returns:
        Months, shape (m,); whether they rose, shape (m, k), 1, 0 or -1 for not to be asked; k columns of the bars.
    """
    months, rose = monthly_moves(bars)
    if len(months) > questions:
        kept = np.linspace(0, len(months) - 1, questions).round().astype(int)
        months, rose = months[kept], rose[kept]
    k = min(questions // max(len(months), 1), bars.n_symbols)
    order = generator(seed, "symbols to recall").permutation(bars.n_symbols)
    known = (rose[:, order] != _NONE).sum(axis=0)
    columns = sorted(order[np.argsort(-known, kind="stable")][:k].tolist())
    return months, rose[:, columns], columns


def monthly_moves(bars: Bars) -> tuple[TimeArray, IntArray]:
    """Whether each symbol closed each month higher than the month before.

    The last month of the bars may be cut short and is left out, as is a month without a move.

    Returns:
        Months with one before them, shape (m,), datetime64[M]; moves, shape (m, n_symbols): 1 up, 0 down, -1 not known.
    """
    month_of = bars.sessions.astype("datetime64[M]")
    months, starts = np.unique(month_of, return_index=True)
    ends = np.r_[starts[1:], bars.n_bars] - 1
    closes, traded = bars.mark[ends], np.logical_or.reduceat(bars.tradable, starts, axis=0)
    follows = (np.diff(months) == np.timedelta64(1, "M"))[:, None]
    known = traded[1:] & traded[:-1] & follows & (closes[1:] != closes[:-1])
    moves = np.where(known, closes[1:] > closes[:-1], _NONE)
    return months[1:-1], moves[:-1]


def _recall_prompt(symbol: str, month: np.datetime64) -> Messages:
    words = pd.Timestamp(month).strftime("%B %Y")
    user = f"asset: {symbol}\nmonth: {words} ({month})"
    return Message("system", with_schema(_RECALL_HEAD, schema_of(Direction))), Message("user", user)


def score_recall(symbols: tuple[str, ...], months: TimeArray, rose: IntArray, said: IntArray, seed: int) -> Recall:
    """Right answers by month, and the cutoff that they date.

    Args:
        symbols: k names.
        months: shape (m,), datetime64[M], increasing; between two of them others may lie that were not asked about.
        rose, said: shape (m, k), 1 up, 0 down, -1 not known or not answered; one answer at least meets a known move.
        seed: of the permutations.
    """
    asked = (rose != _NONE) & (said != _NONE)
    right = asked & (rose == said)
    up, down = asked & (rose == 1), asked & (rose == 0)
    p_value, last = _date(rose, said, generator(seed, "recall permutation"))
    found = p_value <= _LEVEL
    before = np.arange(len(months)) <= (last if found else -1)
    return Recall(
        symbols=symbols,
        n=int(asked.sum()),
        accuracy=float(right.sum() / asked.sum()),
        balanced_accuracy=float(np.mean([right[kind].mean() for kind in (up, down) if kind.any()])),
        base_rate=float(up.sum() / asked.sum()),
        said_up=float((asked & (said == 1)).sum() / asked.sum()),
        p_value=p_value,
        cutoff=str(_dated(months)[last]) if found else None,
        accuracy_before=_share(right[before], asked[before]),
        accuracy_after=_share(right[~before], asked[~before]),
        months=tuple(
            MonthScore(month=str(month), n=n, right=r)
            for month, n, r in zip(months, asked.sum(axis=1).tolist(), right.sum(axis=1).tolist(), strict=True)
        ),
    )  # fmt: skip


def _dated(months: TimeArray) -> TimeArray:
    """The month that a change after each position dates: the last before the next that was asked about."""
    return np.append(months[1:] - 1, months[-1])


def _share(right: np.ndarray, asked: np.ndarray) -> float | None:
    return float(right.sum() / asked.sum()) if asked.any() else None


def _date(rose: IntArray, said: IntArray, random: np.random.Generator) -> tuple[float, int]:
    """p-value of a change point, and the position of the last month before the likeliest one.

    A symbol's rises weigh as much together as its falls, so that any habit, such as "up" always, is as good as a coin.
    Months change their answers with each other as a whole, because symbols move together. Where a month lacks an answer
    that another one needs, it is drawn at the rate at which that symbol was said to rise.
    """
    given = said != _NONE
    weight, up_rate = _weights(rose, said), _up_rate(said)
    right = np.empty((_PERMUTATIONS + 1, len(said)))
    right[0] = np.where(rose == said, weight, 0.0).sum(axis=1)
    for i in range(1, len(right)):
        whole = np.where(given, said, random.random(said.shape) < up_rate)
        right[i] = np.where(rose == whole[random.permutation(len(said))], weight, 0.0).sum(axis=1)
    gains = _gains(right, weight.sum(axis=1))
    best = gains.max(axis=1)
    return float((best >= best[0]).mean()), int(gains[0].argmax())


def _weights(rose: IntArray, said: IntArray) -> FloatArray:
    """What a right answer counts for, shape (m, k): of each symbol the rises as much as the falls; 0 where there is none."""
    asked = (said != _NONE) & (rose != _NONE)
    of_kind = [(asked & (rose == kind)).sum(axis=0) for kind in (0, 1)]
    return np.where(asked, asked.sum(axis=0) / (2 * np.maximum(np.where(rose == 1, of_kind[1], of_kind[0]), 1)), 0.0)


def _up_rate(said: IntArray) -> FloatArray:
    """How often each symbol was said to rise, shape (k,)."""
    return np.asarray((said == 1).sum(axis=0) / np.maximum((said != _NONE).sum(axis=0), 1))


def power_of(months: TimeArray, rose: IntArray, said: IntArray, seed: int, margin_months: int) -> Power:
    """How often these questions find out a model that knows a fifth of the months up to some reach and guesses the rest.

    It is found out when a cutoff is dated, no earlier than the margin before its reach. Each of 200 simulated models answers where the
    probed one did and says up as often; the test is the probe's, with 99 permutations in place of 1,999.

    Args:
        months, rose, said: as in `score_recall`.
        seed: of the simulated models.
        margin_months: of the run.
    """
    random, weight, up_rate = generator(seed, "power of the probe"), _weights(rose, said), _up_rate(said)
    m = len(months)
    guesses = random.random((_SIMULATED, *rose.shape)) < up_rate
    known = random.random((_SIMULATED, *rose.shape)) < _KNOWN
    order = np.stack([np.arange(m), *(random.permutation(m) for _ in range(_SIMULATED_PERMUTATIONS))])
    signed, falls = np.where(rose == 1, weight, -weight), np.where(rose == 1, 0.0, weight).sum(axis=1)
    asked, dated = weight.sum(axis=1), _dated(months)
    reaches = []
    for reach in np.unique(np.linspace(0, m - 1, _REACHES).round().astype(int)).tolist():
        remembers = known & (np.arange(m) <= reach)[:, None]
        answers = np.where(remembers, rose == 1, guesses).astype(float)
        right = (answers @ signed.T)[:, order, np.arange(m)] + falls  # (models, orders, m): what each month's answers are worth elsewhere
        gains = _gains(right, asked)
        best = gains.max(axis=2)
        found = (best >= best[:, :1]).mean(axis=1) <= _LEVEL
        near = dated[gains[:, 0].argmax(axis=1)] >= months[reach] - margin_months
        reaches.append(Reach(month=str(months[reach]), found=float((found & near).mean())))
    return Power(known=_KNOWN, margin_months=margin_months, reaches=tuple(reaches))


def _gains(right: FloatArray, asked: FloatArray) -> FloatArray:
    """Log-likelihood of (one rate of right answers up to each month, a coin's after it) over that of a coin throughout.

    Args:
        right: weight of the right answers by month, shape (..., m).
        asked: weight of all answers by month, shape (m,).
    """
    total = asked.cumsum()
    rate = np.clip(right.cumsum(axis=-1) / np.maximum(total, 1e-9), 0, 1)
    return np.where(rate > 0.5, total * (xlogy(rate, 2 * rate) + xlogy(1 - rate, 2 * (1 - rate))), 0.0)
