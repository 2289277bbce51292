"""What a run showed, as facts: numbers, dates, slugs and codes, typed and versioned; a run's `metrics.json`.

Words for people are made of it in `ploutos.reporting`. A number without a value (the Sharpe ratio of cash, say) is None here and null in
the file: `Number` is where nan becomes None. A part that is added later needs a default, or another `schema_version`.
"""

import json
import math
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ploutos.advisor.cutoff import Certificate, Tag
from ploutos.errors import StoreError
from ploutos.fusion.calibration import FusionChoice
from ploutos.store import Kind, write_json
from ploutos.strategies.base import Role

SCHEMA_VERSION: Literal[2] = 2


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A measurement, decimal; nan and infinity become None."""


class Part(BaseModel):
    """A frozen group of facts; an unknown field is an error, and so is nan where a number must be."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class PathMetrics(Part):
    """What one account's path says without any other."""

    total_return: float
    """Equity at the end over equity at the start, less 1, net of costs."""
    cagr: Number
    """The same as a yearly rate, by sessions."""
    ann_vol: Number
    """Standard deviation of session returns, yearly."""
    sharpe: Number
    """Mean over standard deviation of session returns, yearly; cash earns nothing, so the risk-free rate is 0."""
    sortino: Number
    """Mean over downside deviation of session returns, yearly."""
    max_drawdown: float
    """Deepest fall of equity from its peak, bar by bar."""
    calmar: Number
    """cagr over the size of the deepest fall."""
    exposure: Number
    """Mean share of equity held, long plus short."""
    turnover: Number
    """Value traded per year over mean equity, buys and sells counted."""
    n_fills: int
    """Fills of all kinds; the trades table says which."""
    costs: float
    """Commission, slippage, impact and borrow fees paid, account currency."""
    cost_share: float
    """Costs over initial cash."""


class StrategyMetrics(PathMetrics):
    """The same with intervals, and beside the benchmark."""

    role: Role
    """What the account is there for."""
    sharpe_low: Number
    """Lower end of the Sharpe ratio's interval, stationary bootstrap."""
    sharpe_high: Number
    """Upper end of it."""
    excess_return: Number
    """Yearly mean return less that of buy and hold."""
    excess_low: Number
    """Lower end of its interval, stationary bootstrap of the paired difference."""
    excess_high: Number
    """Upper end of it."""
    ruined: date | None
    """Session in which the account was ruined; nothing counts after its positions were closed, and nothing is compared with it."""
    oracle_capture: Number = None
    """On a planted market: log growth over the oracle's, which knows how the market was made."""


class SpanMetrics(Part):
    """One account on some sessions alone."""

    total_return: Number
    """Over those sessions, net of costs."""
    sharpe: Number
    """Yearly."""
    sharpe_low: Number
    """Lower end of its interval."""
    sharpe_high: Number
    """Upper end of it."""


class Span(Part):
    """The sessions of which an advisor may remember alike much."""

    tag: Tag
    """What they can say about the advisor."""
    first: date
    """First of them."""
    last: date
    """Last of them."""
    n_sessions: int
    """How many."""
    strategies: dict[str, SpanMetrics]
    """By slug; no number of a ruined account beyond its end."""


class Question(StrEnum):
    """What a comparison answers."""

    ADVICE = "advice"
    """Is the advice better than none?"""
    ADVICE_ALONE = "advice-alone"
    """Is the advice alone better than buying and holding?"""
    SHUFFLED = "shuffled"
    """Is it better than the same advice shuffled in time?"""
    SHIFTED = "shifted"
    """Is it better than the same advice shifted in time?"""
    DRAWN = "drawn"
    """Is it better than advice drawn at random?"""
    MIRRORED = "mirrored"
    """Is it better than its opposite?"""
    HYBRID = "hybrid"
    """Does training with the advice help?"""
    HYBRID_ADVICE = "hybrid-advice"
    """Was it the advice, or the training?"""
    SUPERVISED = "supervised"
    """Are the policies better than a supervised model of the same features?"""


