"""The hybrid policy: what it sees, where it starts, and that being killed changes nothing."""

import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from markets import TINY, mock_advisor

from ploutos.advisor.advisor import advise
from ploutos.advisor.signals import write_signals
from ploutos.config import load_config
from ploutos.envs import kernel
from ploutos.envs.account_features import account_features
from ploutos.envs.ledger import make_market_arrays
from ploutos.envs.observation import market_rows, observation_names
from ploutos.envs.spec import EnvSpec
from ploutos.envs.vector import MarketVecEnv
from ploutos.errors import ConfigError, TrainingError
from ploutos.features.build import FeatureSpec, build_features, write_features
from ploutos.features.llm_features import MARKET_NAMES, market_features
from ploutos.features.scaling import fit_scaler
from ploutos.fusion.hybrid import advised_decisions, fine_tuning, hybrid_env, hybrid_features
from ploutos.fusion.jobs import HybridJob, run_hybrid_job
from ploutos.fusion.spec import HybridSpec
from ploutos.market.bars import write_bars
from ploutos.store import file_sha256
from ploutos.strategies.ensemble import vote
from ploutos.strategies.inference import RecurrentState, predict
from ploutos.training.checkpoint import Policy, load_policy, save_policy, warm_start
from ploutos.training.ppo import build_model, fit_range_scaler, learning_ranges, train_member
from ploutos.training.spec import CheckpointSpec, SpeedSpec, TrainingPaths


@pytest.fixture(scope="module")
def market(panel, panel_features):
    return make_market_arrays(panel), market_rows(panel_features, panel.tradable, fit_scaler(panel_features.values[110:400]))


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


@pytest.fixture(scope="module")
def market_features_of(panel):
    return market_features(panel)


@pytest.fixture(scope="module")
def signals(panel, market_features_of):
    return advise(panel, market_features_of, 109, panel.n_bars - 2, mock_advisor())


@pytest.fixture(scope="module")
def hybrid(panel, panel_features, market_features_of, signals):
    return hybrid_features(panel_features, panel, market_features_of, signals)


def test_the_hybrid_features_are_phase_2s_the_markets_28_and_the_advice(panel, panel_features, market_features_of, signals, hybrid):
    assert hybrid.names[: len(panel_features.names)] == panel_features.names
    assert hybrid.names[-30:-2] == tuple(f"llm.{name}" for name in MARKET_NAMES)
    np.testing.assert_array_equal(hybrid.values[..., -30:-2], market_features_of)
    asked = np.zeros((panel.n_bars, 3))
    for row in signals.frame.itertuples():
        s, signed = panel.symbols.index(row.symbol), {"buy": 1, "hold": 0, "sell": -1}[row.action] * row.confidence
        asked[row.bar, s] = 1
        for age in range(5):
            if not asked[row.bar + 1 : row.bar + age + 1, s].any() and row.bar + age < panel.n_bars:
                np.testing.assert_allclose(hybrid.values[row.bar + age, s, -2:], [signed, 1 - age / 5], rtol=1e-6)
    assert not hybrid.values[: signals.frame["bar"].min(), :, -2:].any()
    assert set(np.sign(hybrid.values[..., -2]).ravel()) == {-1, 0, 1}


def test_cutting_the_future_changes_no_hybrid_feature(panel, panel_features, hybrid):
    for t in (420, 555):
        past = panel.head(t)
        market = market_features(past)
        early = hybrid_features(build_features(past, FeatureSpec()), past, market, advise(past, market, 109, t - 1, mock_advisor()))
        np.testing.assert_array_equal(early.values, hybrid.values[:t])


def test_an_abstention_is_no_fresh_advice_and_blank_advice_is_zero(panel, panel_features, market_features_of, signals):
    silent = replace(signals, frame=signals.frame.assign(abstained=True, action="hold", confidence=0.0))
    for advice in (silent, None):
        values = hybrid_features(panel_features, panel, market_features_of, advice).values
        assert (values[..., -2:] == 0).all()


def test_what_the_advisors_features_do_not_know_yet_makes_no_symbol_unusable(panel, panel_features, panel_fold, hybrid):
    assert np.isnan(hybrid.values[..., hybrid.names.index("llm.rsi_60min")]).all()  # 840 bars are needed
    np.testing.assert_array_equal(hybrid.ready, panel_features.ready)
    wide, plain = fit_range_scaler(hybrid, panel_fold.train), fit_range_scaler(panel_features, panel_fold.train)
    n = len(panel_features.names)
    np.testing.assert_array_equal(wide.mean[:n], plain.mean)
    np.testing.assert_array_equal(wide.deviation[:n], plain.deviation)
    rows = market_rows(hybrid, panel.tradable, wide)
    columns = [observation_names(hybrid).index(f"{s}.llm.rsi_60min") for s in panel.symbols]
    assert (rows[:, columns] == 0).all()
    known = hybrid.values[slice(110, 400)][panel_features.ready[110:400], hybrid.names.index("llm.rsi_15min")].astype(float)
    assert wide.mean[hybrid.names.index("llm.rsi_15min")] == pytest.approx(np.nanmean(known))
    assert np.isnan(known).any()


