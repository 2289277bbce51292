"""What a worker process is asked to do, in values that travel: paths in, a policy file out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ploutos.envs.spec import EnvSpec
from ploutos.features.build import read_features
from ploutos.market.bars import read_bars
from ploutos.training.folds import Fold
from ploutos.training.ppo import CheckpointSpec, TrainingSpec, Workplace, train_member


@dataclass(frozen=True)
class MemberJob:
    """One member to train. The parent process has verified both artifacts."""

    bars: Path
    features: Path
    fold: Fold
    env: EnvSpec
    training: TrainingSpec
    checkpoint: CheckpointSpec
    seed: int
    place: Workplace
    target: Path


def run_job(job: MemberJob) -> None:
    """Train the member; called in a worker."""
    bars, features = read_bars(job.bars), read_features(job.features)
    train_member(bars, features, job.fold, job.env, job.training, job.checkpoint, job.seed, job.place, job.target)


def read_progress(place: Workplace) -> dict[str, Any] | None:
    """How far a training is; None before its first rollout is done."""
    try:
        return dict(json.loads(place.progress_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
