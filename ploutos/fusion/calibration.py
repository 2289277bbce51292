"""What fusion takes from a fold's validation range: how much each side's confidence is worth, and which side wins.

A policy's confidence is its own (masked) probability of what it would do, and an advisor's is a number that it says: how sure each is,
and not how often it is right. Platt scaling (Platt, 1999) maps the one to the other by two parameters, for each side by its own
outcomes. Where there are too few outcomes for that the confidences are not used: every BUY and SELL counts as the share that was right,
drawn towards a half. So all numbers that the rules of fusion compare are chances of the right direction, and no raw one stands among
them. HOLD names no direction, so its chance is a half; HOLD at confidence 0, which is not advice, stays 0.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt
from scipy.optimize import minimize
from scipy.special import expit, logit

from ploutos.envs.actions import HOLD
from ploutos.fusion.spec import FusionSpec
from ploutos.specs import Spec
from ploutos.store import Kind, write_json
from ploutos.types import BoolArray, FloatArray, IntArray

FEWEST = 50
_WEIGHTS = (0.1, 0.3, 0.5, 0.7)
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8)
_EDGE = 1e-6


HELD = 0.5
"""What HOLD counts for: it names no direction."""


class Uncalibrated(StrEnum):
    """Why confidences are not used and every decision counts alike."""

    TOO_FEW = "too-few"
    """Fewer than 50 decisions."""
    ALL_RIGHT = "all-right"
    """There is no wrong one to tell from them."""
    NONE_RIGHT = "none-right"
    """There is no right one."""


class Calibration(Spec):
    """From a confidence in a direction to the chance that it is right."""

    slope: float = 1.0
    """Of the log odds."""
    intercept: float = 0.0
    """The same."""
    n: NonNegativeInt = 0
    """BUY and SELL decisions that it was fitted on."""
    n_right: NonNegativeInt = 0
    """How many of them were right."""
    uncalibrated: Uncalibrated | None = None
    """Why confidences are not used, so that the slope is 0; None when they are."""

    def apply(self, actions: IntArray, confidences: FloatArray) -> FloatArray:
        """Chances of BUY and SELL, 0..1; a half for HOLD, but 0 where its confidence is 0. Any one shape."""
        chances = expit(self.slope * _log_odds(confidences) + self.intercept)
        return np.where(actions == HOLD, HELD * (confidences > 0), chances)


def _log_odds(confidences: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(confidences, _EDGE, 1 - _EDGE)))


def fit_calibration(confidences: FloatArray, right: BoolArray) -> Calibration:
    """Fit by maximum likelihood, with Platt's targets, which are not quite 0 and 1.

    The slope is not below 0: a policy that is right less often where it is surer is taken for one whose confidence says nothing.

    Args:
        confidences: shape (n,), of BUY and SELL decisions.
        right: shape (n,), whether the price then moved that way.

    Returns:
        What was fitted. With fewer than 50 decisions, or when all were right or none, the share of right ones after 25 more right and
        25 more wrong ones, whatever the confidence.
    """
    n, n_right = len(right), int(right.sum())
    if n < FEWEST or n_right in (0, n):
        alike = Uncalibrated.ALL_RIGHT if n_right else Uncalibrated.NONE_RIGHT
        drawn = float(logit((n_right + FEWEST / 2) / (n + FEWEST)))
        return Calibration(slope=0, intercept=drawn, n=n, n_right=n_right, uncalibrated=Uncalibrated.TOO_FEW if n < FEWEST else alike)
    scores = _log_odds(confidences)
    targets = np.where(right, (n_right + 1) / (n_right + 2), 1 / (n - n_right + 2))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        z = parameters[0] * scores + parameters[1]
        error = expit(z) - targets
        return float((np.logaddexp(0, z) - targets * z).mean()), np.array([(error * scores).mean(), error.mean()])

    free = (None, None)
    found = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, None), free], options={"gtol": 1e-10, "ftol": 0}
    )
    return Calibration(slope=float(found.x[0]), intercept=float(found.x[1]), n=n, n_right=n_right)


class Candidate(Spec):
    """Fusion parameters and what they earned."""

    llm_weight: float
    """Weight of the advisor's confidence."""
    confidence_threshold: float
    """Above it one side is confident."""
    growth: float
    """Mean log growth of the account per bar of the validation range, net of costs."""


class Lead(Spec):
    """What the best candidate earned more than what is configured, in pairs over the bars of the validation range."""

    best: Candidate
    """The candidate that earned most; what is configured where nothing earned more."""
    difference: float = 0.0
    """Mean difference of log growth per bar."""
    error: float | None = None
    """Its standard error, robust to dependence; None where the two never differed, or on too few bars."""
    low: float | None = None
    """Lower end of its 95 % interval."""
    high: float | None = None
    """Upper end of it."""

    @property
    def tells_apart(self) -> bool:
        """Whether the difference exceeds its standard error."""
        return self.error is not None and self.difference > self.error


class FusionChoice(Spec):
    """What one fold's validation range decided."""

    fold: NonNegativeInt
    """Which fold."""
    calibration: Calibration
    """Of the vote's confidence."""
    advisor: Calibration
    """Of the advisor's confidence, by the outcomes of its own decisions."""
    chosen: Candidate
    """The best of the table where its lead exceeds its standard error; else what is configured."""
    lead: Lead
    """Of the best candidate over what is configured."""
    table: tuple[Candidate, ...]
    """Every candidate, what is configured first."""

    def applied(self, fusion: FusionSpec) -> FusionSpec:
        """A spec with the chosen parameters in it."""
        return fusion.model_copy(update={"llm_weight": self.chosen.llm_weight, "confidence_threshold": self.chosen.confidence_threshold})


def candidates(fusion: FusionSpec) -> list[FusionSpec]:
    """The grid, what is configured first and then what is nearer to it."""
    configured = fusion.llm_weight, fusion.confidence_threshold
    pairs = {(weight, threshold) for weight in _WEIGHTS for threshold in _THRESHOLDS} | {configured}
    ordered = sorted(pairs, key=lambda pair: (abs(pair[0] - configured[0]) + abs(pair[1] - configured[1]), pair))
    return [fusion.model_copy(update={"llm_weight": weight, "confidence_threshold": threshold}) for weight, threshold in ordered]


def write_choices(choices: Sequence[FusionChoice], path: Path) -> None:
    """Write one choice per fold as JSON."""
    write_json(path, [choice.model_dump(mode="json") for choice in choices])


def read_choices(path: Path) -> tuple[FusionChoice, ...]:
    """Read what `write_choices` wrote."""
    return tuple(FusionChoice.model_validate(item) for item in json.loads(path.read_text(encoding="utf-8")))


CHOICES = Kind("fusion-choices", ".json", write_choices, read_choices)
