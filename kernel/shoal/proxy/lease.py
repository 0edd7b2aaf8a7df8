"""`Lease`: one exchange's hold on a pooled connection, which ends before the connection can serve anybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from shoal.proxy.failures import response_failed

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from shoal.proxy.connection import UpstreamConnection
    from shoal.proxy.response import ResponseHead


class _Nobody:
    """Stands for the connection of a lease that is over."""

    def __getattr__(self, name: str) -> NoReturn:
        raise response_failed("has been let go")


_NOBODY = cast("UpstreamConnection", _Nobody())


class Lease:
    """What the pool hands out: the only way from an exchange to its connection.

    `surrender`, which the pool calls when it takes the connection back, and `abort` end the hold. From then on `fail`
    and `abort` do nothing, and everything else raises BadGateway, so whoever still has the lease reaches nobody.
    The methods are those of `UpstreamConnection`.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection

    @property
    def over(self) -> bool:
        """The hold has ended."""
        return self._connection is _NOBODY

    def surrender(self) -> UpstreamConnection | None:
        """End the hold; the connection, or None where it had ended before."""
        connection, self._connection = self._connection, _NOBODY
        return None if connection is _NOBODY else connection

    def abort(self) -> None:
        """End the hold and drop the connection."""
        connection = self.surrender()
        if connection is not None:
            connection.abort()

    def fail(self, error: Exception) -> None:
        """End the exchange with ``error`` and drop the connection."""
        if not self.over:
            self._connection.fail(error)

    # The exchange, as `UpstreamConnection` has it.

    def begin(self, *, headless: bool, response_limit: float, last: bool = False, keeps_streams: bool = False) -> None:
        """Start the exchange."""
        self._connection.begin(headless=headless, response_limit=response_limit, last=last, keeps_streams=keeps_streams)

    def write(self, data: bytes) -> None:
        """Queue a piece of the request."""
        self._connection.write(data)

    def write_chunk(self, data: bytes) -> None:
        """Queue a piece of the request's body as one chunk."""
        self._connection.write_chunk(data)

    def drain(self) -> Awaitable[None]:
        """Wait until the transport takes more."""
        return self._connection.drain()

    def end_request(self) -> None:
        """The request's last byte is queued."""
        self._connection.end_request()

    def go_ahead(self, limit: float) -> Awaitable[bool]:
        """Whether to send the body, after ``Expect: 100-continue``."""
        return self._connection.go_ahead(limit)

    def head(self) -> Awaitable[ResponseHead]:
        """The answer's head."""
        return self._connection.head()

    def read(self, limit: float) -> Awaitable[bytes]:
        """The next piece of the body."""
        return self._connection.read(limit)

    @property
    def complete(self) -> bool:
        """The answer ended, and all of it was read."""
        return self._connection.complete

    @property
    def request_sent(self) -> bool:
        """The request's last byte is queued."""
        return self._connection.request_sent

    @property
    def stale(self) -> bool:
        """The connection served somebody before, and now gave no answer at all: it had been closed, or was spoilt."""
        connection = self._connection
        return connection.served > 1 and connection.silent

    @property
    def connection(self) -> UpstreamConnection:
        """For the pool, while the hold lasts."""
        return self._connection
