"""Settings of a night."""

from datetime import date
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator

from ploutos.config import PipelineConfig
from ploutos.specs import Spec


class NightlyConfig(Spec):
    """A walk-forward run after each session's close, and the decision for the next open."""

    run: PipelineConfig = Field(default=PipelineConfig(name="nightly"), title="Run")
    """What is run every night; its data.end is set to the session."""
    session: date | None = None
    """Session after whose close to decide; empty means the last one that has closed (for the sample and simulations: the last one)."""
    wait_minutes: NonNegativeFloat = 60
    """How long to wait for late bars of the session; after that yesterday's bars decide, and nothing is promoted."""
    retry_minutes: PositiveFloat = 5
    """Minutes between two attempts to get them."""
    promotion: Literal["said", "asked", "automatic"] = "said"
    """`said`: a promotion that is due is reported on the page, and a person carries it out with a command. `asked`: a run on the Prefect
    server waits for a person's decision. `automatic`: it is carried out."""
    catch_up: NonNegativeInt = 20
    """Most missed sessions to make up for, in order, before this one; their decisions are marked late."""

    @field_validator("run")
    @classmethod
    def _in_its_own_folder(cls, run: PipelineConfig) -> PipelineConfig:
        if run.out is not None:
            raise ValueError(f"run.out is {run.out}; every night has a folder of its own, so leave it out")
        if run.folds.holdout_months:
            raise ValueError("folds.holdout_months holds bars back, and a night decides on the last bar; set it to 0")
        return run
