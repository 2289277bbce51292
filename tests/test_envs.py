"""The environments: the public checkers, the two ends of an episode, and who may see what."""

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.envs.ledger import make_tape
from ploutos.envs.observation import market_rows, observation_names
from ploutos.envs.single import MarketEnv
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.scaling import fit_scaler


def parts(bars, features, train=(110, 400)):
    scaler = fit_scaler(features.values[slice(*train)])
    return make_tape(bars), market_rows(features, bars.tradable, scaler)


@pytest.fixture(scope="module")
def market(panel, panel_features):
    return parts(panel, panel_features)


def vector(market, spec=None, n_envs=8, first=110, last=399, seed=1):
    return MarketVecEnv(*market, spec or EnvSpec(episode_bars=50), first, last, n_envs=n_envs, seed=seed)


def test_gymnasium_and_stable_baselines_accept_the_single_environment(market):
    env = MarketEnv(*market, EnvSpec(episode_bars=50), 110, 399)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check(env, skip_render_check=True)
        sb3_check(env)


def test_every_column_of_an_observation_has_a_name(market, panel_features):
    env = vector(market)
    assert env.observation_space.shape == (len(observation_names(panel_features)),)
    assert env.reset().shape == (8, len(observation_names(panel_features)))


def test_the_account_part_of_an_observation_is_what_its_names_say(market, panel_features, panel):
    env = vector(market, n_envs=1)
    env.reset()
    env.step(np.full((1, 3), BUY))
    observation = dict(zip(observation_names(panel_features), env.step(np.full((1, 3), HOLD))[0][0], strict=True))
    accounts = env.accounts
    t = env.bar[0]
    for s, symbol in enumerate(panel.symbols):
        weight = accounts.units[0, s] * panel.mark[t, s] / accounts.equity[0] if accounts.units[0, s] else 0.0
        assert observation[f"{symbol}.weight"] == pytest.approx(weight, rel=1e-5, abs=1e-7)
    assert observation["cash"] == pytest.approx(accounts.cash[0] / accounts.equity[0], rel=1e-5, abs=1e-6)
    assert observation["drawdown"] == pytest.approx(accounts.drawdown[0], rel=1e-5, abs=1e-7)


def test_time_truncates_with_the_terminal_observation_and_ruin_terminates(market, panel, panel_features):
    env = vector(market, n_envs=32)
    env.reset()
    left = np.minimum(50, 399 - env.bar)  # an episode near the range's end is short
    for step in range(1, 51):
        last = env.bar.copy()
        _, _, dones, infos = env.step(np.zeros((32, 3), dtype=int))
        for i in np.flatnonzero(left == step):
            assert dones[i]
            assert infos[i]["TimeLimit.truncated"] is True
            np.testing.assert_array_equal(infos[i]["terminal_observation"][: env.rows.shape[1]], env.rows[last[i] + 1])
        assert not dones[left > step].any()
    ruinous = EnvSpec(episode_bars=250, ruin_fraction=0.97, gross_limit=3.0)
    env = vector(market, ruinous, n_envs=16)
    env.reset()
    ends = []
    for _ in range(250):
        _, _, dones, infos = env.step(np.full((16, 3), BUY))
        ends += [info["TimeLimit.truncated"] for info in infos if info]
    assert False in ends  # at least one account fell below 97 % of its cash


def test_the_reward_is_the_log_return_of_equity_net_of_costs(market):
    env = vector(market, n_envs=4)
    env.reset()
    for _ in range(20):
        before = env.accounts.equity.copy()
        _, rewards, dones, _ = env.step(np.random.default_rng(0).integers(0, 3, (4, 3)))
        expected = 100 * np.log(env.accounts.equity / before)  # a finished account has already begun anew
        np.testing.assert_allclose(rewards[~dones], expected[~dones], rtol=1e-4, atol=1e-5)


def test_every_bar_of_the_range_is_visited(market):
    env = vector(market, n_envs=64)
    env.reset()
    seen = set()
    for _ in range(1500):
        seen.update(env.bar.tolist())
        env.step(np.zeros((64, 3), dtype=int))
    assert seen == set(range(110, 399))  # 399 is only ever a terminal observation


def test_the_observation_before_a_step_is_not_overwritten_by_it(market):
    env = vector(market)
    first = env.reset()
    kept = first.copy()
    env.step(np.full((8, 3), BUY))
    np.testing.assert_array_equal(first, kept)


def test_the_same_seed_gives_the_same_episode_and_another_seed_another(market):
    def trace(seed):
        env = vector(market, seed=seed)
        env.reset()
        actions = np.random.default_rng(3).integers(0, 3, (60, 8, 3))
        return np.stack([env.step(a)[0].copy() for a in actions])

    np.testing.assert_array_equal(trace(1), trace(1))
    assert not np.array_equal(trace(1), trace(2))


@pytest.mark.parametrize("t", [420, 555, 640])
def test_cutting_the_future_changes_no_observation(panel, panel_features, t):
    """Scaler included: it is fitted on training rows, which end before t."""
    past = panel.head(t)
    rows = parts(past, build_features(past, FeatureSpec()))[1]
    np.testing.assert_array_equal(rows, parts(panel, panel_features)[1][:t])


def test_selling_goes_flat_unless_shorts_are_allowed(market):
    for allowed, lowest in ((False, 0.0), (True, None)):
        env = vector(market, EnvSpec(episode_bars=50, allow_short=allowed))
        env.reset()
        for _ in range(3):
            env.step(np.full((8, 3), SELL))
        assert (env.accounts.units < 0).any() == (lowest is None)


def test_a_range_without_a_step_is_refused(market):
    with pytest.raises(ConfigError, match="hold no step"):
        vector(market, first=300, last=300)
