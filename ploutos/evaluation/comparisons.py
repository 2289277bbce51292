"""Does the advice help? Strategies in pairs over the same sessions, every difference with an interval, and one sentence each.

Returns of a pair are subtracted session by session before they are resampled, so what both sides lived through cancels. A
placebo is the fused strategy with advice that cannot help in place of the advisor's; its draws count by their mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ploutos.advisor.placebos import PLACEBOS
from ploutos.advisor.signals import ACTIONS, Signals
from ploutos.envs.actions import HOLD
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.metrics import Periods, session_returns
from ploutos.evaluation.significance import mean_interval
from ploutos.evaluation.spec import BootstrapSpec

_PLACEBO = "placebo "
MIRRORED = f"{_PLACEBO}mirrored"
"""The account that follows what the advisor says about the mirrored market, and nothing else."""
_CONTROLS = {
    "shuffled": ("Does its timing matter?", "the same with its advice shuffled in time"),
    "shifted": ("Does its timing matter, at the same pace of trading?", "the same with its advice shifted in time"),
    "drawn": ("Is it better than chance with the same habits?", "the same with advice drawn at random"),
}
HYBRID, HYBRID_ABLATED = "hybrid", "hybrid, advice blanked"


def is_placebo(name: str) -> bool:
    """Whether a strategy is a control and no contender."""
    return name.startswith(_PLACEBO)


def placebo_advice(signals: Signals, draws: int, seed: int) -> dict[str, Signals]:
    """Each draw of each placebo, by the name of the fused account that follows it in place of the advice.

    Args:
        signals: advice of the tested range alone.
        draws: of each kind.
    """
    return {f"{_PLACEBO}{kind} {draw}": placebo(signals, seed, draw) for kind, placebo in PLACEBOS.items() for draw in range(draws)}


@dataclass(frozen=True)
class Pair:
    """One strategy against another, or against the mean of several draws.

    Attributes:
        question: what the pair answers, for people.
        label: what the other side is called.
    """

    question: str
    of: str
    against: tuple[str, ...]
    label: str


def pairs(names: Sequence[str], final: str, vote: str, advisor: str, benchmark: str) -> list[Pair]:
    """Every pair that a run holds; the first is the advice against none.

    Args:
        names: all strategies.
        final, vote, advisor, benchmark: who plays which part.
    """
    found = [
        Pair("Is the advice better than none?", final, (vote,), vote),
        Pair("Is the advice alone better than buying and holding?", advisor, (benchmark,), benchmark),
    ]
    for kind, (question, label) in _CONTROLS.items():
        found.append(Pair(question, final, tuple(name for name in names if name.startswith(f"{_PLACEBO}{kind} ")), label))
    found.append(Pair("Is the advice better than its opposite?", advisor, (MIRRORED,), "what the advisor says about the mirrored market"))
    found.append(Pair("Does training with the advice help?", HYBRID, (vote,), vote))
    found.append(Pair("Was it the advice, or the training?", HYBRID, (HYBRID_ABLATED,), HYBRID_ABLATED))
    return [pair for pair in found if pair.against and {pair.of, *pair.against} <= set(names)]


def compare(backtests: Backtests, periods: Periods, pair: Pair, bootstrap: BootstrapSpec, seed: int) -> dict[str, Any]:
    """The yearly difference of a pair's session returns.

    Returns:
        `question`, `of`, `against` (its label), `draws` (how many stand for it), `difference`, `low`, `high` (decimal, a year),
        `sign` (1 or -1 where the interval leaves out 0, else 0), `beaten` (share of draws that earned less; None for one
        strategy) and `sentence`. Without a difference on any session the interval is nan.
    """
    ours = session_returns(backtests.equity[backtests.row(pair.of)], periods)
    theirs = session_returns(backtests.equity[[backtests.row(name) for name in pair.against]], periods)
    difference = ours - theirs.mean(axis=0)
    low, high = mean_interval(difference, periods.per_year, bootstrap, seed)
    draws = len(pair.against)
    beaten = float((theirs.mean(axis=1) < ours.mean()).mean())
    sentence = difference_in_words(pair.of, pair.label, low, high)
    if draws > 1:
        sentence += f" It earned more than {round(beaten * draws)} of {draws} draws."
    return {
        "question": pair.question,
        "of": pair.of,
        "against": pair.label,
        "draws": draws,
        "difference": float(difference.mean() * periods.per_year),
        "low": low,
        "high": high,
        "sign": _sign(low, high),
        "beaten": beaten if draws > 1 else None,
        "sentence": sentence,
    }


def _sign(low: float, high: float) -> int:
    """1 or -1 where an interval leaves out 0; 0 otherwise, and where there is none."""
    return int(low > 0) - int(high < 0)


def difference_in_words(name: str, other: str, low: float, high: float) -> str:
    """What an interval of a yearly difference allows to be said."""
    if math.isnan(low):
        return f"{name} never differed from {other}, so there is nothing to compare."
    if low > 0:
        return f"{name} earned {low:.1%} to {high:.1%} a year more than {other}."
    if high < 0:
        return f"{name} earned {-high:.1%} to {-low:.1%} a year less than {other}, beyond what luck explains."
    return f"{name} cannot be told from {other}: the yearly difference lies between {low:.1%} and {high:.1%}, and zero lies inside."


def conclusion(comparisons: Sequence[dict[str, Any]], is_mock: bool) -> str:
    """Whether the advice helped. It did only if it earned more than no advice and more than every kind that cannot help.

    Args:
        comparisons: from `compare`, the advice against none first.
        is_mock: the advisor was no language model, which is then said.
    """
    caveat = " The advisor was a mock, a fixed rule: none of this is about a language model." if is_mock else ""
    return _help_in_words(comparisons) + caveat


def _help_in_words(comparisons: Sequence[dict[str, Any]]) -> str:
    against_none = comparisons[0]["sign"]
    labels = {label for _, label in _CONTROLS.values()}
    placebos = [row["sign"] for row in comparisons if row["against"] in labels]
    if against_none < 0:
        return "The advice cost money: without it the same policies earned more, beyond what luck explains."
    if against_none == 0:
        return "No help can be shown: with the advice the result cannot be told from the one without it."
    if not placebos:
        return "With the advice more was earned than without it; no placebo was run, so it may not have been what the advisor said."
    if all(sign > 0 for sign in placebos):
        return "The advice helped on this one history: more was earned with it than without it, and more than with any placebo."
    return (
        "No help can be shown: with the advice more was earned than without it, but not more than with every placebo, so what the "
        "advisor said need not be the cause."
    )


def consistency(signals: Signals, mirrored: Signals, bootstrap: BootstrapSpec, seed: int) -> dict[str, Any]:
    """What became of buy and sell decisions on the mirrored market.

    Args:
        signals, mirrored: row for row on the same questions; where the mirrored one is an abstention nothing is counted.

    Returns:
        `n`, the shares `turned`, `stayed` and `held` of them, `low` and `high` of turned less stayed (stationary bootstrap in the
        order of time, nan when all are alike), `n_asked`, `n_abstained` and `tokens` of the mirrored questions, and `sentence`.
    """
    was, now = (frame["action"].map(ACTIONS).to_numpy(dtype=np.int64) for frame in (signals.frame, mirrored.frame))
    counted = (was != HOLD) & ~mirrored.frame["abstained"].to_numpy(dtype=bool)
    was, now = was[counted], now[counted]
    stayed, held = now == was, now == HOLD
    turned = ~stayed & ~held
    low, high = mean_interval(turned * 1.0 - stayed, 1.0, bootstrap, seed)
    parts = {"turned": turned, "stayed": stayed, "held": held}
    shares = {name: float(part.mean()) if len(was) else float("nan") for name, part in parts.items()}
    return {
        "n": len(was),
        **shares,
        "low": low,
        "high": high,
        "n_asked": len(mirrored.frame),
        "n_abstained": mirrored.n_abstained,
        "tokens": int(mirrored.frame["tokens"].sum()),
        "sentence": _consistency_in_words(len(was), shares, low, high),
    }


def _consistency_in_words(n: int, shares: dict[str, float], low: float, high: float) -> str:
    if n == 0:
        return "The advisor never said buy or sell, so there is nothing to turn round."
    counted = (
        f"On the mirrored market {shares['turned']:.0%} of {n:,} buy and sell decisions turned round, {shares['stayed']:.0%} stayed and "
        f"{shares['held']:.0%} became hold."
    )
    if _sign(low, high) > 0 or shares["turned"] == 1:
        return f"{counted} They turned round more often than they stayed, as those of an advisor do that reads the numbers."
    if _sign(low, high) < 0 or shares["stayed"] == 1:
        return f"{counted} They stayed more often than they turned round: this advisor remembers, or leans one way whatever it is shown."
    return f"{counted} Turning round cannot be told from staying, so nothing shows that this advisor reads the numbers."
