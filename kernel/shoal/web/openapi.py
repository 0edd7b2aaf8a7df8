"""The server's own OpenAPI 3.1 document: bodies from the Structs, operations from the table below.

The version is the contract's, not the package's. Every route exists bare and under ``/v1``; both are listed, as
existing clients generate from either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from shoal.models.requests import CreateSandbox, CreateSnapshot, MetadataPatch, RenewExpiration, Wire
from shoal.models.sandbox import Sandbox, State
from shoal.models.secret import Secret
from shoal.plugin.interfaces import Endpoint
from shoal.web.render import ErrorBody
from shoal.web.resources.diagnostics import DiagnosticContent
from shoal.web.resources.server import ReadyReport
from shoal.web.resources.snapshots import Snapshot

TITLE = "OpenSandbox Lifecycle API"
CONTRACT_VERSION = "0.1.0"

Document = dict[str, Any]


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


class SnapshotList(Wire):
    items: list[Snapshot]
    pagination: Pagination


class Health(Struct):
    status: str


class Version(Struct):
    version: str


class Operation(Struct, kw_only=True):
    """One row of the document.

    Attributes:
        answers: of a success: a type, ``text`` for plain text, None for an empty body; several where it varies.
        errors: statuses besides those that every operation shares.
        parameters: beyond those that the path names.
        headers: of a success.
        creates: the path parameter that other operations take and this one's answer holds as ``id``.
    """

    method: str
    path: str
    name: str
    summary: str
    status: int = 200
    answers: tuple[Any, ...] = ()
    errors: tuple[int, ...] = ()
    parameters: tuple[Document, ...] = ()
    body: Any = None
    body_required: bool = True
    headers: tuple[str, ...] = ()
    public: bool = False
    creates: str | None = None


TEXT = "text"
_SHARED_ERRORS = (401, 403, 422, 500, 503)
_STATUS_TEXT = {
    200: "Success",
    202: "Accepted",
    204: "Done; no content",
    400: "A rule beyond the schema is broken",
    401: "The credential is missing or unknown",
    403: "The credential does not allow it, or a quota is used up",
    404: "Not found",
    409: "The present state does not allow it",
    413: "The body is too large",
    422: "The path, query or body does not fit the schema; `detail` lists every problem",
    429: "Too much at once; Retry-After says when to try again",
    500: "The server, or an engine behind it, failed",
    501: "The runtime does not support it",
    503: "A part that is needed is away",
}


def _query(name: str, schema: Document, description: str, **more: Any) -> Document:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description, **more}


_INTEGER: Document = {"type": "integer"}
_STRING: Document = {"type": "string"}
_PAGE = _query("page", {"type": "integer", "minimum": 1, "default": 1}, "Page, counted from 1.")
_PAGE_SIZE = _query("pageSize", {"type": "integer", "minimum": 1, "maximum": 200, "default": 20}, "Items a page.")
_STATES = _query("state", {"type": "array", "items": _STRING}, "Any of these states; repeatable.")
_ITEM = "/sandboxes/{sandbox_id}"
_TAIL = {"type": "integer", "minimum": 1, "maximum": 10000}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": 500}
_SCOPE = "Asks for the JSON form; without it the answer is plain text, which is deprecated."

OPERATIONS = (
    Operation(
        method="post",
        path="/sandboxes",
        name="createSandbox",
        summary="Create a sandbox; it is Pending until it runs.",
        status=202,
        answers=(Sandbox,),
        errors=(400, 404, 409, 413, 429, 501),
        body=CreateSandbox,
        creates="sandbox_id",
        headers=("Location",),
        parameters=(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                "description": "The same key and body give the same sandbox; another body is a 409.",
            },
        ),
    ),
    Operation(
        method="get",
        path="/sandboxes",
        name="listSandboxes",
        summary="List sandboxes, newest first.",
        answers=(SandboxList,),
        errors=(400,),
        parameters=(
            _STATES,
            _query("metadata", _STRING, "URL-encoded pairs, encoded once more: all must match."),
            _PAGE,
            _PAGE_SIZE,
        ),
    ),
    Operation(
        method="get",
        path=_ITEM,
        name="getSandbox",
        summary="Read a sandbox, or wait for it to reach a state.",
        answers=(Sandbox,),
        errors=(404,),
        parameters=(
            _query(
                "wait",
                {"type": "array", "items": {"type": "string", "enum": list(State)}},
                "Answer once it is in one of these states, or has ended, or the time is up.",
            ),
            _query("timeout", {"type": "number", "minimum": 0, "default": 30}, "Seconds to wait, bounded."),
        ),
    ),
    Operation(
        method="delete", path=_ITEM, name="deleteSandbox", summary="Delete it.", status=204, errors=(404, 409, 429)
    ),
    Operation(
        method="patch",
        path=f"{_ITEM}/metadata",
        name="patchSandboxMetadata",
        summary="Merge metadata (RFC 7396): null deletes a key.",
        answers=(Sandbox,),
        errors=(400, 404, 409, 413),
        body=MetadataPatch,
    ),
    Operation(
        method="post",
        path=f"{_ITEM}/pause",
        name="pauseSandbox",
        summary="Freeze it.",
        status=202,
        errors=(400, 404, 409, 429, 501),
    ),
    Operation(
        method="post",
        path=f"{_ITEM}/resume",
        name="resumeSandbox",
        summary="Thaw it.",
        status=202,
        errors=(400, 404, 409, 429, 501),
    ),
    Operation(
        method="post",
        path=f"{_ITEM}/renew-expiration",
        name="renewSandboxExpiration",
        summary="Move its expiry.",
        answers=(RenewExpiration,),
        errors=(400, 404, 409, 413),
        body=RenewExpiration,
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/endpoints/{{port}}",
        name="getSandboxEndpoint",
        summary="Where a port of it is reached; waits, bounded, for one that is Pending.",
        answers=(Endpoint,),
        errors=(400, 404, 409, 501),
        parameters=(
            _query("use_server_proxy", {"type": "boolean", "default": False}, "Go through this server."),
            _query("expires", _INTEGER, "Unix seconds until which a signed route holds."),
        ),
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/logs",
        name="getSandboxLogs",
        summary="Its output.",
        answers=(DiagnosticContent, TEXT),
        errors=(400, 404, 501),
        headers=("Deprecation",),
        parameters=(
            _query("scope", {"type": "string", "enum": ["container", "all"]}, _SCOPE),
            _query("tail", {**_TAIL, "default": 100}, "Plain text only: last lines.", deprecated=True),
            _query("since", _STRING, "Plain text only: not older than, as 10m or 1h.", deprecated=True),
            _query("container", _STRING, "Plain text only: which container.", deprecated=True),
        ),
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/events",
        name="getSandboxEvents",
        summary="What befell it.",
        answers=(DiagnosticContent, TEXT),
        errors=(400, 404, 501),
        headers=("Deprecation",),
        parameters=(
            _query("scope", {"type": "string", "enum": ["runtime", "all"]}, _SCOPE),
            _query("limit", {**_LIMIT, "default": 50}, "Plain text only: most lines.", deprecated=True),
        ),
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/inspect",
        name="getSandboxInspect",
        summary="How its engine describes it.",
        answers=(TEXT,),
        errors=(400, 404, 501),
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/summary",
        name="getSandboxDiagnosticsSummary",
        summary="Inspect, events and logs on one page.",
        answers=(TEXT,),
        errors=(404,),
        parameters=(
            _query("tail", {**_TAIL, "default": 50}, "Log lines."),
            _query("event_limit", {**_LIMIT, "default": 20}, "Event lines."),
        ),
    ),
    Operation(
        method="post",
        path=f"{_ITEM}/snapshots",
        name="createSnapshot",
        summary="Capture a running sandbox.",
        status=202,
        answers=(Snapshot,),
        errors=(400, 404, 409, 413, 429, 501),
        body=CreateSnapshot,
        creates="snapshot_id",
        body_required=False,
        headers=("Location",),
    ),
    Operation(
        method="get",
        path="/snapshots",
        name="listSnapshots",
        summary="List snapshots, newest first.",
        answers=(SnapshotList,),
        errors=(501,),
        parameters=(
            _query("sandboxId", _STRING, "Of this sandbox."),
            _query("name", _STRING, "Of exactly this name."),
            _STATES,
            _PAGE,
            _PAGE_SIZE,
        ),
    ),
    Operation(
        method="get",
        path="/snapshots/{snapshot_id}",
        name="getSnapshot",
        summary="Read a snapshot.",
        answers=(Snapshot,),
        errors=(404, 501),
    ),
    Operation(
        method="delete",
        path="/snapshots/{snapshot_id}",
        name="deleteSnapshot",
        summary="Delete a snapshot.",
        status=204,
        errors=(404, 409, 429, 501),
    ),
    Operation(method="get", path="/health", name="getHealth", summary="Is it alive?", answers=(Health,), public=True),
    Operation(
        method="get", path="/version", name="getVersion", summary="Which package?", answers=(Version,), public=True
    ),
    Operation(
        method="get", path="/ready", name="getReadiness", summary="Can it work?", answers=(ReadyReport,), public=True
    ),
)


def document() -> bytes:
    """The document as JSON."""
    kinds = {kind for row in OPERATIONS for kind in (*row.answers, row.body) if kind not in (None, TEXT)}
    ordered = sorted(kinds | {ErrorBody}, key=str)
    schemas, components = msgspec.json.schema_components(
        ordered, schema_hook=_schema_of, ref_template="#/components/schemas/{name}"
    )
    refs = dict(zip(map(str, ordered), schemas, strict=True))
    paths: dict[str, Document] = {}
    for mount in ("", "/v1"):
        for row in OPERATIONS:
            if not (mount and row.public):
                paths.setdefault(mount + row.path, {})[row.method] = _operation(row, mount, refs)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": TITLE, "version": CONTRACT_VERSION, "description": (__doc__ or "").split("\n")[0]},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"apiKey": {"type": "apiKey", "in": "header", "name": "OPEN-SANDBOX-API-KEY"}},
            },
            "security": [{"apiKey": []}, {}],
        }
    )


def _operation(row: Operation, mount: str, refs: dict[str, Document]) -> Document:
    shared = () if row.public else _SHARED_ERRORS
    answers: Document = {str(row.status): _success(row, refs)}
    if row.creates:
        answers[str(row.status)]["links"] = _links(row.creates, mount)
    for status in sorted({*row.errors, *shared}):
        answers[str(status)] = _response(status, {"application/json": {"schema": refs[str(ErrorBody)]}})
    if row.name == "getReadiness":
        answers["503"] = _response(503, {"application/json": {"schema": refs[str(ReadyReport)]}})
    operation: Document = {
        "operationId": _operation_id(row, mount),
        "summary": row.summary,
        "parameters": [*_path_parameters(row.path), *row.parameters, _REQUEST_ID],
        "responses": answers,
    }
    if row.public:
        operation["security"] = []
    if row.body is not None:
        schema = refs[str(row.body)]
        if not row.body_required:
            schema = {"anyOf": [schema, {"type": "null"}]}
        operation["requestBody"] = {
            "required": row.body_required,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "schema": _STRING,
    "description": "Echoed in the answer; made up when absent.",
}


def _success(row: Operation, refs: dict[str, Document]) -> Document:
    content: Document = {}
    for answer in row.answers:
        if answer == TEXT:
            content["text/plain; charset=utf-8"] = {"schema": _STRING}
        else:
            content["application/json"] = {"schema": refs[str(answer)]}
    return _response(row.status, content, row.headers)


def _response(status: int, content: Document, headers: Iterable[str] = ()) -> Document:
    names = ["X-Request-ID", *headers, *(["Retry-After"] if status == 429 else [])]
    response: Document = {
        "description": _STATUS_TEXT[status],
        "headers": {name: {"schema": _STRING} for name in names},
    }
    if content:
        response["content"] = content
    return response


def _links(parameter: str, mount: str) -> Document:
    """From what was created to the operations on it."""
    return {
        name: {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
        for row in OPERATIONS
        if f"{{{parameter}}}" in row.path
        for name in [_operation_id(row, mount)]
    }


def _operation_id(row: Operation, mount: str) -> str:
    return row.name + ("V1" if mount else "")


def _path_parameters(path: str) -> list[Document]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    schemas = {"port": {"type": "integer"}}
    return [{"name": name, "in": "path", "required": True, "schema": schemas.get(name, _STRING)} for name in names]


def _schema_of(kind: type) -> Document:
    if kind is Secret:
        return {"type": "string", "format": "password", "writeOnly": True}
    raise NotImplementedError(kind)