class Comparison(Part):
    """One account less another, or less the mean of several draws."""

    question: Question
    """What it answers."""
    of: str
    """Slug of the account."""
    against: tuple[str, ...]
    """Slugs of what it is compared with; several are draws of one placebo."""
    difference: Number
    """Yearly mean difference of session returns; None where an account of the pair was ruined."""
    low: Number
    """Lower end of its interval; None too where the two never differed."""
    high: Number
    """Upper end of it."""
    sign: Literal[-1, 0, 1]
    """Of the difference where the interval leaves out 0; else 0."""
    beaten: Number
    """Share of the draws that earned less; None for one account."""
    ruined: str | None = None
    """Slug of an account of the pair that was ruined, which leaves nothing to compare."""
    ruined_on: date | None = None
    """Session in which it was."""

    @property
    def draws(self) -> int:
        """How many accounts stand on the other side."""
        return len(self.against)


class MemberSharpe(Part):
    """Sharpe ratios of one member in one fold."""

    member: int
    """Which member."""
    train: Number
    """Over its training range."""
    validation: Number
    """Over its validation range."""
    test: Number
    """Over its test range."""


class FoldMetrics(Part):
    """One fold's test range."""

    fold: int
    """Which fold."""
    first: date
    """Of the test range."""
    last: date
    """Of the test range."""
    sharpe: dict[str, Number]
    """By slug."""
    total_return: dict[str, Number]
    """By slug."""
    members: tuple[MemberSharpe, ...]
    """In sample and out."""


class Mirror(Part):
    """What became of buy and sell decisions on the mirrored market."""

    n: int
    """Buy and sell decisions whose mirrored question was answered."""
    turned: Number
    """Share of them that became the opposite."""
    stayed: Number
    """Share that stayed."""
    held: Number
    """Share that became hold."""
    low: Number
    """Lower end of the interval of turned less stayed, stationary bootstrap; None when all are alike."""
    high: Number
    """Upper end of it."""
    sign: Literal[-1, 0, 1]
    """Of turned less stayed, where chance does not explain it."""
    n_asked: int
    """Mirrored questions."""
    n_abstained: int
    """Those without a usable answer."""
    tokens: int
    """Written for them."""


class AdvisorFacts(Part):
    """Who advised, what it was asked and said, and what is known of it."""

    model: str
    """Its name."""
    digest: str
    """Of its content; empty where there is none."""
    is_mock: bool
    """It is a fixed rule and no language model."""
    n_advice: int
    """Questions asked."""
    n_abstained: int
    """Those without a usable answer, which count as hold."""
    prompt_tokens: int
    """Tokens read."""
    tokens: int
    """Tokens written."""
    reveal: bool
    """The prompts named the asset and the date."""
    cadence_bars: int
    """How long each piece of advice stands."""
    n_triggered: int
    """Questions asked between two of the cadence."""
    first_asked: date | None
    """Session of the first question; None when nothing was asked."""
    last_asked: date | None
    """Session of the last one."""
    certificate: Certificate | None
    """How far its memory reaches; None for a mock, or when nothing is known."""
    mirrored: Mirror | None
    """None when it was not asked about the mirrored market."""


class Purchase(Part):
    """What the benchmark bought at its first decision."""

    decided: date
    """Session of that decision."""
    bought: tuple[str, ...]
    """Symbols it bought."""
    unlisted: tuple[str, ...]
    """Symbols listed later."""
    without_bar: tuple[str, ...]
    """Symbols without a bar to decide on or to fill in."""
    below_lot: tuple[str, ...]
    """Symbols of which its order came to less than one lot."""


