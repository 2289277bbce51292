"""Everything that was tried on the tested sessions: the paths among which the best was, or could have been, picked.

Who keeps count is not known here; a run is handed what is known. Paths of other runs need not reach over all sessions.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.metrics import Periods, periods_of, session_returns
from ploutos.evaluation.overfitting import effective_trials
from ploutos.market.bars import Bars
from ploutos.store import Kind, digest_of
from ploutos.strategies.base import Role
from ploutos.types import FloatArray, TimeArray

NOT_TRIED = (Role.BASELINE, Role.PLACEBO, Role.ORACLE)
"""Roles of accounts that nobody would pick: they are what others are measured by."""


@dataclass(frozen=True)
class Incumbent:
    """The champion of a home, as far as a run can be held against it.

    Attributes:
        model: its name.
        run: the folder that it came from.
        slug: of the account that is champion.
        returns: shape (n,), session returns on the sessions of the candidates; nan where its run has none that started alike.
        same_settings: the run that is judged has the champion's settings.
        unknown: why there are no returns, if there is a reason but the dates.
    """

    model: str
    run: str
    slug: str
    returns: FloatArray
    same_settings: bool
    unknown: Literal["", "other-history", "run-gone"] = ""


@dataclass(frozen=True)
class Candidates:
    """Paths of returns over the tested sessions.

    Attributes:
        keys: of k paths; the same path has the same key in every run.
        sessions: shape (n,), datetime64[D].
        returns: shape (n, k), nan where a path does not reach.
        searched: trials scored on some of these sessions that left no path, such as candidates of a search.
        counts: everything that was tried on overlapping sessions, by kind.
        champion: who decides now; None where nobody does.
    """

    keys: tuple[str, ...]
    sessions: TimeArray
    returns: FloatArray
    searched: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    champion: "Incumbent | None" = None

    @property
    def n_trials(self) -> int:
        """Paths, and trials that left none."""
        return len(self.keys) + self.searched

    def independent(self) -> int:
        """How many independent trials they amount to; what left no path counts in full."""
        return effective_trials(self.returns) + self.searched

    def covering(self, share: float) -> tuple[FloatArray, TimeArray]:
        """Paths that reach over a share of the sessions, on the sessions that all of them have."""
        known = np.isfinite(self.returns)
        columns = known.mean(axis=0) >= share if len(self.sessions) else np.zeros(len(self.keys), dtype=bool)
        rows = known[:, columns].all(axis=1)
        return self.returns[np.ix_(rows, columns)], self.sessions[rows]


def champion_digest(champion: Incumbent | None) -> str:
    """Digest of what a run is held against; empty where nobody is champion."""
    if champion is None:
        return ""
    facts = [champion.model, champion.run, champion.slug, champion.same_settings, champion.unknown]
    return digest_of([*facts, hashlib.sha256(champion.returns.tobytes()).hexdigest()])


def sessions_tested(bars: Bars, backtests: Backtests) -> TimeArray:
    """Shape (n,): the sessions of which a backtest has returns."""
    periods = periods_of(bars, backtests)
    return np.asarray(bars.sessions[backtests.positions[periods.ends[1:]]].astype("datetime64[D]"))


def paths_of(bars: Bars, backtests: Backtests) -> dict[str, FloatArray]:
    """Session returns of every account that could be picked, by slug."""
    periods = periods_of(bars, backtests)
    tried = [slug for slug, role in zip(backtests.slugs, backtests.roles, strict=True) if role not in NOT_TRIED]
    return {slug: path_of(backtests, slug, periods) for slug in tried}


def path_of(backtests: Backtests, slug: str, periods: Periods) -> FloatArray:
    """Session returns of one account; 0 after its ruin."""
    return session_returns(backtests.equity[backtests.row(slug)], periods)


def write_candidates(candidates: Candidates, path: Path) -> None:
    """Write them as one npz; the same content gives the same bytes."""
    kinds = sorted(candidates.counts)
    arrays: dict[str, Any] = {
        "keys": np.array(candidates.keys, dtype=np.str_),
        "sessions": candidates.sessions,
        "returns": candidates.returns,
        "searched": np.array(candidates.searched),
        "kinds": np.array(kinds, dtype=np.str_),
        "counts": np.array([candidates.counts[kind] for kind in kinds], dtype=np.int64),
    }
    if (champion := candidates.champion) is not None:
        facts = [champion.model, champion.run, champion.slug, champion.unknown]
        arrays |= {"champion": np.array(facts, dtype=np.str_), "champion_returns": champion.returns}
        arrays |= {"champion_settings": np.array(champion.same_settings)}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_candidates(path: Path) -> Candidates:
    """Read what `write_candidates` wrote."""
    with np.load(path, allow_pickle=False) as found:
        counts = {str(kind): int(count) for kind, count in zip(found["kinds"], found["counts"], strict=True)}
        keys = tuple(str(key) for key in found["keys"])
        return Candidates(keys, found["sessions"], found["returns"], int(found["searched"]), counts, _incumbent(found))


def _incumbent(found: Any) -> Incumbent | None:
    if "champion" not in found:
        return None
    model, run, slug, unknown = (str(fact) for fact in found["champion"])
    return Incumbent(model, run, slug, found["champion_returns"], bool(found["champion_settings"]), cast(Any, unknown))


CANDIDATES = Kind("candidates", ".npz", write_candidates, read_candidates)
