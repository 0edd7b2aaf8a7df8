"""Every operation of the API as data: what it takes, what it answers, how it fails."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from shoal.models.pools import CreatePool, Pool, PoolList, UpdatePool
from shoal.models.requests import CreateSandbox, CreateSnapshot, MetadataPatch, NetworkPolicy, RenewExpiration, Wire
from shoal.models.sandbox import Sandbox, State
from shoal.plugin.interfaces import Endpoint
from shoal.web.resources.diagnostics import DiagnosticContent
from shoal.web.resources.metrics import MetricsEvent
from shoal.web.resources.network_policy import NetworkRules, Targets
from shoal.web.resources.server import ReadyReport
from shoal.web.resources.snapshots import Snapshot

Document = dict[str, Any]
JsonObject = dict[str, Any]
"""Of an answer whose form is another's to say."""
TEXT = "text"


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
        example: a body that the server accepts, where the schema alone does not lead to one.
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
    example: Document | None = None
    headers: tuple[str, ...] = ()
    public: bool = False
    creates: str | None = None


def _query(name: str, schema: Document, description: str, **more: Any) -> Document:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description, **more}


_INTEGER: Document = {"type": "integer"}
_STRING: Document = {"type": "string"}
_PAGE = _query("page", {"type": "integer", "minimum": 1, "default": 1}, "Page, counted from 1.")
_PAGE_SIZE = _query("pageSize", {"type": "integer", "minimum": 1, "maximum": 200, "default": 20}, "Items per page.")
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
        example={"image": {"uri": "host"}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600},
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
                "States to wait for; repeatable. Answered also when the sandbox has ended or `timeout` is over.",
            ),
            _query(
                "timeout",
                {"type": "number", "minimum": 0, "default": 30},
                "Seconds to wait at most; the server may wait less.",
            ),
        ),
    ),
    Operation(
        method="delete",
        path=_ITEM,
        name="deleteSandbox",
        summary="Delete a sandbox.",
        status=204,
        errors=(404, 409, 429),
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
        summary="Pause a sandbox: its processes are frozen.",
        status=202,
        errors=(400, 404, 409, 429, 501),
    ),
    Operation(
        method="post",
        path=f"{_ITEM}/resume",
        name="resumeSandbox",
        summary="Resume a paused sandbox.",
        status=202,
        errors=(400, 404, 409, 429, 501),
    ),
    Operation(
        method="post",
        path=f"{_ITEM}/renew-expiration",
        name="renewSandboxExpiration",
        summary="Set a later expiry.",
        answers=(RenewExpiration,),
        errors=(400, 404, 409, 413),
        body=RenewExpiration,
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/endpoints/{{port}}",
        name="getSandboxEndpoint",
        summary="Read where a port of a sandbox is reached; waits for one that is Pending.",
        answers=(Endpoint,),
        errors=(400, 404),
        parameters=(
            _query("use_server_proxy", {"type": "boolean", "default": False}, "Whether to go through this server."),
            _query("expires", _INTEGER, "Unix seconds until which a signed route holds."),
        ),
    ),
    *(
        Operation(
            method=method,
            path=f"{_ITEM}/networkpolicy",
            name=f"{method}SandboxNetworkPolicy",
            summary=summary,
            answers=(JsonObject,),
            errors=(400, 404, 409, 413, 502, 504),
            body=body,
        )
        for method, body, summary in (
            ("get", None, "Read the network policy of a sandbox, from its egress sidecar."),
            ("put", NetworkPolicy, "Replace the network policy of a sandbox."),
            ("patch", NetworkRules, "Replace the rules of these targets, and add new ones."),
            ("delete", Targets, "Remove the rules of these targets."),
        )
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/logs",
        name="getSandboxLogs",
        summary="Read the output of a sandbox.",
        answers=(DiagnosticContent, TEXT),
        errors=(400, 404, 501),
        headers=("Deprecation",),
        parameters=(
            _query("scope", {"type": "string", "enum": ["container", "all"]}, _SCOPE),
            _query("tail", {**_TAIL, "default": 100}, "Plain text only: number of last lines.", deprecated=True),
            _query("since", _STRING, "Plain text only: greatest age, as `10m` or `1h`.", deprecated=True),
            _query("container", _STRING, "Plain text only: name of the container.", deprecated=True),
        ),
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/events",
        name="getSandboxEvents",
        summary="Read the events of a sandbox.",
        answers=(DiagnosticContent, TEXT),
        errors=(400, 404, 501),
        headers=("Deprecation",),
        parameters=(
            _query("scope", {"type": "string", "enum": ["runtime", "all"]}, _SCOPE),
            _query("limit", {**_LIMIT, "default": 50}, "Plain text only: number of lines at most.", deprecated=True),
        ),
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/inspect",
        name="getSandboxInspect",
        summary="Read how the engine describes a sandbox.",
        answers=(TEXT,),
        errors=(400, 404, 501),
    ),
    Operation(
        method="get",
        path=f"{_ITEM}/diagnostics/summary",
        name="getSandboxDiagnosticsSummary",
        summary="Read inspect, events and logs of a sandbox as one text.",
        answers=(TEXT,),
        errors=(404,),
        parameters=(
            _query("tail", {**_TAIL, "default": 50}, "Number of log lines at most."),
            _query("event_limit", {**_LIMIT, "default": 20}, "Number of events at most."),
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
        parameters=(
            _query("sandboxId", _STRING, "Identifier of the sandbox that it was made of."),
            _query("name", _STRING, "Exact name of the snapshot."),
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
        errors=(404,),
    ),
    Operation(
        method="delete",
        path="/snapshots/{snapshot_id}",
        name="deleteSnapshot",
        summary="Delete a snapshot.",
        status=204,
        errors=(404, 409, 429, 501),
    ),
    Operation(
        method="post",
        path="/pools",
        name="createPool",
        summary="Create a pool: sandboxes of one template, started ahead.",
        status=201,
        answers=(Pool,),
        errors=(400, 404, 409, 413, 429, 501),
        body=CreatePool,
        example={
            "name": "warm",
            "template": {"image": {"uri": "host"}, "entrypoint": ["sleep", "600"]},
            "capacitySpec": {"bufferMin": 0, "bufferMax": 0, "poolMin": 0, "poolMax": 2},
        },
        headers=("Location",),
    ),
    Operation(
        method="get",
        path="/pools",
        name="listPools",
        summary="List pools, by name.",
        answers=(PoolList,),
        errors=(501,),
    ),
    Operation(
        method="get",
        path="/pools/{name}",
        name="getPool",
        summary="Read a pool.",
        answers=(Pool,),
        errors=(404, 501),
    ),
    Operation(
        method="put",
        path="/pools/{name}",
        name="updatePool",
        summary="Change how many sandboxes a pool holds.",
        answers=(Pool,),
        errors=(400, 404, 409, 413, 429, 501),
        body=UpdatePool,
    ),
    Operation(
        method="delete",
        path="/pools/{name}",
        name="deletePool",
        summary="Delete a pool and its idle sandboxes; those that were taken stay.",
        status=204,
        errors=(404, 409, 429, 501),
    ),
    Operation(
        method="post",
        path="/metrics/events",
        name="reportMetricsEvent",
        summary="Report an event, as SDKs do after a create.",
        status=204,
        errors=(413,),
        body=MetricsEvent,
    ),
    Operation(
        method="get",
        path="/health",
        name="getHealth",
        summary="Check that the server answers.",
        answers=(Health,),
        public=True,
    ),
    Operation(
        method="get",
        path="/version",
        name="getVersion",
        summary="Read the version of the server.",
        answers=(Version,),
        public=True,
    ),
    Operation(
        method="get",
        path="/ready",
        name="getReadiness",
        summary="Check that every component can work.",
        answers=(ReadyReport,),
        public=True,
    ),
)
