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

from pydantic import BaseModel, BeforeValidator, ConfigDict

from ploutos.advisor.cutoff import Certificate, Tag
from ploutos.errors import StoreError
from ploutos.faults import first_fault
from ploutos.fusion.calibration import FusionChoice
from ploutos.store import Kind, write_json
from ploutos.strategies.base import Role

SCHEMA_VERSION: Literal[5] = 5


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
    """Mean over standard deviation of session returns, yearly; cash earns no interest, so the risk-free rate is 0."""
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
    value_at_risk: Number = None
    """Return that one session in twenty fell below; None with fewer than 20 sessions."""
    expected_shortfall: Number = None
    """Mean return of those sessions."""


class StrategyMetrics(PathMetrics):
    """The same with intervals, and beside the benchmark."""

    role: Role
    """What the account is for."""
    sharpe_low: Number
    """Lower end of the Sharpe ratio's interval, studentised stationary bootstrap."""
    sharpe_high: Number
    """Upper end of it."""
    excess_return: Number
    """Yearly mean return less that of buy and hold."""
    excess_low: Number
    """Lower end of its interval, studentised stationary bootstrap of the paired difference."""
    excess_high: Number
    """Upper end of it."""
    alpha: Number
    """Yearly mean return that is left after subtracting beta times the return of buy and hold."""
    alpha_low: Number
    """Lower end of its interval, studentised stationary bootstrap."""
    alpha_high: Number
    """Upper end of it."""
    beta: Number
    """How closely the account's session returns follow buy and hold's: the slope of the regression on them."""
    beta_low: Number
    """Lower end of its interval, studentised stationary bootstrap."""
    beta_high: Number
    """Upper end of it."""
    ruined: date | None
    """Session in which the account was ruined; nothing counts after its positions are closed, and nothing is compared with it."""
    oracle_capture: Number = None
    """On a planted market: log growth over the oracle's, which knows how the market was made."""


class Drawdown(Part):
    """One fall of an account below its highest close, and the way back."""

    peak: date
    """Session of the highest close."""
    trough: date
    """Session of the lowest close since."""
    recovered: date | None
    """Session that closed at the peak or above again; None where none did."""
    depth: float
    """From peak to trough, decimal, bar by bar."""
    n_sessions: int
    """From the peak to the recovery, or to the end."""


class AccountHistory(Part):
    """How one account got to where it is."""

    slug: str
    """Whose."""
    drawdowns: tuple[Drawdown, ...]
    """The deepest five, the deepest first."""
    months: dict[str, float]
    """Return of each calendar month, as 2024-07; the first and the last may be cut short."""
    years: dict[str, float]
    """Of each calendar year."""


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
    stretches: tuple[tuple[date, date], ...] = ()
    """First and last session of each unbroken stretch of them, where there is more than one: nights can be missing from a forward log."""

    @property
    def unbroken(self) -> tuple[tuple[date, date], ...]:
        """First and last session of each unbroken stretch."""
        return self.stretches or ((self.first, self.last),)


class Question(StrEnum):
    """What a comparison answers."""

    ADVICE = "advice"
    """Is the advice better than none, under the same risk veto and the same calibration?"""
    VETO = "veto"
    """What did the risk veto alone cost or save?"""
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
    p: Number = None
    """Of no difference, both sides, from the bootstrap that made the interval."""
    p_adjusted: Number = None
    """The same corrected for all comparisons of the run that have one (Holm)."""
    sign: Literal[-1, 0, 1]
    """Of the difference where `p_adjusted` rules out 0; else 0."""
    beaten: Number
    """Share of the draws that earned less; None for one account."""
    error: Number = None
    """Standard error of the difference, robust to dependence."""
    detectable: Number = None
    """Smallest true yearly difference that such a comparison would find in four of five histories, corrected for all comparisons."""
    ruined: str | None = None
    """Slug of an account of the pair that was ruined, which leaves nothing to compare."""
    ruined_on: date | None = None
    """Session in which it was."""

    @property
    def explained_by_number(self) -> bool:
        """Whether the interval leaves out 0 and chance still explains it, because there are several comparisons."""
        return self.sign == 0 and self.p_adjusted is not None and ((self.low or 0.0) > 0 or (self.high or 0.0) < 0)

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


