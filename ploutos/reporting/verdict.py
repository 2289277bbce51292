"""What the numbers of a run allow to be said, in plain sentences. It reads a `RunSummary` and nothing else."""

from ploutos.advisor.cutoff import LEAST_POWER, Tag
from ploutos.evaluation.contamination import ENOUGH_LOGGED, counting_spans
from ploutos.evaluation.significance import TOLERATED
from ploutos.evaluation.summary import (
    SKILL,
    AdvisorFacts,
    BenchmarkTest,
    Comparison,
    Measure,
    Mirror,
    Outcome,
    PlaceboRank,
    Purchase,
    Question,
    RunSummary,
    SubjectReason,
)
from ploutos.market.sources import sample
from ploutos.reporting.names import display_name, names_of
from ploutos.strategies.base import Role
from ploutos.wording import enumerate_names, plural

QUESTIONS = {
    Question.ADVICE: "Is the advice better than none?",
    Question.VETO: "What did the risk veto cost or save?",
    Question.ADVICE_ALONE: "Is the advice alone better than buying and holding?",
    Question.SHUFFLED: "Does the timing of the advice matter?",
    Question.SHIFTED: "Does its timing matter at the same trading frequency?",
    Question.DRAWN: "Is it better than chance with the same mix of advice?",
    Question.MIRRORED: "Is the advice better than its opposite?",
    Question.HYBRID: "Does training with the advice help?",
    Question.HYBRID_ADVICE: "Was it the advice, or the extra training?",
    Question.SUPERVISED: "Are the policies better than a supervised model of the same features?",
}
MEASURES = {
    Measure.EXCESS: "return",
    Measure.ALPHA: "alpha",
    Measure.EXPOSURE: "return at the same mean exposure",
    Measure.VOLATILITY: "return at the same volatility",
    Measure.SHARPE: "Sharpe ratio",
}
_REASONS = {
    SubjectReason.ASKED: "evaluation.subject names it",
    SubjectReason.MOCK: "the advisor is a mock, and the vote does not depend on it",
    SubjectReason.NOT_CLEAN: "no tested session is shown to be clean of what the advisor may remember, and the vote does not depend on it",
    SubjectReason.READS_TEXTS: "no tested session is shown to be clean of what the advisor may remember, and the policies also "
    "observe what it read in texts, so nothing here counts as evidence",
    SubjectReason.ADVISED: "the advisor is a language model and some tested sessions are clean of what it may remember",
}
_CONTROLS = {
    Question.SHUFFLED: "the same with its advice shuffled in time",
    Question.SHIFTED: "the same with its advice shifted in time",
    Question.DRAWN: "the same with advice drawn at random",
    Question.MIRRORED: "what the advisor says about the mirrored market",
}
SHOWN = {
    "none": "the asset's name, the dates and the prices", "names": "the dates and the prices", "dates": "the asset's name and the prices",
    "levels": "the asset's name and the dates",
}  # fmt: skip
"""What a prompt shows under a mask that hides less than everything."""
_NOMINAL = 0.95
_SAMPLE = "The sample holds five companies that were still well known in 2013, which flatters buying and holding them."
_SHORTENED = (
    "This was a shortened run: the policies saw a small share of the training steps that production asks for, so no number here is "
    "evidence of skill."
)


def headline(summary: RunSummary) -> str:
    """The answer in one line, for a title; `verdict` says what stands behind it."""
    names, own, other = names_of(summary), summary.strategies[summary.subject.slug], summary.strategies[summary.benchmark]
    if own.ruined:
        return f"Ruined: {names[summary.subject.slug]} lost {-own.total_return:.1%} by {own.ruined}"
    if other.ruined:
        return f"Nothing to compare: {names[summary.benchmark]} was ruined on {other.ruined}"
    tests = summary.against_benchmark.tests
    skill = [row.sign for row in tests if row.measure in SKILL]
    raw = summary.against_benchmark.test(Measure.EXCESS)
    if 1 in skill:
        found = next(_measured(row) for row in tests if row.measure in SKILL and row.sign > 0)
        shown = "Better in a shortened run, which is not evidence" if summary.reduced else "Edge shown"
        if not summary.reduced and summary.gates is not None and summary.gates.outcome is not Outcome.PROMOTE:
            shown = "Edge shown, not to be promoted"
        return f"{shown}: {found} against {names[summary.benchmark]}"
    finding = "Worse than buying and holding" if -1 in skill else "No edge shown"
    if raw is None or raw.value is None or raw.low is None or raw.high is None:
        return finding
    return f"{finding}: {raw.value:+.1%} a year against {names[summary.benchmark]}, interval {raw.low:+.1%} to {raw.high:+.1%}"


