"""Changes that depend on what an object says: made on the very version that was read, or read and made again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import structlog

from shoal.errors import Conflict, NotFound
from shoal.plugin.interfaces import Held
from shoal_k8s import names
from shoal_k8s.api import KubeApiError, KubeClient
from shoal_k8s.informer import Informer
from shoal_k8s.informer.cache import KubeObject

log = structlog.get_logger("shoal.k8s")

T = TypeVar("T", bound=KubeObject)

TRIES: Final = 30
"""Tries of a change that met a change by somebody else; two servers and a busy kubelet need a few."""
PAUSE: Final = 0.02
"""Seconds, at most, between two tries."""


class Edits(Generic[T]):
    """What `SharedTruth` asks of one kind of object.

    Args:
        kind: the struct that an object is decoded into.
        expiry: when the object is to go, as it says.
        expiry_patch: the merge patch of an object that moves it.
    """

    def __init__(
        self,
        client: KubeClient,
        informer: Informer[T],
        kind: type[T],
        expiry: Callable[[T], str | None],
        expiry_patch: Callable[[T, datetime | None], dict[str, Any]],
    ) -> None:
        self._client = client
        self._informer = informer
        self._kind = kind
        self._expiry = expiry
        self._expiry_patch = expiry_patch
        self._unreadable: dict[str, str] = {}

    def held(self, thing: T) -> Held:
        """What the object says."""
        said = self._expiry(thing)
        expires_at = names.read_time(said)
        readable = expires_at is not None or not said
        if not readable:
            self._warn(thing, str(said))
        return Held(expires_at=expires_at, metadata=names.metadata_of(thing.metadata.labels), readable=readable)

    def _warn(self, thing: T, said: str) -> None:
        """Once per text."""
        if self._unreadable.get(thing.metadata.name) != said:
            self._unreadable[thing.metadata.name] = said
            log.warning("expiry cannot be read, nothing ends it", name=thing.metadata.name, expiry=said[:80])

    async def edit(self, thing: T, change: Callable[[Held], Held]) -> Held:
        """Raises NotFound, Conflict if others keep changing it, KubeApiError, and what ``change`` raises."""
        for turn in range(TRIES):
            if thing.metadata.deletion_timestamp:
                raise _gone()
            before = self.held(thing)
            after = change(before)
            if after == before:
                return before
            try:
                return self.held(await self._patch(thing, before, after))
            except KubeApiError as error:
                thing = await self._again(thing, error, turn)
        raise Conflict("KUBERNETES::INVALID_STATE", "Others keep changing the sandbox; try again.")

    async def end(self, thing: T, now: datetime) -> bool:
        """Delete it if it is over at ``now``. Raises KubeApiError, Conflict."""
        for turn in range(TRIES):
            expires_at = self.held(thing).expires_at
            if expires_at is None or expires_at > now:
                return False
            meta = thing.metadata
            try:
                await self._client.delete(
                    self._informer.resource, meta.namespace, meta.name, version=meta.resource_version
                )
            except KubeApiError as error:
                if error.not_found:
                    return True
                try:
                    thing = await self._again(thing, error, turn)
                except NotFound:
                    return True
            else:
                return True
        return False

    async def _patch(self, thing: T, before: Held, after: Held) -> T:
        """Labels key by key: what others write beside them stays."""
        gone = {key: None for key in before.metadata if key not in after.metadata}
        patch: dict[str, Any] = {"metadata": {"labels": {**gone, **after.metadata}}}
        if after.expires_at != before.expires_at:
            for part, fields in self._expiry_patch(thing, after.expires_at).items():
                patch.setdefault(part, {}).update(fields)
        meta = thing.metadata
        patch["metadata"]["resourceVersion"] = meta.resource_version
        changed = await self._client.patch(self._informer.resource, meta.namespace, meta.name, patch, self._kind)
        self._informer.put(changed)
        return changed

    async def _again(self, thing: T, error: KubeApiError, turn: int) -> T:
        """The object as it is now, if it was changed meanwhile; else the error is raised. Raises NotFound."""
        meta = thing.metadata
        if error.not_found:
            raise _gone() from error
        if not error.conflict:
            raise error
        await asyncio.sleep(random.random() * PAUSE * min(turn, 5))  # noqa: S311 - no secret
        try:
            found = await self._client.get(self._informer.resource, meta.namespace, meta.name, self._kind)
        except KubeApiError as second:
            if second.not_found:
                raise _gone() from second
            raise
        self._informer.put(found)
        return found


def _gone() -> NotFound:
    return NotFound("KUBERNETES::SANDBOX_NOT_FOUND", "The sandbox is gone from the cluster.")
