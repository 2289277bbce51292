"""A search from start to verdict: who is asked, on which bars, within which limits."""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ploutos.advisor.advisor import make_backend
from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import CutoffEvidence, known_cutoff, tag_dates
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.contamination import COUNTS
from ploutos.llm.backends.base import Backend
from ploutos.llm.cassette import Cassette
from ploutos.llm.config import LLMProvider
from ploutos.llm.gpu_unload import GPUMemoryManager
from ploutos.market.bars import Bars
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.registry.recording import EXCHANGE
from ploutos.registry.trials import TrialRegistry
from ploutos.research.strategist.conversation import MockStrategist
from ploutos.research.strategist.executor import BacktestExecutor
from ploutos.research.strategist.loop import AutonomousStrategist, Iteration, StrategistClient
from ploutos.research.strategist.spec import StrategistSpec
from ploutos.research.strategist.verdict import AskedModel, Judge, StrategistResult
from ploutos.seeding import seed_integer
from ploutos.settings import Settings
from ploutos.strategies.rules import Rule, find_rule

logger = logging.getLogger(__name__)


def bars_of_frame(frame: pd.DataFrame, **settings: Any) -> Bars:
    """A frame of OHLCV as bars, by the reader of files: names, zones and clock as everywhere.

    Args:
        frame: indexed by timestamps, or with a column of them; a symbol column where there are several.
        settings: of `DataSpec`, such as `timezone="UTC"` for timestamps without a zone.

    Raises:
        DataError: the bars cannot be used as they are.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.parquet"
        frame.to_parquet(file)
        return load(DataSpec(source="files", path=file, **settings))


def make_strategist_backend(config: LLMConfig, settings: Settings, rule: Rule) -> Backend:
    """The provider that the configuration names; the mock is a fixed rule that reads the same prompts."""
    return MockStrategist(rule) if config.provider is LLMProvider.MOCK else make_backend(config, settings)


def create_optimizer_from_engine(
    llm_config: LLMConfig, strategy_name: str = "ema_cross", data: pd.DataFrame | Bars | None = None,
    unload_llm_during_backtest: bool | None = None, *, spec: StrategistSpec | None = None, env: EnvSpec | None = None,
    backend: Backend | None = None, on_iteration: Callable[[Iteration], None] | None = None, **data_settings: Any,
) -> tuple[AutonomousStrategist, BacktestExecutor]:  # fmt: skip
    """A strategist and what runs its proposals: `search = strategist.optimize(executor)`.

    Args:
        strategy_name: a rule, as in `StrategistSpec.strategy`; wins over the spec's.
        data: bars, or a frame of OHLCV; the bars that ship with ploutos where it is left out.
        unload_llm_during_backtest: whether the model leaves the GPU while backtests run; None reads `llm_config`, then the environment.
        spec: limits.
        env: account and costs; by default long and short.
        backend: whom to ask in place of the configured provider.
        data_settings: of `DataSpec`, for a frame, such as `timezone="UTC"`.

    Raises:
        ConfigError: there is no such rule.
        DataError, HistoryError: the bars cannot be used, or are too few.
        LLMError: the server or the model is not there.
    """
    settings, rule = Settings(), find_rule(strategy_name)
    spec = (spec or StrategistSpec()).model_copy(update={"strategy": strategy_name})
    bars = load(DataSpec(), settings.datasets_root) if data is None else data
    if isinstance(bars, pd.DataFrame):
        bars = bars_of_frame(bars, **data_settings)
    executor = BacktestExecutor(rule, bars, env or EnvSpec(allow_short=True), spec)
    backend = backend or make_strategist_backend(llm_config, settings, rule)
    client = StrategistClient(backend, llm_config, Cassette(settings.cassettes_root))
    memory = GPUMemoryManager(llm_config, settings, unload_llm_during_backtest)
    return AutonomousStrategist(client, spec, memory, on_iteration), executor


@dataclass(frozen=True)
class Optimizer:
    """Search, control with exchanged feedback, and verdict.

    Attributes:
        strategist, executor: from `create_optimizer_from_engine`.
        registry: where trials are kept; None keeps none.
        market: of the trials.
        seed: of controls.
        known: how far the model's memory reaches, which must not be into the last window; None looks it up in the cutoff store.
    """

    strategist: AutonomousStrategist
    executor: BacktestExecutor
    registry: TrialRegistry | None = None
    market: str = EXCHANGE
    seed: int = 0
    known: CutoffEvidence | None = None

    def run(self) -> StrategistResult:
        """All of it.

        Raises:
            LLMUnavailable, LLMError: as in `AutonomousStrategist.optimize`.
        """
        strategist, spec = self.strategist, self.strategist.spec
        search, other = strategist.optimize(self.executor), None
        if spec.exchange_feedback:
            logger.info("the same search again, with exchanged feedback")
            exchange = seed_integer(self.seed, "exchanged feedback")
            other = AutonomousStrategist(strategist.llm, spec, strategist.memory, exchange=exchange).optimize(self.executor)
        llm = strategist.llm
        about = AskedModel(llm.name, llm.is_mock, blind=not llm.config.reveal, window_clean=self._window_clean())
        unloads = () if strategist.memory is None else strategist.memory.unloads
        return Judge(self.executor, self.registry, self.market, self.seed).judge(search, other, about, unloads)

    def _window_clean(self) -> float:
        """Share of the last window's sessions that the model cannot remember; nobody remembers simulated bars."""
        executor, llm = self.executor, self.strategist.llm
        bars, window = executor.bars, executor.last_window
        if llm.is_mock or bars.source.startswith("synthetic"):
            return 1.0
        known = self.known or known_cutoff(llm.config, llm.digest, Settings().cutoffs_root)
        tags = tag_dates(np.unique(bars.sessions[window.start : window.stop]), known)
        return sum(tag in COUNTS for tag in tags) / len(tags)
