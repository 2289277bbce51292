"""Many histories in one batch: sessions in another order, some orders late, some lost, carried out by the same ledger.

A path is made of blocks of sessions as they were. Where it jumps, the account takes over what it held when that block began, as a share
of its equity and at no cost: it had been paid for. So a path without late or lost orders has exactly the returns of its sessions. Within
a block every order is filled, charged and stopped by the kernel. Amounts are shares of equity there too, so futures may be held in
fractions until the next order; decisions are those that were taken, not taken again.
"""

import numpy as np

from ploutos.envs import ledger
from ploutos.envs.market_arrays import MarketArrays
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.replay import Replay
from ploutos.evaluation.spec import RobustnessSpec
from ploutos.types import BoolArray, FloatArray, IntArray, TimeArray


def path_steps(sessions: TimeArray, n_paths: int, block: int, random: np.random.Generator) -> IntArray:
    """Which step of the history each step of a path repeats, shape (n_paths, n_steps): a circular block bootstrap of sessions.

    Args:
        sessions: shape (n_steps,), session of each step.
        block: sessions that follow each other.
    """
    n = len(sessions)
    starts = np.flatnonzero(np.r_[True, sessions[1:] != sessions[:-1]])
    ends = np.r_[starts[1:], starts + n, 2 * n][np.arange(len(starts)) + min(block, len(starts)) - 1]  # a block may run over the end
    chosen = random.integers(len(starts), size=(n_paths, -(-n // int((ends - starts).min()))))
    lengths = (ends - starts)[chosen]
    total, within = int(lengths.sum()), lengths.ravel()
    before = np.cumsum(within) - within
    steps = (np.repeat(starts[chosen].ravel() - before, within) + np.arange(total)) % n
    of_path = np.repeat(np.cumsum(lengths.sum(axis=1)) - lengths.sum(axis=1), lengths.sum(axis=1))
    return np.asarray(steps[np.arange(total) - of_path < n].reshape(n_paths, n))


def run_paths(
    arrays: MarketArrays, first: int, targets: FloatArray, again: Replay, env: EnvSpec, steps: IntArray, spec: RobustnessSpec, seed_of: int
) -> tuple[FloatArray, BoolArray]:
    """Run k accounts over every path, all at once.

    Args:
        first: bar after whose close the first decision was taken.
        targets: shape (k, n + 1, s), what was decided.
        again: the accounts as they were.
        env: with the initial cash.
        steps: shape (n_paths, n), from `path_steps`.
        seed_of: seed of late and lost orders.

    Returns:
        Equity over its start, shape (n_paths, k, n + 1), and whether each was ruined, shape (n_paths, k).
    """
    (n_paths, n), (k, _, s) = steps.shape, targets.shape
    random = np.random.default_rng(seed_of)
    accounts = ledger.Accounts.open(n_paths * k, s, env.cash)
    stepper = ledger.Stepper(accounts, arrays, env)
    equity = np.empty((n + 1, n_paths * k))
    equity[0] = env.cash
    decided = np.concatenate([targets[:, -1:], targets], axis=1).swapaxes(0, 1)  # row t + 1 holds step t; row 0 none
    jumps = np.ones((n_paths, n), dtype=np.bool_)
    jumps[:, 1:] = steps[:, 1:] != steps[:, :-1] + 1
    for t in range(n):
        at = steps[:, t]
        if (paths := np.flatnonzero(jumps[:, t])).size:
            _take_over(accounts, arrays, first, again, paths, at[paths], k)
        late, lost = random.random((2, n_paths)) < np.array([[spec.late], [spec.lost]])
        orders = decided[at + 1 - late]
        orders[lost] = np.nan
        stepper.step(np.repeat(first + at, k), orders.reshape(n_paths * k, s))
        equity[t + 1] = accounts.equity
    return (equity / env.cash).T.reshape(n_paths, k, n + 1), accounts.ruined.reshape(n_paths, k).copy()


def _take_over(accounts: ledger.Accounts, arrays: MarketArrays, first: int, again: Replay, paths: IntArray, at: IntArray, k: int) -> None:
    """Give the accounts of some paths the holdings of the history at some closes, as shares of their own equity."""
    rows = (paths[:, None] * k + np.arange(k)).ravel()
    weights = again.weights[at].reshape(len(rows), -1)
    one = np.repeat(np.nan_to_num(arrays.mark[first + at]) * arrays.multiplier, k, axis=0)
    able = (one != 0) & ~accounts.ruined[rows, None]
    worth = np.where(able, weights * accounts.equity[rows, None], 0.0)
    accounts.units[rows] = worth / np.where(able, one, 1.0)
    accounts.entry[rows] = np.where(accounts.units[rows] != 0, again.entry[at].reshape(len(rows), -1), 0.0)
    accounts.cash[rows] = accounts.equity[rows] - worth.sum(axis=1)