def vote_sentence(summary: RunSummary) -> str:
    """Why the vote's return lies where it does among its members'; empty where there are no two of them."""
    votes, members = summary.of(Role.VOTE), [summary.strategies[slug].total_return for slug in summary.of(Role.MEMBER)]
    if not votes or len(members) < 2:
        return ""
    return (
        f"{names_of(summary)[votes[0]]} returned {summary.strategies[votes[0]].total_return:.1%}, its {len(members)} members "
        f"{min(members):.1%} to {max(members):.1%}. The vote is an account of its own and not the mean of its members: it holds what they "
        "decide together, trades at different times from any one of them, and pays its own costs."
    )


def verdict(summary: RunSummary) -> list[str]:
    """The finding first, then everything that takes from the numbers."""
    ruins = [_ruin(summary, slug) for slug in (summary.subject.slug, summary.benchmark) if summary.strategies[slug].ruined]
    sentences = [*(ruins or benchmark_sentences(summary)), *([_SHORTENED] if summary.reduced else [])]
    sentences.append(f"The verdict is about {names_of(summary)[summary.subject.slug]}: {_REASONS[summary.subject.reason]}.")
    sentences += _short(summary)
    sentences += [text for text in [_purchase(summary)] if text]
    sentences += _supervised(summary)
    sentences += [comparison_sentence(summary, row) for row in summary.comparisons if row.question is Question.HYBRID_ADVICE]
    if summary.advisor.is_mock:
        sentences.append("The advisor was a mock: a fixed trend rule, not a language model. Nothing here says anything about an LLM.")
    return [*sentences, *_answers(summary.advisor), *_memory(summary), *_source(summary.source)]


def difference_sentence(name: str, other: str, low: float | None, high: float | None) -> str:
    """What an interval of a yearly difference allows to be said."""
    if low is None or high is None:
        return f"{name} never differed from {other}, so there is nothing to compare."
    if low > 0:
        return f"{name} earned {low:.1%} to {high:.1%} a year more than {other}."
    if high < 0:
        return f"{name} earned {-high:.1%} to {-low:.1%} a year less than {other}; chance does not explain the loss."
    return (
        f"{name} is statistically indistinguishable from {other}: the interval of the yearly difference, {low:.1%} to {high:.1%}, "
        "includes zero."
    )


def comparison_sentence(summary: RunSummary, row: Comparison) -> str:
    """The answer to one comparison's question."""
    names = names_of(summary)
    name, other = names[row.of], _CONTROLS.get(row.question) or names[row.against[0]]
    if row.ruined:
        gone = names.get(row.ruined) or display_name(row.ruined, Role.PLACEBO, summary.advisor.is_mock)
        return f"{gone} was ruined on {row.ruined_on}, so {name} and {other} are not compared."
    won = "" if row.beaten is None else f" It earned more than {round(row.beaten * row.draws)} of {row.draws} draws."
    if row.explained_by_number and row.low is not None and row.high is not None:
        return (
            f"{name} is statistically indistinguishable from {other}: the interval of the yearly difference, {row.low:.1%} to "
            f"{row.high:.1%}, excludes zero, but chance explains that among {summary.n_corrected} comparisons (corrected p = "
            f"{row.p_adjusted:.2f}).{won}"
        )
    least = f" {_detectable(row)}" if row.sign == 0 and row.low is not None and row.detectable is not None else ""
    return difference_sentence(name, other, row.low, row.high) + won + least


def _detectable(row: Comparison) -> str:
    """What the comparison could have found."""
    least = f"{row.detectable or 0.0:.1%} a year"
    return f"Histories like this one show a true difference of {least} in four of five cases, smaller ones less often."


def rank_sentence(rank: PlaceboRank) -> str:
    """Where the advice stands among shifted copies of itself."""
    copies = plural(rank.draws, "copy of it", "copies of it")
    return (
        f"With its own advice the account returned {rank.own:.1%}, more than with {rank.beaten:,} of {copies} shifted in time. Of those "
        f"95% returned {rank.low:.1%} to {rank.high:.1%}; advice whose timing says nothing ranks as high in {rank.p:.1%} of cases."
    )


