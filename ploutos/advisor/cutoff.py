"""The cutoff store: how far a model's memory reaches, as its maker states it and as probes found it, and what that makes
of each session of a test.

One file per content of a model, under `$PLOUTOS_HOME/llm/cutoffs`, with every probe that it went through. The latest month
that any of them dated counts, so a later and weaker probe takes nothing back.
"""

from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from ploutos.advisor.config import LLMConfig
from ploutos.errors import StoreError
from ploutos.llm.config import LLMProvider
from ploutos.store import Store, write_json
from ploutos.types import TimeArray


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HitRate(_Record):
    """Right answers of one kind against what guessing gives.

    Attributes:
        n_choices: answers that were offered.
        n: questions that were answered; abstentions are left out.
        hits: answers that were right.
        rate, low, high: share of right answers and its exact 95 % interval (Clopper-Pearson).
        chance: what guessing gives, or always the same answer, whichever is more.
        p_value: of as many hits or more by chance.
    """

    n_choices: int
    n: int
    hits: int
    rate: float
    low: float
    high: float
    chance: float
    p_value: float


class MonthScore(_Record):
    """Answers about one month (YYYY-MM): how many, and how many were right."""

    month: str
    n: int
    right: int


class Reach(_Record):
    """How often a probe like this one would find out a memory that reaches up to a month (YYYY-MM)."""

    month: str
    found: float


class Power(_Record):
    """What a probe could have found out, by simulating models that remember.

    Attributes:
        known: share of the months that such a model knows; about the others it guesses.
        margin_months: how far before its true reach its memory may be dated and still counts as found out.
        reaches: how often it is found out, by the month that its memory reaches.
    """

    known: float
    margin_months: int
    reaches: tuple[Reach, ...]

    def at(self, month: str) -> float:
        """How often a memory that reaches this month is found out; 0 before the first month that was simulated."""
        return max(((reach.month, reach.found) for reach in self.reaches if reach.month <= month), default=("", 0.0))[1]


class Recall(_Record):
    """What a model said about months from memory alone.

    Attributes:
        symbols: who was asked about.
        n: answers; abstentions are left out.
        accuracy: share of right answers.
        balanced_accuracy: mean of the shares right among months that rose and among months that fell; 0.5 for a model that
            always says the same.
        base_rate: share of months that rose.
        said_up: share of answers that were up.
        p_value: of dating that well or better when answers belong to other months.
        cutoff: last month (YYYY-MM) that the model recalls; None when nothing shows that it recalls any.
        accuracy_before, accuracy_after: share right up to the cutoff and after it; None without answers there.
        months: every month asked about, in order.
        power: what these questions could have found out; None for a probe from before it was measured.
    """

    symbols: tuple[str, ...]
    n: int
    accuracy: float
    balanced_accuracy: float
    base_rate: float
    said_up: float
    p_value: float
    cutoff: str | None
    accuracy_before: float | None
    accuracy_after: float | None
    months: tuple[MonthScore, ...]
    power: Power | None = None


class ProbeResult(_Record):
    """One probe.

    Attributes:
        probed_at: UTC.
        source, symbols: the bars it was made from.
        questions, seed: of each kind, as requested.
        template: version of the blind prompts.
        n_asked, n_abstained, tokens, seconds: what it took, as recorded.
        reidentification: `symbol` and `year`, those that there was a choice of; from blind prompts.
        recall: None when the bars hold no whole month after another.
    """

    probed_at: datetime
    source: str
    symbols: tuple[str, ...]
    questions: int
    seed: int
    template: str
    n_asked: int
    n_abstained: int
    tokens: int
    seconds: float
    reidentification: dict[str, HitRate]
    recall: Recall | None


class ModelRecord(_Record):
    """All that was found out about one model; a file of the cutoff store."""

    provider: str
    model: str
    digest: str
    probes: tuple[ProbeResult, ...]

    @property
    def cutoff(self) -> str | None:
        """Latest month (YYYY-MM) that any probe found recalled."""
        return max((probe.recall.cutoff for probe in self.probes if probe.recall and probe.recall.cutoff), default=None)