class LearningCurve(Part):
    """One member's training: what it earned where it learnt, and on the bars that were held out from it to stop on.

    Both are mean log growth per bar, net of costs. Where it learnt it was still exploring, and it is a mean over the episodes that ended;
    where it was scored it decided as in a backtest.
    """

    steps: tuple[int, ...]
    """Environment steps done at each point of `train`."""
    train: tuple[Number, ...]
    """Where it learnt; None where no episode ended."""
    looks: tuple[int, ...] = ()
    """Steps done at each look at the held-out bars; empty for a training without any."""
    held_out: tuple[float, ...] = ()
    """On those bars."""
    chosen: int | None = None
    """Steps of the policy that was kept; None for the last one."""


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
    learning: tuple[LearningCurve, ...] = ()
    """How each member learnt."""


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


class Side(StrEnum):
    """Whose confidence it is."""

    POLICIES = "policies"
    """Of the policies' vote."""
    ADVISOR = "advisor"
    """Of the advisor."""


class ReliabilityBin(Part):
    """BUY and SELL decisions of the test ranges that were about as confident."""

    side: Side
    """Who decided."""
    n: int
    """Decisions, whose outcomes do not overlap."""
    said: float
    """Mean chance of the right direction that fusion took them for."""
    right: float
    """Share of them that was right."""
    low: float
    """Lower end of its exact 95 % interval."""
    high: float
    """Upper end of it."""


class PlaceboRank(Part):
    """The fused account among copies that follow the same advice shifted in time; a permutation test."""

    draws: int
    """Copies."""
    beaten: int
    """Copies that earned less."""
    p: float
    """Chance of as high a rank for advice whose timing says nothing."""
    own: float
    """Total return of the fused account over the test ranges."""
    low: float
    """2.5 % quantile of the copies' total returns."""
    median: float
    """Median of them."""
    high: float
    """97.5 % quantile of them."""


class AdviceControls(Part):
    """The advice among shifted copies of itself, and how reliable each side's confidence is."""

    rank: PlaceboRank | None
    """None where no draws were run."""
    calibrated: bool
    """Confidences were calibrated on the validation range before each test range; else they are as said."""
    reliability: tuple[ReliabilityBin, ...]
    """Of each side, the less confident first."""


class AdvisorFacts(Part):
    """Who advised, what it was asked and said, and what is known of it."""

    model: str
    """Its name."""
    digest: str
    """Of its content; empty where there is none."""
    is_mock: bool
    """It is a fixed rule and not a language model."""
    n_advice: int
    """Questions asked."""
    n_abstained: int
    """Those without a usable answer, which count as hold."""
    prompt_tokens: int
    """Tokens read."""
    tokens: int
    """Tokens written."""
    reveal: bool
    """The prompts hid less than the asset's name, the dates and the price levels."""
    mask: str = "all"
    """What they hid: all, names, dates, levels or none."""
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


class SubjectReason(StrEnum):
    """Why the verdict is about this account; the rule is older than the numbers."""

    ASKED = "asked"
    """The settings name it."""
    MOCK = "mock"
    """The advisor is a mock, and the policies' vote does not depend on it."""
    NOT_CLEAN = "not-clean"
    """No tested session is shown to be clean of what the advisor may remember, and the vote does not depend on it."""
    READS_TEXTS = "reads-texts"
    """The same, but the vote does not stand without it: the policies observe what it made of texts."""
    ADVISED = "advised"
    """The advisor is a model and there are clean sessions."""


class Subject(Part):
    """Whom the verdict is about."""

    slug: str
    """Of the account."""
    reason: SubjectReason
    """Why it is this one."""


class Measure(StrEnum):
    """One way to ask whether an account did better than its benchmark."""

    EXCESS = "excess"
    """Yearly mean return less the benchmark's."""
    ALPHA = "alpha"
    """Yearly mean return less beta times the benchmark's."""
    EXPOSURE = "matched-exposure"
    """Yearly mean return less that of the benchmark scaled to the account's mean net exposure."""
    VOLATILITY = "matched-volatility"
    """Yearly mean return less that of the benchmark scaled to the account's volatility."""
    SHARPE = "sharpe-difference"
    """Yearly Sharpe ratio less the benchmark's."""


