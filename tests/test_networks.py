"""The shared network: no weight belongs to a symbol, any number of symbols is decided on, and each is paid with what it earned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from markets import TINY, random_panel
from pydantic import ValidationError

from ploutos.envs.ledger import Accounts, make_market_arrays
from ploutos.envs.observation import market_rows, observation_size, observe
from ploutos.envs.spec import CostSpec, EnvSpec, RewardSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError, TrainingError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.features.build import FeatureSpec, build_features
from ploutos.strategies.ensemble import VOTE, EnsembleStrategy
from ploutos.strategies.inference import PolicyInference, RecurrentState, predict
from ploutos.training.checkpoint import load_policy, warm_start
from ploutos.training.fast.agents import FastPPO
from ploutos.training.fast.fused import FusedNetwork, Observations
from ploutos.training.networks import SharedPolicy, SymbolColumns
from ploutos.training.ppo import build_model, fit_range_scaler, train_member
from ploutos.training.spec import CheckpointSpec, StoppingSpec, TrainingPaths, TrainingSpec
from ploutos.walk_forward import Range

ALL_RULES = EnvSpec(
    episode_bars=40, allow_short=True, stop_loss=0.03, margin_calls=True, gross_limit=2.0,
    costs=CostSpec(borrow_per_year=0.5, impact=0.1, slippage_per_volatility=0.1),
    reward=RewardSpec(differential_sharpe=0.1, drawdown=1.0, turnover=0.01),
)  # fmt: skip


def permuted(columns, observations, order):
    """The same observations with their symbols in another order."""
    n_market = columns.n_symbols(observations.shape[1]) * columns.n_market
    market = columns.by_symbol(observations[:, :n_market])[:, order]
    own, account = columns.own_by_symbol(observations[:, n_market:])
    own = own[:, order]
    return torch.cat([market[..., :-1].flatten(1), market[..., -1], own[..., 0], own[..., 1], account, own[..., 2:].flatten(1)], dim=1)


def fresh(network=SharedPolicy, account=False, actions="discrete", n_symbols=4):
    bars = random_panel(3, 260, n_symbols)
    rows = np.random.default_rng(1).normal(size=(260, n_symbols * 6)).astype(np.float32)
    rows[:, -n_symbols:] = bars.tradable
    env = MarketVecEnv(make_market_arrays(bars), rows, EnvSpec(observe_account=account), 200, 250, 8, 0, actions)
    model = FastPPO(network, env, n_steps=8, batch_size=64, policy_kwargs={"net_arch": [24, 16], "account": account}, seed=1, device="cpu")
    with torch.no_grad():
        model.policy.action_net.weight *= 100  # far from even odds
    return model


@pytest.mark.parametrize("account", [False, True])
def test_permuting_the_symbols_permutes_what_is_decided(account):
    policy = fresh(account=account).policy
    observations = torch.randn(50, policy.observation_space.shape[0])
    assert policy.columns == SymbolColumns(5, account)
    order = torch.tensor([2, 0, 3, 1])
    columns = policy.columns.split(observations)
    for mine, theirs in zip(policy.columns.split(permuted(policy.columns, observations, order))[:2], columns[:2], strict=True):
        assert torch.equal(mine, theirs[:, order])
    with torch.no_grad():
        plain, other = (policy.mlp_extractor(seen) for seen in (observations, permuted(policy.columns, observations, order)))
        logits = policy.action_net(plain[0]).view(50, 4, 3)
        torch.testing.assert_close(policy.action_net(other[0]).view(50, 4, 3), logits[:, order], rtol=1e-5, atol=1e-6)
        assert logits.std(1).min() > 0.01  # symbols differ
        for latent, moved in zip(plain, other, strict=True):
            torch.testing.assert_close(moved, latent[:, order], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(policy.value_net(other[1]), policy.value_net(plain[1]), rtol=1e-5, atol=1e-6)


def test_two_symbols_change_places_to_the_last_bit():
    """Their mean and their highest are the same in either order; of more symbols a sum rounds as it is ordered."""
    policy = fresh(n_symbols=2).policy
    columns, observations = policy.columns, torch.randn(50, policy.observation_space.shape[0])

    def answers(seen):
        market = columns.by_symbol(seen[:, : 2 * columns.n_market]).clone()
        usable = (market[..., -1] > 0).float()
        market[..., -1] = usable
        own = columns.own_by_symbol(seen[:, 2 * columns.n_market :])
        arrays = (market.flatten(0, 1), usable, torch.arange(50), *own)
        observed = Observations(*(each.contiguous().numpy() for each in arrays))
        return [each.view(50, 2, -1) for each in FusedNetwork(policy).forward(observed, one_by_one=True)]

    for mine, theirs in zip(answers(observations), answers(permuted(columns, observations, torch.tensor([1, 0]))), strict=True):
        assert torch.equal(mine[:, [1, 0]], theirs)
        assert not torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"clip_range_vf": 0.1}, "no clip_range_vf"),
        ({"use_sde": True}, "no use_sde"),
        ({"policy_kwargs": {"activation_fn": torch.nn.ReLU}}, "no activation_fn"),
        ({"policy": SharedPolicy, "policy_kwargs": {"activation_fn": torch.nn.ReLU}}, "tanh layers"),
        ({"policy": SharedPolicy, "policy_kwargs": {"net_arch": {"pi": [8], "vf": [8]}}}, "the same for policy and value"),
    ],
)
def test_an_option_that_the_fast_loop_does_not_have_is_refused(options, found):
    env = fresh(actions="weights").env
    with pytest.raises(ConfigError, match=found):
        FastPPO(**{"policy": "MlpPolicy", "env": env, "n_steps": 8, "batch_size": 64, "device": "cpu", **options})


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, "encodes each symbol"),
        ({"network": "joint"}, "reads observations with a layer"),
        ({"network": "joint", "speed": {"fast_loop": False}}, ""),
        ({"network": "joint", "algorithm": "RecurrentPPO"}, ""),
    ],
)
def test_a_network_without_layers_is_refused_where_nothing_else_reads_observations(settings, refused):
    asked = {"net_arch": [], **settings}
    if not refused:
        assert TrainingSpec.model_validate(asked).net_arch == ()
        return
    with pytest.raises(ValidationError, match=f"net_arch is empty; .* {refused}"):
        TrainingSpec.model_validate(asked)


def test_a_symbol_that_is_not_usable_says_nothing_of_the_others():
    policy = fresh().policy
    columns, usable, account = policy.columns.split(torch.randn(20, policy.observation_space.shape[0]))
    usable = torch.ones_like(usable)
    with torch.no_grad():
        network = policy.mlp_extractor
        encoded = network.encoder(columns)
        three = network.joined(network.policy_join, encoded[:, :3], usable[:, :3], account)
        usable[:, 3] = 0
        torch.testing.assert_close(network.joined(network.policy_join, encoded, usable, account)[:, :3], three)
        usable[:, 3] = 1
        assert (network.joined(network.policy_join, encoded, usable, account)[:, :3] - three).abs().max() > 1e-3  # the context counts


@pytest.mark.parametrize("actions", ["discrete", "weights"])
@pytest.mark.parametrize("spec", [EnvSpec(episode_bars=40), ALL_RULES, ALL_RULES.model_copy(update={"reward": RewardSpec()})])
def test_rewards_by_symbol_add_up_to_the_reward_and_splitting_changes_nothing(actions, spec):
    bars, rows = random_panel(3, 300), np.zeros((300, 6), np.float32)
    split, plain = (MarketVecEnv(make_market_arrays(bars), rows, spec, 150, 290, 8, 0, actions, credit) for credit in (True, False))
    assert plain.credits.shape == (0, 3)
    random = np.random.default_rng(0)
    split.reset(), plain.reset()
    earned = []
    for _ in range(200):
        chosen = random.integers(0, 3, (8, 3)) if actions == "discrete" else random.uniform(-1 if spec.allow_short else 0, 1, (8, 3))
        (seen, rewards, *_), (expected, paid, *_) = split.step(chosen), plain.step(chosen)
        np.testing.assert_array_equal(rewards, paid)
        np.testing.assert_array_equal(seen, expected)
        np.testing.assert_allclose(split.credits.sum(1), rewards, rtol=1e-5, atol=1e-5)
        earned.append(split.credits.copy())
    assert (np.concatenate(earned).std(0) > 0.1).all()


def test_a_symbols_reward_is_its_own_profit_over_equity_as_far_as_logs_allow():
    bars, rows = random_panel(4, 300, 2), np.zeros((300, 4), np.float32)
    env = MarketVecEnv(
        make_market_arrays(bars),
        rows,
        EnvSpec(rebalance_band=0, costs=CostSpec(commission_bps=0, slippage_bps=0)),
        200,
        290,
        1,
        0,
        credit=True,
    )
    env.reset()
    env.step(np.array([[1, 1]]))
    for _ in range(20):
        before, bar, units = env.accounts.equity[0], env.bar[0], env.accounts.units[0].copy()
        _, rewards, done, _ = env.step(np.array([[0, 0]]))
        profit = units * (env.arrays.mark[bar + 1] - env.arrays.mark[bar]) / before
        expected = profit * (float(rewards[0]) / profit.sum())  # of the reward, its share of the profit
        np.testing.assert_allclose(env.credits[0], expected, rtol=1e-4)
        np.testing.assert_allclose(env.credits[0], 100 * profit, rtol=0.05, atol=0.01)
        if done[0]:
            break


@pytest.mark.parametrize("actions", ["discrete", "weights"])
def test_for_one_symbol_credit_by_symbol_is_the_portfolios(actions):
    single, weights = random_panel(5, 700, 1), []
    one = build_features(single, FeatureSpec())
    for credit in ("symbol", "portfolio"):
        spec = TINY.model_copy(update={"credit": credit, "actions": actions})
        rows = market_rows(one, single.tradable, fit_range_scaler(one, Range(start=110, stop=400)))
        env = MarketVecEnv(make_market_arrays(single), rows, EnvSpec(episode_bars=60), 110, 399, 4, 1, actions, spec.credits_symbols)
        assert env.credits.size == (4 if credit == "symbol" else 0)
        model = build_model(env, spec, 3, "cpu")
        model.learn(256)
        weights.append(torch.nn.utils.parameters_to_vector(model.policy.parameters()))
    torch.testing.assert_close(*weights, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("algorithm", "actions"), [("PPO", "discrete"), ("PPO", "weights"), ("MaskablePPO", "discrete"), ("RecurrentPPO", "discrete")]
)
def test_a_policy_decides_on_symbols_that_it_was_not_trained_on(tmp_path, panel, panel_features, panel_fold, algorithm, actions):
    """Five symbols after three; the segment's table of the first layer gives what the whole network does."""
    spec = TINY.model_copy(update={"algorithm": algorithm, "actions": actions, "lstm_size": 16})
    train_member(
        panel,
        panel_features,
        panel_fold,
        EnvSpec(episode_bars=60),
        spec,
        CheckpointSpec(),
        7,
        TrainingPaths(tmp_path / "w"),
        tmp_path / "p.zip",
    )
    policy, env = load_policy(tmp_path / "p.zip"), EnvSpec()
    with torch.no_grad():
        policy.model.policy.action_net.bias += torch.tensor(0.05 if actions == "weights" else [0.0, 0.1, 0.0])  # something is held
    bars = random_panel(9, 700, 5)
    features = build_features(bars, FeatureSpec())
    result = run_backtests(
        bars, features, [Segment(panel_fold.test, (policy,))], [EnsembleStrategy({VOTE: slice(0, 1)}, bars=bars, env=env)], env
    )
    assert len(np.unique(result.equity)) > 50
    arrays, accounts, bar = make_market_arrays(bars), Accounts.open(6, 5, env.cash), np.full(6, 505)
    accounts.cash[:] *= np.linspace(0.5, 1, 6)
    rows = market_rows(features, bars.tradable, policy.scaler)
    seen = np.empty((6, observation_size(rows.shape[1], 5)), dtype=np.float32)
    observe(accounts, bar, rows, arrays, seen)
    asked = PolicyInference((policy,), bars, features, panel_fold.test, arrays, env).predict(accounts, bar)[0]
    assert asked.shape == (6, 5, 2 if actions == "weights" else 3)
    if algorithm != "MaskablePPO":
        np.testing.assert_allclose(predict(policy, seen, state=RecurrentState()), asked, atol=1e-6)


