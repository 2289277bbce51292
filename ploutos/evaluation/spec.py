"""Settings of the evaluation; light to import."""

from pydantic import Field, NonNegativeInt, PositiveInt

from ploutos.specs import Spec


class RobustnessSpec(Spec):
    """Stress tests of what decided; none of them counts as a trial, since nothing is chosen by them."""

    enabled: bool = True
    """Run them."""
    paths: NonNegativeInt = 1000
    """Paths of resampled sessions with late and lost orders; 0 runs none."""
    block_sessions: PositiveInt = 10
    """Sessions that follow each other as they did, before a path jumps."""
    late: float = Field(default=0.05, ge=0, lt=1)
    """Share of a path's orders that are a bar old."""
    lost: float = Field(default=0.05, ge=0, lt=1)
    """Share of a path's orders that are not carried out."""
    perturbations: NonNegativeInt = 1
    """Draws of noise on all prices, with features computed and decisions taken again."""
    noise: float = Field(default=0.1, ge=0)
    """Size of that noise, as a share of each symbol's usual volatility per bar."""


class BootstrapSpec(Spec):
    """Resampling, of returns and of advice."""

    replications: PositiveInt = 2000
    """Bootstrap samples."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Share of samples inside the interval."""
    placebo_draws: NonNegativeInt = 5
    """Draws of each kind of advice that cannot help, run beside the advisor's; 0 runs none and leaves its help unproved."""
    robustness: RobustnessSpec = RobustnessSpec()
    """Stress tests."""
