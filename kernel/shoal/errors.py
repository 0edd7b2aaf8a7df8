"""Every failure a caller can see, as one family of exceptions.

::

    ShoalError                  status  carries status, code, message, headers
    ├── InvalidRequest          400     a rule that a schema cannot say
    ├── Unauthenticated         401     no credential, or one that is not known
    ├── Forbidden               403     a known caller without the right
    ├── NotFound                404
    ├── MethodNotAllowed        405
    ├── RequestTimeout          408     the client did not send the request in time
    ├── Conflict                409     the state does not allow it
    ├── PayloadTooLarge         413
    ├── ValidationFailed        422     a schema failure; also carries ``detail``
    ├── RateLimited             429     carries Retry-After
    ├── HeadTooLarge            431     the head or the trailers exceed a bound
    ├── InternalError           500
    │   └── EngineFailure       500     an engine refused or broke; may carry ``retry_after``
    ├── NotSupported            501     a capability the runtime did not declare
    ├── BadGateway              502
    ├── Unavailable             503     carries Retry-After
    ├── GatewayTimeout          504
    └── LoopDetected            508     a proxied request that comes back again and again
    ConfigError                 -       the configuration or a plugin is wrong; the process does not start

A plugin raises one of these and nothing else; anything else that leaves a plugin is a bug and is answered as a 500
``GENERAL::INTERNAL_ERROR`` whose text stays in the log. Codes have the form ``SCOPE::REASON``; the message is for
people and never holds a secret or the text of a caller's credentials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "BadGateway",
    "ConfigError",
    "Conflict",
    "EngineFailure",
    "FieldProblem",
    "Forbidden",
    "GatewayTimeout",
    "HeadTooLarge",
    "InternalError",
    "InvalidRequest",
    "LoopDetected",
    "MethodNotAllowed",
    "NotFound",
    "NotSupported",
    "PayloadTooLarge",
    "RateLimited",
    "RequestTimeout",
    "ShoalError",
    "StoreFull",
    "Unauthenticated",
    "Unavailable",
    "ValidationFailed",
]


class FieldProblem(Struct, omit_defaults=True):
    """One entry of a 422's ``detail`` list, without the value that was sent (docs/wire/api.md section 3)."""

    type: str
    loc: list[str | int]
    msg: str
    ctx: dict[str, str | int | float] | None = None


class ShoalError(Exception):
    """The base: what the web layer needs to answer, and nothing about how it is rendered.

    Args:
        code: machine code, ``SCOPE::REASON``.
        message: one sentence for people, free of secrets.
        headers: response headers that belong to the failure.
    """

    status: ClassVar[int] = 500

    def __init__(self, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.headers: dict[str, str] = dict(headers or {})


class InvalidRequest(ShoalError):
    """A rule beyond the schema was broken; repeating the request unchanged cannot succeed."""

    status = 400


class Unauthenticated(ShoalError):
    """The request carries no credential, or one that nobody knows."""

    status = 401


class Forbidden(ShoalError):
    """The caller is known but lacks the right, or a quota is used up."""

    status = 403


class NotFound(ShoalError):
    """No such thing, or not one that this caller may know of."""

    status = 404


class MethodNotAllowed(ShoalError):
    """The path exists, the method does not; ``Allow`` is among the headers."""

    status = 405


class RequestTimeout(ShoalError):
    """The client did not send the whole request in the time that the server gives it."""

    status = 408


class Conflict(ShoalError):
    """The present state does not allow the operation."""

    status = 409


class PayloadTooLarge(ShoalError):
    """The body exceeds ``server.max_body_bytes``."""

    status = 413


class ValidationFailed(ShoalError):
    """The path, query or body does not fit the schema.

    Args:
        problems: every failure found, in the order of the fields.
    """

    status = 422

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = list(problems)
        super().__init__("GENERAL::VALIDATION_ERROR", "; ".join(map(_sentence, self.problems)) or "invalid request")


class RateLimited(ShoalError):
    """Try again after ``retry_after`` seconds (rounded up, at least 1)."""

    status = 429

    def __init__(self, code: str, message: str, *, retry_after: float) -> None:
        super().__init__(code, message, headers={"Retry-After": _seconds(retry_after)})


class HeadTooLarge(ShoalError):
    """The head, the trailers or a chunk's extensions exceed ``server.max_head_bytes`` or ``max_head_fields``."""

    status = 431


class InternalError(ShoalError):
    """Something broke on this side of the API."""

    status = 500


class EngineFailure(InternalError):
    """What a runtime raises when its engine refuses or breaks.

    Args:
        retry_after: seconds after which the very same call may succeed (an engine restarting, a lost connection); None
            when repeating it is pointless. The lifecycle decides whether it retries.
    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after = retry_after


class NotSupported(ShoalError):
    """The runtime does not declare the capability that the request needs; nothing was touched."""

    status = 501


class BadGateway(ShoalError):
    """The sandbox's own service could not be reached or did not speak HTTP."""

    status = 502


class Unavailable(ShoalError):
    """A part that is needed is away; the same request may succeed later.

    Args:
        retry_after: seconds until it is worth another try, where nothing better is known (rounded up, at least 1).
    """

    status = 503

    def __init__(
        self, code: str, message: str, *, headers: Mapping[str, str] | None = None, retry_after: float = 1.0
    ) -> None:
        super().__init__(code, message, headers={"Retry-After": _seconds(retry_after), **(headers or {})})


class StoreFull(Unavailable):
    """The store has no room, or its medium fails: nothing of the call was kept. What ends a sandbox goes on without."""


class GatewayTimeout(ShoalError):
    """The sandbox's own service, or an engine, took too long."""

    status = 504


class LoopDetected(ShoalError):
    """A proxied request has come back to the proxy too many times (RFC 5842 section 7.2)."""

    status = 508


class ConfigError(Exception):
    """The configuration, or a plugin that it asks for, is wrong: one clear line, no traceback, exit code 1."""


def _seconds(after: float) -> str:
    """Whole ones, at least 1, for the header."""
    return str(max(1, -int(-after // 1)))


def _sentence(problem: FieldProblem) -> str:
    where = ".".join(str(part) for part in problem.loc)
    return f"{where}: {problem.msg}" if where else problem.msg
