"""What reading texts was worth, in sentences and on a page of its own."""

from ploutos.evaluation.text_controls import TextControls, TextPair
from ploutos.evaluation.text_skill import FEWEST, ReaderScore, TextSkill
from ploutos.reporting.page import render_page, show
from ploutos.wording import plural

_HEADINGS = ["reader", "took a side on", "right", "value per event", "interval", "p"]
_LEVEL = 0.05
_NAMES = {"model": "model", "words": "bag of words"}
_READS = {
    "prices": "prices alone", "model": "the model's readings", "words": "a bag of words", "shuffled": "shuffled readings",
}  # fmt: skip
_FOOTER = (
    "A value is the mean log return, in basis points, of positions of mean size 1, from the open after a text was known to the close at "
    "the horizon, before costs. It is one history, and no promise of profit."
)


def text_sentences(skill: TextSkill) -> list[str]:
    """The finding first."""
    own, plain = skill.readers
    rank, more = skill.shuffled, skill.more
    sentences = [
        _finding(skill),
        f"Its readings are worth {_points(own.value)} an event, more than {rank.beaten:,} of {plural(rank.draws, 'shuffle')} of them over "
        f"the same texts (p = {rank.p:.3f}).",
    ]
    if more.low is not None:
        verb = "beats" if more.sign > 0 else "is beaten by" if more.sign < 0 else "cannot be distinguished from"
        sentences.append(
            f"{skill.model} {verb} a bag of words on the same texts, which is worth {_points(plain.value)}: the interval of the "
            f"difference is {_interval(more)} an event."
        )
    else:
        sentences.append(f"{skill.model} and a bag of words never differed on these texts.")
    if skill.n_counting < skill.n_events:
        sentences.append(
            f"Of {plural(skill.n_events, 'event')}, {skill.n_counting:,} lie on sessions that the model is shown not to remember; what it "
            "said of the others may be memory, and is not evidence."
        )
    if skill.n_abstained:
        gave = f"It gave no usable answer to {skill.n_abstained:,} of {plural(skill.n_texts, 'text')}"
        sentences.append(f"{gave}, which count as saying nothing.")
    return sentences


def _finding(skill: TextSkill) -> str:
    found = skill.readers[0].sign > 0 and skill.shuffled.p <= _LEVEL
    if found and skill.more.sign > 0:
        return f"{skill.model} reads something in these texts that a bag of words does not."
    if found:
        return f"{skill.model} reads something in these texts, but nothing shows that it reads more than a bag of words does."
    least = "" if skill.detectable is None else f" This many texts show {_points(skill.detectable)} an event in four of five cases."
    return f"Nothing shows that {skill.model} reads anything in these texts.{least}"


def run_sentences(controls: TextControls) -> list[str]:
    """Of a run that trained on texts: what reading them was worth to its supervised models, then what the readings are worth alone."""
    everything = f"Everything that was trained reads what {controls.model} made of {plural(controls.n_texts, 'text')}."
    if controls.skill is None:
        few = (
            f"{plural(controls.n_events, 'symbol and bar', 'symbols and bars')} with texts and a known outcome are too few to test the "
            f"readings by themselves; {FEWEST} are needed."
        )
    return [
        *(_helped(controls, kind) for kind in dict.fromkeys(row.kind for row in controls.accounts)),
        *(text_sentences(controls.skill) if controls.skill else [few]),
        everything,
    ]


def _helped(controls: TextControls, kind: str) -> str:
    """What a supervised model earned by reading."""
    of = {reads: controls.pair(kind, reads, "prices") for reads in ("model", "words", "shuffled")}
    verb = {1: "helped", 0: "did not help beyond chance", -1: "harmed"}
    beside = ", ".join(f"{_READS[reads]} {_yearly(pair)}" for reads, pair in of.items())
    return f"Reading texts {verb[of['model'].sign]}: beside prices alone, {kind} earns a year with {beside}."


def _yearly(pair: TextPair) -> str:
    more = f"{show(pair.difference, 'percent')} more" if (pair.difference or 0) >= 0 else f"{show(-(pair.difference or 0), 'percent')} less"
    return more if pair.low is None else f"{more} ({show(pair.low, 'percent')} to {show(pair.high, 'percent')})"


def render_run_texts(controls: TextControls) -> str:
    """The page of a run that trained on texts."""
    accounts = [[row.kind, _READS[row.reads], show(row.total_return, "percent"), show(row.sharpe, "ratio")] for row in controls.accounts]
    pairs = [
        [row.kind, f"{_READS[row.of]} less {_READS[row.against]}", show(row.difference, "percent"),
         "-" if row.low is None else f"{show(row.low, 'percent')} to {show(row.high, 'percent')}", show(row.p, "p")]
        for row in controls.pairs
    ]  # fmt: skip
    tables = [
        ("Supervised models beside prices alone", ["model", "reads beside prices", "total return", "Sharpe"], accounts),
        ("Their differences, a year", ["model", "difference", "mean return", "interval", "p, corrected"], pairs),
    ]
    return render_page(
        "audit.html.j2", title="Did reading texts help?", sentences=run_sentences(controls), figures=[],
        tables=[*(tables if accounts else []), *(_tables(controls.skill) if controls.skill else [])], footer=_FOOTER,
    )  # fmt: skip


def render_texts(skill: TextSkill) -> str:
    """The page."""
    return render_page(
        "audit.html.j2", title="Do the texts say anything?", sentences=text_sentences(skill), figures=[], tables=_tables(skill),
        footer=_FOOTER,
    )  # fmt: skip


def _tables(skill: TextSkill) -> list[tuple[str, list[str], list[list[str]]]]:
    """Readers side by side, and the model among shuffles of itself."""
    rank, rows = skill.shuffled, [*((_NAMES[row.reader], row) for row in skill.readers), ("model less bag of words", skill.more)]
    drawn = [f"{rank.draws:,}", *(_points(each) for each in (rank.own, rank.low, rank.median, rank.high)), f"{rank.p:.3f}"]
    return [
        (f"{plural(skill.n_events, 'event')}, {plural(skill.horizon_bars, 'bar')} ahead", _HEADINGS, [_row(*row) for row in rows]),
        ("The model's readings, shuffled", ["shuffles", "as read", "2.5%", "median", "97.5%", "p"], [drawn]),
    ]


def _row(name: str, row: ReaderScore) -> list[str]:
    return [name, f"{row.n_said:,}", show(row.right, "percent"), _points(row.value), _interval(row), show(row.p, "p")]


def _interval(row: ReaderScore) -> str:
    return "-" if row.low is None else f"{_points(row.low)} to {_points(row.high)}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{1e4 * value:.1f} bp"
