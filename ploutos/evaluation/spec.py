"""Settings of the evaluation; light to import."""

from pydantic import Field, NonNegativeInt, PositiveInt

from ploutos.specs import Spec


class BootstrapSpec(Spec):
    """Resampling, of returns and of advice."""

    replications: PositiveInt = 2000
    """Bootstrap samples."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Share of samples inside the interval."""
    placebo_draws: NonNegativeInt = 5
    """Draws of each kind of advice that cannot help, run beside the advisor's; 0 runs none and leaves its help unproved."""


class EvaluationSpec(BootstrapSpec):
    """What the verdict is about, and how sure it must be."""

    subject: str = Field(default="auto", pattern=r"^[a-z]+(:[a-z]+)?$")
    """Whom the verdict is about, fixed before the run: auto, vote, fused, hybrid, or a supervised model, as in regression:logistic.
    auto is the vote of the policies where the advisor is a mock or no tested session is known to be clean, else the fused account."""
