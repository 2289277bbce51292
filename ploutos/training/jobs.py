"""What a worker process is asked to do, in values that travel: paths in, a policy file out."""

import gc
import json
from dataclasses import dataclass
from pathlib import Path

from ploutos.envs.spec import EnvSpec
from ploutos.features.build import FeatureSet, read_features
from ploutos.market.bars import Bars, read_bars
from ploutos.training.callbacks import MemberProgress
from ploutos.training.ppo import train_member
from ploutos.training.spec import CheckpointSpec, TrainingPaths, TrainingSpec
from ploutos.training.teacher import load_teacher
from ploutos.walk_forward import Fold


@dataclass(frozen=True)
class MemberJob:
    """One member to train. The parent process has verified all artifacts."""

    bars: Path
    features: Path
    fold: Fold
    env: EnvSpec
    training: TrainingSpec
    checkpoint: CheckpointSpec
    seed: int
    teacher: Path | None
    paths: TrainingPaths
    target: Path


def run_job(job: MemberJob) -> None:
    """Train the member; called in a worker."""
    train_job(job, read_bars(job.bars), read_features(job.features))


def train_job(job: MemberJob, bars: Bars, features: FeatureSet, warm_start: Path | None = None) -> None:
    """Train what a job asks for on features that are at hand."""
    teacher = None if job.teacher is None else load_teacher(job.teacher)
    train_member(bars, features, job.fold, job.env, job.training, job.checkpoint, job.seed, job.paths, job.target, warm_start, teacher)
    gc.collect()  # a model and its environment know each other


def read_progress(paths: TrainingPaths) -> MemberProgress | None:
    """Progress of a training run; None before its first rollout is done."""
    try:
        return MemberProgress(**json.loads(paths.progress_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
