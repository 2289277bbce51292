"""What a policy sees after the close of bar *t*: the market's row of that bar, then its own account.

The market's rows are the same for every account and are computed once per fold; only the account part is written at
each step. Both training and backtests call `observe`.
"""

import numpy as np
from numba import njit

from ploutos.envs.ledger import Accounts, Tape
from ploutos.features.build import FeatureSet
from ploutos.features.scaling import Scaler
from ploutos.types import BoolArray, Float32Array, IntArray


def market_rows(features: FeatureSet, tradable: BoolArray, scaler: Scaler) -> Float32Array:
    """Scaled features of all symbols, then one flag per symbol: it has a bar and its windows are full.

    Returns:
        Shape (n_bars, n_symbols * n_features + n_symbols), float32, contiguous.
    """
    scaled = scaler.transform(features.values).reshape(len(features.values), -1)
    usable = (features.ready & tradable).astype(np.float32)
    return np.ascontiguousarray(np.hstack([scaled, usable]))


def observation_names(features: FeatureSet) -> list[str]:
    """Names of the observation's columns, in order."""
    symbols = features.symbols
    names = [f"{symbol}.{feature}" for symbol in symbols for feature in features.names]
    names += [f"{symbol}.usable" for symbol in symbols]
    names += [f"{symbol}.weight" for symbol in symbols]
    names += [f"{symbol}.unrealised" for symbol in symbols]
    return [*names, "cash", "drawdown"]


def observation_size(market_columns: int, n_symbols: int) -> int:
    """Columns of an observation: the market's row, weight and unrealised return per symbol, cash, drawdown."""
    return market_columns + 2 * n_symbols + 2


def observe(accounts: Accounts, bar: IntArray, rows: Float32Array, tape: Tape, out: Float32Array) -> None:
    """Write each account's observation after the close of its bar into `out`, shape (n, n_columns)."""
    _observe(bar, rows, tape.mark, tape.multiplier, accounts.cash, accounts.equity, accounts.peak,
             accounts.units, accounts.entry, out)  # fmt: skip


@njit(cache=True)
def _observe(bar, rows, mark, multiplier, cash, equity, peak, units, entry, out):
    n, n_symbols = units.shape
    columns = rows.shape[1]
    for i in range(n):
        t = bar[i]
        out[i, :columns] = rows[t]
        scale = max(equity[i], 1e-9)
        for j in range(n_symbols):
            weight = 0.0
            moved = 0.0
            if units[i, j] != 0.0:
                weight = units[i, j] * mark[t, j] * multiplier[j] / scale
                moved = np.sign(units[i, j]) * (mark[t, j] / entry[i, j] - 1.0)
            out[i, columns + j] = min(max(weight, -5.0), 5.0)
            out[i, columns + n_symbols + j] = min(max(5.0 * moved, -5.0), 5.0)
        out[i, columns + 2 * n_symbols] = min(max(cash[i] / scale, -5.0), 5.0)
        out[i, columns + 2 * n_symbols + 1] = equity[i] / peak[i] - 1.0
