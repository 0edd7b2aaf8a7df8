"""`ClusterPools`: the ``/pools`` API on Pool resources (docs/wire/kubernetes.md section 18).

A controller on the cluster makes their members. What it decides by itself (scale, update and recycle strategy) is left
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from shoal.errors import Conflict, EngineFailure, Forbidden, InvalidRequest, NotFound, NotSupported, ShoalError
from shoal.models import codes
from shoal.models.pools import CapacitySpec, CreatePool, Pool, PoolStatus
from shoal.plugin.interfaces.pools import NativePools
from shoal_k8s import names
from shoal_k8s.api import KubeApiError, KubeClient, KubeList
from shoal_k8s.api.failures import ApiUnreachable
from shoal_k8s.pools.objects import POOLS, PoolObject, manifest
from shoal_k8s.pools.template import TemplatePolicy

API_ERROR: Final = "KUBERNETES::POOL_API_ERROR"
_INVALID: Final = (400, 422)


class ClusterPools(NativePools):
    """The pools of one namespace.

    Args:
        policy: what a template that comes through the API may ask for.
    """

    def __init__(self, client: KubeClient, namespace: str, policy: TemplatePolicy) -> None:
        self._client = client
        self._namespace = namespace
        self._policy = policy

    async def create(self, request: CreatePool) -> Pool:
        """Raises InvalidRequest also for a template that the cluster does not take, Forbidden for a quota."""
        self._policy.check(request.template)
        body = manifest(request.name, self._policy.completed(request.template), _numbers(request.capacity_spec))
        with _pool_errors(request.name):
            return _public(await self._client.create(POOLS, self._namespace, body, PoolObject))

    async def list(self) -> list[Pool]:
        """None where the kind is not installed."""
        with _pool_errors("*"):
            try:
                found = await self._client.list(POOLS, self._namespace, KubeList[PoolObject])
            except KubeApiError as error:
                if error.not_found:
                    return []
                raise
        return [_public(thing) for thing in found.items or []]

    async def get(self, name: str) -> Pool:
        with _pool_errors(name):
            return _public(await self._client.get(POOLS, self._namespace, name, PoolObject))

    async def update(self, name: str, capacity: CapacitySpec) -> Pool:
        patch = {"spec": {"capacitySpec": _numbers(capacity)}}
        with _pool_errors(name):
            return _public(await self._client.patch(POOLS, self._namespace, name, patch, PoolObject))

    async def delete(self, name: str) -> None:
        with _pool_errors(name):
            await self._client.delete(POOLS, self._namespace, name, grace_seconds=None)


class NoPools(NativePools):
    """Of a provider whose sandboxes come from no pool, and whose pause keeps nothing warm."""

    def __init__(self, provider: str) -> None:
        self._provider = provider

    async def create(self, request: CreatePool) -> Pool:
        raise NotSupported(codes.POOL_NOT_SUPPORTED, f"The workload provider {self._provider!r} has no pools.")

    async def list(self) -> list[Pool]:
        return []

    async def get(self, name: str) -> Pool:
        raise _unknown(name)

    async def update(self, name: str, capacity: CapacitySpec) -> Pool:
        raise _unknown(name)

    async def delete(self, name: str) -> None:
        raise _unknown(name)


def _public(thing: PoolObject) -> Pool:
    held, status = thing.spec.capacity_spec, thing.status
    return Pool(
        name=thing.metadata.name,
        capacity_spec=CapacitySpec(
            buffer_max=held.buffer_max, buffer_min=held.buffer_min, pool_max=held.pool_max, pool_min=held.pool_min
        ),
        status=None
        if status is None
        else PoolStatus(
            total=status.total, allocated=status.allocated, available=status.available, revision=status.revision
        ),
        created_at=names.read_time(thing.metadata.creation_timestamp),
    )


def _numbers(capacity: CapacitySpec) -> dict[str, int]:
    numbers: dict[str, Any] = msgspec.to_builtins(capacity)
    return numbers


@contextmanager
def _pool_errors(name: str) -> Iterator[None]:
    """Turn the API server's refusals into the codes of pools."""
    try:
        yield
    except KubeApiError as error:
        raise _failure(error, name) from error
    except ApiUnreachable as error:
        raise EngineFailure(API_ERROR, error.message) from error


def _failure(error: KubeApiError, name: str) -> ShoalError:
    if error.exists:
        return Conflict(codes.POOL_ALREADY_EXISTS, f"There is a pool {name[:64]!r} already.")
    if error.not_found and error.request.startswith("create"):
        return EngineFailure(API_ERROR, f"The resource {POOLS} is not installed on the cluster.")
    if error.not_found:
        return _unknown(name)
    if error.status in _INVALID:
        return InvalidRequest(codes.INVALID_PARAMETER, f"The cluster refuses the pool: {error.said}")
    told = error.as_shoal_error()
    return told if isinstance(told, Forbidden) else EngineFailure(API_ERROR, told.message)


def _unknown(name: str) -> NotFound:
    return NotFound(codes.POOL_NOT_FOUND, f"There is no pool {name[:64]!r}.")
