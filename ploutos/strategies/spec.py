"""Settings of the supervised deciders; light to import."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ploutos.specs import Spec

RegressionKind = Literal["logistic", "ridge", "trees", "lasso", "lagged"]


class RegressionSpec(Spec):
    """Supervised models of the next return, with a no-trade band: what a learnt policy has to beat."""

    enabled: bool = True
    """Whether they are fitted and stand beside the policies."""
    models: tuple[RegressionKind, ...] = ("logistic", "trees")
    """`ridge` tells the return in the symbol's own deviations, the others the chance of a rise; `trees` are boosted, `lasso` is logistic
    on a few columns, `lagged` on a few of the last bars' columns. The teacher's kind stands beside them."""
    horizon_bars: PositiveInt = 1
    """Bars over which the return is told that an order filled at the next open earns."""
    inner_slices: int = Field(default=4, ge=2)
    """Slices of the training range, each told by a model of the others, that choose the penalty, the number of trees and the band."""
    penalties: tuple[PositiveFloat, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0, 10.0)
    """Weights of half the squared coefficients against the mean loss of a row, to choose from, for `logistic` and `ridge`."""
    bands: tuple[NonNegativeFloat, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    """No-trade bands to choose from, in deviations of what the model tells: a position is taken above, left below, kept between."""
    lags: PositiveInt = 16
    """Bars that `lagged` reads, the one it decides after included."""
    lasso_shares: tuple[PositiveFloat, ...] = (0.95, 0.9, 0.8, 0.65, 0.5, 0.4, 0.3)
    """Penalties of the lasso that chooses the columns of `lasso` and `lagged`, to choose from, as shares of the one that leaves none."""
    max_trees: PositiveInt = 150
    """Most trees; fewer where more of them tell the inner slices worse."""
    leaves: int = Field(default=8, ge=2)
    """Leaves of a tree."""
    rows_per_leaf: PositiveInt = 100
    """Fewest training rows in a leaf."""
    learning_rate: PositiveFloat = 0.05
    """Share of each tree that is added."""
