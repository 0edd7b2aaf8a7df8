"""The access token: a gate before every route but the open ones."""

from __future__ import annotations

from _operator import _compare_digest as compare_digest  # hmac's own source, without hmac's import of OpenSSL

from shoal_agent.http.digests import sha256
from shoal_agent.http.request import Request
from shoal_agent.http.response import Response, json_response

HEADER = "X-EXECD-ACCESS-TOKEN"
OPEN = frozenset({"/ping", "/ready", "/internal/init"})
"""Paths that need no token."""


class AccessToken:
    """Compares in constant time. Without a token everything is open."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None
        self._sha256: str | None = None

    def expect_sha256(self, digest: str) -> None:
        """From now on the token is the one whose SHA-256 is `digest` (lower-case hex); for late binding."""
        self._sha256 = digest
        self._token = None

    def gate(self, request: Request) -> Response | None:
        """401 for a request without the token."""
        if (self._token is None and self._sha256 is None) or request.path in OPEN:
            return None
        given = request.headers.get(HEADER.lower())
        if given is not None and self._matches(given):
            return None
        reason = "missing" if not given else "wrong"
        return json_response({"error": f"Unauthorized: the header {HEADER} is {reason}"}, 401)

    def _matches(self, given: str) -> bool:
        if self._sha256 is None:
            return compare_digest(given.encode("latin-1"), self._token or b"")
        return compare_digest(sha256(given.encode("latin-1")).hexdigest(), self._sha256)
