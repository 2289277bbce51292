"""Settings of the supervised deciders; light to import."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ploutos.specs import Spec

RegressionKind = Literal["logistic", "ridge", "trees", "lasso", "lagged"]


class RegressionSpec(Spec):
    """Supervised models of the next return, with a no-trade band: what a learnt policy has to beat."""

    enabled: bool = True
    """Whether to fit them and run them beside the policies."""
    models: tuple[RegressionKind, ...] = ("logistic", "trees")
    """`ridge` predicts the return in the symbol's own deviations, the others the chance of a rise; `trees` are boosted, `lasso` is logistic
    on a few columns, `lagged` on a few of the last bars' columns. The teacher's kind is always among them."""
    horizon_bars: PositiveInt = 1
    """Bars over which to predict the return of an order filled at the next open."""
    inner_slices: int = Field(default=4, ge=2)
    """Slices of the training range, each predicted by a model of the others, that choose the penalty, the number of trees and the band."""
    penalties: tuple[PositiveFloat, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 0.3, 1.0, 3.0, 10.0)
    """Candidate weights of half the squared coefficients against the mean loss of a row, for `logistic` and `ridge`."""
    bands: tuple[NonNegativeFloat, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    """Candidate no-trade bands, in deviations of the model's forecast: a position is opened above, closed below, kept between."""
    lags: PositiveInt = 16
    """Bars that `lagged` reads, including the one it decides after."""
    lasso_shares: tuple[PositiveFloat, ...] = (0.95, 0.9, 0.8, 0.65, 0.5, 0.4, 0.3)
    """Candidate penalties of the lasso that chooses the columns of `lasso` and `lagged`, as shares of the penalty that leaves none."""
    max_trees: PositiveInt = 150
    """Most trees; fewer where more of them predict the inner slices worse."""
    leaves: int = Field(default=8, ge=2)
    """Leaves of a tree."""
    rows_per_leaf: PositiveInt = 100
    """Fewest training rows in a leaf."""
    learning_rate: PositiveFloat = 0.05
    """Share of each tree that is added."""
