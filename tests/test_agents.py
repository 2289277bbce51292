"""Our own training loop: the same losses and gradients as stable-baselines3's but for rounding, and the same learning."""

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_panel
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from torch import nn

from ploutos.envs.ledger import make_market_arrays
from ploutos.envs.spec import CostSpec, EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError
from ploutos.market.bars import align
from ploutos.training.callbacks import BatchedCallback
from ploutos.training.fast import elementwise, fused, layers, precision
from ploutos.training.fast.agents import FastMaskablePPO, FastPPO, FastRecurrentPPO
from ploutos.training.fast.optimizer import ClippedStep
from ploutos.training.networks import SharedMaskablePolicy, SharedPolicy, SharedRecurrentPolicy
from ploutos.training.ppo import build_model
from ploutos.training.spec import SpeedSpec, TrainingSpec

N_ENVS, N_STEPS = 8, 32
OURS = {PPO: FastPPO, MaskablePPO: FastMaskablePPO, RecurrentPPO: FastRecurrentPPO}


SHARED = {PPO: SharedPolicy, MaskablePPO: SharedMaskablePolicy, RecurrentPPO: SharedRecurrentPolicy}
ALL_KINDS = [(PPO, "discrete"), (PPO, "weights"), (MaskablePPO, "discrete"), (RecurrentPPO, "discrete"), (RecurrentPPO, "weights")]
KINDS = pytest.mark.parametrize(
    ("algorithm", "actions", "network"),
    [(*kind, network) for kind in ALL_KINDS for network in ("joint", "shared")],
)


def make_env(seed=0, n_bars=60, actions="discrete", credit=False, **settings):
    """A short slice, so that accounts share bars, with halts and episodes that end within a rollout."""
    bars = random_panel(3, n_bars + 200)
    rows = np.random.default_rng(1).normal(size=(bars.n_bars, 60)).astype(np.float32)
    rows[:, -3:] = bars.tradable
    spec = EnvSpec(episode_bars=20, **settings)
    return MarketVecEnv(make_market_arrays(bars), rows, spec, 190, 190 + n_bars, N_ENVS, seed, actions, credit)


def make(algorithm, actions="discrete", n_bars=60, network="joint", credit=False, account=False, net_arch=(24, 16), **kwargs):
    recurrent = algorithm.__name__.endswith("RecurrentPPO")
    plain = next(plain for plain in OURS if issubclass(algorithm, plain))
    policy = SHARED[plain] if network == "shared" else "MlpLstmPolicy" if recurrent else "MlpPolicy"
    sizes = {"net_arch": list(net_arch)} | ({"lstm_hidden_size": 20} if recurrent else {})
    sizes |= {"account": account} if network == "shared" else {}
    env = make_env(n_bars=n_bars, actions=actions, credit=credit, observe_account=account)
    options = {"n_steps": N_STEPS, "batch_size": 128, "n_epochs": 2, "seed": 3, "ent_coef": 0.01, "device": "cpu"}
    return algorithm(policy, env, policy_kwargs=sizes, **options, **kwargs)


def filled(algorithm, **kwargs):
    """A fast model with one rollout, and the observations of that rollout."""
    model, observed = make(OURS[algorithm], **kwargs), []
    _, callback = model._setup_learn(10**6, None)
    keep_own = model._keep_own
    model._keep_own = lambda t, own: (observed.append(torch.from_numpy(model._last_obs.copy())), keep_own(t, own))
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, N_STEPS)
    return model, model._rollout, torch.stack(observed)