def advisor_headline(summary: RunSummary) -> str:
    """Whether the advice helped, in one line for a title; `conclusion` says what stands behind it."""
    row, helped = summary.comparison(Question.ADVICE), _helped(summary)
    if row is None or row.ruined or row.difference is None:
        return "The advisor: no benefit shown"
    found = "The advisor helped" if helped else "The advisor cost money" if row.sign < 0 else "The advisor: no benefit shown"
    interval = "" if row.low is None or row.high is None else f", interval {row.low:+.1%} to {row.high:+.1%}"
    return f"{found}, {row.difference:+.1%} a year{interval}"


def conclusion(summary: RunSummary) -> str:
    """Whether the advice helped. It did only if it earned more than no advice and more than every placebo."""
    caveat = " The advisor was a mock, a fixed rule, so none of this is about a language model." if summary.advisor.is_mock else ""
    return _help(summary) + caveat


def _helped(summary: RunSummary) -> bool:
    """It earned more than no advice and more than every placebo, and ranks higher than chance explains."""
    advice, placebos = summary.comparison(Question.ADVICE), _placebo_signs(summary)
    more = advice is not None and not advice.ruined and advice.sign > 0
    return more and bool(placebos) and all(sign > 0 for sign in placebos) and _rank_of_chance(summary) is None


def _placebo_signs(summary: RunSummary) -> list[int]:
    return [row.sign for row in summary.comparisons if row.question in _CONTROLS and row.question is not Question.MIRRORED]


def _rank_of_chance(summary: RunSummary) -> PlaceboRank | None:
    """The rank of the advice among its shifted copies where chance explains it."""
    rank = summary.controls.rank if summary.controls else None
    return rank if rank is not None and rank.p > 1 - summary.confidence else None


def _help(summary: RunSummary) -> str:
    advice = summary.comparison(Question.ADVICE)
    if advice is None:
        return "No benefit was shown: the advice was not compared with none."
    if advice.ruined:
        return f"{comparison_sentence(summary, advice)} No benefit was shown."
    if advice.sign < 0:
        return "The advice cost money: the same policies earned more without it, and chance does not explain the difference."
    if advice.sign == 0:
        least = "" if advice.detectable is None else f" {_detectable(advice)}"
        return f"No benefit was shown: results with and without the advice are statistically indistinguishable.{least}"
    if not _placebo_signs(summary):
        return "The policies earned more with the advice than without it, but no placebo was run, so its content may not be the cause."
    if (rank := _rank_of_chance(summary)) is not None:
        return (
            "No benefit was shown: the policies earned more with the advice than without it, but its timing ranks no higher than chance "
            f"explains. {rank_sentence(rank)}"
        )
    if _helped(summary):
        return "The advice helped on this one history: the policies earned more with it than without it, and more than with any placebo."
    return (
        "No benefit was shown: the policies earned more with the advice than without it, but not more than with every placebo, so its "
        "content may not be the cause."
    )


def mirror_sentence(mirror: Mirror) -> str:
    """Whether decisions turned round with the market."""
    if mirror.turned is None or mirror.stayed is None or mirror.held is None:
        return "The advisor never said buy or sell, so there is nothing to reverse."
    counted = (
        f"On the mirrored market {mirror.turned:.0%} of {mirror.n:,} buy and sell decisions were reversed, {mirror.stayed:.0%} stayed the "
        f"same and {mirror.held:.0%} became hold."
    )
    if mirror.sign > 0:
        return f"{counted} More were reversed than stayed the same, as they would if the advisor reads the numbers."
    if mirror.sign < 0:
        return f"{counted} More stayed the same than were reversed: this advisor remembers, or favours one side whatever it is shown."
    return f"{counted} The two are statistically indistinguishable, so nothing shows that this advisor reads the numbers."


def _ruin(summary: RunSummary, slug: str) -> str:
    metrics = summary.strategies[slug]
    after = "nothing is compared with it" if slug == summary.benchmark else "nothing after that day counts"
    return f"{names_of(summary)[slug]} was ruined on {metrics.ruined}: it lost {-100 * metrics.total_return:.1f}% of its equity; {after}."


