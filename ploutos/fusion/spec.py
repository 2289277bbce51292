"""Settings of fusion, of the risk veto and of hybrid policies; light to import."""

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ploutos.specs import Spec


class RiskSpec(Spec):
    """Limits that no decision may pass."""

    max_consecutive_losses: PositiveInt = 3
    """Losing trades in a row in one symbol after which it may not be entered."""
    min_win_rate: float = Field(default=0.4, ge=0, le=1)
    """Share of winners of the last ten trades below which a symbol may not be entered; needs five trades."""
    cooldown_bars: NonNegativeInt = 20
    """Bars after the last exit for which the two limits above apply."""
    high_drawdown: float = Field(default=0.2, gt=0, le=1)
    """Drawdown from which the risk score rises."""
    allowed_drawdown: float = Field(default=0.5, gt=0, le=1)
    """Drawdown that ends the account's mandate."""
    min_drawdown_buffer: float = Field(default=0.2, ge=0, le=1)
    """Share of the allowed drawdown that must remain for any purchase."""


class FusionSpec(Spec):
    """Which side wins when policy and advisor disagree."""

    risk_threshold: float = Field(default=0.7, ge=0, le=1)
    """Above this risk the answer is HOLD, whatever policy and advisor say."""
    confidence_threshold: float = Field(default=0.7, ge=0, le=1)
    """Above this, a confident side prevails over one that is not."""
    llm_weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of the advisor's confidence when neither side prevails by itself."""
    choose: bool = True
    """Calibrate the confidence of policy and advisor, and choose `llm_weight` and `confidence_threshold`, on each fold's validation
    range; the values set here stay unless others earned more by over one standard error. False uses the values set here, and both
    confidences as they are."""
    risk: RiskSpec = RiskSpec()
    """Risk limits."""


class HybridSpec(Spec):
    """The policies that observe the advice, and their ablated copies that observe it blank."""

    enabled: bool | None = None
    """Whether to train them; empty means only with the mock, because a real model would be asked about the training ranges too."""
    members: PositiveInt = 1
    """Policies of each kind and fold; each starts from the Phase 2 member of its number, so at most `training.members`."""
    timesteps_share: float = Field(default=0.25, gt=0, le=1)
    """Steps of fine-tuning, as a share of those that Phase 2 trained."""
    learning_rate: PositiveFloat | None = None
    """Adam's step while fine-tuning; empty means `training.learning_rate`."""
