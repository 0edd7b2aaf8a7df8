"""What goes wrong on the way to a sandbox (docs/wire/api.md section 15).

The messages are for whoever called the proxy and name the port that they called, but no address; the cause, with the
address in it, is chained for the server's own log.
"""

from __future__ import annotations

from typing import Self

from shoal.errors import BadGateway, GatewayTimeout, InternalError, InvalidRequest, ShoalError
from shoal.models.codes import BACKEND_CONNECTION_FAILED, BACKEND_RESPONSE_FAILED, BACKEND_TIMEOUT, UNKNOWN_ERROR


class ResponseCut(Exception):
    """The answer broke off after its head was sent, so no error can be rendered any more.

    The edge logs one line and returns without completing the response; the server then closes the connection, and the
    client sees a body that is shorter than announced, never a clean end.
    """


class FramingError(Exception):
    """The upstream's bytes are not one unambiguous HTTP/1.1 response."""


class ServiceFailure(ShoalError):
    """What a sandbox's service did wrong. It is found where the port that was called is not known; `at` adds it.

    Args:
        did: the rest of a sentence that begins with the service.
    """

    def __init__(self, code: str, did: str) -> None:
        super().__init__(code, f"The sandbox's service {did}.")
        self._did = did

    def at(self, port: int) -> Self:
        """Name the port in the message; returns itself."""
        self.message = f"The sandbox's service on port {port} {self._did}."
        self.args = (f"{self.code}: {self.message}",)
        return self


class ServiceFailed(ServiceFailure, BadGateway):
    """It could not be connected to, or gave no answer that is one."""


class ServiceTimedOut(ServiceFailure, GatewayTimeout):
    """It took too long."""


class ServiceBusy(ServiceFailure, InternalError):
    """As many requests as may be are under way already."""


def connection_failed() -> ServiceFailed:
    return ServiceFailed(BACKEND_CONNECTION_FAILED, "could not be connected to")


def response_failed(did: str = "ended the connection before it answered") -> ServiceFailed:
    return ServiceFailed(BACKEND_RESPONSE_FAILED, did)


def timed_out() -> ServiceTimedOut:
    return ServiceTimedOut(BACKEND_TIMEOUT, "took too long")


def no_free_connection() -> ServiceBusy:
    return ServiceBusy(UNKNOWN_ERROR, "has too many requests under way")


def refused(message: str) -> InvalidRequest:
    return InvalidRequest(UNKNOWN_ERROR, message)