def test_a_shared_network_does_not_start_from_a_joint_one(panel, panel_features, panel_fold, panel_policies, tmp_path):
    spec = TINY.model_copy(update={"network": "joint"})
    env = MarketVecEnv(
        make_market_arrays(panel), market_rows(panel_features, panel.tradable, panel_policies[0].scaler), EnvSpec(), 110, 399, 4, 1
    )
    with pytest.raises(TrainingError, match="a shared network cannot start from a joint one"):
        warm_start(build_model(env, spec, 3, "cpu"), panel.symbols, panel_features.names, False, panel_policies[0])


def stopped(tmp_path, panel, features, fold, name="a", **changes):
    stopping = StoppingSpec(**{"every_rollouts": 2, "patience": 3} | changes)
    spec = TINY.model_copy(update={"total_timesteps": 128 * 40, "stopping": stopping, "learning_rate": 3e-2})
    target = tmp_path / f"{name}.zip"
    meta = train_member(panel, features, fold, EnvSpec(episode_bars=60), spec, CheckpointSpec(), 7, TrainingPaths(tmp_path / name), target)
    return load_policy(target), meta


def test_training_ends_when_it_gets_no_better_and_keeps_the_best(tmp_path, panel, panel_features, panel_fold):
    policy, meta = stopped(tmp_path, panel, panel_features, panel_fold)
    chosen = meta.stopping
    steps, scores = zip(*chosen.scores, strict=True)
    best = int(np.argmax(scores))
    assert chosen.chosen_timesteps == steps[best]
    assert chosen.looks == len(scores) == best + 1 + 3
    assert steps == tuple(range(256, 256 * len(steps) + 1, 256))
    assert meta.timesteps == steps[-1] == policy.model.num_timesteps < 128 * 40
    assert [record["timesteps"] for record in meta.curve] == list(range(128, steps[-1] + 1, 128))
    assert [record["validation/log_growth_per_bar"] for record in meta.curve[1::2]] == list(scores)
    assert chosen.validation == Range(start=348, stop=400)  # a fifth of 110..400, behind the gap of 6


def test_the_kept_policy_is_that_of_its_step_and_its_score_that_of_a_backtest(tmp_path, panel, panel_features, panel_fold):
    policy, meta = stopped(tmp_path, panel, panel_features, panel_fold)
    chosen = meta.stopping
    env = EnvSpec(episode_bars=60)
    strategy = EnsembleStrategy({VOTE: slice(0, 1)}, bars=panel, env=env)
    [equity] = run_backtests(panel, panel_features, [Segment(chosen.validation, (policy,))], [strategy], env).equity
    assert np.log(equity[-1] / equity[0]) / 52 == pytest.approx(chosen.chosen_score, abs=1e-9)


def test_what_is_held_out_moves_no_weight_and_no_scaler(tmp_path, panel, panel_features, panel_fold):
    values = panel_features.values.copy()
    values[348:] += 3
    one, other = (
        stopped(tmp_path, panel, features, panel_fold, name, every_rollouts=100)[0]
        for name, features in (("a", panel_features), ("b", replace(panel_features, values=values)))
    )
    np.testing.assert_array_equal(one.scaler.mean, other.scaler.mean)
    for mine, theirs in zip(one.model.policy.parameters(), other.model.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)
