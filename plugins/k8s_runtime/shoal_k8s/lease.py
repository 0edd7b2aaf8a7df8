"""Which replica does what only one may do: a Lease (coordination.k8s.io), as Kubernetes' own parts use it.

The holder renews it; when it stops, another takes it over once the lease has run out. A holder that cannot renew stops
acting before the others may begin, by its own clock, so that no two ever act at once whatever the network does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from msgspec import field
from msgspec.structs import replace

from shoal.errors import ShoalError
from shoal_k8s.api import KubeApiError, KubeClient, Meta, Resource
from shoal_k8s.api.objects import KubeStruct

log = structlog.get_logger("shoal.k8s")

LEASES = Resource("coordination.k8s.io", "v1", "leases")
LEASE_SECONDS = 15
"""Seconds for which the lease holds after each renewal."""
RENEW_INTERVAL = 5.0
"""Seconds between renewals, and between looks at another's lease."""
SAFETY_SECONDS = 3.0
"""Seconds before its end at which a holder that could not renew stops acting."""


class LeaseSpec(KubeStruct):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class LeaseObject(KubeStruct):
    metadata: Meta
    spec: LeaseSpec = field(default_factory=LeaseSpec)
    api_version: str = "coordination.k8s.io/v1"
    kind: str = "Lease"


class Leadership:
    """This replica's claim on one Lease.

    Args:
        identity: unique among the replicas, such as the pod's name and a random part.
        gained: called on the loop each time the lease is won.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        gained: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._gained = gained
        self._clock = clock
        self._until = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether this replica may act now."""
        return self._clock() < self._until - SAFETY_SECONDS

    async def start(self) -> None:
        """Try once, then go on in the background. Raises KubeApiError if this server lacks the right to leases."""
        await self._turn(starting=True)
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"lease {self._name}")

    async def stop(self) -> None:
        """Stop, and let go of the lease so that another replica need not wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._until > self._clock():
            self._until = 0.0
            try:
                lease = await self._client.get(LEASES, self._namespace, self._name, LeaseObject)
                if lease.spec.holder_identity == self.identity:
                    await self._write(replace(lease, spec=replace(lease.spec, holder_identity="", renew_time=_now())))
            except (KubeApiError, ShoalError) as error:
                log.info("lease could not be let go of, it will run out", lease=self._name, error=str(error))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_INTERVAL)
            await self._turn()

    async def _turn(self, *, starting: bool = False) -> None:
        before = self.held
        try:
            await self._claim()
        except KubeApiError as error:
            if starting and error.forbidden:
                raise
            if not (error.conflict or error.exists):
                log.warning("lease could not be claimed", lease=self._name, error=str(error.as_shoal_error()))
        except ShoalError as error:
            log.warning("lease could not be claimed", lease=self._name, error=str(error))
        if self.held and not before:
            log.info("lease gained", lease=self._name, identity=self.identity)
            self._gained()
        elif before and not self.held:
            log.warning("lease lost", lease=self._name, identity=self.identity)

    async def _claim(self) -> None:
        """Renew it if it is ours, take it if nobody's or run out; writes are refused if somebody else was faster."""
        asked_at = self._clock()
        try:
            lease = await self._client.get(LEASES, self._namespace, self._name, LeaseObject)
        except KubeApiError as error:
            if not error.not_found:
                raise
            spec = self._spec(acquired=_now(), transitions=0)
            meta = Meta(name=self._name, namespace=self._namespace)
            await self._client.create(LEASES, self._namespace, LeaseObject(metadata=meta, spec=spec), LeaseObject)
            self._until = asked_at + LEASE_SECONDS
            return
        if lease.spec.holder_identity == self.identity:
            spec = replace(lease.spec, renew_time=_now())
        elif self._free(lease):
            spec = self._spec(acquired=_now(), transitions=(lease.spec.lease_transitions or 0) + 1)
        else:
            self._until = 0.0
            return
        await self._write(replace(lease, spec=spec))
        self._until = asked_at + LEASE_SECONDS

    def _free(self, lease: LeaseObject) -> bool:
        """Whether its holder is gone: judged by how long this replica saw it unchanged, not by clocks of others."""
        if not lease.spec.holder_identity:
            return True
        version = lease.metadata.resource_version
        if self._seen[0] != version:
            self._seen = (version, self._clock())
            return False
        return self._clock() - self._seen[1] >= (lease.spec.lease_duration_seconds or LEASE_SECONDS)

    async def _write(self, lease: LeaseObject) -> None:
        await self._client.replace(LEASES, self._namespace, self._name, lease, LeaseObject)

    def _spec(self, *, acquired: str, transitions: int) -> LeaseSpec:
        return LeaseSpec(
            holder_identity=self.identity,
            lease_duration_seconds=LEASE_SECONDS,
            acquire_time=acquired,
            renew_time=acquired,
            lease_transitions=transitions,
        )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