def stock_evaluation(model, rollout, observations):
    """Value, log-probability and entropy by the policy's own method, each of shape (n_steps, n_envs)."""
    by_account = observations.transpose(0, 1).reshape(-1, observations.shape[-1])
    actions = rollout.actions.transpose(0, 1).reshape(by_account.shape[0], -1)
    if isinstance(model, MaskablePPO):
        masks = rollout.masks.transpose(0, 1).reshape(len(by_account), -1)
        result = model.policy.evaluate_actions(by_account, actions, action_masks=masks)
    elif isinstance(model, RecurrentPPO):
        held = [tuple(part.reshape(1, N_ENVS, -1) for part in pair) for pair in model._states_at_start]
        states = RNNStates(held[0], held[-1])
        result = model.policy.evaluate_actions(by_account, actions, states, torch.from_numpy(rollout.starts.T.copy()).flatten())
    else:
        result = model.policy.evaluate_actions(by_account, actions)
    return [part.flatten().view(N_ENVS, N_STEPS).T for part in result]


def our_evaluation(model, rollout):
    model._fused = None  # layer by layer
    batch = model._batch(torch.arange(N_STEPS * N_ENVS), torch.arange(N_ENVS))
    latent = model._latent(batch)
    log_prob, entropy = model._evaluate_actions(latent.actor, rollout.flat(rollout.masks), rollout.flat(rollout.actions))
    return batch.observations, [part.view(N_STEPS, N_ENVS, -1) for part in (model._values(latent.critic), log_prob, entropy)]


@KINDS
@pytest.mark.parametrize("share_rows", [True, False])
@pytest.mark.parametrize("credit", [False, True])
def test_values_probabilities_entropies_and_gradients_are_the_policys_own(algorithm, actions, network, share_rows, credit, monkeypatch):
    """With credit by symbol, the symbols' log-probabilities and entropies add up to the policy's own, and its value is their mean."""
    if credit and network == "joint":
        pytest.skip("a joint network has one value")
    monkeypatch.setattr(layers, "_ADDING_UP", 10)  # a symbol has few columns here
    kind = {"network": network, "credit": credit, "account": network == "shared"}
    model, rollout, observations = filled(algorithm, actions=actions, share_rows=share_rows, **kind)
    assert rollout.starts[1:].any()  # episodes end within the rollout
    if algorithm is MaskablePPO:
        assert not rollout.masks.all()
    seen, ours = our_evaluation(model, rollout)
    assert (seen.rows is not None) == share_rows
    assert ours[0].shape[2] == (3 if credit else 1)
    ours = [ours[0].mean(2), ours[1].sum(2), ours[2].sum(2)]
    theirs = stock_evaluation(model, rollout, observations)
    for mine, stock in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, stock, rtol=2e-5, atol=2e-6)
    weights = torch.randn(3, N_STEPS, N_ENVS, generator=torch.Generator().manual_seed(0))
    gradients = []
    for parts in (ours, theirs):
        model.policy.zero_grad()
        sum((w * part).sum() for w, part in zip(weights, parts, strict=True)).backward()
        gradients.append({name: p.grad.clone() for name, p in model.policy.named_parameters()})
    for name, stock in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], stock, rtol=2e-4, atol=2e-4 * float(stock.abs().max()), msg=name)
    torch.testing.assert_close(rollout.log_probs.sum(2), theirs[1], rtol=2e-5, atol=2e-6)  # and so are those of the rollout
    torch.testing.assert_close(rollout.values_there.mean(2), theirs[0], rtol=2e-5, atol=2e-5)