def test_the_digest_of_advice_is_that_of_its_past(signals):
    base = signals.digest_before(400)
    late, early = signals.frame.copy(), signals.frame.copy()
    late.loc[late["bar"] >= 400, "action"] = "sell"
    early.loc[0, "confidence"] = 0.123
    assert replace(signals, frame=late).digest_before(400) == base
    assert replace(signals, frame=early).digest_before(400) != base
    assert replace(signals, cadence_bars=7).digest_before(400) != base


def test_a_longer_history_leaves_the_advice_of_a_training_range_as_it_was(panel, signals):
    """What keeps yesterday's hybrid policies cached."""
    shorter = panel.head(650)
    earlier = advise(shorter, market_features(shorter), 109, 648, mock_advisor())
    assert earlier.digest_before(400) == signals.digest_before(400)
    assert len(earlier.frame) < len(signals.frame)


def test_hybrid_policies_are_trained_with_the_mock_and_with_a_real_model_on_demand(panel_fold):
    assert load_config("demo").with_hybrid
    assert not load_config("demo", overrides=["llm.provider=ollama"]).with_hybrid
    assert load_config("demo", overrides=["llm.provider=ollama", "hybrid.enabled=true"]).with_hybrid
    assert not load_config("demo", overrides=["hybrid.enabled=false"]).with_hybrid
    assert [advised_decisions([panel_fold], *what)[0] for what in ((True, True), (False, True), (False, False))] == [109, 405, 505]
    with pytest.raises(ConfigError, match=r"hybrid.members is 4 and training.members 3; a hybrid policy starts from"):
        load_config("demo", overrides=["hybrid.members=4"])
    assert load_config("demo", overrides=["hybrid.members=4", "hybrid.enabled=false"]).hybrid.members == 4


def trained(folder, panel, features, fold, env, spec, seed, warm=None):
    target = folder / "policy.zip"
    train_member(panel, features, fold, env, spec, CheckpointSpec(enabled=False), seed, TrainingPaths(folder / "work"), target, warm)
    return target


@pytest.mark.parametrize("network", ["shared", "joint"])
@pytest.mark.parametrize("algorithm", ["PPO", "MaskablePPO", "RecurrentPPO"])
def test_before_its_first_update_a_hybrid_policy_decides_as_the_one_it_starts_from(
    tmp_path, panel, panel_features, panel_fold, hybrid, algorithm, network
):
    """On accounts that traded at random, by the plain network and by the fast loop with shared rows and without."""
    env = EnvSpec(episode_bars=60)
    changes = {"algorithm": algorithm, "network": network, "lstm_size": 16, "learning_rate": 0.1, "weight_decay": 0.0}  # far from even odds
    spec = TINY.model_copy(update=changes)
    policy = load_policy(trained(tmp_path, panel, panel_features, panel_fold, env, spec, 7))
    scaler = fit_range_scaler(hybrid, learning_ranges(panel_fold, spec)[0])
    narrow = vector((make_market_arrays(panel), market_rows(panel_features, panel.tradable, policy.scaler)))
    wide, training = (
        vector((make_market_arrays(panel), market_rows(hybrid, panel.tradable, scaler)), observe_account=True) for _ in range(2)
    )
    fresh = spec.model_copy(update={"n_envs": 16, "batch_size": 128})
    names, observed_before = observation_names(hybrid, account=True), observation_names(panel_features)
    models = [build_model(training, fresh.model_copy(update={"speed": SpeedSpec(share_rows=share)}), 3, "cpu") for share in (True, False)]
    for model in models:
        warm_start(model, hybrid.symbols, hybrid.names, True, policy)
        assert not model.policy.optimizer.state  # no moment of Adam's is inherited
    mine = Policy(models[0], scaler, policy.meta)
    seen, observed = narrow.reset(), wide.reset()
    random, memories = np.random.default_rng(0), (RecurrentState(), RecurrentState())
    for _ in range(40):
        masks = narrow.action_masks()
        expected, found = (predict(p, o, masks, memory) for p, o, memory in zip((policy, mine), (seen, observed), memories, strict=True))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_array_equal(vote(found[None])[0], vote(expected[None])[0])
        actions = random.integers(0, 3, (16, 3))
        seen, observed = narrow.step(actions)[0], wide.step(actions)[0]
    assert expected.max() > 0.5

    for model in models:
        _, callback = model._setup_learn(10**6, None)
        whole = model._last_obs.copy()
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
        rollout = model._rollout
        masks = rollout.masks[0].numpy() if algorithm == "MaskablePPO" else None
        probabilities = predict(policy, np.ascontiguousarray(whole[:, [names.index(name) for name in observed_before]]), masks)
        taken = np.take_along_axis(probabilities, rollout.actions[0].numpy()[..., None], axis=-1)
        np.testing.assert_allclose(rollout.log_probs[0].sum(1).numpy(), np.log(taken).sum(axis=(1, 2)), atol=2e-6)


