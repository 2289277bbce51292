"""The cutoff store: how far a model's memory reaches, as its maker states it and as probes found it, and what that makes
of each session of a test.

One file per content of a model, under `$PLOUTOS_HOME/llm/cutoffs`, with every probe that it went through. The latest month
that any of them dated counts, so a later and weaker probe takes nothing back.
"""

from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from ploutos.errors import StoreError
from ploutos.llm.config import LLMConfig, LLMProvider
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


class ProbeResult(_Record):
    """One probe.

    Attributes:
        probed_at: UTC.
        source, symbols: the bars it was made from.
        questions, seed: of each kind, as asked for.
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
        raise StoreError(f"{file} is no record of the cutoff store; delete it and run ploutos llm probe again") from error


class Tag(StrEnum):
    """What a session can say about an advisor."""

    CONTAMINATED = "contaminated"
    """It lies in the model's memory, or the prompts named it."""
    GREY = "grey"
    """Nobody knows."""
    CLEAN = "clean"
    """It came after all that the model can have read."""
    NOT_APPLICABLE = "not applicable"
    """The advisor is a fixed rule, which has no memory."""


class CutoffEvidence(_Record):
    """What is known of how far an advisor's memory reaches.

    Attributes:
        stated: last day of the training data by the maker's word.
        grey_months: how long after it sessions do not count as clean.
        record: the cutoff store's record of this very content; None when it was never probed.
        digest_match: whether `record` is of the content that advised; False when only another content of the same name was
            probed, None when nothing was or the provider tells no digest.
    """

    stated: date | None = None
    grey_months: int = 6
    record: ModelRecord | None = None
    digest_match: bool | None = None

    @property
    def recalled(self) -> str | None:
        """Last month (YYYY-MM) that a probe found recalled."""
        return self.record.cutoff if self.record else None

    @property
    def effective_cutoff(self) -> date | None:
        """The later of what is stated and the last day of what was probed."""
        probed = None if self.recalled is None else pd.Period(self.recalled, "M").end_time.date()
        return max((day for day in (self.stated, probed) if day is not None), default=None)

    def certificate(self) -> dict[str, Any] | None:
        """The same as a JSON-able value for a run's metrics; None when neither is known.

        Of several probes the newest gives re-identification, recall and when; `probed` is the latest month of all.
        """
        if self.stated is None and self.record is None and self.digest_match is None:
            return None
        newest = self.record.probes[-1].model_dump(mode="json") if self.record else {}
        cutoff = self.effective_cutoff
        return {
            "stated": None if self.stated is None else self.stated.isoformat(),
            "grey_months": self.grey_months,
            "probed": self.recalled,
            "effective_cutoff": None if cutoff is None else cutoff.isoformat(),
            "digest_match": self.digest_match,
            "n_probes": len(self.record.probes) if self.record else 0,
            **{name: newest.get(name) for name in ("probed_at", "source", "n_asked", "n_abstained", "reidentification", "recall")},
        }


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

    Contaminated: at or before the later of the stated and the probed cutoff. Clean: more than `grey_months` after the
    stated one and after every recalled month. Grey: all others, so everything when the maker states nothing.

    Args:
        dates: session dates.
        is_mock: the advisor is a fixed rule.
        reveal: the prompts named asset and date, which makes every session contaminated.
    """
    if is_mock or reveal:
        return [Tag.NOT_APPLICABLE if is_mock else Tag.CONTAMINATED] * len(dates)
    cutoff = known.effective_cutoff
    if cutoff is None:
        return [Tag.GREY] * len(dates)
    clean_after = date.max if known.stated is None else (pd.Timestamp(known.stated) + pd.DateOffset(months=known.grey_months)).date()
    days: list[date] = dates.astype("datetime64[D]").tolist()
    return [Tag.CONTAMINATED if day <= cutoff else Tag.CLEAN if day > clean_after else Tag.GREY for day in days]
