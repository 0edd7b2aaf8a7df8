"""What a handler raises: an answer for the client, or the news that the client is gone."""

from __future__ import annotations

INVALID_REQUEST_BODY = "INVALID_REQUEST_BODY"
MISSING_QUERY = "MISSING_QUERY"
RUNTIME_ERROR = "RUNTIME_ERROR"
INVALID_FILE = "INVALID_FILE"
INVALID_FILE_CONTENT = "INVALID_FILE_CONTENT"
INVALID_FILE_METADATA = "INVALID_FILE_METADATA"
FILE_NOT_FOUND = "FILE_NOT_FOUND"
CONTEXT_NOT_FOUND = "CONTEXT_NOT_FOUND"
NOT_SUPPORTED = "NOT_SUPPORTED"
UNKNOWN = "UNKNOWN"


class ApiError(Exception):
    """An answer ``{"code": code, "message": message}`` with `status`. `headers` are added to the answer's own.

    Raised before a stream's first chunk it becomes the whole answer. Later it ends the stream without a clean end, so
    a handler that has begun a stream reports its failures as an event.
    """

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


class ProtocolError(Exception):
    """A request that breaks HTTP/1.1 itself: answered with `status`, then the connection is closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Disconnected(ConnectionError):
    """The client is gone: raised by reads of a body, by writes, and by a WebSocket. A handler may let it pass."""


def invalid_body(message: str) -> ApiError:
    """400 INVALID_REQUEST_BODY."""
    return ApiError(400, INVALID_REQUEST_BODY, message)
