"""Notifications: one address, PLOUTOS_NOTIFY, as apprise writes it; without it nothing is sent to anyone.

The server sends them, by automations: one for runs that failed or crashed, one for each kind of news of a night. The address is kept as a
block of the server, encrypted. Prefect has no block for just any address; that for Slack hands every other one to apprise as it is.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

from apprise import Apprise
from prefect.automations import Automation
from prefect.blocks.notifications import SlackWebhook
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from flows.news import News, event_of
from ploutos.errors import ConfigError

BLOCK = "ploutos-notify"
_NAME = "ploutos: tell of "
_SUBJECTS = {
    News.PROMOTED: "promoted",
    News.DEMOTED: "champion demoted",
    News.ASKED: "a promotion waits for your decision",
    News.NO_DATA: "no data",
    News.DECISION_READY: "decision ready",
}


def names() -> list[str]:
    """Of all automations that notify."""
    return [f"{_NAME}{each}" for each in ("failures", *(news.value for news in News))]


def notifying(address: SecretStr, flows: Sequence[str]) -> list[Automation]:
    """The automations that send to an address, which is kept as a block of the server.

    Args:
        flows: names of the flows whose failures are told.

    Raises:
        ConfigError: apprise does not know such an address.
    """
    if not Apprise().add(address.get_secret_value()):
        raise ConfigError(
            "PLOUTOS_NOTIFY is not an address that apprise knows; expected one such as json://host/path or mailto://user:password@host"
        )
    block = cast(UUID, SlackWebhook(url=address).save(BLOCK, overwrite=True))
    failed = EventTrigger(
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}),
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}, posture=Posture.Reactive, threshold=1, within=timedelta(0),
    )  # fmt: skip
    said = "{{ flow.name }}, run {{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}"
    found = [_sends(block, "failures", failed, "{{ flow_run.state.name }}", said)]
    for news, subject in _SUBJECTS.items():
        night = ResourceSpecification({"prefect.resource.id": "ploutos.night.*"})
        trigger = EventTrigger(match=night, expect={event_of(news)}, posture=Posture.Reactive, threshold=1, within=timedelta(0))
        found.append(_sends(block, news, trigger, subject, "{{ event.payload.text }} {{ event.payload.link }}"))
    return found


def _sends(block: UUID, name: str, trigger: EventTrigger, subject: str, body: str) -> Automation:
    action = SendNotification(block_document_id=block, subject=f"ploutos: {subject}", body=body)
    return Automation(name=f"{_NAME}{name}", trigger=trigger, actions=[action])
