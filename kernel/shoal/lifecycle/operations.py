"""Operations on a sandbox that exists: pause, resume, renew, patch. Each runs on the sandbox's lane.

The intent is durable before the engine is called, so that a restart can finish or settle what a crash cut off. Expiry
and metadata that the engine itself holds for several servers are changed there, and noted here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from msgspec.structs import replace

from shoal.errors import Conflict, InvalidRequest, NotSupported
from shoal.lifecycle import states
from shoal.lifecycle.core import Core
from shoal.lifecycle.expiry import due_time
from shoal.lifecycle.hosts import Host, priority_of
from shoal.lifecycle.ledger import utcnow
from shoal.models import codes
from shoal.models.labels import check_metadata_patch
from shoal.models.requests import MetadataPatch
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Workload
from shoal.plugin.calls import contained
from shoal.plugin.interfaces import Held, Runtime
from shoal.view.entry import Entry

_UNDER_WAY = {State.PAUSING: State.RUNNING, State.RESUMING: State.PAUSED}
"""Intermediate states, and where a failure falls back to."""
_METHODS = {State.PAUSING: "pause", State.RESUMING: "resume"}


class Operations:
    """Runs on a sandbox's lane, with the record as it is there."""

    def __init__(self, core: Core) -> None:
        self._ledger = core.ledger
        self._hosts = core.hosts
        self._expiry = core.expiry

    async def pause(self, record: SandboxRecord, *, again: bool = False) -> None:
        """Running to Paused, or to Pausing where the engine does the rest in its own time.

        ``again`` also takes up one that was cut off. Raises Conflict in another state, NotSupported, or what the
        runtime raises.
        """
        self.require_pause(record)
        if record.state is not State.RUNNING and not (again and record.state is State.PAUSING):
            raise self.wrong_state(record, "SANDBOX_NOT_RUNNING", "running")
        await self._through(record, State.PAUSING, lambda runtime: runtime.pause(record.id), State.PAUSED)

    async def resume(self, record: SandboxRecord, *, again: bool = False) -> None:
        """Paused to Running, or to Resuming; as `pause`."""
        self.require_pause(record)
        if record.state is not State.PAUSED and not (again and record.state is State.RESUMING):
            raise self.wrong_state(record, "SANDBOX_NOT_PAUSED", "paused")
        await self._through(record, State.RESUMING, lambda runtime: runtime.resume(record.id), State.RUNNING)

    async def renew(self, record: SandboxRecord, expires_at: datetime, *, only_later: bool) -> datetime:
        """Move the expiry. Raises Conflict if there is none, or the sandbox is on its way out."""
        if record.state is State.STOPPING:
            raise self.wrong_state(record, "SANDBOX_STOPPING", "renewable")

        def moved(held: Held) -> Held:
            if held.expires_at is None and held.readable:
                message = "This sandbox has no expiry: it is removed only when deleted."
                raise Conflict(codes.INVALID_EXPIRATION, message)
            if expires_at <= utcnow():
                raise InvalidRequest(codes.INVALID_EXPIRATION, "expiresAt must be in the future.")
            if only_later and held.expires_at is not None and expires_at <= held.expires_at:
                return held
            return replace(held, expires_at=expires_at, readable=True)

        held, changed = await self._edit(record, moved)
        if changed is not None:
            self._expiry.arm(record.id, due_time(changed.record))
        return held.expires_at or expires_at

    async def patch_metadata(self, record: SandboxRecord, patch: MetadataPatch) -> Entry | None:
        """JSON Merge Patch; None if nothing changed. Raises InvalidRequest for a reserved or malformed key or value."""
        check_metadata_patch(patch)

        def merged(held: Held) -> Held:
            metadata = {**held.metadata, **patch}
            return replace(held, metadata={key: value for key, value in metadata.items() if value is not None})

        _, changed = await self._edit(record, merged)
        return changed

    def require_pause(self, record: SandboxRecord) -> None:
        """Raise NotSupported if the runtime cannot pause."""
        runtime = self._hosts.of(record).runtime
        if not runtime.capabilities.pause:
            code = codes.scoped(runtime.scope, "PAUSE_NOT_SUPPORTED")
            raise NotSupported(code, f"The {runtime.name} runtime cannot pause sandboxes.")

    def wrong_state(self, record: SandboxRecord, reason: str, wanted: str) -> Conflict:
        """The 409 for an operation that the present state does not allow."""
        code = codes.scoped(self._hosts.scope(record), self._hosts.of(record).runtime.wrong_state or reason)
        return Conflict(code, f"The sandbox is {record.state.value}, not {wanted}.")

    async def _edit(self, record: SandboxRecord, change: Callable[[Held], Held]) -> tuple[Held, Entry | None]:
        """What is held then, and the record if it changed; undone if the runtime refuses it."""
        known = Held(expires_at=record.expires_at, metadata=record.metadata)
        alone = record.state is State.STOPPING or record.purge_at is not None
        host = None if alone else self._hosts.of(record)  # refused before anything is durable
        if host is not None and host.runtime.truth is not None:
            with contained(host.part):
                held = await host.runtime.truth.edit(record.id, change)
            if not held.readable:
                held = Held(expires_at=record.expires_at, metadata=held.metadata)
        else:
            held = change(known)
        if held == known:
            return held, None
        entry = await self._ledger.write(record, expires_at=held.expires_at, metadata=held.metadata)
        if host is not None and host.runtime.truth is None and record.state in states.SETTLED:
            await self._apply(host, entry.record, known)
        return held, entry

    async def _apply(self, host: Host, record: SandboxRecord, before: Held) -> None:
        """Tell an engine that may hold such things too."""
        try:
            with contained(host.part):
                await host.runtime.apply(record)
        except Exception:
            await self._ledger.write(record, expires_at=before.expires_at, metadata=before.metadata)
            raise

    async def _through(
        self, record: SandboxRecord, between: State, call: Callable[[Runtime], Awaitable[Workload]], wanted: State
    ) -> None:
        if record.state is not between:
            record = (await self._ledger.write(record, state=between)).record
        try:
            host = self._hosts.of(record)
            async with host.call(record.id, priority_of(record)) as runtime:
                workload = host.checked(_METHODS[between], record.id, await call(runtime))
        except Exception:
            await self._ledger.write(record, state=_UNDER_WAY[between])
            raise
        self._ledger.see(workload)
        reached = states.settled(workload.phase)
        await self._ledger.write(record, state=reached, reason=workload.reason, message=workload.message)
        if reached not in (wanted, between):
            raise self.wrong_state(record, f"SANDBOX_{between.upper()}_FAILED", wanted.lower())