@KINDS
def test_the_path_of_a_gpu_gives_the_same_exercised_on_a_cpu(algorithm, actions, network, monkeypatch):
    model, rollout, _ = filled(algorithm, actions=actions, network=network, credit=network == "shared")
    _, compiled = our_evaluation(model, rollout)
    monkeypatch.setattr(layers, "_compiled", lambda _: False)
    monkeypatch.setattr(model._shared_rows, "share", False)
    seen, plain = our_evaluation(model, rollout)
    assert seen.whole is not None
    gradients = []
    for parts in (compiled, plain):
        model.policy.zero_grad()
        sum((k * part).sum() for k, part in enumerate(parts, 1)).backward()
        gradients.append(torch.nn.utils.parameters_to_vector(p.grad for p in model.policy.parameters()))
    for one, other in zip(compiled, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(*gradients, rtol=2e-4, atol=2e-4 * float(gradients[0].abs().max()))
    model.learn(N_ENVS * N_STEPS)
    drawn, log_prob = layers.sample_actions(torch.zeros(4000, 9), 3, None)
    assert abs(float((drawn == 2).float().mean()) - 1 / 3) < 0.02
    torch.testing.assert_close(log_prob, torch.full((4000,), 3 * float(np.log(1 / 3))))


@pytest.mark.parametrize(("algorithm", "actions"), [(PPO, "discrete"), (PPO, "weights"), (MaskablePPO, "discrete")])
@pytest.mark.parametrize("credit", [False, True])
@pytest.mark.parametrize("taught", [0.0, 0.3])
@pytest.mark.parametrize("net_arch", [[24, 16], [9], [8, 8, 8]])
def test_one_function_leaves_the_gradients_of_all_layers(algorithm, actions, credit, taught, net_arch):
    """Of a minibatch that is more than one block, with symbols that cannot be traded, after weights have moved beyond the clip."""
    model, rollout, _ = filled(algorithm, actions=actions, network="shared", credit=credit, account=credit, net_arch=net_arch)
    torch.manual_seed(0)
    n_bars = len(model._usable)
    model._usable[torch.rand(model._usable.shape) < 0.2] = 0
    if taught:
        model._taught, model._teacher_weight = torch.randn(n_bars, 3, 3).log_softmax(2), taught
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    one_function, at, found = model._fused, torch.randperm(N_ENVS * N_STEPS)[:100], []
    for each in (None, one_function):
        model._fused, seen = each, {}
        model.policy.zero_grad()
        approx_kl = model._set_gradients(model._batch(at), 0.2, seen)
        assert 0.05 < float(seen["clip_fraction"][0]) < 0.95
        gradients = {name: p.grad.clone() for name, p in model.policy.named_parameters()}
        found.append(({name: float(value[0]) for name, value in seen.items()} | {"returned": approx_kl}, gradients))
    (theirs, expected), (ours, gradients) = found
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6 * largest, msg=name)
    rows = rollout.flat(rollout.bars)[at], rollout.flat(rollout.own)[at], rollout.flat(rollout.account)[at]
    logits, values = one_function.forward(model._observations(*rows))
    model._fused = None
    latent = model._latent(model._batch(at))
    torch.testing.assert_close(model._by_unit(logits), model._logits(latent.actor), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model._valued(values), model._values(latent.critic), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("algorithm", "actions"), [(PPO, "discrete"), (PPO, "weights"), (MaskablePPO, "discrete")])
def test_one_set_of_types_is_compiled_whatever_is_trained(algorithm, actions):
    """What `make` compiles ahead; numba mixes up several sets of one function that processes keep at the same time."""
    fused.compile_ahead()
    model, _, _ = filled(algorithm, actions=actions, network="shared", credit=True)
    model.train()
    assert len(fused._forward_all.signatures) == len(fused._gradients.signatures) == 1


@pytest.mark.parametrize("actions", ["discrete", "weights"])
def test_imitating_by_one_function_comes_as_near_to_the_teacher(actions):
    ends = []
    for layerwise in (False, True):
        model, _, _ = filled(PPO, actions=actions, network="shared", credit=True)
        model._fused = None if layerwise else model._fused
        odds = torch.randn(len(model._usable), 3, 3, generator=torch.Generator().manual_seed(1)).log_softmax(2)
        model._taught, model.imitates = odds, True
        np.random.seed(5)
        model.train()
        ends.append(torch.nn.utils.parameters_to_vector(model.policy.parameters()))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-4)  # Adam's steps are 1e-3 each


