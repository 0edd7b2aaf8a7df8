"""Create, list, get, delete and metadata of sandboxes (docs/wire/api.md sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET

from shoal.config.settings import Settings
from shoal.errors import InvalidRequest, ValidationFailed
from shoal.http.answers import answer_bytes, ask_policies, is_visible, principal_of
from shoal.http.parse import BodyDecoder, Query
from shoal.models import codes
from shoal.models.requests import CreateSandbox, MetadataPatch, Wire
from shoal.models.rules import crowded, normalize_create, schema_problems
from shoal.models.sandbox import Sandbox, State, public
from shoal.plugin.interfaces import Operation, Resources, Route, query_parameter
from shoal.view.entry import Entry
from shoal.view.listing import ListQuery
from shoal.web.resources.waiting import exchange_of, unless_left
from shoal.web.seam import SandboxesApi, SnapshotsApi

ITEM = "/sandboxes/{sandbox_id}"
DEFAULT_WAIT_SECONDS = 30.0
_LAST_PAGE = 2**40
"""Pages beyond are as empty as this one, and their index still fits a machine word."""
_MAX_KEY_LENGTH = 255
_STATES = {state.lower(): state for state in State}
_FIRST_PAGE = ListQuery()

_create: BodyDecoder[CreateSandbox] = BodyDecoder(CreateSandbox)
_patch: BodyDecoder[MetadataPatch] = BodyDecoder(MetadataPatch)


PAGE_PARAMETERS = (
    query_parameter("page", {"type": "integer", "minimum": 1, "default": 1}, "Page, counted from 1."),
    query_parameter("pageSize", {"type": "integer", "minimum": 1, "maximum": 200, "default": 20}, "Items per page."),
)
STATE_PARAMETER = query_parameter(
    "state", {"type": "array", "items": {"type": "string"}}, "Any of these states; repeatable."
)


class Pagination(Wire, omit_defaults=False):
    """Present in every list; ``total_pages`` is 0 when nothing matches."""

    page: int
    page_size: int
    total_items: int
    total_pages: int
    has_next_page: bool


class SandboxList(Wire):
    items: list[Sandbox]
    pagination: Pagination


class SandboxRoutes(Resources):
    """Create, list, read, delete; metadata."""

    name = "sandboxes"

    def __init__(self, sandboxes: SandboxesApi, snapshots: SnapshotsApi, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._snapshots = snapshots
        self._settings = settings

    def routes(self) -> list[Route]:
        """Of the collection, of an item, and of its metadata."""
        return [
            Route("/sandboxes", SandboxCollection(self._sandboxes, self._snapshots, self._settings)),
            Route(ITEM, SandboxItem(self._sandboxes, self._settings)),
            Route(f"{ITEM}/metadata", SandboxMetadata(self._sandboxes, self._settings)),
        ]


class SandboxCollection:
    """``/sandboxes``"""

    def __init__(self, sandboxes: SandboxesApi, snapshots: SnapshotsApi, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._snapshots = snapshots
        self._limit = settings.server.max_body_bytes

    @Operation(
        name="createSandbox",
        summary="Create a sandbox; it is Pending until it runs.",
        status=202,
        answers=(Sandbox,),
        errors=(400, 404, 409, 413, 429, 501),
        body=CreateSandbox,
        asks=True,
        creates="sandbox_id",
        example={"image": {"uri": "host"}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600},
        headers=("Location",),
        parameters=(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_KEY_LENGTH},
                "description": "The same key and body give the same sandbox; another body is a 409.",
            },
        ),
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Accept a create."""
        request = await _create.require(req, self._limit)
        problems = schema_problems(request)
        if problems:
            raise ValidationFailed(problems)
        key = _idempotency_key(req)
        request = normalize_create(request)
        await self._ask(req, request)
        entry = await self._sandboxes.create(request, principal=principal_of(req), idempotency_key=key)
        resp.status = 202
        resp.set_header("Location", f"/v1/sandboxes/{entry.record.id}")
        answer_bytes(resp, _created(entry))

    @Operation(
        name="listSandboxes",
        summary="List sandboxes, newest first.",
        answers=(SandboxList,),
        errors=(400,),
        parameters=(
            STATE_PARAMETER,
            query_parameter("metadata", {"type": "string"}, "URL-encoded pairs, encoded once more: all must match."),
            *PAGE_PARAMETERS,
        ),
    )
    async def on_get(self, req: Request, resp: Response) -> None:
        """One page, assembled from the entries' own JSON."""
        query = list_query(req) if req.query_string else _FIRST_PAGE
        page = self._sandboxes.page(query, exchange_of(req).sees)
        shown = min(query.page, _LAST_PAGE)
        answer_bytes(
            resp,
            b'{"items":[%b],"pagination":%b}'
            % (b",".join([entry.json for entry in page.items]), pagination(shown, query.page_size, page.total)),
        )

    async def _ask(self, req: Request, request: CreateSandbox) -> None:
        """Ask the policies; a snapshot that they hide is not there to be restored from."""
        await ask_policies(req, request)
        if request.snapshot_id is None or exchange_of(req).sees is None:
            return
        snapshot = self._snapshots.get(request.snapshot_id)
        if not is_visible(req, snapshot):
            raise self._snapshots.unknown(snapshot.id)


