"""Slots: at most so many runs at once, on all hosts together, train on a GPU, ask a language model or download from a vendor.

A slot is one of Prefect's global concurrency limits, held by a lease that a thread renews: who is killed gives it back within a minute
(`deployments.leases`), and within seconds where somebody on the same host wants it, who sees that the process is gone. A process holds a
slot once, however many of its threads need it: how many members a run trains at once is its own setting. Nobody holds two, so nobody waits
in a circle. Prefect's own `concurrency` is not used: it gives a slot up, under a traceback, when the server is away for half a minute, and
waits half a minute between two looks. A run without a server of a person's has the machine to itself and waits for nobody.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from ploutos.progress import advance
from ploutos.settings import Settings
from ploutos.store import write_json
from tasks.away import impatient

logger = logging.getLogger("ploutos.slots")

SlotName = Literal["gpu", "llm", "vendor"]
SLOTS: dict[SlotName, int] = {"gpu": 1, "llm": 1, "vendor": 1}
"""How many runs may hold each at once, until a person sets another number on the server."""
TEMPORARY = "PLOUTOS_TEMPORARY_SERVER"
"""Set for the processes of a run whose server is its own and ends with it."""
LEASE_S = 60.0
"""The shortest that Prefect gives."""
RENEW_S, POLL_S = 15.0, 2.0


def have_server() -> bool:
    """Whether this run is under a server that other runs may share."""
    return PREFECT_API_URL.value() is not None and TEMPORARY not in os.environ


def make_slot(client: SyncPrefectClient, name: SlotName) -> None:
    """Let the server know a slot, if it does not; a number that a person has set stays."""
    try:
        client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):  # another run was quicker
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=SLOTS[name]))


@contextmanager
def slot(name: SlotName | None) -> Iterator[None]:
    """A block that runs while this process holds a slot; None needs none.

    Whoever must wait says so. A server that is away is waited for by who wants a slot, and holds up nobody who has one.
    """
    if name is None or not have_server():
        yield
        return
    shared = _shared(name)
    with shared.lock:
        if not shared.n_users:
            shared.hold = _take(name)
        shared.n_users += 1
    try:
        yield
    finally:
        with shared.lock:
            shared.n_users -= 1
            if not shared.n_users and shared.hold is not None:
                shared.hold.give_back()


@dataclass
class _Hold:
    """A slot that is held, from when it was taken until it is given back; `lease` is None where the server let it go."""

    name: SlotName
    lease: UUID | None
    over: threading.Event = field(default_factory=threading.Event)

    def keep(self) -> None:
        """Renew the lease until the hold is over; one that a server which was away has let go is taken again."""
        said = ""
        with impatient(), get_client(sync_client=True) as client:
            while not self.over.wait(RENEW_S):
                try:
                    said = self._renew(client, said)
                except httpx.HTTPError as error:
                    said = _say_once(said, f"the server does not answer ({_absence(error)}); a slot of {self.name} is renewed later")

    def _renew(self, client: SyncPrefectClient, said: str) -> str:
        if self.lease is not None:
            try:
                client.renew_concurrency_lease(self.lease, LEASE_S)
                return ""
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.GONE:
                    raise
            _file(self.lease).unlink(missing_ok=True)
        self.lease = _lease(client, self.name)
        return "" if self.lease else _say_once(said, f"a slot of {self.name} went to another run while the server was away; both continue")

    def give_back(self) -> None:
        """Let another run have it; of a server that is away, the lease ends by itself."""
        self.over.set()
        if self.lease is None:
            return
        try:
            with impatient(), get_client(sync_client=True) as client:
                client.release_concurrency_slots_with_lease(self.lease)
        except httpx.HTTPError as error:
            logger.warning("a slot of %s was not given back (%s); its lease ends within a minute", self.name, type(error).__name__)
        _file(self.lease).unlink(missing_ok=True)


@dataclass
class _Shared:
    """What the threads of this process share of a slot."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    n_users: int = 0
    hold: _Hold | None = None


_all: dict[SlotName, _Shared] = {}
_making = threading.Lock()


def _shared(name: SlotName) -> _Shared:
    with _making:
        return _all.setdefault(name, _Shared())


def _take(name: SlotName) -> _Hold:
    """Wait until a slot is free, take it, and keep it from then on."""
    started, said, lease = time.monotonic(), "", None
    with impatient(), get_client(sync_client=True) as client:
        while lease is None:
            try:
                make_slot(client, name)
                lease = _lease(client, name) or (_lease(client, name) if _free_dead(client) else None)
                sentence = f"waits for a slot of {name}: another run has it"
            except httpx.HTTPError as error:
                sentence = f"waits for the server, which does not answer ({_absence(error)}), for a slot of {name}"
            if lease is None:
                said = _say_once(said, sentence)
                advance(0, 0, "", sentence)
                time.sleep(POLL_S)
    if said:
        logger.info("has a slot of %s after %.0f s", name, time.monotonic() - started)
    hold, context = _Hold(name, lease), copy_context()  # which server this is may be known to this thread alone
    threading.Thread(target=context.run, args=(hold.keep,), name=f"slot-{name}", daemon=True).start()
    return hold


def _absence(error: httpx.HTTPError) -> str:
    """What a server that is away, or too busy to answer, has done; an answer that refuses is raised again."""
    if isinstance(error, httpx.HTTPStatusError):
        if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
            raise error
        return f"status {error.response.status_code}"
    return type(error).__name__


def _say_once(said: str, sentence: str) -> str:
    if sentence != said:
        logger.warning("%s", sentence)
    return sentence


def _lease(client: SyncPrefectClient, name: SlotName) -> UUID | None:
    """A new lease; None while all slots are taken."""
    try:
        answer = client.increment_concurrency_slots_with_lease([name], 1, "concurrency", LEASE_S).json()
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.LOCKED:
            return None
        raise
    lease = UUID(answer["lease_id"])
    write_json(_file(lease), {"pid": os.getpid(), "started": psutil.Process().create_time(), "slot": name})
    return lease


def _file(lease: UUID) -> Path:
    """Where this host keeps who holds a lease."""
    return Settings().home / "slots" / f"{lease}.json"


def _free_dead(client: SyncPrefectClient) -> bool:
    """Give back what processes of this host held that are gone; whether there was any."""
    dead = [file for file in (Settings().home / "slots").glob("*.json") if not _lives(file)]
    for file in dead:
        client.release_concurrency_slots_with_lease(UUID(file.stem))
        file.unlink(missing_ok=True)
    return bool(dead)


def _lives(file: Path) -> bool:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        process = psutil.Process(holder["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - holder["started"]) < 1
    except FileNotFoundError:  # it was given back meanwhile
        return True
    except psutil.NoSuchProcess:
        return False
