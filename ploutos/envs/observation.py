"""What a policy sees after the close of bar *t*: the market's row of that bar, then its own account.

The market's rows are the same for every account and are computed once per fold; only the account part is written at
each step. Both training and backtests call `observe`.

With `EnvSpec.observe_account` an observation ends with the five `ACCOUNT_NAMES` of each symbol. They are
`ploutos.envs.account_features.account_features`, but for their scale: the unrealised profit is times 5, losing trades in a
row are divided by 10, and both, like the drawdown, are clipped to ±5.
"""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np

from ploutos.envs import kernel
from ploutos.envs.account_features import ACCOUNT_NAMES
from ploutos.envs.ledger import Accounts
from ploutos.envs.market_arrays import MarketArrays
from ploutos.features.build import FeatureSet
from ploutos.features.scaling import Scaler
from ploutos.types import BoolArray, Float32Array, IntArray

_Array = TypeVar("_Array", bound=np.ndarray[Any, Any])


def market_rows(features: FeatureSet, tradable: BoolArray, scaler: Scaler) -> Float32Array:
    """Scaled features of all symbols, then one flag per symbol: it has a bar and its windows are full.

    Returns:
        Shape (n_bars, n_symbols * n_features + n_symbols), float32, contiguous.
    """
    scaled = scaler.transform(features.values).reshape(len(features.values), -1)
    usable = (features.ready & tradable).astype(np.float32)
    return np.ascontiguousarray(np.hstack([scaled, usable]))


def observation_names(features: FeatureSet, account: bool = False) -> list[str]:
    """Names of the observation's columns, in order; `account` is `EnvSpec.observe_account`."""
    return column_names(features.symbols, features.names, account)


def column_names(symbols: Sequence[str], features: Sequence[str], account: bool) -> list[str]:
    """The same from the names of symbols and features alone."""
    names = [f"{symbol}.{feature}" for symbol in symbols for feature in features]
    names += [f"{symbol}.usable" for symbol in symbols]
    names += [f"{symbol}.weight" for symbol in symbols]
    names += [f"{symbol}.unrealised" for symbol in symbols]
    own = [f"{symbol}.{name}" for symbol in symbols for name in ACCOUNT_NAMES] if account else []
    return [*names, "cash", "drawdown", *own]


def observation_size(market_columns: int, n_symbols: int, account: bool = False) -> int:
    """Columns of an observation: the market's row, weight and unrealised return per symbol, cash, drawdown, the account's features."""
    return market_columns + 2 * n_symbols + 2 + (kernel.N_ACCOUNT * n_symbols if account else 0)


def observe(accounts: Accounts, bar: IntArray, rows: Float32Array, arrays: MarketArrays, out: Float32Array) -> None:
    """Write each account's observation after the close of its bar into `out`, shape (n, n_columns); its width says what it holds."""
    money, _, positions, counts = accounts.arrays
    kernel.observe(bar, read_only(rows), arrays.prices, arrays.contract_terms, money, positions, counts, out)


def read_only(rows: _Array) -> _Array:
    """The same rows, not to be written: one kind of array for the kernels, mapped from a file or not."""
    if type(rows) is np.ndarray and not rows.flags.writeable:
        return rows
    view = np.asarray(rows).view()
    view.setflags(write=False)
    return cast(_Array, view)