class SandboxItem:
    """``/sandboxes/{sandbox_id}``"""

    def __init__(self, sandboxes: SandboxesApi, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._wait_limit = settings.lifecycle.wait_limit_seconds
        self._fresh_wait = settings.lifecycle.fresh_read_wait_seconds

    @Operation(
        name="getSandbox",
        summary="Read a sandbox, or wait for it to reach a state.",
        answers=(Sandbox,),
        errors=(404,),
        parameters=(
            query_parameter(
                "wait",
                {"type": "array", "items": {"type": "string", "enum": list(State)}},
                "States to wait for; repeatable. Answered also when the sandbox has ended or `timeout` is over.",
            ),
            query_parameter(
                "timeout",
                {"type": "number", "minimum": 0, "default": 30},
                "Seconds to wait at most; the server may wait less.",
            ),
        ),
    )
    async def on_get(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """The sandbox; with ``wait``, once it is in one of those states or the time is up.

        One that was created a moment ago is waited for briefly: clients that read it at once sleep long if it is
        still Pending then.
        """
        entry = await self._awaited(req, sandbox_id) if req.query_string else self._sandboxes.entry(sandbox_id)
        if entry.record.fresh and not req.query_string and (left := self._left(entry)) > 0:
            entry = await self._unless_left(req, sandbox_id, self._sandboxes.begun(sandbox_id, left))
        answer_bytes(resp, entry.json)

    @Operation(name="deleteSandbox", summary="Delete a sandbox.", status=204, errors=(404, 409, 429))
    async def on_delete(self, _req: Request, resp: Response, sandbox_id: str) -> None:
        """Delete it."""
        await self._sandboxes.delete(sandbox_id)
        resp.status = 204

    async def _awaited(self, req: Request, sandbox_id: str) -> Entry:
        query = Query(req)
        wanted = query.texts("wait")
        timeout = query.number("timeout", DEFAULT_WAIT_SECONDS, ge=0)
        if any(word.strip().lower() not in _STATES for word in wanted):
            query.refuse("wait", "literal_error", f"expected one of {', '.join(State)}")
        query.check()
        if not wanted:
            return self._sandboxes.entry(sandbox_id)
        states = frozenset(_STATES[word.strip().lower()] for word in wanted)
        waiting = self._sandboxes.wait(sandbox_id, states, min(timeout, self._wait_limit))
        return await self._unless_left(req, sandbox_id, waiting)

    def _left(self, entry: Entry) -> float:
        """How long a read of it may still wait, in seconds."""
        age = (datetime.now(UTC) - entry.record.created_at).total_seconds()
        return self._fresh_wait - max(age, 0.0)

    async def _unless_left(self, req: Request, sandbox_id: str, wanted: Coroutine[Any, Any, Entry]) -> Entry:
        """What is waited for; the sandbox as it is once the caller has left."""
        return await unless_left(req, wanted) or self._sandboxes.entry(sandbox_id)


class SandboxMetadata:
    """``/sandboxes/{sandbox_id}/metadata``"""

    def __init__(self, sandboxes: SandboxesApi, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._limit = settings.server.max_body_bytes

    @Operation(
        name="patchSandboxMetadata",
        summary="Merge metadata (RFC 7396): null deletes a key.",
        answers=(Sandbox,),
        errors=(400, 404, 409, 413),
        body=MetadataPatch,
        asks=True,
    )
    async def on_patch(self, req: Request, resp: Response, sandbox_id: str) -> None:
        """JSON Merge Patch over the metadata; the whole sandbox comes back."""
        patch = await _patch.require(req, self._limit)
        problems = list(crowded("metadata", patch))
        if problems:
            raise ValidationFailed(problems)
        await ask_policies(req, patch)
        entry = await self._sandboxes.patch_metadata(sandbox_id, patch)
        answer_bytes(resp, entry.json)


def list_query(req: Request) -> ListQuery:
    """The filter and page of a list. Raises ValidationFailed, InvalidRequest."""
    query = Query(req)
    states = query.texts("state")
    page, page_size = page_of(query)
    query.check()
    return ListQuery(
        states=frozenset(state.lower() for state in states) if states else None,
        metadata=_metadata_filter(query.text("metadata") or ""),
        page=min(page, _LAST_PAGE),
        page_size=page_size,
    )


def page_of(query: Query) -> tuple[int, int]:
    """``page`` and ``pageSize``."""
    return query.integer("page", 1, ge=1), query.integer("pageSize", 20, ge=1, le=200)


def pagination(page: int, page_size: int, total: int) -> bytes:
    """The five fields that every list carries, as JSON."""
    pages = -(-total // page_size)
    return b'{"page":%d,"pageSize":%d,"totalItems":%d,"totalPages":%d,"hasNextPage":%b}' % (
        page,
        page_size,
        total,
        pages,
        b"true" if page < pages else b"false",
    )


def _metadata_filter(text: str) -> dict[str, str]:
    """The second, inner query string of the ``metadata`` parameter (docs/wire/api.md section 7)."""
    if not text:
        return {}
    try:
        return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        message = "metadata must be URL-encoded key=value pairs joined by '&'."
        raise InvalidRequest(codes.INVALID_METADATA_FORMAT, message) from None


def _idempotency_key(req: Request) -> str | None:
    key: str | None = req.get_header("Idempotency-Key")
    if key is not None and not (0 < len(key) <= _MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        message = f"Idempotency-Key must be 1 to {_MAX_KEY_LENGTH} printable ASCII characters."
        raise InvalidRequest(codes.IDEMPOTENCY_KEY_INVALID, message)
    return key


def _created(entry: Entry) -> bytes:
    """The answer to a create, which names neither image nor snapshot nor pool (docs/wire/api.md section 6)."""
    sandbox = public(entry.record)
    sandbox.image = sandbox.snapshot_id = sandbox.allocation = UNSET
    return msgspec.json.encode(sandbox)
