"""What a run needs, looked at before anything is trained, and the plan of what it will do.

`run`, `run --plan`, `doctor` and the flow ask here, so that what one accepts no other refuses later. The cheapest looks come first:
settings, folders and servers, then the bars themselves, their inspection and the folds. Bars are read once more by the run: its stage
has a cache of its own.

Left out: whether memory suffices, which a run waits for, and what a vendor has, which no run asks.
"""

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ploutos.advisor.config import LLMConfig
from ploutos.config import HardwareSpec, PipelineConfig
from ploutos.errors import ConfigError, NetworkError, StoreError
from ploutos.extras import require_extra
from ploutos.features.build import FeatureSet
from ploutos.features.macro_features import features_with_macro
from ploutos.llm.backends import require_client, require_listener
from ploutos.llm.config import LLMProvider
from ploutos.market.bars import Bars
from ploutos.market.loader import load
from ploutos.market.quality import require_sound
from ploutos.settings import Settings
from ploutos.walk_forward import Fold, inner_split, plan_folds, tested_decisions

_PATIENCE_S = 1.5
_MIB = 1 << 20
_POLICY_BYTES, _BYTES_PER_WEIGHT = 100_000, 12
"""Of a policy's file: what it says of itself, and weights with the optimizer's two moments."""
_COPIES = 2
"""Of a policy: in the store and in the run's folder."""
_PAGES_BYTES = 10 * _MIB
_ACCOUNTS, _NUMBERS = 45, 24
"""Accounts of a backtest, and numbers kept of each per bar and symbol."""


@dataclass(frozen=True)
class Asked:
    """What a run asks a language model.

    Attributes:
        questions: about the market as it was.
        mirrored: about the mirrored market.
        texts: to read, equal ones counted once.
        prompt_bytes: of all of them together, from a sample.
    """

    questions: int
    mirrored: int
    texts: int
    prompt_bytes: int

    @property
    def n(self) -> int:
        return self.questions + self.mirrored + self.texts


@dataclass(frozen=True)
class Outlook:
    """What a run will work on.

    Attributes:
        disk_bytes: about what it will write.
        asked: what it will ask a language model, what was answered before included; None with the mock, which costs nothing.
    """

    config: PipelineConfig
    bars: Bars
    features: FeatureSet
    folds: tuple[Fold, ...]
    disk_bytes: int
    asked: "Asked | None" = None

    @property
    def n_test_bars(self) -> int:
        return sum(fold.test.n_bars for fold in self.folds)


def look_ahead(config: PipelineConfig, settings: Settings, prefect_url: str | None = None) -> Outlook:
    """Everything that can be known of a run before it begins.

    Args:
        prefect_url: of the server that the run will report to; None for a temporary one.

    Raises:
        ConfigError: a setting contradicts this machine or another.
        StoreError: a folder cannot be written, or the disk is too full.
        NetworkError: Prefect's server does not answer.
        LLMError: the advisor is not there, or cannot be asked what the run will ask.
        DataError, HistoryError: the bars cannot be used.
    """
    require_prefect(prefect_url)
    require_surroundings(config, settings)
    require_advisor(config.llm, settings)
    bars = load(config.data, settings.datasets_root)
    require_sound(bars)
    features = features_with_macro(bars, config.features, config.data.macro, config.data.macro_provider)
    folds = plan_folds(bars, features, config.folds)
    if config.training.stopping.enabled:
        for fold in folds:
            inner_split(fold.train, fold.validation.start - fold.train.stop, config.training.stopping.validation_share)
    asks = config.llm.provider is not LLMProvider.MOCK
    asked = require_answerable(config, settings, bars, folds) if asks else None
    outlook = Outlook(config, bars, features, folds, _disk_bytes(config, features, folds), asked)
    require_space(settings.home, outlook.disk_bytes)
    return outlook


def require_surroundings(config: PipelineConfig, settings: Settings) -> None:
    """The part of `look_ahead` that asks nobody and reads no bars: packages, device and folders; raises as it does."""
    require_packages(config)
    require_cluster(config.hardware)
    require_device(config)
    require_own_folder(config.out)
    require_writable(settings.home)


def require_packages(config: PipelineConfig) -> None:
    """Refuse settings whose package is not installed.

    Raises:
        ConfigError: one is missing.
    """
    if config.logging.tensorboard is not None:
        require_extra("tensorboard", "tensorboard", "logging.tensorboard")
    runner = config.hardware.runner
    if runner in ("dask", "ray"):
        require_extra(f"prefect_{runner}", runner, f"hardware.runner={runner}")


