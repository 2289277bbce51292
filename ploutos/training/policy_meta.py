"""What a policy's file says of how it was trained: `ploutos.json` inside the zip."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from ploutos.envs.spec import EnvSpec
from ploutos.errors import StoreError
from ploutos.faults import first_fault
from ploutos.specs import Spec, only_known
from ploutos.training.spec import TrainingSpec
from ploutos.walk_forward import Range

SCHEMA_VERSION: Literal[1] = 1
Record = dict[str, int | float]
"""A point of a learning curve: `timesteps`, and means by name."""


class TrainedOn(Spec):
    """The part of a fold that a policy knows; its test range is none of it, so that nights share policies."""

    train: Range
    """Training range, with what is held out of it to stop on."""
    validation: Range
    """Bars after it, for choices between policies."""
    warmup_bars: int
    """Bars that the features of a range reach back before it."""
    data_sha256: str
    """Digest of all bars and features before the test range."""


class ScalerValues(Spec):
    """A `Scaler`'s numbers, one per feature."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Stopping(Spec):
    """Where a training stopped, and which of its policies was kept."""

    validation: Range
    """The bars that were held out."""
    looks: int
    """How many policies were scored."""
    chosen_timesteps: int
    """Steps of the one that was kept."""
    chosen_score: float
    """Its log growth per bar."""
    scores: tuple[tuple[int, float], ...]
    """Steps and score of each look."""


class PolicyMeta(Spec):
    """How a policy was trained."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Of this file; one without it is of the first version."""
    fold: TrainedOn
    """The bars that it was trained on."""
    seed: int
    """Of weights, actions, minibatches and episode starts."""
    planned_timesteps: int
    """Steps after which it ends at the latest."""
    timesteps_reduction: float
    """The share of `total_timesteps` that those are."""
    symbols: tuple[str, ...]
    """In the order of its observations."""
    features: tuple[str, ...]
    """Names of a symbol's features, in their order; a teacher's forecast comes last."""
    scaler: ScalerValues
    """Fitted on the bars that were learnt from."""
    env: Annotated[EnvSpec, only_known(EnvSpec)]
    """The environment."""
    training: Annotated[TrainingSpec, only_known(TrainingSpec)]
    """The agent. The number of an ensemble's members is no part of what trains one and not in the file: `members` reads as the default."""
    versions: dict[str, str]
    """Of the libraries that trained it."""
    forecast: dict[str, Any] | None = None
    """The model whose forecast it observes, from `Regression.as_json`."""
    warm_start: str | None = None
    """Digest of the policy's file that it started from."""
    stopping: Stopping | None = None
    """None where it was trained to the end."""
    timesteps: int = 0
    """Steps that were taken."""
    curve: tuple[Record, ...] = ()
    """The learning curve."""
    mean_episode_reward: float | None = None
    """Of the last episodes; only of a policy that was kept on the way because it was the best so far."""


def write_meta(meta: PolicyMeta) -> bytes:
    """As JSON; the same meta gives the same bytes."""
    content = meta.model_dump(mode="json", exclude={"training": {"members"}})
    return json.dumps(content, sort_keys=True, indent=1).encode()


def parse_meta(content: bytes, path: Path) -> PolicyMeta:
    """Read what `write_meta` wrote.

    Args:
        path: the policy's file, for an error.

    Raises:
        StoreError: it says something else, as another version of ploutos may have written it.
    """
    try:
        return PolicyMeta.model_validate(json.loads(content))
    except ValueError as error:  # of its JSON, or of its fields
        raise StoreError(
            f"{path} is not a policy of this version ({first_fault(error)}); train it again, or use the ploutos that wrote it"
        ) from error
