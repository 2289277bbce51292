"""The decisions that an account took, run through the ledger again: what it held and paid, symbol by symbol, or what another world would
have made of them.

The same decisions on the same market give the same path, to the last bit. What strategies would have decided elsewhere is another
question: that takes the strategies, see `ploutos.evaluation.backtest`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ploutos.envs import kernel, ledger
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Backtests
from ploutos.types import FloatArray


@dataclass(frozen=True)
class Replay:
    """Some accounts again, k of them over n steps of s symbols.

    Attributes:
        equity, written_off: shape (k, n + 1), account currency.
        parts: shape (n, N_PARTS, k, s), in the order of `ploutos.envs.kernel`: what every step made of every symbol.
        weights, entry: shape (n + 1, k, s), share of equity held at each close, and the average fill of what is held.
        ruined: shape (k,).
    """

    equity: FloatArray
    written_off: FloatArray
    parts: FloatArray
    weights: FloatArray
    entry: FloatArray
    ruined: np.ndarray


def replay(arrays: MarketArrays, first: int, targets: FloatArray, env: EnvSpec, with_parts: bool = True) -> Replay:
    """Run decisions through the ledger.

    Args:
        first: bar after whose close the first of them was taken.
        targets: shape (k, n + 1, s), share of equity, nan for no order; the last row is not carried out.
        env: with its initial cash.
        with_parts: whether parts, weights and entries are kept; they are empty else.
    """
    k, n, s = targets.shape[0], targets.shape[1] - 1, targets.shape[2]
    accounts = ledger.Accounts.open(k, s, env.cash)
    stepper = ledger.Stepper(accounts, arrays, env, with_parts=with_parts)
    equity, written_off = np.zeros((k, n + 1)), np.zeros((k, n + 1))
    kept = n if with_parts else -1
    parts = np.zeros((max(kept, 0), kernel.N_PARTS, k, s))
    weights, entry = np.zeros((kept + 1, k, s)), np.zeros((kept + 1, k, s))
    equity[:, 0] = env.cash
    for t in range(n):
        stepper.step(np.full(k, first + t), np.ascontiguousarray(targets[:, t]))
        equity[:, t + 1], written_off[:, t + 1] = accounts.equity, accounts.written_off
        if with_parts:
            parts[t], weights[t + 1], entry[t + 1] = stepper.parts, stepper.held(first + t + 1), accounts.entry
    return Replay(equity, written_off, parts, weights, entry, accounts.ruined.copy())


def own_env(backtests: Backtests, env: EnvSpec) -> EnvSpec:
    """The spec with the initial cash that the accounts had."""
    return env.model_copy(update={"initial_cash": float(backtests.equity[0, 0])})


def replay_accounts(arrays: MarketArrays, backtests: Backtests, slugs: Sequence[str], env: EnvSpec) -> Replay:
    """Accounts of a backtest again.

    Args:
        env: what they ran under.

    Raises:
        DataError: their decisions were not kept, or do not give their path under these bars and this spec.
    """
    rows = [backtests.row(slug) for slug in slugs]
    if not backtests.targets.shape[1]:
        raise DataError('the backtest kept no decisions; expected them: run it with keep=("targets", ...)')
    again = replay(arrays, int(backtests.positions[0]), backtests.targets[rows], own_env(backtests, env))
    if not np.array_equal(again.equity, backtests.equity[rows]):
        gone = [slug for slug, row, path in zip(slugs, rows, again.equity, strict=True) if not np.array_equal(path, backtests.equity[row])]
        raise DataError(
            f"the decisions of {gone[0]} do not give the equity that was kept; expected the bars and the account's settings of the backtest"
        )
    return again