def require_cluster(hardware: HardwareSpec) -> None:
    """Refuse workers that cannot be reached, or that cannot reach Prefect's server.

    Raises:
        ConfigError: the address is not one, or the server would be a temporary one of this host.
        NetworkError: no scheduler answers.
    """
    address = urlsplit(hardware.scheduler or "")
    host, remote = address.hostname, hardware.runner == "workers"
    if hardware.scheduler is not None:
        try:
            port = address.port
        except ValueError:
            port = None
        if host is None or port is None:
            raise ConfigError(
                f"hardware.scheduler is {hardware.scheduler}; expected an address such as tcp://host:8786 or ray://host:10001"
            )
        try:
            socket.create_connection((host, port), timeout=_PATIENCE_S).close()
        except OSError as error:
            raise NetworkError(f"hardware.scheduler is {hardware.scheduler}, and nothing answers there: {error}; start it first") from error
        remote = host not in ("127.0.0.1", "localhost")
    if remote and "PREFECT_API_URL" not in os.environ:
        raise ConfigError(
            f"hardware.runner is {hardware.runner}, whose workers must reach Prefect's server, and a temporary one listens to this host "
            "alone; start a server and set PREFECT_API_URL"
        )


def require_device(config: PipelineConfig) -> None:
    """Refuse a GPU that torch cannot use.

    Raises:
        ConfigError: there is none.
    """
    if config.hardware.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("hardware.device is cuda, and torch finds no GPU here; use auto, which takes one if there is one, or cpu")


def is_run_folder(folder: Path) -> bool:
    """Whether a folder holds a run, one that was cut off while it was written included: policies are written first."""
    return (folder / "manifest.json").is_file() or any(folder.glob("folds/*/*seed_*")) or any(folder.glob("folds/*/*/seed_*"))


def require_own_folder(out: Path | None) -> None:
    """Refuse to write a run into a folder that cannot be written, or holds something else.

    Raises:
        ConfigError: the folder is a file, cannot be written, or holds something other than a run.
    """
    if out is None:
        return
    require_writable(out, "choose another --out")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if held and not is_run_folder(out):
        shown = ", ".join(held[:3]) + (" ..." if len(held) > 3 else "")
        raise ConfigError(f"{out} holds {shown} but no run; choose another --out, such as {out / 'run'}, or empty it")


def require_writable(folder: Path, remedy: str = "set PLOUTOS_HOME to a folder that can be written") -> None:
    """Refuse a folder in which no file can be made; one that is not there yet is made later, so its nearest parent counts.

    Raises:
        ConfigError: no file can be made.
    """
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return
    except OSError as error:
        raise ConfigError(f"cannot write in {folder}: {error.strerror}; {remedy}") from error


def require_space(folder: Path, n_bytes: int) -> None:
    """Refuse a disk that a run would fill.

    Raises:
        StoreError: too little is free.
    """
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    free = shutil.disk_usage(nearest).free
    if free < n_bytes:
        raise StoreError(
            f"found {free / _MIB:,.0f} MiB free in {folder}; expected {n_bytes / _MIB:,.0f} MiB for this run; free some space, or set "
            "PLOUTOS_HOME to another disk"
        )


def require_prefect(url: str | None) -> None:
    """Refuse an address at which no Prefect server answers.

    Raises:
        NetworkError: nobody answers, or somebody else.
    """
    if url is None:
        return
    import httpx

    health = f"{url.rstrip('/')}/health"
    name, given, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    key = os.environ.get("PREFECT_API_KEY")
    try:
        answer = httpx.get(
            health, timeout=_PATIENCE_S, verify=health.startswith("https"),  # to read certificates takes longer than to be answered
            auth=httpx.BasicAuth(name, password) if given else None,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )  # fmt: skip
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NetworkError(
            f"PREFECT_API_URL is {url}, and no server answers there; start one (prefect server start), or unset it: a run then starts a "
            "temporary server of its own"
        ) from error
    if not answer.is_success:
        raise NetworkError(
            f"PREFECT_API_URL is {url}, which answers {answer.status_code} to {health}; expected the address of a Prefect server, "
            "such as http://127.0.0.1:4200/api"
        )


