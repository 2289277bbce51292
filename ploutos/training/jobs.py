"""What a worker process is asked to do, in values that travel: paths in, a policy file out."""

import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ploutos.advisor.signals import read_signals
from ploutos.envs.spec import EnvSpec
from ploutos.features.build import read_features
from ploutos.fusion.hybrid import hybrid_features
from ploutos.market.bars import read_bars
from ploutos.training.ppo import CheckpointSpec, TrainingSpec, Workplace, train_member
from ploutos.walk_forward import Fold


@dataclass(frozen=True)
class Start:
    """What makes a member a hybrid one.

    Attributes:
        policy: the Phase 2 policy it starts from.
        market: the 28 market features, a .npy file.
        signals: the advice; None leaves it blank.
    """

    policy: Path
    market: Path
    signals: Path | None


@dataclass(frozen=True)
class MemberJob:
    """One member to train. The parent process has verified all artifacts. `hybrid` is None for a Phase 2 member."""

    bars: Path
    features: Path
    fold: Fold
    env: EnvSpec
    training: TrainingSpec
    checkpoint: CheckpointSpec
    seed: int
    place: Workplace
    target: Path
    hybrid: Start | None = None


def run_job(job: MemberJob) -> None:
    """Train the member; called in a worker."""
    bars, features, start = read_bars(job.bars), read_features(job.features), job.hybrid
    if start is not None:
        signals = None if start.signals is None else read_signals(start.signals)
        features = hybrid_features(features, bars, np.load(start.market, allow_pickle=False), signals)
    warm = None if start is None else start.policy
    train_member(bars, features, job.fold, job.env, job.training, job.checkpoint, job.seed, job.place, job.target, warm)
    gc.collect()  # a model and its environment know each other


def read_progress(place: Workplace) -> dict[str, Any] | None:
    """How far a training is; None before its first rollout is done."""
    try:
        return dict(json.loads(place.progress_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
