"""What goes wrong with a request to the API server, and the errors that callers get of it.

The API server's message is shown only where it speaks of the caller's own object (a quota, an invalid field); its raw
answer, headers included, never is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shoal.errors import EngineFailure, Forbidden, InvalidRequest, ShoalError, Unavailable
from shoal.models import codes
from shoal_k8s.api.objects import ApiStatus

API_ERROR: Final = "KUBERNETES::API_ERROR"
QUOTA_EXCEEDED: Final = "KUBERNETES::QUOTA_EXCEEDED"
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
_RETRY_SECONDS: Final = 1.0
_QUOTA: Final = re.compile(r"exceeded quota|failed quota|insufficient quota")
_MUST: Final = re.compile(r"failed quota: .*?must specify (.*)")
_LACKING: Final = re.compile(r" cannot [a-z*]+ (resource|path) ")
"""How every authorizer's refusal reads: ``User "u" cannot create resource "pods" in …``."""


class KubeApiError(Exception):
    """The API server answered with an error.

    Attributes:
        status: HTTP status.
        reason: the machine word: ``NotFound``, ``AlreadyExists``, ``Conflict``, ``Expired``, ``Forbidden``.
        said: its message; may name objects, never credentials.
        request: what was asked, ``GET pods`` or ``PATCH batchsandboxes``: the right that the request needs.
    """

    def __init__(self, status: int, answer: ApiStatus, request: str) -> None:
        self.status = status
        self.reason = answer.reason or ""
        self.said = answer.message or f"HTTP {status}"
        self.retry_after = answer.details.retry_after_seconds if answer.details else None
        self.kind = answer.details.kind if answer.details else None
        self.causes = (answer.details.causes if answer.details else None) or []
        self.request = request
        super().__init__(f"{request}: {status} {self.reason}: {self.said}")

    @property
    def not_found(self) -> bool:
        """The object, or its kind, does not exist."""
        return self.status == 404

    @property
    def exists(self) -> bool:
        """A create met an object of that name."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """The object changed since it was read."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def expired(self) -> bool:
        """The resource version is too old to watch from, or a list's continuation is."""
        return self.status == 410

    @property
    def forbidden(self) -> bool:
        """This server lacks the right that the request needs."""
        return self.status == 403 and not self.over_quota and not self.refused_by_policy

    @property
    def refused_by_policy(self) -> bool:
        """An admission rule refused the object (a limit range, pod security), and not the right to make it.

        The same status and reason say both; only the words distinguish them.
        """
        return self.status == 403 and not self.over_quota and _LACKING.search(self.said) is None

    @property
    def over_quota(self) -> bool:
        """A resource quota refused it; the API server says so in words only."""
        return self.status == 403 and over_quota(self.said)

    def as_shoal_error(self) -> ShoalError:
        """The same as callers hear it."""
        if self.over_quota:
            return Forbidden(QUOTA_EXCEEDED, f"The namespace's quota does not allow it: {quota_words(self.said)}.")
        if self.status == 422 and self.request.startswith("create "):
            return InvalidRequest(codes.INVALID_PARAMETER, f"The cluster refuses it: {self.said}")
        if self.not_found and self.kind == "namespaces":
            return InvalidRequest(codes.INVALID_PARAMETER, "The namespace for sandboxes does not exist on the cluster.")
        if self.refused_by_policy:
            return Forbidden(API_ERROR, f"The namespace's rules do not allow it: {self.said}")
        if self.status == 401:
            return EngineFailure(API_ERROR, "The API server does not accept this server's credentials (401).")
        if self.status == 403:
            return EngineFailure(API_ERROR, f"This server lacks a right on the cluster: {self.request} is forbidden.")
        retry = (self.retry_after or _RETRY_SECONDS) if self.status in _RETRIED else None
        return EngineFailure(API_ERROR, f"The API server refused {self.request}: {self.said}", retry_after=retry)


class ApiUnreachable(Unavailable):
    """No answer at all: the API server is away, or did not answer in time."""

    def __init__(self, request: str, cause: str) -> None:
        super().__init__(API_ERROR, "The Kubernetes API server cannot be reached.")
        self.request = request
        self.cause = cause


@contextmanager
def map_api_errors() -> Iterator[None]:
    """Turns the API server's refusals into errors for callers."""
    try:
        yield
    except KubeApiError as error:
        raise error.as_shoal_error() from error


@contextmanager
def told_of_diagnostics() -> Iterator[None]:
    """The same for logs, events and descriptions, where a lacking right is 403 (docs/wire/kubernetes.md section 19)."""
    try:
        with map_api_errors():
            yield
    except EngineFailure as error:
        cause = error.__cause__
        if isinstance(cause, KubeApiError) and cause.status in (401, 403):
            raise Forbidden(API_ERROR, error.message) from error
        raise


def over_quota(said: str) -> bool:
    """Whether a message speaks of a resource quota, exceeded or not met; there is no machine word for it."""
    return _QUOTA.search(said) is not None


def quota_words(said: str) -> str:
    """The part of such a message that speaks of the quota."""
    found = _QUOTA.search(said)
    return said[found.start() :].rstrip(".") if found else said


def unmet_quota(said: str) -> list[str]:
    """What containers must say for a quota to count them (``limits.cpu``), by such a message, if it says so."""
    found = _MUST.search(said)
    return re.findall(r"(?:limits|requests)\.[a-z-]+|\b(?:cpu|memory|ephemeral-storage)\b", found[1]) if found else []