SKILL = (Measure.ALPHA, Measure.EXPOSURE)
"""The measures that holding more or less of the same market cannot move; the others also rise by holding less of one that falls."""


class BenchmarkTest(Part):
    """One of those measures."""

    measure: Measure
    """Which."""
    value: Number
    """Decimal, a year; of the Sharpe ratio a plain number."""
    error: Number
    """Its standard error, robust to dependence and to changing variance."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of it."""
    p: Number
    """Of a value of 0, both sides, from the bootstrap that made the interval."""
    p_adjusted: Number
    """The same corrected for all measures (Holm)."""
    sign: Literal[-1, 0, 1]
    """Of the value where `p_adjusted` rules out 0; else 0."""


class AgainstBenchmark(Part):
    """Whether the subject did better than its benchmark, asked in several ways and corrected for their number."""

    n_sessions: int
    """Sessions it is asked about: for an account that hears the advisor those that count as evidence, where there are any."""
    relative_exposure: Number
    """The subject's mean net exposure over the benchmark's."""
    coverage: Number
    """What an interval that should hold the truth in 95 % of cases was measured to hold at this length or the next shorter, at worst;
    None below the shortest that was measured."""
    tests: tuple[BenchmarkTest, ...]
    """One of each measure; none where one of the two was ruined."""

    def test(self, measure: Measure) -> BenchmarkTest | None:
        """One of them; None where nothing is compared."""
        return next((row for row in self.tests if row.measure is measure), None)

    @property
    def n_corrected(self) -> int:
        """How many p-values the correction counts."""
        return sum(row.p is not None for row in self.tests)


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


class GateName(StrEnum):
    """What is asked of the subject of a run."""

    PSR = "psr"
    """Probability that its true Sharpe ratio is above zero."""
    DSR = "dsr"
    """The same, above what the best of all trials on these bars would show by luck."""
    PBO = "pbo"
    """Probability of backtest overfitting among everything that was tried."""
    PBO_HIGH = "pbo-high"
    """Upper end of its interval."""
    SPA = "spa"
    """Consistent p-value of the test for superior predictive ability against buy and hold at the same volatility."""
    SPA_CHAMPION = "spa-champion"
    """The same against the champion, on the sessions that both tested; asked where there is one that the subject is not itself."""
    SHARPE = "sharpe"
    """Yearly Sharpe ratio."""
    TOTAL_RETURN = "total-return"
    """Over the whole test span."""
    POSITIVE_FOLDS = "positive-folds"
    """Share of the test ranges that earned something."""
    SEED_IQM = "seed-iqm"
    """Interquartile mean of the policies' Sharpe ratios."""
    DRAWDOWN = "drawdown"
    """Deepest fall, at a stated volatility."""
    DAILY_LOSS = "daily-loss"
    """Largest loss of one session, at a stated volatility."""
    DOUBLE_COST = "double-cost"
    """Total return at twice the costs."""
    MONTE_CARLO = "monte-carlo"
    """Share of disturbed paths that lost."""


class GateReason(StrEnum):
    """Why a gate is open or shut."""

    PASSED = "passed"
    """The value reaches the bar."""
    MISSED = "missed"
    """It does not."""
    NOT_MEASURED = "not-measured"
    """The run has no such value."""
    ANOTHER = "another"
    """Something that was tried reaches the bar, and not the subject."""


class Gate(Part):
    """One bar."""

    name: GateName
    """What is asked."""
    value: Number
    """What was found."""
    bar: float
    """What is asked for."""
    margin: Number
    """By how much it is cleared, in units of the value; negative where it is missed."""
    reason: GateReason
    """Why it is open or shut."""
    required: bool
    """Whether a run without the value can be promoted: not where it is required."""


