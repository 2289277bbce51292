"""What a worker process is asked to do to train a hybrid policy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ploutos.advisor.signals import read_signals
from ploutos.features.build import read_features
from ploutos.fusion.hybrid import hybrid_features
from ploutos.market.bars import read_bars
from ploutos.training.jobs import MemberJob, train_job


@dataclass(frozen=True)
class HybridJob:
    """One hybrid member to train. The parent process has verified all artifacts.

    Attributes:
        member: the training itself, on Phase 2's features.
        policy: the Phase 2 policy it starts from.
        market: the 28 market features, a .npy file.
        signals: the advice; None leaves it blank.
    """

    member: MemberJob
    policy: Path
    market: Path
    signals: Path | None


def run_hybrid_job(job: HybridJob) -> None:
    """Train the member; called in a worker."""
    bars, signals = read_bars(job.member.bars), None if job.signals is None else read_signals(job.signals)
    market = np.load(job.market, allow_pickle=False)
    features = hybrid_features(read_features(job.member.features), bars, market, signals)
    train_job(job.member, bars, features, job.policy)
