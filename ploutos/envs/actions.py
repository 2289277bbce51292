"""Discrete actions and the target weights they stand for.

Per symbol: HOLD keeps the units held, BUY asks for one slot, SELL goes flat (or one slot short, if allowed). A slot is
the gross limit divided by the symbols that have a bar now. nan as a target weight means "no order".
"""

import numpy as np

from ploutos.envs.spec import EnvSpec
from ploutos.types import FloatArray, IntArray

HOLD, BUY, SELL = 0, 1, 2
N_ACTIONS = 3
ACTION_NAMES = ("HOLD", "BUY", "SELL")


def target_weights(actions: IntArray, n_tradable: IntArray, spec: EnvSpec) -> FloatArray:
    """Target weights of a batch of actions.

    Args:
        actions: shape (n, n_symbols), values HOLD, BUY, SELL.
        n_tradable: shape (n,), symbols that have a bar at the decision.

    Returns:
        Shape (n, n_symbols), share of equity, nan for no order.

    >>> target_weights(np.array([[HOLD, BUY, SELL]]), np.array([3]), EnvSpec()).round(3).tolist()
    [[nan, 0.333, 0.0]]
    """
    slot = (spec.gross_limit / np.maximum(n_tradable, 1))[:, None]
    short = -slot if spec.allow_short else np.zeros_like(slot)
    return np.where(actions == BUY, slot, np.where(actions == SELL, short, np.nan))
