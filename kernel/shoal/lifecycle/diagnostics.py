"""Diagnostics: the runtime's words about a workload, or the record's where there is no workload to speak of."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime

from shoal.lifecycle.core import Core
from shoal.lifecycle.hosts import Host
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.calls import contained, wrong
from shoal.plugin.interfaces import LogQuery


class Diagnostics:
    """Text about one sandbox. Asks the engine, so it counts as an operation, not as a read of the view.

    Every method raises NotFound, or what the runtime raises.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._hosts = core.hosts

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        """The output so far; ``(no logs)`` before the workload exists."""
        record = self._core.entry(sandbox_id).record
        if not _has_workload(record):
            return "(no logs)"
        host = self._hosts.of(record)
        return await _text(host, "logs", host.runtime.logs(record.id, query))

    async def events(self, sandbox_id: str, limit: int) -> str:
        """What befell it, at most ``limit`` lines."""
        record = self._core.entry(sandbox_id).record
        if not _has_workload(record):
            return "\n".join(_describe(record)[:limit])
        host = self._hosts.of(record)
        return await _text(host, "events", host.runtime.events(record.id, limit))

    async def inspect(self, sandbox_id: str) -> str:
        """How the engine describes it."""
        record = self._core.entry(sandbox_id).record
        if not _has_workload(record):
            return "\n".join(_describe(record))
        host = self._hosts.of(record)
        return await _text(host, "inspect", host.runtime.inspect(record.id))


async def _text(host: Host, method: str, call: Awaitable[str]) -> str:
    with contained(host.part):
        answer = await call
    if not isinstance(answer, str):
        raise wrong(host.part, f"returned from {method} a {type(answer).__name__}, and not a text")
    return answer


def _has_workload(record: SandboxRecord) -> bool:
    return record.state is not State.PENDING and record.purge_at is None


def _describe(record: SandboxRecord) -> list[str]:
    rows = [
        ("Sandbox ID", record.id),
        ("Runtime", record.runtime),
        ("Image", record.image or record.snapshot_id or ""),
        ("Status", record.state.value),
        ("Reason", record.reason or ""),
        ("Message", record.message or ""),
        ("Created", _stamp(record.created_at)),
        ("Since", _stamp(record.since)),
    ]
    return [f"{name + ':':<17}{value}" for name, value in rows if value]


def _stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
