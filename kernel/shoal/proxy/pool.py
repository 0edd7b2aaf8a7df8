"""Upstream connections, reused newest first and bounded: per address, and in total.

A lane holds what concerns one address, or one tunnel. A connection counts from the moment it is dialled to the moment
its transport is gone, so the bounds are on sockets. Whoever finds its lane full, or the whole pool, waits its turn; a
wait ends when a connection of the lane is parked or gone, and where the pool is full the connection idle longest makes
room.

Nobody gets at a connection but through a `Lease`, and the pool ends the lease before it does anything else with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache
from socket import socket
from typing import NamedTuple, TypeVar

from shoal.models.workload import Tunnel
from shoal.proxy.connection import UpstreamConnection
from shoal.proxy.failures import connection_failed, no_free_connection
from shoal.proxy.lease import Lease

MAX_CONNECTIONS = 4096
"""Upstream connections of the whole process."""
WITNESS_SECONDS, VOUCHED_SECONDS = 1.0, 0.1
"""How long a witness must have been idle, and how long a connection may have been for which it vouches."""
RECENT_SECONDS = 5.0
"""How long a connection may have been idle that an upstream surely keeps: on the way there somebody else may not."""
MAX_LOOKED_AT = 4
"""Idle connections of a lane, newest first, for which a witness is sought."""
MAX_RESTING = 2
"""Idle connections of a lane that are kept though nothing vouches for them: they become witnesses."""
CLOSE_SECONDS = 1.0
"""How long an upstream that said it closes the connection may take over it."""
LOOPBACK = "127.0.0.1"


class Destination(NamedTuple):
    """Where an address points: ``authority`` is what Host says, ``prefix`` what goes before every path.

    ``tunnel`` is given for a port without an address; ``host`` is then what the sandbox itself calls it.
    """

    host: str
    port: int
    authority: bytes
    prefix: bytes
    tunnel: Tunnel | None = None

    @property
    def key(self) -> Key:
        """What its connections are kept under."""
        return self.tunnel or self.authority


Key = bytes | Tunnel
Connect = Callable[[Tunnel], Awaitable[socket]]
P = TypeVar("P", bound=asyncio.BaseProtocol)


@lru_cache(maxsize=4096)
def destination(address: str | Tunnel) -> Destination:
    """``host:port[/prefix]`` taken apart; an IPv6 host stands in brackets."""
    if isinstance(address, Tunnel):
        return Destination(LOOPBACK, address.port, f"{LOOPBACK}:{address.port}".encode(), b"", address)
    authority, slash, prefix = address.partition("/")
    host, _, port = authority.rpartition(":")
    return Destination(host.strip("[]"), int(port), authority.encode(), (slash + prefix).rstrip("/").encode())


async def open_connection(place: Destination, factory: Callable[[], P], connect: Connect | None) -> P:
    """A new connection there, by its address or through its tunnel. Raises OSError and ShoalError."""
    loop = asyncio.get_running_loop()
    if place.tunnel is None:
        _, protocol = await loop.create_connection(factory, place.host, place.port)
        return protocol
    assert connect is not None  # noqa: S101 - who knows tunnels knows the way
    sock = await connect(place.tunnel)
    try:
        _, protocol = await loop.create_connection(factory, sock=sock)
    except BaseException:
        sock.close()
        raise
    return protocol


class _Lane:
    """What concerns one address.

    Attributes:
        concurrent: the upstream has answered on one connection while it held another. One that serves its connections
            one after another answers on a new one only when those before it are closed.
    """

    __slots__ = ("callers", "concurrent", "idle", "open", "waiters")

    def __init__(self) -> None:
        self.idle: list[UpstreamConnection] = []
        self.open = 0
        self.concurrent = False
        self.callers = 0  # that wait or dial; the lane stays while there are any
        self.waiters: deque[asyncio.Future[None]] = deque()

    def has_witness(self, now: float, served: int, born: int) -> bool:
        """Whether an open connection is idle since `WITNESS_SECONDS`, older than ``born``, and has served more."""
        for witness in self.idle:  # the longest idle comes first
            if now - witness.idle_since < WITNESS_SECONDS:
                return False
            if witness.served > served and witness.born < born and witness.is_open():
                return True
        return False


class ConnectionPool:
    """Connections to sandboxes' ports.

    Args:
        connect: how tunnels are connected; None = there are none.
        connect_limit: seconds to wait for a turn, and again to connect.
        idle_limit: seconds that an unused connection is kept; 0 = none is.
        per_address: connections to one address.
        total: connections to all of them.
    """

    def __init__(
        self,
        *,
        connect_limit: float,
        idle_limit: float,
        per_address: int,
        total: int = MAX_CONNECTIONS,
        connect: Connect | None = None,
    ) -> None:
        self._connect_tunnel = connect
        self._connect_limit = connect_limit
        self._idle_limit = idle_limit
        self._per_address = per_address
        self._total = total
        self._lanes: dict[Key, _Lane] = {}
        self._tunnels: dict[str, set[Tunnel]] = {}  # those that have a lane, by sandbox
        self._open = 0
        self._idle: dict[UpstreamConnection, Key] = {}  # oldest first, with the lane
        self._waiters: list[asyncio.Future[None]] = []  # for room in the pool, whichever lane makes it
        self._closed = False

    @property
    def open(self) -> int:
        """Connections that exist, in use or not."""
        return self._open

    @property
    def idle(self) -> int:
        """Connections kept for reuse."""
        return len(self._idle)

    def reuse(self, place: Destination) -> Lease | None:
        """An idle connection, newest first, or None."""
        lane = self._lanes.get(place.key)
        while lane is not None and lane.idle:
            connection = lane.idle.pop()
            del self._idle[connection]
            if connection.unpark():
                return Lease(connection)
            connection.abort()
        return None

    def recent(self, place: Destination) -> Lease | None:
        """An idle connection that was in use `RECENT_SECONDS` ago, or None."""
        lane = self._lanes.get(place.key)
        if lane is None or not lane.idle:
            return None
        idle = asyncio.get_running_loop().time() - lane.idle[-1].idle_since
        return self.reuse(place) if idle <= RECENT_SECONDS else None

    def vouched(self, place: Destination) -> Lease | None:
        """An idle connection that the upstream is surely not just closing, or None.

        Upstreams close a connection that was idle for long, served many requests, or is old. A witness is ahead of the
        connection in all three, and open: were the upstream about to close the one, it had closed the other before.
        """
        lane = self._lanes.get(place.key)
        if lane is None:
            return None
        now = asyncio.get_running_loop().time()
        for connection in lane.idle[: -MAX_LOOKED_AT - 1 : -1]:
            if now - connection.idle_since > VOUCHED_SECONDS:
                break
            if lane.has_witness(now, connection.served, connection.born):
                lane.idle.remove(connection)
                del self._idle[connection]
                if connection.unpark():
                    return Lease(connection)
                connection.abort()
        return None

    def keeps(self, place: Destination, lease: Lease) -> bool:
        """Whether the connection is of use after one more request that is not repeatable."""
        lane = self._lanes.get(place.key)
        if lane is None or not lane.concurrent:
            return False
        if len(lane.idle) < MAX_RESTING:
            return True
        now = asyncio.get_running_loop().time()
        return lane.has_witness(now, lease.connection.served + 1, lease.connection.born)

    async def connect(self, place: Destination, *, fresh: bool = False) -> Lease:
        """A new connection or, when it takes waiting and unless it must be ``fresh``, one that was put back meanwhile.

        Raises InternalError when no turn comes in time, BadGateway when the upstream can't be connected to in time.
        """
        lane = self._lane(place)
        lane.callers += 1
        if fresh and not lane.concurrent:
            for connection in lane.idle:
                connection.close()
        try:
            lease = await self._turn(lane, place, fresh=fresh) if self._is_full(lane) else None
            return lease or Lease(await self._dial(lane, place))
        finally:
            lane.callers -= 1
            self._drop_if_unused(place.key)

    def _lane(self, place: Destination) -> _Lane:
        lane = self._lanes.get(place.key)
        if lane is None:
            lane = self._lanes[place.key] = _Lane()
            if place.tunnel is not None:
                self._tunnels.setdefault(place.tunnel.sandbox_id, set()).add(place.tunnel)
        return lane

    def release(self, place: Destination, lease: Lease) -> None:
        """The exchange is over, and so is its lease: keep the connection if it can serve another, else drop it."""
        connection = lease.surrender()
        if connection is None:
            return
        lane = self._lanes.get(place.key)
        if lane is not None and lane.idle and not lane.concurrent:
            lane.concurrent = lane.idle[0].is_open()
        if connection.closing:
            connection.await_close(CLOSE_SECONDS)
            return
        if lane is None or self._closed or not self._idle_limit or not connection.reusable:
            connection.abort()
            return
        connection.park(self._idle_limit)
        lane.idle.append(connection)
        self._idle[connection] = place.key
        self._wake(lane)

    def drop(self, sandbox_id: str) -> None:
        """Close what is idle of a sandbox's tunnels; what is in use goes on."""
        for tunnel in self._tunnels.get(sandbox_id, ()):
            for connection in list(self._lanes[tunnel].idle):
                connection.close()

    async def aclose(self) -> None:
        """Close what is idle; what is in use closes when its exchange ends."""
        self._closed = True
        for connection in list(self._idle):
            connection.close()

    def _is_full(self, lane: _Lane) -> bool:
        return lane.open >= self._per_address or self._open >= self._total

    async def _turn(self, lane: _Lane, place: Destination, *, fresh: bool) -> Lease | None:
        """Wait for a connection that is put back, or until lane and pool have room for a new one (None)."""
        try:
            async with asyncio.timeout(self._connect_limit):
                while self._is_full(lane):
                    if not fresh and (lease := self.reuse(place)):
                        return lease
                    self._make_room(lane)
                    await self._queue(lane)
        except TimeoutError:
            raise no_free_connection() from None
        return None

    def _make_room(self, lane: _Lane) -> None:
        """Close an idle connection where that helps; its room is there when the transport is gone."""
        if lane.open >= self._per_address:
            if lane.idle:
                lane.idle[0].close()
        elif self._idle:
            next(iter(self._idle)).close()

    async def _queue(self, lane: _Lane) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = lane.waiters if lane.open >= self._per_address else self._waiters
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake(lane)  # the turn came, and somebody else can use it
            else:
                queue.remove(turn)
            raise

    def _wake(self, lane: _Lane) -> None:
        """Something changed for ``lane``: its next in line looks again, or everyone who waits for the pool."""
        while lane.waiters:
            turn = lane.waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        waiters, self._waiters = self._waiters, []
        for turn in waiters:
            if not turn.done():
                turn.set_result(None)

    async def _dial(self, lane: _Lane, place: Destination) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        lane.open += 1
        self._open += 1
        try:
            async with asyncio.timeout(self._connect_limit):
                connection = await open_connection(place, lambda: UpstreamConnection(loop), self._connect_tunnel)
        except BaseException as error:
            self._gone(lane, place.key)
            if isinstance(error, OSError):  # a TimeoutError is one
                raise connection_failed() from error
            raise
        connection.on_lost = lambda lost: self._lost(lane, place.key, lost)
        if connection.closed:
            self._gone(lane, place.key)
            raise connection_failed()
        return connection

    def _lost(self, lane: _Lane, key: Key, connection: UpstreamConnection) -> None:
        if self._idle.pop(connection, None) is not None:
            lane.idle.remove(connection)
        self._gone(lane, key)

    def _gone(self, lane: _Lane, key: Key) -> None:
        lane.open -= 1
        self._open -= 1
        self._wake(lane)
        self._drop_if_unused(key)

    def _drop_if_unused(self, key: Key) -> None:
        lane = self._lanes.get(key)
        if lane is not None and not lane.open and not lane.callers:
            del self._lanes[key]
            if isinstance(key, Tunnel):
                self._forget(key)

    def _forget(self, tunnel: Tunnel) -> None:
        tunnels = self._tunnels[tunnel.sandbox_id]
        tunnels.discard(tunnel)
        if not tunnels:
            del self._tunnels[tunnel.sandbox_id]
