"""The 5 numbers of an account that the risk score and a hybrid policy read.

They are read from the ledger at each decision and never stored; the market's 28 stand in `ploutos.features.llm_features`.
"""

import numpy as np

from ploutos.envs.ledger import Accounts
from ploutos.types import FloatArray

ACCOUNT_NAMES = (
    "unrealized_pnl",  # of the open trade, share of equity
    "drawdown_current",  # decimal, <= 0
    "consecutive_losses",  # losing trades in a row
    "win_rate_recent",  # of the last ten trades, 0.5 before the first
    "mae_mfe_ratio",  # worst over worst plus best excursion of the open trade, 0..1
)


def account_features(accounts: Accounts) -> FloatArray:
    """The 5 of every account and symbol, as they are now.

    Returns:
        Shape (n_accounts, n_symbols, 5), columns as `ACCOUNT_NAMES`.

    >>> accounts = Accounts.open(1, 1, 1000.0)  # one account, one symbol, before its first trade
    >>> dict(zip(ACCOUNT_NAMES, account_features(accounts)[0, 0].tolist(), strict=True))["win_rate_recent"]
    0.5
    """
    shape = accounts.units.shape
    wins = np.bitwise_count(accounts.outcomes.astype(np.uint64)).astype(float)
    win_rate = np.divide(wins, accounts.n_outcomes, out=np.full(shape, 0.5), where=accounts.n_outcomes > 0)
    swing = accounts.best - accounts.worst
    mae_share = np.divide(-accounts.worst, swing, out=np.zeros(shape), where=swing > 0)
    equity = np.maximum(accounts.equity, 1e-9)[:, None]
    drawdown = np.broadcast_to(accounts.drawdown[:, None], shape)
    return np.stack([accounts.trade_pnl / equity, drawdown, accounts.loss_streak.astype(float), win_rate, mae_share], axis=2)
