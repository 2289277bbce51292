"""Leases of slots, on the server of `ploutos serve`: shorter than Prefect's shortest, so that nobody waits a minute for a slot whose holder
was killed, wherever it was. Files, so that they outlive a restart of the server.
"""

from datetime import timedelta
from uuid import UUID

from prefect.server.concurrency.lease_storage import ConcurrencyLimitLeaseMetadata, filesystem
from prefect.server.utilities.leasing import ResourceLease

SHORTER = timedelta(seconds=10)
"""A run that waits asks every 2 s, and the server looks every 2 s for leases that have run out."""


class ConcurrencyLeaseStorage(filesystem.ConcurrencyLeaseStorage):
    """Prefect's, whose leases end some seconds before they would; the name is what Prefect looks for."""

    async def create_lease(
        self, resource_ids: list[UUID], ttl: timedelta, metadata: ConcurrencyLimitLeaseMetadata | None = None
    ) -> ResourceLease[ConcurrencyLimitLeaseMetadata]:
        return await super().create_lease(resource_ids, ttl - SHORTER, metadata)

    async def renew_lease(self, lease_id: UUID, ttl: timedelta) -> bool:
        return await super().renew_lease(lease_id, ttl - SHORTER)