class Check(StrEnum):
    """What would make the numbers themselves suspect."""

    RECONCILES = "reconciles"
    """Equity differs from what was booked; share of initial cash."""
    EQUITY_POSITIVE = "equity-positive"
    """The account was ruined, or fell to nothing; least equity over initial cash."""
    BENCHMARK_TRADED = "benchmark-traded"
    """The benchmark bought nothing; its fills."""
    RETURN_WITHOUT_FILLS = "return-without-fills"
    """A return without a single fill; its size."""
    EXTREME_RETURN = "extreme-return"
    """One test range earned more than anything real does; its return."""
    SEEDS = "seeds"
    """Too few policies that differ by their seed; their number."""
    DISPERSION = "dispersion"
    """All policies show the same; different Sharpe ratios among them."""
    SHORTENED = "shortened"
    """The policies saw fewer steps than production asks for; 1 if so."""
    CLEAN_SESSIONS = "clean-sessions"
    """The advisor may remember some of the sessions; share that is clean."""
    IN_OVER_OUT = "in-over-out"
    """Far better in training than in test; difference of the mean Sharpe ratios."""
    SUPERVISED_BETTER = "supervised-better"
    """A supervised model of the same features earned more than the policies; how many did."""
    UNTRAINED_SYMBOLS = "untrained-symbols"
    """Symbols that were traded and never trained on; their number."""


class EvidenceCheck(Part):
    """One reason to doubt, looked at."""

    name: Check
    """What was looked at."""
    found: Number
    """What was found."""
    limit: float
    """Where doubt begins."""
    suspect: bool
    """Whether it does."""


class Outcome(StrEnum):
    """What becomes of the subject."""

    PROMOTE = "promote"
    """Every gate is open and nothing is suspect."""
    REJECT = "reject"
    """A gate is shut that more sessions like these would not open."""
    INSUFFICIENT = "insufficient"
    """No such gate is shut, but too little is known, or something is suspect."""


class TrialFacts(Part):
    """Everything that was tried on the tested sessions, this run and earlier ones."""

    n_trials: int
    """Paths of returns, and trials that left none."""
    n_independent: int
    """Independent trials that they amount to, by clusters of their returns."""
    n_compared: int
    """Paths that cover enough of the sessions to be compared one by one."""
    deviation: float
    """Standard deviation of Sharpe ratios per session that luck alone gives."""
    counts: dict[str, int]
    """Of everything that was recorded, by kind."""


class ChampionReason(StrEnum):
    """Whether the subject was held against the champion, and why not."""

    COMPARED = "compared"
    """It was."""
    SAME_DECIDER = "same-decider"
    """The subject is the champion's own account under the champion's settings."""
    OTHER_HISTORY = "other-history"
    """The champion was tested on another history, where equal dates mean nothing."""
    RUN_GONE = "run-gone"
    """The folder of the champion's run is gone or damaged."""
    TOO_SHORT = "too-short"
    """Too few sessions were tested by both."""


class ChampionTest(Part):
    """The subject against whoever decided when it was judged."""

    model: str
    """Name of the champion's model."""
    run: str
    """Folder of the run that it came from."""
    slug: str
    """Of the account that is champion."""
    reason: ChampionReason
    """Whether they were compared."""
    n_sessions: int = 0
    """Sessions that both tested."""
    n_compared: int = 0
    """Paths that were held against it there, the subject's among them."""
    n_better: int = 0
    """Those that are better, by the step-wise test, with the familywise error of the gate."""
    sharpe: Number = None
    """Yearly Sharpe ratio of the subject on those sessions."""
    champion_sharpe: Number = None
    """That of the champion."""


class Gates(Part):
    """Whether the subject of the run may be promoted, and why."""

    subject: str
    """Slug of what is judged."""
    outcome: Outcome
    """What becomes of it."""
    suspect: bool
    """Whether a check of the evidence failed."""
    more_sessions: int | None
    """Sessions that are still missing, if they are like those seen; None where none are, or no number of them would do."""
    rows: tuple[Gate, ...]
    """Every bar."""
    evidence: tuple[EvidenceCheck, ...]
    """Every check."""
    trials: TrialFacts
    """What luck is measured by."""
    at_volatility: float
    """Yearly volatility of the two bars of risk."""
    champion: ChampionTest | None = None
    """The subject against the champion; None where there was none."""


