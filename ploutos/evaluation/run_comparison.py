"""Two runs on the sessions that both tested: paired returns, differences with intervals, and a refusal where pairing means nothing.

Returns go from session close to session close on each run's own path, and a pair counts only where both runs came from the same session
before. So test ranges with holes never pair one session with two. What luck was tried in either run is its gates' question, not this one.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ploutos.errors import DataError, StoreError
from ploutos.evaluation.metrics import drawdowns, session_closes, sharpe_ratio, to_date
from ploutos.evaluation.significance import FEWEST, Estimate, estimate, holm, mean, sharpe_difference, significant_sign
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import Number, Part, RunSummary, read_summary
from ploutos.market import calendar as calendars
from ploutos.market.clock import parse_timeframe
from ploutos.run_manifest import BarsFacts, RunManifest, read_manifest
from ploutos.types import FloatArray, TimeArray
from ploutos.wording import plural


@dataclass(frozen=True)
class TestedAccount:
    """One account of a run, session by session.

    Attributes:
        run: name of the run's folder.
        slug: of the account.
        summary: of the run.
        bars: the manifest's facts about them.
        bars_digest: their sha256.
        days: shape (n + 1,), sessions of the closes, the start first.
        closes: shape (n + 1,), equity.
    """

    run: str
    slug: str
    summary: RunSummary
    bars: BarsFacts
    bars_digest: str
    days: TimeArray
    closes: FloatArray

    __test__ = False  # not a test of pytest's


class RunSide(Part):
    """One run on the common sessions."""

    run: str
    """Name of its folder."""
    account: str
    """Slug of the account."""
    total_return: float
    """Over the common sessions, net of costs."""
    sharpe: Number
    """Yearly."""
    max_drawdown: float
    """Deepest fall, from session close to session close."""


class Difference(Part):
    """The first run less the second."""

    value: Number
    """Yearly."""
    low: Number
    """Lower end of its interval, studentised stationary bootstrap of the pairs."""
    high: Number
    """Upper end of it."""
    p: Number
    """Of a value of 0, both sides."""
    p_adjusted: Number
    """The same corrected for both measures (Holm)."""
    sign: Literal[-1, 0, 1]
    """Of the value where `p_adjusted` rules out 0; else 0."""


class RunComparison(Part):
    """Two runs, paired."""

    first: date
    """First common session."""
    last: date
    """Last one."""
    n_sessions: int
    """Common sessions."""
    confidence: float
    """Share of samples inside the intervals."""
    same_bars: bool
    """Both runs stand on the same bars, byte for byte."""
    sides: tuple[RunSide, RunSide]
    """The two."""
    mean_return: Difference
    """Of the yearly mean of session returns."""
    sharpe: Difference
    """Of the yearly Sharpe ratio."""


def read_account(folder: Path, slug: str | None = None) -> TestedAccount:
    """An account of a run's folder: that which the run is about, or another.

    Raises:
        StoreError: the folder holds no whole run.
        DataError: it has no such account, or the account was ruined.
    """
    summary = read_summary(folder / "metrics.json")
    slug = slug or summary.subject.slug
    if (metrics := summary.strategies.get(slug)) is not None and metrics.ruined:
        raise DataError(f"{slug} of {folder.name} was ruined on {metrics.ruined}, so there is nothing to compare; choose another account")
    manifest, days, closes = _closes(folder, slug, tuple(summary.strategies))
    return TestedAccount(folder.name, slug, summary, manifest.require_bars(), manifest.artifacts["bars"], days, closes)


def read_closes(folder: Path, slug: str) -> tuple[TimeArray, FloatArray]:
    """Session closes of an account of a run's folder, whichever version wrote its summary: sessions and equity, shape (n + 1,).

    Raises:
        StoreError: the folder holds no whole run.
        DataError: it has no such account.
    """
    return _closes(folder, slug)[1:]


def _closes(folder: Path, slug: str, known: tuple[str, ...] = ()) -> tuple[RunManifest, TimeArray, FloatArray]:
    """The manifest too."""
    manifest = read_manifest(folder)
    try:
        frame = pd.read_parquet(folder / "equity.parquet", columns=["strategy", "timestamp", "equity"])
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} is not the folder of a complete run: {error}; repeat the run") from error
    if slug not in (known := known or tuple(frame["strategy"].unique())):
        raise DataError(f"{folder.name} has no account {slug}; choose one of {', '.join(known)}")
    path, bars = frame[frame["strategy"] == slug], manifest.require_bars()
    stamps = path["timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    days = calendars.sessions(stamps, parse_timeframe(bars.timeframe), bars.calendar)
    ends = session_closes(days)
    return manifest, days[ends], path["equity"].to_numpy(dtype=np.float64)[ends]


def compare_runs(one: TestedAccount, other: TestedAccount, bootstrap: BootstrapSpec, seed: int) -> RunComparison:
    """The first account less the second on the sessions that both tested.

    Raises:
        DataError: they cannot be paired: other calendars, currencies or simulated markets, or too few common sessions.
    """
    _require_comparable(one, other)
    days, own, theirs = _paired(one, other)
    if len(days) < FEWEST:
        raise DataError(
            f"{one.run} tested {one.summary.first} to {one.summary.last} and {other.run} {other.summary.first} to {other.summary.last}: "
            f"{plural(len(days), 'session')} in common; expected at least {FEWEST}"
        )
    per_year = one.summary.sessions_per_year
    found = [
        estimate(mean, [own - theirs], bootstrap, seed).times(per_year),
        estimate(sharpe_difference, [own, theirs], bootstrap, seed).times(per_year**0.5),
    ]
    adjusted = holm([each.p for each in found])
    mean_return, sharpe = (_difference(each, p, bootstrap.confidence) for each, p in zip(found, adjusted, strict=True))
    return RunComparison(
        first=to_date(days[0]),
        last=to_date(days[-1]),
        n_sessions=len(days),
        confidence=bootstrap.confidence,
        same_bars=one.bars_digest == other.bars_digest,
        sides=(_side(one, own, per_year), _side(other, theirs, per_year)),
        mean_return=mean_return,
        sharpe=sharpe,
    )


def _require_comparable(one: TestedAccount, other: TestedAccount) -> None:
    currencies = [{each.currency for each in side.bars.instruments} for side in (one, other)]
    for what, values in (("calendar", [one.bars.calendar, other.bars.calendar]), ("currency", [", ".join(c) for c in currencies])):
        if values[0] != values[1]:
            raise DataError(f"{one.run} has the {what} {values[0]} and {other.run} {values[1]}; expected runs of the same {what}")
    if one.bars_digest != other.bars_digest and any(side.summary.source.startswith("synthetic") for side in (one, other)):
        raise DataError(f"{one.run} and {other.run} used different bars and at least one market is simulated: equal dates mean nothing")


def _paired(one: TestedAccount, other: TestedAccount) -> tuple[TimeArray, FloatArray, FloatArray]:
    """Common sessions, and the returns of both."""
    tables = [
        pd.DataFrame({"before": each.days[:-1], "day": each.days[1:], "return": each.closes[1:] / each.closes[:-1] - 1})
        for each in (one, other)
    ]
    both = tables[0].merge(tables[1], on=["before", "day"], suffixes=("", "_other"))
    return both["day"].to_numpy().astype("datetime64[D]"), both["return"].to_numpy(), both["return_other"].to_numpy()


def _side(account: TestedAccount, returns: FloatArray, per_year: float) -> RunSide:
    path = np.r_[1.0, np.cumprod(1 + returns)]
    return RunSide(
        run=account.run,
        account=account.slug,
        total_return=float(path[-1] - 1),
        sharpe=sharpe_ratio(returns, per_year),
        max_drawdown=float(drawdowns(path).min()),
    )


def _difference(found: Estimate, p: float, confidence: float) -> Difference:
    return Difference(
        value=found.value, low=found.low, high=found.high, p=found.p, p_adjusted=p, sign=significant_sign(found.value, p, confidence)
    )