@pytest.mark.parametrize(("algorithm", "network"), [(PPO, "joint"), (RecurrentPPO, "joint"), (PPO, "shared"), (RecurrentPPO, "shared")])
def test_a_longer_training_on_another_slice_has_no_product_of_a_new_shape(algorithm, network, monkeypatch):
    met, multiply = set(), layers._product

    def product(a, b, half):
        met.add((a.shape, b.shape))
        return multiply(a, b, half)

    monkeypatch.setattr(layers, "_product", product)
    make(OURS[algorithm], network=network).learn(N_ENVS * N_STEPS)
    first = set(met)
    make(OURS[algorithm], n_bars=55, network=network).learn(6 * N_ENVS * N_STEPS)
    assert first
    assert met == first  # each new one costs oneDNN a compilation, whose code it keeps


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "actions"), [("PPO", "discrete"), ("PPO", "weights"), ("RecurrentPPO", "discrete")])
def test_learning_curves_are_stock_ones_within_the_noise_of_seeds(algorithm, actions):
    """Bars whose next sign is an observation: the mean curve over some seeds differs by less than its error allows."""
    curves, seeds = {}, 6 if algorithm == "PPO" else 4
    for fast in (True, False):
        spec = TrainingSpec(
            algorithm=algorithm, actions=actions, n_envs=16, n_steps=32, batch_size=128, net_arch=(16,), lstm_size=8, gamma=0.5,
            learning_rate=3e-3,
            n_epochs=4 if algorithm == "PPO" else 2, speed=SpeedSpec(fast_loop=fast), weight_decay=0.0 if actions == "weights" else 10.0,
        )  # fmt: skip
        curves[fast] = np.array([learning_curve(spec, seed) for seed in range(seeds)])
    error = np.sqrt((curves[True].var(axis=0, ddof=1) + curves[False].var(axis=0, ddof=1)) / seeds)
    difference = np.abs(curves[True].mean(axis=0) - curves[False].mean(axis=0))
    gained = curves[False][:, -1].mean() - curves[False][:, 0].mean()
    assert gained > 0.3  # there is something to learn, and stock learns it
    assert (difference < 4 * error + 0.05 * gained).all()


