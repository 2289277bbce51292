"""Settings of the evaluation; light to import."""

from math import comb

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ploutos.specs import Spec

_MOST_SPLITS = 1000


class EvidenceSpec(Spec):
    """What makes a result suspect, however good it looks."""

    reconciliation: float = Field(default=1e-4, gt=0)
    """Largest difference between an account and what was booked, as a share of its initial cash."""
    fold_return: float = Field(default=2.0, gt=0)
    """Most that one test range may earn, per year if it is longer, before it counts as an artifact: 2 is 200 %."""
    min_members: PositiveInt = 2
    """Fewest policies that differ only by their seed."""
    min_clean_share: float = Field(default=1.0, ge=0, le=1)
    """Least share of the sessions that an advisor cannot remember, where the subject listens to a language model."""
    in_over_out: float = Field(default=2.0, gt=0)
    """Most by which the mean yearly Sharpe ratio of training ranges may exceed that of test ranges."""


class GateSpec(Spec):
    """What the subject of a run must reach to be promoted. Statistical bars first, then those of risk."""

    psr: float = Field(default=0.95, gt=0, lt=1)
    """Least probability that the true Sharpe ratio is above zero."""
    dsr: float = Field(default=0.90, gt=0, lt=1)
    """The same, above what the best of all trials on these bars would show by luck."""
    pbo: float = Field(default=0.35, gt=0, lt=1)
    """Highest probability of backtest overfitting."""
    pbo_high: float = Field(default=0.5, gt=0, le=1)
    """Bound that the upper end of its interval must stay below."""
    spa: float = Field(default=0.10, gt=0, lt=1)
    """Largest consistent p-value against buy and hold at the same volatility, over everything that was tried."""
    sharpe: float = 0.8
    """Least yearly Sharpe ratio over the whole test span."""
    total_return: float = 0.0
    """Return that the whole test span must exceed."""
    positive_folds: float = Field(default=0.6, ge=0, le=1)
    """Least share of test ranges that earned something."""
    seed_iqm: float = 0.0
    """Value that the interquartile mean of the policies' Sharpe ratios must exceed."""
    at_volatility: float = Field(default=0.06, gt=0)
    """Yearly volatility to which returns are scaled before the two limits on risk judge them. At 6 % a true Sharpe ratio of 1.5
    stays within a drawdown of 12 % over eight years in 95 cases of 100; at 10 % it would in 48."""
    max_drawdown: float = Field(default=0.12, gt=0, lt=1)
    """Deepest fall from a peak, at that volatility."""
    max_daily_loss: float = Field(default=0.03, gt=0, lt=1)
    """Largest loss of one session, at that volatility."""
    double_cost: float = 0.0
    """Least total return at twice the costs, where it was measured."""
    monte_carlo_losses: float = Field(default=0.2, ge=0, le=1)
    """Largest share of disturbed paths that lose, where it was measured."""
    evidence: EvidenceSpec = EvidenceSpec()
    """What makes a result suspect."""


class RobustnessSpec(Spec):
    """Stress tests of what decided; none of them counts as a trial, since nothing is chosen by them."""

    enabled: bool = True
    """Run them."""
    paths: NonNegativeInt = 1000
    """Paths of resampled sessions with late and lost orders; 0 runs none."""
    block_sessions: PositiveInt = 10
    """Consecutive sessions that a path keeps together before it jumps."""
    late: float = Field(default=0.05, ge=0, lt=1)
    """Share of a path's orders that are a bar old."""
    lost: float = Field(default=0.05, ge=0, lt=1)
    """Share of a path's orders that are not carried out."""
    perturbations: NonNegativeInt = 1
    """Draws of noise on all prices, with features and decisions computed again."""
    noise: float = Field(default=0.1, ge=0)
    """Size of that noise, as a share of each symbol's usual volatility per bar."""


class RecombinationSpec(Spec):
    """Combinatorial purged cross-validation of linear supervised models over the test bars: the spread of their scores, never a gate."""

    enabled: bool = True
    """Run it, where such a model runs beside the policies and each group has at least 20 sessions."""
    groups: int = Field(default=10, ge=3, le=20)
    """Groups of equal length that the test bars are cut into."""
    test_groups: int = Field(default=2, ge=2, le=10)
    """Groups that are tested at a time, by a model of the others: 2 of 10 make 45 splits and 9 paths."""

    @model_validator(mode="after")
    def _some_are_left(self) -> "RecombinationSpec":
        if self.test_groups >= self.groups:
            raise ValueError(
                f"evaluation.recombination.test_groups {self.test_groups} leaves none of {self.groups} groups to learn from; choose fewer"
            )
        if (n := comb(self.groups, self.test_groups)) > _MOST_SPLITS:
            raise ValueError(
                f"evaluation.recombination.test_groups {self.test_groups} of {self.groups} groups make {n:,} splits, each with a model of "
                f"its own; expected at most {_MOST_SPLITS:,}: give fewer groups"
            )
        return self


class BootstrapSpec(Spec):
    """Resampling, of returns and of advice."""

    replications: PositiveInt = 2000
    """Bootstrap samples."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Share of samples inside the interval."""
    placebo_draws: NonNegativeInt = 5
    """Draws of each kind of advice that cannot help, run beside the advisor's; 0 runs none and leaves its help unproven."""


class EvaluationSpec(BootstrapSpec):
    """What the verdict is about, and how sure it must be."""

    rank_draws: NonNegativeInt = 200
    """Further draws of advice shifted in time, of which only the earnings are kept: the advice is ranked among them. 0 runs none."""

    subject: str = Field(default="auto", pattern=r"^[a-z0-9]+([-:][a-z0-9]+)*$")
    """Which account the verdict is about, fixed before the run: auto, vote, fused, hybrid, a supervised model, such as regression:logistic,
    or a rule, such as momentum-regime. auto is the vote of the policies where the advisor is a mock or no tested session is shown to be
    clean, otherwise the fused account."""
    gates: GateSpec = GateSpec()
    """What a promotion requires."""
    robustness: RobustnessSpec = RobustnessSpec()
    """Stress tests."""
    recombination: RecombinationSpec = RecombinationSpec()
    """Scores over recombined test bars."""
