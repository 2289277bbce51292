"""Markets and sizes that several tests share."""

import numpy as np
import pandas as pd

from ploutos.llm.advisor import Advisor
from ploutos.llm.backends.mock import MockBackend
from ploutos.llm.config import LLMConfig, LLMProvider
from ploutos.market.bars import Bars, align
from ploutos.training.ppo import TrainingSpec

TINY = TrainingSpec(total_timesteps=256, n_envs=4, n_steps=32, batch_size=64, n_epochs=2, net_arch=(16,), members=2)
QUALITY = {"symbols": [{"symbol": "S0", "bars": "700"}], "warnings": [{"check": "gaps", "sentence": "S0 lacks 3 bars"}]}


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


def mock_advisor(**settings) -> Advisor:
    """The advisor of a run that names none."""
    return Advisor(MockBackend(), LLMConfig(provider=LLMProvider.MOCK, **settings))
