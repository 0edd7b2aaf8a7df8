"""Diagnostics: the runtime's words about a workload, or the record's where there is no workload to speak of."""

from __future__ import annotations

from datetime import datetime

from shoal.lifecycle.hosts import Hosts
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces import LogQuery
from shoal.view.entry import Entry


class Diagnostics:
    """Text about one sandbox. Asks the engine, so it counts as an operation, not as a read of the view."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    async def logs(self, entry: Entry, query: LogQuery) -> str:
        """The output so far; ``(no logs)`` before the workload exists."""
        if not _has_workload(entry.record):
            return "(no logs)"
        return await self._hosts.of(entry.record).runtime.logs(entry.record.id, query)

    async def events(self, entry: Entry, limit: int) -> str:
        """What befell it, at most ``limit`` lines."""
        if not _has_workload(entry.record):
            return "\n".join(_told(entry.record)[:limit])
        return await self._hosts.of(entry.record).runtime.events(entry.record.id, limit)

    async def inspect(self, entry: Entry) -> str:
        """How the engine describes it."""
        if not _has_workload(entry.record):
            return "\n".join(_told(entry.record))
        return await self._hosts.of(entry.record).runtime.inspect(entry.record.id)


def _has_workload(record: SandboxRecord) -> bool:
    return record.state is not State.PENDING and record.purge_at is None


def _told(record: SandboxRecord) -> list[str]:
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
