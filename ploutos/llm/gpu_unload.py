"""GPU memory for training: the language model is unloaded while policies are trained and backtested.

Worth it where both do not fit: less than 12 GB of GPU memory, or a model above 4 GB. Not worth it on a CPU, or with 16 GB
and a model below 2 GB: each unload and reload costs seconds. It is off unless `llm.unload_during_backtest` or the
environment's UNLOAD_LLM_DURING_BACKTEST says otherwise.

Only Ollama can be told to unload; for other providers nothing is called at all. Only the model that the configuration names
is touched, by its exact tag, whoever loaded it: an earlier run, `ploutos llm check`, or this one. Others stay where they are.
The first question that follows brings it back, or `reload` does, which takes the time of that alone.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ploutos.errors import LLMError
from ploutos.hardware.machine import Machine, read_machine
from ploutos.llm.config import ClientConfig, LLMProvider
from ploutos.settings import Settings

if TYPE_CHECKING:
    from ploutos.llm.backends.ollama import OllamaBackend

_LOG = logging.getLogger(__name__)
_ON, _OFF = {"true", "1", "yes"}, {"false", "0", "no", ""}
_TIMEOUT_S, _POLL_S = 15.0, 0.1
_MIB = 1 << 20


def unload_wanted(explicit: bool | None, text: str | None) -> bool:
    """Whether to unload the model from the GPU.

    Args:
        explicit: wins over the environment; None asks it.
        text: value of UNLOAD_LLM_DURING_BACKTEST, None when unset. true, 1 and yes mean on; false, 0 and no mean off, in
            any case; anything else means off and is warned about.

    >>> unload_wanted(None, "YES"), unload_wanted(False, "1"), unload_wanted(None, None)
    (True, False, False)
    """
    if explicit is not None:
        return explicit
    word = (text or "").strip().lower()
    if word not in _ON | _OFF:
        _LOG.warning("UNLOAD_LLM_DURING_BACKTEST is %r and counts as False; expected True, 1, yes, False, 0 or no", text)
    return word in _ON


@dataclass
class UnloadRecord:
    """One unload of the model, and its reload.

    Attributes:
        phase: what used the GPU meanwhile.
        unload_s: seconds until the server no longer listed the model; None when it never let go.
        block_s: seconds of the phase itself.
        reload_s: seconds of the later load; None where a question brought it back, or nothing has.
        freed_bytes, freed_gpu_bytes: memory of this host that became free meanwhile, as measured, whoever else took or left some; None
            where it was not measured: on another host, without a GPU, or when the model never let go.
    """

    phase: str
    unload_s: float | None = None
    block_s: float = 0.0
    reload_s: float | None = None
    freed_bytes: int | None = None
    freed_gpu_bytes: int | None = None


class GPUMemoryManager:
    """Takes one model out of an Ollama server's memory for the length of a block, and back when it is needed.

    Args:
        unload: whether to do so; None reads `llm.unload_during_backtest`, then the environment.
        backend: the server; None makes one from the configuration, for Ollama alone.
        clock, sleep: seconds; a test brings its own.
        machine: reads the memory of this host.
    """

    def __init__(
        self,
        config: ClientConfig,
        settings: Settings,
        unload: bool | None = None,
        backend: "OllamaBackend | None" = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        machine: Callable[[], Machine] = read_machine,
    ) -> None:
        explicit = config.unload_during_backtest if unload is None else unload
        self.wanted = unload_wanted(explicit, settings.unload_llm_during_backtest)
        self.unloads: list[UnloadRecord] = []
        self._clock, self._sleep, self._machine = clock, sleep, machine
        self._server: OllamaBackend | None = None
        self._due: UnloadRecord | None = None
        if self.wanted and config.provider is LLMProvider.OLLAMA and not config.replay:
            from ploutos.llm.backends import ollama

            self._server = backend or ollama.OllamaBackend(config, config.host or settings.ollama_host)

    @contextmanager
    def freed(self, phase: str) -> Iterator[None]:
        """Keep the model out of the GPU for the length of a block.

        Nothing that goes wrong with the server reaches the block: it is logged. Afterwards, whatever ended the block, the
        model is due again and comes back with the next `reload` or the next question, not before.
        """
        record = self._unload(phase)
        started = self._clock()
        try:
            yield
        finally:
            if record is not None:
                record.block_s = self._clock() - started
                self._due = record
                _LOG.info("%s ran %.1f s without %s in the GPU", phase, record.block_s, self._tag)

    def reload(self) -> None:
        """Bring the model back, if a block sent it away and nothing has brought it back since."""
        due, self._due = self._due, None
        if due is None or self._server is None:
            return
        started = self._clock()
        try:
            if not self._server.is_loaded():
                self._server.load()
        except LLMError as error:
            _LOG.warning("%s was not reloaded after %s: %s", self._tag, due.phase, error)
            return
        due.reload_s = self._clock() - started
        _LOG.info("%s is back in the GPU after %.1f s", self._tag, due.reload_s)

    @property
    def _tag(self) -> str:
        return "" if self._server is None else self._server.tag

    def _is_loaded(self) -> bool:
        """Whether the model is in memory; no when nobody may be asked or nobody answers."""
        if self._server is None:
            return False
        try:
            return self._server.is_loaded()
        except LLMError as error:
            _LOG.warning("cannot tell whether %s is in the GPU: %s", self._tag, error)
            return False

    def _unload(self, phase: str) -> UnloadRecord | None:
        """Unload and wait until the server no longer lists the model; None when there was nothing to do."""
        if self._server is None or not self._is_loaded():
            return None
        record, before = UnloadRecord(phase), self._machine()
        self.unloads.append(record)
        started = self._clock()
        try:
            self._server.unload()
            while self._server.is_loaded():
                if self._clock() - started > _TIMEOUT_S:
                    _LOG.warning(
                        "%s is still in the GPU %g s after the unload request; %s starts all the same", self._tag, _TIMEOUT_S, phase
                    )
                    return record
                self._sleep(_POLL_S)
        except LLMError as error:
            _LOG.warning("%s was not unloaded before %s: %s", self._tag, phase, error)
            return record
        record.unload_s = self._clock() - started
        if self._server.is_local:
            _note_freed(record, before, self._machine())
        _LOG.info(
            "%s left the GPU in %.1f s, before %s; became free: %s", self._tag, record.unload_s, phase,
            ", ".join(f"{n / _MIB:,.0f} MiB of {kind}" for kind, n in freed_of(record)) or "not measured",
        )  # fmt: skip
        return record


def freed_of(record: UnloadRecord) -> list[tuple[str, int]]:
    """Which memory became free, and how many bytes of it, as far as that was measured."""
    kinds = (("GPU memory", record.freed_gpu_bytes), ("memory", record.freed_bytes))
    return [(kind, freed) for kind, freed in kinds if freed is not None]


def _note_freed(record: UnloadRecord, before: Machine, after: Machine) -> None:
    record.freed_bytes = after.free_bytes - before.free_bytes
    if before.gpus:
        record.freed_gpu_bytes = sum(gpu.free_bytes for gpu in after.gpus) - sum(gpu.free_bytes for gpu in before.gpus)