class Growth(Part):
    """Parts of an account's growth, account currency; what took from it is negative. They add up to it."""

    market: float = 0.0
    """Its mean share of the market, times the market: the equal mean return of the run's symbols."""
    selection: float = 0.0
    """Holding symbols that did better than the market."""
    timing: float = 0.0
    """Holding more when the market rose than when it fell."""
    stops: float = 0.0
    """Leaving at a stop and not at that bar's close."""
    vetoes: float = 0.0
    """The risk veto: gross profit less that of a twin without it."""
    advice: float = 0.0
    """The advice: gross profit less that of a twin whose advice is blank."""
    commission: float = 0.0
    """Fees of the broker."""
    spread: float = 0.0
    """Half the spread of every fill, where it is set apart."""
    slippage: float = 0.0
    """Fills worse than the open, the spread aside."""
    impact: float = 0.0
    """The price moved by its own orders."""
    borrow: float = 0.0
    """Fees on shorts."""
    written_off: float = 0.0
    """What a ruined account owed beyond all it had: the broker's loss."""

    @property
    def total(self) -> float:
        """Of all parts."""
        return float(sum(getattr(self, name) for name in type(self).model_fields))


class Attribution(Part):
    """Where one account's growth came from."""

    slug: str
    """Whose."""
    without_advice: str | None = None
    """Slug of the twin that says what the advice was worth; None where none ran, and then the advice lies in the other parts."""
    without_veto: str | None = None
    """Slug of the twin that says what the veto was worth; None where none ran."""
    first_equity: float
    """Equity at the start."""
    last_equity: float
    """At the end."""
    growth: Growth
    """The whole."""
    residual: float
    """What the parts leave unexplained: rounding."""
    by_symbol: dict[str, Growth]
    """The same for each symbol; what was written off belongs to none."""
    by_fold: dict[int, Growth]
    """For each fold's test range."""
    by_side: dict[str, Growth]
    """For what was held long and short."""
    of_advice: Growth | None = None
    """How the advice's part came about."""
    of_vetoes: Growth | None = None
    """How the vetoes' part came about."""


class StressTest(StrEnum):
    """What is changed in one row of the stress table."""

    AS_RUN = "as-run"
    """Nothing."""
    NO_COSTS = "no-costs"
    """Trading is free."""
    DOUBLE_COSTS = "double-costs"
    """Every cost is doubled."""
    ONE_BAR_LATER = "delayed"
    """Every order is carried out one bar later."""
    CRASH = "crash"
    """All prices fall by 20 % over six bars in the middle, and stay there."""
    GAPS = "gaps"
    """About once a month all prices jump at the open by three usual sessions' moves, up or down."""
    WILD = "wild"
    """Every move about the trend is doubled."""
    CALM = "calm"
    """Every move about the trend is halved."""
    MISSING_BARS = "missing-bars"
    """One bar in twenty is missing, symbol by symbol."""
    NOISE = "noise"
    """All prices of a bar are off by a little."""


class StressRow(Part):
    """One account in one changed world."""

    test: StressTest
    """What was changed."""
    draw: int = 0
    """Which draw of it."""
    decided_again: bool
    """Features were computed and decisions taken again; else the decisions are those of the run."""
    total_return: float
    """Net of costs."""
    sharpe: Number
    """Yearly."""
    max_drawdown: float
    """Deepest fall of equity from its peak."""
    benchmark_return: float
    """What the benchmark earned in the same world."""
    ruined: bool
    """The account was ruined."""


class Regime(Part):
    """The sessions that began alike volatile, as they were run."""

    name: Literal["calm", "usual", "wild"]
    """A third of the sessions each, by the symbols' usual volatility before the session."""
    n_sessions: int
    """How many."""
    mean_return: Number
    """Yearly mean of session returns."""
    sharpe: Number
    """Yearly."""
    benchmark_mean_return: Number
    """Of the benchmark."""


class Paths(Part):
    """Many resampled histories with late and lost orders, carried out by the same ledger."""

    n: int
    """How many."""
    losses: float
    """Share of them that lost."""
    behind: float
    """Share of them on which the benchmark earned more."""
    return_low: float
    """Total return that one path in twenty stays below."""
    return_median: float
    """Total return of the middle path."""
    return_high: float
    """Total return that one path in twenty is above."""
    drawdown_median: float
    """Deepest fall on the middle path."""
    drawdown_bad: float
    """Deepest fall that one path in twenty goes beyond."""
    ruined: float
    """Share of them that were ruined."""


