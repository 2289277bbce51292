"""The environments: the public checkers, the two ends of an episode, and who may see what."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check
from markets import session_panel
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check

from ploutos.envs import ledger
from ploutos.envs.actions import BUY, HOLD, SELL, target_weights, weights_within
from ploutos.envs.batch import REWARD_PARTS
from ploutos.envs.ledger import make_market_arrays
from ploutos.envs.observation import market_rows, observation_names
from ploutos.envs.single import MarketEnv, UniversalTradingEnvV8LSTM
from ploutos.envs.spec import CostSpec, EnvSpec, RewardSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError, ShapeError
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.scaling import fit_scaler
from ploutos.training.callbacks import BatchedCallback


def parts(bars, features, train=(110, 400)):
    scaler = fit_scaler(features.values[slice(*train)])
    return make_market_arrays(bars), market_rows(features, bars.tradable, scaler)


@pytest.fixture(scope="module")
def market(panel, panel_features):
    return parts(panel, panel_features)


def vector(market, spec=None, n_envs=8, first=110, last=399, seed=1, actions="discrete"):
    return MarketVecEnv(*market, spec or EnvSpec(episode_bars=50), first, last, n_envs=n_envs, seed=seed, actions=actions)


@pytest.mark.parametrize("actions", ["discrete", "weights"])
def test_gymnasium_and_stable_baselines_accept_the_single_environment(market, actions):
    env = MarketEnv(*market, EnvSpec(episode_bars=50, allow_short=True), 110, 399, actions=actions)
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


def delisted(panel):
    """The panel, whose second symbol ends with bar 249 and is then paid out at a tenth."""
    cut = {name: getattr(panel, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for values in cut.values():
        values[250:, 1] = np.nan
    return replace(panel, payouts=(np.nan, 0.1 * panel.mark[249, 1], np.nan), **cut)


EVERYTHING = EnvSpec(
    episode_bars=30, allow_short=True, gross_limit=1.5, max_participation=0.2, stop_loss=0.03, margin_calls=True, ruin_fraction=0.9,
    costs=CostSpec(slippage_per_volatility=0.1, impact=0.3, borrow_per_year=0.1),
)  # fmt: skip
RECKLESS = EnvSpec(episode_bars=30, allow_short=True, gross_limit=8)


@pytest.mark.parametrize("change", [lambda bars: bars, delisted], ids=["listed", "delisted"])
@pytest.mark.parametrize("spec", [EVERYTHING, RECKLESS], ids=["every rule", "reckless"])
def test_a_batch_moves_its_accounts_as_the_ledger_does(panel, panel_features, change, spec):
    """150 accounts of an environment against the same orders given to the ledger; who ends begins anew in both."""
    env = vector((make_market_arrays(change(panel)), parts(panel, panel_features)[1]), spec, 150)
    accounts, random, n_ended, written_off = ledger.Accounts.open(150, 3, spec.cash), np.random.default_rng(6), 0, 0.0
    env.reset()
    for _ in range(60):
        bars, actions = env.bar.copy(), random.integers(0, 3, (150, 3))
        ledger.step(accounts, bars, target_weights(actions, env.arrays.n_tradable[bars], spec), env.arrays, spec)
        _, _, dones, infos = env.step(actions)
        ended = np.flatnonzero(dones)
        assert [infos[i]["final_equity"] for i in ended] == accounts.equity[ended].tolist()
        assert (accounts.equity >= 0).all()
        written_off += accounts.written_off.sum()
        accounts.reset(ended, spec.cash)
        for name in (
            "cash",
            "equity",
            "units",
            "entry",
            "trade_pnl",
            "worst",
            "best",
            "outcomes",
            "exit_bar",
            "pnl",
            "impact",
            "borrow",
            "written_off",
        ):
            np.testing.assert_array_equal(getattr(env.accounts, name), getattr(accounts, name), err_msg=name)
        n_ended += len(ended)
    assert n_ended > 300
    assert (written_off > 0) == (spec is RECKLESS)


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


def test_mapped_rows_give_the_same_episodes_and_cannot_be_written(market, tmp_path):
    arrays, rows = market
    np.save(tmp_path / "rows.npy", rows)
    envs = [vector((arrays, each)) for each in (rows, np.load(tmp_path / "rows.npy", mmap_mode="r"))]
    for env in envs:
        np.testing.assert_array_equal(env.rows, rows)
        with pytest.raises(ValueError, match="read-only"):
            env.rows[0, 0] = 1
        env.reset()
    for _ in range(60):
        action = np.random.default_rng(1).integers(0, 3, (8, 3))
        first, second = (env.step(action)[0] for env in envs)
        np.testing.assert_array_equal(first, second)


def test_rows_of_another_panel_are_refused(market):
    arrays, rows = market
    with pytest.raises(ConfigError, match="found 600 market rows for 700 bars"):
        vector((arrays, rows[:600]))


def test_actions_of_another_shape_are_refused(market):
    env = vector(market)
    env.reset()
    with pytest.raises(ShapeError, match=r"actions of shape \(8, 2\); expected \(8, 3\)"):
        env.step(np.zeros((8, 2), dtype=int))


def test_weights_are_shares_of_the_limit_and_scaled_down_together(market):
    env = vector(market, EnvSpec(episode_bars=50, gross_limit=2, rebalance_band=0, costs=CostSpec(commission_bps=0)), actions="weights")
    assert env.action_space == spaces.Box(0.0, 1.0, (3,), np.float32)
    assert vector(market, EnvSpec(allow_short=True), actions="weights").action_space.low.tolist() == [-1.0] * 3
    env.reset()
    env.bar[:] = 110
    asked = np.tile(np.float32([1.0, 0.6, 0.0]), (8, 1))
    env.step(asked)
    known = env.arrays.mark[110, :2]
    np.testing.assert_allclose(env.accounts.units[:, :2], np.tile(2 * 100_000 * np.array([1.0, 0.6]) / 1.6 / known, (8, 1)), rtol=0.05)
    np.testing.assert_array_equal(weights_within(np.array([[0.25, -0.5]]), EnvSpec(gross_limit=2)), [[0.5, -1.0]])


def test_a_masked_action_never_does_anything_else_than_hold(market):
    """Every action that is masked fills like HOLD in the next bar, and every one that fills otherwise is allowed."""
    env = vector(market, EnvSpec(episode_bars=50), n_envs=64)
    env.reset()
    random = np.random.default_rng(2)
    spared = 0
    for _ in range(120):
        masks = env.action_masks().reshape(64, 3, 3)
        assert masks[..., HOLD].all()
        np.testing.assert_array_equal(np.stack(env.env_method("action_masks")).reshape(masks.shape), masks)
        live = env.arrays.tradable[env.bar]
        np.testing.assert_array_equal(masks[..., BUY], live)
        np.testing.assert_array_equal(masks[..., SELL], live & (env.accounts.units != 0))
        actions = random.integers(0, 3, (64, 3))
        sells_nothing = (actions == SELL) & ~masks[..., SELL] & (env.accounts.units == 0)
        spared += sells_nothing.sum()
        targets = target_weights(actions, env.arrays.n_tradable[env.bar], env.env_spec)
        assert (targets[sells_nothing] == 0).all()
        env.step(actions)
    assert spared > 100


def test_no_order_is_offered_that_the_end_of_the_session_would_void():
    bars = session_panel(2)
    arrays = make_market_arrays(bars)
    env = vector(
        (arrays, np.zeros((bars.n_bars, 1), np.float32)), EnvSpec(flat_by_session_end=True, allow_short=True), 4, 5, bars.n_bars - 1
    )
    env.reset()
    for t in range(5, bars.n_bars - 1):
        env.bar[:] = t
        masks = env.action_masks().reshape(4, 3, 3)
        allowed = bars.tradable[t] & ~arrays.session_end[t + 1]
        np.testing.assert_array_equal(masks[0, :, BUY], allowed)
        np.testing.assert_array_equal(masks[0, :, SELL], allowed)


def test_maskable_ppo_trains_on_the_masks_and_ppo_on_weights(market):
    torch.set_num_threads(1)
    masked = MaskablePPO("MlpPolicy", vector(market), n_steps=16, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(256)
    assert masked.num_timesteps == 256
    env = vector(market, n_envs=1)
    observation = env.reset()
    for _ in range(30):
        mask = env.action_masks()
        action, _ = masked.predict(observation, action_masks=mask)
        assert mask.reshape(3, 3)[np.arange(3), action[0]].all()
        observation = env.step(action)[0]
    PPO("MlpPolicy", vector(market, actions="weights"), n_steps=16, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(256)


def test_the_older_name_is_the_same_environment_and_features_come_precomputed(market):
    assert UniversalTradingEnvV8LSTM is MarketEnv
    UniversalTradingEnvV8LSTM(*market, EnvSpec(), 110, 399, features_precomputed=True).reset(seed=1)
    with pytest.raises(ConfigError, match="features_precomputed=False"):
        UniversalTradingEnvV8LSTM(*market, EnvSpec(), 110, 399, features_precomputed=False)


def play(market, reward, steps=120, n_envs=4):
    """Rewards, ended parts and equity of random play over one long episode."""
    spec = EnvSpec(episode_bars=1000, allow_short=True, reward=reward, ruin_fraction=0)
    env = vector(market, spec, n_envs, 110, 399)
    env.reset()
    env.bar[:], env.steps_left[:] = 110, 200
    random, equity, rewards, drawdown, traded = np.random.default_rng(4), [], [], [], []
    for _ in range(steps):
        for held, now in ((equity, env.accounts.equity), (drawdown, env.accounts.drawdown), (traded, env.accounts.traded)):
            held.append(now.copy())
        rewards.append(env.step(random.integers(0, 3, (n_envs, 3)))[1])
    for held, now in ((equity, env.accounts.equity), (drawdown, env.accounts.drawdown), (traded, env.accounts.traded)):
        held.append(now.copy())
    return np.array(rewards), np.array(equity), np.array(drawdown), np.array(traded), env


def decayed_sharpe(returns, mean, square, decay):
    """The Sharpe ratio of decayed moments after one more return."""
    mean, square = mean + decay * (returns - mean), square + decay * (returns**2 - square)
    return mean / np.sqrt(square - mean**2)


def test_the_differential_sharpe_ratio_is_the_derivative_of_the_sharpe_ratio(market):
    """Moody and Saffell define it as dS/d(decay) at decay 0, at the moments so far; here by central differences."""
    only = RewardSpec(log_return=0, differential_sharpe=1, sharpe_decay=0.05, sharpe_prior=0.02)
    rewards, equity, *_ = play(market, only)
    mean, square, h = np.zeros(4), np.full(4, 0.02**2), 1e-6
    for t, reward in enumerate(rewards):
        r = equity[t + 1] / equity[t] - 1
        slope = (decayed_sharpe(r, mean, square, h) - decayed_sharpe(r, mean, square, -h)) / (2 * h)
        np.testing.assert_allclose(reward / 100, slope, rtol=1e-4, atol=1e-6)
        mean, square = mean + 0.05 * (r - mean), square + 0.05 * (r**2 - square)


def test_penalties_are_the_growth_of_the_drawdown_and_the_turnover(market):
    rewards, _, drawdown, _, _ = play(market, RewardSpec(log_return=0, drawdown=2))
    np.testing.assert_allclose(rewards, 200 * np.minimum(np.diff(drawdown, axis=0), 0), rtol=1e-4, atol=1e-4)
    assert (rewards < -0.01).any()
    rewards, equity, _, traded, _ = play(market, RewardSpec(log_return=0, turnover=0.5))
    np.testing.assert_allclose(rewards, -50 * np.diff(traded, axis=0) / equity[:-1], rtol=1e-4, atol=1e-4)


def test_reward_parts_add_up_to_the_reward_and_are_logged_by_name(market):
    every = RewardSpec(log_return=1, differential_sharpe=0.01, drawdown=0.3, turnover=0.002)
    spec = EnvSpec(episode_bars=30, reward=every, allow_short=True)
    env = vector(market, spec, 16)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=1, seed=0, device="cpu")
    seen = []

    class Spy(BatchedCallback):
        def _on_step(self):
            seen.extend(info for info in self.locals["infos"] if info)
            return super()._on_step()

    log = Spy()
    model.learn(1024, callback=log)
    (record,) = log.records
    assert len(seen) == record["episodes"] >= 16
    for info in seen:
        assert tuple(info["reward_parts"]) == REWARD_PARTS
        assert sum(info["reward_parts"].values()) == pytest.approx(info["episode"]["r"], abs=1e-3)
        assert info["reward_parts"]["turnover"] < 0
    for name in REWARD_PARTS:
        assert record[f"reward/{name}"] == pytest.approx(np.mean([info["reward_parts"][name] for info in seen]))


def test_a_reward_may_be_given_by_its_bare_name():
    assert EnvSpec(reward="log_return") == EnvSpec()
    assert EnvSpec(reward="differential_sharpe").reward == RewardSpec(log_return=0, differential_sharpe=1)


def test_swapping_two_symbols_swaps_everything_that_an_account_does(market):
    """The environment treats symbols alike: swapped columns and swapped actions give swapped positions and the same money."""
    arrays, rows = market
    prices, contract_terms = arrays.prices[:, :, [1, 0, 2]].copy(), arrays.contract_terms[:, [1, 0, 2]].copy()
    prices.setflags(write=False)
    contract_terms.setflags(write=False)
    swapped = replace(arrays, prices=prices, contract_terms=contract_terms)
    plain, other = vector((arrays, rows)), vector((swapped, rows))
    plain.reset()
    other.reset()
    for _ in range(40):
        actions = np.random.default_rng(5).integers(0, 3, (8, 3))
        plain.step(actions)
        other.step(actions[:, [1, 0, 2]])
    np.testing.assert_allclose(other.accounts.units[:, [1, 0, 2]], plain.accounts.units, rtol=1e-12)
    np.testing.assert_allclose(other.accounts.equity, plain.accounts.equity, rtol=1e-12)