def test_the_critic_is_inherited_too_and_new_inputs_are_learnt(tmp_path, panel, panel_features, panel_fold, hybrid):
    env = EnvSpec(episode_bars=60)
    first = trained(tmp_path, panel, panel_features, panel_fold, env, TINY, 7)
    policy = load_policy(first)
    (tmp_path / "hybrid").mkdir()
    spec = fine_tuning(TINY, HybridSpec(timesteps_share=0.5, learning_rate=1e-3))
    assert (spec.planned_timesteps, spec.learning_rate) == (128, 1e-3)
    tuned = load_policy(trained(tmp_path / "hybrid", panel, hybrid, panel_fold, hybrid_env(env), spec, 8, first))
    assert tuned.meta.timesteps == 128
    assert tuned.meta.warm_start == file_sha256(first)
    names = tuned.observes
    old = [names.index(name) for name in policy.observes]
    new = [i for i in range(len(names)) if i not in old]
    before, after = (each.model.policy.state_dict() for each in (policy, tuned))
    reader = "mlp_extractor.encoder.0.weight"
    assert 0 < (after[reader][:, old] - before[reader]).abs().max() < 0.1  # two minibatches away from where it started
    assert 0 < after[reader][:, new].abs().max() < 0.1
    for name in ("mlp_extractor.value_join.weight", "value_net.weight"):
        assert 0 < (after[name] - before[name]).abs().max() < 0.1


def test_a_policy_of_other_layers_or_other_inputs_is_no_start(tmp_path, panel, panel_features, panel_fold, panel_policies, hybrid):
    env = vector((make_market_arrays(panel), market_rows(hybrid, panel.tradable, fit_range_scaler(hybrid, panel_fold.train))))
    start, names = panel_policies[0], hybrid.names
    with pytest.raises(TrainingError, match="has other layers"):
        warm_start(build_model(env, TINY.model_copy(update={"net_arch": (17,)}), 3, "cpu"), hybrid.symbols, names, False, start)
    with pytest.raises(TrainingError, match="observed rsi_14; expected"):
        warm_start(build_model(env, TINY, 3, "cpu"), hybrid.symbols, [n for n in names if n != "rsi_14"], False, start)


_RUN = "import pickle, sys; from ploutos.fusion.jobs import run_hybrid_job; run_hybrid_job(pickle.load(open(sys.argv[1], 'rb')))"


@pytest.mark.slow
def test_a_fine_tuning_that_is_killed_ends_in_the_same_bytes(tmp_path, panel, panel_features, panel_fold, panel_policies, signals):
    write_bars(panel, tmp_path / "bars.parquet")
    write_features(panel_features, tmp_path / "features.parquet")
    write_signals(signals, tmp_path / "signals.parquet")
    np.save(tmp_path / "market.npy", market_features(panel))
    save_policy(panel_policies[0].model, panel_policies[0].meta, tmp_path / "start.zip")
    job = HybridJob(
        bars=tmp_path / "bars.parquet", features=tmp_path / "features.parquet", fold=panel_fold, env=hybrid_env(EnvSpec(episode_bars=60)),
        training=TINY.model_copy(update={"total_timesteps": 128 * 120}), checkpoint=CheckpointSpec(every_rollouts=3), seed=11,
        paths=TrainingPaths(tmp_path / "work"), target=tmp_path / "policy.zip",
        teacher=None, policy=tmp_path / "start.zip", market=tmp_path / "market.npy", signals=tmp_path / "signals.parquet",
    )  # fmt: skip
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    with subprocess.Popen([sys.executable, "-c", _RUN, str(tmp_path / "job")]) as child:
        while child.poll() is None and not any(job.paths.folder.glob("step_*.zip")):
            time.sleep(0.005)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert any(job.paths.folder.glob("step_*.zip"))
    run_hybrid_job(job)
    run_hybrid_job(replace(job, paths=TrainingPaths(tmp_path / "calm"), target=tmp_path / "calm.zip"))
    assert job.target.read_bytes() == (tmp_path / "calm.zip").read_bytes()
    tuned = load_policy(job.target)
    assert [record["timesteps"] for record in tuned.meta.curve] == list(range(128, 128 * 120 + 1, 128))