def learning_curve(spec, seed):
    """Mean reward per step in five parts of a short training."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], 500)
    close = 100 * np.exp(np.cumsum(0.01 * signs))
    open_ = np.r_[100.0, close[:-1]]
    columns = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close, "volume": 1.0}
    frame = pd.DataFrame({"symbol": "T", "timestamp": pd.date_range("2000-01-01", periods=500, tz="UTC"), **columns})
    arrays = make_market_arrays(align(frame, pd.Timedelta(days=1), "24/7", "signs"))
    rows = np.r_[signs[1:], 0.0].astype(np.float32)[:, None]
    env = MarketVecEnv(
        arrays, rows, EnvSpec(allow_short=True, episode_bars=40, costs=CostSpec(slippage_bps=1)), 0, 498, spec.n_envs, seed, spec.actions
    )
    log = BatchedCallback(every_rollouts=4)
    build_model(env, spec, seed, "cpu").learn(20 * spec.n_envs * spec.n_steps, callback=log)
    return [record["episode/reward"] / record["episode/length"] for record in log.records]


@pytest.mark.parametrize("network", ["joint", "shared"])
@pytest.mark.parametrize(("algorithm", "actions"), [(PPO, "discrete"), (PPO, "weights"), (MaskablePPO, "discrete")])
def test_an_update_of_the_same_rollout_gives_stock_losses_and_weights_but_for_rounding(algorithm, actions, network):
    """Stock train() on the same samples, in the same minibatches."""
    model, rollout, observations = filled(algorithm, actions=actions, network=network)
    stock = make(algorithm, actions, network=network)
    stock.policy.load_state_dict(model.policy.state_dict())
    stock._setup_learn(10**6, None)
    buffer: RolloutBuffer = stock.rollout_buffer
    buffer.reset()
    for t in range(N_STEPS):
        masks = {"action_masks": rollout.masks[t].numpy()} if algorithm is MaskablePPO else {}
        buffer.add(
            observations[t].numpy(), rollout.actions[t].numpy(), rollout.rewards[t, :, 0], rollout.starts[t],
            rollout.values_there[t], rollout.log_probs[t, :, 0], **masks,
        )  # fmt: skip
    with torch.no_grad():
        last = stock.policy.predict_values(torch.from_numpy(model._last_obs))
    buffer.compute_returns_and_advantage(last, model._last_episode_starts)
    np.testing.assert_allclose(buffer.advantages, rollout.advantages[..., 0].numpy(), rtol=1e-4, atol=1e-4)
    for one in (model, stock):
        np.random.seed(5)
        one.train()
    logged = stock.logger.name_to_value
    for name in ("entropy_loss", "policy_gradient_loss", "value_loss", "clip_fraction", "approx_kl", "loss", "explained_variance"):
        assert model.logger.name_to_value[f"train/{name}"] == pytest.approx(logged[f"train/{name}"], rel=2e-3, abs=2e-5), name
    for (name, mine), theirs in zip(model.policy.named_parameters(), stock.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=5e-5, msg=name)  # Adam's steps are 3e-4 each


def test_truncated_episodes_are_bootstrapped_with_the_terminal_observation():
    model = make(FastRecurrentPPO)
    _, callback = model._setup_learn(10**6, None)
    paid, values = [], []
    step, value_of = model.env.step, model._value_of

    def stepping(actions):
        answer = step(actions)
        paid.append(answer[1].copy())
        return answer

    def valuing(observations, accounts, started):
        answer = value_of(observations, accounts, started)
        values.append((len(paid) - 1, accounts, answer.numpy().copy()))
        return answer

    model.env.step, model._value_of = stepping, valuing
    model.collect_rollouts(model.env, callback, None, N_STEPS)
    expected = np.array(paid)
    assert len(values) > 1
    for t, accounts, answer in values[:-1]:
        expected[t, accounts] += np.float32(model.gamma) * answer[:, 0]
    np.testing.assert_allclose(model._rollout.rewards[..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, RecurrentPPO])
def test_half_precision_stays_near_and_equal_seeds_give_equal_weights(algorithm):
    full, rollout, _ = filled(algorithm)
    _, exact = our_evaluation(full, rollout)
    full._half = full._shared_rows.half = True
    full._shared_rows._factors = full._shared_rows.rows.bfloat16()
    _, rough = our_evaluation(full, rollout)
    assert all(torch.allclose(a, b, atol=0.05) for a, b in zip(exact, rough, strict=True))
    assert not torch.equal(exact[0], rough[0])
    ends = []
    for _ in range(2):
        model = make(OURS[algorithm], half=True)
        model.learn(2 * N_ENVS * N_STEPS)
        ends.append(torch.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert torch.equal(*ends)


def test_the_environment_gets_weights_within_its_limits_and_the_update_what_was_drawn():
    model, sent = make(FastPPO, "weights"), []
    step = model.env.step
    model.env.step = lambda weights: sent.append(weights) or step(weights)
    _, callback = model._setup_learn(10**6, None)
    model.collect_rollouts(model.env, callback, None, N_STEPS)
    drawn = model._rollout.actions.numpy()
    assert (drawn < 0).any()
    assert (drawn > 1).any()
    np.testing.assert_array_equal(np.array(sent), drawn.clip(0, 1))


def test_masked_actions_are_never_drawn():
    _, rollout, _ = filled(MaskablePPO)
    masks = rollout.masks.view(N_STEPS, N_ENVS, -1, 3)
    assert masks.gather(-1, rollout.actions[..., None]).all()
    assert not masks.all()


def test_drawn_actions_follow_their_probabilities():
    torch.manual_seed(0)
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]])
    masks = torch.tensor([[True, True, True], [False, True, True]])
    drawn, log_prob = layers.sample_actions((probabilities.log() + 3).flatten().expand(20_000, 6), 3, masks.expand(20_000, 2, 3))
    share = torch.stack([(drawn == action).float().mean(0) for action in range(3)], dim=-1)
    expected = torch.tensor([[0.7, 0.2, 0.1], [0.0, 4 / 7, 3 / 7]])
    np.testing.assert_allclose(share, expected, atol=0.015)
    assert (drawn[:, 1] > 0).all()
    together = expected[0][drawn[:, 0]].log() + expected[1][drawn[:, 1]].log()
    torch.testing.assert_close(log_prob, together)


def test_drawn_weights_follow_their_distribution():
    torch.manual_seed(0)
    mean, log_std = torch.tensor([0.5, -2.0]), torch.tensor([-1.0, 0.3])
    drawn, log_prob = layers.sample_weights(mean.expand(50_000, 2), log_std)
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(0), log_std.exp(), rtol=0.02, atol=0)
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.02
    exact = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(log_prob, exact.log_prob(drawn).sum(-1))
    again, entropy = layers.evaluate_weights(mean.expand(50_000, 2), log_std, drawn)
    torch.testing.assert_close(again, log_prob)
    torch.testing.assert_close(entropy, exact.entropy().sum().expand(50_000))


def test_recurrent_batches_must_hold_whole_sequences():
    with pytest.raises(ConfigError, match="batch_size 100 is not a multiple of n_steps 32"):
        FastRecurrentPPO("MlpLstmPolicy", make_env(), n_steps=32, batch_size=100)


def test_compiled_tanh_is_float32_exact_and_passes_nan_on():
    x = np.concatenate([np.linspace(-90, 90, 100_001), np.geomspace(1e-30, 1, 10_001)]).astype(np.float32)
    y = x.copy()
    elementwise.tanh_(y)
    np.testing.assert_allclose(y, np.tanh(x.astype(np.float64)), rtol=3e-7)
    odd = np.array([np.nan, np.inf, -np.inf], dtype=np.float32)
    elementwise.tanh_(odd)
    np.testing.assert_array_equal(odd, [np.nan, 1, -1])


def test_fast_products_are_used_only_where_they_are_exact(monkeypatch):
    before = torch.get_float32_matmul_precision()
    assert precision.product_error("highest") < 1e-6
    for error, used in ((3e-7, "medium"), (2e-3, "highest")):
        monkeypatch.setattr(precision, "product_error", lambda *_, error=error: error)
        with precision.matmul_precision(True) as chosen:
            assert chosen == torch.get_float32_matmul_precision() == used
        assert torch.get_float32_matmul_precision() == before
    with precision.matmul_precision(False) as chosen:
        assert chosen == "highest"


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_a_clipped_step_has_the_bytes_of_torchs_own_functions(kind):
    torch.manual_seed(3)
    ours, theirs = (nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2), nn.Linear(2, 2)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    options = {} if kind is torch.optim.RMSprop else {"fused": True}
    optimizers = [kind(net.parameters(), lr=0.01, weight_decay=0.1, **options) for net in (ours, theirs)]
    step = ClippedStep(optimizers[0], 0.5)
    for turn in range(5):
        x = torch.randn(9, 5) * (0.01 if turn == 2 else 10.0)  # once too small to be clipped
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            net[:2](x).square().mean().backward()  # the last layer has no gradient
        step()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizers[1].step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())


def test_weight_decay_leaves_the_deviation_of_weights_alone():
    """Shrunk to a logarithm of 0 with every step, it would say how long a training was."""
    torch.manual_seed(3)
    layer, log_std = nn.Linear(2, 1), nn.Parameter(torch.full((1,), -1.0))
    optimizer = torch.optim.AdamW([*layer.parameters(), log_std], lr=0.01, weight_decay=10.0)
    step, before = ClippedStep(optimizer, 0.5, [log_std]), layer.weight.detach().clone()
    for _ in range(50):
        optimizer.zero_grad()
        (layer(torch.zeros(3, 2)).sum() * 0.0 + 0.0 * log_std.sum()).backward()
        step()
    assert float(log_std.detach()) == pytest.approx(-1.0, abs=1e-5)
    torch.testing.assert_close(layer.weight.detach(), before * 0.9**50, rtol=1e-4, atol=0)