def require_advisor(config: LLMConfig, settings: Settings) -> str:
    """Refuse an advisor that is not there, or to whom a key is missing. No question is asked, nothing is loaded.

    Returns:
        What was found, in words.

    Raises:
        ConfigError: OpenAI's own server without a key.
        LLMUnavailable: the server does not answer.
        LLMError: it refuses the key, or does not have the model.
    """
    if config.provider is LLMProvider.MOCK:
        return "mock"
    require_client(config, settings)
    if not config.replay:
        require_listener(config, settings)
    from ploutos.advisor.advisor import make_backend

    backend = make_backend(config, settings)
    digest = "" if config.replay else backend.digest()
    return f"{backend.name} {digest[:12]}".strip()


def require_answerable(config: PipelineConfig, settings: Settings, bars: Bars, folds: tuple[Fold, ...]) -> Asked:
    """Refuse what a run would ask a model in vain: prompts that may not fit and, in a replay, answers that were never recorded.

    Raises:
        LLMError: there is such a question.
        DataError: texts cannot be used.
    """
    from ploutos.advisor.advisor import Advice, make_advisor, prompt_at
    from ploutos.advisor.schedule import decision_times
    from ploutos.advisor.texts import make_reader, read_texts
    from ploutos.features.llm_features import market_features
    from ploutos.llm.client import LLMClient, Query

    market, llm = market_features(bars), config.llm
    asked = questions_of(config, bars, market, folds)

    def about(time: Any) -> Query[Advice]:
        symbol, as_of = bars.symbols[time.column], bars.available_at[time.bar]
        return Query(prompt_at(bars, lambda t, s: market[t, s], symbol, as_of, llm.hidden, llm.cadence_bars, config.env), Advice)

    def size(client: LLMClient[LLMConfig], queries: list[Query[Any]]) -> float:
        """Mean bytes of a prompt; all of these can be asked."""
        for query in queries:
            client.require_answerable(query)
        return sum(len(message.content.encode()) for query in queries for message in query.messages) / max(len(queries), 1)

    texts: list[Query[Any]] = []
    mean_text = 0.0
    if config.data.texts is not None:
        reader = make_reader(llm, settings)
        texts = list(dict.fromkeys(reader.questions(read_texts(config.data.texts, bars.symbols).within(bars), bars)))
        mean_text = size(reader, texts[:: _step(llm, texts)])
    mean = size(make_advisor(llm, settings), [about(time) for time in asked[:: _step(llm, asked)]])
    mirrored = len(decision_times(bars, market, *tested_decisions(folds), llm)) if llm.mirrors else 0
    return Asked(len(asked), mirrored, len(texts), round(mean * (len(asked) + mirrored) + mean_text * len(texts)))


def _step(config: LLMConfig, asked: list[Any]) -> int:
    """Every how manieth question is looked at: all in a replay, else twenty of them."""
    return 1 if config.replay else max(len(asked) // 20, 1)


def questions_of(config: PipelineConfig, bars: Bars, market: Any, folds: tuple[Fold, ...]) -> list[Any]:
    """Every question that a run asks about the market as it was; the mirrored market is asked about beside it."""
    from ploutos.advisor.schedule import decision_times
    from ploutos.fusion.hybrid import advised_decisions

    first, last = advised_decisions(folds, config.with_hybrid, config.fusion.choose)
    return decision_times(bars, market, first, last, config.llm)


def _disk_bytes(config: PipelineConfig, features: FeatureSet, folds: tuple[Fold, ...]) -> int:
    """About what a run writes: bars, features, policies twice, checkpoints, accounts and pages. The demo took 35 MB of 47 MB told."""
    n_bars, n_symbols, n_features = features.values.shape
    columns = n_features * (1 if config.training.network == "shared" else n_symbols)
    widths = [columns + 8, *config.training.net_arch, config.training.net_arch[-1]]
    weights = 2 * sum(left * right for left, right in pairwise(widths))
    weights += 8 * config.training.lstm_size * (columns + config.training.lstm_size) * (config.training.algorithm == "RecurrentPPO")
    policies = len(folds) * (config.training.members + 2 * config.hybrid.members * config.with_hybrid)
    checkpoints = config.checkpoint.keep * (os.cpu_count() or 1) * config.checkpoint.enabled
    tested = sum(fold.test.n_bars for fold in folds)
    return (
        (policies * _COPIES + checkpoints) * (_POLICY_BYTES + _BYTES_PER_WEIGHT * weights)
        + n_bars * n_symbols * (4 * n_features + 28 * 4 + 80)
        + tested * n_symbols * _ACCOUNTS * _NUMBERS
        + _PAGES_BYTES
    )