class Robustness(Part):
    """How one account stands changed worlds, and what would have had to be true."""

    slug: str
    """Whose."""
    rows: tuple[StressRow, ...]
    """The stress table."""
    regimes: tuple[Regime, ...]
    """The sessions by volatility."""
    paths: Paths | None
    """None where none were run, or the account was ruined."""
    break_even_costs: Number
    """Multiple of all costs at which nothing is left; None where it loses even without costs, or stands 64 times as much."""
    break_even_benchmark: Number
    """Multiple of all costs, of both, at which it earns what the benchmark earns; None where there is none between 0 and 64."""
    best_sessions: int | None
    """Fewest of its best sessions without which nothing would have been earned; None where nothing was."""
    n_sessions: int
    """Sessions in all."""

    def row(self, test: StressTest) -> StressRow | None:
        """The first row of a test."""
        return next((row for row in self.rows if row.test is test), None)


class RunSummary(Part):
    """Everything a report, a gate or a registry reads of a run."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """Of this form."""
    first: date
    """First session out of sample."""
    last: date
    """Last one."""
    n_bars: int
    """Bars out of sample."""
    n_sessions: int
    """Sessions out of sample."""
    sessions_per_year: float
    """That the exchange held."""
    symbols: tuple[str, ...]
    """Traded."""
    source: str
    """Where the bars are from, as their reader words it."""
    confidence: float
    """Share of samples inside every interval."""
    reduced: bool
    """The policies saw fewer steps than production asks for."""
    final: str
    """Slug of the strategy that the run is about."""
    benchmark: str
    """Slug of what every strategy is compared with."""
    strategies: dict[str, StrategyMetrics]
    """By slug, in the order of the report; no placebos."""
    comparisons: tuple[Comparison, ...]
    """Whether the advice helps."""
    supervised: tuple[Comparison, ...] = ()
    """Whether the policies do better than supervised models, one by one."""
    advisor: AdvisorFacts
    """Who advised."""
    purchase: Purchase
    """What the benchmark could buy."""
    spans: tuple[Span, ...]
    """The sessions by what the advisor may remember of them, in the order of time."""
    folds: tuple[FoldMetrics, ...]
    """Test range by test range."""
    fusion: tuple[FusionChoice, ...] = ()
    """What each fold's validation range chose for fusion; empty where nothing is chosen."""

    attribution: tuple[Attribution, ...] = ()
    """Where growth came from: of the account that the run is about, of the policies' vote and of the benchmark."""
    robustness: tuple[Robustness, ...] = ()
    """How the fused account and the policies' vote stand stress tests; empty where none were run."""

    def of(self, role: Role) -> tuple[str, ...]:
        """Slugs of the strategies with a role."""
        return tuple(slug for slug, metrics in self.strategies.items() if metrics.role is role)

    def comparison(self, question: Question) -> Comparison | None:
        """The answer to a question; None when the run does not hold it."""
        return next((row for row in self.comparisons if row.question is question), None)


def write_summary(summary: RunSummary, path: Path) -> None:
    """Write it as JSON."""
    write_json(path, summary.model_dump(mode="json"))


def read_summary(path: Path) -> RunSummary:
    """Read what `write_summary` wrote.

    Raises:
        StoreError: the file is missing, damaged, or of another schema version.
    """
    try:
        content = json.loads(path.read_bytes())
        found = content.get("schema_version") if isinstance(content, dict) else None
        if found != SCHEMA_VERSION:
            version = "no schema version" if found is None else f"schema version {found}"
            raise StoreError(f"{path} has {version}; expected {SCHEMA_VERSION}: repeat the run, or read it with the ploutos that wrote it")
        return RunSummary.model_validate(content)
    except (OSError, ValueError) as error:  # of the file, of its JSON, or of its fields
        raise StoreError(f"{path} is not the summary of a run: {_first_line(error)}; repeat the run") from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


SUMMARY = Kind("summary", ".json", write_summary, read_summary)
