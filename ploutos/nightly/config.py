"""Settings of a night."""

from datetime import date
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator

from ploutos.config import PipelineConfig
from ploutos.specs import Spec


class NightlyConfig(Spec):
    """A walk-forward run after each session's close, and what is decided for the next one."""

    run: PipelineConfig = Field(default=PipelineConfig(name="nightly"), title="Run")
    """What is run every night; its data.end is set to the session."""
    session: date | None = None
    """Session after whose close is decided; empty is the last one that has closed (of the sample and of simulations: the last there is)."""
    wait_minutes: NonNegativeFloat = 60
    """How long to wait for bars of the session that are late; then yesterday's bars decide, and nothing is promoted."""
    retry_minutes: PositiveFloat = 5
    """Minutes between two looks for them."""
    promotion: Literal["said", "asked", "automatic"] = "said"
    """`said`: a promotion that is due is named on the page, and a person carries it out by a command. `asked`: a run on the Prefect server
    waits for a person's decision. `automatic`: it is carried out."""
    catch_up: NonNegativeInt = 20
    """Most sessions without a night that are made up for, in order, before this one; what they decide is marked late."""

    @field_validator("run")
    @classmethod
    def _in_its_own_folder(cls, run: PipelineConfig) -> PipelineConfig:
        if run.out is not None:
            raise ValueError(f"run.out is {run.out}; every night has a folder of its own, so leave it out")
        if run.folds.holdout_months:
            raise ValueError("folds.holdout_months holds bars back, and a night decides on the last one; set it to 0")
        return run
