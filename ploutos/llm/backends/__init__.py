"""Servers of language models, one module each, and what a provider needs before its module, which takes a second, is imported."""

import socket
from urllib.parse import urlsplit

from ploutos.errors import ConfigError, LLMUnavailable
from ploutos.extras import require_extra
from ploutos.llm.config import ClientConfig, LLMProvider
from ploutos.settings import Settings
from ploutos.wording import without_password

NO_OLLAMA = "Ollama at {} cannot be reached; start it (ollama serve) or set OLLAMA_HOST"
NO_SERVER = "{} cannot be reached; start the server or set OPENAI_BASE_URL"
OLLAMA = "127.0.0.1:11434"


def require_client(config: ClientConfig, settings: Settings) -> None:
    """Refuse a provider whose client is not installed, and OpenAI's own server without a key.

    Raises:
        ConfigError: one of the two.
    """
    if config.provider is LLMProvider.OLLAMA:
        require_extra("ollama", "ollama", "llm.provider ollama")
    if config.provider is LLMProvider.OPENAI:
        require_extra("openai", "openai", "llm.provider openai")
        if settings.openai_api_key is None and not (config.host or settings.openai_base_url):
            raise ConfigError(
                "llm.provider is openai, and neither an address nor a key is set; set OPENAI_API_KEY for OpenAI's own server, "
                "or OPENAI_BASE_URL (or llm.host) to a server of yours"
            )


def require_listener(config: ClientConfig, settings: Settings) -> None:
    """Refuse a server on this host where nobody listens; what another host says is left to the client, which knows of proxies.

    Raises:
        LLMUnavailable: nobody listens there.
    """
    if config.provider is LLMProvider.OLLAMA:
        address, sentence, port = config.host or settings.ollama_host or OLLAMA, NO_OLLAMA, 11434
    else:
        address, sentence, port = config.host or settings.openai_base_url or "", NO_SERVER, 80  # the client refuses one without a scheme
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        here = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme, port)
    except ValueError:
        return  # no address, as the client will say
    if here[0] not in ("localhost", "127.0.0.1", "::1"):
        return
    try:
        socket.create_connection(here, timeout=1).close()
    except ConnectionRefusedError as error:
        raise LLMUnavailable(sentence.format(without_password(address))) from error
    except OSError:
        return  # whatever else is wrong, the client finds it too and says it better
