"""Looking every night without fooling oneself: evidence that a mean difference is above zero, valid whenever one stops.

A bettor stakes a share of a wealth of 1 on the challenger's next week. While the challenger is no better, the wealth is expected not to
grow, whatever the variance does, so it ever reaches 20 with a probability of at most one in twenty (Ville). Several stakes are held at
once, each in units of a scale known before the bet; a week's loss that is larger than a stake allows takes that stake's wealth for good.
Nothing is cut off from losses, so rare crashes count in full.

Sessions are summed into blocks, since neighbouring differences may hang together; what is left of that between blocks is covered by a
simulation (`benchmarks/nightly.py`) and not by the theorem. The whole history is judged anew each night: no state is kept.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from ploutos.specs import Spec
from ploutos.types import FloatArray


class NightlySpec(Spec):
    """When a champion gives way, judged every night."""

    error: float = Field(default=0.05, gt=0, lt=0.5)
    """Most that the chance of a false promotion may be, over all nights together."""
    block_sessions: PositiveInt = 5
    """Sessions that are judged as one, so that what hangs together from day to day does not count as evidence."""
    stakes: tuple[PositiveFloat, ...] = (0.1, 0.2, 0.3)
    """Bets held at once, as shares of wealth per typical block; small ones survive crashes, large ones see large edges soon."""
    memory_blocks: PositiveInt = 26
    """Blocks after which one counts half in the scale."""
    first_blocks: PositiveInt = 4
    """Blocks that are only watched, where no scale is known beforehand."""


NIGHTLY = NightlySpec()


@dataclass(frozen=True)
class Evidence:
    """What the nights so far say.

    Attributes:
        wealth: the bettor's now; 1 at the start.
        most: the highest it ever was. It is the evidence: one over it bounds the chance of seeing as much from no difference.
        n_sessions: judged so far, in whole blocks.
        decided_after: sessions after which `most` reached one over the error that is allowed; None where it never did.
    """

    wealth: float
    most: float
    n_sessions: int
    decided_after: int | None

    @property
    def p(self) -> float:
        """Always-valid p-value that the mean difference is not above zero."""
        return min(1.0, 1 / self.most)


def wealth_of(differences: FloatArray, spec: NightlySpec = NIGHTLY, scale: float | None = None) -> FloatArray:
    """The bettor's wealth after every whole block, against "the mean difference is not above zero".

    Args:
        differences: shape (..., n), challenger's session returns less the champion's, after it was chosen.
        scale: typical size of one session's difference, known before the first; None to watch some blocks first.

    Returns:
        Shape (..., n // block_sessions).

    Source: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting".
    """
    n_blocks = differences.shape[-1] // spec.block_sessions
    whole = differences[..., : n_blocks * spec.block_sessions]
    blocks = whole.reshape(*whole.shape[:-1], n_blocks, spec.block_sessions).sum(axis=-1)
    scales = _scales(blocks, spec, scale)
    stakes = np.array(spec.stakes)
    with np.errstate(divide="ignore", invalid="ignore"):
        outcome = np.where(scales > 0, blocks / scales, 0.0)
    factors = np.maximum(1 + stakes * outcome[..., None], 0.0)
    return np.asarray(np.cumprod(factors, axis=-2).mean(axis=-1))


def _scales(blocks: FloatArray, spec: NightlySpec, scale: float | None) -> FloatArray:
    """Root mean square of the blocks before each one, older ones fading; 0 where nothing may be bet yet."""
    decay = 0.5 ** (1 / spec.memory_blocks)
    known = 0.0 if scale is None else scale**2 * spec.block_sessions
    weight = 0.0 if scale is None else float(spec.first_blocks)
    total = np.full(blocks.shape[:-1], known * weight)
    scales = np.zeros_like(blocks)
    for t in range(blocks.shape[-1]):
        if scale is not None or t >= spec.first_blocks:
            scales[..., t] = np.sqrt(total / weight)
        total = decay * total + blocks[..., t] ** 2
        weight = decay * weight + 1
    return scales


def nightly_evidence(differences: FloatArray, spec: NightlySpec = NIGHTLY, scale: float | None = None) -> Evidence:
    """What a challenger's nights say against "it is no better than the champion".

    Args:
        differences: shape (n,), session returns of the challenger less the champion's, all nights since the challenge began.
        scale: as for `wealth_of`.
    """
    wealth = wealth_of(differences, spec, scale)
    if not len(wealth):
        return Evidence(1.0, 1.0, 0, None)
    reached = np.flatnonzero(wealth >= 1 / spec.error)
    first = int(reached[0] + 1) * spec.block_sessions if len(reached) else None
    return Evidence(float(wealth[-1]), max(float(wealth.max()), 1.0), len(wealth) * spec.block_sessions, first)