def benchmark_sentences(summary: RunSummary) -> list[str]:
    """Whether the subject did better than the benchmark, which measures carry it, and what it held to get there."""
    found, names = summary.against_benchmark, names_of(summary)
    name, other = names[summary.subject.slug], names[summary.benchmark]
    better, worse = ([row for row in found.tests if row.sign == sign] for sign in (1, -1))
    skill = [row for row in better if row.measure in SKILL]
    counted = f"{summary.confidence * 100:g}% intervals of this one history; p-values corrected for {found.n_corrected} measures"
    untold = [row.measure for row in found.tests if row.p is None or row.sign == 0]
    if not found.n_corrected:
        return [f"{name} never differed from {other}, so there is nothing to compare."]
    if skill:
        first = f"{name} did better than {other}: {_told(better)} ({counted}; variants that were tried before it are not accounted for)."
    elif better:
        first = (
            f"{name} shows no skill beyond {other}: it had {_told(better)}, but its alpha and its return at the same mean exposure do not "
            f"rule out chance, so the difference may come from holding less or more of the same market ({counted})."
        )
    elif any(row.measure in SKILL for row in worse):
        first = f"{name} did worse than {other}: {_told(worse)} ({counted}); chance does not explain the loss."
    else:
        first = f"{name} is statistically indistinguishable from {other} in {_measures(untold)} ({counted})."
    sentences = [first]
    if (better and worse) or (worse and not any(row.measure in SKILL for row in worse)):
        sentences.append(f"Against {other} it had {_told(worse)}; chance does not explain that.")
    return [*sentences, *_exposure(summary)]


def _told(rows: list[BenchmarkTest]) -> str:
    return enumerate_names([_measured(row) for row in rows])


def _measures(measures: list[Measure]) -> str:
    return enumerate_names([MEASURES[measure] for measure in measures])


def _measured(row: BenchmarkTest) -> str:
    """A measure whose value is not chance, in words."""
    low, high = sorted((abs(row.low or 0.0), abs(row.high or 0.0)))
    more = "more" if row.sign > 0 else "less"
    match row.measure:
        case Measure.ALPHA:
            return f"an alpha of {row.low:.1%} to {row.high:.1%} a year"
        case Measure.SHARPE:
            return f"a Sharpe ratio {'higher' if row.sign > 0 else 'lower'} by {low:.2f} to {high:.2f}"
        case _:
            return f"{low:.1%} to {high:.1%} a year {more} {MEASURES[row.measure]}"


def _exposure(summary: RunSummary) -> list[str]:
    """How much of the benchmark's exposure the subject had, and what its raw return shows where another measure carries the verdict."""
    found, other = summary.against_benchmark, names_of(summary)[summary.benchmark]
    raw, share = found.test(Measure.EXCESS), found.relative_exposure
    if raw is None or raw.low is None or raw.high is None or share is None:
        return []
    held = f"It held {share:.0%} of the exposure of {other} on average"
    counted = summary.n_sessions > found.n_sessions
    clean = [f"These figures are of the {plural(found.n_sessions, 'session')} that can count, of {summary.n_sessions}."] if counted else []
    return [f"{held}; the interval of its yearly return less that of {other} is {raw.low:.1%} to {raw.high:.1%}.", *clean]


def _short(summary: RunSummary) -> list[str]:
    """A warning where intervals were measured to miss the truth too often in a test as short as this one."""
    coverage, n = summary.against_benchmark.coverage, summary.against_benchmark.n_sessions
    if coverage is None:
        return [
            f"The test is short: {plural(n, 'session')}, fewer than any length at which these intervals were checked, so they may be "
            "too narrow."
        ]
    if abs(coverage - _NOMINAL) > TOLERATED:
        held = f"intervals that should hold the truth in 95 of 100 cases were measured to hold it in {100 * coverage:.0f}"
        return [f"The test is short: at {plural(n, 'session')} {held}."]
    return []


def _supervised(summary: RunSummary) -> list[str]:
    """Whether the policies beat the supervised models; those that they are level with share a sentence."""
    names, sentences = names_of(summary), []
    told = [row for row in summary.supervised if row.low is not None and row.high is not None]
    level = [row for row in told if row.sign == 0 and not row.explained_by_number]
    if len(level) > 1:
        intervals = enumerate_names([f"{row.low:.1%} to {row.high:.1%}" for row in level])
        least = max((row for row in level if row.detectable is not None), key=lambda row: row.detectable or 0.0, default=None)
        sentences.append(
            f"RL did not beat {enumerate_names([names[row.against[0]] for row in level])}, from which it is statistically "
            f"indistinguishable: the intervals of the yearly differences, {intervals}, include zero."
            + (f" {_detectable(least)}" if least else "")
        )
    for row in summary.supervised:
        if len(level) < 2 or row not in level:
            sentence = comparison_sentence(summary, row)
            sentences.append(sentence if row.sign > 0 or row.ruined else f"RL did not beat {names[row.against[0]]}: {sentence}")
    return sentences


