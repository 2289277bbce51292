"""Markets and sizes that several tests share."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ploutos.advisor.advisor import Advisor
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.mock import MockBackend
from ploutos.envs.spec import EnvSpec
from ploutos.llm.config import LLMProvider
from ploutos.market.bars import Bars, align
from ploutos.market.instruments import InstrumentSpec
from ploutos.market.quality_report import QualitySummary, QualityWarning, SymbolQuality
from ploutos.run_manifest import RunManifest
from ploutos.run_refs import RunRefs
from ploutos.store import Ref
from ploutos.training.checkpoint import META
from ploutos.training.policy_meta import PolicyMeta, ScalerValues, TrainedOn, write_meta
from ploutos.training.spec import StoppingSpec, TrainingSpec
from ploutos.walk_forward import Range

TINY = TrainingSpec(
    total_timesteps=256, n_envs=4, n_steps=32, batch_size=64, n_epochs=2, net_arch=(16,), members=2, stopping=StoppingSpec(patience=1000)
)
QUALITY = QualitySummary(
    (SymbolQuality("S0", 700, "2000-01-03T14:30Z", "2002-09-06T14:30Z", 703, 3, 0, 1),),
    (QualityWarning("gaps", 3, ("S0",), 1, ("S0 2001-01-02T14:30Z",), "S0 lacks 3 bars"),),
)


def random_panel(seed: int, n_bars: int = 700, n_symbols: int = 3) -> Bars:
    """Daily bars with overnight gaps, halts, a late listing, and an unadjusted 2-for-1 split."""
    random = np.random.default_rng(seed)
    days = pd.bdate_range("2001-01-01", periods=n_bars, tz="UTC")
    frames = []
    for s in range(n_symbols):
        close = 50 * np.exp(np.cumsum(random.normal(0, 0.02, n_bars)))
        close[n_bars // 2 :] /= 2 if s == 0 else 1
        open_ = np.r_[close[0], close[:-1]] * np.exp(random.normal(0, 0.01, n_bars))
        high, low = np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99
        columns = {"open": open_, "high": high, "low": low, "close": close, "volume": random.integers(1, 10**6, n_bars) * 1.0}
        frame = pd.DataFrame({"symbol": f"S{s}", "timestamp": days, **columns})
        keep = random.random(n_bars) > (0.05 if s else 0.0)
        keep &= np.arange(n_bars) >= (200 if s == 2 else 0)
        frames.append(frame[keep])
    return align(pd.concat(frames), pd.Timedelta(days=1), "NYSE", f"random panel {seed}")


def write_policy_file(path: Path, **facts) -> Path:
    """What a policy's file says of its training, without its networks."""
    bars = Range(start=0, stop=1)
    meta = PolicyMeta(
        fold=TrainedOn(train=bars, validation=bars, warmup_bars=0, data_sha256=""), seed=0, planned_timesteps=0, timesteps_reduction=1.0,
        symbols=(), features=(), scaler=ScalerValues(mean=(), deviation=()), env=EnvSpec(), training=TINY, versions={},
    )  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(META, write_meta(meta.model_copy(update=facts)))
    return path


def manifest_of(**facts) -> RunManifest:
    """The manifest of a run that made nothing."""
    refs = RunRefs(*(Ref(kind="k", path="p", sha256=sha * 64, bytes=1) for sha in "1234"), policies=())
    made = RunManifest(written="2026-01-01T00:00:00+00:00", commit="c", config_sha256="d", seed=1, refs=refs, stages={})
    return made.model_copy(update=facts)


def mock_advisor(**settings) -> Advisor:
    """The advisor of a run that names none."""
    return Advisor(MockBackend(), LLMConfig(provider=LLMProvider.MOCK, **settings))


def session_panel(seed: int, n_sessions: int = 12) -> Bars:
    """Half-hour bars of two shares and a future on the NYSE's clock, with halts that may swallow a session's last bar."""
    random = np.random.default_rng(seed)
    days = pd.bdate_range("2024-03-04", periods=n_sessions)
    clock = pd.DatetimeIndex([day + pd.Timedelta(minutes=570 + 30 * k) for day in days for k in range(13)])
    clock = clock.tz_localize("America/New_York").tz_convert("UTC")
    frames = []
    for symbol, start in (("A", 50.0), ("B", 80.0), ("F", 400.0)):
        n = len(clock)
        close = start * np.exp(np.cumsum(random.normal(0, 0.01, n)))
        open_ = np.r_[close[0], close[:-1]] * np.exp(random.normal(0, 0.006, n))
        high, low = np.maximum(open_, close) * random.uniform(1, 1.01, n), np.minimum(open_, close) * random.uniform(0.99, 1, n)
        columns = {"open": open_, "high": high, "low": low, "close": close, "volume": random.integers(0, 5000, n) * 1.0}
        frames.append(pd.DataFrame({"symbol": symbol, "timestamp": clock, **columns})[random.random(n) > 0.08])
    future = InstrumentSpec(
        symbol="F", asset_class="future", multiplier=5, tick_size=0.25, lot=1, commission_per_unit=2, slippage_ticks=1, margin=300
    )
    return align(pd.concat(frames), pd.Timedelta(minutes=30), "NYSE", f"session panel {seed}", [future])