class CutoffStore:
    """Entries under one folder, usually `$PLOUTOS_HOME/llm/cutoffs`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def file(self, provider: str, model: str, digest: str) -> Path:
        """Where a model's record lies: by its content's digest, or by its name where the provider tells none."""
        return self._root / f"{digest or quote(f'{provider}-{model}', safe='')}.json"

    def find(self, provider: str, model: str, digest: str) -> ModelRecord | None:
        """The record of a model; None when it was never probed.

        Raises:
            StoreError: the file is damaged.
        """
        return _read(self.file(provider, model, digest))

    def holds_another(self, provider: str, model: str, digest: str) -> bool:
        """Whether the same name was probed with another content."""
        records = (_read(file) for file in sorted(self._root.glob("*.json")))
        return any(e is not None and (e.provider, e.model) == (provider, model) and e.digest != digest for e in records)

    def add(self, provider: str, model: str, digest: str, probe: ProbeResult) -> ModelRecord:
        """Write one more probe of a model; safe for several processes."""
        with Store(self._root).locked("cutoffs"):
            before = self.find(provider, model, digest)
            record = ModelRecord(provider=provider, model=model, digest=digest, probes=(*(before.probes if before else ()), probe))
            write_json(self.file(provider, model, digest), record.model_dump(mode="json"))
        return record


def _read(file: Path) -> ModelRecord | None:
    try:
        return ModelRecord.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StoreError(f"{file} is not a record of the cutoff store; delete it and run ploutos llm probe again") from error


class Tag(StrEnum):
    """What a session can say about an advisor."""

    CONTAMINATED = "contaminated"
    """It lies in the model's memory, or the prompts named it."""
    GREY = "grey"
    """Nobody knows whether it does."""
    CLAIMED = "claimed"
    """It came after the margin, by the word of the model's maker and by no probe that could have found it out."""
    CLEAN = "clean"
    """It came after the margin, and a probe that could have found it out recalled nothing of it."""
    LOGGED = "logged"
    """What was decided stands in the forward log, written before the outcome: nobody has to be believed."""
    NOT_APPLICABLE = "not-applicable"
    """The advisor is a fixed rule, which has no memory."""


class Certificate(_Record):
    """What is known of how far an advisor's memory reaches, as a run's metrics keep it.

    Of several probes the newest gives re-identification, recall and when; `probed` is the latest month of all.

    Attributes:
        stated: last day of the training data by the maker's word.
        grey_months: how long after it sessions do not count as clean.
        probed: last month (YYYY-MM) that any probe found recalled.
        effective_cutoff: the later of what is stated and the last day of what was probed.
        digest_match: as in `CutoffEvidence`.
        n_probes: of this very content.
        n_logged: sessions whose decision the forward log holds.
        probed_at, source, n_asked, n_abstained, reidentification, recall: of the newest probe; None without one.
        power: of the strongest probe; None where none was measured.
    """

    stated: date | None
    grey_months: int
    probed: str | None
    effective_cutoff: date | None
    digest_match: bool | None
    n_probes: int
    n_logged: int = 0
    probed_at: datetime | None = None
    source: str | None = None
    n_asked: int | None = None
    n_abstained: int | None = None
    reidentification: dict[str, HitRate] | None = None
    recall: Recall | None = None
    power: Power | None = None


LEAST_POWER = 0.8
"""How often a probe must find out a model that remembers, before days on which it found nothing are clean."""


