"""CORS: any origin is reflected, with credentials (docs/wire/api.md section 3).

What a sandbox's own service says about CORS is left alone: the reflected headers fill in only where it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.web.render import Headers

ALLOW_ORIGIN = b"access-control-allow-origin"
PREFLIGHT_BODY = b"OK"

_METHODS = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_CREDENTIALS = (b"access-control-allow-credentials", b"true")
_EXPOSED = (b"access-control-expose-headers", b"OPEN-SANDBOX-ORIGIN")
_VARY = (b"vary", b"Origin")


def is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks for leave to send the real request."""
    return method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


def preflight_headers(headers: Mapping[bytes, bytes]) -> Headers:
    """What the answer to a preflight carries besides `response_headers`."""
    answer = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(PREFLIGHT_BODY)),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", b"600"),
    ]
    requested = headers.get(b"access-control-request-headers")
    if requested is not None:
        answer.append((b"access-control-allow-headers", requested))
    return answer


def response_headers(origin: bytes) -> Headers:
    """What every answer to a request from ``origin`` carries."""
    return [(ALLOW_ORIGIN, origin), _CREDENTIALS, _EXPOSED, _VARY]
