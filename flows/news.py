"""What a night has to tell, as events of the server: whoever wants to hear of them is told by an automation of `ploutos deploy`."""

from enum import StrEnum

from prefect.events import emit_event

from ploutos.nightly.standing import MoveKind
from tasks.slots import have_server


class News(StrEnum):
    """What may be told of."""

    PROMOTED = "promoted"
    DEMOTED = "demoted"
    ASKED = "asked"
    """A promotion waits for a person."""
    NO_DATA = "no-data"
    DECISION_READY = "decision-ready"


def event_of(news: News) -> str:
    """Name of its event."""
    return f"ploutos.{news}"


def news_of(move: MoveKind) -> News | None:
    """What a move that was carried out is; None for one that changes no champion."""
    return {MoveKind.FIRST: News.PROMOTED, MoveKind.REPLACE: News.PROMOTED, MoveKind.ROLLBACK: News.DEMOTED}.get(move)


def tell_of(news: News, session: str, text: str, link: str = "") -> None:
    """Send an event to the server; without one there is nobody to hear it."""
    if have_server():
        resource = {"prefect.resource.id": f"ploutos.night.{session}", "prefect.resource.name": f"night of {session}"}
        emit_event(event_of(news), resource=resource, payload={"text": text, "link": link})
