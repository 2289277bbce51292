"""Packages that only some runs need: the clients of vendors, of Ollama, and NVIDIA's library. `pip install 'ploutos[NAME]'` brings them."""

import importlib.util

from ploutos.errors import ConfigError


def require_extra(module: str, extra: str, what: str) -> None:
    """Refuse what needs a package that is not installed.

    Args:
        module: as it is imported.
        extra: ours that brings it.
        what: what needs it, as a sentence begins.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{what} needs {module}, which is not installed: pip install 'ploutos[{extra}]'")
