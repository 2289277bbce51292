"""Is this machine fit for a run? One check per line: what was found, and what to do when it is not enough."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ploutos.advisor.advisor import advice_of
from ploutos.advisor.check import check_advisor
from ploutos.advisor.config import LLMConfig
from ploutos.errors import PloutosError
from ploutos.hardware.machine import read_machine
from ploutos.hardware.resources import describe
from ploutos.hardware.threads import VARIABLES, uncapped
from ploutos.llm.config import LLMProvider
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.preflight import require_prefect
from ploutos.remote_store import open_store
from ploutos.settings import Settings

_NEEDED = (
    "torch",
    "stable-baselines3",
    "gymnasium",
    "numpy",
    "numba",
    "pandas",
    "pyarrow",
    "TA-Lib",
    "prefect",
    "fastapi",
    "httpx",
)
_EXTRAS = {"ollama": "ollama", "alpaca": "vendors", "yfinance": "vendors", "pynvml": "gpu", "tensorboard": "tensorboard"}
"""Modules that only some runs need, with the extra that brings each."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's findings."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def _versions() -> Check:
    found, missing = [f"Python {sys.version.split()[0]}"], []
    for name in _NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    absent = sorted({extra for module, extra in _EXTRAS.items() if importlib.util.find_spec(module) is None})
    found += [f"without ploutos[{extra}]" for extra in absent]
    return Check("versions", not missing, ", ".join(found), f"install {', '.join(missing)}: pip install -c constraints.txt -e .")


def _server() -> Check:
    """What a broken FastAPI breaks is the import of Prefect's server; a process of its own tries it, for the library imports no Prefect."""
    tried = subprocess.run([sys.executable, "-c", "import prefect.server.api.server"], capture_output=True, text=True, check=False)
    if tried.returncode:
        said = tried.stderr.strip().splitlines()[-1] if tried.stderr.strip() else f"its process ended with {tried.returncode}"
        return Check("Prefect server", False, f"cannot be imported: {said}", "install 'fastapi>=0.139,<0.151' under constraints.txt")
    where = os.environ.get("PREFECT_API_URL")
    try:
        require_prefect(where)
    except PloutosError as error:
        return Check("Prefect server", False, str(error), "start the server, or unset PREFECT_API_URL")
    return Check("Prefect server", True, f"can be imported; runs report to {where or 'a temporary server of their own'}")


def _data() -> Check:
    try:
        bars = load(DataSpec())
    except PloutosError as error:
        return Check("sample data", False, str(error), "reinstall ploutos: the shipped parquet is missing or damaged")
    return Check("sample data", True, f"{bars.n_bars} bars of {', '.join(bars.symbols)}")


def _store() -> Check:
    try:
        store = open_store(Settings())
        store.publish("doctor", ".txt", lambda path: path.write_text("ok", encoding="utf-8"))
    except PloutosError as error:
        return Check("store", False, str(error), "set PLOUTOS_HOME to a folder that can be written")
    return Check("store", True, f"{store.where} can be written")


def _machine() -> Check:
    machine = read_machine()
    return Check("machine", machine.free_bytes > 1 << 30, describe(machine), "close other programs: a run needs 1 GiB of free memory")


def _llm(config: LLMConfig) -> Check:
    """Ask it once, about the sample."""
    remedy = "fix that, then run: ploutos llm check"
    try:
        result = check_advisor(config, Settings())
    except PloutosError as error:
        return Check("advisor", False, str(error), remedy)
    name, advice = f"{result.model} {result.digest[:12]}".strip(), advice_of(result.outcome)
    if result.outcome.abstained:
        return Check("advisor", False, f"{name} was asked once and its answer could not be used: {result.outcome.why}", remedy)
    return Check("advisor", True, f"{name} was asked once and said {advice.action}, confidence {advice.confidence} of 100")


def _threads() -> Check:
    missing = uncapped(os.environ)
    capped = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
    return Check("thread caps", not missing, capped or "none", f"export {' '.join(f'{name}=1' for name in missing)}")


def examine(llm: LLMConfig | None = None) -> list[Check]:
    """All checks, in the order in which a user would fix them.

    Args:
        llm: the advisor of the run to be; None means a run's default, the mock.
    """
    advisor = llm or LLMConfig(provider=LLMProvider.MOCK)
    checks: tuple[Callable[[], Check], ...] = (_versions, _server, _data, _store, _machine, lambda: _llm(advisor), _threads)
    return [check() for check in checks]