class CutoffEvidence(_Record):
    """What is known of how far an advisor's memory reaches.

    Attributes:
        stated: last day of the training data by the maker's word.
        grey_months: how long after it sessions do not count as clean.
        record: the cutoff store's record of this very content; None when it was never probed.
        digest_match: whether `record` is of the content that advised; False when only another content of the same name was
            probed, None when nothing was or the provider tells no digest.
        logged: sessions whose decision stands in the forward log.
    """

    stated: date | None = None
    grey_months: int = 6
    record: ModelRecord | None = None
    digest_match: bool | None = None
    logged: tuple[date, ...] = ()

    @property
    def recalled(self) -> str | None:
        """Last month (YYYY-MM) that a probe found recalled."""
        return self.record.cutoff if self.record else None

    @property
    def effective_cutoff(self) -> date | None:
        """The later of what is stated and the last day of what was probed."""
        probed = None if self.recalled is None else pd.Period(self.recalled, "M").end_time.date()
        return max((day for day in (self.stated, probed) if day is not None), default=None)

    @property
    def last_grey_day(self) -> date:
        """The end of the margin, which begins at the later of what is stated and what was probed; never, where nothing is stated."""
        cutoff = self.effective_cutoff
        return date.max if self.stated is None or cutoff is None else (pd.Timestamp(cutoff) + pd.DateOffset(months=self.grey_months)).date()

    @property
    def powers(self) -> tuple[Power, ...]:
        """What each probe could have found out, the strongest first; one that allows itself a wider margin than this counts for nothing."""
        found = (probe.recall.power for probe in (self.record.probes if self.record else ()) if probe.recall and probe.recall.power)
        counting = [power for power in found if power.margin_months <= self.grey_months]
        return tuple(sorted(counting, key=lambda power: -power.reaches[-1].found))

    def power_at(self, day: date) -> float:
        """How often the best probe finds out a memory that reaches a day."""
        return max((power.at(f"{day:%Y-%m}") for power in self.powers), default=0.0)

    def certificate(self) -> Certificate | None:
        """The same for a run's metrics; None when nothing is known."""
        if self.stated is None and self.record is None and self.digest_match is None and not self.logged:
            return None
        newest = self.record.probes[-1] if self.record else None
        of_newest = ("probed_at", "source", "n_asked", "n_abstained", "reidentification", "recall")
        return Certificate(
            stated=self.stated,
            grey_months=self.grey_months,
            probed=self.recalled,
            effective_cutoff=self.effective_cutoff,
            digest_match=self.digest_match,
            n_probes=len(self.record.probes) if self.record else 0,
            n_logged=len(self.logged),
            power=next(iter(self.powers), None),
            **({name: getattr(newest, name) for name in of_newest} if newest else {}),
        )


UNKNOWN = CutoffEvidence()
"""Nothing stated, nothing probed."""


def known_cutoff(config: LLMConfig, digest: str, root: Path) -> CutoffEvidence:
    """What the settings and the cutoff store say about the advisor of a run.

    Args:
        digest: content digest of the model that advised.
        root: folder of the cutoff store.

    Raises:
        StoreError: the cutoff store is damaged.
    """
    if config.provider is LLMProvider.MOCK:
        return UNKNOWN
    model, store = (config.provider.value, config.model, digest), CutoffStore(root)
    record = store.find(*model)
    match = None if not digest else True if record else False if store.holds_another(*model) else None
    return CutoffEvidence(stated=config.stated_cutoff, grey_months=config.grey_months, record=record, digest_match=match)


def tag_dates(dates: TimeArray, known: CutoffEvidence, is_mock: bool = False, reveal: bool = False) -> list[Tag]:
    """What each session can say about the advisor.

    Logged: its decision stands in the forward log, whatever the model may remember. Contaminated: at or before the later of the stated
    and the probed cutoff. Of those more than `grey_months` after it, where a maker states one, clean are the ones that a probe would have
    found recalled in 80 cases of 100, had they been, and claimed are the others. Grey: the rest, so everything when nothing is stated.

    Args:
        dates: session dates.
        is_mock: the advisor is a fixed rule.
        reveal: the prompts named asset and date, which makes every session contaminated but those in the forward log.
    """
    if is_mock:
        return [Tag.NOT_APPLICABLE] * len(dates)
    cutoff, last_grey, logged = known.effective_cutoff, known.last_grey_day, frozenset(known.logged)

    def tag(day: date) -> Tag:
        if day in logged:
            return Tag.LOGGED
        if reveal or (cutoff is not None and day <= cutoff):
            return Tag.CONTAMINATED
        if day <= last_grey:
            return Tag.GREY
        return Tag.CLEAN if known.power_at(day) >= LEAST_POWER else Tag.CLAIMED

    days: list[date] = dates.astype("datetime64[D]").tolist()
    return [tag(day) for day in days]
