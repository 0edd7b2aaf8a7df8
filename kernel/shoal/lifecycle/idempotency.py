"""Idempotency keys: the same key and request make the same sandbox, however often and however concurrently it is sent.

The key is durable in the same commit as the sandbox, so a retry after a crash finds it too. It is remembered for
``lifecycle.idempotency_ttl_seconds``, also past the sandbox's end: a late retry gets a 409 and makes no other one.

Servers that share an engine have a store each. There the sandbox id follows from the key, so that the same request
makes the same sandbox whichever server it reaches, for as long as that sandbox is there.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec.structs import replace

from shoal.errors import Conflict
from shoal.lifecycle.ledger import utcnow
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.plugin.interfaces import REQUEST_LABEL, IdempotencyKey, Principal
from shoal.view.entry import Entry


class IdempotencyKeys:
    """Every key in force, in memory; the store holds the same."""

    def __init__(self, ttl_seconds: int) -> None:
        self._ttl = timedelta(seconds=ttl_seconds)
        self._keys: dict[str, IdempotencyKey] = {}

    def restore(self, keys: Iterable[IdempotencyKey]) -> None:
        """What the store held at start."""
        self._keys.update((key.key, key) for key in keys)

    def name(self, key: str, principal: Principal | None) -> str:
        """What the key is remembered and serialised by: unique per principal, and not the key itself."""
        owner = principal.name if principal else ""
        return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()

    def find(self, name: str, fingerprint: str) -> str | None:
        """The sandbox that this key already made. Raises Conflict if it was for another request."""
        known = self._keys.get(name)
        if known is None or known.expires_at <= utcnow():
            return None
        if known.fingerprint != fingerprint:
            raise Conflict(codes.IDEMPOTENCY_MISMATCH, "This Idempotency-Key was used for another request.")
        return known.sandbox_id

    def draw_up(self, name: str, fingerprint: str, sandbox_id: str) -> IdempotencyKey:
        """The key to commit together with the sandbox."""
        return IdempotencyKey(key=name, fingerprint=fingerprint, sandbox_id=sandbox_id, expires_at=utcnow() + self._ttl)

    def remember(self, key: IdempotencyKey) -> None:
        """It is durable now."""
        self._keys[key.key] = key

    def lose(self, sandbox_id: str) -> list[IdempotencyKey]:
        """What was to be made under a key never was, as far as is known: the request may come again.

        Returns the keys as the store is to hold them from now on, which is expired.
        """
        lost = [key for key in self._keys.values() if key.sandbox_id == sandbox_id]
        for key in lost:
            del self._keys[key.key]
        return [replace(key, expires_at=utcnow()) for key in lost]

    def forget(self, before: datetime) -> None:
        """Drop what expired before then."""
        self._keys = {name: key for name, key in self._keys.items() if key.expires_at > before}


def follow(plan: WorkloadPlan, name: str, fingerprint: str) -> WorkloadPlan:
    """The plan with the id that follows from the key, and the label that shows another server which request it was."""
    derived = uuid.UUID(bytes=hashlib.sha256(f"sandbox\0{name}".encode()).digest()[:16], version=4)
    return replace(plan, id=str(derived), labels={**plan.labels, REQUEST_LABEL: fingerprint})


def check_same(entry: Entry, fingerprint: str) -> Entry:
    """A sandbox that another server made with this key. Raises Conflict if it was for another request."""
    made = entry.workload.labels.get(REQUEST_LABEL) if entry.workload is not None else None
    if made is not None and made != fingerprint:
        raise Conflict(codes.IDEMPOTENCY_MISMATCH, "This Idempotency-Key was used for another request.")
    return entry
