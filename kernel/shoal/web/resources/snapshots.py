"""Snapshots (docs/wire/api.md section 9)."""

from __future__ import annotations

from datetime import datetime

import msgspec
from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.http.answers import answer_bytes, answer_json, ask_policies, is_visible
from shoal.http.parse import BodyDecoder, Query
from shoal.models.requests import CreateSnapshot, Wire
from shoal.plugin.interfaces import Operation, Resources, Route, SnapshotRecord, query_parameter
from shoal.web.resources.sandboxes import ITEM, PAGE_PARAMETERS, STATE_PARAMETER, Pagination, page_of, pagination
from shoal.web.seam import SnapshotsApi

_create: BodyDecoder[CreateSnapshot] = BodyDecoder(CreateSnapshot, optional=True)


class SnapshotStatus(Wire):
    """``state`` is Creating, Ready, Failed or Deleting."""

    state: str
    reason: str | None = None
    message: str | None = None
    last_transition_at: datetime | None = None


class Snapshot(Wire):
    """Answer of create, get and list; null fields are absent."""

    id: str
    sandbox_id: str
    status: SnapshotStatus
    created_at: datetime
    name: str | None = None


class SnapshotList(Wire):
    items: list[Snapshot]
    pagination: Pagination


class SnapshotRoutes(Resources):
    """Create, list, read, delete."""

    name = "snapshots"

    def __init__(self, snapshots: SnapshotsApi, settings: Settings) -> None:
        self._snapshots = snapshots
        self._settings = settings

    def routes(self) -> list[Route]:
        """Of a sandbox's, of the collection, and of an item."""
        return [
            Route(f"{ITEM}/snapshots", SandboxSnapshots(self._snapshots, self._settings)),
            Route("/snapshots", SnapshotCollection(self._snapshots)),
            Route("/snapshots/{snapshot_id}", SnapshotItem(self._snapshots)),
        ]


class SandboxSnapshots:
    """``/sandboxes/{sandbox_id}/snapshots``"""

    def __init__(self, snapshots: SnapshotsApi, settings: Settings) -> None:
        self._snapshots = snapshots
        self._limit = settings.server.max_body_bytes

    @Operation(
        name="createSnapshot",
        summary="Capture a running sandbox.",
        status=202,
        answers=(Snapshot,),
        errors=(400, 404, 409, 413, 429, 501),
        body=CreateSnapshot,
        asks=True,
        body_required=False,
        creates="snapshot_id",
        headers=("Location",),
    )
    async def on_post(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """Accept a snapshot."""
        request = await _create.read(req, self._limit)
        await ask_policies(req, request)
        record = await self._snapshots.create(sandbox_id, request.name if request else None)
        resp.status = 202
        resp.set_header("Location", f"/v1/snapshots/{record.id}")
        answer_json(resp, public(record))


class SnapshotCollection:
    """``/snapshots``"""

    def __init__(self, snapshots: SnapshotsApi) -> None:
        self._snapshots = snapshots

    @Operation(
        name="listSnapshots",
        summary="List snapshots, newest first.",
        answers=(SnapshotList,),
        parameters=(
            query_parameter("sandboxId", {"type": "string"}, "Identifier of the sandbox that it was made of."),
            query_parameter("name", {"type": "string"}, "Exact name of the snapshot."),
            STATE_PARAMETER,
            *PAGE_PARAMETERS,
        ),
    )
    async def on_get(self, req: Request, resp: Response) -> None:
        """One page of those that match; totals count every match."""
        query = Query(req)
        page, page_size = page_of(query)
        query.check()
        states = set(query.texts("state"))
        sandbox_id, name = query.text("sandboxId"), query.text("name")
        found = [
            record
            for record in self._snapshots.all()
            if (not states or record.state in states)
            and sandbox_id in (None, record.sandbox_id)
            and name in (None, record.name)
            and is_visible(req, record)
        ]
        items = [public(record) for record in found[(page - 1) * page_size : page * page_size]]
        tail = pagination(page, page_size, len(found))
        answer_bytes(resp, b'{"items":%b,"pagination":%b}' % (msgspec.json.encode(items), tail))


class SnapshotItem:
    """``/snapshots/{snapshot_id}``"""

    def __init__(self, snapshots: SnapshotsApi) -> None:
        self._snapshots = snapshots

    @Operation(name="getSnapshot", summary="Read a snapshot.", answers=(Snapshot,), errors=(404,))
    async def on_get(self, _req: Request, resp: Response, snapshot_id: str) -> None:
        """The snapshot."""
        answer_json(resp, public(self._snapshots.get(snapshot_id)))

    @Operation(name="deleteSnapshot", summary="Delete a snapshot.", status=204, errors=(404, 409, 429, 501))
    async def on_delete(self, _req: Request, resp: Response, snapshot_id: str) -> None:
        """Delete it."""
        await self._snapshots.delete(snapshot_id)
        resp.status = 204


def public(record: SnapshotRecord) -> Snapshot:
    """The wire form of a record."""
    return Snapshot(
        id=record.id,
        sandbox_id=record.sandbox_id,
        name=record.name,
        created_at=record.created_at,
        status=SnapshotStatus(
            state=record.state,
            reason=record.reason,
            message=record.message,
            last_transition_at=record.last_transition_at,
        ),
    )
