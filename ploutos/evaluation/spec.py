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
