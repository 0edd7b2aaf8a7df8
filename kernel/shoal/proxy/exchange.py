"""One request and its answer, between a client and an upstream connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.errors import BadGateway, ShoalError
from shoal.proxy.failures import ResponseCut
from shoal.proxy.headers import response_headers

if TYPE_CHECKING:
    from shoal.proxy.asgi import Send
    from shoal.proxy.client import Client
    from shoal.proxy.headers import RequestHeaders
    from shoal.proxy.lease import Lease
    from shoal.proxy.pool import ConnectionPool, Destination
    from shoal.proxy.response import ResponseHead

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 section 9.2.2
GATHER_BYTES: Final = 64 * 1024
"""A body announced as no longer than this is read whole before the upstream is asked: one write, and repeatable."""
_CLOSE: Final = b"connection: close\r\n\r\n"


def gathers(request: RequestHeaders) -> bool:
    """Whether the body, if there is one, is read whole before the upstream is asked."""
    return not (request.chunked or request.expects_continue or (request.content_length or 0) > GATHER_BYTES)


def repeatable(method: str, request: RequestHeaders) -> bool:
    """Whether the request may be sent again on another connection, should the first one be lost without an answer."""
    return method in IDEMPOTENT and gathers(request)


class ProxiedExchange:
    """`ask`, then `answer`.

    A request that is not repeatable goes out on a new connection, or on one that is vouched for, by another or by what
    the upstream is known to be. On any other the upstream may be closing just now, which looks the same as having done
    what it was asked (RFC 9112 section 9.3.1).

    Args:
        response_limit: seconds from the request's last byte to the answer's head.
        read_limit: seconds of silence within the answer; 0 = any, unless the answer states its length.
        kept: the upstream closes no idle connection, and writes nothing behind an answer's end.
    """

    __slots__ = ("_client", "_kept", "_lease", "_place", "_pool", "_read_limit", "_response_limit", "_was_stale")

    def __init__(
        self,
        pool: ConnectionPool,
        place: Destination,
        client: Client,
        *,
        response_limit: float,
        read_limit: float,
        kept: bool = False,
    ) -> None:
        self._pool = pool
        self._place = place
        self._client = client
        self._response_limit = response_limit
        self._read_limit = read_limit
        self._kept = kept
        self._lease: Lease
        self._was_stale = False

    async def ask(self, method: str, head: bytes, request: RequestHeaders) -> ResponseHead:
        """Send the request and wait for the answer's head.

        A reused connection that the upstream had closed in silence, or on which something else came than an answer, is
        replaced once.

        Raises BadGateway, GatewayTimeout, InternalError.
        """
        body = await self._short_body(request)
        if not repeatable(method, request):
            lease = self._idle() or await self._pool.connect(self._place, fresh=True)
            last = body is not None and not (self._kept or self._pool.keeps(self._place, lease))
            return await self._ask(lease, method, head, request, body, last=last)
        lease = self._pool.reuse(self._place) or await self._pool.connect(self._place)
        try:
            return await self._ask(lease, method, head, request, body)
        except BadGateway:
            if not self._was_stale:
                raise
        lease = await self._pool.connect(self._place, fresh=True)
        return await self._ask(lease, method, head, request, body)

    def _idle(self) -> Lease | None:
        """A connection for what must not be sent twice, or None."""
        return self._pool.recent(self._place) if self._kept else self._pool.vouched(self._place)

    async def _short_body(self, request: RequestHeaders) -> bytes | None:
        """The body, if it can be had whole; None leaves it to be pumped."""
        if not request.has_body:
            return b""
        if not gathers(request):
            return None
        body = await self._client.gather()
        self._client.watch()
        return body

    async def _ask(
        self,
        lease: Lease,
        method: str,
        head: bytes,
        request: RequestHeaders,
        body: bytes | None,
        *,
        last: bool = False,
    ) -> ResponseHead:
        self._lease = lease
        head = head[:-2] + _CLOSE if last else head
        try:
            lease.begin(
                headless=method == "HEAD", response_limit=self._response_limit, last=last, keeps_streams=self._kept
            )
            lease.write(head + body if body else head)
            if body is None:
                self._client.pump(lease, chunked=request.chunked, expects_continue=request.expects_continue)
            else:
                lease.end_request()
            return await lease.head()
        except BaseException:
            self._was_stale = lease.stale
            lease.abort()
            raise

    async def answer(self, head: ResponseHead, send: Send, prefix: bytes) -> None:
        """Pass the answer on as it comes. Raises ResponseCut when it breaks off."""
        lease = self._lease
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
                body = await lease.read(self._read_limit)
                if lease.complete:
                    more = False
                    self._done()
                await send({"type": "http.response.body", "body": body, "more_body": more})
        except ShoalError as error:
            lease.abort()
            raise ResponseCut(error.code) from error
        except BaseException:
            lease.abort()
            raise

    def _done(self) -> None:
        """Let the connection go before the last piece is sent, for a slow client may take long over that.

        The lease ends here: what happens to this exchange from now on, its client leaving for one, touches nobody's
        connection.
        """
        if not self._lease.request_sent:
            self._client.stop()  # the upstream wants no more of the body
        self._pool.release(self._place, self._lease)
