"""Pools of started sandboxes: what clients send and are answered (docs/wire/api.md section 10), and what is durable."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from shoal.models.frozen import Frozen
from shoal.models.requests import DNS_LABEL, FrozenWire, Wire

Count = Annotated[int, Meta(ge=0)]


class CapacitySpec(FrozenWire, omit_defaults=False, frozen=True):
    """How many members; the four numbers are not compared with one another.

    Attributes:
        buffer_min, buffer_max: idle members; fewer or more lead back to the middle of the two.
        pool_min, pool_max: idle and taken ones together; the upper bound wins over everything else.
    """

    buffer_max: Count
    buffer_min: Count
    pool_max: Count
    pool_min: Count


class CreatePool(Wire):
    """POST /pools.

    Attributes:
        template: what every member is like, in the runtime's own form (docs/pools.md); never answered.
        match_creates: whether a create that does not name the pool, but asks for just what it holds, takes from it.
            An addition of shoal.
    """

    name: Annotated[str, Meta(pattern=DNS_LABEL, max_length=253)]
    template: dict[str, Any]
    capacity_spec: CapacitySpec
    match_creates: bool = True

    def __repr__(self) -> str:
        """Without the template, which may hold secrets."""
        return f"CreatePool(name={self.name!r})"


class UpdatePool(Wire):
    """PUT /pools/{name}: the only part of a pool that changes."""

    capacity_spec: CapacitySpec


class PoolStatus(Wire, omit_defaults=False):
    """Members at this moment.

    Attributes:
        total: idle, on the way, and taken.
        available: those that a create can take at once.
        revision: of the template.
        message: why members could not be started lately. An addition of shoal.
    """

    total: int
    allocated: int
    available: int
    revision: str
    message: str | UnsetType = UNSET


class Pool(Wire):
    """Answer of every operation on a pool."""

    name: str
    capacity_spec: CapacitySpec
    status: PoolStatus | None = None
    created_at: datetime | None = None


class PoolList(Wire):
    items: list[Pool]


class PoolPlace(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A sandbox's place in a pool that the kernel keeps.

    Attributes:
        pool_id: distinguishes pools of one name that follow one another.
        idle: nobody has taken it yet, so that nobody may see it.
    """

    name: str
    pool_id: str
    idle: bool = False


class PoolRecord(Frozen, kw_only=True, frozen=True):
    """The durable record of a pool that the kernel keeps; ``template`` may hold secrets (registry, environment)."""

    id: str
    name: str
    runtime: str
    created_at: datetime
    template: dict[str, Any]
    capacity: CapacitySpec
    match_creates: bool = True

    def __repr__(self) -> str:
        return f"PoolRecord(id={self.id!r}, name={self.name!r}, runtime={self.runtime!r})"
