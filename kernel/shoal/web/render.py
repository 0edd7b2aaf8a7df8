"""Every failure as ``{"code", "message"}``, in one place (docs/wire/api.md section 3).

A 422 keeps the ``detail`` list, and an unknown route or method the ``detail`` text, that older clients read.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType

from shoal.errors import FieldProblem, InternalError, MethodNotAllowed, NotFound, ShoalError, ValidationFailed
from shoal.models import codes
from shoal.models.statuses import readable
from shoal.web import agents

Headers = list[tuple[bytes, bytes]]


class ErrorBody(Struct):
    """The body of every error."""

    code: str
    message: str
    detail: list[FieldProblem] | str | UnsetType = UNSET


_encoder = msgspec.json.Encoder()
_DETAILS = {codes.NOT_FOUND: "Not Found", codes.METHOD_NOT_ALLOWED: "Method Not Allowed"}


def body(error: ShoalError) -> bytes:
    """The JSON of a failure."""
    if isinstance(error, ValidationFailed):
        return _encoder.encode(ErrorBody(error.code, error.message, error.problems))
    return _encoder.encode(ErrorBody(error.code, error.message, _DETAILS.get(error.code, UNSET)))


def status(error: ShoalError, method: str, path: str, agent: str | None) -> int:
    """The status of a failure: the error's own, or to an SDK one that it parses on this route.

    With any other the SDKs lose code and message. Whoever else asks (a proxy that balances, a program that repeats)
    is better served by what HTTP means.
    """
    return readable(method, path, error.status) if agents.SDK.search(agent or "") else error.status


def headers(error: ShoalError, content: bytes) -> Headers:
    """The response headers of a failure, for ASGI."""
    own = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    if error.status == 503 and "Retry-After" not in error.headers:
        own.append((b"retry-after", b"1"))
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content)), *own]


def unknown_route() -> NotFound:
    """The 404 of a path that is no route."""
    return NotFound(codes.NOT_FOUND, "There is no such route.")


def wrong_method(allow: list[str]) -> MethodNotAllowed:
    """The 405 of a path that knows other methods."""
    message = f"The method is not allowed here; allowed: {', '.join(allow)}."
    return MethodNotAllowed(codes.METHOD_NOT_ALLOWED, message, headers={"Allow": ", ".join(allow)})


def internal() -> InternalError:
    """What a bug looks like from outside; its text stays in the log."""
    return InternalError(codes.INTERNAL_ERROR, "The server failed in an unforeseen way; its log has the request id.")
