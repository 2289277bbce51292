"""Discrete actions, the target weights they stand for, and which of them can do anything.

Per symbol: HOLD keeps the units held, BUY asks for one slot, SELL goes flat (or one slot short, if allowed). A slot is
the gross limit divided by the symbols that have a bar now. nan as a target weight means "no order".
"""

import numpy as np

from ploutos.envs import kernel
from ploutos.envs.kernel import BUY as BUY
from ploutos.envs.kernel import HOLD as HOLD
from ploutos.envs.kernel import SELL as SELL
from ploutos.envs.ledger import Accounts, rules_of
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.spec import EnvSpec
from ploutos.types import BoolArray, FloatArray, IntArray

N_ACTIONS = 3


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
    targets = np.empty(actions.shape)
    kernel.decode(actions, n_tradable, float(spec.gross_limit), spec.allow_short, targets)
    return targets


def weights_within(wanted: FloatArray, spec: EnvSpec) -> FloatArray:
    """Target weights of continuous actions: shares of the gross limit, scaled down together where they pass it.

    Args:
        wanted: shape (n, n_symbols), from -1 (0 without shorts) to 1.

    Returns:
        Shape (n, n_symbols), share of equity.

    >>> weights_within(np.array([[1.0, 1.0], [0.5, -0.25]]), EnvSpec(gross_limit=2, allow_short=True)).tolist()
    [[1.0, 1.0], [1.0, -0.5]]
    """
    total = np.abs(wanted).sum(axis=1, keepdims=True)
    return np.asarray(wanted * (spec.gross_limit / np.maximum(total, 1.0)), dtype=np.float64)


def action_masks(accounts: Accounts, bar: IntArray, arrays: MarketArrays, spec: EnvSpec) -> BoolArray:
    """Which actions can do anything: not an order in a symbol without a bar, nor a sale of nothing, nor any order that the next
    bar voids (the session's last, a margin call). HOLD always can.

    Args:
        bar: shape (n,), the bar after whose close each account decides.

    Returns:
        Shape (n, n_symbols * 3), HOLD, BUY, SELL per symbol, as sb3-contrib's MaskablePPO reads a MultiDiscrete space.
    """
    money, _, positions, _ = accounts.arrays
    out = np.empty((len(bar), arrays.n_symbols, N_ACTIONS), dtype=np.bool_)
    kernel.mask(bar, arrays.session_end, arrays.prices, arrays.contract_terms, rules_of(spec), money, positions, out)
    return out.reshape(len(bar), -1)
