"""Pools that an engine keeps by itself, as a cluster's controller does; the kernel passes on what clients say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from shoal.models.pools import CapacitySpec, CreatePool, Pool

POOL_LABEL: Final = "shoal.pool"
"""In `WorkloadPlan.labels` of a sandbox that the kernel started for a pool of its own: the pool's name."""


class NativePools(ABC):
    """What ``/pools`` does on such a runtime (docs/wire/api.md section 10); it also resolves ``extensions.poolRef``.

    Every method raises EngineFailure `POOL_API_ERROR` (`shoal.models.opensandbox`) if the engine cannot be asked.
    """

    @abstractmethod
    async def create(self, request: CreatePool) -> Pool:
        """Raises Conflict `POOL_ALREADY_EXISTS`."""

    @abstractmethod
    async def list(self) -> list[Pool]:
        """Every pool, in no particular order."""

    @abstractmethod
    async def get(self, name: str) -> Pool:
        """Raises NotFound `POOL_NOT_FOUND`."""

    @abstractmethod
    async def update(self, name: str, capacity: CapacitySpec) -> Pool:
        """Raises NotFound."""

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Raises NotFound."""
