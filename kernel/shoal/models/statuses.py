"""Statuses that the clients of the API can read (docs/wire/api.md section 21).

The SDKs are generated: on each route they parse ``code`` and ``message`` of the statuses that the route documents, and
lose both with any other. They therefore get the nearest status that they parse there.
"""

from __future__ import annotations

from typing import Final

ENDPOINT: Final = ("GET", "/sandboxes/{sandbox_id}/endpoints/{port}")

_SHARED = frozenset({401, 403, 404, 500})
_CHANGE = _SHARED | {409}
_CHECKED = _CHANGE | {400}
_POLICY = "/sandboxes/{sandbox_id}/networkpolicy"

PARSED: Final[dict[tuple[str, str], frozenset[int]]] = {
    ("POST", "/sandboxes"): frozenset({400, 401, 403, 409, 429, 500}),
    ("GET", "/sandboxes"): frozenset({400, 401, 500}),
    ("GET", "/sandboxes/{sandbox_id}"): _SHARED,
    ("DELETE", "/sandboxes/{sandbox_id}"): _CHANGE,
    ("POST", "/sandboxes/{sandbox_id}/pause"): _CHANGE,
    ("POST", "/sandboxes/{sandbox_id}/resume"): _CHANGE,
    ("POST", "/sandboxes/{sandbox_id}/renew-expiration"): _CHECKED,
    ("PATCH", "/sandboxes/{sandbox_id}/metadata"): _CHECKED,
    ENDPOINT: _SHARED | {400},
    ("GET", _POLICY): _SHARED | {503},
    ("PUT", _POLICY): _CHECKED | {503},
    ("PATCH", _POLICY): _CHECKED | {503},
    ("DELETE", _POLICY): _CHECKED | {503},
    ("POST", "/sandboxes/{sandbox_id}/snapshots"): _CHECKED,
    ("GET", "/snapshots"): frozenset({400, 401, 500}),
    ("GET", "/snapshots/{snapshot_id}"): _CHANGE,
    ("DELETE", "/snapshots/{snapshot_id}"): _CHANGE,
    ("POST", "/templates"): frozenset({400, 401, 409, 501, 503}),
    ("GET", "/templates"): frozenset({401, 501}),
    ("GET", "/templates/{template_id}"): frozenset({401, 404, 501}),
    ("DELETE", "/templates/{template_id}"): frozenset({401, 404, 501}),
    ("POST", "/metrics/events"): frozenset({400, 401, 500}),
}
"""Of the Python SDK 1.1.1, which parses the most; routes that it does not call are not here."""

REPEATED: Final = frozenset({429, 502, 503})
"""The SDKs repeat a request with one of `REPEATED_METHODS` by themselves when it is answered so."""
REPEATED_METHODS: Final = frozenset({"GET", "PUT", "DELETE"})

_NEAREST: dict[int, tuple[int, ...]] = {
    400: (409, 404),
    403: (401,),
    404: (400, 500),
    408: (400, 409, 404, 500),
    409: (400, 404),
    413: (400, 409),
    422: (400, 409),
    429: (409, 500),
    431: (400, 409, 404, 500),
    500: (503,),
    501: (400, 409),
    502: (500, 503),
    503: (500,),
    504: (500, 503),
    508: (500, 503),
}


def nearest(status: int, allowed: frozenset[int]) -> int:
    """The status itself if it is allowed, else the one closest in meaning that is; itself again if none is."""
    if status in allowed:
        return status
    return next((other for other in _NEAREST.get(status, ()) if other in allowed), status)


def readable(method: str, path: str, status: int) -> int:
    """The status with which an SDK can read a failure of this request.

    A status that makes the SDK repeat the request is left to it, and so is 501, which the API fixes for what a
    runtime lacks (docs/wire/api.md sections 9 to 11).
    """
    if status == 501 or (method in REPEATED_METHODS and status in REPEATED):
        return status
    allowed = next((parsed for route, parsed in PARSED.items() if _is_of(method, path, route)), None)
    return status if allowed is None else nearest(status, allowed)


def _is_of(method: str, path: str, route: tuple[str, str]) -> bool:
    """Whether a request, bare or under ``/v1``, is one of this route."""
    sent, known = path.removeprefix("/v1").split("/"), route[1].split("/")
    return (
        method == route[0]
        and len(sent) == len(known)
        and all(part == name or name.startswith("{") for part, name in zip(sent, known, strict=True))
    )
