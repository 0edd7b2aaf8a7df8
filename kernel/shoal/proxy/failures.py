"""What goes wrong on the way to a sandbox (contract/api.md section 15).

The messages are for whoever called the proxy and name no address; the cause, with the address in it, is chained for the
server's own log.
"""

from __future__ import annotations

from shoal.errors import BadGateway, GatewayTimeout, InternalError, InvalidRequest
from shoal.models.codes import BACKEND_CONNECTION_FAILED, BACKEND_RESPONSE_FAILED, BACKEND_TIMEOUT, UNKNOWN_ERROR


class ResponseCut(Exception):
    """The answer broke off after its head was sent, so no error can be rendered any more.

    The edge logs one line and returns without completing the response; the server then closes the connection, and the
    client sees a body that is shorter than announced, never a clean end.
    """


class FramingError(Exception):
    """The upstream's bytes are not one unambiguous HTTP/1.1 response."""


def connection_failed() -> BadGateway:
    return BadGateway(BACKEND_CONNECTION_FAILED, "The sandbox's service could not be connected to.")


def response_failed(detail: str = "ended the connection before it answered") -> BadGateway:
    return BadGateway(BACKEND_RESPONSE_FAILED, f"The sandbox's service {detail}.")


def timed_out() -> GatewayTimeout:
    return GatewayTimeout(BACKEND_TIMEOUT, "The sandbox's service took too long.")


def no_free_connection() -> InternalError:
    return InternalError(UNKNOWN_ERROR, "Too many requests to this port of the sandbox are under way.")


def refused(message: str) -> InvalidRequest:
    return InvalidRequest(UNKNOWN_ERROR, message)
