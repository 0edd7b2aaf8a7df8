"""One request and its answer, between a client and an upstream connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.errors import BadGateway, ShoalError
from shoal.proxy.failures import ResponseCut
from shoal.proxy.headers import response_headers

if TYPE_CHECKING:
    from shoal.proxy.asgi import Send
    from shoal.proxy.client import Client
    from shoal.proxy.connection import UpstreamConnection
    from shoal.proxy.headers import RequestHeaders
    from shoal.proxy.pool import ConnectionPool, Destination
    from shoal.proxy.response import ResponseHead

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 section 9.2.2
GATHER_BYTES: Final = 64 * 1024
"""A body announced as no longer than this is read whole before the upstream is asked: one write, and repeatable."""


class Exchange:
    """`ask`, then `answer`.

    Args:
        response_limit: seconds from the request's last byte to the answer's head.
        read_limit: seconds of silence within the answer; 0 = any.
    """

    __slots__ = ("_client", "_connection", "_place", "_pool", "_read_limit", "_response_limit")

    def __init__(
        self, pool: ConnectionPool, place: Destination, client: Client, *, response_limit: float, read_limit: float
    ) -> None:
        self._pool = pool
        self._place = place
        self._client = client
        self._response_limit = response_limit
        self._read_limit = read_limit
        self._connection: UpstreamConnection

    async def ask(self, method: str, head: bytes, request: RequestHeaders) -> ResponseHead:
        """Send the request and wait for the answer's head.

        A reused connection that the upstream had closed in silence is replaced once, where asking twice is harmless.
        For other requests the socket is asked beforehand.

        Raises BadGateway, GatewayTimeout, InternalError.
        """
        body = await self._short_body(request)
        repeatable = body is not None and method in IDEMPOTENT
        connection = self._pool.reuse(self._place, probe=not repeatable)
        if connection is None:
            connection = await self._pool.connect(self._place)
        try:
            return await self._ask(connection, method, head, request, body)
        except BadGateway:
            if not (repeatable and connection.reused and connection.silent):
                raise
        connection = await self._pool.connect(self._place, fresh=True)
        return await self._ask(connection, method, head, request, body)

    async def _short_body(self, request: RequestHeaders) -> bytes | None:
        """The body, if it can be had whole; None leaves it to be pumped."""
        if not request.has_body:
            return b""
        if request.chunked or request.expects_continue or (request.content_length or 0) > GATHER_BYTES:
            return None
        body = await self._client.gather()
        self._client.watch()
        return body

    async def _ask(
        self, connection: UpstreamConnection, method: str, head: bytes, request: RequestHeaders, body: bytes | None
    ) -> ResponseHead:
        self._connection = connection
        try:
            connection.begin(headless=method == "HEAD", response_limit=self._response_limit)
            connection.write(head + body if body else head)
            if body is None:
                self._client.pump(connection, chunked=request.chunked, expects_continue=request.expects_continue)
            else:
                connection.end_request()
            return await connection.head()
        except BaseException:
            connection.abort()
            raise

    async def answer(self, head: ResponseHead, send: Send, prefix: bytes) -> None:
        """Pass the answer on as it comes. Raises ResponseCut when it breaks off."""
        connection = self._connection
        status, headers = head
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": status,
                    "headers": response_headers(status, headers, prefix),
                }
            )
            more = True
            while more:
                body = await connection.read(self._read_limit)
                if connection.complete:
                    more = False
                    self._done()
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except ShoalError as error:
            connection.abort()
            raise ResponseCut(error.code) from error
        except BaseException:
            connection.abort()
            raise

    def _done(self) -> None:
        """Let the connection go before the last piece is sent, for a slow client may take long over that."""
        if not self._connection.request_sent:
            self._client.stop()  # the upstream wants no more of the body
        self._pool.release(self._place, self._connection)
