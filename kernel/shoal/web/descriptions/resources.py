"""Texts of everything else: what is answered, snapshots, pools, the server itself."""

from __future__ import annotations

from typing import Final

from shoal.web.descriptions.text import Schemas, text, time_text

_REASON = "Machine-readable reason of the state."
_MESSAGE = "Reason of the state for people."
_SINCE = time_text("When the state last changed, UTC.")
_UUID = "7a1c0f5e-5d0c-4b4e-9f5c-0c8f1c9f2b11"

RESOURCES: Final[Schemas] = {
    "Sandbox": (
        "A sandbox. Fields without a value are absent.",
        {
            "id": text("Identifier of the sandbox.", _UUID),
            "status": "Status of the sandbox.",
            "createdAt": time_text("When the create was accepted, UTC."),
            "entrypoint": text("Command of the sandbox.", ["sleep", "600"]),
            "image": "Image that it was created from.",
            "snapshotId": "Snapshot that it was created from.",
            "platform": "Operating system and architecture that were asked for.",
            "metadata": text("Labels of the caller's own.", {"team": "web"}),
            "extensions": "Extensions of the create whose names begin with `opensandbox.extensions.`.",
            "expiresAt": time_text("When it expires, UTC. Absent: it lives until it is deleted."),
            "allocation": "Pool that it was taken from.",
        },
    ),
    "Status": (
        "State of a sandbox and why.",
        {
            "state": "State of the sandbox.",
            "reason": text(_REASON, "ACCEPTED"),
            "message": _MESSAGE,
            "lastTransitionAt": _SINCE,
        },
    ),
    "State": ("State of a sandbox.", {}),
    "ImageRef": ("An image.", {"uri": text("Name of the image.", "python:3.13-slim")}),
    "Allocation": (
        "The pool that a sandbox was taken from.",
        {"poolRef": "Name of the pool.", "mode": "Always `pool`.", "state": "Always `allocated`."},
    ),
    "SandboxList": ("A page of sandboxes.", {"items": "Sandboxes, newest first.", "pagination": "Place in the list."}),
    "Pagination": (
        "Place of a page in its list.",
        {
            "page": "Number of this page, counted from 1.",
            "pageSize": "Items per page.",
            "totalItems": "Items on all pages.",
            "totalPages": "Number of pages; 0 where nothing matches.",
            "hasNextPage": "Whether another page follows.",
        },
    ),
    "Endpoint": (
        "Where a port of a sandbox is reached.",
        {
            "endpoint": text("Host, and port and path where needed, without a scheme.", "192.0.2.7:40123/proxy/8000"),
            "headers": "Headers to send with every request to it.",
        },
    ),
    "CreateSnapshot": ("A snapshot to create.", {"name": text("Name, not unique.", "before-upgrade")}),
    "Snapshot": (
        "A snapshot of a sandbox's file system. Fields without a value are absent.",
        {
            "id": text("Identifier of the snapshot.", _UUID),
            "sandboxId": "Sandbox that it was made of.",
            "status": "Status of the snapshot.",
            "createdAt": time_text("When the create was accepted, UTC."),
            "name": "Name that its caller gave.",
        },
    ),
    "SnapshotStatus": (
        "State of a snapshot and why.",
        {
            "state": text("`Creating`, `Ready`, `Failed` or `Deleting`.", "Ready"),
            "reason": _REASON,
            "message": _MESSAGE,
            "lastTransitionAt": _SINCE,
        },
    ),
    "SnapshotList": ("A page of snapshots.", {"items": "Snapshots, newest first.", "pagination": "Place in the list."}),
    "CreatePool": (
        "A pool to create.",
        {
            "name": text("DNS label; no other pool has it.", "warm"),
            "template": "What every member is like. On Kubernetes a pod template, elsewhere the fields of a create.",
            "capacitySpec": "How many sandboxes it holds.",
            "matchCreates": "Whether a create that asks for just this template takes from the pool without naming it.",
        },
    ),
    "UpdatePool": ("A change of a pool.", {"capacitySpec": "How many sandboxes it holds from now on."}),
    "CapacitySpec": (
        "How many sandboxes a pool holds.",
        {
            "bufferMax": "Idle sandboxes at most.",
            "bufferMin": "Idle sandboxes at least.",
            "poolMax": "Idle and taken sandboxes together at most; outweighs the other three.",
            "poolMin": "Idle and taken sandboxes together at least.",
        },
    ),
    "Pool": (
        "A pool of sandboxes that are started ahead.",
        {
            "name": "Name of the pool.",
            "capacitySpec": "How many sandboxes it holds.",
            "status": "Members at this moment.",
            "createdAt": time_text("When it was created, UTC."),
        },
    ),
    "PoolStatus": (
        "Members of a pool at this moment.",
        {
            "total": "Members: idle, being made, and taken.",
            "allocated": "Members that were taken.",
            "available": "Members that a create can take at once.",
            "revision": "Revision of the template.",
            "message": "Why members could not be started lately.",
        },
    ),
    "PoolList": ("All pools.", {"items": "Pools, by name."}),
    "DiagnosticContent": (
        "A diagnostic text.",
        {
            "sandboxId": "Sandbox that it is about.",
            "kind": text("`logs` or `events`.", "logs"),
            "scope": "Scope that was asked for.",
            "content": "The text.",
            "contentLength": "Length of the text in bytes.",
            "truncated": "Whether the beginning is left out.",
            "delivery": "How the text is delivered: always `inline`.",
            "contentType": "Media type of the text.",
            "warnings": "What could not be read.",
        },
    ),
    "MetricsEvent": (
        "How long a create took for its caller.",
        {
            "eventType": "Kind of event.",
            "createDurationMs": "Duration in milliseconds.",
            "success": "Whether the create succeeded.",
            "sandboxId": "Sandbox that was created.",
            "image": "Image of the create.",
        },
    ),
    "Health": ("Sign of life.", {"status": text("`healthy` while the server answers.", "healthy")}),
    "Version": ("Version of the server.", {"version": text("Version of the package.", "0.1.0")}),
    "ReadyReport": (
        "Whether the server can work.",
        {
            "status": "`ready` where every component can work.",
            "components": text(
                "`ok` or the problem, by `plugin/family/name`.", {"docker_runtime/runtime/docker": "ok"}
            ),
            "code": text("Machine code; with a 503 only.", "GENERAL::NOT_READY"),
            "message": "What cannot work; with a 503 only.",
        },
    ),
    "ErrorBody": (
        "A failure.",
        {
            "code": text("Machine code.", "SANDBOX::INVALID_PARAMETER"),
            "message": "What is wrong, for people.",
            "detail": "With a 422, every problem of the request; with an unknown route or method, a sentence.",
        },
    ),
    "FieldProblem": (
        "A problem of a request.",
        {
            "type": text("Kind of problem.", "missing"),
            "loc": text("Place: `body`, `query` or `path`, then names and indexes.", ["body", "timeout"]),
            "msg": "The problem, for people.",
            "ctx": "Bounds and other values of the rule.",
        },
    ),
}