class Growth(Part):
    """Parts of an account's growth, account currency; what took from it is negative. They add up to it."""

    market: float = 0.0
    """Its mean share of the market, times the market: the equal mean return of the run's symbols."""
    selection: float = 0.0
    """Holding symbols that did better than the market."""
    timing: float = 0.0
    """Holding more when the market rose than when it fell."""
    stops: float = 0.0
    """Exiting at a stop instead of at that bar's close."""
    vetoes: float = 0.0
    """The risk veto: gross profit less that of the same account without it."""
    advice: float = 0.0
    """The advice: gross profit less that of the same account with blank advice."""
    commission: float = 0.0
    """Fees of the broker."""
    spread: float = 0.0
    """Half the spread of every fill, where it is set separately."""
    slippage: float = 0.0
    """Fills worse than the open, apart from the spread."""
    impact: float = 0.0
    """The price moved by its own orders."""
    borrow: float = 0.0
    """Fees on shorts."""
    written_off: float = 0.0
    """What a ruined account owed beyond what it had: the broker's loss."""

    @property
    def total(self) -> float:
        """Of all parts."""
        return float(sum(getattr(self, name) for name in type(self).model_fields))


class Attribution(Part):
    """Where one account's growth came from."""

    slug: str
    """Whose."""
    without_advice: str | None = None
    """Slug of the ablation that says what the advice was worth; None where none ran, and then the advice lies in the other parts."""
    without_veto: str | None = None
    """Slug of the ablation that says what the veto was worth; None where none ran."""
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


class Recombined(Part):
    """Scores of one supervised model over recombined test bars; its paths know later bars, so they are neither a forecast nor a gate."""

    slug: str
    """Which."""
    groups: int
    """Of the test bars."""
    test_groups: int
    """Decided at a time, by a model of the others."""
    n_splits: int
    """Models that were fitted."""
    purge_bars: int
    """Dropped on both sides of a group that is decided."""
    embargo_bars: int
    """Further ones behind it."""
    sharpe: tuple[Number, ...]
    """Yearly Sharpe ratio of each path; None for one that never moved."""
    total_return: tuple[Number, ...]
    """Of each path."""


class RunSummary(Part):
    """Everything a report, a gate or a registry reads of a run."""

    schema_version: Literal[5] = SCHEMA_VERSION
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
    subject: Subject
    """Whom the verdict is about."""
    benchmark: str
    """Slug of what every strategy is compared with."""
    strategies: dict[str, StrategyMetrics]
    """By slug, in the order of the report; no placebos."""
    against_benchmark: AgainstBenchmark
    """Whether the subject did better than the benchmark."""
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
    controls: AdviceControls | None = None
    """The advice among shifted copies of itself, and how reliable each side is; None where that was not asked."""
    gates: Gates | None = None
    """Whether the run's subject may be promoted; None where nobody kept count of what was tried."""

    attribution: tuple[Attribution, ...] = ()
    """Where growth came from: of the account that the run is about, of the policies' vote and of the benchmark."""
    histories: tuple[AccountHistory, ...] = ()
    """Drawdowns, months and years of the account that the run is about and of the benchmark."""
    robustness: tuple[Robustness, ...] = ()
    """How every decider stands stress tests; empty where none were run."""
    recombined: tuple[Recombined, ...] = ()
    """Scores of linear models over recombined test bars; empty where none were fitted."""

    def of(self, role: Role) -> tuple[str, ...]:
        """Slugs of the strategies with a role."""
        return tuple(slug for slug, metrics in self.strategies.items() if metrics.role is role)

    @property
    def n_corrected(self) -> int:
        """How many p-values of comparisons the correction counts."""
        return sum(row.p is not None for row in (*self.comparisons, *self.supervised))

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
        raise StoreError(f"{path} is not the summary of a run: {first_fault(error)}; repeat the run") from error


SUMMARY = Kind("summary", ".json", write_summary, read_summary)
