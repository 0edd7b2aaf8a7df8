"""Deleting an object for good, and telling such a deletion from somebody else's.

An object with finalizers stays until whoever set them lets go of it. If a server deleted it, its caller was answered
that it is gone: the object says so itself (`names.DELETED`), and no server shows it any more. One that somebody else
deleted is on its way out, and shown as that.
"""

from __future__ import annotations

import msgspec
from msgspec import field

from shoal_k8s import names
from shoal_k8s.api import KubeApiError, KubeClient, Meta, Resource
from shoal_k8s.api.objects import KubeStruct


class _LeftOver(KubeStruct):
    """The answer to a DELETE: the object, if anything is left of it."""

    metadata: Meta = field(default_factory=Meta)


async def delete(
    client: KubeClient, resource: Resource, namespace: str, name: str, *, grace_seconds: int | None = 0
) -> None:
    """Returns once no server shows it; absent is success. Raises KubeApiError, ApiUnreachable."""
    try:
        left = await client.delete(resource, namespace, name, grace_seconds=grace_seconds, kind=_LeftOver)
        if left.metadata.finalizers and names.DELETED not in left.metadata.annotations:
            body = {"metadata": {"uid": left.metadata.uid, "annotations": {names.DELETED: "true"}}}
            await client.patch(resource, namespace, name, body, msgspec.Raw)
    except KubeApiError as error:
        if not error.not_found:
            raise


def is_gone(meta: Meta) -> bool:
    """Whether it is deleted as far as callers know: by a server, or with nothing that holds it."""
    return meta.deletion_timestamp is not None and (not meta.finalizers or names.DELETED in meta.annotations)


def holders(meta: Meta) -> list[str]:
    """The finalizers that hold an object which somebody else deleted; empty for every other."""
    return [] if meta.deletion_timestamp is None or is_gone(meta) else meta.finalizers
