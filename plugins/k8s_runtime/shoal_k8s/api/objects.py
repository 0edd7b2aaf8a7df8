"""The few fields of Kubernetes objects that everything here shares.

Objects are decoded into Structs that name only what is used: unknown fields cost neither memory nor time.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct, field

T = TypeVar("T")


class KubeStruct(Struct, rename="camel", kw_only=True, omit_defaults=True, gc=False):
    """Base of every decoded object; immutable by convention, for informers share them."""


class OwnerReference(KubeStruct):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class Meta(KubeStruct):
    """``metadata`` of an object. Times are RFC 3339 text."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []


class ListMeta(KubeStruct):
    resource_version: str = ""
    continue_: str | None = field(default=None, name="continue")
    remaining_item_count: int | None = None

    def __post_init__(self) -> None:
        """An exhausted list says so with an empty text."""
        self.continue_ = self.continue_ or None


class KubeList(KubeStruct, Generic[T]):
    """One page of a list."""

    metadata: ListMeta
    items: list[T] | None = None


class StatusCause(KubeStruct):
    reason: str | None = None
    message: str | None = None
    field: str | None = None


class StatusDetails(KubeStruct):
    name: str | None = None
    kind: str | None = None
    group: str | None = None
    causes: list[StatusCause] | None = None
    retry_after_seconds: int | None = None


class ApiStatus(KubeStruct):
    """The API server's own word on a failure (``kind: ApiStatus``)."""

    status: str | None = None
    message: str | None = None
    reason: str | None = None
    details: StatusDetails | None = None
    code: int | None = None
