"""Accounts with precomputed orders, moved over consecutive bars in one compiled call.

It is the kernel's own step, for the accounts to which something happens; the others are only marked. The paths are those of a backtest,
bit for bit, in a fraction of the time where orders are rare.
"""

from dataclasses import dataclass

import numpy as np

from ploutos.envs import kernel, ledger
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.spec import EnvSpec
from ploutos.types import FloatArray, IntArray

_TALLIES = 2


@dataclass(frozen=True)
class OrderRun:
    """What n accounts came to.

    Attributes:
        equity: shape (n, n_kept + 1), account currency, at the start and at the closes that were kept.
        deepest: shape (n,), deepest drawdown over all closes, decimal, <= 0.
        n_fills: shape (n,), orders and stops that were filled.
        costs, traded: shape (n,), account currency.
        ruined: shape (n,).
    """

    equity: FloatArray
    deepest: FloatArray
    n_fills: IntArray
    costs: FloatArray
    traded: FloatArray
    ruined: np.ndarray


def run_orders(arrays: MarketArrays, env: EnvSpec, first: int, orders: FloatArray, kept: IntArray) -> OrderRun:
    """Open accounts after the close of a bar and move them as their orders say.

    Args:
        env: with an initial cash that fits these bars.
        first: the bar after whose close the first decision is made.
        orders: shape (n_steps, n_accounts, n_symbols), target weights decided after bar `first` and each later one, nan for no order.
        kept: shape (n_kept,), increasing positions among the steps; equity is kept at the close that a step ends with.

    Raises:
        ConfigError: the rules cannot hold on these bars.
    """
    ledger.require_rules(arrays, env)
    n_steps, n, n_symbols = orders.shape
    accounts, room = (ledger.Accounts.open(n, n_symbols, env.cash) for _ in range(2))
    rows = np.full(n_steps, -1)
    rows[kept] = np.arange(1, len(kept) + 1)
    equity, tallies = np.full((len(kept) + 1, n), env.cash), np.zeros((_TALLIES, n))
    kernel.run_orders(
        first, np.ascontiguousarray(orders), kernel.scratch(arrays.contract_terms, kernel.width_of(n_symbols)), arrays.prices,
        arrays.contract_terms, arrays.n_tradable, arrays.years, ledger.rules_of(env), *accounts.arrays, *room.arrays, rows, equity, tallies,
    )  # fmt: skip
    return OrderRun(
        equity=equity.T, deepest=tallies[kernel.DEEPEST], n_fills=tallies[kernel.N_FILLS].astype(np.int64), costs=accounts.costs,
        traded=accounts.traded.copy(), ruined=accounts.ruined.copy(),
    )  # fmt: skip
