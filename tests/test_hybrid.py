"""The hybrid policy: what it sees, where it starts, and that being killed changes nothing."""

import numpy as np
import pytest

from ploutos.envs import kernel
from ploutos.envs.observation import market_rows, observation_names
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.features.llm_features import account_features
from ploutos.features.scaling import fit_scaler


@pytest.fixture(scope="module")
def market(panel, panel_features):
    from ploutos.envs.ledger import make_tape

    return make_tape(panel), market_rows(panel_features, panel.tradable, fit_scaler(panel_features.values[110:400]))


def vector(market, **settings):
    return MarketVecEnv(*market, EnvSpec(episode_bars=60, allow_short=True, **settings), 110, 399, n_envs=16, seed=1)


def test_the_accounts_features_follow_the_observation_as_it_was_and_are_the_ledgers(market, panel_features):
    """Random play: profits, streaks and hit rates all occur."""
    plain, wide = vector(market), vector(market, observe_account=True)
    names = observation_names(panel_features, account=True)
    n = plain.observation_space.shape[0]
    assert wide.observation_space.shape == (len(names),) == (n + 15,)
    assert names[:n] == observation_names(panel_features)
    assert names[n : n + 2] == ["S0.unrealized_pnl", "S0.drawdown_current"]
    np.testing.assert_array_equal(plain.reset(), wide.reset()[:, :n])
    random, scale = np.random.default_rng(0), np.array([kernel.UNREALISED_SCALE, 1, kernel.LOSSES_SCALE, 1, 1])
    seen = []
    for _ in range(150):
        actions = random.integers(0, 3, (16, 3))
        expected, found = plain.step(actions)[0], wide.step(actions)[0]
        np.testing.assert_array_equal(expected, found[:, :n])
        np.testing.assert_array_equal(found, wide.observe())
        own = (account_features(wide.accounts) * scale).astype(np.float32)
        np.testing.assert_array_equal(found[:, n:], own.reshape(16, -1))
        seen.append(own.reshape(-1, 5))
    assert (np.concatenate(seen).std(axis=0) > 0.01).all()


def test_the_accounts_features_stay_within_their_bounds_whatever_the_account(market):
    env = vector(market, observe_account=True)
    env.reset()
    env.accounts.trade_pnl[:], env.accounts.loss_streak[:], env.accounts.equity[:] = 1e9, 1000, -1e6
    own = env.observe()[:, -15:].reshape(16, 3, 5)
    assert (own[..., 0] == 5).all()
    assert (own[..., 1] == -5).all()
    assert (own[..., 2] == 5).all()
