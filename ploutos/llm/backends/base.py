"""What every provider of answers has in common."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol

import httpx

Schema = dict[str, Any]
_CONNECT_S = 5.0


class Message(NamedTuple):
    """One turn of a prompt."""

    role: str
    content: str


Messages = tuple[Message, ...]


def connect_s(timeout_s: float) -> float:
    """Seconds that a client waits for a connection."""
    return min(_CONNECT_S, timeout_s)


def timeouts(timeout_s: float) -> dict[str, Any]:
    """How long an httpx client waits: a few seconds for a connection, as long as asked for an answer.

    No connection is kept between two questions. A server may restart meanwhile, and nothing is left open at the end.
    """
    return {"timeout": httpx.Timeout(timeout_s, connect=connect_s(timeout_s)), "limits": httpx.Limits(max_keepalive_connections=0)}


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float:
    """Seconds that a server asks to wait, which it may say as a number or as a date; 0 where it does not say."""
    said = headers.get("Retry-After", "0")
    try:
        return max(float(said), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(said).timestamp() - now(), 0.0)
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Reply:
    """One raw answer.

    Attributes:
        text: what the model said.
        truncated: it was cut off by `num_predict`.
        prompt_tokens, tokens: tokens read and written, 0 where the server does not say.
        seconds: from the question to the answer, load included.
        load_seconds: of these, loading the model; 0 where the server does not say.
    """

    text: str
    truncated: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    load_seconds: float = 0.0


class Backend(Protocol):
    """A provider of answers."""

    name: str
    """Model and where it runs, for people."""
    is_mock: bool

    def digest(self) -> str:
        """Content digest of the model; empty where the provider has none.

        Raises:
            LLMUnavailable: the server does not answer.
            LLMError: it does not have the model.
        """
        ...

    def complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        """One answer, held to a JSON schema as far as the server can.

        Raises:
            LLMUnavailable: refused, too slow, too busy, or broken: worth another try.
            LLMError: a fault that another try does not mend.
        """
        ...