def _purchase(summary: RunSummary) -> str:
    """Which symbols the benchmark could not buy, and why; empty where it bought them all."""
    purchase, n = summary.purchase, len(summary.symbols)
    if len(purchase.bought) == n:
        return ""
    could = "it could buy" if purchase.below_lot else "traded"
    name, bought = names_of(summary)[summary.benchmark], f"{len(purchase.bought)} of {plural(n, 'symbol')}"
    return f"{name} held the {bought} that {could} on {purchase.decided}; {'; '.join(_missed(purchase))}."


def _missed(purchase: Purchase) -> list[str]:
    whys = (
        (purchase.unlisted, "{} listed later and never bought"),
        (purchase.without_bar, "had no bar that day and {} never bought"),
        (purchase.below_lot, "came to less than one lot and {} never bought"),
    )
    return [f"{enumerate_names(symbols)} {why.format('was' if len(symbols) == 1 else 'were')}" for symbols, why in whys if symbols]


def _answers(advisor: AdvisorFacts) -> list[str]:
    """What a reader must know of an advisor's answers."""
    sentences = []
    if advisor.n_abstained:
        sentences.append(
            f"The advisor abstained on {advisor.n_abstained} of {plural(advisor.n_advice, 'question')}, which counts as hold; "
            "signals.parquet gives each reason."
        )
    if advisor.reveal:
        sentences.append(
            f"The prompts showed {SHOWN.get(advisor.mask, SHOWN['none'])}. This is an ablation: a model may remember what happened "
            "next, so no number that depends on its advice is a result."
        )
    return sentences


def _memory(summary: RunSummary) -> list[str]:
    """What a reader must know of what the advisor may remember."""
    sentences = []
    if not counting_spans(summary):
        tags = " and ".join(f"{span.n_sessions} {span.tag}" for span in summary.spans)
        sentences.append(
            f"Nothing here counts as evidence for the advisor: its sessions are {tags}, none is clean. A session is clean when it comes "
            "after the cutoff that the model's maker states (llm.stated_cutoff), after everything that a probe found recalled, and after a "
            "margin, and when that probe would have found out a model that remembers it."
        )
    sentences += certificate_sentences(summary)
    certificate = summary.advisor.certificate
    for kind, hits in (certificate.reidentification or {} if certificate else {}).items():
        if hits.low > hits.chance:
            sentences.append(
                f"The prompts are less blind than they seem: in a probe the model recognised the {kind} in {hits.rate:.1%} of them "
                f"({hits.low:.1%} to {hits.high:.1%}; guessing gives {hits.chance:.1%})."
            )
    return sentences


def certificate_sentences(summary: RunSummary) -> list[str]:
    """Whose word stands behind the sessions that are clean, claimed to be, or in the forward log."""
    days = {span.tag: plural(span.n_sessions, "session") for span in summary.spans}
    certificate = summary.advisor.certificate
    if certificate is None:
        return []
    power, sentences = certificate.power, []
    if Tag.LOGGED in days:
        alone = ", and the advisor is judged by them alone" if certificate.n_logged >= ENOUGH_LOGGED else ""
        sentences.append(
            f"The decisions for {days[Tag.LOGGED]} stand in the forward log, written and hashed before their outcome. They count "
            f"whatever the model remembers{alone}."
        )
    if Tag.CLAIMED in days:
        untold = (
            "the model was never probed"
            if not certificate.n_probes
            else "no probe of it measured what that probe could have detected"
            if power is None
            else f"a model that knows {power.known:.0%} of the months would be found out by {power.reaches[-1].found:.0%} of such probes, "
            f"and {LEAST_POWER:.0%} are needed"
        )
        sentences.append(
            f"Claimed to be clean by the model's maker alone, and not counted: {days[Tag.CLAIMED]}. Here {untold}. "
            "ploutos llm probe --questions N finds out more the more it asks."
        )
    if Tag.CLEAN in days and power is not None:
        sentences.append(
            f"Clean: {days[Tag.CLEAN]}, after the stated cutoff, after what was recalled, after {plural(certificate.grey_months, 'month')} "
            f"of margin, and a model that knows {power.known:.0%} of the months would have been found out by {power.reaches[-1].found:.0%} "
            "of such probes."
        )
    return sentences


def _source(source: str) -> list[str]:
    sentences = [_SAMPLE] if source == sample.NAME else []
    if source.startswith("synthetic"):
        sentences.append("The bars are simulated. Nothing here says anything about a real market.")
    return sentences + [f"{stand_in}: it has its own hours, dividends and costs, and no rolls." for stand_in in source.split("; ")[1:]]
