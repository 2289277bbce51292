"""The same search twice, with the model in the GPU during backtests and without: seconds and memory, side by side.

No cassette: every question is asked. The model starts each search out of memory, so both pay for its first load.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ploutos.advisor.advisor import make_backend
from ploutos.advisor.config import LLMConfig
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError
from ploutos.hardware.monitor import HardwareMonitor
from ploutos.llm.config import LLMProvider
from ploutos.llm.gpu_unload import GPUMemoryManager
from ploutos.market.bars import Bars
from ploutos.research.strategist.executor import BacktestExecutor
from ploutos.research.strategist.loop import AutonomousStrategist, StrategistClient
from ploutos.research.strategist.spec import StrategistSpec
from ploutos.settings import Settings
from ploutos.strategies.rules import find_rule

if TYPE_CHECKING:
    from ploutos.llm.backends.ollama import OllamaBackend

_WAIT_S, _POLL_S = 30.0, 0.05


@dataclass(frozen=True)
class UnloadMode:
    """One search.

    Attributes:
        unload: whether the model left the GPU during backtests.
        seconds: of the whole search.
        n_questions: asked.
        n_unloads: times that it left.
        unload_s, reload_s: seconds that leaving and coming back took, together; 0 where it never left.
        peak_memory_bytes: of this process and its children; the model's server is none of them.
        peak_gpu_memory_bytes: of all devices; None where there is none.
    """

    unload: bool
    seconds: float
    n_questions: int
    n_unloads: int
    unload_s: float
    reload_s: float
    peak_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None


def measure_unload(config: LLMConfig, settings: Settings, bars: Bars, env: EnvSpec, spec: StrategistSpec) -> tuple[UnloadMode, UnloadMode]:
    """Both modes, first without unloading.

    Raises:
        ConfigError: the provider cannot unload.
        LLMError: the server or the model is not there.
    """
    if config.provider is not LLMProvider.OLLAMA:
        raise ConfigError(f"llm.provider is {config.provider}; only Ollama can be told to unload a model: --set llm.provider=ollama")
    server = cast("OllamaBackend", make_backend(config, settings))
    server.digest()
    if server.is_loaded():
        _leave(server)
    executor = BacktestExecutor(find_rule(spec.strategy), bars, env, spec)
    executor.evaluate(executor.rule.defaults)  # compiles
    return _measure(False, server, config, settings, executor), _measure(True, server, config, settings, executor)


def _measure(unload: bool, server: "OllamaBackend", config: LLMConfig, settings: Settings, executor: BacktestExecutor) -> UnloadMode:
    executor = BacktestExecutor(executor.rule, executor.bars, executor.env, executor.spec)  # knows no answer yet
    memory = GPUMemoryManager(config, settings, unload)
    strategist = AutonomousStrategist(StrategistClient(server, config), executor.spec, memory)
    started = time.monotonic()
    try:
        with HardwareMonitor(0.2) as monitor:
            search = strategist.optimize(executor)
    finally:
        _leave(server)
    return UnloadMode(
        unload, time.monotonic() - started, search.n_questions, len(memory.unloads), sum(each.unload_s or 0.0 for each in memory.unloads),
        sum(each.reload_s or 0.0 for each in memory.unloads), monitor.usage.peak_memory_bytes, monitor.usage.peak_gpu_memory_bytes,
    )  # fmt: skip


def _leave(server: "OllamaBackend") -> None:
    """Take the model out of memory and wait for that."""
    until = time.monotonic() + _WAIT_S
    server.unload()
    while server.is_loaded() and time.monotonic() < until:
        time.sleep(_POLL_S)
