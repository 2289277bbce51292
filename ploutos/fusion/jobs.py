"""What a worker process is asked to do to train a hybrid policy."""

from dataclasses import dataclass
from pathlib import Path

from ploutos.advisor.signals import read_signals
from ploutos.features.build import read_features
from ploutos.features.llm_features import read_market_features
from ploutos.fusion.hybrid import hybrid_features
from ploutos.market.bars import read_bars
from ploutos.training.jobs import MemberJob, train_job


@dataclass(frozen=True)
class HybridJob(MemberJob):
    """One hybrid member to train, on Phase 2's features and the advice.

    Attributes:
        policy: the Phase 2 policy it starts from.
        market: the 28 market features.
        signals: the advice; None leaves it blank.
    """

    policy: Path
    market: Path
    signals: Path | None


def run_hybrid_job(job: HybridJob) -> None:
    """Train the member; called in a worker."""
    bars, signals = read_bars(job.bars), None if job.signals is None else read_signals(job.signals)
    features = hybrid_features(read_features(job.features), bars, read_market_features(job.market), signals)
    train_job(job, bars, features, job.policy)
