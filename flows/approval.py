"""A person decides on a promotion that is due: a run of its own waits, suspended, for a form that has no default decision.

It waits apart from the night, so that the next night is not held up, and nothing is computed again when the answer comes. One question is
open at a time: that of a later night takes the place of an earlier one. What is asked stands in the run's parameters, and is held against
the registry once more when the answer comes.
"""

from pathlib import Path
from typing import Literal
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.states import Cancelled
from pydantic import Field

from flows.attempt import begin_attempt
from flows.news import news_of, tell_of
from flows.sweep import page_of
from ploutos.errors import ConfigError, OrchestratorError
from ploutos.nightly.standing import MoveKind, Verdict, carry_out, still_stands
from ploutos.registry.models import FileModels
from ploutos.registry.promotion import model_of
from ploutos.registry.trials import TrialRegistry
from ploutos.settings import Settings
from ploutos.specs import Spec
from tasks.slots import have_server

APPROVAL = "ploutos-approval/approval"
_TAG = "ploutos-approval"
_MOVES = {MoveKind.FIRST: "first promotion", MoveKind.REPLACE: "promotion of the challenger", MoveKind.ROLLBACK: "rollback"}


class Question(Spec):
    """A promotion that is due."""

    verdict: Verdict = Field(title="What is due")
    """Kind of the move, and what is known for it."""
    session: str = Field(title="Night")
    """Session after whose close it became due."""
    run: Path = Field(title="Run")
    """Folder of the night's run."""
    champion: str | None = Field(default=None, title="Champion")
    """Name of the champion when it was asked."""
    sentences: tuple[str, ...] = Field(default=(), title="In words")
    """What the night's page says."""


class Answer(RunInput):
    """What a person says; nothing is filled in beforehand."""

    decision: Literal["promote", "reject"] = Field(title="Decision")
    """Carry out what is due, or leave everything as it is; a rollback is a promotion of the previous champion."""
    approved_by: str = Field(title="Who decides", min_length=1)
    """Your name; recorded with the move."""
    reason: str = Field(default="", title="Why")
    """Recorded with the move."""


@flow(name="ploutos-approval", flow_run_name="promotion of {config.session}", persist_result=False)
def approval(config: Question) -> bool:
    """Wait for a person's decision on a promotion, and carry it out; only the night starts this.

    Returns:
        Whether something was moved.

    Raises:
        StoreError: the model may not be promoted any more, or another one is champion by now.
    """
    begin_attempt()
    answer = suspend_flow_run(wait_for_input=Answer.with_initial_data(description=_description(config)), key="decision")
    if answer.decision == "reject":
        get_run_logger().info("%s rejected the promotion of %s; nothing was moved. %s", answer.approved_by, config.session, answer.reason)
        return False
    root = Settings().registry_root
    models, tonight = FileModels(root), model_of(config.run)
    still_stands(models, config.champion)
    carry_out(models, config.verdict, tonight, answer.approved_by, TrialRegistry(root), answer.reason)
    said = f"{answer.approved_by} carried out the {_MOVES[config.verdict.kind]} of the night of {config.session}."
    get_run_logger().info(said)
    if (news := news_of(config.verdict.kind)) is not None:
        tell_of(news, config.session, said)
    return True


def require_askable() -> None:
    """See to it that a promotion that is due could be asked for.

    Raises:
        ConfigError: there is no server, or it does not know the approval.
    """
    if not have_server():
        raise ConfigError("promotion is set to asked, and there is no Prefect server; start `ploutos serve`, or choose said or automatic")
    with get_client(sync_client=True) as client:
        _require_deployment(client)


def ask(question: Question) -> str:
    """Put a question to a person, in the place of one that is still open; the address of its form."""
    with get_client(sync_client=True) as client:
        waiting = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])), tags=FlowRunFilterTags(all_=[_TAG])
        )
        for run in client.read_flow_runs(flow_run_filter=waiting):
            message = f"The question of the night of {question.session} takes its place."
            client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
        deployment = _require_deployment(client)
        run = client.create_flow_run_from_deployment(deployment, parameters={"config": question.model_dump(mode="json")}, tags=[_TAG])
        return page_of(client, run)


def _require_deployment(client: SyncPrefectClient) -> UUID:
    try:
        return client.read_deployment_by_name(APPROVAL).id
    except ObjectNotFound as error:
        raise OrchestratorError(f"there is no deployment {APPROVAL} on this server; run `ploutos deploy`") from error


def _description(question: Question) -> str:
    """The night's last sentence, which is what is due, comes first: in a low window the form cuts a long list short."""
    said = "\n".join(f"- {sentence}" for sentence in (*question.sentences[-1:], *question.sentences[:-1]))
    return f"**A promotion is due since the night of {question.session}.** Nothing is moved until you decide.\n\n{said}"
