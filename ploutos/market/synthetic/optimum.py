"""The best that can be done with a signal after costs: a dynamic programme for one symbol, Garleanu and Pedersen's rule for many.

A signal is a finite Markov chain whose states say what the next return is worth. The programme maximises mean growth per bar net of
proportional costs over all decisions to come, so its no-trade region is an outcome and not a setting. Left out: costs that depend on
the size of an order.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ploutos.types import FloatArray, IntArray

_TOLERANCE = 1e-12


@dataclass(frozen=True)
class SignalChain:
    """What bars tell about the next one; n states.

    Attributes:
        forecast: shape (n,), expected return of the next bar, decimal.
        transition: shape (n, n), chance of each state one bar later; rows sum to 1.
        realised: shape (n, n), expected return of the next bar given the state it leads to.
    """

    forecast: FloatArray
    transition: FloatArray
    realised: FloatArray


def signal_chain(forecast: FloatArray, transition: FloatArray) -> SignalChain:
    """A chain whose next state tells nothing more about the return that leads to it."""
    return SignalChain(forecast, transition, np.repeat(forecast[:, None], len(forecast), axis=1))


def autoregression(grid: FloatArray, persistence: float) -> FloatArray:
    """Transitions of a standard normal AR(1) between the cells of a grid, the outermost cells being open.

    Args:
        grid: shape (n,), increasing centres of the cells.
        persistence: correlation of a value with the next one, 0..1.

    Returns:
        Shape (n, n).
    """
    edges = np.r_[-np.inf, (grid[1:] + grid[:-1]) / 2, np.inf]
    below = stats.norm.cdf((edges[None, :] - persistence * grid[:, None]) / np.sqrt(1 - persistence**2))
    return np.asarray(np.diff(below, axis=1))


@dataclass(frozen=True)
class _Step:
    """One bar under a rule: positions after the decision, weights of those, and what the trade costs; shape (n, n_positions)."""

    target: IntArray
    weight: FloatArray
    cost: FloatArray


def optimal_targets(chain: SignalChain, positions: FloatArray, cost: float, variance: float = 0.0) -> IntArray:
    """The rule that maximises mean growth per bar, net of proportional costs.

    Args:
        positions: shape (n_positions,), weights that may be held.
        cost: of a change of weight by 1, decimal.
        variance: of a bar's return, times the share of equity that a weight of 1 is; growth loses half of it times the squared weight.

    Returns:
        Shape (n, n_positions): for a state and the position held, the place of the best position. Keeping wins a tie.

    Source: relative value iteration (Puterman, 1994, section 8.5).
    """
    trade = cost * np.abs(positions[:, None] - positions[None, :])
    earned = chain.forecast[:, None] * positions - variance / 2 * positions**2
    value = np.zeros((len(chain.forecast), len(positions)))
    scale = max(float(np.abs(earned).max()), cost, 1e-300)
    while True:
        choices = (earned + chain.transition @ value)[:, None, :] - trade
        better = choices.max(axis=2)
        change = better - value
        if np.ptp(change) < _TOLERANCE * scale:
            break
        value = better - better[0, 0]
    kept = np.broadcast_to(np.arange(len(positions)), better.shape)
    stays = np.take_along_axis(choices, kept[..., None], axis=2)[..., 0] >= better - 1e-9 * scale
    return np.where(stays, kept, choices.argmax(axis=2))


def _step(targets: IntArray, positions: FloatArray, cost: float) -> _Step:
    return _Step(targets, positions[targets], cost * np.abs(positions[targets] - positions))


def _decided(weights: FloatArray, targets: IntArray) -> FloatArray:
    """Move a measure over (state, position held) to the positions decided on."""
    moved = np.zeros_like(weights)
    np.add.at(moved, (np.arange(len(weights))[:, None], targets), weights)
    return moved


def sharpe_of_rule(
    chain: SignalChain, targets: IntArray, positions: FloatArray, cost: float, sigma: float, bars_per_session: float,
    sessions_per_year: float,
) -> float:  # fmt: skip
    """Yearly Sharpe ratio of session returns under a rule, net of costs, exactly: no simulation.

    Args:
        targets: from `optimal_targets`, or any rule of that shape.
        positions: as there, with 0 among them, where the account starts.
        sigma: deviation of a bar's return.

    Returns:
        Ratio; 0 for a rule that never holds anything.
    """
    step = _step(targets, positions, cost)
    held = np.zeros(targets.shape)
    held[:, int(np.abs(positions).argmin())] = 1 / len(held)
    for _ in range(100_000):
        after = chain.transition.T @ _decided(held, targets)
        if np.abs(after - held).max() < 1e-13:
            break
        held = after
    expected = step.weight * chain.forecast[:, None] - step.cost
    mean = float((held * expected).sum())
    second = float((held * (step.weight**2 * sigma**2 - 2 * step.cost * step.weight * chain.forecast[:, None] + step.cost**2)).sum())
    bars = round(bars_per_session)
    variance = bars * (second - mean**2)
    if variance < 1e-18:
        return 0.0
    earned = (chain.transition * chain.realised).T @ _decided(held * step.weight, targets)
    earned -= chain.transition.T @ _decided(held * step.cost, targets)
    for lag in range(1, bars):
        variance += 2 * (bars - lag) * (float((earned * expected).sum()) - mean**2)
        earned = chain.transition.T @ _decided(earned, targets)
    return float(bars * mean / np.sqrt(variance) * np.sqrt(sessions_per_year))


@dataclass(frozen=True)
class PartialAdjustment:
    """Trade a fixed share of the way to an aim, every bar: the optimum under quadratic costs.

    Attributes:
        rate: share of the distance traded per bar.
        loadings: shape (n_symbols, n_signals): the aim is `loadings @ signals`.
    """

    rate: float
    loadings: FloatArray

    def next_weights(self, held: FloatArray, signals: FloatArray) -> FloatArray:
        """Weights to hold next.

        Args:
            held: shape (..., n_symbols).
            signals: shape (..., n_signals), known now.
        """
        return np.asarray(held + self.rate * (signals @ self.loadings.T - held))


def garleanu_pedersen(
    betas: FloatArray, reversion: FloatArray, covariance: FloatArray, risk_aversion: float, cost: float, discount: float = 0.0
) -> PartialAdjustment:
    """The optimum of many symbols under quadratic costs, in closed form.

    Returns are `betas @ f` and noise of the given covariance; the signals f fall back to 0 at rates `reversion` per bar. The objective
    is the discounted sum of x'r - risk_aversion / 2 x'Sx - cost / 2 dx'S dx, S being the covariance.

    Args:
        betas: shape (n_symbols, n_signals).
        reversion: shape (n_signals,), share of a signal that is gone one bar later.
        covariance: shape (n_symbols, n_symbols), of returns.
        cost: price of trading against price of risk, per bar.
        discount: share by which the next bar counts less.

    Source: Garleanu and Pedersen (2013), "Dynamic Trading with Predictable Returns and Transaction Costs", propositions 2 and 3.
    """
    kept = 1 - discount
    linear = risk_aversion * kept + cost * discount
    slope = (np.sqrt(linear**2 + 4 * risk_aversion * cost * kept**2) - linear) / (2 * kept)
    markowitz = np.linalg.solve(risk_aversion * covariance, betas)
    return PartialAdjustment(float(slope / cost), markowitz / (1 + reversion * slope / risk_aversion))
